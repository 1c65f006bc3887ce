//! A configuration file makes the server that it describes, flags override it, and what a file asks for and the server
//! cannot give is never passed over in silence.

mod support;

use std::fs;

use serde_json::json;
use support::config::Config;
use support::{PATIENCE, run, shard_suite, skip_on_peer, wait_until};

shard_suite!(one_shard = 1, three_shards = 3 => {
    a_file_describes_a_server,
    credentials_of_the_file_are_enforced,
    subjects_have_so_many_tokens,
});

/// Keys of all kinds do what they say, included files and variables among them.
fn a_file_describes_a_server(shards: usize) {
    let config = Config::new("");
    let in_dir = |name: &str| config.dir.path().join(name).display().to_string();
    let text = format!(
        "# A file in several notations.\n\
         {{\n\
           listen = 127.0.0.1:-1; server_name: 'from file'\n\
           include limits.conf\n\
           http: \"127.0.0.1:-1\", pid_file \"{}\"\n\
           LOG_FILE: \"{}\"\n\
           debug: yes\n\
         }}\n",
        in_dir("pid"),
        in_dir("log")
    );
    fs::write(&config.file, text.replace("from file", "from-file")).expect("the file should be written");
    let limits = "payload = 2KB\nmax_payload: $payload // a variable\nping_interval: \"31s\"\nmax_connections: 2\n";
    fs::write(config.dir.path().join("limits.conf"), limits).expect("the included file should be written");
    let server = config.server().shards(shards).own_address().start();
    let client = server.client();
    assert_eq!(client.info()["server_name"], "from-file");
    assert_eq!(client.info()["max_payload"], 2048);
    let varz = server.get_json("/varz");
    assert_eq!(varz["ping_interval"], 31_000_000_000_u64);
    assert_eq!(varz["max_connections"], 2);
    assert_eq!(fs::read_to_string(in_dir("pid")).expect("a pid file"), server.pid().to_string());
    let tested = config.test();
    let digest = varz["config_digest"].as_str().expect("a digest");
    assert!(digest.starts_with("sha256:") && tested.stderr.contains(digest), "{digest} {}", tested.stderr);
    let log = fs::read_to_string(in_dir("log")).expect("a log file");
    assert!(log.contains(&format!("Using configuration file: {} ({digest})", config.path())), "{log}");
    let _second = server.client();
    server.connect().expect_then_close("-ERR 'maximum connections exceeded'\r\n");
}

/// Flags win over the file, also those that switch off.
#[test]
fn flags_override_the_file() {
    let config = Config::new("listen: \"192.0.2.1:1\"\nserver_name: file\ndebug: true\nlogtime: true\n");
    let server = config.server().args(&["-n", "flag", "-D=false", "-T=false"]).start();
    assert_eq!(server.client().info()["server_name"], "flag");
    // The log has a thread of its own, and may be later than the port.
    server.await_stderr("Server is ready");
    let log = server.stderr();
    assert!(!log.contains("[DBG]"), "{log}");
    assert!(log.lines().any(|line| line.starts_with(&format!("[{}] [INF] ", server.pid()))), "{log}");
}

/// A user with a password, and a token, are required when the file says so.
fn credentials_of_the_file_are_enforced(shards: usize) {
    let violation = "-ERR 'Authorization Violation'\r\n";
    let config = Config::new("authorization { user: app, password: \"s3cret\", timeout: 5 }");
    let server = config.server().shards(shards).start();
    assert_eq!(server.connect().info()["auth_required"], true);
    server.connect().login(&json!({"user": "app", "pass": "s3cret", "verbose": false})).expect_nothing();
    for wrong in [json!({"user": "app", "pass": "x"}), json!({"user": "x", "pass": "s3cret"}), json!({})] {
        let mut client = server.connect();
        client.send(format!("CONNECT {wrong}\r\n"));
        client.expect_then_close(violation);
    }
    let config = Config::new("TOKEN: \"t0ken\"\nauthorization { token: $TOKEN }");
    let server = config.server().shards(shards).start();
    server.connect().login(&json!({"auth_token": "t0ken", "verbose": false})).expect_nothing();
    let mut client = server.connect();
    client.send("CONNECT {\"auth_token\":\"x\"}\r\n");
    client.expect_then_close(violation);
}

/// A subject with more tokens cannot be subscribed to; it can be published to.
fn subjects_have_so_many_tokens(shards: usize) {
    let config = Config::new("max_sub_tokens: 3\n");
    let server = config.server().shards(shards).start();
    let mut client = server.client();
    client.send("SUB a.b.c 1\r\nSUB a.b.c.d 2\r\nSUB a.b.c.> q 3\r\nSUB a.*.> 4\r\nPUB a.b.c.d 1\r\nx\r\nPING\r\n");
    client.expect(
        "-ERR 'Permissions Violation for Subscription to \"a.b.c.d\", too many tokens'\r\n\
         -ERR 'Permissions Violation for Subscription to \"a.b.c.>\", too many tokens'\r\n\
         MSG a.b.c.d 4 1\r\nx\r\nPONG\r\n",
    );
}

