//! Who may connect, and what they may do.
//!
//! Decides from values; the shards ask and act. A [`Directory`] judges a CONNECT (`judge`) and the clients that are
//! there when it takes over (`review`), [`permissions`] single subjects, and [`verify`] does what takes too long for a
//! shard. Users that an operator's accounts vouch for are judged by their tokens (`user_token`), and those by the
//! accounts that are trusted (`trust`).

pub mod crossings;
pub mod directory;
mod grant;
mod judge;
pub mod mapping;
pub mod permissions;
mod review;
mod rules;
mod schedule;
mod trust;
mod user_token;
pub mod verify;

pub use directory::Directory;
pub use grant::{Basis, Grant};
pub use judge::{Answer, Client};
pub use permissions::{PermissionsId, Permits, Receives};
pub use review::Review;
pub use rules::Looks;
pub use user_token::{TokenUser, UserLimits};
pub use verify::{Check, Presence};
