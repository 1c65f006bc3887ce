//! A process that publishes is killed at any moment: everything it has acknowledged is there, unchanged, and what it has
//! removed stays removed.
//!
//! `LEAT_KILL_ROUNDS=1000 LEAT_KILL_SEED=7 cargo test --release --test storage kill -- --nocapture` is a long run;
//! `LEAT_KILL_DIR` puts the store on another file system. The journal is kept here, in the memory of the parent.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use leat::io::engine::now;
use leat::log::recover::Repair;
use leat::log::{Pending, Waiting};
use leat::stream::Purge;

use super::content::{Face, LIMIT, get, message, open, publish, state, streams};

const CHILD_DIR: &str = "LEAT_KILL_CHILD_DIR";
const CHILD_SEED: &str = "LEAT_KILL_CHILD_SEED";
/// Messages of the first stream that stay when a child begins.
const KEPT: u64 = 500;

/// What the child has told.
#[derive(Debug, Default)]
struct Journal {
    /// Acknowledged: checksums of payloads, by stream and number.
    stored: [BTreeMap<u64, u32>; 2],
    /// Acknowledged removals.
    removed: [BTreeSet<u64>; 2],
    /// Everything below has been purged from the first stream, and that was acknowledged.
    purged: u64,
    /// What the child of the present life has begun to remove.
    removing: [BTreeSet<u64>; 2],
    purging: bool,
}

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
            } else if let Some((seq, after)) = publish(&mut engine, streams[name], name) {
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

impl Journal {
    /// Reads lines until there are `lines` of them or the child has ended. What is cut off at the end was not told.
    fn read(&mut self, from: &mut BufReader<UnixStream>, lines: usize) -> usize {
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
                "store" => drop(self.stored[name].insert(seq, checksum as u32)),
                "remove" => drop(self.removed[name].insert(seq)),
                "purge" => self.purged = seq,
                "removing" => drop(self.removing[name].insert(seq)),
                "purging" => self.purging = true,
                _ => assert_eq!(what, "ready"),
            }
        }
        lines
    }

    /// Compares a store with what was acknowledged, and notes what has survived beyond that.
    fn verify(&mut self, dir: &Path, context: &str) -> Vec<Repair> {
        let (mut engine, report) = open(dir);
        let mut face = Face::default();
        let streams = streams(&mut engine);
        for (name, of) in streams.into_iter().enumerate() {
            let state = state(&mut engine, &mut face, of);
            let last = self.stored[name].last_key_value().map_or(0, |(seq, _)| *seq);
            assert!(state.last_seq >= last, "{context}: stream {name} ends at {}, not at {last}", state.last_seq);
            let mut there = BTreeSet::new();
            for seq in state.first_seq..=state.last_seq {
                let Some(found) = get(&mut engine, &mut face, of, seq) else { continue };
                assert!(found == message(name, seq), "{context}: message {seq} of stream {name} has changed");
                let checksum = crc32fast::hash(&found.1);
                let journal = *self.stored[name].entry(seq).or_insert(checksum);
                assert_eq!(checksum, journal, "{context}: message {seq} of stream {name}");
                there.insert(seq);
            }
            let stream = engine.store().stream(of).unwrap();
            let lost = (state.first_seq..=state.last_seq).filter(|seq| !there.contains(seq));
            let lost = lost.filter_map(|seq| Some((seq, stream.place_of(seq)?))).collect::<Vec<_>>();
            assert!(
                lost.is_empty(),
                "{context}: stream {name} does not give what it has: {lost:?}, {:?}",
                face.notices
            );
            assert_eq!(state.messages, there.len() as u64, "{context}: stream {name}");
            assert!(name == 0 || state.messages <= LIMIT, "{context}: {} messages", state.messages);
            let back = there.iter().find(|seq| self.removed[name].contains(seq) || name == 0 && **seq < self.purged);
            assert_eq!(back, None, "{context}: what was removed from stream {name} is there again");
            for seq in self.stored[name].keys().filter(|seq| !there.contains(seq)) {
                let newer = state.last_seq - seq;
                let may_be_gone = match name {
                    0 => self.purging && *seq < state.first_seq && newer >= KEPT,
                    _ => newer >= LIMIT,
                };
                let may_be_gone = may_be_gone || self.removed[name].contains(seq) || self.removing[name].contains(seq);
                assert!(may_be_gone, "{context}: message {seq} of stream {name} is gone");
            }
            self.stored[name].retain(|seq, _| there.contains(seq));
            self.removing[name].clear();
        }
        self.purging = false;
        assert!(face.notices.is_empty(), "{context}: {:?}", face.notices);
        assert!(report.senseless == 0 && !report.repairs.iter().any(Repair::is_damage), "{context}: {report:?}");
        report.repairs
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("LEAT_KILL_ROUNDS").unwrap_or(8);
    let seed = number("LEAT_KILL_SEED").unwrap_or_else(|| fastrand::u64(..));
    let temporary = tempfile::tempdir().unwrap();
    let dir = std::env::var_os("LEAT_KILL_DIR").map_or_else(|| temporary.path().join("store"), PathBuf::from);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut journal = Journal::default();
    let (mut repairs, mut lines) = (BTreeMap::<String, u32>::new(), 0);
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        let (mut child, mut from) = start(&dir, rng.u64(..));
        if rng.u8(..4) == 0 {
            // Perhaps before it has opened the store.
            std::thread::sleep(Duration::from_micros(rng.u64(..60_000)));
        } else {
            let acknowledged = rng.usize(1..6000);
            lines += journal.read(&mut from, acknowledged);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines += journal.read(&mut from, usize::MAX);
        for repair in journal.verify(&dir, &context) {
            let kind = format!("{repair:?}");
            *repairs.entry(kind.split([' ', '{']).next().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    println!("seed {seed}: {rounds} kills, {lines} acknowledgements, repairs: {repairs:?}");
    assert!(lines > 0, "nothing was acknowledged");
}
