//! What stands at one pattern: plain targets, and queue groups by name.
//!
//! Most patterns have exactly one plain target, which is stored in place ([`Subs::One`]). The rest own two lists,
//! each a short vector up to [`FEW_MAX`] elements and an indexed set beyond, so that insertion and removal stay O(1)
//! with 100,000 subscribers on one subject. Cost per further target: its size in a vector; 20 to 50 bytes more in
//! a set.
//!
//! Changes report the bytes that they allocate or free to a [`Heap`] counter, so that the size of an index is known
//! without walking it.

use std::hash::Hash;
use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::{IndexMap, IndexSet};

use super::matched::Matches;
use crate::first::First as _;

/// Elements up to which a list is searched instead of hashed.
const FEW_MAX: usize = 16;
/// Elements down to which a set stays a set, so that a list does not change its form back and forth.
const MANY_MIN: usize = FEW_MAX / 2;

/// Bytes that an index has allocated besides its tables, as an allocator would account them.
#[derive(Debug, Default)]
pub(super) struct Heap {
    bytes: usize,
}

/// The subscriptions to one pattern.
pub(super) enum Subs<T> {
    None,
    One(T),
    Many(Box<Lists<T>>),
}

/// At least two plain targets, or a queue group.
pub(super) struct Lists<T> {
    plain: Targets<T>,
    groups: Groups<T>,
}

/// A set of targets.
enum Targets<T> {
    Few(Vec<T>),
    Many(Box<IndexSet<T, RandomState>>),
}

/// The queue groups of one pattern, none of them empty.
enum Groups<T> {
    Few(Vec<(Arc<[u8]>, Targets<T>)>),
    Many(Box<IndexMap<Arc<[u8]>, Targets<T>, RandomState>>),
}

/// What the removal of a queue member changed.
pub(super) enum Left {
    /// The target was not there.
    Nothing,
    /// Others remain in the group.
    Group,
    /// The target was the last of its group.
    LastOfGroup,
}

impl Heap {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts one allocation of `bytes`.
    pub(super) fn grow(&mut self, bytes: usize) {
        self.bytes += accounted(bytes);
    }

    /// Takes back one allocation of `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.bytes -= accounted(bytes);
    }

    fn replace(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes + after - before;
    }
}

impl<T: Copy + Eq + Hash> Subs<T> {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Returns whether the target is new.
    pub(super) fn insert_plain(&mut self, target: T, heap: &mut Heap) -> bool {
        match self {
            Self::None => {
                *self = Self::One(target);
                true
            }
            Self::One(there) if *there == target => false,
            Self::One(_) | Self::Many(_) => self.lists_mut(heap).plain.insert(target, heap),
        }
    }

    /// Returns whether the target is new in the group. `intern` is called for the name of a group that is new here.
    pub(super) fn insert_queue(
        &mut self,
        name: &[u8],
        target: T,
        heap: &mut Heap,
        intern: impl FnOnce(&mut Heap) -> Arc<[u8]>,
    ) -> bool {
        let groups = &mut self.lists_mut(heap).groups;
        if let Some(members) = groups.get_mut(name) {
            return members.insert(target, heap);
        }
        let name = intern(heap);
        groups.insert(name, target, heap);
        true
    }

    /// Returns whether the target was there.
    pub(super) fn remove_plain(&mut self, target: T, heap: &mut Heap) -> bool {
        match self {
            Self::None => false,
            Self::One(there) => {
                let found = *there == target;
                if found {
                    *self = Self::None;
                }
                found
            }
            Self::Many(lists) => {
                let found = lists.plain.remove(target, heap);
                self.simplify(heap);
                found
            }
        }
    }

    pub(super) fn remove_queue(&mut self, name: &[u8], target: T, heap: &mut Heap) -> Left {
        let Self::Many(lists) = self else {
            return Left::Nothing;
        };
        let Some(members) = lists.groups.get_mut(name) else {
            return Left::Nothing;
        };
        if !members.remove(target, heap) {
            return Left::Nothing;
        }
        if !members.is_empty() {
            return Left::Group;
        }
        lists.groups.remove(name, heap);
        self.simplify(heap);
        Left::LastOfGroup
    }

    /// Appends everything to `out`.
    pub(super) fn collect(&self, out: &mut Matches<T>) {
        match self {
            Self::None => {}
            Self::One(target) => out.plain.push(*target),
            Self::Many(lists) => {
                lists.plain.append_to(&mut out.plain);
                let earlier = out.queues.len();
                lists.groups.for_each(|name, members| {
                    members.append_to(out.members_mut(name, earlier));
                });
            }
        }
    }

    pub(super) fn for_each(&self, mut f: impl FnMut(Option<&[u8]>, T)) {
        match self {
            Self::None => {}
            Self::One(target) => f(None, *target),
            Self::Many(lists) => {
                lists.plain.for_each(|target| f(None, target));
                lists.groups.for_each(|name, members| {
                    members.for_each(|target| f(Some(name), target));
                });
            }
        }
    }

    /// Turns whatever is here into lists.
    fn lists_mut(&mut self, heap: &mut Heap) -> &mut Lists<T> {
        if !matches!(self, Self::Many(_)) {
            let mut lists = Box::new(Lists { plain: Targets::new(), groups: Groups::new() });
            heap.grow(size_of::<Lists<T>>());
            if let Self::One(target) = self {
                lists.plain.insert(*target, heap);
            }
            *self = Self::Many(lists);
        }
        match self {
            Self::Many(lists) => lists,
            Self::None | Self::One(_) => unreachable!("set to lists above"),
        }
    }

