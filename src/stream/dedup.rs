//! The ids of recent messages.
//!
//! An id is 128 bits, the hash of what the publisher gave. With each goes the low end of its sequence number: 20 bytes
//! in all. They lie in up to 256 arrays ordered by hash (Robin Hood hashing with linear probing), which are between 88
//! and 94 % full and grow by a seventeenth: 22 to 24 bytes per id.
//!
//! Ids enter in the order of sequence numbers, so that all of the same age lie below some number. What is forgotten is
//! decided by such a number alone: *buckets* of ids note when they came, and when the last of the oldest bucket has left
//! the window, the bound moves up. Forgotten ids are dropped when their array is next full. An id is so remembered for
//! the window and up to 1/32 longer, and the clock is never looked at for a single id.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::Flaw;
use super::codec::{Reader, put, put_signed};
use crate::log::Time;

/// Parts of a window that are forgotten one by one.
const BUCKETS: i64 = 32;
/// Ids beyond which there are [`PARTS`] arrays instead of one.
const SPREAD_AT: usize = 4096;
const PARTS: usize = 256;

#[derive(Clone, Copy)]
struct Entry {
    /// The id. In `u32`s, because that makes the entry 20 bytes instead of 32.
    id: [u32; 4],
    /// Its sequence number less [`Dedup::base`]; zero in a free place.
    offset: u32,
}

const _: () = assert!(size_of::<Entry>() == 20);
const FREE: Entry = Entry { id: [0; 4], offset: 0 };

/// Ids that came within a part of the window.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    first_seq: u64,
    start: Time,
    last: Time,
    count: u64,
}

#[derive(Default)]
struct Part {
    /// Ordered by hash; the places beyond `homes` catch those that are displaced over its end.
    entries: Vec<Entry>,
    homes: usize,
    used: usize,
}

pub(super) struct Dedup {
    parts: Vec<Part>,
    buckets: VecDeque<Bucket>,
    /// Below all sequence numbers that are remembered.
    base: u64,
    /// Ids remembered.
    len: u64,
    keys: [u64; 2],
}

impl Dedup {
    pub(super) fn new() -> Self {
        let random = RandomState::default();
        let keys = [random.hash_one(1_u8), random.hash_one(2_u8)];
        Self { parts: Vec::new(), buckets: VecDeque::new(), base: 0, len: 0, keys }
    }

    /// Whether nothing is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The message that came with this id, if it is remembered.
    pub(super) fn find(&self, id: u128) -> Option<u64> {
        let oldest = self.buckets.front()?.first_seq;
        let hash = hash(id, self.keys);
        let part = self.parts.get(part_of(hash, self.parts.len()))?;
        let offset = part.find(id, hash, self.keys)?;
        let seq = self.base + u64::from(offset);
        (seq >= oldest).then_some(seq)
    }

    /// Remembers the id of a message, which is newer than all others. `max` is how many may be remembered.
    pub(super) fn insert(&mut self, id: u128, seq: u64, time: Time, window: i64, max: u32) {
        match self.buckets.back_mut() {
            Some(last)
                if time < last.start.saturating_add(window / BUCKETS) && last.count * 16 < u64::from(max) + 16 =>
            {
                last.last = last.last.max(time);
                last.count += 1;
            }
            _ => self.buckets.push_back(Bucket { first_seq: seq, start: time, last: time, count: 1 }),
        }
        self.len += 1;
        while self.len > u64::from(max).max(1) && self.buckets.len() > 1 {
            self.forget_bucket();
        }
        self.store(id, seq);
    }

    /// Forgets what has left the window.
    pub(super) fn expire(&mut self, now: Time, window: i64) {
        while self.buckets.front().is_some_and(|bucket| bucket.last.saturating_add(window) <= now) {
            self.forget_bucket();
        }
    }

    /// When nothing will be remembered any more: memory can be given back then.
    pub(super) fn end(&self, window: i64) -> Option<Time> {
        self.buckets.back().map(|bucket| bucket.last.saturating_add(window))
    }

    fn forget_bucket(&mut self) {
        if let Some(bucket) = self.buckets.pop_front() {
            self.len -= bucket.count;
        }
        if self.buckets.is_empty() {
            self.parts = Vec::new();
            self.len = 0;
        }
    }

    fn store(&mut self, id: u128, seq: u64) {
        if self.parts.is_empty() {
            self.parts = vec![Part::default()];
            self.base = seq - 1;
        }
        if seq <= self.base || seq - self.base > u64::from(u32::MAX) {
            self.rebase(seq);
        }
        if self.len > SPREAD_AT as u64 && self.parts.len() == 1 {
            self.rebuild(PARTS, self.base);
        }
        let oldest = self.oldest_offset();
        let hash = hash(id, self.keys);
        let part = part_of(hash, self.parts.len());
        let offset = (seq - self.base) as u32;
        self.parts[part].insert(Entry { id: split(id), offset }, hash, self.keys, oldest);
    }

