//! Everybody who may connect, and the accounts they belong to.
//!
//! A [`Directory`] is made of the configuration once and never changes; all shards share it. Accounts are numbered: the
//! number is what connections, interest and messages between shards carry.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::crossings::Crossings;
use super::permissions::Permissions;
use super::verify::{Check, Proof, equal};
use crate::config::accounts::{Account, AccountLimits};
use crate::config::authorization::{ConnectionType, Identity, User as ConfiguredUser};
use crate::config::permissions as config;
use crate::config::{Options, Secret};
use crate::tls::PeerNames;
use crate::wire::connect::Connect;

/// The account of whoever belongs to no other.
pub const DEFAULT_ACCOUNT: &str = "$G";
const SYSTEM_ACCOUNT: &str = "$SYS";

/// Users, accounts, and how clients identify themselves.
#[derive(Debug)]
pub struct Directory {
    accounts: Vec<AccountFacts>,
    users: HashMap<String, Arc<User>>,
    nkeys: HashMap<String, Arc<User>>,
    /// Credentials that all clients share, where there are no users.
    shared: Option<SharedSecret>,
    /// Users by the distinguished names that they are named after, where certificates say who a client is.
    by_subject: Option<HashMap<Vec<String>, String>>,
    /// Who comes without credentials.
    no_auth_user: Option<Arc<User>>,
}

/// What is known of an account beside its subjects.
#[derive(Debug)]
pub struct AccountFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Events of the server belong here.
    pub is_system: bool,
    /// Limits of its clients.
    pub limits: AccountLimits,
    /// Where messages of its clients go beside the account itself.
    pub crossings: Option<Crossings>,
    /// Other accounts import a service of it.
    serves_others: bool,
    /// Clients that have logged in, on all shards.
    connections: AtomicUsize,
}

#[derive(Debug)]
struct User {
    account: u32,
    password: Option<Secret>,
    permissions: Option<Arc<Permissions>>,
    /// All if empty.
    kinds: Vec<ConnectionType>,
}

#[derive(Debug)]
enum SharedSecret {
    User(String, Secret),
    Token(Secret),
}

/// What a client may be from now on.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Number of its account.
    pub account: u32,
    /// What it may do; everything if absent.
    pub permissions: Option<Arc<Permissions>>,
    /// Who it is, where that is not what it has said.
    pub user: Option<String>,
}

/// What comes of a CONNECT.
#[derive(Debug)]
pub enum Answer {
    /// The client may go on.
    Granted(Grant),
    /// The credentials do not fit.
    Denied,
    /// It takes a computation that does not belong on a shard.
    Undecided(Check),
}

/// What is known of a client beside its CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// How it is connected.
    pub kind: ConnectionType,
    /// The text that INFO gave it to sign; empty if none.
    pub nonce: &'a str,
    /// Names in the certificate that it has presented.
    pub certificate: Option<&'a PeerNames>,
}

