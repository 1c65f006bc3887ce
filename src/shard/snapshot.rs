//! Copies out what monitoring asks for.

use std::time::Duration;

use super::Shard;
use super::conn::{Conn, Sub};
use super::io::Io;
use crate::monitor::{ConnSnapshot, ShardSnapshot, SubSnapshot, Want};

impl Shard {
    /// Answers a monitoring request with plain values.
    #[must_use]
    pub fn snapshot<I: Io>(&mut self, io: &mut I, want: &Want) -> ShardSnapshot {
        let wanted = |cid: u64| want.cid.is_none_or(|only| only == cid);
        let mut connections = Vec::new();
        if want.open {
            let open = self.local.conns.iter().filter(|(_, conn)| wanted(conn.cid) && conn.closing.is_none());
            connections.extend(open.map(|(slot, _)| self.conn_snapshot(slot as u32, want)));
        }
        if want.closed {
            connections.extend(self.closed.iter().filter(|record| wanted(record.cid)).cloned());
        }
        let service = self.service_snapshot(io, &want.service);
        ShardSnapshot { shard: self.id(), cpu: self.cpu, counters: self.local.counters, connections, service }
    }

    pub(super) fn conn_snapshot(&self, slot: u32, want: &Want) -> ConnSnapshot {
        let conn: &Conn = &self.local.conns[slot as usize];
        // From the one moment that is known on both clocks; the shard's `now` is old when it has slept.
        let until_last_activity = Duration::from_nanos(conn.last_activity.saturating_sub(conn.accepted));
        let identity = conn.identity.as_deref().cloned().unwrap_or_default();
        let subscriptions = if want.subscriptions {
            conn.subs.iter().map(|sub| sub_snapshot(&self.local.subs[*sub as usize])).collect()
        } else {
            Vec::new()
        };
        ConnSnapshot {
            cid: conn.cid,
            shard: self.id(),
            peer: conn.peer,
            start: conn.start,
            last_activity: conn.start + until_last_activity,
            stop: None,
            reason: None,
            rtt_ns: conn.pings.rtt,
            pending_bytes: conn.out.pending() as u64,
            in_msgs: conn.traffic.in_msgs,
            out_msgs: conn.traffic.out_msgs,
            in_bytes: conn.traffic.in_bytes,
            out_bytes: conn.traffic.out_bytes,
            stalls: conn.traffic.stalls,
            subscription_count: conn.subs.len() as u64,
            name: identity.name,
            lang: identity.lang,
            version: identity.version,
            authorized_user: identity.user,
            account: self.accounts[conn.account as usize].name.to_string(),
            name_tag: self.config.directory.accounts()[conn.account as usize].name_tag.clone(),
            token_user: conn.basis.token_user().cloned(),
            websocket: conn.websocket.is_some(),
            tls: conn.tls.clone(),
            subscriptions,
        }
    }
}

fn sub_snapshot(sub: &Sub) -> SubSnapshot {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    SubSnapshot {
        subject: text(&sub.subject),
        queue: sub.queue.as_deref().map(text),
        sid: text(&sub.sid),
        msgs: sub.delivered,
        max: (sub.max != u64::MAX).then_some(sub.max),
    }
}
