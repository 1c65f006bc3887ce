//! What the log tells: runs that lie on disk now, runs that cleaning has moved, and flushes.

use super::subjects::Subjects;
use super::*;
use crate::log::{Durable, PlacedRun};

/// A further piece of a message that lies in several batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its number among the pieces.
    pub(super) number: u32,
    pub(super) segment: SegmentNo,
    pub(super) bytes: u32,
}

impl Stream {
    /// The log has been flushed so far: what waited for that does no longer.
    pub fn flushed(&mut self, proof: &Durable) {
        while self.in_flight.front().is_some_and(|(pending, _)| proof.covers(*pending)) {
            self.in_flight.pop_front();
        }
        if self.in_flight.is_empty() {
            // It may rest from now on, with many others.
            self.in_flight = VecDeque::new();
        }
        if proof.covers(self.latest) {
            self.latest = Pending::NONE;
        }
    }

    /// A run of messages of this stream can be read from now on. Runs come in the order of the log; those of a
    /// transaction when all of it is flushed. A moved run holds every message between its first and last number that
    /// [`Stream::is_needed`]; what it leaves behind is reported as dead.
    pub fn placed(&mut self, run: &PlacedRun, sink: &mut impl Sink) {
        match (run.piece, run.moved_from) {
            (0, Some(_)) => self.place_moved(run, sink),
            (0, None) if run.last_seq > self.placed => self.place_new(run, sink),
            (0, None) => {}
            (_, Some(_)) => self.place_piece(run, sink),
            (number, None) => {
                let known =
                    self.pieces.get(&run.first_seq).is_some_and(|pieces| pieces.iter().any(|p| p.number == number));
                if run.first_seq <= self.placed && !known {
                    self.place_piece(run, sink);
                }
            }
        }
    }

    fn place_new(&mut self, run: &PlacedRun, sink: &mut impl Sink) {
        debug_assert!(run.last_seq <= self.last, "{} of {}", run.last_seq, self.last);
        let mask = self.take_bits(run.first_seq, run.last_seq);
        self.placed = run.last_seq;
        if self.occupy(run, sink) {
            self.index.push(run, mask, self.grain.entry_log_bytes);
        }
    }

    /// Notes what a new place costs. Returns whether any of it is needed.
    fn occupy(&mut self, run: &PlacedRun, sink: &mut impl Sink) -> bool {
        let segment = run.position.segment();
        let needed = self.needed_in(run.first_seq..=run.last_seq);
        if needed == 0 {
            sink.dead(segment, u64::from(run.content_bytes));
            return false;
        }
        self.space.add(segment, needed, u64::from(run.content_bytes));
        let count = u64::from(run.count);
        if needed < count {
            // Some have gone since they were written: their sizes are guessed, all the same.
            let dead = u64::from(run.content_bytes) * (count - needed) / count;
            self.space.add(segment, count - needed, 0);
            sink.dead(segment, self.space.take(segment, count - needed, dead));
        }
        true
    }

    /// A further piece of a message whose first piece is placed: at its first place, or moved there.
    fn place_piece(&mut self, run: &PlacedRun, sink: &mut impl Sink) {
        let (segment, bytes) = (run.position.segment(), run.content_bytes);
        if !self.is_needed(run.first_seq) {
            return sink.dead(segment, u64::from(bytes));
        }
        self.space.add(segment, 1, u64::from(bytes));
        let pieces = self.pieces.entry(run.first_seq).or_default();
        let piece = Piece { number: run.piece, segment, bytes };
        match pieces.iter_mut().find(|known| known.number == run.piece) {
            Some(known) => {
                let old = std::mem::replace(known, piece);
                sink.dead(old.segment, self.space.take(old.segment, 1, u64::from(old.bytes)));
            }
            None => pieces.push(piece),
        }
    }

    fn place_moved(&mut self, run: &PlacedRun, sink: &mut impl Sink) {
        let range = run.first_seq..=run.last_seq;
        // What is needed leaves its old places, each with its share of bytes.
        let needed = self.needed_in(range.clone());
        let mut left = Vec::new();
        for stretch in self.index.stretches(run.first_seq) {
            if stretch.entry.first_seq > run.last_seq {
                break;
            }
            let (from, upto) = (stretch.entry.first_seq.max(run.first_seq), stretch.upto.min(run.last_seq));
            if from <= upto {
                left.push((stretch.entry.position.segment(), self.needed_in(from..=upto)));
            }
        }
        for (old, count) in left.into_iter().filter(|(_, count)| *count > 0) {
            let bytes = (u64::from(run.content_bytes) * count).checked_div(needed).unwrap_or(0);
            sink.dead(old, self.space.take(old, count, bytes));
        }
        if self.occupy(run, sink) {
            let mut index = std::mem::take(&mut self.index);
            index.moved(run, self.grain.entry_log_bytes, |range| self.has_placed(range));
            self.index = index;
        }
    }

    /// Whether any message of a range is needed and has a place.
    fn has_placed(&self, range: RangeInclusive<u64>) -> bool {
        let upto = (*range.end()).min(self.placed);
        *range.start() <= upto && self.needed_in(*range.start()..=upto) > 0
    }

    /// The mask of messages that are placed now.
    pub(super) fn take_bits(&mut self, first: u64, last: u64) -> u64 {
        if !self.index.is_masked() {
            return index::ANY;
        }
        let mut mask = if first < self.bits_from { index::ANY } else { 0 };
        while self.bits_from <= last {
            let Some(bit) = self.bits.pop_front() else { break };
            // What was skipped between two runs is no part of the second.
            if self.bits_from >= first {
                mask |= 1 << bit;
            }
            self.bits_from += 1;
        }
        mask
    }

    /// The mask of the subjects that `filter` matches, if they are few.
    pub(super) fn mask_of(&self, filter: &[u8]) -> u64 {
        const FEW: u32 = 32;
        if !self.index.is_masked() {
            return index::ANY;
        }
        let (mut mask, mut count) = (0, 0);
        self.subjects.visit(filter, |id, _| {
            mask |= 1 << Subjects::mask_bit(self.subjects.text(id));
            count += 1;
            count <= FEW
        });
        if count > FEW { index::ANY } else { mask }
    }
}
