//! What a client may be, and why.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::directory::{SharedSecret, User};
use super::permissions::Permissions;
use super::trust::TrustedAccount;
use super::user_token::{TokenUser, UserLimits};
use crate::config::Secret;
use crate::config::authorization::Identity;
use crate::wire::connect::{Claim, Connect};

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
#[derive(Clone, Debug)]
pub struct Basis(pub(super) Reason);

#[derive(Clone, Debug)]
pub(super) enum Reason {
    /// Nothing is asked for; what the client has given all the same.
    Open(Option<Arc<Unasked>>),
    /// It knows what all clients know.
    Shared(Arc<SharedSecret>),
    /// It has proved to be this user.
    User(Arc<User>),
    /// It has come without credentials, where that is allowed.
    NoCredentials,
    /// It has a token.
    Token(Arc<TokenUser>),
}

/// Credentials that nobody has asked for. They count when a reload asks for some.
#[derive(Debug)]
pub(super) struct Unasked {
    pub(super) user: Option<String>,
    pub(super) pass: Secret,
    pub(super) nkey: Option<String>,
    pub(super) token: Option<Secret>,
}

impl Unasked {
    /// Of a CONNECT, if it has any.
    pub(super) fn of(connect: &Connect) -> Option<Arc<Self>> {
        let text = |field: &Option<String>| field.as_deref().map(Secret::new);
        connect.has_credentials().then(|| {
            Arc::new(Self {
                user: connect.user.clone(),
                pass: text(&connect.pass).unwrap_or_else(|| Secret::new("")),
                nkey: connect.nkey.clone(),
                token: text(&connect.auth_token),
            })
        })
    }
}

impl Default for Basis {
    fn default() -> Self {
        Self(Reason::Open(None))
    }
}

impl Basis {
    /// Whom the client has proved to be.
    #[must_use]
    pub fn claim(&self) -> Option<Claim<'_>> {
        match &self.0 {
            Reason::Open(_) | Reason::NoCredentials => None,
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

    /// What a user of the configuration may be.
    pub(super) fn to_user(user: &Arc<User>) -> Self {
        let basis = Basis(Reason::User(user.clone()));
        Self { account: user.account, permissions: user.permissions.clone(), user: None, basis }
    }

    /// A client of the default account that may do everything.
    pub(super) fn open(reason: Reason) -> Self {
        Self { account: 0, permissions: None, user: None, basis: Basis(reason) }
    }
}
