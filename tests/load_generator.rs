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
    a_streaming_service_is_measured,
    a_refusal_of_a_streaming_service_is_no_measurement,
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

/// Runs `leat-bench stan` against a streaming service.
fn stan(server: &Server, args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_leat-bench"))
        .args(["stan"])
        .args(args)
        .args(["--json", "--quiet", "--url", &server.url(), "--pid", &server.pid().to_string()])
        .output();
    output.expect("leat-bench should start")
}

/// Each kind of work has its figures; nothing is lost or comes twice, and the clients are gone afterwards.
fn a_streaming_service_is_measured(shards: usize) {
    let server = Server::builder().shards(shards).monitor().streaming("test-cluster").start();
    let paced = ["--rate", "2000", "--duration", "300ms", "--warmup", "50ms"];
    let mixed =
        [&["pubsub", "--pubs", "2", "--subs", "2", "--subjects", "3", "--subject", "mixed"], &paced[..]].concat();
    for (args, unit, keys) in [
        (&["pub", "-n", "2000", "--clients", "2"][..], "publishes", &["rate_per_s", "latency_p50_us"][..]),
        (&["pub", "--sync", "-n", "50"], "publishes", &["latency_p99_us", "server_cpu_us_per_message"]),
        (&["pub", "--window", "16", "--duration", "200ms", "--warmup", "50ms"], "publishes", &["rate_per_s"]),
        (&mixed, "deliveries", &["rate_per_s", "publish_rate_per_s", "latency_p99_us", "ack_latency_p99_us"]),
        (&["sub", "--start", "first", "-n", "4000", "--subject", "bench"], "deliveries", &["rate_per_s"]),
        (&["replay", "--fill", "-n", "5000", "--subject", "old"], "messages", &["rate_per_s", "seconds"]),
        (&["idle", "--durables", "200", "--subject", "quiet"], "durables", &["rate_per_s"]),
        (&["idle", "--channels", "20", "--subject", "still"], "channels", &["rate_per_s"]),
    ] {
        let output = stan(&server, args);
        let [said, report] = [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(output.status.success(), "{args:?}: {said}{report}");
        let report: Value = serde_json::from_str(&report).expect("the report is JSON");
        let run = &report["results"][0]["runs_a"][0];
        assert_eq!((&run["unit"], &run["faulty"]), (&unit.into(), &false.into()), "{report:#}");
        for key in keys {
            assert!(run["figures"][key].as_f64().is_some_and(|value| value > 0.0), "{key} of {args:?}: {report:#}");
        }
        assert_eq!(run["verified"]["received"], run["verified"]["expected"]);
    }
    assert_eq!(server.get_json("/streaming/clientsz")["total"], 0);
    let old = server.get_json("/streaming/channelsz?channel=old");
    assert_eq!((&old["last_seq"], &old["subs_count"]), (&5000.into(), &0.into()));
    let quiet = server.get_json("/streaming/channelsz?channel=quiet");
    assert_eq!((&quiet["subs_count"], &quiet["msgs"]), (&200.into(), &1.into()));
}

/// Where nobody answers, or the service refuses, there is nothing to measure.
fn a_refusal_of_a_streaming_service_is_no_measurement(shards: usize) {
    let server = Server::builder().shards(shards).streaming("test-cluster").args(&["-mc", "1"]).start();
    for (args, reason) in [
        (&["pub", "-n", "1", "--cluster", "another"][..], "no streaming service answers"),
        (&["pub", "-n", "10", "--subjects", "2"], "a publish is refused: too many channels"),
        (&["replay", "-n", "10", "--subjects", "0"], "must be at least 1"),
    ] {
        let output = stan(&server, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{args:?}: {said}");
    }
}
