//! A hash table whose growth never stops a shard for long.
//!
//! An ordinary table of a million entries moves all of them when it doubles. This one is a single `hashbrown` table
//! while it is small, and is spread over 256 of them, chosen by other bits of the hash than those the tables use, when
//! it holds more than [`SPREAD_AT`] entries. Each part then grows and shrinks on its own, so that one insertion moves
//! about 1/256 of the entries: with a million inboxes the longest took 1 ms instead of more than 100.
//!
//! Values carry their hash, which the caller computes: moving them reads no other memory. Cost per entry: the value
//! and one byte, divided by the fill of its part, which is between 7/16 and 7/8 while a table grows.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Entries beyond which a table is spread over [`SEGMENTS`] parts. Small tables save the 8 KiB of empty parts.
const SPREAD_AT: usize = 4096;
/// Entries below which a spread table becomes a single one again.
const GATHER_BELOW: usize = SPREAD_AT / 4;
/// Parts of a spread table.
const SEGMENTS: usize = 256;
/// The hash bits that choose the part: `hashbrown` takes the lowest ones and the highest seven.
const SEGMENT_SHIFT: u32 = 48;

const _: () = assert!(SEGMENTS.is_power_of_two() && SEGMENTS <= 1 << (64 - 7 - SEGMENT_SHIFT));

/// A value that knows the hash of its key.
pub(crate) trait Hashed {
    /// The hash under which the value is stored. It never changes while the value is in a table.
    fn hash(&self) -> u64;
}

/// A set of values found by hash and an equality given by the caller.
pub(crate) struct Table<V> {
    /// One part, or [`SEGMENTS`].
    segments: Vec<HashTable<V>>,
    len: usize,
}

impl<V: Hashed> Table<V> {
    /// An empty table owns no memory.
    pub(crate) fn new() -> Self {
        Self { segments: Vec::new(), len: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        self.segments.iter().flatten()
    }

    /// Bytes allocated for the parts.
    pub(crate) fn heap_bytes(&self) -> usize {
        let parts: usize = self.segments.iter().map(HashTable::allocation_size).sum();
        parts + self.segments.capacity() * size_of::<HashTable<V>>()
    }

    pub(crate) fn find(&self, hash: u64, eq: impl FnMut(&V) -> bool) -> Option<&V> {
        self.segments.get(segment_of(hash, self.segments.len()))?.find(hash, eq)
    }

    pub(crate) fn find_mut(&mut self, hash: u64, eq: impl FnMut(&V) -> bool) -> Option<&mut V> {
        let segment = segment_of(hash, self.segments.len());
        self.segments.get_mut(segment)?.find_mut(hash, eq)
    }

    /// Finds the value, or stores what `make` returns, whose hash must be `hash`.
    pub(crate) fn find_or_insert(&mut self, hash: u64, eq: impl FnMut(&V) -> bool, make: impl FnOnce() -> V) -> &mut V {
        if self.segments.is_empty() {
            self.segments = vec![HashTable::new()];
        } else if self.len >= SPREAD_AT && self.segments.len() == 1 {
            self.redistribute(SEGMENTS);
        }
        let segment = segment_of(hash, self.segments.len());
        let entry = self.segments[segment].entry(hash, eq, V::hash);
        if let hashbrown::hash_table::Entry::Vacant(_) = entry {
            self.len += 1;
        }
        entry.or_insert_with(make).into_mut()
    }

    pub(crate) fn remove(&mut self, hash: u64, eq: impl FnMut(&V) -> bool) -> Option<V> {
        let count = self.segments.len();
        let segment = self.segments.get_mut(segment_of(hash, count))?;
        let (value, _) = segment.find_entry(hash, eq).ok()?.remove();
        self.len -= 1;
        if self.len == 0 {
            self.segments = Vec::new();
        } else if self.len < GATHER_BELOW && count > 1 {
            self.redistribute(1);
        } else if segment.len() < segment.num_buckets() / 8 {
            // Half of the new room is free, so the next move is as many operations away as this one costs.
            segment.shrink_to(segment.len() * 2, V::hash);
        }
        Some(value)
    }

    fn redistribute(&mut self, count: usize) {
        let mut target: Vec<HashTable<V>> = Vec::with_capacity(count);
        target.resize_with(count, || HashTable::with_capacity(self.len / count));
        for value in std::mem::take(&mut self.segments).into_iter().flatten() {
            let hash = value.hash();
            target[segment_of(hash, count)].insert_unique(hash, value, V::hash);
        }
        self.segments = target;
    }
}

/// The hash of a key.
pub(crate) fn hash_of(bytes: &[u8], hasher: &RandomState) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(bytes);
    state.finish()
}

fn segment_of(hash: u64, segments: usize) -> usize {
    (hash >> SEGMENT_SHIFT) as usize & segments.saturating_sub(1)
}
