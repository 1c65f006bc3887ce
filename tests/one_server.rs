//! Clients cannot tell how many shards a server has. Whoever has seen a PONG, a message or any other byte may tell
//! somebody on another shard, and what that one does next finds everything that the first one caused. The loops here
//! are long because what they look for is a matter of microseconds.

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Instant;

use support::{Client, Msg, PATIENCE, Server, shard_suite, skip_on_peer, wait_until};

shard_suite!(two_shards = 2, three_shards = 3 => {
    connections_are_spread,
    a_confirmed_subscription_is_seen_by_everybody,
    an_unconfirmed_subscription_is_seen_by_whoever_hears_of_it,
    a_confirmed_unsubscribe_is_final,
    a_confirmed_publish_comes_before_later_ones,
    a_received_message_comes_before_what_it_causes,
    a_reply_finds_the_inbox_that_came_with_the_request,
    a_request_is_answered_while_its_responder_unsubscribes,
    a_request_is_answered_while_its_responder_leaves,
    a_request_after_the_last_responder_is_refused_at_once,
    a_churning_queue_member_costs_no_message,
    what_was_sent_before_closing_is_delivered,
    everybody_hears_one_of_many,
});

/// Ordered pairs of different shards.
fn shard_pairs(shards: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..shards).flat_map(move |from| (0..shards).map(move |to| (from, to))).filter(|(from, to)| from != to)
}

/// The first connections go to different shards, and later ones keep the balance.
fn connections_are_spread(shards: usize) {
    if skip_on_peer("connections_are_spread") {
        return;
    }
    const ROUNDS: usize = 5;
    let server = Server::start(shards);
    let clients: Vec<Client> = (0..shards * ROUNDS).map(|_| server.client()).collect();
    for (round, clients) in clients.chunks(shards).enumerate() {
        let used: BTreeSet<usize> = clients.iter().map(|client| server.shard_of(client.cid())).collect();
        if round == 0 {
            assert_eq!(used, (0..shards).collect(), "the first connections share a shard");
        }
    }
    let mut counts = vec![0; shards];
    for client in &clients {
        counts[server.shard_of(client.cid())] += 1;
    }
    let (min, max) = (counts.iter().min(), counts.iter().max());
    assert!(max.zip(min).is_some_and(|(max, min)| max - min <= 1), "{counts:?}");
}

/// Once SUB has been confirmed by a PONG, a publish by anybody reaches it.
fn a_confirmed_subscription_is_seen_by_everybody(shards: usize) {
    const ROUNDS: usize = 1_500;
    let server = Server::start(shards);
    for (from, to) in shard_pairs(shards) {
        let (mut subscriber, mut publisher) = (server.client_on(from), server.client_on(to));
        for round in 0..ROUNDS {
            let pattern = match round % 4 {
                0 => format!("s{from}{to}.{round}.x"),
                1 => format!("s{from}{to}.{round}.x q"),
                2 => format!("s{from}{to}.{round}.*"),
                _ => format!("s{from}{to}.{round}.>"),
            };
            subscriber.send(format!("SUB {pattern} {round}\r\nPING\r\n"));
            subscriber.expect("PONG\r\n");
            publisher.send(format!("PUB s{from}{to}.{round}.x 1\r\nx\r\n"));
            subscriber.expect(format!("MSG s{from}{to}.{round}.x {round} 1\r\nx\r\n"));
        }
    }
}

/// A message sent right after SUB is as good as a PONG: whoever receives it can reach the subscription.
fn an_unconfirmed_subscription_is_seen_by_whoever_hears_of_it(shards: usize) {
    const ROUNDS: usize = 1_500;
    let server = Server::start(shards);
    for (from, to) in shard_pairs(shards) {
        let (mut subscriber, mut publisher) = (server.client_on(from), server.client_on(to));
        publisher.subscribe("go", "1");
        for round in 0..ROUNDS {
            subscriber.send(format!("SUB u.{round} {round}\r\nPUB go 1\r\nx\r\n"));
            publisher.expect("MSG go 1 1\r\nx\r\n");
            publisher.send(format!("PUB u.{round} 1\r\nx\r\n"));
            subscriber.expect(format!("MSG u.{round} {round} 1\r\nx\r\n"));
        }
    }
}

