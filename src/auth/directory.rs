//! Everybody who may connect, and the accounts they belong to.
//!
//! A [`Directory`] is made of the configuration and never changes; all shards share it. Accounts are numbered: the
//! number is what connections, interest and messages between shards carry. When the configuration is read again a new
//! directory [follows](Directory::successor), in which accounts keep their numbers. The number of an account that is gone
//! names no other one, since something of it may still be on its way.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use super::crossings::Crossings;
use super::grant::{Basis, Grant, Reason};
use super::mapping::Mappings;
use super::permissions::Permissions;
use super::trust::Trust;
use crate::config::accounts::{Account, AccountLimits};
use crate::config::authorization::{ConnectionType, Identity, User as ConfiguredUser};
use crate::config::permissions as config;
use crate::config::tls::TlsOptions;
use crate::config::{Options, Secret};
use crate::jwt::{moment, unix_seconds};

/// The account of whoever belongs to no other.
pub const DEFAULT_ACCOUNT: &str = "$G";
/// Its number in every directory.
pub const DEFAULT_ACCOUNT_NUMBER: u32 = 0;
const SYSTEM_ACCOUNT: &str = "$SYS";

/// Users, accounts, and how clients identify themselves.
#[derive(Debug)]
pub struct Directory {
    /// How many came before this one.
    version: u64,
    accounts: Vec<AccountFacts>,
    pub(super) users: HashMap<String, Arc<User>>,
    pub(super) nkeys: HashMap<String, Arc<User>>,
    /// What the listener for clients asks for.
    clients: Door,
    /// What the one for WebSocket asks for.
    websocket: Door,
    /// Accounts whose users have tokens. If there is this, nobody else may log in.
    pub(super) trust: Option<Arc<Trust>>,
}

/// What clients of one listener have to show.
#[derive(Clone, Debug, Default)]
pub(super) struct Door {
    /// Credentials that all clients share, where there are no users.
    pub(super) shared: Option<Arc<SharedSecret>>,
    /// Users by the distinguished names that they are named after, where certificates say who a client is.
    pub(super) by_subject: Option<HashMap<Vec<String>, String>>,
    /// Who comes without credentials.
    pub(super) no_auth_user: Option<Arc<User>>,
}

/// What is known of an account beside its subjects.
#[derive(Debug)]
pub struct AccountFacts {
    /// Its name; the public nkey of one that an operator vouches for.
    pub name: Arc<str>,
    /// Its name for people.
    pub name_tag: Arc<str>,
    /// Events of the server belong here.
    pub is_system: bool,
    /// Limits of its clients.
    pub limits: AccountLimits,
    /// Where messages of its clients go beside the account itself.
    pub crossings: Option<Crossings>,
    /// Other accounts import a service of it, or have done so: answers may still be owed to them.
    serves_others: bool,
    /// Clients that have logged in, on all shards, whichever directory those have.
    connections: Arc<AtomicUsize>,
}

/// A user of the configuration.
#[derive(Debug)]
pub(super) struct User {
    pub(super) identity: Identity,
    pub(super) account: u32,
    pub(super) password: Option<Secret>,
    pub(super) permissions: Option<Arc<Permissions>>,
    /// All if empty.
    kinds: Vec<ConnectionType>,
}

/// What all clients know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SharedSecret {
    User(String, Secret),
    Token(Secret),
}

impl SharedSecret {
    /// The token, if there is one, else the user.
    fn of(token: &Option<Secret>, user: &Option<String>, password: &Option<Secret>) -> Option<Arc<Self>> {
        let password = || password.clone().unwrap_or_else(|| Secret::new(""));
        let of_user = || user.clone().map(|user| Self::User(user, password()));
        token.clone().map(Self::Token).or_else(of_user).map(Arc::new)
    }
}

