//! The service on one shard: takes what has arrived apart, and gives it to whoever it is for.
//!
//! Each channel is at home in one log, and so on one shard: in the log that has its messages already, else in the one that
//! a hash of its name says. So every instance knows where a channel is at home without asking, and a publish takes one hop.

use std::sync::Arc;

use prost::Message as _;

use super::clients::{Clients, SERVICE};
use super::home::{Home, Scene, Shared, Text, Traffic, respond};
use super::pb::{
    CloseRequest, CloseResponse, Ping, PingResponse, SubscriptionRequest, SubscriptionResponse, UnsubscribeRequest,
};
use super::places::Places;
use super::registry::Registry;
use super::relay::{Closing, Said};
use super::wire::PubMsg;
use super::{Options, errors, home};
use crate::log::{LogId, Outcome, Request, RequestId, Time};
use crate::monitor::{ServiceSnapshot, ServiceWant, StreamingClient, StreamingSnapshot};
use crate::shard::service::{Due, Joined, Mail, Outbox, Service, Source, Subscription};

/// The shard of the directory.
const DIRECTORY: u16 = 0;

const PUBLISH: u32 = 0;
const SUBSCRIBE: u32 = 1;
const UNSUBSCRIBE: u32 = 2;
const CLOSE_SUBSCRIPTION: u32 = 3;
const CLOSE: u32 = 4;
const CONNECT: u32 = 5;
const PING: u32 = 6;
/// From here on: the subjects for acknowledgements of each of the instance's logs.
const ACKS: u32 = 7;

/// One shard's instance.
#[derive(Debug)]
pub(super) struct Streaming {
    options: Arc<Options>,
    shared: Arc<Shared>,
    places: Arc<Places>,
    shard: u16,
    registry: Registry,
    /// The logs of this shard.
    homes: Vec<Home>,
    /// On one shard.
    clients: Option<Clients>,
    traffic: Traffic,
    /// Wishes of clients to be closed that have come here.
    closings: u64,
    stops: bool,
}

/// Borrows what the homes need, and leaves `homes` and `clients` free.
macro_rules! scene {
    ($self:ident, $now:expr, $out:expr) => {
        &mut Scene {
            now: $now,
            options: &$self.options,
            shared: &$self.shared,
            registry: &$self.registry,
            traffic: &mut $self.traffic,
            out: $out,
        }
    };
}

impl Streaming {
    pub(super) fn new(
        now: Time,
        options: Arc<Options>,
        shared: Arc<Shared>,
        places: Arc<Places>,
        shard: u16,
        homes: Vec<Home>,
        known: &[super::records::ClientRecord],
    ) -> Self {
        let mut registry = Registry::default();
        known.iter().for_each(|record| registry.up(record));
        let mut streaming = Self {
            options,
            shared,
            places,
            shard,
            registry,
            homes,
            clients: None,
            traffic: Traffic::default(),
            closings: 0,
            stops: false,
        };
        if shard == DIRECTORY {
            let prefix = streaming.homes[0].beat_prefix();
            let shards = streaming.places.shards();
            streaming.clients = Some(Clients::new(now, &streaming.options, shards, prefix, known.to_vec()));
        }
        let mut nothing = Outbox::default();
        for home in &mut streaming.homes {
            home.resume(scene!(streaming, now, &mut nothing));
        }
        streaming
    }

    /// Passes a request on to where the channel is at home, or does what it asks for here.
    fn pass_on(&mut self, now: Time, source: Source, channel: &[u8], said: Said<'_>, out: &mut Outbox) {
        let (shard, _) = self.places.of(channel);
        if shard == self.shard {
            self.hear(now, source, said, out);
        } else {
            out.relay(Some(shard), source, |bytes| said.encode(bytes));
        }
    }

    fn home_of(&mut self, channel: &[u8]) -> Option<usize> {
        let (_, log) = self.places.of(channel);
        self.homes.iter().position(|home| home.log() == log)
    }

