//! Every option of a server as plain data, with the reference server's defaults.
//!
//! Invariant: an `Options` that passed [`Options::check`] can be run. Units are bytes unless a name says otherwise.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::accounts::Access;
use super::address::{ListenAddress, advertised};
use super::reload::Shown as _;
use super::tls::TlsOptions;
use super::websocket::WebsocketOptions;
use super::{duration, values};
use crate::host::cpus;
use crate::streaming;

/// How long a client may take to log in if the options do not say, and none of it is for a TLS handshake.
const AUTH_TIME: Duration = Duration::from_secs(2);

/// So much longer than its TLS handshake may take a client's login, if the options do not say.
const AUTH_TIME_AFTER_HANDSHAKE: Duration = Duration::from_secs(1);

/// Most addresses of `also_listen`.
const ADDRESSES_MAX: usize = 16;

/// Port for clients if none is given.
pub const DEFAULT_PORT: u16 = 4222;

/// Payloads above this are accepted but warned about.
pub const PAYLOAD_WARN_BYTES: usize = 8 << 20;

/// Options of one server.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Address to listen on for clients.
    pub host: String,
    /// Port to listen on for clients.
    pub port: PortSpec,
    /// Name shown to clients and in monitoring; the server's id if absent.
    pub server_name: Option<String>,
    /// More addresses to listen on for clients.
    pub also_listen: Vec<ListenAddress>,
    /// `host[:port]` to state in INFO instead of the address listened on.
    pub client_advertise: Option<String>,
    /// Address of the monitoring listener; `host` if absent.
    pub http_host: Option<String>,
    /// Port of the monitoring listener; monitoring is off if absent.
    pub http_port: Option<PortSpec>,
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
    /// Where to write the file that lists the ports in use.
    pub ports_file_dir: Option<PathBuf>,

    /// Log file; standard error if absent.
    pub log_file: Option<PathBuf>,
    /// Write DBG lines.
    pub debug: bool,
    /// Write TRC lines, the raw protocol.
    pub trace: bool,
    /// Put the time into log lines.
    pub logtime: bool,
    /// Log times in UTC instead of local time.
    pub logtime_utc: bool,
    /// Rotate the log file when it exceeds this many bytes; 0 = never.
    pub log_size_limit: u64,
    /// Bytes of a payload shown in a trace line; 0 = all.
    pub max_traced_msg_len: usize,

    /// User name required of clients.
    pub user: Option<String>,
    /// Password required of clients, plain text.
    pub pass: Option<Secret>,
    /// Token required of clients, plain text. Takes precedence over user and password.
    pub auth_token: Option<Secret>,

    /// Largest message, headers included.
    pub max_payload: usize,
    /// Bytes queued towards one client before it is cut off.
    pub max_pending: usize,
    /// Client connections; 0 refuses every client.
    pub max_connections: usize,
    /// Subscriptions of one connection; 0 = unlimited.
    pub max_subscriptions: usize,
    /// Longest protocol line after its verb.
    pub max_control_line: usize,
    /// Records kept of closed connections.
    pub max_closed_clients: usize,
    /// Time between two pings of a quiet client.
    pub ping_interval: Duration,
    /// Unanswered pings before a client is stale.
    pub ping_max: u32,
    /// How long one write to a client may take.
    pub write_deadline: Duration,
    /// How long a client may take to log in; see [`Options::auth_timeout`] if absent.
    pub auth_timeout: Option<Duration>,
    /// How long lame duck mode takes to close all clients, the grace period included.
    pub lame_duck_duration: Duration,
    /// How long lame duck mode waits before the first close.
    pub lame_duck_grace_period: Duration,
    /// Drop messages for a consumer that is behind instead of slowing its producers down.
    pub no_fast_producer_stall: bool,

    /// Do not offer headers to clients. Has no effect.
    pub no_header_support: bool,
    /// Do not remember routes. Has no effect.
    pub no_sublist_cache: bool,

    /// Users, accounts and their rights.
    pub access: Access,
    /// Name of the cluster, which subject mappings may depend on.
    pub cluster_name: Option<String>,
    /// TLS for clients.
    pub tls: Option<TlsOptions>,
    /// Take connections in clear beside those with TLS.
    pub allow_non_tls: bool,
    /// A listener for WebSocket.
    pub websocket: Option<WebsocketOptions>,
    /// Port of the monitoring listener with TLS.
    pub https_port: Option<PortSpec>,
    /// Path that monitoring endpoints begin with.
    pub http_base_path: Option<String>,
    /// Connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Log files to keep; 0 = all.
    pub logfile_max_num: usize,
    /// Tokens of a subject that is subscribed to; unlimited if absent.
    pub max_sub_tokens: Option<u8>,
    /// Log every n-th failed attempt to connect to a server for the first time.
    pub connect_error_reports: u32,
    /// Log every n-th failed attempt to connect to a server again.
    pub reconnect_error_reports: u32,
    /// Tags of the server.
    pub server_tags: Vec<String>,
    /// More about the server.
    pub server_metadata: Vec<(String, String)>,

    /// NATS Streaming; off if absent.
    pub streaming: Option<streaming::Options>,

    /// The file that the options come from, if any.
    pub config_file: Option<PathBuf>,
    /// Fingerprint of its values.
    pub config_digest: String,

    /// Processor of each shard, in shard order. A processor may stand here twice.
    pub cores: Vec<usize>,
    /// `cores` was asked for: all of them are run, or none.
    pub cores_are_given: bool,
    /// How long an idle shard polls before it sleeps; 0 = sleep at once.
    pub spin_us: u64,
    /// Entries of each io_uring submission queue.
    pub ring_depth: usize,
    /// Memory registered with io_uring, per shard and ring.
    pub io_memory: usize,
    /// Batches in the ring of each ordered pair of shards.
    pub ring_slots: usize,
    /// Bytes in the ring of each ordered pair of shards.
    pub ring_bytes: usize,
    /// Most bytes of a segment of a log.
    pub segment_size: usize,
    /// Microseconds that the first record of a commit waits for company.
    pub commit_delay_us: u64,
}

