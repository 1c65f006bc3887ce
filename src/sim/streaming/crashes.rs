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

const CHANNELS: [&str; 3] = ["a", "b", "c"];

#[derive(Default)]
struct Durable {
    ack_inbox: String,
    /// Acknowledged for good: time for a flush has passed.
    final_acks: BTreeSet<u64>,
    /// Acknowledged in this life.
    acks: BTreeSet<u64>,
    /// Acknowledged at some time: that may be forgotten in a crash, or not.
    ever_acked: BTreeSet<u64>,
    /// Delivered in this life.
    got: BTreeSet<u64>,
    /// What was delivered ever, by number.
    texts: BTreeMap<u64, String>,
}

struct Run {
    world: World,
    rng: fastrand::Rng,
    durables: BTreeMap<&'static str, Durable>,
    /// Publishes without an answer so far: channel and text by reply subject.
    sent: BTreeMap<String, (&'static str, String)>,
    /// Channels and texts of what publishers were told is stored.
    answered: BTreeSet<(&'static str, String)>,
    published: u64,
    context: String,
}

fn inbox_of(channel: &str) -> String {
    format!("_INBOX.{channel}")
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new(rng.u16(1..4));
        world.connect(0, "me");
        let mut durables = BTreeMap::new();
        for channel in CHANNELS {
            let request = pb::SubscriptionRequest {
                durable_name: "d".into(),
                ack_wait_in_secs: 1,
                max_in_flight: 50,
                ..World::sub_request("me", channel, &inbox_of(channel))
            };
            let ack_inbox = world.subscribe(0, &request).unwrap();
            durables.insert(channel, Durable { ack_inbox, ..Durable::default() });
        }
        Self {
            world,
            rng,
            durables,
            sent: BTreeMap::new(),
            answered: BTreeSet::new(),
            published: 0,
            context: format!("seed {seed}"),
        }
    }

    fn publish(&mut self) {
        let channel = CHANNELS[self.rng.usize(..CHANNELS.len())];
        self.published += 1;
        let (reply, text) = (format!("_INBOX.ack.{}", self.published), format!("message {}", self.published));
        let message = World::pub_msg(channel, &reply, text.as_bytes()).encode_to_vec();
        self.world.publish(0, &format!("_STAN.pub.test-cluster.{channel}"), &reply, &message);
        self.sent.insert(reply, (channel, text));
    }

    /// Takes what clients have got: acknowledgements of publishes, and messages, some of which are acknowledged.
    fn collect(&mut self) {
        for got in std::mem::take(&mut self.world.got) {
            if let Some(sent) = self.sent.remove(&got.subject) {
                assert_eq!(pb::PubAck::decode(&got.payload[..]).unwrap().error, "", "{}", self.context);
                self.answered.insert(sent);
                continue;
            }
            let of_inbox = self.durables.iter_mut().find(|(channel, _)| inbox_of(channel) == got.subject);
            let Some((channel, durable)) = of_inbox else { continue };
            let message = pb::MsgProto::decode(&got.payload[..]).unwrap();
            let number = message.sequence;
            let is_final = durable.final_acks.contains(&number);
            assert!(!is_final, "{}: {number} of {channel} comes again", self.context);
            let text = String::from_utf8(message.data.to_vec()).unwrap();
            let known = durable.texts.entry(number).or_insert_with(|| text.clone());
            assert_eq!(*known, text, "{}: {number} of {channel} has other content", self.context);
            durable.got.insert(number);
            if self.rng.u8(..3) > 0 {
                let ack = pb::Ack { subject: (*channel).into(), sequence: number }.encode_to_vec();
                self.world.publish(0, &durable.ack_inbox, "", &ack);
                durable.acks.insert(number);
                durable.ever_acked.insert(number);
            }
        }
    }

    /// What is acknowledged by now is acknowledged for good.
    fn wait_for_flushes(&mut self) {
        for _ in 0..2 {
            self.world.pass(SECOND / 2);
            self.collect();
        }
        self.world.pass(SECOND / 2);
        for durable in self.durables.values_mut() {
            durable.final_acks.append(&mut durable.acks);
        }
        self.world.got.clear();
    }

    fn kill(&mut self) {
        for durable in self.durables.values_mut() {
            durable.acks.clear();
            durable.got.clear();
        }
        self.world.got.clear();
        self.sent.clear();
        self.world.kill(self.rng.u16(1..4));
        assert_eq!(self.world.ping(0, "me"), "", "{}", self.context);
    }
}

fn run(seed: u64) {
    let mut run = Run::new(seed);
    for life in 0..4 {
        run.context = format!("seed {seed}, life {life}");
        for _ in 0..run.rng.usize(1..300) {
            match run.rng.u8(..10) {
                0..=4 => run.publish(),
                5..=7 => drop(run.world.turn()),
                8 => run.world.now += run.rng.i64(0..SECOND / 5),
                _ => run.collect(),
            }
        }
        run.collect();
        if run.rng.bool() {
            run.wait_for_flushes();
        }
        run.kill();
    }
    // In the end everything comes that was never acknowledged.
    for _ in 0..400 {
        run.world.pass(2 * SECOND);
        run.collect();
    }
    for (channel, text) in &run.answered {
        let is_there = run.durables[channel].texts.values().any(|known| known == text);
        assert!(is_there, "seed {seed}: {text} of {channel} was acknowledged and is lost");
    }
    for (channel, durable) in &run.durables {
        for (number, text) in &durable.texts {
            let is_there = durable.got.contains(number) || durable.ever_acked.contains(number);
            assert!(is_there, "seed {seed}: {number} of {channel} ({text}) was lost");
        }
    }
}
