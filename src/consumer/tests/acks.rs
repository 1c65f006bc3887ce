//! Acknowledgements, floors, redelivery.

use std::num::NonZeroU32;

use super::rig::{MS, Rig, SECOND};
use crate::consumer::{
    AckPolicy, Config, Event, Found, OnReturn, Origin, Pair, Reply, Step, Target, TerminatedBy, Touched, Want,
};

fn pair(consumer_seq: u64, stream_seq: u64) -> Pair {
    Pair { consumer_seq, stream_seq }
}

fn started(config: Config, count: u64) -> Rig {
    let mut rig = Rig::new(config);
    rig.store(count);
    rig.join(u32::MAX);
    assert_eq!(rig.seqs(), (1..=count).collect::<Vec<_>>());
    rig
}

#[test]
fn the_floor_is_below_the_lowest_unacknowledged_message() {
    let mut rig = started(Config::default(), 5);
    for (seq, floor) in [(2, pair(0, 0)), (1, pair(2, 2)), (4, pair(2, 2)), (3, pair(4, 4)), (5, pair(5, 5))] {
        let done = Reply::Done(Touched { consumer_seq: seq, deliveries: 1 });
        assert_eq!(rig.consumer.ack(rig.now, seq), done);
        assert_eq!(rig.consumer.info().ack_floor, floor, "after {seq}");
        assert_eq!(rig.consumer.ack(rig.now, seq), Reply::Known, "once more");
    }
    assert_eq!(rig.consumer.ack(rig.now, 6), Reply::Ignored, "not delivered");
    assert_eq!(rig.consumer.next_deadline(), None, "nothing pending costs nothing");
}

#[test]
fn redeliveries_count_but_the_floor_keeps_first_numbers() {
    let mut rig = started(Config::default(), 3);
    rig.consumer.nak(rig.now, 2, 0);
    let sent = rig.pump();
    assert_eq!((sent[0].seq, sent[0].how.consumer_seq, sent[0].how.deliveries), (2, 4, 2));
    assert_eq!(rig.consumer.info().delivered, pair(4, 3));
    assert_eq!(rig.consumer.info().num_redelivered, 1);
    rig.consumer.ack(rig.now, 1);
    assert_eq!(rig.consumer.info().ack_floor, pair(1, 1));
    rig.consumer.ack(rig.now, 3);
    rig.consumer.ack(rig.now, 2);
    assert_eq!(rig.consumer.info().ack_floor, pair(4, 3), "nothing pending: the last delivery");
    assert_eq!(rig.consumer.info().num_redelivered, 0);
}

#[test]
fn one_acknowledgement_covers_all_before() {
    let mut rig = started(Config { ack: AckPolicy::All, ..Config::default() }, 5);
    assert_eq!(rig.consumer.ack(rig.now, 3), Reply::Done(Touched { consumer_seq: 3, deliveries: 1 }));
    assert_eq!(rig.consumer.info().ack_floor, pair(3, 3));
    assert_eq!(rig.consumer.info().num_ack_pending, 2);
    assert_eq!(rig.consumer.ack(rig.now, 2), Reply::Known);
    assert_eq!(rig.events(), [Event::Acknowledged { first: 1, last: 3 }]);
}

#[test]
fn without_acknowledgements_delivered_is_received() {
    let mut rig = started(Config { ack: AckPolicy::None, ..Config::default() }, 3);
    assert_eq!(rig.consumer.info().ack_floor, pair(3, 3));
    assert_eq!(rig.consumer.ack(rig.now, 3), Reply::Ignored);
    assert_eq!(rig.consumer.nak(rig.now, 3, 0), Reply::Ignored);
    assert_eq!(rig.consumer.info().num_ack_pending, 0);
    assert_eq!(rig.events(), [Event::Acknowledged { first: 1, last: 3 }]);
    assert_eq!(rig.pass(100 * SECOND), []);
}

