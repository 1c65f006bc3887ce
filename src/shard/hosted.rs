//! The service inside a shard: it is told what has come for it, and what it wants is done.
//!
//! Messages and relays wait in the intake while connections and rings are handled. At the end of the turn the service
//! gets them, in order, and then its own turn. What it puts into its outbox is carried out before the turn's output
//! leaves, so it follows the ordinary rules: rings before sockets, and nothing overtakes what it was caused by. For the
//! same reason the service is told what waits for it, without a turn of its own, whenever something is to leave in
//! mid-turn: a client must not be able to act upon what another one published while something that was published before
//! waits.

use bytes::Bytes;

use super::Shard;
use super::batch::INLINE_BODY_MAX;
use super::conn::Sub;
use super::crossing::ANSWER_PREFIX;
use super::deliver::{Publisher, Status};
use super::intake::{Item, Waiting};
use super::io::Io;
use super::service::{Due, Errand, Outbox, SERVICE, Service, Source};
use crate::auth::directory::DEFAULT_ACCOUNT_NUMBER;
use crate::log::{Answer, LogId, Request, RequestId, Time};
use crate::monitor::{ServiceSnapshot, ServiceWant};
use crate::wire::message::{Message, Tail};

/// A service that always has something more to say to itself goes on in the next turn after so many rounds.
const ROUNDS_MAX: usize = 32;
/// The account that services live in.
const ACCOUNT: u32 = DEFAULT_ACCOUNT_NUMBER;

/// A service and what its shard knows of it.
pub(super) struct Hosted {
    service: Box<dyn Service>,
    outbox: Outbox,
    /// What it is being told; empty otherwise.
    mail: Waiting,
    answers: Vec<Answer>,
    requests: Vec<(LogId, Request)>,
    /// Commits on their way to the disk, and files that are made ready, for which commits may wait.
    commits: Vec<(LogId, RequestId)>,
    /// Nanoseconds since 1970-01-01 UTC, at the beginning of this turn.
    now: Time,
    /// It has been told something since its last turn, or asked for another one.
    is_due: bool,
    deadline: Option<Time>,
    /// The deadline on the clock of the shard.
    due_at: Option<u64>,
    /// In its last turn it could not deliver.
    wants_room: bool,
    is_stopping: bool,
}

impl Hosted {
    /// Tells it everything that has come, unless it is being stopped.
    fn hear(&mut self) {
        let (service, outbox, now) = (&mut self.service, &mut self.outbox, self.now);
        for item in self.mail.items().filter(|_| !self.is_stopping) {
            match item {
                Item::Message(mail) => service.message(now, &mail, outbox),
                Item::Relay { from, source, said } => service.relayed(now, from, source, said, outbox),
            }
        }
        self.mail.clear();
        self.is_due = true;
    }

    fn turn(&mut self, may_deliver: bool) {
        let Due { again, deadline } = self.service.turn(self.now, may_deliver, &mut self.outbox);
        (self.is_due, self.deadline, self.wants_room) = (again, deadline, !may_deliver);
    }
}

impl Shard {
    /// Puts a service into the shard, into the default account, before the first connection. It stays to the end.
    ///
    /// # Panics
    /// If there is a service already, or a subscription.
    pub fn install(&mut self, service: Box<dyn Service>) {
        assert!(self.service.is_none() && self.local.subs.is_empty(), "services come before clients");
        for subscription in service.subscriptions() {
            let slot = self.local.intake.listen(self.id(), &subscription);
            let sub = Sub {
                conn: SERVICE,
                sid: Default::default(),
                subject: subscription.pattern.as_slice().into(),
                queue: None,
                is_filtered: false,
                delivered: 0,
                max: u64::MAX,
            };
            let inserted = self.local.subs.insert(sub);
            debug_assert_eq!(inserted as u32, slot, "slots are given out in order");
            let account = &mut self.accounts[ACCOUNT as usize];
            if subscription.of_own_shard {
                account.subscribe_here(&subscription.pattern, None, slot);
            } else {
                account.subscribe(&subscription.pattern, None, slot);
            }
        }
        if let Some(joined) = service.joined() {
            self.accounts[ACCOUNT as usize].join(joined, self.local.subs.len() as u32);
        }
        self.service = Some(Box::new(Hosted {
            service,
            outbox: Outbox::default(),
            mail: Waiting::default(),
            answers: Vec::new(),
            requests: Vec::new(),
            commits: Vec::new(),
            now: 0,
            is_due: true,
            deadline: None,
            due_at: None,
            wants_room: false,
            is_stopping: false,
        }));
    }