    /// Makes room for a number that is too far from the others: the oldest are forgotten if they must.
    fn rebase(&mut self, seq: u64) {
        while self.buckets.front().is_some_and(|bucket| seq.saturating_sub(bucket.first_seq) > u64::from(u32::MAX) / 2)
        {
            self.forget_bucket();
        }
        let base = self.buckets.front().map_or(seq, |bucket| bucket.first_seq.min(seq)) - 1;
        if self.parts.is_empty() {
            self.parts = vec![Part::default()];
            self.base = base;
        } else {
            self.rebuild(self.parts.len(), base);
        }
    }

    fn rebuild(&mut self, count: usize, base: u64) {
        let (old_base, oldest) = (self.base, self.oldest_offset());
        let old = std::mem::take(&mut self.parts);
        self.parts.resize_with(count, Part::default);
        self.base = base;
        for entry in old.iter().flat_map(|part| &part.entries).filter(|entry| entry.offset >= oldest) {
            let seq = old_base + u64::from(entry.offset);
            let hash = hash(join(entry.id), self.keys);
            let part = part_of(hash, count);
            self.parts[part].insert(Entry { offset: (seq - base) as u32, ..*entry }, hash, self.keys, 1);
        }
    }

    /// Least offset of what is remembered; never that of a free place.
    fn oldest_offset(&self) -> u32 {
        let oldest = self.buckets.front().map_or(u64::MAX, |bucket| bucket.first_seq);
        u32::try_from(oldest.saturating_sub(self.base).max(1)).unwrap_or(u32::MAX)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.buckets.len() as u64);
        for bucket in &self.buckets {
            put(out, bucket.first_seq);
            put_signed(out, bucket.start);
            put(out, (bucket.last - bucket.start) as u64);
            put(out, bucket.count);
        }
        let oldest = self.oldest_offset();
        let live = || self.parts.iter().flat_map(|part| &part.entries).filter(|entry| entry.offset >= oldest);
        put(out, live().count() as u64);
        for entry in live() {
            out.extend_from_slice(&join(entry.id).to_le_bytes());
            put(out, self.base + u64::from(entry.offset));
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        let mut dedup = Self::new();
        for _ in 0..reader.count()? {
            let (first_seq, start) = (reader.number()?, reader.signed()?);
            let last = start.checked_add_unsigned(reader.number()?).ok_or(Flaw("time of ids"))?;
            let count = reader.number()?;
            if first_seq == 0 || dedup.buckets.back().is_some_and(|before| before.first_seq >= first_seq) {
                return Err(Flaw("order of ids"));
            }
            dedup.len = dedup.len.checked_add(count).ok_or(Flaw("number of ids"))?;
            dedup.buckets.push_back(Bucket { first_seq, start, last, count });
        }
        let oldest = dedup.buckets.front().map_or(0, |bucket| bucket.first_seq);
        for _ in 0..reader.count()? {
            let id = u128::from_le_bytes(reader.array()?);
            let seq = reader.number()?;
            if oldest == 0 || seq < oldest || seq - oldest >= u64::from(u32::MAX) {
                return Err(Flaw("id outside its window"));
            }
            if dedup.parts.is_empty() {
                dedup.base = oldest - 1;
                dedup.parts = vec![Part::default()];
            }
            dedup.store(id, seq);
        }
        Ok(dedup)
    }

    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        let entries: usize = self.parts.iter().map(|part| part.entries.capacity()).sum();
        entries * size_of::<Entry>()
            + self.parts.capacity() * size_of::<Part>()
            + self.buckets.capacity() * size_of::<Bucket>()
    }
}

impl Part {
    fn find(&self, id: u128, hash: u64, keys: [u64; 2]) -> Option<u32> {
        let id = split(id);
        for entry in self.entries.get(home(hash, self.homes)..)? {
            if entry.offset == 0 {
                return None;
            }
            if entry.id == id {
                return Some(entry.offset);
            }
            if hash_of(entry, keys) > hash {
                return None;
            }
        }
        None
    }

    /// Stores an entry, or makes a later message the one of its id. Entries below `oldest` may be dropped.
    fn insert(&mut self, new: Entry, hash: u64, keys: [u64; 2], oldest: u32) {
        if (self.used + 1) * 16 > self.homes * 15 {
            self.grow(keys, oldest, 0);
        }
        while !self.try_insert(new, hash, keys) {
            // Too many at the end, by chance: other homes are another chance.
            self.grow(keys, oldest, self.homes + self.homes / 32 + 1);
        }
    }

    fn try_insert(&mut self, new: Entry, hash: u64, keys: [u64; 2]) -> bool {
        let mut at = home(hash, self.homes);
        while let Some(entry) = self.entries.get_mut(at) {
            if entry.offset == 0 {
                *entry = new;
                self.used += 1;
                return true;
            }
            if entry.id == new.id {
                entry.offset = new.offset;
                return true;
            }
            if hash_of(entry, keys) > hash {
                break;
            }
            at += 1;
        }
        let Some(gap) = self.entries[at.min(self.entries.len())..].iter().position(|entry| entry.offset == 0) else {
            return false;
        };
        self.entries.copy_within(at..at + gap, at + 1);
        self.entries[at] = new;
        self.used += 1;
        true
    }

