//! Scenarios that each aim at one promise. A seed chooses sizes and the schedule.

use super::access::{self, Age, EXPORTER, IMPORTER, Rules, User};
use super::client::Step::{Ping, Pub, Request, Sub, Sync, Unsub, Wait, WaitMessages};
use super::client::{Plan, Reaction, Step};
use super::random::INBOXES;
use super::schedule::Scenario;

/// Builds a scenario from a seed.
pub(super) type Build = fn(u64) -> Scenario;

/// Most bytes in a socket of these, each way.
pub(super) const PIPE_BYTES: usize = 4096;

/// All of them, by name.
pub(super) const ALL: [(&str, Build); 15] = [
    ("random", super::random::scenario),
    ("told_publisher", told_publisher),
    ("third_shard", third_shard),
    ("leaving_responder", leaving_responder),
    ("limit", limit),
    ("shrinking_group", shrinking_group),
    ("flood", flood),
    ("interest_flood", interest_flood),
    ("refusing_group", refusing_group),
    ("refused_requests", refused_requests),
    ("handover", handover),
    ("crowd", crowd),
    ("relay", relay),
    ("announce", announce),
    ("reloads", super::reloads::scenario),
];

const SUBJECTS: [&str; 8] = ["x.0", "x.1", "x.2", "x.3", "x.4", "x.5", "x.6", "x.7"];

fn client(shard: usize, steps: Vec<Step>) -> Plan {
    Plan { shard, user: None, echo: true, pipe_bytes: PIPE_BYTES, steps, reaction: None }
}

fn tiny(shards: usize, clients: Vec<Plan>) -> Scenario {
    Scenario { shards, ring_slots: 2, ring_bytes: 512, clients, steps_max: 60_000, ages: Vec::new() }
}

fn sub(sid: u32, pattern: &'static str) -> Step {
    Sub { sid, pattern, queue: None }
}

fn member(sid: u32, pattern: &'static str, queue: &'static str) -> Step {
    Sub { sid, pattern, queue: Some(queue) }
}

fn publish(subject: &'static str) -> Step {
    Pub { subject, bytes: 0 }
}

/// After its PONG a subscriber tells a publisher on another shard; after that of its UNSUB, again. A second publisher
/// is there all the time.
pub(super) fn told_publisher(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let rounds = 4;
    let (mut listener, mut told) = (Vec::new(), Vec::new());
    let pattern = ["x", "*", ">"][rng.usize(..3)];
    for round in 0..rounds {
        listener.extend([sub(round, pattern), Ping, Sync, Wait { client: 1, step: 8 * round as usize + 4 }]);
        listener.extend([Unsub { sid: round, max: 0 }, Ping, Sync, Wait { client: 1, step: 8 * round as usize + 8 }]);
        let at = 8 * round as usize;
        told.extend([Wait { client: 0, step: at + 3 }, publish("x"), Ping, Sync]);
        told.extend([Wait { client: 0, step: at + 7 }, publish("x"), Ping, Sync]);
    }
    let shards = rng.usize(2..=3);
    let steady = (0..30).map(|n| if n % 10 == 9 { Ping } else { publish("x") }).collect();
    // Somebody else on the listener's shard wants everything, so that messages come there anyway.
    let other = vec![sub(0, "x"), Ping];
    tiny(shards, vec![client(0, listener), client(1, told), client(shards - 1, steady), client(0, other)])
}

/// What one client saw, another one publishes about, on another shard; a third one hears both in that order.
pub(super) fn third_shard(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let shards = rng.usize(3..=4);
    let first: Vec<Step> = std::iter::once(Wait { client: 2, step: 4 })
        .chain((0..12).map(|n| if n % 4 == 3 { Sync } else { Pub { subject: "x", bytes: rng.usize(..300) } }))
        .chain([Ping])
        .collect();
    let relay = |shard, rng: &mut fastrand::Rng| Plan {
        reaction: Some(Reaction::Relay { subject: "y", times: rng.u32(3..9) }),
        ..client(shard, vec![sub(0, "x"), Ping])
    };
    let hears = vec![sub(0, "x"), sub(1, "y"), Ping, Sync];
    let clients = vec![
        client(0, first),
        relay(1, &mut rng),
        client(2, hears),
        relay(rng.usize(..shards), &mut rng),
        client(0, (0..8).map(|_| publish("z")).chain([Ping]).collect()),
        client(rng.usize(..shards), vec![sub(0, ">"), Ping]),
    ];
    tiny(shards, clients)
}

