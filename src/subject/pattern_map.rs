//! Values by the patterns that they belong to: made once, then asked with each published subject.

use smallvec::SmallVec;

use super::Index;

/// Values under patterns, in the order in which they were added. Any number of them may stand under one pattern.
///
/// A look-up costs what matches and the tokens of the subject, however many other patterns there are; see [`Index`].
#[derive(Debug)]
pub struct PatternMap<T> {
    values: Vec<T>,
    /// Positions in `values`.
    index: Index<u32>,
}

impl<T> PatternMap<T> {
    /// Adds a value. `pattern` must be valid, see [`super::is_valid_subscription`].
    ///
    /// # Panics
    /// If there are 2³² values already.
    pub fn push(&mut self, pattern: &[u8], value: T) {
        let position = u32::try_from(self.values.len()).expect("fewer values than 2^32");
        self.index.insert(pattern, None, position);
        self.values.push(value);
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values whose pattern matches a published subject, in the order in which they were added.
    #[must_use]
    pub fn matching(&self, subject: &[u8]) -> SmallVec<[&T; 2]> {
        let mut positions: SmallVec<[u32; 2]> = SmallVec::new();
        self.index.visit(subject, |position| positions.push(position));
        positions.sort_unstable();
        positions.iter().map(|position| &self.values[*position as usize]).collect()
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }
}

impl<T> Default for PatternMap<T> {
    fn default() -> Self {
        Self { values: Vec::new(), index: Index::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::trie::nodes_visited;

    #[test]
    fn values_come_in_the_order_of_their_addition() {
        let mut map = PatternMap::default();
        assert!(map.is_empty() && map.matching(b"a.b").is_empty());
        for (pattern, value) in [("a.>", 1), ("a.b", 2), ("b", 3), ("*.b", 4), ("a.b", 5)] {
            map.push(pattern.as_bytes(), value);
        }
        assert_eq!(map.matching(b"a.b").to_vec(), [&1, &2, &4, &5]);
        assert_eq!(map.matching(b"b").to_vec(), [&3]);
        assert!(map.matching(b"c.c").is_empty() && map.matching(b"a..b").is_empty());
        assert_eq!(map.values().count(), 5);
    }

    /// What a look-up does depends on the subject, not on the number of patterns.
    #[test]
    fn other_patterns_cost_nothing() {
        let visited = |count: usize, subject: &str| {
            let mut map = PatternMap::default();
            for n in 0..count {
                map.push(format!("m.{n}.*").as_bytes(), n);
                map.push(format!("l.{n}").as_bytes(), n);
            }
            nodes_visited(|| assert_eq!(map.matching(subject.as_bytes()).len(), usize::from(subject != "z.1")))
        };
        for subject in ["m.1.x", "l.1", "z.1"] {
            let (few, many) = (visited(2, subject), visited(3_000, subject));
            assert!(few == many && many <= 4, "{subject}: {few} and {many} nodes");
        }
    }
}
