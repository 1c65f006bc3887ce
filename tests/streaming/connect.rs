//! Registration, heartbeats, pings and the end of a registration.

use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Server, shard_suite, wait_until};
use crate::support_streaming::wire::{ConnectRequest, ConnectResponse};
use crate::support_streaming::{CLUSTER, Stan, is_registered, streaming};

/// What a ping is told whose connection is not registered.
const REPLACED: &str = "client has been replaced or is no longer registered";

/// A payload that is no message of the protocol: a field that begins and does not go on.
const GARBAGE: &[u8] = &[0xff];

shard_suite!(one_shard = 1, three_shards = 3 => {
    item_01_a_registration_names_all_subjects,
    item_02_a_healthy_client_id_is_refused,
    item_03_a_killed_client_is_replaced,
    item_04_a_silent_client_is_replaced_after_half_a_second,
    item_09_a_closed_client_is_gone,
});

/// Every subject has the cluster id, and the settings for pings come back.
fn item_01_a_registration_names_all_subjects(shards: usize) {
    let server = streaming(shards).start();
    for shard in 0..shards {
        let mut stan = Stan::connect_on(&server, shard, &format!("c{shard}"));
        let expected = ConnectResponse {
            pub_prefix: format!("_STAN.pub.{CLUSTER}"),
            sub_requests: format!("_STAN.sub.{CLUSTER}"),
            unsub_requests: format!("_STAN.unsub.{CLUSTER}"),
            close_requests: format!("_STAN.close.{CLUSTER}"),
            sub_close_requests: format!("_STAN.subclose.{CLUSTER}"),
            ping_requests: format!("_STAN.discover.{CLUSTER}.pings"),
            ping_interval: 5,
            ping_max_out: 88,
            protocol: 1,
            ..ConnectResponse::default()
        };
        assert_eq!(stan.subjects(), &expected);
        assert_eq!(stan.ping(), "");
        assert!(is_registered(&server, stan.id()));
    }
}

/// A client that answers keeps its id; the newcomer learns why it is refused.
fn item_02_a_healthy_client_id_is_refused(shards: usize) {
    let server = streaming(shards).start();
    let mut first = Stan::connect_on(&server, 0, "c1");
    let mut second = Stan::open(&server, server.requester_on(1), "c1");
    let response = second.register_beside(&mut first);
    let refusal =
        ConnectResponse { error: "stan: clientID already registered".to_owned(), ..ConnectResponse::default() };
    assert_eq!(response, refusal, "a refusal has the error only");
    assert_eq!(first.heartbeats(), 1, "the first client was asked");
    assert_eq!(first.ping(), "");
}

/// The connection of a killed process takes its heartbeat inbox along; its id is free within a second.
fn item_03_a_killed_client_is_replaced(shards: usize) {
    let server = streaming(shards).start();
    let mut first = Stan::connect_on(&server, 0, "c1");
    first.publish("orders", "from the first");
    let old = first.conn_id();
    drop(first);
    let begun = Instant::now();
    let mut second = Stan::connect_on(&server, 1, "c1");
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    assert_eq!(second.ping_as(old.clone()), REPLACED);
    let mut late = second.message("orders", "from the first, late");
    late.conn_id = old;
    assert_eq!(second.publish_message(&late).error, "stan: invalid publish request");
    assert_eq!(second.ping(), "");
    let subject = second.subjects().ping_requests.clone();
    assert!(second.request(&subject, b"\x0a\x00").ends_with(REPLACED.as_bytes()), "an empty id is nobody's");
    second.publish("orders", "from the second");
}

/// Somebody listens on the heartbeat inbox and says nothing: that is waited for, 500 ms.
fn item_04_a_silent_client_is_replaced_after_half_a_second(shards: usize) {
    let server = streaming(shards).start();
    let mut silent = Stan::connect_on(&server, 0, "c1");
    silent.answer_heartbeats(false);
    let begun = Instant::now();
    let mut second = Stan::open(&server, server.requester_on(1), "c1");
    assert_eq!(second.register_beside(&mut silent).error, "");
    let took = begun.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(2)).contains(&took), "it took {took:?}");
    assert_eq!(silent.ping(), REPLACED);
    assert_eq!(second.ping(), "");
}

/// What is wrong with a client id is said; letters, digits, `-` and `_` are right.
#[test]
fn item_05_client_ids_are_checked() {
    const INVALID: &str = "stan: invalid clientID: only alphanumeric and `-` or `_` characters allowed";
    let server = streaming(1).start();
    for id in ["", "a.b", "a:b", "a b", "ä"] {
        let mut stan = Stan::open(&server, server.requester(), id);
        let refusal = ConnectResponse { error: INVALID.to_owned(), ..ConnectResponse::default() };
        assert_eq!(stan.register(), refusal, "{id:?}");
    }
    assert_eq!(Stan::connect(&server, "A-b_9").ping(), "");
}

