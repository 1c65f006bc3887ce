//! What scripts, supervisors and test harnesses of the NATS world rely on: flags, exit codes, log lines, files and
//! signals.

mod support;

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Client, Finished, PATIENCE, Server, run, shard_suite, skip_on_peer, wait_until};

shard_suite!(one_shard = 1, three_shards = 3 => {
    readiness_is_logged,
    the_log_may_go_to_a_file,
    a_moved_log_file_is_reopened,
    the_pid_file_holds_the_bare_number,
    the_ports_file_names_all_ports_while_the_server_runs,
    sigint_and_sigterm_end_the_server,
    sigterm_delivers_what_has_been_sent,
    a_stuck_client_does_not_delay_the_end,
    signals_may_be_sent_by_the_binary,
    lame_duck_without_clients_ends_at_once,
    lame_duck_lets_clients_go,
    trace_shows_the_protocol_but_no_secrets,
    a_token_is_not_logged,
    traces_are_complete_and_cut,
    debug_shows_no_protocol,
    a_restarted_server_takes_the_same_port,
    a_port_in_use_is_fatal,
});

/// How soon a server must be gone after a signal.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// Splits a log line of the form `[pid] date time [LVL] text`.
fn log_fields(line: &str) -> Option<(u32, &str, &str, &str, &str)> {
    let (pid, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (date, rest) = rest.split_once(' ')?;
    let (time, rest) = rest.split_once(' ')?;
    let (level, text) = rest.strip_prefix('[')?.split_once("] ")?;
    Some((pid.parse().ok()?, date, time, level, text))
}

fn assert_announces_readiness(log: &str, server: &Server) {
    let lines: Vec<_> =
        log.lines().map(|line| log_fields(line).unwrap_or_else(|| panic!("odd line: {line}"))).collect();
    let listening = format!("Listening for client connections on {}", server.addr());
    let at = |text: &str| lines.iter().position(|line| line.4 == text).unwrap_or_else(|| panic!("no {text:?}: {log}"));
    assert!(at(&listening) < at("Server is ready"), "{log}");
    let shape = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
    for (pid, date, time, level, _) in lines {
        assert_eq!(pid, server.pid());
        assert_eq!((shape(date).as_str(), shape(time).as_str()), ("0000/00/00", "00:00:00.000000"));
        assert!(["INF", "WRN"].contains(&level), "{level} at a plain start: {log}");
    }
}

fn exit_code(server: &mut Server) -> Option<i32> {
    let status = server.wait_exit(EXIT_LIMIT);
    status.unwrap_or_else(|| panic!("still running after {EXIT_LIMIT:?}:\n{}", server.stderr())).code()
}

/// The log on standard error says where clients are expected and when the server is ready.
fn readiness_is_logged(shards: usize) {
    let server = Server::start(shards);
    server.await_stderr("Server is ready");
    assert_announces_readiness(&server.stderr(), &server);
}

/// `-l FILE` takes the log from standard error to the file.
fn the_log_may_go_to_a_file(shards: usize) {
    let server = Server::builder().shards(shards).args(&["-l", "server.log"]).start();
    wait_until("the log file says ready", PATIENCE, || server.file("server.log").contains("Server is ready"));
    assert_announces_readiness(&server.file("server.log"), &server);
    assert_eq!(server.stderr(), "");
}

/// After `--signal reopen` the log continues in a new file of the old name.
fn a_moved_log_file_is_reopened(shards: usize) {
    let mut server = Server::builder().shards(shards).args(&["-l", "server.log"]).start();
    wait_until("the log file says ready", PATIENCE, || server.file("server.log").contains("Server is ready"));
    fs::rename(server.dir().join("server.log"), server.dir().join("old.log")).expect("the log should be movable");
    assert_eq!(run(&["--signal", &format!("reopen={}", server.pid())]).code, Some(0));
    wait_until("the log is reopened", PATIENCE, || server.file("server.log").contains("[INF] File log re-opened"));
    server.signal(libc::SIGTERM);
    assert_eq!(exit_code(&mut server), Some(0));
    assert!(server.file("server.log").contains("Server Exiting.."), "{}", server.file("server.log"));
    assert!(server.file("old.log").contains("Server is ready"), "{}", server.file("old.log"));
}

/// `-P FILE` holds the process id and nothing else, and is left behind.
fn the_pid_file_holds_the_bare_number(shards: usize) {
    for flag in ["-P", "--pid"] {
        let mut server = Server::builder().shards(shards).args(&[flag, "pid"]).start();
        assert_eq!(server.file("pid"), server.pid().to_string());
        server.signal(libc::SIGTERM);
        assert_eq!(exit_code(&mut server), Some(0));
        assert_eq!(server.file("pid"), server.pid().to_string());
    }
}

/// The ports file lists client and monitoring URLs and is removed at the end.
fn the_ports_file_names_all_ports_while_the_server_runs(shards: usize) {
    let mut server = Server::start(shards);
    let name = server.ports_file();
    let ports: Value = serde_json::from_str(&server.file(&name)).expect("the ports file is JSON");
    assert_eq!(ports, json!({"nats": [server.url()], "monitoring": [server.monitor_url()]}));
    server.signal(libc::SIGTERM);
    assert_eq!(exit_code(&mut server), Some(0));
    assert!(!server.dir().join(name).exists(), "the ports file is still there");

    let server = Server::builder().shards(shards).start();
    let ports: Value = serde_json::from_str(&server.file(&server.ports_file())).expect("the ports file is JSON");
    assert_eq!(ports, json!({"nats": [server.url()]}));
}

/// SIGINT and SIGTERM end the server with code 0. Clients see the end of the connection and no further byte.
fn sigint_and_sigterm_end_the_server(shards: usize) {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        for client_count in [0, 6] {
            let mut server = Server::builder().shards(shards).start();
            let mut clients: Vec<_> = (0..client_count).map(|_| server.client()).collect();
            server.signal(signal);
            assert_eq!(exit_code(&mut server), Some(0));
            assert!(server.stderr().contains("Server Exiting.."), "{}", server.stderr());
            for client in &mut clients {
                client.expect_close();
            }
        }
    }
}

