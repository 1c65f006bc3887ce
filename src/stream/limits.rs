//! Limits: what they take away, and what has to be read for it.

use super::removing::{Cause, known_of};
use super::*;
use crate::log::Detail;

/// Messages that one call takes away at most, so that it does not last.
const SLICE: usize = 4096;
/// Messages that a publish takes away at most for the stream's limits: what is more waits for the settle of the turn.
const PUBLISH_SLICE: usize = 64;

/// What a block is read for, beside details of owed and oldest messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    pub(super) block: Block,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Owed messages.
    Owed,
    /// The oldest messages, or those behind the known ones.
    Head,
    /// The oldest messages of a subject that has too many.
    Crowd(SubjectId),
    /// The last message of a subject.
    Last(SubjectId),
    /// Messages to purge.
    Gather,
}

impl Stream {
    /// Carries out what limits demand and asks for what is missing to do so. To be called once per turn with publishes
    /// or removals, at [`Stream::next_deadline`], and before [`Stream::state`] is asked.
    pub fn settle(&mut self, now: Time, sink: &mut impl Sink) -> Settled {
        self.forget_ids(now);
        let mut budget = SLICE;
        self.expire(now, &mut budget, sink);
        let behind_head = self.age(now, &mut budget, sink);
        self.enforce_size(&mut budget, sink);
        self.record_pending(sink);
        if budget == 0 {
            return Settled::Again;
        }
        self.want(behind_head)
    }

    /// Appends what is known of removals and is not in the log yet. Before this has been flushed, a crash needs the places
    /// that were told to be dead meanwhile.
    pub fn record_pending(&mut self, sink: &mut impl Sink) {
        if !self.unrecorded.is_empty() || !self.accounts.is_empty() {
            // If the log is full, the next settle tries again: no answer depends on these.
            let _ = self.record_removals(Urgency::RideAlong, sink);
        }
    }

    /// What must be read next.
    fn want(&mut self, behind_head: bool) -> Settled {
        self.drop_hopeless();
        let over_bytes = self.is_over_bytes();
        let (what, range) = if let Some(seq) = self.owed.min() {
            (What::Owed, seq..=self.owed.max().unwrap_or(seq))
        } else if let Some(id) = self.crowded.first().copied() {
            let subject = self.subjects.get(id);
            (What::Crowd(id), subject.first.max(self.first)..=subject.last)
        } else if let Some(gather) = self.gathers.iter().find(|gather| !self.is_gathered(gather)) {
            (What::Gather, gather.next.max(self.first)..=gather.upto)
        } else if let Some(id) = self.subjects.first_vague() {
            let subject = self.subjects.get(id);
            (What::Last(id), subject.first.max(self.first)..=subject.last)
        } else if self.messages > 0
            && (behind_head || self.head.len() == 0 && (over_bytes || self.first_time.is_none()))
        {
            (What::Head, self.head.upto().max(self.first - 1) + 1..=self.last)
        } else {
            self.search = None;
            return Settled::Done;
        };
        let block = match what {
            What::Last(_) => self.block_back(*range.start(), *range.end()),
            _ => self.block_from(*range.start(), *range.end()),
        };
        match block {
            Some(block) => {
                self.search = Some(Box::new(Search { block, what }));
                Settled::Needs(block)
            }
            None => {
                self.search = None;
                Settled::AfterFlush
            }
        }
    }

    /// After a loss, some things that would be looked for cannot be found.
    fn drop_hopeless(&mut self) {
        if !self.owed.is_empty() {
            return;
        }
        let may_hold = |stream: &Self, id| {
            let subject = stream.subjects.get(id);
            stream.live_in(subject.first..=subject.last) > 0
        };
        while let Some(id) = self.crowded.first().copied().filter(|id| !may_hold(self, *id)) {
            self.crowded.remove(&id);
        }
        while let Some(id) = self.subjects.first_vague().filter(|id| !may_hold(self, *id)) {
            self.subjects.set_last(id, 0, 0);
        }
    }

