//! Who gets a message, how often, in which order and with which bytes, while publishers and subscribers sit on
//! different shards.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::thread;
use std::time::Instant;

use serde_json::json;
use support::{Client, Msg, PATIENCE, Server, shard_suite};

shard_suite!(one_shard = 1, three_shards = 3 => {
    wildcards_match_as_specified,
    a_queue_group_is_served_uniformly,
    members_of_one_queue_may_use_different_subjects,
    every_plain_responder_and_one_of_a_group_answers,
    a_publisher_is_heard_in_order_by_everybody,
    auto_unsubscribe_delivers_exactly_the_maximum,
    a_message_reaches_all_of_many_subscribers,
    payloads_of_all_sizes_arrive_intact,
    random_traffic_agrees_with_a_naive_model,
});

/// What matching means, written in the simplest way.
fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some(p), Some(s)) if p == "*" || p == s => {}
            _ => return false,
        }
    }
}

/// Pearson's statistic for counts that should all be alike.
fn chi_square(counts: &[usize]) -> f64 {
    let expected = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum()
}

fn number(msg: &Msg) -> usize {
    msg.text().parse().expect("the payload is a number")
}

/// Every pattern gets exactly the subjects that it matches, from a publisher on any shard.
fn wildcards_match_as_specified(shards: usize) {
    const PATTERNS: [&str; 16] = [
        "a", "a.b", "a.*", "*", "*.*", "*.b", ">", "a.>", "a.*.c", "*.>", "a.*.>", "a.b.c", "a*", "a.b*", "*.*.*",
        "a.**",
    ];
    const SUBJECTS: [&str; 14] =
        ["a", "b", "a.b", "a.c", "b.b", "a.b.c", "a.x.c", "a.b.c.d", "a*", "a.b*", "a.*", "a.**", "ab", "a.bc"];
    let server = Server::start(shards);
    for shard in 0..server.shards() {
        let mut publisher = server.client_on(shard);
        let mut subscriber = server.client_on(shard + 1);
        for (sid, pattern) in PATTERNS.iter().enumerate() {
            subscriber.send(format!("SUB {pattern} {sid}\r\n"));
        }
        subscriber.expect_nothing();
        for subject in SUBJECTS {
            publisher.publish(subject, "x");
            publisher.expect_nothing();
            let expected: BTreeSet<usize> =
                (0..PATTERNS.len()).filter(|&sid| matches(PATTERNS[sid], subject)).collect();
            let messages = subscriber.messages_to_fence();
            let sids: BTreeSet<usize> = messages.iter().map(|msg| msg.sid.parse().expect("sids are numbers")).collect();
            assert_eq!(messages.len(), sids.len(), "{subject} came twice to a subscription");
            assert_eq!(sids, expected, "{subject}");
        }
    }
}

/// Each member of a queue group gets the same share, wherever members and publishers are and however unevenly the
/// members are spread over the shards.
fn a_queue_group_is_served_uniformly(shards: usize) {
    const MESSAGES: usize = 6_000;
    /// Exceeded by chance once in 50,000 runs with five degrees of freedom.
    const CHI_SQUARE_MAX: f64 = 30.0;
    let server = Server::start(shards);
    let mut members: Vec<Client> = [0, 0, 0, 0, 1, 2].iter().map(|&shard| server.client_on(shard)).collect();
    for member in &mut members {
        member.send("SUB work group 1\r\n");
        member.expect_nothing();
    }
    for shard in 0..server.shards() {
        let mut publisher = server.client_on(shard);
        publisher.send(b"PUB work 1\r\nx\r\n".repeat(MESSAGES));
        publisher.expect_nothing();
        let counts: Vec<usize> = members.iter_mut().map(|member| member.messages_to_fence().len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), MESSAGES, "{counts:?}");
        let statistic = chi_square(&counts);
        assert!(statistic < CHI_SQUARE_MAX, "publisher on shard {shard}: {counts:?}, chi-square {statistic:.1}");
    }
}

