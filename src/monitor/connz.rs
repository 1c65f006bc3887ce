//! `/connz`: selects, orders and describes connections.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::params::{ConnzParams, SortBy, State, Subs};
use super::text::{between, elapsed, timestamp};
use super::{ConnSnapshot, Facts, ShardSnapshot, SubSnapshot};
use crate::config::duration;
use crate::tls;

/// The account of clients that no configuration puts elsewhere. It is not named in answers.
const GLOBAL_ACCOUNT: &str = "$G";

#[derive(Serialize)]
pub(super) struct Connz<'a> {
    server_id: &'a str,
    now: String,
    num_connections: usize,
    total: usize,
    offset: usize,
    limit: usize,
    connections: Vec<Connection<'a>>,
}

#[derive(Serialize)]
struct Connection<'a> {
    cid: u64,
    kind: &'static str,
    #[serde(rename = "type")]
    protocol: &'static str,
    ip: String,
    port: u16,
    start: String,
    last_activity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    rtt: String,
    uptime: String,
    idle: String,
    pending_bytes: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    stalls: u64,
    subscriptions: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    lang: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cipher_suite: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tls_peer_certs: Vec<PeerCertificate<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_first: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorized_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list_detail: Vec<Subscription<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_tag: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [String],
    shard: u16,
}

#[derive(Serialize)]
struct PeerCertificate<'a> {
    subject: &'a str,
    spki_sha256: &'a str,
    cert_sha256: &'a str,
}

#[derive(Serialize)]
struct Subscription<'a> {
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    qgroup: Option<&'a str>,
    sid: &'a str,
    msgs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    cid: u64,
}

/// Answers a request from what the shards delivered for [`ConnzParams::want`].
pub(super) fn connz<'a>(
    facts: &'a Facts,
    shards: &'a [ShardSnapshot],
    params: &ConnzParams,
    now: SystemTime,
) -> Connz<'a> {
    let in_state = || {
        shards.iter().flat_map(|shard| &shard.connections).filter(|conn| match params.state {
            State::Open => conn.stop.is_none(),
            State::Closed => conn.stop.is_some(),
            State::Any => true,
        })
    };
    let in_account = |conn: &&ConnSnapshot| params.account.as_ref().is_none_or(|account| conn.account == *account);
    let mut page: Vec<&ConnSnapshot> = in_state().filter(in_account).filter(|conn| selected(conn, params)).collect();
    let total = match params.cid {
        // Shards have delivered the one connection only; the counters know how many are open.
        Some(_) if params.account.is_none() && params.state != State::Closed => {
            let open: u64 = shards.iter().map(|shard| shard.counters.connections).sum();
            open as usize + page.iter().filter(|conn| conn.stop.is_some()).count()
        }
        _ => in_state().filter(in_account).count(),
    };
    order(&mut page, params.sort, now);
    let connections: Vec<Connection<'_>> =
        page.into_iter().skip(params.offset).take(params.limit).map(|conn| describe(conn, params, now)).collect();
    Connz {
        server_id: &facts.server_id,
        now: timestamp(now),
        num_connections: connections.len(),
        total,
        offset: params.offset,
        limit: params.limit,
        connections,
    }
}

/// Whether a connection passes the filters that do not count for `total`.
fn selected(conn: &ConnSnapshot, params: &ConnzParams) -> bool {
    let by_user = || params.user.is_none() || params.user == conn.authorized_user;
    let by_subject = |filter: &String| conn.subscriptions.iter().any(|sub| subjects_collide(filter, &sub.subject));
    params.cid.is_none_or(|cid| conn.cid == cid)
        && by_user()
        && params.filter_subject.as_ref().is_none_or(by_subject)
        // No connection is an MQTT client.
        && params.mqtt_client.is_none()
}

/// The reference's directions: busiest, latest or longest idle first, but shortest uptime first. Equals by id.
fn order(page: &mut [&ConnSnapshot], sort: SortBy, now: SystemTime) {
    let lifetime = |conn: &ConnSnapshot| between(conn.stop.unwrap_or(now), conn.start);
    page.sort_by_key(|conn| conn.cid);
    match sort {
        SortBy::Cid => {}
        SortBy::Subscriptions => page.sort_by_key(|conn| Reverse(conn.subscription_count)),
        SortBy::Pending => page.sort_by_key(|conn| Reverse(conn.pending_bytes)),
        SortBy::MsgsTo => page.sort_by_key(|conn| Reverse(conn.out_msgs)),
        SortBy::MsgsFrom => page.sort_by_key(|conn| Reverse(conn.in_msgs)),
        SortBy::BytesTo => page.sort_by_key(|conn| Reverse(conn.out_bytes)),
        SortBy::BytesFrom => page.sort_by_key(|conn| Reverse(conn.in_bytes)),
        SortBy::Last => page.sort_by_key(|conn| Reverse(conn.last_activity)),
        SortBy::Idle => page.sort_by_key(|conn| conn.last_activity),
        SortBy::Uptime => page.sort_by_key(|conn| lifetime(conn)),
        SortBy::Stop => page.sort_by_key(|conn| Reverse(conn.stop)),
        SortBy::Reason => page.sort_by_key(|conn| conn.reason),
        SortBy::Rtt => page.sort_by_key(|conn| Reverse(conn.rtt_ns)),
    }
}

