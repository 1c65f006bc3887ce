//! The log of a shard as a state machine: what is appended, when it is written, and what a failure means.
//!
//! # Group commit
//!
//! What a turn appends goes to the *open* batch. [`Log::end_turn`] closes it and asks for one write and one flush of
//! everything that is closed, unless a commit is in flight; then the next one starts as soon as that returns, with all
//! that has come meanwhile. No timer delays a commit (but see [`Options::commit_delay_ns`]): under load the flush itself
//! is what batches are collected for.
//!
//! # Failures
//!
//! A failed write or flush proves nothing about what is on disk, and a second flush would prove nothing either: the
//! kernel may have dropped the pages. So the segment ends where the last successful flush has proven it, and
//! everything after that is written again, from memory, into a fresh segment, whose header says where the previous
//! one ends; recovery ignores what follows there. As batches are padded to blocks, no block holds both proven and
//! unproven records. Nothing is acknowledged until the fresh segment has been flushed, and [`Log::fault`] tells of it
//! meanwhile. If the fresh segment fails too the log tries again with another one, at most once per second; what may wait
//! in memory is bounded ([`Log::has_room`]).
//!
//! # Space
//!
//! Files are made ready ahead of need, one at a time. Messages are taken only while all that is not flushed finds room in
//! the segment that is being written, in files that are ready, and in the space known to be free; else they are refused
//! ([`Refused::Full`]). The [`RESERVED_SEGMENTS`] are for everything else. When a file can be made ready again, because
//! space has come back or a segment was recycled, messages are taken again.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;

use super::aligned::AlignedBuf;
use super::batch::{self, Head, Next};
use super::builder::{BatchBuilder, RECORD_BYTES_MAX};
use super::checkpoint::{CHUNK_BYTES, Checkpoints, chunks};
use super::clean::is_retired;
use super::durable::{Durable, Pending};
use super::entry::{Part, Transaction};
use super::footer::Footer;
use super::fragment::{fragments, needs_fragments};
use super::ids::{BLOCK_BYTES, BatchNo, Incarnation, LogId, Position, SegmentNo, Slot, Time};
use super::message::Message;
use super::note::Note;
use super::request::{DiskFault, Outcome, Request, RequestId};
use super::run::{Kind, PlacedRun, RIDE_ALONG_NS, Urgency};
use super::segment::{Seal, SegmentHead, StoreId};
use super::segments::{RESERVED_SEGMENTS, Segments, Sizes};

/// How a log is to work.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Sizes of segments.
    pub sizes: Sizes,
    /// Most bytes that the files of the log may take.
    pub bytes_max: u64,
    /// Appended but not flushed: above this [`Log::has_room`] says no.
    pub unflushed_max: usize,
    /// How long the first record of a batch waits for company. Zero is right unless flushes are very dear.
    pub commit_delay_ns: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self { sizes: Sizes::default(), bytes_max: u64::MAX, unflushed_max: 64 << 20, commit_delay_ns: 0 }
    }
}

/// A batch is closed when it has this size, and the next one opened.
pub(super) const BATCH_BYTES: usize = 512 << 10;
/// One commit takes so many bytes at most: while it is on its way nothing else is acknowledged.
const COMMIT_BYTES: usize = 8 << 20;
/// And so many batches: the kernel takes at most 1024 buffers in one write.
const COMMIT_BATCHES: usize = 512;
/// An idle log tells on disk how far it is flushed after this time, so that later damage to the last batch cannot pass
/// for a torn tail.
const MARK_NS: i64 = 100_000_000;
/// For commits of this size it does not pay to fill files with zeros ahead: that writes everything twice, and what it
/// saves is not worth it any more.
const BULK_BYTES: u64 = 256 << 10;
/// Room for the batch that ends a segment, without its footer.
const SEAL_ROOM: usize = BLOCK_BYTES;
/// Builders and buffers kept for the next commits.
const KEPT_BUFFERS: usize = 16;
/// What has failed in a fresh segment, or beside the segments, is tried again after this time.
const RETRY_NS: i64 = 1_000_000_000;

/// Why something was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No space is left for messages.
    Full,
}

