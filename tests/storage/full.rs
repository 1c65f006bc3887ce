//! A disk without space: messages are refused, reads and removals go on, and messages are taken again by themselves as
//! soon as there is space, whoever has given it back. Nothing acknowledged is lost.
//!
//! Without a small disk, the most bytes that a log may have take its place.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use leat::store::{Notice, Options};
use leat::stream::Refusal;

use super::content::options;
use super::disk;
use super::journal::Journal;
use super::life::Life;

/// Where there is no small disk.
const BYTES_MAX: u64 = 16 << 20;

/// Publishes until messages are refused for want of space, and still are when nothing is under way.
fn fill(life: &mut Life, context: &str) {
    let mut refused = false;
    life.until(context, |life| {
        if life.waiting() > 500 || !life.engine.store().has_room() {
            return false;
        }
        for _ in 0..50 {
            match life.publish(0) {
                Ok(()) => refused = false,
                Err(Refusal::Full) if refused && life.waiting() == 0 => return life.engine.store().log().is_full(),
                Err(Refusal::Full) => {
                    refused = true;
                    break;
                }
                Err(other) => panic!("{context}: {other:?}"),
            }
            // Its limit makes room for its own; but that has to be cleaned first.
            assert!(matches!(life.publish(1), Ok(()) | Err(Refusal::Full)), "{context}");
        }
        false
    });
    assert!(life.told(0, |notice| *notice == Notice::Space { full: true }), "{context}: {:?}", life.face.notices);
}

/// What goes on while messages are refused.
fn live_with_it(life: &mut Life, rng: &mut fastrand::Rng) {
    life.read(rng, 200);
    // One by one: each is flushed before the next.
    for _ in 0..40 {
        if let Some(seq) = life.any(rng, 0) {
            life.remove(0, seq);
            life.settle();
        }
    }
    life.read(rng, 20);
}

/// Messages are taken again by and by, as space comes back, and acknowledged.
fn taken_again(life: &mut Life, context: &str) {
    life.until(context, |life| !life.engine.store().log().is_full());
    for name in [0, 1].repeat(100) {
        life.until(context, |life| life.publish(name).is_ok());
        life.settle();
    }
    life.until(context, |life| !life.engine.store().log().is_full());
}

fn fill_and_purge(dir: &Path, options: Options) {
    let (rounds, seed) = (disk::rounds(2), disk::seed());
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut life = Life::open(dir, options, Journal::default());
    let mut most = 0;
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        fill(&mut life, &context);
        most = most.max(life.journal.stored[0].len());
        live_with_it(&mut life, &mut rng);
        if rng.bool() {
            // What finds itself on a full disk has still all it needs to make room.
            for _ in 0..rng.usize(1..6) {
                life = life.reopen(&context);
                let _ = life.publish(0);
                life.settle();
            }
            fill(&mut life, &context);
        }
        life.purge();
        life.settle();
        taken_again(&mut life, &context);
        life = life.reopen(&context);
    }
    println!("seed {seed}: full {rounds} times, with {most} messages");
}

#[test]
fn messages_are_refused_until_there_is_space() {
    match disk::mounted() {
        Some(dir) => fill_and_purge(&dir.join("store"), options()),
        None => {
            let temporary = tempfile::tempdir().unwrap();
            let mut options = options();
            options.log.bytes_max = BYTES_MAX;
            fill_and_purge(&temporary.path().join("store"), options);
        }
    }
}

#[test]
#[ignore = "needs a small disk, see tools/storage-faults.py"]
fn another_file_takes_all_space_and_is_removed() {
    let dir = disk::mounted().unwrap();
    let (rounds, seed) = (disk::rounds(2), disk::seed());
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut life = Life::open(&dir.join("other"), options(), Journal::default());
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        for name in [0, 1].repeat(rng.usize(1..100)) {
            life.publish(name).unwrap();
        }
        life.settle();
        take_space(&dir.join("foreign"));
        fill(&mut life, &context);
        live_with_it(&mut life, &mut rng);
        if rng.bool() {
            life = life.reopen(&context);
            fill(&mut life, &context);
        }
        std::fs::remove_file(dir.join("foreign")).unwrap();
        taken_again(&mut life, &context);
        life.purge();
        life.settle();
        life = life.reopen(&context);
    }
    println!("seed {seed}: full {rounds} times by another file");
}

/// Writes until there is no space.
fn take_space(path: &Path) {
    let mut file = File::create(path).unwrap();
    for bytes in [1 << 20, 4096, 1] {
        loop {
            match file.write(&vec![0xA5; bytes]) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    file.sync_all().unwrap();
}
