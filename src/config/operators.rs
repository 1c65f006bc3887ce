//! Operators, the accounts they vouch for, and where the JWTs of accounts come from.
//!
//! Tokens are read and their signatures checked here; whom they let in is decided by [`crate::auth`].
#![forbid(unsafe_code)]

use nkeys::KeyPairType;

use super::accounts::Access;
use super::grammar::Value;
use super::schema::{Item, Key, Reading};
use super::{Secret, read};
use crate::jwt::claims::{Account, Operator, User};
use crate::jwt::{Token, is_key};
use crate::version::COMPATIBLE_WITH;

/// Operators and accounts. Without operators and trusted keys, tokens of clients do not count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operators {
    /// The operators.
    pub operators: Vec<Token<Operator>>,
    /// Public operator nkeys, instead of operators.
    pub trusted_keys: Vec<String>,
    /// Where accounts come from.
    pub resolver: Option<Resolver>,
    /// Accounts, each with the key under which it is listed.
    pub preload: Vec<(String, Token<Account>)>,
    /// The only accounts whose users may log in, by public nkey; all if empty.
    pub pinned_accounts: Vec<String>,
    /// The user JWT of clients that have none.
    pub default_sentinel: Option<Secret>,
}

/// Where the JWTs of accounts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// The configuration.
    Memory,
    /// A web server.
    Url,
    /// A directory, and other servers.
    Directory,
}

const RESOLVER: &[Key<()>] = &[
    Key::text(&["type"], "full", "full or cache", |(), _| Ok(())),
    Key::text(&["dir"], "\"/var/lib/leat/jwt\"", "Directory of the JWTs", |(), _| Ok(())),
    Key::boolean(&["allow_delete"], "false", "JWTs may be deleted by request", |(), _| ()),
    Key::boolean(&["hard_delete"], "false", "Deleted JWTs are not renamed but removed", |(), _| ()),
    Key::duration(&["interval"], "\"1m\"", "Time between comparisons with other servers", |(), _| ()),
    Key::duration(&["timeout"], "\"1900ms\"", "How long to wait for an answer", |(), _| ()),
    Key::duration(&["ttl"], "\"1h\"", "How long a JWT is kept in a cache", |(), _| ()),
    Key::integer(&["limit"], "1000", "JWTs that are kept", |(), _| Ok(())),
];

/// Reads `resolver`.
pub(super) fn resolver(item: &Item<'_>, reading: &mut Reading) -> Result<Resolver, String> {
    const WRONG: &str =
        "error parsing account resolver, should be MEM, URL(\"url\"), or a map with dir and type full or cache";
    match &item.node.value {
        Value::Text(text) => match text.trim().to_ascii_uppercase().as_str() {
            "MEM" | "MEMORY" => Ok(Resolver::Memory),
            url if url.starts_with("URL(") && url.ends_with(')') => Ok(Resolver::Url),
            _ => Err(WRONG.to_owned()),
        },
        Value::Map(map) => {
            reading.keys(map, RESOLVER, &mut ());
            let kind = map.entries().find(|(key, _)| key.eq_ignore_ascii_case("type"));
            let kind = kind.and_then(|(_, entry)| read::text(&entry.node).ok()).unwrap_or_default();
            match kind.to_ascii_lowercase().as_str() {
                "full" | "cache" => Ok(Resolver::Directory),
                "mem" | "memory" => Ok(Resolver::Memory),
                _ => Err(WRONG.to_owned()),
            }
        }
        other => Err(format!("expected {} to be a string or a map, got {}", item.key, other.kind())),
    }
}

/// Reads `resolver_preload`: public account nkeys and their JWTs.
pub(super) fn preload(item: &Item<'_>) -> Result<Vec<(String, Token<Account>)>, String> {
    let read = |(key, text): (String, String)| match Token::decode(&text) {
        Ok(token) => Ok((key, token)),
        Err(error) => Err(format!("invalid account JWT for \"{}\": {error}", key.escape_debug())),
    };
    read::map_of_texts(item.node)?.into_iter().map(read).collect()
}

/// Reads `operator`: JWTs, or files that hold one.
pub(super) fn operators(item: &Item<'_>) -> Result<Vec<Token<Operator>>, String> {
    let read = |text: &String| match read_operator(text) {
        Ok(operator) => Ok(operator),
        Err(what) => Err(format!("error parsing operator JWT: {what}")),
    };
    read::texts(item.node)?.iter().map(read).collect()
}

fn read_operator(text: &str) -> Result<Token<Operator>, String> {
    let content;
    let jwt = if looks_like_jwt(text) {
        text
    } else {
        content = std::fs::read_to_string(text).map_err(|error| format!("open {}: {error}", text.escape_debug()))?;
        let found = content.split_ascii_whitespace().find(|word| looks_like_jwt(word));
        found.ok_or_else(|| format!("there is none in {}", text.escape_debug()))?
    };
    Token::decode(jwt).map_err(|error| error.to_string())
}

/// Reads `trusted_keys`: public operator nkeys.
pub(super) fn trusted_keys(item: &Item<'_>) -> Result<Vec<String>, String> {
    let texts = read::texts(item.node)?;
    let check = |key: &str| {
        read::public_nkey(key, &KeyPairType::Operator, "an operator")
            .map_err(|_| format!("trust key \"{key}\" required to be a valid public operator nkey"))
    };
    texts.iter().flat_map(|text| text.split_ascii_whitespace()).map(check).collect()
}

