//! Running scripts with the clients for Node, which are installed in their pinned versions.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support_clients::{installed, output_of};

/// One case of a script in `tests/node` against a server.
pub(crate) fn node_script(file: &str, case: &str, url: &str) -> Command {
    let client_dir = node_env();
    let mut command = Command::new("node");
    command.arg(tests_dir().join(file)).arg(case).arg(url).env("CLIENT_DIR", client_dir);
    command
}

/// A directory in which the clients are installed in their pinned versions.
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
