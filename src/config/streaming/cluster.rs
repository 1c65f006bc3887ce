//! The `cluster` block inside `streaming`.

use std::path::PathBuf;

use super::{Key, idle, time};
use crate::config::read;
use crate::streaming::Clustering;

/// A duration that changes nothing.
const fn idle_time(names: &'static [&'static str], default: &'static str, help: &'static str) -> Key<Clustering> {
    Key::other(names, "duration", default, help, |_, item, _| time(item).map(drop)).without_effect()
}

/// A boolean that changes nothing.
const fn idle_switch(names: &'static [&'static str], help: &'static str) -> Key<Clustering> {
    Key::boolean(names, "false", help, |_, _| ()).without_effect()
}

pub(super) const KEYS: &[Key<Clustering>] = &[
    Key::text(&["node_id"], "a", "Name of this server; a random one if it is absent", |cluster, text| {
        cluster.node_id = (!text.is_empty()).then(|| text.to_owned());
        Ok(())
    }),
    Key::boolean(&["bootstrap"], "false", "Begin a cluster if there is none", |cluster, on| cluster.bootstrap = on),
    Key::other(
        &["peers"],
        "array of strings",
        "[ b, c ]",
        "Other servers that begin the cluster",
        |cluster, item, _| {
            cluster.peers = read::array_of_texts(item.node)?;
            Ok(())
        },
    ),
    Key::text(&["log_path"], "\"\"", "Directory of the replicated log", |cluster, text| {
        cluster.log_path = (!text.is_empty()).then(|| PathBuf::from(text));
        Ok(())
    }),
    Key::boolean(&["sync"], "false", "Flush each entry of the replicated log", |cluster, on| cluster.sync = on),
    idle!(integer, &["log_cache_size"], "512", "Entries kept in memory"),
    idle!(integer, &["log_snapshots"], "2", "Snapshots kept"),
    idle!(integer, &["trailing_logs"], "10240", "Entries kept behind a snapshot"),
    idle_switch(&["raft_logging"], "Write lines about the replication"),
    idle_switch(&["allow_add_remove_node"], "Let requests add and remove servers"),
    idle_switch(&["proceed_on_restore_failure"], "Go on where a snapshot cannot be used"),
    idle_time(&["raft_heartbeat_timeout"], "\"2s\"", "Time without the leader before an election"),
    idle_time(&["raft_election_timeout"], "\"2s\"", "Time for an election"),
    idle_time(&["raft_lease_timeout"], "\"1s\"", "Time that a leader leads without a majority"),
    idle_time(&["raft_commit_timeout"], "\"100ms\"", "Time after which a leader tells what is committed"),
    idle_switch(&["bolt_free_list_sync"], "How the replicated log keeps its free space"),
    idle_switch(&["bolt_free_list_map"], "How the replicated log finds its free space"),
    idle_switch(&["nodes_connections"], "Connections between the servers for each of them"),
];
