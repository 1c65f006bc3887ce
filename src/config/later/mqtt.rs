//! The `mqtt` block: a listener for MQTT.

use super::{Checked, host, listen, number, port, server_tls, switch, time, word};
use crate::config::grammar::Map;
use crate::config::schema::{Key, Reading, Row, rows};
use crate::config::websocket;

/// What the block is for.
pub(in crate::config) const FEATURE: &str = "MQTT";

const KEYS: &[Key<Checked>] = &[
    listen("\"0.0.0.0:1883\""),
    host(),
    port("1883"),
    server_tls(),
    Key::other(
        &["authorization", "authentication"],
        "map",
        "{ user: app, password: secret }",
        "Credentials required by this listener: user, password or token, timeout",
        |_, item, reading| websocket::authorization(item, reading),
    ),
    word(&["no_auth_user"], "guest", "User of connections without credentials"),
    time(&["ack_wait", "ackwait"], "\"30s\"", "Time after which a QoS 1 message is sent again"),
    time(&["js_api_timeout", "api_timeout"], "\"5s\"", "Time for answers of JetStream"),
    Key::integer(
        &["max_ack_pending", "max_pending", "max_inflight"],
        "1024",
        "QoS 1 messages that may wait for an acknowledgement",
        |_, number| match number {
            0..=65_535 => Ok(()),
            _ => Err(format!("invalid value {number}, should in [0..65535] range")),
        },
    ),
    word(&["js_domain"], "hub", "JetStream domain"),
    number(&["stream_replicas"], "1", "Replicas of the streams"),
    switch(&["consumer_memory_storage"], "false", "Keep consumers in memory"),
    time(&["consumer_inactive_threshold", "consumer_auto_cleanup"], "\"1h\"", "Remove consumers that are unused"),
    switch(&["reject_qos2_publish"], "false", "Refuse QoS 2 messages"),
    switch(&["downgrade_qos2_subscribe"], "false", "Serve QoS 2 subscriptions with QoS 1"),
];

/// Checks the block.
pub(in crate::config) fn check(map: &Map, reading: &mut Reading) {
    reading.keys(map, KEYS, &mut Checked);
}

/// The keys of the block.
pub(in crate::config) fn mqtt_rows() -> Vec<Row> {
    rows(KEYS)
}