/// Members with one queue name form one group, even when different subjects led the message to them; each further queue
/// name and each plain subscription gets its own copy.
fn members_of_one_queue_may_use_different_subjects(shards: usize) {
    const MESSAGES: usize = 3_000;
    /// Exceeded by chance once in 30,000 runs with two degrees of freedom.
    const CHI_SQUARE_MAX: f64 = 21.0;
    let server = Server::start(shards);
    let mut publisher = server.client_on(0);
    let mut members: Vec<Client> = (0..3).map(|shard| server.client_on(shard)).collect();
    for (member, subject) in members.iter_mut().zip(["foo.bar", "foo.*", ">"]) {
        member.send(format!("SUB {subject} q 1\r\nSUB {subject} other 2\r\nSUB {subject} 3\r\n"));
        member.expect_nothing();
    }
    publisher.send(b"PUB foo.bar 1\r\nx\r\n".repeat(MESSAGES));
    publisher.expect_nothing();
    let mut counts = [[0; 3]; 3];
    for (member, counts) in members.iter_mut().zip(&mut counts) {
        for msg in member.messages_to_fence() {
            counts[msg.sid.parse::<usize>().expect("sids are numbers") - 1] += 1;
        }
    }
    assert!(counts.iter().all(|of_member| of_member[2] == MESSAGES), "plain subscriptions: {counts:?}");
    for queue in 0..2 {
        let of_queue = counts.map(|of_member| of_member[queue]);
        assert_eq!(of_queue.iter().sum::<usize>(), MESSAGES, "{counts:?}");
        assert!(chi_square(&of_queue) < CHI_SQUARE_MAX, "{counts:?}");
    }
}

/// A request is answered by every plain responder and by one member of each queue group, from any shard to any shard.
fn every_plain_responder_and_one_of_a_group_answers(shards: usize) {
    const REQUESTS: usize = 100;
    const PLAIN: usize = 4;
    let server = Server::start(shards);
    let mut responders: Vec<Client> = (0..PLAIN + 3).map(|index| server.client_on(index)).collect();
    for (index, responder) in responders.iter_mut().enumerate() {
        let queue = if index < PLAIN { "" } else { "q" };
        responder.send(format!("SUB service {queue} 1\r\n"));
        responder.expect_nothing();
    }
    let mut requesters: Vec<Client> = (0..3).map(|shard| server.requester_on(shard)).collect();
    for (index, requester) in requesters.iter_mut().enumerate() {
        requester.subscribe(&format!("inbox.{index}.*"), "1");
    }
    for request in 0..REQUESTS {
        let inbox = format!("inbox.{}.{request}", request % 3);
        let requester = &mut requesters[request % 3];
        requester.send(format!("PUB service {inbox} 1\r\nx\r\n"));
        requester.expect_nothing();
        let mut answers = 0;
        for responder in &mut responders {
            for msg in responder.messages_to_fence() {
                let reply = msg.reply.expect("a request has a reply subject");
                responder.publish(&reply, "answer");
                responder.expect_nothing();
                answers += 1;
            }
        }
        assert_eq!(answers, PLAIN + 1);
        let received = requester.messages_to_fence();
        assert_eq!(received.len(), answers);
        assert!(received.iter().all(|msg| msg.subject == inbox && msg.text() == "answer"), "{received:?}");
    }
}

/// Everybody sees the messages of one publisher in the order of publishing, across subjects, shards and kinds of
/// subscription, while other traffic passes.
fn a_publisher_is_heard_in_order_by_everybody(shards: usize) {
    const MESSAGES: usize = 12_000;
    const SUBJECTS: [&str; 4] = ["o.a", "o.b", "o.c.d", "o.long.er.one"];
    let server = Server::start(shards);
    let mut subscribers = Vec::new();
    for shard in 0..3 {
        let mut literal = server.client_on(shard);
        for (sid, subject) in SUBJECTS.iter().enumerate() {
            literal.subscribe(subject, &sid.to_string());
        }
        let mut wildcard = server.client_on(shard);
        wildcard.subscribe("o.>", "w");
        let mut noise = server.client_on(shard);
        noise.subscribe("noise", "n");
        subscribers.extend([literal, wildcard]);
        subscribers.push(noise);
    }
    let publishers: Vec<Client> = (0..2).map(|shard| server.client_on(shard)).collect();
    thread::scope(|scope| {
        for (publisher, is_noise) in publishers.iter().zip([false, true]) {
            let mut writer = publisher.writer();
            scope.spawn(move || {
                let mut batch = Vec::new();
                for seq in 0..MESSAGES {
                    let subject = if is_noise { "noise" } else { SUBJECTS[seq % 7 % SUBJECTS.len()] };
                    batch.extend_from_slice(format!("PUB {subject} 6\r\n{seq:06}\r\n").as_bytes());
                    if seq % 17 == 0 {
                        writer.write_all(&batch).expect("the publisher should not be cut off");
                        batch.clear();
                    }
                }
                writer.write_all(&batch).expect("the publisher should not be cut off");
            });
        }
        for (index, subscriber) in subscribers.iter_mut().enumerate() {
            scope.spawn(move || {
                for expected in 0..MESSAGES {
                    let msg = subscriber.next_msg();
                    assert_eq!(number(&msg), expected, "subscriber {index}, {}", msg.subject);
                }
            });
        }
    });
}

