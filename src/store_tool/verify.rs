//! Whether all of a store is as it was written.
//!
//! Each segment is read from its first block to where it ends: the chain of heads, each head, each directory, the checksum
//! of each run, each record, and the order of sequence numbers. Then the log is opened as a server would open it, which
//! tries the checkpoint and makes sense of control records; and each message that the opened log takes for living must
//! have been found sound in the segment where the log has it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::RangeInclusive;

use roaring::RoaringTreemap;

use super::describe;
use super::directory::{StoreDirectory, Unusable};
use super::reading::Reading;
use crate::io::layout::{directory_of, file_of};
use crate::log::checkpoint::parse_chunk;
use crate::log::recover::survey::{FoundSegment, HiddenEnd, Survey, survey};
use crate::log::recover::{Files, Repair};
use crate::log::{
    Batch, Depth, Flaw, Incarnation, Kind, LogId, Next, PlacedRun, Position, Run, Seal, SegmentNo, Slot, Step, Time,
    Transaction,
};
use crate::stream::Lookup;

/// What was found.
#[derive(Debug, Default)]
pub struct Verification {
    /// What is not as it should be around the segments, and whether that is damage.
    pub oddities: Vec<(String, bool)>,
    /// Log by log.
    pub logs: Vec<LogVerdict>,
}

impl Verification {
    /// Problems that are damage.
    #[must_use]
    pub fn damages(&self) -> usize {
        let problems = self.logs.iter().flat_map(|log| &log.problems).filter(|problem| problem.is_damage());
        problems.count() + self.oddities.iter().filter(|(_, damage)| *damage).count()
    }
}

/// What was found in a log.
#[derive(Debug)]
pub struct LogVerdict {
    /// The log.
    pub log: LogId,
    /// Segments read.
    pub segments: u64,
    /// Batches read.
    pub batches: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Messages read, those included that do not live any longer.
    pub messages: u64,
    /// What is wrong, in the order of the log.
    pub problems: Vec<Problem>,
    /// Names of streams.
    names: BTreeMap<Incarnation, String>,
}

impl LogVerdict {
    /// A problem in words.
    #[must_use]
    pub fn describe(&self, problem: &Problem) -> String {
        Described { problem, verdict: self }.to_string()
    }

    fn stream(&self, of: Incarnation) -> String {
        match self.names.get(&of) {
            Some(name) => format!("stream {} ({})", of.get(), name.escape_debug()),
            None => format!("stream {}", of.get()),
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// What opening the log tells too.
    Repair(Repair),
    /// A record that makes no sense, though its checksum holds.
    Senseless {
        /// Its file.
        slot: Slot,
        /// The batch.
        position: Position,
        /// What it is.
        kind: Kind,
    },
    /// So many records make no sense, says opening the log.
    SenselessRecords(u64),
    /// A segment does not go on where the one before it ends.
    Chain {
        /// Its file.
        slot: Slot,
        /// What the segment before it demands.
        expected: Next,
        /// What its head announces.
        found: Next,
    },
    /// Sequence numbers of a stream do not ascend.
    Order {
        /// The file.
        slot: Slot,
        /// The batch.
        position: Position,
        /// The stream.
        stream: Incarnation,
        /// The first number of the run.
        first_seq: u64,
        /// The last number before it.
        before: u64,
    },
    /// Between messages of a stream batches have been lost; these numbers were perhaps in them.
    Gap {
        /// The stream.
        stream: Incarnation,
        /// First and last number.
        seqs: (u64, u64),
    },
    /// Messages that live are not where the log has them, or cannot be read there.
    Unreadable {
        /// The stream.
        stream: Incarnation,
        /// Their numbers.
        seqs: Vec<RangeInclusive<u64>>,
    },
    /// A file with a damaged beginning goes on where the log seems to end.
    Hidden(HiddenEnd),
    /// The checkpoint before the latest cannot be used.
    OlderCheckpoint {
        /// Where it ends.
        end: Position,
        /// Why not.
        reason: &'static str,
    },
    /// Behind the batches of a segment there are bytes of which nothing tells whether they count.
    UnknownEnd {
        /// The file.
        slot: Slot,
        /// Where they begin.
        offset: u32,
    },
}

impl Problem {
    /// Whether something that was flushed is lost or has changed. Else it is what a crash may leave behind.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Repair(repair) => repair.is_damage(),
            Self::UnknownEnd { .. } => false,
            _ => true,
        }
    }
}

