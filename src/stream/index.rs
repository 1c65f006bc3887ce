//! Where the messages of a stream lie: a sparse index.
//!
//! An entry says: from this number and time on, up to the next entry, messages lie in this segment, in runs from this
//! batch onwards. There is an entry per stream and 64 KiB of log, whatever the size of messages and commits, and one at
//! least per segment. An entry costs 24 bytes, in chunks of 256; a stream with several subjects pays 8 more for a mask
//! that tells which subjects cannot be there.
//!
//! Messages are first written in order, so entries are added at the end. When cleaning moves a run, the stretch it
//! covers is cut out of the entries that pointed to its old place. A reader takes from the runs it meets only numbers
//! within the stretch it has asked for: what else of the stream lies there belongs to other entries.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::Flaw;
use super::codec::{Reader, put, put_signed};
use crate::log::{PlacedRun, Position, Time};

/// Entries of a chunk.
const CHUNK: usize = 256;
/// A mask that excludes nothing.
pub(super) const ANY: u64 = u64::MAX;

/// The messages from a number on, up to the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) first_seq: u64,
    /// None of its messages is older.
    pub(super) first_time: Time,
    pub(super) position: Position,
}

const _: () = assert!(size_of::<Entry>() == 24);

#[derive(Debug, Default, PartialEq, Eq)]
struct Chunk {
    entries: Vec<Entry>,
    /// One per entry, or none at all.
    masks: Vec<u64>,
}

/// An entry's place: chunk, and place in it. Good until the index changes.
type Place = (usize, usize);

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    chunks: VecDeque<Chunk>,
    is_masked: bool,
    /// The entry at the end was made by a run at its first place: later ones may join it.
    tail: Option<Position>,
    /// The last moved run that made an entry, and the last number of the runs that joined it.
    moving: Option<(Position, u64)>,
}

/// An entry and the last number that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) entry: Entry,
    /// `u64::MAX` for the last entry.
    pub(super) upto: u64,
    pub(super) mask: u64,
}

impl Index {
    /// Keeps masks from now on.
    pub(super) fn start_masks(&mut self) {
        if !self.is_masked {
            self.is_masked = true;
            for chunk in &mut self.chunks {
                chunk.masks = vec![ANY; chunk.entries.len()];
            }
        }
    }

    pub(super) fn is_masked(&self) -> bool {
        self.is_masked
    }

    /// A run has been written behind all others. `mask` is that of its subjects; `grain`, bytes of log that one entry
    /// covers at least, unless a segment ends.
    pub(super) fn push(&mut self, run: &PlacedRun, mask: u64, grain: u32) {
        let joins = self.tail.is_some_and(|tail| is_near(tail, run.position, grain));
        if joins {
            if let Some(last) = self.chunks.back_mut().and_then(|chunk| chunk.masks.last_mut()) {
                *last |= mask;
            }
            return;
        }
        let floor = self.last().map_or(Time::MIN, |entry| entry.first_time);
        let entry = Entry { first_seq: run.first_seq, first_time: run.first_time.max(floor), position: run.position };
        let end = self.end();
        self.insert(end, entry, mask);
        self.tail = Some(run.position);
    }

    /// Cleaning has written a run again. `is_needed` says whether any message of a range is.
    pub(super) fn moved(&mut self, run: &PlacedRun, grain: u32, is_needed: impl Fn(RangeInclusive<u64>) -> bool) {
        let (first, last) = (run.first_seq, run.last_seq);
        let Some(behind) = self.place_of(last) else { return };
        let behind_entry = self.entry(behind);
        let behind_mask = self.mask(behind);
        let end = self.next(behind).map_or(u64::MAX, |next| self.entry(next).first_seq - 1);
        let was_tail = end == u64::MAX;

        // What the cut leaves of the old entry behind the run keeps its place, if there is anything.
        if last < end && is_needed(last + 1..=end) {
            let rest =
                Entry { first_seq: last + 1, first_time: run.last_time.max(behind_entry.first_time), ..behind_entry };
            let at = self.next(behind).unwrap_or_else(|| self.end());
            self.insert(at, rest, behind_mask);
        } else if was_tail {
            self.tail = None;
        }
        let mut mask = 0;
        while let Some(place) = self.place_of(last).filter(|place| self.entry(*place).first_seq >= first) {
            mask |= self.mask(place);
            self.remove(place);
        }
        let before = self.place_of(first);
        mask |= before.map_or(0, |place| self.mask(place));
        let joins = self.moving.is_some_and(|(position, upto)| {
            is_near(position, run.position, grain)
                && before.is_some_and(|place| self.entry(place).position == position)
                && (upto + 1 >= first || !is_needed(upto + 1..=first - 1))
        });
        if joins {
            if let Some(place) = before {
                self.add_mask(place, mask);
            }
            self.moving = self.moving.map(|(position, _)| (position, last));
            return;
        }
        // An entry that covers nothing any more gives way.
        if let Some(place) = before {
            let covered = self.entry(place).first_seq;
            if covered < first && !is_needed(covered..=first - 1) {
                self.remove(place);
            }
        }
        let before = self.place_of(first);
        let floor = before.map_or(Time::MIN, |place| self.entry(place).first_time);
        let at = match before {
            Some(place) => self.next(place).unwrap_or_else(|| self.end()),
            None => self.start(),
        };
        let entry = Entry { first_seq: first, first_time: run.first_time.max(floor), position: run.position };
        self.insert(at, entry, mask);
        self.moving = Some((run.position, last));
    }