/// Requests while their responder comes and goes, and after it is known to have gone.
pub(super) fn leaving_responder(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let shards = rng.usize(2..=3);
    let mut asks = vec![sub(0, INBOXES[0]), Ping, Sync];
    for n in 0..12 {
        asks.push(Request { subject: "svc" });
        if rng.bool() {
            asks.extend([Ping, Sync]);
        }
        if n == 6 {
            asks.extend([Wait { client: 1, step: 8 }, Request { subject: "svc" }, Ping, Sync]);
        }
    }
    asks.push(Ping);
    let queue = rng.bool().then_some("g");
    let mut answers = Vec::new();
    for sid in 0..4 {
        answers.extend([Sub { sid, pattern: "svc", queue }, Ping, WaitMessages { count: rng.usize(..6) }]);
        answers.extend([Unsub { sid, max: 0 }, Ping]);
        if sid % 2 == 1 || rng.bool() {
            answers.push(Sync);
        }
    }
    let mut clients = vec![client(0, asks), Plan { reaction: Some(Reaction::Reply), ..client(1, answers) }];
    // Somebody who only listens, but is there all the time, so nothing may be refused.
    if rng.bool() {
        clients.push(client(rng.usize(..shards), vec![sub(0, "svc"), Ping]));
    }
    tiny(shards, clients)
}

/// Subscriptions with a limit get exactly that many messages from publishers on all shards.
pub(super) fn limit(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let shards = rng.usize(2..=4);
    let mut limited = Vec::new();
    for sid in 0..3 {
        limited.extend([sub(sid, "x"), Unsub { sid, max: rng.u64(1..9) }, Ping, Sync]);
    }
    let publisher = |shard| {
        let publishes = (0..8).map(|_| publish("x"));
        client(shard, std::iter::once(Wait { client: 0, step: 12 }).chain(publishes).chain([Ping]).collect())
    };
    let publishers = (0..shards).map(publisher);
    tiny(shards, std::iter::once(client(0, limited)).chain(publishers).collect())
}

/// Members of a queue group come and go on all shards but for one that stays: each message goes to one member.
pub(super) fn shrinking_group(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let shards = rng.usize(2..=4);
    let stays = client(shards - 1, vec![member(0, "x", "g"), Ping, Sync]);
    let goes = |shard, rng: &mut fastrand::Rng| {
        let mut steps = Vec::new();
        for sid in 0..4 {
            steps.extend([member(sid, "x", "g"), Ping]);
            if rng.bool() {
                steps.push(Sync);
            }
            steps.extend([WaitMessages { count: rng.usize(..6) }, Unsub { sid, max: 0 }, Ping]);
        }
        client(shard, steps)
    };
    let mut clients = vec![stays];
    for n in 0..3 {
        clients.push(goes(n % shards, &mut rng));
    }
    for n in 0..2 {
        let mut steps = vec![sub(9, INBOXES[4 + n]), Wait { client: 0, step: 3 }];
        for _ in 0..15 {
            steps.push(if rng.bool() { Request { subject: "x" } } else { publish("x") });
            if rng.u8(..4) == 0 {
                steps.extend([Ping, Sync]);
            }
        }
        steps.push(Ping);
        clients.push(client(n % shards, steps));
    }
    tiny(shards, clients)
}

/// Most members of a queue group may not have what is published, on several shards; perhaps there is one who may.
pub(super) fn refusing_group(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let shards = rng.usize(2..=5);
    let denies = Rules { allow: &[">"], deny: &["s.y"] };
    let user = |name, subscribe| User { name, account: EXPORTER, is_hashed: false, publish: access::ALL, subscribe };
    let ages = vec![Age { users: vec![user("free", access::ALL), user("denied", denies)], imports: false }];
    let known_member =
        |user, shard| Plan { user: Some(user), ..client(shard, vec![member(0, "s.*", "g"), Ping, Sync]) };
    let mut members: Vec<Plan> = (0..shards).map(|shard| known_member("denied", shard)).collect();
    if rng.bool() {
        members.push(known_member("free", rng.usize(..shards)));
    }
    rng.shuffle(&mut members);
    let mut clients: Vec<Plan> = Vec::new();
    for inbox in &INBOXES[..2] {
        let mut steps = vec![sub(9, inbox)];
        steps.extend((0..members.len()).map(|member| Wait { client: 2 + member, step: 3 }));
        for _ in 0..12 {
            let subject = ["s.y", "s.y", "s.z"][rng.usize(..3)];
            steps.push(if rng.bool() { Request { subject } } else { publish(subject) });
            if rng.u8(..4) == 0 {
                steps.extend([Ping, Sync]);
            }
        }
        steps.push(Ping);
        clients.push(Plan { user: Some("free"), ..client(rng.usize(..shards), steps) });
    }
    clients.extend(members);
    if rng.bool() {
        let steps =
            vec![member(0, "s.*", "g"), Ping, WaitMessages { count: rng.usize(..4) }, Unsub { sid: 0, max: 0 }, Ping];
        clients.push(Plan { user: Some("free"), ..client(rng.usize(..shards), steps) });
    }
    Scenario { ages, ..tiny(shards, clients) }
}

