//! The subjects of a stream: how many messages each has, and which is the last.
//!
//! Cost per subject in a large set: 32 bytes of slot, 12 of order (`order.rs`), 15 to 30 of hash table, 6 and the text
//! itself in pages (`texts.rs`); so 65 to 80 bytes and the text. Where the stream limits its
//! messages per subject to at most 64, older messages of a subject are known one by one: 16 bytes each, and
//! about 50 for a subject that has any.
//!
//! `first` is a lower bound and `last` may be one from above: the last message of a subject can go, and the one before
//! it is only known where messages are known one by one. Such a subject is *vague* until a read or a new message
//! tells.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::order::Order;
use super::texts::{Address, Texts};
use crate::subject::arena::Arena;
use crate::subject::table::{Hashed, Table, hash_of};
use crate::subject::{has_wildcard, is_same, matches, tokens};

/// A bit of `Slot::last`: the last message is not known, it is at most this one.
const VAGUE: u64 = 1 << 63;
const FREE: u32 = u32::MAX;

/// A subject, in order of its appearance; used again when the subject has no messages any more.
pub(super) type SubjectId = u32;

#[derive(Clone, Copy)]
struct Slot {
    /// No message of the subject is older.
    first: u64,
    /// The last message, or with [`VAGUE`] a bound.
    last: u64,
    /// Messages; zero in a free slot.
    count: u64,
    text: Address,
    /// Size of the last message as the stream counts it; in a free slot the next free one.
    size: u32,
}

/// A message whose size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) seq: u64,
    /// Bytes as the stream counts them.
    pub(super) size: u32,
    /// Bytes of its record in the log.
    pub(super) record: u32,
}

/// What is known of one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) count: u64,
    /// No message is older.
    pub(super) first: u64,
    /// No message is newer.
    pub(super) last: u64,
    /// `last` is a message, not only a bound.
    pub(super) is_exact: bool,
    /// Size of `last`, if exact.
    pub(super) size: u32,
}

#[derive(Clone, Copy)]
struct Key {
    hash: u32,
    id: SubjectId,
    /// As in the slot: so that text and slot are fetched side by side.
    text: Address,
}

impl Hashed for Key {
    fn hash(&self) -> u64 {
        spread(self.hash)
    }
}

pub(super) struct Subjects {
    table: Table<Key>,
    slots: Arena<Slot>,
    free: u32,
    texts: Texts,
    order: Order,
    len: u64,
    /// The subject asked for last: publishes often come in rows.
    recent: Cell<SubjectId>,
    hasher: RandomState,
    /// Messages before the last, ascending, for the subjects where they are known. Complete if there are `count` - 1.
    older: HashMap<SubjectId, VecDeque<Kept>, RandomState>,
    vague: BTreeSet<SubjectId>,
}

impl Subjects {
    pub(super) fn new() -> Self {
        Self {
            table: Table::new(),
            slots: Arena::new(),
            free: FREE,
            texts: Texts::default(),
            order: Order::new(),
            len: 0,
            recent: Cell::new(FREE),
            hasher: RandomState::default(),
            older: HashMap::default(),
            vague: BTreeSet::new(),
        }
    }

