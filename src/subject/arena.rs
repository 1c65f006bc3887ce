//! A vector in chunks, which grows without moving what it holds.
//!
//! Doubling a vector of a million nodes copies 64 MB while a shard stands still, and leaves up to half of it unused.
//! Here one push allocates at most a chunk of [`CHUNK`] values; the first chunk grows like a vector, so that a small
//! arena is small. Reading costs one more load than a vector does.

use std::ops::{Index, IndexMut};

use crate::first::First as _;

/// Values per chunk.
const CHUNK: usize = 512;

/// Values by position, added at the end only.
pub(crate) struct Arena<V> {
    /// All full but the last.
    chunks: Vec<Vec<V>>,
}

impl<V> Arena<V> {
    /// An empty arena owns no memory.
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Returns the position of the value.
    pub(crate) fn push(&mut self, value: V) -> usize {
        let is_full = self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK);
        if is_full {
            let capacity = if self.chunks.is_empty() { 1 } else { CHUNK };
            self.chunks.reserve_first();
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let last = self.chunks.len() - 1;
        let chunk = &mut self.chunks[last];
        chunk.push(value);
        last * CHUNK + chunk.len() - 1
    }

    pub(crate) fn get(&self, index: usize) -> Option<&V> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        self.chunks.iter().flatten()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let values: usize = self.chunks.iter().map(Vec::capacity).sum();
        values * size_of::<V>() + self.chunks.capacity() * size_of::<Vec<V>>()
    }
}

impl<V> Index<usize> for Arena<V> {
    type Output = V;

    fn index(&self, index: usize) -> &V {
        &self.chunks[index / CHUNK][index % CHUNK]
    }
}

impl<V> IndexMut<usize> for Arena<V> {
    fn index_mut(&mut self, index: usize) -> &mut V {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }
}
