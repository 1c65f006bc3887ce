//! Users, accounts and permissions as a simulated server is told of them, and as the checks know them.
//!
//! A scenario has a row of [`Age`]s: the configuration at the start, and one for each reload. Two accounts of an age
//! share something: what is published in `A` on `s.>` arrives in `B` as `imp.s.>`, if the age says so.

use std::fmt::Write;
use std::path::Path;
use std::sync::LazyLock;

use super::check::matches;
use super::history::{History, PublishRecord, SubRecord, When};
use crate::config::grammar::Sources;
use crate::config::{Options, load};

/// Exports.
pub(super) const EXPORTER: &str = "A";
/// Imports.
pub(super) const IMPORTER: &str = "B";
const EXPORTED: &str = "s.>";
const PREFIX: &str = "imp";

/// Everybody's password.
pub(super) const PASSWORD: &str = "pass";
/// The same as it may stand in the configuration, so that a login is decided elsewhere. The cheapest hash there is.
static HASH: LazyLock<String> = LazyLock::new(|| bcrypt::hash(PASSWORD, 4).expect("a valid cost"));

/// Subjects that are allowed and denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) allow: &'static [&'static str],
    pub(super) deny: &'static [&'static str],
}

/// Everything is allowed.
pub(super) const ALL: Rules = Rules { allow: &[">"], deny: &[] };

/// What one configuration says of a user.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) name: &'static str,
    pub(super) account: &'static str,
    /// The password stands there as a hash.
    pub(super) is_hashed: bool,
    pub(super) publish: Rules,
    pub(super) subscribe: Rules,
}

/// One configuration.
#[derive(Clone, Debug)]
pub(super) struct Age {
    pub(super) users: Vec<User>,
    /// Whether the one account imports from the other.
    pub(super) imports: bool,
}

/// When a reload began, and when the last shard had taken it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reload {
    pub(super) begun: When,
    pub(super) done: When,
}

/// The text of a configuration file.
struct Text(String);

impl Sources for Text {
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Ok(self.0.clone().into_bytes())
    }

    fn environment(&self, _: &str) -> Option<String> {
        None
    }
}

impl Age {
    /// The options that say this.
    pub(super) fn options(&self) -> Options {
        let mut text = String::from("accounts {\n");
        let mut names: Vec<&str> = vec![EXPORTER, IMPORTER];
        names.extend(self.users.iter().map(|user| user.account));
        names.sort_unstable();
        names.dedup();
        for name in names {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name} {{");
            if name == EXPORTER {
                let _ = writeln!(text, "    exports: [{{ stream: \"{EXPORTED}\" }}]");
            }
            if name == IMPORTER && self.imports {
                let import = format!("{{ account: {EXPORTER}, subject: \"{EXPORTED}\" }}");
                let _ = writeln!(text, "    imports: [{{ stream: {import}, prefix: {PREFIX} }}]");
            }
            let users = self.users.iter().filter(|user| user.account == name);
            let _ = writeln!(text, "    users: [{}]\n  }}", users.map(User::text).collect::<Vec<_>>().join(", "));
        }
        text.push_str("}\n");
        match load(Path::new("sim.conf"), &Text(text.clone())) {
            Ok(loaded) => loaded.options,
            Err(error) => panic!("{text}: {error}"),
        }
    }

    /// Whether the user is denied some of what it may subscribe to.
    pub(super) fn binds(&self, user: Option<&str>) -> bool {
        user.and_then(|name| self.user(name)).is_some_and(|user| !user.subscribe.deny.is_empty())
    }

    fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }
}

impl User {
    fn text(&self) -> String {
        let Self { name, is_hashed, publish, subscribe, .. } = self;
        let password = if *is_hashed { &**HASH } else { PASSWORD };
        let rules = |Rules { allow, deny }: &Rules| format!("{{ allow: {allow:?}, deny: {deny:?} }}");
        let permissions = format!("{{ publish: {}, subscribe: {} }}", rules(publish), rules(subscribe));
        format!("{{ user: {name}, password: \"{password}\", permissions: {permissions} }}")
    }
}

impl Rules {
    fn allows(&self, subject: &str) -> bool {
        self.allow.iter().any(|rule| matches(rule, subject)) && !self.denies(subject)
    }

    fn denies(&self, subject: &str) -> bool {
        self.deny.iter().any(|rule| matches(rule, subject))
    }

