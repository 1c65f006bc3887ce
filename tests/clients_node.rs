//! Promises kept towards the official client for Node, `@nats-io/transport-node`. The cases are in
//! `tests/node/suite.mjs`; here each gets a server of the right kind.

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
    headers_travel_with_all_their_values,
    draining_a_subscription_loses_nothing,
    draining_a_connection_loses_nothing,
    flush_hands_everything_to_the_server,
    a_restart_resumes_subscriptions_and_sends_what_waited_for_it,
    oversized_messages_are_refused_on_both_sides,
    a_client_past_max_pending_is_cut_off_alone,
    a_client_past_write_deadline_is_cut_off_alone,
    two_hundred_connections_receive_one_publish,
    no_echo_spares_the_publisher_only,
    a_maximum_ends_a_subscription_at_both_ends,
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

/// A request for many collects the answers of all responders.
fn a_request_can_gather_every_answer(shards: usize) {
    run("gather_answers", &[], plain(shards));
}

/// With nobody to answer, a request of either style fails long before its timeout; also after the last responder left.
fn a_request_without_responders_fails_at_once(shards: usize) {
    run("no_responders", &[], plain(shards));
}

/// Headers keep their case, their repeated values and their order of values, with a payload and without.
fn headers_travel_with_all_their_values(shards: usize) {
    run("headers", &[], plain(shards));
}

/// While publishing goes on, a queue member that drains leaves no message unhandled: it gets what the server sent it,
/// the other member all the rest.
fn draining_a_subscription_loses_nothing(shards: usize) {
    run("subscription_drain", &[], plain(shards));
}

/// While publishing goes on, a worker whose connection drains leaves no message unhandled, and the results it publishes
/// meanwhile arrive.
fn draining_a_connection_loses_nothing(shards: usize) {
    run("connection_drain", &[], plain(shards));
}

/// After a flush the server has handled everything published before.
fn flush_hands_everything_to_the_server(shards: usize) {
    run("flush", &[], plain(shards));
}

/// A client that lived through a restart gets, on its old subscriptions, what it published while it reconnected and
/// what others publish later.
fn a_restart_resumes_subscriptions_and_sends_what_waited_for_it(shards: usize) {
    run("restart", &[], plain(shards));
}

/// The client refuses what is above the server's limit, headers included; of a client that does not, the server ends
/// the connection with its reason, and no other.
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
fn a_maximum_ends_a_subscription_at_both_ends(shards: usize) {
    run("auto_unsubscribe", &[], plain(shards));
}

/// The right user and password enter; anything else gets an authorization error.
fn user_and_password_decide_who_enters(shards: usize) {
    run("password", &["ann", "s3cret"], plain(shards).user("ann", "s3cret"));
}

/// The right token enters; anything else gets an authorization error.
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
    let client_dir = node_env();
    let mut server = server.start();
    let suite = tests_dir().join("suite.mjs");
    let mut command = Command::new("node");
    command.arg(suite).arg(case).arg(server.url()).args(args).env("CLIENT_DIR", client_dir);
    run_case(&mut command, &mut server);
}

/// A directory in which the client is installed in its pinned version.
fn node_env() -> &'static Path {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    DIR.get_or_init(install).as_deref().unwrap_or_else(|problem| panic!("{problem}"))
}

fn install() -> Result<PathBuf, String> {
    const CHECK: &str = "process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)";
    let node = output_of(Command::new("node").args(["-e", CHECK]));
    let npm = output_of(Command::new("npm").arg("--version"));
    if node.is_err() || npm.is_err() {
        return Err(
            "the tests with Node clients need node of version 18 or later with npm: install nodejs and npm".to_owned()
        );
    }
    let read = |name: &str| {
        let file = tests_dir().join(name);
        std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
    };
    let (manifest, lock) = (read("package.json")?, read("package-lock.json")?);
    installed("node", &format!("{manifest}{lock}"), |dir| {
        for (name, text) in [("package.json", &manifest), ("package-lock.json", &lock)] {
            std::fs::write(dir.join(name), text).map_err(|error| format!("{name}: {error}"))?;
        }
        output_of(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(dir)).map(drop)
    })
}

fn tests_dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node"))
}
