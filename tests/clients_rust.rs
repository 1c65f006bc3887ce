//! Promises kept towards the official Rust client, `async-nats`, used the way applications use it.
//!
//! Where a test says that something does *not* arrive, it does not wait for it not to arrive. It relies on a promise
//! of the server instead: whoever has seen any answer finds, with the next byte it sends on whatever connection,
//! everything done that led to that answer. So after a round trip of the publisher and then one of the subscriber,
//! what the subscriber has not got was not sent to it.

mod support;
mod support_tls;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::{Duration, Instant};

use async_nats::client::PublishErrorKind;
use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Message, Request, RequestErrorKind, Subscriber,
};
use futures_util::{FutureExt, StreamExt};
use support::{PATIENCE, Server, raise_open_files, shard_suite};
use support_tls::Authority;
use tokio::sync::mpsc;

shard_suite!(one_shard = 1, three_shards = 3 => {
    messages_arrive_in_order_with_their_content,
    wildcards_match_whole_tokens,
    a_queue_group_shares_what_others_get_in_full,
    the_first_of_many_answers_wins,
    a_request_can_gather_every_answer,
    a_request_without_responders_fails_at_once,
    headers_travel_with_all_their_values,
    draining_a_subscription_keeps_what_was_delivered,
    draining_a_connection_sends_what_was_published,
    flush_hands_everything_to_the_server,
    a_restart_resumes_subscriptions_and_sends_what_was_buffered,
    oversized_messages_are_refused,
    a_client_past_max_pending_is_cut_off_alone,
    a_client_past_write_deadline_is_cut_off_alone,
    two_thousand_connections_receive_one_publish,
    no_echo_spares_the_publisher_only,
    unsubscribe_after_ends_a_subscription_at_both_ends,
    user_and_password_decide_who_enters,
    a_token_decides_who_enters,
    lame_duck_mode_is_announced,
    large_payloads_arrive_unchanged,
    one_publisher_keeps_its_order_across_subjects,
    server_info_opens_the_feature_gates,
    pings_of_both_sides_are_answered,
    a_silent_responder_is_a_timeout,
    a_command_line_tool_can_introduce_itself,
});

/// Every message comes once, in order and unchanged, to each of several connections.
fn messages_arrive_in_order_with_their_content(shards: usize) {
    const COUNT: usize = 1000;
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let publisher = connect(&server).await;
        let mut subscribers = Vec::new();
        for _ in 0..6 {
            subscribers.push(subscribed(&server, "orders.new").await);
        }
        let expected: Vec<String> = (0..COUNT).map(|index| format!("order {index}")).collect();
        for text in &expected {
            publish(&publisher, "orders.new", text).await;
        }
        round_trip(&publisher).await;
        for (client, subscription) in &mut subscribers {
            round_trip(client).await;
            assert_eq!(texts(&received(subscription)), expected);
        }
    });
}

/// `*` stands for one token, `>` for one or more at the end, and nothing else matches.
fn wildcards_match_whole_tokens(shards: usize) {
    const SUBJECTS: [&str; 7] = ["a", "a.b", "a.c", "a.b.c", "a.b.c.d", "b.b", "ab.b"];
    let expected: [(&str, &[&str]); 5] = [
        ("a.*", &["a.b", "a.c"]),
        ("*.b", &["a.b", "b.b", "ab.b"]),
        ("a.>", &["a.b", "a.c", "a.b.c", "a.b.c.d"]),
        ("a.*.c", &["a.b.c"]),
        ("a.*.>", &["a.b.c", "a.b.c.d"]),
    ];
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let publisher = connect(&server).await;
        let mut subscribers = Vec::new();
        for (pattern, matches) in expected {
            let (client, subscription) = subscribed(&server, pattern).await;
            subscribers.push((client, subscription, pattern, matches));
        }
        for subject in SUBJECTS {
            publish(&publisher, subject, subject).await;
        }
        round_trip(&publisher).await;
        for (client, subscription, pattern, matches) in &mut subscribers {
            round_trip(client).await;
            assert_eq!(texts(&received(subscription)), *matches, "{pattern}");
        }

        // A round trip is a request that nobody takes, so there are none while somebody takes everything.
        let mut everything = publisher.subscribe(">").await.expect("a subscription is made");
        for subject in SUBJECTS {
            publish(&publisher, subject, subject).await;
        }
        for subject in SUBJECTS {
            assert_eq!(text(&next(&mut everything).await), subject);
        }
    });
}

