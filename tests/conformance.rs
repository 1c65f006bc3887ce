//! The client protocol byte by byte. Every expectation was verified against nats-server 2.15.1 by running these tests
//! with `LEAT_TEST_PEER`.

mod support;
#[path = "conformance/transcripts.rs"]
mod transcripts;

use std::time::Duration;

use serde_json::json;
use support::{PATIENCE, Server, shard_suite, show};
use transcripts::{
    MAX_CONTROL_LINE, MAX_PAYLOAD, MAX_SUBSCRIPTIONS, QUIET, Row, TOO_LONG, UNAUTHORIZED, UNKNOWN, closed, open, rows,
};

shard_suite!(one_shard = 1, three_shards = 3 => {
    transcripts_do_not_depend_on_how_the_bytes_arrive,
    transcripts_where_a_password_is_required,
    transcripts_where_a_token_is_required,
    silence_is_allowed_without_authentication,
    info_introduces_the_server,
    info_comes_again_after_the_first_pong,
    the_last_connect_counts,
    headers_are_cut_off_for_plain_subscribers,
    only_the_asking_connection_hears_of_missing_responders,
    a_request_that_somebody_took_is_left_to_him,
    echo_off_hides_own_messages_only,
    auto_unsubscribe_counts_each_subscription_by_itself,
    every_byte_value_survives,
    a_control_line_is_limited_before_it_ends,
    the_control_line_limit_is_an_option,
});

/// Sends `row` in pieces that end at `cuts` and compares the whole answer.
fn play(server: &Server, row: &Row, cuts: &[usize]) -> Result<(), String> {
    let mut client = server.connect();
    let mut from = 0;
    for &to in cuts.iter().chain([&row.client.len()]) {
        // A server that has seen enough may close while pieces are still to come.
        if !client.send_if_open(&row.client[from..to]) {
            break;
        }
        from = to;
    }
    let result = if row.closed { client.read_to_end_within(PATIENCE) } else { Ok(client.read_up_to(row.server.len())) };
    // The end of the connection tells that its subscriptions are gone on every shard: the next row starts afresh.
    if !row.closed {
        client.finish_sending_if_open();
        let _ = client.read_to_end_within(PATIENCE);
    }
    if result.as_ref() == Ok(&row.server) {
        return Ok(());
    }
    let (still_open, actual) = match &result {
        Ok(actual) => ("", actual),
        Err(actual) => (" and it stayed open", actual),
    };
    let (actual, expected) = (show(actual), show(&row.server));
    Err(format!("{}\n  received: {actual}{still_open}\n  expected: {expected}\n  cuts: {cuts:?}", row.name))
}

/// Plays every row as a whole, byte by byte, and in random pieces.
fn play_all(server: &Server, rows: &[Row]) {
    const RANDOM_SPLITS: u64 = 3;
    let mut failures = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let len = row.client.len();
        failures.extend(play(server, row, &[]).err());
        // The reference server repeats a pedantic refusal when the payload comes in a later read than its line.
        if len == 0 || (!server.is_leat() && show(&row.server).contains("Invalid Publish Subject")) {
            continue;
        }
        failures.extend(play(server, row, &(1..len).collect::<Vec<_>>()).err());
        for split in 0..RANDOM_SPLITS {
            let mut random = fastrand::Rng::with_seed(index as u64 * RANDOM_SPLITS + split);
            let mut cuts: Vec<usize> = (0..random.usize(1..8)).map(|_| random.usize(0..len)).collect();
            cuts.sort_unstable();
            failures.extend(play(server, row, &cuts).err());
        }
    }
    assert!(failures.is_empty(), "{} transcripts differ:\n{}", failures.len(), failures.join("\n"));
}

/// The same bytes get the same answer, whether they arrive at once, one at a time, or in random pieces.
fn transcripts_do_not_depend_on_how_the_bytes_arrive(shards: usize) {
    let server = Server::builder()
        .shards(shards)
        .option("max_payload", &MAX_PAYLOAD.to_string())
        .option("max_subscriptions", &MAX_SUBSCRIPTIONS.to_string())
        .start();
    play_all(&server, &rows());
}

