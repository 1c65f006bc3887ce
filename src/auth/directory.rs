//! Everybody who may connect, and the accounts they belong to.
//!
//! A [`Directory`] is made of the configuration and never changes; all shards share it. Accounts are numbered: the
//! number is what connections, interest and messages between shards carry. When the configuration is read again a new
//! directory [follows](Directory::successor), in which accounts keep their numbers. The number of an account that is gone
//! names no other one, since something of it may still be on its way.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use super::crossings::Crossings;
use super::mapping::Mappings;
use super::permissions::Permissions;
use super::trust::{Trust, TrustedAccount};
use super::user_token::{Presented, TokenUser, UserLimits};
use super::verify::{Check, Proof, Task, equal};
use crate::config::accounts::{Account, AccountLimits};
use crate::config::authorization::{ConnectionType, Identity, User as ConfiguredUser};
use crate::config::permissions as config;
use crate::config::tls::TlsOptions;
use crate::config::{Options, Secret};
use crate::jwt::{moment, unix_seconds};
use crate::tls::PeerNames;
use crate::wire::connect::{Claim, Connect};
use crate::wire::errors::Lapse;

/// The account of whoever belongs to no other.
pub const DEFAULT_ACCOUNT: &str = "$G";
const SYSTEM_ACCOUNT: &str = "$SYS";

/// Users, accounts, and how clients identify themselves.
#[derive(Debug)]
pub struct Directory {
    /// How many came before this one.
    version: u64,
    accounts: Vec<AccountFacts>,
    users: HashMap<String, Arc<User>>,
    nkeys: HashMap<String, Arc<User>>,
    /// What the listener for clients asks for.
    clients: Door,
    /// What the one for WebSocket asks for.
    websocket: Door,
    /// Accounts whose users have tokens. If there is this, nobody else may log in.
    trust: Option<Arc<Trust>>,
}

/// What clients of one listener have to show.
#[derive(Clone, Debug, Default)]
struct Door {
    /// Credentials that all clients share, where there are no users.
    shared: Option<Arc<SharedSecret>>,
    /// Users by the distinguished names that they are named after, where certificates say who a client is.
    by_subject: Option<HashMap<Vec<String>, String>>,
    /// Who comes without credentials.
    no_auth_user: Option<Arc<User>>,
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

#[derive(Debug)]
struct User {
    identity: Identity,
    account: u32,
    password: Option<Secret>,
    permissions: Option<Arc<Permissions>>,
    /// All if empty.
    kinds: Vec<ConnectionType>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SharedSecret {
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

/// What a client may be from now on.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Number of its account.
    pub account: u32,
    /// What it may do; everything if absent.
    pub permissions: Option<Arc<Permissions>>,
    /// Who it is, where that is not what it has said.
    pub user: Option<String>,
    /// What this rests on.
    pub basis: Basis,
}

/// Why a client is what it is: what is looked at again when another directory takes over.
#[derive(Clone, Debug, Default)]
pub struct Basis(Reason);

#[derive(Clone, Debug, Default)]
enum Reason {
    /// Nothing is asked for.
    #[default]
    Open,
    /// It knows what all clients know.
    Shared(Arc<SharedSecret>),
    /// It has proved to be this user.
    User(Arc<User>),
    /// It has come without credentials, where that is allowed.
    NoCredentials,
    /// It has a token.
    Token(Arc<TokenUser>),
}

/// What becomes of a client when another directory takes over.
#[derive(Debug)]
pub enum Review {
    /// It is this now.
    Stays(Grant),
    /// Its credentials do not fit any more.
    Denied,
    /// Its user is gone, or belongs to another account.
    Gone,
    /// Its token has lost its force.
    Lapsed(Lapse),
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
    /// Where the connection comes from.
    pub ip: IpAddr,
}

impl Basis {
    /// Whom the client has proved to be.
    #[must_use]
    pub fn claim(&self) -> Option<Claim<'_>> {
        match &self.0 {
            Reason::Open | Reason::NoCredentials => None,
            Reason::Token(user) => Some(Claim::Jwt(&user.subject)),
            Reason::Shared(shared) => Some(match &**shared {
                SharedSecret::User(user, _) => Claim::User(user),
                SharedSecret::Token(_) => Claim::Token,
            }),
            Reason::User(user) => Some(match &user.identity {
                Identity::Password { user, .. } => Claim::User(user),
                Identity::Nkey(key) => Claim::Nkey(key),
            }),
        }
    }
}

impl Basis {
    /// The user that a token has proved.
    #[must_use]
    pub fn token_user(&self) -> Option<&Arc<TokenUser>> {
        match &self.0 {
            Reason::Token(user) => Some(user),
            _ => None,
        }
    }

