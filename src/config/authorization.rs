//! Users, what they may do, and the `authorization` block.
//!
//! The types here say what the file says, validated; they decide nothing about a connection.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::time::Duration;

use nkeys::KeyPairType;

use super::grammar::{Map, Node, Position, Value};
use super::permissions::{self, Permissions};
use super::schema::{Finding, Item, Key, Reading, Row, rows};
use super::{Secret, read};

/// One user.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// How the user proves to be this user.
    pub identity: Identity,
    /// What the user may do; the defaults of the block or account if absent.
    pub permissions: Option<Permissions>,
    /// Kinds of connections the user may use; all if empty.
    pub connection_types: Vec<ConnectionType>,
    /// The connection must come through a trusted proxy.
    pub proxy_required: bool,
}

/// How a user logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A name and a password, which may be a bcrypt hash. Without a password the empty one is meant.
    Password {
        /// User name.
        user: String,
        /// Password.
        password: Option<Secret>,
    },
    /// A public nkey, `U…`.
    Nkey(String),
}

/// A kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionType {
    /// NATS over TCP or TLS.
    Standard,
    /// NATS over WebSocket.
    Websocket,
    /// A leafnode.
    Leafnode,
    /// A leafnode over WebSocket.
    LeafnodeWs,
    /// MQTT.
    Mqtt,
    /// MQTT over WebSocket.
    MqttWs,
    /// A client inside the server's process.
    InProcess,
}

/// Delegation of logins to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthCallout {
    /// Public account nkey that signs the answers.
    pub issuer: String,
    /// Account in which the service runs; `$G` if absent.
    pub account: Option<String>,
    /// Users that log in without the service.
    pub users: Vec<String>,
    /// Public curve key for encryption.
    pub xkey: Option<String>,
    /// Accounts that the service may place users in; all if empty.
    pub allowed_accounts: Vec<String>,
}

/// The `authorization` block before its parts are distributed over the options.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) user: Option<String>,
    pub(super) pass: Option<Secret>,
    pub(super) token: Option<Secret>,
    pub(super) timeout: Option<Duration>,
    pub(super) users: Vec<User>,
    pub(super) has_users: bool,
    pub(super) default_permissions: Option<Permissions>,
    pub(super) callout: Option<AuthCallout>,
    pub(super) proxy_required: bool,
}

pub(super) const KEYS: &[Key<Block>] = &[
    Key::<Block>::text(&["user", "username"], "\"app\"", "The one user name required of clients", |block, text| {
        block.user = Some(text.to_owned());
        Ok(())
    })
    .live(),
    Key::<Block>::text(&["password", "pass"], "\"secret\"", "Password of the user", |block, text| {
        block.pass = Some(Secret::new(text));
        Ok(())
    })
    .live(),
    Key::<Block>::text(
        &["token"],
        "\"secret\"",
        "Token required of clients, instead of user and password",
        |block, text| {
            block.token = Some(Secret::new(text));
            Ok(())
        },
    )
    .live(),
    Key::<Block>::seconds(&["timeout"], "2", "How long a client may take to log in", |block, timeout| {
        block.timeout = Some(timeout);
    })
    .live(),
    Key::<Block>::other(
        &["users"],
        "array of users",
        "[ { user: app, password: secret, permissions: { publish: \"orders.>\", subscribe: [\"_INBOX.>\"] } } ]",
        "Users; each has user and password, or nkey; permissions, allowed_connection_types, proxy_required",
        |block, item, reading| {
            block.has_users = true;
            block.users = users(item, reading)?;
            Ok(())
        },
    )
    .entries(user_rows)
    .live(),
    Key::<Block>::other(
        &["default_permissions", "default_permission", "permissions"],
        "permissions",
        "{ publish: \">\", subscribe: \">\" }",
        "Permissions of users that have none of their own",
        |block, item, reading| {
            block.default_permissions = Some(permissions::permissions(item, reading)?);
            Ok(())
        },
    )
    .live(),
    Key::<Block>::block(
        &["auth_callout", "auth_hook"],
        "Let a service decide about logins",
        |block, item, map, reading| {
            let mut callout = AuthCallout::default();
            reading.keys(map, CALLOUT, &mut callout);
            if callout.issuer.is_empty() {
                reading.error(item.at, "Authorization callouts require an issuer to be specified");
            }
            block.callout = Some(callout);
        },
        || rows(CALLOUT),
    )
    .live(),
    Key::<Block>::boolean(
        &["proxy_required"],
        "false",
        "Refuse connections that come through no trusted proxy",
        |block, on| {
            block.proxy_required = on;
        },
    )
    .live(),
];

