//! A client of the NATS Streaming protocol, as fast as the rest of this program: its messages, what one client knows,
//! and the event loop that drives many of them.

pub(crate) mod args;
pub(crate) mod fleet;
pub(crate) mod session;
pub(crate) mod wire;
