//! Finding messages: in memory, or by a read that wakes whoever wants it.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::cache::{DecodedRun, Looked, READ_BYTES, Search};
use super::{Notice, Store, StreamSlot, Wake, file_of};
use crate::log::{BLOCK_BYTES, Defect, Detail, DiskFault, Flaw, Incarnation, Position, RequestId, SegmentNo, Time};
use crate::stream::{Block, Settled};

/// After a read that failed it is tried again so much later.
const READ_RETRY_NS: i64 = 1_000_000_000;
/// That a read has failed is remembered for so long, for whoever asks again.
const FAILED_READ_NS: i64 = 10 * READ_RETRY_NS;
/// Reads that are under way or done ahead of a reader.
const READ_AHEAD: usize = 4;
/// Searches that wait for a read and are kept; whoever else waits begins again. As many failed reads are remembered.
const SEARCHES_MAX: usize = 64;

/// A read that is under way.
#[derive(Debug)]
pub(super) enum Reading {
    /// As it was wanted.
    Whole { position: Position, bytes: u32, leads_on: bool },
    /// One block of what could not be read in one go.
    Block(Box<Salvage>),
    /// The head of a segment none of whose wanted blocks can be read.
    Head(Box<Salvage>),
}

/// A read that has failed as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailedRead {
    position: Position,
    fault: DiskFault,
    at: Time,
}

/// Reading block by block, as one bad sector must not spoil what lies around it.
#[derive(Debug)]
pub(super) struct Salvage {
    position: Position,
    /// Bytes still to be read.
    left: u32,
    /// What was read; zeros where it could not be.
    read: BytesMut,
    /// Blocks that could not be read.
    bad: usize,
    /// How the read failed.
    fault: DiskFault,
}

