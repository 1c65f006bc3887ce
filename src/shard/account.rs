//! One account on one shard: the subscription index, what other shards want, and memoised routes.
//!
//! Own subscriptions and the interest of other shards stand in the same index, so one look-up gives a message's
//! whole [`Route`]. A route is memoised per literal subject. A SUB or UNSUB of a literal subject touches only that
//! subject's entry; one with wildcards moves the account's generation on, which voids all entries lazily.

use std::cell::Cell;
use std::rc::Rc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::auth::PermissionsId;
use crate::auth::directory::AccountFacts;
use crate::subject::{self, Index, Matches};

use super::rules::{Rule, broken};
use super::service::Joined;

/// Position of another shard among the peers of this one.
pub(crate) type PeerPos = u8;

/// Slot of a subscription in the shard's slab.
pub(crate) type SubSlot = u32;

/// Who wants messages of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// A subscription of this shard.
    Sub(SubSlot),
    /// Another shard: `weight` queue members there, or 1 for any number of plain subscriptions.
    Peer { pos: PeerPos, weight: u32 },
}

/// Where messages of one subject go.
#[derive(Debug, Default)]
pub(crate) struct Route {
    generation: u64,
    /// Plain subscriptions of this shard.
    pub(crate) plain: Vec<SubSlot>,
    /// Peers with plain subscriptions, a bit each.
    pub(crate) peers: u64,
    /// One entry per queue group name.
    pub(crate) queues: SmallVec<[QueueRoute; 1]>,
    /// Who was found to be allowed to publish here, last: a publish that finds the route needs no other look-up.
    permitted: Cell<Option<PermissionsId>>,
}

impl Route {
    /// Whether a client that is bound by `rules`, if by any, is known to be allowed to publish here.
    #[inline(always)]
    pub(crate) fn is_open_to(&self, rules: Option<PermissionsId>) -> bool {
        rules.is_none() || self.permitted.get() == rules || broken(Rule::VerdictsOfOthers)
    }

    /// The rules allow to publish here, whenever.
    pub(crate) fn open_to(&self, rules: Option<PermissionsId>) {
        self.permitted.set(rules);
    }
}

/// The members of one queue group.
#[derive(Debug)]
pub(crate) struct QueueRoute {
    /// Name of the group.
    pub(crate) name: Box<[u8]>,
    /// Members on this shard.
    pub(crate) local: Vec<SubSlot>,
    /// Members elsewhere: peer and count.
    pub(crate) peers: SmallVec<[(PeerPos, u32); 2]>,
    /// Sum of `peers`.
    pub(crate) peer_weight: u32,
}

/// What changed for one pattern since the other shards were last told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InterestChange {
    /// Pattern, and behind a blank the queue group if there is one.
    pub(crate) key: Box<[u8]>,
    /// Weight the others know.
    pub(crate) old: u32,
    /// Weight now.
    pub(crate) new: u32,
}

#[derive(Debug, Default)]
struct Interest {
    now: u32,
    told: u32,
    changed: bool,
}

/// One account on one shard.
pub(crate) struct Account {
    /// Account name.
    pub(crate) name: Rc<str>,
    /// Messages of its clients may go to other accounts.
    pub(crate) crosses: bool,
    /// Subjects that its clients publish to may be mapped.
    pub(crate) maps: bool,
    index: Index<Target>,
    generation: u64,
    routes: RouteMemo,
    /// The route looked up last, good while nothing has changed since.
    last: Option<(Box<[u8]>, Rc<Route>)>,
    matches: Matches<Target>,
    /// Own interest per pattern; empty while there is only one shard.
    interest: HashMap<Box<[u8]>, Interest, foldhash::fast::RandomState>,
    changed: Vec<Box<[u8]>>,
    has_peers: bool,
    /// What the service takes beside what its subscriptions say.
    joined: Option<Joined>,
    /// Slots below this one are the service's.
    service_slots: SubSlot,
}