/// What has happened to the log.
#[derive(Debug)]
pub enum Event {
    /// A commit has been flushed.
    Flushed {
        /// What may be acknowledged now.
        proof: Durable,
        /// The runs of streams that were written, in order.
        runs: Vec<PlacedRun>,
        /// Which of `runs` belong to transactions, by their index. They count when the transaction is complete.
        parts: Vec<(usize, Part)>,
        /// The batches, to be read from memory for a while.
        batches: Vec<(Position, Bytes)>,
    },
    /// A read has ended.
    Read {
        /// As returned by [`Log::read`].
        id: RequestId,
        /// What was read, or why not.
        outcome: Result<Bytes, DiskFault>,
    },
    /// This segment is gone; its file may be used again.
    Recycled(SegmentNo),
    /// A write or a flush has failed: nothing is acknowledged until [`Event::Healed`].
    Faulted(DiskFault),
    /// Everything that was appended before the fault is flushed, in another segment.
    Healed,
}

/// A written batch for readers in memory.
struct Image(Arc<AlignedBuf>);

impl AsRef<[u8]> for Image {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A batch that is closed but not flushed.
#[derive(Debug)]
struct Closed {
    body: Body,
    /// What was appended to it; `None` for batches of the log's own.
    pending: Option<Pending>,
}

#[derive(Debug)]
enum Body {
    /// Never laid out.
    Filled(BatchBuilder),
    /// Laid out for a place where writing it has failed, or for none yet.
    Laid(Laid),
}

/// A batch as it is written.
#[derive(Debug)]
struct Laid {
    image: Arc<AlignedBuf>,
    position: Position,
    /// What it is in the order of batches.
    this: Next,
    runs: Vec<PlacedRun>,
    parts: Vec<(usize, Part)>,
}

impl Closed {
    fn bytes(&self) -> usize {
        match &self.body {
            Body::Filled(builder) => builder.bytes(),
            Body::Laid(laid) => laid.image.len(),
        }
    }
}

/// A commit in flight.
#[derive(Debug)]
struct Commit {
    id: RequestId,
    batches: Vec<(Laid, Option<Pending>)>,
    /// It begins a segment.
    fresh: bool,
    /// It ends a segment.
    seals: bool,
    /// What the log is like if it succeeds.
    after: Tail,
}

/// Where the log ends.
#[derive(Clone, Copy, Debug)]
struct Tail {
    segment: SegmentNo,
    end: u32,
    /// What the next batch is.
    next: Next,
}

/// One log.
#[derive(Debug)]
pub struct Log {
    id: LogId,
    store: StoreId,
    options: Options,
    pub(super) open: BatchBuilder,
    /// What is appended now is in this one.
    open_pending: Pending,
    /// When the open batch was begun, and how urgent it is.
    open_since: Option<(Time, Urgency)>,
    closed: VecDeque<Closed>,
    /// Bytes in `closed` and the commit in flight.
    closed_bytes: usize,
    commit: Option<Commit>,
    /// Up to where everything is proven.
    tail: Tail,
    proven: Durable,
    /// Whether a batch on disk says that the last commit was flushed.
    marked: bool,
    last_commit: Time,
    /// A moving average of commits.
    commit_bytes: u64,
    pub(super) segments: Segments,
    /// There is no segment to write to, as at the beginning, after a seal and after a fault.
    between_segments: bool,
    footer: Footer,
    fault: Option<DiskFault>,
    /// After a failure in a fresh segment: the next one is begun then.
    retry_at: Option<Time>,
    /// After a failure to make a file ready: tried again then.
    prepare_at: Option<Time>,
    /// The segment that the note on disk names.
    noted: SegmentNo,
    /// The note that is being written, and the segment that it names.
    noting: Option<(RequestId, SegmentNo)>,
    /// After a failure to write the note: tried again in the first turn from then on.
    note_at: Option<Time>,
    /// Messages are refused that would make what is not flushed larger than this.
    room: usize,
    refusing: bool,
    pub(super) checkpoints: Checkpoints,
    /// Segments that nothing points into any more, until both checkpoints know it.
    pub(super) retired: Vec<Retired>,
    next_request: u64,
    removing: Vec<(RequestId, Slot)>,
    builders: Vec<BatchBuilder>,
    /// Written batches, oldest first; free again when no reader has them in memory any more.
    buffers: VecDeque<Arc<AlignedBuf>>,
    next_incarnation: u64,
    /// Begun since the log was opened.
    transactions: u64,
    /// Where those begin of which only a part is flushed.
    unfinished: BTreeMap<Transaction, (Position, Next)>,
}

/// A segment of an open log, as [`Log::segments`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The segment.
    pub segment: SegmentNo,
    /// Its file.
    pub slot: Slot,
    /// Size of the file.
    pub bytes: u32,
    /// Where its batches end.
    pub end: u32,
    /// Bytes of records of messages that are probably live.
    pub live: u64,
}

