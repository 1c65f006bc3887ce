//! The `gateway` block: connections to other clusters.

use super::{Checked, authorization, host, listen, maps, name, number, port, server_authorization, server_tls};
use super::{switch, time, url, urls, word, write_timeout};
use crate::config::grammar::Map;
use crate::config::schema::{Key, Reading, Row, rows};

/// What the block is for.
pub(in crate::config) const FEATURE: &str = "connecting clusters by gateways";

const KEYS: &[Key<Checked>] = &[
    name(&["name"], "C", "Name of this cluster"),
    listen("\"0.0.0.0:7222\""),
    host(),
    port("7222"),
    Key::other(
        &["gateways"],
        "array of maps",
        "[ { name: D, url: \"nats://d:7222\" } ]",
        "Other clusters",
        |_, item, reading| maps(item, REMOTE, "gateway", reading),
    ),
    server_authorization(|_, item, map, reading| authorization::single_user(item, map, "Gateway", reading)),
    server_tls(),
    word(&["advertise"], "\"host:7222\"", "Address to state to other clusters"),
    number(&["connect_retries"], "0", "Attempts to connect to a cluster that was learnt of"),
    switch(&["connect_backoff"], "false", "Pause longer after each attempt"),
    switch(&["reject_unknown_cluster", "reject_unknown"], "false", "Refuse clusters that are not in gateways"),
    time(&["write_deadline"], "\"10s\"", "How long a write may take"),
    write_timeout(),
];

const REMOTE: &[Key<Checked>] = &[
    word(&["name"], "D", "Name of the other cluster"),
    Key::text(&["url"], "\"nats://d:7222\"", "Address", |_, text| url(text)),
    Key::other(&["urls"], "array of URLs", "[ \"nats://d:7222\" ]", "Addresses", |_, item, reading| {
        urls(item.node, reading)
    }),
    server_tls(),
];

/// Checks the block.
pub(in crate::config) fn check(map: &Map, reading: &mut Reading) {
    reading.keys(map, KEYS, &mut Checked);
}

/// The keys of the block.
pub(in crate::config) fn gateway_rows() -> Vec<Row> {
    rows(KEYS)
}
