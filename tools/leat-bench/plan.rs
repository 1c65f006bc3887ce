//! What a run consists of: connections with roles, the groups that tie publishers to their subscribers, and the state
//! that the load threads and the thread that measures share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::frames::Want;
use crate::roles::Role;

/// A run, ready to be carried out.
pub(crate) struct Plan {
    /// The connections, in the order in which they are opened and dealt to the threads.
    pub(crate) connections: Vec<PlannedConnection>,
    /// Publishers with those who receive from them.
    pub(crate) groups: Vec<Arc<Group>>,
    /// What the run counts.
    pub(crate) headline: Headline,
    /// Messages per second on the schedule, for paced roles.
    pub(crate) rate: Option<f64>,
    /// Whether latencies are recorded.
    pub(crate) latency: bool,
    /// Requests that may be sent in all.
    pub(crate) request_limit: u64,
    /// Messages on the schedule in all.
    pub(crate) paced_limit: u64,
    /// Whether there is nothing but subscribers; then others decide what is sent, and nothing can be verified.
    pub(crate) connections_only_receive: bool,
    /// Subscriptions made during setup, where their number is the point.
    pub(crate) subscriptions: Option<u64>,
}

/// One connection to be opened.
pub(crate) struct PlannedConnection {
    /// Complete SUB lines.
    pub(crate) subscriptions: Vec<u8>,
    /// How much of the messages it looks at.
    pub(crate) want: Want,
    /// What it does afterwards.
    pub(crate) role: Role,
}

/// The figure that stands for the run, counted per second and per CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Headline {
    /// Messages the server has certainly processed.
    Processed,
    /// Messages received, each subscriber counted.
    Delivered,
    /// Replies received.
    Answered,
    /// PONGs received.
    Probed,
}

impl Headline {
    /// What one unit is called.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Headline::Processed => "messages",
            Headline::Delivered => "deliveries",
            Headline::Answered => "requests",
            Headline::Probed => "probes",
        }
    }
}

/// How a message spreads over the subscribers of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Each subscriber gets each message.
    ToEach,
    /// The subscribers together get each message this often.
    Shared(u64),
}

/// Publishers and the subscribers of what they publish: the counts that bound what is outstanding, and that show loss.
pub(crate) struct Group {
    /// Messages handed to the kernel.
    published: AtomicU64,
    /// Messages received, by subscriber.
    received: Vec<AtomicU64>,
    spread: Spread,
    /// Most messages published but not received.
    window: u64,
}

impl Group {
    /// A group with this many subscribers.
    pub(crate) fn new(subscribers: usize, spread: Spread, window: u64) -> Arc<Group> {
        assert!(subscribers > 0, "a group has subscribers");
        assert!(window > 0, "a group has a window");
        Arc::new(Group {
            published: AtomicU64::new(0),
            received: (0..subscribers).map(|_| AtomicU64::new(0)).collect(),
            spread,
            window,
        })
    }

    /// How many messages may be published now.
    pub(crate) fn room(&self) -> u64 {
        let outstanding = self.published.load(Relaxed).saturating_sub(self.complete());
        self.window.saturating_sub(outstanding)
    }

    /// The most that may be outstanding.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Notes published messages.
    pub(crate) fn add_published(&self, count: u64) {
        self.published.fetch_add(count, Relaxed);
    }

    /// Notes messages received by one subscriber.
    pub(crate) fn add_received(&self, subscriber: usize, count: u64) {
        self.received[subscriber].fetch_add(count, Relaxed);
    }

    /// Messages that everybody concerned has received.
    fn complete(&self) -> u64 {
        let counts = self.received.iter().map(|count| count.load(Relaxed));
        match self.spread {
            Spread::ToEach => counts.min().unwrap_or(0),
            Spread::Shared(per_message) => counts.sum::<u64>() / per_message,
        }
    }

    /// Deliveries that should have happened, did not happen, and happened too often.
    pub(crate) fn verify(&self) -> Verdict {
        let published = self.published.load(Relaxed);
        let received: Vec<u64> = self.received.iter().map(|count| count.load(Relaxed)).collect();
        let mut verdict = Verdict { received: received.iter().sum(), ..Verdict::default() };
        match self.spread {
            Spread::ToEach => {
                verdict.expected = published * received.len() as u64;
                for count in received {
                    verdict.lost += published.saturating_sub(count);
                    verdict.duplicate += count.saturating_sub(published);
                }
            }
            Spread::Shared(per_message) => {
                verdict.expected = published * per_message;
                verdict.lost = verdict.expected.saturating_sub(verdict.received);
                verdict.duplicate = verdict.received.saturating_sub(verdict.expected);
            }
        }
        verdict
    }
}

