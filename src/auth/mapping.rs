//! Subjects made from other subjects: mappings of an account, and renamed imports.
#![forbid(unsafe_code)]

use crate::config::mappings as config;
use crate::config::mappings::{Cut, Part};
use crate::subject::{PatternMap, has_wildcard, is_subset, tokens};

/// Makes a subject from one that matches its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    source: Box<[u8]>,
    tokens: Vec<Part>,
}

impl Transform {
    /// From subjects that match `source`, as the configuration says it.
    #[must_use]
    pub fn new(source: &str, transform: &config::Transform) -> Self {
        Self { source: source.as_bytes().into(), tokens: transform.tokens.clone() }
    }

    /// The subject that `subject`, which matches the source, becomes. `random` gives a number below its argument.
    #[must_use]
    pub fn apply(&self, subject: &[u8], random: &mut impl FnMut(u32) -> u32) -> Vec<u8> {
        let given = Captured::new(&self.source, subject);
        let mut out = Vec::with_capacity(subject.len() + 16);
        for (n, part) in self.tokens.iter().enumerate() {
            if n > 0 {
                out.push(b'.');
            }
            given.write(part, subject, random, &mut out);
        }
        out
    }

    /// The way back: the subject that becomes `subject`, which matches what this transform makes. Each wildcard of the
    /// source must stand in it by itself, as those of renamed imports do.
    #[must_use]
    pub fn invert(&self, subject: &[u8]) -> Vec<u8> {
        let mut rest: &[u8] = &[];
        let mut wildcards: Vec<&[u8]> = Vec::new();
        let mut at = 0;
        for (part, token) in self.tokens.iter().zip(tokens(subject)) {
            match part {
                Part::Wildcard(n) => {
                    wildcards.resize(wildcards.len().max(*n), &[]);
                    wildcards[n - 1] = token;
                }
                Part::Rest => {
                    rest = &subject[at..];
                    break;
                }
                _ => {}
            }
            at += token.len() + 1;
        }
        let mut wildcards = wildcards.into_iter();
        let mut out = Vec::with_capacity(subject.len() + 16);
        for (n, token) in tokens(&self.source).enumerate() {
            if n > 0 {
                out.push(b'.');
            }
            out.extend_from_slice(match token {
                b"*" => wildcards.next().unwrap_or_default(),
                b">" => rest,
                literal => literal,
            });
        }
        out
    }
}

/// What the wildcards of a source have matched.
struct Captured<'a> {
    /// The first token of the subject, and what each `*` has matched.
    wildcards: Vec<&'a [u8]>,
    rest: &'a [u8],
}

impl<'a> Captured<'a> {
    fn new(source: &[u8], subject: &'a [u8]) -> Self {
        let mut captured = Self { wildcards: tokens(subject).take(1).collect(), rest: &[] };
        let mut at = 0;
        for (pattern, token) in tokens(source).zip(tokens(subject)) {
            match pattern {
                b"*" => captured.wildcards.push(token),
                b">" => {
                    captured.rest = &subject[at..];
                    break;
                }
                _ => {}
            }
            at += token.len() + 1;
        }
        captured
    }

    /// The token of a wildcard, see [`Part`]. The configuration names only those that the source has.
    fn wildcard(&self, n: usize) -> &'a [u8] {
        self.wildcards.get(n).copied().unwrap_or_default()
    }

    fn write(&self, part: &Part, subject: &[u8], random: &mut impl FnMut(u32) -> u32, out: &mut Vec<u8>) {
        match part {
            Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Part::Rest => out.extend_from_slice(self.rest),
            Part::Wildcard(n) => out.extend_from_slice(self.wildcard(*n)),
            Part::Partition { buckets, wildcards } => {
                let hash = if wildcards.is_empty() {
                    fnv1a(subject.iter())
                } else {
                    fnv1a(wildcards.iter().flat_map(|n| self.wildcard(*n)))
                };
                push_number(out, hash % (*buckets).max(1));
            }
            Part::Random(buckets) => push_number(out, random((*buckets).max(1))),
            Part::Split(n, separator) => split(self.wildcard(*n), separator.as_bytes(), out),
            Part::Cut(cut, n, size) => cut_token(*cut, self.wildcard(*n), *size as usize, out),
        }
    }
}

