//! Plain subscriptions: where they begin, how much they get, and what comes again.

use super::world::{SECOND, World};
use crate::streaming::pb::{self, StartPosition};
use crate::streaming::{Options, StoreType};

fn world_with(messages: u64) -> World {
    World::with_messages(3, messages)
}

#[test]
fn item_20_positions() {
    let mut world = world_with(10);
    let cases = [
        (StartPosition::First, 0, Some(1)),
        (StartPosition::LastReceived, 0, Some(10)),
        (StartPosition::SequenceStart, 7, Some(7)),
        (StartPosition::SequenceStart, 0, Some(1)),
        (StartPosition::SequenceStart, 100, None),
        (StartPosition::NewOnly, 0, None),
    ];
    for (index, (position, sequence, first)) in cases.into_iter().enumerate() {
        let inbox = format!("_INBOX.{index}");
        let request = pb::SubscriptionRequest {
            start_position: position.into(),
            start_sequence: sequence,
            ..World::sub_request("me", "foo", &inbox)
        };
        world.subscribe(index as u16 % 3, &request).unwrap();
        let numbers = world.numbers(&inbox);
        assert_eq!(numbers.first().map(|(number, _)| *number), first, "{position:?} {sequence}");
        assert_eq!(numbers.len() as u64, first.map_or(0, |first| 11 - first));
    }
    world.store(0, "foo", "new");
    for index in 0..cases.len() {
        assert_eq!(world.numbers(&format!("_INBOX.{index}")), [(11, 0)]);
    }
}

#[test]
fn item_21_times() {
    for store in [StoreType::File, StoreType::Memory] {
        let mut world = World::with(2, Options { store, ..Options::default() });
        world.connect(1, "me");
        for _ in 0..50 {
            world.store(0, "foo", "early");
        }
        world.pass(2 * SECOND);
        for _ in 0..50 {
            world.store(0, "foo", "late");
        }
        if store == StoreType::File {
            // So that times have to be read.
            world.kill(2);
        }
        for (delta, first) in
            [(SECOND, Some(51)), (100 * SECOND, Some(1)), (i64::MAX, Some(1)), (-SECOND, None), (2 * SECOND, Some(1))]
        {
            let inbox = format!("_INBOX.{delta}");
            let request = pb::SubscriptionRequest {
                start_position: StartPosition::TimeDeltaStart.into(),
                start_time_delta: delta,
                ..World::sub_request("me", "foo", &inbox)
            };
            world.subscribe(0, &request).unwrap();
            let numbers = world.numbers(&inbox);
            assert_eq!(numbers.first().map(|(number, _)| *number), first, "{delta}");
        }
        world.pass(10 * SECOND);
        let request = pb::SubscriptionRequest {
            start_position: StartPosition::TimeDeltaStart.into(),
            start_time_delta: SECOND,
            ..World::sub_request("me", "foo", "_INBOX.old")
        };
        world.subscribe(0, &request).unwrap();
        assert_eq!(world.numbers("_INBOX.old"), []);
        world.store(0, "foo", "new");
        assert_eq!(world.numbers("_INBOX.old"), [(101, 0)]);
    }
}

#[test]
fn item_22_the_last_of_none_is_the_next() {
    let mut world = world_with(0);
    let request = pb::SubscriptionRequest {
        start_position: StartPosition::LastReceived.into(),
        ..World::sub_request("me", "foo", "_INBOX.in")
    };
    world.subscribe(0, &request).unwrap();
    world.store(0, "foo", "x");
    assert_eq!(world.numbers("_INBOX.in"), [(1, 0)]);
}

