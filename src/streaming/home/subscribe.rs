//! Subscriptions: what a request asks for, and where a new one begins.

use std::sync::Arc;

use prost::Message as _;

use super::told::{self, Begins};
use super::{Answer, Channel, Group, Home, Member, NoChannel, Recipient, Scene, respond};
use crate::consumer::{self, OnReturn, Origin, RedeliveryOrder, RestartDeadline, Sharing, Terms};
use crate::first::First as _;
use crate::log::{Incarnation, Pending, Time};
use crate::store::{ConsumerKey, Got};
use crate::stream::Lookup;
use crate::streaming::errors;
use crate::streaming::pb::{StartPosition, SubscriptionRequest, SubscriptionResponse};
use crate::streaming::records::{GroupRecord, MemberRecord, member_key};

/// Messages that are due together so nearly are redelivered together, as by the reference.
const TIMER_SLACK_NS: i64 = 15_000_000;
/// After this time the messages of a member that has left go to the others, as by the reference.
const HANDOVER_NS: i64 = 100_000_000;
const SECOND_NS: i64 = 1_000_000_000;

/// A new subscription whose first message is being looked for.
#[derive(Debug)]
pub(super) struct Search {
    channel: usize,
    stream: Incarnation,
    what: GroupRecord,
    request: SubscriptionRequest,
    reply: Box<[u8]>,
    /// The first message not older than this.
    time: Time,
}

impl Search {
    pub(super) fn is_for(&self, channel: usize) -> bool {
        self.channel == channel
    }
}

pub(super) fn refuse(scene: &mut Scene<'_>, reply: &[u8], error: &str) {
    let response = SubscriptionResponse { error: error.to_owned(), ..SubscriptionResponse::default() };
    respond(scene.out, reply, &response.encode_to_vec());
}

/// What does not depend on what there is. The error is the reference's text.
pub(in crate::streaming) fn check(request: &SubscriptionRequest) -> Result<(), &'static str> {
    if request.client_id.is_empty() {
        return Err(errors::CLIENT_MISSING);
    }
    if request.ack_wait_in_secs <= 0 {
        return Err(errors::INVALID_ACK_WAIT);
    }
    if request.max_in_flight <= 0 {
        return Err(errors::INVALID_MAX_IN_FLIGHT);
    }
    if StartPosition::try_from(request.start_position).is_err() {
        return Err(errors::INVALID_START);
    }
    if !crate::streaming::channel_name_is_valid(&request.subject) {
        return Err(errors::INVALID_SUBJECT);
    }
    Ok(())
}

impl Home {
    /// Subscribes a client.
    pub(in crate::streaming) fn subscribe(
        &mut self,
        scene: &mut Scene<'_>,
        reply: &[u8],
        request: SubscriptionRequest,
    ) {
        if let Err(error) = check(&request) {
            told::bad_request(&request, error, &scene.options.cluster_id);
            return refuse(scene, reply, error);
        }
        if let Err(error) = self.try_subscribe(scene, reply, request) {
            refuse(scene, reply, &error);
        }
    }

    fn try_subscribe(
        &mut self,
        scene: &mut Scene<'_>,
        reply: &[u8],
        request: SubscriptionRequest,
    ) -> Result<(), String> {
        let refused = |request: &SubscriptionRequest, error: String| {
            tracing::error!("STREAM: Unable to create subscription on {:?}: {error}", request.subject);
            Err(error)
        };
        if !scene.registry.is_known(&request.client_id) {
            return Err(errors::UNKNOWN_CLIENT.to_owned());
        }
        let channel = match self.channel_of(scene, request.subject.as_bytes()) {
            Ok(channel) => channel,
            Err(NoChannel::BadName) => return refused(&request, errors::INVALID_SUBJECT.to_owned()),
            Err(NoChannel::Refused(text)) => return refused(&request, text),
        };
        let is_queue = !request.q_group.is_empty();
        if is_queue && request.durable_name.contains(':') {
            return refused(&request, errors::INVALID_DURABLE_QUEUE.to_owned());
        }
        let is_own_durable = !is_queue && !request.durable_name.is_empty();
        let what = GroupRecord {
            client_id: if is_own_durable { request.client_id.clone() } else { String::new() },
            durable: request.durable_name.clone(),
            queue: request.q_group.clone(),
        };
        let is_searched = self.searches.iter().any(|search| search.is_for(channel) && search.what == what);
        let known = self.channels[channel].named.get(&what);
        if is_own_durable && (is_searched || known.is_some_and(|key| !self.groups[&key].members.is_empty())) {
            let old = known.and_then(|key| self.groups[&key].members.first().copied());
            match old.filter(|_| scene.options.replace_durable) {
                Some(number) => drop(self.leave(scene, number, true)),
                None => return refused(&request, errors::DUPLICATE_DURABLE.to_owned()),
            }
        }
        let resumes = known.is_some_and(|key| self.groups[&key].offline.is_some());
        let Channel { limits, online, offline, stream, .. } = &*self.channels[channel];
        let waiting = self.searches.iter().filter(|search| search.is_for(channel)).count() as u64;
        if !resumes && limits.max_subs > 0 && online + offline + waiting >= limits.max_subs {
            return refused(&request, errors::TOO_MANY_SUBSCRIPTIONS.to_owned());
        }
        let stream = *stream;
        if let Some(key) = known {
            self.add_member(scene, key, &request, reply, Pending::NONE, None);
            return Ok(());
        }
        let origin = match self.start_of(stream, &request, scene.now) {
            Start::At(seq) => seq,
            Start::Since(time) => {
                let search = Search { channel, stream, what, request, reply: reply.into(), time };
                self.searches.push(search);
                self.search_on(scene);
                return Ok(());
            }
        };
        self.create_group(scene, channel, what, &request, reply, origin);
        Ok(())
    }