impl Directory {
    /// The directory of a configuration.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let access = &options.access;
        let mut directory = Self {
            accounts: vec![AccountFacts::new(DEFAULT_ACCOUNT, AccountLimits::default())],
            users: HashMap::new(),
            nkeys: HashMap::new(),
            shared: match (&options.auth_token, &options.user) {
                (Some(token), _) => Some(SharedSecret::Token(token.clone())),
                (None, Some(user)) => {
                    let password = options.pass.clone().unwrap_or_else(|| Secret::new(""));
                    Some(SharedSecret::User(user.clone(), password))
                }
                (None, None) => None,
            },
            by_subject: None,
            no_auth_user: None,
        };
        directory.add_users(0, &access.users, access.default_permissions.as_ref());
        for account in &access.accounts {
            directory.add_account(account);
        }
        directory.add_crossings(options);
        if !access.no_system_account {
            let name = access.system_account.as_deref().unwrap_or(SYSTEM_ACCOUNT);
            let number = directory.accounts.iter().position(|account| *account.name == *name).unwrap_or_else(|| {
                directory.accounts.push(AccountFacts::new(name, AccountLimits::default()));
                directory.accounts.len() - 1
            });
            directory.accounts[number].is_system = true;
        }
        if options.tls.as_ref().is_some_and(|tls| tls.verify_and_map) {
            let names = directory.users.keys().filter(|name| name.contains('='));
            directory.by_subject = Some(names.map(|name| (relative_names(name), name.clone())).collect());
        }
        directory.no_auth_user = access.no_auth_user.as_ref().and_then(|name| directory.users.get(name)).cloned();
        directory
    }

    fn add_account(&mut self, account: &Account) {
        let number = self.accounts.len() as u32;
        self.accounts.push(AccountFacts::new(&account.name, account.limits));
        self.add_users(number, &account.users, account.default_permissions.as_ref());
    }

    fn add_crossings(&mut self, options: &Options) {
        let access = &options.access;
        let default =
            Account { name: DEFAULT_ACCOUNT.to_owned(), mappings: access.mappings.clone(), ..Account::default() };
        let accounts: Vec<&Account> = std::iter::once(&default).chain(&access.accounts).collect();
        let numbers = accounts.iter().filter_map(|account| {
            let number = self.accounts.iter().position(|facts| *facts.name == *account.name)?;
            Some((account.name.as_str(), number as u32))
        });
        for (number, crossings) in Crossings::of_all(&accounts, &numbers.collect()) {
            for service in &crossings.services {
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
            let mut entry = User { account, password: None, permissions, kinds: user.connection_types.clone() };
            match &user.identity {
                Identity::Password { user, password } => {
                    entry.password = password.clone();
                    self.users.insert(user.clone(), Arc::new(entry));
                }
                Identity::Nkey(key) => {
                    self.nkeys.insert(key.clone(), Arc::new(entry));
                }
            }
        }
    }

    /// The accounts, by number.
    #[must_use]
    pub fn accounts(&self) -> &[AccountFacts] {
        &self.accounts
    }

    /// Whether a client has to log in before it may do anything.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.shared.is_some() || self.has_users()
    }

    /// Who a client is that begins without CONNECT; `None` if it may not.
    #[must_use]
    pub fn without_connect(&self) -> Option<Grant> {
        match &self.no_auth_user {
            Some(user) => Some(user.grant()),
            None if self.is_required() => None,
            None => Some(Grant { account: 0, permissions: None, user: None }),
        }
    }

    /// Whether INFO has to carry a nonce.
    #[must_use]
    pub fn needs_nonce(&self) -> bool {
        !self.nkeys.is_empty()
    }

    fn has_users(&self) -> bool {
        !self.users.is_empty() || !self.nkeys.is_empty()
    }

    /// Judges the credentials of a CONNECT. Says nothing of which part was wrong.
    #[must_use]
    pub fn check(&self, connect: &Connect, client: &Client<'_>) -> Answer {
        let given = |field: &Option<String>| field.clone().unwrap_or_default();
        if self.has_users() {
            if let (Some(by_subject), Some(names)) = (&self.by_subject, client.certificate) {
                return self.check_certificate(by_subject, names, client.kind);
            }
            return match connect.nkey.as_deref().filter(|nkey| !nkey.is_empty() && self.needs_nonce()) {
                Some(nkey) => self.check_nkey(nkey, connect, client),
                None => self.check_user(connect, client),
            };
        }
        let grant = Grant { account: 0, permissions: None, user: None };
        match &self.shared {
            None => Answer::Granted(grant),
            Some(SharedSecret::Token(token)) => judge(grant, token, given(&connect.auth_token)),
            Some(SharedSecret::User(user, password)) => {
                if equal(user, &given(&connect.user)) {
                    judge(grant, password, given(&connect.pass))
                } else {
                    Answer::Denied
                }
            }
        }
    }

    /// The first name of a certificate that is a user's says who the client is: e-mail addresses, DNS names, URIs, and
    /// then the subject. The certificate has been verified, so no password is asked for.
    fn check_certificate(
        &self,
        by_subject: &HashMap<Vec<String>, String>,
        names: &PeerNames,
        kind: ConnectionType,
    ) -> Answer {
        let alternative = names.emails.iter().chain(&names.dns).chain(&names.uris);
        let subject = by_subject.get(&relative_names(&names.subject.to_string()));
        for name in alternative.chain(subject) {
            if let Some(user) = self.users.get(name).filter(|user| user.may_use(kind)) {
                return Answer::Granted(Grant { user: Some(name.clone()), ..user.grant() });
            }
        }
        Answer::Denied
    }

    fn check_nkey(&self, nkey: &str, connect: &Connect, client: &Client<'_>) -> Answer {
        let Some(user) = self.nkeys.get(nkey).filter(|user| user.may_use(client.kind)) else { return Answer::Denied };
        let signature = connect.sig.clone().unwrap_or_default();
        let proof = Proof::Signature { nkey: nkey.to_owned(), nonce: client.nonce.to_owned(), signature };
        Answer::Undecided(Check { grant: user.grant(), proof })
    }

    fn check_user(&self, connect: &Connect, client: &Client<'_>) -> Answer {
        let name = connect.user.as_deref().unwrap_or_default();
        if name.is_empty()
            && !connect.has_credentials()
            && let Some(user) = &self.no_auth_user
        {
            return if user.may_use(client.kind) { Answer::Granted(user.grant()) } else { Answer::Denied };
        }
        let Some(user) = self.users.get(name).filter(|user| user.may_use(client.kind)) else { return Answer::Denied };
        let password = user.password.clone().unwrap_or_else(|| Secret::new(""));
        judge(user.grant(), &password, connect.pass.clone().unwrap_or_default())
    }
}