/// `UNSUB sid max` lets exactly `max` messages through, with publishers on all shards at once; another subscription of
/// the same connection is not concerned.
fn auto_unsubscribe_delivers_exactly_the_maximum(shards: usize) {
    const MAX: usize = 100;
    const EACH: usize = 300;
    let server = Server::start(shards);
    let mut publishers: Vec<Client> = (0..3).map(|shard| server.client_on(shard)).collect();
    for shard in 0..server.shards() {
        let mut subscriber = server.client_on(shard);
        subscriber.send(format!("SUB foo 1\r\nSUB * 2\r\nUNSUB 1 {MAX}\r\n"));
        subscriber.expect_nothing();
        thread::scope(|scope| {
            for publisher in &mut publishers {
                scope.spawn(move || {
                    for _ in 0..EACH / 10 {
                        publisher.send(b"PUB foo 1\r\nx\r\n".repeat(10));
                    }
                    publisher.expect_nothing();
                });
            }
        });
        let messages = subscriber.messages_to_fence();
        let limited = messages.iter().filter(|msg| msg.sid == "1").count();
        assert_eq!((limited, messages.len() - limited), (MAX, EACH * publishers.len()));
    }
}

/// Each of many subscribers gets each message once.
fn a_message_reaches_all_of_many_subscribers(shards: usize) {
    const SUBSCRIBERS: usize = 100;
    const MESSAGES: usize = 100;
    let server = Server::start(shards);
    let mut subscribers: Vec<Client> = (0..SUBSCRIBERS).map(|_| server.client()).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("news", "1");
    }
    let mut publisher = server.client();
    for seq in 0..MESSAGES {
        publisher.publish("news", seq.to_string());
    }
    publisher.expect_nothing();
    for subscriber in &mut subscribers {
        let seqs: Vec<usize> = subscriber.messages_to_fence().iter().map(number).collect();
        assert!(seqs.iter().copied().eq(0..MESSAGES), "{seqs:?}");
    }
}

/// Payloads around every size at which buffers change arrive byte for byte, in order, between small messages.
fn payloads_of_all_sizes_arrive_intact(shards: usize) {
    let mut sizes = vec![0, 1, 2, 511, 512, 513, 1 << 20, (1 << 20) - 1, 300_000];
    for around in [1 << 10, 4 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10] {
        sizes.extend([around - 50, around - 12, around - 1, around, around + 1, around + 12]);
    }
    let mut random = fastrand::Rng::with_seed(11);
    random.shuffle(&mut sizes);
    let mut noise = vec![0; 1 << 20];
    random.fill(&mut noise);

    let server = Server::start(shards);
    for shard in 0..server.shards() {
        let mut publisher = server.requester_on(shard);
        let mut subscribers: Vec<Client> = (0..3).map(|shard| server.requester_on(shard)).collect();
        for subscriber in &mut subscribers {
            subscriber.subscribe("big.*", "1");
        }
        for &size in &sizes {
            publisher.publish("big.one", &noise[..size]);
            publisher.publish("big.small", size.to_string());
            let header_size = size / 3;
            publisher.send(format!("HPUB big.h {header_size} {size}\r\n"));
            publisher.send([&noise[noise.len() - size..], b"\r\n"].concat());
            for subscriber in &mut subscribers {
                let big = subscriber.next_msg();
                assert!(big.payload == noise[..size], "{size} bytes arrived as {} other ones", big.payload.len());
                assert_eq!(subscriber.next_msg().text(), size.to_string());
                let with_header = subscriber.next_msg();
                assert_eq!(with_header.headers.as_ref().map_or(0, Vec::len), header_size);
                let all = [with_header.headers.unwrap_or_default(), with_header.payload].concat();
                assert!(all == noise[noise.len() - size..], "{size} bytes with headers arrived as {}", all.len());
            }
        }
    }
}

