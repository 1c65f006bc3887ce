//! Credit, choice, suspension, hand-over, return.

use super::rig::{MS, Rig, SECOND, Sent};
use crate::consumer::{
    Choice, Config, Consumer, Event, Left, MemberId, Occupied, OnReturn, Presence, RedeliveryOrder, RestartDeadline,
    Sharing, Target, Terms,
};

fn group() -> Config {
    Config { sharing: Sharing::Group, max_ack_pending: None, on_return: OnReturn::ResendAll, ..Config::default() }
}

fn of(sent: &[Sent], id: MemberId) -> Vec<u64> {
    sent.iter().filter(|sent| sent.to == Target::Member(id)).map(|sent| sent.seq).collect()
}

#[test]
fn credit_holds_new_messages_back_and_an_acknowledgement_lets_one_go() {
    let mut rig = Rig::new(Config::default());
    rig.store(5);
    let id = rig.join(2);
    assert_eq!(rig.seqs(), [1, 2]);
    rig.consumer.ack(rig.now, 2);
    assert_eq!(rig.seqs(), [3]);
    assert_eq!(rig.consumer.member(id), Some((2, 2)));
    assert_eq!(rig.pass(31 * SECOND), [(30 * SECOND, 1), (30 * SECOND, 3)], "again in spite of it");
    rig.consumer.set_credit(id, 3);
    assert_eq!(rig.seqs(), [4]);
    assert_eq!(rig.consumer.join(rig.now, 1), Err(Occupied));
}

#[test]
fn equal_members_take_turns_and_the_one_with_less_gets_more() {
    let mut rig = Rig::new(group());
    let (a, b) = (rig.join(10), rig.join(10));
    rig.store(6);
    let sent = rig.pump();
    assert_eq!((of(&sent, a), of(&sent, b)), (vec![1, 3, 5], vec![2, 4, 6]));
    rig.consumer.ack(rig.now, 2);
    rig.consumer.ack(rig.now, 4);
    rig.store(2);
    assert_eq!(of(&rig.pump(), b), [7, 8]);
}

#[test]
fn in_turn_does_not_look_at_what_is_pending() {
    let mut rig = Rig::new(Config { choice: Choice::RoundRobin, ..group() });
    let (a, b) = (rig.join(10), rig.join(2));
    rig.store(7);
    let sent = rig.pump();
    assert_eq!((of(&sent, a), of(&sent, b)), (vec![1, 3, 5, 6, 7], vec![2, 4]), "b has no credit left");
}

#[test]
fn a_redelivery_goes_to_the_best_member_and_changes_hands() {
    let mut rig = Rig::new(group());
    let a = rig.join(10);
    rig.store(2);
    assert_eq!(of(&rig.pump(), a), [1, 2]);
    let b = rig.join(1);
    rig.consumer.nak(rig.now, 1, 0);
    assert_eq!(of(&rig.pump(), b), [1]);
    assert_eq!((rig.consumer.member(a), rig.consumer.member(b)), (Some((1, 10)), Some((1, 1))));
    rig.consumer.ack(rig.now, 1);
    assert_eq!(rig.consumer.member(b), Some((0, 1)), "whoever acknowledges");
}

#[test]
fn without_overrun_a_redelivery_without_credit_stays_with_its_holder() {
    let mut rig = Rig::new(Config { overrun_credit: false, ..group() });
    let (a, b) = (rig.join(1), rig.join(1));
    rig.store(2);
    rig.pump();
    rig.consumer.nak(rig.now, 2, 0);
    rig.consumer.nak(rig.now, 1, 0);
    let sent = rig.pump();
    assert_eq!((of(&sent, a), of(&sent, b)), (vec![1], vec![2]));
}

#[test]
fn a_leaving_member_hands_over_after_a_delay() {
    let mut rig = Rig::new(group());
    let (a, b, c) = (rig.join(4), rig.join(4), rig.join(4));
    rig.store(12);
    rig.pump();
    assert_eq!(rig.consumer.leave(rig.now, a), Some(Left::Others(4)));
    assert_eq!(rig.consumer.leave(rig.now, a), None);
    assert_eq!((rig.consumer.member(b), rig.consumer.member(c)), (Some((6, 4)), Some((6, 4))));
    assert_eq!(rig.pass(99 * MS), []);
    rig.now += MS;
    let sent = rig.pump();
    assert_eq!((of(&sent, b), of(&sent, c)), (vec![1, 7], vec![4, 10]), "in turn, beyond their credit");
    assert!(sent.iter().all(|sent| sent.how.is_redelivery()));
}

