//! Checkpoints, reads, and getting back the space of what has been removed.
//!
//! Cleaning goes segment by segment. The counters of a segment only choose; whether a message is live is asked of its
//! stream, exactly, when the segment is read. Live messages are appended again ([`Log::moved`]); when they are flushed, the
//! streams point to the new places, nothing points into the segment any more, and it is recycled. Segments with what the
//! two latest checkpoints need are left alone.

use super::checkpoint;
use super::ids::{Incarnation, Position, SegmentNo, Slot, Time};
use super::log::{Log, Open};
use super::request::{Request, RequestId};
use super::run::{Kind, Urgency};

/// A sealed segment is worth cleaning when this share of its file would come back.
const WORTHWHILE: f64 = 0.5;
/// The same when the disk is full.
const WORTHWHILE_WHEN_FULL: f64 = 0.05;

/// A segment that could be cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The segment.
    pub segment: SegmentNo,
    /// Where its batches end.
    pub end: u32,
    /// Bytes of records of messages that are probably live.
    pub live: u64,
}

impl Log {
    /// Whether it is time for a checkpoint.
    #[must_use]
    pub fn checkpoint_due(&self) -> bool {
        self.checkpoints.due(self.segments.total_bytes() / 8)
    }

    /// Whether a checkpoint has begun and is not complete.
    #[must_use]
    pub fn is_checkpointing(&self) -> bool {
        self.checkpoints.is_writing()
    }

    /// Begins a checkpoint, to which every stream and every other incarnation with control records adds its snapshot.
    pub fn begin_checkpoint(&mut self) {
        let (floor, next) = self.walk_from();
        self.checkpoints.begin(floor, next);
    }

    /// Appends a snapshot of everything that has been appended for that incarnation so far.
    pub fn snapshot(&mut self, now: Time, of: Incarnation, snapshot: &[u8]) {
        for chunk in checkpoint::chunks(snapshot) {
            self.control(now, Some(of), Kind::Snapshot, &chunk, Urgency::RideAlong);
        }
    }

    /// All snapshots have been appended; the checkpoint becomes complete by itself. `urgency` is how soon.
    pub fn end_checkpoint(&mut self, now: Time, urgency: Urgency) {
        // Something has to be flushed even if there was nothing to take a snapshot of.
        let last = self.control(now, None, Kind::Mark, &[], urgency);
        self.checkpoints.all_appended(last);
    }

    /// Asks for `bytes` of the log from `position` on, fewer at the end of the segment. The answer comes as
    /// [`Event::Read`](super::Event::Read). `None` if the segment is not there any more.
    pub fn read(&mut self, position: Position, bytes: u32, requests: &mut Vec<Request>) -> Option<RequestId> {
        let segment = self.segments.in_use.get(&position.segment())?;
        let bytes = bytes.min(segment.end.checked_sub(position.offset())?);
        let slot = segment.slot;
        let id = self.request_id();
        requests.push(Request::Read { id, slot, offset: position.offset(), bytes });
        Some(id)
    }

    /// Where the batches of a segment end; `None` if it is not there any more.
    #[must_use]
    pub fn segment_end(&self, no: SegmentNo) -> Option<u32> {
        self.segments.in_use.get(&no).map(|segment| segment.end)
    }

    /// The file that holds a segment, for messages to people.
    #[must_use]
    pub fn slot_of(&self, no: SegmentNo) -> Option<Slot> {
        self.segments.in_use.get(&no).map(|segment| segment.slot)
    }

    /// Messages with records of so many bytes at that place have been removed.
    pub fn dead(&mut self, position: Position, record_bytes: u64) {
        if let Some(segment) = self.segments.in_use.get_mut(&position.segment()) {
            segment.dead += record_bytes;
        }
    }

    /// The segment whose cleaning gains most, if any is worth it.
    #[must_use]
    pub fn cleaning_candidate(&self) -> Option<Candidate> {
        let floor = self.checkpoints.floor()?.segment();
        let share = if self.segments.out_of_space { WORTHWHILE_WHEN_FULL } else { WORTHWHILE };
        let candidates = self.segments.in_use.range(..floor).filter(|(_, segment)| segment.sealed);
        let worthwhile = candidates.filter(|(_, segment)| {
            segment.reclaimable() as f64 >= share * f64::from(segment.bytes) && segment.spared_at != Some(segment.dead)
        });
        let best = worthwhile.max_by_key(|(_, segment)| segment.reclaimable())?;
        let (no, segment) = best;
        Some(Candidate { segment: *no, end: segment.end, live: segment.records.saturating_sub(segment.dead) })
    }

    /// Nothing points into this segment any more, and what was moved out of it is flushed. `erase` if its content has to
    /// be overwritten rather than merely forgotten.
    pub fn recycle(&mut self, no: SegmentNo, erase: bool) {
        debug_assert!(self.checkpoints.floor().is_some_and(|floor| no < floor.segment()), "checkpoints need it");
        self.segments.recycle(no, erase);
    }

    /// Cleaning has found that this segment holds more than was thought; it is left alone until more of it has died.
    pub fn not_worth_cleaning(&mut self, no: SegmentNo, live: u64) {
        if let Some(segment) = self.segments.in_use.get_mut(&no) {
            segment.dead = segment.records.saturating_sub(live);
            segment.spared_at = Some(segment.dead);
        }
    }

    /// Segments in the order of their use: number, file, its size, where its batches end, and bytes of live messages.
    pub fn segments(&self) -> impl Iterator<Item = Open> {
        self.segments.in_use.iter().map(|(no, segment)| Open {
            segment: *no,
            slot: segment.slot,
            bytes: segment.bytes,
            end: segment.end,
            live: segment.records.saturating_sub(segment.dead),
        })
    }
}
