//! Publishing: what is acknowledged, what is refused, and what order means.

use prost::Message;

use crate::support::shard_suite;
use crate::support_streaming::wire::PubMsg;
use crate::support_streaming::{Stan, channel_state, channels, command, streaming, streaming_on_files, texts, unix_ns};

/// What a publish is told that cannot be taken.
const INVALID: &str = "stan: invalid publish request";

shard_suite!(one_shard = 1, three_shards = 3 => {
    item_11_publishes_in_flight_are_all_acknowledged,
    item_12_each_publisher_keeps_its_order,
    item_13_channel_names_are_checked,
    item_14_the_connection_id_decides,
    item_15_names_that_differ_in_case_are_refused,
    item_56_what_was_sent_before_a_close_counts,
});

/// Ten thousand messages, a thousand in flight, on several channels: each is acknowledged with its own guid, and the
/// channels have them without a gap and in order.
fn item_11_publishes_in_flight_are_all_acknowledged(shards: usize) {
    const TOTAL: usize = 10_000;
    const IN_FLIGHT: usize = 1000;
    let server = streaming_on_files(shards).start();
    let channels = channels(shards);
    let mut stan = Stan::connect_on(&server, 0, "c1");
    let mut published = vec![0; channels.len()];
    for _ in 0..TOTAL / IN_FLIGHT {
        let mut guids: Vec<String> = Vec::new();
        for number in 0..IN_FLIGHT {
            let at = number % channels.len();
            published[at] += 1;
            guids.push(stan.publish_later(&channels[at], format!("m{}", published[at])));
        }
        let mut acked = Vec::new();
        for _ in 0..IN_FLIGHT {
            let ack = stan.next_ack();
            assert_eq!(ack.error, "");
            acked.push(ack.guid);
        }
        acked.sort();
        guids.sort();
        assert_eq!(acked, guids);
    }
    for (channel, count) in channels.iter().zip(published) {
        let state = channel_state(&server, channel).expect("the channel exists");
        assert_eq!(
            (&state["first_seq"], &state["last_seq"], &state["msgs"]),
            (&1.into(), &count.into(), &count.into())
        );
        let request = stan.wants(channel).in_flight(i32::try_from(TOTAL).expect("small"));
        let subscription = stan.subscribe(&request);
        let all = stan.take_messages(&subscription, count);
        assert!(all.iter().zip(1..).all(|(message, sequence)| message.sequence == sequence));
        assert!(all.windows(2).all(|two| two[0].timestamp <= two[1].timestamp), "timestamps never decrease");
        let expected: Vec<String> = (1..=count).map(|number| format!("m{number}")).collect();
        assert_eq!(texts(&all), expected);
    }
}

/// Two publishers at the same time, from different shards, on the same channels.
fn item_12_each_publisher_keeps_its_order(shards: usize) {
    const EACH: usize = 500;
    let server = streaming(shards).start();
    let mut publishers = [Stan::connect_on(&server, 0, "a"), Stan::connect_on(&server, 1, "b")];
    let channels = channels(shards);
    for number in 0..EACH {
        for publisher in &mut publishers {
            for channel in &channels {
                let data = format!("{} {number}", publisher.id());
                publisher.publish_later(channel, data);
            }
        }
    }
    for publisher in &mut publishers {
        for _ in 0..EACH * channels.len() {
            assert_eq!(publisher.next_ack().error, "");
        }
    }
    let [mut reader, _] = publishers;
    for channel in &channels {
        let request = reader.wants(channel).in_flight(2000);
        let subscription = reader.subscribe(&request);
        let all = texts(&reader.take_messages(&subscription, 2 * EACH));
        for id in ["a ", "b "] {
            let numbers: Vec<usize> = all.iter().filter_map(|text| text.strip_prefix(id)?.parse().ok()).collect();
            assert_eq!(numbers, (0..EACH).collect::<Vec<_>>(), "publisher {id}on {channel}");
        }
    }
}

