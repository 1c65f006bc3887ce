//! Checkpoints: snapshots of everything that control records have built up, so that opening a log reads only what came
//! after them.
//!
//! A checkpoint is written while work goes on. Each stream's snapshot is taken and appended in one step, at its own
//! place in the log; it stands for everything that was appended for that stream before that place. When all of them are
//! flushed, its end tells where they are, and from where recovery walks through the log: from the
//! first batch that was not flushed when the checkpoint began, as snapshots know the messages of such batches but not their
//! places. When that is flushed too, the checkpoint is complete, and every batch head names it from then on.
//!
//! The end is a [`Kind::CheckpointEnd`] record, or, for many streams, several one behind the other: in chunks as a
//! snapshot is. They may lie in several batches, which follow each other; the first one is named.
//!
//! Two complete checkpoints are kept. Nothing from the older one's beginning on is recycled, so that its control
//! records are there too if the newer one should turn out to be damaged.

use super::batch::Next;
use super::durable::{Durable, Pending};
use super::ids::{BatchNo, Incarnation, Position, SegmentNo};
use super::run::{Kind, PlacedRun};
use super::varint;

/// A snapshot is cut into chunks of this size.
pub const CHUNK_BYTES: usize = 128 << 10;
/// Least bytes of log between two checkpoints, unless they are asked for.
const INTERVAL_BYTES: u64 = 64 << 20;
/// A checkpoint is written when the log has grown by this many times the size of the last one.
const INTERVAL_SIZES: u64 = 4;

/// What the end of a checkpoint says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointEnd {
    /// Where recovery begins to walk: a batch that had not been flushed when the checkpoint began.
    pub floor: Option<Position>,
    /// What that batch is.
    pub next: Option<Next>,
    /// The complete checkpoint before this one.
    pub previous: Option<Position>,
    /// No incarnation has this number or a greater one yet, as far as the checkpoint knows.
    pub next_incarnation: u64,
    /// Segments that hold something: their numbers, and bytes of records of messages in them.
    pub segments: Vec<(SegmentNo, u64)>,
    /// The chunks of each snapshot: the batches they lie in, in order.
    pub snapshots: Vec<(Incarnation, Vec<Position>)>,
    /// Segments whose files are to be overwritten; zero for files that are in use no longer.
    pub erase: Vec<SegmentNo>,
}

impl CheckpointEnd {
    /// As on disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |number: u64| varint::push(&mut out, number);
        let next = self.next.unwrap_or(Next { batch: BatchNo(0), chain: 0, epoch: 0 });
        put(self.floor.map_or(0, Position::to_bits));
        put(next.batch.0);
        put(next.chain.into());
        put(next.epoch.into());
        put(self.previous.map_or(0, Position::to_bits));
        put(self.next_incarnation);
        put(self.segments.len() as u64);
        for (segment, records) in &self.segments {
            put(segment.0.into());
            put(*records);
        }
        put(self.snapshots.len() as u64);
        for (stream, chunks) in &self.snapshots {
            put(stream.get());
            put(chunks.len() as u64);
            chunks.iter().for_each(|chunk| put(chunk.to_bits()));
        }
        self.erase.iter().for_each(|segment| put(segment.0.into()));
        out
    }

    /// The reverse of [`CheckpointEnd::encode`]; `None` if it is not one.
    #[must_use]
    pub fn decode(mut content: &[u8]) -> Option<Self> {
        let input = &mut content;
        let mut take = || varint::take(input);
        let floor = Position::from_bits(take()?);
        let (batch, chain, epoch) = (take()?, take()?, take()?);
        let next = Next { batch: BatchNo(batch), chain: u32::try_from(chain).ok()?, epoch: u32::try_from(epoch).ok()? };
        let mut end = Self {
            floor,
            next: (batch != 0).then_some(next),
            previous: Position::from_bits(take()?),
            next_incarnation: take()?,
            segments: Vec::new(),
            snapshots: Vec::new(),
            erase: Vec::new(),
        };
        for _ in 0..take()? {
            end.segments.push((SegmentNo(u32::try_from(take()?).ok()?), take()?));
        }
        for _ in 0..take()? {
            let stream = Incarnation::new(take()?)?;
            let mut chunks = Vec::new();
            for _ in 0..take()? {
                chunks.push(Position::from_bits(take()?)?);
            }
            end.snapshots.push((stream, chunks));
        }
        end.erase = segment_numbers(input)?;
        Some(end)
    }
}

/// Numbers of segments, up to the end of the content.
pub(super) fn segment_numbers(mut content: &[u8]) -> Option<Vec<SegmentNo>> {
    let mut numbers = Vec::new();
    while !content.is_empty() {
        numbers.push(SegmentNo(u32::try_from(varint::take(&mut content)?).ok()?));
    }
    Some(numbers)
}

/// The chunks of a snapshot, or of an end: for each its number, the number of chunks, and its share.
pub(super) fn chunks(snapshot: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let count = snapshot.len().div_ceil(CHUNK_BYTES).max(1);
    (0..count).map(move |index| {
        let share = &snapshot[index * CHUNK_BYTES..snapshot.len().min((index + 1) * CHUNK_BYTES)];
        let mut chunk = Vec::with_capacity(share.len() + 8);
        varint::push(&mut chunk, index as u64);
        varint::push(&mut chunk, count as u64);
        chunk.extend_from_slice(share);
        chunk
    })
}

