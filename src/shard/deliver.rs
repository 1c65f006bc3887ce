//! From a publish to the outbound buffers of its subscribers and the batches for other shards.

use bytes::Bytes;
use smallvec::SmallVec;

use super::account::{PeerPos, QueueRoute, Route, SubSlot};
use super::batch::{Concern, INLINE_BODY_MAX, MessageFlags, Origin, Trail};
use super::buffers::Part;
use super::conn::{Conn, Sid};
use super::crossing::ANSWER_PREFIX;
use super::io::Io;
use super::permission::Permission;
use super::rules::{Rule, broken};
use super::service::SERVICE;
use super::{Local, Shard};
use crate::auth::PermissionsId;
use crate::monitor::Counters;
use crate::subject::is_same;
use crate::wire::message::{self, Message, Tail};

/// A connection with this much queued is written to before the turn ends.
pub(super) const FLUSH_BYTES: usize = if cfg!(test) { 2 << 10 } else { 128 << 10 };
/// Stall gate: milliseconds to wait above 75 % of `max_pending`, at 100 %, and at most per read.
const STALL_MIN_MS: u8 = 2;
const STALL_MAX_MS: u8 = 5;
/// Most a publisher waits for one read of its socket.
const STALL_PER_READ_MS: u8 = 10;

/// A message to at least this many subscribers here is rendered once for all that see the same bytes.
const COMMON_SUBSCRIBERS_MIN: usize = if cfg!(test) { 2 } else { 5 };
/// So many different sids of a message are told apart; subscribers with others get it written by itself.
const COMMON_SIDS_MAX: usize = 4;

/// One message as it stands in the shard's open run, by sid.
type Rendered = SmallVec<[(Sid, Part); COMMON_SIDS_MAX]>;

/// Whether a publisher wants a 503 if nobody takes its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Unwanted,
    /// It does, and everybody who may take the message is in one account.
    Wanted,
    /// It does if all that goes out under this number is refused.
    Inquiry(u64),
}

/// What has become of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread {
    /// How many have taken it here.
    pub(super) taken: usize,
    /// How many times it has gone to another shard, where it may be taken.
    pub(super) sent: usize,
}

impl Spread {
    /// Nobody has it or will get it.
    pub(super) fn is_nowhere(self) -> bool {
        self.taken + self.sent == 0
    }
}

impl std::ops::AddAssign for Spread {
    fn add_assign(&mut self, other: Self) {
        self.taken += other.taken;
        self.sent += other.sent;
    }
}

/// Who published, as deliveries need it.
#[derive(Clone, Copy)]
pub(super) struct Publisher {
    pub(super) origin: Origin,
    /// Slot of the publisher if it is on this shard.
    pub(super) here: Option<u32>,
    pub(super) echo: bool,
}

impl Shard {
    /// Sends a client's message to everybody who wants it, if the `rules` that bind the client allow it; `None` if
    /// there are none, or have been asked.
    #[inline]
    pub(super) fn publish<I: Io>(
        &mut self,
        io: &mut I,
        conn_slot: u32,
        message: &Message<'_>,
        rules: Option<PermissionsId>,
    ) {
        let conn = &mut self.local.conns[conn_slot as usize];
        count_publish(conn, &mut self.local.counters, message.size(), self.now);
        let (account, options, cid) = (conn.account, conn.options, conn.cid);
        let origin = Origin { shard: self.peers.shard(), conn: conn_slot, cid };
        let publisher = Publisher { origin, here: Some(conn_slot), echo: options.echo };
        let of_account = &mut self.accounts[account as usize];
        if of_account.crosses {
            return self.publish_rarely(io, conn_slot, &publisher, message, rules);
        }
        let route = match of_account.last_route(message.subject) {
            Some(route) if route.is_open_to(rules) => route.clone(),
            last => {
                let last = last.cloned();
                match self.find_way(conn_slot, account, message.subject, rules, last) {
                    Some(route) => route,
                    None => return,
                }
            }
        };
        let wants_503 = options.no_responders && message.reply_bytes != 0;
        let spread = self.publish_along(io, &route, &publisher, message, account, wants_503);
        if spread.is_nowhere() && wants_503 {
            self.no_responders(account, conn_slot, message.subject, message.reply());
        }
        self.after_deliveries();
    }

