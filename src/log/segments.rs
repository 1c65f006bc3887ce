//! Which files a log has: segments in use, spare ones made ready ahead of need, and how large the next is to be.

use std::collections::{BTreeMap, VecDeque};

use super::ids::{BLOCK_BYTES, SegmentNo, Slot};
use super::log::BATCH_BYTES;
use super::request::RequestId;

/// Segments kept ready for what must go on when the disk is full: one for cleaning, one for deletes, acknowledgements
/// and metadata.
pub const RESERVED_SEGMENTS: usize = 2;

/// Segments grow quickly up to this size,
const QUICK_BYTES: u32 = 16 << 20;
/// and from there on in proportion: the log has at least so many of them.
const SHARE: u64 = 32;

/// Sizes of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The first one. Each later one is twice as large, up to 16 MiB and then up to a 32nd of the log, so that what is
    /// kept ready stays in proportion.
    pub min: u32,
    /// The largest, whatever the size of the log.
    pub max: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { min: 1 << 20, max: 64 << 20 }
    }
}

/// A segment that holds batches.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) slot: Slot,
    /// Size of its file.
    pub(super) bytes: u32,
    /// Where its batches end.
    pub(super) end: u32,
    /// Nothing more will be written to it.
    pub(super) sealed: bool,
    /// Bytes of records of messages written to it.
    pub(super) records: u64,
    /// Of those, bytes of messages that have been removed or moved since. A hint for cleaning: recycling looks exactly.
    pub(super) dead: u64,
    /// Something that was removed from it is to be overwritten.
    pub(super) erase: bool,
    /// `dead` when cleaning found that there was too little to gain; see [`super::clean`].
    pub(super) spared_at: Option<u64>,
}

impl Segment {
    /// Written bytes that are no records of live messages. What was never written because the next batch did not fit is
    /// no reason to clean: the same would come of it again.
    pub(super) fn reclaimable(&self) -> u64 {
        let written = u64::from(self.end).saturating_sub(BLOCK_BYTES as u64);
        written.saturating_sub(self.records.saturating_sub(self.dead))
    }
}

/// The number of no segment.
const UNUSED: SegmentNo = SegmentNo(0);

/// A file without batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spare {
    pub(super) slot: Slot,
    pub(super) bytes: u32,
}

#[derive(Debug)]
pub(super) struct Segments {
    sizes: Sizes,
    pub(super) in_use: BTreeMap<SegmentNo, Segment>,
    /// Ready for use.
    spare: VecDeque<Spare>,
    /// Being made ready.
    preparing: Option<(RequestId, Spare)>,
    /// What is being made ready held what is to be overwritten.
    erases: bool,
    /// Files whose old content is to be overwritten before they are used again.
    tainted: VecDeque<Spare>,
    /// The same, as soon as possible.
    erasing: VecDeque<Spare>,
    next_slot: u32,
    next_no: u32,
    next_bytes: u32,
    /// Free bytes of the file system, as last told.
    free: Option<u64>,
    /// Most bytes that all files of the log may have.
    limit: u64,
    /// The last attempt at making a file ready failed for want of space.
    pub(super) out_of_space: bool,
    /// A message was refused, and no file has become ready since.
    pub(super) wanted: bool,
}

impl Segments {
    pub(super) fn new(sizes: Sizes, limit: u64) -> Self {
        Self {
            sizes,
            in_use: BTreeMap::new(),
            spare: VecDeque::new(),
            preparing: None,
            erases: false,
            tainted: VecDeque::new(),
            erasing: VecDeque::new(),
            next_slot: 0,
            next_no: 1,
            next_bytes: sizes.min,
            free: None,
            limit,
            out_of_space: false,
            wanted: false,
        }
    }

    /// Takes over a segment that recovery has found.
    pub(super) fn found(&mut self, no: SegmentNo, segment: Segment) {
        self.next_slot = self.next_slot.max(segment.slot.0 + 1);
        self.next_no = self.next_no.max(no.0 + 1);
        self.next_bytes = self.next_bytes.max(segment.bytes.saturating_mul(2)).min(self.sizes.max);
        self.in_use.insert(no, segment);
    }

