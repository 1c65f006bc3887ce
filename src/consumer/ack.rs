//! Acknowledgements of all kinds, and the floor below which everything is acknowledged.

use super::config::AckPolicy;
use super::event::{Event, TerminatedBy};
use super::ledger::Entry;
use super::members::Presence;
use super::state::{Consumer, Pair};
use crate::log::Time;

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing, and it deserves no answer: nothing is to be acknowledged, or the message was not delivered.
    Ignored,
    /// Nothing any more: the message does not wait for it. A sender who asks is told that it is done.
    Known,
    /// What it says. It has taken effect for good when the next [`Consumer::take_delta`] is on disk: a sender who
    /// asks is told then.
    Done(Touched),
}

/// The message that an acknowledgement was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The number of its first delivery.
    pub consumer_seq: u64,
    /// How often it was delivered.
    pub deliveries: u32,
}

impl Consumer {
    /// A message was received; with [`AckPolicy::All`] all delivered before it, too. Who sends it does not matter.
    pub fn ack(&mut self, now: Time, seq: u64) -> Reply {
        if !self.was_delivered(seq) {
            return Reply::Ignored;
        }
        self.acknowledged_at = Some(now);
        match self.config.ack {
            AckPolicy::All => self.ack_all(seq),
            _ => self.ack_one(seq),
        }
    }

    /// A message is to come again, at once or after `delay_ns`.
    pub fn nak(&mut self, now: Time, seq: u64, delay_ns: i64) -> Reply {
        if !self.was_delivered(seq) {
            return Reply::Ignored;
        }
        let Some(place) = self.ledger.find(seq) else { return Reply::Known };
        let touched = touched(self.ledger.get(place));
        if delay_ns > 0 {
            self.ledger.wait(place, now.saturating_add(delay_ns));
        } else if self.ledger.queue(place) {
            self.enqueue(seq);
        }
        Reply::Done(touched)
    }

    /// Work on a message goes on: its wait begins anew.
    pub fn progress(&mut self, now: Time, seq: u64) -> Reply {
        if !self.was_delivered(seq) {
            return Reply::Ignored;
        }
        let Some(place) = self.ledger.find(seq) else { return Reply::Known };
        let touched = touched(self.ledger.get(place));
        let owner = self.ledger.get(place).owner;
        self.ledger.wait(place, now.saturating_add(self.wait_ns(owner, touched.deliveries)));
        Reply::Done(touched)
    }

    /// A message is not to come again although it was not dealt with. [`Event::Terminated`] tells.
    pub fn terminate(&mut self, now: Time, seq: u64) -> Reply {
        let place = self.ledger.find(seq);
        let terminated = place.map(|place| *self.ledger.get(place));
        let reply = self.ack(now, seq);
        if let (Reply::Done(_), Some(entry)) = (reply, terminated) {
            self.tell_terminated(&entry, TerminatedBy::Client);
        }
        reply
    }

    fn was_delivered(&self, seq: u64) -> bool {
        self.config.ack != AckPolicy::None && seq <= self.delivered.stream_seq
    }

    fn ack_one(&mut self, seq: u64) -> Reply {
        let Some(place) = self.ledger.find(seq) else {
            self.ack_given_up(seq);
            return Reply::Known;
        };
        let lowest = self.ledger.first().is_some_and(|first| first.seq == seq);
        let entry = self.ledger.remove(place);
        self.account_acknowledged(&entry);
        if lowest {
            self.raise_floor();
        }
        Reply::Done(touched(&entry))
    }

    fn ack_all(&mut self, seq: u64) -> Reply {
        let of_seq = self.ledger.find(seq).map(|place| touched(self.ledger.get(place)));
        if self.ledger.first().is_none_or(|first| first.seq > seq) {
            self.ack_given_up(seq);
            return Reply::Known;
        }
        let mut last = Touched { consumer_seq: 0, deliveries: 0 };
        let mut ledger = std::mem::take(&mut self.ledger);
        ledger.remove_range(0, seq, |entry| {
            self.account_acknowledged(&entry);
            last = touched(&entry);
        });
        self.ledger = ledger;
        self.raise_floor();
        match of_seq {
            Some(found) if !self.ledger.is_empty() => {
                self.lift_floor(Pair { consumer_seq: found.consumer_seq, stream_seq: seq });
            }
            _ => {}
        }
        Reply::Done(of_seq.unwrap_or(last))
    }

    /// A message that was given up is received after all.
    fn ack_given_up(&mut self, seq: u64) {
        if self.exhausted.remove(seq) {
            self.changes.acknowledged(seq);
            self.tell_acknowledged(seq);
        }
    }

    /// Accounts of an entry that has left the ledger for good.
    pub(super) fn account_acknowledged(&mut self, entry: &Entry) {
        self.account_removed(entry);
        self.changes.acknowledged(entry.seq);
        self.tell_acknowledged(entry.seq);
    }

    /// Accounts of an entry that has left the ledger.
    pub(super) fn account_removed(&mut self, entry: &Entry) {
        self.repeated -= u64::from(entry.deliveries > 1);
        self.give_back(entry.owner);
    }

    /// A member holds one message less.
    pub(super) fn give_back(&mut self, owner: u16) {
        let Some(member) = self.members.owner(owner) else { return };
        member.pending -= 1;
        if member.pending == 0
            && member.presence == Presence::Draining
            && let Some(id) = self.members.id(owner)
        {
            self.events.push(Event::Drained(id));
        }
    }

    /// The floor goes up to just below the lowest unacknowledged message, or to the last delivery.
    pub(super) fn raise_floor(&mut self) {
        let floor = match self.ledger.first() {
            Some(first) => Pair { consumer_seq: first.consumer_seq - 1, stream_seq: first.seq - 1 },
            None => self.delivered,
        };
        self.lift_floor(floor);
    }

    pub(super) fn lift_floor(&mut self, floor: Pair) {
        self.floor.consumer_seq = self.floor.consumer_seq.max(floor.consumer_seq);
        self.floor.stream_seq = self.floor.stream_seq.max(floor.stream_seq);
        self.changes.floor();
    }

    pub(super) fn tell_acknowledged(&mut self, seq: u64) {
        if let Some(Event::Acknowledged { last, .. }) = self.events.last_mut()
            && *last + 1 == seq
        {
            *last = seq;
        } else {
            self.events.push(Event::Acknowledged { first: seq, last: seq });
        }
    }

    pub(super) fn tell_terminated(&mut self, entry: &Entry, by: TerminatedBy) {
        let Entry { seq, consumer_seq, deliveries, .. } = *entry;
        self.events.push(Event::Terminated { seq, consumer_seq, deliveries, by });
    }
}

fn touched(entry: &Entry) -> Touched {
    Touched { consumer_seq: entry.consumer_seq, deliveries: entry.deliveries }
}
