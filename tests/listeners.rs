//! Promises about where clients and monitors connect: addresses of both families, several of them, what clients are told
//! of them, the PROXY protocol in front of connections, and monitoring inside TLS.

mod support;
mod support_tls;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::{Value, json};
use support::config::Config;
use support::{Client, HttpReply, PATIENCE, Server, http_get_over, shard_suite, skip_on_peer, wait_until};
use support_tls::{Authority, TlsStream, clear_line};

shard_suite!(one_shard = 1, three_shards = 3 => {
    addresses_of_both_families,
    clients_are_told_another_address,
    several_addresses_are_one_server,
    a_proxy_tells_who_the_client_is,
    a_proxy_comes_before_tls,
    broken_proxy_headers_close_the_connection,
});

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn quiet() -> Value {
    json!({"verbose": false, "pedantic": false})
}

/// The URLs that the ports file lists of this kind.
fn urls(server: &Server, kind: &str) -> Vec<String> {
    let ports: Value = serde_json::from_str(&server.file(&server.ports_file())).expect("the ports file is JSON");
    let list = ports[kind].as_array().cloned().unwrap_or_default();
    list.iter().map(|url| url.as_str().expect("a URL is text").to_owned()).collect()
}

/// Hosts may be numbers of IPv6, in the file with brackets and as flags without, and all addresses means those of both
/// families, in whichever family they are written.
fn addresses_of_both_families(shards: usize) {
    let file = |text: &str| Config::new(text);
    let cases = [
        (file("listen: \"[::1]:-1\"\nhttp: \"[::1]:-1\"\n"), &[][..], vec![V6]),
        (file("host: \"::1\"\nport: -1\nhttp: -1\n"), &[], vec![V6]),
        (file("port: -1\nhttp: -1\n"), &["-a", "::1"], vec![V6]),
        (file("listen: \"[::]:-1\"\nhttp: -1\n"), &[], vec![V4, V6]),
        (file("listen: \"0.0.0.0:-1\"\nhttp: -1\n"), &[], vec![V4, V6]),
        (file("listen: \"127.0.0.1:-1\"\nhttp: \"[::]:-1\"\n"), &[], vec![V4]),
    ];
    for (config, args, reachable) in cases {
        let server = config.server().shards(shards).own_address().args(args).start();
        let port = server.addr().port();
        for ip in [V4, V6] {
            let addr = SocketAddr::new(ip, port);
            if !reachable.contains(&ip) {
                assert!(TcpStream::connect(addr).is_err(), "{addr} should be closed");
                continue;
            }
            let mut client = Client::connect(addr).login(&quiet());
            assert_eq!(client.info()["client_ip"], ip.to_string());
            client.fence();
        }
        let listed = urls(&server, "nats");
        for ip in [V4, V6] {
            assert_eq!(listed.contains(&format!("nats://{}", SocketAddr::new(ip, port))), reachable.contains(&ip));
        }
        let first = &listed[0];
        if reachable.len() == 2 {
            assert_eq!(first, &format!("nats://127.0.0.1:{port}"));
            for url in listed.iter().chain(&urls(&server, "monitoring")) {
                let (_, addr) = url.split_once("://").expect("a scheme");
                let ip = addr.parse::<SocketAddr>().expect("an address").ip();
                assert!(!ip.is_unspecified(), "{url}");
            }
        }
        if reachable == [V6] {
            assert_eq!(first, &format!("nats://[::1]:{port}"));
            assert_eq!(server.client().info()["host"], "::1");
            server.await_stderr(&format!("Listening for client connections on [::1]:{port}"));
        }
        assert!(server.get_json("/varz")["port"].is_u64());
    }
    // A name is listed as what it means.
    let server = file("host: localhost\nport: -1\n").server().shards(shards).own_address().start();
    let addr = ("localhost", server.addr().port()).to_socket_addrs().expect("a known name").next();
    assert_eq!(urls(&server, "nats"), [format!("nats://{}", addr.expect("an address"))]);
}

