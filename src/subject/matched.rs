//! The result of a match: who gets the message.
//!
//! A [`Matches`] is reused from message to message and then allocates nothing: clearing it keeps the lists, those of
//! queue members included.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Groups up to which a name is searched instead of hashed.
const SCAN_MAX: usize = 16;

/// Everything that matches a subject. The order of targets, groups and members means nothing.
#[derive(Debug)]
pub struct Matches<T> {
    /// One entry per matching plain subscription.
    pub plain: Vec<T>,
    /// One entry per distinct queue name, never without members. To be read; [`Matches::clear`] empties it.
    pub queues: Vec<QueueMatch<T>>,
    /// Empty lists for the members of later groups.
    spare: Vec<Vec<T>>,
    /// Positions in `queues` by name, of the first `indexed` groups. Used only when there are many.
    by_name: HashTable<u32>,
    indexed: usize,
    hasher: RandomState,
}

/// The members of one queue group, collected from all matching patterns: one of them gets the message.
#[derive(Debug)]
pub struct QueueMatch<T> {
    /// The group's name.
    pub name: Arc<[u8]>,
    /// One entry per matching subscription of the group.
    pub members: Vec<T>,
}

impl<T> Matches<T> {
    /// An empty result, which owns no memory.
    pub fn new() -> Self {
        Self {
            plain: Vec::new(),
            queues: Vec::new(),
            spare: Vec::new(),
            by_name: HashTable::new(),
            indexed: 0,
            hasher: RandomState::default(),
        }
    }

    /// Whether nobody gets the message.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.queues.is_empty()
    }

    /// Empties the result for the next match and keeps the memory.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.spare.extend(self.queues.drain(..).map(|mut queue| {
            queue.members.clear();
            queue.members
        }));
        if self.indexed > 0 {
            self.by_name.clear();
            self.indexed = 0;
        }
    }

    /// The members of the group `name`. The names that one pattern contributes are distinct, so only the first
    /// `earlier` groups, from patterns before it, may be the same group.
    pub(super) fn members_mut(&mut self, name: &Arc<[u8]>, earlier: usize) -> &mut Vec<T> {
        let index = match self.position(name, earlier) {
            Some(index) => index,
            None => {
                let members = self.spare.pop().unwrap_or_default();
                self.queues.push(QueueMatch { name: Arc::clone(name), members });
                self.queues.len() - 1
            }
        };
        &mut self.queues[index].members
    }

    fn position(&mut self, name: &Arc<[u8]>, earlier: usize) -> Option<usize> {
        if earlier <= SCAN_MAX {
            return self.queues[..earlier].iter().position(|queue| same(&queue.name, name));
        }
        let Self { queues, by_name, indexed, hasher, .. } = self;
        let hash = |index: &u32| hasher.hash_one(&*queues[*index as usize].name);
        for index in *indexed..earlier {
            let index = u32::try_from(index).expect("fewer groups than subscriptions");
            by_name.insert_unique(hash(&index), index, hash);
        }
        *indexed = earlier.max(*indexed);
        by_name
            .find(hasher.hash_one(&**name), |index| same(&queues[*index as usize].name, name))
            .map(|index| *index as usize)
    }
}

impl<T> Default for Matches<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Names of one index are shared, so equal ones are mostly the same allocation.
fn same(a: &Arc<[u8]>, b: &Arc<[u8]>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
