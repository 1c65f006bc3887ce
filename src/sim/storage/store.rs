//! Streams, consumers and the log together on the simulated disk, against a naive model.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::disk::{Disk, Faults};
use super::seeds;
use crate::consumer::{self, Delivery, Origin, Reply, Target};
use crate::log::segments::Sizes;
use crate::log::{DiskFault, Durable, Incarnation, LogId, Message, Pending, StoreId, Time};
use crate::store::{ConsumerKey, Got, Next, Notice, Opened, Options, Outlet, Store};
use crate::stream::{self, Inbound, Purge, Purged, Refusal};

const STORE: StoreId = StoreId([9; 16]);
const ID: LogId = LogId(0);

/// What a stream was asked to do, in order.
#[derive(Clone, Debug)]
enum Op {
    Publish { subject: u8, payload: Vec<u8> },
    Remove { seq: u64 },
    Purge { below: Option<u64>, keep: u64 },
}

/// A stream as anybody would write it down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    messages: BTreeMap<u64, (u8, Vec<u8>)>,
    last: u64,
}

impl Model {
    fn apply(&mut self, op: &Op, limits: &Limits) {
        match op {
            Op::Publish { subject, payload } => {
                self.last += 1;
                self.messages.insert(self.last, (*subject, payload.clone()));
                if let Some(max) = limits.per_subject {
                    while self.messages.values().filter(|(of, _)| of == subject).count() as u64 > max {
                        let oldest = self.messages.iter().find(|(_, (of, _))| of == subject).map(|(seq, _)| *seq);
                        oldest.map(|seq| self.messages.remove(&seq));
                    }
                }
                if let Some(max) = limits.messages {
                    while self.messages.len() as u64 > max {
                        self.messages.pop_first();
                    }
                }
            }
            Op::Remove { seq } => drop(self.messages.remove(seq)),
            Op::Purge { below, keep } => {
                let mut gone = self.messages.keys().copied().filter(|seq| below.is_none_or(|below| *seq < below));
                let mut gone = gone.by_ref().collect::<Vec<_>>();
                gone.truncate(gone.len().saturating_sub(*keep as usize));
                for seq in gone {
                    self.messages.remove(&seq);
                }
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.messages.values().map(|(_, payload)| 30 + 3 + payload.len() as u64).sum()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    messages: Option<u64>,
    per_subject: Option<u64>,
}

struct StreamUnderTest {
    of: Incarnation,
    created: Pending,
    limits: Limits,
    /// What had been done when the store was opened last.
    base: Model,
    /// What was done since, and what each answer waits for.
    ops: Vec<(Op, Pending)>,
    now: Model,
    consumer: Option<ConsumerUnderTest>,
}

struct ConsumerUnderTest {
    key: ConsumerKey,
    created: Pending,
    /// Acknowledged for good.
    final_acks: BTreeSet<u64>,
    /// Acknowledged, and what makes it final.
    acks: Vec<(u64, Pending)>,
    delivered: BTreeSet<u64>,
}

#[derive(Default)]
struct Face {
    deliveries: Vec<(ConsumerKey, u64, Vec<u8>, u32)>,
    proof: Option<Durable>,
    notices: Vec<Notice>,
}

impl Outlet for Face {
    fn deliver(&mut self, consumer: ConsumerKey, _: Target, message: &Message<'_>, delivery: &Delivery) {
        self.deliveries.push((consumer, message.seq, message.payload.to_vec(), delivery.deliveries));
    }

    fn event(&mut self, _: ConsumerKey, _: consumer::Event) {}

    fn flushed(&mut self, proof: &Durable) {
        self.proof = Some(*proof);
    }

    fn notice(&mut self, notice: &Notice) {
        self.notices.push(notice.clone());
    }
}

struct World {
    rng: fastrand::Rng,
    options: Options,
    disk: Disk,
    store: Store,
    face: Face,
    now: Time,
    streams: Vec<StreamUnderTest>,
    /// Publishes that were refused for want of space.
    refused: u64,
    context: String,
}

fn subject_of(number: u8) -> Vec<u8> {
    format!("s.{number}").into_bytes()
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let log = crate::log::Options { sizes: Sizes { min: 1 << 20, max: 2 << 20 }, ..Default::default() };
        let options =
            Options { log, cache_bytes: [100_000, 64 << 20][rng.usize(..2)], cleaning_bytes_per_second: 1 << 30 };
        let mut disk = Disk::new(seed);
        disk.faults = faults;
        let store = Store::create(ID, STORE, options);
        let context = format!("seed {seed}");
        let mut world = Self {
            rng,
            options,
            disk,
            store,
            face: Face::default(),
            now: 1_000,
            streams: Vec::new(),
            refused: 0,
            context,
        };
        for _ in 0..world.rng.usize(1..4) {
            world.create();
        }
        world
    }

    fn create(&mut self) {
        let limits = match self.rng.u8(..4) {
            0 => Limits { messages: Some(self.rng.u64(1..200)), per_subject: None },
            1 => Limits { messages: None, per_subject: Some(self.rng.u64(1..4)) },
            _ => Limits::default(),
        };
        let config =
            stream::Config { max_messages: limits.messages, max_per_subject: limits.per_subject, ..Default::default() };
        let (of, created) = self.store.create_stream(self.now, config, b"meta");
        let consumer = self.rng.bool().then(|| {
            let config = consumer::Config {
                ack_wait_ns: 50_000_000,
                max_ack_pending: NonZeroU32::new(self.rng.u32(1..100)),
                ..Default::default()
            };
            let made = self.store.create_consumer(self.now, of, config, Origin::at(1), b"").unwrap();
            let (key, created) = made.unwrap();
            self.store.join(self.now, key, 50).unwrap();
            ConsumerUnderTest {
                key,
                created,
                final_acks: BTreeSet::new(),
                acks: Vec::new(),
                delivered: BTreeSet::new(),
            }
        });
        let (base, now) = (Model::default(), Model::default());
        self.streams.push(StreamUnderTest { of, created, limits, base, ops: Vec::new(), now, consumer });
    }

    fn act(&mut self) {
        if self.streams.is_empty() {
            return self.create();
        }
        let index = self.rng.usize(..self.streams.len());
        let of = self.streams[index].of;
        let op = match self.rng.u8(..40) {
            0..=35 => {
                let size = match self.rng.u8(..60) {
                    0 => self.rng.usize(..600_000),
                    1..=4 => self.rng.usize(..20_000),
                    _ => self.rng.usize(..200),
                };
                let fill = self.rng.u8(..);
                let mut payload = vec![fill; size];
                payload.extend_from_slice(&self.rng.u64(..).to_le_bytes());
                Op::Publish { subject: self.rng.u8(..5), payload }
            }
            36..=38 => Op::Remove { seq: self.rng.u64(..=self.streams[index].now.last + 1) },
            _ => {
                let below = self.rng.bool().then(|| self.rng.u64(..=self.streams[index].now.last + 1));
                Op::Purge { below, keep: self.rng.u64(..5) }
            }
        };
        let after = match &op {
            Op::Publish { subject, payload } => {
                let subject = subject_of(*subject);
                let message = Inbound { subject: &subject, payload, ..Default::default() };
                match self.store.publish(self.now, of, &message) {
                    Ok(admitted) => {
                        assert_eq!(admitted.seq, self.streams[index].now.last + 1, "{}", self.context);
                        admitted.after
                    }
                    Err(refused) => {
                        assert!(matches!(refused.why, Refusal::Full | Refusal::Unsettled), "{refused:?}");
                        self.refused += u64::from(refused.why == Refusal::Full);
                        return;
                    }
                }
            }
            Op::Remove { seq } => match self.store.remove(self.now, of, *seq) {
                Ok(after) => after,
                Err(refused) if refused.why == Refusal::Full => return,
                Err(refused) => {
                    assert_eq!(refused.why, Refusal::NotFound, "{}", self.context);
                    // What is not flushed cannot be removed either.
                    let visible = self.store.stream(of).map_or(0, stream::Stream::visible);
                    let there = *seq <= visible && self.streams[index].now.messages.contains_key(seq);
                    assert!(!there, "{}: {seq} is there", self.context);
                    return;
                }
            },
            Op::Purge { below, keep } => {
                let purge = Purge { filter: None, below: *below, keep: *keep };
                loop {
                    match self.store.purge(self.now, of, &purge) {
                        Ok(Purged::Done { after, .. }) => break after,
                        Ok(_) => self.step(),
                        Err(refused) => {
                            assert_eq!(refused.why, Refusal::Full, "{}", self.context);
                            return;
                        }
                    }
                }
            }
        };
        let stream = &mut self.streams[index];
        stream.now.apply(&op, &stream.limits);
        stream.ops.push((op, after));
    }

    fn acknowledge(&mut self) {
        for (key, seq, payload, deliveries) in std::mem::take(&mut self.face.deliveries) {
            let Some(stream) = self.streams.iter_mut().find(|stream| stream.of == key.stream) else { continue };
            let Some(consumer) = &mut stream.consumer else { continue };
            assert!(!consumer.final_acks.contains(&seq), "{}: {seq} comes again", self.context);
            if let Some((_, expected)) = stream.now.messages.get(&seq) {
                assert!(*expected == payload, "{}: content of {seq}", self.context);
            }
            if deliveries == 1 {
                let before = consumer.delivered.last().copied().unwrap_or(0);
                assert!(seq > before, "{}: {seq} after {before}", self.context);
            }
            consumer.delivered.insert(seq);
            if self.rng.u8(..4) > 0 {
                let reply = self.store.with_consumer(key, |consumer| consumer.ack(self.now, seq));
                if let Some(Reply::Done(_)) = reply
                    && self.rng.bool()
                {
                    let after = self.store.sync_consumer(self.now, key).unwrap();
                    consumer.acks.push((seq, after));
                }
            }
        }
    }

    /// Carries out what goes through the log, until it is done.
    fn purge_all(&mut self, index: usize) -> bool {
        let of = self.streams[index].of;
        let purge = Purge { filter: None, below: None, keep: 0 };
        let after = match self.store.purge(self.now, of, &purge) {
            Ok(Purged::Done { after, .. }) => after,
            _ => return false,
        };
        let op = Op::Purge { below: None, keep: 0 };
        let stream = &mut self.streams[index];
        stream.now.apply(&op, &stream.limits);
        stream.ops.push((op, after));
        true
    }

    /// Whether a small message is taken.
    fn takes(&mut self, index: usize) -> bool {
        let (of, payload) = (self.streams[index].of, vec![1; 100]);
        let subject = subject_of(1);
        let message = Inbound { subject: &subject, payload: &payload, ..Default::default() };
        let Ok(admitted) = self.store.publish(self.now, of, &message) else { return false };
        let op = Op::Publish { subject: 1, payload };
        let stream = &mut self.streams[index];
        stream.now.apply(&op, &stream.limits);
        stream.ops.push((op, admitted.after));
        true
    }

    fn step(&mut self) {
        if self.disk.capacity < u64::MAX {
            self.store.set_free_space(self.disk.free());
        }
        let mut requests = Vec::new();
        let next = self.store.turn(self.now, &mut self.face, &mut requests);
        self.disk.submit(&mut requests);
        if let Some((id, outcome)) = self.disk.step() {
            self.store.completed(self.now, id, outcome, &mut self.face);
        } else if !next.again
            && let Some(deadline) = next.deadline
        {
            self.now = self.now.max(deadline);
        }
    }

    fn settle(&mut self) {
        for _ in 0..20_000 {
            let mut requests = Vec::new();
            let Next { again, deadline } = self.store.turn(self.now, &mut self.face, &mut requests);
            self.acknowledge();
            self.disk.submit(&mut requests);
            if let Some((id, outcome)) = self.disk.step() {
                self.store.completed(self.now, id, outcome, &mut self.face);
            } else if !again {
                match deadline {
                    // Consumers wait for acknowledgements that never come.
                    Some(deadline) if deadline < self.now + 40_000_000 || self.store.log().fault().is_some() => {
                        self.now = self.now.max(deadline);
                    }
                    Some(_) if !self.store.log().is_at_rest() => self.now += 10_000_000,
                    _ => return,
                }
            }
        }
        panic!("{}: the store does not come to rest", self.context);
    }

    fn check(&mut self, index: usize) -> bool {
        let (of, model) = (self.streams[index].of, self.streams[index].now.clone());
        let state = loop {
            match self.store.state(of).expect("is there") {
                Some(state) => break state,
                None => self.step(),
            }
        };
        if state.last_seq != model.last || state.messages != model.messages.len() as u64 || state.bytes != model.bytes()
        {
            return false;
        }
        let subjects = model.messages.values().map(|(subject, _)| *subject).collect::<BTreeSet<_>>().len() as u64;
        if state.subjects != subjects {
            return false;
        }
        let first = model.messages.first_key_value().map_or(model.last + 1, |(seq, _)| *seq);
        for seq in first.saturating_sub(1)..=model.last + 1 {
            let mut found = None;
            loop {
                let got = self.store.get(of, seq, |message| {
                    found = Some((message.subject.to_vec(), message.payload.to_vec()));
                });
                match got.expect("is there") {
                    Got::Later | Got::Unreadable(_) => self.step(),
                    _ => break,
                }
            }
            let expected = model.messages.get(&seq).map(|(subject, payload)| (subject_of(*subject), payload.clone()));
            if found != expected {
                return false;
            }
        }
        true
    }

    /// Stops, perhaps in the middle of everything, opens again, and compares.
    fn restart(&mut self, clean: bool) {
        if clean {
            self.settle();
            self.store.stop(self.now);
            for _ in 0..20_000 {
                if self.store.is_stopped() {
                    break;
                }
                self.step();
            }
            assert!(self.store.is_stopped() || self.store.log().fault().is_some(), "{}: stops", self.context);
        }
        self.disk.crash();
        let faults = std::mem::take(&mut self.disk.faults);
        let Opened { store, report } =
            Store::open(&mut self.disk, self.now, ID, STORE, self.options).unwrap_or_else(|error| panic!("{error}"));
        self.store = store;
        let damage = report.repairs.iter().filter(|repair| repair.is_damage()).collect::<Vec<_>>();
        assert!(damage.is_empty() && report.senseless == 0, "{}: {report:?}", self.context);
        let proof = self.face.proof.take();
        let is_proven = |pending: Pending| pending.is_none() || proof.is_some_and(|proof| proof.covers(pending));
        self.face = Face::default();
        let mut streams = std::mem::take(&mut self.streams);
        streams.retain(|stream| {
            let there = self.store.stream(stream.of).is_some();
            assert!(there || !is_proven(stream.created), "{}: a stream is gone", self.context);
            there
        });
        self.streams = streams;
        for index in 0..self.streams.len() {
            let stream = &mut self.streams[index];
            let ops = std::mem::take(&mut stream.ops);
            let proven = ops.iter().filter(|(_, after)| is_proven(*after)).count();
            let base = stream.base.clone();
            stream.created = Pending::NONE;
            if let Some(consumer) = &mut stream.consumer {
                let there = self.store.consumer(consumer.key).is_some();
                assert!(there || !is_proven(consumer.created), "{}: a consumer is gone", self.context);
                let finals = consumer.acks.drain(..).filter(|(_, after)| is_proven(*after));
                consumer.final_acks.extend(finals.map(|(seq, _)| seq));
                consumer.delivered.clear();
                consumer.created = Pending::NONE;
                if !there {
                    stream.consumer = None;
                } else {
                    let key = consumer.key;
                    self.store.join(self.now, key, 50).unwrap();
                }
            }
            // The state is that after some operation at or behind the last proven one.
            let matching = (proven..=ops.len()).find(|count| {
                let mut model = base.clone();
                ops[..*count].iter().for_each(|(op, _)| model.apply(op, &self.streams[index].limits));
                self.streams[index].now = model;
                self.check(index)
            });
            let stream = &self.streams[index];
            assert!(
                matching.is_some(),
                "{}: stream {} is in no state that it may be in: {:?}, {proven} of {} proven",
                self.context,
                stream.of.get(),
                self.store.stream(stream.of),
                ops.len()
            );
            self.streams[index].base = self.streams[index].now.clone();
        }
        self.disk.faults = faults;
    }
}

fn run(seed: u64, faults: Faults) {
    let mut world = World::new(seed, faults);
    for life in 0..4 {
        world.context = format!("seed {seed}, life {life}");
        for _ in 0..world.rng.usize(1..600) {
            match world.rng.u8(..12) {
                0..=6 => world.act(),
                7..=9 => world.step(),
                10 => world.acknowledge(),
                _ => world.now += world.rng.i64(0..20_000_000),
            }
        }
        if world.rng.u8(..3) == 0 {
            world.settle();
            for index in 0..world.streams.len() {
                assert!(world.check(index), "{}: differs from the model", world.context);
            }
        }
        let clean = world.rng.u8(..4) == 0;
        world.restart(clean);
    }
}

/// What is erased can be found in no file any more, and what lay beside it is there.
#[test]
fn erased_messages_leave_the_disk() {
    let mut world = World::new(7, Faults::default());
    let of = world.store.create_stream(world.now, stream::Config::default(), b"").0;
    let secret = b"the secret that nobody shall find";
    for index in 0..3000_u32 {
        let payload = if index == 1500 { secret.to_vec() } else { vec![index as u8; 400] };
        let message = Inbound { subject: b"s", payload: &payload, ..Default::default() };
        world.store.publish(world.now, of, &message).unwrap();
        if index % 100 == 0 {
            world.settle();
        }
    }
    world.settle();
    assert!(world.disk.contains(secret));
    world.store.erase(world.now, of, 1501).unwrap();
    for _ in 0..200 {
        world.now += 100_000_000;
        world.settle();
    }
    assert!(!world.disk.contains(secret));
    let state = world.store.state(of).unwrap().unwrap();
    assert_eq!((state.messages, state.first_seq, state.last_seq), (2999, 1, 3000));
}

/// A device that fails is an error for whoever wants a message, not a promise for ever; when it works again the message is
/// there.
#[test]
fn a_device_that_fails_is_told() {
    let mut world = World::new(11, Faults::default());
    let of = world.store.create_stream(world.now, stream::Config::default(), b"").0;
    let message = Inbound { subject: b"s", payload: b"payload", ..Default::default() };
    world.store.publish(world.now, of, &message).unwrap();
    world.restart(true);
    let get = |world: &mut World| {
        for _ in 0..20 {
            match world.store.get(of, 1, |_| {}).unwrap() {
                Got::Later => world.step(),
                got => return got,
            }
        }
        panic!("no answer: {:?}", world.face.notices)
    };
    world.disk.faults.reads = 1000;
    for _ in 0..3 {
        assert_eq!(get(&mut world), Got::Unreadable(DiskFault::Io(libc::EIO)));
    }
    assert!(matches!(world.face.notices[0], Notice::ReadFailed { .. }), "{:?}", world.face.notices);
    world.disk.faults.reads = 0;
    world.settle();
    assert_eq!(get(&mut world), Got::Message);
}

/// Returns how many publishes were refused.
fn run_full(seed: u64) -> u64 {
    let mut world = World::new(seed, Faults::default());
    world.disk.capacity = world.rng.u64(9 << 20..20 << 20);
    for life in 0..3 {
        world.context = format!("seed {seed}, life {life}");
        for _ in 0..world.rng.usize(100..2500) {
            match world.rng.u8(..12) {
                0..=8 => world.act(),
                9 => world.step(),
                10 => world.acknowledge(),
                _ => world.now += world.rng.i64(0..20_000_000),
            }
        }
        world.settle();
        for index in 0..world.streams.len() {
            assert!(world.check(index), "{}: differs from the model", world.context);
        }
        if world.rng.bool() {
            let clean = world.rng.bool();
            world.restart(clean);
        }
        // Space comes back when it is asked for, and by itself.
        for index in 0..world.streams.len() {
            let purged = (0..100).any(|_| {
                world.now += 100_000_000;
                world.settle();
                world.purge_all(index)
            });
            assert!(purged, "{}: stream {index} cannot be purged", world.context);
        }
        for index in 0..world.streams.len() {
            let takes = (0..200).any(|_| {
                world.now += 100_000_000;
                world.settle();
                world.takes(index)
            });
            assert!(takes, "{}: stream {index} takes nothing any more: {:?}", world.context, world.store.log());
        }
        let clean = world.rng.u8(..4) == 0;
        world.restart(clean);
    }
    world.refused
}

/// On a disk that is full messages are refused, nothing is lost, and purges make room again.
#[test]
fn full_disks() {
    let refused = seeds(200).map(run_full).sum::<u64>();
    assert!(refused > 0, "no disk was full");
}

/// Acknowledged publishes, removals and purges survive crashes; what is there is a state that the stream was in.
#[test]
fn crashes() {
    for seed in seeds(1000) {
        run(seed, Faults::default());
    }
}

/// The same while writes, flushes, reads and the making of files fail now and then.
#[test]
fn failing_disks() {
    for seed in seeds(1000) {
        run(seed, Faults { commits: 30, prepares: 30, reads: 30 });
    }
}
