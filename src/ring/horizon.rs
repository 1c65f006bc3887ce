//! Up to where a producer's consumers may look: one mark for all of its rings.
//!
//! A producer that fills several rings fills them one after the other. What it has put into the first could be acted
//! upon, and the consequences arrive elsewhere, before it has come to the last. So consumers take nothing beyond the
//! horizon, and the producer moves that when all rings hold what belongs together: it appears everywhere at once.

#![forbid(unsafe_code)]

use super::sync::{AtomicU64, Ordering};

/// The horizon of one producer, read by all of its consumers. It only grows.
// On cache lines of its own: it is read by every consumer in each of their looks.
#[repr(align(128))]
#[derive(Debug)]
pub struct Horizon {
    mark: AtomicU64,
}

impl Horizon {
    /// Shows nothing.
    pub fn new() -> Self {
        Self { mark: AtomicU64::new(0) }
    }

    /// Shows everything up to `mark`, all of which has been pushed before.
    pub fn show(&self, mark: u64) {
        self.mark.store(mark, Ordering::Release);
    }

    /// Everything up to this can be taken from the rings without waiting.
    pub fn mark(&self) -> u64 {
        self.mark.load(Ordering::Acquire)
    }
}

impl Default for Horizon {
    fn default() -> Self {
        Self::new()
    }
}
