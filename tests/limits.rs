//! What happens at the edges: clients that do not read, do not answer or are too many, publishers that are too fast,
//! and rings that are too small. In each case only the one who exceeds a limit pays for it.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};
use support::{Client, PATIENCE, Server, raise_open_files, shard_suite, wait_until};

shard_suite!(one_shard = 1, three_shards = 3 => {
    a_client_that_stops_reading_is_cut_off,
    a_write_that_takes_too_long_ends_the_connection,
    each_blocked_write_has_a_deadline_of_its_own,
    a_client_that_has_ended_its_sending_side_gets_what_waits_for_it,
    a_new_client_is_pinged_soon,
    a_client_that_never_answers_pings_is_stale,
    a_client_that_answers_pings_stays,
    a_busy_client_is_not_pinged,
    a_busy_client_that_answers_no_ping_stays,
    connections_are_limited,
    connections_are_limited_when_they_come_at_once,
    a_fast_publisher_is_slowed_down_before_anybody_is_cut_off,
    without_the_stall_a_slow_subscriber_misses_messages,
    two_thousand_connections_are_served,
});

shard_suite!(two_shards = 2, many_shards = 4 => {
    floods_in_both_directions_arrive_in_order,
    payloads_larger_than_a_ring_pass,
});

/// A subscriber of `subject` on the given shard that has a small receive buffer and reads nothing more.
fn sluggish_subscriber(server: &Server, shard: usize, subject: &str) -> Client {
    const RECEIVE_BUFFER_BYTES: usize = 4096;
    const ATTEMPTS_MAX: usize = 64;
    let mut elsewhere = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket should be creatable");
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).expect("the receive buffer should be settable");
        socket.connect(&server.addr().into()).expect("the client port should accept connections");
        let client = Client::greeted(TcpStream::from(socket));
        if server.shard_of(client.cid()) == shard % server.shards() {
            let mut client = client.login(&json!({"verbose": false, "pedantic": false}));
            client.subscribe(subject, "1");
            return client;
        }
        elsewhere.push(client);
    }
    panic!("none of {ATTEMPTS_MAX} connections went to shard {shard}");
}

fn slow_consumers(server: &Server) -> u64 {
    server.get_json("/varz")["slow_consumers"].as_u64().expect("slow_consumers is a number")
}

/// Why the server closed a connection; empty while it is open.
fn close_reason(server: &Server, cid: u64) -> String {
    let list = server.get_json(&format!("/connz?state=closed&cid={cid}"));
    list["connections"][0]["reason"].as_str().unwrap_or_default().to_owned()
}

/// A subscriber that stops reading is closed when its pending bytes exceed `max_pending`. It is logged and counted;
/// another subscriber of the same subject loses nothing and the publisher stays connected.
fn a_client_that_stops_reading_is_cut_off(shards: usize) {
    const PAYLOAD_BYTES: usize = 32 * 1024;
    const BATCH: usize = 8;
    const BATCHES_MAX: usize = 400;
    let server = Server::builder()
        .shards(shards)
        .monitor()
        .option("max_payload", "65536")
        .option("max_pending", "1048576")
        .start();
    let mut publisher = server.client_on(0);
    let mut reading = server.client_on(1);
    reading.subscribe("foo", "1");
    let frame = [format!("PUB foo {PAYLOAD_BYTES}\r\n").as_bytes(), &[b'x'; PAYLOAD_BYTES], b"\r\n"].concat();
    for shard in 0..server.shards() {
        let before = slow_consumers(&server);
        let mut sluggish = sluggish_subscriber(&server, shard, "foo");
        for batch in 0.. {
            assert!(batch < BATCHES_MAX, "a client that reads nothing was not cut off");
            publisher.send(frame.repeat(BATCH));
            for msg in reading.next_msgs(BATCH) {
                assert_eq!(msg.payload.len(), PAYLOAD_BYTES);
            }
            if slow_consumers(&server) > before {
                break;
            }
        }
        let left_over = sluggish.read_to_end();
        assert!(!left_over.windows(4).any(|window| window == b"-ERR"), "a slow consumer is closed without a word");
        assert_eq!(slow_consumers(&server), before + 1);
        wait_until("the close is listed", PATIENCE, || !close_reason(&server, sluggish.cid()).is_empty());
        assert_eq!(close_reason(&server, sluggish.cid()), "Slow Consumer (Pending Bytes)");
    }
    publisher.expect_nothing();
    reading.expect_nothing();
    server.await_stderr("Slow Consumer Detected: MaxPending of 1048576 Exceeded");
    let stats = &server.get_json("/varz")["slow_consumer_stats"];
    assert_eq!(stats["clients"], slow_consumers(&server), "{stats}");
}

