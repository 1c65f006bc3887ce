//! Looking at a log without opening it: all its files, from the first byte to the last, for tools.
//!
//! Opening a log reads what came after the latest checkpoint. A survey finds the same files and the same end, and then
//! reads whatever is asked for, so that what has lain there for a long time is looked at too.

use super::super::batch::BATCH_BYTES_MAX;
use super::super::field::{u32_at, u64_at};
use super::*;

/// A segment that a survey has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSegment {
    /// Its file.
    pub slot: Slot,
    /// Bytes of the file, as far as they are whole blocks.
    pub file_bytes: u32,
    /// Its head; if that is damaged, what the first batch tells.
    pub head: SegmentHead,
    /// What is wrong with the head.
    pub flaw: Option<Flaw>,
    /// Where its batches end, as a later segment or the end of the log tells. The end of the file if nothing does.
    pub end: u32,
    /// Whether `end` is known: it is the last one, or the one behind it is there.
    pub end_is_known: bool,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The byte behind the last batch.
    pub position: Position,
    /// The batch that would be next.
    pub next: Next,
}

/// A checkpoint as the log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCheckpoint {
    /// The batch of its end.
    pub position: Position,
    /// What that says, or why it cannot be used.
    pub content: Result<CheckpointEnd, &'static str>,
}

/// A file whose beginning cannot be understood, and which nevertheless goes on behind the end that the log seems to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiddenEnd {
    /// The file.
    pub slot: Slot,
    /// The segment that it was.
    pub segment: SegmentNo,
    /// The first whole batch in it.
    pub batch: BatchNo,
    /// Where that lies.
    pub offset: u32,
}

/// The files of a log. See the module.
pub struct Survey<'s, 'f, F> {
    opening: &'s mut Opening<'f, F, Nobody>,
    end: Option<End>,
}

/// Nothing is told to anybody.
struct Nobody;

impl Visitor for Nobody {
    fn snapshot(&mut self, _: Incarnation, _: &[u8]) -> Result<(), &'static str> {
        Ok(())
    }

    fn reset(&mut self) {}

    fn messages<'a>(
        &mut self,
        _: &PlacedRun,
        _: Effect,
        _: &mut dyn Iterator<Item = Result<(Message<'a>, u32), Flaw>>,
    ) {
    }

    fn piece(&mut self, _: &PlacedRun) {}

    fn control(&mut self, _: &PlacedRun, _: Effect, _: &[u8]) {}

    fn damaged(&mut self, _: &PlacedRun, _: Effect, _: Flaw) {}
}

/// Finds the files of the log `log` of a store, and where it ends, and lets `look` see them.
///
/// # Errors
/// A [`Refusal`] when nothing sensible can be said about its content.
pub fn survey<F: Files, R>(
    files: &mut F,
    log: LogId,
    store: StoreId,
    look: impl FnOnce(&mut Survey<'_, '_, F>) -> R,
) -> Result<R, Refusal> {
    let mut nobody = Nobody;
    let mut opening = Opening::new(files, &mut nobody, log, store);
    opening.list()?;
    let end = opening.find_end()?;
    Ok(look(&mut Survey { opening: &mut opening, end }))
}

impl<F: Files> Survey<'_, '_, F> {
    /// Where the log ends; `None` if there is nothing in it.
    #[must_use]
    pub fn end(&self) -> Option<LogEnd> {
        let end = self.end.as_ref()?;
        Some(LogEnd { position: Position::new(end.segment, end.offset), next: end.next })
    }

    /// Its segments in the order of their use.
    #[must_use]
    pub fn segments(&self) -> Vec<FoundSegment> {
        let opening = &*self.opening;
        let describe = |(no, found): (&SegmentNo, &Found)| {
            let plan = self.plan(*no, found, Depth::Directories);
            let end_is_known = self.end_in(*no).is_some() || matches!(plan.proven, Proven::All(_));
            let &Found { slot, file_bytes, head, flaw } = found;
            FoundSegment { slot, file_bytes, head, flaw, end: plan.end, end_is_known }
        };
        opening.segments.iter().map(describe).collect()
    }

