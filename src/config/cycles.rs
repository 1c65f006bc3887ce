//! Imports that would bring to an account what it has given away itself.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};

use super::accounts::Account;
use super::exports::Import;
use super::mappings::Part;
use crate::subject;

/// Longest way that is followed. Subjects can become longer on the way without end.
const STEPS_MAX: usize = 64;
/// Most accounts and subjects that are looked at for one import.
const PLACES_MAX: usize = 10_000;

/// Whether a message or request of `account` can pass `import`, go on through imports of others and come to pass it
/// again.
pub(super) fn is_in_cycle(accounts: &HashMap<&str, &Account>, account: &Account, import: &Import) -> bool {
    let own_pattern = import.local_pattern();
    let mut seen: HashSet<(&str, Vec<u8>)> = HashSet::new();
    let mut pending = vec![(import.account.as_str(), import.subject.clone().into_bytes(), 0)];
    while let Some((name, subject, steps)) = pending.pop() {
        let imports = accounts.get(name).into_iter().flat_map(|account| &account.imports);
        for next in imports.filter(|next| next.is_stream() == import.is_stream() && next.account != name) {
            let Some(met) = subject::intersection(next.local_pattern().as_bytes(), &subject) else { continue };
            let there = subject_there(next, met);
            if next.account == account.name && subject::overlaps(own_pattern.as_bytes(), &there) {
                return true;
            }
            let is_within = steps < STEPS_MAX && seen.len() < PLACES_MAX;
            if is_within && seen.insert((&next.account, there.clone())) {
                pending.push((&next.account, there, steps + 1));
            }
        }
    }
    false
}

/// What `local`, a part of what is imported by its name in the importing account, is called in the other one.
fn subject_there(import: &Import, local: Vec<u8>) -> Vec<u8> {
    let Some(transform) = &import.local else { return local };
    let mut tokens = subject::tokens(&local);
    let (mut by_wildcard, mut rest) = (HashMap::new(), Vec::new());
    for part in &transform.tokens {
        match part {
            Part::Rest => rest.extend(tokens.by_ref()),
            Part::Wildcard(number) => by_wildcard.extend(tokens.next().map(|token| (*number, token))),
            _ => drop(tokens.next()),
        }
    }
    let mut number = 0;
    let mut there: Vec<&[u8]> = Vec::new();
    for token in subject::tokens(import.subject.as_bytes()) {
        match token {
            b"*" => {
                number += 1;
                there.push(by_wildcard.get(&number).copied().unwrap_or(token));
            }
            b">" if !rest.is_empty() => there.append(&mut rest),
            _ => there.push(token),
        }
    }
    there.join(&b'.')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load;
    use super::super::tests::Text;

    fn forms_cycle(accounts: &str) -> bool {
        match load(Path::new("c.conf"), &Text(format!("accounts {{\n{accounts}\n}}"))) {
            Ok(_) => false,
            Err(error) => {
                assert!(error.to_string().contains("import forms a cycle"), "{accounts}: {error}");
                true
            }
        }
    }

    /// The reference finds all of these.
    #[test]
    fn what_comes_back_is_refused() {
        for accounts in [
            "B {exports: [{service: y}], imports: [{service: {account: C, subject: x}, to: y}]}
             C {exports: [{service: x}], imports: [{service: {account: B, subject: y}, to: x}]}",
            "A {exports: [{stream: \">\"}], imports: [{stream: {account: B, subject: \"b.>\"}}]}
             B {exports: [{stream: \"b.>\"}], imports: [{stream: {account: A, subject: \">\"}}]}",
            "A {exports: [{stream: \"a.>\"}], imports: [{stream: {account: B, subject: \"b.>\"}, prefix: a}]}
             B {exports: [{stream: \"b.>\"}], imports: [{stream: {account: A, subject: \"a.>\"}, prefix: b}]}",
            "A {exports: [{stream: \">\"}], imports: [{stream: {account: C, subject: x}}]}
             B {exports: [{stream: x}], imports: [{stream: {account: A, subject: \">\"}}]}
             C {exports: [{stream: x}], imports: [{stream: {account: B, subject: x}}]}",
            "A {exports: [{service: \"a.*.*\"}]
                imports: [{service: {account: B, subject: \"b.*.*\"}, to: \"a.$2.$1\"}]}
             B {exports: [{service: \"b.*.*\"}]
                imports: [{service: {account: A, subject: \"a.*.y\"}, to: \"b.y.*\"}]}",
        ] {
            assert!(forms_cycle(accounts), "{accounts}");
        }
    }

    /// Some of these the reference refuses now and then, by the order in which it happens to meet the accounts.
    #[test]
    fn what_does_not_come_back_is_accepted() {
        for accounts in [
            "A {exports: [{stream: \">\"}], imports: [{stream: {account: C, subject: x}}]}
             B {exports: [{stream: y}], imports: [{stream: {account: A, subject: \">\"}}]}
             C {exports: [{stream: x}], imports: [{stream: {account: B, subject: y}}]}",
            "B {exports: [{service: y}], imports: [{service: {account: C, subject: x.x}, to: y}]}
             C {exports: [{service: x.x}], imports: [{service: {account: B, subject: y}, to: y.s}]}",
            "B {exports: [{service: y}], imports: [{service: {account: C, subject: x}, to: z}]}
             C {exports: [{service: x}], imports: [{service: {account: B, subject: y}, to: x}]}",
            "B {exports: [{service: y}], imports: [{service: {account: C, subject: \"x.*\"}, to: \"y.*\"}]}
             C {exports: [{service: \"x.*\"}], imports: [{service: {account: B, subject: y}, to: x.1}]}",
            "A {exports: [{stream: \">\"}], imports: [{stream: {account: B, subject: \"b.>\"}, prefix: z}]}
             B {exports: [{stream: \"b.>\"}], imports: [{stream: {account: A, subject: \">\"}, prefix: y}]}",
            "A {exports: [{service: \"a.*.*\"}]
                imports: [{service: {account: B, subject: \"b.*.*\"}, to: \"c.$2.$1\"}]}
             B {exports: [{service: \"b.*.*\"}]
                imports: [{service: {account: A, subject: \"a.*.x\"}, to: \"b.y.*\"}]}",
        ] {
            assert!(!forms_cycle(accounts), "{accounts}");
        }
    }
}
