//! The server over real sockets: headers, texts, and the names and types of all JSON fields against the reference's.

use super::*;
use crate::monitor::fake::{FakeServer, conn, facts, shard, sub};
use crate::monitor::{Facts, Readiness, ServiceSnapshot};
use serde_json::{Map, Value};
use std::io::Write as _;
use std::net::TcpStream;

fn start(facts: Facts) -> FakeServer {
    let mut open = conn(5);
    (open.name, open.lang, open.version) = ("a<b>&c".into(), "py".into(), "1.0".into());
    (open.stalls, open.authorized_user, open.account) = (1, Some("u".into()), "A".into());
    open.subscriptions = vec![sub("1", "foo.>", Some("q"))];
    open.subscriptions[0].max = Some(7);
    let mut closed = open.clone();
    (closed.cid, closed.stop, closed.reason) = (6, Some(SystemTime::now()), Some("Client Closed"));
    let mut shards = vec![shard(0, 1, vec![open, closed]), shard(1, 0, vec![])];
    shards[1].service = Some(ServiceSnapshot { faults: vec!["the disk is tired".into()], ..Default::default() });
    FakeServer::start(facts, shards)
}

/// Names and JSON types as the reference answers them: s string, i integer, n number, o object, a array, b boolean.
const VARZ: &[(&str, &str)] = &[
    ("s", "server_id server_name version go host http_host http_base_path start now uptime config_load_time"),
    ("s", "config_digest"),
    ("i", "proto port max_connections max_subscriptions ping_interval ping_max http_port https_port"),
    ("i", "max_control_line max_payload max_pending write_deadline mem cores gomaxprocs connections"),
    ("i", "total_connections routes remotes leafnodes in_msgs in_bytes in_client_msgs in_client_bytes out_msgs"),
    ("i", "out_bytes out_client_msgs out_client_bytes slow_consumers stale_connections stalled_clients"),
    ("i", "subscriptions"),
    ("n", "auth_timeout tls_timeout cpu"),
    ("b", "auth_required"),
    ("o", "cluster gateway leaf mqtt websocket jetstream http_req_stats slow_consumer_stats"),
    ("o", "stale_connection_stats disk_io_wait_stats"),
];
const VARZ_OWN: &[(&str, &str)] = &[("o", "leat")];
const SLOW_CONSUMER_STATS: &[(&str, &str)] = &[("i", "clients routes gateways leafs")];
const DISK_IO_WAIT_STATS: &[(&str, &str)] = &[("i", "waiters waits wait_time max_wait_time")];
const CONNZ: &[(&str, &str)] =
    &[("s", "server_id now"), ("i", "num_connections total offset limit"), ("a", "connections")];
const CONNECTION: &[(&str, &str)] = &[
    ("s", "kind type ip start last_activity rtt uptime idle name lang version authorized_user account name_tag"),
    ("i", "cid port pending_bytes in_msgs out_msgs in_bytes out_bytes stalls subscriptions"),
    ("a", "subscriptions_list_detail"),
];
const CONNECTION_CLOSED: &[(&str, &str)] = &[("s", "stop reason")];
const CONNECTION_OWN: &[(&str, &str)] = &[("i", "shard")];
const SUBSCRIPTION: &[(&str, &str)] = &[("s", "subject qgroup sid"), ("i", "msgs max cid")];

/// `server_id` to `config_digest` as the reference orders them.
const VARZ_ORDER: &str = "server_id server_name version proto go host port auth_required max_connections \
    max_subscriptions ping_interval ping_max http_host http_port http_base_path https_port auth_timeout \
    max_control_line max_payload max_pending cluster gateway leaf mqtt websocket jetstream tls_timeout write_deadline \
    start now uptime mem cores gomaxprocs cpu connections total_connections routes remotes leafnodes in_msgs in_bytes \
    in_client_msgs in_client_bytes out_msgs out_bytes out_client_msgs out_client_bytes slow_consumers \
    stale_connections stalled_clients subscriptions http_req_stats config_load_time config_digest \
    slow_consumer_stats stale_connection_stats disk_io_wait_stats";

fn expect_fields(value: &Value, tables: &[&[(&str, &str)]]) {
    let object: &Map<String, Value> = value.as_object().unwrap();
    let mut expected: Vec<(&str, &str)> = tables
        .iter()
        .flat_map(|table| table.iter())
        .flat_map(|(kind, names)| names.split_ascii_whitespace().map(move |name| (name, *kind)))
        .collect();
    expected.sort_unstable();
    let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, kind) in expected {
        let fits = match (kind, &object[name]) {
            ("s", Value::String(_)) | ("o", Value::Object(_)) | ("a", Value::Array(_)) | ("b", Value::Bool(_)) => true,
            ("i", Value::Number(number)) => number.is_u64(),
            ("n", Value::Number(_)) => true,
            _ => false,
        };
        assert!(fits, "{name} is {}, not of kind {kind}", object[name]);
    }
}

