//! A client of the streaming service that hides nothing: it makes each request by hand over a raw NATS connection and
//! shows each answer as it came.
//!
//! What has not come is hard to see. [`Stan::arrived`] asks the service about the channel, with a request that it has
//! to refuse, and takes what came before the refusal: a server hands out what it can before it answers the next
//! request. A test that says "nothing more" also goes on to something that would show an extra message, as a rule the
//! next one.

#![allow(dead_code, reason = "every test crate uses its own part of the harness")]

pub(crate) mod wire;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message;
use serde_json::Value;

use crate::support::{Client, Msg, PATIENCE, Server, ServerBuilder, wait_for, wait_until};
use wire::{
    Ack, CloseRequest, ConnectRequest, ConnectResponse, ErrorResponse, MsgProto, Ping, PubAck, PubMsg, Start,
    SubscriptionRequest, SubscriptionResponse, UnsubscribeRequest,
};

/// The cluster id of the servers under test.
pub(crate) const CLUSTER: &str = "test-cluster";

/// A step of polling, where a test has to look after several connections.
const GLANCE: Duration = Duration::from_millis(5);

/// Tells inboxes apart, of all clients of this process.
static NEXT_CLIENT: AtomicU64 = AtomicU64::new(1);

/// A server with the streaming service and monitoring.
pub(crate) fn streaming(shards: usize) -> ServerBuilder {
    Server::builder().shards(shards).monitor().streaming(CLUSTER)
}

/// The same, which keeps its messages in the folder `store` of its own directory.
pub(crate) fn streaming_on_files(shards: usize) -> ServerBuilder {
    streaming(shards).args(&["-st", "file", "-dir", "store"])
}

/// Names of channels, enough of them that with several shards some live where a connection is and some elsewhere.
pub(crate) fn channels(shards: usize) -> Vec<String> {
    let count = if shards == 1 { 1 } else { 2 * shards };
    (0..count).map(|at| format!("orders.{at}")).collect()
}

/// The sequence numbers of messages.
pub(crate) fn sequences(messages: &[MsgProto]) -> Vec<u64> {
    messages.iter().map(|message| message.sequence).collect()
}

/// The payloads of messages, as text.
pub(crate) fn texts(messages: &[MsgProto]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.data).into_owned()).collect()
}

/// Nanoseconds since 1970.
pub(crate) fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_nanos()).expect("the clock is before 2262")
}

/// What monitoring says about a channel, subscriptions included; none when there is no such channel.
pub(crate) fn channel_state(server: &Server, channel: &str) -> Option<Value> {
    let reply = server.get(&format!("/streaming/channelsz?channel={channel}&subs=1"));
    (reply.status == 200).then(|| reply.json())
}

/// What monitoring says about a subscription; none when the channel has none with this inbox.
pub(crate) fn subscription_state(server: &Server, subscription: &Subscription) -> Option<Value> {
    let state = channel_state(server, &subscription.channel)?;
    let all = state["subscriptions"].as_array()?;
    all.iter().find(|one| one["inbox"] == subscription.inbox.as_str()).cloned()
}

/// Waits until monitoring shows this many unacknowledged messages for a subscription.
pub(crate) fn await_pending(server: &Server, subscription: &Subscription, count: u64) {
    wait_until(&format!("{count} messages are pending on {}", subscription.channel), PATIENCE, || {
        subscription_state(server, subscription).is_some_and(|state| state["pending_count"] == count)
    });
}

/// Whether monitoring lists a client.
pub(crate) fn is_registered(server: &Server, id: &str) -> bool {
    server.get(&format!("/streaming/clientsz?client={id}")).status == 200
}

/// A subscription that the service has confirmed.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: String,
    pub(crate) inbox: String,
    pub(crate) ack_inbox: String,
}

