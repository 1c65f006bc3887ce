//! The storage engines on a simulated disk, clock and scheduler, all decided by one seed.
//!
//! `disk` is the disk. `log` drives the log alone: appends, commits, failures, checkpoints, crashes and openings, against
//! a list of what was appended and proven. `store` drives streams and consumers on top of it (`world`, `consumers`),
//! against the naive model that the unit tests of a stream use too (`stream`), and `crash` compares them; `damage` does so with faults of which nobody is told.
//! Every opening is done twice, and must find the same.
//!
//! What they check after each crash:
//!
//! - every record whose flush was proven is there, in order and unchanged, and nothing that was removed for good is;
//! - a stream is in a state that it was in: all its messages, all its numbers;
//! - an acknowledgement whose record was flushed is final, and everything else comes again;
//! - after silent damage: it is told, nothing else is served in place of what is lost, and the store goes on.
//!
//! A seed decides everything. `tools/sim-long.py` runs many, and prints for each that fails how to run it again.

mod consumers;
mod crash;
mod damage;
pub(super) mod disk;
mod log;
mod retention;
mod store;
mod stream;
mod world;

/// `LEAT_SIM_SEED=17 LEAT_SIM_SEEDS=1` runs one seed again; without them, so many from zero on.
pub(super) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let first = number("LEAT_SIM_SEED").unwrap_or(0);
    first..first + number("LEAT_SIM_SEEDS").unwrap_or(count)
}

/// Whether all seeds of a test are run: only then must each thing have happened once.
fn is_whole_run() -> bool {
    std::env::var_os("LEAT_SIM_SEEDS").is_none()
}
