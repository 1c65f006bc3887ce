//! A connection as its shard sees it, and a subscription.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::account::SubSlot;
use super::outbound::Outbound;
use crate::auth::directory::DEFAULT_ACCOUNT;
use crate::auth::{Basis, PermissionsId, Permits, Presence};
use crate::config::authorization::ConnectionType;
use crate::tls::TlsFacts;
use crate::websocket;
use crate::wire::connect::{Connect, REDACTED};
use crate::wire::errors::CloseReason;

/// Bytes that were read but do not make a whole command yet.
#[derive(Debug, Default)]
pub(crate) enum Input {
    /// Nothing is kept: the usual state between turns, without any buffer.
    #[default]
    Empty,
    /// Part of a line or of a small message.
    Partial(Vec<u8>),
    /// Part of a large message, read into a block of its own: all of the command from its first byte.
    Block {
        /// `want` bytes, of which `filled` have arrived.
        block: BytesMut,
        /// Bytes that have arrived.
        filled: usize,
        /// Bytes of the whole command.
        want: usize,
    },
}

/// Switches a client sets with CONNECT, with the defaults of one that sends none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) verbose: bool,
    pub(crate) pedantic: bool,
    pub(crate) echo: bool,
    pub(crate) headers: bool,
    pub(crate) no_responders: bool,
    /// Understands asynchronous INFO.
    pub(crate) async_info: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { verbose: true, pedantic: true, echo: true, headers: false, no_responders: false, async_info: false }
    }
}

/// Where a connection stands with authentication and CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Credentials are needed; only CONNECT is acceptable.
    Unauthenticated,
    /// CONNECT has come and is being judged elsewhere; nothing is read meanwhile.
    Undecided,
    /// Commands are executed.
    Open,
}

/// A CONNECT that is being judged elsewhere.
#[derive(Debug)]
pub(crate) struct Undecided {
    pub(crate) connect: Box<Connect>,
    /// Version of the directory by which it is judged.
    pub(crate) version: u64,
    /// For those who judge it.
    pub(crate) presence: Presence,
}

/// What CONNECT said that only monitoring and logs need.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) lang: String,
    pub(crate) version: String,
    pub(crate) user: Option<String>,
    /// Name of the account.
    pub(crate) account: Arc<str>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            user: None,
            account: DEFAULT_ACCOUNT.into(),
        }
    }
}

/// Pings of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pings {
    /// Sent and not answered.
    pub(crate) outstanding: u32,
    /// When the last one was sent, nanoseconds.
    pub(crate) sent_at: u64,
    /// Last measured round trip, nanoseconds; 0 if never.
    pub(crate) rtt: u64,
    /// When to look whether the next one is needed, nanoseconds. Earlier timers are void.
    pub(crate) due: u64,
    /// The first ping after CONNECT has been scheduled.
    pub(crate) started: bool,
}

/// Counters of one connection, as `/connz` shows them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) in_msgs: u64,
    pub(crate) in_bytes: u64,
    pub(crate) out_msgs: u64,
    pub(crate) out_bytes: u64,
    pub(crate) stalls: u64,
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) cid: u64,
    pub(crate) account: u32,
    pub(crate) options: Options,
    pub(crate) stage: Stage,
    /// What the client may do; everything if absent.
    pub(crate) permits: Option<Box<Permits>>,
    /// Why it is what it is.
    pub(crate) basis: Basis,
    /// The client counts among those of its account.
    pub(crate) has_entered: bool,
    /// What INFO gave the client to sign.
    pub(crate) nonce: Option<Box<str>>,
    pub(crate) undecided: Option<Undecided>,
    /// The INFO that answers CONNECT is owed with the next PONG.
    pub(crate) owes_info: bool,
    /// A PONG has been sent after CONNECT: asynchronous INFO may follow.
    pub(crate) ponged: bool,
    /// Set when the connection is to be closed; nothing more is read or delivered.
    pub(crate) closing: Option<CloseReason>,
    /// On the dirty list of this turn.
    pub(crate) dirty: bool,
    /// On the ready list.
    pub(crate) ready: bool,
    /// The last write did not take everything.
    pub(crate) blocked: bool,
    /// Peers whose open batch holds something of this connection.
    pub(crate) fed: u64,
    /// Peers whose spill list holds something of this connection: not read.
    pub(crate) held: u64,
    /// Publisher side of the stall gate: milliseconds to wait, gathered during one read.
    pub(crate) stall: u8,
    /// Not read before this time; 0 when the pause is over.
    pub(crate) stalled_until: u64,
    /// Until this time a stall gate may still be up: read little, and wait for word from other shards.
    pub(crate) gated_until: u64,
    /// Bytes to read at once; smaller while each byte read causes many to be written.
    pub(crate) read_bytes: u32,
    /// The next read is likely to begin a large message.
    pub(crate) expects_block: bool,
    pub(crate) input: Input,
    pub(crate) out: Outbound,
    /// Total bytes taken by the kernel.
    pub(crate) written: u64,
    /// `written` has to reach this before the write deadline; 0 if no deadline is running.
    pub(crate) write_goal: u64,
    /// The write deadline that is running, nanoseconds. Earlier timers are void.
    pub(crate) write_due: u64,
    /// Closing, and given a moment more for what could not be written yet.
    pub(crate) lingers: bool,
    pub(crate) subs: HashTable<SubSlot>,
    pub(crate) pings: Pings,
    pub(crate) traffic: Traffic,
    /// A message has been queued since the last write.
    pub(crate) has_messages: bool,
    /// Last CONNECT, message or change of subscriptions, nanoseconds of the shared clock. Pings do not count.
    pub(crate) last_activity: u64,
    /// Last bytes from the client, nanoseconds of the shared clock.
    pub(crate) last_input: u64,
    /// When it was accepted, by the calendar and in nanoseconds of the shared clock.
    pub(crate) start: SystemTime,
    pub(crate) accepted: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) identity: Option<Box<Identity>>,
    /// What the handshake found out; `None` in clear.
    pub(crate) tls: Option<Arc<TlsFacts>>,
    /// What the request for a WebSocket said; `None` without WebSocket.
    pub(crate) websocket: Option<Box<websocket::Facts>>,
}

