//! A GET over a raw socket, enough for the monitoring endpoints: status, headers and the body with chunking undone.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::client::PATIENCE;

/// The answer to one GET.
pub(crate) struct HttpReply {
    /// The status code of the first line.
    pub(crate) status: u16,
    /// Header values by lower-case name.
    pub(crate) headers: HashMap<String, String>,
    /// The body, chunking removed.
    pub(crate) body: String,
}

impl HttpReply {
    /// The body as JSON; anything else fails the test.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }

    /// A header value, empty when the header is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Fetches `path` (with its query) from the HTTP server at `addr` on a connection of its own.
pub(crate) fn http_get(addr: SocketAddr, path: &str) -> HttpReply {
    let mut stream = TcpStream::connect(addr).expect("the monitoring port should accept connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout should be settable");
    http_get_over(&mut stream, path)
}

/// As [`http_get`], over a connection of whatever kind.
pub(crate) fn http_get_over(stream: &mut (impl Read + Write), path: &str) -> HttpReply {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the request should be written");
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).expect("the answer should be read up to its end");
    parse(&raw).unwrap_or_else(|| panic!("GET {path}: not an HTTP answer: {}", String::from_utf8_lossy(&raw)))
}

fn parse(raw: &[u8]) -> Option<HttpReply> {
    let head_len = raw.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&raw[..head_len]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = &raw[head_len + 4..];
    let chunked = headers.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let body = if chunked { unchunk(rest)? } else { rest.to_vec() };
    Some(HttpReply { status, headers, body: String::from_utf8(body).ok()? })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_len = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line_len]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        rest = &rest[line_len + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}
