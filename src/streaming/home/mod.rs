//! What one log holds of the service: channels, subscriptions, and who waits for a flush.
//!
//! A channel is a stream; a subscription or a queue group is a consumer, whose members are the subscriptions of clients.
//! What the engines do not know (inboxes, names, who is whose) is kept here, and in the store's set for the next start.
//!
//! **What waits.** A publish is acknowledged, and a request answered, when what it has brought about is flushed. A member
//! joins its consumer at the moment of that answer, so that no message can come before it.

mod fullness;
mod members;
mod named;
mod outlet;
mod publish;
mod recover;
mod snapshot;
mod subscribe;
mod told;

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use slab::Slab;

use super::records::{GroupRecord, MemberRecord};
use super::registry::Registry;
use super::{ChannelLimits, Options, StoreType, errors};
use crate::consumer::MemberId;
use crate::interned::Interner;
use crate::log::{Durable, Incarnation, LogId, Outcome, Pending, Request, RequestId, Time, Waiting};
use crate::shard::service::{Joined, Outbox};
use crate::store::{ConsumerKey, Next, Store};
use crate::stream;
use crate::subject;

use fullness::Fullness;
use named::Named;
use outlet::Outlet;
pub(super) use publish::acknowledge;
pub use recover::channel_of;
use subscribe::Search;
pub(super) use subscribe::check;
pub(super) use told::Text;

/// Counters of a shard's part of the service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) in_msgs: u64,
    pub(super) in_bytes: u64,
    pub(super) out_msgs: u64,
    pub(super) out_bytes: u64,
}

/// What all instances of the service share: counters touched when a channel comes or goes.
#[derive(Debug, Default)]
pub(super) struct Shared {
    channels: AtomicU64,
}

impl Shared {
    /// Counts a channel, if there may be one more.
    fn add_channel(&self, options: &Options) -> bool {
        let added = |channels: u64| options.limits.has_room(channels).then_some(channels + 1);
        self.channels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added).is_ok()
    }
}

/// What the home of a channel needs of its surroundings.
pub(super) struct Scene<'a> {
    pub(super) now: Time,
    pub(super) options: &'a Options,
    pub(super) shared: &'a Shared,
    pub(super) registry: &'a Registry,
    pub(super) traffic: &'a mut Traffic,
    pub(super) out: &'a mut Outbox,
}

/// A channel.
#[derive(Debug)]
struct Channel {
    name: Arc<str>,
    stream: Incarnation,
    /// What its messages are stored under.
    subject: Box<[u8]>,
    limits: Arc<ChannelLimits>,
    /// Durable subscriptions and groups by what they are.
    named: Named,
    /// Subscriptions that clients have now.
    online: u64,
    /// Durable subscriptions and groups without anybody.
    offline: u64,
    /// The last message, or the end of a subscription.
    active_at: Time,
    /// It stands in [`Home::idle`].
    is_watched: bool,
    fullness: Fullness,
}

/// Gives back the memory of a table that is nearly empty.
fn shrink<K: Eq + Hash, V>(table: &mut HashMap<K, V, RandomState>) {
    if table.len() < table.capacity() / 4 {
        table.shrink_to_fit();
    }
}

/// The name of a channel, which is looked for by its bytes.
#[derive(Debug, PartialEq, Eq)]
struct ExactName(Arc<str>);

impl Borrow<[u8]> for ExactName {
    fn borrow(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Hash for ExactName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_bytes().hash(state);
    }
}

/// A subscription, or a queue group.
#[derive(Debug)]
struct Group {
    channel: usize,
    what: Arc<GroupRecord>,
    /// Numbers of the members.
    members: Vec<u64>,
    /// The last member, if there is none now.
    offline: Option<Box<MemberRecord>>,
}

/// What a client has subscribed.
#[derive(Debug)]
struct Member {
    group: ConsumerKey,
    record: Box<MemberRecord>,
    /// `None` until its request is answered.
    joined: Option<MemberId>,
}

/// Who a delivery is for.
#[derive(Debug)]
struct Recipient {
    inbox: Box<[u8]>,
    channel: Arc<str>,
}

impl Recipient {
    /// `None` if the inbox is no subject: then deliveries go nowhere, as to a subject on which nobody listens.
    fn new(inbox: &str, channel: Arc<str>) -> Option<Self> {
        is_inbox(inbox).then(|| Self { inbox: inbox.as_bytes().into(), channel })
    }
}

