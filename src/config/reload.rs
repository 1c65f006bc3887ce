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
use super::tls::TlsOptions;
use super::websocket::WebsocketOptions;
use super::{Options, PortSpec, duration};

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
    field: &'static str,
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
    let mut lines = Vec::new();
    for change in server::changes(old, new) {
        let KeyChange { field, old: old_value, new: new_value, .. } = change;
        if change.reload == Reload::Restart {
            return Err(NotReloadable { field, old: old_value, new: new_value });
        }
        lines.extend(applied(change.key, &new_value, old, new).into_iter().map(Change));
    }
    Ok(lines)
}

/// The lines about a changed key, in the words of the reference.
fn applied(key: &str, value: &str, old: &Options, new: &Options) -> Vec<String> {
    let reloaded = |what: &str| format!("Reloaded: {what}");
    let line = match key {
        "authorization" => return authorization(old, new).iter().map(|what| reloaded(what)).collect(),
        "accounts" | "mappings" => reloaded(key),
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
    let timeout = format!("authorization timeout = {}", new.auth_timeout.as_secs_f64());
    [
        (old.user != new.user, "authorization username"),
        (old.pass != new.pass, "authorization password"),
        (old.auth_token != new.auth_token, "authorization token"),
        (old.auth_timeout != new.auth_timeout, &timeout),
        (nkeys(old) != nkeys(new), "authorization nkey users"),
        (named(old) != named(new) || rest(old) != rest(new), "authorization users"),
    ]
    .into_iter()
    .filter_map(|(differs, what)| differs.then(|| what.to_owned()))
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
