//! Consumers on the simulated disk: who gets what, what comes again, and what is acknowledged for good.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::world::{Shape, World, subject_of};
use crate::consumer::{self, AckPolicy, Choice, Delivery, MemberId, Origin, PullRequest, Reply, RequestId, Sharing};
use crate::consumer::{RedeliveryOrder, Target};
use crate::log::{Durable, Incarnation, Message, Pending, Time};
use crate::store::{ConsumerKey, Notice, Outlet};
use crate::stream::Retention;
use crate::subject::matches;

const MS: i64 = 1_000_000;
/// Members and pull requests that a consumer has at most.
const TAKERS_MAX: usize = 4;

/// A message that was sent.
struct Sent {
    consumer: ConsumerKey,
    to: Target,
    seq: u64,
    subject: Vec<u8>,
    payload: Vec<u8>,
    delivery: Delivery,
}

/// Takes note of what the store tells.
#[derive(Default)]
pub(super) struct Face {
    sent: Vec<Sent>,
    /// What was sent and looked at, and has not been answered.
    unanswered: Vec<(ConsumerKey, u64)>,
    events: Vec<(ConsumerKey, consumer::Event)>,
    pub(super) proofs: Vec<Durable>,
    pub(super) notices: Vec<Notice>,
}

impl Face {
    pub(super) fn is_proven(&self, pending: Pending) -> bool {
        pending.is_none() || self.proofs.last().is_some_and(|proof| proof.covers(pending))
    }
}

impl Outlet for Face {
    fn deliver(&mut self, consumer: ConsumerKey, to: Target, message: &Message<'_>, delivery: &Delivery) {
        let (subject, payload) = (message.subject.to_vec(), message.payload.to_vec());
        self.sent.push(Sent { consumer, to, seq: message.seq, subject, payload, delivery: *delivery });
    }

    fn event(&mut self, consumer: ConsumerKey, event: consumer::Event) {
        self.events.push((consumer, event));
    }

    fn flushed(&mut self, proof: &Durable) {
        self.proofs.push(*proof);
    }

    fn notice(&mut self, notice: &Notice) {
        self.notices.push(notice.clone());
    }
}

/// A message that waits for its acknowledgement.
#[derive(Clone, Copy)]
struct Open {
    /// It does not come again before.
    due: Time,
    holder: Option<MemberId>,
}

pub(super) struct ConsumerUnderTest {
    key: ConsumerKey,
    created: Pending,
    ack: AckPolicy,
    filter: Option<Vec<u8>>,
    wait: i64,
    max_open: Option<usize>,
    sharing: Sharing,
    pulls: bool,
    members: Vec<(MemberId, u32)>,
    /// Messages that each request still wants.
    requests: BTreeMap<RequestId, u32>,
    /// Delivered and not acknowledged.
    open: BTreeMap<u64, Open>,
    /// The highest number delivered.
    highest: u64,
    last_delivery: u64,
    /// Acknowledged since the store was opened.
    acked: BTreeSet<u64>,
    /// Acknowledged, and what makes it final.
    acks: Vec<(u64, Pending)>,
    /// Acknowledged for good.
    final_acks: BTreeSet<u64>,
    /// Acknowledged at any time; where nothing is acknowledged, delivered.
    ever_done: BTreeSet<u64>,
    ever_delivered: BTreeSet<u64>,
}

impl ConsumerUnderTest {
    /// Delivered, and nothing more to come; or it never wanted the message.
    pub(super) fn is_done_with(&self, seq: u64) -> bool {
        seq <= self.highest && !self.open.contains_key(&seq)
    }

    pub(super) fn wants(&self, subject: &[u8]) -> bool {
        self.filter.as_ref().is_none_or(|filter| matches(filter, subject))
    }

    /// An acknowledgement has been taken: what it covers.
    fn acknowledge(&mut self, seq: u64) -> Vec<u64> {
        let covered = match self.ack {
            AckPolicy::All => self.open.range(..=seq).map(|(seq, _)| *seq).collect(),
            _ => vec![seq],
        };
        for seq in &covered {
            self.open.remove(seq);
            self.acked.insert(*seq);
            self.ever_done.insert(*seq);
        }
        covered
    }
}