/// A request without a heartbeat inbox, or that cannot be read, registers nobody.
#[test]
fn an_incomplete_registration_is_refused() {
    let server = streaming(1).start();
    let mut stan = Stan::open(&server, server.requester(), "c1");
    let request = ConnectRequest { heartbeat_inbox: String::new(), ..stan.connect_request() };
    assert_eq!(stan.register_with(&request).error, "stan: invalid connection request");
    let answer = stan.request(&format!("_STAN.discover.{CLUSTER}"), GARBAGE);
    let response = <ConnectResponse as prost::Message>::decode(answer.as_slice()).expect("the answer is readable");
    assert_eq!(response.error, "stan: invalid connection request");
    assert!(!is_registered(&server, "c1"));
    assert_eq!(stan.register().error, "");
}

/// Nobody answers for another cluster id, and the client is told so at once.
#[test]
fn item_06_another_cluster_id_finds_no_responder() {
    let server = streaming(1).start();
    let mut stan = Stan::open(&server, server.requester(), "c1");
    let request = prost::Message::encode_to_vec(&stan.connect_request());
    let reply = stan.ask("_STAN.discover.another", &request);
    let msg = stan.raw().next_msg();
    assert_eq!(msg.subject, reply);
    assert!(msg.headers.is_some_and(|headers| headers.starts_with(b"NATS/1.0 503")));
}

/// With one heartbeat per second, 300 ms for an answer and two failures forgiven, a client that listens and is silent
/// is dropped after (1 s + 300 ms) · 3, one that has gone after 1 s · 3, and one that answers stays.
#[test]
fn item_07_a_client_without_heartbeats_is_dropped() {
    let server = heartbeats(&["-hbi", "1s", "-hbt", "300ms", "-hbf", "2"]);
    let mut healthy = Stan::connect(&server, "healthy");
    let begun = Instant::now();
    let mut silent = Stan::connect(&server, "silent");
    silent.answer_heartbeats(false);
    drop(Stan::connect(&server, "gone"));
    let mut await_drop = |id: &str| {
        wait_until(&format!("{id} is dropped"), PATIENCE, || {
            healthy.serve();
            !is_registered(&server, id)
        });
        begun.elapsed()
    };
    let (gone, silenced) = (await_drop("gone"), await_drop("silent"));
    assert!((Duration::from_millis(2900)..Duration::from_secs(6)).contains(&gone), "after {gone:?}");
    assert!((Duration::from_millis(3600)..Duration::from_secs(7)).contains(&silenced), "after {silenced:?}");
    assert!(is_registered(&server, "healthy") && healthy.heartbeats() >= 3);
    assert_eq!(silent.ping(), REPLACED, "a dropped client learns from its next ping");
    assert_eq!(silent.heartbeats(), 3);
}

fn heartbeats(args: &[&str]) -> Server {
    streaming(1).args(args).start()
}

/// Closing ends the registration, and there is nothing to close a second time.
fn item_09_a_closed_client_is_gone(shards: usize) {
    let server = streaming(shards).start();
    let mut other = Stan::connect_on(&server, 1, "c2");
    let mut stan = Stan::connect_on(&server, 0, "c1");
    assert!(is_registered(&server, "c1"));
    assert_eq!(stan.close(), "");
    assert!(!is_registered(&server, "c1"));
    assert_eq!(stan.close(), "stan: unknown clientID");
    assert_eq!(stan.ping(), REPLACED);
    assert_eq!(stan.try_publish("orders", "late"), "stan: invalid publish request");
    let closes = format!("_STAN.close.{CLUSTER}");
    assert_eq!(other.request(&closes, GARBAGE), b"\x0a\x1bstan: invalid close request");
    assert!(is_registered(&server, "c2"));
}

/// An old client gets no settings for pings, and its publishes are known by the client id.
#[test]
fn item_10_an_old_client_needs_no_connection_id() {
    let server = streaming(1).start();
    let mut stan = Stan::open(&server, server.requester(), "c1");
    let request = ConnectRequest { protocol: 0, conn_id: Vec::new(), ..stan.connect_request() };
    let response = stan.register_with(&request);
    assert_eq!(response.error, "");
    assert_eq!((response.ping_requests.as_str(), response.ping_interval, response.ping_max_out), ("", 0, 0));
    assert_eq!(response.protocol, 1);
    let mut message = stan.message("orders", "old");
    message.conn_id.clear();
    assert_eq!(stan.publish_message(&message).error, "");
}

/// A ping that names no connection is not answered; the one behind it is.
#[test]
fn a_ping_without_a_connection_id_gets_no_answer() {
    let server = streaming(1).start();
    let mut stan = Stan::connect(&server, "c1");
    let pings = stan.subjects().ping_requests.clone();
    for payload in [&b""[..], GARBAGE] {
        let unanswered = stan.ask(&pings, payload);
        assert_eq!(stan.ping(), "");
        let messages = stan.raw().messages_to_fence();
        assert!(messages.is_empty(), "{unanswered} was answered: {messages:?}");
    }
}
