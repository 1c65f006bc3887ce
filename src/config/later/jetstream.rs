//! The `jetstream` block of the server, and that of an account.

use super::{Checked, number, switch, word};
use crate::config::grammar::{Node, Value};
use crate::config::read;
use crate::config::schema::{Item, Key, Reading, Row, Verdict, rows};

/// What the block is for.
pub(in crate::config) const FEATURE: &str = "JetStream";

const KEYS: &[Key<Checked>] = &[
    switch(&["enabled", "enable"], "true", "Streams are stored"),
    word(&["store_dir", "storedir", "store"], "\"/var/lib/leat\"", "Directory of the streams"),
    size(&["max_memory_store", "max_mem_store", "max_mem", "max_memory"], "Memory for streams"),
    size(&["max_file_store", "max_file", "max_store", "max_disk"], "Disk space for streams"),
    word(&["domain"], "hub", "Name by which other domains reach this one"),
    Key::other(&["sync_interval", "sync"], "duration or always", "always", "Time between flushes", |_, item, _| {
        match &item.node.value {
            Value::Text(text) if text.eq_ignore_ascii_case("always") => Ok(()),
            _ => read::seconds(item.node).map(drop),
        }
    }),
    Key::block(
        &["limits"],
        "Limits of streams and consumers",
        |_, _, map, reading| reading.keys(map, LIMITS, &mut Checked),
        || rows(LIMITS),
    ),
    word(&["key", "ek", "encryption_key"], "\"secret\"", "Key that encrypts what is stored"),
    word(&["prev_key", "prev_ek", "prev_encryption_key"], "\"secret\"", "The key before this one"),
    Key::text(&["cipher"], "aes", "chacha or aes", |_, text| match text.to_ascii_lowercase().as_str() {
        "chacha" | "chachapoly" | "aes" => Ok(()),
        _ => Err(format!("Unknown cipher type: \"{}\"", text.escape_debug())),
    }),
    word(&["extension_hint"], "will_extend", "How other servers extend this one"),
    word(&["unique_tag"], "\"az:\"", "Replicas go to servers that differ in this tag"),
    number(&["max_outstanding_catchup"], "64MB", "Bytes on their way to replicas that catch up"),
    number(&["request_queue_limit"], "10000", "Requests that may wait"),
    number(&["info_queue_limit"], "10000", "Requests for information that may wait"),
    number(&["max_buffered_size"], "128MB", "Bytes that may wait for a stream"),
    number(&["max_buffered_msgs"], "10000", "Messages that may wait for a stream"),
    number(&["meta_compact"], "0", "Entries of the meta log before it is compacted"),
    number(&["meta_compact_size"], "0", "Bytes of the meta log before it is compacted"),
    switch(&["strict"], "true", "Refuse requests with unknown fields"),
    Key::other(&["tpm"], "map", "{}", "Keys held by a TPM", |_, item, _| match &item.node.value {
        Value::Map(_) => Ok(()),
        other => Err(format!("expected tpm to be a map, got {}", other.kind())),
    }),
];

const fn size(names: &'static [&'static str], help: &'static str) -> Key<Checked> {
    Key::other(names, "integer", "1GB", help, |_, item, _| size_value(item.node))
}

/// A number, or text that is a number with one of four suffixes.
fn size_value(node: &Node) -> Verdict {
    match &node.value {
        Value::Integer(_) => Ok(()),
        Value::Text(text) => {
            let digits = text.strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']).unwrap_or(text);
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { Ok(()) } else { Err("sizes defined as strings must end in K, M, G, T".to_owned()) }
        }
        other => Err(format!("expected a size, got {}", other.kind())),
    }
}

const LIMITS: &[Key<Checked>] = &[
    number(&["max_ack_pending"], "-1", "Unacknowledged messages of a consumer"),
    number(&["max_ha_assets"], "-1", "Replicated streams and consumers here"),
    number(&["max_request_batch"], "-1", "Messages asked for at once"),
    Key::duration(&["duplicate_window"], "\"2m\"", "Longest window of duplicate detection", |_, _| ()),
    number(&["batch"], "0", "Messages of an atomic batch"),
];

/// Checks the block.
pub(in crate::config) fn check(item: &Item<'_>, reading: &mut Reading) -> Verdict {
    one_of_three(item, KEYS, reading)
}

/// Checks the block of an account.
pub(in crate::config) fn account(item: &Item<'_>, reading: &mut Reading) -> Verdict {
    one_of_three(item, ACCOUNT, reading)
}

/// The keys of the block.
pub(in crate::config) fn jetstream_rows() -> Vec<Row> {
    rows(KEYS)
}

fn one_of_three(item: &Item<'_>, keys: &[Key<Checked>], reading: &mut Reading) -> Verdict {
    match &item.node.value {
        Value::Map(map) => {
            reading.keys(map, keys, &mut Checked);
            Ok(())
        }
        other => match read::enabled(item.node) {
            Some(outcome) => outcome.map(drop),
            None => Err(format!("Expected map, bool or string to define JetStream, got {}", other.kind())),
        },
    }
}

const ACCOUNT: &[Key<Checked>] =
    &[
        switch(&["enabled"], "true", "Streams are stored"),
        number(&["max_memory", "max_mem", "mem", "memory"], "-1", "Memory for streams"),
        number(&["max_store", "max_file", "max_disk", "store", "disk"], "-1", "Disk space for streams"),
        number(&["max_streams", "streams"], "-1", "Streams"),
        number(&["max_consumers", "consumers"], "-1", "Consumers"),
        switch(&["max_bytes_required", "max_stream_bytes", "max_bytes"], "false", "Streams must have a size limit"),
        number(&["memory_max_stream_bytes", "mem_max_stream_bytes"], "-1", "Largest stream in memory"),
        number(&["disk_max_stream_bytes", "store_max_stream_bytes"], "-1", "Largest stream on disk"),
        number(&["max_ack_pending"], "-1", "Unacknowledged messages of a consumer"),
        Key::text(&["cluster_traffic"], "system", "Account whose routes replicas use: system or owner", |_, text| {
            match text {
                "system" | "owner" => Ok(()),
                _ => Err(format!("Expected 'system' or 'owner' for \"cluster_traffic\", got {}", text.escape_debug())),
            }
        }),
    ];
