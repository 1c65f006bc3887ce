//! Promises about compressed messages: they are agreed on as the reference does it, carry the protocol both ways, never cost
//! more than their limits, and end at most their own connection.

mod support;
mod support_tls;
mod support_websocket;

use std::net::TcpStream;
use std::thread;

use support::{Server, shard_suite};
use support_tls::{Authority, TlsStream};
use support_websocket::{
    BINARY, CONNECT, DEFLATED, PING, PONG, Ws, builder, deflated, deflated_frame, frame, inflated, plain,
};

shard_suite!(one_shard = 1, three_shards = 3 => {
    both_sides_compress,
    borders_of_compressed_messages_mean_nothing,
    messages_that_must_not_be_end_their_own_connection,
    bombs_end_their_own_connection,
    large_messages_pass_through_slow_readers,
    inside_tls,
});

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
const ANSWER: &str =
    "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";

fn connect(server: &Server, more: &str) -> Ws<TcpStream> {
    let (head, mut ws) = Ws::connect(server, &format!("{OFFER}{more}"));
    assert!(head.contains(ANSWER), "{head}");
    assert!(ws.line().starts_with("INFO "));
    assert_eq!(ws.deflated, 1, "INFO is long enough to be compressed");
    ws
}

fn client(server: &Server) -> Ws<TcpStream> {
    let mut ws = connect(server, "");
    ws.send(&deflated_frame(CONNECT));
    assert_eq!(ws.line(), "PONG");
    ws
}

/// Who offers compression gets it, with masks or without; who does not is served as ever. Short output goes as it is.
fn both_sides_compress(shards: usize) {
    let server = plain("compression: true", "", shards);
    let (head, mut without) = Ws::connect(&server, "");
    assert!(!head.contains("Extensions"), "{head}");
    without.line();
    without.send(&frame(BINARY, &[CONNECT, b"SUB a 1\r\nPING\r\n"].concat()));
    assert_eq!([without.line(), without.line()], ["PONG", "PONG"]);
    let mut with = client(&server);
    with.send(&deflated_frame(b"SUB a 1\r\nPING\r\n"));
    assert_eq!(with.line(), "PONG");
    let mut unmasked = connect(&server, "Nats-No-Masking: true\r\n");
    let payload = deflated(&[CONNECT, b"PUB a 53\r\n", &[b'x'; 53], b"\r\nPING\r\n"].concat());
    unmasked.send(&[&[DEFLATED, payload.len() as u8], &payload[..]].concat());
    assert_eq!([unmasked.line(), unmasked.line()], ["PONG", "PONG"]);
    let message = [b"MSG a 1 53\r\n", &[b'x'; 53][..], b"\r\n"].concat();
    assert_eq!(without.frame().expect("a frame"), (BINARY, message.clone()));
    let (first, payload) = with.frame().expect("a frame");
    assert_eq!((first, inflated(&payload)), (DEFLATED, message));
    for (size, expected) in [(50, BINARY), (51, DEFLATED)] {
        without.send(&frame(BINARY, &[format!("PUB a {size}\r\n").as_bytes(), &vec![b'y'; size], b"\r\n"].concat()));
        assert_eq!(with.frame().expect("a frame").0, expected, "{} bytes in all", size + 14);
    }
    // Nothing is kept from one message to the next on either side.
    for _ in 0..3 {
        unmasked.send(&[&[DEFLATED, 8], &deflated(b"PING\r\n")[..]].concat());
        assert_eq!(unmasked.line(), "PONG");
    }
    assert_eq!(server.get_json("/varz")["websocket"]["compression"], true);

    let off = plain("", "", shards);
    let (head, mut ws) = Ws::connect(&off, OFFER);
    assert!(!head.contains("Extensions"), "{head}");
    ws.line();
    assert_eq!(ws.deflated, 0);
}

/// Compressed messages may be cut anywhere, with pings between their parts and other messages around them.
fn borders_of_compressed_messages_mean_nothing(shards: usize) {
    let server = plain("compression: true", "", shards);
    let mut ws = connect(&server, "");
    let payload = deflated(CONNECT);
    let mut bytes = [frame(0x42, &payload[..7]), frame(PING, b"between"), frame(0x00, b"")].concat();
    bytes.extend([frame(0x00, &payload[7..20]), frame(PONG, b""), frame(0x80, &payload[20..])].concat());
    bytes.extend([frame(DEFLATED, &[0]), frame(BINARY, b""), frame(BINARY, b"SUB a")].concat());
    bytes.extend(
        [deflated_frame(b" 1\r\nPUB a 5\r\nhe"), frame(BINARY, b"llo\r"), deflated_frame(b"\nPING\r\n")].concat(),
    );
    // Byte by byte, so that headers are cut too.
    for byte in bytes {
        ws.send(&[byte]);
    }
    assert_eq!(ws.frame().expect("a frame"), (PONG, b"between".to_vec()));
    assert_eq!([ws.line(), ws.line(), ws.line(), ws.line()], ["PONG", "MSG a 1 5", "hello", "PONG"]);
}