    /// Subjects with messages.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether one more subject can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.texts.has_room() && self.len < u64::from(u32::MAX >> 1)
    }

    pub(super) fn get(&self, id: SubjectId) -> Subject {
        let slot = &self.slots[id as usize];
        Subject {
            count: slot.count,
            first: slot.first,
            last: slot.last & !VAGUE,
            is_exact: slot.last & VAGUE == 0,
            size: slot.size,
        }
    }

    pub(super) fn text(&self, id: SubjectId) -> &[u8] {
        self.texts.get(self.slots[id as usize].text)
    }

    pub(super) fn find(&self, text: &[u8]) -> Option<SubjectId> {
        if self.is_recent(text) {
            return Some(self.recent.get());
        }
        let hash = self.hash(text);
        let key = self.table.find(spread(hash), |key| key.hash == hash && is_same(self.texts.get(key.text), text))?;
        self.recent.set(key.id);
        Some(key.id)
    }

    /// Counts a message newer than all of its subject. The one that was last is known from now on too if `keep`.
    pub(super) fn push(&mut self, text: &[u8], message: Kept, keep: bool) -> SubjectId {
        let id = self.find_or_insert(text, message.seq);
        let slot = &mut self.slots[id as usize];
        debug_assert!(slot.count == 0 || slot.last & !VAGUE < message.seq, "newer than {}", slot.last & !VAGUE);
        if keep && slot.count > 0 && slot.last & VAGUE == 0 {
            let (seq, size, count) = (slot.last, slot.size, slot.count);
            // Not known one by one so far, and so never: see `is_listed`.
            if count == 1 || self.older.get(&id).is_some_and(|older| older.len() as u64 == count - 1) {
                let record = record_bytes(size);
                self.older.entry(id).or_default().push_back(Kept { seq, size, record });
            }
        }
        let slot = &mut self.slots[id as usize];
        if slot.last & VAGUE != 0 {
            self.vague.remove(&id);
        }
        slot.count += 1;
        slot.last = message.seq;
        slot.size = message.size;
        id
    }

    /// Takes a message off its subject. Returns whether it was the last one there.
    pub(super) fn removed(&mut self, id: SubjectId, seq: u64) -> bool {
        let slot = &mut self.slots[id as usize];
        assert!(slot.count > 0, "subject {id} has no message {seq}");
        slot.count -= 1;
        if slot.count == 0 {
            self.free_slot(id);
            return true;
        }
        let mut older = self.older.get_mut(&id);
        if slot.last == seq {
            // Complete up to now: it holds the one before.
            match older.as_mut().and_then(|older| older.pop_back()) {
                Some(before) => (slot.last, slot.size) = (before.seq, before.size),
                None => {
                    slot.last = (seq - 1) | VAGUE;
                    self.vague.insert(id);
                }
            }
        } else if let Some(older) = older.as_mut()
            && let Ok(at) = older.binary_search_by_key(&seq, |kept| kept.seq)
        {
            older.remove(at);
        }
        match older {
            Some(older) if older.is_empty() => {
                self.older.remove(&id);
            }
            Some(older) => slot.first = older[0].seq,
            None if slot.first == seq => slot.first = seq + 1,
            None => {}
        }
        false
    }

    /// Enters a subject that is not there, as a snapshot has it.
    pub(super) fn restore(&mut self, text: &[u8], subject: Subject, older: VecDeque<Kept>) {
        let id = self.find_or_insert(text, subject.first);
        let slot = &mut self.slots[id as usize];
        slot.count = subject.count;
        slot.last = subject.last | if subject.is_exact { 0 } else { VAGUE };
        slot.size = subject.size;
        if !subject.is_exact {
            self.vague.insert(id);
        }
        if !older.is_empty() {
            self.older.insert(id, older);
        }
    }

    /// Whether the last message of the subject is not known. `false` for one that has gone.
    pub(super) fn is_vague(&self, id: SubjectId) -> bool {
        self.vague.contains(&id)
    }

    /// A read has found the last message of a vague subject.
    pub(super) fn set_last(&mut self, id: SubjectId, seq: u64, size: u32) {
        let slot = &mut self.slots[id as usize];
        (slot.last, slot.size) = (seq, size);
        self.vague.remove(&id);
    }

    /// A read has found no message of the subject from `seq` on, up to what was the bound.
    pub(super) fn lower_last(&mut self, id: SubjectId, seq: u64) {
        let slot = &mut self.slots[id as usize];
        debug_assert!(slot.last & VAGUE != 0);
        slot.last = seq.saturating_sub(1) | VAGUE;
    }

    /// A read has found no message of the subject below `seq`.
    pub(super) fn raise_first(&mut self, id: SubjectId, seq: u64) {
        let slot = &mut self.slots[id as usize];
        slot.first = slot.first.max(seq);
    }

    /// A subject whose last message is not known.
    pub(super) fn first_vague(&self) -> Option<SubjectId> {
        self.vague.first().copied()
    }

    /// Whether each message of the subject is known.
    pub(super) fn is_listed(&self, id: SubjectId) -> bool {
        let slot = &self.slots[id as usize];
        let older = self.older.get(&id).map_or(0, VecDeque::len) as u64;
        slot.last & VAGUE == 0 && older == slot.count - 1
    }

    /// Known messages of a subject but the last, ascending.
    pub(super) fn older(&self, id: SubjectId) -> impl Iterator<Item = Kept> + Clone + '_ {
        self.older.get(&id).into_iter().flatten().copied()
    }

    /// The last message of a subject, if it is known.
    pub(super) fn last(&self, id: SubjectId) -> Option<Kept> {
        let slot = &self.slots[id as usize];
        let kept = Kept { seq: slot.last, size: slot.size, record: record_bytes(slot.size) };
        (slot.last & VAGUE == 0).then_some(kept)
    }

    /// Whether there is a subject of that number.
    pub(super) fn is_used(&self, id: SubjectId) -> bool {
        self.slots.get(id as usize).is_some_and(|slot| slot.count > 0)
    }

    /// Subjects of which more than the last message is known.
    pub(super) fn listed(&self) -> impl Iterator<Item = SubjectId> + '_ {
        self.older.keys().copied()
    }

    /// Forgets what is known of single messages before the last ones.
    pub(super) fn forget_older(&mut self) {
        self.older = HashMap::default();
    }

    /// Visits the subjects that `filter` matches until `each` says `false`.
    pub(super) fn visit(&self, filter: &[u8], mut each: impl FnMut(SubjectId, Subject) -> bool) {
        if !has_wildcard(filter) {
            if let Some(id) = self.find(filter) {
                each(id, self.get(id));
            }
            return;
        }
        let prefix = literal_prefix(filter);
        let is_all_below = filter.len() == prefix.len() + 1 && filter.ends_with(b">");
        self.order.visit(
            prefix,
            |id| self.text(id),
            |id| {
                let text = self.text(id);
                let is_match = if is_all_below { text.len() > prefix.len() } else { matches(filter, text) };
                !is_match || each(id, self.get(id))
            },
        );
    }

    /// Every subject, in the order of the texts.
    pub(super) fn visit_all(&self, mut each: impl FnMut(SubjectId, Subject)) {
        self.order.visit(
            b"",
            |id| self.text(id),
            |id| {
                each(id, self.get(id));
                true
            },
        );
    }

    /// Which bit of a block's mask stands for the subject.
    pub(super) fn mask_bit(text: &[u8]) -> u8 {
        // Written to disk with snapshots, so not a hash that changes from run to run.
        let mut mixed = text.len() as u64;
        for part in text.chunks(8) {
            let word = match part.first_chunk() {
                Some(word) => u64::from_le_bytes(*word),
                None => part.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
            };
            mixed = (mixed ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            mixed ^= mixed >> 32;
        }
        (mixed >> 26 & 63) as u8
    }

    fn find_or_insert(&mut self, text: &[u8], seq: u64) -> SubjectId {
        if self.is_recent(text) {
            return self.recent.get();
        }
        let hash = self.hash(text);
        let Self { table, texts, .. } = self;
        let found = table.find(spread(hash), |key| key.hash == hash && is_same(texts.get(key.text), text));
        let id = match found {
            Some(key) => key.id,
            None => self.insert(hash, text, seq),
        };
        self.recent.set(id);
        id
    }

    fn insert(&mut self, hash: u32, text: &[u8], seq: u64) -> SubjectId {
        let slot = Slot { first: seq, last: seq, count: 0, text: 0, size: 0 };
        let id = match self.free {
            FREE => self.slots.push(slot) as SubjectId,
            id => {
                self.free = self.slots[id as usize].size;
                self.slots[id as usize] = slot;
                id
            }
        };
        let address = self.texts.insert(id, text);
        self.slots[id as usize].text = address;
        let Self { order, texts, slots, table, .. } = self;
        order.insert(id, text, |other| texts.get(slots[other as usize].text));
        table.find_or_insert(spread(hash), |_| false, || Key { hash, id, text: address });
        self.len += 1;
        id
    }

    fn free_slot(&mut self, id: SubjectId) {
        self.older.remove(&id);
        self.vague.remove(&id);
        self.len -= 1;
        if self.len == 0 {
            *self = Self::new();
            return;
        }
        let text = self.text(id).to_vec();
        let hash = self.hash(&text);
        self.table.remove(spread(hash), |key| key.id == id);
        self.order.remove(&text);
        let mut moved = Vec::new();
        self.texts.remove(self.slots[id as usize].text, |owner, at| moved.push((owner, at)));
        for (owner, at) in moved {
            let Self { texts, slots, table, hasher, .. } = self;
            slots[owner as usize].text = at;
            let hash = hash_of(texts.get(at), hasher) as u32;
            if let Some(key) = table.find_mut(spread(hash), |key| key.id == owner) {
                key.text = at;
            }
        }
        let slots = &mut self.slots;
        slots[id as usize] = Slot { first: 0, last: 0, count: 0, text: 0, size: self.free };
        self.free = id;
        if self.recent.get() == id {
            self.recent.set(FREE);
        }
    }

    fn is_recent(&self, text: &[u8]) -> bool {
        self.recent.get() != FREE && is_same(self.text(self.recent.get()), text)
    }

    fn hash(&self, text: &[u8]) -> u32 {
        hash_of(text, &self.hasher) as u32
    }
}

