//! Work against a streaming service: what is published and acknowledged, delivered and acknowledged, read again from
//! the beginning, and what idle things cost.

use std::time::Duration;

use crate::args::Options;
use crate::block::subject_names;
use crate::drive::Target;
use crate::failure::{Failure, Outcome};
use crate::figures::{FigureList, Run};
use crate::modes::{Job, at_least_one};
use crate::plan::Verdict;
use crate::procfs::ProcessProbe;
use crate::progress::Progress;
use crate::stan::args::{Reading, Work};
use crate::stan::fleet::{Fleet, Pace};
use crate::stan::session::Wanted;
use crate::stan::wire::Start;
use crate::stats::{Better, latency_figures};
use crate::sys::{self, now_ns};

/// Publishes of a client under way, unless told otherwise.
const WINDOW: usize = 4096;

/// Messages to read again, unless told otherwise.
const REPLAYED: u64 = 1_000_000;

/// Longest wait for what is still under way when publishing has ended, and for the next message of a replay.
const DRAIN: Duration = Duration::from_secs(20);

/// Time between looks at the progress.
const STEP: Duration = Duration::from_millis(100);

/// Time for the server to come to rest before memory is read. Leat gives back what only work needs after five seconds.
const SETTLE: Duration = Duration::from_secs(8);

/// Does the work once.
pub(crate) fn run(job: &Job, target: &Target, progress: &Progress, cluster: &str, work: &Work) -> Outcome<Run> {
    let options = &job.options;
    if options.threads != 1 {
        return Err(Failure::new("stan works with one thread"));
    }
    if options.headers != 0 {
        return Err(Failure::new("messages of a streaming service have no headers"));
    }
    let channels = subject_names(&options.subject, options.subjects);
    let fleet = Fleet::new(options.spin, options.max_time)?;
    let mut bench = Bench { job, target, progress, cluster, channels, fleet };
    let run = match work {
        Work::Pub { clients, sync } => bench.publish(*clients, *sync),
        Work::Sub { clients, start, no_acks, reading } => bench.subscribe(*clients, *start, !no_acks, reading),
        Work::Pubsub { pubs, subs, reading } => bench.publish_and_subscribe(*pubs, *subs, reading),
        Work::Replay { fill, reading } => bench.replay(*fill, reading),
        Work::Idle { durables, channels } => bench.idle(*durables, *channels),
    }?;
    bench.fleet.close()?;
    Ok(run)
}

/// The work in a few words.
pub(crate) fn describe(work: &Work, options: &Options, size: &str) -> String {
    let window = window(options);
    match work {
        Work::Pub { sync: true, .. } => format!("publish {size}, one by one"),
        Work::Pub { clients: 1, .. } => format!("publish {size}, {window} under way"),
        Work::Pub { clients, .. } => format!("publish {size}, {clients} clients, {window} under way"),
        Work::Sub { clients, .. } => format!("subscribe only, {clients} clients"),
        Work::Pubsub { pubs: 1, subs: 1, .. } => format!("1:1 {size}"),
        Work::Pubsub { pubs, subs, .. } => format!("{pubs} to {subs}, {size}"),
        Work::Replay { .. } => format!("replay of {}", options.count.unwrap_or(REPLAYED)),
        Work::Idle { durables: 0, channels } => format!("{channels} idle channels"),
        Work::Idle { durables, .. } => format!("{durables} idle durables"),
    }
}

/// The publishes that a client may have under way.
fn window(options: &Options) -> u64 {
    options.window.unwrap_or(WINDOW).max(1) as u64
}

/// One piece of work under way.
struct Bench<'a> {
    job: &'a Job,
    target: &'a Target,
    progress: &'a Progress,
    cluster: &'a str,
    channels: Vec<String>,
    fleet: Fleet,
}

/// Counts and CPU times at one moment.
#[derive(Clone, Copy)]
struct Moment {
    at_ns: u64,
    acknowledged: u64,
    delivered: u64,
    server_cpu_ns: Option<u64>,
    own_cpu_ns: u64,
}

