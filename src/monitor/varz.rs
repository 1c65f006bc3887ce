//! `/varz`: the server as a whole.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::thread::available_parallelism;
use std::time::SystemTime;

use serde::Serialize;

use super::text::{elapsed, timestamp};
use super::{Counters, Facts, ShardSnapshot};
use crate::config::tls::TlsOptions;
use crate::version::{COMPATIBLE_WITH, VERSION};

/// What `/varz` needs to know about this process and its HTTP requests.
pub(super) struct Surroundings {
    pub(super) now: SystemTime,
    pub(super) memory: u64,
    pub(super) processor_percent: f64,
    pub(super) requests: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
pub(super) struct Varz<'a> {
    server_id: &'a str,
    server_name: &'a str,
    version: &'static str,
    proto: u8,
    go: &'static str,
    host: &'a str,
    port: u16,
    #[serde(skip_serializing_if = "is_false")]
    auth_required: bool,
    #[serde(skip_serializing_if = "is_false")]
    tls_required: bool,
    #[serde(skip_serializing_if = "is_false")]
    tls_verify: bool,
    max_connections: usize,
    #[serde(skip_serializing_if = "is_zero")]
    max_subscriptions: usize,
    ping_interval: u128,
    ping_max: u32,
    http_host: &'a str,
    http_port: u16,
    http_base_path: &'a str,
    https_port: u16,
    auth_timeout: f64,
    max_control_line: usize,
    max_payload: usize,
    max_pending: usize,
    cluster: Empty,
    gateway: Empty,
    leaf: Empty,
    mqtt: Empty,
    websocket: WebSocket<'a>,
    jetstream: Empty,
    tls_timeout: f64,
    write_deadline: u128,
    start: String,
    now: String,
    uptime: String,
    mem: u64,
    cores: usize,
    gomaxprocs: usize,
    cpu: f64,
    connections: u64,
    total_connections: u64,
    routes: u64,
    remotes: u64,
    leafnodes: u64,
    in_msgs: u64,
    in_bytes: u64,
    in_client_msgs: u64,
    in_client_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    out_client_msgs: u64,
    out_client_bytes: u64,
    slow_consumers: u64,
    stale_connections: u64,
    stalled_clients: u64,
    subscriptions: u64,
    http_req_stats: BTreeMap<&'static str, u64>,
    config_load_time: String,
    config_digest: &'a str,
    slow_consumer_stats: PerKind,
    stale_connection_stats: PerKind,
    disk_io_wait_stats: DiskWaits,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert_not_after: Option<String>,
    leat: Leat<'a>,
}

/// An object without members.
#[derive(Serialize)]
struct Empty {}

/// The WebSocket listener; an object without members if there is none.
#[derive(Default, Serialize)]
struct WebSocket<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_auth_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt_cookie: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_timeout: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_timeout: Option<f64>,
    #[serde(skip_serializing_if = "is_false")]
    no_tls: bool,
    #[serde(skip_serializing_if = "is_false")]
    tls_map: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tls_pinned_certs: &'a [String],
    #[serde(skip_serializing_if = "is_false")]
    same_origin: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    allowed_origins: &'a [String],
    #[serde(skip_serializing_if = "is_false")]
    compression: bool,
}

fn websocket(facts: &Facts) -> WebSocket<'_> {
    let Some((options, port)) = facts.options.websocket.as_ref().zip(facts.websocket_port) else {
        return WebSocket::default();
    };
    WebSocket {
        host: Some(options.host()),
        port: Some(port),
        advertise: options.advertise.as_deref(),
        no_auth_user: options.no_auth_user.as_deref(),
        jwt_cookie: options.jwt_cookie.as_deref(),
        handshake_timeout: options.handshake_timeout.map(|time| time.as_nanos()),
        auth_timeout: options.authorization.timeout.map(|time| time.as_secs_f64()),
        no_tls: options.no_tls,
        tls_map: options.tls.as_ref().is_some_and(|tls| tls.verify_and_map),
        tls_pinned_certs: options.tls.as_ref().map_or(&[], |tls| &tls.pinned_certs),
        same_origin: options.same_origin,
        allowed_origins: &options.allowed_origins,
        compression: options.compression,
    }
}

/// A count per kind of connection. There are clients only.
#[derive(Serialize)]
struct PerKind {
    clients: u64,
    routes: u64,
    gateways: u64,
    leafs: u64,
}

/// How often something waited for a slot to reach the disk. Nothing is stored, so nothing waits.
#[derive(Serialize)]
struct DiskWaits {
    waiters: u64,
    waits: u64,
    wait_time: u64,
    max_wait_time: u64,
}

/// What the reference has no place for.
#[derive(Serialize)]
struct Leat<'a> {
    version: &'static str,
    /// Addresses that clients connect to beside `host` and `port`.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    also_listen: &'a [String],
    shards: Vec<Shard>,
}