    /// Limits of the connection beside those of its account.
    #[must_use]
    pub fn limits(&self) -> UserLimits {
        self.token_user().map(|user| user.limits).unwrap_or_default()
    }
}

impl Grant {
    /// What a user with a token may be in an account that knows the issuer.
    pub(super) fn to_token_user(user: Arc<TokenUser>, account: &TrustedAccount) -> Self {
        Self {
            account: account.number,
            permissions: user.permissions.clone().or_else(|| account.default_permissions.clone()),
            user: Some(user.subject.clone()),
            basis: Basis(Reason::Token(user)),
        }
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
        directory.number(DEFAULT_ACCOUNT);
        directory.add_users(0, &access.users, access.default_permissions.as_ref());
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

    fn door(&self, kind: ConnectionType) -> &Door {
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
        let operators = Some(&options.access.operators).filter(|operators| operators.are_asked())?;
        let now = unix_seconds(SystemTime::now());
        let (trust, accounts) = Trust::new(operators, now, |name| self.number(name));
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
            Some(user) => Some(Grant { basis: Basis(Reason::NoCredentials), ..grant(user) }),
            None if self.is_required(kind) => None,
            None => Some(open(Reason::Open)),
        }
    }

    /// Whether INFO has to carry a nonce.
    #[must_use]
    pub fn needs_nonce(&self) -> bool {
        !self.nkeys.is_empty() || self.trust.is_some()
    }

    fn has_users(&self) -> bool {
        !self.users.is_empty() || !self.nkeys.is_empty()
    }

    /// Judges the credentials of a CONNECT. Says nothing of which part was wrong.
    #[must_use]
    pub fn check(&self, connect: &Connect, client: &Client<'_>) -> Answer {
        let given = |field: &Option<String>| field.clone().unwrap_or_default();
        if let Some(trust) = &self.trust {
            return check_token(trust, connect, client);
        }
        if self.has_users() {
            if let (Some(by_subject), Some(names)) = (&self.door(client.kind).by_subject, client.certificate) {
                return self.check_certificate(by_subject, names, connect, client.kind);
            }
            return match connect.nkey.as_deref().filter(|nkey| !nkey.is_empty() && self.needs_nonce()) {
                Some(nkey) => self.check_nkey(nkey, connect, client),
                None => self.check_user(connect, client),
            };
        }
        let Some(shared) = &self.door(client.kind).shared else { return Answer::Granted(open(Reason::Open)) };
        let grant = open(Reason::Shared(shared.clone()));
        match &**shared {
            SharedSecret::Token(token) => judge(grant, token, given(&connect.auth_token)),
            SharedSecret::User(user, password) => {
                if equal(user, &given(&connect.user)) {
                    judge(grant, password, given(&connect.pass))
                } else {
                    Answer::Denied
                }
            }
        }
    }

    /// The first name of a certificate that is a user's says who the client is: e-mail addresses, DNS names, URIs, and
    /// then the subject. The certificate has been verified; a user with a password has to give that too.
    fn check_certificate(
        &self,
        by_subject: &HashMap<Vec<String>, String>,
        names: &PeerNames,
        connect: &Connect,
        kind: ConnectionType,
    ) -> Answer {
        let alternative = names.emails.iter().chain(&names.dns).chain(&names.uris);
        let subject = by_subject.get(&relative_names(&names.subject.to_string()));
        for name in alternative.chain(subject) {
            if let Some(user) = self.users.get(name).filter(|user| user.may_use(kind)) {
                let granted = Grant { user: Some(name.clone()), ..grant(user) };
                let password = user.password.clone().unwrap_or_else(|| Secret::new(""));
                return judge(granted, &password, connect.pass.clone().unwrap_or_default());
            }
        }
        Answer::Denied
    }

