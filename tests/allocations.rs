//! In a steady flow of messages the shards allocate nothing: every buffer on the way from a publish to its subscribers,
//! on the same shard and through the rings to another one, has been there before. Two shards run here on one thread,
//! with sockets that are buffers; a global allocator counts what this thread asks it for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use leat::auth::{Check, Directory};
use leat::config::Options;
use leat::shard::io::{Io, Recv, Sent};
use leat::shard::{Config, Next, Shard, Shared, peers};
use leat::wire::info::{ServerInfo, TlsNotice};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
struct Counting;

impl Counting {
    fn count() {
        // A thread that is ending has no counter any more, and is none of those that are looked at.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
    }
}

// SAFETY: everything is handed to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: as above; `ptr` came from the system's allocator.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The sockets of one shard by slot: what is still to be received, and how many bytes have been sent.
#[derive(Default)]
struct Buffers {
    time: u64,
    sockets: Vec<Socket>,
}

#[derive(Default)]
struct Socket {
    input: Vec<u8>,
    received: usize,
    sent_bytes: usize,
}

impl Io for Buffers {
    fn now(&mut self) -> u64 {
        self.time += 1_000;
        self.time
    }

    fn recv(&mut self, conn: u32, buf: &mut [u8]) -> Recv {
        let socket = &mut self.sockets[conn as usize];
        let rest = &socket.input[socket.received..];
        if rest.is_empty() {
            return Recv::Nothing;
        }
        let bytes = rest.len().min(buf.len());
        buf[..bytes].copy_from_slice(&rest[..bytes]);
        socket.received += bytes;
        Recv::Data { bytes, more: socket.received < socket.input.len() }
    }

    fn send(&mut self, conn: u32, bufs: &[IoSlice<'_>]) -> Sent {
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        self.sockets[conn as usize].sent_bytes += bytes;
        Sent::Bytes(bytes)
    }

    fn close(&mut self, _conn: u32) {
        panic!("no connection is to be closed");
    }

    fn decide(&mut self, _conn: u32, _cid: u64, _check: Check) {
        panic!("the server is open to everybody");
    }

    fn ring(&mut self, _shard: u16) {
        panic!("no shard sleeps");
    }

    fn wall(&mut self) -> leat::log::Time {
        panic!("no shard has a service");
    }

    fn file(&mut self, _log: leat::log::LogId, _request: leat::log::Request) {
        panic!("no shard has a service");
    }

    fn file_answers(&mut self, _answers: &mut Vec<leat::log::Answer>) {
        panic!("no shard has a service");
    }
}

/// Two shards and their sockets.
struct Pair {
    shards: Vec<(Shard, Buffers)>,
    woken: Vec<u32>,
}

/// A connection: shard and slot.
type Place = (usize, u32);

impl Pair {
    fn new() -> Self {
        let info = ServerInfo {
            server_id: "N".into(),
            server_name: "N".into(),
            host: "127.0.0.1".into(),
            port: 4222,
            tls: TlsNotice::default(),
        };
        let options = Options::default();
        let config = Config {
            closed_records: 10,
            ping_interval: 1 << 60,
            write_deadline: 1 << 60,
            auth_timeout: 1 << 60,
            ..Config::new(&options, 2, Arc::new(Directory::new(&options)), Arc::new(info))
        };
        let shared = Arc::new(Shared::new(2));
        // Few slots, so that the rings have been round before the count begins.
        let links = peers::mesh(2, 16, 1 << 20).into_iter().enumerate();
        let shards = links.map(|(cpu, links)| {
            (Shard::new(config.clone(), shared.clone(), links, cpu, cpu as u64), Buffers::default())
        });
        Self { shards: shards.collect(), woken: Vec::with_capacity(16) }
    }

    /// Connects a client and lets it say hello.
    fn connect(&mut self, shard: usize, hello: &str) -> Place {
        let (core, io) = &mut self.shards[shard];
        io.sockets.push(Socket::default());
        let slot = core.accept(io, SocketAddr::from(([127, 0, 0, 1], 1)));
        self.send((shard, slot), hello.as_bytes());
        self.settle();
        (shard, slot)
    }

    /// Puts bytes into a socket. The first time takes memory, later ones of the same size do not.
    fn send(&mut self, (shard, slot): Place, bytes: &[u8]) {
        let (core, io) = &mut self.shards[shard];
        let socket = &mut io.sockets[slot as usize];
        socket.input.clear();
        socket.received = 0;
        socket.input.extend_from_slice(bytes);
        self.woken.push(slot);
        core.turn(io, &mut self.woken);
    }

