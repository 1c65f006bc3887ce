//! Plans for one-way traffic: publish only, subscribe only, pairs, fan-out and queue groups.

use std::sync::Arc;

use crate::args::Options;
use crate::block::{Block, STAMP_BYTES, header_bytes, subject_names, subscribe_lines};
use crate::failure::{Failure, Outcome};
use crate::frames::Want;
use crate::modes::at_least_one;
use crate::plan::{Group, Headline, Plan, PlannedConnection, Spread};
use crate::roles::{Publisher, Role, Subscriber};

/// Bytes published between two markers in a publish-only run.
const MARKER_BYTES: usize = 512 << 10;

/// Bytes published without being confirmed as processed, unless the user says otherwise.
const UNCONFIRMED_BYTES: usize = 8 << 20;

/// Header bytes that a subscriber to stamped messages of others is ready for.
const FOREIGN_HEADER_BYTES: usize = 1024;

impl Plan {
    /// A plan without connections.
    pub(crate) fn empty(options: &Options, headline: Headline) -> Plan {
        Plan {
            connections: Vec::new(),
            groups: Vec::new(),
            headline,
            rate: options.pace(),
            latency: false,
            request_limit: u64::MAX,
            paced_limit: u64::MAX,
            connections_only_receive: false,
            subscriptions: None,
        }
    }

    /// Adds a connection without subscriptions.
    pub(crate) fn add_sender(&mut self, role: Role) {
        self.connections.push(PlannedConnection { subscriptions: Vec::new(), want: Want::Counts, role });
    }
}

/// What publishers and subscribers of one kind of traffic have in common.
pub(crate) struct Traffic<'a> {
    options: &'a Options,
    /// Whether messages are stamped and their latency is recorded.
    stamped: bool,
    /// Whether there is one publisher per group.
    ordered: bool,
}

