//! A consumer: one delivery cursor over a stream, with members or pull requests, acknowledgements and redelivery.
//!
//! A pure state machine: no I/O, no clock, no randomness. It never sees a message. It says what it wants
//! ([`Consumer::next`]: this message again, or the first new one from here on), whoever drives it finds the message and
//! hands it over ([`Consumer::deliver`]), and the answer says how to send it. Filters are matched by the driver too.
//!
//! # How it is driven
//! * Creation: resolve [`Start`] to an [`Origin`] through the stream, [`Consumer::new`], count the matching messages
//!   ([`Consumer::set_num_pending`]), append [`Consumer::first_record`], and report with [`Consumer::flushed`] when
//!   it is on disk.
//! * A matching message became readable: [`Consumer::stored`]. One was removed: [`Consumer::removed`] or
//!   [`Consumer::removed_below`], and [`Consumer::unstored`] if it had not been delivered yet.
//! * In each turn in which something happened: `next` and `deliver` until [`Want::Nothing`]; then
//!   [`Consumer::drain_events`]; then, if [`Consumer::changed`], append [`Consumer::take_delta`] as the log's record of
//!   this consumer; then sleep until [`Consumer::next_deadline`] and call `next` again.
//! * The log has flushed a delta: [`Consumer::flushed`] with its mark, and `next` again if that says so.
//! * A checkpoint: [`Consumer::snapshot`].
//! * Opening a store: [`Consumer::restore`] from the first record or a snapshot, [`Consumer::replay`] for each later
//!   record in order, [`Consumer::opened`], [`Consumer::cut`] to the stream's last sequence number,
//!   [`Consumer::removed_below`] its first, [`Consumer::removed`] for those of [`Consumer::ack_pending`] that the
//!   stream does not hold, [`Consumer::set_num_pending`], and [`Consumer::rejoin`] for members that live on.
//! * A clean stop: append [`Consumer::stop`].
//!
//! # What survives a crash
//! Deltas may be lost from the end of the log, never from its middle. A lost delivery comes again as a first one; a
//! lost acknowledgement comes again as a redelivery; an acknowledgement on disk is final. Numbers of deliveries
//! (*consumer sequence numbers*) are reserved in blocks of [`RESERVED_BLOCK`] and none is used before its reservation
//! is on disk: after a crash they jump forward and never go back. Who holds a message is not recorded, nor is a
//! negative acknowledgement: such a message comes again when its wait is over.
//!
//! # What is in memory
//! 32 bytes for a message that waits for its acknowledgement and a 64th of 8 for its deadline, times what a growing
//! array wastes: at most 64 (`ledger.rs`). There is no timer per message. An idle durable consumer takes less than 2
//! KiB.

#![forbid(unsafe_code)]

mod ack;
mod changes;
mod codec;
mod config;
mod delivery;
mod event;
mod ledger;
mod lifecycle;
mod members;
mod pace;
mod persist;
mod redelivery;
mod removal;
mod requests;
mod state;
#[cfg(test)]
mod tests;

pub use ack::{Reply, Touched};
pub use config::{
    AckPolicy, Choice, Config, Counts, Invalid, OnReturn, Pace, Rate, RedeliveryOrder, RestartDeadline, Sharing, Start,
};
pub use delivery::{Delivery, Found, Step, Target, Want};
pub use event::{Ended, Event, TerminatedBy};
pub use lifecycle::{Left, Occupied};
pub use members::{MemberId, Presence, Terms};
pub use persist::{Flaw, Mark, RESERVED_BLOCK};
pub use requests::{NotAccepted, PullRequest, RequestId};
pub use state::{Consumer, Info, Origin, Pair};
