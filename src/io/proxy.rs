//! The PROXY protocol header, with which a load balancer tells whose connection it passes on: version 1, a line of
//! text, or version 2, binary. <https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt>
//!
//! As in the reference a connection that begins otherwise is taken as a direct one, so a listener that strangers reach
//! must not believe what it says: who may come directly may also claim any address.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ppp::{v1, v2};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the header may take.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How a header of version 1 begins.
const LINE_PREFIX: &[u8] = b"PROXY ";
/// Longest line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;
/// Bytes of version 2 before those that it counts itself, of which there are at most 65535.
const FIXED_BYTES: usize = 16;

/// Takes the header off the connection. Gives the address of the client if the header tells one: a health check of the
/// load balancer, and a direct connection, keep theirs.
///
/// # Errors
/// What is wrong with the header, as the log says it.
pub(super) async fn take_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, String> {
    match timeout(HEADER_TIME, read_header(stream)).await {
        Ok(outcome) => outcome,
        Err(_) => Err("i/o timeout".to_owned()),
    }
}

async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, String> {
    match version(stream).await.map_err(|error| format!("failed to read protocol version: {error}"))? {
        Version::None => Ok(None),
        Version::Text => {
            let line = read_line(stream).await?;
            of_line(&line)
        }
        Version::Binary => {
            let failed = |error: io::Error| format!("failed to read v2 header: {error}");
            let mut header = vec![0; FIXED_BYTES];
            stream.read_exact(&mut header).await.map_err(failed)?;
            let rest = u16::from_be_bytes([header[FIXED_BYTES - 2], header[FIXED_BYTES - 1]]);
            header.resize(FIXED_BYTES + usize::from(rest), 0);
            stream.read_exact(&mut header[FIXED_BYTES..]).await.map_err(failed)?;
            of_bytes(&header)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    None,
    Text,
    Binary,
}

/// Which kind of header begins with `bytes`; `None` if that is open yet.
fn classify(bytes: &[u8]) -> Option<Version> {
    for (prefix, version) in [(LINE_PREFIX, Version::Text), (v2::PROTOCOL_PREFIX, Version::Binary)] {
        if bytes.starts_with(prefix) {
            return Some(version);
        }
        if prefix.starts_with(bytes) {
            return None;
        }
    }
    Some(Version::None)
}

/// Looks at the first bytes without taking them: they belong to the client if they are no header.
async fn version(stream: &TcpStream) -> io::Result<Version> {
    let mut first = [0; v2::PROTOCOL_PREFIX.len()];
    loop {
        let readiness = stream.ready(Interest::READABLE).await?;
        match (stream.peek(&mut first).await?, readiness.is_read_closed()) {
            (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (bytes, is_closed) => match classify(&first[..bytes]) {
                Some(version) => return Ok(version),
                None if is_closed => return Err(io::ErrorKind::UnexpectedEof.into()),
                // Bytes that have been looked at must not count as news: the next look waits for more.
                None => drop(stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()))),
            },
        }
    }
}

/// The line with its end. What follows belongs to the client, so it is taken byte by byte.
async fn read_line(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut line = Vec::with_capacity(LINE_BYTES_MAX);
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_BYTES_MAX {
            return Err("invalid PROXY protocol header: v1 line too long".to_owned());
        }
        line.push(stream.read_u8().await.map_err(|error| format!("failed to read v1 line: {error}"))?);
    }
    Ok(line)
}

fn of_line(line: &[u8]) -> Result<Option<SocketAddr>, String> {
    let header = v1::Header::try_from(line).map_err(|error| format!("invalid PROXY protocol header: {error}"))?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(pair) => Some((pair.source_address, pair.source_port).into()),
        v1::Addresses::Tcp6(pair) => Some((pair.source_address, pair.source_port).into()),
        v1::Addresses::Unknown => None,
    })
}

