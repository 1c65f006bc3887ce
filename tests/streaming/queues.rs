//! Queue groups, with and without a durable name.

use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Server, shard_suite, wait_until};
use crate::support_streaming::wire::Start;
use crate::support_streaming::{
    Stan, Subscription, await_pending, channel_state, channels, sequences, streaming, subscription_state,
};

shard_suite!(one_shard = 1, three_shards = 3 => {
    item_37_equal_members_share_equally,
    item_38_a_stalled_member_is_passed_over,
    item_39_what_a_member_leaves_goes_to_the_others,
    item_40_a_message_may_change_its_member,
    item_41_a_group_ends_with_its_last_member,
    item_42_a_durable_group_waits_for_its_next_member,
    item_43_a_durable_group_ends_when_its_last_member_unsubscribes,
});

/// Two clients, on different shards if there are several.
fn two(server: &Server) -> (Stan, Stan) {
    (Stan::connect_on(server, 0, "a"), Stan::connect_on(server, 1, "b"))
}

fn join(stan: &mut Stan, channel: &str, in_flight: i32) -> Subscription {
    let request = stan.wants(channel).queue("g").in_flight(in_flight);
    stan.subscribe(&request)
}

fn join_durable(stan: &mut Stan, channel: &str) -> Subscription {
    let request = stan.wants(channel).queue("g").durable("d").in_flight(10);
    stan.subscribe(&request)
}

/// Each message goes to one of the two, and each gets half of them. A second group, and a plain subscription, get them
/// all.
fn item_37_equal_members_share_equally(shards: usize) {
    let server = streaming(shards).start();
    let (mut a, mut b) = two(&server);
    for channel in channels(shards) {
        let (at_a, at_b) = (join(&mut a, &channel, 10), join(&mut b, &channel, 10));
        let request = b.wants(&channel).queue("other");
        let other = b.subscribe(&request);
        let request = b.wants(&channel);
        let plain = b.subscribe(&request);
        a.publish_numbers(&channel, 1..=10);
        let mut all = sequences(&a.take_messages(&at_a, 5));
        all.extend(sequences(&b.take_messages(&at_b, 5)));
        a.expect_nothing(&at_a);
        b.expect_nothing(&at_b);
        all.sort_unstable();
        let expected: Vec<u64> = (1..=10).collect();
        assert_eq!(all, expected, "{channel}");
        assert_eq!(sequences(&b.take_messages(&other, 10)), expected);
        assert_eq!(sequences(&b.take_messages(&plain, 10)), expected);
    }
}

/// The one who has as much as it may have gets nothing, and holds nobody up.
fn item_38_a_stalled_member_is_passed_over(shards: usize) {
    let server = streaming(shards).start();
    let (mut a, mut b) = two(&server);
    for channel in channels(shards) {
        let at_a = join(&mut a, &channel, 1);
        a.publish_numbers(&channel, [1]);
        assert_eq!(a.next(&at_a).sequence, 1);
        let at_b = join(&mut b, &channel, 5);
        a.publish_numbers(&channel, 2..=8);
        assert_eq!(sequences(&b.take_messages(&at_b, 5)), [2, 3, 4, 5, 6]);
        b.expect_nothing(&at_b);
        a.expect_nothing(&at_a);
        a.ack(&at_a, 1);
        assert_eq!(a.next(&at_a).sequence, 7, "the first who has room gets the next");
        b.ack(&at_b, 4);
        assert_eq!(b.next(&at_b).sequence, 8);
    }
}

/// At once, flagged, and beyond the limit of those who stay.
fn item_39_what_a_member_leaves_goes_to_the_others(shards: usize) {
    let server = streaming(shards).start();
    let (mut a, mut b) = two(&server);
    for channel in channels(shards) {
        let (at_a, at_b) = (join(&mut a, &channel, 5), join(&mut b, &channel, 5));
        a.publish_numbers(&channel, 1..=10);
        a.take_messages(&at_a, 5);
        let left = sequences(&b.take_messages(&at_b, 5));
        let begun = Instant::now();
        assert_eq!(b.close_subscription(&at_b), "");
        let taken = a.take_messages(&at_a, 5);
        assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
        assert_eq!(sequences(&taken), left);
        assert!(taken.iter().all(|message| message.redelivered));
        await_pending(&server, &at_a, 10);
        a.publish_numbers(&channel, [11]);
        for sequence in 1..=5 {
            a.ack(&at_a, sequence);
        }
        a.expect_nothing(&at_a);
        a.ack(&at_a, 6);
        assert_eq!(a.next(&at_a).sequence, 11, "new ones wait until there is room");
    }
}

