//! The configuration is read again while clients are connected. What they see of it is what nats-server shows them for
//! the same files; lines of the log are those of nats-server where the test does not say otherwise.

mod support;

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use support::config::{Config, reload};
use support::{Client, PATIENCE, Server, shard_suite, skip_on_peer, wait_until};

shard_suite!(one_shard = 1, three_shards = 3 => {
    live_keys_are_applied,
    a_change_that_needs_a_restart_refuses_all,
    a_wrong_file_changes_nothing,
    flags_keep_their_precedence,
    users_go_and_stay,
    credentials_count_when_they_are_asked_for,
    one_user_becomes_a_list,
    fewer_subscriptions_are_allowed,
    credentials_for_all_change,
    a_token_that_stays_keeps_its_clients,
    permissions_are_narrowed,
    permissions_are_widened,
    a_right_in_use_ends,
    accounts_come_and_go,
    limits_of_accounts_close_the_excess,
    the_user_without_credentials_changes,
    fewer_connections_are_allowed,
    limits_hold_from_the_next_command_on,
    nothing_is_lost_when_a_password_changes,
    fifty_reloads_under_load,
    logins_under_way_are_judged_anew,
});

fn options(user: &str, pass: &str) -> Value {
    json!({"user": user, "pass": pass, "verbose": false, "pedantic": false, "headers": true})
}

fn log_in(server: &Server, user: &str, pass: &str) -> Client {
    server.connect().login(&options(user, pass))
}

fn expect_refused(server: &Server, user: &str, pass: &str) {
    let mut client = server.connect();
    client.send(format!("CONNECT {}\r\n", options(user, pass)));
    client.expect_then_close("-ERR 'Authorization Violation'\r\n");
}

fn log_in_on(server: &Server, shard: usize, user: &str, pass: &str) -> Client {
    server.connect_on(shard).login(&options(user, pass))
}

fn live_keys_are_applied(shards: usize) {
    let config = Config::new("debug: false\n");
    let server = config.server().shards(shards).monitor().start();
    let mut client = server.client();
    let files = tempfile::tempdir().expect("a directory");
    let in_dir = |name: &str| files.path().join(name).display().to_string();
    let said = config.reload(
        &server,
        &format!(
            "debug: true\nmax_payload: 2KB\nmax_control_line: 512\nping_interval: \"50s\"\nping_max: 7\n\
             write_deadline: \"3s\"\nno_fast_producer_stall: true\nmax_connections: 100\nmax_traced_msg_len: 3\n\
             trace: true\nlogtime_utc: true\nclient_advertise: \"192.0.2.1:99\"\npid_file: \"{}\"\nlogtime: false\n",
            in_dir("pid")
        ),
    );
    for line in [
        "Reloaded: debug = true",
        "Reloaded: trace = true",
        "Reloaded: logtime = false",
        "Reloaded: logtime_utc = true",
        "Reloaded: max_payload = 2048",
        "Reloaded: max_control_line = 512",
        "Reloaded: max_connections = 100",
        "Reloaded: ping_interval = 50s",
        "Reloaded: ping_max = 7",
        "Reloaded: write_deadline = 3s",
        "Reloaded: fast producers will not be stalled",
        "Reloaded: max_traced_msg_len = 3",
        "Reload: client_advertise = 192.0.2.1:99",
        &format!("Reloaded: pid_file = {}", in_dir("pid")),
        "Reloaded server configuration (sha256:",
    ] {
        assert!(said.contains(line), "{line} is missing: {said}");
    }
    client.expect_nothing();
    let info = server.connect().info().clone();
    assert_eq!((&info["max_payload"], &info["host"], &info["port"]), (&json!(2048), &json!("192.0.2.1"), &json!(99)));
    let varz = server.get_json("/varz");
    assert_eq!((&varz["ping_max"], &varz["max_payload"]), (&json!(7), &json!(2048)));
    assert!(said.contains(varz["config_digest"].as_str().expect("a digest")), "{varz}");
    assert_ne!(varz["config_load_time"], varz["start"]);
    wait_until("the pid file is there", PATIENCE, || std::fs::read_to_string(in_dir("pid")).is_ok());
    // The log has changed as well: no time, and payloads are traced up to three bytes.
    client.publish("traced", "abcdef");
    client.fence();
    server.await_stderr("[\"abc...\"]");
    let line = format!("[{}] [DBG] ", server.pid());
    wait_until("there are debug lines without time", PATIENCE, || server.stderr().contains(&line));

    let said = config.reload(&server, "debug: false\n");
    assert!(said.contains("Reloaded: debug = false") && said.contains("Reloaded: max_payload = 1048576"), "{said}");
    assert!(said.contains("fast producers will be stalled") && said.contains("ping_interval = 2m0s"), "{said}");
    let quiet = server.stderr().len();
    client.publish("traced", "ghijkl");
    client.fence();
    server.client().fence();
    let said = server.stderr().split_off(quiet);
    assert!(!said.contains("[TRC]") && !said.contains("[DBG]"), "{said}");
}

