//! Values of the grammar as values of Rust.
//!
//! Every function returns a value in range or a phrase that tells what is wrong.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::grammar::{Node, Value};
use super::{ListenAddress, PortSpec, duration};
use crate::subject;

fn expected(what: &str, node: &Node) -> String {
    format!("expected {what}, got {}", node.value.kind())
}

pub(super) fn boolean(node: &Node) -> Result<bool, String> {
    match node.value {
        Value::Boolean(value) => Ok(value),
        _ => Err(expected("a boolean (true or false, unquoted)", node)),
    }
}

pub(super) fn integer(node: &Node) -> Result<i64, String> {
    match node.value {
        Value::Integer(value) => Ok(value),
        _ => Err(expected("an integer, unquoted", node)),
    }
}

pub(super) fn text(node: &Node) -> Result<&str, String> {
    match &node.value {
        Value::Text(text) => Ok(text),
        _ => Err(format!("{} (quote it)", expected("a string", node))),
    }
}

/// A number of seconds, or text with a unit.
pub(super) fn seconds(node: &Node) -> Result<Duration, String> {
    const TOO_LONG: &str = "the duration is too long";
    match &node.value {
        Value::Integer(seconds) => {
            u64::try_from(*seconds).map(Duration::from_secs).map_err(|_| "the duration is negative".to_owned())
        }
        Value::Float(seconds) if *seconds < 0.0 => Err("the duration is negative".to_owned()),
        Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).map_err(|_| TOO_LONG.to_owned()),
        Value::Text(text) => duration_text(text),
        _ => Err(expected("a duration such as \"2s\"", node)),
    }
}

/// A duration with its unit.
pub(super) fn duration_text(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err(format!("duration \"{}\" is negative", text.escape_debug()));
    }
    if text != "0" && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("missing unit in duration \"{}\"", text.escape_debug()));
    }
    duration::parse(text).map_err(|reason| format!("invalid duration \"{}\": {reason}", text.escape_debug()))
}

/// One text or an array of texts.
pub(super) fn texts(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::Text(text) => Ok(vec![text.clone()]),
        Value::Array(_) => array_of_texts(node),
        _ => Err(expected("a string or an array of strings", node)),
    }
}

/// An array of texts.
pub(super) fn array_of_texts(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::Array(items) => items.iter().map(|item| text(item).map(str::to_owned)).collect(),
        _ => Err(expected("an array of strings", node)),
    }
}

/// A map of texts.
pub(super) fn map_of_texts(node: &Node) -> Result<Vec<(String, String)>, String> {
    match &node.value {
        Value::Map(map) => map
            .entries()
            .map(|(key, entry)| {
                let value = text(&entry.node).map_err(|reason| format!("\"{}\": {reason}", key.escape_debug()))?;
                Ok((key.to_owned(), value.to_owned()))
            })
            .collect(),
        _ => Err(expected("a map of strings", node)),
    }
}

/// A port; -1 asks for a random one.
pub(super) fn port(number: i64) -> Result<PortSpec, String> {
    if number == -1 {
        return Ok(PortSpec::Any);
    }
    u16::try_from(number)
        .map(PortSpec::Fixed)
        .map_err(|_| format!("{number} is not a port (0 to 65535, or -1 for a random one)"))
}

/// A port alone, or `host:port`, the host perhaps in brackets. No host if it is empty.
pub(super) fn address(node: &Node) -> Result<(Option<String>, PortSpec), String> {
    let text = match &node.value {
        Value::Integer(number) => return Ok((None, port(*number)?)),
        Value::Text(text) => text,
        _ => return Err(expected("a port or \"host:port\"", node)),
    };
    let malformed = || format!("could not parse address string \"{}\"; write host:port", text.escape_debug());
    let (host, number) = text.rsplit_once(':').ok_or_else(malformed)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bracketed.is_none() && host.contains([':', '[', ']']) {
        return Err(malformed());
    }
    let number: i64 = number.parse().map_err(|_| format!("could not parse port \"{}\"", number.escape_debug()))?;
    let host = bracketed.unwrap_or(host);
    Ok(((!host.is_empty()).then(|| host.to_owned()), port(number)?))
}

/// An array of addresses, see [`address`].
pub(super) fn addresses(node: &Node) -> Result<Vec<ListenAddress>, String> {
    let Value::Array(items) = &node.value else {
        return Err(expected("an array of addresses", node));
    };
    items.iter().map(|item| address(item).map(|(host, port)| ListenAddress { host, port })).collect()
}

/// A number of something that cannot be negative and must fit into memory arithmetic.
pub(super) fn count(number: i64) -> Result<usize, String> {
    usize::try_from(number).map_err(|_| format!("{number} is negative"))
}

/// A subject that may be subscribed to.
pub(super) fn subject(text: &str) -> Result<String, String> {
    if subject::is_valid_subscription(text.as_bytes()) {
        Ok(text.to_owned())
    } else {
        Err(format!("subject \"{}\" is not a valid subject", text.escape_debug()))
    }
}

/// A public nkey of the given kind.
pub(super) fn public_nkey(text: &str, kind: &nkeys::KeyPairType, owner: &str) -> Result<String, String> {
    match nkeys::KeyPair::from_public_key(text) {
        Ok(pair) if pair.key_pair_type() == *kind => Ok(text.to_owned()),
        _ => Err(format!("Not a valid public nkey for {owner}: \"{}\"", text.escape_debug())),
    }
}

/// What an on-off key of several notations says: a boolean, `enabled` or `disabled`.
pub(super) fn enabled(node: &Node) -> Option<Result<bool, String>> {
    match &node.value {
        Value::Boolean(on) => Some(Ok(*on)),
        Value::Text(text) if text.eq_ignore_ascii_case("enabled") => Some(Ok(true)),
        Value::Text(text) if text.eq_ignore_ascii_case("disabled") => Some(Ok(false)),
        Value::Text(text) => {
            Some(Err(format!("Expected 'enabled' or 'disabled' for string value, got '{}'", text.escape_debug())))
        }
        _ => None,
    }
}
