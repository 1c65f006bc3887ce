//! The HTTP endpoints that dashboards, exporters and orchestrators read. What they show covers all shards.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Client, PATIENCE, Server, shard_suite, wait_until};

shard_suite!(one_shard = 1, three_shards = 3 => {
    varz_has_the_fields_that_exporters_read,
    varz_shows_the_options,
    varz_counts_exactly,
    varz_counts_its_readers,
    connz_describes_each_connection,
    connz_lists_subscriptions,
    connz_shows_who_is_logged_in,
    connz_shows_who_clients_claim_to_be,
    connz_remembers_what_connections_had,
    connz_tells_how_long_a_client_has_been_idle,
    connz_shows_the_round_trip,
    overlong_requests_are_refused,
    connz_sorts_and_cuts_over_all_shards,
    connz_remembers_why_connections_ended,
    healthz_is_compact,
    mistakes_in_requests_are_explained,
    json_is_served_as_such,
});

/// Fails unless each field is there with the type that its letter names: s text, i integer, u unsigned, f number,
/// b bool, m object, a array, t time, d duration text. A `?` after the letter allows it to be missing.
fn assert_fields(object: &Value, fields: &[(&str, &str)]) {
    for (letters, names) in fields {
        let (letter, optional) = letters.strip_suffix('?').map_or((*letters, false), |letter| (letter, true));
        for name in names.split_whitespace() {
            let Some(value) = object.get(name) else {
                assert!(optional, "no {name} in {object}");
                continue;
            };
            let right = match letter {
                "s" => value.is_string(),
                "i" => value.is_i64() || value.is_u64(),
                "u" => value.is_u64(),
                "f" => value.is_number(),
                "b" => value.is_boolean(),
                "m" => value.is_object(),
                "a" => value.is_array(),
                "t" => value.as_str().is_some_and(is_utc_time),
                "d" => value.as_str().is_some_and(|text| text.ends_with('s') && text.as_bytes()[0].is_ascii_digit()),
                _ => panic!("no such type: {letter}"),
            };
            assert!(right, "{name} should have type {letter}: {value}");
        }
    }
}

/// RFC 3339 with `Z`, such as `2026-11-24T02:44:11.367513975Z`.
fn is_utc_time(text: &str) -> bool {
    let shape = text.replace(|c: char| c.is_ascii_digit(), "0");
    let (seconds, fraction) = shape.split_once('.').unwrap_or((shape.trim_end_matches('Z'), "Z"));
    seconds == "0000-00-00T00:00:00" && fraction.len() <= 10 && fraction.trim_start_matches('0') == "Z"
}

fn connections(server: &Server, query: &str) -> Vec<Value> {
    let answer = server.get_json(&format!("/connz?{query}"));
    answer["connections"].as_array().cloned().unwrap_or_else(|| panic!("no list of connections: {answer}"))
}

fn cids(list: &[Value]) -> Vec<u64> {
    list.iter().map(|connection| connection["cid"].as_u64().expect("cid is a number")).collect()
}

