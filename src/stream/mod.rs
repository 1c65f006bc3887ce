//! One stream: sequences, limits, retention, duplicates, and the indexes over its messages.
//!
//! A state machine without files and clock. It decides on every publish against its *pending* state (what has been
//! appended, flushed or not), hands records to a [`Sink`], and says in every answer which [`Pending`] it waits for. Only
//! what the log has flushed and [`placed`](Stream::placed) is visible to look-ups.
//!
//! **Order of calls.** Publishing: [`Stream::admit`] as often as there are messages, then once per turn
//! [`Stream::settle`]. When a batch is flushed: [`Stream::flushed`] with the proof, [`Stream::placed`] for each of its
//! runs in order (runs of a transaction when it is complete). Opening: [`Stream::restore`] from a snapshot or
//! [`Stream::new`], [`Stream::replay`] and [`Stream::replay_removal`] for every later run in the order of the log,
//! [`Stream::replayed`], then settle.
//!
//! **Removal is immediate, accounting follows.** Sizes and subjects of single messages are not in memory, except for the
//! oldest few. A message that is removed can no longer be found at once; if its details are not at hand it is *owed*:
//! its bytes and its subject are taken off when [`Stream::settle`] has been supplied with what a read finds. The number
//! of messages and the first and last number are exact always, the rest when settled; [`Stream::state`] insists on that.
//!
//! **Removals are durable** as ranges of numbers, appended before anything that could make their cause disappear;
//! those at the front also as the `first_live` of the next run of messages. Replay needs the details of what it
//! removes: the log may recycle a segment only when every removal of its messages is older than both checkpoints that
//! recovery may start from.

#![forbid(unsafe_code)]

mod config;
mod types;

use std::ops::RangeInclusive;

pub use config::{Accounting, Config, ConfigError, DUPLICATE_IDS_MAX, Discard, Durability, Retention};
pub use types::{
    Admitted, Appended, BatchRefused, Block, Checks, Full, Inbound, Lookup, NEVER, Purge, Purged, Refusal, Refused,
    Rollup, SUBJECT_BYTES_MAX, Settled, Sink, State, SubjectSeq,
};

use crate::log::{Detail, Durable, Incarnation, Message, Pending, PlacedRun, Time, Urgency};

/// A stream.
pub struct Stream {}

/// Why the bytes of a snapshot or of removed ranges make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw(pub &'static str);

/// Ranges of sequence numbers as the content of a removal record.
pub fn encode_ranges(_ranges: &[RangeInclusive<u64>], _out: &mut Vec<u8>) { todo!() }
/// The reverse of [`encode_ranges`].
pub fn decode_ranges(_bytes: &[u8]) -> Result<Vec<RangeInclusive<u64>>, Flaw> { todo!() }

#[allow(unused_variables)]
impl Stream {
    /// An empty stream. `config` must be valid.
    pub fn new(config: Config, incarnation: Incarnation) -> Self { todo!() }
    pub fn config(&self) -> &Config { todo!() }
    pub fn incarnation(&self) -> Incarnation { todo!() }
    /// Replaces the configuration (validated); limits are enforced by the next settle. The caller appends the record.
    pub fn update(&mut self, config: Config, sink: &mut impl Sink) -> Result<(), Full> { todo!() }

