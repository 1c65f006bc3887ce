//! The log alone on the simulated disk.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::disk::{Disk, Faults};
use super::seeds;
use crate::log::recover::{Effect, Recovered, Repair, Visitor, recover};
use crate::log::segments::Sizes;
use crate::log::{
    BatchNo, Durable, Event, Flaw, Incarnation, Kind, Log, LogId, Message, Options, Pending, PlacedRun, SegmentNo,
    Slot, StoreId, Time, Urgency,
};

const STORE: StoreId = StoreId([7; 16]);
const ID: LogId = LogId(3);

fn options(rng: &mut fastrand::Rng) -> Options {
    let max = [1 << 20, 2 << 20, 8 << 20][rng.usize(..3)];
    Options { sizes: Sizes { min: 1 << 20, max }, ..Options::default() }
}

/// What was appended, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Message { stream: u64, seq: u64, text: Vec<u8> },
    Control { stream: u64, text: Vec<u8> },
}

/// Collects what recovery tells.
#[derive(Default)]
struct Collected {
    entries: Vec<Entry>,
    snapshots: BTreeMap<u64, Vec<u8>>,
    damaged: u32,
}

impl Visitor for Collected {
    fn snapshot(&mut self, of: Incarnation, snapshot: &[u8]) -> Result<(), &'static str> {
        self.snapshots.insert(of.get(), snapshot.to_vec());
        Ok(())
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn messages<'a>(
        &mut self,
        run: &PlacedRun,
        effect: Effect,
        messages: &mut dyn Iterator<Item = Result<(Message<'a>, u32), Flaw>>,
    ) {
        for message in messages {
            let (message, _) = message.expect("content was verified");
            if effect == Effect::Whole {
                let text = message.payload.to_vec();
                self.entries.push(Entry::Message { stream: run.stream.get(), seq: message.seq, text });
            }
        }
    }

    fn piece(&mut self, _: &PlacedRun) {}

    fn control(&mut self, run: &PlacedRun, effect: Effect, record: &[u8]) {
        if effect == Effect::Whole && run.kind == Kind::Consumer {
            self.entries.push(Entry::Control { stream: run.stream.get(), text: record.to_vec() });
        }
    }

    fn damaged(&mut self, _: &PlacedRun, _: Effect, _: Flaw) {
        self.damaged += 1;
    }
}