/// /varz carries every field of the reference server that is not optional, with the same types.
fn varz_has_the_fields_that_exporters_read(shards: usize) {
    let server = Server::start(shards);
    let varz = server.get_json("/varz");
    assert_fields(
        &varz,
        &[
            ("s", "server_id server_name version go host http_host http_base_path config_digest"),
            ("s?", "git_commit system_account"),
            ("i", "proto port max_connections ping_interval ping_max http_port https_port max_control_line"),
            ("i", "max_payload max_pending write_deadline mem cores gomaxprocs connections routes remotes leafnodes"),
            (
                "i",
                "in_msgs in_bytes in_client_msgs in_client_bytes out_msgs out_bytes out_client_msgs out_client_bytes",
            ),
            ("i", "slow_consumers stale_connections stalled_clients"),
            ("u", "total_connections subscriptions"),
            ("f", "auth_timeout tls_timeout cpu"),
            ("m", "cluster gateway leaf mqtt websocket jetstream http_req_stats slow_consumer_stats"),
            ("t", "start now config_load_time"),
            ("d", "uptime"),
        ],
    );
    assert_fields(&varz["slow_consumer_stats"], &[("u", "clients routes gateways leafs")]);
    assert_eq!(varz["server_id"], server.connect().info()["server_id"]);
    assert_eq!(varz["port"], server.addr().port());
    assert_eq!(varz["version"], "2.15.1");
    assert_eq!(varz["jetstream"], json!({}));
    assert!(varz["mem"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "mem: {}", varz["mem"]);
    assert!(varz["start"].as_str() < varz["now"].as_str(), "{} and {}", varz["start"], varz["now"]);
    for absent in ["auth_required", "tls_required", "max_subscriptions"] {
        assert!(varz.get(absent).is_none(), "{absent}: {}", varz[absent]);
    }
}

/// Limits and times appear in /varz as configured: bytes and counts as numbers, times in nanoseconds or seconds.
fn varz_shows_the_options(shards: usize) {
    let server = Server::builder()
        .shards(shards)
        .monitor()
        .user("u", "p")
        .option("max_payload", "1000")
        .option("max_pending", "2000000")
        .option("max_connections", "77")
        .option("max_subscriptions", "88")
        .option("max_control_line", "2048")
        .option("ping_interval", "15s")
        .option("ping_max", "7")
        .option("write_deadline", "2500ms")
        .option("auth_timeout", "1500ms")
        .start();
    let varz = server.get_json("/varz");
    for (field, value) in [
        ("max_payload", json!(1000)),
        ("max_pending", json!(2_000_000)),
        ("max_connections", json!(77)),
        ("max_subscriptions", json!(88)),
        ("max_control_line", json!(2048)),
        ("ping_interval", json!(15_000_000_000_u64)),
        ("ping_max", json!(7)),
        ("write_deadline", json!(2_500_000_000_u64)),
        ("auth_timeout", json!(1.5)),
        ("auth_required", json!(true)),
    ] {
        assert_eq!(varz[field], value, "{field}");
    }
}

/// Messages and bytes (headers and payload) are counted once in and once per delivery out; connections and
/// subscriptions are those of now, except in `total_connections`.
fn varz_counts_exactly(shards: usize) {
    const MESSAGES: usize = 10;
    let server = Server::start(shards);
    let before = server.get_json("/varz");
    let mut publisher = server.requester();
    let mut subscribers: Vec<Client> = (0..3).map(|_| server.requester()).collect();
    let gone = server.client();
    for subscriber in &mut subscribers {
        subscriber.subscribe("foo", "1");
    }
    for _ in 0..MESSAGES {
        publisher.publish("foo", [b'x'; 100]);
        publisher.publish("nobody", [b'x'; 50]);
        publisher.send("HPUB foo 12 32\r\nNATS/1.0\r\n\r\n12345678901234567890\r\n");
    }
    publisher.expect_nothing();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.messages_to_fence().len(), 2 * MESSAGES);
    }
    drop(gone);
    wait_until("the client that left is not counted", PATIENCE, || server.get_json("/varz")["connections"] == 4);
    let count = |varz: &Value, field: &str| varz[field].as_u64().unwrap_or_else(|| panic!("no count {field}: {varz}"));
    // The reference server counts a moment after its PONG.
    wait_until("all messages are counted", PATIENCE, || {
        count(&server.get_json("/varz"), "in_msgs") - count(&before, "in_msgs") >= 3 * MESSAGES as u64
    });
    let after = server.get_json("/varz");
    let growth = |field: &str| count(&after, field) - count(&before, field);
    for (field, expected) in [
        ("in_msgs", 3 * MESSAGES),
        ("in_bytes", MESSAGES * (100 + 50 + 32)),
        ("out_msgs", 3 * 2 * MESSAGES),
        ("out_bytes", 3 * MESSAGES * (100 + 32)),
        ("in_client_msgs", 3 * MESSAGES),
        ("in_client_bytes", MESSAGES * (100 + 50 + 32)),
        ("out_client_msgs", 3 * 2 * MESSAGES),
        ("out_client_bytes", 3 * MESSAGES * (100 + 32)),
        ("connections", 4),
        ("total_connections", 5),
        ("subscriptions", 3),
        ("slow_consumers", 0),
    ] {
        assert_eq!(growth(field), expected as u64, "{field}");
    }
}

