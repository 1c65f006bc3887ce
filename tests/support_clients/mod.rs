//! What the tests with clients in other languages share: the list of cases, installing pinned clients once below the target
//! directory, and running one case of a script against a server that the script may ask to have stopped and started.

#![allow(unused_imports, unused_macros, reason = "not every client plays the list of cases")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{PATIENCE, Server};

/// The time one case may take, the stops and starts of its server included.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// The directory `<name>-<hash of pins>` with everything that `install` puts there. Only the first caller of all test
/// processes installs; an installation that was interrupted is begun anew.
pub(crate) fn installed(
    name: &str,
    pins: &str,
    install: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the temporary directory is in the target");
    let all = target.join("test-clients");
    fs::create_dir_all(&all).expect("the directory for test clients should be creatable");
    let _lock = lock(&all.join(format!("{name}.lock")));
    let dir = all.join(format!("{name}-{:016x}", fnv1a(pins.as_bytes())));
    let stamp = dir.join("complete");
    if !stamp.exists() {
        if let Err(error) = fs::remove_dir_all(&dir) {
            assert_eq!(error.kind(), ErrorKind::NotFound, "a broken installation cannot be removed: {error}");
        }
        fs::create_dir(&dir).expect("the directory of a test client should be creatable");
        install(&dir)?;
        File::create(&stamp).expect("the stamp of a complete installation should be creatable");
    }
    Ok(dir)
}

/// Runs a program to its end and returns its output, or what went wrong.
pub(crate) fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(format!("{command:?}: {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Runs one case of a script. Its lines `{"ask": …}` are obeyed and answered by `done`; the line `{"passed": true}`
/// and a successful exit make the test pass. Whatever else it writes is shown when it fails.
pub(crate) fn run_case(command: &mut Command, server: &mut Server) {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = KillOnDrop(child.expect("the client runtime should start"));
    let mut answers = child.0.stdin.take().expect("standard input is piped");
    let stdout = child.0.stdout.take().expect("standard output is piped");
    let mut stderr = child.0.stderr.take().expect("standard error is piped");
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        // A test that has failed already reads no more lines.
        lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
    });
    let errors = thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stderr.read_to_end(&mut bytes);
        read.map(|_| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    });

    let deadline = Instant::now() + CASE_LIMIT;
    let (mut passed, mut shown) = (false, String::new());
    let in_time = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let value = serde_json::from_str(&line).unwrap_or(Value::Null);
                if let Some(request) = value["ask"].as_str() {
                    obey(request, server);
                    // A script that has failed meanwhile takes no answer; its exit code tells.
                    let _ = writeln!(answers, "done");
                } else if value["passed"] == true {
                    passed = true;
                } else {
                    shown += &format!("{line}\n");
                }
            }
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    if !in_time {
        child.kill();
    }
    let status = child.0.wait().expect("a child can be waited for");
    shown += &errors.join().expect("reading standard error does not panic");
    assert!(in_time, "the case has not ended after {CASE_LIMIT:?}\n{shown}");
    assert!(passed && status.success(), "the case failed ({status})\n{shown}");
}

fn obey(request: &str, server: &mut Server) {
    match request {
        "stop" => {
            server.signal(libc::SIGTERM);
            assert!(server.wait_exit(PATIENCE).is_some(), "the server should stop at SIGTERM");
        }
        "kill" => server.kill(),
        "start" => server.restart_same_port(),
        "lame duck" => server.signal(libc::SIGUSR2),
        unknown => panic!("the script asks for {unknown:?}"),
    }
}

/// A child that does not outlive a failing test.
struct KillOnDrop(Child);

