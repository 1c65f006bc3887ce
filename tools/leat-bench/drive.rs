//! Carries out a plan: starts the load threads, waits through warm-up and window, takes the counts and CPU times at
//! both ends of the window, lets everything outstanding arrive, and makes figures of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use hdrhistogram::Histogram;

use crate::failure::{Failure, Outcome};
use crate::figures::{Measured, Run, Snapshot};
use crate::modes::Job;
use crate::plan::{Plan, PlannedConnection, Shared, Verdict};
use crate::procfs::ProcessProbe;
use crate::progress::Progress;
use crate::roles::latency_histogram;
use crate::sys;
use crate::units::ServerUrl;
use crate::worker::{Worker, Yield};

/// How long outstanding messages may make no progress before they count as lost.
const DRAIN_PATIENCE_NS: u64 = 3_000_000_000;

/// How long duplicates are waited for at the end.
const DUPLICATES_GRACE: Duration = Duration::from_millis(20);

/// A server to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its address.
    pub(crate) url: ServerUrl,
    /// Its process, if known.
    pub(crate) probe: Option<ProcessProbe>,
}

/// A thread's part of the schedule, sent to it with the starting signal.
struct Go {
    rate: f64,
    phase: f64,
    limit: u64,
}

enum News {
    /// Connections are open; this many of them follow the schedule.
    Ready {
        thread: usize,
        paced: usize,
    },
    Done(Outcome<Box<Yield>>),
}

/// The load threads of a run.
struct Crew {
    shared: Arc<Shared>,
    news: Receiver<News>,
    go: Vec<Sender<Go>>,
    threads: Vec<JoinHandle<()>>,
    deadline_ns: u64,
}

/// Runs `plan` against `target`.
pub(crate) fn drive(plan: Plan, job: &Job, target: &Target, progress: &Progress) -> Outcome<Run> {
    let memory_before = target.probe.as_ref().and_then(ProcessProbe::memory);
    let setup_ns = sys::now_ns();
    let mut crew = Crew::hire(plan.connections, plan.request_limit, job, target);
    let paced = crew.await_ready()?;
    let setup_ns = sys::now_ns() - setup_ns;
    let memory_ready = target.probe.as_ref().and_then(ProcessProbe::memory);

    let shared = Arc::clone(&crew.shared);
    let options = &job.options;
    let snapshot = || Snapshot::take(&shared, plan.headline, target.probe.as_ref());
    let counted = options.count.is_some();
    if counted {
        shared.record_from_ns.store(0, Relaxed);
    }
    let mut first = snapshot()?;
    crew.start(&paced, plan.rate, plan.paced_limit);
    if plan.groups.is_empty() && plan.connections_only_receive {
        crew.watch(u64::MAX, progress, &job.label, || shared.total(|c| &c.delivered) > 0)?;
        first = snapshot()?;
    }
    let last = if counted {
        let count = options.count.unwrap_or(0);
        crew.drain(&plan.groups, progress, &job.label, plan.connections_only_receive.then_some(count))?;
        let mut last = snapshot()?;
        last.at_ns = shared.last_ns().max(first.at_ns + 1);
        last.cpu_at_ns = last.at_ns;
        shared.stop.store(true, Relaxed);
        last
    } else {
        crew.pause(options.warmup, progress, &job.label)?;
        shared.record_from_ns.store(sys::now_ns(), Relaxed);
        first = snapshot()?;
        crew.pause(options.window_time(), progress, &job.label)?;
        shared.record_until_ns.store(sys::now_ns(), Relaxed);
        let mut last = snapshot()?;
        last.longest_gap_ns = shared.longest_gap_ns();
        shared.stop.store(true, Relaxed);
        crew.drain(&plan.groups, progress, &job.label, None)?;
        last
    };
    if !plan.groups.is_empty() {
        crew.pause(DUPLICATES_GRACE, progress, &job.label)?;
    }
    let (latency, lag) = crew.dismiss()?;
    progress.clear();

    let mut verdict = Verdict::default();
    for group in &plan.groups {
        verdict.add(group.verify());
    }
    let asked = shared.total(|c| &c.asked);
    let answered = shared.total(|c| &c.answered);
    verdict.add(Verdict {
        expected: asked,
        received: answered,
        lost: asked.saturating_sub(answered),
        duplicate: answered.saturating_sub(asked),
    });
    Measured {
        headline: plan.headline,
        first,
        last,
        verdict,
        disordered: shared.total(|c| &c.disordered),
        unfinished: shared.total(|c| &c.unfinished),
        latency: (plan.latency || !latency.is_empty()).then_some(latency),
        lag,
        rate: plan.rate,
        subscriptions: plan.subscriptions,
        setup_ns,
        memory_before,
        memory_ready,
        memory_after: target.probe.as_ref().and_then(ProcessProbe::memory),
    }
    .into_run(job, target)
}

