//! Subject mappings: what a published subject becomes before it is matched.
//!
//! A destination is a subject whose tokens may take from the source's wildcards: `$1` or `{{wildcard(1)}}`, and the
//! functions of [`Part`]. Here mappings are read and checked; nothing is mapped.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::grammar::{Node, Value};
use super::read;
use super::schema::{Finding, Item, Key, Reading};
use crate::subject;

/// The mapping of one source subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// A subject, wildcards allowed.
    pub source: String,
    /// Where its messages go. Weights sum up to 100 at most in each cluster.
    pub destinations: Vec<Destination>,
}

/// One destination of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The subject.
    pub transform: Transform,
    /// Share of the messages in percent.
    pub weight: u8,
    /// The only cluster in which this applies.
    pub cluster: Option<String>,
}

/// How a subject is made from the tokens of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// As written.
    pub text: String,
    /// One entry for each token.
    pub tokens: Vec<Vec<Part>>,
}

/// A part of a token of a destination. Wildcards are counted from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Fixed text.
    Literal(String),
    /// The tokens that the source's `>` matched.
    Rest,
    /// `wildcard(n)`, `$n`, or the next `*`: what a wildcard of the source matched.
    Wildcard(usize),
    /// `partition(buckets, wildcards…)`: a hash of the wildcards, or of the whole subject if there are none.
    Partition {
        /// Number of partitions.
        buckets: u32,
        /// Wildcards that are hashed.
        wildcards: Vec<usize>,
    },
    /// `random(buckets)`
    Random(u32),
    /// `split(n, separator)`: a token becomes several.
    Split(usize, String),
    /// Cuts a token into two or slices.
    Cut(Cut, usize, u32),
}

/// The functions that cut a token at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// `splitFromLeft(n, position)`
    SplitFromLeft,
    /// `splitFromRight(n, position)`
    SplitFromRight,
    /// `sliceFromLeft(n, size)`
    SliceFromLeft,
    /// `sliceFromRight(n, size)`
    SliceFromRight,
    /// `left(n, length)`
    Left,
    /// `right(n, length)`
    Right,
}

const CUTS: &[(&str, Cut)] = &[
    ("splitfromleft", Cut::SplitFromLeft),
    ("splitfromright", Cut::SplitFromRight),
    ("slicefromleft", Cut::SliceFromLeft),
    ("slicefromright", Cut::SliceFromRight),
    ("left", Cut::Left),
    ("right", Cut::Right),
];

/// Reads a `mappings` block.
pub(super) fn mappings(item: &Item<'_>, reading: &mut Reading) -> Result<Vec<Mapping>, String> {
    let Value::Map(map) = &item.node.value else {
        return Err(format!("expected mappings to be a map, got {}", item.node.value.kind()));
    };
    let mut mappings = Vec::new();
    for (source, entry) in map.entries() {
        match mapping(source, &entry.node, reading) {
            Ok(mapping) => mappings.push(mapping),
            Err(what) => reading.errors.push(Finding { at: entry.key_at.clone(), what }),
        }
    }
    Ok(mappings)
}

fn mapping(source: &str, node: &Node, reading: &mut Reading) -> Result<Mapping, String> {
    read::subject(source)?;
    let destinations = match &node.value {
        Value::Text(text) => {
            let transform = transform(source, text, Use::Mapping)
                .map_err(|what| format!("Error adding mapping for \"{source}\" to \"{text}\": {what}"))?;
            vec![Destination { transform, weight: 100, cluster: None }]
        }
        Value::Array(nodes) => nodes.iter().filter_map(|node| destination(source, node, reading)).collect(),
        Value::Map(_) => destination(source, node, reading).into_iter().collect(),
        other => return Err(format!("Expected an entry for the mapping destination, got {}", other.kind())),
    };
    check_weights(source, &destinations)?;
    Ok(Mapping { source: source.to_owned(), destinations })
}

/// Refuses weights that sum up to more than all, in any cluster.
pub(super) fn check_weights(source: &str, destinations: &[Destination]) -> Result<(), String> {
    let mut totals: HashMap<Option<&str>, usize> = HashMap::new();
    for destination in destinations {
        let total = totals.entry(destination.cluster.as_deref()).or_default();
        *total += usize::from(destination.weight);
        if *total > 100 {
            return Err(format!("Error adding mapping for \"{source}\": total weight needs to be <= 100"));
        }
    }
    Ok(())
}

#[derive(Default)]
struct RawDestination {
    subject: String,
    weight: Option<u8>,
    cluster: Option<String>,
}

const DESTINATION: &[Key<RawDestination>] = &[
    Key::text(&["destination", "dest"], "\"to.$1\"", "The subject that messages get", |raw, text| {
        raw.subject = text.to_owned();
        Ok(())
    }),
    Key::other(&["weight"], "integer or \"n%\"", "100%", "Share of the messages in percent", |raw, item, _| {
        raw.weight = Some(weight(item.node)?);
        Ok(())
    }),
    Key::text(&["cluster"], "C", "Only in this cluster", |raw, text| {
        raw.cluster = Some(text.to_owned());
        Ok(())
    }),
];