impl Directory {
    /// The directory of a configuration.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self::after(&[], 0, options)
    }

    /// The directory that follows this one when the configuration has been read again.
    #[must_use]
    pub fn successor(&self, options: &Options) -> Self {
        Self::after(&self.accounts, self.version + 1, options)
    }

    /// A directory in which the accounts of `before` keep their numbers and counts.
    fn after(before: &[AccountFacts], version: u64, options: &Options) -> Self {
        let access = &options.access;
        let mut directory = Self {
            version,
            accounts: before.iter().map(AccountFacts::without_settings).collect(),
            users: HashMap::new(),
            nkeys: HashMap::new(),
            clients: Door::default(),
            websocket: Door::default(),
            trust: None,
        };
        let default = directory.number(DEFAULT_ACCOUNT);
        debug_assert_eq!(default, DEFAULT_ACCOUNT_NUMBER, "it is the first of the first directory");
        directory.add_users(default, &access.users, access.default_permissions.as_ref());
        let trusted = directory.add_trust(options);
        let accounts = trusted.as_ref().unwrap_or(&access.accounts);
        for account in accounts {
            directory.add_account(account);
        }
        directory.add_crossings(options, accounts);
        if !access.no_system_account {
            let name = access.system_account().unwrap_or(SYSTEM_ACCOUNT);
            let number = directory.number(name);
            directory.accounts[number as usize].is_system = true;
        }
        (directory.clients, directory.websocket) = directory.doors(options);
        directory
    }

    /// The doors for clients and for WebSocket. The listener for WebSocket asks for what all clients are asked for, unless
    /// it has credentials or a user for those without them; certificates name users where its own TLS says so.
    fn doors(&self, options: &Options) -> (Door, Door) {
        let user = |name: &Option<String>| name.as_ref().and_then(|name| self.users.get(name)).cloned();
        let clients = Door {
            shared: SharedSecret::of(&options.auth_token, &options.user, &options.pass),
            by_subject: self.by_subject(options.tls.as_ref()),
            no_auth_user: user(&options.access.no_auth_user),
        };
        let Some(listener) = &options.websocket else { return (clients.clone(), clients) };
        let asked = &listener.authorization;
        let own = Door {
            shared: SharedSecret::of(&asked.token, &asked.user, &asked.pass),
            no_auth_user: user(&listener.no_auth_user),
            by_subject: None,
        };
        let websocket = if listener.has_own_credentials() { own } else { clients.clone() };
        (clients, Door { by_subject: self.by_subject(listener.tls.as_ref()), ..websocket })
    }

    /// Users named after distinguished names, where TLS lets certificates name users.
    fn by_subject(&self, tls: Option<&TlsOptions>) -> Option<HashMap<Vec<String>, String>> {
        let names = tls.filter(|tls| tls.verify_and_map).map(|_| self.users.keys().filter(|name| name.contains('=')));
        names.map(|names| names.map(|name| (relative_names(name), name.clone())).collect())
    }

    pub(super) fn door(&self, kind: ConnectionType) -> &Door {
        if kind == ConnectionType::Websocket { &self.websocket } else { &self.clients }
    }

    /// The number of an account, a new one if it is not known.
    fn number(&mut self, name: &str) -> u32 {
        let known = self.accounts.iter().position(|account| *account.name == *name);
        let number = known.unwrap_or_else(|| {
            self.accounts.push(AccountFacts::new(name));
            self.accounts.len() - 1
        });
        number as u32
    }

    fn add_account(&mut self, account: &Account) {
        let number = self.number(&account.name);
        self.accounts[number as usize].limits = account.limits;
        self.add_users(number, &account.users, account.default_permissions.as_ref());
    }

    /// The accounts that operators vouch for now, if there are operators.
    fn add_trust(&mut self, options: &Options) -> Option<Vec<Account>> {
        let access = Some(&options.access).filter(|access| access.operators.are_asked())?;
        let now = unix_seconds(SystemTime::now());
        let (trust, accounts) = Trust::new(access, now, |name| self.number(name));
        for account in trust.accounts().filter(|account| !account.name.is_empty()) {
            self.accounts[account.number as usize].name_tag = account.name.as_str().into();
        }
        self.trust = Some(Arc::new(trust));
        Some(accounts)
    }

    /// When this directory ceases to be right by itself, because a token begins or ceases to be in force.
    #[must_use]
    pub fn next_change(&self) -> Option<SystemTime> {
        self.trust.as_ref()?.next_change().and_then(moment)
    }

    /// When the token of an account expires, seconds since 1970, if it ever does.
    #[must_use]
    pub fn account_expires(&self, account: u32) -> Option<i64> {
        self.trust.as_ref()?.known(&self.accounts.get(account as usize)?.name)?.expires()
    }

    fn add_crossings(&mut self, options: &Options, accounts: &[Account]) {
        let access = &options.access;
        let default =
            Account { name: DEFAULT_ACCOUNT.to_owned(), mappings: access.mappings.clone(), ..Account::default() };
        let accounts: Vec<&Account> = std::iter::once(&default).chain(accounts).collect();
        let numbers = accounts.iter().filter_map(|account| {
            let number = self.accounts.iter().position(|facts| *facts.name == *account.name)?;
            Some((account.name.as_str(), number as u32))
        });
        for (number, crossings) in Crossings::of_all(&accounts, &numbers.collect(), options.cluster_name.as_deref()) {
            for service in crossings.services.values() {
                self.accounts[service.to as usize].serves_others = true;
            }
            self.accounts[number as usize].crossings = Some(crossings);
        }
    }

    fn add_users(&mut self, account: u32, users: &[ConfiguredUser], default: Option<&config::Permissions>) {
        let compile = |permissions: &config::Permissions| Arc::new(Permissions::new(permissions));
        let default = default.map(compile);
        for user in users {
            let permissions = user.permissions.as_ref().map(compile).or_else(|| default.clone());
            let identity = user.identity.clone();
            let (password, known, name) = match &user.identity {
                Identity::Password { user, password } => (password.clone(), &mut self.users, user),
                Identity::Nkey(key) => (None, &mut self.nkeys, key),
            };
            let kinds = user.connection_types.clone();
            known.insert(name.clone(), Arc::new(User { identity, account, password, permissions, kinds }));
        }
    }

    /// Tells directories that follow each other apart.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The accounts, by number. Those that are gone are among them, without users.
    #[must_use]
    pub fn accounts(&self) -> &[AccountFacts] {
        &self.accounts
    }

    /// Whether a client has to log in before it may do anything.
    #[must_use]
    pub fn is_required(&self, kind: ConnectionType) -> bool {
        self.door(kind).shared.is_some() || self.has_users() || self.trust.is_some()
    }

    /// Whether there is a user for clients without credentials.
    #[must_use]
    pub fn has_no_auth_user(&self, kind: ConnectionType) -> bool {
        self.door(kind).no_auth_user.is_some()
    }

    /// Who a client is that begins without CONNECT; `None` if it may not.
    #[must_use]
    pub fn without_connect(&self, kind: ConnectionType) -> Option<Grant> {
        match &self.door(kind).no_auth_user {
            _ if self.trust.is_some() => None,
            // A certificate is judged with CONNECT.
            Some(_) if self.door(kind).by_subject.is_some() => None,
            Some(user) if !user.may_use(kind) => None,
            Some(user) => Some(Grant { basis: Basis(Reason::NoCredentials), ..Grant::to_user(user) }),
            None if self.is_required(kind) => None,
            None => Some(Grant::open(Reason::Open(None))),
        }
    }

    /// Whether INFO has to carry a nonce.
    #[must_use]
    pub fn needs_nonce(&self) -> bool {
        !self.nkeys.is_empty() || self.trust.is_some()
    }

    pub(super) fn has_users(&self) -> bool {
        !self.users.is_empty() || !self.nkeys.is_empty()
    }
}

