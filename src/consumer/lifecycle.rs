//! Members come and go, pull requests come, the configuration changes.

use super::config::{Config, Invalid, OnReturn, Sharing};
use super::event::Event;
use super::ledger::NOBODY;
use super::members::{MemberId, Presence, Terms};
use super::pace::Bucket;
use super::requests::{NotAccepted, PullRequest, RequestId};
use super::state::Consumer;
use crate::log::Time;

/// There is a member already where only one may be, or there are 65,535.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupied;

/// What a member leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Others, who get so many messages that it did not acknowledge.
    Others(usize),
    /// Nobody; the consumer waits for the next member.
    Offline,
    /// Nobody, and such a consumer ends with its last member.
    Ended,
}

impl Consumer {
    /// A member joins. The first one gets all that are unacknowledged.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn join(&mut self, now: Time, terms: impl Into<Terms>) -> Result<MemberId, Occupied> {
        let is_first = self.members.is_empty();
        if is_first {
            self.forget_absent();
        }
        let id = self.admit(now, terms.into())?;
        if is_first && !self.ledger.is_empty() {
            self.distribute(&[id], |_| true, None);
            if self.config.on_return == OnReturn::ResendAll {
                self.redeliver_all();
            }
        }
        Ok(id)
    }

    /// Members that have outlived a restart of the store join, all in one call and before any other. What one of them is
    /// known to hold comes again to it and to nobody else; the other unacknowledged messages are spread over all. The
    /// deadlines are those of [`Consumer::opened`], with the waits of the members.
    ///
    /// # Errors
    /// There is no place for one of them; those before it have joined.
    pub fn rejoin<T: Into<Terms> + Copy>(&mut self, now: Time, members: &[T]) -> Result<Vec<MemberId>, Occupied> {
        let ids = members.iter().map(|terms| self.admit(now, (*terms).into())).collect::<Result<Vec<_>, _>>();
        self.forget_absent();
        let members = &mut self.members;
        self.ledger.rewrite(|entry| {
            match members.owner(entry.owner) {
                Some(member) => {
                    member.pending += 1;
                    entry.assigned = true;
                }
                None => entry.owner = NOBODY,
            }
            None
        });
        let all: Vec<_> = self.members.ids().collect();
        self.distribute(&all, |owner| owner == NOBODY, None);
        let (members, config) = (&self.members, &self.config);
        self.ledger.rewrite(|entry| {
            let own = members.ack_wait_ns(entry.owner).filter(|_| !entry.is_queued())?;
            Some(entry.deadline.saturating_add(own - config.wait_ns(entry.deliveries)))
        });
        ids
    }

    /// Members that have not come back are members no longer.
    fn forget_absent(&mut self) {
        if self.members.forget_absent() && self.config.sharing == Sharing::Group {
            self.changes.members_changed();
        }
    }

    /// A member leaves; what it did not acknowledge is dealt out to the others, and comes again, to whoever is best then,
    /// when the hand-over delay is over. An acknowledgement that it has sent before still counts. `None` if it had left.
    pub fn leave(&mut self, now: Time, id: MemberId) -> Option<Left> {
        let is_recorded = self.records_owner(id.index);
        if !self.members.leave(id) {
            return None;
        }
        if is_recorded {
            self.changes.member_left(id.index);
        }
        let all: Vec<_> = self.members.ids().collect();
        let wanted = |id: &MemberId| self.members.get(*id).is_some_and(|member| member.presence == Presence::Ready);
        let mut heirs: Vec<_> = all.iter().copied().filter(wanted).collect();
        if heirs.is_empty() {
            heirs = all;
        }
        let due = (!heirs.is_empty()).then(|| now.saturating_add(self.config.handover_delay_ns));
        let handed_over = self.distribute(&heirs, |owner| owner == id.index, due);
        self.idle_since = Some(now);
        Some(match (heirs.is_empty(), self.config.ends_with_last_member) {
            (false, _) => Left::Others(handed_over),
            (true, true) => Left::Ended,
            (true, false) => Left::Offline,
        })
    }

    /// Says what a member can take. Returns false if it has left.
    pub fn set_presence(&mut self, id: MemberId, presence: Presence) -> bool {
        let Some(member) = self.members.get_mut(id) else { return false };
        member.presence = presence;
        if presence == Presence::Draining && member.pending == 0 {
            self.events.push(Event::Drained(id));
        }
        true
    }

    /// Changes how many unacknowledged messages a member may hold. Returns false if it has left.
    pub fn set_credit(&mut self, id: MemberId, credit: u32) -> bool {
        self.members.get_mut(id).map(|member| member.credit = credit).is_some()
    }

    /// How many unacknowledged messages a member holds, and how many it may. `None` if it has left.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<(u32, u32)> {
        self.members.get(id).map(|member| (member.pending, member.credit))
    }

    /// A pull request comes. Only served while there are no members.
    ///
    /// # Errors
    /// It exceeds a limit of the configuration, or would not wait and would have to.
    pub fn request(&mut self, now: Time, ask: PullRequest) -> Result<RequestId, NotAccepted> {
        self.expire(now);
        let config = &self.config;
        if let Some(most) = config.max_batch.filter(|most| ask.batch > *most) {
            return Err(NotAccepted::Batch(most.get()));
        }
        let lives_too_long = |most: &i64| ask.expires.is_none_or(|expires| expires.saturating_sub(now) > *most);
        if let Some(most) = config.max_expires_ns.filter(lives_too_long) {
            return Err(NotAccepted::Expires(most));
        }
        let takes_too_much = |most: &std::num::NonZeroU64| ask.max_bytes.is_none_or(|bytes| bytes > *most);
        if let Some(most) = config.max_request_bytes.filter(takes_too_much) {
            return Err(NotAccepted::Bytes(most.get()));
        }
        let requests = self.requests.get_or_insert_default();
        if requests.len() >= config.max_waiting.get() as usize {
            return Err(NotAccepted::Waiting(config.max_waiting.get()));
        }
        if ask.no_wait {
            let available = self.num_pending + self.ledger.queued() as u64;
            if available == 0 && ask.expires.is_none() {
                return Err(NotAccepted::NoMessages);
            }
            if available > 0 && available < requests.wanted() {
                return Err(NotAccepted::RequestsPending);
            }
        }
        self.idle_since = Some(now);
        self.inactive_told = false;
        Ok(requests.push(ask))
    }

    /// A pull request is not wanted any longer. Returns false if it was over.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        self.requests.as_mut().is_some_and(|requests| requests.cancel(id))
    }

    /// The consumer is being deleted: ends all pull requests.
    pub fn close(&mut self) {
        if let Some(requests) = &mut self.requests {
            requests.close(&mut self.events);
        }
    }

    /// Changes the configuration. Deadlines that are running stay. If filters have changed the caller counts anew what
    /// is pending: [`Consumer::set_num_pending`].
    ///
    /// # Errors
    /// The new one is not valid, or a field differs that cannot change. Then nothing has changed.
    pub fn update(&mut self, now: Time, config: Config) -> Result<(), Invalid> {
        self.config.validate_change(&config)?;
        if self.config.rate != config.rate {
            self.bucket = config.rate.map(|rate| Box::new(Bucket::new(rate, now)));
        }
        self.paused_until = config.pause_until;
        self.config = config.shared();
        self.changes.config();
        Ok(())
    }

    fn admit(&mut self, now: Time, terms: Terms) -> Result<MemberId, Occupied> {
        if self.config.sharing == Sharing::Single && !self.members.is_empty() {
            return Err(Occupied);
        }
        self.idle_since = Some(now);
        self.inactive_told = false;
        let id = self.members.join(terms).ok_or(Occupied)?;
        if self.records_owner(id.index) {
            self.changes.members_changed();
        }
        Ok(id)
    }

    /// Gives messages of some owners to `heirs` in turn, to be sent again at `due`: then to whoever is best. Without heirs to
    /// nobody.
    fn distribute(&mut self, heirs: &[MemberId], of: impl Fn(u16) -> bool, due: Option<Time>) -> usize {
        let mut turn = heirs.iter().cycle();
        let mut count = 0;
        let (members, changes) = (&mut self.members, &mut self.changes);
        let is_group = self.config.sharing == Sharing::Group;
        self.ledger.rewrite(|entry| {
            if !of(entry.owner) {
                return None;
            }
            entry.owner = turn.next().map_or(NOBODY, |id| id.index);
            entry.assigned = false;
            if let Some(member) = members.owner(entry.owner) {
                member.pending += 1;
            }
            if is_group && members.is_named(entry.owner) {
                changes.owned(entry.seq, entry.owner);
            }
            count += 1;
            due
        });
        count
    }
}
