//! Accounts: the `accounts` block, and the whole of who may do what ([`Access`]).
#![forbid(unsafe_code)]

use std::collections::HashSet;

use nkeys::KeyPairType;

use super::authorization::{self, AuthCallout, Identity, User};
use super::exports::{self, Export, Import};
use super::grammar::{Map, Value};
use super::later::jetstream;
use super::mappings::{self, Mapping};
use super::operators::Operators;
use super::permissions::{self, Permissions};
use super::read;
use super::schema::{Item, Key, Reading, Row, rows};
use crate::subject;

/// Who may connect and what they may do, beyond one user or token for everybody.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// Users of the default account.
    pub users: Vec<User>,
    /// Permissions of users of the default account that have none of their own.
    pub default_permissions: Option<Permissions>,
    /// Logins are decided by a service.
    pub callout: Option<AuthCallout>,
    /// Connections must come through a trusted proxy.
    pub proxy_required: bool,
    /// The user that connections without credentials become.
    pub no_auth_user: Option<String>,
    /// Accounts beside the default one.
    pub accounts: Vec<Account>,
    /// Name of the system account, if it is given.
    pub system_account: Option<String>,
    /// There is no system account.
    pub no_system_account: bool,
    /// Subject mappings of the default account.
    pub mappings: Vec<Mapping>,
    /// Whoever vouches for accounts and their users, instead of this configuration.
    pub operators: Operators,
}

/// An account: a subject space of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its users.
    pub users: Vec<User>,
    /// Permissions of its users that have none of their own.
    pub default_permissions: Option<Permissions>,
    /// What it offers to other accounts.
    pub exports: Vec<Export>,
    /// What it takes from other accounts.
    pub imports: Vec<Import>,
    /// Subject mappings.
    pub mappings: Vec<Mapping>,
    /// Limits.
    pub limits: AccountLimits,
    /// Public account nkey.
    pub nkey: Option<String>,
}

/// Limits of an account; no limit where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// Client connections.
    pub max_connections: Option<usize>,
    /// Subscriptions of one connection.
    pub max_subscriptions: Option<usize>,
    /// Largest message.
    pub max_payload: Option<usize>,
    /// Leafnode connections.
    pub max_leafnodes: Option<usize>,
}

/// The account that belongs to whoever names no other.
const DEFAULT_ACCOUNT: &str = "$G";

const ACCOUNT: &[Key<Account>] = &[
    Key::<Account>::other(
        &["users"],
        "array of users",
        "[ { user: app, password: secret } ]",
        "Users of the account",
        |account, item, reading| {
            account.users = authorization::users(item, reading)?;
            Ok(())
        },
    )
    .entries(authorization::user_rows)
    .live(),
    Key::<Account>::other(
        &["default_permissions"],
        "permissions",
        "{ publish: \">\", subscribe: \">\" }",
        "Permissions of users that have none of their own",
        |account, item, reading| {
            account.default_permissions = Some(permissions::permissions(item, reading)?);
            Ok(())
        },
    )
    .live(),
    Key::<Account>::other(
        &["exports"],
        "array of exports",
        "[ { stream: \"events.>\" }, { service: \"help\", accounts: [ B ], response: single } ]",
        "What other accounts may import",
        |account, item, reading| {
            account.exports = exports::exports(item, reading)?;
            Ok(())
        },
    )
    .entries(exports::export_rows)
    .live(),
    Key::<Account>::other(
        &["imports"],
        "array of imports",
        "[ { stream: { account: B, subject: \"events.>\" }, prefix: b } ]",
        "What this account takes from others; also service, to, share",
        |account, item, reading| {
            account.imports = exports::imports(item, reading)?;
            Ok(())
        },
    )
    .entries(exports::import_rows)
    .live(),
    Key::<Account>::other(
        &["mappings", "maps"],
        "map",
        "{ \"a.*\": \"b.$1\" }",
        "Subject mappings",
        |account, item, reading| {
            account.mappings = mappings::mappings(item, reading)?;
            Ok(())
        },
    )
    .live(),
    Key::<Account>::block(
        &["limits"],
        "Limits; -1 means none",
        |account, _, map, reading| reading.keys(map, LIMITS, &mut account.limits),
        || rows(LIMITS),
    )
    .live(),
    Key::<Account>::other(
        &["jetstream"],
        "boolean, enabled, or map",
        "enabled",
        "Streams of the account and their limits",
        |_, item, reading| jetstream::account(item, reading),
    )
    .of(jetstream::FEATURE),
    Key::<Account>::text(&["nkey"], "\"A…\"", "Public nkey of the account", |account, text| {
        account.nkey = Some(read::public_nkey(text, &KeyPairType::Account, "an account")?);
        Ok(())
    })
    .live(),
    Key::<Account>::other(
        &["msg_trace", "trace_dest"],
        "subject or { dest, sampling }",
        "trace.dest",
        "Where traces of messages go",
        |_, item, reading| trace_destination(item, reading),
    )
    .of("message tracing"),
];

/// Sets a limit; a negative number means none.
macro_rules! limit {
    ($names:expr, $help:expr, $field:ident) => {
        Key::integer($names, "-1", $help, |limits: &mut AccountLimits, number| {
            limits.$field = usize::try_from(number).ok();
            Ok(())
        })
    };
}

