//! Checkpoints, cleaning, and a clean stop.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

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
    /// Bytes of messages that were to be moved when it began.
    live: u64,
    /// The next batch to be looked at, and the first of its runs; `None` when all are.
    at: Option<(Position, u32)>,
    /// That batch, while something that lies elsewhere is read for it.
    batch: Option<Bytes>,
    /// The last message that was moved.
    moved: Pending,
    /// Messages in parts that were moved: each of their parts is met.
    in_parts: BTreeSet<(Incarnation, u64)>,
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// What is left to take snapshots of.
    left: VecDeque<Incarnation>,
    /// It is that of a clean stop: it holds what consumers had to say then.
    is_last: bool,
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
            let left = streams.chain(self.kept.sets()).collect();
            self.checkpoint = Some(Snapshots { left, is_last: self.stopping == Stopping::Checkpoint });
        }
        let mut bytes = 0;
        let mut snapshot = Vec::new();
        while let Some(of) = self.checkpoint.as_mut().and_then(|snapshots| snapshots.left.pop_front()) {
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
        let is_last = self.checkpoint.take().is_some_and(|snapshots| snapshots.is_last);
        let urgency = if self.stopping == Stopping::No { Urgency::RideAlong } else { Urgency::Now };
        if is_last {
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
        let StreamSlot { consumers, next_consumer, .. } = self.streams.get_mut(&of)?.as_mut();
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
        self.stopping = if self.is_fileless { Stopping::Done } else { Stopping::Checkpoint };
    }

    /// Whether a stop that was begun is complete.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopping == Stopping::Done && !self.log.is_checkpointing() && self.log.is_at_rest() && self.log.is_noted()
    }

    /// Cleans on, for one chunk.
    fn clean(&mut self, now: Time) {
        let mut work = match self.cleaner.work.take() {
            Some(work) => work,
            None => {
                let Some(Candidate { segment, end, live }) = self.log.cleaning_candidate() else {
                    self.cleaner.awake = false;
                    return;
                };
                let at = self.is_occupied(segment).then(|| (reads::first_batch(segment), 0));
                Work { segment, end, live, at, batch: None, moved: Pending::NONE, in_parts: BTreeSet::new() }
            }
        };
        if work.at.is_some() && self.log.movable() < work.live.min(super::cache::READ_BYTES.into()) {
            // Another segment may need less, or nothing at all.
            return;
        }
        let goes_on = match work.at {
            Some((position, run)) => self.move_on(now, &mut work, position, run),
            None if !work.moved.is_none() && !self.proof.is_some_and(|proof| proof.covers(work.moved)) => {
                // Goes on when what was moved is flushed.
                self.cleaner.awake = false;
                true
            }
            None if self.is_occupied(work.segment) => {
                self.log.not_worth_cleaning(work.segment);
                false
            }
            None => {
                self.record_pending(now);
                self.log.retire(work.segment);
                // Nobody is going to look there.
                self.cache.forget(work.segment);
                false
            }
        };
        self.cleaner.work = goes_on.then_some(work);
    }

    /// Nothing that a segment was needed for is known in memory only.
    fn record_pending(&mut self, now: Time) {
        let streams = self.streams.keys().copied().collect::<Vec<_>>();
        for of in streams {
            let Some((slot, mut sink)) = self.parts_of(now, of) else { continue };
            slot.stream.record_pending(&mut sink);
            sink.finish(slot.consumers);
            self.expect(of);
        }
    }

    fn is_occupied(&self, segment: SegmentNo) -> bool {
        self.streams.values().any(|slot| slot.stream.occupied().any(|(occupied, _)| occupied == segment))
    }

    /// Moves what is needed of the batches in one chunk, from a run of a batch on. Returns whether the segment can be
    /// cleaned.
    fn move_on(&mut self, now: Time, work: &mut Work, mut position: Position, mut first_run: u32) -> bool {
        let mut bytes = 0;
        while bytes < super::cache::READ_BYTES as usize && position.offset() < work.end {
            let batch = match work.batch.take().map_or_else(|| self.cache.batch(position, work.end), Ok) {
                Ok(batch) => batch,
                Err(Looked::Missing(at, wanted)) => {
                    if bytes == 0 {
                        self.cleaner.awake = false;
                        self.read(at, wanted, Wake::Cleaner);
                        return true;
                    }
                    break;
                }
                Err(_) => {
                    // What cannot be read cannot be moved: the segment stays for whoever can repair it.
                    self.log.not_worth_cleaning(work.segment);
                    return false;
                }
            };
            for index in first_run.. {
                let Some(outcome) = self.cache.run_of(&batch, position, index) else { break };
                let (of, run) = match outcome {
                    Ok(found) => found,
                    Err(NotMessages { fragment: Some(of), seq }) => {
                        if work.in_parts.contains(&(of, seq)) {
                            continue;
                        }
                        match self.whole(of, seq, work.segment) {
                            Whole::Run(run) => {
                                work.in_parts.insert((of, seq));
                                (of, run)
                            }
                            Whole::Nothing => continue,
                            Whole::Wait => {
                                self.cleaner.awake = false;
                                (work.at, work.batch) = (Some((position, index)), Some(batch));
                                return true;
                            }
                        }
                    }
                    Err(_) => continue,
                };
                if let Some(pending) = self.move_run(now, of, &run, position) {
                    work.moved = pending;
                }
            }
            first_run = 0;
            bytes += batch.len();
            position = Position::new(work.segment, position.offset() + batch.len() as u32);
            work.at = (position.offset() < work.end).then_some((position, 0));
        }
        if !self.log.is_full() {
            let rate = self.cleaner.bytes_per_second as i64;
            self.cleaner.not_before = now + (bytes as i64).saturating_mul(1_000_000_000) / rate;
        }
        true
    }

    /// A message one part of which has been met in a segment.
    fn whole(&mut self, of: Incarnation, seq: u64, segment: SegmentNo) -> Whole {
        let stream = self.streams.get(&of).map(|slot| &slot.stream);
        let here = stream.filter(|stream| stream.segments_of(seq).any(|at| at == segment));
        let place = here.and_then(|stream| stream.place_of(seq));
        let Some(place) = place else { return Whole::Nothing };
        match self.fetch(of, seq, Some(place), None, Wake::Cleaner) {
            Fetched::Run(run) if run.find(seq).is_some() => Whole::Run(run),
            Fetched::Run(_) | Fetched::Lost(_) => Whole::Nothing,
            Fetched::Wait(_) => Whole::Wait,
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

/// A message in parts that is to be moved.
enum Whole {
    Run(Arc<DecodedRun>),
    /// It is not needed, or damaged.
    Nothing,
    /// It is being read.
    Wait,
}

fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    varint::push(out, part.len() as u64);
    out.extend_from_slice(part);
}
