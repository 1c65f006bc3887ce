//! Time: what is to come again, and what is over.

use std::mem;

use roaring::RoaringTreemap;

use super::config::RedeliveryOrder;
use super::event::Event;
use super::state::Consumer;
use crate::log::Time;

impl Consumer {
    /// Carries out what is due. [`Consumer::next`] does so, too.
    pub fn expire(&mut self, now: Time) {
        if now >= self.ledger.earliest() {
            let mut due = Vec::new();
            self.ledger.queue_due(now.saturating_add(self.config.timer_slack_ns), &mut due);
            match self.config.redelivery_order {
                RedeliveryOrder::Sequence => {} // As the ledger is.
                RedeliveryOrder::Deadline => due.sort_unstable(),
            }
            for (_, seq) in due {
                self.enqueue(seq);
            }
        }
        self.paused_until = self.paused_until.filter(|until| now < *until);
        if !self.is_idle() {
            self.idle_since = Some(now);
            if let Some(requests) = &mut self.requests {
                requests.expire(now, &mut self.events);
            }
        } else if now >= self.inactive_at() {
            self.inactive_told = true;
            self.events.push(Event::Inactive);
        }
    }

    /// All unacknowledged messages come again, in order of their sequence numbers, before anything else.
    pub fn redeliver_all(&mut self) {
        self.queue.clear();
        let mut seqs = mem::take(&mut self.queue);
        self.ledger.queue_all(|seq| seqs.push_back(seq));
        self.queue = seqs;
    }

    /// Puts a message that was just marked as queued behind the others.
    pub(super) fn enqueue(&mut self, seq: u64) {
        self.queue.push_back(seq);
        if self.queue.len() > 2 * self.ledger.queued() + 64 {
            self.tidy_queue();
        }
    }

    /// Drops numbers that are not queued any longer, and second ones of those that are: half of all at least.
    fn tidy_queue(&mut self) {
        let mut seen = RoaringTreemap::new();
        let ledger = &self.ledger;
        let is_queued = |seq| ledger.find(seq).is_some_and(|place| ledger.get(place).is_queued());
        self.queue.retain(|seq| is_queued(*seq) && seen.insert(*seq));
    }
}
