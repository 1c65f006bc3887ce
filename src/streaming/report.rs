//! What an operator reads of the settings at the start, in the reference's words.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::time::Duration;

use super::{ChannelLimits, Options, StoreLimits, StoreType};
use crate::subject;

/// The subjects of the service, for those who debug.
pub(super) fn subjects(options: &Options) -> [String; 6] {
    let id = &options.cluster_id;
    [
        format!("Discover subject:           {}.{id}", options.discover_prefix),
        match options.partitioning {
            false => format!("Publish subject:            _STAN.pub.{id}.>"),
            true => format!("Publish subjects root:      _STAN.pub.{id}"),
        },
        format!("Subscribe subject:          _STAN.sub.{id}"),
        format!("Subscription Close subject: _STAN.subclose.{id}"),
        format!("Unsubscribe subject:        _STAN.unsub.{id}"),
        format!("Close subject:              _STAN.close.{id}"),
    ]
}

/// Where things are kept.
pub(super) fn store(options: &Options) -> Vec<String> {
    let mut lines = vec![format!("Message store is {}", options.store)];
    if options.store == StoreType::File {
        lines.push(format!("Store location: {}", options.directory().display()));
    }
    lines
}

/// The limits: those of all channels, with a star at the defaults, and what is different for some.
pub(super) fn limits(limits: &StoreLimits) -> Vec<String> {
    let title = "---------- Store Limits ----------";
    let defaults = StoreLimits::default();
    let starred = |text: String, is_default: bool| format!("{text:>13}{}", if is_default { " *" } else { "" });
    let is_default = limits.max_channels == defaults.max_channels;
    let mut lines = vec![
        title.to_owned(),
        format!("Channels:        {}", starred(count(limits.max_channels), is_default)),
        "--------- Channels Limits --------".to_owned(),
    ];
    let names = ["Subscriptions:", "Messages     :", "Bytes        :", "Age          :", "Inactivity   :"];
    let values = values(&limits.of_all).into_iter().zip(values(&defaults.of_all));
    lines.extend(names.iter().zip(values).map(|(name, (value, default))| {
        let is_default = value == default;
        format!("  {name} {}", starred(value, is_default))
    }));
    let of_channels = of_channels(limits);
    let width = of_channels.iter().map(String::len).max().unwrap_or(0).max(title.len());
    if !of_channels.is_empty() {
        let title = " List of Channels ";
        let dashes = width - title.len();
        lines.push(format!("{}{title}{}", "-".repeat(dashes / 2), "-".repeat(dashes - dashes / 2)));
        lines.extend(of_channels);
    }
    lines.push("-".repeat(width));
    lines
}

/// Each name or pattern, and what is different from the next wider one.
fn of_channels(limits: &StoreLimits) -> Vec<String> {
    let widest_first = limits.overrides.patterns().collect::<Vec<_>>();
    let levels = widest_first.iter().map(|pattern| subject::tokens(pattern.as_bytes()).count()).max().unwrap_or(0);
    let resolved = limits.resolved().collect::<Vec<_>>();
    let names = ["Subscriptions ", "Messages      ", "Bytes         ", "Age           ", "Inactivity    "];
    let mut lines = Vec::new();
    for (position, pattern) in widest_first.iter().enumerate() {
        let wider = widest_first[..position].iter();
        let wider = wider.filter(|other| subject::matches(other.as_bytes(), pattern.as_bytes())).collect::<Vec<_>>();
        let of = |wanted: &str| resolved.iter().find(|(name, _)| *name == wanted).map_or(limits.of_all, |(_, of)| *of);
        let (own, parent) = (of(pattern), wider.last().map_or(limits.of_all, |wider| of(wider)));
        let (left, right) = (" ".repeat(wider.len()), " ".repeat(levels.saturating_sub(wider.len())));
        lines.push(format!("{left}{pattern}"));
        for (name, (value, parent)) in names.iter().zip(values(&own).into_iter().zip(values(&parent))) {
            if value != parent {
                lines.push(format!("{left} |-> {name}{right}{value:>13}"));
            }
        }
    }
    lines
}

/// Subscriptions, messages, bytes, age, inactivity.
fn values(limits: &ChannelLimits) -> [String; 5] {
    let ChannelLimits { max_subs, max_msgs, max_bytes, max_age, max_inactivity } = *limits;
    let bytes = if max_bytes == 0 { unlimited() } else { friendly_bytes(max_bytes) };
    [count(max_subs), count(max_msgs), bytes, time(max_age), time(max_inactivity)]
}

fn unlimited() -> String {
    "unlimited".to_owned()
}

fn count(limit: u64) -> String {
    if limit == 0 { unlimited() } else { limit.to_string() }
}

fn time(limit: Duration) -> String {
    if limit.is_zero() {
        return unlimited();
    }
    if limit < Duration::from_secs(1) {
        return format!("{limit:?}");
    }
    let (seconds, fraction) = (limit.as_secs(), limit.subsec_nanos());
    let mut text = String::new();
    if seconds >= 3600 {
        let _ = write!(text, "{}h", seconds / 3600);
    }
    if seconds >= 60 {
        let _ = write!(text, "{}m", seconds / 60 % 60);
    }
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:09}") };
    let _ = write!(text, "{}{}s", seconds % 60, fraction.trim_end_matches('0'));
    text
}

/// A number of bytes in the largest unit of which it has one.
pub(super) fn friendly_bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let exponent = bytes.ilog2() / 10;
    let unit = ["", "K", "M", "G", "T", "P", "E"][exponent as usize];
    format!("{:.2} {unit}B", bytes as f64 / 1024_f64.powi(exponent as i32))
}

#[cfg(test)]
mod tests {
    use super::super::{ChannelOverride, Overrides};
    use super::*;

    #[test]
    fn units() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KB"), (1_024_000_000, "976.56 MB"), (u64::MAX, "16.00 EB")]
        {
            assert_eq!(friendly_bytes(bytes), text);
        }
        for (time_ms, text) in
            [(0, "unlimited"), (250, "250ms"), (2000, "2s"), (61_500, "1m1.5s"), (86_400_000, "24h0m0s")]
        {
            assert_eq!(time(Duration::from_millis(time_ms)), text);
        }
    }

    /// As the reference prints it.
    #[test]
    fn limits_as_lines() {
        let own = |max_msgs, max_age| ChannelOverride { max_msgs, max_age, ..ChannelOverride::default() };
        let given = [
            ("foo.*", own(Some(50), Some(Duration::from_secs(86_400)))),
            ("foo.bar", own(Some(7), None)),
            ("foo.>", own(Some(60), None)),
        ];
        let overrides = Overrides::default().with(given.map(|(name, own)| (name.to_owned(), own)));
        let mut all = StoreLimits { max_channels: 0, overrides: overrides.unwrap(), ..StoreLimits::default() };
        all.of_all.max_bytes = 0;
        let expected = "\
---------- Store Limits ----------
Channels:            unlimited
--------- Channels Limits --------
  Subscriptions:          1000 *
  Messages     :       1000000 *
  Bytes        :     unlimited
  Age          :     unlimited *
  Inactivity   :     unlimited *
-------- List of Channels --------
foo.>
 |-> Messages                   60
 foo.*
  |-> Messages                  50
  |-> Age                  24h0m0s
  foo.bar
   |-> Messages                  7
----------------------------------";
        assert_eq!(limits(&all).join("\n"), expected);
        let plain = limits(&StoreLimits::default());
        assert_eq!((plain.len(), plain[1].as_str()), (9, "Channels:                  100 *"));
    }
}