/// `client_advertise` is what INFO says, in both INFOs, and a port that it leaves out is the one listened on.
fn clients_are_told_another_address(shards: usize) {
    let text = |value: &str| format!("client_advertise: \"{value}\"\n");
    let config = Config::new(&text("example.org:7777"));
    let server = config.server().shards(shards).start();
    let port = server.addr().port();
    let expect = |host: &str, port: u16| {
        let mut client = server.connect();
        let told = |info: &Value| (info["host"].clone(), info["port"].clone(), info["connect_urls"].clone());
        assert_eq!(told(client.info()), (host.into(), port.into(), Value::Null));
        client.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
        client.until_pong();
        assert_eq!(told(&client.next_info()), (host.into(), port.into(), Value::Null));
    };
    expect("example.org", 7777);
    for (value, host, port) in [
        ("example.org", "example.org", port),
        ("[2001:db8::1]:99", "2001:db8::1", 99),
        ("[2001:db8::1]", "2001:db8::1", port),
        ("a:0", "a", port),
        ("", "127.0.0.1", port),
    ] {
        let said = config.reload(&server, &text(value));
        assert!(said.contains("Reloaded server configuration"), "{value}: {said}");
        expect(host, port);
    }
    for value in ["a:b", "a:b:c", "::1"] {
        let said = config.reload(&server, &text(value));
        assert!(said.contains("Failed to reload"), "{value}: {said}");
        let finished = Config::new(&text(value)).server().start_in_vain();
        assert_eq!(finished.code, Some(1), "{value}: {}", finished.stderr);
    }
    expect("127.0.0.1", port);
}

/// Clients of all addresses are clients of one server, whichever shard they come to.
fn several_addresses_are_one_server(shards: usize) {
    if skip_on_peer("several_addresses_are_one_server") {
        return;
    }
    let config = Config::new("leat { also_listen: [ \"127.0.0.2:-1\", \"[::1]:-1\" ] }\n");
    let server = config.server().shards(shards).monitor().start();
    let urls = urls(&server, "nats");
    let addrs: Vec<SocketAddr> =
        urls.iter().map(|url| url.trim_start_matches("nats://").parse().expect("a URL has an address")).collect();
    let hosts: Vec<String> = addrs.iter().map(|addr| addr.ip().to_string()).collect();
    assert_eq!(hosts, ["127.0.0.1", "127.0.0.2", "::1"]);
    for addr in &addrs {
        server.await_stderr(&format!("Listening for client connections on {addr}"));
    }
    let more = [addrs[1].to_string(), addrs[2].to_string()];
    assert_eq!(server.get_json("/varz")["leat"]["also_listen"], json!(more));
    let mut clients: Vec<Client> =
        addrs.iter().cycle().take(9).map(|addr| Client::connect(*addr).login(&quiet())).collect();
    for client in &mut clients {
        client.subscribe("all", "1");
    }
    for publisher in 0..addrs.len() {
        clients[publisher].publish("all", "hello");
        for client in &mut clients {
            assert_eq!(client.next_msg().text(), "hello");
        }
    }
    // One more address is a change that needs a restart.
    let said = config.reload(&server, "leat { also_listen: [ \"127.0.0.2:-1\" ] }\n");
    assert!(said.contains("config reload not supported for also_listen"), "{said}");
    // Who stops listening stops on all of them.
    server.signal(libc::SIGUSR2);
    wait_until("no address accepts", PATIENCE, || addrs.iter().all(|addr| TcpStream::connect(addr).is_err()));
}

/// What cannot be listened on refuses the start, and so do too many addresses.
#[test]
fn addresses_that_cannot_be_had() {
    if skip_on_peer("addresses_that_cannot_be_had") {
        return;
    }
    let taken = std::net::TcpListener::bind("127.0.0.2:0").expect("a port is free");
    let taken = taken.local_addr().expect("a bound socket has an address");
    let many = vec!["-1"; 17].join(", ");
    for (list, error) in [
        (format!("\"{taken}\""), format!("Error listening on port: {taken}")),
        (many, "also_listen names more than 16 addresses".to_owned()),
    ] {
        let finished = Config::new(&format!("leat {{ also_listen: [ {list} ] }}\n")).server().start_in_vain();
        assert_eq!(finished.code, Some(1));
        assert!(finished.stderr.contains(&error), "{}", finished.stderr);
    }
}

/// A header of version 2 with these addresses and bytes behind them.
fn binary_header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, rest].concat()
}

fn v4_addresses() -> Vec<u8> {
    [&[10, 1, 2, 3, 10, 9, 9, 9][..], &1111_u16.to_be_bytes(), &4222_u16.to_be_bytes()].concat()
}