/// Requests that nobody may receive who wants them: on several shards, by themselves or in groups, in one account or in
/// one that imports them. Now and then there is a taker.
pub(super) fn refused_requests(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let shards = rng.usize(2..=4);
    let denies = Rules { allow: &[">"], deny: &["s.y", "imp.s.y"] };
    let user = |name, account, subscribe| User { name, account, is_hashed: false, publish: access::ALL, subscribe };
    let users = vec![
        user("free", EXPORTER, access::ALL),
        user("denied", EXPORTER, denies),
        user("b-free", IMPORTER, access::ALL),
        user("b-denied", IMPORTER, denies),
    ];
    let imports = rng.bool();
    let mut listeners: Vec<Plan> = Vec::new();
    for _ in 0..rng.usize(1..6) {
        let is_free = rng.u8(..8) == 0;
        // Members of a group are in one account.
        let (user, pattern, queue) = match (rng.usize(..if imports { 5 } else { 3 }), is_free) {
            (n @ 0..3, false) => ("denied", "s.*", [None, Some("g"), Some("h")][n]),
            (n @ 0..3, true) => ("free", "s.*", [None, Some("g"), Some("h")][n]),
            (n, false) => ("b-denied", "imp.s.*", [None, Some("b")][n - 3]),
            (n, true) => ("b-free", "imp.s.*", [None, Some("b")][n - 3]),
        };
        let mut steps = vec![Sub { sid: 0, pattern, queue }, Ping, Sync];
        if rng.u8(..4) == 0 {
            steps.extend([WaitMessages { count: rng.usize(..3) }, Unsub { sid: 0, max: 0 }, Ping]);
        }
        listeners.push(Plan { user: Some(user), ..client(rng.usize(..shards), steps) });
    }
    let mut clients: Vec<Plan> = Vec::new();
    for inbox in &INBOXES[..2] {
        let mut steps = vec![sub(9, inbox)];
        steps.extend((0..listeners.len()).map(|listener| Wait { client: 2 + listener, step: 3 }));
        for _ in 0..12 {
            steps.push(Request { subject: ["s.y", "s.y", "s.z"][rng.usize(..3)] });
            if rng.u8(..4) == 0 {
                steps.extend([Ping, Sync]);
            }
        }
        steps.push(Ping);
        clients.push(Plan { user: Some("free"), ..client(rng.usize(..shards), steps) });
    }
    clients.extend(listeners);
    Scenario { ages: vec![Age { users, imports }], ..tiny(shards, clients) }
}

/// Shards flood each other through the smallest rings.
pub(super) fn flood(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let shards = rng.usize(2..=3);
    let mut clients: Vec<Plan> =
        (0..shards).map(|shard| client(shard, vec![sub(0, SUBJECTS[shard]), Ping, Sync])).collect();
    for shard in 0..shards {
        let mut steps: Vec<Step> = (0..shards).map(|other| Wait { client: other, step: 3 }).collect();
        for n in 0..60 {
            let bytes = rng.usize(..400);
            steps.push(Pub { subject: SUBJECTS[(shard + 1 + n % (shards - 1)) % shards], bytes });
            if rng.u8(..8) == 0 {
                steps.push(Ping);
            }
            if rng.u8(..16) == 0 {
                steps.push(Sync);
            }
        }
        steps.push(Ping);
        clients.push(client(shard, steps));
    }
    tiny(shards, clients)
}

