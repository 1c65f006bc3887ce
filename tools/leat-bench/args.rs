//! The command line: options common to all modes, and the modes with their own.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::stan::args::Work;
use crate::units::{self, Batch, CpuList, ServerUrl};

/// Load generator for NATS servers: throughput, latency from the intended send time, and the server's CPU per message.
///
/// One thread with an event loop owns all connections, so on a machine with two cores the server gets one and the load
/// the other. Without a mode, `--embedded` or `--compare` runs a short set of everything.
#[derive(Parser, Clone, Debug)]
#[command(name = "leat-bench", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) mode: Option<Mode>,
}

/// Options every mode understands.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Server: `nats://[user:pass@|token@]host:port`
    #[arg(long, short, global = true, default_value = "nats://127.0.0.1:4222", value_name = "URL")]
    pub(crate) url: ServerUrl,
    /// Payload bytes: 16, 1k, 64KiB
    #[arg(long, short, global = true, default_value = "128", value_parser = units::size, value_name = "BYTES")]
    pub(crate) size: usize,
    /// Subject, or its beginning where several are needed
    #[arg(long, global = true, default_value = "bench")]
    pub(crate) subject: String,
    /// Spread the messages over this many subjects
    #[arg(long, global = true, default_value_t = 1, value_name = "N")]
    pub(crate) subjects: usize,
    /// Send messages with this many header fields (HPUB)
    #[arg(long, global = true, default_value_t = 0, value_name = "N")]
    pub(crate) headers: usize,
    /// Most that one write takes: bytes (64KiB) or messages (1msg)
    #[arg(long, global = true, default_value = "64KiB")]
    pub(crate) batch: Batch,
    /// Most bytes published but not yet received, per subscriber [default: 4 MiB, less for over 16 subscribers]; with
    /// `stan`, most publishes of a client without an acknowledgement [default: 4096]
    #[arg(long, global = true, value_parser = units::size, value_name = "BYTES")]
    pub(crate) window: Option<usize>,
    /// Length of the measured window [default: 5s; 2s in a suite]
    #[arg(long, short, global = true, value_parser = units::duration, value_name = "TIME")]
    pub(crate) duration: Option<Duration>,
    /// Send exactly this many messages per publisher (or requests in total) instead of a duration
    #[arg(long, short = 'n', global = true, value_parser = units::number, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Load before the measured window; not used with --count
    #[arg(long, global = true, default_value = "500ms", value_parser = units::duration, value_name = "TIME")]
    pub(crate) warmup: Duration,
    /// Open loop: send this many per second in total on a fixed schedule, and measure each from its intended time
    #[arg(long, short, global = true, value_parser = units::number, value_name = "N")]
    pub(crate) rate: Option<u64>,
    /// Never sleep in the load threads, so that no wake-up of ours is in the latency
    #[arg(long, alias = "sender-spin", global = true)]
    pub(crate) spin: bool,
    /// End everything after this time, whatever happens
    #[arg(long, global = true, default_value = "5m", value_parser = units::duration, value_name = "TIME")]
    pub(crate) max_time: Duration,
    /// CPUs for the load threads, in turn: 1 or 1,2
    #[arg(long, global = true, value_name = "CPUS")]
    pub(crate) pin: Option<CpuList>,
    /// Load threads; connections are dealt out in turn
    #[arg(long, global = true, default_value_t = 1, value_name = "N")]
    pub(crate) threads: usize,
    /// Process of the server, to report its CPU time and memory
    #[arg(long, global = true)]
    pub(crate) pid: Option<u32>,
    /// The same, read from a file
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "pid")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Second server: do the same work on both in alternation, report the ratios
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) compare: Option<ServerUrl>,
    /// Process of the second server
    #[arg(long, global = true, value_name = "PID")]
    pub(crate) compare_pid: Option<u32>,
    /// The same, read from a file
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "compare_pid")]
    pub(crate) compare_pid_file: Option<PathBuf>,
    /// Pairs of runs with --compare; runs per row of a suite [default: 5 with --compare, 1 in a suite without]
    #[arg(long, global = true, value_name = "N")]
    pub(crate) rounds: Option<usize>,
    /// Start a broker for the run (the `leat` next to this program) and stop it afterwards
    #[arg(long, global = true)]
    pub(crate) embedded: bool,
    /// Further arguments for the embedded broker, separated by blanks
    #[arg(long, global = true, value_name = "ARGS", allow_hyphen_values = true)]
    pub(crate) embedded_args: Option<String>,
    /// CPUs for the embedded broker, or `all` [default: 0 where there are several; the load then goes to 1]
    #[arg(long, global = true, value_name = "CPUS")]
    pub(crate) embedded_cpus: Option<String>,
    /// Print one JSON document instead of a table
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write the latency distribution for the HdrHistogram plotter (with --compare also FILE.b)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
    /// No progress bar
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// What to do.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Mode {
    /// Publish only; counts what the server has processed (PING/PONG)
    Pub {
        /// Publishing connections
        #[arg(long, default_value_t = 1, value_name = "N")]
        publishers: usize,
    },
    /// Subscribe only; counts what others publish
    Sub {
        /// Subscribing connections
        #[arg(long, default_value_t = 1, value_name = "N")]
        subs: usize,
        /// Join this queue group
        #[arg(long)]
        queue: Option<String>,
        /// Measure latency from the stamps that `pub --rate` writes on this machine
        #[arg(long)]
        latency: bool,
    },
    /// One publisher to one subscriber, N independent pairs each on its own subject
    Pubsub {
        /// Pairs
        #[arg(long, default_value_t = 1, value_name = "N")]
        pairs: usize,
    },
    /// One publisher to N subscribing connections
    Fanout {
        /// Subscribing connections
        #[arg(long, default_value_t = 10, value_name = "N")]
        subs: usize,
    },
    /// Publishers to the members of one queue group
    Queue {
        /// Members of the group, each with its own connection
        #[arg(long, default_value_t = 10, value_name = "N")]
        members: usize,
        /// Publishing connections
        #[arg(long, default_value_t = 1, value_name = "N")]
        publishers: usize,
    },
    /// Requests and replies, responder included
    Request {
        /// Requests outstanding at any time
        #[arg(long, default_value_t = 1, value_name = "N")]
        parallel: usize,
        /// Requesting connections [default: one per outstanding request]
        #[arg(long, value_name = "N")]
        connections: Option<usize>,
        /// Responding connections, in one queue group
        #[arg(long, default_value_t = 1, value_name = "N")]
        responders: usize,
        /// SUB, UNSUB and a fresh inbox for each request instead of one wildcard inbox
        #[arg(long)]
        inbox_per_request: bool,
    },
    /// Open many connections, hold them idle, report rate, memory and idle CPU
    Connect {
        /// Connections
        #[arg(long, default_value = "1000", value_parser = units::number, value_name = "N")]
        connections: u64,
        /// Connections being opened at the same time
        #[arg(long, default_value_t = 64, value_name = "N")]
        in_flight: usize,
        /// How long to hold them idle
        #[arg(long, default_value = "3s", value_parser = units::duration, value_name = "TIME")]
        hold: Duration,
        /// Give each connection one subscription
        #[arg(long)]
        with_sub: bool,
    },
    /// A large mixed set of literal, `*` and `>` subscriptions; every message matches the same number of them
    Subs {
        /// Subscriptions
        #[arg(long, default_value = "100k", value_parser = units::number, value_name = "N")]
        subscriptions: u64,
        /// How many of them each message matches
        #[arg(long, default_value_t = 3, value_name = "N")]
        matches: usize,
        /// Connections that share the subscriptions
        #[arg(long, default_value_t = 10, value_name = "N")]
        connections: usize,
        /// Different subjects that are published
        #[arg(long, default_value_t = 1000, value_name = "N")]
        published_subjects: usize,
    },
    /// PING to PONG latency on a schedule (--rate, default 1000/s), optionally beside saturating publishers
    Ping {
        /// Saturating publishers without subscribers
        #[arg(long, default_value_t = 0, value_name = "N")]
        publishers: usize,
        /// Saturating pairs of publisher and subscriber
        #[arg(long, default_value_t = 0, value_name = "N")]
        pairs: usize,
    },
    /// Latency on a schedule (--rate, default 2000/s) without and then beside TLS handshakes, many at the same time
    Handshakes {
        /// TLS connections that are opened at once; when all of them have had their first PONG, the next ones are
        #[arg(long, default_value_t = 1000, value_name = "N")]
        connections: usize,
        /// Pairs of publisher and subscriber in clear
        #[arg(long, default_value_t = 1, value_name = "N")]
        pairs: usize,
        /// Where the TLS connections go [default: --url, to a server that accepts both]
        #[arg(long, value_name = "URL")]
        tls_url: Option<ServerUrl>,
        /// Certificates of the authorities that the server's certificate is checked against, PEM
        #[arg(long, value_name = "FILE")]
        tlscacert: PathBuf,
        /// CPUs for the handshakes [default: those of the load, whenever the load leaves them idle]
        #[arg(long, value_name = "CPUS")]
        handshake_cpus: Option<CpuList>,
    },
    /// Work against a NATS Streaming service; --subject is the channel, --subjects how many channels
    Stan {
        /// Cluster id of the service
        #[arg(long, global = true, default_value = "test-cluster", value_name = "ID")]
        cluster: String,
        #[command(subcommand)]
        work: Work,
    },
    /// The whole performance table, against one server or two, as markdown and JSON
    Suite {
        /// Only rows whose name contains this
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Also write the JSON document here
        #[arg(long, value_name = "FILE")]
        json_file: Option<PathBuf>,
    },
    /// A server that does next to nothing, to find the limits of this program
    #[command(hide = true)]
    Sink {
        /// Address to listen on
        #[arg(long, default_value = "127.0.0.1:4999")]
        listen: std::net::SocketAddr,
    },
}

