//! Accounts that a trusted operator vouches for, and what is known of them beside that they are accounts.
//!
//! A [`Trust`] is made of the configuration at a moment: what is not in force then, or contradicts itself, is left out
//! and said in the log. It names the moment at which another one has to be made ([`Trust::next_change`]).
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::permissions::Permissions;
use crate::config::Secret;
use crate::config::accounts::{Access, Account};
use crate::config::claims::{self, Claimed};
use crate::config::exports::{self, Export, Places};
use crate::jwt::Token;
use crate::jwt::claims::{Account as AccountClaims, Activation, SigningKey, UserRules};

/// Stands for all users or accounts in a list of revocations.
const EVERYBODY: &str = "*";

/// Whose users may log in.
#[derive(Debug, Default)]
pub(super) struct Trust {
    accounts: HashMap<String, TrustedAccount>,
    /// The only accounts whose users may log in, the system account among them; all if empty.
    pinned: HashSet<String>,
    /// The user JWT of clients that have none.
    pub(super) sentinel: Option<Secret>,
    next_change: Option<i64>,
}

/// What the users of an account are judged by.
#[derive(Debug)]
pub(super) struct TrustedAccount {
    /// The account's number in the directory.
    pub(super) number: u32,
    /// Its name for people.
    pub(super) name: String,
    /// Its tags.
    pub(super) tags: Vec<String>,
    /// Seconds since 1970, both.
    not_before: Option<i64>,
    expires: Option<i64>,
    /// Keys that may sign users, the account's own among them, with what they give to their users.
    signers: HashMap<String, Option<Arc<UserRules>>>,
    revocations: HashMap<String, i64>,
    /// Permissions of users that have none of their own.
    pub(super) default_permissions: Option<Arc<Permissions>>,
    /// Users have to sign the nonce.
    pub(super) refuses_bearers: bool,
}

impl Trust {
    /// The trust of a configuration at `now`, seconds since 1970, and the accounts that it speaks of. `number` gives the
    /// number of an account by its name.
    pub(super) fn new(access: &Access, now: i64, mut number: impl FnMut(&str) -> u32) -> (Self, Vec<Account>) {
        let operators = &access.operators;
        let mut pinned: HashSet<String> = operators.pinned_accounts.iter().cloned().collect();
        if !pinned.is_empty() {
            pinned.extend(access.system_account().map(str::to_owned));
        }
        let mut trust = Self { pinned, sentinel: operators.default_sentinel.clone(), ..Self::default() };
        let issuers: HashSet<&str> = operators.keys().collect();
        let mut usable: Vec<(&Token<AccountClaims>, Claimed)> = Vec::new();
        for (key, token) in &operators.preload {
            trust.note_change(token.next_change(now));
            let claimed = if token.subject != *key {
                Err("it is listed under another key".to_owned())
            } else if !issuers.contains(token.issuer.as_str()) {
                Err("no trusted operator has signed it".to_owned())
            } else {
                claims::account(token)
            };
            match claimed {
                Err(what) => tracing::warn!("Account [{key}] cannot be used: {what}"),
                Ok(claimed) => {
                    if !token.is_in_force(now) {
                        tracing::warn!("Account [{key}] is not in force: its JWT has expired or is not yet valid");
                    }
                    trust.accounts.insert(key.clone(), TrustedAccount::new(token, &claimed.account, number(key)));
                    // Once it has expired, others cannot import from it either.
                    if token.is_in_force(now) {
                        usable.push((token, claimed));
                    }
                }
            }
        }
        let accounts = trust.with_imports(&usable, now);
        (trust, accounts)
    }

    /// The accounts with the imports that they may have.
    fn with_imports(&mut self, usable: &[(&Token<AccountClaims>, Claimed)], now: i64) -> Vec<Account> {
        let by_name: HashMap<&str, &Account> =
            usable.iter().map(|(_, claimed)| (claimed.account.name.as_str(), &claimed.account)).collect();
        let tokens: HashMap<&str, &Token<AccountClaims>> =
            usable.iter().map(|(token, _)| (token.subject.as_str(), *token)).collect();
        let mut accounts = Vec::with_capacity(usable.len());
        for (_, Claimed { account, activations }) in usable {
            let mut places = Places::default();
            let mut imports = Vec::new();
            for (import, activation) in account.imports.iter().zip(activations) {
                self.note_change(activation.as_ref().and_then(|activation| activation.next_change(now)));
                let admits = |index: usize, export: &Export| {
                    export.accounts.is_none()
                        || activation.as_ref().is_some_and(|activation| {
                            self.activates(tokens[import.account.as_str()], index, activation, now)
                        })
                };
                match exports::refusal(&by_name, account, import, &mut places, admits) {
                    None => imports.push(import.clone()),
                    Some(refusal) => {
                        let (name, subject, other) = (&account.name, &import.subject, &import.account);
                        tracing::warn!("Account [{name}] does not get \"{subject}\" of account [{other}]: {refusal}");
                    }
                }
            }
            accounts.push(Account { imports, ..account.clone() });
        }
        accounts
    }