impl World {
    pub(super) fn create_consumers(&mut self, index: usize) {
        match self.shape {
            Shape::Bare => {}
            Shape::Plain => {
                if self.rng.bool() {
                    let max_ack_pending = NonZeroU32::new(self.rng.u32(1..100));
                    let config =
                        consumer::Config { ack_wait_ns: 50 * MS, max_ack_pending, ..consumer::Config::default() };
                    self.create_consumer(index, config, false);
                    self.join(index, 0, 50);
                }
            }
            Shape::Rich => {
                let count = match self.streams[index].now.config.retention {
                    Retention::WorkQueue => self.rng.usize(1..3),
                    _ => self.rng.usize(0..4),
                };
                for nth in 0..count {
                    let pulls = self.rng.bool();
                    let config = self.rich_consumer(index, pulls, count);
                    self.create_consumer(index, config, pulls);
                    if !pulls {
                        let credit = self.rng.u32(1..60);
                        self.join(index, nth, credit);
                    }
                }
            }
        }
    }

    fn rich_consumer(&mut self, index: usize, pulls: bool, count: usize) -> consumer::Config {
        // No two of a work queue want the same.
        let others = self.streams[index].consumers.len() as u8;
        let shares = self.streams[index].now.config.retention == Retention::WorkQueue;
        let rng = &mut self.rng;
        consumer::Config {
            filters: match rng.u8(..4) {
                _ if shares && count > 1 => vec![String::from_utf8(subject_of(others)).unwrap()],
                0 | 1 => vec![String::from_utf8(subject_of(rng.u8(..5))).unwrap()],
                _ => Vec::new(),
            },
            ack: [AckPolicy::None, AckPolicy::All, AckPolicy::Explicit, AckPolicy::Explicit][rng.usize(..4)],
            ack_wait_ns: rng.i64(20..300) * MS,
            max_ack_pending: NonZeroU32::new(rng.u32(0..100)),
            sharing: if !pulls && rng.bool() { Sharing::Group } else { Sharing::Single },
            choice: if rng.bool() { Choice::FewestPending } else { Choice::RoundRobin },
            overrun_credit: rng.bool(),
            handover_delay_ns: rng.i64(0..100) * MS,
            redelivery_order: if rng.bool() { RedeliveryOrder::Sequence } else { RedeliveryOrder::Deadline },
            ..consumer::Config::default()
        }
    }

    fn create_consumer(&mut self, index: usize, config: consumer::Config, pulls: bool) {
        let stream = &mut self.streams[index];
        let from = stream.now.last + 1;
        let made = self.store.create_consumer(self.now, stream.of, config.clone(), Origin::at(from), b"").unwrap();
        let (key, created) = made.unwrap();
        stream.consumers.push(ConsumerUnderTest {
            key,
            created,
            ack: config.ack,
            filter: config.filters.first().map(|filter| filter.clone().into_bytes()),
            wait: config.ack_wait_ns,
            max_open: config.max_ack_pending.map(|max| max.get() as usize),
            sharing: config.sharing,
            pulls,
            members: Vec::new(),
            requests: BTreeMap::new(),
            open: BTreeMap::new(),
            highest: from - 1,
            last_delivery: 0,
            acked: BTreeSet::new(),
            acks: Vec::new(),
            final_acks: BTreeSet::new(),
            ever_done: BTreeSet::new(),
            ever_delivered: BTreeSet::new(),
        });
    }

    fn join(&mut self, index: usize, nth: usize, credit: u32) {
        let consumer = &mut self.streams[index].consumers[nth];
        let id = self.store.join(self.now, consumer.key, credit).expect("there is a place").expect("is there");
        consumer.members.push((id, credit));
    }

