//! Promises kept towards the official Python client, `nats-py`. The cases are in `tests/python/suite.py`; here each
//! gets a server of the right kind.

mod support;
mod support_clients;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::{Server, ServerBuilder, shard_suite};
use support_clients::{installed, output_of, run_case};

shard_suite!(one_shard = 1, three_shards = 3 => {
    messages_arrive_in_order_with_their_content,
    wildcards_match_whole_tokens,
    a_queue_group_shares_what_others_get_in_full,
    the_first_of_many_answers_wins,
    a_request_can_gather_every_answer,
    a_request_without_responders_fails_at_once,
    headers_travel_with_their_values,
    draining_a_subscription_handles_what_was_delivered,
    draining_a_connection_finishes_its_work,
    flush_hands_everything_to_the_server,
    a_restart_resumes_subscriptions_and_sends_what_was_buffered,
    oversized_messages_are_refused_on_both_sides,
    a_client_past_max_pending_is_cut_off_alone,
    a_client_past_write_deadline_is_cut_off_alone,
    two_hundred_connections_receive_one_publish,
    no_echo_spares_the_publisher_only,
    unsubscribe_with_a_limit_ends_a_subscription_at_both_ends,
    user_and_password_decide_who_enters,
    a_token_decides_who_enters,
    lame_duck_mode_is_announced,
    large_payloads_arrive_unchanged,
    one_publisher_keeps_its_order_across_subjects,
    server_info_opens_the_feature_gates,
    pings_of_both_sides_are_answered,
    silence_is_a_timeout,
});

/// Every message comes once, in order and unchanged, to each of several connections.
fn messages_arrive_in_order_with_their_content(shards: usize) {
    run("publish_subscribe", &[], plain(shards));
}

/// `*` stands for one token, `>` for one or more at the end, and nothing else matches.
fn wildcards_match_whole_tokens(shards: usize) {
    run("wildcards", &[], plain(shards));
}

/// Each message goes to exactly one member of each queue group and to every plain subscriber, and no member is left
/// out.
fn a_queue_group_shares_what_others_get_in_full(shards: usize) {
    run("queue_groups", &[], plain(shards));
}

/// Of many answers the request returns one, and the others disturb no later request.
fn the_first_of_many_answers_wins(shards: usize) {
    run("first_answer_wins", &[], plain(shards));
}

/// A request with an inbox of its own collects the answers of all responders.
fn a_request_can_gather_every_answer(shards: usize) {
    run("gather_answers", &[], plain(shards));
}

/// With nobody to answer, a request of either style fails long before its timeout; also after the last responder left.
fn a_request_without_responders_fails_at_once(shards: usize) {
    run("no_responders", &[], plain(shards));
}

/// Headers keep their case and values, with a payload and without.
fn headers_travel_with_their_values(shards: usize) {
    run("headers", &[], plain(shards));
}

/// A subscription being drained is gone from the server at once, and still handles all that had been delivered.
fn draining_a_subscription_handles_what_was_delivered(shards: usize) {
    run("subscription_drain", &[], plain(shards));
}

/// A connection being drained handles all that had been delivered, and what its handlers publish arrives.
fn draining_a_connection_finishes_its_work(shards: usize) {
    run("connection_drain", &[], plain(shards));
}

/// After a flush nothing waits in the client: a connection that is closed next takes no message with it.
fn flush_hands_everything_to_the_server(shards: usize) {
    run("flush", &[], plain(shards));
}

/// A client that lived through a restart gets, on its old subscriptions, what it published meanwhile and what others
/// publish later.
fn a_restart_resumes_subscriptions_and_sends_what_was_buffered(shards: usize) {
    run("restart", &[], plain(shards));
}

/// The client refuses what is above the server's limit; where it does not count headers, the server does, and ends
/// that connection with its reason, and no other.
fn oversized_messages_are_refused_on_both_sides(shards: usize) {
    run("max_payload", &[], plain(shards).option("max_payload", "2048"));
}

/// A client that stops reading is disconnected when more than `max_pending` waits for it; everybody else, the
/// publisher included, goes on without a loss.
fn a_client_past_max_pending_is_cut_off_alone(shards: usize) {
    run("slow_consumer", &[], plain(shards).option("max_pending", "2097152"));
}

