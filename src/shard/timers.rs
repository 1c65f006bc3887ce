//! One coarse timer list per shard.
//!
//! Deadlines are rounded up to milliseconds, those of pings to up to a quarter second, so that ten thousand idle
//! connections share a few entries. Nothing is ever cancelled: whoever is woken checks whether there is still something to do. The driver
//! sleeps until [`Timers::next`] at most; with no entries, until something happens.

use std::collections::BTreeMap;

/// What a connection is woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Look whether a ping is due.
    Ping,
    /// CONNECT should have come.
    Auth,
    /// Queued output should have been written.
    WriteDeadline,
    /// A publisher slowed down by a stall gate may go on.
    StallEnd,
    /// A closed connection has had its time to flush.
    Linger,
    /// The time of its user is over.
    Expiry,
}

/// Entry: connection slot, its id (slots are reused), what for.
pub(crate) type Entry = (u32, u64, Timer);

const NANOS_PER_MS: u64 = 1_000_000;
const COARSE_STEP_MS: u64 = 256;

/// Deadlines of all connections of a shard.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_ms: BTreeMap<u64, Vec<Entry>>,
}

impl Timers {
    /// Wakes `entry` at `at` nanoseconds or a little later.
    pub(crate) fn set(&mut self, at: u64, entry: Entry) {
        let ms = at.div_ceil(NANOS_PER_MS);
        self.by_ms.entry(ms).or_default().push(entry);
    }

    /// As [`Timers::set`], for what may come up to a sixteenth of the time from `now` late (at most a quarter second).
    pub(crate) fn set_coarse(&mut self, now: u64, at: u64, entry: Entry) {
        let step = (at.saturating_sub(now) / NANOS_PER_MS / 16).clamp(1, COARSE_STEP_MS);
        let ms = at.div_ceil(NANOS_PER_MS).next_multiple_of(step);
        self.by_ms.entry(ms).or_default().push(entry);
    }

    /// The earliest deadline, nanoseconds.
    pub(crate) fn next(&self) -> Option<u64> {
        self.by_ms.keys().next().map(|ms| ms * NANOS_PER_MS)
    }

    /// Takes what is due at `now`.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<Vec<Entry>> {
        let first = self.by_ms.first_entry()?;
        (first.key() * NANOS_PER_MS <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_never_fire_early_and_pings_are_gathered() {
        let mut timers = Timers::default();
        timers.set(1, (1, 1, Timer::Auth));
        timers.set_coarse(0, 4_100 * NANOS_PER_MS, (2, 2, Timer::Ping));
        timers.set_coarse(0, 4_200 * NANOS_PER_MS, (3, 3, Timer::Ping));
        assert_eq!(timers.next(), Some(NANOS_PER_MS));
        assert!(timers.take_due(NANOS_PER_MS - 1).is_none());
        assert_eq!(timers.take_due(NANOS_PER_MS), Some(vec![(1, 1, Timer::Auth)]));
        assert_eq!(timers.next(), Some(4_352 * NANOS_PER_MS));
        assert_eq!(timers.take_due(4_352 * NANOS_PER_MS).map(|due| due.len()), Some(2));
        assert_eq!(timers.next(), None);
    }
}