/// A segment that nothing points into any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retired {
    pub(super) segment: SegmentNo,
    /// Everything that was appended before it was retired.
    pub(super) after: Pending,
    /// Where the log was flushed to when that was flushed.
    pub(super) at: Option<Position>,
}

/// What a log is made from: nothing, or what recovery has found.
#[derive(Debug)]
pub(super) struct Beginnings {
    pub(super) segments: Segments,
    /// Where it ends.
    pub(super) segment: SegmentNo,
    pub(super) end: u32,
    /// There is no segment to go on in.
    pub(super) between_segments: bool,
    pub(super) next: Next,
    pub(super) footer: Footer,
    pub(super) checkpoints: Checkpoints,
    pub(super) next_incarnation: u64,
    /// The segment that the note names.
    pub(super) noted: SegmentNo,
}

impl Beginnings {
    /// Of a log in which nothing was ever written.
    pub(super) fn empty(segments: Segments) -> Self {
        Self {
            segments,
            segment: SegmentNo(0),
            end: 0,
            between_segments: true,
            next: Next { batch: BatchNo(1), chain: 0, epoch: 1 },
            footer: Footer::default(),
            checkpoints: Checkpoints::default(),
            next_incarnation: 1,
            noted: SegmentNo(0),
        }
    }
}

impl Log {
    /// An empty log.
    #[must_use]
    pub fn create(id: LogId, store: StoreId, options: Options) -> Self {
        Self::begin(id, store, options, Beginnings::empty(Segments::new(options.sizes, options.bytes_max)))
    }

    pub(super) fn begin(id: LogId, store: StoreId, options: Options, from: Beginnings) -> Self {
        let tail = Tail { segment: from.segment, end: from.end, next: from.next };
        let room = usize::try_from(from.segments.room()).unwrap_or(usize::MAX);
        Self {
            id,
            store,
            options,
            open: BatchBuilder::default(),
            open_pending: Pending::FIRST,
            open_since: None,
            closed: VecDeque::new(),
            closed_bytes: 0,
            commit: None,
            tail,
            proven: Durable::proven(Pending::NONE),
            // Recovery has found the end by itself; from now on the disk says so.
            marked: from.next.batch == BatchNo(1),
            last_commit: 0,
            commit_bytes: 0,
            segments: from.segments,
            between_segments: from.between_segments,
            footer: from.footer,
            fault: None,
            retry_at: None,
            prepare_at: None,
            noted: from.noted,
            noting: None,
            note_at: None,
            room,
            refusing: false,
            checkpoints: from.checkpoints,
            retired: Vec::new(),
            next_request: 0,
            removing: Vec::new(),
            builders: Vec::new(),
            buffers: VecDeque::new(),
            next_incarnation: from.next_incarnation,
            transactions: 0,
            unfinished: BTreeMap::new(),
        }
    }

