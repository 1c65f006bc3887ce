//! Opening a log: from the bytes of its files to what they mean, and a list of what had to be repaired.
//!
//! 1. Every file's first block tells which segment it holds. Blank files are spare. Files that cannot be understood are
//!    named and left alone, for ever.
//! 2. The newest segment with a batch in it is walked to find where the log ends. What a crash has torn is cut. If the note
//!    ([`super::note`]) names a newer one, that is lost and told.
//! 3. The last batch names the latest checkpoint. Its snapshots are read; if any is damaged, those of the checkpoint
//!    before it; if there is none, all there is in the log is replayed from its beginning.
//! 4. From where the checkpoint says, all batches are walked in order and their runs told to the [`Visitor`]. Damage is
//!    told with what is known of it: nothing ends there, and no number is given twice.
//!
//! 5. The last segment is flushed, as what is read back may never have been.
//!
//! Nothing is written. Opening the same bytes again finds the same.

pub mod survey;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use bytes::Bytes;

use super::aligned::AlignedBuf;
use super::batch::{Batch, Expect, Next, Run, parse, parse_directory};
use super::checkpoint::{Checkpoint, CheckpointEnd, Checkpoints, parse_chunk, segment_numbers};
use super::entry::Transaction;
use super::flaw::{Defect, Flaw};
use super::footer::Footer;
use super::fragment::Assembler;
use super::ids::{BLOCK_BYTES, BatchNo, Incarnation, LogId, Position, SegmentNo, Slot};
use super::log::{Beginnings, Log, Options};
use super::message::Message;
use super::note::Note;
use super::request::DiskFault;
use super::run::{Kind, PlacedRun};
use super::scan::{Damage, Depth, Plan, Proven, Scan, Step, Tail};
use super::segment::{SegmentHead, StoreId};
use super::segments::{Segment, Segments, Spare};

/// Reads files while a log is opened. Unlike afterwards, whoever asks waits.
pub trait Files {
    /// The files there are, in order, and their sizes in bytes.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn slots(&mut self) -> Result<Vec<(Slot, u64)>, DiskFault>;

    /// Up to `bytes` from `offset` on, fewer at the end of the file. Both are multiples of [`BLOCK_BYTES`].
    ///
    /// # Errors
    /// When they cannot be read.
    fn read(&mut self, slot: Slot, offset: u32, bytes: usize) -> Result<AlignedBuf, DiskFault>;

    /// The content of the note of the newest segment, or its first [`NOTE_BYTES_MAX`](super::NOTE_BYTES_MAX) bytes. `None`
    /// if there is no such file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn note(&mut self) -> Result<Option<Vec<u8>>, DiskFault>;

    /// Flushes a file: that a batch can be read does not prove that it survives the next power cut.
    ///
    /// # Errors
    /// When nothing is known about it.
    fn flush(&mut self, slot: Slot) -> Result<(), DiskFault>;
}

/// How a run counts that is found behind the beginning of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Wholly: it was appended after the snapshot of its stream, or there is none.
    Whole,
    /// The snapshot knows what it did, but not where it is.
    PlaceOnly,
}

/// Is told what is in a log, in order.
pub trait Visitor {
    /// The snapshot of an incarnation, before anything else of it.
    ///
    /// # Errors
    /// When it makes no sense; the checkpoint before it is tried then, after [`Visitor::reset`].
    fn snapshot(&mut self, of: Incarnation, snapshot: &[u8]) -> Result<(), &'static str>;

    /// Everything told so far is void.
    fn reset(&mut self);

    /// Messages of a stream with the bytes of each record. A transaction's are told when it is complete; a large message
    /// is told whole.
    fn messages<'a>(
        &mut self,
        run: &PlacedRun,
        effect: Effect,
        messages: &mut dyn Iterator<Item = Result<(Message<'a>, u32), Flaw>>,
    );

    /// A further part of a message that was told with its first: it occupies this place too.
    fn piece(&mut self, run: &PlacedRun);

    /// A record of another kind.
    fn control(&mut self, run: &PlacedRun, effect: Effect, record: &[u8]);

    /// A run that was flushed and whose content is damaged.
    fn damaged(&mut self, run: &PlacedRun, effect: Effect, flaw: Flaw);
}

