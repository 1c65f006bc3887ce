//! The engines of one log together: streams, their consumers, what protocol faces remember, and the log they share.
//!
//! This is all that a protocol face sees of storage and delivery. A face creates streams and consumers, publishes, and
//! acknowledges; messages, events and failures come back through its [`Outlet`]. Nothing here names a protocol, and
//! nothing does I/O: requests for the log's files come out of [`Store::turn`] and their outcomes go into
//! [`Store::completed`].
//!
//! ```text
//!      face: publish, acknowledge, join ...            Outlet: deliver, event, notice
//!                     |                                            ^
//!   +-----------------v--------------------------------------------+------+
//!   | Store    streams: admission, limits, index    consumers: cursors,   |
//!   |                                               credit, redelivery    |
//!   |          cache: runs that were read or written lately               |
//!   |          log: group commit, segments, checkpoints, cleaning         |
//!   +-----------------+--------------------------------------------^------+
//!                     | Request                                    | Outcome
//!                     v                                            |
//!                          files (io) or the simulator
//! ```
//!
//! **What an answer waits for.** Whatever changes something returns a [`Pending`]. An answer that depends on it goes
//! into a [`Waiting`](crate::log::Waiting) of the face and leaves it with the proof that [`Outlet::flushed`] brings. Messages
//! are delivered only when they are flushed, so deliveries need no such care.
//!
//! **Turns.** [`Store::turn`] comes once per turn of the shard, after everything that the turn has brought: it lets
//! streams settle and consumers deliver, in slices, and asks for the commit.
//!
//! **Bounds.** [`Store::has_room`] says whether to go on publishing; the cache has a size ([`Options::cache_bytes`]); reads
//! for one consumer are one at a time.

mod cache;
mod delivery;
mod interest;
mod kept;
mod opening;
mod reads;
mod sink;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use roaring::RoaringTreemap;

pub use opening::{Opened, Report};

use crate::consumer::{self, Consumer, Delivery, MemberId, Occupied, Origin, PullRequest, Target, Terms};
use crate::log::{
    DiskFault, Durable, Event as LogEvent, Flaw, Incarnation, Kind, Log, LogId, Message, Outcome, Pending, Position,
    Request, RequestId, SegmentNo, Slot, StoreId, Time, Urgency, varint,
};
use crate::stream::{self, Admitted, Inbound, Lookup, Purge, Purged, Refused, State, Stream};
use cache::{Cache, DecodedRun, Search};
use sink::LogSink;

/// How a store is to work.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The log.
    pub log: crate::log::Options,
    /// Most bytes of what was read or written lately that are kept in memory.
    pub cache_bytes: usize,
    /// Bytes per second that cleaning may read and write, while there is space.
    pub cleaning_bytes_per_second: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { log: crate::log::Options::default(), cache_bytes: 64 << 20, cleaning_bytes_per_second: 64 << 20 }
    }
}

/// A consumer of a stream. Never used twice for one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerKey {
    /// The stream.
    pub stream: Incarnation,
    /// Counted from one.
    pub number: u32,
}

/// Where a store's results go: a protocol face, or several.
pub trait Outlet {
    /// Sends a message. What cannot be sent now has to be queued; a member that is to get nothing more is told so with
    /// [`Consumer::set_presence`] through [`Store::consumer`].
    fn deliver(&mut self, consumer: ConsumerKey, to: Target, message: &Message<'_>, delivery: &Delivery);

    /// Something has happened to a consumer.
    fn event(&mut self, consumer: ConsumerKey, event: consumer::Event);

    /// What waits for this proof may be answered.
    fn flushed(&mut self, proof: &Durable);

    /// The last message of a subject has gone because of its age.
    fn subject_expired(&mut self, stream: Incarnation, subject: &[u8], seq: u64) {
        let _ = (stream, subject, seq);
    }

    /// Something for the operator.
    fn notice(&mut self, notice: &Notice);
}

/// What an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Writing to the log has failed: nothing is acknowledged for now.
    Faulted(DiskFault),
    /// What was appended before the fault is flushed now.
    Healed,
    /// Messages are refused for want of space, or no longer.
    Space {
        /// Whether there is none.
        full: bool,
    },
    /// Messages of a stream are damaged on disk; they count as removed.
    Damaged {
        /// The stream.
        stream: Incarnation,
        /// The file.
        file: Slot,
        /// Where and how.
        flaw: Flaw,
    },
    /// A file could not be read.
    ReadFailed {
        /// The file.
        file: Slot,
        /// Why.
        fault: DiskFault,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faulted(fault) => write!(f, "writing to the log failed, nothing is acknowledged: {fault}"),
            Self::Healed => f.write_str("the log is flushed again, in a new segment"),
            Self::Space { full: true } => f.write_str("no space left for messages, publishes are refused"),
            Self::Space { full: false } => f.write_str("there is space for messages again"),
            Self::Damaged { stream, file, flaw } => {
                write!(f, "{:08}.segment: messages of stream {} are damaged: {flaw}", file.0, stream.get())
            }
            Self::ReadFailed { file, fault } => write!(f, "{:08}.segment cannot be read: {fault}", file.0),
        }
    }
}