/// So many subscriptions come and go that interest waits for room, while told publishers publish.
pub(super) fn interest_flood(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let shards = rng.usize(2..=3);
    let churn = |patterns: [&'static str; 3], told: usize| {
        let mut steps = Vec::new();
        for sid in 0..8 {
            steps.extend([sub(sid, patterns[sid as usize % 3]), Ping, Sync]);
            if sid % 2 == 1 {
                steps.push(Wait { client: told, step: 3 * sid as usize });
                steps.extend([Unsub { sid, max: 0 }, Ping, Sync]);
            }
        }
        steps
    };
    let told = |churner: usize, subject| {
        let round = |n: usize| [Wait { client: churner, step: 4 * n }, publish(subject), Ping];
        (0..8).flat_map(round).collect()
    };
    let clients = vec![
        client(0, churn(["a", "a.*", ">"], 4)),
        client(0, churn(["b", "b.>", "*"], 5)),
        client(0, churn(["c", "c.d", "*.d"], 4)),
        client(0, churn(["e", "*", "e"], 5)),
        client(1, told(0, "a")),
        client(shards - 1, told(1, "b")),
        client(1, told(2, "c.d")),
    ];
    tiny(shards, clients)
}

/// A group's only member leaves while one on another shard joins, and a publisher is told of the one that joined.
pub(super) fn handover(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let shards = rng.usize(2..=3);
    let (mut leaves, mut joins, mut tells) = (Vec::new(), Vec::new(), Vec::new());
    for (round, subject) in SUBJECTS.into_iter().take(6).enumerate() {
        let sid = round as u32;
        leaves.extend([member(sid, subject, "g"), Ping, Sync]);
        leaves.extend([Wait { client: 2, step: 6 * round + 1 }, Unsub { sid, max: 0 }, Ping]);
        joins.extend([Wait { client: 2, step: 6 * round + 1 }, member(sid, subject, "g"), Ping, Sync]);
        tells.extend([Wait { client: 0, step: 6 * round + 3 }, Wait { client: 1, step: 4 * round + 4 }]);
        tells.extend([publish(subject), publish(subject), Ping, Sync]);
    }
    let noise = Plan { pipe_bytes: 32, ..client(0, (0..40).map(|_| publish("noise")).chain([Ping]).collect()) };
    let told = client(rng.usize(1..shards), tells);
    tiny(shards, vec![client(0, leaves), client(1, joins), told, noise.clone(), noise])
}

/// Many clients of one shard change their interest while another shard has nothing else to do.
pub(super) fn crowd(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let shards = rng.usize(2..=3);
    let churns = |subject: &&'static str| {
        let round = |sid| [sub(sid, subject), Ping, Sync, Unsub { sid, max: 0 }, Ping, Sync];
        client(0, (0..4).flat_map(round).collect())
    };
    tiny(shards, SUBJECTS.iter().map(churns).collect())
}

/// Little but a long chain: what one shard publishes, another one publishes about, and a third one hears both.
pub(super) fn relay(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let rounds = 30;
    let publishes =
        (0..rounds).flat_map(|_| if rng.bool() { vec![publish("x")] } else { vec![publish("x"), Ping, Sync] });
    let first = std::iter::once(Wait { client: 2, step: 4 }).chain(publishes).chain([Ping]).collect();
    let relays =
        Plan { reaction: Some(Reaction::Relay { subject: "y", times: rounds }), ..client(2, vec![sub(0, "x"), Ping]) };
    let hears = vec![sub(0, "x"), sub(1, "y"), Ping, Sync];
    tiny(3, vec![client(1, first), relays, client(0, hears)])
}

/// A client subscribes and says so with its next message, without waiting for a PONG, while others of its shard fill
/// the interest rings. Who hears of the message has a publisher on a third shard publish for that subscription.
pub(super) fn announce(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut announces, mut hears, mut told) = (Vec::new(), vec![sub(0, "news"), Ping, Sync], Vec::new());
    for (round, subject) in SUBJECTS.into_iter().enumerate() {
        announces.extend([Wait { client: 2, step: 4 * round }, Wait { client: 1, step: 3 + round }]);
        announces.extend([sub(round as u32, subject), publish("news")]);
        hears.push(WaitMessages { count: round + 1 });
        told.extend([Wait { client: 1, step: 4 + round }, publish(subject), Ping, Sync]);
    }
    announces.push(Ping);
    let churns = |subject| {
        let round = |sid| [sub(sid, subject), Ping, Sync, Unsub { sid, max: 0 }, Ping, Sync];
        client(0, (0..8).flat_map(round).collect())
    };
    let (near, far) = if rng.bool() { (1, 2) } else { (2, 1) };
    let mut clients = vec![client(0, announces), client(near, hears), client(far, told)];
    clients.extend(["c.0", "c.1", "c.2", "c.3", "c.4"].map(churns));
    tiny(3, clients)
}
