//! Streams that keep messages only as long as somebody needs them: what no consumer needs any more goes.
//!
//! A message of a stream with retention by *interest* goes when no consumer needs it: each has acknowledged it, or does
//! not want its subject. One of a *work queue* goes when a consumer that wants it has acknowledged it; each is wanted by
//! one at most, which begins with the stream's first message.
//!
//! Whether a consumer wants a message that it has not come to yet is told by the subject alone, which may have to be
//! read. Such messages are noted, and reviewed when the stream settles. So are those that may have been left over: by a
//! consumer that has ended, and by a crash after an acknowledgement was flushed and before the removal that followed
//! it was.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::reads::Fetched;
use super::sink::Body;
use super::{ConsumerSlot, Store, StreamSlot, Wake};
use crate::log::{Incarnation, Time};
use crate::stream::{Lookup, Retention};

/// Messages that one settle reviews, so that it does not last.
const SLICE: usize = 1024;

/// Whether a stream keeps a message for its consumers' sake. `None` if its subject decides, which is not given.
fn keeps(
    retention: Retention,
    consumers: &BTreeMap<u32, Box<ConsumerSlot>>,
    seq: u64,
    subject: Option<&[u8]>,
) -> Option<bool> {
    if retention == Retention::Limits {
        return Some(true);
    }
    let is_queue = retention == Retention::WorkQueue;
    let mut is_unsure = false;
    for entry in consumers.values() {
        let is_done = entry.consumer.is_done_with(seq);
        // Of a queue, whoever has done with it decides; of the others, whoever has not.
        if is_done != is_queue {
            continue;
        }
        let is_open = !is_done && seq < entry.consumer.next_seq();
        match subject {
            _ if is_open || entry.consumer.config().filters.is_empty() => return Some(!is_queue),
            Some(subject) if entry.wants(subject) => return Some(!is_queue),
            Some(_) => {}
            None => is_unsure = true,
        }
    }
    (!is_unsure).then_some(is_queue)
}

impl StreamSlot {
    /// A consumer has ended: it needs nothing any more.
    pub(super) fn interest_ended(&mut self) {
        if self.stream.config().retention == Retention::Interest {
            self.doubtful.insert_range(self.stream.first_seq()..=self.stream.last_seq());
        }
    }

    /// The store has been opened: removals that were to follow acknowledgements may have been forgotten.
    pub(super) fn removals_forgotten(&mut self) {
        let next = self.consumers.values().map(|entry| entry.consumer.next_seq()).max();
        if let Some(next) = next.filter(|_| self.stream.config().retention != Retention::Limits) {
            self.doubtful.insert_range(self.stream.first_seq()..next);
        }
    }
}

impl Store {
    /// A consumer has acknowledged messages.
    pub(super) fn acknowledged(&mut self, now: Time, of: Incarnation, range: RangeInclusive<u64>) {
        let Some((slot, mut sink)) = self.parts_of(now, of) else { return };
        let Body { stream, consumers, doubtful, .. } = slot;
        let retention = stream.config().retention;
        for seq in range {
            // Whoever has acknowledged it wanted it.
            let keeps =
                if retention == Retention::WorkQueue { Some(false) } else { keeps(retention, consumers, seq, None) };
            match keeps {
                Some(false) => stream.acknowledged(seq, &mut sink),
                Some(true) => {}
                None => {
                    doubtful.insert(seq);
                }
            }
        }
        sink.finish(consumers);
        self.wake(Wake::Stream(of));
    }

    /// Looks at what may be needed no longer.
    pub(super) fn review(&mut self, now: Time, of: Incarnation) {
        let mut near = None;
        for _ in 0..SLICE {
            let Some((Body { stream, consumers, doubtful, .. }, _)) = self.parts_of(now, of) else { return };
            let Some(first) = doubtful.min() else { return };
            let Some(seq) = stream.next_needed(first) else { return doubtful.clear() };
            doubtful.remove_range(..seq);
            if seq > stream.visible() {
                // It is looked at when it is flushed.
                return;
            }
            let Lookup::Found { block, .. } = stream.locate(seq) else {
                doubtful.remove(seq);
                continue;
            };
            if !doubtful.contains(seq) {
                continue;
            }
            let retention = stream.config().retention;
            let verdict = keeps(retention, consumers, seq, None);
            let run = match verdict {
                Some(_) => None,
                None => match self.fetch(of, seq, block.position, near.as_ref(), Wake::Stream(of)) {
                    Fetched::Wait(_) => return,
                    Fetched::Lost(_) => None,
                    Fetched::Run(run) => Some(run),
                },
            };
            let subject = run.as_ref().and_then(|run| run.find(seq)).map(|(message, _)| message.subject);
            let Some((Body { stream, consumers, doubtful, .. }, mut sink)) = self.parts_of(now, of) else { return };
            let verdict = verdict.or_else(|| keeps(retention, consumers, seq, Some(subject?)));
            doubtful.remove(seq);
            if verdict == Some(false) {
                stream.acknowledged(seq, &mut sink);
            }
            if sink.finish(consumers) {
                self.wake_consumers(of);
            }
            near = run.or(near);
        }
        self.wake(Wake::Stream(of));
    }
}
