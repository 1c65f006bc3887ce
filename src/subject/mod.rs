//! Subjects: their grammar, the matching rules, and the subscription [`Index`].
//!
//! A subject is a list of tokens separated by `.`. In a *pattern* (the subject of a subscription, a permission, a
//! stream) the token `*` stands for exactly one token and a last token `>` for one or more; inside longer tokens both
//! are ordinary bytes, so `foo*` and `foo.**` are literals. In a *published* subject nothing is special: `foo.*` is
//! delivered as the two tokens `foo` and `*`, and reaches `foo.*`, `foo.>` and `>`, but never `foo.bar`.
//!
//! Publishes are not validated on the wire. A published subject with an empty token (`foo..bar`, `.foo`, `foo.`)
//! matches nothing at all, not even `>`.
//!
//! The functions of this file are the definition: each is a short loop over tokens, cost linear in the subjects'
//! length, no allocation. [`Index`] gives the same answers for many patterns at once and is tested against them.

#![forbid(unsafe_code)]

pub(crate) mod arena;
mod index;
mod matched;
mod pattern_map;
pub(crate) mod table;
mod targets;
mod trie;

/// Whether two short byte strings, such as subjects and sids, are the same. For up to 16 bytes a few instructions, where
/// a call of `memcmp` with a length that is not known beforehand costs several times as much.
#[inline(always)]
pub fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        8..=16 => a.first_chunk::<8>() == b.first_chunk() && a.last_chunk::<8>() == b.last_chunk(),
        4..8 => a.first_chunk::<4>() == b.first_chunk() && a.last_chunk::<4>() == b.last_chunk(),
        1 => a[0] == b[0],
        _ => a == b,
    }
}

#[cfg(test)]
mod tests;

pub use index::Index;
pub use matched::{Matches, QueueMatch};
pub use pattern_map::PatternMap;

/// The byte between two tokens.
pub const SEPARATOR: u8 = b'.';
/// The token that stands for exactly one token of a published subject.
pub const ONE: &[u8] = b"*";
/// The last token that stands for one or more tokens of a published subject.
pub const REST: &[u8] = b">";

/// Whether `subject` may be subscribed to: no empty token, no blank or line break, and `>` as a whole token only at
/// the end.
///
/// All other bytes are allowed, as in the reference server: form feed, NUL and bytes that are not UTF-8 included.
pub fn is_valid_subscription(subject: &[u8]) -> bool {
    let mut rest_seen = false;
    for token in tokens(subject) {
        if token.is_empty() || rest_seen || token.iter().any(|byte| is_blank(*byte)) {
            return false;
        }
        rest_seen = token == REST;
    }
    true
}

/// Whether `subject` is valid and means only itself: what a pedantic client may publish to.
pub fn is_valid_literal(subject: &[u8]) -> bool {
    tokens(subject).all(|token| !token.is_empty() && !is_wildcard(token) && !token.iter().any(|byte| is_blank(*byte)))
}

/// Whether any token of the pattern `subject` is `*` or `>`.
pub fn has_wildcard(subject: &[u8]) -> bool {
    // The bytes are rare in subjects, so most calls end with this scan.
    memchr::memchr2(b'*', b'>', subject).is_some() && tokens(subject).any(is_wildcard)
}

/// The tokens of `subject`, empty ones included: the empty subject has one empty token.
pub fn tokens(subject: &[u8]) -> Tokens<'_> {
    Tokens { rest: Some(subject) }
}

/// Whether a message published to `literal` reaches a subscription to `pattern`. `pattern` is expected to be valid.
pub fn matches(pattern: &[u8], literal: &[u8]) -> bool {
    if tokens(literal).any(<[u8]>::is_empty) {
        return false;
    }
    let mut wanted = tokens(pattern);
    let mut given = tokens(literal);
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(REST), Some(_)) => return true,
            (Some(ONE), Some(_)) => {}
            // A published `*` or `>` is only a name, and equal to no literal token of a pattern.
            (Some(name), Some(token)) if name == token => {}
            _ => return false,
        }
    }
}

/// Whether every subject that `pattern` matches is also matched by `of_pattern`. Both are expected to be valid.
pub fn is_subset(pattern: &[u8], of_pattern: &[u8]) -> bool {
    let mut narrow = tokens(pattern);
    let mut wide = tokens(of_pattern);
    loop {
        match (narrow.next(), wide.next()) {
            (None, None) => return true,
            (Some(_), Some(REST)) => return true,
            (Some(REST), _) => return false,
            (Some(_), Some(ONE)) => {}
            (Some(name), Some(token)) if name == token => {}
            _ => return false,
        }
    }
}

/// Whether some subject is matched by both patterns. Both are expected to be valid.
pub fn overlaps(a: &[u8], b: &[u8]) -> bool {
    let mut left = tokens(a);
    let mut right = tokens(b);
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(REST), Some(_)) | (Some(_), Some(REST)) => return true,
            (Some(ONE), Some(_)) | (Some(_), Some(ONE)) => {}
            (Some(name), Some(token)) if name == token => {}
            _ => return false,
        }
    }
}

/// The pattern of what both patterns match, if there is anything.
#[must_use]
pub fn intersection(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let mut left = tokens(a);
    let mut right = tokens(b);
    let mut both: Vec<&[u8]> = Vec::new();
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Some(both.join(&b'.')),
            (Some(REST), Some(token)) => {
                both.push(token);
                both.extend(right.by_ref());
                return Some(both.join(&b'.'));
            }
            (Some(token), Some(REST)) => {
                both.push(token);
                both.extend(left.by_ref());
                return Some(both.join(&b'.'));
            }
            (Some(ONE), Some(token)) | (Some(token), Some(ONE)) => both.push(token),
            (Some(name), Some(token)) if name == token => both.push(name),
            _ => return None,
        }
    }
}

/// See [`tokens`].
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    /// What follows the last separator; `None` after the last token.
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        match memchr::memchr(SEPARATOR, rest) {
            Some(end) => {
                self.rest = Some(&rest[end + 1..]);
                Some(&rest[..end])
            }
            None => {
                self.rest = None;
                Some(rest)
            }
        }
    }
}

impl std::iter::FusedIterator for Tokens<'_> {}

fn is_wildcard(token: &[u8]) -> bool {
    token == ONE || token == REST
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