impl KillOnDrop {
    fn kill(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().expect("a running child can be killed");
        }
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Holds the lock on a file, against threads and processes alike, until the file is dropped.
fn lock(path: &Path) -> File {
    let file = File::create(path).expect("the lock file should be creatable");
    // SAFETY: flock has no memory effects, and the descriptor is open as long as `file` lives.
    let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
    assert_eq!(result, 0, "the lock on {} cannot be taken", path.display());
    file
}

/// A hash that is the same in every build, for the names of directories.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Writes the tests of one client library: `$run(case, arguments, server)` plays a case of its script against a server.
/// The cases have the same names in all scripts and make the same promises.
macro_rules! script_suite {
    (@access $run:ident) => {
        mod access {
            crate::support::shard_suite!(one_shard = 1, three_shards = 3 => {
                users_of_a_file_do_what_they_may,
                users_with_credentials_do_what_they_may,
            });

            /// Users with passwords, hashes and nkeys enter, others do not; accounts do not hear each other; and the
            /// client tells the program of what it may not do.
            fn users_of_a_file_do_what_they_may(shards: usize) {
                let (config, seed) = crate::support::config::users();
                super::$run("access", &[&seed], config.server().shards(shards));
            }

            /// The same with users that an operator's accounts vouch for, and files with their credentials.
            fn users_with_credentials_do_what_they_may(shards: usize) {
                let credentials = crate::support::jwt::Credentials::new();
                let files = credentials.files();
                let files: Vec<&str> = files.iter().map(String::as_str).collect();
                super::$run("credentials", &files, credentials.config.server().shards(shards));
            }
        }
    };
    (@cases $run:ident { $($(#[$doc:meta])* $test:ident = $case:literal, $args:expr, $settings:expr;)* }) => {
        crate::support::shard_suite!(one_shard = 1, three_shards = 3 => { $($test,)* });
        $(
            $(#[$doc])*
            fn $test(shards: usize) {
                let settings: fn(crate::support::ServerBuilder) -> crate::support::ServerBuilder = $settings;
                $run($case, &$args, settings(crate::support::Server::builder().shards(shards)));
            }
        )*
    };
    ($run:ident) => {
        crate::support_clients::script_suite!(@access $run);
        crate::support_clients::script_suite!(@cases $run {
            /// Every message comes once, in order and unchanged, to each of several connections.
            messages_arrive_in_order_with_their_content = "publish_subscribe", [], |server| server;
            /// `*` stands for one token, `>` for one or more at the end, and nothing else matches.
            wildcards_match_whole_tokens = "wildcards", [], |server| server;
            /// Each message goes to exactly one member of each queue group and to every plain subscriber, and no member
            /// is left out.
            a_queue_group_shares_what_others_get_in_full = "queue_groups", [], |server| server;
            /// Of many answers the request returns one, and the others disturb no later request.
            the_first_of_many_answers_wins = "first_answer_wins", [], |server| server;
            /// A request for many collects the answers of all responders.
            a_request_can_gather_every_answer = "gather_answers", [], |server| server;
            /// With nobody to answer, a request of either style fails long before its timeout; also after the last
            /// responder left.
            a_request_without_responders_fails_at_once = "no_responders", [], |server| server;
            /// Headers keep their case and their values, repeated ones in their order where the client can repeat them,
            /// with a payload and without.
            headers_travel_with_their_values = "headers", [], |server| server;
            /// A subscription that drains handles all that the server had sent it, and other members of its queue group
            /// get the rest.
            draining_a_subscription_loses_nothing = "subscription_drain", [], |server| server;
            /// A connection that drains handles all that it had been sent, and what its handlers publish arrives.
            draining_a_connection_loses_nothing = "connection_drain", [], |server| server;
            /// After a flush the server has everything published before, and closing the connection takes nothing away.
            flush_hands_everything_to_the_server = "flush", [], |server| server;
            /// A client that lived through a restart gets, on its old subscriptions, what it published meanwhile and
            /// what others publish later.
            a_restart_resumes_subscriptions_and_sends_what_waited = "restart", [], |server| server;
            /// The client refuses what is above the server's limit; of a client that does not, the server ends the
            /// connection with its reason, and no other.
            oversized_messages_are_refused_on_both_sides =
                "max_payload", [], |server| server.option("max_payload", "2048");
            /// A client that stops reading is disconnected when more than `max_pending` waits for it; everybody else,
            /// the publisher included, goes on without a loss.
            a_client_past_max_pending_is_cut_off_alone =
                "slow_consumer", [], |server| server.option("max_pending", "2097152");
            /// A client that stops reading is disconnected when a write to it does not end within `write_deadline`;
            /// everybody else, the publisher included, goes on without a loss.
            a_client_past_write_deadline_is_cut_off_alone =
                "slow_consumer", [], |server| server.option("write_deadline", "400ms");
            /// A publish reaches each of two hundred connections of one process once.
            two_hundred_connections_receive_one_publish = "many_connections", [], |server| server;
            /// A connection that asked for no echo does not get its own messages, while others get them and it gets
            /// theirs.
            no_echo_spares_the_publisher_only = "no_echo", [], |server| server;
            /// After the agreed number of messages the subscription has ended in the client and in the server.
            a_maximum_ends_a_subscription_at_both_ends = "auto_unsubscribe", [], |server| server;
            /// The right user and password enter; anything else gets an authorization error.
            user_and_password_decide_who_enters =
                "password", ["ann", "s3cret"], |server| server.user("ann", "s3cret");
            /// The right token enters; anything else gets an authorization error.
            a_token_decides_who_enters = "token", ["sesame"], |server| server.token("sesame");
            /// At SIGUSR2 connected clients are told, still served, and newcomers are turned away.
            lame_duck_mode_is_announced = "lame_duck", [], |server| server;
            /// Payloads of every size class up to the default limit arrive as they were sent, and come back in an
            /// answer.
            large_payloads_arrive_unchanged = "large_payloads", [], |server| server;
            /// What one connection publishes on many subjects reaches every other connection in the order of publishing.
            one_publisher_keeps_its_order_across_subjects = "order", [], |server| server;
            /// The server introduces itself with everything that clients decide by.
            server_info_opens_the_feature_gates = "server_info", [], |server| server;
            /// The server answers the client's pings, and a client that only answers the server's pings stays connected.
            pings_of_both_sides_are_answered =
                "pings", [], |server| server.option("ping_interval", "200ms").option("ping_max", "4");
            /// A silent responder and a silent subject cost the caller its own timeout, not the connection.
            silence_is_a_timeout = "timeouts", [], |server| server;
        });
    };
}

pub(crate) use script_suite;
