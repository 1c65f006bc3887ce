//! The patterns with wildcards: a trie with one level per token.
//!
//! Nodes live in one arena and name each other by position. A child by token is found in one hash table for all
//! nodes, keyed by parent and token; the child for `*` hangs on its parent; subscriptions that end in `>` stand on
//! the node before it. So a node has no containers of its own and costs 64 bytes (with targets of 8), plus for a token
//! its bytes and about 25 for its table entry, whether it has one child or 100,000.
//!
//! Nothing recurses: a pattern of 2,000 tokens is 2,000 nodes and no deeper a call than `a.*`.
//!
//! Matching visits each node at most once. Where a node has both a child for the token and one for `*`, both are
//! visited, so a subject of k tokens visits at most 2^(k+1) nodes and never more than there are. That many need as
//! many subscribed patterns: an account can make its own publishes slow in proportion to its own subscriptions.
//!
//! Nodes without subscriptions and children are removed at once. Their places are reused, and the arena is given
//! back when the last pattern goes.

use std::hash::Hash;
use std::ops::ControlFlow;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::arena::Arena;
use super::table::{Hashed, Table, hash_of};
use super::targets::{Heap, Subs};
use super::{ONE, REST, SEPARATOR, tokens};

/// Tokens up to which matching a subject allocates nothing.
const TOKENS_INLINE: usize = 16;
/// An odd number without pattern, to mix hashes with.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

pub(super) struct Trie<T> {
    /// The root comes first; empty if there are no patterns.
    nodes: Arena<Node<T>>,
    edges: Table<Edge>,
    /// The first vacant node, whose `parent` is the next one; the root ends the list.
    vacant: NodeId,
}

/// Where the subscriptions to a pattern stand.
#[derive(Clone, Copy)]
pub(super) struct Place {
    node: NodeId,
    ends_with_rest: bool,
}

struct Node<T> {
    parent: NodeId,
    /// The child for `*`; the root, which is nobody's child, means none.
    star: NodeId,
    /// Children by token.
    named_count: u32,
    /// Empty for the root and for `*`.
    token: Box<[u8]>,
    /// Patterns that end at this node.
    here: Subs<T>,
    /// Patterns that end with `>` after this node.
    rest: Subs<T>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct NodeId(u32);

struct Edge {
    hash: u64,
    child: NodeId,
}

/// A token of a published subject.
struct Token<'a> {
    bytes: &'a [u8],
    hash: u64,
}

const ROOT: NodeId = NodeId(0);

impl<T: Copy + Eq + Hash> Trie<T> {
    pub(super) fn new() -> Self {
        Self { nodes: Arena::new(), edges: Table::new(), vacant: ROOT }
    }

    /// Bytes allocated for nodes and edges; tokens and targets are counted by [`Heap`].
    pub(super) fn heap_bytes(&self) -> usize {
        self.nodes.heap_bytes() + self.edges.heap_bytes()
    }

