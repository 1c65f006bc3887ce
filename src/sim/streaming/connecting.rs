//! Clients come, stay and go.

use super::world::{SECOND, World};
use crate::streaming::pb;

const REGISTERED: &str = "stan: clientID already registered";

#[test]
fn item_01_the_answer_has_all_subjects() {
    let mut world = World::new(2);
    let expected = pb::ConnectResponse {
        pub_prefix: "_STAN.pub.test-cluster".into(),
        sub_requests: "_STAN.sub.test-cluster".into(),
        unsub_requests: "_STAN.unsub.test-cluster".into(),
        close_requests: "_STAN.close.test-cluster".into(),
        sub_close_requests: "_STAN.subclose.test-cluster".into(),
        ping_requests: "_STAN.discover.test-cluster.pings".into(),
        ping_interval: 5,
        ping_max_out: 88,
        protocol: 1,
        ..pb::ConnectResponse::default()
    };
    assert_eq!(world.connect(1, "me"), expected);
}

#[test]
fn item_02_a_client_that_is_there_keeps_its_id() {
    let mut world = World::new(2);
    world.connect(0, "me");
    let other = world.connect_request("me", "other");
    let response: pb::ConnectResponse = world.ask(1, "_STAN.discover.test-cluster", &other);
    assert_eq!(response, pb::ConnectResponse { error: REGISTERED.into(), ..Default::default() });
    assert_eq!(world.ping(1, "me"), "");
}

#[test]
fn item_03_a_client_that_is_gone_is_replaced_at_once() {
    let mut world = World::new(2);
    let first = world.connect_request("me", "me");
    world.deaf.insert(first.heartbeat_inbox.clone());
    let _: pb::ConnectResponse = world.ask(0, "_STAN.discover.test-cluster", &first);
    let second = world.connect_request("me", "other");
    let response: pb::ConnectResponse = world.ask(1, "_STAN.discover.test-cluster", &second);
    assert_eq!(response.error, "");
    assert_eq!(world.ping(0, "me"), "client has been replaced or is no longer registered");
    assert_eq!(world.ping(0, "other"), "");
}

#[test]
fn item_04_a_silent_client_is_replaced_after_half_a_second() {
    let mut world = World::new(2);
    let first = world.connect_request("me", "me");
    let _: pb::ConnectResponse = world.ask(0, "_STAN.discover.test-cluster", &first);
    let second = world.connect_request("me", "other");
    use prost::Message;
    world.publish(1, "_STAN.discover.test-cluster", "_INBOX.answer", &second.encode_to_vec());
    world.pass(499_000_000);
    assert!(world.take("_INBOX.answer").is_empty());
    let third: pb::ConnectResponse = world.ask(1, "_STAN.discover.test-cluster", &second);
    assert_eq!(third.error, REGISTERED, "another one is being looked at");
    world.pass(2_000_000);
    let answers = world.take("_INBOX.answer");
    assert_eq!(pb::ConnectResponse::decode(&answers[0].payload[..]).unwrap().error, "");
    assert_eq!(world.ping(0, "other"), "");
}

#[test]
fn item_05_ids_and_requests() {
    let mut world = World::new(1);
    const BAD: &str = "stan: invalid clientID: only alphanumeric and `-` or `_` characters allowed";
    for (id, error) in [("", BAD), ("a.b", BAD), ("a:b", BAD), ("é", BAD), ("A-b_9", "")] {
        assert_eq!(world.connect(0, id).error, error, "{id}");
    }
    let mut request = world.connect_request("x", "x");
    request.heartbeat_inbox.clear();
    let response: pb::ConnectResponse = world.ask(0, "_STAN.discover.test-cluster", &request);
    assert_eq!(response.error, "stan: invalid connection request");
    let answer = world.request(0, "_STAN.discover.test-cluster", b"\xff\xff").unwrap();
    assert_eq!(answer, b"\x2a\x20stan: invalid connection request");
}

#[test]
fn item_06_another_cluster_id_is_nobodys() {
    let world = World::new(1);
    assert!(!world.has_takers(0, "_STAN.discover.other"));
    assert!(world.has_takers(0, "_STAN.discover.test-cluster"));
}

