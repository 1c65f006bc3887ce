//! A server without a broker, for the tests of monitoring.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{ConnSnapshot, Counters, Facts, MonitorServer, Readiness, ShardSnapshot, Source, SubSnapshot, Want, serve};
use crate::config::Options;

/// A server over a real socket.
pub(super) struct FakeServer {
    pub(super) addr: SocketAddr,
    pub(super) server: MonitorServer,
}

/// What it answers.
pub(super) struct Answer {
    pub(super) status: u16,
    /// In lower case.
    pub(super) head: String,
    pub(super) body: String,
}

impl FakeServer {
    pub(super) fn start(facts: Facts, shards: Vec<ShardSnapshot>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        Self { addr, server: serve(listener, None, Arc::new(FakeSource { facts, shards })).unwrap() }
    }

    pub(super) fn request(&self, method: &str, path: &str) -> Answer {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.request("GET", path)
    }

    pub(super) fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).body).unwrap()
    }
}

struct FakeSource {
    facts: Facts,
    shards: Vec<ShardSnapshot>,
}

impl Source for FakeSource {
    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    fn shards(&self, want: Want) -> Vec<ShardSnapshot> {
        let mut shards = self.shards.clone();
        for shard in &mut shards {
            shard.connections.retain(|conn| {
                want.cid.is_none_or(|cid| conn.cid == cid) && if conn.stop.is_some() { want.closed } else { want.open }
            });
            if !want.service.streaming
                && let Some(service) = &mut shard.service
            {
                service.streaming = None;
            }
            if !want.subscriptions {
                shard.connections.iter_mut().for_each(|conn| conn.subscriptions.clear());
            }
        }
        shards
    }

    fn faults(&self) -> Vec<String> {
        let services = self.shards.iter().filter_map(|shard| shard.service.as_ref());
        services.flat_map(|service| service.faults.clone()).collect()
    }
}

pub(super) fn facts() -> Facts {
    Facts {
        server_id: "NAAA".into(),
        server_name: "NAAA".into(),
        host: "127.0.0.1".into(),
        port: 4222,
        more_addresses: Vec::new(),
        monitoring_port: 8222,
        websocket_port: None,
        options: Arc::new(Options::default()),
        start: SystemTime::now(),
        config_load_time: SystemTime::now(),
        config_digest: String::new(),
        total_connections: 3,
        certificate_not_after: None,
        readiness: Readiness::Accepting,
        stores: false,
    }
}

pub(super) fn shard(shard: u16, open: u64, connections: Vec<ConnSnapshot>) -> ShardSnapshot {
    let counters = Counters { connections: open, in_msgs: 1, in_bytes: 2, out_msgs: 3, ..Counters::default() };
    ShardSnapshot { shard, cpu: usize::from(shard), counters, connections, service: None }
}

pub(super) fn conn(cid: u64) -> ConnSnapshot {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(900);
    ConnSnapshot {
        cid,
        shard: 0,
        peer: SocketAddr::from(([127, 0, 0, 1], 39984)),
        start,
        last_activity: start,
        stop: None,
        reason: None,
        rtt_ns: 0,
        pending_bytes: 0,
        in_msgs: 0,
        out_msgs: 0,
        in_bytes: 0,
        out_bytes: 0,
        stalls: 0,
        subscription_count: 0,
        name: String::new(),
        lang: String::new(),
        version: String::new(),
        authorized_user: None,
        account: "$G".into(),
        name_tag: "$G".into(),
        token_user: None,
        websocket: false,
        tls: None,
        subscriptions: Vec::new(),
    }
}

pub(super) fn sub(sid: &str, subject: &str, queue: Option<&str>) -> SubSnapshot {
    SubSnapshot { subject: subject.into(), queue: queue.map(Into::into), sid: sid.into(), msgs: 0, max: None }
}
