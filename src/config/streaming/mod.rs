//! The `streaming` block, and files of NATS Streaming, in which its keys stand at the top level.
#![forbid(unsafe_code)]

mod cluster;
mod file;
mod limits;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use super::grammar::{Map, Value};
use super::reload::Shown;
use super::schema::{Compare, Item, Key, KeyChange, Reading, Row, compare, has_key, items, rows, switch};
use super::{Secret, read};
use crate::streaming::{Cipher, Options, StoreType};

/// The names of the block.
pub(super) const BLOCK: &[&str] = &["streaming", "stan"];

/// Sets a text.
macro_rules! text {
    ($names:expr, $default:expr, $help:expr, $field:ident, $read:expr) => {
        Key::<Options>::text($names, $default, $help, |options, text| {
            options.$field = $read(text)?;
            Ok(())
        })
        .compared(compare!($field))
    };
}

/// Sets a duration.
macro_rules! time {
    ($names:expr, $default:expr, $help:expr, $field:ident) => {
        Key::<Options>::other($names, "duration", $default, $help, |options, item, _| {
            options.$field = time(item)?;
            Ok(())
        })
        .compared(compare!($field))
    };
}

/// A key of what this server does not need: it is checked, and changes nothing.
macro_rules! idle {
    ($kind:ident, $names:expr, $default:expr, $help:expr) => {
        Key::$kind($names, $default, $help, |_, _| Ok(())).without_effect()
    };
}
use idle;

const GENERAL: &[Key<Options>] = &[
    text!(
        &["cluster_id", "cid", "id"],
        "test-cluster",
        "Name of the service, at the end of its subjects",
        cluster_id,
        own
    ),
    text!(
        &["discover_prefix"],
        "_STAN.discover",
        "What the subject begins with on which clients look for the service",
        discover_prefix,
        own
    ),
    text!(
        &["store", "st", "store_type", "storetype"],
        "FILE",
        "Where channels are kept, MEMORY or FILE",
        store,
        StoreType::parse
    ),
    text!(&["dir", "datastore"], "\"\"", "Directory of the store", dir, path),
    switch!(&["stan_debug", "sd"], "false", "Write debug lines about the service", debug),
    switch!(&["stan_trace", "sv"], "false", "Write the messages of the service", trace),
    time!(
        &["hb_interval", "hbi", "server_to_client_hb_interval"],
        "\"30s\"",
        "Time between heartbeats to a client",
        hb_interval
    ),
    time!(
        &["hb_timeout", "hbt", "server_to_client_hb_timeout"],
        "\"10s\"",
        "How long a client may take to answer a heartbeat",
        hb_timeout
    ),
    Key::<Options>::integer(
        &["hb_fail_count", "hbf", "server_to_client_hb_fail_count"],
        "10",
        "Unanswered heartbeats in a row; with one more the client is given up",
        |options, number| {
            options.hb_fail_count = u32::try_from(number).map_err(|_| format!("{number} is out of range"))?;
            Ok(())
        },
    )
    .compared(compare!(hb_fail_count)),
    switch!(
        &["replace_durable", "replace_durables", "replace_duplicate_durable", "replace_duplicate_durables"],
        "false",
        "Let a new subscriber take over a durable subscription that is in use",
        replace_durable
    ),
    switch!(&["partitioning"], "false", "Serve the channels of store_limits only", partitioning),
    Key::<Options>::block(
        &["store_limits", "limits", "storelimits"],
        "Limits of channels",
        |options, _, map, reading| limits::read(map, reading, options),
        limits::limit_rows,
    ),
    Key::<Options>::block(
        &["file_options", "file"],
        "The store in files",
        |options, _, map, reading| reading.keys(map, file::KEYS, options),
        || rows(file::KEYS),
    ),
    Key::<Options>::block(
        &["sql_options", "sql"],
        "The store in a database, which is not available",
        |_, _, map, reading| reading.keys(map, SQL, &mut ()),
        || rows(SQL),
    )
    .without_effect(),
    switch!(&["encrypt"], "false", "Encrypt payloads on disk; in this version it must be off", encrypt),
    text!(&["encryption_cipher"], "AES", "The cipher, AES or CHACHA", encryption_cipher, Cipher::parse),
    Key::<Options>::text(
        &["encryption_key"],
        "secret",
        "What the key is made of; asks for encryption",
        |options, text| {
            options.encryption_key = Some(Secret::new(text));
            Ok(())
        },
    )
    .compared(Compare { differ: |old, new| old.encryption_key != new.encryption_key, show: |_| String::new() }),
    Key::<Options>::block(
        &["cluster"],
        "Replication of the service among servers; in this version there must be none",
        |options, _, map, reading| reading.keys(map, cluster::KEYS, options.clustering.get_or_insert_default()),
        || rows(cluster::KEYS),
    )
    .compared(Compare {
        differ: |old, new| old.clustering != new.clustering,
        show: |options| format!("{:?}", options.clustering),
    }),
    text!(
        &["nats_server", "ns", "nats_server_url"],
        "\"\"",
        "URL of the server whose clients are served, instead of this one's; in this version it must be empty",
        nats_server,
        some
    ),
    text!(
        &["ft_group", "ft_group_name"],
        "\"\"",
        "Group of servers of which one serves; in this version it must be empty",
        ft_group,
        some
    ),
    idle!(text, &["credentials"], "\"\"", "Credentials file for nats_server"),
    idle!(text, &["username", "user"], "\"\"", "User name for nats_server"),
    idle!(text, &["password", "pass"], "\"\"", "Password for nats_server"),
    idle!(text, &["token"], "\"\"", "Token for nats_server"),
    idle!(text, &["nkey_seed_file"], "\"\"", "File with the nkey for nats_server"),
    Key::<Options>::boolean(&["secure"], "false", "TLS for nats_server", |_, _| ()).without_effect(),
    Key::<Options>::block(
        &["tls"],
        "TLS for nats_server",
        |_, _, map, reading| reading.keys(map, TLS, &mut ()),
        || rows(TLS),
    )
    .without_effect(),
    idle!(text, &["syslog_name"], "\"\"", "Name in the event log of Windows"),
];

