//! Subjects in the order of their texts: a crit-bit tree over subject numbers.
//!
//! It holds no texts, only at which bit two neighbours part: 12 bytes per subject. It finds all subjects with a literal
//! prefix without looking at the others, and in order.
//!
//! A text is read as nine bits per byte, the first of which says that there is a byte at all. So a text comes before
//! its own continuations.

use crate::subject::arena::Arena;

/// A subject's number has this bit when it stands where a node could.
const LEAF: u32 = 1 << 31;
const NOTHING: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    /// Where the two sides part. Grows from the root downwards.
    bit: u32,
    /// Nodes or leaves: those with a zero there, those with a one. In a free node the first is the next free one.
    sides: [u32; 2],
}

pub(super) struct Order {
    nodes: Arena<Node>,
    root: u32,
    free: u32,
}

impl Order {
    pub(super) fn new() -> Self {
        Self { nodes: Arena::new(), root: NOTHING, free: NOTHING }
    }

    /// Adds a subject that is not there. `text_of` gives the texts of those that are.
    pub(super) fn insert<'t>(&mut self, id: u32, text: &[u8], text_of: impl Fn(u32) -> &'t [u8]) {
        if self.root == NOTHING {
            self.root = id | LEAF;
            return;
        }
        let mut near = self.root;
        while near & LEAF == 0 {
            let node = self.nodes[near as usize];
            near = node.sides[bit_of(text, node.bit)];
        }
        let bit = parting(text, text_of(near & !LEAF));
        let side = bit_of(text, bit);

        // The new node goes above the first one that parts later.
        let (mut above, mut at) = (None, self.root);
        while at & LEAF == 0 && self.nodes[at as usize].bit < bit {
            let node = self.nodes[at as usize];
            let side = bit_of(text, node.bit);
            above = Some((at, side));
            at = node.sides[side];
        }
        let mut sides = [at; 2];
        sides[side] = id | LEAF;
        let new = self.allocate(Node { bit, sides });
        self.link(above, new);
    }

    /// Removes a subject that is there.
    pub(super) fn remove(&mut self, text: &[u8]) {
        let (mut above, mut parent, mut at) = (None, None, self.root);
        while at & LEAF == 0 {
            let side = bit_of(text, self.nodes[at as usize].bit);
            above = parent;
            parent = Some((at, side));
            at = self.nodes[at as usize].sides[side];
        }
        let Some((node, side)) = parent else {
            *self = Self::new();
            return;
        };
        let other = self.nodes[node as usize].sides[1 - side];
        self.link(above, other);
        self.nodes[node as usize].sides[0] = self.free;
        self.free = node;
    }

    /// Visits all subjects that begin with `prefix`, in order, until `each` says `false`.
    pub(super) fn visit<'t>(
        &self,
        prefix: &[u8],
        text_of: impl Fn(u32) -> &'t [u8],
        mut each: impl FnMut(u32) -> bool,
    ) {
        if self.root == NOTHING {
            return;
        }
        let mut at = self.root;
        while at & LEAF == 0 && self.nodes[at as usize].bit < prefix.len() as u32 * 9 {
            let node = self.nodes[at as usize];
            at = node.sides[bit_of(prefix, node.bit)];
        }
        // Only bits at which subjects part were compared: one text tells about all below.
        let mut any = at;
        while any & LEAF == 0 {
            any = self.nodes[any as usize].sides[0];
        }
        if !text_of(any & !LEAF).starts_with(prefix) {
            return;
        }
        let mut open = vec![at];
        while let Some(at) = open.pop() {
            if at & LEAF != 0 {
                if !each(at & !LEAF) {
                    return;
                }
            } else {
                let [zeros, ones] = self.nodes[at as usize].sides;
                open.extend([ones, zeros]);
            }
        }
    }

    fn link(&mut self, above: Option<(u32, usize)>, to: u32) {
        match above {
            Some((node, side)) => self.nodes[node as usize].sides[side] = to,
            None => self.root = to,
        }
    }

    fn allocate(&mut self, node: Node) -> u32 {
        if self.free == NOTHING {
            return self.nodes.push(node) as u32;
        }
        let at = self.free;
        self.free = self.nodes[at as usize].sides[0];
        self.nodes[at as usize] = node;
        at
    }
}

fn bit_of(text: &[u8], bit: u32) -> usize {
    match (text.get((bit / 9) as usize), bit % 9) {
        (None, _) => 0,
        (Some(_), 0) => 1,
        (Some(byte), nth) => usize::from(byte >> (8 - nth) & 1),
    }
}

/// The first bit in which two different texts differ.
fn parting(a: &[u8], b: &[u8]) -> u32 {
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let within = match (a.get(common), b.get(common)) {
        (Some(x), Some(y)) => 1 + (x ^ y).leading_zeros(),
        _ => 0,
    };
    common as u32 * 9 + within
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn visits_like_a_sorted_map(
            words in prop::collection::vec("[ab.\u{0}é]{0,6}", 1..80),
            removals in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
            prefix in "[ab.]{0,3}",
        ) {
            let text_of = |id: u32| words[id as usize].as_bytes();
            let (mut order, mut model) = (Order::new(), BTreeMap::new());
            for round in 0..2 {
                for (id, word) in words.iter().enumerate() {
                    if !model.contains_key(word.as_bytes()) {
                        model.insert(word.as_bytes(), id as u32);
                        order.insert(id as u32, word.as_bytes(), text_of);
                    }
                }
                let mut seen = Vec::new();
                order.visit(prefix.as_bytes(), text_of, |id| { seen.push(id); true });
                let expected: Vec<u32> =
                    model.iter().filter(|(text, _)| text.starts_with(prefix.as_bytes())).map(|(_, id)| *id).collect();
                prop_assert_eq!(seen, expected, "round {}", round);
                for removal in &removals {
                    let word = words[removal.index(words.len())].as_bytes();
                    if model.remove(word).is_some() {
                        order.remove(word);
                    }
                }
                let mut seen = Vec::new();
                order.visit(b"", text_of, |id| { seen.push(id); true });
                prop_assert_eq!(seen, model.values().copied().collect::<Vec<_>>());
            }
        }
    }
}