/// A port that is given or left to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSpec {
    /// This port.
    Fixed(u16),
    /// Any free port, written `-1`.
    Any,
}

impl PortSpec {
    /// The number to bind: 0 lets the kernel choose.
    pub fn bind_number(self) -> u16 {
        match self {
            Self::Fixed(port) => port,
            Self::Any => 0,
        }
    }
}

/// Text that never appears in a debug dump or a log line.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for comparison with what a client sent.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is a bcrypt hash of the secret.
    pub fn is_bcrypt(&self) -> bool {
        ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| self.0.starts_with(prefix))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".to_owned(),
            port: PortSpec::Fixed(DEFAULT_PORT),
            server_name: None,
            also_listen: Vec::new(),
            client_advertise: None,
            http_host: None,
            http_port: None,
            pid_file: None,
            ports_file_dir: None,
            log_file: None,
            debug: false,
            trace: false,
            logtime: true,
            logtime_utc: false,
            log_size_limit: 0,
            max_traced_msg_len: 0,
            user: None,
            pass: None,
            auth_token: None,
            max_payload: 1 << 20,
            max_pending: 64 << 20,
            max_connections: 65536,
            max_subscriptions: 0,
            max_control_line: 4096,
            max_closed_clients: 10_000,
            ping_interval: Duration::from_secs(120),
            ping_max: 2,
            write_deadline: Duration::from_secs(10),
            auth_timeout: None,
            lame_duck_duration: Duration::from_secs(120),
            lame_duck_grace_period: Duration::from_secs(10),
            no_fast_producer_stall: false,
            no_header_support: false,
            no_sublist_cache: false,
            access: Access::default(),
            cluster_name: None,
            tls: None,
            allow_non_tls: false,
            websocket: None,
            https_port: None,
            http_base_path: None,
            proxy_protocol: false,
            logfile_max_num: 0,
            max_sub_tokens: None,
            connect_error_reports: 3600,
            reconnect_error_reports: 1,
            server_tags: Vec::new(),
            server_metadata: Vec::new(),
            streaming: None,
            config_file: None,
            config_digest: String::new(),
            cores: cpus::allowed().into_iter().take(values::SHARDS_MAX).collect(),
            cores_are_given: false,
            spin_us: 0,
            ring_depth: 512,
            io_memory: 64 << 10,
            ring_slots: 256,
            ring_bytes: 1 << 20,
            segment_size: 64 << 20,
            commit_delay_us: 0,
        }
    }
}