/// What to do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// There is more to do at once: the slice of this turn was used up.
    pub again: bool,
    /// When the next turn is due if nothing happens before.
    pub deadline: Option<Time>,
}

/// No such stream, or no such consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFound;

#[derive(Debug)]
struct StreamSlot {
    stream: Stream,
    meta: Box<[u8]>,
    consumers: BTreeMap<u32, Box<ConsumerSlot>>,
    next_consumer: u32,
    /// Messages of a stream that lives in memory.
    memory: BTreeMap<u64, Arc<DecodedRun>>,
    dirty: bool,
    armed: Option<Time>,
    /// The last flush that it is going to hear of.
    expected: Pending,
    /// What was read of a block that it wants details of.
    gathering: Option<Box<reads::Gathering>>,
    /// Messages that may be needed no longer: see `interest.rs`.
    doubtful: RoaringTreemap,
}

#[derive(Debug)]
struct ConsumerSlot {
    consumer: Consumer,
    meta: Box<[u8]>,
    /// The run that the last message came from.
    current: Option<Arc<DecodedRun>>,
    /// What is on its way to the disk.
    marks: VecDeque<(Pending, consumer::Mark)>,
    /// Matching messages are being counted.
    count: Option<delivery::Count>,
    dirty: bool,
    armed: Option<Time>,
}

/// What a timer or a read wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Stream(Incarnation),
    Consumer(ConsumerKey),
    Cleaner,
}

/// The engines of one log.
#[derive(Debug)]
pub struct Store {
    log: Log,
    cache: Cache,
    /// In boxes, as nodes of the map are half empty.
    streams: BTreeMap<Incarnation, Box<StreamSlot>>,
    kept: kept::Kept,
    dirty: VecDeque<Wake>,
    timers: BTreeSet<(Time, Wake)>,
    reads: HashMap<RequestId, reads::Reading>,
    /// Who waits for the read that begins at a position; the end of what it reads.
    waiters: BTreeMap<Position, (Position, Vec<Wake>)>,
    /// Looks for messages that wait for a read, the latest at the back.
    searches: VecDeque<Search>,
    /// Reads that have failed, oldest first, until somebody is told.
    failed_reads: VecDeque<reads::FailedRead>,
    /// Who waits for a flush, in order.
    unproven: VecDeque<(Pending, Wake)>,
    /// Runs of transactions that are not complete.
    parts: HashMap<crate::log::Transaction, Vec<crate::log::PlacedRun>>,
    requests: Vec<Request>,
    notices: Vec<Notice>,
    expired: Vec<(Incarnation, Vec<u8>, u64)>,
    /// The checkpoint that is being written.
    checkpoint: Option<upkeep::Snapshots>,
    stopping: Stopping,
    cleaner: upkeep::Cleaner,
    proof: Option<Durable>,
    delta: Vec<u8>,
    /// Consumers may not deliver at present.
    withholds: bool,
    /// There are no files: nothing is asked of them.
    is_fileless: bool,
}

/// Deliveries of one consumer in one turn, so that others get theirs.
const SLICE: u32 = 1024;

impl Store {
    /// An empty store.
    #[must_use]
    pub fn create(id: LogId, store: StoreId, options: Options) -> Self {
        Self::with_log(Log::create(id, store, options.log), store, options)
    }

