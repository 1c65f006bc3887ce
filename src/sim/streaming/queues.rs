//! Queue groups.

use super::world::{SECOND, World};
use crate::streaming::pb::{self, StartPosition};

fn member(id: &str, inbox: &str) -> pb::SubscriptionRequest {
    pb::SubscriptionRequest { q_group: "q".into(), ..World::sub_request(id, "foo", inbox) }
}

fn durable(id: &str, inbox: &str) -> pb::SubscriptionRequest {
    pb::SubscriptionRequest { durable_name: "d".into(), ..member(id, inbox) }
}

fn new_world() -> World {
    World::with_messages(2, 0)
}

fn seqs(world: &mut World, inbox: &str) -> Vec<u64> {
    world.numbers(inbox).into_iter().map(|(number, _)| number).collect()
}

#[test]
fn item_37_equal_members_take_turns() {
    let mut world = new_world();
    world.subscribe(0, &member("me", "_INBOX.a")).unwrap();
    world.subscribe(1, &member("me", "_INBOX.b")).unwrap();
    world.fill(10);
    let (a, b) = (seqs(&mut world, "_INBOX.a"), seqs(&mut world, "_INBOX.b"));
    assert_eq!((a.len(), b.len()), (5, 5));
    let mut all = [a, b].concat();
    all.sort_unstable();
    assert_eq!(all, (1..=10).collect::<Vec<_>>());
}

#[test]
fn item_38_others_take_over_from_a_stalled_member() {
    let mut world = new_world();
    let a = pb::SubscriptionRequest { max_in_flight: 1, ..member("me", "_INBOX.a") };
    world.subscribe(0, &a).unwrap();
    world.subscribe(0, &member("me", "_INBOX.b")).unwrap();
    world.fill(10);
    assert_eq!((seqs(&mut world, "_INBOX.a").len(), seqs(&mut world, "_INBOX.b").len()), (1, 9));
}

#[test]
fn item_39_what_a_member_leaves_goes_to_the_others() {
    let mut world = new_world();
    let a = pb::SubscriptionRequest { max_in_flight: 1, ..member("me", "_INBOX.a") };
    world.subscribe(0, &a).unwrap();
    let b = pb::SubscriptionRequest { max_in_flight: 5, ..member("me", "_INBOX.b") };
    let ack_inbox = world.subscribe(0, &b).unwrap();
    world.fill(6);
    let mut of_b = seqs(&mut world, "_INBOX.b");
    assert_eq!((seqs(&mut world, "_INBOX.a").len(), of_b.len()), (1, 5));
    assert_eq!(world.unsubscribe(0, "me", "foo", &ack_inbox, true), "");
    assert_eq!(world.numbers("_INBOX.a"), []);
    world.pass(SECOND / 2);
    let mut of_a = world.numbers("_INBOX.a");
    of_a.sort_unstable();
    of_b.sort_unstable();
    assert_eq!(of_a, of_b.into_iter().map(|number| (number, 1)).collect::<Vec<_>>());
}

#[test]
fn item_40_an_acknowledgement_of_the_former_holder_counts() {
    let mut world = new_world();
    let short = |inbox: &str| pb::SubscriptionRequest { ack_wait_in_secs: 1, ..member("me", inbox) };
    let a = world.subscribe(0, &short("_INBOX.a")).unwrap();
    world.fill(2);
    assert_eq!(world.numbers("_INBOX.a"), [(1, 0), (2, 0)]);
    world.subscribe(0, &short("_INBOX.b")).unwrap();
    world.pass(SECOND + SECOND / 10);
    let of_b = world.numbers("_INBOX.b");
    assert!(!of_b.is_empty(), "it has less to do");
    for (number, count) in of_b {
        assert_eq!(count, 1);
        world.ack(0, &a, "foo", number);
    }
    world.messages("_INBOX.a");
    world.pass(SECOND * 2);
    assert_eq!(world.channel("foo").subscriptions.iter().map(|one| one.pending_count).sum::<u64>(), 1);
}