impl Options {
    /// Length of the measured window.
    pub(crate) fn window_time(&self) -> Duration {
        self.duration.unwrap_or(Duration::from_secs(5))
    }

    /// The options as a JSON object for reports; credentials left out.
    pub(crate) fn as_json(&self) -> serde_json::Value {
        serde_json::json!({
            "size_bytes": self.size,
            "subject": self.subject,
            "subjects": self.subjects,
            "headers": self.headers,
            "batch": self.batch.to_string(),
            "window_bytes": self.window,
            "duration_s": if self.count.is_some() { None } else { Some(self.window_time().as_secs_f64()) },
            "warmup_s": if self.count.is_some() { 0.0 } else { self.warmup.as_secs_f64() },
            "count": self.count,
            "rate_per_s": self.rate,
            "spin": self.spin,
            "threads": self.threads,
            "pin": self.pin.as_ref().map(ToString::to_string),
        })
    }
}

impl Mode {
    /// The mode's name on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Mode::Pub { .. } => "pub",
            Mode::Sub { .. } => "sub",
            Mode::Pubsub { .. } => "pubsub",
            Mode::Fanout { .. } => "fanout",
            Mode::Queue { .. } => "queue",
            Mode::Request { .. } => "request",
            Mode::Connect { .. } => "connect",
            Mode::Subs { .. } => "subs",
            Mode::Ping { .. } => "ping",
            Mode::Handshakes { .. } => "handshakes",
            Mode::Stan { .. } => "stan",
            Mode::Suite { .. } => "suite",
            Mode::Sink { .. } => "sink",
        }
    }

    /// The mode's own parameters as a JSON object.
    pub(crate) fn as_json(&self) -> serde_json::Value {
        use serde_json::json;
        match self {
            Mode::Pub { publishers } => json!({ "publishers": publishers }),
            Mode::Sub { subs, queue, latency } => json!({ "subs": subs, "queue": queue, "latency": latency }),
            Mode::Pubsub { pairs } => json!({ "pairs": pairs }),
            Mode::Fanout { subs } => json!({ "subs": subs }),
            Mode::Queue { members, publishers } => json!({ "members": members, "publishers": publishers }),
            Mode::Request { parallel, connections, responders, inbox_per_request } => json!({
                "parallel": parallel, "connections": connections, "responders": responders,
                "inbox_per_request": inbox_per_request,
            }),
            Mode::Connect { connections, in_flight, hold, with_sub } => json!({
                "connections": connections, "in_flight": in_flight, "hold_s": hold.as_secs_f64(), "with_sub": with_sub,
            }),
            Mode::Subs { subscriptions, matches, connections, published_subjects } => json!({
                "subscriptions": subscriptions, "matches": matches, "connections": connections,
                "published_subjects": published_subjects,
            }),
            Mode::Ping { publishers, pairs } => json!({ "publishers": publishers, "pairs": pairs }),
            Mode::Handshakes { connections, pairs, tls_url, handshake_cpus, .. } => json!({
                "connections": connections, "pairs": pairs, "tls_url": tls_url.as_ref().map(ToString::to_string),
                "handshake_cpus": handshake_cpus.as_ref().map(ToString::to_string),
            }),
            Mode::Stan { cluster, work } => {
                json!({ "cluster": cluster, "work": work.name(), "work_options": work.as_json() })
            }
            Mode::Suite { .. } | Mode::Sink { .. } => json!({}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn common_options_may_follow_the_mode() {
        let cli = Cli::try_parse_from(["leat-bench", "fanout", "--subs", "100", "--size", "1k", "--rate", "50k"]);
        let cli = cli.expect("valid arguments");
        assert_eq!(cli.options.size, 1024);
        assert_eq!(cli.options.rate, Some(50_000));
        assert!(matches!(cli.mode, Some(Mode::Fanout { subs: 100 })));
    }

    #[test]
    fn common_options_may_follow_the_work_of_stan() {
        let cli = Cli::try_parse_from(["leat-bench", "stan", "pub", "--sync", "--cluster", "c", "--window", "256"]);
        let cli = cli.expect("valid arguments");
        assert_eq!(cli.options.window, Some(256));
        let Some(Mode::Stan { cluster, work: Work::Pub { clients: 1, sync: true } }) = cli.mode else {
            panic!("{:?}", cli.mode);
        };
        assert_eq!(cluster, "c");
    }
}
