//! The pages over a real socket: names, order and types of all fields against the reference's, and what is on a page.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config;
use crate::monitor::fake::{FakeServer, facts, shard};
use crate::monitor::{
    ChannelSnapshot, Facts, ServiceSnapshot, ShardSnapshot, StreamingClient, StreamingSnapshot, SubscriptionSnapshot,
};
use crate::streaming::{ChannelOverride, Options};

fn subscription(client_id: &str, number: u32) -> SubscriptionSnapshot {
    SubscriptionSnapshot {
        client_id: client_id.into(),
        inbox: format!("_INBOX.{client_id}.{number}"),
        ack_inbox: format!("_INBOX.tag.{number}"),
        max_inflight: 1024,
        ack_wait: 30,
        last_sent: 3,
        pending_count: 1,
        ..SubscriptionSnapshot::default()
    }
}

fn channel(name: &str, subscriptions: Vec<SubscriptionSnapshot>) -> ChannelSnapshot {
    ChannelSnapshot { name: name.into(), msgs: 3, bytes: 300, first_seq: 1, last_seq: 3, subscriptions }
}

/// Three clients, of which `c1` has two subscriptions on each of `a` and `b`. A durable one and a group are offline.
fn shards() -> Vec<ShardSnapshot> {
    let durable =
        SubscriptionSnapshot { durable_name: "d".into(), is_durable: true, is_offline: true, ..subscription("c2", 1) };
    let member = SubscriptionSnapshot { queue_name: "g".into(), is_stalled: true, ..subscription("c1", 4) };
    let group =
        SubscriptionSnapshot { queue_name: "d:f".into(), is_durable: true, is_offline: true, ..subscription("c0", 5) };
    let of_a = vec![group, member, durable, subscription("c1", 10), subscription("c1", 9)];
    let of_b = vec![subscription("c1", 1), subscription("c1", 2)];
    let client = |id: &str| StreamingClient { id: id.into(), hb_inbox: format!("_INBOX.hb.{id}") };
    let part = |clients, channels| {
        let streaming =
            StreamingSnapshot { in_msgs: 1, in_bytes: 20, out_msgs: 300, out_bytes: 4000, clients, channels };
        Some(ServiceSnapshot { faults: Vec::new(), streaming: Some(streaming) })
    };
    let mut shards = vec![shard(0, 0, Vec::new()), shard(1, 0, Vec::new())];
    shards[0].service = part(vec![client("c2"), client("c0"), client("c1")], vec![channel("b", of_b)]);
    shards[1].service = part(Vec::new(), vec![channel("c", Vec::new()), channel("a", of_a)]);
    shards
}

fn facts_with(streaming: Option<Options>) -> Facts {
    let options = config::Options { streaming, cores: vec![0, 1], ..config::Options::default() };
    Facts { options: Arc::new(options), ..facts() }
}

fn start() -> FakeServer {
    FakeServer::start(facts_with(Some(Options::default())), shards())
}

/// The names of the members of the outermost object, in their order.
fn order(body: &str) -> Vec<&str> {
    body.lines().filter_map(|line| line.strip_prefix("  \"")?.split_once('"')).map(|(name, _)| name).collect()
}

fn expect_order(server: &FakeServer, path: &str, names: &str) {
    let body = server.get(path).body;
    assert_eq!(order(&body), names.split_ascii_whitespace().collect::<Vec<_>>(), "{path}: {body}");
}

