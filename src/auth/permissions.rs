//! What a user may publish and subscribe to, decided subject by subject.
//!
//! [`Permissions`] are the rules, shared by all connections of a user. [`Permits`] is one connection's view of them: it
//! remembers verdicts about subjects it has seen, and the replies that it may still send.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::rules::{Looks, Rules};
use crate::config::permissions as config;
use crate::subject::{has_wildcard, is_same};

/// The rules of one user.
#[derive(Debug)]
pub struct Permissions {
    id: PermissionsId,
    publish: Directed,
    subscribe: Directed,
    responses: Option<config::ResponsePermission>,
}

/// Names one [`Permissions`]. No other one of this process has it, before or after, so whoever keeps a verdict together
/// with the id of the rules that gave it needs no word of their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PermissionsId(NonZeroU64);

impl PermissionsId {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let last = LAST.fetch_add(1, Ordering::Relaxed);
        Self(NonZeroU64::MIN.saturating_add(last))
    }
}

/// The rules for one direction.
#[derive(Debug, PartialEq, Eq)]
struct Directed {
    /// Everything if absent.
    allow: Option<Rules>,
    deny: Rules,
}

/// What a subscription may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receives {
    /// Every message of its subject.
    All,
    /// Some are denied: each is checked with [`Permissions::may_receive`].
    Some,
}

impl Permissions {
    /// The rules as the configuration gives them.
    #[must_use]
    pub fn new(config: &config::Permissions) -> Self {
        let mut publish = Directed::new(&config.publish);
        if config.responses.is_some() && publish.allow.is_none() {
            // Who may answer requests is not meant to publish whatever else.
            publish.allow = Some(Rules::default());
        }
        let id = PermissionsId::next();
        Self { id, publish, subscribe: Directed::new(&config.subscribe), responses: config.responses }
    }

    /// What tells these rules from all others.
    #[must_use]
    pub fn id(&self) -> PermissionsId {
        self.id
    }

    /// Whether the rules say the same as `other`.
    fn agree(&self, other: &Self) -> bool {
        self.publish == other.publish && self.subscribe == other.subscribe && self.responses == other.responses
    }

    /// Whether the rules allow to publish to `subject`. Replies that are allowed for a while are not among them.
    fn may_publish(&self, subject: &[u8], looks: &mut Looks) -> bool {
        let Directed { allow, deny } = &self.publish;
        allow.as_ref().is_none_or(|allow| allow.name(subject, looks)) && !deny.name(subject, looks)
    }

    /// Whether a subscription to `subject` is allowed, alone or in a queue group; `None` if not. Adds to `looks`.
    ///
    /// A pattern must be within one that is allowed. (The reference server lets `s.>` pass where `s.*` is allowed.) One
    /// that is wider than what is denied is accepted, and messages are checked.
    #[must_use]
    pub fn may_subscribe(&self, subject: &[u8], queue: Option<&[u8]>, looks: &mut Looks) -> Option<Receives> {
        let Directed { allow, deny } = &self.subscribe;
        if let Some(allow) = allow {
            let verdict = allow.covering(subject, queue, looks);
            if !verdict.of_queue.unwrap_or(verdict.plain) {
                return None;
            }
        }
        // Here the pattern counts as a name, as in the reference server: `e.>` is a subject that `e.*` denies.
        let verdict = deny.matching(subject, queue, looks);
        if verdict.of_queue.unwrap_or(verdict.plain) {
            return None;
        }
        let is_partly_denied = has_wildcard(subject) && deny.may_overlap(subject, looks);
        Some(if is_partly_denied { Receives::Some } else { Receives::All })
    }

    /// Whether a subscription in `queue` may get a message on `subject`. Adds to `looks`.
    #[must_use]
    pub fn may_receive(&self, subject: &[u8], queue: Option<&[u8]>, looks: &mut Looks) -> bool {
        let verdict = self.subscribe.deny.matching(subject, queue, looks);
        !verdict.plain && !verdict.of_queue.unwrap_or(false)
    }
}

impl Directed {
    fn new(rules: &config::SubjectRules) -> Self {
        Self { allow: rules.allow.as_deref().map(Rules::new), deny: Rules::new(&rules.deny) }
    }
}

/// Verdicts that a connection remembers.
const VERDICTS: usize = 256;
/// Replies that a connection may owe at once; the oldest are forgotten.
const REPLIES_MAX: usize = 4096;

/// A connection's permissions.
#[derive(Debug)]
pub struct Permits {
    rules: Arc<Permissions>,
    publishes: Memo,
    /// Of subscriptions outside of queue groups.
    receives: Memo,
    replies: HashMap<Box<[u8]>, Owed>,
}

/// Remembered verdicts.
#[derive(Debug, Default)]
struct Memo {
    /// At [`slot_of`] the subject or beside it; empty until the first one.
    verdicts: Vec<Option<(Box<[u8]>, bool)>>,
}

