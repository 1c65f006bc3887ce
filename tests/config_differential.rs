//! Small configuration files and what the reference server says about each of them.
//!
//! The cases stand in `tests/config_cases`, by area. A line `== verdict` opens a case; the verdict is the reference's,
//! observed by running `nats-server -c FILE -t`. Leat must agree, and where it refuses it must say what stands behind
//! the colon. Where Leat means to differ, the verdict says both.
//!
//! With `LEAT_TEST_PEER=/path/to/nats-server` the reference is run too: the recorded verdicts must be its own, and both
//! must compute the same digest of a file that both accept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The file that each case is written to.
const FILE: &str = "case.conf";

/// What the cases find in the environment.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("LEAT_CASE_PORT", "4333"),
    ("LEAT_CASE_TRUE", "true"),
    ("LEAT_CASE_TEXT", "abc"),
    ("LEAT_CASE_LIST", "[A, B]"),
    ("LEAT_CASE_ALIAS", "$LEAT_CASE_PORT"),
    ("LEAT_CASE_LOOP", "$LEAT_CASE_LOOP"),
];

/// Cases that must be there at least, lest an unreadable table passes.
const CASES_MIN: usize = 700;

struct Case {
    place: String,
    text: String,
    reference_accepts: bool,
    leat_accepts: bool,
    /// Part of Leat's error.
    message: String,
}

#[test]
fn verdicts_are_the_references() {
    let cases = cases();
    assert!(cases.len() >= CASES_MIN, "only {} cases were found", cases.len());
    let dir = workspace();
    let reference = std::env::var_os("LEAT_TEST_PEER").map(PathBuf::from);
    let leat = Path::new(env!("CARGO_BIN_EXE_leat"));
    let mut wrong = Vec::new();
    for case in &cases {
        fs::write(dir.path().join(FILE), &case.text).expect("the case should be written");
        let answer = test(leat, dir.path());
        if answer.accepted != case.leat_accepts || !answer.text.contains(&case.message) {
            wrong.push(format!("{}: Leat says: {}\n{}", case.place, answer.text, case.text));
        }
        let Some(reference) = &reference else {
            continue;
        };
        let theirs = test(reference, dir.path());
        if theirs.accepted != case.reference_accepts {
            wrong.push(format!("{}: the reference says: {}\n{}", case.place, theirs.text, case.text));
        }
        if answer.accepted && theirs.accepted && answer.digest() != theirs.digest() {
            wrong.push(format!("{}: the digests differ: {} {}", case.place, answer.text, theirs.text));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

struct Answer {
    accepted: bool,
    text: String,
}

impl Answer {
    /// The digest in the last line.
    fn digest(&self) -> Option<&str> {
        let start = self.text.rfind("sha256:")?;
        self.text[start..].split(')').next()
    }
}

fn test(binary: &Path, dir: &Path) -> Answer {
    let output = Command::new(binary)
        .args(["-t", "-c", FILE])
        .envs(ENVIRONMENT.iter().copied())
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("the server binary should start");
    Answer { accepted: output.status.success(), text: String::from_utf8_lossy(&output.stderr).trim().to_owned() }
}

/// A directory with the certificates and the files that cases include.
fn workspace() -> TempDir {
    let dir = TempDir::new().expect("a temporary directory should be creatable");
    copy(&case_dir().join("files"), dir.path());
    dir
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the files of the cases should be listable") {
        let path = entry.expect("a file of the cases should be listable").path();
        let target = to.join(path.file_name().expect("a listed file has a name"));
        if path.is_dir() {
            fs::create_dir(&target).expect("a directory should be creatable");
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a file should be copyable");
        }
    }
}

fn case_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_cases")
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(case_dir()).expect("the cases should be listable") {
        let path = entry.expect("a case file should be listable").path();
        if path.is_file() {
            read_cases(&path, &mut cases);
        }
    }
    cases
}

fn read_cases(path: &Path, cases: &mut Vec<Case>) {
    let table = fs::read_to_string(path).expect("a case file should be readable");
    let mut parts = table.split("\n== ");
    let mut line = parts.next().expect("splitting gives a first part").matches('\n').count() + 2;
    for part in parts {
        let place = format!("{}:{line}", path.display());
        line += part.matches('\n').count() + 1;
        let (verdict, text) = part.split_once('\n').expect("a verdict is followed by its case");
        let (verdict, message) = verdict.split_once(": ").unwrap_or((verdict, ""));
        let (reference_accepts, leat_accepts) = match verdict {
            "accepted" => (true, true),
            "refused" => (false, false),
            "accepted by the reference, refused" => (true, false),
            "refused by the reference, accepted" => (false, true),
            _ => panic!("{place}: unknown verdict {verdict:?}"),
        };
        assert!(leat_accepts || !message.is_empty(), "{place}: a refusal needs its message");
        let text = format!("{}\n", text.trim_end_matches('\n'));
        cases.push(Case { place, text, reference_accepts, leat_accepts, message: message.to_owned() });
    }
}
