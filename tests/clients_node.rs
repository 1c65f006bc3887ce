//! Promises kept towards the official client for Node, `@nats-io/transport-node`. The cases are in
//! `tests/node/suite.mjs`; which they are is in `support_clients`.

mod support;
mod support_clients;
mod support_tls;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use support::{Server, ServerBuilder};
use support_clients::{installed, output_of, run_case, script_suite};
use support_tls::{Authority, inside_tls};

script_suite!(run);

fn run(case: &str, args: &[&str], server: ServerBuilder) {
    run_with(case, args, server, None);
}

fn run_with(case: &str, args: &[&str], server: ServerBuilder, tls: Option<&Value>) {
    let mut server = server.start();
    let mut command = script(case, &server.url());
    run_case(command.args(args).envs(tls.map(|tls| ("CLIENT_TLS", tls.to_string()))), &mut server);
}

/// Inside TLS, with the handshake after INFO or before it and with a certificate of its own, the client works as in clear.
#[test]
fn works_inside_tls() {
    inside_tls(|case, server, tls| run_with(case, &[], server, Some(tls)));
}

/// Over WebSocket, in clear and inside TLS, with compression and without, the client works as over TCP.
#[test]
fn works_over_websocket() {
    let authority = Authority::new();
    let (cert, key) = (authority.file("server.pem"), authority.file("server-key.pem"));
    let tls = format!("tls {{ cert_file: \"{cert}\", key_file: \"{key}\" }}");
    let compressed = format!("{tls}, compression: true");
    for (scheme, keys, extension) in [
        ("ws", "no_tls: true", ""),
        ("wss", &tls, ""),
        ("ws", "no_tls: true, compression: true", "permessage-deflate"),
        ("wss", &compressed, "permessage-deflate"),
    ] {
        let file = authority.path("websocket.conf");
        let text = format!("websocket {{ host: \"127.0.0.1\", port: -1, {keys} }}");
        std::fs::write(&file, text).expect("the configuration file should be written");
        let file = file.to_str().expect("temporary paths are text");
        for case in
            ["publish_subscribe", "first_answer_wins", "no_responders", "headers", "large_payloads", "connection_drain"]
        {
            eprintln!("{scheme} {extension}: {case}");
            let mut server = Server::builder().shards(2).args(&["-c", file]).start();
            if !server.is_leat() && !extension.is_empty() && case == "large_payloads" {
                // The reference has no room for the command beside the largest payload in a compressed message.
                continue;
            }
            let mut command = script(case, &format!("{scheme}://{}", server.websocket_addr()));
            command.env("NODE_EXTRA_CA_CERTS", authority.path("ca.pem")).env("CLIENT_WS_EXTENSION", extension);
            run_case(&mut command, &mut server);
        }
    }
}

/// One case of the script against a server.
fn script(case: &str, url: &str) -> Command {
    let client_dir = node_env();
    let mut command = Command::new("node");
    command.arg(tests_dir().join("suite.mjs")).arg(case).arg(url).env("CLIENT_DIR", client_dir);
    command
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