    /// Drops what is forgotten and makes room: at most 15/17 of the homes are used afterwards.
    fn grow(&mut self, keys: [u64; 2], oldest: u32, homes_min: usize) {
        let live = || self.entries.iter().filter(|entry| entry.offset >= oldest.max(1));
        let used = live().count();
        let mut homes = ((used + 1) * 17 / 15 + 4).max(homes_min);
        loop {
            let mut entries = vec![FREE; homes + 4 + homes / 32];
            let mut next = 0;
            let all_fit = live().all(|entry| {
                let place = next.max(home(hash_of(entry, keys), homes));
                next = place + 1;
                entries.get_mut(place).map(|free| *free = *entry).is_some()
            });
            if all_fit {
                *self = Self { entries, homes, used };
                return;
            }
            homes += homes / 16 + 1;
        }
    }
}

fn hash_of(entry: &Entry, keys: [u64; 2]) -> u64 {
    hash(join(entry.id), keys)
}

/// Ids may be chosen by a client: where they go depends on keys that it does not know.
fn hash(id: u128, keys: [u64; 2]) -> u64 {
    let product = u128::from(id as u64 ^ keys[0]) * u128::from((id >> 64) as u64 ^ keys[1]);
    let folded = product as u64 ^ (product >> 64) as u64;
    let again = u128::from(folded ^ keys[1]) * 0x9E37_79B9_7F4A_7C15;
    again as u64 ^ (again >> 64) as u64
}

/// Where an entry of that hash belongs: in the order of the hashes.
fn home(hash: u64, homes: usize) -> usize {
    ((u128::from(hash) * homes as u128) >> 64) as usize
}

/// Chosen by other bits than the home.
fn part_of(hash: u64, parts: usize) -> usize {
    hash as usize & (parts.max(1) - 1)
}

fn split(id: u128) -> [u32; 4] {
    [id as u32, (id >> 32) as u32, (id >> 64) as u32, (id >> 96) as u32]
}

fn join(id: [u32; 4]) -> u128 {
    id.iter().rev().fold(0, |joined, part| joined << 32 | u128::from(*part))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MAX: u32 = 10_000_000;

    #[test]
    fn an_id_costs_at_most_24_bytes() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut dedup = Dedup::new();
        for seq in 1..=1_000_000 {
            dedup.insert(random.u128(..), seq, seq as i64, 2_000_000, MAX);
            if seq % 100_000 == 0 {
                let bytes = dedup.heap_bytes() as f64 / seq as f64;
                assert!(bytes <= 24.0, "{bytes} bytes per id after {seq}");
            }
        }
        // A window that moves on costs what it holds.
        for seq in 1_000_001..=5_000_000 {
            dedup.expire(seq as i64, 1_000_000);
            dedup.insert(random.u128(..), seq, seq as i64, 1_000_000, MAX);
        }
        let bytes = dedup.heap_bytes() as f64 / dedup.len as f64;
        assert!(dedup.len <= 1_040_000 && bytes <= 24.0, "{bytes} bytes per id of {}", dedup.len);
        dedup.expire(6_000_000, 1_000_000);
        assert_eq!((dedup.len, dedup.heap_bytes() < 4096), (0, true), "an empty window costs nothing");
    }

    #[test]
    fn remembers_for_the_window_and_little_longer() {
        let mut random = fastrand::Rng::with_seed(2);
        let (mut dedup, mut model) = (Dedup::new(), BTreeMap::new());
        let (window, mut seq, mut now) = (3_200, 0, 0);
        for step in 0..60_000_u32 {
            now += random.i64(0..4);
            if step % 20_000 == 19_999 {
                now += 10_000;
            }
            dedup.expire(now, window);
            let id = u128::from(random.u32(..5_000)) << 40;
            let known = model.get(&id).filter(|(_, time)| time + window > now).map(|(seq, _)| *seq);
            let slack = model.get(&id).filter(|(_, time)| time + window + window / BUCKETS > now).map(|(seq, _)| *seq);
            let found = dedup.find(id);
            assert!(found == known || found == slack, "{found:?}, expected {known:?} or {slack:?}");
            if found.is_none() {
                seq += random.u64(1..1_000_000);
                dedup.insert(id, seq, now, window, MAX);
                model.insert(id, (seq, now));
            }
            if step % 10_000 == 0 {
                let mut bytes = Vec::new();
                dedup.encode(&mut bytes);
                dedup = Dedup::decode(&mut Reader::new(&bytes)).unwrap();
            }
        }
        assert!(seq > u64::from(u32::MAX), "the numbers have left 32 bits behind");
    }

    #[test]
    fn the_budget_forgets_the_oldest() {
        let mut dedup = Dedup::new();
        for seq in 1..=10_000 {
            dedup.insert(u128::from(seq), seq, 0, i64::MAX, 1000);
            assert!(dedup.len <= 1000);
        }
        assert_eq!((dedup.find(1), dedup.find(10_000), dedup.find(9_100)), (None, Some(10_000), Some(9_100)));
    }
}
