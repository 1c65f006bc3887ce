//! Lists of subjects, as permissions have them, in an order in which they are found without looking at each.
//!
//! Rules are sorted by their tokens, so that those that begin with the same tokens stand side by side, and a part of
//! the list stands for a node of a trie: what continues with a token is found by bisection. Long lists cost little more
//! time than short ones, and no list costs memory beside its rules.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;

use smallvec::{SmallVec, smallvec};

use crate::config::permissions::SubjectRule;
use crate::subject::{ONE, REST, tokens};

/// Parts of a list that a search for an overlap looks at, at most. Whoever asks for more is told "perhaps".
const PARTS_MAX: usize = 256;
/// Branches that a search keeps without allocating.
const BRANCHES_INLINE: usize = 16;

/// Counts the rules that were looked at: the time that verdicts have taken.
pub type Looks = u64;

/// A list of rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rules(Box<[Rule]>);

/// The order of the fields is that of the list.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    subject: Box<[u8]>,
    queue: Option<Box<[u8]>>,
}

/// How a rule applies to what is asked about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// It matches the subject, whose wildcards are only names.
    Matches,
    /// It has every subject of the pattern.
    Covers,
}

/// Rules that begin with the same tokens.
#[derive(Clone, Copy)]
struct Part<'a> {
    rules: &'a [Rule],
    key: fn(&Rule) -> &[u8],
    /// Bytes of those tokens, a separator behind each.
    at: usize,
}

impl Rules {
    pub(super) fn new(rules: &[SubjectRule]) -> Self {
        let rule = |rule: &SubjectRule| Rule {
            subject: rule.subject.as_bytes().into(),
            queue: rule.queue.as_ref().map(|queue| queue.as_bytes().into()),
        };
        let mut rules: Vec<Rule> = rules.iter().map(rule).collect();
        rules.sort_by(|a, b| {
            let [queue_a, queue_b] =
                [a, b].map(|rule| rule.queue.as_deref().map(|queue| tokens(queue).collect::<Vec<_>>()));
            tokens(&a.subject).cmp(tokens(&b.subject)).then_with(|| queue_a.cmp(&queue_b))
        });
        rules.dedup();
        Self(rules.into())
    }

    /// Whether a rule matches the subject.
    pub(super) fn name(&self, subject: &[u8], looks: &mut Looks) -> bool {
        !has_gap(subject)
            && Part::all(&self.0).walk(subject, Relation::Matches, looks, |_, _| ControlFlow::Break(())).is_break()
    }

    /// What the rules that match a subject say of it, whose wildcards are only names; see [`Verdict`].
    pub(super) fn matching(&self, subject: &[u8], queue: Option<&[u8]>, looks: &mut Looks) -> Verdict {
        if has_gap(subject) { Verdict::default() } else { self.verdict(subject, queue, Relation::Matches, looks) }
    }

    /// What the rules that have every subject of a pattern say of it; see [`Verdict`].
    pub(super) fn covering(&self, pattern: &[u8], queue: Option<&[u8]>, looks: &mut Looks) -> Verdict {
        if has_gap(pattern) { Verdict::default() } else { self.verdict(pattern, queue, Relation::Covers, looks) }
    }

    fn verdict(&self, subject: &[u8], queue: Option<&[u8]>, relation: Relation, looks: &mut Looks) -> Verdict {
        let mut verdict = Verdict::default();
        let _ = Part::all(&self.0).walk(subject, relation, looks, |same, looks| {
            // Rules without a queue group come first.
            let groups = same.partition_point(|rule| rule.queue.is_none());
            verdict.plain |= groups > 0;
            if let (Some(queue), groups @ [_, ..]) = (queue, &same[groups..]) {
                let part = Part { rules: groups, key: |rule| rule.queue.as_deref().unwrap_or_default(), at: 0 };
                let fits = part.walk(queue, Relation::Covers, looks, |_, _| ControlFlow::Break(())).is_break();
                verdict.of_queue = Some(verdict.of_queue.unwrap_or(false) || fits);
            }
            ControlFlow::Continue(())
        });
        verdict
    }

    /// Whether a rule and the pattern have a subject in common. `true` also if that would take too long to find out.
    pub(super) fn may_overlap(&self, pattern: &[u8], looks: &mut Looks) -> bool {
        let tokens: SmallVec<[&[u8]; BRANCHES_INLINE]> = tokens(pattern).collect();
        let mut waiting: SmallVec<[(Part<'_>, usize); BRANCHES_INLINE]> = smallvec![(Part::all(&self.0), 0)];
        let mut parts = 0;
        while let Some((part, depth)) = waiting.pop() {
            parts += 1;
            if parts > PARTS_MAX {
                return true;
            }
            let Some(token) = tokens.get(depth) else {
                if !part.ended(looks).is_empty() {
                    return true;
                }
                continue;
            };
            if !part.child(REST, looks).is_empty() {
                return true;
            }
            match *token {
                REST if part.ended(looks).len() < part.rules.len() => return true,
                REST => {}
                ONE => {
                    for child in part.children(looks) {
                        if waiting.len() > PARTS_MAX {
                            return true;
                        }
                        waiting.push((child, depth + 1));
                    }
                }
                token => waiting.extend([token, ONE].map(|token| (part.child(token, looks), depth + 1))),
            }
            waiting.retain(|(part, _)| !part.is_empty());
        }
        false
    }
}

/// What the rules that apply to a subject say of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// A rule without queue group is among them.
    pub(super) plain: bool,
    /// Where somebody is in a queue group and rules with queue groups are among them: whether one names his. This counts
    /// more than the other.
    pub(super) of_queue: Option<bool>,
}

impl<'a> Part<'a> {
    fn all(rules: &'a [Rule]) -> Self {
        Self { rules, key: |rule| &rule.subject, at: 0 }
    }

    fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The token of a rule behind those that all have.
    fn token<'r>(&self, rule: &'r Rule) -> Option<&'r [u8]> {
        let key = (self.key)(rule);
        key.get(self.at..).and_then(|rest| tokens(rest).next())
    }

    fn bisect(&self, looks: &mut Looks, is_before: impl Fn(Option<&[u8]>) -> bool) -> usize {
        self.rules.partition_point(|rule| {
            *looks += 1;
            is_before(self.token(rule))
        })
    }

    /// The rules without a further token.
    fn ended(&self, looks: &mut Looks) -> &'a [Rule] {
        &self.rules[..self.bisect(looks, |token| token.is_none())]
    }

    /// The rules that go on with `token`.
    fn child(&self, token: &[u8], looks: &mut Looks) -> Self {
        let from = self.bisect(looks, |found| found < Some(token));
        let part = Self { rules: &self.rules[from..], ..*self };
        let rules = &part.rules[..part.bisect(looks, |found| found == Some(token))];
        Self { rules, at: self.at + token.len() + 1, ..*self }
    }

    /// The rules that go on, by the token with which they do.
    fn children<'l>(&self, looks: &'l mut Looks) -> impl Iterator<Item = Self> + use<'a, 'l> {
        let ended = self.ended(looks).len();
        let mut left = Self { rules: &self.rules[ended..], ..*self };
        std::iter::from_fn(move || {
            let token = left.token(left.rules.first()?)?;
            let child = left.child(token, looks);
            left.rules = &left.rules[child.rules.len()..];
            Some(child)
        })
    }

    /// Calls `visit` with the rules that apply to `subject`, those with the same subject together, until it breaks.
    fn walk(
        &self,
        subject: &[u8],
        relation: Relation,
        looks: &mut Looks,
        mut visit: impl FnMut(&'a [Rule], &mut Looks) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let tokens: SmallVec<[&[u8]; BRANCHES_INLINE]> = tokens(subject).collect();
        let mut waiting: SmallVec<[(Self, usize); BRANCHES_INLINE]> = smallvec![(*self, 0)];
        while let Some((part, depth)) = waiting.pop() {
            let Some(&token) = tokens.get(depth) else {
                let ended = part.ended(looks);
                if !ended.is_empty() {
                    visit(ended, looks)?;
                }
                continue;
            };
            let rest = part.child(REST, looks);
            if !rest.is_empty() {
                visit(rest.rules, looks)?;
            }
            let is_wildcard = token == ONE || token == REST;
            let star = (token != REST || relation == Relation::Matches).then_some(ONE);
            for token in star.into_iter().chain((!is_wildcard).then_some(token)) {
                let child = part.child(token, looks);
                if !child.is_empty() {
                    waiting.push((child, depth + 1));
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Whether a token is empty: such a subject matches nothing.
fn has_gap(subject: &[u8]) -> bool {
    tokens(subject).any(<[u8]>::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many rules there are, few are looked at; where that cannot be, the answer errs on the safe side.
    #[test]
    fn long_lists_cost_little() {
        let list = |count: usize, form: fn(usize) -> (String, Option<String>)| {
            let rule = |n| {
                let (subject, queue) = form(n);
                SubjectRule { subject, queue }
            };
            Rules::new(&(0..count).map(rule).collect::<Vec<_>>())
        };
        for count in [1, 10, 20_000] {
            let rules = [
                list(count, |n| (format!("a.{n}.>"), None)),
                list(count, |n| (format!("a.{n}.x.*"), None)),
                list(count, |n| (format!("*.{n}.*.b"), None)),
                list(count, |n| (format!("q{n}"), Some(format!("g.{n}")))),
                list(count, |n| ("q0".to_owned(), Some(format!("g.{n}.*")))),
            ];
            for rules in &rules {
                for subject in ["a.7.x.b", "a.19999.x.b", "nope.7", "q0", "*.*.x.b", "a.*.>", ">", "a"] {
                    let (subject, queue) = (subject.as_bytes(), Some(&b"g.7.z"[..]));
                    let mut looks = 0;
                    rules.name(subject, &mut looks);
                    rules.matching(subject, queue, &mut looks);
                    rules.covering(subject, queue, &mut looks);
                    assert!(looks < 1000, "{count} rules, {looks} looks");
                    let mut looks = 0;
                    rules.may_overlap(subject, &mut looks);
                    assert!(looks < 100 * PARTS_MAX as u64, "{count} rules, {looks} looks");
                }
            }
            let mut looks = 0;
            assert!(rules[0].name(b"a.0.y", &mut looks) && !rules[0].name(b"a.x.y", &mut looks));
            assert!(rules[2].may_overlap(b"*.*.*.b", &mut looks) && !rules[2].may_overlap(b"a.0.y", &mut looks));
            assert_eq!(rules[2].may_overlap(b"*.*.*.c", &mut looks), count > PARTS_MAX, "perhaps");
        }
    }

    /// The order of a list, and what stands in it twice, say nothing.
    #[test]
    fn lists_that_say_the_same() {
        let list = |texts: &[(&str, Option<&str>)]| {
            let rule = |&(subject, queue): &(&str, Option<&str>)| SubjectRule {
                subject: subject.to_owned(),
                queue: queue.map(str::to_owned),
            };
            Rules::new(&texts.iter().map(rule).collect::<Vec<_>>())
        };
        let first = list(&[("b", None), ("a.b", None), ("a-b", None), ("b", Some("q")), ("b", None)]);
        assert_eq!(first, list(&[("b", Some("q")), ("a-b", None), ("a.b", None), ("b", None)]));
        assert_ne!(first, list(&[("a-b", None), ("a.b", None), ("b", None)]));
    }
}
