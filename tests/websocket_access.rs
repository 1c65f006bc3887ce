//! Promises about what the WebSocket listener asks of its clients: its own credentials instead of everybody's, users by
//! certificate or by cookie, and times of its own. What is expected is what the reference does.

mod support;
mod support_tls;
mod support_websocket;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use support::jwt::{self, World};
use support::{Server, shard_suite};
use support_tls::{Authority, TlsStream};
use support_websocket::{BINARY, Ws, builder, frame, plain};

shard_suite!(one_shard = 1, three_shards = 3 => {
    credentials_of_the_listener,
    a_token_of_the_listener,
    the_user_without_credentials,
    cookies_carry_credentials,
    a_cookie_carries_a_jwt,
    times_of_the_listener,
    certificates_name_users,
    certificates_are_pinned,
});

const USERS: &str = "authorization { users: [ { user: a, password: x }, { user: b, password: y } ] }";

fn parsed(line: &str) -> Value {
    serde_json::from_str(line.strip_prefix("INFO ").expect("INFO")).expect("JSON")
}

/// Logs in over WebSocket; gives whether INFO asked for it, and who the client is then, `None` if it is refused.
fn log_in<S: Read + Write>(server: &Server, ws: &mut Ws<S>, mut connect: Value) -> (bool, Option<String>) {
    let info = parsed(&ws.line());
    connect["verbose"] = json!(false);
    ws.send(&frame(BINARY, format!("CONNECT {connect}\r\nPING\r\n").as_bytes()));
    let asks = info["auth_required"] == json!(true);
    match &*ws.line() {
        "PONG" => {
            let shown = server.get_json(&format!("/connz?auth=1&cid={}", info["client_id"]));
            let user = shown["connections"][0]["authorized_user"].as_str().unwrap_or_default();
            (asks, Some(user.to_owned()))
        }
        line => {
            assert_eq!(line, "-ERR 'Authorization Violation'");
            ws.expect_close(1008, "Authentication Failure");
            (asks, None)
        }
    }
}

fn over_websocket(server: &Server, cookies: &str, connect: Value) -> (bool, Option<String>) {
    log_in(server, &mut Ws::connect(server, cookies).1, connect)
}

fn is_let_in_over_tcp(server: &Server, connect: Value) -> bool {
    let mut client = server.connect();
    let mut connect = connect;
    connect["verbose"] = json!(false);
    client.send(format!("CONNECT {connect}\r\nPING\r\n"));
    client.read_up_to(6) == b"PONG\r\n"
}

fn user(user: &str, pass: &str) -> Value {
    json!({"user": user, "pass": pass})
}

/// A user of the listener takes the place of the one for all, or of nobody; the other listener does not know it.
fn credentials_of_the_listener(shards: usize) {
    let hash = bcrypt::hash("hashed", 4).expect("a hash");
    for (password, given) in [("y", "y"), (&*hash, "hashed")] {
        let server = plain(&format!("authorization {{ user: x, password: \"{password}\" }}"), "", shards);
        assert_eq!(over_websocket(&server, "", user("x", given)), (true, Some("x".to_owned())));
        assert_eq!(over_websocket(&server, "", user("x", "z")), (true, None));
        assert_eq!(over_websocket(&server, "", json!({})), (true, None));
        assert!(is_let_in_over_tcp(&server, json!({})));
        let (_, mut silent) = Ws::connect(&server, "");
        silent.line();
        silent.send(&frame(BINARY, b"PING\r\n"));
        assert_eq!(silent.line(), "-ERR 'Authorization Violation'");
    }
    let all = "authorization { user: g, password: g }";
    let server = plain("authorization { user: x, password: y }", all, shards);
    assert_eq!(over_websocket(&server, "", user("x", "y")).1, Some("x".to_owned()));
    assert_eq!(over_websocket(&server, "", user("g", "g")).1, None);
    assert!(is_let_in_over_tcp(&server, user("g", "g")) && !is_let_in_over_tcp(&server, user("x", "y")));
}

/// A token counts before a user, and what else the client says does not matter.
fn a_token_of_the_listener(shards: usize) {
    let server = plain("authorization { user: x, password: y, token: t }", "", shards);
    assert_eq!(over_websocket(&server, "", user("x", "y")).1, None);
    assert_eq!(over_websocket(&server, "", json!({"auth_token": "t"})).1, Some("[REDACTED]".to_owned()));
    assert_eq!(over_websocket(&server, "", json!({"auth_token": "t", "user": "q"})).1, Some("q".to_owned()));
    assert_eq!(over_websocket(&server, "", json!({"auth_token": "u"})).1, None);
}

