//! What is known of the oldest messages, so that limits can take them away without a read.

use std::collections::VecDeque;

use super::subjects::SubjectId;
use crate::first::First as _;
use crate::log::Time;

/// What removing a message needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) seq: u64,
    pub(super) time: Time,
    pub(super) subject: SubjectId,
    /// Bytes as the stream counts them.
    pub(super) size: u32,
    /// Bytes of its record in the log.
    pub(super) record: u32,
}

/// The oldest living messages, without a gap: all up to some number.
#[derive(Debug, Default)]
pub(super) struct Head {
    known: VecDeque<Known>,
    /// Every living message up to here is known.
    upto: u64,
}

impl Head {
    /// Every living message up to this one is known.
    pub(super) fn upto(&self) -> u64 {
        self.upto
    }

    pub(super) fn front(&self) -> Option<&Known> {
        self.known.front()
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Adds the message after all known ones. The caller knows that none lives between.
    pub(super) fn push(&mut self, known: Known) {
        debug_assert!(known.seq > self.upto, "{} is known already, up to {}", known.seq, self.upto);
        self.upto = known.seq;
        self.known.reserve_first();
        self.known.push_back(known);
    }

    /// No message between those known and `seq`, that one included, lives.
    pub(super) fn extend(&mut self, seq: u64) {
        self.upto = self.upto.max(seq);
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Known> {
        if self.known.front().is_some_and(|front| front.seq == seq) {
            return self.known.pop_front();
        }
        let at = self.known.binary_search_by_key(&seq, |known| known.seq).ok()?;
        self.known.remove(at)
    }

    /// The first known message after `seq`.
    pub(super) fn after(&self, seq: u64) -> Option<&Known> {
        self.known.get(self.known.partition_point(|known| known.seq <= seq))
    }

    /// Forgets all: nothing is known.
    pub(super) fn clear(&mut self, upto: u64) {
        *self = Self { known: VecDeque::new(), upto };
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Known> {
        self.known.iter()
    }
}
