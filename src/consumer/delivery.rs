//! What is to be delivered next, to whom, and the accounts of what was.

use super::config::{AckPolicy, Sharing};
use super::event::Event;
use super::ledger::{Entry, NOBODY};
use super::members::MemberId;
use super::persist::RESERVED_BLOCK;
use super::requests::RequestId;
use super::state::Consumer;
use crate::log::Time;

/// Who gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A member.
    Member(MemberId),
    /// A pull request.
    Request(RequestId),
}

/// What the consumer would deliver now. Asking delivers nothing: it can be asked again after a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// This message once more. If the stream does not hold it any longer: [`Consumer::removed`].
    Again {
        /// Its sequence number.
        seq: u64,
        /// Who gets it.
        to: Target,
    },
    /// This message, without regard to filters. If the stream does not hold it any longer: [`Consumer::passed`].
    This {
        /// Its sequence number.
        seq: u64,
        /// Who gets it.
        to: Target,
    },
    /// The first matching message whose sequence number is not below `from`. If there is none: [`Consumer::dry`].
    New {
        /// The lowest sequence number of interest.
        from: u64,
        /// Who gets it.
        to: Target,
    },
    /// Nothing before something happens or [`Consumer::next_deadline`] comes.
    Nothing,
}

/// A message that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its sequence number.
    pub seq: u64,
    /// When it was stored.
    pub time: Time,
    /// Its size as limits of bytes count it.
    pub bytes: u32,
}

/// What to do with a message that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send it.
    Send(Delivery),
    /// Do not: it is not due yet, or the next message is another one, or goes to somebody else. Ask again.
    Again,
}

/// How a message is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The number of this delivery.
    pub consumer_seq: u64,
    /// How often the message has been delivered, this time included.
    pub deliveries: u32,
    /// Matching messages that are not delivered yet.
    pub num_pending: u64,
}

impl Delivery {
    /// Whether it may have been received before.
    #[must_use]
    pub fn is_redelivery(&self) -> bool {
        self.deliveries > 1
    }
}

impl Consumer {
    /// What to deliver now.
    pub fn next(&mut self, now: Time) -> Want {
        self.expire(now);
        if self.paused_until.is_some() || self.bucket.as_mut().is_some_and(|bucket| !bucket.allows(now)) {
            return Want::Nothing;
        }
        while let Some(&seq) = self.queue.front() {
            let Some(place) = self.ledger.find(seq).filter(|place| self.ledger.get(*place).is_queued()) else {
                self.queue.pop_front();
                continue;
            };
            let Some(to) = self.taker_again(place) else { break };
            if self.config.used_up(self.ledger.get(place).deliveries) {
                self.give_up(place);
                continue;
            }
            return if self.may_number() { Want::Again { seq, to } } else { Want::Nothing };
        }
        if self.num_pending == 0 {
            self.pacing = None;
            if let Some(requests) = self.requests.as_mut().filter(|_| self.ledger.queued() == 0) {
                requests.dry(&mut self.events);
            }
            return Want::Nothing;
        }
        if self.is_full() || self.pacing.as_mut().is_some_and(|pacing| !pacing.allows(now)) {
            return Want::Nothing;
        }
        let Some(to) = self.taker_new() else { return Want::Nothing };
        if !self.may_number() {
            return Want::Nothing;
        }
        match self.each.front() {
            Some(&seq) => Want::This { seq, to },
            None => Want::New { from: self.next_seq, to },
        }
    }

    /// The message that [`Consumer::next`] has just wanted was found. If the answer is [`Step::Send`], it counts as
    /// delivered.
    ///
    /// After a read, `next` is asked again first: what it wants may be another message by then.
    pub fn deliver(&mut self, now: Time, to: Target, found: &Found) -> Step {
        let queued = self.ledger.find(found.seq).filter(|place| self.ledger.get(*place).is_queued());
        let is_new = match self.each.front() {
            Some(&seq) => found.seq == seq,
            None => found.seq >= self.next_seq,
        };
        if (queued.is_none() && (!is_new || self.num_pending == 0 || self.is_full())) || !self.may_number() {
            return Step::Again;
        }
        if queued.is_none()
            && let Some(pacing) = &mut self.pacing
            && now < pacing.due(found.time)
        {
            return Step::Again;
        }
        let owner = match to {
            Target::Member(id) => {
                if self.members.get(id).is_none() {
                    return Step::Again;
                }
                self.members.took_turn(id);
                id.index
            }
            Target::Request(id) => {
                let requests = self.requests.as_mut();
                if !requests.is_some_and(|requests| requests.take(id, u64::from(found.bytes), &mut self.events)) {
                    return Step::Again;
                }
                NOBODY
            }
        };
        if let Some(bucket) = &mut self.bucket {
            bucket.take(found.bytes);
        }
        self.delivered_at = Some(now);
        let consumer_seq = self.next_consumer_seq;
        self.next_consumer_seq += 1;
        self.delivered.consumer_seq = consumer_seq;
        self.changes.moved();
        let deliveries = match queued {
            Some(place) => self.deliver_again(now, place, owner),
            None => self.deliver_new(now, found, owner),
        };
        Step::Send(Delivery { consumer_seq, deliveries, num_pending: self.num_pending })
    }

