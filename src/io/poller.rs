//! Readiness of a shard's descriptors, from an io_uring of the shard's own.
//!
//! Every descriptor is watched once, by a multishot poll that stays armed until it is forgotten: a wake-up costs one
//! `io_uring_enter`, and nothing is armed anew. glommio polls a drained socket again through its own rings, which took
//! four `io_uring_enter` per wake-up and more than half of the CPU time of a message that comes alone (see `perf/`).
//!
//! Readiness is edge-triggered: it is told when something has changed, and whoever does not read or write until the
//! kernel says "nothing there" or "no room" has to remember that by itself.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use super::operations::{Finished, Operations};
use crate::log::aligned::AlignedBuf;

/// What is polled for. Room to write is told only after a write found none: the kernel wakes no earlier.
const EVENTS: u32 = (libc::POLLIN | libc::POLLPRI | libc::POLLOUT | libc::POLLRDHUP) as u32;
/// After these the end of the stream may follow what a short read has taken.
const HANGUP: i32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;
/// There is urgent data, at whose mark reads end short. The kernel wakes for any data with `POLLPRI` but without
/// `POLLOUT`; both together come from a look at the socket. (A socket without room to write is looked at again when
/// there is some.)
const URGENT: i32 = (libc::POLLPRI | libc::POLLOUT) as i32;
/// Completions that fit; more are kept by the kernel until there is room (`IORING_FEAT_NODROP`).
const COMPLETIONS: u32 = 4096;
const SUBMISSIONS: u32 = 256;

/// Names a watched descriptor in its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(pub(super) u64);

/// Something happened to a watched descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) token: Token,
    /// The peer has closed at least its sending side or has sent urgent data, or the descriptor is broken: reads have to
    /// go on until they find nothing.
    pub(super) read_on: bool,
    /// The kernel has ended the watch; [`Poller::watch`] begins a new one.
    pub(super) ended: bool,
}

/// An io_uring that polls descriptors. Belongs to the thread that made it.
pub(super) struct Poller {
    ring: IoUring,
    /// Events that had to make room before they were asked for.
    early: Vec<Event>,
    /// Reads and writes of files.
    operations: Operations,
}

/// Cancellations answer with this.
const CANCELLED: u64 = u64::MAX;

impl Poller {
    /// A poller for the calling thread.
    ///
    /// # Errors
    /// When the kernel allows no further io_uring.
    pub(super) fn new() -> io::Result<Self> {
        let ring = build()?;
        let operations = Operations::new(ring.params().is_feature_skip_cqe_on_success());
        Ok(Self { ring, early: Vec::new(), operations })
    }

    /// Watches `fd` until it is forgotten. What is there already is told as an event.
    pub(super) fn watch(&mut self, fd: RawFd, token: Token) -> io::Result<()> {
        debug_assert!(token.0 != CANCELLED, "the answer to a cancellation is nobody's token");
        self.push(&opcode::PollAdd::new(Fd(fd), EVENTS).multi(true).build().user_data(token.0))
    }

    /// Ends the watch of `token` at once, so that closing the descriptor closes what it stands for.
    pub(super) fn forget(&mut self, token: Token) -> io::Result<()> {
        // PollRemove would leave a poll alone that has an event in the making.
        self.push(&opcode::AsyncCancel::new(token.0).build().user_data(CANCELLED))?;
        self.enter_now()
    }

    /// What has happened since the last call, without waiting. Usually no system call if nothing has.
    pub(super) fn poll(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let submissions = self.ring.submission();
        let calls = !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow();
        drop(submissions);
        if calls {
            self.enter_now()?;
        }
        self.drain(events);
        Ok(())
    }

    /// Waits for the next event or the end of an operation, at most for `time`; without one, as long as it takes.
    pub(super) fn wait(&mut self, time: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        if self.operations.has_finished() || !self.early.is_empty() {
            return self.poll(events);
        }
        let submitter = self.ring.submitter();
        let outcome = match time {
            None => submitter.submit_and_wait(1),
            Some(time) => submitter.submit_with_args(1, &SubmitArgs::new().timespec(&Timespec::from(time))),
        };
        whole(outcome)?;
        self.drain(events);
        Ok(())
    }