impl<'a> Traffic<'a> {
    /// Traffic as the options say: stamped if there is a schedule.
    pub(crate) fn new(options: &'a Options, publishers_per_group: usize) -> Outcome<Traffic<'a>> {
        if options.rate.is_some() && options.size < STAMP_BYTES {
            return Err(Failure::new(format!("--rate needs messages of at least {STAMP_BYTES} bytes")));
        }
        Ok(Traffic { options, stamped: options.rate.is_some(), ordered: publishers_per_group == 1 })
    }

    /// The messages to these subjects.
    pub(crate) fn block(&self, subjects: &[String]) -> Arc<Block> {
        Block::new(subjects, self.options.size, self.options.headers, self.options.block_bytes())
    }

    /// A publisher of this block.
    pub(crate) fn publisher(&self, block: &Arc<Block>, group: Option<&Arc<Group>>) -> Publisher {
        let batch = self.options.batch_messages(block);
        let publisher = Publisher::new(Arc::clone(block), group.cloned(), self.options.count, batch);
        if self.stamped { publisher.paced() } else { publisher }
    }

    /// A subscriber of this group.
    pub(crate) fn subscriber(&self, group: &Arc<Group>, index: usize, subscriptions: Vec<u8>) -> PlannedConnection {
        let subscriber = Subscriber::new(Arc::clone(group), index);
        let head = header_bytes(self.options.headers).len();
        PlannedConnection {
            subscriptions,
            want: if self.stamped { Want::Prefix(head + STAMP_BYTES) } else { Want::Counts },
            role: Role::Subscriber(if self.stamped { subscriber.stamped(self.ordered) } else { subscriber }),
        }
    }

    /// A group with a window for these messages.
    pub(crate) fn group(&self, block: &Block, subscribers: usize, spread: Spread) -> Arc<Group> {
        let share_window_with = if spread == Spread::ToEach { subscribers } else { 1 };
        let window = self.options.window_messages(block.frame_bytes, share_window_with);
        Group::new(subscribers, spread, window)
    }

    /// Completes a plan of publishers and subscribers.
    pub(crate) fn finish(&self, plan: &mut Plan, publishers: usize) {
        plan.latency = self.stamped;
        if let Some(count) = self.options.count {
            plan.paced_limit = count * publishers as u64;
        }
    }
}

/// Publishers without subscribers.
pub(crate) fn plan_pub(options: &Options, publishers: usize) -> Outcome<Plan> {
    at_least_one("--publishers", publishers)?;
    let traffic = Traffic::new(options, 1)?;
    let mut plan = Plan::empty(options, Headline::Processed);
    let block = traffic.block(&subject_names(&options.subject, options.subjects));
    let window = (options.window.unwrap_or(UNCONFIRMED_BYTES) / block.frame_bytes) as u64;
    for _ in 0..publishers {
        let every = match options.rate {
            // Fifty markers per second.
            Some(rate) => rate / publishers as u64 / 50,
            None => (MARKER_BYTES / block.frame_bytes).max(4) as u64,
        };
        plan.add_sender(Role::Publisher(traffic.publisher(&block, None).with_markers(every, window)));
    }
    traffic.finish(&mut plan, publishers);
    plan.latency = false;
    Ok(plan)
}

/// Subscribers only.
pub(crate) fn plan_sub(options: &Options, subs: usize, queue: Option<&str>, latency: bool) -> Outcome<Plan> {
    at_least_one("--subs", subs)?;
    let mut plan = Plan::empty(options, Headline::Delivered);
    let group = Group::new(subs, Spread::ToEach, 1);
    let lines = subscribe_lines(&subject_names(&options.subject, options.subjects), queue);
    for index in 0..subs {
        let subscriber = Subscriber::new(Arc::clone(&group), index);
        plan.connections.push(PlannedConnection {
            subscriptions: lines.clone(),
            want: if latency { Want::Prefix(FOREIGN_HEADER_BYTES + STAMP_BYTES) } else { Want::Counts },
            role: Role::Subscriber(if latency { subscriber.stamped(false) } else { subscriber }),
        });
    }
    plan.rate = None;
    plan.latency = latency;
    plan.connections_only_receive = true;
    Ok(plan)
}

/// Independent pairs of publisher and subscriber, each on its own subjects.
pub(crate) fn plan_pairs(options: &Options, pairs: usize) -> Outcome<Plan> {
    at_least_one("--pairs", pairs)?;
    let traffic = Traffic::new(options, 1)?;
    let mut plan = Plan::empty(options, Headline::Delivered);
    for name in subject_names(&options.subject, pairs) {
        let subjects = subject_names(&name, options.subjects);
        let block = traffic.block(&subjects);
        let group = traffic.group(&block, 1, Spread::ToEach);
        plan.add_sender(Role::Publisher(traffic.publisher(&block, Some(&group))));
        plan.connections.push(traffic.subscriber(&group, 0, subscribe_lines(&subjects, None)));
        plan.groups.push(group);
    }
    traffic.finish(&mut plan, pairs);
    Ok(plan)
}

/// One publisher to many subscribers.
pub(crate) fn plan_fanout(options: &Options, subs: usize) -> Outcome<Plan> {
    at_least_one("--subs", subs)?;
    let traffic = Traffic::new(options, 1)?;
    let mut plan = Plan::empty(options, Headline::Delivered);
    let subjects = subject_names(&options.subject, options.subjects);
    let block = traffic.block(&subjects);
    let group = traffic.group(&block, subs, Spread::ToEach);
    plan.add_sender(Role::Publisher(traffic.publisher(&block, Some(&group))));
    for index in 0..subs {
        plan.connections.push(traffic.subscriber(&group, index, subscribe_lines(&subjects, None)));
    }
    plan.groups.push(group);
    traffic.finish(&mut plan, 1);
    Ok(plan)
}

/// Publishers to one queue group.
pub(crate) fn plan_queue(options: &Options, members: usize, publishers: usize) -> Outcome<Plan> {
    at_least_one("--members", members)?;
    at_least_one("--publishers", publishers)?;
    let traffic = Traffic::new(options, publishers)?;
    let mut plan = Plan::empty(options, Headline::Delivered);
    let subjects = subject_names(&options.subject, options.subjects);
    let block = traffic.block(&subjects);
    let group = traffic.group(&block, members, Spread::Shared(1));
    for _ in 0..publishers {
        plan.add_sender(Role::Publisher(traffic.publisher(&block, Some(&group))));
    }
    for index in 0..members {
        plan.connections.push(traffic.subscriber(&group, index, subscribe_lines(&subjects, Some("group"))));
    }
    plan.groups.push(group);
    traffic.finish(&mut plan, publishers);
    Ok(plan)
}
