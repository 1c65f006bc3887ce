//! One core's share of the broker: its connections, its part of every account, its links to the other shards.
//!
//! A shard lives in turns ([`Shard::turn`]): take what sockets and rings have delivered, parse, decide, append to
//! outbound buffers and to the batches for other shards; then end the turn in a fixed order. It owns all of its
//! state, blocks on nothing and meets sockets, clock and doorbells only through [`io::Io`], so the simulator runs
//! the same code as the driver.
//!
//! Two rules make many shards look like one server (`turn`): *rings before sockets* at the end of a turn, and
//! *receive, look, parse* at the beginning.

mod account;
#[cfg(test)]
mod audit;
mod batch;
mod buffers;
mod commands;
mod conn;
mod crossing;
mod deliver;
mod hosted;
mod inquiries;
mod intake;
pub mod io;
mod life;
mod login;
mod outbound;
pub mod peers;
mod permission;
mod receive;
mod reload;
pub(crate) mod rules;
pub mod secure;
pub mod service;
mod snapshot;
mod timers;
mod trace;
mod turn;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use foldhash::fast::RandomState;
use slab::Slab;

pub use turn::Next;

use self::account::{Account, SubSlot};
use self::batch::Origin;
use self::buffers::Buffers;
use self::conn::{Conn, Sub};
use self::crossing::Awaited;
use self::hosted::Hosted;
use self::inquiries::Inquiries;
use self::intake::Intake;
use self::peers::{Links, Peers};
use self::timers::Timers;
use crate::auth::{Directory, Grant, Looks};
use crate::config::Options;
use crate::config::authorization::ConnectionType;
use crate::monitor::{ConnSnapshot, Counters};
use crate::wire::errors::CloseReason;
use crate::wire::info::ServerInfo;

/// What a shard has to know of the options. Durations in nanoseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest payload, headers included, bytes.
    pub max_payload: usize,
    /// Longest control line, bytes.
    pub max_control_line: usize,
    /// Most bytes queued towards one client.
    pub max_pending: usize,
    /// Most subscriptions per connection; `None` = no limit.
    pub max_subscriptions: Option<usize>,
    /// Most tokens of a subject that is subscribed to; `None` = no limit.
    pub max_sub_tokens: Option<usize>,
    /// Most connections of the whole server.
    pub max_connections: usize,
    /// Records of closed connections kept per shard.
    pub closed_records: usize,
    /// Time between pings.
    pub ping_interval: u64,
    /// Unanswered pings before a connection is stale.
    pub ping_max: u32,
    /// Time for queued output to be written.
    pub write_deadline: u64,
    /// Time for CONNECT to come when credentials are needed.
    pub auth_timeout: u64,
    /// Connections of the listener for clients begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Drop messages at a raised stall gate instead of slowing the publisher down.
    pub no_fast_producer_stall: bool,
    /// Who may connect.
    pub directory: Arc<Directory>,
    /// What INFO says of the server.
    pub info: Arc<ServerInfo>,
    /// What INFO says of it to clients of the WebSocket listener.
    pub websocket_info: Option<Arc<ServerInfo>>,
    /// As `ping_interval`, for those.
    pub websocket_ping_interval: u64,
    /// As `auth_timeout`, for those.
    pub websocket_auth_timeout: u64,
}

impl Config {
    /// What `options` say to each of `shards` shards.
    #[must_use]
    pub fn new(options: &Options, shards: usize, directory: Arc<Directory>, info: Arc<ServerInfo>) -> Self {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4);
        let websocket = options.websocket.as_ref();
        let websocket_ping_interval = websocket.and_then(|websocket| websocket.ping_interval);
        let websocket_auth_timeout = websocket.and_then(|websocket| websocket.authorization.timeout);
        Self {
            max_payload: options.max_payload,
            max_control_line: options.max_control_line,
            max_pending: options.max_pending,
            max_subscriptions: (options.max_subscriptions > 0).then_some(options.max_subscriptions),
            max_sub_tokens: options.max_sub_tokens.map(usize::from),
            max_connections: options.max_connections,
            closed_records: options.max_closed_clients.div_ceil(shards),
            ping_interval: nanos(options.ping_interval),
            ping_max: options.ping_max,
            write_deadline: nanos(options.write_deadline),
            auth_timeout: nanos(options.auth_timeout()),
            proxy_protocol: options.proxy_protocol,
            no_fast_producer_stall: options.no_fast_producer_stall,
            directory,
            info,
            websocket_info: None,
            websocket_ping_interval: nanos(websocket_ping_interval.unwrap_or(options.ping_interval)),
            websocket_auth_timeout: nanos(websocket_auth_timeout.unwrap_or_else(|| options.auth_timeout())),
        }
    }

    /// Time between pings of a connection of this kind.
    fn ping_interval(&self, kind: ConnectionType) -> u64 {
        if kind == ConnectionType::Websocket { self.websocket_ping_interval } else { self.ping_interval }
    }

    /// Time for CONNECT to come over a connection of this kind.
    fn auth_timeout(&self, kind: ConnectionType) -> u64 {
        if kind == ConnectionType::Websocket { self.websocket_auth_timeout } else { self.auth_timeout }
    }
}

