//! Judges a CONNECT.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::directory::{Directory, SharedSecret, relative_names};
use super::grant::{Basis, Grant, Reason, Unasked};
use super::trust::Trust;
use super::user_token::Presented;
use super::verify::{Check, Proof, Task, equal};
use crate::config::Secret;
use crate::config::authorization::ConnectionType;
use crate::tls::PeerNames;
use crate::wire::connect::Connect;

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

impl Directory {
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
        let Some(shared) = &self.door(client.kind).shared else {
            return Answer::Granted(Grant::open(Reason::Open(Unasked::of(connect))));
        };
        let grant = Grant::open(Reason::Shared(shared.clone()));
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
                let granted = Grant { user: Some(name.clone()), ..Grant::to_user(user) };
                return judge(granted, &user.secret(), connect.pass.clone().unwrap_or_default());
            }
        }
        Answer::Denied
    }

    fn check_nkey(&self, nkey: &str, connect: &Connect, client: &Client<'_>) -> Answer {
        let Some(user) = self.nkeys.get(nkey).filter(|user| user.may_use(client.kind)) else { return Answer::Denied };
        let signature = connect.sig.clone().unwrap_or_default();
        let proof = Proof::Signature { nkey: nkey.to_owned(), nonce: client.nonce.to_owned(), signature };
        Answer::Undecided(Check::new(Task::Proof(Grant::to_user(user), proof)))
    }

    fn check_user(&self, connect: &Connect, client: &Client<'_>) -> Answer {
        let name = connect.user.as_deref().unwrap_or_default();
        // An nkey says nothing where there are none.
        if name.is_empty()
            && connect.pass.is_none()
            && connect.auth_token.is_none()
            && let Some(user) = &self.door(client.kind).no_auth_user
        {
            let granted = Grant { basis: Basis(Reason::NoCredentials), ..Grant::to_user(user) };
            return if user.may_use(client.kind) { Answer::Granted(granted) } else { Answer::Denied };
        }
        let Some(user) = self.users.get(name).filter(|user| user.may_use(client.kind)) else { return Answer::Denied };
        judge(Grant::to_user(user), &user.secret(), connect.pass.clone().unwrap_or_default())
    }
}

/// A token is judged elsewhere, with all that has to fit it.
fn check_token(trust: &Arc<Trust>, connect: &Connect, client: &Client<'_>) -> Answer {
    let (jwt, is_sentinel) = match (&connect.jwt, &trust.sentinel) {
        (Some(jwt), _) => (jwt.as_str(), false),
        (None, Some(sentinel)) => (sentinel.expose(), true),
        (None, None) => return Answer::Denied,
    };
    Answer::Undecided(Check::new(Task::Token(Box::new(Presented {
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
        return Answer::Undecided(Check::new(Task::Proof(grant, proof)));
    }
    if equal(secret.expose(), &given) { Answer::Granted(grant) } else { Answer::Denied }
}
