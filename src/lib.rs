//! Leat: a message broker for Linux that speaks the NATS protocol.
//!
//! This page is the architecture: what the parts are, in which order things happen and why, and where to read on.
//! `README.md` is for those who run a broker. The library exists for the two executables, the tests and the benchmarks
//! of this repository; it promises no stable interface to anybody else.
//!
//! ```text
//!          clients                     clients                     HTTP, signals
//!             |  SO_REUSEPORT: one        |                              |
//!             |  listener per shard       |                   +----------v-----------+
//!   +---------v----------+      +---------v----------+        | control thread       |
//!   | shard 0  (core 0)  |      | shard 1  (core 1)  | orders | monitor thread       |
//!   |                    |      |                    <--------+ signal thread        |
//!   |  connections       |      |  connections       +--------> logger thread        |
//!   |  parser            |      |  parser            | plain  +----------------------+
//!   |  interest: own     |      |  interest: own     | values
//!   |   + the others'    |      |   + the others'    |
//!   |  routes            |      |  routes            |
//!   |  outbound buffers  |      |  outbound buffers  |
//!   |                    | ring |                    |
//!   |                    +------> interest           |
//!   |                    +------> message batches    |    ... and so between each two shards,
//!   |           interest <------+                    |        in both directions
//!   |    message batches <------+                    |
//!   +--------------------+      +--------------------+
//! ```
//!
//! # Shards
//!
//! A [`shard::Shard`] is one core's share of the broker. It has a thread pinned to its core, a glommio executor on that
//! thread, and everything it works with: its connections, its subscription index, its buffers, its counters. Shards
//! share no mutable state but the rings between them and a few counters that are touched when a connection comes or
//! goes ([`shard::Shared`]). What one shard has for another travels through a [`ring`]. There are no locks on the path
//! of a message, and code in a shard may use plain, unsynchronised data.
//!
//! The kernel spreads connections over the shards' listening sockets by hash. A shard that has accepted a connection
//! while it clearly has more of them than another shard hands it over at once, before its first byte
//! ([`shard::Shared::place`], [`io::driver::Order::Adopt`]). From then on a connection stays where it is.
//!
//! A shard does no I/O by itself. It meets sockets, clock and doorbells through the trait [`shard::io::Io`], whose
//! calls never block; [`io`] implements it, and whatever else implements it can drive the same code.
//!
//! # A turn
//!
//! Work happens in turns ([`shard::Shard::turn`]), each in the same order:
//!
//! 1. Timers that are due: pings, login and write deadlines, ends of stalls.
//! 2. What other shards have sent: first their interest, then their messages, oldest batch first.
//! 3. Each connection that has something to read: receive, look at the rings again (next section), then parse and
//!    execute. A read is bounded, and so is the number of reads in a turn, so that a turn stays short.
//! 4. If a service lives in the shard: it gets what has come for it, and what it wants is done (see Services).
//! 5. The end of the turn: changed interest to all shards, message batches to all shards, doorbells to those that
//!    sleep, and only then writes to sockets, one for each connection that has output.
//!
//! Executing a command only appends: to outbound buffers of connections here, to the open batch for another shard. So a
//! turn that has read a hundred messages makes one write per subscriber and one ring item per shard. Batching is the
//! shape of the loop; no delay is added for it.
//!
//! Around the turns stands the driver ([`io::driver::run`]). It passes orders of the control thread on, accepts, takes
//! a turn, and asks the shard's poller which connections have become ready, which costs a system call only if some
//! have. When a turn says [`shard::Next::Sleep`] the driver spins for a moment if it is told to (`--spin_us`),
//! announces that it sleeps, looks once more ([`shard::Shard::recheck`]) and waits until a socket, the doorbell or the
//! next deadline wakes it.
//!
//! The poller is an io_uring of the shard's own in which every socket is polled once and for all (`io/poller.rs`).
//! glommio, which places and runs the shards' threads, polls a socket anew after each read, through three rings of its
//! own; for a message that comes alone this cost more than the message (`perf/` has the figures).
//!
//! # Many shards, one server
//!
//! Clients must not be able to tell how many shards there are. Suppose that a client subscribes and sees the PONG
//! behind its SUB; it tells a second client by whatever means; that one, on another shard, publishes. The message must
//! arrive. In the same way a message published after another one was *seen* must not overtake it on its way to a third
//! shard. Two rules give this, without any barrier between shards:
//!
//! - **Rings before sockets.** No byte leaves a socket before the interest and the messages that came before it are
//!   visible in the rings. This is the order of step 5. Where output is large enough to be written in the middle of a
//!   turn, interest and batches are published first there too.
//! - **Receive, look, parse.** After receiving from a socket and before parsing, the shard notes how far its message
//!   rings are filled, applies all interest that has arrived, handles the messages up to what it noted, and only then
//!   parses. Whatever the sender of those bytes can have known was in the rings before, by the first rule.
//!
//! With three shards one thing more is needed: each batch carries the time of its commit on a clock that all shards
//! share, and a receiver merges its rings by it, up to the time at which it looked.
//!
//! One exception to the order of messages is left, and documented: a queue message that is passed on because its member
//! has just gone or may not have it (see below) may come later than its successors.
//!
//! # Interest and routes
//!
//! A shard has one [`subject::Index`] per account. Its own subscriptions and the other shards' interest stand in it
//! side by side, so that one look-up tells everything: these subscriptions here, those shards, these queue groups with
//! so many members here and there. Other shards are told transitions only: a pattern is wanted or no longer wanted, a
//! queue group has so many members now. Ten thousand subscribers to one subject on one shard are one entry elsewhere.
//!
//! The outcome of a look-up is a *route*. Routes are memoised per literal subject, in a bounded memo that lets a
//! subject in when it is seen for the second time: the inbox of a single request never enters. A SUB or UNSUB of a
//! literal subject touches only the route of that subject. One with wildcards raises the account's generation, which
//! voids all routes; they are computed anew when they are needed. Where a client's permissions have allowed a publish,
//! their id is noted in the route, so that the next message finds route and verdict in one look-up; another
//! configuration brings other ids.
//!
//! # Rings
//!
//! Between each two shards there are four rings ([`shard::peers::mesh`]): interest and messages, in both directions.
//! Interest is published first, so that a message never overtakes the subscription that caused it. An item of a ring is
//! a *batch*: many messages side by side in one buffer that the slot owns and that is swapped, not copied; bodies above
//! a few KiB are handed over by reference instead. Slots and bytes are bounded (`--ring_slots`, `--ring_bytes`).
//!
//! What does not fit goes to a *spill list* of that peer, and every connection that has contributed to it is *held*:
//! not read, and not written to, until the list is empty. Not read, because this bounds the list: it can only grow by
//! what was read already. Not written to, because its PONG would otherwise claim more than is true. A shard always
//! drains its ring input, also while it waits for room itself; so some shard can always go on, and lists become empty.
//!
//! A shard that sleeps has said so through its [`ring::Sleeper`]. A producer that finds it asleep after publishing
//! rings its doorbell, an eventfd ([`io::doorbell::Doorbell`]); nobody rings a shard that is awake.
//!
//! # Queue groups and requests without responders
//!
//! The publisher's shard chooses among all members of a group on all shards with equal chances. If the choice falls on
//! a member of its own, it delivers. If it falls on another shard, the message goes there with the name of the group,
//! and that shard picks one of its members. If its last one left while the message was on its way, or none of them may
//! have the message, it is passed on to another shard that has members, and so on until one takes it. Shards whose
//! members do not take it are noted in the message ([`shard`], `batch.rs`) and not asked twice.
//!
//! A request that nobody takes is answered with status 503, if the client has asked for that. The publisher's shard
//! knows it from the route. Where everything hangs on one other shard, the message carries a mark, and that shard sends
//! word back if it finds no taker after all. Where it hangs on several, or on other accounts, each message carries a
//! share of the request, and shares come back in the same way; when all are back, nobody has taken it
//! (`shard/inquiries.rs`).
//!
//! # Services
//!
//! A protocol face of the store is a part of the broker that takes messages as a client would and publishes as a client
//! would, without a socket: a *service* ([`shard::service::Service`]). Each shard has its own instance, which owns the
//! stores of some logs and lives in the default account.
//!
//! Its subscriptions stand in the account's index beside those of clients, so that a publish finds them by the same
//! look-up. They belong to a connection that does not exist, which is how a delivery knows them: it appends the message
//! to the shard's *intake* (`shard/intake.rs`), which costs shards without a service nothing. Some subjects each
//! instance takes from the connections of its own shard only, and other shards do not hear of them. A service may also
//! take subjects in which two tokens are written as one ([`shard::service::Joined`]): where a route is made, such a
//! subject is looked up a second time with the two apart.
//!
//! At the end of a turn (`shard/hosted.rs`) the instance gets the intake in order, then a turn of its own, and leaves
//! an outbox: messages to publish, *relays* to the instances of other shards, connections to be read more slowly.
//! Relays are items in the ordinary batches. So they come behind whatever the connection that caused them has sent to
//! that shard, on whatever subjects, and that connection is held if they have to wait for room. The outbox is carried
//! out before anything leaves, so both rules above hold for services too; where large output leaves in mid-turn, the
//! intake is handed over first. While this shard waits for room in a ring the service is told not to deliver: responses
//! are bounded by what was read, deliveries are not.
//!
//! What the stores ask of their files goes to the shard's own poller ([`shard::io::Io::file`]), behind the turn's work
//! and before its writes to sockets. Outcomes come in at the beginning of a turn, so acknowledgements leave at its end:
//! one flush of the disk, one turn, one write for each connection. A shard that is told to leave stops its service
//! first, for at most ten seconds.
//!
//! # Logins and accounts
//!
//! A CONNECT is judged by the [`auth::Directory`], a value that all shards share and that a reload replaces. Password
//! hashes and signatures are computed by threads of their own ([`io::logins`]); the connection is not read meanwhile.
//! Verdicts about subjects are remembered per connection ([`auth::permissions`]).
//!
//! Where operators vouch for accounts, these come from signed tokens ([`jwt`]) instead of the file, and become the same
//! values; a user is what its token says, in an account that knows who has signed it. When a token begins or ceases to
//! be in force the control thread makes a new directory, as for a reload.
//!
//! An account may map subjects. That comes first: what becomes of the subject is what permissions are asked about, and
//! what is looked up. Where accounts share streams or services, the publisher's shard does all of it
//! (`shard/crossing.rs`): it looks the message up in each account that it reaches and sends it on from there, one hop
//! as ever. Mappings and imports are found by subject ([`subject::PatternMap`]), so that a publish costs the same
//! however many there are. A request to an imported service carries a reply subject that names this shard, which remembers where the
//! answer belongs.
//!
//! # TLS and WebSocket
//!
//! Handshakes, and the upgrades of HTTP connections, belong to threads beside the shards ([`io::handshakes`],
//! [`io::upgrades`]); a shard gets the connection when it can talk. From then on records and frames are made on the
//! shard, in a layer between its sockets and its turns (`io/session.rs`, `io/websocket.rs`).
//!
//! # Slow consumers
//!
//! Output to a connection waits in its outbound buffer: chunks from the shard's pool, and references to large bodies
//! that all receivers share. A connection with nothing to write owns no buffer. What bounds it:
//!
//! - Above three quarters of `max_pending` the *stall gate* rises: publishers that feed this connection, on whichever
//!   shard, are paused for some milliseconds and then read little by little until the gate is down. (With
//!   `--no_fast_producer_stall` the message is dropped for this subscriber instead.)
//! - A connection that has more than `max_pending` queued after an attempt to write is closed, and so is one whose
//!   socket, once full, has not taken within `write_deadline` what was queued then.
//! - Where one read causes much output, as in a large fan-out, the next reads of that connection are made smaller.
//!
//! # One publish, from byte to byte
//!
//! `PUB orders.new 5\r\nhello\r\n` arrives at shard 0. One subscriber is there too, one is on shard 1.
//!
//! 1. The socket becomes readable, and the poller names its connection (`io/poller.rs`, `io/sockets.rs`). The driver calls
//!    [`shard::Shard::turn`].
//! 2. `serve` and `read` (`shard/turn.rs`) receive into the shard's one read buffer, behind what was left over from the
//!    last time ([`shard::io::Io::recv`]), then `look` at the rings, then call `run`.
//! 3. `run` goes through the buffer. [`wire::parser::parse_canonical_pub`] recognises this commonest form and borrows
//!    subject and tail (` 5\r\nhello\r\n`) from the buffer; all else goes through [`wire::parser::parse`] and `execute`
//!    (`shard/commands.rs`). An incomplete command at the end stays for the next read, and is then parsed from its
//!    first byte; a large one is collected in a block of its own, which subscribers will share.
//! 4. `publish` (`shard/deliver.rs`) takes the [`wire::message::Message`], asks `Account::route` (`shard/account.rs`)
//!    for the route of `orders.new`, and calls `deliver` for the subscription here. That appends to the connection's
//!    outbound buffer: `MSG orders.new 1` (verb, subject, sid), and behind it the tail as it came.
//! 5. For shard 1 `publish_to_groups_and_peers` appends one item to the open batch (`shard/batch.rs`), and notes that
//!    this connection feeds shard 1.
//! 6. The turn ends (`finish`): `settle` publishes interest, then the batch ([`ring::Producer::push_with_bytes`]);
//!    shard 1 is rung if it sleeps; `flush_dirty` writes the subscriber's buffer to its socket
//!    ([`shard::io::Io::send`]). What the socket does not take waits until it is writable again.
//! 7. Shard 1 takes a turn, or is in the middle of one and looks before it parses. `look` finds the batch, and
//!    `receive_message` (`shard/receive.rs`) does what step 4 did, with its own route and its own subscribers. Its turn
//!    ends with the write to the second subscriber.
//!
//! Buffers, chunks and batches are reused, so that a steady flow of small messages allocates nothing per message.
//!
//! # TLS
//!
//! A handshake is a millisecond of arithmetic, so it never runs on a shard. A connection that begins with one gets its
//! id and its place in a shard as any other, and its INFO in clear if the options want that first; then its socket goes
//! to a thread for handshakes ([`io::handshakes`]) and comes back as an order, with the session and what the handshake
//! found out ([`tls::TlsFacts`]). From then on the shard makes records of its bytes and bytes of its records
//! (`io/session.rs`); what is in a record but not yet in the socket counts as not sent, so that limits and deadlines
//! mean what they mean in clear. A reload replaces certificates as a whole, and tells each shard together with its
//! other options whether connections begin with a handshake, and how: for those that come later. A PROXY protocol
//! header, which comes before the handshake, is read by the same threads.
//!
//! # WebSocket
//!
//! What comes to the WebSocket listener goes to a thread of its own first ([`io::upgrades`]), which makes the TLS
//! handshake and answers the HTTP request ([`websocket`]). A connection that has become a WebSocket gets its id and its
//! shard then, and `io/websocket.rs` takes frames off and puts them on, below everything that a shard knows. Compression,
//! where it has been agreed on, happens there too. The connections of a shard share its buffers and codecs, since no
//! window is kept from one message to the next, and what may be compressed in a turn is bounded.
//!
//! # Beside the shards
//!
//! The *control thread* is the main thread of the process ([`control::run`]). It starts everything, then waits for
//! signals, which a thread of their own turns into values ([`control::signals`]). It talks to shards by
//! [orders](io::driver::Order) through a channel, each followed by a ring of the doorbell; a shard obeys between two
//! turns. Drain and lame duck mode are sequences of such orders ([`server::Server::drain`]).
//!
//! *Reload.* When the configuration is read again, the tables of keys tell what has changed ([`config::diff`]); one key
//! that needs a restart refuses the whole. The control thread then gives every shard its new [`shard::Config`], with a
//! new [`auth::Directory`] of users and accounts, which the shard takes between two turns ([`shard::Shard::reload`]).
//! Shards do so one after the other, and messages go on between them: an account keeps its number for ever, and a shard
//! that hears of one it does not know yet makes room for it. Clients are looked at one by one: each remembers why it is
//! what it is ([`auth::Basis`]), and nobody has to log in again.
//!
//! *Monitoring* has one more thread, with an HTTP server. It asks for a [`monitor::ShardSnapshot`] by order, gets plain
//! values back, and makes JSON of them where no message waits for it. *Log lines* are queued for a thread that writes
//! them; when that queue is full lines are dropped and counted, and nobody waits ([`logging`]).
//!
//! # Who may do what
//!
//! A CONNECT is judged by the [`auth::Directory`], which is made of the configuration and shared by all shards.
//! Password hashes and signatures cost too much for a shard and go to threads of their own ([`io::logins`]); the
//! connection is not read until the verdict is back, and others do not notice. A verdict of a directory that has been
//! replaced meanwhile does not count. What a user may publish and subscribe to is decided by [`auth::permissions`],
//! whose verdicts a connection remembers. An account is a subject space: the shards have an index for each.
//!
//! # Modules
//!
//! Lower layers do not know upper ones. (`config` and `host` are one layer: the default of `--cores` is asked of the
//! machine, and the checks of the machine read the options. So are `config` and the options of `streaming`, which stand
//! there and are read by tables here.) From the bottom:
//!
//! | Module | Is about |
//! |---|---|
//! | [`subject`] | tokens, wildcards, the subscription index |
//! | [`wire`] | the client protocol: bytes to values and back; CONNECT and INFO; error texts |
//! | [`websocket`] | the request that becomes a WebSocket, and frames |
//! | [`ring`] | single-producer single-consumer rings and the agreement on doorbells |
//! | [`config`], [`version`] | options as plain values, their notations, rules and defaults; the configuration file |
//! | [`tls`] | certificates and what a handshake needs; what it found out |
//! | [`host`] | what the machine must offer, and the remedy where it does not |
//! | [`auth`] | who may connect, and what they may do |
//! | [`logging`] | log lines in the reference's format |
//! | [`monitor`] | the values that shards report, and the HTTP endpoints made of them |
//! | [`shard`] | one core's share: turns, connections, routes, delivery, links to other shards, the service inside |
//! | [`log`] | the segmented log: format, group commit, faults, checkpoints, cleaning, recovery |
//! | [`stream`] | what a stream admits and keeps: limits, subjects, index, removals |
//! | [`consumer`] | who gets which message when: cursors, credit, acknowledgements, redelivery |
//! | [`store`] | log, streams and consumers together: all that a protocol face sees of storage |
//! | [`io`] | the only place that meets sockets and files: readiness, accepting, doorbells, the driver, the disk |
//! | [`streaming`] | NATS Streaming: a service in each shard, on the engines; and its options, which `config` reads |
//! | [`server`] | shards on their threads, and the handle to steer them |
//! | [`control`] | start, signals, drain, lame duck, reload |
//! | [`cli`] | arguments and file to options: the table of flags, help |
//! | [`store_tool`] | looking at a stopped store: inspect, verify, dump |
//!
//! Still to come are JetStream, another face of the store and another service in each shard ([`shard::service`]); and
//! routes, gateways and leafnodes to other servers, for which a socket will stand in the place of a ring.

pub mod auth;
pub mod cli;
pub mod config;
pub mod consumer;
pub mod control;
mod first;
pub mod host;
mod interned;
pub mod io;
pub mod jwt;
pub mod launch;
pub mod log;
pub mod logging;
pub mod monitor;
pub mod ring;
pub mod server;
pub mod shard;
#[cfg(test)]
mod sim;
pub mod store;
pub mod store_tool;
pub mod stream;
pub mod streaming;
pub mod subject;
pub mod tls;
pub mod version;
pub mod websocket;
pub mod wire;