    /// Writes `data` one behind the other from `offset` of `fd` on, then flushes the file. [`Poller::finished`] tells the
    /// outcome under `tag`. The kernel has its own hold on the file when this returns.
    pub(super) fn commit(&mut self, fd: RawFd, offset: u64, data: Vec<Arc<AlignedBuf>>, tag: u64) -> io::Result<()> {
        let [write, flush] = self.operations.commit(fd, offset, data, tag);
        // Both of a pair have to be in the queue when the kernel takes it.
        let outcome = self.make_room(2).and_then(|()| self.push(&write)).and_then(|()| self.push(&flush));
        self.submitted(&write, outcome)
    }

    /// Reads up to `bytes` from `offset` of `fd` on; as [`Poller::commit`].
    pub(super) fn read(&mut self, fd: RawFd, offset: u64, bytes: usize, tag: u64) -> io::Result<()> {
        let read = self.operations.read(fd, offset, bytes, tag);
        let outcome = self.push(&read);
        self.submitted(&read, outcome)
    }

    /// Gives back memory that only work needs.
    pub(super) fn rest(&self) {
        self.operations.rest();
    }

    /// Operations on files that have ended since the last call.
    pub(super) fn finished(&mut self) -> Option<Finished> {
        self.operations.finished()
    }

    /// Hands over what has been queued for an operation that begins with `first`, or forgets it.
    fn submitted(&mut self, first: &squeue::Entry, queued: io::Result<()>) -> io::Result<()> {
        if let Err(error) = queued {
            self.operations.withdraw(first);
            return Err(error);
        }
        self.make_room(self.ring.params().sq_entries() as usize)
    }

    fn drain(&mut self, events: &mut Vec<Event>) {
        events.append(&mut self.early);
        for entry in self.ring.completion() {
            if entry.user_data() == CANCELLED {
                continue;
            }
            if Operations::is_operation(entry.user_data()) {
                self.operations.complete(entry.user_data(), entry.result());
                continue;
            }
            if entry.result() == -libc::ECANCELED {
                continue;
            }
            // A poll that failed counts as a change: the next read finds out what is wrong.
            let result = entry.result();
            let read_on = result < 0 || result & HANGUP != 0 || result & URGENT == URGENT;
            let ended = !cqueue::more(entry.flags());
            events.push(Event { token: Token(entry.user_data()), read_on, ended });
        }
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        self.make_room(1)?;
        // SAFETY: descriptors are checked by the kernel; memory that an entry refers to stays in `operations` until the
        // kernel is done with it, also when the poller is dropped.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)
    }

    /// Makes room for so many entries in the submission queue, by handing over what is queued.
    fn make_room(&mut self, entries: usize) -> io::Result<()> {
        loop {
            let queue = self.ring.submission();
            if queue.capacity() - queue.len() >= entries {
                return Ok(());
            }
            drop(queue);
            self.enter_now()?;
            // A kernel that keeps completions back takes no submissions either.
            let mut early = std::mem::take(&mut self.early);
            self.drain(&mut early);
            self.early = early;
        }
    }

    /// Hands over what is queued and lets the kernel finish what it has put off.
    fn enter_now(&mut self) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed; for the memory of entries see `push`.
        whole(unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, flags, None) })
    }
}

impl Drop for Poller {
    /// Waits for operations in flight: the kernel uses their buffers.
    fn drop(&mut self) {
        let mut ignored = Vec::new();
        while self.operations.in_flight() {
            if self.wait(None, &mut ignored).is_err() {
                self.operations.leak();
            }
            ignored.clear();
        }
    }
}

/// The most frugal ring that this kernel offers: completions are made when the shard asks for them (Linux 6.1), or at
/// least without interrupting it (5.19).
fn build() -> io::Result<IoUring> {
    let builder = || {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(COMPLETIONS);
        builder
    };
    let mut deferred = builder();
    deferred.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    let mut cooperative = builder();
    cooperative.setup_coop_taskrun().setup_taskrun_flag();
    for frugal in [deferred, cooperative] {
        match frugal.build(SUBMISSIONS) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            outcome => return outcome,
        }
    }
    builder().build(SUBMISSIONS)
}

