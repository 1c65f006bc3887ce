//! The table of flags, in the order of the help text.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use crate::config::tls::{Certificate, TlsOptions};
use crate::config::values::{boolean, count, count_or_unlimited, memory_size, port, processors, protocol_size, size};
use crate::config::{Options, Secret, duration};

use super::flags::Effect::{Ask, File, Ignored, Set};
use super::flags::{Ask as What, Flag, Section, flag, switch};
use super::streaming;

/// A setter for a field that one of the value notations fills.
macro_rules! set {
    ($field:ident, $read:expr) => {
        Set(|options, text| {
            options.$field = $read(text)?;
            Ok(())
        })
    };
    (some $field:ident, $read:expr) => {
        Set(|options, text| {
            options.$field = Some($read(text)?);
            Ok(())
        })
    };
}

pub(super) const SECTIONS: &[Section] = &[
    Section { title: "Server Options", flags: SERVER },
    Section { title: "Logging Options", flags: LOGGING },
    Section { title: "Limit Options", flags: LIMITS },
    Section { title: "Core Options", flags: CORES },
    Section { title: "JetStream Options", flags: JETSTREAM },
    Section { title: "Streaming Store Options", flags: streaming::FILES },
    Section { title: "Streaming Clustering Options", flags: streaming::CLUSTER },
    // After those two: it ends with the flag that switches off what they switch on.
    Section { title: "Streaming Options", flags: streaming::SERVICE },
    Section { title: "Authorization Options", flags: AUTHORIZATION },
    Section { title: "TLS Options", flags: TLS },
    Section { title: "Cluster Options", flags: CLUSTER },
    Section { title: "Profiling Options", flags: PROFILING },
    Section { title: "Common Options", flags: COMMON },
];

const SERVER: &[Flag] = &[
    flag(&["-a", "--addr", "--net"], "host", "Bind to host address (default: 0.0.0.0)", set!(host, text)),
    flag(&["-p", "--port"], "port", "Use port for clients, -1 for a random one (default: 4222)", set!(port, port)),
    flag(
        &["-n", "--name", "--server_name"],
        "server_name",
        "Server name (default: auto)",
        set!(some server_name, text),
    ),
    flag(&["-P", "--pid"], "file", "File to store PID", set!(some pid_file, path)),
    flag(&["-m", "--http_port"], "port", "Use port for http monitoring", set!(some http_port, port)),
    flag(&["-ms", "--https_port"], "port", "Use port for https monitoring", set!(some https_port, port)),
    flag(&["-c", "--config"], "file", "Configuration file", File),
    switch(&["-t"], "Test configuration and exit", Ask(What::TestConfig)),
    switch(&["--sample_config"], "Print a commented configuration file with all keys", Ask(What::SampleConfig)),
    flag(
        &["-sl", "--signal"],
        "signal>[=<pid>",
        "Send signal to leat process (ldm, stop, quit, term, reopen, reload)\n\
         <pid> can be either a PID (e.g. 1) or the path to a PID file (e.g. /var/run/leat.pid)",
        Ask(What::Signal),
    ),
    flag(
        &["--client_advertise"],
        "string",
        "Client URL to advertise to other servers",
        set!(some client_advertise, text),
    ),
    flag(
        &["--ports_file_dir"],
        "dir",
        "Creates a ports file in the specified directory (nats-server_<pid>.ports)",
        set!(some ports_file_dir, path),
    ),
];

const LOGGING: &[Flag] = &[
    flag(&["-l", "--log"], "file", "File to redirect log output", set!(some log_file, path)),
    switch(&["-T", "--logtime"], "Timestamp log entries (default: true)", set!(logtime, boolean)),
    switch(
        &["--logtime_utc"],
        "Timestamps in UTC instead of local timezone (default: false)",
        set!(logtime_utc, boolean),
    ),
    switch(&["-s", "--syslog"], "Log to syslog", Ignored("syslog output is not available; logging as without it")),
    flag(
        &["-r", "--remote_syslog"],
        "addr",
        "Syslog server addr (udp://localhost:514)",
        Ignored("remote syslog output is not available; logging as without it"),
    ),
    switch(&["-D", "--debug"], "Enable debugging output", set!(debug, boolean)),
    switch(&["-V", "--trace"], "Trace the raw protocol", set!(trace, boolean)),
    switch(
        &["-VV"],
        "Trace (would add the system account, of which there is none in this version)",
        Set(|options, text| {
            options.trace |= boolean(text)?;
            Ok(())
        }),
    ),
    switch(&["-DV"], "Debug and trace", Set(debug_and_trace)),
    switch(&["-DVV"], "Debug and trace (as -VV)", Set(debug_and_trace)),
    flag(
        &["--log_size_limit"],
        "limit",
        "Logfile size at which it is rotated (default: never)",
        set!(log_size_limit, size),
    ),
    flag(
        &["--max_traced_msg_len"],
        "len",
        "Maximum printable length for traced messages (default: unlimited)",
        set!(max_traced_msg_len, count_or_unlimited),
    ),
];

