//! Durable subscriptions outlive their clients.

use super::world::{SECOND, World};
use crate::streaming::pb::{self, StartPosition};

fn durable(id: &str, inbox: &str) -> pb::SubscriptionRequest {
    pb::SubscriptionRequest { durable_name: "d".into(), ..World::sub_request(id, "foo", inbox) }
}

fn world_with(messages: u64) -> World {
    World::with_messages(2, messages)
}

#[test]
fn item_31_what_was_not_acknowledged_comes_first() {
    let mut world = world_with(6);
    let first = world.subscribe(0, &durable("me", "_INBOX.1")).unwrap();
    assert_eq!(world.numbers("_INBOX.1").len(), 6);
    world.ack(0, &first, "foo", 1);
    world.ack(0, &first, "foo", 3);
    assert_eq!(world.unsubscribe(0, "me", "foo", &first, true), "");
    let offline = world.only_subscription("foo");
    assert!(offline.is_offline && offline.is_durable);
    assert_eq!((offline.client_id.as_str(), offline.pending_count, offline.last_sent), ("me", 4, 6));
    world.store(0, "foo", "7");
    let second = world.subscribe(0, &durable("me", "_INBOX.2")).unwrap();
    assert_ne!(first, second);
    assert_eq!(world.numbers("_INBOX.2"), [(2, 1), (4, 1), (5, 1), (6, 1), (7, 0)]);
    // What is said on the old subject is lost.
    world.ack(0, &first, "foo", 2);
    assert_eq!(world.only_subscription("foo").pending_count, 5);
    assert_eq!(world.numbers("_INBOX.1"), []);
    assert_eq!(world.only_subscription("foo").durable_name, "d");
}

#[test]
fn item_32_one_at_a_time() {
    let mut world = world_with(1);
    world.subscribe(0, &durable("me", "_INBOX.1")).unwrap();
    let error = "stan: duplicate durable registration";
    assert_eq!(world.subscribe(1, &durable("me", "_INBOX.2")), Err(error.to_owned()));
    world.options.replace_durable = true;
    world.kill(2);
    world.subscribe(1, &durable("me", "_INBOX.2")).unwrap();
    world.messages("_INBOX.1");
    assert_eq!(world.numbers("_INBOX.2").len(), 1);
    world.store(0, "foo", "2");
    assert_eq!((world.numbers("_INBOX.1"), world.numbers("_INBOX.2")), (vec![], vec![(2, 0)]));
}

#[test]
fn item_33_for_good() {
    let mut world = world_with(3);
    let first = world.subscribe(0, &durable("me", "_INBOX.1")).unwrap();
    assert_eq!(world.unsubscribe(0, "me", "foo", &first, false), "");
    assert!(world.channel("foo").subscriptions.is_empty());
    let again = pb::SubscriptionRequest { start_position: StartPosition::NewOnly.into(), ..durable("me", "_INBOX.2") };
    world.subscribe(0, &again).unwrap();
    assert_eq!(world.numbers("_INBOX.2"), []);
}

#[test]
fn item_34_the_client_comes_back() {
    let mut world = world_with(5);
    let first = world.subscribe(0, &durable("me", "_INBOX.1")).unwrap();
    for number in [1, 2, 4] {
        world.ack(0, &first, "foo", number);
    }
    // It is gone without a word, and comes again.
    let hb_inbox = world.connect_request("me", "me").heartbeat_inbox;
    world.deaf.insert(hb_inbox);
    let request = world.connect_request("me", "new");
    let response: pb::ConnectResponse = world.ask(0, "_STAN.discover.test-cluster", &request);
    assert_eq!(response.error, "");
    assert!(world.only_subscription("foo").is_offline);
    world.subscribe(0, &durable("me", "_INBOX.2")).unwrap();
    assert_eq!(world.numbers("_INBOX.2"), [(3, 1), (5, 1)]);
}

#[test]
fn item_35_other_wishes_on_return() {
    let mut world = world_with(6);
    let first = world.subscribe(0, &durable("me", "_INBOX.1")).unwrap();
    for number in 1..=4 {
        world.ack(0, &first, "foo", number);
    }
    assert_eq!(world.unsubscribe(0, "me", "foo", &first, true), "");
    let again = pb::SubscriptionRequest { max_in_flight: 1, ack_wait_in_secs: 1, ..durable("me", "_INBOX.2") };
    let second = world.subscribe(0, &again).unwrap();
    world.store(0, "foo", "7");
    assert_eq!(world.numbers("_INBOX.2"), [(5, 1), (6, 1)]);
    world.pass(3 * SECOND / 2);
    assert_eq!(world.numbers("_INBOX.2"), [(5, 2), (6, 2)], "the new wait holds");
    world.ack(0, &second, "foo", 5);
    assert_eq!(world.numbers("_INBOX.2"), [], "still as many as may be");
    world.ack(0, &second, "foo", 6);
    assert_eq!(world.numbers("_INBOX.2"), [(7, 0)]);
}

#[test]
fn item_36_names_belong_to_clients() {
    let mut world = world_with(2);
    world.connect(0, "other");
    let mine = world.subscribe(0, &durable("me", "_INBOX.1")).unwrap();
    world.subscribe(0, &durable("other", "_INBOX.2")).unwrap();
    assert_eq!((world.numbers("_INBOX.1").len(), world.numbers("_INBOX.2").len()), (2, 2));
    world.ack(0, &mine, "foo", 1);
    assert_eq!(world.close(0, "me"), "");
    let mut pending = world
        .channel("foo")
        .subscriptions
        .iter()
        .map(|one| (one.client_id.clone(), one.pending_count))
        .collect::<Vec<_>>();
    pending.sort();
    assert_eq!(pending, [("me".to_owned(), 1), ("other".to_owned(), 2)]);
}

/// An acknowledgement that is followed at once by the end of the subscription counts.
#[test]
fn item_56_an_acknowledgement_before_the_end_counts() {
    use prost::Message;
    let mut world = world_with(2);
    let first = world.subscribe(0, &durable("me", "_INBOX.1")).unwrap();
    let ack = pb::Ack { subject: "foo".into(), sequence: 1 }.encode_to_vec();
    world.publish(1, &first, "", &ack);
    assert_eq!(world.unsubscribe(1, "me", "foo", &first, true), "");
    world.kill(2);
    world.messages("_INBOX.1");
    world.subscribe(0, &durable("me", "_INBOX.2")).unwrap();
    assert_eq!(world.numbers("_INBOX.2").iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2]);
}