/// A subscriber whose socket takes nothing for `write_deadline` is closed, with far fewer bytes pending than allowed.
fn a_write_that_takes_too_long_ends_the_connection(shards: usize) {
    const PAYLOAD_BYTES: usize = 500_000;
    const MESSAGES: usize = 30;
    let server = Server::builder().shards(shards).monitor().option("write_deadline", "300ms").start();
    let mut publisher = server.client_on(0);
    for shard in 0..server.shards() {
        let before = slow_consumers(&server);
        let mut sluggish = sluggish_subscriber(&server, shard, "foo");
        let frame = [format!("PUB foo {PAYLOAD_BYTES}\r\n").as_bytes(), &[b'x'; PAYLOAD_BYTES], b"\r\n"].concat();
        publisher.send(frame.repeat(MESSAGES));
        publisher.expect_nothing();
        wait_until("the deadline has passed", PATIENCE, || slow_consumers(&server) == before + 1);
        sluggish.read_to_end();
        wait_until("the close is listed", PATIENCE, || !close_reason(&server, sluggish.cid()).is_empty());
        assert_eq!(close_reason(&server, sluggish.cid()), "Slow Consumer (Write Deadline)");
    }
    publisher.expect_nothing();
    server.await_stderr("Slow Consumer Detected: WriteDeadline of 300ms exceeded");
}

/// Bytes that wait for a connection.
fn pending_bytes(server: &Server, cid: u64) -> u64 {
    let list = server.get_json(&format!("/connz?cid={cid}"));
    list["connections"][0]["pending_bytes"].as_u64().unwrap_or_default()
}

/// Publishes more to a sluggish subscriber than sockets hold, and waits until some of it waits in the server.
fn publish_until_blocked(server: &Server, publisher: &mut Client, cid: u64, frame: &[u8], count: usize) {
    publisher.send(frame.repeat(count));
    publisher.expect_nothing();
    wait_until("the subscriber is behind", PATIENCE, || pending_bytes(server, cid) > 0);
}

/// A subscriber that has caught up before the deadline and falls behind again has the full time once more, and is cut
/// off when that is over.
fn each_blocked_write_has_a_deadline_of_its_own(shards: usize) {
    const PAYLOAD_BYTES: usize = 500_000;
    const MESSAGES: usize = 30;
    const DEADLINE: Duration = Duration::from_millis(2_000);
    let server = Server::builder().shards(shards).monitor().option("write_deadline", "2000ms").start();
    let mut publisher = server.client_on(0);
    let mut sluggish = sluggish_subscriber(&server, 1, "foo");
    let cid = sluggish.cid();
    let frame = [format!("PUB foo {PAYLOAD_BYTES}\r\n").as_bytes(), &[b'x'; PAYLOAD_BYTES], b"\r\n"].concat();
    let passes = |began: Instant, limit: Duration| {
        wait_until("time has passed", PATIENCE, || {
            assert_eq!(close_reason(&server, cid), "", "after {:?}", began.elapsed());
            began.elapsed() >= limit
        });
    };

    let first = Instant::now();
    publish_until_blocked(&server, &mut publisher, cid, &frame, MESSAGES);
    passes(first, DEADLINE * 6 / 10);
    sluggish.next_msgs(MESSAGES);
    wait_until("the subscriber has caught up", PATIENCE, || pending_bytes(&server, cid) == 0);
    let second = Instant::now();
    publish_until_blocked(&server, &mut publisher, cid, &frame, MESSAGES);
    passes(first, DEADLINE * 13 / 10);
    assert!(second.elapsed() < DEADLINE, "this machine is too slow for the test: {:?}", second.elapsed());
    sluggish.next_msgs(MESSAGES);
    sluggish.expect_nothing();

    publish_until_blocked(&server, &mut publisher, cid, &frame, MESSAGES);
    wait_until("the deadline has passed", PATIENCE, || close_reason(&server, cid) == "Slow Consumer (Write Deadline)");
    assert_eq!(slow_consumers(&server), 1);
}