const LIMITS: &[Flag] = &[
    flag(&["--max_payload"], "size", "Largest message (default: 1MiB)", set!(max_payload, protocol_size)),
    flag(
        &["--max_pending"],
        "size",
        "Bytes queued towards a client before it is cut off (default: 64MiB)",
        set!(max_pending, memory_size),
    ),
    flag(&["--max_connections"], "number", "Client connections (default: 65536)", set!(max_connections, count)),
    flag(
        &["--max_subscriptions"],
        "number",
        "Subscriptions of one connection (default: unlimited)",
        set!(max_subscriptions, count_or_unlimited),
    ),
    flag(
        &["--max_control_line"],
        "size",
        "Longest protocol line (default: 4096)",
        set!(max_control_line, protocol_size),
    ),
    flag(
        &["--max_closed_clients"],
        "number",
        "Records kept of closed connections (default: 10000)",
        set!(max_closed_clients, count),
    ),
    flag(
        &["--ping_interval"],
        "duration",
        "Time between pings of a quiet client (default: 2m)",
        set!(ping_interval, duration::parse),
    ),
    flag(
        &["--ping_max"],
        "number",
        "Unanswered pings before a client is stale (default: 2)",
        set!(ping_max, |text| u32::try_from(count(text)?).map_err(|_| "too large".to_owned())),
    ),
    flag(
        &["--write_deadline"],
        "duration",
        "How long one write to a client may take (default: 10s)",
        set!(write_deadline, duration::parse),
    ),
    flag(
        &["--auth_timeout"],
        "duration",
        "How long a client may take to log in (default: 2s; with TLS 1s more than a handshake)",
        set!(some auth_timeout, duration::parse),
    ),
    flag(
        &["--lame_duck_duration"],
        "duration",
        "How long lame duck mode takes to close all clients (default: 2m)",
        set!(lame_duck_duration, duration::parse),
    ),
    flag(
        &["--lame_duck_grace_period"],
        "duration",
        "How long lame duck mode waits before the first close (default: 10s)",
        set!(lame_duck_grace_period, duration::parse),
    ),
    switch(
        &["--no_fast_producer_stall"],
        "Drop messages for slow consumers instead of slowing producers down (default: false)",
        set!(no_fast_producer_stall, boolean),
    ),
];

const CORES: &[Flag] = &[
    flag(
        &["--cores"],
        "list",
        "Processors to run a shard on, e.g. 0-7 or 0,2,4-5 (default: all allowed)",
        Set(|options, text| {
            (options.cores, options.cores_are_given) = (processors(text)?, true);
            Ok(())
        }),
    ),
    flag(
        &["--spin_us"],
        "number",
        "Microseconds an idle shard polls before it sleeps (default: 0)",
        set!(spin_us, size),
    ),
    flag(&["--ring_depth"], "number", "Entries of each io_uring (default: 512)", set!(ring_depth, count)),
    flag(
        &["--io_memory"],
        "size",
        "Memory registered with io_uring per shard and ring (default: 256KiB)",
        set!(io_memory, memory_size),
    ),
    flag(&["--segment_size"], "size", "Largest log segment", Ignored(NO_STORE)),
    flag(&["--commit_delay_us"], "number", "Microseconds a commit waits for company", Ignored(NO_STORE)),
    flag(&["--ring_slots"], "number", "Batches between each pair of shards (default: 256)", set!(ring_slots, count)),
    flag(&["--ring_bytes"], "size", "Bytes between each pair of shards (default: 1MiB)", set!(ring_bytes, memory_size)),
];