/// A client that stops reading is disconnected when a write to it does not end within `write_deadline`; everybody
/// else, the publisher included, goes on without a loss.
fn a_client_past_write_deadline_is_cut_off_alone(shards: usize) {
    run("slow_consumer", &[], plain(shards).option("write_deadline", "400ms"));
}

/// A publish reaches each of two hundred connections of one process once.
fn two_hundred_connections_receive_one_publish(shards: usize) {
    run("many_connections", &[], plain(shards));
}

/// A connection that asked for no echo does not get its own messages, while others get them and it gets theirs.
fn no_echo_spares_the_publisher_only(shards: usize) {
    run("no_echo", &[], plain(shards));
}

/// After the agreed number of messages the iteration ends and the server has dropped the subscription.
fn unsubscribe_with_a_limit_ends_a_subscription_at_both_ends(shards: usize) {
    run("auto_unsubscribe", &[], plain(shards));
}

/// The right user and password enter, given as options or in the URL; anything else gets an authorization error.
fn user_and_password_decide_who_enters(shards: usize) {
    run("password", &["ann", "s3cret"], plain(shards).user("ann", "s3cret"));
}

/// The right token enters, given as an option or in the URL; anything else gets an authorization error.
fn a_token_decides_who_enters(shards: usize) {
    run("token", &["sesame"], plain(shards).token("sesame"));
}

/// At SIGUSR2 connected clients are told, still served, and newcomers are turned away.
fn lame_duck_mode_is_announced(shards: usize) {
    run("lame_duck", &[], plain(shards));
}

/// Payloads of every size class up to the default limit arrive as they were sent, and come back in an answer.
fn large_payloads_arrive_unchanged(shards: usize) {
    run("large_payloads", &[], plain(shards));
}

/// What one connection publishes on many subjects reaches every other connection in the order of publishing.
fn one_publisher_keeps_its_order_across_subjects(shards: usize) {
    run("order", &[], plain(shards));
}

/// The server introduces itself with everything that clients decide by.
fn server_info_opens_the_feature_gates(shards: usize) {
    run("server_info", &[], plain(shards));
}

/// The server answers the client's pings, and a client that only answers the server's pings stays connected.
fn pings_of_both_sides_are_answered(shards: usize) {
    run("pings", &[], plain(shards).option("ping_interval", "200ms").option("ping_max", "4"));
}

/// A silent responder and a silent subject cost the caller its own timeout, not the connection.
fn silence_is_a_timeout(shards: usize) {
    run("timeouts", &[], plain(shards));
}

fn plain(shards: usize) -> ServerBuilder {
    Server::builder().shards(shards)
}

fn run(case: &str, args: &[&str], server: ServerBuilder) {
    let python = python_env();
    let mut server = server.start();
    let suite = tests_dir().join("suite.py");
    run_case(Command::new(python).arg(suite).arg(case).arg(server.url()).args(args), &mut server);
}

/// The interpreter of a virtual environment that holds the client in its pinned version.
fn python_env() -> &'static Path {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(install).as_deref().unwrap_or_else(|problem| panic!("{problem}"))
}

fn install() -> Result<PathBuf, String> {
    const CHECK: &str = "import sys, venv, ensurepip; print(sys.version); sys.exit(sys.version_info < (3, 9))";
    let version = output_of(Command::new("python3").args(["-c", CHECK])).map_err(|_| {
        "the tests with Python clients need python3 of version 3.9 or later with its venv module: install python3 and \
         python3-venv"
            .to_owned()
    })?;
    let requirements = tests_dir().join("requirements.txt");
    let pins =
        std::fs::read_to_string(&requirements).map_err(|error| format!("{}: {error}", requirements.display()))?;
    let dir = installed("python", &format!("{version}{pins}"), |dir| {
        output_of(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
        let pip = ["-m", "pip", "install", "--no-input", "--requirement"];
        output_of(Command::new(dir.join("bin/python")).args(pip).arg(&requirements)).map(drop)
    })?;
    Ok(dir.join("bin/python"))
}

fn tests_dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python"))
}
