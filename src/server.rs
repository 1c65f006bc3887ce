//! A running broker: shards on their threads, and the handle by which the control thread steers them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use crate::auth::Directory;
use crate::config::tls::{HandshakeFirst, TlsOptions};
use crate::config::websocket::WebsocketOptions;
use crate::config::{ListenAddress, Options, PortSpec, host_and_port};
use crate::io::doorbell::Doorbell;
use crate::io::driver::{self, Order, Plan, ServicePlan};
use crate::io::handshakes::{Fallback, Handshake, Handshakes, Opening};
use crate::io::listen;
use crate::io::logins::Logins;
use crate::io::upgrades::{self, Upgrades};
use crate::log;
use crate::log::segments::Sizes;
use crate::monitor::{ShardSnapshot, Want};
use crate::shard::{Config, Shard, Shared, peers};
use crate::store;
use crate::streaming;
use crate::tls::{Context, Current, LoadError};
use crate::websocket::{self, Rules};
use crate::wire::info::{ServerInfo, TlsNotice};

/// How long the request for a WebSocket may take.
const UPGRADE_TIME: Duration = Duration::from_secs(2);
/// Longest wait for a shard's answer to the control thread.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// glommio's preempt timer, as good as off: the driver is the executor's only task. (When the timer fires between the
/// reactor's poll and the first task, glommio 0.9 parks although a task can run.)
const PREEMPT_TIMER: Duration = Duration::from_secs(3600);

/// Longest wait for a shard's answer about the health of its logs.
const FAULTS_TIME: Duration = Duration::from_millis(500);

/// A running server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    orders: Arc<[Sender<Order>]>,
    bells: Arc<[Doorbell]>,
    handshakes: Option<Handshakes>,
    upgrades: Option<Upgrades>,
    /// Some shards have a service inside.
    has_services: bool,
    websocket_address: Option<SocketAddr>,
    threads: Vec<ExecutorJoinHandle<io::Result<()>>>,
    address: SocketAddr,
    /// More addresses that clients connect to.
    more_addresses: Vec<SocketAddr>,
    started: SystemTime,
    info: Arc<ServerInfo>,
    /// What INFO says of it to clients of the WebSocket listener.
    websocket_info: Option<Arc<ServerInfo>>,
    directory: Arc<Directory>,
}