fn push_number(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// FNV-1a, 32 bits.
fn fnv1a<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A token becomes several where it has separators; empty ones are left out.
fn split(token: &[u8], separator: &[u8], out: &mut Vec<u8>) {
    let mut is_first = true;
    let mut rest = token;
    while !rest.is_empty() {
        let end = memchr::memmem::find(rest, separator).filter(|_| !separator.is_empty());
        let (piece, next) = match end {
            Some(end) => (&rest[..end], &rest[end + separator.len()..]),
            None => (rest, &rest[rest.len()..]),
        };
        if !piece.is_empty() {
            if !std::mem::replace(&mut is_first, false) {
                out.push(b'.');
            }
            out.extend_from_slice(piece);
        }
        rest = next;
    }
}

/// Cuts a token; one that is not longer than `size` stays whole.
fn cut_token(cut: Cut, token: &[u8], size: usize, out: &mut Vec<u8>) {
    if size == 0 || size >= token.len() {
        return out.extend_from_slice(token);
    }
    let from_right = token.len() - size;
    let pieces: Vec<&[u8]> = match cut {
        Cut::SplitFromLeft => vec![&token[..size], &token[size..]],
        Cut::SplitFromRight => vec![&token[..from_right], &token[from_right..]],
        Cut::SliceFromLeft => token.chunks(size).collect(),
        Cut::SliceFromRight => {
            let (first, others) = token.split_at(token.len() % size);
            std::iter::once(first).filter(|first| !first.is_empty()).chain(others.chunks(size)).collect()
        }
        Cut::Left => vec![&token[..size]],
        Cut::Right => vec![&token[from_right..]],
    };
    out.extend_from_slice(&pieces.join(&b'.'));
}

/// The mappings of an account.
#[derive(Debug, Default)]
pub struct Mappings {
    /// By source. Those without wildcards come first.
    by_source: PatternMap<Mapping>,
}

#[derive(Debug)]
struct Mapping {
    source: Box<[u8]>,
    /// Destinations, each with the percentage of messages that go to it or an earlier one.
    destinations: Vec<(u32, Transform)>,
    /// The remaining messages are lost instead of unchanged.
    loses: bool,
}

impl Mapping {
    /// On a server of the cluster `cluster`, if of any.
    fn new(mapping: &config::Mapping, cluster: Option<&str>) -> Self {
        let all = &mapping.destinations;
        let is_named = cluster.is_some() && all.iter().any(|destination| destination.cluster.as_deref() == cluster);
        let scope = cluster.filter(|_| is_named);
        let mut total = 0;
        let here = all.iter().filter(|destination| destination.cluster.as_deref() == scope);
        let destinations = here.map(|destination| {
            total += u32::from(destination.weight);
            (total, Transform::new(&mapping.source, &destination.transform))
        });
        Self {
            source: mapping.source.as_bytes().into(),
            destinations: destinations.collect(),
            loses: all.iter().any(|destination| destination.transform.text == mapping.source),
        }
    }
}

impl Mappings {
    /// As the configuration says it. Destinations for the cluster of the server go before those for none; those for other
    /// clusters do not count.
    #[must_use]
    pub fn new(mappings: &[config::Mapping], cluster: Option<&str>) -> Self {
        let mut all: Vec<Mapping> = mappings.iter().map(|mapping| Mapping::new(mapping, cluster)).collect();
        all.sort_by_key(|mapping| has_wildcard(&mapping.source));
        let mut by_source = PatternMap::default();
        for mapping in all {
            by_source.push(&mapping.source.clone(), mapping);
        }
        Self { by_source }
    }

    /// Whether nothing is ever mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_source.is_empty()
    }

    /// What a published subject becomes; `None` if it stays. It becomes empty, and nobody gets the message, where the
    /// source is listed among its own destinations and the weights leave something over.
    ///
    /// A token `*` or `>` of the subject is taken by the same wildcard of a source, and by no smaller one.
    #[must_use]
    pub fn map(&self, subject: &[u8], random: &mut impl FnMut(u32) -> u32) -> Option<Vec<u8>> {
        let candidates = self.by_source.matching(subject);
        let mapping = candidates.into_iter().find(|mapping| is_subset(subject, &mapping.source))?;
        let chosen = match mapping.destinations.as_slice() {
            [(100, only)] => only,
            several => {
                let number = random(100);
                match several.iter().find(|(below, _)| number < *below) {
                    Some((_, chosen)) => chosen,
                    None => return mapping.loses.then(Vec::new),
                }
            }
        };
        Some(chosen.apply(subject, random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform(source: &str, tokens: Vec<Part>) -> Transform {
        Transform { source: source.as_bytes().into(), tokens }
    }

    fn apply(source: &str, part: Part, subject: &str) -> String {
        let made = transform(source, vec![Part::Literal("t".into()), part]).apply(subject.as_bytes(), &mut |_| 3);
        String::from_utf8(made).unwrap()
    }

    /// Results of nats-server's functions for the same arguments.
    #[test]
    fn functions() {
        let cut = |cut, size| Part::Cut(cut, 1, size);
        for (part, expected) in [
            (Part::Wildcard(0), "t.abcdefg"),
            (Part::Wildcard(1), "t.abcdefg"),
            (Part::Wildcard(2), "t.x-y"),
            (Part::Rest, "t.r.s"),
            (Part::Random(9), "t.3"),
            (Part::Split(2, "-".into()), "t.x.y"),
            (cut(Cut::SplitFromLeft, 3), "t.abc.defg"),
            (cut(Cut::SplitFromRight, 3), "t.abcd.efg"),
            (cut(Cut::SliceFromLeft, 3), "t.abc.def.g"),
            (cut(Cut::SliceFromRight, 3), "t.a.bcd.efg"),
            (cut(Cut::Left, 2), "t.ab"),
            (cut(Cut::Right, 2), "t.fg"),
            (cut(Cut::SliceFromLeft, 7), "t.abcdefg"),
            (Part::Partition { buckets: 10, wildcards: vec![1] }, "t.9"),
        ] {
            let got = apply("*.*.>", part.clone(), "abcdefg.x-y.r.s");
            if let Part::Partition { .. } = part {
                let number: u32 = got[2..].parse().unwrap();
                assert_eq!(number, fnv1a(b"abcdefg".iter()) % 10);
            } else {
                assert_eq!(got, expected, "{part:?}");
            }
        }
        assert_eq!(fnv1a(b"foobar".iter()), 0xbf9c_f968, "the value of FNV's own test suite");
    }

    #[test]
    fn there_and_back() {
        let word = |text: &str| Part::Literal(text.into());
        let renamed =
            transform("a.*.b.*.>", vec![word("x"), Part::Wildcard(2), Part::Wildcard(1), word("y"), Part::Rest]);
        let there = renamed.apply(b"a.1.b.2.3.4", &mut |_| 0);
        assert_eq!(there, b"x.2.1.y.3.4");
        assert_eq!(renamed.invert(&there), b"a.1.b.2.3.4");
    }

    #[test]
    fn weights_and_order() {
        let mapping = |source: &str, destinations: &[(u8, &str, Option<&str>)]| config::Mapping {
            source: source.into(),
            destinations: destinations
                .iter()
                .map(|(weight, text, cluster)| config::Destination {
                    transform: config::Transform {
                        text: (*text).into(),
                        tokens: text.split('.').map(|token| Part::Literal(token.into())).collect(),
                    },
                    weight: *weight,
                    cluster: cluster.map(Into::into),
                })
                .collect(),
        };
        let all = [
            mapping("m.*", &[(30, "a", None), (50, "b", None)]),
            mapping("m.one", &[(100, "one", None)]),
            mapping("l", &[(40, "l", None), (20, "x", None)]),
            mapping("c", &[(100, "in.c", Some("C")), (70, "in.none", None), (100, "in.d", Some("D"))]),
            mapping("z", &[(100, "in.c", Some("C"))]),
        ];
        let map = |cluster: Option<&str>, number: u32, subject: &str| {
            let mapped = Mappings::new(&all, cluster).map(subject.as_bytes(), &mut |_| number);
            mapped.map(|subject| String::from_utf8(subject).unwrap())
        };
        assert_eq!(map(None, 99, "m.one").as_deref(), Some("one"), "before m.*");
        for (number, expected) in [(0, Some("a")), (29, Some("a")), (30, Some("b")), (79, Some("b")), (80, None)] {
            assert_eq!(map(None, number, "m.two").as_deref(), expected, "{number}");
        }
        for (number, expected) in [(0, "l"), (39, "l"), (40, "x"), (59, "x"), (60, ""), (99, "")] {
            assert_eq!(map(None, number, "l").as_deref(), Some(expected), "{number}");
        }
        for (cluster, c, z) in [
            (None, "in.none", None),
            (Some("C"), "in.c", Some("in.c")),
            (Some("D"), "in.d", None),
            (Some("E"), "in.none", None),
        ] {
            assert_eq!((map(cluster, 0, "c").as_deref(), map(cluster, 0, "z").as_deref()), (Some(c), z), "{cluster:?}");
        }
        assert_eq!(map(None, 0, "n"), None);
        assert_eq!(map(None, 0, "m.*").as_deref(), Some("a"));
        assert_eq!(map(None, 0, "m.>"), None, "more than m.* takes");
    }
}
