//! Who may connect, and what they may do.
//!
//! Decides from values; the shards ask and act. [`Directory`] judges a CONNECT, [`permissions`] single subjects, and
//! [`verify`] does what takes too long for a shard.

pub mod crossings;
pub mod directory;
pub mod mapping;
pub mod permissions;
pub mod verify;

pub use directory::{Answer, Basis, Client, Directory, Grant, Review};
pub use permissions::{PermissionsId, Permits, Receives};
pub use verify::Check;
