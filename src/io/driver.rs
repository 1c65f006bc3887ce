//! Runs a shard: takes turns, accepts connections, obeys orders, and sleeps when there is nothing to do.
//!
//! Readiness of sockets comes from the shard's own poller, not from glommio's reactor: a wake-up then costs one system
//! call instead of four, and the look between two turns none (see `perf/`). The driver is the executor's only task, so
//! it may block the thread while it sleeps. Between turns without work it may spin for a moment (`Spin`).

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::acceptor::Acceptor;
use super::doorbell::Doorbell;
use super::handshakes::{Handshakes, Opening, Outcome, Place};
use super::log_directory::LogDirectory;
use super::logins::Logins;
use super::session::Session;
use super::sockets::{Link, ListenerNumber, Sockets};
use super::store_directory::StoreDirectory;
use super::upgrades::{Upgraded, Upgrades};
use super::websocket::WebSocket;
use crate::auth::Grant;
use crate::log::LogId;
use crate::monitor::{ShardSnapshot, Want};
use crate::shard::secure::{Failure, Severity};
use crate::shard::service::Service;
use crate::shard::{Config, Next, Shard, Shared};

/// What other threads ask of a shard. Followed by a ring of its doorbell.
#[derive(Debug)]
pub enum Order {
    /// Take over a connection that another shard has accepted.
    Adopt(TcpStream, SocketAddr),
    /// The verdict about a login that took long.
    LoginDecided {
        /// Slot of the connection.
        slot: u32,
        /// Its id.
        cid: u64,
        /// What it may be; `None` if the credentials do not fit.
        grant: Option<Grant>,
    },
    /// Take over a connection that has become a WebSocket.
    AdoptWebSocket(Box<Upgraded>),
    /// The opening of a connection has ended.
    Opened {
        /// The connection.
        place: Place,
        /// The client's own address, if a load balancer has told it.
        source: Option<SocketAddr>,
        /// How it goes on.
        outcome: Outcome,
    },
    /// Answer a monitoring request.
    Snapshot(Want, Sender<ShardSnapshot>),
    /// Accept no more connections; answered when the listener is closed.
    StopListening(Sender<()>),
    /// Send the lame duck INFO to clients.
    AnnounceLameDuck,
    /// Close so many connections.
    CloseSome(usize),
    /// Read what has arrived; answered when nothing of it is left.
    DrainInput(Sender<()>),
    /// Close what has nothing queued; answered with the number of connections left.
    CloseIdle(Sender<usize>),
    /// Work by another configuration; answered with the shard and the number of connections that may stay.
    Reload(Arc<Config>, Option<(Handshakes, Opening)>, Sender<(u16, usize)>),
    /// Close so many connections, and those above the limits of accounts.
    CloseExcess(usize),
    /// Leave, when the service is stopped if there is one.
    Stop,
}

/// Everything a shard's thread starts from.
pub struct Plan {
    /// The shard.
    pub shard: Shard,
    /// The service inside it.
    pub service: Option<ServicePlan>,
    /// Facts and counters of all shards.
    pub shared: Arc<Shared>,
    /// Orders from other threads, and the ways to give orders to the other shards.
    pub orders: Receiver<Order>,
    /// Orders to every shard, by index.
    pub all_orders: Arc<[Sender<Order>]>,
    /// Doorbells of all shards, by index.
    pub bells: Arc<[Doorbell]>,
    /// Decides logins that take long.
    pub logins: Logins,
    /// What comes before the commands of clients, if anything does, and who does it.
    pub opening: Option<(Handshakes, Opening)>,
    /// The shard's own listening sockets, one for each address, bound with SO_REUSEPORT, in non-blocking mode.
    pub listeners: Vec<TcpListener>,
    /// The same for WebSocket, and where its connections go first.
    pub websocket: Option<(TcpListener, Upgrades)>,
    /// Zero of the clock that all shards share.
    pub epoch: Instant,
    /// Longest spin between turns.
    pub spin: Duration,
}

/// A service for a shard.
pub struct ServicePlan {
    /// The service.
    pub service: Box<dyn Service + Send>,
    /// The logs that it asks for, and where their files are.
    pub logs: Vec<(LogId, LogDirectory)>,
    /// Their store, which stays locked until the shard has left.
    pub directory: Option<Arc<StoreDirectory>>,
}

/// Longest wait for a service to stop.
const SERVICE_STOP_TIME: Duration = Duration::from_secs(10);
/// Connections accepted before the shard takes its next turn: a storm of them leaves room for those that are there.
const ACCEPTS_PER_TURN: usize = 16;

