//! The plan for request/reply: responders in one queue group, and requesters that each keep some requests outstanding.

use crate::args::Options;
use crate::block::{STAMP_BYTES, header_bytes};
use crate::failure::{Failure, Outcome};
use crate::frames::Want;
use crate::modes::at_least_one;
use crate::plan::{Headline, Plan, PlannedConnection};
use crate::requests::{Requester, Responder};
use crate::roles::Role;

/// Bytes of a status header (`NATS/1.0 503`) that show a missing responder.
const STATUS_BYTES: usize = 12;

/// `parallel` requests outstanding over `connections` connections.
pub(crate) fn plan(
    options: &Options,
    parallel: usize,
    connections: Option<usize>,
    responders: usize,
    inbox_per_request: bool,
) -> Outcome<Plan> {
    at_least_one("--parallel", parallel)?;
    at_least_one("--responders", responders)?;
    let connections = connections.unwrap_or(parallel);
    at_least_one("--connections", connections)?;
    if connections > parallel && options.rate.is_none() {
        return Err(Failure::new("more --connections than requests outstanding (--parallel)"));
    }
    if options.rate.is_some() && options.size < STAMP_BYTES {
        return Err(Failure::new(format!("--rate needs requests of at least {STAMP_BYTES} bytes")));
    }
    if parallel.div_ceil(connections) > 0xffff {
        return Err(Failure::new("at most 65,535 requests outstanding per connection"));
    }
    let mut plan = Plan::empty(options, Headline::Answered);
    for _ in 0..responders {
        let queue = if responders > 1 { "group " } else { "" };
        plan.connections.push(PlannedConnection {
            subscriptions: format!("SUB {} {queue}1\r\n", options.subject).into_bytes(),
            want: Want::Whole,
            role: Role::Responder(Responder),
        });
    }
    let header_bytes = header_bytes(options.headers).len();
    for index in 0..connections {
        // The first ones take one more if it does not come out even.
        let outstanding = parallel / connections + usize::from(index < parallel % connections);
        let id = format!("{:016x}{index:06x}", fastrand::u64(..));
        let mut requester = Requester::new(&options.subject, &id, options.size, options.headers, outstanding);
        if inbox_per_request {
            requester = requester.inbox_per_request();
        }
        if options.rate.is_some() {
            requester = requester.paced();
        }
        plan.connections.push(PlannedConnection {
            subscriptions: requester.subscribe_line(),
            want: Want::Prefix(STATUS_BYTES.max(header_bytes + STAMP_BYTES)),
            role: Role::Requester(requester),
        });
    }
    plan.latency = true;
    plan.request_limit = options.count.unwrap_or(u64::MAX);
    plan.paced_limit = plan.request_limit;
    Ok(plan)
}