/// Something that is not as it should be, and what was made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The log's last batch did not reach the disk wholly: the log ends before it, as no acknowledgement was given for it.
    TornTail {
        /// Its file.
        slot: Slot,
        /// Where the log ends now.
        offset: u32,
    },
    /// Batches that had been flushed cannot be read; what they held is lost.
    LostBatches {
        /// Their file.
        slot: Slot,
        /// First damaged byte.
        offset: u32,
        /// Where sound batches go on.
        end: u32,
        /// First and last of them.
        batches: (BatchNo, BatchNo),
    },
    /// A run that had been flushed is damaged; its messages, if it held any, are lost.
    DamagedRun {
        /// Its file.
        slot: Slot,
        /// What it held.
        run: PlacedRun,
        /// What is wrong, and where.
        flaw: Flaw,
    },
    /// The head of a segment is damaged; its batches told what it had said.
    DamagedHead {
        /// The file.
        slot: Slot,
        /// The segment.
        segment: SegmentNo,
        /// What is wrong.
        flaw: Flaw,
    },
    /// A checkpoint could not be used.
    DamagedCheckpoint {
        /// The batch that cannot be used: that of its end, or of one of its snapshots.
        at: Position,
        /// The file of that; `None` if it is not there.
        slot: Option<Slot>,
        /// Why not.
        reason: &'static str,
    },
    /// There is no usable checkpoint where there should be: messages that had been removed may be there again.
    NoCheckpoint,
    /// Segments are missing.
    MissingSegments {
        /// The first one.
        first: SegmentNo,
        /// The last one.
        last: SegmentNo,
    },
    /// The newest segment is not there, or nothing in it can be read: all that was written after the end of the log as it
    /// is found is lost. What is written from now on gets the numbers of batches, and of messages, again.
    NewestMissing {
        /// Its file.
        slot: Slot,
        /// The segment.
        segment: SegmentNo,
        /// The last batch that is there; zero if there is none at all.
        last: BatchNo,
    },
    /// The newest segment is missing: there may have been messages of this stream in it.
    EndUnknown {
        /// The stream.
        stream: Incarnation,
        /// The last sequence number that is known.
        last_seq: u64,
    },
    /// A segment that had been lost is there again, after the log has gone on without it. It is left alone.
    LateSegment {
        /// The file.
        slot: Slot,
        /// The segment.
        segment: SegmentNo,
    },
    /// The note of the newest segment is damaged: whether that segment is there is not known. The note is written anew.
    DamagedNote {
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The same, as the note cannot be read.
    UnreadableNote {
        /// Why.
        fault: DiskFault,
    },
    /// A file that is no segment of this log, or one whose first commit a crash has torn. It is left alone. (If it was a
    /// segment that had been flushed, that one is missed elsewhere.)
    ForeignFile {
        /// The file.
        slot: Slot,
        /// What is wrong with its first block.
        flaw: Flaw,
    },
    /// A file that cannot be read. It is left alone.
    UnreadableFile {
        /// The file.
        slot: Slot,
        /// Why.
        fault: DiskFault,
    },
    /// A transaction that was never completed; it does not count, as no acknowledgement was given for it.
    OpenTransaction {
        /// Whose it was.
        stream: Incarnation,
        /// Its lowest sequence number.
        first_seq: u64,
    },
}

impl Repair {
    /// Whether something that had been acknowledged is lost or cannot be reached.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(
            self,
            Self::TornTail { .. }
                | Self::OpenTransaction { .. }
                | Self::ForeignFile { .. }
                // That the segment is missing is the damage.
                | Self::EndUnknown { .. }
        )
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = |slot: &Slot| format!("{:08}.segment", slot.0);
        match self {
            Self::TornTail { slot, offset } => write!(f, "{}: cut at {offset}, behind the last flush", file(slot)),
            Self::LostBatches { slot, offset, end, batches } => {
                write!(
                    f,
                    "{}: bytes {offset} to {end} are damaged, batches {} to {} are lost",
                    file(slot),
                    batches.0.0,
                    batches.1.0
                )
            }
            Self::DamagedRun { slot, run, flaw } => write!(
                f,
                "{}: {:?} of stream {} are damaged, sequence numbers {} to {}: {flaw}",
                file(slot),
                run.kind,
                run.stream.get(),
                run.first_seq,
                run.last_seq
            ),
            Self::DamagedHead { slot, segment, flaw } => {
                write!(f, "{}: the head of segment {} is damaged: {flaw}", file(slot), segment.0)
            }
            Self::DamagedCheckpoint { at, slot: Some(slot), reason } => {
                write!(f, "{} at {}: a checkpoint cannot be used: {reason}", file(slot), at.offset())
            }
            Self::DamagedCheckpoint { at, slot: None, reason } => {
                write!(f, "segment {}: a checkpoint cannot be used: {reason}", at.segment().0)
            }
            Self::NoCheckpoint => f.write_str("no checkpoint can be used, removed messages may be there again"),
            Self::MissingSegments { first, last } => write!(f, "segments {} to {} are missing", first.0, last.0),
            Self::NewestMissing { slot, segment, last: BatchNo(0) } => write!(
                f,
                "{}: segment {}, the newest, is missing, and so are all others: everything in this log is lost",
                file(slot),
                segment.0
            ),
            Self::NewestMissing { slot, segment, last } => write!(
                f,
                "{}: segment {}, the newest, is missing: everything after batch {} is lost",
                file(slot),
                segment.0,
                last.0
            ),
            Self::EndUnknown { stream, last_seq } => write!(
                f,
                "stream {}: whatever came after message {last_seq} is lost; new messages get those numbers again",
                stream.get()
            ),
            Self::LateSegment { slot, segment } => write!(
                f,
                "{}: segment {} was lost and is there again, after the log has gone on without it; it is left alone",
                file(slot),
                segment.0
            ),
            Self::DamagedNote { flaw } => {
                write!(f, "newest: damaged, whether the newest segment is there is not known: {}", flaw.defect)
            }
            Self::UnreadableNote { fault } => {
                write!(f, "newest: cannot be read, whether the newest segment is there is not known: {fault}")
            }
            Self::ForeignFile { slot, flaw } => write!(f, "{}: not a segment of this log: {flaw}", file(slot)),
            Self::UnreadableFile { slot, fault } => write!(f, "{}: {fault}", file(slot)),
            Self::OpenTransaction { stream, first_seq } => {
                write!(f, "stream {}: an incomplete transaction from {first_seq} on does not count", stream.get())
            }
        }
    }
}

