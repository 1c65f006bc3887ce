//! Clients that are there when another directory takes over.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::SystemTime;

use super::directory::{Directory, SharedSecret, User};
use super::grant::{Basis, Grant, Reason, Unasked};
use super::user_token::TokenUser;
use super::verify::equal;
use crate::config::Secret;
use crate::config::authorization::{ConnectionType, Identity};
use crate::jwt::unix_seconds;
use crate::wire::errors::Lapse;

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

impl Directory {
    /// What becomes of a client that another directory has let in. Nobody has to prove anything again: who was somebody
    /// stays that as long as the configuration says the same of him.
    #[must_use]
    pub fn review(&self, basis: &Basis, account: u32, kind: ConnectionType) -> Review {
        let stays = |grant: Grant| if grant.account == account { Review::Stays(grant) } else { Review::Gone };
        match &basis.0 {
            Reason::Token(user) => self.review_token(user, SystemTime::now()),
            Reason::Open(unasked) if self.is_required(kind) => match unasked.as_deref() {
                Some(unasked) => self.review_unasked(unasked, account, kind),
                None => Review::Denied,
            },
            Reason::Open(_) => stays(Grant::open(basis.0.clone())),
            Reason::NoCredentials => self.without_connect(kind).map_or(Review::Gone, stays),
            Reason::Shared(known) if self.door(kind).shared.as_ref() == Some(known) => {
                stays(Grant::open(basis.0.clone()))
            }
            Reason::Shared(known) => match &**known {
                SharedSecret::User(user, password) => {
                    review_user(self.users.get(user), account, kind, |user| user.secret() == *password)
                }
                SharedSecret::Token(_) if self.is_required(kind) => Review::Denied,
                SharedSecret::Token(_) => stays(Grant::open(Reason::Open(None))),
            },
            Reason::User(known) => {
                let found = match &known.identity {
                    Identity::Password { user, .. } => self.users.get(user),
                    Identity::Nkey(key) => self.nkeys.get(key),
                };
                review_user(found, account, kind, |user| user.password == known.password)
            }
        }
    }

    /// Looks whether what a client has given unasked is what is asked for now. Hashes and signatures are not computed
    /// here: whoever would need that has to log in again.
    fn review_unasked(&self, unasked: &Unasked, account: u32, kind: ConnectionType) -> Review {
        let is_known = |secret: &Secret, given: &Secret| !secret.is_bcrypt() && equal(secret.expose(), given.expose());
        match (&unasked.nkey, &unasked.user) {
            (Some(nkey), _) => review_user(self.nkeys.get(nkey), account, kind, |_| false),
            (None, Some(user)) => {
                review_user(self.users.get(user), account, kind, |user| is_known(&user.secret(), &unasked.pass))
            }
            (None, None) => {
                let knows = |shared: &SharedSecret| match (shared, &unasked.token) {
                    (SharedSecret::Token(token), Some(given)) => is_known(token, given),
                    _ => false,
                };
                let shared = self.door(kind).shared.as_ref().filter(|shared| knows(shared));
                shared.map_or(Review::Denied, |shared| Review::Stays(Grant::open(Reason::Shared(shared.clone()))))
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
}

/// What becomes of a client that was, or would be, a user whom the new directory has `found`; `is_proven`: what is
/// known of the client proves that it is he.
fn review_user(
    found: Option<&Arc<User>>,
    account: u32,
    kind: ConnectionType,
    is_proven: impl FnOnce(&User) -> bool,
) -> Review {
    match found {
        Some(user) if user.account != account => Review::Gone,
        Some(user) if is_proven(user) && user.may_use(kind) => Review::Stays(Grant::to_user(user)),
        Some(_) => Review::Denied,
        None => Review::Gone,
    }
}
