//! Birth, ageing and death of connections: accept, pings, deadlines, closing, lame duck, drain.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::Shard;
use super::conn::{Conn, Stage};
use super::io::{Io, Recv};
use super::secure::{Arrival, Greeting};
use super::timers::Timer;
use crate::config::authorization::ConnectionType;
use crate::monitor::Want;
use crate::wire::errors::CloseReason;
use crate::wire::info::{self, ClientFacts};

/// First ping after CONNECT, nanoseconds; random up to a fifth more.
const FIRST_PING: u64 = 2_000_000_000;
/// A round trip is measured anew when the last one is older than this, nanoseconds.
const RTT_MAX_AGE: u64 = 3_600_000_000_000;
/// Time for the last words to a connection that is closed with an error, nanoseconds.
const LINGER: u64 = 100_000_000;
/// Unread input discarded before a socket is closed, so that the peer reads the last words instead of a reset.
const DISCARD_BYTES_MAX: usize = 1 << 20;

pub(super) fn accept<I: Io>(shard: &mut Shard, io: &mut I, peer: SocketAddr, arrival: Arrival) -> u32 {
    let Arrival { greeting, tls, websocket } = arrival;
    shard.now = io.now();
    let shared = &shard.shared;
    let cid = shared.next_cid.fetch_add(1, Ordering::Relaxed);
    let is_full = shared.connections.fetch_add(1, Ordering::Relaxed) >= shard.config.max_connections;
    let nonce = shard.nonce();
    let mut conn = Conn { nonce, ..Conn::new(cid, peer, Stage::Open, shard.now) };
    (conn.tls, conn.websocket) = (tls.map(Arc::from), websocket);
    if shard.config.directory.is_required(conn.kind()) {
        conn.stage = Stage::Unauthenticated;
    }
    let slot = shard.local.conns.insert(conn) as u32;
    shard.local.counters.connections += 1;
    tracing::debug!("{} - Client connection created", shard.local.conns[slot as usize].label());
    if greeting != Greeting::AfterHandshake {
        let is_told_later = greeting == Greeting::BeforeHandshake && shard.config.proxy_protocol;
        shard.greet(slot, (!is_told_later).then_some(peer.ip()));
    }
    if is_full {
        shard.close(io, slot, CloseReason::MaximumConnections);
    } else if greeting == Greeting::Open {
        shard.begin(slot);
    } else if shard.config.info.tls.required {
        tracing::debug!("{} - Starting TLS client connection handshake", shard.local.conns[slot as usize].label());
    }
    slot
}

impl Shard {
    /// Sends the INFO that every client gets first, with the client's own address if that is known already.
    pub(super) fn greet(&mut self, slot: u32, client_ip: Option<IpAddr>) {
        let line = self.info(slot, client_ip, false);
        self.say(slot, &line);
    }

    /// Starts the timers of a connection whose commands may come now, and reads it from the next turn on.
    pub(super) fn begin(&mut self, slot: u32) {
        let conn = &mut self.local.conns[slot as usize];
        let (cid, now) = (conn.cid, self.now);
        if conn.stage == Stage::Unauthenticated {
            self.timers.set(now + self.config.auth_timeout(conn.kind()), (slot, cid, Timer::Auth));
        } else {
            let at = now + self.config.ping_interval(conn.kind());
            conn.pings.due = at;
            self.timers.set_coarse(now, at, (slot, cid, Timer::Ping));
        }
        self.make_ready(slot);
    }

    /// INFO for one client; `answers_connect` adds the account.
    pub(super) fn info_line(&self, slot: u32, answers_connect: bool) -> Vec<u8> {
        self.info(slot, Some(self.local.conns[slot as usize].peer.ip()), answers_connect)
    }

    fn info(&self, slot: u32, client_ip: Option<IpAddr>, answers_connect: bool) -> Vec<u8> {
        let conn = &self.local.conns[slot as usize];
        let directory = &self.config.directory;
        let account = &directory.accounts()[conn.account as usize];
        // Who may come without credentials is not asked for any at first, except over WebSocket.
        let asks = directory.is_required(conn.kind())
            && (conn.pings.started || conn.websocket.is_some() || !directory.has_no_auth_user(conn.kind()));
        let facts = ClientFacts {
            client_id: conn.cid,
            client_ip,
            lame_duck: self.shared.lame_duck.load(Ordering::Relaxed),
            auth_required: asks,
            tls_first: conn.tls.as_ref().is_some_and(|tls| tls.first),
            nonce: conn.nonce.as_deref().filter(|_| !answers_connect),
            max_payload: self.max_payload(slot),
            account: answers_connect.then_some(&*account.name),
            account_is_system: answers_connect && account.is_system,
        };
        let server = match &self.config.websocket_info {
            Some(info) if conn.websocket.is_some() => info,
            _ => &self.config.info,
        };
        info::line(server, &facts)
    }