/// Where a password is required nothing but CONNECT is accepted first, and it must come in time.
fn transcripts_where_a_password_is_required(shards: usize) {
    let server = Server::builder().shards(shards).user("u", "s3cret").option("auth_timeout", "300ms").start();
    let timeout = "-ERR 'Authentication Timeout'\r\n";
    let mut rows = vec![
        closed("28 nothing sent", "", timeout),
        closed("28a half a CONNECT", "CONNECT {\"verbose\":false", timeout),
        closed("29 PING first", "PING\r\n", UNAUTHORIZED),
        closed("29a SUB first", "SUB foo 1\r\n", UNAUTHORIZED),
        closed("29b a blank first", " PING\r\n", UNAUTHORIZED),
        closed("29c an unknown verb first", "HELLO\r\n", UNAUTHORIZED),
        closed("29d nearly CONNECT", "CONNEXION\r\n", UNKNOWN),
        closed("no credentials", QUIET, UNAUTHORIZED),
        open("user and password", "CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"s3cret\"}\r\n", ""),
        open("verbose", "CONNECT {\"user\":\"u\",\"pass\":\"s3cret\"}\r\n", "+OK\r\n"),
        closed(
            "a second CONNECT is checked again",
            "CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"s3cret\"}\r\nCONNECT {\"pass\":\"x\"}\r\n",
            UNAUTHORIZED,
        ),
        open(
            "a second CONNECT keeps the credentials that it does not mention",
            format!("CONNECT {{\"verbose\":false,\"user\":\"u\",\"pass\":\"s3cret\"}}\r\n{QUIET}"),
            "",
        ),
        closed(
            "authentication is checked before the protocol number",
            "CONNECT {\"verbose\":false,\"protocol\":7}\r\n",
            UNAUTHORIZED,
        ),
    ];
    for (name, credentials) in [
        ("wrong password", "\"user\":\"u\",\"pass\":\"s3cre\""),
        ("password with a tail", "\"user\":\"u\",\"pass\":\"s3cret2\""),
        ("wrong user", "\"user\":\"U\",\"pass\":\"s3cret\""),
        ("no password", "\"user\":\"u\""),
        ("the password as token", "\"auth_token\":\"s3cret\""),
    ] {
        rows.push(closed(name, format!("CONNECT {{\"verbose\":false,{credentials}}}\r\n"), UNAUTHORIZED));
    }
    play_all(&server, &rows);
}

/// A token is compared as a whole; user and password are no substitute.
fn transcripts_where_a_token_is_required(shards: usize) {
    let server = Server::builder().shards(shards).token("t0ken").start();
    let rows = [
        open("the token", "CONNECT {\"verbose\":false,\"auth_token\":\"t0ken\"}\r\n", ""),
        closed("another token", "CONNECT {\"verbose\":false,\"auth_token\":\"token\"}\r\n", UNAUTHORIZED),
        closed("the token as password", "CONNECT {\"verbose\":false,\"pass\":\"t0ken\"}\r\n", UNAUTHORIZED),
        closed("no token", QUIET, UNAUTHORIZED),
        closed("PING first", "PING\r\n", UNAUTHORIZED),
    ];
    play_all(&server, &rows);
}

/// Without authentication a connection may stay silent beyond the authentication timeout.
fn silence_is_allowed_without_authentication(shards: usize) {
    let server = Server::builder().shards(shards).option("auth_timeout", "100ms").start();
    let mut client = server.connect();
    client.expect_silence(Duration::from_millis(400));
    client.expect_nothing();
}

/// The first INFO has the fields that client libraries rely on, with their types.
fn info_introduces_the_server(shards: usize) {
    let server = Server::builder().shards(shards).option("max_payload", "12345").start();
    let first = server.connect();
    let second = server.connect();
    let info = first.info();
    assert_eq!(info["version"], "2.15.1");
    assert_eq!(info["proto"], 1);
    assert_eq!(info["headers"], true);
    assert_eq!(info["max_payload"], 12345);
    assert_eq!(info["host"], "127.0.0.1");
    assert_eq!(info["port"], server.addr().port());
    assert_eq!(info["client_ip"], "127.0.0.1");
    assert!(info["go"].is_string(), "go: {info}");
    assert_eq!(info["server_name"], info["server_id"], "an unnamed server is called by its id");
    let id = info["server_id"].as_str().expect("server_id should be text");
    assert!(id.len() == 56 && id.starts_with('N'), "server_id: {id}");
    let key_bytes = |byte: u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte);
    assert!(id.bytes().all(key_bytes), "server_id: {id}");
    for absent in
        ["auth_required", "tls_required", "tls_verify", "nonce", "cluster", "ldm", "jetstream", "connect_info"]
    {
        assert!(info.get(absent).is_none(), "{absent}: {info}");
    }
    assert!(second.cid() > first.cid(), "connection ids grow: {} then {}", first.cid(), second.cid());
    for same in ["server_id", "server_name", "port", "max_payload"] {
        assert_eq!(info[same], second.info()[same], "{same} differs between connections");
    }

    let closed_server = Server::builder().shards(shards).user("u", "p").start();
    assert_eq!(closed_server.connect().info()["auth_required"], true);
}

