//! A set of sequence numbers: compressed bitmaps, one per 2³² numbers.
//!
//! A lone number costs 2 bytes, a dense stretch one bit per number, and at most 8 KiB per 65,536 numbers.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use roaring::RoaringBitmap;

use super::Flaw;
use super::codec::{Reader, put};

/// Sequence numbers that are gone, or owed, or otherwise special.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seqs {
    /// By the upper half of the numbers; none is empty. `None` if there are none: streams have several sets, most of them
    /// without anything.
    #[expect(clippy::box_collection, reason = "a null pointer where there are none")]
    maps: Option<Box<BTreeMap<u32, RoaringBitmap>>>,
}

impl Seqs {
    fn of(maps: BTreeMap<u32, RoaringBitmap>) -> Self {
        Self { maps: (!maps.is_empty()).then(|| Box::new(maps)) }
    }

    fn map(&self, half: u32) -> Option<&RoaringBitmap> {
        self.maps.as_ref()?.get(&half)
    }

    /// The map of that half, made if there is none; something has to be put into it.
    fn map_mut(&mut self, half: u32) -> &mut RoaringBitmap {
        self.maps.get_or_insert_default().entry(half).or_default()
    }

    /// Does something with the map of that half, which may empty it.
    fn reduce<R>(&mut self, half: u32, act: impl FnOnce(&mut RoaringBitmap) -> R) -> Option<R> {
        let maps = self.maps.as_mut()?;
        let map = maps.get_mut(&half)?;
        let result = act(map);
        if map.is_empty() {
            maps.remove(&half);
            self.maps.take_if(|maps| maps.is_empty());
        }
        Some(result)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.maps.is_none()
    }

    pub(super) fn len(&self) -> u64 {
        self.maps.iter().flat_map(|maps| maps.values()).map(RoaringBitmap::len).sum()
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.map(high(seq)).is_some_and(|map| map.contains(low(seq)))
    }

    /// Whether it was not there yet.
    pub(super) fn insert(&mut self, seq: u64) -> bool {
        self.map_mut(high(seq)).insert(low(seq))
    }

    pub(super) fn insert_range(&mut self, range: RangeInclusive<u64>) {
        if !range.is_empty() {
            for (half, part) in halves(range) {
                self.map_mut(half).insert_range(part);
            }
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, seq: u64) -> bool {
        self.reduce(high(seq), |map| map.remove(low(seq))).unwrap_or(false)
    }

    pub(super) fn remove_range(&mut self, range: RangeInclusive<u64>) {
        if range.is_empty() {
            return;
        }
        for (half, part) in halves(range) {
            self.reduce(half, |map| map.remove_range(part));
        }
    }

    /// Forgets everything below `seq`.
    pub(super) fn remove_below(&mut self, seq: u64) {
        if let Some(least) = self.min().filter(|least| *least < seq) {
            self.remove_range(least..=seq - 1);
        }
    }

    /// How many of the range are there.
    pub(super) fn count(&self, range: RangeInclusive<u64>) -> u64 {
        let Some(maps) = self.maps.as_ref().filter(|_| !range.is_empty()) else { return 0 };
        let (first, last) = (high(*range.start()), high(*range.end()));
        maps.range(first..=last)
            .map(|(half, map)| {
                let from = if *half == first { low(*range.start()) } else { 0 };
                let upto = if *half == last { low(*range.end()) } else { u32::MAX };
                map.range_cardinality(from..=upto)
            })
            .sum()
    }

    pub(super) fn min(&self) -> Option<u64> {
        let (half, map) = self.maps.as_ref()?.first_key_value()?;
        Some(join(*half, map.min()?))
    }

    pub(super) fn max(&self) -> Option<u64> {
        let (half, map) = self.maps.as_ref()?.last_key_value()?;
        Some(join(*half, map.max()?))
    }

    /// The least that is there, from `seq` on.
    pub(super) fn next_present(&self, seq: u64) -> Option<u64> {
        let first = high(seq);
        self.maps.as_ref()?.range(first..).find_map(|(half, map)| {
            let from = if *half == first { low(seq) } else { 0 };
            map.range(from..).next().map(|found| join(*half, found))
        })
    }

    /// The least that is not there, from `seq` on.
    pub(super) fn next_absent(&self, seq: u64) -> u64 {
        if !self.contains(seq) {
            return seq;
        }
        // `known` is the end of a stretch that is there; doubled while it holds, then halved down.
        let (mut known, mut step) = (seq, 1_u64);
        while self.holds(known + 1..=known + step) {
            known += step;
            step *= 2;
        }
        while step > 1 {
            step /= 2;
            if self.holds(known + 1..=known + step) {
                known += step;
            }
        }
        known + 1
    }

    /// The greatest that is not there, up to `seq`; zero if all are.
    pub(super) fn prev_absent(&self, seq: u64) -> u64 {
        if !self.contains(seq) {
            return seq;
        }
        let (mut known, mut step) = (seq, 1_u64);
        while step < known && self.holds(known - step..=known - 1) {
            known -= step;
            step *= 2;
        }
        while step > 1 {
            step /= 2;
            if step < known && self.holds(known - step..=known - 1) {
                known -= step;
            }
        }
        known - 1
    }

    fn holds(&self, range: RangeInclusive<u64>) -> bool {
        if high(*range.start()) == high(*range.end()) {
            let (from, upto) = (low(*range.start()), low(*range.end()));
            return self.map(high(*range.start())).is_some_and(|map| map.contains_range(from..=upto));
        }
        self.count(range.clone()) == range.end() - range.start() + 1
    }

    /// The stretches that are there, ascending.
    pub(super) fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = self.next_present(from)?;
            from = self.next_absent(start);
            Some(start..=from - 1)
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.maps.as_ref().map_or(0, |maps| maps.len()) as u64);
        for (half, map) in self.maps.iter().flat_map(|maps| maps.iter()) {
            put(out, u64::from(*half));
            put(out, map.serialized_size() as u64);
            map.serialize_into(&mut *out).expect("a vector takes all");
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        let mut maps = BTreeMap::new();
        for _ in 0..reader.number()? {
            let half = reader.small()?;
            let bytes = reader.bytes()?;
            let map = RoaringBitmap::deserialize_from(bytes).map_err(|_| Flaw("bitmap"))?;
            if map.is_empty() {
                return Err(Flaw("empty bitmap"));
            }
            maps.insert(half, map);
        }
        Ok(Self::of(maps))
    }
}

