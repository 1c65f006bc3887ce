//! Streams that keep messages only as long as a consumer needs them.

use std::num::NonZeroU32;

use super::disk::Faults;
use super::world::{Shape, World};
use crate::consumer::{self, Origin, PullRequest};
use crate::log::Incarnation;
use crate::store::ConsumerKey;
use crate::stream::{self, Inbound, Retention};

/// A stream with a consumer for each filter, and 300 messages of 1 KiB on `s.0`, `s.1` and `s.2` in turn.
fn filled(retention: Retention, filters: &[&str]) -> (World, Incarnation, Vec<ConsumerKey>) {
    let mut world = World::new(3, Faults::default(), Shape::Plain);
    let config = stream::Config { retention, ..Default::default() };
    let of = world.store.create_stream(world.now, config, b"").0;
    let mut consumers = Vec::new();
    for filter in filters {
        let config = consumer::Config { filters: vec![(*filter).to_owned()], ..Default::default() };
        let made = world.store.create_consumer(world.now, of, config, Origin::at(1), b"").expect("a valid consumer");
        consumers.push(made.expect("the stream is there").0);
    }
    for index in 0..300 {
        let (subject, payload) = (format!("s.{}", index % 3), vec![index as u8; 1024]);
        let message = Inbound { subject: subject.as_bytes(), payload: &payload, ..Default::default() };
        world.store.publish(world.now, of, &message).expect("is taken");
        if index % 10 == 0 {
            world.settle();
        }
    }
    world.settle();
    (world, of, consumers)
}

/// A consumer takes and acknowledges everything it wants.
fn consume(world: &mut World, key: ConsumerKey) {
    let ask = PullRequest::of(NonZeroU32::new(1000).expect("not zero"));
    world.store.pull(world.now, key, ask).expect("is accepted").expect("is there");
    for _ in 0..1000 {
        world.step();
        let waiting = world.store.consumer(key).expect("is there").ack_pending().map(|(seq, ..)| seq);
        for seq in waiting.collect::<Vec<_>>() {
            world.store.with_consumer(key, |consumer| consumer.ack(world.now, seq));
        }
    }
    world.settle();
}

fn messages(world: &mut World, of: Incarnation) -> u64 {
    for _ in 0..1000 {
        if let Some(state) = world.store.state(of).expect("is there") {
            return state.messages;
        }
        world.step();
    }
    panic!("the numbers of the stream are never known")
}

/// Asks for a purge until it is done; how many messages it has removed.
fn purged(world: &mut World, of: Incarnation, purge: &stream::Purge<'_>) -> Option<u64> {
    (0..100_000).find_map(|_| {
        world.step();
        match world.store.purge(world.now, of, purge).expect("is no error") {
            stream::Purged::Done { count, .. } => Some(count),
            _ => None,
        }
    })
}

/// What one consumer has acknowledged goes, whether another one, which does not want it, has ever asked for anything;
/// what nobody wants of a work queue stays.
#[test]
fn consumers_with_filters_share_a_work_queue() {
    let (mut world, of, consumers) = filled(Retention::WorkQueue, &["s.0", "s.1"]);
    consume(&mut world, consumers[0]);
    assert_eq!(messages(&mut world, of), 200);
    world.restart(false);
    assert_eq!(messages(&mut world, of), 200);
    consume(&mut world, consumers[1]);
    assert_eq!(messages(&mut world, of), 100);
}

/// A message stays for the consumers that want it, and for no others.
#[test]
fn consumers_with_filters_share_a_stream_by_interest() {
    let (mut world, of, consumers) = filled(Retention::Interest, &["s.0", "s.1", "s.*", "s.2"]);
    consume(&mut world, consumers[0]);
    assert_eq!(messages(&mut world, of), 300, "another one wants them");
    consume(&mut world, consumers[2]);
    assert_eq!(messages(&mut world, of), 200, "two have not come to theirs");
    // The subjects have to be read from the disk.
    world.restart(true);
    world.store.delete_consumer(world.now, consumers[1], &mut world.face).expect("is there");
    assert_eq!(messages(&mut world, of), 100);
    world.restart(false);
    assert_eq!(messages(&mut world, of), 100);
    consume(&mut world, consumers[3]);
    assert_eq!(messages(&mut world, of), 0);
}

/// The messages of the last consumer go with it.
#[test]
fn the_last_consumer_ends() {
    let (mut world, of, consumers) = filled(Retention::Interest, &["s.1"]);
    world.store.delete_consumer(world.now, consumers[0], &mut world.face).expect("is there");
    world.settle();
    world.restart(false);
    assert_eq!(messages(&mut world, of), 0);
}

/// A purge of some subjects that was given up is not taken up by the next one.
#[test]
fn a_purge_that_was_given_up_is_begun_anew() {
    let (mut world, of, _) = filled(Retention::Limits, &[]);
    world.restart(true);
    let purge = stream::Purge { filter: Some(b"s.*"), below: None, keep: 2 };
    let first = world.store.purge(world.now, of, &purge).expect("is no error");
    assert!(!matches!(first, stream::Purged::Done { .. }), "{first:?}: it has to be read for");
    world.store.publish(world.now, of, &Inbound { subject: b"s.9", ..Default::default() }).expect("is taken");
    assert_eq!((purged(&mut world, of, &purge), messages(&mut world, of)), (Some(299), 2));
    assert!(world.get(of, 300).is_some() && world.get(of, 301).is_some(), "the newest two are kept");
}

/// A purge may remove every other message of many: more than one record can tell.
#[test]
fn a_purge_removes_scattered_messages() {
    const COUNT: u64 = 300_000;
    let mut world = World::new(5, Faults::default(), Shape::Plain);
    let of = world.store.create_stream(world.now, stream::Config::default(), b"").0;
    for index in 0..COUNT {
        let subject: &[u8] = if index % 2 == 0 { b"s.even" } else { b"s.odd" };
        world.store.publish(world.now, of, &Inbound { subject, ..Default::default() }).expect("is taken");
        if !world.store.has_room() {
            world.settle();
        }
    }
    world.settle();
    let purge = stream::Purge { filter: Some(b"s.even"), below: Some(COUNT + 1), keep: 1 };
    assert_eq!(purged(&mut world, of, &purge), Some(COUNT / 2 - 1));
    world.settle();
    for clean in [false, true] {
        world.disk.crash();
        world.open();
        assert_eq!(messages(&mut world, of), COUNT / 2 + 1);
        if clean {
            world.stop();
        }
    }
}
