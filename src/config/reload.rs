//! What has changed when the configuration is read again, and whether it can be applied without a restart.
//!
//! Driven by the tables of keys: a key that is marked live gives a [`Change`], any other one refuses the whole.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::authorization::{Identity, User};
use super::schema::{KeyChange, Reload};
use super::server;
use super::tls::{HandshakeFirst, TlsOptions};
use super::websocket::WebsocketOptions;
use super::{ListenAddress, Options, PortSpec, duration, host_and_port, streaming};

/// A change that has been or can be applied, as the log line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change(String);

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A change that needs a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReloadable {
    field: String,
    old: String,
    new: String,
}

impl fmt::Display for NotReloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config reload not supported for {}: old={}, new={}", self.field, self.old, self.new)
    }
}

impl std::error::Error for NotReloadable {}

/// What `new` changes.
///
/// # Errors
/// The first change that needs a restart; then nothing is to be applied.
pub fn diff(old: &Options, new: &Options) -> Result<Vec<Change>, NotReloadable> {
    let refusals = [switched_tls, switched_map, changed_streaming];
    if let Some(refusal) = refusals.iter().find_map(|refusal| refusal(old, new)) {
        return Err(refusal);
    }
    let mut lines = Vec::new();
    for change in server::changes(old, new) {
        let KeyChange { field, old: old_value, new: new_value, .. } = change;
        if change.reload == Reload::Restart {
            return Err(NotReloadable { field: field.to_owned(), old: old_value, new: new_value });
        }
        lines.extend(applied(change.key, &new_value, old, new).into_iter().map(Change));
    }
    Ok(lines)
}

/// TLS for clients can begin and end with a reload, as in the reference; that of the listener for WebSocket cannot.
fn switched_tls(old: &Options, new: &Options) -> Option<NotReloadable> {
    let [old, new] = [old, new].map(|options| on_or_off(websocket_tls(options)));
    (old != new).then(|| NotReloadable { field: "Websocket TLS".to_owned(), old, new })
}

/// NATS Streaming is what it was at the start.
fn changed_streaming(old: &Options, new: &Options) -> Option<NotReloadable> {
    let (Some(before), Some(after)) = (&old.streaming, &new.streaming) else {
        let [old, new] = [old, new].map(|options| on_or_off(options.streaming.as_ref()));
        return (old != new).then(|| NotReloadable { field: "streaming".to_owned(), old, new });
    };
    let KeyChange { field, old, new, .. } = streaming::changes(before, after).next()?;
    Some(NotReloadable { field: format!("streaming.{field}"), old, new })
}

fn on_or_off<T>(feature: Option<&T>) -> String {
    if feature.is_some() { "enabled" } else { "disabled" }.to_owned()
}

/// Whether certificates name users is decided at the start, as in the reference.
fn switched_map(old: &Options, new: &Options) -> Option<NotReloadable> {
    let maps = |options: &Options| {
        [options.tls.as_ref(), websocket_tls(options)].map(|tls| tls.is_some_and(|tls| tls.verify_and_map))
    };
    let fields = ["TLSMap", "Websocket TLSMap"].into_iter().zip(maps(old).into_iter().zip(maps(new)));
    let (field, (old, new)) = fields.into_iter().find(|(_, (old, new))| old != new)?;
    Some(NotReloadable { field: field.to_owned(), old: old.shown(), new: new.shown() })
}

/// The lines about another `tls` block.
fn tls(old: &Options, new: &Options) -> Vec<String> {
    let mut lines = Vec::new();
    let [old_timeout, timeout] = [old, new].map(|options| options.tls.clone().unwrap_or_default().timeout());
    if old_timeout != timeout {
        lines.push(format!("Reloaded: tls timeout = {}", timeout.as_secs_f64()));
    }
    // A block that has not changed here has changed in the listener for WebSocket.
    let has_tls = new.tls.is_some() || old.tls == new.tls;
    lines.push(format!("Reloaded: tls = {}", if has_tls { "enabled" } else { "disabled" }));
    let first = |options: &Options| options.tls.as_ref().map(|tls| tls.handshake_first).unwrap_or_default();
    let is_first = first(new) != HandshakeFirst::No;
    if first(old) != first(new) {
        lines.push(format!("Reloaded: Client TLS handshake first: {is_first}"));
    }
    lines
}

/// The lines about a changed key, in the words of the reference.
fn applied(key: &str, value: &str, old: &Options, new: &Options) -> Vec<String> {
    let reloaded = |what: &str| format!("Reloaded: {what}");
    let line = match key {
        "authorization" => return authorization(old, new).iter().map(|what| reloaded(what)).collect(),
        "tls" => return tls(old, new),
        "accounts" | "mappings" | "cluster" | "default_sentinel" => reloaded(key),
        "resolver_preload" | "resolver_pinned_accounts" => reloaded("accounts"),
        "server_tags" => reloaded("tags"),
        "server_metadata" => reloaded("metadata"),
        "client_advertise" => format!("Reload: client_advertise = {value}"),
        "no_fast_producer_stall" if new.no_fast_producer_stall => reloaded("fast producers will not be stalled"),
        "no_fast_producer_stall" => reloaded("fast producers will be stalled"),
        _ => reloaded(&format!("{key} = {value}")),
    };
    vec![line]
}

