//! The directory: who is a client of the service, and whether it is still there. There is one, on the shard of log 0.
//!
//! It decides, keeps the records, and tells all instances, each of which has a [`Registry`](super::registry::Registry).
//! A client is asked for a sign of life now and then (*heartbeats*), and when another one wants its id.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};

use prost::Message as _;

use super::home::{Home, Scene, Text, is_inbox, nanos, respond};
use super::pb::{CloseResponse, ConnectRequest, ConnectResponse};
use super::records::{ClientRecord, client_key};
use super::relay::{Closing, Said};
use super::{Options, errors};
use crate::log::{Pending, Time};
use crate::shard::service::{self, Outbox, Source};

/// How long the holder of a client id may take to show that it is there when another one wants the id.
const CHECK_NS: i64 = 500_000_000;
/// A client that has left a heartbeat without an answer, and sends a ping, gets the next one so soon.
const SOON_NS: i64 = 1_000_000;

/// Messages of the service itself.
pub(super) const SERVICE: Source = Source { shard: 0, conn: service::SERVICE, cid: 0 };

/// A client.
#[derive(Debug)]
struct Client {
    record: ClientRecord,
    /// Heartbeats one after the other without an answer.
    failures: u32,
    /// The heartbeat that it has been asked for, and when it counts as not answered; or when it is asked next.
    beat: Option<u64>,
    due: Time,
}

/// What a number on the subject for signs of life stands for.
#[derive(Debug)]
enum Asked {
    Heartbeat {
        client: u64,
    },
    /// Somebody else wants the id.
    Check {
        client: u64,
        request: ConnectRequest,
        reply: Box<[u8]>,
    },
}

/// When something is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Client(u64),
    Check(u64),
}

/// The clients of the service.
#[derive(Debug)]
pub(super) struct Clients {
    shards: u16,
    clients: HashMap<u64, Client>,
    by_id: HashMap<String, u64>,
    asked: HashMap<u64, Asked>,
    /// Ids of clients that are being checked.
    checked: BTreeSet<String>,
    timers: BTreeSet<(Time, Timer)>,
    /// Instances that have come to the end of a client, by shard and number.
    closing: HashMap<(u16, u64), u16>,
    /// Where answers to heartbeats go: `_INBOX.<tag>h`, and the number behind it.
    beat_prefix: String,
    next: u64,
}

fn tell(out: &mut Outbox, said: &Said<'_>) {
    out.relay(None, SERVICE, |bytes| said.encode(bytes));
}

/// The answer to a client that is known now.
fn welcome(options: &Options, request: &ConnectRequest) -> ConnectResponse {
    let id = &options.cluster_id;
    let pings = request.protocol >= 1;
    ConnectResponse {
        pub_prefix: format!("_STAN.pub.{id}"),
        sub_requests: format!("_STAN.sub.{id}"),
        unsub_requests: format!("_STAN.unsub.{id}"),
        close_requests: format!("_STAN.close.{id}"),
        sub_close_requests: format!("_STAN.subclose.{id}"),
        ping_requests: if pings { format!("{}.{id}.pings", options.discover_prefix) } else { String::new() },
        ping_interval: if pings { request.ping_interval } else { 0 },
        ping_max_out: if pings { request.ping_max_out } else { 0 },
        protocol: 1,
        ..ConnectResponse::default()
    }
}

fn refuse(out: &mut Outbox, reply: &[u8], error: &str) {
    let response = ConnectResponse { error: error.to_owned(), ..ConnectResponse::default() };
    respond(out, reply, &response.encode_to_vec());
}