    /// Where a new subscription begins.
    fn start_of(&self, of: Incarnation, request: &SubscriptionRequest, now: Time) -> Start {
        let Some(stream) = self.store.stream(of) else { return Start::At(1) };
        let next = stream.last_seq() + 1;
        if stream.messages() == 0 {
            return Start::At(next);
        }
        Start::At(match StartPosition::try_from(request.start_position).unwrap_or(StartPosition::NewOnly) {
            StartPosition::NewOnly => next,
            StartPosition::LastReceived => stream.last_seq(),
            StartPosition::First => stream.first_seq(),
            StartPosition::SequenceStart => request.start_sequence.clamp(stream.first_seq(), next),
            StartPosition::TimeDeltaStart => match now.checked_sub(request.start_time_delta) {
                Some(_) if request.start_time_delta < 0 => next,
                Some(time) => return Start::Since(time),
                // So far in the future that it is the past, for the reference's arithmetic too.
                None => stream.first_seq(),
            },
        })
    }

    /// Goes on with what has been waiting for reads.
    pub(super) fn search_on(&mut self, scene: &mut Scene<'_>) {
        for search in std::mem::take(&mut self.searches) {
            match self.first_since(search.stream, search.time) {
                Some(origin) => {
                    let Search { channel, what, request, reply, .. } = search;
                    // Members of a group that came meanwhile have made it.
                    match self.channels.get(channel).and_then(|channel| channel.named.get(&what)) {
                        _ if !scene.registry.is_known(&request.client_id) => {
                            refuse(scene, &reply, errors::UNKNOWN_CLIENT);
                        }
                        Some(key) => self.add_member(scene, key, &request, &reply, Pending::NONE, None),
                        None => self.create_group(scene, channel, what, &request, &reply, origin),
                    }
                }
                None => self.searches.push(search),
            }
        }
    }

    /// The first message that is not older than `time`, or the next one; `None` if something has to be read first.
    fn first_since(&mut self, of: Incarnation, time: Time) -> Option<u64> {
        let Some(stream) = self.store.stream(of) else { return Some(1) };
        let next = stream.last_seq() + 1;
        let (mut low, mut high) = match stream.locate_time(time) {
            Lookup::Found { seq, .. } => return Some(seq),
            // What is not flushed yet is later than all else.
            Lookup::None if stream.last_time().is_some_and(|last| last >= time) => return Some(stream.visible() + 1),
            Lookup::None => return Some(next),
            Lookup::Read(block) => (block.from, block.upto + 1),
        };
        while low < high {
            let middle = low + (high - low) / 2;
            let mut stored = None;
            match self.store.get(of, middle, |message| stored = Some(message.time)) {
                Ok(Got::Later) => return None,
                Ok(Got::Message | Got::Nothing) if stored.is_some_and(|stored| stored >= time) => high = middle,
                Ok(_) => low = middle + 1,
                Err(_) => return Some(next),
            }
        }
        Some(low)
    }

