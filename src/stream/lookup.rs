//! Which message: by number, by time, by subject. Only visible ones are found.

use super::*;

/// Subjects that a look-up with a pattern looks at before it says "read".
const SUBJECTS_MAX: usize = 1024;

impl Stream {
    /// The message with that number.
    #[must_use]
    pub fn locate(&self, seq: u64) -> Lookup {
        if self.is_visible(seq) { self.found(seq) } else { Lookup::None }
    }

    /// The first message at or after `from`.
    #[must_use]
    pub fn next(&self, from: u64) -> Lookup {
        let seq = self.deleted.next_absent(from.max(self.first));
        if seq <= self.visible() { self.found(seq) } else { Lookup::None }
    }

    /// The last message at or before `upto`.
    #[must_use]
    pub fn prev(&self, upto: u64) -> Lookup {
        let seq = self.deleted.prev_absent(upto.min(self.visible()));
        if seq >= self.first { self.found(seq) } else { Lookup::None }
    }

    /// The first message that is not older than `time`. If it is not in the block to be read, it is the next one behind
    /// that.
    #[must_use]
    pub fn locate_time(&self, time: Time) -> Lookup {
        if self.last_time.is_none_or(|last| last < time) {
            return Lookup::None;
        }
        // Those in front are known to the nanosecond.
        if let Some(known) = self.head.iter().find(|known| known.time >= time) {
            return if known.seq <= self.visible() { self.found(known.seq) } else { Lookup::None };
        }
        let from = self.head.upto().max(self.first - 1) + 1;
        if self.config.is_memory() {
            return self.read(from, self.visible());
        }
        match self.index.stretch_of_time(time) {
            Some(stretch) => self.read(from.max(stretch.entry.first_seq), self.visible()),
            None => Lookup::None,
        }
    }

    /// The first message at or after `from` whose subject `filter` matches.
    #[must_use]
    pub fn next_match(&self, filter: &[u8], from: u64) -> Lookup {
        if filter == b">" {
            return self.next(from);
        }
        let (from, visible) = (from.max(self.first), self.visible());
        // `sure` is the first that is known; something unknown may lie in `low..=high`.
        let (mut sure, mut low, mut high, mut seen) = (u64::MAX, u64::MAX, 0, 0);
        self.subjects.visit(filter, |id, subject| {
            seen += 1;
            if subject.last < from || subject.first > visible {
                return seen < SUBJECTS_MAX;
            }
            if self.subjects.is_listed(id) {
                let mut all = self.subjects.older(id).chain(self.subjects.last(id)).map(|kept| kept.seq);
                sure = sure.min(all.find(|seq| *seq >= from && self.is_live(*seq)).unwrap_or(u64::MAX));
            } else {
                if subject.is_exact && self.is_live(subject.last) {
                    sure = sure.min(subject.last);
                }
                low = low.min(subject.first.max(from));
                high = high.max(subject.last);
            }
            seen < SUBJECTS_MAX
        });
        if seen == SUBJECTS_MAX {
            (low, high) = (from, visible);
        }
        // A read need not go beyond what is known.
        let high = high.min(sure.saturating_sub(1)).min(visible);
        if low <= high {
            return self.read_masked(low, high, self.mask_of(filter), sure);
        }
        if sure <= visible { self.found(sure) } else { Lookup::None }
    }

    /// The last message at or before `upto` whose subject `filter` matches.
    #[must_use]
    pub fn prev_match(&self, filter: &[u8], upto: u64) -> Lookup {
        if filter == b">" {
            return self.prev(upto);
        }
        let upto = upto.min(self.visible());
        let (mut sure, mut low, mut high, mut seen) = (0, u64::MAX, 0, 0);
        self.subjects.visit(filter, |id, subject| {
            seen += 1;
            if subject.first > upto || subject.last < self.first {
                return seen < SUBJECTS_MAX;
            }
            if self.subjects.is_listed(id) {
                let all = self.subjects.older(id).chain(self.subjects.last(id)).map(|kept| kept.seq);
                sure = sure.max(all.filter(|seq| *seq <= upto && self.is_live(*seq)).max().unwrap_or(0));
            } else if subject.is_exact && subject.last <= upto && self.is_live(subject.last) {
                sure = sure.max(subject.last);
            } else {
                low = low.min(subject.first);
                high = high.max(subject.last.min(upto));
            }
            seen < SUBJECTS_MAX
        });
        if seen == SUBJECTS_MAX {
            (low, high) = (self.first, upto);
        }
        let low = low.max(sure + 1).max(self.first);
        if low <= high {
            let mask = self.mask_of(filter);
            for stretch in self.index.stretches_back(high) {
                if stretch.mask & mask != 0 {
                    let (from, upto) = (stretch.entry.first_seq.max(low), stretch.upto.min(high));
                    let block = Block { from, upto, position: Some(stretch.entry.position) };
                    return if from <= upto { Lookup::Read(block) } else { self.found_or_none(sure) };
                }
                if stretch.entry.first_seq <= low {
                    return self.found_or_none(sure);
                }
            }
            if self.config.is_memory() {
                return self.block_back(low, high).map_or(Lookup::None, Lookup::Read);
            }
        }
        self.found_or_none(sure)
    }