/// After the PONG that follows UNSUB nothing arrives any more.
fn a_confirmed_unsubscribe_is_final(shards: usize) {
    const ROUNDS: usize = 1_000;
    let server = Server::start(shards);
    for (from, to) in shard_pairs(shards) {
        let (mut subscriber, mut publisher) = (server.client_on(from), server.client_on(to));
        for round in 0..ROUNDS {
            subscriber.send("SUB foo 1\r\nPING\r\n");
            subscriber.expect("PONG\r\n");
            publisher.send("PUB foo 1\r\n1\r\n");
            subscriber.expect("MSG foo 1 1\r\n1\r\n");
            subscriber.send("UNSUB 1\r\nPING\r\n");
            subscriber.expect("PONG\r\n");
            publisher.send("PUB foo 1\r\n2\r\n");
            publisher.expect_nothing();
            let surplus = subscriber.messages_to_fence();
            assert!(surplus.is_empty(), "round {round}, from shard {to} to {from}: {surplus:?}");
        }
    }
}

/// When M2 is published after M1 was confirmed by a PONG, by whomever, every subscriber sees M1 first.
fn a_confirmed_publish_comes_before_later_ones(shards: usize) {
    const ROUNDS: usize = 1_000;
    let server = Server::start(shards);
    let mut publishers: Vec<Client> = (0..shards).map(|shard| server.client_on(shard)).collect();
    let mut subscribers: Vec<Client> = (0..shards).map(|shard| server.client_on(shard)).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("foo", "1");
    }
    for (first, second) in shard_pairs(shards) {
        for round in 0..ROUNDS {
            publishers[first].send("PUB foo 1\r\n1\r\nPING\r\n");
            publishers[first].expect("PONG\r\n");
            publishers[second].send("PUB foo 1\r\n2\r\n");
            for (shard, subscriber) in subscribers.iter_mut().enumerate() {
                let seen = [subscriber.next_msg(), subscriber.next_msg()];
                let seen = seen.each_ref().map(Msg::text);
                assert_eq!(seen, ["1", "2"], "round {round}: shards {first}, then {second}, seen on {shard}");
            }
        }
    }
}

/// When somebody who received M1 has M2 published on a third shard, every subscriber of both sees M1 first.
fn a_received_message_comes_before_what_it_causes(shards: usize) {
    const ROUNDS: usize = 1_000;
    let server = Server::start(shards);
    let mut cause = server.client_on(0);
    let mut witness = server.client_on(1);
    let mut effect = server.client_on(2);
    let mut observers: Vec<Client> = (0..shards).map(|shard| server.client_on(shard)).collect();
    for client in observers.iter_mut().chain([&mut witness]) {
        client.subscribe("m.1", "1");
    }
    for observer in &mut observers {
        observer.subscribe("m.*", "2");
    }
    for round in 0..ROUNDS {
        cause.send("PUB m.1 1\r\n1\r\n");
        assert_eq!(witness.next_msg().text(), "1");
        effect.send("PUB m.2 1\r\n2\r\n");
        for (shard, observer) in observers.iter_mut().enumerate() {
            let seen = [observer.next_msg(), observer.next_msg(), observer.next_msg()];
            assert_eq!(seen.each_ref().map(Msg::text), ["1", "1", "2"], "round {round}, seen on shard {shard}");
        }
    }
}

/// Inbox and request travel in one write, as in every client library; the answer finds the inbox at once.
fn a_reply_finds_the_inbox_that_came_with_the_request(shards: usize) {
    const ROUNDS: usize = 1_000;
    let server = Server::start(shards);
    for (from, to) in shard_pairs(shards) {
        let (mut requester, mut responder) = (server.requester_on(from), server.requester_on(to));
        responder.subscribe("service", "1");
        for round in 0..ROUNDS {
            let inbox = format!("_INBOX.{from}{to}.{round}");
            requester.send(format!("SUB {inbox} {round}\r\nUNSUB {round} 1\r\nPUB service {inbox} 1\r\nx\r\n"));
            let reply = responder.next_msg().reply.expect("a request has a reply subject");
            responder.publish(&reply, "y");
            requester.expect(format!("MSG {inbox} {round} 1\r\ny\r\n"));
        }
        responder.send("UNSUB 1\r\n");
        responder.expect_nothing();
    }
}

/// True when the server said that nobody is there; false for the answer of a responder.
fn is_refusal(answer: &Msg) -> bool {
    answer.headers.as_ref().is_some_and(|headers| headers.starts_with(b"NATS/1.0 503"))
}