    /// Does what is said here.
    fn hear(&mut self, now: Time, source: Source, said: Said<'_>, out: &mut Outbox) {
        match said {
            Said::Publish { reply, request } => {
                let Some(message) = PubMsg::decode(request) else { return };
                let (_, log) = self.places.of(message.channel);
                self.count(request);
                self.publish(now, log, source, reply, &message, out);
            }
            Said::Subscribe { reply, request } => {
                let Ok(request) = SubscriptionRequest::decode(request) else { return };
                let Some(home) = self.home_of(request.subject.as_bytes()) else { return };
                self.homes[home].subscribe(scene!(self, now, out), reply, request);
            }
            Said::Unsubscribe { reply, request } => self.unsubscribe(now, reply, request, false, out),
            Said::CloseSubscription { reply, request } => self.unsubscribe(now, reply, request, true, out),
            Said::Closing(closing) => {
                out.relay(Some(DIRECTORY), SERVICE, |bytes| Said::Closed(closing).encode(bytes));
            }
            Said::Connect { reply, request } => {
                if let (Some(clients), Some(home)) = (&mut self.clients, self.homes.first_mut()) {
                    clients.connect(scene!(self, now, out), home, reply, request);
                }
            }
            Said::Closed(closing) => {
                if let (Some(clients), Some(home)) = (&mut self.clients, self.homes.first_mut()) {
                    clients.closed(scene!(self, now, out), home, &closing);
                }
            }
            Said::Pinged { id } => {
                if let Some(clients) = &mut self.clients {
                    clients.pinged(now, id);
                }
            }
            Said::Up(record) => self.registry.up(&record),
            Said::Down { id } => {
                self.registry.down(id);
                for home in &mut self.homes {
                    home.client_gone(scene!(self, now, out), id);
                }
            }
            Said::Silent { id, is_silent } => {
                self.registry.set_silent(id, is_silent);
                self.homes.iter_mut().for_each(|home| home.client_silent(id, is_silent));
            }
        }
    }

    /// A publish to a channel that is at home here. `bytes` is the length of the request.
    #[inline]
    fn publish(&mut self, now: Time, log: LogId, source: Source, reply: &[u8], message: &PubMsg<'_>, out: &mut Outbox) {
        if let Some(home) = self.homes.iter_mut().find(|home| home.log() == log) {
            home.publish(scene!(self, now, out), source, reply, message);
        }
    }

    /// Counts a publish that has come to its home.
    fn count(&mut self, request: &[u8]) {
        self.traffic.in_msgs += 1;
        self.traffic.in_bytes += request.len() as u64;
    }

    fn unsubscribe(&mut self, now: Time, reply: &[u8], request: &[u8], keeps_durable: bool, out: &mut Outbox) {
        let Ok(request) = UnsubscribeRequest::decode(request) else { return };
        let Some(home) = self.home_of(request.subject.as_bytes()) else { return };
        self.homes[home].unsubscribe(scene!(self, now, out), reply, &request, keeps_durable);
    }

    /// A publish: at home here, or somewhere else.
    #[inline]
    fn take_publish(&mut self, now: Time, mail: &Mail<'_>, out: &mut Outbox) {
        let Some(message) = PubMsg::decode(mail.payload).filter(|_| !mail.payload.is_empty()) else {
            tracing::error!("STREAM: Unable to unmarshal PubMsg from {}", Text(mail.subject));
            return home::acknowledge(out, mail.reply, b"", errors::INVALID_PUBLISH.as_bytes());
        };
        if !self.serves(message.channel) {
            let is_name = std::str::from_utf8(message.channel).is_ok_and(super::channel_name_is_valid);
            if !is_name || message.guid.is_empty() {
                home::acknowledge(out, mail.reply, message.guid, errors::INVALID_PUBLISH.as_bytes());
            }
            return;
        }
        let (shard, log) = self.places.of(message.channel);
        if shard == self.shard {
            self.count(mail.payload);
            self.publish(now, log, mail.source, mail.reply, &message, out);
        } else {
            let said = Said::Publish { reply: mail.reply, request: mail.payload };
            out.relay(Some(shard), mail.source, |bytes| said.encode(bytes));
        }
    }

    /// Whether another server may be the one for a channel.
    fn serves(&self, channel: &[u8]) -> bool {
        !self.options.partitioning || std::str::from_utf8(channel).is_ok_and(|name| self.options.serves(name))
    }