/// `http_req_stats` counts requests by path.
fn varz_counts_its_readers(shards: usize) {
    let server = Server::start(shards);
    for _ in 0..3 {
        server.get("/connz");
    }
    server.get("/healthz");
    server.get("/varz");
    let stats = &server.get_json("/varz")["http_req_stats"];
    assert_eq!((&stats["/connz"], &stats["/varz"]), (&json!(3), &json!(2)), "{stats}");
}

/// An entry of /connz shows address, times, traffic and what the client said about itself.
fn connz_describes_each_connection(shards: usize) {
    let server = Server::start(shards);
    let mut named = server.connect().login(&json!({
        "verbose": false, "pedantic": false, "name": "me", "lang": "rust", "version": "9.8.7",
    }));
    named.send("SUB a 1\r\nSUB b 2\r\n");
    named.publish("a", "12345");
    named.publish("c", "1234567");
    named.expect("MSG a 1 5\r\n12345\r\n");
    named.expect_nothing();
    let silent = server.connect();
    // The reference server lists a connection a moment after its INFO, and counts a moment after its PONG.
    wait_until("both connections are listed", PATIENCE, || connections(&server, "").len() == 2);
    let of_named = || connections(&server, &format!("cid={}", named.cid())).swap_remove(0);
    wait_until("the messages are counted", PATIENCE, || of_named()["in_msgs"] == 2);

    let answer = server.get_json("/connz");
    assert_fields(
        &answer,
        &[("s", "server_id"), ("t", "now"), ("i", "num_connections total offset limit"), ("a", "connections")],
    );
    assert_eq!((&answer["num_connections"], &answer["total"]), (&json!(2), &json!(2)));
    assert_eq!((&answer["offset"], &answer["limit"]), (&json!(0), &json!(1024)));

    let of_named = of_named();
    assert_fields(
        &of_named,
        &[
            ("u", "cid subscriptions"),
            ("s", "ip kind type name lang version"),
            ("i", "port pending_bytes in_msgs out_msgs in_bytes out_bytes"),
            ("t", "start last_activity"),
            ("d", "uptime idle"),
            ("d?", "rtt"),
        ],
    );
    let port = named.socket().local_addr().expect("a connected socket has an address").port();
    for (field, value) in [
        ("ip", json!("127.0.0.1")),
        ("port", json!(port)),
        ("kind", json!("Client")),
        ("type", json!("nats")),
        ("name", json!("me")),
        ("lang", json!("rust")),
        ("version", json!("9.8.7")),
        ("subscriptions", json!(2)),
        ("in_msgs", json!(2)),
        ("in_bytes", json!(12)),
        ("out_msgs", json!(1)),
        ("out_bytes", json!(5)),
        ("pending_bytes", json!(0)),
    ] {
        assert_eq!(of_named[field], value, "{field}");
    }
    if server.is_leat() {
        assert!(of_named["shard"].as_u64().is_some_and(|shard| shard < shards as u64), "{of_named}");
    }
    for absent in ["stop", "reason", "account", "authorized_user", "subscriptions_list"] {
        assert!(of_named.get(absent).is_none(), "{absent}: {of_named}");
    }
    let of_silent = &connections(&server, &format!("cid={}", silent.cid()))[0];
    for absent in ["name", "lang", "version"] {
        assert!(of_silent.get(absent).is_none(), "{absent}: {of_silent}");
    }
    assert!(connections(&server, "cid=99999").is_empty(), "a connection that does not exist");
}

