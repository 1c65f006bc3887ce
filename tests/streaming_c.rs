//! Promises kept towards the streaming client for C, the `stan` part of `nats.c`. The cases are in
//! `tests/c/streaming.c`; the program is made once, below the target directory, with the system's compiler and library.

mod support;
mod support_clients;
mod support_streaming;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::{ServerBuilder, shard_suite};
use support_clients::{installed, output_of, run_case};
use support_streaming::{streaming, streaming_on_files};

shard_suite!(one_shard = 1, three_shards = 3 => {
    a_client_connects_and_its_id_is_its_own,
    item_11_asynchronous_publishes_are_acknowledged,
    item_24_messages_are_acknowledged_by_hand,
    item_31_a_durable_resumes_after_its_client_has_closed,
    item_42_a_durable_group_shares_and_resumes,
    item_50_a_client_survives_a_kill_of_the_server,
    item_54_a_forgotten_client_learns_it,
});

/// A second client under the id, a wrong id and a wrong cluster id are refused; after a close the id is free.
fn a_client_connects_and_its_id_is_its_own(shards: usize) {
    run("connect", streaming(shards));
}

/// Ten thousand on each of six channels.
fn item_11_asynchronous_publishes_are_acknowledged(shards: usize) {
    run("publish_async", streaming_on_files(shards));
}

/// Three under way, one more for an acknowledgement, and the rest comes again.
fn item_24_messages_are_acknowledged_by_hand(shards: usize) {
    run("manual_acks", streaming(shards));
}

/// It begins with what is not acknowledged, and anew after unsubscribing; it is online once.
fn item_31_a_durable_resumes_after_its_client_has_closed(shards: usize) {
    run("durable", streaming(shards));
}

/// Two members share, the first takes over what the second leaves, and a third goes on where the first has closed.
fn item_42_a_durable_group_shares_and_resumes(shards: usize) {
    run("queue", streaming_on_files(shards));
}

/// The client reconnects to a server that was killed and started, and notices nothing else.
fn item_50_a_client_survives_a_kill_of_the_server(shards: usize) {
    run("restart", streaming_on_files(shards));
}

/// Without files, it is told that it is not registered any more.
fn item_54_a_forgotten_client_learns_it(shards: usize) {
    run("forgotten", streaming(shards));
}

fn run(case: &str, settings: ServerBuilder) {
    let mut server = settings.start();
    run_case(Command::new(program()).arg(case).arg(server.url()), &mut server);
}

fn program() -> &'static Path {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PROGRAM.get_or_init(compile).as_deref().unwrap_or_else(|problem| panic!("{problem}"))
}

fn compile() -> Result<PathBuf, String> {
    const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/c/streaming.c");
    let text = std::fs::read_to_string(SOURCE).map_err(|error| format!("{SOURCE}: {error}"))?;
    let dir = installed("c", &text, |dir| {
        let mut command = Command::new("cc");
        command.args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-DNATS_HAS_STREAMING", "-o"]);
        command.arg(dir.join("streaming")).args([SOURCE, "-lnats", "-lpthread"]);
        output_of(&mut command).map(drop).map_err(|problem| {
            format!("the tests with the C client need a C compiler and libnats (gcc, libnats-dev): {problem}")
        })
    })?;
    Ok(dir.join("streaming"))
}
