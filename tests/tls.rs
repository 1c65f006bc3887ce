//! Promises about TLS for clients: who gets in by which kind of handshake, that nobody is held up by the handshakes of
//! others, and that inside TLS the protocol is what it is in clear.

mod support;
mod support_tls;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use support::{PATIENCE, Server, ServerBuilder, shard_suite, skip_on_peer, wait_until};
use support_tls::{Authority, TlsStream, certificates, clear_line};
use x509_parser::prelude::{FromDer, X509Certificate};

shard_suite!(one_shard = 1, three_shards = 3 => {
    required_tls_begins_after_info,
    optional_tls_is_chosen_by_the_first_byte,
    tls_first_sends_nothing_in_clear,
    tls_first_falls_back_to_info_in_clear,
    certificates_of_clients_are_checked,
    a_certificate_says_who_the_client_is,
    large_messages_pass_through_slow_readers,
    a_storm_of_handshakes_holds_nobody_up,
    a_slow_consumer_inside_tls_is_cut_off,
    halves_of_connections,
    handshakes_are_limited,
    tls_comes_and_goes_with_reloads,
});

fn builder(config: &str, shards: usize) -> ServerBuilder {
    Server::builder().shards(shards).monitor().args(&["-D", "-c", config])
}

/// The connections of `/connz` with this id.
fn connection(server: &Server, cid: u64) -> Value {
    server.get_json(&format!("/connz?state=any&auth=1&cid={cid}"))["connections"][0].clone()
}

fn parsed(info: &str) -> Value {
    let json = info.strip_prefix("INFO ").unwrap_or_else(|| panic!("not an INFO: {info}"));
    serde_json::from_str(json).expect("INFO should be JSON")
}

fn cid(info: &Value) -> u64 {
    info["client_id"].as_u64().expect("INFO should carry client_id")
}

/// The log says what became of a handshake, and `/connz` that the connection was closed for it.
fn expect_failure(server: &Server, cid: u64, text: &str) {
    server.await_stderr(&format!("cid:{cid} - TLS handshake error: {text}"));
    wait_until("the connection is closed", PATIENCE, || connection(server, cid)["reason"] == "TLS Handshake Failure");
}

/// INFO comes in clear and says so, and then everything is inside TLS; whoever does not begin a handshake is closed, and
/// nobody else.
fn required_tls_begins_after_info(shards: usize) {
    let authority = Authority::new();
    let server = builder(&authority.config("timeout: 0.5", ""), shards).start();
    let config = authority.client_config(None);
    let (info, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
    let info = parsed(&info);
    assert_eq!(
        (&info["tls_required"], &info["tls_verify"], &info["tls_available"]),
        (&true.into(), &Value::Null, &Value::Null)
    );
    // INFO is not repeated: the first line inside TLS answers the PING.
    let mut client = stream.login().expect("login should succeed");
    let shown = connection(&server, cid(&info));
    assert_eq!(shown["tls_version"], "1.3");
    assert!(shown["tls_cipher_suite"].as_str().is_some_and(|suite| suite.starts_with("TLS_")), "{shown}");
    assert_eq!(shown["tls_first"], Value::Null);
    let varz = server.get_json("/varz");
    assert_eq!((&varz["tls_required"], &varz["tls_timeout"]), (&true.into(), &0.5.into()));
    assert!(varz["tls_cert_not_after"].is_string());

    // Commands in clear, garbage that begins as a handshake does, and silence.
    let cases: &[(&[u8], &str)] = &[
        (b"CONNECT {}\r\nPING\r\n", "tls: first record does not look like a TLS handshake"),
        (b"\x16\x03\x01\x00\x05hello", "tls: "),
        (b"", if server.is_leat() { "i/o timeout" } else { "read tcp" }),
        (b"\x16\x03", if server.is_leat() { "i/o timeout" } else { "read tcp" }),
    ];
    for (bytes, error) in cases {
        let mut socket = TcpStream::connect(server.addr()).expect("the port accepts");
        let info = parsed(&clear_line(&mut socket).expect("INFO should come in clear"));
        socket.write_all(bytes).expect("the server takes bytes");
        expect_end(&mut socket);
        expect_failure(&server, cid(&info), error);
    }
    // A client that does not trust the server says so.
    let stranger = Authority::new().client_config(None);
    let (refused, info) = refused(&server, &stranger);
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
    expect_failure(&server, info, "remote error: tls: ");
    client.send(b"PING\r\n").expect("the first client is still there");
    assert_eq!(client.line().expect("and served"), "PONG");
}

/// Tries a handshake that must fail; gives the client's error and the id of the connection.
fn refused(server: &Server, config: &std::sync::Arc<rustls::ClientConfig>) -> (io::Error, u64) {
    let mut socket = TcpStream::connect(server.addr()).expect("the port accepts");
    let info = parsed(&clear_line(&mut socket).expect("INFO should come in clear"));
    // In TLS 1.3 a client learns of a refusal of its certificate when it reads.
    let outcome = TlsStream::over(socket, config).and_then(TlsStream::login);
    (outcome.err().expect("the handshake should fail"), cid(&info))
}

/// Whatever comes, an alert of TLS perhaps, then comes the end of the connection.
fn expect_end(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    match socket.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection should end: {error}"),
    }
    assert!(rest.is_empty() || rest[0] == 0x15, "not an alert: {rest:?}");
}