    /// Drops lists that hold no more than one plain target.
    fn simplify(&mut self, heap: &mut Heap) {
        let Self::Many(lists) = self else {
            return;
        };
        if !lists.groups.is_empty() || lists.plain.len() > 1 {
            return;
        }
        heap.replace(lists.plain.heap_bytes() + lists.groups.heap_bytes(), 0);
        heap.shrink(size_of::<Lists<T>>());
        *self = match lists.plain.first() {
            Some(target) => Self::One(target),
            None => Self::None,
        };
    }
}

impl<T: Copy + Eq + Hash> Targets<T> {
    fn new() -> Self {
        Self::Few(Vec::new())
    }

    fn of(target: T, heap: &mut Heap) -> Self {
        let targets = Self::Few(vec![target]);
        heap.replace(0, targets.heap_bytes());
        targets
    }

    fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(set) => set.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn first(&self) -> Option<T> {
        match self {
            Self::Few(list) => list.first().copied(),
            Self::Many(set) => set.first().copied(),
        }
    }

    fn append_to(&self, out: &mut Vec<T>) {
        match self {
            Self::Few(list) => out.extend_from_slice(list),
            Self::Many(set) => out.extend(set.iter().copied()),
        }
    }

    fn for_each(&self, f: impl FnMut(T)) {
        match self {
            Self::Few(list) => list.iter().copied().for_each(f),
            Self::Many(set) => set.iter().copied().for_each(f),
        }
    }

    fn insert(&mut self, target: T, heap: &mut Heap) -> bool {
        let before = self.heap_bytes();
        let is_new = match self {
            Self::Few(list) if list.contains(&target) => false,
            Self::Few(list) if list.len() < FEW_MAX => {
                list.push(target);
                true
            }
            Self::Few(list) => {
                let set = list.iter().copied().chain([target]).collect();
                *self = Self::Many(Box::new(set));
                true
            }
            Self::Many(set) => set.insert(target),
        };
        heap.replace(before, self.heap_bytes());
        is_new
    }

    fn remove(&mut self, target: T, heap: &mut Heap) -> bool {
        let before = self.heap_bytes();
        let found = match self {
            Self::Few(list) => match list.iter().position(|there| *there == target) {
                Some(index) => {
                    list.swap_remove(index);
                    true
                }
                None => false,
            },
            Self::Many(set) => set.swap_remove(&target),
        };
        if let Self::Many(set) = self {
            if set.len() < MANY_MIN {
                *self = Self::Few(set.iter().copied().collect());
            } else if set.len() < set.capacity() / 4 {
                set.shrink_to(set.len() * 2);
            }
        }
        heap.replace(before, self.heap_bytes());
        found
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Few(list) => accounted(list.capacity() * size_of::<T>()),
            Self::Many(set) => {
                accounted(size_of::<IndexSet<T, RandomState>>()) + indexed_bytes(set.capacity(), size_of::<(u64, T)>())
            }
        }
    }
}

impl<T: Copy + Eq + Hash> Groups<T> {
    fn new() -> Self {
        Self::Few(Vec::new())
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(list) => list.is_empty(),
            Self::Many(map) => map.is_empty(),
        }
    }

    fn get_mut(&mut self, name: &[u8]) -> Option<&mut Targets<T>> {
        match self {
            Self::Few(list) => list.iter_mut().find(|(there, _)| **there == *name).map(|(_, members)| members),
            Self::Many(map) => map.get_mut(name),
        }
    }

    /// Adds a group, which must be new here.
    fn insert(&mut self, name: Arc<[u8]>, target: T, heap: &mut Heap) {
        let members = Targets::of(target, heap);
        let before = self.heap_bytes();
        match self {
            Self::Few(list) if list.len() < FEW_MAX => {
                list.reserve_first();
                list.push((name, members));
            }
            Self::Few(list) => {
                let map = list.drain(..).chain([(name, members)]).collect();
                *self = Self::Many(Box::new(map));
            }
            Self::Many(map) => {
                map.insert(name, members);
            }
        }
        heap.replace(before, self.heap_bytes());
    }

    fn remove(&mut self, name: &[u8], heap: &mut Heap) {
        let before = self.heap_bytes();
        let removed = match self {
            Self::Few(list) => {
                list.iter().position(|(there, _)| **there == *name).map(|index| list.swap_remove(index).1)
            }
            Self::Many(map) => map.swap_remove(name),
        };
        if let Self::Many(map) = self {
            if map.len() < MANY_MIN {
                *self = Self::Few(map.drain(..).collect());
            } else if map.len() < map.capacity() / 4 {
                map.shrink_to(map.len() * 2);
            }
        }
        heap.replace(before, self.heap_bytes());
        heap.replace(removed.map_or(0, |members| members.heap_bytes()), 0);
    }

    fn for_each(&self, mut f: impl FnMut(&Arc<[u8]>, &Targets<T>)) {
        match self {
            Self::Few(list) => list.iter().for_each(|(name, members)| f(name, members)),
            Self::Many(map) => map.iter().for_each(|(name, members)| f(name, members)),
        }
    }

    /// Without the members and the names.
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Few(list) => accounted(list.capacity() * size_of::<(Arc<[u8]>, Targets<T>)>()),
            Self::Many(map) => {
                accounted(size_of::<IndexMap<Arc<[u8]>, Targets<T>, RandomState>>())
                    + indexed_bytes(map.capacity(), size_of::<(u64, Arc<[u8]>, Targets<T>)>())
            }
        }
    }
}

/// An allocation with the allocator's own share: a word of header, rounded up to 16 bytes.
fn accounted(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

/// The entries of an indexed set or map and its table of positions.
fn indexed_bytes(capacity: usize, entry_bytes: usize) -> usize {
    let buckets = (capacity * 8 / 7).next_power_of_two();
    accounted(capacity * entry_bytes) + accounted(buckets * (size_of::<usize>() + 1))
}