impl Clients {
    /// The clients of before. `beat_prefix` is what the subject for answers to heartbeats begins with.
    pub(super) fn new(
        now: Time,
        options: &Options,
        shards: u16,
        beat_prefix: String,
        records: Vec<ClientRecord>,
    ) -> Self {
        let mut clients = Self {
            shards,
            clients: HashMap::new(),
            by_id: HashMap::new(),
            asked: HashMap::new(),
            checked: BTreeSet::new(),
            timers: BTreeSet::new(),
            closing: HashMap::new(),
            beat_prefix,
            next: now.unsigned_abs() >> 10,
        };
        for record in records {
            clients.add(now, options, record);
        }
        clients
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn add(&mut self, now: Time, options: &Options, record: ClientRecord) {
        let number = self.number();
        let due = now.saturating_add(nanos(options.hb_interval));
        self.by_id.insert(record.id.clone(), number);
        self.clients.insert(number, Client { record, failures: 0, beat: None, due });
        self.timers.insert((due, Timer::Client(number)));
    }

    /// All clients.
    pub(super) fn records(&self) -> impl Iterator<Item = &ClientRecord> {
        self.clients.values().map(|client| &client.record)
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// A client wants to be known.
    pub(super) fn connect(&mut self, scene: &mut Scene<'_>, home: &mut Home, reply: &[u8], request: &[u8]) {
        let request = ConnectRequest::decode(request).unwrap_or_default();
        if !is_inbox(&request.heartbeat_inbox) {
            let [id, inbox] = [&request.client_id, &request.heartbeat_inbox].map(|text| Text(text.as_bytes()));
            tracing::error!("STREAM: [Client:?] Invalid conn request: ClientID={id}, Inbox={inbox}");
            return refuse(scene.out, reply, errors::INVALID_CONNECT);
        }
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if request.client_id.is_empty() || !request.client_id.bytes().all(is_letter) {
            tracing::error!(
                "STREAM: [Client:{}] Invalid ClientID, only alphanumeric and `-` or `_` characters allowed",
                Text(request.client_id.as_bytes())
            );
            return refuse(scene.out, reply, errors::INVALID_CLIENT_ID);
        }
        if self.checked.contains(&request.client_id) {
            tracing::debug!("STREAM: [Client:{}] Connect failed; already connected", request.client_id);
            return refuse(scene.out, reply, errors::CLIENT_REGISTERED);
        }
        let Some(client) = self.by_id.get(&request.client_id).copied() else {
            return self.register(scene, home, reply, &request);
        };
        let number = self.number();
        let inbox = self.clients[&client].record.hb_inbox.clone();
        self.checked.insert(request.client_id.clone());
        self.asked.insert(number, Asked::Check { client, request, reply: reply.into() });
        self.timers.insert((scene.now.saturating_add(CHECK_NS), Timer::Check(number)));
        self.ask(scene.out, &inbox, number);
    }

    fn ask(&self, out: &mut Outbox, inbox: &str, number: u64) {
        let reply = format!("{}{number:x}", self.beat_prefix);
        out.ask(inbox.as_bytes(), reply.as_bytes(), number);
    }

    fn register(&mut self, scene: &mut Scene<'_>, home: &mut Home, reply: &[u8], request: &ConnectRequest) {
        let record = ClientRecord {
            id: request.client_id.clone(),
            hb_inbox: request.heartbeat_inbox.clone(),
            conn_id: request.conn_id.to_vec(),
        };
        tell(scene.out, &Said::Up(record.clone()));
        let pending = home.put(scene.now, &client_key(&record.id), &record.encode_to_vec());
        tracing::debug!("STREAM: [Client:{}] Connected (Inbox={})", record.id, record.hb_inbox);
        self.add(scene.now, scene.options, record);
        home.send_after(scene, pending, reply, welcome(scene.options, request).encode_to_vec());
    }

    /// A client is known no longer.
    fn remove(&mut self, scene: &mut Scene<'_>, home: &mut Home, number: u64) -> Pending {
        let Some(client) = self.clients.remove(&number) else { return Pending::NONE };
        self.timers.remove(&(client.due, Timer::Client(number)));
        if let Some(beat) = client.beat {
            self.asked.remove(&beat);
        }
        self.by_id.remove(&client.record.id);
        tell(scene.out, &Said::Down { id: &client.record.id });
        home.unset(scene.now, &client_key(&client.record.id))
    }

    /// One instance has come to where a client is closing.
    pub(super) fn closed(&mut self, scene: &mut Scene<'_>, home: &mut Home, closing: &Closing<'_>) {
        let key = (closing.shard, closing.number);
        let come = self.closing.entry(key).or_insert(0);
        *come += 1;
        if *come < self.shards {
            return;
        }
        self.closing.remove(&key);
        let Some(number) = self.by_id.get(closing.id).copied() else {
            tracing::error!("STREAM: Unknown client {:?} in close request", Text(closing.id.as_bytes()));
            let response = CloseResponse { error: errors::UNKNOWN_CLIENT.to_owned() };
            return respond(scene.out, closing.reply, &response.encode_to_vec());
        };
        tracing::debug!("STREAM: [Client:{}] Closed (Inbox={})", closing.id, self.clients[&number].record.hb_inbox);
        let pending = self.remove(scene, home, number);
        home.send_after(scene, pending, closing.reply, CloseResponse::default().encode_to_vec());
    }

    /// A sign of life has come on the subject with this token behind the tag.
    pub(super) fn answered(&mut self, scene: &mut Scene<'_>, token: &[u8]) {
        let number = std::str::from_utf8(token).ok().and_then(|token| token.strip_prefix('h'));
        let number = number.and_then(|number| u64::from_str_radix(number, 16).ok());
        let Some(number) = number else { return };
        match self.asked.remove(&number) {
            None => {}
            Some(Asked::Heartbeat { client: number }) => {
                let Some(client) = self.clients.get_mut(&number) else { return };
                if client.failures > 0 {
                    tell(scene.out, &Said::Silent { id: &client.record.id, is_silent: false });
                }
                (client.failures, client.beat) = (0, None);
                self.next_beat(scene.now, nanos(scene.options.hb_interval), number);
            }
            Some(Asked::Check { request, reply, .. }) => {
                self.end_check(number, &request.client_id);
                tracing::debug!("STREAM: [Client:{}] Connect failed; already connected", request.client_id);
                refuse(scene.out, &reply, errors::CLIENT_REGISTERED);
            }
        }
    }

    fn end_check(&mut self, number: u64, id: &str) {
        self.checked.remove(id);
        self.timers.retain(|(_, timer)| *timer != Timer::Check(number));
    }

    /// Nobody listens where a sign of life was asked for.
    pub(super) fn unheard(&mut self, scene: &mut Scene<'_>, home: &mut Home, number: u64) {
        match self.asked.remove(&number) {
            None => {}
            Some(Asked::Heartbeat { client }) => self.missed(scene, home, client),
            Some(Asked::Check { client, request, reply }) => {
                self.end_check(number, &request.client_id);
                self.remove(scene, home, client);
                self.register(scene, home, &reply, &request);
            }
        }
    }

    /// A client that leaves heartbeats without an answer has sent a ping: it is asked again at once.
    pub(super) fn pinged(&mut self, now: Time, id: &str) {
        let Some(number) = self.by_id.get(id).copied() else { return };
        let client = &self.clients[&number];
        if client.failures > 0 && client.beat.is_none() && client.due > now.saturating_add(SOON_NS) {
            self.next_beat(now, SOON_NS, number);
        }
    }

    fn next_beat(&mut self, now: Time, after: i64, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        self.timers.remove(&(client.due, Timer::Client(number)));
        client.due = now.saturating_add(after);
        self.timers.insert((client.due, Timer::Client(number)));
    }

    /// A heartbeat was not answered.
    fn missed(&mut self, scene: &mut Scene<'_>, home: &mut Home, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.failures += 1;
        client.beat = None;
        if client.failures > scene.options.hb_fail_count {
            tracing::error!("STREAM: [Client:{}] Timed out on heartbeats", client.record.id);
            self.remove(scene, home, number);
            return;
        }
        if client.failures == 1 {
            tell(scene.out, &Said::Silent { id: &client.record.id, is_silent: true });
        }
        self.next_beat(scene.now, nanos(scene.options.hb_interval), number);
    }

    /// Everything that is due.
    pub(super) fn turn(&mut self, scene: &mut Scene<'_>, home: &mut Home) {
        while let Some((due, timer)) = self.timers.first().copied().filter(|(due, _)| *due <= scene.now) {
            self.timers.remove(&(due, timer));
            match timer {
                Timer::Check(number) => self.unheard(scene, home, number),
                Timer::Client(client) => self.beat(scene, home, client),
            }
        }
    }

    fn beat(&mut self, scene: &mut Scene<'_>, home: &mut Home, number: u64) {
        let beat = self.number();
        let Some(client) = self.clients.get_mut(&number) else { return };
        if let Some(asked) = client.beat {
            self.asked.remove(&asked);
            return self.missed(scene, home, number);
        }
        client.beat = Some(beat);
        let inbox = client.record.hb_inbox.clone();
        self.asked.insert(beat, Asked::Heartbeat { client: number });
        self.next_beat(scene.now, nanos(scene.options.hb_timeout), number);
        self.ask(scene.out, &inbox, beat);
    }
}
