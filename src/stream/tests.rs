//! A stream against a naive model, over a log that is only a list of batches.
//!
//! The world keeps what the log would: batches that are open, written but not flushed, and flushed, with their runs and
//! removal records; segments with their dead bytes; checkpoints. The model is a map of all messages. Random operations
//! drive both, and after each everything that can be asked is compared. A crash forgets what is not flushed and builds
//! the stream again from a snapshot and what follows it; the model goes back to the same batch.

pub(crate) mod model;
mod world;

use proptest::prelude::*;

use super::*;
use crate::log::Message;
use model::Model;
use world::{Op, World, ops};

fn config() -> impl Strategy<Value = Config> {
    let some = |range: std::ops::Range<u64>| prop_oneof![2 => Just(None), 1 => range.prop_map(Some)];
    let limits = (some(3..40), some(300..4000), some(1000..6000), some(1..8));
    let kind = (any::<bool>(), any::<bool>(), any::<bool>(), 0..3_u8, prop_oneof![Just(0), Just(1), Just(50)]);
    (limits, kind, any::<bool>()).prop_map(|((max_messages, max_bytes, max_age, max_per_subject), kind, is_memory)| {
        let (is_new, per_subject, keep_newest, retention, first_seq) = kind;
        Config {
            durability: if is_memory { Durability::Memory } else { Durability::Flushed },
            max_messages,
            max_bytes,
            max_age: max_age.map(|ms| ms as i64 * world::MS),
            max_message_bytes: Some(150),
            max_per_subject,
            discard: if is_new { Discard::New } else { Discard::Old },
            discard_new_per_subject: is_new && per_subject && max_per_subject.is_some(),
            keep_newest,
            retention: [Retention::Limits, Retention::Interest, Retention::WorkQueue][usize::from(retention)],
            first_seq,
            duplicate_window: 3200 * world::MS,
            allow_expiry: true,
            ..Config::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::with_cases(1_000) })]

    /// Every answer, every number and every look-up is that of the naive model, through limits, deletions, purges, delayed
    /// flushes, cleaning, checkpoints and crashes.
    #[test]
    fn behaves_like_the_model(config in config(), ops in ops(1..200)) {
        let mut world = World::new(config);
        for op in &ops {
            world.run(op);
        }
        world.finish();
    }
}

fn stream(config: Config) -> World {
    config.validate().expect("a sound configuration");
    World::new(config)
}

#[test]
fn first_and_last_are_those_clients_expect() {
    let numbers = |world: &mut World| {
        let state = world.state();
        (state.first_seq, state.last_seq, state.messages, state.deleted)
    };
    let mut world = stream(Config { first_seq: 100, ..Config::default() });
    assert_eq!(numbers(&mut world), (100, 99, 0, 0));
    let mut world = stream(Config::default());
    assert_eq!(numbers(&mut world), (0, 0, 0, 0));
    world.publish("a");
    assert_eq!(numbers(&mut world), (1, 1, 1, 0));
    for _ in 2..=7 {
        world.publish("a");
    }
    world.flush_all();
    world.run(&Op::Remove { nth: 3 });
    assert_eq!(numbers(&mut world), (1, 7, 6, 1), "a deletion between others");
    world.run(&Op::Remove { nth: 0 });
    assert_eq!(numbers(&mut world), (2, 7, 5, 1), "the first deleted");
    world.run(&Op::Purge { filter: None, below: None, keep: 0 });
    assert_eq!(numbers(&mut world), (8, 7, 0, 0), "a purge keeps the last number");
    world.publish("a");
    assert_eq!(numbers(&mut world), (8, 8, 1, 0));
}

#[test]
fn a_refused_publish_changes_nothing_and_says_what_it_depends_on() {
    let config = Config { duplicate_window: 1_000_000_000, ..Config::default() };
    let mut world = stream(config);
    let first = world.admit(&Inbound { subject: b"a", id: Some(7), ..Inbound::default() }).unwrap();
    assert!(!first.after.is_none());
    world.close_batch();
    let before = world.snapshot();
    let wrong = Checks { last_seq: Some(5), ..Checks::default() };
    let refused = world.admit(&Inbound { subject: b"a", checks: wrong, ..Inbound::default() }).unwrap_err();
    assert_eq!(refused, Refused { why: Refusal::LastSeq { last: 1 }, after: first.after });
    let filter = Checks { last_subject_seq: Some(SubjectSeq { filter: b"*", seq: 0 }), ..Checks::default() };
    let refused = world.admit(&Inbound { subject: b"b", checks: filter, ..Inbound::default() }).unwrap_err();
    assert_eq!(refused, Refused { why: Refusal::LastSubjectSeq { last: 1 }, after: first.after });
    let again = world.admit(&Inbound { subject: b"a", id: Some(7), ..Inbound::default() }).unwrap();
    assert_eq!((again.seq, again.duplicate, again.after), (1, true, first.after), "the answer waits for the original");
    world.fill_log(true);
    let refused = world.admit(&Inbound { subject: b"a", ..Inbound::default() }).unwrap_err();
    assert_eq!(refused.why, Refusal::Full);
    let refused = world.admit(&Inbound { subject: b"a", unwanted: true, ..Inbound::default() }).unwrap_err();
    assert_eq!(refused.why, Refusal::Full);
    world.fill_log(false);
    assert_eq!(world.snapshot(), before, "nothing has changed");
    world.flush_all();
    let again = world.admit(&Inbound { subject: b"a", id: Some(7), ..Inbound::default() }).unwrap();
    assert_eq!((again.duplicate, again.after), (true, Pending::NONE), "nothing to wait for any more");
}