/// A streaming client.
pub(crate) struct Stan {
    client: Client,
    cluster: String,
    id: String,
    conn_id: Vec<u8>,
    /// The subjects of this client begin with `_INBOX.<token>` and `_STAN.acks.<token>`.
    token: String,
    subjects: ConnectResponse,
    answers_heartbeats: bool,
    heartbeats: u64,
    /// Received and not asked for yet, oldest first.
    waiting: VecDeque<Msg>,
    made: u64,
}

impl Stan {
    /// Connects and registers.
    pub(crate) fn connect(server: &Server, id: &str) -> Stan {
        Stan::registered(Stan::open(server, server.requester(), id))
    }

    /// The same from a given shard.
    pub(crate) fn connect_on(server: &Server, shard: usize, id: &str) -> Stan {
        Stan::registered(Stan::open(server, server.requester_on(shard), id))
    }

    fn registered(mut stan: Stan) -> Stan {
        let response = stan.register();
        assert_eq!(response.error, "", "client {} is not accepted", stan.id);
        stan
    }

    /// A client with its inboxes, not registered yet.
    pub(crate) fn open(server: &Server, client: Client, id: &str) -> Stan {
        let token = format!("t{}", NEXT_CLIENT.fetch_add(1, Relaxed));
        let mut stan = Stan {
            client,
            cluster: server.cluster_id().to_owned(),
            id: id.to_owned(),
            conn_id: format!("connection-{token}").into_bytes(),
            token,
            subjects: ConnectResponse::default(),
            answers_heartbeats: true,
            heartbeats: 0,
            waiting: VecDeque::new(),
            made: 0,
        };
        stan.subscribe_inboxes();
        stan
    }

    /// Goes on over a new NATS connection, as clients do after the loss of one: nobody tells the service.
    pub(crate) fn reconnect(&mut self, server: &Server) {
        self.reconnect_with(server.requester());
    }

    /// The same over a connection that the test has made.
    pub(crate) fn reconnect_with(&mut self, client: Client) {
        self.client = client;
        self.waiting.clear();
        self.subscribe_inboxes();
    }

    fn subscribe_inboxes(&mut self) {
        let heartbeats = self.heartbeat_inbox();
        for (sid, subject) in [
            ("1", heartbeats.as_str()),
            ("2", &format!("_INBOX.{}.r.*", self.token)),
            ("3", &format!("_INBOX.{}.s.*", self.token)),
            ("4", &format!("_STAN.acks.{}", self.token)),
        ] {
            self.client.send(format!("SUB {subject} {sid}\r\n"));
        }
        self.client.expect_nothing();
    }

    /// Leaves heartbeats without an answer from now on, or answers them again.
    pub(crate) fn answer_heartbeats(&mut self, answers: bool) {
        self.answers_heartbeats = answers;
    }

    /// Heartbeats received so far.
    pub(crate) fn heartbeats(&self) -> u64 {
        self.heartbeats
    }

    /// The client id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The connection id.
    pub(crate) fn conn_id(&self) -> Vec<u8> {
        self.conn_id.clone()
    }

    /// The answer to the registration.
    pub(crate) fn subjects(&self) -> &ConnectResponse {
        &self.subjects
    }

    /// The raw connection.
    pub(crate) fn raw(&mut self) -> &mut Client {
        &mut self.client
    }

    fn heartbeat_inbox(&self) -> String {
        format!("_INBOX.{}.hb", self.token)
    }

    fn acks_subject(&self) -> String {
        format!("_STAN.acks.{}", self.token)
    }

    fn fresh(&mut self, kind: char) -> String {
        self.made += 1;
        format!("_INBOX.{}.{kind}.{}", self.token, self.made)
    }

    // Receiving.

    /// Takes one message from the connection, if one comes within `limit`.
    fn take(&mut self, limit: Duration) {
        let Some(msg) = self.client.next_msg_within(limit) else { return };
        if msg.subject != self.heartbeat_inbox() {
            self.waiting.push_back(msg);
            return;
        }
        self.heartbeats += 1;
        assert!(msg.payload.is_empty(), "a heartbeat is empty");
        if self.answers_heartbeats {
            let reply = msg.reply.expect("a heartbeat asks for an answer");
            self.client.publish(&reply, b"");
        }
    }