/// Who has shut down his sending side still gets all that was queued for him, also if he is in no hurry to read it.
fn a_client_that_has_ended_its_sending_side_gets_what_waits_for_it(shards: usize) {
    const PAYLOAD_BYTES: usize = 500_000;
    const MESSAGES: usize = 30;
    const HESITATION: Duration = Duration::from_millis(500);
    let server = Server::builder().shards(shards).monitor().start();
    let mut publisher = server.client_on(0);
    let frame = [format!("PUB foo {PAYLOAD_BYTES}\r\n").as_bytes(), &[b'x'; PAYLOAD_BYTES], b"\r\n"].concat();
    for shard in 0..server.shards() {
        let mut subscriber = sluggish_subscriber(&server, shard, "foo");
        publish_until_blocked(&server, &mut publisher, subscriber.cid(), &frame, MESSAGES);
        subscriber.finish_sending();
        let began = Instant::now();
        wait_until("the server has noticed, and waited", PATIENCE, || {
            close_reason(&server, subscriber.cid()) == "Client Closed" && began.elapsed() >= HESITATION
        });
        let received = subscriber.read_to_end();
        assert_eq!(
            received.len(),
            MESSAGES * format!("MSG foo 1 {PAYLOAD_BYTES}\r\n\r\n").len() + MESSAGES * PAYLOAD_BYTES
        );
    }
    // What he sent himself right before counts, too.
    let mut client = server.client();
    client.send(["SUB foo 1\r\n", &"PUB foo 5\r\nhello\r\n".repeat(1000), "PING\r\n"].concat());
    client.finish_sending();
    client.expect_then_close("MSG foo 1 5\r\nhello\r\n".repeat(1000) + "PONG\r\n");
}

/// However long the interval is, the first PING comes two seconds after CONNECT, and up to a fifth later.
fn a_new_client_is_pinged_soon(shards: usize) {
    let server = Server::builder().shards(shards).start();
    let mut client = server.connect().ignoring_pings();
    client.send("CONNECT {\"verbose\":false}\r\n");
    let began = Instant::now();
    client.expect("PING\r\n");
    let passed = began.elapsed();
    assert!((1.9..4.0).contains(&passed.as_secs_f64()), "after {passed:?}");
}

/// After `ping_max` unanswered PINGs the connection is closed with an error.
fn a_client_that_never_answers_pings_is_stale(shards: usize) {
    let server =
        Server::builder().shards(shards).monitor().option("ping_interval", "150ms").option("ping_max", "2").start();
    let mut client = server.connect().ignoring_pings();
    client.send("CONNECT {\"verbose\":false}\r\n");
    client.expect_then_close("PING\r\nPING\r\n-ERR 'Stale Connection'\r\n");
    wait_until("the close is listed", PATIENCE, || !close_reason(&server, client.cid()).is_empty());
    assert_eq!(close_reason(&server, client.cid()), "Stale Connection");
    assert_eq!(server.get_json("/varz")["stale_connections"], 1);
}

/// A client that answers is pinged on and on and never closed.
fn a_client_that_answers_pings_stays(shards: usize) {
    let server = Server::builder().shards(shards).option("ping_interval", "60ms").option("ping_max", "1").start();
    let mut client = server.connect().ignoring_pings();
    client.send("CONNECT {\"verbose\":false}\r\n");
    for _ in 0..8 {
        client.expect("PING\r\n");
        client.send("PONG\r\n");
    }
    client.expect_nothing();
}

/// Once the round trip is known, a client that sends something within each interval is not asked.
fn a_busy_client_is_not_pinged(shards: usize) {
    let server = Server::builder().shards(shards).option("ping_interval", "400ms").option("ping_max", "1").start();
    let mut client = server.connect().ignoring_pings();
    client.send("CONNECT {\"verbose\":false}\r\n");
    client.expect("PING\r\n");
    client.send("PONG\r\n");
    let end = Instant::now() + Duration::from_millis(1300);
    while Instant::now() < end {
        client.expect_nothing();
        client.expect_silence(Duration::from_millis(30));
    }
}

