//! The control thread: what a server does beside moving messages.
//!
//! [`run`] starts everything in the reference's order, then waits for signals: stop, drain, lame duck, log reopening,
//! reload of the configuration. It talks to shards by orders and gets plain values back; nothing here runs on a shard.

mod lame_duck;
mod reload;
pub mod signals;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::config::tls::HandshakeFirst;
use crate::config::{Options, host_and_port};
use crate::host::{self, Problem};
use crate::io::listen;
use crate::logging::{FATAL, Logging};
use crate::monitor::ports::{self, PortsFile};
use crate::monitor::{self, Facts, MonitorServer, Readiness, ShardSnapshot, Source, Want};
use crate::server::{MonitorHandle, Server};
use crate::shard::Shared;
use crate::tls::{Context, Current};
use crate::version;
use crate::wire::info::ServerInfo;
use signals::ControlEvent;

/// Longest wait for queued output after SIGTERM. The process is gone well within five seconds.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Signals that wait for the control thread; more of one kind merge.
const EVENTS_QUEUED: usize = 16;

/// Reads the configuration again: the options, and what is to be said about them.
pub type ReadAgain<'a> = &'a dyn Fn() -> Result<(Options, Vec<String>), String>;

/// Runs a server until a signal ends it. `prepared` is what [`host::prepare`] found. The error is one line for standard
/// error; it has been logged as fatal.
///
/// # Errors
/// When the server cannot be started.
pub fn run(
    options: Options,
    prepared: Result<Vec<Problem>, Problem>,
    warnings: &[String],
    logging: &Logging,
    read_again: ReadAgain<'_>,
) -> Result<(), String> {
    let outcome = start(options, prepared, warnings).map(|running| running.wait(logging, read_again));
    if let Err(error) = &outcome {
        tracing::error!(target: FATAL, "{error}");
    }
    logging.flush();
    outcome
}

