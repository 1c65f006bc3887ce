//! Checkpoints, reads, and getting back the space of what has been removed.
//!
//! Cleaning goes segment by segment. The counters of a segment only choose; whether a message is live is asked of its
//! stream, exactly, when the segment is read. Live messages are appended again ([`Log::moved`]); when they are flushed, the
//! streams point to the new places, nothing points into the segment any more, and it is recycled. Segments with what the
//! two latest checkpoints need are left alone.

use super::checkpoint;
use super::durable::Pending;
use super::ids::{Incarnation, Position, SegmentNo, Slot, Time};
use super::log::{Event, Log, Open, Retired};
use super::request::{Request, RequestId};
use super::run::{Kind, Urgency};
use super::segments::Segment;
use super::varint;

/// A sealed segment is worth cleaning when this share of what is written in it is no live message.
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

pub(super) fn is_retired(retired: &[Retired], no: SegmentNo) -> bool {
    retired.iter().any(|retired| retired.segment == no)
}

impl Candidate {
    fn of(no: SegmentNo, segment: &Segment) -> Self {
        Self { segment: no, end: segment.end, live: segment.records.saturating_sub(segment.dead) }
    }
}

impl Log {
    /// Whether it is time for a checkpoint.
    #[must_use]
    pub fn checkpoint_due(&self) -> bool {
        let total = self.segments.total_bytes();
        let retired = self.retired.iter().filter_map(|retired| self.segments.in_use.get(&retired.segment));
        let retired = retired.map(|segment| u64::from(segment.bytes)).sum::<u64>();
        let erases =
            || self.segments.in_use.iter().any(|(no, segment)| segment.erase && is_retired(&self.retired, *no));
        let is_much = || retired >= total / 4 && self.checkpoints.pays_for(retired);
        let pressed = retired > 0 && (self.is_full() || is_much() || erases());
        self.checkpoints.due(total / 8) || pressed && self.checkpoints.may_begin()
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
    /// [`Event::Read`]. `None` if the segment is not there any more.
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

    /// The segment after this one in the order of their use.
    #[must_use]
    pub fn segment_after(&self, no: SegmentNo) -> Option<SegmentNo> {
        self.segments.in_use.range(SegmentNo(no.0 + 1)..).next().map(|(no, _)| *no)
    }

    /// The next message of that stream that is moved opens another run: a moved run holds every message between its first
    /// and its last that is needed.
    pub fn end_run(&mut self, stream: Incarnation) {
        self.open.end_run(stream);
    }

    /// So many bytes of records of messages in that segment are needed no longer.
    pub fn dead(&mut self, segment: SegmentNo, record_bytes: u64) {
        if let Some(segment) = self.segments.in_use.get_mut(&segment) {
            segment.dead += record_bytes;
        }
    }

    /// A log that was just opened: a stream needs so many bytes of records in that segment, beside what others need.
    pub fn occupied(&mut self, segment: SegmentNo, record_bytes: u64) {
        if let Some(segment) = self.segments.in_use.get_mut(&segment) {
            // Recovery knows of at least so many records; what was written after the checkpoint may be missing.
            segment.records += record_bytes.saturating_sub(segment.dead);
            segment.dead = segment.dead.saturating_sub(record_bytes);
        }
    }

    /// What has been removed from these segments is to be overwritten soon: the commit that follows ends the one that is
    /// being written, cleaning takes them before others, and their files are filled with zeros. When what this returns is
    /// flushed, it is done after a crash too.
    pub fn erase(&mut self, now: Time, segments: &[SegmentNo]) -> Pending {
        let mut content = Vec::new();
        for no in segments {
            if let Some(segment) = self.segments.in_use.get_mut(no) {
                segment.erase = true;
            }
            varint::push(&mut content, no.0.into());
        }
        self.control(now, None, Kind::Mark, &content, Urgency::Now)
    }

    /// Bytes of messages that may be moved now, as that takes space before it gives any back: where messages may go, or,
    /// when those are refused, in half of the reserve, which is used for one segment after the other. Its other half,
    /// and the rest of the segment that is being written, is for removals and checkpoints: without two more of these
    /// nothing that was moved gives space back.
    #[must_use]
    pub fn movable(&self) -> u64 {
        let reserve = if self.retired.is_empty() { self.segments.usable() / 2 } else { 0 };
        let room = if self.is_full() { 0 } else { self.room() as u64 };
        reserve.max(room).saturating_sub(self.unflushed() as u64)
    }

    /// The segment whose cleaning gains most, if any is worth it and can be done.
    #[must_use]
    pub fn cleaning_candidate(&self) -> Option<Candidate> {
        // Streams do not know yet what they are going to need of a transaction that is flushed in part.
        let unfinished = self.unfinished_from();
        let may_be_cleaned = |(no, segment): &(&SegmentNo, &Segment)| {
            segment.sealed
                && segment.spared_at != Some(segment.dead)
                && unfinished.is_none_or(|unfinished| **no < unfinished)
                && !is_retired(&self.retired, **no)
        };
        let sealed = self.segments.in_use.iter().filter(may_be_cleaned);
        let to_erase = sealed.clone().find(|(_, segment)| segment.erase);
        if let Some((no, segment)) = to_erase {
            return Some(Candidate::of(*no, segment));
        }
        let share = if self.is_full() { WORTHWHILE_WHEN_FULL } else { WORTHWHILE };
        let movable = self.movable();
        let sealed = sealed.filter(|(_, segment)| segment.records.saturating_sub(segment.dead) <= movable);
        let worthwhile = sealed.filter(|(_, segment)| segment.reclaimable() as f64 >= share * f64::from(segment.end));
        let (no, segment) = worthwhile.max_by_key(|(_, segment)| segment.reclaimable())?;
        Some(Candidate::of(*no, segment))
    }

    /// Nothing points into this segment any more, and what was moved out of it is flushed. It is recycled when both
    /// checkpoints that recovery may start from are later than everything appended so far: until then, replay may need
    /// to know what was removed.
    pub fn retire(&mut self, segment: SegmentNo) {
        if !is_retired(&self.retired, segment) {
            self.retired.push(Retired { segment, after: self.pending(), at: None });
        }
    }

    pub(super) fn recycle_retired(&mut self, events: &mut Vec<Event>) {
        let (proof, tail, floor) = (self.proof(), self.tail_position(), self.checkpoints.floor());
        for retired in &mut self.retired {
            if retired.at.is_none() && proof.covers(retired.after) {
                retired.at = Some(tail);
            }
        }
        let Some(floor) = floor else { return };
        let Self { retired, segments, .. } = self;
        retired.retain(|Retired { segment, at, .. }| {
            let done = at.is_some_and(|at| at <= floor) && *segment < floor.segment();
            if done {
                segments.recycle(*segment, false);
                events.push(Event::Recycled(*segment));
            }
            !done
        });
    }

    /// Cleaning has found that it cannot empty this segment now; it is left alone until more of it has died.
    pub fn not_worth_cleaning(&mut self, no: SegmentNo) {
        if let Some(segment) = self.segments.in_use.get_mut(&no) {
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
