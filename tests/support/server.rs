//! Starting, addressing and stopping the server under test.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{Client, PATIENCE};
use super::http::{HttpReply, http_get};
use super::{wait_for, wait_until};

/// The reference server to test instead of Leat, if one is named.
pub(crate) fn peer_binary() -> Option<PathBuf> {
    std::env::var_os("LEAT_TEST_PEER").map(PathBuf::from)
}

/// The reference streaming server to test instead of Leat's service, if one is named.
fn streaming_peer_binary() -> Option<PathBuf> {
    std::env::var_os("LEAT_TEST_STREAMING_PEER").map(PathBuf::from)
}

fn leat_binary() -> PathBuf {
    let leat = option_env!("CARGO_BIN_EXE_leat");
    PathBuf::from(leat.expect("there is no Leat binary in this package: set LEAT_TEST_PEER to a nats-server"))
}

/// How a program that ends by itself ended.
pub(crate) struct Finished {
    /// Its exit code; none after a signal.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

/// Runs the binary with arguments that make it end by itself.
pub(crate) fn run(args: &[&str]) -> Finished {
    let dir = TempDir::new().expect("a temporary directory should be creatable");
    let (out, err) = (dir.path().join("stdout"), dir.path().join("stderr"));
    let mut child = Command::new(peer_binary().unwrap_or_else(leat_binary))
        .args(args)
        .stdin(Stdio::null())
        .stdout(File::create(&out).expect("the output file should be creatable"))
        .stderr(File::create(&err).expect("the error file should be creatable"))
        .spawn()
        .expect("the server binary should start");
    let status = wait_exit(&mut child, PATIENCE);
    if status.is_none() {
        kill(&mut child);
    }
    let finished =
        Finished { code: status.and_then(|status| status.code()), stdout: read_text(&out), stderr: read_text(&err) };
    assert!(status.is_some(), "{args:?} does not end by itself: {}{}", finished.stdout, finished.stderr);
    finished
}

/// The settings of a server to be started. See [`Server::builder`].
#[derive(Clone, Default)]
pub(crate) struct ServerBuilder {
    shards: usize,
    options: Vec<(String, String)>,
    user: Option<(String, String)>,
    token: Option<String>,
    monitor: bool,
    own_address: bool,
    streaming: Option<String>,
    args: Vec<String>,
}

impl ServerBuilder {
    /// The number of shards. The reference server has no such thing and ignores it.
    pub(crate) fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// A configuration key that the reference server knows only in its file, such as `max_payload`, with its value as
    /// the file spells it. Leat has a flag of the same name. `auth_timeout` stands for `authorization { timeout }`.
    pub(crate) fn option(mut self, key: &str, value: &str) -> Self {
        self.options.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Requires this user and password.
    pub(crate) fn user(mut self, user: &str, password: &str) -> Self {
        self.user = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Requires this token.
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Opens the monitoring port, which [`Server::get`] and the choice of shards need.
    pub(crate) fn monitor(mut self) -> Self {
        self.monitor = true;
        self
    }

    /// Leaves out `-a` and `-p`: the test gives the address in arguments of its own.
    pub(crate) fn own_address(mut self) -> Self {
        self.own_address = true;
        self
    }

    /// Switches the streaming service on, with this cluster id. The server is Leat then, or the reference streaming
    /// server that `LEAT_TEST_STREAMING_PEER` names.
    pub(crate) fn streaming(mut self, cluster_id: &str) -> Self {
        self.streaming = Some(cluster_id.to_owned());
        self
    }

    /// The reference server that takes the place of Leat.
    fn peer(&self) -> Option<PathBuf> {
        if self.streaming.is_some() { streaming_peer_binary() } else { peer_binary() }
    }

    /// More command line arguments.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// One more command line argument.
    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// One more command line argument, for Leat only.
    pub(crate) fn leat_arg(self, arg: &str) -> Self {
        if self.peer().is_some() { self } else { self.arg(arg) }
    }

    /// Starts the server and waits until it accepts clients.
    pub(crate) fn start(self) -> Server {
        let dir = TempDir::new().expect("a temporary directory should be creatable");
        let child = self.spawn(dir.path(), "-1", "-1");
        let mut server =
            Server { child, settings: self, dir, addr: unknown_addr(), monitor_addr: None, websocket_addr: None };
        server.await_ready();
        server
    }

    /// Starts a server that is expected to refuse its settings, and waits for its end.
    pub(crate) fn start_in_vain(self) -> Finished {
        let dir = TempDir::new().expect("a temporary directory should be creatable");
        let mut child = self.spawn(dir.path(), "-1", "-1");
        let status = wait_exit(&mut child, PATIENCE);
        kill(&mut child);
        let stderr = read_text(&dir.path().join("stderr"));
        let code = status.unwrap_or_else(|| panic!("the server started:\n{stderr}")).code();
        Finished { code, stdout: String::new(), stderr }
    }

    fn spawn(&self, dir: &Path, port: &str, monitor_port: &str) -> Child {
        let peer = self.peer();
        let mut command = Command::new(peer.clone().unwrap_or_else(leat_binary));
        if !self.announces_in_log() {
            command.arg("--ports_file_dir").arg(dir);
        }
        if !self.own_address {
            command.args(["-a", "127.0.0.1", "-p", port]);
        }
        if self.monitor {
            command.args(["-m", monitor_port]);
        }
        if let Some((user, password)) = &self.user {
            command.args(["--user", user, "--pass", password]);
        }
        if let Some(token) = &self.token {
            command.args(["--auth", token]);
        }
        if let Some(cluster_id) = &self.streaming {
            // Each has another default.
            command.args(peer.is_none().then_some("--streaming")).args(["-cid", cluster_id, "-st", "memory"]);
        }
        if peer.is_some() {
            if !self.options.is_empty() {
                let file = dir.join("peer.conf");
                fs::write(&file, self.peer_config()).expect("the configuration file should be written");
                command.arg("-c").arg(file);
            }
        } else {
            command.args(["--cores", &core_list(self.shards.max(1))]);
            command.args(self.options.iter().map(|(key, value)| format!("--{key}={value}")));
        }
        let log = File::options().create(true).append(true).open(dir.join("stderr"));
        command
            .args(&self.args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the log file should be creatable"))
            .spawn()
            .expect("the server binary should start")
    }

    /// Whether the server writes where it listens to its log only, as the reference streaming server does.
    fn announces_in_log(&self) -> bool {
        self.streaming.is_some() && self.peer().is_some()
    }

    fn peer_config(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.options {
            let is_word = value.parse::<f64>().is_ok() || value == "true" || value == "false";
            let value = if is_word { value.clone() } else { format!("\"{value}\"") };
            match key.as_str() {
                "auth_timeout" => text += &format!("authorization {{ timeout: {value} }}\n"),
                _ => text += &format!("{key}: {value}\n"),
            }
        }
        text
    }
}

/// A running server. It is killed and its directory removed when this is dropped.
pub(crate) struct Server {
    child: Child,
    settings: ServerBuilder,
    dir: TempDir,
    addr: SocketAddr,
    monitor_addr: Option<SocketAddr>,
    websocket_addr: Option<SocketAddr>,
}

impl Server {
    /// Begins to describe a server.
    pub(crate) fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Starts a server with this many shards and a monitoring port.
    pub(crate) fn start(shards: usize) -> Server {
        Server::builder().shards(shards).monitor().start()
    }

    /// True for Leat, false for the reference server.
    pub(crate) fn is_leat(&self) -> bool {
        self.settings.peer().is_none()
    }

    /// The cluster id of the streaming service.
    pub(crate) fn cluster_id(&self) -> &str {
        self.settings.streaming.as_deref().expect("this server was started without the streaming service")
    }

    /// The address that clients connect to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL that client libraries connect to.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A directory of this server's own.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The address of the monitoring port.
    pub(crate) fn monitor_addr(&self) -> SocketAddr {
        self.monitor_addr.expect("this server was started without a monitoring port")
    }

    /// The address of the WebSocket port.
    pub(crate) fn websocket_addr(&self) -> SocketAddr {
        self.websocket_addr.expect("this server was started without a WebSocket port")
    }

    /// The URL of the monitoring port.
    pub(crate) fn monitor_url(&self) -> String {
        format!("http://{}", self.monitor_addr())
    }

    /// Fetches a monitoring path.
    pub(crate) fn get(&self, path: &str) -> HttpReply {
        http_get(self.monitor_addr(), path)
    }

    /// Fetches a monitoring document that must exist.
    pub(crate) fn get_json(&self, path: &str) -> Value {
        let reply = self.get(path);
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.body);
        reply.json()
    }

    /// The text of a file in the server's directory; empty when there is none.
    pub(crate) fn file(&self, name: &str) -> String {
        read_text(&self.dir.path().join(name))
    }

    /// The name of the ports file.
    pub(crate) fn ports_file(&self) -> String {
        let executable = self.settings.peer().unwrap_or_else(|| "nats-server".into());
        let executable = executable.file_name().expect("a binary has a name").to_string_lossy().into_owned();
        format!("{executable}_{}.ports", self.pid())
    }

    /// Everything written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.file("stderr")
    }

    /// Waits until standard error contains `text`.
    pub(crate) fn await_stderr(&self, text: &str) {
        wait_until(&format!("the log contains {text:?}"), PATIENCE, || self.stderr().contains(text));
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.pid()).expect("a process id fits pid_t");
        // SAFETY: kill has no memory effects; the process is our child and not yet reaped, so the id is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "the server should take a signal");
    }