#[test]
fn item_24_credit() {
    let mut world = world_with(10);
    let request = pb::SubscriptionRequest { max_in_flight: 3, ..World::sub_request("me", "foo", "_INBOX.in") };
    let ack_inbox = world.subscribe(0, &request).unwrap();
    assert_eq!(world.numbers("_INBOX.in"), [(1, 0), (2, 0), (3, 0)]);
    let subscription = world.only_subscription("foo");
    assert_eq!((subscription.pending_count, subscription.is_stalled, subscription.last_sent), (3, true, 3));
    world.ack(2, &ack_inbox, "foo", 2);
    assert_eq!(world.numbers("_INBOX.in"), [(4, 0)]);
    // What makes no sense changes nothing.
    world.ack(2, &ack_inbox, "foo", 2);
    world.ack(2, &ack_inbox, "foo", 100);
    world.ack(2, &ack_inbox, "bar", 1);
    world.ack(2, &format!("{ack_inbox}0"), "foo", 1);
    world.publish(2, &ack_inbox, "", b"\xff");
    assert_eq!(world.numbers("_INBOX.in"), []);
    world.ack(1, &ack_inbox, "foo", 1);
    assert_eq!(world.numbers("_INBOX.in"), [(5, 0)]);
}

#[test]
fn items_25_to_27_what_is_not_acknowledged_comes_again() {
    let mut world = world_with(3);
    let request = pb::SubscriptionRequest {
        max_in_flight: 3,
        ack_wait_in_secs: 1,
        ..World::sub_request("me", "foo", "_INBOX.in")
    };
    let ack_inbox = world.subscribe(0, &request).unwrap();
    world.store(0, "foo", "4");
    assert_eq!(world.numbers("_INBOX.in"), [(1, 0), (2, 0), (3, 0)]);
    world.pass(SECOND + SECOND / 2);
    assert_eq!(world.numbers("_INBOX.in"), [(1, 1), (2, 1), (3, 1)]);
    world.ack(0, &ack_inbox, "foo", 2);
    assert_eq!(world.numbers("_INBOX.in"), [(4, 0)]);
    world.pass(SECOND);
    assert_eq!(
        world.numbers("_INBOX.in").iter().filter(|(number, _)| *number != 4).collect::<Vec<_>>(),
        [&(1, 2), &(3, 2)]
    );
    for number in [1, 3, 4] {
        world.ack(0, &ack_inbox, "foo", number);
    }
    let subscription = world.only_subscription("foo");
    assert_eq!((subscription.pending_count, subscription.is_stalled), (0, false));
    world.messages("_INBOX.in");
    world.pass(10 * SECOND);
    assert_eq!(world.numbers("_INBOX.in"), []);
}

#[test]
fn item_28_what_limits_have_taken_counts_as_acknowledged() {
    let mut options = Options { store: StoreType::File, ..Options::default() };
    options.limits.of_all.max_msgs = 2;
    let mut world = World::with(1, options);
    world.connect(0, "me");
    world.store(0, "foo", "1");
    let request = pb::SubscriptionRequest {
        max_in_flight: 1,
        ack_wait_in_secs: 1,
        ..World::sub_request("me", "foo", "_INBOX.in")
    };
    world.subscribe(0, &request).unwrap();
    for number in 2..=4 {
        world.store(0, "foo", &number.to_string());
    }
    world.pass(3 * SECOND / 2);
    let numbers = world.numbers("_INBOX.in");
    // Room for 2 when 1 goes, and for 3 when 2 goes.
    assert_eq!(numbers[..3], [(1, 0), (2, 0), (3, 0)], "{numbers:?}");
    assert!(numbers[3..].iter().all(|(number, _)| *number == 3), "{numbers:?}");
}

