//! Start-up checks: what the machine must offer before shards are started.
//!
//! Owns the questions put to the kernel and the one-line remedies. [`prepare`] runs once, on the main thread, before
//! any other thread exists (the log's included); it may raise this process's own limits and reduce the number of shards, and changes nothing else.
//! Nothing here runs on a shard or after start.

pub mod cpus;
mod kernel;
mod limits;
mod pid_file;
pub(crate) mod sys;

pub use kernel::{check_io_uring, check_kernel};
pub use limits::{check_open_files, fit_locked_memory};
pub use pid_file::write_pid_file;

use std::fmt;

use crate::config::Options;

/// Something about the machine that prevents or harms a run, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What the operator can do about it.
    pub remedy: String,
}

impl Problem {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

impl std::error::Error for Problem {}

/// Runs all checks and prepares the process for its shards. Shards that the machine has no room for are left out of
/// `options` if their number was not given. Returns what is worth a warning, for the caller to log: the log itself has
/// a thread and must therefore be installed later than this.
pub fn prepare(options: &mut Options) -> Result<Vec<Problem>, Problem> {
    let mut warnings = Vec::new();
    check_kernel()?;
    cpus::check(&options.cores, &cpus::allowed())?;
    warnings.extend(fit_locked_memory(&mut options.cores, options.cores_are_given, options.io_memory)?);
    check_io_uring()?;
    warnings.extend(check_open_files(options.max_connections));
    warnings.extend(register_membarrier());
    Ok(warnings)
}

/// Registers for expedited memory barriers, which shards use to go to sleep. Must happen while there is one thread;
/// later the first sleep of each shard would stall for tens of milliseconds.
pub fn register_membarrier() -> Option<Problem> {
    let error = sys::register_membarrier().err()?;
    Some(Problem::new(
        format!("the kernel refused to register memory barriers ({error})"),
        "sleeping shards wake more slowly; allow the membarrier system call (seccomp profile, CONFIG_MEMBARRIER)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine that can run the server at all, the default options pass, and a processor that does not exist is
    /// refused before anything else is changed.
    #[test]
    fn checks_run_in_order() {
        let mut missing = Options { cores: vec![100_000], ..Options::default() };
        let problem = prepare(&mut missing).unwrap_err();
        assert!(problem.to_string().contains("processor 100000: choose --cores from "), "{problem}");
    }
}
