//! The only place that meets the executor, sockets and doorbells.
//!
//! [`driver`] runs a shard's turns on a glommio executor; `sockets` implements [`crate::shard::io::Io`]; `poller` tells
//! which descriptors are ready, from an io_uring of the shard's own; [`listen`] binds ports and `acceptor` takes new
//! connections; [`doorbell`] is how another thread wakes a shard. [`logins`] decides what takes too long for a shard,
//! and [`handshakes`] has threads for TLS handshakes, whose number in a second `rate` bounds, and for PROXY protocol
//! headers (`proxy`); `session` is the data phase of a connection with TLS. [`upgrades`] has a thread for connections
//! that become WebSockets, `websocket` is what they are then.
//!
//! `files` does the I/O of a shard's logs, on the same io_uring (`operations`); where their files are is known to
//! [`log_directory`], and to [`store_directory`] whose they are. `layout` has the names of all files of a store, `identity`
//! reads and writes what says which store it is, and `regular` opens files and nothing else. [`engine`] drives the engines
//! of a log without a shard.

mod acceptor;
pub mod doorbell;
pub mod driver;
pub mod engine;
mod files;
pub mod handshakes;
pub(crate) mod identity;
pub(crate) mod layout;
pub mod listen;
pub mod log_directory;
pub mod logins;
mod operations;
mod poller;
mod proxy;
mod rate;
pub(crate) mod regular;
mod session;
mod sockets;
pub mod store_directory;
pub mod upgrades;
mod websocket;