impl Memo {
    #[inline]
    fn get(&mut self, subject: &[u8], decide: impl FnOnce() -> bool) -> bool {
        let known = |entry: &Option<(Box<[u8]>, bool)>| match entry {
            Some((known, verdict)) if is_same(known, subject) => Some(*verdict),
            _ => None,
        };
        let slot = slot_of(subject);
        match self.verdicts.get(slot).and_then(known).or_else(|| self.verdicts.get(slot ^ 1).and_then(known)) {
            Some(verdict) => verdict,
            None => self.learn(subject, slot, decide()),
        }
    }

    /// The newest of two subjects with the same slots stands first, the other one moves on.
    #[inline(never)]
    fn learn(&mut self, subject: &[u8], slot: usize, verdict: bool) -> bool {
        if self.verdicts.is_empty() {
            self.verdicts.resize_with(VERDICTS, || None);
        }
        self.verdicts[slot ^ 1] = self.verdicts[slot].replace((subject.into(), verdict));
        verdict
    }
}

/// Where a verdict about `subject` is looked for: its end tells subjects apart best, and a hash of all of it would cost
/// more than the rest of a publish.
#[inline]
fn slot_of(subject: &[u8]) -> usize {
    let tail = match subject.last_chunk() {
        Some(tail) => u64::from_le_bytes(*tail),
        None => subject.iter().fold(0, |tail, byte| tail << 8 | u64::from(*byte)),
    };
    let mixed = (tail ^ subject.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (u64::BITS - VERDICTS.ilog2())) as usize
}

/// A reply subject that may be published to for a while.
#[derive(Clone, Copy, Debug)]
struct Owed {
    /// When the request was delivered, nanoseconds of the shared clock.
    since: u64,
    sent: u32,
}

impl Permits {
    /// For a connection that has just logged in.
    #[must_use]
    pub fn new(rules: Arc<Permissions>) -> Self {
        Self { rules, publishes: Memo::default(), receives: Memo::default(), replies: HashMap::new() }
    }