/// Sends as much of `bytes` as the kernel takes while nobody reads; gives the number of bytes.
fn fill(client: &Client, bytes: &[u8]) -> usize {
    let mut writer = client.writer();
    writer.set_write_timeout(Some(Duration::from_millis(200))).expect("a write timeout should be settable");
    let mut sent = 0;
    while sent < bytes.len() {
        match writer.write(&bytes[sent..]) {
            Ok(taken) => sent += taken,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("the connection should be open: {error}"),
        }
    }
    sent
}

/// What clients have sent before SIGTERM reaches subscribers on all shards, be it more than one read takes. (The
/// reference server drops it.)
fn sigterm_delivers_what_has_been_sent(shards: usize) {
    if skip_on_peer("sigterm_delivers_what_has_been_sent") {
        return;
    }
    const MESSAGES: usize = 1500;
    let mut server = Server::builder().shards(shards).monitor().start();
    let mut subscribers: Vec<_> = (0..shards).map(|shard| server.client_on(shard)).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("foo", "1");
    }
    let publishers: Vec<_> = (0..3 * shards).map(|n| server.client_on(n % shards)).collect();
    let command = format!("PUB foo 1000\r\n{}\r\n", "x".repeat(1000));
    let batch = command.repeat(MESSAGES);
    server.signal(libc::SIGSTOP);
    let sent: usize = publishers.iter().map(|publisher| fill(publisher, batch.as_bytes()) / command.len()).sum();
    server.signal(libc::SIGTERM);
    server.signal(libc::SIGCONT);
    let expected = format!("MSG foo 1 1000\r\n{}\r\n", "x".repeat(1000)).repeat(sent);
    for subscriber in &mut subscribers {
        let seen = subscriber.read_to_end();
        assert!(seen == expected.as_bytes(), "{} of {} bytes came", seen.len(), expected.len());
    }
    assert_eq!(exit_code(&mut server), Some(0));
}

/// A client that does not read what is pending for it does not delay the end. (The reference server waits until its
/// write deadline of 10 s.)
fn a_stuck_client_does_not_delay_the_end(shards: usize) {
    if skip_on_peer("a_stuck_client_does_not_delay_the_end") {
        return;
    }
    for shard in 0..shards {
        let mut server = Server::start(shards);
        let mut stuck = server.client_on(shard);
        stuck.subscribe("foo", "1");
        let mut publisher = server.client_on(0);
        for _ in 0..30 {
            publisher.publish("foo", [b'x'; 500_000]);
        }
        publisher.expect_nothing();
        server.signal(libc::SIGTERM);
        assert_eq!(exit_code(&mut server), Some(0));
    }
}

