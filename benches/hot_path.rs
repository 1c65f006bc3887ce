//! What the pure functions on the path of a publish cost: parsing, matching, handing over to another shard.
//!
//! `cargo bench --bench hot_path` measures, with `-- match` behind it only what has `match` in its name. A benchmark
//! runs in rounds of equally many operations; printed are the nanoseconds per operation of the median, the fastest and
//! the slowest round. A wide spread means that the machine was not quiet. Figures compare on one machine only.
//!
//! Without `--bench` (`cargo test --all-targets`) every benchmark runs a few times, to show that it still works.

use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

use leat::ring::{Consumer, Producer, ring_with_budget};
use leat::subject::{Index, Matches};
use leat::wire::parser::{Limits, Step, parse, parse_canonical_pub};

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let harness = Harness {
        measures: args.iter().any(|arg| arg == "--bench"),
        only: args.into_iter().find(|arg| !arg.starts_with('-')),
    };
    if harness.measures {
        println!("{:<36}{:>10}{:>10}{:>10}", "nanoseconds per operation", "median", "fastest", "slowest");
    }
    parsing(&harness);
    matching(&harness);
    rings(&harness);
}

/// A buffer of many equal commands, as a read of a busy connection brings them, command by command.
fn parsing(harness: &Harness) {
    let small = publish("PUB bench.subject 16", 16);
    for (name, command) in [
        ("parse PUB, 16 B", small.clone()),
        ("parse PUB, 128 B", publish("PUB bench.subject 128", 128)),
        ("parse PUB with reply, 128 B", publish("PUB bench.subject _INBOX.aZ4kQ.17 128", 128)),
        ("parse HPUB, 26 B and 128 B", publish("HPUB bench.subject 26 154", 154)),
        ("parse PING", b"PING\r\n".to_vec()),
    ] {
        let buffer = command.repeat(COMMANDS);
        let mut at = 0;
        harness.measure(name, || match parse(black_box(&buffer[at..]), &LIMITS) {
            Ok(Step::Done(command, used)) => {
                black_box(&command);
                at = if at + used == buffer.len() { 0 } else { at + used };
            }
            other => panic!("{name}: {other:?}"),
        });
    }
    // What a shard asks first, before it needs a whole command.
    let buffer = small.repeat(COMMANDS);
    let mut at = 0;
    harness.measure("parse canonical PUB, 16 B", || {
        let canonical = parse_canonical_pub(black_box(&buffer[at..]), &LIMITS).expect("the command is canonical");
        at += black_box(canonical).command_bytes();
        if at == buffer.len() {
            at = 0;
        }
    });
}

fn publish(line: &str, size: usize) -> Vec<u8> {
    [line.as_bytes(), b"\r\n", &vec![b'x'; size], b"\r\n"].concat()
}

/// The subscription index with a third each of literals, `*` and `>`. Shards memoise routes in front of it, so this
/// is the price of a subject that is new.
fn matching(harness: &Harness) {
    let mut index = Index::new();
    for group in 0..GROUPS {
        for (kind, pattern) in patterns(group).iter().enumerate() {
            index.insert(pattern.as_bytes(), None, group * KINDS + kind as u64);
        }
    }
    // In an order that no cache or branch predictor learns by heart: steps of a number without a common divisor.
    let groups: Vec<u64> = (0..SUBJECTS as u64).map(|n| n * 7919 % GROUPS).collect();
    let subjects = |prefix: &str| -> Vec<String> {
        groups.iter().map(|group| format!("{prefix}{}", patterns(*group)[0])).collect()
    };
    let mut matches = Matches::new();
    for (name, subjects, found) in
        [("match in 100k, 3 found", subjects(""), KINDS as usize), ("match in 100k, none found", subjects("other."), 0)]
    {
        let mut next = 0;
        harness.measure(name, || {
            matches.clear();
            index.matches(black_box(subjects[next].as_bytes()), &mut matches);
            assert_eq!(black_box(&matches).plain.len(), found);
            next = (next + 1) % SUBJECTS;
        });
    }
    let inboxes = subjects("_INBOX.");
    let (mut next, target) = (0, GROUPS * KINDS);
    harness.measure("add and remove a subject in 100k", || {
        let inbox = black_box(inboxes[next].as_bytes());
        index.insert(inbox, None, target);
        assert!(index.remove(inbox, None, target));
        next = (next + 1) % SUBJECTS;
    });
}

