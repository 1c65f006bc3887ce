//! The storage engines on a simulated disk, clock and scheduler, all decided by one seed.
//!
//! `disk` is the disk. `log` drives the log alone: appends, commits, failures, checkpoints, crashes and openings, against
//! a list of what was appended and proven. `store` drives streams and consumers on top of it, against a naive model.

pub(super) mod disk;
mod log;
mod store;

/// `LEAT_SIM_SEED=17 LEAT_SIM_SEEDS=1` runs one seed again; without them, so many from zero on.
pub(super) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let first = number("LEAT_SIM_SEED").unwrap_or(0);
    first..first + number("LEAT_SIM_SEEDS").unwrap_or(count)
}