    /// Messages whose subject `filter` matches, visible or not; `None` if not [settled](Stream::settle).
    #[must_use]
    pub fn count_matching(&self, filter: &[u8]) -> Option<u64> {
        let mut count = 0;
        self.subjects.visit(filter, |_, subject| {
            count += subject.count;
            true
        });
        self.is_settled().then_some(count)
    }

    /// Visits the subjects that `filter` matches, in order, with their number of messages and the number of their last
    /// one, until `each` says `false`. `None`, and nothing is visited, if that is not [settled](Stream::settle).
    pub fn subjects(&self, filter: &[u8], mut each: impl FnMut(&[u8], u64, u64) -> bool) -> Option<()> {
        if !self.is_settled() || self.subjects.first_vague().is_some() {
            return None;
        }
        self.subjects.visit(filter, |id, subject| each(self.subjects.text(id), subject.count, subject.last));
        Some(())
    }

    /// The first part of a range that can be read at once; `None` if nothing of it is placed.
    pub(super) fn block_from(&self, from: u64, upto: u64) -> Option<Block> {
        let upto = upto.min(self.visible());
        if from > upto {
            return None;
        }
        if self.config.is_memory() {
            return Some(Block { from, upto: upto.min(from + MEMORY_BLOCK - 1), position: None });
        }
        let stretch = self.index.stretch(from)?;
        Some(Block { from, upto: upto.min(stretch.upto), position: Some(stretch.entry.position) })
    }

    /// The last part of a range that can be read at once; `None` if some of the range is not placed.
    pub(super) fn block_back(&self, from: u64, upto: u64) -> Option<Block> {
        let visible = self.visible();
        if upto > visible && self.live_in(visible + 1..=upto) > 0 || from > visible {
            return None;
        }
        let upto = upto.min(visible);
        if self.config.is_memory() {
            return Some(Block { from: from.max(upto.saturating_sub(MEMORY_BLOCK - 1)), upto, position: None });
        }
        let stretch = self.index.stretch(upto)?;
        let from = from.max(stretch.entry.first_seq).min(upto);
        Some(Block { from, upto, position: Some(stretch.entry.position) })
    }

    fn read(&self, from: u64, upto: u64) -> Lookup {
        self.block_from(from, upto).map_or(Lookup::None, Lookup::Read)
    }

    fn read_masked(&self, low: u64, high: u64, mask: u64, sure: u64) -> Lookup {
        if self.config.is_memory() {
            return self.read(low, high);
        }
        for stretch in self.index.stretches(low).take_while(|stretch| stretch.entry.first_seq <= high) {
            let (from, upto) = (stretch.entry.first_seq.max(low), stretch.upto.min(high));
            if stretch.mask & mask != 0 && from <= upto {
                return Lookup::Read(Block { from, upto, position: Some(stretch.entry.position) });
            }
        }
        self.found_or_none(if sure <= self.visible() { sure } else { 0 })
    }

    fn found(&self, seq: u64) -> Lookup {
        let position = self.index.stretch(seq).map(|stretch| stretch.entry.position);
        Lookup::Found { seq, block: Block { from: seq, upto: seq, position } }
    }

    fn found_or_none(&self, seq: u64) -> Lookup {
        if seq == 0 { Lookup::None } else { self.found(seq) }
    }
}

impl Stream {
    /// Messages from `from` on that readers may see.
    #[must_use]
    pub fn readable_from(&self, from: u64) -> u64 {
        let visible = self.visible();
        if from > visible { 0 } else { self.live_in(from..=visible) }
    }

    /// The first message at or after `from` that [`Stream::is_needed`].
    #[must_use]
    pub fn next_needed(&self, from: u64) -> Option<u64> {
        let live = self.deleted.next_absent(from.max(self.first));
        let owed = self.owed.next_present(from);
        [Some(live).filter(|seq| *seq <= self.last), owed].into_iter().flatten().min()
    }

    /// Where the log holds a message that [`Stream::is_needed`]: the batch at which its stretch of the index begins.
    #[must_use]
    pub fn place_of(&self, seq: u64) -> Option<Position> {
        if self.config.is_memory() || seq > self.placed || !self.is_needed(seq) {
            return None;
        }
        self.index.stretch(seq).filter(|stretch| stretch.entry.first_seq <= seq).map(|stretch| stretch.entry.position)
    }

    /// The segments in which a message that [`Stream::is_needed`] lies: several if it is in parts.
    pub fn segments_of(&self, seq: u64) -> impl Iterator<Item = SegmentNo> + '_ {
        let place = self.place_of(seq).map(Position::segment);
        let pieces = self.pieces.get(&seq).filter(|_| place.is_some()).into_iter().flatten();
        place.into_iter().chain(pieces.map(|piece| piece.segment))
    }
}

/// Messages of a stream in memory that are looked at in one step.
const MEMORY_BLOCK: u64 = 1024;