/// Why a log cannot be opened at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The files cannot be listed.
    Unlistable(DiskFault),
    /// A file is of a later version.
    LaterVersion {
        /// The file.
        slot: Slot,
        /// What is not known.
        flaw: Flaw,
    },
    /// The end of the log cannot be flushed.
    Unflushable {
        /// The file.
        slot: Slot,
        /// Why not.
        fault: DiskFault,
    },
    /// A block at the end of the log cannot be read: whether the log goes on there is not known.
    UnreadableEnd {
        /// The file.
        slot: Slot,
        /// The block.
        offset: u32,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlistable(fault) => write!(f, "the files of the log cannot be listed: {fault}"),
            Self::LaterVersion { slot, flaw } => {
                write!(f, "{:08}.segment was written by a later version: {flaw}", slot.0)
            }
            Self::Unflushable { slot, fault } => write!(f, "{:08}.segment cannot be flushed: {fault}", slot.0),
            Self::UnreadableEnd { slot, offset } => {
                write!(f, "{:08}.segment cannot be read at {offset}, where the log ends or goes on", slot.0)
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// An opened log.
#[derive(Debug)]
pub struct Recovered {
    /// The log, to be appended to.
    pub log: Log,
    /// What had to be repaired.
    pub repairs: Vec<Repair>,
    /// Batches that were walked.
    pub batches: u64,
}

/// A segment on disk.
#[derive(Clone, Copy, Debug)]
struct Found {
    slot: Slot,
    file_bytes: u32,
    head: SegmentHead,
    /// What is wrong with the head on disk; `head` is then what the first batch tells.
    flaw: Option<Flaw>,
}

struct Opening<'a, F, V> {
    files: &'a mut F,
    visitor: &'a mut V,
    log: LogId,
    store: StoreId,
    segments: BTreeMap<SegmentNo, Found>,
    /// What the note says.
    note: Option<Note>,
    spare: Vec<Spare>,
    /// Files that are left alone.
    aside: Vec<Slot>,
    repairs: Vec<Repair>,
    batches: u64,
}

/// Where the log ends.
struct End {
    segment: SegmentNo,
    offset: u32,
    next: Next,
    sealed: bool,
    checkpoint: Option<Position>,
    footer: Footer,
    /// The last batch that is known to have been flushed. A batch behind the end may have told it.
    proven: BatchNo,
}

impl End {
    /// What is known of the last segment: nothing behind the end is scanned again, but what that has proven holds.
    fn bound(&self, plan: &mut Plan) {
        (plan.end, plan.proven) = (self.offset, Proven::AtLeast(self.proven));
    }
}

/// Opens the log `id` of a store.
///
/// # Errors
/// A [`Refusal`] when nothing sensible can be said about its content.
pub fn recover<F: Files, V: Visitor>(
    files: &mut F,
    id: LogId,
    store: StoreId,
    options: Options,
    visitor: &mut V,
) -> Result<Recovered, Refusal> {
    let mut opening = Opening::new(files, visitor, id, store);
    opening.list()?;
    let mut table = Segments::new(options.sizes, options.bytes_max);
    let Some(end) = opening.find_end()? else {
        opening.fill(&mut table, None);
        let beginnings = Beginnings { noted: opening.noted(), ..Beginnings::empty(table) };
        let log = Log::begin(id, store, options, beginnings);
        return Ok(Recovered { log, repairs: opening.repairs, batches: 0 });
    };
    let (content, checkpoints, mut next_incarnation) = opening.restore(&end);
    opening.drop_recycled(content.as_ref(), checkpoints.as_ref());
    opening.tell_heads();
    let walked = opening.walk(content.as_ref(), &end);
    next_incarnation = next_incarnation.max(walked.greatest_incarnation + 1);
    opening.flush(&end)?;
    opening.fill(&mut table, Some(&end));
    let erase = content.iter().flat_map(|content| &content.erase).copied();
    table.erase_again(erase.chain(walked.erase));
    let known = content.iter().flat_map(|content| &content.segments).copied();
    for (no, records) in known.chain(walked.records) {
        if let Some(segment) = table.in_use.get_mut(&no) {
            segment.records = segment.records.max(records);
        }
    }
    for segment in table.in_use.values_mut() {
        // Whoever opens the streams says what is needed of it.
        segment.dead = segment.records;
    }
    let beginnings = Beginnings {
        segments: table,
        segment: end.segment,
        between_segments: end.sealed,
        end: end.offset,
        next: Next { epoch: end.next.epoch + 1, ..end.next },
        footer: end.footer,
        checkpoints: Checkpoints::recovered(checkpoints, walked.bytes),
        next_incarnation,
        noted: opening.noted(),
    };
    let log = Log::begin(id, store, options, beginnings);
    Ok(Recovered { log, repairs: opening.repairs, batches: opening.batches })
}

/// The latest checkpoint, the one before it, and the bytes of the latest's snapshots.
type KnownCheckpoints = (Checkpoint, Option<Checkpoint>, u64);

/// What a walk has counted.
#[derive(Default)]
struct Walked {
    greatest_incarnation: u64,
    bytes: u64,
    /// Bytes of records of messages by segment.
    records: BTreeMap<SegmentNo, u64>,
    /// Segments that are to be overwritten.
    erase: Vec<SegmentNo>,
}

impl<'a, F: Files, V: Visitor> Opening<'a, F, V> {
    fn new(files: &'a mut F, visitor: &'a mut V, log: LogId, store: StoreId) -> Self {
        Self {
            files,
            visitor,
            log,
            store,
            segments: BTreeMap::new(),
            note: None,
            spare: Vec::new(),
            aside: Vec::new(),
            repairs: Vec::new(),
            batches: 0,
        }
    }

    /// Finds out what each file holds.
    fn list(&mut self) -> Result<(), Refusal> {
        self.read_note();
        let slots = self.files.slots().map_err(Refusal::Unlistable)?;
        for (slot, bytes) in slots {
            let file_bytes = u32::try_from(bytes).unwrap_or(u32::MAX) / BLOCK_BYTES as u32 * BLOCK_BYTES as u32;
            let block = match self.files.read(slot, 0, 2 * BLOCK_BYTES) {
                Ok(block) => block,
                Err(fault) => {
                    self.repairs.push(Repair::UnreadableFile { slot, fault });
                    self.aside.push(slot);
                    continue;
                }
            };
            match SegmentHead::parse(&block) {
                Ok(head) if head.log == self.log && head.store == self.store => {
                    self.found(slot, file_bytes, head, None)
                }
                Ok(head) => {
                    let whose = if head.store == self.store { Defect::Log(head.log) } else { Defect::Store };
                    self.repairs.push(Repair::ForeignFile { slot, flaw: Flaw { offset: 0, defect: whose } });
                    self.aside.push(slot);
                }
                Err(flaw) => self.without_head(slot, file_bytes, &block, flaw)?,
            }
        }
        Ok(())
    }

    fn read_note(&mut self) {
        let note = match self.files.note() {
            // Of a log in which nothing was flushed yet, or of before there were notes.
            Ok(None) => return,
            Ok(Some(content)) => Note::parse(&content),
            Err(fault) => return self.repairs.push(Repair::UnreadableNote { fault }),
        };
        let whose = |note: Note| match () {
            () if note.store != self.store => Err(Flaw::new(0, Defect::Store)),
            () if note.log != self.log => Err(Flaw::new(0, Defect::Log(note.log))),
            () => Ok(note),
        };
        match note.and_then(whose) {
            Ok(note) => self.note = Some(note),
            Err(flaw) => self.repairs.push(Repair::DamagedNote { flaw }),
        }
    }

    /// Something was flushed in this segment.
    fn noted(&self) -> SegmentNo {
        self.note.map_or(SegmentNo(0), |note| note.segment)
    }

    fn found(&mut self, slot: Slot, file_bytes: u32, head: SegmentHead, flaw: Option<Flaw>) {
        let found = Found { slot, file_bytes, head, flaw };
        let age = |found: &Found| (found.head.first.epoch, found.head.created);
        let Some(other) = self.segments.insert(head.segment, found) else { return };
        let (kept, other) = if age(&other) > age(&found) { (other, found) } else { (found, other) };
        self.segments.insert(head.segment, kept);
        if age(&kept) > age(&other) {
            // An earlier opening has begun it, and a crash has cut it off.
            self.spare.push(Spare { slot: other.slot, bytes: other.file_bytes });
        } else {
            // One is a copy; neither is known to be the right one, and both say the same.
            self.aside.push(other.slot);
        }
    }

    /// A file whose first block is not the head of a segment: spare, damaged, or not ours.
    fn without_head(&mut self, slot: Slot, file_bytes: u32, block: &[u8], flaw: Flaw) -> Result<(), Refusal> {
        if let Defect::Version(_) | Defect::Flags(_) = flaw.defect {
            return Err(Refusal::LaterVersion { slot, flaw });
        }
        if let Some(head) = self.head_from_batch(block, file_bytes) {
            self.found(slot, file_bytes, head, Some(flaw));
        } else if matches!(flaw.defect, Defect::Blank | Defect::Short { .. }) {
            self.spare.push(Spare { slot, bytes: file_bytes });
        } else {
            self.repairs.push(Repair::ForeignFile { slot, flaw });
            self.aside.push(slot);
        }
        Ok(())
    }

    /// What the head of a segment must have said, by its first batch.
    fn head_from_batch(&mut self, block: &[u8], file_bytes: u32) -> Option<SegmentHead> {
        let batch = block.get(BLOCK_BYTES..).filter(|batch| batch.len() >= 24)?;
        let segment = SegmentNo(super::field::u32_at(batch, 16));
        let position = Position::new(segment, BLOCK_BYTES as u32);
        let expect = Expect { log: self.log, store_tag: self.store.tag(), position, next: None };
        let batch = parse_directory(batch, &expect).ok().filter(|_| segment.0 != 0)?;
        let head = batch.head();
        Some(SegmentHead {
            log: self.log,
            store: self.store,
            segment,
            bytes: file_bytes.into(),
            first: Next { batch: head.batch, chain: head.chain, epoch: head.epoch },
            previous: None,
            created: head.time,
        })
    }

    /// Walks the newest segment that holds anything. `None` if no segment does.
    fn find_end(&mut self) -> Result<Option<End>, Refusal> {
        loop {
            let Some((&segment, &found)) = self.segments.last_key_value() else {
                self.miss_newest(SegmentNo(0), BatchNo(0));
                return Ok(None);
            };
            let plan = Plan {
                log: self.log,
                store_tag: self.store.tag(),
                segment,
                from: BLOCK_BYTES as u32,
                next: found.head.first,
                end: found.file_bytes,
                proven: Proven::AtLeast(BatchNo(found.head.first.batch.0 - 1)),
                depth: Depth::Directories,
            };
            let (mut any, mut sealed, mut checkpoint) = (false, false, None);
            let mut footer = Footer::default();
            let (end, proven) = scan(self.files, found.slot, &plan, |step| match step {
                Step::Batch(batch) => {
                    any = true;
                    checkpoint = batch.head().checkpoint.or(checkpoint);
                    sealed = batch.runs().any(|run| run.entry.kind == Kind::Seal);
                    for run in batch.runs() {
                        if let Some(placed) = run.entry.placed(batch.head().position) {
                            footer.add(&placed);
                        }
                    }
                }
                // The walk tells of it.
                Step::Damaged(_) => (any, sealed) = (true, false),
                Step::Read { .. } | Step::End(_) => {}
            });
            // A head that did not reach the disk is no damage: then neither was anything behind it flushed.
            let is_noted = segment <= self.noted();
            any &= found.flaw.is_none() || is_noted || proven >= found.head.first.batch;
            if any {
                match end.tail {
                    Tail::Unknown(flaw) => return Err(Refusal::LaterVersion { slot: found.slot, flaw }),
                    Tail::Unreadable => return Err(Refusal::UnreadableEnd { slot: found.slot, offset: end.offset }),
                    Tail::Torn(_) => self.repairs.push(Repair::TornTail { slot: found.slot, offset: end.offset }),
                    _ => {}
                }
                // What follows a lost one does not follow this one.
                sealed |= self.miss_newest(segment, BatchNo(end.next.batch.0 - 1));
                self.drop_abandoned();
                return Ok(Some(End {
                    segment,
                    offset: end.offset,
                    next: end.next,
                    sealed,
                    checkpoint,
                    footer,
                    proven,
                }));
            }
            self.segments.remove(&segment);
            if is_noted {
                // Something was there that cannot be read.
                self.aside.push(found.slot);
            } else {
                // It was begun, and nothing in it was ever flushed.
                self.spare.push(Spare { slot: found.slot, bytes: found.file_bytes });
            }
        }
    }

    /// Tells of it if the log, which ends in segment `end`, has gone on behind that.
    fn miss_newest(&mut self, end: SegmentNo, last: BatchNo) -> bool {
        let missing = self.note.filter(|note| note.segment > end);
        self.repairs.extend(missing.map(|Note { slot, segment, .. }| Repair::NewestMissing { slot, segment, last }));
        missing.is_some()
    }

    /// Segments that the next one does not follow, and whose batches it has again. The first commit of such a one has
    /// failed; or else it was lost while the log went on, and is there again.
    fn drop_abandoned(&mut self) {
        let sound = self.segments.iter().filter(|(_, found)| found.flaw.is_none());
        let follows = sound.map(|(no, found)| (*no, found.head.previous.map_or(0, |(previous, _)| previous.0)));
        for (no, previous) in follows.collect::<Vec<_>>() {
            let between = self.segments.range(SegmentNo(previous + 1)..no).map(|(no, _)| *no).collect::<Vec<_>>();
            for segment in between {
                let Some(found) = self.segments.remove(&segment) else { continue };
                let plan = self.plan(segment, &found, found.head.first, BLOCK_BYTES as u32, Depth::Directories);
                let plan = Plan { end: found.file_bytes, proven: Proven::AtLeast(BatchNo(0)), ..plan };
                let (_, proven) = scan(self.files, found.slot, &plan, |_| {});
                if proven >= found.head.first.batch {
                    self.repairs.push(Repair::LateSegment { slot: found.slot, segment });
                    self.aside.push(found.slot);
                } else {
                    self.spare.push(Spare { slot: found.slot, bytes: found.file_bytes });
                }
            }
        }
    }

    /// Segments that were not in use any more at the latest checkpoint, nor may be needed by the one before it: their
    /// files serve others, or were about to.
    fn drop_recycled(&mut self, content: Option<&CheckpointEnd>, checkpoints: Option<&KnownCheckpoints>) {
        let (Some(content), Some((last, Some(previous), _))) = (content, checkpoints) else { return };
        let floor = last.floor.min(previous.floor).segment();
        let numbers = self.segments.range(..floor).map(|(no, _)| *no).collect::<Vec<_>>();
        for no in numbers.into_iter().filter(|no| content.segments.iter().all(|(listed, _)| listed != no)) {
            if let Some(found) = self.segments.remove(&no) {
                self.spare.push(Spare { slot: found.slot, bytes: found.file_bytes });
            }
        }
    }

    /// Tells of damaged heads of segments that were flushed.
    fn tell_heads(&mut self) {
        for (segment, found) in &self.segments {
            if let Some(flaw) = found.flaw {
                self.repairs.push(Repair::DamagedHead { slot: found.slot, segment: *segment, flaw });
            }
        }
    }

    /// Reads the latest checkpoint that can be used and tells its snapshots.
    fn restore(&mut self, end: &End) -> (Option<CheckpointEnd>, Option<KnownCheckpoints>, u64) {
        let Some(mut position) = end.checkpoint else { return (None, None, 1) };
        loop {
            match self.try_checkpoint(position) {
                Ok((content, bytes)) => {
                    let checkpoint = Checkpoint { end: position, floor: content.floor.unwrap_or(position) };
                    let previous = content.previous.and_then(|previous| {
                        let content = self.checkpoint_at(previous).ok()?;
                        Some(Checkpoint { end: previous, floor: content.floor? })
                    });
                    let next_incarnation = content.next_incarnation;
                    return (Some(content), Some((checkpoint, previous, bytes)), next_incarnation);
                }
                Err((at, reason)) => {
                    let slot = self.segments.get(&at.segment()).map(|found| found.slot);
                    self.repairs.push(Repair::DamagedCheckpoint { at, slot, reason });
                    self.visitor.reset();
                    let Some(previous) = self.checkpoint_before(position) else {
                        self.repairs.push(Repair::NoCheckpoint);
                        return (None, None, 1);
                    };
                    position = previous;
                }
            }
        }
    }

    /// The checkpoint that was the latest when the one at `position` was written.
    fn checkpoint_before(&mut self, position: Position) -> Option<Position> {
        let found = *self.segments.get(&position.segment())?;
        let plan = self.plan(position.segment(), &found, found.head.first, BLOCK_BYTES as u32, Depth::Directories);
        let mut before = None;
        scan(self.files, found.slot, &plan, |step| {
            if let Step::Batch(batch) = step
                && batch.head().position <= position
            {
                before = batch.head().checkpoint.filter(|checkpoint| *checkpoint < position);
            }
        });
        before
    }

    fn checkpoint_at(&mut self, mut position: Position) -> Result<CheckpointEnd, &'static str> {
        const DAMAGED: &str = "its end is damaged";
        let mut parts = Chunks::default();
        let mut next = None;
        let mut bytes = self.batch_at(position)?;
        loop {
            let expect = Expect { log: self.log, store_tag: self.store.tag(), position, next };
            let batch = parse(&bytes, &expect).map_err(|_| DAMAGED)?;
            for run in batch.runs().filter(|run| run.entry.kind == Kind::CheckpointEnd) {
                for record in run.control_records().map_err(|_| DAMAGED)? {
                    parts.add(record.map_err(|_| DAMAGED)?, DAMAGED)?;
                }
            }
            match parts.expected {
                0 => return Err("its end is not there"),
                expected if expected == parts.found => return CheckpointEnd::decode(&parts.data).ok_or(DAMAGED),
                _ => {}
            }
            // The others are in the batches behind it.
            next = Some(batch.next());
            let behind = Position::new(position.segment(), position.offset() + batch.bytes());
            (position, bytes) = match self.batch_at(behind) {
                Ok(bytes) => (behind, bytes),
                Err(_) => {
                    let (after, _) =
                        self.segments.range(SegmentNo(position.segment().0 + 1)..).next().ok_or(DAMAGED)?;
                    let first = Position::new(*after, BLOCK_BYTES as u32);
                    (first, self.batch_at(first)?)
                }
            };
        }
    }

    /// Reads a checkpoint and tells its snapshots. If that fails: in which batch, and why.
    fn try_checkpoint(&mut self, position: Position) -> Result<(CheckpointEnd, u64), (Position, &'static str)> {
        let content = self.checkpoint_at(position).map_err(|reason| (position, reason))?;
        let mut total = 0;
        // Snapshots lie one behind the other: many in each batch.
        let (mut at, mut batch) = (None, HashMap::new());
        for (stream, chunks) in &content.snapshots {
            let mut parts = Chunks::default();
            for chunk in chunks {
                if at != Some(*chunk) {
                    batch = self.chunks_at(*chunk).map_err(|reason| (*chunk, reason))?;
                    at = Some(*chunk);
                }
                for chunk_of in batch.remove(stream).unwrap_or_default() {
                    parts.add(&chunk_of, SNAPSHOT_DAMAGED).map_err(|reason| (*chunk, reason))?;
                }
            }
            if parts.found == 0 || parts.found != parts.expected {
                return Err((position, PART_MISSING));
            }
            total += parts.data.len() as u64;
            self.visitor.snapshot(*stream, &parts.data).map_err(|reason| (position, reason))?;
        }
        Ok((content, total))
    }

    /// The chunks of snapshots that lie in one batch, in order. A damaged one is empty.
    fn chunks_at(&mut self, at: Position) -> Result<HashMap<Incarnation, Vec<Vec<u8>>>, &'static str> {
        let bytes = self.batch_at(at)?;
        let expect = Expect { log: self.log, store_tag: self.store.tag(), position: at, next: None };
        let batch = parse(&bytes, &expect).map_err(|_| SNAPSHOT_DAMAGED)?;
        let mut chunks = HashMap::<_, Vec<_>>::new();
        for run in batch.runs().filter(|run| run.entry.kind == Kind::Snapshot) {
            let Some(stream) = run.entry.stream else { continue };
            let of_stream = chunks.entry(stream).or_default();
            match run.control_records() {
                Ok(records) => of_stream.extend(records.map(|record| record.unwrap_or_default().to_vec())),
                Err(_) => of_stream.push(Vec::new()),
            }
        }
        Ok(chunks)
    }

    /// The batch at `position`, whole.
    fn batch_at(&mut self, position: Position) -> Result<AlignedBuf, &'static str> {
        const MISSING: &str = "a segment is missing";
        const UNREADABLE: &str = "a file cannot be read";
        let found = *self.segments.get(&position.segment()).ok_or(MISSING)?;
        let first = self.files.read(found.slot, position.offset(), SNAPSHOT_READ_BYTES).map_err(|_| UNREADABLE)?;
        let expect = Expect { log: self.log, store_tag: self.store.tag(), position, next: None };
        let bytes = match parse_directory(&first, &expect) {
            Ok(batch) => batch.bytes() as usize,
            Err(Flaw { defect: Defect::Short { needed, .. }, .. }) => needed as usize,
            Err(_) => return Err("a batch is damaged"),
        };
        if bytes <= first.len() {
            return Ok(first);
        }
        self.files.read(found.slot, position.offset(), bytes).map_err(|_| UNREADABLE)
    }

    fn plan(&self, segment: SegmentNo, found: &Found, next: Next, from: u32, depth: Depth) -> Plan {
        let successor = self.segments.range(SegmentNo(segment.0 + 1)..).next().map(|(_, found)| found.head);
        let end = successor.and_then(|head| head.previous).filter(|(previous, _)| *previous == segment);
        let proven = match (successor, end) {
            (Some(head), Some(_)) => Proven::All(BatchNo(head.first.batch.0 - 1)),
            (Some(head), None) => Proven::AtLeast(BatchNo(head.first.batch.0 - 1)),
            (None, _) => Proven::AtLeast(BatchNo(next.batch.0.saturating_sub(1))),
        };
        Plan {
            log: self.log,
            store_tag: self.store.tag(),
            segment,
            from,
            next,
            end: end.map_or(found.file_bytes, |(_, offset)| offset),
            proven,
            depth,
        }
    }

    /// Tells the visitor everything from where the checkpoint says, or from the beginning.
    fn walk(&mut self, content: Option<&CheckpointEnd>, end: &End) -> Walked {
        let floor = content.and_then(|content| Some((content.floor?, content.next?)));
        let snapshots = content.map(|content| &content.snapshots[..]).unwrap_or_default();
        let mut teller = Teller {
            snapshots: snapshots.iter().filter_map(|(stream, chunks)| Some((*stream, *chunks.first()?))).collect(),
            open: HashMap::new(),
            walked: Walked::default(),
            repairs: Vec::new(),
            slot: Slot(0),
        };
        let first = floor.map_or(SegmentNo(0), |(floor, _)| floor.segment());
        let mut expected: Option<SegmentNo> = None;
        let numbers = self.segments.range(first..).map(|(no, _)| *no).collect::<Vec<_>>();
        for no in numbers {
            let Some(&found) = self.segments.get(&no) else { continue };
            let before = found.head.previous.map(|(previous, _)| previous);
            if let (Some(last), Some(before)) = (expected, before)
                && before > last
            {
                teller.repairs.push(Repair::MissingSegments { first: SegmentNo(last.0 + 1), last: before });
            }
            expected = Some(no);
            let (from, next) = match floor {
                Some((floor, next)) if floor.segment() == no => (floor.offset(), next),
                _ => (BLOCK_BYTES as u32, found.head.first),
            };
            let mut plan = self.plan(no, &found, next, from, Depth::Contents);
            if no == end.segment {
                end.bound(&mut plan);
            }
            if from >= plan.end {
                continue;
            }
            teller.slot = found.slot;
            let visitor = &mut *self.visitor;
            scan(self.files, found.slot, &plan, |step| match step {
                Step::Batch(batch) => {
                    self.batches += 1;
                    teller.walked.bytes += u64::from(batch.bytes());
                    teller.tell_batch(&batch, visitor);
                }
                Step::Damaged(Damage { offset, end, batches, .. }) => teller.repairs.push(Repair::LostBatches {
                    slot: found.slot,
                    offset,
                    end,
                    batches: (*batches.start(), *batches.end()),
                }),
                Step::Read { .. } | Step::End(_) => {}
            });
        }
        for open in teller.open.into_values() {
            if let Some((run, ..)) = open.first() {
                teller.repairs.push(Repair::OpenTransaction { stream: run.stream, first_seq: run.first_seq });
            }
        }
        self.repairs.append(&mut teller.repairs);
        teller.walked
    }

    fn flush(&mut self, end: &End) -> Result<(), Refusal> {
        let Some(found) = self.segments.get(&end.segment) else { return Ok(()) };
        self.files.flush(found.slot).map_err(|fault| Refusal::Unflushable { slot: found.slot, fault })
    }

    /// Hands the files to the log.
    fn fill(&mut self, table: &mut Segments, end: Option<&End>) {
        let numbers = self.segments.keys().copied().collect::<Vec<_>>();
        for no in numbers {
            let found = self.segments[&no];
            let last = end.filter(|end| end.segment == no);
            let bytes = u32::try_from(found.head.bytes).unwrap_or(u32::MAX).min(found.file_bytes);
            let plan = self.plan(no, &found, found.head.first, BLOCK_BYTES as u32, Depth::Directories);
            table.found(
                no,
                Segment {
                    slot: found.slot,
                    bytes,
                    end: last.map_or(plan.end, |end| end.offset),
                    sealed: last.is_none_or(|end| end.sealed),
                    records: 0,
                    dead: 0,
                    erase: false,
                    spared_at: None,
                },
            );
        }
        for spare in self.spare.drain(..) {
            // Whether it is zero-filled to its end is not known.
            table.found_spare(spare, false);
        }
        for slot in &self.aside {
            table.leave_alone(*slot);
        }
        if let Some(note) = self.note {
            // Should what is lost come back, nothing is in its place.
            table.leave_alone(note.slot);
            table.leave_numbers(note.segment);
        }
    }
}

