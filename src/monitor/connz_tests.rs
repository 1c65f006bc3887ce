//! Which connections `/connz` lists, in what order and with what fields.

use super::*;
use crate::monitor::fake::{conn, facts, shard, sub};
use crate::monitor::query::Query;
use serde_json::{Value, json};

fn ask(shards: &[ShardSnapshot], query: &str) -> Value {
    let params = ConnzParams::parse(&Query::parse(query)).unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    serde_json::to_value(connz(&facts(), shards, &params, now)).unwrap()
}

fn cids(answer: &Value) -> Vec<u64> {
    answer["connections"].as_array().unwrap().iter().map(|conn| conn["cid"].as_u64().unwrap()).collect()
}

/// Three open and two closed connections over two shards, no two alike in any respect one can sort by.
fn sample() -> Vec<ShardSnapshot> {
    let open = |cid: u64, rank: u64| {
        let mut conn = conn(cid);
        (conn.subscription_count, conn.pending_bytes, conn.rtt_ns) = (rank, rank, rank);
        (conn.in_msgs, conn.out_msgs, conn.in_bytes, conn.out_bytes) = (rank, 10 - rank, rank * 5, 50 - rank);
        conn.start = SystemTime::UNIX_EPOCH + Duration::from_secs(cid);
        conn.last_activity = SystemTime::UNIX_EPOCH + Duration::from_secs(100 + rank);
        conn
    };
    let closed = |cid: u64, rank: u64, reason| {
        let mut conn = open(cid, rank);
        conn.stop = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(200 + rank));
        conn.reason = Some(reason);
        conn
    };
    vec![
        shard(0, 2, vec![open(5, 2), closed(9, 0, "Stale Connection"), open(3, 3)]),
        shard(1, 1, vec![open(4, 1), closed(8, 4, "Client Closed")]),
    ]
}

/// The directions are those of the reference.
#[test]
fn orders() {
    let shards = sample();
    let cases: &[(&str, &[u64])] = &[
        ("", &[3, 4, 5]),
        ("sort=start", &[3, 4, 5]),
        ("sort=subs", &[3, 5, 4]),
        ("sort=pending", &[3, 5, 4]),
        ("sort=msgs_from", &[3, 5, 4]),
        ("sort=bytes_from", &[3, 5, 4]),
        ("sort=msgs_to", &[4, 5, 3]),
        ("sort=bytes_to", &[4, 5, 3]),
        ("sort=last", &[3, 5, 4]),
        ("sort=idle", &[4, 5, 3]),
        ("sort=uptime", &[5, 4, 3]),
        ("sort=rtt", &[3, 5, 4]),
        ("state=any", &[3, 4, 5, 8, 9]),
        ("state=any&sort=uptime", &[9, 8, 5, 4, 3]),
        ("state=closed", &[8, 9]),
        ("state=closed&sort=stop", &[8, 9]),
        ("state=closed&sort=reason", &[8, 9]),
        ("state=any&sort=idle&limit=2&offset=1", &[4, 5]),
        ("offset=99", &[]),
    ];
    for (query, expected) in cases {
        let answer = ask(&shards, query);
        assert_eq!(cids(&answer), *expected, "{query}");
        assert_eq!(answer["num_connections"], json!(expected.len()), "{query}");
    }
}

/// `total` counts what state and account select; the other filters and the page do not change it.
#[test]
fn filters_and_totals() {
    let mut shards = sample();
    let conns = &mut shards[0].connections;
    conns[0].account = "A".into();
    conns[0].authorized_user = Some("u".into());
    conns[0].subscriptions = vec![sub("1", "foo.>", None)];
    conns[1].account = "A".into();
    let cases: &[(&str, &[u64], u64)] = &[
        ("user=u", &[5], 3),
        ("user=zz", &[], 3),
        ("acc=A", &[5], 1),
        ("acc=A&state=any", &[5, 9], 2),
        ("acc=zz", &[], 0),
        ("mqtt_client=x", &[], 3),
        ("filter_subject=foo.bar", &[5], 3),
        ("filter_subject=*.x.y", &[5], 3),
        ("filter_subject=foo", &[], 3),
        ("limit=1", &[3], 3),
        ("cid=4", &[4], 3),
        ("cid=77", &[], 3),
        ("cid=4&offset=1", &[], 3),
    ];
    for (query, expected, total) in cases {
        let answer = ask(&shards, query);
        assert_eq!((cids(&answer).as_slice(), answer["total"].as_u64()), (*expected, Some(*total)), "{query}");
    }
    assert_eq!(ask(&shards, "cid=4")["limit"], json!(1));
    // A shard that was asked for one connection delivers no other.
    let lone = vec![shard(0, 2, vec![]), shard(1, 1, vec![conn(4)])];
    assert_eq!(ask(&lone, "cid=4")["total"], json!(3));
}

/// Account names and users are shown only on request, and the global account never.
#[test]
fn fields_on_request() {
    let mut open = conn(5);
    open.authorized_user = Some("u".into());
    open.subscriptions = vec![sub("1", "foo.>", Some("q")), sub("2", "bar", None)];
    open.subscriptions[1].max = Some(7);
    open.rtt_ns = 345_678;
    let shards = vec![shard(0, 1, vec![open])];
    let plain = &ask(&shards, "")["connections"][0];
    for absent in ["authorized_user", "account", "name_tag", "subscriptions_list", "stop", "reason", "stalls", "lang"] {
        assert!(plain.get(absent).is_none(), "{absent}");
    }
    assert_eq!((&plain["rtt"], &plain["shard"]), (&json!("345µs"), &json!(0)));
    let auth = &ask(&shards, "auth=1&subs=1")["connections"][0];
    assert_eq!((&auth["authorized_user"], &auth["name_tag"]), (&json!("u"), &json!("$G")));
    assert!(auth.get("account").is_none());
    assert_eq!(auth["subscriptions_list"], json!(["foo.>", "bar"]));
    assert_eq!(
        ask(&shards, "subs=detail")["connections"][0]["subscriptions_list_detail"],
        json!([
            {"subject": "foo.>", "qgroup": "q", "sid": "1", "msgs": 0, "cid": 5},
            {"subject": "bar", "sid": "2", "msgs": 0, "max": 7, "cid": 5},
        ])
    );
}

#[test]
fn collisions() {
    let cases = [
        ("a.b", "a.b", true),
        ("a.*", "*.b", true),
        ("a.>", "a.b.c", true),
        ("a.>", "a", false),
        ("a", "b", false),
        ("a.b", "a.b.c", false),
        (">", "x", true),
    ];
    for (a, b, collide) in cases {
        assert_eq!(subjects_collide(a, b), collide, "{a} {b}");
        assert_eq!(subjects_collide(b, a), collide, "{b} {a}");
    }
}