fn v6_addresses() -> Vec<u8> {
    let source: Ipv6Addr = "2001:db8::7".parse().expect("an address");
    [&source.octets()[..], &[0; 16], &2222_u16.to_be_bytes(), &4222_u16.to_be_bytes()].concat()
}

/// Whom a header names, if anybody.
type Source = Option<(&'static str, u16)>;

/// The address that `/connz` shows of a connection, closed or not.
fn shown(server: &Server, cid: u64) -> (Value, Value) {
    let connection = &server.get_json(&format!("/connz?state=any&cid={cid}"))["connections"][0];
    (connection["ip"].clone(), connection["port"].clone())
}

/// INFO comes before the header, without the client's address; the header tells it, wherever its bytes are split, and
/// is the first thing that is read. Without a header the connection counts as a direct one.
fn a_proxy_tells_who_the_client_is(shards: usize) {
    let config = Config::new("proxy_protocol: true\n");
    let server = config.server().shards(shards).monitor().start();
    let long = [&v4_addresses()[..], &[4, 0x40, 0], &[b'x'; 0x4000]].concat();
    let cases: Vec<(Vec<u8>, Source)> = vec![
        (b"PROXY TCP4 10.1.2.3 10.9.9.9 1111 4222\r\n".to_vec(), Some(("10.1.2.3", 1111))),
        (b"PROXY TCP6 2001:db8::7 ::1 2222 4222\r\n".to_vec(), Some(("2001:db8::7", 2222))),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
        (binary_header(0x21, 0x11, &v4_addresses()), Some(("10.1.2.3", 1111))),
        (binary_header(0x21, 0x21, &v6_addresses()), Some(("2001:db8::7", 2222))),
        (binary_header(0x21, 0x11, &long), Some(("10.1.2.3", 1111))),
        (binary_header(0x20, 0x00, &[]), None),
        (Vec::new(), None),
    ];
    for (header, source) in cases {
        for split in [0, 3, header.len().saturating_sub(1)] {
            let mut client = server.connect();
            assert_eq!(client.info()["client_ip"], Value::Null);
            if split > 0 {
                client.send(&header[..split.min(header.len())]);
                // What has been sent is on its way alone: others are served meanwhile.
                server.get("/varz");
            }
            client.send(&header[split.min(header.len())..]);
            client.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
            client.until_pong();
            let own = client.socket().local_addr().expect("a connected socket has an address");
            let expected = source.map_or_else(
                || (own.ip().to_string().into(), own.port().into()),
                |(ip, port)| (Value::from(ip), Value::from(port)),
            );
            assert_eq!(shown(&server, client.cid()), expected, "{}", String::from_utf8_lossy(&header));
        }
    }
    // A command that begins as a header does is a command all the same.
    let mut client = server.connect();
    client.send("P");
    server.get("/varz");
    client.send("ING\r\n");
    client.until_pong();
}

/// The header stands before the handshake, whether INFO comes in clear or inside.
fn a_proxy_comes_before_tls(shards: usize) {
    let authority = Authority::new();
    let config = authority.client_config(None);
    for first in [false, true] {
        let file = authority.config(&format!("handshake_first: {first}"), "proxy_protocol: true");
        let server = Server::builder().shards(shards).monitor().args(&["-c", &file]).start();
        let mut socket = TcpStream::connect(server.addr()).expect("the port accepts");
        let mut info = if first { String::new() } else { clear_line(&mut socket).expect("INFO should come in clear") };
        socket.write_all(b"PROXY TCP4 10.1.2.3 10.9.9.9 1111 4222\r\n").expect("the server reads");
        let mut stream = TlsStream::over(socket, &config).expect("the handshake should succeed");
        if first {
            info = stream.line().expect("INFO should come inside");
        }
        let info: Value = serde_json::from_str(info.trim_start_matches("INFO ")).expect("INFO is JSON");
        assert_eq!(info["client_ip"], if first { "10.1.2.3".into() } else { Value::Null });
        let _stream = stream.login().expect("login should succeed");
        let cid = info["client_id"].as_u64().expect("INFO has an id");
        assert_eq!(shown(&server, cid), ("10.1.2.3".into(), 1111.into()));
        // A handshake without a header is a direct one.
        let stream = if first {
            TlsStream::first(server.addr(), &config).map(|(_, stream)| stream)
        } else {
            TlsStream::after_info(server.addr(), &config).map(|(_, stream)| stream)
        };
        stream.and_then(TlsStream::login).expect("login should succeed");
    }
}

/// Whoever sends a header that makes no sense is closed without a word, and so is one that is not complete when the
/// client stops sending.
fn broken_proxy_headers_close_the_connection(shards: usize) {
    let config = Config::new("proxy_protocol: true\n");
    let server = config.server().shards(shards).monitor().start();
    let line_too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(108 - 16));
    let cases = [
        b"PROXY TCP4 ::1 ::2 1 2\r\n".to_vec(),
        b"PROXY UDP4 1.2.3.4 1.2.3.5 1 2\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 1.2.3.5 99999 2\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 1.2.3.5 1\r\n".to_vec(),
        line_too_long.into_bytes(),
        binary_header(0x21, 0x11, &v4_addresses()[..8]),
        binary_header(0x21, 0x00, &[]),
        binary_header(0x21, 0x12, &v4_addresses()),
        binary_header(0x11, 0x11, &v4_addresses()),
        binary_header(0x22, 0x11, &v4_addresses()),
    ];
    let mut bystander = server.client();
    for header in cases {
        let mut client = server.connect();
        client.send_if_open(&header);
        client.send_if_open(b"PING\r\n");
        assert_eq!(support::show(&client.read_to_end()), "", "{}", String::from_utf8_lossy(&header));
        expect_reason(&server, client.cid());
    }
    for half in [&b"PROXY TCP4 10."[..], b"\r\n\r\n\0\r\nQUIT\n\x21", b"PRO"] {
        let mut client = server.connect();
        client.send(half);
        client.finish_sending();
        client.expect_close();
        expect_reason(&server, client.cid());
    }
    server.await_stderr("[WRN] Error reading PROXY protocol header from 127.0.0.1:");
    bystander.fence();
}

