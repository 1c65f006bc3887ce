//! From counts and CPU times at both ends of the measured window to the figures of a run.

use std::sync::atomic::Ordering::Relaxed;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::drive::Target;
use crate::failure::Outcome;
use crate::modes::Job;
use crate::plan::{Headline, Shared, Verdict};
use crate::procfs::{self, Memory, ProcessProbe};
use crate::stats::{Better, Figure, PERCENTILES, latency_figures};
use crate::sys;

/// A message sent later than this after its time shows that the sender could not keep the schedule.
const LAG_NS_TOLERATED: u64 = 1_000_000;

/// Part of the window that may pass between two confirmations before the reader is told.
const GAP_TOLERATED: f64 = 0.05;

/// Counts and CPU times at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    /// The moment the counts are of.
    pub(crate) at_ns: u64,
    /// The moment the CPU times are of.
    pub(crate) cpu_at_ns: u64,
    headline: u64,
    published: u64,
    asked: u64,
    processed: u64,
    server_cpu_ns: Option<u64>,
    own_cpu_ns: u64,
    machine_cpu_ns: Option<u64>,
    /// Longest time between two confirmations before this moment, where that bounds the accuracy.
    pub(crate) longest_gap_ns: u64,
}

impl Snapshot {
    /// Takes everything as close together as possible.
    pub(crate) fn take(shared: &Shared, headline: Headline, probe: Option<&ProcessProbe>) -> Outcome<Snapshot> {
        let server_cpu_ns = probe.map(ProcessProbe::cpu_ns).transpose()?;
        // Processed messages become known at intervals; their time is when the last ones did.
        let marked = headline == Headline::Processed && shared.counters.len() == 1;
        let last_ns = shared.counters[0].last_ns.load(Relaxed);
        let cpu_at_ns = sys::now_ns();
        Ok(Snapshot {
            headline: shared.headline(headline),
            at_ns: if marked && last_ns > 0 { last_ns } else { cpu_at_ns },
            cpu_at_ns,
            published: shared.total(|c| &c.published),
            asked: shared.total(|c| &c.asked),
            processed: shared.total(|c| &c.processed),
            server_cpu_ns,
            own_cpu_ns: sys::own_cpu_ns(),
            machine_cpu_ns: procfs::machine_cpu_ns(),
            longest_gap_ns: 0,
        })
    }
}

/// Everything known at the end of a run.
pub(crate) struct Measured {
    pub(crate) headline: Headline,
    pub(crate) first: Snapshot,
    pub(crate) last: Snapshot,
    pub(crate) verdict: Verdict,
    pub(crate) disordered: u64,
    pub(crate) unfinished: u64,
    pub(crate) latency: Option<Histogram<u64>>,
    pub(crate) lag: Option<Histogram<u64>>,
    pub(crate) rate: Option<f64>,
    pub(crate) subscriptions: Option<u64>,
    pub(crate) setup_ns: u64,
    pub(crate) memory_before: Option<Memory>,
    pub(crate) memory_ready: Option<Memory>,
    pub(crate) memory_after: Option<Memory>,
}

/// The result of one run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// What was done, in a few words.
    pub(crate) label: String,
    /// The server's address.
    pub(crate) server: String,
    /// What is counted: messages, deliveries, …
    pub(crate) unit: &'static str,
    /// The figures, the most important first.
    pub(crate) figures: Vec<Figure>,
    /// In nanoseconds.
    pub(crate) latency: Option<Histogram<u64>>,
    /// Deliveries due and received, where that is known.
    pub(crate) verdict: Option<Verdict>,
    /// What a reader must know to trust the figures, or not.
    pub(crate) notes: Vec<String>,
    /// Whether messages were lost, doubled or out of order.
    pub(crate) faulty: bool,
    /// What was asked for.
    pub(crate) parameters: Value,
}

impl Run {
    /// The value of a figure.
    pub(crate) fn value(&self, key: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.key == key).map(|figure| figure.value)
    }

    /// As part of the JSON document.
    pub(crate) fn as_json(&self) -> Value {
        let figures: serde_json::Map<String, Value> =
            self.figures.iter().map(|figure| (figure.key.clone(), json!(figure.value))).collect();
        json!({
            "label": self.label,
            "server": self.server,
            "unit": self.unit,
            "parameters": self.parameters,
            "figures": figures,
            "latency_count": self.latency.as_ref().map(Histogram::len),
            "verified": self.verdict.map(|verdict| json!({
                "expected": verdict.expected,
                "received": verdict.received,
                "lost": verdict.lost,
                "duplicate": verdict.duplicate,
            })),
            "faulty": self.faulty,
            "notes": self.notes,
        })
    }
}