/// `subs=1` adds the subjects, `subs=detail` one object for each subscription.
fn connz_lists_subscriptions(shards: usize) {
    let server = Server::start(shards);
    let mut client = server.client();
    client.send("SUB a.> s1\r\nSUB b q s2\r\nUNSUB s2 5\r\n");
    client.publish("a.x", "");
    client.publish("b", "");
    client.publish("b", "");
    let _ = client.messages_to_fence();

    let reply = server.get("/connz?subs=1");
    assert!(reply.body.contains("\"a.\\u003e\""), "`>` is escaped in JSON: {}", reply.body);
    let mut subjects = reply.json()["connections"][0]["subscriptions_list"].clone();
    subjects.as_array_mut().expect("a list of subjects").sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    assert_eq!(subjects, json!(["a.>", "b"]));

    let mut details = connections(&server, "subs=detail")[0]["subscriptions_list_detail"].clone();
    details.as_array_mut().expect("a list of details").sort_by(|a, b| a["sid"].as_str().cmp(&b["sid"].as_str()));
    let cid = client.cid();
    assert_eq!(
        details,
        json!([
            {"subject": "a.>", "sid": "s1", "msgs": 1, "cid": cid},
            {"subject": "b", "qgroup": "q", "sid": "s2", "msgs": 2, "max": 5, "cid": cid},
        ])
    );
    assert!(connections(&server, "subs=0")[0].get("subscriptions_list").is_none(), "not asked for");
}

/// `auth=1` adds the user, and the account unless it is the default one; nobody sees a password.
fn connz_shows_who_is_logged_in(shards: usize) {
    let server = Server::builder().shards(shards).monitor().user("alice", "s3cret").start();
    let client = server.connect().login(&json!({"verbose": false, "user": "alice", "pass": "s3cret"}));
    let reply = server.get(&format!("/connz?auth=1&cid={}", client.cid()));
    let connection = &reply.json()["connections"][0];
    assert_eq!(connection["authorized_user"], "alice");
    assert!(connection.get("account").is_none(), "the default account is not shown: {connection}");
    assert!(!reply.body.contains("s3cret"), "{}", reply.body);
}

/// Without authentication `auth=1` shows what the client said of itself, but never a token.
fn connz_shows_who_clients_claim_to_be(shards: usize) {
    let server = Server::start(shards);
    let cases = [
        ("{}", None),
        ("{\"user\":\"al\",\"pass\":\"p\"}", Some("al")),
        ("{\"user\":\"al\",\"auth_token\":\"t0ken\"}", Some("al")),
        ("{\"auth_token\":\"t0ken\"}", Some("[REDACTED]")),
        ("{\"user\":\"al\",\"nkey\":\"UABC\"}", Some("UABC")),
    ];
    for (json, user) in cases {
        let mut client = server.connect();
        client.send(format!("CONNECT {json}\r\nPING\r\n"));
        let _ = client.until_pong();
        let reply = server.get(&format!("/connz?auth=1&cid={}", client.cid()));
        assert_eq!(reply.json()["connections"][0]["authorized_user"].as_str(), user, "{json}");
        assert!(!reply.body.contains("t0ken"), "{}", reply.body);
        assert!(connections(&server, &format!("cid={}", client.cid()))[0].get("authorized_user").is_none());
    }
}

/// A closed connection is listed with the subscriptions and the user that it had, and with who it wanted to be if it
/// was turned away.
fn connz_remembers_what_connections_had(shards: usize) {
    let server = Server::builder().shards(shards).monitor().user("alice", "s3cret").start();
    let mut client = server.connect().login(&json!({"verbose": false, "user": "alice", "pass": "s3cret"}));
    client.send("SUB a 1\r\nSUB b q 2\r\n");
    client.expect_nothing();
    let mut stranger = server.connect();
    stranger.send("CONNECT {\"user\":\"mallory\",\"pass\":\"guess\"}\r\n");
    let _ = stranger.read_to_end();
    server.await_stderr("authentication error - User \"mallory\"");
    let (cid, stranger_cid) = (client.cid(), stranger.cid());
    drop(client);
    let closed = |cid: u64| connections(&server, &format!("state=closed&auth=1&cid={cid}"));
    wait_until("both are listed as closed", PATIENCE, || !closed(cid).is_empty() && !closed(stranger_cid).is_empty());
    assert_eq!((&closed(cid)[0]["subscriptions"], &closed(cid)[0]["authorized_user"]), (&json!(2), &json!("alice")));
    assert_eq!(closed(stranger_cid)[0]["authorized_user"], "mallory");
    assert!(!server.get("/connz?state=any&auth=1").body.contains("guess"));
}