/// What breaks the rules of compression closes the connection; nobody else's.
fn messages_that_must_not_be_end_their_own_connection(shards: usize) {
    let server = plain("compression: true", "", shards);
    let mut witness = client(&server);
    let hello = deflated(b"PUB a 5\r\nhello\r\n");
    let cases: &[(Vec<u8>, u16, &str, &str)] = &[
        (frame(0xC9, b"x"), 1002, "control frame must not be compressed", "control frame must not be compressed"),
        (
            [frame(0x42, &hello[..3]), frame(0xC0, &hello[3..])].concat(),
            1002,
            "invalid continuation frame",
            "invalid continuation frame",
        ),
        (frame(DEFLATED, &[0xFF; 40]), 1007, "corrupt compressed message", "flate: corrupt input"),
        (frame(DEFLATED, &hello[..9]), 1007, "corrupt compressed message", "flate: corrupt input"),
    ];
    for (bytes, code, text, reference) in cases {
        let mut ws = client(&server);
        ws.send(bytes);
        if server.is_leat() {
            ws.expect_close(*code, text);
        } else {
            ws.expect_end();
        }
        server.await_stderr(if server.is_leat() { text } else { reference });
    }
    witness.send(&deflated_frame(b"PING\r\n"));
    assert_eq!(witness.line(), "PONG");
}

/// A message that grows past its limit when it is inflated is cut off, however small it came and whatever it says.
fn bombs_end_their_own_connection(shards: usize) {
    let server = plain("compression: true", "max_payload: 100000, max_pending: 1000000", shards);
    let mut witness = client(&server);
    let plain = b"PONG\r\n".repeat(5_000_000);
    let payload = deflated(&plain);
    assert!(payload.len() < 60_000, "{} bytes are not a bomb", payload.len());
    let whole = frame(DEFLATED, &payload);
    let unfinished: Vec<u8> = [frame(0x42, b""), frame(0x00, &payload[..5000])].concat();
    for bomb in [whole, unfinished] {
        let mut ws = client(&server);
        ws.send(&bomb);
        if server.is_leat() {
            ws.expect_close(1009, "maximum payload exceeded");
        } else if bomb.len() > 10_000 {
            // The reference waits for the end of the message.
            ws.expect_end();
        }
    }
    server.await_stderr("maximum payload exceeded");
    // The limit is of a message, not of a connection; and the largest payload fits into one.
    let publish = [b"PUB a 100000\r\n", &[b'x'; 100_000][..], b"\r\n"].concat();
    if server.is_leat() {
        witness.send(&deflated_frame(&b"PONG\r\n".repeat(16_000)).repeat(30));
        witness.send(&deflated_frame(&[b"SUB a 1\r\n", &publish[..]].concat()));
        assert_eq!(witness.line(), "MSG a 1 100000");
        assert!(witness.bytes(100_002).starts_with(&[b'x'; 100_000]));
    }
    witness.send(&deflated_frame(b"PING\r\n"));
    assert_eq!(witness.line(), "PONG");
}

/// Large messages, compressible or not, go both ways unchanged, however slowly they are read.
fn large_messages_pass_through_slow_readers(shards: usize) {
    const SIZE: usize = 700_000;
    const COUNT: usize = 20;
    let server = plain("compression: true", "", shards);
    let mut reader = client(&server);
    reader.send(&frame(BINARY, b"SUB big 1\r\nPING\r\n"));
    assert_eq!(reader.line(), "PONG");
    let noise = (0..SIZE as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8);
    let payloads = [noise.collect::<Vec<u8>>(), (0..SIZE).map(|i| (i / 1000) as u8).collect()];
    let mut publisher = client(&server);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..COUNT {
                let payload = &payloads[number % 2];
                publisher.send(&frame(BINARY, format!("PUB big {SIZE}\r\n").as_bytes()));
                for part in payload.chunks(170_001) {
                    publisher.send(&deflated_frame(part));
                }
                publisher.send(&deflated_frame(b"\r\n"));
            }
        });
        for number in 0..COUNT {
            assert_eq!(reader.line(), format!("MSG big 1 {SIZE}"));
            assert!(reader.bytes(SIZE + 2)[..SIZE] == payloads[number % 2], "message {number} is damaged");
        }
    });
    assert!(reader.deflated > 2, "{} compressed frames", reader.deflated);
}

/// Frames inside records inside segments.
fn inside_tls(shards: usize) {
    let authority = Authority::new();
    let (cert, key) = (authority.file("server.pem"), authority.file("server-key.pem"));
    let keys = format!("compression: true, tls {{ cert_file: \"{cert}\", key_file: \"{key}\" }}");
    let server = builder(&authority, &keys, "", shards).start();
    let socket = TcpStream::connect(server.websocket_addr()).expect("the port accepts");
    let stream = TlsStream::over(socket, &authority.client_config(None)).expect("the handshake should succeed");
    let (head, mut ws) = Ws::over(stream.into_stream(), OFFER);
    assert!(head.contains(ANSWER), "{head}");
    ws.line();
    let publish = [b"PUB a 400000\r\n", &[b'x'; 400_000][..], b"\r\n"].concat();
    ws.send(&deflated_frame(&[CONNECT, b"SUB a 1\r\n", &publish].concat()));
    assert_eq!([ws.line(), ws.line()], ["PONG", "MSG a 1 400000"]);
    assert!(ws.bytes(400_002).starts_with(&[b'x'; 400_000]));
}