/// Who comes without credentials is the listener's user for that, not that of the other listener.
fn the_user_without_credentials(shards: usize) {
    let account = "accounts { A { users: [ { user: a, password: x } ] }, B { users: [ { user: b, password: y } ] } }";
    let server = plain("no_auth_user: a", &format!("no_auth_user: b\n{account}"), shards);
    let (_, mut listener) = Ws::connect(&server, "");
    log_in(&server, &mut listener, user("a", "x"));
    listener.send(&frame(BINARY, b"SUB news 1\r\nPING\r\n"));
    assert_eq!(listener.line(), "PONG");
    let (_, mut ws) = Ws::connect(&server, "");
    assert_eq!(parsed(&ws.line())["auth_required"], true);
    ws.send(&frame(BINARY, b"PUB news 2\r\nws\r\nPING\r\n"));
    assert_eq!([listener.line(), listener.line()], ["MSG news 1 2", "ws"]);
    // The one who comes over TCP is in the other account.
    let mut tcp = server.client();
    tcp.publish("news", "tcp");
    tcp.send("PING\r\n");
    tcp.expect("PONG\r\n");
    assert!(over_websocket(&server, "", json!({})).1.is_some());
    assert_eq!(over_websocket(&server, "", user("b", "y")).1, Some("b".to_owned()));
    assert_eq!(over_websocket(&server, "", user("b", "x")).1, None);
    assert_eq!(over_websocket(&server, "", json!({"auth_token": "t"})).1, None);
    listener.send(&frame(BINARY, b"PING\r\n"));
    assert_eq!(listener.line(), "PONG", "nothing else has come");
    assert_eq!(server.get_json("/varz")["websocket"]["no_auth_user"], "a");
}

/// What CONNECT leaves open is taken from cookies, and judged as if it stood there.
fn cookies_carry_credentials(shards: usize) {
    let names = "user_cookie: u, pass_cookie: p, token_cookie: t";
    let server = plain(&format!("{names}, authorization {{ user: x, password: y }}"), "", shards);
    assert_eq!(over_websocket(&server, "Cookie: u=x; p=y\r\n", json!({})).1, Some("x".to_owned()));
    assert_eq!(over_websocket(&server, "Cookie: u=x; p=z\r\n", json!({})).1, None);
    assert_eq!(over_websocket(&server, "Cookie: u=k; p=z\r\n", user("x", "y")).1, Some("x".to_owned()));
    let server = plain(&format!("{names}, authorization {{ token: s3cret }}"), "", shards);
    assert_eq!(over_websocket(&server, "Cookie: t=s3cret\r\n", json!({})).1, Some("[REDACTED]".to_owned()));
    assert_eq!(over_websocket(&server, "Cookie: t=s3cret\r\n", json!({"auth_token": "q"})).1, None);
    let server = plain(&format!("{names}, no_auth_user: a"), USERS, shards);
    assert_eq!(over_websocket(&server, "Cookie: u=b; p=y\r\n", json!({})).1, Some("b".to_owned()));
    assert_eq!(over_websocket(&server, "Cookie: u=b\r\n", json!({})).1, None);
}

/// Where operators vouch for users, the JWT of one may come in a cookie: that of a bearer, or of whoever signs the nonce. One
/// in CONNECT counts more.
fn a_cookie_carries_a_jwt(shards: usize) {
    let world = World::new();
    let more = world.text(&[(&world.account, world.account(&json!({})))], "");
    let server = plain("jwt_cookie: j", &more, shards);
    let cookie = |jwt: &str| format!("Cookie: j={jwt}\r\n");
    let bearer = world.user_jwt(&json!({"bearer_token": true}));
    let signs = world.user_jwt(&json!({}));
    let user = Some(world.user.public_key());
    assert_eq!(over_websocket(&server, &cookie(&bearer), json!({})).1, user);
    assert_eq!(over_websocket(&server, &cookie(&signs), json!({})).1, None, "it is not signed");
    assert_eq!(over_websocket(&server, "Cookie: j=nonsense\r\n", json!({})).1, None);
    assert_eq!(over_websocket(&server, "", json!({})).1, None);
    assert_eq!(over_websocket(&server, &cookie(&bearer), json!({"jwt": signs})).1, None);
    let stranger = jwt::user_jwt(&KeyPair::new_account(), &world.user, &json!({"bearer_token": true}));
    assert_eq!(over_websocket(&server, &cookie(&stranger), json!({})).1, None);
    assert_eq!(over_websocket(&server, &cookie(&stranger), json!({"jwt": bearer})).1, user);

    let (_, mut ws) = Ws::connect(&server, &cookie(&signs));
    let nonce = parsed(&ws.line())["nonce"].as_str().expect("a nonce").to_owned();
    let sig = BASE64URL_NOPAD.encode(&world.user.sign(nonce.as_bytes()).expect("a signature"));
    ws.send(&frame(BINARY, format!("CONNECT {}\r\nPING\r\n", json!({"sig": sig, "verbose": false})).as_bytes()));
    assert_eq!(ws.line(), "PONG");
}

