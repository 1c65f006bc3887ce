//! NATS Streaming (STAN): what its clients say, and what an operator can set.
//!
//! Values without sockets, files or clocks: [`pb`] has the messages, [`Options`] the settings, with [`limits`] among
//! them, and [`channel_name_is_valid`] the rule of names. The notations of the settings are
//! [`config`](crate::config)'s.
#![forbid(unsafe_code)]

pub mod limits;
mod names;
pub mod options;
pub mod pb;

pub use limits::{ChannelLimits, ChannelOverride, Overrides, StoreLimits};
pub use names::{channel_name_is_valid, channel_pattern_is_valid};
pub use options::{Cipher, Clustering, FileOptions, Options, StoreType};
