//! Where a subscription begins.

use std::time::{Duration, Instant};

use crate::support::{PATIENCE, shard_suite, wait_until};
use crate::support_streaming::wire::Start;
use crate::support_streaming::{Stan, channels, sequences, streaming, texts, unix_ns};

shard_suite!(one_shard = 1, three_shards = 3 => {
    item_20_each_position_begins_where_it_says,
    item_21_a_time_begins_at_the_first_message_after_it,
    item_22_the_last_of_an_empty_channel_is_the_next,
});

/// Ten messages are there; the eleventh shows those who had nothing to begin with, and that nobody else was left out.
fn item_20_each_position_begins_where_it_says(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 0, "c1");
    for channel in channels(shards) {
        stan.publish_numbers(&channel, 1..=10);
        let requests = [
            (stan.wants(&channel).at(Start::First), 1),
            (stan.wants(&channel).at(Start::LastReceived), 10),
            (stan.wants(&channel).at_sequence(7), 7),
            (stan.wants(&channel).at_sequence(0), 1),
            (stan.wants(&channel).at_sequence(10), 10),
            (stan.wants(&channel).at_sequence(11), 11),
            (stan.wants(&channel).at_sequence(100), 11),
            (stan.wants(&channel).at(Start::NewOnly), 11),
            (stan.wants(&channel).since(i64::MAX), 1),
            (stan.wants(&channel).since(i64::MIN), 1),
            (stan.wants(&channel).since(-1), 11),
        ];
        let subscriptions = requests.map(|(request, first)| (stan.subscribe(&request), first));
        stan.publish_numbers(&channel, [11]);
        for (subscription, first) in subscriptions {
            let count = usize::try_from(12 - first).expect("small");
            let expected: Vec<u64> = (first..=11).collect();
            assert_eq!(sequences(&stan.take_messages(&subscription, count)), expected, "{channel}");
        }
    }
}

/// An absolute time travels as the time since, so both are one case: two messages two seconds apart, and a beginning
/// half-way between them. Everything is too old, nothing is, and a time to come are the ends.
fn item_21_a_time_begins_at_the_first_message_after_it(shards: usize) {
    const APART: Duration = Duration::from_secs(2);
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 0, "c1");
    let channels = channels(shards);
    for channel in &channels {
        stan.publish(channel, "early");
    }
    let (published, half_way) = (Instant::now(), unix_ns() + 1_000_000_000);
    wait_until("the next message is late", PATIENCE, || published.elapsed() >= APART);
    for channel in &channels {
        stan.publish(channel, "late");
    }
    for channel in &channels {
        let request = stan.wants(channel).since(unix_ns() - half_way);
        let subscription = stan.subscribe(&request);
        assert_eq!(texts(&[stan.next(&subscription)]), ["late"]);
        let requests = [
            (stan.wants(channel).since(3_600_000_000_000), ["early", "late", "new"].as_slice()),
            (stan.wants(channel).since(i64::MAX), &["early", "late", "new"]),
            (stan.wants(channel).since(0), &["new"]),
            (stan.wants(channel).since(-3_600_000_000_000), &["new"]),
        ];
        let subscriptions = requests.map(|(request, expected)| (stan.subscribe(&request), expected));
        stan.publish(channel, "new");
        for (subscription, expected) in subscriptions {
            assert_eq!(texts(&stan.take_messages(&subscription, expected.len())), expected, "{channel}");
        }
        assert_eq!(texts(&[stan.next(&subscription)]), ["new"]);
    }
}

/// Whatever the position, a channel without messages begins with the next one.
fn item_22_the_last_of_an_empty_channel_is_the_next(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 0, "c1");
    for channel in channels(shards) {
        let requests = [
            stan.wants(&channel).at(Start::LastReceived),
            stan.wants(&channel).at(Start::First),
            stan.wants(&channel).at_sequence(5),
            stan.wants(&channel).since(1_000_000_000),
        ];
        let subscriptions = requests.map(|request| stan.subscribe(&request));
        stan.publish_numbers(&channel, 1..=2);
        for subscription in subscriptions {
            assert_eq!(sequences(&stan.take_messages(&subscription, 2)), [1, 2]);
        }
    }
}

/// What a limit has removed is skipped without a word.
#[test]
fn item_23_the_first_is_the_first_that_is_left() {
    let server = streaming(1).args(&["-mm", "5"]).start();
    let mut stan = Stan::connect(&server, "c1");
    stan.publish_numbers("orders", 1..=12);
    for request in [stan.wants("orders"), stan.wants("orders").at_sequence(3)] {
        let subscription = stan.subscribe(&request);
        assert_eq!(sequences(&stan.take_messages(&subscription, 5)), [8, 9, 10, 11, 12]);
    }
}
