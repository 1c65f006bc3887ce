//! Promises kept towards the streaming client for Node, `node-nats-streaming`. The cases are in
//! `tests/node/streaming.mjs`. A test that is called `item_NN_…` pins that item of the list of acceptance.

mod support;
mod support_clients;
mod support_node;
mod support_streaming;

use support::{ServerBuilder, shard_suite};
use support_clients::run_case;
use support_node::node_script;
use support_streaming::{channels, streaming, streaming_on_files};

/// Plays a case on one channel, or with several shards on several.
fn run(case: &str, shards: usize, settings: ServerBuilder) {
    let mut server = settings.start();
    let channels = serde_json::to_string(&channels(shards)).expect("names are text");
    let mut command = node_script("streaming.mjs", case, &server.url());
    command.arg(server.monitor_url()).arg(channels);
    run_case(&mut command, &mut server);
}

/// Writes the tests: name, case of the script, and the server for a number of shards.
macro_rules! cases {
    ($($(#[$doc:meta])* $test:ident = $case:literal, $settings:expr;)*) => {
        shard_suite!(one_shard = 1, three_shards = 3 => { $($test,)* });
        $(
            $(#[$doc])*
            fn $test(shards: usize) {
                let settings: fn(usize) -> ServerBuilder = $settings;
                run($case, shards, settings(shards));
            }
        )*
    };
}

cases! {
    /// The client learns all subjects, and monitoring knows the client.
    item_01_a_client_connects = "connect", streaming;
    /// The client that has the id keeps it and works on.
    item_02_a_healthy_client_id_is_refused = "healthy_id_is_refused", streaming;
    /// The id of a process that was killed is free within a second, or little more where the machine is busy.
    item_03_a_killed_client_is_replaced = "killed_id_is_replaced", streaming;
    /// A wrong cluster id is the client's own error about the time.
    item_06_a_wrong_cluster_id_is_a_timeout = "wrong_cluster", streaming;
    /// A client that has been replaced is told by its next ping.
    item_08_a_replaced_client_learns_it = "connection_lost", streaming;
    /// A closed client is not listed, and its id can be used again.
    item_09_a_closed_client_is_gone = "close", streaming;
    /// Ten thousand publishes at once: no error, no gap, and the order is kept.
    item_11_many_publishes_are_acknowledged = "publish_many", streaming_on_files;
    /// Every way to begin, by number.
    item_20_positions_begin_where_they_say = "positions", streaming;
    /// A time and a time ago.
    item_21_a_time_begins_at_the_first_message_after_it = "start_time", streaming;
    /// Three under way, and one more for each acknowledgement.
    item_24_max_in_flight_is_kept = "max_in_flight", streaming;
    /// With the flag and the count, every second.
    item_25_an_unacknowledged_message_comes_again = "redelivery", streaming;
    /// Closed and opened again, it begins with what is not acknowledged.
    item_31_a_durable_resumes = "durable", streaming;
    /// The same when its process was killed.
    item_34_a_durable_survives_its_process = "durable_of_a_killed_process", streaming;
    /// Each message to one of the two, five each.
    item_37_a_queue_group_shares = "queue", streaming;
    /// Another client goes on where the last member closed.
    item_42_a_durable_group_resumes = "durable_queue", streaming_on_files;
    /// The client reconnects to a server that was killed and started, and notices nothing else.
    item_50_a_client_survives_a_kill_of_the_server = "restart", streaming_on_files;
    /// Without files, it is told that it is not registered any more.
    item_54_a_forgotten_client_learns_it = "forgotten_after_a_restart", streaming;
}