#[test]
fn item_29_a_silent_client_gets_nothing_again() {
    let mut world = World::new(2);
    world.options.hb_interval = std::time::Duration::from_secs(2);
    world.options.hb_timeout = std::time::Duration::from_millis(100);
    world.kill(2);
    world.connect(1, "me");
    let hb_inbox = world.connect_request("me", "me").heartbeat_inbox;
    let request = pb::SubscriptionRequest { ack_wait_in_secs: 4, ..World::sub_request("me", "foo", "_INBOX.in") };
    world.subscribe(0, &request).unwrap();
    world.store(0, "foo", "1");
    world.alive.remove(&hb_inbox);
    world.pass(3 * SECOND);
    world.store(0, "foo", "2");
    assert_eq!(world.numbers("_INBOX.in"), [(1, 0), (2, 0)], "new messages come");
    world.pass(3 * SECOND / 2);
    assert_eq!(world.numbers("_INBOX.in"), []);
    let request = pb::SubscriptionRequest { ack_wait_in_secs: 1, ..World::sub_request("me", "foo", "_INBOX.new") };
    world.subscribe(0, &request).unwrap();
    world.pass(3 * SECOND / 2);
    let numbers = world.numbers("_INBOX.new");
    assert_eq!(numbers, [(1, 0), (2, 0), (1, 1), (2, 1)], "the subscription of a silent client is as good as any");
    world.alive.insert(hb_inbox);
    world.ping(0, "me");
    world.pass(SECOND / 10);
    assert_eq!(world.numbers("_INBOX.in"), [(1, 1)], "a ping has brought the next heartbeat at once");
}

#[test]
fn item_30_what_is_refused() {
    let mut world = world_with(0);
    let request = World::sub_request("me", "foo", "_INBOX.in");
    let cases = [
        (pb::SubscriptionRequest { client_id: String::new(), ..request.clone() }, "stan: clientID missing"),
        (
            pb::SubscriptionRequest { ack_wait_in_secs: 0, ..request.clone() },
            "stan: invalid ack wait time, should be >= 1s",
        ),
        (pb::SubscriptionRequest { max_in_flight: 0, ..request.clone() }, "stan: invalid MaxInflight, should be >= 1"),
        (pb::SubscriptionRequest { start_position: 9, ..request.clone() }, "stan: invalid start position"),
        (pb::SubscriptionRequest { subject: "foo.*".into(), ..request.clone() }, "stan: invalid subject"),
        (pb::SubscriptionRequest { client_id: "nobody".into(), ..request.clone() }, "stan: unknown clientID"),
    ];
    for (request, error) in cases {
        assert_eq!(world.subscribe(2, &request), Err(error.to_owned()));
    }
    let answer = world.request(0, "_STAN.sub.test-cluster", b"\xff").unwrap();
    assert_eq!(answer, b"\x1a\x22stan: invalid subscription request");
    assert!(world.snapshot().channels.is_empty(), "nothing was made on the way");
    let inbox = world.subscribe(2, &pb::SubscriptionRequest { inbox: String::new(), ..request }).unwrap();
    assert_eq!(world.unsubscribe(0, "me", "foo", &inbox, false), "");
}

#[test]
fn item_49_subscriptions_of_a_channel_are_counted() {
    let mut options = Options { store: StoreType::File, ..Options::default() };
    options.limits.of_all.max_subs = 4;
    let mut world = World::with(2, options);
    world.connect(0, "me");
    let queue = |inbox: &str| pb::SubscriptionRequest { q_group: "q".into(), ..World::sub_request("me", "foo", inbox) };
    let durable = pb::SubscriptionRequest { durable_name: "d".into(), ..World::sub_request("me", "foo", "_INBOX.2") };
    let first = world.subscribe(0, &World::sub_request("me", "foo", "_INBOX.1")).unwrap();
    let second = world.subscribe(0, &durable).unwrap();
    world.subscribe(0, &queue("_INBOX.3")).unwrap();
    world.subscribe(0, &queue("_INBOX.4")).unwrap();
    assert_eq!(world.unsubscribe(0, "me", "foo", &second, true), "");
    let fifth = World::sub_request("me", "foo", "_INBOX.5");
    assert_eq!(world.subscribe(0, &fifth), Err("too many subscriptions per channel".to_owned()), "one is offline");
    world.subscribe(0, &durable).unwrap();
    assert_eq!(world.subscribe(0, &fifth), Err("too many subscriptions per channel".to_owned()));
    assert_eq!(world.unsubscribe(0, "me", "foo", &first, false), "");
    world.subscribe(0, &fifth).unwrap();
}

