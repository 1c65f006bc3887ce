//! Clients that are broken or mean. Whatever they send, the server stays up, bounded and useful to everybody else.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;
use support::{Client, PATIENCE, Server, shard_suite, show, wait_until};

shard_suite!(one_shard = 1, three_shards = 3 => {
    mutated_transcripts_harm_nobody_else,
    absurd_numbers_are_refused,
    empty_and_binary_arguments_are_survived,
    endless_lines_are_cut_short,
    endless_idle_text_uses_no_memory,
    endless_payloads_before_connect_use_no_memory,
    half_open_connections_cost_little,
    thousands_of_long_subscriptions_come_and_go,
    a_reset_in_mid_message_delivers_nothing_of_it,
    slow_bytes_delay_nobody,
    urgent_data_hides_nothing_behind_it,
    deep_and_broken_json_is_refused,
    connections_that_come_and_go_leave_nothing_behind,
});

/// Proves that the server serves ordinary clients on every shard and that nothing went wrong inside it.
fn assert_healthy(server: &Server) {
    let mut publisher = server.client_on(0);
    for shard in 0..server.shards() {
        let mut subscriber = server.client_on(shard);
        subscriber.subscribe("still.alive", "1");
        publisher.publish("still.alive", "yes");
        subscriber.expect("MSG still.alive 1 3\r\nyes\r\n");
    }
    let log = server.stderr();
    for trouble in ["panic", "assertion", "[FTL]"] {
        assert!(!log.contains(trouble), "{trouble} in the log:\n{log}");
    }
}

/// Transcripts of well-behaved clients, as raw material.
fn transcripts() -> Vec<Vec<u8>> {
    let connect =
        "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"name\":\"x\"}\r\n";
    let large = "x".repeat(3000);
    [
        "SUB foo 1\r\nPUB foo 5\r\nhello\r\nUNSUB 1\r\nPING\r\n".to_owned(),
        "SUB foo.* q 1\r\nUNSUB 1 3\r\nPUB foo.a r.b 2\r\nhi\r\nPUB foo.b 0\r\n\r\nPING\r\nPONG\r\n".to_owned(),
        "SUB h 1\r\nHPUB h 22 26\r\nNATS/1.0\r\nKey: Val\r\n\r\nbody\r\nHPUB h r 12 12\r\nNATS/1.0\r\n\r\n\r\n"
            .to_owned(),
        format!("SUB > 9\r\nPUB big 3000\r\n{large}\r\nSUB {} 2\r\nPING\r\n", "t.".repeat(500) + "t"),
        "SUB _INBOX.1 1\r\nPUB nobody _INBOX.1 0\r\n\r\nINFO {}\r\n+OK\r\nPING\r\n".to_owned(),
    ]
    .into_iter()
    .map(|tail| [connect.as_bytes(), tail.as_bytes()].concat())
    .collect()
}

/// Changes a transcript in one to four places.
fn mutate(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    const TOKENS: [&[u8]; 14] = [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\0",
        b"0",
        b"-1",
        b"99999999999",
        b"PUB",
        b"HPUB a 1 2",
        b".",
        b">",
        b"{}",
    ];
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(..=bytes.len());
        let until = at + random.usize(..40).min(bytes.len() - at);
        match random.u32(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u32(0..8),
            1 => bytes.insert(at, random.u8(..)),
            2 => drop(bytes.drain(at..until)),
            3 => {
                let copy = bytes[at..until].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.splice(at..until, TOKENS[random.usize(..TOKENS.len())].iter().copied())),
            _ => {
                let to = random.usize(..=bytes.len());
                let piece = bytes[at..until].to_vec();
                bytes.splice(to..to, piece);
            }
        }
    }
}

