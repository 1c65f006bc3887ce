//! Faults that nobody is told of: writes that land elsewhere, and bits that flip while nobody looks.
//!
//! Messages may be lost then, but never in silence; what is served is what was stored; what was removed stays so unless
//! the log says that it has lost such records; and the store goes on.

use std::collections::{BTreeMap, BTreeSet};

use super::consumers::Face;
use super::disk::Faults;
use super::stream::Op;
use super::world::{Shape, World};
use super::{is_whole_run, seeds};
use crate::log::recover::Repair;
use crate::log::{Kind, Pending};
use crate::store::{Notice, Report};
use crate::stream::tests::model::{Model, Stored};

/// What a stream holds after a crash, whatever of it that was not proven has survived.
struct Expected {
    /// In every state that it may be in.
    surely: BTreeSet<u64>,
    /// In some state that it may be in.
    perhaps: BTreeSet<u64>,
    /// When each message of this life was stored, in flushes; what is older was at zero.
    stored: BTreeMap<u64, usize>,
    /// The same for those that were removed.
    removed: BTreeMap<u64, usize>,
}

/// The flush that has proven something, counted from one; `None` if none has.
fn flush_of(face: &Face, pending: Pending) -> Option<usize> {
    face.proofs.iter().position(|proof| proof.covers(pending)).map(|index| index + 1)
}

/// Limits take other messages away when some are lost.
fn has_limits(model: &Model) -> bool {
    model.config.max_messages.is_some() || model.config.max_per_subject.is_some()
}

fn expect(base: &Model, ops: &[(Op, Option<Pending>)], face: &Face) -> Expected {
    let mut model = base.clone();
    let proven = ops.iter().rposition(|(_, after)| after.is_some_and(|after| face.is_proven(after)));
    let proven = proven.map_or(0, |last| last + 1);
    let (mut stored, mut removed) = (BTreeMap::new(), BTreeMap::new());
    let mut states: Option<(BTreeSet<u64>, BTreeSet<u64>)> = None;
    for count in 0..=ops.len() {
        if count > 0 {
            let (op, after) = &ops[count - 1];
            let before = model.messages.keys().copied().collect::<BTreeSet<_>>();
            op.apply(&mut model);
            if let Some(flush) = after.and_then(|after| flush_of(face, after)) {
                let gone = before.into_iter().filter(|seq| !model.messages.contains_key(seq));
                removed.extend(gone.map(|seq| (seq, flush)));
                if let Op::Publish { .. } = op {
                    stored.insert(model.last, flush);
                }
            }
        }
        if count >= proven {
            let (surely, perhaps) =
                states.get_or_insert_with(|| (model.messages.keys().copied().collect(), BTreeSet::new()));
            surely.retain(|seq| model.messages.contains_key(seq));
            perhaps.extend(model.messages.keys());
        }
    }
    let (surely, perhaps) = states.unwrap_or_default();
    Expected { surely, perhaps, stored, removed }
}

/// Whether the report says that records other than messages are lost.
fn lacks_records(report: &Report) -> bool {
    report.senseless > 0
        || report.repairs.iter().any(|repair| match repair {
            Repair::DamagedRun { run, .. } => run.kind != Kind::Messages,
            Repair::LostBatches { .. }
            | Repair::MissingSegments { .. }
            | Repair::NewestMissing { .. }
            | Repair::NoCheckpoint => true,
            _ => false,
        })
}

