//! Who may connect, and what users may publish, subscribe to and receive, as configuration files say it. The expected
//! bytes are those of nats-server for the same files and the same input.

mod support;

use serde_json::json;
use support::config::Config;
use support::{Client, PATIENCE, Server, shard_suite, skip_on_peer, wait_until};

shard_suite!(one_shard = 1, three_shards = 3 => {
    users_log_in_with_passwords_and_hashes,
    nkeys_sign_the_nonce,
    commands_behind_connect_wait_for_the_verdict,
    permissions_to_publish,
    permissions_to_subscribe,
    denied_subjects_do_not_pass_wildcards,
    queue_groups_find_the_member_that_may_receive,
    requests_that_nobody_may_receive_are_refused,
    requests_may_be_answered,
    accounts_are_separate,
    accounts_have_limits,
    the_user_without_credentials,
    connection_types_are_checked,
    empty_lists_restrict_nothing,
    what_pedantic_clients_are_told,
    subjects_of_the_system_account,
    an_account_without_subscriptions,
    a_login_takes_no_longer_than_it_may,
});

/// bcrypt of "hashed", cost 4.
fn hash() -> String {
    bcrypt::hash("hashed", 4).expect("a hash")
}

fn log_in(server: &Server, user: &str, pass: &str) -> Client {
    server.connect().login(&json!({"user": user, "pass": pass, "verbose": false, "pedantic": false, "headers": true}))
}

fn expect_refused(mut client: Client, connect: &serde_json::Value) {
    client.send(format!("CONNECT {connect}\r\n"));
    client.expect_then_close("-ERR 'Authorization Violation'\r\n");
}

fn users_log_in_with_passwords_and_hashes(shards: usize) {
    let hash = hash();
    let config = Config::new(&format!(
        "authorization {{ users: [ {{ user: plain, password: s3cret }}, {{ user: hashed, password: \"{hash}\" }} ] }}"
    ));
    let server = config.server().shards(shards).monitor().start();
    assert_eq!(server.connect().info()["auth_required"], true);
    let mut plain = log_in(&server, "plain", "s3cret");
    let mut hashed = log_in(&server, "hashed", "hashed");
    hashed.send("SUB foo 1\r\nPING\r\n");
    hashed.expect("PONG\r\n");
    plain.publish("foo", "hi");
    hashed.expect("MSG foo 1 2\r\nhi\r\n");
    for (user, pass) in [("plain", "hashed"), ("hashed", "s3cret"), ("hashed", ""), ("nobody", "s3cret")] {
        expect_refused(server.connect(), &json!({"user": user, "pass": pass}));
    }
    expect_refused(server.connect(), &json!({}));
    let mut silent = server.connect();
    silent.send("PING\r\n");
    silent.expect_then_close("-ERR 'Authorization Violation'\r\n");
    let connz = server.get_json("/connz?auth=1");
    let users: Vec<_> =
        connz["connections"].as_array().expect("a list").iter().map(|conn| &conn["authorized_user"]).collect();
    assert!(users.contains(&&json!("plain")) && users.contains(&&json!("hashed")), "{users:?}");

    let config = Config::new(&format!("authorization {{ token: \"{hash}\" }}"));
    let server = config.server().shards(shards).start();
    server.connect().login(&json!({"auth_token": "hashed", "verbose": false})).fence();
    expect_refused(server.connect(), &json!({"auth_token": "s3cret"}));
}

