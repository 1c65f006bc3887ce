//! The state of a consumer, its creation and what can be read of it.

use std::collections::VecDeque;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::changes::Changes;
use super::config::{AckPolicy, Config, Invalid, Pace};
use super::event::Event;
use super::ledger::{Ledger, NEVER};
use super::members::Members;
use super::pace::{Bucket, Replay};
use super::persist::{Mark, RESERVED_BLOCK};
use super::requests::Requests;
use crate::log::Time;

/// A place in the consumer's deliveries and the place in the stream that belongs to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Number of a delivery, counted from one; every attempt counts.
    pub consumer_seq: u64,
    /// Sequence number in the stream.
    pub stream_seq: u64,
}

/// Where a consumer begins: see [`super::Start`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Sequence numbers of single messages that come first, ascending and below `from`.
    pub each: Vec<u64>,
    /// From here on all matching messages come.
    pub from: u64,
}

impl Origin {
    /// Begins at that sequence number.
    #[must_use]
    pub fn at(from: u64) -> Self {
        Self { each: Vec::new(), from }
    }
}

/// What can be read of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The last delivery, and the highest sequence number delivered.
    pub delivered: Pair,
    /// When that was; `None` before the first since the consumer was opened.
    pub delivered_at: Option<Time>,
    /// Everything up to here is acknowledged.
    pub ack_floor: Pair,
    /// When the last acknowledgement came; `None` before the first since the consumer was opened.
    pub acknowledged_at: Option<Time>,
    /// Messages that wait for acknowledgement.
    pub num_ack_pending: u64,
    /// Messages delivered more than once and not acknowledged.
    pub num_redelivered: u64,
    /// Matching messages not delivered yet.
    pub num_pending: u64,
    /// Pull requests that wait.
    pub num_waiting: u64,
    /// Members.
    pub num_members: u64,
}

/// One delivery cursor over a stream. See the module's documentation for how it is driven.
#[derive(Debug)]
pub struct Consumer {
    pub(super) config: Arc<Config>,
    /// Everything below is delivered, except what is in `each`.
    pub(super) next_seq: u64,
    /// Single messages that come first.
    pub(super) each: VecDeque<u64>,
    pub(super) delivered: Pair,
    pub(super) floor: Pair,
    /// The number of the next delivery.
    pub(super) next_consumer_seq: u64,
    /// Numbers up to this one are reserved, or will be with the next delta.
    pub(super) reserved: u64,
    /// Numbers up to this one may be used.
    pub(super) reserved_durable: u64,
    pub(super) num_pending: u64,
    pub(super) ledger: Ledger,
    /// What comes again, in order. Contains numbers that are not queued any longer; they are passed over.
    pub(super) queue: VecDeque<u64>,
    /// Messages that were given up.
    pub(super) exhausted: RoaringTreemap,
    /// Messages in the ledger that were delivered more than once.
    pub(super) repeated: u64,
    pub(super) members: Members,
    /// `None` as long as there has never been one.
    pub(super) requests: Option<Box<Requests>>,
    pub(super) bucket: Option<Box<Bucket>>,
    /// Present while old messages come at their original pace.
    pub(super) pacing: Option<Box<Replay>>,
    /// Nothing is delivered before.
    pub(super) paused_until: Option<Time>,
    pub(super) events: Vec<Event>,
    pub(super) changes: Changes,
    pub(super) delivered_at: Option<Time>,
    pub(super) acknowledged_at: Option<Time>,
    /// Since when there has been nobody.
    pub(super) idle_since: Option<Time>,
    pub(super) inactive_told: bool,
}

