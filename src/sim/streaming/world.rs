//! Instances of the service, with an imitation of the shards around them, and disks that crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message;

use crate::log::{LogId, StoreId, Time};
use crate::monitor::{ChannelSnapshot, ServiceWant, StreamingSnapshot, SubscriptionSnapshot};
use crate::shard::service::{Errand, Mail, Outbox, Service, Source, Subscription};
use crate::sim::storage::disk::Disk;
use crate::store::{self, Store};
use crate::streaming::pb;
use crate::streaming::start::{CannotStart, assemble};
use crate::streaming::{Options, StoreType};
use crate::subject::matches;

const STORE: StoreId = StoreId([7; 16]);
pub(super) const SECOND: Time = 1_000_000_000;

/// What an instance has to take, in order.
enum Input {
    Mail { tag: u32, source: Source, subject: Vec<u8>, reply: Vec<u8>, payload: Vec<u8> },
    Relay { from: u16, source: Source, said: Vec<u8> },
}

struct Instance {
    service: Box<dyn Service + Send>,
    subscriptions: Vec<Subscription>,
    intake: VecDeque<Input>,
    logs: Vec<LogId>,
}

impl Instance {
    /// Its subscriptions that take a subject.
    fn takers(&self, subject: &str) -> impl Iterator<Item = &Subscription> {
        let apart = self.service.joined().and_then(|joined| joined.split(subject.as_bytes()));
        let subjects = [Some(subject.as_bytes().to_vec()), apart];
        let is_on = move |pattern: &[u8]| subjects.iter().flatten().any(|subject| matches(pattern, subject));
        self.subscriptions.iter().filter(move |one| is_on(&one.pattern))
    }
}

/// A message that a client got.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Got {
    pub(super) subject: String,
    pub(super) reply: String,
    pub(super) payload: Vec<u8>,
}

pub(super) struct World {
    pub(super) options: Options,
    pub(super) now: Time,
    instances: Vec<Instance>,
    disks: BTreeMap<LogId, Disk>,
    /// Subjects on which nobody listens: whatever is asked there goes nowhere.
    pub(super) deaf: BTreeSet<String>,
    /// Subjects on which a client answers heartbeats.
    pub(super) alive: BTreeSet<String>,
    /// What clients have got, in order.
    pub(super) got: Vec<Got>,
    next_reply: u64,
    pub(super) may_deliver: bool,
}

fn options_of_store() -> store::Options {
    let sizes = crate::log::segments::Sizes { min: 1 << 20, max: 2 << 20 };
    let log = crate::log::Options { sizes, ..Default::default() };
    store::Options { log, ..Default::default() }
}

impl World {
    /// With a log for each of so many shards, in files.
    pub(super) fn new(shards: u16) -> Self {
        Self::with(shards, Options { store: StoreType::File, ..Options::default() })
    }

    /// The same, with the client `me` and so many messages in the channel `foo`.
    pub(super) fn with_messages(shards: u16, messages: u64) -> Self {
        let mut world = Self::new(shards);
        world.connect(1, "me");
        world.fill(messages);
        world
    }

    /// Stores so many messages in the channel `foo`.
    pub(super) fn fill(&mut self, messages: u64) {
        for number in 1..=messages {
            assert_eq!(self.store(0, "foo", &number.to_string()), "");
        }
    }

    pub(super) fn with(shards: u16, options: Options) -> Self {
        let disks = (0..shards).map(|log| (LogId(log), Disk::new(log.into()))).collect();
        let mut world = Self {
            options,
            now: 1_700_000_000 * SECOND,
            instances: Vec::new(),
            disks,
            deaf: BTreeSet::new(),
            alive: BTreeSet::new(),
            got: Vec::new(),
            next_reply: 0,
            may_deliver: true,
        };
        let create = match world.options.store {
            StoreType::Memory => Store::in_memory,
            StoreType::File => Store::create,
        };
        let stores = (0..shards).map(|log| (LogId(log), create(LogId(log), STORE, options_of_store()))).collect();
        world.start(stores, shards).unwrap();
        world
    }

    fn start(&mut self, stores: Vec<(LogId, Store)>, shards: u16) -> Result<(), CannotStart> {
        let assembled = assemble(self.now, &self.options, stores, shards)?;
        let instance = |(service, logs): (Box<dyn Service + Send>, Vec<LogId>)| Instance {
            subscriptions: service.subscriptions(),
            service,
            intake: VecDeque::new(),
            logs,
        };
        self.instances = assembled.into_iter().map(instance).collect();
        Ok(())
    }

