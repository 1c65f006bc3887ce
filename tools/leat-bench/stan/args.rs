//! The command line of `stan`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::stan::wire::Start;
use crate::units;

/// Settings of subscriptions.
#[derive(Args, Clone, Debug)]
pub(crate) struct Reading {
    /// Messages under way to a subscription without an acknowledgement
    #[arg(long, default_value_t = 4096, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_in_flight: u32,
    /// Seconds until a message without an acknowledgement comes again
    #[arg(long, default_value_t = 30, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) ack_wait: u32,
    /// Durable name of the subscriptions
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub(crate) durable: String,
    /// Join this queue group
    #[arg(long, default_value = "", hide_default_value = true, value_name = "GROUP")]
    pub(crate) queue: String,
}

/// What to do against a streaming service.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Work {
    /// Publish and wait for acknowledgements; latency from publish to acknowledgement
    Pub {
        /// Publishing clients
        #[arg(long, default_value_t = 1, value_name = "N")]
        clients: usize,
        /// One publish at a time: the same as --window 1
        #[arg(long)]
        sync: bool,
    },
    /// Subscribe only; counts what is delivered
    Sub {
        /// Subscribing clients, each with a subscription to every channel
        #[arg(long, default_value_t = 1, value_name = "N")]
        clients: usize,
        /// Where to begin: `new`, `last`, `first`, `seq:NUMBER` or `ago:TIME`
        #[arg(long, default_value = "new", value_parser = start, value_name = "START")]
        start: Start,
        /// Acknowledge nothing: delivery ends when --max-in-flight is reached
        #[arg(long)]
        no_acks: bool,
        #[command(flatten)]
        reading: Reading,
    },
    /// Publish to subscribers that acknowledge; both rates, latency from publish to delivery
    Pubsub {
        /// Publishing clients
        #[arg(long, default_value_t = 1, value_name = "N")]
        pubs: usize,
        /// Subscribing clients, each with a subscription to every channel
        #[arg(long, default_value_t = 1, value_name = "N")]
        subs: usize,
        #[command(flatten)]
        reading: Reading,
    },
    /// Read --count messages (default 1 M) of one channel from its beginning, and acknowledge them
    Replay {
        /// First publish what the channel lacks; the server must keep that many (-mm 0 -mb 0)
        #[arg(long)]
        fill: bool,
        #[command(flatten)]
        reading: Reading,
    },
    /// Make many idle things and report the server's memory for each (--pid); durables stay behind when it ends
    Idle {
        /// Durable subscriptions, dealt to the channels; the server must permit that many (-msu 0)
        #[arg(long, default_value = "0", value_parser = units::number, value_name = "N")]
        durables: u64,
        /// Channels with one message each; the server must permit that many (-mc 0)
        #[arg(long, default_value = "0", value_parser = units::number, value_name = "N")]
        channels: u64,
    },
}

impl Work {
    /// The name on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Work::Pub { .. } => "pub",
            Work::Sub { .. } => "sub",
            Work::Pubsub { .. } => "pubsub",
            Work::Replay { .. } => "replay",
            Work::Idle { .. } => "idle",
        }
    }

    /// Whether subscribers share the messages, so that none sees all sequences.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Work::Sub { reading, .. } | Work::Pubsub { reading, .. } | Work::Replay { reading, .. } => {
                !reading.queue.is_empty()
            }
            Work::Pub { .. } | Work::Idle { .. } => false,
        }
    }

    /// The parameters as a JSON object.
    pub(crate) fn as_json(&self) -> Value {
        match self {
            Work::Pub { clients, sync } => json!({ "clients": clients, "sync": sync }),
            Work::Sub { clients, start, no_acks, reading } => json!({
                "clients": clients, "start": format!("{start:?}"), "no_acks": no_acks, "reading": reading.as_json(),
            }),
            Work::Pubsub { pubs, subs, reading } => {
                json!({ "pubs": pubs, "subs": subs, "reading": reading.as_json() })
            }
            Work::Replay { fill, reading } => json!({ "fill": fill, "reading": reading.as_json() }),
            Work::Idle { durables, channels } => json!({ "durables": durables, "channels": channels }),
        }
    }
}

impl Reading {
    fn as_json(&self) -> Value {
        json!({
            "max_in_flight": self.max_in_flight, "ack_wait_s": self.ack_wait, "durable": self.durable,
            "queue": self.queue,
        })
    }
}

fn start(text: &str) -> Result<Start, String> {
    match text.split_once(':') {
        None if text == "new" => Ok(Start::New),
        None if text == "last" => Ok(Start::Last),
        None if text == "first" => Ok(Start::First),
        Some(("seq", number)) => units::number(number).map(Start::Sequence),
        Some(("ago", time)) => units::duration(time).map(|time| Start::Ago(time.as_nanos() as u64)),
        _ => Err(format!("`{text}` is none of new, last, first, seq:NUMBER, ago:TIME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings() {
        for (text, expected) in [
            ("new", Start::New),
            ("last", Start::Last),
            ("first", Start::First),
            ("seq:7", Start::Sequence(7)),
            ("seq:1M", Start::Sequence(1_000_000)),
            ("ago:1.5s", Start::Ago(1_500_000_000)),
        ] {
            assert_eq!(start(text), Ok(expected), "{text}");
        }
        for text in ["", "old", "seq:", "seq:x", "ago:", "first:1"] {
            assert!(start(text).is_err(), "{text}");
        }
    }
}
