//! Stores on real files: processes that are killed, and files that are damaged.

#![allow(clippy::unwrap_used, reason = "whatever goes wrong here fails the test")]

mod content;
mod damage;
mod kill;