fn a_change_that_needs_a_restart_refuses_all(shards: usize) {
    let config = Config::new("max_payload: 1000\nmax_pending: 1000000\n");
    let server = config.server().shards(shards).start();
    for (text, refusal) in [
        ("server_name: other", "ServerName: old=, new=other"),
        ("max_pending: 2000000", "MaxPending: old=1000000, new=2000000"),
        ("max_subscriptions: 5", "MaxSubs: old=0, new=5"),
        ("max_closed_clients: 5", "MaxClosedClients: old=10000, new=5"),
        ("lame_duck_duration: \"40s\"", "LameDuckDuration: old=2m0s, new=40s"),
        ("lame_duck_grace_period: \"2s\"", "LameDuckGracePeriod: old=10s, new=2s"),
        ("no_header_support: true", "NoHeaderSupport: old=false, new=true"),
        ("no_sublist_cache: true", "NoSublistCache: old=false, new=true"),
        ("http_port: 1", "HTTPPort: old=0, new=1"),
        ("logfile_size_limit: 1000", "LogSizeLimit: old=0, new=1000"),
        ("logfile_max_num: 3", "LogMaxFiles: old=0, new=3"),
        ("system_account: X\naccounts { X {} }", "SystemAccount: old=, new=X"),
        ("no_system_account: true", "NoSystemAccount: old=false, new=true"),
        ("authorization { users: [ {user: a, password: b} ] }\nno_auth_user: a", "NoAuthUser: old=, new=a"),
    ] {
        let base = if text.starts_with("max_pending") { "" } else { "max_pending: 1000000\n" };
        let said = config.reload(&server, &format!("max_payload: 10\n{base}{text}\n"));
        let expected = format!("Failed to reload server configuration: config reload not supported for {refusal}\n");
        assert!(said.contains(&expected), "{expected}{said}");
        assert!(!said.contains("Reloaded"), "{said}");
    }
    assert_eq!(server.connect().info()["max_payload"], 1000);
    server.client().fence();
}

fn a_wrong_file_changes_nothing(shards: usize) {
    let config = Config::new("authorization { users: [ {user: a, password: x} ] }\n");
    let server = config.server().shards(shards).start();
    let mut client = log_in(&server, "a", "x");
    for (text, reason) in [
        ("authorization {", ""),
        ("foo: 1\nbar: 2\n", "unknown field \"foo\""),
        ("max_payload: 100MB\n", "max_payload (104857600) cannot be higher than max_pending (67108864)"),
        (
            "lame_duck_grace_period: \"500s\"",
            "lame duck grace period (8m20s) should be strictly lower than lame duck duration (2m0s)",
        ),
    ] {
        let said = config.reload(&server, text);
        assert!(said.contains("[ERR] Failed to reload server configuration: "), "{said}");
        assert!(said.contains(reason) && !said.contains("Reloaded"), "{said}");
    }
    client.expect_nothing();
    log_in(&server, "a", "x").fence();
    let said = config.reload(&server, "authorization { users: [ {user: a, password: x} ] }\nmax_payload: 5\n");
    assert!(said.contains("Reloaded: max_payload = 5"), "{said}");
    client.expect_nothing();
}

fn flags_keep_their_precedence(shards: usize) {
    let config = Config::new("listen: \"192.0.2.1:1\"\ndebug: true\n");
    // The reference forgets a name that was given as a flag, and refuses to have another one.
    let server = config.server().shards(shards).arg("-D=false").leat_arg("--name=flag").start();
    let name = if server.is_leat() { "server_name: file\n" } else { "" };
    let said = config.reload(&server, &format!("listen: \"192.0.2.2:2\"\n{name}debug: true\nping_max: 9\n"));
    assert!(said.contains("Reloaded: ping_max = 9") && !said.contains("debug ="), "{said}");
    if server.is_leat() {
        assert_eq!(server.connect().info()["server_name"], "flag");
    }
    assert!(!server.stderr().contains("[DBG]"));
}

fn users_go_and_stay(shards: usize) {
    let pair = nkeys::KeyPair::new_user();
    let nkey = format!("{{ nkey: {} }}", pair.public_key());
    let config = Config::new(&format!(
        "authorization {{ users: [ {{user: stays, password: x}}, {{user: goes, password: x}},
            {{user: changes, password: x}}, {{user: typed, password: x}}, {nkey} ] }}"
    ));
    let server = config.server().shards(shards).monitor().start();
    let sign = |client: Client| {
        let sig = pair.sign(client.info()["nonce"].as_str().expect("a nonce").as_bytes()).expect("a signature");
        let sig = data_encoding::BASE64URL_NOPAD.encode(&sig);
        client.login(&json!({"nkey": pair.public_key(), "sig": sig, "verbose": false}))
    };
    let mut keys = sign(server.connect_on(0));
    let mut all: Vec<Client> = Vec::new();
    for (n, user) in ["stays", "goes", "changes", "typed"].iter().enumerate() {
        all.push(log_in_on(&server, n, user, "x"));
    }
    for client in &mut all {
        client.send("SUB foo 1\r\nPING\r\n");
        client.expect("PONG\r\n");
    }
    let users = |goes: &str| {
        format!(
            "authorization {{ users: [ {{user: stays, password: x}}\n{goes}\n{{user: changes, password: y}}
                {{user: typed, password: x, allowed_connection_types: [WEBSOCKET]}}"
        )
    };
    let said = config.reload(&server, &format!("{}\n{nkey} ] }}", users("")));
    assert!(said.contains("Reloaded: authorization users"), "{said}");
    let [stays, goes, changes, typed] = &mut all[..] else { panic!("four clients") };
    goes.expect_close();
    changes.expect_then_close("-ERR 'Authorization Violation'\r\n");
    typed.expect_then_close("-ERR 'Authorization Violation'\r\n");
    server.await_stderr("authentication error - User \"changes\"");
    keys.expect_nothing();
    stays.send("PUB foo 2\r\nhi\r\nPING\r\n");
    stays.expect("MSG foo 1 2\r\nhi\r\nPONG\r\n");
    expect_refused(&server, "goes", "x");
    expect_refused(&server, "changes", "x");
    let mut again = log_in(&server, "changes", "y");
    again.fence();

    // The nkey goes, and comes back.
    config.reload(&server, &format!("{} ] }}", users("")));
    keys.expect_close();
    stays.expect_nothing();
    again.expect_nothing();
    config.reload(&server, &format!("{}\n{nkey} ] }}", users("{user: goes, password: x}")));
    sign(server.connect()).fence();
    log_in(&server, "goes", "x").fence();
    let ends = server.get_json("/connz?state=closed")["connections"].clone();
    let reasons: Vec<&str> =
        ends.as_array().expect("a list").iter().filter_map(|conn| conn["reason"].as_str()).collect();
    assert!(reasons.contains(&"Client Closed") && reasons.contains(&"Authentication Failure"), "{reasons:?}");
}

