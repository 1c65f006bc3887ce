//! Services inside shards, with real sockets and files: one of each shard stores what it is sent in a log of its own
//! and answers when that is flushed.

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leat::config::{Options, PortSpec};
use leat::consumer::{self, Delivery, Target};
use leat::io::driver::ServicePlan;
use leat::io::engine::{Engine, now};
use leat::io::log_directory::LogReader;
use leat::io::store_directory::{StoreDirectory, Unusable};
use leat::log::{Durable, Incarnation, LogId, Message, Outcome, Request, RequestId, Time, Waiting};
use leat::monitor::{ServiceSnapshot, ServiceWant};
use leat::server::{Server, store_options};
use leat::shard::service::{Due, Mail, Outbox, Service, Source, Subscription};
use leat::store::{ConsumerKey, Notice, Outlet, Store};
use leat::stream::{self, Inbound};
use serde_json::json;
use support::{Client, skip_on_peer};

const SHARDS: u16 = 2;
const MESSAGES: u64 = 300;

/// What a store has to say.
#[derive(Default)]
struct Face {
    proof: Option<Durable>,
    notices: Arc<Mutex<Vec<String>>>,
}

impl Outlet for Face {
    fn deliver(&mut self, _: ConsumerKey, _: Target, _: &Message<'_>, _: &Delivery) {}

    fn event(&mut self, _: ConsumerKey, _: consumer::Event) {}

    fn flushed(&mut self, proof: &Durable) {
        self.proof = Some(*proof);
    }

    fn notice(&mut self, notice: &Notice) {
        self.notices.lock().expect("nobody panics with it").push(notice.to_string());
    }
}

/// Stores what is published to `store.<log>`.
struct Keeper {
    log: LogId,
    store: Store,
    stream: Incarnation,
    face: Face,
    waiting: Waiting<(Vec<u8>, u64)>,
    requests: Vec<Request>,
}

impl Keeper {
    fn open(directory: &Arc<StoreDirectory>, log: LogId, options: &Options, notices: Arc<Mutex<Vec<String>>>) -> Self {
        let place = directory.log(log).expect("there is a log for each shard");
        let opened = Store::open(&mut LogReader::new(place), now(), log, directory.id(), store_options(options));
        let mut store = opened.expect("a new log opens").store;
        let (stream, _) = store.create_stream(now(), stream::Config::default(), b"kept");
        let face = Face { notices, ..Face::default() };
        Self { log, store, stream, face, waiting: Waiting::default(), requests: Vec::new() }
    }
}

impl Drop for Keeper {
    /// Says how it has ended.
    fn drop(&mut self) {
        let end = if self.store.is_stopped() { "stopped" } else { "cut short" };
        self.face.notices.lock().expect("nobody panics with it").push(end.into());
    }
}

impl Service for Keeper {
    fn subscriptions(&self) -> Vec<Subscription> {
        let pattern = format!("store.{}", self.log.0).into_bytes();
        vec![Subscription { pattern, tag: 0, of_own_shard: false }]
    }

    fn message(&mut self, now: Time, mail: &Mail<'_>, _: &mut Outbox) {
        let message = Inbound { subject: mail.subject, payload: mail.payload, ..Inbound::default() };
        let admitted = self.store.publish(now, self.stream, &message).expect("there are no limits");
        self.waiting.push(admitted.after, (mail.reply.to_vec(), admitted.seq));
    }

    fn relayed(&mut self, _: Time, _: u16, _: Source, _: &[u8], _: &mut Outbox) {
        panic!("nobody says anything");
    }

    fn turn(&mut self, now: Time, _: bool, out: &mut Outbox) -> Due {
        let next = self.store.turn(now, &mut self.face, &mut self.requests);
        if let Some(proof) = self.face.proof.take() {
            for (reply, seq) in self.waiting.release(&proof) {
                out.send(&reply, b"", seq.to_string().as_bytes());
            }
        }
        Due { again: next.again, deadline: next.deadline }
    }

    fn take_requests(&mut self, requests: &mut Vec<(LogId, Request)>) {
        requests.extend(self.requests.drain(..).map(|request| (self.log, request)));
    }

    fn completed(&mut self, now: Time, log: LogId, id: RequestId, outcome: Outcome, free: Option<u64>) {
        assert_eq!(log, self.log);
        if let Some(free) = free {
            self.store.set_free_space(free);
        }
        self.store.completed(now, id, outcome, &mut self.face);
    }