/// With `allow_non_tls` the first byte of the client decides, whenever it comes.
fn optional_tls_is_chosen_by_the_first_byte(shards: usize) {
    let authority = Authority::new();
    let server = builder(&authority.config("timeout: 0.2", "allow_non_tls: true"), shards).start();
    let mut plain = server.client();
    assert_eq!((&plain.info()["tls_available"], &plain.info()["tls_required"]), (&true.into(), &Value::Null));
    plain.subscribe("a", "1");
    let mut late = server.connect();
    wait_until("the time for a handshake is over", PATIENCE, || {
        connection(&server, late.cid())["uptime"].as_str().is_some_and(|uptime| uptime != "0s")
    });
    let config = authority.client_config(None);
    let (_, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
    let mut secure = stream.login().expect("login should succeed");
    secure.send(b"PUB a 2\r\nhi\r\nPING\r\n").expect("the server reads");
    assert_eq!(secure.line().expect("an answer"), "PONG");
    assert_eq!(plain.next_msg().text(), "hi");
    // Silence for longer than the handshake may take means a connection in clear.
    late.send("CONNECT {\"verbose\":false}\r\n");
    late.expect_nothing();
}

/// With `handshake_first` nothing is said in clear, and INFO is the first thing inside.
fn tls_first_sends_nothing_in_clear(shards: usize) {
    let authority = Authority::new();
    let file = authority.config("handshake_first: true, timeout: 0.5", "max_connections: 2");
    let server = builder(&file, shards).start();
    let config = authority.client_config(None);
    let (info, stream) = TlsStream::first(server.addr(), &config).expect("the handshake should succeed");
    let info = parsed(&info);
    assert_eq!(info["tls_required"], true);
    let _client = stream.login().expect("login should succeed");
    assert_eq!(connection(&server, cid(&info))["tls_first"], true);
    let mut silent = TcpStream::connect(server.addr()).expect("the port accepts");
    wait_until("both are counted", PATIENCE, || server.get_json("/varz")["connections"] == 2);
    // One too many is told so in clear, and a connection without its handshake counts.
    let mut third = TcpStream::connect(server.addr()).expect("the port accepts");
    assert_eq!(clear_line(&mut third).expect("a word"), "-ERR 'maximum connections exceeded'");
    assert_eq!(silent.read(&mut [0; 1]).expect("the end, and no byte before it"), 0);
    expect_failure(&server, cid(&info) + 1, if server.is_leat() { "i/o timeout" } else { "read tcp" });
}

/// With a time for `handshake_first`, a client that begins within it gets INFO inside, and others in clear.
fn tls_first_falls_back_to_info_in_clear(shards: usize) {
    let authority = Authority::new();
    let config = authority.client_config(None);
    for more in ["", "allow_non_tls: true"] {
        let server = builder(&authority.config("handshake_first: \"300ms\"", more), shards).start();
        let (info, stream) = TlsStream::first(server.addr(), &config).expect("the handshake should succeed");
        assert_eq!(parsed(&info)["tls_required"], true);
        stream.login().expect("login should succeed");
        let (info, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
        assert_eq!(parsed(&info)["tls_required"], if more.is_empty() { true.into() } else { Value::Null });
        stream.login().expect("login should succeed");
        assert_eq!(connection(&server, cid(&parsed(&info)))["tls_first"], Value::Null);
        let mut plain = server.connect();
        plain.send("PING\r\n");
        if more.is_empty() {
            plain.read_to_end();
        } else {
            plain.until_pong();
        }
    }
}

/// `verify` lets in whoever has a certificate of the authority, `pinned_certs` only those whose keys it names.
fn certificates_of_clients_are_checked(shards: usize) {
    let authority = Authority::new();
    let client = authority.client_config(Some("client"));
    let verify = format!("verify: true, ca_file: \"{}\"", authority.file("ca.pem"));
    let server = builder(&authority.config(&verify, ""), shards).start();
    let (info, stream) = TlsStream::after_info(server.addr(), &client).expect("the handshake should succeed");
    let info = parsed(&info);
    assert_eq!(info["tls_verify"], true);
    let _stream = stream.login().expect("login should succeed");
    let (spki, whole) = fingerprints(&authority);
    let shown = connection(&server, cid(&info));
    let expected = serde_json::json!({ "subject": "CN=client", "spki_sha256": spki, "cert_sha256": whole });
    assert_eq!(shown["tls_peer_certs"][0], expected);
    let (_, cid) = refused(&server, &authority.client_config(None));
    expect_failure(&server, cid, "tls: client didn't provide a certificate");
    let (_, cid) = refused(&server, &authority.client_config(Some("stranger")));
    expect_failure(&server, cid, "tls: ");
    drop(server);

    for (pin, name) in [(spki.clone(), Ok("client")), (spki, Err("server")), ("0".repeat(64), Err("client"))] {
        let keys = format!("{verify}, pinned_certs: [ \"{}\" ]", pin.to_ascii_uppercase());
        let server = builder(&authority.config(&keys, ""), shards).start();
        match name {
            Ok(name) => {
                let config = authority.client_config(Some(name));
                let (_, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
                stream.login().expect("login should succeed");
            }
            Err(name) => {
                let (_, cid) = refused(&server, &authority.client_config(Some(name)));
                expect_failure(&server, cid, "certificate not pinned");
            }
        }
    }
}

/// The certificate's name is the user, whatever CONNECT says; a user with a password has to give that too.
fn a_certificate_says_who_the_client_is(shards: usize) {
    let authority = Authority::new();
    let verify = format!("verify_and_map: true, ca_file: \"{}\"", authority.file("ca.pem"));
    let users =
        "accounts { A { users: [ { user: \"client@example.org\" } ] }, B { users: [ { user: app, password: x } ] } }";
    let server = builder(&authority.config(&verify, users), shards).start();
    let client = authority.client_config(Some("client"));
    let (info, stream) = TlsStream::after_info(server.addr(), &client).expect("the handshake should succeed");
    let _stream = stream.login().expect("login should succeed");
    let shown = connection(&server, cid(&parsed(&info)));
    assert_eq!((&shown["authorized_user"], &shown["account"]), (&"client@example.org".into(), &"A".into()));
    for (connect, answer) in
        [("{\"user\":\"app\",\"pass\":\"x\"}", "-ERR 'Authorization Violation'"), ("{\"user\":\"app\"}", "+OK")]
    {
        let (_, mut stream) = TlsStream::after_info(server.addr(), &client).expect("the handshake should succeed");
        stream.send(format!("CONNECT {connect}\r\n").as_bytes()).expect("CONNECT should be sent");
        assert_eq!(stream.line().expect("an answer"), answer, "{connect}");
    }
    // One that is genuine but names nobody.
    let (_, mut stream) = TlsStream::after_info(server.addr(), &authority.client_config(Some("server")))
        .expect("the handshake should succeed");
    stream.send(b"CONNECT {\"user\":\"app\",\"pass\":\"x\"}\r\n").expect("CONNECT should be sent");
    assert_eq!(stream.line().expect("an answer"), "-ERR 'Authorization Violation'");
}

/// SHA-256 of the client's public key and of its certificate.
fn fingerprints(authority: &Authority) -> (String, String) {
    let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let der = &certificates(&authority.path("client.pem"))[0];
    let (_, certificate) = X509Certificate::from_der(der).expect("the certificate should be readable");
    (hex(certificate.public_key().raw), hex(der))
}

/// Messages far larger than a record and than the buffers of the sockets go both ways unchanged, however slowly they are
/// read, and others are served meanwhile.
fn large_messages_pass_through_slow_readers(shards: usize) {
    const SIZE: usize = 900_000;
    const COUNT: usize = 20;
    let authority = Authority::new();
    let server = builder(&authority.config("", ""), shards).start();
    let config = authority.client_config(None);
    let connect = || TlsStream::after_info(server.addr(), &config).and_then(|(_, stream)| stream.login());
    let mut readers: Vec<TlsStream> = (0..2).map(|_| connect().expect("login should succeed")).collect();
    for reader in &mut readers {
        reader.send(b"SUB big 1\r\nPING\r\n").expect("the server reads");
        assert_eq!(reader.line().expect("an answer"), "PONG");
    }
    let payload: Vec<u8> = (0..SIZE).map(|i| (i * 31 + i / 255) as u8).collect();
    let mut publisher = connect().expect("login should succeed");
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..COUNT {
                publisher.send(format!("PUB big {SIZE}\r\n").as_bytes()).expect("the server reads");
                publisher.send(&payload).expect("the server reads");
                publisher.send(b"\r\n").expect("the server reads");
            }
        });
        for (number, reader) in readers.iter_mut().enumerate() {
            let payload = &payload;
            scope.spawn(move || {
                for message in 0..COUNT {
                    assert_eq!(reader.line().expect("a message"), format!("MSG big 1 {SIZE}"));
                    let received = reader.bytes(SIZE + 2).expect("its payload");
                    assert!(received[..SIZE] == *payload, "message {message} of reader {number} is damaged");
                }
            });
        }
        // A third client comes and goes all the while.
        for _ in 0..5 {
            connect().expect("login should succeed");
        }
    });
}