    /// Takes over a file without batches. `clean` if it is zero-filled to its size and flushed.
    pub(super) fn found_spare(&mut self, spare: Spare, clean: bool) {
        self.next_slot = self.next_slot.max(spare.slot.0 + 1);
        // One that a crash has left short gets a sensible size.
        let bytes = spare.bytes.clamp(self.sizes.min, self.sizes.max);
        if clean { self.spare.push_back(spare) } else { self.tainted.push_back(Spare { bytes, ..spare }) }
    }

    /// A file that is not to be touched: its slot is never used.
    pub(super) fn leave_alone(&mut self, slot: Slot) {
        self.next_slot = self.next_slot.max(slot.0 + 1);
    }

    /// No segment gets this number or a lower one.
    pub(super) fn leave_numbers(&mut self, upto: SegmentNo) {
        self.next_no = self.next_no.max(upto.0.saturating_add(1));
    }

    pub(super) fn set_free(&mut self, bytes: u64) {
        self.free = Some(bytes);
    }

    pub(super) fn spares(&self) -> usize {
        self.spare.len()
    }

    /// Whether files wait for being overwritten.
    pub(super) fn has_to_erase(&self) -> bool {
        !self.erasing.is_empty()
    }

    /// The segments that hold what is to be overwritten, and [`UNUSED`] if files do that are in use no longer.
    pub(super) fn unerased(&self) -> Vec<SegmentNo> {
        let unused = (self.erases || self.has_to_erase()).then_some(UNUSED);
        let in_use = self.in_use.iter().filter(|(_, segment)| segment.erase).map(|(no, _)| *no);
        in_use.chain(unused).collect()
    }

    /// Overwrites these segments, as [`Segments::unerased`] has told them before a restart. Which files the others among
    /// them had is not known any more: it is all that are not in use.
    pub(super) fn erase_again(&mut self, segments: impl Iterator<Item = SegmentNo>) {
        for no in segments {
            match self.in_use.get_mut(&no) {
                Some(segment) => segment.erase = true,
                None => self.erasing.extend(self.spare.drain(..).chain(self.tainted.drain(..))),
            }
        }
    }

    pub(super) fn is_preparing(&self) -> bool {
        self.preparing.is_some()
    }

    /// Bytes of all files.
    pub(super) fn total_bytes(&self) -> u64 {
        let used = self.in_use.values().map(|segment| u64::from(segment.bytes)).sum::<u64>();
        let spare = self
            .spare
            .iter()
            .chain(&self.tainted)
            .chain(&self.erasing)
            .chain(self.preparing.as_ref().map(|(_, spare)| spare));
        used + spare.map(|spare| u64::from(spare.bytes)).sum::<u64>()
    }

    /// Whether another file is to be made ready: one for what follows the segment that is being written, and the reserve.
    pub(super) fn more_wanted(&self) -> bool {
        self.wanted || self.spare.len() <= RESERVED_SEGMENTS
    }

    /// Bytes that surely find room in files that are ready: where the next batch does not fit, a segment ends.
    pub(super) fn usable(&self) -> u64 {
        self.spare.iter().map(|spare| u64::from(spare.bytes).saturating_sub(BATCH_BYTES as u64)).sum()
    }

    /// Bytes that messages may still take in files but the one that is being written: the reserve is not theirs.
    pub(super) fn room(&self) -> u64 {
        let preparing = self.preparing.map_or(0, |(_, spare)| u64::from(spare.bytes));
        let more = match (self.out_of_space, self.limit) {
            (true, _) => 0,
            (false, u64::MAX) => self.free.unwrap_or(u64::MAX),
            (false, limit) => limit.saturating_sub(self.total_bytes()) + preparing,
        };
        let more = more.min(self.free.unwrap_or(u64::MAX));
        // Less than the smallest file is no room.
        let more = more - more % u64::from(self.sizes.min.max(1));
        let ready = self.spare.iter().map(|spare| u64::from(spare.bytes)).sum::<u64>();
        let largest = self.spare.iter().map(|spare| spare.bytes).max().unwrap_or(self.sizes.min);
        ready.saturating_add(more).saturating_sub(RESERVED_SEGMENTS as u64 * u64::from(largest))
    }

