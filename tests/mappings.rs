//! Subject mappings, as configuration files say them. The expected bytes are those of nats-server for the same file and
//! the same input.

mod support;

use std::collections::HashMap;

use serde_json::json;
use support::config::Config;
use support::{Client, Server, shard_suite};

shard_suite!(one_shard = 1, three_shards = 3 => {
    subjects_are_mapped,
    weights_left_over_are_lost_or_stay,
    lost_requests_have_no_responders,
    permissions_are_those_of_the_mapped_subject,
    reserved_names_are_no_destination,
    published_wildcards_are_names,
    functions_are_whole_tokens,
    clusters_have_destinations_of_their_own,
    a_reload_changes_mappings,
});

fn start(shards: usize, text: &str) -> Server {
    Config::new(text).server().shards(shards).start()
}

fn client(server: &Server, user: Option<&str>) -> Client {
    let client = server.connect().login(&json!({
        "user": user, "pass": user, "verbose": false, "pedantic": false, "headers": true, "no_responders": true
    }));
    client.ignoring_pings()
}

/// A client that gets everything.
fn witness(server: &Server, user: Option<&str>) -> Client {
    let mut client = client(server, user);
    client.send("SUB > 1\r\nPING\r\n");
    client.expect("PONG\r\n");
    client
}

/// How many messages of each subject have come.
fn counts(client: &mut Client) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for message in client.messages_to_fence() {
        *counts.entry(message.subject).or_default() += 1;
    }
    counts
}

fn subjects_are_mapped(shards: usize) {
    let server = start(shards, "mappings: { \"m.*\": \"n.$1\" }");
    let (mut a, mut publisher) = (client(&server, None), client(&server, None));
    a.send("SUB n.* 8\r\nSUB m.* 9\r\nPING\r\n");
    a.expect("PONG\r\n");
    publisher.send("PUB m.5 r 1\r\nm\r\nPING\r\n");
    publisher.expect("PONG\r\n");
    a.expect("MSG n.5 8 r 1\r\nm\r\n");
    a.expect_nothing();
    a.send("SUB r 10\r\nUNSUB 8\r\nPUB m.6 r 1\r\nm\r\n");
    a.expect("HMSG r 10 35 35\r\nNATS/1.0 503\r\nNats-Subject: n.6\r\n\r\n\r\n");
}

/// What the weights leave over keeps its subject, or is lost where the source is a destination itself.
fn weights_left_over_are_lost_or_stay(shards: usize) {
    const MESSAGES: usize = 400;
    let server = start(
        shards,
        "mappings: {
           whole: [ { dest: w1, weight: 50% }, { dest: w2, weight: 50% } ]
           stays: [ { dest: s1, weight: 50% } ]
           lossy: [ { dest: lossy, weight: 50% } ]
           \"many.>\": [ { dest: \"many.>\", weight: 50% } ]
           \"one.*\": [ { dest: \"one.$1\", weight: 50% } ]
           gone: { dest: gone, weight: 0 }
         }",
    );
    let (mut a, mut publisher) = (witness(&server, None), client(&server, None));
    // A share of a half lies outside of these with a probability below 1e-24.
    let half = MESSAGES / 4..MESSAGES * 3 / 4;
    for (published, shares, total) in [
        ("whole", &["w1", "w2"][..], Some(MESSAGES)),
        ("stays", &["stays", "s1"], Some(MESSAGES)),
        ("lossy", &["lossy"], None),
        ("many.x", &["many.x"], None),
        ("one.x", &[], Some(MESSAGES)),
        ("gone", &[], Some(0)),
    ] {
        publisher.send(format!("PUB {published} 0\r\n\r\n").repeat(MESSAGES));
        publisher.fence();
        let counts = counts(&mut a);
        for share in shares {
            assert!(counts.get(*share).is_some_and(|count| half.contains(count)), "{published}: {counts:?}");
        }
        let sum: usize = counts.values().sum();
        assert!(total.is_none_or(|total| total == sum), "{published}: {counts:?}");
    }
}

fn lost_requests_have_no_responders(shards: usize) {
    let server = start(shards, "mappings: { gone: { dest: gone, weight: 0 } }");
    let mut a = witness(&server, None);
    a.send("PUB gone r 0\r\n\r\n");
    a.expect("HMSG r 1 32 32\r\nNATS/1.0 503\r\nNats-Subject: \r\n\r\n\r\n");
    a.expect_nothing();
}