/// Each message goes to exactly one member of each queue group and to every plain subscriber, and no member is left
/// out.
fn a_queue_group_shares_what_others_get_in_full(shards: usize) {
    const COUNT: usize = 400;
    const MEMBERS: usize = 4;
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let publisher = connect(&server).await;
        let mut groups = BTreeMap::new();
        for group in ["billing", "shipping"] {
            let mut members = Vec::new();
            for _ in 0..MEMBERS {
                let client = connect(&server).await;
                let member = client.queue_subscribe("orders.*", group.to_owned()).await.expect("a member subscribes");
                round_trip(&client).await;
                members.push((client, member));
            }
            groups.insert(group, members);
        }
        let (observer, mut everything) = subscribed(&server, "orders.*").await;

        let expected: Vec<String> = (0..COUNT).map(|index| index.to_string()).collect();
        for text in &expected {
            publish(&publisher, "orders.new", text).await;
        }
        round_trip(&publisher).await;

        round_trip(&observer).await;
        assert_eq!(texts(&received(&mut everything)), expected);
        for (group, members) in &mut groups {
            let mut shares = Vec::new();
            for (client, member) in members {
                round_trip(client).await;
                let share = texts(&received(member));
                assert!(!share.is_empty(), "a member of {group} got nothing of {COUNT} messages");
                assert!(share.is_sorted_by_key(|text| text.parse::<usize>().ok()), "{group} got {share:?}");
                shares.extend(share);
            }
            assert_eq!(sorted_numbers(&shares), (0..COUNT).collect::<Vec<_>>(), "{group}");
        }
    });
}

/// Of many answers the request returns one, and the others disturb no later request.
fn the_first_of_many_answers_wins(shards: usize) {
    const RESPONDERS: usize = 6;
    const REQUESTS: usize = 40;
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let _responders = responders(&server, "time.now", RESPONDERS).await;
        let client = connect(&server).await;
        for index in 0..REQUESTS {
            let question = format!("question {index}");
            let answer = client.request("time.now", question.clone().into()).await.expect("somebody answers");
            let answer = text(&answer);
            assert!(answer.ends_with(&format!(" to {question}")), "the answer to {question:?} was {answer:?}");
        }
    });
}

/// A request with an inbox of its own collects the answers of all responders.
fn a_request_can_gather_every_answer(shards: usize) {
    const RESPONDERS: usize = 6;
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let _responders = responders(&server, "who.is.there", RESPONDERS).await;
        let client = connect(&server).await;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.expect("an inbox can be subscribed");
        client.publish_with_reply("who.is.there", inbox, "hello".into()).await.expect("a request is published");
        let mut names = BTreeSet::new();
        for _ in 0..RESPONDERS {
            names.insert(text(&next(&mut answers).await));
        }
        assert_eq!(names, (0..RESPONDERS).map(|index| format!("responder {index} to hello")).collect());
        round_trip(&client).await;
        assert!(received(&mut answers).is_empty(), "nobody answers twice");
    });
}

/// With nobody to answer, the request fails without waiting for its timeout; also after the last responder has left.
fn a_request_without_responders_fails_at_once(shards: usize) {
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let client = connect(&server).await;
        let (responder, mut subscription) = subscribed(&server, "service").await;
        let request = Request::new().timeout(None);
        let error = client.send_request("other.service", request).await.expect_err("nobody is there");
        assert_eq!(error.kind(), RequestErrorKind::NoResponders);

        subscription.unsubscribe().await.expect("a subscription can be ended");
        round_trip(&responder).await;
        let request = Request::new().timeout(None);
        let error = client.send_request("service", request).await.expect_err("nobody is there any more");
        assert_eq!(error.kind(), RequestErrorKind::NoResponders);
    });
}

/// Headers keep their case, their repeated values and their order of values, with a payload and without.
fn headers_travel_with_all_their_values(shards: usize) {
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let publisher = connect(&server).await;
        let (client, mut subscription) = subscribed(&server, "with.headers").await;
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", "text/plain; charset=utf-8");
        headers.append("X-Tag", "red");
        headers.append("X-Tag", "green: and yellow");
        headers.append("X-Tag", "blå");
        headers.insert("x-tag", "another key");
        for payload in ["body", ""] {
            publisher
                .publish_with_headers("with.headers", headers.clone(), payload.into())
                .await
                .expect("headers are published");
        }
        publish(&publisher, "with.headers", "none").await;
        round_trip(&publisher).await;
        round_trip(&client).await;

        let messages = received(&mut subscription);
        assert_eq!(texts(&messages), ["body", "", "none"]);
        for message in &messages[..2] {
            let headers = message.headers.as_ref().expect("the headers arrive");
            let tags: Vec<&str> = headers.get_all("X-Tag").map(|value| value.as_str()).collect();
            assert_eq!(tags, ["red", "green: and yellow", "blå"]);
            let other = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
            assert_eq!(other("Content-Type").as_deref(), Some("text/plain; charset=utf-8"));
            assert_eq!(other("x-tag").as_deref(), Some("another key"));
            assert_eq!(message.status, None);
        }
        assert!(messages[2].headers.is_none(), "a message without headers stays without");
    });
}

