//! From CONNECT to what a client may do.
//!
//! A CONNECT is judged by the [`crate::auth::Directory`]. Where that takes long the connection is *undecided*: nothing of
//! it is read or executed until the verdict is back ([`Shard::login_decided`]), and other connections do not notice.

use std::sync::Arc;
use std::time::SystemTime;

use super::Shard;
use super::conn::{Identity, Input, Options, Stage, Undecided};
use super::io::Io;
use super::rules::{Rule, broken};
use super::timers::Timer;
use super::turn::RULED_READ_BYTES;
use crate::auth::{Answer, Client, Grant, Permits};
use crate::wire::connect::{self, Connect};
use crate::wire::errors::{CloseReason, Lapse};

/// Random bytes of a nonce; as base64 text it has 15 characters.
const NONCE_BYTES: usize = 11;
/// Whether a user's time is over is looked at this often at least, since the clock can be set; nanoseconds.
const EXPIRY_LOOK: u64 = 3_600_000_000_000;

impl Shard {
    /// Whether the connection may send a command that begins with `first`. Closes it where it may not.
    pub(super) fn may_speak<I: Io>(&mut self, io: &mut I, slot: u32, first: u8) -> bool {
        let Some(conn) = self.local.conns.get(slot as usize) else { return false };
        if conn.closing.is_some() {
            return false;
        }
        if conn.stage == Stage::Open || first.eq_ignore_ascii_case(&b'c') {
            return true;
        }
        match self.config.directory.without_connect(conn.kind()) {
            Some(grant) => {
                self.local.conns[slot as usize].stage = Stage::Open;
                self.admit(io, slot, grant)
            }
            None => {
                self.close(io, slot, CloseReason::AuthorizationViolation);
                false
            }
        }
    }

    pub(super) fn connect<I: Io>(&mut self, io: &mut I, slot: u32, json: &[u8]) {
        let conn = &mut self.local.conns[slot as usize];
        let connect = match connect::parse(json, conn.connect_so_far()) {
            Ok(mut connect) => {
                if let Some(websocket) = &conn.websocket {
                    websocket.complete(&mut connect);
                }
                connect
            }
            Err(error) => {
                tracing::error!("{} - {error}", conn.label());
                return self.close(io, slot, CloseReason::ParseError);
            }
        };
        // Credentials that a second CONNECT does not mention stay as they were.
        let is_known =
            conn.stage == Stage::Open && conn.pings.started && !connect.has_credentials() && connect.jwt.is_none();
        if connect.asks_for_account {
            return self.deny(io, slot, connect);
        }
        if is_known {
            return self.log_in(io, slot, connect, None);
        }
        self.judge(io, slot, connect);
    }

    fn judge<I: Io>(&mut self, io: &mut I, slot: u32, connect: Connect) {
        let conn = &mut self.local.conns[slot as usize];
        let nonce = conn.nonce.as_deref().unwrap_or_default();
        let certificate = conn.tls.as_ref().and_then(|tls| tls.peer_names.as_ref());
        let client = Client { kind: conn.kind(), nonce, certificate, ip: conn.peer.ip() };
        match self.config.directory.check(&connect, &client) {
            Answer::Granted(grant) => self.log_in(io, slot, connect, Some(grant)),
            Answer::Denied => self.deny(io, slot, connect),
            Answer::Undecided(check) => {
                conn.stage = Stage::Undecided;
                let (connect, version) = (Box::new(connect), self.config.directory.version());
                let presence = check.presence().clone();
                // Later the poller tells.
                if io.has_ended(slot) {
                    presence.set_leaving();
                }
                conn.undecided = Some(Undecided { connect, version, presence });
                io.decide(slot, conn.cid, check);
            }
        }
    }

    /// The verdict about an undecided login, to be carried out in the next turn.
    pub fn login_decided(&mut self, slot: u32, cid: u64, grant: Option<Grant>) {
        self.decided.push((slot, cid, grant));
    }

    /// Carries verdicts out, and goes on with what was received meanwhile.
    pub(super) fn finish_logins<I: Io>(&mut self, io: &mut I) {
        for (slot, cid, grant) in std::mem::take(&mut self.decided) {
            let Some(conn) = self.local.conns.get_mut(slot as usize).filter(|conn| conn.cid == cid) else { continue };
            let (Stage::Undecided, None, Some(Undecided { connect, version, .. })) =
                (conn.stage, conn.closing, conn.undecided.take())
            else {
                continue;
            };
            match grant {
                // By a directory that is not in force any more.
                _ if version != self.config.directory.version() && !broken(Rule::OldVerdicts) => {
                    self.judge(io, slot, *connect)
                }
                Some(grant) => self.log_in(io, slot, *connect, Some(grant)),
                None => self.deny(io, slot, *connect),
            }
            let Some(conn) = self.local.conns.get_mut(slot as usize) else { continue };
            if conn.stage == Stage::Undecided {
                continue;
            }
            if conn.closing.is_none()
                && let Input::Partial(kept) = std::mem::take(&mut conn.input)
                && !broken(Rule::InputForgotten)
            {
                let used = self.run(io, slot, &kept);
                self.keep(slot, &kept, used);
            }
            self.make_ready(slot);
        }
    }

