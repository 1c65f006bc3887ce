//! What accounts share: imported streams, requests to imported services and their answers. The expected bytes are those
//! of nats-server for the same file and the same input, but for random names.

mod support;

use serde_json::json;
use support::config::Config;
use support::{Client, Server, shard_suite};

shard_suite!(one_shard = 1, three_shards = 3 => {
    streams_are_imported_under_another_name,
    queue_groups_span_accounts,
    queue_groups_find_the_member_that_may_receive,
    services_answer_across_accounts,
    services_lead_on_to_services,
    a_service_may_see_who_asks,
    each_import_may_share,
    answers_may_come_in_parts,
    nobody_answers,
    requests_that_nobody_may_receive_are_refused,
    many_requests_are_answered_by_many,
    mappings_of_the_service_apply,
    two_services_under_one_subject,
    requests_are_no_news,
    names_without_wildcards_are_free,
    answers_outlive_the_import,
});

const CONFIG: &str = "
accounts {
  A { users: [ { user: a, password: x } ]
      exports: [ { stream: \"ev.>\" }, { service: \"help.*\" }, { service: multi, response: stream } ] }
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

/// Members may not receive what comes from another account; a message goes on until it finds one who may.
fn queue_groups_find_the_member_that_may_receive(shards: usize) {
    const MESSAGES: usize = 100;
    let config = Config::new(
        "accounts {
          A { users: [ { user: a, password: x }
                       { user: denied, password: x, permissions: { subscribe: { deny: \"*.y\" } } } ]
              exports: [ { stream: \"ev.>\" }, { service: \"n.>\" } ] }
          B { users: [ { user: b, password: x }
                       { user: deaf, password: x, permissions: { subscribe: { deny: ev.y } } } ]
              imports: [ { stream: { account: A, subject: \"ev.>\" } }
                         { service: { account: A, subject: \"n.>\" } } ] }
        }",
    );
    let server = config.server().shards(shards).start();
    let (mut asks, mut publishes) = (client(&server, "b"), client(&server, "a"));
    let mut refusing: Vec<Client> = (0..5).flat_map(|_| ["denied", "deaf"].map(|user| client(&server, user))).collect();
    let (mut answers, mut hears) = (client(&server, "a"), client(&server, "b"));
    for denied in refusing.iter_mut().step_by(2).chain([&mut answers]) {
        subscribe(denied, "SUB n.* q 1\r\n");
    }
    for deaf in refusing.iter_mut().skip(1).step_by(2).chain([&mut hears]) {
        subscribe(deaf, "SUB ev.* q 1\r\n");
    }
    asks.send("PUB n.y 1\r\ny\r\n".repeat(MESSAGES));
    publishes.send("PUB n.y 1\r\ny\r\n".repeat(MESSAGES));
    publishes.send("PUB ev.y 1\r\nz\r\n".repeat(MESSAGES));
    let subjects =
        |client: &mut Client, count: usize| -> Vec<String> { (0..count).map(|_| client.next_msg().subject).collect() };
    assert!(subjects(&mut answers, 2 * MESSAGES).iter().all(|subject| subject == "n.y"));
    assert!(subjects(&mut hears, MESSAGES).iter().all(|subject| subject == "ev.y"));
    for client in refusing.iter_mut().chain([&mut answers, &mut hears]) {
        client.expect_nothing();
    }
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

/// Of two imports in a row the first decides what is told of the client, any of them whether the server is.
fn each_import_may_share(shards: usize) {
    for (first, second) in [(true, false), (false, true), (false, false)] {
        let config = Config::new(&format!(
            "server_name: here
             accounts {{
               A {{ users: [ {{ user: a, password: x }} ], exports: [ {{ service: n }} ] }}
               B {{ imports: [ {{ service: {{ account: A, subject: n }}, share: {second} }} ]
                    exports: [ {{ service: n }} ] }}
               C {{ users: [ {{ user: c, password: x }} ]
                    imports: [ {{ service: {{ account: B, subject: n }}, share: {first} }} ] }}
             }}"
        ));
        let server = config.server().shards(shards).start();
        let (mut a, mut c) = (client(&server, "a"), client(&server, "c"));
        subscribe(&mut a, "SUB n 1\r\n");
        c.send("PUB n r 2\r\nhi\r\n");
        let info = asker(&a.next_msg());
        assert_eq!((&info["acc"], &info["svc"]), (&json!("C"), &json!("B")));
        assert_eq!(info["user"], if first { json!("c") } else { json!(null) });
        assert_eq!(info["server"], if first || second { json!("here") } else { json!(null) }, "{first} {second}");
    }
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

/// Each of many requests from many clients gets its one answer, whichever shard asks, answers and remembers.
/// In the account of the service nobody may receive the requests, or those whom they reach last.
fn requests_that_nobody_may_receive_are_refused(shards: usize) {
    const REQUESTS: usize = 20;
    let config = Config::new(
        "accounts {
          A { users: [ { user: denied, password: x, permissions: { subscribe: { deny: \"*.y\" } } } ]
              exports: [ { service: \"n.>\" } ] }
          B { imports: [ { service: { account: A, subject: \"n.>\" }, to: \"b.>\" } ]
              exports: [ { service: \"b.>\" } ] }
          C { users: [ { user: c, password: x } ]
              imports: [ { service: { account: B, subject: \"b.>\" }, to: \"c.>\" } ] }
        }",
    );
    let server = config.server().shards(shards).start();
    let mut asking = client(&server, "c");
    subscribe(&mut asking, "SUB r.* 9\r\n");
    let mut denied: Vec<Client> = (0..8).map(|_| client(&server, "denied")).collect();
    for subs in ["SUB n.> 1\r\n", "SUB n.* q 1\r\n", "SUB n.> 1\r\nSUB n.* q 2\r\nSUB > p 3\r\n"] {
        for client in &mut denied {
            subscribe(client, &format!("UNSUB 1\r\nUNSUB 2\r\nUNSUB 3\r\n{subs}"));
        }
        for n in 0..REQUESTS {
            asking.send(format!("PUB c.y r.{n} 1\r\nx\r\n"));
            asking.expect(format!("HMSG r.{n} 9 35 35\r\nNATS/1.0 503\r\nNats-Subject: c.y\r\n\r\n\r\n"));
        }
        asking.send("PUB c.z r.z 1\r\nx\r\n");
        asking.expect_nothing();
        let received: usize = denied.iter_mut().map(|client| client.messages_to_fence().len()).sum();
        assert!(received > 0, "what they may receive arrives");
    }
}

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

/// The mappings of each account on the way apply to the subject that the request has there.
fn mappings_of_the_service_apply(shards: usize) {
    let config = Config::new(
        "accounts {
           A { users: [ { user: a, password: x } ], exports: [ { service: \"s.*\" } ], mappings: { s.1: s.2 } }
           B { users: [ { user: b, password: x } ], exports: [ { service: \"s.*\" } ], mappings: { s.0: s.1 }
               imports: [ { service: { account: A, subject: \"s.*\" } } ] }
           C { users: [ { user: c, password: x } ], mappings: { s.9: s.0 }
               imports: [ { service: { account: B, subject: \"s.*\" } } ] } }",
    );
    let server = config.server().shards(shards).start();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|user| client(&server, user));
    subscribe(&mut a, "SUB s.* 1\r\n");
    subscribe(&mut b, "SUB s.* 1\r\n");
    subscribe(&mut c, "SUB r 2\r\n");
    c.send("PUB s.9 r 2\r\nhi\r\n");
    assert_eq!(b.next_msg().subject, "s.1");
    let request = a.next_msg();
    assert_eq!(request.subject, "s.2");
    a.publish(&reply_of(&request), "answer");
    c.expect("MSG r 2 6\r\nanswer\r\n");
}

fn two_services_under_one_subject(shards: usize) {
    let config = Config::new(
        "accounts {
           A { users: [ { user: a, password: x } ], exports: [ { service: x } ] }
           B { users: [ { user: b, password: x } ], exports: [ { service: y } ] }
           C { users: [ { user: c, password: x } ]
               imports: [ { service: { account: A, subject: x } }, { service: { account: B, subject: y }, to: x } ] } }",
    );
    let server = config.server().shards(shards).start();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|user| client(&server, user));
    c.send("SUB r 9\r\nPUB x r 2\r\nhi\r\n");
    c.expect("HMSG r 9 33 33\r\nNATS/1.0 503\r\nNats-Subject: x\r\n\r\n\r\n");
    subscribe(&mut a, "SUB x 1\r\n");
    c.send("PUB x r 1\r\n1\r\n");
    let reply = reply_of(&a.next_msg());
    a.publish(&reply, "from a");
    c.expect("MSG r 9 6\r\nfrom a\r\n");
    subscribe(&mut b, "SUB y 1\r\n");
    c.send("PUB x r 1\r\n2\r\n");
    let replies = [reply_of(&a.next_msg()), reply_of(&b.next_msg())];
    a.publish(&replies[0], "from a");
    c.expect("MSG r 9 6\r\nfrom a\r\n");
    b.publish(&replies[1], "from b");
    c.expect("MSG r 9 6\r\nfrom b\r\n");
    c.expect_nothing();
}

/// A request that comes from another account is not passed on to those that import a stream of the same subject.
fn requests_are_no_news(shards: usize) {
    let config = Config::new(
        "accounts {
           A { users: [ { user: a, password: x } ], exports: [ { service: \"s.*\" }, { stream: \"s.*\" } ] }
           B { users: [ { user: b, password: x } ], imports: [ { service: { account: A, subject: \"s.*\" } } ] }
           C { users: [ { user: c, password: x } ], imports: [ { stream: { account: A, subject: \"s.*\" } } ] } }",
    );
    let server = config.server().shards(shards).start();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|user| client(&server, user));
    subscribe(&mut a, "SUB s.1 1\r\n");
    subscribe(&mut c, "SUB s.* 1\r\n");
    b.publish("s.1", "request");
    assert_eq!(a.next_msg().subject, "s.1");
    a.publish("s.2", "news");
    c.expect("MSG s.2 1 4\r\nnews\r\n");
    c.expect_nothing();
}

/// Where the subject of an import has no wildcards, that of a service in the importing account may have some, and what
/// looks like a function is a name like any other. An empty one is none.
fn names_without_wildcards_are_free(shards: usize) {
    let config = Config::new(
        "accounts {
           A { users: [ { user: a, password: x } ]
               exports: [ { service: s }, { service: \"t.*\" }, { stream: \"e.>\" } ] }
           B { users: [ { user: b, password: x } ]
               imports: [ { service: { account: A, subject: s }, to: \"any.*\" }
                          { service: { account: A, subject: t.1 }, to: \"t.$1\" }
                          { service: { account: A, subject: t.2 }, to: \"\" }
                          { stream: { account: A, subject: e.1 }, to: \"n.$1\" }
                          { stream: { account: A, subject: e.2 }, prefix: \"\" } ] } }",
    );
    let server = config.server().shards(shards).start();
    let [mut a, mut b] = ["a", "b"].map(|user| client(&server, user));
    subscribe(&mut a, "SUB s 1\r\nSUB t.* 2\r\n");
    subscribe(&mut b, "SUB *.* 1\r\nSUB r 2\r\n");
    for (asked, subject) in [("any.thing", "s"), ("t.$1", "t.1"), ("t.2", "t.2")] {
        b.send(format!("PUB {asked} r 0\r\n\r\n"));
        assert_eq!(b.next_msg().subject, asked);
        let request = a.next_msg();
        assert_eq!(request.subject, subject);
        a.publish(&reply_of(&request), "");
        b.expect("MSG r 2 0\r\n\r\n");
    }
    a.send("PUB e.1 0\r\n\r\nPUB e.2 0\r\n\r\n");
    b.expect("MSG n.$1 1 0\r\n\r\nMSG e.2 1 0\r\n\r\n");
}

/// A request that is on its way when the import ends still gets its answer.
fn answers_outlive_the_import(shards: usize) {
    let text = |imports: &str| {
        format!(
            "accounts {{ A {{ users: [ {{ user: a, password: x }} ], exports: [ {{ service: s }} ] }}
                         B {{ users: [ {{ user: b, password: x }} ], imports: [ {imports} ] }} }}"
        )
    };
    let config = Config::new(&text("{ service: { account: A, subject: s } }"));
    let server = config.server().shards(shards).start();
    let [mut a, mut b] = ["a", "b"].map(|user| client(&server, user));
    subscribe(&mut a, "SUB s 1\r\n");
    subscribe(&mut b, "SUB r 2\r\n");
    b.send("PUB s r 3\r\nask\r\n");
    let reply = reply_of(&a.next_msg());
    config.reload(&server, &text(""));
    a.publish(&reply, "answer");
    b.expect("MSG r 2 6\r\nanswer\r\n");
    b.send("PUB s r 0\r\n\r\nPING\r\n");
    b.expect("HMSG r 2 33 33\r\nNATS/1.0 503\r\nNats-Subject: s\r\n\r\n\r\nPONG\r\n");
}
