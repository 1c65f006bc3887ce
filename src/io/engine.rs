//! The engines of one log on a thread of their own, without a shard: for tools, benchmarks and tests.
//!
//! A turn is that of a shard's driver: outcomes of what the poller has seen, the store's turn, and the requests that come
//! out of it; then a wait for whatever comes first.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::doorbell::Doorbell;
use super::files::Files;
use super::log_directory::LogReader;
use super::poller::{Event, Poller, Token};
use super::store_directory::{StoreDirectory, Unusable};
use crate::log::recover::Refusal;
use crate::log::{Answer, LogId, Request, Time};
use crate::store::{Next, Opened, Options, Outlet, Report, Store};

/// The poller's name for the bell that the thread with the chores rings.
const BELL: Token = Token(1);

/// Nanoseconds since 1970-01-01 UTC.
#[must_use]
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::try_from(since.as_nanos()).unwrap_or(Time::MAX)
}

/// Why an engine cannot be started.
#[derive(Debug)]
pub enum Failure {
    /// The directory.
    Directory(Unusable),
    /// The store has no such log.
    NoLog(LogId),
    /// The log.
    Log(Refusal),
    /// io_uring, or the thread beside.
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => error.fmt(f),
            Self::NoLog(log) => write!(f, "the store has no log {}", log.0),
            Self::Log(refusal) => refusal.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One log of a store, on the thread that has opened it.
pub struct Engine {
    store: Store,
    log: LogId,
    files: Files,
    /// After `files`, which hand operations to it.
    poller: Poller,
    bell: Arc<Doorbell>,
    requests: Vec<Request>,
    answers: Vec<Answer>,
    events: Vec<Event>,
    /// Kept locked.
    _directory: Arc<StoreDirectory>,
}

impl Engine {
    /// Opens the only log of the store in `path`, or a new store with one log. What is odd about the directory and what
    /// had to be repaired is in the report and in [`StoreDirectory::oddities`].
    ///
    /// # Errors
    /// Why not.
    pub fn open(path: &Path, options: Options) -> Result<(Self, Report), Failure> {
        let directory = StoreDirectory::open(path, 1).map_err(Failure::Directory)?;
        Self::open_log(&Arc::new(directory), LogId(0), options)
    }

    /// Opens a log of a store.
    ///
    /// # Errors
    /// Why not.
    pub fn open_log(directory: &Arc<StoreDirectory>, log: LogId, options: Options) -> Result<(Self, Report), Failure> {
        let place = directory.log(log).ok_or(Failure::NoLog(log))?;
        let mut reader = LogReader::new(place);
        let opened = Store::open(&mut reader, now(), log, directory.id(), options).map_err(Failure::Log)?;
        let Opened { mut store, report } = opened;
        if let Some(free) = place.free_bytes() {
            store.set_free_space(free);
        }
        let bell = Arc::new(Doorbell::new()?);
        let mut poller = Poller::new()?;
        poller.watch(bell.descriptor(), BELL)?;
        let ringing = Arc::clone(&bell);
        let mut files = Files::new(move || ringing.ring())?;
        files.add(log, place.clone());
        let engine = Self {
            store,
            log,
            files,
            poller,
            bell,
            requests: Vec::new(),
            answers: Vec::new(),
            events: Vec::new(),
            _directory: Arc::clone(directory),
        };
        Ok((engine, report))
    }

    /// The engines.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The engines. What follows from a change happens in the next turn.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Tells the store what has been done and carries out what it asks for.
    ///
    /// # Errors
    /// When io_uring fails. Failures of files are the store's to deal with.
    pub fn turn(&mut self, outlet: &mut impl Outlet) -> io::Result<Next> {
        self.poller.poll(&mut self.events)?;
        self.hear()?;
        let now = now();
        self.files.collect(&mut self.poller, &mut self.answers);
        for Answer { log, id, outcome, free } in self.answers.drain(..) {
            debug_assert_eq!(log, self.log, "no other log has asked for anything");
            if let Some(free) = free {
                self.store.set_free_space(free);
            }
            self.store.completed(now, id, outcome, outlet);
        }
        let mut next = self.store.turn(now, outlet, &mut self.requests);
        for request in self.requests.drain(..) {
            self.files.begin(&mut self.poller, self.log, request, &mut self.answers)?;
        }
        next.again |= !self.answers.is_empty();
        Ok(next)
    }

    /// Waits until something has been done, or the next turn is due by what the last one has returned, or `at_most` has
    /// passed.
    ///
    /// # Errors
    /// As [`Engine::turn`].
    pub fn wait(&mut self, next: Next, at_most: Option<Duration>) -> io::Result<()> {
        if next.again {
            return Ok(());
        }
        let due = next.deadline.map(|deadline| Duration::from_nanos(deadline.saturating_sub(now()).max(0) as u64));
        self.poller.wait(due.into_iter().chain(at_most).min(), &mut self.events)?;
        self.hear()
    }

    /// Takes turns and waits until `done` says so.
    ///
    /// # Errors
    /// As [`Engine::turn`].
    pub fn run<O: Outlet>(
        &mut self,
        outlet: &mut O,
        mut done: impl FnMut(&mut Self, &mut O) -> bool,
    ) -> io::Result<()> {
        loop {
            let next = self.turn(outlet)?;
            if done(self, outlet) {
                return Ok(());
            }
            self.wait(next, None)?;
        }
    }

    /// Stops cleanly: everything is flushed, and a last checkpoint is written.
    ///
    /// # Errors
    /// As [`Engine::turn`], and when the disk fails.
    pub fn stop(mut self, outlet: &mut impl Outlet) -> io::Result<()> {
        self.store.stop(now());
        self.run(outlet, |engine, _| engine.store.is_stopped() || engine.store.log().fault().is_some())?;
        self.store.log().fault().map_or(Ok(()), |fault| Err(io::Error::other(fault.to_string())))
    }

    /// A ring is all that the bell has to say; what it is about is collected in the next turn.
    fn hear(&mut self) -> io::Result<()> {
        if self.events.drain(..).any(|event| event.ended) {
            self.poller.watch(self.bell.descriptor(), BELL)?;
        }
        Ok(())
    }
}