    /// Looks at what the store has sent.
    pub(super) fn note_deliveries(&mut self) {
        for sent in std::mem::take(&mut self.face.sent) {
            let Some(stream) = self.streams.iter_mut().find(|stream| stream.of == sent.consumer.stream) else {
                continue;
            };
            let visible = |seq: u64| self.store.stream(sent.consumer.stream).is_some_and(|of| of.is_visible(seq));
            let context = format!("{}, {:?}: {}", self.context, sent.consumer, sent.seq);
            let Some(consumer) = stream.consumers.iter_mut().find(|consumer| consumer.key == sent.consumer) else {
                panic!("{context} for nobody");
            };
            let seq = sent.seq;
            assert!(stream.payloads.get(&seq) == Some(&sent.payload), "{context}: another content");
            assert!(consumer.wants(&sent.subject), "{context}: not wanted");
            assert!(!consumer.final_acks.contains(&seq), "{context} comes again");
            assert!(!consumer.acked.contains(&seq), "{context} comes again although it is acknowledged");
            assert!(sent.delivery.consumer_seq > consumer.last_delivery, "{context}: {:?}", sent.delivery);
            consumer.last_delivery = sent.delivery.consumer_seq;
            let is_new = !sent.delivery.is_redelivery();
            if is_new {
                assert!(seq > consumer.highest, "{context} after {}", consumer.highest);
                consumer.highest = seq;
            } else {
                self.repeated.1 += 1;
                let open = consumer.open.get(&seq);
                // Some are redelivered a little early, together with others.
                let is_due = open.is_some_and(|open| open.due <= self.now + MS);
                let due = open.map(|open| open.due);
                assert!(is_due, "{context} comes again at {}, is due at {due:?}", self.now);
            }
            consumer.ever_delivered.insert(seq);
            let holder = match sent.to {
                Target::Member(id) => Some(id),
                Target::Request(id) => {
                    let left = consumer.requests.get_mut(&id).filter(|left| **left > 0);
                    *left.unwrap_or_else(|| panic!("{context} for no request")) -= 1;
                    None
                }
            };
            if consumer.ack == AckPolicy::None {
                consumer.ever_done.insert(seq);
                stream.acknowledged.push(seq);
                continue;
            }
            consumer.open.insert(seq, Open { due: self.now + consumer.wait, holder });
            let there = consumer.open.iter().filter(|(seq, _)| visible(**seq));
            if is_new && let Some(id) = holder {
                let credit = consumer.members.iter().find(|(member, _)| *member == id).map(|(_, credit)| *credit);
                let held = there.clone().filter(|(_, open)| open.holder == holder).count();
                assert!(credit.is_some_and(|credit| held <= credit as usize), "{context}: {held} of {credit:?}");
            }
            let open = there.count();
            assert!(!is_new || consumer.max_open.is_none_or(|max| open <= max), "{context}: {open} are open");
            self.face.unanswered.push((sent.consumer, seq));
        }
        for (key, event) in std::mem::take(&mut self.face.events) {
            let consumer::Event::RequestEnded { request, messages_left, .. } = event else { continue };
            let Some(consumer) = self.consumer(key) else { continue };
            let left = consumer.requests.remove(&request);
            assert_eq!(left, Some(messages_left), "{}, {key:?}: {event:?}", self.context);
        }
    }

    fn consumer(&mut self, key: ConsumerKey) -> Option<&mut ConsumerUnderTest> {
        let stream = self.streams.iter_mut().find(|stream| stream.of == key.stream)?;
        stream.consumers.iter_mut().find(|consumer| consumer.key == key)
    }

    /// Answers what was delivered, in one way or another.
    pub(super) fn acknowledge(&mut self) {
        for (key, seq) in std::mem::take(&mut self.face.unanswered) {
            let choice = self.rng.u8(..4);
            if self.shape == Shape::Rich {
                self.answer(key, seq, choice);
            } else if choice > 0 {
                let sync = |rng: &mut fastrand::Rng| rng.bool();
                self.ack(key, seq, sync);
            }
        }
    }

    fn answer(&mut self, key: ConsumerKey, seq: u64, choice: u8) {
        let now = self.now;
        let delay = self.rng.i64(0..30) * MS;
        let other = self.rng.u8(..16);
        let Some(consumer) = self.consumer(key) else { return };
        let (wait, is_open) = (consumer.wait, consumer.open.contains_key(&seq));
        let mut reply = |change: &mut dyn FnMut(&mut consumer::Consumer) -> Reply| {
            self.store.with_consumer(key, |consumer| change(consumer)).expect("is there")
        };
        let due = match (choice, other) {
            (0, 0..=2) => match reply(&mut |consumer| consumer.nak(now, seq, delay)) {
                Reply::Done(_) => now + delay,
                _ => return,
            },
            (0, 3..=5) => match reply(&mut |consumer| consumer.progress(now, seq)) {
                Reply::Done(_) => now + wait,
                _ => return,
            },
            (0, _) => return,
            (1, 0) => {
                if let Reply::Done(_) = reply(&mut |consumer| consumer.terminate(now, seq)) {
                    self.acknowledged(key, seq);
                }
                return;
            }
            _ => return self.ack(key, seq, |rng| rng.u8(..4) == 0),
        };
        assert!(is_open, "{}, {key:?}: {seq} is not open", self.context);
        if let Some(open) = self.consumer(key).and_then(|consumer| consumer.open.get_mut(&seq)) {
            open.due = due;
        }
    }