/// Three hundred handshakes at once, each of which must succeed, beside a conversation in clear that must not wait.
fn a_storm_of_handshakes_holds_nobody_up(shards: usize) {
    const CLIENTS: usize = 300;
    let authority = Authority::new();
    let server = builder(&authority.config("timeout: 30", "allow_non_tls: true"), shards).start();
    let config = authority.client_config(None);
    let mut plain = server.client();
    let done = AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        let conversation = scope.spawn(|| {
            let (mut slowest, mut count) = (Duration::ZERO, 0);
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                plain.expect_nothing();
                (slowest, count) = (slowest.max(start.elapsed()), count + 1);
            }
            assert!(count > 100, "only {count} round trips");
            slowest
        });
        let sockets: Vec<TcpStream> = (0..CLIENTS)
            .map(|_| {
                let mut socket = TcpStream::connect(server.addr()).expect("the port accepts");
                clear_line(&mut socket).expect("INFO should come in clear");
                socket
            })
            .collect();
        let threads: Vec<_> = sockets
            .into_iter()
            .map(|socket| {
                let config = config.clone();
                scope.spawn(move || TlsStream::over(socket, &config).and_then(TlsStream::login))
            })
            .collect();
        let clients: Vec<TlsStream> = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic").expect("the handshake should succeed"))
            .collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(clients.len(), CLIENTS);
        conversation.join().expect("no panic")
    });
    // The clients' side of the handshakes takes the same processors, so this is far above what the server needs.
    assert!(slowest < Duration::from_secs(2), "a round trip took {slowest:?}");
}

