//! Blocks of features that are not there yet.
//!
//! They are checked like all others, so that a file that is wrong is refused by its author's test and not by a later
//! version; nothing of them is kept.
#![forbid(unsafe_code)]

pub(super) mod cluster;
pub(super) mod gateway;
pub(super) mod jetstream;
pub(super) mod leafnodes;
pub(super) mod mqtt;

use std::collections::HashSet;

use super::grammar::{Node, Value};
use super::schema::{Item, Key, Reading, Verdict};
use super::tls::{self, Place};
use super::{authorization, read};

/// What a checked block leaves: nothing.
pub(super) struct Checked;

type Names = &'static [&'static str];

const fn switch(names: Names, default: &'static str, help: &'static str) -> Key<Checked> {
    Key::boolean(names, default, help, |_, _| ())
}

const fn number(names: Names, default: &'static str, help: &'static str) -> Key<Checked> {
    Key::integer(names, default, help, |_, _| Ok(()))
}

const fn word(names: Names, default: &'static str, help: &'static str) -> Key<Checked> {
    Key::text(names, default, help, |_, _| Ok(()))
}

const fn time(names: Names, default: &'static str, help: &'static str) -> Key<Checked> {
    Key::duration(names, default, help, |_, _| ())
}

const fn words(names: Names, default: &'static str, help: &'static str) -> Key<Checked> {
    Key::other(names, "array of strings", default, help, |_, item, _| read::array_of_texts(item.node).map(drop))
}

/// A name without blanks.
const fn name(names: Names, default: &'static str, help: &'static str) -> Key<Checked> {
    Key::text(names, default, help, |_, text| {
        if text.contains(' ') { Err("name cannot contain spaces".to_owned()) } else { Ok(()) }
    })
}

const fn listen(default: &'static str) -> Key<Checked> {
    Key::other(&["listen"], "port or \"host:port\"", default, "Address to listen on", |_, item, _| {
        read::address(item.node).map(drop)
    })
}

const fn host() -> Key<Checked> {
    word(&["host", "net"], "\"0.0.0.0\"", "Host to listen on")
}

const fn port(default: &'static str) -> Key<Checked> {
    Key::integer(&["port"], default, "Port to listen on, -1 for a random one", |_, number| read::port(number).map(drop))
}

/// TLS between servers.
const fn server_tls() -> Key<Checked> {
    Key::block(
        &["tls"],
        "TLS, as the top level tls",
        |_, item, map, reading| drop(tls::options(item, map, Place::Servers, reading)),
        Vec::new,
    )
}

const fn write_timeout() -> Key<Checked> {
    Key::text(
        &["write_timeout"],
        "default",
        "What follows a write that took too long: default, close or retry",
        |_, text| policy(text),
    )
}

/// The policies of `write_timeout`.
pub(super) fn policy(text: &str) -> Verdict {
    match text {
        "default" | "close" | "retry" => Ok(()),
        _ => Err("write_timeout must be 'default', 'close' or 'retry'".to_owned()),
    }
}

const fn compression(default: &'static str) -> Key<Checked> {
    Key::other(
        &["compression"],
        "string, boolean, or { mode, rtt_thresholds }",
        default,
        "Compression",
        |_, item, reading| compression_value(item, reading),
    )
}

const COMPRESSION: &[Key<Checked>] = &[
    word(&["mode"], "s2_auto", "off, accept, s2_fast, s2_better, s2_best or s2_auto"),
    Key::other(
        &["rtt_thresholds", "thresholds", "rtts", "rtt"],
        "array of durations",
        "[ \"10ms\", \"50ms\", \"100ms\" ]",
        "Round-trip times at which s2_auto changes its level",
        |_, item, _| {
            let texts = read::array_of_texts(item.node)?;
            texts.iter().try_for_each(|text| read::duration_text(text).map(drop))
        },
    ),
];

fn compression_value(item: &Item<'_>, reading: &mut Reading) -> Verdict {
    match &item.node.value {
        Value::Text(_) | Value::Boolean(_) => Ok(()),
        Value::Map(map) => {
            reading.keys(map, COMPRESSION, &mut Checked);
            Ok(())
        }
        other => Err(format!("field \"{}\" should be a boolean or a structure, got {}", item.key, other.kind())),
    }
}

/// A URL with an optional scheme. Addresses are resolved when they are used.
fn url(text: &str) -> Verdict {
    // The URL itself may hold a password.
    const WRONG: &str = "error parsing url, expected scheme://host:port";
    let after_scheme = match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        Some(_) => return Err(WRONG.to_owned()),
        None => text,
    };
    if after_scheme.is_empty() && text.contains("://") {
        return Err(WRONG.to_owned());
    }
    Ok(())
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// An array of URLs; one that occurs twice is worth a warning.
fn urls(node: &Node, reading: &mut Reading) -> Verdict {
    let list = read::array_of_texts(node)?;
    let mut seen = HashSet::new();
    for (i, text) in list.iter().enumerate() {
        url(text)?;
        if !seen.insert(text) {
            reading.warn(&node.at, format!("duplicate entry detected: number {} has come before", i + 1));
        }
    }
    Ok(())
}

/// Reads an array of maps.
fn maps(item: &Item<'_>, keys: &[Key<Checked>], what: &str, reading: &mut Reading) -> Verdict {
    let Value::Array(nodes) = &item.node.value else {
        return Err(format!("Expected {} field to be an array, got {}", item.key, item.node.value.kind()));
    };
    for node in nodes {
        match &node.value {
            Value::Map(map) => reading.keys(map, keys, &mut Checked),
            other => reading.error(&node.at, format!("Expected {what} entry to be a map, got {}", other.kind())),
        }
    }
    Ok(())
}

/// Credentials that other servers present: one user.
const fn server_authorization(read: fn(&mut Checked, &Item<'_>, &super::grammar::Map, &mut Reading)) -> Key<Checked> {
    Key::block(&["authorization"], "Credentials of other servers: user, password, timeout", read, Vec::new)
}
