//! The flags of NATS Streaming. They are the reference's; giving one switches the service on.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use super::flags::Effect::{Ignored, Set, StreamingFile};
use super::flags::{Flag, flag, switch};
use crate::config::values::{boolean, count, size};
use crate::config::{Options, Secret, duration};
use crate::streaming::{self, Cipher, Clustering, StoreType};

/// A setter for a setting of the service.
macro_rules! set {
    ($($field:ident).+, $read:expr) => {
        Set(|options, text| {
            on(options).$($field).+ = $read(text)?;
            Ok(())
        })
    };
}

/// A setter for a limit, which may not be negative.
macro_rules! limit {
    ($what:literal, $($field:ident).+, $read:expr) => {
        Set(|options, text| {
            if text.starts_with('-') {
                return Err(format!(concat!($what, " limit cannot be negative ({})"), text));
            }
            on(options).limits.$($field).+ = $read(text)?;
            Ok(())
        })
    };
}

/// A setter for a setting that only counts with clustering.
macro_rules! clustered {
    ($field:ident, $read:expr) => {
        Set(|options, text| {
            let value = $read(text)?;
            if let Some(clustering) = &mut on(options).clustering {
                clustering.$field = value;
            }
            Ok(())
        })
    };
}

pub(super) const SERVICE: &[Flag] = &[
    flag(&["-cid", "--cluster_id"], "string", "Cluster ID (default: test-cluster)", set!(cluster_id, text)),
    flag(&["-st", "--store"], "string", "Store type: MEMORY or FILE (default: FILE)", set!(store, StoreType::parse)),
    flag(
        &["--dir"],
        "string",
        "For FILE store type, this is the root directory\n(default: leat-streaming)",
        set!(dir, some_path),
    ),
    flag(
        &["-mc", "--max_channels"],
        "int",
        "Max number of channels, 0 for unlimited (default: 100)",
        limit!("max channels", max_channels, number),
    ),
    flag(
        &["-msu", "--max_subs"],
        "int",
        "Max number of subscriptions per channel, 0 for unlimited (default: 1000)",
        limit!("max subscriptions", of_all.max_subs, number),
    ),
    flag(
        &["-mm", "--max_msgs"],
        "int",
        "Max number of messages per channel, 0 for unlimited (default: 1000000)",
        limit!("max messages", of_all.max_msgs, number),
    ),
    flag(
        &["-mb", "--max_bytes"],
        "size",
        "Max messages total size per channel, 0 for unlimited (default: 1024000000)",
        limit!("max bytes", of_all.max_bytes, size),
    ),
    flag(
        &["-ma", "--max_age"],
        "duration",
        "Max duration a message can be stored (default: 0s for unlimited)",
        limit!("max age", of_all.max_age, duration::parse),
    ),
    flag(
        &["-mi", "--max_inactivity"],
        "duration",
        "Time without use after which a channel goes (default: 0s for never)",
        limit!("max inactivity", of_all.max_inactivity, duration::parse),
    ),
    flag(
        &["-ns", "--nats_server"],
        "string",
        "Serve the clients of that server (not available in this version)",
        set!(nats_server, some),
    ),
    flag(&["-sc", "--stan_config"], "file", "Configuration file for NATS Streaming", StreamingFile),
    flag(
        &["-hbi", "--hb_interval"],
        "duration",
        "Time between heartbeats to a client (default: 30s)",
        set!(hb_interval, duration::parse),
    ),
    flag(
        &["-hbt", "--hb_timeout"],
        "duration",
        "How long a client may take to answer a heartbeat (default: 10s)",
        set!(hb_timeout, duration::parse),
    ),
    flag(
        &["-hbf", "--hb_fail_count"],
        "int",
        "Unanswered heartbeats in a row before a client is given up (default: 10)",
        set!(hb_fail_count, |text| u32::try_from(count(text)?).map_err(|_| "too large".to_owned())),
    ),
    switch(
        &["--replace_durable"],
        "Let a new subscriber take over a durable subscription that is in use (default: false)",
        set!(replace_durable, boolean),
    ),
    flag(
        &["--ft_group"],
        "string",
        "Group of servers of which one serves (not available in this version)",
        set!(ft_group, some),
    ),
    switch(&["--encrypt"], "Encrypt payloads on disk (not available in this version)", set!(encrypt, boolean)),
    flag(
        &["--encryption_cipher"],
        "string",
        "Cipher: AES or CHACHA (default: AES)",
        set!(encryption_cipher, Cipher::parse),
    ),
    flag(&["--encryption_key"], "string", "Encryption key", set!(encryption_key, some_secret)),
    switch(&["-SD", "--stan_debug"], "Enable STAN debugging output", set!(debug, boolean)),
    switch(&["-SV", "--stan_trace"], "Trace the raw STAN protocol", set!(trace, boolean)),
    switch(
        &["-SDV"],
        "Debug and trace STAN",
        Set(|options, text| {
            let is_on = boolean(text)?;
            (on(options).debug, on(options).trace) = (is_on, is_on);
            Ok(())
        }),
    ),
    flag(&["--io_batch_size"], "int", "Publishes stored at a time", Ignored(BATCHES)),
    flag(&["--io_sleep_time"], "int", "Microseconds to wait for more of them", Ignored(BATCHES)),
    switch(&["-secure"], "TLS to the server of --nats_server", Ignored(NO_CONNECTION)),
    flag(&["-tls_client_cert"], "file", "Certificate for that", Ignored(NO_CONNECTION)),
    flag(&["-tls_client_key"], "file", "Its key", Ignored(NO_CONNECTION)),
    flag(&["-tls_client_cacert"], "file", "Authorities for that", Ignored(NO_CONNECTION)),
    flag(&["--syslog_name"], "string", "Name in the event log of Windows", Ignored("it is for Windows")),
    switch(
        &["--streaming"],
        "Serve NATS Streaming, which its other flags and the block streaming of the file ask\n\
         for too; with =false it is off all the same",
        Set(|options, text| {
            if boolean(text)? {
                on(options);
            } else {
                options.streaming = None;
            }
            Ok(())
        }),
    ),
];