/// A channel is a plain subject without `/`. The name inside the message decides, whatever the NATS subject says.
fn item_13_channel_names_are_checked(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 1, "c1");
    let prefix = stan.subjects().pub_prefix.clone();
    for name in ["", "a/b", "a.*", "a.>", "*", ">", ".a", "a.", "a..b", "."] {
        let message = stan.message(name, "x");
        let ack = stan.publish_to(&format!("{prefix}.orders"), &message.encode_to_vec());
        assert_eq!((ack.guid, ack.error.as_str()), (message.guid, INVALID), "{name:?}");
    }
    let message = stan.message("billing", "x");
    assert_eq!(stan.publish_to(&format!("{prefix}.orders"), &message.encode_to_vec()).error, "");
    assert!(channel_state(&server, "billing").is_some());
    assert!(channel_state(&server, "orders").is_none());
    let nameless = PubMsg { guid: String::new(), ..stan.message("orders", "x") };
    for payload in [&nameless.encode_to_vec()[..], b"", b"\xff"] {
        let ack = stan.publish_to(&format!("{prefix}.orders"), payload);
        assert_eq!((ack.guid.as_str(), ack.error.as_str()), ("", INVALID), "{payload:?}");
    }
}

/// Where there is a connection id, the client id is not looked at; where there is none, it is.
fn item_14_the_connection_id_decides(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 1, "c1");
    let right = stan.conn_id();
    for (client_id, conn_id, error) in [
        ("c1", &b"wrong"[..], INVALID),
        ("c9", &right, ""),
        ("", &right, ""),
        ("c9", b"", INVALID),
        ("", b"", INVALID),
        ("c1", b"", ""),
    ] {
        for channel in channels(shards) {
            let mut message = stan.message(&channel, "x");
            message.client_id = client_id.to_owned();
            message.conn_id = conn_id.to_vec();
            assert_eq!(stan.publish_message(&message).error, error, "{client_id:?} {:?}", conn_id.escape_ascii());
        }
    }
    for channel in channels(shards) {
        assert_eq!(channel_state(&server, &channel).expect("the channel exists")["msgs"], 3);
    }
}

/// `foo` and `FOO` are one mistake, not two channels.
fn item_15_names_that_differ_in_case_are_refused(shards: usize) {
    let server = streaming(shards).start();
    let mut stan = Stan::connect_on(&server, 1, "c1");
    for lower in ["foo", "bar", "ab.cd", "orders"] {
        let upper = lower.to_uppercase();
        stan.publish(lower, "x");
        let error = format!(
            r#"rejecting channel "{upper}" because channel "{lower}" alreay exists (different cases not allowed)"#
        );
        assert_eq!(stan.try_publish(&upper, "x"), error);
        let request = stan.wants(&upper);
        assert_eq!(stan.try_subscribe(&request).err(), Some(error));
        assert!(channel_state(&server, &upper).is_none());
        assert_eq!(channel_state(&server, lower).expect("the channel exists")["msgs"], 1);
    }
}

/// Beyond the limit no channel is made, neither by a publish nor by a subscription; those that exist go on.
#[test]
fn item_16_too_many_channels_are_refused() {
    let server = streaming(1).args(&["-mc", "2"]).start();
    let mut stan = Stan::connect(&server, "c1");
    stan.publish("one", "x");
    let request = stan.wants("two");
    stan.subscribe(&request);
    assert_eq!(stan.try_publish("three", "x"), "too many channels");
    let request = stan.wants("three");
    assert_eq!(stan.try_subscribe(&request).err().as_deref(), Some("too many channels"));
    stan.publish("one", "y");
    stan.publish("two", "y");
}