/// Damaged transcripts, in pieces and ended in various ways, are answered with an error, a close or silence. The server
/// serves others all the while.
fn mutated_transcripts_harm_nobody_else(shards: usize) {
    const CONNECTIONS: u64 = 600;
    let server = Server::start(shards);
    let transcripts = transcripts();
    let mut open = Vec::new();
    let mut witness = server.client_on(1);
    witness.subscribe("witness", "1");
    for seed in 0..CONNECTIONS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = transcripts[random.usize(..transcripts.len())].clone();
        mutate(&mut random, &mut bytes);
        let mut client = server.connect();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(random.usize(1..=rest.len()));
            if !client.send_if_open(piece) {
                break;
            }
            rest = later;
        }
        match random.u32(0..3) {
            0 => {
                client.finish_sending_if_open();
                let answer = client.read_to_end_within(PATIENCE);
                assert!(answer.is_ok(), "seed {seed}: open after the end of {}", show(&bytes));
            }
            1 => open.push(client),
            _ => drop(client),
        }
        if seed % 50 == 0 {
            server.client().publish("witness", seed.to_string());
            assert_eq!(witness.next_msg().text(), seed.to_string());
        }
    }
    drop(open);
    assert_healthy(&server);
}

/// Numbers beyond any type's range close the connection and reserve no memory.
fn absurd_numbers_are_refused(shards: usize) {
    let server = Server::start(shards);
    let connect = "CONNECT {\"verbose\":false,\"headers\":true}\r\n";
    let before = server.resident_bytes();
    for number in ["999999999", "1048577", "2147483648", "4294967295", "18446744073709551616", &"9".repeat(300)] {
        for line in [
            format!("PUB foo {number}\r\n"),
            format!("PUB foo bar {number}\r\n"),
            format!("HPUB foo 12 {number}\r\n"),
            format!("HPUB foo {number} {number}\r\n"),
            format!("HPUB foo {number} 12\r\n"),
        ] {
            let mut client = server.connect();
            client.send_if_open(format!("{connect}{line}").as_bytes());
            let answer = client.read_to_end();
            let allowed: [&[u8]; 2] = [b"", b"-ERR 'Maximum Payload Violation'\r\n"];
            assert!(allowed.contains(&answer.as_slice()), "{line}: {}", show(&answer));
        }
    }
    let mut client = server.client();
    client.send("SUB foo 1\r\nUNSUB 1 99999999999999999999999\r\nUNSUB 2 -5\r\n");
    client.expect_nothing();
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more are resident");
    assert_healthy(&server);
}

/// Arguments of NULs and other odd bytes are names like any others, or refused; never more than that.
fn empty_and_binary_arguments_are_survived(shards: usize) {
    let server = Server::start(shards);
    let connect = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
    let cases: [&[u8]; 12] = [
        b"SUB \0 \0\r\nPUB \0 1\r\n\0\r\n",
        b"SUB \x80\xff 1\r\nPUB \x80\xff 0\r\n\r\n",
        b"PUB  0\r\n\r\n",
        b"PUB . 0\r\n\r\n",
        b"SUB . 1\r\nSUB .. 2\r\nSUB > 3\r\nPUB .. 0\r\n\r\n",
        b"SUB \r\n",
        b"SUB  \r\n",
        b"UNSUB \r\n",
        b"HPUB \r\n",
        b"\0\0\0\0\0\0\0\0",
        b"\r\r\r\r\r\n",
        b"\xff\xfe\x00\x01PING\r\n",
    ];
    for case in cases {
        let mut client = server.connect();
        client.send_if_open(&[connect.as_slice(), case].concat());
        client.finish_sending_if_open();
        client.read_to_end();
    }
    assert_healthy(&server);
}

/// Sends `bytes` over and over until the server closes the connection, at most `limit` bytes; returns how many it took.
fn pour(client: &Client, bytes: &[u8], limit: usize) -> usize {
    let mut socket = client.socket();
    let mut sent = 0;
    while sent < limit {
        match socket.write(bytes) {
            Ok(len) => sent += len,
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
            Err(error) => panic!("cannot send: {error}"),
        }
    }
    sent
}

