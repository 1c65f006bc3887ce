//! What protocol faces remember: values by key, durable like everything else.

use std::collections::BTreeMap;

use super::{NotFound, Store};
use crate::log::{Incarnation, Kind, Pending, Time, Urgency, varint};

const PUT: u8 = 1;
const DELETE: u8 = 2;

impl Store {
    /// A new set of values by key. The face finds it again by what it puts in.
    pub fn create_set(&mut self) -> Incarnation {
        let of = self.log.new_incarnation();
        self.kept.sets.insert(of, BTreeMap::new());
        of
    }

    /// All sets.
    pub fn sets(&self) -> impl Iterator<Item = Incarnation> {
        self.kept.sets()
    }

    /// Sets a value.
    ///
    /// # Errors
    /// There is no such set.
    pub fn put(
        &mut self,
        now: Time,
        of: Incarnation,
        key: &[u8],
        value: &[u8],
        urgency: Urgency,
    ) -> Result<Pending, NotFound> {
        let set = self.kept.sets.get_mut(&of).ok_or(NotFound)?;
        set.insert(key.to_vec(), value.to_vec());
        let mut content = vec![PUT];
        varint::push(&mut content, key.len() as u64);
        content.extend_from_slice(key);
        content.extend_from_slice(value);
        Ok(self.log.control(now, Some(of), Kind::Face, &content, urgency))
    }

    /// Removes a value.
    ///
    /// # Errors
    /// There is no such set.
    pub fn unset(&mut self, now: Time, of: Incarnation, key: &[u8], urgency: Urgency) -> Result<Pending, NotFound> {
        self.kept.sets.get_mut(&of).ok_or(NotFound)?.remove(key);
        let mut content = vec![DELETE];
        content.extend_from_slice(key);
        Ok(self.log.control(now, Some(of), Kind::Face, &content, urgency))
    }

    /// The values of a set, in order of their keys.
    pub fn values(&self, of: Incarnation) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.kept.sets.get(&of).into_iter().flatten().map(|(key, value)| (&key[..], &value[..]))
    }
}

/// The sets of a store.
#[derive(Debug, Default)]
pub(super) struct Kept {
    sets: BTreeMap<Incarnation, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Kept {
    pub(super) fn sets(&self) -> impl Iterator<Item = Incarnation> {
        self.sets.keys().copied()
    }

    pub(super) fn contains(&self, of: Incarnation) -> bool {
        self.sets.contains_key(&of)
    }

    /// Applies a record again.
    pub(super) fn replay(&mut self, of: Incarnation, record: &[u8]) -> Option<()> {
        let set = self.sets.entry(of).or_default();
        match record.split_first()? {
            (&PUT, mut rest) => {
                let length = usize::try_from(varint::take(&mut rest)?).ok()?;
                let (key, value) = rest.split_at_checked(length)?;
                set.insert(key.to_vec(), value.to_vec());
            }
            (&DELETE, key) => drop(set.remove(key)),
            _ => return None,
        }
        Some(())
    }

    pub(super) fn snapshot(&self, of: Incarnation, out: &mut Vec<u8>) {
        for (key, value) in self.sets.get(&of).into_iter().flatten() {
            varint::push(out, key.len() as u64);
            out.extend_from_slice(key);
            varint::push(out, value.len() as u64);
            out.extend_from_slice(value);
        }
    }

    pub(super) fn restore(&mut self, of: Incarnation, mut snapshot: &[u8]) -> Option<()> {
        let set = self.sets.entry(of).or_default();
        let mut take = || {
            let length = usize::try_from(varint::take(&mut snapshot)?).ok()?;
            let (part, rest) = snapshot.split_at_checked(length)?;
            snapshot = rest;
            Some(part)
        };
        while let Some(key) = take() {
            set.insert(key.to_vec(), take()?.to_vec());
        }
        Some(())
    }
}
