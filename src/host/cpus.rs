//! Which processors there are, and whether those asked for are among them.
#![forbid(unsafe_code)]

use super::{Problem, sys};
use crate::config::values;

/// The processors this process may run on, ascending; processor 0 if the kernel does not say.
pub fn allowed() -> Vec<usize> {
    match sys::affinity() {
        Ok(cpus) if !cpus.is_empty() => cpus,
        _ => vec![0],
    }
}

/// Refuses processors that shards could not be pinned to.
pub fn check(wanted: &[usize], allowed: &[usize]) -> Result<(), Problem> {
    let mut missing: Vec<usize> = wanted.iter().copied().filter(|cpu| !allowed.contains(cpu)).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        format!("this process may not run on processor {}", values::format_processors(&missing)),
        format!(
            "choose --cores from {} or change the affinity it is started with (taskset, CPUAffinity=, cpuset)",
            values::format_processors(allowed)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error names what is missing and what could be used instead.
    #[test]
    fn missing_processors_are_named() {
        assert_eq!(check(&[0, 1, 1], &[0, 1]), Ok(()));
        let problem = check(&[0, 9, 8, 9], &[0, 1, 2]).unwrap_err();
        assert_eq!(problem.what, "this process may not run on processor 8-9");
        assert!(problem.remedy.starts_with("choose --cores from 0-2 "));
        assert!(!allowed().is_empty());
    }
}
