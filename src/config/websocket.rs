//! The `websocket` block.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::accounts::Access;
use super::grammar::{Map, Value};
use super::schema::{Item, Key, Reading, Row, Verdict, rows};
use super::tls::{self, Place, TlsOptions};
use super::{PortSpec, Secret, read};

/// A listener for NATS over WebSocket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WebsocketOptions {
    /// Address to listen on; all addresses if absent.
    pub host: Option<String>,
    /// Port to listen on; the listener is off if absent.
    pub port: Option<PortSpec>,
    /// `host[:port]` to state instead of the address listened on.
    pub advertise: Option<String>,
    /// TLS of this listener.
    pub tls: Option<TlsOptions>,
    /// Connections in clear are meant.
    pub no_tls: bool,
    /// Browsers must have loaded their page from this host.
    pub same_origin: bool,
    /// Browsers must have loaded their page from one of these origins; any if empty.
    pub allowed_origins: Vec<String>,
    /// How long the handshake may take; 2 s if absent.
    pub handshake_timeout: Option<Duration>,
    /// Compress messages for clients that can take it.
    pub compression: bool,
    /// Cookie that holds a user token.
    pub jwt_cookie: Option<String>,
    /// Cookie that holds a user name.
    pub user_cookie: Option<String>,
    /// Cookie that holds a password.
    pub pass_cookie: Option<String>,
    /// Cookie that holds a token.
    pub token_cookie: Option<String>,
    /// More headers of the answer to the handshake.
    pub headers: Vec<(String, String)>,
    /// Time between pings, if it differs from other clients'.
    pub ping_interval: Option<Duration>,
    /// The user that connections without credentials become.
    pub no_auth_user: Option<String>,
    /// Credentials required of clients of this listener, instead of the general ones.
    pub authorization: ListenerAuthorization,
}

impl WebsocketOptions {
    /// Whether there is to be a listener: one without a port is off.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.port.is_some_and(|port| port != PortSpec::Fixed(0))
    }

    /// Address to listen on.
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("0.0.0.0")
    }

    /// What these options ask for and this version does not give.
    pub(super) fn unenforced(&self) -> Vec<&'static str> {
        if !self.is_on() {
            return Vec::new();
        }
        let limited = self.tls.as_ref().is_some_and(|tls| tls.connection_rate_limit.is_some());
        limited.then_some("connection_rate_limit of websocket").into_iter().collect()
    }

    /// Whether clients of this listener are asked for other credentials than all clients.
    #[must_use]
    pub fn has_own_credentials(&self) -> bool {
        let ListenerAuthorization { user, token, .. } = &self.authorization;
        user.is_some() || token.is_some() || self.no_auth_user.is_some()
    }

    /// The rules that these options break, themselves or together with `access`.
    pub(super) fn check(&self, access: &Access) -> Vec<String> {
        let mut errors = Vec::new();
        if !self.is_on() {
            return errors;
        }
        if self.tls.is_none() && !self.no_tls {
            errors.push("websocket requires TLS configuration".to_owned());
        }
        let strange = self.allowed_origins.iter().filter(|text| crate::websocket::origin(text).is_none());
        errors.extend(strange.map(|text| format!("websocket: not an origin: \"{}\"", text.escape_debug())));
        let broken = |text: &String| text.contains(['\r', '\n']);
        if self.headers.iter().any(|(name, value)| name.contains([':', ' ']) || broken(name) || broken(value)) {
            errors.push("websocket: a name or value of 'headers' cannot be used".to_owned());
        }
        let ListenerAuthorization { user, pass, token, .. } = &self.authorization;
        if pass.is_some() && user.is_none() {
            errors.push(
                "websocket: a password without a user name would let everybody in; give the user name too".into(),
            );
        }
        if user.as_deref() == Some("") || token.as_ref().is_some_and(|token| token.expose().is_empty()) {
            errors.push("websocket: an empty user name or token would let everybody in".to_owned());
        }
        for (is_there, what) in [(user.is_some(), "username"), (token.is_some(), "token")] {
            if is_there && access.has_users() {
                errors.push(format!("websocket authentication {what} not compatible with presence of users/nkeys"));
            }
        }
        if let Some(name) = self.jwt_cookie.as_ref().filter(|_| !access.operators.are_asked()) {
            errors.push(format!(
                "trusted operators or trusted keys configuration is required for JWT authentication via cookie \"{}\"",
                name.escape_debug()
            ));
        }
        errors.extend(self.no_auth_user.as_deref().and_then(|name| access.check_no_auth_user(name).err()));
        errors
    }
}

/// Credentials required by one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerAuthorization {
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub pass: Option<Secret>,
    /// Token.
    pub token: Option<Secret>,
    /// How long a client may take to log in.
    pub timeout: Option<Duration>,
}

/// Sets an optional text.
macro_rules! text {
    ($names:expr, $default:expr, $help:expr, $($field:ident).+) => {
        Key::text($names, $default, $help, |target, text| {
            target.$($field).+ = Some(text.to_owned());
            Ok(())
        })
    };
}

