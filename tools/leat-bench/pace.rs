//! The open-loop schedule of one thread: which message is due when, and how late it was sent.
//!
//! Message k is due at `start + phase + k / rate`, whatever happened to the messages before it. If the sender falls
//! behind, it sends everything that is due at once and the lateness is part of each message's latency.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::roles::{Turn, latency_histogram};

/// Messages sent before events are looked at.
const BURST: usize = 512;

/// Unsent bytes of a connection above which the schedule waits (and falls behind).
const BACKLOG_BYTES: usize = 8 << 20;

/// Sleeping ends this long before a message is due; the rest is spent polling.
const WAKE_EARLY_NS: u64 = 60_000;

/// A thread's part of the schedule.
pub(crate) struct Pacer {
    targets: Vec<usize>,
    interval_ns: f64,
    phase_ns: f64,
    /// Messages in all.
    limit: u64,
    sent: u64,
    over: bool,
    lag: Histogram<u64>,
}

impl Pacer {
    /// `rate` messages per second, dealt to the `targets` in turn; `None` if there is nothing to do.
    pub(crate) fn new(targets: Vec<usize>, rate: f64, phase: f64, limit: u64) -> Option<Pacer> {
        let interval_ns = 1e9 / rate;
        (!targets.is_empty() && rate > 0.0).then(|| Pacer {
            targets,
            interval_ns,
            phase_ns: interval_ns * phase,
            limit,
            sent: 0,
            over: false,
            lag: latency_histogram(),
        })
    }

    /// Whether everything on the schedule has been sent.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// The connections on the schedule.
    pub(crate) fn targets(&self) -> &[usize] {
        &self.targets
    }

    /// How late messages were sent, in nanoseconds.
    pub(crate) fn into_lag(self) -> Histogram<u64> {
        self.lag
    }

    /// When the next message is due.
    fn due_ns(&self, start_ns: u64) -> u64 {
        start_ns + (self.phase_ns + self.sent as f64 * self.interval_ns) as u64
    }

    /// Hands the messages that are due to `send`, which returns the unsent bytes of that connection. Returns whether
    /// more is due.
    pub(crate) fn send_due(&mut self, turn: &Turn<'_>, mut send: impl FnMut(usize, u64) -> usize) -> bool {
        let start_ns = turn.shared.start_ns.load(Relaxed);
        let until_ns = turn.shared.record_until_ns.load(Relaxed);
        let stop = turn.shared.stop.load(Relaxed);
        for _ in 0..BURST {
            let due_ns = self.due_ns(start_ns);
            if self.sent == self.limit || (stop && due_ns >= until_ns) {
                self.over = true;
                return false;
            }
            if due_ns > turn.now_ns {
                return false;
            }
            let target = self.targets[(self.sent % self.targets.len() as u64) as usize];
            let backlog = send(target, due_ns);
            self.sent += 1;
            if turn.recorder.covers(due_ns) {
                self.lag.saturating_record((turn.now_ns - due_ns).max(1));
            }
            if backlog > BACKLOG_BYTES {
                return false;
            }
        }
        true
    }

    /// How long the thread may sleep.
    pub(crate) fn nap(&self, now_ns: u64, start_ns: u64) -> Duration {
        if self.over {
            return Duration::MAX;
        }
        Duration::from_nanos(self.due_ns(start_ns).saturating_sub(now_ns + WAKE_EARLY_NS))
    }
}