/// What is read at first of a batch that holds a snapshot.
const SNAPSHOT_READ_BYTES: usize = 1 << 20;

const SNAPSHOT_DAMAGED: &str = "a snapshot is damaged";
const PART_MISSING: &str = "a part of a snapshot is missing";

/// What was found of a snapshot, or of the end of a checkpoint: the chunks so far, and how many there are.
#[derive(Default)]
struct Chunks {
    data: Vec<u8>,
    found: u64,
    expected: u64,
}

impl Chunks {
    fn add(&mut self, chunk: &[u8], damaged: &'static str) -> Result<(), &'static str> {
        let (index, count, share) = parse_chunk(chunk).ok_or(damaged)?;
        // A batch may hold the end of an earlier one too.
        if index == 0 {
            *self = Self { data: Vec::new(), found: 0, expected: count };
        }
        if index != self.found || count != self.expected {
            return Err(PART_MISSING);
        }
        self.found += 1;
        self.data.extend_from_slice(share);
        Ok(())
    }
}

/// A run of a transaction that is not complete.
type OpenRun = (PlacedRun, Effect, bool, super::entry::RunEntry, Bytes);

/// Tells runs to a visitor, transactions when they are complete.
struct Teller {
    /// Where the snapshot of each incarnation begins that has not been met yet.
    snapshots: HashMap<Incarnation, Position>,
    open: HashMap<Transaction, Vec<OpenRun>>,
    walked: Walked,
    repairs: Vec<Repair>,
    slot: Slot,
}

impl Teller {
    /// Removals before messages: they tell after which message they came.
    fn tell_batch(&mut self, batch: &Batch<'_>, visitor: &mut impl Visitor) {
        let position = batch.head().position;
        let mut runs = Vec::new();
        for run in batch.runs() {
            let Some(placed) = run.entry.placed(position) else {
                if run.entry.kind == Kind::Mark
                    && let Ok(content) = run.content()
                {
                    let records = super::record::control_records(content, &run.entry).flatten();
                    self.walked.erase.extend(records.filter_map(segment_numbers).flatten());
                }
                continue;
            };
            let stream = placed.stream;
            self.walked.greatest_incarnation = self.walked.greatest_incarnation.max(stream.get());
            if placed.kind == Kind::Snapshot {
                // From here on everything counts.
                if self.snapshots.get(&stream) == Some(&position) {
                    self.snapshots.remove(&stream);
                }
                continue;
            }
            let effect = if self.snapshots.contains_key(&stream) { Effect::PlaceOnly } else { Effect::Whole };
            runs.push((run, placed, effect));
        }
        // A stream may have been created in this batch: whatever precedes its messages comes first too.
        let mut with_messages = HashSet::new();
        let (early, late): (Vec<_>, Vec<_>) = runs.into_iter().partition(|(_, placed, _)| {
            if placed.kind == Kind::Messages {
                with_messages.insert(placed.stream);
            }
            placed.kind == Kind::Removal || placed.kind == Kind::StreamMeta && !with_messages.contains(&placed.stream)
        });
        for (run, placed, effect) in early.into_iter().chain(late) {
            self.tell(&run, &placed, effect, visitor);
        }
    }

