//! The grammar and the matching rules as tables, taken from the reference server's answers on the wire; the index
//! against the naive matcher; the promised costs of large, deep and hostile sets of patterns.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{
    Index, Matches, has_wildcard, intersection, is_subset, is_valid_literal, is_valid_subscription, matches, overlaps,
    tokens,
};

/// A pattern, a queue name and a target.
type Subscription = (Vec<u8>, Option<Vec<u8>>, u32);

#[test]
fn tokens_keep_empty_ones() {
    let split = |subject: &'static str| -> Vec<&[u8]> { tokens(subject.as_bytes()).collect() };
    assert_eq!(split("foo"), [b"foo"]);
    assert_eq!(split("foo.b.*"), [&b"foo"[..], b"b", b"*"]);
    assert_eq!(split(".foo."), [&b""[..], b"foo", b""]);
    assert_eq!(split(""), [b""]);
}

#[test]
fn grammar() {
    // Subject, may be subscribed to, is a valid literal, has wildcards.
    let table: &[(&[u8], bool, bool, bool)] = &[
        (b"foo", true, true, false),
        (b"foo.bar.baz", true, true, false),
        (b"*", true, false, true),
        (b">", true, false, true),
        (b"foo.*", true, false, true),
        (b"*.foo.>", true, false, true),
        (b"foo*", true, true, false),
        (b"foo>", true, true, false),
        (b"foo.**.bar", true, true, false),
        (b"*>", true, true, false),
        (b">>", true, true, false),
        (b"foo.*>.b", true, true, false),
        (b"", false, false, false),
        (b".", false, false, false),
        (b".foo", false, false, false),
        (b"foo.", false, false, false),
        (b"foo..bar", false, false, false),
        (b"foo..*", false, false, true),
        (b">.foo", false, false, true),
        (b"foo.>.bar", false, false, true),
        (b">.>", false, false, true),
        (b"foo bar", false, false, false),
        (b"foo.\t", false, false, false),
        (b"foo\r\n", false, false, false),
        (b"a\x0cb", true, true, false),
        (b"a\x00b", true, true, false),
        (b"\xff\xfe.\x85", true, true, false),
    ];
    for (subject, subscription, literal, wildcard) in table {
        let name = subject.escape_ascii();
        assert_eq!(is_valid_subscription(subject), *subscription, "subscription to {name}");
        assert_eq!(is_valid_literal(subject), *literal, "literal {name}");
        assert_eq!(has_wildcard(subject), *wildcard, "wildcard in {name}");
    }
}

/// What the reference server delivers: of these subscriptions, those that a publish reaches.
#[test]
fn publishes_reach_what_the_reference_server_reaches() {
    const PATTERNS: [&str; 11] =
        [">", "*", "*.*", "*.*.*", "foo.>", "foo.*", "foo.*.bar", "*.foo", "foo.bar", "foo*", "foo.\0"];
    let table: &[(&str, &[&str])] = &[
        ("foo", &[">", "*"]),
        ("foo.bar", &[">", "*.*", "foo.>", "foo.*", "foo.bar"]),
        ("foo.x.bar", &[">", "*.*.*", "foo.>", "foo.*.bar"]),
        ("foo*", &[">", "*", "foo*"]),
        // Wildcards in a publish are names.
        ("foo.*", &[">", "*.*", "foo.>", "foo.*"]),
        ("foo.>", &[">", "*.*", "foo.>", "foo.*"]),
        ("foo.*.bar", &[">", "*.*.*", "foo.>", "foo.*.bar"]),
        ("foo.>.bar", &[">", "*.*.*", "foo.>", "foo.*.bar"]),
        (">", &[">", "*"]),
        ("*", &[">", "*"]),
        ("foo.\0", &[">", "*.*", "foo.>", "foo.*", "foo.\0"]),
        // Empty tokens match nothing.
        ("foo..bar", &[]),
        (".foo", &[]),
        ("foo.", &[]),
        (".", &[]),
        ("..", &[]),
        ("", &[]),
    ];
    let mut index = Index::new();
    for (target, pattern) in PATTERNS.iter().enumerate() {
        index.insert(pattern.as_bytes(), None, target);
    }
    for (subject, expected) in table {
        let subject = subject.as_bytes();
        let naive = PATTERNS.iter().filter(|pattern| matches(pattern.as_bytes(), subject));
        assert_eq!(naive.collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());

        let mut out = Matches::new();
        index.matches(subject, &mut out);
        out.plain.sort_unstable();
        assert!(out.plain.iter().map(|target| &PATTERNS[*target]).eq(expected.iter()));
        assert_eq!(index.has_match(subject), !expected.is_empty());
    }
}