    /// What becomes of a client that another directory has let in. Nobody has to prove anything again: who was somebody
    /// stays that as long as the configuration says the same of him.
    #[must_use]
    pub fn review(&self, basis: &Basis, account: u32, kind: ConnectionType) -> Review {
        let stays = |grant: Grant| if grant.account == account { Review::Stays(grant) } else { Review::Gone };
        match &basis.0 {
            Reason::Token(user) => self.review_token(user, SystemTime::now()),
            Reason::Open if self.is_required(kind) => Review::Denied,
            Reason::Open => stays(open(Reason::Open)),
            Reason::NoCredentials => self.without_connect(kind).map_or(Review::Gone, stays),
            Reason::Shared(known) if self.door(kind).shared.as_ref() == Some(known) => stays(open(basis.0.clone())),
            Reason::Shared(known) => match **known {
                SharedSecret::User(..) => Review::Gone,
                SharedSecret::Token(_) if self.is_required(kind) => Review::Denied,
                SharedSecret::Token(_) => stays(open(Reason::Open)),
            },
            Reason::User(known) => {
                let found = match &known.identity {
                    Identity::Password { user, .. } => self.users.get(user),
                    Identity::Nkey(key) => self.nkeys.get(key),
                };
                match found {
                    Some(user) if user.account != account => Review::Gone,
                    Some(user) if user.password == known.password && user.may_use(kind) => stays(grant(user)),
                    Some(_) => Review::Denied,
                    None => Review::Gone,
                }
            }
        }
    }

    /// Looks at what may have changed since a user was let in: the account and what it says of the user.
    fn review_token(&self, user: &Arc<TokenUser>, now: SystemTime) -> Review {
        let Some(account) = self.trust.as_ref().and_then(|trust| trust.account(&user.account)) else {
            return Review::Denied;
        };
        let now = unix_seconds(now);
        match account.signer_by_key(&user.issuer) {
            _ if account.has_expired(now) => Review::Lapsed(Lapse::Account),
            _ if account.has_revoked(&user.subject, user.issued_at) => Review::Lapsed(Lapse::Revoked),
            Some(scope) if *scope == user.scope => {
                let is_refused = !account.is_in_force(now) || (user.is_bearer && account.refuses_bearers);
                if is_refused { Review::Denied } else { Review::Stays(Grant::to_token_user(user.clone(), account)) }
            }
            _ => Review::Lapsed(Lapse::Signer),
        }
    }

    fn check_nkey(&self, nkey: &str, connect: &Connect, client: &Client<'_>) -> Answer {
        let Some(user) = self.nkeys.get(nkey).filter(|user| user.may_use(client.kind)) else { return Answer::Denied };
        let signature = connect.sig.clone().unwrap_or_default();
        let proof = Proof::Signature { nkey: nkey.to_owned(), nonce: client.nonce.to_owned(), signature };
        Answer::Undecided(Check(Task::Proof(grant(user), proof)))
    }