impl Consumer {
    /// A consumer that has delivered nothing.
    ///
    /// The caller then tells how many messages there are for it with [`Consumer::set_num_pending`], and appends
    /// [`Consumer::first_record`] to the log unless it lives in memory. Nothing is delivered before that is on disk.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn new(now: Time, config: Config, origin: Origin) -> Result<Self, Invalid> {
        config.validate()?;
        let mut consumer = Self::blank(config);
        let first = origin.each.first().copied().unwrap_or(origin.from).min(origin.from);
        consumer.delivered.stream_seq = first.saturating_sub(1);
        consumer.floor = consumer.delivered;
        consumer.next_seq = origin.from.max(1);
        consumer.each = origin.each.into();
        consumer.reserved = RESERVED_BLOCK;
        consumer.start(now);
        Ok(consumer)
    }

    pub(super) fn blank(config: Config) -> Self {
        Self {
            next_seq: 1,
            each: VecDeque::new(),
            delivered: Pair::default(),
            floor: Pair::default(),
            next_consumer_seq: 1,
            reserved: 0,
            reserved_durable: 0,
            num_pending: 0,
            ledger: Ledger::default(),
            queue: VecDeque::new(),
            exhausted: RoaringTreemap::new(),
            repeated: 0,
            members: Members::default(),
            requests: None,
            bucket: None,
            pacing: None,
            paused_until: config.pause_until,
            events: Vec::new(),
            changes: Changes::default(),
            delivered_at: None,
            acknowledged_at: None,
            idle_since: None,
            inactive_told: false,
            config: config.shared(),
        }
    }

    /// What begins with a consumer's life in memory.
    pub(super) fn start(&mut self, now: Time) {
        if self.config.memory {
            (self.reserved, self.reserved_durable) = (u64::MAX, u64::MAX);
        }
        self.changes.recording = !self.config.memory;
        self.bucket = self.config.rate.map(|rate| Box::new(Bucket::new(rate, now)));
        self.pacing = (self.config.pace == Pace::Original).then(Box::default);
        self.idle_since = Some(now);
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its state in numbers.
    #[must_use]
    pub fn info(&self) -> Info {
        let given_up = if self.config.used_up(1) { 0 } else { self.exhausted.len() };
        Info {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            ack_floor: self.floor,
            acknowledged_at: self.acknowledged_at,
            num_ack_pending: self.ledger.len() as u64,
            num_redelivered: self.repeated + given_up,
            num_pending: self.num_pending,
            num_waiting: self.requests.as_ref().map_or(0, |requests| requests.len() as u64),
            num_members: self.members.len() as u64,
        }
    }

    /// The first sequence number from which a new message may be delivered: for counting what is pending.
    /// Messages of the origin's list that have not been delivered yet lie before it.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Single messages below [`Consumer::next_seq`] that are still to be delivered.
    #[must_use]
    pub fn each_left(&self) -> usize {
        self.each.len()
    }

    /// Whether it needs a message no longer, or never did: delivered or passed over, and neither unacknowledged nor
    /// given up. For streams that keep messages only as long as somebody wants them.
    #[must_use]
    pub fn is_done_with(&self, seq: u64) -> bool {
        seq < self.next_seq
            && self.each.binary_search(&seq).is_err()
            && self.ledger.find(seq).is_none()
            && !self.exhausted.contains(seq)
    }

    /// Whether a message waits for its acknowledgement.
    #[must_use]
    pub fn is_ack_pending(&self, seq: u64) -> bool {
        self.ledger.find(seq).is_some()
    }

    /// The messages that wait for their acknowledgement: sequence number, how often delivered, who holds it.
    pub fn ack_pending(&self) -> impl Iterator<Item = (u64, u32, Option<super::MemberId>)> {
        self.ledger.iter().map(|entry| (entry.seq, entry.deliveries, self.members.id(entry.owner)))
    }

    /// What has happened since the last call.
    pub fn drain_events(&mut self) -> impl Iterator<Item = Event> {
        self.events.drain(..)
    }

    /// What a mark stands for is on disk: numbers reserved in it may be used. Returns whether deliveries have waited
    /// for it.
    pub fn flushed(&mut self, mark: Mark) -> bool {
        let waited = self.next_consumer_seq > self.reserved_durable;
        if mark.epoch == self.changes.epoch {
            self.reserved_durable = self.reserved_durable.max(mark.reserved);
        }
        waited && self.next_consumer_seq <= self.reserved_durable
    }

    /// `count` more matching messages can be read, all behind those that could be before.
    pub fn stored(&mut self, count: u64) {
        self.num_pending += count;
    }

    /// `count` matching messages that were not delivered yet are gone.
    pub fn unstored(&mut self, count: u64) {
        self.num_pending = self.num_pending.saturating_sub(count);
    }

    /// Counted anew: matching messages that were not delivered yet.
    pub fn set_num_pending(&mut self, count: u64) {
        self.num_pending = count;
    }

    /// Bytes on the heap, roughly; the consumer itself not counted.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let text: usize = self.config.filters.iter().map(String::capacity).sum();
        self.ledger.heap_bytes()
            + self.members.heap_bytes()
            + self.requests.as_ref().map_or(0, |requests| size_of::<Requests>() + requests.heap_bytes())
            + self.changes.heap_bytes()
            + (self.queue.capacity() + self.each.capacity() + self.config.backoff_ns.capacity()) * size_of::<u64>()
            + self.events.capacity() * size_of::<Event>()
            + self.exhausted.serialized_size()
            + self.config.filters.capacity() * size_of::<String>()
            + text
    }

    /// When [`Consumer::next`] is to be called again, if nothing happens before. `None`: not at all.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let expires = self.requests.as_ref().map_or(NEVER, |requests| requests.earliest());
        let mut deadline = expires.min(self.inactive_at());
        if !self.is_idle() {
            let mut work = self.ledger.earliest();
            let new_waits = self.num_pending > 0 && !self.is_full();
            if new_waits && let Some(due) = self.pacing.as_ref().and_then(|pacing| pacing.ready_at()) {
                work = work.min(due);
            }
            if new_waits || self.ledger.queued() > 0 {
                let refilled = self.bucket.as_ref().and_then(|bucket| bucket.ready_at());
                work = work.min(refilled.unwrap_or(NEVER)).min(self.paused_until.unwrap_or(NEVER));
            }
            if work != NEVER {
                work = work.max(self.paused_until.unwrap_or(Time::MIN));
            }
            deadline = deadline.min(work);
        }
        (deadline != NEVER).then_some(deadline)
    }

    /// Whether there is nobody to deliver to.
    pub(super) fn is_idle(&self) -> bool {
        self.members.is_empty() && self.requests.as_ref().is_none_or(|requests| requests.is_empty())
    }

    /// Whether so many messages wait for acknowledgement that no new ones are delivered.
    pub(super) fn is_full(&self) -> bool {
        self.config.ack != AckPolicy::None
            && self.config.max_ack_pending.is_some_and(|most| self.ledger.len() >= most.get() as usize)
    }

    pub(super) fn inactive_at(&self) -> Time {
        match (self.config.inactive_threshold_ns, self.idle_since) {
            (Some(threshold), Some(since)) if !self.inactive_told && self.is_idle() => {
                let last_wait = match self.delivered_at {
                    Some(at) if !self.ledger.is_empty() => at.saturating_add(self.config.ack_wait_ns),
                    _ => Time::MIN,
                };
                since.saturating_add(threshold).max(last_wait)
            }
            _ => NEVER,
        }
    }
}
