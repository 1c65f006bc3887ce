//! The HTTP request that becomes a WebSocket: its checks in the reference's order, and the answers.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use data_encoding::BASE64;
use sha1::{Digest, Sha1};

use crate::wire::connect::Connect;

/// Appended to a client's key before it is hashed (RFC 6455).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Header fields of a request.
const FIELDS_MAX: usize = 100;

/// What a listener asks of requests, and adds to answers.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The listener has TLS.
    pub tls: bool,
    /// A browser's page must come from the host that the request is for.
    pub same_origin: bool,
    /// A browser's page must come from one of these, scheme, host and port; any if empty.
    pub origins: Vec<(String, String, u16)>,
    /// More header fields of the answer.
    pub headers: Vec<(String, String)>,
    /// Messages may be compressed, if the client offers it.
    pub compression: bool,
    /// Names of the cookies with user, password, token and the JWT of a user.
    pub cookies: [Option<String>; 4],
}

/// What a request says beside asking for an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// First address of `X-Forwarded-For`.
    pub forwarded_for: Option<IpAddr>,
    /// User of the user cookie.
    pub user: Option<String>,
    /// Password of the password cookie.
    pub pass: Option<String>,
    /// Token of the token cookie.
    pub token: Option<String>,
    /// User JWT of the cookie for that.
    pub jwt: Option<String>,
}

impl Facts {
    /// Fills in what CONNECT leaves open.
    pub fn complete(&self, connect: &mut Connect) {
        fn fill(field: &mut Option<String>, cookie: &Option<String>) {
            if field.as_deref().unwrap_or_default().is_empty() && cookie.is_some() {
                field.clone_from(cookie);
            }
        }
        fill(&mut connect.user, &self.user);
        fill(&mut connect.pass, &self.pass);
        fill(&mut connect.auth_token, &self.token);
        fill(&mut connect.jwt, &self.jwt);
    }
}

/// A request that becomes a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The answer.
    pub response: Vec<u8>,
    /// What else the request says.
    pub facts: Facts,
    /// The client sends without masks.
    pub unmasked: bool,
    /// Both sides may compress messages.
    pub deflates: bool,
}

/// A request that does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The answer.
    pub response: Vec<u8>,
    /// For the log.
    pub detail: String,
}

impl Refusal {
    fn new(status: u16, detail: impl Into<String>) -> Self {
        let text = match status {
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Request Header Fields Too Large",
        };
        let response = format!(
            "HTTP/1.1 {status} {text}\r\nContent-Type: text/plain; charset=utf-8\r\nSec-Websocket-Version: 13\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}\n",
            text.len() + 1
        );
        Self { response: response.into_bytes(), detail: detail.into() }
    }

    /// The answer to a request that wants only its head.
    fn without_body(mut self) -> Self {
        let end = self.response.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        self.response.truncate(end.map_or(0, |end| end + 4));
        self
    }

    /// Something has come behind the request, before it was answered.
    #[must_use]
    pub fn too_early() -> Self {
        Self::new(400, "client sent data before handshake is complete")
    }

    /// The head of the request is longer than a server reads.
    #[must_use]
    pub fn too_long() -> Self {
        Self::new(431, "request is too long")
    }
}

/// Checks the head of a request. `None` if there is more to come; else how long the head is, and what becomes of it.
#[must_use]
pub fn check(bytes: &[u8], rules: &Rules) -> Option<(usize, Result<Accepted, Refusal>)> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(length)) => Some((length, answer(&request, rules))),
        Err(httparse::Error::TooManyHeaders) => Some((bytes.len(), Err(Refusal::too_long()))),
        Err(error) => Some((bytes.len(), Err(Refusal::new(400, format!("not an HTTP request: {error}"))))),
    }
}