/// What all shards share: counters touched at accept and close only.
#[derive(Debug)]
pub struct Shared {
    /// Begins the tags of reply subjects that this server makes.
    answer_tag: [u8; 4],
    /// Whether the server wants to be rid of its clients.
    pub lame_duck: AtomicBool,
    next_cid: AtomicU64,
    connections: AtomicUsize,
    connections_by_shard: Box<[AtomicUsize]>,
}

impl Shared {
    /// For `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            answer_tag: std::array::from_fn(|_| crossing::digit(fastrand::u64(..))),
            lame_duck: AtomicBool::new(false),
            next_cid: AtomicU64::new(1),
            connections: AtomicUsize::new(0),
            connections_by_shard: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// Chooses the shard for a connection that `accepting` has accepted, and counts it there.
    ///
    /// SO_REUSEPORT spreads by hash; whoever clearly has more connections than another shard hands over. The slack of
    /// one sixteenth keeps large servers from passing on every other connection.
    pub fn place(&self, accepting: u16) -> u16 {
        let counts = || self.connections_by_shard.iter().map(|count| count.load(Ordering::Relaxed));
        let own = self.connections_by_shard[usize::from(accepting)].load(Ordering::Relaxed);
        let (least_shard, least) = counts().enumerate().min_by_key(|(_, count)| *count).unwrap_or((0, own));
        let chosen = if own > least + least / 16 { least_shard as u16 } else { accepting };
        self.connections_by_shard[usize::from(chosen)].fetch_add(1, Ordering::Relaxed);
        chosen
    }

    /// Index of the shard with most connections.
    pub fn fullest_shard(&self) -> usize {
        let counts = self.connections_by_shard.iter().map(|count| count.load(Ordering::Relaxed));
        counts.enumerate().max_by_key(|(_, count)| *count).map_or(0, |(shard, _)| shard)
    }

    /// Connections accepted since start.
    pub fn total_connections(&self) -> u64 {
        self.next_cid.load(Ordering::Relaxed) - 1
    }