    /// Looks after the connection for a moment, heartbeats above all.
    pub(crate) fn serve(&mut self) {
        self.take(GLANCE);
    }

    fn await_on(&mut self, subject: &str, limit: Duration) -> Option<Msg> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.waiting.iter().position(|msg| msg.subject == subject) {
                return self.waiting.remove(at);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.take(left);
        }
    }

    // Requests.

    /// Sends a request and returns the subject of its answer.
    pub(crate) fn ask(&mut self, subject: &str, payload: &[u8]) -> String {
        let reply = self.fresh('r');
        self.client.send(command(subject, Some(&reply), payload));
        reply
    }

    /// The payload of an answer that must come. No responders is a failure.
    pub(crate) fn answer(&mut self, reply: &str) -> Vec<u8> {
        let msg = self.await_on(reply, PATIENCE).expect("the service should answer");
        assert!(msg.headers.is_none(), "nobody is there to answer");
        msg.payload
    }

    /// Sends a request and returns its answer.
    pub(crate) fn request(&mut self, subject: &str, payload: &[u8]) -> Vec<u8> {
        let reply = self.ask(subject, payload);
        self.answer(&reply)
    }

    /// What this client would register with.
    pub(crate) fn connect_request(&self) -> ConnectRequest {
        ConnectRequest {
            client_id: self.id.clone(),
            heartbeat_inbox: self.heartbeat_inbox(),
            protocol: 1,
            conn_id: self.conn_id.clone(),
            ping_interval: 5,
            ping_max_out: 88,
        }
    }

    /// Registers.
    pub(crate) fn register(&mut self) -> ConnectResponse {
        self.register_with(&self.connect_request())
    }

    /// Registers with a request of the test's own.
    pub(crate) fn register_with(&mut self, request: &ConnectRequest) -> ConnectResponse {
        let response = self.request(&self.discover(), &request.encode_to_vec());
        self.note_registration(&response)
    }

    /// Registers while `other`, a client of the same thread, goes on answering its heartbeats.
    pub(crate) fn register_beside(&mut self, other: &mut Stan) -> ConnectResponse {
        let reply = self.ask(&self.discover(), &self.connect_request().encode_to_vec());
        let answer = wait_for("the registration is answered", PATIENCE, || {
            other.serve();
            self.await_on(&reply, GLANCE)
        });
        self.note_registration(&answer.payload)
    }

    fn discover(&self) -> String {
        format!("_STAN.discover.{}", self.cluster)
    }

    fn note_registration(&mut self, payload: &[u8]) -> ConnectResponse {
        let response: ConnectResponse = decoded(payload);
        if response.error.is_empty() {
            self.subjects = response.clone();
        }
        response
    }

    /// Pings with this client's connection id; the error text.
    pub(crate) fn ping(&mut self) -> String {
        self.ping_as(self.conn_id.clone())
    }

    /// Pings with a given connection id; the error text.
    pub(crate) fn ping_as(&mut self, conn_id: Vec<u8>) -> String {
        let payload = Ping { conn_id }.encode_to_vec();
        let subject = self.subjects.ping_requests.clone();
        decoded::<ErrorResponse>(&self.request(&subject, &payload)).error
    }

    /// Ends the registration; the error text.
    pub(crate) fn close(&mut self) -> String {
        let request = CloseRequest { client_id: self.id.clone() }.encode_to_vec();
        let subject = self.subjects.close_requests.clone();
        decoded::<ErrorResponse>(&self.request(&subject, &request)).error
    }

    // Publishing.

    /// A publish of this client, with a guid of its own.
    pub(crate) fn message(&mut self, channel: &str, data: impl AsRef<[u8]>) -> PubMsg {
        self.made += 1;
        PubMsg {
            client_id: self.id.clone(),
            guid: format!("{}-{}", self.token, self.made),
            subject: channel.to_owned(),
            reply: String::new(),
            data: data.as_ref().to_vec(),
            conn_id: self.conn_id.clone(),
        }
    }

    /// The bytes of a publish on the wire.
    pub(crate) fn publish_command(&self, message: &PubMsg) -> Vec<u8> {
        let subject = format!("{}.{}", self.subjects.pub_prefix, message.subject);
        command(&subject, Some(&self.acks_subject()), &message.encode_to_vec())
    }

    /// Publishes on a NATS subject of the test's own, and returns the acknowledgement.
    pub(crate) fn publish_to(&mut self, subject: &str, payload: &[u8]) -> PubAck {
        self.client.send(command(subject, Some(&self.acks_subject()), payload));
        self.next_ack()
    }

    /// Publishes and returns the acknowledgement, whatever it says.
    pub(crate) fn publish_message(&mut self, message: &PubMsg) -> PubAck {
        self.client.send(self.publish_command(message));
        let ack = self.next_ack();
        assert_eq!(ack.guid, message.guid, "the acknowledgement is for this message");
        ack
    }

    /// Publishes; the error text of the acknowledgement.
    pub(crate) fn try_publish(&mut self, channel: &str, data: impl AsRef<[u8]>) -> String {
        let message = self.message(channel, data);
        self.publish_message(&message).error
    }

    /// Publishes what must be accepted.
    pub(crate) fn publish(&mut self, channel: &str, data: impl AsRef<[u8]>) {
        assert_eq!(self.try_publish(channel, data), "", "the publish to {channel} is accepted");
    }

    /// Publishes `m<n>` for each number, one after the other.
    pub(crate) fn publish_numbers(&mut self, channel: &str, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.publish(channel, format!("m{number}"));
        }
    }

    /// Sends a publish without waiting; returns its guid.
    pub(crate) fn publish_later(&mut self, channel: &str, data: impl AsRef<[u8]>) -> String {
        let message = self.message(channel, data);
        self.client.send(self.publish_command(&message));
        message.guid
    }

    /// The next acknowledgement of a publish.
    pub(crate) fn next_ack(&mut self) -> PubAck {
        let subject = self.acks_subject();
        let msg = self.await_on(&subject, PATIENCE).expect("the publish should be acknowledged");
        assert!(msg.headers.is_none(), "nobody takes the publish");
        decoded(&msg.payload)
    }

    /// The acknowledgements that come before the connection ends.
    pub(crate) fn acks_to_end(&mut self) -> Vec<PubAck> {
        let subject = self.acks_subject();
        let rest = self.client.messages_to_end();
        let all = self.waiting.drain(..).chain(rest);
        all.filter(|msg| msg.subject == subject).map(|msg| decoded(&msg.payload)).collect()
    }

    // Subscribing.

    /// A subscription from the first message on, with room for 1024 messages and 30 s until they come again.
    pub(crate) fn wants(&mut self, channel: &str) -> SubscriptionRequest {
        let request = SubscriptionRequest {
            client_id: self.id.clone(),
            subject: channel.to_owned(),
            inbox: self.fresh('s'),
            max_in_flight: 1024,
            ack_wait_in_secs: 30,
            ..SubscriptionRequest::default()
        };
        request.at(Start::First)
    }

    /// Subscribes. Fails when a message of it comes before the answer.
    pub(crate) fn try_subscribe(&mut self, request: &SubscriptionRequest) -> Result<Subscription, String> {
        let reply = self.fresh('r');
        self.client.send(command(&self.subjects.sub_requests, Some(&reply), &request.encode_to_vec()));
        let response: SubscriptionResponse = decoded(&self.answer(&reply));
        let early = self.waiting.iter().any(|msg| msg.subject == request.inbox);
        assert!(!early, "a message has come before the answer to the subscription");
        if !response.error.is_empty() {
            assert_eq!(response.ack_inbox, "", "a refusal names no inbox");
            return Err(response.error);
        }
        assert_ne!(response.ack_inbox, "", "there is an inbox for acknowledgements");
        Ok(Subscription {
            channel: request.subject.clone(),
            inbox: request.inbox.clone(),
            ack_inbox: response.ack_inbox,
        })
    }

    /// Subscribes with a request that must be accepted.
    pub(crate) fn subscribe(&mut self, request: &SubscriptionRequest) -> Subscription {
        self.try_subscribe(request).unwrap_or_else(|error| panic!("{request:?} is refused: {error}"))
    }

    /// Acknowledges a message.
    pub(crate) fn ack(&mut self, subscription: &Subscription, sequence: u64) {
        let ack = Ack { subject: subscription.channel.clone(), sequence };
        self.client.send(command(&subscription.ack_inbox, None, &ack.encode_to_vec()));
    }

    /// Ends a subscription for good; the error text.
    pub(crate) fn unsubscribe(&mut self, subscription: &Subscription) -> String {
        let subject = self.subjects.unsub_requests.clone();
        self.end(&subject, &subscription.channel, &subscription.ack_inbox)
    }

    /// Closes a subscription, which keeps a durable one; the error text.
    pub(crate) fn close_subscription(&mut self, subscription: &Subscription) -> String {
        let subject = self.subjects.sub_close_requests.clone();
        self.end(&subject, &subscription.channel, &subscription.ack_inbox)
    }

    /// Asks on `subject` to end the subscription with this inbox; the error text.
    pub(crate) fn end(&mut self, subject: &str, channel: &str, inbox: &str) -> String {
        let request = UnsubscribeRequest {
            client_id: self.id.clone(),
            subject: channel.to_owned(),
            inbox: inbox.to_owned(),
            durable_name: String::new(),
        };
        let answer = self.request(subject, &request.encode_to_vec());
        decoded::<SubscriptionResponse>(&answer).error
    }

    /// The next message of a subscription.
    pub(crate) fn next(&mut self, subscription: &Subscription) -> MsgProto {
        let message = self.next_within(subscription, PATIENCE);
        message.unwrap_or_else(|| panic!("no message comes on {}", subscription.channel))
    }

    /// The next message of a subscription, if one comes within `limit`.
    pub(crate) fn next_within(&mut self, subscription: &Subscription, limit: Duration) -> Option<MsgProto> {
        let msg = self.await_on(&subscription.inbox, limit)?;
        assert_eq!(msg.reply, None, "a delivery has no reply subject");
        let message: MsgProto = decoded(&msg.payload);
        assert_eq!(message.subject, subscription.channel);
        assert_eq!(message.redelivered, message.redelivery_count > 0, "the flag goes with the count");
        Some(message)
    }

    /// The next messages of a subscription.
    pub(crate) fn take_messages(&mut self, subscription: &Subscription, count: usize) -> Vec<MsgProto> {
        (0..count).map(|_| self.next(subscription)).collect()
    }

    /// What has come for a subscription when the service has answered a request about its channel.
    pub(crate) fn arrived(&mut self, subscription: &Subscription) -> Vec<MsgProto> {
        let subject = self.subjects.sub_close_requests.clone();
        self.end(&subject, &subscription.channel, "nobody");
        std::iter::from_fn(|| self.next_within(subscription, Duration::ZERO)).collect()
    }

    /// Fails if anything has come for a subscription. See [`Stan::arrived`].
    pub(crate) fn expect_nothing(&mut self, subscription: &Subscription) {
        let arrived = self.arrived(subscription);
        assert!(arrived.is_empty(), "unexpected on {}: {:?}", subscription.channel, sequences(&arrived));
    }
}

/// The bytes of a NATS publish.
pub(crate) fn command(subject: &str, reply: Option<&str>, payload: &[u8]) -> Vec<u8> {
    let reply = reply.map(|reply| format!("{reply} ")).unwrap_or_default();
    let mut bytes = format!("PUB {subject} {reply}{}\r\n", payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn decoded<M: Message + Default>(payload: &[u8]) -> M {
    M::decode(payload).unwrap_or_else(|error| panic!("the answer is not what it should be: {error}"))
}
