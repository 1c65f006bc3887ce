//! The keys at the top level of a configuration file, and those of the `leat` block.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::grammar::{Map, Value};
use super::later::{self, cluster, gateway, jetstream, leafnodes, mqtt};
use super::reload::Shown as _;
use super::schema::{Compare, Item, Key, KeyChange, Reading, Row, Verdict, compare, items, rows, switch};
use super::tls::Place;
use super::{
    Options, Secret, accounts, authorization, mappings, operators, read, reload, streaming, tls, values, websocket,
};

/// Sets a field from an integer.
macro_rules! number {
    ($names:expr, $default:expr, $help:expr, $field:ident, $read:expr) => {
        Key::<Options>::integer($names, $default, $help, |options, number| {
            options.$field = $read(number)?;
            Ok(())
        })
        .compared(compare!($field))
    };
}

/// Sets an optional text field.
macro_rules! text {
    ($names:expr, $default:expr, $help:expr, $($field:ident).+) => {
        Key::<Options>::text($names, $default, $help, |options, text| {
            options.$($field).+ = Some(text.to_owned());
            Ok(())
        })
        .compared(compare!($($field).+))
    };
}

/// Sets an optional path; the empty text means none.
macro_rules! path {
    ($names:expr, $default:expr, $help:expr, $field:ident) => {
        Key::<Options>::text($names, $default, $help, |options, text| {
            options.$field = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        })
        .compared(compare!($field))
    };
}

/// Sets a duration field.
macro_rules! time {
    ($names:expr, $default:expr, $help:expr, $field:ident) => {
        Key::<Options>::duration($names, $default, $help, |options, time| options.$field = time)
            .compared(compare!($field))
    };
}

/// A section of the sample file.
pub(super) struct Section {
    pub(super) title: &'static str,
    keys: &'static [Key<Options>],
}

impl Section {
    pub(super) fn rows(&self) -> Vec<Row> {
        rows(self.keys)
    }
}

pub(super) const SECTIONS: &[Section] = &[
    Section { title: "Addresses", keys: ADDRESSES },
    Section { title: "Logging", keys: LOGGING },
    Section { title: "Limits", keys: LIMITS },
    Section { title: "Who may connect", keys: ACCESS },
    Section { title: "Cores", keys: CORES },
    Section { title: "Streams and other servers", keys: FEATURES },
];

/// Reads the top level.
pub(super) fn keys(map: &Map, reading: &mut Reading, options: &mut Options) {
    let tables = tables();
    for item in items(map) {
        if !reading.key(&item, &tables, options) {
            let hint = if streaming::is_key(item.key) { STREAMING_HINT } else { "" };
            reading.unknown("", &item, hint);
        }
    }
}

/// Reads the top level of a file that serves NATS Streaming too: a key that does not stand in a table of this server
/// may be one of the `streaming` block.
pub(super) fn keys_with_streaming(map: &Map, reading: &mut Reading, options: &mut Options) {
    let tables = tables();
    for item in items(map) {
        let is_known = reading.key(&item, &tables, options)
            || streaming::key(&item, reading, options.streaming.get_or_insert_default());
        if !is_known {
            reading.unknown("", &item, "");
        }
    }
}

fn tables() -> Vec<&'static [Key<Options>]> {
    SECTIONS.iter().map(|section| section.keys).collect()
}

const STREAMING_HINT: &str =
    "; as a setting of NATS Streaming it belongs into the block \"streaming\", or into a file given with -sc";

/// What is another value in `new`, in the order of the tables.
pub(super) fn changes(old: &Options, new: &Options) -> Vec<KeyChange> {
    let keys = SECTIONS.iter().flat_map(|section| section.keys).chain(LEAT);
    keys.filter_map(|key| key.change(old, new)).collect()
}