/// Clients that have given credentials although nobody has asked stay, if those are what is asked for then.
fn credentials_count_when_they_are_asked_for(shards: usize) {
    let violation = "-ERR 'Authorization Violation'\r\n";
    let logins = || {
        [
            options("a", "x"),
            options("a", "y"),
            options("b", "x"),
            json!({"auth_token": "t", "verbose": false}),
            json!({"auth_token": "u", "verbose": false}),
            json!({"verbose": false}),
        ]
    };
    // What becomes of these clients: nothing, or the last words.
    let users = "authorization { users: [ {user: a, password: x} ] }";
    let in_account = "accounts { A { users: [ {user: a, password: x} ] } }";
    for (asked, outcomes) in [
        (users, [None, Some(violation), Some(""), Some(violation), Some(violation), Some(violation)]),
        (in_account, [Some(""), Some(""), Some(""), Some(violation), Some(violation), Some(violation)]),
        ("authorization { token: t }", [Some(""), Some(""), Some(""), None, Some(violation), Some(violation)]),
        (
            "authorization { user: a, password: x }",
            [Some(""), Some(""), Some(""), Some(violation), Some(violation), Some(violation)],
        ),
    ] {
        let config = Config::new("debug: false\n");
        let server = config.server().shards(shards).monitor().start();
        let clients: Vec<Client> =
            logins().iter().enumerate().map(|(n, login)| server.connect_on(n).login(login)).collect();
        config.reload(&server, asked);
        for (n, (mut client, outcome)) in clients.into_iter().zip(outcomes).enumerate() {
            eprintln!("client {n}, {asked}");
            match outcome {
                None => client.expect_nothing(),
                Some(words) => client.expect_then_close(words),
            }
        }
    }
    // A list that keeps the password keeps the client, again and again.
    let config = Config::new("debug: false\n");
    let server = config.server().shards(shards).start();
    let mut client = log_in(&server, "a", "x");
    client.subscribe("foo", "1");
    for more in ["", "{user: b, password: x}", "{user: c, password: x}"] {
        config.reload(&server, &format!("authorization {{ users: [ {{user: a, password: x}} {more} ] }}"));
        client.expect_nothing();
    }
    client.send("PUB foo 1\r\nx\r\n");
    client.expect("MSG foo 1 1\r\nx\r\n");
    config.reload(&server, "authorization { users: [ {user: a, password: y} ] }");
    client.expect_then_close(violation);
}

fn one_user_becomes_a_list(shards: usize) {
    for (users, last_words) in [
        ("{user: a, password: x}, {user: b, password: x}", None),
        ("{user: a, password: y}", Some("-ERR 'Authorization Violation'\r\n")),
        ("{user: b, password: x}", Some("")),
    ] {
        let config = Config::new("authorization { user: a, password: x }");
        let server = config.server().shards(shards).start();
        let mut client = log_in(&server, "a", "x");
        config.reload(&server, &format!("authorization {{ users: [ {users} ] }}"));
        match last_words {
            None => client.expect_nothing(),
            Some(words) => client.expect_then_close(words),
        }
    }
}

/// Whoever has more subscriptions than the account allows now is closed.
fn fewer_subscriptions_are_allowed(shards: usize) {
    let with = |max: i64| {
        format!("accounts {{ A {{ users: [ {{user: a, password: x}} ], limits {{ max_subs: {max} }} }} }}\n")
    };
    let config = Config::new(&with(-1));
    let server = config.server().shards(shards).monitor().start();
    let mut clients: Vec<Client> = (0..4).map(|n| log_in_on(&server, n, "a", "x")).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        (0..n).for_each(|sid| client.send(format!("SUB foo {sid}\r\n")));
        client.fence();
    }
    config.reload(&server, &with(2));
    let mut most = clients.pop().expect("four clients");
    most.expect_then_close("-ERR 'maximum subscriptions exceeded'\r\n");
    // The reference closes those with just as many too.
    clients.truncate(if server.is_leat() { 3 } else { 2 });
    for (n, client) in clients.iter_mut().enumerate() {
        client.send("SUB bar a\r\nSUB bar b\r\nSUB bar c\r\n");
        let refused = client.fence();
        assert_eq!(refused, "-ERR 'maximum subscriptions exceeded'\r\n".repeat(n + 1).as_bytes());
    }
    let ends = server.get_json("/connz?state=closed")["connections"].clone();
    let ends =
        ends.as_array().expect("a list").iter().filter(|conn| conn["reason"] == "Maximum Subscriptions Exceeded");
    assert!(ends.count() >= 1);
}

