//! Flow control, acknowledgements and redelivery.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::config::Config;
use crate::support::{PATIENCE, Server, shard_suite, wait_until};
use crate::support_streaming::wire::SubscriptionRequest;
use crate::support_streaming::{
    Stan, Subscription, await_pending, channels, is_registered, sequences, streaming, streaming_on_files,
    subscription_state,
};

shard_suite!(one_shard = 1, three_shards = 3 => {
    item_24_max_in_flight_is_kept,
    item_25_an_unacknowledged_message_comes_again,
    item_27_an_acknowledged_message_does_not_come_again,
    item_30_bad_subscriptions_are_refused_in_these_words,
    subscriptions_end_by_either_inbox,
    acknowledgements_need_permission_for_inboxes_of_one_token,
});

/// Three are under way and the rest waits; each acknowledgement, of whichever message, brings one more.
fn item_24_max_in_flight_is_kept(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 0, "c1");
    for channel in channels(shards) {
        stan.publish_numbers(&channel, 1..=10);
        let request = stan.wants(&channel).in_flight(3);
        let subscription = stan.subscribe(&request);
        assert_eq!(sequences(&stan.take_messages(&subscription, 3)), [1, 2, 3]);
        stan.expect_nothing(&subscription);
        let state = subscription_state(&server, &subscription).expect("the subscription is listed");
        assert_eq!((&state["pending_count"], &state["is_stalled"]), (&3.into(), &true.into()));
        assert_eq!(state["last_sent"], 3);
        for (acked, next) in [(2, 4), (4, 5), (1, 6), (3, 7)] {
            stan.ack(&subscription, acked);
            assert_eq!(stan.next(&subscription).sequence, next);
            stan.expect_nothing(&subscription);
        }
        // Acknowledgements of what is not pending open no room.
        for unknown in [1, 99, 0] {
            stan.ack(&subscription, unknown);
        }
        stan.expect_nothing(&subscription);
        stan.ack(&subscription, 5);
        assert_eq!(stan.next(&subscription).sequence, 8);
        stan.expect_nothing(&subscription);
    }
}

/// Every second, with the flag and the count, until it is acknowledged.
fn item_25_an_unacknowledged_message_comes_again(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 0, "c1");
    let channels = channels(shards);
    let mut subscriptions = Vec::new();
    let begun = Instant::now();
    for channel in &channels {
        stan.publish(channel, "x");
        let request = stan.wants(channel).ack_wait(1);
        subscriptions.push(stan.subscribe(&request));
    }
    for subscription in &subscriptions {
        let first = stan.next(subscription);
        assert_eq!((first.sequence, first.redelivered, first.redelivery_count), (1, false, 0));
        for count in 1..=2 {
            let again = stan.next(subscription);
            assert_eq!((again.redelivered, again.redelivery_count), (true, count));
            assert_eq!((again.sequence, &again.data, again.timestamp), (1, &first.data, first.timestamp));
            assert!(begun.elapsed() >= Duration::from_millis(980) * count, "{count} after {:?}", begun.elapsed());
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(8));
}

/// The limit is for new messages: what has been sent and not acknowledged comes again, all of it.
#[test]
fn item_26_redelivery_ignores_max_in_flight() {
    let server = streaming(1).start();
    let mut stan = Stan::connect(&server, "c1");
    stan.publish_numbers("orders", 1..=5);
    let request = stan.wants("orders").in_flight(3).ack_wait(1);
    let subscription = stan.subscribe(&request);
    assert_eq!(sequences(&stan.take_messages(&subscription, 3)), [1, 2, 3]);
    let again = stan.take_messages(&subscription, 3);
    assert_eq!(sequences(&again), [1, 2, 3]);
    assert!(again.iter().all(|message| message.redelivery_count == 1));
}

/// Two subscriptions get the same messages at the same time; when those that the one has left come again, those that
/// the other has acknowledged would have.
fn item_27_an_acknowledged_message_does_not_come_again(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 0, "c1");
    for channel in channels(shards) {
        stan.publish_numbers(&channel, 1..=3);
        let requests = [(); 2].map(|()| stan.wants(&channel).ack_wait(1).in_flight(3));
        let [acked, left] = requests.map(|request| stan.subscribe(&request));
        stan.take_messages(&acked, 3);
        stan.take_messages(&left, 3);
        for sequence in 1..=3 {
            stan.ack(&acked, sequence);
        }
        await_pending(&server, &acked, 0);
        let state = subscription_state(&server, &acked).expect("the subscription is listed");
        assert_eq!(state["is_stalled"], false);
        let state = subscription_state(&server, &left).expect("the subscription is listed");
        assert_eq!((&state["pending_count"], &state["is_stalled"]), (&3.into(), &true.into()));
        assert_eq!(sequences(&stan.take_messages(&left, 3)), [1, 2, 3]);
        stan.expect_nothing(&acked);
    }
}

