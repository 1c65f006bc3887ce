//! What survives: everything that was answered for, whenever the process is killed, with any number of shards.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::world::{SECOND, World};
use crate::sim::storage::seeds;
use crate::streaming::pb;

#[test]
fn items_50_and_51_clients_go_on() {
    for shards in [1, 2, 3] {
        let mut world = World::new(2);
        world.connect(1, "me");
        for number in 1..=5 {
            world.store(0, "foo", &number.to_string());
        }
        let request = pb::SubscriptionRequest { ack_wait_in_secs: 1, ..World::sub_request("me", "foo", "_INBOX.in") };
        let ack_inbox = world.subscribe(0, &request).unwrap();
        assert_eq!(world.numbers("_INBOX.in").len(), 5);
        world.ack(0, &ack_inbox, "foo", 2);
        // Acknowledgements ride along with the next flush.
        world.store(0, "foo", "6");
        world.pass(SECOND / 2);
        world.messages("_INBOX.in");
        world.kill(shards);
        assert_eq!(world.ping(0, "me"), "");
        assert_eq!(world.store(0, "foo", "7"), "");
        world.pass(2 * SECOND);
        let seen = world.numbers("_INBOX.in").into_iter().map(|(number, _)| number).collect::<BTreeSet<_>>();
        assert_eq!(seen, BTreeSet::from([1, 3, 4, 5, 6, 7]), "all but what was acknowledged");
        for number in [1, 3, 4, 5, 6, 7] {
            world.ack(0, &ack_inbox, "foo", number);
        }
        world.messages("_INBOX.in");
        world.pass(5 * SECOND);
        assert_eq!(world.numbers("_INBOX.in"), [], "the subject for acknowledgements is the same");
    }
}

#[test]
fn a_clean_stop_keeps_everything() {
    let mut world = World::new(2);
    world.connect(1, "me");
    for number in 1..=5 {
        world.store(0, "foo", &number.to_string());
    }
    let request = pb::SubscriptionRequest { durable_name: "d".into(), ..World::sub_request("me", "foo", "_INBOX.in") };
    let ack_inbox = world.subscribe(0, &request).unwrap();
    world.ack(0, &ack_inbox, "foo", 1);
    let before = (world.snapshot().channels, world.snapshot().clients);
    world.restart(3);
    let mut after = (world.snapshot().channels, world.snapshot().clients);
    after.0.iter_mut().for_each(|channel| channel.bytes = before.0[0].bytes);
    assert_eq!(after, before);
    assert_eq!(world.unsubscribe(0, "me", "foo", &ack_inbox, true), "");
    world.restart(1);
    assert!(world.only_subscription("foo").is_offline);
}

/// Kills at any moment while clients publish, subscribe, acknowledge, and go.
#[test]
fn kills() {
    for seed in seeds(60) {
        run(seed);
    }
}

struct Durable {
    inbox: String,
    ack_inbox: String,
    /// Acknowledged for good: a later answer came from the same home.
    final_acks: BTreeSet<u64>,
    acks: BTreeSet<u64>,
    /// Acknowledged at some time: that may be forgotten in a crash, or not.
    ever_acked: BTreeSet<u64>,
    got: BTreeSet<u64>,
}