    fn check_user(&self, connect: &Connect, client: &Client<'_>) -> Answer {
        let name = connect.user.as_deref().unwrap_or_default();
        if name.is_empty()
            && !connect.has_credentials()
            && let Some(user) = &self.door(client.kind).no_auth_user
        {
            let granted = Grant { basis: Basis(Reason::NoCredentials), ..grant(user) };
            return if user.may_use(client.kind) { Answer::Granted(granted) } else { Answer::Denied };
        }
        let Some(user) = self.users.get(name).filter(|user| user.may_use(client.kind)) else { return Answer::Denied };
        let password = user.password.clone().unwrap_or_else(|| Secret::new(""));
        judge(grant(user), &password, connect.pass.clone().unwrap_or_default())
    }
}

/// A token is judged elsewhere, with all that has to fit it.
fn check_token(trust: &Arc<Trust>, connect: &Connect, client: &Client<'_>) -> Answer {
    let (jwt, is_sentinel) = match (&connect.jwt, &trust.sentinel) {
        (Some(jwt), _) => (jwt.as_str(), false),
        (None, Some(sentinel)) => (sentinel.expose(), true),
        (None, None) => return Answer::Denied,
    };
    Answer::Undecided(Check(Task::Token(Box::new(Presented {
        trust: trust.clone(),
        jwt: jwt.to_owned(),
        is_sentinel,
        nonce: client.nonce.to_owned(),
        signature: connect.sig.clone().unwrap_or_default(),
        kind: client.kind,
        ip: client.ip,
    }))))
}

fn judge(grant: Grant, secret: &Secret, given: String) -> Answer {
    if secret.is_bcrypt() {
        let proof = Proof::Password { hash: secret.expose().to_owned(), given: Secret::new(given) };
        return Answer::Undecided(Check(Task::Proof(grant, proof)));
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

/// What a user may be.
fn grant(user: &Arc<User>) -> Grant {
    let basis = Basis(Reason::User(user.clone()));
    Grant { account: user.account, permissions: user.permissions.clone(), user: None, basis }
}

/// A client of the default account that may do everything.
fn open(reason: Reason) -> Grant {
    Grant { account: 0, permissions: None, user: None, basis: Basis(reason) }
}

impl User {
    fn may_use(&self, kind: ConnectionType) -> bool {
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
mod tests {
    use super::*;
    use crate::tls::Subject;

    const CLIENT: Client<'static> = Client {
        kind: ConnectionType::Standard,
        nonce: "",
        certificate: None,
        ip: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    };

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
        let kind = CLIENT.kind;
        assert!(
            !open.is_required(kind) && open.without_connect(kind).is_some() && token.without_connect(kind).is_none()
        );
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
    /// What `new` makes of somebody who has logged in at `old`.
    fn review(old: &Options, new: &Options, connect: &Connect) -> String {
        let old = Directory::new(old);
        let Answer::Granted(grant) = old.check(connect, &CLIENT) else { panic!("the login is good") };
        let new = old.successor(new);
        match new.review(&grant.basis, grant.account, CLIENT.kind) {
            Review::Stays(grant) => format!("{:?}", new.accounts()[grant.account as usize].name),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn another_directory_takes_over() {
        let open = Options::default();
        let with = |user: Option<&str>, pass: Option<&str>, token: Option<&str>| Options {
            user: user.map(Into::into),
            pass: pass.map(Secret::new),
            auth_token: token.map(Secret::new),
            ..Options::default()
        };
        let (single, single2) = (with(Some("u"), Some("1"), None), with(Some("u"), Some("2"), None));
        let (token, token2) = (with(None, None, Some("t")), with(None, None, Some("t2")));
        let in_account = |name: &str, users: &[ConfiguredUser]| {
            let mut options = Options::default();
            options.access.accounts = vec![
                Account { name: "other".into(), users: vec![user("o", "o")], ..Account::default() },
                Account { name: name.into(), users: users.to_vec(), ..Account::default() },
            ];
            options
        };
        let mut web = user("u", "1");
        web.connection_types = vec![ConnectionType::Websocket];
        let a = in_account("A", &[user("u", "1")]);
        let (by_name, by_token, as_nobody) =
            (connect(Some("u"), Some("1"), None), connect(None, None, Some("t")), connect(None, None, None));
        for (old, new, connect, expected) in [
            (&open, &open, &as_nobody, "\"$G\""),
            (&open, &token, &as_nobody, "Denied"),
            (&token, &token, &by_token, "\"$G\""),
            (&token, &token2, &by_token, "Denied"),
            (&token, &single, &by_token, "Denied"),
            (&token, &open, &by_token, "\"$G\""),
            (&single, &single, &by_name, "\"$G\""),
            (&single, &single2, &by_name, "Gone"),
            (&single, &open, &by_name, "Gone"),
            (&a, &a, &by_name, "\"A\""),
            (&a, &in_account("A", &[user("u", "1"), user("v", "1")]), &by_name, "\"A\""),
            (&a, &in_account("A", &[user("u", "2")]), &by_name, "Denied"),
            (&a, &in_account("A", &[web]), &by_name, "Denied"),
            (&a, &in_account("A", &[user("v", "1")]), &by_name, "Gone"),
            (&a, &in_account("B", &[user("u", "1")]), &by_name, "Gone"),
            (&a, &open, &by_name, "Gone"),
        ] {
            assert_eq!(review(old, new, connect), expected, "{old:?} to {new:?}");
        }
    }

    /// Accounts keep their numbers and their clients, and a number never names another account.
    #[test]
    fn numbers_of_accounts_last() {
        let of = |names: &[&str]| {
            let mut options = Options::default();
            let account = |name: &&str| Account {
                name: (*name).into(),
                limits: AccountLimits { max_connections: Some(1), ..AccountLimits::default() },
                ..Account::default()
            };
            options.access.accounts = names.iter().map(account).collect();
            options
        };
        let names = |directory: &Directory| -> Vec<String> {
            directory.accounts().iter().map(|account| account.name.to_string()).collect()
        };
        let first = Directory::new(&of(&["A", "B"]));
        assert_eq!(names(&first), ["$G", "A", "B", "$SYS"]);
        assert!(first.accounts()[2].enter());
        let second = first.successor(&of(&["C", "B"]));
        assert_eq!(names(&second), ["$G", "A", "B", "$SYS", "C"]);
        assert!(second.accounts()[3].is_system && !second.accounts()[2].enter());
        assert_eq!(second.accounts()[1].limits, AccountLimits::default());
        second.accounts()[2].leave();
        assert!(first.accounts()[2].enter());
        let third = second.successor(&of(&["D", "A"]));
        assert_eq!(names(&third), ["$G", "A", "B", "$SYS", "C", "D"]);
        assert_eq!(third.version(), 2);
    }
}
