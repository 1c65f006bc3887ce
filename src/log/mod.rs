//! The segmented append-only log of a shard: decisions and bytes, no I/O.

pub mod aligned;
pub mod batch;
pub mod builder;
pub mod checkpoint;
pub mod clean;
pub mod durable;
pub mod entry;
mod field;
pub mod flaw;
mod footer;
pub mod fragment;
pub mod ids;
#[expect(clippy::module_inception, reason = "the log of the module's name")]
pub mod log;
pub mod message;
pub mod record;
pub mod recover;
pub mod request;
pub mod run;
pub mod scan;
pub mod segment;
pub mod segments;
pub mod varint;

pub use aligned::AlignedBuf;
pub use batch::{BATCH_BYTES_MAX, BATCH_HEAD_BYTES, Batch, Expect, Head, Next, Run, parse, parse_directory};
pub use builder::{BatchBuilder, RECORD_BYTES_MAX, RUN_BYTES, Sealed};
pub use durable::{Durable, Pending, Waiting};
pub use entry::{ENTRY_BYTES, Part, RunEntry, Transaction};
pub use flaw::{Defect, Flaw};
pub use fragment::{Assembler, Fragment, fragments, needs_fragments};
pub use ids::{BLOCK_BYTES, BatchNo, Incarnation, LogId, Position, SegmentNo, Slot, Time};
pub use log::{Event, Log, Options, Refused};
pub use message::Message;
pub use record::{FragmentNo, Record, Records, control_records, encode_ranges, messages, ranges, records};
pub use request::{DiskFault, Outcome, Request, RequestId};
pub use run::{Detail, Kind, PlacedRun, RIDE_ALONG_NS, Urgency};
pub use segment::{Seal, SegmentHead, StoreId, StreamSummary};

#[cfg(test)]
mod format_tests;