/// A client with protocol 1 gets INFO again after the PONG of its first PING: once, and only after CONNECT.
fn info_comes_again_after_the_first_pong(shards: usize) {
    let server = Server::builder().shards(shards).start();
    let mut client = server.connect();
    client.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
    client.expect("PONG\r\n");
    let again = client.next_info();
    assert_eq!(again["connect_info"], true);
    assert_eq!(again["remote_account"], "$G");
    assert!(again.get("acc_is_sys").is_none(), "{again}");
    for (field, value) in client.info().as_object().expect("INFO is an object") {
        assert_eq!(&again[field], value, "{field} differs from the first INFO");
    }
    client.expect_nothing();

    let mut old = server.connect();
    old.send("CONNECT {\"verbose\":false,\"protocol\":0}\r\n");
    old.expect_nothing();
    old.expect_nothing();

    let mut early = server.connect();
    early.expect_nothing();
    early.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\n");
    early.send("PING\r\n");
    early.expect("PONG\r\n");
    assert_eq!(early.next_info()["connect_info"], true, "a PONG before CONNECT does not count");
    early.expect_nothing();
}

/// A second CONNECT changes the options that it mentions and drops the subscriptions made before it.
fn the_last_connect_counts(shards: usize) {
    let server = Server::start(shards);
    let (mut client, mut other) = server.two_clients_on_different_shards();
    client.send("SUB foo 1\r\nSUB bar q 2\r\n");
    client.expect_nothing();
    client.send("CONNECT {\"verbose\":true,\"pedantic\":false,\"echo\":false}\r\nPING\r\n");
    client.expect("+OK\r\nPONG\r\n");
    other.send("PUB foo 1\r\nx\r\nPUB bar 1\r\nx\r\n");
    other.expect_nothing();
    client.send("SUB foo 1\r\nPUB foo 1\r\nx\r\nPING\r\n");
    client.expect("+OK\r\n+OK\r\nPONG\r\n");
    other.send("PUB foo 1\r\ny\r\n");
    client.expect("MSG foo 1 1\r\ny\r\n");
}

/// Headers reach only those who know them; the others get the payload alone, with its size.
fn headers_are_cut_off_for_plain_subscribers(shards: usize) {
    let server = Server::start(shards);
    let mut publisher = server.requester_on(0);
    for shard in 0..server.shards() {
        let mut knowing = server.requester_on(shard);
        let mut plain = server.client_on(shard);
        knowing.subscribe("foo", "1");
        plain.subscribe("foo", "1");
        publisher.send("HPUB foo r.s 12 014\r\nNATS/1.0\r\n\r\nhi\r\n");
        publisher.send("HPUB foo 12 12\r\nNATS/1.0\r\n\r\n\r\n");
        knowing.expect("HMSG foo 1 r.s 12 014\r\nNATS/1.0\r\n\r\nhi\r\n");
        knowing.expect("HMSG foo 1 12 12\r\nNATS/1.0\r\n\r\n\r\n");
        plain.expect("MSG foo 1 r.s 2\r\nhi\r\nMSG foo 1 0\r\n\r\n");
    }
}

/// The 503 goes to the connection that asked, not to others that listen on the same reply subject.
fn only_the_asking_connection_hears_of_missing_responders(shards: usize) {
    let server = Server::start(shards);
    let mut asking = server.requester_on(0);
    let mut listening = server.requester_on(1);
    listening.subscribe("inbox.>", "1");
    asking.subscribe("inbox.a", "9");
    asking.send("PUB nobody inbox.a 0\r\n\r\n");
    asking.expect("HMSG inbox.a 9 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n");
    asking.send("PUB nobody inbox.b 0\r\n\r\n");
    asking.expect_nothing();
    listening.expect_nothing();
}

/// There is no 503 while any subscription on any connection takes the request, plain or in a queue group.
fn a_request_that_somebody_took_is_left_to_him(shards: usize) {
    let server = Server::start(shards);
    let mut asking = server.requester_on(0);
    asking.subscribe("inbox.a", "9");
    for shard in 0..server.shards() {
        let mut responder = server.client_on(shard);
        for subscription in ["service.a", "service.*", "service.a group"] {
            responder.send(format!("SUB {subscription} 1\r\n"));
            responder.expect_nothing();
            asking.send("PUB service.a inbox.a 1\r\nx\r\n");
            responder.expect("MSG service.a 1 inbox.a 1\r\nx\r\n");
            asking.expect_nothing();
            responder.send("UNSUB 1\r\n");
            responder.expect_nothing();
        }
    }
}

