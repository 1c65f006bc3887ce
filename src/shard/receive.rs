//! What other shards have sent: their batches, from which messages go to the outbound buffers here or on to another
//! shard, and what becomes of those that nobody takes.

use std::rc::Rc;

use smallvec::SmallVec;

use super::Shard;
use super::account::{PeerPos, QueueRoute, Route};
use super::batch::{Batch, Concern, Item, MessageFlags, Origin, QueueNames, Share, Trail};
use super::deliver::{Publisher, pick_peer};
use super::io::Io;
use super::reload::know_account;
use super::rules::{Rule, broken};
use crate::wire::message::{self, Message, Tail};

impl Shard {
    /// Handles a batch of another shard.
    pub(super) fn receive<I: Io>(&mut self, io: &mut I, from: PeerPos, batch: &Batch) {
        for item in batch.items() {
            match item {
                Item::Message { account, origin, flags, queues, message } => {
                    self.receive_message(io, account, origin, flags, queues, &message);
                }
                Item::NoResponders { account, origin, subject, reply } => {
                    if self.local.conns.get(origin.conn as usize).is_some_and(|conn| conn.cid == origin.cid) {
                        self.no_responders(account, origin.conn, subject, reply);
                        self.remove_finished();
                    }
                }
                Item::Refusal { share } => self.refused(share),
                Item::Stall { origin, millis } => self.local.stall(origin.conn, origin.cid, millis),
                Item::Relay { origin, said } => {
                    self.local.intake.push_relay(self.peers.shard_at(from), origin, said);
                }
            }
            if !self.local.large.is_empty() {
                self.flush_large(io);
            }
        }
        if !self.local.stalls.is_empty() {
            self.send_stalls();
        }
    }

    fn receive_message<I: Io>(
        &mut self,
        io: &mut I,
        account: u32,
        origin: Origin,
        flags: MessageFlags,
        queues: QueueNames<'_>,
        message: &Message<'_>,
    ) {
        know_account(&mut self.accounts, account, true);
        let here = (origin.shard == self.peers.shard()).then_some(origin.conn);
        let publisher = Publisher { origin, here, echo: here.is_none_or(|slot| self.echoes(slot, origin.cid)) };
        if flags.answer {
            self.answer(account, &publisher, message);
            self.commit_large(io, self.peers.all());
            return;
        }
        let route: Rc<Route> = self.accounts[account as usize].route(message.subject);
        let mut taken = 0;
        if flags.plain {
            taken += self.local.deliver_to_all(&route.plain, message, &publisher);
        }
        let mut left: SmallVec<[(&QueueRoute, Trail); 2]> = SmallVec::new();
        for name in queues {
            let Some(group) = route.queues.iter().find(|group| *group.name == *name) else { continue };
            let members = &group.local;
            if members.is_empty() {
                // They have left while the message was on its way. The next shard learns of that before it gets the
                // message, so it does not send it back.
                left.extend(flags.trail.past().map(|trail| (group, trail)));
                continue;
            }
            let first = self.rng.usize(..members.len());
            if self.local.deliver_to_one(members, first, message, &publisher) {
                taken += 1;
            } else {
                left.push((group, flags.trail.refused_by(self.peers.shard())));
            }
        }
        // That goes on to other shards, which answer for a lack of takers in place of this one.
        let onward: SmallVec<[(&QueueRoute, Trail, PeerPos); 2]> = left
            .into_iter()
            .filter(|(_, trail)| may_go_on(*trail))
            .filter_map(|(group, trail)| Some((group, trail, self.pick_other(group, trail)?)))
            .collect();
        let concern = if taken == 0 || broken(Rule::StatusInSpite) { flags.concern } else { Concern::None };
        let mut concerns = divided(concern, onward.len());
        for (group, trail, pos) in &onward {
            let concern = concerns.next().unwrap_or_default();
            let flags = MessageFlags { concern, trail: *trail, ..MessageFlags::default() };
            let name = std::iter::once(&*group.name);
            self.peers.open(*pos).push_message(account, origin, flags, name, message);
            self.commit_large(io, 1 << pos);
        }
        if taken == 0 && onward.is_empty() {
            self.refuse(flags.concern, account, origin, message);
        }
        if !self.local.finished.is_empty() {
            self.remove_finished();
        }
    }