    fn deny<I: Io>(&mut self, io: &mut I, slot: u32, connect: Connect) {
        let claim = connect.claim().map(|claim| format!(" - {claim}")).unwrap_or_default();
        tracing::error!("{} - authentication error{claim}", self.local.conns[slot as usize].label());
        self.identify(slot, connect);
        self.close(io, slot, CloseReason::AuthorizationViolation);
    }

    /// Remembers what a client has said of itself.
    fn identify(&mut self, slot: u32, connect: Connect) {
        let user = connect.claim().map(|claim| claim.shown().to_owned());
        let conn = &mut self.local.conns[slot as usize];
        let account = self.config.directory.accounts()[conn.account as usize].name.clone();
        conn.identity = Some(Box::new(Identity {
            user: user.or_else(|| conn.identity.take().and_then(|identity| identity.user)),
            name: connect.name,
            lang: connect.lang,
            version: connect.version,
            account,
        }));
    }

    /// Lets a client in. Without `grant` it stays who it was.
    fn log_in<I: Io>(&mut self, io: &mut I, slot: u32, mut connect: Connect, mut grant: Option<Grant>) {
        if let Some(user) = grant.as_mut().and_then(|grant| grant.user.take()) {
            (connect.nkey, connect.user) = (None, Some(user));
        }
        let conn = &mut self.local.conns[slot as usize];
        conn.stage = Stage::Open;
        conn.options = Options {
            verbose: connect.verbose,
            pedantic: connect.pedantic,
            echo: connect.echo,
            headers: connect.headers,
            no_responders: connect.no_responders,
            async_info: connect.protocol >= 1,
        };
        let is_first = !std::mem::replace(&mut conn.pings.started, true);
        let protocol = connect.protocol;
        let lacks_headers = connect.no_responders && !connect.headers;
        if !is_first {
            self.remove_all_subs(slot);
            self.feed_all(slot);
        }
        let is_admitted = grant.is_none_or(|grant| self.admit(io, slot, grant));
        self.identify(slot, connect);
        if !is_admitted {
            return;
        }
        if !(0..=1).contains(&protocol) {
            return self.close(io, slot, CloseReason::InvalidProtocol);
        }
        if lacks_headers {
            return self.close(io, slot, CloseReason::NoRespondersRequiresHeaders);
        }
        if self.has_too_many_subs(slot) {
            return self.close(io, slot, CloseReason::MaximumSubscriptions);
        }
        let conn = &mut self.local.conns[slot as usize];
        conn.owes_info |= is_first && protocol >= 1;
        if is_first {
            // CONNECT is the answer to INFO. The first ping measures better.
            let since_info = conn.start.elapsed().unwrap_or_default();
            conn.pings.rtt = u64::try_from(since_info.as_nanos()).unwrap_or(u64::MAX).max(1);
            let (cid, kind) = (conn.cid, conn.kind());
            let at = self.first_ping_at(kind);
            self.local.conns[slot as usize].pings.due = at;
            self.timers.set_coarse(self.now, at, (slot, cid, Timer::Ping));
        }
        self.confirm(slot);
    }

    /// Makes a connection without subscriptions one of the account's. `false` if the account is full, and it is closed.
    fn admit<I: Io>(&mut self, io: &mut I, slot: u32, grant: Grant) -> bool {
        let directory = Arc::clone(&self.config.directory);
        let conn = &mut self.local.conns[slot as usize];
        if std::mem::take(&mut conn.has_entered) {
            directory.accounts()[conn.account as usize].leave();
        }
        conn.account = grant.account;
        conn.basis = grant.basis;
        self.watch_expiry(slot);
        let conn = &mut self.local.conns[slot as usize];
        conn.permits = grant.permissions.map(|rules| Box::new(Permits::new(rules)));
        if conn.permits.is_some() {
            conn.read_bytes = conn.read_bytes.min(RULED_READ_BYTES);
        }
        conn.has_entered = directory.accounts()[grant.account as usize].enter();
        if !conn.has_entered {
            self.close(io, slot, CloseReason::MaximumAccountConnections);
            return false;
        }
        true
    }

    /// Ends the connection when the time of its user is over.
    fn watch_expiry(&mut self, slot: u32) {
        let conn = &self.local.conns[slot as usize];
        let Some(expires) = conn.basis.token_user().and_then(|user| user.expires) else { return };
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX).min(EXPIRY_LOOK);
        self.timers.set(self.now + left, (slot, conn.cid, Timer::Expiry));
    }

    /// The time of a user may be over.
    pub(super) fn check_expiry<I: Io>(&mut self, io: &mut I, slot: u32) {
        let conn = &self.local.conns[slot as usize];
        match conn.basis.token_user().and_then(|user| user.expires) {
            Some(expires) if expires <= SystemTime::now() => self.close(io, slot, CloseReason::Lapsed(Lapse::User)),
            // Of an earlier login, or far from over.
            Some(_) => self.watch_expiry(slot),
            None => {}
        }
    }

    /// Text for a client to sign, if there are nkeys.
    pub(super) fn nonce(&mut self) -> Option<Box<str>> {
        if !self.config.directory.needs_nonce() {
            return None;
        }
        let mut bytes = [0; NONCE_BYTES];
        // The generator of the standard library's hash maps is not made for secrets; the kernel's is.
        getrandom::fill(&mut bytes).ok()?;
        Some(data_encoding::BASE64URL_NOPAD.encode(&bytes).into())
    }
}