#[test]
fn subsets_and_overlaps() {
    // a, b, a within b, b within a, overlap
    let table: &[(&str, &str, bool, bool, bool)] = &[
        ("foo", "foo", true, true, true),
        ("foo", "bar", false, false, false),
        ("foo", "foo.bar", false, false, false),
        ("foo.*", "foo.>", true, false, true),
        ("foo.bar", "foo.*", true, false, true),
        ("foo", "foo.>", false, false, false),
        ("foo.>", "foo.>", true, true, true),
        ("foo.>", ">", true, false, true),
        ("*.>", ">", true, false, true),
        ("foo.*.c", "foo.b.*", false, false, true),
        ("foo.*.c", "foo.b.d", false, false, false),
        ("*.bar", "foo.>", false, false, true),
        ("*.*", "*.>", true, false, true),
        ("*", ">", true, false, true),
        ("foo*", "foo.*", false, false, false),
    ];
    for (a, b, a_within_b, b_within_a, overlap) in table {
        let (left, right) = (a.as_bytes(), b.as_bytes());
        assert_eq!(is_subset(left, right), *a_within_b, "{a} within {b}");
        assert_eq!(is_subset(right, left), *b_within_a, "{b} within {a}");
        assert_eq!(overlaps(left, right), *overlap, "{a} overlaps {b}");
        assert_eq!(overlaps(right, left), *overlap, "{b} overlaps {a}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// All pairs of patterns against every subject up to one token longer, from their own tokens and a foreign one.
    #[test]
    fn subset_and_overlap_agree_with_brute_force(a in pattern(), b in pattern()) {
        let universe = subjects_up_to(5);
        let both = universe.iter().any(|subject| matches(&a, subject) && matches(&b, subject));
        let within = universe.iter().all(|subject| !matches(&a, subject) || matches(&b, subject));
        prop_assert_eq!(overlaps(&a, &b), both);
        let common = intersection(&a, &b);
        prop_assert_eq!(common.is_some(), both);
        for subject in universe.iter().filter(|_| both) {
            let in_common = common.as_ref().is_some_and(|common| matches(common, subject));
            prop_assert_eq!(in_common, matches(&a, subject) && matches(&b, subject));
        }
        prop_assert_eq!(is_subset(&a, &b), within);
    }

    /// After any sequence of insertions and removals the index holds the set that a plain set holds, and answers
    /// like the naive matcher. When all is removed nothing is left, not a byte.
    #[test]
    fn index_agrees_with_naive_matcher(
        steps in vec((any::<bool>(), subscription()), 1..120),
        published in vec(published(), 40),
    ) {
        let mut index = Index::new();
        let mut model: BTreeSet<Subscription> = BTreeSet::new();
        for (is_insert, subscription) in steps {
            let (pattern, queue, target) = &subscription;
            if is_insert {
                index.insert(pattern, queue.as_deref(), *target);
                model.insert(subscription);
            } else {
                let was_there = index.remove(pattern, queue.as_deref(), *target);
                prop_assert_eq!(was_there, model.remove(&subscription));
            }
            prop_assert_eq!(index.len(), model.len());
        }

        let mut out = Matches::new();
        for subject in published {
            out.clear();
            index.matches(&subject, &mut out);
            prop_assert_eq!(summary(&out), naive_summary(&model, &subject));
            prop_assert_eq!(index.has_match(&subject), !out.is_empty());
        }

        prop_assert_eq!(all(&index), model.iter().cloned().collect::<Vec<_>>());
        for (pattern, queue, target) in &model {
            prop_assert!(index.remove(pattern, queue.as_deref(), *target));
        }
        prop_assert!(index.is_empty());
        prop_assert_eq!(index.memory_bytes(), 0);
    }
}

#[test]
fn same_queue_name_on_several_patterns_is_one_group() {
    let mut index = Index::new();
    // More names than are searched one by one, and on several patterns.
    for pattern in ["foo.bar", "foo.*", "*.bar", ">"] {
        for name in 0..100_u32 {
            let target = name * 10 + pattern.len() as u32;
            index.insert(pattern.as_bytes(), Some(&name.to_be_bytes()), target);
        }
    }
    let mut out = Matches::new();
    for round in 0..3 {
        out.clear();
        index.matches(b"foo.bar", &mut out);
        assert_eq!(out.queues.len(), 100, "round {round}");
        for queue in &out.queues {
            let name = u32::from_be_bytes((*queue.name).try_into().expect("four bytes"));
            let mut members = queue.members.clone();
            members.sort_unstable();
            assert_eq!(members, [name * 10 + 1, name * 10 + 5, name * 10 + 5, name * 10 + 7]);
        }
    }
    // Appending to a result continues its groups.
    index.matches(b"x.bar", &mut out);
    assert_eq!(out.queues.len(), 100);
    assert_eq!(out.queues.iter().map(|queue| queue.members.len()).sum::<usize>(), 600);
}

#[test]
fn inserting_twice_is_inserting_once() {
    let mut index = Index::new();
    for (pattern, queue) in [("a", None), ("a", Some(&b"q"[..])), ("a.>", None), (">", None)] {
        index.insert(pattern.as_bytes(), queue, 7);
        index.insert(pattern.as_bytes(), queue, 7);
    }
    assert_eq!(index.len(), 4);
    assert!(!index.remove(b"a", Some(b"other"), 7));
    assert!(!index.remove(b"a", None, 8));
    assert!(!index.remove(b"b.*", None, 7));
    assert_eq!(index.len(), 4);
}

/// The written estimates: at most 150 bytes per literal inbox and 220 per wildcard below a name of its own, at sizes
/// where the tables are emptiest, too.
#[test]
fn memory_per_subscription() {
    let mut inboxes = Index::new();
    let mut tenants = Index::new();
    let mut most = (0, 0);
    for id in 0..120_000_u64 {
        inboxes.insert(&inbox(id), None, id);
        tenants.insert(format!("tenants.{id:08}.*").as_bytes(), None, id);
        if id >= 10_000 {
            let count = id as usize + 1;
            most.0 = most.0.max(inboxes.memory_bytes() / count);
            most.1 = most.1.max(tenants.memory_bytes() / count);
        }
    }
    assert!(most.0 <= 150, "{} bytes per inbox", most.0);
    assert!(most.1 <= 220, "{} bytes per wildcard", most.1);
    for id in 0..120_000_u64 {
        assert!(inboxes.remove(&inbox(id), None, id));
        assert!(tenants.remove(format!("tenants.{id:08}.*").as_bytes(), None, id));
        assert!(!inboxes.has_match(&inbox(id)));
    }
    assert_eq!((inboxes.memory_bytes(), tenants.memory_bytes()), (0, 0));
}

/// With linear lists this would take minutes: 100,000 subscribers come and go on one subject and in one group.
#[test]
fn many_subscribers_of_one_subject() {
    const COUNT: u32 = 100_000;
    let mut index = Index::new();
    for target in 0..COUNT {
        index.insert(b"news.all", None, target);
        index.insert(b"news.*", Some(b"workers"), target);
    }
    let mut out = Matches::new();
    index.matches(b"news.all", &mut out);
    assert_eq!(out.plain.len(), COUNT as usize);
    assert_eq!(out.queues[0].members.len(), COUNT as usize);
    let bytes = index.memory_bytes() / (2 * COUNT as usize);
    assert!(bytes <= 60, "{bytes} bytes per subscriber");
    for target in 0..COUNT {
        assert!(index.remove(b"news.all", None, target));
        assert!(index.remove(b"news.*", Some(b"workers"), target));
    }
    assert_eq!(index.memory_bytes(), 0);
}

/// A pattern of 2,000 tokens fits a control line. Nothing may recurse once per token: the stack here is small.
#[test]
fn deep_patterns_need_no_stack() {
    let work = || {
        let deep = ["a"; 2000].join(".");
        let stars = ["*"; 2000].join(".");
        let rest = format!("{}.>", ["*"; 1999].join("."));
        let patterns = [&deep, &stars, &rest];
        let mut index = Index::new();
        for pattern in patterns {
            assert!(is_valid_subscription(pattern.as_bytes()));
            index.insert(pattern.as_bytes(), None, 1_u32);
        }
        let mut out = Matches::new();
        index.matches(deep.as_bytes(), &mut out);
        assert_eq!(out.plain.len(), 3);
        assert_eq!(all(&index).len(), 3);
        assert!(index.remove(stars.as_bytes(), None, 1));
        drop(index);
    };
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(work);
    thread.expect("a thread").join().expect("no overflow");
}

/// Every combination of `a` and `*` on twelve levels, none of which matches in the end: each node is visited once.
/// A chain of stars beside a chain of names, as deep as a control line allows, has only two paths.
#[test]
fn branching_is_bounded_by_the_number_of_nodes() {
    let mut index = Index::new();
    for choice in 0..1_u32 << 12 {
        let level = |bit: u32| if choice >> bit & 1 == 0 { "a." } else { "*." };
        let pattern: String = (0..12).map(level).chain(["*.end"]).collect();
        index.insert(pattern.as_bytes(), None, choice);
    }
    let subject = ["a"; 14].join(".");
    assert!(!index.has_match(subject.as_bytes()));

    let mut chains = Index::new();
    chains.insert(format!("{}.end.*", ["*"; 1000].join(".")).as_bytes(), None, 1);
    chains.insert(format!("{}.end.*", ["a"; 1000].join(".")).as_bytes(), None, 2);
    assert!(!chains.has_match(["a"; 1002].join(".").as_bytes()));
}

/// Any order of the tokens `a`, `b`, `*`, a token that only looks like a wildcard, and `>` at the end.
fn pattern() -> impl Strategy<Value = Vec<u8>> {
    let named = vec(select(vec!["a", "b", "*", "*", "a*"]), 0..4);
    (named, any::<bool>()).prop_map(|(mut named, ends_with_rest)| {
        if ends_with_rest || named.is_empty() {
            named.push(">");
        }
        named.join(".").into_bytes()
    })
}

fn subscription() -> impl Strategy<Value = Subscription> {
    let queue = proptest::option::of(select(vec![b"q".to_vec(), b"r".to_vec()]));
    (pattern(), queue, 0..30_u32)
}

/// Nothing is excluded here: publishes are not validated.
fn published() -> impl Strategy<Value = Vec<u8>> {
    vec(select(vec!["a", "a", "b", "b", "c", "a*", "*", ">", ""]), 1..5)
        .prop_map(|tokens| tokens.join(".").into_bytes())
}

fn subjects_up_to(token_count: usize) -> Vec<Vec<u8>> {
    let names = ["a", "b", "a*", "c"].map(|name| name.as_bytes().to_vec());
    let mut longest = names.to_vec();
    let mut subjects = longest.clone();
    for _ in 1..token_count {
        longest = longest
            .iter()
            .flat_map(|subject| names.iter().map(move |name| [subject, name].map(|s| &s[..]).join(&b'.')))
            .collect();
        subjects.extend_from_slice(&longest);
    }
    subjects
}

/// Targets by queue name, sorted.
fn summary(out: &Matches<u32>) -> BTreeMap<Option<Vec<u8>>, Vec<u32>> {
    let mut groups = BTreeMap::new();
    if !out.plain.is_empty() {
        groups.insert(None, out.plain.clone());
    }
    for queue in &out.queues {
        let earlier = groups.insert(Some(queue.name.to_vec()), queue.members.clone());
        assert_eq!(earlier, None, "one entry per name");
        assert!(!queue.members.is_empty());
    }
    groups.values_mut().for_each(|targets| targets.sort_unstable());
    groups
}

fn naive_summary(model: &BTreeSet<Subscription>, subject: &[u8]) -> BTreeMap<Option<Vec<u8>>, Vec<u32>> {
    let mut groups: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    for (pattern, queue, target) in model {
        if matches(pattern, subject) {
            groups.entry(queue.clone()).or_default().push(*target);
        }
    }
    groups.values_mut().for_each(|targets| targets.sort_unstable());
    groups
}

fn all(index: &Index<u32>) -> Vec<Subscription> {
    let mut subscriptions = Vec::new();
    index.for_each(|pattern, queue, target| {
        subscriptions.push((pattern.to_vec(), queue.map(<[u8]>::to_vec), target));
    });
    subscriptions.sort();
    subscriptions
}

/// A client's inbox: 35 bytes, of which the client's 22 are shared by its requests.
fn inbox(id: u64) -> Vec<u8> {
    format!("_INBOX.{:022x}.{:05x}", id / 1000, id % 1000).into_bytes()
}