impl Options {
    /// The monitoring address: its own or the clients'.
    pub fn http_host(&self) -> &str {
        self.http_host.as_deref().unwrap_or(&self.host)
    }

    /// How long a client may take to log in: as the options say, or else a second longer than a TLS handshake may take,
    /// or else 2 s.
    #[must_use]
    pub fn auth_timeout(&self) -> Duration {
        let after_handshake = || self.tls.as_ref().map(|tls| tls.timeout() + AUTH_TIME_AFTER_HANDSHAKE);
        self.auth_timeout.or_else(after_handshake).unwrap_or(AUTH_TIME)
    }

    /// Host and port to state in INFO, as far as `client_advertise` gives them.
    ///
    /// # Errors
    /// When it is not `host` or `host:port`.
    pub fn advertised(&self) -> Result<Option<(String, Option<u16>)>, String> {
        let Some(text) = self.client_advertise.as_deref() else { return Ok(None) };
        match advertised(text) {
            Some(address) => Ok(Some(address)),
            None => Err(format!(
                "invalid client_advertise value \"{}\": write host, host:port or [address]:port",
                text.escape_debug()
            )),
        }
    }

    /// Whether clients must begin a TLS handshake.
    #[must_use]
    pub fn requires_tls(&self) -> bool {
        self.tls.is_some() && !self.allow_non_tls
    }

    /// Whether a client must present credentials.
    pub fn auth_required(&self) -> bool {
        self.user.is_some() || self.auth_token.is_some() || self.access.has_users()
    }

    /// Gives options that are zero or empty, where that has no meaning of its own, their defaults, as the reference
    /// does.
    pub fn with_defaults_for_zeroes(mut self) -> Self {
        fn fill<T: PartialEq + Default>(value: &mut T, default: T) {
            if *value == T::default() {
                *value = default;
            }
        }
        let defaults = Self { cores: Vec::new(), ..Self::default() };
        if self.port == PortSpec::Fixed(0) {
            self.port = defaults.port;
        }
        for address in &mut self.also_listen {
            address.port = if address.port == PortSpec::Fixed(0) { defaults.port } else { address.port };
        }
        for port in [&mut self.http_port, &mut self.https_port] {
            *port = port.filter(|port| *port != PortSpec::Fixed(0));
        }
        fill(&mut self.host, defaults.host);
        for name in [&mut self.server_name, &mut self.client_advertise, &mut self.http_host] {
            *name = name.take().filter(|text| !text.is_empty());
        }
        fill(&mut self.max_payload, defaults.max_payload);
        fill(&mut self.max_pending, defaults.max_pending);
        fill(&mut self.max_control_line, defaults.max_control_line);
        fill(&mut self.max_closed_clients, defaults.max_closed_clients);
        fill(&mut self.ping_interval, defaults.ping_interval);
        fill(&mut self.ping_max, defaults.ping_max);
        fill(&mut self.write_deadline, defaults.write_deadline);
        self.auth_timeout = self.auth_timeout.filter(|time| !time.is_zero());
        fill(&mut self.lame_duck_duration, defaults.lame_duck_duration);
        fill(&mut self.lame_duck_grace_period, defaults.lame_duck_grace_period);
        self
    }