    /// The file to be made ready next, and whether it exists already. `None` if the log's own limit does not allow
    /// another one.
    pub(super) fn next_to_prepare(&mut self, id: RequestId) -> Option<(Spare, bool)> {
        debug_assert!(self.preparing.is_none(), "one file at a time");
        let erasing = self.erasing.pop_front();
        self.erases = erasing.is_some();
        let old = erasing.or_else(|| self.tainted.pop_front());
        let is_old = old.is_some();
        let spare = match old {
            Some(spare) => spare,
            None => {
                let bytes = self.adapted_bytes();
                if self.total_bytes() + u64::from(bytes) > self.limit {
                    self.out_of_space = true;
                    return None;
                }
                let slot = Slot(self.next_slot);
                self.next_slot += 1;
                Spare { slot, bytes }
            }
        };
        self.preparing = Some((id, spare));
        Some((spare, is_old))
    }

    /// The next size, made smaller where little space is left: at least eight more should fit.
    fn adapted_bytes(&self) -> u32 {
        let room = self.free.unwrap_or(u64::MAX).min(self.limit.saturating_sub(self.total_bytes()));
        let share = u32::try_from(self.total_bytes() / SHARE).unwrap_or(u32::MAX).max(QUICK_BYTES);
        let mut bytes = self.next_bytes.min(1 << share.ilog2()).max(self.sizes.min);
        while bytes > self.sizes.min && u64::from(bytes) * 8 > room {
            bytes /= 2;
        }
        bytes
    }

    /// The file of that request is ready, or is not to be had.
    pub(super) fn prepared(&mut self, id: RequestId, ready: bool) -> Option<Spare> {
        let (_, spare) = self.preparing.take_if(|(asked, _)| *asked == id)?;
        if ready {
            (self.out_of_space, self.wanted) = (false, false);
            self.next_bytes = spare.bytes.saturating_mul(2).clamp(self.sizes.min, self.sizes.max);
            self.spare.push_back(spare);
        } else if self.erases {
            self.erasing.push_front(spare);
        } else {
            // It may exist in part; the next attempt begins with it, at the smallest size.
            self.tainted.push_front(Spare { bytes: self.sizes.min, ..spare });
        }
        self.erases = false;
        Some(spare)
    }

    /// Puts a spare file to use as the next segment.
    pub(super) fn begin(&mut self) -> Option<(SegmentNo, Spare)> {
        let spare = self.spare.pop_front()?;
        let no = SegmentNo(self.next_no);
        self.next_no += 1;
        let segment = Segment {
            slot: spare.slot,
            bytes: spare.bytes,
            end: BLOCK_BYTES as u32,
            sealed: false,
            records: 0,
            dead: 0,
            erase: false,
            spared_at: None,
        };
        self.in_use.insert(no, segment);
        Some((no, spare))
    }

    /// Ends the use of a segment. Its file is used again: at once, or overwritten first if it held what had to be erased,
    /// or if it `failed` to take its first commit.
    pub(super) fn recycle(&mut self, no: SegmentNo, failed: bool) {
        let Some(segment) = self.in_use.remove(&no) else { return };
        let spare = Spare { slot: segment.slot, bytes: segment.bytes };
        match (segment.erase, failed) {
            (true, _) => self.erasing.push_back(spare),
            (false, true) => self.tainted.push_back(spare),
            (false, false) => self.spare.push_back(spare),
        }
        // One that the reserve was short of brings no space for anything else.
        self.out_of_space &= self.spare.len() <= RESERVED_SEGMENTS;
        self.wanted = false;
    }

    /// A spare file more than the log is going to need soon; its space goes back to the file system.
    pub(super) fn take_surplus(&mut self, keep: usize) -> Option<Spare> {
        if self.spare.len() > keep { self.spare.pop_back() } else { None }
    }
}
