//! How things are named and written for people and machines.

use data_encoding::BASE64;
use serde::Serialize;

use crate::log::{Position, Time};
use crate::streaming;

/// Bytes as text where they are text, else in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// `text` (UTF-8) or `base64`.
    pub encoding: &'static str,
    /// The bytes, written so.
    pub data: String,
}

impl Bytes {
    /// Writes bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { encoding: "text", data: text.to_owned() },
            Err(_) => Self { encoding: "base64", data: BASE64.encode(bytes) },
        }
    }
}

/// RFC 3339, in UTC, with nine digits of a second.
#[must_use]
pub fn time(time: Time) -> String {
    match jiff::Timestamp::from_nanosecond(time.into()) {
        Ok(timestamp) => format!("{timestamp:.9}"),
        // Nanoseconds in 64 bits do not reach beyond the calendar.
        Err(_) => time.to_string(),
    }
}

/// What a face calls its stream or consumer, as far as that can be told from what it has stored with it: the whole of
/// it if it is a line of text, or the member `name` of a JSON object, or the name of a channel of NATS Streaming.
#[must_use]
pub fn name(meta: &[u8]) -> Option<String> {
    if let Some(channel) = streaming::channel_of(meta) {
        return Some(channel);
    }
    let text = std::str::from_utf8(meta).ok()?;
    if let Ok(serde_json::Value::Object(members)) = serde_json::from_str(text) {
        return members.get("name")?.as_str().map(str::to_owned);
    }
    let is_name = !text.is_empty() && !text.chars().any(char::is_control);
    is_name.then(|| text.to_owned())
}

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The segment.
    pub segment: u32,
    /// Bytes from its beginning.
    pub offset: u32,
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        Self { segment: position.segment().0, offset: position.offset() }
    }
}

/// Sequence numbers as ranges.
#[must_use]
pub fn ranges(ranges: &[std::ops::RangeInclusive<u64>]) -> String {
    const SHOWN: usize = 16;
    let text = |range: &std::ops::RangeInclusive<u64>| match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    };
    let mut shown = ranges.iter().take(SHOWN).map(text).collect::<Vec<_>>();
    if ranges.len() > SHOWN {
        shown.push(format!("and {} ranges more", ranges.len() - SHOWN));
    }
    shown.join(", ")
}

/// Adds a number behind all others.
pub fn push(ranges: &mut Vec<std::ops::RangeInclusive<u64>>, seq: u64) {
    match ranges.last_mut() {
        Some(last) if *last.end() + 1 == seq => *last = *last.start()..=seq,
        _ => ranges.push(seq..=seq),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_lines_and_from_json() {
        assert_eq!(name(b"ORDERS").as_deref(), Some("ORDERS"));
        assert_eq!(name(b"stan\0\x0a\x03a b").as_deref(), Some("a b"));
        assert_eq!(name(br#"{"max_age":1,"name":"ORDERS"}"#).as_deref(), Some("ORDERS"));
        for nameless in [&b""[..], b"{}", br#"{"name":1}"#, b"\x01ORDERS", b"\xff\xfe"] {
            assert_eq!(name(nameless), None, "{nameless:?}");
        }
    }

    #[test]
    fn times_have_all_their_digits() {
        assert_eq!(time(1_700_000_000_000_000_001), "2023-11-14T22:13:20.000000001Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(time(i64::MAX), "2262-04-11T23:47:16.854775807Z");
    }

    #[test]
    fn numbers_are_told_as_ranges() {
        let mut all = Vec::new();
        for seq in [1, 2, 3, 5, 7, 8] {
            push(&mut all, seq);
        }
        assert_eq!(ranges(&all), "1-3, 5, 7-8");
        let many = (0..40).map(|n| n * 2..=n * 2).collect::<Vec<_>>();
        assert!(ranges(&many).ends_with("30, and 24 ranges more"));
    }
}