    /// Takes turns until there is nothing left to do.
    fn settle(&mut self) {
        loop {
            let mut idle = 0;
            for (core, io) in &mut self.shards {
                let next = core.turn(io, &mut self.woken);
                idle += usize::from(matches!(next, Next::Sleep { worked: false, .. }));
            }
            if idle == self.shards.len() {
                return;
            }
        }
    }

    fn sent_bytes(&self, (shard, slot): Place) -> usize {
        self.shards[shard].1.sockets[slot as usize].sent_bytes
    }
}

const QUIET: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n";
const NO_HEADERS: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
/// Verbose and pedantic: each publish goes the long way round and is confirmed.
const DEFAULT: &str = "CONNECT {\"headers\":true}\r\n";

const MESSAGES: usize = 200;
/// Rounds in which memory may be taken, and rounds in which it may not.
const WARM_UP: usize = 50;
const MEASURED: usize = 50;

/// Plays `frame` over and over from a client on shard 0, with these subscribers of `foo` on both shards, and gives the
/// allocations of the measured rounds and the bytes that one message brings each subscriber.
fn allocations(hello: &str, frame: &[u8], subscribers: &[&str]) -> (usize, Vec<usize>) {
    let mut pair = Pair::new();
    let mut places = Vec::new();
    for shard in 0..2 {
        places.extend(subscribers.iter().map(|subscriber| pair.connect(shard, subscriber)));
    }
    let publisher = pair.connect(0, hello);
    let input = frame.repeat(MESSAGES);
    let mut before = (0, Vec::new());
    for round in 0..WARM_UP + MEASURED {
        if round == WARM_UP {
            let sent = places.iter().map(|place| pair.sent_bytes(*place)).collect();
            before = (ALLOCATIONS.with(Cell::get), sent);
        }
        pair.send(publisher, &input);
        pair.settle();
    }
    let taken = ALLOCATIONS.with(Cell::get) - before.0;
    let sent = places.iter().zip(before.1).map(|(place, before)| pair.sent_bytes(*place) - before);
    (taken, sent.map(|bytes| bytes / (MESSAGES * MEASURED)).collect())
}

/// Whichever way a message takes, it costs no allocation.
#[test]
fn a_steady_flow_allocates_nothing() {
    let plain = [QUIET, "SUB foo 1\r\n"].concat();
    let wildcard = [QUIET, "SUB * 1\r\n"].concat();
    let without_headers = [NO_HEADERS, "SUB foo 1\r\n"].concat();
    let member = [QUIET, "SUB foo q 1\r\n"].concat();
    let pub_frame = b"PUB foo 5\r\nhello\r\n";
    let hpub_frame = b"HPUB foo re 12 17\r\nNATS/1.0\r\n\r\nhello\r\n";
    let odd_frame = b"pub  foo\t05\r\nhello\r\n";
    let cases: [(&str, &str, &[u8], &[&str]); 7] = [
        ("PUB", QUIET, pub_frame, &[&plain, &wildcard]),
        ("HPUB", QUIET, hpub_frame, &[&plain, &wildcard]),
        ("HPUB to a client without headers", QUIET, hpub_frame, &[&without_headers]),
        ("a queue group", QUIET, pub_frame, &[&member, &member]),
        ("a queue group and others", QUIET, hpub_frame, &[&member, &plain]),
        ("unusual blanks", QUIET, odd_frame, &[&plain]),
        ("a verbose and pedantic publisher", DEFAULT, pub_frame, &[&plain]),
    ];
    let mut failures = Vec::new();
    for (name, hello, frame, subscribers) in cases {
        let (taken, bytes) = allocations(hello, frame, subscribers);
        assert!(bytes.iter().all(|bytes| *bytes > 0), "{name}: {bytes:?}");
        if taken > 0 {
            failures.push(format!("{name}: {taken} for {} messages", MESSAGES * MEASURED));
        }
    }
    assert!(failures.is_empty(), "allocations:\n{}", failures.join("\n"));
}

/// Nor where a round takes many reads, each of which ends inside of a message (what is left over is kept), and a large
/// output is written in mid-turn.
#[test]
fn many_reads_allocate_nothing() {
    const READ_BYTES: usize = 64 << 10;
    let plain = [QUIET, "SUB foo 1\r\n"].concat();
    let frame = [b"PUB foo 4000\r\n".as_slice(), &[b'x'; 4000], b"\r\n"].concat();
    let (taken, _) = allocations(QUIET, &frame, &[&plain]);
    let reads = MEASURED * (frame.len() * MESSAGES).div_ceil(READ_BYTES);
    assert_eq!(taken, 0, "allocations in {reads} reads");
}
