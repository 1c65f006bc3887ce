//! Who may connect, and what they may do.
//!
//! Decides from values; the shards ask and act. [`Directory`] judges a CONNECT, [`permissions`] single subjects, and
//! [`verify`] does what takes too long for a shard. Users that an operator's accounts vouch for are judged by their tokens
//! (`user_token`), and those by the accounts that are trusted (`trust`).

pub mod crossings;
pub mod directory;
pub mod mapping;
pub mod permissions;
mod schedule;
mod trust;
mod user_token;
pub mod verify;

pub use directory::{Answer, Basis, Client, Directory, Grant, Review};
pub use permissions::{PermissionsId, Permits, Receives};
pub use user_token::{TokenUser, UserLimits};
pub use verify::Check;