    /// Waits for the process to end; none when it is still running after `limit`.
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait_exit(&mut self.child, limit)
    }

    /// One more command line argument from the next start on, for the reference server only.
    pub(crate) fn next_peer_arg(&mut self, arg: &str) {
        if !self.is_leat() {
            self.settings.args.push(arg.to_owned());
        }
    }

    /// Ends the process with SIGKILL.
    pub(crate) fn kill(&mut self) {
        kill(&mut self.child);
    }

    /// Kills the process and starts it again with the same settings, directory and ports.
    pub(crate) fn restart_same_port(&mut self) {
        kill(&mut self.child);
        if self.settings.announces_in_log() {
            fs::remove_file(self.dir.path().join("stderr")).expect("the log of the former run should be removable");
        }
        let monitor_port = self.monitor_addr.map_or(-1, |addr| i32::from(addr.port()));
        let port = self.addr.port().to_string();
        self.child = self.settings.spawn(self.dir.path(), &port, &monitor_port.to_string());
        self.await_ready();
    }

    /// The resident memory of the process.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = read_text(Path::new(&format!("/proc/{}/status", self.pid())));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
        kib.expect("a running process has a resident size") * 1024
    }

    /// Connects a client that has read its INFO and sent nothing.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Connects a quiet client: neither verbose nor pedantic.
    pub(crate) fn client(&self) -> Client {
        self.connect().login(&json!({"verbose": false, "pedantic": false}))
    }

    /// Connects a quiet client that can take headers and wants to know of missing responders.
    pub(crate) fn requester(&self) -> Client {
        self.connect().login(&requester_options())
    }

    /// The number of shards; the reference server counts as one.
    pub(crate) fn shards(&self) -> usize {
        if self.is_leat() { self.settings.shards.max(1) } else { 1 }
    }

    /// The shard that serves a connection.
    pub(crate) fn shard_of(&self, cid: u64) -> usize {
        if !self.is_leat() {
            return 0;
        }
        let connection = wait_for(&format!("connection {cid} is listed"), PATIENCE, || {
            self.get_json(&format!("/connz?cid={cid}"))["connections"].get(0).cloned()
        });
        let shard = connection["shard"].as_u64().expect("Leat shows the shard of a connection");
        usize::try_from(shard).expect("a shard number is small")
    }

    /// Connects a quiet client to the given shard, modulo the number of shards.
    pub(crate) fn client_on(&self, shard: usize) -> Client {
        self.connect_on(shard).login(&json!({"verbose": false, "pedantic": false}))
    }

    /// As [`Server::requester`], on the given shard.
    pub(crate) fn requester_on(&self, shard: usize) -> Client {
        self.connect_on(shard).login(&requester_options())
    }

    /// Connects to the given shard, modulo the number of shards, and sends nothing.
    ///
    /// A new connection goes to a shard that has the fewest. So connections that landed elsewhere are held until the
    /// wanted shard is the emptiest, and given up then.
    pub(crate) fn connect_on(&self, shard: usize) -> Client {
        const ATTEMPTS_MAX: usize = 512;
        let mut elsewhere = Vec::new();
        for _ in 0..ATTEMPTS_MAX {
            let client = self.connect();
            if self.shards() == 1 || self.shard_of(client.cid()) == shard % self.shards() {
                return client;
            }
            elsewhere.push(client);
        }
        panic!("none of {ATTEMPTS_MAX} connections went to shard {shard} of {}", self.shards());
    }

    /// Two quiet clients that share no shard if there are two.
    pub(crate) fn two_clients_on_different_shards(&self) -> (Client, Client) {
        (self.client_on(0), self.client_on(1))
    }

    /// Waits for the server to announce its addresses, and for its streaming service.
    fn await_ready(&mut self) {
        let ports_file = self.dir.path().join(self.ports_file());
        let mut ended = None;
        let ports = wait_for("the server is ready", PATIENCE, || {
            ended = self.child.try_wait().expect("a child can be waited for");
            if ended.is_some() {
                return Some(Value::Null);
            }
            if self.settings.announces_in_log() { ports_in_log(&self.stderr()) } else { read_ports(&ports_file) }
        });
        assert!(ended.is_none(), "the server ended at start ({ended:?}):\n{}", self.stderr());
        self.addr = addr_in(&ports["nats"]).expect("the ports file should name the client port");
        self.monitor_addr = addr_in(&ports["monitoring"]);
        self.websocket_addr = addr_in(&ports["websocket"]);
        if let Some(cluster_id) = self.settings.streaming.clone() {
            self.await_streaming(&cluster_id);
        }
    }

    /// Waits until a request to the streaming service, an invalid one, finds it there.
    fn await_streaming(&mut self, cluster_id: &str) {
        let mut client = self.requester();
        client.subscribe("_INBOX.ready", "1");
        wait_until("the streaming service answers", PATIENCE, || {
            client.send(format!("PUB _STAN.discover.{cluster_id} _INBOX.ready 0\r\n\r\n"));
            client.next_msg().headers.is_none()
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill(&mut self.child);
        if std::thread::panicking() {
            const SHOWN_LINES_MAX: usize = 40;
            let log = self.stderr();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..];
            eprintln!("--- end of the server's log\n{}\n---", shown.join("\n"));
        }
    }
}

