//! What is to be recorded with the next delta.

use super::ledger::NOBODY;
use crate::log::Urgency;

// The parts of a record: see `persist.rs`.
pub(super) const CONFIG: u64 = 1;
pub(super) const WHOLE: u64 = 1 << 1;
pub(super) const RESET: u64 = 1 << 2;
pub(super) const CUT: u64 = 1 << 3;
pub(super) const EACH: u64 = 1 << 4;
pub(super) const DELIVERED: u64 = 1 << 5;
pub(super) const FLOOR: u64 = 1 << 6;
pub(super) const RESERVED: u64 = 1 << 7;
pub(super) const ENTRIES: u64 = 1 << 8;
pub(super) const REPEATED: u64 = 1 << 9;
pub(super) const EXHAUSTED: u64 = 1 << 10;
pub(super) const ACKNOWLEDGED: u64 = 1 << 11;
pub(super) const MEMBERS: u64 = 1 << 12;
pub(super) const OWNERS: u64 = 1 << 13;
pub(super) const ALL: u64 = (1 << 14) - 1;

/// First deliveries with consecutive numbers in the stream and of the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) seq: u64,
    pub(super) consumer_seq: u64,
    pub(super) len: u64,
}

/// Messages with consecutive numbers that a member of a group holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) seq: u64,
    pub(super) len: u64,
    /// The place of the member; [`super::ledger::NOBODY`] for one without a name.
    pub(super) owner: u16,
}

/// Adds a message to those that are held, in the order of events.
pub(super) fn push_owned(owned: &mut Vec<Owned>, seq: u64, owner: u16) {
    match owned.last_mut() {
        Some(last) if last.owner == owner && last.seq + last.len == seq => last.len += 1,
        _ => owned.push(Owned { seq, len: 1, owner }),
    }
}

/// What has happened to single messages since the last delta.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) delivered: Vec<Run>,
    pub(super) repeated: Vec<(u64, u32)>,
    pub(super) exhausted: Vec<u64>,
    pub(super) acknowledged: Vec<(u64, u64)>,
    /// In the order of events: a later one counts.
    pub(super) owned: Vec<Owned>,
}

/// What has happened since the last delta. Bounded by what happens in a turn.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// False for what lives in memory only.
    pub(super) recording: bool,
    /// Counts resets: what was reserved before does not count.
    pub(super) epoch: u32,
    parts: u64,
    /// What is recorded with the next delta, and not worth one alone.
    along: u64,
    urgent: bool,
    pub(super) reset: u64,
    pub(super) cut: u64,
    /// `None` while nothing happens: consumers are many, and most of them rest.
    lists: Option<Box<Lists>>,
}

impl Changes {
    /// What has happened to single messages.
    pub(super) fn lists(&mut self) -> &mut Lists {
        self.lists.get_or_insert_default()
    }

    /// The parts of the next delta.
    pub(super) fn parts(&self) -> u64 {
        self.parts | self.along
    }

    /// Whether there is to be a delta, and when.
    pub(super) fn urgency(&self) -> Option<Urgency> {
        (self.parts != 0).then_some(if self.urgent { Urgency::Now } else { Urgency::RideAlong })
    }

    /// The delta has been made.
    pub(super) fn taken(&mut self) {
        self.forget();
        self.parts = 0;
    }

    fn note(&mut self, part: u64) -> bool {
        if self.recording {
            self.parts |= part;
        }
        self.recording
    }

    pub(super) fn moved(&mut self) {
        self.note(DELIVERED);
    }

    pub(super) fn floor(&mut self) {
        self.note(FLOOR);
    }

    /// The floor has changed in a way that is found again when the store is opened, if nothing else happens.
    pub(super) fn floor_along(&mut self) {
        self.along |= if self.recording { FLOOR } else { 0 };
    }

    /// The cursor has passed messages that do not match. Without the record they are looked at again.
    pub(super) fn moved_along(&mut self) {
        self.along |= if self.recording { DELIVERED } else { 0 };
    }

    pub(super) fn config(&mut self) {
        self.note(CONFIG);
    }

    /// Numbers are reserved half a block ahead of need. The record does not ride along: where nothing else is flushed,
    /// deliveries would wait for it (at 100 ms and half a block, 20,000 a second).
    pub(super) fn reserve(&mut self) {
        self.urgent |= self.note(RESERVED);
    }

