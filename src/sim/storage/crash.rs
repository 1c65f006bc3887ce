//! Stops, crashes and openings, and what must be there afterwards.

use std::collections::BTreeMap;

use super::consumers::Face;
use super::stream::Op;
use super::world::{EXPIRY_STEP_BITS, ID, STORE, Shape, World};
use crate::log::Pending;
use crate::store::{Opened, Report, Store};
use crate::stream::tests::model::{Model, Stored};

impl World {
    /// Stops, if there is nothing in the way.
    pub(super) fn stop(&mut self) {
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

    /// Opens the store, which finds the same if it is done again.
    pub(super) fn open(&mut self) -> Report {
        let opened = Store::open(&mut self.disk, self.now, ID, STORE, self.options);
        let Opened { store, report } = opened.unwrap_or_else(|error| panic!("{}: {error}", self.context));
        self.store = store;
        let found = self.describe();
        let Opened { store, report: again } =
            Store::open(&mut self.disk, self.now, ID, STORE, self.options).expect("opens a second time");
        self.store = store;
        assert_eq!(report, again, "{}: opening twice", self.context);
        assert_eq!(found, self.describe(), "{}: opening twice", self.context);
        report
    }

    /// Stops, perhaps in the middle of everything, opens again, and compares.
    pub(super) fn restart(&mut self, clean: bool) {
        if clean {
            self.stop();
        }
        self.disk.crash();
        let faults = std::mem::take(&mut self.disk.faults);
        let report = self.open();
        let damage = report.repairs.iter().filter(|repair| repair.is_damage()).collect::<Vec<_>>();
        assert!(damage.is_empty() && report.senseless == 0, "{}: {report:?}", self.context);
        let face = std::mem::take(&mut self.face);
        self.streams.retain(|stream| {
            let there = self.store.stream(stream.of).is_some();
            assert!(there || !face.is_proven(stream.created), "{}: a stream is gone", self.context);
            there
        });
        for index in 0..self.streams.len() {
            self.streams[index].created = Pending::NONE;
            self.streams[index].acknowledged.clear();
            self.restart_consumers(index, &face);
        }
        for index in 0..self.streams.len() {
            if self.shape == Shape::Plain {
                self.join_consumers(index);
            }
            self.compare(index, &face);
            self.check_consumers(index);
            if self.shape == Shape::Rich {
                self.join_consumers(index);
            }
        }
        self.disk.faults = faults;
    }

    /// The state is that after some operation at or behind the last proven one.
    fn compare(&mut self, index: usize, face: &Face) {
        let stream = &mut self.streams[index];
        let ops = std::mem::take(&mut stream.ops);
        let proven = ops.iter().rposition(|(_, after)| after.is_some_and(|after| face.is_proven(after)));
        let proven = proven.map_or(0, |last| last + 1);
        // What nobody needs goes only now, perhaps.
        while !self.catch_up(index) {}
        let mut model = self.streams[index].base.clone();
        ops[..proven].iter().for_each(|(op, _)| op.apply(&mut model));
        for count in proven..=ops.len() {
            if count > proven {
                ops[count - 1].0.apply(&mut model);
            }
            let mut candidate = model.clone();
            let forgotten = self.add_forgotten(index, &ops[..count], &mut candidate);
            candidate.expire(self.now, EXPIRY_STEP_BITS);
            let there = self.store.stream(self.streams[index].of).map(|of| of.last_seq());
            if there == Some(candidate.last) {
                self.streams[index].now = candidate;
                if self.check(index) {
                    let stream = &mut self.streams[index];
                    let leaked = forgotten.iter().find(|(seq, stored)| !stream.needs(**seq, stored));
                    assert!(leaked.is_none(), "{}: nobody needs {leaked:?}", self.context);
                    stream.payloads.retain(|seq, _| *seq <= stream.now.last);
                    stream.base = stream.now.clone();
                    return;
                }
            }
        }
        let stream = &self.streams[index];
        panic!(
            "{}: stream {} is in no state that it may be in: {} ({:?}), {proven} of {} operations proven, {:?}, {:?}",
            self.context,
            stream.of.get(),
            self.difference,
            self.store.stream(stream.of),
            ops.len(),
            stream.now.config,
            &ops[proven.saturating_sub(1)..],
        );
    }

    /// That a message was acknowledged by all may be forgotten: then it is there again, to be delivered again.
    fn add_forgotten(&self, index: usize, ops: &[(Op, Option<Pending>)], model: &mut Model) -> BTreeMap<u64, Stored> {
        let Some(stream) = self.store.stream(self.streams[index].of) else { return BTreeMap::new() };
        let acknowledged = ops.iter().filter_map(|(op, _)| match op {
            Op::Acknowledged { seq, stored } if stream.is_visible(*seq) => Some((*seq, stored.clone())),
            _ => None,
        });
        let forgotten = acknowledged.collect::<BTreeMap<_, _>>();
        model.messages.extend(forgotten.clone());
        forgotten
    }
}