const ADDRESSES: &[Key<Options>] = &[
    Key::<Options>::other(
        &["listen"],
        "port or \"host:port\"",
        "\"0.0.0.0:4222\"",
        "Address to listen on for clients",
        |options, item, _| {
            let (host, port) = read::address(item.node)?;
            options.port = port;
            if let Some(host) = host {
                options.host = host;
            }
            Ok(())
        },
    ),
    Key::<Options>::text(&["host", "net"], "\"0.0.0.0\"", "Host to listen on for clients", |options, text| {
        options.host = text.to_owned();
        Ok(())
    })
    .compared(compare!(host))
    .field("Host"),
    number!(&["port"], "4222", "Port to listen on for clients, -1 for a random one", port, read::port).field("Port"),
    Key::<Options>::text(&["server_name"], "\"\"", "Name of the server; its id if empty", |options, text| {
        if text.contains(' ') {
            return Err("server name cannot contain spaces".to_owned());
        }
        options.server_name = Some(text.to_owned());
        Ok(())
    })
    .compared(compare!(server_name))
    .field("ServerName"),
    text!(
        &["client_advertise"],
        "\"\"",
        "host[:port] to tell clients instead of the address listened on",
        client_advertise
    )
    .live(),
    Key::<Options>::other(
        &["http"],
        "port or \"host:port\"",
        "\"127.0.0.1:8222\"",
        "Address of the monitoring listener; off if absent",
        |options, item, _| {
            let (host, port) = read::address(item.node)?;
            options.http_port = Some(port);
            if host.is_some() {
                options.http_host = host;
            }
            Ok(())
        },
    )
    .compared(compare!(http_port))
    .field("HTTPPort"),
    Key::<Options>::integer(
        &["http_port", "monitor_port"],
        "8222",
        "Port of the monitoring listener",
        |options, number| {
            options.http_port = Some(read::port(number)?);
            Ok(())
        },
    )
    .compared(compare!(http_host))
    .field("HTTPHost"),
    Key::<Options>::other(
        &["https"],
        "port or \"host:port\"",
        "8443",
        "Address of the monitoring listener with TLS",
        |options, item, _| {
            let (host, port) = read::address(item.node)?;
            options.https_port = Some(port);
            if host.is_some() {
                options.http_host = host;
            }
            Ok(())
        },
    ),
    Key::<Options>::integer(&["https_port"], "8443", "Port of the monitoring listener with TLS", |options, number| {
        options.https_port = Some(read::port(number)?);
        Ok(())
    })
    .compared(compare!(https_port))
    .field("HTTPSPort"),
    text!(&["http_base_path"], "\"/\"", "Path that monitoring endpoints begin with", http_base_path)
        .field("HTTPBasePath"),
    path!(&["pid_file", "pidfile"], "\"\"", "File for the process id", pid_file).live(),
    path!(&["ports_file_dir"], "\"\"", "Directory for a file that lists the ports in use", ports_file_dir).live(),
    Key::<Options>::other(
        &["server_tags"],
        "string or array of strings",
        "[]",
        "Tags of the server",
        |options, item, _| {
            options.server_tags = read::texts(item.node)?;
            Ok(())
        },
    )
    .compared(compare!(server_tags))
    .live()
    .without_effect(),
    Key::<Options>::other(&["server_metadata"], "map of strings", "{}", "More about the server", |options, item, _| {
        options.server_metadata = read::map_of_texts(item.node)?;
        Ok(())
    })
    .compared(compare!(server_metadata))
    .live()
    .without_effect(),
    switch!(&["proxy_protocol"], "false", "Connections begin with a PROXY protocol header", proxy_protocol)
        .field("ProxyProtocol"),
    Key::<Options>::integer(&["prof_port"], "0", "Port for profiling", |_, number| read::port(number).map(drop))
        .without_effect(),
    Key::<Options>::integer(&["prof_block_rate"], "0", "Rate of the blocking profile", |_, _| Ok(())).without_effect(),
];

const LOGGING: &[Key<Options>] = &[
    switch!(&["debug"], "false", "Write debug lines", debug).live(),
    switch!(&["trace"], "false", "Write the raw protocol", trace).live(),
    Key::<Options>::boolean(&["trace_verbose"], "false", "Trace the system account as well", |_, _| ())
        .live()
        .without_effect(),
    Key::<Options>::boolean(&["trace_headers"], "false", "Trace headers only", |_, _| ()).live().without_effect(),
    switch!(&["logtime"], "true", "Put the time into log lines", logtime).live(),
    switch!(&["logtime_utc"], "false", "Log times in UTC", logtime_utc).live(),
    path!(&["log_file", "logfile"], "\"\"", "Log file; standard error if empty", log_file).live(),
    number!(
        &["logfile_size_limit", "log_size_limit"],
        "0",
        "Rotate the log file when it exceeds this size; 0 means never",
        log_size_limit,
        |number| or_zero(number).map(|limit| limit as u64)
    )
    .field("LogSizeLimit"),
    Key::<Options>::integer(
        &["logfile_max_num", "log_max_num"],
        "0",
        "Log files to keep; 0 means all",
        |options, number| {
            options.logfile_max_num = or_zero(number)?;
            Ok(())
        },
    )
    .compared(compare!(logfile_max_num))
    .field("LogMaxFiles"),
    Key::<Options>::boolean(&["syslog"], "false", "Log to syslog", |_, _| ()).live().without_effect(),
    Key::<Options>::text(&["remote_syslog"], "\"\"", "Syslog server, udp://host:514", |_, _| Ok(()))
        .live()
        .without_effect(),
    number!(
        &["max_traced_msg_len"],
        "0",
        "Bytes of a payload shown in a trace line; 0 means all",
        max_traced_msg_len,
        or_zero
    )
    .live(),
    number!(
        &["connect_error_reports"],
        "3600",
        "Log every n-th failed attempt to connect to a server for the first time",
        connect_error_reports,
        u32_value
    )
    .live()
    .without_effect(),
    number!(
        &["reconnect_error_reports"],
        "1",
        "Log every n-th failed attempt to connect to a server again",
        reconnect_error_reports,
        u32_value
    )
    .live()
    .without_effect(),
];

