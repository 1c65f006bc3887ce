//! The `leafnodes` block: servers that connect to this one or that this one connects to, account by account.

use nkeys::{KeyPair, KeyPairType};

use super::{Checked, compression, host, listen, maps, port, server_tls, switch, time, url, urls, word, write_timeout};
use crate::config::grammar::{Map, Value};
use crate::config::read;
use crate::config::schema::{Item, Key, Reading, Row, Verdict, rows};

/// What the block is for.
pub(in crate::config) const FEATURE: &str = "leafnodes";

const KEYS: &[Key<Checked>] = &[
    listen("\"0.0.0.0:7422\""),
    host(),
    port("7422"),
    Key::block(
        &["authorization"],
        "Credentials of leafnodes",
        |_, item, map, reading| authorization(item, map, reading),
        || rows(AUTHORIZATION),
    ),
    Key::other(
        &["remotes"],
        "array of maps",
        "[ { url: \"nats-leaf://hub:7422\" } ]",
        "Servers to connect to",
        |_, item, reading| maps(item, REMOTE, "remote leafnode", reading),
    ),
    server_tls(),
    word(&["advertise", "leafnode_advertise"], "\"host:7422\"", "Address to state to leafnodes"),
    switch(&["no_advertise"], "false", "Do not tell leafnodes of other servers"),
    time(&["reconnect", "reconnect_delay", "reconnect_interval"], "\"1s\"", "Pause before connecting again"),
    time(&["dial_timeout"], "\"1s\"", "How long connecting may take"),
    Key::text(&["min_version"], "\"2.8.0\"", "Oldest version of a leafnode", |_, text| min_version(text)),
    compression("s2_auto"),
    switch(&["isolate_leafnode_interest", "isolate"], "false", "Do not tell leafnodes of each other's interest"),
    time(&["write_deadline"], "\"10s\"", "How long a write may take"),
    write_timeout(),
];

#[derive(Default)]
struct Credentials {
    user: bool,
    users: bool,
}

const AUTHORIZATION: &[Key<Credentials>] = &[
    Key::text(&["user", "username"], "leaf", "User name", |credentials, _| {
        credentials.user = true;
        Ok(())
    }),
    Key::text(&["pass", "password"], "secret", "Password", |credentials, _| {
        credentials.user = true;
        Ok(())
    }),
    Key::text(&["nkey"], "\"U…\"", "Public nkey", |_, text| {
        read::public_nkey(text, &KeyPairType::User, "leafnode authorization").map(drop)
    }),
    Key::text(&["account"], "A", "Account that leafnodes join", |_, _| Ok(())),
    Key::seconds(&["timeout"], "2", "How long a leafnode may take to log in", |_, _| ()),
    Key::boolean(&["proxy_required"], "false", "Only through a trusted proxy", |_, _| ()),
    Key::other(
        &["users"],
        "array of maps",
        "[ { user: leaf, password: secret, account: A } ]",
        "Users",
        |credentials, item, reading| {
            credentials.users = true;
            maps(item, USER, "user", reading)
        },
    ),
];

const USER: &[Key<Checked>] = &[
    word(&["user", "username"], "leaf", "User name"),
    word(&["pass", "password"], "secret", "Password"),
    word(&["account"], "A", "Account that the leafnode joins"),
    switch(&["proxy_required"], "false", "Only through a trusted proxy"),
];

fn authorization(item: &Item<'_>, map: &Map, reading: &mut Reading) {
    let mut credentials = Credentials::default();
    reading.keys(map, AUTHORIZATION, &mut credentials);
    if credentials.user && credentials.users {
        reading.error(item.at, "can not have a single user/pass and a users array");
    }
}

