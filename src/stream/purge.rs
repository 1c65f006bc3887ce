//! Removing many messages on demand: purges, and messages that replace older ones.
//!
//! Everything a purge removes goes at once, so that no reader finds half of it done. Where subjects are not known
//! message by message, the numbers are gathered first, by reading.

use super::removing::{Cause, known_of};
use super::*;
use crate::subject::matches;

/// Messages of some subjects, gathered by reading.
pub(super) struct Gather {
    filter: Box<[u8]>,
    purpose: Purpose,
    /// Everything below has been looked at.
    pub(super) next: u64,
    pub(super) upto: u64,
    found: Seqs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A purge: the filter may be a pattern.
    Purge,
    /// A message that replaces its subject: the filter is that.
    Rollup,
}

impl Gather {
    /// A message of a block that is read.
    pub(super) fn look_at(&mut self, seq: u64, subject: &[u8]) {
        if seq < self.next || seq > self.upto {
            return;
        }
        let is_match = match self.purpose {
            Purpose::Purge => matches(&self.filter, subject),
            Purpose::Rollup => *self.filter == *subject,
        };
        if is_match {
            self.found.insert(seq);
        }
    }

    /// A block has been read; nothing lives below `first`.
    pub(super) fn advance(&mut self, block: &Block, first: u64) {
        if block.from <= self.next.max(first) {
            self.next = self.next.max(block.upto + 1);
        }
    }
}

/// A message to be removed, and its details if they are at hand.
pub(super) type Victim = (u64, Option<Known>);

impl Stream {
    /// Removes messages. All go at once, and the count is exact.
    ///
    /// # Errors
    /// The log takes no more; nothing has changed.
    pub fn purge(&mut self, purge: &Purge<'_>, now: Time, sink: &mut impl Sink) -> Result<Purged, Refused> {
        let upto = purge.below.map_or(self.last, |below| below.saturating_sub(1).min(self.last));
        let filter = purge.filter.filter(|filter| *filter != b">");
        let Some(filter) = filter else { return self.purge_upto(upto, purge.keep, sink) };
        let mut victims = match self.listed(filter, upto) {
            Some(victims) => victims,
            None => match self.gathered(filter, Purpose::Purge, upto) {
                Some(found) => found.ranges().flatten().map(|seq| (seq, None)).collect(),
                None => match self.settle(now, sink) {
                    Settled::Needs(block) => return Ok(Purged::Needs(block)),
                    Settled::AfterFlush => return Ok(Purged::AfterFlush),
                    Settled::Again | Settled::Done => return Ok(Purged::Again),
                },
            },
        };
        victims.retain(|(seq, _)| self.is_live(*seq));
        let count = (victims.len() as u64).saturating_sub(purge.keep);
        victims.truncate(count as usize);
        for (seq, _) in &victims {
            self.unrecorded.insert(*seq);
        }
        match self.record_removals(Urgency::Now, sink) {
            Ok(after) => {
                for (seq, known) in victims {
                    self.vanish(seq, known, Cause::Other, sink);
                }
                Ok(Purged::Done { count, after })
            }
            Err(Full) => {
                for (seq, _) in victims {
                    self.unrecorded.remove(seq);
                }
                Err(self.refused(Refusal::Full))
            }
        }
    }

    /// Removes everything up to a number but the newest `keep`.
    fn purge_upto(&mut self, upto: u64, keep: u64, sink: &mut impl Sink) -> Result<Purged, Refused> {
        let live = self.live_in(self.first..=upto);
        let count = live.saturating_sub(keep);
        if count == 0 {
            return Ok(Purged::Done { count, after: self.latest });
        }
        // The greatest number up to which `count` live.
        let (mut low, mut high) = (self.first, upto);
        while low < high && count < live {
            let middle = low + (high - low).div_ceil(2);
            if self.live_in(self.first..=middle) > count { high = middle - 1 } else { low = middle }
        }
        let range = self.first..=high;
        let before = self.unrecorded.clone();
        self.unrecorded.insert_range(range.clone());
        match self.record_removals(Urgency::Now, sink) {
            Ok(after) => {
                self.vanish_range(range, sink);
                Ok(Purged::Done { count, after })
            }
            Err(Full) => {
                self.unrecorded = before;
                Err(self.refused(Refusal::Full))
            }
        }
    }

