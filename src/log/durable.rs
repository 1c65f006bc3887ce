//! The proof without which nothing is acknowledged.
//!
//! Whatever is appended to a log gets a [`Pending`]. The log alone makes [`Durable`], when a flush has returned, and only
//! with one of those does a [`Waiting`] let go of what it keeps. An acknowledgement that sits in a `Waiting` can therefore
//! not be sent before its record is on disk.

use std::collections::VecDeque;

/// What has been appended but perhaps not flushed yet: everything in one batch and before it.
///
/// Counts the batches to be written, whatever number a batch gets on disk and however often writing it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pending(u64);

impl Pending {
    /// Waits for nothing: for what is kept in memory, and for streams that are flushed now and then only.
    pub const NONE: Self = Self(0);

    /// The first of a log.
    pub(super) const FIRST: Self = Self(1);

    /// What is appended to the batch after this one.
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// One for tests of what is above the log.
    #[cfg(test)]
    pub(crate) fn nth(number: u64) -> Self {
        Self(number)
    }

    /// Whether there is anything to wait for.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// Proof that a log has been flushed up to and including some batch.
///
/// ```compile_fail
/// let forged = leat::log::Durable { upto: leat::log::Pending::NONE };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable {
    upto: Pending,
}

impl Durable {
    /// To be called where the completion of a flush is handled, and nowhere else.
    pub(super) fn proven(upto: Pending) -> Self {
        Self { upto }
    }

    /// One for tests of what is above the log.
    #[cfg(test)]
    pub(crate) fn of_nth(number: u64) -> Self {
        Self::proven(Pending::nth(number))
    }

    /// Whether what waits for `pending` may go.
    #[must_use]
    pub fn covers(&self, pending: Pending) -> bool {
        pending <= self.upto
    }
}

/// What waits for flushes, in order of appending.
///
/// Bounded by whoever appends: nothing enters without a record in the log's open batch, which is bounded.
#[derive(Debug)]
pub struct Waiting<T> {
    queue: VecDeque<(Pending, T)>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new() }
    }
}

impl<T> Waiting<T> {
    /// Keeps `value` until `pending` is flushed, and behind everything that came before it.
    pub fn push(&mut self, pending: Pending, value: T) {
        let behind = self.queue.back().map_or(Pending::NONE, |(last, _)| *last);
        self.queue.push_back((pending.max(behind), value));
    }

    /// Takes out what `proof` covers, oldest first.
    pub fn release(&mut self, proof: &Durable) -> impl Iterator<Item = T> {
        let covered = self.queue.partition_point(|(pending, _)| proof.covers(*pending));
        self.queue.drain(..covered).map(|(_, value)| value)
    }

    /// Takes out everything unproven, oldest first: for refusals after the log has failed.
    pub fn abandon(&mut self) -> impl Iterator<Item = T> {
        self.queue.drain(..).map(|(_, value)| value)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_before_its_proof_and_nothing_overtakes() {
        let (first, second) = (Pending::FIRST, Pending::FIRST.next());
        let mut waiting = Waiting::default();
        waiting.push(first, 'a');
        waiting.push(second, 'b');
        waiting.push(Pending::NONE, 'c');
        assert_eq!(waiting.release(&Durable::proven(first)).collect::<String>(), "a");
        assert_eq!(waiting.release(&Durable::proven(first)).count(), 0, "what came later waits behind");
        assert_eq!(waiting.release(&Durable::proven(second.next())).collect::<String>(), "bc");
    }
}
