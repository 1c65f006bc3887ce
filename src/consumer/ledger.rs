//! The messages that wait for their acknowledgement, in order of their sequence numbers.
//!
//! An array with holes: first deliveries come in order, so a message is appended at the back, found by its distance
//! from the front (or by bisection where numbers have gaps), and becomes a hole when it is acknowledged; holes at the
//! front are dropped and the array is packed when there are more holes than a quarter of the rest. Deadlines lie in
//! the entries; for every 64 entries the earliest is noted, so that looking for what is due reads an eighth of a byte
//! per entry.
//!
//! Bytes per entry: 32.125, × 1.5 while the array grows, × 1.25 with holes: at most 64 (a small one
//! keeps up to 64 holes).

use std::collections::VecDeque;

use crate::log::Time;

/// No deadline.
pub(super) const NEVER: Time = Time::MAX;
/// Held by nobody in particular.
pub(super) const NOBODY: u16 = u16::MAX;

const CHUNK_SHIFT: u32 = 6;
const CAPACITY_LEAST: usize = 4;

/// A message that waits for its acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Sequence number in the stream.
    pub(super) seq: u64,
    /// The number of its first delivery.
    pub(super) consumer_seq: u64,
    /// When it is to be delivered again; [`NEVER`] while it is queued for that.
    pub(super) deadline: Time,
    /// How often it was delivered.
    pub(super) deliveries: u32,
    /// The member that holds it, or [`NOBODY`].
    pub(super) owner: u16,
    state: State,
    /// Its owner had it before a restart: redelivered to the owner, without a choice.
    pub(super) assigned: bool,
}

const _: () = assert!(size_of::<Entry>() == 32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hole,
    Waiting,
    Queued,
}

impl Entry {
    pub(super) fn new(seq: u64, consumer_seq: u64, deadline: Time, deliveries: u32, owner: u16) -> Self {
        Self { seq, consumer_seq, deadline, deliveries, owner, state: State::Waiting, assigned: false }
    }

    pub(super) fn is_queued(&self) -> bool {
        self.state == State::Queued
    }
}

/// Place of an entry, good until the next removal.
pub(super) type Place = usize;

