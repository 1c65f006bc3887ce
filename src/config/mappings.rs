//! Subject mappings: what a published subject becomes before it is matched.
//!
//! A destination is a subject whose tokens may take from the source's wildcards: `$1` or `{{wildcard(1)}}`, and the
//! functions of [`Part`]. A function is a whole token; inside a longer one it is ordinary text. Here mappings are read
//! and checked; nothing is mapped.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};

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
    pub tokens: Vec<Part>,
}

/// A token of a destination. Wildcards are counted from one; number 0 is the first token of the subject, as for the
/// reference server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Fixed text.
    Literal(String),
    /// The tokens that the source's `>` matched.
    Rest,
    /// `wildcard(n)`, `$n`, or in an import the next `*`: what a wildcard of the source matched.
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
    ("SplitFromLeft", Cut::SplitFromLeft),
    ("SplitFromRight", Cut::SplitFromRight),
    ("SliceFromLeft", Cut::SliceFromLeft),
    ("SliceFromRight", Cut::SliceFromRight),
    ("Left", Cut::Left),
    ("Right", Cut::Right),
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
    let mut subjects = HashSet::new();
    for destination in destinations {
        let subject = &destination.transform.text;
        if !subjects.insert(subject) {
            return Err(format!("Error adding mapping for \"{source}\": duplicate entry for \"{subject}\""));
        }
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
        raw.cluster = Some(text.to_owned()).filter(|name| !name.is_empty());
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
    /// Subjects are renamed on import and back: all wildcards of the source must be used, and nothing else.
    Import,
}

const INVALID: &str = "invalid mapping destination: ";
const INVALID_SUBJECT: &str = "invalid subject";

/// Reads the destination of a transform from `source`.
pub(super) fn transform(source: &str, text: &str, purpose: Use) -> Result<Transform, String> {
    let source_tokens: Vec<&str> = source.split('.').collect();
    let wildcards = source_tokens.iter().filter(|token| **token == "*").count();
    let source_rest = source_tokens.last() == Some(&">");
    let mut tokens = Vec::new();
    let mut used = vec![false; wildcards];
    let mut stars = 0;
    for token in text.split('.') {
        if tokens.last() == Some(&Part::Rest) {
            return Err(INVALID_SUBJECT.to_owned());
        }
        let mut part = match token {
            ">" => Part::Rest,
            "*" if purpose == Use::Import => {
                stars += 1;
                Part::Wildcard(stars)
            }
            "" | "*" => return Err(INVALID_SUBJECT.to_owned()),
            token => part(token)?,
        };
        let is_literal = wildcards == 0 && !source_rest;
        let taken = match &mut part {
            Part::Partition { wildcards: hashed, .. } if is_literal => {
                // There is nothing to choose from.
                hashed.clear();
                Vec::new()
            }
            part => wildcards_of(part),
        };
        let first = if purpose == Use::Import || is_literal { 1 } else { 0 };
        if let Some(index) = taken.iter().find(|index| !(first..=wildcards).contains(*index)) {
            return Err(format!("{INVALID}wildcard index out of range in {token}: [{index}]"));
        }
        if purpose == Use::Import && !matches!(part, Part::Literal(_) | Part::Rest | Part::Wildcard(_)) {
            return Err(format!("{INVALID}imports know no function but wildcard, not {token}"));
        }
        for index in taken.into_iter().filter(|index| *index > 0) {
            used[index - 1] = true;
        }
        tokens.push(part);
    }
    if (tokens.last() == Some(&Part::Rest)) != source_rest {
        return Err(INVALID_SUBJECT.to_owned());
    }
    if purpose == Use::Import && used.contains(&false) {
        return Err(format!("{INVALID}not using all of the token wildcard(s) in {text}"));
    }
    Ok(Transform { text: text.to_owned(), tokens })
}

/// The name of something imported whose subject has no wildcards: nothing in it has a meaning, wildcards excepted.
pub(super) fn plain_name(text: &str) -> Result<Transform, String> {
    if !subject::is_valid_subscription(text.as_bytes()) {
        return Err(INVALID_SUBJECT.to_owned());
    }
    let tokens = text.split('.').map(|token| Part::Literal(token.to_owned())).collect();
    Ok(Transform { text: text.to_owned(), tokens })
}

/// A token that is not empty: a function in braces, `$n`, or text.
fn part(token: &str) -> Result<Part, String> {
    if let Some(number) = token.strip_prefix('$')
        && let Some(index) = index(number)
    {
        return Ok(Part::Wildcard(index));
    }
    let call = token.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    if let Some(call) = call.filter(|call| !call.is_empty()) {
        return function(call.trim(), token).map_err(|what| format!("{INVALID}{what}"));
    }
    if token.bytes().any(|byte| byte.is_ascii_whitespace()) {
        return Err(format!("{INVALID}blank in {token}"));
    }
    Ok(Part::Literal(token.to_owned()))
}

/// The number of a wildcard. All below one are the same, see [`Part`].
fn index(text: &str) -> Option<usize> {
    text.parse::<i64>().ok().map(|number| usize::try_from(number).unwrap_or(0))
}

