//! Promises about WebSocket: a request that is in order becomes one and others are answered, the protocol inside does not
//! care about frames, and the end of a connection says why.

mod support;
mod support_tls;
mod support_websocket;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use support::{PATIENCE, Server, shard_suite, wait_until};
use support_tls::{Authority, TlsStream};
use support_websocket::{BINARY, CLOSE, CONNECT, PING, PONG, UPGRADE, Ws, builder, frame, plain};

shard_suite!(one_shard = 1, three_shards = 3 => {
    frames_carry_the_protocol,
    borders_of_frames_mean_nothing,
    frames_that_must_not_be_end_their_own_connection,
    the_end_says_why,
    large_messages_pass_through_slow_readers,
    inside_tls,
});

/// INFO is that of the listener; messages go between clients of both listeners and all shards; `/connz` and `/varz` know.
fn frames_carry_the_protocol(shards: usize) {
    let server = plain("headers { X-Served-By: mill }", "", shards);
    let (head, mut first) = Ws::connect(&server, "");
    assert!(head.contains("\r\nX-Served-By: mill\r\n"), "{head}");
    let info: Value = serde_json::from_str(first.line().strip_prefix("INFO ").expect("INFO")).expect("JSON");
    assert_eq!((&info["host"], &info["port"]), (&json!("127.0.0.1"), &json!(server.websocket_addr().port())));
    assert_eq!(info["tls_required"], Value::Null);
    first.send(&frame(BINARY, b"CONNECT {\"verbose\":false,\"name\":\"w\"}\r\nSUB a.* 1\r\nPING\r\n"));
    assert_eq!(first.line(), "PONG");
    let mut others: Vec<Ws<TcpStream>> = (0..4).map(|_| Ws::client(&server)).collect();
    for other in &mut others {
        other.send(&frame(BINARY, b"PUB a.ws 3\r\nows\r\n"));
        assert_eq!((first.line(), first.line()), ("MSG a.ws 1 3".to_owned(), "ows".to_owned()));
    }
    let mut raw = server.client();
    raw.subscribe("b", "2");
    raw.publish("a.raw", "raw");
    assert_eq!((first.line(), first.line()), ("MSG a.raw 1 3".to_owned(), "raw".to_owned()));
    first.send(&frame(BINARY, b"PUB b 2\r\nhi\r\n"));
    assert_eq!(raw.next_msg().text(), "hi");
    let cid = info["client_id"].as_u64().expect("an id");
    let shown = server.get_json(&format!("/connz?cid={cid}"))["connections"][0].clone();
    assert_eq!((&shown["type"], &shown["name"]), (&json!("websocket"), &json!("w")));
    let varz = server.get_json("/varz")["websocket"].clone();
    assert_eq!(varz, json!({"host": "127.0.0.1", "port": server.websocket_addr().port(), "no_tls": true}));
}

/// Commands may be cut and joined anywhere, in text or binary, with pings between the parts, or without masks if that was
/// agreed on.
fn borders_of_frames_mean_nothing(shards: usize) {
    let server = plain("", "", shards);
    let (_, mut ws) = Ws::connect(&server, "");
    ws.line();
    let mut bytes = [frame(0x02, &CONNECT[..5]), frame(PING, b"between"), frame(0x00, &CONNECT[5..20])].concat();
    bytes.extend(frame(PONG, b"nobody asked"));
    bytes.extend(frame(0x80, &CONNECT[20..]));
    // Byte by byte, so that headers are cut too.
    for byte in bytes {
        ws.send(&[byte]);
    }
    assert_eq!(ws.frame().expect("a frame"), (PONG, b"between".to_vec()));
    assert_eq!(ws.line(), "PONG");
    ws.send(
        &[frame(0x81, b"SUB a 1\r\nPUB a 5\r\nhe"), frame(BINARY, b""), frame(BINARY, b"llo\r\nPING\r\n")].concat(),
    );
    assert_eq!([ws.line(), ws.line(), ws.line()], ["MSG a 1 5", "hello", "PONG"]);

    let (head, mut unmasked) = Ws::connect(&server, "Nats-No-Masking: true\r\n");
    assert!(head.contains("\r\nNats-No-Masking: true\r\n"), "{head}");
    unmasked.line();
    unmasked.send(&[&[BINARY, CONNECT.len() as u8], CONNECT].concat());
    assert_eq!(unmasked.line(), "PONG");
    // Masks were not agreed on. (The reference gives no reason.)
    unmasked.send(&frame(BINARY, b"PING\r\n"));
    if server.is_leat() {
        unmasked.expect_close(1002, "mask bit set although no masks were agreed on");
    } else {
        unmasked.expect_end();
    }
}