    /// Forgets entries that cover nothing from `seq` on.
    pub(super) fn forget_below(&mut self, seq: u64) {
        while let Some(first) = self.chunks.front() {
            if self.chunks.get(1).is_some_and(|second| second.entries[0].first_seq <= seq) {
                self.chunks.pop_front();
                continue;
            }
            let covering = first.entries.partition_point(|entry| entry.first_seq <= seq).saturating_sub(1);
            // In a small stream at once, in a large one when it is worth moving the others.
            if covering >= CHUNK / 4 || covering > 0 && covering * 2 >= first.entries.len() {
                let first = &mut self.chunks[0];
                first.entries.drain(..covering);
                if !first.masks.is_empty() {
                    first.masks.drain(..covering);
                }
            }
            break;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self { is_masked: self.is_masked, ..Self::default() };
    }

    /// The stretch that covers `seq`; the first one if none does.
    pub(super) fn stretch(&self, seq: u64) -> Option<Stretch> {
        let place = self.place_of(seq).or_else(|| self.chunks.front().map(|_| (0, 0)))?;
        Some(self.stretch_at(place))
    }

    /// The stretch in which the first message lies that is not older than `time`, or before it.
    pub(super) fn stretch_of_time(&self, time: Time) -> Option<Stretch> {
        let chunk = self.chunks.partition_point(|chunk| chunk.entries[0].first_time < time).checked_sub(1);
        let place = chunk.map(|chunk| {
            let entries = &self.chunks[chunk].entries;
            (chunk, entries.partition_point(|entry| entry.first_time < time) - 1)
        });
        let place = place.or_else(|| self.chunks.front().map(|_| (0, 0)))?;
        Some(self.stretch_at(place))
    }

    /// The stretches from the one that covers `seq` onwards.
    pub(super) fn stretches(&self, seq: u64) -> impl Iterator<Item = Stretch> + '_ {
        let mut place = self.place_of(seq).or_else(|| self.chunks.front().map(|_| (0, 0)));
        std::iter::from_fn(move || {
            let at = place?;
            place = self.next(at);
            Some(self.stretch_at(at))
        })
    }