/// A pending message that a limit removes counts as acknowledged, and delivery goes on with what is left.
#[test]
fn item_28_a_removed_message_does_not_come_again() {
    let server = streaming(1).args(&["-mm", "3"]).start();
    let mut stan = Stan::connect(&server, "c1");
    stan.publish("orders", "m1");
    let request = stan.wants("orders").in_flight(1).ack_wait(1);
    let subscription = stan.subscribe(&request);
    assert_eq!(stan.next(&subscription).sequence, 1);
    stan.publish_numbers("orders", 2..=6);
    // The reference notices at the end of the wait that 1 is gone, Leat when it goes: then 2 is there.
    let next = stan.next(&subscription);
    assert!((2..=4).contains(&next.sequence) && !next.redelivered, "{next:?}");
    stan.ack(&subscription, next.sequence);
    let later = stan.next(&subscription);
    assert!(later.sequence > next.sequence, "{later:?}");
}

/// A client with failed heartbeats gets no message again until one succeeds; a healthy one beside it shows when it
/// would have. New messages go on.
#[test]
fn item_29_failed_heartbeats_hold_redelivery_back() {
    let server = streaming(1).args(&["-hbi", "1s", "-hbt", "300ms", "-hbf", "50"]).start();
    let mut healthy = Stan::connect(&server, "healthy");
    let mut silent = Stan::connect(&server, "silent");
    silent.answer_heartbeats(false);
    let subscribe = |stan: &mut Stan| {
        let request = stan.wants("orders").ack_wait(3);
        stan.subscribe(&request)
    };
    let (at_silent, at_healthy) = (subscribe(&mut silent), subscribe(&mut healthy));
    healthy.publish("orders", "m1");
    assert_eq!(silent.next(&at_silent).sequence, 1);
    assert_eq!(healthy.next(&at_healthy).sequence, 1);
    for count in 1..=2 {
        assert_eq!(healthy.next(&at_healthy).redelivery_count, count);
        silent.expect_nothing(&at_silent);
    }
    assert!(silent.heartbeats() >= 4, "heartbeats went unanswered");
    healthy.publish("orders", "m2");
    let new = silent.next(&at_silent);
    assert_eq!((new.sequence, new.redelivered), (2, false));
    silent.answer_heartbeats(true);
    let again = silent.next(&at_silent);
    assert_eq!((again.sequence, again.redelivery_count), (1, 1));
    assert!(is_registered(&server, "silent"));
}

/// What is wrong with a request is said in the words that clients show, one fault at a time, in the order of the
/// checks.
fn item_30_bad_subscriptions_are_refused_in_these_words(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 1, "c1");
    stan.publish("orders", "x");
    let good = stan.wants("orders");
    let mut refusal = |request: SubscriptionRequest| {
        stan.try_subscribe(&request).err().unwrap_or_else(|| panic!("{request:?} is accepted"))
    };
    let with = |change: fn(&mut SubscriptionRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    assert_eq!(refusal(SubscriptionRequest::default()), "stan: clientID missing");
    for seconds in [0, -1] {
        let request = good.clone().ack_wait(seconds).in_flight(0);
        assert_eq!(refusal(request), "stan: invalid ack wait time, should be >= 1s");
    }
    for count in [0, -1] {
        let mut request = good.clone().in_flight(count);
        request.start_position = 9;
        assert_eq!(refusal(request), "stan: invalid MaxInflight, should be >= 1");
    }
    for position in [-1, 5, 9] {
        let request = SubscriptionRequest { start_position: position, subject: "a.*".to_owned(), ..good.clone() };
        assert_eq!(refusal(request), "stan: invalid start position");
    }
    for subject in ["", "a.*", "a.>", "a/b", ".a", "a.", "a..b"] {
        let request = SubscriptionRequest { subject: subject.to_owned(), client_id: "c9".to_owned(), ..good.clone() };
        assert_eq!(refusal(request), "stan: invalid subject", "{subject:?}");
    }
    assert_eq!(refusal(with(|request| request.client_id = "c9".to_owned())), "stan: unknown clientID");
    let subscription = stan.subscribe(&good);
    assert_eq!(stan.next(&subscription).sequence, 1);
    let subject = stan.subjects().sub_requests.clone();
    assert_eq!(stan.request(&subject, b"\xff"), b"\x1a\x22stan: invalid subscription request");
}