    /// Acknowledges a message, and perhaps asks for that to be made final.
    fn ack(&mut self, key: ConsumerKey, seq: u64, sync: impl Fn(&mut fastrand::Rng) -> bool) {
        let reply = self.store.with_consumer(key, |consumer| consumer.ack(self.now, seq));
        let Some(Reply::Done(_)) = reply else { return };
        let covered = self.acknowledged(key, seq);
        if sync(&mut self.rng) {
            let after = self.store.sync_consumer(self.now, key).unwrap();
            let Some(consumer) = self.consumer(key) else { return };
            consumer.acks.extend(covered.into_iter().map(|seq| (seq, after)));
        }
    }

    fn acknowledged(&mut self, key: ConsumerKey, seq: u64) -> Vec<u64> {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.of == key.stream) else { return Vec::new() };
        let Some(consumer) = stream.consumers.iter_mut().find(|consumer| consumer.key == key) else {
            return Vec::new();
        };
        let covered = consumer.acknowledge(seq);
        stream.acknowledged.extend(&covered);
        covered
    }

    /// Members come and go, and pull requests come.
    pub(super) fn act_consumers(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let index = self.rng.usize(..self.streams.len());
        let count = self.streams[index].consumers.len();
        if count == 0 {
            return;
        }
        let nth = self.rng.usize(..count);
        if self.rng.u8(..60) == 0 {
            return self.end_consumer(index, nth);
        }
        let consumer = &self.streams[index].consumers[nth];
        if consumer.pulls {
            return self.pull(index, nth);
        }
        let may_join =
            consumer.members.is_empty() || consumer.sharing == Sharing::Group && consumer.members.len() < TAKERS_MAX;
        if may_join && self.rng.u8(..3) > 0 {
            let credit = self.rng.u32(1..60);
            self.join(index, nth, credit);
        } else if !self.streams[index].consumers[nth].members.is_empty() {
            let consumer = &mut self.streams[index].consumers[nth];
            let (id, _) = consumer.members.swap_remove(self.rng.usize(..consumer.members.len()));
            // Others get them when the hand-over is due. Who has got what at an opening, or from others, is not known.
            for open in consumer.open.values_mut().filter(|open| open.holder.is_none_or(|holder| holder == id)) {
                (open.due, open.holder) = (self.now, None);
            }
            self.store.with_consumer(consumer.key, |consumer| consumer.leave(self.now, id));
        }
    }

    fn end_consumer(&mut self, index: usize, nth: usize) {
        let stream = &mut self.streams[index];
        let consumer = stream.consumers.remove(nth);
        let ended = self.store.delete_consumer(self.now, consumer.key, &mut self.face).expect("is there");
        stream.ended.push((consumer, ended));
        stream.interest_ended();
    }

    fn pull(&mut self, index: usize, nth: usize) {
        let rng = &mut self.rng;
        let batch = NonZeroU32::new(rng.u32(1..40)).unwrap();
        let ask = PullRequest {
            expires: rng.bool().then(|| self.now + rng.i64(1..300) * MS),
            no_wait: rng.u8(..4) == 0,
            max_bytes: if rng.u8(..4) == 0 { std::num::NonZeroU64::new(rng.u64(100..100_000)) } else { None },
            priority: rng.u8(..3),
            ..PullRequest::of(batch)
        };
        let consumer = &mut self.streams[index].consumers[nth];
        if consumer.requests.len() < TAKERS_MAX
            && let Ok(Some(id)) = self.store.pull(self.now, consumer.key, ask)
        {
            consumer.requests.insert(id, batch.get());
        }
    }

    /// What the consumers of a stream know after the store was opened.
    pub(super) fn restart_consumers(&mut self, index: usize, face: &Face) {
        let stream = &mut self.streams[index];
        for (consumer, ended) in stream.ended.drain(..) {
            // It may be there again if that it had ended was not flushed.
            if self.store.consumer(consumer.key).is_some() {
                assert!(!face.is_proven(ended), "{}: {:?} is there again", self.context, consumer.key);
                stream.consumers.push(consumer);
            }
        }
        stream.consumers.retain_mut(|consumer| {
            let Some(found) = self.store.consumer(consumer.key) else {
                assert!(!face.is_proven(consumer.created), "{}: a consumer is gone", self.context);
                return false;
            };
            let finals = consumer.acks.drain(..).filter(|(_, after)| face.is_proven(*after));
            consumer.final_acks.extend(finals.map(|(seq, _)| seq));
            let forgotten = consumer.final_acks.iter().find(|seq| !found.is_done_with(**seq));
            assert!(forgotten.is_none(), "{}, {:?}: {forgotten:?} is forgotten", self.context, consumer.key);
            consumer.created = Pending::NONE;
            consumer.acked.clear();
            consumer.members.clear();
            consumer.requests.clear();
            let due = self.now + consumer.wait;
            consumer.open = found.ack_pending().map(|(seq, ..)| (seq, Open { due, holder: None })).collect();
            let unknown = consumer.open.keys().find(|seq| !consumer.ever_delivered.contains(seq));
            assert!(unknown.is_none(), "{}, {:?}: {unknown:?} was not delivered", self.context, consumer.key);
            consumer.highest = found.info().delivered.stream_seq;
            true
        });
    }

    pub(super) fn join_consumers(&mut self, index: usize) {
        for nth in 0..self.streams[index].consumers.len() {
            if !self.streams[index].consumers[nth].pulls {
                self.join(index, nth, 50);
            }
        }
    }

    /// Nobody has done with a message that it has not acknowledged.
    pub(super) fn check_consumers(&self, index: usize) {
        let stream = &self.streams[index];
        for consumer in &stream.consumers {
            let Some(found) = self.store.consumer(consumer.key) else { continue };
            let wanted = stream.now.messages.iter().filter(|(_, stored)| consumer.wants(&stored.subject));
            let lost =
                wanted.map(|(seq, _)| *seq).find(|seq| found.is_done_with(*seq) && !consumer.ever_done.contains(seq));
            assert!(lost.is_none(), "{}, {:?}: {lost:?} will not come again", self.context, consumer.key);
        }
    }

    /// Acknowledges everything until nothing comes any more: everything must have come then.
    pub(super) fn drain(&mut self) {
        let idle = |world: &Self, of: Incarnation| {
            let infos = world.store.consumers(of).filter_map(|key| Some(world.store.consumer(key)?.info()));
            infos.into_iter().all(|info| info.num_pending == 0 && info.num_ack_pending == 0)
        };
        for round in 0.. {
            assert!(round < 20_000, "{}: deliveries do not end: {}", self.context, self.describe());
            for index in 0..self.streams.len() {
                for nth in 0..self.streams[index].consumers.len() {
                    let consumer = &self.streams[index].consumers[nth];
                    match consumer.pulls {
                        true => self.pull(index, nth),
                        false if consumer.members.is_empty() => self.join(index, nth, 50),
                        false => {}
                    }
                }
            }
            self.step();
            for (key, seq) in std::mem::take(&mut self.face.unanswered) {
                self.ack(key, seq, |_| false);
            }
            if self.disk.is_idle() && self.store.log().is_at_rest() {
                // What was flushed just now is delivered with the next turn.
                let is_quiet = !self.turn().again && self.disk.is_idle() && self.face.unanswered.is_empty();
                if is_quiet && self.streams.iter().all(|stream| idle(self, stream.of)) {
                    break;
                }
                self.now += 5 * MS;
            }
        }
        for stream in &self.streams {
            for consumer in &stream.consumers {
                let wanted = stream.now.messages.iter().filter(|(_, stored)| consumer.wants(&stored.subject));
                let missing = wanted.map(|(seq, _)| *seq).find(|seq| {
                    let is_there = self.store.stream(stream.of).is_some_and(|of| of.is_visible(*seq));
                    is_there && !consumer.ever_done.contains(seq)
                });
                assert!(
                    missing.is_none(),
                    "{}, {:?}: {missing:?} never came: {}",
                    self.context,
                    consumer.key,
                    self.describe()
                );
            }
        }
    }
}