pub(super) const FILES: &[Flag] = &[
    switch(&["--file_sync"], "Acknowledge what has been flushed to disk (default: true)", set!(file.sync, boolean)),
    flag(
        &["--file_auto_sync"],
        "duration",
        "Time between flushes without --file_sync, 0 for never (default: 1m)",
        set!(file.auto_sync, time_or_never),
    ),
    flag(&["--file_slice_max_msgs"], "int", "Messages in a file", Ignored(OWN_FILES)),
    flag(&["--file_slice_max_bytes"], "size", "Size of a file", Ignored(OWN_FILES)),
    flag(&["--file_slice_max_age"], "duration", "Age of a file", Ignored(OWN_FILES)),
    flag(
        &["--file_slice_archive_script"],
        "string",
        "Program to run with a file that is not needed any more",
        Ignored(OWN_FILES),
    ),
    switch(&["--file_compact_enabled"], "Clean files", Ignored(OWN_FILES)),
    flag(&["--file_compact_frag"], "int", "Per cent of a file to clean that must be free", Ignored(OWN_FILES)),
    flag(&["--file_compact_interval"], "int", "Seconds between cleanings", Ignored(OWN_FILES)),
    flag(&["--file_compact_min_size"], "size", "Size of a file to clean", Ignored(OWN_FILES)),
    flag(&["--file_buffer_size"], "size", "Buffer for writing", Ignored(OWN_FILES)),
    flag(&["--file_read_buffer_size"], "size", "Buffer for reading", Ignored(OWN_FILES)),
    switch(&["--file_crc"], "Check records when they are read", Ignored(OWN_FILES)),
    flag(&["--file_crc_poly"], "int", "Polynomial of the checksum", Ignored(OWN_FILES)),
    flag(&["--file_fds_limit"], "int", "Open files", Ignored(OWN_FILES)),
    flag(&["--file_parallel_recovery"], "int", "Channels to recover at the same time", Ignored(OWN_FILES)),
    switch(&["--file_truncate_bad_eof"], "Cut off what was not written to its end", Ignored(OWN_FILES)),
    flag(&["--sql_driver"], "string", "Kind of database", Ignored(NO_DATABASE)),
    flag(&["--sql_source"], "string", "Address of the database", Ignored(NO_DATABASE)),
    switch(&["--sql_no_caching"], "Write each acknowledgement at once", Ignored(NO_DATABASE)),
    flag(&["--sql_max_open_conns"], "int", "Connections to the database", Ignored(NO_DATABASE)),
    flag(&["--sql_bulk_insert_limit"], "int", "Messages of one statement", Ignored(NO_DATABASE)),
];