/// Collects figures.
#[derive(Default)]
pub(crate) struct FigureList(pub(crate) Vec<Figure>);

impl FigureList {
    /// Appends one.
    pub(crate) fn push(&mut self, key: &str, name: &str, unit: &'static str, better: Better, value: f64) {
        self.0.push(Figure { key: key.to_owned(), name: name.to_owned(), unit, value, better });
    }
}

impl Measured {
    /// Makes the figures.
    pub(crate) fn into_run(self, job: &Job, target: &Target) -> Outcome<Run> {
        let mut list = FigureList::default();
        self.push_rates(job, &mut list);
        self.push_cpu(&mut list);
        self.push_setup(&mut list);
        if let Some(latency) = &self.latency {
            latency_figures(latency, "latency", "latency", &mut list.0);
        }
        if let Some(lag) = &self.lag {
            latency_figures(lag, "lag", "sent late", &mut list.0);
        }
        let verifiable = self.verdict.expected > 0;
        let faulty = self.unfinished > 0
            || self.disordered > 0
            || (verifiable && (self.verdict.lost > 0 || self.verdict.duplicate > 0));
        Ok(Run {
            label: job.label.clone(),
            server: target.url.to_string(),
            unit: self.headline.unit(),
            notes: self.notes(job, &list),
            latency: self.latency,
            verdict: verifiable.then_some(self.verdict),
            faulty,
            parameters: job.parameters(),
            figures: list.0,
        })
    }

    fn seconds(&self) -> f64 {
        self.last.at_ns.saturating_sub(self.first.at_ns).max(1) as f64 / 1e9
    }

    fn units(&self) -> f64 {
        (self.last.headline - self.first.headline) as f64
    }

    fn push_rates(&self, job: &Job, list: &mut FigureList) {
        let unit = self.headline.unit();
        let rate = self.units() / self.seconds();
        list.push("rate_per_s", unit, "/s", Better::More, rate);
        let published = (self.last.published - self.first.published) as f64 / self.seconds();
        match self.headline {
            Headline::Delivered if published > 0.0 && (published / rate - 1.0).abs() > 0.2 => {
                list.push("published_per_s", "published", "/s", Better::More, published);
            }
            Headline::Probed if published > 0.0 => {
                let processed = (self.last.processed - self.first.processed) as f64 / self.seconds();
                list.push("beside_per_s", "messages beside", "/s", Better::More, processed.max(published));
            }
            _ => {}
        }
        if self.headline != Headline::Probed {
            let bytes = rate * job.options.size as f64;
            list.push("payload_mb_per_s", "payload", "MB/s", Better::More, bytes / 1e6);
        }
        list.push("window_s", "measured window", "s", Better::Neither, self.seconds());
    }

    fn push_cpu(&self, list: &mut FigureList) {
        let per_million = format!("s per M {}", self.headline.unit());
        // CPU time and counts may be of slightly different moments, so both are taken per second first.
        let rate = self.units().max(1.0) / self.seconds();
        let elapsed_ns = self.last.cpu_at_ns.saturating_sub(self.first.cpu_at_ns).max(1) as f64;
        let cores = |first: u64, last: u64| last.saturating_sub(first) as f64 / elapsed_ns;
        let own = cores(self.first.own_cpu_ns, self.last.own_cpu_ns);
        if let (Some(first), Some(last)) = (self.first.server_cpu_ns, self.last.server_cpu_ns) {
            let server = cores(first, last);
            let name = format!("server CPU {per_million}");
            list.push("server_cpu_s_per_million", &name, "s", Better::Less, server / rate * 1e6);
            list.push("server_cpu_percent", "server CPU", "% of a core", Better::Neither, server * 100.0);
            if let (Some(first), Some(last)) = (self.first.machine_cpu_ns, self.last.machine_cpu_ns) {
                let others = (cores(first, last) - server - own).max(0.0);
                list.push("others_cpu_percent", "other programs' CPU", "% of a core", Better::Neither, others * 100.0);
            }
        }
        let name = format!("load CPU {per_million}");
        list.push("load_cpu_s_per_million", &name, "s", Better::Neither, own / rate * 1e6);
        list.push("load_cpu_percent", "load CPU", "% of a core", Better::Neither, own * 100.0);
    }