/// A client that always has something to say is alive, even if it never answers a PING. Once it falls silent it is not.
fn a_busy_client_that_answers_no_ping_stays(shards: usize) {
    const INTERVAL: Duration = Duration::from_millis(200);
    let server =
        Server::builder().shards(shards).monitor().option("ping_interval", "200ms").option("ping_max", "1").start();
    let mut client = server.connect().ignoring_pings();
    client.send("CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
    let began = Instant::now();
    wait_until("many intervals have passed", PATIENCE, || {
        client.publish("foo", "x");
        assert_eq!(close_reason(&server, client.cid()), "", "after {:?}", began.elapsed());
        began.elapsed() >= INTERVAL * 8
    });
    let received = client.read_to_end();
    assert!(received.starts_with(b"PING\r\n"), "{}", received.escape_ascii());
    assert!(received.ends_with(b"-ERR 'Stale Connection'\r\n"), "{}", received.escape_ascii());
}

/// The connection above `max_connections` gets INFO, an error and the end. One that leaves makes room.
fn connections_are_limited(shards: usize) {
    const LIMIT: usize = 4;
    let server = Server::builder().shards(shards).option("max_connections", &LIMIT.to_string()).start();
    let mut clients: Vec<Client> = (0..LIMIT).map(|_| server.client()).collect();
    for _ in 0..3 {
        server.connect().expect_then_close("-ERR 'maximum connections exceeded'\r\n");
    }
    for client in &mut clients {
        client.expect_nothing();
    }
    drop(clients.pop());
    wait_until("the place of a client that left is free", PATIENCE, || {
        let mut client = server.connect();
        client.send_if_open(b"CONNECT {\"verbose\":false}\r\nPING\r\n");
        client.read_up_to(b"PONG\r\n".len()) == b"PONG\r\n"
    });
}

/// The limit is exact when connections arrive at the same time.
fn connections_are_limited_when_they_come_at_once(shards: usize) {
    const LIMIT: usize = 5;
    const ATTEMPTS: usize = 24;
    let server = Server::builder().shards(shards).option("max_connections", &LIMIT.to_string()).start();
    let clients: Vec<(Client, bool)> = thread::scope(|scope| {
        let attempts: Vec<_> = (0..ATTEMPTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect();
                    client.send_if_open(b"CONNECT {\"verbose\":false}\r\nPING\r\n");
                    let accepted = client.read_up_to(b"PONG\r\n".len()) == b"PONG\r\n";
                    (client, accepted)
                })
            })
            .collect();
        attempts.into_iter().map(|attempt| attempt.join().expect("a connection should be answered")).collect()
    });
    assert_eq!(clients.iter().filter(|(_, accepted)| *accepted).count(), LIMIT);
}

/// Sends `count` messages of `payload_bytes` that begin with their number, from 0 on.
fn write_numbered(mut writer: &TcpStream, subject: &str, count: usize, payload_bytes: usize) {
    const BATCH_BYTES: usize = 64 * 1024;
    let filling = "x".repeat(payload_bytes - 8);
    let mut batch = Vec::new();
    for seq in 0..count {
        batch.extend_from_slice(format!("PUB {subject} {payload_bytes}\r\n{seq:08}{filling}\r\n").as_bytes());
        if batch.len() > BATCH_BYTES || seq + 1 == count {
            writer.write_all(&batch).expect("the publisher should not be cut off");
            batch.clear();
        }
    }
}

/// The number that [`write_numbered`] gave to the next message.
fn read_number(client: &mut Client, payload_bytes: usize) -> usize {
    let msg = client.next_msg();
    assert_eq!(msg.payload.len(), payload_bytes);
    let number = std::str::from_utf8(&msg.payload[..8]).expect("a message begins with its number");
    number.parse().expect("a message begins with its number")
}

/// When a subscriber falls behind, its publisher is held back (a stall, counted with the subscriber). When the subscriber
/// reads again, nobody has lost his connection and no message is missing.
fn a_fast_publisher_is_slowed_down_before_anybody_is_cut_off(shards: usize) {
    const MESSAGES: usize = 3_000;
    const PAYLOAD_BYTES: usize = 16 * 1024;
    let server = Server::builder().shards(shards).monitor().option("max_pending", "16777216").start();
    for shard in 0..server.shards() {
        let publisher = server.client_on(0);
        let mut subscriber = sluggish_subscriber(&server, shard, "foo");
        let stalled = || server.get_json("/varz")["stalled_clients"].as_u64().expect("stalled_clients is a number");
        let stalled_before = stalled();
        thread::scope(|scope| {
            scope.spawn(|| write_numbered(publisher.socket(), "foo", MESSAGES, PAYLOAD_BYTES));
            wait_until("the publisher is stalled", PATIENCE, || stalled() > stalled_before);
            for expected in 0..MESSAGES {
                assert_eq!(read_number(&mut subscriber, PAYLOAD_BYTES), expected);
            }
        });
        subscriber.expect_nothing();
        let connections = server.get_json(&format!("/connz?cid={}", subscriber.cid()));
        let stalls = connections["connections"][0]["stalls"].as_u64();
        assert!(stalls.is_some_and(|stalls| stalls > 0), "{connections}");
    }
    assert_eq!(slow_consumers(&server), 0);
}