/// A drained subscription still yields what the server had sent, ends then, and is gone from the server.
fn draining_a_subscription_keeps_what_was_delivered(shards: usize) {
    const COUNT: usize = 500;
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let publisher = connect(&server).await;
        let (client, mut subscription) = subscribed(&server, "jobs").await;
        for index in 0..COUNT {
            publish(&publisher, "jobs", &index.to_string()).await;
        }
        round_trip(&publisher).await;
        round_trip(&client).await;
        subscription.drain().await.expect("a subscription can be drained");
        round_trip(&client).await;
        let error = publisher.request("jobs", "late".into()).await.expect_err("the subscriber has left");
        assert_eq!(error.kind(), RequestErrorKind::NoResponders);
        assert_eq!(sorted_numbers(&rest(&mut subscription).await), (0..COUNT).collect::<Vec<_>>());
    });
}

/// A drained connection has sent all its publishes, keeps what it had received, and takes no further commands.
fn draining_a_connection_sends_what_was_published(shards: usize) {
    const COUNT: usize = 500;
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let (observer, mut results) = subscribed(&server, "results").await;
        let (options, mut events) = watched();
        let worker = options.connect(server.url()).await.expect("the worker connects");
        let mut jobs = worker.subscribe("jobs").await.expect("the worker subscribes");
        round_trip(&worker).await;
        for index in 0..COUNT {
            publish(&observer, "jobs", &index.to_string()).await;
        }
        round_trip(&observer).await;
        round_trip(&worker).await;
        for index in 0..COUNT {
            publish(&worker, "results", &index.to_string()).await;
        }
        worker.drain().await.expect("a connection can be drained");

        for index in 0..COUNT {
            assert_eq!(text(&next(&mut results).await), index.to_string());
        }
        assert_eq!(sorted_numbers(&rest(&mut jobs).await), (0..COUNT).collect::<Vec<_>>());
        await_event(&mut events, &Event::Closed).await;
        assert!(worker.subscribe("jobs").await.is_err(), "a drained connection takes no subscription");
        let error = observer.request("jobs", "late".into()).await.expect_err("the worker has left");
        assert_eq!(error.kind(), RequestErrorKind::NoResponders);
    });
}

/// After a flush nothing waits in the client: a connection that disappears next takes no message with it.
fn flush_hands_everything_to_the_server(shards: usize) {
    const COUNT: usize = 2000;
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let (_client, mut subscription) = subscribed(&server, "flushed").await;
        let publisher = connect(&server).await;
        for index in 0..COUNT {
            publish(&publisher, "flushed", &index.to_string()).await;
        }
        publisher.flush().await.expect("a connection can be flushed");
        drop(publisher);
        for index in 0..COUNT {
            assert_eq!(text(&next(&mut subscription).await), index.to_string());
        }
    });
}

/// A client that lived through a restart gets, on its old subscriptions, what it published meanwhile and what others
/// publish later, and its requests work again.
fn a_restart_resumes_subscriptions_and_sends_what_was_buffered(shards: usize) {
    const COUNT: usize = 100;
    in_runtime(async move {
        let mut server = Server::builder().shards(shards).start();
        let (options, mut events) = watched();
        let client = options.connect(server.url()).await.expect("the client connects");
        await_event(&mut events, &Event::Connected).await;
        let mut plain = client.subscribe("kept.*").await.expect("a subscription is made");
        let mut member = client.queue_subscribe("kept.>", "group".to_owned()).await.expect("a member subscribes");
        round_trip(&client).await;

        tokio::task::block_in_place(|| stop(&mut server));
        await_event(&mut events, &Event::Disconnected).await;
        let buffered: Vec<String> = (0..COUNT).map(|index| format!("buffered {index}")).collect();
        for text in &buffered {
            publish(&client, "kept.meanwhile", text).await;
        }
        tokio::task::block_in_place(|| server.restart_same_port());
        await_event(&mut events, &Event::Connected).await;
        round_trip(&client).await;
        assert_eq!(texts(&received(&mut plain)), buffered);
        assert_eq!(texts(&received(&mut member)), buffered);

        let other = connect(&server).await;
        publish(&other, "kept.later", "from another").await;
        round_trip(&other).await;
        round_trip(&client).await;
        assert_eq!(texts(&received(&mut plain)), ["from another"]);
        assert_eq!(texts(&received(&mut member)), ["from another"]);
    });
}

