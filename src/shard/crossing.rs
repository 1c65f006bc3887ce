//! Mapped subjects, and messages that leave their account: imported streams, requests to imported services and their
//! answers.
//!
//! All of it happens on the publisher's shard, which knows every account's interest on every shard, so a message takes
//! one hop here as everywhere. A message of an account that shares nothing with others never comes here.
//!
//! A request to an imported service gets a reply subject of this shard, `_R_.<tag>.<id>`; the tag names server and shard.
//! Whoever answers publishes to it in the service's account; that goes to this shard, wherever it was published, and from
//! here to the reply subject that the asking client gave.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use smallvec::{SmallVec, smallvec};

use super::Shard;
use super::account::Route;
use super::batch::{INLINE_BODY_MAX, MessageFlags};
use super::deliver::{Publisher, Spread, Status};
use super::rules::{Rule, broken};
use crate::auth::crossings::ServiceCrossing;
use crate::config::exports::ResponseType;
use crate::wire::message::{self, Message, Tail};

/// Answers that a shard waits for at once; the oldest requests are forgotten beyond that.
const AWAITED_MAX: usize = 1 << 20;
/// Entries for requests that have had their answer, at most as many as for others and so many more.
const EXPIRY_SLACK: usize = 1024;
/// Services that lead on to another service, at most. The configuration refuses circles.
const CHAIN_MAX: usize = 16;
/// Begins the reply subjects of requests to imported services.
pub(super) const ANSWER_PREFIX: &[u8] = b"_R_.";
/// Characters of a tag: four that name the server, two that name the shard.
const TAG_BYTES: usize = 6;

/// The answers that a shard waits for.
#[derive(Debug)]
pub(super) struct Awaited {
    tag: [u8; TAG_BYTES],
    by_id: HashMap<u64, Request, foldhash::fast::RandomState>,
    /// Ids by the time they expire, as long as all wait equally long; others are forgotten when their turn comes.
    expiry: VecDeque<(u64, u64)>,
}

#[derive(Debug)]
struct Request {
    /// Account that is to answer.
    answering: u32,
    /// Account that has asked, and where it wants the answer.
    asking: u32,
    reply: Box<[u8]>,
    response: ResponseType,
    /// Nanoseconds of the shared clock.
    expires: u64,
}

impl Awaited {
    /// `server` is the same on all shards of a server.
    pub(super) fn new(server: [u8; 4], shard: u16) -> Self {
        let mut tag = [0; TAG_BYTES];
        tag[..4].copy_from_slice(&server);
        tag[4..].copy_from_slice(&[digit(u64::from(shard) / 62), digit(u64::from(shard) % 62)]);
        Self { tag, by_id: HashMap::default(), expiry: VecDeque::new() }
    }

    /// Waits for an answer; gives the subject to send it to.
    fn add(&mut self, id: u64, now: u64, request: Request) -> Vec<u8> {
        while let Some((expires, oldest)) = self.expiry.front()
            && (*expires <= now || self.by_id.len() >= AWAITED_MAX)
        {
            self.by_id.remove(oldest);
            self.expiry.pop_front();
        }
        // Most have had their answer long before.
        if self.expiry.len() > 2 * self.by_id.len() + EXPIRY_SLACK {
            self.expiry.retain(|(_, id)| self.by_id.contains_key(id));
        }
        self.expiry.push_back((request.expires, id));
        self.by_id.insert(id, request);
        let mut subject = ANSWER_PREFIX.to_vec();
        subject.extend_from_slice(&self.tag);
        subject.push(b'.');
        let mut rest = id;
        while rest > 0 {
            subject.push(digit(rest % 62));
            rest /= 62;
        }
        subject
    }

    /// The shard and the id that an answer on `subject` is for.
    fn address(&self, subject: &[u8]) -> Option<(u16, u64)> {
        let rest = subject.strip_prefix(ANSWER_PREFIX)?;
        let (tag, rest) = rest.split_at_checked(TAG_BYTES)?;
        let id = rest.strip_prefix(b".").filter(|id| !id.is_empty() && tag[..4] == self.tag[..4])?;
        let shard = value(tag[4])? * 62 + value(tag[5])?;
        let number = |sum: u64, byte: &u8| sum.checked_mul(62)?.checked_add(value(*byte)?);
        Some((u16::try_from(shard).ok()?, id.iter().rev().try_fold(0, number)?))
    }
}

/// A digit to the base of 62.
pub(super) fn digit(value: u64) -> u8 {
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[value as usize % 62]
}

fn value(digit: u8) -> Option<u64> {
    Some(u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        b'A'..=b'Z' => digit - b'A' + 10,
        b'a'..=b'z' => digit - b'a' + 36,
        _ => return None,
    }))
}