impl Account {
    pub(crate) fn new(name: &str, has_peers: bool) -> Self {
        Self {
            name: name.into(),
            crosses: false,
            maps: false,
            index: Index::new(),
            generation: 1,
            routes: RouteMemo::default(),
            last: None,
            matches: Matches::default(),
            interest: HashMap::default(),
            changed: Vec::new(),
            has_peers,
            joined: None,
            service_slots: 0,
        }
    }

    /// The account that a directory describes.
    pub(crate) fn of(facts: &AccountFacts, has_peers: bool) -> Self {
        let maps = facts.mappings().is_some();
        Self { crosses: facts.crosses(), maps, ..Self::new(&facts.name, has_peers) }
    }

    /// Where a message on `subject` goes.
    #[inline]
    pub(crate) fn route(&mut self, subject: &[u8]) -> Rc<Route> {
        match self.last_route(subject) {
            Some(route) => route.clone(),
            None => self.look_up(subject),
        }
    }

    fn look_up(&mut self, subject: &[u8]) -> Rc<Route> {
        match self.memoised_route(subject) {
            Some(route) => route,
            None => self.new_route(subject),
        }
    }

    /// The route that was looked up last, if it is that of `subject`.
    #[inline(always)]
    pub(crate) fn last_route(&self, subject: &[u8]) -> Option<&Rc<Route>> {
        self.last.as_ref().filter(|(last, _)| subject::is_same(last, subject)).map(|(_, route)| route)
    }

    /// The route of `subject` if it is in the memo.
    #[inline(always)]
    pub(crate) fn memoised_route(&mut self, subject: &[u8]) -> Option<Rc<Route>> {
        let route = self.routes.get(subject, self.generation)?;
        self.note_last(subject, &route);
        Some(route)
    }

    #[inline]
    fn note_last(&mut self, subject: &[u8], route: &Rc<Route>) {
        match &mut self.last {
            Some((last, known)) if last.len() == subject.len() => {
                last.copy_from_slice(subject);
                *known = route.clone();
            }
            last => *last = Some((subject.into(), route.clone())),
        }
    }

    /// Where a message on `subject` goes; to be called if that is not in the memo.
    #[inline(never)]
    pub(crate) fn new_route(&mut self, subject: &[u8]) -> Rc<Route> {
        self.matches.clear();
        self.index.matches(subject, &mut self.matches);
        let mut route = Route { generation: self.generation, ..Route::default() };
        for target in &self.matches.plain {
            match *target {
                Target::Sub(slot) => route.plain.push(slot),
                Target::Peer { pos, .. } => route.peers |= 1 << pos,
            }
        }
        for group in &self.matches.queues {
            let mut queue =
                QueueRoute { name: group.name[..].into(), local: Vec::new(), peers: SmallVec::new(), peer_weight: 0 };
            for target in &group.members {
                match *target {
                    Target::Sub(slot) => queue.local.push(slot),
                    Target::Peer { pos, weight } => {
                        queue.peer_weight += weight;
                        match queue.peers.iter_mut().find(|(known, _)| *known == pos) {
                            Some((_, sum)) => *sum += weight,
                            None => queue.peers.push((pos, weight)),
                        }
                    }
                }
            }
            route.queues.push(queue);
        }
        if let Some(apart) = self.joined.and_then(|joined| joined.split(subject)) {
            self.add_service(&apart, &mut route);
        }
        let route = Rc::new(route);
        self.routes.put(subject, &route);
        self.note_last(subject, &route);
        route
    }

    /// Adds the services that take `subject`, here and elsewhere; clients see the subject as it was published.
    fn add_service(&mut self, subject: &[u8], route: &mut Route) {
        self.matches.clear();
        self.index.matches(subject, &mut self.matches);
        for target in &self.matches.plain {
            match *target {
                Target::Sub(slot) if slot < self.service_slots && !route.plain.contains(&slot) => {
                    route.plain.push(slot)
                }
                Target::Sub(_) => {}
                Target::Peer { pos, .. } => route.peers |= 1 << pos,
            }
        }
    }

    /// A service with the first `slots` subscriptions also takes subjects that are `joined`.
    pub(crate) fn join(&mut self, joined: Joined, slots: SubSlot) {
        (self.joined, self.service_slots) = (Some(joined), slots);
        self.generation += 1;
    }

