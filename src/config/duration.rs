//! Durations as Go writes them: `1.5s`, `300ms`, `2h45m`.
//!
//! The same notation appears on the command line, in configuration files, in log lines and in monitoring answers, so
//! that both directions live here.
#![forbid(unsafe_code)]

use std::time::Duration;

const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
];

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Reads a duration in Go's notation; a bare number means seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let nanos = if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        scaled(text, NANOS_PER_SECOND)
    } else {
        sum_of_terms(text)
    };
    nanos.map(Duration::from_nanos).ok_or_else(|| "not a duration such as 300ms, 1.5s or 2m".to_owned())
}

/// Writes a duration as Go's `Duration.String` does.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let (unit, suffix) = match nanos {
        0..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => return format_seconds(nanos),
    };
    format!("{}{suffix}", decimal(nanos, unit))
}

fn sum_of_terms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(unit_at);
        let next_at = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (name, next) = tail.split_at(next_at);
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        total = total.checked_add(scaled(number, *unit)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

/// `number` (digits with at most one point) times `unit`, in whole nanoseconds, without going through floats.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        nanos = nanos.checked_add(place * u64::from(digit - b'0'))?;
    }
    Some(nanos)
}

fn format_seconds(nanos: u128) -> String {
    const MINUTE: u128 = 60 * NANOS_PER_SECOND as u128;
    let minutes = nanos / MINUTE;
    let seconds = decimal(nanos % MINUTE, u128::from(NANOS_PER_SECOND));
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(nanos: u128, unit: u128) -> String {
    let width = unit.ilog10() as usize;
    let (whole, fraction) = (nanos / unit, nanos % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::{format, parse};
    use std::time::Duration;

    /// What operators write is read to the nanosecond, and what is not a duration is refused.
    #[test]
    fn parses_go_notation() {
        let cases: &[(&str, Option<u64>)] = &[
            ("2", Some(2_000_000_000)),
            ("0.5", Some(500_000_000)),
            ("300ms", Some(300_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("2m", Some(120_000_000_000)),
            ("2h45m", Some(9_900_000_000_000)),
            ("1h0m0.25s", Some(3_600_250_000_000)),
            ("7us", Some(7_000)),
            ("7µs", Some(7_000)),
            (".5s", Some(500_000_000)),
            ("0", Some(0)),
            ("", None),
            (".", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("s", None),
            ("5 s", None),
            ("5x", None),
            ("99999999999999999999s", None),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse(text).ok(), nanos.map(Duration::from_nanos), "{text:?}");
        }
    }

    /// Log lines and monitoring show the same text as the reference.
    #[test]
    fn formats_like_go() {
        let cases: &[(u64, &str)] = &[
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (3_366_350, "3.36635ms"),
            (2_000_000, "2ms"),
            (1_000_000_000, "1s"),
            (31_000_000_000, "31s"),
            (120_000_000_000, "2m0s"),
            (61_500_000_000, "1m1.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(format(Duration::from_nanos(*nanos)), *text);
        }
    }
}