fn weight(node: &Node) -> Result<u8, String> {
    let number = match &node.value {
        Value::Integer(number) => Some(*number),
        Value::Text(text) => text.strip_suffix('%').unwrap_or(text).trim().parse().ok(),
        _ => None,
    };
    let weight = number.and_then(|number| u8::try_from(number).ok()).filter(|weight| *weight <= 100);
    weight.ok_or_else(|| "Invalid weight for mapping destination, should be 0 to 100".to_owned())
}

/// Nothing if there were errors, which have been noted.
fn destination(source: &str, node: &Node, reading: &mut Reading) -> Option<Destination> {
    let Value::Map(map) = &node.value else {
        reading.error(&node.at, format!("Expected an entry for the mapping destination, got {}", node.value.kind()));
        return None;
    };
    let errors = reading.errors.len();
    let mut raw = RawDestination::default();
    reading.keys(map, DESTINATION, &mut raw);
    if reading.errors.len() > errors {
        return None;
    }
    let Some(weight) = raw.weight else {
        reading.error(&node.at, format!("Missing weight for mapping destination \"{}\"", raw.subject));
        return None;
    };
    match transform(source, &raw.subject, Use::Mapping) {
        Ok(transform) => Some(Destination { transform, weight, cluster: raw.cluster }),
        Err(what) => {
            let what = format!("Error adding mapping for \"{source}\" to \"{}\": {what}", raw.subject);
            reading.error(&node.at, what);
            None
        }
    }
}

/// What a transform is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Messages are mapped: wildcards of the source may stay unused.
    Mapping,
    /// Subjects are renamed on import and back: all wildcards of the source must be used.
    Import,
}

/// Reads the destination of a transform from `source`.
pub(super) fn transform(source: &str, text: &str, purpose: Use) -> Result<Transform, String> {
    const INVALID: &str = "invalid mapping destination: ";
    let source_tokens: Vec<&str> = source.split('.').collect();
    let wildcards = source_tokens.iter().filter(|token| **token == "*").count();
    let source_rest = source_tokens.last() == Some(&">");
    if !subject::is_valid_subscription(text.as_bytes()) && !text.contains("{{") {
        return Err("invalid subject".to_owned());
    }
    let mut tokens = Vec::new();
    let mut used = vec![false; wildcards];
    let mut stars = 0;
    let mut rest = false;
    for token in split_tokens(text) {
        if rest {
            return Err("invalid subject".to_owned());
        }
        let parts = match token {
            "" => return Err("invalid subject".to_owned()),
            ">" => {
                rest = true;
                vec![Part::Rest]
            }
            "*" => {
                stars += 1;
                if stars > wildcards {
                    return Err("invalid subject".to_owned());
                }
                vec![Part::Wildcard(stars)]
            }
            token => parts(token).map_err(|what| format!("{INVALID}{what}"))?,
        };
        for part in &parts {
            for index in wildcards_of(part) {
                match used.get_mut(index.wrapping_sub(1)) {
                    Some(used) => *used = true,
                    None => return Err(format!("{INVALID}wildcard index out of range in {token}: [{index}]")),
                }
            }
        }
        tokens.push(parts);
    }
    if rest != source_rest {
        return Err("invalid subject".to_owned());
    }
    if purpose == Use::Import && used.contains(&false) {
        return Err(format!("{INVALID}not using all of the token wildcard(s) in {text}"));
    }
    Ok(Transform { text: text.to_owned(), tokens })
}

/// Splits at the points that are not inside braces.
fn split_tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let (mut start, mut offset) = (0, 0);
    while let Some(c) = text[offset..].chars().next() {
        if text[offset..].starts_with("{{") {
            offset += text[offset..].find("}}").map_or(2, |end| end + 2);
        } else {
            if c == '.' {
                tokens.push(&text[start..offset]);
                start = offset + 1;
            }
            offset += c.len_utf8();
        }
    }
    tokens.push(&text[start..]);
    tokens
}

/// The parts of one token: text and functions in braces, or `$n`.
fn parts(token: &str) -> Result<Vec<Part>, String> {
    if let Some(number) = token.strip_prefix('$')
        && let Ok(index) = number.parse()
    {
        return Ok(vec![Part::Wildcard(index)]);
    }
    let mut parts = Vec::new();
    let mut rest = token;
    while let Some(start) = rest.find("{{") {
        let Some(end) = rest[start..].find("}}").map(|end| start + end) else {
            break;
        };
        if start > 0 {
            parts.push(Part::Literal(rest[..start].to_owned()));
        }
        parts.push(function(rest[start + 2..end].trim(), token)?);
        rest = &rest[end + 2..];
    }
    if !rest.is_empty() {
        if rest.bytes().any(|byte| byte.is_ascii_whitespace()) {
            return Err(format!("blank in {token}"));
        }
        parts.push(Part::Literal(rest.to_owned()));
    }
    Ok(parts)
}