/// Every field has the reference's name and place.
#[test]
fn fields() {
    let server = start();
    expect_order(
        &server,
        "/streaming/serverz",
        "cluster_id server_id version go state now start_time uptime clients subscriptions channels total_msgs \
         total_bytes in_msgs in_bytes out_msgs out_bytes open_fds max_fds",
    );
    expect_order(&server, "/streaming/storez", "cluster_id server_id now type limits total_msgs total_bytes");
    let list = "cluster_id server_id now offset limit count total";
    expect_order(&server, "/streaming/clientsz", &format!("{list} clients"));
    expect_order(&server, "/streaming/channelsz", &format!("{list} names"));
    expect_order(&server, "/streaming/channelsz?subs=1", &format!("{list} channels"));
    expect_order(&server, "/streaming/channelsz?offset=3", list);
    expect_order(&server, "/streaming/channelsz?offset=3&subs=1", list);
    expect_order(&server, "/streaming/clientsz?client=c1", "id hb_inbox subs_count");
    expect_order(&server, "/streaming/clientsz?client=c1&subs=1", "id hb_inbox subs_count subscriptions");
    expect_order(&server, "/streaming/clientsz?client=c2&subs=1", "id hb_inbox subs_count");
    let channel = "name msgs bytes first_seq last_seq subs_count";
    expect_order(&server, "/streaming/channelsz?channel=a", channel);
    expect_order(&server, "/streaming/channelsz?channel=a&subs=1", &format!("{channel} subscriptions"));
    expect_order(&server, "/streaming/channelsz?channel=c&subs=1", channel);
    let body = server.get("/streaming/channelsz?channel=a&subs=1").body;
    let durable = r#"
    {
      "client_id": "c2",
      "inbox": "_INBOX.c2.1",
      "ack_inbox": "_INBOX.tag.1",
      "durable_name": "d",
      "is_durable": true,
      "is_offline": true,
      "max_inflight": 1024,
      "ack_wait": 30,
      "last_sent": 3,
      "pending_count": 1,
      "is_stalled": false
    },
    {
      "client_id": "c0",
      "inbox": "_INBOX.c0.5",
      "ack_inbox": "_INBOX.tag.5",
      "queue_name": "d:f",
      "is_durable": true,"#;
    assert!(body.contains(durable), "{body}");
    server.server.stop();
}

/// All shards count.
#[test]
fn sums() {
    let server = start();
    let serverz = server.json("/streaming/serverz");
    for (name, value) in [
        ("cluster_id", json!("test-cluster")),
        ("server_id", json!("NAAA")),
        ("version", json!(crate::version::VERSION)),
        ("state", json!("STANDALONE")),
        ("clients", json!(3)),
        ("subscriptions", json!(7)),
        ("channels", json!(3)),
        ("total_msgs", json!(9)),
        ("total_bytes", json!(900)),
        ("in_msgs", json!(2)),
        ("in_bytes", json!(40)),
        ("out_msgs", json!(600)),
        ("out_bytes", json!(8000)),
    ] {
        assert_eq!(serverz[name], value, "{name}");
    }
    let storez = server.json("/streaming/storez");
    assert_eq!(
        [&storez["type"], &storez["total_msgs"], &storez["total_bytes"]],
        [&json!("FILE"), &json!(9), &json!(900)]
    );
    server.server.stop();
}

/// Limits of patterns are shown with what they inherit, and times in nanoseconds.
#[test]
fn limits() {
    let mut options = Options::default();
    options.limits.of_all.max_inactivity = Duration::from_millis(1500);
    let wide = ChannelOverride { max_msgs: Some(5), max_age: Some(Duration::from_secs(3600)), ..Default::default() };
    let narrow = ChannelOverride { max_msgs: Some(0), max_subs: Some(7), ..Default::default() };
    let given = [("w.>".to_owned(), wide), ("w.*".to_owned(), narrow)];
    options.limits.overrides = options.limits.overrides.with(given).unwrap();
    let server = FakeServer::start(facts_with(Some(options)), shards());
    let body = server.get("/streaming/storez").body;
    let expected = r#""limits": {
    "max_channels": 100,
    "max_msgs": 1000000,
    "max_bytes": 1024000000,
    "max_age": 0,
    "max_subscriptions": 1000,
    "max_inactivity": 1500000000,
    "channels": {
      "w.*": {
        "max_msgs": 0,
        "max_bytes": 1024000000,
        "max_age": 3600000000000,
        "max_subscriptions": 7,
        "max_inactivity": 1500000000
      },
      "w.\u003e": {
        "max_msgs": 5,
        "max_bytes": 1024000000,
        "max_age": 3600000000000,
        "max_subscriptions": 1000,
        "max_inactivity": 1500000000
      }
    }
  },
"#;
    assert!(body.contains(expected), "{body}");
    server.server.stop();
}

