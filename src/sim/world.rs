//! What all shards and clients of one simulation share: the clock, the sockets, who sleeps, who is woken.
//!
//! There is one world per thread. Everything runs on that thread: shards are coroutines (`actor`) that give control
//! back at [`point`]s, so that a world is never borrowed by two.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::auth::{Check, Grant};
use crate::shard::Config;

/// A socket as seen from both of its ends.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// Bytes that the client has sent and the shard has not received.
    pub(super) to_server: VecDeque<u8>,
    /// Bytes that the shard has sent and the client has not received.
    pub(super) to_client: VecDeque<u8>,
    /// Most bytes in flight, each way.
    pub(super) capacity: usize,
    /// Where the connection is served: shard and slot.
    pub(super) place: Option<(usize, u32)>,
    pub(super) client_closed: bool,
    pub(super) server_closed: bool,
    /// The shard wants to know when bytes arrive.
    pub(super) awaits_bytes: bool,
    /// The shard wants to know when there is room.
    pub(super) awaits_room: bool,
}

/// What a shard holds between two turns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Audit {
    /// A ring holds something for it.
    pub(crate) ring_input: bool,
    /// Something waits for room in a ring.
    pub(crate) spilled: bool,
    /// Bytes of messages in spill lists.
    pub(crate) spill_bytes: usize,
    /// Connections that are held.
    pub(crate) held: usize,
    /// Connections on the ready list, with output queued or unread.
    pub(crate) unserved: usize,
}

/// One shard as its surroundings see it.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Clients by connection slot.
    pub(super) clients: Vec<Option<usize>>,
    /// Clients that want to be accepted.
    pub(super) arrivals: Vec<usize>,
    /// Connections with something to read or room to write.
    pub(super) woken: Vec<u32>,
    /// A doorbell that was rung and not heard yet.
    pub(super) rung: bool,
    /// A doorbell that was heard: the next sleep ends at once.
    pub(super) roused: bool,
    pub(super) asleep: bool,
    pub(super) deadline: Option<u64>,
    pub(super) audit: Audit,
    pub(super) spill_bytes_peak: usize,
    pub(super) held_peak: usize,
    /// Logins that are being judged elsewhere: slot, connection and what there is to compute.
    pub(super) checks: Vec<(u32, u64, Check)>,
    /// Those that have been, and the shard does not know yet.
    pub(super) decided: Vec<(u32, u64, Option<Grant>)>,
    /// A configuration that the shard is to take.
    pub(super) reload: Option<Config>,
    /// Turns in a row during which nobody else did anything.
    pub(super) lonely_turns: u32,
}

impl Place {
    /// Whether a sleep ends now.
    pub(super) fn is_due(&self, clock: u64) -> bool {
        self.roused
            || !self.woken.is_empty()
            || !self.arrivals.is_empty()
            || !self.decided.is_empty()
            || self.reload.is_some()
            || self.deadline.is_some_and(|at| at <= clock)
    }
}

/// The state of one simulation.
#[derive(Debug)]
pub(super) struct World {
    pub(super) rng: fastrand::Rng,
    /// Grows with every reading and every event, so no two things happen at the same time.
    clock: u64,
    /// Hash of all that has happened.
    pub(super) trace: u64,
    pub(super) places: Vec<Place>,
    /// By client.
    pub(super) pipes: Vec<Pipe>,
    /// Points to pass until control is given back.
    points_left: u32,
    /// About how many points a shard passes in one go.
    pub(super) points_in_a_row: u32,
    /// Shards are to return.
    pub(super) stopping: bool,
    /// Sleeping shards are to state what they hold, and sleep on.
    pub(super) auditing: bool,
}

impl World {
    pub(super) fn new(seed: u64, shards: usize, pipes: Vec<Pipe>) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let points_in_a_row = [1, 3, 10, 30, 100, 1000][rng.usize(..6)];
        Self {
            rng,
            clock: 1,
            trace: seed,
            places: (0..shards).map(|_| Place::default()).collect(),
            pipes,
            points_left: 0,
            points_in_a_row,
            stopping: false,
            auditing: false,
        }
    }

    /// Takes note of something that happens now; gives the time.
    pub(super) fn event(&mut self, what: u64) -> u64 {
        self.clock += 1;
        self.trace = (self.trace ^ what ^ self.clock << 20).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
        self.clock
    }

    pub(super) fn clock(&self) -> u64 {
        self.clock
    }

    /// Lets time pass.
    pub(super) fn advance_to(&mut self, at: u64) {
        self.clock = self.clock.max(at);
    }

    fn gives_way(&mut self) -> bool {
        if self.points_left == 0 {
            self.points_left = self.rng.u32(0..2 * self.points_in_a_row);
            return true;
        }
        self.points_left -= 1;
        false
    }

    /// Connects a client to a slot of a shard.
    pub(super) fn place(&mut self, shard: usize, slot: u32, client: usize) {
        let clients = &mut self.places[shard].clients;
        if clients.len() <= slot as usize {
            clients.resize(slot as usize + 1, None);
        }
        assert!(clients[slot as usize].is_none(), "slot {slot} of shard {shard} is free");
        clients[slot as usize] = Some(client);
        self.pipes[client].place = Some((shard, slot));
    }

    /// The client at a slot.
    pub(super) fn client_at(&self, shard: usize, slot: u32) -> Option<usize> {
        self.places[shard].clients.get(slot as usize).copied().flatten()
    }

    /// The shard closes its end of a connection.
    pub(super) fn close(&mut self, shard: usize, slot: u32) {
        if let Some(client) = self.places[shard].clients[slot as usize].take() {
            self.event(6 << 32 | client as u64);
            self.pipes[client].server_closed = true;
            self.pipes[client].place = None;
        }
    }

    /// Tells the shard of `client` that there are bytes, or that the client has closed.
    pub(super) fn bytes_came(&mut self, client: usize) {
        if std::mem::take(&mut self.pipes[client].awaits_bytes) {
            self.wake(client);
        }
    }

    /// Tells the shard of `client` that there is room.
    pub(super) fn room_came(&mut self, client: usize) {
        if std::mem::take(&mut self.pipes[client].awaits_room) {
            self.wake(client);
        }
    }

    fn wake(&mut self, client: usize) {
        if let Some((shard, slot)) = self.pipes[client].place {
            self.places[shard].woken.push(slot);
        }
    }
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    /// A shard of this thread's world is running.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Makes `world` the one of this thread, or takes it away.
pub(super) fn set(world: Option<World>) {
    INSIDE.set(false);
    WORLD.set(world);
}

/// Reaches this thread's world.
pub(super) fn with<R>(f: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(|world| f(world.as_mut().expect("a simulation runs on this thread")))
}

/// A point where another shard or a client may go on. Does nothing outside of a simulation.
#[inline]
pub(crate) fn point() {
    if INSIDE.get() && with(|world| !world.stopping && !world.auditing && world.gives_way()) {
        give_way();
    }
}

/// Lets the scheduler choose who goes on.
pub(super) fn give_way() {
    INSIDE.set(false);
    #[expect(deprecated, reason = "its replacement cannot be called from within a shard's own calls")]
    generator::yield_with(());
    INSIDE.set(true);
}

/// Runs a coroutine until it gives way.
pub(super) fn enter(resume: impl FnOnce()) {
    INSIDE.set(true);
    resume();
    INSIDE.set(false);
}
