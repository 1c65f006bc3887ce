//! The simulator finds a broken rule: each is broken in turn, and a few seeds later some promise must fail.
//!
//! The bounds are several times what it takes now; they say how rare a bug of that kind may be and still be found.

use super::reloads;
use super::scenarios::{self as scenario, Build};
use super::schedule::simulate;
use crate::shard::rules::Rule;

/// Breaks `rule` and looks for a seed below `within` that shows it.
fn is_caught(rule: Rule, build: Build, within: u64) {
    let found = (0..within).find_map(|seed| Some((seed, simulate(seed, &build(seed), Some(rule)).verdict.err()?)));
    let (seed, text) = found.unwrap_or_else(|| panic!("{rule:?} was not noticed with {within} seeds"));
    println!("{rule:?}, seed {seed}: {text}");
}

#[test]
fn sockets_before_rings() {
    is_caught(Rule::SocketsBeforeRings, scenario::third_shard, 100);
}

#[test]
fn parse_before_look() {
    is_caught(Rule::ParseBeforeLook, scenario::third_shard, 100);
    is_caught(Rule::ParseBeforeLook, scenario::told_publisher, 500);
}

#[test]
fn interest_before_note() {
    is_caught(Rule::InterestBeforeNote, scenario::handover, 5000);
}

#[test]
fn no_interest_in_look() {
    is_caught(Rule::NoInterestInLook, scenario::relay, 200);
}

#[test]
fn ring_by_ring() {
    is_caught(Rule::RingByRing, scenario::third_shard, 200);
}

#[test]
fn beyond_note() {
    is_caught(Rule::BeyondNote, scenario::relay, 5000);
}

#[test]
fn shown_one_by_one() {
    is_caught(Rule::ShownOneByOne, scenario::third_shard, 200);
}

#[test]
fn messages_before_interest() {
    is_caught(Rule::MessagesBeforeInterest, scenario::announce, 200);
}

#[test]
fn no_input_while_spilled() {
    is_caught(Rule::NoInputWhileSpilled, scenario::flood, 100);
}

#[test]
fn output_not_held() {
    is_caught(Rule::OutputNotHeld, scenario::flood, 100);
}

#[test]
fn output_of_others() {
    is_caught(Rule::OutputOfOthers, scenario::third_shard, 200);
}

#[test]
fn no_recheck() {
    is_caught(Rule::NoRecheck, scenario::crowd, 100);
}

#[test]
fn silent_recheck() {
    is_caught(Rule::SilentRecheck, scenario::crowd, 2000);
}

#[test]
fn not_passed_on() {
    is_caught(Rule::NotPassedOn, scenario::shrinking_group, 100);
}

#[test]
fn passed_on_once() {
    is_caught(Rule::PassedOnOnce, scenario::shrinking_group, 2000);
}

#[test]
fn refused_once() {
    is_caught(Rule::RefusedOnce, scenario::refusing_group, 100);
}

#[test]
fn refusals_not_counted() {
    is_caught(Rule::RefusalsNotCounted, scenario::refused_requests, 100);
}

#[test]
fn no_remote_status() {
    is_caught(Rule::NoRemoteStatus, scenario::leaving_responder, 100);
}

#[test]
fn verdicts_of_others() {
    is_caught(Rule::VerdictsOfOthers, reloads::scenario, 200);
}

#[test]
fn rights_not_renewed() {
    is_caught(Rule::RightsNotRenewed, reloads::scenario, 100);
}

#[test]
fn subs_not_reviewed() {
    is_caught(Rule::SubsNotReviewed, reloads::scenario, 100);
}

#[test]
fn subs_lost() {
    is_caught(Rule::SubsLost, reloads::scenario, 100);
}

#[test]
fn gone_stay() {
    is_caught(Rule::GoneStay, reloads::scenario, 100);
}

#[test]
fn old_verdicts() {
    is_caught(Rule::OldVerdicts, reloads::scenario, 1000);
}

#[test]
fn input_forgotten() {
    is_caught(Rule::InputForgotten, reloads::scenario, 100);
}

#[test]
fn wide_import() {
    is_caught(Rule::WideImport, reloads::scenario, 100);
}

#[test]
fn status_in_spite() {
    is_caught(Rule::StatusInSpite, scenario::leaving_responder, 1000);
}
