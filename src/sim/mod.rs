//! A simulator that drives the real shards, without sockets, threads or time, and knows what one server would do.
//!
//! *The model.* Each shard is a coroutine (`actor`) that runs the driver's loop around [`crate::shard::Shard`]: turns,
//! the sleep protocol, doorbells that arrive late. Its sockets are byte queues of a few bytes to some KiB, its clock
//! is a counter that all share (`world`). Every call of `Io` and every access to an atomic of a ring, a horizon or a
//! sleep flag (`atomic`) is a point where the scheduler (`schedule`) may let somebody else go on, so races between the
//! steps of two turns are found, under sequential consistency; weaker orders are the business of `ring`. Rings have
//! two or four slots, and batches, blocks and flushes are small in unit tests, so that rare paths are common.
//!
//! *Clients* (`client`) are programs that subscribe, publish, ask, answer, relay, wait for each other and leave. They
//! note in a `history` when each of their operations began and when it was known to be done. `check` compares that
//! with one server, where every operation happens at some moment in between:
//!
//! - who must and who must not get a message, given SUB, UNSUB and what anybody could know of them;
//! - each message once per subscription, and to one member of each queue group while a member stays;
//! - order: per publisher, and of messages of which one was known before the other began, on whatever shards;
//! - requests: a taker or a 503, never both, never neither; limits of subscriptions: neither more nor less;
//! - rest: when nobody can go on, all shards sleep, rings and spill lists are empty, every PING has its PONG;
//! - accounts (`access`): what a user may publish and get by the configuration that was, or may have been, in force; no
//!   message leaves an account but through an import; who stays loses nothing by a reload, and who goes has gone when it
//!   is done;
//! - progress: a scenario ends within a number of steps, and no shard takes turns for nothing.
//!
//! Logins are judged at once or later, one overtaking the other, and reloads reach each shard in its own time.
//!
//! Not simulated: slow consumers, stall gates, timers other than short ones, imported services.
//!
//! *Seeds.* A seed decides everything, and a failure prints the seed and the test to run with it:
//! `LEAT_SIM_SEED=17 LEAT_SIM_SEEDS=1 cargo test --lib sim::tests::flood`. More seeds: `LEAT_SIM_SEEDS=100000`, or
//! `cargo test --lib sim::tests::a_long_run -- --ignored`. That the checks are worth something is shown by breaking
//! the rules of [`crate::shard::rules`] one at a time (`broken`).

mod access;
mod actor;
pub(crate) mod atomic;
mod broken;
mod check;
mod client;
mod history;
mod random;
mod reloads;
mod scenarios;
mod schedule;
mod storage;
mod streaming;
mod tests;
mod world;

pub(crate) use world::Audit;
