//! The segmented append-only log of a shard: decisions and bytes, no I/O.

pub mod durable;
pub mod ids;
pub mod message;
pub mod run;

pub use durable::{Durable, Pending, Waiting};
pub use ids::{BLOCK_BYTES, BatchNo, Incarnation, LogId, Position, SegmentNo, Slot, Time};
pub use message::Message;
pub use run::{Detail, Kind, PlacedRun, RIDE_ALONG_NS, Urgency};
