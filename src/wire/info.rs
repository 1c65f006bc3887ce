//! The INFO document.

use std::net::IpAddr;

use serde::Serialize;

use crate::version::{COMPATIBLE_WITH, VERSION};

/// What INFO says of the server, the same for all connections.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// 56-character public server key.
    pub server_id: String,
    /// Configured name, else the id.
    pub server_name: String,
    /// Bound or advertised host.
    pub host: String,
    /// Bound or advertised port.
    pub port: u16,
    /// What clients are told of TLS.
    pub tls: TlsNotice,
}

/// What INFO says of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsNotice {
    /// The client must begin a handshake.
    pub required: bool,
    /// The client must present a certificate.
    pub verify: bool,
    /// The client may begin a handshake.
    pub available: bool,
}

/// What INFO says beside that.
#[derive(Clone, Copy, Debug)]
pub struct ClientFacts<'a> {
    /// Connection id.
    pub client_id: u64,
    /// Peer address as the server sees it; `None` while a load balancer has yet to tell it.
    pub client_ip: Option<IpAddr>,
    /// Lame duck mode has begun.
    pub lame_duck: bool,
    /// Whether CONNECT must carry credentials.
    pub auth_required: bool,
    /// Text to sign by who logs in with an nkey.
    pub nonce: Option<&'a str>,
    /// Largest payload, headers included.
    pub max_payload: usize,
    /// The TLS handshake came before INFO.
    pub tls_first: bool,
    /// `Some(account)` in the INFO that answers CONNECT.
    pub account: Option<&'a str>,
    /// That account is the system account.
    pub account_is_system: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    server_id: &'a str,
    server_name: &'a str,
    version: &'static str,
    leat: &'static str,
    proto: u8,
    go: &'static str,
    host: &'a str,
    port: u16,
    headers: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    auth_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_verify: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_available: bool,
    max_payload: usize,
    client_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ldm: bool,
    api_lvl: u8,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    connect_info: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_account: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    acc_is_sys: bool,
}

/// `INFO {…} \r\n`
#[must_use]
pub fn line(server: &ServerInfo, client: &ClientFacts<'_>) -> Vec<u8> {
    let document = Document {
        server_id: &server.server_id,
        server_name: &server.server_name,
        version: COMPATIBLE_WITH,
        leat: VERSION,
        proto: 1,
        go: "rust",
        host: &server.host,
        port: server.port,
        headers: true,
        auth_required: client.auth_required,
        tls_required: server.tls.required || client.tls_first,
        tls_verify: server.tls.verify,
        tls_available: server.tls.available,
        max_payload: client.max_payload,
        client_id: client.client_id,
        client_ip: client.client_ip.map(|ip| ip.to_canonical()),
        nonce: client.nonce,
        ldm: client.lame_duck,
        api_lvl: 5,
        connect_info: client.account.is_some(),
        remote_account: client.account,
        acc_is_sys: client.account_is_system,
    };
    let mut line = b"INFO ".to_vec();
    serde_json::to_writer(&mut line, &document).expect("plain strings and numbers always serialise");
    line.extend_from_slice(b" \r\n");
    line
}