fn nkeys_sign_the_nonce(shards: usize) {
    let pair = nkeys::KeyPair::new_user();
    let other = nkeys::KeyPair::new_user();
    let config = Config::new(&format!("authorization {{ users: [ {{ nkey: {} }} ] }}", pair.public_key()));
    let server = config.server().shards(shards).start();
    let connect = |client: &Client, signer: &nkeys::KeyPair, encode: fn(&[u8]) -> String| {
        let nonce = client.info()["nonce"].as_str().expect("a nonce").to_owned();
        assert_eq!(nonce.len(), 15);
        let sig = encode(&signer.sign(nonce.as_bytes()).expect("a signature"));
        json!({"nkey": pair.public_key(), "sig": sig, "verbose": false})
    };
    for encode in [
        |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes),
        |bytes: &[u8]| data_encoding::BASE64.encode(bytes),
    ] {
        let client = server.connect();
        let mut options = connect(&client, &pair, encode);
        client.login(&options).fence();
        let mut client = server.connect();
        options = connect(&client, &pair, encode);
        options["protocol"] = json!(1);
        client.send(format!("CONNECT {options}\r\nPING\r\n"));
        client.expect("PONG\r\n");
        assert_eq!(client.next_info()["nonce"], json!(null), "there is nothing more to sign");
        let client = server.connect();
        let options = connect(&client, &other, encode);
        expect_refused(client, &options);
    }
    let options = connect(&server.connect(), &pair, |bytes| data_encoding::BASE64.encode(bytes));
    expect_refused(server.connect(), &options);
    expect_refused(server.connect(), &json!({"nkey": pair.public_key()}));
    expect_refused(server.connect(), &json!({"nkey": other.public_key(), "sig": "x"}));
}

/// What follows CONNECT in the same write is executed after the login, whole and in order; others are served meanwhile.
fn commands_behind_connect_wait_for_the_verdict(shards: usize) {
    let slow = bcrypt::hash("slow", 10).expect("a hash");
    let config = Config::new(&format!(
        "authorization {{ timeout: 60, users: [ {{ user: slow, password: \"{slow}\" }}
            {{ user: fast, password: fast }} ] }}"
    ));
    let server = config.server().shards(shards).start();
    let mut waiting: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for (n, client) in waiting.iter_mut().enumerate() {
        let body = "x".repeat(n * 10_000);
        client.send(format!(
            "CONNECT {{\"user\":\"slow\",\"pass\":\"slow\",\"verbose\":false}}\r\nSUB a{n} 1\r\nPUB a{n} {}\r\n{body}\r\nPING\r\n",
            body.len()
        ));
    }
    log_in(&server, "fast", "fast").fence();
    for (n, client) in waiting.iter_mut().enumerate() {
        let body = "x".repeat(n * 10_000);
        client.expect(format!("MSG a{n} 1 {}\r\n{body}\r\nPONG\r\n", body.len()));
    }
    let mut wrong = server.connect();
    wrong.send("CONNECT {\"user\":\"slow\",\"pass\":\"wrong\"}\r\nPUB a0 1\r\nx\r\nPING\r\n");
    wrong.expect_then_close("-ERR 'Authorization Violation'\r\n");
    waiting[0].expect_nothing();
    // Gone before the verdict: nobody is left behind.
    for _ in 0..4 {
        let mut gone = server.connect();
        gone.send("CONNECT {\"user\":\"slow\",\"pass\":\"slow\"}\r\n");
    }
    log_in(&server, "slow", "slow").fence();
}