#[test]
fn an_acknowledgement_during_the_hand_over_counts() {
    let mut rig = Rig::new(group());
    let (a, _) = (rig.join(4), rig.join(4));
    rig.store(2);
    rig.pump();
    rig.consumer.leave(rig.now, a);
    rig.consumer.ack(rig.now, 1);
    assert_eq!(rig.pass(SECOND), []);
}

#[test]
fn the_last_member_leaves_a_consumer_offline_and_its_successor_gets_all_again() {
    let mut rig = Rig::new(Config { on_return: OnReturn::ResendAll, ..Config::default() });
    rig.store(6);
    let a = rig.join(4);
    rig.pump();
    rig.consumer.ack(rig.now, 2);
    rig.consumer.nak(rig.now, 3, 3 * SECOND);
    assert_eq!(rig.consumer.leave(rig.now, a), Some(Left::Offline));
    assert_eq!(rig.consumer.next_deadline(), None, "nobody to send to");
    assert_eq!(rig.pass(SECOND), []);
    let b = rig.join(1);
    assert_eq!(rig.seqs(), [1, 3, 4], "in order, whatever the credit");
    assert_eq!(rig.consumer.member(b), Some((3, 1)));
    for seq in [1, 3, 4] {
        rig.consumer.ack(rig.now, seq);
    }
    assert_eq!(rig.seqs(), [5]);
    let config = Config { ends_with_last_member: true, ..rig.consumer.config().clone() };
    rig.consumer.update(rig.now, config).unwrap();
    assert_eq!(rig.consumer.leave(rig.now, b), Some(Left::Ended));
}

#[test]
fn a_return_may_keep_deadlines() {
    let mut rig = Rig::new(Config::default());
    rig.store(2);
    let a = rig.join(1);
    rig.pump();
    rig.consumer.leave(rig.now, a);
    rig.pass(10 * SECOND);
    rig.join(2);
    assert_eq!(rig.pass(25 * SECOND), [(0, 2), (20 * SECOND, 1)]);
}

#[test]
fn a_suspended_member_gets_no_redeliveries_and_in_a_group_what_no_other_can_take() {
    let mut rig = Rig::new(Config::default());
    let a = rig.join(2);
    rig.store(1);
    rig.pump();
    rig.consumer.set_presence(a, Presence::Suspended);
    rig.store(1);
    assert_eq!(rig.pass(100 * SECOND), [(0, 2)], "alone: new messages as far as credit goes");
    rig.consumer.set_presence(a, Presence::Ready);
    assert_eq!(rig.seqs(), [1, 2]);

    let mut rig = Rig::new(group());
    let (a, b) = (rig.join(10), rig.join(1));
    rig.consumer.set_presence(a, Presence::Suspended);
    rig.store(2);
    let sent = rig.pump();
    assert_eq!((of(&sent, b), of(&sent, a)), (vec![1], vec![2]), "b can take one");
    rig.consumer.nak(rig.now, 2, 0);
    assert_eq!(of(&rig.pump(), b), [2], "again to the one that is there, in spite of its credit");
    rig.consumer.set_presence(b, Presence::Suspended);
    rig.consumer.nak(rig.now, 1, 0);
    assert_eq!(of(&rig.pump(), b), [1], "nobody is there: to the one that holds it");
    rig.consumer.leave(rig.now, b);
    rig.now += SECOND;
    assert_eq!(of(&rig.pump(), a), [1, 2], "nobody else is there");
    rig.consumer.set_presence(a, Presence::Held);
    rig.store(1);
    rig.consumer.nak(rig.now, 1, 0);
    assert_eq!(rig.seqs(), [0; 0]);
}

