//! The ring as its users see it: order, room, the byte budget, recycled buffers, and a run on two real threads.
//! What only an unlucky interleaving would show is in `interleavings`.

use std::collections::HashSet;
use std::rc::Rc;
use std::thread;

use super::{Consumer, Full, Producer, Sleeper, ring, ring_with_budget};

#[test]
fn items_come_out_in_order_and_in_place() {
    let (mut producer, mut consumer) = ring::<u32>(4);
    assert_eq!(consumer.peek(), None);
    for round in 0..10 {
        for item in 0..4 {
            assert_eq!(producer.free(), 4 - item as usize);
            assert_eq!(producer.push(&mut (round * 4 + item)), Ok(()));
        }
        assert!(producer.is_full());
        let mut refused = 99;
        assert_eq!(producer.push(&mut refused), Err(Full));
        assert_eq!(refused, 99);
        assert_eq!(consumer.head(), u64::from(round + 1) * 4);
        for item in 0..4 {
            assert_eq!(consumer.position(), u64::from(round * 4 + item));
            assert_eq!(consumer.peek().copied(), Some(round * 4 + item));
            *consumer.peek().expect("still the same item") += 1000;
            assert_eq!(consumer.peek().copied(), Some(round * 4 + item + 1000));
            consumer.release();
        }
        assert_eq!(consumer.peek(), None);
        assert!(!producer.is_full());
    }
    assert_eq!(producer.position(), 40);
}

#[test]
fn spares_are_dropped_and_items_are_not() {
    let (mut producer, mut consumer) = ring::<Option<Rc<()>>>(4);
    let (spare, item) = (Rc::new(()), Rc::new(()));
    for kept in [&spare, &spare, &item] {
        assert_eq!(producer.push(&mut Some(Rc::clone(kept))), Ok(()));
    }
    for _ in 0..2 {
        assert!(consumer.peek().is_some());
        consumer.release();
    }
    assert_eq!(Rc::strong_count(&spare), 3, "free slots keep what they held");
    producer.drop_spares();
    assert_eq!(Rc::strong_count(&spare), 1);
    assert_eq!(Rc::strong_count(&item), 2);
    assert!(consumer.peek().is_some_and(|kept| kept.is_some()), "what is published stays");
}

#[test]
fn byte_budget() {
    let (mut producer, mut consumer) = ring_with_budget::<u8>(8, 100);
    assert_eq!(producer.push_with_bytes(&mut 0, 60), Ok(()));
    assert!(producer.has_room(40) && !producer.has_room(41));
    assert_eq!(producer.push_with_bytes(&mut 1, 41), Err(Full));
    assert_eq!(producer.push_with_bytes(&mut 1, 40), Ok(()));
    assert_eq!((producer.bytes_in_flight(), producer.free()), (100, 6));
    // An item without a size is not kept back by the budget.
    assert!(!producer.is_full());
    assert_eq!(producer.push(&mut 2), Ok(()));

    consumer.peek();
    consumer.release();
    assert_eq!(producer.bytes_in_flight(), 40);
    assert_eq!(producer.push_with_bytes(&mut 3, 60), Ok(()));
    while consumer.peek().is_some() {
        consumer.release();
    }
    assert_eq!(producer.bytes_in_flight(), 0);

    // Larger than the whole budget: alone, or not at all.
    assert_eq!(producer.push_with_bytes(&mut 4, 5000), Ok(()));
    assert_eq!(producer.push_with_bytes(&mut 5, 1), Err(Full));
    consumer.peek();
    consumer.release();
    assert_eq!(producer.push_with_bytes(&mut 5, 1), Ok(()));
    assert_eq!(producer.push_with_bytes(&mut 6, 5000), Err(Full));
}

