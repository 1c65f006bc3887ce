//! The two version numbers this program states.

/// Leat's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The nats-server release whose behaviour clients and tools may expect; sent as `version` in INFO and `/varz`.
pub const COMPATIBLE_WITH: &str = "2.15.1";