    fn take_subscribe(&mut self, now: Time, mail: &Mail<'_>, out: &mut Outbox) {
        let Ok(request) = SubscriptionRequest::decode(mail.payload) else {
            tracing::error!("STREAM: Invalid Subscription request from {}", Text(mail.subject));
            let response =
                SubscriptionResponse { error: errors::INVALID_SUBSCRIBE.to_owned(), ..SubscriptionResponse::default() };
            return respond(out, mail.reply, &response.encode_to_vec());
        };
        // What is wrong in any case is refused here, whoever serves the channel.
        if self.serves(request.subject.as_bytes()) || home::check(&request).is_err() {
            let said = Said::Subscribe { reply: mail.reply, request: mail.payload };
            self.pass_on(now, mail.source, request.subject.as_bytes(), said, out);
        }
    }

    fn take_unsubscribe(&mut self, now: Time, mail: &Mail<'_>, out: &mut Outbox) {
        let Ok(request) = UnsubscribeRequest::decode(mail.payload) else {
            let action = if mail.tag == UNSUBSCRIBE { "unsub" } else { "sub close" };
            tracing::error!("STREAM: Invalid {action} request from {}", Text(mail.subject));
            let error = errors::INVALID_UNSUBSCRIBE.to_owned();
            let response = SubscriptionResponse { error, ..SubscriptionResponse::default() };
            return respond(out, mail.reply, &response.encode_to_vec());
        };
        if !self.serves(request.subject.as_bytes()) {
            return;
        }
        let (reply, payload) = (mail.reply, mail.payload);
        let said = match mail.tag {
            UNSUBSCRIBE => Said::Unsubscribe { reply, request: payload },
            _ => Said::CloseSubscription { reply, request: payload },
        };
        self.pass_on(now, mail.source, request.subject.as_bytes(), said, out);
    }

    /// What the client has sent before is on its way to every home; the end goes the same ways.
    fn take_close(&mut self, mail: &Mail<'_>, out: &mut Outbox) {
        let Ok(request) = CloseRequest::decode(mail.payload) else {
            tracing::error!("STREAM: Received invalid close request, subject={}", Text(mail.subject));
            let response = CloseResponse { error: errors::INVALID_CLOSE.to_owned() };
            return respond(out, mail.reply, &response.encode_to_vec());
        };
        self.closings += 1;
        let closing = Closing { shard: self.shard, number: self.closings, id: &request.client_id, reply: mail.reply };
        out.relay(None, mail.source, |bytes| Said::Closing(closing).encode(bytes));
    }

    fn take_ping(&mut self, mail: &Mail<'_>, out: &mut Outbox) {
        let Ok(ping) = Ping::decode(mail.payload) else { return };
        if mail.payload.is_empty() {
            return;
        }
        let Some(id) = self.registry.of_connection(&ping.conn_id) else {
            let response = PingResponse { error: errors::CLIENT_REPLACED.to_owned() };
            return respond(out, mail.reply, &response.encode_to_vec());
        };
        if self.registry.is_silent(id) {
            out.relay(Some(DIRECTORY), mail.source, |bytes| Said::Pinged { id }.encode(bytes));
        }
        respond(out, mail.reply, b"");
    }

    /// An acknowledgement of a message, or an answer to a heartbeat.
    fn take_ack(&mut self, now: Time, home: usize, mail: &Mail<'_>, out: &mut Outbox) {
        let token = home::ack_token(mail.subject);
        if token.first() == Some(&b'h') {
            if let Some(clients) = &mut self.clients {
                clients.answered(scene!(self, now, out), token);
            }
        } else if let Some(home) = self.homes.get_mut(home) {
            home.acknowledged(now, token, mail.payload);
        }
    }
}

impl Service for Streaming {
    fn subscriptions(&self) -> Vec<Subscription> {
        let Options { cluster_id: id, discover_prefix, .. } = &*self.options;
        let own = |pattern: String, tag| Subscription { pattern: pattern.into_bytes(), tag, of_own_shard: true };
        let mut all = vec![
            own(format!("_STAN.sub.{id}"), SUBSCRIBE),
            own(format!("_STAN.unsub.{id}"), UNSUBSCRIBE),
            own(format!("_STAN.subclose.{id}"), CLOSE_SUBSCRIPTION),
            own(format!("_STAN.close.{id}"), CLOSE),
            own(format!("{discover_prefix}.{id}"), CONNECT),
            own(format!("{discover_prefix}.{id}.pings"), PING),
        ];
        if self.options.partitioning {
            // A publish elsewhere is to find nobody here.
            let patterns = self.options.limits.overrides.patterns();
            let patterns = patterns.filter(|pattern| crate::subject::is_valid_subscription(pattern.as_bytes()));
            all.extend(patterns.map(|pattern| own(format!("_STAN.pub.{id}.{pattern}"), PUBLISH)));
        } else {
            all.push(own(format!("_STAN.pub.{id}.>"), PUBLISH));
        }
        let acks = self.homes.iter().zip(ACKS..);
        all.extend(acks.map(|(home, tag)| Subscription { pattern: home.ack_pattern(), tag, of_own_shard: false }));
        all
    }

