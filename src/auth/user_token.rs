//! Logins with the JWT of a user.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::grant::Grant;
use super::permissions::Permissions;
use super::schedule;
use super::trust::{Trust, TrustedAccount};
use super::verify::holds_signature;
use crate::config;
use crate::config::authorization::ConnectionType;
use crate::config::claims;
use crate::jwt::claims::{Permissions as PermissionClaims, User, UserRules};
use crate::jwt::{self, Token, Values, moment, unix_seconds};

/// A token that a client has presented, and what it is judged by.
#[derive(Debug)]
pub(super) struct Presented {
    pub(super) trust: Arc<Trust>,
    pub(super) jwt: String,
    /// The token is not the client's: everybody without one gets it.
    pub(super) is_sentinel: bool,
    pub(super) nonce: String,
    /// Signature of the nonce, base64 in either of its alphabets.
    pub(super) signature: String,
    pub(super) kind: ConnectionType,
    /// Where the connection comes from.
    pub(super) ip: IpAddr,
}

/// A user that a token has proved.
#[derive(Debug)]
pub struct TokenUser {
    /// The token, unless everybody has it.
    pub jwt: String,
    /// Public key of the user.
    pub subject: String,
    /// Tags of the user.
    pub tags: Vec<String>,
    /// Public key of whoever has signed the token.
    pub issuer: String,
    /// Public key of the account.
    pub account: String,
    /// Seconds since 1970.
    pub(super) issued_at: i64,
    pub(super) is_bearer: bool,
    /// What the issuer gives to all its users, if that is fixed.
    pub(super) scope: Option<Arc<UserRules>>,
    /// Permissions that are not the account's defaults.
    pub(super) permissions: Option<Arc<Permissions>>,
    /// Limits of the connection.
    pub limits: UserLimits,
    /// When the connection has to end.
    pub expires: Option<SystemTime>,
}

/// Limits of one connection beside those of its account; no limit where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimits {
    /// Subscriptions.
    pub max_subscriptions: Option<usize>,
    /// Largest message.
    pub max_payload: Option<usize>,
}

impl Presented {
    /// What the token lets the client be at `now`.
    ///
    /// # Errors
    /// Why it lets the client be nothing. Not for the client.
    pub(super) fn decide(self, now: SystemTime) -> Result<Grant, String> {
        let refusal = |what: &str| Err(what.to_owned());
        let token = Token::<User>::decode(&self.jwt).map_err(|error| error.to_string())?;
        let seconds = unix_seconds(now);
        if !token.is_in_force(seconds) {
            return refusal("the JWT has expired or is not yet valid");
        }
        let key = Some(&token.claims.issuer_account).filter(|key| !key.is_empty()).unwrap_or(&token.issuer);
        let Some(account) = self.trust.account(key) else { return refusal("the account is not known") };
        let Some(scope) = account.signer(&token) else { return refusal("the account does not know the issuer") };
        let rules = match scope {
            None => token.claims.rules.clone(),
            Some(_) if token.claims.rules != UserRules::default() => {
                return refusal("the issuer gives permissions and limits to its users, so the JWT must have none");
            }
            Some(template) => scoped(template, &token, key, account)?,
        };
        if !account.is_in_force(seconds) {
            return refusal("the account has expired or is not yet valid");
        }
        if rules.bearer_token && account.refuses_bearers {
            return refusal("the account does not take bearer tokens");
        }
        let kinds = claims::connection_types(&rules.allowed_connection_types)?;
        if !kinds.is_empty() && !kinds.contains(&self.kind) {
            return refusal("the user may not use this kind of connection");
        }
        if rules.proxy_required {
            return refusal("the user has to come through a trusted proxy");
        }
        if !rules.bearer_token && !holds_signature(&token.subject, &self.nonce, &self.signature) {
            return refusal("the nonce is not signed by the user");
        }
        if account.has_revoked(&token.subject, token.issued_at) {
            return refusal("the user was revoked");
        }
        if !schedule::is_among(self.ip, &rules.src)? {
            return refusal("the user may not come from this address");
        }
        let until = schedule::allowed_until(&rules.times, &rules.times_location, now)?;
        let permissions = permissions(&rules)?;
        let limit = |number: i64| usize::try_from(number).ok();
        let user = TokenUser {
            jwt: if self.is_sentinel { String::new() } else { self.jwt },
            account: key.clone(),
            issued_at: token.issued_at,
            is_bearer: rules.bearer_token,
            scope: scope.clone(),
            permissions,
            limits: UserLimits { max_subscriptions: limit(rules.subs), max_payload: limit(rules.payload) },
            expires: token.expires.and_then(moment).into_iter().chain(until).min(),
            subject: token.subject,
            tags: token.tags,
            issuer: token.issuer,
        };
        Ok(Grant::to_token_user(Arc::new(user), account))
    }
}

/// What a signing key's template gives to the user of a token.
fn scoped(
    template: &UserRules,
    token: &Token<User>,
    account_key: &str,
    account: &TrustedAccount,
) -> Result<UserRules, &'static str> {
    let values = Values {
        name: &token.name,
        subject: &token.subject,
        tags: &token.tags,
        account_name: &account.name,
        account_subject: account_key,
        account_tags: &account.tags,
    };
    let mut rules = template.clone();
    let PermissionClaims { publish, subscribe, .. } = &mut rules.permissions;
    for subjects in [publish, subscribe] {
        let allowed_some = !subjects.allow.is_empty();
        subjects.allow = jwt::expand(&subjects.allow, &values, false)?;
        subjects.deny = jwt::expand(&subjects.deny, &values, true)?;
        // Without an allowed subject everything would be.
        if allowed_some && subjects.allow.is_empty() {
            subjects.deny.push(">".to_owned());
        }
    }
    Ok(rules)
}

fn permissions(rules: &UserRules) -> Result<Option<Arc<Permissions>>, String> {
    let permissions: Option<config::permissions::Permissions> = claims::permissions(&rules.permissions)?;
    Ok(permissions.map(|permissions| Arc::new(Permissions::new(&permissions))))
}
