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
