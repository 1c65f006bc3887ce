//! What the kernel tells about the server's process: CPU time at the finest resolution there is, and memory.

use std::fs;

use crate::failure::{Failure, Outcome};
use crate::sys;

/// Reads one process's figures.
#[derive(Clone, Debug)]
pub(crate) struct ProcessProbe {
    pid: u32,
    source: CpuSource,
}

/// Where CPU time comes from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CpuSource {
    /// The process's CPU clock: nanoseconds, threads that have ended included.
    Clock,
    /// `/proc/<pid>/task/*/schedstat`: nanoseconds, living threads.
    Schedstat,
    /// `/proc/<pid>/stat`: ticks, usually 10 ms.
    Ticks,
}

impl ProcessProbe {
    /// Checks that the process exists and how its CPU time can be read.
    pub(crate) fn new(pid: u32) -> Outcome<ProcessProbe> {
        // The clock interface takes 0 for the caller and wraps around for impossible numbers.
        let exists = fs::exists(format!("/proc/{pid}")).unwrap_or(false);
        let sources = [CpuSource::Clock, CpuSource::Schedstat, CpuSource::Ticks];
        for source in sources.into_iter().filter(|_| exists) {
            let probe = ProcessProbe { pid, source };
            if probe.cpu_ns().is_ok() {
                return Ok(probe);
            }
        }
        Err(Failure::new(format!("no process {pid}, or its CPU time cannot be read")))
    }

    /// CPU time so far, user and system, all threads.
    pub(crate) fn cpu_ns(&self) -> Outcome<u64> {
        let time = match self.source {
            CpuSource::Clock => sys::process_cpu_ns(self.pid),
            CpuSource::Schedstat => self.schedstat_ns(),
            CpuSource::Ticks => fs::read_to_string(format!("/proc/{}/stat", self.pid))
                .ok()
                .and_then(|stat| parse_stat_ticks(&stat))
                .map(|ticks| ticks * 10_000_000),
        };
        time.ok_or_else(|| Failure::new(format!("process {} has ended", self.pid)))
    }

    /// The name of the CPU time source, for reports.
    pub(crate) fn source_name(&self) -> &'static str {
        match self.source {
            CpuSource::Clock => "process CPU clock",
            CpuSource::Schedstat => "schedstat",
            CpuSource::Ticks => "stat ticks",
        }
    }

    /// Resident memory.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid)).ok()?;
        parse_statm(&statm)
    }

    fn schedstat_ns(&self) -> Option<u64> {
        let mut total = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid)).ok()? {
            // A thread may end between the listing and the reading.
            if let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) {
                total += parse_schedstat(&text)?;
            }
        }
        Some(total)
    }
}

/// CPU time that all CPUs have been busy so far, in nanoseconds; ticks of 10 ms.
pub(crate) fn machine_cpu_ns() -> Option<u64> {
    parse_machine_ticks(&fs::read_to_string("/proc/stat").ok()?).map(|ticks| ticks * 10_000_000)
}

/// user + nice + system + irq + softirq + steal of the first line.
fn parse_machine_ticks(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = fields.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    Some(fields.get(..3)?.iter().sum::<u64>() + fields.get(5..8)?.iter().sum::<u64>())
}

/// Resident memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// All resident bytes.
    pub(crate) resident_bytes: u64,
}

fn parse_statm(statm: &str) -> Option<Memory> {
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Memory { resident_bytes: pages * 4096 })
}

fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// utime + stime; the command name may hold blanks and parentheses.
fn parse_stat_ticks(stat: &str) -> Option<u64> {
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(parse_stat_ticks(stat), Some(300));
        assert_eq!(parse_stat_ticks("garbage"), None);
        assert_eq!(parse_machine_ticks("cpu  1 2 4 1000 2000 8 16 32 0 0\ncpu0 1"), Some(63));
        assert_eq!(parse_machine_ticks("intr 5"), None);
        assert_eq!(parse_schedstat("123456789 5 6\n"), Some(123_456_789));
        assert_eq!(parse_statm("100 25 5 1 0 9 0\n"), Some(Memory { resident_bytes: 25 * 4096 }));
    }

    #[test]
    fn this_process_can_be_read_by_every_source() {
        for source in [CpuSource::Clock, CpuSource::Schedstat, CpuSource::Ticks] {
            let probe = ProcessProbe { pid: std::process::id(), source };
            assert!(probe.cpu_ns().is_ok(), "{source:?}");
        }
        assert!(ProcessProbe::new(u32::MAX >> 1).is_err());
        assert!(ProcessProbe::new(0).is_err());
    }
}
