//! Promises kept towards the official client for Node, `@nats-io/transport-node`. The cases are in
//! `tests/node/suite.mjs`; which they are is in `support_clients`.

mod support;
mod support_clients;
mod support_node;
mod support_tls;

use std::process::Command;

use serde_json::Value;
use support::{Server, ServerBuilder};
use support_clients::{run_case, script_suite};
use support_node::node_script;
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
    node_script("suite.mjs", case, url)
}
