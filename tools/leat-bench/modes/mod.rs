//! The modes: from the command line to a plan, or to a procedure of its own.

pub(crate) mod connect;
pub(crate) mod flow;
pub(crate) mod handshakes;
pub(crate) mod ping;
pub(crate) mod request;
pub(crate) mod sink;
pub(crate) mod stan;
pub(crate) mod subs;
pub(crate) mod suite;

use serde_json::{Value, json};

use crate::args::{Mode, Options};
use crate::block::Block;
use crate::drive::{Target, drive};
use crate::failure::{Failure, Outcome};
use crate::figures::Run;
use crate::progress::Progress;
use crate::units::Batch;

/// Bytes outstanding per subscriber, unless there are many.
const WINDOW_BYTES: usize = 4 << 20;

/// Bytes outstanding over all subscribers, as far as `WINDOW_BYTES_MIN` permits.
const WINDOW_BYTES_TOTAL: usize = 64 << 20;

/// Bytes outstanding per subscriber at least.
const WINDOW_BYTES_MIN: usize = 64 << 10;

/// One piece of work, done once per round and server.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// What it is called in tables.
    pub(crate) label: String,
    /// What it does.
    pub(crate) mode: Mode,
    /// How.
    pub(crate) options: Options,
}

impl Job {
    /// The work that the command line describes.
    pub(crate) fn from_command_line(mode: &Mode, options: &Options) -> Job {
        Job { label: describe(mode, options), mode: mode.clone(), options: options.clone() }
    }

    /// What was asked for, for reports.
    pub(crate) fn parameters(&self) -> Value {
        json!({ "mode": self.mode.name(), "mode_options": self.mode.as_json(), "options": self.options.as_json() })
    }

    /// Does the work once.
    pub(crate) fn run(&self, target: &Target, progress: &Progress) -> Outcome<Run> {
        self.options.check()?;
        let options = &self.options;
        let plan = match &self.mode {
            Mode::Pub { publishers } => flow::plan_pub(options, *publishers)?,
            Mode::Sub { subs, queue, latency } => flow::plan_sub(options, *subs, queue.as_deref(), *latency)?,
            Mode::Pubsub { pairs } => flow::plan_pairs(options, *pairs)?,
            Mode::Fanout { subs } => flow::plan_fanout(options, *subs)?,
            Mode::Queue { members, publishers } => flow::plan_queue(options, *members, *publishers)?,
            Mode::Request { parallel, connections, responders, inbox_per_request } => {
                request::plan(options, *parallel, *connections, *responders, *inbox_per_request)?
            }
            Mode::Subs { subscriptions, matches, connections, published_subjects } => {
                subs::plan(options, *subscriptions, *matches, *connections, *published_subjects)?
            }
            Mode::Ping { publishers, pairs } => ping::plan(options, *publishers, *pairs)?,
            Mode::Connect { connections, in_flight, hold, with_sub } => {
                return connect::run(self, target, progress, *connections, *in_flight, *hold, *with_sub);
            }
            Mode::Handshakes { connections, pairs, tls_url, tlscacert, handshake_cpus } => {
                let cpus = handshake_cpus.as_ref();
                return handshakes::run(
                    self,
                    target,
                    progress,
                    *connections,
                    *pairs,
                    tls_url.as_ref(),
                    tlscacert,
                    cpus,
                );
            }
            Mode::Stan { cluster, work } => return stan::run(self, target, progress, cluster, work),
            Mode::Suite { .. } | Mode::Sink { .. } => {
                return Err(Failure::new("a suite or a sink is not a single piece of work"));
            }
        };
        drive(plan, self, target, progress)
    }
}