/// Who asks, as a service sees it: the value of the header field `Nats-Request-Info`.
#[derive(Clone, Serialize)]
struct Asker {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    acc: String,
    /// The account whose service has passed the request on.
    #[serde(skip_serializing_if = "Option::is_none")]
    svc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lang: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ver: Option<String>,
    /// Nanoseconds.
    rtt: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_type: Option<&'static str>,
}

/// One account that a message goes to, and under which name.
struct Leg {
    account: u32,
    subject: Vec<u8>,
    route: Rc<Route>,
    /// Queue groups of the route that get it.
    groups: SmallVec<[u16; 4]>,
}

type Legs = SmallVec<[Leg; 2]>;

impl Shard {
    /// What a subject becomes in `account` before anything else is done with it; `None` if it stays.
    pub(super) fn map(&mut self, account: u32, subject: &[u8]) -> Option<Vec<u8>> {
        let mappings = self.config.directory.accounts()[account as usize].mappings()?;
        let rng = &mut self.rng;
        mappings.map(subject, &mut |below| rng.u32(..below))
    }

    /// Sends a client's message to everybody who wants it, in whichever account.
    pub(super) fn publish_across(
        &mut self,
        account: u32,
        publisher: &Publisher,
        message: &Message<'_>,
        status: Status,
    ) -> Spread {
        let block;
        let mut message = *message;
        if let Tail::Joined(_) = message.tail
            && message.size() > INLINE_BODY_MAX
        {
            block = Bytes::copy_from_slice(message.body());
            message.tail = Tail::Shared { arguments: message.arguments(), body: &block };
        }
        let directory = Arc::clone(&self.config.directory);
        let mut legs: Legs = smallvec![self.leg(account, message.subject.to_vec())];
        if let Some(crossings) = &directory.accounts()[account as usize].crossings {
            let streams = if broken(Rule::WideImport) {
                crossings.streams.values().collect()
            } else {
                crossings.streams.matching(message.subject)
            };
            for stream in streams {
                legs.push(self.leg(stream.to, stream.carry(message.subject)));
            }
        }
        let mut spread = self.publish_on(legs, publisher, &message, status);
        spread += self.ask_services(account, publisher, &message, status, None, 0);
        spread
    }

    /// Publishes in one account what has come from another one. Its streams do not carry that on.
    fn publish_in(&mut self, account: u32, publisher: &Publisher, message: &Message<'_>, status: Status) -> Spread {
        let leg = self.leg(account, message.subject.to_vec());
        self.publish_on(smallvec![leg], publisher, message, status)
    }

    fn leg(&mut self, account: u32, subject: Vec<u8>) -> Leg {
        let route = self.accounts[account as usize].route(&subject);
        Leg { account, subject, route, groups: SmallVec::new() }
    }

    fn publish_on(&mut self, mut legs: Legs, publisher: &Publisher, message: &Message<'_>, status: Status) -> Spread {
        self.assign_groups(&mut legs);
        let mut spread = Spread::default();
        for Leg { account, subject, route, groups } in &legs {
            let message = Message { subject, ..*message };
            spread.taken += self.local.deliver_to_all(&route.plain, &message, publisher);
            let (others, _) =
                self.publish_to_groups_and_peers(route, publisher, &message, *account, status, Some(groups));
            spread += others;
        }
        spread
    }

    /// Members of a queue group in several accounts that share a stream are one group: one of them gets the message.
    fn assign_groups(&mut self, legs: &mut [Leg]) {
        let mut seen: SmallVec<[Box<[u8]>; 4]> = SmallVec::new();
        for first in 0..legs.len() {
            let names: Vec<Box<[u8]>> = legs[first].route.queues.iter().map(|queue| queue.name.clone()).collect();
            for name in names.into_iter().filter(|name| !name.is_empty()) {
                if seen.contains(&name) {
                    continue;
                }
                let members = |leg: &Leg| {
                    let queue = leg.route.queues.iter().enumerate().find(|(_, queue)| queue.name == name);
                    queue.map(|(n, queue)| (n as u16, queue.local.len() as u32 + queue.peer_weight))
                };
                let all: u32 = legs.iter().filter_map(members).map(|(_, weight)| weight).sum();
                let mut chosen = if all == 0 { 0 } else { self.rng.u32(..all) };
                for leg in legs.iter_mut() {
                    let Some((n, weight)) = members(leg) else { continue };
                    match chosen.checked_sub(weight) {
                        Some(rest) => chosen = rest,
                        None => {
                            leg.groups.push(n);
                            break;
                        }
                    }
                }
                seen.push(name);
            }
        }
    }