/// Runs the shard until [`Order::Stop`], on the thread of its executor.
///
/// # Errors
/// When the poller cannot be set up or fails for good.
pub fn run(plan: Plan, started: impl FnOnce()) -> std::io::Result<()> {
    let Plan { mut shard, service, shared, orders, all_orders, bells, .. } = plan;
    let Plan { logins, opening, listeners, websocket, epoch, spin, .. } = plan;
    let (handshakes, opening) = opening.unzip();
    let mut sockets = Sockets::new(shard.id(), bells.clone(), epoch, logins, handshakes)?;
    let mut watched = |listener: TcpListener| -> std::io::Result<_> {
        let acceptor = Acceptor::new(listener);
        Ok((sockets.listen(acceptor.descriptor())?, acceptor))
    };
    let acceptors = listeners.into_iter().map(&mut watched).collect::<Result<_, _>>()?;
    let websocket = match websocket {
        Some((listener, upgrades)) => Some((watched(listener)?, upgrades)),
        None => None,
    };
    let mut directory = None;
    if let Some(plan) = service {
        sockets.keep_files(plan.logs)?;
        shard.install(plan.service);
        directory = plan.directory;
        // Whoever connects after the start finds the service, from every shard.
        shard.turn(&mut sockets, &mut Vec::new());
    }
    started();
    let mut driver = Driver {
        shard,
        sockets,
        acceptors,
        websocket,
        shared,
        opening,
        all_orders,
        bells,
        drained: Vec::new(),
        epoch,
        leaving: None,
        _directory: directory,
    };
    driver.drive(&orders, Spin::new(spin))
}

struct Driver {
    shard: Shard,
    sockets: Sockets,
    /// Of the addresses for clients.
    acceptors: Vec<(ListenerNumber, Acceptor)>,
    websocket: Option<((ListenerNumber, Acceptor), Upgrades)>,
    shared: Arc<Shared>,
    /// What comes before the commands of a new connection, if anything does.
    opening: Option<Opening>,
    all_orders: Arc<[Sender<Order>]>,
    bells: Arc<[Doorbell]>,
    /// To be answered when the input has been drained.
    drained: Vec<Sender<()>>,
    epoch: Instant,
    /// The shard is to leave, at the latest then.
    leaving: Option<Instant>,
    /// The store of the shard's service, kept locked.
    _directory: Option<Arc<StoreDirectory>>,
}

impl Driver {
    fn drive(&mut self, orders: &Receiver<Order>, mut spin: Spin) -> std::io::Result<()> {
        let mut woken = Vec::new();
        loop {
            while let Ok(order) = orders.try_recv() {
                self.obey(order)?;
            }
            self.accept();
            let next = self.shard.turn(&mut self.sockets, &mut woken);
            if !self.drained.is_empty() && self.shard.has_drained_input() {
                for done in self.drained.drain(..) {
                    // Nobody waiting for the answer changes nothing.
                    let _ = done.send(());
                }
            }
            if self.has_to_leave() {
                return Ok(());
            }
            let found = match next {
                Next::Again => {
                    spin.found_work();
                    self.sockets.poll(&mut woken)?
                }
                Next::Sleep { worked: true, .. } if spin.found_work() => self.sockets.poll(&mut woken)?,
                Next::Sleep { worked: false, .. } if spin.goes_on() => self.sockets.poll(&mut woken)?,
                Next::Sleep { deadline, .. } => {
                    self.shard.sleeper().prepare_to_sleep();
                    let found = if self.has_more_to_do(orders) {
                        self.sockets.poll(&mut woken)?
                    } else {
                        spin.woke();
                        self.sockets.wait(self.deadline(deadline), &mut woken)?
                    };
                    self.shard.sleeper().cancel();
                    found
                }
            };
            let websocket = self.websocket.iter_mut().map(|(acceptor, _)| acceptor);
            for (number, acceptor) in self.acceptors.iter_mut().chain(websocket) {
                if found.has(*number) {
                    acceptor.wake();
                }
            }
        }
    }

    fn acceptors(&self) -> impl Iterator<Item = &Acceptor> {
        let websocket = self.websocket.iter().map(|(acceptor, _)| acceptor);
        self.acceptors.iter().chain(websocket).map(|(_, acceptor)| acceptor)
    }

    /// The last look before sleeping, after the shard has announced it.
    fn has_more_to_do(&mut self, orders: &Receiver<Order>) -> bool {
        self.shard.recheck(&mut self.sockets) || !orders.is_empty() || self.acceptors().any(Acceptor::is_ready)
    }

    /// The shard's deadline, or when a failed accept is tried again or the shard leaves, if that is earlier.
    fn deadline(&self, deadline: Option<u64>) -> Option<u64> {
        let own = self.acceptors().filter_map(Acceptor::retry_at).chain(self.leaving).min();
        let own = own.map(|at| at.saturating_duration_since(self.epoch).as_nanos() as u64);
        [deadline, own].into_iter().flatten().min()
    }

