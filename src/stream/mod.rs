//! One stream: sequences, limits, retention, duplicates, and the indexes over its messages.
//!
//! A state machine without files and clock. It decides on every publish against its *pending* state (what has been
//! appended, flushed or not), hands records to a [`Sink`], and says in every answer which [`Pending`] it waits for. Only
//! what the log has flushed and [`placed`](Stream::placed) is visible to look-ups; in streams that live in memory,
//! everything at once.
//!
//! **Order of calls.** Publishing: [`Stream::admit`] as often as there are messages, then once per turn
//! [`Stream::settle`], before the batch is closed. When a batch is flushed: [`Stream::placed`] for each of its runs of
//! messages in order (runs of a transaction when all of it is flushed), then [`Stream::flushed`] with the proof.
//! Opening: [`Stream::new`], or [`Stream::restore`] from a snapshot; then batch by batch
//! [`Stream::replay_removal`] for each removal record, and [`Stream::replay`] for each run of messages;
//! [`Stream::replayed`], and settle.
//!
//! **Removal is immediate, accounting follows.** Sizes and subjects of single messages are not in memory, except for the
//! oldest few. A message that is removed can no longer be found at once; if its details are not at hand it is *owed*:
//! its bytes and its subject are taken off when [`Stream::settle`] has been supplied with what a read finds. The number
//! of messages and the first and last number are exact always, the rest when settled; [`Stream::state`] insists on that.
//!
//! **Removals are durable** as records (`removal.rs`) with ranges of numbers, and with what was taken off the accounts:
//! replay need not read what has gone. They are appended before the answer to whoever demanded them, or with the settle
//! of the turn; so before anything that could make their cause disappear. A segment may be recycled when nothing in it
//! [is needed](Stream::is_needed) any more *and* everything appended before that was found is flushed. Runs of messages
//! behind the older checkpoint are not recycled at all: replay executes what was done, in the same order.
//!
//! Cost: a message that is one of many on few subjects costs nothing but its share of an index entry (`index.rs`: 24
//! bytes per 64 KiB of log); a subject 65 to 80 bytes and its text (`subjects.rs`); a removed message between others 2
//! bytes at most (`seqs.rs`); a remembered id 22 to 24 bytes (`dedup.rs`); the oldest messages of a limited stream 32
//! bytes each, for at most 1,024 of them (`head.rs`).

#![forbid(unsafe_code)]

mod admit;
mod codec;
mod config;
mod dedup;
mod expiry;
mod head;
mod index;
mod limits;
mod lookup;
mod order;
mod placing;
mod purge;
mod removal;
mod removing;
mod replay;
mod seqs;
mod snapshot;
mod space;
mod subjects;
mod texts;
mod types;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

pub use config::{Accounting, Config, ConfigError, DUPLICATE_IDS_MAX, Discard, Durability, Retention};
pub use removal::{Account, Removal};
pub use types::{
    Admitted, Appended, BatchRefused, Block, Checks, Full, Inbound, Lookup, NEVER, Purge, Purged, Refusal, Refused,
    Rollup, SUBJECT_BYTES_MAX, Settled, Sink, State, SubjectSeq,
};

use dedup::Dedup;
use expiry::Expiry;
use head::{Head, Known};
use index::Index;
use limits::Search;
use placing::Piece;
use purge::Gather;
use removal::Accounts;
use seqs::Seqs;
use space::Space;
use subjects::{Kept, SubjectId, Subjects};

use crate::log::{Incarnation, Pending, Position, SegmentNo, Time, Urgency};

/// A stream. See the module.
pub struct Stream {
    config: Arc<Config>,
    incarnation: Incarnation,

    /// The first living message; `last` + 1 if there is none.
    first: u64,
    last: u64,
    /// Living messages.
    messages: u64,
    /// Bytes of the living messages and of those that are owed.
    bytes: u64,
    /// Time of the first message, if it is known.
    first_time: Option<Time>,
    last_time: Option<Time>,
    /// Id of the last message.
    last_id: Option<u128>,

