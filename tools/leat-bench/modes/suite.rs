//! Sets of jobs: the whole performance table, and the short one that `--embedded` runs without a mode.

use std::time::Duration;

use crate::args::{Mode, Options};
use crate::modes::{Job, describe};

/// Length of a row's window unless told otherwise.
const ROW_TIME: Duration = Duration::from_secs(2);

fn job(options: &Options, size: usize, rate: Option<u64>, mode: Mode) -> Job {
    let mut options = options.clone();
    options.size = size;
    options.rate = rate;
    options.count = None;
    options.duration = Some(options.duration.unwrap_or(ROW_TIME));
    Job { label: describe(&mode, &options), mode, options }
}

fn request(parallel: usize) -> Mode {
    Mode::Request { parallel, connections: None, responders: 1, inbox_per_request: false }
}

/// The whole table.
pub(crate) fn full(options: &Options, only: Option<&str>) -> Vec<Job> {
    let mut jobs = Vec::new();
    for size in [16, 128, 64 << 10] {
        jobs.push(job(options, size, None, Mode::Pub { publishers: 1 }));
    }
    for size in [16, 128, 1024] {
        jobs.push(job(options, size, None, Mode::Pubsub { pairs: 1 }));
    }
    for subs in [10, 100, 1000] {
        jobs.push(job(options, 128, None, Mode::Fanout { subs }));
    }
    jobs.push(job(options, 128, None, Mode::Pubsub { pairs: 10 }));
    jobs.push(job(options, 128, None, Mode::Queue { members: 10, publishers: 1 }));
    jobs.push(job(
        options,
        128,
        None,
        Mode::Subs { subscriptions: 100_000, matches: 3, connections: 10, published_subjects: 1000 },
    ));
    jobs.push(job(options, 128, None, request(50)));
    jobs.push(job(options, 128, None, request(1)));
    for rate in [50_000, 200_000] {
        jobs.push(job(options, 128, Some(rate), Mode::Pubsub { pairs: 1 }));
    }
    jobs.retain(|job| only.is_none_or(|text| job.label.contains(text)));
    jobs
}

/// Numbers for a first impression.
pub(crate) fn short(options: &Options) -> Vec<Job> {
    let mut jobs = Vec::new();
    for size in [16, 128] {
        jobs.push(job(options, size, None, Mode::Pub { publishers: 1 }));
    }
    for size in [16, 128, 1024] {
        jobs.push(job(options, size, None, Mode::Pubsub { pairs: 1 }));
    }
    for subs in [10, 100] {
        jobs.push(job(options, 128, None, Mode::Fanout { subs }));
    }
    jobs.push(job(options, 128, None, Mode::Queue { members: 10, publishers: 1 }));
    jobs.push(job(options, 128, None, request(1)));
    jobs.push(job(options, 128, None, request(50)));
    jobs.push(job(options, 128, Some(50_000), Mode::Pubsub { pairs: 1 }));
    jobs
}