fn run(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::new(rng.u16(1..4));
    world.connect(0, "me");
    let channels = ["a", "b", "c"];
    // What subscribers have seen, by channel and number.
    let mut stored: BTreeMap<(&str, u64), String> = BTreeMap::new();
    // What publishers were told is stored.
    let mut answered: BTreeSet<(&str, String)> = BTreeSet::new();
    let mut sent: BTreeMap<String, (&str, String)> = BTreeMap::new();
    let mut durables: BTreeMap<&str, Durable> = BTreeMap::new();
    for channel in channels {
        let inbox = format!("_INBOX.{channel}");
        let request = pb::SubscriptionRequest {
            durable_name: "d".into(),
            ack_wait_in_secs: 1,
            max_in_flight: 50,
            ..World::sub_request("me", channel, &inbox)
        };
        let ack_inbox = world.subscribe(0, &request).unwrap();
        let durable =
            Durable { inbox, ack_inbox, final_acks: BTreeSet::new(), acks: BTreeSet::new(), got: BTreeSet::new() };
        durables.insert(channel, durable);
    }
    let mut number = 0;
    for life in 0..4 {
        let context = format!("seed {seed}, life {life}");
        for _ in 0..rng.usize(1..300) {
            let channel = channels[rng.usize(..3)];
            match rng.u8(..10) {
                0..=4 => {
                    number += 1;
                    let (reply, text) = (format!("_INBOX.ack.{number}"), format!("message {number}"));
                    let message = World::pub_msg(channel, &reply, text.as_bytes()).encode_to_vec();
                    world.publish(0, &format!("_STAN.pub.test-cluster.{channel}"), &reply, &message);
                    sent.insert(reply, (channel, text));
                }
                5..=7 => drop(world.turn()),
                8 => world.now += rng.i64(0..SECOND / 5),
                _ => collect(&mut world, &mut rng, &mut stored, (&mut sent, &mut answered), &mut durables, &context),
            }
        }
        collect(&mut world, &mut rng, &mut stored, (&mut sent, &mut answered), &mut durables, &context);
        if rng.bool() {
            // What is acknowledged now is in the log before a message that comes later.
            world.pass(SECOND / 2);
            collect(&mut world, &mut rng, &mut stored, (&mut sent, &mut answered), &mut durables, &context);
            world.pass(SECOND / 2);
            for durable in durables.values_mut() {
                durable.final_acks.append(&mut durable.acks);
            }
        }
        for durable in durables.values_mut() {
            durable.acks.clear();
            durable.got.clear();
        }
        world.got.clear();
        sent.clear();
        world.kill(rng.u16(1..4));
        assert_eq!(world.ping(0, "me"), "", "{context}");
    }
    // In the end everything comes that was not acknowledged, and what was does not.
    for _ in 0..400 {
        world.pass(2 * SECOND);
        collect(&mut world, &mut rng, &mut stored, (&mut sent, &mut answered), &mut durables, "end");
    }
    for (channel, text) in &answered {
        let is_there = stored.iter().any(|((of, _), known)| of == channel && known == text);
        assert!(is_there, "seed {seed}: {text} of {channel} was acknowledged and is lost");
    }
    for ((channel, number), text) in &stored {
        let durable = &durables[channel];
        let is_there = durable.got.contains(number) || durable.ever_acked.contains(number);
        assert!(is_there, "seed {seed}: {number} of {channel} ({text}) was lost");
    }
}

/// Takes what clients have got: acknowledgements of publishes, and messages, some of which are acknowledged.
fn collect<'a>(
    world: &mut World,
    rng: &mut fastrand::Rng,
    stored: &mut BTreeMap<(&'a str, u64), String>,
    (sent, answered): (&mut BTreeMap<String, (&'a str, String)>, &mut BTreeSet<(&'a str, String)>),
    durables: &mut BTreeMap<&'a str, Durable>,
    context: &str,
) {
    for got in std::mem::take(&mut world.got) {
        if let Some((channel, text)) = sent.remove(&got.subject) {
            assert_eq!(pb::PubAck::decode(&got.payload[..]).unwrap().error, "", "{context}");
            answered.insert((channel, text));
            continue;
        }
        let Some((channel, durable)) = durables.iter_mut().find(|(_, durable)| durable.inbox == got.subject) else {
            continue;
        };
        let message = pb::MsgProto::decode(&got.payload[..]).unwrap();
        let number = message.sequence;
        assert!(!durable.final_acks.contains(&number), "{context}: {number} of {channel} comes again");
        let text = String::from_utf8(message.data.to_vec()).unwrap();
        let known = stored.entry((*channel, number)).or_insert_with(|| text.clone());
        assert_eq!(*known, text, "{context}: {number} of {channel} has other content");
        durable.got.insert(number);
        if rng.u8(..3) > 0 {
            let ack = pb::Ack { subject: (*channel).into(), sequence: number }.encode_to_vec();
            world.publish(0, &durable.ack_inbox.clone(), "", &ack);
            durable.acks.insert(number);
            durable.ever_acked.insert(number);
        }
    }
}
