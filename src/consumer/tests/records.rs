//! Records: what they hold, and what is refused.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::rig::{Rig, SECOND};
use crate::consumer::{Config, Consumer, Counts, Flaw, Origin, RESERVED_BLOCK, RestartDeadline};
use crate::log::Urgency;

fn delta(rig: &mut Rig) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mark = rig.consumer.take_delta(&mut bytes);
    rig.consumer.flushed(mark);
    bytes
}

#[test]
fn a_delta_of_many_deliveries_and_acknowledgements_is_small() {
    let mut rig = Rig::new(Config::default());
    rig.join(1000);
    rig.store(10);
    let sent = rig.seqs();
    for seq in sent.iter().rev() {
        rig.consumer.ack(rig.now, *seq);
    }
    let bytes = delta(&mut rig);
    assert!(bytes.len() <= 24, "{} bytes", bytes.len());
    assert_eq!(rig.consumer.changed(), None);
    rig.store(1);
    assert_eq!(rig.consumer.changed(), None, "what the stream does is not the consumer's to record");
}

#[test]
fn numbers_wait_for_their_reservation() {
    let config = Config { max_ack_pending: None, ..Config::default() };
    let mut rig = Rig::new(config);
    rig.join(u32::MAX);
    rig.store(RESERVED_BLOCK * 2);
    let mut count = 0;
    while rig.step().is_some() {
        count += 1;
    }
    assert_eq!(count, RESERVED_BLOCK);
    assert_eq!(rig.consumer.changed(), Some(Urgency::Now));
    let mark = rig.consumer.take_delta(&mut Vec::new());
    assert_eq!(rig.step(), None, "written is not flushed");
    assert!(rig.consumer.flushed(mark), "deliveries have waited for it");
    assert_eq!(rig.step().unwrap().how.consumer_seq, RESERVED_BLOCK + 1);
}

#[test]
fn after_a_crash_numbers_jump_forward_and_after_a_stop_they_go_on() {
    let mut rig = Rig::new(Config::default());
    let mut first = Vec::new();
    rig.consumer.snapshot(&mut first);
    rig.join(2);
    rig.store(3);
    assert_eq!(rig.seqs(), [1, 2]);
    let open = |bytes: &[u8], more: &[u8], now| {
        let mut consumer = Consumer::restore(bytes).unwrap();
        if !more.is_empty() {
            consumer.replay(more).unwrap();
        }
        consumer.opened(now, |_| None);
        consumer
    };
    let crashed = open(&first, &[], rig.now);
    assert_eq!((crashed.next_consumer_seq, crashed.info().delivered.consumer_seq), (RESERVED_BLOCK + 1, 0));
    let mut last = Vec::new();
    rig.consumer.stop(&mut last);
    assert_eq!(rig.seqs(), [0; 0], "stopped");
    let stopped = open(&first, &last, rig.now);
    assert_eq!((stopped.next_consumer_seq, stopped.info().num_ack_pending), (3, 2));
}