fn start(options: Options, prepared: Result<Vec<Problem>, Problem>, warnings: &[String]) -> Result<Running, String> {
    let problems = prepared.map_err(|problem| problem.to_string())?;
    let (sender, events) = bounded(EVENTS_QUEUED);
    signals::watch(sender).map_err(|error| format!("Error setting up signals: {error}"))?;
    tracing::info!("Starting leat");
    tracing::info!("  Version:  {} (nats-server {})", version::VERSION, version::COMPATIBLE_WITH);
    if let Some(name) = &options.server_name {
        tracing::info!("  Name:     {name}");
    }
    tracing::info!("  Cores:    {:?}", options.cores);
    if let Some(file) = &options.config_file {
        tracing::info!("Using configuration file: {} ({})", file.display(), options.config_digest);
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    for problem in problems {
        tracing::warn!("{problem}");
    }
    let monitoring = Monitoring::bind(&options)?;
    let server = Server::start(&options).map_err(|error| error.to_string())?;
    let options = Arc::new(options);
    let in_force = Arc::new(Mutex::new(InForce::now(&options, &server, server.started())));
    let monitoring_tls = monitoring.as_ref().and_then(|monitoring| monitoring.tls.clone());
    let monitoring_at = monitoring.as_ref().map(|found| (found.scheme, found.listens_on));
    let addresses = client_addresses(&options, &server);
    let more_addresses = addresses[1..].to_vec();
    let monitor = monitoring.map(|monitoring| monitoring.serve(&server, more_addresses, &in_force)).transpose()?;
    for address in &addresses {
        tracing::info!("Listening for client connections on {address}");
    }
    if let Some(tls) = &options.tls {
        let how = if options.allow_non_tls { "available" } else { "required" };
        tracing::info!("TLS {how} for client connections");
        if tls.handshake_first == HandshakeFirst::Yes {
            tracing::warn!("Clients that are not using \"TLS Handshake First\" option will fail to connect");
        }
    }
    tracing::info!("  ID:       {}", server.info().server_id);
    if let Some(path) = &options.pid_file {
        let wrote = host::write_pid_file(path);
        wrote.map_err(|error| format!("could not write pid file {}: {error}", path.display()))?;
    }
    let websocket = options.websocket.as_ref().zip(server.websocket_address()).map(|(websocket, address)| {
        let scheme = if websocket.tls.is_some() { "wss" } else { "ws" };
        let shown = host_and_port(websocket.host(), address.port());
        tracing::info!("Listening for websocket clients on {scheme}://{shown}");
        (scheme, address)
    });
    let clients = std::iter::once(server.address()).chain(server.more_addresses().iter().copied()).collect();
    let urls = Urls { clients, monitoring: monitoring_at, websocket };
    let ports_file = urls.write(&options)?;
    tracing::info!("Server is ready");
    if options.streaming.is_some() {
        tracing::info!("STREAM: Streaming Server is ready");
    }
    Ok(Running { server, options, in_force, monitor, monitoring_tls, events, urls, ports_file })
}

/// Where clients connect: hosts as they are configured, with the ports that have become of theirs.
fn client_addresses(options: &Options, server: &Server) -> Vec<String> {
    let more = options.also_listen.iter().map(|address| address.host.as_deref().unwrap_or(&options.host));
    let hosts = std::iter::once(options.host.as_str()).chain(more);
    let addresses = std::iter::once(server.address()).chain(server.more_addresses().iter().copied());
    hosts.zip(addresses).map(|(host, address)| host_and_port(host, address.port())).collect()
}

/// What the ports file says.
struct Urls {
    clients: Vec<SocketAddr>,
    /// With the scheme.
    monitoring: Option<(&'static str, SocketAddr)>,
    websocket: Option<(&'static str, SocketAddr)>,
}

impl Urls {
    /// Writes the ports file, if it is wanted.
    fn write(&self, options: &Options) -> Result<Option<PortsFile>, String> {
        let Some(dir) = options.ports_file_dir.as_deref() else { return Ok(None) };
        let scheme = if options.requires_tls() { "tls" } else { "nats" };
        let nats: Vec<String> = self.clients.iter().flat_map(|address| ports::urls(scheme, *address)).collect();
        let [monitoring, websocket] = [self.monitoring, self.websocket]
            .map(|listener| listener.map_or_else(Vec::new, |(scheme, address)| ports::urls(scheme, address)));
        let file = ports::write(dir, std::process::id(), &nats, &monitoring, &websocket);
        file.map(Some).map_err(|error| format!("could not write ports file in {}: {error}", dir.display()))
    }
}

/// The monitoring listener before it serves.
struct Monitoring {
    listener: TcpListener,
    tls: Option<Current>,
    scheme: &'static str,
    /// `host:port`.
    address: String,
    listens_on: SocketAddr,
}

impl Monitoring {
    /// Binds the port that the options name, if they name one, and reads its certificates.
    fn bind(options: &Options) -> Result<Option<Self>, String> {
        let Some(port) = options.https_port.or(options.http_port) else { return Ok(None) };
        let tls = monitoring_context(options)?.map(Current::new);
        let (host, port) = (options.http_host(), port.bind_number());
        let bound = listen::resolve(host, port).and_then(|address| {
            let listener = listen::bind_patiently(address, 1)?.pop().ok_or(io::ErrorKind::NotFound)?;
            let listens_on = listener.local_addr()?;
            Ok((listener, listens_on))
        });
        let at = host_and_port(host, port);
        let (listener, listens_on) =
            bound.map_err(|error| format!("Error listening on monitoring port: {at}, {error}"))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = host_and_port(host, listens_on.port());
        Ok(Some(Self { listener, tls, scheme, address, listens_on }))
    }

    fn serve(
        self,
        server: &Server,
        more_addresses: Vec<String>,
        in_force: &Arc<Mutex<InForce>>,
    ) -> Result<MonitorServer, String> {
        let source = BrokerSource {
            shared: server.shared().clone(),
            shards: server.monitor(),
            in_force: in_force.clone(),
            started: server.started(),
            more_addresses,
            monitoring_port: self.listens_on.port(),
            websocket_port: server.websocket_address().map(|address| address.port()),
        };
        tracing::info!("Starting {} monitor on {}", self.scheme, self.address);
        let monitor = monitor::serve(self.listener, self.tls, Arc::new(source));
        monitor.map_err(|error| format!("Error starting the monitor: {error}"))
    }
}

/// What monitoring inside TLS works with, if it is to be inside TLS: the certificates for clients, without asking
/// anybody for one.
fn monitoring_context(options: &Options) -> Result<Option<Context>, String> {
    let tls = options.tls.as_ref().filter(|_| options.https_port.is_some());
    tls.map(Context::load_without_clients).transpose().map_err(|error| error.to_string())
}

/// A started server and what belongs to it.
struct Running {
    server: Server,
    options: Arc<Options>,
    /// The same for monitoring.
    in_force: Arc<Mutex<InForce>>,
    monitor: Option<MonitorServer>,
    /// Its TLS, if it has any.
    monitoring_tls: Option<Current>,
    events: Receiver<ControlEvent>,
    urls: Urls,
    ports_file: Option<PortsFile>,
}

impl Running {
    /// Acts on signals until one of them ends the server.
    fn wait(mut self, logging: &Logging, read_again: ReadAgain<'_>) {
        while let Some(event) = self.next_event() {
            tracing::info!("Trapped {:?} signal", event.signal_name());
            match event {
                ControlEvent::Reopen => logging.reopen(),
                ControlEvent::Reload => match self.reload(logging, read_again) {
                    Ok(()) => tracing::info!("Reloaded server configuration ({})", self.options.config_digest),
                    Err(reason) => tracing::error!("Failed to reload server configuration: {reason}"),
                },
                ControlEvent::Stop => break,
                ControlEvent::Drain => {
                    self.server.drain(DRAIN_TIME);
                    break;
                }
                ControlEvent::LameDuck => {
                    lame_duck::run(&self.server, &self.options, &self.events, logging);
                    break;
                }
            }
        }
        tracing::info!("Initiating Shutdown...");
        drop(self.ports_file.take());
        if let Some(monitor) = self.monitor.take() {
            monitor.stop();
        }
        self.server.stop();
        tracing::info!("Server Exiting..");
    }
}

/// Calendar time is looked at this often, since the clock can be set.
const CLOCK_TRUST: Duration = Duration::from_secs(60);

impl Running {
    /// The next signal. Meanwhile accounts come and go as their tokens say; `None` at the end.
    fn next_event(&mut self) -> Option<ControlEvent> {
        loop {
            let Some(change) = self.server.next_change() else { return self.events.recv().ok() };
            let left = change.duration_since(SystemTime::now()).unwrap_or_default();
            if left.is_zero() {
                tracing::debug!("The JWT of an account begins or ceases to be in force");
                self.server.reload(&self.options);
                continue;
            }
            match self.events.recv_timeout(left.min(CLOCK_TRUST)) {
                Ok(event) => return Some(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

/// What a reload replaces, for monitoring.
#[derive(Clone)]
struct InForce {
    options: Arc<Options>,
    info: Arc<ServerInfo>,
    /// The TLS of clients.
    tls: Option<Current>,
    since: SystemTime,
}

impl InForce {
    fn now(options: &Arc<Options>, server: &Server, since: SystemTime) -> Self {
        Self { options: options.clone(), info: server.info().clone(), tls: server.tls(options), since }
    }
}

/// The broker as monitoring sees it.
struct BrokerSource {
    shared: Arc<Shared>,
    shards: MonitorHandle,
    in_force: Arc<Mutex<InForce>>,
    started: SystemTime,
    more_addresses: Vec<String>,
    monitoring_port: u16,
    websocket_port: Option<u16>,
}

impl BrokerSource {
    fn now(&self) -> InForce {
        // Nobody panics while he holds it: it is cloned or replaced.
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Source for BrokerSource {
    fn facts(&self) -> Facts {
        let InForce { options, info, tls, since } = self.now();
        let lame_duck = self.shared.lame_duck.load(Ordering::Relaxed);
        Facts {
            server_id: info.server_id.clone(),
            server_name: info.server_name.clone(),
            host: info.host.clone(),
            port: info.port,
            more_addresses: self.more_addresses.clone(),
            monitoring_port: self.monitoring_port,
            websocket_port: self.websocket_port,
            start: self.started,
            config_load_time: since,
            config_digest: options.config_digest.clone(),
            options,
            total_connections: self.shared.total_connections(),
            certificate_not_after: tls.and_then(|tls| tls.get().not_after()),
            readiness: if lame_duck { Readiness::LameDuck } else { Readiness::Accepting },
            stores: self.shards.has_services(),
        }
    }

    fn shards(&self, want: Want) -> Vec<ShardSnapshot> {
        self.shards.snapshots(want)
    }

    fn faults(&self) -> Vec<String> {
        self.shards.faults()
    }
}
