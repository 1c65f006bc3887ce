//! JSON documents of clients, read as the reference server's decoder reads them.
//!
//! That decoder is laxer than `serde_json` in what it takes as text and as numbers, and it gives meaning to the order of
//! members: each is applied when it is met, so a name that comes twice, perhaps in another letter case, counts with its
//! last value, and a wrong type is an error wherever it stands.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in the order in which they stand, values not yet looked into.
#[derive(Debug)]
pub(super) struct Members(pub(super) Vec<(String, Box<RawValue>)>);

/// Reads an object, or `null`, which stands for one without members.
pub(super) fn members(json: &[u8]) -> Result<Members, serde_json::Error> {
    let text = String::from_utf8_lossy(json);
    let document: Option<Members> = serde_json::from_str(&without_lone_surrogates(&text))?;
    Ok(document.unwrap_or(Members(Vec::new())))
}

/// A member's name as it is compared: letter case does not matter, nor do the two letters outside of ASCII that fold to
/// one inside.
pub(super) fn folded(name: &str) -> String {
    let fold = |c: char| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(fold).collect()
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// Escapes of half a surrogate pair stand for the replacement character.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let mut mended = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = text[at..].find('\\') {
        at += found;
        let (is_lone, escape_bytes) = match (unit(&text[at..]), text[at..].get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (false, 12),
            (Some(0xd800..=0xdfff), _) => (true, 6),
            (Some(_), _) => (false, 6),
            // A backslash and what it escapes, whose bytes may be the first ones of a longer character.
            (None, _) => (false, 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8)),
        };
        if is_lone {
            mended.push_str(&text[copied..at]);
            mended.push_str("\\ufffd");
            copied = at + escape_bytes;
        }
        at += escape_bytes;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    mended.push_str(&text[copied..]);
    Cow::Owned(mended)
}

/// The UTF-16 unit of a `\uXXXX` at the start of `text`.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_hex { u16::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_surrogate_pairs_are_replaced() {
        let cases = [
            (r#"{"a":"x"}"#, r#"{"a":"x"}"#),
            (r"\ud83d\ude00", r"\ud83d\ude00"),
            (r"\ud800", r"\ufffd"),
            (r"\udc00x\uD800", r"\ufffdx\ufffd"),
            (r"\ud800\ud83d\ude00", r"\ufffd\ud83d\ude00"),
            (r"\ud800\u0041", r"\ufffd\u0041"),
            (r"\\ud800", r"\\ud800"),
            (r"\\\ud800", r"\\\ufffd"),
            (r"\é\ud800", r"\é\ufffd"),
            (r"\ud8", r"\ud8"),
            (r"\u+800", r"\u+800"),
            ("\\", "\\"),
        ];
        for (text, mended) in cases {
            assert_eq!(without_lone_surrogates(text), mended, "{text}");
        }
    }
}