/// Credentials that all clients share come, change and go.
fn credentials_for_all_change(shards: usize) {
    let config = Config::new("ping_max: 3\n");
    let server = config.server().shards(shards).start();
    let mut open = server.client();
    let mut silent = server.connect();
    let said = config.reload(&server, "authorization { token: first }\n");
    assert!(said.contains("Reloaded: authorization token"), "{said}");
    for client in [&mut open, &mut silent] {
        client.expect_then_close("-ERR 'Authorization Violation'\r\n");
    }
    assert_eq!(server.connect().info()["auth_required"], true);
    let with_token = |token: &str| server.connect().login(&json!({"auth_token": token, "verbose": false}));
    let mut client = with_token("first");
    config.reload(&server, "authorization { token: second }\n");
    client.expect_then_close("-ERR 'Authorization Violation'\r\n");
    let mut client = with_token("second");
    config.reload(&server, "ping_max: 3\n");
    client.expect_nothing();
    server.client().fence();
    config.reload(&server, "authorization { user: app, password: x }\n");
    client.expect_then_close("-ERR 'Authorization Violation'\r\n");
    let mut client = log_in(&server, "app", "x");
    let said = config.reload(&server, "authorization { user: app, password: y }\n");
    assert!(said.contains("Reloaded: authorization password"), "{said}");
    client.expect_close();
    expect_refused(&server, "app", "x");
    log_in(&server, "app", "y").fence();
}

/// The reference closes the clients of a single user at every reload, whether or not the user has changed.
fn a_token_that_stays_keeps_its_clients(shards: usize) {
    let config = Config::new("authorization { token: x }\n");
    let server = config.server().shards(shards).start();
    let mut client = server.connect().login(&json!({"auth_token": "x", "verbose": false}));
    let said = config.reload(&server, "authorization { token: x, timeout: 3 }\n");
    assert!(said.contains("Reloaded: authorization timeout = 3"), "{said}");
    client.expect_nothing();
    if server.is_leat() {
        let config = Config::new("authorization { user: a, password: x }\n");
        let server = config.server().shards(shards).start();
        let mut client = log_in(&server, "a", "x");
        config.reload(&server, "authorization { user: a, password: x }\nping_max: 4\n");
        client.expect_nothing();
    }
}

fn with_permissions(permissions: &str) -> String {
    format!(
        "authorization {{ users: [ {{user: a, password: x, permissions: {{ {permissions} }} }}
            {{user: all, password: x}} ] }}\n"
    )
}

const WIDE: &str = "publish: \">\", subscribe: \">\"";
const NARROW: &str = "publish: \"p.*\", subscribe: { allow: [\"s.*\", \"q.*\"], deny: [\"s.d\"] }";

fn permissions_are_narrowed(shards: usize) {
    let config = Config::new(&with_permissions(WIDE));
    let server = config.server().shards(shards).monitor().start();
    let mut client = log_in_on(&server, 0, "a", "x");
    let mut all = log_in_on(&server, 1, "all", "x");
    client.send(
        "SUB s.a 1\r\nSUB s.* 2\r\nSUB s.d 3\r\nSUB zz 4\r\nSUB zz g 5\r\nSUB > 6\r\nSUB q.* g 7\r\nUNSUB 7 1\r\nPING\r\n",
    );
    client.expect("PONG\r\n");
    all.send("SUB > 1\r\nPUB zz 1\r\n0\r\nPING\r\n");
    all.expect("MSG zz 1 1\r\n0\r\nPONG\r\n");
    assert_eq!(client.messages_to_fence().len(), 3);
    config.reload(&server, &with_permissions(NARROW));
    let mut lines: Vec<String> = String::from_utf8(client.fence()).expect("text").lines().map(str::to_owned).collect();
    lines.sort();
    let text = |what: &str| format!("-ERR 'Permissions Violation for Subscription to {what}'");
    assert_eq!(
        lines,
        [
            text("\">\" (sid \"6\")"),
            text("\"s.d\" (sid \"3\")"),
            text("\"zz\" (sid \"4\")"),
            text("\"zz\" using queue \"g\" (sid \"5\")"),
        ]
    );
    server.await_stderr("[INF] Removed sub \"zz\" using queue \"g\" (sid \"5\") for User \"a\" - not authorized");
    client.send("PUB p.a 1\r\n1\r\nPUB x 1\r\n2\r\nSUB zz 9\r\nUNSUB 4\r\nPING\r\n");
    client.expect(
        "-ERR 'Permissions Violation for Publish to \"x\"'\r\n\
         -ERR 'Permissions Violation for Subscription to \"zz\"'\r\nPONG\r\n",
    );
    all.expect("MSG p.a 1 1\r\n1\r\n");
    // A wildcard that is wider than what is denied does not let it through.
    all.send("PUB s.a 1\r\n1\r\nPUB s.d 1\r\n2\r\nPUB zz 1\r\n3\r\nPUB q.a 1\r\n4\r\nPUB q.a 1\r\n5\r\nPING\r\n");
    assert_eq!(all.messages_to_pong().len(), 5);
    let mut got: Vec<(String, String)> =
        client.messages_to_fence().iter().map(|msg| (msg.sid.clone(), msg.text().to_owned())).collect();
    got.sort();
    let pairs = [("1", "1"), ("2", "1"), ("7", "4")].map(|(sid, text)| (sid.to_owned(), text.to_owned()));
    assert_eq!(got, pairs);
}

