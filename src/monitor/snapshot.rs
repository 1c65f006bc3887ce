//! Plain values that shards hand to the control thread when monitoring asks.
//!
//! A shard never formats JSON and never waits: it copies these values out between two turns.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::auth::TokenUser;
use crate::tls::TlsFacts;

/// What a monitoring request needs from every shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Include live connections.
    pub open: bool,
    /// Include the records of closed connections.
    pub closed: bool,
    /// Include each connection's subscriptions (`subs=1|detail`).
    pub subscriptions: bool,
    /// Only the connection with this id.
    pub cid: Option<u64>,
    /// What to tell of the services inside the shard.
    pub service: ServiceWant,
}

/// What a monitoring request needs of the services inside a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceWant {
    /// NATS Streaming: clients, channels and subscriptions.
    pub streaming: bool,
}

/// Counters of one shard since start. Sums over shards give `/varz`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages received from clients.
    pub in_msgs: u64,
    /// Payload bytes (headers included) received from clients.
    pub in_bytes: u64,
    /// Messages written towards clients.
    pub out_msgs: u64,
    /// Payload bytes (headers included) written towards clients.
    pub out_bytes: u64,
    /// Clients cut off because they did not read fast enough.
    pub slow_consumers: u64,
    /// Clients cut off because they did not answer pings.
    pub stale_connections: u64,
    /// How often a publisher was slowed down by a stall gate.
    pub stalled_clients: u64,
    /// Live client connections.
    pub connections: u64,
    /// Live subscriptions.
    pub subscriptions: u64,
}

/// One shard's answer.
#[derive(Clone, Debug, Default)]
pub struct ShardSnapshot {
    /// Index of the shard, from 0.
    pub shard: u16,
    /// The processor the shard is pinned to.
    pub cpu: usize,
    /// Counters since start.
    pub counters: Counters,
    /// Connections, if wanted, in no order.
    pub connections: Vec<ConnSnapshot>,
    /// The services inside it; `None` if it has none.
    pub service: Option<ServiceSnapshot>,
}

/// The services inside a shard.
#[derive(Clone, Debug, Default)]
pub struct ServiceSnapshot {
    /// What is wrong with the shard's logs at the moment, for people. While there is anything, health is red.
    pub faults: Vec<String>,
    /// NATS Streaming, if wanted.
    pub streaming: Option<StreamingSnapshot>,
}

/// One shard's part of the NATS Streaming service.
#[derive(Clone, Debug, Default)]
pub struct StreamingSnapshot {
    /// Messages received from publishers since start.
    pub in_msgs: u64,
    /// Bytes of the requests with them.
    pub in_bytes: u64,
    /// Messages sent to subscribers since start.
    pub out_msgs: u64,
    /// Bytes of the deliveries with them.
    pub out_bytes: u64,
    /// All clients of the service; told by one of the shards only, in no order.
    pub clients: Vec<StreamingClient>,
    /// The channels that this shard is home to, in no order.
    pub channels: Vec<ChannelSnapshot>,
}

/// A client of the NATS Streaming service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamingClient {
    /// Client id.
    pub id: String,
    /// Its heartbeat inbox.
    pub hb_inbox: String,
}

/// A channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelSnapshot {
    /// Its name.
    pub name: String,
    /// Messages that it keeps.
    pub msgs: u64,
    /// Their bytes, as its limits count them.
    pub bytes: u64,
    /// Sequence number of the first message; `last_seq + 1` where there is none.
    pub first_seq: u64,
    /// Sequence number of the last message that was stored.
    pub last_seq: u64,
    /// Its subscriptions, members of queue groups, offline durables and offline groups.
    pub subscriptions: Vec<SubscriptionSnapshot>,
}

/// A subscription to a channel, as `/streaming/channelsz?subs=1` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionSnapshot {
    /// Client id.
    pub client_id: String,
    /// Where messages go.
    pub inbox: String,
    /// Where acknowledgements go.
    pub ack_inbox: String,
    /// Name of the durable subscription; empty for others and for durable groups.
    pub durable_name: String,
    /// Name of the group; `durable:group` for durable ones; empty for plain subscriptions.
    pub queue_name: String,
    /// It outlives its client.
    pub is_durable: bool,
    /// Nobody is there for it.
    pub is_offline: bool,
    /// Most unacknowledged messages.
    pub max_inflight: u32,
    /// How long an acknowledgement may take, seconds.
    pub ack_wait: u32,
    /// The last message sent to it or its group.
    pub last_sent: u64,
    /// Unacknowledged messages.
    pub pending_count: u64,
    /// It has as many unacknowledged messages as it may have.
    pub is_stalled: bool,
}

/// One connection, live or closed.
#[derive(Clone, Debug)]
pub struct ConnSnapshot {
    /// Connection id (`client_id` of INFO).
    pub cid: u64,
    /// The shard that owns (owned) it.
    pub shard: u16,
    /// Peer address.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub start: SystemTime,
    /// Last traffic in either direction.
    pub last_activity: SystemTime,
    /// When it was closed; `None` while live.
    pub stop: Option<SystemTime>,
    /// Close reason as in `/connz`; `None` while live.
    pub reason: Option<&'static str>,
    /// Last measured round trip, nanoseconds; 0 if never measured.
    pub rtt_ns: u64,
    /// Bytes queued towards the client.
    pub pending_bytes: u64,
    /// Messages received from the client.
    pub in_msgs: u64,
    /// Messages written to the client.
    pub out_msgs: u64,
    /// Payload bytes received from the client.
    pub in_bytes: u64,
    /// Payload bytes written to the client.
    pub out_bytes: u64,
    /// How often this client was slowed down by a stall gate.
    pub stalls: u64,
    /// Number of subscriptions.
    pub subscription_count: u64,
    /// `name` of CONNECT.
    pub name: String,
    /// `lang` of CONNECT.
    pub lang: String,
    /// `version` of CONNECT.
    pub version: String,
    /// User name it logged in with, if any.
    pub authorized_user: Option<String>,
    /// Account name.
    pub account: String,
    /// The account's name for people.
    pub name_tag: Arc<str>,
    /// Whom a token has proved it to be.
    pub token_user: Option<Arc<TokenUser>>,
    /// It came to the WebSocket listener.
    pub websocket: bool,
    /// What its TLS handshake found out; `None` in clear.
    pub tls: Option<Arc<TlsFacts>>,
    /// Subscriptions, if wanted.
    pub subscriptions: Vec<SubSnapshot>,
}

/// One subscription.
#[derive(Clone, Debug)]
pub struct SubSnapshot {
    /// Subject as subscribed.
    pub subject: String,
    /// Queue group, if any.
    pub queue: Option<String>,
    /// Subscription id chosen by the client.
    pub sid: String,
    /// Messages delivered so far.
    pub msgs: u64,
    /// Auto-unsubscribe limit, if any.
    pub max: Option<u64>,
}
