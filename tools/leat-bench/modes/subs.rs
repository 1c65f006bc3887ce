//! The plan for a large mixed set of subscriptions, of which every message matches the same number.
//!
//! A *family* is a subject of its own with as many patterns as a message shall match: the literal, and forms with `*`
//! and `>` that cannot match another family, because the family's number is in every token. Families whose subject
//! nobody publishes to fill the index.

use crate::args::Options;
use crate::failure::{Failure, Outcome};
use crate::modes::{at_least_one, flow::Traffic};
use crate::plan::{Headline, Plan, Spread};
use crate::roles::Role;

/// Pattern forms; `#` stands for the family's number.
const FORMS: [&str; 8] = ["a#.b#.c#", "a#.*.c#", "a#.>", "*.b#.c#", "a#.b#.*", "*.*.c#", "a#.b#.>", "*.b#.*"];

/// `subscriptions` over `connections` connections, and one publisher.
pub(crate) fn plan(
    options: &Options,
    subscriptions: u64,
    matches: usize,
    connections: usize,
    published_subjects: usize,
) -> Outcome<Plan> {
    at_least_one("--matches", matches)?;
    at_least_one("--connections", connections)?;
    at_least_one("--published-subjects", published_subjects)?;
    if !(matches as u64..=50_000_000).contains(&subscriptions) {
        return Err(Failure::new("--subscriptions must be at least --matches and at most 50,000,000"));
    }
    // What does not fill a family is left over as literals that match nothing.
    let families = subscriptions as usize / matches;
    let published = published_subjects.min(families);
    let width = families.to_string().len();
    let family = |form: &str, number: usize| {
        let number = format!("{number:0width$}");
        format!("{}.{}", options.subject, form.replace('#', &number))
    };

    let traffic = Traffic::new(options, 1)?;
    let mut plan = Plan::empty(options, Headline::Delivered);
    let stride = families / published;
    let subjects: Vec<String> = (0..published).map(|at| family(FORMS[0], at * stride)).collect();
    let block = traffic.block(&subjects);
    let group = traffic.group(&block, connections, Spread::Shared(matches as u64));
    plan.add_sender(Role::Publisher(traffic.publisher(&block, Some(&group))));

    let mut lines = vec![Vec::new(); connections];
    let first_sid = 10u64.pow(subscriptions.ilog10() + 1);
    for number in 0..subscriptions {
        let place = number as usize;
        let pattern = if place < families * matches {
            // Beyond the forms, the same patterns again: further subscribers to the same thing.
            family(FORMS[place % matches % FORMS.len()], place / matches)
        } else {
            format!("{}.left.over.{place}", options.subject)
        };
        lines[place % connections].extend_from_slice(format!("SUB {pattern} {}\r\n", first_sid + number).as_bytes());
    }
    for (index, lines) in lines.into_iter().enumerate() {
        let mut connection = traffic.subscriber(&group, index, lines);
        if let Role::Subscriber(subscriber) = &mut connection.role {
            subscriber.repeats();
        }
        plan.connections.push(connection);
    }
    plan.groups.push(group);
    plan.subscriptions = Some(subscriptions);
    traffic.finish(&mut plan, 1);
    Ok(plan)
}