/// A client that breaks the rules of WebSocket is closed, and told why; nobody else is.
fn frames_that_must_not_be_end_their_own_connection(shards: usize) {
    let server = plain("", "", shards);
    let mut witness = Ws::client(&server);
    let cases: &[(Vec<u8>, u16, &str)] = &[
        (vec![BINARY, 1, b'x'], 1002, "mask bit missing"),
        (frame(PING, &[b'x'; 126]), 1002, "control frame length bigger than maximum allowed of 125 bytes"),
        (frame(0xC2, b"x"), 1002, "compressed frame received without negotiated permessage-deflate"),
        (frame(0x83, b"x"), 1002, "unknown opcode 3"),
        (frame(0x80, b"x"), 1002, "invalid continuation frame"),
        (frame(CLOSE, &[3, 232, 0xFF]), 1007, "invalid utf8 body in close frame"),
    ];
    for (bytes, code, text) in cases {
        let (_, mut ws) = Ws::connect(&server, "");
        ws.line();
        ws.send(bytes);
        if server.is_leat() {
            ws.expect_close(*code, text);
        }
        if server.is_leat() || *code == 1002 {
            server.await_stderr(text);
        }
    }
    witness.send(&frame(BINARY, b"PING\r\n"));
    assert_eq!(witness.line(), "PONG");
}

/// Whatever ends a connection, the close frame has its code and its text, behind the `-ERR` of the protocol.
fn the_end_says_why(shards: usize) {
    let more = "authorization { user: joe, password: s3cret, timeout: 0.3 }\nmax_payload: 1000";
    let mut server = plain("user_cookie: who, pass_cookie: key", more, shards);
    let login = "Cookie: who=joe; key=s3cret; other=1\r\n";
    let connect = |cookie: &str| {
        let (_, mut ws) = Ws::connect(&server, cookie);
        ws.line();
        ws
    };
    let mut silent = connect("");
    assert_eq!(silent.line(), "-ERR 'Authentication Timeout'");
    silent.expect_close(1008, "Authentication Timeout");
    let mut stranger = connect("Cookie: who=joe; key=wrong\r\n");
    stranger.send(&frame(BINARY, CONNECT));
    assert_eq!(stranger.line(), "-ERR 'Authorization Violation'");
    stranger.expect_close(1008, "Authentication Failure");
    let joe = || {
        let mut ws = connect(login);
        ws.send(&frame(BINARY, CONNECT));
        assert_eq!(ws.line(), "PONG");
        ws
    };
    let mut large = joe();
    large.send(&frame(BINARY, b"PUB a 1001\r\n"));
    assert_eq!(large.line(), "-ERR 'Maximum Payload Violation'");
    large.expect_close(1009, "Maximum Message Payload Exceeded");
    // The client's own close frame is answered in kind, after what it has asked for.
    let mut leaving = joe();
    leaving.send(&[frame(BINARY, b"PING\r\n"), frame(CLOSE, b"\x0b\xb8bye")].concat());
    if server.is_leat() {
        assert_eq!(leaving.line(), "PONG");
    } else {
        // The reference answers the close frame and forgets the rest.
        while leaving.inside.is_empty() && !matches!(leaving.frame(), Ok((CLOSE, _))) {}
    }
    if server.is_leat() {
        leaving.expect_close(3000, "bye");
    }
    let mut last = joe();
    server.signal(libc::SIGTERM);
    last.expect_close(1001, "Server Shutdown");
    assert!(server.wait_exit(PATIENCE).is_some(), "the server should stop at SIGTERM");
}

/// Large messages go both ways unchanged, however slowly they are read, with pings between them.
fn large_messages_pass_through_slow_readers(shards: usize) {
    const SIZE: usize = 900_000;
    const COUNT: usize = 20;
    let server = plain("", "", shards);
    let mut reader = Ws::client(&server);
    reader.send(&frame(BINARY, b"SUB big 1\r\nPING\r\n"));
    assert_eq!(reader.line(), "PONG");
    let payload: Vec<u8> = (0..SIZE).map(|i| (i * 31 + i / 255) as u8).collect();
    let mut publisher = Ws::client(&server);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..COUNT {
                publisher.send(&frame(BINARY, format!("PUB big {SIZE}\r\n").as_bytes()));
                for part in payload.chunks(70_001) {
                    publisher.send(&frame(BINARY, part));
                }
                publisher.send(&frame(BINARY, b"\r\n"));
            }
        });
        for message in 0..COUNT {
            assert_eq!(reader.line(), format!("MSG big 1 {SIZE}"));
            assert!(reader.bytes(SIZE + 2)[..SIZE] == payload, "message {message} is damaged");
        }
    });
}

