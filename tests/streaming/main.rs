//! What the streaming service promises its clients, seen with requests made by hand.
//!
//! A test that is called `item_NN_…` pins that item of the list of acceptance. The items that only a real client can
//! show (6 and 8 in part) are in `streaming_node.rs` and `streaming_c.rs`, which also play many of the others. Left out
//! are:
//!
//! - 57, a second server with the same cluster id: the two find each other over a route between servers;
//! - 59 in part: that two servers divide the channels between them needs a route as well, so here is one server alone;
//! - 60, the loss of a leader: needs servers that replicate.

#[path = "../storage/disk.rs"]
mod disk;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support_streaming/mod.rs"]
mod support_streaming;

mod acks;
mod connect;
mod durables;
mod limits;
mod log_lines;
mod monitoring;
mod positions;
mod publish;
mod queues;
mod restart;
mod sizes;