impl Options {
    /// Refuses what cannot work, with the reason.
    fn check(&self) -> Outcome<()> {
        let complain = |text: &str| Err(Failure::new(text));
        if self.subject.is_empty() || self.subject.bytes().any(|byte| byte.is_ascii_whitespace()) {
            return complain("--subject must be a word");
        }
        if self.subject.contains(['*', '>']) {
            return complain("--subject must be without wildcards");
        }
        if self.subjects == 0 || self.threads == 0 || self.rate == Some(0) || self.count == Some(0) {
            return complain("--subjects, --threads, --rate and --count must be at least 1");
        }
        if self.subjects > 1_000_000 || self.threads > 1024 || self.size > 64 << 20 {
            return complain("at most 1,000,000 --subjects, 1024 --threads and 64 MiB --size");
        }
        if self.count.is_none() && self.window_time().is_zero() {
            return complain("--duration must be longer than nothing");
        }
        Ok(())
    }

    /// Messages outstanding between a publisher and its subscribers.
    pub(crate) fn window_messages(&self, frame_bytes: usize, subscribers: usize) -> u64 {
        let share = (WINDOW_BYTES_TOTAL / subscribers.max(1)).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES);
        (self.window.unwrap_or(share) / frame_bytes).max(2) as u64
    }

    /// Most messages per write.
    pub(crate) fn batch_messages(&self, block: &Block) -> u64 {
        match self.batch {
            Batch::Bytes(bytes) => (bytes / block.frame_bytes).max(1) as u64,
            Batch::Messages(count) => count as u64,
        }
    }

    /// Bytes a block must hold for one write.
    pub(crate) fn block_bytes(&self) -> usize {
        match self.batch {
            Batch::Bytes(bytes) => bytes.max(256 << 10),
            Batch::Messages(_) => 256 << 10,
        }
    }

    /// The schedule's rate.
    pub(crate) fn pace(&self) -> Option<f64> {
        self.rate.map(|rate| rate as f64)
    }
}

/// Refuses counts that make no sense.
pub(crate) fn at_least_one(what: &str, count: usize) -> Outcome<()> {
    match count {
        1..=1_000_000 => Ok(()),
        _ => Err(Failure::new(format!("{what} must be between 1 and 1,000,000"))),
    }
}

/// The work in a few words.
pub(crate) fn describe(mode: &Mode, options: &Options) -> String {
    let size = describe_size(options.size);
    let what = match mode {
        Mode::Pub { publishers: 1 } => format!("publish only {size}"),
        Mode::Pub { publishers } => format!("publish only {size}, {publishers} publishers"),
        Mode::Sub { subs, .. } => format!("subscribe only, {subs} connections"),
        Mode::Pubsub { pairs: 1 } => format!("1:1 {size}"),
        Mode::Pubsub { pairs } => format!("{pairs} pairs {size}"),
        Mode::Fanout { subs } => format!("fan-out {subs}, {size}"),
        Mode::Queue { members, .. } => format!("queue group of {members}, {size}"),
        Mode::Request { parallel, inbox_per_request, .. } => {
            let churn = if *inbox_per_request { ", inbox per request" } else { "" };
            format!("request/reply {parallel} outstanding, {size}{churn}")
        }
        Mode::Connect { connections, .. } => format!("{connections} connections"),
        Mode::Subs { subscriptions, matches, .. } => {
            format!("{subscriptions} subscriptions, {matches} matches, {size}")
        }
        Mode::Ping { publishers: 0, pairs: 0 } => "ping".to_owned(),
        Mode::Ping { publishers, pairs } => {
            format!("ping beside {publishers} publishers, {pairs} pairs, {size}")
        }
        Mode::Handshakes { connections, pairs: 1, .. } => format!("1:1 {size} beside {connections} handshakes"),
        Mode::Handshakes { connections, pairs, .. } => format!("{pairs} pairs {size} beside {connections} handshakes"),
        Mode::Stan { work, .. } => format!("streaming {}", stan::describe(work, options, &size)),
        Mode::Suite { .. } => "suite".to_owned(),
        Mode::Sink { .. } => "sink".to_owned(),
    };
    match options.rate {
        Some(rate) if rate % 1000 == 0 => format!("{what}, open loop {} k/s", rate / 1000),
        Some(rate) => format!("{what}, open loop {rate}/s"),
        None => what,
    }
}

fn describe_size(bytes: usize) -> String {
    match bytes {
        0 => "0 B".to_owned(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}
