//! The bounded queue between the threads that log and the thread that writes.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::format::Style;
use super::output::Output;

/// Lines that may wait to be written.
pub const QUEUE_LINES: usize = 8192;

/// Bytes that may wait to be written; one line may exceed them.
pub const QUEUE_BYTES: usize = 16 << 20;

/// What the logger thread is told.
#[derive(Debug)]
pub(super) enum Item {
    /// Write this line.
    Line(String),
    /// Close and reopen the file.
    Reopen,
    /// Write somewhere else, if an output is given, and lines of the log's own in this style.
    Change(Option<Output>, Style),
    /// All lines before this one are to be written; then answer.
    Flush(Sender<()>),
}

/// The side of those who log. A push never waits: what does not fit is counted and forgotten.
#[derive(Debug)]
pub(super) struct Queue {
    sender: Sender<Item>,
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl Queue {
    pub(super) fn new(lines: usize) -> (Self, Receiver<Item>) {
        let (sender, receiver) = bounded(lines);
        (Self { sender, bytes: AtomicUsize::new(0), dropped: AtomicU64::new(0) }, receiver)
    }

    /// Queues a line, or drops it when the queue is full.
    pub(super) fn push(&self, line: String) {
        let bytes = line.len();
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting > QUEUE_BYTES || self.sender.try_send(Item::Line(line)).is_err() {
            self.taken(bytes);
            self.count_dropped(1);
        }
    }

    /// The channel itself, for the control thread, which may wait.
    pub(super) fn sender(&self) -> &Sender<Item> {
        &self.sender
    }

    /// The logger thread took a line of this length out of the queue.
    pub(super) fn taken(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Lines were lost.
    pub(super) fn count_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines lost since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full queue costs lines, never time, and they are counted.
    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, receiver) = Queue::new(2);
        for n in 0..5 {
            queue.push(format!("{n}"));
        }
        assert_eq!(queue.take_dropped(), 3);
        assert_eq!(queue.take_dropped(), 0);
        assert_eq!(receiver.try_iter().count(), 2);
    }

    /// Few long lines are bounded too.
    #[test]
    fn bytes_are_bounded() {
        let (queue, receiver) = Queue::new(100);
        for _ in 0..100 {
            queue.push("x".repeat(1 << 20));
        }
        let waiting = receiver.len();
        assert!((16..=18).contains(&waiting), "{waiting} lines of 1 MiB wait");
        assert_eq!(queue.take_dropped(), 100 - waiting as u64);
    }
}
