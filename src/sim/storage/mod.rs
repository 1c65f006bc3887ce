//! The storage engines on a simulated disk, clock and scheduler, all decided by one seed.
//!
//! `disk` is the disk. `log` drives the log alone: appends, commits, failures, checkpoints, crashes and openings, against
//! a list of what was appended and proven.

mod disk;
mod log;
