//! Shards with a service that echoes, all on one thread, with sockets that are buffers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::auth::{Check, Directory};
use crate::config::Options;
use crate::config::accounts::Account;
use crate::log::{Answer, LogId, Outcome, Request, RequestId, Slot, Time};
use crate::monitor::{ServiceSnapshot, ServiceWant, Want};
use crate::shard::io::{Io, Recv, Sent};
use crate::shard::service::{Due, Mail, Outbox, Service, Source, Subscription};
use crate::shard::{Config, Next, Shard, Shared, peers};
use crate::wire::info::{ServerInfo, TlsNotice};

/// Nanoseconds from the zero of the shards' clock to that of the calendar.
const EPOCH: Time = 1_700_000_000_000_000_000;

/// What the service of one shard has seen and is to do.
#[derive(Default)]
struct State {
    /// Everything that it was told, and its turns.
    log: Vec<String>,
    deliveries: VecDeque<String>,
    requests: Vec<(LogId, Request)>,
    deadline: Option<Time>,
    is_stopping: bool,
}

/// Messages of tag `ASK` are answered; those of tag `TELL` are relayed to the shard that the subject ends with.
struct Echo {
    shard: u16,
    state: Rc<RefCell<State>>,
}

const ASK: u32 = 1;
const TELL: u32 = 2;
/// Deliveries of one turn.
const SLICE: usize = 100;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Service for Echo {
    fn subscriptions(&self) -> Vec<Subscription> {
        let own = |pattern: &str| Subscription { pattern: pattern.into(), tag: TELL, of_own_shard: true };
        let ask = Subscription { pattern: b"ask.>".to_vec(), tag: ASK, of_own_shard: false };
        if self.shard == 0 { vec![own("tell.*"), ask] } else { vec![own("tell.*")] }
    }

    fn message(&mut self, _: Time, mail: &Mail<'_>, out: &mut Outbox) {
        let mut state = self.state.borrow_mut();
        let (subject, payload) = (text(mail.subject), text(mail.payload));
        state.log.push(format!("{subject} {} {payload}", mail.source.shard));
        match (mail.tag, subject.rsplit_once('.')) {
            (TELL, Some((_, "all"))) => out.relay(None, mail.source, |bytes| bytes.extend_from_slice(mail.payload)),
            (TELL, Some((_, to))) => {
                out.relay(to.parse().ok(), mail.source, |bytes| bytes.extend_from_slice(mail.payload));
            }
            (ASK, Some((_, "many"))) => {
                out.send(mail.reply, b"", b"as you like");
                state.deliveries.extend((0..1000).map(|n| n.to_string()));
            }
            (ASK, Some((_, "slow"))) => out.stall(mail.source, 5),
            _ => out.send(mail.reply, b"", mail.payload),
        }
    }

    fn relayed(&mut self, _: Time, from: u16, source: Source, said: &[u8], out: &mut Outbox) {
        self.state.borrow_mut().log.push(format!("{} said by {from} for {}", text(said), source.shard));
        if said == b"again" {
            out.relay(Some(self.shard), source, |bytes| bytes.extend_from_slice(said));
        }
    }

    fn turn(&mut self, now: Time, may_deliver: bool, out: &mut Outbox) -> Due {
        let mut state = self.state.borrow_mut();
        state.log.push(if may_deliver { "turn".into() } else { "turn without room".into() });
        let slice = if may_deliver { SLICE.min(state.deliveries.len()) } else { 0 };
        for payload in state.deliveries.drain(..slice) {
            out.send(b"deliver", b"", payload.as_bytes());
        }
        state.deadline = state.deadline.filter(|deadline| *deadline > now);
        Due { again: may_deliver && !state.deliveries.is_empty(), deadline: state.deadline }
    }

    fn take_requests(&mut self, requests: &mut Vec<(LogId, Request)>) {
        requests.append(&mut self.state.borrow_mut().requests);
    }

    fn completed(&mut self, _: Time, log: LogId, id: RequestId, outcome: Outcome, free: Option<u64>) {
        self.state.borrow_mut().log.push(format!("{} of log {}: {outcome:?}, free {free:?}", id.0, log.0));
    }

    fn stop(&mut self, _: Time) {
        self.state.borrow_mut().is_stopping = true;
    }

    fn is_stopped(&self) -> bool {
        let state = self.state.borrow();
        state.is_stopping && state.log.last().is_some_and(|last| last == "turn")
    }

    fn snapshot(&mut self, _: Time, _: &ServiceWant) -> ServiceSnapshot {
        ServiceSnapshot { faults: vec!["it is tired".into()], ..ServiceSnapshot::default() }
    }
}

