//! Shards take another configuration one after the other. Here two of them run on one thread, with sockets that are
//! buffers, so that one can have it while the other has not.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use leat::auth::{Check, Directory};
use leat::config::accounts::Account;
use leat::config::authorization::{Identity, User};
use leat::config::{Options, Secret};
use leat::shard::io::{Io, Recv, Sent};
use leat::shard::{Config, Next, Shard, Shared, peers};
use leat::wire::info::{ServerInfo, TlsNotice};

/// The sockets of one shard by slot, and what it wants to have decided.
#[derive(Default)]
struct Sockets {
    time: u64,
    all: Vec<Socket>,
    undecided: Vec<(u32, u64, Check)>,
}

#[derive(Default)]
struct Socket {
    input: Vec<u8>,
    output: Vec<u8>,
    is_closed: bool,
}

impl Io for Sockets {
    fn now(&mut self) -> u64 {
        self.time += 1_000;
        self.time
    }

    fn recv(&mut self, conn: u32, buf: &mut [u8]) -> Recv {
        let input = &mut self.all[conn as usize].input;
        if input.is_empty() {
            return Recv::Nothing;
        }
        let bytes = input.len().min(buf.len());
        buf[..bytes].copy_from_slice(&input[..bytes]);
        input.drain(..bytes);
        Recv::Data { bytes, more: !input.is_empty() }
    }

