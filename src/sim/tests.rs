//! The promises hold: every scenario, with many seeds each.

use super::scenarios::{self, ALL, Build};
use super::schedule::{Outcome, simulate};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Simulates a scenario with many seeds; gives what came of each.
fn explore(name: &str, seeds: u64) -> Vec<Outcome> {
    let (_, build) = ALL.iter().find(|(known, _)| *known == name).expect("a scenario of that name");
    let first = number("LEAT_SIM_SEED", 0);
    let all = first..first + number("LEAT_SIM_SEEDS", seeds);
    all.map(|seed| {
        let outcome = simulate(seed, &build(seed), None);
        if let Err(text) = &outcome.verdict {
            let again = format!("LEAT_SIM_SEED={seed} LEAT_SIM_SEEDS=1 cargo test --lib sim::tests::{name}");
            panic!("{text}\nscenario {name}, seed {seed}; again with: {again}");
        }
        outcome
    })
    .collect()
}

/// A failure can be looked at: the same seed does the same.
#[test]
fn the_same_seed_does_the_same() {
    for (name, build) in ALL {
        for seed in 0..20 {
            let [first, second] = [0, 1].map(|_| simulate(seed, &build(seed), None));
            assert_eq!((first.trace, first.steps), (second.trace, second.steps), "scenario {name}, seed {seed}");
        }
    }
}

#[test]
fn random() {
    explore("random", 6000);
}

#[test]
fn told_publisher() {
    explore("told_publisher", 1000);
}

#[test]
fn third_shard() {
    explore("third_shard", 1000);
}

#[test]
fn relay() {
    explore("relay", 1000);
}

#[test]
fn announce() {
    explore("announce", 1000);
}

#[test]
fn leaving_responder() {
    explore("leaving_responder", 1000);
}

#[test]
fn limit() {
    explore("limit", 1000);
}

#[test]
fn shrinking_group() {
    explore("shrinking_group", 1000);
}

#[test]
fn refusing_group() {
    explore("refusing_group", 1000);
}

#[test]
fn refused_requests() {
    explore("refused_requests", 1000);
}

#[test]
fn handover() {
    explore("handover", 1000);
}

/// No deadlock and nothing lost under overload; publishers are held, so spill lists stay small: a turn reads at most
/// four times what the one publisher's socket holds, and a message is at most twice as large in a ring.
#[test]
fn flood() {
    let outcomes = explore("flood", 1000);
    let spilled = outcomes.iter().map(|outcome| outcome.spill_bytes_peak).max();
    assert!(spilled.is_some_and(|bytes| bytes <= 4 * 2 * scenarios::PIPE_BYTES), "{spilled:?} bytes in spill lists");
    let overloaded = |outcome: &&Outcome| outcome.held_peak > 0 && outcome.spill_bytes_peak > 0;
    assert!(outcomes.iter().filter(overloaded).count() * 2 > outcomes.len(), "rings were rarely full");
}

#[test]
fn interest_flood() {
    explore("interest_flood", 1000);
}

/// Interest waits for room too, and its senders are held.
#[test]
fn crowd() {
    let outcomes = explore("crowd", 1000);
    assert!(outcomes.iter().any(|outcome| outcome.held_peak > 2), "interest rings were never full");
}

#[test]
fn reloads() {
    explore("reloads", 1000);
}

/// Everything, for as long as one likes.
#[test]
#[ignore = "takes minutes; LEAT_SIM_SEEDS says how many"]
fn a_long_run() {
    for (name, _) in ALL as [(&str, Build); ALL.len()] {
        let start = std::time::Instant::now();
        let outcomes = explore(name, 20_000);
        let steps: u64 = outcomes.iter().map(|outcome| outcome.steps).sum();
        let most = outcomes.iter().map(|outcome| outcome.steps).max();
        println!("{name}: {} seeds in {:.1?}, {steps} steps, most {most:?}", outcomes.len(), start.elapsed());
    }
}