fn expect_reason(server: &Server, cid: u64) {
    wait_until("the connection is closed", PATIENCE, || {
        server.get_json(&format!("/connz?state=closed&cid={cid}"))["connections"][0]["reason"] == "Protocol Violation"
    });
}

/// A header that does not come in five seconds is waited for no longer.
#[test]
fn a_proxy_header_has_its_time() {
    let config = Config::new("proxy_protocol: true\n");
    let server = config.server().shards(2).monitor().start();
    let mut silent = server.connect();
    let mut half = server.connect();
    half.send("PROXY TCP4");
    for client in [&mut silent, &mut half] {
        client.expect_close();
        expect_reason(&server, client.cid());
    }
}

fn https_get(server: &Server, config: &Arc<ClientConfig>, path: &str) -> HttpReply {
    let socket = TcpStream::connect(server.monitor_addr()).expect("the monitoring port accepts");
    let mut stream = TlsStream::over(socket, config).expect("the handshake should succeed").into_stream();
    http_get_over(&mut stream, path)
}

/// Monitoring inside TLS uses the certificates for clients, asks nobody for one, and takes new ones with a reload.
#[test]
fn monitoring_inside_tls() {
    let authority = Authority::new();
    let verify = format!("verify: true, ca_file: \"{}\"", authority.file("ca.pem"));
    let config = authority.client_config(None);
    let (cert, key) = (authority.file("server.pem"), authority.file("server-key.pem"));
    let flags = ["--tlscert", &cert, "--tlskey", &key, "-ms", "-1"];
    for (file, args) in [
        (authority.config(&verify, "https: \"127.0.0.1:-1\""), &[][..]),
        (authority.config("", "https_port: -1"), &[]),
        (Config::new("port: -1\n").path().to_owned(), &flags[..]),
    ] {
        let builder = Server::builder().shards(2);
        let args: Vec<&str> = if args.is_empty() { vec!["-c", &file] } else { args.to_vec() };
        let server = builder.args(&args).start();
        let url = &urls(&server, "monitoring")[0];
        assert!(url.starts_with("https://127.0.0.1:"), "{url}");
        server.await_stderr(&format!("Starting https monitor on {}", server.monitor_addr()));
        let varz = https_get(&server, &config, "/varz");
        assert_eq!(varz.status, 200);
        let varz = varz.json();
        let port = if server.is_leat() { server.monitor_addr().port().into() } else { json!(-1) };
        assert_eq!((&varz["http_port"], &varz["https_port"]), (&0.into(), &port));
        assert_eq!(https_get(&server, &config, "/healthz").body, "{\"status\":\"ok\"}");
        assert_eq!(https_get(&server, &config, "/nowhere").status, 404);
    }
}