/// Why a server did not start.
#[derive(Debug)]
pub enum StartError {
    /// This address cannot be had.
    Listen(String, io::Error),
    /// The host name does not resolve.
    Host(String, io::Error),
    /// A shard's executor could not be set up.
    Executor(String),
    /// Descriptors for doorbells ran out.
    Doorbell(io::Error),
    /// A thread for logins could not be started.
    Thread(io::Error),
    /// The certificates cannot be used.
    Tls(LoadError),
    /// The threads for handshakes could not be started.
    Handshakes(io::Error),
    /// NATS Streaming.
    Streaming(streaming::start::CannotStart),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listen(address, error) => write!(f, "Error listening on port: {address}, {error}"),
            Self::Host(host, error) => write!(f, "Error resolving host {host:?}: {error}"),
            Self::Executor(error) => write!(f, "Error starting a shard: {error}"),
            Self::Thread(error) => write!(f, "Error starting a thread: {error}"),
            Self::Doorbell(error) => write!(f, "Error creating a doorbell: {error}"),
            Self::Tls(error) => error.fmt(f),
            Self::Streaming(error) => write!(f, "STREAM: Failed to start: {error}"),
            Self::Handshakes(error) => write!(f, "Error starting the threads for TLS handshakes: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Server {
    /// Binds the client port and starts one shard per entry of `options.cores`. Returns when all of them listen.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        let services = options.streaming.as_ref().map(|streaming| {
            let shards = u16::try_from(options.cores.len()).unwrap_or(u16::MAX);
            streaming::start::start(streaming, store_options(options), shards)
        });
        let services = services.transpose().map_err(StartError::Streaming)?.unwrap_or_default();
        Self::start_with(options, services.into_iter().map(Some).collect())
    }

    /// As [`Server::start`], with a service in each shard for which `services` has one, by index.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub fn start_with(options: &Options, services: Vec<Option<ServicePlan>>) -> Result<Self, StartError> {
        let has_services = services.iter().any(Option::is_some);
        let mut services = services.into_iter();
        let shards = options.cores.len();
        let websocket = options.websocket.as_ref().filter(|websocket| websocket.port.is_some());
        let websocket = websocket.map(|options| listen_for_websocket(options, shards)).transpose()?;
        let tls = options.tls.as_ref().map(load_tls).transpose().map_err(StartError::Tls)?;
        let (address, listeners) = bind(&options.host, options.port, shards)?;
        let mut listeners: Vec<Vec<TcpListener>> = listeners.into_iter().map(|listener| vec![listener]).collect();
        let mut more_addresses = Vec::with_capacity(options.also_listen.len());
        for ListenAddress { host, port } in &options.also_listen {
            let (address, more) = bind(host.as_deref().unwrap_or(&options.host), *port, shards)?;
            more_addresses.push(address);
            listeners.iter_mut().zip(more).for_each(|(listeners, listener)| listeners.push(listener));
        }
        let shared = Arc::new(Shared::new(shards));
        let info = server_info(options, address);
        let websocket_info = websocket.as_ref().map(|found| Arc::new(found.info(&info)));
        let bells = (0..shards).map(|_| Doorbell::new()).collect::<Result<Arc<[_]>, _>>();
        let bells = bells.map_err(StartError::Doorbell)?;
        let (orders, order_receivers): (Vec<_>, Vec<_>) = (0..shards).map(|_| unbounded()).unzip();
        let orders: Arc<[_]> = orders.into();
        let is_needed = tls.is_some() || options.proxy_protocol;
        let handshakes = is_needed.then(|| Handshakes::start(tls, &orders, &bells)).transpose();
        let handshakes = handshakes.map_err(StartError::Handshakes)?;
        let websocket_address = websocket.as_ref().map(|found| found.address);
        let (websocket_listeners, upgrades) = websocket
            .map(|found| {
                let upgrades = Upgrades::start(found.listener, shared.clone(), orders.clone(), bells.clone());
                upgrades.map(|upgrades| (found.listeners, upgrades))
            })
            .transpose()
            .map_err(StartError::Handshakes)?
            .unzip();
        let mut websocket_listeners = websocket_listeners.unwrap_or_default().into_iter();
        let mut server = Self {
            shared,
            orders,
            bells,
            handshakes,
            upgrades,
            has_services,
            websocket_address,
            threads: Vec::with_capacity(shards),
            address,
            more_addresses,
            started: SystemTime::now(),
            info: Arc::new(info),
            websocket_info,
            directory: Arc::new(Directory::new(options)),
        };
        let epoch = Instant::now();
        let config = server.config(options);
        let logins = Logins::start(&server.orders, &server.bells).map_err(StartError::Thread)?;
        let parts =
            listeners.into_iter().zip(order_receivers).zip(peers::mesh(shards, options.ring_slots, options.ring_bytes));
        let (started, all_started) = bounded(shards);
        for (((listeners, orders), links), cpu) in parts.zip(&options.cores) {
            let id = server.threads.len();
            let (shared, config, cpu) = (server.shared.clone(), config.clone(), *cpu);
            let (all_orders, bells, logins) = (server.orders.clone(), server.bells.clone(), logins.clone());
            let spin = Duration::from_micros(options.spin_us);
            let opening = server.handshakes.clone().zip(opening(options));
            let websocket = websocket_listeners.next().zip(server.upgrades.clone());
            let started = started.clone();
            let service = services.next().flatten();
            let thread = LocalExecutorBuilder::new(Placement::Fixed(cpu))
                .name(&format!("leat-shard-{id}"))
                .io_memory(options.io_memory)
                .ring_depth(options.ring_depth)
                .preempt_timer(PREEMPT_TIMER)
                .spawn(move || async move {
                    let shard = Shard::new(config, shared.clone(), links, cpu, fastrand::u64(..));
                    let plan = Plan {
                        shard,
                        service,
                        shared,
                        orders,
                        all_orders,
                        bells,
                        logins,
                        opening,
                        listeners,
                        websocket,
                        epoch,
                        spin,
                    };
                    let done = started.clone();
                    let result = driver::run(plan, move || {
                        let _ = done.send(Ok(()));
                    });
                    if let Err(error) = &result
                        && started.send(Err(error.to_string())).is_err()
                    {
                        // All shards had started: without this one part of the clients would hang.
                        panic!("shard {id} cannot go on: {error}");
                    }
                    result
                });
            match thread {
                Ok(thread) => server.threads.push(thread),
                Err(error) => {
                    server.stop();
                    return Err(StartError::Executor(error.to_string()));
                }
            }
        }
        drop(started);
        for _ in 0..shards {
            if let Err(error) = all_started.recv().unwrap_or_else(|_| Err("its thread ended".to_owned())) {
                server.stop();
                return Err(StartError::Executor(error));
            }
        }
        Ok(server)
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients connect as well.
    #[must_use]
    pub fn more_addresses(&self) -> &[SocketAddr] {
        &self.more_addresses
    }

    /// Where WebSocket clients connect, if there is a listener for them.
    #[must_use]
    pub fn websocket_address(&self) -> Option<SocketAddr> {
        self.websocket_address
    }

    /// When it was started.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Facts and counters that all shards share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What INFO says of the server.
    #[must_use]
    pub fn info(&self) -> &Arc<ServerInfo> {
        &self.info
    }

    /// Works by other options from now on; nothing in them may need a restart. Returns when all shards do so; gives the
    /// number of connections that had to be closed because there were too many.
    pub fn reload(&mut self, options: &Options) -> usize {
        let (host, port) = advertised(options, self.address);
        self.info = Arc::new(ServerInfo { host, port, tls: notice(options), ..(*self.info).clone() });
        self.directory = Arc::new(self.directory.successor(options));
        let config = Arc::new(self.config(options));
        let (answer, answers) = bounded(self.orders.len());
        let opening = self.handshakes.clone().zip(opening(options));
        self.order_all(|| Order::Reload(config.clone(), opening.clone(), answer.clone()));
        drop(answer);
        let mut left = gather(&answers, self.orders.len(), answer_deadline());
        if left.len() < self.orders.len() {
            tracing::warn!("some shards are busy and will work by the new configuration a little later");
        }
        let count: usize = left.iter().map(|(_, count)| count).sum();
        let excess = count.saturating_sub(options.max_connections);
        let mut quotas = vec![0; self.orders.len()];
        for _ in 0..excess {
            if let Some((fullest, count)) = left.iter_mut().max_by_key(|(_, count)| *count) {
                *count -= 1;
                quotas[usize::from(*fullest)] += 1;
            }
        }
        let mut quotas = quotas.into_iter();
        self.order_all(|| Order::CloseExcess(quotas.next().unwrap_or(0)));
        excess
    }

    /// When accounts change by themselves, because a token begins or ceases to be in force. A reload makes it so.
    #[must_use]
    pub fn next_change(&self) -> Option<SystemTime> {
        self.directory.next_change()
    }

    /// A handle that asks shards for monitoring values from any thread.
    #[must_use]
    pub fn monitor(&self) -> MonitorHandle {
        MonitorHandle { orders: self.orders.clone(), bells: self.bells.clone(), has_services: self.has_services }
    }

    /// The TLS of clients, if they have any by these options.
    #[must_use]
    pub fn tls(&self, options: &Options) -> Option<Current> {
        options.tls.as_ref()?;
        self.handshakes.as_ref()?.context().cloned()
    }

    /// Reads certificates anew, for the handshakes that begin from now on. Whether clients begin one, and when, follows
    /// with [`Server::reload`].
    ///
    /// # Errors
    /// When they cannot be used, or no thread can be started for the first handshakes; what is in use stays.
    pub fn reload_tls(&mut self, options: &Options) -> Result<(), StartError> {
        let load = |tls: Option<&TlsOptions>| tls.map(load_tls).transpose().map_err(StartError::Tls);
        let clients = load(options.tls.as_ref())?;
        let websocket = load(options.websocket.as_ref().and_then(|websocket| websocket.tls.as_ref()))?;
        if let Some(context) = clients {
            match self.handshakes.as_ref().and_then(Handshakes::context) {
                Some(current) => current.replace(context),
                None => {
                    let threads = Handshakes::start(Some(context), &self.orders, &self.bells);
                    self.handshakes = Some(threads.map_err(StartError::Handshakes)?);
                }
            }
        }
        if let Some((current, context)) = self.upgrades.as_ref().and_then(Upgrades::context).zip(websocket) {
            current.replace(context);
        }
        Ok(())
    }

    /// Accepts no more clients.
    pub fn stop_listening(&self) {
        let (done, all) = bounded(self.orders.len());
        self.order_all(|| Order::StopListening(done.clone()));
        drop(done);
        gather(&all, self.orders.len(), answer_deadline());
    }

    /// Tells clients that the server is about to go (lame duck).
    pub fn announce_lame_duck(&self) {
        self.shared.lame_duck.store(true, std::sync::atomic::Ordering::Relaxed);
        self.order_all(|| Order::AnnounceLameDuck);
    }

    /// Closes up to `count` connections of the shard that has most.
    pub fn close_some(&self, count: usize) {
        let shard = self.shared.fullest_shard();
        if self.orders[shard].send(Order::CloseSome(count)).is_ok() {
            self.bells[shard].ring();
        }
    }

    /// Reads what clients have sent, delivers it, has it answered by services, and closes connections as their output
    /// drains, for at most `time`.
    /// Half of it is for reading: clients that never stop sending are cut short then.
    pub fn drain(&self, time: Duration) {
        let read_deadline = Instant::now() + time / 2;
        let deadline = read_deadline + time / 2;
        self.stop_listening();
        // What one shard has read may be for the service of another one.
        for _ in 0..=usize::from(self.has_services) {
            let (done, all) = bounded(self.orders.len());
            self.order_all(|| Order::DrainInput(done.clone()));
            drop(done);
            gather(&all, self.orders.len(), read_deadline);
        }
        loop {
            let (answer, answers) = bounded(self.orders.len());
            self.order_all(|| Order::CloseIdle(answer.clone()));
            drop(answer);
            let left: usize = gather(&answers, self.orders.len(), answer_deadline()).into_iter().sum();
            if (left == 0 && self.shared.connections() == 0) || Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends all shards; connections are closed as they are. Services are stopped first, which may take some seconds.
    pub fn stop(&mut self) {
        self.order_all(|| Order::Stop);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("a shard ended with an error: {error}"),
                Err(error) => tracing::error!("a shard's executor ended with an error: {error}"),
            }
        }
    }

    fn config(&self, options: &Options) -> Config {
        let config = Config::new(options, self.orders.len(), self.directory.clone(), self.info.clone());
        Config { websocket_info: self.websocket_info.clone(), ..config }
    }

    fn order_all(&self, mut order: impl FnMut() -> Order) {
        order_all(&self.orders, &self.bells, &mut order);
    }
}

