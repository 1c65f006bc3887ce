//! The `file_options` block. The log of this server checks, bounds, cleans and recovers its files by itself: most keys
//! change nothing.

use super::{Compare, Key, Options, Shown as _, compare, switch, time_or_negative};

/// The polynomial of IEEE CRC-32, as the reference writes it.
const IEEE: i64 = 0xedb8_8320;

/// A number that changes nothing, and that the reference refuses below `$min` with the words `$text`.
macro_rules! checked {
    ($names:expr, $default:expr, $help:expr, $min:literal, $text:literal) => {
        Key::<Options>::integer(
            $names,
            $default,
            $help,
            |_, number| {
                if number < $min { Err($text.to_owned()) } else { Ok(()) }
            },
        )
        .without_effect()
    };
}

const SLICES: &str = "slice max values must be positive numbers";

pub(super) const KEYS: &[Key<Options>] = &[
    switch!(&["sync", "do_sync", "sync_on_flush"], "true", "Acknowledge what has been flushed to disk", file.sync),
    Key::<Options>::other(
        &["auto_sync", "file_auto_sync"],
        "duration",
        "\"1m\"",
        "Time between flushes where sync is off; 0s means never",
        |options, item, _| {
            options.file.auto_sync = time_or_negative(item)?.filter(|time| !time.is_zero());
            Ok(())
        },
    )
    .compared(compare!(file.auto_sync)),
    Key::<Options>::boolean(
        &["crc", "do_crc"],
        "true",
        "Check records when they are read, which is always done",
        |_, _| (),
    )
    .without_effect(),
    Key::<Options>::integer(&["crc_poly"], "3988292384", "Polynomial of the checksum", |_, number| {
        if number == IEEE { Ok(()) } else { Err(format!("crc polynomial must be {IEEE}, that of IEEE CRC-32")) }
    })
    .without_effect(),
    slices(&["slice_max_msgs", "slice_max_count", "slice_msgs", "slice_count"], "0", "Messages in a file"),
    slices(&["slice_max_bytes", "slice_max_size", "slice_bytes", "slice_size"], "64MB", "Size of a file"),
    Key::<Options>::other(
        &["slice_max_age", "slice_age", "slice_max_time", "slice_time_limit"],
        "duration",
        "\"0s\"",
        "Age of a file",
        |_, item, _| match time_or_negative(item)? {
            Some(_) => Ok(()),
            None => Err(SLICES.to_owned()),
        },
    )
    .without_effect(),
    Key::<Options>::text(
        &["slice_archive_script", "slice_archive", "slice_script"],
        "\"\"",
        "Program to run with a file that is not needed any more",
        |_, _| Ok(()),
    )
    .without_effect(),
    Key::<Options>::boolean(&["compact", "compact_enabled"], "true", "Clean files, which is always done", |_, _| ())
        .without_effect(),
    checked!(
        &["compact_frag", "compact_fragmentation"],
        "50",
        "Per cent of a file to clean that must be free",
        1,
        "compact fragmentation value must at least be 1"
    ),
    checked!(
        &["compact_interval"],
        "300",
        "Seconds between cleanings",
        1,
        "compact interval value must at least be 1 seconds"
    ),
    checked!(
        &["compact_min_size"],
        "1MB",
        "Size of a file to clean",
        0,
        "compact minimum file size value must be a positive number"
    ),
    checked!(&["buffer_size"], "2MB", "Buffer for writing", 0, "buffer size value must be a positive number"),
    checked!(
        &["read_buffer_size", "file_read_buffer_size"],
        "2MB",
        "Buffer for reading",
        0,
        "read buffer size value must be a positive number"
    ),
    checked!(
        &["fds_limit", "file_descriptors_limit"],
        "0",
        "Open files; 0 means unlimited",
        0,
        "file descriptor limit must be a positive number"
    ),
    checked!(
        &["parallel_recovery"],
        "1",
        "Channels to recover at the same time",
        1,
        "parallel recovery value must be at least 1"
    ),
];

const fn slices(names: &'static [&'static str], default: &'static str, help: &'static str) -> Key<Options> {
    Key::<Options>::integer(names, default, help, |_, number| if number < 0 { Err(SLICES.to_owned()) } else { Ok(()) })
        .without_effect()
}
