//! Removing messages, whatever the reason: at once from look-ups, with all accounts when the details are known.

use super::*;

/// Why a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its age, or its own time.
    Age,
    /// Anything else.
    Other,
}

impl Stream {
    /// Deletes one message.
    ///
    /// # Errors
    /// There is no such message, or the log takes no more. Nothing has changed.
    pub fn remove(&mut self, seq: u64, sink: &mut impl Sink) -> Result<Pending, Refused> {
        if !self.is_visible(seq) {
            return Err(self.refused(Refusal::NotFound));
        }
        self.unrecorded.insert(seq);
        match self.record_removals(Urgency::Now, sink) {
            Ok(after) => {
                self.vanish(seq, None, Cause::Other, sink);
                Ok(after)
            }
            Err(Full) => {
                self.unrecorded.remove(seq);
                Err(self.refused(Refusal::Full))
            }
        }
    }

    /// Interest and work-queue retention: nobody wants the message any more. It goes at once; its removal is recorded
    /// by the next settle and may be forgotten in a crash before that is flushed.
    pub fn acknowledged(&mut self, seq: u64, sink: &mut impl Sink) {
        if self.is_live(seq) {
            self.evict(seq, None, Cause::Other, sink);
        }
    }

    /// The stream ends: everything it occupies is dead.
    pub fn end(self, sink: &mut impl Sink) {
        for (segment, bytes) in self.space.iter() {
            sink.dead(segment, bytes);
        }
        if self.config.is_memory() && self.needed_from() <= self.last {
            sink.gone(self.needed_from()..=self.last);
        }
    }

    /// Tells the log what it does not know yet of removed messages.
    pub(super) fn record_removals(&mut self, urgency: Urgency, sink: &mut impl Sink) -> Result<Pending, Full> {
        let time = self.last_time.unwrap_or(0);
        if (!self.unrecorded.is_empty() || !self.accounts.is_empty()) && !self.config.is_memory() {
            let after = sink.removal(&self.accounts.record(self.last, time, &self.unrecorded), urgency)?;
            self.note_pending(after);
        }
        self.unrecorded = Seqs::default();
        self.accounts.clear();
        Ok(self.latest)
    }

    /// As [`Stream::vanish`], and sees to it that the log learns of it: by the account or, where that has to wait, by
    /// the number.
    pub(super) fn evict(&mut self, seq: u64, known: Option<Known>, cause: Cause, sink: &mut impl Sink) {
        self.vanish(seq, known, cause, sink);
        if self.owed.contains(seq) {
            self.unrecorded.insert(seq);
        }
    }

    /// Makes a living message one that does not live. `known` are its details, if they are at hand.
    pub(super) fn vanish(&mut self, seq: u64, known: Option<Known>, cause: Cause, sink: &mut impl Sink) {
        debug_assert!(self.is_live(seq), "{seq} does not live");
        self.messages -= 1;
        self.exempt.remove(seq);
        // The accounts first: the index forgets what is needed no longer.
        match self.head.remove(seq).or(known) {
            Some(known) => self.account(&known, cause, sink),
            None => {
                self.owed.insert(seq);
                if cause == Cause::Age {
                    self.owed_by_age.insert(seq);
                }
            }
        }
        if seq == self.first {
            self.first = if self.messages == 0 { self.last + 1 } else { self.deleted.next_absent(seq + 1) };
            self.first_moved();
        } else {
            self.deleted.insert(seq);
        }
        sink.removed(seq..=seq);
    }

    /// Makes all messages of a range such that do not live.
    pub(super) fn vanish_range(&mut self, range: RangeInclusive<u64>, sink: &mut impl Sink) {
        let (from, upto) = ((*range.start()).max(self.first), (*range.end()).min(self.last));
        if from > upto {
            return;
        }
        if from == self.first && upto == self.last {
            return self.vanish_all(sink);
        }
        // Those of which the details are known, first: the others are owed, in stretches.
        while let Some(seq) = self.head.after(from - 1).map(|known| known.seq).filter(|seq| *seq <= upto) {
            self.vanish(seq, None, Cause::Other, sink);
        }
        let mut at = from.max(self.first);
        while at <= upto {
            let start = self.deleted.next_absent(at);
            if start > upto {
                break;
            }
            let end = self.deleted.next_present(start).map_or(upto, |next| upto.min(next - 1));
            self.messages -= end - start + 1;
            self.exempt.remove_range(start..=end);
            self.owed.insert_range(start..=end);
            self.deleted.insert_range(start..=end);
            at = end + 1;
        }
        if self.first >= from {
            self.first = if self.messages == 0 { self.last + 1 } else { self.deleted.next_absent(self.first) };
            self.first_moved();
        }
        sink.removed(from..=upto);
    }

