//! Pull requests: turns, bytes, ends.

use std::num::{NonZeroU32, NonZeroU64};

use super::rig::{Rig, SECOND};
use crate::consumer::{Config, Ended, Event, NotAccepted, PullRequest, RequestId, Target};

fn rig(stored: u64) -> Rig {
    let mut rig = Rig::new(Config::default());
    rig.store(stored);
    rig
}

fn ends(rig: &mut Rig) -> Vec<(RequestId, Ended, u32, u64)> {
    let ended = |event| match event {
        Event::RequestEnded { request, reason, messages_left, bytes_left } => {
            Some((request, reason, messages_left, bytes_left))
        }
        _ => None,
    };
    rig.events().into_iter().filter_map(ended).collect()
}

fn who(rig: &mut Rig) -> Vec<(u64, Target)> {
    rig.pump().iter().map(|sent| (sent.seq, sent.to)).collect()
}

#[test]
fn requests_take_turns_and_end_when_they_have_all() {
    let mut rig = rig(4);
    let (a, b) = (rig.pull(2), rig.pull(3));
    let to = Target::Request;
    assert_eq!(who(&mut rig), [(1, to(a)), (2, to(b)), (3, to(a)), (4, to(b))]);
    assert_eq!(ends(&mut rig), [(a, Ended::Fulfilled, 0, 0)]);
    assert_eq!(rig.consumer.info().num_waiting, 1);
    assert!(rig.consumer.cancel(b) && !rig.consumer.cancel(b) && !rig.consumer.cancel(a));
    assert_eq!(ends(&mut rig), []);
}

#[test]
fn lower_priorities_come_first() {
    let mut rig = rig(0);
    let ask = |priority| PullRequest { priority, ..PullRequest::of(NonZeroU32::new(2).unwrap()) };
    let ids = [2, 1, 1].map(|priority| rig.consumer.request(rig.now, ask(priority)).unwrap());
    rig.store(5);
    let order: Vec<_> = who(&mut rig).into_iter().map(|(_, to)| to).collect();
    assert_eq!(order, [ids[1], ids[2], ids[1], ids[2], ids[0]].map(Target::Request));
}

#[test]
fn conditions_pass_a_request_over() {
    let mut rig = rig(0);
    let few = PullRequest { min_pending: Some(3), ..rig.ask(10) };
    let busy = PullRequest { min_ack_pending: Some(2), ..rig.ask(10) };
    let few = rig.consumer.request(rig.now, few).unwrap();
    let busy = rig.consumer.request(rig.now, busy).unwrap();
    rig.store(2);
    assert_eq!(who(&mut rig), []);
    rig.store(2);
    let to = Target::Request;
    assert_eq!(who(&mut rig), [(1, to(few)), (2, to(few)), (3, to(busy)), (4, to(busy))]);
}

#[test]
fn bytes_are_counted() {
    let mut rig = rig(2);
    let of = |rig: &mut Rig, batch, bytes| {
        let ask = PullRequest { max_bytes: NonZeroU64::new(bytes), ..rig.ask(batch) };
        rig.consumer.request(rig.now, ask).unwrap()
    };
    let exact = of(&mut rig, 9, 200);
    assert_eq!(rig.seqs(), [1, 2]);
    assert_eq!(ends(&mut rig), [(exact, Ended::Fulfilled, 7, 0)]);
    let short = of(&mut rig, 9, 150);
    let full = of(&mut rig, 1, 150);
    let small = of(&mut rig, 1, 50);
    rig.store(3);
    assert_eq!(rig.seqs(), [3, 4]);
    let expected = [
        (full, Ended::BatchCompleted, 0, 50),
        (small, Ended::BytesExceeded, 1, 50),
        (short, Ended::BytesExceeded, 8, 50),
    ];
    assert_eq!(ends(&mut rig), expected);
}