    /// Whether a subscription is accepted: all of it is allowed, and it is not denied as it is written.
    fn accepts(&self, pattern: &str) -> bool {
        self.allow.iter().any(|rule| contains(rule, pattern)) && !self.denies(pattern)
    }
}

/// Whether `outer` has every subject of `inner`.
fn contains(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Who may do what, and when. Without ages everybody may do everything.
pub(super) struct Rights<'a>(pub(super) &'a History);

impl<'a> Rights<'a> {
    /// The numbers of the ages that some shard may have had between two times; to the end if `to` is none.
    fn ages(&self, from: u64, to: When) -> impl Iterator<Item = usize> + 'a {
        let history = self.0;
        (0..history.ages.len()).filter(move |age| {
            let reload = |number: usize| history.reloads.get(number).copied().unwrap_or_default();
            let has_begun = match age.checked_sub(1) {
                None => true,
                Some(number) => reload(number).begun.is_some_and(|begun| to.is_none_or(|to| begun < to)),
            };
            has_begun && reload(*age).done.is_none_or(|done| done > from)
        })
    }

    fn user_in(&self, age: usize, client: usize) -> Option<&'a User> {
        self.0.ages[age].user(self.0.deeds[client].user?)
    }

    fn account(&self, client: usize) -> Option<&'static str> {
        self.0.ages.iter().find_map(|age| Some(age.user(self.0.deeds[client].user?)?.account))
    }

    /// The subject by which the subscriber's account knows a message, if it ever does.
    pub(super) fn subject_for(&self, publish: &PublishRecord, reader: usize) -> Option<String> {
        let (from, to) = (self.account(publish.client), self.account(reader));
        if from == to {
            return Some(publish.subject.clone());
        }
        let crosses = (from, to) == (Some(EXPORTER), Some(IMPORTER)) && matches(EXPORTED, &publish.subject);
        crosses.then(|| format!("{PREFIX}.{}", publish.subject))
    }

    fn crosses(&self, publish: &PublishRecord, reader: usize) -> bool {
        self.account(publish.client) != self.account(reader)
    }

    /// Whether `publish` may have come to `sub` before `read`.
    pub(super) fn may(&self, publish: &PublishRecord, sub: &SubRecord, read: When) -> bool {
        if self.0.ages.is_empty() {
            return true;
        }
        let (Some(begun), Some(sub_begun)) = (publish.begun, sub.begun) else { return false };
        let Some(subject) = self.subject_for(publish, sub.client) else { return false };
        let may_publish = self.ages(begun, publish.known).any(|age| {
            let is_shared = !self.crosses(publish, sub.client) || self.0.ages[age].imports;
            is_shared && self.user_in(age, publish.client).is_some_and(|user| user.publish.allows(&publish.subject))
        });
        let accepts = |age| self.user_in(age, sub.client).is_some_and(|user| user.subscribe.accepts(&sub.pattern));
        // What a reload has taken away before the message began does not come back with another one.
        let in_force = self.ages(begun, Some(begun)).min().unwrap_or(0);
        let is_subscribed =
            self.ages(sub_begun, sub.confirmed).any(|first| accepts(first) && (first..=in_force).all(accepts));
        let may_receive = self
            .ages(begun, read)
            .any(|age| self.user_in(age, sub.client).is_some_and(|user| !user.subscribe.denies(&subject)));
        may_publish && is_subscribed && may_receive
    }

    /// Whether nothing that a configuration says keeps `publish` from `sub`, whenever shards have taken it.
    pub(super) fn must(&self, publish: &PublishRecord, sub: &SubRecord) -> bool {
        if self.0.ages.is_empty() {
            return true;
        }
        let (Some(begun), Some(sub_begun)) = (publish.begun, sub.begun) else { return false };
        let Some(subject) = self.subject_for(publish, sub.client) else { return false };
        let may_publish = self.ages(begun, publish.known).all(|age| {
            let is_shared = !self.crosses(publish, sub.client) || self.0.ages[age].imports;
            // Without its user the client would be gone, and nothing more would be known of it.
            let user = self.user_in(age, publish.client);
            is_shared && user.is_none_or(|user| user.publish.allows(&publish.subject))
        });
        let may_receive = self.ages(sub_begun, None).all(|age| {
            self.user_in(age, sub.client)
                .is_some_and(|user| user.subscribe.accepts(&sub.pattern) && !user.subscribe.denies(&subject))
        });
        may_publish && may_receive
    }

    /// What clients are told agrees with what they may do.
    pub(super) fn check(&self) -> Result<(), String> {
        for client in 0..self.0.deeds.len() {
            self.check_presence(client)?;
            self.check_refused_publishes(client)?;
            self.check_refused_subs(client)?;
        }
        Ok(())
    }

    /// Who has a user stays, and who has none goes.
    fn check_presence(&self, client: usize) -> Result<(), String> {
        let deeds = &self.0.deeds[client];
        let lacks_user = |age: usize| self.user_in(age, client).is_none();
        let what = match (deeds.connected, deeds.expelled) {
            (Some(connected), Some(expelled)) if !self.ages(connected, Some(expelled)).any(lacks_user) => {
                "was expelled"
            }
            (Some(_), None) if deeds.closed.is_none() && self.0.ages.len().checked_sub(1).is_some_and(lacks_user) => {
                "was not expelled"
            }
            _ => return Ok(()),
        };
        Err(format!("client {client} {what}: {deeds:?}, {:?}", self.0.reloads))
    }

    fn check_refused_publishes(&self, client: usize) -> Result<(), String> {
        let deeds = &self.0.deeds[client];
        let own = || self.0.publishes.iter().filter(|publish| publish.client == client);
        let mut subjects: Vec<&str> = own().map(|publish| &*publish.subject).collect();
        subjects.extend(deeds.refused_publishes.iter().map(|subject| &**subject));
        subjects.sort_unstable();
        subjects.dedup();
        for subject in subjects {
            let told = deeds.refused_publishes.iter().filter(|refused| *refused == subject).count();
            let allows = |age: usize| Some(self.user_in(age, client)?.publish.allows(subject));
            let ages = |publish: &PublishRecord| self.ages(publish.begun.unwrap_or(u64::MAX), publish.known);
            let on_subject = || own().filter(|publish| publish.subject == subject && publish.begun.is_some());
            let most = on_subject().filter(|publish| ages(publish).any(|age| allows(age) == Some(false))).count();
            let due = |publish: &&PublishRecord| {
                publish.known.is_some() && !ages(publish).any(|age| allows(age) == Some(true))
            };
            let least =
                if self.0.ages.is_empty() || deeds.closed.is_some() { 0 } else { on_subject().filter(due).count() };
            if told < least || told > most {
                return Err(format!("client {client} was refused {subject:?} {told} times, not {least} to {most}"));
            }
        }
        Ok(())
    }

    fn check_refused_subs(&self, client: usize) -> Result<(), String> {
        let deeds = &self.0.deeds[client];
        for (sid, is_revoked) in &deeds.refused_subs {
            let known = self.0.subs.iter().find(|sub| sub.client == client && sub.sid == *sid);
            let Some((sub, begun)) = known.and_then(|sub| Some((sub, sub.begun?))) else {
                return Err(format!("client {client} was refused an unknown subscription {sid}"));
            };
            let until = if *is_revoked { None } else { sub.confirmed };
            let denies =
                |age: usize| self.user_in(age, client).is_some_and(|user| !user.subscribe.accepts(&sub.pattern));
            if !self.ages(begun, until).any(denies) {
                return Err(format!("client {client} was refused {sub:?}"));
            }
        }
        let own = self.0.subs.iter().filter(|sub| sub.client == client && !self.0.ages.is_empty());
        for sub in own.filter(|_| deeds.closed.is_none()) {
            let (Some(begun), Some(confirmed), None) = (sub.begun, sub.confirmed, sub.unsub_begun) else { continue };
            let accepts =
                |age: usize| self.user_in(age, client).is_some_and(|user| user.subscribe.accepts(&sub.pattern));
            // All reloads are done at the end.
            let first_ages: Vec<usize> = self.ages(begun, Some(confirmed)).collect();
            let is_lost = first_ages.iter().all(|first| !(*first..self.0.ages.len()).all(accepts));
            let told = deeds.refused_subs.iter().filter(|(sid, _)| *sid == sub.sid).count();
            if told > 1 || is_lost && told == 0 {
                return Err(format!("client {client} was told {told} times that it has lost {sub:?}"));
            }
        }
        Ok(())
    }
}