/// What a chunk of a snapshot or an end says: its number, the number of chunks, and its share. `None` if it is not one.
pub fn parse_chunk(mut chunk: &[u8]) -> Option<(u64, u64, &[u8])> {
    let index = varint::take(&mut chunk)?;
    let count = varint::take(&mut chunk)?;
    (index < count).then_some((index, count, chunk))
}

/// A complete checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The batch of its [`CheckpointEnd`].
    pub(super) end: Position,
    pub(super) floor: Position,
}

#[derive(Debug)]
struct Writing {
    content: CheckpointEnd,
    /// The last snapshot; `None` while there are more to come.
    last: Option<Pending>,
    /// The first and the last chunk of its end.
    end: Option<(Pending, Pending)>,
    /// Where the first one is, once it is flushed.
    at: Option<Position>,
    bytes: u64,
}

/// The checkpoints of a log.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    last: Option<Checkpoint>,
    previous: Option<Checkpoint>,
    writing: Option<Writing>,
    /// Bytes of the snapshots of the last one.
    bytes: u64,
    /// Bytes written to the log since the last one began.
    since: u64,
}

impl Checkpoints {
    /// What recovery has found: the latest, the one before it, and the bytes of the latest's snapshots; and how many bytes
    /// were written to the log since.
    pub(super) fn recovered(found: Option<(Checkpoint, Option<Checkpoint>, u64)>, since: u64) -> Self {
        let Some((last, previous, bytes)) = found else { return Self { since, ..Self::default() } };
        Self { last: Some(last), previous, writing: None, bytes, since }
    }

    /// What batch heads name.
    pub(super) fn latest(&self) -> Option<Position> {
        self.last.map(|checkpoint| checkpoint.end)
    }

    /// Nothing from here on may be recycled. `None` while there are not two checkpoints: then nothing may.
    pub(super) fn floor(&self) -> Option<Position> {
        self.previous.map(|checkpoint| checkpoint.floor)
    }

    /// Whether it is time for the next one.
    pub(super) fn due(&self, segment_bytes: u64) -> bool {
        let interval = INTERVAL_BYTES.min(segment_bytes).max(self.bytes * INTERVAL_SIZES);
        self.writing.is_none() && self.since >= interval
    }

    /// Whether one is worth it that lets go of so many bytes of the log. It leaves garbage itself: if a little more space
    /// were enough, checkpoints and the cleaning of what they leave would go on without anybody's work.
    pub(super) fn pays_for(&self, retired: u64) -> bool {
        retired >= self.bytes * INTERVAL_SIZES
    }

    /// Whether one may begin now: something was written since the last one.
    pub(super) fn may_begin(&self) -> bool {
        self.writing.is_none() && self.since > 0
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// `floor` is where the log is flushed to, and `next` the batch that will follow.
    pub(super) fn begin(&mut self, floor: Position, next: Next) {
        let previous = self.latest();
        let content = CheckpointEnd { floor: Some(floor), next: Some(next), previous, ..CheckpointEnd::default() };
        self.writing = Some(Writing { content, last: None, end: None, at: None, bytes: 0 });
        self.since = 0;
    }

    /// The last snapshot has been appended.
    pub(super) fn all_appended(&mut self, last: Pending) {
        if let Some(writing) = &mut self.writing {
            writing.last = Some(last);
        }
    }

    /// The content of the end, when all snapshots are flushed; to be appended at once, in chunks. `segments` tells what is in
    /// use, and what is to be erased.
    pub(super) fn end(
        &mut self,
        proof: &Durable,
        next_incarnation: u64,
        segments: impl FnOnce() -> (Vec<(SegmentNo, u64)>, Vec<SegmentNo>),
    ) -> Option<Vec<u8>> {
        let writing = self.writing.as_mut()?;
        if writing.end.is_some() || !writing.last.is_some_and(|last| proof.covers(last)) {
            return None;
        }
        writing.content.next_incarnation = next_incarnation;
        (writing.content.segments, writing.content.erase) = segments();
        Some(writing.content.encode())
    }

    /// What [`Checkpoints::end`] has returned was appended.
    pub(super) fn end_appended(&mut self, chunks: &[Pending]) {
        if let Some(writing) = &mut self.writing {
            writing.end = chunks.first().copied().zip(chunks.last().copied());
        }
    }

    /// What was appended under `pending` is flushed in the batch at `position`.
    pub(super) fn ended_at(&mut self, pending: Pending, position: Position) {
        let Some(writing) = &mut self.writing else { return };
        let Some((first, last)) = writing.end else { return };
        if pending == first {
            writing.at = Some(position);
        }
        if pending == last {
            let end = writing.at.unwrap_or(position);
            let floor = writing.content.floor.unwrap_or(end);
            self.bytes = writing.bytes;
            self.previous = self.last.replace(Checkpoint { end, floor });
            self.writing = None;
        }
    }

    /// Takes note of what has been flushed: so many bytes, and these runs of streams.
    pub(super) fn flushed(&mut self, bytes: u64, runs: &[PlacedRun]) {
        self.since += bytes;
        let Some(writing) = &mut self.writing else { return };
        for run in runs.iter().filter(|run| run.kind == Kind::Snapshot) {
            writing.bytes += u64::from(run.content_bytes);
            // The chunks of a snapshot are appended in one step.
            match writing.content.snapshots.last_mut().filter(|(stream, _)| *stream == run.stream) {
                // A batch is told once, however many chunks it holds.
                Some((_, chunks)) if chunks.last() == Some(&run.position) => {}
                Some((_, chunks)) => chunks.push(run.position),
                None => writing.content.snapshots.push((run.stream, vec![run.position])),
            }
        }
    }
}