fn high(seq: u64) -> u32 {
    (seq >> 32) as u32
}

fn low(seq: u64) -> u32 {
    seq as u32
}

fn join(half: u32, low: u32) -> u64 {
    u64::from(half) << 32 | u64::from(low)
}

/// The range, which is not empty, cut where the upper half changes.
fn halves(range: RangeInclusive<u64>) -> impl Iterator<Item = (u32, RangeInclusive<u32>)> {
    let (first, last) = (*range.start(), *range.end());
    (high(first)..=high(last)).map(move |half| {
        let from = if half == high(first) { low(first) } else { 0 };
        let upto = if half == high(last) { low(last) } else { u32::MAX };
        (half, from..=upto)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Around a change of the upper half too, the set does what an ordinary one does.
        #[test]
        fn behaves_like_a_set(steps in prop::collection::vec((0..5_u8, 0..400_u64, 0..40_u64), 1..60)) {
            const BASE: u64 = (1 << 32) - 200;
            let (mut seqs, mut model) = (Seqs::default(), BTreeSet::new());
            for (what, at, len) in steps {
                let (from, upto) = (BASE + at, BASE + at + len);
                match what {
                    0 => prop_assert_eq!(seqs.insert(from), model.insert(from)),
                    1 => { seqs.insert_range(from..=upto); model.extend(from..=upto); }
                    2 => prop_assert_eq!(seqs.remove(from), model.remove(&from)),
                    3 => { seqs.remove_range(from..=upto); model.retain(|seq| !(from..=upto).contains(seq)); }
                    _ => { seqs.remove_below(from); model.retain(|seq| *seq >= from); }
                }
                prop_assert_eq!(seqs.len(), model.len() as u64);
                prop_assert_eq!(seqs.min(), model.first().copied());
                prop_assert_eq!(seqs.max(), model.last().copied());
                prop_assert_eq!(seqs.count(from..=upto), model.range(from..=upto).count() as u64);
                prop_assert_eq!(seqs.next_present(from), model.range(from..).next().copied());
                prop_assert_eq!(seqs.next_absent(from), (from..).find(|seq| !model.contains(seq)).unwrap());
                prop_assert_eq!(seqs.prev_absent(upto), (0..=upto).rev().find(|seq| !model.contains(seq)).unwrap());
                let all: Vec<u64> = seqs.ranges().flatten().collect();
                prop_assert_eq!(all, model.iter().copied().collect::<Vec<_>>());
            }
            let mut bytes = Vec::new();
            seqs.encode(&mut bytes);
            prop_assert_eq!(Seqs::decode(&mut Reader::new(&bytes)), Ok(seqs));
        }
    }
}
