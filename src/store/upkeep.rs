//! Checkpoints, cleaning, and a clean stop.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cache::{DecodedRun, Looked, NotMessages};
use super::reads::Fetched;
use super::{Stopping, Store, StreamSlot, Wake, encode_meta, reads};
use crate::log::clean::Candidate;
use crate::log::{Incarnation, Kind, Pending, Position, SegmentNo, Time, Urgency, varint};

/// Bytes of snapshots that one turn appends.
const SNAPSHOT_SLICE: usize = 256 << 10;

/// What a snapshot is of.
pub(super) const OF_STREAM: u8 = 1;
pub(super) const OF_SET: u8 = 2;

/// Cleans one segment after the other, at a bounded rate.
#[derive(Debug)]
pub(super) struct Cleaner {
    bytes_per_second: u64,
    /// There may be something to do.
    pub(super) awake: bool,
    not_before: Time,
    work: Option<Work>,
    /// The last message that was moved.
    last: Option<(Incarnation, u64)>,
}

#[derive(Debug)]
struct Work {
    segment: SegmentNo,
    end: u32,
    /// The next batch to be looked at; `None` when all are.
    at: Option<Position>,
    /// The last message that was moved.
    moved: Pending,
}

impl Cleaner {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), awake: true, not_before: Time::MIN, work: None, last: None }
    }

    pub(super) fn pause(&mut self, until: Time) {
        self.not_before = self.not_before.max(until);
    }

    /// When it goes on, if it has anything to do.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.work.as_ref().filter(|_| self.awake).map(|_| self.not_before)
    }
}

impl Store {
    pub(super) fn upkeep(&mut self, now: Time) {
        self.checkpoint(now);
        if self.cleaner.awake && now >= self.cleaner.not_before && self.stopping == Stopping::No {
            self.clean(now);
        }
    }

    fn checkpoint(&mut self, now: Time) {
        if self.checkpoint.is_none() {
            let wanted = self.log.checkpoint_due() || self.stopping == Stopping::Checkpoint;
            // Where the beginning of a transaction lies is not told to its stream before its end.
            let between = !self.parts.is_empty();
            if !wanted || between || self.log.is_checkpointing() || self.log.fault().is_some() {
                return;
            }
            self.log.begin_checkpoint();
            let streams = self.streams.iter().filter(|(_, slot)| !slot.stream.config().is_memory()).map(|(of, _)| *of);
            self.checkpoint = Some(streams.chain(self.kept.sets()).collect::<VecDeque<_>>());
        }
        let mut bytes = 0;
        let mut snapshot = Vec::new();
        while let Some(of) = self.checkpoint.as_mut().and_then(VecDeque::pop_front) {
            snapshot.clear();
            if self.kept.contains(of) {
                snapshot.push(OF_SET);
                self.kept.snapshot(of, &mut snapshot);
            } else if self.snapshot_stream(now, of, &mut snapshot).is_none() {
                // It has ended meanwhile.
                continue;
            }
            self.log.snapshot(now, of, &snapshot);
            bytes += snapshot.len();
            if bytes >= SNAPSHOT_SLICE && self.stopping == Stopping::No {
                return;
            }
        }
        self.checkpoint = None;
        let urgency = if self.stopping == Stopping::No { Urgency::RideAlong } else { Urgency::Now };
        if self.stopping == Stopping::Checkpoint {
            self.stopping = Stopping::Done;
        }
        self.log.end_checkpoint(now, urgency);
        self.cleaner.awake = true;
    }

    /// A stream with its consumers: configuration, the stream's own, and each consumer's.
    fn snapshot_stream(&mut self, now: Time, of: Incarnation, out: &mut Vec<u8>) -> Option<()> {
        out.push(OF_STREAM);
        let (slot, mut sink) = self.parts_of(now, of)?;
        put_part(out, &encode_meta(slot.stream.config(), slot.meta));
        let mut part = Vec::new();
        // Removals are never refused for want of space.
        slot.stream.snapshot(&mut sink, &mut part).ok()?;
        sink.finish(slot.consumers);
        put_part(out, &part);
        let StreamSlot { consumers, next_consumer, .. } = self.streams.get_mut(&of)?;
        varint::push(out, (*next_consumer).into());
        for (number, entry) in consumers {
            if entry.consumer.config().memory {
                continue;
            }
            varint::push(out, (*number).into());
            put_part(out, &entry.meta);
            part.clear();
            entry.consumer.snapshot(&mut part);
            put_part(out, &part);
        }
        self.expect(of);
        Some(())
    }

    /// Begins a clean stop: appends what consumers have to say and a last checkpoint, so that opening takes no time.
    pub fn stop(&mut self, now: Time) {
        let mut content = Vec::new();
        for (of, slot) in &mut self.streams {
            if slot.stream.config().is_memory() {
                continue;
            }
            for (number, entry) in &mut slot.consumers {
                if !entry.consumer.config().memory {
                    content.clear();
                    content.extend_from_slice(&super::head(*number, super::DELTA));
                    entry.consumer.stop(&mut content);
                    self.log.control(now, Some(*of), Kind::Consumer, &content, Urgency::Now);
                }
            }
        }
        self.checkpoint = None;
        self.stopping = Stopping::Checkpoint;
    }

