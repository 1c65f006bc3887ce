//! How fast: bytes per second, and old messages with the pauses between them as when they were stored.

use super::config::Rate;
use super::ledger::NEVER;
use crate::log::Time;

const SECOND_NS: i128 = 1_000_000_000;

/// A bucket of bytes that may be sent. A message may overdraw it, the next one waits until there is something again.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    bytes: i128,
    /// When `bytes` was right.
    at: Time,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Time) -> Self {
        Self { rate, bytes: i128::from(rate.burst_bytes.get()), at: now }
    }

    /// When the next message may go, if it has to wait.
    pub(super) fn ready_at(&self) -> Option<Time> {
        if self.bytes > 0 {
            return None;
        }
        let rate = i128::from(self.rate.bytes_per_second.get());
        let missing_ns = ((1 - self.bytes) * SECOND_NS + rate - 1) / rate;
        Some(Time::try_from(i128::from(self.at) + missing_ns).unwrap_or(NEVER))
    }

    pub(super) fn allows(&mut self, now: Time) -> bool {
        let rate = i128::from(self.rate.bytes_per_second.get());
        let gained = (i128::from(now) - i128::from(self.at)).max(0) * rate / SECOND_NS;
        if gained > 0 {
            let full = i128::from(self.rate.burst_bytes.get());
            self.bytes += gained;
            // What is less than a byte is kept as time.
            self.at = self.at.saturating_add((gained * SECOND_NS / rate) as i64);
            if self.bytes >= full {
                (self.bytes, self.at) = (full, now);
            }
        }
        self.bytes > 0
    }

    pub(super) fn take(&mut self, bytes: u32) {
        self.bytes -= i128::from(bytes);
    }
}

/// Replay at the original pace.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// When the last message was stored, and when it was sent.
    last: Option<(Time, Time)>,
    /// When the next one is due, if that is known.
    due: Option<Time>,
}

impl Replay {
    /// When the next message stored at `stored` is due.
    pub(super) fn due(&mut self, stored: Time) -> Time {
        let due = match self.last {
            Some((before, sent)) => sent.saturating_add(stored.saturating_sub(before).max(0)),
            None => Time::MIN,
        };
        self.due = Some(due);
        due
    }

    pub(super) fn sent(&mut self, stored: Time, now: Time) {
        self.last = Some((stored, now));
        self.due = None;
    }

    /// Whether it is worth looking again.
    pub(super) fn allows(&mut self, now: Time) -> bool {
        self.due = self.due.filter(|due| now < *due);
        self.due.is_none()
    }

    /// When it is worth looking again, if not at once.
    pub(super) fn ready_at(&self) -> Option<Time> {
        self.due
    }
}
