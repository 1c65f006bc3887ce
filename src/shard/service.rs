//! What a shard and a service inside it have to do with each other.
//!
//! A service is a part of the broker that takes messages as a client would and publishes as a client would, without a
//! socket: a protocol face of the store. Each shard has its own instance; instances of one service talk to each other
//! through the rings, behind the messages that caused what they say (*relays*).
//!
//! In each turn the shard first hands over what has arrived, in the order of arrival: messages on the service's subjects
//! and relays. Then comes [`Service::turn`]. What these calls put into the [`Outbox`] is carried out in its order before
//! the turn ends, so that responses, and the deliveries behind them, reach a connection in the order in which the
//! service gave them, on whichever shard the connection is.
//!
//! Where output has to leave in mid-turn, what has arrived until then is handed over before that, and may be so several
//! times in a turn. [`Service::turn`] comes only if something was handed over, a request for a file has ended, it is
//! due, or there is room for deliveries again; and again in the same turn if it has said something to itself.
//!
//! A service lives in the default account. The subjects that it publishes to are not mapped, and what it publishes is
//! nobody's: it is not counted as received, and but for what it [asks](Outbox::ask) nobody is told if nobody takes it.

use std::ops::Range;

use crate::log::{LogId, Outcome, Request, RequestId, Time};
use crate::monitor::{ServiceSnapshot, ServiceWant};

/// Slot that stands for a service in place of a connection.
pub const SERVICE: u32 = u32::MAX;

/// Whoever has sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The shard of its connection.
    pub shard: u16,
    /// Slot of the connection there; [`SERVICE`] for a service.
    pub conn: u32,
    /// Id of the connection, since slots are reused; 0 for a service.
    pub cid: u64,
}

/// A message for a service.
#[derive(Clone, Copy, Debug)]
pub struct Mail<'a> {
    /// Which of the service's subscriptions it came through.
    pub tag: u32,
    /// Who has sent it.
    pub source: Source,
    /// Its subject.
    pub subject: &'a [u8],
    /// Its reply subject; empty if there is none.
    pub reply: &'a [u8],
    /// Its payload, without headers.
    pub payload: &'a [u8],
}

/// A subject that a service listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The subject, perhaps with wildcards.
    pub pattern: Vec<u8>,
    /// Comes back with each message.
    pub tag: u32,
    /// Whether each shard's instance takes what comes from the connections and the instance of its own shard, and no
    /// other shard hears of the subscription. Otherwise messages come from all shards.
    pub of_own_shard: bool,
}

/// Subjects whose last two tokens may be written as one: `a.bc` for `a.b.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// What stands before the two.
    pub prefix: &'static [u8],
    /// Bytes of the first of them.
    pub first_bytes: usize,
}

impl Joined {
    /// The subject with the two apart, if they are written as one.
    #[must_use]
    pub fn split(&self, subject: &[u8]) -> Option<Vec<u8>> {
        let token = subject.strip_prefix(self.prefix)?;
        let (first, second) = token.split_at_checked(self.first_bytes)?;
        let is_one = !second.is_empty() && memchr::memchr(b'.', token).is_none();
        is_one.then(|| [self.prefix, first, b".", second].concat())
    }
}

/// When a service's next turn is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// At once: a slice of work was used up. Not for want of room: that there is room again is told by itself.
    pub again: bool,
    /// Nanoseconds since 1970-01-01 UTC.
    pub deadline: Option<Time>,
}

/// A part of the broker that lives in a shard; see the module. `now` is nanoseconds since 1970-01-01 UTC.
pub trait Service {
    /// What it listens to, from the start to the end.
    fn subscriptions(&self) -> Vec<Subscription>;

    /// What its subscriptions also take, on all shards the same: subjects that match them when they are split.
    fn joined(&self) -> Option<Joined> {
        None
    }

