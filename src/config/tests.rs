//! Configuration files to options, and the tables of keys themselves.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::authorization::{ConnectionType, Identity, User};
use super::exports::{Export, ExportKind, ImportKind, Latency, ResponseType, Service};
use super::grammar::{self, Sources};
use super::mappings::Part;
use super::permissions::{Permissions, ResponsePermission, SubjectRule, SubjectRules};
use super::schema::{Row, Status};
use super::server::SECTIONS;
use super::tls::{Certificate, HandshakeFirst, TlsVersion};
use super::{ConfigError, Loaded, Options, PortSpec, Secret, diff, load, sample};

/// One file, whatever its name.
pub(super) struct Text(pub(super) String);

impl Sources for Text {
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Ok(self.0.clone().into_bytes())
    }

    fn environment(&self, _: &str) -> Option<String> {
        None
    }
}

fn read(text: impl Into<String>) -> Result<Loaded, ConfigError> {
    load(Path::new("x.conf"), &Text(text.into()))
}

/// The options of a file, without what says that there was one.
fn options(text: &str) -> Options {
    match read(text) {
        Ok(loaded) => Options { config_file: None, config_digest: String::new(), ..loaded.options },
        Err(error) => panic!("{text}: {error}"),
    }
}

fn errors(text: &str) -> Vec<String> {
    match read(text) {
        Ok(_) => panic!("{text} is accepted"),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

#[test]
fn keys_to_options() {
    type Change = fn(&mut Options);
    let cases: &[(&str, Change)] = &[
        ("", |_| {}),
        ("listen: 127.0.0.1:4333", |o| (o.host, o.port) = ("127.0.0.1".into(), PortSpec::Fixed(4333))),
        ("listen: \"[::1]:-1\"", |o| (o.host, o.port) = ("::1".into(), PortSpec::Any)),
        ("net: h, PORT: -1", |o| (o.host, o.port) = ("h".into(), PortSpec::Any)),
        ("http: 8222", |o| o.http_port = Some(PortSpec::Fixed(8222))),
        ("http: \"h:1\"", |o| (o.http_host, o.http_port) = (Some("h".into()), Some(PortSpec::Fixed(1)))),
        ("http: :8222", |o| o.http_port = Some(PortSpec::Fixed(8222))),
        ("https: 8443", |o| o.https_port = Some(PortSpec::Fixed(8443))),
        ("server_name: s, client_advertise: \"h:1\"", |o| {
            (o.server_name, o.client_advertise) = (Some("s".into()), Some("h:1".into()));
        }),
        ("pidfile: /p, ports_file_dir: /d, logfile: \"\"", |o| {
            (o.pid_file, o.ports_file_dir) = (Some("/p".into()), Some("/d".into()));
        }),
        ("debug: on, trace: yes, logtime: no, log_size_limit: 1kb, max_traced_msg_len: -1", |o| {
            (o.debug, o.trace, o.logtime, o.log_size_limit) = (true, true, false, 1024);
        }),
        ("max_payload: 8MB, max_pending: 1g, max_connections: -1, max_subs: -1, max_control_line: 1kb", |o| {
            (o.max_payload, o.max_pending, o.max_connections, o.max_control_line) = (8 << 20, 1_000_000_000, 0, 1024);
        }),
        ("ping_interval: \"1.5s\", ping_max: 5, write_deadline: 300ms, max_sub_tokens: 8", |o| {
            (o.ping_interval, o.ping_max) = (Duration::from_millis(1500), 5);
            (o.write_deadline, o.max_sub_tokens) = (Duration::from_millis(300), Some(8));
        }),
        ("lame_duck_duration: \"31s\", lame_duck_grace_period: \"2s\", no_fast_producer_stall: true", |o| {
            (o.lame_duck_duration, o.lame_duck_grace_period) = (Duration::from_secs(31), Duration::from_secs(2));
            o.no_fast_producer_stall = true;
        }),
        ("server_tags: [a, b], server_metadata { k: v }", |o| {
            (o.server_tags, o.server_metadata) = (vec!["a".into(), "b".into()], vec![("k".into(), "v".into())]);
        }),
        ("authorization { user: u, password: $2a$11$x, timeout: 2.5 }", |o| {
            (o.user, o.pass) = (Some("u".into()), Some(Secret::new("$2a$11$x")));
            o.auth_timeout = Some(Duration::from_millis(2500));
        }),
        ("v = \"t\"\nauthorization { token: $v, timeout: \"3s\" }", |o| {
            (o.auth_token, o.auth_timeout) = (Some(Secret::new("t")), Some(Duration::from_secs(3)));
        }),
        ("leat { cores: \"0,0\", spin_us: 5, ring_slots: 8, ring_bytes: 64KB, io_memory: 1MB }", |o| {
            (o.cores, o.cores_are_given, o.spin_us, o.ring_slots) = (vec![0, 0], true, 5, 8);
            (o.ring_bytes, o.io_memory) = (64 << 10, 1 << 20);
        }),
        ("leat { ring_depth: 1024, segment_size: 1MB, commit_delay_us: 9, cores: 0 }", |o| {
            (o.ring_depth, o.cores, o.cores_are_given) = (1024, vec![0], true);
            (o.segment_size, o.commit_delay_us) = (1 << 20, 9);
        }),
        ("no_auth_user: u, system: S, no_sys_acc: true, allow_non_tls: true, proxy_protocol: true", |o| {
            (o.access.no_auth_user, o.access.system_account) = (Some("u".into()), Some("S".into()));
            (o.access.no_system_account, o.allow_non_tls, o.proxy_protocol) = (true, true, true);
        }),
    ];
    for (text, change) in cases {
        let mut expected = Options::default();
        change(&mut expected);
        assert_eq!(options(text), expected, "{text}");
        let default = Options::default();
        let is_seen = expected == default || diff(&default, &expected) != Ok(Vec::new());
        assert!(is_seen, "a reload passes over {text}");
    }
}

/// Users, permissions, accounts, exports, imports and mappings arrive as what they say.
#[test]
fn who_may_do_what() {
    let access = options(
        "authorization {
           default_permissions { subscribe: a }
           users [
             { user: a, password: b, permissions { pub: [x, y.>], sub { allow: \"z q.*\", deny: [n] }, allow_responses: true } }
             { nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4, connection_types: [mqtt_ws, STANDARD] }
             { user: c, permissions { allow_responses { max: -1, expires: \"3s\" } }, proxy_required: true }
           ]
         }
         mappings { \"m.*\": [ { dest: \"n.$1\", weight: 30% }, { dest: o, weight: 10, cluster: C } ] }",
    )
    .access;
    let rule = |subject: &str, queue: Option<&str>| SubjectRule {
        subject: subject.to_owned(),
        queue: queue.map(str::to_owned),
    };
    let password = |user: &str, password: Option<&str>| Identity::Password {
        user: user.to_owned(),
        password: password.map(Secret::new),
    };
    let expected = [
        User {
            identity: password("a", Some("b")),
            permissions: Some(Permissions {
                publish: SubjectRules { allow: Some(vec![rule("x", None), rule("y.>", None)]), deny: vec![] },
                subscribe: SubjectRules { allow: Some(vec![rule("z", Some("q.*"))]), deny: vec![rule("n", None)] },
                responses: Some(ResponsePermission { messages: Some(1), expires: Some(Duration::from_secs(120)) }),
            }),
            connection_types: vec![],
            proxy_required: false,
        },
        User {
            identity: Identity::Nkey("UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4".to_owned()),
            permissions: None,
            connection_types: vec![ConnectionType::MqttWs, ConnectionType::Standard],
            proxy_required: false,
        },
        User {
            identity: password("c", None),
            permissions: Some(Permissions {
                publish: SubjectRules::default(),
                subscribe: SubjectRules::default(),
                responses: Some(ResponsePermission { messages: None, expires: Some(Duration::from_secs(3)) }),
            }),
            connection_types: vec![],
            proxy_required: true,
        },
    ];
    assert_eq!(access.users, expected);
    let default = access.default_permissions.unwrap();
    assert_eq!(default.subscribe.allow, Some(vec![rule("a", None)]));
    let [mapping] = access.mappings.as_slice() else { panic!("{:?}", access.mappings) };
    assert_eq!(mapping.source, "m.*");
    let destinations = &mapping.destinations;
    assert_eq!((destinations[0].weight, destinations[1].weight), (30, 10));
    assert_eq!(destinations[0].transform.tokens[1], Part::Wildcard(1));
    assert_eq!(destinations[1].cluster.as_deref(), Some("C"));
}

#[test]
fn accounts() {
    let accounts = options(
        "accounts {
           A {
             users [ { user: a, password: b } ]
             exports [
               { stream: \"s.>\", accounts: [B] }
               { service: \"q.*\", threshold: \"5s\", latency { sampling: headers, subject: l }, account_token_position: 2 }
               { service: many, response: stream }
             ]
             limits { max_conn: 5, max_subs: -1, max_payload: 1kb }
           }
           B {
             imports [
               { stream { account: A, subject: \"s.*\" }, prefix: \"p.q\" }
               { service { account: A, subject: \"q.B\" }, to: r, share: true }
             ]
           }
         }",
    )
    .access
    .accounts;
    let [a, b] = accounts.as_slice() else { panic!("{accounts:?}") };
    assert_eq!((a.name.as_str(), a.users.len(), b.name.as_str()), ("A", 1, "B"));
    assert_eq!(
        (a.limits.max_connections, a.limits.max_subscriptions, a.limits.max_payload),
        (Some(5), None, Some(1024))
    );
    let service = Service {
        response: ResponseType::Single,
        threshold: Some(Duration::from_secs(5)),
        latency: Some(Latency { sampling: None, subject: "l".into() }),
        allow_trace: false,
    };
    assert_eq!(
        a.exports,
        [
            Export {
                subject: "s.>".into(),
                kind: ExportKind::Stream,
                accounts: Some(vec!["B".into()]),
                account_token_position: None
            },
            Export {
                subject: "q.*".into(),
                kind: ExportKind::Service(service),
                accounts: None,
                account_token_position: Some(2)
            },
            Export {
                subject: "many".into(),
                kind: ExportKind::Service(Service { response: ResponseType::Stream, ..Service::default() }),
                accounts: None,
                account_token_position: None
            },
        ]
    );
    let [stream, service] = b.imports.as_slice() else { panic!("{:?}", b.imports) };
    assert_eq!((stream.account.as_str(), stream.subject.as_str()), ("A", "s.*"));
    assert_eq!(stream.local.as_ref().map(|local| local.text.as_str()), Some("p.q.s.*"));
    assert_eq!(service.local.as_ref().map(|local| local.text.as_str()), Some("r"));
    assert_eq!(service.kind, ImportKind::Service { share: true });
}

/// The `tls` block looks into its files; `websocket` has one of its own.
#[test]
fn listeners_with_tls() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_cases/files");
    let file = |name: &str| files.join(name);
    let show = |path: &PathBuf| path.display().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let tls = format!("cert_file: \"{}\", key_file: \"{}\"", show(&cert), show(&key));
    let options = options(&format!(
        "tls {{ {tls}, verify_and_map: true, timeout: 2.5, first: auto, min_version: \"1.3\" }}
         websocket {{ port: 8080, tls {{ {tls}, handshake_first: \"300ms\" }}, headers {{ A: b }}, authorization {{ token: t }} }}"
    ));
    let main = options.tls.as_ref().unwrap();
    assert_eq!(main.certificates, [Certificate { cert_file: cert, key_file: key }]);
    assert!(main.verify && main.verify_and_map && main.min_version == TlsVersion::V1_3);
    assert_eq!(main.handshake_first, HandshakeFirst::Within(Duration::from_millis(50)));
    assert_eq!(main.timeout, Some(Duration::from_millis(2500)));
    let ws = options.websocket.as_ref().unwrap();
    assert_eq!(
        (ws.port, ws.headers.as_slice()),
        (Some(PortSpec::Fixed(8080)), &[("A".to_owned(), "b".to_owned())][..])
    );
    assert_eq!(ws.tls.as_ref().unwrap().handshake_first, HandshakeFirst::Within(Duration::from_millis(300)));
    assert_eq!(ws.authorization.token, Some(Secret::new("t")));
    assert_eq!(options.check(), Ok(()));
}

/// What would go unprotected is not started, part by part; a test of the file accepts it.
#[test]
fn starts_that_are_refused() {
    let cases: &[(&str, &str)] = &[
        ("authorization { proxy_required: true }", "proxy_required"),
        ("accounts { A { users [ { user: a, password: b, proxy_required: true } ] } }", "proxy_required"),
    ];
    for text in ["websocket {}", "https: 0", "accounts {}", "authorization { users: [] }", "proxy_protocol: true"] {
        assert_eq!(options(text).with_defaults_for_zeroes().check(), Ok(()), "{text}");
    }
    for text in ["authorization { user: \"\", password: x }", "authorization { token: \"\" }"] {
        assert_eq!(options(text).check().unwrap_err(), ["an empty user name or token would let everybody in"]);
    }
    for (text, what) in cases {
        let expected = format!("this version cannot enforce {what}, and does not start without it");
        assert_eq!(options(text).check(), Err(vec![expected]), "{text}");
    }
    assert_eq!(options("tls {}").check().unwrap_err(), ["TLS Server certificate must be present and valid"]);
    for (text, error) in [
        ("https: 1", "TLS cert and key required for HTTPS"),
        ("websocket { port: 1 }", "websocket requires TLS configuration"),
        ("websocket { port: 1, tls {} }", "TLS Server certificate must be present and valid"),
        ("websocket { port: 1, no_tls: true, origins: [ x ] }", "websocket: not an origin: \"x\""),
        (
            "websocket { port: 1, no_tls: true, headers { \"A b\": c } }",
            "websocket: a name or value of 'headers' cannot be used",
        ),
        (
            "websocket { port: 1, no_tls: true, authorization { user: \"\" } }",
            "websocket: an empty user name or token would let everybody in",
        ),
        (
            "websocket { port: 1, no_tls: true, authorization { password: x } }",
            "websocket: a password without a user name would let everybody in; give the user name too",
        ),
        (
            "websocket { port: 1, no_tls: true, authorization { user: x } }, authorization { users: [ { user: a } ] }",
            "websocket authentication username not compatible with presence of users/nkeys",
        ),
        (
            "websocket { port: 1, no_tls: true, authorization { token: x } }, authorization { users: [ { user: a } ] }",
            "websocket authentication token not compatible with presence of users/nkeys",
        ),
        (
            "websocket { port: 1, no_tls: true, jwt_cookie: x, user_cookie: \"\" }",
            "trusted operators or trusted keys configuration is required for JWT authentication via cookie \"x\"",
        ),
        (
            "websocket { port: 1, no_tls: true, no_auth_user: x }",
            "no_auth_user: \"x\" present, but users/nkeys are not defined",
        ),
        (
            "websocket { port: 1, no_tls: true, no_auth_user: x }, authorization { users: [ { user: a } ] }",
            "no_auth_user: \"x\" not present as user in authorization block or account configuration",
        ),
    ] {
        assert_eq!(options(text).check().unwrap_err(), [error], "{text}");
    }
    assert_eq!(options("websocket { no_auth_user: x }").check(), Ok(()), "there is no listener without a port");
    for (text, is_missing) in [
        ("system_account: X", true),
        ("system_account: \"$SYS\", accounts { A {} }", true),
        ("system_account: X, no_system_account: true", true),
        ("system_account: \"$G\"", false),
        ("system_account: X, accounts: [ X ]", false),
    ] {
        let error = is_missing.then(|| vec!["error resolving system account: account missing".to_owned()]);
        assert_eq!(options(text).check().err(), error, "{text}");
    }
    let error = options("no_auth_user: x").check().unwrap_err();
    assert_eq!(error, ["no_auth_user: \"x\" present, but users/nkeys are not defined"]);
    for text in ["authorization { user: a, password: b }", "accounts { A { users [ { user: a, password: b } ] } }"] {
        assert_eq!(options(text).check(), Ok(()), "{text}");
    }
}

/// All errors are reported, each with its place, and one notice for each feature that is not there.
#[test]
fn findings() {
    assert_eq!(
        errors(
            "debug: 1\nfoo: 2\nauthorization {\n  users [ { user: a }, { password: b }, { user: a, nope: 1 } ]\n}\nport: x"
        ),
        [
            "x.conf:1:1: field \"debug\": expected a boolean (true or false, unquoted), got an integer",
            "x.conf:2:1: unknown field \"foo\"",
            "x.conf:4:24: User entry requires a user",
            "x.conf:4:52: unknown field \"nope\"",
            "x.conf:6:1: field \"port\": expected an integer, unquoted, got a string",
        ]
    );
    let loaded =
        read("jetstream: enabled\nstore_dir: x\ncluster { name: c }\nsyslog: false\ntrace_headers: true").unwrap();
    let notices: Vec<String> = loaded.notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        notices,
        [
            "x.conf:1:1: JetStream is not available in this version; \"jetstream\" has no effect",
            "x.conf:3:1: clustering is not available in this version; \"cluster\" has no effect",
            "x.conf:5:1: \"trace_headers\" has no effect in this version",
        ]
    );
    assert!(loaded.warnings.is_empty() && !loaded.is_empty);
    let loaded = read("write_deadline: 5").unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.options.write_deadline, Duration::from_secs(5));
    assert!(read("# nothing").unwrap().is_empty);
    let loaded = read("authorization { users: [] }").unwrap();
    assert_eq!(loaded.notices[0].what, "there are no users, so that everybody may connect");
}

fn all_rows() -> Vec<Row> {
    SECTIONS.iter().flat_map(super::server::Section::rows).collect()
}

/// No name means two things in one block, and every key has a help text and something to show.
#[test]
fn the_tables_are_sound() {
    fn check(rows: &[Row], block: &str) {
        let mut seen = HashSet::new();
        for row in rows {
            assert!(!row.help.is_empty() && (row.is_block || !row.default.is_empty()), "{block}.{:?}", row.names);
            for name in row.names {
                assert_eq!(*name, name.to_ascii_lowercase());
                assert!(seen.insert(*name), "{name} stands twice in {block}");
            }
            check(&row.inner, row.names[0]);
        }
    }
    check(&all_rows(), "the top level");
}

/// The defaults that the sample shows are the defaults.
#[test]
fn the_sample_shows_defaults() {
    const EXAMPLES: &[&str] =
        &["http", "http_port", "https", "https_port", "http_base_path", "max_sub_tokens", "cores", "also_listen"];
    let default = Options::default().with_defaults_for_zeroes();
    let mut checked = 0;
    let plain = SECTIONS.iter().filter(|section| ["Addresses", "Logging", "Limits"].contains(&section.title));
    let mut pairs: Vec<(Row, &str)> = plain.flat_map(super::server::Section::rows).map(|row| (row, "")).collect();
    let leat = all_rows().into_iter().find(|row| row.names == ["leat"]).unwrap();
    pairs.extend(leat.inner.into_iter().map(|row| (row, "leat")));
    for (row, block) in pairs {
        if row.status != Status::Works || EXAMPLES.contains(&row.names[0]) {
            continue;
        }
        let pair = format!("{}: {}", row.names[0], row.default);
        let text = if block.is_empty() { pair } else { format!("{block} {{ {pair} }}") };
        assert_eq!(options(&text).with_defaults_for_zeroes(), default, "{text}");
        checked += 1;
    }
    assert!(checked > 30, "{checked}");
}

/// With every key uncommented the sample is well-formed and has no unknown key.
#[test]
fn the_sample_is_a_configuration() {
    assert!(read(sample()).unwrap().is_empty);
    let uncommented: String = sample()
        .lines()
        .map(|line| {
            let text = line.trim_start();
            let is_key =
                text.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_alphabetic() || c == '}'));
            format!("{}\n", if is_key { &text[1..] } else { line })
        })
        .collect();
    assert!(grammar::parse(Path::new("x"), &Text(uncommented.clone())).is_ok(), "{uncommented}");
    let errors = errors(&uncommented).join("\n");
    assert!(!errors.contains("unknown field"), "{errors}");
}

proptest! {
    /// Any key with any kind of value, at the top or in any block, is read or refused.
    #[test]
    fn any_key_with_any_value(pick in any::<prop::sample::Index>(), inner in any::<prop::sample::Index>(), value in 0..10_usize) {
        const VALUES: &[&str] = &[
            "1", "-1", "9223372036854775807", "1.5", "yes", "text", "[]", "[ {a: 1}, [x], 5 ]", "{ a: {b: c} }",
            "2016-01-02T15:04:05Z",
        ];
        let rows = all_rows();
        let row = pick.get(&rows);
        let value = VALUES[value];
        let _ = read(format!("{}: {value}", row.names[0]));
        if !row.inner.is_empty() {
            let key = inner.get(&row.inner).names[0];
            let _ = read(format!("{} {{ {key}: {value} }}", row.names[0]));
            let _ = read(format!("{} {{ A {{ {key}: {value} }} }}", row.names[0]));
            let _ = read(format!("{}: [ {{ {key}: {value} }} ]", row.names[0]));
        }
    }
}