#[test]
fn time_ends_a_request() {
    let mut rig = rig(1);
    let ask = PullRequest { expires: Some(rig.now + 5 * SECOND), ..rig.ask(3) };
    let id = rig.consumer.request(rig.now, ask).unwrap();
    rig.pull(1);
    rig.pass(4 * SECOND);
    assert_eq!(ends(&mut rig), []);
    rig.pass(2 * SECOND);
    assert_eq!(ends(&mut rig), [(id, Ended::Expired, 2, 0)]);
    rig.consumer.close();
    assert!(matches!(ends(&mut rig)[..], [(_, Ended::Deleted, 1, 0)]));
}

#[test]
fn who_does_not_wait_is_told_at_once_or_when_it_runs_dry() {
    let mut rig = rig(0);
    let ask = PullRequest { no_wait: true, ..rig.ask(3) };
    assert_eq!(rig.consumer.request(rig.now, ask), Err(NotAccepted::NoMessages));
    rig.store(2);
    let id = rig.consumer.request(rig.now, ask).unwrap();
    assert_eq!(rig.consumer.request(rig.now, ask), Err(NotAccepted::RequestsPending));
    assert_eq!(rig.seqs(), [1, 2]);
    assert_eq!(ends(&mut rig), [(id, Ended::NoMessages, 1, 0)]);

    let patient = PullRequest { expires: Some(rig.now + 9 * SECOND), ..ask };
    let id = rig.consumer.request(rig.now, patient).unwrap();
    assert_eq!(rig.pass(SECOND), []);
    assert_eq!(ends(&mut rig), [], "it waits for the first message");
    rig.store(1);
    assert_eq!(rig.seqs(), [3]);
    assert_eq!(ends(&mut rig), [(id, Ended::NoMessages, 2, 0)]);
}

#[test]
fn who_does_not_wait_still_waits_for_acknowledgements() {
    let mut rig = Rig::new(Config { max_ack_pending: NonZeroU32::new(1), ..Config::default() });
    rig.store(2);
    let ask = PullRequest { no_wait: true, ..rig.ask(2) };
    let id = rig.consumer.request(rig.now, ask).unwrap();
    assert_eq!(rig.seqs(), [1]);
    assert_eq!(ends(&mut rig), []);
    rig.consumer.ack(rig.now, 1);
    assert_eq!(rig.seqs(), [2]);
    assert_eq!(ends(&mut rig), [(id, Ended::Fulfilled, 0, 0)]);
}

#[test]
fn who_does_not_wait_gets_what_was_due_while_nobody_asked() {
    let mut rig = rig(1);
    rig.pull(1);
    assert_eq!(rig.seqs(), [1]);
    assert_eq!(rig.consumer.next_deadline(), None, "nobody to send to");
    rig.now += 31 * SECOND;
    let ask = PullRequest { no_wait: true, ..rig.ask(2) };
    rig.consumer.request(rig.now, ask).unwrap();
    assert_eq!(rig.seqs(), [1]);
}

#[test]
fn limits_of_requests() {
    let config = Config {
        max_batch: NonZeroU32::new(5),
        max_expires_ns: Some(SECOND),
        max_request_bytes: NonZeroU64::new(1000),
        max_waiting: NonZeroU32::new(1).unwrap(),
        ..Config::default()
    };
    let mut rig = Rig::new(config);
    let good = PullRequest { expires: Some(rig.now + SECOND), max_bytes: NonZeroU64::new(1000), ..rig.ask(5) };
    let cases = [
        (PullRequest { batch: NonZeroU32::new(6).unwrap(), ..good }, NotAccepted::Batch(5)),
        (PullRequest { expires: None, ..good }, NotAccepted::Expires(SECOND)),
        (PullRequest { expires: Some(rig.now + SECOND + 1), ..good }, NotAccepted::Expires(SECOND)),
        (PullRequest { max_bytes: None, ..good }, NotAccepted::Bytes(1000)),
    ];
    for (ask, refusal) in cases {
        assert_eq!(rig.consumer.request(rig.now, ask), Err(refusal));
    }
    rig.consumer.request(rig.now, good).unwrap();
    assert_eq!(rig.consumer.request(rig.now, good), Err(NotAccepted::Waiting(1)));
}