    fn echoes(&self, slot: u32, cid: u64) -> bool {
        self.local.conns.get(slot as usize).is_none_or(|conn| conn.cid != cid || conn.options.echo)
    }

    /// Another shard with members of a group that has not refused the message, if there is one.
    fn pick_other(&mut self, group: &QueueRoute, trail: Trail) -> Option<PeerPos> {
        let refused = self.peers.mask(trail.refused);
        let others: SmallVec<[(PeerPos, u32); 8]> =
            group.peers.iter().copied().filter(|(pos, _)| refused & 1 << pos == 0).collect();
        let weight: u32 = others.iter().map(|(_, weight)| weight).sum();
        if weight == 0 {
            return None;
        }
        let chosen = self.rng.u32(..weight);
        pick_peer(&others, chosen)
    }

    /// Nobody takes a message that has come here, and it goes nowhere else: the shard of its publisher has to know.
    fn refuse(&mut self, concern: Concern, account: u32, origin: Origin, message: &Message<'_>) {
        let is_here = origin.shard == self.peers.shard();
        match concern {
            Concern::None => {}
            Concern::All if is_here => {
                if self.local.conns.get(origin.conn as usize).is_some_and(|conn| conn.cid == origin.cid) {
                    self.no_responders(account, origin.conn, message.subject, message.reply());
                }
            }
            Concern::Part(share) if is_here => self.refused(share),
            _ if broken(Rule::NoRemoteStatus) => {}
            Concern::All => {
                let pos = self.peers.position(origin.shard);
                self.peers.open(pos).push_no_responders(account, origin, message.subject, message.reply());
            }
            Concern::Part(share) => {
                let pos = self.peers.position(origin.shard);
                self.peers.open(pos).push_refusal(origin, share);
            }
        }
    }

    /// One of the destinations of a request has no taker. The last one brings the 503.
    fn refused(&mut self, share: Share) {
        if broken(Rule::RefusalsNotCounted) {
            return;
        }
        let Some(inquiry) = self.inquiries.refuse(share) else { return };
        if self.local.conns.get(inquiry.conn as usize).is_some_and(|conn| conn.cid == inquiry.cid) {
            self.no_responders(inquiry.account, inquiry.conn, inquiry.subject(), inquiry.reply());
        }
    }

    /// Answers a request that nobody took, if the requester listens on the reply itself.
    pub(super) fn no_responders(&mut self, account: u32, conn_slot: u32, subject: &[u8], reply: &[u8]) {
        let route = self.accounts[account as usize].route(reply);
        let own = route.plain.iter().find(|slot| self.local.subs[**slot as usize].conn == conn_slot);
        let Some(&slot) = own else { return };
        let mut tail = Vec::with_capacity(subject.len() + 64);
        let (header_bytes, argument_bytes) = message::push_no_responders(&mut tail, subject);
        let status =
            Message { subject: reply, reply_bytes: 0, header_bytes, argument_bytes, tail: Tail::Joined(&tail) };
        // It is no message of the subject: the subscription does not count it.
        let local = &mut self.local;
        let conn = &mut local.conns[conn_slot as usize];
        conn.out.write_message(&mut local.buffers, &local.subs[slot as usize].sid, &status);
        if !std::mem::replace(&mut conn.dirty, true) {
            local.dirty.push(conn_slot);
        }
    }
}

/// What each of `parts` answers for that take the place of one who answers for `concern`.
fn divided(concern: Concern, parts: usize) -> impl Iterator<Item = Concern> {
    let parts_max = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
    (0..parts as u32).map(move |part| match concern {
        Concern::Part(share) => {
            let rest = if part == 0 { share.weight % parts_max } else { 0 };
            Concern::Part(Share { weight: share.weight / parts_max + rest, ..share })
        }
        whole => whole,
    })
}

/// Whether a rule keeps a queue message from being passed on.
fn may_go_on(trail: Trail) -> bool {
    let is_first = trail.hops + trail.refused.count_ones() as u8 <= 1;
    let is_refused_again = trail.refused.count_ones() > 1 && broken(Rule::RefusedOnce);
    !broken(Rule::NotPassedOn) && !is_refused_again && (is_first || !broken(Rule::PassedOnOnce))
}