    /// Adds a subscription of this shard.
    pub(crate) fn subscribe(&mut self, pattern: &[u8], queue: Option<&[u8]>, slot: SubSlot) {
        self.subscribe_here(pattern, queue, slot);
        self.count(pattern, queue, 1);
    }

    /// Adds a subscription of this shard of which the others are not told.
    pub(crate) fn subscribe_here(&mut self, pattern: &[u8], queue: Option<&[u8]>, slot: SubSlot) {
        self.last = None;
        self.index.insert(pattern, queue, Target::Sub(slot));
        if subject::has_wildcard(pattern) {
            self.generation += 1;
        } else {
            self.routes.patch(pattern, self.generation, |route| match queue {
                None => {
                    route.plain.push(slot);
                    true
                }
                Some(_) => false,
            });
        }
    }

    /// Removes a subscription of this shard.
    pub(crate) fn unsubscribe(&mut self, pattern: &[u8], queue: Option<&[u8]>, slot: SubSlot) {
        self.last = None;
        let was_there = self.index.remove(pattern, queue, Target::Sub(slot));
        debug_assert!(was_there, "a live subscription stands in the index");
        if subject::has_wildcard(pattern) {
            self.generation += 1;
        } else {
            self.routes.patch(pattern, self.generation, |route| {
                if queue.is_some() || route.plain.len() > PATCH_SCAN_MAX {
                    return false;
                }
                route.plain.retain(|known| *known != slot);
                true
            });
        }
        self.count(pattern, queue, -1);
    }

    /// Another shard's interest in `key` changed.
    pub(crate) fn peer_interest(&mut self, pos: PeerPos, key: &[u8], old: u32, new: u32) {
        let (pattern, queue) = split_key(key);
        self.last = None;
        if old > 0 {
            let was_there = self.index.remove(pattern, queue, Target::Peer { pos, weight: old });
            debug_assert!(was_there, "a peer takes back only what it has told");
        }
        if new > 0 {
            self.index.insert(pattern, queue, Target::Peer { pos, weight: new });
        }
        if subject::has_wildcard(pattern) {
            self.generation += 1;
        } else {
            self.routes.patch(pattern, self.generation, |route| {
                if queue.is_some() || new == 0 {
                    return false;
                }
                route.peers |= 1 << pos;
                true
            });
        }
    }

    fn count(&mut self, pattern: &[u8], queue: Option<&[u8]>, by: i32) {
        if !self.has_peers {
            return;
        }
        let mut key = SmallVec::<[u8; 128]>::from_slice(pattern);
        if let Some(queue) = queue {
            key.push(b' ');
            key.extend_from_slice(queue);
        }
        let interest = match self.interest.get_mut(&key[..]) {
            Some(interest) => interest,
            None => self.interest.entry(key[..].into()).or_default(),
        };
        interest.now = interest.now.checked_add_signed(by).expect("each removal follows its addition");
        let told_now = if queue.is_some() { interest.now } else { interest.now.min(1) };
        if told_now != interest.told && !interest.changed {
            interest.changed = true;
            self.changed.push(key[..].into());
        }
    }

    /// Whether [`Account::take_changes`] has anything to look at.
    #[inline]
    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Gives out what the other shards have to be told since the last call.
    pub(crate) fn take_changes(&mut self, mut tell: impl FnMut(InterestChange)) {
        for key in std::mem::take(&mut self.changed) {
            let Some(interest) = self.interest.get_mut(&key) else { continue };
            let is_queue = split_key(&key).1.is_some();
            let (old, new) = (interest.told, if is_queue { interest.now } else { interest.now.min(1) });
            interest.told = new;
            interest.changed = false;
            if interest.now == 0 {
                self.interest.remove(&key);
            }
            if old != new {
                tell(InterestChange { key, old, new });
            }
        }
    }
}

fn split_key(key: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b' ', key) {
        Some(at) => (&key[..at], Some(&key[at + 1..])),
        None => (key, None),
    }
}

