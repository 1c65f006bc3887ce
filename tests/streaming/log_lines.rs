//! What operators read in the log, in the reference's words.

use crate::support::Server;
use crate::support_streaming::{Stan, streaming};

/// The lines of the service, without process and time.
fn lines(server: &Server) -> Vec<String> {
    let log = server.stderr();
    let line = |line: &str| {
        let at = line.find("] STREAM: ")?;
        Some(line[at - "[INF".len()..].to_owned())
    };
    log.lines().filter_map(line).collect()
}

/// The log has these lines in this order, perhaps with others between them.
fn expect_in_order(server: &Server, expected: &[String]) {
    server.await_stderr(expected.last().expect("there are some"));
    let lines = lines(server);
    let mut rest = lines.iter();
    for wanted in expected {
        assert!(rest.any(|line| line.contains(wanted.as_str())), "{wanted:?} is not in its place in {lines:#?}");
    }
}

/// Where things are kept and how much of them, with a star at the defaults.
#[test]
fn the_start_shows_the_limits() {
    let server = streaming(1).args(&["-st", "memory", "-mm", "3", "-mc", "0", "-ma", "90m"]).start();
    let block = [
        "[INF] STREAM: Message store is MEMORY",
        "[INF] STREAM: ---------- Store Limits ----------",
        "[INF] STREAM: Channels:            unlimited",
        "[INF] STREAM: --------- Channels Limits --------",
        "[INF] STREAM:   Subscriptions:          1000 *",
        "[INF] STREAM:   Messages     :             3",
        "[INF] STREAM:   Bytes        :     976.56 MB *",
        "[INF] STREAM:   Age          :       1h30m0s",
        "[INF] STREAM:   Inactivity   :     unlimited *",
        "[INF] STREAM: ----------------------------------",
        "[INF] STREAM: Streaming Server is ready",
    ];
    server.await_stderr("STREAM: Streaming Server is ready");
    let lines = lines(&server);
    let at = lines.iter().position(|line| *line == block[0]).expect("the store is named");
    assert_eq!(lines[at..][..block.len()], block);
}

/// A new channel, one that may not be, and that messages make room for others, the first time.
#[test]
fn channels_and_their_limits_are_told() {
    let server = streaming(1).args(&["-st", "memory", "-mm", "3", "-mc", "2", "-msu", "1"]).start();
    let mut stan = Stan::connect(&server, "c1");
    stan.publish_numbers("foo", 1..=20);
    stan.publish("bar", "x");
    assert_eq!(stan.try_publish("baz", "x"), "too many channels");
    let request = stan.wants("foo");
    stan.subscribe(&request);
    let mut request = stan.wants("foo");
    assert_eq!(stan.try_subscribe(&request).unwrap_err(), "too many subscriptions per channel");
    request.ack_wait_in_secs = 0;
    stan.try_subscribe(&request).unwrap_err();
    let text = |text: &str| text.to_owned();
    expect_in_order(
        &server,
        &[
            text(r#"[INF] STREAM: Channel "foo" has been created"#),
            text(r#"[WRN] STREAM: Reached limits for store "foo" (msgs=3/3 bytes="#),
            text(r#"[INF] STREAM: Channel "bar" has been created"#),
            text(r#"[ERR] STREAM: Creating channel "baz" failed: too many channels"#),
            text(
                r#"[ERR] STREAM: [Client:c1] Error processing message for subject "_STAN.pub.test-cluster.baz": too many channels"#,
            ),
            text(r#"[ERR] STREAM: Unable to create subscription on "foo": too many subscriptions per channel"#),
            text("[ERR] STREAM: [Client:c1] Invalid AckWait (0) in subscription request from _STAN.sub.test-cluster"),
        ],
    );
    let lines = lines(&server);
    assert_eq!(lines.iter().filter(|line| line.contains("Reached limits")).count(), 1);
    assert!(!lines.iter().any(|line| line.starts_with("[DBG]") || line.starts_with("[TRC]")), "{lines:#?}");
}

/// The life of clients and subscriptions with `-SD`, and that of messages with `-SV`.
#[test]
fn clients_and_subscriptions_are_told_on_demand() {
    let server = streaming(1).args(&["-st", "memory", "-SDV"]).start();
    let mut stan = Stan::connect(&server, "c1");
    stan.publish("foo", "x");
    let mut expected = vec!["[DBG] STREAM: [Client:c1] Connected (Inbox=_INBOX.".to_owned()];
    let message = stan.message("foo", "y");
    stan.publish_message(&message);
    expected.push(format!("[TRC] STREAM: [Client:c1] Received message from publisher subj=foo guid={}", message.guid));
    expected.push(format!("[TRC] STREAM: Acking Publisher guid={}", message.guid));
    let change = |change: &str, inbox: &str, name: &str| {
        format!("[DBG] STREAM: [Client:c1] {change}, subject=foo, inbox={inbox}, {name}, subid=")
    };
    let request = stan.wants("foo").durable("d");
    let first = stan.subscribe(&request);
    assert_eq!(stan.take_messages(&first, 2).len(), 2);
    stan.ack(&first, 1);
    stan.close_subscription(&first);
    expected.push(change("Started new durable subscription", &request.inbox, "durable=d"));
    expected.push(change("Suspended durable subscription", &request.inbox, "durable=d"));
    let request = stan.wants("foo").durable("d");
    let again = stan.subscribe(&request);
    assert_eq!(stan.next(&again).sequence, 2);
    stan.unsubscribe(&again);
    expected.push(change("Resumed durable subscription", &request.inbox, "durable=d"));
    expected.push(change("Removed durable subscription", &request.inbox, "durable=d"));
    let [one, two] = [stan.wants("foo").queue("g").durable("d"), stan.wants("foo").queue("g").durable("d")];
    for request in [&one, &two] {
        stan.subscribe(request);
    }
    expected.push(change("Started new durable queue subscription", &one.inbox, "queue=d:g"));
    expected.push(change("Added member to durable queue subscription", &two.inbox, "queue=d:g"));
    assert_eq!(stan.close(), "");
    expected.push("[DBG] STREAM: [Client:c1] Closed (Inbox=_INBOX.".to_owned());
    expected.push(change("Removed member from durable queue subscription", &one.inbox, "queue=d:g"));
    expected.push(change("Suspended durable queue subscription", &two.inbox, "queue=d:g"));
    expect_in_order(&server, &expected);
    let log = server.stderr();
    for text in [
        ", sending from beginning, seq=1\n",
        "[TRC] STREAM: [Client:c1] Delivering msg to subid=",
        "[TRC] STREAM: [Client:c1] Redelivering msg to subid=",
        "[TRC] STREAM: [Client:c1] Processing ack for subid=",
    ] {
        assert!(log.contains(text), "{text:?} is not in {log}");
    }
}