    /// The process is killed and started anew, with another number of shards perhaps.
    pub(super) fn kill(&mut self, shards: u16) {
        self.try_kill(shards).unwrap();
    }

    pub(super) fn try_kill(&mut self, shards: u16) -> Result<(), CannotStart> {
        self.instances.clear();
        let mut stores = Vec::new();
        for (log, disk) in &mut self.disks {
            disk.crash();
            let opened = Store::open(disk, self.now, *log, STORE, options_of_store()).expect("opens");
            assert!(!opened.report.repairs.iter().any(crate::log::recover::Repair::is_damage), "{:?}", opened.report);
            stores.push((*log, opened.store));
        }
        if self.options.store == StoreType::Memory {
            let create = |log| (LogId(log), Store::in_memory(LogId(log), STORE, options_of_store()));
            stores = (0..shards).map(create).collect();
        }
        self.start(stores, shards)
    }

    /// A client on that shard publishes.
    pub(super) fn publish(&mut self, shard: u16, subject: &str, reply: &str, payload: &[u8]) {
        let source = Source { shard, conn: 1, cid: 1 };
        for index in 0..self.instances.len() {
            let of_own = |subscription: &Subscription| !subscription.of_own_shard || index == usize::from(shard);
            let instance = &mut self.instances[index];
            let tags = instance.takers(subject).filter(|one| of_own(one)).map(|one| one.tag).collect::<Vec<_>>();
            for tag in tags {
                instance.intake.push_back(Input::Mail {
                    tag,
                    source,
                    subject: subject.into(),
                    reply: reply.into(),
                    payload: payload.to_vec(),
                });
            }
        }
    }

    /// Whether some instance listens to a subject of that shard's clients.
    pub(super) fn has_takers(&self, shard: u16, subject: &str) -> bool {
        self.instances[usize::from(shard)].takers(subject).next().is_some()
    }

    fn take_in(&mut self, index: usize) {
        let mut out = Outbox::default();
        loop {
            let instance = &mut self.instances[index];
            let Some(input) = instance.intake.pop_front() else { break };
            match input {
                Input::Mail { tag, source, subject, reply, payload } => {
                    let mail = Mail { tag, source, subject: &subject, reply: &reply, payload: &payload };
                    instance.service.message(self.now, &mail, &mut out);
                }
                Input::Relay { from, source, said } => {
                    instance.service.relayed(self.now, from, source, &said, &mut out);
                }
            }
            self.carry_out(index, &mut out);
        }
    }

    fn carry_out(&mut self, index: usize, out: &mut Outbox) {
        let mut unheard = Vec::new();
        for errand in out.errands() {
            match errand {
                Errand::Publish { subject, tail, reply_bytes, argument_bytes, number } => {
                    let subject = String::from_utf8(subject.to_vec()).expect("text");
                    let reply = String::from_utf8(tail[1..=reply_bytes].to_vec()).expect("text");
                    let payload = tail[argument_bytes..tail.len() - 2].to_vec();
                    if let Some(number) = number {
                        if self.deaf.contains(&subject) {
                            unheard.push(number);
                        } else if self.alive.contains(&subject) {
                            for instance in &mut self.instances {
                                let tag = instance.takers(&reply).next().map(|one| one.tag);
                                let source = Source { shard: 0, conn: 2, cid: 2 };
                                instance.intake.extend(tag.map(|tag| Input::Mail {
                                    tag,
                                    source,
                                    subject: reply.clone().into_bytes(),
                                    reply: Vec::new(),
                                    payload: Vec::new(),
                                }));
                            }
                        }
                    }
                    self.got.push(Got { subject, reply, payload });
                }
                Errand::Relay { to, source, said } => {
                    let all = 0..self.instances.len() as u16;
                    let shards = to.map_or(all, |to| to..to + 1);
                    for shard in shards {
                        let relay = Input::Relay { from: index as u16, source, said: said.to_vec() };
                        self.instances[usize::from(shard)].intake.push_back(relay);
                    }
                }
                Errand::Stall { .. } => {}
            }
        }
        out.clear();
        for number in unheard {
            self.instances[index].service.unheard(self.now, number, out);
        }
        if !out.is_empty() {
            self.carry_out(index, out);
        }
    }

