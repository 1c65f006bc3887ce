//! The NATS client protocol: bytes to values and values to bytes.
//!
//! Nothing here knows of sockets, connections or time. [`parser`] turns a buffer into commands that borrow
//! from it, [`message`] is a message on its way to subscribers, [`info`] and [`connect`] are the two JSON
//! documents, [`errors`] the texts that clients compare.

pub mod connect;
pub mod errors;
pub mod info;
mod json;
pub mod message;
pub mod parser;
