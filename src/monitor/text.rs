//! Times and durations as monitoring shows them.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// RFC 3339 in UTC with as many fractional digits as are needed, like Go's `RFC3339Nano`.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    let nanos = format!(".{:09}", time.nanosecond());
    text.push_str(nanos.trim_end_matches('0').trim_end_matches('.'));
    text.push('Z');
    text
}

/// Time from `earlier` to `later` such as `1y2d3h4m5s`, beginning with the largest unit that is not zero.
pub(super) fn elapsed(later: SystemTime, earlier: SystemTime) -> String {
    let seconds = between(later, earlier).as_secs();
    let units = [
        (seconds / YEAR, 'y'),
        (seconds % YEAR / DAY, 'd'),
        (seconds % DAY / HOUR, 'h'),
        (seconds % HOUR / MINUTE, 'm'),
    ];
    let mut text = String::new();
    for (count, unit) in units.iter().skip_while(|(count, _)| *count == 0) {
        text.push_str(&count.to_string());
        text.push(*unit);
    }
    text.push_str(&(seconds % MINUTE).to_string());
    text.push('s');
    text
}

/// `later - earlier`, zero if the clock was set back between the two.
pub(super) fn between(later: SystemTime, earlier: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    #[test]
    fn timestamps() {
        let cases = [
            (1_795_486_318_224_943_880, "2026-11-24T02:11:58.22494388Z"),
            (1_795_486_318_000_000_000, "2026-11-24T02:11:58Z"),
            (1_795_486_318_000_000_001, "2026-11-24T02:11:58.000000001Z"),
            (0, "1970-01-01T00:00:00Z"),
        ];
        for (nanos, text) in cases {
            assert_eq!(timestamp(at(nanos)), text);
        }
    }

    /// Leading zero units are left out, inner ones are shown, as the reference does after eight minutes: `8m0s`.
    #[test]
    fn elapsed_times() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (480, "8m0s"),
            (HOUR + 5, "1h0m5s"),
            (DAY, "1d0h0m0s"),
            (YEAR + 2 * DAY + 3 * HOUR + 4 * MINUTE + 5, "1y2d3h4m5s"),
        ];
        for (seconds, text) in cases {
            assert_eq!(elapsed(at(seconds * 1_000_000_000 + 999), at(0)), text);
        }
        assert_eq!(elapsed(at(0), at(5_000_000_000)), "0s");
    }
}