/// A route with more subscribers than this is computed anew instead of being searched on UNSUB.
const PATCH_SCAN_MAX: usize = 64;
/// Routes per generation of the memo; two generations are kept.
const MEMO_ENTRIES_MAX: usize = 32 * 1024;
/// Slots of the filter that lets a subject into the memo only when it is seen again.
const SEEN_SLOTS: usize = 4096;

type RouteMap = HashMap<Box<[u8]>, Rc<Route>, foldhash::fast::RandomState>;

/// Memoised routes: a recent and an older half, so that hot subjects survive and memory stays bounded
/// (at most 2 × 32 Ki entries). Subjects seen once, such as the inbox of one request, never enter.
#[derive(Debug, Default)]
struct RouteMemo {
    recent: RouteMap,
    older: RouteMap,
    seen: Vec<u32>,
}

impl RouteMemo {
    #[inline]
    fn get(&mut self, subject: &[u8], generation: u64) -> Option<Rc<Route>> {
        if let Some(route) = self.recent.get(subject) {
            return (route.generation == generation).then(|| route.clone());
        }
        self.promote(subject, generation)
    }

    fn promote(&mut self, subject: &[u8], generation: u64) -> Option<Rc<Route>> {
        if self.older.is_empty() {
            return None;
        }
        let (key, route) = self.older.remove_entry(subject)?;
        if route.generation != generation {
            return None;
        }
        self.make_room();
        self.recent.insert(key, route.clone());
        Some(route)
    }

    fn put(&mut self, subject: &[u8], route: &Rc<Route>) {
        if let Some(stale) = self.recent.get_mut(subject) {
            *stale = route.clone();
            return;
        }
        if self.seen.is_empty() {
            self.seen = vec![0; SEEN_SLOTS];
        }
        let hash = std::hash::BuildHasher::hash_one(self.recent.hasher(), subject);
        let (slot, mark) = (hash as usize % SEEN_SLOTS, (hash >> 32) as u32 | 1);
        if std::mem::replace(&mut self.seen[slot], mark) != mark {
            return;
        }
        self.make_room();
        self.recent.insert(subject.into(), route.clone());
    }

    fn make_room(&mut self) {
        if self.recent.len() >= MEMO_ENTRIES_MAX {
            self.older = std::mem::take(&mut self.recent);
        }
    }