impl World {
    /// Stops, lets bits rot, opens again, and looks at what is left.
    fn restart_damaged(&mut self, clean: bool, rot: u32) {
        if clean {
            self.stop_anyhow();
        }
        self.disk.crash();
        self.disk.rot(rot);
        let faults = std::mem::take(&mut self.disk.faults);
        let report = self.open();
        let face = std::mem::take(&mut self.face);
        let is_damaged = report.senseless > 0 || report.repairs.iter().any(Repair::is_damage);
        let mut streams = std::mem::take(&mut self.streams);
        // What was lost without a word, and what has survived: by flush.
        let (mut silent, mut survived) = (Vec::new(), 0);
        streams.retain_mut(|stream| {
            let ops = std::mem::take(&mut stream.ops);
            let mut expected = expect(&stream.base, &ops, &face);
            let is_sure = !has_limits(&stream.base) || !self.has_lost.contains(&stream.of);
            if !is_sure {
                expected.surely.clear();
            }
            let is_new = stream.created != Pending::NONE;
            let created = if is_new { flush_of(&face, stream.created) } else { Some(0) };
            stream.created = Pending::NONE;
            let Some(found) = self.store.stream(stream.of) else {
                silent.extend(created.filter(|_| !is_damaged).map(|flush| (flush, 0, "a stream is lost")));
                return false;
            };
            let last = found.last_seq();
            let mut model = stream.base.clone();
            ops.iter().for_each(|(op, _)| op.apply(&mut model));
            let mut history = stream.base.messages.clone();
            history.extend(
                ops.iter()
                    .scan(stream.base.clone(), |model, (op, _)| {
                        op.apply(model);
                        Some(model.messages.last_key_value().map(|(seq, stored)| (*seq, stored.clone())))
                    })
                    .flatten(),
            );
            let upto = stream.payloads.last_key_value().map_or(0, |(seq, _)| *seq).max(last) + 1;
            let mut served = BTreeMap::new();
            let mut missing = Vec::new();
            for seq in 1..=upto {
                let Some((subject, payload)) = self.get(stream.of, seq) else {
                    missing.extend(expected.surely.contains(&seq).then_some(seq));
                    continue;
                };
                assert!(
                    stream.payloads.get(&seq) == Some(&payload),
                    "{}: another content of {seq} in {:?}",
                    self.context,
                    stream.of
                );
                if is_sure && !expected.perhaps.contains(&seq) && !lacks_records(&report) {
                    silent.push((expected.removed.get(&seq).copied().unwrap_or(0), seq, "is there again"));
                }
                survived = survived.max(expected.stored.get(&seq).copied().unwrap_or(0));
                // What had been removed may be there again.
                let again = Stored { time: 0, subject, headers: 0, payload: payload.len(), expires: None, id: None };
                let stored = history.get(&seq).unwrap_or(&again);
                assert!(stored.subject == again.subject, "{}: another subject of {seq}", self.context);
                served.insert(seq, stored.clone());
            }
            self.turn();
            let is_told = is_damaged
                || face
                    .notices
                    .iter()
                    .chain(&self.face.notices)
                    .any(|notice| matches!(notice, Notice::Damaged { stream: of, .. } if *of == stream.of));
            if is_damaged || !missing.is_empty() {
                self.has_lost.insert(stream.of);
            }
            if !is_told {
                let lost = missing.into_iter();
                let lost = lost.map(|seq| (expected.stored.get(&seq).copied().unwrap_or(0), seq, "is lost"));
                silent.extend(lost);
            }
            stream.now.messages = served;
            stream.now.last = last;
            stream.payloads.retain(|seq, _| *seq <= last);
            stream.base = stream.now.clone();
            true
        });
        // The last commit that is on the disk cannot tell that it was flushed, nor can the one before it if it began
        // before that was known.
        let lost = silent.iter().min().filter(|(flush, ..)| survived > flush + 1);
        assert!(lost.is_none(), "{}: {lost:?} of {silent:?}, {survived} is there: {report:?}", self.context);
        self.streams = streams;
        self.takes_messages(&report);
        self.disk.faults = faults;
    }

    /// Every stream goes on.
    fn takes_messages(&mut self, report: &Report) {
        for index in 0..self.streams.len() {
            let of = self.streams[index].of;
            let before = self.streams[index].now.last;
            let taken = (0..3).filter(|_| self.takes(index)).count() as u64;
            self.settle();
            assert_eq!(taken, 3, "{}: {of:?} takes nothing", self.context);
            for seq in before + 1..=before + 3 {
                let expected = self.streams[index].payloads.get(&seq).cloned();
                let there = self.get(of, seq).map(|(_, payload)| payload);
                assert!(there.is_none() || there == expected, "{}: {seq} of {of:?}", self.context);
                if there.is_none() && seq == before + 3 {
                    self.turn();
                    let (notices, of) = (&self.face.notices, self.store.stream(of));
                    let place = of.map(|of| of.locate(seq));
                    panic!("{}: {seq} is not there: {place:?}, {of:?}, {notices:?}, {report:?}", self.context);
                }
            }
            let settled = (0..2_000).any(|_| {
                self.step();
                self.store.state(of).expect("is there").is_some()
            });
            assert!(settled, "{}: the numbers of {of:?} are never known", self.context);
        }
    }

    /// A clean stop, as far as the disk allows.
    fn stop_anyhow(&mut self) {
        self.settle();
        self.store.stop(self.now);
        for _ in 0..2_000 {
            if self.store.is_stopped() {
                break;
            }
            self.step();
        }
    }
}

/// Returns how many silent faults there were, and how many lives reported damage.
fn run(seed: u64, misdirected: u32, rots: bool) -> u64 {
    let mut world = World::new(seed, Faults { misdirected, ..Faults::default() }, Shape::Bare);
    for life in 0..5 {
        world.context = format!("seed {seed}, life {life}");
        for _ in 0..world.rng.usize(1..500) {
            match world.rng.u8(..12) {
                0..=6 => world.act(),
                7..=10 => world.step(),
                _ => world.now += world.rng.i64(0..40_000_000),
            }
        }
        let clean = world.rng.u8(..3) == 0;
        let rot = if rots { world.rng.u32(0..6) } else { 0 };
        world.restart_damaged(clean, rot);
    }
    world.disk.silent
}

/// Writes land in another place, or nowhere.
#[test]
fn misdirected_writes() {
    let faults = seeds(400).map(|seed| run(seed, 20, false)).sum::<u64>();
    assert!(!is_whole_run() || faults > 0, "no write went astray");
}

/// Bits flip in what was flushed, while nothing runs.
#[test]
fn rotten_sectors() {
    let faults = seeds(400).map(|seed| run(seed, 0, true)).sum::<u64>();
    assert!(!is_whole_run() || faults > 0, "nothing has rotted");
}

/// Both.
#[test]
fn silent_faults() {
    let faults = seeds(200).map(|seed| run(seed, 10, true)).sum::<u64>();
    assert!(!is_whole_run() || faults > 0, "there were no faults");
}