/// Who may publish to a subject may do so by whatever name; who may not, may not.
fn permissions_are_those_of_the_mapped_subject(shards: usize) {
    let server = start(
        shards,
        "accounts { A { mappings: { src: dst }, users: [
           { user: s, password: s }
           { user: a, password: a, permissions: { publish: src } }
           { user: b, password: b, permissions: { publish: dst } }
           { user: c, password: c, permissions: { publish: { deny: dst } } }
           { user: d, password: d, permissions: { publish: { deny: src } } }
         ] } }",
    );
    let mut s = witness(&server, Some("s"));
    for (user, may) in [("a", false), ("b", true), ("c", false), ("d", true)] {
        let mut publisher = client(&server, Some(user));
        // The second form does not go the short way of plain publishes.
        for publish in ["PUB src 1\r\n", "HPUB src 12 13\r\nNATS/1.0\r\n\r\n"] {
            publisher.send(format!("{publish}{user}\r\n"));
            let said = publisher.fence();
            if may {
                assert!(said.is_empty(), "{user}: {}", String::from_utf8_lossy(&said));
                let message = s.next_msg();
                assert_eq!((&*message.subject, &*message.payload), ("dst", user.as_bytes()));
            } else {
                assert_eq!(said, b"-ERR 'Permissions Violation for Publish to \"dst\"'\r\n", "{user}");
            }
        }
    }
    s.expect_nothing();
    // A client that is told of everything is told of the refusal alone.
    let mut publisher = server.connect();
    let connect = json!({"user": "c", "pass": "c", "verbose": true, "pedantic": true});
    publisher.send(format!("CONNECT {connect}\r\n"));
    publisher.expect("+OK\r\n");
    publisher.send("PUB src 1\r\nx\r\nPUB other 1\r\nx\r\n");
    publisher.expect("-ERR 'Permissions Violation for Publish to \"dst\"'\r\n+OK\r\n");
}

fn reserved_names_are_no_destination(shards: usize) {
    let server = start(shards, "mappings: { g: \"_GR_.x\", \"_GR_.y\": z }");
    let (mut a, mut publisher) = (witness(&server, None), client(&server, None));
    publisher.send("PUB g 0\r\n\r\nPUB _GR_.y 0\r\n\r\nPING\r\n");
    publisher.expect("-ERR 'Permissions Violation for Publish to \"_GR_.x\"'\r\nPONG\r\n");
    a.expect("MSG z 1 0\r\n\r\n");
    a.expect_nothing();
}

/// A published `>` is no single token, and an empty token is none at all.
fn published_wildcards_are_names(shards: usize) {
    let server = start(shards, "mappings: { \"*\": one, \"foo.*\": two, \"bar.>\": \"more.>\", \"e.*.x\": two }");
    let (mut a, mut publisher) = (witness(&server, None), client(&server, None));
    for (published, expected) in [
        (">", Some(">")),
        ("*", Some("one")),
        ("foo.>", Some("foo.>")),
        ("foo.*", Some("two")),
        ("bar.>", Some("more.>")),
        ("bar.*", Some("more.*")),
        ("e..x", None),
    ] {
        publisher.publish(published, "");
        publisher.fence();
        let subjects: Vec<String> = a.messages_to_fence().into_iter().map(|message| message.subject).collect();
        assert_eq!(subjects, expected.into_iter().collect::<Vec<_>>(), "{published}");
    }
}

fn functions_are_whole_tokens(shards: usize) {
    let server = start(
        shards,
        "mappings: {
           \"f.*.*\": \"to.$0.$2.{{ Left(0,2) }}.{{partition(100, 0)}}.{{SplitFromleft(1, 1)}}\"
           \"t.*\": \"x{{wildcard(1)}}.{{split(1,.)}}.{{}}.{{wildcard(1)\"
         }",
    );
    let (mut a, mut publisher) = (witness(&server, None), client(&server, None));
    publisher.send("PUB f.uv.w 0\r\n\r\nPUB t.a 0\r\n\r\nPING\r\n");
    publisher.expect("PONG\r\n");
    a.expect("MSG to.f.w.f.1.u.v 1 0\r\n\r\n");
    a.expect("MSG x{{wildcard(1)}}.{{split(1,.)}}.{{}}.{{wildcard(1) 1 0\r\n\r\n");
}

fn clusters_have_destinations_of_their_own(shards: usize) {
    const MAPPINGS: &str = "mappings: {
        both: [ { dest: b.c, weight: 100, cluster: C }, { dest: b.none, weight: 100 } ]
        only: { dest: o.c, weight: 100, cluster: C }
        none: { dest: n.none, weight: 100, cluster: \"\" }
        lossy: { dest: lossy, weight: 0, cluster: C }
    }";
    for (cluster, both, only) in
        [("", "b.none", "only"), ("cluster { name: C }", "b.c", "o.c"), ("cluster { name: D }", "b.none", "only")]
    {
        let server = start(shards, &format!("{cluster}\n{MAPPINGS}"));
        let mut a = witness(&server, None);
        a.send("PUB both 0\r\n\r\nPUB only 0\r\n\r\nPUB none 0\r\n\r\nPUB lossy 0\r\n\r\nPING\r\n");
        a.expect(format!("MSG {both} 1 0\r\n\r\nMSG {only} 1 0\r\n\r\nMSG n.none 1 0\r\n\r\nPONG\r\n"));
    }
}

/// A connection that has published without mappings publishes with them, and with others.
fn a_reload_changes_mappings(shards: usize) {
    let config = Config::new("");
    let server = config.server().shards(shards).start();
    let mut a = witness(&server, None);
    for (text, expected) in [("", "src"), ("mappings: { src: dst }", "dst"), ("mappings: { src: other }", "other")] {
        config.reload(&server, text);
        a.send("PUB src 0\r\n\r\n");
        a.expect(format!("MSG {expected} 1 0\r\n\r\n"));
    }
}