impl Crew {
    fn hire(connections: Vec<PlannedConnection>, request_limit: u64, job: &Job, target: &Target) -> Crew {
        let count = job.options.threads.clamp(1, connections.len().max(1));
        let shared = Arc::new(Shared::new(count, request_limit));
        let (tell, news) = unbounded();
        let mut parts: Vec<Vec<PlannedConnection>> = (0..count).map(|_| Vec::new()).collect();
        for (at, connection) in connections.into_iter().enumerate() {
            parts[at % count].push(connection);
        }
        let mut go = Vec::new();
        let mut threads = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let (start, started) = bounded(1);
            go.push(start);
            let tell = tell.clone();
            let shared = Arc::clone(&shared);
            let url = target.url.clone();
            let spin = job.options.spin;
            let cpu = job.options.pin.as_ref().map(|list| list.0[index % list.0.len()]);
            threads.push(std::thread::spawn(move || {
                let done = work(index, cpu, &url, part, shared, spin, &tell, &started);
                // Nobody listens any more if the run has failed elsewhere.
                let _ = tell.send(News::Done(done.map(Box::new)));
            }));
        }
        Crew { shared, news, go, threads, deadline_ns: sys::now_ns() + job.options.max_time.as_nanos() as u64 }
    }

    /// Waits until every thread has opened its connections; returns how many of each follow the schedule.
    fn await_ready(&mut self) -> Outcome<Vec<usize>> {
        let mut paced = vec![0; self.threads.len()];
        let mut ready = 0;
        while ready < self.threads.len() {
            match self.next_news(Duration::from_millis(200))? {
                Some((thread, count)) => {
                    paced[thread] = count;
                    ready += 1;
                }
                None => self.check_time()?,
            }
        }
        Ok(paced)
    }

    fn start(&self, paced: &[usize], rate: Option<f64>, limit: u64) {
        self.shared.start_ns.store(sys::now_ns() + 1_000_000, Relaxed);
        let all: usize = paced.iter().sum();
        let mut before = 0;
        for (go, &own) in self.go.iter().zip(paced) {
            let share = own as f64 / all.max(1) as f64;
            let own_limit = if limit == u64::MAX { limit } else { (limit as f64 * share).round() as u64 };
            let order =
                Go { rate: rate.unwrap_or(0.0) * share, phase: before as f64 / all.max(1) as f64, limit: own_limit };
            before += own;
            // A thread that has died has already reported why.
            let _ = go.send(order);
        }
    }

    /// Waits for a fixed time.
    fn pause(&mut self, time: Duration, progress: &Progress, label: &str) -> Outcome<()> {
        let until = sys::now_ns() + time.as_nanos() as u64;
        self.watch(until, progress, label, || false)
    }

    /// Waits until `until_ns` or until `enough`, whichever comes first.
    fn watch(&mut self, until_ns: u64, progress: &Progress, label: &str, enough: impl Fn() -> bool) -> Outcome<()> {
        let begin = sys::now_ns();
        // Looking often would take time from the load thread on the same CPU.
        let step = if until_ns == u64::MAX { Duration::from_millis(5) } else { progress.step() };
        loop {
            let now = sys::now_ns();
            if now >= until_ns || enough() {
                return Ok(());
            }
            progress.show(label, begin, now, until_ns);
            let left = Duration::from_nanos(until_ns - now);
            self.next_news(step.min(left))?;
            self.check_time()?;
        }
    }

    /// Waits until all senders have finished and everything has arrived, or until nothing arrives any more.
    fn drain(
        &mut self,
        groups: &[Arc<crate::plan::Group>],
        progress: &Progress,
        label: &str,
        deliveries: Option<u64>,
    ) -> Outcome<()> {
        let shared = Arc::clone(&self.shared);
        let progress_count = || {
            shared.total(|c| &c.published)
                + shared.total(|c| &c.processed)
                + shared.total(|c| &c.delivered)
                + shared.total(|c| &c.answered)
        };
        let complete = || match deliveries {
            Some(count) => shared.total(|c| &c.delivered) >= count,
            None => shared.total(|c| &c.unfinished) == 0 && groups.iter().all(|group| group.verify().lost == 0),
        };
        let begin = sys::now_ns();
        let mut seen = progress_count();
        let mut seen_ns = begin;
        while !complete() {
            self.next_news(Duration::from_millis(2))?;
            self.check_time()?;
            let (count, now) = (progress_count(), sys::now_ns());
            if count != seen {
                (seen, seen_ns) = (count, now);
            } else if now - seen_ns > DRAIN_PATIENCE_NS {
                break;
            }
            progress.show(label, begin, now, u64::MAX);
        }
        Ok(())
    }

    /// Ends the threads and adds up what they recorded.
    fn dismiss(mut self) -> Outcome<(Histogram<u64>, Option<Histogram<u64>>)> {
        self.shared.quit.store(true, Relaxed);
        let mut latency = latency_histogram();
        let mut lag: Option<Histogram<u64>> = None;
        for _ in 0..self.threads.len() {
            let news = self.news.recv().map_err(|_| Failure::new("a load thread has died"))?;
            let News::Done(done) = news else { continue };
            let done = done?;
            let add = |sum: &mut Histogram<u64>, part: &Histogram<u64>| {
                sum.add(part).map_err(|error| Failure::new(format!("histograms do not fit: {error}")))
            };
            add(&mut latency, &done.latency)?;
            if let Some(part) = &done.lag {
                add(lag.get_or_insert_with(latency_histogram), part)?;
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        Ok((latency, lag))
    }

    fn next_news(&self, patience: Duration) -> Outcome<Option<(usize, usize)>> {
        match self.news.recv_timeout(patience) {
            Ok(News::Ready { thread, paced }) => Ok(Some((thread, paced))),
            Ok(News::Done(Err(failure))) => Err(failure),
            Ok(News::Done(Ok(_))) | Err(RecvTimeoutError::Disconnected) => Err(Failure::new("a load thread has ended")),
            Err(RecvTimeoutError::Timeout) => Ok(None),
        }
    }

    fn check_time(&self) -> Outcome<()> {
        if sys::stop_asked() {
            return Err(Failure::new("interrupted"));
        }
        if sys::now_ns() > self.deadline_ns {
            return Err(Failure::new("the run exceeds --max-time"));
        }
        Ok(())
    }
}

/// A crew that is let go because of a failure ends too.
impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.quit.store(true, Relaxed);
        self.go.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the whole life of a load thread, called in one place")]
fn work(
    index: usize,
    cpu: Option<usize>,
    url: &ServerUrl,
    part: Vec<PlannedConnection>,
    shared: Arc<Shared>,
    spin: bool,
    tell: &Sender<News>,
    started: &Receiver<Go>,
) -> Outcome<Yield> {
    if let Some(cpu) = cpu {
        sys::pin(&[cpu]).map_err(Failure::during(format_args!("cannot pin to CPU {cpu}")))?;
    }
    let mut worker = Worker::open(index, url, part, shared, spin)?;
    let paced = worker.paced_count();
    let _ = tell.send(News::Ready { thread: index, paced });
    let Ok(go) = started.recv() else {
        return Err(Failure::new("the run has failed elsewhere"));
    };
    worker.set_pace(go.rate, go.phase, go.limit);
    worker.run()
}
