//! The documents about the service, and the division of channels.

use serde_json::{Value, json};

use crate::support::{PATIENCE, Server, shard_suite};
use crate::support_streaming::{
    CLUSTER, Stan, Subscription, await_pending, channels, sequences, streaming, streaming_on_files,
};

shard_suite!(one_shard = 1, three_shards = 3 => {
    item_58_the_documents_have_their_fields,
    item_58_the_documents_have_pages,
});

/// The names of the members of an object.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn with_subscriptions(server: &Server) -> (Stan, Subscription, Subscription) {
    let mut stan = Stan::connect(server, "c1");
    stan.publish_numbers("orders", 1..=3);
    let request = stan.wants("orders").in_flight(2).ack_wait(7);
    let plain = stan.subscribe(&request);
    assert_eq!(stan.take_messages(&plain, 2).len(), 2);
    let request = stan.wants("orders").durable("d").in_flight(3);
    let durable = stan.subscribe(&request);
    assert_eq!(stan.take_messages(&durable, 3).len(), 3);
    assert_eq!(stan.close_subscription(&durable), "");
    (stan, plain, durable)
}

/// Each document has its fields, under their names, with the values that clients have brought about.
fn item_58_the_documents_have_their_fields(shards: usize) {
    let server = streaming_on_files(shards).start();
    let (_stan, plain, durable) = with_subscriptions(&server);

    let serverz = server.get_json("/streaming/serverz");
    for (key, value) in [
        ("cluster_id", json!(CLUSTER)),
        ("state", json!("STANDALONE")),
        ("clients", json!(1)),
        ("subscriptions", json!(2)),
        ("channels", json!(1)),
        ("total_msgs", json!(3)),
        ("in_msgs", json!(3)),
        ("out_msgs", json!(5)),
    ] {
        assert_eq!(serverz[key], value, "{key}: {serverz:#}");
    }
    for key in ["server_id", "version", "go", "now", "start_time", "uptime"] {
        assert!(serverz[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {serverz:#}");
    }
    // Of requests and deliveries as a whole: the payloads are two bytes long.
    for (key, least) in [("total_bytes", 3 * 10), ("in_bytes", 3 * 20), ("out_bytes", 5 * 10)] {
        assert!(serverz[key].as_u64().is_some_and(|count| count > least), "{key}: {serverz:#}");
    }

    let storez = server.get_json("/streaming/storez");
    assert_eq!(keys(&storez), ["cluster_id", "limits", "now", "server_id", "total_bytes", "total_msgs", "type"]);
    assert_eq!((&storez["type"], &storez["total_msgs"]), (&json!("FILE"), &json!(3)));
    let limits = json!({
        "max_channels": 100, "max_msgs": 1_000_000, "max_bytes": 1_024_000_000, "max_age": 0,
        "max_subscriptions": 1000, "max_inactivity": 0,
    });
    assert_eq!(storez["limits"], limits);

    let client = server.get_json("/streaming/clientsz?client=c1");
    assert_eq!(keys(&client), ["hb_inbox", "id", "subs_count"]);
    assert_eq!((&client["id"], &client["subs_count"]), (&json!("c1"), &json!(1)));
    let client = server.get_json("/streaming/clientsz?client=c1&subs=1");
    assert_eq!(client["subscriptions"]["orders"][0]["inbox"], plain.inbox.as_str());

    let channel = server.get_json("/streaming/channelsz?channel=orders");
    assert_eq!(keys(&channel), ["bytes", "first_seq", "last_seq", "msgs", "name", "subs_count"]);
    let channel = server.get_json("/streaming/channelsz?channel=orders&subs=1");
    assert_eq!((&channel["name"], &channel["msgs"]), (&json!("orders"), &json!(3)));
    assert_eq!(
        (&channel["first_seq"], &channel["last_seq"], &channel["subs_count"]),
        (&json!(1), &json!(3), &json!(2))
    );
    let all = channel["subscriptions"].as_array().expect("a list");
    let of = |inbox: &str| all.iter().find(|one| one["inbox"] == inbox).expect("the subscription is listed").clone();
    let expected = json!({
        "client_id": "c1", "inbox": plain.inbox, "ack_inbox": plain.ack_inbox, "is_durable": false,
        "is_offline": false, "max_inflight": 2, "ack_wait": 7, "last_sent": 2, "pending_count": 2, "is_stalled": true,
    });
    assert_eq!(of(&plain.inbox), expected);
    let offline = of(&durable.inbox);
    for (key, value) in [
        ("client_id", json!("c1")),
        ("durable_name", json!("d")),
        ("is_durable", json!(true)),
        ("is_offline", json!(true)),
        ("last_sent", json!(3)),
        ("pending_count", json!(3)),
        ("is_stalled", json!(true)),
    ] {
        assert_eq!(offline[key], value, "{key}: {offline:#}");
    }

    let missing = server.get("/streaming/clientsz?client=nobody");
    assert_eq!((missing.status, missing.body.trim()), (404, "Client nobody not found"));
    let missing = server.get("/streaming/channelsz?channel=nowhere");
    assert_eq!((missing.status, missing.body.trim()), (404, "Channel nowhere not found"));
    let active = server.get("/streaming/isFTActive");
    assert_eq!((active.status, active.body.as_str()), (204, ""));
    let called = server.get("/streaming/serverz?callback=show");
    assert_eq!(called.header("content-type"), "application/javascript");
    assert!(called.body.starts_with("show({") && called.body.ends_with("})"), "{}", called.body);
    assert_eq!(server.get("/streaming/serverz").header("content-type"), "application/json");
    assert_eq!(server.get("/streaming").status, 200);
}

/// Lists are sorted and cut into pages.
fn item_58_the_documents_have_pages(shards: usize) {
    let server = streaming(shards).start();
    let mut clients: Vec<Stan> = (0..5).map(|at| Stan::connect_on(&server, at, &format!("c{at}"))).collect();
    for name in ["e", "b", "d", "a", "c"] {
        clients[0].publish(name, "x");
    }
    let request = clients[1].wants("b");
    let subscription = clients[1].subscribe(&request);

    let all = server.get_json("/streaming/channelsz");
    assert_eq!(all["names"], json!(["a", "b", "c", "d", "e"]));
    assert_eq!(header(&all), json!([CLUSTER, 0, 1024, 5, 5]));
    let page = server.get_json("/streaming/channelsz?offset=1&limit=2");
    assert_eq!((&page["names"], header(&page)), (&json!(["b", "c"]), json!([CLUSTER, 1, 2, 2, 5])));
    let page = server.get_json("/streaming/channelsz?offset=4&limit=2&subs=1");
    assert!(page.get("names").is_none());
    assert_eq!((&page["channels"][0]["name"], header(&page)), (&json!("e"), json!([CLUSTER, 4, 2, 1, 5])));
    let page = server.get_json("/streaming/channelsz?offset=1&limit=1&subs=1");
    assert_eq!(page["channels"][0]["subscriptions"][0]["inbox"], subscription.inbox.as_str());
    let beyond = server.get_json("/streaming/channelsz?offset=9");
    assert_eq!((&beyond["count"], &beyond["total"]), (&json!(0), &json!(5)));

    let all = server.get_json("/streaming/clientsz");
    assert_eq!(header(&all), json!([CLUSTER, 0, 1024, 5, 5]));
    assert_eq!(ids(&all), ["c0", "c1", "c2", "c3", "c4"]);
    let page = server.get_json("/streaming/clientsz?offset=1&limit=2&subs=1");
    assert_eq!((ids(&page), header(&page)), (vec!["c1", "c2"], json!([CLUSTER, 1, 2, 2, 5])));
    assert_eq!(page["clients"][0]["subscriptions"]["b"][0]["inbox"], subscription.inbox.as_str());
}

fn header(document: &Value) -> Value {
    ["cluster_id", "offset", "limit", "count", "total"].map(|key| document[key].clone()).into_iter().collect()
}

fn ids(document: &Value) -> Vec<&str> {
    let clients = document["clients"].as_array().expect("a list");
    clients.iter().map(|client| client["id"].as_str().expect("an id")).collect()
}

/// A server that has a part of the channels leaves the rest to others: there a publish finds nobody, and a subscription
/// is not answered.
#[test]
fn item_59_a_divided_service_keeps_to_its_channels() {
    let dir = tempfile::TempDir::new().expect("a temporary directory should be creatable");
    let file = dir.path().join("partition.conf");
    let text = "streaming { partitioning: true, store_limits { channels { foo: {}, \"bar.*\": {} } } }";
    std::fs::write(&file, text).expect("the configuration file should be written");
    let server = streaming(1).args(&["-c", file.to_str().expect("temporary paths are text")]).start();
    let mut stan = Stan::connect(&server, "c1");
    let prefix = stan.subjects().pub_prefix.clone();
    for channel in ["foo", "bar.a"] {
        stan.publish(channel, "x");
        let request = stan.wants(channel);
        let subscription = stan.subscribe(&request);
        assert_eq!(stan.next(&subscription).sequence, 1);
    }
    for channel in ["baz", "bar", "bar.a.b"] {
        let message = stan.message(channel, "x");
        let reply = stan.ask(&format!("{prefix}.{channel}"), &prost::Message::encode_to_vec(&message));
        let msg = stan.raw().next_msg();
        assert_eq!(msg.subject, reply);
        assert!(msg.headers.is_some_and(|headers| headers.starts_with(b"NATS/1.0 503")), "{channel} finds nobody");
    }
    let nonsense = stan.wants("a..b");
    assert_eq!(stan.try_subscribe(&nonsense).unwrap_err(), "stan: invalid subject");
    // The answer to the subscription behind it is the only one that comes.
    let mut elsewhere = stan.wants("baz");
    elsewhere.durable_name = "d".to_owned();
    let subject = stan.subjects().sub_requests.clone();
    stan.ask(&subject, &prost::Message::encode_to_vec(&elsewhere));
    let request = stan.wants("foo");
    let subscription = stan.subscribe(&request);
    assert_eq!(stan.next(&subscription).sequence, 1);
    let messages = stan.raw().messages_to_fence();
    assert!(messages.is_empty(), "{messages:?}");
    assert_eq!(server.get("/streaming/channelsz?channel=baz").status, 404);
    assert_eq!(server.get_json("/streaming/channelsz")["names"], json!(["bar.a", "foo"]));
}

/// A store in memory has no files that could fail it: messages and subscriptions come and go, limits remove messages, and
/// the server is healthy all the time and stops when it is told to.
#[test]
fn a_store_in_memory_is_healthy() {
    for shards in [1, 3] {
        let mut server = streaming(shards).args(&["-st", "memory", "-mm", "5"]).start();
        assert_eq!(server.get("/healthz").status, 200);
        let mut stan = Stan::connect_on(&server, 0, "c1");
        for channel in channels(shards) {
            let requests = [stan.wants(&channel).durable("d"), stan.wants(&channel).queue("g"), stan.wants(&channel)];
            stan.publish_numbers(&channel, 1..=10);
            for request in requests {
                let subscription = stan.subscribe(&request);
                assert_eq!(sequences(&stan.take_messages(&subscription, 5)), [6, 7, 8, 9, 10]);
                stan.ack(&subscription, 6);
                await_pending(&server, &subscription, 4);
                assert_eq!(stan.close_subscription(&subscription), "");
            }
        }
        let health = server.get("/healthz");
        assert_eq!(health.status, 200, "{}", health.body);
        server.signal(libc::SIGTERM);
        assert!(server.wait_exit(PATIENCE).is_some_and(|status| status.success()));
        // The harness asks whether the service is there with a request that makes no sense.
        let log = server.stderr();
        let errors = log.lines().filter(|line| line.contains("[ERR]") && !line.contains("Invalid conn request"));
        assert_eq!(errors.count(), 0, "{log}");
    }
}

/// Without a channel there is nothing to divide.
#[test]
fn a_divided_service_without_channels_does_not_start() {
    let dir = tempfile::TempDir::new().expect("a temporary directory should be creatable");
    let file = dir.path().join("partition.conf");
    std::fs::write(&file, "streaming { partitioning: true }").expect("the configuration file should be written");
    let finished = streaming(1).args(&["-c", file.to_str().expect("temporary paths are text")]).start_in_vain();
    assert!(finished.stderr.contains("stan: no configured channel"), "{}", finished.stderr);
}
