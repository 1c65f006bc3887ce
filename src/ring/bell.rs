//! Who has to ring: the agreement between a consumer that wants to park and its producers.
//!
//! Waking a parked core costs a system call here and tens of microseconds there, so producers ring only for one that
//! sleeps, and one of them rings, once. The danger is the wake-up lost in between: the consumer finds nothing, the
//! producer finds it awake, and it parks on a filled ring. Both sides therefore write first, fence, then read:
//!
//! | consumer | producer |
//! |---|---|
//! | says that it sleeps | publishes its items |
//! | fence | fence |
//! | looks at its rings once more | asks whether it sleeps |
//!
//! Of two sequentially consistent fences one comes first, and what was written before it is seen after the other. So
//! at least one side notices. One fence per turn and peer is enough: it covers all items published before it.

#![forbid(unsafe_code)]

use super::sync::{AtomicBool, Ordering, fence};

/// Tells producers whether a consumer is parked. One per consumer, shared by all of its producers.
///
/// ```text
/// // The consumer, with nothing left to do:
/// sleeper.prepare_to_sleep();
/// if rings_are_empty() {
///     park(); // until the doorbell or anything else
/// }
/// sleeper.cancel();
///
/// // A producer, after its last push of a turn:
/// if sleeper.needs_wake() {
///     ring_the_bell();
/// }
/// ```
// On cache lines of its own: it is read by every producer in each of their turns.
#[repr(align(128))]
#[derive(Debug)]
pub struct Sleeper {
    asleep: AtomicBool,
}

impl Sleeper {
    /// A consumer that is awake.
    pub fn new() -> Self {
        Self { asleep: AtomicBool::new(false) }
    }

    /// The consumer is about to park. It must look at all its rings after this call, and park only if they are empty.
    pub fn prepare_to_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The consumer stays awake, or was woken by something else than the doorbell. A doorbell that a producer has
    /// decided on just before may still arrive and means nothing.
    pub fn cancel(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Asked by a producer after it has published. True if it must ring the doorbell: no other producer will for
    /// this sleep.
    pub fn needs_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        // The line is written only when there is somebody to wake.
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }
}

impl Default for Sleeper {
    fn default() -> Self {
        Self::new()
    }
}