#[test]
fn a_batch_is_admitted_whole_or_not_at_all() {
    let config = Config {
        discard: Discard::New,
        max_messages: Some(4),
        max_per_subject: Some(1),
        duplicate_window: 1_000_000_000,
        ..Config::default()
    };
    let mut world = stream(config);
    world.publish("a");
    world.publish("b");
    let message = |subject| Inbound { subject, ..Inbound::default() };
    let mut batch = vec![message(b"a" as &[u8]), message(b"c"), message(b"d"), message(b"e")];
    let before = world.snapshot();
    let refused = world.admit_batch(&batch).unwrap_err();
    assert_eq!((refused.index, refused.refused.why), (3, Refusal::MaxMessages));
    batch[3].id = Some(1);
    batch[2].id = Some(1);
    let refused = world.admit_batch(&batch).unwrap_err();
    assert_eq!((refused.index, refused.refused.why), (3, Refusal::DuplicateInBatch { original: None }));
    assert_eq!(world.snapshot(), before, "nothing has changed");
    batch.truncate(3);
    let expected = Checks { last_subject_seq: Some(SubjectSeq { filter: b"a", seq: 3 }), ..Checks::default() };
    batch[2].checks = expected;
    let admitted = world.admit_batch(&batch).unwrap();
    assert_eq!(admitted.seq, 5, "an earlier message of the batch counts for the checks of a later one");
    assert_eq!(world.state().messages, 4, "the new message of a subject has taken the place of the old one");
}

#[test]
fn the_newest_message_stays_only_where_it_shall() {
    for keep_newest in [false, true] {
        let mut world = stream(Config { max_bytes: Some(40), keep_newest, ..Config::default() });
        world.publish("a");
        world.admit(&Inbound { subject: b"a", payload: &[0; 100], ..Inbound::default() }).unwrap();
        let state = world.state();
        let expected = if keep_newest { (1, 131, 2) } else { (0, 0, 3) };
        assert_eq!((state.messages, state.bytes, state.first_seq), expected, "keep_newest: {keep_newest}");
    }
}

#[test]
fn time_never_goes_back() {
    let mut world = stream(Config::default());
    world.now = 1000;
    assert_eq!(world.admit(&Inbound { subject: b"a", ..Inbound::default() }).unwrap().time, 1000);
    world.now = 900;
    assert_eq!(world.admit(&Inbound { subject: b"a", ..Inbound::default() }).unwrap().time, 1000);
    world.flush_all();
    world.crash(0, false);
    assert_eq!(world.admit(&Inbound { subject: b"a", ..Inbound::default() }).unwrap().time, 1000);
}

#[test]
fn nobody_interested_takes_a_number_and_stores_nothing() {
    let mut world = stream(Config { retention: Retention::Interest, ..Config::default() });
    let admitted = world.admit(&Inbound { subject: b"a", unwanted: true, ..Inbound::default() }).unwrap();
    assert_eq!(admitted.seq, 1);
    let state = world.state();
    assert_eq!((state.first_seq, state.last_seq, state.messages), (2, 1, 0));
    world.flush_all();
    world.crash(0, false);
    let state = world.state();
    assert_eq!((state.first_seq, state.last_seq, state.messages), (2, 1, 0), "the number stays taken");
}

#[test]
fn expiry_asks_for_a_timer_only_when_something_expires() {
    let mut world = stream(Config { allow_expiry: true, max_age: None, ..Config::default() });
    world.publish("a");
    world.state();
    assert_eq!(world.stream.next_deadline(), None);
    let expires = world.now + 1_000_000_000;
    world.admit(&Inbound { subject: b"b", expires: Some(expires), ..Inbound::default() }).unwrap();
    world.state();
    let deadline = world.stream.next_deadline().expect("something expires");
    assert!(deadline > expires && deadline < expires + 200_000_000);
    world.now = deadline;
    assert_eq!(world.state().messages, 1);
    assert_eq!(world.expired, vec![(b"b".to_vec(), 2)], "the subject's last message went by its time");
    assert_eq!(world.stream.next_deadline(), None);
}