/// Megabytes without a line end are not collected: the connection is closed soon, before and after CONNECT.
fn endless_lines_are_cut_short(shards: usize) {
    const LIMIT: usize = 64 << 20;
    let server = Server::start(shards);
    let before = server.resident_bytes();
    for start in ["", "CONNECT {\"name\":\"", "SUB ", "PUB foo ", "INFO {", "-ERR ", "HPUB "] {
        let client = server.connect();
        client.socket().write_all(start.as_bytes()).expect("the connection is open");
        let sent = pour(&client, &[b'x'; 65_536], LIMIT);
        assert!(sent < LIMIT, "{start:?}: the server takes lines without end");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more are resident");
    assert_healthy(&server);
}

/// Text behind PING means nothing and may go on for ever, as with the reference server; nothing of it is kept.
fn endless_idle_text_uses_no_memory(shards: usize) {
    const BYTES: usize = 64 << 20;
    let server = Server::start(shards);
    let before = server.resident_bytes();
    for start in ["PING ", "PONG", "+OK x"] {
        let mut client = server.client();
        client.send(start);
        assert!(pour(&client, &[b'x'; 65_536], BYTES) >= BYTES, "{start:?}: the line was cut short");
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes more are resident");
        client.send("\r\n");
        if start == "PING " {
            client.expect("PONG\r\n");
        }
        client.expect_nothing();
    }
}

/// Where a password is required a stranger gets nothing stored, whatever size he announces.
fn endless_payloads_before_connect_use_no_memory(shards: usize) {
    const LIMIT: usize = 16 << 20;
    let server = Server::builder().shards(shards).user("u", "p").start();
    let before = server.resident_bytes();
    for _ in 0..20 {
        let client = server.connect();
        let _ = client.socket().write_all(b"PUB foo 1000000\r\n");
        let sent = pour(&client, &[b'x'; 65_536], LIMIT);
        assert!(sent < LIMIT, "a stranger may send without end");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more are resident");
}

/// Connections that stay silent or stop in the middle of something are cheap and in nobody's way.
fn half_open_connections_cost_little(shards: usize) {
    const CONNECTIONS: usize = 400;
    /// Leat promises little; the reference server has stacks and buffers for each connection.
    const LEAT_BYTES_EACH_MAX: u64 = 64 * 1024;
    const PEER_BYTES_EACH_MAX: u64 = 512 * 1024;
    const STARTS: [&str; 5] =
        ["", "CON", "CONNECT {\"verb", "CONNECT {}\r\nPUB foo 1000000\r\nabc", "CONNECT {}\r\nSUB a"];
    let server = Server::start(shards);
    let before = server.resident_bytes();
    let mut connections = Vec::new();
    for index in 0..CONNECTIONS {
        let mut client = server.connect();
        client.send(STARTS[index % STARTS.len()]);
        if index % 10 == 0 {
            client.finish_sending_if_open();
        }
        connections.push(client);
    }
    assert_healthy(&server);
    let grown = server.resident_bytes().saturating_sub(before) / CONNECTIONS as u64;
    let allowed = if server.is_leat() { LEAT_BYTES_EACH_MAX } else { PEER_BYTES_EACH_MAX };
    assert!(grown < allowed, "{grown} bytes each");
}

/// Thousands of subscriptions with long subjects work, and closing the connection removes them all.
fn thousands_of_long_subscriptions_come_and_go(shards: usize) {
    const SUBSCRIPTIONS: usize = 5_000;
    let server = Server::start(shards);
    let subscriptions = || server.get_json("/varz")["subscriptions"].as_u64().expect("subscriptions is a number");
    let before = subscriptions();
    let mut publisher = server.client_on(0);
    let mut client = server.client_on(1);
    let subject = |index: usize| format!("{}{index}.{}", "long.".repeat(100), "x".repeat(400));
    for index in 0..SUBSCRIPTIONS {
        let wildcard = if index % 10 == 0 { ".*.>" } else { "" };
        client.send(format!("SUB {}{wildcard} {index}\r\n", subject(index)));
    }
    client.expect_nothing();
    assert_eq!(subscriptions(), before + SUBSCRIPTIONS as u64);
    publisher.publish(&subject(777), "x");
    assert_eq!(client.next_msg().sid, "777");
    drop(client);
    wait_until("the subscriptions are gone", PATIENCE, || subscriptions() == before);
    publisher.publish(&subject(777), "x");
    assert_healthy(&server);
}

/// A message that was cut off by a reset is not delivered, neither whole nor in part; those before it are.
fn a_reset_in_mid_message_delivers_nothing_of_it(shards: usize) {
    const ROUNDS: usize = 20;
    let server = Server::start(shards);
    let mut subscriber = server.client_on(1);
    subscriber.subscribe("foo", "1");
    for round in 0..ROUNDS {
        let mut client = server.client_on(0);
        client.send("PUB foo 5\r\nwhole\r\nPING\r\nPUB foo 100000\r\n");
        client.send(vec![b'x'; 1 + round * 4000]);
        client.expect("PONG\r\n");
        let socket = SockRef::from(client.socket());
        socket.set_linger(Some(Duration::ZERO)).expect("lingering should be settable");
        drop(client);
        assert_eq!(subscriber.next_msg().text(), "whole");
    }
    wait_until("the broken connections are gone", PATIENCE, || server.get_json("/varz")["connections"] == 1);
    subscriber.expect_nothing();
    assert_healthy(&server);
}

/// Many clients that send one byte at a time take no turn away from a quick one.
fn slow_bytes_delay_nobody(shards: usize) {
    const SLOW: usize = 100;
    let server = Server::start(shards);
    let mut slow: Vec<Client> = (0..SLOW).map(|_| server.connect()).collect();
    let (mut publisher, mut subscriber) = server.two_clients_on_different_shards();
    subscriber.subscribe("quick", "1");
    let line = b"CONNECT {\"verbose\":false}\r\nSUB slow 1\r\nPING\r\n";
    for byte in line {
        for client in &mut slow {
            client.send([*byte]);
        }
        publisher.publish("quick", "x");
        subscriber.expect("MSG quick 1 1\r\nx\r\n");
    }
    for client in &mut slow {
        client.expect("PONG\r\n");
    }
    publisher.publish("slow", "x");
    for client in &mut slow {
        client.expect("MSG slow 1 1\r\nx\r\n");
    }
}

/// JSON in CONNECT may be as nested, wrong or strange as it likes.
/// Reads end at the mark of urgent data. What has come behind it is read too, without waiting for more to come.
fn urgent_data_hides_nothing_behind_it(shards: usize) {
    let server = Server::start(shards);
    // Without CONNECT the server sends no PING for minutes, whose answer would bring the rest to light.
    let mut client = server.connect();
    // The server finds everything at once: what comes later would be told by itself.
    server.signal(libc::SIGSTOP);
    client.send("PI");
    SockRef::from(client.socket()).send_out_of_band(b"!").expect("urgent data should be accepted");
    client.send("NG\r\nPING\r\n");
    server.signal(libc::SIGCONT);
    client.expect("PONG\r\nPONG\r\n");
}

fn deep_and_broken_json_is_refused(shards: usize) {
    let server = Server::builder().shards(shards).option("max_control_line", "1000000").monitor().start();
    let deep = |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    for json in [
        format!("{{\"x\":{}}}", deep("[", "]", 100_000)),
        deep("{\"x\":", "}", 100_000),
        "[".repeat(400_000),
        "{\"name\":\"\\ud800\"}".to_owned(),
        "{\"name\":\"\u{0}\"}".to_owned(),
        "{\"verbose\":1e999}".to_owned(),
        "{\"protocol\":1.5}".to_owned(),
        "{\"protocol\":99999999999999999999}".to_owned(),
        "nul".to_owned(),
        "{} {}".to_owned(),
        "{\"verbose\":false,}".to_owned(),
    ] {
        let mut client = server.connect();
        client.send_if_open(format!("CONNECT {json}\r\n").as_bytes());
        client.finish_sending_if_open();
        client.read_to_end();
    }
    assert_healthy(&server);
}

/// After a storm of short connections no connection, subscription or much memory is left.
fn connections_that_come_and_go_leave_nothing_behind(shards: usize) {
    const CONNECTIONS: usize = 1_500;
    let server = Server::start(shards);
    let subscriptions = || server.get_json("/varz")["subscriptions"].as_u64().expect("subscriptions is a number");
    let before = subscriptions();
    for index in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(server.addr()).expect("the client port should accept connections");
        match index % 3 {
            0 => {}
            1 => {
                let _ = stream.write_all(b"CONNECT {}\r\nSUB a 1\r\nSUB b q 2\r\n");
            }
            _ => {
                let mut greeting = [0; 64];
                stream.read_exact(&mut greeting).expect("the greeting should come");
                stream.write_all(b"CONNECT {}\r\nSUB c 1\r\nPUB c 3\r\nx").expect("the connection is open");
            }
        }
    }
    wait_until("all connections are gone", PATIENCE, || server.get_json("/varz")["connections"] == 0);
    wait_until("all subscriptions are gone", PATIENCE, || subscriptions() == before);
    assert_healthy(&server);
}