/// The client learns the server's limit and refuses what is above it, headers included; the limit itself passes.
fn oversized_messages_are_refused(shards: usize) {
    const LIMIT: usize = 2048;
    in_runtime(async move {
        let server = Server::builder().shards(shards).option("max_payload", &LIMIT.to_string()).start();
        let client = connect(&server).await;
        assert_eq!(client.server_info().max_payload, LIMIT);
        let mut subscription = client.subscribe("limited").await.expect("a subscription is made");
        let refused = client.publish("limited", vec![b'x'; LIMIT + 1].into()).await.expect_err("one byte too many");
        assert_eq!(refused.kind(), PublishErrorKind::MaxPayloadExceeded);
        let mut headers = HeaderMap::new();
        headers.insert("Key", "value");
        let refused = client
            .publish_with_headers("limited", headers, vec![b'x'; LIMIT].into())
            .await
            .expect_err("headers count too");
        assert_eq!(refused.kind(), PublishErrorKind::MaxPayloadExceeded);
        let refused = client.request("limited", vec![b'x'; LIMIT + 1].into()).await.expect_err("one byte too many");
        assert_eq!(refused.kind(), RequestErrorKind::MaxPayloadExceeded);

        client.publish("limited", vec![b'x'; LIMIT].into()).await.expect("the limit itself is allowed");
        round_trip(&client).await;
        let sizes: Vec<usize> = received(&mut subscription).iter().map(|message| message.payload.len()).collect();
        assert_eq!(sizes, [LIMIT]);
    });
}

/// A client that stops reading is disconnected when more than `max_pending` waits for it; everybody else, the
/// publisher included, goes on without a loss.
fn a_client_past_max_pending_is_cut_off_alone(shards: usize) {
    let server = Server::builder().shards(shards).option("max_pending", "2097152").start();
    a_client_that_stops_reading_is_cut_off_alone(&server);
}

/// A client that stops reading is disconnected when a write to it does not end within `write_deadline`; everybody
/// else, the publisher included, goes on without a loss.
fn a_client_past_write_deadline_is_cut_off_alone(shards: usize) {
    let server = Server::builder().shards(shards).option("write_deadline", "400ms").start();
    a_client_that_stops_reading_is_cut_off_alone(&server);
}

fn a_client_that_stops_reading_is_cut_off_alone(server: &Server) {
    // A runtime that nobody drives reads no sockets: that is how the slow client stops.
    let slow = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let (slow_client, _unread, mut slow_events) = slow.block_on(async {
        let (options, mut events) = watched();
        let client = options.connect(server.url()).await.expect("the slow client connects");
        await_event(&mut events, &Event::Connected).await;
        let mut unread = Vec::new();
        for subject in ["flood", "slow.client"] {
            unread.push(client.subscribe(subject).await.expect("the slow client subscribes"));
        }
        round_trip(&client).await;
        (client, unread, events)
    });
    in_runtime(flood_until_cut_off(server.url()));
    slow.block_on(async {
        await_event(&mut slow_events, &Event::Disconnected).await;
        await_event(&mut slow_events, &Event::Connected).await;
        round_trip(&slow_client).await;
    });
}

/// Publishes on `flood` until a request to `slow.client` finds nobody there, at the pace of a healthy subscriber,
/// which must get it all.
async fn flood_until_cut_off(url: String) {
    const PAYLOAD_BYTES: usize = 32 * 1024;
    const BATCH: usize = 16;
    /// 48 MiB: more than socket buffers hold, less than the default of `max_pending`.
    const FLOOD_MAX: usize = 1536;
    /// Less than the default of `write_deadline`.
    const LIMIT: Duration = Duration::from_secs(8);
    let healthy = async_nats::connect(&url).await.expect("the healthy client connects");
    let mut flood = healthy.subscribe("flood").await.expect("the healthy client subscribes");
    round_trip(&healthy).await;
    let publisher = async_nats::connect(&url).await.expect("the publisher connects");
    let inbox = publisher.new_inbox();
    let mut answers = publisher.subscribe(inbox.clone()).await.expect("an inbox can be subscribed");

    let deadline = Instant::now() + LIMIT;
    let mut sent = 0;
    loop {
        publisher.publish_with_reply("slow.client", inbox.clone(), "".into()).await.expect("a request is published");
        round_trip(&publisher).await;
        if !received(&mut answers).is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "the slow client is still connected after {sent} messages");
        if sent < FLOOD_MAX {
            for _ in 0..BATCH {
                let mut payload = vec![b'.'; PAYLOAD_BYTES];
                payload[..8].copy_from_slice(&sent.to_be_bytes());
                publisher.publish("flood", payload.into()).await.expect("the flood is published");
                sent += 1;
            }
            for index in sent - BATCH..sent {
                assert_eq!(next(&mut flood).await.payload[..8], index.to_be_bytes());
            }
        }
    }
    publish(&publisher, "flood", "after the cut").await;
    assert_eq!(text(&next(&mut flood).await), "after the cut");
}

