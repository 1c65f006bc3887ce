//! Random operations with crashes, checked against the model at each step.
//!
//! Promises: what is stored comes once at least unless it is acknowledged, terminated, removed or used up; first
//! deliveries come in order; credit and limits hold; the choice is fair; numbers never go back; floors and counters are
//! the model's; after a crash the state is the one of the last record that survived.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use proptest::prelude::*;

use super::model::Model;
use super::rig::{MS, Rig, Sent};
use crate::consumer::{
    AckPolicy, Choice, Config, Consumer, Counts, Ended, Event, Left, Mark, MemberId, OnReturn, Presence, PullRequest,
    RedeliveryOrder, RequestId, RestartDeadline, Sharing, Target, Terms,
};
use crate::log::{Time, Urgency};

#[derive(Clone, Debug)]
enum Op {
    Store { count: u8, matches: bool },
    Ack(u16),
    Nak(u16, i64),
    Progress(u16),
    Terminate(u16),
    AckAny(u64),
    Remove(u16),
    RemoveBelow(u16),
    Pass(i64),
    Join(u32),
    Leave(u8),
    Presence(u8, Presence),
    Credit(u8, u32),
    Request { batch: u32, expires: Option<i64>, no_wait: bool, bytes: Option<u64> },
    Cancel(u8),
    Record,
    Flush,
    Snapshot,
    Crash { survivors: u16, rejoin: bool },
    Stop,
    Reset(u16),
    MaxAckPending(Option<u32>),
}

