//! The only place that meets glommio: executors, sockets, doorbells.
//!
//! [`driver`] runs a shard's turns on an executor; `sockets` implements [`crate::shard::io::Io`]; [`doorbell`] is
//! how another thread wakes a shard. glommio's traps (its reactor is polled only when the task queue empties, a
//! dropped `accept` loses connections, `TcpStream` writes only one slice) are dealt with here and nowhere else.

pub mod doorbell;
pub mod driver;
mod ready;
mod sockets;