/// The outcome of a fetch.
pub(super) enum Fetched {
    /// The run that holds the message.
    Run(Arc<DecodedRun>),
    /// This is being read.
    Wait(Position),
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
        let begun =
            self.searches.iter().position(|search| (search.stream, search.seq, search.from) == (of, seq, position));
        let mut search = begun.and_then(|index| self.searches.remove(index)).unwrap_or_else(|| {
            // The run behind the one at hand usually lies behind it, if it lies in the same segment at all; but one
            // that cleaning has moved may lie behind those that come after it.
            let near = near.map(|run| run.position);
            let near = near.filter(|near| near.segment() == position.segment() && *near > position);
            Search::new(of, seq, position, near)
        });
        let looked = self.cache.look(&self.log, &mut search);
        for lead in self.cache.take_leads() {
            self.read_ahead(lead);
        }
        match looked {
            Looked::Run(run) => Fetched::Run(run),
            Looked::Missing(position, bytes) => {
                if self.searches.len() >= SEARCHES_MAX {
                    self.searches.pop_front();
                }
                self.searches.push_back(search);
                self.read(position, bytes, waiter);
                Fetched::Wait(position)
            }
            Looked::End => {
                self.damaged(of, position, Flaw { offset: position.offset(), defect: Defect::Absent });
                Fetched::Lost(None)
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
        if let Some((_, waiters)) = self.under_way(position) {
            if !waiters.contains(&waiter) {
                waiters.push(waiter);
            }
            return;
        }
        // A reader that has come here from before goes on.
        let before = position.offset().checked_sub(BLOCK_BYTES as u32);
        let before = before.map(|offset| Position::new(position.segment(), offset));
        let leads_on = self.cache.is_roomy() && before.is_some_and(|before| self.cache.extent_end(before).is_some());
        match self.ask(position, bytes, leads_on) {
            Some(end) => {
                self.waiters.insert(position, (end, vec![waiter]));
                if leads_on {
                    self.read_ahead(end);
                }
            }
            // The segment has gone: whoever looks again finds the new place.
            None => self.wake(waiter),
        }
    }

    /// The read that is going to bring the byte at `position`.
    fn under_way(&mut self, position: Position) -> Option<&mut (Position, Vec<Wake>)> {
        self.waiters.range_mut(..=position).next_back().map(|(_, read)| read).filter(|(end, _)| *end > position)
    }

    /// Begins a read; returns where it ends.
    fn ask(&mut self, position: Position, bytes: u32, leads_on: bool) -> Option<Position> {
        let id = self.log.read(position, bytes, &mut self.requests)?;
        self.reads.insert(id, Reading::Whole { position, bytes, leads_on });
        Some(Position::new(position.segment(), position.offset() + bytes))
    }

    /// Reads what a reader that comes to `from` is going to want, so that it need not wait.
    fn read_ahead(&mut self, from: Position) {
        let mut at = from;
        for _ in 0..READ_AHEAD {
            let end = self.log.segment_end(at.segment()).unwrap_or(0);
            if at.offset() >= end {
                match self.log.segment_after(at.segment()) {
                    Some(segment) => at = first_batch(segment),
                    None => return,
                }
                continue;
            }
            let there = self.cache.extent_end(at).or_else(|| self.under_way(at).map(|(end, _)| *end));
            if let Some(there) = there {
                at = there;
                continue;
            }
            // The end of the log is in memory.
            if self.log.segment_after(at.segment()).is_none() && end - at.offset() < READ_BYTES {
                return;
            }
            let coming = self.waiters.range(at..).next().map(|(start, _)| *start);
            let coming =
                coming.filter(|start| start.segment() == at.segment()).map(|start| start.offset() - at.offset());
            let most = READ_BYTES.min(end - at.offset()).min(coming.unwrap_or(u32::MAX));
            let bytes = self.cache.gap(at, most);
            let Some(end) = self.ask(at, bytes, true) else { return };
            self.waiters.insert(at, (end, Vec::new()));
            at = end;
        }
    }

    fn wake_waiters(&mut self, position: Position) {
        for waiter in self.waiters.remove(&position).into_iter().flat_map(|(_, waiters)| waiters) {
            self.wake(waiter);
        }
    }

    pub(super) fn read_ended(&mut self, now: Time, id: RequestId, outcome: Result<Bytes, DiskFault>) {
        let Some(reading) = self.reads.remove(&id) else { return };
        match reading {
            Reading::Whole { position, bytes, leads_on } => match outcome {
                Ok(read) if !read.is_empty() => self.read_done(position, read, leads_on),
                outcome => {
                    // If the head of the segment cannot be read either, it is the whole device that does not answer.
                    let fault = outcome.err().unwrap_or(DiskFault::Short);
                    let salvage = Box::new(Salvage { position, left: bytes, read: BytesMut::new(), bad: 0, fault });
                    self.read_block(now, Position::new(position.segment(), 0), salvage, Reading::Head);
                }
            },
            Reading::Head(salvage) => match outcome {
                Ok(_) => self.read_block(now, salvage.position, salvage, Reading::Block),
                Err(fault) => self.read_failed(now, salvage.position, fault),
            },
            Reading::Block(mut salvage) => {
                match outcome {
                    Ok(read) if read.len() == BLOCK_BYTES => salvage.read.extend_from_slice(&read),
                    _ => {
                        salvage.bad += 1;
                        salvage.read.put_bytes(0, BLOCK_BYTES);
                    }
                }
                salvage.left = salvage.left.saturating_sub(BLOCK_BYTES as u32);
                if salvage.left == 0 {
                    return self.salvaged(*salvage);
                }
                let offset = salvage.position.offset() + salvage.read.len() as u32;
                self.read_block(now, Position::new(salvage.position.segment(), offset), salvage, Reading::Block);
            }
        }
    }

    fn read_done(&mut self, position: Position, bytes: Bytes, leads_on: bool) {
        self.failed_reads.retain(|failed| failed.position != position);
        self.cache.insert_extent(position, bytes, leads_on);
        self.wake_waiters(position);
    }

    fn read_block(&mut self, now: Time, at: Position, salvage: Box<Salvage>, then: fn(Box<Salvage>) -> Reading) {
        match self.log.read(at, BLOCK_BYTES as u32, &mut self.requests) {
            Some(id) => drop(self.reads.insert(id, then(salvage))),
            None => self.read_failed(now, salvage.position, salvage.fault),
        }
    }

    /// Blocks that cannot be read count as damaged, so that what is around them can be read.
    fn salvaged(&mut self, salvage: Salvage) {
        let Salvage { position, read, bad, fault, .. } = salvage;
        if bad > 0 {
            self.notices.push(Notice::ReadFailed { file: file_of(&self.log, position.segment()), fault });
        }
        self.read_done(position, read.freeze(), false);
    }

    fn read_failed(&mut self, now: Time, position: Position, fault: DiskFault) {
        self.notices.push(Notice::ReadFailed { file: file_of(&self.log, position.segment()), fault });
        self.failed_reads.retain(|failed| failed.position != position);
        if self.failed_reads.len() >= SEARCHES_MAX {
            self.failed_reads.pop_front();
        }
        self.failed_reads.push_back(FailedRead { position, fault, at: now });
        for waiter in self.waiters.remove(&position).into_iter().flat_map(|(_, waiters)| waiters) {
            match waiter {
                Wake::Cleaner => {
                    self.cleaner.awake = true;
                    self.cleaner.pause(now + READ_RETRY_NS);
                }
                waiter => self.arm(waiter, Some(now + READ_RETRY_NS)),
            }
        }
    }

    /// How the last read at this place has failed, if nobody has been told of it yet.
    pub(super) fn take_failed_read(&mut self, position: Position) -> Option<DiskFault> {
        let index = self.failed_reads.iter().position(|failed| failed.position == position)?;
        self.failed_reads.remove(index).map(|failed| failed.fault)
    }

    /// Whoever has not asked again by now is not going to.
    pub(super) fn forget_failed_reads(&mut self, now: Time) {
        while self.failed_reads.front().is_some_and(|failed| failed.at.saturating_add(FAILED_READ_NS) <= now) {
            self.failed_reads.pop_front();
        }
    }

    /// Lets a stream do what its limits demand.
    pub(super) fn settle(&mut self, now: Time, of: Incarnation) {
        if let Some(slot) = self.streams.get_mut(&of) {
            slot.dirty = false;
        }
        self.review(now, of);
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
                Settled::Needs(block) => match self.gather(of, &block) {
                    None => return,
                    Some(gathering) => {
                        let Some((slot, mut sink)) = self.parts_of(now, of) else { return };
                        slot.stream.supply(gathering.details(), &mut sink);
                        if sink.finish(slot.consumers) {
                            self.wake_consumers(of);
                        }
                    }
                },
            }
        }
        self.wake(Wake::Stream(of));
    }

    /// The runs with the needed messages of a block; `None` if they are being read. What was read before that is kept.
    fn gather(&mut self, of: Incarnation, block: &Block) -> Option<Box<Gathering>> {
        let kept = self.streams.get_mut(&of)?.gathering.take();
        let kept = kept.filter(|kept| kept.block == *block);
        let anew = || Box::new(Gathering { block: *block, from: block.from, runs: Vec::new() });
        let mut gathering = kept.unwrap_or_else(anew);
        loop {
            let needed = self.streams.get(&of)?.stream.next_needed(gathering.from);
            let Some(seq) = needed.filter(|seq| *seq <= block.upto) else { return Some(gathering) };
            let near = gathering.runs.last().map(|(_, run)| run);
            match self.fetch(of, seq, block.position, near, Wake::Stream(of)) {
                Fetched::Wait(_) => {
                    self.streams.get_mut(&of)?.gathering = Some(gathering);
                    return None;
                }
                Fetched::Lost(upto) => gathering.from = upto.unwrap_or(seq).max(seq) + 1,
                Fetched::Run(run) => {
                    gathering.from = run.last_seq.max(seq) + 1;
                    gathering.runs.push((seq, run));
                }
            }
        }
    }

    pub(super) fn slot(&self, of: Incarnation) -> Option<&StreamSlot> {
        self.streams.get(&of).map(Box::as_ref)
    }
}

/// Blocks that one settle looks at.
const SETTLE_ROUNDS: usize = 8;

/// Where the batches of a segment begin.
pub(super) fn first_batch(segment: SegmentNo) -> Position {
    Position::new(segment, BLOCK_BYTES as u32)
}

/// A block that is read for details of its messages.
#[derive(Debug)]
pub(super) struct Gathering {
    block: Block,
    /// The next message to be looked at.
    from: u64,
    /// Runs that hold messages of the block, each with the first that counts.
    runs: Vec<(u64, Arc<DecodedRun>)>,
}

impl Gathering {
    /// Details of all messages in the runs.
    fn details(&self) -> impl Iterator<Item = Detail<'_>> {
        self.runs.iter().flat_map(|(first, run)| {
            let messages = (run.index_of(*first)..).map_while(|index| run.get(index));
            messages.map(|(message, record_bytes)| Detail {
                seq: message.seq,
                time: message.time,
                subject: message.subject,
                headers_bytes: message.headers.len() as u32,
                payload_bytes: message.payload.len() as u32,
                record_bytes,
            })
        })
    }
}
