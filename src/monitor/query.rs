//! The query part of a request, read with Go's rules and refused with Go's words.
#![forbid(unsafe_code)]

use std::num::IntErrorKind;
use std::str::FromStr;

/// Decoded parameters in the order given.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Splits and decodes. As in Go, a pair with a bad escape or a semicolon is left out.
    pub(super) fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
        Self(
            pairs
                .filter_map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((decode(name)?, decode(value)?))
                })
                .collect(),
        )
    }

    /// The first value of a parameter, empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// A boolean, false if absent.
    pub(super) fn boolean(&self, name: &str) -> Result<bool, String> {
        match self.get(name) {
            "" => Ok(false),
            text => crate::config::values::boolean(text)
                .map_err(|_| format!("Error decoding boolean for '{name}': {}", go_error("ParseBool", text, SYNTAX))),
        }
    }

    /// A signed number, 0 if absent.
    pub(super) fn int(&self, name: &str) -> Result<i64, String> {
        self.number(name, "int", "Atoi")
    }

    /// A signed number, 0 if there is none, and the nearest there is to one that is too large.
    pub(super) fn int_or_zero(&self, name: &str) -> i64 {
        self.get(name).parse().unwrap_or_else(|error: std::num::ParseIntError| match error.kind() {
            IntErrorKind::PosOverflow => i64::MAX,
            IntErrorKind::NegOverflow => i64::MIN,
            _ => 0,
        })
    }

    /// An unsigned number, 0 if absent.
    pub(super) fn unsigned(&self, name: &str) -> Result<u64, String> {
        // Unlike Rust's, Go's unsigned numbers take no plus sign.
        match self.get(name) {
            text if text.starts_with('+') => {
                Err(format!("Error decoding uint64 for '{name}': {}", go_error("ParseUint", text, SYNTAX)))
            }
            _ => self.number(name, "uint64", "ParseUint"),
        }
    }

    fn number<T>(&self, name: &str, kind: &str, function: &str) -> Result<T, String>
    where
        T: Default + FromStr<Err = std::num::ParseIntError>,
    {
        match self.get(name) {
            "" => Ok(T::default()),
            text => text.parse().map_err(|error: std::num::ParseIntError| {
                let reason = match error.kind() {
                    IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                    _ => SYNTAX,
                };
                format!("Error decoding {kind} for '{name}': {}", go_error(function, text, reason))
            }),
        }
    }
}

const SYNTAX: &str = "invalid syntax";

fn go_error(function: &str, text: &str, reason: &str) -> String {
    format!("strconv.{function}: parsing {text:?}: {reason}")
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            byte => byte,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding() {
        let query = Query::parse("a=1&b=x+y%20%C3%A9&c&a=2&d=%zz&e=1;f=2&&g=h=i");
        for (name, value) in [("a", "1"), ("b", "x y é"), ("c", ""), ("d", ""), ("e", ""), ("g", "h=i"), ("z", "")] {
            assert_eq!(query.get(name), value, "{name}");
        }
    }

    /// The texts of the 400 answers are the reference's.
    #[test]
    fn errors() {
        let query = Query::parse("a=zz&b=%201&c=99999999999999999999&d=-3&e=%22%0A&f=%2B5");
        let error = |result: Result<i64, String>| result.unwrap_err();
        assert_eq!(
            query.boolean("a").unwrap_err(),
            "Error decoding boolean for 'a': strconv.ParseBool: parsing \"zz\": invalid syntax"
        );
        assert_eq!(error(query.int("b")), "Error decoding int for 'b': strconv.Atoi: parsing \" 1\": invalid syntax");
        assert_eq!(
            error(query.int("c")),
            "Error decoding int for 'c': strconv.Atoi: parsing \"99999999999999999999\": value out of range"
        );
        assert_eq!(
            query.unsigned("d").unwrap_err(),
            "Error decoding uint64 for 'd': strconv.ParseUint: parsing \"-3\": invalid syntax"
        );
        assert_eq!(
            error(query.int("e")),
            "Error decoding int for 'e': strconv.Atoi: parsing \"\\\"\\n\": invalid syntax"
        );
        assert!(query.unsigned("f").is_err());
        assert_eq!(query.int("f"), Ok(5));
        assert_eq!(query.unsigned("absent"), Ok(0));
    }

    #[test]
    fn numbers_without_errors() {
        let query = Query::parse("a=7&b=-7&c=zz&d=99999999999999999999&e=-99999999999999999999&f=1_0&g=%2B5");
        for (name, number) in
            [("a", 7), ("b", -7), ("c", 0), ("d", i64::MAX), ("e", i64::MIN), ("f", 0), ("g", 5), ("absent", 0)]
        {
            assert_eq!(query.int_or_zero(name), number, "{name}");
        }
    }
}