fn permissions_are_widened(shards: usize) {
    let config = Config::new(&with_permissions(NARROW));
    let server = config.server().shards(shards).monitor().start();
    let mut client = log_in_on(&server, 0, "a", "x");
    let mut all = log_in_on(&server, 1, "all", "x");
    client.send("SUB s.* 1\r\nSUB zz 2\r\nPUB x 1\r\nx\r\nPING\r\n");
    client.expect(
        "-ERR 'Permissions Violation for Subscription to \"zz\"'\r\n\
         -ERR 'Permissions Violation for Publish to \"x\"'\r\nPONG\r\n",
    );
    for permissions in [WIDE, NARROW, ""] {
        let mut text = with_permissions(permissions);
        if permissions.is_empty() {
            text = text.replace(", permissions: {  }", "");
        }
        config.reload(&server, &text);
        let narrow = permissions == NARROW;
        client.send("PUB x 1\r\nx\r\nPING\r\n");
        let denied = if narrow { "-ERR 'Permissions Violation for Publish to \"x\"'\r\n" } else { "" };
        client.expect(format!("{denied}PONG\r\n"));
        all.send("PUB s.a 1\r\n1\r\nPUB s.d 1\r\n2\r\nPING\r\n");
        all.expect("PONG\r\n");
        client.expect("MSG s.a 1 1\r\n1\r\n");
        if !narrow {
            client.expect("MSG s.d 1 1\r\n2\r\n");
        }
        client.expect_nothing();
    }
}