    /// Begins to leave: a service gets time to stop, and has no clients meanwhile.
    fn leave(&mut self) -> std::io::Result<()> {
        if self.leaving.is_some() {
            return Ok(());
        }
        self.leaving = Some(Instant::now() + SERVICE_STOP_TIME);
        if self.shard.has_service() {
            self.stop_listening()?;
            self.shard.close_some(&mut self.sockets, usize::MAX);
            self.shard.stop_service(&mut self.sockets);
        }
        Ok(())
    }

    fn has_to_leave(&self) -> bool {
        let Some(until) = self.leaving else { return false };
        if self.shard.is_service_stopped() {
            return true;
        }
        let is_over = Instant::now() >= until;
        if is_over {
            let (shard, seconds) = (self.shard.id(), SERVICE_STOP_TIME.as_secs());
            tracing::warn!("shard {shard} leaves although its logs could not be closed within {seconds} seconds");
        }
        is_over
    }

    fn stop_listening(&mut self) -> std::io::Result<()> {
        self.sockets.stop_listening()?;
        (self.acceptors, self.websocket) = (Vec::new(), None);
        Ok(())
    }

    fn obey(&mut self, order: Order) -> std::io::Result<()> {
        let (shard, sockets) = (&mut self.shard, &mut self.sockets);
        match order {
            Order::Adopt(stream, peer) => adopt(shard, sockets, self.opening, stream, peer),
            Order::AdoptWebSocket(upgraded) => adopt_websocket(shard, sockets, *upgraded),
            Order::Opened { place, source, outcome } => go_on(shard, sockets, place, source, outcome)?,
            Order::LoginDecided { slot, cid, grant } => shard.login_decided(slot, cid, grant),
            Order::Snapshot(want, answer) => {
                let _ = answer.send(shard.snapshot(sockets, &want));
            }
            Order::StopListening(done) => {
                self.stop_listening()?;
                let _ = done.send(());
            }
            Order::AnnounceLameDuck => shard.announce_lame_duck(),
            Order::CloseSome(count) => shard.close_some(sockets, count),
            Order::DrainInput(done) => {
                shard.drain_input();
                self.drained.push(done);
            }
            Order::CloseIdle(answer) => {
                let _ = answer.send(shard.close_idle(sockets));
            }
            Order::Reload(config, opening, done) => {
                let (handshakes, opening) = opening.unzip();
                self.opening = opening;
                // Connections that have been greeted still need those of before.
                if let Some(handshakes) = handshakes {
                    sockets.set_handshakes(handshakes);
                }
                let _ = done.send((shard.id(), shard.reload(sockets, &config)));
            }
            Order::CloseExcess(count) => shard.close_excess(sockets, count),
            Order::Stop => self.leave()?,
        }
        Ok(())
    }

    /// Whatever comes to the WebSocket listener has to become a WebSocket first, elsewhere.
    fn accept_websockets(&mut self) {
        let own = self.shard.id();
        let Some(((_, acceptor), upgrades)) = &mut self.websocket else { return };
        for _ in 0..ACCEPTS_PER_TURN {
            if !acceptor.is_ready() {
                return;
            }
            let Some((stream, peer)) = acceptor.next() else { return };
            prepare(&stream, peer);
            upgrades.begin(stream, peer, own);
        }
    }

    fn accept(&mut self) {
        self.accept_websockets();
        let own = self.shard.id();
        for (_, acceptor) in self.acceptors.iter_mut().filter(|(_, acceptor)| acceptor.is_ready()) {
            for _ in 0..ACCEPTS_PER_TURN {
                let Some((stream, peer)) = acceptor.next() else { break };
                let chosen = self.shared.place(own);
                if chosen == own {
                    adopt(&mut self.shard, &mut self.sockets, self.opening, stream, peer);
                } else if self.all_orders[usize::from(chosen)].send(Order::Adopt(stream, peer)).is_ok() {
                    self.bells[usize::from(chosen)].ring();
                }
            }
        }
    }
}

fn adopt(shard: &mut Shard, sockets: &mut Sockets, opening: Option<Opening>, stream: TcpStream, peer: SocketAddr) {
    prepare(&stream, peer);
    let link = match opening {
        None => Link::Plain(stream),
        Some(opening) => Link::Greeting(stream, opening),
    };
    if let Err(error) = sockets.insert(shard.next_slot(), link) {
        tracing::error!("Error watching a connection from {peer}: {error}");
        return shard.disown();
    }
    let Some(opening) = opening else {
        shard.accept(sockets, peer);
        return;
    };
    if let Some(slot) = shard.accept_for_handshake(sockets, peer, opening.greets())
        && !opening.greets()
        && let Err(error) = sockets.hand_over(slot)
    {
        let failure = Failure { severity: Severity::Error, text: error.to_string(), detail: None };
        shard.handshake_failed(sockets, slot, &failure);
    }
}