    /// No message lives any more, and none is owed: what is not known needs no looking up.
    fn vanish_all(&mut self, sink: &mut impl Sink) {
        let (from, removed) = (self.needed_from(), self.first..=self.last);
        if self.config.is_memory() {
            sink.gone(from..=self.last);
        }
        for (segment, bytes) in std::mem::take(&mut self.space).iter() {
            sink.dead(segment, bytes);
        }
        self.messages = 0;
        self.bytes = 0;
        // The subjects forget them too.
        self.lost = 0;
        self.owed = Seqs::default();
        self.owed_by_age = Seqs::default();
        self.exempt = Seqs::default();
        self.subjects = Subjects::new();
        self.crowded.clear();
        self.expiry.clear();
        self.index.clear();
        self.pieces.clear();
        self.first = self.last + 1;
        self.first_moved();
        sink.removed(removed);
    }

    /// Keeps what depends on the first message up to date.
    pub(super) fn first_moved(&mut self) {
        self.deleted.remove_below(self.first);
        if self.messages == 0 {
            self.head.clear(self.last);
        }
        self.first_time = self.head.front().filter(|known| known.seq == self.first).map(|known| known.time);
        self.index.forget_below(self.needed_from());
    }

    /// Takes a message that does not live off all accounts.
    pub(super) fn account(&mut self, known: &Known, cause: Cause, sink: &mut impl Sink) {
        self.bytes -= u64::from(known.size);
        if !self.config.is_memory() {
            self.accounts.push(known.seq, known.size, self.subjects.text(known.subject));
            if self.accounts.bytes() > ACCOUNTS_BYTES {
                // If the log is full, the next settle tries again.
                let _ = self.record_removals(Urgency::RideAlong, sink);
            }
        }
        self.release(known.seq, known.record, sink);
        let is_last_of_subject = self.subjects.get(known.subject).count == 1;
        if is_last_of_subject && cause == Cause::Age {
            sink.subject_expired(self.subjects.text(known.subject), known.seq);
        }
        if self.subjects.removed(known.subject, known.seq) {
            self.crowded.remove(&known.subject);
        }
    }

    /// A message needs its place no longer.
    fn release(&mut self, seq: u64, record: u32, sink: &mut impl Sink) {
        if self.config.is_memory() {
            return sink.gone(seq..=seq);
        }
        if seq > self.placed {
            // Its run will find that it is not needed when it is placed.
            return;
        }
        for piece in self.pieces.remove(&seq).unwrap_or_default() {
            let bytes = self.space.take(piece.segment, 1, u64::from(piece.bytes));
            sink.dead(piece.segment, bytes);
        }
        if let Some(stretch) = self.index.stretch(seq) {
            let segment = stretch.entry.position.segment();
            let bytes = self.space.take(segment, 1, u64::from(record));
            sink.dead(segment, bytes);
        }
    }

    /// Settles what is owed of a subject whose messages are known one by one.
    pub(super) fn reap(&mut self, subject: SubjectId, sink: &mut impl Sink) {
        if self.owed.is_empty() {
            return;
        }
        let all = self.subjects.older(subject).chain(self.subjects.last(subject));
        let owed: Vec<Kept> = all.filter(|kept| self.owed.contains(kept.seq)).collect();
        for kept in owed {
            self.settle_owed(&known_of(subject, kept), sink);
        }
    }

    pub(super) fn settle_owed(&mut self, known: &Known, sink: &mut impl Sink) {
        let was_owed = self.owed.remove(known.seq);
        debug_assert!(was_owed, "{} is not owed", known.seq);
        let cause = if self.owed_by_age.remove(known.seq) { Cause::Age } else { Cause::Other };
        self.account(known, cause, sink);
    }
}

/// Accounts that are put into one record.
const ACCOUNTS_BYTES: usize = 64 * 1024;

/// Details for removal; the time is of no use there.
pub(super) fn known_of(subject: SubjectId, kept: Kept) -> Known {
    Known { seq: kept.seq, time: 0, subject, size: kept.size, record: kept.record }
}