struct Described<'a> {
    problem: &'a Problem,
    verdict: &'a LogVerdict,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { problem, verdict } = self;
        let directory = directory_of(verdict.log);
        let file = |slot: &Slot| format!("{directory}/{}", file_of(*slot));
        match problem {
            Problem::Repair(Repair::DamagedRun { slot, run, flaw }) => {
                write!(f, "{}: offset {}: ", file(slot), flaw.offset)?;
                match run.kind {
                    Kind::Messages => write!(f, "messages {} to {}", run.first_seq, run.last_seq)?,
                    kind => write!(f, "{kind:?}")?,
                }
                write!(f, " of {} are damaged: {}", verdict.stream(run.stream), flaw.defect)
            }
            // These begin with the name of a file in the log's directory.
            Problem::Repair(
                repair @ (Repair::TornTail { .. }
                | Repair::LostBatches { .. }
                | Repair::DamagedHead { .. }
                | Repair::NewestMissing { .. }
                | Repair::LateSegment { .. }
                | Repair::DamagedNote { .. }
                | Repair::UnreadableNote { .. }
                | Repair::ForeignFile { .. }
                | Repair::UnreadableFile { .. }),
            ) => write!(f, "{directory}/{repair}"),
            Problem::Repair(Repair::EndUnknown { stream, last_seq }) => write!(
                f,
                "{directory}: {} ends with message {last_seq}; whatever came after it is lost",
                verdict.stream(*stream)
            ),
            Problem::Repair(repair) => write!(f, "{directory}: {repair}"),
            Problem::Senseless { slot, position, kind } => {
                write!(f, "{}: batch at {}: a record ({kind:?}) makes no sense", file(slot), position.offset())
            }
            Problem::SenselessRecords(count) => {
                write!(f, "{directory}: {count} records make no sense and are passed over")
            }
            Problem::Chain { slot, expected, found } => write!(
                f,
                "{}: begins with batch {} behind checksum {:08x}, batch {} behind {:08x} belongs there",
                file(slot),
                found.batch.0,
                found.chain,
                expected.batch.0,
                expected.chain
            ),
            Problem::Order { slot, position, stream, first_seq, before } => write!(
                f,
                "{}: batch at {}: messages of {} from {first_seq} on lie behind message {before}",
                file(slot),
                position.offset(),
                verdict.stream(*stream)
            ),
            Problem::Gap { stream, seqs: (first, last) } => write!(
                f,
                "{directory}: messages {first} to {last} of {} are missing; they were perhaps in lost batches",
                verdict.stream(*stream)
            ),
            Problem::Unreadable { stream, seqs } => write!(
                f,
                "{directory}: {} messages of {} cannot be read: {}",
                seqs.iter().map(|range| range.end() - range.start() + 1).sum::<u64>(),
                verdict.stream(*stream),
                describe::ranges(seqs)
            ),
            Problem::Hidden(HiddenEnd { slot, segment, batch, offset }) => write!(
                f,
                "{}: the beginning is damaged; from {offset} on there is batch {} of segment {}, behind the end of what \
                 can be read of the log",
                file(slot),
                batch.0,
                segment.0
            ),
            Problem::OlderCheckpoint { end, reason } => {
                write!(f, "{directory}: the checkpoint at {end:?}, before the latest, cannot be used: {reason}")
            }
            Problem::UnknownEnd { slot, offset } => write!(
                f,
                "{}: what follows offset {offset} may be damaged batches or a torn write: the next segment is gone",
                file(slot)
            ),
        }
    }
}

/// Reads all of a store. `on_read` is told of bytes as they are read.
///
/// # Errors
/// When a log cannot be opened at all.
pub fn verify(directory: &StoreDirectory, on_read: &dyn Fn(u64)) -> Result<Verification, Unusable> {
    let oddities = directory.oddities().iter().map(|oddity| (oddity.to_string(), oddity.is_damage())).collect();
    let logs = directory.logs().iter().map(|log| verify_log(directory, *log, on_read)).collect::<Result<_, _>>()?;
    Ok(Verification { oddities, logs })
}

fn verify_log(directory: &StoreDirectory, log: LogId, on_read: &dyn Fn(u64)) -> Result<LogVerdict, Unusable> {
    let refused = |refusal| Unusable::Refused(directory.path_of(log), refusal);
    let mut files = directory.files(log, on_read);
    let mut audit = Audit::default();
    survey(&mut files, log, directory.store(), |survey| audit.log(survey)).map_err(refused)?;
    let reading = Reading::open(files, log, directory.store(), audit.time).map_err(refused)?;
    audit.opened(&reading);
    let store = reading.store();
    let name = |of| Some((of, describe::name(store.stream_meta(of)?)?));
    let names = store.streams().filter_map(name).collect();
    let Audit { segments, batches, bytes, messages, problems, .. } = audit;
    Ok(LogVerdict { log, segments, batches, bytes, messages, problems, names })
}