#[test]
fn item_07_silent_clients_are_given_up() {
    let mut world = World::new(2);
    world.options.hb_interval = std::time::Duration::from_secs(1);
    world.options.hb_timeout = std::time::Duration::from_millis(300);
    world.options.hb_fail_count = 2;
    world.kill(2);
    let silent = world.connect_request("silent", "silent");
    let gone = world.connect_request("gone", "gone");
    world.deaf.insert(gone.heartbeat_inbox.clone());
    for request in [&silent, &gone] {
        let _: pb::ConnectResponse = world.ask(0, "_STAN.discover.test-cluster", request);
    }
    world.connect(1, "fine");
    let ids = |world: &mut World| world.snapshot().clients.into_iter().map(|client| client.id).collect::<Vec<_>>();
    world.pass(2 * SECOND + SECOND / 2);
    assert_eq!(ids(&mut world), ["fine", "gone", "silent"]);
    world.pass(SECOND);
    assert_eq!(ids(&mut world), ["fine", "silent"], "nobody listened three times");
    assert_eq!(world.ping(1, "silent"), "");
    world.pass(SECOND);
    assert_eq!(ids(&mut world), ["fine"]);
    world.pass(100 * SECOND);
    assert_eq!(ids(&mut world), ["fine"]);
}

#[test]
fn item_09_closing() {
    let mut world = World::new(3);
    world.connect(1, "me");
    assert_eq!(world.close(1, "me"), "");
    assert!(world.snapshot().clients.is_empty());
    assert_eq!(world.close(2, "me"), "stan: unknown clientID");
    assert_eq!(world.request(0, "_STAN.close.test-cluster", b"\xff").unwrap(), b"\x0a\x1bstan: invalid close request");
    assert_eq!(world.connect(0, "me").error, "");
}

#[test]
fn item_10_clients_of_protocol_zero() {
    let mut world = World::new(2);
    let mut request = world.connect_request("old", "");
    request.protocol = 0;
    let response: pb::ConnectResponse = world.ask(1, "_STAN.discover.test-cluster", &request);
    assert_eq!((response.ping_requests.as_str(), response.ping_interval, response.ping_max_out), ("", 0, 0));
    assert_eq!(response.protocol, 1);
    let message =
        pb::PubMsg { client_id: "old".into(), conn_id: Default::default(), ..World::pub_msg("foo", "g", b"x") };
    let ack: pb::PubAck = world.ask(1, "_STAN.pub.test-cluster.foo", &message);
    assert_eq!(ack, pb::PubAck { guid: "g".into(), error: String::new() });
}

/// A client's publishes, on whichever shards their channels are at home, come before its end.
#[test]
fn item_56_what_was_sent_before_the_end_counts() {
    use prost::Message;
    let mut world = World::new(3);
    world.connect(1, "me");
    let channels = ["a", "b", "c", "d", "e", "f"];
    for channel in channels {
        let message = World::pub_msg(channel, "g", b"x").encode_to_vec();
        world.publish(1, &format!("_STAN.pub.test-cluster.{channel}"), &format!("_INBOX.{channel}"), &message);
    }
    let close = pb::CloseRequest { client_id: "me".into() }.encode_to_vec();
    world.publish(1, "_STAN.close.test-cluster", "_INBOX.close", &close);
    world.settle();
    for channel in channels {
        let acks = world.take(&format!("_INBOX.{channel}"));
        assert_eq!(pb::PubAck::decode(&acks[0].payload[..]).unwrap().error, "", "{channel}");
        assert_eq!(world.channel(channel).last_seq, 1);
    }
    assert_eq!(world.take("_INBOX.close")[0].payload, b"");
    assert!(world.snapshot().clients.is_empty());
}

#[test]
fn pings_without_sense_get_no_answer() {
    let mut world = World::new(1);
    assert_eq!(world.request(0, "_STAN.discover.test-cluster.pings", b""), None);
    assert_eq!(world.request(0, "_STAN.discover.test-cluster.pings", b"\xff"), None);
}
