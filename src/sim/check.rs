//! Compares a history with what one server would have done.
//!
//! A publish is one step in time, somewhere between its begin and the moment when it is known; so are SUB and UNSUB.
//! A subscription that was confirmed before a publish began, and whose UNSUB began after the publish was known, must
//! get the message; one whose UNSUB was confirmed before, or whose SUB began after, must not. In between, both are
//! right. Of two messages, the one that was known before the other began comes first wherever both arrive.
//!
//! What users may do comes on top of it (`access`).
//!
//! Exempt are queue messages that may have been passed on because a member left or may not have them: they may come
//! late, and to a member that came later. A member that closes its connection may take a message with it.

use std::collections::{HashMap, HashSet};

use super::access::Rights;
use super::history::{Delivery, History, PublishRecord, SubRecord, When};

type Verdict = Result<(), String>;

/// Checks everything. To be called when nothing happens any more.
pub(super) fn check(history: &History) -> Verdict {
    if let Some(oddity) = history.oddities.first() {
        return Err(oddity.clone());
    }
    let model = Model::new(history);
    for delivery in &history.deliveries {
        model.check_delivery(delivery)?;
    }
    model.check_order()?;
    for (sub, _) in history.subs.iter().enumerate().filter(|(_, record)| record.queue.is_none()) {
        model.check_plain(sub)?;
    }
    for id in 0..history.publishes.len() {
        model.check_groups(id)?;
        model.check_status(id)?;
    }
    model.rights.check()
}

struct Model<'a> {
    history: &'a History,
    rights: Rights<'a>,
    /// By publish: the subscriptions that got it.
    takers: Vec<Vec<usize>>,
    /// Queue groups that pass messages on, since a member may have left or may not have all of them, by name.
    passing: HashSet<&'a str>,
    /// Queue groups of which a member has closed its connection.
    torn: HashSet<&'a str>,
}

impl<'a> Model<'a> {
    fn new(history: &'a History) -> Self {
        let mut takers = vec![Vec::new(); history.publishes.len()];
        for delivery in &history.deliveries {
            takers[delivery.publish].push(delivery.sub);
        }
        let (mut passing, mut torn) = (HashSet::new(), HashSet::new());
        for sub in &history.subs {
            let Some(queue) = &sub.queue else { continue };
            let closed = history.deeds[sub.client].closed.is_some();
            let is_bound = history.ages.iter().any(|age| age.binds(history.deeds[sub.client].user));
            if sub.unsub_begun.is_some() || sub.max.is_some() || closed || is_bound {
                passing.insert(&**queue);
            }
            if closed {
                torn.insert(&**queue);
            }
        }
        Self { history, rights: Rights(history), takers, passing, torn }
    }

    /// Whether one server could deliver `publish` to `sub` before the time `read`.
    fn may(&self, publish: &PublishRecord, sub: &SubRecord, read: When) -> bool {
        let is_late = sub.queue.as_deref().is_some_and(|queue| self.passing.contains(queue));
        let began = sub.begun.is_some_and(|at| is_late || publish.known.is_none_or(|known| at < known));
        let ended = sub.unsub_confirmed.is_some_and(|at| publish.begun.is_some_and(|begun| at < begun));
        began && !ended && self.listens(publish, sub) && self.rights.may(publish, sub, read)
    }

    /// Whether one server had to deliver `publish` to `sub`, were it not for limits and other members of its group.
    fn must(&self, publish: &PublishRecord, sub: &SubRecord) -> bool {
        let Some(begun) = publish.begun else { return false };
        // What a client sends right before it closes may be lost with the connection.
        if publish.known.is_none() && self.history.deeds[publish.client].closed.is_some() {
            return false;
        }
        let stays = sub.unsub_begun.is_none_or(|at| publish.known.is_some_and(|known| known < at));
        let closed = self.history.deeds[sub.client].closed.is_some();
        let is_there = sub.confirmed.is_some_and(|at| at < begun) && stays && !closed;
        is_there && self.listens(publish, sub) && self.rights.must(publish, sub)
    }

    fn listens(&self, publish: &PublishRecord, sub: &SubRecord) -> bool {
        let hears = self.history.deeds[sub.client].echo || sub.client != publish.client;
        hears && self.matches(publish, sub)
    }

    fn matches(&self, publish: &PublishRecord, sub: &SubRecord) -> bool {
        self.rights.subject_for(publish, sub.client).is_some_and(|subject| matches(&sub.pattern, &subject))
    }

    fn check_delivery(&self, delivery: &Delivery) -> Verdict {
        let (publish, sub) = (&self.history.publishes[delivery.publish], &self.history.subs[delivery.sub]);
        if !self.may(publish, sub, Some(delivery.read)) {
            return Err(self.tell("was delivered but must not be", delivery.publish, delivery.sub));
        }
        let times = self.takers[delivery.publish].iter().filter(|taker| **taker == delivery.sub).count();
        if times > 1 {
            return Err(self.tell("was delivered twice", delivery.publish, delivery.sub));
        }
        Ok(())
    }