#[test]
fn waits_follow_the_backoff_and_end_with_the_last_delivery() {
    let backoff_ns = vec![SECOND, 2 * SECOND];
    let config = Config { backoff_ns, max_deliver: NonZeroU32::new(4), ..Config::default() };
    let mut rig = started(config, 1);
    assert_eq!(rig.pass(100 * SECOND), [(SECOND, 1), (3 * SECOND, 1), (5 * SECOND, 1)]);
    assert_eq!(rig.events(), [Event::MaxDeliveries { seq: 1, consumer_seq: 1, deliveries: 4 }]);
    let info = rig.consumer.info();
    assert_eq!((info.num_ack_pending, info.num_redelivered, info.ack_floor), (0, 1, pair(0, 0)));
    assert!(!rig.consumer.is_done_with(1), "it stays in the stream");
    rig.store(1);
    assert_eq!(rig.seqs(), [2]);
    rig.consumer.ack(rig.now, 2);
    assert_eq!(rig.consumer.info().ack_floor, pair(5, 2), "the floor goes over it with a later acknowledgement");
    assert_eq!(rig.consumer.ack(rig.now, 1), Reply::Known);
    assert!(rig.consumer.is_done_with(1), "received after all");
    assert_eq!(rig.events().last(), Some(&Event::Acknowledged { first: 1, last: 1 }));
}

#[test]
fn a_message_used_up_waits_for_somebody_before_it_is_given_up() {
    let mut rig = Rig::new(Config { max_deliver: NonZeroU32::new(1), ..Config::default() });
    rig.store(1);
    rig.pull(1);
    assert_eq!(rig.seqs(), [1]);
    rig.events();
    rig.pass(60 * SECOND);
    assert_eq!(rig.events(), []);
    assert_eq!(rig.consumer.info().num_ack_pending, 1);
    rig.pull(1);
    assert_eq!(rig.seqs(), [0; 0]);
    assert!(matches!(rig.events()[..], [Event::MaxDeliveries { seq: 1, .. }]));
    assert_eq!(rig.consumer.info().num_redelivered, 0, "one delivery is none too many");
}

#[test]
fn delays_and_progress_move_a_deadline() {
    let mut rig = started(Config::default(), 3);
    rig.consumer.nak(rig.now, 1, 5 * SECOND);
    rig.pass(29 * SECOND);
    rig.consumer.progress(rig.now, 2);
    rig.consumer.ack(rig.now, 1);
    assert_eq!(rig.pass(2 * SECOND), [(SECOND, 3)]);
    assert_eq!(rig.pass(28 * SECOND), [(28 * SECOND, 2)]);
}

#[test]
fn redeliveries_go_before_new_messages_and_an_acknowledgement_in_between_counts() {
    let mut rig = Rig::new(Config { max_ack_pending: NonZeroU32::new(3), ..Config::default() });
    rig.store(6);
    rig.pull(3);
    assert_eq!(rig.seqs(), [1, 2, 3]);
    rig.pull(10);
    assert_eq!(rig.seqs(), [0; 0], "as many wait for acknowledgement as may");
    rig.now += 31 * SECOND;
    rig.consumer.expire(rig.now);
    rig.consumer.ack(rig.now, 2);
    assert_eq!(rig.seqs(), [1, 3, 4], "redeliveries are not held back");
}

#[test]
fn progress_takes_a_message_out_of_the_queue() {
    let mut rig = started(Config::default(), 2);
    rig.consumer.nak(rig.now, 1, 0);
    rig.consumer.nak(rig.now, 2, 0);
    rig.consumer.progress(rig.now, 1);
    assert_eq!(rig.seqs(), [2]);
}

#[test]
fn naks_without_end_do_not_grow_the_queue() {
    let mut rig = Rig::new(Config::default());
    rig.store(2);
    rig.pull(2);
    assert_eq!(rig.seqs(), [1, 2]);
    for _ in 0..10_000 {
        rig.consumer.nak(rig.now, 1, 0);
        rig.consumer.nak(rig.now, 1, MS);
    }
    assert!(rig.consumer.queue.len() < 200, "{}", rig.consumer.queue.len());
}