    /// Sends a message to everybody on its route, in an account that shares nothing with others.
    #[inline]
    pub(super) fn publish_along<I: Io>(
        &mut self,
        io: &mut I,
        route: &Route,
        publisher: &Publisher,
        message: &Message<'_>,
        account: u32,
        wants_503: bool,
    ) -> Spread {
        let block;
        let mut message = *message;
        let is_shared_by_many = route.plain.len() > 1 || route.peers != 0;
        if let Tail::Joined(_) = message.tail
            && is_shared_by_many
            && message.size() > INLINE_BODY_MAX
        {
            let arguments = message.arguments();
            block = Bytes::copy_from_slice(message.body());
            message.tail = Tail::Shared { arguments, body: &block };
        }
        let message = &message;
        let taken = match route.plain[..] {
            [] => 0,
            [only] => usize::from(self.local.deliver(only, message, publisher, None)),
            ref several => self.local.deliver_to_all(several, message, publisher),
        };
        let mut spread = Spread { taken, sent: 0 };
        if !route.queues.is_empty() || route.peers != 0 {
            let may_be_refused = taken == 0 || broken(Rule::StatusInSpite);
            let status = if wants_503 && may_be_refused { Status::Wanted } else { Status::Unwanted };
            let (others, mask) = self.publish_to_groups_and_peers(route, publisher, message, account, status, None);
            spread += others;
            self.commit_large(io, mask);
        }
        spread
    }

    /// As [`Shard::publish`], in an account that shares something with others.
    #[inline(never)]
    fn publish_rarely<I: Io>(
        &mut self,
        io: &mut I,
        conn_slot: u32,
        publisher: &Publisher,
        message: &Message<'_>,
        rules: Option<PermissionsId>,
    ) {
        if rules.is_some() && self.permission(conn_slot, message.subject) == Permission::Denied {
            return;
        }
        let conn = &self.local.conns[conn_slot as usize];
        let (account, wants_503) = (conn.account, conn.options.no_responders && message.reply_bytes != 0);
        let inquiry = wants_503.then(|| self.inquiries.open(publisher.origin, account, message));
        let mut spread =
            self.publish_across(account, publisher, message, inquiry.map_or(Status::Unwanted, Status::Inquiry));
        if message.subject.starts_with(ANSWER_PREFIX) {
            spread.taken += self.answer(account, publisher, message);
        }
        // Not earlier: whoever gets the message must not be able to speak of it before it is on its way to all others.
        self.commit_large(io, self.peers.all());
        if let Some(inquiry) = inquiry
            && (spread.taken > 0 || spread.sent == 0)
        {
            self.inquiries.close(inquiry);
        }
        if spread.is_nowhere() && wants_503 {
            self.no_responders(account, conn_slot, message.subject, message.reply());
        }
        self.after_deliveries();
    }

    /// What deliveries have left to do.
    #[inline]
    pub(super) fn after_deliveries(&mut self) {
        if !self.local.finished.is_empty() {
            self.remove_finished();
        }
        if !self.local.stalls.is_empty() {
            self.send_stalls();
        }
    }

    /// Notes that a publisher of this shard has something in the open batches of the peers of `mask`.
    #[inline]
    pub(super) fn feed(&mut self, publisher: &Publisher, mask: u64) {
        if let Some(slot) = publisher.here {
            let conn = &mut self.local.conns[slot as usize];
            let fresh = mask & !conn.fed;
            if fresh != 0 {
                conn.fed |= fresh;
                self.peers.feed(fresh, (slot, conn.cid));
            }
        }
    }