struct World {
    rng: fastrand::Rng,
    options: Options,
    disk: Disk,
    log: Log,
    now: Time,
    streams: Vec<(Incarnation, u64)>,
    /// Everything appended since the last opening, and what each waits for.
    appended: Vec<(Entry, Pending)>,
    /// What earlier lives are known to have left, in order.
    kept: Vec<Entry>,
    proof: Option<Durable>,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let options = options(&mut rng);
        let mut disk = Disk::new(seed);
        disk.faults = faults;
        let mut log = Log::create(ID, STORE, options);
        let streams = (0..rng.usize(1..4)).map(|_| (log.new_incarnation(), 0)).collect();
        Self { rng, options, disk, log, now: 0, streams, appended: Vec::new(), kept: Vec::new(), proof: None }
    }

    fn append(&mut self) {
        let index = self.rng.usize(..self.streams.len());
        let (stream, seq) = &mut self.streams[index];
        match self.rng.u8(..20) {
            0..=16 => {
                let size = match self.rng.u8(..40) {
                    0 => self.rng.usize(..700_000),
                    1..=3 => self.rng.usize(..40_000),
                    _ => self.rng.usize(..300),
                };
                let mut text = Vec::with_capacity(size);
                text.resize_with(size, || self.rng.u8(..));
                let message =
                    Message { seq: *seq + 1, time: self.now, subject: b"a.b", payload: &text, ..Message::default() };
                let Ok((pending, _)) = self.log.message(self.now, *stream, 1, &message) else { return };
                *seq += 1;
                self.appended.push((Entry::Message { stream: stream.get(), seq: *seq, text }, pending));
            }
            _ => {
                let mut text = String::new();
                write!(text, "control {}", self.rng.u32(..)).unwrap();
                if self.rng.u8(..20) == 0 {
                    // More than one record may be.
                    text = text.repeat(self.rng.usize(1..50_000));
                }
                let urgency = if self.rng.bool() { Urgency::Now } else { Urgency::RideAlong };
                let pending = self.log.control(self.now, Some(*stream), Kind::Consumer, text.as_bytes(), urgency);
                self.appended.push((Entry::Control { stream: stream.get(), text: text.into() }, pending));
            }
        }
    }

    fn turn(&mut self) {
        let mut requests = Vec::new();
        self.log.end_turn(self.now, &mut requests);
        self.disk.submit(&mut requests);
    }

    fn complete_one(&mut self) {
        let Some((id, outcome)) = self.disk.step() else { return };
        let mut events = Vec::new();
        self.log.completed(self.now, id, outcome, &mut events);
        for event in events {
            if let Event::Flushed { proof, .. } = event {
                self.proof = Some(proof);
            }
        }
    }

    /// Lets time pass until nothing is left to be done.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.turn();
            if !self.disk.is_idle() {
                self.complete_one();
            } else if let Some(deadline) = self.log.deadline() {
                self.now = self.now.max(deadline);
            } else {
                return;
            }
        }
        panic!("the log does not come to rest");
    }

    fn open(&mut self) -> (Collected, Recovered) {
        let mut collected = Collected::default();
        let recovered = recover(&mut self.disk, ID, STORE, self.options, &mut collected).expect("opens");
        (collected, recovered)
    }

    /// Crashes, opens again, and checks what is there.
    fn crash(&mut self, context: &str) {
        self.disk.crash();
        let (collected, recovered) = self.open();
        let damage = recovered.repairs.iter().filter(|repair| repair.is_damage()).collect::<Vec<_>>();
        assert!(damage.is_empty(), "{context}: {damage:?}");
        let (again, second) = self.open();
        assert_eq!(again.entries, collected.entries, "{context}: opening twice");
        assert_eq!(second.repairs, recovered.repairs, "{context}: opening twice");

        let mut expected = std::mem::take(&mut self.kept);
        let appended = std::mem::take(&mut self.appended);
        let proven = appended.iter().filter(|(_, pending)| self.proof.is_some_and(|proof| proof.covers(*pending)));
        let proven = expected.len() + proven.count();
        expected.extend(appended.into_iter().map(|(entry, _)| entry));
        self.kept = self.check(&collected.entries, &expected, proven, context);
        for (stream, seq) in &mut self.streams {
            let last = self.kept.iter().rev().find_map(|entry| match entry {
                Entry::Message { stream: of, seq, .. } if *of == stream.get() => Some(*seq),
                _ => None,
            });
            *seq = last.unwrap_or(0);
        }
        self.log = recovered.log;
        self.proof = None;
    }

    /// What was found must be, stream by stream, a beginning of what was appended that holds everything proven.
    fn check(&self, found: &[Entry], appended: &[Entry], proven: usize, context: &str) -> Vec<Entry> {
        let stream_of = |entry: &Entry| match entry {
            Entry::Message { stream, .. } | Entry::Control { stream, .. } => *stream,
        };
        for (stream, _) in &self.streams {
            let of = |entries: &[Entry]| {
                entries.iter().filter(|entry| stream_of(entry) == stream.get()).cloned().collect::<Vec<_>>()
            };
            let (found, appended, proven) = (of(found), of(appended), of(&appended[..proven]).len());
            assert!(found.len() >= proven, "{context}: {} of {proven} proven records", found.len());
            assert!(found.len() <= appended.len(), "{context}: more than was appended");
            for (index, (found, appended)) in found.iter().zip(&appended).enumerate() {
                assert!(found == appended, "{context}: record {index} differs");
            }
        }
        found.to_vec()
    }
}