fn order_all(orders: &[Sender<Order>], bells: &[Doorbell], order: &mut dyn FnMut() -> Order) {
    for (sender, bell) in orders.iter().zip(bells) {
        // A shard that has ended takes no orders, and needs none.
        if sender.send(order()).is_ok() {
            bell.ring();
        }
    }
}

fn answer_deadline() -> Instant {
    Instant::now() + ANSWER_TIME
}

/// Up to `count` answers; shards that do not answer until `deadline` are left out.
fn gather<T>(answers: &Receiver<T>, count: usize, deadline: Instant) -> Vec<T> {
    (0..count).map_while(|_| answers.recv_deadline(deadline).ok()).collect()
}

/// Asks shards for monitoring values.
#[derive(Clone, Debug)]
pub struct MonitorHandle {
    orders: Arc<[Sender<Order>]>,
    bells: Arc<[Doorbell]>,
    has_services: bool,
}

impl MonitorHandle {
    /// What `want` asks for, from every shard; waits for at most two seconds.
    #[must_use]
    pub fn snapshots(&self, want: Want) -> Vec<ShardSnapshot> {
        self.snapshots_until(want, answer_deadline())
    }

    /// Whether there are services in the shards.
    #[must_use]
    pub fn has_services(&self) -> bool {
        self.has_services
    }

