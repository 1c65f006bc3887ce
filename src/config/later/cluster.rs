//! The `cluster` block: routes to the other servers of a cluster.

use std::time::Duration;

use super::{Checked, authorization, compression, host, listen, name, number, port, server_authorization, server_tls};
use super::{switch, time, urls, word, words, write_timeout};
use crate::config::grammar::{Map, Value};
use crate::config::schema::{Key, Reading, Row, rows};
use crate::config::{permissions, read};

/// What the block is for.
pub(in crate::config) const FEATURE: &str = "clustering";

/// Longest time between pings of a route.
const PING_INTERVAL_MAX: Duration = Duration::from_secs(30);

const KEYS: &[Key<Checked>] = &[
    name(&["name"], "C", "Name of the cluster"),
    listen("\"0.0.0.0:6222\""),
    host(),
    port("6222"),
    Key::other(
        &["routes"],
        "array of URLs",
        "[ \"nats-route://other:6222\" ]",
        "Servers to connect to",
        |_, item, reading| urls(item.node, reading),
    ),
    server_authorization(|_, item, map, reading| authorization::single_user(item, map, "Cluster", reading)),
    Key::other(
        &["permissions"],
        "{ import, export }",
        "{ import: \">\", export: \">\" }",
        "What routes carry",
        |_, item, reading| permissions::permissions(item, reading).map(drop),
    ),
    server_tls(),
    word(&["cluster_advertise", "advertise"], "\"host:6222\"", "Address to state to other servers"),
    switch(&["no_advertise"], "false", "Do not tell clients of the other servers"),
    number(&["connect_retries"], "0", "Attempts to connect to a server that was learnt of"),
    switch(&["connect_backoff"], "false", "Pause longer after each attempt"),
    number(&["pool_size"], "3", "Connections to each server; -1 means one without a pool"),
    words(&["accounts"], "[ BUSY ]", "Accounts with a connection of their own"),
    compression("accept"),
    Key::other(&["ping_interval"], "duration", "\"30s\"", "Time between pings, 30s at most", |_, item, reading| {
        if read::seconds(item.node)? > PING_INTERVAL_MAX {
            reading.warn(item.at, "Cluster 'ping_interval' will reset to 30s which is the max for routes");
        }
        Ok(())
    }),
    number(&["ping_max"], "2", "Unanswered pings before a route is stale"),
    time(&["write_deadline"], "\"10s\"", "How long a write may take"),
    write_timeout(),
];

/// Checks the block. Gives the name of the cluster, which mappings may depend on.
pub(in crate::config) fn check(map: &Map, reading: &mut Reading) -> Option<String> {
    reading.keys(map, KEYS, &mut Checked);
    let mut names = map.entries().filter(|(key, _)| key.eq_ignore_ascii_case("name"));
    match names.next().map(|(_, entry)| &entry.node.value) {
        Some(Value::Text(name)) if !name.is_empty() => Some(name.clone()),
        _ => None,
    }
}

/// The keys of the block.
pub(in crate::config) fn cluster_rows() -> Vec<Row> {
    rows(KEYS)
}