/// One server serves two thousand connections of one process: a publish reaches every one of them once.
fn two_thousand_connections_receive_one_publish(shards: usize) {
    const CONNECTIONS: usize = 2000;
    const DIALS_AT_ONCE: usize = 64;
    let open_files = raise_open_files();
    assert!(open_files >= 4096, "this test needs 4,096 open files, the hard limit is {open_files}: raise `ulimit -Hn`");
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let publisher = connect(&server).await;
        let dials = (0..CONNECTIONS).map(|_| subscribed(&server, "news"));
        let mut subscribers: Vec<_> = futures_util::stream::iter(dials).buffer_unordered(DIALS_AT_ONCE).collect().await;
        publish(&publisher, "news", "to all").await;
        for (_, subscription) in &mut subscribers {
            assert_eq!(text(&next(subscription).await), "to all");
        }
        round_trip(&publisher).await;
        for (client, subscription) in &mut subscribers {
            round_trip(client).await;
            assert!(received(subscription).is_empty(), "one publish arrives once");
        }
    });
}

/// A connection that asked for no echo does not get its own messages, while others get them and it gets theirs. A
/// request that only it could answer finds no responder.
fn no_echo_spares_the_publisher_only(shards: usize) {
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let quiet = ConnectOptions::new().no_echo().connect(server.url()).await.expect("the client connects");
        let mut own = quiet.subscribe("room").await.expect("a subscription is made");
        round_trip(&quiet).await;
        let (other, mut others) = subscribed(&server, "room").await;
        publish(&quiet, "room", "from the quiet one").await;
        round_trip(&quiet).await;
        publish(&other, "room", "from the other").await;
        round_trip(&other).await;
        round_trip(&quiet).await;
        assert_eq!(texts(&received(&mut own)), ["from the other"]);
        assert_eq!(texts(&received(&mut others)), ["from the quiet one", "from the other"]);

        others.unsubscribe().await.expect("a subscription can be ended");
        round_trip(&other).await;
        let error = quiet.request("room", "anybody else?".into()).await.expect_err("it is alone");
        assert_eq!(error.kind(), RequestErrorKind::NoResponders);
    });
}

/// After the agreed number of messages the stream ends and the server has dropped the subscription.
fn unsubscribe_after_ends_a_subscription_at_both_ends(shards: usize) {
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let publisher = connect(&server).await;
        let (client, mut subscription) = subscribed(&server, "lottery").await;
        subscription.unsubscribe_after(3).await.expect("a limit can be set");
        round_trip(&client).await;
        for index in 0..5 {
            publish(&publisher, "lottery", &index.to_string()).await;
        }
        assert_eq!(rest(&mut subscription).await, ["0", "1", "2"]);
        let error = publisher.request("lottery", "late".into()).await.expect_err("the subscription is used up");
        assert_eq!(error.kind(), RequestErrorKind::NoResponders);
    });
}

/// The right user and password enter; anything else gets an authorization error.
fn user_and_password_decide_who_enters(shards: usize) {
    in_runtime(async move {
        let server = Server::builder().shards(shards).user("ann", "s3cret").start();
        let ann = ConnectOptions::with_user_and_password("ann".to_owned(), "s3cret".to_owned());
        round_trip(&ann.connect(server.url()).await.expect("the right password is let in")).await;
        for (user, password) in [("ann", "secret"), ("ann", ""), ("bob", "s3cret"), ("Ann", "s3cret")] {
            let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
            refused(options, &server).await;
        }
        refused(ConnectOptions::new(), &server).await;
        refused(ConnectOptions::with_token("s3cret".to_owned()), &server).await;
    });
}

/// The right token enters; anything else gets an authorization error.
fn a_token_decides_who_enters(shards: usize) {
    in_runtime(async move {
        let server = Server::builder().shards(shards).token("open sesame").start();
        let holder = ConnectOptions::with_token("open sesame".to_owned());
        round_trip(&holder.connect(server.url()).await.expect("the right token is let in")).await;
        for token in ["open", "open sesame ", ""] {
            refused(ConnectOptions::with_token(token.to_owned()), &server).await;
        }
        refused(ConnectOptions::new(), &server).await;
    });
}