    /// What is wrong with the logs of the shards' services; waits for at most half a second.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let all = self.snapshots_until(Want::default(), Instant::now() + FAULTS_TIME);
        all.into_iter().filter_map(|snapshot| snapshot.service).flat_map(|service| service.faults).collect()
    }

    fn snapshots_until(&self, want: Want, deadline: Instant) -> Vec<ShardSnapshot> {
        let (answer, answers) = bounded(self.orders.len());
        order_all(&self.orders, &self.bells, &mut || Order::Snapshot(want, answer.clone()));
        drop(answer);
        let mut all = gather(&answers, self.orders.len(), deadline);
        all.sort_by_key(|snapshot| snapshot.shard);
        all
    }
}

/// The listener for WebSocket before its thread runs.
struct WebSocketStart {
    listeners: Vec<TcpListener>,
    address: SocketAddr,
    host: String,
    listener: upgrades::Listener,
}

impl WebSocketStart {
    /// INFO for clients of this listener.
    fn info(&self, clients: &ServerInfo) -> ServerInfo {
        let has_tls = self.listener.tls.is_some();
        ServerInfo {
            host: self.host.clone(),
            port: self.address.port(),
            tls: TlsNotice { required: has_tls, verify: false, available: has_tls },
            ..clients.clone()
        }
    }
}