    /// The first ping to a client that need not log in comes in time even if it never sends CONNECT.
    pub(super) fn start_pings(&mut self, slot: u32) {
        let conn = &mut self.local.conns[slot as usize];
        let at = self.now + self.config.ping_interval(conn.kind());
        conn.pings.due = at;
        self.timers.set_coarse(self.now, at, (slot, conn.cid, Timer::Ping));
    }

    pub(super) fn first_ping_at(&mut self, kind: ConnectionType) -> u64 {
        let first = FIRST_PING.min(self.config.ping_interval(kind));
        self.now + first + self.rng.u64(..=first / 5)
    }

    pub(super) fn timer_fired<I: Io>(&mut self, io: &mut I, slot: u32, timer: Timer) {
        let conn = &self.local.conns[slot as usize];
        match timer {
            Timer::Linger => {
                if conn.closing.is_some() {
                    self.remove(io, slot);
                }
            }
            _ if conn.closing.is_some() => {}
            Timer::Ping => self.ping(io, slot),
            Timer::Expiry => self.check_expiry(io, slot),
            Timer::Auth => {
                // Whoever has logged in once may take longer the next time, and what has begun is finished.
                let begun = conn.undecided.as_ref().is_some_and(|undecided| undecided.presence.has_begun());
                let waits = conn.stage == Stage::Undecided && !conn.has_entered && !begun;
                if conn.stage == Stage::Unauthenticated || waits {
                    self.close(io, slot, CloseReason::AuthenticationTimeout);
                }
            }
            Timer::WriteDeadline => {
                if conn.write_goal != 0 && self.now >= conn.write_due {
                    self.close(io, slot, CloseReason::SlowConsumerDeadline);
                }
            }
            Timer::StallEnd => {
                if self.now >= conn.stalled_until {
                    self.local.conns[slot as usize].stalled_until = 0;
                }
                self.make_ready(slot);
            }
        }
    }

    fn ping<I: Io>(&mut self, io: &mut I, slot: u32) {
        let conn = &mut self.local.conns[slot as usize];
        let interval = self.config.ping_interval(conn.kind());
        if self.now < conn.pings.due {
            return;
        }
        tracing::debug!("{} - Client Ping Timer", conn.label());
        conn.pings.due = self.now + interval;
        let knows_rtt = conn.pings.sent_at != 0 && conn.pings.rtt != 0 && self.now - conn.pings.sent_at < RTT_MAX_AGE;
        let has_spoken = self.now - conn.last_input < interval;
        // A client that speaks is alive; it is asked once, for the round trip. Before CONNECT nobody needs to know that.
        let wants_rtt = conn.pings.started && !knows_rtt && conn.pings.outstanding == 0;
        if !has_spoken || wants_rtt {
            if !has_spoken && conn.pings.outstanding >= self.config.ping_max {
                self.local.counters.stale_connections += 1;
                return self.close(io, slot, CloseReason::StaleConnection);
            }
            conn.pings.outstanding += 1;
            conn.pings.sent_at = self.now;
            self.say(slot, b"PING\r\n");
        }
        let cid = self.local.conns[slot as usize].cid;
        self.timers.set_coarse(self.now, self.now + interval, (slot, cid, Timer::Ping));
    }

    /// Begins to close a connection: subscriptions go at once, the last words and the socket at the end of the turn.
    pub(super) fn close<I: Io>(&mut self, io: &mut I, slot: u32, reason: CloseReason) {
        let _ = io;
        let Some(conn) = self.local.conns.get_mut(slot as usize) else { return };
        if conn.closing.is_some() {
            return;
        }
        let label = conn.label();
        match reason {
            CloseReason::SlowConsumerPending => {
                self.local.counters.slow_consumers += 1;
                let max = self.config.max_pending;
                tracing::info!("{label} - Slow Consumer Detected: MaxPending of {max} Exceeded");
            }
            CloseReason::SlowConsumerDeadline => {
                self.local.counters.slow_consumers += 1;
                let deadline = std::time::Duration::from_nanos(self.config.write_deadline);
                let pending = conn.out.pending();
                tracing::info!(
                    "{label} - Slow Consumer Detected: WriteDeadline of {deadline:?} exceeded with {pending} total bytes."
                );
            }
            // Of those that are throttled the log tells together.
            CloseReason::ClientClosed | CloseReason::ServerShutdown | CloseReason::ConnectionThrottled => {}
            _ => {
                if let Some(text) = reason.error_text() {
                    tracing::error!("{label} - {text}");
                }
            }
        }
        tracing::debug!("{label} - Client connection closed: {}", reason.monitor_text());
        if let Some(text) = reason.error_text() {
            self.say(slot, format!("-ERR '{text}'\r\n").as_bytes());
        }
        self.record(slot, reason);
        let conn = &mut self.local.conns[slot as usize];
        conn.closing = Some(reason);
        if let Some(undecided) = conn.undecided.take() {
            undecided.presence.set_gone();
        }
        conn.input = super::conn::Input::Empty;
        if !reason.flushes() {
            conn.out.clear(&mut self.local.buffers);
        }
        if !conn.dirty {
            conn.dirty = true;
            self.local.dirty.push(slot);
        }
        self.remove_all_subs(slot);
    }