const LIMITS: &[Key<Options>] = &[
    number!(&["max_payload"], "1MB", "Largest message, headers included", max_payload, protocol_size).live(),
    number!(&["max_pending"], "64MB", "Bytes queued towards a client before it is cut off", max_pending, read::count)
        .field("MaxPending"),
    number!(&["max_connections", "max_conn"], "65536", "Client connections; 0 refuses all", max_connections, or_zero)
        .live(),
    number!(
        &["max_subscriptions", "max_subs"],
        "0",
        "Subscriptions of one connection; 0 means unlimited",
        max_subscriptions,
        or_zero
    )
    .field("MaxSubs"),
    Key::<Options>::integer(
        &["max_sub_tokens", "max_subscription_tokens"],
        "255",
        "Tokens of a subject that is subscribed to",
        |options, number| {
            options.max_sub_tokens = match number {
                1..=255 => u8::try_from(number).ok(),
                ..1 => return Err("the value can not be negative or zero".to_owned()),
                _ => return Err("the value is too big".to_owned()),
            };
            Ok(())
        },
    )
    .compared(compare!(max_sub_tokens))
    .field("MaxSubTokens"),
    number!(&["max_control_line"], "4KB", "Longest protocol line after its verb", max_control_line, protocol_size)
        .live(),
    number!(&["max_closed_clients"], "10000", "Records kept of closed connections", max_closed_clients, read::count)
        .field("MaxClosedClients"),
    time!(&["ping_interval"], "\"2m\"", "Time between pings of a quiet client", ping_interval).live(),
    number!(&["ping_max"], "2", "Unanswered pings before a client is stale", ping_max, u32_value).live(),
    time!(&["write_deadline"], "\"10s\"", "How long one write to a client may take", write_deadline).live(),
    Key::<Options>::text(&["write_timeout"], "default", "What follows a write that took too long", |_, text| {
        later::policy(text)
    })
    .without_effect(),
    switch!(
        &["no_fast_producer_stall"],
        "false",
        "Drop messages for slow consumers instead of slowing producers down",
        no_fast_producer_stall
    )
    .live(),
    Key::<Options>::other(
        &["lame_duck_duration"],
        "duration",
        "\"2m\"",
        "How long lame duck mode takes to close all clients, at least 30s",
        |options, item, _| {
            options.lame_duck_duration = read::duration_text(read::text(item.node)?)?;
            Options::check_lame_duck_duration(options.lame_duck_duration)
        },
    )
    .compared(compare!(lame_duck_duration))
    .field("LameDuckDuration"),
    time!(
        &["lame_duck_grace_period"],
        "\"10s\"",
        "How long lame duck mode waits before the first close",
        lame_duck_grace_period
    )
    .field("LameDuckGracePeriod"),
    switch!(&["disable_sublist_cache", "no_sublist_cache"], "false", "Do not remember routes", no_sublist_cache)
        .field("NoSublistCache")
        .without_effect(),
    switch!(&["no_header_support"], "false", "Do not offer headers to clients", no_header_support)
        .field("NoHeaderSupport")
        .without_effect(),
    Key::<Options>::other(
        &["feature_flags"],
        "map of booleans",
        "{}",
        "Behaviour that is switched on early",
        |_, item, _| match &item.node.value {
            Value::Map(map) => map.entries().try_for_each(|(_, entry)| read::boolean(&entry.node).map(drop)),
            other => Err(format!("expected feature_flags to be a map, got {}", other.kind())),
        },
    )
    .without_effect(),
];