const SQL: &[Key<()>] = &[
    idle!(text, &["driver"], "postgres", "Kind of database"),
    idle!(text, &["source"], "\"\"", "Address of the database"),
    Key::boolean(&["no_caching"], "false", "Write each acknowledgement at once", |(), _| ()).without_effect(),
    idle!(integer, &["max_open_conns", "max_conns"], "0", "Connections; 0 means unlimited"),
    idle!(integer, &["bulk_insert_limit"], "0", "Messages of one statement; 0 means unlimited"),
];

const TLS: &[Key<()>] = &[
    idle!(text, &["client_cert"], "\"\"", "Certificate file"),
    idle!(text, &["client_key"], "\"\"", "Key file"),
    idle!(text, &["client_ca", "client_cacert"], "\"\"", "File with authorities"),
    idle!(text, &["server_name", "server_hostname"], "\"\"", "Name in the server's certificate"),
    Key::boolean(&["skip_verify", "insecure"], "false", "Take any certificate", |(), _| ()).without_effect(),
];

/// Reads the block.
pub(super) fn block(map: &Map, reading: &mut Reading, options: &mut Options) {
    reading.keys(map, GENERAL, options);
}

/// Reads a key of the block that stands at the top level. Whether it is one.
pub(super) fn key(item: &Item<'_>, reading: &mut Reading, options: &mut Options) -> bool {
    reading.key(item, &[GENERAL], options)
}

/// Whether a key of the block is called so.
pub(super) fn is_key(name: &str) -> bool {
    has_key(&[GENERAL], name)
}

/// The keys of the block.
pub(super) fn streaming_rows() -> Vec<Row> {
    rows(GENERAL)
}

/// Whether a file has the block, so that its other keys are not for the service.
pub(super) fn has_block(root: &Map) -> bool {
    items(root).any(|item| is_block(&item))
}

/// Reads a file that is for the service alone: the block if there is one, or else all keys.
pub(super) fn file(root: &Map, reading: &mut Reading, options: &mut Options) {
    if !has_block(root) {
        return block(root, reading, options);
    }
    for item in items(root).filter(is_block) {
        match &item.node.value {
            Value::Map(map) => block(map, reading, options),
            other => reading.error(item.at, format!("expected {} to be a map, got {}", item.key, other.kind())),
        }
    }
}

fn is_block(item: &Item<'_>) -> bool {
    BLOCK.iter().any(|name| name.eq_ignore_ascii_case(item.key))
}

/// What is another value in `new`, in the order of the tables.
pub(super) fn changes(old: &Options, new: &Options) -> impl Iterator<Item = KeyChange> {
    let keys = GENERAL.iter().chain(limits::KEYS).chain(file::KEYS);
    keys.filter_map(|key| key.change(old, new))
}

impl Shown for StoreType {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Option<Cipher> {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

fn own(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// The empty text means none.
fn some(text: &str) -> Result<Option<String>, String> {
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// The empty path means none.
fn path(text: &str) -> Result<Option<PathBuf>, String> {
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// A duration with its unit, not below zero.
fn time(item: &Item<'_>) -> Result<Duration, String> {
    read::text(item.node).and_then(read::duration_text).map_err(|what| format!("field \"{}\": {what}", item.key))
}

/// A duration with its unit; nothing if it is below zero.
fn time_or_negative(item: &Item<'_>) -> Result<Option<Duration>, String> {
    let text = read::text(item.node).map_err(|what| format!("field \"{}\": {what}", item.key))?;
    let magnitude = text.strip_prefix('-').unwrap_or(text);
    let time = read::duration_text(magnitude).map_err(|what| format!("field \"{}\": {what}", item.key))?;
    Ok((magnitude.len() == text.len()).then_some(time))
}