    /// An empty store without files, for streams and consumers in memory alone.
    #[must_use]
    pub fn in_memory(id: LogId, store: StoreId, options: Options) -> Self {
        Self { is_fileless: true, ..Self::create(id, store, options) }
    }

    fn with_log(log: Log, store: StoreId, options: Options) -> Self {
        Self {
            cache: Cache::new(log.id(), store.tag(), options.cache_bytes),
            log,
            streams: BTreeMap::new(),
            kept: kept::Kept::default(),
            dirty: VecDeque::new(),
            timers: BTreeSet::new(),
            reads: HashMap::new(),
            waiters: BTreeMap::new(),
            searches: VecDeque::new(),
            failed_reads: VecDeque::new(),
            unproven: VecDeque::new(),
            parts: HashMap::new(),
            requests: Vec::new(),
            notices: Vec::new(),
            expired: Vec::new(),
            checkpoint: None,
            stopping: Stopping::No,
            cleaner: upkeep::Cleaner::new(options.cleaning_bytes_per_second),
            proof: None,
            delta: Vec::new(),
            withholds: false,
            is_fileless: false,
        }
    }

    /// The log, for numbers about it.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Whether more may be published. Whoever publishes waits while it says no.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.log.has_room()
    }

    /// Tells how many bytes are free on the file system.
    pub fn set_free_space(&mut self, bytes: u64) {
        self.log.set_free_space(bytes);
    }

    /// Nothing has happened for a while: gives back the memory of buffers, and what was read or written lately.
    pub fn rest(&mut self) {
        self.log.rest();
        self.cache.clear();
        self.dirty.shrink_to_fit();
        self.unproven.shrink_to_fit();
    }

    // ---- streams

    /// Creates a stream. `meta` is the face's own: names, options; it comes back when the store is opened.
    pub fn create_stream(&mut self, now: Time, config: stream::Config, meta: &[u8]) -> (Incarnation, Pending) {
        let of = self.log.new_incarnation();
        let pending = self.append_meta(now, of, &config, meta);
        self.streams.insert(of, StreamSlot::new(Stream::new(config, of), meta));
        (of, pending)
    }

    /// Changes a stream's configuration, which must be [valid](stream::Config::validate_update) as its successor.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn update_stream(
        &mut self,
        now: Time,
        of: Incarnation,
        config: stream::Config,
        meta: &[u8],
    ) -> Result<Pending, NotFound> {
        let pending = self.append_meta(now, of, &config, meta);
        let (slot, mut sink) = self.parts_of(now, of).ok_or(NotFound)?;
        *slot.meta = meta.into();
        // Without space the limits are enforced by the next settle all the same.
        let _ = slot.stream.update(config, &mut sink);
        sink.finish(slot.consumers);
        self.removed(of);
        self.wake(Wake::Stream(of));
        Ok(pending)
    }

    fn append_meta(&mut self, now: Time, of: Incarnation, config: &stream::Config, meta: &[u8]) -> Pending {
        if config.is_memory() {
            return Pending::NONE;
        }
        let content = encode_meta(config, meta);
        self.log.control(now, Some(of), Kind::StreamMeta, &content, Urgency::Now)
    }

    /// Ends a stream and its consumers.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn delete_stream(&mut self, now: Time, of: Incarnation, outlet: &mut impl Outlet) -> Result<Pending, NotFound> {
        let mut slot = self.streams.remove(&of).ok_or(NotFound)?;
        for (number, consumer) in &mut slot.consumers {
            consumer.consumer.close();
            let key = ConsumerKey { stream: of, number: *number };
            consumer.consumer.drain_events().for_each(|event| outlet.event(key, event));
        }
        let pending = match slot.stream.config().is_memory() {
            true => Pending::NONE,
            false => self.log.control(now, Some(of), Kind::StreamEnd, &[], Urgency::Now),
        };
        let mut sink = LogSink::new(&mut self.log, now, of, slot.stream.config().durability, &mut slot.memory);
        slot.stream.end(&mut sink);
        Ok(pending)
    }

    /// The stream, for questions.
    #[must_use]
    pub fn stream(&self, of: Incarnation) -> Option<&Stream> {
        self.streams.get(&of).map(|slot| &slot.stream)
    }

    /// What the face has stored with the stream.
    #[must_use]
    pub fn stream_meta(&self, of: Incarnation) -> Option<&[u8]> {
        self.streams.get(&of).map(|slot| &slot.meta[..])
    }

    /// All streams.
    pub fn streams(&self) -> impl Iterator<Item = Incarnation> {
        self.streams.keys().copied()
    }

    /// Stores a message, if its checks and the stream's limits allow it.
    ///
    /// # Errors
    /// The refusal and what it waits for. [`stream::Refusal::NotFound`] if there is no such stream.
    #[inline]
    pub fn publish(&mut self, now: Time, of: Incarnation, message: &Inbound<'_>) -> Result<Admitted, Refused> {
        let (slot, mut sink) = self.parts_of(now, of).ok_or(NO_STREAM)?;
        let outcome = slot.stream.admit(now, message, &mut sink);
        let in_memory = slot.stream.config().is_memory();
        if sink.finish(slot.consumers) || in_memory {
            self.wake_consumers(of);
        }
        self.expect(of);
        self.wake(Wake::Stream(of));
        outcome
    }

    /// Stores messages that count together or not at all.
    ///
    /// # Errors
    /// The first refusal, and the message it is for.
    pub fn publish_group(
        &mut self,
        now: Time,
        of: Incarnation,
        messages: &[Inbound<'_>],
    ) -> Result<Admitted, stream::BatchRefused> {
        let none = stream::BatchRefused { index: 0, refused: NO_STREAM };
        let (slot, mut sink) = self.parts_of(now, of).ok_or(none)?;
        let outcome = slot.stream.admit_batch(now, messages, &mut sink);
        sink.finish(slot.consumers);
        self.removed(of);
        outcome
    }

    /// Removes one message.
    ///
    /// # Errors
    /// The refusal and what it waits for.
    pub fn remove(&mut self, now: Time, of: Incarnation, seq: u64) -> Result<Pending, Refused> {
        let (slot, mut sink) = self.parts_of(now, of).ok_or(NO_STREAM)?;
        let outcome = slot.stream.remove(seq, &mut sink);
        sink.finish(slot.consumers);
        self.removed(of);
        outcome
    }

    /// Removes one message and sees to it that it is overwritten on disk: in the background, when what else is needed of
    /// its segments has been moved, after a crash too.
    ///
    /// # Errors
    /// As [`Store::remove`].
    pub fn erase(&mut self, now: Time, of: Incarnation, seq: u64) -> Result<Pending, Refused> {
        let stream = self.streams.get(&of).map(|slot| &slot.stream);
        let segments = stream.into_iter().flat_map(|stream| stream.segments_of(seq)).collect::<Vec<_>>();
        let after = self.remove(now, of, seq)?;
        self.cleaner.awake = true;
        Ok(after.max(self.log.erase(now, &segments)))
    }

    /// Removes messages. If the answer is not [`Purged::Done`], ask again after the next turn.
    ///
    /// # Errors
    /// The refusal and what it waits for.
    pub fn purge(&mut self, now: Time, of: Incarnation, purge: &Purge<'_>) -> Result<Purged, Refused> {
        let (slot, mut sink) = self.parts_of(now, of).ok_or(NO_STREAM)?;
        let outcome = slot.stream.purge(purge, now, &mut sink);
        sink.finish(slot.consumers);
        self.removed(of);
        outcome
    }

    /// Exact numbers of a stream. `Ok(None)` if they have to be read for first: ask again after the next turn. While that
    /// cannot be read it stays so: it is tried again each second, and told as [`Notice::ReadFailed`].
    ///
    /// # Errors
    /// There is no such stream.
    pub fn state(&mut self, of: Incarnation) -> Result<Option<State>, NotFound> {
        let slot = self.streams.get(&of).ok_or(NotFound)?;
        let state = slot.stream.state().filter(|_| slot.doubtful.is_empty());
        if state.is_none() {
            self.wake(Wake::Stream(of));
        }
        Ok(state)
    }

    /// Hands a message to `take`. [`Got::Later`] if it has to be read first: ask again after the next turn.
    ///
    /// A read that fails is told once to whoever asks again ([`Got::Unreadable`]), and begun anew. One that the device
    /// never answers is [`Got::Later`] for ever, as it cannot be taken back: its memory is the kernel's. How long to wait
    /// for it is up to whoever asks.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn get(&mut self, of: Incarnation, seq: u64, take: impl FnOnce(&Message<'_>)) -> Result<Got, NotFound> {
        let slot = self.streams.get(&of).ok_or(NotFound)?;
        let Lookup::Found { seq, block } = slot.stream.locate(seq) else { return Ok(Got::Nothing) };
        Ok(match self.fetch(of, seq, block.position, None, Wake::Stream(of)) {
            reads::Fetched::Run(run) => match run.find(seq) {
                Some((message, _)) => {
                    take(&message);
                    Got::Message
                }
                None => Got::Nothing,
            },
            reads::Fetched::Wait(position) => self.take_failed_read(position).map_or(Got::Later, Got::Unreadable),
            reads::Fetched::Lost(_) => Got::Nothing,
        })
    }

    // ---- consumers

    /// Creates a consumer that begins at `origin` (see [`consumer::Start`]). `meta` is the face's own.
    ///
    /// # Errors
    /// The configuration is not valid; `Ok(None)` if there is no such stream.
    pub fn create_consumer(
        &mut self,
        now: Time,
        of: Incarnation,
        config: consumer::Config,
        origin: Origin,
        meta: &[u8],
    ) -> Result<Option<(ConsumerKey, Pending)>, consumer::Invalid> {
        let mut consumer = Consumer::new(now, config, origin)?;
        let Some(slot) = self.streams.get_mut(&of) else { return Ok(None) };
        let number = slot.next_consumer;
        slot.next_consumer += 1;
        let key = ConsumerKey { stream: of, number };
        let mut content = head(number, CREATE);
        varint::push(&mut content, meta.len() as u64);
        content.extend_from_slice(meta);
        let mark = consumer.first_record(&mut content);
        let mut entry = ConsumerSlot::new(consumer, meta);
        let pending = if entry.consumer.config().memory || slot.stream.config().is_memory() {
            entry.consumer.flushed(mark);
            Pending::NONE
        } else {
            let pending = self.log.control(now, Some(of), Kind::Consumer, &content, Urgency::Now);
            entry.marks.push_back((pending, mark));
            self.unproven.push_back((pending, Wake::Consumer(key)));
            pending
        };
        slot.consumers.insert(number, entry);
        self.recount(key);
        self.wake(Wake::Consumer(key));
        Ok(Some((key, pending)))
    }

    /// Ends a consumer. Its pull requests are told.
    ///
    /// # Errors
    /// There is no such consumer.
    pub fn delete_consumer(
        &mut self,
        now: Time,
        key: ConsumerKey,
        outlet: &mut impl Outlet,
    ) -> Result<Pending, NotFound> {
        let slot = self.streams.get_mut(&key.stream).ok_or(NotFound)?;
        let mut entry = slot.consumers.remove(&key.number).ok_or(NotFound)?;
        entry.consumer.close();
        entry.consumer.drain_events().for_each(|event| outlet.event(key, event));
        slot.interest_ended();
        let in_memory = entry.consumer.config().memory || slot.stream.config().is_memory();
        self.wake(Wake::Stream(key.stream));
        if in_memory {
            return Ok(Pending::NONE);
        }
        Ok(self.log.control(now, Some(key.stream), Kind::Consumer, &head(key.number, END), Urgency::Now))
    }

    /// The consumer, for questions.
    #[must_use]
    pub fn consumer(&self, key: ConsumerKey) -> Option<&Consumer> {
        self.streams.get(&key.stream)?.consumers.get(&key.number).map(|slot| &slot.consumer)
    }

    /// What the face has stored with the consumer.
    #[must_use]
    pub fn consumer_meta(&self, key: ConsumerKey) -> Option<&[u8]> {
        self.streams.get(&key.stream)?.consumers.get(&key.number).map(|slot| &slot.meta[..])
    }

    /// All consumers of a stream.
    pub fn consumers(&self, of: Incarnation) -> impl Iterator<Item = ConsumerKey> {
        let numbers = self.streams.get(&of).into_iter().flat_map(|slot| slot.consumers.keys());
        numbers.map(move |number| ConsumerKey { stream: of, number: *number })
    }

    /// Changes a consumer: members, acknowledgements, pull requests. What follows from it happens in the next turn.
    pub fn with_consumer<R>(&mut self, key: ConsumerKey, change: impl FnOnce(&mut Consumer) -> R) -> Option<R> {
        let slot = self.streams.get_mut(&key.stream)?.consumers.get_mut(&key.number)?;
        let outcome = change(&mut slot.consumer);
        self.wake(Wake::Consumer(key));
        Some(outcome)
    }

    /// A member joins.
    ///
    /// # Errors
    /// There is no place for it; `Ok(None)` if there is no such consumer.
    pub fn join(&mut self, now: Time, key: ConsumerKey, terms: impl Into<Terms>) -> Result<Option<MemberId>, Occupied> {
        self.with_consumer(key, |consumer| consumer.join(now, terms)).transpose()
    }

    /// A pull request comes.
    ///
    /// # Errors
    /// Why it is not taken; `Ok(None)` if there is no such consumer.
    pub fn pull(
        &mut self,
        now: Time,
        key: ConsumerKey,
        request: PullRequest,
    ) -> Result<Option<consumer::RequestId>, consumer::NotAccepted> {
        self.with_consumer(key, |consumer| consumer.request(now, request)).transpose()
    }

    /// Appends what has happened to a consumer at once; when that is flushed, its acknowledgements are final.
    pub fn sync_consumer(&mut self, now: Time, key: ConsumerKey) -> Option<Pending> {
        self.streams.get(&key.stream)?.consumers.get(&key.number)?;
        Some(self.record(now, key, Urgency::Now))
    }

    // ---- turns

    /// Whether consumers may deliver; from the start they may. While there is no room for what they deliver they wait.
    pub fn set_delivering(&mut self, delivers: bool) {
        self.withholds = !delivers;
    }

    /// Lets streams settle and consumers deliver, and asks for what the log needs.
    pub fn turn(&mut self, now: Time, outlet: &mut impl Outlet, requests: &mut Vec<Request>) -> Next {
        while let Some((due, wake)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, wake));
            self.disarm(wake);
            self.wake(wake);
        }
        // What wakes up meanwhile is of the next turn.
        for _ in 0..self.dirty.len() {
            let Some(wake) = self.dirty.pop_front() else { break };
            match wake {
                Wake::Stream(of) => self.settle(now, of),
                Wake::Consumer(_) if self.withholds => self.dirty.push_back(wake),
                Wake::Consumer(key) => self.pump(now, key, outlet),
                Wake::Cleaner => self.cleaner.awake = true,
            }
        }
        self.forget_failed_reads(now);
        if self.is_fileless {
            debug_assert!(self.log.is_at_rest(), "nothing is appended where there are no files");
        } else {
            self.upkeep(now);
            self.log.end_turn(now, &mut self.requests);
        }
        requests.append(&mut self.requests);
        if let Some(full) = self.log.space_changed() {
            self.notices.push(Notice::Space { full });
            // What is not worth cleaning otherwise may be now.
            self.cleaner.awake |= full;
        }
        for notice in self.notices.drain(..) {
            outlet.notice(&notice);
        }
        for (of, subject, seq) in self.expired.drain(..) {
            outlet.subject_expired(of, &subject, seq);
        }
        let timer = self.timers.first().map(|(due, _)| *due);
        let deadlines = [timer, self.log.deadline(), self.cleaner.deadline()];
        let is_held = |wake: &Wake| self.withholds && matches!(wake, Wake::Consumer(_));
        let again = self.checkpoint.is_some() || !self.dirty.iter().all(is_held);
        Next { again, deadline: deadlines.into_iter().flatten().min() }
    }

    /// Takes note of how a request ended.
    pub fn completed(&mut self, now: Time, id: RequestId, outcome: Outcome, outlet: &mut impl Outlet) {
        let mut events = Vec::new();
        self.log.completed(now, id, outcome, &mut events);
        for event in events {
            match event {
                LogEvent::Flushed { proof, runs, parts, batches } => {
                    let fresh = runs.iter().filter(|run| run.kind == Kind::Messages && run.moved_from.is_none());
                    let mut fresh = fresh.map(|run| run.position).peekable();
                    for (position, bytes) in batches {
                        while fresh.next_if(|at| *at < position).is_some() {}
                        // Nobody waits for what was moved.
                        if fresh.peek() == Some(&position) {
                            self.cache.insert_batch(position, bytes);
                        }
                    }
                    self.placed(now, &runs, &parts);
                    self.proven(&proof);
                    outlet.flushed(&proof);
                }
                LogEvent::Read { id, outcome } => self.read_ended(now, id, outcome),
                LogEvent::Faulted(fault) => outlet.notice(&Notice::Faulted(fault)),
                LogEvent::Healed => outlet.notice(&Notice::Healed),
                LogEvent::Recycled(segment) => self.cache.forget(segment),
            }
        }
    }

    fn placed(&mut self, now: Time, runs: &[crate::log::PlacedRun], parts: &[(usize, crate::log::Part)]) {
        let mut parts = parts.iter().peekable();
        for (index, run) in runs.iter().enumerate() {
            let part = parts.next_if(|(of, _)| *of == index).map(|(_, part)| part);
            if run.kind != Kind::Messages {
                continue;
            }
            match part {
                None => self.place(now, run),
                Some(part) => {
                    self.parts.entry(part.transaction).or_default().push(*run);
                    if part.commits {
                        for run in self.parts.remove(&part.transaction).into_iter().flatten() {
                            self.place(now, &run);
                        }
                    }
                }
            }
        }
    }

    fn place(&mut self, now: Time, run: &crate::log::PlacedRun) {
        let Some((slot, mut sink)) = self.parts_of(now, run.stream) else {
            // The stream has ended while it was on its way.
            return self.log.dead(run.position.segment(), u64::from(run.content_bytes));
        };
        slot.stream.placed(run, &mut sink);
        sink.finish(slot.consumers);
        if run.moved_from.is_none() {
            self.count_placed(run);
            self.wake_consumers(run.stream);
            if self.slot(run.stream).is_some_and(|slot| !slot.doubtful.is_empty()) {
                self.wake(Wake::Stream(run.stream));
            }
        }
    }

    fn proven(&mut self, proof: &Durable) {
        self.proof = Some(*proof);
        // What was moved may be flushed now.
        self.cleaner.awake = true;
        while let Some((_, wake)) = pop_covered(&mut self.unproven, proof) {
            match wake {
                Wake::Stream(of) => {
                    if let Some(slot) = self.streams.get_mut(&of) {
                        slot.stream.flushed(proof);
                    }
                }
                Wake::Consumer(key) => {
                    let slot = self.streams.get_mut(&key.stream).and_then(|slot| slot.consumers.get_mut(&key.number));
                    let Some(entry) = slot else { continue };
                    let mut waited = false;
                    while let Some((_, mark)) = pop_covered(&mut entry.marks, proof) {
                        waited |= entry.consumer.flushed(mark);
                    }
                    if entry.marks.is_empty() {
                        // It may rest from now on, with many others.
                        entry.marks = VecDeque::new();
                    }
                    if waited {
                        self.wake(Wake::Consumer(key));
                    }
                }
                Wake::Cleaner => {}
            }
        }
    }

    /// The stream is to hear of the flush of what was appended just now.
    fn expect(&mut self, of: Incarnation) {
        let Some(slot) = self.streams.get_mut(&of) else { return };
        let pending = slot.stream.pending();
        if pending > std::mem::replace(&mut slot.expected, pending) {
            self.unproven.push_back((pending, Wake::Stream(of)));
        }
    }

    // ---- what wakes up

    fn wake(&mut self, wake: Wake) {
        let dirty = match wake {
            Wake::Stream(of) => self.streams.get_mut(&of).map(|slot| &mut slot.dirty),
            Wake::Consumer(key) => self
                .streams
                .get_mut(&key.stream)
                .and_then(|slot| slot.consumers.get_mut(&key.number))
                .map(|s| &mut s.dirty),
            Wake::Cleaner => {
                self.cleaner.awake = true;
                return;
            }
        };
        if let Some(dirty) = dirty
            && !std::mem::replace(dirty, true)
        {
            self.dirty.push_back(wake);
        }
    }

    fn wake_consumers(&mut self, of: Incarnation) {
        let Some(slot) = self.streams.get_mut(&of) else { return };
        for (number, entry) in &mut slot.consumers {
            if !std::mem::replace(&mut entry.dirty, true) {
                self.dirty.push_back(Wake::Consumer(ConsumerKey { stream: of, number: *number }));
            }
        }
    }

    /// Messages have gone: consumers have been told and go on.
    fn removed(&mut self, of: Incarnation) {
        self.expect(of);
        self.wake_consumers(of);
        self.wake(Wake::Stream(of));
    }

    fn armed(&mut self, wake: Wake) -> Option<&mut Option<Time>> {
        match wake {
            Wake::Stream(of) => self.streams.get_mut(&of).map(|slot| &mut slot.armed),
            Wake::Consumer(key) => {
                self.streams.get_mut(&key.stream)?.consumers.get_mut(&key.number).map(|slot| &mut slot.armed)
            }
            Wake::Cleaner => None,
        }
    }

    fn disarm(&mut self, wake: Wake) {
        if let Some(armed) = self.armed(wake) {
            *armed = None;
        }
    }

    /// Sets the one timer that a stream or a consumer has.
    fn arm(&mut self, wake: Wake, due: Option<Time>) {
        let Some(armed) = self.armed(wake) else { return };
        let before = std::mem::replace(armed, due);
        if before == due {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, wake));
        }
        if let Some(due) = due {
            self.timers.insert((due, wake));
        }
    }

    /// A stream and where its records go.
    fn parts_of(&mut self, now: Time, of: Incarnation) -> Option<(sink::Body<'_>, LogSink<'_>)> {
        let Self { streams, log, expired, .. } = self;
        let StreamSlot { stream, meta, consumers, memory, doubtful, .. } = streams.get_mut(&of)?.as_mut();
        let sink = LogSink::new(log, now, of, stream.config().durability, memory).telling(expired);
        Some((sink::Body { stream, meta, consumers, doubtful }, sink))
    }
}

