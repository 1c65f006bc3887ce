//! The scheduler: one seed decides who goes on, how far, and with how many bytes.
//!
//! Actors are shards, clients and doorbells on their way. Their chances differ by far and change all the time, and a
//! shard may be frozen in the middle of a turn for long, so that narrow races become common. When nobody can go on,
//! everything must be at rest: no ring or spill list holds anything, every PING has its PONG. Then the clients that
//! wait for something that did not come give up waiting, one by one, until all are done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::actor::Actor;
use super::check::check;
use super::client::{Client, Plan};
use super::history::{Deeds, History};
use super::world::{self, Audit, Pipe, World, with};
use crate::auth::Directory;
use crate::config::Options;
use crate::shard::peers::mesh;
use crate::shard::rules::{Rule, break_rule};
use crate::shard::{Config, Shared};
use crate::wire::info::{ServerInfo, TlsNotice};

/// What is simulated.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) shards: usize,
    pub(super) ring_slots: usize,
    pub(super) ring_bytes: usize,
    pub(super) clients: Vec<Plan>,
    /// Scheduler steps within which everything must be done.
    pub(super) steps_max: u64,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Equal for equal runs.
    pub(super) trace: u64,
    pub(super) steps: u64,
    /// Most bytes of messages in the spill lists of one shard.
    pub(super) spill_bytes_peak: usize,
    /// Most connections of one shard held at once.
    pub(super) held_peak: usize,
    pub(super) verdict: Result<(), String>,
}

/// Simulates `scenario` with `seed`; with `rule` broken, if one is given.
pub(super) fn simulate(seed: u64, scenario: &Scenario, rule: Option<Rule>) -> Outcome {
    break_rule(rule);
    let pipes = scenario.clients.iter().map(|plan| Pipe { capacity: plan.pipe_bytes, ..Pipe::default() }).collect();
    world::set(Some(World::new(seed, scenario.shards, pipes)));
    let mut run = Run::new(seed, scenario);
    let ended = catch_unwind(AssertUnwindSafe(|| run.play()));
    let verdict = ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("of some kind")))
    });
    // Coroutines are left to return by themselves, also after a failure.
    with(|world| world.stopping = true);
    for actor in &mut run.actors {
        while !actor.is_done() && catch_unwind(AssertUnwindSafe(|| actor.go_on())).is_ok() {}
    }
    let outcome = with(|world| Outcome {
        trace: world.trace,
        steps: run.steps,
        spill_bytes_peak: world.places.iter().map(|place| place.spill_bytes_peak).max().unwrap_or(0),
        held_peak: world.places.iter().map(|place| place.held_peak).max().unwrap_or(0),
        verdict,
    });
    drop(run);
    world::set(None);
    break_rule(None);
    outcome
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Shard(usize),
    Client(usize),
    Bell(usize),
}

struct Run {
    actors: Vec<Actor>,
    clients: Vec<Client>,
    history: History,
    rng: fastrand::Rng,
    steps: u64,
    steps_max: u64,
    /// Chances of shards, clients and bells.
    chances: Vec<u32>,
    /// By shard: not before this step.
    frozen: Vec<u64>,
    freezes: u32,
    /// Who went on last.
    last: Option<Who>,
}

/// A shard that has more turns than this while nobody else does anything is busy for nothing.
const LONELY_TURNS_MAX: u32 = 100;

/// Waits in simulated time that are left out at once; longer ones belong to idle connections.
const NAP: u64 = 1_000_000_000;
const HOUR: u64 = 3_600_000_000_000;

