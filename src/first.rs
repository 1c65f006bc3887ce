//! Lists of which there are many, and most of them with one element.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

/// A list that grows as usual, but for its first element.
pub(crate) trait First {
    /// Makes room for one element, and no more, if there is room for none: by itself a list begins with room for four.
    fn reserve_first(&mut self);
}

impl<T> First for Vec<T> {
    fn reserve_first(&mut self) {
        if self.capacity() == 0 {
            self.reserve_exact(1);
        }
    }
}

impl<T> First for VecDeque<T> {
    fn reserve_first(&mut self) {
        if self.capacity() == 0 {
            self.reserve_exact(1);
        }
    }
}