fn function(call: &str, token: &str) -> Result<Part, String> {
    let unknown = || format!("unknown function in {token}");
    let arguments = || format!("wrong arguments in {token}");
    let (name, list) = call.strip_suffix(')').and_then(|call| call.split_once('(')).ok_or_else(unknown)?;
    let name = name.trim();
    let list: Vec<&str> = list.split(',').map(str::trim_start).collect();
    let number = |text: &str| {
        let number = text.trim().parse::<i32>().ok();
        number.and_then(|number| u32::try_from(number).ok()).ok_or_else(arguments)
    };
    let index = |text: &str| index(text.trim()).ok_or_else(arguments);
    match (name, list.as_slice()) {
        (name, [wildcard]) if is_called(name, "Wildcard") => Ok(Part::Wildcard(index(wildcard)?)),
        (name, [buckets, wildcards @ ..]) if is_called(name, "Partition") => Ok(Part::Partition {
            buckets: number(buckets)?,
            wildcards: wildcards.iter().map(|wildcard| index(wildcard)).collect::<Result<_, _>>()?,
        }),
        (name, [buckets]) if is_called(name, "Random") => Ok(Part::Random(number(buckets)?)),
        (name, [wildcard, separator])
            if is_called(name, "Split") && !separator.is_empty() && !separator.contains(' ') =>
        {
            Ok(Part::Split(index(wildcard)?, (*separator).to_owned()))
        }
        (name, given) => {
            let cut = CUTS.iter().find(|(known, _)| is_called(name, known)).map(|(_, cut)| *cut);
            match (cut, given) {
                (Some(cut), [wildcard, position]) => Ok(Part::Cut(cut, index(wildcard)?, number(position)?)),
                (Some(_), _) => Err(arguments()),
                (None, _)
                    if ["Wildcard", "Partition", "Random", "Split"].iter().any(|known| is_called(name, known)) =>
                {
                    Err(arguments())
                }
                (None, _) => Err(unknown()),
            }
        }
    }
}

/// Whether `name` is that of a function, whose words may begin in lower case too.
fn is_called(name: &str, function: &str) -> bool {
    let same = |(given, known): (char, char)| {
        given == known || known.is_ascii_uppercase() && given == known.to_ascii_lowercase()
    };
    name.len() == function.len() && name.chars().zip(function.chars()).all(same)
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
        let parts = |source, text| transform(source, text, Use::Mapping).unwrap().tokens;
        let literal = |text: &str| Part::Literal(text.to_owned());
        assert_eq!(parts("a", "b.c"), [literal("b"), literal("c")]);
        assert_eq!(parts("a.*.*", "$2.x.{{ wildcard( 1 ) }}"), [Part::Wildcard(2), literal("x"), Part::Wildcard(1)]);
        assert_eq!(parts("a.*.>", "b.$0.$1.>"), [literal("b"), Part::Wildcard(0), Part::Wildcard(1), Part::Rest]);
        let partition = |wildcards| Part::Partition { buckets: 10, wildcards };
        assert_eq!(parts("a", "{{partition(10,1,2)}}"), [partition(vec![])]);
        let texts = ["x{{wildcard(1)}}", "{{}}", "{{split(1,", ")}}", "$x", "{{wildcard(1)"].map(literal);
        assert_eq!(parts("a.*", "x{{wildcard(1)}}.{{}}.{{split(1,.)}}.$x.{{wildcard(1)"), texts);
        assert_eq!(
            parts("a.*.*", "{{Partition(10, 1 ,2)}}.{{SplitfromLeft( 1 ,3)}}.{{split(2, -)}}.{{random(5)}}"),
            [
                partition(vec![1, 2]),
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
            ("a.*", "b.*", Use::Mapping, "invalid subject"),
            ("a", "$0", Use::Mapping, "invalid mapping destination: wildcard index out of range in $0: [0]"),
            ("a.*", "$0", Use::Import, "invalid mapping destination: wildcard index out of range in $0: [0]"),
            ("a.*", "b c", Use::Mapping, "invalid mapping destination: blank in b c"),
            (
                "a.*",
                "{{WildCard(1)}}",
                Use::Mapping,
                "invalid mapping destination: unknown function in {{WildCard(1)}}",
            ),
            ("a.*", "{{split(1,- )}}", Use::Mapping, "invalid mapping destination: wrong arguments in {{split(1,- )}}"),
            ("a.*", "{{nope(1)}}", Use::Mapping, "invalid mapping destination: unknown function in {{nope(1)}}"),
            ("a.*", "{{left(1)}}", Use::Mapping, "invalid mapping destination: wrong arguments in {{left(1)}}"),
            ("a.*", "{{random(x)}}", Use::Mapping, "invalid mapping destination: wrong arguments in {{random(x)}}"),
            (
                "a.*",
                "{{random(2)}}.$1",
                Use::Import,
                "invalid mapping destination: imports know no function but wildcard, not {{random(2)}}",
            ),
            ("a.*", "b", Use::Import, "invalid mapping destination: not using all of the token wildcard(s) in b"),
        ];
        for (source, text, purpose, expected) in cases {
            assert_eq!(transform(source, text, *purpose).unwrap_err(), *expected, "{source} {text}");
        }
        assert!(transform("a.*", "b", Use::Mapping).is_ok());
    }
}