/// An answer that waits for a flush.
#[derive(Debug)]
enum Answer {
    /// These bytes, to this subject.
    Send { reply: Box<[u8]>, payload: Vec<u8> },
    /// To a subscription; then the member joins.
    Subscribed { reply: Box<[u8]>, number: u64 },
}

/// Acknowledgements of publishes that wait for a flush: reply subjects and guids one behind the other.
#[derive(Debug, Default)]
struct PubAcks {
    waiting: Waiting<(u32, u32)>,
    text: Vec<u8>,
    /// Bytes of `text` that are done with.
    used: usize,
}

impl PubAcks {
    fn push(&mut self, pending: Pending, reply: &[u8], guid: &[u8]) {
        self.text.extend_from_slice(reply);
        self.text.extend_from_slice(guid);
        self.waiting.push(pending, (reply.len() as u32, guid.len() as u32));
    }

    fn release(&mut self, proof: &Durable, mut each: impl FnMut(&[u8], &[u8])) {
        for (reply, guid) in self.waiting.release(proof) {
            let (text, used) = (&self.text[self.used..], &mut self.used);
            let (reply, rest) = text.split_at(reply as usize);
            *used += reply.len() + guid as usize;
            each(reply, &rest[..guid as usize]);
        }
        if self.waiting.is_empty() {
            self.text.clear();
            self.text.shrink_to(TEXT_KEPT);
            self.used = 0;
        } else if self.used > self.text.len() / 2 {
            self.text.drain(..std::mem::take(&mut self.used));
        }
    }
}

/// Bytes that an empty list of acknowledgements keeps.
const TEXT_KEPT: usize = 256 << 10;

/// One log's part of the service.
#[derive(Debug)]
pub(super) struct Home {
    log: LogId,
    store: Store,
    /// The store's set for the service.
    set: Incarnation,
    is_memory: bool,
    /// What the subjects for acknowledgements begin with: `_INBOX.<tag>`.
    ack_prefix: String,
    next_number: u64,
    channels: Slab<Box<Channel>>,
    /// By name in small letters.
    by_name: HashMap<Arc<str>, usize, RandomState>,
    /// By the exact name: what each publish asks.
    by_exact_name: HashMap<ExactName, usize, RandomState>,
    limits: Interner<ChannelLimits>,
    groups: HashMap<ConsumerKey, Group, RandomState>,
    members: HashMap<u64, Member, RandomState>,
    recipients: HashMap<(ConsumerKey, MemberId), Recipient, RandomState>,
    /// Numbers of the members of a client.
    of_client: HashMap<Box<str>, Vec<u64>, RandomState>,
    answers: Waiting<Answer>,
    acks: PubAcks,
    /// Subscriptions whose first message is being looked for.
    searches: Vec<Search>,
    /// Channels that may have been idle for long: when to look.
    idle: BTreeSet<(Time, usize)>,
    proof: Option<Durable>,
    /// What is wrong with the log.
    faults: Vec<String>,
    requests: Vec<Request>,
}

impl Home {
    pub(super) fn log(&self) -> LogId {
        self.log
    }

    /// The subjects for acknowledgements of its subscriptions.
    pub(super) fn ack_pattern(&self) -> Vec<u8> {
        format!("{}.*", self.ack_prefix).into_bytes()
    }

    fn ack_inbox(&self, number: u64) -> String {
        format!("{}{number:x}", self.ack_prefix)
    }

    /// The number in a subject for acknowledgements.
    fn acked_number(&self, inbox: &str) -> Option<u64> {
        let token = inbox.strip_prefix(&*self.ack_prefix)?;
        u64::from_str_radix(token.strip_prefix('.').unwrap_or(token), 16).ok()
    }

    /// The names of the channels.
    pub(super) fn channels(&self) -> impl Iterator<Item = &str> {
        self.channels.iter().map(|(_, channel)| &*channel.name)
    }

    /// Where answers to heartbeats go, up to a number.
    pub(super) fn beat_prefix(&self) -> String {
        format!("{}h", self.ack_prefix)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.store.is_stopped() || self.store.log().fault().is_some()
    }

