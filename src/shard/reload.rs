//! Another configuration takes over while clients are connected.
//!
//! A shard takes it between two turns ([`Shard::reload`]), each shard in its own time. Who is still allowed to be here
//! notices nothing, or only what has changed for him: a subscription that he may not have any more is taken from him,
//! and he is told. Limits are those of the new configuration from the next command on.

use super::Config;
use super::Shard;
use super::account::Account;
use super::conn::Stage;
use super::io::Io;
use super::rules::{Rule, broken};
use super::timers::Timer;
use crate::auth::{Directory, Grant, Permits, Receives, Review};
use crate::logging;
use crate::wire::errors::{CloseReason, Lapse, Quoted, Violation};

impl Shard {
    /// Works by `config` from now on; gives the number of connections that may stay.
    pub fn reload<I: Io>(&mut self, io: &mut I, config: &Config) -> usize {
        self.now = io.now();
        let before = std::mem::replace(&mut self.config, config.clone()).directory;
        self.local.traces = logging::trace_enabled();
        self.local.drops_at_gate = config.no_fast_producer_stall;
        for (number, facts) in config.directory.accounts().iter().enumerate() {
            know_account(&mut self.accounts, number as u32, !self.peers.is_empty());
            self.accounts[number].name = (&*facts.name).into();
            self.accounts[number].crosses = facts.crosses();
            self.accounts[number].maps = facts.mappings().is_some();
        }
        for slot in self.open_slots() {
            self.ping_earlier(slot);
            let conn = &self.local.conns[slot as usize];
            let kind = conn.kind();
            match conn.stage {
                Stage::Unauthenticated if !config.directory.is_required(kind) => {
                    self.local.conns[slot as usize].stage = Stage::Open;
                    self.start_pings(slot);
                }
                // What these say of themselves is judged by the new directory when it is there, or judged again.
                Stage::Unauthenticated | Stage::Undecided => {}
                Stage::Open => self.review(io, slot, &before),
            }
        }
        self.local.conns.iter().filter(|(_, conn)| conn.closing.is_none()).count()
    }

    /// Closes `count` connections, whichever, because the server has more than it may; and of each account as many as
    /// it has too many. To be called when all shards know the limits.
    pub fn close_excess<I: Io>(&mut self, io: &mut I, count: usize) {
        self.now = io.now();
        let mut slots = self.open_slots();
        self.rng.shuffle(&mut slots);
        let (excess, others) = slots.split_at(count.min(slots.len()));
        for &slot in excess {
            self.close(io, slot, CloseReason::MaximumConnections);
        }
        let directory = self.config.directory.clone();
        for &slot in others {
            let conn = &mut self.local.conns[slot as usize];
            if conn.has_entered && directory.accounts()[conn.account as usize].evict() {
                conn.has_entered = false;
                self.close(io, slot, CloseReason::MaximumAccountConnections);
            }
        }
    }

    fn open_slots(&self) -> Vec<u32> {
        let open = self.local.conns.iter().filter(|(_, conn)| conn.closing.is_none());
        open.map(|(slot, _)| slot as u32).collect()
    }

    /// The next ping comes no later than the interval allows.
    fn ping_earlier(&mut self, slot: u32) {
        let conn = &mut self.local.conns[slot as usize];
        let latest = self.now + self.config.ping_interval(conn.kind());
        if conn.pings.due > latest {
            conn.pings.due = latest;
            self.timers.set_coarse(self.now, latest, (slot, conn.cid, Timer::Ping));
        }
    }

    /// Looks whether a client may stay what it is. `before` is the directory that was in force.
    fn review<I: Io>(&mut self, io: &mut I, slot: u32, before: &Directory) {
        let conn = &self.local.conns[slot as usize];
        // Time has not made the account expire if it got a token that had expired before.
        let had_time = |account| before.account_expires(account) == self.config.directory.account_expires(account);
        match self.config.directory.review(&conn.basis, conn.account, conn.kind()) {
            Review::Stays(grant) => {
                self.renew(slot, grant);
                if self.has_too_many_subs(slot) {
                    self.close(io, slot, CloseReason::MaximumSubscriptions);
                }
            }
            Review::Gone if broken(Rule::GoneStay) => {}
            Review::Gone => self.close(io, slot, CloseReason::UserGone),
            Review::Lapsed(Lapse::Account) if !had_time(conn.account) => self.close_denied(io, slot),
            Review::Lapsed(lapse) => self.close(io, slot, CloseReason::Lapsed(lapse)),
            Review::Denied => self.close_denied(io, slot),
        }
    }

    fn close_denied<I: Io>(&mut self, io: &mut I, slot: u32) {
        let conn = &self.local.conns[slot as usize];
        let claim = conn.basis.claim().map(|claim| format!(" - {claim}")).unwrap_or_default();
        tracing::error!("{} - authentication error{claim}", conn.label());
        self.close(io, slot, CloseReason::AuthorizationViolation);
    }

    fn renew(&mut self, slot: u32, grant: Grant) {
        let conn = &mut self.local.conns[slot as usize];
        conn.basis = grant.basis;
        if broken(Rule::RightsNotRenewed) {
            return;
        }
        let differ = match (&mut conn.permits, grant.permissions) {
            (Some(permits), Some(rules)) => permits.renew(&rules),
            (permits, rules) => {
                let differ = permits.is_some() || rules.is_some();
                *permits = rules.map(|rules| Box::new(Permits::new(rules)));
                differ
            }
        };
        if differ && !broken(Rule::SubsNotReviewed) {
            self.review_subs(slot);
        }
    }

    /// Takes away the subscriptions that a client may not have any more.
    fn review_subs(&mut self, slot: u32) {
        let conn = &self.local.conns[slot as usize];
        let mut revoked = Vec::new();
        for &sub_slot in &conn.subs {
            let sub = &mut self.local.subs[sub_slot as usize];
            let verdict = match &conn.permits {
                None => Some(Receives::All),
                Some(permits) => {
                    permits.rules().may_subscribe(&sub.subject, sub.queue.as_deref(), &mut self.local.looks)
                }
            };
            match verdict {
                Some(_) if broken(Rule::SubsLost) => revoked.push(sub_slot),
                Some(receives) => sub.is_filtered = receives == Receives::Some,
                None => revoked.push(sub_slot),
            }
        }
        // The order of a hash table differs from run to run.
        revoked.sort_unstable();
        for sub_slot in revoked {
            self.feed_all(slot);
            let sub = &self.local.subs[sub_slot as usize];
            let user = self.local.conns[slot as usize].basis.claim();
            let user = user.map(|claim| format!(" for {claim}")).unwrap_or_default();
            let queue = sub.queue.as_deref().map(|queue| format!(" using queue {}", Quoted(queue)));
            let (subject, queue, sid) = (Quoted(&sub.subject), queue.unwrap_or_default(), Quoted(&sub.sid));
            tracing::info!("Removed sub {subject}{queue} (sid {sid}){user} - not authorized");
            let violation = Violation::SubscriptionRevoked(&sub.subject, sub.queue.as_deref(), &sub.sid);
            let text = format!("-ERR '{violation}'\r\n");
            self.remove_sub(sub_slot);
            self.say(slot, text.as_bytes());
        }
    }
}

/// Makes room for account `number`: another shard that has reloaded already may speak of it first.
pub(super) fn know_account(accounts: &mut Vec<Account>, number: u32, has_peers: bool) {
    while accounts.len() <= number as usize {
        accounts.push(Account::new("", has_peers));
    }
}