/// `idle` counts from the last message, CONNECT or change of a subscription, whatever pings go to and fro.
fn connz_tells_how_long_a_client_has_been_idle(shards: usize) {
    const IDLE: Duration = Duration::from_millis(1_200);
    let server = Server::start(shards);
    let mut idle = server.client_on(0);
    let mut publisher = server.client_on(1);
    idle.subscribe("foo", "1");
    let listed = |cid: u64| connections(&server, &format!("cid={cid}")).swap_remove(0);
    let began = Instant::now();
    wait_until("a second has passed", PATIENCE, || {
        idle.expect_nothing();
        began.elapsed() > IDLE
    });
    let before = listed(idle.cid());
    assert_ne!(before["idle"], "0s", "{before}");
    assert_eq!(before["last_activity"], listed(idle.cid())["last_activity"]);
    publisher.publish("foo", "x");
    idle.expect("MSG foo 1 1\r\nx\r\n");
    wait_until("both were active", PATIENCE, || {
        [idle.cid(), publisher.cid()].iter().all(|cid| listed(*cid)["idle"] == "0s")
    });
    // Nobody looks at the shards meanwhile.
    let began = Instant::now();
    wait_until("a second has passed", PATIENCE, || server.get("/healthz").status == 200 && began.elapsed() > IDLE);
    let after = listed(idle.cid());
    assert_ne!(after["idle"], "0s", "{after}");
    assert!(after["last_activity"].as_str() > before["last_activity"].as_str(), "{after}");
}

/// The round trip is known from CONNECT on.
fn connz_shows_the_round_trip(shards: usize) {
    let server = Server::start(shards);
    let silent = server.connect();
    let client = server.client();
    wait_until("both connections are listed", PATIENCE, || connections(&server, "").len() == 2);
    let rtt = |cid: u64| connections(&server, &format!("cid={cid}"))[0]["rtt"].clone();
    assert_eq!(rtt(silent.cid()), "0s");
    assert_ne!(rtt(client.cid()), "0s");
}

/// A request line beyond reason gets its status, and the port goes on answering.
fn overlong_requests_are_refused(shards: usize) {
    let server = Server::start(shards);
    assert_eq!(server.get(&format!("/varz?a={}", "x".repeat(1_200_000))).status, 431);
    assert_eq!(server.get("/healthz").status, 200);
}

