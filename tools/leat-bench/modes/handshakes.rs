//! Traffic in clear on a schedule, measured twice: by itself, and beside TLS handshakes.

use std::path::Path;

use crate::drive::{Target, drive};
use crate::failure::{Failure, Outcome};
use crate::figures::{FigureList, Run};
use crate::modes::{Job, at_least_one, flow};
use crate::progress::Progress;
use crate::stats::{Better, latency_figures};
use crate::storm::Storm;
use crate::units::{CpuList, ServerUrl};

/// Messages per second unless told otherwise: few enough that the load leaves most of its CPU to the handshakes.
const RATE_DEFAULT: u64 = 2000;

/// Figures of the run without handshakes that are reported beside those of the run with them.
const COMPARED: [&str; 4] =
    ["server_cpu_s_per_million", "server_cpu_percent", "load_cpu_percent", "others_cpu_percent"];

/// Does the work without handshakes and then with them; one report of both.
#[expect(clippy::too_many_arguments, reason = "the options of the mode, passed on once")]
pub(crate) fn run(
    job: &Job,
    target: &Target,
    progress: &Progress,
    connections: usize,
    pairs: usize,
    tls_url: Option<&ServerUrl>,
    authorities: &Path,
    cpus: Option<&CpuList>,
) -> Outcome<Run> {
    at_least_one("--connections", connections)?;
    if job.options.count.is_some() {
        return Err(Failure::new("--count does not go with handshakes; use --duration"));
    }
    if tls_url.is_some() && job.options.compare.is_some() {
        return Err(Failure::new("--tls-url does not go with --compare; both servers must accept TLS on their --url"));
    }
    let mut job = job.clone();
    job.options.rate.get_or_insert(RATE_DEFAULT);
    let plan = || flow::plan_pairs(&job.options, pairs);

    let quiet = drive(plan()?, &job, target, progress)?;
    let storm = Storm::begin(tls_url.unwrap_or(&target.url), connections, authorities, cpus)?;
    let mut run = drive(plan()?, &job, target, progress)?;
    let handshakes = storm.end()?;

    let per_second = handshakes.latency.len() as f64 / handshakes.seconds;
    let mut list = FigureList(std::mem::take(&mut run.figures));
    list.push("handshakes_per_s", "handshakes", "/s", Better::More, per_second);
    list.push("handshakes_failed", "handshakes that failed", "", Better::Less, handshakes.failed as f64);
    if let (Some(with), Some(without)) = (run_value(&list, "server_cpu_percent"), quiet.value("server_cpu_percent")) {
        let each = (with - without) * 10.0 / per_second.max(1e-9);
        list.push("server_cpu_ms_per_handshake", "server CPU per handshake", "ms", Better::Less, each);
    }
    latency_figures(&handshakes.latency, "handshake", "connect to first PONG", &mut list.0);
    for figure in quiet.figures.iter().filter(|figure| is_compared(&figure.key)) {
        let mut figure = figure.clone();
        figure.key = format!("quiet_{}", figure.key);
        figure.name = format!("quiet: {}", figure.name);
        list.0.push(figure);
    }
    run.figures = list.0;
    run.notes.extend(quiet.notes.iter().map(|note| format!("quiet: {note}")));
    run.notes.extend(handshakes.first_failure.map(|text| format!("the first handshake that failed: {text}")));
    run.faulty |= quiet.faulty || handshakes.failed > 0;
    Ok(run)
}

fn is_compared(key: &str) -> bool {
    COMPARED.contains(&key) || key.starts_with("latency_") || key.starts_with("lag_")
}

fn run_value(list: &FigureList, key: &str) -> Option<f64> {
    list.0.iter().find(|figure| figure.key == key).map(|figure| figure.value)
}