/// Three patterns that the first of them, taken as a subject, matches.
fn patterns(group: u64) -> [String; KINDS as usize] {
    let tenant = group % 100;
    [
        format!("tenant.{tenant}.orders.{group}.created"),
        format!("tenant.{tenant}.*.{group}.created"),
        format!("tenant.{tenant}.orders.{group}.>"),
    ]
}

/// Both ends of a ring on one thread: the instructions, without the cache misses of two cores.
fn rings(harness: &Harness) {
    let (mut producer, mut consumer) = ring_with_budget(RING_SLOTS, RING_BYTES);
    let mut item = Vec::new();
    harness.measure("ring: push, peek, release", || {
        pass(&mut producer, &mut item);
        take(&mut consumer);
    });
    let mut waiting = 0;
    harness.measure("ring: the same, 128 at a time", || {
        pass(&mut producer, &mut item);
        waiting += 1;
        if waiting == IN_A_ROW {
            (0..std::mem::take(&mut waiting)).for_each(|_| take(&mut consumer));
        }
    });
}

fn pass(producer: &mut Producer<Vec<u8>>, item: &mut Vec<u8>) {
    producer.push_with_bytes(black_box(item), ITEM_BYTES).expect("the ring has room");
}

fn take(consumer: &mut Consumer<Vec<u8>>) {
    black_box(consumer.peek().expect("an item was pushed"));
    consumer.release();
}

/// Runs benchmarks and prints a line for each.
struct Harness {
    /// Whether to measure or only to run.
    measures: bool,
    /// Leaves out benchmarks without this in their name.
    only: Option<String>,
}

impl Harness {
    fn measure(&self, name: &str, mut operation: impl FnMut()) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only)) {
            return;
        }
        if !self.measures {
            (0..TRIAL_OPERATIONS).for_each(|_| operation());
            return;
        }
        let mut time = |operations: u64| {
            let begin = Instant::now();
            (0..operations).for_each(|_| operation());
            begin.elapsed()
        };
        // The search for the number of operations is the warm-up too.
        let mut operations = 1;
        while time(operations) < ROUND_TIME {
            operations *= 2;
        }
        let mut nanos: Vec<f64> =
            (0..ROUNDS).map(|_| time(operations).as_secs_f64() * 1e9 / operations as f64).collect();
        nanos.sort_by(f64::total_cmp);
        let (median, fastest, slowest) = (nanos[ROUNDS / 2], nanos[0], nanos[ROUNDS - 1]);
        println!("{name:<36}{median:>10.1}{fastest:>10.1}{slowest:>10.1}");
    }
}

/// Limits of a server with default options.
const LIMITS: Limits = Limits { control_line_max: 4096, payload_max: 1 << 20, headers: true };
/// Commands in a buffer: more than the first-level cache holds, as after a read.
const COMMANDS: usize = 2048;
/// Groups of patterns; together about 100,000 patterns.
const GROUPS: u64 = 33_334;
/// Patterns of a group.
const KINDS: u64 = 3;
/// Different subjects that are matched.
const SUBJECTS: usize = 4096;
/// What a server takes by default.
const RING_SLOTS: usize = 256;
const RING_BYTES: u64 = 1 << 20;
/// Items pushed before they are taken, and what each counts against the budget.
const IN_A_ROW: usize = 128;
const ITEM_BYTES: u64 = 64;
/// Rounds of a measurement; odd, so that the median is one of them.
const ROUNDS: usize = 21;
/// At least this long is a round, so that reading the clock costs nothing.
const ROUND_TIME: Duration = Duration::from_millis(20);
/// Operations when nothing is measured: two passes over the longest period.
const TRIAL_OPERATIONS: usize = 2 * SUBJECTS;