    /// Hands a request to the services that `account` imports under its subject.
    fn ask_services(
        &mut self,
        account: u32,
        publisher: &Publisher,
        message: &Message<'_>,
        status: Status,
        asker: Option<&Asker>,
        depth: usize,
    ) -> Spread {
        let directory = Arc::clone(&self.config.directory);
        let facts = &directory.accounts()[account as usize];
        let mut spread = Spread::default();
        let Some(crossings) = facts.crossings.as_ref().filter(|_| depth < CHAIN_MAX) else { return spread };
        for service in crossings.services.matching(message.subject) {
            let subject = service.carry(message.subject);
            let subject = self.map(service.to, &subject).unwrap_or(subject);
            let asker = match asker {
                Some(first) => {
                    // Where only a later service may see who asks, it is told the server.
                    let server = service.share.then(|| self.config.info.server_name.clone());
                    let server = server.or_else(|| first.server.clone());
                    Asker { svc: Some(facts.name.to_string()), server, ..first.clone() }
                }
                None => self.asker(publisher, facts.name.to_string(), service.share),
            };
            let (id, reply) = self.await_answer(account, service, message.reply());
            let request = Owned::request(message, reply.as_deref(), &asker);
            let request = request.message(&subject);
            let mut asked = self.publish_in(service.to, publisher, &request, status);
            asked += self.ask_services(service.to, publisher, &request, status, Some(&asker), depth + 1);
            if asked.is_nowhere() {
                self.awaited.by_id.remove(&id);
            }
            spread += asked;
        }
        spread
    }

    /// The reply subject for a request that is passed on, if it has one.
    fn await_answer(&mut self, asking: u32, service: &ServiceCrossing, reply: &[u8]) -> (u64, Option<Vec<u8>>) {
        let id = self.rng.u64(1..);
        if reply.is_empty() {
            return (id, None);
        }
        let expires = self.now.saturating_add(u64::try_from(service.response_time.as_nanos()).unwrap_or(u64::MAX));
        let (answering, response) = (service.to, service.response);
        let request = Request { answering, asking, reply: reply.into(), response, expires };
        (id, Some(self.awaited.add(id, self.now, request)))
    }

    fn asker(&self, publisher: &Publisher, acc: String, share: bool) -> Asker {
        let mut asker = Asker {
            start: None,
            host: None,
            id: None,
            acc,
            svc: None,
            user: None,
            name: None,
            lang: None,
            ver: None,
            rtt: 0,
            server: None,
            kind: None,
            client_type: None,
        };
        let Some(conn) = publisher.here.and_then(|slot| self.local.conns.get(slot as usize)) else { return asker };
        asker.rtt = conn.pings.rtt;
        if share {
            let identity = conn.identity.as_deref().cloned().unwrap_or_default();
            let given = |text: String| Some(text).filter(|text| !text.is_empty());
            asker.start = Some(crate::monitor::text::timestamp(conn.start));
            asker.host = Some(conn.peer.ip().to_canonical().to_string());
            asker.id = Some(conn.cid);
            asker.user = identity.user;
            asker.name = given(identity.name);
            asker.lang = given(identity.lang);
            asker.ver = given(identity.version);
            asker.server = Some(self.config.info.server_name.clone());
            asker.kind = Some("Client");
            asker.client_type = Some("nats");
        }
        asker
    }

    /// A message published in `account` to a reply subject of some shard: passes it on to who waits for it.
    pub(super) fn answer(&mut self, account: u32, publisher: &Publisher, message: &Message<'_>) -> usize {
        let Some((shard, id)) = self.awaited.address(message.subject) else { return 0 };
        if shard != self.peers.shard() {
            let Some(pos) = self.peers.find(shard) else { return 0 };
            let flags = MessageFlags { answer: true, ..MessageFlags::default() };
            self.feed(publisher, 1 << pos);
            self.peers.open(pos).push_message(account, publisher.origin, flags, std::iter::empty(), message);
            return 1;
        }
        let now = self.now;
        let known = self.awaited.by_id.get(&id);
        let Some(request) = known.filter(|request| request.answering == account && request.expires > now) else {
            return 0;
        };
        let (asking, reply) = (request.asking, request.reply.clone());
        let is_last = match request.response {
            ResponseType::Single => true,
            ResponseType::Stream | ResponseType::Chunked => message.size() == message.header_bytes,
        };
        if is_last {
            self.awaited.by_id.remove(&id);
        }
        // An answer may ask back; that answer comes the other way.
        let back = (!message.reply().is_empty()).then(|| {
            let expires = now.saturating_add(BACK_TIME);
            let (answering, reply) = (asking, message.reply().into());
            let request = Request { answering, asking: account, reply, response: ResponseType::Single, expires };
            let id = self.rng.u64(1..);
            self.awaited.add(id, now, request)
        });
        let answer = Owned::renamed(message, back.as_deref());
        let answer = answer.message(&reply);
        let spread = self.publish_in(asking, publisher, &answer, Status::Unwanted);
        let mut taken = spread.taken + spread.sent;
        if answer.subject.starts_with(ANSWER_PREFIX) {
            taken += self.answer(asking, publisher, &answer);
        }
        self.after_deliveries();
        taken
    }
}

