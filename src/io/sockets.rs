//! The sockets of one shard, seen as [`Io`].

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConnection;

use super::doorbell::Doorbell;
use super::engine;
use super::files::Files;
use super::handshakes::{Handshakes, Opening, Place, Ticket};
use super::log_directory::LogDirectory;
use super::logins::{Login, Logins};
use super::poller::{Event, Poller, Token};
use super::session::{Session, Wire};
use super::websocket::{Scratch, WebSocket};
use crate::auth::Check;
use crate::log::{Answer, DiskFault, LogId, Outcome, Request, Time};
use crate::shard::io::{Io, Recv, Sent};
use crate::wire::errors::CloseReason;

/// What carries a connection.
#[derive(Debug)]
pub(super) enum Link {
    /// Bytes as they are.
    Plain(TcpStream),
    /// INFO is written in clear, and the socket then handed over for the handshake. Nothing is read.
    Greeting(TcpStream, Opening),
    /// The handshake is going on elsewhere: nothing comes, and nothing can be sent.
    Away(#[expect(dead_code, reason = "held for what its drop does")] Ticket),
    /// Records of TLS.
    Tls(TcpStream, Box<Session>),
    /// Frames, perhaps inside TLS.
    WebSocket(TcpStream, Box<WebSocket>),
}

impl Link {
    /// A socket whose handshake is complete.
    pub(super) fn tls(stream: TcpStream, session: ServerConnection) -> Self {
        Self::Tls(stream, Box::new(Session::new(session)))
    }

    fn stream(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) | Self::Greeting(stream, _) | Self::Tls(stream, _) | Self::WebSocket(stream, _) => {
                Some(stream)
            }
            Self::Away(_) => None,
        }
    }
}

/// A connection's socket.
#[derive(Debug)]
struct Socket {
    link: Link,
    /// Tells the connections apart that have had the slot.
    generation: u32,
    /// A short read does not mean that nothing is left, see [`Event::read_on`].
    read_on: bool,
}

/// What a look at the poller has found beside connections: listeners that may have connections, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found(u32);

impl Found {
    /// Whether this is one of them.
    pub(super) fn has(self, listener: ListenerNumber) -> bool {
        self.0 & (1 << listener.0) != 0
    }
}

/// A watched listening socket. There are at most 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenerNumber(u8);

/// Sockets by slot, their readiness, the clock, and the doorbells of all shards.
pub(super) struct Sockets {
    slots: Vec<Option<Socket>>,
    generation: u32,
    /// Of the logs of the shard's service, if it has one.
    files: Option<Files>,
    /// What has become of requests for files without the poller.
    answers: Vec<Answer>,
    /// The poller has failed where that could not be said.
    failed: Option<io::Error>,
    /// After `files`, which hand operations to it.
    poller: Poller,
    events: Vec<Event>,
    handshakes: Option<Handshakes>,
    scratch: Scratch,
    /// Connections that have left output for the next turn although their sockets have room.
    yielded: Vec<u32>,
    /// Watched listening sockets, by their numbers.
    listeners: Vec<RawFd>,
    shard: u16,
    logins: Logins,
    bells: Arc<[Doorbell]>,
    epoch: Instant,
}

const BELL: Token = Token(1 << 62);
/// Listeners have the tokens from here on, in the order of their numbers.
const LISTENERS: u64 = 2 << 62;
const GENERATION_MASK: u32 = (1 << 30) - 1;

fn token(slot: u32, generation: u32) -> Token {
    Token(u64::from(generation) << 32 | u64::from(slot))
}

impl Sockets {
    /// For shard `shard`, on its thread. `epoch` is the zero of the clock that all shards share.
    ///
    /// # Errors
    /// When the poller cannot be set up.
    pub(super) fn new(
        shard: u16,
        bells: Arc<[Doorbell]>,
        epoch: Instant,
        logins: Logins,
        handshakes: Option<Handshakes>,
    ) -> io::Result<Self> {
        let mut poller = Poller::new()?;
        poller.watch(bells[usize::from(shard)].descriptor(), BELL)?;
        Ok(Self {
            slots: Vec::new(),
            generation: 0,
            files: None,
            answers: Vec::new(),
            failed: None,
            poller,
            events: Vec::new(),
            handshakes,
            scratch: Scratch::default(),
            yielded: Vec::new(),
            listeners: Vec::new(),
            shard,
            logins,
            bells,
            epoch,
        })
    }