/// Lists are sorted; parameters that make no sense are as good as absent, and none is too large.
#[test]
fn pages() {
    let server = start();
    let cases: &[(&str, (i64, i64), &[&str])] = &[
        ("", (0, 1024), &["a", "b", "c"]),
        ("offset=1&limit=1", (1, 1), &["b"]),
        ("offset=3", (3, 1024), &[]),
        ("offset=-1&limit=-1", (0, 1024), &["a", "b", "c"]),
        ("offset=z&limit=0x10", (0, 1024), &["a", "b", "c"]),
        ("limit=0&offset=2", (2, 1024), &["c"]),
        ("offset=2&limit=99999999999999999999", (2, i64::MAX), &["c"]),
        ("offset=99999999999999999999", (i64::MAX, 1024), &[]),
    ];
    for (query, (offset, limit), names) in cases {
        let head = |list: &Value| ["offset", "limit", "count", "total"].map(|name| list[name].as_i64().unwrap());
        let of = |list: &Value, kind: &str, name: &str| -> Vec<String> {
            let list = list[kind].as_array().cloned().unwrap_or_default();
            list.iter().map(|one| one[name].as_str().unwrap().to_owned()).collect()
        };
        let channels = server.json(&format!("/streaming/channelsz?{query}"));
        let detailed = server.json(&format!("/streaming/channelsz?{query}&subs=1"));
        let clients = server.json(&format!("/streaming/clientsz?{query}"));
        for list in [&channels, &detailed, &clients] {
            assert_eq!(head(list), [*offset, *limit, names.len() as i64, 3], "{query}");
        }
        assert_eq!(channels.get("names").cloned().unwrap_or(json!([])), json!(names), "{query}");
        assert_eq!(of(&detailed, "channels", "name"), *names, "{query}");
        let ids = [("a", "c0"), ("b", "c1"), ("c", "c2")];
        let ids: Vec<&str> = ids.iter().filter(|(name, _)| names.contains(name)).map(|(_, id)| *id).collect();
        assert_eq!(of(&clients, "clients", "id"), ids, "{query}");
    }
    server.server.stop();
}

/// A client has the subscriptions that it holds, and a channel those that wait for a client too.
#[test]
fn subscriptions() {
    let server = start();
    let list = server.json("/streaming/clientsz?subs=1");
    let counts: Vec<_> = [0, 1, 2].map(|at| list["clients"][at]["subs_count"].as_u64().unwrap()).into();
    assert_eq!(counts, [0, 5, 0]);
    let one = server.json("/streaming/clientsz?client=c1&subs=1");
    assert_eq!(one, list["clients"][1]);
    let inboxes = |list: &Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|one| one["ack_inbox"].as_str().unwrap().replace("_INBOX.tag.", ""))
            .collect()
    };
    assert_eq!(inboxes(&one["subscriptions"]["a"]), ["9", "10", "4"]);
    assert_eq!(inboxes(&one["subscriptions"]["b"]), ["1", "2"]);
    let channel = server.json("/streaming/channelsz?channel=a&subs=1");
    assert_eq!(channel["subs_count"], 5);
    assert_eq!(inboxes(&channel["subscriptions"]), ["9", "10", "1", "5", "4"]);
    for not_one in ["subs=0", "subs=true", "subs=detail", "subs=2"] {
        assert!(server.json(&format!("/streaming/channelsz?channel=a&{not_one}")).get("subscriptions").is_none());
    }
    server.server.stop();
}

/// Status, headers and texts of each kind of answer.
#[test]
fn answers() {
    let server = start();
    let json_head = "content-type: application/json\r\n";
    let text_head = "content-type: text/plain; charset=utf-8\r\n";
    for (path, status, header, body) in [
        ("/streaming", 200, "content-type: text/html; charset=utf-8\r\n", "<!DOCTYPE html>"),
        ("/streaming/", 404, text_head, "404 page not found\n"),
        ("/streaming/clientsz?client=a%3Cb&callback=f", 404, text_head, "Client a<b not found\n"),
        ("/streaming/channelsz?channel=x&subs=1", 404, "x-content-type-options: nosniff\r\n", "Channel x not found\n"),
        ("/streaming/serverz", 200, json_head, "{\n  \"cluster_id\": \"test-cluster\",\n"),
        (
            "/streaming/clientsz?client=c1&callback=f.g",
            200,
            "content-type: application/javascript\r\n",
            "f.g({\n  \"id\"",
        ),
        ("/streaming/isFTActive", 204, "\r\n", ""),
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.body.starts_with(body), "{path}: {}", answer.body);
        assert!(format!("{}\r\n", answer.head).contains(header), "{path}: {}", answer.head);
    }
    assert!(server.get("/streaming/storez?callback=f").body.ends_with("})"));
    assert_eq!(server.get("/streaming/isFTActive").body, "");
    assert!(server.get("/").body.contains("./streaming"));
    server.server.stop();
}

/// Without the service there are no pages, and without the part of a shard there is no telling what exists.
#[test]
fn absences() {
    let server = FakeServer::start(facts_with(None), shards());
    for path in ["/streaming", "/streaming/serverz", "/streaming/isFTActive"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    server.server.stop();
    let server = FakeServer::start(facts_with(Some(Options::default())), shards().split_off(1));
    for path in ["/streaming/serverz", "/streaming/clientsz?client=c1"] {
        assert_eq!(server.get(path).status, 500, "{path}");
    }
    server.server.stop();
}