/// How long an answer to an answer is waited for, nanoseconds.
const BACK_TIME: u64 = 120_000_000_000;

/// A message whose arguments, and perhaps headers, are new.
struct Owned {
    /// ` [reply] sizes\r\n`, and the body unless that is in a block of its own.
    bytes: Vec<u8>,
    argument_bytes: usize,
    reply_bytes: usize,
    header_bytes: usize,
    block: Option<Bytes>,
}

impl Owned {
    /// The message with another reply.
    fn renamed(message: &Message<'_>, reply: Option<&[u8]>) -> Self {
        let block = match message.tail {
            Tail::Shared { body, .. } => Some(body.clone()),
            Tail::Joined(_) => None,
        };
        Self::new(message.header_bytes, message.body(), block, reply)
    }

    /// The message with another reply, and with a header field that says who asks.
    fn request(message: &Message<'_>, reply: Option<&[u8]>, asker: &Asker) -> Self {
        const EMPTY: &[u8] = b"NATS/1.0\r\n";
        const FIELD: &[u8] = b"Nats-Request-Info:";
        let (headers, payload) = message.body().split_at(message.header_bytes);
        let mut body = Vec::with_capacity(message.size() + 256);
        // A request that was passed on before has such a field already.
        for line in headers.strip_suffix(b"\r\n").unwrap_or(headers).split_inclusive(|byte| *byte == b'\n') {
            if !line.starts_with(FIELD) {
                body.extend_from_slice(line);
            }
        }
        if body.is_empty() {
            body.extend_from_slice(EMPTY);
        }
        body.extend_from_slice(FIELD);
        body.push(b' ');
        serde_json::to_writer(&mut body, asker).expect("plain strings and numbers always serialise");
        body.extend_from_slice(b"\r\n\r\n");
        let header_bytes = body.len();
        body.extend_from_slice(payload);
        if body.len() > INLINE_BODY_MAX {
            let block = Bytes::from(body);
            return Self::new(header_bytes, &block.clone(), Some(block), reply);
        }
        Self::new(header_bytes, &body, None, reply)
    }

    fn new(header_bytes: usize, body: &[u8], block: Option<Bytes>, reply: Option<&[u8]>) -> Self {
        let (mut header_digits, mut size_digits) = (itoa::Buffer::new(), itoa::Buffer::new());
        let header_text = if header_bytes == 0 { "" } else { header_digits.format(header_bytes) };
        let size_text = size_digits.format(body.len() - 2);
        let reply = reply.unwrap_or_default();
        let mut bytes = Vec::with_capacity(64 + body.len());
        message::push_arguments(&mut bytes, reply, header_text.as_bytes(), size_text.as_bytes());
        let argument_bytes = bytes.len();
        if block.is_none() {
            bytes.extend_from_slice(body);
        }
        Self { bytes, argument_bytes, reply_bytes: reply.len(), header_bytes, block }
    }

    fn message<'a>(&'a self, subject: &'a [u8]) -> Message<'a> {
        Message {
            subject,
            reply_bytes: self.reply_bytes,
            header_bytes: self.header_bytes,
            argument_bytes: self.argument_bytes,
            tail: match &self.block {
                None => Tail::Joined(&self.bytes),
                Some(body) => Tail::Shared { arguments: &self.bytes, body },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_request() {
        let mut awaited = Awaited::new(*b"aB3z", 63);
        for (n, id) in [1, 61, 62, u64::MAX].into_iter().enumerate() {
            let request = Request {
                answering: 1,
                asking: 2,
                reply: b"r".as_slice().into(),
                response: ResponseType::Single,
                expires: 10,
            };
            let subject = awaited.add(id, 0, request);
            assert!(subject.starts_with(b"_R_.aB3z11."), "{subject:?}");
            assert_eq!(awaited.address(&subject), Some((63, id)));
            assert_eq!(awaited.by_id.len(), n + 1);
        }
        for subject in ["_R_.aB3z11.", "_R_.xxxx11.1", "_R_.aB3z", "_R_.aB3z11.!", "foo", "_R_.aB3z11.zzzzzzzzzzzzzzz"]
        {
            assert_eq!(awaited.address(subject.as_bytes()), None, "{subject}");
        }
        let late = Request {
            answering: 1,
            asking: 2,
            reply: b"r".as_slice().into(),
            response: ResponseType::Single,
            expires: 30,
        };
        awaited.add(7, 20, late);
        assert_eq!(awaited.by_id.len(), 1, "who has waited too long is forgotten");
    }
}