/// The time running out and signals are no errors.
fn whole(outcome: io::Result<usize>) -> io::Result<()> {
    match outcome {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => Ok(()),
        outcome => outcome.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn next(poller: &mut Poller) -> Event {
        let mut events = Vec::new();
        while events.is_empty() {
            poller.wait(Some(Duration::from_secs(10)), &mut events).unwrap();
        }
        assert_eq!(events.len(), 1, "{events:?}");
        events[0]
    }

    /// One watch tells of every change: bytes that were there before, each later arrival, and the end.
    #[test]
    fn a_watch_outlives_its_events() {
        let (mut client, mut server) = pair();
        client.write_all(b"early").unwrap();
        let mut poller = Poller::new().unwrap();
        poller.watch(server.as_raw_fd(), Token(7)).unwrap();
        let event = Event { token: Token(7), read_on: false, ended: false };
        assert_eq!(next(&mut poller), event);
        let mut buf = [0; 16];
        assert_eq!(server.read(&mut buf).unwrap(), 5);
        for _ in 0..3 {
            client.write_all(b"more").unwrap();
            assert_eq!(next(&mut poller), event);
            assert_eq!(server.read(&mut buf).unwrap(), 4);
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert!(next(&mut poller).read_on);
    }

    /// Reads end at the mark of urgent data, so its arrival is told; that of other data is no reason to read twice.
    #[test]
    fn urgent_data_is_told() {
        let (client, server) = pair();
        let mut poller = Poller::new().unwrap();
        poller.watch(server.as_raw_fd(), Token(3)).unwrap();
        assert!(!next(&mut poller).read_on);
        (&client).write_all(b"before").unwrap();
        socket2::SockRef::from(&client).send_out_of_band(b"!").unwrap();
        (&client).write_all(b"behind").unwrap();
        assert!(next(&mut poller).read_on);
        let mut buf = [0; 16];
        assert_eq!((&server).read(&mut buf).unwrap(), 6, "reads end at the mark");
        assert_eq!((&server).read(&mut buf).unwrap(), 6);
        (&client).write_all(b"more").unwrap();
        assert!(!next(&mut poller).read_on);
    }

    /// A forgotten descriptor is closed when its owner closes it, and is not heard of again.
    #[test]
    fn a_forgotten_socket_closes() {
        let (mut client, server) = pair();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut poller = Poller::new().unwrap();
        poller.watch(server.as_raw_fd(), Token(1)).unwrap();
        assert_eq!(next(&mut poller).token, Token(1), "room to write");
        poller.forget(Token(1)).unwrap();
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the end of the stream");
        let mut events = Vec::new();
        poller.poll(&mut events).unwrap();
        assert_eq!(events, []);

        // Also while an event of it is in the making.
        let (mut client, server) = pair();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        poller.watch(server.as_raw_fd(), Token(2)).unwrap();
        assert_eq!(next(&mut poller).token, Token(2));
        client.write_all(b"unread").unwrap();
        poller.forget(Token(2)).unwrap();
        drop(server);
        let end = client.read(&mut [0; 1]);
        assert!(end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset), "unread bytes reset it");
    }

    #[test]
    fn waiting_ends_in_time() {
        let mut events = Vec::new();
        Poller::new().unwrap().wait(Some(Duration::from_millis(1)), &mut events).unwrap();
        assert_eq!(events, []);
    }

    /// More events at once than the completion queue holds: none is lost.
    #[test]
    fn an_overflow_loses_nothing() {
        let mut poller = Poller::new().unwrap();
        let (_client, server) = pair();
        let count = u64::from(COMPLETIONS) + 1000;
        for token in 0..count {
            poller.watch(server.as_raw_fd(), Token(token)).unwrap();
        }
        let mut seen = vec![false; count as usize];
        let mut events = Vec::new();
        while seen.contains(&false) {
            poller.wait(Some(Duration::from_secs(10)), &mut events).unwrap();
            assert!(!events.is_empty(), "{} are missing", seen.iter().filter(|seen| !**seen).count());
            for event in events.drain(..) {
                seen[event.token.0 as usize] = true;
            }
        }
    }
}
