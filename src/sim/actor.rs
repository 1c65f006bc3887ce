//! A shard as a coroutine: the loop of the real driver around the real shard, with simulated sockets and clock.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use generator::{Generator, Gn};

use super::world::{Audit, enter, give_way, point, with};
use crate::auth::Check;
use crate::shard::io::{Io, Recv, Sent};
use crate::shard::peers::Links;
use crate::shard::{Config, Next, Shard, Shared};

/// Stack of a shard, words.
const STACK_WORDS: usize = 32 << 10;

/// A shard that runs until it passes a [`point`].
pub(super) struct Actor {
    coroutine: Generator<'static, (), ()>,
}

impl Actor {
    pub(super) fn new(config: Config, shared: Arc<Shared>, links: Links, seed: u64) -> Self {
        let run = move || {
            let shard = Shard::new(config, shared, links, 0, seed);
            drive(shard);
        };
        Self { coroutine: Gn::<()>::new_opt(STACK_WORDS, run) }
    }

    /// Lets the shard go on until it gives way.
    pub(super) fn go_on(&mut self) {
        enter(|| {
            self.coroutine.resume();
        });
    }

    /// Whether the shard has returned.
    pub(super) fn is_done(&self) -> bool {
        self.coroutine.is_done()
    }
}

fn drive(mut shard: Shard) {
    let here = usize::from(shard.id());
    let mut io = SimIo { shard: here };
    let mut woken = Vec::new();
    while !with(|world| world.stopping) {
        obey(here, &mut shard, &mut io);
        for client in with(|world| std::mem::take(&mut world.places[here].arrivals)) {
            with(|world| world.place(here, shard.next_slot(), client));
            shard.accept(&mut io, SocketAddr::from(([127, 0, 0, 1], client as u16)));
        }
        with(|world| woken.append(&mut world.places[here].woken));
        let next = shard.turn(&mut io, &mut woken);
        note_turn(here, shard.audit());
        let Next::Sleep { deadline, .. } = next else {
            give_way();
            continue;
        };
        shard.sleeper().prepare_to_sleep();
        if shard.recheck(&mut io) {
            give_way();
        } else {
            sleep(here, &mut shard, deadline);
        }
        shard.sleeper().cancel();
    }
}

/// What comes from other threads between two turns: configurations, and verdicts about logins.
fn obey(here: usize, shard: &mut Shard, io: &mut SimIo) {
    let reload = with(|world| world.places[here].reload.clone());
    if let Some(config) = reload {
        shard.reload(io, &config);
        with(|world| {
            world.places[here].reload = None;
            world.event(0x400 + here as u64);
        });
    }
    for (slot, cid, grant) in with(|world| std::mem::take(&mut world.places[here].decided)) {
        shard.login_decided(slot, cid, grant);
    }
}

fn note_turn(here: usize, audit: Audit) {
    with(|world| {
        let place = &mut world.places[here];
        place.lonely_turns += 1;
        place.audit = audit;
        place.held_peak = place.held_peak.max(audit.held);
        place.spill_bytes_peak = place.spill_bytes_peak.max(audit.spill_bytes);
    });
}

/// Parks until something wakes the shard, as the driver does.
fn sleep(here: usize, shard: &mut Shard, deadline: Option<u64>) {
    with(|world| {
        let place = &mut world.places[here];
        (place.asleep, place.deadline) = (true, deadline);
    });
    loop {
        let wakes = with(|world| {
            let clock = world.clock();
            let place = &mut world.places[here];
            let wakes = world.stopping || place.is_due(clock);
            if wakes {
                (place.asleep, place.roused, place.deadline) = (false, false, None);
            }
            wakes
        });
        if wakes {
            return;
        }
        give_way();
        if with(|world| world.auditing) {
            let audit = shard.audit();
            with(|world| world.places[here].audit = audit);
        }
    }
}

/// Sockets, clock and doorbells of one shard. Every call is a [`point`].
struct SimIo {
    shard: usize,
}

impl Io for SimIo {
    fn now(&mut self) -> u64 {
        point();
        with(|world| world.event(1))
    }

    fn recv(&mut self, slot: u32, buf: &mut [u8]) -> Recv {
        point();
        let received = with(|world| {
            let Some(client) = world.client_at(self.shard, slot) else { return Recv::Failed };
            let (pipe, rng) = (&mut world.pipes[client], &mut world.rng);
            let there = pipe.to_server.len().min(buf.len());
            if there == 0 {
                pipe.awaits_bytes = !pipe.client_closed;
                return if pipe.client_closed { Recv::End } else { Recv::Nothing };
            }
            let bytes = if rng.bool() { there } else { rng.usize(1..=there) };
            for (to, from) in buf.iter_mut().zip(pipe.to_server.drain(..bytes)) {
                *to = from;
            }
            let more = !pipe.to_server.is_empty() || pipe.client_closed || rng.bool();
            pipe.awaits_bytes = !more;
            world.event((client as u64) << 32 | bytes as u64);
            Recv::Data { bytes, more }
        });
        point();
        received
    }

    fn send(&mut self, slot: u32, bufs: &[IoSlice<'_>]) -> Sent {
        point();
        let sent = with(|world| {
            let Some(client) = world.client_at(self.shard, slot) else { return Sent::Failed };
            let (pipe, rng) = (&mut world.pipes[client], &mut world.rng);
            if pipe.client_closed {
                return Sent::Failed;
            }
            let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
            let room = pipe.capacity - pipe.to_client.len();
            let fits = offered.min(room);
            let taken = if rng.u8(..8) == 0 { rng.usize(0..=fits) } else { fits };
            pipe.to_client.extend(bufs.iter().flat_map(|buf| buf.iter()).take(taken));
            pipe.awaits_room = taken < offered;
            let has_room = taken < room;
            world.event((client as u64) << 48 | taken as u64);
            if has_room {
                world.room_came(client);
            }
            Sent::Bytes(taken)
        });
        point();
        sent
    }

    fn close(&mut self, slot: u32) {
        point();
        with(|world| world.close(self.shard, slot));
    }

    fn decide(&mut self, slot: u32, cid: u64, check: Check) {
        point();
        with(|world| world.places[self.shard].checks.push((slot, cid, check)));
    }

    fn ring(&mut self, shard: u16) {
        point();
        with(|world| world.places[usize::from(shard)].rung = true);
    }

    fn wall(&mut self) -> crate::log::Time {
        panic!("no shard has a service");
    }

    fn file(&mut self, _log: crate::log::LogId, _request: crate::log::Request) {
        panic!("no shard has a service");
    }

    fn file_answers(&mut self, _answers: &mut Vec<crate::log::Answer>) {
        panic!("no shard has a service");
    }
}