fn looks_like_jwt(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.starts_with("ey") && text.split('.').count() == 3 && text.split('.').all(is_part)
}

impl Operators {
    /// Whether clients need the JWT of a user.
    #[must_use]
    pub fn are_asked(&self) -> bool {
        !self.operators.is_empty() || !self.trusted_keys.is_empty()
    }

    /// The keys whose signature makes an account trusted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let own = |operator: &Token<Operator>| !operator.claims.strict_signing_key_usage;
        let own = self.operators.iter().filter(move |operator| own(operator)).map(|operator| operator.subject.as_str());
        let signing = self.operators.iter().flat_map(|operator| &operator.claims.signing_keys);
        own.chain(signing.chain(&self.trusted_keys).map(String::as_str))
    }

    /// The system account that a single operator names.
    pub(super) fn system_account(&self) -> Option<&str> {
        let [only] = self.operators.as_slice() else { return None };
        Some(only.claims.system_account.as_str()).filter(|key| !key.is_empty())
    }

    /// What is allowed but unwise.
    pub(super) fn advice(&self, access: &Access) -> Option<String> {
        let lacks = !self.operators.is_empty() && access.system_account().is_none();
        lacks.then(|| "Trusted Operators should utilize a System Account".to_owned())
    }

    /// Why a server with these must not start. Where the reference has words for it, they are its own.
    pub(super) fn errors(&self, access: &Access) -> Vec<String> {
        let mut errors = Vec::new();
        if matches!(self.resolver, Some(Resolver::Url | Resolver::Directory)) {
            errors
                .push("this version resolves accounts from resolver_preload only: the resolver must be MEMORY".into());
        }
        let callouts = self.preload.iter().filter(|(_, token)| !token.claims.authorization.auth_users.is_empty());
        errors.extend(callouts.map(|(key, _)| {
            format!(
                "this version cannot enforce auth_callout, and does not start without it: account {key} asks for it"
            )
        }));
        if self.operators.is_empty() {
            if self.default_sentinel.is_some() {
                errors.push("default sentinel requires operators and accounts".into());
            }
            return errors;
        }
        match self.default_sentinel.as_ref().map(|jwt| Token::<User>::decode(jwt.expose())) {
            Some(Err(_)) => errors.push("default sentinel JWT not valid".into()),
            Some(Ok(user)) if !user.claims.rules.bearer_token => {
                errors.push("default sentinel must be a bearer token".into());
            }
            _ => {}
        }
        if self.resolver.is_none() {
            errors.push("operators require an account resolver to be configured".into());
        }
        if !access.accounts.is_empty() {
            errors.push("operators do not allow Accounts to be configured directly".into());
        }
        if !access.users.is_empty() {
            errors.push("operators do not allow users to be configured directly".into());
        }
        if access.no_auth_user.is_some() {
            errors.push("no_auth_user not compatible with Trusted Operator".into());
        }
        if !self.trusted_keys.is_empty() {
            errors.push("conflicting options for 'TrustedKeys' and 'TrustedOperators'".into());
        }
        errors.extend(self.system_account_error(access));
        errors.extend(self.operators.iter().filter_map(version_error));
        let is_operator = |key: &&str| is_key(key, &KeyPairType::Operator);
        errors.extend(self.keys().filter(|key| !is_operator(key)).map(|key| {
            format!("trusted Keys \"{}\" are required to be a valid public operator nkey", key.escape_debug())
        }));
        let pinned = self.pinned_accounts.iter().filter(|key| !is_key(key, &KeyPairType::Account));
        errors
            .extend(pinned.map(|key| {
                format!("pinned account key \"{}\" is not a valid public account nkey", key.escape_debug())
            }));
        errors
    }

    fn system_account_error(&self, access: &Access) -> Option<String> {
        let name = access.system_account()?;
        let mut named = self.operators.iter().map(|operator| operator.claims.system_account.as_str());
        if named.clone().any(|own| !own.is_empty()) && !named.any(|own| own == name) {
            return Some("system_account in config and operator JWT must be identical".into());
        }
        match self.preload.iter().find(|(key, _)| key == name) {
            None => Some("error resolving system account: account missing".into()),
            Some((_, token)) if token.subject != name || !self.keys().any(|key| key == token.issuer) => {
                Some("error resolving system account: account validation failed".into())
            }
            Some(_) => None,
        }
    }
}

/// Whether the operator wants a later server than this one is as good as.
fn version_error(operator: &Token<Operator>) -> Option<String> {
    let (subject, wanted) = (&operator.subject, operator.claims.assert_server_version.as_str());
    if wanted.is_empty() {
        return None;
    }
    let numbers = |text: &str| -> Option<[u64; 3]> {
        let numbers: Vec<u64> = text.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        numbers.try_into().ok()
    };
    let Some((wants, has)) = numbers(wanted).zip(numbers(COMPATIBLE_WITH)) else {
        return Some(format!(
            "operator {subject} expects version {} got error instead: asserted server version must be of the form \
             <major>.<minor>.<update>",
            wanted.escape_debug()
        ));
    };
    let differ = ["major", "minor", "update"].into_iter().zip(wants.into_iter().zip(has)).find(|(_, (a, b))| a != b);
    match differ {
        Some((what, (wants, has))) if wants > has => {
            Some(format!("operator {subject} expected {what} version {wants} > server {what} version {has}"))
        }
        _ => None,
    }
}