    /// After the last write of a closing connection: done, or time for what could not be written yet. A client that has
    /// ended its sending side may well be reading, and gets as much of it as any other.
    pub(super) fn finish_close<I: Io>(&mut self, io: &mut I, slot: u32) {
        let Some(conn) = self.local.conns.get_mut(slot as usize) else { return };
        let Some(reason) = conn.closing else { return };
        if conn.out.pending() == 0 {
            return self.remove(io, slot);
        }
        if !std::mem::replace(&mut conn.lingers, true) {
            let time = if reason == CloseReason::ClientClosed { self.config.write_deadline } else { LINGER };
            self.timers.set(self.now + time, (slot, conn.cid, Timer::Linger));
        }
    }

    /// Keeps what `/connz` shows of a connection that is about to be closed, the number of its subscriptions included.
    fn record(&mut self, slot: u32, reason: CloseReason) {
        if self.config.closed_records == 0 {
            return;
        }
        if self.closed.len() >= self.config.closed_records {
            self.closed.pop_front();
        }
        let mut record = self.conn_snapshot(slot, &Want::default());
        record.stop = Some(SystemTime::now());
        record.reason = Some(reason.monitor_text());
        self.closed.push_back(record);
    }

    /// Closes the socket and forgets the connection.
    fn remove<I: Io>(&mut self, io: &mut I, slot: u32) {
        let conn = &self.local.conns[slot as usize];
        if conn.closing.is_some_and(CloseReason::flushes) && conn.closing != Some(CloseReason::ClientClosed) {
            self.discard_input(io, slot);
        }
        let mut conn = self.local.conns.remove(slot as usize);
        if conn.has_entered {
            self.config.directory.accounts()[conn.account as usize].leave();
        }
        conn.out.clear(&mut self.local.buffers);
        self.local.counters.connections -= 1;
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.shared.connections_by_shard[usize::from(self.peers.shard())].fetch_sub(1, Ordering::Relaxed);
        if let Some(reason) = conn.closing {
            io.farewell(slot, reason);
        }
        io.close(slot);
    }

    fn discard_input<I: Io>(&mut self, io: &mut I, slot: u32) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        buffer.resize(buffer.len().max(16 << 10), 0);
        let mut discarded = 0;
        while discarded < DISCARD_BYTES_MAX
            && let Recv::Data { bytes, more } = io.recv(slot, &mut buffer)
        {
            discarded += bytes;
            if !more {
                break;
            }
        }
        self.read_buffer = buffer;
    }

    /// Tells all clients that understand it that the server is about to close.
    pub fn announce_lame_duck(&mut self) {
        let slots: Vec<u32> = self.local.conns.iter().map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            let conn = &self.local.conns[slot as usize];
            if conn.options.async_info && conn.ponged && conn.closing.is_none() {
                let line = self.info_line(slot, false);
                self.say(slot, &line);
            }
        }
    }

    /// Closes up to `count` connections.
    pub fn close_some<I: Io>(&mut self, io: &mut I, count: usize) {
        self.now = io.now();
        let open = self.local.conns.iter().filter(|(_, conn)| conn.closing.is_none());
        let slots: Vec<u32> = open.map(|(slot, _)| slot as u32).take(count).collect();
        for slot in slots {
            self.close(io, slot, CloseReason::ServerShutdown);
        }
    }

    /// Begins to read what clients have sent until now: the first half of a graceful stop.
    pub fn drain_input(&mut self) {
        let slots: Vec<u32> = self.local.conns.iter().map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            self.make_ready(slot);
        }
    }

    /// Whether everything that clients had sent has been read and has left for the other shards: nobody is ready, held
    /// or paused. A service has answered what has come to it.
    #[must_use]
    pub fn has_drained_input(&self) -> bool {
        let is_waiting = |conn: &Conn| conn.closing.is_none() && (conn.held != 0 || conn.stalled_until != 0);
        let is_answered = self.has_service_answered();
        is_answered
            && self.ready.is_empty()
            && !self.peers.is_spilled()
            && !self.local.conns.iter().any(|(_, conn)| is_waiting(conn))
    }

    /// Closes every connection that has nothing queued; gives the number of those that have. The second half of a
    /// graceful stop, repeated until it gives 0 or time is up.
    pub fn close_idle<I: Io>(&mut self, io: &mut I) -> usize {
        self.now = io.now();
        // What other shards have read may be for a connection that looks idle.
        self.look(io);
        let open = self.local.conns.iter().filter(|(_, conn)| conn.closing.is_none());
        let (idle, busy): (Vec<_>, Vec<_>) = open.partition(|(_, conn)| conn.out.pending() == 0 && conn.held == 0);
        let (idle, busy): (Vec<u32>, usize) = (idle.iter().map(|(slot, _)| *slot as u32).collect(), busy.len());
        for slot in idle {
            self.close(io, slot, CloseReason::ServerShutdown);
        }
        busy
    }
}
