//! The stream loses messages, or the consumer is set to another place.

use std::mem;

use super::event::TerminatedBy;
use super::persist::RESERVED_BLOCK;
use super::state::{Consumer, Pair};

impl Consumer {
    /// Messages `first..=last` are gone from the stream: those that wait for acknowledgement are terminated.
    ///
    /// How many of those from [`Consumer::next_seq`] on match is told with [`Consumer::unstored`].
    pub fn removed(&mut self, first: u64, last: u64) {
        self.forget_each(first, last);
        if self.exhausted.remove_range(first..=last) > 0 {
            self.changes.acknowledged_range(first, last.min(self.delivered.stream_seq));
        }
        if self.ledger.is_empty() {
            return;
        }
        let lowest = self.ledger.first().map(|entry| entry.seq);
        let mut ledger = mem::take(&mut self.ledger);
        ledger.remove_range(first, last, |entry| {
            self.account_acknowledged(&entry);
            self.tell_terminated(&entry, TerminatedBy::Removal);
        });
        self.ledger = ledger;
        if lowest != self.ledger.first().map(|entry| entry.seq) {
            self.raise_floor();
        }
    }

    /// The stream begins at `first` now. Nothing is told of single messages.
    ///
    /// Not recorded for a consumer with nothing outstanding: it is said again when the store is opened. Those from
    /// [`Consumer::next_seq`] on that match are told with [`Consumer::unstored`].
    pub fn removed_below(&mut self, first: u64) {
        let Some(last) = first.checked_sub(1) else { return };
        self.forget_each(0, last);
        self.next_seq = self.next_seq.max(first);
        self.delivered.stream_seq = self.delivered.stream_seq.max(last);
        if !self.exhausted.is_empty() {
            self.exhausted.remove_range(..=last);
        }
        if self.floor.stream_seq >= last && self.ledger.first().is_none_or(|entry| entry.seq > last) {
            return;
        }
        let before = self.floor.consumer_seq;
        let mut ledger = mem::take(&mut self.ledger);
        ledger.remove_range(0, last, |entry| {
            self.account_removed(&entry);
            self.changes.acknowledged(entry.seq);
            self.floor.consumer_seq = self.floor.consumer_seq.max(entry.consumer_seq);
        });
        self.ledger = ledger;
        self.floor.stream_seq = self.floor.stream_seq.max(last);
        if self.ledger.is_empty() {
            self.floor = self.delivered;
        }
        if self.floor.consumer_seq != before || self.floor != self.delivered {
            self.changes.floor();
        } else {
            self.changes.floor_along();
        }
    }

    /// The stream ends at `last` although more was delivered: it has lost messages. New ones with those numbers are
    /// delivered.
    pub fn cut(&mut self, last: u64) {
        if self.next_seq <= last.saturating_add(1) {
            return;
        }
        self.changes.cut(last);
        self.forget_each(last + 1, u64::MAX);
        self.next_seq = last + 1;
        self.exhausted.remove_range(last + 1..);
        let mut ledger = mem::take(&mut self.ledger);
        ledger.remove_range(last + 1, u64::MAX, |entry| self.account_removed(&entry));
        ledger.pack();
        self.ledger = ledger;
        self.delivered.stream_seq = self.delivered.stream_seq.min(last);
        self.floor.stream_seq = self.floor.stream_seq.min(last);
    }

    /// Begins again at `seq`, as if nothing had been delivered. Members and pull requests stay.
    ///
    /// The caller counts what is pending now: [`Consumer::set_num_pending`].
    pub fn reset(&mut self, seq: u64) {
        let seq = seq.max(1);
        for id in self.members.ids().collect::<Vec<_>>() {
            if let Some(member) = self.members.get_mut(id) {
                member.pending = 0;
            }
        }
        self.ledger.clear();
        self.queue.clear();
        self.each.clear();
        self.exhausted.clear();
        self.repeated = 0;
        self.next_seq = seq;
        self.next_consumer_seq = 1;
        self.delivered = Pair { consumer_seq: 0, stream_seq: seq - 1 };
        self.floor = self.delivered;
        self.changes.reset(seq);
        if self.changes.recording {
            (self.reserved, self.reserved_durable) = (RESERVED_BLOCK, 0);
            self.changes.reserve();
        }
    }

    fn forget_each(&mut self, first: u64, last: u64) {
        if !self.each.is_empty() {
            let gone = self.each.partition_point(|seq| *seq < first)..self.each.partition_point(|seq| *seq <= last);
            self.num_pending = self.num_pending.saturating_sub(gone.len() as u64);
            self.each.drain(gone);
        }
    }
}