    /// Queue groups, all or those of `groups`, and other shards. Gives these as a mask too: the caller commits what has
    /// grown large once the message has reached all of its batches.
    pub(super) fn publish_to_groups_and_peers(
        &mut self,
        route: &Route,
        publisher: &Publisher,
        message: &Message<'_>,
        account: u32,
        status: Status,
        groups: Option<&[u16]>,
    ) -> (Spread, u64) {
        let mut assigned: SmallVec<[(PeerPos, u16); 4]> = SmallVec::new();
        let mut refused_here: SmallVec<[(PeerPos, u16); 2]> = SmallVec::new();
        let mut taken = 0;
        for (n, queue) in route.queues.iter().enumerate() {
            if groups.is_some_and(|groups| !groups.contains(&(n as u16))) {
                continue;
            }
            match self.choose_member(queue, publisher, message) {
                Choice::Local => taken += 1,
                Choice::Peer(pos) => assigned.push((pos, n as u16)),
                Choice::PeerInstead(pos) => refused_here.push((pos, n as u16)),
                Choice::Nobody => {}
            }
        }
        let together = assigned.iter().fold(route.peers, |mask, (pos, _)| mask | 1 << pos);
        let mask = refused_here.iter().fold(together, |mask, (pos, _)| mask | 1 << pos);
        if mask == 0 {
            return (Spread { taken, sent: 0 }, 0);
        }
        let sent = together.count_ones() as usize + refused_here.len();
        let concern = match status {
            Status::Wanted if taken > 0 => Concern::None,
            // A single item for one group, or for none, remains one wherever it goes.
            Status::Wanted if sent == 1 && assigned.len() <= 1 => Concern::All,
            Status::Wanted => {
                let inquiry = self.inquiries.open(publisher.origin, account, message);
                Concern::Part(self.inquiries.share(inquiry, sent))
            }
            Status::Inquiry(inquiry) => Concern::Part(self.inquiries.share(inquiry, sent)),
            Status::Unwanted => Concern::None,
        };
        self.feed(publisher, mask);
        let mut rest = together;
        while rest != 0 {
            let pos = rest.trailing_zeros() as PeerPos;
            rest &= rest - 1;
            let flags = MessageFlags { plain: route.peers & 1 << pos != 0, concern, ..MessageFlags::default() };
            let names = assigned
                .iter()
                .filter(|(assigned_pos, _)| *assigned_pos == pos)
                .map(|(_, n)| &*route.queues[usize::from(*n)].name);
            self.peers.open(pos).push_message(account, publisher.origin, flags, names, message);
        }
        // What members here do not take goes by itself, with a note of that.
        let trail = Trail::default().refused_by(self.peers.shard());
        for (pos, n) in refused_here {
            let flags = MessageFlags { concern, trail, ..MessageFlags::default() };
            let name = std::iter::once(&*route.queues[usize::from(n)].name);
            self.peers.open(pos).push_message(account, publisher.origin, flags, name, message);
        }
        (Spread { taken, sent }, mask)
    }

    /// Picks one member of a group, uniformly over all members on all shards, and delivers if it is here.
    fn choose_member(&mut self, queue: &QueueRoute, publisher: &Publisher, message: &Message<'_>) -> Choice {
        let local = queue.local.len() as u32;
        let chosen = self.rng.u32(..local + queue.peer_weight);
        if let Some(chosen) = chosen.checked_sub(local) {
            return pick_peer(&queue.peers, chosen).map_or(Choice::Nobody, Choice::Peer);
        }
        if self.local.deliver_to_one(&queue.local, chosen as usize, message, publisher) {
            return Choice::Local;
        }
        if queue.peer_weight == 0 {
            return Choice::Nobody;
        }
        let other = self.rng.u32(..queue.peer_weight);
        pick_peer(&queue.peers, other).map_or(Choice::Nobody, Choice::PeerInstead)
    }

    pub(super) fn send_stalls(&mut self) {
        for (origin, millis) in std::mem::take(&mut self.local.stalls) {
            if origin.shard == self.peers.shard() {
                self.local.stall(origin.conn, origin.cid, millis);
            } else {
                let pos = self.peers.position(origin.shard);
                self.peers.open(pos).push_stall(origin, millis);
            }
        }
    }
}

/// Counts a message that a client publishes, whether or not it may.
#[inline(always)]
pub(super) fn count_publish(conn: &mut Conn, counters: &mut Counters, size: usize, now: u64) {
    conn.traffic.in_msgs += 1;
    conn.traffic.in_bytes += size as u64;
    conn.last_activity = now;
    counters.in_msgs += 1;
    counters.in_bytes += size as u64;
}

enum Choice {
    Local,
    Peer(PeerPos),
    /// Members here do not take it.
    PeerInstead(PeerPos),
    Nobody,
}

pub(super) fn pick_peer(peers: &[(PeerPos, u32)], mut chosen: u32) -> Option<PeerPos> {
    for (pos, weight) in peers {
        match chosen.checked_sub(*weight) {
            None => return Some(*pos),
            Some(rest) => chosen = rest,
        }
    }
    None
}

impl Local {
    /// Delivers to every one of `slots`; gives how many have taken it.
    #[inline]
    pub(super) fn deliver_to_all(&mut self, slots: &[SubSlot], message: &Message<'_>, publisher: &Publisher) -> usize {
        let mut taken = 0;
        if slots.len() >= COMMON_SUBSCRIBERS_MIN && matches!(message.tail, Tail::Joined(_)) {
            let mut rendered = Rendered::new();
            for slot in slots {
                taken += usize::from(self.deliver(*slot, message, publisher, Some(&mut rendered)));
            }
        } else {
            for slot in slots {
                taken += usize::from(self.deliver(*slot, message, publisher, None));
            }
        }
        taken
    }