    pub(super) fn delivered(&mut self, seq: u64, consumer_seq: u64) {
        if !self.note(ENTRIES) {
            return;
        }
        let delivered = &mut self.lists().delivered;
        match delivered.last_mut() {
            Some(run) if run.seq + run.len == seq && run.consumer_seq + run.len == consumer_seq => run.len += 1,
            _ => delivered.push(Run { seq, consumer_seq, len: 1 }),
        }
    }

    pub(super) fn again(&mut self, seq: u64, deliveries: u32) {
        if self.note(REPEATED) {
            self.lists().repeated.push((seq, deliveries));
        }
    }

    pub(super) fn exhausted(&mut self, seq: u64) {
        if self.note(EXHAUSTED) {
            self.lists().exhausted.push(seq);
        }
    }

    pub(super) fn acknowledged(&mut self, seq: u64) {
        self.acknowledged_range(seq, seq);
    }

    /// Only messages that have been delivered may be in such a range.
    pub(super) fn acknowledged_range(&mut self, first: u64, last: u64) {
        if !self.note(ACKNOWLEDGED) {
            return;
        }
        let acknowledged = &mut self.lists().acknowledged;
        match acknowledged.last_mut() {
            Some((_, before)) if *before + 1 == first => *before = last,
            _ => acknowledged.push((first, last)),
        }
    }

    /// A member of a group has got a message.
    pub(super) fn owned(&mut self, seq: u64, owner: u16) {
        if self.note(OWNERS) {
            push_owned(&mut self.lists().owned, seq, owner);
        }
    }

    /// Who the members of a group are has changed.
    pub(super) fn members_changed(&mut self) {
        self.note(MEMBERS);
    }

    /// A member of a group has left: its place may be another one's before the next delta.
    pub(super) fn member_left(&mut self, index: u16) {
        self.note(MEMBERS);
        if let Some(lists) = &mut self.lists {
            lists.owned.iter_mut().filter(|owned| owned.owner == index).for_each(|owned| owned.owner = NOBODY);
        }
    }

    /// Nothing that has happened before counts, except changes of the configuration and of the members.
    pub(super) fn reset(&mut self, seq: u64) {
        self.forget();
        self.epoch += 1;
        self.reset = seq;
        self.note(RESET | DELIVERED | FLOOR);
    }

    /// What is not recorded yet of messages behind `last` is not to be: others with their numbers may come.
    pub(super) fn cut(&mut self, last: u64) {
        self.cut = last;
        self.note(CUT | DELIVERED | FLOOR);
        let Some(lists) = &mut self.lists else { return };
        let keeps = |seq: u64, len: &mut u64| {
            *len = (*len).min((last + 1).saturating_sub(seq));
            *len > 0
        };
        lists.delivered.retain_mut(|run| keeps(run.seq, &mut run.len));
        lists.owned.retain_mut(|owned| keeps(owned.seq, &mut owned.len));
        lists.repeated.retain(|(seq, _)| *seq <= last);
        lists.exhausted.retain(|seq| *seq <= last);
        lists.acknowledged.retain_mut(|range| {
            range.1 = range.1.min(last);
            range.0 <= range.1
        });
    }

    fn forget(&mut self) {
        let lasting = self.parts & (CONFIG | MEMBERS);
        if let Some(Lists { delivered, repeated, exhausted, acknowledged, owned }) = self.lists.as_deref_mut() {
            delivered.clear();
            repeated.clear();
            exhausted.clear();
            acknowledged.clear();
            owned.clear();
        }
        (self.parts, self.along, self.urgent) = (lasting, 0, false);
    }

    /// Gives back memory, unless something is to be recorded.
    pub(super) fn shrink(&mut self) {
        self.lists.take_if(|lists| lists.is_empty());
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.lists.as_ref().map_or(0, |lists| size_of::<Lists>() + lists.heap_bytes())
    }
}

impl Lists {
    fn is_empty(&self) -> bool {
        let Self { delivered, repeated, exhausted, acknowledged, owned } = self;
        let is_quiet = delivered.is_empty() && repeated.is_empty() && exhausted.is_empty();
        is_quiet && acknowledged.is_empty() && owned.is_empty()
    }

    fn heap_bytes(&self) -> usize {
        self.delivered.capacity() * size_of::<Run>()
            + (self.repeated.capacity() + self.acknowledged.capacity()) * size_of::<(u64, u64)>()
            + self.exhausted.capacity() * size_of::<u64>()
            + self.owned.capacity() * size_of::<Owned>()
    }
}
