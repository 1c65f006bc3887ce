//! What storing and reading cost, on the file system of `LEAT_BENCH_DIR` (else of the target directory).
//!
//! `cargo bench --bench storage` measures, with `-- flushed` behind it only what has `flushed` in its name. Work on the
//! disk is compared with the bare minimum in alternating rounds: a *prototype* that copies as many bytes into a buffer,
//! sums them up, and writes and flushes them to a zero-filled file through an io_uring like the store's; or `fio`, if
//! it is installed. Figures and ratios are medians of rounds; a machine that does something else besides spoils both.
//! Takes some minutes and 2 GiB.
//!
//! Without `--bench` (`cargo test --all-targets`) everything runs in small, to show that it still works.

#![allow(clippy::unwrap_used, reason = "whatever goes wrong here ends the measurement")]

mod storage {
    pub(crate) mod bare;
    pub(crate) mod memory;
    pub(crate) mod work;
}

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use leat::io::engine::{Engine, now};
use storage::bare::{Prototype, fio};
use storage::memory::allocated;
use storage::work::{Face, Flood, SMALL, create, publish_all, replay};

/// An argument by which this program starts itself as the process that is killed.
const VICTIM: &str = "--victim";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == VICTIM) {
        let [_, path, count, subjects] = &args[..] else { panic!("{args:?}") };
        return victim(Path::new(path), count.parse().unwrap(), subjects.parse().unwrap());
    }
    let measures = args.iter().any(|arg| arg == "--bench");
    let only = args.into_iter().find(|arg| !arg.starts_with('-'));
    let base = std::env::var_os("LEAT_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let dir = tempfile::Builder::new().prefix("storage").tempdir_in(base).unwrap();
    let bench = Bench { dir: dir.path().to_owned(), measures, only };
    bench.flushed_appends();
    bench.large_writes();
    bench.latency_beside_a_flood();
    bench.opening_and_replay();
}

struct Bench {
    dir: PathBuf,
    /// Whether to measure or only to run.
    measures: bool,
    /// Leaves out what has not this in its name.
    only: Option<String>,
}

impl Bench {
    /// An empty place for something with that name, if it is wanted.
    fn place(&self, name: &str) -> Option<PathBuf> {
        let wanted = self.only.as_ref().is_none_or(|only| name.contains(only));
        wanted.then(|| {
            let path = self.dir.join(name.replace([' ', ',', '/'], "-"));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir(&path).unwrap();
            path
        })
    }

    fn in_small<T>(&self, large: T, small: T) -> T {
        if self.measures { large } else { small }
    }

    fn print(&self, name: &str, figures: &str) {
        if self.measures {
            println!("{name:<44} {figures}");
        }
    }

    fn flushed_appends(&self) {
        for (waiting, goal) in [(1, 0.85), (256, 0.8), (4096, 0.7)] {
            let name = format!("flushed appends, {waiting} waiting");
            let Some(path) = self.place(&name) else { continue };
            let (mut engine, _) = Engine::open(&path.join("store"), Default::default()).unwrap();
            let mut face = Face::default();
            let mut prototype = Prototype::new(&path.join("prototype"), self.in_small(128 << 20, 4 << 20)).unwrap();
            let round = self.in_small(Duration::from_millis(800), Duration::from_millis(20));
            let (mut ours, mut bare) = (Vec::new(), Vec::new());
            for _ in 0..self.in_small(7, 1) {
                let of = create(&mut engine, None);
                ours.push(publish_all(&mut engine, &mut face, of, &SMALL, waiting, round));
                // Its segments serve the next one, as those of a stream with limits do in the long run.
                engine.store_mut().delete_stream(now(), of, &mut face).unwrap();
                engine.run(&mut face, |engine, _| engine.store().log().is_at_rest()).unwrap();
                bare.push(prototype.run(waiting, round).unwrap());
            }
            let (ours, bare) = (median(ours), median(bare));
            let figures = format!("{ours:>10.0} /s  {bare:>10.0} /s bare  ratio {:.2} (goal {goal})", ours / bare);
            self.print(&name, &figures);
            engine.stop(&mut face).unwrap();
            std::fs::remove_dir_all(path).unwrap();
        }
    }

    fn large_writes(&self) {
        let name = "sequential write, 64 KiB";
        let Some(path) = self.place(name) else { return };
        let payload = vec![7; 64 << 10];
        let count = self.in_small(12_000, 40);
        let (mut ours, mut raw) = (Vec::new(), Vec::new());
        for _ in 0..self.in_small(3, 1) {
            let store = path.join("store");
            let (mut engine, _) = Engine::open(&store, Default::default()).unwrap();
            let mut face = Face::default();
            let of = create(&mut engine, None);
            let begin = Instant::now();
            face.publish_count(&mut engine, of, &payload, 256, count);
            ours.push(count as f64 * payload.len() as f64 / begin.elapsed().as_secs_f64() / 1e6);
            engine.stop(&mut face).unwrap();
            std::fs::remove_dir_all(&store).unwrap();
            raw.extend(self.measures.then(|| fio(&path, "write", "1M")).flatten());
        }
        self.compare(name, median(ours), raw, 0.7);
        std::fs::remove_dir_all(path).unwrap();
    }

    fn compare(&self, name: &str, ours: f64, raw: Vec<f64>, goal: f64) {
        let against = match raw.is_empty() {
            true => "fio is not installed".to_owned(),
            false => {
                let raw = median(raw);
                format!("{raw:>10.0} MB/s fio   ratio {:.2} (goal {goal})", ours / raw)
            }
        };
        self.print(name, &format!("{ours:>10.0} MB/s  {against}"));
    }

