//! From where and when a user may be connected.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::SystemTime;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, ZonedDateTime};

use crate::jwt::claims::TimeRange;

/// Whether `ip` is in one of the networks, in CIDR notation; also if there are none.
///
/// # Errors
/// When one of them is no network.
pub(super) fn is_among(ip: IpAddr, networks: &[String]) -> Result<bool, &'static str> {
    let ip = ip.to_canonical();
    let networks = networks.iter().map(|text| network(text).ok_or("a network of the user cannot be read"));
    let networks = networks.collect::<Result<Vec<_>, _>>()?;
    Ok(networks.is_empty() || networks.iter().any(|(base, bits)| is_in(ip, *base, *bits)))
}

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (base, bits) = text.split_once('/')?;
    let (base, bits): (IpAddr, u32) = (base.parse().ok()?, bits.parse().ok()?);
    (bits <= if base.is_ipv4() { u32::from(32_u8) } else { 128 }).then_some((base, bits))
}

fn is_in(ip: IpAddr, base: IpAddr, bits: u32) -> bool {
    let differ = match (ip, base) {
        (IpAddr::V4(ip), IpAddr::V4(base)) => (ip.to_bits() ^ base.to_bits()).leading_zeros(),
        (IpAddr::V6(ip), IpAddr::V6(base)) => (ip.to_bits() ^ base.to_bits()).leading_zeros(),
        _ => return false,
    };
    differ >= bits
}

/// The end of the part of the day that `now` is in, by the clock of `location`, an IANA time zone, or of the server if
/// that is empty. `None` if all times are allowed.
///
/// # Errors
/// When `now` is in none of the parts, or they cannot be read.
pub(super) fn allowed_until(
    ranges: &[TimeRange],
    location: &str,
    now: SystemTime,
) -> Result<Option<SystemTime>, &'static str> {
    if ranges.is_empty() {
        return Ok(None);
    }
    let zone = if location.is_empty() {
        TimeZone::try_system().map_err(|_| "the time zone of the server cannot be found out")?
    } else {
        TimeZone::get(location).map_err(|_| "the time zone of the user is not known")?
    };
    let now = Timestamp::try_from(now).map_err(|_| "the time is out of range")?.to_zoned_datetime(zone);
    for range in ranges {
        let (start, end) = (time_of_day(&range.start)?, time_of_day(&range.end)?);
        if let Some(end) = end_of_range(&now, start, end) {
            return SystemTime::try_from(end.timestamp()).map(Some).map_err(|_| "the time is out of range");
        }
    }
    Err("the user may not be connected at this time")
}

fn time_of_day(text: &str) -> Result<Time, &'static str> {
    Time::strptime("%H:%M:%S", text).map_err(|_| "a time of the user cannot be read")
}

/// The end of a part of the day, or of one that goes on past midnight, if `now` is in it.
fn end_of_range(now: &ZonedDateTime, start: Time, end: Time) -> Option<ZonedDateTime> {
    let at = |time: Time, days: i64| -> Option<ZonedDateTime> {
        let date = now.date().checked_add(days.days()).ok()?;
        date.to_datetime(time).to_zoned_datetime(now.time_zone().clone()).ok()
    };
    let candidates = if start <= end { vec![(0, 0)] } else { vec![(-1, 0), (0, 1)] };
    candidates.into_iter().find_map(|(first, last)| {
        let (start, end) = (at(start, first)?, at(end, last)?);
        (start <= *now && *now < end).then_some(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let among = |ip: &str, list: &[&str]| {
            is_among(ip.parse().unwrap(), &list.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(among("10.1.2.3", &[]), Ok(true));
        for (ip, network, expected) in [
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("10.1.2.3", "10.1.2.3/32", true),
            ("10.1.2.4", "10.1.2.3/32", false),
            ("10.1.2.3", "10.1.2.99/24", true),
            ("1.1.1.1", "0.0.0.0/0", true),
            ("::1", "0.0.0.0/0", false),
            ("::ffff:10.1.2.3", "10.0.0.0/8", true),
            ("2001:db8::1", "2001:db8::/32", true),
            ("2001:db9::1", "2001:db8::/32", false),
        ] {
            assert_eq!(among(ip, &[network]), Ok(expected), "{ip} {network}");
        }
        for wrong in ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "x/8", ""] {
            assert!(among("10.0.0.1", &["10.0.0.0/8", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn parts_of_the_day() {
        let range = |start: &str, end: &str| TimeRange { start: start.into(), end: end.into() };
        let until = |now: &str, ranges: &[TimeRange], zone: &str| {
            let now = SystemTime::try_from(now.parse::<Timestamp>().unwrap()).unwrap();
            let end = allowed_until(ranges, zone, now)?;
            Ok::<_, &str>(end.map(|end| Timestamp::try_from(end).unwrap().to_string()))
        };
        let day = [range("08:00:00", "12:00:00"), range("13:00:00", "17:30:00")];
        let night = [range("22:00:00", "06:00:00")];
        let text = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(until("2026-03-01T03:00:00Z", &[], "No/Where"), Ok(None));
        assert_eq!(until("2026-03-01T08:00:00Z", &day, "UTC"), text("2026-03-01T12:00:00Z"));
        assert!(until("2026-03-01T12:00:00Z", &day, "UTC").is_err());
        assert_eq!(until("2026-03-01T16:29:59Z", &day, "Europe/Berlin"), text("2026-03-01T16:30:00Z"));
        assert!(until("2026-03-01T16:30:00Z", &day, "Europe/Berlin").is_err());
        assert_eq!(until("2026-03-01T23:00:00Z", &night, "UTC"), text("2026-03-02T06:00:00Z"));
        assert_eq!(until("2026-03-01T02:00:00Z", &night, "UTC"), text("2026-03-01T06:00:00Z"));
        assert!(until("2026-03-01T12:00:00Z", &night, "UTC").is_err());
        assert!(until("2026-03-01T09:00:00Z", &day, "No/Where").is_err());
        for wrong in [range("x", "12:00:00"), range("08:00:00", ""), range("25:00:00", "26:00:00")] {
            assert!(until("2026-03-01T09:00:00Z", &[wrong], "UTC").is_err());
        }
    }
}