const ACCESS: &[Key<Options>] = &[
    Key::<Options>::block(
        &["authorization"],
        "One user, a token, or users with permissions",
        |options, item, map, reading| {
            let block = authorization::block(item, map, reading);
            (options.user, options.pass, options.auth_token) = (block.user, block.pass, block.token);
            if let Some(timeout) = block.timeout {
                options.auth_timeout = Some(timeout);
            }
            options.access.users = block.users;
            options.access.default_permissions = block.default_permissions;
            options.access.callout = block.callout;
            options.access.proxy_required = block.proxy_required;
        },
        || rows(authorization::KEYS),
    )
    .compared(Compare { differ: |old, new| !reload::authorization(old, new).is_empty(), show: |_| String::new() })
    .live(),
    text!(&["no_auth_user"], "guest", "The user that connections without credentials become", access.no_auth_user)
        .field("NoAuthUser"),
    Key::<Options>::other(
        &["accounts"],
        "map of accounts",
        "{ APP: { users: [] } }",
        "Accounts, subject spaces of their own",
        |options, item, reading| {
            options.access.accounts = accounts::accounts(item, reading)?;
            Ok(())
        },
    )
    .compared(Compare { differ: |old, new| old.access.accounts != new.access.accounts, show: |_| String::new() })
    .entries(accounts::account_rows)
    .live(),
    Key::<Options>::other(
        &["mappings", "maps"],
        "map",
        "{ \"a.*\": \"b.$1\" }",
        "What published subjects become",
        |options, item, reading| {
            options.access.mappings = mappings::mappings(item, reading)?;
            Ok(())
        },
    )
    .compared(Compare { differ: |old, new| old.access.mappings != new.access.mappings, show: |_| String::new() })
    .live(),
    text!(&["system_account", "system"], "\"$SYS\"", "Name of the system account", access.system_account)
        .field("SystemAccount")
        .without_effect(),
    switch!(
        &["no_system_account", "no_system", "no_sys_acc"],
        "false",
        "Have no system account",
        access.no_system_account
    )
    .field("NoSystemAccount")
    .without_effect(),
    Key::<Options>::block(
        &["tls"],
        "TLS for clients",
        |options, item, map, reading| options.tls = Some(tls::options(item, map, Place::Clients, reading)),
        tls::tls_rows,
    )
    .compared(Compare {
        differ: |old, new| old.tls != new.tls || reload::websocket_tls(old) != reload::websocket_tls(new),
        show: |_| String::new(),
    })
    .live(),
    switch!(&["allow_non_tls"], "false", "Take connections in clear beside those with TLS", allow_non_tls)
        .field("AllowNonTLS"),
    Key::<Options>::other(&["ocsp"], "boolean or map", "false", "Staple revocation state", |_, item, _| {
        boolean_or_map(item)
    })
    .of("OCSP"),
    Key::<Options>::other(&["ocsp_cache"], "boolean or map", "false", "Keep revocation states", |_, item, _| {
        boolean_or_map(item)
    })
    .of("OCSP"),
    Key::<Options>::block(
        &["websocket", "ws"],
        "A listener for NATS over WebSocket",
        |options, _, map, reading| options.websocket = Some(websocket::options(map, reading)),
        websocket::websocket_rows,
    )
    .compared(Compare {
        differ: |old, new| reload::websocket_without_tls(old) != reload::websocket_without_tls(new),
        show: |options| format!("{:?}", reload::websocket_without_tls(options)),
    })
    .field("Websocket"),
    Key::<Options>::block(
        &["proxies"],
        "Proxies that connections may come through",
        |_, _, map, reading| reading.keys(map, PROXIES, &mut ()),
        || rows(PROXIES),
    )
    .live()
    .without_effect(),
    Key::<Options>::other(
        &["operator", "operators", "roots", "root", "root_operator", "root_operators"],
        "string or array of strings",
        "\"operator.jwt\"",
        "JWT of the operator on whose behalf users are signed, or a file with it",
        |options, item, _| {
            options.access.operators.operators = operators::operators(item)?;
            Ok(())
        },
    )
    .compared(Compare {
        differ: |old, new| old.access.operators.operators != new.access.operators.operators,
        show: |options| {
            let operators = options.access.operators.operators.iter();
            operators.map(|operator| operator.subject.clone()).collect::<Vec<_>>().shown()
        },
    })
    .field("TrustedOperators"),
    Key::<Options>::other(
        &["trusted_keys", "trusted"],
        "string or array of strings",
        "\"O…\"",
        "Public nkeys of operators, instead of their JWTs",
        |options, item, _| {
            options.access.operators.trusted_keys = operators::trusted_keys(item)?;
            Ok(())
        },
    )
    .compared(compare!(access.operators.trusted_keys))
    .field("TrustedKeys"),
    Key::<Options>::other(
        &["resolver", "account_resolver", "accounts_resolver"],
        "MEMORY, URL(…), or map",
        "MEMORY",
        "Where the JWTs of accounts come from; in this version it must be MEMORY",
        |options, item, reading| {
            options.access.operators.resolver = Some(operators::resolver(item, reading)?);
            Ok(())
        },
    )
    .compared(Compare {
        differ: |old, new| old.access.operators.resolver != new.access.operators.resolver,
        show: |options| format!("{:?}", options.access.operators.resolver),
    })
    .field("AccountResolver"),
    Key::<Options>::other(
        &["resolver_preload"],
        "map of strings",
        "{ \"A…\": \"eyJ…\" }",
        "JWTs of accounts, each under the account's public nkey",
        |options, item, _| {
            options.access.operators.preload = operators::preload(item)?;
            Ok(())
        },
    )
    .compared(Compare {
        differ: |old, new| old.access.operators.preload != new.access.operators.preload,
        show: |_| String::new(),
    })
    .live(),
    Key::<Options>::block(
        &["resolver_tls"],
        "TLS to the resolver",
        |_, item, map, reading| drop(tls::options(item, map, Place::Clients, reading)),
        Vec::new,
    )
    .of("resolving accounts over TLS"),
    Key::<Options>::other(
        &["resolver_pinned_accounts"],
        "string or array of strings",
        "[]",
        "The only accounts whose users may log in; all if there are none",
        |options, item, _| {
            options.access.operators.pinned_accounts = read::texts(item.node)?;
            Ok(())
        },
    )
    .compared(compare!(access.operators.pinned_accounts))
    .live(),
    Key::<Options>::text(
        &["default_sentinel"],
        "\"eyJ…\"",
        "User JWT, a bearer token, of clients that have none",
        |options, text| {
            options.access.operators.default_sentinel = (!text.is_empty()).then(|| Secret::new(text));
            Ok(())
        },
    )
    .compared(Compare {
        differ: |old, new| old.access.operators.default_sentinel != new.access.operators.default_sentinel,
        show: |_| String::new(),
    })
    .live(),
];