/// Sorting, limit and offset apply to the connections of all shards together.
fn connz_sorts_and_cuts_over_all_shards(shards: usize) {
    const CLIENTS: usize = 9;
    let server = Server::start(shards);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    let all: Vec<u64> = clients.iter().map(Client::cid).collect();
    // The client at index i has i + 1 subscriptions, receives i messages and sends 2 * i with 3 * i bytes in all.
    let all_sent = (CLIENTS * (CLIENTS - 1)) as u64;
    for (index, client) in clients.iter_mut().enumerate() {
        for sid in 0..=index {
            client.send(format!("SUB to.{index}.{sid} {sid}\r\n"));
        }
        for sid in 0..index {
            client.send(format!("PUB to.{index}.{sid} 2\r\nxx\r\nPUB nobody 1\r\nx\r\n"));
        }
        assert_eq!(client.messages_to_fence().len(), index);
    }
    wait_until("all messages are counted", PATIENCE, || {
        let listed = connections(&server, "");
        listed.iter().map(|one| one["in_msgs"].as_u64().unwrap_or(0)).sum::<u64>() == all_sent
    });
    let rising = all.clone();
    let falling: Vec<u64> = all.iter().rev().copied().collect();
    for (sort, expected) in [
        ("cid", &rising),
        ("start", &rising),
        ("subs", &falling),
        ("msgs_to", &falling),
        ("msgs_from", &falling),
        ("bytes_to", &falling),
        ("bytes_from", &falling),
    ] {
        assert_eq!(&cids(&connections(&server, &format!("sort={sort}"))), expected, "sort={sort}");
    }
    for sort in ["pending", "last", "idle", "uptime", "rtt"] {
        let mut listed = cids(&connections(&server, &format!("sort={sort}")));
        listed.sort_unstable();
        assert_eq!(listed, all, "sort={sort}");
    }
    assert_eq!(cids(&connections(&server, "limit=4")), all[..4]);
    assert_eq!(cids(&connections(&server, "limit=4&offset=6")), all[6..]);
    assert_eq!(cids(&connections(&server, "offset=2&limit=3&sort=subs")), falling[2..5]);
    assert!(connections(&server, "offset=100").is_empty(), "beyond the end");
    let page = server.get_json("/connz?limit=4&offset=6");
    for (field, value) in [("num_connections", 3), ("total", CLIENTS), ("offset", 6), ("limit", 4)] {
        assert_eq!(page[field], value, "{field}");
    }
    assert_eq!(cids(&connections(&server, "state=open")), all);
    assert_eq!(cids(&connections(&server, "state=any")), all);
    assert!(connections(&server, "state=closed").is_empty(), "nothing has been closed yet");
}