const REMOTE: &[Key<Checked>] = &[
    Key::text(&["url"], "\"nats-leaf://hub:7422\"", "Address", |_, text| url(text)),
    Key::other(&["urls"], "array of URLs", "[ \"nats-leaf://hub:7422\" ]", "Addresses", |_, item, reading| {
        urls(item.node, reading)
    }),
    word(&["account", "local"], "A", "Account here"),
    word(&["credentials", "creds"], "\"leaf.creds\"", "File with a user JWT and seed"),
    Key::text(&["nkey", "seed"], "\"SU…\"", "Seed of a user nkey", |_, text| match KeyPair::from_seed(text) {
        Ok(_) => Ok(()),
        Err(_) => Err("Remote leafnode nkey is not a valid seed".to_owned()),
    }),
    server_tls(),
    switch(&["hub"], "false", "This side is the hub"),
    subjects(&["deny_imports", "deny_import"], "Subjects not taken from the other side"),
    subjects(&["deny_exports", "deny_export"], "Subjects not given to the other side"),
    switch(&["no_randomize"], "false", "Try the addresses in order"),
    switch(
        &["ws_compression", "ws_compress", "websocket_compression", "websocket_compress"],
        "false",
        "Compress WebSocket",
    ),
    switch(&["ws_no_masking", "websocket_no_masking"], "false", "Do not mask WebSocket frames"),
    Key::other(
        &["jetstream_cluster_migrate", "js_cluster_migrate"],
        "boolean or map",
        "false",
        "Move leadership away while disconnected",
        |_, item, _| match &item.node.value {
            Value::Boolean(_) | Value::Map(_) => Ok(()),
            other => Err(format!("expected {} to be a boolean or a map, got {}", item.key, other.kind())),
        },
    ),
    switch(&["isolate_leafnode_interest", "isolate"], "false", "Do not tell of other leafnodes' interest"),
    switch(&["request_isolation"], "false", "Ask the hub not to tell of other leafnodes' interest"),
    compression("s2_auto"),
    time(&["first_info_timeout"], "\"1s\"", "How long to wait for INFO"),
    time(&["dial_timeout"], "\"1s\"", "How long connecting may take"),
    switch(&["disabled"], "false", "Do not connect"),
    switch(&["ignore_discovered_servers"], "false", "Use the given addresses only"),
    Key::block(
        &["proxy"],
        "HTTP proxy to go through",
        |_, _, map, reading| reading.keys(map, PROXY, &mut Checked),
        || rows(PROXY),
    ),
];

const fn subjects(names: &'static [&'static str], help: &'static str) -> Key<Checked> {
    Key::other(names, "subject or array of subjects", "[ \"private.>\" ]", help, |_, item, _| {
        let list = read::texts(item.node)?;
        list.iter().try_for_each(|subject| read::subject(subject).map(drop))
    })
}

const PROXY: &[Key<Checked>] = &[
    Key::text(&["url"], "\"http://proxy:3128\"", "Address", |_, text| url(text)),
    word(&["username"], "proxy", "User name"),
    word(&["password"], "secret", "Password"),
    time(&["timeout"], "\"5s\"", "How long connecting may take"),
];

/// `major.minor.patch`, 2.8.0 or later.
fn min_version(text: &str) -> Verdict {
    const OLDEST: (u32, u32, u32) = (2, 8, 0);
    let version = text.strip_prefix('v').unwrap_or(text).split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<u32> = version.split('.').map_while(|number| number.parse().ok()).collect();
    match numbers.as_slice() {
        [major, minor, patch] if version.split('.').count() == 3 => {
            if (*major, *minor, *patch) < OLDEST {
                return Err("the minimum version should be at least 2.8.0".to_owned());
            }
            Ok(())
        }
        _ => Err(format!("invalid leafnode's minimum version \"{}\"", text.escape_debug())),
    }
}

/// Checks the block.
pub(in crate::config) fn check(map: &Map, reading: &mut Reading) {
    reading.keys(map, KEYS, &mut Checked);
}

/// The keys of the block.
pub(in crate::config) fn leafnode_rows() -> Vec<Row> {
    rows(KEYS)
}
