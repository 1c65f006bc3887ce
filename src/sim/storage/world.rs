//! Streams, consumers and the log together on the simulated disk, beside a naive model of each stream.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::consumers::Face;
use super::disk::{Disk, Faults};
use super::stream::{Op, Sent, StreamUnderTest};
use crate::log::segments::Sizes;
use crate::log::{Incarnation, LogId, StoreId, Time};
use crate::store::{Got, Next, Options, Store};
use crate::stream::tests::model::Model;
use crate::stream::{self, Discard, Purge, Purged, Refusal, Retention};

pub(super) const STORE: StoreId = StoreId([9; 16]);
pub(super) const ID: LogId = LogId(0);
/// As in `stream/expiry.rs`.
pub(super) const EXPIRY_STEP_BITS: u32 = 27;
const MS: i64 = 1_000_000;

/// What streams and consumers a world has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A limit here and there, and consumers with one member.
    Plain,
    /// Everything that a stream and a consumer can be told.
    Rich,
    /// As plain, without consumers.
    Bare,
}

pub(super) struct World {
    pub(super) rng: fastrand::Rng,
    pub(super) shape: Shape,
    pub(super) options: Options,
    pub(super) disk: Disk,
    pub(super) store: Store,
    pub(super) face: Face,
    pub(super) now: Time,
    pub(super) streams: Vec<StreamUnderTest>,
    /// Streams that have lost messages.
    pub(super) has_lost: BTreeSet<Incarnation>,
    /// Publishes that were refused for want of space.
    pub(super) refused: u64,
    /// Publishes that were recognised as duplicates, and messages that a consumer got again.
    pub(super) repeated: (u64, u64),
    pub(super) context: String,
    /// How a stream differed from its model the last time that one did.
    pub(super) difference: String,
}