    /// One turn of each instance. Returns whether there was anything to do, and when there is.
    pub(super) fn turn(&mut self) -> (bool, Option<Time>) {
        let (mut busy, mut deadline) = (false, None);
        for index in 0..self.instances.len() {
            let mut out = Outbox::default();
            self.take_in(index);
            let may_deliver = self.may_deliver;
            let due = self.instances[index].service.turn(self.now, may_deliver, &mut out);
            let mut requests = Vec::new();
            self.instances[index].service.take_requests(&mut requests);
            busy |= due.again || !out.is_empty() || !requests.is_empty();
            deadline = [deadline, due.deadline].into_iter().flatten().min();
            self.carry_out(index, &mut out);
            assert!(self.options.store == StoreType::File || requests.is_empty(), "a store in memory has no files");
            for (log, request) in requests {
                self.disks.get_mut(&log).expect("its own").submit(&mut vec![request]);
            }
            for log in self.instances[index].logs.clone() {
                if let Some((id, outcome)) = self.disks.get_mut(&log).expect("its own").step() {
                    busy = true;
                    self.instances[index].service.completed(self.now, log, id, outcome, None);
                }
            }
            busy |= self.instances.iter().any(|instance| !instance.intake.is_empty());
        }
        (busy, deadline)
    }

    /// Goes on until there is nothing to do at this moment.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.turn().0 {
                return;
            }
        }
        panic!("does not come to rest");
    }

    /// Time passes, and what becomes due in it is done at its time.
    pub(super) fn pass(&mut self, time: Time) {
        let end = self.now + time;
        self.settle();
        loop {
            let due = self.turn().1.filter(|due| *due <= end);
            self.now = due.unwrap_or(end).max(self.now);
            self.settle();
            if due.is_none() {
                return;
            }
        }
    }

    /// A clean stop, and a new start.
    pub(super) fn restart(&mut self, shards: u16) {
        self.instances.iter_mut().for_each(|instance| instance.service.stop(self.now));
        for _ in 0..100_000 {
            if self.instances.iter().all(|instance| instance.service.is_stopped()) {
                return self.kill(shards);
            }
            self.turn();
        }
        panic!("does not stop");
    }

    // ---- what clients do

    fn reply(&mut self) -> String {
        self.next_reply += 1;
        format!("_INBOX.reply.{}", self.next_reply)
    }

    /// What has come to a subject since it was asked for the last time.
    pub(super) fn take(&mut self, subject: &str) -> Vec<Got> {
        let (taken, left) = std::mem::take(&mut self.got).into_iter().partition(|got| got.subject == subject);
        self.got = left;
        taken
    }

    /// Asks, and gives the answer when there is nothing to do any more.
    pub(super) fn request(&mut self, shard: u16, subject: &str, payload: &[u8]) -> Option<Vec<u8>> {
        let reply = self.reply();
        self.publish(shard, subject, &reply, payload);
        self.settle();
        let mut answers = self.take(&reply);
        assert!(answers.len() <= 1, "{answers:?}");
        answers.pop().map(|got| got.payload)
    }

    pub(super) fn ask<T: Message + Default>(&mut self, shard: u16, subject: &str, request: &impl Message) -> T {
        let answer = self.request(shard, subject, &request.encode_to_vec()).expect("an answer");
        T::decode(&answer[..]).expect("makes sense")
    }

    pub(super) fn connect_request(&self, id: &str, conn_id: &str) -> pb::ConnectRequest {
        pb::ConnectRequest {
            client_id: id.into(),
            heartbeat_inbox: format!("_INBOX.hb.{id}-{conn_id}"),
            protocol: 1,
            conn_id: conn_id.to_owned().into(),
            ping_interval: 5,
            ping_max_out: 88,
        }
    }

    /// A client that answers heartbeats.
    pub(super) fn connect(&mut self, shard: u16, id: &str) -> pb::ConnectResponse {
        let request = self.connect_request(id, id);
        self.alive.insert(request.heartbeat_inbox.clone());
        self.ask(shard, "_STAN.discover.test-cluster", &request)
    }

    pub(super) fn close(&mut self, shard: u16, id: &str) -> String {
        let request = pb::CloseRequest { client_id: id.into() };
        self.ask::<pb::CloseResponse>(shard, "_STAN.close.test-cluster", &request).error
    }

    pub(super) fn ping(&mut self, shard: u16, conn_id: &str) -> String {
        let request = pb::Ping { conn_id: conn_id.to_owned().into() };
        self.ask::<pb::PingResponse>(shard, "_STAN.discover.test-cluster.pings", &request).error
    }

    pub(super) fn pub_msg(channel: &str, guid: &str, data: &[u8]) -> pb::PubMsg {
        pb::PubMsg {
            client_id: "me".into(),
            guid: guid.into(),
            subject: channel.into(),
            data: data.to_vec().into(),
            conn_id: "me".into(),
            ..pb::PubMsg::default()
        }
    }

    /// Publishes a message as the client `me`, and gives the error of the answer.
    pub(super) fn store(&mut self, shard: u16, channel: &str, data: &str) -> String {
        let message = Self::pub_msg(channel, "guid", data.as_bytes());
        let ack = self.ask::<pb::PubAck>(shard, &format!("_STAN.pub.test-cluster.{channel}"), &message);
        assert_eq!(ack.guid, "guid");
        ack.error
    }

    pub(super) fn sub_request(id: &str, channel: &str, inbox: &str) -> pb::SubscriptionRequest {
        pb::SubscriptionRequest {
            client_id: id.into(),
            subject: channel.into(),
            inbox: inbox.into(),
            max_in_flight: 1024,
            ack_wait_in_secs: 30,
            start_position: pb::StartPosition::First.into(),
            ..pb::SubscriptionRequest::default()
        }
    }

    /// Subscribes; the result is the subject for acknowledgements.
    pub(super) fn subscribe(&mut self, shard: u16, request: &pb::SubscriptionRequest) -> Result<String, String> {
        let response = self.ask::<pb::SubscriptionResponse>(shard, "_STAN.sub.test-cluster", request);
        if response.error.is_empty() { Ok(response.ack_inbox) } else { Err(response.error) }
    }

    /// Ends a subscription; for good, or so that a durable one stays.
    pub(super) fn unsubscribe(&mut self, shard: u16, id: &str, channel: &str, inbox: &str, stays: bool) -> String {
        let request = pb::UnsubscribeRequest {
            client_id: id.into(),
            subject: channel.into(),
            inbox: inbox.into(),
            ..pb::UnsubscribeRequest::default()
        };
        let subject = if stays { "_STAN.subclose.test-cluster" } else { "_STAN.unsub.test-cluster" };
        self.ask::<pb::SubscriptionResponse>(shard, subject, &request).error
    }

    /// The messages that have come to an inbox.
    pub(super) fn messages(&mut self, inbox: &str) -> Vec<pb::MsgProto> {
        self.settle();
        self.take(inbox).iter().map(|got| pb::MsgProto::decode(&got.payload[..]).expect("a message")).collect()
    }

    /// The same, as number and how often they had been sent before.
    pub(super) fn numbers(&mut self, inbox: &str) -> Vec<(u64, u32)> {
        let messages = self.messages(inbox);
        for message in &messages {
            assert_eq!(message.redelivered, message.redelivery_count > 0);
            assert_eq!(message.crc32, crc32fast::hash(&message.data));
        }
        messages.iter().map(|message| (message.sequence, message.redelivery_count)).collect()
    }

    pub(super) fn ack(&mut self, shard: u16, ack_inbox: &str, channel: &str, sequence: u64) {
        let ack = pb::Ack { subject: channel.into(), sequence };
        self.publish(shard, ack_inbox, "", &ack.encode_to_vec());
        self.settle();
    }

    pub(super) fn snapshot(&mut self) -> StreamingSnapshot {
        let mut all = StreamingSnapshot::default();
        for instance in &mut self.instances {
            let snapshot = instance.service.snapshot(self.now, &ServiceWant { streaming: true });
            let streaming = snapshot.streaming.expect("was wanted");
            all.clients.extend(streaming.clients);
            all.channels.extend(streaming.channels);
        }
        all.clients.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    pub(super) fn channel(&mut self, name: &str) -> ChannelSnapshot {
        let channels = self.snapshot().channels;
        channels.into_iter().find(|channel| channel.name == name).expect("is there")
    }

    pub(super) fn only_subscription(&mut self, channel: &str) -> SubscriptionSnapshot {
        let subscriptions = self.channel(channel).subscriptions;
        assert_eq!(subscriptions.len(), 1, "{subscriptions:?}");
        subscriptions[0].clone()
    }
}