/// What a record takes in the log, guessed from the size that the stream counts. What a stream has in a segment is
/// corrected when its last message there goes.
fn record_bytes(size: u32) -> u32 {
    size
}

/// 32 bits of hash, spread over the 64 of which the table uses both ends.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The part of a pattern before its first wildcard token.
fn literal_prefix(filter: &[u8]) -> &[u8] {
    let mut length = 0;
    for token in tokens(filter) {
        if token == b"*" || token == b">" {
            break;
        }
        length += token.len() + 1;
    }
    &filter[..length.min(filter.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(seq: u64) -> Kept {
        Kept { seq, size: seq as u32, record: seq as u32 }
    }

    #[test]
    fn a_pattern_begins_with_its_literal_tokens() {
        for (filter, prefix) in [("a.b.*", "a.b."), ("a.b.>", "a.b."), (">", ""), ("*.a", ""), ("a*.*.b", "a*.")] {
            assert_eq!(literal_prefix(filter.as_bytes()), prefix.as_bytes(), "{filter}");
        }
    }

    #[test]
    fn the_last_of_a_subject_is_vague_only_where_the_one_before_is_not_known() {
        let mut subjects = Subjects::new();
        for seq in 1..=3 {
            subjects.push(b"known", kept(seq), true);
        }
        for seq in 4..=6 {
            subjects.push(b"other", kept(seq), false);
        }
        let (known, other) = (subjects.find(b"known").unwrap(), subjects.find(b"other").unwrap());
        assert!(subjects.is_listed(known) && !subjects.is_listed(other));
        subjects.removed(known, 3);
        subjects.removed(other, 6);
        assert_eq!(subjects.last(known).map(|last| last.seq), Some(2));
        assert_eq!(subjects.last(other), None);
        assert_eq!(subjects.first_vague(), Some(other));
        subjects.set_last(other, 5, 5);
        assert_eq!(subjects.first_vague(), None);
        assert!(
            !subjects.removed(known, 1) && subjects.removed(known, 2),
            "the subject has gone with its last message"
        );
        assert_eq!((subjects.find(b"known"), subjects.len()), (None, 1));
    }
}