impl Bench<'_> {
    fn publish(&mut self, clients: usize, sync: bool) -> Outcome<Run> {
        self.add_publishers(clients, if sync { 1 } else { window(&self.job.options) })?;
        let (first, last) = self.measure(0)?;
        let mut list = FigureList::default();
        list.push("rate_per_s", "acknowledged publishes", "/s", Better::More, rate(first, last, |m| m.acknowledged));
        costs(&mut list, first, last, last.acknowledged - first.acknowledged);
        let latency = self.fleet.tally.publish_latency.clone();
        latency_figures(&latency, "latency", "publish to acknowledgement", &mut list.0);
        Ok(self.report("publishes", list, Some(latency), self.publish_verdict()))
    }

    fn subscribe(&mut self, clients: usize, start: Start, acknowledges: bool, reading: &Reading) -> Outcome<Run> {
        self.add_subscribers(clients, start, acknowledges, reading)?;
        let window = self.job.options.window_time();
        let first = self.moment()?;
        let begin = now_ns();
        match self.job.options.count {
            Some(count) => {
                let goal = count * clients as u64;
                self.await_progress(u64::MAX, |fleet| (fleet.tally.delivered, goal))?;
            }
            None => self.await_progress(begin + window.as_nanos() as u64, |_| (0, u64::MAX))?,
        }
        let last = self.moment()?;
        let mut list = FigureList::default();
        list.push("rate_per_s", "deliveries", "/s", Better::More, rate(first, last, |m| m.delivered));
        list.push("delivered", "messages delivered", "", Better::Neither, last.delivered as f64);
        costs(&mut list, first, last, last.delivered - first.delivered);
        Ok(self.report("deliveries", list, None, None))
    }

    fn publish_and_subscribe(&mut self, pubs: usize, subs: usize, reading: &Reading) -> Outcome<Run> {
        at_least_one("--subs", subs)?;
        self.add_publishers(pubs, window(&self.job.options))?;
        self.add_subscribers(subs, Start::New, true, reading)?;
        let copies = if reading.queue.is_empty() { subs as u64 } else { 1 };
        let (first, last) = self.measure(copies)?;
        let mut list = FigureList::default();
        list.push("rate_per_s", "deliveries", "/s", Better::More, rate(first, last, |m| m.delivered));
        let published = rate(first, last, |m| m.acknowledged);
        list.push("publish_rate_per_s", "acknowledged publishes", "/s", Better::More, published);
        costs(&mut list, first, last, last.delivered - first.delivered);
        let latency = self.fleet.tally.delivery_latency.clone();
        if latency.is_empty() {
            // Payloads without room for a stamp tell no time.
            latency_figures(
                &self.fleet.tally.publish_latency,
                "ack_latency",
                "publish to acknowledgement",
                &mut list.0,
            );
            return Ok(self.report("deliveries", list, None, self.delivery_verdict(copies)));
        }
        latency_figures(&latency, "latency", "publish to delivery", &mut list.0);
        latency_figures(&self.fleet.tally.publish_latency, "ack_latency", "publish to acknowledgement", &mut list.0);
        Ok(self.report("deliveries", list, Some(latency), self.delivery_verdict(copies)))
    }

    fn replay(&mut self, fill: bool, reading: &Reading) -> Outcome<Run> {
        let count = self.job.options.count.unwrap_or(REPLAYED);
        self.channels.truncate(1);
        if fill {
            self.fill(count)?;
        }
        let before = self.fleet.tally.delivered;
        let first = self.moment()?;
        self.add_subscribers(1, Start::First, true, reading)?;
        let mut seen = (0, now_ns());
        loop {
            self.fleet.run_until(now_ns() + STEP.as_nanos() as u64, |fleet| fleet.tally.delivered - before >= count)?;
            let read = self.fleet.tally.delivered - before;
            self.progress.show(&self.job.label, 0, read.min(count), count);
            if read >= count {
                break;
            }
            if read > seen.0 {
                seen = (read, now_ns());
            } else if now_ns() - seen.1 > DRAIN.as_nanos() as u64 {
                return Err(Failure::new(format!(
                    "the channel has {read} messages only; --fill publishes what it lacks"
                )));
            }
        }
        let last = self.moment()?;
        self.progress.clear();
        let mut list = FigureList::default();
        list.push("rate_per_s", "messages read again", "/s", Better::More, rate(first, last, |m| m.delivered));
        let seconds = (last.at_ns - first.at_ns) as f64 / 1e9;
        list.push("seconds", "time for all of them", "s", Better::Less, seconds);
        costs(&mut list, first, last, last.delivered - first.delivered);
        Ok(self.report("messages", list, None, None))
    }

    /// Publishes as many messages as the channel lacks to have `count`.
    fn fill(&mut self, count: u64) -> Outcome<()> {
        self.add_publishers(1, WINDOW as u64)?;
        self.publish_all(1)?;
        let reading = Reading { max_in_flight: 1, ack_wait: 30, durable: String::new(), queue: String::new() };
        self.add_subscribers(1, Start::Last, false, &reading)?;
        let reader = self.fleet.sessions.len() - 1;
        let until = now_ns() + DRAIN.as_nanos() as u64;
        self.fleet.run_until(until, |fleet| fleet.sessions[reader].feeds()[0].received > 0)?;
        match self.fleet.sessions[reader].feeds()[0].last() {
            0 => Err(Failure::new("the last message of the channel is not delivered")),
            last => self.publish_all(count.saturating_sub(last)),
        }
    }

    /// Publishes this many messages and waits for all acknowledgements.
    fn publish_all(&mut self, count: u64) -> Outcome<()> {
        let before = self.fleet.tally.acknowledged;
        self.fleet.start(Pace::Closed, count);
        self.await_progress(u64::MAX, |fleet| (fleet.tally.acknowledged - before, count))?;
        self.fleet.stop();
        Ok(())
    }

    fn idle(&mut self, durables: u64, channels: u64) -> Outcome<Run> {
        if (durables == 0) == (channels == 0) {
            return Err(Failure::new("say how many --durables, or how many --channels"));
        }
        let count = durables.max(channels);
        at_least_one("--durables or --channels", usize::try_from(count).unwrap_or(usize::MAX))?;
        let Some(probe) = self.target.probe.as_ref() else {
            return Err(Failure::new("memory can only be read with --pid or --pid-file"));
        };
        let resident = || -> Outcome<f64> {
            let memory = probe.memory().ok_or_else(|| Failure::new("the server's memory cannot be read"))?;
            Ok(memory.resident_bytes as f64)
        };
        if channels > 0 {
            self.channels = subject_names(&self.job.options.subject, count as usize);
        }
        self.add_publishers(1, WINDOW as u64)?;
        if durables > 0 {
            // The channels are there before memory is read.
            self.publish_all(self.channels.len() as u64)?;
        }
        self.settle()?;
        let (before, began) = (resident()?, now_ns());
        if channels > 0 {
            self.publish_all(count)?;
        } else {
            let names: Vec<String> = (0..count).map(|at| format!("durable-{at}")).collect();
            let channels = &self.channels;
            let wanted = |at: u64| Wanted {
                channel: &channels[at as usize % channels.len()],
                queue: "",
                durable: &names[at as usize],
                max_in_flight: 1024,
                ack_wait: 30,
                start: Start::New,
                acknowledges: true,
            };
            self.fleet.subscribe_many(0, count, wanted, self.progress)?;
        }
        let seconds = (now_ns() - began) as f64 / 1e9;
        self.settle()?;
        let each = (resident()? - before) / count as f64;
        self.progress.clear();
        let mut list = FigureList::default();
        list.push("rss_bytes_each", "memory for each", "B", Better::Less, each);
        list.push("rss_mib_per_10000", "memory for 10,000", "MiB", Better::Less, each * 10_000.0 / f64::from(1 << 20));
        list.push("rate_per_s", "made", "/s", Better::More, count as f64 / seconds);
        Ok(self.report(if channels > 0 { "channels" } else { "durables" }, list, None, None))
    }

    /// Lets time go by with nothing to do but heartbeats.
    fn settle(&mut self) -> Outcome<()> {
        self.fleet.run_until(now_ns() + SETTLE.as_nanos() as u64, |_| false)
    }

    fn add_publishers(&mut self, clients: usize, window: u64) -> Outcome<()> {
        at_least_one("the number of publishing clients", clients)?;
        for _ in 0..clients {
            self.fleet.add(&self.target.url, self.cluster)?;
        }
        self.fleet.publish_to(&self.channels, self.job.options.size, window);
        Ok(())
    }

    fn add_subscribers(&mut self, clients: usize, start: Start, acknowledges: bool, reading: &Reading) -> Outcome<()> {
        at_least_one("the number of subscribing clients", clients)?;
        for _ in 0..clients {
            let at = self.fleet.add(&self.target.url, self.cluster)?;
            for channel in &self.channels {
                self.fleet.subscribe(
                    at,
                    &Wanted {
                        channel,
                        queue: &reading.queue,
                        durable: &reading.durable,
                        max_in_flight: reading.max_in_flight,
                        ack_wait: reading.ack_wait,
                        start,
                        acknowledges,
                    },
                )?;
            }
        }
        Ok(())
    }

    /// Publishes for the measured window, or the number of messages, and waits for what is under way at its end. Each
    /// message is delivered `copies` times.
    fn measure(&mut self, copies: u64) -> Outcome<(Moment, Moment)> {
        let options = &self.job.options;
        let pace = match options.pace() {
            Some(rate) => Pace::Open { rate, start_ns: now_ns() },
            None => Pace::Closed,
        };
        let due = move |fleet: &Fleet| fleet.published() * copies;
        let publishers = self.fleet.sessions.len();
        let moments = match options.count {
            Some(count) => {
                let clients = if copies == 0 { publishers } else { self.publishers() };
                let total = count * clients as u64;
                self.fleet.tally.record(0, u64::MAX);
                let first = self.moment()?;
                self.fleet.start(pace, total);
                self.await_progress(u64::MAX, |fleet| {
                    let both = fleet.tally.acknowledged.min(fleet.tally.delivered / copies.max(1));
                    (if copies == 0 { fleet.tally.acknowledged } else { both }, total)
                })?;
                (first, self.moment()?)
            }
            None => {
                self.fleet.start(pace, u64::MAX);
                self.fleet.run_until(now_ns() + options.warmup.as_nanos() as u64, |_| false)?;
                let begin = now_ns();
                let until = begin + options.window_time().as_nanos() as u64;
                self.fleet.tally.record(begin, until);
                let first = self.moment()?;
                self.await_progress(until, |_| (0, u64::MAX))?;
                (first, self.moment()?)
            }
        };
        self.fleet.stop();
        let until = now_ns() + DRAIN.as_nanos() as u64;
        self.fleet.run_until(until, |fleet| fleet.outstanding() == 0 && fleet.tally.delivered >= due(fleet))?;
        self.progress.clear();
        Ok(moments)
    }

    /// Those of the clients that have nothing subscribed.
    fn publishers(&self) -> usize {
        self.fleet.sessions.iter().filter(|session| session.feeds().is_empty()).count()
    }

    /// Works until `state` has reached its goal, or this time has come; shows how far it is.
    fn await_progress(&mut self, until_ns: u64, state: impl Fn(&Fleet) -> (u64, u64)) -> Outcome<()> {
        let begin = now_ns();
        loop {
            let step = (now_ns() + STEP.as_nanos() as u64).min(until_ns);
            let reached = |fleet: &Fleet| {
                let (is, goal) = state(fleet);
                is >= goal
            };
            self.fleet.run_until(step, reached)?;
            if reached(&self.fleet) || now_ns() >= until_ns {
                return Ok(());
            }
            match until_ns {
                u64::MAX => {
                    let (is, goal) = state(&self.fleet);
                    self.progress.show(&self.job.label, 0, is, goal);
                }
                _ => self.progress.show(&self.job.label, begin, now_ns(), until_ns),
            }
        }
    }

    fn moment(&self) -> Outcome<Moment> {
        Ok(Moment {
            at_ns: now_ns(),
            acknowledged: self.fleet.tally.acknowledged,
            delivered: self.fleet.tally.delivered,
            server_cpu_ns: self.target.probe.as_ref().map(ProcessProbe::cpu_ns).transpose()?,
            own_cpu_ns: sys::own_cpu_ns(),
        })
    }

    /// Every publish is acknowledged once.
    fn publish_verdict(&self) -> Option<Verdict> {
        let sessions = &self.fleet.sessions;
        Some(Verdict {
            expected: self.fleet.published(),
            received: self.fleet.tally.acknowledged,
            lost: self.fleet.outstanding(),
            duplicate: sessions.iter().map(|session| session.surplus()).sum(),
        })
    }

    /// Every publish is delivered once, not counting what comes again.
    fn delivery_verdict(&self, copies: u64) -> Option<Verdict> {
        let (expected, received) = (self.fleet.published() * copies, self.fleet.tally.delivered);
        Some(Verdict {
            expected,
            received,
            lost: expected.saturating_sub(received) + self.fleet.outstanding(),
            duplicate: received.saturating_sub(expected),
        })
    }

    fn report(
        &self,
        unit: &'static str,
        list: FigureList,
        latency: Option<hdrhistogram::Histogram<u64>>,
        verdict: Option<Verdict>,
    ) -> Run {
        let feeds = || self.fleet.sessions.iter().flat_map(|session| session.feeds());
        let is_shared = matches!(&self.job.mode, crate::args::Mode::Stan { work, .. } if work.is_shared());
        let gaps = if is_shared { 0 } else { feeds().map(|feed| feed.gaps).sum::<u64>() };
        let early: u64 = feeds().map(|feed| feed.early).sum();
        let redelivered: u64 = feeds().map(|feed| feed.redelivered).sum();
        let mut notes = Vec::new();
        for (count, text) in [
            (gaps, "first deliveries were not the successor of the one before"),
            (early, "messages came before the answer to their subscription"),
            (redelivered, "messages came again"),
        ] {
            if count > 0 {
                notes.push(format!("{count} {text}"));
            }
        }
        let wrong = verdict.is_some_and(|verdict| verdict.lost > 0 || verdict.duplicate > 0);
        Run {
            label: self.job.label.clone(),
            server: self.target.url.to_string(),
            unit,
            figures: list.0,
            latency,
            verdict,
            notes,
            faulty: wrong || gaps > 0 || early > 0,
            parameters: self.job.parameters(),
        }
    }
}

/// Something counted, per second.
fn rate(first: Moment, last: Moment, count: impl Fn(Moment) -> u64) -> f64 {
    (count(last) - count(first)) as f64 * 1e9 / (last.at_ns - first.at_ns).max(1) as f64
}

/// CPU times of both sides.
fn costs(list: &mut FigureList, first: Moment, last: Moment, units: u64) {
    let elapsed_ns = (last.at_ns - first.at_ns).max(1) as f64;
    if let (Some(before), Some(after)) = (first.server_cpu_ns, last.server_cpu_ns) {
        let used_ns = (after - before) as f64;
        let each = used_ns / 1e3 / units.max(1) as f64;
        list.push("server_cpu_us_per_message", "server CPU per message", "µs", Better::Less, each);
        let share = used_ns * 100.0 / elapsed_ns;
        list.push("server_cpu_percent", "server CPU", "% of a core", Better::Neither, share);
    }
    let share = (last.own_cpu_ns - first.own_cpu_ns) as f64 * 100.0 / elapsed_ns;
    list.push("load_cpu_percent", "load CPU", "% of a core", Better::Neither, share);
}