#[derive(Debug)]
pub(super) struct Ledger {
    entries: VecDeque<Entry>,
    /// How many entries have ever been before `entries[0]`: chunks do not move when the front is dropped.
    before: u64,
    /// The earliest deadline of each chunk, or earlier.
    minima: VecDeque<Time>,
    /// The earliest deadline of all, or earlier.
    earliest: Time,
    live: usize,
    queued: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        let (entries, minima) = (VecDeque::new(), VecDeque::new());
        Self { entries, before: 0, minima, earliest: NEVER, live: 0, queued: 0 }
    }
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// How many are queued for redelivery.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// No deadline is earlier than this.
    pub(super) fn earliest(&self) -> Time {
        self.earliest
    }

    pub(super) fn first(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// The highest sequence number that the array still knows; later ones only are appended.
    pub(super) fn last_seq(&self) -> Option<u64> {
        self.entries.back().map(|entry| entry.seq)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.state != State::Hole)
    }

    /// Appends an entry with a higher sequence number than all before.
    pub(super) fn push(&mut self, entry: Entry) {
        assert!(
            self.last_seq().is_none_or(|last| last < entry.seq),
            "{} is not after {:?}",
            entry.seq,
            self.last_seq()
        );
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact((self.entries.len() / 2).max(CAPACITY_LEAST));
        }
        let deadline = entry.deadline;
        self.entries.push_back(entry);
        self.live += 1;
        let chunk = self.chunk(self.entries.len() - 1);
        if chunk == self.minima.len() {
            self.minima.push_back(NEVER);
        }
        self.note(chunk, deadline);
    }

    pub(super) fn find(&self, seq: u64) -> Option<Place> {
        let first = self.entries.front()?.seq;
        let last = self.entries.back()?.seq;
        if seq < first || seq > last {
            return None;
        }
        // Numbers differ by one at least: so far from both ends, at most.
        let high = usize::try_from(seq - first).unwrap_or(usize::MAX).min(self.entries.len() - 1);
        let low = (self.entries.len() - 1).saturating_sub(usize::try_from(last - seq).unwrap_or(usize::MAX));
        let place = if self.entries[high].seq == seq {
            high
        } else if self.entries[low].seq == seq {
            low
        } else {
            self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?
        };
        (self.entries[place].state != State::Hole).then_some(place)
    }

    pub(super) fn get(&self, place: Place) -> &Entry {
        &self.entries[place]
    }

    /// For owner, number of deliveries and such; deadlines change through [`Ledger::wait`] and [`Ledger::queue`].
    pub(super) fn get_mut(&mut self, place: Place) -> &mut Entry {
        &mut self.entries[place]
    }

    /// Gives an entry a deadline; it is not queued any longer.
    pub(super) fn wait(&mut self, place: Place, deadline: Time) {
        let entry = &mut self.entries[place];
        if entry.state == State::Queued {
            self.queued -= 1;
        }
        entry.state = State::Waiting;
        entry.deadline = deadline;
        self.note(self.chunk(place), deadline);
    }

    /// Marks an entry as queued. Returns false if it was.
    pub(super) fn queue(&mut self, place: Place) -> bool {
        let entry = &mut self.entries[place];
        if entry.state == State::Queued {
            return false;
        }
        entry.state = State::Queued;
        entry.deadline = NEVER;
        self.queued += 1;
        true
    }

    /// Takes an entry out. Places of other entries may change.
    pub(super) fn remove(&mut self, place: Place) -> Entry {
        let entry = self.entries[place];
        self.hole(place);
        self.tidy();
        entry
    }

    /// Takes out all entries of `range`, in order.
    pub(super) fn remove_range(&mut self, first: u64, last: u64, mut taken: impl FnMut(Entry)) {
        let mut place = self.entries.partition_point(|entry| entry.seq < first);
        while place < self.entries.len() && self.entries[place].seq <= last {
            if self.entries[place].state != State::Hole {
                taken(self.entries[place]);
                self.hole(place);
            }
            place += 1;
        }
        self.tidy();
    }

    /// Adds to `due` the deadline and number of each entry whose deadline is not after `until`. They become queued.
    pub(super) fn queue_due(&mut self, until: Time, due: &mut Vec<(Time, u64)>) {
        if until < self.earliest {
            return;
        }
        let skew = (self.before & ((1 << CHUNK_SHIFT) - 1)) as usize;
        let mut earliest = NEVER;
        for (chunk, minimum) in self.minima.iter_mut().enumerate() {
            if *minimum <= until {
                let from = (chunk << CHUNK_SHIFT).saturating_sub(skew);
                let to = (((chunk + 1) << CHUNK_SHIFT) - skew).min(self.entries.len());
                *minimum = NEVER;
                for entry in self.entries.range_mut(from..to).filter(|entry| entry.state == State::Waiting) {
                    if entry.deadline <= until {
                        due.push((entry.deadline, entry.seq));
                        entry.state = State::Queued;
                        entry.deadline = NEVER;
                        self.queued += 1;
                    } else {
                        *minimum = entry.deadline.min(*minimum);
                    }
                }
            }
            earliest = earliest.min(*minimum);
        }
        self.earliest = earliest;
    }

    /// Marks all entries as queued, whether they were or not, and tells their numbers in order.
    pub(super) fn queue_all(&mut self, mut queued: impl FnMut(u64)) {
        for entry in self.entries.iter_mut().filter(|entry| entry.state != State::Hole) {
            entry.state = State::Queued;
            entry.deadline = NEVER;
            queued(entry.seq);
        }
        self.queued = self.live;
    }

    /// Applies `change` to each entry in order; what it returns becomes the deadline, and the entry is not queued.
    pub(super) fn rewrite(&mut self, mut change: impl FnMut(&mut Entry) -> Option<Time>) {
        for place in 0..self.entries.len() {
            if self.entries[place].state != State::Hole
                && let Some(deadline) = change(&mut self.entries[place])
            {
                self.wait(place, deadline);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.minima.clear();
        (self.before, self.earliest, self.live, self.queued) = (0, NEVER, 0, 0);
    }

    /// Gives back memory that an idle consumer does not need.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to(self.entries.len() + self.entries.len() / 8);
        self.minima.shrink_to_fit();
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.minima.capacity() * size_of::<Time>()
    }

    fn chunk(&self, place: Place) -> usize {
        let skew = (self.before & ((1 << CHUNK_SHIFT) - 1)) as usize;
        (place + skew) >> CHUNK_SHIFT
    }

    fn note(&mut self, chunk: usize, deadline: Time) {
        if deadline < self.minima[chunk] {
            self.minima[chunk] = deadline;
        }
        self.earliest = self.earliest.min(deadline);
    }

    fn hole(&mut self, place: Place) {
        let entry = &mut self.entries[place];
        if entry.state == State::Queued {
            self.queued -= 1;
        }
        entry.state = State::Hole;
        self.live -= 1;
    }

    fn tidy(&mut self) {
        if self.live == 0 {
            self.clear();
            return;
        }
        while self.entries.front().is_some_and(|entry| entry.state == State::Hole) {
            self.entries.pop_front();
            self.before += 1;
            if self.before & ((1 << CHUNK_SHIFT) - 1) == 0 {
                self.minima.pop_front();
            }
        }
        let holes = self.entries.len() - self.live;
        if holes > 64 && holes > self.live / 4 {
            self.pack();
        }
    }

    /// Drops all holes.
    pub(super) fn pack(&mut self) {
        self.entries.retain(|entry| entry.state != State::Hole);
        if self.entries.capacity() > 4 * self.entries.len() {
            self.entries.shrink_to(self.entries.len() + self.entries.len() / 2);
        }
        self.before = 0;
        self.minima.clear();
        self.earliest = NEVER;
        for place in 0..self.entries.len() {
            let (chunk, deadline) = (self.chunk(place), self.entries[place].deadline);
            if chunk == self.minima.len() {
                self.minima.push_back(NEVER);
            }
            self.note(chunk, deadline);
        }
    }
}
