//! Two accounts, of which one may import from the other, and a third one that comes later; users whose rights change,
//! who leave and come back, while everybody subscribes and publishes.

use super::access::{ALL, Age, EXPORTER, IMPORTER, Rules, User};
use super::client::{Plan, Step};
use super::scenarios::PIPE_BYTES;
use super::schedule::Scenario;

const SUBJECTS: [&str; 5] = ["a", "s.1", "s.2", "imp.s.1", "imp.s.2"];
const PATTERNS: [&str; 7] = ["a", "s.1", "s.*", ">", "*.*", "imp.>", "imp.s.1"];
const QUEUE_PATTERNS: [&str; 2] = ["s.*", "imp.s.*"];
const ALLOWED: [&[&str]; 4] = [&[">"], &["a", "s.>"], &["s.1", "imp.>"], &["*.*", "*"]];
const DENIED: [&[&str]; 4] = [&[], &[], &["s.2"], &["a", "imp.s.>"]];
/// An account of the later ages.
const LATE: &str = "C";
/// Users by account. The first of each account is there all the time and may do everything.
const EXPORTERS: [&str; 4] = ["a-stays", "a-goes", "a-varies", "a-differs"];
const IMPORTERS: [&str; 2] = ["b-stays", "b-varies"];
const LATE_ONES: [&str; 2] = ["c-stays", "c-varies"];
/// Configurations of a run.
const AGES: usize = 3;

/// The scenario of a seed.
pub(super) fn scenario(seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x00AC_CE55);
    let shards = [1, 2, 2, 3][rng.usize(..4)];
    let imports = rng.u8(..3);
    let is_hashed: Vec<bool> = (0..8).map(|_| rng.bool()).collect();
    let ages = (0..AGES).map(|age| self::age(&mut rng, age, imports, &is_hashed)).collect();
    let users = EXPORTERS.iter().chain(&IMPORTERS).chain(&LATE_ONES);
    let mut clients: Vec<Plan> = users.map(|user| client(&mut rng, shards, user)).collect();
    for _ in 0..rng.usize(..3) {
        let user = EXPORTERS[rng.usize(..EXPORTERS.len())];
        clients.push(client(&mut rng, shards, user));
    }
    Scenario {
        shards,
        ring_slots: [2, 4][rng.usize(..2)],
        ring_bytes: [512, 1024][rng.usize(..2)],
        clients,
        ages,
        steps_max: 100_000,
    }
}

fn age(rng: &mut fastrand::Rng, number: usize, imports: u8, is_hashed: &[bool]) -> Age {
    let mut users = Vec::new();
    let all = [(EXPORTER, &EXPORTERS[..]), (IMPORTER, &IMPORTERS), (LATE, &LATE_ONES)];
    let mut hashed = is_hashed.iter().copied();
    for (account, names) in all {
        for (n, name) in names.iter().copied().enumerate() {
            let is_hashed = hashed.next().unwrap_or_default();
            let may_be_gone = name.ends_with("goes") || account == LATE && number == 0;
            if may_be_gone && (account == LATE || number > 0 && rng.bool()) {
                continue;
            }
            let mut rules = || if n == 0 { ALL } else { rules(rng) };
            users.push(User { name, account, is_hashed, publish: rules(), subscribe: rules() });
        }
    }
    let imports = match imports {
        0 => false,
        1 => true,
        _ => rng.bool(),
    };
    Age { users, imports }
}

fn rules(rng: &mut fastrand::Rng) -> Rules {
    Rules { allow: ALLOWED[rng.usize(..ALLOWED.len())], deny: DENIED[rng.usize(..DENIED.len())] }
}

fn client(rng: &mut fastrand::Rng, shards: usize, user: &'static str) -> Plan {
    let mut patterns = PATTERNS;
    rng.shuffle(&mut patterns);
    let (mut patterns, mut sid) = (patterns.into_iter(), 0);
    let mut steps = Vec::new();
    if LATE_ONES.contains(&user) && rng.u8(..4) > 0 {
        // Before that there would be no user of this name.
        steps.push(Step::WaitReloads { count: 1 });
    }
    for age in 0..AGES {
        if rng.u8(..4) > 0 {
            steps.push(Step::WaitReloads { count: age });
        }
        for pattern in patterns.by_ref().take(rng.usize(..3)) {
            steps.push(Step::Sub { sid, pattern, queue: None });
            sid += 1;
        }
        if user.ends_with("stays") && age == 0 && rng.bool() {
            let pattern = QUEUE_PATTERNS[rng.usize(..QUEUE_PATTERNS.len())];
            steps.push(Step::Sub { sid, pattern, queue: Some("g") });
            sid += 1;
        }
        steps.push(Step::Ping);
        if rng.bool() {
            steps.push(Step::Sync);
        }
        // The same subject several times in a row, so that it is known where messages go and who may send them.
        for _ in 0..rng.usize(1..4) {
            let subject = SUBJECTS[rng.usize(..SUBJECTS.len())];
            for _ in 0..rng.usize(1..5) {
                steps.push(Step::Pub { subject, bytes: rng.usize(..60) });
            }
        }
        if rng.bool() {
            steps.extend([Step::Ping, Step::Sync]);
        }
    }
    steps.push(Step::Ping);
    Plan { shard: rng.usize(..shards), user: Some(user), echo: true, pipe_bytes: PIPE_BYTES, steps, reaction: None }
}