#[test]
fn item_41_a_group_ends_with_its_last_member() {
    let mut world = new_world();
    world.fill(3);
    let a = world.subscribe(0, &member("me", "_INBOX.a")).unwrap();
    assert_eq!(seqs(&mut world, "_INBOX.a"), [1, 2, 3]);
    assert_eq!(world.unsubscribe(0, "me", "foo", &a, true), "");
    assert!(world.channel("foo").subscriptions.is_empty());
    let b = pb::SubscriptionRequest { start_position: StartPosition::NewOnly.into(), ..member("me", "_INBOX.b") };
    world.subscribe(0, &b).unwrap();
    world.store(0, "foo", "4");
    assert_eq!(seqs(&mut world, "_INBOX.b"), [4]);
}

#[test]
fn items_42_and_44_a_durable_group_waits_for_members() {
    let mut world = new_world();
    world.connect(0, "other");
    world.fill(3);
    let a = world.subscribe(0, &durable("me", "_INBOX.a")).unwrap();
    world.subscribe(0, &member("me", "_INBOX.plain")).unwrap();
    assert_eq!((seqs(&mut world, "_INBOX.a").len(), seqs(&mut world, "_INBOX.plain").len()), (3, 3), "two groups");
    let names = world.channel("foo").subscriptions.iter().map(|one| one.queue_name.clone()).collect::<Vec<_>>();
    assert!(names.contains(&"d:q".to_owned()) && names.contains(&"q".to_owned()), "{names:?}");
    world.ack(0, &a, "foo", 2);
    assert_eq!(world.close(0, "me"), "");
    let offline = world.only_subscription("foo");
    assert_eq!((offline.queue_name.as_str(), offline.is_offline, offline.pending_count), ("d:q", true, 2));
    assert!(offline.durable_name.is_empty());
    world.connect(0, "me");
    world.store(0, "foo", "4");
    world.subscribe(1, &durable("other", "_INBOX.b")).unwrap();
    assert_eq!(world.numbers("_INBOX.b"), [(1, 1), (3, 1), (4, 0)]);
    let colon = pb::SubscriptionRequest { durable_name: "a:b".into(), ..member("other", "_INBOX.c") };
    let error = "stan: durable name of a durable queue subscriber can't contain the character ':'";
    assert_eq!(world.subscribe(0, &colon), Err(error.to_owned()));
    let plain = pb::SubscriptionRequest { q_group: String::new(), ..colon };
    world.subscribe(0, &plain).unwrap();
}

#[test]
fn item_43_a_durable_group_ends_for_good_with_its_last_member() {
    let mut world = new_world();
    world.fill(2);
    let a = world.subscribe(0, &durable("me", "_INBOX.a")).unwrap();
    let b = world.subscribe(0, &durable("me", "_INBOX.b")).unwrap();
    assert_eq!(world.numbers("_INBOX.a").len(), 2);
    assert_eq!(world.unsubscribe(0, "me", "foo", &a, false), "");
    world.pass(SECOND / 2);
    assert_eq!(world.numbers("_INBOX.b"), [(1, 1), (2, 1)], "not the last one: what it had goes to the others");
    assert_eq!(world.unsubscribe(0, "me", "foo", &b, false), "");
    assert!(world.channel("foo").subscriptions.is_empty());
}

/// A group whose members belong to silent clients goes by those that answer.
#[test]
fn groups_go_by_silent_clients() {
    let mut world = World::new(2);
    world.options.hb_interval = std::time::Duration::from_secs(1);
    world.options.hb_timeout = std::time::Duration::from_millis(100);
    world.kill(2);
    world.connect(0, "me");
    let silent = world.connect_request("silent", "silent");
    let _: pb::ConnectResponse = world.ask(0, "_STAN.discover.test-cluster", &silent);
    world.subscribe(0, &member("me", "_INBOX.a")).unwrap();
    world.subscribe(0, &member("silent", "_INBOX.b")).unwrap();
    world.pass(2 * SECOND);
    world.fill(4);
    assert_eq!((seqs(&mut world, "_INBOX.a").len(), seqs(&mut world, "_INBOX.b").len()), (4, 0));
}
