//! What the tests with clients in other languages share: installing pinned clients once below the target directory,
//! and running one case of a script against a server that the script may ask to have stopped and started.

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