    /// Which log of its store this is.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.id
    }

    /// A number that no stream of this log has had.
    pub fn new_incarnation(&mut self) -> Incarnation {
        let number = self.next_incarnation;
        self.next_incarnation += 1;
        Incarnation::new(number).expect("counted from one")
    }

    fn new_transaction(&mut self) -> Transaction {
        // Every opening of a log has an epoch of its own.
        self.transactions += 1;
        let number = u64::from(self.tail.next.epoch) << 40 | self.transactions;
        Transaction(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// What is wrong with the disk; nothing is acknowledged meanwhile.
    #[must_use]
    pub fn fault(&self) -> Option<DiskFault> {
        self.fault
    }

    /// Whether messages are refused for want of space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.segments.wanted || self.segments.out_of_space && self.segments.more_wanted()
    }

    /// Whether messages are refused, if that has changed since this was asked the last time.
    pub fn space_changed(&mut self) -> Option<bool> {
        let full = self.is_full();
        (full != mem::replace(&mut self.refusing, full)).then_some(full)
    }

    /// Whether more may be appended. Whoever feeds the log waits while it says no; what is appended all the same is taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.unflushed() < self.options.unflushed_max
    }

    pub(super) fn unflushed(&self) -> usize {
        self.closed_bytes + self.open.bytes()
    }

    /// What is not flushed may be as large as this before messages are refused.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Tells how many bytes are free on the file system.
    pub fn set_free_space(&mut self, bytes: u64) {
        self.segments.set_free(bytes);
        self.measure_room();
    }

    /// Bytes of all files of the log.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.segments.total_bytes()
    }

    /// What has been appended so far is flushed when this is.
    #[must_use]
    pub fn pending(&self) -> Pending {
        if self.open.is_empty() { self.last_closed() } else { self.open_pending }
    }

    fn last_closed(&self) -> Pending {
        let closed = self.closed.iter().rev().find_map(|closed| closed.pending);
        let flying = || self.commit.as_ref()?.batches.iter().rev().find_map(|(_, pending)| *pending);
        closed.or_else(flying).unwrap_or(Pending::NONE)
    }

    /// Appends a message. `first_live` is the first sequence number of the stream at this moment.
    ///
    /// # Errors
    /// When there is no space for messages; nothing has changed then.
    pub fn message(
        &mut self,
        now: Time,
        stream: Incarnation,
        first_live: u64,
        message: &Message<'_>,
    ) -> Result<(Pending, u32), Refused> {
        self.admit(body_bytes(message))?;
        if needs_fragments(message) {
            return Ok(self.fragments(now, stream, first_live, &[], message, Urgency::Now));
        }
        let bytes = self.open.message(stream, first_live, message);
        Ok((self.appended(now, Urgency::Now), bytes))
    }

    /// Appends messages that count together or not at all, also after a crash. `record_bytes` gets one number for each.
    ///
    /// # Errors
    /// As [`Log::message`].
    pub fn group(
        &mut self,
        now: Time,
        stream: Incarnation,
        first_live: u64,
        messages: &[Message<'_>],
        record_bytes: &mut Vec<u32>,
    ) -> Result<Pending, Refused> {
        self.admit(messages.iter().map(body_bytes).sum())?;
        let transaction = self.new_transaction();
        let mut pending = self.pending();
        for (index, message) in messages.iter().enumerate() {
            let part = Part { transaction, commits: index + 1 == messages.len() };
            record_bytes.push(self.open.part(stream, first_live, part, message));
            pending = self.appended(now, Urgency::Now);
        }
        Ok(pending)
    }

    /// Appends a live message of a segment that is being cleaned. `births` is where it was first: the batch, or for a
    /// message in parts the batch of each. Goes on when the disk is full.
    pub fn moved(
        &mut self,
        now: Time,
        stream: Incarnation,
        births: &[Position],
        first_live: u64,
        message: &Message<'_>,
    ) -> (Pending, u32) {
        let birth = births.first().copied().unwrap_or(Position::new(SegmentNo(1), 0));
        if needs_fragments(message) {
            return self.fragments(now, stream, first_live, births, message, Urgency::RideAlong);
        }
        let bytes = self.open.moved(stream, birth, first_live, message);
        (self.appended(now, Urgency::RideAlong), bytes)
    }

    fn fragments(
        &mut self,
        now: Time,
        stream: Incarnation,
        first_live: u64,
        births: &[Position],
        message: &Message<'_>,
        urgency: Urgency,
    ) -> (Pending, u32) {
        let transaction = self.new_transaction();
        let (mut pending, mut bytes) = (self.pending(), 0);
        for (index, fragment) in fragments(message).enumerate() {
            let birth = births.get(index).copied();
            bytes += self.open.fragment(stream, first_live, birth, transaction, &fragment);
            pending = self.appended(now, urgency);
        }
        (pending, bytes)
    }

    /// Appends a control record of a stream, which may be of any size, or one of the log itself of at most
    /// [`RECORD_BYTES_MAX`] bytes. Goes on when the disk is full.
    pub fn control(
        &mut self,
        now: Time,
        stream: Option<Incarnation>,
        kind: Kind,
        content: &[u8],
        urgency: Urgency,
    ) -> Pending {
        let Some(of) = stream.filter(|_| content.len() > RECORD_BYTES_MAX) else {
            self.open.control(stream, kind, content);
            return self.appended(now, urgency);
        };
        let transaction = self.new_transaction();
        let mut pending = self.pending();
        let shares = content.chunks(CHUNK_BYTES);
        let last = shares.len() - 1;
        for (index, share) in shares.enumerate() {
            self.open.control_part(of, kind, Part { transaction, commits: index == last }, share);
            pending = self.appended(now, urgency);
        }
        pending
    }

    fn appended(&mut self, now: Time, urgency: Urgency) -> Pending {
        let (since, so_far) = self.open_since.unwrap_or((now, urgency));
        self.open_since = Some((since, so_far.max(urgency)));
        let pending = self.open_pending;
        if self.open.bytes() >= BATCH_BYTES {
            self.close_open();
        }
        pending
    }

    /// Messages do not get what is reserved for everything else.
    fn admit(&mut self, size: usize) -> Result<(), Refused> {
        // What is appended may be padded, and its directory and the end of the segment take something too.
        let wanted = self.closed_bytes + self.open.bytes_with(size) + 4 * BLOCK_BYTES;
        if wanted <= self.room {
            return Ok(());
        }
        self.segments.wanted = true;
        Err(Refused::Full)
    }

    /// What is not flushed, on its way or not, has the rest of the segment that is being written, and half of other files:
    /// where the next batch does not fit, a segment ends.
    fn measure_room(&mut self) {
        let fresh = self.commit.as_ref().filter(|commit| commit.fresh).map(|commit| commit.after.segment);
        let (no, end) = fresh.map_or((self.tail.segment, self.tail.end), |no| (no, BLOCK_BYTES as u32));
        let segment = (!self.between_segments).then(|| self.segments.in_use.get(&no)).flatten();
        let rest = segment.map_or(0, |segment| segment.bytes.saturating_sub(end));
        let room = u64::from(rest).saturating_add(self.segments.room() / 2);
        self.room = usize::try_from(room).unwrap_or(usize::MAX);
    }

    fn close_open(&mut self) {
        let builder = mem::replace(&mut self.open, self.builders.pop().unwrap_or_default());
        self.closed_bytes += builder.bytes();
        let body = if self.commit.is_some() { Body::Laid(self.lay_out_early(builder)) } else { Body::Filled(builder) };
        self.closed.push_back(Closed { body, pending: Some(self.open_pending) });
        self.open_pending = self.open_pending.next();
        self.open_since = None;
    }

    /// When [`Log::end_turn`] is to be called at the latest, whatever else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let ready = self.commit.is_none() && (!self.between_segments || self.segments.spares() > 0);
        let open = self.open_since.filter(|_| ready).map(|since| self.due(since));
        let mark = (ready && !self.marked && self.open_since.is_none()).then_some(self.last_commit + MARK_NS);
        let commit = [open, mark].into_iter().flatten().min();
        let commit = commit.map(|due| due.max(self.retry_at.unwrap_or(due))).or(self.retry_at);
        commit.into_iter().chain(self.prepare_at).min()
    }

    fn due(&self, (since, urgency): (Time, Urgency)) -> Time {
        match urgency {
            Urgency::Now => since.saturating_add(self.options.commit_delay_ns),
            Urgency::RideAlong => since.saturating_add(RIDE_ALONG_NS),
        }
    }

    /// Asks for what is to be done now: the last step of a turn.
    pub fn end_turn(&mut self, now: Time, requests: &mut Vec<Request>) {
        self.ask(now, requests);
        self.measure_room();
    }

    fn ask(&mut self, now: Time, requests: &mut Vec<Request>) {
        self.note_newest(now, requests);
        self.prepare_ahead(now, requests);
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = None;
        if self.commit.is_some() {
            return;
        }
        if self.open_since.is_some_and(|since| now >= self.due(since)) {
            self.close_open();
        }
        if self.closed.is_empty() {
            let idle = !self.marked && self.open_since.is_none() && now >= self.last_commit + MARK_NS;
            // After a fault there may be nothing to write again, and still something to prove.
            if !idle && self.fault.is_none() {
                return;
            }
            self.closed
                .push_back(Closed { body: Body::Filled(self.builders.pop().unwrap_or_default()), pending: None });
        }
        self.start_commit(now, requests);
    }

    /// Asks for a note of the newest segment with something flushed in it, if there is none yet.
    fn note_newest(&mut self, now: Time, requests: &mut Vec<Request>) {
        let segment = self.tail.segment;
        if self.noting.is_some() || segment <= self.noted || self.note_at.is_some_and(|at| now < at) {
            return;
        }
        let Some(slot) = self.slot_of(segment) else { return };
        let note = Note { log: self.id, store: self.store, segment, slot };
        let id = self.request_id();
        (self.noting, self.note_at) = (Some((id, segment)), None);
        requests.push(Request::Note { id, content: note.encode() });
    }

    /// Whether the note names the newest segment, or cannot be written for now. A log that is closed before that works all
    /// the same; only the loss of its newest segment would not be noticed.
    #[must_use]
    pub fn is_noted(&self) -> bool {
        self.noting.is_none() && (self.noted >= self.tail.segment || self.note_at.is_some())
    }

    fn prepare_ahead(&mut self, now: Time, requests: &mut Vec<Request>) {
        if self.segments.is_preparing() || self.prepare_at.is_some_and(|at| now < at) {
            return;
        }
        self.prepare_at = None;
        if self.segments.more_wanted() || self.segments.has_to_erase() {
            let id = self.request_id();
            if let Some((spare, is_old)) = self.segments.next_to_prepare(id) {
                let fill = is_old || self.commit_bytes < BULK_BYTES;
                requests.push(Request::Prepare { id, slot: spare.slot, bytes: spare.bytes, fill });
            } else {
                self.prepare_at = Some(now + RETRY_NS);
            }
        } else if let Some(spare) = self.segments.take_surplus(RESERVED_SEGMENTS + 2) {
            let id = self.request_id();
            self.removing.push((id, spare.slot));
            requests.push(Request::Remove { id, slot: spare.slot });
        }
    }

    /// Whether everything is flushed and nothing is under way but the making of files.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.commit.is_none() && self.closed.is_empty() && self.open.is_empty()
    }

    /// Gives back the memory of buffers that nothing is in.
    pub fn rest(&mut self) {
        (self.builders, self.buffers) = (Vec::new(), VecDeque::new());
        if self.open.is_empty() {
            self.open = BatchBuilder::default();
        }
    }

    /// Where everything is proven to.
    pub(super) fn tail_position(&self) -> Position {
        Position::new(self.tail.segment, self.tail.end)
    }

    pub(super) fn proof(&self) -> Durable {
        self.proven
    }

    pub(super) fn request_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    /// Lays out what is closed behind the tail and asks for it to be written.
    fn start_commit(&mut self, now: Time, requests: &mut Vec<Request>) {
        let fresh = self.between_segments;
        let mut after = self.tail;
        let mut data = Vec::new();
        if fresh {
            let Some((no, spare)) = self.segments.begin() else { return };
            self.between_segments = false;
            self.footer.clear();
            data.push(Arc::new(self.segment_head(now, no, spare.bytes)));
            (after.segment, after.end) = (no, BLOCK_BYTES as u32);
        }
        let offset = if fresh { 0 } else { after.end };
        let file = self.segments.in_use.get(&after.segment).map(|segment| (segment.slot, segment.bytes));
        let Some((slot, size)) = file else { return };
        let id = self.request_id();
        let mut commit = Commit { id, batches: Vec::new(), fresh, seals: false, after };
        commit.seals = !fresh && self.segments.in_use.get(&after.segment).is_some_and(|segment| segment.erase);
        let mut bytes = 0;
        while let Some(closed) = self.closed.pop_front() {
            let need = closed.bytes();
            if after.end as usize + need + SEAL_ROOM > size as usize {
                self.closed.push_front(closed);
                commit.seals = true;
                break;
            }
            bytes += need;
            let laid = self.lay_out(now, closed.body, &mut after);
            data.push(Arc::clone(&laid.image));
            commit.batches.push((laid, closed.pending));
            if bytes >= COMMIT_BYTES || commit.batches.len() >= COMMIT_BATCHES {
                break;
            }
        }
        if commit.seals {
            let seal = Body::Filled(self.seal_batch((size - after.end) as usize));
            let laid = self.lay_out(now, seal, &mut after);
            data.push(Arc::clone(&laid.image));
            commit.batches.push((laid, None));
        }
        commit.after = after;
        requests.push(Request::Commit { id, slot, offset, data });
        self.commit = Some(commit);
    }

    /// Where the first batch will be that is not flushed, or anything after it; or where a transaction begins that is
    /// flushed in part only, as snapshots do not know its places either.
    pub(super) fn walk_from(&self) -> (Position, Next) {
        let tail = Position::new(self.tail.segment.max(SegmentNo(1)), self.tail.end.max(BLOCK_BYTES as u32));
        let unfinished = self.unfinished.values().copied();
        unfinished
            .chain([(tail, self.tail.next)])
            .min_by_key(|(position, _)| *position)
            .unwrap_or((tail, self.tail.next))
    }

    /// The first segment that holds a part of a transaction that is not complete.
    pub(super) fn unfinished_from(&self) -> Option<SegmentNo> {
        self.unfinished.values().map(|(position, _)| position.segment()).min()
    }

    fn segment_head(&self, now: Time, no: SegmentNo, bytes: u32) -> AlignedBuf {
        let mut block = AlignedBuf::new();
        let head = SegmentHead {
            log: self.id,
            store: self.store,
            segment: no,
            bytes: bytes.into(),
            first: self.tail.next,
            previous: (self.tail.segment.0 != 0).then_some((self.tail.segment, self.tail.end)),
            created: now,
        };
        head.encode(&mut block);
        block
    }

    /// The batch that ends a segment, with the footer if there is room for it.
    fn seal_batch(&mut self, room: usize) -> BatchBuilder {
        let mut builder = self.builders.pop().unwrap_or_default();
        for record in self.footer.records() {
            builder.control(None, Kind::Seal, &record);
        }
        if builder.bytes() > room {
            builder = BatchBuilder::default();
            builder.control(None, Kind::Seal, &Seal::Footer(Vec::new()).encode());
        }
        builder
    }

    /// While another commit is on its way there is time for what needs no place yet: gathering and summing up.
    fn lay_out_early(&mut self, mut builder: BatchBuilder) -> Laid {
        let this = Next { batch: BatchNo(1), chain: 0, epoch: self.tail.next.epoch };
        let position = Position::new(SegmentNo(1), BLOCK_BYTES as u32);
        let head = Head {
            log: self.id,
            store_tag: self.store.tag(),
            position,
            batch: this.batch,
            flushed_upto: BatchNo(0),
            time: 0,
            checkpoint: None,
            chain: this.chain,
            epoch: this.epoch,
        };
        let mut image = self.buffer();
        let sealed = builder.seal(&head, Arc::make_mut(&mut image));
        if self.builders.len() < KEPT_BUFFERS {
            self.builders.push(builder);
        }
        Laid { image, position, this, runs: sealed.runs, parts: sealed.parts }
    }

    fn lay_out(&mut self, now: Time, body: Body, after: &mut Tail) -> Laid {
        let position = Position::new(after.segment, after.end);
        let head = Head {
            log: self.id,
            store_tag: self.store.tag(),
            position,
            batch: after.next.batch,
            // Of the batches before this commit.
            flushed_upto: BatchNo(self.tail.next.batch.0 - 1),
            time: now,
            checkpoint: self.checkpoints.latest(),
            chain: after.next.chain,
            epoch: after.next.epoch,
        };
        let (laid, head_crc) = match body {
            Body::Filled(mut builder) => {
                let mut image = self.buffer();
                let sealed = builder.seal(&head, Arc::make_mut(&mut image));
                if self.builders.len() < KEPT_BUFFERS {
                    self.builders.push(builder);
                }
                let this = after.next;
                (Laid { image, position, this, runs: sealed.runs, parts: sealed.parts }, sealed.head_crc)
            }
            Body::Laid(mut laid) => {
                let head_crc = batch::place_again(&head, &mut Arc::make_mut(&mut laid.image)[..]);
                (laid.position, laid.this) = (position, after.next);
                laid.runs.iter_mut().for_each(|run| run.position = position);
                (laid, head_crc)
            }
        };
        laid.runs.iter().for_each(|run| self.footer.add(run));
        after.end += laid.image.len() as u32;
        after.next = Next { batch: after.next.batch.next(), chain: head_crc, epoch: after.next.epoch };
        laid
    }

    fn buffer(&mut self) -> Arc<AlignedBuf> {
        match self.buffers.front() {
            Some(oldest) if Arc::strong_count(oldest) == 1 => self.buffers.pop_front().unwrap_or_default(),
            _ => Arc::default(),
        }
    }

    /// Takes note of how a request ended.
    pub fn completed(&mut self, now: Time, id: RequestId, outcome: Outcome, events: &mut Vec<Event>) {
        if let Some(commit) = self.commit.take_if(|commit| commit.id == id) {
            match outcome {
                Outcome::Failed(fault) => self.commit_failed(now, commit, fault, events),
                Outcome::Done | Outcome::Read(_) => self.commit_flushed(now, commit, events),
            }
        } else if let Some(index) = self.removing.iter().position(|(removing, _)| *removing == id) {
            // A file that could not be removed stays unused until the next start.
            self.removing.swap_remove(index);
        } else if let Some((_, segment)) = self.noting.take_if(|(noting, _)| *noting == id) {
            match outcome {
                Outcome::Failed(_) => self.note_at = Some(now + RETRY_NS),
                Outcome::Done | Outcome::Read(_) => self.noted = segment,
            }
        } else {
            match outcome {
                Outcome::Read(bytes) => events.push(Event::Read { id, outcome: Ok(bytes) }),
                Outcome::Done => drop(self.segments.prepared(id, true)),
                Outcome::Failed(fault) => {
                    if self.segments.prepared(id, false).is_none() {
                        events.push(Event::Read { id, outcome: Err(fault) });
                    } else {
                        self.preparing_failed(now, fault, events);
                    }
                }
            }
        }
        self.measure_room();
    }

    fn preparing_failed(&mut self, now: Time, fault: DiskFault, events: &mut Vec<Event>) {
        self.prepare_at = Some(now + RETRY_NS);
        if fault == DiskFault::Full {
            self.segments.out_of_space = true;
        } else if self.between_segments && self.segments.spares() == 0 {
            // There is nowhere to write to.
            self.faulted(fault, events);
        }
    }

    fn faulted(&mut self, fault: DiskFault, events: &mut Vec<Event>) {
        if self.fault.replace(fault).is_none() {
            events.push(Event::Faulted(fault));
        }
    }

    fn commit_flushed(&mut self, now: Time, commit: Commit, events: &mut Vec<Event>) {
        self.tail = commit.after;
        self.last_commit = now;
        self.marked = commit.batches.iter().all(|(_, pending)| pending.is_none());
        self.between_segments = commit.seals;
        let (mut runs, mut parts, mut batches) = (Vec::new(), Vec::new(), Vec::with_capacity(commit.batches.len()));
        let mut written = 0;
        for (laid, pending) in commit.batches {
            if let Some(pending) = pending {
                self.proven = Durable::proven(pending);
                self.closed_bytes -= laid.image.len();
                self.checkpoints.ended_at(pending, laid.position);
            }
            written += laid.image.len() as u64;
            for (_, part) in &laid.parts {
                if part.commits {
                    self.unfinished.remove(&part.transaction);
                } else {
                    self.unfinished.entry(part.transaction).or_insert((laid.position, laid.this));
                }
            }
            parts.extend(laid.parts.into_iter().map(|(index, part)| (runs.len() + index, part)));
            runs.extend(laid.runs);
            batches.push((laid.position, Bytes::from_owner(Image(Arc::clone(&laid.image)))));
            self.buffers.push_back(laid.image);
        }
        // The oldest are in memory longest; what readers still hold is theirs.
        while self.buffers.len() > KEPT_BUFFERS {
            self.buffers.pop_front();
        }
        if let Some(segment) = self.segments.in_use.get_mut(&self.tail.segment) {
            let records = runs.iter().filter(|run| run.kind == Kind::Messages).map(|run| u64::from(run.content_bytes));
            segment.records += records.sum::<u64>();
            segment.end = self.tail.end;
            segment.sealed = commit.seals;
        }
        self.commit_bytes = (7 * self.commit_bytes + written) / 8;
        self.checkpoints.flushed(written, &runs);
        self.recycle_retired(events);
        let segments = || {
            let in_use = self.segments.in_use.iter().filter(|(no, _)| !is_retired(&self.retired, **no));
            (in_use.map(|(no, segment)| (*no, segment.records)).collect(), self.segments.unerased())
        };
        if let Some(end) = self.checkpoints.end(&self.proven, self.next_incarnation, segments) {
            let append = |chunk: Vec<u8>| self.control(now, None, Kind::CheckpointEnd, &chunk, Urgency::Now);
            let pending = chunks(&end).map(append).collect::<Vec<_>>();
            self.checkpoints.end_appended(&pending);
        }
        events.push(Event::Flushed { proof: self.proven, runs, parts, batches });
        if self.fault.take().is_some() {
            events.push(Event::Healed);
        }
    }

    fn commit_failed(&mut self, now: Time, commit: Commit, fault: DiskFault, events: &mut Vec<Event>) {
        let no = commit.after.segment;
        if commit.fresh {
            // Nothing in it was ever proven.
            self.segments.recycle(no, true);
            self.retry_at = Some(now + RETRY_NS);
        } else if let Some(segment) = self.segments.in_use.get_mut(&no) {
            segment.sealed = true;
        }
        self.between_segments = true;
        for (laid, pending) in commit.batches.into_iter().rev() {
            if pending.is_some() {
                self.closed.push_front(Closed { body: Body::Laid(laid), pending });
            }
        }
        self.faulted(fault, events);
    }
}

fn body_bytes(message: &Message<'_>) -> usize {
    message.subject.len() + message.reply.len() + message.headers.len() + message.payload.len()
}