/// `echo:false` suppresses what the connection itself published and nothing else.
fn echo_off_hides_own_messages_only(shards: usize) {
    let server = Server::start(shards);
    let quiet = json!({"verbose": false, "pedantic": false, "echo": false});
    let mut silent = server.connect_on(0).login(&quiet);
    let mut same_shard = server.client_on(0);
    let mut other_shard = server.client_on(1);
    for client in [&mut silent, &mut same_shard, &mut other_shard] {
        client.subscribe("foo", "1");
    }
    silent.send("PUB foo 1\r\ns\r\n");
    same_shard.expect("MSG foo 1 1\r\ns\r\n");
    other_shard.expect("MSG foo 1 1\r\ns\r\n");
    silent.expect_nothing();
    other_shard.send("PUB foo 1\r\no\r\n");
    silent.expect("MSG foo 1 1\r\no\r\n");
    same_shard.send("PUB foo 1\r\nm\r\n");
    silent.expect("MSG foo 1 1\r\nm\r\n");
}

/// Each subscription has its own count, and a member of a queue group counts what it received itself.
fn auto_unsubscribe_counts_each_subscription_by_itself(shards: usize) {
    let server = Server::start(shards);
    let (mut publisher, mut subscriber) = server.two_clients_on_different_shards();
    subscriber.send("SUB foo 1\r\nSUB foo 2\r\nSUB * 3\r\nUNSUB 1 1\r\nUNSUB 2 3\r\n");
    subscriber.expect_nothing();
    for _ in 0..5 {
        publisher.publish("foo", "x");
    }
    publisher.expect_nothing();
    let mut counts = [0; 4];
    for msg in subscriber.messages_to_fence() {
        counts[msg.sid.parse::<usize>().expect("sids are numbers here")] += 1;
    }
    assert_eq!(counts, [0, 1, 3, 5]);

    // Two members with a maximum of three each take six messages between them, whoever is chosen first.
    let mut other = server.client_on(0);
    for member in [&mut subscriber, &mut other] {
        member.send("SUB a.bar q 7\r\nUNSUB 7 3\r\n");
        member.expect_nothing();
    }
    for _ in 0..20 {
        publisher.publish("a.bar", "x");
    }
    publisher.expect_nothing();
    assert_eq!(subscriber.messages_to_fence().len(), 3);
    assert_eq!(other.messages_to_fence().len(), 3);
}

/// Payload and headers are passed on untouched, whatever bytes they hold.
fn every_byte_value_survives(shards: usize) {
    let server = Server::start(shards);
    let mut publisher = server.requester_on(0);
    let mut subscriber = server.requester_on(1);
    subscriber.subscribe("foo", "1");
    let all: Vec<u8> = (0..=255).collect();
    publisher.send([b"PUB foo 256\r\n", all.as_slice(), b"\r\n"].concat());
    subscriber.expect([b"MSG foo 1 256\r\n", all.as_slice(), b"\r\n"].concat());
    publisher.send([b"HPUB foo 256 512\r\n", all.as_slice(), all.as_slice(), b"\r\n"].concat());
    subscriber.expect([b"HMSG foo 1 256 512\r\n", all.as_slice(), all.as_slice(), b"\r\n"].concat());
}

/// A line without an end is refused as soon as it exceeds the limit, before CONNECT as well as after.
fn a_control_line_is_limited_before_it_ends(shards: usize) {
    let server = Server::builder().shards(shards).start();
    for start in ["SUB ", "CONNECT ", "PUB ", "UNSUB "] {
        let mut client = server.connect();
        client.send_if_open(format!("{start}{}", "x".repeat(MAX_CONTROL_LINE + 1)).as_bytes());
        client.expect_then_close(TOO_LONG);
    }
    let mut client = server.client();
    client.send(format!("SUB {}", "x".repeat(MAX_CONTROL_LINE - 2)));
    client.send(" 1\r\n");
    client.expect_nothing();
}

/// `max_control_line` moves the limit, in both directions.
fn the_control_line_limit_is_an_option(shards: usize) {
    for limit in [100, 10_000] {
        let server = Server::builder().shards(shards).option("max_control_line", &limit.to_string()).start();
        let line = |len: usize| format!("SUB {} 1\r\n", "s".repeat(len - 2));
        play_all(
            &server,
            &[
                open("at the limit", format!("{QUIET}{}", line(limit)), ""),
                closed("above the limit", format!("{QUIET}{}", line(limit + 1)), TOO_LONG),
            ],
        );
    }
}