/// The values of a header field, one for each time it stands there.
fn values<'a>(request: &'a httparse::Request<'_, '_>, name: &'a str) -> impl Iterator<Item = &'a str> {
    let named = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    named.filter_map(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
}

fn has_word(request: &httparse::Request<'_, '_>, name: &str, word: &str) -> bool {
    values(request, name).flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
}

/// Whether a server can be asked for this: a path or an absolute URL, in which each `%` begins a byte.
fn is_target(target: &str) -> bool {
    let is_absolute = |(scheme, _): (&str, &str)| !scheme.contains(['/', '?']);
    let bytes = |escape: &str| escape.len() >= 2 && escape.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    let path = target.split('?').next().unwrap_or_default();
    (target.starts_with('/') || target.split_once("://").is_some_and(is_absolute)) && path.split('%').skip(1).all(bytes)
}

fn answer(request: &httparse::Request<'_, '_>, rules: &Rules) -> Result<Accepted, Refusal> {
    let first = |name| values(request, name).next().unwrap_or_default();
    if !is_target(request.path.unwrap_or_default()) {
        return Err(Refusal::new(400, "invalid request target"));
    }
    if request.method != Some("GET") {
        let refusal = Refusal::new(405, "request method must be GET");
        return Err(if request.method == Some("HEAD") { refusal.without_body() } else { refusal });
    }
    match request.path.unwrap_or_default().split('?').next().unwrap_or_default() {
        path if path.ends_with("/mqtt") => return Err(Refusal::new(404, "mqtt websocket endpoint not enabled")),
        path if path.ends_with("/leafnode") => {
            return Err(Refusal::new(404, "Not configured to accept leaf node connections"));
        }
        _ => {}
    }
    if first("Host").is_empty() {
        return Err(Refusal::new(400, "'Host' missing in request"));
    }
    for (name, word) in [("Upgrade", "websocket"), ("Connection", "Upgrade")] {
        if !has_word(request, name, word) {
            return Err(Refusal::new(400, format!("invalid value for header '{name}'")));
        }
    }
    let key = first("Sec-WebSocket-Key");
    if key.is_empty() {
        return Err(Refusal::new(400, "key missing"));
    }
    if !BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16) {
        return Err(Refusal::new(400, "invalid websocket key"));
    }
    if !has_word(request, "Sec-WebSocket-Version", "13") {
        return Err(Refusal::new(400, "invalid version"));
    }
    check_origin(first("Origin"), first("Host"), rules)
        .map_err(|what| Refusal::new(403, format!("origin not allowed: {what}")))?;

    let unmasked = first("Nats-No-Masking") == "true";
    let hash = BASE64.encode(&Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize());
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {hash}\r\n"
    );
    let deflates = rules.compression && offers_deflate(request);
    if deflates {
        response +=
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
    }
    if unmasked {
        response += "Nats-No-Masking: true\r\n";
    }
    for (name, value) in &rules.headers {
        response += &format!("{name}: {value}\r\n");
    }
    response += "\r\n";
    let [user, pass, token, jwt] = rules.cookies.each_ref().map(|name| cookie(request, name.as_deref()?));
    let forwarded_for = first("X-Forwarded-For").split(',').next().and_then(|first| first.trim().parse().ok());
    let facts = Facts { forwarded_for, user, pass, token, jwt };
    Ok(Accepted { response: response.into_bytes(), facts, unmasked, deflates })
}

/// Whether one of the client's offers of compression can be taken. One that asks the server for a smaller window cannot.
fn offers_deflate(request: &httparse::Request<'_, '_>) -> bool {
    values(request, "Sec-WebSocket-Extensions").flat_map(|value| value.split(',')).any(|offer| {
        let mut words = offer.split(';').map(|word| word.split('=').next().unwrap_or_default().trim());
        words.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate"))
            && words.all(|name| {
                ["server_no_context_takeover", "client_no_context_takeover", "client_max_window_bits"]
                    .iter()
                    .any(|known| name.eq_ignore_ascii_case(known))
            })
    })
}

fn cookie(request: &httparse::Request<'_, '_>, wanted: &str) -> Option<String> {
    let pairs = values(request, "Cookie").flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim()).next()?;
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some(inner.unwrap_or(value).to_owned())
}

/// An origin as scheme, host and port; `None` if it is not one.
#[must_use]
pub(crate) fn origin(text: &str) -> Option<(String, String, u16)> {
    let (scheme, authority) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let (host, port) = host_and_port(authority.split('/').next()?, scheme == "https");
    (!host.is_empty()).then_some((scheme, host, port?))
}

fn host_and_port(authority: &str, tls: bool) -> (String, Option<u16>) {
    let default = if tls { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, Some(default)),
    };
    (host.trim_matches(['[', ']']).to_ascii_lowercase(), port)
}

fn check_origin(given: &str, host: &str, rules: &Rules) -> Result<(), &'static str> {
    // Only browsers say where their page comes from.
    if given.is_empty() || (!rules.same_origin && rules.origins.is_empty()) {
        return Ok(());
    }
    let (scheme, origin_host, port) = origin(given).ok_or("not an origin")?;
    if rules.same_origin {
        let own = host_and_port(host, rules.tls);
        let own_scheme = if rules.tls { "https" } else { "http" };
        if own != (origin_host.clone(), Some(port)) || scheme != own_scheme {
            return Err("not same origin");
        }
    }
    if !rules.origins.is_empty() && !rules.origins.contains(&(scheme, origin_host, port)) {
        return Err("not in the allowed list");
    }
    Ok(())
}

#[cfg(test)]
#[path = "upgrade_tests.rs"]
mod tests;