/// A client that does not read is cut off inside TLS as it is in clear.
fn a_slow_consumer_inside_tls_is_cut_off(shards: usize) {
    let authority = Authority::new();
    let file = authority.config("", "max_pending: 2MB");
    let server = builder(&file, shards).start();
    let config = authority.client_config(None);
    let (info, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
    let mut stuck = stream.login().expect("login should succeed");
    stuck.send(b"SUB x 1\r\nPING\r\n").expect("the server reads");
    assert_eq!(stuck.line().expect("an answer"), "PONG");
    let (_, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
    let mut publisher = stream.login().expect("login should succeed");
    let message = [format!("PUB x {}\r\n", 512 << 10).into_bytes(), vec![b'x'; 512 << 10], b"\r\n".to_vec()].concat();
    wait_until("the slow consumer is cut off", PATIENCE, || {
        publisher.send(&message).expect("the publisher is not");
        connection(&server, cid(&parsed(&info)))["reason"] == "Slow Consumer (Pending Bytes)"
    });
    publisher.send(b"PING\r\n").expect("the publisher is still there");
    assert_eq!(publisher.line().expect("and served"), "PONG");
}

/// A client that ends its sending side gets what it has asked for, and the goodbye of TLS; one that breaks off in the
/// middle of a record is closed.
fn halves_of_connections(shards: usize) {
    let authority = Authority::new();
    let server = builder(&authority.config("", ""), shards).start();
    let config = authority.client_config(None);
    let (_, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
    let mut client = stream.login().expect("login should succeed");
    client.send(b"SUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n").expect("the server reads");
    client.socket().shutdown(Shutdown::Write).expect("an open connection should be shut down");
    for expected in ["MSG a 1 2", "hi", "PONG"] {
        assert_eq!(client.line().expect("an answer"), expected);
    }
    // rustls reports a stream that was cut off instead of ended by a goodbye as an error of its own.
    let end = client.line().expect_err("the end");
    assert_eq!((end.kind(), end.to_string().contains("close_notify")), (io::ErrorKind::UnexpectedEof, false));

    let (info, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
    let client = stream.login().expect("login should succeed");
    client.socket().write_all(&[0x17, 3, 3, 0, 100, 1, 2, 3]).expect("the server takes bytes");
    client.socket().shutdown(Shutdown::Write).expect("an open connection should be shut down");
    wait_until("the connection is closed", PATIENCE, || connection(&server, cid(&parsed(&info)))["stop"].is_string());
}

const THROTTLED: &str = "-ERR 'Connection throttling is active. Please try again later.'";

/// Repeats what must happen within a second, on servers of its own, until the machine is fast enough for it.
fn within_a_second(config: &str, shards: usize, mut run: impl FnMut(&Server)) -> Server {
    for _ in 0..20 {
        let server = builder(config, shards).start();
        let start = Instant::now();
        run(&server);
        if start.elapsed() < Duration::from_secs(1) {
            return server;
        }
    }
    panic!("the machine is too slow for this test");
}

/// So many handshakes may begin in a second; to others the server says in clear that there are too many, and closes.
fn handshakes_are_limited(shards: usize) {
    const LIMIT: usize = 3;
    let authority = Authority::new();
    let config = authority.client_config(None);
    for (keys, greets) in [("", true), (", handshake_first: true", false)] {
        let keys = format!("timeout: 30, connection_rate_limit: {LIMIT}{keys}");
        let connect = |server: &Server| {
            let opened = if greets { TlsStream::after_info } else { TlsStream::first };
            opened(server.addr(), &config).and_then(|(_, stream)| stream.login())
        };
        let mut clients = Vec::new();
        let mut outcomes = Vec::new();
        let server = within_a_second(&authority.config(&keys, ""), shards, |server| {
            clients = (0..LIMIT).map(|_| connect(server)).collect();
            outcomes = (0..2).map(|_| TcpStream::connect(server.addr()).expect("the port accepts")).collect();
            for socket in &mut outcomes {
                if greets {
                    parsed(&clear_line(socket).expect("INFO should come in clear"));
                }
                // Whether the client has begun its handshake by then makes no difference.
                socket.write_all(b"\x16\x03\x01").expect("the server reads");
            }
        });
        for client in &mut clients {
            client.as_mut().expect("the handshake should succeed").send(b"PING\r\n").expect("the server reads");
        }
        for socket in &mut outcomes {
            assert_eq!(clear_line(socket).expect("a word"), THROTTLED);
            expect_end(socket);
        }
        let closed = server.get_json("/connz?state=closed")["connections"].clone();
        let reasons = closed.as_array().into_iter().flatten().map(|closed| &closed["reason"]);
        assert_eq!(reasons.filter(|reason| *reason == "Maximum Connections Exceeded").count(), 2, "{closed}");
        // The next second has room again, and the log has told of those who had none.
        server.await_stderr("[WRN] Rejected 2 connections due to TLS rate limiting");
        wait_until("a handshake may begin", PATIENCE, || connect(&server).is_ok());
    }
}

/// Connections in clear are no handshakes, and are not counted as such.
#[test]
fn connections_in_clear_are_not_limited() {
    let authority = Authority::new();
    let config = authority.client_config(None);
    let file = authority.config("connection_rate_limit: 1, timeout: 30", "allow_non_tls: true");
    let mut outcomes = Vec::new();
    let _server = within_a_second(&file, 2, |server| {
        for _ in 0..5 {
            server.client().fence();
        }
        outcomes = (0..2)
            .map(|_| TlsStream::after_info(server.addr(), &config).and_then(|(_, stream)| stream.login()).is_ok())
            .collect();
    });
    assert_eq!(outcomes, [true, false]);
}

/// A reload begins TLS, changes how handshakes begin, and ends TLS: for the connections that come then. Those that are
/// there stay what they are.
fn tls_comes_and_goes_with_reloads(shards: usize) {
    let authority = Authority::new();
    let config = authority.client_config(None);
    let in_clear = support::config::Config::new("ping_max: 2\n");
    let server = in_clear.server().shards(shards).monitor().start();
    let block = |keys: &str| {
        let text = std::fs::read_to_string(authority.config(keys, "")).expect("the file is readable");
        in_clear.reload(&server, &text)
    };
    let tls_facts = || {
        let varz = server.get_json("/varz");
        (varz["tls_required"].clone(), varz["auth_timeout"].clone(), varz["tls_cert_not_after"].is_string())
    };
    let scheme = || server.file(&server.ports_file()).contains("tls://");
    let mut plain = server.client();
    plain.subscribe("a", "1");
    assert_eq!(tls_facts(), (Value::Null, 2.into(), false));

    let said = block("timeout: 4");
    for line in ["authorization timeout = 5", "tls timeout = 4", "tls = enabled"] {
        assert!(said.contains(&format!("Reloaded: {line}")), "{line} is missing: {said}");
    }
    assert_eq!(tls_facts(), (true.into(), 5.into(), true));
    assert!(!server.is_leat() || scheme(), "the ports file should say that clients need TLS");
    let (info, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
    assert_eq!(parsed(&info)["tls_required"], true);
    let mut inside = stream.login().expect("login should succeed");
    let mut other = TcpStream::connect(server.addr()).expect("the port accepts");
    clear_line(&mut other).expect("INFO should come in clear");
    other.write_all(b"CONNECT {}\r\nPING\r\n").expect("the server reads");
    expect_end(&mut other);

    assert!(block("handshake_first: true").contains("Reloaded: Client TLS handshake first: true"));
    let (info, stream) = TlsStream::first(server.addr(), &config).expect("the handshake should succeed");
    assert_eq!(parsed(&info)["tls_required"], true);
    stream.login().expect("login should succeed");

    let said = in_clear.reload(&server, "ping_max: 2\n");
    assert!(said.contains("Reloaded: tls = disabled"), "{said}");
    assert_eq!(tls_facts(), (Value::Null, 2.into(), false));
    assert!(!scheme());
    let mut late = server.client();
    assert_eq!(late.info()["tls_required"], Value::Null);
    inside.send(b"PUB a 2\r\nhi\r\nPING\r\n").expect("the client inside TLS is still there");
    assert_eq!(inside.line().expect("and served"), "PONG");
    assert_eq!(plain.next_msg().text(), "hi");
    late.publish("a", "ho");
    assert_eq!(plain.next_msg().text(), "ho");
    // Certificates that cannot be used begin no TLS.
    std::fs::write(authority.path("server-key.pem"), "damaged").expect("a file should be written");
    assert!(block("").contains("Failed to reload"));
    server.client().fence();
}

/// A client has a second more to log in than its handshake may take, unless the file says otherwise.
#[test]
fn time_for_a_login_follows_that_for_a_handshake() {
    let authority = Authority::new();
    let user = "user: u, password: p";
    for (tls, more, expected) in [
        ("", String::new(), 3.0),
        ("timeout: 0.5", format!("authorization {{ {user} }}"), 1.5),
        ("timeout: 10", format!("authorization {{ {user}, timeout: 7 }}"), 7.0),
        ("timeout: 10", "authorization { timeout: 0 }".to_owned(), 11.0),
        ("timeout: 4", "allow_non_tls: true".to_owned(), 5.0),
    ] {
        let server = builder(&authority.config(tls, &more), 1).start();
        assert_eq!(server.get_json("/varz")["auth_timeout"].as_f64(), Some(expected), "{tls} {more}");
    }
}

/// The versions and suites that the configuration names are those that are used.
#[test]
fn versions_and_suites_are_chosen() {
    let authority = Authority::new();
    let config = authority.client_config(None);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let old = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS12]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificates(&authority.path("ca.pem"))[0].clone()).expect("a usable certificate");
    let old = old.expect("TLS 1.2 is there").with_root_certificates(roots).with_no_client_auth();
    let old = std::sync::Arc::new(old);

    let suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let server = builder(&authority.config(&format!("cipher_suites: [ {suite} ]"), ""), 1).start();
    let (info, stream) = TlsStream::after_info(server.addr(), &old).expect("the handshake should succeed");
    let _stream = stream.login().expect("login should succeed");
    let shown = connection(&server, cid(&parsed(&info)));
    assert_eq!((&shown["tls_version"], &shown["tls_cipher_suite"]), (&"1.2".into(), &suite.into()));
    drop(server);

    let server = builder(&authority.config("min_version: \"1.3\", curve_preferences: [ CurveP384 ]", ""), 1).start();
    refused(&server, &old);
    let (_, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
    let group = stream.session().negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(rustls::NamedGroup::secp384r1));
}

/// Flags are enough for TLS, and what cannot be used is refused at the start, in one line that names the file.
#[test]
fn flags_and_refusals() {
    let authority = Authority::new();
    let file = |name: &str| authority.file(name);
    let (cert, key, ca) = (file("server.pem"), file("server-key.pem"), file("ca.pem"));
    let flags = ["--tlsverify", "--tlscert", &cert, "--tlskey", &key, "--tlscacert", &ca];
    let server = Server::builder().args(&flags).start();
    let config = authority.client_config(Some("client"));
    let (info, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
    assert_eq!(parsed(&info)["tls_verify"], true);
    stream.login().expect("login should succeed");
    refused(&server, &authority.client_config(None));
    drop(server);

    let client_key = file("client-key.pem");
    let cases: &[(&[&str], &str)] = &[
        (&["--tls"], "TLS Server certificate must be present and valid"),
        (&["--tls", "--tlscert", &cert], "TLS Server private key must be present and valid"),
        (
            &["--tlscert", &cert, "--tlskey", &client_key],
            "error parsing X509 certificate/key pair: tls: private key does not match public key",
        ),
        (&["--tlscert", "/nonexistent", "--tlskey", &key], "/nonexistent"),
    ];
    for (args, error) in cases {
        let finished = Server::builder().args(args).start_in_vain();
        assert_eq!(finished.code, Some(1), "{args:?}");
        assert!(finished.stderr.contains(error), "{args:?}: {}", finished.stderr);
    }
}

/// SIGHUP reads certificates anew: later handshakes see the new one, connections stay, and what cannot be used changes
/// nothing.
#[test]
fn certificates_are_read_anew() {
    let authority = Authority::new();
    let server = builder(&authority.config("", ""), 2).start();
    let config = authority.client_config(None);
    let connect = || {
        let (_, stream) = TlsStream::after_info(server.addr(), &config).expect("the handshake should succeed");
        stream.login().expect("login should succeed")
    };
    let shown = |client: &TlsStream| client.session().peer_certificates().map(|chain| chain[0].to_vec());
    let mut first = connect();
    let before = server.get_json("/varz")["tls_cert_not_after"].clone();
    authority.renew_server();
    server.signal(libc::SIGHUP);
    server.await_stderr("Reloaded server configuration");
    let second = connect();
    assert_ne!(shown(&first), shown(&second));
    assert_ne!(before, server.get_json("/varz")["tls_cert_not_after"], "the new certificate is valid for longer");
    std::fs::write(authority.path("server.pem"), "damaged").expect("a file should be written");
    server.signal(libc::SIGHUP);
    server.await_stderr("Failed to reload");
    assert_eq!(shown(&second), shown(&connect()));
    first.send(b"PING\r\n").expect("the first client is still there");
    assert_eq!(first.line().expect("and served"), "PONG");
}

/// A stop ends handshakes that are going on, and does not wait for them.
#[test]
fn a_stop_does_not_wait_for_handshakes() {
    if skip_on_peer("a_stop_does_not_wait_for_handshakes") {
        return;
    }
    let authority = Authority::new();
    let mut server = builder(&authority.config("timeout: 600", ""), 2).start();
    let mut socket = TcpStream::connect(server.addr()).expect("the port accepts");
    clear_line(&mut socket).expect("INFO should come in clear");
    server.signal(libc::SIGTERM);
    assert!(server.wait_exit(PATIENCE).is_some_and(|status| status.success()), "the server should stop at SIGTERM");
    expect_end(&mut socket);
}
