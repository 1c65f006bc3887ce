//! Equal values that many things have, once in memory.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

/// Unused values that are kept at least, before the first sweep.
const SWEEP_AT_LEAST: usize = 32;

/// Gives out equal values as one.
///
/// Values that are in use nowhere else go now and then: there are never more than twice as many as are in use, or a few.
pub(crate) struct Interner<T> {
    values: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T> fmt::Debug for Interner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.values.len())
    }
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), sweep_at: SWEEP_AT_LEAST }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// The one of that value.
    pub(crate) fn share(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.values.get(&value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.values.shrink_to(SWEEP_AT_LEAST);
            self.sweep_at = (self.values.len() * 2).max(SWEEP_AT_LEAST);
        }
        let value = Arc::new(value);
        self.values.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one() {
        let mut interner = Interner::default();
        let (one, other) = (interner.share("a".to_owned()), interner.share("b".to_owned()));
        assert!(Arc::ptr_eq(&one, &interner.share("a".to_owned())));
        assert!(!Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn unused_values_go() {
        let mut interner = Interner::default();
        let used = interner.share(0);
        for value in 1..10_000 {
            interner.share(value);
        }
        assert!(interner.values.len() <= SWEEP_AT_LEAST);
        assert!(Arc::ptr_eq(&used, &interner.share(0)));
    }
}