fn adopt_websocket(shard: &mut Shard, sockets: &mut Sockets, upgraded: Upgraded) {
    let Upgraded { stream, peer, session, tls, facts, unmasked, deflates } = upgraded;
    let session = session.map(|session| Box::new(Session::new(*session)));
    let inflated_bytes_max = deflates.then(|| shard.max_pending() as u64);
    let socket = WebSocket::new(peer, session, unmasked, inflated_bytes_max);
    if let Err(error) = sockets.insert(shard.next_slot(), Link::WebSocket(stream, Box::new(socket))) {
        tracing::error!("Error watching a connection from {peer}: {error}");
        return shard.disown();
    }
    shard.accept_websocket(sockets, peer, facts, tls);
}

/// Sets up the socket of a new connection.
fn prepare(stream: &TcpStream, peer: SocketAddr) {
    // Latency over packet count; a socket that is already gone shows so at the first read.
    let _ = stream.set_nodelay(true);
    if peer.ip().is_loopback() {
        plain_congestion_control(stream);
    }
}

/// Acts on the outcome of an opening, unless the connection has been closed meanwhile.
fn go_on(
    shard: &mut Shard,
    sockets: &mut Sockets,
    place: Place,
    source: Option<SocketAddr>,
    outcome: Outcome,
) -> std::io::Result<()> {
    let Place { slot, generation, .. } = place;
    if !sockets.is_away(slot, generation) {
        return Ok(());
    }
    if let Some(source) = source {
        shard.comes_from(slot, source);
    }
    match outcome {
        Outcome::Secured(stream, session, facts) => {
            sockets.come_back(slot, Link::tls(stream, *session))?;
            shard.secured(sockets, slot, Some(facts));
        }
        Outcome::Clear(stream) => {
            sockets.come_back(slot, Link::Plain(stream))?;
            shard.secured(sockets, slot, None);
        }
        Outcome::Silent(stream, opening) => {
            sockets.come_back(slot, Link::Greeting(stream, opening))?;
            shard.greet_before_handshake(sockets, slot);
        }
        Outcome::Throttled(stream) => {
            sockets.come_back(slot, Link::Plain(stream))?;
            shard.throttled(sockets, slot);
        }
        Outcome::BadHeader(text) => shard.proxy_header_failed(sockets, slot, &text),
        Outcome::Failed(failure) => shard.handshake_failed(sockets, slot, &failure),
    }
    Ok(())
}

/// There is no congestion on the loopback interface, and where BBR is the machine's default its pacing timers cost
/// about a fifth of the CPU time per message (see `perf/`). Reno is always there.
fn plain_congestion_control(stream: &TcpStream) {
    use std::os::fd::AsRawFd;
    let name = b"reno";
    // SAFETY: pointer and length describe a live constant, which the kernel only reads. Failure changes nothing.
    unsafe {
        let (name, len) = (name.as_ptr().cast(), name.len() as libc::socklen_t);
        libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, name, len);
    }
}

/// Spins between turns while that has been worth it lately.
///
/// A shard that found work while spinning may spin up to the full time again; each spin in vain halves it, so that a
/// shard woken now and then parks at once.
#[derive(Debug)]
struct Spin {
    max: Duration,
    now: Duration,
    since: Option<Instant>,
    wakes: u32,
}

/// Every so many wake-ups a shard that has given up spinning tries again.
const SPIN_PROBE: u32 = 16;

impl Spin {
    fn new(max: Duration) -> Self {
        Self { max, now: max, since: None, wakes: 0 }
    }

    /// Begins to spin anew; `true` if there is spinning at all.
    fn found_work(&mut self) -> bool {
        if self.since.take().is_some() {
            self.now = self.max;
        }
        !self.now.is_zero()
    }

    /// Whether to look at the poller once more instead of sleeping.
    fn goes_on(&mut self) -> bool {
        if self.now.is_zero() {
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.now {
            return true;
        }
        self.since = None;
        self.now = if self.now > self.max / 8 { self.now / 2 } else { Duration::ZERO };
        false
    }

    fn woke(&mut self) {
        self.since = None;
        self.wakes = self.wakes.wrapping_add(1);
        if self.now.is_zero() && self.wakes.is_multiple_of(SPIN_PROBE) {
            self.now = self.max;
        }
    }
}