/// A request that races with the responder's UNSUB is either answered by him or refused with 503, and only once.
fn a_request_is_answered_while_its_responder_unsubscribes(shards: usize) {
    const ROUNDS: usize = 600;
    let server = Server::start(shards);
    let (mut requester, mut responder) = (server.requester_on(0), server.client_on(1));
    requester.subscribe("inbox", "1");
    thread::scope(|scope| {
        // Channels, as they end when one side panics.
        let (subscribed, on_subscribed) = mpsc::channel();
        let (go, on_go) = mpsc::channel();
        let (done, on_done) = mpsc::channel();
        scope.spawn(move || {
            for round in 0..ROUNDS {
                let queue = if round % 2 == 0 { "" } else { "q" };
                responder.send(format!("SUB service {queue} 1\r\n"));
                responder.expect_nothing();
                subscribed.send(()).expect("the requester goes on");
                on_go.recv().expect("the requester goes on");
                responder.send("UNSUB 1\r\nPING\r\n");
                for request in responder.messages_to_pong() {
                    responder.publish(&request.reply.expect("a request has a reply subject"), "answer");
                }
                responder.expect_nothing();
                done.send(()).expect("the requester goes on");
                on_go.recv().expect("the requester goes on");
            }
        });
        for round in 0..ROUNDS {
            on_subscribed.recv().expect("the responder goes on");
            go.send(()).expect("the responder goes on");
            spin(round);
            requester.send("PUB service inbox 1\r\nx\r\n");
            let answer = requester.next_msg();
            assert!(is_refusal(&answer) || answer.text() == "answer", "round {round}: {answer:?}");
            on_done.recv().expect("the responder goes on");
            requester.expect_nothing();
            go.send(()).expect("the responder goes on");
        }
    });
}

/// A request that races with the end of the responder's connection is either delivered before that end or refused.
fn a_request_is_answered_while_its_responder_leaves(shards: usize) {
    const ROUNDS: usize = 300;
    let server = &Server::start(shards);
    let mut requester = server.requester_on(0);
    let mut answering = server.client_on(0);
    requester.subscribe("inbox", "1");
    thread::scope(|scope| {
        // Channels, as they end when one side panics.
        let (subscribed, on_subscribed) = mpsc::channel();
        let (go, on_go) = mpsc::channel();
        let (done, on_done) = mpsc::channel();
        scope.spawn(move || {
            for round in 0..ROUNDS {
                let mut responder = server.client_on(round);
                responder.subscribe("service", "1");
                subscribed.send(()).expect("the requester goes on");
                on_go.recv().expect("the requester goes on");
                responder.finish_sending();
                let last_words = responder.read_to_end();
                if let Some(request) = Msg::parse(&last_words) {
                    answering.publish(&request.reply.expect("a request has a reply subject"), "answer");
                }
                answering.expect_nothing();
                done.send(()).expect("the requester goes on");
                on_go.recv().expect("the requester goes on");
            }
        });
        for round in 0..ROUNDS {
            on_subscribed.recv().expect("the responder goes on");
            go.send(()).expect("the responder goes on");
            spin(round);
            requester.send("PUB service inbox 1\r\nx\r\n");
            let answer = requester.next_msg();
            assert!(is_refusal(&answer) || answer.text() == "answer", "round {round}: {answer:?}");
            on_done.recv().expect("the responder goes on");
            requester.expect_nothing();
            go.send(()).expect("the responder goes on");
        }
    });
}

/// Passes a little time that differs from round to round, so that a race is tried at many points.
fn spin(round: usize) {
    for _ in 0..round % 40 * 50 {
        std::hint::spin_loop();
    }
}

/// Once the last responder's UNSUB has been confirmed, the next request is refused without delay.
fn a_request_after_the_last_responder_is_refused_at_once(shards: usize) {
    const ROUNDS: usize = 600;
    let server = Server::start(shards);
    for (from, to) in shard_pairs(shards) {
        let (mut requester, mut responder) = (server.requester_on(from), server.client_on(to));
        requester.subscribe("inbox", "1");
        for round in 0..ROUNDS {
            let queue = if round % 2 == 0 { "" } else { "q" };
            responder.send(format!("SUB service {queue} 1\r\n"));
            responder.expect_nothing();
            requester.send("PUB service inbox 1\r\nx\r\n");
            responder.expect("MSG service 1 inbox 1\r\nx\r\n");
            responder.send("UNSUB 1\r\n");
            responder.expect_nothing();
            requester.send("PUB service inbox 1\r\nx\r\n");
            let answer = requester.next_msg();
            assert!(is_refusal(&answer), "round {round}, from shard {from} to {to}: {answer:?}");
        }
    }
}