const CALLOUT: &[Key<AuthCallout>] = &[
    Key::text(&["issuer"], "\"A…\"", "Public nkey of the account that signs answers", |callout, text| {
        callout.issuer = read::public_nkey(text, &KeyPairType::Account, "an account")?;
        Ok(())
    }),
    Key::text(&["account", "acc"], "AUTH", "Account of the service", |callout, text| {
        callout.account = Some(text.to_owned());
        Ok(())
    }),
    Key::other(
        &["auth_users", "users"],
        "array of strings",
        "[ auth ]",
        "Users of the service itself",
        |callout, item, _| {
            callout.users = read::array_of_texts(item.node)?;
            Ok(())
        },
    ),
    Key::text(&["xkey", "key"], "\"X…\"", "Public curve key that encrypts requests", |callout, text| {
        callout.xkey = Some(text.to_owned());
        Ok(())
    }),
    Key::other(
        &["allowed_accounts"],
        "array of strings",
        "[ APP ]",
        "Accounts the service may name",
        |callout, item, _| {
            callout.allowed_accounts = read::array_of_texts(item.node)?;
            Ok(())
        },
    ),
];

/// What a table of users reads into.
#[derive(Default)]
struct RawUser {
    user: Option<String>,
    password: Option<Secret>,
    nkey: Option<String>,
    permissions: Option<Permissions>,
    connection_types: Vec<ConnectionType>,
    proxy_required: bool,
}

const USER: &[Key<RawUser>] = &[
    Key::text(&["user", "username"], "app", "User name", |user, text| {
        user.user = Some(text.to_owned());
        Ok(())
    }),
    Key::text(&["password", "pass"], "secret", "Password, plain or bcrypt", |user, text| {
        user.password = Some(Secret::new(text));
        Ok(())
    }),
    Key::text(&["nkey"], "\"U…\"", "Public nkey, instead of user and password", |user, text| {
        user.nkey = Some(read::public_nkey(text, &KeyPairType::User, "a user")?);
        Ok(())
    }),
    Key::other(
        &["permissions", "permission", "authorization"],
        "permissions",
        "{ publish: \">\" }",
        "What the user may do",
        |user, item, reading| {
            user.permissions = Some(permissions::permissions(item, reading)?);
            Ok(())
        },
    ),
    Key::other(
        &["allowed_connection_types", "connection_types", "clients"],
        "array of strings",
        "[ STANDARD ]",
        "Kinds of connections the user may use",
        |user, item, _| {
            user.connection_types = connection_types(item.node)?;
            Ok(())
        },
    ),
    Key::boolean(&["proxy_required"], "false", "Only through a trusted proxy", |user, on| user.proxy_required = on),
];

/// Reads an array of users.
pub(super) fn users(item: &Item<'_>, reading: &mut Reading) -> Result<Vec<User>, String> {
    let Value::Array(entries) = &item.node.value else {
        return Err(format!("Expected users field to be an array, got {}", item.node.value.kind()));
    };
    let mut users = Vec::new();
    for entry in entries {
        match user(entry, reading) {
            Ok(user) => users.extend(user),
            Err(what) => reading.error(&entry.at, what),
        }
    }
    Ok(users)
}