#[derive(Serialize)]
struct Shard {
    shard: u16,
    cpu: usize,
    connections: u64,
    subscriptions: u64,
    in_msgs: u64,
    in_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    slow_consumers: u64,
    stale_connections: u64,
    stalled_clients: u64,
}

/// Puts the answer together.
pub(super) fn varz<'a>(facts: &'a Facts, shards: &[ShardSnapshot], around: Surroundings) -> Varz<'a> {
    let options = &*facts.options;
    let tls = options.tls.as_ref();
    let has_tls = options.https_port.is_some();
    let sum = total(shards);
    Varz {
        server_id: &facts.server_id,
        server_name: &facts.server_name,
        version: COMPATIBLE_WITH,
        proto: 1,
        go: "rust",
        host: &facts.host,
        port: facts.port,
        auth_required: options.auth_required(),
        tls_required: options.requires_tls(),
        tls_verify: tls.is_some_and(|tls| tls.verify),
        max_connections: options.max_connections,
        max_subscriptions: options.max_subscriptions,
        ping_interval: options.ping_interval.as_nanos(),
        ping_max: options.ping_max,
        http_host: options.http_host(),
        http_port: if has_tls { 0 } else { facts.monitoring_port },
        http_base_path: options.http_base_path.as_deref().unwrap_or_default(),
        https_port: if has_tls { facts.monitoring_port } else { 0 },
        auth_timeout: options.auth_timeout().as_secs_f64(),
        max_control_line: options.max_control_line,
        max_payload: options.max_payload,
        max_pending: options.max_pending,
        cluster: Empty {},
        gateway: Empty {},
        leaf: Empty {},
        mqtt: Empty {},
        websocket: websocket(facts),
        jetstream: Empty {},
        // Stated without TLS too, as the reference does.
        tls_timeout: tls.map_or_else(|| TlsOptions::default().timeout(), TlsOptions::timeout).as_secs_f64(),
        write_deadline: options.write_deadline.as_nanos(),
        start: timestamp(facts.start),
        now: timestamp(around.now),
        uptime: elapsed(around.now, facts.start),
        mem: around.memory,
        cores: available_parallelism().map_or(1, usize::from),
        gomaxprocs: options.cores.len(),
        cpu: around.processor_percent,
        connections: sum.connections,
        total_connections: facts.total_connections,
        routes: 0,
        remotes: 0,
        leafnodes: 0,
        in_msgs: sum.in_msgs,
        in_bytes: sum.in_bytes,
        in_client_msgs: sum.in_msgs,
        in_client_bytes: sum.in_bytes,
        out_msgs: sum.out_msgs,
        out_bytes: sum.out_bytes,
        out_client_msgs: sum.out_msgs,
        out_client_bytes: sum.out_bytes,
        slow_consumers: sum.slow_consumers,
        stale_connections: sum.stale_connections,
        stalled_clients: sum.stalled_clients,
        subscriptions: sum.subscriptions,
        http_req_stats: around.requests,
        config_load_time: timestamp(facts.config_load_time),
        config_digest: &facts.config_digest,
        slow_consumer_stats: PerKind::clients(sum.slow_consumers),
        stale_connection_stats: PerKind::clients(sum.stale_connections),
        disk_io_wait_stats: DiskWaits { waiters: 0, waits: 0, wait_time: 0, max_wait_time: 0 },
        tls_cert_not_after: facts.certificate_not_after.map(timestamp),
        leat: Leat {
            version: VERSION,
            also_listen: &facts.more_addresses,
            shards: shards.iter().map(Shard::from).collect(),
        },
    }
}

impl PerKind {
    fn clients(clients: u64) -> Self {
        Self { clients, routes: 0, gateways: 0, leafs: 0 }
    }
}

impl From<&ShardSnapshot> for Shard {
    fn from(snapshot: &ShardSnapshot) -> Self {
        let counters = snapshot.counters;
        Self {
            shard: snapshot.shard,
            cpu: snapshot.cpu,
            connections: counters.connections,
            subscriptions: counters.subscriptions,
            in_msgs: counters.in_msgs,
            in_bytes: counters.in_bytes,
            out_msgs: counters.out_msgs,
            out_bytes: counters.out_bytes,
            slow_consumers: counters.slow_consumers,
            stale_connections: counters.stale_connections,
            stalled_clients: counters.stalled_clients,
        }
    }
}

/// Each counter over all shards.
fn total(shards: &[ShardSnapshot]) -> Counters {
    let mut sum = Counters::default();
    for ShardSnapshot { counters, .. } in shards {
        sum.in_msgs += counters.in_msgs;
        sum.in_bytes += counters.in_bytes;
        sum.out_msgs += counters.out_msgs;
        sum.out_bytes += counters.out_bytes;
        sum.slow_consumers += counters.slow_consumers;
        sum.stale_connections += counters.stale_connections;
        sum.stalled_clients += counters.stalled_clients;
        sum.connections += counters.connections;
        sum.subscriptions += counters.subscriptions;
    }
    sum
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