/// `--signal NAME=PID` and `--signal NAME=FILE` reach the process; `stop` kills it, the others end it in order.
fn signals_may_be_sent_by_the_binary(shards: usize) {
    for (argument, by_file) in [("term", false), ("quit", false), ("quit", true), ("term", true), ("ldm", true)] {
        let mut server = Server::builder().shards(shards).args(&["-P", "pid"]).start();
        let file = server.dir().join("pid");
        let target = if by_file { file.display().to_string() } else { server.pid().to_string() };
        assert_eq!(run(&["--signal", &format!("{argument}={target}")]).code, Some(0), "{argument}={target}");
        assert_eq!(exit_code(&mut server), Some(0), "{argument}");
    }
    let mut server = Server::builder().shards(shards).start();
    assert_eq!(run(&[&format!("-sl=stop={}", server.pid())]).code, Some(0));
    let status = server.wait_exit(EXIT_LIMIT).expect("a killed server is gone");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
}

fn lame_duck_server(shards: usize) -> Server {
    Server::builder()
        .shards(shards)
        .option("lame_duck_duration", "30s")
        .option("lame_duck_grace_period", "700ms")
        .start()
}

/// Without clients there is nothing to wait for.
fn lame_duck_without_clients_ends_at_once(shards: usize) {
    let mut server = lame_duck_server(shards);
    server.signal(libc::SIGUSR2);
    assert_eq!(exit_code(&mut server), Some(0));
    assert!(server.stderr().contains("Entering lame duck mode"), "{}", server.stderr());
}

/// In lame duck mode new connections are refused, clients that understand it get INFO with `ldm`, go on working for the
/// grace period, even when SIGTERM comes, and are closed then; the server ends with code 0.
fn lame_duck_lets_clients_go(shards: usize) {
    let mut server = lame_duck_server(shards);
    let mut clients: Vec<_> = (0..2)
        .map(|_| {
            let mut client = server.connect();
            client.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
            client.expect("PONG\r\n");
            assert!(client.next_info().get("ldm").is_none(), "not in lame duck mode yet");
            client
        })
        .collect();
    let mut old = server.client();
    let began = Instant::now();
    server.signal(libc::SIGUSR2);
    for client in &mut clients {
        let info = client.next_info();
        assert_eq!(info["ldm"], true);
        assert_eq!(info["client_id"], client.cid());
    }
    let refused = TcpStream::connect(server.addr()).expect_err("new connections are refused");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    server.signal(libc::SIGTERM);
    clients[0].subscribe("foo", "1");
    clients[1].publish("foo", "still here");
    clients[0].expect("MSG foo 1 10\r\nstill here\r\n");
    for client in clients.iter_mut().chain([&mut old]) {
        client.expect_close();
    }
    assert!(began.elapsed() >= Duration::from_millis(700), "closed after {:?}", began.elapsed());
    assert_eq!(exit_code(&mut server), Some(0));
}

