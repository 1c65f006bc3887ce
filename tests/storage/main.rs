//! Stores on real files: processes that are killed, files that are damaged, and disks that fail or are full.

#![allow(clippy::unwrap_used, reason = "whatever goes wrong here fails the test")]

mod content;
mod damage;
mod disk;
mod faults;
mod full;
mod journal;
mod kill;
mod life;
