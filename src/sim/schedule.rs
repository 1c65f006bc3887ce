//! The scheduler: one seed decides who goes on, how far, and with how many bytes.
//!
//! Actors are shards, clients and doorbells on their way. Their chances differ by far and change all the time, and a
//! shard may be frozen in the middle of a turn for long, so that narrow races become common. When nobody can go on,
//! everything must be at rest: no ring or spill list holds anything, every PING has its PONG. Then the clients that
//! wait for something that did not come give up waiting, one by one, until all are done.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::access::{Age, Reload};
use super::actor::Actor;
use super::check::check;
use super::client::{Client, Plan};
use super::history::{Deeds, History};
use super::world::{self, Audit, Pipe, World, with};
use crate::auth::Directory;
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
    /// The configuration at the start, and those that take its place; none if the server is open to everybody.
    pub(super) ages: Vec<Age>,
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
    /// Who judges the logins of a shard.
    Judge(usize),
    /// Who reloads.
    Control,
}

struct Run {
    actors: Vec<Actor>,
    clients: Vec<Client>,
    history: History,
    rng: fastrand::Rng,
    steps: u64,
    steps_max: u64,
    /// Chances of shards, bells, clients and judges.
    chances: Vec<u32>,
    /// By shard: not before this step.
    frozen: Vec<u64>,
    freezes: u32,
    /// Configurations to come, the next one first, and not before which step.
    to_come: VecDeque<(u64, Config)>,
    /// Who went on last.
    last: Option<Who>,
}

/// A shard that has more turns than this while nobody else does anything is busy for nothing.
const LONELY_TURNS_MAX: u32 = 100;

/// Waits in simulated time that are left out at once; longer ones belong to idle connections.
const NAP: u64 = 1_000_000_000;
/// A reload comes at some step before this one, if not earlier because everybody waits.
const RELOAD_STEP_MAX: u64 = 3000;
const HOUR: u64 = 3_600_000_000_000;

impl Run {
    fn new(seed: u64, scenario: &Scenario) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5EED);
        let info = Arc::new(ServerInfo {
            server_id: "S".to_owned(),
            server_name: "S".to_owned(),
            host: "h".to_owned(),
            port: 1,
            tls: TlsNotice::default(),
        });
        let options = scenario.ages.first().map(Age::options).unwrap_or_default();
        let mut directory = Arc::new(Directory::new(&options));
        let config = Config {
            closed_records: 2,
            ping_interval: HOUR,
            write_deadline: HOUR,
            auth_timeout: HOUR,
            ..Config::new(&options, scenario.shards, directory.clone(), info)
        };
        let mut to_come = VecDeque::new();
        for age in scenario.ages.iter().skip(1) {
            directory = Arc::new(directory.successor(&age.options()));
            to_come.push_back((rng.u64(..RELOAD_STEP_MAX), Config { directory: directory.clone(), ..config.clone() }));
        }
        let shared = Arc::new(Shared::new(scenario.shards));
        let links = mesh(scenario.shards, scenario.ring_slots, scenario.ring_bytes);
        let actors = links.into_iter().map(|links| Actor::new(config.clone(), shared.clone(), links, rng.u64(..)));
        let history = History {
            deeds: scenario
                .clients
                .iter()
                .map(|plan| Deeds { echo: plan.echo, user: plan.user, ..Deeds::default() })
                .collect(),
            ages: scenario.ages.clone(),
            reloads: vec![Reload::default(); scenario.ages.len().saturating_sub(1)],
            ..History::default()
        };
        Self {
            actors: actors.collect(),
            clients: scenario.clients.iter().enumerate().map(|(n, plan)| Client::new(n, plan.clone())).collect(),
            history,
            chances: vec![1; 3 * scenario.shards + scenario.clients.len()],
            frozen: vec![0; scenario.shards],
            freezes: [0, 1, 4, 16][rng.usize(..4)],
            to_come,
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
                    if self.pass_time() || self.begin_reload() {
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
                if !place.checks.is_empty() {
                    able.push(Who::Judge(n));
                }
            }
        });
        if self.to_come.front().is_some_and(|(step, _)| *step <= self.steps) && !self.is_reloading() {
            able.push(Who::Control);
        }
        let reloads = self.history.reloads_done();
        for (n, client) in self.clients.iter().enumerate() {
            if !client.connected || client.can_step(&steps, reloads) || client.can_send() || client.can_receive() {
                able.push(Who::Client(n));
            }
        }
    }

    fn choose(&mut self, able: &[Who]) -> Option<Who> {
        let chance = |who: &Who| match *who {
            Who::Shard(n) => self.chances[n],
            Who::Bell(n) => self.chances[self.actors.len() + n],
            Who::Client(n) => self.chances[2 * self.actors.len() + n],
            Who::Judge(n) => self.chances[2 * self.actors.len() + self.clients.len() + n],
            Who::Control => 1,
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
                self.note_reload();
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
            Who::Judge(n) => with(|world| {
                world.event(0x300 + n as u64);
                // Whatever came first, each takes its own time.
                let chosen = world.rng.usize(..world.places[n].checks.len());
                let (slot, cid, check) = world.places[n].checks.swap_remove(chosen);
                world.places[n].decided.push((slot, cid, check.decide()));
            }),
            Who::Control => {
                self.begin_reload();
            }
        }
        self.last = Some(who);
        match who {
            Who::Shard(n) if with(|world| world.places[n].lonely_turns) > LONELY_TURNS_MAX => {
                Err(format!("shard {n} takes turn after turn and waits for others"))
            }
            _ => Ok(()),
        }
    }

    fn is_reloading(&self) -> bool {
        with(|world| world.places.iter().any(|place| place.reload.is_some()))
    }

    /// Gives all shards the next configuration. `false` if there is none.
    fn begin_reload(&mut self) -> bool {
        let Some((_, config)) = self.to_come.pop_front() else { return false };
        let number = self.history.reloads.len() - self.to_come.len() - 1;
        self.history.reloads[number].begun = Some(with(|world| {
            world.places.iter_mut().for_each(|place| place.reload = Some(config.clone()));
            world.event(8)
        }));
        true
    }

    /// Takes note if the last shard has just taken a configuration.
    fn note_reload(&mut self) {
        let pending = self.history.reloads.iter_mut().find(|reload| reload.begun.is_some() && reload.done.is_none());
        if let Some(reload) = pending
            && with(|world| world.places.iter().all(|place| place.reload.is_none()))
        {
            reload.done = Some(with(|world| world.event(9)));
        }
    }

    fn client_goes_on(&mut self, n: usize) {
        let steps: Vec<usize> = self.clients.iter().map(|client| client.step).collect();
        let reloads = self.history.reloads_done();
        let (client, history) = (&mut self.clients[n], &mut self.history);
        if !client.connected {
            client.connected = true;
            history.deeds[n].connected = Some(with(|world| {
                world.places[client.shard()].arrivals.push(n);
                world.clock()
            }));
            return;
        }
        let able = [client.can_step(&steps, reloads), client.can_send(), client.can_receive()];
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