    /// Files without batches, and their bytes.
    #[must_use]
    pub fn spare(&self) -> Vec<(Slot, u32)> {
        self.opening.spare.iter().map(|spare| (spare.slot, spare.bytes)).collect()
    }

    /// Files that are no segments of this log, or cannot be read, or are copies of segments.
    #[must_use]
    pub fn aside(&self) -> &[Slot] {
        &self.opening.aside
    }

    /// What was found to be wrong so far, with files and with the end of the log.
    #[must_use]
    pub fn repairs(&self) -> &[Repair] {
        &self.opening.repairs
    }

    /// Tells the batches of a segment and the damage among them, in order. `None` if there is no such segment.
    pub fn scan(
        &mut self,
        segment: SegmentNo,
        depth: Depth,
        each: impl FnMut(Step<'_>),
    ) -> Option<super::super::scan::End> {
        let found = *self.opening.segments.get(&segment)?;
        let plan = self.plan(segment, &found, depth);
        Some(scan(self.opening.files, found.slot, &plan, each).0)
    }

    /// The latest complete checkpoint and the one before it, as far as the log still names them.
    pub fn checkpoints(&mut self) -> Vec<FoundCheckpoint> {
        let mut checkpoints = Vec::new();
        let mut position = self.end.as_ref().and_then(|end| end.checkpoint);
        while let Some(at) = position.filter(|_| checkpoints.len() < 2) {
            let content = self.opening.checkpoint_at(at);
            position = match &content {
                Ok(content) => content.previous,
                Err(_) => self.opening.checkpoint_before(at),
            };
            checkpoints.push(FoundCheckpoint { position: at, content });
        }
        checkpoints
    }

    /// Looks through a file that was put aside for batches that prove that the log went on after the end it seems to
    /// have.
    pub fn hidden_end(&mut self, slot: Slot) -> Option<HiddenEnd> {
        // A log that seems to be empty has no batch before its first one.
        let nothing = Next { batch: BatchNo(1), chain: 0, epoch: 0 };
        let next = self.end().map_or(nothing, |end| end.next);
        let (log, store_tag) = (self.opening.log, self.opening.store.tag());
        let mut first = None;
        let mut offset = 0;
        loop {
            let bytes = self.opening.files.read(slot, offset, BATCH_BYTES_MAX).ok()?;
            if bytes.is_empty() {
                return None;
            }
            for (index, block) in bytes.chunks_exact(BLOCK_BYTES).enumerate() {
                let at = offset + (index * BLOCK_BYTES) as u32;
                let segment = SegmentNo(u32_at(block, 16));
                if u64_at(block, 72) != store_tag || segment.0 == 0 {
                    continue;
                }
                let expect = Expect { log, store_tag, position: Position::new(segment, at), next: None };
                let Ok(batch) = parse_directory(&bytes[index * BLOCK_BYTES..], &expect) else { continue };
                let head = batch.head();
                if head.batch >= next.batch && head.epoch >= next.epoch {
                    let (batch, offset) = *first.get_or_insert((head.batch, at));
                    if head.flushed_upto >= next.batch {
                        return Some(HiddenEnd { slot, segment, batch, offset });
                    }
                }
            }
            offset = offset.checked_add(u32::try_from(bytes.len()).ok()?)?;
        }
    }

    /// The end of the log, if this segment has it.
    fn end_in(&self, segment: SegmentNo) -> Option<&End> {
        self.end.as_ref().filter(|end| end.segment == segment)
    }

    fn plan(&self, segment: SegmentNo, found: &Found, depth: Depth) -> Plan {
        let mut plan = self.opening.plan(segment, found, found.head.first, BLOCK_BYTES as u32, depth);
        if let Some(end) = self.end_in(segment) {
            end.bound(&mut plan);
        }
        plan
    }
}