fn describe<'a>(conn: &'a ConnSnapshot, params: &ConnzParams, now: SystemTime) -> Connection<'a> {
    let until = conn.stop.unwrap_or(now);
    let is_global = conn.account == GLOBAL_ACCOUNT;
    let (subjects, details) = match params.subs {
        Subs::None => (Vec::new(), Vec::new()),
        Subs::Subjects => (conn.subscriptions.iter().map(|sub| sub.subject.as_str()).collect(), Vec::new()),
        Subs::Detail => (Vec::new(), conn.subscriptions.iter().map(|sub| describe_sub(sub, conn.cid)).collect()),
    };
    let token_user = conn.token_user.as_deref().filter(|_| params.auth);
    let tls = conn.tls.as_deref();
    let peer_certificates = tls.filter(|_| params.auth).map_or(&[][..], |tls| &tls.peer_certificates);
    Connection {
        cid: conn.cid,
        kind: "Client",
        protocol: if conn.websocket { "websocket" } else { "nats" },
        ip: conn.peer.ip().to_canonical().to_string(),
        port: conn.peer.port(),
        start: timestamp(conn.start),
        last_activity: timestamp(conn.last_activity),
        stop: conn.stop.map(timestamp),
        reason: conn.reason,
        rtt: rtt(conn.rtt_ns),
        uptime: elapsed(until, conn.start),
        idle: elapsed(until, conn.last_activity),
        pending_bytes: conn.pending_bytes,
        in_msgs: conn.in_msgs,
        out_msgs: conn.out_msgs,
        in_bytes: conn.in_bytes,
        out_bytes: conn.out_bytes,
        stalls: conn.stalls,
        subscriptions: conn.subscription_count,
        name: &conn.name,
        lang: &conn.lang,
        version: &conn.version,
        tls_version: tls.map(|tls| tls.version),
        tls_cipher_suite: tls.map(|tls| tls.cipher_suite.as_str()),
        tls_peer_certs: peer_certificates.iter().map(describe_certificate).collect(),
        tls_first: tls.is_some_and(|tls| tls.first),
        authorized_user: conn.authorized_user.as_deref().filter(|user| params.auth && !user.is_empty()),
        account: Some(conn.account.as_str()).filter(|_| params.auth && !is_global),
        subscriptions_list: subjects,
        subscriptions_list_detail: details,
        jwt: token_user.map(|user| user.jwt.as_str()).filter(|jwt| !jwt.is_empty()),
        issuer_key: token_user.map(|user| user.issuer.as_str()),
        tags: token_user.map_or(&[], |user| &user.tags),
        name_tag: Some(&*conn.name_tag).filter(|_| params.auth && (!is_global || conn.stop.is_none())),
        shard: conn.shard,
    }
}

fn describe_certificate(certificate: &tls::PeerCertificate) -> PeerCertificate<'_> {
    PeerCertificate {
        subject: &certificate.subject,
        spki_sha256: &certificate.spki_sha256,
        cert_sha256: &certificate.cert_sha256,
    }
}

fn describe_sub(sub: &SubSnapshot, cid: u64) -> Subscription<'_> {
    Subscription {
        subject: &sub.subject,
        qgroup: sub.queue.as_deref(),
        sid: &sub.sid,
        msgs: sub.msgs,
        max: sub.max,
        cid,
    }
}

/// Below a millisecond the reference shows whole microseconds.
fn rtt(nanos: u64) -> String {
    let nanos = if (1_000..1_000_000).contains(&nanos) { nanos / 1_000 * 1_000 } else { nanos };
    duration::format(Duration::from_nanos(nanos))
}

/// Whether some subject matches both patterns.
fn subjects_collide(a: &str, b: &str) -> bool {
    let (mut left, mut right) = (a.split('.'), b.split('.'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            _ => return false,
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
#[path = "connz_tests.rs"]
mod tests;