/// At SIGUSR2 connected clients are told, still served, and newcomers are turned away.
fn lame_duck_mode_is_announced(shards: usize) {
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let mut told = Vec::new();
        for _ in 0..6 {
            let (options, events) = watched();
            let client = options.connect(server.url()).await.expect("a client connects");
            round_trip(&client).await;
            told.push((client, events));
        }
        server.signal(libc::SIGUSR2);
        for (client, events) in &mut told {
            await_event(events, &Event::LameDuckMode).await;
            round_trip(client).await;
        }
        let error = async_nats::connect(server.url()).await.expect_err("newcomers are turned away");
        assert_eq!(error.kind(), ConnectErrorKind::Io);
    });
}

/// Payloads of every size class up to the default limit arrive as they were sent, and come back in an answer.
fn large_payloads_arrive_unchanged(shards: usize) {
    const SIZES: [usize; 9] = [0, 1, 511, 4096, 65_535, 65_536, 300_000, 1_048_575, 1_048_576];
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let responder = connect(&server).await;
        let mut requests = responder.subscribe("mirror").await.expect("the responder subscribes");
        round_trip(&responder).await;
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let reply = request.reply.expect("a request names its inbox");
                responder.publish(reply, request.payload).await.expect("an answer is published");
            }
        });
        let client = connect(&server).await;
        for (index, size) in SIZES.into_iter().cycle().take(3 * SIZES.len()).enumerate() {
            let payload = pattern(index, size);
            let answer = client.request("mirror", payload.clone().into()).await.expect("the mirror answers");
            assert!(answer.payload == payload, "{size} bytes came back changed");
        }
    });
}

/// What one connection publishes on many subjects reaches every other connection in the order of publishing.
fn one_publisher_keeps_its_order_across_subjects(shards: usize) {
    const PUBLISHERS: usize = 4;
    const SUBSCRIBERS: usize = 4;
    const COUNT: usize = 600;
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let mut subscribers = Vec::new();
        for _ in 0..SUBSCRIBERS {
            subscribers.push(subscribed(&server, "from.>").await);
        }
        let mut publishers = Vec::new();
        for publisher in 0..PUBLISHERS {
            let client = connect(&server).await;
            publishers.push(tokio::spawn(async move {
                for index in 0..COUNT {
                    let subject = format!("from.{publisher}.lane.{}", index * index % 7);
                    publish(&client, &subject, &index.to_string()).await;
                }
                round_trip(&client).await;
            }));
        }
        for publisher in publishers {
            publisher.await.expect("a publisher should not fail");
        }
        for (client, subscription) in &mut subscribers {
            round_trip(client).await;
            let messages = received(subscription);
            for publisher in 0..PUBLISHERS {
                let prefix = format!("from.{publisher}.");
                let of_publisher = messages.iter().filter(|message| message.subject.starts_with(&prefix));
                let order: Vec<String> = of_publisher.map(text).collect();
                assert_eq!(order, (0..COUNT).map(|index| index.to_string()).collect::<Vec<_>>());
            }
        }
    });
}

/// The server introduces itself with everything that clients decide by: version, limits, abilities, identity.
fn server_info_opens_the_feature_gates(shards: usize) {
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let mut client_ids = BTreeSet::new();
        let mut server_ids = BTreeSet::new();
        for _ in 0..6 {
            let client = connect(&server).await;
            let info = client.server_info();
            assert_eq!(info.version, "2.15.1");
            assert!(client.is_server_compatible(2, 15, 1), "features of 2.15.1 are on");
            assert!(!client.is_server_compatible(2, 15, 2), "features of later versions are off");
            assert_eq!((info.proto, info.headers, info.max_payload), (1, true, 1024 * 1024));
            assert_eq!((info.host.as_str(), info.port), ("127.0.0.1", server.addr().port()));
            assert_eq!(info.client_ip, "127.0.0.1");
            assert!(!info.auth_required && !info.tls_required && !info.lame_duck_mode, "{info:?}");
            assert!(!info.server_name.is_empty(), "a server has a name");
            server_ids.insert(info.server_id);
            client_ids.insert(info.client_id);
        }
        assert_eq!(server_ids.len(), 1, "all shards are one server");
        assert_eq!(client_ids.len(), 6, "connection ids are unique across shards");
    });
}