pub(super) fn subject_of(number: u8) -> Vec<u8> {
    format!("s.{number}").into_bytes()
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults, shape: Shape) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let log = crate::log::Options { sizes: Sizes { min: 1 << 20, max: 2 << 20 }, ..Default::default() };
        let options =
            Options { log, cache_bytes: [100_000, 64 << 20][rng.usize(..2)], cleaning_bytes_per_second: 1 << 30 };
        let mut disk = Disk::new(seed);
        disk.faults = faults;
        let mut world = Self {
            rng,
            shape,
            options,
            disk,
            store: Store::create(ID, STORE, options),
            face: Face::default(),
            now: 1_000,
            streams: Vec::new(),
            has_lost: BTreeSet::new(),
            refused: 0,
            repeated: (0, 0),
            context: format!("seed {seed}"),
            difference: String::new(),
        };
        for _ in 0..world.rng.usize(1..4) {
            world.create();
        }
        world
    }

    fn create(&mut self) {
        let config = match self.shape {
            Shape::Rich => self.rich_config(),
            Shape::Plain | Shape::Bare => self.plain_config(),
        };
        config.validate().expect("a sound configuration");
        let (of, created) = self.store.create_stream(self.now, config.clone(), b"meta");
        let model = Model::new(config);
        self.streams.push(StreamUnderTest {
            of,
            created,
            base: model.clone(),
            ops: Vec::new(),
            now: model,
            payloads: BTreeMap::new(),
            consumers: Vec::new(),
            ended: Vec::new(),
            acknowledged: Vec::new(),
        });
        self.create_consumers(self.streams.len() - 1);
    }

    fn plain_config(&mut self) -> stream::Config {
        let (max_messages, max_per_subject) = match self.rng.u8(..4) {
            0 => (Some(self.rng.u64(1..200)), None),
            1 => (None, Some(self.rng.u64(1..4))),
            _ => (None, None),
        };
        stream::Config { max_messages, max_per_subject, ..Default::default() }
    }

    fn rich_config(&mut self) -> stream::Config {
        let rng = &mut self.rng;
        let mut some = |range: std::ops::Range<u64>| (rng.u8(..3) == 0).then(|| rng.u64(range));
        let (max_messages, max_bytes) = (some(1..150), some(1_000..100_000));
        let (max_age, mut max_per_subject) = (some(20..1_000), some(1..20));
        let retention = match rng.u8(..6) {
            0 => Retention::WorkQueue,
            1 => Retention::Interest,
            _ => Retention::Limits,
        };
        let mut discard = if rng.bool() { Discard::Old } else { Discard::New };
        if retention != Retention::Limits {
            // A removal of what is acknowledged may be forgotten in a crash: what an old one would have made room for
            // would differ.
            (discard, max_per_subject) = (Discard::New, None);
        }
        // Which of two limits takes a message first must not depend on when the disk answers.
        let evicts = discard == Discard::Old && (max_messages.is_some() || max_bytes.is_some());
        stream::Config {
            max_messages,
            max_bytes,
            max_age: max_age.map(|ms| ms as i64 * MS),
            max_per_subject,
            discard,
            discard_new_per_subject: discard == Discard::New && max_per_subject.is_some() && rng.bool(),
            keep_newest: rng.bool(),
            retention,
            first_seq: if rng.u8(..8) == 0 { rng.u64(2..1_000_000) } else { 0 },
            duplicate_window: if rng.bool() { rng.i64(20..2_000) * MS } else { 0 },
            allow_expiry: !evicts && max_per_subject.is_none() && rng.bool(),
            ..Default::default()
        }
    }

    pub(super) fn act(&mut self) {
        if self.streams.is_empty() {
            return self.create();
        }
        let index = self.rng.usize(..self.streams.len());
        if self.shape == Shape::Rich && !self.catch_up(index) {
            return;
        }
        let next = self.streams[index].now.last + 1;
        match self.rng.u8(..40) {
            0..=35 => {
                let size = match self.rng.u8(..60) {
                    0 => self.rng.usize(..600_000),
                    1..=4 => self.rng.usize(..20_000),
                    _ => self.rng.usize(..200),
                };
                let fill = self.rng.u8(..);
                let mut payload = vec![fill; size];
                payload.extend_from_slice(&self.rng.u64(..).to_le_bytes());
                let mut message =
                    Sent { subject: subject_of(self.rng.u8(..5)), payload: payload.len(), ..Sent::default() };
                if self.shape == Shape::Rich {
                    self.enrich(index, &mut message);
                }
                self.publish(index, &message, payload);
            }
            36..=38 => {
                let seq = self.rng.u64(..=next);
                self.remove(index, seq);
            }
            _ => {
                let below = self.rng.bool().then(|| self.rng.u64(..=next));
                let keep = self.rng.u64(..5);
                let filter = match self.shape {
                    Shape::Rich if self.rng.bool() => Some(subject_of(self.rng.u8(..5))),
                    Shape::Rich if self.rng.u8(..4) == 0 => Some(b"s.*".to_vec()),
                    _ => None,
                };
                self.purge(index, filter, below, keep);
            }
        }
    }

    fn enrich(&mut self, index: usize, message: &mut Sent) {
        let stream = &self.streams[index];
        let config = &stream.now.config;
        let rng = &mut self.rng;
        let is_wanted = stream.consumers.iter().any(|consumer| consumer.wants(&message.subject));
        message.unwanted = config.retention == Retention::Interest && !is_wanted;
        message.headers = if rng.u8(..4) == 0 { rng.usize(1..100) } else { 0 };
        // An id of what nobody wanted is not kept over a restart.
        message.id = (!message.unwanted && rng.bool()).then(|| rng.u128(..40) << 64);
        if config.allow_expiry && rng.bool() {
            let queue = config.max_messages.is_some() || config.max_bytes.is_some();
            let never = !queue && rng.u8(..8) == 0;
            message.expires = Some(if never { stream::NEVER } else { self.now + rng.i64(1..1_500) * MS });
        }
    }

    /// Returns whether the message was taken.
    pub(super) fn publish(&mut self, index: usize, message: &Sent, payload: Vec<u8>) -> bool {
        let now = self.now;
        let context = &self.context;
        let stream = &mut self.streams[index];
        let inbound = message.inbound(&payload);
        match self.store.publish(now, stream.of, &inbound) {
            Ok(admitted) => {
                stream.expire(now);
                let mut model = admitted.duplicate.then(|| stream.now.clone());
                let expected = model.as_mut().map(|model| model.admit(now, &inbound, true));
                if admitted.duplicate {
                    assert_eq!(expected, Some(Ok((admitted.seq, true))), "{context}: a duplicate");
                    self.repeated.0 += 1;
                    return false;
                }
                assert_eq!(admitted.seq, stream.now.last + 1, "{context}");
                stream.did(Op::Publish { now, message: message.clone() }, Some(admitted.after));
                stream.payloads.insert(admitted.seq, payload);
                true
            }
            Err(refused) if matches!(refused.why, Refusal::Full | Refusal::Unsettled) => {
                self.refused += u64::from(refused.why == Refusal::Full);
                false
            }
            Err(refused) => {
                // What is too old is not always gone at the same moment.
                let refuses = |model: &Model| model.clone().admit(now, &inbound, false) == Err(refused.why);
                let before = refuses(&stream.now);
                stream.expire(now);
                assert!(before || refuses(&stream.now), "{context}: {refused:?}");
                false
            }
        }
    }

    /// A small message, to see whether it is taken.
    pub(super) fn takes(&mut self, index: usize) -> bool {
        let payload = vec![1; 100];
        let message = Sent { subject: subject_of(1), payload: payload.len(), ..Sent::default() };
        self.publish(index, &message, payload)
    }

    pub(super) fn remove(&mut self, index: usize, seq: u64) {
        let now = self.now;
        let stream = &mut self.streams[index];
        match self.store.remove(now, stream.of, seq) {
            Ok(after) => {
                stream.expire(now);
                let may_lag = self.shape == Shape::Bare || stream.now.config.max_age.is_some();
                let there = stream.now.messages.contains_key(&seq) || may_lag;
                assert!(there, "{}: {seq} is not there", self.context);
                stream.did(Op::Remove { seq }, Some(after));
            }
            Err(refused) if refused.why == Refusal::Full => {}
            Err(refused) => {
                assert_eq!(refused.why, Refusal::NotFound, "{}", self.context);
                stream.expire(now);
                // What is not flushed cannot be removed either.
                let visible = self.store.stream(stream.of).map_or(0, stream::Stream::visible);
                let there = seq <= visible && stream.now.messages.contains_key(&seq);
                assert!(!there || self.shape == Shape::Bare, "{}: {seq} is there", self.context);
            }
        }
    }

    pub(super) fn purge(&mut self, index: usize, filter: Option<Vec<u8>>, below: Option<u64>, keep: u64) {
        let of = self.streams[index].of;
        let purge = Purge { filter: filter.as_deref(), below, keep };
        let after = loop {
            // Which messages are the newest must not depend on when those go whose time has come meanwhile.
            if self.shape == Shape::Rich && !self.catch_up(index) {
                return;
            }
            match self.store.purge(self.now, of, &purge) {
                Ok(Purged::Done { after, .. }) => break after,
                Ok(_) => self.step(),
                Err(refused) => return assert_eq!(refused.why, Refusal::Full, "{}", self.context),
            }
        };
        self.streams[index].expire(self.now);
        self.streams[index].did(Op::Purge { filter, below, keep }, Some(after));
    }

    /// Purges everything, if that can be done at once.
    pub(super) fn purge_all(&mut self, index: usize) -> bool {
        let of = self.streams[index].of;
        let Ok(Purged::Done { after, .. }) = self.store.purge(self.now, of, &Purge::default()) else { return false };
        self.streams[index].did(Op::Purge { filter: None, below: None, keep: 0 }, Some(after));
        true
    }

    /// A turn of the store, and what it has delivered.
    pub(super) fn turn(&mut self) -> Next {
        let mut requests = Vec::new();
        let next = self.store.turn(self.now, &mut self.face, &mut requests);
        self.disk.submit(&mut requests);
        self.note_deliveries();
        self.note_acknowledged();
        next
    }

    pub(super) fn step(&mut self) {
        if self.disk.capacity < u64::MAX {
            self.store.set_free_space(self.disk.free());
        }
        let next = self.turn();
        if let Some((id, outcome)) = self.disk.step() {
            self.store.completed(self.now, id, outcome, &mut self.face);
        } else if !next.again
            && let Some(deadline) = next.deadline
        {
            self.now = self.now.max(deadline);
        }
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..20_000 {
            let Next { again, deadline } = self.turn();
            self.acknowledge();
            if let Some((id, outcome)) = self.disk.step() {
                self.store.completed(self.now, id, outcome, &mut self.face);
            } else if !again {
                match deadline {
                    // Consumers wait for acknowledgements that never come.
                    Some(deadline) if deadline < self.now + 40 * MS || self.store.log().fault().is_some() => {
                        self.now = self.now.max(deadline);
                    }
                    Some(_) if !self.store.log().is_at_rest() => self.now += 10 * MS,
                    _ => return,
                }
            }
        }
        panic!("{}: the store does not come to rest", self.context);
    }

    /// What no consumer needs any more goes from streams that keep nothing else.
    fn note_acknowledged(&mut self) {
        for stream in &mut self.streams {
            for seq in std::mem::take(&mut stream.acknowledged) {
                if let Some(stored) = stream.now.messages.get(&seq).filter(|stored| !stream.needs(seq, stored)).cloned()
                {
                    stream.did(Op::Acknowledged { seq, stored }, None);
                }
            }
        }
    }

    /// Whether a stream has done what its limits demand at this moment.
    fn is_caught_up(&mut self, index: usize) -> bool {
        let Ok(state) = self.store.state(self.streams[index].of) else { return true };
        let (Some(state), Some(of)) = (state, self.store.stream(self.streams[index].of)) else { return false };
        let config = of.config();
        let is_over = config.discard == Discard::Old
            && (config.max_messages.is_some_and(|max| state.messages > max)
                || state.messages > u64::from(config.keep_newest)
                    && config.max_bytes.is_some_and(|max| state.bytes > max));
        let is_old = config.max_age.is_some_and(|age| {
            let first = state.first_time.filter(|_| !config.allow_expiry);
            let model = &self.streams[index].now.messages;
            let old = model.iter().take_while(|(_, stored)| stored.time + age <= self.now);
            first.is_some_and(|time| time + age <= self.now)
                || old
                    .into_iter()
                    .any(|(seq, stored)| stored.expires != Some(stream::NEVER) && of.next_needed(*seq) == Some(*seq))
        });
        !is_over && !is_old && of.next_deadline().is_none_or(|due| due > self.now)
    }

    /// Lets a stream do what its limits demand. Returns false if a fault keeps it from that.
    pub(super) fn catch_up(&mut self, index: usize) -> bool {
        for _ in 0..2_000 {
            if self.is_caught_up(index) {
                return true;
            }
            self.step();
        }
        assert!(
            self.disk.faults.reads + self.disk.faults.commits > 0,
            "{}: does not settle: {}",
            self.context,
            self.describe()
        );
        false
    }

    /// Compares a stream with its model.
    pub(super) fn check(&mut self, index: usize) -> bool {
        let of = self.streams[index].of;
        while !self.catch_up(index) {}
        self.streams[index].now.expire(self.now, EXPIRY_STEP_BITS);
        let model = self.streams[index].now.clone();
        let state = self.store.state(of).expect("is there").expect("is settled");
        let expected = model.state(state.after);
        if state != expected {
            let is_there = |seq: &u64| self.store.stream(of).is_some_and(|of| of.is_visible(*seq));
            let there = (state.first_seq..=state.last_seq).filter(is_there).collect::<BTreeSet<_>>();
            let expected_there = model.messages.keys().copied().collect::<BTreeSet<_>>();
            let apart = there.symmetric_difference(&expected_there).collect::<Vec<_>>();
            self.difference = format!("{state:?} instead of {expected:?}, only in one: {apart:?}");
            return false;
        }
        let from = model.first().saturating_sub(1);
        // What is read moves time on: messages may become too old meanwhile.
        (from..=model.last + 1).all(|seq| {
            self.is_as_expected(index, seq)
                || self.streams[index].has_times() && self.catch_up(index) && self.is_as_expected(index, seq)
        })
    }

    fn is_as_expected(&mut self, index: usize, seq: u64) -> bool {
        let found = self.get(self.streams[index].of, seq);
        let stream = &mut self.streams[index];
        stream.now.expire(self.now, EXPIRY_STEP_BITS);
        let expected = stream.now.messages.get(&seq).map(|stored| stored.subject.clone());
        let is_expected = found == expected.zip(stream.payloads.get(&seq).cloned());
        if !is_expected {
            let found = found.map(|(_, payload)| payload.len());
            self.difference = format!("{seq} has {found:?} bytes instead of {:?}", stream.now.messages.get(&seq));
        }
        is_expected
    }

    /// Reads a message: its subject and payload.
    pub(super) fn get(&mut self, of: Incarnation, seq: u64) -> Option<(Vec<u8>, Vec<u8>)> {
        for _ in 0..20_000 {
            let mut found = None;
            let got = self.store.get(of, seq, |message| {
                found = Some((message.subject.to_vec(), message.payload.to_vec()));
            });
            if !matches!(got.expect("is there"), Got::Later | Got::Unreadable(_)) {
                return found;
            }
            self.step();
        }
        panic!("{}: {seq} is never read", self.context);
    }

    /// All that can be told of the store without reading.
    pub(super) fn describe(&self) -> String {
        let (store, mut out) = (&self.store, String::new());
        for of in store.streams() {
            let stream = store.stream(of).expect("is listed");
            let numbers = (stream.first_seq(), stream.last_seq(), stream.messages(), stream.visible(), stream.lost());
            let occupied = stream.occupied().collect::<Vec<_>>();
            writeln!(out, "{stream:?} {numbers:?} {:?} {occupied:?} {:?}", stream.state(), stream.config()).unwrap();
            for key in store.consumers(of) {
                let consumer = store.consumer(key).expect("is listed");
                let pending = consumer.ack_pending().collect::<Vec<_>>();
                let (info, next, config) = (consumer.info(), consumer.next_seq(), consumer.config());
                writeln!(out, "  {key:?} {info:?} {next} {pending:?} {config:?}").unwrap();
            }
        }
        out
    }
}