/// With `no_fast_producer_stall` nobody waits: a subscriber that is behind misses messages but stays connected, and
/// what it gets is in order.
fn without_the_stall_a_slow_subscriber_misses_messages(shards: usize) {
    const MESSAGES: usize = 2_000;
    const PAYLOAD_BYTES: usize = 16 * 1024;
    let server = Server::builder()
        .shards(shards)
        .monitor()
        .option("max_pending", "4194304")
        .option("no_fast_producer_stall", "true")
        .start();
    let mut publisher = server.client_on(0);
    let mut subscriber = sluggish_subscriber(&server, 1, "foo");
    write_numbered(publisher.socket(), "foo", MESSAGES, PAYLOAD_BYTES);
    publisher.expect_nothing();
    let received = subscriber.messages_to_fence();
    assert!(received.len() < MESSAGES, "nothing was dropped");
    assert!(received.is_sorted_by(|a, b| a.payload[..8] < b.payload[..8]), "out of order");
    assert_eq!(slow_consumers(&server), 0);
    publisher.publish("foo", "again");
    assert_eq!(subscriber.next_msg().text(), "again");
}

/// Two thousand connections are served at once and leave no trace when they are gone.
fn two_thousand_connections_are_served(shards: usize) {
    const CLIENTS: usize = 2_000;
    const FILES_NEEDED: u64 = 2 * CLIENTS as u64 + 500;
    let files = raise_open_files();
    assert!(files >= FILES_NEEDED, "this test needs {FILES_NEEDED} open files, the hard limit is {files}");
    let server = Server::start(shards);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("CONNECT {\"verbose\":false}\r\nSUB all 1\r\nPING\r\n");
    }
    for client in &mut clients {
        client.expect("PONG\r\n");
    }
    assert_eq!(server.get_json("/varz")["connections"], CLIENTS);
    clients[CLIENTS / 2].publish("all", "x");
    for client in &mut clients {
        client.expect("MSG all 1 1\r\nx\r\n");
    }
    drop(clients);
    wait_until("no connection is left", PATIENCE, || server.get_json("/varz")["connections"] == 0);
    wait_until("no subscription is left", PATIENCE, || server.get_json("/connz")["num_connections"] == 0);
}

/// A server whose rings between shards hold next to nothing.
fn server_with_small_rings(shards: usize) -> Server {
    Server::builder()
        .shards(shards)
        .monitor()
        .leat_arg("--ring-bytes")
        .leat_arg("65536")
        .leat_arg("--ring-slots")
        .leat_arg("4")
        .start()
}

/// Clients on all shards that publish and receive at full speed at the same time block neither each other nor
/// themselves, even when the rings between the shards are far too small.
fn floods_in_both_directions_arrive_in_order(shards: usize) {
    const MESSAGES: usize = 20_000;
    const PAYLOAD_BYTES: usize = 200;
    let server = server_with_small_rings(shards);
    let mut clients: Vec<Client> = (0..server.shards().max(2)).map(|shard| server.client_on(shard)).collect();
    let count = clients.len();
    for (index, client) in clients.iter_mut().enumerate() {
        client.subscribe(&format!("to.{index}"), "1");
    }
    thread::scope(|scope| {
        for (index, client) in clients.iter_mut().enumerate() {
            let writer = client.writer();
            let neighbour = format!("to.{}", (index + 1) % count);
            scope.spawn(move || write_numbered(&writer, &neighbour, MESSAGES, PAYLOAD_BYTES));
            scope.spawn(move || {
                for expected in 0..MESSAGES {
                    assert_eq!(read_number(client, PAYLOAD_BYTES), expected, "client {index}");
                }
            });
        }
    });
    for client in &mut clients {
        client.expect_nothing();
    }
}

/// A payload that exceeds a whole ring crosses it nevertheless, in both directions at once.
fn payloads_larger_than_a_ring_pass(shards: usize) {
    const MESSAGES: usize = 20;
    const PAYLOAD_BYTES: usize = 1 << 20;
    let server = server_with_small_rings(shards);
    let (mut one, mut other) = server.two_clients_on_different_shards();
    one.subscribe("to.one", "1");
    other.subscribe("to.other", "1");
    thread::scope(|scope| {
        for (client, target) in [(&mut one, "to.other"), (&mut other, "to.one")] {
            let writer = client.writer();
            scope.spawn(move || write_numbered(&writer, target, MESSAGES, PAYLOAD_BYTES));
            scope.spawn(move || {
                for expected in 0..MESSAGES {
                    assert_eq!(read_number(client, PAYLOAD_BYTES), expected, "for {target}");
                }
            });
        }
    });
}