const PROXIES: &[Key<()>] =
    &[Key::other(&["trusted"], "array of { key }", "[]", "Public nkeys of proxies", |(), item, reading| {
        let Value::Array(nodes) = &item.node.value else {
            return Err(format!("expected trusted to be an array, got {}", item.node.value.kind()));
        };
        for node in nodes {
            match &node.value {
                Value::Map(map) => reading.keys(map, PROXY, &mut ()),
                other => return Err(format!("expected a trusted proxy to be a map, got {}", other.kind())),
            }
        }
        Ok(())
    })];

const PROXY: &[Key<()>] =
    &[Key::text(&["key"], "\"U…\"", "Public nkey", |(), text| match nkeys::KeyPair::from_public_key(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("invalid proxy key \"{}\"", text.escape_debug())),
    })];

const CORES: &[Key<Options>] = &[Key::block(
    &["leat"],
    "Settings that the reference server does not have",
    |options, _, map, reading| reading.keys(map, LEAT, options),
    || rows(LEAT),
)];

const LEAT: &[Key<Options>] = &[
    Key::<Options>::other(
        &["also_listen"],
        "array of ports or \"host:port\"",
        "[ \"10.0.0.1:4222\", \"[fd00::1]:4222\" ]",
        "More addresses to listen on for clients",
        |options, item, _| {
            options.also_listen = read::addresses(item.node)?;
            Ok(())
        },
    )
    .compared(compare!(also_listen)),
    Key::<Options>::other(
        &["cores"],
        "number or list",
        "\"0-7\"",
        "Processors to run a shard on, such as \"0-7\" or \"0,2,4-5\"; all if absent",
        |options, item, _| {
            options.cores = match &item.node.value {
                Value::Integer(cpu) => values::processors(&cpu.to_string())?,
                _ => values::processors(read::text(item.node)?)?,
            };
            options.cores_are_given = true;
            Ok(())
        },
    )
    .compared(Compare {
        differ: |old: &Options, new| old.cores != new.cores,
        show: |options| values::format_processors(&options.cores),
    }),
    number!(&["spin_us"], "0", "Microseconds an idle shard polls before it sleeps", spin_us, u64_value),
    number!(&["ring_depth"], "512", "Entries of each io_uring", ring_depth, read::count),
    number!(&["io_memory"], "64KB", "Memory registered with io_uring per shard and ring", io_memory, read::count),
    number!(&["segment_size"], "64MB", "Largest log segment", segment_size, read::count),
    number!(&["commit_delay_us"], "0", "Microseconds a commit waits for company", commit_delay_us, u64_value),
    number!(&["ring_slots"], "256", "Batches between each pair of shards", ring_slots, read::count),
    number!(&["ring_bytes"], "1MB", "Bytes between each pair of shards", ring_bytes, read::count),
];

