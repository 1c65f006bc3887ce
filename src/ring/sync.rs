//! What the ring takes from the standard library. The interleaving tests compile the same sources with a module of
//! this name that offers the model checker's versions instead.

#![forbid(unsafe_code)]

pub(super) use std::sync::Arc;
#[cfg(not(test))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64};
pub(super) use std::sync::atomic::{Ordering, fence};

#[cfg(test)]
pub(super) use crate::sim::atomic::{AtomicBool, AtomicU64};

/// A cell whose accesses the model checker can see.
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(super) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Hands out the address. The caller answers for every access through it.
    #[inline]
    pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