const RULES: &str = "authorization { users: [
    { user: pub, password: x, permissions: { publish: { allow: [\"p.*\"], deny: [\"p.d\"] } } }
    { user: sub, password: x, permissions: { subscribe: { allow: [\"foo\", \"s.*\", \"bar v1.*\"] } } }
    { user: deny, password: x, permissions: { subscribe: { allow: [\">\"], deny: [\"d.x q\", \"e.*\"] } } }
    { user: all, password: x }
] }";

fn permissions_to_publish(shards: usize) {
    let server = Config::new(RULES).server().shards(shards).start();
    let mut all = log_in(&server, "all", "x");
    all.send("SUB > 1\r\nPING\r\n");
    all.expect("PONG\r\n");
    let mut publisher = log_in(&server, "pub", "x");
    publisher.send("PUB p.a 1\r\n1\r\nPUB p.d 1\r\n2\r\nPUB p.a.b 1\r\n3\r\npub  q r  01\r\n4\r\nHPUB p.d 12 13\r\nNATS/1.0\r\n\r\n5\r\nPUB p.e 1\r\n6\r\nPING\r\n");
    publisher.expect(
        "-ERR 'Permissions Violation for Publish to \"p.d\"'\r\n-ERR 'Permissions Violation for Publish to \"p.a.b\"'\r\n\
         -ERR 'Permissions Violation for Publish to \"q\"'\r\n-ERR 'Permissions Violation for Publish to \"p.d\"'\r\nPONG\r\n",
    );
    all.expect("MSG p.a 1 1\r\n1\r\nMSG p.e 1 1\r\n6\r\n");
    all.expect_nothing();
}

fn permissions_to_subscribe(shards: usize) {
    let server = Config::new(RULES).server().shards(shards).start();
    let mut client = log_in(&server, "sub", "x");
    client.send("SUB foo 1\r\nSUB foo q 2\r\nSUB bar 3\r\nSUB bar v1.a 4\r\nSUB bar v2 5\r\nSUB s.a 6\r\nSUB > 7\r\nSUB s.* 8\r\nSUB s. 9\r\nSUB s. 1\r\nPING\r\n");
    client.expect(
        "-ERR 'Permissions Violation for Subscription to \"bar\"'\r\n\
         -ERR 'Permissions Violation for Subscription to \"bar\" using queue \"v2\"'\r\n\
         -ERR 'Permissions Violation for Subscription to \">\"'\r\n\
         -ERR 'Permissions Violation for Subscription to \"s.\"'\r\n\
         -ERR 'Permissions Violation for Subscription to \"s.\"'\r\nPONG\r\n",
    );
    let mut all = log_in(&server, "all", "x");
    all.send("PUB bar 1\r\nb\r\nPUB x 1\r\nx\r\nPUB s.b 1\r\ns\r\n");
    client.expect("MSG bar 4 1\r\nb\r\nMSG s.b 8 1\r\ns\r\n");
    client.expect_nothing();
}

fn denied_subjects_do_not_pass_wildcards(shards: usize) {
    let server = Config::new(RULES).server().shards(shards).start();
    let mut plain = log_in(&server, "deny", "x");
    plain.send("SUB * 1\r\nSUB d.x q 2\r\nSUB d.* 3\r\nSUB e.> 4\r\nSUB e.f 5\r\nPING\r\n");
    plain.expect(
        "-ERR 'Permissions Violation for Subscription to \"d.x\" using queue \"q\"'\r\n\
         -ERR 'Permissions Violation for Subscription to \"e.>\"'\r\n\
         -ERR 'Permissions Violation for Subscription to \"e.f\"'\r\nPONG\r\n",
    );
    let mut member = log_in(&server, "deny", "x");
    member.send("SUB > q 1\r\nPING\r\n");
    member.expect("PONG\r\n");
    let mut all = log_in(&server, "all", "x");
    all.send("PUB d.x 1\r\n1\r\nPUB e.f 1\r\n2\r\nPUB e.f.g 1\r\n3\r\nPING\r\n");
    all.expect("PONG\r\n");
    plain.expect("MSG d.x 3 1\r\n1\r\n");
    plain.expect_nothing();
    member.expect("MSG e.f.g 1 1\r\n3\r\n");
    member.expect_nothing();
}

/// However many members may not receive a message, and on whichever shards they are.
fn queue_groups_find_the_member_that_may_receive(shards: usize) {
    const MESSAGES: usize = 200;
    let config = Config::new(
        "authorization { users: [ { user: all, password: x }
            { user: denied, password: x, permissions: { subscribe: { deny: n.y } } } ] }",
    );
    let server = config.server().shards(shards).start();
    let mut publisher = log_in(&server, "all", "x");
    let mut denied: Vec<Client> = (0..5).map(|_| log_in(&server, "denied", "x")).collect();
    let mut allowed = log_in(&server, "all", "x");
    for member in denied.iter_mut().chain([&mut allowed]) {
        member.send("SUB n.* q 1\r\nPING\r\n");
        member.expect("PONG\r\n");
    }
    publisher.send("PUB n.y 1\r\ny\r\n".repeat(MESSAGES));
    for _ in 0..MESSAGES {
        allowed.expect("MSG n.y 1 1\r\ny\r\n");
    }
    allowed.expect_nothing();
    for member in &mut denied {
        member.expect_nothing();
    }
}

/// Plain subscriptions and groups, on whichever shards: whoever asks hears that there is nobody.
fn requests_that_nobody_may_receive_are_refused(shards: usize) {
    const REQUESTS: usize = 20;
    let config = Config::new(
        "authorization { users: [ { user: all, password: x }
            { user: denied, password: x, permissions: { subscribe: { deny: \"*.y\" } } } ] }",
    );
    let server = config.server().shards(shards).start();
    let mut asking = server.connect().login(&json!({
        "user": "all", "pass": "x", "verbose": false, "headers": true, "no_responders": true
    }));
    asking.send("SUB r.* 1\r\nPING\r\n");
    asking.expect("PONG\r\n");
    let mut denied: Vec<Client> = (0..8).map(|_| log_in(&server, "denied", "x")).collect();
    let subs = ["SUB n.> 1\r\n", "SUB n.* q 1\r\n", "SUB n.> 1\r\nSUB n.* q 2\r\nSUB > p 3\r\n"];
    for subs in subs {
        for client in &mut denied {
            client.send(format!("UNSUB 1\r\nUNSUB 2\r\nUNSUB 3\r\n{subs}PING\r\n"));
            client.expect("PONG\r\n");
        }
        for n in 0..REQUESTS {
            asking.send(format!("PUB n.y r.{n} 1\r\nx\r\n"));
            asking.expect(format!("HMSG r.{n} 1 35 35\r\nNATS/1.0 503\r\nNats-Subject: n.y\r\n\r\n\r\n"));
        }
        asking.send("PUB n.z r.z 1\r\nx\r\n");
        asking.expect_nothing();
        let received: usize = denied.iter_mut().map(|client| client.messages_to_fence().len()).sum();
        assert!(received > 0, "what they may receive arrives");
    }
    for client in &mut denied {
        client.expect_nothing();
    }
}

fn requests_may_be_answered(shards: usize) {
    let config = Config::new(
        "authorization { users: [
            { user: service, password: x, permissions: {
                subscribe: \"req.>\", allow_responses: { max: 2, expires: \"1m\" } } }
            { user: all, password: x }
        ] }",
    );
    let server = config.server().shards(shards).start();
    let mut service = log_in(&server, "service", "x");
    service.send("SUB req.a 1\r\nPUB _INBOX.1 1\r\nx\r\nPING\r\n");
    service.expect("-ERR 'Permissions Violation for Publish to \"_INBOX.1\"'\r\nPONG\r\n");
    let mut all = log_in(&server, "all", "x");
    all.send("SUB _INBOX.* 9\r\nPUB req.a _INBOX.1 1\r\nr\r\nPING\r\n");
    all.expect("PONG\r\n");
    service.expect("MSG req.a 1 _INBOX.1 1\r\nr\r\n");
    service
        .send("PUB _INBOX.1 1\r\n1\r\nPUB _INBOX.1 1\r\n2\r\nPUB _INBOX.1 1\r\n3\r\nPUB _INBOX.2 1\r\n4\r\nPING\r\n");
    service.expect(
        "-ERR 'Permissions Violation for Publish to \"_INBOX.1\"'\r\n\
         -ERR 'Permissions Violation for Publish to \"_INBOX.2\"'\r\nPONG\r\n",
    );
    all.expect("MSG _INBOX.1 9 1\r\n1\r\nMSG _INBOX.1 9 1\r\n2\r\n");
    all.expect_nothing();
}

fn accounts_are_separate(shards: usize) {
    let config = Config::new(
        "accounts { A { users: [ { user: a1, password: x }, { user: a2, password: x } ] }
                    B { users: [ { user: b, password: x } ] } }
         authorization { users: [ { user: g, password: x } ] }",
    );
    let server = config.server().shards(shards).monitor().start();
    let mut clients: Vec<Client> = ["a1", "a2", "b", "g"].iter().map(|user| log_in(&server, user, "x")).collect();
    for client in &mut clients {
        client.send("SUB foo 1\r\nSUB foo q 2\r\nPING\r\n");
        client.expect("PONG\r\n");
    }
    clients[0].publish("foo", "for A");
    let counts: Vec<usize> = clients.iter_mut().map(|client| client.messages_to_fence().len()).collect();
    assert_eq!(counts[0] + counts[1], 3, "both subscriptions and one member of the group: {counts:?}");
    assert_eq!(counts[2..], [0, 0]);
    // No responders is said within the account.
    let mut asking = server.connect().login(&json!({
        "user": "b", "pass": "x", "verbose": false, "headers": true, "no_responders": true, "protocol": 1
    }));
    let info = asking.next_info();
    assert_eq!((&info["remote_account"], &info["acc_is_sys"]), (&json!("B"), &json!(null)));
    asking.send("SUB r 1\r\nPUB bar r 1\r\nx\r\n");
    asking.expect("HMSG r 1 35 35\r\nNATS/1.0 503\r\nNats-Subject: bar\r\n\r\n\r\n");
    let connz = server.get_json("/connz?acc=A");
    assert_eq!(connz["num_connections"], 2);
}

fn accounts_have_limits(shards: usize) {
    let config = Config::new(
        "accounts { A { users: [ { user: a, password: x } ]
                        limits { max_connections: 2, max_subscriptions: 1, max_payload: 10 } } }
         authorization { users: [ { user: g, password: x } ] }",
    );
    let server = config.server().shards(shards).start();
    let mut first = log_in(&server, "a", "x");
    first.send("SUB foo 1\r\nSUB bar 2\r\nPING\r\n");
    first.expect("-ERR 'maximum subscriptions exceeded'\r\nPONG\r\n");
    let mut second = log_in(&server, "a", "x");
    second.fence();
    let mut third = server.connect();
    third.send("CONNECT {\"user\":\"a\",\"pass\":\"x\",\"verbose\":false}\r\nPING\r\n");
    third.expect_then_close("-ERR 'maximum account active connections exceeded'\r\n");
    log_in(&server, "g", "x").fence();
    second.send("PUB foo 11\r\n");
    second.expect_then_close("-ERR 'Maximum Payload Violation'\r\n");
    // Who leaves makes room.
    wait_until("room for a client", PATIENCE, || {
        let mut client = server.connect();
        client.send("CONNECT {\"user\":\"a\",\"pass\":\"x\",\"verbose\":false}\r\nPING\r\n");
        client.read_up_to(6) == b"PONG\r\n"
    });
}

fn the_user_without_credentials(shards: usize) {
    let config = Config::new(
        "accounts { A { users: [ { user: a, password: x, permissions: { publish: \"foo\" } } ] } }
         no_auth_user: a",
    );
    let server = config.server().shards(shards).start();
    let mut client = server.connect();
    assert_eq!(client.info()["auth_required"], json!(null));
    client.send("SUB foo 1\r\nPUB bar 1\r\nx\r\nPUB foo 1\r\ny\r\n");
    client.expect("+OK\r\n-ERR 'Permissions Violation for Publish to \"bar\"'\r\n+OK\r\nMSG foo 1 1\r\ny\r\n");
    let mut client = server.connect().login(&json!({"verbose": false, "protocol": 1}));
    assert_eq!(client.next_info()["remote_account"], "A");
    expect_refused(server.connect(), &json!({"user": "a", "pass": "wrong"}));
    // Where there are no nkeys, one says nothing; another password does.
    let nkey = nkeys::KeyPair::new_user().public_key();
    server.connect().login(&json!({"nkey": nkey, "sig": "x", "verbose": false})).fence();
    expect_refused(server.connect(), &json!({"nkey": nkey, "pass": "x"}));

    let config = Config::new(
        "authorization { users: [ { user: a, password: x, allowed_connection_types: [WEBSOCKET] } ] }
         no_auth_user: a",
    );
    let server = config.server().shards(shards).start();
    for command in ["SUB x 1\r\n", "PING\r\n", "CONNECT {}\r\n"] {
        let mut client = server.connect();
        client.send(command);
        client.expect_then_close("-ERR 'Authorization Violation'\r\n");
    }
}

fn connection_types_are_checked(shards: usize) {
    let config = Config::new(
        "authorization { users: [
            { user: web, password: x, allowed_connection_types: [WEBSOCKET] }
            { user: tcp, password: x, allowed_connection_types: [STANDARD, WEBSOCKET] } ] }",
    );
    let server = config.server().shards(shards).start();
    log_in(&server, "tcp", "x").fence();
    expect_refused(server.connect(), &json!({"user": "web", "pass": "x"}));
}

/// A list without subjects says nothing, wherever it stands; who may only answer may do nothing else.
fn empty_lists_restrict_nothing(shards: usize) {
    let user =
        |name: &str, permissions: &str| format!("{{ user: {name}, password: x, permissions: {{ {permissions} }} }}");
    let config = Config::new(&format!(
        "authorization {{ users: [ {}, {}, {}, {}, {{ user: plain, password: x }} ]
           default_permissions: {{ publish: [], subscribe: {{ allow: [] }} }} }}",
        user("lists", "publish: [], subscribe: []"),
        user("maps", "publish: { allow: [] }, subscribe: { allow: [], deny: [] }"),
        user("denied", "publish: { allow: [], deny: [nay] }, subscribe: { allow: [], deny: [nay] }"),
        user("answers", "publish: [], subscribe: [], allow_responses: true"),
    ));
    let server = config.server().shards(shards).start();
    let publish = |subject: &str| format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n");
    let subscription = "-ERR 'Permissions Violation for Subscription to \"nay\"'\r\n".to_owned();
    for (user, refusals) in [
        ("lists", String::new()),
        ("maps", String::new()),
        ("plain", String::new()),
        ("denied", subscription + &publish("nay")),
        ("answers", publish("nay") + &publish("foo")),
    ] {
        let mut client = log_in(&server, user, "x");
        client.send("SUB nay 1\r\nPUB nay 0\r\n\r\nUNSUB 1\r\nSUB bar 2\r\nPUB foo 0\r\n\r\nPING\r\n");
        let heard = String::from_utf8(client.until_pong()).expect("text");
        let refused: String = heard.split_inclusive('\n').filter(|line| line.starts_with('-')).collect();
        assert_eq!(refused, refusals, "{user}");
    }
}

/// What is wrong with a subject is said before what is wrong with publishing to it.
fn what_pedantic_clients_are_told(shards: usize) {
    let server = Config::new(RULES).server().shards(shards).start();
    let mut client = server.connect();
    client.send("CONNECT {\"user\":\"pub\",\"pass\":\"x\",\"pedantic\":true,\"verbose\":true}\r\nPUB p.* 0\r\n\r\nPUB q.* 0\r\n\r\nPUB q 0\r\n\r\nPUB $NRG.* 0\r\n\r\nPING\r\n");
    client.expect(
        "+OK\r\n-ERR 'Invalid Publish Subject'\r\n+OK\r\n\
         -ERR 'Invalid Publish Subject'\r\n-ERR 'Permissions Violation for Publish to \"q.*\"'\r\n\
         -ERR 'Permissions Violation for Publish to \"q\"'\r\n\
         -ERR 'Invalid Publish Subject'\r\n-ERR 'Permissions Violation for Publish to \"$NRG.*\"'\r\nPONG\r\n",
    );
}

/// Servers talk to each other in the system account, where its clients may join in; elsewhere they may not.
fn subjects_of_the_system_account(shards: usize) {
    let config = Config::new(
        "accounts { SYS { users: [ { user: sys, password: x } ] }, A { users: [ { user: a, password: x } ] } }
         system_account: SYS",
    );
    let server = config.server().shards(shards).start();
    let publish = "SUB $NRG.> 1\r\nPUB $NRG.x 1\r\nx\r\nPUB _GR_.x 1\r\nx\r\nPUB $GR.x 1\r\nx\r\nPING\r\n";
    let others = "-ERR 'Permissions Violation for Publish to \"_GR_.x\"'\r\n\
                  -ERR 'Permissions Violation for Publish to \"$GR.x\"'\r\nPONG\r\n";
    let mut sys = log_in(&server, "sys", "x");
    sys.send(publish);
    sys.expect(format!("MSG $NRG.x 1 1\r\nx\r\n{others}"));
    let mut a = log_in(&server, "a", "x");
    a.send(publish);
    a.expect(format!("-ERR 'Permissions Violation for Publish to \"$NRG.x\"'\r\n{others}"));
}

/// Whoever may have no subscription at all may not stay. (The reference says so a moment after the login.)
fn an_account_without_subscriptions(shards: usize) {
    let config = Config::new(
        "accounts { A { users: [ { user: a, password: x } ], limits { max_subs: 0 } }
                    B { users: [ { user: b, password: x } ] } }",
    );
    let server = config.server().shards(shards).start();
    let mut client = server.connect();
    client.send("CONNECT {\"user\":\"a\",\"pass\":\"x\",\"verbose\":false}\r\n");
    client.expect_then_close("-ERR 'maximum subscriptions exceeded'\r\n");
    log_in(&server, "b", "x").fence();
}

/// The time for a login counts until its turn has come; what has begun is finished.
fn a_login_takes_no_longer_than_it_may(shards: usize) {
    let slow = bcrypt::hash("slow", 13).expect("a hash");
    let config = Config::new(&format!("authorization {{ user: a, password: \"{slow}\", timeout: 0.5 }}"));
    let server = config.server().shards(shards).start();
    let connect = "CONNECT {\"user\":\"a\",\"pass\":\"slow\",\"verbose\":false}\r\nPING\r\n";
    let mut client = server.connect();
    client.send(connect);
    client.expect("PONG\r\n");
    // The reference begins all at the same time.
    if server.is_leat() {
        let mut clients: Vec<Client> = (0..16).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| client.send(connect));
        let heard = clients.iter_mut().map(|client| client.read_up_to(6));
        let (admitted, late): (Vec<_>, Vec<_>) = heard.partition(|heard| heard == b"PONG\r\n");
        assert!(late.iter().all(|heard| heard == b"-ERR 'Authentication Timeout'\r\n"), "{late:?}");
        assert!(!admitted.is_empty() && !late.is_empty(), "{} of 16 were admitted", admitted.len());
    }
}

/// Hashes for clients that may have left come after those for clients that wait.
#[test]
fn clients_that_have_left_delay_nobody() {
    // The reference computes all at the same time.
    if skip_on_peer("clients_that_have_left_delay_nobody") {
        return;
    }
    const LEFT: usize = 40;
    let slow = bcrypt::hash("slow", 11).expect("a hash");
    let config =
        Config::new(&format!("authorization {{ timeout: 60, users: [ {{ user: slow, password: \"{slow}\" }} ] }}"));
    let server = config.server().shards(1).start();
    for _ in 0..LEFT {
        server.connect().send("CONNECT {\"user\":\"slow\",\"pass\":\"wrong\"}\r\n");
    }
    log_in(&server, "slow", "slow").fence();
    let judged = server.stderr().matches("authentication error").count();
    assert!(judged < LEFT / 2, "{judged} of {LEFT} came first");
    // What they have sent before they left counts all the same.
    wait_until("all are judged", 4 * PATIENCE, || server.stderr().matches("authentication error").count() == LEFT);
}

/// A storm of hashed logins does not keep the conversations of others waiting.
#[test]
fn a_storm_of_logins_stalls_nobody() {
    let slow = bcrypt::hash("slow", 9).expect("a hash");
    let config = Config::new(&format!(
        "authorization {{ timeout: 60, users: [ {{ user: slow, password: \"{slow}\" }}
            {{ user: fast, password: fast }} ] }}"
    ));
    let server = config.server().shards(1).start();
    let mut talking = log_in(&server, "fast", "fast");
    let mut storm: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    for client in &mut storm {
        client.send("CONNECT {\"user\":\"slow\",\"pass\":\"slow\",\"verbose\":false}\r\nPING\r\n");
    }
    // Two hundred hashes take seconds. Fifty round trips are over long before, unless they have to wait for hashes.
    for _ in 0..50 {
        talking.fence();
    }
    let last = storm.last().expect("a client of the storm").socket();
    last.set_nonblocking(true).expect("non-blocking mode");
    let nothing_yet = last.peek(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    last.set_nonblocking(false).expect("blocking mode");
    assert!(nothing_yet, "the storm was over before the conversation");
    for client in &mut storm {
        client.expect("PONG\r\n");
    }
}