/// The sockets of one shard by slot, its clocks and its files.
struct World {
    time: u64,
    sockets: Vec<Socket>,
    requests: Vec<(LogId, RequestId)>,
    answers: Vec<Answer>,
    /// Where rings of the doorbell of another shard are noted.
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct Socket {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Io for World {
    fn now(&mut self) -> u64 {
        self.time += 1_000;
        self.time
    }

    fn wall(&mut self) -> Time {
        EPOCH + self.time as Time
    }

    fn recv(&mut self, conn: u32, buf: &mut [u8]) -> Recv {
        let input = &mut self.sockets[conn as usize].input;
        if input.is_empty() {
            return Recv::Nothing;
        }
        let bytes = input.len().min(buf.len());
        buf[..bytes].copy_from_slice(&input[..bytes]);
        input.drain(..bytes);
        Recv::Data { bytes, more: !input.is_empty() }
    }

    fn send(&mut self, conn: u32, bufs: &[IoSlice<'_>]) -> Sent {
        let output = &mut self.sockets[conn as usize].output;
        bufs.iter().for_each(|buf| output.extend_from_slice(buf));
        Sent::Bytes(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn close(&mut self, _: u32) {
        panic!("no connection is to be closed");
    }

    fn decide(&mut self, _: u32, _: u64, _: Check) {
        panic!("the server is open to everybody");
    }

    fn ring(&mut self, shard: u16) {
        self.state.borrow_mut().log.push(format!("ring {shard}"));
    }

    fn file(&mut self, log: LogId, request: Request) {
        self.requests.push((log, request.id()));
    }

    fn file_answers(&mut self, answers: &mut Vec<Answer>) {
        answers.append(&mut self.answers);
    }
}

/// A connection: shard and slot.
type Place = (usize, u32);

struct Rig {
    shards: Vec<(Shard, World)>,
    states: Vec<Rc<RefCell<State>>>,
    config: Config,
}

const CONNECT: &str = r#"CONNECT {"verbose":false,"headers":true,"no_responders":true}"#;

impl Rig {
    fn new(shards: usize, ring_slots: usize) -> Self {
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
            ..Config::new(&options, shards, Arc::new(Directory::new(&options)), Arc::new(info))
        };
        let shared = Arc::new(Shared::new(shards));
        let mut rig = Self { shards: Vec::new(), states: Vec::new(), config };
        for (n, links) in peers::mesh(shards, ring_slots, 1 << 20).into_iter().enumerate() {
            let mut shard = Shard::new(rig.config.clone(), shared.clone(), links, 0, 7);
            let state = Rc::new(RefCell::new(State::default()));
            shard.install(Box::new(Echo { shard: n as u16, state: state.clone() }));
            let world =
                World { time: 0, sockets: Vec::new(), requests: Vec::new(), answers: Vec::new(), state: state.clone() };
            rig.shards.push((shard, world));
            rig.states.push(state);
        }
        rig.settle();
        rig
    }

    fn connect(&mut self, shard: usize) -> Place {
        let (core, world) = &mut self.shards[shard];
        world.sockets.push(Socket::default());
        let slot = core.accept(world, SocketAddr::from(([127, 0, 0, 1], 1)));
        core.turn(world, &mut Vec::new());
        world.sockets[slot as usize].output.clear();
        self.send((shard, slot), &format!("{CONNECT}\r\n"));
        (shard, slot)
    }

    /// Gives a client's bytes to its shard, which takes one turn.
    fn give(&mut self, (shard, slot): Place, text: &str) -> Next {
        let (core, world) = &mut self.shards[shard];
        world.sockets[slot as usize].input.extend_from_slice(text.as_bytes());
        core.turn(world, &mut vec![slot])
    }

    fn send(&mut self, place: Place, text: &str) {
        self.give(place, text);
        self.settle();
    }

    fn turn(&mut self, shard: usize) -> Next {
        let (core, world) = &mut self.shards[shard];
        core.turn(world, &mut Vec::new())
    }

    /// Takes turns until there is nothing left to do.
    fn settle(&mut self) {
        let is_done = |next| matches!(next, Next::Sleep { worked: false, .. });
        for _ in 0..1000 {
            if (0..self.shards.len()).filter(|shard| !is_done(self.turn(*shard))).count() == 0 {
                return;
            }
        }
        panic!("there is always something left to do");
    }

    /// What a client has been sent since the last look.
    fn heard(&mut self, (shard, slot): Place) -> String {
        text(&std::mem::take(&mut self.shards[shard].1.sockets[slot as usize].output))
    }

    /// What the service of a shard has been told since the last look, without its turns.
    fn told(&self, shard: usize) -> Vec<String> {
        let log = std::mem::take(&mut self.states[shard].borrow_mut().log);
        log.into_iter().filter(|line| !line.starts_with("turn")).collect()
    }
}

/// A request from any shard is answered by the one shard that listens, and nobody says that there are no responders.
#[test]
fn a_request_from_another_shard_is_answered() {
    let mut rig = Rig::new(3, 16);
    for shard in 0..3 {
        let client = rig.connect(shard);
        rig.send(client, "SUB in 1\r\nPUB ask.me in 5\r\nhello\r\n");
        assert_eq!(rig.heard(client), "MSG in 1 5\r\nhello\r\n");
        assert_eq!(rig.told(0), [format!("ask.me {shard} hello")]);
        rig.send(client, "PUB nobody in 0\r\n\r\n");
        assert!(rig.heard(client).contains(" 503\r\n"), "elsewhere they are told");
    }
}

/// What is for each shard's own service is taken by that of the publisher's shard only, whoever else listens.
#[test]
fn own_subjects_are_taken_by_the_own_shard() {
    let mut rig = Rig::new(2, 16);
    let listeners = [rig.connect(0), rig.connect(1)];
    for listener in listeners {
        rig.send(listener, "SUB tell.> 1\r\nSUB in 2\r\n");
    }
    for shard in 0..2 {
        rig.send(listeners[shard], "PUB tell.5 in 1\r\nx\r\n");
        for listener in listeners {
            assert_eq!(rig.heard(listener), "MSG tell.5 1 in 1\r\nx\r\n");
        }
        assert_eq!(rig.told(shard), [format!("tell.5 {shard} x")]);
        assert_eq!(rig.told(1 - shard), [""; 0]);
    }
    let mut alone = Rig::new(2, 16);
    let client = alone.connect(1);
    alone.send(client, "SUB in 1\r\nPUB tell.5 in 1\r\nx\r\n");
    assert_eq!(alone.heard(client), "", "it is taken, so nobody says that there are no responders");
}

/// What a service says to that of another shard comes behind everything that the connection has sent there before.
#[test]
fn relays_keep_their_place() {
    let mut rig = Rig::new(2, 16);
    let client = rig.connect(1);
    let mut commands = String::new();
    let mut expected = Vec::new();
    for n in 0..200 {
        commands.push_str(&format!("PUB ask.n 3\r\n{n:03}\r\n"));
        expected.push(format!("ask.n 1 {n:03}"));
    }
    commands.push_str("PUB tell.0 5\r\nclose\r\nPUB tell.all 3\r\nall\r\n");
    expected.push("close said by 1 for 1".into());
    expected.push("all said by 1 for 1".into());
    rig.send(client, &commands);
    assert_eq!(rig.told(0), expected);
    assert_eq!(rig.told(1), ["tell.0 1 close", "tell.all 1 all", "all said by 1 for 1"]);
}

/// Large things that are said arrive as they were, from buffers that are shared.
#[test]
fn large_relays_arrive_whole() {
    let mut rig = Rig::new(3, 16);
    let client = rig.connect(0);
    let said = "x".repeat(100_000);
    rig.send(client, &format!("PUB tell.all {}\r\n{said}\r\n", said.len()));
    for shard in 0..3 {
        assert_eq!(rig.told(shard).pop(), Some(format!("{said} said by 0 for 0")));
    }
}

/// What a service says to itself it hears in the same turn, before its own turn.
#[test]
fn a_relay_to_the_own_shard_is_heard_at_once() {
    let mut rig = Rig::new(2, 16);
    let client = rig.connect(1);
    rig.told(1);
    rig.give(client, "PUB tell.1 1\r\nx\r\n");
    assert_eq!(*rig.states[1].borrow().log, ["tell.1 1 x", "x said by 1 for 1", "turn"]);
}

/// A service that never stops talking to itself holds nobody up.
#[test]
fn a_turn_ends() {
    let mut rig = Rig::new(1, 16);
    let client = rig.connect(0);
    assert_eq!(rig.give(client, "SUB in 1\r\nPUB tell.0 5\r\nagain\r\nPUB in 1\r\nx\r\n"), Next::Again);
    assert_eq!(rig.heard(client), "MSG in 1 1\r\nx\r\n");
    rig.told(0);
    assert_eq!(rig.turn(0), Next::Again);
    assert!(rig.told(0).len() > 10);
}

/// Before anything leaves in mid-turn, the service has been told what came before it.
#[test]
fn the_service_hears_before_others_do() {
    let mut rig = Rig::new(2, 16);
    let (publisher, subscriber) = (rig.connect(0), rig.connect(1));
    rig.send(subscriber, "SUB news 1\r\n");
    rig.told(0);
    rig.shards[1].0.sleeper().prepare_to_sleep();
    // More than what is committed before the turn ends.
    let news = "PUB news 200\r\n".to_owned() + &"n".repeat(200) + "\r\n";
    rig.give(publisher, &("PUB tell.0 5\r\nfirst\r\n".to_owned() + &news.repeat(20) + "PUB tell.0 4\r\nlast\r\n"));
    rig.shards[1].0.sleeper().cancel();
    let expected = ["tell.0 0 first", "first said by 0 for 0", "ring 1", "tell.0 0 last", "last said by 0 for 0"];
    assert_eq!(rig.told(0), expected);
}

/// A response and the deliveries behind it come in order, each once, to a connection of another shard that is slow to
/// make room.
#[test]
fn deliveries_follow_the_response() {
    let mut rig = Rig::new(2, 2);
    let client = rig.connect(1);
    rig.send(client, "SUB in 1\r\nSUB deliver 2\r\n");
    rig.give(client, "PUB ask.many in 0\r\n\r\n");
    rig.told(0);
    while rig.turn(0) == Next::Again {}
    let log = std::mem::take(&mut rig.states[0].borrow_mut().log);
    assert!(rig.shards[0].0.peers.is_spilled(), "nobody has made room");
    assert_eq!(log.last().map(String::as_str), Some("turn without room"));
    let left = rig.states[0].borrow().deliveries.len();
    assert!(left > 0, "what cannot be delivered stays where it is");
    assert!(matches!(rig.turn(0), Next::Sleep { worked: false, .. }), "it waits for room");
    assert_eq!(rig.states[0].borrow().deliveries.len(), left);
    rig.settle();
    let mut expected = "MSG in 1 11\r\nas you like\r\n".to_owned();
    for n in 0..1000 {
        let payload = n.to_string();
        expected.push_str(&format!("MSG deliver 2 {}\r\n{payload}\r\n", payload.len()));
    }
    assert_eq!(rig.heard(client), expected);
}

/// Who feeds a spill list by what the service says in its name is not read until it is empty.
#[test]
fn a_source_is_held() {
    let mut rig = Rig::new(2, 2);
    let client = rig.connect(1);
    let command = "PUB tell.0 900\r\n".to_owned() + &"x".repeat(900) + "\r\n";
    let mut given = 0;
    while rig.shards[1].0.audit().held == 0 {
        assert!(given < 5, "there are two slots");
        rig.give(client, &command);
        given += 1;
    }
    rig.told(1);
    rig.give(client, "PUB tell.1 1\r\ny\r\n");
    assert_eq!(rig.told(1), [""; 0], "it is not read");
    rig.settle();
    assert_eq!(rig.told(1), ["tell.1 1 y", "y said by 1 for 1"]);
    assert_eq!(rig.told(0).len(), given);
}

/// A connection of whichever shard is read more slowly if the service asks for that.
#[test]
fn a_source_is_slowed_down() {
    for shard in 0..2 {
        let mut rig = Rig::new(2, 16);
        let client = rig.connect(shard);
        rig.send(client, "PUB ask.slow 0\r\n\r\n");
        let counters = rig.shards[shard].0.local.counters;
        assert_eq!(counters.stalled_clients, 1, "shard {shard}");
    }
}

/// Another configuration takes nothing from the service, and headers do not reach it.
#[test]
fn a_reload_leaves_the_service_alone() {
    let mut rig = Rig::new(2, 16);
    let client = rig.connect(1);
    let account = Account { name: "A".into(), ..Account::default() };
    let mut options = Options::default();
    options.access.accounts = vec![account];
    rig.config.directory = Arc::new(rig.config.directory.successor(&options));
    for (shard, world) in &mut rig.shards {
        shard.reload(world, &rig.config);
    }
    rig.send(client, "SUB in 1\r\nHPUB ask.me in 12 15\r\nNATS/1.0\r\n\r\nabc\r\nPUB tell.0 1\r\nx\r\n");
    assert_eq!(rig.heard(client), "MSG in 1 3\r\nabc\r\n");
    assert_eq!(rig.told(0), ["ask.me 1 abc", "x said by 1 for 1"]);
}

/// The service gets its turn when it is due, by the calendar, and the shard sleeps until then.
#[test]
fn a_deadline_wakes_the_shard() {
    let mut rig = Rig::new(1, 16);
    let client = rig.connect(0);
    let at = rig.shards[0].1.time + 5_000_000;
    rig.states[0].borrow_mut().deadline = Some(EPOCH + at as Time);
    rig.give(client, "PUB tell.0 1\r\nx\r\n");
    assert!(matches!(rig.turn(0), Next::Sleep { deadline: Some(until), .. } if until == at));
    rig.states[0].borrow_mut().log.clear();
    rig.turn(0);
    assert_eq!(rig.states[0].borrow().log.len(), 0, "it is not due");
    rig.shards[0].1.time = at;
    assert!(matches!(rig.turn(0), Next::Sleep { worked: true, .. }));
    assert_eq!(*rig.states[0].borrow().log, ["turn"]);
}

/// Requests for files go out at the end of a turn, and their outcomes come in before the next.
#[test]
fn files_are_asked_for() {
    let mut rig = Rig::new(1, 16);
    let client = rig.connect(0);
    let (log, id) = (LogId(3), RequestId(7));
    let commit = Request::Commit { id, slot: Slot(1), offset: 0, data: Vec::new() };
    rig.states[0].borrow_mut().requests.push((log, commit));
    assert!(rig.shards[0].0.has_drained_input());
    rig.give(client, "PUB tell.0 1\r\nx\r\n");
    assert_eq!(rig.shards[0].1.requests, [(log, id)]);
    assert!(!rig.shards[0].0.has_drained_input(), "what was read is not answered before it is flushed");
    rig.states[0].borrow_mut().log.clear();
    rig.shards[0].1.answers.push(Answer { log, id, outcome: Outcome::Done, free: Some(9) });
    rig.turn(0);
    assert_eq!(*rig.states[0].borrow().log, ["7 of log 3: Done, free Some(9)", "turn"]);
    assert!(rig.shards[0].0.has_drained_input());
}

/// A service that is being stopped gets turns and nothing else.
#[test]
fn a_stop_is_waited_for() {
    let mut rig = Rig::new(1, 16);
    let client = rig.connect(0);
    rig.told(0);
    let (shard, world) = &mut rig.shards[0];
    assert!(!shard.is_service_stopped());
    shard.stop_service(world);
    assert!(!shard.is_service_stopped());
    rig.give(client, "PUB ask.me 1\r\nx\r\n");
    assert_eq!(*rig.states[0].borrow().log, ["turn"]);
    assert!(rig.shards[0].0.is_service_stopped());
}

/// Its subscriptions are nobody's, and what it says of itself is passed on.
#[test]
fn monitoring_sees_the_service() {
    let mut rig = Rig::new(1, 16);
    rig.connect(0);
    let (shard, world) = &mut rig.shards[0];
    let snapshot = shard.snapshot(world, &Want { open: true, subscriptions: true, ..Want::default() });
    assert_eq!((snapshot.counters.subscriptions, snapshot.connections.len()), (0, 1));
    assert_eq!(snapshot.service.map(|service| service.faults), Some(vec!["it is tired".to_owned()]));
}