    /// What a message is going to replace. Nothing is changed yet, but a search may have been begun.
    pub(super) fn replaced_by(&mut self, message: &Inbound<'_>) -> Result<Vec<Victim>, Refusal> {
        match message.rollup {
            Rollup::Nothing | Rollup::Stream => Ok(Vec::new()),
            Rollup::Subject => {
                let Some(id) = self.subjects.find(message.subject) else { return Ok(Vec::new()) };
                if self.subjects.is_listed(id) {
                    return Ok(self.known_of_subject(id).map(|known| (known.seq, Some(known))).collect());
                }
                let found = self.gathered(message.subject, Purpose::Rollup, self.last).ok_or(Refusal::Unsettled)?;
                Ok(found.ranges().flatten().map(|seq| (seq, None)).collect())
            }
        }
    }

    /// Before a message is entered that replaces all: as long as nothing else lives, nothing needs to be looked up.
    /// Recorded at once, so that replay does it at the same moment.
    /// If that fails, [`Stream::replace_all`] does it afterwards, and looks up what it needs to.
    pub(super) fn clear_before(&mut self, sink: &mut impl Sink) {
        if self.messages > 0 {
            self.unrecorded.insert_range(self.first..=self.last);
            if self.record_removals(Urgency::RideAlong, sink).is_ok() {
                self.vanish_range(self.first..=self.last, sink);
            }
        }
    }

    /// After a message has been entered that replaces all: what is left of the older ones goes.
    pub(super) fn replace_all(&mut self, seq: u64, sink: &mut impl Sink) {
        if self.first < seq {
            self.vanish_range(self.first..=seq - 1, sink);
        }
    }

    /// After a message has been stored: what it replaces goes.
    pub(super) fn replace(&mut self, victims: Vec<Victim>, sink: &mut impl Sink) {
        for (seq, known) in victims {
            if self.is_live(seq) {
                self.evict(seq, known, Cause::Other, sink);
            }
        }
    }

    /// Whether no message is left to be looked at.
    pub(super) fn is_gathered(&self, gather: &Gather) -> bool {
        self.live_in(gather.next..=gather.upto) == 0
    }

    /// What a search has found that looked at everything up to a number; begins it if need be.
    fn gathered(&mut self, filter: &[u8], purpose: Purpose, upto: u64) -> Option<Seqs> {
        let is_this = |gather: &Gather| (gather.purpose, gather.upto, &*gather.filter) == (purpose, upto, filter);
        let place = self.gathers.iter().position(is_this);
        match place {
            Some(at) if self.is_gathered(&self.gathers[at]) => Some(self.gathers.swap_remove(at).found),
            Some(_) => None,
            None => {
                self.gathers.retain(|gather| gather.purpose != purpose);
                let found = Seqs::default();
                self.gathers.push(Gather { filter: filter.into(), purpose, next: self.first, upto, found });
                None
            }
        }
    }

    /// Messages whose subject `filter` matches, in order, if each of them is known.
    fn listed(&self, filter: &[u8], upto: u64) -> Option<Vec<Victim>> {
        let (mut victims, mut is_known) = (Vec::new(), true);
        self.subjects.visit(filter, |id, _| {
            is_known = self.subjects.is_listed(id);
            let known = self.known_of_subject(id).filter(|known| known.seq <= upto);
            victims.extend(known.map(|known| (known.seq, Some(known))));
            is_known
        });
        victims.sort_unstable_by_key(|(seq, _)| *seq);
        is_known.then_some(victims)
    }

    /// Known messages of a subject, ascending.
    fn known_of_subject(&self, id: SubjectId) -> impl Iterator<Item = Known> + '_ {
        self.subjects.older(id).chain(self.subjects.last(id)).map(move |kept| known_of(id, kept))
    }
}