    /// Takes over the files of the logs of the shard's service.
    ///
    /// # Errors
    /// When the thread beside cannot be started.
    pub(super) fn keep_files(&mut self, logs: Vec<(LogId, LogDirectory)>) -> io::Result<()> {
        let (bells, shard) = (self.bells.clone(), usize::from(self.shard));
        let files = self.files.insert(Files::new(move || bells[shard].ring())?);
        logs.into_iter().for_each(|(log, directory)| files.add(log, directory));
        Ok(())
    }

    /// Watches a listening socket.
    pub(super) fn listen(&mut self, listener: RawFd) -> io::Result<ListenerNumber> {
        let number = self.listeners.len() as u8;
        assert!(u32::from(number) < u32::BITS, "the number of addresses is bounded when options are checked");
        self.poller.watch(listener, Token(LISTENERS + u64::from(number)))?;
        self.listeners.push(listener);
        Ok(ListenerNumber(number))
    }

    /// Uses these threads for the handshakes that begin from now on.
    pub(super) fn set_handshakes(&mut self, handshakes: Handshakes) {
        self.handshakes = Some(handshakes);
    }

    /// No longer watches the listening sockets, which may then be closed.
    pub(super) fn stop_listening(&mut self) -> io::Result<()> {
        for number in 0..std::mem::take(&mut self.listeners).len() {
            self.poller.forget(Token(LISTENERS + number as u64))?;
        }
        Ok(())
    }

    /// Puts an accepted connection, in non-blocking mode, into `slot`.
    pub(super) fn insert(&mut self, slot: u32, link: Link) -> io::Result<()> {
        let at = slot as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        debug_assert!(self.slots[at].is_none(), "a slot is closed before it is used again");
        self.put(slot, link)
    }

    fn put(&mut self, slot: u32, link: Link) -> io::Result<()> {
        let generation = self.next_generation();
        if let Some(stream) = link.stream() {
            self.poller.watch(stream.as_raw_fd(), token(slot, generation))?;
        }
        self.slots[slot as usize] = Some(Socket { link, generation, read_on: false });
        Ok(())
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = (self.generation + 1) & GENERATION_MASK;
        self.generation
    }

    /// Hands the socket of a connection that has been greeted, or is to be greeted later, over for its handshake.
    pub(super) fn hand_over(&mut self, slot: u32) -> io::Result<()> {
        let generation = self.next_generation();
        let (Some(handshakes), Some(socket)) = (&self.handshakes, self.slots.get_mut(slot as usize)) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        // The new generation makes what the poller has told of the old watch nobody's.
        if let Some(watched) = socket {
            self.poller.forget(token(slot, watched.generation))?;
        }
        let Some(Socket { link: Link::Greeting(stream, opening), .. }) = socket.take() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let place = Place { shard: self.shard, slot, generation };
        let link = Link::Away(handshakes.begin(stream, place, opening));
        *socket = Some(Socket { link, generation, read_on: false });
        Ok(())
    }

    /// Whether the connection that was handed over under these names still waits for its handshake.
    pub(super) fn is_away(&self, slot: u32, generation: u32) -> bool {
        let socket = self.slots.get(slot as usize).and_then(Option::as_ref);
        socket.is_some_and(|socket| socket.generation == generation && matches!(socket.link, Link::Away(_)))
    }

    /// Takes a socket back from the handshake.
    pub(super) fn come_back(&mut self, slot: u32, link: Link) -> io::Result<()> {
        self.put(slot, link)
    }

    /// Adds the connections that have become ready to `woken`, without waiting.
    pub(super) fn poll(&mut self, woken: &mut Vec<u32>) -> io::Result<Found> {
        self.failed.take().map_or(Ok(()), Err)?;
        self.poller.poll(&mut self.events)?;
        self.sort_events(woken)
    }

    /// As [`Sockets::poll`], but waits for something to happen, at most until `deadline`, nanoseconds of [`Io::now`].
    pub(super) fn wait(&mut self, deadline: Option<u64>, woken: &mut Vec<u32>) -> io::Result<Found> {
        if !self.yielded.is_empty() || !self.answers.is_empty() || self.failed.is_some() {
            return self.poll(woken);
        }
        let time = deadline.map(|at| Duration::from_nanos(at.saturating_sub(self.now())));
        self.poller.wait(time, &mut self.events)?;
        self.sort_events(woken)
    }

