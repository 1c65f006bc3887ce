//! How many handshakes may begin in a second (`connection_rate_limit`).
#![forbid(unsafe_code)]

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time that a limit is for.
pub(super) const WINDOW: Duration = Duration::from_secs(1);

/// Counts handshakes in windows of a second, the first of which begins with the first handshake. This is how the
/// reference counts: the excess is turned away, not delayed.
#[derive(Debug, Default)]
pub(super) struct Rate(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    window_end: Option<Instant>,
    begun: u32,
    refused: u64,
}

/// Whether a handshake may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may.
    Granted,
    /// It may not, and it is the first since [`Rate::take_refused`].
    FirstRefused,
    /// It may not.
    Refused,
}

impl Rate {
    /// Counts a handshake at `now`, of which `limit` may begin in a second.
    pub(super) fn admit(&self, limit: u32, now: Instant) -> Admission {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.window_end.is_none_or(|end| now > end) {
            (counts.window_end, counts.begun) = (Some(now + WINDOW), 0);
        }
        if counts.begun < limit {
            counts.begun += 1;
            return Admission::Granted;
        }
        counts.refused += 1;
        if counts.refused == 1 { Admission::FirstRefused } else { Admission::Refused }
    }

    /// How many have been turned away since the last call.
    pub(super) fn take_refused(&self) -> u64 {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many per second, and the next second begins anew.
    #[test]
    fn windows() {
        let (rate, start) = (Rate::default(), Instant::now());
        let at = |ms: u64, limit| rate.admit(limit, start + Duration::from_millis(ms));
        let verdicts = [at(0, 2), at(10, 2), at(20, 2), at(1000, 2), at(1001, 2), at(1002, 3), at(1003, 3)];
        use Admission::{FirstRefused, Granted, Refused};
        assert_eq!(verdicts, [Granted, Granted, FirstRefused, Refused, Granted, Granted, Granted]);
        assert_eq!((rate.take_refused(), rate.take_refused()), (2, 0));
        assert_eq!(at(1004, 3), FirstRefused);
    }
}