/// Everything that reading a log has found.
#[derive(Default)]
struct Audit {
    segments: u64,
    batches: u64,
    bytes: u64,
    messages: u64,
    problems: Vec<Problem>,
    /// When the last batch was written.
    time: Time,
    /// Messages that are sound, by stream and by the segment in which they, or their first parts, lie.
    seen: HashMap<(Incarnation, SegmentNo), RoaringTreemap>,
    /// The last number of each stream where it was first written.
    last: HashMap<Incarnation, u64>,
    /// The same before batches that were lost.
    before_loss: HashMap<Incarnation, u64>,
    open: HashMap<Transaction, Open>,
}

/// A transaction that is not complete.
struct Open {
    sound: bool,
    moved: bool,
    /// Where it begins.
    segment: SegmentNo,
    first_seq: u64,
    last_seq: u64,
    /// Messages and where they, or their first parts, lie.
    seqs: Vec<(SegmentNo, u64)>,
    /// Of a message in parts: the next part, and how many there are.
    parts: (u32, u32),
}

impl Audit {
    fn log<F: Files>(&mut self, survey: &mut Survey<'_, '_, F>) {
        let mut before: Option<(FoundSegment, Next)> = None;
        for found in survey.segments() {
            self.chain(before.as_ref(), &found);
            before = self.segment(survey, &found).map(|next| (found, next));
        }
        for slot in survey.aside().to_vec() {
            if let Some(hidden) = survey.hidden_end(slot) {
                self.problems.push(Problem::Hidden(hidden));
            }
        }
        for checkpoint in survey.checkpoints().into_iter().skip(1) {
            if let Err(reason) = checkpoint.content {
                self.problems.push(Problem::OlderCheckpoint { end: checkpoint.position, reason });
            }
        }
    }

    /// Whether a segment goes on where the one before it ends.
    fn chain(&mut self, before: Option<&(FoundSegment, Next)>, found: &FoundSegment) {
        let Some((before, expected)) = before else { return };
        let follows = found.head.previous.is_some_and(|(previous, _)| previous == before.head.segment);
        let (expected, first) = (*expected, found.head.first);
        if follows && (expected.batch, expected.chain) != (first.batch, first.chain) {
            self.problems.push(Problem::Chain { slot: found.slot, expected, found: first });
        }
    }

    /// Reads a segment. Tells what must follow it, if that is known.
    fn segment<F: Files>(&mut self, survey: &mut Survey<'_, '_, F>, found: &FoundSegment) -> Option<Next> {
        self.segments += 1;
        let (mut sealed, mut lost_end) = (false, false);
        let end = survey.scan(found.head.segment, Depth::Contents, |step| match step {
            Step::Batch(batch) => {
                sealed = self.batch(&batch, found.slot);
                lost_end = false;
            }
            Step::Damaged(damage) => {
                lost_end = damage.end >= found.end;
                if lost_end && !found.end_is_known {
                    // Batches that were in another segment since are missed here.
                    if !sealed {
                        self.problems.push(Problem::UnknownEnd { slot: found.slot, offset: damage.offset });
                    }
                    return;
                }
                for (stream, last) in &self.last {
                    self.before_loss.entry(*stream).or_insert(*last);
                }
                self.problems.push(Problem::Repair(Repair::LostBatches {
                    slot: found.slot,
                    offset: damage.offset,
                    end: damage.end,
                    batches: (*damage.batches.start(), *damage.batches.end()),
                }));
            }
            Step::Read { .. } | Step::End(_) => {}
        })?;
        (!lost_end).then_some(end.next)
    }

    /// Looks at a batch. Returns whether it ends its segment.
    fn batch(&mut self, batch: &Batch<'_>, slot: Slot) -> bool {
        self.batches += 1;
        self.bytes += u64::from(batch.bytes());
        self.time = self.time.max(batch.head().time);
        let mut sealed = false;
        for run in batch.runs() {
            sealed |= run.entry.kind == Kind::Seal;
            let position = batch.head().position;
            let outcome = match run.entry.kind {
                Kind::Messages => self.messages(&run, position, slot),
                _ => self.control(&run, position, slot),
            };
            if let Err(flaw) = outcome {
                self.damaged(&run, position, slot, flaw);
            }
        }
        sealed
    }

