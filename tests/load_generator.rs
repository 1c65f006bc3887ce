//! Promises of `leat-bench` that need a server to be seen.

mod support;
mod support_tls;

use std::process::{Command, Output};

use serde_json::Value;
use support::{Server, shard_suite};
use support_tls::Authority;

shard_suite!(one_shard = 1, three_shards = 3 => {
    handshakes_are_measured_beside_traffic_in_clear,
    handshakes_that_fail_are_no_measurement,
});

/// Runs `leat-bench handshakes` for a moment.
fn handshakes(server: &Server, authority: &Authority) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_leat-bench"))
        .args(["handshakes", "--connections", "20", "--rate", "500", "--duration", "300ms", "--warmup", "50ms"])
        .args(["--json", "--quiet", "--url", &server.url(), "--pid", &server.pid().to_string()])
        .args(["--tlscacert", &authority.file("ca.pem")])
        .output();
    output.expect("leat-bench should start")
}

/// One report has the latency in clear without handshakes and beside them, and how the handshakes went.
fn handshakes_are_measured_beside_traffic_in_clear(shards: usize) {
    let authority = Authority::new();
    let config = authority.config("timeout: 30", "allow_non_tls: true");
    let server = Server::builder().shards(shards).args(&["-c", &config]).start();
    let output = handshakes(&server, &authority);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("the report is JSON");
    let run = &report["results"][0]["runs_a"][0];
    let figure = |key: &str| run["figures"][key].as_f64().unwrap_or_else(|| panic!("no {key}: {report:#}"));
    assert!(figure("handshakes_per_s") > 0.0 && figure("handshake_p50_us") > 0.0);
    assert_eq!(figure("handshakes_failed"), 0.0);
    for key in ["latency_p99_us", "quiet_latency_p99_us", "server_cpu_percent", "quiet_server_cpu_percent"] {
        assert!(figure(key) > 0.0, "{key}: {report:#}");
    }
    let verified = &run["verified"];
    assert_eq!(verified["received"], verified["expected"]);
}

/// A server without TLS, or with a certificate of somebody else, is not measured.
fn handshakes_that_fail_are_no_measurement(shards: usize) {
    let authority = Authority::new();
    let plain = Server::builder().shards(shards).start();
    let config = authority.config("timeout: 30", "allow_non_tls: true");
    let mixed = Server::builder().shards(shards).args(&["-c", &config]).start();
    for (server, authority, reason) in
        [(&plain, &authority, "the server does not offer TLS"), (&mixed, &Authority::new(), "invalid peer certificate")]
    {
        let output = handshakes(server, authority);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{said}");
    }
}