/// The listener's times count for its clients only.
fn times_of_the_listener(shards: usize) {
    let keys = "ping_interval: \"300ms\", authorization { timeout: 0.3 }, handshake_timeout: \"3s\"";
    let more = "authorization { user: joe, password: x, timeout: 30 }";
    let server = plain(keys, more, shards);
    let shown = server.get_json("/varz");
    let of_listener = &shown["websocket"];
    assert_eq!(
        (&of_listener["auth_timeout"], &of_listener["handshake_timeout"]),
        (&json!(0.3), &json!(3_000_000_000u64))
    );
    assert_eq!(shown["ping_interval"], json!(120_000_000_000u64));
    let mut tcp = server.connect();
    let start = Instant::now();
    let (_, mut silent) = Ws::connect(&server, "");
    silent.line();
    assert_eq!(silent.line(), "-ERR 'Authentication Timeout'");
    assert!(start.elapsed() >= Duration::from_millis(300));
    silent.expect_close(1008, "Authentication Timeout");
    let (_, mut ws) = Ws::connect(&server, "");
    ws.line();
    ws.send(&frame(BINARY, b"CONNECT {\"verbose\":false,\"user\":\"joe\",\"pass\":\"x\"}\r\nPING\r\n"));
    for expected in ["PONG\r\n", "PING\r\n", "PING\r\n", "-ERR 'Stale Connection'\r\n"] {
        assert_eq!(ws.frame().expect("a frame"), (BINARY, expected.into()));
    }
    ws.expect_close(1001, "Stale Connection");
    tcp.send("CONNECT {\"verbose\":false,\"user\":\"joe\",\"pass\":\"x\"}\r\nPING\r\n");
    tcp.expect("PONG\r\n");
}

fn connect_with(server: &Server, authority: &Authority, name: &str) -> Option<Ws<impl Read + Write + use<>>> {
    let socket = TcpStream::connect(server.websocket_addr()).expect("the port accepts");
    let stream = TlsStream::over(socket, &authority.client_config(Some(name))).ok()?;
    Ws::try_over(stream.into_stream(), "").map(|(_, ws)| ws)
}

/// With `verify_and_map` the certificate says who the client is; a user with a password has to give that too. What the
/// other listener's TLS says does not matter.
fn certificates_name_users(shards: usize) {
    let authority = Authority::new();
    let (cert, key, ca) = (authority.file("server.pem"), authority.file("server-key.pem"), authority.file("ca.pem"));
    let tls = |more: &str| format!("tls {{ cert_file: \"{cert}\", key_file: \"{key}\", ca_file: \"{ca}\", {more} }}");
    let users = |password: &str| {
        format!(
            "authorization {{ users: [ {{ user: \"client@example.org\" {password} }}, {{ user: b, password: y }} ] }}"
        )
    };
    let log_in_with = |server: &Server, name, connect: Value| {
        let mut ws = connect_with(server, &authority, name).expect("the handshake should succeed");
        log_in(server, &mut ws, connect).1
    };
    let server = builder(&authority, &format!("no_auth_user: b, {}", tls("verify_and_map: true")), &users(""), shards);
    let server = server.start();
    let client = Some("client@example.org".to_owned());
    assert_eq!(log_in_with(&server, "client", json!({})), client);
    assert_eq!(log_in_with(&server, "client", json!({"user": "b"})), client);
    assert_eq!(log_in_with(&server, "client", user("b", "y")), None);
    assert_eq!(log_in_with(&server, "server", json!({})), None, "a certificate that names nobody");
    assert_eq!(log_in_with(&server, "server", user("b", "y")), None);
    let mut silent = connect_with(&server, &authority, "server").expect("the handshake should succeed");
    silent.line();
    silent.send(&frame(BINARY, b"PING\r\n"));
    assert_eq!(silent.line(), "-ERR 'Authorization Violation'", "it is nobody without CONNECT either");
    assert_eq!(server.get_json("/varz")["websocket"]["tls_map"], true);

    let server = builder(&authority, &tls("verify_and_map: true"), &users(", password: z"), shards).start();
    assert_eq!(log_in_with(&server, "client", json!({})), None);
    assert_eq!(log_in_with(&server, "client", json!({"pass": "z"})), client);

    let all = format!("{}\n{}", users(""), tls("verify_and_map: true"));
    let server = builder(&authority, &tls("verify: true"), &all, shards).start();
    assert_eq!(log_in_with(&server, "client", json!({})), None);
    assert_eq!(log_in_with(&server, "client", user("b", "y")), Some("b".to_owned()));
}

/// A genuine certificate with another key than those that are listed gets nothing. (The reference does not look.)
fn certificates_are_pinned(shards: usize) {
    let authority = Authority::new();
    let (cert, key, ca) = (authority.file("server.pem"), authority.file("server-key.pem"), authority.file("ca.pem"));
    let pin = "ab".repeat(32);
    let tls = format!("cert_file: \"{cert}\", key_file: \"{key}\", ca_file: \"{ca}\", verify: true");
    let server = builder(&authority, &format!("tls {{ {tls}, pinned_certs: [ \"{pin}\" ] }}"), "", shards).start();
    let outcome = connect_with(&server, &authority, "client");
    if server.is_leat() {
        assert!(outcome.is_none());
        server.await_stderr("certificate not pinned");
    }
    assert_eq!(server.get_json("/varz")["websocket"]["tls_pinned_certs"], json!([pin]));
}