#[test]
fn termination_is_told_and_final() {
    let mut rig = started(Config::default(), 2);
    assert!(matches!(rig.consumer.terminate(rig.now, 2), Reply::Done(_)));
    assert!(rig.consumer.is_done_with(2));
    rig.remove(1);
    let told = |seq, by| Event::Terminated { seq, consumer_seq: seq, deliveries: 1, by };
    let acknowledged = |seq| Event::Acknowledged { first: seq, last: seq };
    let expected = [acknowledged(2), told(2, TerminatedBy::Client), acknowledged(1), told(1, TerminatedBy::Removal)];
    assert_eq!(rig.events(), expected);
    assert_eq!(rig.consumer.info().ack_floor, pair(2, 2));
    assert_eq!(rig.pass(100 * SECOND), []);
}

#[test]
fn a_purge_drops_what_waits_and_raises_the_floor() {
    let mut rig = started(Config::default(), 5);
    rig.store(5);
    rig.remove_below(4);
    let info = rig.consumer.info();
    assert_eq!((info.num_ack_pending, info.ack_floor), (2, pair(3, 3)));
    rig.remove_below(11);
    let info = rig.consumer.info();
    assert_eq!((info.num_ack_pending, info.num_pending), (0, 0));
    assert_eq!((info.delivered, info.ack_floor), (pair(5, 10), pair(5, 10)));
    rig.store(1);
    assert_eq!(rig.seqs(), [11]);
}

#[test]
fn a_reset_begins_again_with_number_one() {
    let mut rig = started(Config::default(), 5);
    rig.consumer.ack(rig.now, 1);
    rig.consumer.reset(3);
    rig.consumer.set_num_pending(3);
    assert_eq!((rig.consumer.info().delivered, rig.consumer.info().ack_floor), (pair(0, 2), pair(0, 2)));
    let sent = rig.pump();
    assert_eq!(sent.iter().map(|sent| (sent.seq, sent.how.consumer_seq)).collect::<Vec<_>>(), [(3, 1), (4, 2), (5, 3)]);
}

#[test]
fn a_change_of_address_sends_everything_again() {
    let mut rig = started(Config::default(), 3);
    rig.consumer.ack(rig.now, 2);
    rig.consumer.redeliver_all();
    assert_eq!(rig.seqs(), [1, 3]);
}

#[test]
fn single_messages_come_first_and_may_be_gone() {
    let origin = Origin { each: vec![2, 5, 7], from: 9 };
    let mut rig = Rig::with(Config::default(), origin, 8);
    assert_eq!(rig.consumer.info().delivered, pair(0, 1));
    assert_eq!(rig.consumer.info().num_pending, 3);
    rig.remove(5);
    assert_eq!(rig.consumer.info().num_pending, 2);
    rig.store(1);
    assert!(!rig.consumer.is_done_with(7) && rig.consumer.is_done_with(3));
    let to = Target::Member(rig.join(10));
    assert_eq!(rig.consumer.next(rig.now), Want::This { seq: 2, to });
    rig.consumer.passed(2);
    assert_eq!(rig.seqs(), [7, 9]);
    assert_eq!(rig.consumer.info().num_pending, 0);
}

#[test]
fn what_is_not_wanted_any_longer_is_not_delivered() {
    let mut rig = Rig::new(Config { on_return: OnReturn::KeepDeadlines, ..Config::default() });
    rig.store(2);
    let to = Target::Member(rig.join(10));
    let found = |seq| Found { seq, time: 0, bytes: 1 };
    assert!(matches!(rig.consumer.deliver(rig.now, to, &found(1)), Step::Send(_)));
    assert_eq!(rig.consumer.deliver(rig.now, to, &found(1)), Step::Again, "it waits");
    assert!(matches!(rig.consumer.deliver(rig.now, to, &found(2)), Step::Send(_)));
    assert_eq!(rig.consumer.deliver(rig.now, to, &found(3)), Step::Again, "nothing is pending");
    let Target::Member(id) = to else { unreachable!() };
    rig.consumer.leave(rig.now, id);
    rig.consumer.nak(rig.now, 1, 0);
    assert_eq!(rig.consumer.deliver(rig.now, to, &found(1)), Step::Again, "it has left");
}
