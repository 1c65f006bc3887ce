//! Pause, bytes per second, original pace, inactivity, configuration.

use std::num::{NonZeroU32, NonZeroU64};

use super::rig::{MS, Rig, SECOND};
use crate::consumer::{AckPolicy, Config, Event, Invalid, Origin, Pace, Rate, Sharing};

#[test]
fn nothing_is_delivered_before_the_pause_is_over() {
    let mut rig = Rig::new(Config { pause_until: Some(1010 * SECOND), ..Config::default() });
    rig.join(10);
    assert_eq!(rig.pass(SECOND), []);
    rig.store(1);
    assert_eq!(rig.pass(20 * SECOND), [(9 * SECOND, 1)]);
    let config = Config { pause_until: Some(rig.now + 40 * SECOND), ..rig.consumer.config().clone() };
    rig.consumer.update(rig.now, config).unwrap();
    assert_eq!(rig.pass(60 * SECOND), [(40 * SECOND, 1)], "redeliveries are paused, too");
}

#[test]
fn bytes_per_second_are_limited_after_a_burst() {
    let rate = Rate { bytes_per_second: NonZeroU64::new(1000).unwrap(), burst_bytes: NonZeroU64::new(200).unwrap() };
    let mut rig = Rig::new(Config { rate: Some(rate), ..Config::default() });
    rig.store(5);
    rig.join(10);
    let times: Vec<_> = rig.pass(SECOND).iter().map(|(time, _)| time / MS).collect();
    assert_eq!(times, [0, 0, 1, 101, 201], "two from the burst; then one when there is a byte, 100 ms for each");
    rig.pass(10 * SECOND);
    rig.store(3);
    let times: Vec<_> = rig.pass(SECOND).iter().map(|(time, _)| time / MS).collect();
    assert_eq!(times, [0, 0, 1], "no more is saved than a burst");
}

#[test]
fn old_messages_come_as_they_were_stored_and_new_ones_at_once() {
    let mut rig = Rig::with(Config { pace: Pace::Original, ..Config::default() }, Origin::at(1), 3);
    rig.join(10);
    assert_eq!(rig.pass(10 * SECOND), [(0, 1), (SECOND, 2), (2 * SECOND, 3)]);
    rig.store(1);
    rig.now += 5 * SECOND;
    rig.store(1);
    assert_eq!(rig.seqs(), [4, 5]);
}

#[test]
fn inactivity_is_told_once_and_only_when_nobody_is_there() {
    let config = Config { inactive_threshold_ns: Some(5 * SECOND), ack_wait_ns: 20 * SECOND, ..Config::default() };
    let mut rig = Rig::new(config);
    assert_eq!(rig.consumer.next_deadline(), Some(rig.now + 5 * SECOND));
    let id = rig.join(10);
    rig.pass(60 * SECOND);
    assert_eq!(rig.events(), []);
    rig.consumer.leave(rig.now, id);
    rig.pass(4 * SECOND);
    assert_eq!(rig.events(), []);
    rig.pass(2 * SECOND);
    assert_eq!(rig.events(), [Event::Inactive]);
    assert_eq!(rig.consumer.next_deadline(), None);
    rig.store(1);
    rig.pull(1);
    assert_eq!(rig.seqs(), [1]);
    rig.events();
    rig.pass(19 * SECOND);
    assert_eq!(rig.events(), [], "a message may still be acknowledged");
    rig.pass(2 * SECOND);
    assert_eq!(rig.events(), [Event::Inactive]);
}

#[test]
fn configurations_are_checked() {
    let valid = Config::default();
    let cases = [
        (Config { ack_wait_ns: 0, ..valid.clone() }, Invalid::Duration("ack_wait")),
        (Config { backoff_ns: vec![1, -1], ..valid.clone() }, Invalid::Duration("backoff")),
        (Config { handover_delay_ns: -1, ..valid.clone() }, Invalid::Duration("handover_delay")),
        (Config { filters: vec![String::new()], ..valid.clone() }, Invalid::EmptyFilter),
        (Config { filters: vec!["a".into(); 1025], ..valid.clone() }, Invalid::TooLong("filters")),
        (
            Config { backoff_ns: vec![1, 2], max_deliver: NonZeroU32::new(1), ..valid.clone() },
            Invalid::BackoffBeyondMaxDeliver,
        ),
        (Config { ack: AckPolicy::All, ..valid.clone() }, Invalid::Fixed("ack")),
        (Config { sharing: Sharing::Group, ..valid.clone() }, Invalid::Fixed("sharing")),
        (Config { memory: true, ..valid.clone() }, Invalid::Fixed("memory")),
    ];
    for (config, flaw) in cases {
        let mut rig = Rig::new(valid.clone());
        assert_eq!(rig.consumer.update(rig.now, config), Err(flaw));
        assert_eq!(rig.consumer.config(), &valid);
        assert!(rig.consumer.changed().is_none());
    }
    assert_eq!(valid.validate(), Ok(()));
    assert_eq!(Config { ack: AckPolicy::None, ack_wait_ns: 0, ..valid }.validate(), Ok(()));
}

#[test]
fn a_changed_limit_takes_effect_at_once() {
    let mut rig = Rig::new(Config { max_ack_pending: NonZeroU32::new(1), ..Config::default() });
    rig.store(3);
    rig.join(10);
    assert_eq!(rig.seqs(), [1]);
    let config = Config { max_ack_pending: NonZeroU32::new(2), ..rig.consumer.config().clone() };
    rig.consumer.update(rig.now, config).unwrap();
    assert_eq!(rig.seqs(), [2]);
}