#[test]
fn a_snapshot_is_refused_when_it_is_cut_or_changed() {
    let mut world = stream(Config { max_per_subject: Some(2), max_age: Some(1 << 40), ..Config::default() });
    for subject in ["a", "a", "b", "a.b", "b", "b"] {
        world.publish(subject);
    }
    world.flush_all();
    let bytes = world.snapshot();
    assert!(Stream::restore(&bytes, world.stream.incarnation()).is_ok());
    for cut in 0..bytes.len() {
        assert!(Stream::restore(&bytes[..cut], world.stream.incarnation()).is_err(), "cut at {cut}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x41;
        // It has a checksum of its own on disk: what matters here is that nothing breaks.
        let _ = Stream::restore(&changed, world.stream.incarnation());
    }
}

#[test]
fn what_nobody_can_read_any_more_is_counted_as_lost() {
    let mut world = stream(Config { max_messages: Some(1000), max_bytes: Some(20_000), ..Config::default() });
    for _ in 0..50 {
        world.publish("a");
    }
    world.flush_all();
    world.unreadable = Some(10..=12);
    world.purge_unchecked(40);
    assert_eq!(world.stream.lost(), 3);
    assert!(world.stream.is_settled());
}

/// A large message lies in several batches, perhaps of several segments: all of it is dead when it goes, wherever
/// cleaning has moved its pieces.
#[test]
fn all_pieces_of_a_message_are_dead_when_it_goes() {
    #[derive(Default)]
    struct Segments(std::collections::BTreeMap<u32, u64>);
    impl Sink for Segments {
        fn message(&mut self, _: u64, _: &Message<'_>) -> Result<Appended, Full> {
            Ok(Appended { after: Pending::NONE, record_bytes: 3_000_000 })
        }
        fn batch(&mut self, _: u64, _: &[Message<'_>], _: &mut Vec<u32>) -> Result<Pending, Full> {
            Err(Full)
        }
        fn removal(&mut self, _: &[u8], _: Urgency) -> Result<Pending, Full> {
            Ok(Pending::NONE)
        }
        fn dead(&mut self, segment: SegmentNo, bytes: u64) {
            *self.0.entry(segment.0).or_default() += bytes;
        }
        fn removed(&mut self, _: RangeInclusive<u64>) {}
    }
    let mut log = Segments::default();
    let mut stream = Stream::new(Config::default(), Incarnation::new(1).expect("not zero"));
    let message = Inbound { subject: b"a", ..Inbound::default() };
    for _ in 0..3 {
        stream.admit(1, &message, &mut log).expect("nothing limits it");
    }
    let run = |first_seq, last_seq, segment, offset, moved_from| crate::log::PlacedRun {
        kind: crate::log::Kind::Messages,
        stream: Incarnation::new(1).expect("not zero"),
        position: Position::new(SegmentNo(segment), offset),
        first_seq,
        last_seq,
        first_live: 1,
        first_time: 1,
        last_time: 1,
        count: (last_seq - first_seq + 1) as u32,
        content_bytes: 1_000_000,
        moved_from,
        piece: 0,
    };
    stream.placed(&run(1, 1, 1, 4096, None), &mut log);
    for (piece, (segment, offset)) in [(1, 1 << 20), (1, 2 << 20), (2, 4096)].into_iter().enumerate() {
        let part = crate::log::PlacedRun { piece: piece as u32, ..run(2, 2, segment, offset, None) };
        stream.placed(&part, &mut log);
    }
    stream.placed(&run(3, 3, 2, 1 << 20, None), &mut log);
    let born = Position::new(SegmentNo(1), 2 << 20);
    stream.placed(&crate::log::PlacedRun { piece: 1, ..run(2, 2, 3, 4096, Some(born)) }, &mut log);
    assert_eq!(log.0, [(1, 1_000_000)].into(), "a piece has left its place");
    stream.remove(2, &mut log).expect("it is there");
    assert_eq!(log.0[&3], 1_000_000);
    assert_eq!(stream.occupied().map(|(segment, _)| segment.0).collect::<Vec<_>>(), [1, 2]);
    stream.remove(1, &mut log).expect("it is there");
    stream.remove(3, &mut log).expect("it is there");
    assert_eq!(log.0, [(1, 3_000_000), (2, 2_000_000), (3, 1_000_000)].into());
    assert_eq!(stream.occupied().count(), 0);
}
