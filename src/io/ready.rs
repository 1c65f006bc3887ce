//! The ready list of a shard: which connections the reactor has seen become readable or writable.
//!
//! Every connection has one small waker. Waking puts its slot on the list, once, and wakes the driver task. All of it
//! happens on the shard's own thread; the mutex is there because wakers must be `Sync`, and is never contended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Woken connections and the driver that serves them.
#[derive(Debug, Default)]
pub(super) struct ReadyList {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    slots: Vec<(u32, Arc<Entry>)>,
    driver: Option<Waker>,
    /// The driver has been woken and has not looked since.
    signalled: bool,
}

/// One connection's part in it.
#[derive(Debug)]
pub(super) struct Entry {
    slot: u32,
    queued: AtomicBool,
    list: Arc<ReadyList>,
}

impl ReadyList {
    /// A waker for the connection in `slot`.
    pub(super) fn waker(self: &Arc<Self>, slot: u32) -> Waker {
        Arc::new(Entry { slot, queued: AtomicBool::new(false), list: self.clone() }).into()
    }

    /// Moves all woken slots to `slots`.
    pub(super) fn take(&self, slots: &mut Vec<u32>) {
        let mut inner = self.lock();
        inner.signalled = false;
        for (slot, entry) in inner.slots.drain(..) {
            entry.queued.store(false, Ordering::Relaxed);
            slots.push(slot);
        }
    }

    /// Registers the driver; `true` if it was woken since the last look and must not sleep.
    pub(super) fn park(&self, driver: &Waker) -> bool {
        let mut inner = self.lock();
        if inner.signalled {
            return true;
        }
        match &mut inner.driver {
            Some(known) => known.clone_from(driver),
            None => inner.driver = Some(driver.clone()),
        }
        false
    }

    /// Wakes the driver without a connection.
    pub(super) fn wake_driver(&self) {
        let mut inner = self.lock();
        inner.signal();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn signal(&mut self) {
        if !std::mem::replace(&mut self.signalled, true)
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }
}

impl Wake for Entry {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            let mut inner = self.list.lock();
            inner.slots.push((self.slot, self.clone()));
            inner.signal();
        }
    }
}
