//! Names of channels.
#![forbid(unsafe_code)]

use crate::subject::{ONE, REST, tokens};

/// Whether a channel may be called so: tokens that are not empty, without `/`, `*` and `>`. Everything else may stand
/// in a name, blanks too, as in the reference.
#[must_use]
pub fn channel_name_is_valid(name: &str) -> bool {
    tokens(name.as_bytes()).all(is_name)
}

/// Whether settings may be given for what is written so: a valid name, but whole tokens may be `*`, and the last one
/// `>`.
#[must_use]
pub fn channel_pattern_is_valid(pattern: &str) -> bool {
    let mut rest_seen = false;
    tokens(pattern.as_bytes()).all(|token| {
        let may_follow = !rest_seen;
        rest_seen = token == REST;
        may_follow && (rest_seen || token == ONE || is_name(token))
    })
}

fn is_name(token: &[u8]) -> bool {
    !token.is_empty() && memchr::memchr3(b'/', b'*', b'>', token).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns() {
        for name in ["a", "a.b.c", "a b", "\t", "a\0", "Ünï.cødé", "a-b_c", "$SYS", "a:b", "\\"] {
            assert!(channel_name_is_valid(name) && channel_pattern_is_valid(name), "{name}");
        }
        for pattern in ["*", ">", "a.*", "a.>", "*.b", "*.*.>", "a.*.b"] {
            assert!(!channel_name_is_valid(pattern) && channel_pattern_is_valid(pattern), "{pattern}");
        }
        for neither in [
            "", ".", ".a", "a.", "a..b", "/", "a/b", "a*", "*a", "a.b*", ">a", "a>", "a.>.b", ">.>", "**", "a.**", "*.",
        ] {
            assert!(!channel_name_is_valid(neither) && !channel_pattern_is_valid(neither), "{neither}");
        }
    }
}
