//! WebSocket clients that show every frame, and servers for them.

#![allow(dead_code, reason = "every test crate uses its own part")]

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::support::{PATIENCE, Server, ServerBuilder};
use crate::support_tls::Authority;

pub(crate) const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
pub(crate) const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n";
pub(crate) const BINARY: u8 = 0x82;
/// A binary message that is compressed.
pub(crate) const DEFLATED: u8 = 0xC2;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8A;
pub(crate) const CLOSE: u8 = 0x88;

/// A server with a WebSocket listener.
pub(crate) fn builder(authority: &Authority, keys: &str, more: &str, shards: usize) -> ServerBuilder {
    let text = format!("websocket {{\n host: \"127.0.0.1\"\n port: -1\n {keys}\n}}\n{more}\n");
    let file = authority.path("websocket.conf");
    std::fs::write(&file, text).expect("the configuration file should be written");
    Server::builder().shards(shards).monitor().args(&["-c", file.to_str().expect("temporary paths are text")])
}

pub(crate) fn plain(keys: &str, more: &str, shards: usize) -> Server {
    builder(&Authority::new(), &format!("no_tls: true\n {keys}"), more, shards).start()
}

/// A client's frame with this first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = [7, 77, 177, 201];
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A client's compressed message.
pub(crate) fn deflated_frame(plain: &[u8]) -> Vec<u8> {
    frame(DEFLATED, &deflated(plain))
}

/// The payload of a compressed message.
pub(crate) fn deflated(plain: &[u8]) -> Vec<u8> {
    let mut deflater = flate2::Compress::new(flate2::Compression::best(), false);
    let mut payload = Vec::with_capacity(plain.len() + 1000);
    deflater.compress_vec(plain, &mut payload, flate2::FlushCompress::Sync).expect("there is room");
    assert!(payload.ends_with(&[0, 0, 0xFF, 0xFF]), "the flush is complete");
    payload.truncate(payload.len() - 4);
    payload
}

/// What a compressed message says, whatever messages came before it.
pub(crate) fn inflated(payload: &[u8]) -> Vec<u8> {
    let whole = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    let mut inflater = flate2::Decompress::new(false);
    let mut plain = Vec::with_capacity(1 << 16);
    while (inflater.total_in() as usize) < whole.len() {
        plain.reserve(1 << 16);
        let rest = &whole[inflater.total_in() as usize..];
        inflater.decompress_vec(rest, &mut plain, flate2::FlushDecompress::Sync).expect("a compressed message");
    }
    plain
}

/// A WebSocket client that shows every frame.
pub(crate) struct Ws<S> {
    pub(crate) stream: S,
    /// What the frames read so far have carried.
    pub(crate) inside: Vec<u8>,
    /// Frames that came compressed.
    pub(crate) deflated: usize,
}

impl Ws<TcpStream> {
    pub(crate) fn connect(server: &Server, more: &str) -> (String, Ws<TcpStream>) {
        let stream = TcpStream::connect(server.websocket_addr()).expect("the port accepts");
        stream.set_nodelay(true).expect("TCP_NODELAY should be settable");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout should be settable");
        Ws::over(stream, more)
    }

    /// A client that has logged in.
    pub(crate) fn client(server: &Server) -> Ws<TcpStream> {
        let (_, mut ws) = Ws::connect(server, "");
        ws.line();
        ws.send(&frame(BINARY, CONNECT));
        assert_eq!(ws.line(), "PONG");
        ws
    }
}

impl<S: Read + Write> Ws<S> {
    /// Asks for an upgrade; gives the head of the answer too.
    pub(crate) fn over(stream: S, more: &str) -> (String, Ws<S>) {
        Ws::try_over(stream, more).expect("an answer")
    }

    /// As [`Ws::over`]; `None` if there is no answer.
    pub(crate) fn try_over(mut stream: S, more: &str) -> Option<(String, Ws<S>)> {
        stream.write_all(format!("{UPGRADE}{more}\r\n").as_bytes()).ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("an answer is text");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        Some((head, Ws { stream, inside: Vec::new(), deflated: 0 }))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
        self.stream.flush().expect("the server reads");
    }

    /// The next frame: its first byte and its payload.
    pub(crate) fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut start = [0; 2];
        self.stream.read_exact(&mut start)?;
        let mut long = [0; 8];
        let length = match start[1] {
            126 => {
                self.stream.read_exact(&mut long[6..])?;
                u64::from_be_bytes(long)
            }
            127 => {
                self.stream.read_exact(&mut long)?;
                u64::from_be_bytes(long)
            }
            length => u64::from(length),
        };
        assert!(length < 1 << 30 && start[1] < 128, "not a frame of a server: {start:?}");
        let mut payload = vec![0; usize::try_from(length).expect("frames are small")];
        self.stream.read_exact(&mut payload)?;
        Ok((start[0], payload))
    }

    pub(crate) fn receive(&mut self) {
        match self.frame().expect("a frame") {
            (BINARY, payload) => self.inside.extend(payload),
            (DEFLATED, payload) => {
                self.inside.extend(inflated(&payload));
                self.deflated += 1;
            }
            other => panic!("not a binary frame: {other:?}"),
        }
    }

    /// The next line inside, without its end; the server's PINGs come by the clock and are passed over.
    pub(crate) fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.inside.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.inside.drain(..=at).collect();
                if line != b"PING\r\n" {
                    return String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                }
                self.send(&frame(BINARY, b"PONG\r\n"));
                continue;
            }
            self.receive();
        }
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.inside.len() < count {
            self.receive();
        }
        self.inside.drain(..count).collect()
    }

    /// The close frame, and nothing behind it.
    pub(crate) fn expect_close(&mut self, code: u16, text: &str) {
        let close = self.frame().expect("a close frame");
        assert_eq!(close, (CLOSE, [&code.to_be_bytes()[..], text.as_bytes()].concat()), "{code} {text}");
        self.expect_end();
    }

    pub(crate) fn expect_end(&mut self) {
        match self.stream.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("not the end: {other:?}"),
        }
    }
}