    /// Puts other rules in the place of these. `false` if they say the same. Replies that are owed remain so if the new
    /// rules allow replies.
    pub fn renew(&mut self, rules: &Arc<Permissions>) -> bool {
        let differ = !self.rules.agree(rules);
        self.rules = Arc::clone(rules);
        if differ {
            (self.publishes, self.receives) = (Memo::default(), Memo::default());
            if self.rules.responses.is_none() {
                self.replies = HashMap::new();
            }
        }
        differ
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Arc<Permissions> {
        &self.rules
    }

    /// Whether the rules allow to publish to `subject`, always. What is only owed is asked for with
    /// [`Permits::may_reply`]. Adds to `looks` if the verdict is not remembered.
    #[inline]
    pub fn may_publish(&mut self, subject: &[u8], looks: &mut Looks) -> bool {
        self.publishes.get(subject, || self.rules.may_publish(subject, looks))
    }

    /// Whether a subscription in `queue` may get a message on `subject`; see [`Permissions::may_receive`].
    #[inline]
    pub fn may_receive(&mut self, subject: &[u8], queue: Option<&[u8]>, looks: &mut Looks) -> bool {
        match queue {
            None => self.receives.get(subject, || self.rules.may_receive(subject, None, looks)),
            Some(_) => self.rules.may_receive(subject, queue, looks),
        }
    }

    /// Whether the connection owes a reply on `subject` at `now` nanoseconds. Counts it.
    pub fn may_reply(&mut self, subject: &[u8], now: u64) -> bool {
        let Some(limits) = self.rules.responses else { return false };
        let Some(owed) = self.replies.get_mut(subject) else { return false };
        owed.sent += 1;
        let is_late = limits.expires.is_some_and(|time| u128::from(now - owed.since) > time.as_nanos());
        if is_late || limits.messages.is_some_and(|max| owed.sent > max) {
            self.replies.remove(subject);
            return false;
        }
        true
    }

    /// A message with `reply` is delivered to the connection: it may be answered.
    #[inline]
    pub fn delivered(&mut self, reply: &[u8], now: u64) {
        if self.rules.responses.is_some() {
            self.owe(reply, now);
        }
    }

    fn owe(&mut self, reply: &[u8], now: u64) {
        if self.replies.len() >= REPLIES_MAX {
            let limit =
                self.rules.responses.and_then(|limits| limits.expires).map_or(u128::MAX, |time| time.as_nanos());
            self.replies.retain(|_, owed| u128::from(now - owed.since) <= limit);
            if self.replies.len() >= REPLIES_MAX {
                let mut times: Vec<u64> = self.replies.values().map(|owed| owed.since).collect();
                let (_, median, _) = times.select_nth_unstable(REPLIES_MAX / 2);
                let median = *median;
                self.replies.retain(|_, owed| owed.since > median);
            }
        }
        self.replies.insert(reply.into(), Owed { since: now, sent: 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rules(allow: Option<&[&str]>, deny: &[&str]) -> config::SubjectRules {
        let rule = |text: &&str| {
            let (subject, queue) =
                text.split_once(' ').map_or((*text, None), |(subject, queue)| (subject, Some(queue)));
            config::SubjectRule { subject: subject.into(), queue: queue.map(Into::into) }
        };
        config::SubjectRules {
            allow: allow.map(|rules| rules.iter().map(rule).collect()),
            deny: deny.iter().map(rule).collect(),
        }
    }

    fn permissions(publish: config::SubjectRules, subscribe: config::SubjectRules) -> Permissions {
        Permissions::new(&config::Permissions { publish, subscribe, responses: None })
    }

    /// Verdicts that nats-server 2.15.1 gives for the same rules, but for `s.>` where `s.*` is allowed.
    #[test]
    fn subscriptions() {
        let [all, some, no] = [Some(Receives::All), Some(Receives::Some), None];
        let of = |rules: config::SubjectRules| permissions(config::SubjectRules::default(), rules);
        let allowing = of(rules(Some(&["s.*"]), &[]));
        for (subject, queue, verdict) in [
            ("s.a", None, all),
            ("s.*", None, all),
            ("s.>", None, no),
            (">", None, no),
            ("s", None, no),
            ("s.a", Some("q"), all),
        ] {
            let queue = queue.map(str::as_bytes);
            assert_eq!(allowing.may_subscribe(subject.as_bytes(), queue, &mut 0), verdict, "{subject} {queue:?}");
        }
        let denying = of(rules(Some(&[">"]), &["d.x q", "e.*"]));
        for (subject, queue, verdict) in [
            ("*", None, all),
            ("d.x", None, all),
            ("d.x", Some("q"), no),
            ("d.x", Some("q2"), all),
            ("d.*", None, some),
            ("d.*", Some("q"), some),
            ("e.>", None, no),
            ("e.f", None, no),
            ("e..f", None, no),
            ("e.*", None, no),
            (">", Some("q"), some),
        ] {
            let queue = queue.map(str::as_bytes);
            assert_eq!(denying.may_subscribe(subject.as_bytes(), queue, &mut 0), verdict, "{subject} {queue:?}");
        }
        assert!(denying.may_receive(b"d.x", None, &mut 0) && !denying.may_receive(b"d.x", Some(b"q"), &mut 0));
        assert!(denying.may_receive(b"d.x", Some(b"r"), &mut 0) && !denying.may_receive(b"e.f", None, &mut 0));
        let queues = of(rules(Some(&["foo", "bar v1.*"]), &[]));
        for (subject, queue, verdict) in [
            ("foo", None, all),
            ("foo", Some("q"), all),
            ("bar", None, no),
            ("bar", Some("v1.a"), all),
            ("bar", Some("v2"), no),
        ] {
            let queue = queue.map(str::as_bytes);
            assert_eq!(queues.may_subscribe(subject.as_bytes(), queue, &mut 0), verdict, "{subject} {queue:?}");
        }
    }

    #[test]
    fn publishes_and_their_memory() {
        let rules = permissions(rules(Some(&["p.*"]), &["p.d"]), config::SubjectRules::default());
        let mut permits = Permits::new(Arc::new(rules));
        for _ in 0..2 {
            for (subject, verdict) in [("p.a", true), ("p.d", false), ("p.*", true), ("p.a.b", false), ("q", false)] {
                assert_eq!(permits.may_publish(subject.as_bytes(), &mut 0), verdict, "{subject}");
            }
        }
        for n in 0..10_000 {
            assert!(permits.may_publish(format!("p.{n}").as_bytes(), &mut 0));
            assert!(!permits.may_publish(format!("q.{n}").as_bytes(), &mut 0));
        }
        assert_eq!(permits.publishes.verdicts.len(), VERDICTS);
    }

    #[test]
    fn replies_are_allowed_for_a_while() {
        let responses = config::ResponsePermission { messages: Some(2), expires: Some(Duration::from_secs(1)) };
        let config = config::Permissions { responses: Some(responses), ..config::Permissions::default() };
        let mut permits = Permits::new(Arc::new(Permissions::new(&config)));
        let second = 1_000_000_000;
        assert!(!permits.may_publish(b"_INBOX.1", &mut 0) && !permits.may_reply(b"_INBOX.1", 0), "nothing but replies");
        permits.delivered(b"_INBOX.1", 0);
        assert!(!permits.may_publish(b"_INBOX.1", &mut 0), "not for good");
        assert!(permits.may_reply(b"_INBOX.1", 1) && permits.may_reply(b"_INBOX.1", 2));
        assert!(!permits.may_reply(b"_INBOX.1", 3), "two were allowed");
        permits.delivered(b"_INBOX.2", 0);
        assert!(!permits.may_reply(b"_INBOX.2", second + 1), "too late");
        for n in 0..3 * REPLIES_MAX as u64 {
            permits.delivered(format!("_INBOX.{n}").as_bytes(), n);
        }
        assert!(permits.replies.len() <= REPLIES_MAX);
        assert!(permits.may_reply(format!("_INBOX.{}", 3 * REPLIES_MAX - 1).as_bytes(), second));
    }
}

#[cfg(test)]
#[path = "permissions_properties.rs"]
mod properties;