/// Who has just published to a subject, again and again, may not any more after a reload, whatever others may; and what is
/// refused counts as received.
fn a_right_in_use_ends(shards: usize) {
    let with = |publish: &str| {
        format!(
            "authorization {{ users: [ {{user: a, password: x, permissions: {{ publish: [{publish}] }} }}
                {{user: b, password: x, permissions: {{ publish: \"p.*\" }} }}
                {{user: all, password: x}} ] }}\n"
        )
    };
    let config = Config::new(&with("\"p.1\", \"p.2\""));
    let server = config.server().shards(shards).monitor().start();
    let [mut a, mut b, mut all] = ["a", "b", "all"].map(|user| log_in_on(&server, 0, user, "x"));
    all.send("SUB p.* 1\r\nPING\r\n");
    all.expect("PONG\r\n");
    let publishes = "PUB p.1 1\r\n1\r\nPUB p.1 1\r\n1\r\nPUB p.2 1\r\n2\r\nPUB p.1 1\r\n1\r\nPUB p.2 1\r\n2\r\n\
                     HPUB p.1 12 13\r\nNATS/1.0\r\n\r\n1\r\nPING\r\n";
    let mut received = 0;
    let mut round = |a_may: bool| {
        a.send(publishes);
        b.send(publishes);
        all.send(publishes);
        a.send(publishes);
        let refused = "-ERR 'Permissions Violation for Publish to \"p.1\"'\r\n".repeat(if a_may { 0 } else { 4 });
        for _ in 0..2 {
            a.expect(format!("{refused}PONG\r\n"));
        }
        b.expect("PONG\r\n");
        let texts: Vec<String> = all.messages_to_pong().iter().map(|msg| msg.text().to_owned()).collect();
        let more: Vec<String> = all.messages_to_fence().iter().map(|msg| msg.text().to_owned()).collect();
        let count = |text: &str| texts.iter().chain(&more).filter(|one| *one == text).count();
        assert_eq!((count("1"), count("2")), (if a_may { 16 } else { 8 }, 8));
        received += 24;
        assert_eq!(server.get_json("/varz")["in_msgs"], received);
    };
    round(true);
    round(true);
    config.reload(&server, &with("\"p.2\""));
    round(false);
    config.reload(&server, &with("\"p.2\", \"p.1\""));
    round(true);
    config.reload(&server, &with("\"*.2\""));
    round(false);
}

fn account(name: &str, users: &[&str]) -> String {
    let users: Vec<String> = users.iter().map(|user| format!("{{user: {user}, password: x}}")).collect();
    format!("{name} {{ users: [ {} ] }}", users.join(", "))
}

fn accounts(list: &[(&str, &[&str])]) -> String {
    let list: Vec<String> = list.iter().map(|(name, users)| account(name, users)).collect();
    format!("accounts {{ {} }}\n", list.join(", "))
}

fn accounts_come_and_go(shards: usize) {
    let config = Config::new(&accounts(&[("A", &["a", "a2"]), ("B", &["b"])]));
    let server = config.server().shards(shards).monitor().start();
    let subscribed = |n: usize, user: &str| {
        let mut client = log_in_on(&server, n, user, "x");
        client.subscribe(">", "1");
        client
    };
    let (mut a, mut a2, mut b) = (subscribed(0, "a"), subscribed(1, "a2"), subscribed(2, "b"));
    // A user moves to another account, and a new account comes.
    let text = accounts(&[("C", &["c"]), ("B", &["b", "a"]), ("A", &["a2"])]);
    let said = config.reload(&server, &text);
    assert!(said.contains("Reloaded: accounts"), "{said}");
    a.expect_close();
    let mut a = subscribed(0, "a");
    let mut others: Vec<Client> = (0..3).map(|shard| subscribed(shard, "c")).collect();
    a.publish("from.a", "1");
    others[0].publish("from.c", "2");
    let texts = |client: &mut Client| -> Vec<String> {
        client.messages_to_fence().iter().map(|msg| msg.text().to_owned()).collect()
    };
    a.fence();
    assert_eq!(texts(&mut others[0]), ["2"]);
    assert_eq!([texts(&mut b), texts(&mut a2)], [vec!["1".to_owned()], vec![]]);
    assert_eq!([texts(&mut others[1]), texts(&mut others[2])], [["2"], ["2"]]);
    // An account goes, and its clients; those of others stay in theirs. It comes back empty.
    config.reload(&server, &accounts(&[("A", &["a2"]), ("C", &["c"])]));
    b.expect_close();
    a.expect_close();
    expect_refused(&server, "b", "x");
    a2.expect_nothing();
    config.reload(&server, &accounts(&[("B", &["b"]), ("D", &["d"]), ("A", &["a2"]), ("C", &["c"])]));
    let (mut b, mut d) = (subscribed(1, "b"), subscribed(2, "d"));
    d.publish("from.d", "3");
    d.fence();
    b.publish("from.b", "4");
    assert_eq!([texts(&mut b), texts(&mut d)], [vec!["4".to_owned()], vec![]]);
    for client in others.iter_mut().chain([&mut a2]) {
        client.expect_nothing();
    }
    assert_eq!(server.get_json("/connz?acc=C")["num_connections"], 3);
}

fn limits_of_accounts_close_the_excess(shards: usize) {
    let limited = |limits: &str| {
        format!(
            "accounts {{ A {{ users: [ {{user: a, password: x}} ], limits {{ {limits} }} }}, B {{ users: [ {{user: b, password: x}} ] }} }}\n"
        )
    };
    let config = Config::new(&limited("max_connections: 10"));
    let server = config.server().shards(shards).start();
    let mut clients: Vec<Client> = (0..5).map(|_| log_in(&server, "a", "x")).collect();
    let mut b = log_in(&server, "b", "x");
    config.reload(&server, &limited("max_connections: 2, max_payload: 10"));
    let mut open = Vec::new();
    for mut client in clients.drain(..) {
        client.send_if_open(b"PING\r\n");
        match client.read_up_to(6) {
            reply if reply == b"PONG\r\n" => open.push(client),
            mut reply => {
                reply.extend(client.read_to_end());
                assert_eq!(
                    support::show(&reply),
                    support::show(b"-ERR 'maximum account active connections exceeded'\r\n")
                );
            }
        }
    }
    assert_eq!(open.len(), 2);
    b.expect_nothing();
    let mut more = server.connect();
    more.send(format!("CONNECT {}\r\n", options("a", "x")));
    more.expect_then_close("-ERR 'maximum account active connections exceeded'\r\n");
    open[0].send("PUB foo 11\r\n");
    open[0].expect_then_close("-ERR 'Maximum Payload Violation'\r\n");
    wait_until("there is room for a client", PATIENCE, || {
        let mut client = server.connect();
        client.send(format!("CONNECT {}\r\nPING\r\n", options("a", "x")));
        client.read_up_to(6) == b"PONG\r\n"
    });
}

fn the_user_without_credentials_changes(shards: usize) {
    let text = |permissions: &str, home: &str| {
        let (a, b) = if home == "A" { (permissions, "") } else { ("", permissions) };
        let users = |user: &str| {
            if user.is_empty() { String::new() } else { format!("users: [ {{user: any, password: x {user} }} ]") }
        };
        format!("accounts {{ A {{ {} }}, B {{ {} }} }}\nno_auth_user: any\n", users(a), users(b))
    };
    let config = Config::new(&text(",", "A"));
    let server = config.server().shards(shards).start();
    let mut client = server.client();
    client.subscribe("foo", "1");
    config.reload(&server, &text(", permissions: { subscribe: bar }", "A"));
    client.expect("-ERR 'Permissions Violation for Subscription to \"foo\" (sid \"1\")'\r\n");
    client.subscribe("bar", "2");
    config.reload(&server, &text(", permissions: { subscribe: bar }", "B"));
    client.expect_close();
    server.client().subscribe("bar", "2");
}

fn fewer_connections_are_allowed(shards: usize) {
    let config = Config::new("max_connections: 50\n");
    let server = config.server().shards(shards).monitor().start();
    let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
    let said = config.reload(&server, "max_connections: 8\n");
    assert!(said.contains("Closed 12 connections to fall within max_connections"), "{said}");
    assert!(said.contains("Reloaded: max_connections = 8"), "{said}");
    let mut open = 0;
    for client in &mut clients {
        client.send_if_open(b"PING\r\n");
        match client.read_up_to(6) {
            reply if reply == b"PONG\r\n" => open += 1,
            mut reply => {
                reply.extend(client.read_to_end());
                assert_eq!(support::show(&reply), support::show(b"-ERR 'maximum connections exceeded'\r\n"));
            }
        }
    }
    assert_eq!(open, 8);
    server.connect().expect_then_close("-ERR 'maximum connections exceeded'\r\n");
    config.reload(&server, "max_connections: 9\n");
    server.client().fence();
}

fn limits_hold_from_the_next_command_on(shards: usize) {
    let config = Config::new("max_payload: 100\nmax_control_line: 1000\n");
    let server = config.server().shards(shards).start();
    let (mut payload, mut line) = (server.client(), server.client());
    config.reload(&server, "max_payload: 10\nmax_control_line: 20\n");
    payload.send("PUB foo 11\r\n");
    payload.expect_then_close("-ERR 'Maximum Payload Violation'\r\n");
    line.send("PUB foo.bar.foo.bar.foo.bar.foo.bar 1\r\n");
    line.expect_then_close("-ERR 'maximum control line exceeded'\r\n");
    config.reload(&server, "max_payload: 100\nmax_control_line: 1000\n");
    let mut client = server.client();
    client.send("SUB foo.bar.foo.bar.foo.bar.foo.bar 1\r\nPUB foo.bar.foo.bar.foo.bar.foo.bar 11\r\n01234567890\r\n");
    client.expect("MSG foo.bar.foo.bar.foo.bar.foo.bar 1 11\r\n01234567890\r\n");
}

/// Numbered messages go from a publisher to subscribers on all shards while `disturb` runs. All of them arrive once, in
/// order.
fn pump_through(server: &Server, disturb: impl FnOnce()) {
    const BATCH: usize = 50;
    let mut subscribers: Vec<Client> = (0..server.shards()).map(|n| log_in_on(server, n, "sub", "x")).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("numbers.*", "1");
    }
    let publisher = log_in(server, "pub", "x");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let pump = scope.spawn(|| {
            let mut publisher = publisher;
            let mut next = 0_usize;
            while !stop.load(Ordering::Relaxed) {
                let mut text = Vec::new();
                for number in next..next + BATCH {
                    let digits = number.to_string();
                    write!(text, "PUB numbers.{} {}\r\n{digits}\r\n", number % 7, digits.len()).expect("a Vec");
                }
                next += BATCH;
                publisher.send(text);
                // A round trip for each batch bounds what is under way.
                assert_eq!(publisher.fence(), b"", "the publisher hears nothing else");
            }
            next
        });
        let readers: Vec<_> = subscribers
            .iter_mut()
            .map(|subscriber| {
                scope.spawn(|| {
                    let mut expected = 0_usize;
                    loop {
                        let msg = subscriber.next_msg();
                        if msg.text() == "end" {
                            return expected;
                        }
                        assert_eq!(msg.text(), expected.to_string());
                        expected += 1;
                    }
                })
            })
            .collect();
        disturb();
        stop.store(true, Ordering::Relaxed);
        let sent = pump.join().expect("the publisher is well");
        let mut last = log_in(server, "pub", "x");
        last.publish("numbers.0", "end");
        last.fence();
        for reader in readers {
            assert_eq!(reader.join().expect("the subscriber is well"), sent);
        }
        assert!(sent > 0);
    });
}

