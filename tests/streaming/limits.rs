//! Limits of channels.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{PATIENCE, Server, wait_until};
use crate::support_streaming::{Stan, channel_state, sequences, streaming, streaming_on_files};

fn await_empty(server: &Server, channel: &str) {
    wait_until(&format!("the messages of {channel} are too old"), PATIENCE, || {
        channel_state(server, channel).is_some_and(|state| state["msgs"] == 0)
    });
}

/// Messages end when they are two seconds old; their numbers are not given again, not even after a restart.
#[test]
fn item_45_sequences_go_on_when_messages_have_expired() {
    let mut server = streaming_on_files(1).args(&["-ma", "2s"]).start();
    let mut stan = Stan::connect(&server, "c1");
    let begun = Instant::now();
    stan.publish_numbers("orders", 1..=4);
    await_empty(&server, "orders");
    assert!(begun.elapsed() >= Duration::from_secs(2), "after {:?}", begun.elapsed());
    let state = channel_state(&server, "orders").expect("the channel exists");
    assert_eq!((&state["first_seq"], &state["last_seq"], &state["bytes"]), (&5.into(), &4.into(), &0.into()));
    stan.publish_numbers("orders", [5]);
    let request = stan.wants("orders");
    let subscription = stan.subscribe(&request);
    assert_eq!(stan.next(&subscription).sequence, 5);
    await_empty(&server, "orders");
    server.restart_same_port();
    stan.reconnect(&server);
    await_empty(&server, "orders");
    stan.publish_numbers("orders", [6]);
    let request = stan.wants("orders");
    let subscription = stan.subscribe(&request);
    assert_eq!(stan.next(&subscription).sequence, 6);
}

/// Two seconds without a message or an active subscription, and the channel is gone with all it had, an offline durable
/// included.
#[test]
fn item_46_an_inactive_channel_is_deleted() {
    let server = streaming(1).args(&["-mi", "2s"]).start();
    let mut stan = Stan::connect(&server, "c1");
    stan.publish_numbers("orders", 1..=3);
    let request = stan.wants("orders").durable("d");
    let subscription = stan.subscribe(&request);
    assert_eq!(stan.take_messages(&subscription, 3).len(), 3);
    let begun = Instant::now();
    assert_eq!(stan.close_subscription(&subscription), "");
    wait_until("the channel is deleted", PATIENCE, || channel_state(&server, "orders").is_none());
    assert!(begun.elapsed() >= Duration::from_millis(1900), "after {:?}", begun.elapsed());
    stan.publish_numbers("orders", [1]);
    let state = channel_state(&server, "orders").expect("the channel is made anew");
    assert_eq!((&state["last_seq"], &state["subs_count"]), (&1.into(), &0.into()));
    let request = stan.wants("orders").durable("d");
    let subscription = stan.subscribe(&request);
    let message = stan.next(&subscription);
    assert_eq!((message.sequence, message.redelivered), (1, false));
}

/// A channel with an active subscription stays, while one that was made later goes.
#[test]
fn item_47_an_active_subscription_keeps_its_channel() {
    let server = streaming(1).args(&["-mi", "1s"]).start();
    let mut stan = Stan::connect(&server, "c1");
    stan.publish("watched", "x");
    let request = stan.wants("watched");
    let subscription = stan.subscribe(&request);
    stan.publish("idle", "x");
    wait_until("the idle channel is deleted", PATIENCE, || channel_state(&server, "idle").is_none());
    assert!(channel_state(&server, "watched").is_some());
    stan.publish("watched", "y");
    assert_eq!(sequences(&stan.take_messages(&subscription, 2)), [1, 2]);
}

/// What a pattern does not say it takes from the wider one, and a channel goes by the narrowest that it matches.
#[test]
fn item_48_limits_are_inherited_from_wide_to_narrow() {
    let dir = tempfile::TempDir::new().expect("a temporary directory should be creatable");
    let file = dir.path().join("limits.conf");
    let text = r#"
streaming {
    store_limits {
        max_msgs: 100
        channels {
            "w.>": { max_msgs: 5, max_age: "1h", max_subs: 7 }
            "w.*": { max_msgs: 3 }
            "w.a": { max_msgs: 2, max_age: "0s" }
        }
    }
}
"#;
    std::fs::write(&file, text).expect("the configuration file should be written");
    let server = streaming(1).args(&["-c", file.to_str().expect("temporary paths are text")]).start();
    let limits = server.get_json("/streaming/storez")["limits"].clone();
    let of = |name: &str| {
        let limits = &limits["channels"][name];
        ["max_msgs", "max_age", "max_subscriptions", "max_bytes"].map(|key| limits[key].clone())
    };
    const HOUR_NS: u64 = 3_600_000_000_000;
    assert_eq!(limits["max_msgs"], 100);
    assert_eq!(of("w.>"), [json!(5), json!(HOUR_NS), json!(7), json!(1_024_000_000)]);
    assert_eq!(of("w.*"), [json!(3), json!(HOUR_NS), json!(7), json!(1_024_000_000)]);
    assert_eq!(of("w.a"), [json!(2), json!(0), json!(7), json!(1_024_000_000)]);
    let mut stan = Stan::connect(&server, "c1");
    for (channel, kept) in [("w.a", 2), ("w.b", 3), ("w.b.c", 5), ("v", 8)] {
        stan.publish_numbers(channel, 1..=8);
        let state = channel_state(&server, channel).expect("the channel exists");
        assert_eq!((&state["msgs"], &state["last_seq"]), (&kept.into(), &8.into()), "{channel}");
    }
}

/// Offline durables and each member of a group count; a new one is refused until another has gone.
#[test]
fn item_49_too_many_subscriptions_of_a_channel_are_refused() {
    let server = streaming(1).args(&["-msu", "4"]).start();
    let mut stan = Stan::connect(&server, "c1");
    let durable = stan.wants("orders").durable("d");
    let durable = stan.subscribe(&durable);
    assert_eq!(stan.close_subscription(&durable), "");
    let members = [(); 2].map(|()| {
        let request = stan.wants("orders").queue("g");
        stan.subscribe(&request)
    });
    let request = stan.wants("orders");
    stan.subscribe(&request);
    let request = stan.wants("orders");
    let refused = stan.try_subscribe(&request).err();
    assert_eq!(refused.as_deref(), Some("too many subscriptions per channel"));
    let elsewhere = stan.wants("billing");
    stan.subscribe(&elsewhere);
    let resumed = stan.wants("orders").durable("d");
    stan.subscribe(&resumed);
    assert_eq!(stan.unsubscribe(&members[0]), "");
    stan.subscribe(&request);
}

/// The newest message stays even if it alone is above the limit of bytes.
#[test]
fn the_newest_message_is_kept_beyond_the_limit_of_bytes() {
    let server = streaming(1).args(&["-mb", "1000"]).start();
    let mut stan = Stan::connect(&server, "c1");
    for size in [100, 400, 700, 5000] {
        stan.publish("orders", vec![b'x'; size]);
        let state = channel_state(&server, "orders").expect("the channel exists");
        let bytes = state["bytes"].as_u64().expect("a size");
        assert!(bytes >= size as u64 && (bytes <= 1000 || state["msgs"] == 1), "{state}");
    }
    let request = stan.wants("orders");
    let subscription = stan.subscribe(&request);
    let message = stan.next(&subscription);
    assert_eq!((message.sequence, message.data.len()), (4, 5000));
}