/// A request in clear is told what is wrong, silence and garbage harm nobody, and a handshake that hangs holds nobody up.
#[test]
fn strangers_at_the_monitoring_port_with_tls() {
    let authority = Authority::new();
    let config = authority.client_config(None);
    let server = Server::builder().args(&["-c", &authority.config("", "https: \"127.0.0.1:-1\"")]).start();
    let connect = || TcpStream::connect(server.monitor_addr()).expect("the monitoring port accepts");
    let silent: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    let mut half = connect();
    half.write_all(b"\x16\x03\x01").expect("the server reads");
    let mut clear = connect();
    clear.write_all(b"GET /varz HTTP/1.1\r\nHost: x\r\n\r\n").expect("the server reads");
    let mut answer = Vec::new();
    match clear.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    let expected = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    assert_eq!(String::from_utf8_lossy(&answer), expected);
    let mut garbage = connect();
    garbage.write_all(b"\x16\x03\x01\x00\x05hello").expect("the server reads");
    let _ = garbage.read_to_end(&mut answer);
    assert_eq!(https_get(&server, &config, "/healthz").status, 200);
    drop(silent);
}

/// New certificates come with a reload, to monitoring too; what cannot be used changes nothing.
#[test]
fn certificates_of_monitoring_are_read_anew() {
    let authority = Authority::new();
    let server = Server::builder().args(&["-c", &authority.config("", "https: \"127.0.0.1:-1\"")]).start();
    let presented = || {
        // Clients that have been here before might go on with the session of then.
        let config = authority.client_config(None);
        let socket = TcpStream::connect(server.monitor_addr()).expect("the monitoring port accepts");
        let stream = TlsStream::over(socket, &config).expect("the handshake should succeed");
        stream.session().peer_certificates().map(|chain| chain[0].to_vec())
    };
    let before = presented();
    authority.renew_server();
    let said = support::config::reload(&server);
    assert!(said.contains("Reloaded server configuration"), "{said}");
    let after = presented();
    assert_ne!(before, after);
    std::fs::write(authority.path("server.pem"), "damaged").expect("a file should be written");
    let said = support::config::reload(&server);
    assert!(said.contains("Failed to reload"), "{said}");
    assert_eq!(presented(), after);
}

/// Both kinds of monitoring at once are refused, TLS without certificates too, and a reload cannot take the
/// certificates away.
#[test]
fn monitoring_that_cannot_be() {
    let authority = Authority::new();
    let both = authority.config("", "http: \"127.0.0.1:-1\"\nhttps: \"127.0.0.1:-1\"");
    let without = Config::new("https: \"127.0.0.1:-1\"\n");
    for (args, error) in [
        (vec!["-c", &both], "can't specify both HTTP (-1) and HTTPs (-1) ports"),
        (vec!["-m", "-1", "-ms", "-1"], "can't specify both HTTP (-1) and HTTPs (-1) ports"),
        (vec!["-c", without.path()], "TLS cert and key required for HTTPS"),
        (vec!["-ms", "-1"], "TLS cert and key required for HTTPS"),
    ] {
        let finished = Server::builder().args(&args).start_in_vain();
        assert_eq!(finished.code, Some(1), "{args:?}");
        assert!(finished.stderr.contains(error), "{args:?}: {}", finished.stderr);
    }
    if skip_on_peer("monitoring_that_cannot_be: reload") {
        return;
    }
    let file = authority.config("", "https: \"127.0.0.1:-1\"");
    let server = Server::builder().args(&["-c", &file]).start();
    std::fs::write(&file, "https: \"127.0.0.1:-1\"\n").expect("the file should be written");
    let said = support::config::reload(&server);
    assert!(said.contains("Failed to reload server configuration: TLS cert and key required for HTTPS"), "{said}");
    assert_eq!(https_get(&server, &authority.client_config(None), "/healthz").status, 200);
}
