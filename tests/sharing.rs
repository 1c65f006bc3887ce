//! What accounts share: imported streams, requests to imported services and their answers, mapped subjects. The expected
//! bytes are those of nats-server for the same file and the same input, but for random names.

mod support;

use std::collections::HashMap;

use serde_json::json;
use support::config::Config;
use support::{Client, Server, shard_suite};

shard_suite!(one_shard = 1, three_shards = 3 => {
    streams_are_imported_under_another_name,
    queue_groups_span_accounts,
    services_answer_across_accounts,
    services_lead_on_to_services,
    a_service_may_see_who_asks,
    answers_may_come_in_parts,
    nobody_answers,
    subjects_are_mapped,
    many_requests_are_answered_by_many,
});

const CONFIG: &str = "
accounts {
  A { users: [ { user: a, password: x } ]
      exports: [ { stream: \"ev.>\" }, { service: \"help.*\" }, { service: multi, response: stream } ]
      mappings: { \"m.*\": \"n.$1\", \"w\": [ { dest: w1, weight: 50% }, { dest: w2, weight: 50% } ] } }
  B { users: [ { user: b, password: x } ]
      imports: [ { stream: { account: A, subject: \"ev.>\" }, prefix: fromA }
                 { service: { account: A, subject: \"help.*\" }, to: \"req.$1.x\" }
                 { service: { account: A, subject: multi } } ]
      exports: [ { service: \"req.*.x\" } ] }
  C { users: [ { user: c, password: x } ]
      imports: [ { service: { account: B, subject: \"req.*.x\" }, to: \"c.$1\" }
                 { service: { account: A, subject: multi }, share: true } ] }
}";

fn start(shards: usize) -> Server {
    Config::new(CONFIG).server().shards(shards).start()
}

/// A client of an account, on whichever shard.
fn client(server: &Server, user: &str) -> Client {
    let client = server.connect().login(&json!({
        "user": user, "pass": "x", "name": format!("n-{user}"), "lang": "raw", "version": "1",
        "verbose": false, "pedantic": false, "headers": true, "no_responders": true
    }));
    client.ignoring_pings()
}

fn subscribe(client: &mut Client, lines: &str) {
    client.send(format!("{lines}PING\r\n"));
    client.expect("PONG\r\n");
}

fn streams_are_imported_under_another_name(shards: usize) {
    let server = start(shards);
    let (mut a, mut b, mut c) = (client(&server, "a"), client(&server, "b"), client(&server, "c"));
    subscribe(&mut b, "SUB fromA.ev.* 1\r\n");
    subscribe(&mut c, "SUB > 1\r\n");
    a.send("PUB ev.one some.reply 1\r\nx\r\nHPUB ev.two 12 13\r\nNATS/1.0\r\n\r\nh\r\nPUB other 1\r\ny\r\nPING\r\n");
    a.expect("PONG\r\n");
    b.expect("MSG fromA.ev.one 1 some.reply 1\r\nx\r\nHMSG fromA.ev.two 1 12 13\r\nNATS/1.0\r\n\r\nh\r\n");
    b.expect_nothing();
    let large = "z".repeat(100_000);
    a.publish("ev.big", &large);
    b.expect(format!("MSG fromA.ev.big 1 100000\r\n{large}\r\n"));
    // Nothing comes back, and who does not import gets nothing.
    b.send("PUB fromA.ev.one 1\r\nb\r\nPING\r\n");
    b.expect("MSG fromA.ev.one 1 1\r\nb\r\nPONG\r\n");
    a.expect_nothing();
    c.expect_nothing();
}

fn queue_groups_span_accounts(shards: usize) {
    const MESSAGES: usize = 400;
    let server = start(shards);
    let (mut publisher, mut a, mut b) = (client(&server, "a"), client(&server, "a"), client(&server, "b"));
    subscribe(&mut a, "SUB ev.one q 1\r\n");
    subscribe(&mut b, "SUB fromA.ev.one q 1\r\n");
    publisher.send("PUB ev.one 1\r\nx\r\n".repeat(MESSAGES));
    publisher.fence();
    let counts = [&mut a, &mut b].map(|client| client.messages_to_fence().len());
    assert_eq!(counts[0] + counts[1], MESSAGES, "one member gets each: {counts:?}");
    // Fair choice: fewer than a quarter on one side has a probability below 1e-24.
    assert!(counts.iter().all(|count| *count > MESSAGES / 4), "{counts:?}");
}

/// The reply subject of a request that has been passed on.
fn reply_of(request: &support::Msg) -> String {
    let reply = request.reply.clone().expect("a reply subject");
    assert!(reply.starts_with("_R_."), "{reply}");
    reply
}

/// Who asks, without the time that it takes to reach him.
fn asker(request: &support::Msg) -> serde_json::Value {
    let headers = String::from_utf8(request.headers.clone().expect("headers")).expect("text");
    let line = headers.lines().find_map(|line| line.strip_prefix("Nats-Request-Info: ")).expect("the field");
    let mut info: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert!(info.as_object_mut().and_then(|info| info.remove("rtt")).is_some_and(|rtt| rtt.is_u64()));
    info
}

fn services_answer_across_accounts(shards: usize) {
    let server = start(shards);
    let (mut a, mut b) = (client(&server, "a"), client(&server, "b"));
    subscribe(&mut a, "SUB help.* 6\r\n");
    subscribe(&mut b, "SUB r 9\r\n");
    b.send("PUB req.7.x r 2\r\nhi\r\n");
    let request = a.next_msg();
    assert_eq!((&*request.subject, &*request.payload), ("help.7", &b"hi"[..]));
    assert_eq!(asker(&request), json!({"acc": "B"}));
    let reply = reply_of(&request);
    a.send(format!("PUB {reply} 3\r\nans\r\nPUB {reply} 3\r\nan2\r\nPING\r\n"));
    a.expect("PONG\r\n");
    b.expect("MSG r 9 3\r\nans\r\n");
    b.expect_nothing();
    // An answer may ask back.
    b.send("HPUB req.8.x r 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nhi\r\n");
    let request = a.next_msg();
    let headers = String::from_utf8(request.headers.clone().expect("headers")).expect("text");
    assert!(headers.starts_with("NATS/1.0\r\nA: b\r\nNats-Request-Info: {"), "{headers}");
    subscribe(&mut a, "SUB back 7\r\n");
    a.send(format!("PUB {} back 3\r\nask\r\n", reply_of(&request)));
    let answer = b.next_msg();
    assert_eq!((&*answer.subject, &*answer.payload), ("r", &b"ask"[..]));
    b.publish(&reply_of(&answer), "told");
    a.expect("MSG back 7 4\r\ntold\r\n");
    // Without a reply it is a message like any other.
    b.publish("req.9.x", "hi");
    let request = a.next_msg();
    assert_eq!((&*request.subject, &request.reply), ("help.9", &None));
    // Nobody else can answer.
    b.send("PUB req.1.x r 1\r\n?\r\n");
    let reply = reply_of(&a.next_msg());
    let mut c = client(&server, "c");
    c.publish(&reply, "false");
    c.fence();
    b.expect_nothing();
    a.publish(&reply, "true");
    b.expect("MSG r 9 4\r\ntrue\r\n");
}

fn services_lead_on_to_services(shards: usize) {
    let server = start(shards);
    let (mut a, mut c) = (client(&server, "a"), client(&server, "c"));
    subscribe(&mut a, "SUB help.* 6\r\n");
    subscribe(&mut c, "SUB r 9\r\n");
    c.send("PUB c.5 r 2\r\nhi\r\n");
    let request = a.next_msg();
    assert_eq!(&*request.subject, "help.5");
    assert_eq!(asker(&request), json!({"acc": "C", "svc": "B"}));
    a.send(format!("HPUB {} 12 15\r\nNATS/1.0\r\n\r\nans\r\n", reply_of(&request)));
    c.expect("HMSG r 9 12 15\r\nNATS/1.0\r\n\r\nans\r\n");
}

fn a_service_may_see_who_asks(shards: usize) {
    let server = start(shards);
    let (mut a, mut c) = (client(&server, "a"), client(&server, "c"));
    subscribe(&mut a, "SUB multi 7\r\n");
    c.send("PUB multi r 2\r\nhi\r\n");
    let mut info = asker(&a.next_msg());
    let told = info.as_object_mut().expect("an object");
    assert!(told.remove("start").is_some_and(|start| start.is_string()));
    assert!(told.remove("server").is_some_and(|server| server.is_string()));
    let expected = json!({
        "host": "127.0.0.1", "id": c.cid(), "acc": "C", "user": "c", "name": "n-c", "lang": "raw", "ver": "1",
        "kind": "Client", "client_type": "nats"
    });
    assert_eq!(info, expected);
}

fn answers_may_come_in_parts(shards: usize) {
    let server = start(shards);
    let (mut a, mut c) = (client(&server, "a"), client(&server, "c"));
    subscribe(&mut a, "SUB multi 7\r\n");
    subscribe(&mut c, "SUB r 9\r\n");
    c.send("PUB multi r 2\r\nhi\r\n");
    let reply = reply_of(&a.next_msg());
    a.send(format!("PUB {reply} 1\r\n1\r\nPUB {reply} 1\r\n2\r\nPUB {reply} 0\r\n\r\nPUB {reply} 1\r\n3\r\nPING\r\n"));
    a.expect("PONG\r\n");
    c.expect("MSG r 9 1\r\n1\r\nMSG r 9 1\r\n2\r\nMSG r 9 0\r\n\r\n");
    c.expect_nothing();
}

fn nobody_answers(shards: usize) {
    let server = start(shards);
    let (mut b, mut c) = (client(&server, "b"), client(&server, "c"));
    b.send("SUB r 9\r\nPUB req.1.x r 2\r\nhi\r\n");
    b.expect("HMSG r 9 39 39\r\nNATS/1.0 503\r\nNats-Subject: req.1.x\r\n\r\n\r\n");
    c.send("SUB r 9\r\nPUB c.1 r 2\r\nhi\r\n");
    c.expect("HMSG r 9 35 35\r\nNATS/1.0 503\r\nNats-Subject: c.1\r\n\r\n\r\n");
}

fn subjects_are_mapped(shards: usize) {
    const MESSAGES: usize = 400;
    let server = start(shards);
    let (mut a, mut publisher) = (client(&server, "a"), client(&server, "a"));
    subscribe(&mut a, "SUB n.* 8\r\nSUB m.* 9\r\n");
    publisher.send("PUB m.5 r 1\r\nm\r\nPING\r\n");
    publisher.expect("PONG\r\n");
    a.expect("MSG n.5 8 r 1\r\nm\r\n");
    a.expect_nothing();
    a.send("SUB r 10\r\nUNSUB 8\r\nPUB m.6 r 1\r\nm\r\n");
    a.expect("HMSG r 10 35 35\r\nNATS/1.0 503\r\nNats-Subject: n.6\r\n\r\n\r\n");
    subscribe(&mut a, "SUB w1 1\r\nSUB w2 2\r\nSUB w 3\r\n");
    publisher.send("PUB w 1\r\nw\r\n".repeat(MESSAGES));
    publisher.fence();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for message in a.messages_to_fence() {
        *counts.entry(message.subject).or_default() += 1;
    }
    let halves = [counts.get("w1"), counts.get("w2")].map(|count| count.copied().unwrap_or(0));
    assert_eq!(halves[0] + halves[1], MESSAGES, "{counts:?}");
    assert!(halves.iter().all(|count| *count > MESSAGES / 4), "{counts:?}");
}

/// Each of many requests from many clients gets its one answer, whichever shard asks, answers and remembers.
fn many_requests_are_answered_by_many(shards: usize) {
    const ASKERS: usize = 6;
    const REQUESTS: usize = 200;
    let server = start(shards);
    let mut services: Vec<Client> = (0..6).map(|_| client(&server, "a")).collect();
    for service in &mut services {
        subscribe(service, "SUB help.* q 1\r\n");
    }
    let mut askers: Vec<Client> = (0..ASKERS).map(|_| client(&server, "b")).collect();
    for (n, asker) in askers.iter_mut().enumerate() {
        subscribe(asker, &format!("SUB r{n}.* 1\r\n"));
        let requests: String = (0..REQUESTS).map(|k| format!("PUB req.{k}.x r{n}.{k} 3\r\n{k:03}\r\n")).collect();
        asker.send(requests);
        asker.fence();
    }
    let mut asked = 0;
    for service in &mut services {
        for request in service.messages_to_fence() {
            asked += 1;
            let answer = [request.subject.as_bytes(), b" ", &request.payload].concat();
            service.publish(&reply_of(&request), answer);
        }
        service.fence();
    }
    assert_eq!(asked, ASKERS * REQUESTS);
    for (n, asker) in askers.iter_mut().enumerate() {
        let mut answers: Vec<(String, Vec<u8>)> =
            asker.messages_to_fence().into_iter().map(|answer| (answer.subject, answer.payload)).collect();
        answers.sort();
        let mut expected: Vec<(String, Vec<u8>)> =
            (0..REQUESTS).map(|k| (format!("r{n}.{k}"), format!("help.{k} {k:03}").into_bytes())).collect();
        expected.sort();
        assert!(answers == expected, "client {n} has {} answers", answers.len());
    }
}