const LIMITS: &[Key<AccountLimits>] = &[
    limit!(&["max_connections", "max_conn"], "Client connections", max_connections),
    limit!(&["max_subscriptions", "max_subs"], "Subscriptions of one connection", max_subscriptions),
    limit!(&["max_payload", "max_pay"], "Largest message", max_payload),
    limit!(&["max_leafnodes", "max_leafs"], "Leafnode connections", max_leafnodes),
];

/// Which of its keys are there.
#[derive(Default)]
struct TraceDestination {
    dest: bool,
    sampling: bool,
}

const TRACE: &[Key<TraceDestination>] = &[
    Key::text(&["dest", "destination"], "trace.dest", "Subject", |trace, text| {
        trace.dest = true;
        trace_subject(text)
    }),
    Key::other(&["sampling"], "integer or \"n%\"", "100", "Share of messages", |trace, item, _| {
        trace.sampling = true;
        exports::percentage(item.node).map(drop)
    }),
];

fn trace_subject(text: &str) -> Result<(), String> {
    let is_valid = subject::is_valid_literal(text.as_bytes());
    if is_valid { Ok(()) } else { Err(format!("Trace destination \"{text}\" is not valid")) }
}

fn trace_destination(item: &Item<'_>, reading: &mut Reading) -> Result<(), String> {
    match &item.node.value {
        Value::Text(text) => trace_subject(text),
        Value::Map(map) => {
            let mut trace = TraceDestination::default();
            reading.keys(map, TRACE, &mut trace);
            if trace.sampling && !trace.dest {
                return Err("Trace destination sampling ignored since no destination was set".to_owned());
            }
            Ok(())
        }
        other => Err(format!("Expected {} to be a subject or a map, got {}", item.key, other.kind())),
    }
}

/// Reads the `accounts` block: a map of accounts, or an array of their names.
pub(super) fn accounts(item: &Item<'_>, reading: &mut Reading) -> Result<Vec<Account>, String> {
    let mut accounts = Vec::new();
    let mut names = HashSet::new();
    match &item.node.value {
        Value::Array(_) => {
            for name in read::array_of_texts(item.node)? {
                if !names.insert(name.clone()) {
                    return Err(format!("Duplicate Account Entry: {name}"));
                }
                check_name(&name)?;
                accounts.push(Account { name, ..Account::default() });
            }
        }
        Value::Map(map) => {
            for (name, entry) in map.entries() {
                match (&entry.node.value, check_name(name)) {
                    (_, Err(what)) => reading.error(&entry.key_at, what),
                    (Value::Map(keys), Ok(())) => accounts.push(account(name, keys, reading)),
                    _ if entry.is_variable => {}
                    (other, Ok(())) => {
                        let what = format!("Expected map entries for accounts, got {}", other.kind());
                        reading.error(&entry.key_at, what);
                    }
                }
            }
            exports::check(item, &accounts, reading);
        }
        other => return Err(format!("Expected accounts to be a map or an array of names, got {}", other.kind())),
    }
    Ok(accounts)
}

fn check_name(name: &str) -> Result<(), String> {
    match name {
        DEFAULT_ACCOUNT => Err(format!("\"{name}\" is a Reserved Account")),
        _ => Ok(()),
    }
}

fn account(name: &str, map: &Map, reading: &mut Reading) -> Account {
    let mut account = Account { name: name.to_owned(), ..Account::default() };
    reading.keys(map, ACCOUNT, &mut account);
    account
}

/// The keys of an account, for the sample.
pub(super) fn account_rows() -> Vec<Row> {
    rows(ACCOUNT)
}

impl Access {
    /// Whether there are users, in any account.
    pub(super) fn has_users(&self) -> bool {
        !self.users.is_empty() || self.accounts.iter().any(|account| !account.users.is_empty())
    }

    /// Checks that `name` can be the user of connections without credentials.
    pub(super) fn check_no_auth_user(&self, name: &str) -> Result<(), String> {
        let mut users = self.accounts.iter().flat_map(|account| &account.users).chain(&self.users);
        let problem = if !self.has_users() {
            "present, but users/nkeys are not defined"
        } else if !users.any(|user| matches!(&user.identity, Identity::Password { user, .. } if user == name)) {
            "not present as user in authorization block or account configuration"
        } else {
            return Ok(());
        };
        Err(format!("no_auth_user: \"{}\" {problem}", name.escape_debug()))
    }

    /// Name of the system account, if it is not `$SYS`.
    #[must_use]
    pub fn system_account(&self) -> Option<&str> {
        self.system_account.as_deref().or_else(|| self.operators.system_account())
    }

    /// Checks that the system account that is named is one of those that are configured. Where operators vouch for
    /// accounts, they do for this one too.
    pub(super) fn check_system_account(&self) -> Result<(), String> {
        let is_there = |name: &str| name == DEFAULT_ACCOUNT || self.accounts.iter().any(|account| account.name == name);
        match self.system_account.as_deref() {
            Some(name) if !self.operators.are_asked() && !is_there(name) => {
                Err("error resolving system account: account missing".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Why a server that does not enforce this must not start, one line for each part.
    pub(super) fn unenforced(&self) -> Vec<&'static str> {
        let every_user = || self.accounts.iter().flat_map(|account| &account.users).chain(&self.users);
        [
            (self.callout.is_some(), "auth_callout"),
            (self.proxy_required || every_user().any(|user| user.proxy_required), "proxy_required"),
        ]
        .into_iter()
        .filter_map(|(present, what)| present.then_some(what))
        .collect()
    }
}