    /// Delivers to one member of a group, beginning with `first` and walking on while members cannot take it.
    pub(super) fn deliver_to_one(
        &mut self,
        members: &[SubSlot],
        first: usize,
        message: &Message<'_>,
        publisher: &Publisher,
    ) -> bool {
        let (before, from) = members.split_at(first);
        from.iter().chain(before).any(|slot| self.deliver(*slot, message, publisher, None))
    }

    /// Writes a message into the outbound buffer of one subscription. `false` if it was not taken.
    #[inline]
    fn deliver(
        &mut self,
        slot: SubSlot,
        message: &Message<'_>,
        publisher: &Publisher,
        rendered: Option<&mut Rendered>,
    ) -> bool {
        let sub = &mut self.subs[slot as usize];
        let Some(conn) = self.conns.get_mut(sub.conn as usize) else {
            debug_assert_eq!(sub.conn, SERVICE, "a subscription goes with its connection");
            return self.intake.take(slot, publisher.origin, message);
        };
        if conn.closing.is_some() || (!publisher.echo && publisher.here == Some(sub.conn)) {
            return false;
        }
        if let Some(permits) = &mut conn.permits {
            if sub.is_filtered && !permits.may_receive(message.subject, sub.queue.as_deref(), &mut self.looks) {
                return false;
            }
            if message.reply_bytes != 0 {
                permits.delivered(message.reply(), self.now);
            }
        }
        if sub.delivered + 1 >= sub.max {
            if sub.delivered >= sub.max {
                return false;
            }
            self.finished.push(slot);
        }
        let pending = conn.out.pending();
        if pending > self.gate_bytes {
            if self.drops_at_gate {
                return false;
            }
            if publisher.here != Some(sub.conn) {
                conn.traffic.stalls += 1;
                let millis = if pending >= self.pending_max { STALL_MAX_MS } else { STALL_MIN_MS };
                match self.stalls.iter_mut().find(|(origin, _)| *origin == publisher.origin) {
                    Some((_, known)) => *known = (*known + millis).min(STALL_PER_READ_MS),
                    None => self.stalls.push((publisher.origin, millis)),
                }
            }
        }
        sub.delivered += 1;
        if message.header_bytes == 0 || conn.options.headers {
            match rendered {
                None => conn.out.write_message(&mut self.buffers, &sub.sid, message),
                Some(rendered) => match rendered.iter().find(|(sid, _)| is_same(sid, &sub.sid)) {
                    Some((_, part)) => conn.out.write_part(&mut self.buffers, *part),
                    None if rendered.len() < COMMON_SIDS_MAX => {
                        let part = self.buffers.render(&sub.sid, message);
                        rendered.push((Sid::from_slice(&sub.sid), part));
                        conn.out.write_part(&mut self.buffers, part);
                    }
                    None => conn.out.write_message(&mut self.buffers, &sub.sid, message),
                },
            }
        } else {
            self.scratch.clear();
            let plain = without_headers(&mut self.scratch, message);
            conn.out.write_message(&mut self.buffers, &sub.sid, &plain);
        }
        let size = message.size() as u64;
        conn.has_messages = true;
        conn.traffic.out_msgs += 1;
        conn.traffic.out_bytes += size;
        self.counters.out_msgs += 1;
        self.counters.out_bytes += size;
        if self.traces {
            super::trace::delivery(conn, sub, message);
        }
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(sub.conn);
        }
        let pending_now = conn.out.pending();
        // Only what is still too much after an attempt to write makes a slow consumer, see `flush_large`.
        if pending_now >> self.flush_shift != pending >> self.flush_shift || pending_now > self.pending_max {
            self.large.push(sub.conn);
        }
        true
    }

    /// A stall gate asks that a publisher of this shard be read more slowly.
    pub(super) fn stall(&mut self, slot: u32, cid: u64, millis: u8) {
        if let Some(conn) = self.conns.get_mut(slot as usize)
            && conn.cid == cid
        {
            conn.stall = (conn.stall + millis).min(STALL_PER_READ_MS);
            if !self.stalled.contains(&slot) {
                self.stalled.push(slot);
            }
        }
    }
}

/// The message as a client without header support gets it.
fn without_headers<'a>(scratch: &'a mut Vec<u8>, message: &Message<'a>) -> Message<'a> {
    let payload = &message.body()[message.header_bytes..];
    let mut digits = itoa::Buffer::new();
    let size_text = digits.format(payload.len() - 2).as_bytes();
    message::push_arguments(scratch, message.reply(), &[], size_text);
    let argument_bytes = scratch.len();
    scratch.extend_from_slice(payload);
    Message {
        subject: message.subject,
        reply_bytes: message.reply_bytes,
        header_bytes: 0,
        argument_bytes,
        tail: Tail::Joined(scratch),
    }
}
