//! NATS Streaming (STAN): what its clients say, what an operator can set, and the service itself.
//!
//! The protocol is requests and answers on plain subjects; every payload is one message of protobuf ([`pb`]). What an
//! operator can set is in [`Options`], with [`limits`] among them; the notations are [`config`](crate::config)'s.
//!
//! # The service
//!
//! ```text
//!   _STAN.pub.<id>.>  _STAN.sub.<id>  ...  <discover>.<id>        _INBOX.<tag>.*
//!   of the shard's own connections  |                             of all shards
//!                                   v                                   |
//!   +-------------------------------+-----------------------------------v------+
//!   | service    front: whose channel is it?      registry: who is a client?   |
//!   |              | here        | another shard's       ^                     |
//!   |              v             v                       | told by the one     |
//!   |            homes         relays through rings      | directory           |
//!   +--------------+-------------------------------------+---------------------+
//!                  v
//!                store: a channel is a stream, a subscription or group a consumer
//! ```
//!
//! - Each channel is at home in one log and so on one shard (`places`). A shard's instance takes what its own connections
//!   send, and passes it on to the channel's home: one hop, behind everything that the connection has sent before.
//! - The *directory* on the shard of log 0 knows the clients, asks them for signs of life, and tells all instances who
//!   comes and goes (`clients`, `registry`).
//! - A client's wish to be closed goes to every home, on the same ways as what the client has sent before it; each home
//!   passes it on to the directory, which acts when all have done so. So publishes and acknowledgements before it count.
//! - The subject for acknowledgements of a subscription, `_INBOX.<tag><number>`, belongs to its home. The tag is the log's
//!   and stays the same; the number is a new one whenever somebody subscribes. For shards it is two tokens, see
//!   [`Joined`](crate::shard::service::Joined).
//! - What an answer says is flushed before. A subscription's first message comes behind the answer to its request, because
//!   it joins its consumer only then (`home`).
//!
//! # What is kept
//!
//! Messages under `$STAN.<channel>` in a stream of their own; cursors and unacknowledged messages by the engines; clients,
//! inboxes and names in a set beside them (`records`). After a crash all of it is there that was answered for; what was
//! sent, or acknowledged by subscribers, in the last tenth of a second may have to be done again.

mod clients;
mod errors;
mod home;
pub mod limits;
mod names;
pub mod options;
pub mod pb;
mod places;
mod records;
mod registry;
mod relay;
mod report;
mod service;
pub mod start;
mod wire;

pub use home::channel_of;
pub use limits::{ChannelLimits, ChannelOverride, Overrides, StoreLimits};
pub use names::{channel_name_is_valid, channel_pattern_is_valid};
pub use options::{Cipher, Clustering, FileOptions, Options, StoreType};
