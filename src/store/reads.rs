//! Finding messages: in memory, or by a read that wakes whoever wants it.

use std::sync::Arc;

use super::cache::{DecodedRun, Looked};
use super::{Notice, Store, StreamSlot, Wake, file_of};
use crate::log::{BLOCK_BYTES, Detail, DiskFault, Flaw, Incarnation, Position, RequestId, SegmentNo, Time};
use crate::stream::{Block, Settled};

/// After a read that failed it is tried again so much later.
const READ_RETRY_NS: i64 = 1_000_000_000;

/// The outcome of a fetch.
pub(super) enum Fetched {
    /// The run that holds the message.
    Run(Arc<DecodedRun>),
    /// It is being read.
    Wait,
    /// It is damaged, and so is everything up to this number if that is known.
    Lost(Option<u64>),
}

impl Store {
    /// The run with a message that the index has at `position` or behind it. `near` is the run that the caller has read
    /// before, from which it is usually a step.
    pub(super) fn fetch(
        &mut self,
        of: Incarnation,
        seq: u64,
        position: Option<Position>,
        near: Option<&Arc<DecodedRun>>,
        waiter: Wake,
    ) -> Fetched {
        let Some(position) = position else {
            let memory = self.streams.get(&of).and_then(|slot| slot.memory.range(seq..).next());
            return memory.map_or(Fetched::Lost(None), |(_, run)| Fetched::Run(Arc::clone(run)));
        };
        if let Some(run) = self.cache.run(of, seq) {
            return Fetched::Run(run);
        }
        // The run behind the one at hand usually lies behind it, if it lies in the same segment at all; but one that
        // cleaning has moved may lie behind those that come after it.
        let near = near.map(|run| run.position).filter(|near| near.segment() == position.segment() && *near > position);
        let (log, cache) = (&self.log, &mut self.cache);
        let end = log.segment_end(position.segment()).unwrap_or(0);
        let mut look = |from| cache.look(of, seq, from, end, |segment| log.segment_after(segment));
        let looked = match near.map(&mut look) {
            None | Some(Looked::End) => look(position),
            Some(looked) => looked,
        };
        match looked {
            Looked::Run(run) => Fetched::Run(run),
            Looked::End => Fetched::Lost(None),
            Looked::Missing(position, bytes) => {
                self.read(position, bytes, waiter);
                Fetched::Wait
            }
            Looked::Damaged { position, upto, flaw } => {
                self.damaged(of, position, flaw);
                Fetched::Lost(upto)
            }
        }
    }

    fn damaged(&mut self, stream: Incarnation, position: Position, flaw: Flaw) {
        let notice = Notice::Damaged { stream, file: file_of(&self.log, position.segment()), flaw };
        if self.notices.last() != Some(&notice) {
            self.notices.push(notice);
        }
    }

    /// Asks for a read, unless it is under way, and wakes `waiter` when it has ended.
    pub(super) fn read(&mut self, position: Position, bytes: u32, waiter: Wake) {
        let waiters = self.waiters.entry(position).or_default();
        if !waiters.contains(&waiter) {
            waiters.push(waiter);
        }
        if waiters.len() > 1 {
            return;
        }
        match self.log.read(position, bytes, &mut self.requests) {
            Some(id) => drop(self.reads.insert(id, position)),
            // The segment has gone: whoever looks again finds the new place.
            None => self.wake_waiters(position),
        }
    }

    fn wake_waiters(&mut self, position: Position) {
        for waiter in self.waiters.remove(&position).into_iter().flatten() {
            self.wake(waiter);
        }
    }

    pub(super) fn read_ended(&mut self, now: Time, id: RequestId, outcome: Result<bytes::Bytes, DiskFault>) {
        let Some(position) = self.reads.remove(&id) else { return };
        match outcome {
            Ok(bytes) if !bytes.is_empty() => {
                self.cache.insert(position, bytes);
                self.wake_waiters(position);
            }
            outcome => {
                let fault = outcome.err().unwrap_or(DiskFault::Short);
                let notice = Notice::ReadFailed { file: file_of(&self.log, position.segment()), fault };
                self.notices.push(notice);
                for waiter in self.waiters.remove(&position).into_iter().flatten() {
                    match waiter {
                        Wake::Cleaner => self.cleaner.pause(now + READ_RETRY_NS),
                        waiter => self.arm(waiter, Some(now + READ_RETRY_NS)),
                    }
                }
            }
        }
    }

    /// Lets a stream do what its limits demand.
    pub(super) fn settle(&mut self, now: Time, of: Incarnation) {
        if let Some(slot) = self.streams.get_mut(&of) {
            slot.dirty = false;
        }
        // Each round has read one block; what is not in memory ends it.
        for _ in 0..SETTLE_ROUNDS {
            let Some((slot, mut sink)) = self.parts_of(now, of) else { return };
            let settled = slot.stream.settle(now, &mut sink);
            let removed = sink.finish(slot.consumers);
            if removed {
                self.wake_consumers(of);
            }
            match settled {
                Settled::Done | Settled::AfterFlush => {
                    let due = self.streams.get(&of).and_then(|slot| slot.stream.next_deadline());
                    return self.arm(Wake::Stream(of), due);
                }
                Settled::Again => break,
                Settled::Needs(block) => match self.details(of, &block) {
                    None => return,
                    Some(details) => {
                        let Some((slot, mut sink)) = self.parts_of(now, of) else { return };
                        slot.stream.supply(details, &mut sink);
                        if sink.finish(slot.consumers) {
                            self.wake_consumers(of);
                        }
                    }
                },
            }
        }
        self.wake(Wake::Stream(of));
    }

    /// Details of the needed messages of a block; `None` if they are being read.
    fn details(&mut self, of: Incarnation, block: &Block) -> Option<Vec<Detail>> {
        let mut details = Vec::new();
        let (mut from, mut near) = (block.from, None);
        while let Some(seq) = self.streams.get(&of)?.stream.next_needed(from).filter(|seq| *seq <= block.upto) {
            match self.fetch(of, seq, block.position, near.as_ref(), Wake::Stream(of)) {
                Fetched::Wait => return None,
                Fetched::Lost(upto) => from = upto.unwrap_or(seq).max(seq) + 1,
                Fetched::Run(run) => {
                    let stream = &self.streams.get(&of)?.stream;
                    for index in run.index_of(seq).. {
                        let Some((message, record_bytes)) = run.get(index) else { break };
                        if message.seq > block.upto {
                            break;
                        }
                        if stream.is_needed(message.seq) {
                            details.push(Detail {
                                seq: message.seq,
                                time: message.time,
                                subject: bytes::Bytes::copy_from_slice(message.subject),
                                headers_bytes: message.headers.len() as u32,
                                payload_bytes: message.payload.len() as u32,
                                record_bytes,
                                position: block.position,
                            });
                        }
                    }
                    from = run.last_seq.max(seq) + 1;
                    near = Some(run);
                }
            }
        }
        Some(details)
    }

    pub(super) fn slot(&self, of: Incarnation) -> Option<&StreamSlot> {
        self.streams.get(&of)
    }
}

/// Blocks that one settle looks at.
const SETTLE_ROUNDS: usize = 8;

/// Where the batches of a segment begin.
pub(super) fn first_batch(segment: SegmentNo) -> Position {
    Position::new(segment, BLOCK_BYTES as u32)
}
