//! Text to typed configuration.
//!
//! Owns the options of a server, their defaults, their units and the rules that relate them. Nothing here opens a
//! file, a socket or a log: options are plain values that the other parts read.

pub mod duration;
pub mod grammar;
pub mod options;
pub mod values;

pub use options::{Options, PortSpec, Secret};
