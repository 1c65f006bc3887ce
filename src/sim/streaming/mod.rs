//! The NATS Streaming service on several shards, with simulated disks and clock, as its clients see it.
//!
//! Numbers of items are those of the list of behaviours that clients of the reference rely on.

mod connecting;
mod crashes;
mod durables;
mod publishing;
mod queues;
mod subscribing;
mod world;
