//! Rings between cores: how one shard hands values to another.
//!
//! Each ordered pair of shards has a [`ring`](fn@ring) with one [`Producer`] and one [`Consumer`]. Its items are
//! batches whose buffers the slots own and reuse, so a steady flow allocates nothing. It never blocks: a full ring
//! refuses, and the producer keeps its item. A consumer that is about to park says so through its [`Sleeper`], which
//! tells producers when a doorbell is needed; the doorbell itself is not in here. A producer's [`Horizon`] makes what
//! it has put into several rings appear in all of them at once.
//!
//! Costs: a slot is the item and 8 bytes; a ring has 256 bytes of counters, each end on cache lines of its own. An
//! item moves one shared line from producer to consumer and, when the producer's view of the ring runs out, one back.
//!
//! `spsc` is the only file with unsafe code. The protocols are checked by exploring all interleavings, reorderings
//! of memory accesses included (`interleavings`), which `sync` makes possible.

mod bell;
mod horizon;
mod spsc;
mod sync;

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;

pub use bell::Sleeper;
pub use horizon::Horizon;
pub use spsc::{Consumer, Full, Producer, ring, ring_with_budget};