    /// There is no matching message that could be delivered, whatever was counted. `next` is asked again.
    pub fn dry(&mut self) {
        self.num_pending = 0;
    }

    /// No message up to and including `seq` is left to be delivered for the first time: a search goes on behind it.
    /// Recorded with the next delta or snapshot; without, the search is made again after a crash.
    pub fn passed(&mut self, seq: u64) {
        while self.each.front().is_some_and(|first| *first <= seq) {
            self.each.pop_front();
            self.num_pending = self.num_pending.saturating_sub(1);
        }
        if self.each.is_empty() && seq >= self.next_seq {
            self.next_seq = seq + 1;
            self.changes.moved_along();
        }
    }

    fn deliver_again(&mut self, now: Time, place: usize, owner: u16) -> u32 {
        let entry = self.ledger.get_mut(place);
        entry.deliveries = entry.deliveries.saturating_add(1);
        entry.assigned = false;
        let (seq, deliveries, before) = (entry.seq, entry.deliveries, entry.owner);
        entry.owner = owner;
        let deadline = now.saturating_add(self.wait_ns(owner, deliveries));
        self.ledger.wait(place, deadline);
        self.repeated += u64::from(deliveries == 2);
        if self.queue.front() == Some(&seq) {
            self.queue.pop_front();
        }
        if before != owner {
            self.give_back(before);
            self.hold(owner);
            self.note_owner(seq, before, owner);
        }
        if self.config.counts == super::Counts::Kept {
            self.changes.again(seq, deliveries);
        }
        deliveries
    }

    fn deliver_new(&mut self, now: Time, found: &Found, owner: u16) -> u32 {
        if self.each.pop_front().is_none() {
            self.next_seq = found.seq + 1;
        }
        self.num_pending -= 1;
        self.delivered.stream_seq = self.delivered.stream_seq.max(found.seq);
        if let Some(pacing) = &mut self.pacing {
            pacing.sent(found.time, now);
        }
        if self.config.ack == AckPolicy::None {
            self.floor = self.delivered;
            self.changes.floor();
            self.tell_acknowledged(found.seq);
        } else {
            let deadline = now.saturating_add(self.wait_ns(owner, 1));
            self.ledger.push(Entry::new(found.seq, self.delivered.consumer_seq, deadline, 1, owner));
            self.hold(owner);
            self.changes.delivered(found.seq, self.delivered.consumer_seq);
            self.note_owner(found.seq, NOBODY, owner);
        }
        1
    }

    /// Whether it is recorded what that member holds: in groups, as far as members have names.
    pub(super) fn records_owner(&self, owner: u16) -> bool {
        self.config.sharing == Sharing::Group && self.members.is_named(owner)
    }

    fn note_owner(&mut self, seq: u64, before: u16, owner: u16) {
        if self.records_owner(owner) {
            self.changes.owned(seq, owner);
        } else if self.records_owner(before) {
            self.changes.owned(seq, NOBODY);
        }
    }

    /// How long the acknowledgement of that member may take after so many deliveries.
    pub(super) fn wait_ns(&self, owner: u16, deliveries: u32) -> i64 {
        self.members.ack_wait_ns(owner).unwrap_or_else(|| self.config.wait_ns(deliveries))
    }

    /// Whether the next delivery has a number. Asks for more in time.
    fn may_number(&mut self) -> bool {
        if self.next_consumer_seq + RESERVED_BLOCK / 2 > self.reserved && self.changes.recording {
            self.reserved = self.next_consumer_seq + RESERVED_BLOCK;
            self.changes.reserve();
        }
        self.next_consumer_seq <= self.reserved_durable
    }

    fn taker_new(&self) -> Option<Target> {
        if self.members.is_empty() {
            return self.taker_request();
        }
        self.members.for_new(self.config.choice).map(Target::Member)
    }

    fn taker_again(&self, place: usize) -> Option<Target> {
        if self.members.is_empty() {
            return self.taker_request();
        }
        let entry = self.ledger.get(place);
        let id = self.members.for_again(entry.owner, entry.assigned, &self.config)?;
        Some(Target::Member(id))
    }

    fn taker_request(&self) -> Option<Target> {
        self.requests.as_ref()?.choose(self.num_pending, self.ledger.len() as u64).map(Target::Request)
    }

    fn give_up(&mut self, place: usize) {
        let entry = self.ledger.remove(place);
        self.queue.pop_front();
        self.account_removed(&entry);
        self.exhausted.insert(entry.seq);
        self.changes.exhausted(entry.seq);
        let Entry { seq, consumer_seq, deliveries, .. } = entry;
        self.events.push(Event::MaxDeliveries { seq, consumer_seq, deliveries });
    }

    pub(super) fn hold(&mut self, owner: u16) {
        if let Some(member) = self.members.owner(owner) {
            member.pending += 1;
        }
    }
}

impl Consumer {
    /// A single message that is still to be delivered is not there any more.
    pub fn passed_each(&mut self, seq: u64) {
        if self.each.front() == Some(&seq) {
            self.each.pop_front();
            self.num_pending = self.num_pending.saturating_sub(1);
        }
    }
}