    fn send(&mut self, conn: u32, bufs: &[IoSlice<'_>]) -> Sent {
        let output = &mut self.all[conn as usize].output;
        bufs.iter().for_each(|buf| output.extend_from_slice(buf));
        Sent::Bytes(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn close(&mut self, conn: u32) {
        self.all[conn as usize].is_closed = true;
    }

    fn decide(&mut self, conn: u32, cid: u64, check: Check) {
        self.undecided.push((conn, cid, check));
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

/// A connection: shard and slot.
type Place = (usize, u32);

struct Pair {
    shards: Vec<(Shard, Sockets)>,
    config: Config,
}

fn user(name: &str, password: &str) -> User {
    User {
        identity: Identity::Password { user: name.into(), password: Some(Secret::new(password)) },
        permissions: None,
        connection_types: Vec::new(),
        proxy_required: false,
    }
}

/// Accounts with a user each, of the same name, whose password is `x` or given.
fn options(accounts: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    let account = |(name, password): &(&str, &str)| Account {
        name: (*name).into(),
        users: vec![user(name, password)],
        ..Account::default()
    };
    options.access.accounts = accounts.iter().map(account).collect();
    options
}

impl Pair {
    fn new(accounts: &[(&str, &str)]) -> Self {
        let info = ServerInfo {
            server_id: "N".into(),
            server_name: "N".into(),
            host: "127.0.0.1".into(),
            port: 4222,
            tls: TlsNotice::default(),
        };
        let options = options(accounts);
        let config = Config {
            closed_records: 10,
            ping_interval: 1 << 60,
            write_deadline: 1 << 60,
            auth_timeout: 1 << 60,
            ..Config::new(&options, 2, Arc::new(Directory::new(&options)), Arc::new(info))
        };
        let shared = Arc::new(Shared::new(2));
        let links = peers::mesh(2, 16, 1 << 20).into_iter();
        let shard = |links| (Shard::new(config.clone(), shared.clone(), links, 0, 7), Sockets::default());
        Self { shards: links.map(shard).collect(), config }
    }

    fn connect(&mut self, shard: usize, user: &str, password: &str) -> Place {
        let (core, io) = &mut self.shards[shard];
        io.all.push(Socket::default());
        let slot = core.accept(io, SocketAddr::from(([127, 0, 0, 1], 1)));
        core.turn(io, &mut Vec::new());
        io.all[slot as usize].output.clear();
        let place = (shard, slot);
        self.send(place, &format!("CONNECT {{\"user\":\"{user}\",\"pass\":\"{password}\",\"verbose\":false}}\r\n"));
        place
    }

    fn send(&mut self, (shard, slot): Place, text: &str) {
        let (core, io) = &mut self.shards[shard];
        io.all[slot as usize].input.extend_from_slice(text.as_bytes());
        core.turn(io, &mut vec![slot]);
        self.settle();
    }

    /// Takes turns until there is nothing left to do.
    fn settle(&mut self) {
        while self
            .shards
            .iter_mut()
            .any(|(core, io)| !matches!(core.turn(io, &mut Vec::new()), Next::Sleep { worked: false, .. }))
        {}
    }

    /// The directory that follows, for whichever shards.
    fn next(&mut self, accounts: &[(&str, &str)]) {
        self.config.directory = Arc::new(self.config.directory.successor(&options(accounts)));
    }

    fn reload(&mut self, shard: usize) -> usize {
        let (core, io) = &mut self.shards[shard];
        core.reload(io, &self.config)
    }

    /// What a client has been sent since the last look.
    fn heard(&mut self, (shard, slot): Place) -> String {
        let socket = &mut self.shards[shard].1.all[slot as usize];
        String::from_utf8(std::mem::take(&mut socket.output)).expect("text")
    }
}

/// A shard may be told of an account that it does not know yet; when it does, nothing has been missed.
#[test]
fn a_shard_hears_of_an_account_before_it_knows_it() {
    let mut pair = Pair::new(&[("A", "x")]);
    let old = pair.connect(1, "A", "x");
    pair.send(old, "SUB > 1\r\n");
    pair.next(&[("C", "x"), ("A", "x"), ("D", "x")]);
    assert_eq!(pair.reload(0), 0);
    let early = pair.connect(0, "D", "x");
    pair.send(early, "SUB foo 1\r\nSUB foo q 2\r\nPUB foo 1\r\n1\r\n");
    assert_eq!(pair.heard(early), "MSG foo 1 1\r\n1\r\nMSG foo 2 1\r\n1\r\n");
    let refused = pair.connect(1, "D", "x");
    assert_eq!(pair.heard(refused), "-ERR 'Authorization Violation'\r\n");
    assert_eq!(pair.reload(1), 1);
    let late = pair.connect(1, "D", "x");
    pair.send(late, "PUB foo 1\r\n2\r\n");
    assert_eq!(pair.heard(early), "MSG foo 1 1\r\n2\r\nMSG foo 2 1\r\n2\r\n");
    assert_eq!(pair.heard(old), "", "other accounts hear nothing");
}

/// While one shard has the new configuration and the other has not, those who stay miss nothing.
#[test]
fn between_two_reloads_messages_go_on() {
    let mut pair = Pair::new(&[("A", "x"), ("B", "x")]);
    let (publisher, subscriber) = (pair.connect(0, "A", "x"), pair.connect(1, "A", "x"));
    let (gone, other) = (pair.connect(0, "B", "x"), pair.connect(1, "B", "x"));
    pair.send(gone, "SUB foo 1\r\n");
    pair.send(subscriber, "SUB foo 1\r\n");
    pair.next(&[("A", "x")]);
    for (shard, text) in [(0, "1"), (1, "2")] {
        pair.reload(shard);
        pair.send(publisher, &format!("PUB foo 1\r\n{text}\r\n"));
        assert_eq!(pair.heard(subscriber), format!("MSG foo 1 1\r\n{text}\r\n"));
        if shard == 0 {
            assert!(pair.shards[0].1.all[gone.1 as usize].is_closed);
            pair.send(other, "PUB foo 1\r\nx\r\n");
        }
    }
    assert!(pair.shards[1].1.all[other.1 as usize].is_closed);
    assert_eq!([pair.heard(gone), pair.heard(other)], ["", ""]);
}

/// A verdict by a directory that is not in force any more does not count, whatever it is.
#[test]
fn a_verdict_of_the_old_directory_does_not_count() {
    let [first, second] = ["first", "second"].map(|password| bcrypt::hash(password, 4).expect("a hash"));
    for (password, is_let_in) in [("first", false), ("second", true)] {
        let mut pair = Pair::new(&[("A", &first)]);
        let client = pair.connect(0, "A", password);
        pair.send(client, "PING\r\n");
        pair.next(&[("A", &second)]);
        pair.reload(0);
        for judged in 0..2 {
            assert_eq!(pair.heard(client), "", "{judged} verdicts are not enough");
            let (core, io) = &mut pair.shards[0];
            let (slot, cid, check) = io.undecided.pop().expect("something to be decided");
            assert!(io.undecided.is_empty());
            core.login_decided(slot, cid, check.decide());
            pair.settle();
        }
        let expected = if is_let_in { "PONG\r\n" } else { "-ERR 'Authorization Violation'\r\n" };
        assert_eq!(pair.heard(client), expected);
    }
}
