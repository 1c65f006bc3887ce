//! Text to typed configuration.
//!
//! Owns the options of a server, their defaults, their units and the rules that relate them. Options are plain values
//! that the other parts read; nothing here opens a socket or a log.
//!
//! A configuration file goes through three layers: [`grammar`] makes a tree of values of its text, tables of keys
//! (`schema`) turn the tree into [`Options`], and [`load`](load()) ties them together and checks what keys mean for
//! each other. When the file is read again, [`diff`] tells by the same tables what has changed and whether that can be
//! applied. Each block of the file has a module with its types and its table.

pub mod accounts;
pub mod address;
pub mod authorization;
pub(crate) mod claims;
mod cycles;
pub mod duration;
pub mod exports;
pub mod grammar;
mod later;
mod load;
pub mod mappings;
pub mod operators;
pub mod options;
pub mod permissions;
mod read;
mod reload;
mod sample;
mod schema;
mod server;
mod streaming;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod values;
pub mod websocket;

pub use address::{ListenAddress, host_and_port};
pub use load::{ConfigError, Loaded, load, load_with_streaming};
pub use options::{Options, PortSpec, Secret, SecretOrigin};
pub use reload::{Change, NotReloadable, diff};
pub use sample::sample;
pub use schema::Finding;
