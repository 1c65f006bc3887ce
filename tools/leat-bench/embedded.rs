//! A broker of our own for the length of the run: started on a free port, stopped at the end whatever happens.
//!
//! The only place that knows how the broker is started. It runs as a process of its own, so that its CPU time and
//! memory are measured exactly as those of any other server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use crate::args::Options;
use crate::failure::{Failure, Outcome};
use crate::sys;
use crate::units::{CpuList, ServerUrl};

/// Longest wait for the broker to listen.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// Longest wait for the broker to end after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Process to be ended if this program panics; 0 for none. Release builds abort on panic, so `Drop` is not enough.
static RUNNING: AtomicU32 = AtomicU32::new(0);

/// A running broker.
pub(crate) struct Embedded {
    child: Child,
    directory: PathBuf,
    /// Where it listens.
    pub(crate) url: ServerUrl,
}

/// The file that announces where a broker listens.
#[derive(Deserialize)]
struct Ports {
    #[serde(default)]
    nats: Vec<String>,
}

impl Embedded {
    /// Starts this program again as a broker and waits until it listens.
    pub(crate) fn start(options: &Options) -> Outcome<Embedded> {
        let program = std::env::current_exe().map_err(Failure::during("cannot find this program's own file"))?;
        let directory =
            std::env::temp_dir().join(format!("leat-bench-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        let ports = directory.join("ports");
        let failed = |error| Failure::new(format!("cannot make {}: {error}", ports.display()));
        fs::create_dir_all(&ports).map_err(failed)?;
        let child = spawn_on(&cpus(options)?, &program, &ports, options)?;
        end_with_this_program(child.id());
        let mut embedded = Embedded { child, directory, url: options.url.clone() };
        embedded.url = embedded.await_ports(&ports)?;
        Ok(embedded)
    }

    /// The broker's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn await_ports(&mut self, ports: &Path) -> Outcome<ServerUrl> {
        let pid = self.child.id();
        let candidates = [format!("leat_{pid}.ports"), format!("nats-server_{pid}.ports")];
        let until = sys::now_ns() + START_PATIENCE.as_nanos() as u64;
        while sys::now_ns() < until {
            let text = candidates.iter().find_map(|name| fs::read(ports.join(name)).ok());
            // A file that is still being written does not parse yet.
            if let Some(ports) = text.and_then(|text| serde_json::from_slice::<Ports>(&text).ok()) {
                let url = ports.nats.first().ok_or_else(|| Failure::new("the broker listens on no NATS port"))?;
                return url.parse().map_err(|error| Failure::new(format!("the broker's address: {error}")));
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let reason = why_it_ended(&log);
                return Err(Failure::new(format!("the broker ended at once ({status}): {reason}")));
            }
            if sys::stop_asked() {
                return Err(Failure::new("interrupted"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(Failure::new("the broker does not announce where it listens"))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        sys::terminate(self.child.id());
        let until = sys::now_ns() + STOP_PATIENCE.as_nanos() as u64;
        while matches!(self.child.try_wait(), Ok(None)) {
            if sys::now_ns() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        RUNNING.store(0, Relaxed);
        // Only what was made at the start; nothing of the user's is in there.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The line of a log that looks most like a reason: a fatal one, else the first one.
fn why_it_ended(log: &str) -> &str {
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let fatal = lines.clone().find(|line| ["[FTL]", "fatal", "error:"].iter().any(|word| line.contains(word)));
    fatal.or_else(|| lines.next()).unwrap_or("no output")
}

/// The CPUs for the broker; empty for all.
fn cpus(options: &Options) -> Outcome<Vec<usize>> {
    match options.embedded_cpus.as_deref() {
        Some("all") => Ok(Vec::new()),
        Some(list) => Ok(list.parse::<CpuList>().map_err(|error| Failure::new(format!("--embedded-cpus: {error}")))?.0),
        None => {
            let allowed = sys::allowed_cpus();
            Ok(if allowed.len() > 1 { vec![allowed[0]] } else { Vec::new() })
        }
    }
}

/// The CPU for the load where the user has not said: the one after the broker's.
pub(crate) fn default_load_cpu(options: &Options) -> Option<CpuList> {
    let allowed = sys::allowed_cpus();
    let free = options.embedded_cpus.is_none() && allowed.len() > 1;
    free.then(|| CpuList(vec![allowed[1]]))
}

/// Spawns the broker. A child inherits the affinity of the thread that starts it, so a thread of its own is pinned.
fn spawn_on(cpus: &[usize], program: &Path, ports: &Path, options: &Options) -> Outcome<Child> {
    let log = fs::File::create(ports.with_file_name("log"))?;
    let mut command = Command::new(program);
    command
        .arg(crate::BROKER)
        .args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir"])
        .arg(ports)
        .args(options.embedded_args.iter().flat_map(|args| args.split_ascii_whitespace()))
        .current_dir(ports.with_file_name(""))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let spawn = move || {
        if !cpus.is_empty() {
            sys::pin(cpus).map_err(Failure::during("cannot pin the broker"))?;
        }
        command.spawn().map_err(Failure::during(format_args!("cannot start {}", program.display())))
    };
    thread::scope(|scope| scope.spawn(spawn).join()).map_err(|_| Failure::new("the starting thread panicked"))?
}

/// Sees to it that a panic ends the broker too.
fn end_with_this_program(pid: u32) {
    RUNNING.store(pid, Relaxed);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        match RUNNING.load(Relaxed) {
            0 => {}
            pid => sys::terminate(pid),
        }
        usual(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_in_the_log() {
        assert_eq!(why_it_ended("[INF] start\n[FTL] port in use\n"), "[FTL] port in use");
        assert_eq!(why_it_ended("\n  unknown flag -x\nUsage: …\n"), "unknown flag -x");
        assert_eq!(why_it_ended(""), "no output");
    }
}