const FEATURES: &[Key<Options>] = &[
    Key::<Options>::other(&["jetstream"], "boolean, enabled, or map", "enabled", "Streams", |_, item, reading| {
        jetstream::check(item, reading)
    })
    .entries(jetstream::jetstream_rows)
    .of(jetstream::FEATURE),
    Key::<Options>::text(&["store_dir", "storedir"], "\"/var/lib/leat\"", "Directory of streams", |_, _| Ok(()))
        .of(jetstream::FEATURE),
    Key::<Options>::other(
        &["default_js_domain"],
        "map of strings",
        "{}",
        "JetStream domains of accounts",
        |_, item, _| read::map_of_texts(item.node).map(drop),
    )
    .of(jetstream::FEATURE),
    Key::<Options>::block(
        &["cluster"],
        "Routes to the other servers of a cluster",
        |options, _, map, reading| options.cluster_name = cluster::check(map, reading),
        cluster::cluster_rows,
    )
    .compared(Compare { differ: |old, new| old.cluster_name != new.cluster_name, show: |_| String::new() })
    .live()
    .of(cluster::FEATURE),
    Key::<Options>::block(
        &["gateway"],
        "Connections to other clusters",
        |_, _, map, reading| gateway::check(map, reading),
        gateway::gateway_rows,
    )
    .of(gateway::FEATURE),
    Key::<Options>::block(
        &["leafnodes", "leaf"],
        "Servers that join accounts of this one, or that this one joins",
        |_, _, map, reading| leafnodes::check(map, reading),
        leafnodes::leafnode_rows,
    )
    .of(leafnodes::FEATURE),
    Key::<Options>::block(
        streaming::BLOCK,
        "NATS Streaming, which is off without this block and without flags of its own",
        |options, _, map, reading| streaming::block(map, reading, options.streaming.get_or_insert_default()),
        streaming::streaming_rows,
    ),
    Key::<Options>::block(
        &["mqtt"],
        "A listener for MQTT",
        |_, _, map, reading| mqtt::check(map, reading),
        mqtt::mqtt_rows,
    )
    .of(mqtt::FEATURE),
];

fn boolean_or_map(item: &Item<'_>) -> Verdict {
    match &item.node.value {
        Value::Boolean(_) | Value::Map(_) => Ok(()),
        Value::Text(text) if item.key.eq_ignore_ascii_case("ocsp_cache") => {
            Err(format!("expected {} to be a boolean or a map, got \"{text}\"", item.key))
        }
        other => Err(format!("expected {} to be a boolean or a map, got {}", item.key, other.kind())),
    }
}

/// A negative number counts as zero.
fn or_zero(number: i64) -> Result<usize, String> {
    Ok(usize::try_from(number).unwrap_or(0))
}

fn u32_value(number: i64) -> Result<u32, String> {
    u32::try_from(number).map_err(|_| format!("{number} is out of range"))
}

fn u64_value(number: i64) -> Result<u64, String> {
    u64::try_from(number).map_err(|_| format!("{number} is negative"))
}

/// A size that must fit into the 31 bits the protocol's sizes have.
fn protocol_size(number: i64) -> Result<usize, String> {
    match i32::try_from(number) {
        Ok(size) => read::count(size.into()),
        Err(_) if number > 0 => Err("the value is too big".to_owned()),
        Err(_) => Err(format!("{number} is negative")),
    }
}
