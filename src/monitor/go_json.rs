//! JSON as Go's encoder writes it: `<`, `>`, `&` and two line separators escaped, whole floats without a fraction.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Indented by two blanks.
pub(super) fn indented<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    write(value, PrettyFormatter::new())
}

/// On one line.
pub(super) fn compact<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    write(value, CompactFormatter)
}

fn write<T: Serialize>(value: &T, layout: impl Formatter) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, GoFormatter { layout }))?;
    Ok(bytes)
}

/// Another formatter's layout with Go's text and numbers.
struct GoFormatter<F> {
    layout: F,
}

impl<F: Formatter> Formatter for GoFormatter<F> {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
            self.layout.write_i64(writer, value as i64)
        } else {
            self.layout.write_f64(writer, value)
        }
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, found)) = rest.char_indices().find(|(_, c)| escape(*c).is_some()) {
            writer.write_all(&rest.as_bytes()[..at])?;
            writer.write_all(escape(found).unwrap_or_default().as_bytes())?;
            rest = &rest[at + found.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.layout.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.layout.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_object_value(writer)
    }
}

fn escape(c: char) -> Option<&'static str> {
    match c {
        '<' => Some("\\u003c"),
        '>' => Some("\\u003e"),
        '&' => Some("\\u0026"),
        '\u{2028}' => Some("\\u2028"),
        '\u{2029}' => Some("\\u2029"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_and_numbers_are_go_like() {
        let cases = [
            (json!("a<b>&c"), r#""a\u003cb\u003e\u0026c""#),
            (json!("é\u{2028}\"\\\n>"), r#""é\u2028\"\\\n\u003e""#),
            (json!(2.0), "2"),
            (json!(1.5), "1.5"),
            (json!(-0.25), "-0.25"),
            (json!({}), "{}"),
            (json!([]), "[]"),
            (json!({">": null}), r#"{"\u003e":null}"#),
        ];
        for (value, text) in cases {
            assert_eq!(String::from_utf8(compact(&value).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn indentation() {
        let value = json!({"a": [1, {}], "b": {"c": "d"}});
        let text = "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": {\n    \"c\": \"d\"\n  }\n}";
        assert_eq!(String::from_utf8(indented(&value).unwrap()).unwrap(), text);
    }
}
