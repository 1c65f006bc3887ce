//! Random scenarios: a few clients on a few shards that subscribe, publish, ask, relay, wait for each other and leave,
//! on a few subjects with wildcards and queue groups.

use super::client::{Plan, Reaction, Step};
use super::schedule::Scenario;

const SUBJECTS: [&str; 4] = ["a", "b", "a.b", "b.c.d"];
const PATTERNS: [&str; 8] = ["a", "b", "a.b", "a.*", "*", "b.>", ">", "*.b"];
const QUEUES: [&str; 2] = ["g", "h"];
/// Sid of the subscription on the inbox.
const INBOX: u32 = 0;
/// Inboxes by client, since patterns are constants.
pub(super) const INBOXES: [&str; 8] =
    ["_INBOX.0.>", "_INBOX.1.>", "_INBOX.2.>", "_INBOX.3.>", "_INBOX.4.>", "_INBOX.5.>", "_INBOX.6.>", "_INBOX.7.>"];

/// The scenario of a seed.
pub(super) fn scenario(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xABCD_EF01);
    let shards = [1, 2, 2, 3, 3, 3, 4][rng.usize(..7)];
    let clients = rng.usize(3..=6);
    let queues_leave = rng.bool();
    Scenario {
        shards,
        ring_slots: [2, 4][rng.usize(..2)],
        ring_bytes: [512, 1024, 4096][rng.usize(..3)],
        clients: (0..clients).map(|n| plan(&mut rng, n, clients, shards, queues_leave)).collect(),
        steps_max: 60_000,
        ages: Vec::new(),
    }
}

fn plan(rng: &mut fastrand::Rng, number: usize, clients: usize, shards: usize, queues_leave: bool) -> Plan {
    let mut steps = vec![Step::Sub { sid: INBOX, pattern: INBOXES[number], queue: None }];
    // Sids in use, and whether each is a queue member.
    let mut subs: Vec<(u32, bool)> = Vec::new();
    let mut next_sid = 1;
    for _ in 0..rng.usize(3..=9) {
        match rng.u32(..100) {
            0..30 => {
                let queue = (rng.u8(..10) < 4).then(|| QUEUES[rng.usize(..QUEUES.len())]);
                let pattern = PATTERNS[rng.usize(..PATTERNS.len())];
                steps.push(Step::Sub { sid: next_sid, pattern, queue });
                if rng.u8(..8) == 0 && (queue.is_none() || queues_leave) {
                    steps.push(Step::Unsub { sid: next_sid, max: rng.u64(1..5) });
                } else {
                    subs.push((next_sid, queue.is_some()));
                }
                next_sid += 1;
                settle(rng, &mut steps);
            }
            30..45 => {
                let candidates: Vec<usize> = (0..subs.len()).filter(|n| queues_leave || !subs[*n].1).collect();
                if let Some(chosen) = rng.choice(candidates) {
                    let (sid, _) = subs.swap_remove(chosen);
                    steps.push(Step::Unsub { sid, max: 0 });
                    settle(rng, &mut steps);
                }
            }
            45..75 => {
                for _ in 0..rng.usize(1..=6) {
                    let bytes = if rng.u8(..4) == 0 { rng.usize(..1500) } else { rng.usize(..60) };
                    steps.push(Step::Pub { subject: SUBJECTS[rng.usize(..SUBJECTS.len())], bytes });
                }
                settle(rng, &mut steps);
            }
            75..85 => {
                steps.push(Step::Request { subject: SUBJECTS[rng.usize(..SUBJECTS.len())] });
                settle(rng, &mut steps);
            }
            85..92 => steps.push(Step::WaitMessages { count: rng.usize(1..8) }),
            _ => steps.push(Step::Wait { client: rng.usize(..clients), step: rng.usize(1..12) }),
        }
    }
    if rng.u8(..10) == 0 {
        steps.push(Step::Close);
    } else {
        steps.push(Step::Ping);
    }
    let reaction = match rng.u8(..10) {
        0..3 => Some(Reaction::Reply),
        3..5 => Some(Reaction::Relay { subject: SUBJECTS[rng.usize(..SUBJECTS.len())], times: rng.u32(1..4) }),
        _ => None,
    };
    Plan {
        shard: rng.usize(..shards),
        user: None,
        echo: rng.u8(..6) != 0,
        pipe_bytes: [48, 256, 1024, 8192][rng.usize(..4)],
        steps,
        reaction,
    }
}

/// Perhaps PING, perhaps wait for the PONG.
fn settle(rng: &mut fastrand::Rng, steps: &mut Vec<Step>) {
    let luck = rng.u8(..4);
    if luck > 0 {
        steps.push(Step::Ping);
    }
    if luck > 1 {
        steps.push(Step::Sync);
    }
}