/// Messages that time out at a busy member go to an idle one; the busy one's acknowledgement still counts.
fn item_40_a_message_may_change_its_member(shards: usize) {
    let server = streaming(shards).start();
    let (mut a, mut b) = two(&server);
    for channel in channels(shards) {
        let request = a.wants(&channel).queue("g").ack_wait(1);
        let at_a = a.subscribe(&request);
        a.publish_numbers(&channel, 1..=4);
        assert_eq!(sequences(&a.take_messages(&at_a, 4)), [1, 2, 3, 4]);
        let at_b = join(&mut b, &channel, 10);
        let moved = b.next(&at_b);
        assert!(moved.redelivered);
        await_pending_sum(&server, &[&at_a, &at_b], 4);
        for sequence in 1..=4 {
            a.ack(&at_a, sequence);
        }
        await_pending_sum(&server, &[&at_a, &at_b], 0);
        a.publish_numbers(&channel, [5]);
        wait_until("the next message is handed to one of them", PATIENCE, || {
            let next = a.next_within(&at_a, Duration::from_millis(5)).or_else(|| b.next_within(&at_b, Duration::ZERO));
            next.is_some_and(|message| message.sequence == 5)
        });
    }
}

fn await_pending_sum(server: &Server, members: &[&Subscription], sum: u64) {
    wait_until(&format!("{sum} messages are pending in the group"), PATIENCE, || {
        let pending = members.iter().map(|member| {
            let state = subscription_state(server, member).expect("the member is listed");
            state["pending_count"].as_u64().expect("a count")
        });
        pending.sum::<u64>() == sum
    });
}

/// Without a durable name the group's place is gone with its last member, by close as by unsubscribe.
fn item_41_a_group_ends_with_its_last_member(shards: usize) {
    let server = streaming(shards).start();
    let (mut a, mut b) = two(&server);
    for channel in channels(shards) {
        for (number, closes) in [(1, true), (2, false)] {
            let at_a = join(&mut a, &channel, 10);
            b.publish_numbers(&channel, [2 * number - 1]);
            while a.next(&at_a).sequence != 2 * number - 1 {}
            let error = if closes { a.close_subscription(&at_a) } else { a.unsubscribe(&at_a) };
            assert_eq!(error, "");
            let request = b.wants(&channel).queue("g").at(Start::NewOnly);
            let at_b = b.subscribe(&request);
            b.publish_numbers(&channel, [2 * number]);
            let first = b.next(&at_b);
            assert_eq!((first.sequence, first.redelivered), (2 * number, false));
            assert_eq!(b.unsubscribe(&at_b), "");
        }
    }
}

/// Its last member has closed with two messages pending; the next one, of another client, gets those first and then
/// what came meanwhile. Groups of other names, and the plain group, know nothing of it.
fn item_42_a_durable_group_waits_for_its_next_member(shards: usize) {
    let server = streaming(shards).start();
    let (mut a, mut b) = two(&server);
    for channel in channels(shards) {
        let at_a = join_durable(&mut a, &channel);
        a.publish_numbers(&channel, 1..=3);
        assert_eq!(sequences(&a.take_messages(&at_a, 3)), [1, 2, 3]);
        a.ack(&at_a, 2);
        assert_eq!(a.close_subscription(&at_a), "");
        b.publish_numbers(&channel, [4]);
        let request = b.wants(&channel).queue("g").durable("d").at(Start::NewOnly);
        let at_b = b.subscribe(&request);
        let all: Vec<(u64, bool)> =
            b.take_messages(&at_b, 3).iter().map(|message| (message.sequence, message.redelivered)).collect();
        assert_eq!(all, [(1, true), (3, true), (4, false)], "{channel}");
        for request in [
            a.wants(&channel).queue("g"),
            a.wants(&channel).queue("h").durable("d"),
            a.wants(&channel).queue("g").durable("e"),
            a.wants(&channel).durable("d"),
        ] {
            let separate = a.subscribe(&request);
            assert_eq!(sequences(&a.take_messages(&separate, 4)), [1, 2, 3, 4], "{request:?}");
        }
    }
}

/// A member that is not the last leaves no more behind than by closing; the last one takes the group along.
fn item_43_a_durable_group_ends_when_its_last_member_unsubscribes(shards: usize) {
    let server = streaming(shards).start();
    let (mut a, mut b) = two(&server);
    for channel in channels(shards) {
        let (at_a, at_b) = (join_durable(&mut a, &channel), join_durable(&mut b, &channel));
        a.publish_numbers(&channel, 1..=2);
        let (first, second) = (a.next(&at_a).sequence, b.next(&at_b).sequence);
        a.ack(&at_a, first);
        await_pending(&server, &at_a, 0);
        assert_eq!(b.unsubscribe(&at_b), "");
        let taken = a.next(&at_a);
        assert_eq!((taken.sequence, taken.redelivered), (second, true));
        assert_eq!(channel_state(&server, &channel).expect("the channel exists")["subs_count"], 1);
        assert_eq!(a.unsubscribe(&at_a), "");
        let state = channel_state(&server, &channel).expect("the channel exists");
        assert_eq!(state["subs_count"], 0);
        assert!(state.get("subscriptions").is_none());
        let anew = join_durable(&mut b, &channel);
        let all = b.take_messages(&anew, 2);
        assert_eq!(sequences(&all), [1, 2]);
        assert!(all.iter().all(|message| !message.redelivered));
        assert_eq!(b.unsubscribe(&anew), "");
    }
}

