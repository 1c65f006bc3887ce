//! Random rules and subjects: verdicts agree with a model that is written the simplest way, with sets of subjects.

use proptest::prelude::*;

use super::*;

/// Tokens of subjects. The last one stands in no rule.
const TOKENS: [&str; 3] = ["a", "b", "z"];
/// Subjects have one token more than patterns at most, which tells `x.*` from `x.>`.
const PATTERN_TOKENS_MAX: usize = 3;

/// Every subject that the model looks at.
fn universe() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut longest: Vec<String> = vec![String::new()];
    for _ in 0..=PATTERN_TOKENS_MAX {
        let longer = |subject: &String| {
            let subject = subject.clone();
            TOKENS.map(|token| if subject.is_empty() { token.to_owned() } else { format!("{subject}.{token}") })
        };
        longest = longest.iter().flat_map(longer).collect();
        all.extend(longest.iter().cloned());
    }
    all
}

fn fits(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some(p), Some(s)) if p == "*" || p == s => {}
            _ => return false,
        }
    }
}

/// Whether `outer` has every subject of `inner`.
fn contains(universe: &[String], outer: &str, inner: &str) -> bool {
    universe.iter().filter(|subject| fits(inner, subject)).all(|subject| fits(outer, subject))
}

fn pattern() -> impl Strategy<Value = String> {
    let token = prop_oneof![Just("a"), Just("b"), Just("*")];
    (prop::collection::vec(token, 0..PATTERN_TOKENS_MAX), prop_oneof![Just("a"), Just("b"), Just("*"), Just(">")])
        .prop_map(|(mut tokens, last)| {
            tokens.push(last);
            tokens.join(".")
        })
}

fn queue() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop_oneof![Just("q.a"), Just("q.b"), Just("r")].prop_map(str::to_owned))
}

fn rule() -> impl Strategy<Value = config::SubjectRule> {
    let queue = prop::option::of(prop_oneof![Just("q.a"), Just("q.*"), Just("r"), Just(">")].prop_map(str::to_owned));
    (pattern(), queue).prop_map(|(subject, queue)| config::SubjectRule { subject, queue })
}

fn rules() -> impl Strategy<Value = config::SubjectRules> {
    let list = || prop::collection::vec(rule(), 0..12);
    (prop::option::of(list()), list()).prop_map(|(allow, deny)| config::SubjectRules { allow, deny })
}

/// What the rules that `apply` to a subject say of a member of `queue`: those that name queue groups come first.
fn verdict(rules: &[config::SubjectRule], queue: Option<&str>, apply: impl Fn(&str) -> bool) -> (bool, Option<bool>) {
    let applying: Vec<_> = rules.iter().filter(|rule| apply(&rule.subject)).collect();
    let plain = applying.iter().any(|rule| rule.queue.is_none());
    let named: Vec<&str> = applying.iter().filter_map(|rule| rule.queue.as_deref()).collect();
    let queues = queue.filter(|_| !named.is_empty()).map(|queue| named.iter().any(|named| fits(named, queue)));
    (plain, queues)
}

fn compiled(publish: &config::SubjectRules, subscribe: &config::SubjectRules) -> Permissions {
    let (publish, subscribe) = (publish.clone(), subscribe.clone());
    Permissions::new(&config::Permissions { publish, subscribe, responses: None })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Publishing, whatever is remembered, and after the rules have changed.
    #[test]
    fn publishing(first in rules(), second in rules()) {
        let universe = universe();
        let nothing = config::SubjectRules::default();
        let mut permits = Permits::new(Arc::new(compiled(&first, &nothing)));
        for rules in [&first, &second] {
            permits.renew(&Arc::new(compiled(rules, &nothing)));
            for subject in universe.iter().chain(&universe) {
                let named = |list: &[config::SubjectRule]| list.iter().any(|rule| fits(&rule.subject, subject));
                let expected = rules.allow.as_deref().is_none_or(named) && !named(&rules.deny);
                prop_assert_eq!(permits.may_publish(subject.as_bytes(), &mut 0), expected, "{}", subject);
            }
        }
    }

    /// A subscription is allowed if its subjects are, all of them; denials count for the pattern as it is written.
    #[test]
    fn subscribing(rules in rules(), pattern in pattern(), queue in queue()) {
        let universe = universe();
        let permissions = compiled(&config::SubjectRules::default(), &rules);
        let queue = queue.as_deref();
        let allowed = rules.allow.as_ref().is_none_or(|allow| {
            let (plain, queues) = verdict(allow, queue, |rule| contains(&universe, rule, &pattern));
            queues.unwrap_or(plain)
        });
        let (plain, queues) = verdict(&rules.deny, queue, |rule| fits(rule, &pattern));
        let denied = queues.unwrap_or(plain);
        let actual = permissions.may_subscribe(pattern.as_bytes(), queue.map(str::as_bytes), &mut 0);
        prop_assert_eq!(actual.is_some(), allowed && !denied);
    }

    /// Whatever subscription there is, no message of a denied subject comes through it, and no other one is kept back.
    #[test]
    fn receiving(rules in rules(), pattern in pattern(), queue in queue()) {
        let permissions = Arc::new(compiled(&config::SubjectRules::default(), &rules));
        let queue = queue.as_deref();
        let Some(receives) = permissions.may_subscribe(pattern.as_bytes(), queue.map(str::as_bytes), &mut 0) else {
            return Ok(());
        };
        let mut permits = Permits::new(permissions);
        for subject in universe().iter().filter(|subject| fits(&pattern, subject)) {
            let (plain, queues) = verdict(&rules.deny, queue, |rule| fits(rule, subject));
            let denied = plain || queues.unwrap_or(false);
            let mut passes = || {
                receives == Receives::All || permits.may_receive(subject.as_bytes(), queue.map(str::as_bytes), &mut 0)
            };
            // A literal subject has had its verdict when it was subscribed to.
            if has_wildcard(pattern.as_bytes()) {
                prop_assert_eq!(passes(), !denied, "{}", subject);
                prop_assert_eq!(passes(), !denied, "{} remembered", subject);
            } else {
                prop_assert!(passes());
            }
        }
    }
}