/// A queue member that comes and goes on one shard loses no message of the group, and none comes twice, as long as
/// another member stays. Messages that reach it between UNSUB and PONG count as received.
fn a_churning_queue_member_costs_no_message(shards: usize) {
    const MESSAGES: usize = 20_000;
    const BURST: usize = 16;
    let server = Server::start(shards);
    let mut churning = server.client_on(0);
    let mut staying = server.client_on(1);
    let mut publisher = server.client_on(2);
    staying.send("SUB work q 1\r\n");
    staying.expect_nothing();
    let mut received = thread::scope(|scope| {
        let (published, on_published) = mpsc::channel::<()>();
        let churn = scope.spawn(move || {
            let mut received = Vec::new();
            while on_published.try_recv() == Err(TryRecvError::Empty) {
                churning.send("SUB work q 1\r\n");
                received.extend(churning.messages_to_fence());
                churning.send("UNSUB 1\r\n");
                received.extend(churning.messages_to_fence());
            }
            received
        });
        for burst in 0..MESSAGES / BURST {
            let seqs = burst * BURST..(burst + 1) * BURST;
            publisher.send(seqs.map(|seq| format!("PUB work 6\r\n{seq:06}\r\n")).collect::<String>());
            publisher.expect_nothing();
        }
        drop(published);
        churn.join().expect("the churning member should not fail")
    });
    let by_churning = received.len();
    let deadline = Instant::now() + PATIENCE;
    while received.len() < MESSAGES && Instant::now() < deadline {
        received.extend(staying.messages_to_fence());
    }
    received.extend(staying.messages_to_fence());
    assert!(by_churning > 0, "the churning member was never chosen");
    let distinct: BTreeSet<&str> = received.iter().map(Msg::text).collect();
    assert_eq!((received.len(), distinct.len()), (MESSAGES, MESSAGES), "received, distinct; {by_churning} by churning");
}

/// Everything that was sent before a connection was closed is delivered, without any PONG awaited.
fn what_was_sent_before_closing_is_delivered(shards: usize) {
    const ROUNDS: usize = 60;
    let server = Server::start(shards);
    let mut subscribers: Vec<Client> = (0..shards).map(|shard| server.client_on(shard)).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("last.*", "1");
    }
    for round in 0..ROUNDS {
        let (count, payload) = match round % 3 {
            0 => (1, "x".repeat(10)),
            1 => (500, "x".repeat(100)),
            _ => (10, "x".repeat(100_000)),
        };
        let publisher = server.connect();
        let mut bytes = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n".to_vec();
        for seq in 0..count {
            bytes.extend_from_slice(format!("PUB last.{seq} {}\r\n{payload}\r\n", payload.len()).as_bytes());
        }
        publisher.writer().write_all(&bytes).expect("the publisher should not be cut off");
        if round % 2 == 0 {
            publisher.socket().shutdown(Shutdown::Both).expect("an open connection should be shut down");
        }
        drop(publisher);
        for subscriber in &mut subscribers {
            for seq in 0..count {
                let msg = subscriber.next_msg();
                assert_eq!((msg.subject, msg.payload.len()), (format!("last.{seq}"), payload.len()), "round {round}");
            }
        }
    }
}

/// Two hundred clients subscribe; when all have their PONG, each of a few publishers is heard by everybody.
fn everybody_hears_one_of_many(shards: usize) {
    const CLIENTS: usize = 200;
    let server = Server::start(shards);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("SUB all.* 1\r\nPING\r\n");
    }
    for client in &mut clients {
        client.expect("PONG\r\n");
    }
    for publisher in [0, 1, 2, CLIENTS - 1] {
        clients[publisher].send(format!("PUB all.{publisher} 1\r\nx\r\n"));
        for client in &mut clients {
            client.expect(format!("MSG all.{publisher} 1 1\r\nx\r\n"));
        }
    }
    wait_until("all subscriptions are counted", PATIENCE, || {
        let connections = server.get_json("/connz?limit=1000")["connections"].clone();
        connections
            .as_array()
            .is_some_and(|list| list.len() == CLIENTS && list.iter().all(|connection| connection["subscriptions"] == 1))
    });
}