/// The relative names of a distinguished name, whatever their order: `CN=a, O=b` and `O=b,CN=a` are the same.
pub(super) fn relative_names(text: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut is_escaped = false;
    for char in text.chars() {
        match char {
            ',' if !is_escaped => names.push(String::new()),
            _ => names.last_mut().expect("there is always one").push(char),
        }
        is_escaped = char == '\\' && !is_escaped;
    }
    let mut names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
    names.sort_unstable();
    names
}

impl User {
    /// The password, plain or a hash; empty if there is none.
    pub(super) fn secret(&self) -> Secret {
        self.password.clone().unwrap_or_else(|| Secret::new(""))
    }

    /// Whether the user may use this kind of connection.
    pub(super) fn may_use(&self, kind: ConnectionType) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }
}

impl AccountFacts {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            name_tag: name.into(),
            is_system: false,
            limits: AccountLimits::default(),
            crossings: None,
            serves_others: false,
            connections: Arc::default(),
        }
    }

    /// Whether messages of its clients may leave it.
    #[must_use]
    pub fn crosses(&self) -> bool {
        let leave = |crossings: &Crossings| !crossings.streams.is_empty() || !crossings.services.is_empty();
        self.serves_others || self.crossings.as_ref().is_some_and(leave)
    }

    /// Its mappings, if it has any.
    #[must_use]
    pub fn mappings(&self) -> Option<&Mappings> {
        self.crossings.as_ref().map(|crossings| &crossings.mappings).filter(|mappings| !mappings.is_empty())
    }

    /// The account before the configuration says anything of it.
    fn without_settings(&self) -> Self {
        let connections = self.connections.clone();
        Self { connections, serves_others: self.serves_others, ..Self::new(&self.name) }
    }

    /// Takes the place of a client that had entered, if there are more than may be. `true` if it has to go.
    pub fn evict(&self) -> bool {
        let Some(max) = self.limits.max_connections else { return false };
        let fewer = |count| (count > max).then(|| count - 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok()
    }

    /// Counts a client that logs in; `false`, and nothing is counted, if the account is full.
    pub fn enter(&self) -> bool {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let fits = self.limits.max_connections.is_none_or(|max| before < max);
        if !fits {
            self.leave();
        }
        fits
    }

    /// A client that had entered is gone.
    pub fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
