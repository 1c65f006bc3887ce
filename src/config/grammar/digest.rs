//! The fingerprint of a configuration.
//!
//! It is the SHA-256 of the values as one line of JSON with sorted keys, written as the reference writes it, so that
//! both servers show the same digest for the same file. Comments, order and quoting do not change it; what variables
//! and included files contribute does.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::{Map, Value};

/// The digest, `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn digest(map: &Map) -> String {
    let mut json = String::new();
    write_map(&mut json, map);
    json.push('\n');
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(json.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn write_map(json: &mut String, map: &Map) {
    let mut entries: Vec<_> = map.entries().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    json.push('{');
    for (i, (key, entry)) in entries.into_iter().enumerate() {
        if i > 0 {
            json.push(',');
        }
        write_text(json, key);
        json.push(':');
        write_value(json, &entry.node.value);
    }
    json.push('}');
}

fn write_value(json: &mut String, value: &Value) {
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Integer(number) => write!(json, "{number}"),
        Value::Float(number) => write!(json, "{number}"),
        Value::Boolean(value) => write!(json, "{value}"),
        Value::Text(text) | Value::DateTime(text) => {
            write_text(json, text);
            Ok(())
        }
        Value::Map(map) => {
            write_map(json, map);
            Ok(())
        }
        Value::Array(items) => {
            json.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    json.push(',');
                }
                write_value(json, &item.value);
            }
            json.push(']');
            Ok(())
        }
    };
}

/// JSON text that could stand in HTML, as Go writes it by default.
fn write_text(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            '"' => json.write_str("\\\""),
            '\\' => json.write_str("\\\\"),
            '\u{8}' => json.write_str("\\b"),
            '\u{c}' => json.write_str("\\f"),
            '\n' => json.write_str("\\n"),
            '\r' => json.write_str("\\r"),
            '\t' => json.write_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => write!(json, "\\u{:04x}", u32::from(c)),
            c => json.write_char(c),
        };
    }
    json.push('"');
}
