//! Durable subscriptions.

use crate::support::{PATIENCE, shard_suite, wait_until};
use crate::support_streaming::wire::{MsgProto, Start};
use crate::support_streaming::{
    Stan, Subscription, await_pending, channel_state, channels, is_registered, sequences, streaming, subscription_state,
};

shard_suite!(one_shard = 1, three_shards = 3 => {
    item_31_a_durable_resumes_with_what_is_unacknowledged,
    item_32_a_durable_is_online_once,
    item_33_an_unsubscribed_durable_begins_anew,
    item_34_a_durable_survives_its_process,
    item_36_a_durable_name_belongs_to_its_client,
});

/// Sequence numbers with the flag of redelivery.
fn flagged(messages: &[MsgProto]) -> Vec<(u64, bool)> {
    messages.iter().map(|message| (message.sequence, message.redelivered)).collect()
}

fn resume(stan: &mut Stan, channel: &str) -> Subscription {
    let request = stan.wants(channel).durable("d");
    stan.subscribe(&request)
}

/// Closed after 1 and 3 of six, it comes back for 2, 4, 5 and 6, flagged and in order, and goes on with 7. The inbox
/// for acknowledgements is another one, and what goes to the old one is lost.
fn item_31_a_durable_resumes_with_what_is_unacknowledged(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 0, "c1");
    for channel in channels(shards) {
        stan.publish_numbers(&channel, 1..=6);
        let old = resume(&mut stan, &channel);
        assert_eq!(sequences(&stan.take_messages(&old, 6)), [1, 2, 3, 4, 5, 6]);
        stan.ack(&old, 1);
        stan.ack(&old, 3);
        assert_eq!(stan.close_subscription(&old), "");
        let state = &channel_state(&server, &channel).expect("the channel exists")["subscriptions"][0];
        assert_eq!((&state["is_durable"], &state["is_offline"]), (&true.into(), &true.into()));
        assert_eq!((&state["pending_count"], &state["client_id"]), (&4.into(), &"c1".into()));
        stan.ack(&old, 2);
        let new = resume(&mut stan, &channel);
        assert_ne!(new.ack_inbox, old.ack_inbox);
        let again = stan.take_messages(&new, 4);
        assert_eq!(flagged(&again), [(2, true), (4, true), (5, true), (6, true)]);
        stan.publish_numbers(&channel, [7]);
        assert_eq!(flagged(&[stan.next(&new)]), [(7, false)]);
        stan.expect_nothing(&old);
    }
}

/// A second subscription under the name of one that is online is refused, or takes its place, as the server is told.
fn item_32_a_durable_is_online_once(shards: usize) {
    for replaces in [false, true] {
        let mut settings = streaming(shards);
        if replaces {
            settings = settings.arg("--replace_durable");
        }
        let server = settings.start();
        let mut stan = Stan::connect_on(&server, 0, "c1");
        for channel in channels(shards) {
            stan.publish_numbers(&channel, 1..=2);
            let first = resume(&mut stan, &channel);
            assert_eq!(stan.take_messages(&first, 2).len(), 2);
            stan.ack(&first, 1);
            await_pending(&server, &first, 1);
            let request = stan.wants(&channel).durable("d");
            let second = stan.try_subscribe(&request);
            if replaces {
                let second = second.expect("the second takes the place of the first");
                assert_eq!(flagged(&[stan.next(&second)]), [(2, true)]);
                stan.publish_numbers(&channel, [3]);
                assert_eq!(flagged(&[stan.next(&second)]), [(3, false)]);
                stan.expect_nothing(&first);
            } else {
                assert_eq!(second.err().as_deref(), Some("stan: duplicate durable registration"));
                stan.publish_numbers(&channel, [3]);
                assert_eq!(flagged(&[stan.next(&first)]), [(3, false)]);
            }
        }
    }
}

/// To unsubscribe is to forget: the next subscription under the name begins where it says.
fn item_33_an_unsubscribed_durable_begins_anew(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 0, "c1");
    for channel in channels(shards) {
        stan.publish_numbers(&channel, 1..=3);
        let first = resume(&mut stan, &channel);
        assert_eq!(stan.take_messages(&first, 3).len(), 3);
        assert_eq!(stan.unsubscribe(&first), "");
        assert_eq!(channel_state(&server, &channel).expect("the channel exists")["subs_count"], 0);
        let request = stan.wants(&channel).durable("d").at(Start::NewOnly);
        let second = stan.subscribe(&request);
        stan.expect_nothing(&second);
        stan.publish_numbers(&channel, [4]);
        assert_eq!(flagged(&[stan.next(&second)]), [(4, false)]);
    }
}