    /// Numbers between `first` and `last` that do not live.
    deleted: Seqs,
    /// Messages that do not live but are still counted in `bytes`, in their subjects and in `space`.
    owed: Seqs,
    /// Those of them that went because of their age or their time.
    owed_by_age: Seqs,
    /// Messages whose details nobody could supply.
    lost: u64,
    /// Living messages that the greatest age does not touch.
    exempt: Seqs,
    /// Details of the oldest living messages.
    head: Head,
    subjects: Subjects,
    /// Subjects that may have too many messages of which the oldest are not known.
    crowded: std::collections::BTreeSet<SubjectId>,
    /// `None` as long as no message had an id.
    dedup: Option<Box<Dedup>>,
    expiry: Expiry,

    index: Index,
    space: Space,
    /// Further pieces of messages that lie in several batches, by number.
    pieces: BTreeMap<u64, Vec<Piece>>,
    /// The last message that the log has placed.
    placed: u64,
    /// The bits in the masks of the messages behind `bits_from`, as far as they are not placed.
    bits: VecDeque<u8>,
    bits_from: u64,

    /// The last number that went into each batch which is not flushed.
    in_flight: VecDeque<(Pending, u64)>,
    /// What the newest record waits for.
    latest: Pending,

    /// Removed numbers that the log does not know.
    unrecorded: Seqs,
    /// What has been taken off the accounts, and the log does not know.
    accounts: Accounts,
    /// The age limit has seen the oldest messages up to here: those that live are exempt.
    aged_upto: u64,
    /// What the block asked for is read for.
    search: Option<Box<Search>>,
    gathers: Vec<Gather>,
    grain: &'static Grain,
    /// In replay: removals that came before the messages they followed.
    #[expect(clippy::box_collection, reason = "a null pointer most of the time")]
    queued: Option<Box<VecDeque<Removal>>>,
}

/// How much is known in memory. Always [`GRAIN`], but for tests, which reach the limits of these with few messages.
#[derive(Clone, Copy, Debug)]
struct Grain {
    /// Details of oldest messages where limits take them away: 32 bytes each, filled by the read of a block or more.
    head: usize,
    /// The same elsewhere: enough to know the time of the first message.
    head_small: usize,
    /// Up to that limit of messages per subject, all of them are known one by one.
    kept_per_subject: u64,
    /// Bytes of log that an entry of the index covers.
    entry_log_bytes: u32,
}

const GRAIN: Grain = Grain { head: 1024, head_small: 16, kept_per_subject: 64, entry_log_bytes: 64 * 1024 };

/// Why the bytes of a snapshot or of removed ranges make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw(pub &'static str);

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Flaw {}

impl Stream {
    /// An empty stream. `config` is expected to be valid.
    #[must_use]
    pub fn new(config: Config, incarnation: Incarnation) -> Self {
        let first = config.first_seq.max(1);
        let mut head = Head::default();
        head.clear(first - 1);
        Self {
            config: config.shared(),
            incarnation,
            first,
            last: first - 1,
            messages: 0,
            bytes: 0,
            first_time: None,
            last_time: None,
            last_id: None,
            deleted: Seqs::default(),
            owed: Seqs::default(),
            owed_by_age: Seqs::default(),
            lost: 0,
            exempt: Seqs::default(),
            head,
            subjects: Subjects::new(),
            crowded: std::collections::BTreeSet::new(),
            dedup: None,
            expiry: Expiry::default(),
            index: Index::default(),
            space: Space::default(),
            pieces: BTreeMap::new(),
            placed: first - 1,
            bits: VecDeque::new(),
            bits_from: 0,
            in_flight: VecDeque::new(),
            latest: Pending::NONE,
            unrecorded: Seqs::default(),
            accounts: Accounts::default(),
            aged_upto: 0,
            search: None,
            gathers: Vec::new(),
            grain: &GRAIN,
            queued: None,
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which life of which stream this is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Replaces the configuration, which is expected to pass [`Config::validate_update`]. Limits are enforced by the
    /// next settle. The caller appends the record, after this call.
    ///
    /// # Errors
    /// The log takes no more at present; nothing has changed.
    pub fn update(&mut self, config: Config, sink: &mut impl Sink) -> Result<(), Full> {
        // What the old limits have removed must not come back under the new ones.
        self.record_removals(Urgency::RideAlong, sink)?;
        self.apply(config);
        Ok(())
    }

    /// As [`Stream::update`], for a configuration that replay has found.
    pub fn replay_update(&mut self, config: Config) {
        self.apply(config);
    }

    fn apply(&mut self, config: Config) {
        self.config = config.shared();
        self.aged_upto = 0;
        if !self.keeps_older() {
            self.subjects.forget_older();
        }
        self.find_crowded();
    }

    /// The number of the first message; the next number to be given if there is none.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.first
    }

    /// The greatest number given so far.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last
    }