    fn damaged(&mut self, run: &Run<'_>, position: Position, slot: Slot, flaw: Flaw) {
        match run.entry.placed(position) {
            Some(run) => self.problems.push(Problem::Repair(Repair::DamagedRun { slot, run, flaw })),
            None => self.problems.push(Problem::Senseless { slot, position, kind: run.entry.kind }),
        }
        if let Some(part) = run.entry.part
            && let Some(open) = self.open.get_mut(&part.transaction)
        {
            open.sound = false;
        }
    }

    fn control(&mut self, run: &Run<'_>, position: Position, slot: Slot) -> Result<(), Flaw> {
        for record in run.control_records()? {
            let record = record?;
            let makes_sense = match run.entry.kind {
                Kind::Seal => Seal::decode(record, run.entry.offset).is_ok(),
                Kind::CheckpointEnd => parse_chunk(record).is_some(),
                // Opening the log tries the others.
                _ => true,
            };
            if !makes_sense {
                self.problems.push(Problem::Senseless { slot, position, kind: run.entry.kind });
            }
        }
        Ok(())
    }

    fn messages(&mut self, run: &Run<'_>, position: Position, slot: Slot) -> Result<(), Flaw> {
        let entry = &run.entry;
        let Some(placed) = entry.placed(position) else { return Ok(()) };
        let Some(part) = entry.part else {
            let seen = self.seen.entry((placed.stream, position.segment())).or_default();
            for record in run.records()? {
                seen.insert(record?.message.seq);
                self.messages += 1;
            }
            self.order(&placed, slot);
            return Ok(());
        };
        let open = self.open.entry(part.transaction).or_insert(Open {
            sound: true,
            moved: entry.birth.is_some(),
            segment: position.segment(),
            first_seq: entry.first_seq,
            last_seq: entry.last_seq,
            seqs: Vec::new(),
            parts: (0, 0),
        });
        open.first_seq = open.first_seq.min(entry.first_seq);
        open.last_seq = open.last_seq.max(entry.last_seq);
        for record in run.records()? {
            let record = record?;
            match record.fragment {
                None => open.seqs.push((position.segment(), record.message.seq)),
                Some(number) => {
                    open.sound &= number.index == open.parts.0;
                    open.parts = (number.index + 1, number.count);
                    if open.parts.0 == open.parts.1 {
                        open.seqs.push((open.segment, record.message.seq));
                    }
                }
            }
        }
        if part.commits
            && let Some(open) = self.open.remove(&part.transaction)
        {
            self.messages += open.seqs.len() as u64;
            if open.sound && open.parts.0 == open.parts.1 {
                for (segment, seq) in open.seqs {
                    self.seen.entry((placed.stream, segment)).or_default().insert(seq);
                }
            }
            let moved_from = placed.moved_from.filter(|_| open.moved);
            self.order(&PlacedRun { first_seq: open.first_seq, last_seq: open.last_seq, moved_from, ..placed }, slot);
        }
        Ok(())
    }

    /// Sequence numbers of a stream ascend along the log, but for messages that cleaning has moved.
    fn order(&mut self, run: &PlacedRun, slot: Slot) {
        if run.moved_from.is_some() {
            return;
        }
        let &PlacedRun { stream, position, first_seq, last_seq, .. } = run;
        let last = self.last.entry(stream).or_insert(0);
        if first_seq <= *last {
            self.problems.push(Problem::Order { slot, position, stream, first_seq, before: *last });
        } else if let Some(before) = self.before_loss.remove(&stream)
            && first_seq > before + 1
        {
            self.problems.push(Problem::Gap { stream, seqs: (before + 1, first_seq - 1) });
        }
        *last = last_seq.max(*last);
    }

    /// Takes over what opening the log has found, and looks whether every message that lives can be read.
    fn opened(&mut self, reading: &Reading<'_>) {
        let report = reading.report();
        for repair in &report.repairs {
            let problem = Problem::Repair(repair.clone());
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
        if report.senseless > 0 {
            self.problems.push(Problem::SenselessRecords(report.senseless));
        }
        for of in reading.store().streams() {
            let Some(stream) = reading.store().stream(of).filter(|stream| !stream.config().is_memory()) else {
                continue;
            };
            let (mut from, mut seqs) = (stream.first_seq(), Vec::new());
            while let Lookup::Found { seq, block } = stream.next(from) {
                let segment = block.position.map(|position| position.segment());
                let seen = segment.and_then(|segment| self.seen.get(&(of, segment)));
                if !seen.is_some_and(|seen| seen.contains(seq)) {
                    describe::push(&mut seqs, seq);
                }
                from = seq + 1;
            }
            if !seqs.is_empty() {
                self.problems.push(Problem::Unreadable { stream: of, seqs });
            }
        }
    }
}
