//! A server without a broker, for the tests of monitoring.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{ConnSnapshot, Counters, Facts, Readiness, ShardSnapshot, Source, SubSnapshot, Want};
use crate::config::Options;

pub(super) struct FakeSource {
    pub(super) facts: Facts,
    pub(super) shards: Vec<ShardSnapshot>,
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