/// One step of a client in [`random_traffic_agrees_with_a_naive_model`].
#[derive(Clone, Debug)]
enum Step {
    Sub { sid: u32, pattern: String, queue: Option<&'static str> },
    Unsub { sid: u32, max: Option<u32> },
    Pub { subject: String, seq: u64 },
}

/// A subscription as the model knows it.
#[derive(Clone, Debug)]
struct ModelSub {
    pattern: String,
    queue: Option<&'static str>,
    delivered: u32,
    max: Option<u32>,
}

/// Live subscriptions by client and sid.
type Model = BTreeMap<(usize, u32), ModelSub>;
/// What was received: message number, client, sid.
type Deliveries = BTreeSet<(u64, usize, u32)>;

/// The client that asked not to hear itself.
const NO_ECHO: usize = 0;

/// What reality and model disagree about.
#[derive(Debug)]
enum Mismatch {
    /// A queue group did not get its message, or not yet.
    Unserved(String),
    /// Anything else, which waiting cannot mend.
    Wrong(String),
}

/// Plays the steps of `client` on the model. Which member of a queue group was chosen is taken from `actual`;
/// everything else is predicted. Leaves in `actual` what was predicted by nothing, and returns what went to plain
/// subscriptions.
fn play_on_model(
    model: &mut Model,
    client: usize,
    steps: &[Step],
    actual: &mut Deliveries,
) -> Result<Deliveries, Mismatch> {
    let mut plain = Deliveries::new();
    for step in steps {
        match step {
            Step::Sub { sid, pattern, queue } => {
                let new = ModelSub { pattern: pattern.clone(), queue: *queue, delivered: 0, max: None };
                model.entry((client, *sid)).or_insert(new);
            }
            Step::Unsub { sid, max } => {
                if let Some(sub) = model.get_mut(&(client, *sid)) {
                    sub.max = *max;
                    if max.is_none_or(|max| max <= sub.delivered) {
                        model.remove(&(client, *sid));
                    }
                }
            }
            Step::Pub { subject, seq } => {
                let mut served: BTreeMap<&str, usize> = BTreeMap::new();
                let mut missed = None;
                model.retain(|&(owner, sid), sub| {
                    if !matches(&sub.pattern, subject) || (owner, client) == (NO_ECHO, NO_ECHO) {
                        return true;
                    }
                    let delivery = (*seq, owner, sid);
                    let got = actual.remove(&delivery);
                    sub.delivered += u32::from(got);
                    match sub.queue {
                        Some(queue) => *served.entry(queue).or_default() += usize::from(got),
                        None if got => drop(plain.insert(delivery)),
                        None => missed = Some(delivery),
                    }
                    sub.max.is_none_or(|max| sub.delivered < max)
                });
                if let Some(delivery) = missed {
                    return Err(Mismatch::Wrong(format!("missing (message, client, sid): {delivery:?}")));
                }
                for (queue, count) in served {
                    match count {
                        0 => return Err(Mismatch::Unserved(format!("message {seq} reached nobody of queue {queue}"))),
                        1 => {}
                        _ => return Err(Mismatch::Wrong(format!("message {seq} reached {count} of queue {queue}"))),
                    }
                }
            }
        }
    }
    if actual.is_empty() {
        Ok(plain)
    } else {
        Err(Mismatch::Wrong(format!("surplus (message, client, sid): {actual:?}")))
    }
}

fn random_subject(random: &mut fastrand::Rng, tokens: &[&str], last: &[&str]) -> String {
    let len = random.usize(1..=3);
    let mut subject: Vec<&str> = (1..len).map(|_| tokens[random.usize(..tokens.len())]).collect();
    subject.push(last[random.usize(..last.len())]);
    subject.join(".")
}

fn random_step(random: &mut fastrand::Rng, seq: &mut u64) -> Step {
    match random.u32(0..10) {
        0..=2 => Step::Sub {
            sid: random.u32(1..7),
            pattern: random_subject(random, &["a", "b", "*"], &["a", "b", "*", ">"]),
            queue: [None, Some("p"), Some("q")][random.usize(0..3)],
        },
        3 => Step::Unsub { sid: random.u32(1..7), max: None },
        4 => Step::Unsub { sid: random.u32(1..7), max: Some(random.u32(1..6)) },
        _ => {
            *seq += 1;
            Step::Pub { subject: random_subject(random, &["a", "b"], &["a", "b"]), seq: *seq }
        }
    }
}

fn step_bytes(step: &Step) -> String {
    match step {
        Step::Sub { sid, pattern, queue } => format!("SUB {pattern} {} {sid}\r\n", queue.unwrap_or("")),
        Step::Unsub { sid, max: None } => format!("UNSUB {sid}\r\n"),
        Step::Unsub { sid, max: Some(max) } => format!("UNSUB {sid} {max}\r\n"),
        Step::Pub { subject, seq } => format!("PUB {subject} {}\r\n{seq}\r\n", seq.to_string().len()),
    }
}

/// Random pipelines of SUB, UNSUB and PUB from several connections, fenced by PING and PONG, deliver what a naive
/// matcher predicts: each plain subscription in order, each queue group once.
fn random_traffic_agrees_with_a_naive_model(shards: usize) {
    const CLIENTS: usize = 5;
    const ROUNDS: usize = 250;
    let server = Server::start(shards);
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|index| {
                let options = json!({"verbose": false, "pedantic": false, "echo": index != NO_ECHO});
                server.connect_on(index).login(&options)
            })
            .collect();
        let mut model = Model::new();
        let mut seq = 0;
        for round in 0..ROUNDS {
            let steps: Vec<Step> = (0..random.usize(1..12)).map(|_| random_step(&mut random, &mut seq)).collect();
            let client = random.usize(..CLIENTS);
            clients[client].send(steps.iter().map(step_bytes).collect::<String>());
            clients[client].send("PING\r\n");
            let mut received = vec![Vec::new(); CLIENTS];
            received[client] = clients[client].messages_to_pong();
            let context = |why: String| format!("seed {seed}, round {round}, client {client}: {why}\n{steps:#?}");
            model =
                settle(&model, &mut clients, received, client, &steps).unwrap_or_else(|why| panic!("{}", context(why)));
        }
    }
}

