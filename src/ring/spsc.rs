//! A bounded ring for one producer and one consumer, whose slots own and reuse their contents.
//!
//! A push swaps the item with what the slot held before, so the producer gets back a buffer that the consumer has
//! finished with. The consumer works on an item in place and then releases the slot.
//!
//! Positions are absolute: both ends count items from zero and never wrap (2^64 items). With `consumed <= published
//! <= consumed + slots` at all times, the slots of the positions `consumed..published` belong to the consumer and all
//! others to the producer. Each end owns one of the two counts, the only things that both sides touch:
//!
//! - the producer stores `published` (release) after it has filled a slot; the consumer loads it (acquire);
//! - the consumer stores `consumed` (release) when it gives a slot back; the producer loads it (acquire).
//!
//! Each end remembers what it last saw of the other's count and looks again only when that is used up.
//!
//! A ring may have a budget of bytes besides its slots. An item says its size when it is pushed; it is refused if the
//! bytes in flight would exceed the budget, except on an empty ring, so that an item larger than the budget still
//! gets through. When the ring refuses, the producer waits or keeps the item elsewhere; nothing is dropped.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use super::sync::{Arc, AtomicU64, Ordering, UnsafeCell};

/// A ring without a budget of bytes. `slots` is a power of two and at least 2.
pub fn ring<T: Default>(slots: usize) -> (Producer<T>, Consumer<T>) {
    ring_with_budget(slots, u64::MAX)
}

/// A ring whose items together hold at most `bytes_max` bytes, or a single larger item.
pub fn ring_with_budget<T: Default>(slots: usize, bytes_max: u64) -> (Producer<T>, Consumer<T>) {
    assert!(slots >= 2 && slots.is_power_of_two(), "{slots} slots");
    let empty = || UnsafeCell::new(Slot { item: T::default(), bytes: 0 });
    let shared = Arc::new(Shared {
        slots: std::iter::repeat_with(empty).take(slots).collect(),
        published: Line(AtomicU64::new(0)),
        consumed: Line(Consumed { count: AtomicU64::new(0), bytes: AtomicU64::new(0) }),
    });
    let producer = Producer {
        shared: Arc::clone(&shared),
        published: 0,
        consumed_seen: 0,
        bytes_published: 0,
        bytes_consumed_seen: 0,
        bytes_max,
        not_sync: PhantomData,
    };
    let consumer = Consumer { shared, consumed: 0, published_seen: 0, bytes_consumed: 0, not_sync: PhantomData };
    (producer, consumer)
}

/// The end that puts items in. It may be moved to another thread, but not shared.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// The own count, of which the shared one is a copy.
    published: u64,
    consumed_seen: u64,
    bytes_published: u64,
    bytes_consumed_seen: u64,
    bytes_max: u64,
    not_sync: PhantomData<Cell<()>>,
}

/// The end that takes items out. It may be moved to another thread, but not shared.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// The own count, of which the shared one is a copy.
    consumed: u64,
    published_seen: u64,
    bytes_consumed: u64,
    not_sync: PhantomData<Cell<()>>,
}

