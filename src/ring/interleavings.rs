//! All interleavings of the ring and of the sleep flag, for small rings.
//!
//! The sources of both are compiled here a second time, with a `sync` module whose atomics, fences and cells belong
//! to a model checker. It runs a test once for every order of operations and for every value that a relaxed or late
//! load may still see, and reports two unordered accesses to a slot. That it would notice is tested, too: the same
//! sources with one ordering weakened or without the fence must fail.

#[path = "bell.rs"]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "a second copy of a public module"
)]
mod bell;
#[path = "spsc.rs"]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "a second copy of a public module"
)]
mod spsc;

use loom::sync::Arc;
use loom::thread;

/// The model checker's counterparts of `sync.rs`.
mod sync {
    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::Arc;
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
}

/// The ring if it published without releasing.
mod relaxed;
/// The sleep flag if it had no fences.
mod unfenced;

/// Two slots, more items than slots, and every push and peek may come at any time: what was accepted comes out once,
/// in order and whole, and the budget is kept.
#[test]
fn pushes_and_pops() {
    loom::model(|| {
        let (mut producer, mut consumer) = spsc::ring_with_budget::<Box<u64>>(2, 10);
        let writer = thread::spawn(move || {
            let mut accepted = 0;
            for _ in 0..4 {
                let mut item = Box::new(accepted + 1);
                if producer.push_with_bytes(&mut item, 5).is_ok() {
                    accepted += 1;
                }
                assert!(producer.free() <= 2);
                assert!(producer.bytes_in_flight() <= 10);
            }
            (producer, accepted)
        });
        for _ in 0..3 {
            take(&mut consumer);
        }
        let (producer, accepted) = writer.join().expect("no panic");
        while take(&mut consumer) {}
        assert!(accepted >= 2, "an empty ring has room for two");
        assert_eq!(consumer.position(), accepted);
        assert_eq!((producer.free(), producer.bytes_in_flight()), (2, 0));
    });
}

/// Only the budget stands in the way: one item at a time fits.
#[test]
fn budget_of_one_item() {
    loom::model(|| {
        let (mut producer, mut consumer) = spsc::ring_with_budget::<Box<u64>>(2, 7);
        let writer = thread::spawn(move || {
            let mut accepted = 0;
            for bytes in [7, 1, 9] {
                if producer
                    .push_with_bytes(&mut Box::new(accepted + 1), bytes)
                    .is_ok()
                {
                    accepted += 1;
                }
                assert!(producer.bytes_in_flight() <= 9);
            }
            (producer, accepted)
        });
        take(&mut consumer);
        take(&mut consumer);
        let (producer, accepted) = writer.join().expect("no panic");
        while take(&mut consumer) {}
        assert_eq!(consumer.position(), accepted);
        assert_eq!(producer.bytes_in_flight(), 0);
    });
}

/// A noted head is a promise: everything before it is there without waiting.
#[test]
fn everything_before_a_noted_head_is_there() {
    loom::model(|| {
        let (mut producer, mut consumer) = spsc::ring::<Box<u64>>(2);
        let writer = thread::spawn(move || {
            for item in 1..=3 {
                let _ = producer.push(&mut Box::new(item));
            }
        });
        let head = consumer.head();
        while consumer.position() < head {
            assert!(take(&mut consumer));
        }
        writer.join().expect("no panic");
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_checker_finds_a_missing_release() {
    loom::model(|| {
        let (mut producer, mut consumer) = relaxed::spsc::ring::<Box<u64>>(2);
        let writer = thread::spawn(move || producer.push(&mut Box::new(1)).is_ok());
        if consumer.peek().is_some() {
            consumer.release();
        }
        let _ = writer.join();
    });
}

/// Runs a consumer that may go to sleep once against producers that publish one item each and ring if they must.
/// Returns whether it slept with an item in a ring and nobody rang.
macro_rules! lost_wake_up {
    ($sleeper:ty, $producer_count:expr) => {{
        let sleeper = Arc::new(<$sleeper>::new());
        let (writers, mut consumers): (Vec<_>, Vec<_>) = (0..$producer_count)
            .map(|_| {
                let (mut producer, consumer) = spsc::ring::<Box<u64>>(2);
                let sleeper = Arc::clone(&sleeper);
                let writer = thread::spawn(move || {
                    producer.push(&mut Box::new(1)).expect("room for one");
                    sleeper.needs_wake()
                });
                (writer, consumer)
            })
            .unzip();

        sleeper.prepare_to_sleep();
        let parked = consumers
            .iter()
            .all(|consumer| consumer.head() == consumer.position());
        if !parked {
            sleeper.cancel();
        }
        let rung = writers
            .into_iter()
            .map(|writer| writer.join().expect("no panic"));
        let rung = rung.filter(|rung| *rung).count();
        assert!(rung <= 1, "one doorbell per sleep");
        consumers
            .iter_mut()
            .for_each(|consumer| assert!(take(consumer)));
        parked && rung == 0
    }};
}

#[test]
fn no_wake_up_is_lost() {
    loom::model(|| assert!(!lost_wake_up!(bell::Sleeper, 1), "lost wake-up"));
    loom::model(|| assert!(!lost_wake_up!(bell::Sleeper, 2), "lost wake-up"));
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn the_checker_finds_a_missing_fence() {
    loom::model(|| assert!(!lost_wake_up!(unfenced::bell::Sleeper, 1), "lost wake-up"));
}

/// Takes an item out and checks that it is the next one.
fn take(consumer: &mut spsc::Consumer<Box<u64>>) -> bool {
    let expected = consumer.position() + 1;
    let Some(item) = consumer.peek() else {
        return false;
    };
    assert_eq!(**item, expected);
    consumer.release();
    true
}