/// Every field of `/varz` has the reference's name, type and place; ours come last.
#[test]
fn varz_fields() {
    let mut facts = facts();
    facts.options = Arc::new(crate::config::Options {
        max_subscriptions: 7,
        user: Some("u".into()),
        auth_timeout: Some(Duration::from_millis(1500)),
        ..Default::default()
    });
    let server = start(facts);
    server.get("/");
    server.get("/connz?sort=zz");
    let answer = server.get("/varz");
    let value: Value = serde_json::from_str(&answer.body).unwrap();
    expect_fields(&value, &[VARZ, VARZ_OWN]);
    expect_fields(&value["slow_consumer_stats"], &[SLOW_CONSUMER_STATS]);
    expect_fields(&value["stale_connection_stats"], &[SLOW_CONSUMER_STATS]);
    expect_fields(&value["disk_io_wait_stats"], &[DISK_IO_WAIT_STATS]);
    let top_level = answer.body.lines().filter_map(|line| line.strip_prefix("  \"")?.split_once('"'));
    let order: Vec<&str> = top_level.map(|(name, _)| name).collect();
    assert_eq!(order, VARZ_ORDER.split_ascii_whitespace().chain(["leat"]).collect::<Vec<_>>());
    assert!(answer.body.contains("  \"auth_timeout\": 1.5,\n") && answer.body.contains("  \"tls_timeout\": 2,\n"));
    assert!(
        answer.body.contains("  \"http_req_stats\": {\n    \"/\": 1,\n    \"/varz\": 1\n  },\n"),
        "{}",
        answer.body
    );
    assert_eq!((&value["in_msgs"], &value["connections"]), (&2.into(), &1.into()));
    assert_eq!(value["leat"]["shards"][1]["cpu"], 1);
    server.server.stop();
}

#[test]
fn connz_fields() {
    let server = start(facts());
    let value = server.json("/connz?auth=1&subs=detail&state=any");
    expect_fields(&value, &[CONNZ]);
    expect_fields(&value["connections"][0], &[CONNECTION, CONNECTION_OWN]);
    expect_fields(&value["connections"][1], &[CONNECTION, CONNECTION_CLOSED, CONNECTION_OWN]);
    expect_fields(&value["connections"][0]["subscriptions_list_detail"][0], &[SUBSCRIPTION]);
    let body = server.get("/connz?subs=1").body;
    assert!(body.contains(r#""name": "a\u003cb\u003e\u0026c","#), "{body}");
    assert!(body.contains("      \"subscriptions_list\": [\n        \"foo.\\u003e\"\n      ],\n"), "{body}");
    server.server.stop();
}

/// Status, headers and texts of each kind of answer.
#[test]
fn answers() {
    let server = start(facts());
    let json_head = ["content-type: application/json\r\n", "access-control-allow-origin: *\r\n"];
    let text_head = ["content-type: text/plain; charset=utf-8\r\n"];
    let cases: &[(&str, u16, &[&str], &str)] = &[
        ("/healthz", 200, &json_head, "{\"status\":\"ok\"}"),
        ("/healthz?stream=x", 400, &json_head, "{\"status\":\"error\","),
        ("/varz?x=1", 200, &json_head, "{\n  \"server_id\": \"NAAA\",\n"),
        ("/connz", 200, &json_head, "{\n  \"server_id\": \"NAAA\",\n  \"now\": \""),
        ("/connz?state=zz", 400, &text_head, "Error decoding state for zz"),
        ("/nope", 404, &text_head, "404 page not found\n"),
        ("/varz/", 404, &["x-content-type-options: nosniff\r\n"], "404 page not found\n"),
        ("/?foo", 200, &["content-type: text/html; charset=utf-8\r\n"], "<!DOCTYPE html>"),
    ];
    for (path, status, headers, body) in cases {
        let answer = server.get(path);
        assert_eq!(answer.status, *status, "{path}");
        assert!(answer.body.starts_with(body), "{path}: {}", answer.body);
        for header in *headers {
            assert!(format!("{}\r\n", answer.head).contains(header), "{path}: {}", answer.head);
        }
    }
    assert_eq!(server.request("POST", "/varz").status, 200);
    let head = server.request("HEAD", "/varz");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    server.server.stop();
}

/// Readers that do not take their answers hold a bounded amount of memory, and give it back when they leave.
#[test]
fn untaken_answers_are_bounded() {
    let mut listed = conn(5);
    listed.name = "x".repeat(40 << 20);
    let server = FakeServer::start(facts(), vec![shard(0, 1, vec![listed])]);
    let ask = || {
        let mut stream = TcpStream::connect(server.addr).unwrap();
        stream.write_all(b"GET /connz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream
    };
    let began = |stream: &TcpStream, patience| {
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.peek(&mut [0]).is_ok()
    };
    let first = ask();
    assert!(began(&first, Duration::from_secs(10)));
    let second = ask();
    assert!(!began(&second, Duration::from_millis(300)), "two answers exceed the memory");
    drop(first);
    assert!(began(&second, Duration::from_secs(8)));
    server.server.stop();
}

/// Where something is stored, shards are asked for what is wrong with that.
#[test]
fn health_of_storage() {
    let server = start(Facts { stores: true, ..facts() });
    let answer = server.get("/healthz");
    assert_eq!((answer.status, answer.body.as_str()), (503, r#"{"status":"error","error":"the disk is tired"}"#));
    server.server.stop();
}

/// Health turns red while clients are turned away, and the port is free again after a stop.
#[test]
fn lame_duck_and_stop() {
    let server = start(Facts { readiness: Readiness::LameDuck, ..facts() });
    assert_eq!(server.get("/healthz").status, 500);
    let idle = TcpStream::connect(server.addr).unwrap();
    let addr = server.addr;
    server.server.stop();
    drop(idle);
    assert!(TcpStream::connect(addr).is_err());
}