fn run(seed: u64, faults: Faults) {
    let mut world = World::new(seed, faults);
    let context = format!("seed {seed}");
    for life in 0..3 {
        for _ in 0..world.rng.usize(1..400) {
            match world.rng.u8(..10) {
                0..=4 => world.append(),
                5 | 6 => world.turn(),
                7 | 8 => world.complete_one(),
                _ => world.now += world.rng.i64(0..120_000_000),
            }
        }
        if world.rng.bool() {
            world.settle();
            let proof = world.proof;
            let unproven =
                world.appended.iter().filter(|(_, pending)| !proof.is_some_and(|proof| proof.covers(*pending)));
            assert_eq!(unproven.count(), 0, "{context}: everything is flushed at rest");
        }
        world.crash(&format!("{context}, life {life}"));
    }
}

/// Works until so many segments have been begun, and then until everything is at rest.
fn fill(world: &mut World, segments: u32) {
    let begun = |world: &World| world.disk.noted().map_or(0, |(segment, _)| segment.0);
    let from = begun(world);
    while begun(world) < from + segments {
        world.append();
        world.turn();
        world.complete_one();
    }
    world.settle();
}

/// Segments that are lost from the end on: told once, and only they; the log goes on behind them, also if a crash comes
/// before anything is written, and takes no notice of them when they come back.
fn lose(seed: u64) {
    let mut world = World::new(seed, Faults::default());
    fill(&mut world, 4);
    world.crash(&format!("seed {seed}, whole"));
    let segments = world.log.segments().map(|open| (open.segment, open.slot)).collect::<Vec<_>>();
    let count = world.rng.usize(1..=segments.len());
    let context = format!("seed {seed}, {count} of {} lost", segments.len());
    assert_eq!(world.disk.noted(), segments.last().copied(), "{context}");
    let mut lost = Vec::new();
    for (segment, slot) in &segments[segments.len() - count..] {
        lost.push((*segment, *slot, world.disk.exchange(*slot, None)));
    }
    for _ in 0..2 {
        world.disk.crash();
        let (collected, recovered) = world.open();
        let damage = recovered.repairs.iter().filter(|repair| repair.is_damage()).collect::<Vec<_>>();
        let [Repair::NewestMissing { slot, segment, last }] = damage[..] else { panic!("{context}: {damage:?}") };
        assert_eq!(Some(&(*segment, *slot)), segments.last(), "{context}");
        assert_eq!(*last == BatchNo(0), count == segments.len(), "{context}");
        let appended = std::mem::take(&mut world.kept);
        world.kept = world.check(&collected.entries, &appended, 0, &context);
        world.log = recovered.log;
        world.proof = None;
        for (stream, seq) in &mut world.streams {
            let of = |entry: &&Entry| matches!(entry, Entry::Message { stream: of, .. } if *of == stream.get());
            *seq = world.kept.iter().filter(of).count() as u64;
        }
    }
    fill(&mut world, 1);
    world.crash(&format!("{context}, went on"));
    let new = world.log.segments().last().map(|open| open.segment);
    assert!(new > segments.last().map(|(segment, _)| *segment), "{context}: {new:?}");

    let mut back = Vec::new();
    for (segment, slot, file) in lost {
        assert!(world.disk.exchange(slot, file).is_none(), "{context}: another file is in its place");
        back.push((segment, slot));
    }
    let (collected, recovered) = world.open();
    assert_eq!(collected.entries, world.kept, "{context}, back");
    let late = |repair: &Repair| match repair {
        Repair::LateSegment { slot, segment } => Some((*segment, *slot)),
        repair => panic!("{context}, back: {repair}"),
    };
    let told = recovered.repairs.iter().filter(|repair| repair.is_damage()).filter_map(late);
    assert_eq!(told.collect::<Vec<(SegmentNo, Slot)>>(), back, "{context}");
}

/// What has been lost from the end of the log is told, and does not get into what is written later.
#[test]
fn lost_ends_are_told() {
    seeds(50).for_each(lose);
}

/// Nothing proven is missing after a crash, nothing comes back changed, and nothing is taken for damage.
#[test]
fn crashes_lose_nothing_proven() {
    for seed in seeds(700) {
        run(seed, Faults::default());
    }
}

/// The same while writes and flushes fail now and then.
#[test]
fn failing_flushes_lose_nothing_proven() {
    for seed in seeds(700) {
        run(seed, Faults { commits: 50, prepares: 50, ..Faults::default() });
    }
}