    /// Order at every reading client: per publisher, and of what was known before something else began.
    fn check_order(&self) -> Verdict {
        let publishes = &self.history.publishes;
        for reader in 0..self.history.deeds.len() {
            let mut last_of = HashMap::new();
            let mut latest: Option<usize> = None;
            for delivery in self.history.deliveries.iter().filter(|delivery| delivery.client == reader) {
                let (id, publish) = (delivery.publish, &publishes[delivery.publish]);
                let queue = self.history.subs[delivery.sub].queue.as_deref();
                if queue.is_none_or(|queue| !self.passing.contains(queue)) {
                    let last = last_of.get(&publish.client).copied().unwrap_or(id);
                    if id < last {
                        return Err(self.tell(&format!("came after {last} of the same client"), id, delivery.sub));
                    }
                    if let Some(other) = latest
                        && publish.known < publishes[other].begun
                    {
                        return Err(self.tell(&format!("was known before {other}, but came later"), id, delivery.sub));
                    }
                }
                let last = last_of.entry(publish.client).or_insert(id);
                *last = id.max(*last);
                if latest.is_none_or(|other| publishes[other].begun < publish.begun) {
                    latest = Some(id);
                }
            }
        }
        Ok(())
    }

    fn check_plain(&self, sub: usize) -> Verdict {
        let record = &self.history.subs[sub];
        let got: HashSet<usize> =
            self.history.deliveries.iter().filter(|one| one.sub == sub).map(|one| one.publish).collect();
        let publishes = || self.history.publishes.iter().enumerate();
        let due: Vec<usize> = publishes().filter(|(_, publish)| self.must(publish, record)).map(|(id, _)| id).collect();
        let Some(max) = record.max else {
            return match due.iter().find(|id| !got.contains(id)) {
                Some(lost) => Err(self.tell("is missing", *lost, sub)),
                None => Ok(()),
            };
        };
        // What came before the limit was known may be more than the limit.
        let after = got.iter().filter(|id| self.history.publishes[**id].begun > record.max_confirmed).count();
        if got.len() as u64 > max && (after > 0 && record.max_confirmed.is_some()) {
            return Err(format!("{} messages came to subscription {sub} with a limit of {max}: {record:?}", got.len()));
        }
        if (got.len() as u64) < max.min(due.len() as u64) {
            return Err(format!("{} of {max} messages came to subscription {sub}, due {due:?}: {record:?}", got.len()));
        }
        Ok(())
    }

    /// Names of the queue groups with a subscription that matches `publish`.
    fn groups(&self, publish: &PublishRecord) -> HashSet<&'a str> {
        let matching = self.history.subs.iter().filter(|sub| self.matches(publish, sub));
        matching.filter_map(|sub| sub.queue.as_deref()).collect()
    }

    fn check_groups(&self, id: usize) -> Verdict {
        let publish = &self.history.publishes[id];
        for name in self.groups(publish) {
            let in_group = |sub: &&SubRecord| sub.queue.as_deref() == Some(name);
            let taken: Vec<usize> =
                self.takers[id].iter().copied().filter(|taker| in_group(&&self.history.subs[*taker])).collect();
            if taken.len() > 1 {
                return Err(self.tell(&format!("went to {} members of group {name}", taken.len()), id, taken[1]));
            }
            let stays = self
                .history
                .subs
                .iter()
                .enumerate()
                .filter(|(_, sub)| in_group(sub) && sub.unsub_begun.is_none() && sub.max.is_none())
                .find(|(_, sub)| self.must(publish, sub));
            if let Some((member, _)) = stays
                && taken.is_empty()
                && !self.torn.contains(name)
            {
                return Err(self.tell(&format!("is missing in group {name}"), id, member));
            }
        }
        Ok(())
    }

    /// A request is taken or refused.
    fn check_status(&self, id: usize) -> Verdict {
        let publish = &self.history.publishes[id];
        let refused = self.history.refused.iter().filter(|(refused, _)| *refused == id).count();
        if refused > 1 || refused == 1 && !publish.request {
            return Err(format!("{refused} times 503 for {}", self.describe(id)));
        }
        if !publish.request || publish.known.is_none() || self.history.deeds[publish.client].closed.is_some() {
            return Ok(());
        }
        let possible: Vec<&SubRecord> = self.history.subs.iter().filter(|sub| self.may(publish, sub, None)).collect();
        let permanent = possible.iter().any(|sub| {
            let forever = sub.queue.is_none() || sub.unsub_begun.is_none();
            self.must(publish, sub) && sub.max.is_none() && forever
        });
        if refused == 1 && permanent {
            let subs: Vec<_> = possible.iter().map(|sub| format!("{sub:?}")).collect();
            return Err(format!("503 in spite of a subscriber for {}: {subs:#?}", self.describe(id)));
        }
        let torn = possible.iter().any(|sub| self.history.deeds[sub.client].closed.is_some());
        let destinations: HashSet<_> = match possible[..] {
            [] | [_] => HashSet::new(),
            _ => possible.iter().enumerate().map(|(n, sub)| sub.queue.clone().unwrap_or(n.to_string())).collect(),
        };
        let taken = self.takers[id].len();
        if destinations.len() <= 1 && taken + refused != 1 && !torn {
            return Err(format!("{taken} takers and {refused} times 503 for {}", self.describe(id)));
        }
        Ok(())
    }

    fn describe(&self, id: usize) -> String {
        format!("message {id} {:?}", self.history.publishes[id])
    }

    fn tell(&self, what: &str, id: usize, sub: usize) -> String {
        format!("{} {what}, subscription {sub} {:?}", self.describe(id), self.history.subs[sub])
    }
}

/// Matching, token by token.
pub(super) fn matches(pattern: &str, subject: &str) -> bool {
    let (mut patterns, mut tokens) = (pattern.split('.'), subject.split('.'));
    loop {
        match (patterns.next(), tokens.next()) {
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}