/// Monitoring stands below a path of its own, and nowhere else.
#[test]
fn monitoring_has_a_base_path() {
    for (given, base) in [("\"/x\"", "/x"), ("\"a{b/:c/\"", "/a{b/:c")] {
        if given.contains('{') && skip_on_peer("a base path that looks like a pattern") {
            continue;
        }
        let config = Config::new(&format!("http_base_path: {given}\n"));
        let server = config.server().monitor().start();
        assert_eq!(server.get_json(&format!("{base}/varz"))["http_base_path"], given.trim_matches('"'));
        assert_eq!(server.get(&format!("{base}/healthz")).status, 200);
        assert_eq!(server.get(base).status, 200);
        for path in ["/", "/varz", &format!("{base}varz"), &format!("{base}/nothing")] {
            assert_eq!(server.get(path).status, 404, "{path}");
        }
    }
}

/// The log is cut into files, of which so many are kept.
#[test]
fn log_files_are_kept_in_part() {
    let config = Config::new("");
    let in_dir = config.dir.path().join("log").display().to_string();
    config.rewrite(&format!("log_file: \"{in_dir}\"\nlogfile_size_limit: 1000\nlogfile_max_num: 3\ndebug: true\n"));
    let server = config.server().start();
    let purges = || {
        let names = fs::read_dir(config.dir.path()).expect("a directory").flatten();
        let names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.into_iter().filter(|name| name.starts_with("log")).collect::<Vec<_>>()
    };
    let mut newest = String::new();
    wait_until("three files have been there and one has gone", PATIENCE, || {
        server.client().fence();
        let mut names = purges();
        names.sort();
        assert!(names.len() <= 4, "one more for a moment: {names:?}");
        let last = names.last().cloned().unwrap_or_default();
        let is_new = last != newest && names.len() == 3;
        newest = last;
        is_new && fs::read_to_string(&in_dir).is_ok_and(|text| text.contains("Purged log file \"log.20"))
    });
}

/// What the reference warns about does not stop a start, but is written to standard error.
#[test]
fn warnings_do_not_stop_a_start() {
    let config = Config::new("write_deadline: 5\n");
    let server = config.server().monitor().start();
    server.await_stderr("write_deadline should be converted to a duration");
    assert_eq!(server.get_json("/varz")["write_deadline"], 5_000_000_000_u64);
    let finished = config.test();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("write_deadline should be converted to a duration"), "{}", finished.stderr);
    let config = Config::new("# nothing here\n");
    config.server().start().await_stderr("config has no values or is empty");
    assert_eq!(config.test().code, Some(1));
}

/// All errors of a file are shown at once, each with its place, and nothing starts.
#[test]
fn a_wrong_file_is_refused() {
    let config = Config::new("debug: true\nfoo: 1\nbar: 2\n");
    for finished in [config.test(), run(&["-c", config.path()])] {
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        for (line, name) in [(2, "foo"), (3, "bar")] {
            let expected = format!("{}:{line}:1: unknown field \"{name}\"", config.path());
            assert!(finished.stderr.contains(&expected), "{}", finished.stderr);
        }
    }
}

/// What this version cannot enforce is not started without it; a test of the file passes and says so.
#[test]
fn nothing_starts_unprotected() {
    if skip_on_peer("nothing_starts_unprotected") {
        return;
    }
    let cases = [("authorization { proxy_required: true }", "proxy_required")];
    for (text, what) in cases {
        let config = Config::new(text);
        let refusal = format!("this version cannot enforce {what}, and does not start without it");
        let finished = config.server().start_in_vain();
        assert_eq!(finished.code, Some(1));
        assert!(finished.stderr.contains(&refusal), "{}", finished.stderr);
        let finished = config.test();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert!(finished.stderr.contains(&format!("a start would be refused: {refusal}")), "{}", finished.stderr);
        assert!(finished.stderr.contains("is valid (sha256:"), "{}", finished.stderr);
    }
}

/// Blocks of features that are not there are named, and the server runs.
#[test]
fn features_to_come_are_named() {
    if skip_on_peer("features_to_come_are_named") {
        return;
    }
    let config = Config::new("cluster { name: c, port: 6222 }\njetstream { store_dir: x }\n");
    let server = config.server().start();
    server.await_stderr(":1:1: clustering is not available in this version");
    server.await_stderr(":2:1: JetStream is not available in this version");
    server.client().fence();
}

/// The settings that only Leat has stand in a block of their own.
#[test]
fn the_leat_block() {
    if skip_on_peer("the_leat_block") {
        return;
    }
    let config = Config::new("leat { cores: \"0,0,0\", ring_slots: 16 }\n");
    assert_eq!(config.test().code, Some(0));
    let refused = Config::new("leat { ring_slots: 15 }\n").server().start_in_vain();
    assert!(refused.stderr.contains("ring_slots (15) must be a power of two"), "{}", refused.stderr);
}

/// The sample is a configuration in which nothing is set.
#[test]
fn the_sample_can_be_printed() {
    if skip_on_peer("the_sample_can_be_printed") {
        return;
    }
    let sample = run(&["--sample_config"]);
    assert_eq!(sample.code, Some(0));
    for key in ["#listen: ", "#max_payload: 1MB", "#authorization: {", "  #cert_file: ", "#leat: {"] {
        assert!(sample.stdout.contains(key), "{key} is missing: {}", sample.stdout);
    }
    let config = Config::new(&sample.stdout);
    let server = config.server().start();
    wait_until("the sample starts", PATIENCE, || server.stderr().contains("Server is ready"));
}