impl Run {
    fn new(seed: u64, scenario: &Scenario) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5EED);
        let options = Options::default();
        let info = ServerInfo {
            server_id: "S".to_owned(),
            server_name: "S".to_owned(),
            host: "h".to_owned(),
            port: 1,
            tls: TlsNotice::default(),
        };
        let config = Config {
            closed_records: 2,
            ping_interval: HOUR,
            write_deadline: HOUR,
            auth_timeout: HOUR,
            ..Config::new(&options, scenario.shards, Arc::new(Directory::new(&options)), Arc::new(info))
        };
        let shared = Arc::new(Shared::new(scenario.shards));
        let links = mesh(scenario.shards, scenario.ring_slots, scenario.ring_bytes);
        let actors = links.into_iter().map(|links| Actor::new(config.clone(), shared.clone(), links, rng.u64(..)));
        let history = History {
            deeds: scenario.clients.iter().map(|plan| Deeds { echo: plan.echo, ..Deeds::default() }).collect(),
            ..History::default()
        };
        Self {
            actors: actors.collect(),
            clients: scenario.clients.iter().enumerate().map(|(n, plan)| Client::new(n, plan.clone())).collect(),
            history,
            chances: vec![1; 2 * scenario.shards + scenario.clients.len()],
            frozen: vec![0; scenario.shards],
            freezes: [0, 1, 4, 16][rng.usize(..4)],
            rng,
            last: None,
            steps: 0,
            steps_max: scenario.steps_max,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        let mut able = Vec::new();
        loop {
            self.steps += 1;
            if self.steps > self.steps_max {
                return Err(format!("not done after {} steps", self.steps_max));
            }
            if self.steps % 128 == 1 {
                self.chances.iter_mut().for_each(|chance| *chance = 1 << (2 * self.rng.u32(..5)));
            }
            self.list_able(&mut able, true);
            if able.is_empty() {
                self.list_able(&mut able, false);
            }
            match self.choose(&able) {
                Some(who) => self.go_on(who)?,
                None => {
                    if self.pass_time() {
                        continue;
                    }
                    self.check_rest()?;
                    if !self.give_up_a_wait() {
                        return check(&self.history);
                    }
                }
            }
        }
    }

    fn list_able(&self, able: &mut Vec<Who>, heeds_frost: bool) {
        able.clear();
        let steps: Vec<usize> = self.clients.iter().map(|client| client.step).collect();
        with(|world| {
            for (n, place) in world.places.iter().enumerate() {
                let wants = !place.asleep || place.is_due(world.clock());
                if wants && (!heeds_frost || self.frozen[n] <= self.steps) {
                    able.push(Who::Shard(n));
                }
                if place.rung {
                    able.push(Who::Bell(n));
                }
            }
        });
        for (n, client) in self.clients.iter().enumerate() {
            if !client.connected || client.can_step(&steps) || client.can_send() || client.can_receive() {
                able.push(Who::Client(n));
            }
        }
    }

    fn choose(&mut self, able: &[Who]) -> Option<Who> {
        let chance = |who: &Who| match *who {
            Who::Shard(n) => self.chances[n],
            Who::Bell(n) => self.chances[self.actors.len() + n],
            Who::Client(n) => self.chances[2 * self.actors.len() + n],
        };
        let all: u32 = able.iter().map(chance).sum();
        if all == 0 {
            return None;
        }
        let mut left = self.rng.u32(..all);
        able.iter().copied().find(|who| {
            let own = chance(who);
            let found = left < own;
            left = left.wrapping_sub(own);
            found
        })
    }

    fn go_on(&mut self, who: Who) -> Result<(), String> {
        match who {
            Who::Shard(n) => {
                self.actors[n].go_on();
                let asleep = with(|world| {
                    world.event(0x100 + n as u64);
                    if self.last != Some(who) {
                        world.places[n].lonely_turns = 0;
                    }
                    world.places[n].asleep
                });
                if !asleep && self.rng.u32(..64) < self.freezes {
                    self.frozen[n] = self.steps + self.rng.u64(..400);
                }
            }
            Who::Bell(n) => with(|world| {
                world.event(0x200 + n as u64);
                let place = &mut world.places[n];
                (place.rung, place.roused) = (false, true);
            }),
            Who::Client(n) => self.client_goes_on(n),
        }
        self.last = Some(who);
        match who {
            Who::Shard(n) if with(|world| world.places[n].lonely_turns) > LONELY_TURNS_MAX => {
                Err(format!("shard {n} takes turn after turn and waits for others"))
            }
            _ => Ok(()),
        }
    }

    fn client_goes_on(&mut self, n: usize) {
        let steps: Vec<usize> = self.clients.iter().map(|client| client.step).collect();
        let (client, history) = (&mut self.clients[n], &mut self.history);
        if !client.connected {
            client.connected = true;
            with(|world| world.places[client.shard()].arrivals.push(n));
            return;
        }
        let able = [client.can_step(&steps), client.can_send(), client.can_receive()];
        let count = able.iter().filter(|able| **able).count();
        let chosen = self.rng.usize(..count);
        let (what, _) = able.iter().enumerate().filter(|(_, able)| **able).nth(chosen).expect("fewer than there are");
        match what {
            0 => client.take_step(history),
            1 => client.send(history),
            _ => client.receive(history),
        }
    }

    /// With nobody able to go on, lets the clock jump to the next deadline, if that is near.
    fn pass_time(&mut self) -> bool {
        with(|world| {
            let next = world.places.iter().filter_map(|place| place.deadline).min();
            let jumps = next.filter(|at| *at <= world.clock() + NAP);
            if let Some(at) = jumps {
                world.advance_to(at);
            }
            jumps.is_some()
        })
    }

    /// Everybody sleeps or waits: nothing may be left over anywhere.
    fn check_rest(&mut self) -> Result<(), String> {
        with(|world| world.auditing = true);
        for actor in &mut self.actors {
            actor.go_on();
        }
        let audits: Vec<Audit> = with(|world| {
            world.auditing = false;
            world.places.iter().map(|place| place.audit).collect()
        });
        for (n, audit) in audits.iter().enumerate() {
            if audit.ring_input || audit.spilled || audit.held > 0 || audit.unserved > 0 {
                return Err(format!("shard {n} sleeps with work to do: {audit:?}, all: {audits:?}"));
            }
        }
        match self.clients.iter().position(Client::is_unanswered) {
            Some(n) => Err(format!("client {n} is not answered: {:?}", self.clients[n])),
            None => Ok(()),
        }
    }

    /// Lets one waiting client go on as if what it waits for had come. `false` if none waits.
    fn give_up_a_wait(&mut self) -> bool {
        let waiting: Vec<usize> = (0..self.clients.len()).filter(|n| self.clients[*n].is_waiting()).collect();
        let Some(n) = self.rng.choice(&waiting) else { return false };
        self.clients[*n].step += 1;
        true
    }
}
