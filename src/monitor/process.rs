//! Memory, processor time and open files of this process, as `/varz` and `/streaming/serverz` show them.
#![forbid(unsafe_code)]

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::host::sys::{self, Resource, UNLIMITED};

/// Processor load is the mean since a sample that is at least this old.
const SAMPLE_AGE_MIN: Duration = Duration::from_secs(1);

/// Remembers the last sample of processor time.
#[derive(Debug)]
pub(super) struct ProcessUsage {
    last: Mutex<Sample>,
    page_bytes: u64,
    ticks_per_second: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    ticks: u64,
    percent: f64,
}

impl ProcessUsage {
    pub(super) fn start() -> Self {
        let first = Sample { at: Instant::now(), ticks: read_ticks().unwrap_or(0), percent: 0.0 };
        Self { last: Mutex::new(first), page_bytes: sys::page_bytes(), ticks_per_second: sys::ticks_per_second() }
    }

    /// Resident bytes.
    pub(super) fn memory(&self) -> u64 {
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        resident_pages(&statm).unwrap_or(0) * self.page_bytes
    }

    /// Percent of one processor used lately; 200 means two processors.
    pub(super) fn processor_percent(&self) -> f64 {
        // A panic while the lock is held leaves a usable sample behind.
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let age = last.at.elapsed();
        if age >= SAMPLE_AGE_MIN
            && let Some(ticks) = read_ticks()
        {
            let seconds = ticks.saturating_sub(last.ticks) as f64 / self.ticks_per_second as f64;
            let percent = (100.0 * seconds / age.as_secs_f64()).round();
            *last = Sample { at: last.at + age, ticks, percent };
        }
        last.percent
    }
}

/// Open files of this process, sockets included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Descriptors {
    /// How many are open; `None` if that cannot be known.
    pub(super) open: Option<u64>,
    /// How many may be; `None` without a limit.
    pub(super) max: Option<u64>,
}

impl Descriptors {
    pub(super) fn of_this_process() -> Self {
        let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count() as u64);
        let limit = sys::limit(Resource::OpenFiles).map(|limit| limit.soft);
        Self { open: open.ok(), max: limit.ok().filter(|limit| *limit != UNLIMITED) }
    }
}

fn read_ticks() -> Option<u64> {
    processor_ticks(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// User and system time: fields 14 and 15, counted after the name in parentheses, which may contain anything.
fn processor_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files() {
        assert_eq!(resident_pages("6100 1500 900 3 0 700 0\n"), Some(1500));
        assert_eq!(resident_pages(""), None);
        let stat = "77 (a) b (c)) S 1 77 77 0 -1 4194560 500 0 0 0 120 30 0 0 20 0 5 0 1000 1 1";
        assert_eq!(processor_ticks(stat), Some(150));
        assert_eq!(processor_ticks("77 (x) S 1 2"), None);
    }

    /// This process has at least standard output and the directory that is read.
    #[test]
    fn this_process_has_open_files() {
        let Descriptors { open, max } = Descriptors::of_this_process();
        let open = open.expect("there is a list of them");
        assert!(open >= 2 && max.is_none_or(|max| open <= max), "{open} of {max:?}");
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = ProcessUsage::start();
        assert!(usage.memory() > 1 << 16);
        assert!(usage.processor_percent() < 0.5, "no second has passed yet");
    }
}