/// The server answers the client's pings, and a client that only answers the server's pings stays connected.
fn pings_of_both_sides_are_answered(shards: usize) {
    const LINE_BYTES: u64 = "PING\r\n".len() as u64;
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let (options, mut events) = watched();
        let options = options.ping_interval(Duration::from_millis(250));
        let pinging = options.connect(server.url()).await.expect("the client connects");

        let impatient =
            Server::builder().shards(shards).option("ping_interval", "200ms").option("ping_max", "4").start();
        let (options, mut idle_events) = watched();
        let idle = options.connect(impatient.url()).await.expect("the client connects");

        // This client gives up at its third ping without an answer, that server at its fifth.
        tokio::join!(await_traffic(&pinging, 4 * LINE_BYTES), await_traffic(&idle, 6 * LINE_BYTES));
        for events in [&mut events, &mut idle_events] {
            await_event(events, &Event::Connected).await;
            assert!(events.try_recv().is_err(), "answers keep a connection");
        }
    });
}

/// A responder that never answers costs the request its own timeout, not the connection.
fn a_silent_responder_is_a_timeout(shards: usize) {
    in_runtime(async move {
        let server = Server::builder().shards(shards).start();
        let (_silent, mut requests) = subscribed(&server, "silence").await;
        let client = connect(&server).await;
        let request = Request::new().payload("hello?".into()).timeout(Some(Duration::from_millis(100)));
        let error = client.send_request("silence", request).await.expect_err("nobody answers");
        assert_eq!(error.kind(), RequestErrorKind::TimedOut);
        assert_eq!(text(&next(&mut requests).await), "hello?");
        round_trip(&client).await;
    });
}

/// What the command line tool does first works: it connects under its own name, which monitoring shows, reads the
/// server's introduction and measures the round trip.
fn a_command_line_tool_can_introduce_itself(shards: usize) {
    const NAME: &str = "NATS CLI Version 0.3.0";
    in_runtime(async move {
        let server = Server::builder().shards(shards).monitor().start();
        let options = ConnectOptions::new().name(NAME).custom_inbox_prefix("_INBOX").max_reconnects(Some(60));
        let client = options.connect(server.url()).await.expect("the tool connects");
        let info = client.server_info();
        let mut round_trips = Vec::new();
        for _ in 0..5 {
            round_trips.push(round_trip(&client).await);
        }
        let fastest = round_trips.iter().min().expect("five round trips were made");
        assert!(*fastest < Duration::from_secs(1), "round trips of {round_trips:?}");

        let listed = tokio::task::block_in_place(|| server.get_json(&format!("/connz?cid={}", info.client_id)));
        let listed = &listed["connections"][0];
        assert_eq!((listed["name"].as_str(), listed["lang"].as_str()), (Some(NAME), Some("rust")), "{listed}");
    });
}

/// Runs a test's body, which must end within a generous time.
fn in_runtime(body: impl Future<Output = ()>) {
    const LIMIT: Duration = Duration::from_secs(60);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    runtime.block_on(async { tokio::time::timeout(LIMIT, body).await.expect("the test should end in time") });
}

/// Inside TLS, with the handshake after INFO or before it and with a certificate of its own, messages of all sizes and
/// requests go their way, and a client comes back after a restart.
#[test]
fn works_inside_tls() {
    Authority::new().for_each_mode(|mode| {
        let mut server = Server::builder().shards(3).args(&["-c", &mode.config]).start();
        let text = |name: &str| mode.client[name].as_str().map(std::path::PathBuf::from);
        let mut options = ConnectOptions::new()
            .require_tls(true)
            .add_root_certificates(text("ca").expect("an authority"))
            .reconnect_delay_callback(|_| Duration::from_millis(20));
        if let (Some(cert), Some(key)) = (text("cert"), text("key")) {
            options = options.add_client_certificate(cert, key);
        }
        if mode.client["first"] == true {
            options = options.tls_first();
        }
        in_runtime(async move {
            let mut clients = Vec::new();
            for _ in 0..4 {
                clients.push(options.clone().connect(server.url()).await.expect("a client connects"));
            }
            for again in [false, true] {
                if again {
                    server.restart_same_port();
                }
                let mut subscription = clients[0].subscribe("in.tls").await.expect("a subscription is made");
                round_trip(&clients[0]).await;
                for (index, size) in [0, 1, 100, 16_384, 16_385, 100_000, 1 << 20].into_iter().enumerate() {
                    let payload: Vec<u8> = (0..size).map(|i| (i * 7 + index) as u8).collect();
                    let client = &clients[1 + index % 3];
                    client.publish("in.tls", payload.clone().into()).await.expect("a message is published");
                    client.flush().await.expect("a flush succeeds");
                    let message = subscription.next().await.expect("the subscription is open");
                    assert!(message.payload == payload, "{}: {size} bytes are damaged", mode.name);
                }
            }
        });
    });
}

