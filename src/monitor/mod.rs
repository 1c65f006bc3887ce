//! HTTP monitoring: `/`, `/varz`, `/connz`, `/healthz`, and `/streaming` with its pages, as the references answer them.
//!
//! Owns the monitoring listener, in clear or with TLS, and the thread that serves it. It never touches a shard's state:
//! all numbers come through [`Source`] as plain values. The thread runs on its own and slow or hostile HTTP clients can
//! harm only it: connections, their silence and waiting questions to the shards are bounded (see the listener module).

mod connz;
#[cfg(test)]
mod fake;
mod go_json;
mod healthz;
mod http;
mod index;
mod listener;
mod params;
pub mod ports;
mod process;
mod query;
mod snapshot;
mod streaming;
pub(crate) mod text;
mod transport;
mod varz;

pub use http::{MonitorServer, serve};
pub use snapshot::{
    ChannelSnapshot, ConnSnapshot, Counters, ServiceSnapshot, ServiceWant, ShardSnapshot, StreamingClient,
    StreamingSnapshot, SubSnapshot, SubscriptionSnapshot, Want,
};

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Options;

/// Where the numbers come from: the broker, or a test.
pub trait Source: Send + Sync + 'static {
    /// What is known without asking a shard. Does not block.
    fn facts(&self) -> Facts;

    /// Asks every shard. May block for up to two seconds; a shard that does not answer is missing from the result.
    fn shards(&self, want: Want) -> Vec<ShardSnapshot>;

    /// What is wrong with storage at the moment, for people. May block for half a second; what a shard does not say in
    /// that time is not known.
    fn faults(&self) -> Vec<String>;
}

/// What is true of the whole server.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Public id of this server.
    pub server_id: String,
    /// Configured name or the id.
    pub server_name: String,
    /// Address stated to clients: `client_advertise` or the one listened on.
    pub host: String,
    /// Port stated to clients.
    pub port: u16,
    /// Where clients connect beside `host` and `port`, as `host:port`.
    pub more_addresses: Vec<String>,
    /// Port of the monitoring listener, which has TLS if the options name a port with TLS.
    pub monitoring_port: u16,
    /// Port of the WebSocket listener; `None` without one.
    pub websocket_port: Option<u16>,
    /// The options in force.
    pub options: Arc<Options>,
    /// When the server was started.
    pub start: SystemTime,
    /// When the options were last read.
    pub config_load_time: SystemTime,
    /// Digest of the configuration file; empty without one.
    pub config_digest: String,
    /// Client connections accepted since start.
    pub total_connections: u64,
    /// When the first of the certificates for clients expires; `None` without TLS.
    pub certificate_not_after: Option<SystemTime>,
    /// Whether clients can connect.
    pub readiness: Readiness,
    /// Whether anything is stored, so that [`Source::faults`] may know something.
    pub stores: bool,
}

/// Whether clients can connect now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// All listeners accept.
    Accepting,
    /// Not yet listening, or the listeners are closed.
    NotListening,
    /// Lame duck mode: clients are being sent away.
    LameDuck,
}
