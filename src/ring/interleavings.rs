//! All interleavings of the ring, the horizon and the sleep flag, for small rings.
//!
//! Their sources are compiled here a second time, with a `sync` module whose atomics, fences and cells belong
//! to a model checker. It runs a test once for every order of operations and for every value that a relaxed or late
//! load may still see, and reports two unordered accesses to a slot. That it would notice is tested, too: the same
//! sources with one ordering weakened or without the fence must fail.

#[path = "bell.rs"]
#[expect(unreachable_pub, clippy::duplicate_mod, reason = "a copy of a public module")]
mod bell;
#[path = "horizon.rs"]
#[expect(unreachable_pub, clippy::duplicate_mod, reason = "a copy of a public module")]
mod horizon;
#[path = "spsc.rs"]
#[expect(unreachable_pub, dead_code, clippy::duplicate_mod, reason = "a copy of a public module")]
mod spsc;

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// The model checker's counterparts of `sync.rs`.
mod sync {
    pub(super) use loom::cell::UnsafeCell;
    pub(super) use std::sync::Arc;

    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
}

/// The ring if it published without releasing.
mod relaxed;
/// The sleep flag if it had no fences.
mod unfenced;

/// Two slots, more items than slots, and every push and peek may come at any time: what was accepted comes out once,
/// in order and whole.
#[test]
fn pushes_and_pops() {
    loom::model(|| {
        let (mut producer, mut consumer) = spsc::ring::<Box<u64>>(2);
        let writer = thread::spawn(move || {
            let mut accepted = 0;
            for _ in 0..4 {
                accepted += u64::from(producer.push(&mut Box::new(accepted + 1)).is_ok());
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
        assert_eq!(producer.free(), 2);
    });
}

/// Spares may be dropped at any time: that touches no slot of the consumer.
#[test]
fn dropped_spares() {
    loom::model(|| {
        let (mut producer, mut consumer) = spsc::ring::<Box<u64>>(2);
        let writer = thread::spawn(move || {
            let mut accepted = 0;
            for _ in 0..3 {
                accepted += u64::from(producer.push(&mut Box::new(accepted + 1)).is_ok());
                producer.drop_spares();
            }
            accepted
        });
        for _ in 0..2 {
            take(&mut consumer);
        }
        let accepted = writer.join().expect("no panic");
        while take(&mut consumer) {}
        assert_eq!(consumer.position(), accepted);
    });
}

/// Runs producers that each raise a flag and ring if they must, against a consumer that goes to sleep unless it sees
/// one. Returns how many rang.
macro_rules! flags_and_bell {
    ($sleeper:ty, $producer_count:literal) => {{
        let flags = [(); $producer_count].map(|()| AtomicBool::new(false));
        let shared = Arc::new((<$sleeper>::new(), flags));
        let writers = [(); $producer_count].map(|()| Arc::clone(&shared));
        let mut index = 0;
        let writers = writers.map(|shared| {
            index += 1;
            let index = index - 1;
            thread::spawn(move || {
                let (sleeper, flags) = &*shared;
                flags[index].store(true, Ordering::Release);
                sleeper.needs_wake()
            })
        });
        let (sleeper, flags) = &*shared;
        sleeper.prepare_to_sleep();
        let parks = flags.iter().all(|flag| !flag.load(Ordering::Acquire));
        if !parks {
            sleeper.cancel();
        }
        let rung = writers.map(|writer| usize::from(writer.join().expect("no panic")));
        let rung: usize = rung.iter().sum();
        assert!(rung > 0 || !parks, "lost wake-up");
        rung
    }};
}

/// Only the budget stands in the way: one item at a time fits.
#[test]
fn budget_of_one_item() {
    loom::model(|| {
        let (mut producer, mut consumer) = spsc::ring_with_budget::<Box<u64>>(2, 7);
        let writer = thread::spawn(move || {
            let mut accepted = 0;
            for bytes in [7, 1, 9] {
                if producer.push_with_bytes(&mut Box::new(accepted + 1), bytes).is_ok() {
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

/// So is a horizon, for all rings of its producer.
#[test]
fn everything_before_a_horizon_is_there() {
    loom::model(|| {
        let horizon = Arc::new(horizon::Horizon::default());
        let (mut first, mut from_first) = spsc::ring::<Box<u64>>(2);
        let (mut second, mut from_second) = spsc::ring::<Box<u64>>(2);
        let writer = thread::spawn({
            let horizon = Arc::clone(&horizon);
            move || {
                first.push(&mut Box::new(1)).expect("room for one");
                second.push(&mut Box::new(1)).expect("room for one");
                horizon.show(1);
            }
        });
        let shown = horizon.mark() == 1;
        let there = [take(&mut from_second), take(&mut from_first)];
        assert!(!shown || there == [true, true]);
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

/// One producer with a real ring; then two whose rings are reduced to a flag, of whom only one may ring.
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let sleeper = Arc::new(bell::Sleeper::new());
        let (mut producer, mut consumer) = spsc::ring::<Box<u64>>(2);
        let writer = {
            let sleeper = Arc::clone(&sleeper);
            thread::spawn(move || {
                producer.push(&mut Box::new(1)).expect("room for one");
                sleeper.needs_wake()
            })
        };
        sleeper.prepare_to_sleep();
        let parks = consumer.peek().is_none();
        if !parks {
            sleeper.cancel();
        }
        let rung = writer.join().expect("no panic");
        assert!(rung || !parks, "lost wake-up");
        assert!(take(&mut consumer));
    });
    loom::model(|| assert!(flags_and_bell!(bell::Sleeper, 2) <= 1, "one doorbell per sleep"));
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn the_checker_finds_a_missing_fence() {
    loom::model(|| {
        flags_and_bell!(unfenced::bell::Sleeper, 1);
    });
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