    fn sort_events(&mut self, woken: &mut Vec<u32>) -> io::Result<Found> {
        let mut found = Found::default();
        self.scratch.begin_turn();
        woken.append(&mut self.yielded);
        for event in self.events.drain(..) {
            let descriptor = match event.token {
                BELL => self.bells[usize::from(self.shard)].descriptor(),
                Token(bits) if bits >= LISTENERS => {
                    let number = (bits - LISTENERS) as usize;
                    let Some(listener) = self.listeners.get(number) else { continue };
                    found.0 |= 1 << number;
                    *listener
                }
                Token(bits) => {
                    let (slot, generation) = (bits as u32, (bits >> 32) as u32);
                    let socket = self.slots.get_mut(slot as usize).and_then(Option::as_mut);
                    let Some(socket) = socket.filter(|socket| socket.generation == generation) else { continue };
                    let Some(stream) = socket.link.stream() else { continue };
                    socket.read_on |= event.read_on;
                    woken.push(slot);
                    stream.as_raw_fd()
                }
            };
            if event.ended {
                self.poller.watch(descriptor, event.token)?;
            }
        }
        Ok(found)
    }
}

impl Io for Sockets {
    fn now(&mut self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn recv(&mut self, slot: u32, buf: &mut [u8]) -> Recv {
        let Self { slots, scratch, .. } = self;
        let Some(Socket { link, read_on, .. }) = slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            return Recv::Failed;
        };
        match link {
            Link::Plain(stream) => stream.recv_more(*read_on, buf),
            Link::Tls(stream, session) => session.recv(stream, *read_on, buf, &mut scratch.records),
            Link::WebSocket(stream, socket) => socket.recv(stream, *read_on, buf, scratch),
            Link::Greeting(..) | Link::Away(_) => Recv::Nothing,
        }
    }

    fn send(&mut self, slot: u32, bufs: &[IoSlice<'_>]) -> Sent {
        let Self { slots, scratch, yielded, .. } = self;
        let Some(Socket { link, .. }) = slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            return Sent::Failed;
        };
        match link {
            Link::Plain(stream) => stream.send_some(bufs),
            Link::Tls(stream, session) => session.send(stream, bufs),
            Link::WebSocket(stream, socket) => {
                let outcome = socket.send(stream, bufs, scratch);
                if socket.yields() {
                    yielded.push(slot);
                }
                outcome
            }
            Link::Away(_) => Sent::Bytes(0),
            Link::Greeting(stream, _) => {
                let outcome = stream.send_some(bufs);
                let offered = bufs.iter().map(|buf| buf.len()).sum();
                if outcome == Sent::Bytes(offered)
                    && let Err(error) = self.hand_over(slot)
                {
                    tracing::error!("Error handing a connection over for its handshake: {error}");
                    return Sent::Failed;
                }
                outcome
            }
        }
    }

    fn farewell(&mut self, slot: u32, reason: CloseReason) {
        let Self { slots, scratch, .. } = self;
        if let Some(Socket { link: Link::WebSocket(stream, socket), .. }) =
            slots.get_mut(slot as usize).and_then(Option::as_mut)
        {
            socket.farewell(stream, reason, scratch);
        }
    }

    fn close(&mut self, slot: u32) {
        if let Some(mut socket) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            match &mut socket.link {
                Link::Tls(stream, session) => session.close(stream),
                Link::WebSocket(stream, socket) => socket.close(stream),
                Link::Away(_) => return,
                Link::Plain(_) | Link::Greeting(..) => {}
            }
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

    fn has_ended(&mut self, slot: u32) -> bool {
        let socket = self.slots.get(slot as usize).and_then(Option::as_ref);
        socket.and_then(|socket| socket.link.stream()).is_none_or(has_ended)
    }

    fn wall(&mut self) -> Time {
        engine::now()
    }

    fn file(&mut self, log: LogId, request: Request) {
        let Self { files, poller, answers, .. } = self;
        match files {
            Some(files) => {
                if let Err(error) = files.begin(poller, log, request, answers) {
                    self.failed = Some(error);
                }
            }
            None => {
                let outcome = Outcome::Failed(DiskFault::Missing);
                answers.push(Answer { log, id: request.id(), outcome, free: None });
            }
        }
    }

    fn file_answers(&mut self, answers: &mut Vec<Answer>) {
        answers.append(&mut self.answers);
        if let Some(files) = &mut self.files {
            files.collect(&mut self.poller, answers);
        }
    }

    fn rest(&mut self) {
        self.scratch = Scratch::default();
        self.poller.rest();
        // The allocator keeps what was freed, gigabytes after hundreds of slow consumers, unless it is asked.
        // SAFETY: takes no pointers; the allocator locks what it looks at.
        unsafe { libc::malloc_trim(0) };
    }
}

impl Wire for TcpStream {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        recv_now(self, buf)
    }

    fn send(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        send_now(self, bufs)
    }
}

/// Whether the peer has closed at least its sending side.
fn has_ended(stream: &TcpStream) -> bool {
    let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one live, exclusively borrowed element; with no time to wait the call does not block.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready > 0
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
