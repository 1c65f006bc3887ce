//! Writes and flushes that fail for a while: nothing is acknowledged until the disk is well again, what is there can be
//! read meanwhile, and everything acknowledged is there, once, at every later opening.
//!
//! Without a disk that fails when it is told to, the limit for the size of files takes its place, in a process of its
//! own: every write fails while it is zero.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use leat::store::Notice;

use super::content::options;
use super::disk::{self, Control};
use super::journal::Journal;
use super::life::Life;

const OWN_PROCESS: &str = "LEAT_STORAGE_OWN_PROCESS";
/// Messages that wait for their flush.
const WAITING_MAX: usize = 2000;

enum Switch {
    Control(Control),
    Limit,
}

impl Switch {
    fn fail(&mut self) {
        match self {
            Self::Control(control) => control.order("fail"),
            Self::Limit => limit_files(0),
        }
    }

    fn heal(&mut self) {
        match self {
            Self::Control(control) => control.order("heal"),
            Self::Limit => limit_files(libc::RLIM_INFINITY),
        }
    }
}

/// Sets how large this process may make a file.
fn limit_files(bytes: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: only the disposition of a signal is changed, and the limit is a value that outlives the call.
    let outcome = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit)
    };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn nothing_is_acknowledged_while_writes_fail() {
    if let (Some(control), Some(dir)) = (Control::connect(), disk::mounted()) {
        return fail_and_heal(&dir.join("store"), Switch::Control(control));
    }
    let temporary = tempfile::tempdir().unwrap();
    if std::env::var_os(OWN_PROCESS).is_some() {
        return fail_and_heal(&temporary.path().join("store"), Switch::Limit);
    }
    // A pipe takes its output: the limit is for files.
    let own = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::nothing_is_acknowledged_while_writes_fail", "--nocapture"])
        .env(OWN_PROCESS, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&own.stdout) + String::from_utf8_lossy(&own.stderr);
    println!("{output}");
    assert!(own.status.success() && output.contains("faults and cures"), "{output}");
}

fn fail_and_heal(dir: &Path, mut switch: Switch) {
    let (rounds, seed) = (disk::rounds(6), disk::seed());
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut life = Life::open(dir, options(), Journal::default());
    let mut unanswered = 0;
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        for _ in 0..rng.usize(1..40) {
            publish(&mut life, &mut rng);
            life.turn();
        }
        let quiet = rng.bool();
        if quiet {
            life.rest();
        }
        let told = life.face.notices.len();
        let before = life.proof();
        switch.fail();
        life.until("the fault is told", |life| {
            publish(life, &mut rng);
            life.told(told, |notice| matches!(notice, Notice::Faulted(_)))
        });
        assert!(!quiet || life.proof() == before, "{context}: acknowledged after the disk had failed");
        let proof = life.proof();
        // Some attempts with other segments fall into this time.
        let end = Instant::now() + Duration::from_millis(rng.u64(..2500));
        while Instant::now() < end {
            publish(&mut life, &mut rng);
            life.read(&mut rng, 3);
            life.turn();
            assert!(life.engine.store().log().fault().is_some(), "{context}: well while all writes fail");
            assert!(life.proof() == proof, "{context}: acknowledged while all writes fail");
        }
        unanswered = unanswered.max(life.waiting());
        switch.heal();
        if rng.u8(..3) == 0 {
            life = life.reopen(&context);
        } else {
            life.until("healed", |life| life.told(told, |notice| *notice == Notice::Healed));
            assert!(life.engine.store().log().fault().is_none(), "{context}");
            life.settle();
            life.read(&mut rng, 100);
        }
        let others = life.face.notices.iter().find(|notice| !matches!(notice, Notice::Faulted(_) | Notice::Healed));
        assert_eq!(others, None, "{context}");
        if rng.bool() {
            life = life.reopen(&context);
        }
    }
    let life = life.reopen(&format!("seed {seed}, at the end"));
    let stored = life.journal.stored.iter().map(std::collections::BTreeMap::len).sum::<usize>();
    println!("seed {seed}: {rounds} faults and cures, {stored} messages, up to {unanswered} waited for a cure");
    assert!(stored > 0);
}

fn publish(life: &mut Life, rng: &mut fastrand::Rng) {
    for _ in 0..rng.usize(1..30) {
        if life.engine.store().has_room() && life.waiting() < WAITING_MAX {
            life.publish(rng.usize(..2)).unwrap();
        }
    }
    if rng.u8(..20) == 0
        && let Some(seq) = life.any(rng, 0)
    {
        life.remove(0, seq);
    }
}