fn listen_for_websocket(options: &WebsocketOptions, shards: usize) -> Result<WebSocketStart, StartError> {
    let tls = options.tls.as_ref().map(load_tls).transpose().map_err(StartError::Tls)?;
    let host = options.host().to_owned();
    let (address, listeners) = bind(&host, options.port.unwrap_or(PortSpec::Any), shards)?;
    let rules = Rules {
        tls: tls.is_some(),
        same_origin: options.same_origin,
        compression: options.compression,
        origins: options.allowed_origins.iter().filter_map(|text| websocket::origin(text)).collect(),
        headers: options.headers.clone(),
        cookies: [&options.user_cookie, &options.pass_cookie, &options.token_cookie, &options.jwt_cookie]
            .map(Clone::clone),
    };
    let timeout = options.handshake_timeout.unwrap_or(UPGRADE_TIME);
    Ok(WebSocketStart { listeners, address, host, listener: upgrades::Listener { tls, rules, timeout } })
}

/// One listening socket per shard on this address, and the address with the port that has become of it.
fn bind(host: &str, port: PortSpec, shards: usize) -> Result<(SocketAddr, Vec<TcpListener>), StartError> {
    let address = listen::resolve(host, port.bind_number());
    let address = address.map_err(|error| StartError::Host(host.to_owned(), error))?;
    let failed = |error| StartError::Listen(host_and_port(host, port.bind_number()), error);
    let listeners = listen::bind_patiently(address, shards).map_err(failed)?;
    Ok((listeners[0].local_addr().map_err(failed)?, listeners))
}

/// How the stores of services are to work.
#[must_use]
pub fn store_options(options: &Options) -> store::Options {
    let defaults = store::Options::default();
    // The check of options keeps both in range.
    let max = u32::try_from(options.segment_size).unwrap_or(u32::MAX);
    let commit_delay_ns = i64::try_from(options.commit_delay_us.saturating_mul(1000)).unwrap_or(i64::MAX);
    let sizes = Sizes { max, ..defaults.log.sizes };
    store::Options { log: log::Options { sizes, commit_delay_ns, ..defaults.log }, ..defaults }
}

fn server_info(options: &Options, address: SocketAddr) -> ServerInfo {
    let server_id = nkeys::KeyPair::new_server().public_key();
    let (host, port) = advertised(options, address);
    ServerInfo {
        server_name: options.server_name.clone().unwrap_or_else(|| server_id.clone()),
        server_id,
        host,
        port,
        tls: notice(options),
    }
}

fn notice(options: &Options) -> TlsNotice {
    let Some(tls) = &options.tls else { return TlsNotice::default() };
    TlsNotice { required: !options.allow_non_tls, verify: tls.verify, available: options.allow_non_tls }
}

/// What comes before the commands of clients; `None` if nothing does.
fn opening(options: &Options) -> Option<Opening> {
    let optional = options.allow_non_tls;
    let handshake = match options.tls.as_ref().map(|tls| tls.handshake_first) {
        None => Handshake::None,
        Some(HandshakeFirst::No) if optional => Handshake::Optional,
        Some(HandshakeFirst::No) => Handshake::AfterInfo,
        Some(HandshakeFirst::Yes) => Handshake::First,
        Some(HandshakeFirst::Within(time)) if optional => Handshake::FirstWithin(time, Fallback::Optional),
        Some(HandshakeFirst::Within(time)) => Handshake::FirstWithin(time, Fallback::Required),
    };
    let proxied = options.proxy_protocol;
    (proxied || handshake != Handshake::None).then_some(Opening { proxied, handshake })
}

fn load_tls(options: &TlsOptions) -> Result<Context, LoadError> {
    let context = Context::load(options)?;
    for warning in context.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(context)
}

/// What `client_advertise` says, and where that says nothing the address listened on.
fn advertised(options: &Options, address: SocketAddr) -> (String, u16) {
    match options.advertised() {
        Ok(Some((host, port))) => (host, port.unwrap_or(address.port())),
        // Options that have been checked give no error.
        Ok(None) | Err(_) => (options.host.clone(), address.port()),
    }
}
