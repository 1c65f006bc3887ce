//! A process that publishes ends at any moment, because it is killed or because power fails: everything it has
//! acknowledged is there, unchanged, and what it has removed stays removed. The journal is kept in the memory of the
//! parent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use leat::io::engine::now;
use leat::log::{Pending, Waiting};
use leat::stream::Purge;

use super::content::{Face, message, open, options, publish, streams};
use super::disk::{self, Control};
use super::journal::{Journal, KEPT};

const CHILD_DIR: &str = "LEAT_KILL_CHILD_DIR";
const CHILD_SEED: &str = "LEAT_KILL_CHILD_SEED";

/// What becomes final with a flush, as the line that tells of it.
struct Told(String);

/// Not a test by itself: the process that is killed. Its journal goes to standard input, which is a socket.
#[test]
fn child_of_the_kill_loop() {
    let (Some(dir), Ok(seed)) = (std::env::var_os(CHILD_DIR), std::env::var(CHILD_SEED)) else { return };
    let journal = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut journal = std::io::LineWriter::new(journal);
    let mut rng = fastrand::Rng::with_seed(seed.parse().unwrap());
    let (mut engine, _) = open(Path::new(&dir));
    let mut face = Face::default();
    let mut waiting: Waiting<Told> = Waiting::default();
    let streams = streams(&mut engine);
    writeln!(journal, "purging 0 0 0").unwrap();
    let purge = Purge { keep: KEPT, ..Default::default() };
    let (below, after) = super::content::ask(&mut engine, &mut face, |engine| {
        match engine.store_mut().purge(now(), streams[0], &purge) {
            Ok(leat::stream::Purged::Done { after, .. }) => {
                Some((engine.store().stream(streams[0]).unwrap().first_seq(), after))
            }
            _ => None,
        }
    });
    waiting.push(after, Told(format!("purge 0 {below} 0")));
    writeln!(journal, "ready 0 0 0").unwrap();
    // How many publishes wait differs from life to life.
    let per_turn = [1, 10, 200][rng.usize(..3)];
    loop {
        for _ in 0..rng.usize(..=per_turn) {
            let name = rng.usize(..2);
            if rng.u8(..30) == 0 {
                let stream = engine.store().stream(streams[name]).unwrap();
                let seq = rng.u64(stream.first_seq()..=stream.last_seq().max(stream.first_seq()));
                writeln!(journal, "removing {name} {seq} 0").unwrap();
                if let Ok(after) = engine.store_mut().remove(now(), streams[name], seq) {
                    waiting.push(after, Told(format!("remove {name} {seq} 0")));
                }
            } else if let Ok((seq, after)) = publish(&mut engine, streams[name], name) {
                assert!(after != Pending::NONE, "a publish waits for its flush");
                let checksum = crc32fast::hash(&message(name, seq).1);
                waiting.push(after, Told(format!("store {name} {seq} {checksum}")));
            }
        }
        let next = engine.turn(&mut face).unwrap();
        for told in face.proof.iter().flat_map(|proof| waiting.release(proof).collect::<Vec<_>>()) {
            if writeln!(journal, "{}", told.0).is_err() {
                return;
            }
        }
        if waiting.len() > 4 * per_turn || rng.u8(..4) == 0 {
            engine.wait(next, Some(Duration::from_millis(20))).unwrap();
        }
    }
}

fn start(dir: &Path, seed: u64) -> (Child, BufReader<UnixStream>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child_of_the_kill_loop", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .env(CHILD_SEED, seed.to_string())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (child, BufReader::new(ours))
}

/// Reads lines until there are `lines` of them or the child has ended. What is cut off at the end was not told.
fn read(journal: &mut Journal, from: &mut BufReader<UnixStream>, lines: usize) -> usize {
    let mut line = String::new();
    for count in 0..lines {
        line.clear();
        if from.read_line(&mut line).unwrap_or(0) == 0 || !line.ends_with('\n') {
            return count;
        }
        let mut words = line.split_whitespace();
        let what = words.next().unwrap();
        let numbers = words.map(|word| word.parse::<u64>().unwrap()).collect::<Vec<_>>();
        let [name, seq, checksum] = numbers[..] else { panic!("{line}") };
        let name = name as usize;
        match what {
            "store" => drop(journal.stored[name].insert(seq, checksum as u32)),
            "remove" => drop(journal.removed[name].insert(seq)),
            "purge" => journal.purged = seq,
            "removing" => drop(journal.removing[name].insert(seq)),
            "purging" => journal.purging = true,
            _ => assert_eq!(what, "ready"),
        }
    }
    lines
}

/// Lives of a child on one store. `end` ends a child, and when it returns the store can be opened again.
fn lives(dir: &Path, mut end: impl FnMut(&mut fastrand::Rng, &mut Child)) {
    let (rounds, seed) = (disk::rounds(8), disk::seed());
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut journal = Journal::default();
    let (mut repairs, mut lines) = (BTreeMap::<String, u32>::new(), 0);
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        let (mut child, mut from) = start(dir, rng.u64(..));
        if rng.u8(..4) == 0 {
            // Perhaps before it has opened the store.
            std::thread::sleep(Duration::from_micros(rng.u64(..60_000)));
        } else {
            let acknowledged = rng.usize(1..6000);
            lines += read(&mut journal, &mut from, acknowledged);
        }
        end(&mut rng, &mut child);
        lines += read(&mut journal, &mut from, usize::MAX);
        for repair in journal.verify(dir, options(), &context) {
            let kind = format!("{repair:?}");
            *repairs.entry(kind.split([' ', '{']).next().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    println!("seed {seed}: {rounds} lives, {lines} acknowledgements, repairs: {repairs:?}");
    assert!(lines > 0, "nothing was acknowledged");
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = disk::mounted().unwrap_or_else(|| temporary.path().to_owned()).join("store");
    lives(&dir, |_, child| kill(child));
}

#[test]
#[ignore = "needs a disk with a volatile cache, see tools/storage-faults.py"]
fn nothing_acknowledged_is_lost_when_power_fails() {
    let (mut control, dir) = (Control::connect().unwrap(), disk::mounted().unwrap().join("store"));
    lives(&dir, |rng, child| {
        // What the next one finds after a kill was perhaps never flushed, and must be before it is told to anybody.
        if rng.u8(..4) == 0 {
            return kill(child);
        }
        control.order("cut");
        // Nothing that it tells now can be true.
        std::thread::sleep(Duration::from_millis(rng.u64(..50)));
        kill(child);
        control.order("restore");
    });
}
