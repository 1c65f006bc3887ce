//! A message as the log keeps it.

use super::ids::Time;

/// A stored message; borrows from wherever its bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its number in its stream, counted from one.
    pub seq: u64,
    /// When it was stored. Never decreases within a stream.
    pub time: Time,
    /// The subject.
    pub subject: &'a [u8],
    /// The reply subject; empty if there is none.
    pub reply: &'a [u8],
    /// The block of headers, verbatim; empty if there are none.
    pub headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// When it is to be removed, if it has a time of its own.
    pub expires: Option<Time>,
    /// Hash of the id by which duplicates are recognised.
    pub id: Option<u128>,
}
