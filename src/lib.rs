//! tmp
pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod host;
pub mod io;
pub mod logging;
pub mod monitor;
pub mod ring;
pub mod server;
pub mod shard;
pub mod subject;
pub mod version;
pub mod wire;