    /// Calls `visit` for all subscriptions that match `subject`, one pattern at a time, until it breaks.
    pub(super) fn walk(
        &self,
        subject: &[u8],
        hasher: &RandomState,
        mut visit: impl FnMut(&Subs<T>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if self.nodes.is_empty() {
            return ControlFlow::Continue(());
        }
        let mut path: SmallVec<[Token<'_>; TOKENS_INLINE]> = SmallVec::new();
        for bytes in tokens(subject) {
            if bytes.is_empty() {
                return ControlFlow::Continue(());
            }
            path.push(Token { bytes, hash: hash_of(bytes, hasher) });
        }
        // A branch to `*` waits here while the branch by name is followed: at most one per level.
        let mut waiting: SmallVec<[(NodeId, u32); TOKENS_INLINE]> = SmallVec::new();
        let (mut id, mut depth) = (ROOT, 0_u32);
        loop {
            #[cfg(test)]
            VISITED.set(VISITED.get() + 1);
            let node = &self.nodes[id.index()];
            let next = match path.get(depth as usize) {
                Some(token) => {
                    visit(&node.rest)?;
                    depth += 1;
                    match (self.named(id, node, token), node.star) {
                        (Some(named), ROOT) => Some(named),
                        (Some(named), star) => {
                            waiting.push((star, depth));
                            Some(named)
                        }
                        (None, ROOT) => None,
                        (None, star) => Some(star),
                    }
                }
                None => {
                    visit(&node.here)?;
                    None
                }
            };
            match next {
                Some(child) => id = child,
                None => match waiting.pop() {
                    Some(branch) => (id, depth) = branch,
                    None => return ControlFlow::Continue(()),
                },
            }
        }
    }

    pub(super) fn find(&self, pattern: &[u8], hasher: &RandomState) -> Option<Place> {
        if self.nodes.is_empty() {
            return None;
        }
        let mut id = ROOT;
        for bytes in tokens(pattern) {
            let node = &self.nodes[id.index()];
            match bytes {
                REST => {
                    return Some(Place { node: id, ends_with_rest: true });
                }
                ONE if node.star == ROOT => return None,
                ONE => id = node.star,
                _ => id = self.named(id, node, &Token { bytes, hash: hash_of(bytes, hasher) })?,
            }
        }
        Some(Place { node: id, ends_with_rest: false })
    }

    pub(super) fn find_or_insert(&mut self, pattern: &[u8], hasher: &RandomState, heap: &mut Heap) -> Place {
        if self.nodes.is_empty() {
            self.nodes.push(Node::new(ROOT, Box::default()));
        }
        let mut id = ROOT;
        for bytes in tokens(pattern) {
            id = match bytes {
                REST => {
                    return Place { node: id, ends_with_rest: true };
                }
                ONE => self.star_or_insert(id),
                _ => self.named_or_insert(id, bytes, hasher, heap),
            };
        }
        Place { node: id, ends_with_rest: false }
    }

    pub(super) fn subs_mut(&mut self, place: Place) -> &mut Subs<T> {
        let node = &mut self.nodes[place.node.index()];
        if place.ends_with_rest { &mut node.rest } else { &mut node.here }
    }

    /// Removes the node of `place` and those above it that have become useless.
    pub(super) fn prune(&mut self, place: Place, hasher: &RandomState, heap: &mut Heap) {
        let mut id = place.node;
        while self.nodes[id.index()].is_useless() {
            if id == ROOT {
                *self = Self::new();
                return;
            }
            let node = &mut self.nodes[id.index()];
            let token = std::mem::take(&mut node.token);
            let parent = std::mem::replace(&mut node.parent, self.vacant);
            self.vacant = id;
            heap.shrink(token.len());
            let above = &mut self.nodes[parent.index()];
            if above.star == id {
                above.star = ROOT;
            } else {
                above.named_count -= 1;
                let hash = edge_hash(parent, hash_of(&token, hasher));
                let edge = self.edges.remove(hash, |edge| edge.child == id);
                debug_assert!(edge.is_some(), "every named child has an edge");
            }
            id = parent;
        }
    }

    pub(super) fn for_each(&self, mut f: impl FnMut(&[u8], Option<&[u8]>, T)) {
        let mut pattern = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            // Also passes over the vacant nodes.
            if node.here.is_empty() && node.rest.is_empty() {
                continue;
            }
            self.write_path(NodeId::new(index), &mut pattern);
            node.here.for_each(|queue, target| f(&pattern, queue, target));
            if !pattern.is_empty() {
                pattern.push(SEPARATOR);
            }
            pattern.extend_from_slice(REST);
            node.rest.for_each(|queue, target| f(&pattern, queue, target));
        }
    }

    /// Writes the tokens from the root to `id`.
    fn write_path(&self, id: NodeId, pattern: &mut Vec<u8>) {
        let mut ids: SmallVec<[NodeId; TOKENS_INLINE]> = SmallVec::new();
        let mut next = id;
        while next != ROOT {
            ids.push(next);
            next = self.nodes[next.index()].parent;
        }
        pattern.clear();
        for (depth, id) in ids.iter().rev().enumerate() {
            if depth > 0 {
                pattern.push(SEPARATOR);
            }
            let node = &self.nodes[id.index()];
            let is_star = self.nodes[node.parent.index()].star == *id;
            pattern.extend_from_slice(if is_star { ONE } else { &node.token });
        }
    }

    fn named(&self, id: NodeId, node: &Node<T>, token: &Token<'_>) -> Option<NodeId> {
        if node.named_count == 0 {
            return None;
        }
        let hash = edge_hash(id, token.hash);
        let edge = self.edges.find(hash, |edge| edge.leads(hash, id, token.bytes, &self.nodes))?;
        Some(edge.child)
    }

    fn named_or_insert(&mut self, id: NodeId, bytes: &[u8], hasher: &RandomState, heap: &mut Heap) -> NodeId {
        let token = Token { bytes, hash: hash_of(bytes, hasher) };
        if let Some(child) = self.named(id, &self.nodes[id.index()], &token) {
            return child;
        }
        let child = self.add(Node::new(id, bytes.into()));
        heap.grow(bytes.len());
        self.nodes[id.index()].named_count += 1;
        let hash = edge_hash(id, token.hash);
        self.edges.find_or_insert(hash, |_| false, || Edge { hash, child });
        child
    }

    fn star_or_insert(&mut self, id: NodeId) -> NodeId {
        let star = self.nodes[id.index()].star;
        if star != ROOT {
            return star;
        }
        let child = self.add(Node::new(id, Box::default()));
        self.nodes[id.index()].star = child;
        child
    }

    fn add(&mut self, node: Node<T>) -> NodeId {
        let id = self.vacant;
        if id == ROOT {
            return NodeId::new(self.nodes.push(node));
        }
        self.vacant = self.nodes[id.index()].parent;
        self.nodes[id.index()] = node;
        id
    }
}

impl<T: Copy + Eq + Hash> Node<T> {
    fn new(parent: NodeId, token: Box<[u8]>) -> Self {
        Self { parent, star: ROOT, named_count: 0, token, here: Subs::None, rest: Subs::None }
    }

    fn is_useless(&self) -> bool {
        self.named_count == 0 && self.star == ROOT && self.here.is_empty() && self.rest.is_empty()
    }
}

impl NodeId {
    fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("memory ends before 4 billion nodes"))
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

impl Edge {
    /// Whether this is the edge from `parent` by the token `bytes`, whose hash is `hash`.
    fn leads<T>(&self, hash: u64, parent: NodeId, bytes: &[u8], nodes: &Arena<Node<T>>) -> bool {
        self.hash == hash && {
            let child = &nodes[self.child.index()];
            child.parent == parent && *child.token == *bytes
        }
    }
}

impl Hashed for Edge {
    fn hash(&self) -> u64 {
        self.hash
    }
}

/// The hash of a token below one parent, from the token's hash: a widening product folded to its own width.
fn edge_hash(parent: NodeId, token_hash: u64) -> u64 {
    let salted = token_hash ^ u64::from(parent.0).wrapping_mul(MIX);
    let product = u128::from(salted) * u128::from(MIX);
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
thread_local! {
    /// Nodes that look-ups of this thread have visited.
    static VISITED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The number of nodes that the look-ups of `f` visit.
#[cfg(test)]
pub(super) fn nodes_visited(f: impl FnOnce()) -> usize {
    let before = VISITED.get();
    f();
    VISITED.get() - before
}