    fn tell(&mut self, run: &Run<'_>, placed: &PlacedRun, effect: Effect, visitor: &mut impl Visitor) {
        let placed = *placed;
        if placed.kind == Kind::Messages {
            *self.walked.records.entry(placed.position.segment()).or_default() += u64::from(placed.content_bytes);
        }
        let content = match run.content() {
            Ok(content) => content,
            Err(flaw) => {
                self.repairs.push(Repair::DamagedRun { slot: self.slot, run: placed, flaw });
                if let Some(part) = run.entry.part {
                    self.open.remove(&part.transaction);
                }
                return visitor.damaged(&placed, effect, flaw);
            }
        };
        match run.entry.part {
            Some(part) => {
                let content = Bytes::copy_from_slice(content);
                let open = self.open.entry(part.transaction).or_default();
                open.push((placed, effect, run.entry.fragment, run.entry, content));
                if part.commits
                    && let Some(runs) = self.open.remove(&part.transaction)
                {
                    self.tell_transaction(&runs, visitor);
                }
            }
            None if placed.kind == Kind::Messages => tell_messages(&placed, effect, &run.entry, content, visitor),
            None => {
                for record in super::record::control_records(content, &run.entry).flatten() {
                    visitor.control(&placed, effect, record);
                }
            }
        }
    }