/// The parts of the `authorization` block that differ.
pub(super) fn authorization(old: &Options, new: &Options) -> Vec<String> {
    let nkeys = |options: &Options| -> Vec<User> { users(options, |identity| matches!(identity, Identity::Nkey(_))) };
    let named = |options: &Options| -> Vec<User> { users(options, |identity| !matches!(identity, Identity::Nkey(_))) };
    let rest = |options: &Options| {
        let access = &options.access;
        (access.default_permissions.clone(), access.callout.clone(), access.proxy_required)
    };
    let timeout = format!("authorization timeout = {}", new.auth_timeout().as_secs_f64());
    [
        (old.user != new.user, "authorization username"),
        (old.pass != new.pass, "authorization password"),
        (old.auth_token != new.auth_token, "authorization token"),
        (old.auth_timeout() != new.auth_timeout(), &timeout),
        (nkeys(old) != nkeys(new), "authorization nkey users"),
        (named(old) != named(new) || rest(old) != rest(new), "authorization users"),
    ]
    .into_iter()
    .filter(|(differs, _)| *differs)
    .map(|(_, what)| what.to_owned())
    .collect()
}

fn users(options: &Options, is_wanted: fn(&Identity) -> bool) -> Vec<User> {
    options.access.users.iter().filter(|user| is_wanted(&user.identity)).cloned().collect()
}

/// TLS of the listener for WebSocket can be changed, and nothing else of it.
pub(super) fn websocket_tls(options: &Options) -> Option<&TlsOptions> {
    options.websocket.as_ref()?.tls.as_ref()
}

/// The rest of that listener.
pub(super) fn websocket_without_tls(options: &Options) -> Option<WebsocketOptions> {
    options.websocket.clone().map(|websocket| WebsocketOptions { tls: None, ..websocket })
}

/// A value as messages about reloads show it.
pub(super) trait Shown {
    /// Its text; nothing where a value is absent.
    fn shown(&self) -> String;
}

macro_rules! shown_by_display {
    ($($type:ty),+) => {
        $(impl Shown for $type {
            fn shown(&self) -> String {
                self.to_string()
            }
        })+
    };
}

shown_by_display!(bool, usize, u64, u32, String);

impl Shown for Duration {
    fn shown(&self) -> String {
        duration::format(*self)
    }
}

impl Shown for Option<Duration> {
    fn shown(&self) -> String {
        self.unwrap_or_default().shown()
    }
}

impl Shown for PortSpec {
    fn shown(&self) -> String {
        match self {
            Self::Fixed(port) => port.to_string(),
            Self::Any => "-1".to_owned(),
        }
    }
}

impl Shown for Option<PortSpec> {
    fn shown(&self) -> String {
        self.unwrap_or(PortSpec::Fixed(0)).shown()
    }
}

impl Shown for Vec<ListenAddress> {
    fn shown(&self) -> String {
        let one = |address: &ListenAddress| match address.port {
            PortSpec::Fixed(port) => host_and_port(address.host.as_deref().unwrap_or_default(), port),
            PortSpec::Any => format!("{}:-1", address.host.as_deref().unwrap_or_default()),
        };
        format!("[{}]", self.iter().map(one).collect::<Vec<_>>().join(" "))
    }
}

impl Shown for Option<u8> {
    fn shown(&self) -> String {
        self.unwrap_or(0).to_string()
    }
}

impl Shown for Option<String> {
    fn shown(&self) -> String {
        self.clone().unwrap_or_default()
    }
}

