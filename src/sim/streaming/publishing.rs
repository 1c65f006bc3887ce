//! Messages come into channels, and go by limits.

use std::time::Duration;

use super::world::{SECOND, World};
use crate::streaming::{Options, StoreType, pb};

const INVALID: &str = "stan: invalid publish request";

#[test]
fn item_11_many_at_once_are_all_acknowledged_without_gaps() {
    use prost::Message;
    let mut world = World::new(3);
    world.connect(0, "me");
    for number in 0..10_000 {
        let message = World::pub_msg("foo", &format!("g{number}"), b"x").encode_to_vec();
        world.publish(2, "_STAN.pub.test-cluster.foo", "_INBOX.acks", &message);
    }
    world.settle();
    let acks = world.take("_INBOX.acks");
    assert_eq!(acks.len(), 10_000);
    for (number, ack) in acks.iter().enumerate() {
        let ack = pb::PubAck::decode(&ack.payload[..]).unwrap();
        assert_eq!(ack, pb::PubAck { guid: format!("g{number}"), error: String::new() });
    }
    let channel = world.channel("foo");
    assert_eq!((channel.msgs, channel.first_seq, channel.last_seq), (10_000, 1, 10_000));
}

#[test]
fn item_13_names_of_channels() {
    let mut world = World::new(2);
    world.connect(0, "me");
    for name in ["a/b", "a.*", "a.>", ".a", "a.", "a..b", ""] {
        let message = World::pub_msg(name, "g", b"x");
        let ack: pb::PubAck = world.ask(0, "_STAN.pub.test-cluster.x", &message);
        assert_eq!(ack, pb::PubAck { guid: "g".into(), error: INVALID.into() }, "{name}");
    }
    assert_eq!(world.store(0, "a b", "x"), "");
    assert_eq!(world.channel("a b").last_seq, 1);
    let message = World::pub_msg("foo", "", b"x");
    let ack: pb::PubAck = world.ask(0, "_STAN.pub.test-cluster.foo", &message);
    assert_eq!(ack.error, INVALID);
    for payload in [&b""[..], b"\xff\xff"] {
        let answer = world.request(0, "_STAN.pub.test-cluster.foo", payload).unwrap();
        assert_eq!(answer, b"\x12\x1dstan: invalid publish request");
    }
}

#[test]
fn item_14_the_connection_counts_and_the_client_does_not() {
    let mut world = World::new(2);
    world.connect(0, "me");
    let message = World::pub_msg("foo", "g", b"x");
    let wrong = pb::PubMsg { conn_id: "other".into(), ..message.clone() };
    assert_eq!(world.ask::<pb::PubAck>(1, "_STAN.pub.test-cluster.foo", &wrong).error, INVALID);
    let right = pb::PubMsg { client_id: "nobody".into(), ..message.clone() };
    assert_eq!(world.ask::<pb::PubAck>(1, "_STAN.pub.test-cluster.foo", &right).error, "");
    let unknown = pb::PubMsg { client_id: "nobody".into(), conn_id: Default::default(), ..message };
    assert_eq!(world.ask::<pb::PubAck>(1, "_STAN.pub.test-cluster.foo", &unknown).error, INVALID);
}

#[test]
fn item_15_names_that_differ_in_the_case_of_letters() {
    let mut world = World::new(3);
    world.connect(0, "me");
    assert_eq!(world.store(0, "foo", "x"), "");
    let error = "rejecting channel \"FOO\" because channel \"foo\" alreay exists (different cases not allowed)";
    assert_eq!(world.store(1, "FOO", "x"), error);
    let request = World::sub_request("me", "FOO", "_INBOX.in");
    assert_eq!(world.subscribe(2, &request), Err(error.to_owned()));
    assert_eq!(world.snapshot().channels.len(), 1);
}

#[test]
fn item_16_channels_are_counted_on_all_shards() {
    let mut options = Options { store: StoreType::File, ..Options::default() };
    options.limits.max_channels = 2;
    let mut world = World::with(3, options);
    world.connect(0, "me");
    assert_eq!((world.store(0, "a", "x"), world.store(0, "b", "x")), (String::new(), String::new()));
    for round in 0..2 {
        assert_eq!(world.store(0, "c", "x"), "too many channels", "{round}");
        let request = World::sub_request("me", "d", "_INBOX.in");
        assert_eq!(world.subscribe(0, &request), Err("too many channels".to_owned()));
        assert_eq!(world.store(0, "a", "x"), "");
        world.kill(2);
    }
}

#[test]
fn item_17_what_is_delivered_is_what_was_published() {
    let mut world = World::new(2);
    world.connect(0, "me");
    let message = pb::PubMsg { reply: "answer.here".into(), ..World::pub_msg("foo", "g", b"\0\xff") };
    assert_eq!(world.ask::<pb::PubAck>(0, "_STAN.pub.test-cluster.foo", &message).error, "");
    world.subscribe(1, &World::sub_request("me", "foo", "_INBOX.in")).unwrap();
    let messages = world.messages("_INBOX.in");
    let expected = pb::MsgProto {
        sequence: 1,
        subject: "foo".into(),
        reply: "answer.here".into(),
        data: b"\0\xff"[..].into(),
        timestamp: messages[0].timestamp,
        redelivered: false,
        redelivery_count: 0,
        crc32: crc32fast::hash(b"\0\xff"),
    };
    assert_eq!(messages, [expected]);
    assert!((world.now - messages[0].timestamp).abs() < SECOND);
}

