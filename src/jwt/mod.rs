//! Tokens by which operators vouch for accounts, and accounts for users: JWTs that are signed with nkeys.
//!
//! A token is three parts of base64url with points between them: a header, the claims, and an Ed25519 signature over
//! both by the key that the claims name as their issuer. Whoever has a [`Token`] knows that this issuer said so;
//! whether the issuer is to be trusted, and whether the token is in force, is decided elsewhere ([`crate::auth`]).
//! Checking a signature takes about as long as a shard's turn, so no shard does it.
#![forbid(unsafe_code)]

pub mod claims;
mod template;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use nkeys::{KeyPair, KeyPairType};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use template::{Values, expand};

/// Longer tokens are refused unread. Those of clients are bounded by `max_control_line` before.
pub const TOKEN_BYTES_MAX: usize = 1 << 20;
/// The version of the claims' layout.
const VERSION: i64 = 2;

/// Claims of one kind, `nats` in the document of a token.
pub trait Claims: DeserializeOwned {
    /// What `type` says.
    const KIND: &'static str;
    /// Whose key the subject is.
    const SUBJECT: KeyPairType;
    /// Whose keys may sign.
    const ISSUERS: &'static [KeyPairType];
}

/// A token whose signature fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Token<C> {
    /// Public key of whoever has signed.
    pub issuer: String,
    /// Public key of whom the token is about.
    pub subject: String,
    /// A name for people.
    pub name: String,
    /// Labels such as `team:blue`.
    pub tags: Vec<String>,
    /// When it was issued, seconds since 1970.
    pub issued_at: i64,
    /// Seconds since 1970; before, it is not in force.
    pub not_before: Option<i64>,
    /// Seconds since 1970; then it has expired.
    pub expires: Option<i64>,
    /// What is claimed.
    pub claims: C,
}

#[derive(Deserialize)]
struct Header {
    typ: String,
    alg: String,
}

/// The claims that all kinds have in common.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    iss: String,
    sub: String,
    name: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    nats: Map<String, Value>,
}

/// Why a text is no token that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    TooLong,
    /// A part that cannot be read.
    Malformed(&'static str),
    /// Another type or algorithm than that of nkeys.
    Algorithm,
    /// Claims in a layout of another version.
    Version,
    /// Claims about something else.
    Kind(&'static str),
    /// A subject or an issuer that is not a key of the kind it has to be.
    Key(&'static str),
    /// The issuer has not signed this.
    Signature,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the JWT is longer than {TOKEN_BYTES_MAX} bytes"),
            Self::Malformed(part) => write!(f, "the {part} of the JWT cannot be read"),
            Self::Algorithm => f.write_str("the JWT is of another type or algorithm than ed25519-nkey"),
            Self::Version => write!(f, "the claims of the JWT are not of version {VERSION}"),
            Self::Kind(expected) => write!(f, "the JWT is not about {expected}"),
            Self::Key(whose) => write!(f, "the {whose} of the JWT is not a public key of the right kind"),
            Self::Signature => f.write_str("the signature of the JWT does not fit"),
        }
    }
}

impl std::error::Error for TokenError {}

impl<C: Claims> Token<C> {
    /// Reads a token and checks its signature.
    ///
    /// # Errors
    /// Whatever is wrong with it; a token that is merely not in force is good.
    pub fn decode(text: &str) -> Result<Self, TokenError> {
        let text = text.trim_end_matches(['\r', '\n']);
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed("text"))?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed("text"))?;
        let header: Header = json(header, "header")?;
        let is_known = ["ed25519-nkey", "ed25519"].iter().any(|known| header.alg.eq_ignore_ascii_case(known));
        if !header.typ.eq_ignore_ascii_case("jwt") || !is_known {
            return Err(TokenError::Algorithm);
        }
        let mut claims: Value = json(claims, "payload")?;
        drop_nulls(&mut claims);
        let unreadable = |_| TokenError::Malformed("payload");
        let document: Document = serde_json::from_value(claims).map_err(unreadable)?;
        let signature = decode_base64(signature, "signature")?;
        let issuer = key(&document.iss, C::ISSUERS, "issuer")?;
        issuer.verify(signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
        key(&document.sub, &[C::SUBJECT], "subject")?;

        let Document { iss, sub, name, iat, nbf, exp, mut nats } = document;
        if nats.get("version").and_then(Value::as_i64) != Some(VERSION) {
            return Err(TokenError::Version);
        }
        if nats.get("type").and_then(Value::as_str) != Some(C::KIND) {
            return Err(TokenError::Kind(C::KIND));
        }
        let tags = nats.remove("tags").map(serde_json::from_value).transpose().map_err(unreadable)?;
        Ok(Self {
            issuer: iss,
            subject: sub,
            name,
            tags: tags.unwrap_or_default(),
            issued_at: iat,
            not_before: (nbf > 0).then_some(nbf),
            expires: (exp != 0).then_some(exp),
            claims: serde_json::from_value(Value::Object(nats)).map_err(unreadable)?,
        })
    }

    /// Whether it is in force at `now`, seconds since 1970.
    #[must_use]
    pub fn is_in_force(&self, now: i64) -> bool {
        self.expires.is_none_or(|expires| now < expires) && self.not_before.is_none_or(|begin| begin <= now)
    }

    /// When it begins or ceases to be in force next, seconds since 1970.
    #[must_use]
    pub fn next_change(&self, now: i64) -> Option<i64> {
        [self.not_before, self.expires].into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// Seconds since 1970.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The moment that `seconds` since 1970 name; the end of time if it is not within reach.
#[must_use]
pub fn moment(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// A public key of one of `kinds`.
fn key(text: &str, kinds: &[KeyPairType], whose: &'static str) -> Result<KeyPair, TokenError> {
    let key = KeyPair::from_public_key(text).ok().filter(|key| kinds.contains(&key.key_pair_type()));
    key.ok_or(TokenError::Key(whose))
}

/// Whether `text` is a public key of this kind.
#[must_use]
pub fn is_key(text: &str, kind: &KeyPairType) -> bool {
    key(text, std::slice::from_ref(kind), "key").is_ok()
}

fn decode_base64(text: &str, part: &'static str) -> Result<Vec<u8>, TokenError> {
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| TokenError::Malformed(part))
}

fn json<T: DeserializeOwned>(text: &str, part: &'static str) -> Result<T, TokenError> {
    serde_json::from_slice(&decode_base64(text, part)?).map_err(|_| TokenError::Malformed(part))
}

/// Removes members without a value: issuers write what is empty in either way. The depth is bounded by the parser.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