    fn tell_transaction(&mut self, runs: &[OpenRun], visitor: &mut impl Visitor) {
        let Some((first, effect, fragment, ..)) = runs.first() else { return };
        if first.kind != Kind::Messages {
            let mut whole = Vec::new();
            for (_, _, _, entry, content) in runs {
                super::record::control_records(content, entry)
                    .flatten()
                    .for_each(|share| whole.extend_from_slice(share));
            }
            return visitor.control(first, *effect, &whole);
        }
        if !fragment {
            for (placed, effect, _, entry, content) in runs {
                tell_messages(placed, *effect, entry, content, visitor);
            }
            return;
        }
        if first.piece > 0 {
            // It began before the walk did: the snapshot knows it, and where its beginning is.
            return runs.iter().for_each(|(piece, ..)| visitor.piece(piece));
        }
        let mut assembler = Assembler::new(usize::MAX);
        let mut record_bytes = 0;
        for (placed, _, _, entry, content) in runs {
            for record in super::record::records(content, entry) {
                let added = record.and_then(|record| {
                    record_bytes += record.bytes;
                    assembler.add(entry, &record)
                });
                match added {
                    Ok(None) => {}
                    Ok(Some(message)) => {
                        // The message is where its first part is.
                        let whole = *first;
                        visitor.messages(&whole, *effect, &mut std::iter::once(Ok((message, record_bytes))));
                        runs[1..].iter().for_each(|(piece, ..)| visitor.piece(piece));
                    }
                    Err(flaw) => {
                        self.repairs.push(Repair::DamagedRun { slot: self.slot, run: *placed, flaw });
                        return visitor.damaged(first, *effect, flaw);
                    }
                }
            }
        }
    }
}

fn tell_messages(
    placed: &PlacedRun,
    effect: Effect,
    entry: &super::entry::RunEntry,
    content: &[u8],
    visitor: &mut impl Visitor,
) {
    let records = super::record::records(content, entry);
    visitor.messages(placed, effect, &mut records.map(|record| record.map(|record| (record.message, record.bytes))));
}

/// Scans a segment; what cannot be read is passed over.
///
/// Returns where it ends and the last batch that is known to have been flushed.
fn scan(
    files: &mut impl Files,
    slot: Slot,
    plan: &Plan,
    mut each: impl FnMut(Step<'_>),
) -> (super::scan::End, BatchNo) {
    let mut scan = Scan::new(plan);
    loop {
        match scan.step() {
            Step::Read { offset, bytes } => match files.read(slot, offset, bytes as usize) {
                Ok(bytes) => scan.supply(Bytes::from_owner(bytes)),
                Err(_) => scan.unreadable(),
            },
            Step::End(end) => return (end, scan.proven()),
            found => each(found),
        }
    }
}
