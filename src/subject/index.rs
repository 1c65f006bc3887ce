//! The subscription index: which targets a published subject reaches.
//!
//! It holds the subscriptions of one account on one shard. A subscription is a pattern, an optional queue group and a
//! target; the index is a set of these. The same target under two patterns is two subscriptions, and both match.
//!
//! Patterns without wildcards, inboxes above all, are entries of a flat hash table: SUB, UNSUB and the match of such a
//! subject are one look-up each, whatever the number of tokens. Patterns with wildcards form a trie (`trie.rs`), which
//! is walked only if there are any.
//!
//! Invariants: a pattern is in the table or the trie only while it has a subscription; a queue name is interned only
//! while some pattern has that group; an empty index owns no memory.
//!
//! Cost per subscription in a large set, with targets of 8 bytes, the allocator's overhead included (`memory_bytes`
//! counts in the same way); the spread is the fill of the tables:
//!
//! | subscription | bytes |
//! |---|---|
//! | literal subject of 35 bytes | 95 to 140 |
//! | the same in a queue group | 145 more; 235 more if no other subject has a group of that name |
//! | `tenants.<name>.*` | 180 to 200 |
//! | further subscriber of a subject | 8 to 60, once per subject 110 |

use std::fmt;
use std::hash::Hash;
use std::ops::ControlFlow;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::matched::Matches;
use super::table::{Hashed, Table, hash_of};
use super::targets::{Heap, Left, Subs};
use super::trie::Trie;
use super::{has_wildcard, is_valid_subscription};

/// The subscriptions of one account on one shard, by subject.
///
/// Patterns must be valid (see [`is_valid_subscription`]): the caller has refused others to its client.
pub struct Index<T> {
    literals: Table<Literal<T>>,
    wildcards: Trie<T>,
    names: Table<Name>,
    len: usize,
    heap: Heap,
    hasher: RandomState,
}

/// A subscribed subject without wildcards.
struct Literal<T> {
    hash: u64,
    subject: Box<[u8]>,
    subs: Subs<T>,
}

/// A queue name, shared by the groups of all patterns.
struct Name {
    hash: u64,
    name: Arc<[u8]>,
    group_count: u32,
}

impl<T: Copy + Eq + Hash> Index<T> {
    /// An empty index.
    pub fn new() -> Self {
        Self {
            literals: Table::new(),
            wildcards: Trie::new(),
            names: Table::new(),
            len: 0,
            heap: Heap::default(),
            hasher: RandomState::default(),
        }
    }

    /// Adds a subscription, if it is not there yet.
    pub fn insert(&mut self, pattern: &[u8], queue: Option<&[u8]>, target: T) {
        debug_assert!(is_valid_subscription(pattern), "validated where it was parsed");
        let Self { literals, wildcards, names, heap, hasher, .. } = self;
        let subs = if has_wildcard(pattern) {
            let place = wildcards.find_or_insert(pattern, hasher, heap);
            wildcards.subs_mut(place)
        } else {
            let hash = hash_of(pattern, hasher);
            let mut created_bytes = 0;
            let literal = literals.find_or_insert(
                hash,
                |literal| literal.is(hash, pattern),
                || {
                    created_bytes = pattern.len();
                    Literal { hash, subject: pattern.into(), subs: Subs::None }
                },
            );
            heap.grow(created_bytes);
            &mut literal.subs
        };
        let is_new = match queue {
            None => subs.insert_plain(target, heap),
            Some(name) => subs.insert_queue(name, target, heap, |heap| intern(names, name, hasher, heap)),
        };
        self.len += usize::from(is_new);
    }

    /// Removes a subscription. True if it was there.
    pub fn remove(&mut self, pattern: &[u8], queue: Option<&[u8]>, target: T) -> bool {
        let was_there = if has_wildcard(pattern) {
            self.remove_wildcard(pattern, queue, target)
        } else {
            self.remove_literal(pattern, queue, target)
        };
        self.len -= usize::from(was_there);
        was_there
    }

    /// Appends all matches of a published subject to `out`: plain targets, and by queue name the members. Groups of
    /// the same name on several matching patterns are one group, also across calls.
    pub fn matches(&self, subject: &[u8], out: &mut Matches<T>) {
        let _ = self.walk(subject, |subs| {
            subs.collect(out);
            ControlFlow::Continue(())
        });
    }

    /// Calls `visit` for the target of each match of a published subject, in no particular order.
    pub fn visit(&self, subject: &[u8], mut visit: impl FnMut(T)) {
        let _ = self.walk(subject, |subs| {
            subs.for_each(|_, target| visit(target));
            ControlFlow::Continue(())
        });
    }

    /// Whether a published subject has any match; cheaper than [`Index::matches`].
    pub fn has_match(&self, subject: &[u8]) -> bool {
        let stop_at_first = |subs: &Subs<T>| match subs.is_empty() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        self.walk(subject, stop_at_first).is_break()
    }

