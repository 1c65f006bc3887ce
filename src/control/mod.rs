//! The control thread: what a server does beside moving messages.
//!
//! [`run`] starts everything in the reference's order, then waits for signals: stop, drain, lame duck, log reopening,
//! reload of the configuration. It talks to shards by orders and gets plain values back; nothing here runs on a shard.

mod lame_duck;
mod reload;
pub mod signals;

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::config::Options;
use crate::config::tls::HandshakeFirst;
use crate::host::{self, Problem};
use crate::io::handshakes::Handshakes;
use crate::logging::{FATAL, Logging};
use crate::monitor::ports::{self, PortsFile};
use crate::monitor::{self, Facts, MonitorServer, Readiness, ShardSnapshot, Source, Want};
use crate::server::{MonitorHandle, Server};
use crate::shard::Shared;
use crate::version;
use crate::wire::info::ServerInfo;
use signals::ControlEvent;

/// Longest wait for queued output after SIGTERM. The process is gone well within five seconds.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Signals that wait for the control thread; more of one kind merge.
const EVENTS_QUEUED: usize = 16;

/// Reads the configuration again: the options, and what is to be said about them.
pub type ReadAgain<'a> = &'a dyn Fn() -> Result<(Options, Vec<String>), String>;

/// Runs a server until a signal ends it. `prepared` is what [`host::prepare`] found. The error is one line for standard error; it has been logged as fatal.
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
    let http = options.http_port.map(|port| bind_http(&options, port.bind_number())).transpose()?;
    let server = Server::start(&options).map_err(|error| error.to_string())?;
    let options = Arc::new(options);
    let in_force = InForce { options: options.clone(), info: server.info().clone(), since: server.started() };
    let in_force = Arc::new(Mutex::new(in_force));
    let monitor = http.map(|(listener, port)| serve_http(listener, port, &server, &in_force)).transpose()?;
    let address = server.address();
    tracing::info!("Listening for client connections on {}:{}", options.host, address.port());
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
        let url = format!("{scheme}://{}:{}", websocket.host(), address.port());
        tracing::info!("Listening for websocket clients on {url}");
        url
    });
    let urls = Urls {
        nats: [format!("nats://{}:{}", options.host, address.port())],
        monitoring: monitor.iter().map(|(_, port)| format!("http://{}:{port}", options.http_host())).collect(),
        websocket: websocket.into_iter().collect(),
    };
    let ports_file = urls.write(options.ports_file_dir.as_deref())?;
    tracing::info!("Server is ready");
    let monitor = monitor.map(|(monitor, _)| monitor);
    Ok(Running { server, options, in_force, monitor, events, urls, ports_file })
}

/// What the ports file says.
struct Urls {
    nats: [String; 1],
    monitoring: Vec<String>,
    websocket: Vec<String>,
}

impl Urls {
    /// Writes the ports file, if it is wanted.
    fn write(&self, dir: Option<&Path>) -> Result<Option<PortsFile>, String> {
        let Some(dir) = dir else { return Ok(None) };
        let file = ports::write(dir, std::process::id(), &self.nats, &self.monitoring, &self.websocket);
        file.map(Some).map_err(|error| format!("could not write ports file in {}: {error}", dir.display()))
    }
}

fn bind_http(options: &Options, port: u16) -> Result<(TcpListener, u16), String> {
    let host = options.http_host();
    let bound = TcpListener::bind((host, port)).and_then(|listener| {
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    });
    bound.map_err(|error| format!("Error listening on monitoring port: {host}:{port}, {error}"))
}

fn serve_http(
    listener: TcpListener,
    port: u16,
    server: &Server,
    in_force: &Arc<Mutex<InForce>>,
) -> Result<(MonitorServer, u16), String> {
    let source = BrokerSource {
        shared: server.shared().clone(),
        shards: server.monitor(),
        handshakes: server.handshakes().cloned(),
        in_force: in_force.clone(),
        started: server.started(),
        http_port: port,
        websocket_port: server.websocket_address().map(|address| address.port()),
    };
    tracing::info!("Starting http monitor on {}:{port}", source.now().options.http_host());
    let monitor = monitor::serve(listener, Arc::new(source));
    monitor.map(|monitor| (monitor, port)).map_err(|error: io::Error| format!("Error starting the monitor: {error}"))
}

/// A started server and what belongs to it.
struct Running {
    server: Server,
    options: Arc<Options>,
    /// The same for monitoring.
    in_force: Arc<Mutex<InForce>>,
    monitor: Option<MonitorServer>,
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
    since: SystemTime,
}

/// The broker as monitoring sees it.
struct BrokerSource {
    shared: Arc<Shared>,
    shards: MonitorHandle,
    handshakes: Option<Handshakes>,
    in_force: Arc<Mutex<InForce>>,
    started: SystemTime,
    http_port: u16,
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
        let InForce { options, info, since } = self.now();
        let lame_duck = self.shared.lame_duck.load(Ordering::Relaxed);
        Facts {
            server_id: info.server_id.clone(),
            server_name: info.server_name.clone(),
            host: info.host.clone(),
            port: info.port,
            http_port: self.http_port,
            websocket_port: self.websocket_port,
            start: self.started,
            config_load_time: since,
            config_digest: options.config_digest.clone(),
            options,
            total_connections: self.shared.total_connections(),
            certificate_not_after: self.handshakes.as_ref().and_then(|tls| tls.context().not_after()),
            readiness: if lame_duck { Readiness::LameDuck } else { Readiness::Accepting },
        }
    }

    fn shards(&self, want: Want) -> Vec<ShardSnapshot> {
        self.shards.snapshots(want)
    }
}