/// `-DV` logs each protocol line with the connection's address, id, library and user; credentials are blanked.
fn trace_shows_the_protocol_but_no_secrets(shards: usize) {
    let server = Server::builder().shards(shards).user("u", "s3cret").arg("-DV").start();
    let mut client = server.connect();
    let port = client.socket().local_addr().expect("a connected socket has an address").port();
    client.send("CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"s3cret\",\"lang\":\"py\",\"version\":\"1.2\",\"name\":\"me\"}\r\n");
    client.send("SUB foo 1\r\nSUB foo q n\r\nUNSUB n\r\nPUB foo 5\r\nhello\r\nPUB foo r.s 0\r\n\r\nUNSUB 1 9\r\n");
    client.send("SUB foo..bar 2\r\nPING\r\n");
    let _ = client.until_pong();
    let prefix = format!("127.0.0.1:{port} - cid:{} - ", client.cid());
    let named = format!("{prefix}\"v1.2:py:me\" - \"$G/user:u\" - ");
    server.await_stderr(&format!("{named}->> [PONG]"));
    let log = server.stderr();
    for (prefix, level, text) in [
        (&prefix, "TRC", "<<- [CONNECT {"),
        (&named, "TRC", "<<- [SUB foo 1]"),
        (&named, "TRC", "<<- [SUB foo q n]"),
        (&named, "TRC", "<<- [UNSUB n]"),
        (&named, "TRC", "<<- [PUB foo 5]"),
        (&named, "TRC", "<<- MSG_PAYLOAD: [\"hello\"]"),
        (&named, "TRC", "->> [MSG foo 1 5]"),
        (&named, "TRC", "->> MSG_PAYLOAD: [\"hello\"]"),
        (&named, "TRC", "<<- [PUB foo r.s 0]"),
        (&named, "TRC", "->> [MSG foo 1 r.s 0]"),
        (&named, "TRC", "<<- [UNSUB 1 9]"),
        (&named, "TRC", "->> [-ERR Invalid Subject]"),
        (&named, "TRC", "<<- [PING]"),
        (&prefix, "DBG", "Client connection created"),
    ] {
        assert!(log.contains(&format!("[{level}] {prefix}{text}")), "no [{level}] {prefix}{text}:\n{log}");
    }
    let mut stranger = server.connect();
    stranger.send(
        "CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"wr0ng\",\"auth_token\":\"t0ken\",\"sig\":\"s1g\"}\r\n",
    );
    let _ = stranger.read_to_end();
    server.await_stderr("Client connection closed: Authentication Failure");
    let log = server.stderr();
    assert!(log.contains("\"pass\":\"[REDACTED]\""), "{log}");
    for secret in ["s3cret", "wr0ng", "t0ken", "s1g"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}

/// Who has logged in with a token is known by that, not by the token.
fn a_token_is_not_logged(shards: usize) {
    let server = Server::builder().shards(shards).token("t0ken").arg("-DV").start();
    let mut client = server.connect().login(&json!({"verbose": false, "auth_token": "t0ken"}));
    client.subscribe("foo", "1");
    server.await_stderr(&format!("cid:{} - \"$G/token\" - <<- [SUB foo 1]", client.cid()));
    assert!(!server.stderr().contains("t0ken"), "{}", server.stderr());
}

/// Each kind of delivery and of removal has its line; payloads are cut to `--max_traced_msg_len` bytes, headers included.
fn traces_are_complete_and_cut(shards: usize) {
    let server = Server::builder().shards(shards).args(&["-DV", "--max_traced_msg_len", "7"]).start();
    let mut publisher = server.requester();
    let mut plain = server.connect();
    plain.send("CONNECT {\"verbose\":true}\r\nSUB foo 1\r\nSUB foo 2\r\nUNSUB 2 1\r\nPING\r\n");
    let _ = plain.until_pong();
    publisher.send(
        "SUB foo q 3\r\nHPUB foo r 12 17\r\nNATS/1.0\r\n\r\nhello\r\nPUB foo 11\r\nhello world\r\nPUB foo 0\r\n\r\n",
    );
    publisher.send("UNSUB 3\r\n+OK\r\nINFO {}\r\nPING\r\n");
    let _ = publisher.until_pong();
    drop(plain);
    server.await_stderr("<-> [DELSUB 1]");
    let log = server.stderr();
    for text in [
        format!("cid:{} - <<- [HPUB foo r 12 17]", publisher.cid()),
        format!("cid:{} - <<- MSG_PAYLOAD: [\"NATS/1....\"]", publisher.cid()),
        format!("cid:{} - ->> [HMSG foo 3 r 12 17]", publisher.cid()),
        format!("cid:{} - ->> MSG_PAYLOAD: [\"NATS/1....\"]", publisher.cid()),
        format!("cid:{} - <<- MSG_PAYLOAD: [\"hello w...\"]", publisher.cid()),
        format!("cid:{} - <-> [DELSUB 3]", publisher.cid()),
        "->> [OK]".to_owned(),
        "->> [MSG foo 1 r 5]".to_owned(),
        "->> MSG_PAYLOAD: [\"hello\"]".to_owned(),
        "->> [MSG foo 1 11]".to_owned(),
        "->> MSG_PAYLOAD: [\"hello w...\"]".to_owned(),
        "->> [MSG foo 1 0]".to_owned(),
        "Auto-unsubscribe limit of 1 reached for sid '2'".to_owned(),
        "<-> [DELSUB 2]".to_owned(),
    ] {
        assert!(log.contains(&text), "no {text}:\n{log}");
    }
    for text in ["rld", "[INFO", "[+OK", "MSG_PAYLOAD: [\"\"]"] {
        assert!(!log.contains(text), "{text} is in the log:\n{log}");
    }
}

/// `-D` logs connections coming and going, and no protocol; without it there is neither.
fn debug_shows_no_protocol(shards: usize) {
    let server = Server::builder().shards(shards).arg("-D").start();
    let mut client = server.client();
    client.expect_nothing();
    drop(client);
    server.await_stderr("Client connection closed: Client Closed");
    assert!(!server.stderr().contains("[TRC]"), "{}", server.stderr());

    let server = Server::builder().shards(shards).start();
    drop(server.client());
    server.client().expect_nothing();
    assert!(!server.stderr().contains("[DBG]") && !server.stderr().contains("[TRC]"), "{}", server.stderr());
}

/// A killed server can be started again on its port at once.
fn a_restarted_server_takes_the_same_port(shards: usize) {
    let mut server = Server::start(shards);
    let (addr, monitor_addr, pid) = (server.addr(), server.monitor_addr(), server.pid());
    let mut client = server.client();
    server.restart_same_port();
    client.expect_close();
    assert_eq!((server.addr(), server.monitor_addr()), (addr, monitor_addr));
    assert_ne!(server.pid(), pid);
    server.client().expect_nothing();
}

fn assert_fatal(finished: &Finished, text: &str) {
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let is_fatal = |line: &str| line.contains("[FTL] ") && line.contains(text);
    assert!(finished.stderr.lines().any(is_fatal), "no [FTL] line with {text:?}:\n{}", finished.stderr);
}

/// A port that somebody else listens on is a fatal error, also when that is another server of the same kind.
fn a_port_in_use_is_fatal(shards: usize) {
    let foreign = TcpListener::bind("127.0.0.1:0").expect("a free port should be found");
    let taken_by_stranger = foreign.local_addr().expect("a listener has an address");
    let server = Server::start(shards);
    for addr in [taken_by_stranger, server.addr()] {
        let settings = Server::builder().shards(shards).own_address();
        let finished = settings.args(&["-a", "127.0.0.1", "-p", &addr.port().to_string()]).start_in_vain();
        assert_fatal(&finished, &format!("Error listening on port: {addr}"));
    }
    let port = server.monitor_addr().port().to_string();
    let finished = Server::builder().shards(shards).args(&["-m", &port]).start_in_vain();
    assert_fatal(&finished, "monitor");
    server.client().expect_nothing();
}

/// The version can be asked for in several ways and names the protocol version that clients check.
#[test]
fn the_version_is_printed() {
    for argument in ["-v", "--version", "-version", "version"] {
        let finished = run(&[argument]);
        assert_eq!(finished.code, Some(0), "{argument}");
        assert!(finished.stdout.contains(" v2.15.1"), "{argument}: {}", finished.stdout);
    }
}

/// Help names the flags and is no error.
#[test]
fn help_is_printed() {
    for argument in ["-h", "--help", "-help", "help"] {
        let finished = run(&[argument]);
        assert_eq!(finished.code, Some(0), "{argument}");
        for flag in ["--addr", "--port", "--http_port", "--config", "--signal", "--ports_file_dir", "--user"] {
            assert!(finished.stdout.contains(flag), "{argument} does not mention {flag}: {}", finished.stdout);
        }
    }
}

/// A wrong command line is refused with one line on standard error and a failure code. (The reference server prints its
/// whole usage and exits with code 0.)
#[test]
fn a_wrong_command_line_is_refused() {
    if skip_on_peer("a_wrong_command_line_is_refused") {
        return;
    }
    let cases: [(&[&str], &str); 6] = [
        (&["--bogus"], "bogus"),
        (&["-p", "notanumber"], "notanumber"),
        (&["--port=notanumber"], "notanumber"),
        (&["-p", "70000"], "70000"),
        (&["--port"], "port"),
        (&["--max_payload=lots"], "lots"),
    ];
    for (args, named) in cases {
        let finished = run(args);
        assert!(finished.code.is_some_and(|code| code != 0), "{args:?} exits with {:?}", finished.code);
        assert_eq!(finished.stdout, "", "{args:?}");
        assert_eq!(finished.stderr.trim_end().lines().count(), 1, "{args:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(named), "{args:?}: {}", finished.stderr);
    }
}

/// An unknown command word is an error that names it.
#[test]
fn an_unknown_command_is_refused() {
    let finished = run(&["frobnicate"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("unrecognized command: \"frobnicate\""), "{}", finished.stderr);
}

/// `-t` checks a configuration file and needs one.
#[test]
fn checking_needs_a_configuration_file() {
    let finished = run(&["-t"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("must specify [-c, --config]"), "{}", finished.stderr);
}

/// A signal to a process that does not exist fails.
#[test]
fn a_signal_to_nobody_fails() {
    let finished = run(&["--signal", "term=99999999"]);
    assert_eq!(finished.code, Some(1));
    assert!(!finished.stderr.is_empty(), "nothing said");
}

/// Settings that contradict each other are refused at start, with both values in the message.
#[test]
fn contradictory_settings_are_refused() {
    for (first, second, text) in [
        (
            ("lame_duck_duration", "30s"),
            ("lame_duck_grace_period", "31s"),
            "lame duck grace period (31s) should be strictly lower than lame duck duration (30s)",
        ),
        (
            ("max_payload", "2000"),
            ("max_pending", "1000"),
            "max_payload (2000) cannot be higher than max_pending (1000)",
        ),
    ] {
        let finished = Server::builder().option(first.0, first.1).option(second.0, second.1).start_in_vain();
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(finished.stderr.contains(text), "{}", finished.stderr);
    }
}

/// Flags take one dash or two, and their value after a blank or `=`; booleans take a value after `=` only.
#[test]
fn flags_are_written_as_in_go() {
    let forms: [&[&str]; 6] = [
        &["-a", "127.0.0.1", "-p", "-1"],
        &["--addr", "127.0.0.1", "--port", "-1"],
        &["-net=127.0.0.1", "-port=-1"],
        &["--net", "127.0.0.1", "--p=-1"],
        &["-addr=127.0.0.1", "-p=-1", "-T=true", "--logtime_utc=false"],
        &["--a=127.0.0.1", "--port=-1", "-D=false", "-V=false"],
    ];
    for form in forms {
        let server = Server::builder().own_address().args(form).start();
        assert!(server.addr().ip().is_loopback(), "{form:?} listens on {}", server.addr());
        server.client().expect_nothing();
        assert!(!server.stderr().contains("[DBG]"), "{form:?}: {}", server.stderr());
    }
}

/// The last of several values for one flag counts.
#[test]
fn a_repeated_flag_overrides() {
    let server = Server::builder().args(&["-n", "one", "--name", "two", "-p", "4222", "-p", "-1"]).start();
    assert_eq!(server.connect().info()["server_name"], "two");
}

/// `-T=false` drops date and time from the log.
#[test]
fn the_time_can_be_left_out_of_the_log() {
    let server = Server::builder().arg("-T=false").start();
    server.await_stderr(&format!("[{}] [INF] Server is ready\n", server.pid()));
}

/// The name given on the command line appears in INFO and monitoring.
#[test]
fn a_server_can_be_named() {
    for flag in ["-n", "--name", "--server_name"] {
        let server = Server::builder().monitor().args(&[flag, "NAME"]).start();
        assert_eq!(server.connect().info()["server_name"], "NAME");
        assert_eq!(server.get_json("/varz")["server_name"], "NAME");
        server.await_stderr("Name:     NAME");
    }
}

/// A port of the caller's choice is used for clients and for monitoring.
#[test]
fn ports_can_be_chosen() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port should be found");
    let port = free.local_addr().expect("a listener has an address").port();
    drop(free);
    let args = ["-a", "127.0.0.1", "-p", &port.to_string(), "--http_port", "-1"];
    let server = Server::builder().own_address().args(&args).start();
    assert_eq!(server.addr().port(), port);
    assert_eq!(server.get_json("/varz")["port"], port);
    assert_eq!(server.connect().info()["port"], port);
}