    /// Whether an activation lets its subject import the exporter's export of this index.
    fn activates(
        &self,
        exporter: &Token<AccountClaims>,
        export: usize,
        activation: &Token<Activation>,
        now: i64,
    ) -> bool {
        let signs = self.accounts.get(&exporter.subject).is_some_and(|account| account.signer(activation).is_some());
        let revoked =
            exporter.claims.exports.get(export).is_none_or(|export| is_revoked(&export.revocations, activation));
        signs && !revoked && activation.is_in_force(now)
    }

    fn note_change(&mut self, at: Option<i64>) {
        self.next_change = self.next_change.into_iter().chain(at).min();
    }

    /// When something begins or ceases to be in force next, seconds since 1970.
    pub(super) fn next_change(&self) -> Option<i64> {
        self.next_change
    }

    /// The account of this key, if its users may log in as far as the configuration is concerned.
    pub(super) fn account(&self, key: &str) -> Option<&TrustedAccount> {
        let account = self.accounts.get(key)?;
        (self.pinned.is_empty() || self.pinned.contains(key)).then_some(account)
    }

    /// The account of this key, whether or not its users may log in.
    pub(super) fn known(&self, key: &str) -> Option<&TrustedAccount> {
        self.accounts.get(key)
    }

    /// All accounts.
    pub(super) fn accounts(&self) -> impl Iterator<Item = &TrustedAccount> {
        self.accounts.values()
    }
}

impl TrustedAccount {
    fn new(token: &Token<AccountClaims>, account: &Account, number: u32) -> Self {
        let mut signers: HashMap<String, Option<Arc<UserRules>>> = HashMap::new();
        for key in &token.claims.signing_keys {
            match key {
                SigningKey::Plain(key) => signers.insert(key.clone(), None),
                SigningKey::Scoped { key, template, .. } => {
                    signers.insert(key.clone(), Some(Arc::new((**template).clone())))
                }
            };
        }
        signers.insert(token.subject.clone(), None);
        Self {
            number,
            name: token.name.clone(),
            tags: token.tags.clone(),
            not_before: token.not_before,
            expires: token.expires,
            signers,
            revocations: token.claims.revocations.clone(),
            default_permissions: account.default_permissions.as_ref().map(|rules| Arc::new(Permissions::new(rules))),
            refuses_bearers: token.claims.limits.disallow_bearer,
        }
    }

    /// Whether its users may log in at `now`, seconds since 1970.
    pub(super) fn is_in_force(&self, now: i64) -> bool {
        !self.has_expired(now) && self.not_before.is_none_or(|begin| begin <= now)
    }

    /// Seconds since 1970.
    pub(super) fn expires(&self) -> Option<i64> {
        self.expires
    }

    /// Whether its users have to go at `now`, seconds since 1970.
    pub(super) fn has_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// What the signer of a token gives to users; `None` if the account does not know it.
    pub(super) fn signer<C>(&self, token: &Token<C>) -> Option<&Option<Arc<UserRules>>> {
        self.signer_by_key(&token.issuer)
    }

    /// As [`TrustedAccount::signer`].
    pub(super) fn signer_by_key(&self, key: &str) -> Option<&Option<Arc<UserRules>>> {
        self.signers.get(key)
    }

    /// Whether what the account has said of this user until now was taken back.
    pub(super) fn has_revoked(&self, user: &str, issued_at: i64) -> bool {
        revokes(&self.revocations, user, issued_at)
    }
}

fn is_revoked<C>(revocations: &HashMap<String, i64>, token: &Token<C>) -> bool {
    revokes(revocations, &token.subject, token.issued_at)
}

fn revokes(revocations: &HashMap<String, i64>, subject: &str, issued_at: i64) -> bool {
    [subject, EVERYBODY].iter().filter_map(|key| revocations.get(*key)).any(|until| issued_at <= *until)
}