fn of_bytes(header: &[u8]) -> Result<Option<SocketAddr>, String> {
    let header = v2::Header::try_from(header).map_err(|error| format!("invalid PROXY protocol header: {error}"))?;
    match (header.command, header.protocol, header.addresses) {
        (v2::Command::Local, ..) => Ok(None),
        (_, v2::Protocol::Stream, v2::Addresses::IPv4(pair)) => {
            Ok(Some((pair.source_address, pair.source_port).into()))
        }
        (_, v2::Protocol::Stream, v2::Addresses::IPv6(pair)) => {
            Ok(Some((pair.source_address, pair.source_port).into()))
        }
        _ => Err("unsupported PROXY protocol feature: only TCP over IPv4 and IPv6 is supported".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any client's first bytes are told from a header as early as can be.
    #[test]
    fn kinds_of_beginnings() {
        for (bytes, expected) in [
            (&b"PROXY "[..], Some(Version::Text)),
            (b"PROX", None),
            (b"PU", Some(Version::None)),
            (b"P", None),
            (b"CONNECT {}", Some(Version::None)),
            (b"proxy TCP4", Some(Version::None)),
            (b"\x16\x03\x01", Some(Version::None)),
            (b"\r\n\r\n", None),
            (b"\r\nPING", Some(Version::None)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", Some(Version::Binary)),
        ] {
            assert_eq!(classify(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn lines() {
        let address = |text: &str| Ok(Some(text.parse::<SocketAddr>().unwrap()));
        for (line, expected) in [
            ("PROXY TCP4 10.1.2.3 10.9.9.9 1111 4222\r\n", address("10.1.2.3:1111")),
            ("PROXY TCP6 2001:db8::7 ::1 2222 4222\r\n", address("[2001:db8::7]:2222")),
            ("PROXY UNKNOWN\r\n", Ok(None)),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Ok(None)),
            ("PROXY TCP4 ::1 ::2 1 2\r\n", Err(())),
            ("PROXY TCP6 1.2.3.4 1.2.3.5 1 2\r\n", Err(())),
            ("PROXY UDP4 1.2.3.4 1.2.3.5 1 2\r\n", Err(())),
            ("PROXY TCP4 1.2.3.4 1.2.3.5 99999 2\r\n", Err(())),
            ("PROXY TCP4 1.2.3.4 1.2.3.5 1\r\n", Err(())),
            ("PROXY TCP4 1.2.3.4 1.2.3.5 1 2 3\r\n", Err(())),
        ] {
            assert_eq!(of_line(line.as_bytes()).map_err(drop), expected, "{line}");
        }
    }

    #[test]
    fn binary_headers() {
        let header = |command: u8, family: u8, rest: &[u8]| {
            let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
            [v2::PROTOCOL_PREFIX, &[command, family], &length, rest].concat()
        };
        let v4 = [&[10, 1, 2, 3, 10, 9, 9, 9][..], &1111_u16.to_be_bytes(), &4222_u16.to_be_bytes()].concat();
        let more = [&v4[..], &[4, 0, 2, b'a', b'b']].concat();
        let v6 = [&[0xFD; 16][..], &[0; 16], &2222_u16.to_be_bytes(), &4222_u16.to_be_bytes()].concat();
        let address = |text: &str| Ok(Some(text.parse::<SocketAddr>().unwrap()));
        for (bytes, expected) in [
            (header(0x21, 0x11, &v4), address("10.1.2.3:1111")),
            (header(0x21, 0x11, &more), address("10.1.2.3:1111")),
            (header(0x21, 0x21, &v6), address("[fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:2222")),
            (header(0x20, 0x00, &[]), Ok(None)),
            (header(0x20, 0x11, &v4), Ok(None)),
            (header(0x21, 0x11, &v4[..8]), Err(())),
            (header(0x21, 0x00, &[]), Err(())),
            (header(0x21, 0x12, &v4), Err(())),
            (header(0x21, 0x31, &[0; 216]), Err(())),
            (header(0x11, 0x11, &v4), Err(())),
            (header(0x22, 0x11, &v4), Err(())),
            (header(0x21, 0x41, &v4), Err(())),
        ] {
            assert_eq!(of_bytes(&bytes).map_err(drop), expected, "{bytes:?}");
        }
    }
}