/// Closed connections stay listed with the reason and the counts they had.
fn connz_remembers_why_connections_ended(shards: usize) {
    let server = Server::builder()
        .shards(shards)
        .monitor()
        .user("u", "p")
        .option("max_payload", "1000")
        .option("auth_timeout", "300ms")
        .start();
    let open = server.connect().login(&json!({"verbose": false, "user": "u", "pass": "p"}));
    let login = "CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"p\"}\r\n";
    let cases = [
        (String::new(), "Authentication Timeout"),
        ("PING\r\n".to_owned(), "Authentication Failure"),
        (format!("{login}HELLO\r\n"), "Protocol Violation"),
        (format!("{login}SUB foo\r\n"), "Protocol Violation"),
        (format!("{login}-ERR 'x'\r\n"), "Parse Error"),
        (format!("{login}PUB foo 1001\r\n"), "Maximum Message Payload Exceeded"),
        (format!("{login}SUB {} 1\r\n", "x".repeat(5000)), "Maximum Control Line Exceeded"),
        (login.replace('}', ",\"protocol\":3}"), "Bad Client Protocol Version"),
        (login.replace('}', ",\"no_responders\":true}"), "No Responders Requires Headers"),
    ];
    let mut expected = Vec::new();
    for (bytes, reason) in cases {
        let mut client = server.connect();
        client.send_if_open(bytes.as_bytes());
        client.read_to_end();
        expected.push((client.cid(), reason));
    }
    let mut leaving = server.connect().login(&json!({"verbose": false, "user": "u", "pass": "p", "name": "me"}));
    leaving.send("SUB a 1\r\n");
    leaving.publish("a", "12345");
    leaving.expect("MSG a 1 5\r\n12345\r\n");
    expected.push((leaving.cid(), "Client Closed"));
    leaving.expect_nothing();
    let left = leaving.cid();
    drop(leaving);

    let closed = |query: &str| connections(&server, &format!("state=closed{query}"));
    wait_until("all are listed as closed", PATIENCE, || closed("").len() == expected.len());
    for (cid, reason) in &expected {
        let list = closed(&format!("&cid={cid}"));
        assert_eq!(list.len(), 1, "{reason}");
        assert_eq!(list[0]["reason"], *reason);
        assert_fields(&list[0], &[("t", "start stop last_activity"), ("d", "uptime idle")]);
    }
    let of_left = &closed(&format!("&cid={left}"))[0];
    for (field, value) in [("name", json!("me")), ("in_msgs", json!(1)), ("out_bytes", json!(5))] {
        assert_eq!(of_left[field], value, "{field}: {of_left}");
    }
    let stops: Vec<String> =
        closed("&sort=stop").iter().map(|one| one["stop"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(stops.len(), expected.len());
    assert_eq!(cids(&connections(&server, "")), [open.cid()]);
    assert_eq!(connections(&server, "state=any").len(), expected.len() + 1);
    assert_eq!(connections(&server, "state=all").len(), expected.len() + 1);
}

/// Orchestrators compare the health document literally.
fn healthz_is_compact(shards: usize) {
    let server = Server::start(shards);
    for path in ["/healthz", "/healthz?details=1", "/healthz?js-enabled-only=true", "/healthz?js-server-only=1"] {
        let reply = server.get(path);
        assert_eq!((reply.status, reply.body.as_str()), (200, "{\"status\":\"ok\"}"), "{path}");
        assert_eq!(reply.header("content-type"), "application/json");
    }
    let reply = server.get("/healthz?stream=x");
    assert_eq!(reply.status, 400);
    let error = "\"account\" must not be empty when checking stream health";
    assert_eq!(reply.json(), json!({"status": "error", "error": error}));
}

/// A bad parameter is a 400 that names it; an unknown path is a 404.
fn mistakes_in_requests_are_explained(shards: usize) {
    let server = Server::start(shards);
    for (path, text) in [
        ("/connz?state=zz", "Error decoding state for zz"),
        ("/connz?sort=zz", "invalid sorting option: zz"),
        ("/connz?limit=x", "Error decoding int for 'limit': strconv.Atoi: parsing \"x\": invalid syntax"),
        ("/connz?offset=x", "Error decoding int for 'offset': strconv.Atoi: parsing \"x\": invalid syntax"),
        ("/connz?cid=x", "Error decoding uint64 for 'cid': strconv.ParseUint: parsing \"x\": invalid syntax"),
        ("/connz?subs=zz", "Error decoding boolean for 'subs': strconv.ParseBool: parsing \"zz\": invalid syntax"),
        ("/connz?auth=zz", "Error decoding boolean for 'auth': strconv.ParseBool: parsing \"zz\": invalid syntax"),
        ("/connz?sort=stop", "sort by stop only valid on closed connections"),
        ("/connz?sort=reason", "sort by reason only valid on closed connections"),
        (
            "/healthz?js-enabled-only=zz",
            "Error decoding boolean for 'js-enabled-only': strconv.ParseBool: parsing \"zz\": invalid syntax",
        ),
    ] {
        let reply = server.get(path);
        assert_eq!((reply.status, reply.body.as_str()), (400, text), "{path}");
    }
    for path in ["/nope", "/varz/", "/VARZ", "/connz/1"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    for path in ["/connz?limit=-1", "/connz?offset=-1", "/connz?state=", "/connz?sort=", "/connz?limit=0", "/connz?x=y"]
    {
        let reply = server.get(path);
        assert_eq!((reply.status, &reply.json()["limit"]), (200, &json!(1024)), "{path}");
    }
}

/// Documents are indented JSON that any origin may read; the index is HTML.
fn json_is_served_as_such(shards: usize) {
    let server = Server::start(shards);
    for path in ["/varz", "/connz", "/healthz"] {
        let reply = server.get(path);
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("content-type"), "application/json", "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), "*", "{path}");
        assert!(path == "/healthz" || reply.body.starts_with("{\n  \"server_id\": \""), "{path}: {}", reply.body);
    }
    let index = server.get("/");
    assert_eq!(index.status, 200);
    assert!(index.header("content-type").starts_with("text/html"), "{}", index.header("content-type"));
}