    // ---- publishing
    pub fn admit(&mut self, now: Time, message: &Inbound<'_>, sink: &mut impl Sink) -> Result<Admitted, Refused> { todo!() }
    /// All or nothing, one transaction. The answer is that of the last message.
    pub fn admit_batch(&mut self, now: Time, messages: &[Inbound<'_>], sink: &mut impl Sink) -> Result<Admitted, BatchRefused> { todo!() }

    // ---- the log's progress
    /// The log has been flushed so far: what waited for it no longer does.
    pub fn flushed(&mut self, proof: &Durable) { todo!() }
    /// A run of messages of this stream may be read now; also for runs that cleaning has moved.
    pub fn placed(&mut self, run: &PlacedRun, sink: &mut impl Sink) { todo!() }

    // ---- limits
    pub fn settle(&mut self, now: Time, sink: &mut impl Sink) -> Settled { todo!() }
    /// Details of the needed messages of the block asked for, ascending.
    pub fn supply(&mut self, details: impl IntoIterator<Item = Detail>, sink: &mut impl Sink) { todo!() }
    /// When settle has something to do without a publish.
    pub fn next_deadline(&self) -> Option<Time> { todo!() }

    // ---- removing
    /// Deletes one message.
    pub fn remove(&mut self, seq: u64, sink: &mut impl Sink) -> Result<Pending, Refused> { todo!() }
    /// Interest and work-queue retention: nobody needs the message any more. Its removal rides along with the next settle.
    pub fn acknowledged(&mut self, seq: u64, sink: &mut impl Sink) { todo!() }
    pub fn purge(&mut self, purge: &Purge<'_>, now: Time, sink: &mut impl Sink) -> Result<Purged, Refused> { todo!() }
    /// The stream ends: reports everything as dead.
    pub fn end(self, sink: &mut impl Sink) { todo!() }

    // ---- numbers
    /// `None` if not settled.
    pub fn state(&self) -> Option<State> { todo!() }
    pub fn first_seq(&self) -> u64 { todo!() }
    pub fn last_seq(&self) -> u64 { todo!() }
    pub fn last_time(&self) -> Option<Time> { todo!() }
    pub fn messages(&self) -> u64 { todo!() }
    /// Greatest number that readers may see.
    pub fn visible(&self) -> u64 { todo!() }
    /// What an answer about the whole pending state waits for.
    pub fn pending(&self) -> Pending { todo!() }
    /// What an answer about one message waits for.
    pub fn pending_of(&self, seq: u64) -> Pending { todo!() }
    /// Whether the message lives and readers may see it.
    pub fn is_visible(&self, seq: u64) -> bool { todo!() }
    /// Whether the message must stay in the log: it lives, or its removal is not settled. What cleaning copies.
    pub fn is_needed(&self, seq: u64) -> bool { todo!() }

    // ---- look-ups (visible messages only)
    pub fn locate(&self, seq: u64) -> Lookup { todo!() }
    /// The first at or after `from`.
    pub fn next(&self, from: u64) -> Lookup { todo!() }
    /// The last at or before `upto`.
    pub fn prev(&self, upto: u64) -> Lookup { todo!() }
    /// The first that is not older than `time`.
    pub fn locate_time(&self, time: Time) -> Lookup { todo!() }
    /// The first at or after `from` whose subject `filter` matches.
    pub fn next_match(&self, filter: &[u8], from: u64) -> Lookup { todo!() }
    /// The last at or before `upto` whose subject `filter` matches.
    pub fn prev_match(&self, filter: &[u8], upto: u64) -> Lookup { todo!() }
    /// Messages whose subject `filter` matches; `None` if not settled.
    pub fn count_matching(&self, filter: &[u8]) -> Option<u64> { todo!() }
    /// Subjects that `filter` matches, with count and last number. `false` from `each` ends it. `None` if not settled.
    pub fn subjects(&self, filter: &[u8], each: impl FnMut(&[u8], u64, u64) -> bool) -> Option<()> { todo!() }

    // ---- persistence
    pub fn snapshot(&mut self, sink: &mut impl Sink, out: &mut Vec<u8>) -> Result<(), Full> { todo!() }
    pub fn restore(bytes: &[u8], incarnation: Incarnation) -> Result<Self, Flaw> { todo!() }
    /// Whether `replay` wants the messages of this run (a moved run whose messages are known needs no reading).
    pub fn wants(&self, run: &PlacedRun) -> bool { todo!() }
    /// A run of messages after the snapshot, with each record's bytes.
    pub fn replay<'a>(&mut self, run: &PlacedRun, messages: impl Iterator<Item = (Message<'a>, u32)>, sink: &mut impl Sink) { todo!() }
    pub fn replay_removal(&mut self, ranges: &[RangeInclusive<u64>], sink: &mut impl Sink) { todo!() }
    /// The end of replay.
    pub fn replayed(&mut self) { todo!() }
}