fn requester_options() -> Value {
    json!({"verbose": false, "pedantic": false, "headers": true, "no_responders": true})
}

/// The CPUs this process may use, repeated until there is one for each shard.
fn core_list(shards: usize) -> String {
    let cpus = allowed_cpus();
    let list: Vec<String> = cpus.iter().cycle().take(shards).map(usize::to_string).collect();
    list.join(",")
}

fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a cpu_set_t is a plain bit mask, valid when zero, and the call writes at most the size it is given.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let result = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
        assert_eq!(result, 0, "a process can ask for its own affinity");
        set
    };
    let cpus_max = usize::try_from(libc::CPU_SETSIZE).expect("the mask's size is positive");
    // SAFETY: every index is below CPU_SETSIZE, the number of bits in the mask.
    (0..cpus_max).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// The content of the ports file, once it is complete.
fn read_ports(file: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// The same addresses from the log of the reference streaming server, once its service is ready.
fn ports_in_log(log: &str) -> Option<Value> {
    let url = |text: &str| {
        let addr = log.split_once(text)?.1.split_ascii_whitespace().next()?;
        Some(format!("nats://{addr}"))
    };
    log.contains("Streaming Server is ready").then(|| {
        json!({
            "nats": [url("Listening for client connections on ")],
            "monitoring": [url("Starting http monitor on ")],
        })
    })
}

fn addr_in(urls: &Value) -> Option<SocketAddr> {
    urls[0].as_str()?.rsplit('/').next()?.parse().ok()
}

fn unknown_addr() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn read_text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn wait_exit(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = std::time::Instant::now() + limit;
    loop {
        let status = child.try_wait().expect("a child can be waited for");
        if status.is_some() || std::time::Instant::now() >= deadline {
            return status;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ends a process that may have ended already.
fn kill(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        child.kill().expect("a running child can be killed");
        child.wait().expect("a child can be waited for");
    }
}