/// A reply subject is kept, and the time is that of the server's clock when it stored the message.
#[test]
fn item_17_reply_and_time_are_delivered() {
    let server = streaming(1).start();
    let mut stan = Stan::connect(&server, "c1");
    let mut message = stan.message("orders", b"\x00\xff binary");
    message.reply = "answers.here".to_owned();
    let before = unix_ns();
    assert_eq!(stan.publish_message(&message).error, "");
    let after = unix_ns();
    stan.publish("orders", "");
    let request = stan.wants("orders");
    let subscription = stan.subscribe(&request);
    let [first, empty] = stan.take_messages(&subscription, 2).try_into().expect("two messages");
    assert_eq!(
        (first.sequence, first.reply.as_str(), first.data.as_slice()),
        (1, "answers.here", &b"\x00\xff binary"[..])
    );
    assert!((before..=after).contains(&first.timestamp), "{before} {} {after}", first.timestamp);
    assert!(!first.redelivered && first.redelivery_count == 0);
    assert_eq!((empty.sequence, empty.reply.as_str(), empty.data.len()), (2, "", 0));
}

/// A guid is the client's business: nothing is dropped as a duplicate.
#[test]
fn item_18_a_guid_that_comes_twice_is_stored_twice() {
    let server = streaming(1).start();
    let mut stan = Stan::connect(&server, "c1");
    let message = stan.message("orders", "x");
    for _ in 0..2 {
        assert_eq!(stan.publish_message(&message).error, "");
    }
    assert_eq!(channel_state(&server, "orders").expect("the channel exists")["msgs"], 2);
}

/// Subjects and channels of the same name have nothing to do with each other.
#[test]
fn item_19_a_plain_publish_does_not_enter_a_channel() {
    let server = streaming(1).start();
    let mut stan = Stan::connect(&server, "c1");
    let mut plain = server.client();
    plain.subscribe("orders", "1");
    stan.publish("orders", "into the channel");
    plain.publish("orders", "past the channel");
    assert_eq!(plain.next_msg().text(), "past the channel");
    plain.expect_nothing();
    stan.publish("orders", "into the channel");
    let state = channel_state(&server, "orders").expect("the channel exists");
    assert_eq!((&state["msgs"], &state["last_seq"]), (&2.into(), &2.into()));
}

/// Without a reply subject there is no acknowledgement, but the message is stored.
#[test]
fn a_publish_without_reply_is_stored() {
    let server = streaming(1).start();
    let mut stan = Stan::connect(&server, "c1");
    let message = stan.message("orders", "quiet");
    let subject = format!("{}.orders", stan.subjects().pub_prefix);
    stan.raw().send(command(&subject, None, &message.encode_to_vec()));
    stan.publish("orders", "loud");
    let request = stan.wants("orders");
    let subscription = stan.subscribe(&request);
    assert_eq!(texts(&stan.take_messages(&subscription, 2)), ["quiet", "loud"]);
}

/// A client that publishes, or acknowledges, and closes in the same breath has done both, although the requests go to
/// different subjects: what came first on its connection is handled first.
fn item_56_what_was_sent_before_a_close_counts(shards: usize) {
    const ROUNDS: u64 = 20;
    let server = streaming(shards).start();
    let channels = channels(shards);
    for round in 1..=ROUNDS {
        let shard = usize::try_from(round).expect("small") % shards;
        let mut stan = Stan::connect_on(&server, shard, "hasty");
        let messages: Vec<PubMsg> = channels.iter().map(|channel| stan.message(channel, format!("m{round}"))).collect();
        let bytes = messages.iter().flat_map(|message| stan.publish_command(message)).collect::<Vec<u8>>();
        stan.raw().send(bytes);
        assert_eq!(stan.close(), "");
        for _ in &channels {
            assert_eq!(stan.next_ack().error, "", "in round {round}");
        }
    }
    for shard in 0..shards {
        let mut reader = Stan::connect_on(&server, shard, &format!("reader-{shard}"));
        for channel in &channels {
            for round in 1..=ROUNDS {
                let request = reader.wants(channel).durable("d").in_flight(1);
                let subscription = reader.subscribe(&request);
                // A lost acknowledgement would bring the message of the last round again.
                assert_eq!(reader.next(&subscription).sequence, round, "on {channel}");
                reader.ack(&subscription, round);
                assert_eq!(reader.close_subscription(&subscription), "");
            }
        }
    }
}
