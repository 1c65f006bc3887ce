//! Promises kept towards the official Python client, `nats-py`. The cases are in `tests/python/suite.py`; which
//! they are is in `support_clients`.

mod support;
mod support_clients;
mod support_tls;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use support::ServerBuilder;
use support_clients::{installed, output_of, run_case, script_suite};
use support_tls::inside_tls;

script_suite!(run);

fn run(case: &str, args: &[&str], server: ServerBuilder) {
    run_with(case, args, server, None);
}

fn run_with(case: &str, args: &[&str], server: ServerBuilder, tls: Option<&Value>) {
    let python = python_env();
    let mut server = server.start();
    let suite = tests_dir().join("suite.py");
    let mut command = Command::new(python);
    command.arg(suite).arg(case).arg(server.url()).args(args).envs(tls.map(|tls| ("CLIENT_TLS", tls.to_string())));
    run_case(&mut command, &mut server);
}

/// Inside TLS, with the handshake after INFO or before it and with a certificate of its own, the client works as in clear.
#[test]
fn works_inside_tls() {
    inside_tls(|case, server, tls| run_with(case, &[], server, Some(tls)));
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