    fn stop(&mut self, now: Time) {
        self.store.stop(now);
    }

    fn is_stopped(&self) -> bool {
        self.store.is_stopped()
    }

    fn snapshot(&mut self, _: Time, _: &ServiceWant) -> ServiceSnapshot {
        let faults = self.face.notices.lock().expect("nobody panics with it").clone();
        ServiceSnapshot { faults, ..ServiceSnapshot::default() }
    }
}

/// Starts two shards with a keeper each; what their stores say goes to `notices`.
fn start(path: &Path, notices: &Arc<Mutex<Vec<String>>>) -> Server {
    let mut options = Options { host: "127.0.0.1".into(), port: PortSpec::Any, ..Options::default() };
    options.cores = vec![options.cores[0]; usize::from(SHARDS)];
    let directory = Arc::new(StoreDirectory::open(path, SHARDS).expect("a new store can be made"));
    let plan = |log: u16| {
        let log = LogId(log);
        let place = directory.log(log).expect("there is a log for each shard").clone();
        let service = Box::new(Keeper::open(&directory, log, &options, notices.clone()));
        Some(ServicePlan { service, logs: vec![(log, place)], directory: Some(directory.clone()) })
    };
    let services = (0..SHARDS).map(plan).collect();
    Server::start_with(&options, services).expect("the server starts")
}

/// A client that has published messages to all logs, and listens to the answers.
fn publish(server: &Server) -> Client {
    let options = json!({ "verbose": false, "headers": true, "no_responders": true });
    let mut client = Client::connect(server.address()).login(&options);
    client.send("SUB in.* 1\r\n");
    for n in 0..MESSAGES {
        for log in 0..SHARDS {
            client.send(format!("PUB store.{log} in.{log} 4\r\n{n:04}\r\n"));
        }
    }
    client
}

/// A drain waits for the answers to what clients have sent.
#[test]
fn a_drain_brings_the_answers() {
    if skip_on_peer("a_drain_brings_the_answers") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = start(dir.path(), &Arc::default());
    let mut client = publish(&server);
    server.drain(Duration::from_secs(20));
    server.stop();
    let answers = client.read_to_end();
    let count = answers.windows(4).filter(|bytes| bytes == b"MSG ").count();
    assert_eq!(count, usize::from(SHARDS) * MESSAGES as usize);
}

/// What is answered is stored, on whichever shard it is and wherever the client is; a stop leaves it whole, and the
/// store to others.
#[test]
fn a_service_stores_and_answers() {
    if skip_on_peer("a_service_stores_and_answers") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let notices = Arc::new(Mutex::new(Vec::new()));
    let mut server = start(dir.path(), &notices);
    assert!(matches!(StoreDirectory::open(dir.path(), SHARDS), Err(Unusable::InUse(..))), "the store is locked");
    let mut client = publish(&server);
    let mut last = [0; SHARDS as usize];
    for answer in client.next_msgs(usize::from(SHARDS) * MESSAGES as usize) {
        let log: usize = answer.subject["in.".len()..].parse().expect("the number of a log");
        last[log] += 1;
        assert_eq!(answer.text(), last[log].to_string(), "each message has its answer, in order");
    }
    assert_eq!(last, [MESSAGES; SHARDS as usize]);
    client.expect_nothing();

    assert!(server.monitor().has_services());
    assert_eq!(server.monitor().faults(), [""; 0]);
    notices.lock().expect("nobody panics with it").push("the disk is tired".into());
    assert_eq!(server.monitor().faults(), ["the disk is tired"; SHARDS as usize]);
    notices.lock().expect("nobody panics with it").clear();

    server.drain(Duration::from_secs(2));
    server.stop();
    drop(server);
    assert_eq!(*notices.lock().expect("nobody panics with it"), ["stopped"; SHARDS as usize]);
    let directory = Arc::new(StoreDirectory::open(dir.path(), SHARDS).expect("the store is free again"));
    for log in 0..SHARDS {
        let opened = Engine::open_log(&directory, LogId(log), leat::store::Options::default());
        let (engine, report) = opened.expect("the log opens");
        assert_eq!(report.repairs, []);
        let of = engine.store().streams().next().expect("the stream");
        let last = engine.store().stream(of).map(leat::stream::Stream::last_seq);
        assert_eq!(last, Some(MESSAGES));
        engine.stop(&mut Face::default()).expect("it stops again");
    }
}