    fn latency_beside_a_flood(&self) {
        let name = "flush latency beside 200 MB/s";
        let Some(path) = self.place(name) else { return };
        let (mut engine, _) = Engine::open(&path.join("store"), Default::default()).unwrap();
        let mut face = Face::default();
        let single = create(&mut engine, None);
        let flooded = create(&mut engine, Some(256 << 20));
        let time = self.in_small(Duration::from_secs(3), Duration::from_millis(50));
        let mut rows = Vec::new();
        for rate in [0, 200_000_000, 0, 200_000_000] {
            let mut flood = Flood::new(flooded, rate);
            let histogram = flood.beside(&mut engine, &mut face, single, time);
            let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
            let rate = flood.sent() as f64 / time.as_secs_f64() / 1e6;
            let name = format!("flush latency beside {rate:.0} MB/s");
            self.print(
                &name,
                &format!("p50 {:>6.0} us  p99 {:>6.0} us  p99.9 {:>6.0} us", at(0.5), at(0.99), at(0.999)),
            );
            rows.push(at(0.99));
        }
        let ratio = (rows[1] + rows[3]) / (rows[0] + rows[2]);
        self.print(name, &format!("p99 is {ratio:.1} times that of idle (goal 5)"));
        engine.stop(&mut face).unwrap();
        std::fs::remove_dir_all(path).unwrap();
    }

    fn opening_and_replay(&self) {
        let count = self.in_small(5_000_000, 20_000);
        for (subjects, goal) in [(1, 8), (self.in_small(1_000_000, 4_000), 120)] {
            let name = format!("opening, {count} messages, subjects {subjects}");
            let Some(path) = self.place(&name) else { continue };
            let store = path.join("store");
            self.kill_victim(&store, count, subjects);
            let disk = du(&store) as f64 / 1e6;
            let (seconds, engine, memory) = open(&store);
            self.print(&name, &format!("{seconds:.3} s after kill -9 (goal 0.5), {disk:.0} MB on disk (goal 800)"));
            self.print(&name, &format!("{:.1} MiB of memory (goal {goal})", memory as f64 / 1048576.0));
            let mut face = Face::default();
            engine.stop(&mut face).unwrap();
            let (seconds, engine, memory) = open(&store);
            self.print(&name, &format!("{seconds:.3} s after a clean stop (goal 0.2)"));
            self.print(&name, &format!("{:.1} MiB of memory (goal {goal})", memory as f64 / 1048576.0));
            drop(engine);
            if subjects == 1 {
                self.replay(&store, count, SMALL.len());
            }
            std::fs::remove_dir_all(path).unwrap();
        }
        let name = "sequential replay, 64 KiB";
        let Some(path) = self.place(name) else { return };
        let store = path.join("store");
        let (mut engine, _) = Engine::open(&store, Default::default()).unwrap();
        let mut face = Face::default();
        let (payload, count) = (vec![7; 64 << 10], self.in_small(12_000, 40));
        let of = create(&mut engine, None);
        face.publish_count(&mut engine, of, &payload, 256, count);
        engine.stop(&mut face).unwrap();
        self.replay(&store, count, payload.len());
        std::fs::remove_dir_all(path).unwrap();
    }

    /// Reads everything through a consumer, from a store that has just been opened.
    fn replay(&self, store: &Path, count: u64, payload: usize) {
        let (mut rates, mut raw) = (Vec::new(), Vec::new());
        for _ in 0..self.in_small(3, 1) {
            let (_, mut engine, _) = open(store);
            rates.push(count as f64 / replay(&mut engine, count, payload).as_secs_f64());
            raw.extend(self.measures.then(|| fio(store.parent().unwrap(), "read", "64k")).flatten());
        }
        let rate = median(rates);
        let name = format!("sequential replay, {payload} B");
        if payload == SMALL.len() {
            self.print(&name, &format!("{:.2} M messages/s (goal 3)", rate / 1e6));
        }
        self.compare(&name, rate * payload as f64 / 1e6, raw, 0.7);
    }

    /// Has another process fill a store, and kills it when everything is acknowledged.
    fn kill_victim(&self, store: &Path, count: u64, subjects: u64) {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .arg(VICTIM)
            .arg(store)
            .args([count.to_string(), subjects.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(victim.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "filled\n");
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
}

/// Fills a store and goes on until it is killed.
fn victim(path: &Path, count: u64, subjects: u64) {
    let (mut engine, _) = Engine::open(path, Default::default()).unwrap();
    let mut face = Face::with_subjects(subjects);
    let of = create(&mut engine, None);
    let begin = Instant::now();
    face.publish_count(&mut engine, of, &SMALL, 4096, count);
    eprintln!("filled at {:.2} M messages/s", count as f64 / begin.elapsed().as_secs_f64() / 1e6);
    println!("filled");
    engine.run(&mut face, |_, _| false).unwrap();
}

/// Opens a store; how long that took, and the memory that it took.
fn open(store: &Path) -> (f64, Engine, usize) {
    let before = allocated();
    let begin = Instant::now();
    let (engine, report) = Engine::open(store, Default::default()).unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    assert!(!report.repairs.iter().any(leat::log::recover::Repair::is_damage), "{report:?}");
    (seconds, engine, allocated() - before)
}

fn du(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| if e.path().is_dir() { du(&e.path()) } else { e.metadata().unwrap().blocks() * 512 }).sum()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