impl Conn {
    pub(crate) fn new(cid: u64, peer: SocketAddr, stage: Stage, now: u64) -> Self {
        Self {
            cid,
            account: 0,
            options: Options::default(),
            stage,
            permits: None,
            basis: Basis::default(),
            has_entered: false,
            nonce: None,
            undecided: None,
            owes_info: false,
            ponged: false,
            closing: None,
            dirty: false,
            ready: false,
            blocked: false,
            fed: 0,
            held: 0,
            stall: 0,
            stalled_until: 0,
            gated_until: 0,
            read_bytes: u32::MAX,
            expects_block: false,
            input: Input::Empty,
            out: Outbound::default(),
            written: 0,
            write_goal: 0,
            write_due: 0,
            lingers: false,
            subs: HashTable::new(),
            pings: Pings::default(),
            traffic: Traffic::default(),
            has_messages: false,
            last_activity: now,
            last_input: now,
            start: SystemTime::now(),
            accepted: now,
            peer,
            identity: None,
            tls: None,
            websocket: None,
        }
    }

    /// The rules that bind the client, if there are any.
    pub(crate) fn rules(&self) -> Option<PermissionsId> {
        self.permits.as_ref().map(|permits| permits.rules().id())
    }

    /// How the client is connected.
    pub(crate) fn kind(&self) -> ConnectionType {
        if self.websocket.is_some() { ConnectionType::Websocket } else { ConnectionType::Standard }
    }

    /// What the client has said of itself until now, credentials left out.
    pub(crate) fn connect_so_far(&self) -> Connect {
        let identity = self.identity.as_deref().cloned().unwrap_or_default();
        let Options { verbose, pedantic, echo, headers, no_responders, async_info } = self.options;
        Connect {
            verbose,
            pedantic,
            echo,
            headers,
            no_responders,
            protocol: i64::from(async_info),
            lang: identity.lang,
            version: identity.version,
            name: identity.name,
            ..Connect::default()
        }
    }

    /// Prefix of log lines about this connection, as the reference server writes it.
    pub(crate) fn label(&self) -> String {
        let (ip, port, cid) = (self.peer.ip().to_canonical(), self.peer.port(), self.cid);
        let mut label = match self.websocket.as_deref() {
            None => format!("{ip}:{port} - cid:{cid}"),
            Some(websocket::Facts { forwarded_for: Some(behind), .. }) => format!("{behind}/{ip}:{port} - wid:{cid}"),
            Some(_) => format!("{ip}:{port} - wid:{cid}"),
        };
        if let Some(identity) = &self.identity {
            let Identity { name, lang, version, user, account } = &**identity;
            if !lang.is_empty() || !version.is_empty() || !name.is_empty() {
                label.push_str(&format!(" - \"v{version}:{lang}:{name}\""));
            }
            match user.as_deref() {
                None => {}
                Some(REDACTED) => label.push_str(&format!(" - \"{account}/token\"")),
                Some(user) => label.push_str(&format!(" - \"{account}/user:{user}\"")),
            }
        }
        label
    }
}

/// A client's name for one of its subscriptions. Clients count, so it is short.
pub(crate) type Sid = SmallVec<[u8; 16]>;

/// One subscription.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) conn: u32,
    pub(crate) sid: Sid,
    pub(crate) subject: Box<[u8]>,
    pub(crate) queue: Option<Box<[u8]>>,
    /// Some messages of its subject are denied to the client.
    pub(crate) is_filtered: bool,
    /// Messages delivered.
    pub(crate) delivered: u64,
    /// Auto-unsubscribe limit; `u64::MAX` for none.
    pub(crate) max: u64,
}