    fn push_setup(&self, list: &mut FigureList) {
        if let Some(memory) = self.memory_after {
            let mib = memory.resident_bytes as f64 / f64::from(1 << 20);
            list.push("server_rss_mib", "server memory", "MiB", Better::Less, mib);
        }
        let Some(subscriptions) = self.subscriptions else {
            return;
        };
        let rate = subscriptions as f64 / (self.setup_ns as f64 / 1e9);
        list.push("subscribe_per_s", "subscriptions made", "/s", Better::More, rate);
        if let (Some(before), Some(ready)) = (self.memory_before, self.memory_ready) {
            let bytes = ready.resident_bytes.saturating_sub(before.resident_bytes) as f64;
            let each = bytes / subscriptions as f64;
            list.push("rss_bytes_per_subscription", "memory per subscription", "B", Better::Less, each);
        }
    }

    fn notes(&self, job: &Job, list: &FigureList) -> Vec<String> {
        let mut notes = Vec::new();
        let verdict = self.verdict;
        if verdict.expected > 0 && (verdict.lost > 0 || verdict.duplicate > 0) {
            notes.push(format!(
                "NOT all messages arrived once: {} of {} lost, {} too many",
                verdict.lost, verdict.expected, verdict.duplicate
            ));
        }
        if self.disordered > 0 {
            notes.push(format!("{} messages were out of order or doubled", self.disordered));
        }
        if self.unfinished > 0 {
            notes.push(format!("{} senders got no answer to their last command", self.unfinished));
        }
        let value = |key: &str| list.0.iter().find(|figure| figure.key == key).map(|figure| figure.value);
        let load = value("load_cpu_percent").unwrap_or(0.0);
        let server = value("server_cpu_percent");
        let free_running = self.rate.is_none() && !job.options.spin;
        if free_running && load > 95.0 * job.options.threads as f64 && server.is_none_or(|share| share < 95.0) {
            notes.push(format!("the load was saturated ({load:.0} % of a core): the rate is a lower bound"));
        }
        let gap_s = self.last.longest_gap_ns as f64 / 1e9;
        if self.headline == Headline::Processed && gap_s > self.seconds() * GAP_TOLERATED {
            notes.push(format!(
                "the server let up to {:.0} ms pass between PONGs, so the rate is uncertain by {:.0} %: use a longer \
                 --duration, or --count",
                gap_s * 1e3,
                100.0 * gap_s / self.seconds()
            ));
        }
        if let (Some(rate), Some(lag)) = (self.rate, &self.lag) {
            notes.extend(self.schedule_note(rate, lag));
        }
        notes
    }

    /// Says so if messages were not sent when they were due.
    fn schedule_note(&self, rate: f64, lag: &Histogram<u64>) -> Option<String> {
        let sent = match self.headline {
            Headline::Answered | Headline::Probed => self.last.asked - self.first.asked,
            _ => self.last.published - self.first.published,
        };
        let reached = sent as f64 * 1e9 / self.last.cpu_at_ns.saturating_sub(self.first.cpu_at_ns).max(1) as f64;
        let late = lag.len() - lag.count_between(0, LAG_NS_TOLERATED);
        let late_percent = 100.0 * late as f64 / lag.len().max(1) as f64;
        if reached < rate * 0.99 || late_percent > 1.0 {
            return Some(format!(
                "the schedule was NOT kept: {reached:.0} of {rate:.0} per second sent, {late_percent:.1} % of them \
                 over 1 ms late (latencies count from the intended time)"
            ));
        }
        None
    }
}

/// Whether a latency percentile rests on enough messages to mean something: at least ten above it.
pub(crate) fn percentile_is_supported(count: u64, key: &str) -> bool {
    PERCENTILES.iter().all(|(suffix, percentile)| {
        key != format!("latency_{}_us", suffix.replace('.', "_")) || count as f64 * (1.0 - percentile / 100.0) >= 10.0
    })
}