    fn create_group(
        &mut self,
        scene: &mut Scene<'_>,
        channel: usize,
        what: GroupRecord,
        request: &SubscriptionRequest,
        reply: &[u8],
        origin: u64,
    ) {
        let Some(stream) = self.channels.get(channel).map(|channel| channel.stream) else {
            return refuse(scene, reply, errors::UNKNOWN_CHANNEL);
        };
        let config = consumer::Config {
            ack_wait_ns: i64::from(request.ack_wait_in_secs) * SECOND_NS,
            max_ack_pending: None,
            sharing: if what.is_queue() { Sharing::Group } else { Sharing::Single },
            on_return: OnReturn::ResendAll,
            handover_delay_ns: HANDOVER_NS,
            redelivery_order: RedeliveryOrder::Deadline,
            timer_slack_ns: TIMER_SLACK_NS,
            counts: consumer::Counts::Forgotten,
            restart_deadline: RestartDeadline::FromStored,
            memory: self.is_memory,
            ..consumer::Config::default()
        };
        let created = self.store.create_consumer(scene.now, stream, config, Origin::at(origin), &what.encode_to_vec());
        let Ok(Some((key, pending))) = created else {
            return refuse(scene, reply, errors::UNKNOWN_CHANNEL);
        };
        self.add_group(channel, what, key);
        self.add_member(scene, key, request, reply, pending, Some(origin));
    }

    pub(super) fn add_group(&mut self, channel: usize, what: GroupRecord, key: ConsumerKey) {
        let what = Arc::new(what);
        if what.is_named() {
            self.channels[channel].named.insert(Arc::clone(&what), key);
        }
        self.groups.insert(key, Group { channel, what, members: Vec::new(), offline: None });
    }

    /// A subscription becomes part of a group; it joins when the records of both are flushed, and `pending` with them. A new
    /// group begins with message `origin`.
    fn add_member(
        &mut self,
        scene: &mut Scene<'_>,
        key: ConsumerKey,
        request: &SubscriptionRequest,
        reply: &[u8],
        pending: Pending,
        origin: Option<u64>,
    ) {
        let number = self.next_number;
        self.next_number += 1;
        let record = MemberRecord {
            client_id: request.client_id.clone(),
            inbox: request.inbox.clone(),
            number,
            max_in_flight: request.max_in_flight.unsigned_abs(),
            ack_wait_secs: request.ack_wait_in_secs.unsigned_abs(),
            offline: false,
        };
        let put = self.put(scene.now, &member_key(key, number), &record.encode_to_vec());
        let Some(group) = self.groups.get_mut(&key) else { return };
        group.members.reserve_first();
        group.members.push(number);
        let channel = &mut self.channels[group.channel];
        let change = match (origin, &group.offline) {
            (Some(_), _) => "Started new",
            (None, Some(_)) => "Resumed",
            (None, None) => "Added member to",
        };
        let begins = Begins(origin.map(|origin| (request, origin)));
        told::subscription(change, &channel.name, &group.what, &record, &begins);
        channel.online += 1;
        if let Some(offline) = group.offline.take() {
            channel.offline -= 1;
            self.unset(scene.now, &member_key(key, offline.number));
        }
        self.of_client.entry(record.client_id.as_str().into()).or_default().push(number);
        self.members.insert(number, Member { group: key, record: Box::new(record), joined: None });
        self.answer_after(scene, pending.max(put), Answer::Subscribed { reply: reply.into(), number });
    }

    /// The answer to a subscription, and its first messages behind it.
    pub(super) fn join(&mut self, scene: &mut Scene<'_>, reply: &[u8], number: u64) {
        let ack_inbox = self.ack_inbox(number);
        let response = SubscriptionResponse { ack_inbox, error: String::new() };
        respond(scene.out, reply, &response.encode_to_vec());
        // It may have left meanwhile.
        let Some(member) = self.members.get_mut(&number) else { return };
        let (key, record) = (member.group, &member.record);
        let Some(group) = self.groups.get(&key) else { return };
        let Ok(Some(id)) = self.store.join(scene.now, key, terms(record)) else { return };
        member.joined = Some(id);
        let channel = self.channels[group.channel].name.clone();
        if let Some(recipient) = Recipient::new(&record.inbox, channel) {
            self.recipients.insert((key, id), recipient);
        }
    }
}

/// How a subscription takes part in its group, or alone.
pub(super) fn terms(record: &MemberRecord) -> Terms {
    let ack_wait_ns = Some(i64::from(record.ack_wait_secs) * SECOND_NS);
    Terms { key: record.number, credit: record.max_in_flight, ack_wait_ns }
}

enum Start {
    At(u64),
    /// With the first message that is not older.
    Since(Time),
}