#[test]
fn a_restart_counts_waits_and_deliveries_as_configured() {
    for (counts, restart_deadline, expected) in [
        (Counts::Kept, RestartDeadline::FromNow, vec![(30 * SECOND, 1, 3), (30 * SECOND, 2, 2)]),
        (Counts::Forgotten, RestartDeadline::FromStored, vec![(0, 1, 2), (20 * SECOND, 2, 2)]),
    ] {
        let mut rig = Rig::new(Config { counts, restart_deadline, ..Config::default() });
        let id = rig.join(10);
        rig.store(1);
        rig.pump();
        rig.pass(60 * SECOND - 1);
        rig.store(1);
        rig.pump();
        rig.consumer.leave(rig.now, id);
        let mut bytes = Vec::new();
        rig.consumer.snapshot(&mut bytes);
        rig.now += 10 * SECOND;
        rig.consumer = Consumer::restore(&bytes).unwrap();
        let times: Vec<_> = rig.messages.values().map(|stored| stored.time).collect();
        rig.consumer.opened(rig.now, |seq| times.get(seq as usize - 1).copied());
        rig.consumer.rejoin(rig.now, &[10]).unwrap();
        let start = rig.now;
        let mut found = Vec::new();
        while found.len() < 2 {
            rig.flush();
            found.extend(rig.pump().iter().map(|sent| (rig.now - start, sent.seq, sent.how.deliveries)));
            rig.now = rig.consumer.next_deadline().unwrap();
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn configuration_and_single_messages_are_recorded() {
    let origin = Origin { each: vec![3, 900, 70_000], from: 80_000 };
    let config = Config { max_deliver: NonZeroU32::new(7), filters: vec!["a.*".into()], ..Config::default() };
    let mut consumer = Consumer::new(0, config.clone(), origin).unwrap();
    let mut bytes = Vec::new();
    consumer.first_record(&mut bytes);
    assert_eq!(consumer.changed(), None);
    let new = Config { headers_only: true, ..config.clone() };
    consumer.update(0, new.clone()).unwrap();
    let mut change = Vec::new();
    consumer.take_delta(&mut change);
    let mut restored = Consumer::restore(&bytes).unwrap();
    assert_eq!(restored.config(), &config);
    assert_eq!(restored.each, [3, 900, 70_000]);
    assert_eq!((restored.next_seq(), restored.info().delivered.stream_seq), (80_000, 2));
    restored.replay(&change).unwrap();
    assert_eq!(restored.config(), &new);
}

#[test]
fn a_list_of_single_messages_goes_on_where_it_was() {
    let mut rig = Rig::with(Config::default(), Origin { each: vec![2, 5, 7], from: 9 }, 8);
    let mut first = Vec::new();
    rig.consumer.snapshot(&mut first);
    rig.join(2);
    assert_eq!(rig.seqs(), [2, 5]);
    rig.consumer.ack(rig.now, 2);
    assert_eq!(rig.step().unwrap().seq, 7);
    let second = delta(&mut rig);
    rig.consumer.passed(20);
    assert_eq!(rig.consumer.changed(), None, "not worth a record alone");
    rig.consumer.ack(rig.now, 5);
    let third = delta(&mut rig);
    let mut restored = Consumer::restore(&first).unwrap();
    assert_eq!(restored.each, [2, 5, 7]);
    restored.replay(&second).unwrap();
    assert_eq!((restored.each_left(), restored.next_seq()), (0, 9));
    assert_eq!(restored.ack_pending().map(|(seq, ..)| seq).collect::<Vec<_>>(), [5, 7]);
    restored.replay(&third).unwrap();
    assert_eq!(restored.next_seq(), 21);
    assert_eq!(restored.info().ack_floor.stream_seq, 6);
}

#[test]
fn a_cut_makes_room_for_other_messages_with_the_same_numbers() {
    let mut rig = Rig::new(Config::default());
    let mut records = vec![Vec::new()];
    rig.consumer.snapshot(&mut records[0]);
    rig.join(100);
    rig.store(8);
    rig.pump();
    rig.consumer.ack(rig.now, 7);
    records.append(&mut rig.written);
    records.push(delta(&mut rig));
    rig.consumer.ack(rig.now, 8);
    rig.last = 5;
    rig.messages.retain(|seq, _| *seq <= 5);
    rig.consumer.cut(5);
    rig.consumer.set_num_pending(0);
    rig.store(4);
    assert_eq!(rig.seqs(), [6, 7, 8, 9]);
    records.append(&mut rig.written);
    records.push(delta(&mut rig));
    let mut restored = Consumer::restore(&records[0]).unwrap();
    for record in &records[1..] {
        restored.replay(record).unwrap();
    }
    assert_eq!(restored.ack_pending().map(|(seq, ..)| seq).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
}

#[test]
fn what_lives_in_memory_is_not_recorded() {
    let mut rig = Rig::new(Config { memory: true, max_ack_pending: None, ..Config::default() });
    rig.join(u32::MAX);
    rig.store(10 * RESERVED_BLOCK);
    let mut count = 0;
    while rig.step().is_some() {
        count += 1;
    }
    rig.consumer.ack(rig.now, 1);
    assert_eq!((count, rig.consumer.changed()), (10 * RESERVED_BLOCK, None));
}

#[test]
fn records_of_others_are_refused() {
    let mut rig = Rig::new(Config::default());
    rig.join(10);
    rig.store(3);
    rig.pump();
    let mut snapshot = Vec::new();
    rig.consumer.snapshot(&mut snapshot);
    let bytes = delta(&mut rig);
    assert_eq!(Consumer::restore(&bytes).unwrap_err(), Flaw::NotWhole);
    assert_eq!(Consumer::restore(&[]).unwrap_err(), Flaw::Short);
    let mut later = snapshot.clone();
    later[0] = 2;
    assert_eq!(Consumer::restore(&later).unwrap_err(), Flaw::Unknown);
    let mut long = snapshot.clone();
    long.push(0);
    assert_eq!(Consumer::restore(&long).unwrap_err(), Flaw::Long);
    for end in 0..snapshot.len() {
        assert!(Consumer::restore(&snapshot[..end]).is_err(), "{end} bytes of {}", snapshot.len());
    }
    assert!(Consumer::restore(&snapshot).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No bytes make reading panic or take memory without bound.
    #[test]
    fn any_bytes_are_read_or_refused(
        (at, with) in any::<(u16, u8)>(),
        tail in proptest::collection::vec(any::<u8>(), 0..64),
        head in 0u64..4096,
    ) {
        let mut rig = Rig::new(Config::default());
        rig.join(10);
        rig.store(5);
        rig.pump();
        rig.consumer.nak(rig.now, 2, 0);
        rig.pump();
        rig.consumer.ack(rig.now, 3);
        let mut bytes = delta(&mut rig);
        let mut random = vec![1];
        crate::consumer::codec::put(&mut random, head);
        random.extend(&tail);
        let at = usize::from(at) % bytes.len();
        bytes[at] = with;
        let mut snapshot = Vec::new();
        Rig::new(Config::default()).consumer.snapshot(&mut snapshot);
        for record in [&bytes, &random] {
            let mut consumer = Consumer::restore(&snapshot).unwrap();
            if consumer.replay(record).is_ok() {
                consumer.opened(rig.now, |_| None);
                consumer.join(rig.now, 10).unwrap();
                consumer.next(rig.now);
                consumer.ack(rig.now, 1);
                consumer.removed_below(3);
            }
        }
    }
}