    /// Takes a message.
    fn message(&mut self, now: Time, mail: &Mail<'_>, out: &mut Outbox);

    /// Takes what another shard's instance has said, or this one's to itself.
    fn relayed(&mut self, now: Time, from: u16, source: Source, said: &[u8], out: &mut Outbox);

    /// What was [asked](Outbox::ask) under this number has gone nowhere: nobody listens to its subject.
    fn unheard(&mut self, now: Time, number: u64, out: &mut Outbox) {
        let _ = (now, number, out);
    }

    /// Does what is left to do in this turn. While `may_deliver` is false there is no room for deliveries in rings: what
    /// has to be sent now is sent, and everything else waits.
    fn turn(&mut self, now: Time, may_deliver: bool, out: &mut Outbox) -> Due;

    /// Gives out the requests for files that the turn has left. Asked after [`Service::turn`] and whatever came of it.
    fn take_requests(&mut self, requests: &mut Vec<(LogId, Request)>);

    /// A request for a file has ended. `free` is the space left on the file system, if that has changed, in bytes.
    fn completed(&mut self, now: Time, log: LogId, id: RequestId, outcome: Outcome, free: Option<u64>);

    /// Nothing has happened for a while: gives back memory that only work needs.
    fn rest(&mut self) {}

    /// Begins a clean stop: nothing more will be asked of it but turns, until [`Service::is_stopped`]. Connections have
    /// been closed, and after ten seconds the shard leaves in any case.
    fn stop(&mut self, now: Time);

    /// Whether the stop is complete.
    fn is_stopped(&self) -> bool;

    /// What monitoring wants to know.
    fn snapshot(&mut self, now: Time, want: &ServiceWant) -> ServiceSnapshot;
}

/// What a service wants to be done, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
enum Entry {
    Publish {
        subject: Range<usize>,
        tail: Range<usize>,
        reply_bytes: usize,
        argument_bytes: usize,
        number: Option<u64>,
    },
    Relay {
        to: Option<u16>,
        source: Source,
        said: Range<usize>,
    },
    Stall {
        source: Source,
        millis: u8,
    },
}

/// One thing that is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Errand<'a> {
    /// Publish, as a message of the service.
    Publish {
        /// Where to.
        subject: &'a [u8],
        /// What follows the subject in the message as it is published: ` [reply ]<bytes>\r\n<payload>\r\n`.
        tail: &'a [u8],
        /// Bytes of the reply subject.
        reply_bytes: usize,
        /// Bytes of `tail` up to the payload.
        argument_bytes: usize,
        /// If it goes nowhere, [`Service::unheard`] is told of this number.
        number: Option<u64>,
    },
    /// Say something to the instance of one shard, or to those of all shards, this one included: here it is heard in
    /// the same turn. `source` counts as the sender: its connection is not read while there is no room.
    Relay {
        /// The shard; `None` for all.
        to: Option<u16>,
        /// Whose message has caused it.
        source: Source,
        /// What.
        said: &'a [u8],
    },
    /// Read a connection more slowly.
    Stall {
        /// Which.
        source: Source,
        /// For so many milliseconds.
        millis: u8,
    },
}

impl Outbox {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Publishes a message whose payload of `payload_bytes` is written by `write`.
    pub fn publish(&mut self, subject: &[u8], reply: &[u8], payload_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.push(subject, reply, None, payload_bytes, write);
    }

    /// Publishes a message without payload, and has [`Service::unheard`] told if nobody listens.
    pub fn ask(&mut self, subject: &[u8], reply: &[u8], number: u64) {
        self.push(subject, reply, Some(number), 0, |_| ());
    }

    fn push(
        &mut self,
        subject: &[u8],
        reply: &[u8],
        number: Option<u64>,
        payload_bytes: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let bytes = &mut self.bytes;
        let from = bytes.len();
        bytes.extend_from_slice(subject);
        let subject = from..bytes.len();
        bytes.push(b' ');
        if !reply.is_empty() {
            bytes.extend_from_slice(reply);
            bytes.push(b' ');
        }
        bytes.extend_from_slice(itoa::Buffer::new().format(payload_bytes).as_bytes());
        bytes.extend_from_slice(b"\r\n");
        let body = bytes.len();
        write(bytes);
        debug_assert_eq!(bytes.len() - body, payload_bytes, "the size was announced");
        bytes.extend_from_slice(b"\r\n");
        let tail = subject.end..bytes.len();
        let argument_bytes = body - subject.end;
        self.entries.push(Entry::Publish { subject, tail, reply_bytes: reply.len(), argument_bytes, number });
    }

    /// Publishes a message.
    pub fn send(&mut self, subject: &[u8], reply: &[u8], payload: &[u8]) {
        self.publish(subject, reply, payload.len(), |bytes| bytes.extend_from_slice(payload));
    }

    /// Says something to the instance of a shard, or to all of them; see [`Errand::Relay`].
    pub fn relay(&mut self, to: Option<u16>, source: Source, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.bytes.len();
        write(&mut self.bytes);
        self.entries.push(Entry::Relay { to, source, said: from..self.bytes.len() });
    }

    /// Has a connection read more slowly.
    pub fn stall(&mut self, source: Source, millis: u8) {
        self.entries.push(Entry::Stall { source, millis });
    }

    /// What is to be done, in order.
    pub fn errands(&self) -> impl Iterator<Item = Errand<'_>> {
        self.entries.iter().map(|entry| match entry {
            Entry::Publish { subject, tail, reply_bytes, argument_bytes, number } => Errand::Publish {
                subject: &self.bytes[subject.clone()],
                tail: &self.bytes[tail.clone()],
                reply_bytes: *reply_bytes,
                argument_bytes: *argument_bytes,
                number: *number,
            },
            Entry::Relay { to, source, said } => {
                Errand::Relay { to: *to, source: *source, said: &self.bytes[said.clone()] }
            }
            Entry::Stall { source, millis } => Errand::Stall { source: *source, millis: *millis },
        })
    }

    /// Empties it and keeps its buffers, unless they have grown out of proportion.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        if self.bytes.capacity() > BYTES_KEPT {
            *self = Self::default();
        }
    }
}

/// Buffer capacity that an emptied outbox keeps.
const BYTES_KEPT: usize = 1 << 20;
