//! The `store_limits` block.

use super::{Compare, Item, Key, Map, Options, Reading, Row, Shown, Value, compare, rows, time_or_negative};
use crate::config::read;
use crate::config::schema::Verdict;
use crate::streaming::{ChannelOverride, Overrides};

/// Sets a number of all channels.
macro_rules! number {
    ($names:expr, $default:expr, $help:expr, $what:literal, $($field:ident).+) => {
        Key::<Options>::integer($names, $default, $help, |options, number| {
            options.limits.$($field).+ = not_negative($what, number)?;
            Ok(())
        })
        .compared(compare!(limits.$($field).+))
    };
}

/// Sets a duration of all channels.
macro_rules! time {
    ($names:expr, $default:expr, $help:expr, $what:literal, $field:ident) => {
        Key::<Options>::other($names, "duration", $default, $help, |options, item, _| {
            options.limits.of_all.$field = time_or_negative(item)?.ok_or_else(|| {
                format!(concat!($what, " limit cannot be negative ({})"), read::text(item.node).unwrap_or_default())
            })?;
            Ok(())
        })
        .compared(compare!(limits.of_all.$field))
    };
}

const MAX_SUBS: &[&str] = &["max_subs", "msu", "max_subscriptions", "maxsubscriptions"];
const MAX_MSGS: &[&str] = &["max_msgs", "mm", "maxmsgs", "max_count", "maxcount"];
const MAX_BYTES: &[&str] = &["max_bytes", "mb", "maxbytes"];
const MAX_AGE: &[&str] = &["max_age", "ma", "maxage"];
const MAX_INACTIVITY: &[&str] = &["max_inactivity", "mi", "maxinactivity"];

pub(super) const KEYS: &[Key<Options>] = &[
    number!(&["max_channels", "mc", "maxchannels"], "100", "Channels; 0 means unlimited", "max channels", max_channels),
    number!(MAX_SUBS, "1000", "Subscriptions of a channel; 0 means unlimited", "max subscriptions", of_all.max_subs),
    number!(MAX_MSGS, "1000000", "Messages of a channel; 0 means unlimited", "max messages", of_all.max_msgs),
    number!(MAX_BYTES, "1024000000", "Bytes of a channel; 0 means unlimited", "max bytes", of_all.max_bytes),
    time!(MAX_AGE, "\"0s\"", "Age of messages; 0s means unlimited", "max age", max_age),
    time!(
        MAX_INACTIVITY,
        "\"0s\"",
        "Time after which a channel goes that nobody uses; 0s means never",
        "max inactivity",
        max_inactivity
    ),
    Key::<Options>::other(
        &["channels", "channels_limits", "channelslimits", "per_channel", "per_channel_limits"],
        "map",
        "{ \"orders.>\": { max_msgs: 1000 } }",
        "Limits of channels by name or pattern; what is missing comes from the next wider pattern, 0 means unlimited",
        channels,
    )
    .entries(|| rows(CHANNEL))
    .compared(compare!(limits.overrides)),
];

/// Sets a number of some channels.
macro_rules! number_of_channel {
    ($names:expr, $default:expr, $help:expr, $field:ident) => {
        Key::<ChannelOverride>::integer($names, $default, $help, |channel, number| {
            channel.$field = Some(u64::try_from(number).unwrap_or(0));
            Ok(())
        })
    };
}

/// Sets a duration of some channels.
macro_rules! time_of_channel {
    ($names:expr, $default:expr, $help:expr, $field:ident) => {
        Key::<ChannelOverride>::other($names, "duration", $default, $help, |channel, item, _| {
            channel.$field = Some(time_or_negative(item)?.unwrap_or_default());
            Ok(())
        })
    };
}

/// As in the reference, a negative limit of some channels means unlimited.
const CHANNEL: &[Key<ChannelOverride>] = &[
    number_of_channel!(MAX_SUBS, "1000", "Subscriptions", max_subs),
    number_of_channel!(MAX_MSGS, "1000000", "Messages", max_msgs),
    number_of_channel!(MAX_BYTES, "1024000000", "Bytes", max_bytes),
    time_of_channel!(MAX_AGE, "\"0s\"", "Age of messages", max_age),
    time_of_channel!(MAX_INACTIVITY, "\"0s\"", "Time without use", max_inactivity),
];

/// Reads the block.
pub(super) fn read(map: &Map, reading: &mut Reading, options: &mut Options) {
    reading.keys(map, KEYS, options);
}

/// The keys of the block.
pub(super) fn limit_rows() -> Vec<Row> {
    rows(KEYS)
}

fn channels(options: &mut Options, item: &Item<'_>, reading: &mut Reading) -> Verdict {
    let Value::Map(map) = &item.node.value else {
        return Err(format!("expected {} to be a map, got {}", item.key, item.node.value.kind()));
    };
    let mut overrides = std::mem::take(&mut options.limits.overrides);
    let mut read = Vec::new();
    for (name, entry) in map.entries() {
        let Value::Map(limits) = &entry.node.value else {
            let kind = entry.node.value.kind();
            reading.error(&entry.key_at, format!("expected channel limits to be a map, got {kind}"));
            continue;
        };
        let mut own = ChannelOverride::default();
        reading.keys(limits, CHANNEL, &mut own);
        match crate::streaming::channel_pattern_is_valid(name) {
            true => read.push((name.to_owned(), own)),
            false => reading.error(&entry.key_at, format!("invalid channel name \"{}\"", name.escape_debug())),
        }
    }
    overrides = overrides.with(read)?;
    options.limits.overrides = overrides;
    Ok(())
}

fn not_negative(what: &str, number: i64) -> Result<u64, String> {
    u64::try_from(number).map_err(|_| format!("{what} limit cannot be negative ({number})"))
}

impl Shown for Overrides {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}