const JETSTREAM: &[Flag] = &[
    switch(&["-js", "--jetstream"], "Enable JetStream functionality", Ignored(NO_JETSTREAM)),
    flag(&["-sd", "--store_dir"], "dir", "Set the storage directory", Ignored(NO_STORE)),
];

const AUTHORIZATION: &[Flag] = &[
    flag(&["--user"], "user", "User required for connections", set!(some user, credential)),
    flag(&["--pass"], "password", "Password required for connections", set!(some pass, secret)),
    flag(&["--auth"], "token", "Authorization token required for connections", set!(some auth_token, token)),
];

const TLS: &[Flag] = &[
    switch(
        &["--tls"],
        "Enable TLS, do not verify clients (default: false)",
        Set(|options, text| {
            if boolean(text)? {
                tls(options);
            } else {
                options.tls = None;
            }
            Ok(())
        }),
    ),
    flag(
        &["--tlscert"],
        "file",
        "Server certificate file",
        Set(|options, text| {
            certificate(options).cert_file = path(text)?;
            Ok(())
        }),
    ),
    flag(
        &["--tlskey"],
        "file",
        "Private key for server certificate",
        Set(|options, text| {
            certificate(options).key_file = path(text)?;
            Ok(())
        }),
    ),
    switch(
        &["--tlsverify"],
        "Enable TLS, verify client certificates",
        Set(|options, text| {
            if boolean(text)? {
                tls(options).verify = true;
            } else if let Some(tls) = &mut options.tls {
                tls.verify = false;
            }
            Ok(())
        }),
    ),
    flag(
        &["--tlscacert"],
        "file",
        "Client certificate CA for verification",
        Set(|options, text| {
            tls(options).ca_file = Some(path(text)?);
            Ok(())
        }),
    ),
];

fn tls(options: &mut Options) -> &mut TlsOptions {
    options.tls.get_or_insert_default()
}

/// The one certificate that flags can give.
fn certificate(options: &mut Options) -> &mut Certificate {
    let certificates = &mut tls(options).certificates;
    certificates.truncate(1);
    if certificates.is_empty() {
        certificates.push(Certificate::default());
    }
    &mut certificates[0]
}

const CLUSTER: &[Flag] = &[
    flag(&["--routes"], "rurl-1, rurl-2", "Routes to solicit and connect", Ignored(NO_CLUSTER)),
    flag(&["--cluster"], "cluster-url", "Cluster URL for solicited routes", Ignored(NO_CLUSTER)),
    flag(
        &["--cluster_name"],
        "string",
        "Cluster Name, if not set one will be dynamically generated",
        Ignored(NO_CLUSTER),
    ),
    switch(&["--no_advertise"], "Do not advertise known cluster information to clients", Ignored(NO_CLUSTER)),
    flag(&["--cluster_advertise"], "string", "Cluster URL to advertise to other servers", Ignored(NO_CLUSTER)),
    flag(&["--connect_retries"], "number", "For implicit routes, number of connect retries", Ignored(NO_CLUSTER)),
    flag(&["--cluster_listen"], "url", "Cluster url from which members can solicit routes", Ignored(NO_CLUSTER)),
];

const PROFILING: &[Flag] =
    &[flag(&["--profile"], "port", "Profiling HTTP port", Ignored("there is no profiling port in this version"))];

const COMMON: &[Flag] = &[
    switch(&["-h", "--help"], "Show this message", Ask(What::Help)),
    switch(&["-v", "--version"], "Show version", Ask(What::Version)),
    switch(&["--help_tls"], "TLS help", Ask(What::HelpTls)),
];

const NO_JETSTREAM: &str = "JetStream is not available in this version";
const NO_STORE: &str = "nothing is stored in this version";
const NO_CLUSTER: &str = "clustering is not available in this version; the server runs alone";

fn debug_and_trace(options: &mut Options, text: &str) -> Result<(), String> {
    if boolean(text)? {
        (options.debug, options.trace) = (true, true);
    }
    Ok(())
}

fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("an empty path".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// An empty user name or token, perhaps from an unset variable in a script, would switch authentication off.
fn credential(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("empty, which would let everybody in".to_owned());
    }
    Ok(text.to_owned())
}

fn token(text: &str) -> Result<Secret, String> {
    credential(text).map(Secret::new)
}

fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}