    /// Reports every rule these options break. What one flag or key can say wrong by itself was refused when it was
    /// read; here are the bounds and the relations.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        let mut rule = |holds: bool, text: &dyn Fn() -> String| {
            if !holds {
                errors.push(text());
            }
        };
        let (lame_duck, grace) = (self.lame_duck_duration, self.lame_duck_grace_period);
        let too_short = Self::check_lame_duck_duration(lame_duck).err();
        rule(too_short.is_none(), &|| too_short.clone().unwrap_or_default());
        rule(grace < lame_duck, &|| {
            format!(
                "lame duck grace period ({}) should be strictly lower than lame duck duration ({})",
                duration::format(grace),
                duration::format(lame_duck)
            )
        });
        rule(self.max_payload <= i32::MAX as usize, &|| "max_payload value is too big".to_owned());
        rule(self.max_payload <= self.max_pending, &|| {
            format!("max_payload ({}) cannot be higher than max_pending ({})", self.max_payload, self.max_pending)
        });
        let name = self.server_name.as_deref().unwrap_or_default();
        rule(!name.contains(' '), &|| "server name cannot contain spaces".to_owned());
        rule(self.pass.is_none() || self.user.is_some(), &|| {
            "a password without a user name would let everybody in; give the user name too".to_owned()
        });
        let is_empty = |text: &Option<Secret>| text.as_ref().is_some_and(|text| text.expose().is_empty());
        rule(self.user.as_deref() != Some("") && !is_empty(&self.auth_token), &|| {
            "an empty user name or token would let everybody in".to_owned()
        });
        rule((1..=values::SHARDS_MAX).contains(&self.cores.len()), &|| {
            format!("cores must name 1 to {} processors", values::SHARDS_MAX)
        });
        for (name, value, low, high) in [
            ("ring_depth", self.ring_depth as u64, 16, 32_768),
            ("io_memory", self.io_memory as u64, 64 << 10, 1 << 30),
            ("ring_slots", self.ring_slots as u64, 2, 1 << 16),
            ("ring_bytes", self.ring_bytes as u64, 4096, 1 << 30),
            ("spin_us", self.spin_us, 0, 1_000_000),
            ("segment_size", self.segment_size as u64, 1 << 20, 1 << 30),
            ("commit_delay_us", self.commit_delay_us, 0, 1_000_000),
        ] {
            rule((low..=high).contains(&value), &|| format!("{name} ({value}) must be between {low} and {high}"));
        }
        rule(self.ring_slots.is_power_of_two(), &|| format!("ring_slots ({}) must be a power of two", self.ring_slots));
        let listener = self.websocket.as_ref().filter(|websocket| websocket.is_on());
        let of_listener = listener.and_then(|websocket| websocket.tls.as_ref());
        errors
            .extend(self.tls.iter().chain(of_listener).filter_map(TlsOptions::missing_certificate).map(str::to_owned));
        errors.extend(listener.iter().flat_map(|websocket| websocket.check(&self.access)));
        errors.extend(self.advertised().err());
        if self.also_listen.len() > ADDRESSES_MAX {
            errors.push(format!("also_listen names more than {ADDRESSES_MAX} addresses"));
        }
        if let (Some(http), Some(https)) = (self.http_port, self.https_port) {
            errors.push(format!("can't specify both HTTP ({}) and HTTPs ({}) ports", http.shown(), https.shown()));
        } else if self.https_port.is_some() && self.tls.is_none() {
            errors.push("TLS cert and key required for HTTPS".to_owned());
        }
        errors.extend(self.streaming.iter().flat_map(streaming::Options::check));
        errors.extend(self.unenforced());
        errors.extend(self.access.check_system_account().err());
        errors.extend(self.access.operators.errors(&self.access));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// What these options ask for and this version cannot give, where going on without it would leave the server
    /// unprotected or unreachable.
    fn unenforced(&self) -> Vec<String> {
        let mut missing = self.access.unenforced();
        missing.extend(self.websocket.iter().flat_map(WebsocketOptions::unenforced));
        let mut errors: Vec<String> = missing
            .into_iter()
            .map(|what| format!("this version cannot enforce {what}, and does not start without it"))
            .collect();
        if !self.access.operators.are_asked() {
            let named = self.access.no_auth_user.as_deref();
            errors.extend(named.and_then(|name| self.access.check_no_auth_user(name).err()));
        }
        errors
    }

    /// Refuses a lame duck mode that is too short to be gentle.
    pub(super) fn check_lame_duck_duration(time: Duration) -> Result<(), String> {
        if time >= LAME_DUCK_MIN {
            return Ok(());
        }
        Err(format!("invalid lame_duck_duration of {}, minimum is 30 seconds", duration::format(time)))
    }

    /// What is allowed but unwise, one line each.
    pub fn advice(&self, secrets: SecretOrigin) -> Vec<String> {
        let mut lines = Vec::new();
        if self.max_payload > PAYLOAD_WARN_BYTES {
            lines.push(
                "Maximum payloads over 8.00 MB are generally discouraged and could lead to poor performance".to_owned(),
            );
        }
        if self.websocket.as_ref().is_some_and(|websocket| websocket.is_on() && websocket.tls.is_none()) {
            lines.push("Websocket not configured with TLS. DO NOT USE IN PRODUCTION!".to_owned());
        }
        lines.extend(self.access.operators.advice(&self.access));
        let plain = |secret: &Option<Secret>| secret.as_ref().is_some_and(|secret| !secret.is_bcrypt());
        if plain(&self.pass) || plain(&self.auth_token) {
            let who = match secrets {
                SecretOrigin::Flags => "other users of this machine can read them from the process list",
                SecretOrigin::File => "the configuration file should be readable by the server alone",
            };
            lines.push(format!("Plaintext passwords detected: {who}"));
        }
        lines
    }
}