pub(super) const CLUSTER: &[Flag] = &[
    switch(
        &["--clustered"],
        "Replicate the service among servers (not available in this version)",
        Set(|options, text| {
            let clustering = &mut on(options).clustering;
            if boolean(text)? {
                clustering.get_or_insert_with(Clustering::default);
            } else {
                *clustering = None;
            }
            Ok(())
        }),
    ),
    flag(&["--cluster_node_id"], "string", "Name of this server (default: a random one)", clustered!(node_id, some)),
    switch(&["--cluster_bootstrap"], "Begin a cluster if there is none", clustered!(bootstrap, boolean)),
    flag(&["--cluster_peers"], "string, ...", "Other servers that begin the cluster", clustered!(peers, names)),
    flag(&["--cluster_log_path"], "string", "Directory of the replicated log", clustered!(log_path, some_path)),
    switch(&["--cluster_sync"], "Flush each entry of the replicated log", clustered!(sync, boolean)),
    flag(&["--cluster_log_cache_size"], "int", "Entries kept in memory", Ignored(OWN_FILES)),
    flag(&["--cluster_log_snapshots"], "int", "Snapshots kept", Ignored(OWN_FILES)),
    flag(&["--cluster_trailing_logs"], "int", "Entries kept behind a snapshot", Ignored(OWN_FILES)),
    switch(&["--cluster_raft_logging"], "Write lines about the replication", Ignored(NO_REPLICATION)),
    switch(&["--cluster_allow_add_remove_node"], "Let requests add and remove servers", Ignored(NO_REPLICATION)),
    switch(&["--cluster_proceed_on_restore_failure"], "Go on where a snapshot cannot be used", Ignored(NO_REPLICATION)),
];

const BATCHES: &str = "batches are as large as what has arrived";
const NO_CONNECTION: &str = "NATS Streaming is a part of this server and does not connect to it";
const OWN_FILES: &str = "the log of this server cleans, checks and bounds its files by itself";
const NO_DATABASE: &str = "there is no store in a database";
const NO_REPLICATION: &str = "clustering of NATS Streaming is not available in this version";

/// The settings of the service, which is on from now on.
fn on(options: &mut Options) -> &mut streaming::Options {
    options.streaming.get_or_insert_default()
}

fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// The empty text means none.
fn some(text: &str) -> Result<Option<String>, String> {
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn some_path(text: &str) -> Result<Option<PathBuf>, String> {
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

fn some_secret(text: &str) -> Result<Option<Secret>, String> {
    Ok((!text.is_empty()).then(|| Secret::new(text)))
}

fn number(text: &str) -> Result<u64, String> {
    count(text).map(|number| number as u64)
}

/// Nothing and less mean never.
fn time_or_never(text: &str) -> Result<Option<Duration>, String> {
    let time = duration::parse(text.strip_prefix('-').unwrap_or(text))?;
    Ok(Some(time).filter(|time| !text.starts_with('-') && !time.is_zero()))
}

fn names(text: &str) -> Result<Vec<String>, String> {
    Ok(text.split(',').map(|name| name.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;

    use super::*;
    use crate::cli::{CliError, Command, parse};

    fn run(args: &[&str]) -> Result<(Options, Vec<String>), CliError> {
        match parse(args.iter().map(OsString::from))? {
            Command::Run { options, warnings } => Ok((*options, warnings)),
            other => panic!("{args:?} gave {other:?}"),
        }
    }

    fn streaming(args: &[&str]) -> Option<streaming::Options> {
        run(args).unwrap_or_else(|error| panic!("{args:?}: {error}")).0.streaming
    }

    /// Each line of arguments changes exactly the settings it should, and switches the service on.
    #[test]
    fn arguments_to_settings() {
        type Change = fn(&mut streaming::Options);
        let cases: &[(&[&str], Change)] = &[
            (&["--streaming"], |_| {}),
            (&["-cid", "x"], |o| o.cluster_id = "x".into()),
            (&["--cluster_id=x", "--streaming=true"], |o| o.cluster_id = "x".into()),
            (&["-st", "file", "-dir", "/d"], |o| (o.store, o.dir) = (StoreType::File, Some("/d".into()))),
            (&["--store=FILE", "--dir=/d"], |o| (o.store, o.dir) = (StoreType::File, Some("/d".into()))),
            (&["-mc=1", "-msu", "2", "-mm", "3k", "-mb", "4KB", "-ma", "1m", "-mi=1h"], |o| {
                o.limits.max_channels = 1;
                let all = &mut o.limits.of_all;
                (all.max_subs, all.max_msgs, all.max_bytes) = (2, 3000, 4096);
                (all.max_age, all.max_inactivity) = (Duration::from_secs(60), Duration::from_secs(3600));
            }),
            (&["--max_channels", "0", "--max_subs=0", "--max_msgs=0", "--max_bytes=0"], |o| {
                o.limits.max_channels = 0;
                let all = &mut o.limits.of_all;
                (all.max_subs, all.max_msgs, all.max_bytes) = (0, 0, 0);
            }),
            (&["--max_age", "1h", "--max_inactivity", "2m"], |o| {
                let all = &mut o.limits.of_all;
                (all.max_age, all.max_inactivity) = (Duration::from_secs(3600), Duration::from_secs(120));
            }),
            (&["-hbi", "1s", "-hbt", "2s", "-hbf", "3"], |o| {
                (o.hb_interval, o.hb_timeout) = (Duration::from_secs(1), Duration::from_secs(2));
                o.hb_fail_count = 3;
            }),
            (&["--hb_interval=1s", "--hb_timeout=2s", "--hb_fail_count=3"], |o| {
                (o.hb_interval, o.hb_timeout) = (Duration::from_secs(1), Duration::from_secs(2));
                o.hb_fail_count = 3;
            }),
            (&["--replace_durable", "-SD"], |o| (o.replace_durable, o.debug) = (true, true)),
            (&["-SV", "--stan_debug=false"], |o| o.trace = true),
            (&["-SDV"], |o| (o.debug, o.trace) = (true, true)),
            (&["-SDV=false"], |_| {}),
            (&["--file_sync=false", "--file_auto_sync", "2s"], |o| {
                (o.file.sync, o.file.auto_sync) = (false, Some(Duration::from_secs(2)));
            }),
            (&["--file_auto_sync=-1s"], |o| o.file.auto_sync = None),
            (&["--encryption_cipher", "aes", "--encrypt=false"], |o| o.encryption_cipher = Some(Cipher::Aes)),
            (&["--cluster_node_id", "a", "--clustered=false"], |_| {}),
        ];
        for (args, change) in cases {
            let mut expected = streaming::Options::default();
            change(&mut expected);
            assert_eq!(streaming(args), Some(expected), "{args:?}");
        }
        for args in [&[][..], &["-sd", "x", "-D"], &["-SDV", "-cid=x", "--file_sync", "--streaming=false", "-mc=1"]] {
            assert_eq!(streaming(args), None, "{args:?}");
        }
    }

    /// What cannot be is refused in the words of the reference, and so is what this version must not leave out.
    #[test]
    fn refusals() {
        for (args, error) in [
            (&["-mc", "-1"][..], "unusable value \"-1\" for flag -mc: max channels limit cannot be negative (-1)"),
            (&["--max_age=-1s"], "unusable value \"-1s\" for flag --max_age: max age limit cannot be negative (-1s)"),
            (&["-st", "x"], "unusable value \"x\" for flag -st: unknown store type: x"),
            (&["-hbf", "-1"], "unusable value \"-1\" for flag -hbf: negative"),
            (&["-hbi", "0s"], "streaming: heartbeats need some time"),
            (&["--encryption_key", "k"], "streaming: encryption is not available in this version"),
            (
                &["--clustered", "--cluster_peers", "a, b"],
                "stan: clustering mode not supported with MEMORY store type; \
                 streaming: clustering is not available in this version",
            ),
            (&["-cid", "a b"], "streaming: cluster ID \"a b\" cannot be part of a subject"),
        ] {
            assert_eq!(run(args).unwrap_err().reason(), error, "{args:?}");
        }
        assert!(!format!("{:?}", run(&["--encryption_key", "hidden"])).contains("hidden"));
    }

    /// Flags of what this server does by itself, or has not, are answered with a warning each.
    #[test]
    fn flags_without_effect() {
        let (options, warnings) =
            run(&["-io_batch_size", "5", "-secure", "--file_crc=false", "--sql_driver=x"]).unwrap();
        assert_eq!(options.streaming, None);
        assert_eq!(
            warnings,
            [
                format!("flag --sql_driver has no effect: {NO_DATABASE}"),
                format!("flag -io_batch_size has no effect: {BATCHES}"),
                format!("flag -secure has no effect: {NO_CONNECTION}"),
            ]
        );
    }

    /// A file of the service is read beside the configuration file or for both, tested, and overridden by flags.
    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path.into_os_string().into_string().unwrap()
        };
        let flat = write("flat", "server_name: one\nid: x\nlimits { mc: 5 }");
        let alone = write("alone", "id: y");
        let server = write("server", "server_name: two");

        let (options, _) = run(&["-sc", &flat, "-mc", "7"]).unwrap();
        let service = options.streaming.unwrap();
        assert_eq!((service.cluster_id.as_str(), service.limits.max_channels), ("x", 7));
        assert_eq!(options.server_name.as_deref(), Some("one"));
        let (options, _) = run(&["-c", &server, "--stan_config", &alone]).unwrap();
        assert_eq!(options.streaming.unwrap().cluster_id, "y");
        assert_eq!(options.server_name.as_deref(), Some("two"));
        assert_eq!(run(&["-sc", &alone, "--streaming=false"]).unwrap().0.streaming, None);

        for args in [&["-t", "-sc", &flat][..], &["-t", "-c", &server, "-sc", &alone]] {
            let tested = parse(args.iter().map(OsString::from));
            assert!(matches!(&tested, Ok(Command::Tested(text)) if text.contains("is valid")), "{tested:?}");
        }
        let error = parse(["-t", "-c", &server, "-sc", &flat].map(OsString::from)).unwrap_err();
        assert_eq!(error.reason(), format!("{flat}:1:1: unknown field \"server_name\""));
    }
}