/// Nobody closes anything: the process is gone, a new one takes its id, and the durable goes on. A plain subscription
/// of the old process is gone with it.
fn item_34_a_durable_survives_its_process(shards: usize) {
    let server = streaming(shards).start();
    for channel in channels(shards) {
        let mut stan = Stan::connect_on(&server, 0, "c1");
        stan.publish_numbers(&channel, 1..=4);
        let old = resume(&mut stan, &channel);
        let request = stan.wants(&channel);
        let plain = stan.subscribe(&request);
        assert_eq!(stan.take_messages(&old, 4).len(), 4);
        stan.ack(&old, 1);
        await_pending(&server, &old, 3);
        drop(stan);
        let mut stan = Stan::connect_on(&server, 1, "c1");
        assert!(subscription_state(&server, &plain).is_none());
        let new = resume(&mut stan, &channel);
        assert_eq!(flagged(&stan.take_messages(&new, 3)), [(2, true), (3, true), (4, true)]);
        stan.publish_numbers(&channel, [5]);
        assert_eq!(flagged(&[stan.next(&new)]), [(5, false)]);
        drop(stan);
    }
}

/// What is under way comes first, however small the new limit; then the new limit holds. The position says nothing.
#[test]
fn item_35_a_resume_takes_a_new_limit_and_no_position() {
    let server = streaming(1).start();
    let mut stan = Stan::connect(&server, "c1");
    stan.publish_numbers("orders", 1..=6);
    let request = stan.wants("orders").durable("d").in_flight(4).at_sequence(1);
    let old = stan.subscribe(&request);
    assert_eq!(sequences(&stan.take_messages(&old, 4)), [1, 2, 3, 4]);
    stan.ack(&old, 1);
    assert_eq!(stan.next(&old).sequence, 5);
    stan.ack(&old, 2);
    assert_eq!(stan.next(&old).sequence, 6);
    assert_eq!(stan.close_subscription(&old), "");
    stan.publish_numbers("orders", 7..=9);
    let request = stan.wants("orders").durable("d").in_flight(2).at(Start::First);
    let new = stan.subscribe(&request);
    assert_eq!(flagged(&stan.take_messages(&new, 4)), [(3, true), (4, true), (5, true), (6, true)]);
    for acked in [3, 4] {
        stan.ack(&new, acked);
        stan.expect_nothing(&new);
    }
    stan.ack(&new, 5);
    assert_eq!(flagged(&[stan.next(&new)]), [(7, false)]);
    stan.expect_nothing(&new);
    stan.ack(&new, 6);
    assert_eq!(flagged(&[stan.next(&new)]), [(8, false)]);
    let state = subscription_state(&server, &new).expect("the subscription is listed");
    assert_eq!((&state["max_inflight"], &state["pending_count"]), (&2.into(), &2.into()));
}

/// The same name under two ids is two durables, each with its own place.
fn item_36_a_durable_name_belongs_to_its_client(shards: usize) {
    let server = streaming(shards).start();
    let mut first = Stan::connect_on(&server, 0, "c1");
    let mut second = Stan::connect_on(&server, 1, "c2");
    for channel in channels(shards) {
        first.publish_numbers(&channel, 1..=2);
        let at_first = resume(&mut first, &channel);
        let at_second = resume(&mut second, &channel);
        assert_eq!(sequences(&first.take_messages(&at_first, 2)), [1, 2]);
        assert_eq!(sequences(&second.take_messages(&at_second, 2)), [1, 2]);
        first.ack(&at_first, 1);
        first.ack(&at_first, 2);
        await_pending(&server, &at_first, 0);
        assert_eq!(first.unsubscribe(&at_first), "");
        assert_eq!(second.close_subscription(&at_second), "");
        let at_second = resume(&mut second, &channel);
        assert_eq!(flagged(&second.take_messages(&at_second, 2)), [(1, true), (2, true)]);
    }
    assert_eq!(second.close(), "");
    wait_until("the closed client is gone", PATIENCE, || !is_registered(&server, "c2"));
    let mut second = Stan::connect_on(&server, 0, "c2");
    for channel in channels(shards) {
        let at_second = resume(&mut second, &channel);
        assert_eq!(sequences(&second.take_messages(&at_second, 2)), [1, 2], "closing the client keeps its durables");
    }
}