/// With TLS the request comes inside it, and INFO and `/connz` say so; SIGHUP reads the certificate anew; a client in clear
/// gets nothing.
fn inside_tls(shards: usize) {
    let authority = Authority::new();
    let (cert, key) = (authority.file("server.pem"), authority.file("server-key.pem"));
    let keys = format!("tls {{ cert_file: \"{cert}\", key_file: \"{key}\" }}");
    let server = builder(&authority, &keys, "", shards).start();
    let config = authority.client_config(None);
    let connect = || {
        let socket = TcpStream::connect(server.websocket_addr()).expect("the port accepts");
        let stream = TlsStream::over(socket, &config).expect("the handshake should succeed");
        let certificate = stream.session().peer_certificates().map(|chain| chain[0].to_vec());
        (certificate, Ws::over(stream.into_stream(), "").1)
    };
    let (before, mut ws) = connect();
    let info: Value = serde_json::from_str(ws.line().strip_prefix("INFO ").expect("INFO")).expect("JSON");
    assert_eq!(info["tls_required"], true);
    ws.send(&frame(BINARY, b"CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 70000\r\n"));
    ws.send(&[frame(BINARY, &[b'x'; 70_000]), frame(BINARY, b"\r\nPING\r\n")].concat());
    assert_eq!(ws.line(), "MSG a 1 70000");
    assert!(ws.bytes(70_002).starts_with(&[b'x'; 70_000]));
    assert_eq!(ws.line(), "PONG");
    let shown = server.get_json(&format!("/connz?cid={}", info["client_id"]))["connections"][0].clone();
    assert_eq!((&shown["type"], &shown["tls_version"]), (&json!("websocket"), &json!("1.3")));
    authority.renew_server();
    server.signal(libc::SIGHUP);
    server.await_stderr("Reloaded");
    if server.is_leat() {
        // The reference keeps the old one here.
        wait_until("the new certificate is shown", PATIENCE, || connect().0 != before);
    }
    let mut clear = TcpStream::connect(server.websocket_addr()).expect("the port accepts");
    clear.write_all(format!("{UPGRADE}\r\n").as_bytes()).expect("the server reads");
    server.await_stderr("websocket: TLS handshake error from ");
    ws.send(&frame(BINARY, b"PING\r\n"));
    assert_eq!(ws.line(), "PONG");
}

/// Sends a request and reads the answer to its end.
fn answer(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.websocket_addr()).expect("the port accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout should be settable");
    // A server that has seen enough may close before it has read everything.
    let _ = stream.write_all(request.as_bytes());
    let mut text = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|count| count > 0) {
        text.push(byte[0]);
        if text.ends_with(b"\r\n\r\n") && !server.is_leat() {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Requests that are not in order get the reference's status, the log says why, and nothing waits for the silent.
#[test]
fn requests_that_are_refused() {
    let server = plain("same_origin: true, handshake_timeout: \"500ms\"", "", 2);
    let cases = [
        (UPGRADE.replace("GET", "POST"), "405 Method Not Allowed", "request method must be GET"),
        (UPGRADE.replace("Upgrade: websocket", "X: y"), "400 Bad Request", "invalid value for header 'Upgrade'"),
        (UPGRADE.replace("Version: 13", "Version: 12"), "400 Bad Request", "invalid version"),
        (UPGRADE.replace("GET /", "GET /mqtt"), "404 Not Found", "mqtt websocket endpoint not enabled"),
        (format!("{UPGRADE}Origin: http://elsewhere\r\n"), "403 Forbidden", "origin not allowed: not same origin"),
    ];
    for (head, status, detail) in cases {
        let answer = answer(&server, &format!("{head}\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(answer.contains("\r\nSec-Websocket-Version: 13\r\n"), "{answer}");
        server.await_stderr(&format!("websocket handshake error: {detail}"));
    }
    assert_eq!(server.get_json("/connz?state=any")["total"], json!(0));
    if server.is_leat() {
        let early = format!("{UPGRADE}\r\nnot waiting for the answer");
        assert!(answer(&server, &early).starts_with("HTTP/1.1 400 "));
        assert!(answer(&server, "\x16\x03\x01garbage\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(100_000));
        assert!(answer(&server, &endless).starts_with("HTTP/1.1 431 "));
        let start = Instant::now();
        assert_eq!(answer(&server, "GET / HTTP/1.1\r\nHost: x\r\n"), "", "silence ends the connection");
        assert!(start.elapsed() < PATIENCE);
    }
    Ws::client(&server);
}