fn pumping(other: &str, more: &str) -> String {
    format!(
        "authorization {{ users: [ {{user: pub, password: x, permissions: {{ publish: \"numbers.*\" }} }}
            {{user: sub, password: x, permissions: {{ subscribe: [\"numbers.*\" {more}] }} }}\n{other} ] }}\n"
    )
}

fn nothing_is_lost_when_a_password_changes(shards: usize) {
    let config = Config::new(&pumping("{user: other, password: p0}", ""));
    let server = config.server().shards(shards).monitor().start();
    pump_through(&server, || {
        for n in 0..5 {
            let mut other = log_in(&server, "other", &format!("p{n}"));
            config.reload(&server, &pumping(&format!("{{user: other, password: p{}}}", n + 1), ""));
            other.expect_then_close("-ERR 'Authorization Violation'\r\n");
        }
    });
}

fn fifty_reloads_under_load(shards: usize) {
    let config = Config::new(&pumping("", ""));
    let server = config.server().shards(shards).monitor().start();
    pump_through(&server, || {
        for n in 0..50 {
            let more = if n % 2 == 0 { ", other" } else { "" };
            let account = accounts(&[(&format!("A{}", n % 4), &["a"])]);
            let said = config.reload(&server, &format!("{}{account}ping_max: {}\n", pumping("", more), n + 3));
            assert!(said.contains(&format!("Reloaded: ping_max = {}", n + 3)), "{said}");
            log_in(&server, "a", "x").fence();
        }
    });
}

/// Hashes are computed while their users go, change and stay.
fn logins_under_way_are_judged_anew(shards: usize) {
    let [old, new] = ["old", "new"].map(|password| bcrypt::hash(password, 8).expect("a hash"));
    let users = |stays: &str, goes: &str| {
        format!("authorization {{ timeout: 60, users: [ {{user: stays, password: \"{stays}\"}}\n{goes} ] }}\n")
    };
    let goes = format!("{{user: goes, password: \"{old}\"}}");
    let config = Config::new(&users(&old, &goes));
    let server = config.server().shards(shards).start();
    let mut storm: Vec<(&str, Client)> = Vec::new();
    for _ in 0..30 {
        for user in ["goes", "stays"] {
            let mut client = server.connect();
            client.send(format!("CONNECT {}\r\nPING\r\n", options(user, "old")));
            storm.push((user, client));
        }
    }
    config.reload(&server, &users(&old, ""));
    config.reload(&server, &users(&old, ""));
    for (user, client) in &mut storm {
        match *user {
            "stays" => client.expect("PONG\r\n"),
            // Either never let in, or let in and then sent away.
            _ => {
                let text = client.read_to_end();
                let known: [&[u8]; 3] = [b"-ERR 'Authorization Violation'\r\n", b"PONG\r\n", b""];
                assert!(known.contains(&&*text), "{}", support::show(&text));
            }
        }
    }
    // Those who come with a password that does not hold any more by the time it is judged are not let in.
    let mut late: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut late {
        client.send(format!("CONNECT {}\r\nPING\r\n", options("stays", "old")));
    }
    config.reload(&server, &users(&new, ""));
    for client in &mut late {
        let text = String::from_utf8(client.read_to_end()).expect("text");
        assert!(text.ends_with("-ERR 'Authorization Violation'\r\n"), "{text}");
    }
    for (user, client) in &mut storm {
        if *user == "stays" {
            client.expect_then_close("-ERR 'Authorization Violation'\r\n");
        }
    }
    log_in(&server, "stays", "new").fence();
}

/// Without a file there is nothing to read again.
#[test]
fn without_a_file_nothing_is_reloaded() {
    let server = Server::start(1);
    let said = reload(&server);
    let expected =
        "Failed to reload server configuration: can only reload config when a file is provided using -c or --config";
    assert!(said.contains(expected), "{said}");
    server.client().fence();
}

/// The log moves to another file, and a file that cannot be opened refuses the reload. (The reference goes on without
/// a log.)
#[test]
fn the_log_moves() {
    if skip_on_peer("the_log_moves") {
        return;
    }
    let config = Config::new("debug: false\n");
    let files = tempfile::tempdir().expect("a directory");
    let in_dir = |name: &str| files.path().join(name).display().to_string();
    let server = config.server().start();
    let said = config.reload(&server, "log_file: \"/nonexistent/log\"\nping_max: 5\n");
    assert!(said.contains("Failed to reload server configuration: error opening file"), "{said}");
    assert!(!said.contains("Reloaded"), "{said}");
    config.rewrite(&format!("log_file: \"{}\"\nping_max: 6\nserver_tags: [a]\n", in_dir("log")));
    server.signal(libc::SIGHUP);
    let log = || std::fs::read_to_string(in_dir("log")).unwrap_or_default();
    wait_until("the new log says that the reload is over", PATIENCE, || {
        log().contains("Reloaded server configuration")
    });
    assert!(log().contains("Reloaded: ping_max = 6") && log().contains("Reloaded: tags"), "{}", log());
    let before = server.stderr();
    config.rewrite("ping_max: 7\n");
    server.signal(libc::SIGHUP);
    wait_until("standard error is written again", PATIENCE, || server.stderr().contains("Reloaded: ping_max = 7"));
    assert!(server.stderr().len() > before.len());
    server.client().fence();
}

/// `--signal reload` has a running server read its file again.
#[test]
fn the_signal_flag_reloads() {
    let config = Config::new("ping_max: 4\n");
    let server = config.server().start();
    config.rewrite("ping_max: 5\n");
    let finished = support::run(&["-sl", &format!("reload={}", server.pid())]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    server.await_stderr("Reloaded: ping_max = 5");
    server.await_stderr("Reloaded server configuration (sha256:");
}

/// The ports file moves to another directory, and goes when none is wanted any more. The harness gives its own directory
/// as a flag, which would win over the file, so this server is started without it.
#[test]
fn the_ports_file_moves() {
    if skip_on_peer("the_ports_file_moves") {
        return;
    }
    struct Ended(std::process::Child);
    impl Drop for Ended {
        fn drop(&mut self) {
            // It may have ended already, which is as good.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let text = |dir: &std::path::Path| {
        format!("listen: \"127.0.0.1:-1\"\nleat {{ ring_depth: 64 }}\nports_file_dir: \"{}\"\n", dir.display())
    };
    let config = Config::new(&text(first.path()));
    let server = std::process::Command::new(env!("CARGO_BIN_EXE_leat"))
        .args(["-c", config.path()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the server starts");
    let server = Ended(server);
    let name = format!("nats-server_{}.ports", server.0.id());
    let reload = |text: &str| {
        config.rewrite(text);
        let pid = libc::pid_t::try_from(server.0.id()).expect("a process id");
        // SAFETY: kill has no memory effects; the process is our child and not yet reaped.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGHUP) }, 0);
    };
    let is_in = |dir: &tempfile::TempDir| dir.path().join(&name).exists();
    wait_until("the ports file is there", PATIENCE, || is_in(&first));
    let before = std::fs::read(first.path().join(&name)).expect("the ports file");
    reload(&text(second.path()));
    wait_until("it has moved", PATIENCE, || is_in(&second) && !is_in(&first));
    assert_eq!(std::fs::read(second.path().join(&name)).expect("the ports file"), before);
    reload("listen: \"127.0.0.1:-1\"\nleat { ring_depth: 64 }\n");
    wait_until("it has gone", PATIENCE, || !is_in(&second));
}