/// As `text`; an empty one says nothing.
macro_rules! name {
    ($names:expr, $default:expr, $help:expr, $field:ident) => {
        Key::text($names, $default, $help, |target, text| {
            target.$field = (!text.is_empty()).then(|| text.to_owned());
            Ok(())
        })
    };
}

const KEYS: &[Key<WebsocketOptions>] = &[
    Key::<WebsocketOptions>::other(
        &["listen"],
        "port or \"host:port\"",
        "\"0.0.0.0:8080\"",
        "Address to listen on",
        |ws, item, _| {
            let (host, port) = read::address(item.node)?;
            (ws.host, ws.port) = (host.or(ws.host.take()), Some(port));
            Ok(())
        },
    ),
    text!(&["host", "net"], "\"0.0.0.0\"", "Host to listen on", host),
    Key::<WebsocketOptions>::integer(&["port"], "8080", "Port to listen on, -1 for a random one", |ws, number| {
        ws.port = Some(read::port(number)?);
        Ok(())
    }),
    text!(&["advertise"], "\"example.org:443\"", "Address to state to clients", advertise),
    Key::<WebsocketOptions>::block(
        &["tls"],
        "TLS of this listener, as the top level tls",
        |ws, item, map, reading| ws.tls = Some(tls::options(item, map, Place::Clients, reading)),
        Vec::new,
    )
    .live(),
    Key::<WebsocketOptions>::boolean(&["no_tls"], "false", "Serve in clear", |ws, on| ws.no_tls = on),
    Key::<WebsocketOptions>::boolean(&["same_origin"], "false", "Browsers must come from this host", |ws, on| {
        ws.same_origin = on
    }),
    Key::<WebsocketOptions>::other(
        &["allowed_origins", "allowed_origin", "allow_origins", "allow_origin", "origins", "origin"],
        "array of strings",
        "[ \"https://example.org\" ]",
        "Browsers must come from one of these",
        |ws, item, _| {
            ws.allowed_origins = read::texts(item.node)?;
            Ok(())
        },
    ),
    Key::<WebsocketOptions>::seconds(
        &["handshake_timeout"],
        "\"2s\"",
        "How long the handshake may take",
        |ws, time| {
            ws.handshake_timeout = Some(time).filter(|time| !time.is_zero());
        },
    ),
    Key::<WebsocketOptions>::boolean(&["compression"], "false", "Compress messages", |ws, on| ws.compression = on),
    name!(&["jwt_cookie"], "jwt", "Cookie with a user JWT", jwt_cookie),
    name!(&["user_cookie"], "user", "Cookie with a user name", user_cookie),
    name!(&["pass_cookie"], "pass", "Cookie with a password", pass_cookie),
    name!(&["token_cookie"], "token", "Cookie with a token", token_cookie),
    Key::<WebsocketOptions>::other(
        &["headers"],
        "map of strings",
        "{ X-Header: value }",
        "More response headers",
        |ws, item, _| {
            ws.headers = read::map_of_texts(item.node)?;
            Ok(())
        },
    ),
    Key::<WebsocketOptions>::duration(
        &["ping_interval"],
        "\"2m\"",
        "Time between pings of a quiet client",
        |ws, time| {
            ws.ping_interval = Some(time).filter(|time| !time.is_zero());
        },
    ),
    name!(&["no_auth_user"], "guest", "User of connections without credentials", no_auth_user),
    Key::<WebsocketOptions>::block(
        &["authorization", "authentication"],
        "Credentials required by this listener",
        |ws, _, map, reading| reading.keys(map, AUTHORIZATION, &mut ws.authorization),
        || rows(AUTHORIZATION),
    ),
];

const AUTHORIZATION: &[Key<ListenerAuthorization>] = &[
    text!(&["user", "username"], "app", "User name", user),
    Key::text(&["pass", "password"], "secret", "Password", |target, text| {
        target.pass = Some(Secret::new(text));
        Ok(())
    }),
    Key::text(&["token"], "secret", "Token", |target, text| {
        target.token = Some(Secret::new(text));
        Ok(())
    }),
    Key::seconds(&["timeout"], "2", "How long a client may take to log in", |target, time| {
        target.timeout = Some(time).filter(|time| !time.is_zero());
    }),
];

/// Reads a `websocket` block.
pub(super) fn options(map: &Map, reading: &mut Reading) -> WebsocketOptions {
    let mut options = WebsocketOptions::default();
    reading.keys(map, KEYS, &mut options);
    options
}

/// The keys of the block.
pub(super) fn websocket_rows() -> Vec<Row> {
    rows(KEYS)
}

/// Reads the `authorization` block of a listener that takes one user or a token.
pub(super) fn authorization(item: &Item<'_>, reading: &mut Reading) -> Verdict {
    match &item.node.value {
        Value::Map(map) => {
            reading.keys(map, AUTHORIZATION, &mut ListenerAuthorization::default());
            Ok(())
        }
        other => Err(format!("expected {} to be a map, got {}", item.key, other.kind())),
    }
}