impl Shown for Option<PathBuf> {
    fn shown(&self) -> String {
        self.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

impl Shown for Vec<String> {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

impl Shown for Vec<(String, String)> {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    type Set = fn(&mut Options);

    /// Every live key has its line, and secrets are in none.
    #[test]
    fn live_changes() {
        let cases: &[(Set, &[&str])] = &[
            (|_| {}, &[]),
            (|o| o.debug = true, &["Reloaded: debug = true"]),
            (|o| o.log_file = Some("x".into()), &["Reloaded: log_file = x"]),
            (|o| o.ping_interval = Duration::from_millis(1500), &["Reloaded: ping_interval = 1.5s"]),
            (|o| o.client_advertise = Some("h:1".into()), &["Reload: client_advertise = h:1"]),
            (|o| o.no_fast_producer_stall = true, &["Reloaded: fast producers will not be stalled"]),
            (
                |o| (o.user, o.pass) = (Some("u".into()), Some(Secret::new("hidden"))),
                &["Reloaded: authorization username", "Reloaded: authorization password"],
            ),
            (|o| o.auth_token = Some(Secret::new("hidden")), &["Reloaded: authorization token"]),
            (|o| o.auth_timeout = Some(Duration::from_secs(3)), &["Reloaded: authorization timeout = 3"]),
            (
                |o| {
                    let identity = Identity::Nkey("U".into());
                    let rest = (None, Vec::new(), false);
                    let (permissions, connection_types, proxy_required) = rest;
                    o.access.users = vec![User { identity, permissions, connection_types, proxy_required }];
                },
                &["Reloaded: authorization nkey users"],
            ),
            (|o| o.access.accounts = vec![crate::config::accounts::Account::default()], &["Reloaded: accounts"]),
            (
                |o| (o.max_connections, o.debug) = (1, true),
                &["Reloaded: debug = true", "Reloaded: max_connections = 1"],
            ),
        ];
        for (set, expected) in cases {
            let (old, mut new) = (Options::default(), Options::default());
            set(&mut new);
            let lines: Vec<String> = diff(&old, &new).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(lines, *expected);
        }
    }

    /// One change that needs a restart refuses the others.
    #[test]
    fn changes_that_need_a_restart() {
        let cases: &[(Set, &str)] = &[
            (|o| o.port = PortSpec::Any, "Port: old=4222, new=-1"),
            (|o| o.host = "h".into(), "Host: old=0.0.0.0, new=h"),
            (|o| o.http_port = Some(PortSpec::Fixed(1)), "HTTPPort: old=0, new=1"),
            (|o| o.http_host = Some("h".into()), "HTTPHost: old=, new=h"),
            (|o| o.max_sub_tokens = Some(3), "MaxSubTokens: old=0, new=3"),
            (|o| o.lame_duck_duration = Duration::from_secs(90), "LameDuckDuration: old=2m0s, new=1m30s"),
            (|o| o.proxy_protocol = true, "ProxyProtocol: old=false, new=true"),
            (
                |o| o.also_listen = vec![ListenAddress { host: Some("::1".into()), port: PortSpec::Fixed(1) }],
                "also_listen: old=[], new=[[::1]:1]",
            ),
            (|o| o.spin_us = 3, "spin_us: old=0, new=3"),
            (|o| (o.ring_slots, o.debug) = (2, true), "ring_slots: old=256, new=2"),
        ];
        for (set, expected) in cases {
            let (old, mut new) = (Options::default(), Options::default());
            set(&mut new);
            let text = diff(&old, &new).unwrap_err().to_string();
            assert_eq!(text, format!("config reload not supported for {expected}"));
        }
    }

    /// TLS of the listeners can be changed, that for clients begun and ended too, and nothing else of the WebSocket
    /// listener.
    #[test]
    fn changes_of_tls() {
        let tls = |verify| TlsOptions { verify, ..TlsOptions::default() };
        let listener = |tls, port| {
            Some(WebsocketOptions { port: Some(PortSpec::Fixed(port)), tls, ..WebsocketOptions::default() })
        };
        let options = |tls, websocket| Options { tls, websocket, ..Options::default() };
        let first = |handshake_first| Some(TlsOptions { handshake_first, ..TlsOptions::default() });
        let enabled = Ok("Reloaded: tls = enabled");
        let cases = [
            (options(Some(tls(false)), None), options(Some(tls(true)), None), enabled),
            (
                options(None, None),
                options(Some(tls(true)), None),
                Ok("Reloaded: authorization timeout = 3\nReloaded: tls = enabled"),
            ),
            (
                options(Some(tls(true)), None),
                options(None, None),
                Ok("Reloaded: authorization timeout = 2\nReloaded: tls = disabled"),
            ),
            (
                options(first(HandshakeFirst::No), None),
                options(first(HandshakeFirst::Yes), None),
                Ok("Reloaded: tls = enabled\nReloaded: Client TLS handshake first: true"),
            ),
            (
                options(Some(tls(true)), listener(Some(tls(false)), 1)),
                options(Some(tls(true)), listener(Some(tls(true)), 1)),
                enabled,
            ),
            (
                options(Some(tls(true)), listener(Some(tls(false)), 1)),
                options(None, listener(Some(tls(false)), 1)),
                Ok("Reloaded: authorization timeout = 2\nReloaded: tls = disabled"),
            ),
            (options(None, listener(Some(tls(false)), 1)), options(None, listener(Some(tls(true)), 1)), enabled),
            (
                options(Some(tls(true)), None),
                options(Some(TlsOptions { verify_and_map: true, ..tls(true) }), None),
                Err("TLSMap: old=false, new=true"),
            ),
            (
                options(None, listener(Some(TlsOptions { verify_and_map: true, ..tls(true) }), 1)),
                options(None, listener(Some(tls(true)), 1)),
                Err("Websocket TLSMap: old=true, new=false"),
            ),
            (
                options(None, listener(Some(tls(false)), 1)),
                options(None, listener(None, 1)),
                Err("Websocket TLS: old=enabled, new=disabled"),
            ),
        ];
        for (old, new, expected) in cases {
            let outcome = diff(&old, &new).map_err(|refusal| refusal.to_string());
            let lines = outcome.map(|changes| changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
            let refusal = |text| format!("config reload not supported for {text}");
            assert_eq!(lines, expected.map(str::to_owned).map_err(refusal));
        }
        let refusal = diff(&options(None, listener(None, 1)), &options(None, listener(None, 2))).unwrap_err();
        assert_eq!(refusal.field, "Websocket");
    }
}