/// The inbox for acknowledgements or that for messages, of this client: nothing else ends a subscription.
fn subscriptions_end_by_either_inbox(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 0, "c1");
    let mut other = Stan::connect_on(&server, 1, "c2");
    let (unsub, close) = (stan.subjects().unsub_requests.clone(), stan.subjects().sub_close_requests.clone());
    for channel in channels(shards) {
        for subject in [&unsub, &close] {
            for by_ack_inbox in [true, false] {
                let request = stan.wants(&channel);
                let subscription = stan.subscribe(&request);
                let inbox = if by_ack_inbox { &subscription.ack_inbox } else { &subscription.inbox };
                assert_eq!(stan.end(subject, "nowhere", inbox), "stan: unknown channel");
                assert_eq!(stan.end(subject, &channel, "nobody"), "stan: invalid subscription");
                assert_eq!(other.end(subject, &channel, inbox), "stan: unknown clientID");
                assert!(subscription_state(&server, &subscription).is_some());
                assert_eq!(stan.end(subject, &channel, inbox), "");
                assert!(subscription_state(&server, &subscription).is_none());
                assert_eq!(stan.end(subject, &channel, inbox), "stan: invalid subscription");
            }
            assert_eq!(stan.request(subject, b"\xff"), b"\x1a\x21stan: invalid unsubscribe request");
        }
    }
    // A client that has given up waiting closes with the inbox for messages and wants no answer.
    let request = stan.wants("orders.0");
    let subscription = stan.subscribe(&request);
    let payload = prost::Message::encode_to_vec(&crate::support_streaming::wire::UnsubscribeRequest {
        client_id: "c1".to_owned(),
        subject: "orders.0".to_owned(),
        inbox: subscription.inbox.clone(),
        durable_name: String::new(),
    });
    stan.raw().publish(&close, payload);
    wait_until("the subscription has ended", PATIENCE, || subscription_state(&server, &subscription).is_none());
}

/// The subject for acknowledgements is `_INBOX.` and one token, which is all that many users may publish to; for a client
/// whose inbox is of an earlier version it is also two. Each acknowledgement counts, after a restart too.
fn acknowledgements_need_permission_for_inboxes_of_one_token(shards: usize) {
    let config = Config::new(
        r#"authorization { users: [
            { user: narrow, password: p, permissions: { publish: ["_STAN.>", "_INBOX.*"], subscribe: ["_INBOX.>", "_STAN.>"] } }
            { user: wide, password: p }
        ] }
        no_auth_user: wide"#,
    );
    let mut server = streaming_on_files(shards).args(&["-c", config.path()]).start();
    let log_in = |server: &Server, user: &str| {
        let user = json!({"user": user, "pass": "p", "verbose": false, "headers": true, "no_responders": true});
        server.connect().login(&user)
    };
    let mut stan = Stan::open(&server, log_in(&server, "narrow"), "c1");
    assert_eq!(stan.register().error, "");
    let mut all = Vec::new();
    for channel in channels(shards) {
        stan.publish_numbers(&channel, 1..=3);
        let request = stan.wants(&channel);
        let subscription = stan.subscribe(&request);
        assert_eq!(subscription.ack_inbox.split('.').count(), 2, "{}", subscription.ack_inbox);
        stan.take_messages(&subscription, 3);
        stan.ack(&subscription, 1);
        await_pending(&server, &subscription, 2);
        all.push(subscription);
    }
    server.restart_same_port();
    for (user, sequence) in [("narrow", 2), ("wide", 3)] {
        stan.reconnect_with(log_in(&server, user));
        for subscription in &all {
            let (tag, number) = subscription.ack_inbox.split_at("_INBOX.".len() + 22);
            let ack_inbox = if user == "narrow" { format!("{tag}{number}") } else { format!("{tag}.{number}") };
            let subscription = &Subscription { ack_inbox, ..subscription.clone() };
            // That the first one was acknowledged may not have reached the disk.
            stan.ack(subscription, 1);
            stan.ack(subscription, sequence);
            await_pending(&server, subscription, 3 - sequence);
        }
    }
    for subscription in &all {
        let (tag, number) = subscription.ack_inbox.split_at("_INBOX.".len() + 22);
        let before = Subscription { ack_inbox: format!("{tag}.{number}"), ..subscription.clone() };
        assert_eq!(stan.unsubscribe(&before), "");
    }
}