/// The ring has no free slot, or not enough of its byte budget; the item is untouched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl<T> Producer<T> {
    /// Publishes `item`, which becomes what the slot held before: some item of long ago, for its buffers. An item
    /// without a size counts nothing towards the budget.
    pub fn push(&mut self, item: &mut T) -> Result<(), Full> {
        self.push_with_bytes(item, 0)
    }

    /// Like [`Producer::push`], for an item that takes `bytes` of the budget until it is released.
    pub fn push_with_bytes(&mut self, item: &mut T, bytes: u64) -> Result<(), Full> {
        if !self.has_room(bytes) {
            return Err(Full);
        }
        self.shared.slot(self.published).with_mut(|slot| {
            // SAFETY: `has_room` has seen `published < consumed + slots` with an acquiring load of `consumed`, so
            // this slot is the producer's, and the consumer's last access to it happened before. There is one
            // producer, and it is borrowed mutably here.
            let slot = unsafe { &mut *slot };
            std::mem::swap(&mut slot.item, item);
            slot.bytes = bytes;
        });
        self.bytes_published += bytes;
        self.published += 1;
        self.shared.published.0.store(self.published, Ordering::Release);
        Ok(())
    }

    /// Whether an item of `bytes` would be accepted now.
    pub fn has_room(&mut self, bytes: u64) -> bool {
        if self.fits(bytes) {
            return true;
        }
        let consumed = &self.shared.consumed.0;
        self.consumed_seen = consumed.count.load(Ordering::Acquire);
        // Written before the count, so at least as new; being newer does no harm, as it opens no slot.
        self.bytes_consumed_seen = consumed.bytes.load(Ordering::Relaxed);
        self.fits(bytes)
    }

    /// Whether a push would be refused whatever the item's size.
    pub fn is_full(&mut self) -> bool {
        !self.has_room(0)
    }

    /// The number of free slots now; the consumer may free more at any time.
    pub fn free(&self) -> usize {
        // Opens no slot: a push looks for itself.
        let consumed = self.shared.consumed.0.count.load(Ordering::Relaxed);
        self.shared.slots.len() - (self.published - consumed) as usize
    }

    /// The number of items published since the ring was made.
    pub fn position(&self) -> u64 {
        self.published
    }

    /// The sizes of the items that are published and not yet released.
    pub fn bytes_in_flight(&self) -> u64 {
        self.bytes_published - self.shared.consumed.0.bytes.load(Ordering::Relaxed)
    }

    /// Drops what the free slots hold: buffers that were kept for reuse.
    pub fn drop_spares(&mut self)
    where
        T: Default,
    {
        // Acquires, as `has_room` does, the consumer's last access to each of these slots.
        self.consumed_seen = self.shared.consumed.0.count.load(Ordering::Acquire);
        for position in self.published..self.consumed_seen + self.shared.slots.len() as u64 {
            self.shared.slot(position).with_mut(|slot| {
                // SAFETY: as in `push_with_bytes`: the position is below `consumed + slots`.
                unsafe { (*slot).item = T::default() };
            });
        }
    }

    fn fits(&self, bytes: u64) -> bool {
        let items = self.published - self.consumed_seen;
        let in_flight = self.bytes_published - self.bytes_consumed_seen;
        let in_budget = in_flight.saturating_add(bytes) <= self.bytes_max;
        items < self.shared.slots.len() as u64 && (items == 0 || in_budget)
    }
}

impl<T> Consumer<T> {
    /// The number of items published since the ring was made. Everything before this head can be consumed without
    /// waiting: while `position()` is below it, `peek` returns an item.
    pub fn head(&self) -> u64 {
        self.shared.published.0.load(Ordering::Acquire)
    }

    /// The number of items released since the ring was made.
    pub fn position(&self) -> u64 {
        self.consumed
    }

    /// The next item, if there is one. It stays the next one until it is released.
    pub fn peek(&mut self) -> Option<&mut T> {
        if self.consumed == self.published_seen {
            self.published_seen = self.head();
            if self.consumed == self.published_seen {
                return None;
            }
        }
        let item = self.shared.slot(self.consumed).with_mut(|slot| {
            // SAFETY: an acquiring load has seen `consumed < published`, so this slot is the consumer's and its
            // filling happened before. It stays so until `release`, which needs the mutable borrow of the one
            // consumer that the returned reference holds.
            unsafe { &mut (*slot).item }
        });
        Some(item)
    }

    /// Gives the slot of the item that was peeked at back to the producer, with what the item has become.
    pub fn release(&mut self) {
        // Stays in release builds: giving back a slot that was never filled would share it with the producer.
        assert!(self.consumed < self.published_seen, "release follows a peek that found an item");
        self.bytes_consumed += self.shared.slot(self.consumed).with_mut(|slot| {
            // SAFETY: as in `peek`; the assertion is the condition.
            unsafe { (*slot).bytes }
        });
        self.consumed += 1;
        self.shared.consumed.0.bytes.store(self.bytes_consumed, Ordering::Relaxed);
        self.shared.consumed.0.count.store(self.consumed, Ordering::Release);
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("published", &self.published)
            .field("bytes_published", &self.bytes_published)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("consumed", &self.consumed)
            .field("bytes_consumed", &self.bytes_consumed)
            .finish_non_exhaustive()
    }
}

struct Shared<T> {
    slots: Box<[UnsafeCell<Slot<T>>]>,
    /// Written by the producer.
    published: Line<AtomicU64>,
    /// Written by the consumer.
    consumed: Line<Consumed>,
}

struct Slot<T> {
    item: T,
    bytes: u64,
}

struct Consumed {
    count: AtomicU64,
    bytes: AtomicU64,
}

/// Something on cache lines of its own: two of them, since processors fetch them in pairs.
#[repr(align(128))]
struct Line<V>(V);

impl<T> Shared<T> {
    fn slot(&self, position: u64) -> &UnsafeCell<Slot<T>> {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }
}

// SAFETY: the ends are on two threads and reach the slots through this shared value. The counts decide which end may
// touch a slot, and acquire what the other end released with it (see the top of this file); no slot is ever
// referred to from both. So items only move from thread to thread, for which `T: Send` is enough.
unsafe impl<T: Send> Sync for Shared<T> {}