#[test]
fn each_member_has_its_own_wait() {
    let mut rig = Rig::new(group());
    let with = |key, seconds| Terms { key, credit: 1, ack_wait_ns: Some(seconds * SECOND) };
    let slow = rig.consumer.join(rig.now, with(1, 600)).unwrap();
    let quick = rig.consumer.join(rig.now, with(2, 1)).unwrap();
    rig.store(2);
    let sent = rig.pump();
    assert_eq!((of(&sent, slow), of(&sent, quick)), (vec![1], vec![2]));
    rig.consumer.ack(rig.now, 1);
    assert_eq!(rig.pass(SECOND), [(SECOND, 2)], "to the one with room, which has its own wait");
    assert_eq!(rig.pass(500 * SECOND), []);
    rig.consumer.leave(rig.now, quick);
    assert_eq!(rig.pass(101 * SECOND), [(100 * SECOND, 2)]);
}

/// What a member of a group holds it holds after a restart too, so that its credit and its wait stay its own.
#[test]
fn a_group_knows_after_a_restart_who_holds_what() {
    let mut rig = Rig::new(Config { restart_deadline: RestartDeadline::FromStored, ..group() });
    let with = |key, credit, seconds| Terms { key, credit, ack_wait_ns: Some(seconds * SECOND) };
    let (fast, slow, gone) = (with(7, 10, 600), with(8, 1, 60), with(9, 1, 60));
    let ids = [fast, slow, gone].map(|terms| rig.consumer.join(rig.now, terms).unwrap());
    rig.store(12);
    let sent = rig.pump();
    assert_eq!((of(&sent, ids[1]), of(&sent, ids[2])), (vec![2], vec![3]));
    let (mut first, mut delta) = (Vec::new(), Vec::new());
    rig.consumer.take_delta(&mut delta);
    rig.consumer.snapshot(&mut first);
    for with_delta in [false, true] {
        let mut consumer = Consumer::restore(&first).unwrap();
        if with_delta {
            consumer.replay(&delta).unwrap();
        }
        let stored = rig.now;
        consumer.opened(rig.now, |_| Some(stored));
        rig.consumer = consumer;
        let ids = rig.consumer.rejoin(rig.now, &[fast, slow]).unwrap();
        let held = ids.iter().map(|id| rig.consumer.member(*id).unwrap()).collect::<Vec<_>>();
        assert_eq!(held, [(11, 10), (1, 1)], "the one that is gone has left its message to the first");
        assert_eq!(rig.pass(59 * SECOND), []);
        rig.now += SECOND;
        assert_eq!(of(&rig.pump(), ids[1]), [2], "when its own wait is over, to itself");
        rig.now -= 60 * SECOND;
    }
}

#[test]
fn a_held_member_gets_nothing_and_a_draining_one_nothing_new() {
    let mut rig = Rig::new(Config::default());
    let a = rig.join(10);
    rig.store(2);
    rig.pump();
    rig.events();
    rig.consumer.set_presence(a, Presence::Held);
    rig.store(1);
    rig.consumer.nak(rig.now, 1, 0);
    assert_eq!(rig.seqs(), [0; 0]);
    rig.consumer.set_presence(a, Presence::Draining);
    assert_eq!(rig.seqs(), [1]);
    rig.consumer.ack(rig.now, 1);
    assert_eq!(rig.events(), [Event::Acknowledged { first: 1, last: 1 }]);
    rig.consumer.ack(rig.now, 2);
    assert!(rig.events().contains(&Event::Drained(a)));
}

#[test]
fn what_is_due_together_comes_by_deadline_if_asked_for() {
    for (redelivery_order, expected) in [(RedeliveryOrder::Sequence, [1, 2]), (RedeliveryOrder::Deadline, [2, 1])] {
        let mut rig = Rig::new(Config { redelivery_order, timer_slack_ns: 15 * MS, ..Config::default() });
        rig.join(10);
        rig.store(2);
        rig.pump();
        rig.now += 10 * MS;
        rig.consumer.progress(rig.now, 1);
        let times = rig.pass(40 * SECOND);
        let early = 30 * SECOND - 10 * MS;
        assert_eq!(times, [(early, expected[0]), (early, expected[1])]);
    }
}