/// How far a clean stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    No,
    /// Everything is recorded, and a last checkpoint under way.
    Checkpoint,
    /// That is complete.
    Done,
}

/// The outcome of [`Store::get`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// The message was handed over.
    Message,
    /// There is no such message.
    Nothing,
    /// It has to be read first.
    Later,
    /// The device has failed to give it. It may be there: ask again after a while.
    Unreadable(DiskFault),
}

const NO_STREAM: Refused = Refused { why: stream::Refusal::NotFound, after: Pending::NONE };

/// The forms of a record of a consumer.
const CREATE: u8 = 1;
const DELTA: u8 = 2;
const END: u8 = 3;

fn head(number: u32, form: u8) -> Vec<u8> {
    let mut content = Vec::new();
    varint::push(&mut content, number.into());
    content.push(form);
    content
}

/// A stream's configuration and the face's own, as on disk.
fn encode_meta(config: &stream::Config, meta: &[u8]) -> Vec<u8> {
    let config = serde_json::to_vec(config).unwrap_or_default();
    let mut content = Vec::new();
    varint::push(&mut content, config.len() as u64);
    content.extend_from_slice(&config);
    content.extend_from_slice(meta);
    content
}

/// The reverse of [`encode_meta`].
fn decode_meta(mut content: &[u8]) -> Option<(stream::Config, &[u8])> {
    let length = usize::try_from(varint::take(&mut content)?).ok()?;
    let (config, meta) = content.split_at_checked(length)?;
    Some((serde_json::from_slice(config).ok()?, meta))
}

impl StreamSlot {
    fn new(stream: Stream, meta: &[u8]) -> Box<Self> {
        Box::new(Self {
            stream,
            meta: meta.into(),
            consumers: BTreeMap::new(),
            next_consumer: 1,
            memory: BTreeMap::new(),
            dirty: false,
            armed: None,
            expected: Pending::NONE,
            gathering: None,
            doubtful: RoaringTreemap::new(),
        })
    }
}

impl ConsumerSlot {
    fn new(consumer: Consumer, meta: &[u8]) -> Box<Self> {
        let (current, marks, count) = (None, VecDeque::new(), None);
        Box::new(Self { consumer, meta: meta.into(), current, marks, count, dirty: false, armed: None })
    }
}

/// Takes off the front what a proof covers.
fn pop_covered<T>(queue: &mut VecDeque<(Pending, T)>, proof: &Durable) -> Option<(Pending, T)> {
    let covered = queue.front().is_some_and(|(pending, _)| proof.covers(*pending));
    if covered { queue.pop_front() } else { None }
}

/// For messages to people: a segment by its file.
fn file_of(log: &Log, segment: SegmentNo) -> Slot {
    log.slot_of(segment).unwrap_or(Slot(u32::MAX))
}