    /// Details of the messages of the block that was asked for: of all that [`Stream::is_needed`], ascending. Messages
    /// that are not among them count as [lost](Stream::lost).
    pub fn supply<'a>(&mut self, details: impl IntoIterator<Item = Detail<'a>>, sink: &mut impl Sink) {
        let Some(Search { block, what }) = self.search.take().map(|search| *search) else { return };
        let head_max = if what == What::Head { self.head.len() + self.grain.head } else { self.head_max() };
        // The known oldest messages may grow if nothing lives between them and the block.
        let upto = self.head.upto().max(self.first - 1);
        let mut grows = upto >= block.from - 1 || self.live_in(upto + 1..=block.from - 1) == 0;
        let mut found = None;
        let mut at = block.from;
        for detail in details {
            if detail.seq < at || detail.seq > block.upto || !self.is_needed(detail.seq) {
                continue;
            }
            self.lose(at..=detail.seq - 1, sink);
            at = detail.seq + 1;
            let Some(subject) = self.subjects.find(detail.subject) else {
                self.lose(detail.seq..=detail.seq, sink);
                continue;
            };
            let size = self.config.accounting.size(
                detail.subject.len(),
                detail.headers_bytes as usize,
                detail.payload_bytes as usize,
            );
            let known = Known { seq: detail.seq, time: detail.time, subject, size, record: detail.record_bytes };
            if self.owed.contains(known.seq) {
                self.settle_owed(&known, sink);
                continue;
            }
            match what {
                // Some that cannot be found may still count: the last one is never too many.
                What::Crowd(id) if id == subject && self.is_crowded(id) && known.seq < self.subjects.get(id).last => {
                    self.evict(known.seq, Some(known), Cause::Other, sink);
                    continue;
                }
                What::Last(id) if id == subject => found = Some((known.seq, size)),
                _ => {}
            }
            for gather in &mut self.gathers {
                gather.look_at(known.seq, detail.subject);
            }
            if known.seq == self.first {
                self.first_time = Some(known.time);
            }
            if grows && known.seq > self.head.upto() {
                if self.head.len() < head_max {
                    self.head.push(known);
                } else {
                    grows = false;
                }
            }
        }
        self.lose(at..=block.upto, sink);
        if grows {
            self.head.extend(block.upto);
        }
        match what {
            What::Crowd(id) if self.crowded.contains(&id) => {
                if self.is_crowded(id) {
                    self.subjects.raise_first(id, block.upto + 1);
                } else {
                    self.crowded.remove(&id);
                }
            }
            // Unless a publish has told meanwhile.
            What::Last(id) if self.subjects.is_vague(id) => match found {
                Some((seq, size)) => self.subjects.set_last(id, seq, size),
                None => self.subjects.lower_last(id, block.from),
            },
            _ => {}
        }
        let first = self.first;
        for gather in &mut self.gathers {
            gather.advance(&block, first);
        }
        self.index.forget_below(self.needed_from());
    }

    /// When there is something to settle without a publish; `None` if never. Good after a settle that was
    /// [`Settled::Done`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let aged = self.head.after(self.aged_upto).and_then(|oldest| self.config.aged_at(oldest.time));
        let forgotten = self.dedup.as_ref().and_then(|dedup| dedup.end(self.config.duplicate_window));
        [aged, self.expiry.next(), forgotten].into_iter().flatten().min()
    }

    /// Takes away messages whose own time has come.
    fn expire(&mut self, now: Time, budget: &mut usize, sink: &mut impl Sink) {
        while *budget > 0 {
            let Some(seq) = self.expiry.pop(now) else { return };
            if self.is_live(seq) {
                *budget -= 1;
                self.evict(seq, None, Cause::Age, sink);
            }
        }
    }

    /// Takes away messages that are too old. Returns whether more must be known of the oldest ones to go on.
    fn age(&mut self, now: Time, budget: &mut usize, sink: &mut impl Sink) -> bool {
        if self.config.max_age.is_none() {
            return false;
        }
        while *budget > 0 {
            let Some(oldest) = self.head.after(self.aged_upto).copied() else {
                let known = self.head.upto().max(self.first - 1);
                return self.live_in(known + 1..=self.last) > 0;
            };
            if self.exempt.contains(oldest.seq) {
                self.aged_upto = oldest.seq;
                continue;
            }
            if self.config.aged_at(oldest.time).is_none_or(|due| due > now) {
                return false;
            }
            *budget -= 1;
            self.evict(oldest.seq, None, Cause::Age, sink);
        }
        false
    }

    /// Before a message is stored on a subject of which only the last is kept: that one.
    pub(super) fn to_give_way(&self, subject: &[u8]) -> Option<Known> {
        if self.config.max_per_subject != Some(1) {
            return None;
        }
        let id = self.subjects.find(subject)?;
        self.subjects.last(id).map(|last| known_of(id, last))
    }

    /// After a message has been stored: its subject's limit, and then (see [`Stream::enforce_after`]) the stream's.
    pub(super) fn enforce_on(&mut self, subject: &[u8], before: Option<Known>, sink: &mut impl Sink) {
        if let Some(before) = before {
            if self.is_live(before.seq) {
                self.evict(before.seq, Some(before), Cause::Other, sink);
            } else if self.owed.contains(before.seq) {
                self.settle_owed(&before, sink);
            } else if self.is_crowded(before.subject) {
                self.account_lost(&before, sink);
            }
        }
        let Some(id) = self.subjects.find(subject).filter(|_| self.config.max_per_subject.is_some()) else { return };
        if self.is_crowded(id) {
            self.enforce_subject(id, sink);
        } else if !self.crowded.is_empty() {
            self.crowded.remove(&id);
        }
    }

    /// After messages have been stored, the limits of the stream.
    pub(super) fn enforce_after(&mut self, sink: &mut impl Sink) {
        let mut budget = PUBLISH_SLICE;
        self.enforce_size(&mut budget, sink);
    }

    /// Takes away the oldest messages of a subject that has too many, or notes that they must be looked for.
    pub(super) fn enforce_subject(&mut self, id: SubjectId, sink: &mut impl Sink) {
        self.reap(id, sink);
        while self.is_crowded(id) {
            if !self.subjects.is_listed(id) {
                self.crowded.insert(id);
                return;
            }
            let oldest = self.subjects.older(id).chain(self.subjects.last(id)).next();
            let Some(oldest) = oldest else { return };
            let known = known_of(id, oldest);
            if self.is_live(oldest.seq) {
                self.evict(oldest.seq, Some(known), Cause::Other, sink);
            } else {
                self.account_lost(&known, sink);
            }
        }
    }

    /// A message that a read could not find, and that still counts on its subject, gives way there: no other must.
    fn account_lost(&mut self, known: &Known, sink: &mut impl Sink) {
        self.lost = self.lost.saturating_sub(1);
        self.account(known, Cause::Other, sink);
    }

    /// Notes every subject that has too many messages.
    pub(super) fn find_crowded(&mut self) {
        self.crowded.clear();
        let Some(max) = self.config.max_per_subject else { return };
        let Self { subjects, crowded, .. } = self;
        subjects.visit_all(|id, subject| {
            if subject.count > max {
                crowded.insert(id);
            }
        });
    }

    fn is_crowded(&self, id: SubjectId) -> bool {
        self.config.max_per_subject.is_some_and(|max| self.subjects.get(id).count > max)
    }

    /// Takes away the oldest messages while there are too many, or too many bytes of them.
    fn enforce_size(&mut self, budget: &mut usize, sink: &mut impl Sink) {
        // A subject that has too many goes first: then fewer of the oldest must.
        if self.config.discard != Discard::Old || !self.crowded.is_empty() {
            return;
        }
        if let Some(max) = self.config.max_messages {
            while self.messages > max && *budget > 0 {
                *budget -= 1;
                self.evict(self.first, None, Cause::Other, sink);
            }
        }
        while *budget > 0 && self.is_over_bytes() && self.head.front().is_some_and(|front| front.seq == self.first) {
            *budget -= 1;
            self.evict(self.first, None, Cause::Other, sink);
        }
    }

    /// Whether the oldest message must go for its bytes. Not known while any are owed.
    fn is_over_bytes(&self) -> bool {
        self.config.discard == Discard::Old
            && self.owed.is_empty()
            && self.messages > u64::from(self.config.keep_newest)
            && self.config.max_bytes.is_some_and(|max| self.bytes > max)
    }

    /// Needed messages of a range that no read has found.
    fn lose(&mut self, range: RangeInclusive<u64>, sink: &mut impl Sink) {
        if range.is_empty() || self.needed_in(range.clone()) == 0 {
            return;
        }
        self.lost += self.needed_in(range.clone());
        let upto = (*range.end()).min(self.last);
        let mut at = (*range.start()).max(self.first);
        while at <= upto {
            if self.is_live(at) {
                self.vanish(at, None, Cause::Other, sink);
            }
            at += 1;
        }
        self.owed.remove_range(range.clone());
        self.owed_by_age.remove_range(range);
    }
}
