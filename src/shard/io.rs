//! What a shard needs from the world: the seam between the turn and the sockets, and between the turn and the simulator.

use std::io::IoSlice;

use crate::auth::Check;
use crate::log::{Answer, LogId, Request, Time};
use crate::wire::errors::CloseReason;

/// Sockets, clocks, doorbells and files of one shard.
///
/// Calls never block. Connections are named by the index that [`super::Shard::accept`] gave out.
pub trait Io {
    /// Nanoseconds of a monotonic clock that all shards share.
    fn now(&mut self) -> u64;
    /// The calendar: nanoseconds since 1970-01-01 UTC. Only shards with a service ask for it.
    fn wall(&mut self) -> Time;
    /// Reads at most `buf.len()` bytes. After [`Recv::Nothing`], and after `more: false`, the connection is put on
    /// the ready list when bytes arrive.
    fn recv(&mut self, conn: u32, buf: &mut [u8]) -> Recv;
    /// Writes as much as fits. When that is less than everything, the connection is put on the ready list when
    /// there is room again.
    fn send(&mut self, conn: u32, bufs: &[IoSlice<'_>]) -> Sent;
    /// The connection is about to be closed: says so where what carries it has words for that.
    fn farewell(&mut self, _conn: u32, _reason: CloseReason) {}
    /// Closes the socket; `conn` is free for reuse afterwards.
    fn close(&mut self, conn: u32);
    /// Wakes shard `shard`, which has announced that it sleeps.
    fn ring(&mut self, shard: u16);
    /// Has a login decided that takes long. The outcome comes through [`super::Shard::login_decided`].
    fn decide(&mut self, conn: u32, cid: u64, check: Check);
    /// Whether the peer has said that it will send nothing more, or is gone. Bytes that it has sent before that may wait.
    fn has_ended(&mut self, _conn: u32) -> bool {
        false
    }
    /// Begins to carry out what a log of the shard's service asks for. The driver wakes the shard when it has ended.
    fn file(&mut self, log: LogId, request: Request);
    /// Adds what has become of such requests since the last call.
    fn file_answers(&mut self, answers: &mut Vec<Answer>);
    /// The shard has had nothing to do for long and has freed its buffers.
    fn rest(&mut self) {}
}

/// Outcome of [`Io::recv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recv {
    /// Bytes were read.
    Data {
        /// How many.
        bytes: usize,
        /// There may be more right now.
        more: bool,
    },
    /// Nothing there.
    Nothing,
    /// The peer will send no more.
    End,
    /// The connection is broken.
    Failed,
}

/// Outcome of [`Io::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// That many bytes were taken.
    Bytes(usize),
    /// The connection is broken.
    Failed,
}