    /// Whether a stop that was begun is complete.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopping == Stopping::Done && !self.log.is_checkpointing() && self.log.is_at_rest()
    }

    /// Cleans on, for one chunk.
    fn clean(&mut self, now: Time) {
        if self.cleaner.work.is_none() {
            let Some(Candidate { segment, end, .. }) = self.log.cleaning_candidate() else {
                self.cleaner.awake = false;
                return;
            };
            let at = self.is_occupied(segment).then(|| reads::first_batch(segment));
            self.cleaner.work = Some(Work { segment, end, at, moved: Pending::NONE });
        }
        let Some(Work { segment, end, at, moved }) = self.cleaner.work else { return };
        match at {
            Some(position) => self.move_on(now, segment, end, position),
            None if !moved.is_none() && !self.proof.is_some_and(|proof| proof.covers(moved)) => {
                // Goes on when what was moved is flushed.
                self.cleaner.awake = false;
            }
            None => {
                if self.is_occupied(segment) {
                    self.log.not_worth_cleaning(segment);
                } else {
                    self.log.retire(segment, false);
                }
                self.cleaner.work = None;
            }
        }
    }

    fn is_occupied(&self, segment: SegmentNo) -> bool {
        self.streams.values().any(|slot| slot.stream.occupied().any(|(occupied, _)| occupied == segment))
    }

    /// Moves what is needed of the batches in one chunk.
    fn move_on(&mut self, now: Time, segment: SegmentNo, end: u32, position: Position) {
        let (mut position, mut bytes) = (position, 0);
        let mut moved = None;
        while bytes < super::cache::READ_BYTES as usize {
            if position.offset() >= end {
                break;
            }
            let batch = match self.cache.batch(position, end) {
                Ok(batch) => batch,
                Err(Looked::Missing(at, wanted)) => {
                    if bytes == 0 {
                        self.cleaner.awake = false;
                        return self.read(at, wanted, Wake::Cleaner);
                    }
                    break;
                }
                Err(_) => {
                    // What cannot be read cannot be moved: the segment stays for whoever can repair it.
                    self.log.not_worth_cleaning(segment);
                    self.cleaner.work = None;
                    return;
                }
            };
            let size = batch.len();
            for index in 0.. {
                let Some(outcome) = self.cache.run_of(&batch, position, index) else { break };
                let (of, run) = match outcome {
                    Ok(found) => found,
                    Err(NotMessages { fragment: Some(of), seq }) => match self.whole(of, seq) {
                        Some(run) => (of, run),
                        // It is being read, or is not needed.
                        None if self.cleaner.awake => continue,
                        None => return,
                    },
                    Err(_) => continue,
                };
                if let Some(pending) = self.move_run(now, of, &run, position) {
                    moved = Some(pending);
                }
            }
            bytes += size;
            position = Position::new(segment, position.offset() + size as u32);
        }
        let rate = self.cleaner.bytes_per_second;
        if !self.log.is_full() {
            self.cleaner.not_before = now + (bytes as i64).saturating_mul(1_000_000_000) / rate as i64;
        }
        if let Some(work) = &mut self.cleaner.work {
            work.at = (position.offset() < end).then_some(position);
            work.moved = moved.unwrap_or(work.moved);
        }
    }

    /// A message one part of which has been met, unless it has been moved or is not needed. While it is read, the
    /// cleaner sleeps.
    fn whole(&mut self, of: Incarnation, seq: u64) -> Option<Arc<DecodedRun>> {
        let place = self.streams.get(&of)?.stream.place_of(seq)?;
        match self.fetch(of, seq, Some(place), None, Wake::Cleaner) {
            Fetched::Run(run) => Some(run).filter(|run| run.find(seq).is_some()),
            Fetched::Lost(_) => None,
            Fetched::Wait => {
                self.cleaner.awake = false;
                None
            }
        }
    }

    /// Appends again what is needed of a run, if the stream's index points to it.
    fn move_run(&mut self, now: Time, of: Incarnation, run: &DecodedRun, position: Position) -> Option<Pending> {
        let slot = self.streams.get(&of)?;
        let mut pending = None;
        for index in 0.. {
            let Some((message, _)) = run.get(index) else { break };
            // A message in parts is moved whole, from whichever segment one of them lies in.
            let here = |place: Position| place.segment() == position.segment() || run.births().is_some();
            if !slot.stream.place_of(message.seq).is_some_and(here) {
                continue;
            }
            let first_live = slot.stream.first_seq().min(message.seq);
            // Between the messages of a moved run there must be none that is needed and lies elsewhere.
            let before = self.cleaner.last.filter(|(stream, _)| *stream == of);
            if before.is_none_or(|(_, seq)| slot.stream.next_needed(seq + 1) != Some(message.seq)) {
                self.log.end_run(of);
            }
            self.cleaner.last = Some((of, message.seq));
            let births = run.births().unwrap_or(std::slice::from_ref(&position));
            pending = Some(self.log.moved(now, of, births, first_live, &message).0);
        }
        pending
    }
}

fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    varint::push(out, part.len() as u64);
    out.extend_from_slice(part);
}