fn judge(grant: Grant, secret: &Secret, given: String) -> Answer {
    if secret.is_bcrypt() {
        let proof = Proof::Password { hash: secret.expose().to_owned(), given: Secret::new(given) };
        return Answer::Undecided(Check { grant, proof });
    }
    if equal(secret.expose(), &given) { Answer::Granted(grant) } else { Answer::Denied }
}

/// The relative names of a distinguished name, whatever their order: `CN=a, O=b` and `O=b,CN=a` are the same.
fn relative_names(text: &str) -> Vec<String> {
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
    fn grant(&self) -> Grant {
        Grant { account: self.account, permissions: self.permissions.clone(), user: None }
    }

    fn may_use(&self, kind: ConnectionType) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }
}

impl AccountFacts {
    fn new(name: &str, limits: AccountLimits) -> Self {
        Self {
            name: name.into(),
            is_system: false,
            limits,
            crossings: None,
            serves_others: false,
            connections: AtomicUsize::new(0),
        }
    }

    /// Whether messages of its clients may leave it, or are mapped.
    #[must_use]
    pub fn crosses(&self) -> bool {
        self.crossings.is_some() || self.serves_others
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
mod tests {
    use super::*;
    use crate::config::tls::TlsOptions;
    use crate::tls::Subject;

    const CLIENT: Client<'static> = Client { kind: ConnectionType::Standard, nonce: "", certificate: None };

    fn connect(user: Option<&str>, pass: Option<&str>, token: Option<&str>) -> Connect {
        let text = |value: Option<&str>| value.map(Into::into);
        Connect { user: text(user), pass: text(pass), auth_token: text(token), ..Connect::default() }
    }

    /// What a directory says of a CONNECT, in short.
    fn verdict(directory: &Directory, connect: &Connect) -> String {
        match directory.check(connect, &CLIENT) {
            Answer::Granted(grant) => directory.accounts()[grant.account as usize].name.to_string(),
            Answer::Denied => "denied".into(),
            Answer::Undecided(_) => "undecided".into(),
        }
    }

    #[test]
    fn shared_credentials_are_compared_whole() {
        let user = Directory::new(&Options {
            user: Some("derek".into()),
            pass: Some(Secret::new("s3cr3t")),
            ..Options::default()
        });
        let token = Directory::new(&Options { auth_token: Some(Secret::new("T0pS3cr3t")), ..Options::default() });
        assert_eq!(verdict(&user, &connect(Some("derek"), Some("s3cr3t"), None)), "$G");
        for (name, pass) in
            [(None, None), (Some("derek"), None), (Some("derek"), Some("s3cr3")), (Some("dere"), Some("s3cr3t"))]
        {
            assert_eq!(verdict(&user, &connect(name, pass, None)), "denied");
        }
        assert_eq!(verdict(&token, &connect(None, None, Some("T0pS3cr3t"))), "$G");
        assert_eq!(verdict(&token, &connect(None, None, Some("T0pS3cr3t\0"))), "denied");
        assert_eq!(verdict(&token, &connect(Some("T0pS3cr3t"), None, None)), "denied");
        let open = Directory::new(&Options::default());
        assert_eq!(verdict(&open, &connect(Some("x"), Some("y"), None)), "$G");
        assert!(!open.is_required() && open.without_connect().is_some() && token.without_connect().is_none());
    }

    fn user(name: &str, password: &str) -> ConfiguredUser {
        ConfiguredUser {
            identity: Identity::Password { user: name.into(), password: Some(Secret::new(password)) },
            permissions: None,
            connection_types: Vec::new(),
            proxy_required: false,
        }
    }

    #[test]
    fn users_belong_to_accounts() {
        let mut options = Options::default();
        let mut browser = user("browser", "b");
        browser.connection_types = vec![ConnectionType::Websocket];
        options.access.users = vec![user("global", "g")];
        options.access.accounts = vec![
            Account { name: "A".into(), users: vec![user("a", "1"), browser], ..Account::default() },
            Account {
                name: "B".into(),
                users: vec![user("b", "$2a$04$abcdefghijklmnopqrstuv")],
                limits: AccountLimits { max_connections: Some(2), ..AccountLimits::default() },
                ..Account::default()
            },
        ];
        options.access.no_auth_user = Some("a".into());
        options.access.system_account = Some("B".into());
        let directory = Directory::new(&options);
        let names: Vec<_> = directory.accounts().iter().map(|account| (&*account.name, account.is_system)).collect();
        assert_eq!(names, [("$G", false), ("A", false), ("B", true)]);
        for (name, pass, expected) in [
            (Some("global"), Some("g"), "$G"),
            (Some("a"), Some("1"), "A"),
            (Some("a"), Some("2"), "denied"),
            (Some("b"), Some("x"), "undecided"),
            (Some("browser"), Some("b"), "denied"),
            (Some("nobody"), None, "denied"),
            (None, Some("1"), "denied"),
            (None, None, "A"),
        ] {
            assert_eq!(verdict(&directory, &connect(name, pass, None)), expected, "{name:?} {pass:?}");
        }
        let full = &directory.accounts()[2];
        assert!(full.enter() && full.enter() && !full.enter());
        full.leave();
        assert!(full.enter());
    }

    #[test]
    fn certificates_name_users() {
        let mut options = Options::default();
        options.access.users =
            ["al@example.com", "host.example.com", "CN=al,O=Example"].map(|name| user(name, "x")).into();
        options.tls = Some(TlsOptions { verify_and_map: true, ..TlsOptions::default() });
        let directory = Directory::new(&options);
        let names = |emails: &[&str], dns: &[&str], subject: &[(&str, &str)]| PeerNames {
            emails: emails.iter().map(ToString::to_string).collect(),
            dns: dns.iter().map(ToString::to_string).collect(),
            uris: Vec::new(),
            subject: Subject(subject.iter().map(|(kind, value)| vec![(kind.to_string(), value.to_string())]).collect()),
        };
        for (names, expected) in [
            (names(&["x@example.com", "al@example.com"], &["host.example.com"], &[]), Some("al@example.com")),
            (names(&["x@example.com"], &["host.example.com"], &[]), Some("host.example.com")),
            (names(&[], &[], &[("CN", "al"), ("O", "Example")]), Some("CN=al,O=Example")),
            (names(&[], &[], &[("O", "Example"), ("CN", "al")]), Some("CN=al,O=Example")),
            (names(&[], &[], &[("CN", "al")]), None),
        ] {
            let client = Client { certificate: Some(&names), ..CLIENT };
            let user = match directory.check(&connect(Some("other"), Some("x"), None), &client) {
                Answer::Granted(grant) => grant.user,
                _ => None,
            };
            assert_eq!(user.as_deref(), expected);
        }
    }
}