    fn joined(&self) -> Option<Joined> {
        Some(home::ACKS)
    }

    fn message(&mut self, now: Time, mail: &Mail<'_>, out: &mut Outbox) {
        if self.stops {
            return;
        }
        match mail.tag {
            PUBLISH => self.take_publish(now, mail, out),
            SUBSCRIBE => self.take_subscribe(now, mail, out),
            UNSUBSCRIBE | CLOSE_SUBSCRIPTION => self.take_unsubscribe(now, mail, out),
            CLOSE => self.take_close(mail, out),
            CONNECT => {
                let said = Said::Connect { reply: mail.reply, request: mail.payload };
                out.relay(Some(DIRECTORY), mail.source, |bytes| said.encode(bytes));
            }
            PING => self.take_ping(mail, out),
            tag => self.take_ack(now, (tag - ACKS) as usize, mail, out),
        }
    }

    fn relayed(&mut self, now: Time, _: u16, source: Source, said: &[u8], out: &mut Outbox) {
        if let Some(said) = Said::decode(said).filter(|_| !self.stops) {
            self.hear(now, source, said, out);
        }
    }

    fn unheard(&mut self, now: Time, number: u64, out: &mut Outbox) {
        if let (Some(clients), Some(home)) = (&mut self.clients, self.homes.first_mut()) {
            clients.unheard(scene!(self, now, out), home, number);
        }
    }

    fn turn(&mut self, now: Time, may_deliver: bool, out: &mut Outbox) -> Due {
        let mut due = Due { again: false, deadline: None };
        if !self.stops
            && let (Some(clients), Some(home)) = (&mut self.clients, self.homes.first_mut())
        {
            clients.turn(scene!(self, now, out), home);
            due.deadline = clients.deadline();
        }
        for home in &mut self.homes {
            let next = home.turn(scene!(self, now, out), may_deliver);
            due.again |= next.again;
            due.deadline = [due.deadline, next.deadline].into_iter().flatten().min();
        }
        due
    }

    fn take_requests(&mut self, requests: &mut Vec<(LogId, Request)>) {
        self.homes.iter_mut().for_each(|home| home.take_requests(requests));
    }

    fn completed(&mut self, now: Time, log: LogId, id: RequestId, outcome: Outcome, free: Option<u64>) {
        if let Some(home) = self.homes.iter_mut().find(|home| home.log() == log) {
            home.completed(now, id, outcome, free, &mut self.traffic);
        }
    }

    fn rest(&mut self) {
        self.homes.iter_mut().for_each(Home::rest);
    }

    fn stop(&mut self, now: Time) {
        self.stops = true;
        self.homes.iter_mut().for_each(|home| home.store_mut().stop(now));
    }

    fn is_stopped(&self) -> bool {
        self.homes.iter().all(Home::is_stopped)
    }

    fn snapshot(&mut self, _: Time, want: &ServiceWant) -> ServiceSnapshot {
        let faults = self.homes.iter().flat_map(Home::faults).collect();
        let streaming = want.streaming.then(|| StreamingSnapshot {
            in_msgs: self.traffic.in_msgs,
            in_bytes: self.traffic.in_bytes,
            out_msgs: self.traffic.out_msgs,
            out_bytes: self.traffic.out_bytes,
            clients: self
                .clients
                .iter()
                .flat_map(Clients::records)
                .map(|record| StreamingClient { id: record.id.clone(), hb_inbox: record.hb_inbox.clone() })
                .collect(),
            channels: self.homes.iter_mut().flat_map(Home::snapshot).collect(),
        });
        ServiceSnapshot { faults, streaming }
    }
}
