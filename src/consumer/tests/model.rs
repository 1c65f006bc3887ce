//! What a consumer should know, with maps and without haste.

use std::collections::{BTreeMap, BTreeSet};

use crate::consumer::{AckPolicy, Config, Counts, MemberId, Pair, RestartDeadline};
use crate::log::Time;

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) consumer_seq: u64,
    pub(super) deliveries: u32,
    /// `None`: it is to come again as soon as somebody takes it.
    pub(super) deadline: Option<Time>,
    pub(super) owner: Option<MemberId>,
    /// The owner's name; zero if there is none.
    pub(super) key: u64,
    pub(super) assigned: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) config: Config,
    pub(super) pending: BTreeMap<u64, Held>,
    pub(super) exhausted: BTreeSet<u64>,
    pub(super) next_seq: u64,
    pub(super) delivered: Pair,
    pub(super) floor: Pair,
    /// Which life of the numbers of deliveries this is.
    pub(super) epoch: u32,
}

impl Model {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            pending: BTreeMap::new(),
            exhausted: BTreeSet::new(),
            next_seq: 1,
            delivered: Pair::default(),
            floor: Pair::default(),
            epoch: 0,
        }
    }

    pub(super) fn wait(&self, deliveries: u32) -> Time {
        let backoff = &self.config.backoff_ns;
        let index = (deliveries as usize - 1).min(backoff.len().max(1) - 1);
        if backoff.is_empty() { self.config.ack_wait_ns } else { backoff[index] }
    }

    pub(super) fn is_due(&self, held: &Held, now: Time) -> bool {
        held.deadline.is_none_or(|deadline| deadline <= now)
    }

    pub(super) fn is_full(&self) -> bool {
        self.config.max_ack_pending.is_some_and(|most| self.pending.len() >= most.get() as usize)
    }

    pub(super) fn owned(&self, id: MemberId) -> usize {
        self.pending.values().filter(|held| held.owner == Some(id)).count()
    }

    pub(super) fn sent_new(&mut self, now: Time, seq: u64, consumer_seq: u64, (owner, key): (Option<MemberId>, u64)) {
        self.next_seq = seq + 1;
        self.delivered = Pair { consumer_seq, stream_seq: seq };
        if self.config.ack == AckPolicy::None {
            self.floor = self.delivered;
        } else {
            let deadline = Some(now + self.wait(1));
            let held = Held { consumer_seq, deliveries: 1, deadline, owner, key, assigned: false };
            self.pending.insert(seq, held);
        }
    }

    pub(super) fn sent_again(&mut self, now: Time, seq: u64, consumer_seq: u64, (owner, key): (Option<MemberId>, u64)) {
        self.delivered.consumer_seq = consumer_seq;
        let deliveries = self.pending[&seq].deliveries + 1;
        let deadline = Some(now + self.wait(deliveries));
        let first = self.pending[&seq].consumer_seq;
        let held = Held { consumer_seq: first, deliveries, deadline, owner, key, assigned: false };
        self.pending.insert(seq, held);
    }

    pub(super) fn ack(&mut self, seq: u64) {
        if self.config.ack == AckPolicy::None || seq > self.delivered.stream_seq {
            return;
        }
        let first = if self.config.ack == AckPolicy::All { 0 } else { seq };
        let gone: Vec<_> = self.pending.range(first..=seq).map(|(seq, held)| (*seq, held.consumer_seq)).collect();
        if gone.is_empty() {
            self.exhausted.remove(&seq);
            return;
        }
        let lowest = self.pending.keys().next().copied();
        self.pending.retain(|other, _| *other < first || *other > seq);
        if gone.iter().any(|(seq, _)| Some(*seq) == lowest) {
            self.raise_floor();
        }
        if let (AckPolicy::All, false, Some((last, number))) = (self.config.ack, self.pending.is_empty(), gone.last())
            && *last == seq
        {
            self.floor = Pair {
                consumer_seq: *number.max(&self.floor.consumer_seq),
                stream_seq: self.floor.stream_seq.max(seq),
            };
        }
    }

    pub(super) fn raise_floor(&mut self) {
        let floor = match self.pending.iter().next() {
            Some((seq, held)) => Pair { consumer_seq: held.consumer_seq - 1, stream_seq: seq - 1 },
            None => self.delivered,
        };
        self.floor.consumer_seq = self.floor.consumer_seq.max(floor.consumer_seq);
        self.floor.stream_seq = self.floor.stream_seq.max(floor.stream_seq);
    }

    pub(super) fn removed(&mut self, seq: u64) {
        self.exhausted.remove(&seq);
        let lowest = self.pending.keys().next() == Some(&seq);
        if self.pending.remove(&seq).is_some() && lowest {
            self.raise_floor();
        }
    }

    pub(super) fn removed_below(&mut self, first: u64) {
        let kept = self.pending.split_off(&first);
        let gone = std::mem::replace(&mut self.pending, kept);
        self.exhausted = self.exhausted.split_off(&first);
        self.next_seq = self.next_seq.max(first);
        self.delivered.stream_seq = self.delivered.stream_seq.max(first - 1);
        if self.floor.stream_seq < first - 1 || !gone.is_empty() {
            let highest = gone.values().map(|held| held.consumer_seq).max().unwrap_or(0);
            self.floor = Pair {
                consumer_seq: self.floor.consumer_seq.max(highest),
                stream_seq: self.floor.stream_seq.max(first - 1),
            };
            if self.pending.is_empty() {
                self.floor = self.delivered;
            }
        }
    }

    pub(super) fn reset(&mut self, seq: u64, epoch: u32) {
        self.pending.clear();
        self.exhausted.clear();
        self.next_seq = seq;
        self.delivered = Pair { consumer_seq: 0, stream_seq: seq - 1 };
        self.floor = self.delivered;
        self.epoch = epoch;
    }

    pub(super) fn restarted(&mut self, now: Time, stored: impl Fn(u64) -> Option<Time>) {
        let model = self.clone();
        for (seq, held) in &mut self.pending {
            if model.config.counts == Counts::Forgotten {
                held.deliveries = 1;
            }
            let wait = model.wait(held.deliveries);
            held.deadline = match model.config.restart_deadline {
                RestartDeadline::FromNow => Some(now + wait),
                RestartDeadline::FromStored => stored(*seq).map(|time| time + wait),
            };
            (held.owner, held.assigned) = (None, false);
        }
    }
}
