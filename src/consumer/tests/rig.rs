//! A driver of one consumer over a naive stream: what the store does, with a map.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::consumer::{Config, Consumer, Delivery, Event, Found, MemberId, Origin, PullRequest, Step, Target, Want};
use crate::log::Time;

pub(super) const MS: Time = 1_000_000;
pub(super) const SECOND: Time = 1_000 * MS;

/// A message of the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) time: Time,
    pub(super) bytes: u32,
    pub(super) matches: bool,
}

/// A message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) seq: u64,
    pub(super) to: Target,
    pub(super) how: Delivery,
}

pub(super) struct Rig {
    pub(super) consumer: Consumer,
    pub(super) now: Time,
    pub(super) messages: BTreeMap<u64, Stored>,
    pub(super) last: u64,
    /// Deltas that were flushed because the consumer was in a hurry.
    pub(super) written: Vec<Vec<u8>>,
}

impl Rig {
    /// A consumer from sequence number 1 over an empty stream.
    pub(super) fn new(config: Config) -> Self {
        Self::with(config, Origin::at(1), 0)
    }

    /// A consumer from `origin` over a stream of `stored` messages of 100 bytes, stored 1 s apart up to 1,000 s.
    pub(super) fn with(config: Config, origin: Origin, stored: u64) -> Self {
        let now = 1000 * SECOND;
        let count = origin.each.len() as u64 + (stored + 1).saturating_sub(origin.from);
        let mut consumer = Consumer::new(now, config, origin).unwrap();
        let mark = consumer.first_record(&mut Vec::new());
        consumer.flushed(mark);
        let mut rig = Self { consumer, now, messages: BTreeMap::new(), last: 0, written: Vec::new() };
        for seq in 1..=stored {
            let time = now - (stored - seq) as Time * SECOND;
            rig.messages.insert(seq, Stored { time, bytes: 100, matches: true });
        }
        rig.last = stored;
        rig.consumer.set_num_pending(count);
        rig
    }

    pub(super) fn store(&mut self, count: u64) {
        for _ in 0..count {
            self.store_one(100, true);
        }
    }

    pub(super) fn store_one(&mut self, bytes: u32, matches: bool) {
        self.last += 1;
        self.messages.insert(self.last, Stored { time: self.now, bytes, matches });
        if matches {
            self.consumer.stored(1);
        }
    }

    pub(super) fn remove(&mut self, seq: u64) {
        let Some(stored) = self.messages.remove(&seq) else { return };
        if stored.matches && seq >= self.consumer.next_seq() {
            self.consumer.unstored(1);
        }
        self.consumer.removed(seq, seq);
    }

    pub(super) fn remove_below(&mut self, first: u64) {
        let kept = self.messages.split_off(&first);
        let gone = std::mem::replace(&mut self.messages, kept);
        let undelivered =
            gone.range(self.consumer.next_seq().min(first)..).filter(|(_, stored)| stored.matches).count();
        self.consumer.unstored(undelivered as u64);
        self.consumer.removed_below(first);
    }

    /// Writes and flushes what is to be recorded.
    pub(super) fn flush(&mut self) {
        if self.consumer.changed().is_some() {
            let mut delta = Vec::new();
            let mark = self.consumer.take_delta(&mut delta);
            self.consumer.flushed(mark);
            self.written.push(delta);
        }
    }

    /// One delivery, if there is one.
    pub(super) fn step(&mut self) -> Option<Sent> {
        loop {
            let (to, seq) = match self.consumer.next(self.now) {
                Want::Again { seq, to } => (to, Some(seq).filter(|seq| self.messages.contains_key(seq))),
                Want::This { seq, to } => (to, Some(seq).filter(|seq| self.messages.contains_key(seq))),
                Want::New { from, to } => {
                    let found = self.messages.range(from..).find(|(_, stored)| stored.matches);
                    (to, found.map(|(seq, _)| *seq))
                }
                Want::Nothing => return None,
            };
            let seq = seq.expect("the stream tells of what it removes and counts what it has");
            let Stored { time, bytes, .. } = self.messages[&seq];
            if let Step::Send(how) = self.consumer.deliver(self.now, to, &Found { seq, time, bytes }) {
                return Some(Sent { seq, to, how });
            }
        }
    }

    /// All deliveries there are now.
    pub(super) fn pump(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        loop {
            match self.step() {
                Some(sent) => all.push(sent),
                None if self.consumer.changed() == Some(crate::log::Urgency::Now) => self.flush(),
                None => return all,
            }
        }
    }

    /// The sequence numbers of all deliveries there are now.
    pub(super) fn seqs(&mut self) -> Vec<u64> {
        self.pump().iter().map(|sent| sent.seq).collect()
    }

    /// Time passes, stopping at each deadline; what is delivered meanwhile, with the time since the beginning.
    pub(super) fn pass(&mut self, duration: Time) -> Vec<(Time, u64)> {
        let (start, end) = (self.now, self.now + duration);
        let mut all = Vec::new();
        for _ in 0..100_000 {
            let started = self.now - start;
            all.extend(self.seqs().into_iter().map(|seq| (started, seq)));
            match self.consumer.next_deadline() {
                Some(deadline) if deadline <= end => {
                    assert!(deadline > self.now, "{deadline} has been carried out");
                    self.now = deadline;
                }
                _ => {
                    self.now = end;
                    return all;
                }
            }
        }
        panic!("deadlines come too often");
    }

    pub(super) fn join(&mut self, credit: u32) -> MemberId {
        self.consumer.join(self.now, credit).unwrap()
    }

    pub(super) fn ask(&mut self, batch: u32) -> PullRequest {
        PullRequest::of(NonZeroU32::new(batch).unwrap())
    }

    pub(super) fn pull(&mut self, batch: u32) -> crate::consumer::RequestId {
        let ask = self.ask(batch);
        self.consumer.request(self.now, ask).unwrap()
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        self.consumer.drain_events().collect()
    }
}