fn op() -> impl Strategy<Value = Op> {
    let delay = prop_oneof![Just(0i64), 1..50 * MS];
    let presence = prop_oneof![
        3 => Just(Presence::Ready),
        1 => Just(Presence::Suspended),
        1 => Just(Presence::Held),
        1 => Just(Presence::Draining),
    ];
    let request = (1u32..8, proptest::option::of(1..200 * MS), any::<bool>(), proptest::option::of(1u64..1000));
    prop_oneof![
        12 => (1u8..8, any::<bool>()).prop_map(|(count, matches)| Op::Store { count, matches }),
        12 => any::<u16>().prop_map(Op::Ack),
        4 => (any::<u16>(), delay).prop_map(|(which, delay)| Op::Nak(which, delay)),
        2 => any::<u16>().prop_map(Op::Progress),
        2 => any::<u16>().prop_map(Op::Terminate),
        2 => (0u64..200).prop_map(Op::AckAny),
        3 => any::<u16>().prop_map(Op::Remove),
        1 => any::<u16>().prop_map(Op::RemoveBelow),
        8 => (0..120 * MS).prop_map(Op::Pass),
        4 => (1u32..6).prop_map(Op::Join),
        2 => any::<u8>().prop_map(Op::Leave),
        3 => (any::<u8>(), presence).prop_map(|(who, presence)| Op::Presence(who, presence)),
        1 => (any::<u8>(), 0u32..6).prop_map(|(who, credit)| Op::Credit(who, credit)),
        6 => request.prop_map(|(batch, expires, no_wait, bytes)| Op::Request { batch, expires, no_wait, bytes }),
        1 => any::<u8>().prop_map(Op::Cancel),
        4 => Just(Op::Record),
        4 => Just(Op::Flush),
        1 => Just(Op::Snapshot),
        2 => (any::<u16>(), any::<bool>()).prop_map(|(survivors, rejoin)| Op::Crash { survivors, rejoin }),
        1 => Just(Op::Stop),
        1 => any::<u16>().prop_map(Op::Reset),
        1 => proptest::option::of(1u32..10).prop_map(Op::MaxAckPending),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let ack = prop_oneof![1 => Just(AckPolicy::None), 2 => Just(AckPolicy::All), 6 => Just(AckPolicy::Explicit)];
    let flags = proptest::array::uniform7(any::<bool>());
    let limits = (proptest::option::of(2u32..4), proptest::option::of(1u32..10));
    (ack, flags, limits).prop_map(|(ack, flags, (max_deliver, max_ack_pending))| Config {
        ack,
        ack_wait_ns: 100 * MS,
        backoff_ns: if flags[0] { vec![30 * MS, 60 * MS] } else { vec![] },
        max_deliver: max_deliver.and_then(NonZeroU32::new),
        max_ack_pending: max_ack_pending.and_then(NonZeroU32::new),
        sharing: if flags[1] { Sharing::Group } else { Sharing::Single },
        choice: if flags[2] { Choice::FewestPending } else { Choice::RoundRobin },
        overrun_credit: flags[3],
        on_return: if flags[4] { OnReturn::ResendAll } else { OnReturn::KeepDeadlines },
        counts: if flags[5] { Counts::Kept } else { Counts::Forgotten },
        restart_deadline: if flags[6] { RestartDeadline::FromNow } else { RestartDeadline::FromStored },
        redelivery_order: if flags[6] { RedeliveryOrder::Sequence } else { RedeliveryOrder::Deadline },
        handover_delay_ns: 10 * MS,
        max_waiting: NonZeroU32::new(4).unwrap(),
        ..Config::default()
    })
}

struct Member {
    key: u64,
    id: MemberId,
    credit: u32,
    presence: Presence,
}

fn is_there(member: &Member) -> bool {
    matches!(member.presence, Presence::Ready | Presence::Draining)
}

struct Record {
    bytes: Vec<u8>,
    mark: Mark,
    model: Model,
}

struct World {
    rig: Rig,
    model: Model,
    members: Vec<Member>,
    requests: BTreeMap<RequestId, PullRequest>,
    left: BTreeMap<RequestId, u32>,
    records: Vec<Record>,
    flushed: usize,
    /// How many records were written before it, and the bytes.
    snapshot: Option<(usize, Vec<u8>)>,
    first: u64,
    epochs: u32,
    /// The highest number of a delivery, for each life of the numbers.
    used: BTreeMap<u32, u64>,
    /// The number of the last delivery since the consumer was opened or reset.
    last_number: Option<u64>,
    /// Names of members given so far.
    keys: u64,
}

type Check = Result<(), TestCaseError>;

impl World {
    fn new(config: Config) -> Self {
        let mut rig = Rig::new(config.clone());
        let model = Model::new(config);
        let mut bytes = Vec::new();
        let mark = rig.consumer.first_record(&mut bytes);
        Self {
            rig,
            records: vec![Record { bytes, mark, model: model.clone() }],
            model,
            members: Vec::new(),
            requests: BTreeMap::new(),
            left: BTreeMap::new(),
            flushed: 1,
            snapshot: None,
            first: 1,
            epochs: 0,
            used: BTreeMap::new(),
            last_number: None,
            keys: 0,
        }
    }

    fn pending(&self, which: u16) -> Option<u64> {
        let index = usize::from(which).checked_rem(self.model.pending.len())?;
        self.model.pending.keys().nth(index).copied()
    }

    fn undelivered(&self) -> usize {
        self.rig.messages.range(self.model.next_seq..).filter(|(_, stored)| stored.matches).count()
    }

    fn apply(&mut self, op: &Op) -> Check {
        let now = self.rig.now;
        match *op {
            Op::Store { count, matches } => (0..count).for_each(|index| {
                self.rig.store_one(50 + u32::from(index) * 40, matches || index % 2 == 0);
            }),
            Op::Ack(which) => {
                if let Some(seq) = self.pending(which) {
                    self.rig.consumer.ack(now, seq);
                    self.model.ack(seq);
                }
            }
            Op::AckAny(seq) => {
                self.rig.consumer.ack(now, seq);
                self.model.ack(seq);
            }
            Op::Nak(which, delay) => {
                if let Some(seq) = self.pending(which) {
                    self.rig.consumer.nak(now, seq, delay);
                    self.model.pending.get_mut(&seq).unwrap().deadline = (delay > 0).then_some(now + delay);
                }
            }
            Op::Progress(which) => {
                if let Some(seq) = self.pending(which) {
                    self.rig.consumer.progress(now, seq);
                    let deadline = now + self.model.wait(self.model.pending[&seq].deliveries);
                    self.model.pending.get_mut(&seq).unwrap().deadline = Some(deadline);
                }
            }
            Op::Terminate(which) => {
                if let Some(seq) = self.pending(which) {
                    self.rig.consumer.terminate(now, seq);
                    self.model.ack(seq);
                }
            }
            Op::Remove(which) => {
                let index = usize::from(which).checked_rem(self.rig.messages.len());
                if let Some(seq) = index.and_then(|index| self.rig.messages.keys().nth(index).copied()) {
                    self.rig.remove(seq);
                    self.model.removed(seq);
                }
            }
            Op::RemoveBelow(which) => {
                let span = self.rig.last + 2 - self.first;
                self.first += u64::from(which) % span.min(10);
                self.rig.remove_below(self.first);
                self.model.removed_below(self.first);
            }
            Op::Pass(duration) => {
                // At every deadline on the way, as a driver would.
                let end = now + duration;
                while let Some(deadline) = self.rig.consumer.next_deadline().filter(|deadline| *deadline <= end) {
                    self.rig.now = deadline;
                    self.settle()?;
                }
                self.rig.now = end;
            }
            Op::Join(credit) => self.join(credit)?,
            Op::Leave(who) => self.leave(who)?,
            Op::Presence(who, presence) => {
                if let Some(index) = usize::from(who).checked_rem(self.members.len()) {
                    self.members[index].presence = presence;
                    prop_assert!(self.rig.consumer.set_presence(self.members[index].id, presence));
                }
            }
            Op::Credit(who, credit) => {
                if let Some(index) = usize::from(who).checked_rem(self.members.len()) {
                    self.members[index].credit = credit;
                    prop_assert!(self.rig.consumer.set_credit(self.members[index].id, credit));
                }
            }
            Op::Request { batch, expires, no_wait, bytes } => {
                let expires = expires.map(|expires| now + expires);
                let max_bytes = bytes.and_then(NonZeroU64::new);
                let ask = PullRequest { expires, no_wait, max_bytes, ..self.rig.ask(batch) };
                if let Ok(id) = self.rig.consumer.request(now, ask) {
                    self.requests.insert(id, ask);
                    self.left.insert(id, batch);
                }
            }
            Op::Cancel(which) => {
                let index = usize::from(which).checked_rem(self.requests.len());
                if let Some(id) = index.and_then(|index| self.requests.keys().nth(index).copied()) {
                    prop_assert!(self.rig.consumer.cancel(id));
                    self.requests.remove(&id);
                }
            }
            Op::Record => self.record(),
            Op::Flush => {
                for record in &self.records[self.flushed..] {
                    self.rig.consumer.flushed(record.mark);
                }
                self.flushed = self.records.len();
            }
            Op::Snapshot => {
                let mut bytes = Vec::new();
                self.rig.consumer.snapshot(&mut bytes);
                self.snapshot = Some((self.records.len(), bytes));
            }
            Op::Crash { survivors, rejoin } => self.crash(survivors, rejoin)?,
            Op::Stop => {
                self.record();
                let mut bytes = Vec::new();
                let next = self.rig.consumer.next_consumer_seq;
                self.rig.consumer.stop(&mut bytes);
                let mark = self.records[0].mark;
                self.records.push(Record { bytes, mark, model: self.model.clone() });
                self.flushed = self.records.len();
                self.crash(u16::MAX, true)?;
                prop_assert_eq!(self.rig.consumer.next_consumer_seq, next, "a clean stop loses no number");
            }
            Op::Reset(which) => {
                let seq = self.first + u64::from(which) % (self.rig.last + 2 - self.first);
                self.rig.consumer.reset(seq);
                self.epochs += 1;
                self.model.reset(seq, self.epochs);
                self.last_number = Some(0);
                let count = self.undelivered();
                self.rig.consumer.set_num_pending(count as u64);
            }
            Op::MaxAckPending(most) => {
                self.model.config.max_ack_pending = most.and_then(NonZeroU32::new);
                prop_assert_eq!(self.rig.consumer.update(now, self.model.config.clone()), Ok(()));
            }
        }
        self.settle()
    }

    fn record(&mut self) {
        if self.rig.consumer.changed().is_some() {
            let mut bytes = Vec::new();
            let mark = self.rig.consumer.take_delta(&mut bytes);
            self.records.push(Record { bytes, mark, model: self.model.clone() });
        }
    }

    fn join(&mut self, credit: u32) -> Check {
        // Some have no name.
        self.keys += 1;
        let key = if self.keys.is_multiple_of(4) { 0 } else { self.keys };
        let joined = self.rig.consumer.join(self.rig.now, Terms { key, credit, ack_wait_ns: None });
        prop_assert_eq!(joined.is_err(), self.model.config.sharing == Sharing::Single && !self.members.is_empty());
        let Ok(id) = joined else { return Ok(()) };
        if self.members.is_empty() {
            for held in self.model.pending.values_mut() {
                (held.owner, held.key) = (Some(id), key);
                if self.model.config.on_return == OnReturn::ResendAll {
                    held.deadline = None;
                }
            }
        }
        self.members.push(Member { key, id, credit, presence: Presence::Ready });
        Ok(())
    }

    fn leave(&mut self, who: u8) -> Check {
        let Some(index) = usize::from(who).checked_rem(self.members.len()) else { return Ok(()) };
        let gone = self.members.remove(index).id;
        let orphans: Vec<_> =
            self.model.pending.iter().filter(|(_, held)| held.owner == Some(gone)).map(|(seq, _)| *seq).collect();
        let left = self.rig.consumer.leave(self.rig.now, gone);
        let heirs = self.members.len();
        prop_assert_eq!(left, Some(if heirs > 0 { Left::Others(orphans.len()) } else { Left::Offline }));
        let due = (heirs > 0).then(|| self.rig.now + self.model.config.handover_delay_ns);
        self.adopt(&orphans, due)
    }

    /// Notes who has got messages that were spread, which is to be even.
    fn adopt(&mut self, seqs: &[u64], due: Option<Time>) -> Check {
        let owners: BTreeMap<_, _> = self.rig.consumer.ack_pending().map(|(seq, _, owner)| (seq, owner)).collect();
        let mut shares: BTreeMap<MemberId, usize> = BTreeMap::new();
        for seq in seqs {
            let owner = owners[seq];
            prop_assert_eq!(owner.is_some(), !self.members.is_empty());
            if let Some(owner) = owner {
                *shares.entry(owner).or_default() += 1;
            }
            let held = self.model.pending.get_mut(seq).unwrap();
            held.owner = owner;
            held.key = self.members.iter().find(|member| Some(member.id) == owner).map_or(0, |member| member.key);
            held.assigned = false;
            if due.is_some() {
                held.deadline = due;
            }
        }
        let most = shares.values().max().copied().unwrap_or(0);
        prop_assert!(shares.values().all(|share| share + 1 >= most), "{shares:?}");
        Ok(())
    }

    fn crash(&mut self, survivors: u16, rejoin: bool) -> Check {
        let kept = self.flushed + usize::from(survivors).min(self.records.len() - self.flushed);
        self.records.truncate(kept);
        self.flushed = kept;
        let read = |first: &[u8], more: &[Record]| {
            let mut consumer = Consumer::restore(first).unwrap();
            for record in more {
                consumer.replay(&record.bytes).unwrap();
            }
            consumer
        };
        let mut consumer = read(&self.records[0].bytes, &self.records[1..]);
        if let Some((before, bytes)) = self.snapshot.take()
            && before < kept
        {
            let state = |mut consumer: Consumer| {
                consumer.removed_below(self.first);
                let pending: Vec<_> = consumer.ack_pending().collect();
                (consumer.info(), consumer.next_seq, pending, consumer.exhausted.clone(), consumer.config.clone())
            };
            let other = read(&bytes, &self.records[before..]);
            prop_assert_eq!(state(other), state(consumer), "from a snapshot as from the beginning");
            consumer = read(&bytes, &self.records[before..]);
        }
        self.model = self.records[kept - 1].model.clone();
        let now = self.rig.now;
        let stored = |seq: u64| self.rig.messages.get(&seq).map(|stored| stored.time);
        self.model.restarted(now, stored);
        consumer.opened(now, stored);
        consumer.cut(self.rig.last);
        consumer.removed_below(self.first);
        self.model.removed_below(self.first);
        let waiting: Vec<_> = consumer.ack_pending().map(|(seq, ..)| seq).collect();
        for seq in waiting.into_iter().filter(|seq| !self.rig.messages.contains_key(seq)) {
            consumer.removed(seq, seq);
            self.model.removed(seq);
        }
        consumer.set_num_pending(self.undelivered() as u64);
        consumer.drain_events().for_each(drop);
        self.rig.consumer = consumer;
        self.rig.consumer.drain_events().for_each(drop);
        self.requests.clear();
        self.last_number = None;
        if rejoin {
            let terms = |member: &Member| Terms { key: member.key, credit: member.credit, ack_wait_ns: None };
            let all: Vec<_> = self.members.iter().map(terms).collect();
            let ids = self.rig.consumer.rejoin(now, &all).unwrap();
            for (member, id) in self.members.iter_mut().zip(ids) {
                (member.id, member.presence) = (id, Presence::Ready);
            }
            let is_group = self.model.config.sharing == Sharing::Group;
            let mut orphans = Vec::new();
            for (seq, held) in &mut self.model.pending {
                let holder = self.members.iter().find(|member| is_group && held.key != 0 && member.key == held.key);
                match holder {
                    Some(holder) => (held.owner, held.assigned) = (Some(holder.id), true),
                    None => orphans.push(*seq),
                }
            }
            self.adopt(&orphans, None)?;
        } else {
            self.members.clear();
        }
        Ok(())
    }

    /// Delivers what there is and checks each delivery, and that there is no more in the end.
    fn settle(&mut self) -> Check {
        loop {
            let sent = self.rig.step();
            let events = self.rig.events();
            for event in &events {
                self.given_up(event)?;
            }
            if let Some(sent) = &sent {
                self.sent(sent)?;
            }
            for event in &events {
                self.request_ended(event)?;
            }
            if sent.is_none() {
                break;
            }
        }
        self.settled()
    }

    fn given_up(&mut self, event: &Event) -> Check {
        if let Event::MaxDeliveries { seq, consumer_seq, deliveries } = *event {
            let held = self.model.pending.remove(&seq).unwrap();
            prop_assert!(self.model.is_due(&held, self.rig.now + self.model.config.timer_slack_ns));
            prop_assert_eq!((held.consumer_seq, held.deliveries), (consumer_seq, deliveries));
            prop_assert!(self.model.config.max_deliver.is_some_and(|most| deliveries >= most.get()));
            prop_assert!(self.model.exhausted.insert(seq), "told twice");
        }
        Ok(())
    }

    fn sent(&mut self, sent: &Sent) -> Check {
        let Sent { seq, to, how } = *sent;
        let now = self.rig.now;
        let used = self.used.entry(self.model.epoch).or_default();
        prop_assert!(how.consumer_seq > *used, "{} was used", how.consumer_seq);
        *used = how.consumer_seq;
        prop_assert!(self.last_number.is_none_or(|last| how.consumer_seq == last + 1), "none is left out");
        self.last_number = Some(how.consumer_seq);
        let again = self.model.pending.get(&seq).cloned();
        let owner = match to {
            Target::Member(id) => {
                let owned: BTreeMap<_, _> =
                    self.members.iter().map(|member| (member.id, self.model.owned(member.id))).collect();
                let chosen = self.members.iter().find(|member| member.id == id).unwrap();
                let has_credit = |member: &Member| owned[&member.id] < member.credit as usize;
                let is_group = self.model.config.sharing == Sharing::Group;
                let with_credit = |presence: Presence| -> Vec<_> {
                    let fits = |member: &&Member| member.presence == presence && has_credit(member);
                    self.members.iter().filter(fits).map(|member| member.id).collect()
                };
                let mut candidates = with_credit(Presence::Ready);
                if again.is_none() && candidates.is_empty() {
                    candidates = with_credit(Presence::Suspended);
                }
                match &again {
                    None => prop_assert!(candidates.contains(&id), "no credit"),
                    Some(held) if chosen.presence == Presence::Suspended => {
                        prop_assert!(is_group, "alone it gets nothing again");
                        prop_assert!(self.members.iter().all(|member| !is_there(member)), "others come first");
                        let holder = self.members.iter().find(|member| held.owner == Some(member.id));
                        let is_first = |holder: &Member| holder.presence != Presence::Suspended || holder.id == id;
                        prop_assert!(holder.is_none_or(is_first), "the holder comes first");
                    }
                    Some(held) => {
                        prop_assert!(is_there(chosen));
                        let kept = held.assigned && held.owner == Some(id);
                        prop_assert!(
                            candidates.is_empty() || candidates.contains(&id) || kept,
                            "{seq} for {id:?} of {candidates:?}: {held:?}"
                        );
                        if !self.model.config.overrun_credit && candidates.is_empty() {
                            let holder = self.members.iter().find(|member| held.owner == Some(member.id));
                            prop_assert!(holder.is_none_or(|holder| !is_there(holder) || holder.id == id));
                        }
                    }
                }
                let assigned = again.as_ref().is_some_and(|held| held.assigned);
                if self.model.config.choice == Choice::FewestPending && candidates.contains(&id) && !assigned {
                    prop_assert!(candidates.iter().all(|other| owned[other] >= owned[&id]), "{owned:?} {id:?}");
                }
                Some(id)
            }
            Target::Request(id) => {
                prop_assert!(self.members.is_empty() && self.requests.contains_key(&id));
                let left = self.left.get_mut(&id).unwrap();
                prop_assert!(*left > 0);
                *left -= 1;
                None
            }
        };
        let key = self.members.iter().find(|member| Some(member.id) == owner).map_or(0, |member| member.key);
        match again {
            Some(held) => {
                prop_assert!(self.model.is_due(&held, now + self.model.config.timer_slack_ns), "{seq} is not due");
                prop_assert_eq!(how.deliveries, held.deliveries + 1);
                prop_assert!(self.model.config.max_deliver.is_none_or(|most| how.deliveries <= most.get()));
                self.model.sent_again(now, seq, how.consumer_seq, (owner, key));
            }
            None => {
                let next = self.rig.messages.range(self.model.next_seq..).find(|(_, stored)| stored.matches);
                prop_assert_eq!(next.map(|(seq, _)| *seq), Some(seq), "first deliveries come in order");
                prop_assert!(!self.model.is_full() || self.model.config.ack == AckPolicy::None);
                prop_assert_eq!(how.deliveries, 1);
                self.model.sent_new(now, seq, how.consumer_seq, (owner, key));
            }
        }
        prop_assert_eq!(how.num_pending, self.undelivered() as u64);
        Ok(())
    }

    fn request_ended(&mut self, event: &Event) -> Check {
        if let Event::RequestEnded { request, reason, messages_left, .. } = *event {
            let ask = self.requests.remove(&request).unwrap();
            prop_assert_eq!(messages_left, self.left[&request]);
            match reason {
                Ended::Fulfilled => prop_assert!(messages_left == 0 || ask.max_bytes.is_some()),
                Ended::BatchCompleted => prop_assert!(messages_left == 0 && ask.max_bytes.is_some()),
                Ended::BytesExceeded => prop_assert!(ask.max_bytes.is_some()),
                Ended::Expired => prop_assert!(ask.expires.is_some_and(|expires| expires <= self.rig.now)),
                Ended::NoMessages => prop_assert!(ask.no_wait && self.undelivered() == 0),
                Ended::Deleted => prop_assert!(false),
            }
        }
        Ok(())
    }

    fn settled(&mut self) -> Check {
        let info = self.rig.consumer.info();
        prop_assert_eq!(info.delivered, self.model.delivered);
        prop_assert_eq!(info.ack_floor, self.model.floor);
        prop_assert_eq!(info.num_pending, self.undelivered() as u64);
        prop_assert_eq!(info.num_waiting, self.requests.len() as u64);
        let pending = self.rig.consumer.ack_pending();
        let expected = self.model.pending.iter().map(|(seq, held)| (*seq, held.deliveries, held.owner));
        prop_assert!(
            pending.eq(expected),
            "{:?}\n{:?}",
            self.rig.consumer.ack_pending().collect::<Vec<_>>(),
            self.model.pending
        );
        let repeated = self.model.pending.values().filter(|held| held.deliveries > 1).count();
        prop_assert_eq!(info.num_redelivered, (repeated + self.model.exhausted.len()) as u64);
        prop_assert!(self.rig.consumer.exhausted.iter().eq(self.model.exhausted.iter().copied()));
        for member in &self.members {
            let counts = Some((self.model.owned(member.id) as u32, member.credit));
            prop_assert_eq!(self.rig.consumer.member(member.id), counts);
        }
        let now = self.rig.now;
        let takers: Vec<_> = self.members.iter().map(|member| member.presence).collect();
        let is_group = self.model.config.sharing == Sharing::Group;
        let there = |presence: &Presence| match presence {
            Presence::Ready | Presence::Draining => true,
            Presence::Suspended => is_group,
            Presence::Held => false,
        };
        let takes_again = if takers.is_empty() { !self.requests.is_empty() } else { takers.iter().any(there) };
        let due = self.model.pending.values().any(|held| self.model.is_due(held, now));
        let takes_new = if self.members.is_empty() {
            !self.requests.is_empty()
        } else {
            self.members.iter().any(|member| {
                matches!(member.presence, Presence::Ready | Presence::Suspended)
                    && self.model.owned(member.id) < member.credit as usize
            })
        };
        let full = self.model.is_full() && self.model.config.ack != AckPolicy::None;
        if (due && takes_again) || (takes_new && !full && self.undelivered() > 0) {
            let blocked = self.rig.consumer.next_consumer_seq > self.rig.consumer.reserved_durable;
            prop_assert!(blocked, "something can be delivered: {due} {takes_again} {takes_new} {full}");
            let waits_for_flush = self.flushed < self.records.len();
            let asks = self.rig.consumer.changed() == Some(Urgency::Now);
            prop_assert!(asks || waits_for_flush, "a reservation that nobody asks for");
        }
        self.deadlines(now)
    }

    fn deadlines(&self, now: Time) -> Check {
        let next = self.rig.consumer.next_deadline();
        prop_assert!(next.is_none_or(|next| next > now), "{next:?} has been carried out");
        let mut expected: Vec<_> = self.requests.values().filter_map(|ask| ask.expires).collect();
        if !self.members.is_empty() || !self.requests.is_empty() {
            // What is due within the slack may be queued already.
            let soon = now + self.model.config.timer_slack_ns;
            expected.extend(self.model.pending.values().filter_map(|held| held.deadline).filter(|due| *due > soon));
        }
        match expected.into_iter().min() {
            Some(expected) => prop_assert!(next.is_some_and(|next| next <= expected), "{next:?}, {expected}"),
            None if self.model.pending.is_empty() && self.requests.is_empty() => {
                prop_assert_eq!(next, None, "nothing is pending");
            }
            None => {}
        }
        Ok(())
    }

    /// In the end everything has been delivered that had to be.
    fn finish(&mut self) -> Check {
        for op in [Op::Record, Op::Flush, Op::Join(u32::MAX)] {
            self.apply(&op)?;
        }
        for index in 0..self.members.len() as u8 {
            self.apply(&Op::Presence(index, Presence::Ready))?;
            self.apply(&Op::Credit(index, 100))?;
        }
        for _ in 0..10_000 {
            if self.undelivered() == 0 && self.model.pending.is_empty() {
                break;
            }
            for op in [Op::Record, Op::Flush, Op::Pass(101 * MS), Op::Ack(0)] {
                self.apply(&op)?;
            }
        }
        prop_assert_eq!((self.undelivered(), self.model.pending.len()), (0, 0));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_consumer_is_its_model(config in config(), ops in proptest::collection::vec(op(), 1..120)) {
        let mut world = World::new(config);
        for op in &ops {
            world.apply(op)?;
        }
        world.finish()?;
    }
}
