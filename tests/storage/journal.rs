//! What a store has acknowledged, kept in memory, out of reach of any fault of its disk, and compared with what the
//! store has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use leat::log::recover::Repair;
use leat::store::{Notice, Options};

use super::content::{Face, LIMIT, get, message, open_with, state, streams};

/// Messages of the first stream that a purge leaves.
pub(crate) const KEPT: u64 = 500;

/// What has been acknowledged, and what may have happened without that.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Checksums of payloads, by stream and number.
    pub(crate) stored: [BTreeMap<u64, u32>; 2],
    /// Acknowledged removals.
    pub(crate) removed: [BTreeSet<u64>; 2],
    /// Everything below has been purged from the first stream, and that was acknowledged.
    pub(crate) purged: u64,
    /// Removals that were begun since the store was opened.
    pub(crate) removing: [BTreeSet<u64>; 2],
    /// A purge was.
    pub(crate) purging: bool,
}

impl Journal {
    /// Opens a store and compares it with what was acknowledged, and notes what has survived beyond that.
    pub(crate) fn verify(&mut self, dir: &Path, options: Options, context: &str) -> Vec<Repair> {
        let (mut engine, report) = open_with(dir, options);
        let mut face = Face::default();
        let streams = streams(&mut engine);
        for (name, of) in streams.into_iter().enumerate() {
            let state = state(&mut engine, &mut face, of);
            let last = self.stored[name].last_key_value().map_or(0, |(seq, _)| *seq);
            assert!(state.last_seq >= last, "{context}: stream {name} ends at {}, not at {last}", state.last_seq);
            let mut there = BTreeSet::new();
            for seq in state.first_seq..=state.last_seq {
                let Some(found) = get(&mut engine, &mut face, of, seq) else { continue };
                assert!(found == message(name, seq), "{context}: message {seq} of stream {name} has changed");
                let checksum = crc32fast::hash(&found.1);
                let journal = *self.stored[name].entry(seq).or_insert(checksum);
                assert_eq!(checksum, journal, "{context}: message {seq} of stream {name}");
                there.insert(seq);
            }
            let stream = engine.store().stream(of).unwrap();
            let lost = (state.first_seq..=state.last_seq).filter(|seq| !there.contains(seq));
            let lost = lost.filter_map(|seq| Some((seq, stream.place_of(seq)?))).collect::<Vec<_>>();
            assert!(
                lost.is_empty(),
                "{context}: stream {name} does not give what it has: {lost:?}, {:?}",
                face.notices
            );
            assert_eq!(state.messages, there.len() as u64, "{context}: stream {name}");
            assert!(name == 0 || state.messages <= LIMIT, "{context}: {} messages", state.messages);
            let back = there.iter().find(|seq| self.removed[name].contains(seq) || name == 0 && **seq < self.purged);
            assert_eq!(back, None, "{context}: what was removed from stream {name} is there again");
            for seq in self.stored[name].keys().filter(|seq| !there.contains(seq)) {
                let newer = state.last_seq - seq;
                let may_be_gone = match name {
                    0 => self.purging && *seq < state.first_seq && newer >= KEPT,
                    _ => newer >= LIMIT,
                };
                let may_be_gone = may_be_gone || self.removed[name].contains(seq) || self.removing[name].contains(seq);
                assert!(may_be_gone, "{context}: message {seq} of stream {name} is gone");
            }
            self.stored[name].retain(|seq, _| there.contains(seq));
            self.removing[name].clear();
        }
        self.purging = false;
        // A full disk is one at every opening.
        let others = face.notices.iter().find(|notice| !matches!(notice, Notice::Space { .. }));
        assert_eq!(others, None, "{context}");
        assert!(report.senseless == 0 && !report.repairs.iter().any(Repair::is_damage), "{context}: {report:?}");
        report.repairs
    }
}