/// Nothing if the entry had errors of its own, which have been noted.
fn user(entry: &Node, reading: &mut Reading) -> Result<Option<User>, String> {
    let Value::Map(map) = &entry.value else {
        return Err(format!("Expected user entry to be a map, got {}", entry.value.kind()));
    };
    let errors = reading.errors.len();
    let mut raw = RawUser::default();
    reading.keys(map, USER, &mut raw);
    if reading.errors.len() > errors {
        return Ok(None);
    }
    let identity = match (raw.nkey, raw.user) {
        (Some(_), Some(_)) => return Err("Nkey users do not take usernames or passwords".to_owned()),
        (Some(_), None) if raw.password.is_some() => {
            return Err("Nkey users do not take usernames or passwords".to_owned());
        }
        (Some(nkey), None) => Identity::Nkey(nkey),
        (None, Some(user)) if !user.is_empty() => Identity::Password { user, password: raw.password },
        (None, _) => return Err("User entry requires a user".to_owned()),
    };
    Ok(Some(User {
        identity,
        permissions: raw.permissions,
        connection_types: raw.connection_types,
        proxy_required: raw.proxy_required,
    }))
}

fn connection_types(node: &Node) -> Result<Vec<ConnectionType>, String> {
    let read = |name: &String| {
        connection_type(name).ok_or_else(|| format!("invalid connection types [\"{}\"]", name.escape_debug()))
    };
    read::texts(node)?.iter().map(read).collect()
}

/// The kind of connection that has this name.
pub(super) fn connection_type(name: &str) -> Option<ConnectionType> {
    CONNECTION_TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
}

const CONNECTION_TYPES: &[(&str, ConnectionType)] = &[
    ("STANDARD", ConnectionType::Standard),
    ("WEBSOCKET", ConnectionType::Websocket),
    ("LEAFNODE", ConnectionType::Leafnode),
    ("LEAFNODE_WS", ConnectionType::LeafnodeWs),
    ("MQTT", ConnectionType::Mqtt),
    ("MQTT_WS", ConnectionType::MqttWs),
    ("IN_PROCESS", ConnectionType::InProcess),
];

/// Reads an `authorization` block and checks what may stand in it together.
pub(super) fn block(item: &Item<'_>, map: &Map, reading: &mut Reading) -> Block {
    let mut block = Block::default();
    reading.keys(map, KEYS, &mut block);
    let single = block.user.is_some() || block.pass.is_some();
    if single && block.token.is_some() {
        reading.error(item.at, "Cannot have a user/pass and token");
    }
    if single && block.has_users {
        reading.error(item.at, "Can not have a single user/pass and a users array");
    }
    if block.token.is_some() && block.has_users {
        reading.error(item.at, "Can not have a token and a users array");
    }
    if block.has_users && block.users.is_empty() {
        let what = "there are no users, so that everybody may connect".to_owned();
        reading.notices.push(Finding { at: item.at.clone(), what });
    }
    block
}

/// Reads the `authorization` block of a listener for servers: one user with a password.
pub(super) fn single_user(item: &Item<'_>, map: &Map, owner: &str, reading: &mut Reading) {
    let block = block(item, map, reading);
    if block.has_users {
        reading.error(item.at, format!("{owner} authorization does not allow multiple users"));
    }
    if block.token.is_some() {
        reading.error(item.at, format!("{owner} authorization does not support tokens"));
    }
    if block.callout.is_some() {
        reading.error(item.at, format!("{owner} authorization does not support callouts"));
    }
    if block.default_permissions.is_some() {
        let what = "invalid use of field \"authorization\": setting \"permissions\" within cluster authorization block \
                    is deprecated";
        reading.warn(item.at, what);
    }
}

/// Keys of a user as the sample shows them.
pub(super) fn user_rows() -> Vec<Row> {
    rows(USER)
}

/// Refuses names and nkeys that occur twice among all users of the server.
#[derive(Default)]
pub(super) struct Distinct(HashSet<(bool, String)>);

impl Distinct {
    pub(super) fn check(&mut self, users: &[User], at: &Position) -> Vec<Finding> {
        let mut findings = Vec::new();
        for user in users {
            let (is_nkey, kind, name) = match &user.identity {
                Identity::Password { user, .. } => (false, "user", user),
                Identity::Nkey(nkey) => (true, "nkey", nkey),
            };
            if !self.0.insert((is_nkey, name.clone())) {
                let what = format!("Duplicate {kind} \"{}\" detected", name.escape_debug());
                findings.push(Finding { at: at.clone(), what });
            }
        }
        findings
    }
}