    pub(super) fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Does something with the store that has results for clients or operators.
    fn with_store<R>(&mut self, scene: &mut Scene<'_>, act: impl FnOnce(&mut Store, &mut Outlet<'_>) -> R) -> R {
        let Self { store, groups, members, recipients, proof, faults, .. } = self;
        let mut outlet = Outlet { groups, members, recipients, proof, faults, traffic: scene.traffic, out: scene.out };
        act(store, &mut outlet)
    }

    /// Everything that is due in this turn.
    pub(super) fn turn(&mut self, scene: &mut Scene<'_>, may_deliver: bool) -> Next {
        self.look_for_idle(scene);
        self.search_on(scene);
        self.release_answers(scene);
        self.store.set_delivering(may_deliver);
        let now = scene.now;
        let mut requests = std::mem::take(&mut self.requests);
        let mut next = self.with_store(scene, |store, outlet| store.turn(now, outlet, &mut requests));
        self.requests = requests;
        if let Some(proof) = &self.proof {
            let out = &mut *scene.out;
            self.acks.release(proof, |reply, guid| publish::acknowledge(out, reply, guid, b""));
        }
        let idle = self.idle.first().map(|(at, _)| *at);
        next.deadline = [next.deadline, idle].into_iter().flatten().min();
        next
    }

    /// Sends the answers that have waited for a flush.
    fn release_answers(&mut self, scene: &mut Scene<'_>) {
        let Some(proof) = self.proof.filter(|_| !self.answers.is_empty()) else { return };
        let ready = self.answers.release(&proof).collect::<Vec<_>>();
        ready.into_iter().for_each(|answer| self.answer(scene, answer));
    }

    fn answer_after(&mut self, scene: &mut Scene<'_>, pending: Pending, answer: Answer) {
        let is_settled = pending.is_none() || self.proof.is_some_and(|proof| proof.covers(pending));
        if is_settled && self.answers.is_empty() {
            self.answer(scene, answer);
        } else {
            self.answers.push(pending, answer);
        }
    }

    fn answer(&mut self, scene: &mut Scene<'_>, answer: Answer) {
        match answer {
            Answer::Send { reply, payload } => respond(scene.out, &reply, &payload),
            Answer::Subscribed { reply, number } => self.join(scene, &reply, number),
        }
    }

    /// Answers with these bytes when `pending` is flushed.
    pub(super) fn send_after(&mut self, scene: &mut Scene<'_>, pending: Pending, reply: &[u8], payload: Vec<u8>) {
        self.answer_after(scene, pending, Answer::Send { reply: reply.into(), payload });
    }

    /// Gives back memory that only work needs.
    pub(super) fn rest(&mut self) {
        self.store.rest();
        shrink(&mut self.members);
        shrink(&mut self.recipients);
        if self.acks.waiting.is_empty() {
            self.acks = PubAcks::default();
        }
    }

    pub(super) fn take_requests(&mut self, requests: &mut Vec<(LogId, Request)>) {
        requests.extend(self.requests.drain(..).map(|request| (self.log, request)));
    }

    pub(super) fn completed(
        &mut self,
        now: Time,
        id: RequestId,
        outcome: Outcome,
        free: Option<u64>,
        traffic: &mut Traffic,
    ) {
        if let Some(free) = free {
            self.store.set_free_space(free);
        }
        let Self { store, groups, members, recipients, proof, faults, .. } = self;
        // Deliveries are of the turn.
        let out = &mut Outbox::default();
        let mut outlet = Outlet { groups, members, recipients, proof, faults, traffic, out };
        store.completed(now, id, outcome, &mut outlet);
        debug_assert!(out.is_empty(), "nothing is delivered here");
    }

    /// Keeps a value for the next start.
    pub(super) fn put(&mut self, now: Time, key: &[u8], value: &[u8]) -> Pending {
        if self.is_memory {
            return Pending::NONE;
        }
        let put = self.store.put(now, self.set, key, value, crate::log::Urgency::Now);
        put.unwrap_or(Pending::NONE)
    }

    pub(super) fn unset(&mut self, now: Time, key: &[u8]) -> Pending {
        if self.is_memory {
            return Pending::NONE;
        }
        let unset = self.store.unset(now, self.set, key, crate::log::Urgency::Now);
        unset.unwrap_or(Pending::NONE)
    }

    // ---- channels

    /// The channel of that name, which is made if there is none and there may be one more.
    fn channel_of(&mut self, scene: &mut Scene<'_>, name: &[u8]) -> Result<usize, NoChannel> {
        if let Some(channel) = self.by_exact_name.get(name) {
            return Ok(*channel);
        }
        let name = std::str::from_utf8(name).map_err(|_| NoChannel::BadName)?;
        if !super::channel_name_is_valid(name) || name.len() > NAME_BYTES_MAX {
            return Err(NoChannel::BadName);
        }
        if let Some(other) = self.by_name.get(&*name.to_lowercase()) {
            return Err(NoChannel::Refused(errors::other_case(name, &self.channels[*other].name)));
        }
        if !scene.shared.add_channel(scene.options) {
            tracing::error!("STREAM: Creating channel {name:?} failed: {}", errors::TOO_MANY_CHANNELS);
            return Err(NoChannel::Refused(errors::TOO_MANY_CHANNELS.to_owned()));
        }
        let limits = scene.options.limits_of(name);
        let config = stream_config(name, &limits, scene.options);
        let (stream, _) = self.store.create_stream(scene.now, config, &recover::channel_meta(name));
        let channel = self.add_channel(scene.now, name, stream, limits);
        self.watch(channel, scene.now);
        tracing::info!("STREAM: Channel {name:?} has been created");
        Ok(channel)
    }

    fn add_channel(&mut self, now: Time, name: &str, stream: Incarnation, limits: ChannelLimits) -> usize {
        let lower = name.to_lowercase();
        let name = Arc::<str>::from(name);
        let lower = if lower == *name { Arc::clone(&name) } else { lower.into() };
        let channel = self.channels.insert(Box::new(Channel {
            name: Arc::clone(&name),
            stream,
            subject: stored_subject(&name).into_bytes().into(),
            limits: self.limits.share(limits),
            named: Named::default(),
            online: 0,
            offline: 0,
            active_at: now,
            is_watched: false,
            fullness: Fullness::default(),
        }));
        self.by_name.insert(lower, channel);
        self.by_exact_name.insert(ExactName(name), channel);
        channel
    }

    /// Sees to it that somebody looks when the channel may have been idle for too long.
    fn watch(&mut self, channel: usize, now: Time) {
        let watched = &mut self.channels[channel];
        watched.active_at = now;
        let limit = nanos(watched.limits.max_inactivity);
        if limit > 0 && watched.online == 0 && !std::mem::replace(&mut watched.is_watched, true) {
            self.idle.insert((now.saturating_add(limit), channel));
        }
    }

    fn look_for_idle(&mut self, scene: &mut Scene<'_>) {
        while let Some((at, channel)) = self.idle.first().copied().filter(|(at, _)| *at <= scene.now) {
            self.idle.remove(&(at, channel));
            let Some(idle) = self.channels.get_mut(channel) else { continue };
            idle.is_watched = false;
            let due = idle.active_at.saturating_add(nanos(idle.limits.max_inactivity));
            let is_searched = || self.searches.iter().any(|search| search.is_for(channel));
            if idle.online > 0 || is_searched() {
                // The end of the last subscription watches it again.
                continue;
            }
            if due > scene.now {
                idle.is_watched = true;
                self.idle.insert((due, channel));
                continue;
            }
            self.delete_channel(scene, channel);
        }
    }

    fn delete_channel(&mut self, scene: &mut Scene<'_>, channel: usize) {
        let gone = self.channels.remove(channel);
        tracing::info!("STREAM: Channel {:?} has been deleted", gone.name);
        self.by_name.remove(&*gone.name.to_lowercase());
        self.by_exact_name.remove(gone.name.as_bytes());
        for key in gone.named.keys() {
            if let Some(Group { offline: Some(record), .. }) = self.groups.remove(&key) {
                self.unset(scene.now, &super::records::member_key(key, record.number));
            }
        }
        let now = scene.now;
        // Nobody waits for it.
        let _ = self.with_store(scene, |store, outlet| store.delete_stream(now, gone.stream, outlet));
        scene.shared.channels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no channel.
enum NoChannel {
    BadName,
    Refused(String),
}

/// Subjects for acknowledgements are `_INBOX.` and one token, as in the reference, so that permissions for `_INBOX.*`
/// allow them. The service listens to `_INBOX.<tag>.*`. Clients that have subscribed at an earlier version write it so.
pub(super) const ACKS: Joined = Joined { prefix: b"_INBOX.", first_bytes: TAG_BYTES };

/// Letters and digits that tell a log's subjects for acknowledgements, as many as in inboxes of clients.
const TAG_BYTES: usize = 22;

/// What follows the tag in a subject for acknowledgements.
pub(super) fn ack_token(subject: &[u8]) -> &[u8] {
    let token = subject.get(ACKS.prefix.len() + TAG_BYTES..).unwrap_or_default();
    token.strip_prefix(b".").unwrap_or(token)
}

/// Longest inbox that gets anything: a longer one fits into no client's protocol line.
const INBOX_BYTES_MAX: usize = 4096;

/// Whether messages can be sent there. What is no subject would be something else to whoever gets it.
pub(super) fn is_inbox(inbox: &str) -> bool {
    inbox.len() <= INBOX_BYTES_MAX && subject::is_valid_literal(inbox.as_bytes())
}

/// Longest name of a channel: what streams take as a subject, with every byte written as three.
const NAME_BYTES_MAX: usize = 1024;

pub(super) fn nanos(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// What the messages of a channel are stored under. A message that is published to the channel's name by itself must not
/// come into the channel, so this is a space of its own. Blanks and control characters, which no subject may have, and `%`
/// are written as `%` and two digits.
pub(super) fn stored_subject(name: &str) -> String {
    let mut subject = String::from("$STAN.");
    for letter in name.chars() {
        if letter <= ' ' || letter == '\u{7f}' || letter == '%' {
            subject.push_str(&format!("%{:02X}", u32::from(letter)));
        } else {
            subject.push(letter);
        }
    }
    subject
}

/// The stream of a channel.
fn stream_config(name: &str, limits: &ChannelLimits, options: &Options) -> stream::Config {
    let limit = |limit: u64| (limit > 0).then_some(limit);
    let age = nanos(limits.max_age);
    // What the reference counts: the message as it is delivered, and in files 40 bytes more. The numbers in it have
    // different lengths; here they count as those of a channel with thousands of messages.
    let around_payload = 3 + (2 + name.len()) + 3 + 10;
    let in_files = if options.store == StoreType::File { 40 } else { 0 };
    let fixed = (around_payload + in_files).saturating_sub(stored_subject(name).len());
    let durability = match (options.store, options.file.sync) {
        (StoreType::Memory, _) => stream::Durability::Memory,
        (StoreType::File, true) => stream::Durability::Flushed,
        (StoreType::File, false) => stream::Durability::Interval,
    };
    stream::Config {
        durability,
        max_messages: limit(limits.max_msgs),
        max_bytes: limit(limits.max_bytes),
        max_age: (age > 0).then_some(age),
        keep_newest: true,
        accounting: stream::Accounting { fixed: fixed as u32, headers_extra: 0 },
        ..stream::Config::default()
    }
}

/// Answers a request, if it wants an answer.
pub(super) fn respond(out: &mut Outbox, reply: &[u8], payload: &[u8]) {
    if !reply.is_empty() {
        out.send(reply, b"", payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_channels() {
        assert_eq!(stored_subject("foo.bar"), "$STAN.foo.bar");
        assert_eq!(stored_subject("a b%\t\u{7f}é"), "$STAN.a%20b%25%09%7Fé");
        assert_ne!(stored_subject("a b"), stored_subject("a%20b"));
        assert!(crate::subject::is_valid_literal(stored_subject("a b\0").as_bytes()));
    }

    #[test]
    fn acknowledgements_come_in_order_and_keep_their_texts_apart() {
        let mut acks = PubAcks::default();
        for number in 0..100_u64 {
            acks.push(
                Pending::nth(number / 10 + 1),
                format!("r{number}").as_bytes(),
                format!("guid{number}").as_bytes(),
            );
        }
        let mut next = 0;
        for proven in [0, 3, 3, 7, 10] {
            acks.release(&Durable::of_nth(proven), |reply, guid| {
                assert_eq!((reply, guid), (format!("r{next}").as_bytes(), format!("guid{next}").as_bytes()));
                next += 1;
            });
            assert_eq!(next, proven * 10);
        }
        assert!(acks.text.is_empty());
    }
}