/// What a member leaves goes to those who have room, not to one that has as much as it may have.
#[test]
fn what_a_member_leaves_goes_to_those_with_room() {
    let server = streaming(2).start();
    let (mut a, mut b) = two(&server);
    let full = join(&mut a, "orders", 1);
    let (leaving, staying) = (join(&mut b, "orders", 20), join(&mut a, "orders", 20));
    a.publish_numbers("orders", 1..=9);
    assert_eq!(a.take_messages(&full, 1).len(), 1);
    let left = sequences(&b.take_messages(&leaving, 4));
    a.take_messages(&staying, 4);
    assert_eq!(b.close_subscription(&leaving), "");
    let mut taken = sequences(&a.take_messages(&staying, 4));
    taken.sort_unstable();
    assert_eq!(taken, left);
    await_pending(&server, &staying, 8);
    a.expect_nothing(&full);
}

/// A member that misses heartbeats is the last one to be asked, not passed over: it gets what the others have no room for,
/// and what the last of them leaves. Subscriptions that its client makes meanwhile are as good as any.
#[test]
fn a_member_that_misses_heartbeats_gets_what_no_other_can_take() {
    let server = streaming(2).args(&["-hbi", "1s", "-hbt", "300ms", "-hbf", "50"]).start();
    let (mut silent, mut healthy) = two(&server);
    silent.answer_heartbeats(false);
    let (at_silent, at_healthy) = (join(&mut silent, "orders", 10), join(&mut healthy, "orders", 1));
    wait_until("a heartbeat has gone unanswered", PATIENCE, || {
        // Reading answers the heartbeats of the healthy one.
        healthy.expect_nothing(&at_healthy);
        silent.expect_nothing(&at_silent);
        silent.heartbeats() >= 2
    });
    healthy.publish_numbers("orders", 1..=3);
    assert_eq!(healthy.next(&at_healthy).sequence, 1);
    assert_eq!(sequences(&silent.take_messages(&at_silent, 2)), [2, 3]);
    assert_eq!(healthy.close_subscription(&at_healthy), "");
    let left = silent.next(&at_silent);
    assert_eq!((left.sequence, left.redelivered), (1, true));
    let request = silent.wants("orders").ack_wait(1);
    let plain = silent.subscribe(&request);
    assert_eq!(sequences(&silent.take_messages(&plain, 3)), [1, 2, 3]);
    assert!(silent.next(&plain).redelivered);
}

/// A member's wait is its own, however long the others wait and whoever has left.
#[test]
fn each_member_waits_for_its_own_acknowledgements() {
    let server = streaming(2).start();
    let (mut patient, mut hasty) = two(&server);
    let wants = |stan: &mut Stan, in_flight, seconds| {
        let request = stan.wants("orders").queue("g").in_flight(in_flight).ack_wait(seconds);
        stan.subscribe(&request)
    };
    let (at_patient, at_hasty) = (wants(&mut patient, 2, 600), wants(&mut hasty, 1, 1));
    patient.publish_numbers("orders", 1..=3);
    assert_eq!(sequences(&patient.take_messages(&at_patient, 2)), [1, 3]);
    assert_eq!(hasty.next(&at_hasty).sequence, 2);
    // Twice for one of them is a wait of the other too, if they had one in common.
    for count in 1..=2 {
        let again = hasty.next(&at_hasty);
        assert_eq!((again.sequence, again.redelivery_count), (2, count));
    }
    assert!(patient.next_within(&at_patient, Duration::ZERO).is_none());
    hasty.ack(&at_hasty, 2);
    assert_eq!(hasty.close_subscription(&at_hasty), "");
    patient.expect_nothing(&at_patient);
}

/// The two names of a durable group are joined with a colon, so the durable name has none. Elsewhere it may have.
#[test]
fn item_44_a_colon_joins_the_names_of_a_durable_group() {
    let server = streaming(1).start();
    let mut stan = Stan::connect(&server, "c1");
    let request = stan.wants("orders").queue("g").durable("a:b");
    let error = "stan: durable name of a durable queue subscriber can't contain the character ':'";
    assert_eq!(stan.try_subscribe(&request).err().as_deref(), Some(error));
    for request in [stan.wants("orders").durable("a:b"), stan.wants("orders").queue("g:h")] {
        stan.subscribe(&request);
    }
    let group = join_durable(&mut stan, "orders");
    let state = subscription_state(&server, &group).expect("the subscription is listed");
    assert_eq!(state["queue_name"], "d:g");
    assert_eq!((state.get("durable_name"), &state["is_durable"]), (None, &true.into()));
    assert_eq!(stan.close_subscription(&group), "");
    let state = channel_state(&server, "orders").expect("the channel exists");
    let offline: Vec<_> =
        state["subscriptions"].as_array().expect("a list").iter().filter(|one| one["is_offline"] == true).collect();
    assert_eq!(offline.len(), 1);
    assert_eq!(offline[0]["queue_name"], "d:g");
}