async fn connect(server: &Server) -> Client {
    async_nats::connect(server.url()).await.expect("a client connects")
}

/// A connection with a subscription that is in force.
async fn subscribed(server: &Server, subject: &'static str) -> (Client, Subscriber) {
    let client = connect(server).await;
    let subscription = client.subscribe(subject).await.expect("a subscription is made");
    round_trip(&client).await;
    (client, subscription)
}

/// Connects so many responders, each naming itself in its answer.
async fn responders(server: &Server, subject: &'static str, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for index in 0..count {
        let (client, mut requests) = subscribed(server, subject).await;
        clients.push(client.clone());
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let reply = request.reply.clone().expect("a request names its inbox");
                publish(&client, &reply, &format!("responder {index} to {}", text(&request))).await;
            }
        });
    }
    clients
}

async fn publish(client: &Client, subject: &str, text: &str) {
    client.publish(subject.to_owned(), text.to_owned().into()).await.expect("a message is published");
}

/// Asks the server something that it answers itself, and returns how long that took.
async fn round_trip(client: &Client) -> Duration {
    let subject = client.new_inbox().replace('.', "-");
    let begin = Instant::now();
    let request = Request::new().timeout(Some(PATIENCE));
    let error = client.send_request(subject, request).await.expect_err("nobody listens there");
    assert_eq!(error.kind(), RequestErrorKind::NoResponders, "{error}");
    begin.elapsed()
}

/// The next message, which must come.
async fn next(subscription: &mut Subscriber) -> Message {
    let message = tokio::time::timeout(PATIENCE, subscription.next()).await.expect("a message should come");
    message.expect("the subscription should go on")
}

/// The messages that have arrived.
fn received(subscription: &mut Subscriber) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(message) = tokio::task::unconstrained(subscription.next()).now_or_never().flatten() {
        messages.push(message);
    }
    messages
}

/// The texts of all messages up to the end of the subscription, which must come.
async fn rest(subscription: &mut Subscriber) -> Vec<String> {
    let messages: Vec<Message> =
        tokio::time::timeout(PATIENCE, subscription.collect()).await.expect("the subscription should end");
    texts(&messages)
}

fn text(message: &Message) -> String {
    String::from_utf8(message.payload.to_vec()).expect("the payload should be text")
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(text).collect()
}

fn sorted_numbers(texts: &[String]) -> Vec<usize> {
    let mut numbers: Vec<usize> = texts.iter().map(|text| text.parse().expect("a number was published")).collect();
    numbers.sort_unstable();
    numbers
}

/// Bytes that differ from place to place and from one `seed` to the next.
fn pattern(seed: usize, size: usize) -> Vec<u8> {
    (0..size).map(|index| ((index + seed) * 31 % 251) as u8).collect()
}

/// Options of a client that reconnects quickly, and the events it will tell.
fn watched() -> (ConnectOptions, mpsc::UnboundedReceiver<Event>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let options =
        ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(10)).event_callback(move |event| {
            let sender = sender.clone();
            async move {
                // Events that come after the test has looked at all it wants have no reader.
                let _ = sender.send(event);
            }
        });
    (options, receiver)
}

/// Waits for an event, skipping others.
async fn await_event(events: &mut mpsc::UnboundedReceiver<Event>, wanted: &Event) {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(event) = events.recv().await {
            if event == *wanted {
                return;
            }
            seen.push(event);
        }
        panic!("the client ended before {wanted:?}");
    });
    found.await.unwrap_or_else(|_| panic!("waited in vain for {wanted:?}, saw {seen:?}"));
}

/// Waits until the client has read so many more bytes.
async fn await_traffic(client: &Client, bytes: u64) {
    let statistics = client.statistics();
    let read = || statistics.in_bytes.load(std::sync::atomic::Ordering::Relaxed);
    let wanted = read() + bytes;
    let deadline = Instant::now() + PATIENCE;
    while read() < wanted {
        assert!(Instant::now() < deadline, "read {} bytes where {wanted} should come", read());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A connection attempt that the server must refuse for its credentials.
async fn refused(options: ConnectOptions, server: &Server) {
    let error = options.connect(server.url()).await.expect_err("wrong credentials are refused");
    assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");
}

/// Stops the server in an orderly way; it can be started again on the same port.
fn stop(server: &mut Server) {
    server.signal(libc::SIGTERM);
    assert!(server.wait_exit(PATIENCE).is_some(), "the server should stop at SIGTERM");
}