/// How a password came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretOrigin {
    /// As an argument of the process.
    Flags,
    /// From the configuration file.
    File,
}

const LAME_DUCK_MIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults can be run, and every broken rule is reported in one go with the reference's words.
    #[test]
    fn rules() {
        assert_eq!(Options::default().check(), Ok(()));
        let seconds = Duration::from_secs;
        type Change = fn(&mut Options);
        let cases: &[(Change, &[&str])] = &[
            (
                |o| {
                    (o.lame_duck_duration, o.lame_duck_grace_period) =
                        (Duration::from_secs(31), Duration::from_secs(40))
                },
                &["lame duck grace period (40s) should be strictly lower than lame duck duration (31s)"],
            ),
            (
                |o| o.lame_duck_duration = Duration::from_secs(20),
                &["invalid lame_duck_duration of 20s, minimum is 30 seconds"],
            ),
            (
                |o| (o.max_payload, o.max_pending) = (100, 50),
                &["max_payload (100) cannot be higher than max_pending (50)"],
            ),
            (
                |o| {
                    o.server_name = Some("a b".to_owned());
                    o.cores.clear();
                },
                &["server name cannot contain spaces", "cores must name 1 to 64 processors"],
            ),
            (|o| o.ring_slots = 1, &["ring_slots (1) must be between 2 and 65536"]),
            (|o| o.https_port = Some(PortSpec::Any), &["TLS cert and key required for HTTPS"]),
            (
                |o| (o.http_port, o.https_port) = (Some(PortSpec::Fixed(1)), Some(PortSpec::Any)),
                &["can't specify both HTTP (1) and HTTPs (-1) ports"],
            ),
            (
                |o| o.client_advertise = Some("a:b".to_owned()),
                &["invalid client_advertise value \"a:b\": write host, host:port or [address]:port"],
            ),
            (
                |o| o.also_listen = vec![ListenAddress { host: None, port: PortSpec::Any }; 17],
                &["also_listen names more than 16 addresses"],
            ),
            (
                |o| o.pass = Some(Secret::new("x")),
                &["a password without a user name would let everybody in; give the user name too"],
            ),
        ];
        for (change, expected) in cases {
            let mut options = Options::default();
            change(&mut options);
            assert_eq!(options.check().unwrap_err(), *expected);
        }
        let equal = Options { lame_duck_grace_period: seconds(120), ..Options::default() };
        assert!(equal.check().is_err());
    }

    /// A login may take a second longer than the handshake before it, unless the options say how long it may take.
    #[test]
    fn time_for_a_login() {
        let tls = |timeout| Some(TlsOptions { timeout, ..TlsOptions::default() });
        let [half, second] = [500, 1000].map(Duration::from_millis);
        for (tls, given, expected) in [
            (None, None, 2 * second),
            (tls(None), None, 3 * second),
            (tls(Some(half)), None, half + second),
            (tls(Some(10 * second)), Some(7 * second), 7 * second),
            (tls(Some(Duration::ZERO)), Some(Duration::ZERO), 3 * second),
        ] {
            let options = Options { tls, auth_timeout: given, ..Options::default() }.with_defaults_for_zeroes();
            assert_eq!(options.auth_timeout(), expected);
        }
    }

    /// A password is in no dump, and only plain ones are worth a warning.
    #[test]
    fn secrets() {
        let mut options = Options { user: Some("u".into()), pass: Some(Secret::new("hunter2")), ..Options::default() };
        assert!(!format!("{options:?}").contains("hunter2"));
        assert_eq!(
            options.advice(SecretOrigin::Flags),
            ["Plaintext passwords detected: other users of this machine can read them from the process list"]
        );
        options.pass = Some(Secret::new("$2a$11$abcdefghijklmnopqrstuv"));
        assert!(options.advice(SecretOrigin::File).is_empty());
    }
}