#[test]
fn items_18_and_19_guids_may_repeat_and_the_plain_subject_is_another_matter() {
    let mut world = World::new(2);
    world.connect(0, "me");
    assert_eq!((world.store(0, "foo", "x"), world.store(1, "foo", "x")), (String::new(), String::new()));
    assert!(!world.has_takers(0, "foo") && !world.has_takers(1, "foo"));
    // The channel is the one in the message, whatever the subject says; a publish may do without an answer.
    use prost::Message;
    let message = World::pub_msg("foo", "g", b"x").encode_to_vec();
    world.publish(0, "_STAN.pub.test-cluster.bar", "", &message);
    world.settle();
    assert_eq!(world.channel("foo").last_seq, 3);
    assert_eq!(world.snapshot().channels.len(), 1);
}

#[test]
fn item_23_the_oldest_messages_give_way() {
    let mut options = Options { store: StoreType::File, ..Options::default() };
    options.limits.of_all.max_msgs = 5;
    let mut world = World::with(2, options);
    world.connect(0, "me");
    for number in 1..=12 {
        world.store(0, "foo", &number.to_string());
    }
    world.subscribe(0, &World::sub_request("me", "foo", "_INBOX.in")).unwrap();
    assert_eq!(world.numbers("_INBOX.in"), [(8, 0), (9, 0), (10, 0), (11, 0), (12, 0)]);
}

#[test]
fn item_45_age() {
    let mut options = Options { store: StoreType::File, ..Options::default() };
    options.limits.of_all.max_age = Duration::from_secs(2);
    let mut world = World::with(2, options);
    world.connect(0, "me");
    for _ in 0..4 {
        world.store(0, "foo", "x");
    }
    world.pass(4 * SECOND);
    let channel = world.channel("foo");
    assert_eq!((channel.msgs, channel.bytes, channel.first_seq, channel.last_seq), (0, 0, 5, 4));
    world.kill(2);
    assert_eq!(world.store(0, "foo", "x"), "");
    assert_eq!(world.channel("foo").last_seq, 5);
}

#[test]
fn items_46_and_47_channels_without_use_go() {
    for store in [StoreType::File, StoreType::Memory] {
        let mut options = Options { store, ..Options::default() };
        options.limits.of_all.max_inactivity = Duration::from_secs(2);
        let mut world = World::with(2, options);
        world.connect(0, "me");
        world.store(0, "foo", "x");
        let durable =
            pb::SubscriptionRequest { durable_name: "d".into(), ..World::sub_request("me", "foo", "_INBOX.d") };
        let ack_inbox = world.subscribe(0, &durable).unwrap();
        world.store(0, "kept", "x");
        world.subscribe(0, &World::sub_request("me", "kept", "_INBOX.k")).unwrap();
        world.pass(5 * SECOND);
        assert_eq!(world.snapshot().channels.len(), 2);
        assert_eq!(world.unsubscribe(0, "me", "foo", &ack_inbox, true), "");
        world.pass(SECOND);
        assert_eq!(world.store(0, "foo", "y"), "");
        world.pass(SECOND + SECOND / 2);
        assert_eq!(world.snapshot().channels.len(), 2, "a message makes it young");
        world.pass(2 * SECOND);
        let names = world.snapshot().channels.into_iter().map(|channel| channel.name).collect::<Vec<_>>();
        assert_eq!(names, ["kept"]);
        assert_eq!(world.store(0, "foo", "z"), "");
        let channel = world.channel("foo");
        assert_eq!((channel.last_seq, channel.subscriptions.len()), (1, 0));
    }
}

#[test]
fn item_54_nothing_of_a_store_in_memory_survives() {
    let mut world = World::with(2, Options { store: StoreType::Memory, ..Options::default() });
    world.connect(0, "me");
    assert_eq!(world.store(0, "foo", "x"), "");
    world.subscribe(1, &World::sub_request("me", "foo", "_INBOX.in")).unwrap();
    assert_eq!(world.numbers("_INBOX.in"), [(1, 0)]);
    world.kill(2);
    assert_eq!(world.ping(0, "me"), "client has been replaced or is no longer registered");
    assert_eq!(world.store(0, "foo", "x"), INVALID);
    world.connect(0, "me");
    assert_eq!(world.store(0, "foo", "x"), "");
    assert_eq!(world.channel("foo").last_seq, 1);
}

#[test]
fn item_55_a_store_of_another_cluster_is_left_alone() {
    let mut world = World::new(2);
    world.connect(0, "me");
    world.settle();
    world.options.cluster_id = "other".into();
    let error = world.try_kill(2).unwrap_err();
    assert_eq!(error.to_string(), "cluster ID \"other\" does not match recovered value of \"test-cluster\"");
}