/// Collects what the steps of `client` caused until it agrees with the model, and returns the model after the steps.
///
/// Everything must be there at the first fence, except a queue message whose chosen member had just left: handing it on
/// may take longer.
fn settle(
    model: &Model,
    clients: &mut [Client],
    mut received: Vec<Vec<Msg>>,
    client: usize,
    steps: &[Step],
) -> Result<Model, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for (client, received) in clients.iter_mut().zip(&mut received) {
            received.extend(client.messages_to_fence());
        }
        let mut actual = Deliveries::new();
        for (owner, messages) in received.iter().enumerate() {
            for msg in messages {
                let sid = msg.sid.parse().map_err(|_| format!("a sid of nobody: {msg:?}"))?;
                if !actual.insert((number(msg) as u64, owner, sid)) {
                    return Err(format!("delivered twice to client {owner}: {msg:?}"));
                }
            }
        }
        let mut after = model.clone();
        let plain = match play_on_model(&mut after, client, steps, &mut actual) {
            Ok(plain) => plain,
            Err(Mismatch::Unserved(_)) if Instant::now() < deadline => continue,
            Err(Mismatch::Unserved(why) | Mismatch::Wrong(why)) => return Err(why),
        };
        for (owner, messages) in received.iter().enumerate() {
            let seqs = messages.iter().map(|msg| (number(msg) as u64, owner, msg.sid.parse().unwrap_or_default()));
            let seqs: Vec<u64> = seqs.filter(|delivery| plain.contains(delivery)).map(|(seq, ..)| seq).collect();
            if !seqs.is_sorted() {
                return Err(format!("client {owner} received out of order: {seqs:?}"));
            }
        }
        return Ok(after);
    }
}