fn function(call: &str, token: &str) -> Result<Part, String> {
    let unknown = || format!("unknown function in {token}");
    let arguments = || format!("wrong arguments in {token}");
    let (name, list) = call.strip_suffix(')').and_then(|call| call.split_once('(')).ok_or_else(unknown)?;
    let name = name.trim().to_ascii_lowercase();
    let list: Vec<&str> = list.split(',').map(str::trim).collect();
    let number = |text: &str| text.parse::<u32>().map_err(|_| arguments());
    let index = |text: &str| text.parse::<usize>().map_err(|_| arguments());
    match (name.as_str(), list.as_slice()) {
        ("wildcard", [wildcard]) => Ok(Part::Wildcard(index(wildcard)?)),
        ("partition", [buckets, wildcards @ ..]) => Ok(Part::Partition {
            buckets: number(buckets)?,
            wildcards: wildcards.iter().map(|wildcard| index(wildcard)).collect::<Result<_, _>>()?,
        }),
        ("random", [buckets]) => Ok(Part::Random(number(buckets)?)),
        ("split", [wildcard, separator]) if !separator.is_empty() && !separator.contains(['.', ' ']) => {
            Ok(Part::Split(index(wildcard)?, (*separator).to_owned()))
        }
        (name, arguments_given) => {
            let cut = CUTS.iter().find(|(known, _)| *known == name).map(|(_, cut)| *cut);
            match (cut, arguments_given) {
                (Some(cut), [wildcard, position]) => Ok(Part::Cut(cut, index(wildcard)?, number(position)?)),
                (Some(_), _) => Err(arguments()),
                (None, _) if ["wildcard", "partition", "random", "split"].contains(&name) => Err(arguments()),
                (None, _) => Err(unknown()),
            }
        }
    }
}

fn wildcards_of(part: &Part) -> Vec<usize> {
    match part {
        Part::Wildcard(index) | Part::Split(index, _) | Part::Cut(_, index, _) => vec![*index],
        Part::Partition { wildcards, .. } => wildcards.clone(),
        Part::Literal(_) | Part::Rest | Part::Random(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Destinations are taken apart token by token.
    #[test]
    fn parts_of_destinations() {
        let parts = |source, text| transform(source, text, Use::Mapping).unwrap().tokens.concat();
        let literal = |text: &str| Part::Literal(text.to_owned());
        assert_eq!(parts("a", "b.c"), [literal("b"), literal("c")]);
        assert_eq!(parts("a.*.*", "$2.x.{{ wildcard( 1 ) }}"), [Part::Wildcard(2), literal("x"), Part::Wildcard(1)]);
        assert_eq!(parts("a.*.>", "b.*.>"), [literal("b"), Part::Wildcard(1), Part::Rest]);
        assert_eq!(
            parts("a.*.*", "p-{{Partition(10,1,2)}}.{{SplitFromLeft(1,3)}}.{{split(2,-)}}.{{random(5)}}"),
            [
                literal("p-"),
                Part::Partition { buckets: 10, wildcards: vec![1, 2] },
                Part::Cut(Cut::SplitFromLeft, 1, 3),
                Part::Split(2, "-".to_owned()),
                Part::Random(5),
            ]
        );
    }

    #[test]
    fn refused_destinations() {
        let cases: &[(&str, &str, Use, &str)] = &[
            ("a", "b..c", Use::Mapping, "invalid subject"),
            ("a", "b.*", Use::Mapping, "invalid subject"),
            ("a.>", "b", Use::Mapping, "invalid subject"),
            ("a", "b.>", Use::Mapping, "invalid subject"),
            ("a", "$1", Use::Mapping, "invalid mapping destination: wildcard index out of range in $1: [1]"),
            (
                "a.*",
                "{{wildcard(0)}}",
                Use::Mapping,
                "invalid mapping destination: wildcard index out of range in {{wildcard(0)}}: [0]",
            ),
            ("a.*", "{{nope(1)}}", Use::Mapping, "invalid mapping destination: unknown function in {{nope(1)}}"),
            ("a.*", "{{left(1)}}", Use::Mapping, "invalid mapping destination: wrong arguments in {{left(1)}}"),
            ("a.*", "{{random(x)}}", Use::Mapping, "invalid mapping destination: wrong arguments in {{random(x)}}"),
            ("a.*", "b", Use::Import, "invalid mapping destination: not using all of the token wildcard(s) in b"),
        ];
        for (source, text, purpose, expected) in cases {
            assert_eq!(transform(source, text, *purpose).unwrap_err(), *expected, "{source} {text}");
        }
        assert!(transform("a.*", "b", Use::Mapping).is_ok());
    }
}