    /// Whether there is a service inside.
    #[must_use]
    pub fn has_service(&self) -> bool {
        self.service.is_some()
    }

    /// Begins to stop the service: from now on it gets turns and nothing else.
    pub fn stop_service<I: Io>(&mut self, io: &mut I) {
        if let Some(hosted) = &mut self.service {
            hosted.service.stop(io.wall());
            (hosted.is_stopping, hosted.is_due) = (true, true);
        }
    }

    /// Whether the service has been stopped, or there is none.
    #[must_use]
    pub fn is_service_stopped(&self) -> bool {
        self.service.as_ref().is_none_or(|hosted| hosted.is_stopping && hosted.service.is_stopped())
    }

    pub(super) fn service_snapshot<I: Io>(&mut self, io: &mut I, want: &ServiceWant) -> Option<ServiceSnapshot> {
        self.service.as_mut().map(|hosted| hosted.service.snapshot(io.wall(), want))
    }

    /// Reads the calendar for this turn, and passes on what has become of requests for files.
    pub(super) fn begin_service_turn<I: Io>(&mut self, io: &mut I) {
        let Some(hosted) = &mut self.service else { return };
        hosted.now = io.wall();
        io.file_answers(&mut hosted.answers);
        for Answer { log, id, outcome, free } in hosted.answers.drain(..) {
            hosted.commits.retain(|commit| *commit != (log, id));
            hosted.service.completed(hosted.now, log, id, outcome, free);
            hosted.is_due = true;
        }
    }

    /// The service's part of the end of a turn. `true` if it had something to do.
    pub(super) fn run_service<I: Io>(&mut self, io: &mut I) -> bool {
        let Some(mut hosted) = self.service.take() else { return false };
        let has_room = hosted.wants_room && !self.peers.is_spilled();
        hosted.is_due |= has_room || hosted.deadline.is_some_and(|deadline| deadline <= hosted.now);
        let mut rounds = 0;
        let mut had_turn = false;
        // It gets its turn when it knows everything, and another one if that has brought something more to know.
        while rounds < ROUNDS_MAX && (!self.local.intake.is_empty() || hosted.is_due && !had_turn) {
            rounds += 1;
            had_turn = self.local.intake.is_empty();
            if had_turn {
                hosted.turn(!self.peers.is_spilled());
                self.carry_out(io, &mut hosted);
            } else {
                self.tell(io, &mut hosted);
            }
        }
        if !self.local.large.is_empty() {
            self.flush_large(io);
        }
        if rounds > 0 {
            hosted.service.take_requests(&mut hosted.requests);
            for (log, request) in hosted.requests.drain(..) {
                if let Request::Commit { id, .. } | Request::Prepare { id, .. } = request {
                    hosted.commits.push((log, id));
                }
                io.file(log, request);
            }
        }
        let until = |deadline: Time| u64::try_from(deadline.saturating_sub(hosted.now)).unwrap_or(0);
        hosted.due_at = hosted.deadline.map(|deadline| self.now.saturating_add(until(deadline)));
        self.service = Some(hosted);
        rounds > 0
    }

    /// Tells the service what has come for it, because something is about to leave that may have been published after
    /// it.
    pub(super) fn attend_service<I: Io>(&mut self, io: &mut I) {
        if self.local.intake.is_empty() {
            return;
        }
        let Some(mut hosted) = self.service.take() else { return };
        self.withholds = true;
        let mut rounds = 0;
        while rounds < ROUNDS_MAX && !self.local.intake.is_empty() {
            rounds += 1;
            self.tell(io, &mut hosted);
        }
        self.withholds = false;
        self.service = Some(hosted);
    }

    /// Tells the service what waits. Nothing leaves before all that follows from it is in the open batches.
    fn tell<I: Io>(&mut self, io: &mut I, hosted: &mut Hosted) {
        self.local.intake.swap(&mut hosted.mail);
        hosted.hear();
        let withheld = std::mem::replace(&mut self.withholds, true);
        self.carry_out(io, hosted);
        self.withholds = withheld;
    }

    /// Whether the service has answered what it was told, as far as answers wait for the disk.
    pub(super) fn has_service_answered(&self) -> bool {
        let is_told = self.local.intake.is_empty();
        self.service.as_ref().is_none_or(|hosted| is_told && !hosted.is_due && hosted.commits.is_empty())
    }

    /// Whether the service needs another turn at once.
    pub(super) fn service_goes_on(&self) -> bool {
        self.service.as_ref().is_some_and(|hosted| {
            hosted.is_due || !self.local.intake.is_empty() || hosted.wants_room && !self.peers.is_spilled()
        })
    }