#[test]
fn the_end_of_a_subscription_names_what_is_wrong() {
    let mut world = world_with(1);
    world.connect(0, "other");
    let ack_inbox = world.subscribe(0, &World::sub_request("me", "foo", "_INBOX.in")).unwrap();
    assert_eq!(world.unsubscribe(0, "me", "bar", &ack_inbox, false), "stan: unknown channel");
    assert_eq!(world.unsubscribe(0, "me", "foo", "_INBOX.none", false), "stan: invalid subscription");
    assert_eq!(world.unsubscribe(0, "other", "foo", &ack_inbox, false), "stan: unknown clientID");
    assert_eq!(world.unsubscribe(0, "nobody", "foo", "_INBOX.in", false), "stan: unknown clientID");
    let answer = world.request(0, "_STAN.subclose.test-cluster", b"\xff").unwrap();
    assert_eq!(answer, b"\x1a\x21stan: invalid unsubscribe request");
    // By the inbox for messages, and without a wish for an answer.
    use prost::Message;
    let request = pb::UnsubscribeRequest {
        client_id: "me".into(),
        subject: "foo".into(),
        inbox: "_INBOX.in".into(),
        ..Default::default()
    };
    world.publish(2, "_STAN.subclose.test-cluster", "", &request.encode_to_vec());
    world.settle();
    assert!(world.channel("foo").subscriptions.is_empty());
    world.messages("_INBOX.in");
    world.store(0, "foo", "x");
    assert_eq!(world.numbers("_INBOX.in"), []);
}

/// The answer to a subscription comes before its first message, wherever the channel is at home.
#[test]
fn the_answer_comes_before_the_first_message() {
    use prost::Message;
    let mut world = World::new(3);
    world.connect(1, "me");
    for channel in ["a", "b", "c", "d", "e", "f"] {
        for _ in 0..20 {
            world.store(0, channel, "x");
        }
        for shard in 0..3 {
            let inbox = format!("_INBOX.{channel}.{shard}");
            let request = World::sub_request("me", channel, &inbox).encode_to_vec();
            world.publish(shard, "_STAN.sub.test-cluster", "_INBOX.answer", &request);
            world.settle();
            let order =
                world.got.iter().map(|got| got.subject.clone()).filter(|to| *to == inbox || to == "_INBOX.answer");
            let order = order.collect::<Vec<_>>();
            assert_eq!((order.len(), order[0].as_str()), (21, "_INBOX.answer"));
            world.got.clear();
        }
    }
}

/// An inbox that is no subject must not become part of what others get.
#[test]
fn inboxes_that_are_no_subjects_get_nothing() {
    let mut world = world_with(3);
    for inbox in ["", "a b", "x 0\r\n\r\nMSG y", "a..b", "_INBOX.*"] {
        world.subscribe(0, &World::sub_request("me", "foo", inbox)).unwrap();
        assert_eq!(world.numbers(inbox), [], "{inbox:?}");
    }
    for inbox in ["a b", "x\r\n"] {
        let request = pb::ConnectRequest { heartbeat_inbox: inbox.into(), ..world.connect_request("x", "x") };
        let response: pb::ConnectResponse = world.ask(0, "_STAN.discover.test-cluster", &request);
        assert_eq!(response.error, "stan: invalid connection request");
    }
}

/// Deliveries wait while there is no room for them; answers and acknowledgements of publishes do not.
#[test]
fn deliveries_wait_for_room() {
    let mut world = world_with(5);
    world.may_deliver = false;
    world.subscribe(0, &World::sub_request("me", "foo", "_INBOX.in")).unwrap();
    assert_eq!(world.store(0, "foo", "6"), "");
    assert_eq!(world.numbers("_INBOX.in"), []);
    world.may_deliver = true;
    assert_eq!(world.numbers("_INBOX.in").len(), 6);
}