    /// The stretches from the one that covers `seq` backwards.
    pub(super) fn stretches_back(&self, seq: u64) -> impl Iterator<Item = Stretch> + '_ {
        let mut place = self.place_of(seq);
        std::iter::from_fn(move || {
            let (chunk, at) = place?;
            place = match at {
                0 => chunk.checked_sub(1).map(|chunk| (chunk, self.chunks[chunk].entries.len() - 1)),
                _ => Some((chunk, at - 1)),
            };
            Some(self.stretch_at((chunk, at)))
        })
    }

    fn stretch_at(&self, place: Place) -> Stretch {
        let upto = self.next(place).map_or(u64::MAX, |next| self.entry(next).first_seq - 1);
        Stretch { entry: self.entry(place), upto, mask: self.mask(place) }
    }

    fn place_of(&self, seq: u64) -> Option<Place> {
        let chunk = self.chunks.partition_point(|chunk| chunk.entries[0].first_seq <= seq).checked_sub(1)?;
        let entries = &self.chunks[chunk].entries;
        Some((chunk, entries.partition_point(|entry| entry.first_seq <= seq) - 1))
    }

    fn entry(&self, (chunk, at): Place) -> Entry {
        self.chunks[chunk].entries[at]
    }

    fn mask(&self, (chunk, at): Place) -> u64 {
        self.chunks[chunk].masks.get(at).copied().unwrap_or(ANY)
    }

    fn add_mask(&mut self, (chunk, at): Place, mask: u64) {
        if let Some(known) = self.chunks[chunk].masks.get_mut(at) {
            *known |= mask;
        }
    }

    fn last(&self) -> Option<Entry> {
        self.chunks.back()?.entries.last().copied()
    }

    fn next(&self, (chunk, at): Place) -> Option<Place> {
        if at + 1 < self.chunks[chunk].entries.len() {
            Some((chunk, at + 1))
        } else {
            (chunk + 1 < self.chunks.len()).then_some((chunk + 1, 0))
        }
    }

    /// Where an entry goes that comes before all others.
    fn start(&self) -> Place {
        (0, 0)
    }

    /// Where an entry goes that comes behind all others.
    fn end(&self) -> Place {
        match self.chunks.back() {
            Some(last) => (self.chunks.len() - 1, last.entries.len()),
            None => (0, 0),
        }
    }

    fn insert(&mut self, (mut chunk, mut at): Place, entry: Entry, mask: u64) {
        if self.chunks.is_empty() {
            // Many streams have one entry and no more.
            let entries = Vec::with_capacity(1);
            self.chunks.reserve_exact(1);
            self.chunks.push_back(Chunk { entries, masks: Vec::new() });
        }
        if self.chunks[chunk].entries.len() == CHUNK {
            if at == CHUNK && chunk + 1 == self.chunks.len() {
                let mut next = Chunk { entries: Vec::with_capacity(CHUNK), masks: Vec::new() };
                if self.is_masked {
                    next.masks.reserve_exact(CHUNK);
                }
                self.chunks.push_back(next);
                (chunk, at) = (chunk + 1, 0);
            } else {
                let full = &mut self.chunks[chunk];
                let half = Chunk {
                    entries: full.entries.split_off(CHUNK / 2),
                    masks: full.masks.split_off(full.masks.len() / 2),
                };
                self.chunks.insert(chunk + 1, half);
                if at > CHUNK / 2 {
                    (chunk, at) = (chunk + 1, at - CHUNK / 2);
                }
            }
        }
        let chunk = &mut self.chunks[chunk];
        chunk.entries.insert(at, entry);
        if self.is_masked {
            chunk.masks.insert(at, mask);
        }
    }

    fn remove(&mut self, (chunk, at): Place) {
        let part = &mut self.chunks[chunk];
        part.entries.remove(at);
        if !part.masks.is_empty() {
            part.masks.remove(at);
        }
        if part.entries.is_empty() {
            self.chunks.remove(chunk);
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let count: usize = self.chunks.iter().map(|chunk| chunk.entries.len()).sum();
        put(out, count as u64);
        put(out, u64::from(self.is_masked));
        put(out, self.tail.map_or(0, Position::to_bits));
        let mut before = (0, 0);
        for (chunk, at) in self.chunks.iter().flat_map(|chunk| (0..chunk.entries.len()).map(move |at| (chunk, at))) {
            let entry = chunk.entries[at];
            put(out, entry.first_seq - before.0);
            put_signed(out, entry.first_time.wrapping_sub(before.1));
            put(out, entry.position.to_bits());
            if let Some(mask) = chunk.masks.get(at) {
                out.extend_from_slice(&mask.to_le_bytes());
            }
            before = (entry.first_seq, entry.first_time);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        let count = reader.count()?;
        let mut index = Self { is_masked: reader.number()? != 0, ..Self::default() };
        index.tail = Position::from_bits(reader.number()?);
        let mut before = (0_u64, 0_i64);
        for nth in 0..count {
            let gap = reader.number()?;
            let first_seq = before.0.checked_add(gap).ok_or(Flaw("index beyond all numbers"))?;
            let first_time = before.1.wrapping_add(reader.signed()?);
            if nth > 0 && (gap == 0 || first_time < before.1) {
                return Err(Flaw("order of the index"));
            }
            let position = Position::from_bits(reader.number()?).ok_or(Flaw("place in the index"))?;
            let mask = if index.is_masked { u64::from_le_bytes(reader.array()?) } else { ANY };
            let end = index.end();
            index.insert(end, Entry { first_seq, first_time, position }, mask);
            before = (first_seq, first_time);
        }
        Ok(index)
    }
}

/// Whether a reader that starts at `from` soon meets `to`.
fn is_near(from: Position, to: Position, grain: u32) -> bool {
    from.segment() == to.segment() && from <= to && to.offset() - from.offset() < grain
}