    /// When the last number was given.
    #[must_use]
    pub fn last_time(&self) -> Option<Time> {
        self.last_time
    }

    /// Messages.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The numbers of the pending state; `None` if they are not [settled](Stream::settle).
    #[must_use]
    pub fn state(&self) -> Option<State> {
        if !self.is_settled() {
            return None;
        }
        Some(State {
            messages: self.messages,
            bytes: self.bytes,
            first_seq: if self.last == 0 { 0 } else { self.first },
            first_time: self.first_time,
            last_seq: self.last,
            last_time: self.last_time,
            subjects: self.subjects.len(),
            deleted: self.last + 1 - self.first - self.messages,
            after: self.latest,
        })
    }

    /// Whether all numbers are exact. Limits may still have something to do as time goes on.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.owed.is_empty() && self.crowded.is_empty() && (self.messages == 0 || self.first_time.is_some())
    }

    /// What an answer about the whole pending state waits for.
    #[must_use]
    pub fn pending(&self) -> Pending {
        self.latest
    }

    /// What an answer about one message waits for.
    #[must_use]
    pub fn pending_of(&self, seq: u64) -> Pending {
        let at = self.in_flight.partition_point(|(_, last)| *last < seq);
        self.in_flight.get(at).map_or(Pending::NONE, |(pending, _)| *pending)
    }

    /// The greatest number that readers may see.
    #[must_use]
    pub fn visible(&self) -> u64 {
        if self.config.is_memory() { self.last } else { self.placed }
    }

    /// Whether the message lives and readers may see it.
    #[must_use]
    pub fn is_visible(&self, seq: u64) -> bool {
        seq <= self.visible() && self.is_live(seq)
    }

    /// Whether the message must stay in the log: it lives, or is still to be accounted for. Cleaning copies what this
    /// says of, and readers for [`Stream::supply`] take it.
    #[must_use]
    pub fn is_needed(&self, seq: u64) -> bool {
        self.is_live(seq) || self.owed.contains(seq)
    }

    /// Messages that a read could not find for [`Stream::supply`], since the stream was opened: they can no longer be
    /// looked up, and still count in bytes and subjects.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What the stream occupies: bytes by segment.
    pub fn occupied(&self) -> impl Iterator<Item = (SegmentNo, u64)> + '_ {
        self.space.iter()
    }

    fn is_live(&self, seq: u64) -> bool {
        seq >= self.first && seq <= self.last && !self.deleted.contains(seq)
    }

    /// Living messages of a range.
    fn live_in(&self, range: RangeInclusive<u64>) -> u64 {
        let (from, upto) = ((*range.start()).max(self.first), (*range.end()).min(self.last));
        if from > upto { 0 } else { upto - from + 1 - self.deleted.count(from..=upto) }
    }

    /// Messages of a range that must stay in the log.
    fn needed_in(&self, range: RangeInclusive<u64>) -> u64 {
        self.live_in(range.clone()) + self.owed.count(range)
    }

    /// Whether the messages of a subject are known one by one.
    fn keeps_older(&self) -> bool {
        // One alone needs no list: it is the last.
        self.config.max_per_subject.is_some_and(|max| max > 1 && max <= self.grain.kept_per_subject)
    }

    fn head_max(&self) -> usize {
        if self.config.evicts_oldest() { self.grain.head } else { self.grain.head_small }
    }

    /// The log keeps nothing of the stream from below this.
    fn needed_from(&self) -> u64 {
        self.owed.min().map_or(self.first, |owed| owed.min(self.first))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream {} ({} to {})", self.incarnation.get(), self.first, self.last)
    }
}