    /// The number of subscriptions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no subscriptions.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes allocated by the index, estimated without walking it: tables, nodes, subjects, lists and names, each
    /// allocation with an allocator's usual overhead. Zero for an empty index.
    pub fn memory_bytes(&self) -> usize {
        self.literals.heap_bytes() + self.wildcards.heap_bytes() + self.names.heap_bytes() + self.heap.bytes()
    }

    /// Calls `f` with pattern, queue name and target of every subscription, in no particular order.
    pub fn for_each(&self, mut f: impl FnMut(&[u8], Option<&[u8]>, T)) {
        for literal in self.literals.iter() {
            literal.subs.for_each(|queue, target| f(&literal.subject, queue, target));
        }
        self.wildcards.for_each(f);
    }

    fn walk(&self, subject: &[u8], mut visit: impl FnMut(&Subs<T>) -> ControlFlow<()>) -> ControlFlow<()> {
        // A subject with empty tokens equals no valid pattern, so it is not found here either. Nor is a published
        // `*` or `>`: patterns with such tokens are not in this table.
        if !self.literals.is_empty() {
            let hash = hash_of(subject, &self.hasher);
            if let Some(literal) = self.literals.find(hash, |literal| literal.is(hash, subject)) {
                visit(&literal.subs)?;
            }
        }
        self.wildcards.walk(subject, &self.hasher, visit)
    }

    fn remove_literal(&mut self, pattern: &[u8], queue: Option<&[u8]>, target: T) -> bool {
        let hash = hash_of(pattern, &self.hasher);
        let Some(literal) = self.literals.find_mut(hash, |literal| literal.is(hash, pattern)) else {
            return false;
        };
        let Removed { was_there, ended_group } = remove_from(&mut literal.subs, queue, target, &mut self.heap);
        if literal.subs.is_empty() {
            self.literals.remove(hash, |literal| literal.is(hash, pattern));
            self.heap.shrink(pattern.len());
        }
        self.release_name(ended_group);
        was_there
    }

    fn remove_wildcard(&mut self, pattern: &[u8], queue: Option<&[u8]>, target: T) -> bool {
        let Some(place) = self.wildcards.find(pattern, &self.hasher) else {
            return false;
        };
        let subs = self.wildcards.subs_mut(place);
        let Removed { was_there, ended_group } = remove_from(subs, queue, target, &mut self.heap);
        if subs.is_empty() {
            self.wildcards.prune(place, &self.hasher, &mut self.heap);
        }
        self.release_name(ended_group);
        was_there
    }

    /// Forgets a queue name whose last group has ended.
    fn release_name(&mut self, ended_group: Option<&[u8]>) {
        let Some(name) = ended_group else {
            return;
        };
        let hash = hash_of(name, &self.hasher);
        let interned = self.names.find_mut(hash, |there| there.is(hash, name));
        let interned = interned.expect("the name of every group is interned");
        interned.group_count -= 1;
        if interned.group_count == 0 {
            self.names.remove(hash, |there| there.is(hash, name));
            self.heap.shrink(shared_bytes(name));
        }
    }
}

impl<T: Copy + Eq + Hash> Default for Index<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Index<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("len", &self.len).finish_non_exhaustive()
    }
}

struct Removed<'a> {
    was_there: bool,
    /// The name of a queue group that has lost its last member at this pattern.
    ended_group: Option<&'a [u8]>,
}

fn remove_from<'a, T: Copy + Eq + Hash>(
    subs: &mut Subs<T>,
    queue: Option<&'a [u8]>,
    target: T,
    heap: &mut Heap,
) -> Removed<'a> {
    match queue {
        None => Removed { was_there: subs.remove_plain(target, heap), ended_group: None },
        Some(name) => match subs.remove_queue(name, target, heap) {
            Left::Nothing => Removed { was_there: false, ended_group: None },
            Left::Group => Removed { was_there: true, ended_group: None },
            Left::LastOfGroup => Removed { was_there: true, ended_group: Some(name) },
        },
    }
}

/// The shared copy of a queue name, for one more group.
fn intern(names: &mut Table<Name>, name: &[u8], hasher: &RandomState, heap: &mut Heap) -> Arc<[u8]> {
    let hash = hash_of(name, hasher);
    let interned = names.find_or_insert(
        hash,
        |there| there.is(hash, name),
        || {
            heap.grow(shared_bytes(name));
            Name { hash, name: name.into(), group_count: 0 }
        },
    );
    interned.group_count += 1;
    Arc::clone(&interned.name)
}

/// The size of a name behind an `Arc`, with its two counts.
fn shared_bytes(name: &[u8]) -> usize {
    2 * size_of::<usize>() + name.len()
}

impl<T> Literal<T> {
    fn is(&self, hash: u64, subject: &[u8]) -> bool {
        self.hash == hash && *self.subject == *subject
    }
}

impl<T> Hashed for Literal<T> {
    fn hash(&self) -> u64 {
        self.hash
    }
}

impl Name {
    fn is(&self, hash: u64, name: &[u8]) -> bool {
        self.hash == hash && *self.name == *name
    }
}

impl Hashed for Name {
    fn hash(&self) -> u64 {
        self.hash
    }
}