/// The account of deliveries at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Deliveries that were due.
    pub(crate) expected: u64,
    /// Deliveries that came.
    pub(crate) received: u64,
    /// Due but missing.
    pub(crate) lost: u64,
    /// Beyond what was due.
    pub(crate) duplicate: u64,
}

impl Verdict {
    /// Adds another group's account.
    pub(crate) fn add(&mut self, other: Verdict) {
        self.expected += other.expected;
        self.received += other.received;
        self.lost += other.lost;
        self.duplicate += other.duplicate;
    }
}

/// What one load thread has done so far. Only that thread writes; padded so that threads do not share cache lines.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    /// Messages handed to the kernel.
    pub(crate) published: AtomicU64,
    /// Messages whose processing a PONG has confirmed.
    pub(crate) processed: AtomicU64,
    /// Messages received.
    pub(crate) delivered: AtomicU64,
    /// Requests or probes sent.
    pub(crate) asked: AtomicU64,
    /// Replies or PONGs received.
    pub(crate) answered: AtomicU64,
    /// Messages that came before an earlier one of their publisher, or twice (paced runs only).
    pub(crate) disordered: AtomicU64,
    /// When `processed`, `delivered` or `answered` last changed.
    pub(crate) last_ns: AtomicU64,
    /// Longest time between two confirmations.
    pub(crate) longest_gap_ns: AtomicU64,
    /// Senders that have not finished.
    pub(crate) unfinished: AtomicU64,
}

impl Counters {
    /// Adds to a counter that only this thread writes.
    pub(crate) fn bump(counter: &AtomicU64, by: u64) {
        counter.store(counter.load(Relaxed) + by, Relaxed);
    }
}

/// Signals between the thread that measures and the load threads.
pub(crate) struct Shared {
    /// Per load thread.
    pub(crate) counters: Vec<Counters>,
    /// Start of the schedule.
    pub(crate) start_ns: AtomicU64,
    /// Latencies count for messages due at or after this time …
    pub(crate) record_from_ns: AtomicU64,
    /// … and before this one.
    pub(crate) record_until_ns: AtomicU64,
    /// Senders send no more; everything outstanding is still received.
    pub(crate) stop: AtomicBool,
    /// Load threads return.
    pub(crate) quit: AtomicBool,
    /// Requests that may still be sent.
    pub(crate) request_tickets: AtomicU64,
}

impl Shared {
    /// State at the start of a run.
    pub(crate) fn new(threads: usize, request_limit: u64) -> Shared {
        Shared {
            counters: (0..threads).map(|_| Counters::default()).collect(),
            start_ns: AtomicU64::new(0),
            record_from_ns: AtomicU64::new(u64::MAX),
            record_until_ns: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            request_tickets: AtomicU64::new(request_limit),
        }
    }

    /// Sum of one counter over the threads.
    pub(crate) fn total(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|one| counter(one).load(Relaxed)).sum()
    }

    /// The count the run is about.
    pub(crate) fn headline(&self, headline: Headline) -> u64 {
        match headline {
            Headline::Processed => self.total(|c| &c.processed),
            Headline::Delivered => self.total(|c| &c.delivered),
            Headline::Answered | Headline::Probed => self.total(|c| &c.answered),
        }
    }

    /// Longest time between two confirmations, over the threads.
    pub(crate) fn longest_gap_ns(&self) -> u64 {
        let gaps = self.counters.iter().map(|one| one.longest_gap_ns.load(Relaxed));
        gaps.max().unwrap_or(0)
    }

    /// When anything last arrived.
    pub(crate) fn last_ns(&self) -> u64 {
        self.counters.iter().map(|one| one.last_ns.load(Relaxed)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_slowest_subscriber() {
        let group = Group::new(2, Spread::ToEach, 10);
        group.add_published(10);
        assert_eq!(group.room(), 0);
        group.add_received(0, 10);
        assert_eq!(group.room(), 0);
        group.add_received(1, 4);
        assert_eq!(group.room(), 4);
        assert_eq!(group.verify(), Verdict { expected: 20, received: 14, lost: 6, duplicate: 0 });
        group.add_received(1, 7);
        assert_eq!(group.verify(), Verdict { expected: 20, received: 21, lost: 0, duplicate: 1 });
    }

    #[test]
    fn a_shared_group_counts_the_sum() {
        let group = Group::new(3, Spread::Shared(2), 5);
        group.add_published(5);
        group.add_received(0, 3);
        group.add_received(2, 4);
        assert_eq!(group.room(), 3);
        assert_eq!(group.verify(), Verdict { expected: 10, received: 7, lost: 3, duplicate: 0 });
    }
}