    /// Live connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// State that deliveries touch, apart from accounts and peers so that both can be borrowed at once.
#[derive(Debug)]
struct Local {
    conns: Slab<Conn>,
    subs: Slab<Sub>,
    buffers: Buffers,
    counters: Counters,
    /// Rules that were looked at for verdicts about subjects.
    looks: Looks,
    /// Connections with output to write at the end of the turn.
    dirty: Vec<u32>,
    /// Connections with so much output that it is written before the turn ends.
    large: Vec<u32>,
    /// Connections to be closed.
    cut_off: Vec<(u32, CloseReason)>,
    /// Subscriptions that have reached their limit.
    finished: Vec<SubSlot>,
    /// Publishers that hit a stall gate, milliseconds to wait.
    stalls: Vec<(Origin, u8)>,
    /// Connections of this shard to be read more slowly.
    stalled: Vec<u32>,
    /// What has come for the service, if there is one.
    intake: Intake,
    scratch: Vec<u8>,
    hasher: RandomState,
    traces: bool,
    /// `max_pending`.
    pending_max: usize,
    /// Stall gates rise above this.
    gate_bytes: usize,
    /// A connection is written to whenever its queue passes a multiple of two to the power of this.
    flush_shift: u32,
    drops_at_gate: bool,
    /// Time of this turn.
    now: u64,
}

/// One shard.
pub struct Shard {
    config: Config,
    shared: Arc<Shared>,
    cpu: usize,
    peers: Peers,
    accounts: Vec<Account>,
    local: Local,
    /// Connections that may have something to read or room to write.
    ready: Vec<u32>,
    /// Empty between turns: the list that is worked off while the next one fills.
    serving: Vec<u32>,
    timers: Timers,
    /// Read buffer of all connections: left-over bytes, then fresh ones.
    read_buffer: Vec<u8>,
    /// A block for the next large message.
    spare_block: Option<BytesMut>,
    /// A buffer for the next partial command.
    spare_partial: Vec<u8>,
    /// Arguments of a publish that cannot be forwarded as they are.
    rebuilt: Vec<u8>,
    closed: VecDeque<ConnSnapshot>,
    /// Answers that requests to other accounts wait for.
    awaited: Awaited,
    /// Requests that may still turn out to have no responders.
    inquiries: Inquiries,
    /// Verdicts about logins, to be carried out: connection, its id, what it may be.
    decided: Vec<(u32, u64, Option<Grant>)>,
    /// The service inside the shard; away while it is at work.
    service: Option<Box<Hosted>>,
    /// Nothing may leave, because the service has not been told everything that led to it.
    withholds: bool,
    rng: fastrand::Rng,
    /// Time of this turn.
    now: u64,
    /// Last turn that had something to do.
    busy_at: u64,
    /// Buffers for reuse have been freed since then.
    is_trimmed: bool,
}

impl Shard {
    /// A shard with its ends of the rings. `cpu` is shown by monitoring; `seed` feeds the choice of queue members.
    #[must_use]
    pub fn new(config: Config, shared: Arc<Shared>, links: Links, cpu: usize, seed: u64) -> Self {
        let peers = Peers::new(links);
        let accounts = config.directory.accounts().iter();
        let accounts = accounts.map(|facts| Account::of(facts, !peers.is_empty())).collect();
        let awaited = Awaited::new(shared.answer_tag, peers.shard());
        let local = Local {
            conns: Slab::new(),
            subs: Slab::new(),
            buffers: Buffers::default(),
            counters: Counters::default(),
            looks: 0,
            dirty: Vec::new(),
            large: Vec::new(),
            cut_off: Vec::new(),
            finished: Vec::new(),
            stalls: Vec::new(),
            stalled: Vec::new(),
            intake: Intake::default(),
            scratch: Vec::new(),
            hasher: RandomState::default(),
            traces: crate::logging::trace_enabled(),
            pending_max: config.max_pending,
            gate_bytes: config.max_pending / 4 * 3,
            flush_shift: deliver::FLUSH_BYTES.min(config.max_pending).max(1).ilog2(),
            drops_at_gate: config.no_fast_producer_stall,
            now: 0,
        };
        Self {
            config,
            shared,
            cpu,
            peers,
            accounts,
            local,
            ready: Vec::new(),
            serving: Vec::new(),
            timers: Timers::default(),
            read_buffer: Vec::new(),
            spare_block: None,
            spare_partial: Vec::new(),
            rebuilt: Vec::new(),
            closed: VecDeque::new(),
            awaited,
            inquiries: Inquiries::default(),
            decided: Vec::new(),
            service: None,
            withholds: false,
            rng: fastrand::Rng::with_seed(seed),
            now: 0,
            busy_at: 0,
            is_trimmed: true,
        }
    }

    /// Index of this shard.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.peers.shard()
    }

    /// This shard's sleep flag, for the driver that parks it.
    #[must_use]
    pub fn sleeper(&self) -> &crate::ring::Sleeper {
        self.peers.sleeper()
    }

    /// Live connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.local.conns.len()
    }

    /// Most bytes queued towards one client.
    #[must_use]
    pub fn max_pending(&self) -> usize {
        self.config.max_pending
    }

    /// Slot that the next accepted connection will get.
    #[must_use]
    pub fn next_slot(&self) -> u32 {
        self.local.conns.vacant_key() as u32
    }

    /// A connection that was placed here has gone before it could be accepted.
    pub fn disown(&self) {
        self.shared.connections_by_shard[usize::from(self.id())].fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes over a connection: sends INFO and starts its timers. The peer's bytes are read from the next turn on.
    pub fn accept<I: io::Io>(&mut self, io: &mut I, peer: SocketAddr) -> u32 {
        life::accept(self, io, peer, secure::Arrival::of(secure::Greeting::Open))
    }
}
