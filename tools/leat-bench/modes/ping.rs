//! The plan for the PING latency probe, alone or beside publishers that saturate the server.

use crate::args::Options;
use crate::failure::{Failure, Outcome};
use crate::modes::flow;
use crate::plan::{Headline, Plan};
use crate::roles::{Pinger, Role};

/// Probes per second unless told otherwise.
const RATE_DEFAULT: u64 = 1000;

/// One probing connection and the traffic beside it.
pub(crate) fn plan(options: &Options, publishers: usize, pairs: usize) -> Outcome<Plan> {
    let mut beside = options.clone();
    beside.rate = None;
    beside.count = None;
    if options.count.is_some() && publishers + pairs > 0 {
        return Err(Failure::new("--count does not go with saturating publishers; use --duration"));
    }
    let mut plan = Plan::empty(options, Headline::Probed);
    if publishers > 0 {
        beside.subject = format!("{}.idle", options.subject);
        plan.connections.extend(flow::plan_pub(&beside, publishers)?.connections);
    }
    if pairs > 0 {
        beside.subject = format!("{}.pair", options.subject);
        let traffic = flow::plan_pairs(&beside, pairs)?;
        plan.connections.extend(traffic.connections);
        plan.groups.extend(traffic.groups);
    }
    plan.add_sender(Role::Pinger(Pinger::default()));
    plan.rate = Some(options.rate.unwrap_or(RATE_DEFAULT) as f64);
    plan.latency = true;
    plan.paced_limit = options.count.unwrap_or(u64::MAX);
    Ok(plan)
}
