//! A log that is opened to be asked, and never written to.
//!
//! The engines are the same as in a server: what they say here is what a server would say that opens these files. They
//! ask for files to be made ready and for batches to be written as ever; of all that only the reads are carried out.

use crate::consumer;
use crate::log::recover::Refusal;
use crate::log::{DiskFault, Durable, Incarnation, LogId, Message, Outcome, Request, StoreId, Time};
use crate::store::{ConsumerKey, Got, Notice, Options, Outlet, Report, Store};
use crate::stream::State;

use super::directory::SegmentFiles;
use crate::log::recover::Files as _;

/// An opened log. See the module.
pub struct Reading<'a> {
    files: SegmentFiles<'a>,
    store: Store,
    report: Report,
    now: Time,
}

/// What a turn has brought.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// There was something to do.
    busy: bool,
    /// Something could not be read.
    failed: bool,
}

impl<'a> Reading<'a> {
    /// Opens the log as it was at `now`: what reaches its greatest age later is still there.
    ///
    /// # Errors
    /// When the log cannot be opened at all.
    pub fn open(mut files: SegmentFiles<'a>, log: LogId, store: StoreId, now: Time) -> Result<Self, Refusal> {
        // Cleaning would fill memory with what is never written.
        let options = Options { cleaning_bytes_per_second: 1, ..Options::default() };
        let opened = Store::open(&mut files, now, log, store, options)?;
        Ok(Self { files, store: opened.store, report: opened.report, now })
    }

    /// Everything in it.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What opening it has found.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Exact numbers of a stream; `None` if what they are counted from cannot be read.
    pub fn state(&mut self, of: Incarnation) -> Option<State> {
        loop {
            if let Some(state) = self.store.state(of).ok()? {
                return Some(state);
            }
            let turn = self.turn();
            if turn.failed || !turn.busy {
                return None;
            }
        }
    }

    /// Hands a message to `take`. Returns whether it is there and can be read.
    pub fn message(&mut self, of: Incarnation, seq: u64, mut take: impl FnMut(&Message<'_>)) -> bool {
        loop {
            match self.store.get(of, seq, &mut take) {
                Ok(Got::Message) => return true,
                Ok(Got::Nothing | Got::Unreadable(_)) | Err(_) => return false,
                Ok(Got::Later) => {}
            }
            let turn = self.turn();
            if turn.failed || !turn.busy {
                return false;
            }
        }
    }

    /// Lets the engines work once, and carries out the reads they ask for.
    fn turn(&mut self) -> Turn {
        let mut requests = Vec::new();
        let mut notices = Notices::default();
        let next = self.store.turn(self.now, &mut notices, &mut requests);
        let mut turn = Turn { busy: next.again, failed: notices.failed };
        for request in requests {
            let Request::Read { id, slot, offset, bytes } = request else { continue };
            turn.busy = true;
            let outcome = match self.files.read(slot, offset, bytes as usize) {
                Ok(bytes) if !bytes.is_empty() => Outcome::Read(bytes::Bytes::from_owner(bytes)),
                Ok(_) => Outcome::Failed(DiskFault::Short),
                Err(fault) => Outcome::Failed(fault),
            };
            turn.failed |= matches!(outcome, Outcome::Failed(_));
            self.store.completed(self.now, id, outcome, &mut notices);
        }
        turn
    }
}

/// Nobody gets anything here.
#[derive(Default)]
struct Notices {
    failed: bool,
}

impl Outlet for Notices {
    fn deliver(&mut self, _: ConsumerKey, _: consumer::Target, _: &Message<'_>, _: &consumer::Delivery) {}

    fn event(&mut self, _: ConsumerKey, _: consumer::Event) {}

    fn flushed(&mut self, _: &Durable) {}

    fn notice(&mut self, notice: &Notice) {
        self.failed |= matches!(notice, Notice::ReadFailed { .. });
    }
}