    /// Changes the entry of a literal subject in place; `change` gives `false` to have it dropped.
    fn patch(&mut self, subject: &[u8], generation: u64, change: impl FnOnce(&mut Route) -> bool) {
        if self.older.remove(subject).is_some() {
            return;
        }
        let Some(entry) = self.recent.get_mut(subject) else { return };
        if entry.generation != generation {
            return;
        }
        // A delivery may hold the entry at this moment; it goes on with what it has.
        let kept = Rc::get_mut(entry).is_some_and(change);
        if !kept {
            self.recent.remove(subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(account: &mut Account, subject: &[u8]) -> (Vec<SubSlot>, u64) {
        // Three look-ups: the second may enter the memo, the third comes from it.
        account.route(subject);
        account.route(subject);
        let route = account.route(subject);
        let mut plain = route.plain.clone();
        plain.sort_unstable();
        (plain, route.peers)
    }

    #[test]
    fn memoised_routes_follow_every_change() {
        let mut account = Account::new("$G", true);
        account.subscribe(b"a.b", None, 1);
        assert_eq!(route(&mut account, b"a.b"), (vec![1], 0));
        account.subscribe(b"a.b", None, 2);
        assert_eq!(route(&mut account, b"a.b"), (vec![1, 2], 0));
        account.subscribe(b"a.*", None, 3);
        assert_eq!(route(&mut account, b"a.b"), (vec![1, 2, 3], 0));
        account.peer_interest(5, b"a.b", 0, 1);
        assert_eq!(route(&mut account, b"a.b"), (vec![1, 2, 3], 1 << 5));
        account.peer_interest(5, b"a.>", 0, 1);
        account.peer_interest(5, b"a.b", 1, 0);
        assert_eq!(route(&mut account, b"a.b"), (vec![1, 2, 3], 1 << 5), "the wildcard still wants it");
        account.peer_interest(5, b"a.>", 1, 0);
        account.unsubscribe(b"a.b", None, 1);
        account.unsubscribe(b"a.*", None, 3);
        assert_eq!(route(&mut account, b"a.b"), (vec![2], 0));
        account.unsubscribe(b"a.b", None, 2);
        assert_eq!(route(&mut account, b"a.b"), (vec![], 0));
    }

    #[test]
    fn peers_are_told_only_transitions_and_weights() {
        let mut account = Account::new("$G", true);
        let told = |account: &mut Account| {
            let mut all = Vec::new();
            account.take_changes(|change| all.push((change.key.to_vec(), change.old, change.new)));
            all.sort();
            all
        };
        account.subscribe(b"a", None, 1);
        account.subscribe(b"a", None, 2);
        account.subscribe(b"q.*", Some(b"g"), 3);
        account.subscribe(b"q.*", Some(b"g"), 4);
        assert_eq!(told(&mut account), [(b"a".to_vec(), 0, 1), (b"q.* g".to_vec(), 0, 2)]);
        account.unsubscribe(b"a", None, 1);
        account.unsubscribe(b"q.*", Some(b"g"), 3);
        assert_eq!(told(&mut account), [(b"q.* g".to_vec(), 2, 1)]);
        account.unsubscribe(b"a", None, 2);
        account.subscribe(b"a", None, 7);
        account.subscribe(b"once", None, 8);
        account.unsubscribe(b"once", None, 8);
        assert_eq!(told(&mut account), [], "what came and went within a turn is not told");
        account.unsubscribe(b"a", None, 7);
        account.unsubscribe(b"q.*", Some(b"g"), 4);
        assert_eq!(told(&mut account), [(b"a".to_vec(), 1, 0), (b"q.* g".to_vec(), 1, 0)]);
        assert!(account.interest.is_empty());
    }

    #[test]
    fn queue_members_of_all_patterns_form_one_group() {
        let mut account = Account::new("$G", true);
        account.subscribe(b"foo.*", Some(b"q"), 1);
        account.subscribe(b"foo.bar", Some(b"q"), 2);
        account.peer_interest(0, b"foo.> q", 0, 3);
        account.peer_interest(0, b"foo.bar q", 0, 2);
        let route = account.route(b"foo.bar");
        assert_eq!(route.queues.len(), 1);
        let queue = &route.queues[0];
        assert_eq!((&queue.name[..], queue.local.len(), queue.peer_weight), (&b"q"[..], 2, 5));
        assert_eq!(queue.peers.as_slice(), [(0, 5)]);
    }

    /// A service takes subjects that are joined; clients get what they have subscribed to.
    #[test]
    fn joined_subjects_reach_the_service() {
        let mut account = Account::new("$G", true);
        account.subscribe(b"in.ab.*", None, 0);
        account.subscribe(b">", None, 1);
        account.subscribe(b"in.*.*", None, 2);
        account.join(Joined { prefix: b"in.", first_bytes: 2 }, 1);
        assert_eq!(route(&mut account, b"in.ab7"), (vec![0, 1], 0));
        assert_eq!(route(&mut account, b"in.ab.7"), (vec![0, 1, 2], 0));
        for other in [&b"in.ab"[..], b"in.ac7", b"in.abc.7", b"on.ab7"] {
            assert!(!account.route(other).plain.contains(&0), "{}", other.escape_ascii());
        }
        account.peer_interest(3, b"in.cd.*", 0, 1);
        assert_eq!(route(&mut account, b"in.cd7"), (vec![1], 1 << 3));
    }

    #[test]
    fn the_memo_is_bounded() {
        let mut account = Account::new("$G", false);
        account.subscribe(b">", None, 1);
        for n in 0..MEMO_ENTRIES_MAX * 3 {
            let subject = n.to_string();
            account.route(subject.as_bytes());
            account.route(subject.as_bytes());
        }
        assert!(account.routes.recent.len() <= MEMO_ENTRIES_MAX);
        assert!(account.routes.older.len() <= MEMO_ENTRIES_MAX);
    }
}
