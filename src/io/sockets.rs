//! The sockets of one shard, seen as [`Io`].

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::doorbell::Doorbell;
use super::logins::{Login, Logins};
use super::poller::{Event, Poller, Token};
use crate::auth::Check;
use crate::shard::io::{Io, Recv, Sent};

/// A read of this many bytes makes a socket a stream, which is read again before it is polled.
const STREAM_BYTES: usize = 4 << 10;

/// A connection's socket.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    /// Tells the connections apart that have had the slot.
    generation: u32,
    /// A short read does not mean that nothing is left, see [`Event::read_on`].
    read_on: bool,
}

/// What a look at the poller has found beside connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The listener may have connections.
    pub(super) listener: bool,
}

/// Sockets by slot, their readiness, the clock, and the doorbells of all shards.
pub(super) struct Sockets {
    slots: Vec<Option<Socket>>,
    generation: u32,
    poller: Poller,
    events: Vec<Event>,
    /// The listener, while there is one.
    listener: Option<RawFd>,
    shard: u16,
    logins: Logins,
    bells: Arc<[Doorbell]>,
    epoch: Instant,
}

const BELL: Token = Token(1 << 62);
const LISTENER: Token = Token(2 << 62);
const GENERATION_MASK: u32 = (1 << 30) - 1;

fn token(slot: u32, generation: u32) -> Token {
    Token(u64::from(generation) << 32 | u64::from(slot))
}

impl Sockets {
    /// For shard `shard`, on its thread. `epoch` is the zero of the clock that all shards share.
    ///
    /// # Errors
    /// When the poller cannot be set up.
    pub(super) fn new(shard: u16, bells: Arc<[Doorbell]>, logins: Logins, epoch: Instant) -> io::Result<Self> {
        let mut poller = Poller::new()?;
        poller.watch(bells[usize::from(shard)].descriptor(), BELL)?;
        Ok(Self {
            slots: Vec::new(),
            generation: 0,
            poller,
            events: Vec::new(),
            listener: None,
            shard,
            logins,
            bells,
            epoch,
        })
    }

    /// Watches the listening socket.
    pub(super) fn listen(&mut self, listener: RawFd) -> io::Result<()> {
        self.listener = Some(listener);
        self.poller.watch(listener, LISTENER)
    }

    /// No longer watches the listening socket, which may then be closed.
    pub(super) fn stop_listening(&mut self) -> io::Result<()> {
        match self.listener.take() {
            Some(_) => self.poller.forget(LISTENER),
            None => Ok(()),
        }
    }

    /// Puts an accepted connection, in non-blocking mode, into `slot`.
    pub(super) fn insert(&mut self, slot: u32, stream: TcpStream) -> io::Result<()> {
        self.generation = (self.generation + 1) & GENERATION_MASK;
        let generation = self.generation;
        self.poller.watch(stream.as_raw_fd(), token(slot, generation))?;
        let at = slot as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        debug_assert!(self.slots[at].is_none(), "a slot is closed before it is used again");
        self.slots[at] = Some(Socket { stream, generation, read_on: false });
        Ok(())
    }

    /// Adds the connections that have become ready to `woken`, without waiting.
    pub(super) fn poll(&mut self, woken: &mut Vec<u32>) -> io::Result<Found> {
        self.poller.poll(&mut self.events)?;
        self.sort_events(woken)
    }

    /// As [`Sockets::poll`], but waits for something to happen, at most until `deadline`, nanoseconds of [`Io::now`].
    pub(super) fn wait(&mut self, deadline: Option<u64>, woken: &mut Vec<u32>) -> io::Result<Found> {
        let time = deadline.map(|at| Duration::from_nanos(at.saturating_sub(self.now())));
        self.poller.wait(time, &mut self.events)?;
        self.sort_events(woken)
    }

    fn sort_events(&mut self, woken: &mut Vec<u32>) -> io::Result<Found> {
        let mut found = Found::default();
        for event in self.events.drain(..) {
            let descriptor = match event.token {
                BELL => self.bells[usize::from(self.shard)].descriptor(),
                LISTENER => {
                    let Some(listener) = self.listener else { continue };
                    found.listener = true;
                    listener
                }
                Token(bits) => {
                    let (slot, generation) = (bits as u32, (bits >> 32) as u32);
                    let socket = self.slots.get_mut(slot as usize).and_then(Option::as_mut);
                    let Some(socket) = socket.filter(|socket| socket.generation == generation) else { continue };
                    socket.read_on |= event.read_on;
                    woken.push(slot);
                    socket.stream.as_raw_fd()
                }
            };
            if event.ended {
                self.poller.watch(descriptor, event.token)?;
            }
        }
        Ok(found)
    }

    fn socket(&mut self, slot: u32) -> Option<&mut Socket> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }
}

impl Io for Sockets {
    fn now(&mut self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn recv(&mut self, slot: u32, buf: &mut [u8]) -> Recv {
        let Some(Socket { stream, read_on, .. }) = self.socket(slot) else { return Recv::Failed };
        match recv_now(stream, buf) {
            Ok(0) => Recv::End,
            // A short read has emptied the socket, and whatever comes later is told anew. The end of the stream is not
            // if it came together with these bytes; and more of a stream has often come by the next turn.
            Ok(bytes) => Recv::Data { bytes, more: *read_on || bytes >= STREAM_BYTES.min(buf.len()) },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Recv::Nothing,
            Err(_) => Recv::Failed,
        }
    }

    fn send(&mut self, slot: u32, bufs: &[IoSlice<'_>]) -> Sent {
        let Some(Socket { stream, .. }) = self.socket(slot) else { return Sent::Failed };
        match send_now(stream, bufs) {
            Ok(taken) => Sent::Bytes(taken),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Bytes(0),
            Err(_) => Sent::Failed,
        }
    }

    fn close(&mut self, slot: u32) {
        if let Some(socket) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            // Without this the poll would keep the socket open. If it fails the kernel ends the poll with the ring.
            if let Err(error) = self.poller.forget(token(slot, socket.generation)) {
                tracing::error!("Error closing a connection: {error}");
            }
        }
    }

    fn ring(&mut self, shard: u16) {
        self.bells[usize::from(shard)].ring();
    }

    fn decide(&mut self, slot: u32, cid: u64, check: Check) {
        self.logins.push(Login { shard: self.shard, slot, cid, check });
    }

    fn rest(&mut self) {
        // The allocator keeps what was freed, gigabytes after hundreds of slow consumers, unless it is asked.
        // SAFETY: takes no pointers; the allocator locks what it looks at.
        unsafe { libc::malloc_trim(0) };
    }
}

fn recv_now(stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length come from one live, exclusively borrowed slice.
    let received = unsafe { libc::recv(stream.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

fn send_now(stream: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let fd = stream.as_raw_fd();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let sent = if let [only] = bufs {
        // SAFETY: pointer and length come from one live slice; the kernel only reads it.
        unsafe { libc::send(fd, only.as_ptr().cast(), only.len(), flags) }
    } else {
        // SAFETY: all-zero is a valid `msghdr`: no name, no control data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = bufs.as_ptr().cast_mut().cast();
        header.msg_iovlen = bufs.len();
        // SAFETY: `IoSlice` has the layout of `iovec` (std guarantees it); slices outlive the call and are only read.
        unsafe { libc::sendmsg(fd, &raw const header, flags) }
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