/// After one round through the slots the producer writes into buffers it has used before: a steady flow needs as
/// many as there are slots, and one in its hands.
#[test]
fn buffers_are_recycled() {
    let (mut producer, mut consumer) = ring::<Vec<u8>>(4);
    let mut batch = Vec::new();
    let mut addresses = HashSet::new();
    for round in 0..100_u8 {
        batch.clear();
        batch.reserve(1000);
        batch.push(round);
        let address = batch.as_ptr();
        assert!(addresses.insert(address) == (round <= 4), "round {round}");
        assert_eq!(producer.push(&mut batch), Ok(()));
        let item = consumer.peek().expect("just pushed");
        assert_eq!((item.as_ptr(), item[0]), (address, round));
        consumer.release();
    }
    assert_eq!(addresses.len(), 5);
    assert!(batch.capacity() >= 1000);
}

#[test]
fn everything_inside_is_dropped_once() {
    let token = Rc::new(());
    let (mut producer, mut consumer) = ring::<Option<Rc<()>>>(4);
    for _ in 0..6 {
        assert_eq!(producer.push(&mut Some(Rc::clone(&token))), Ok(()));
        if producer.is_full() {
            consumer.peek();
            consumer.release();
        }
    }
    assert_eq!(Rc::strong_count(&token), 1 + 4);
    drop(producer);
    assert!(consumer.peek().is_some_and(|item| item.is_some()));
    drop(consumer);
    assert_eq!(Rc::strong_count(&token), 1);
}

/// Compiles only while both ends are `Send` and neither is `Sync`: with it, `some` could be either of two functions.
#[test]
fn ends_may_move_but_not_be_shared() {
    trait Ambiguous<Which> {
        fn some() {}
    }
    struct IfSync;
    impl<E> Ambiguous<()> for E {}
    impl<E: Sync> Ambiguous<IfSync> for E {}
    fn is_send<E: Send>() {}

    is_send::<Producer<u8>>();
    is_send::<Consumer<u8>>();
    <Producer<u8> as Ambiguous<_>>::some();
    <Consumer<u8> as Ambiguous<_>>::some();
}

#[test]
#[should_panic(expected = "release follows a peek that found an item")]
fn release_without_an_item_is_refused() {
    let (_producer, mut consumer) = ring::<u8>(2);
    consumer.release();
}

#[test]
fn one_ring_of_the_bell_per_sleep() {
    let sleeper = Sleeper::new();
    assert!(!sleeper.needs_wake());
    sleeper.prepare_to_sleep();
    assert!(sleeper.needs_wake());
    assert!(!sleeper.needs_wake());
    sleeper.prepare_to_sleep();
    sleeper.cancel();
    assert!(!sleeper.needs_wake());
}

/// Two threads, a small ring, batches that differ in length: order and content survive, and nobody sleeps forever.
/// The consumer really parks, so a wake-up that is lost hangs the test.
#[test]
fn two_threads() {
    const BATCHES: u64 = 50_000;
    let (producer, consumer) = ring_with_budget::<Vec<u64>>(8, 4096);
    let sleeper = Sleeper::new();
    thread::scope(|scope| {
        let reader = scope.spawn(|| consume(consumer, &sleeper, BATCHES));
        produce(producer, &sleeper, BATCHES, || reader.thread().unpark());
        reader.join().expect("all batches in order");
    });
}

fn produce(mut producer: Producer<Vec<u64>>, sleeper: &Sleeper, batches: u64, wake: impl Fn()) {
    let mut batch = Vec::new();
    for number in 0..batches {
        batch.clear();
        batch.extend((0..number % 17).map(|index| number * 100 + index));
        let bytes = batch.len() as u64 * 8;
        while producer.push_with_bytes(&mut batch, bytes).is_err() {
            thread::yield_now();
        }
        assert!(producer.bytes_in_flight() <= 4096);
        if sleeper.needs_wake() {
            wake();
        }
    }
}

fn consume(mut consumer: Consumer<Vec<u64>>, sleeper: &Sleeper, batches: u64) {
    while consumer.position() < batches {
        let number = consumer.position();
        if let Some(batch) = consumer.peek() {
            let expected = (0..number % 17).map(|index| number * 100 + index);
            assert!(batch.iter().copied().eq(expected), "batch {number}: {batch:?}");
            consumer.release();
            continue;
        }
        sleeper.prepare_to_sleep();
        if consumer.peek().is_none() {
            thread::park();
        }
        sleeper.cancel();
    }
}
