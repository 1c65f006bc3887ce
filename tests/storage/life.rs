//! A store that is driven here, on a disk that is not to be relied upon, with a journal of what it acknowledges.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use leat::io::engine::{Engine, now};
use leat::log::{Durable, Incarnation, Waiting};
use leat::store::{Notice, Options};
use leat::stream::{Purge, Purged, Refusal};

use super::content::{Face, get, message, open_with, publish, streams};
use super::journal::{Journal, KEPT};

/// Nothing may take longer, not even on a disk that heals slowly.
const PATIENCE: Duration = Duration::from_secs(30);

/// What becomes final with a flush.
enum Told {
    Stored(usize, u64),
    Removed(usize, u64),
    Purged(u64),
}

/// A store that is open.
pub(crate) struct Life {
    pub(crate) engine: Engine,
    pub(crate) face: Face,
    pub(crate) streams: [Incarnation; 2],
    pub(crate) journal: Journal,
    waiting: Waiting<Told>,
    dir: PathBuf,
    options: Options,
}

impl Life {
    pub(crate) fn open(dir: &Path, options: Options, journal: Journal) -> Self {
        let (mut engine, _) = open_with(dir, options);
        let streams = streams(&mut engine);
        let (face, waiting) = (Face::default(), Waiting::default());
        Self { engine, face, streams, journal, waiting, dir: dir.to_owned(), options }
    }

    /// Drops everything that is only in memory, compares what is on disk with the journal, and opens the store again.
    pub(crate) fn reopen(self, context: &str) -> Self {
        let Self { engine, mut journal, dir, options, .. } = self;
        drop(engine);
        journal.verify(&dir, options, context);
        Self::open(&dir, options, journal)
    }

    /// One turn, and the acknowledgements that come of it.
    pub(crate) fn turn(&mut self) {
        let next = self.engine.turn(&mut self.face).unwrap();
        let told = self.face.proof.iter().flat_map(|proof| self.waiting.release(proof).collect::<Vec<_>>());
        for told in told {
            match told {
                Told::Stored(name, seq) => {
                    self.journal.stored[name].insert(seq, crc32fast::hash(&message(name, seq).1));
                }
                Told::Removed(name, seq) => drop(self.journal.removed[name].insert(seq)),
                Told::Purged(below) => self.journal.purged = below,
            }
        }
        self.engine.wait(next, Some(Duration::from_millis(20))).unwrap();
    }

    /// Takes turns until `done`.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let since = Instant::now();
        while !done(self) {
            let waiting = self.waiting.len();
            let log = self.engine.store().log();
            assert!(
                since.elapsed() < PATIENCE,
                "{what}: not yet, {waiting} wait; {:?}; {} bytes, {:?}",
                self.face.notices,
                log.total_bytes(),
                log.segments().map(|open| (open.segment.0, open.bytes, open.end, open.live)).collect::<Vec<_>>()
            );
            self.turn();
        }
    }

    /// Takes turns until there is nothing to write, not even how far the log is flushed.
    pub(crate) fn rest(&mut self) {
        self.until("at rest", |life| {
            let log = life.engine.store().log();
            life.waiting.is_empty() && log.is_at_rest() && !log.is_checkpointing() && log.deadline().is_none()
        });
    }

    /// How much waits for its flush.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn settle(&mut self) {
        self.until("everything acknowledged", |life| life.waiting.is_empty());
    }

    pub(crate) fn publish(&mut self, name: usize) -> Result<(), Refusal> {
        let (seq, after) = publish(&mut self.engine, self.streams[name], name)?;
        self.waiting.push(after, Told::Stored(name, seq));
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: usize, seq: u64) {
        self.journal.removing[name].insert(seq);
        match self.engine.store_mut().remove(now(), self.streams[name], seq) {
            Ok(after) => self.waiting.push(after, Told::Removed(name, seq)),
            Err(refused) => assert_eq!(refused.why, Refusal::NotFound, "removing message {seq} of stream {name}"),
        }
    }

    /// Leaves the newest messages of the first stream.
    pub(crate) fn purge(&mut self) {
        self.journal.purging = true;
        let purge = Purge { keep: KEPT, ..Default::default() };
        self.until("purged", |life| match life.engine.store_mut().purge(now(), life.streams[0], &purge) {
            Ok(Purged::Done { after, .. }) => {
                let below = life.engine.store().stream(life.streams[0]).unwrap().first_seq();
                life.waiting.push(after, Told::Purged(below));
                true
            }
            Ok(_) => false,
            Err(refused) => panic!("the purge is refused: {refused:?}"),
        });
    }

    /// A message that has been acknowledged and not removed.
    pub(crate) fn any(&self, rng: &mut fastrand::Rng, name: usize) -> Option<u64> {
        let first = self.engine.store().stream(self.streams[name]).unwrap().first_seq();
        let last = *self.journal.stored[name].last_key_value()?.0;
        (first <= last).then(|| rng.u64(first..=last)).filter(|seq| !self.journal.removing[name].contains(seq))
    }

    /// Reads some of what has been acknowledged.
    pub(crate) fn read(&mut self, rng: &mut fastrand::Rng, count: usize) {
        for _ in 0..count {
            let name = rng.usize(..2);
            let Some(seq) = self.any(rng, name) else { continue };
            let found = get(&mut self.engine, &mut self.face, self.streams[name], seq);
            // The limit may have removed it meanwhile.
            let stream = self.engine.store().stream(self.streams[name]).unwrap();
            let gone = found.is_none() && (seq < stream.first_seq() || self.journal.removed[name].contains(&seq));
            assert!(gone || found == Some(message(name, seq)), "message {seq} of stream {name} is not served");
        }
    }

    /// What was told to the operator, from the `from`th on.
    pub(crate) fn told(&self, from: usize, what: impl Fn(&Notice) -> bool) -> bool {
        self.face.notices[from..].iter().any(what)
    }

    pub(crate) fn proof(&self) -> Option<Durable> {
        self.face.proof
    }
}