    /// When the service's next turn is due, on the clock of the shard. What is overdue only for want of room comes when
    /// there is some.
    pub(super) fn service_due_at(&self) -> Option<u64> {
        let hosted = self.service.as_ref()?;
        hosted.due_at.filter(|at| *at > self.now || !hosted.wants_room)
    }

    /// Frees the buffers of a shard that rests.
    pub(super) fn trim_service(&mut self) {
        if let Some(hosted) = &mut self.service {
            self.local.intake.trim();
            hosted.outbox = Outbox::default();
            hosted.mail = Waiting::default();
            hosted.service.rest();
        }
    }

    /// Does what the service wants, in order, and tells it what was asked in vain.
    fn carry_out<I: Io>(&mut self, io: &mut I, hosted: &mut Hosted) {
        while !hosted.outbox.is_empty() {
            for number in self.carry_out_once(io, &mut hosted.outbox) {
                hosted.service.unheard(hosted.now, number, &mut hosted.outbox);
                hosted.is_due = true;
            }
        }
    }

    /// Does what the service wants, in order. Gives the numbers of what was asked and nobody listens to.
    fn carry_out_once<I: Io>(&mut self, io: &mut I, outbox: &mut Outbox) -> Vec<u64> {
        let mut unheard = Vec::new();
        for errand in outbox.errands() {
            match errand {
                Errand::Publish { subject, tail, reply_bytes, argument_bytes, number } => {
                    let tail = Tail::Joined(tail);
                    let message = Message { subject, reply_bytes, header_bytes: 0, argument_bytes, tail };
                    let is_heard = self.publish_for_service(io, &message);
                    unheard.extend(number.filter(|_| !is_heard));
                }
                Errand::Relay { to, source, said } => self.relay(io, to, source, said),
                Errand::Stall { source, millis } if source.shard == self.id() => {
                    self.local.stall(source.conn, source.cid, millis);
                }
                Errand::Stall { source, millis } => {
                    if let Some(pos) = self.peers.find(source.shard) {
                        self.peers.open(pos).push_stall(source, millis);
                    }
                }
            }
        }
        outbox.clear();
        unheard
    }

    /// Sends a message of the service to everybody who wants it. `false` if nobody does.
    fn publish_for_service<I: Io>(&mut self, io: &mut I, message: &Message<'_>) -> bool {
        let origin = Source { shard: self.id(), conn: SERVICE, cid: 0 };
        let publisher = Publisher { origin, here: None, echo: true };
        let account = &mut self.accounts[ACCOUNT as usize];
        let spread = if account.crosses {
            let mut spread = self.publish_across(ACCOUNT, &publisher, message, Status::Unwanted);
            if message.subject.starts_with(ANSWER_PREFIX) {
                spread.taken += self.answer(ACCOUNT, &publisher, message);
            }
            self.commit_large(io, self.peers.all());
            spread
        } else {
            let route = account.route(message.subject);
            self.publish_along(io, &route, &publisher, message, ACCOUNT, false)
        };
        self.after_deliveries();
        if !self.local.large.is_empty() {
            self.flush_large(io);
        }
        !spread.is_nowhere()
    }

    /// Says something to the service of one shard, or to those of all.
    fn relay<I: Io>(&mut self, io: &mut I, to: Option<u16>, source: Source, said: &[u8]) {
        let own = self.id();
        let mask = match to {
            None => self.peers.all(),
            Some(shard) => self.peers.find(shard).map_or(0, |pos| 1 << pos),
        };
        if mask != 0 {
            self.feed_for(source, mask);
            let block = (said.len() > INLINE_BODY_MAX).then(|| Bytes::copy_from_slice(said));
            let mut rest = mask;
            while rest != 0 {
                let pos = rest.trailing_zeros();
                rest &= rest - 1;
                self.peers.open(pos as u8).push_relay(source, said, block.as_ref());
            }
            self.commit_large(io, mask);
        }
        if to.is_none_or(|shard| shard == own) {
            self.local.intake.push_relay(own, source, said);
        }
    }

    /// Notes that a connection, if it is of this shard, has something in the open batches of the peers of `mask`.
    fn feed_for(&mut self, source: Source, mask: u64) {
        let is_here = source.shard == self.id();
        let conn = self.local.conns.get(source.conn as usize).filter(|conn| is_here && conn.cid == source.cid);
        if conn.is_some() {
            self.feed(&Publisher { origin: source, here: Some(source.conn), echo: true }, mask);
        }
    }
}

#[cfg(test)]
#[path = "hosted_tests.rs"]
mod tests;
