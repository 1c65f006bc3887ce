//! Operators, accounts and users for tests: JWTs signed with nkeys, made the way the tools of operators make them.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::Client;
use super::config::Config;

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_secs()).expect("the clock is right")
}

/// What `more` has takes the place of what `base` has.
fn merged(mut base: Value, more: &Value) -> Value {
    let members = base.as_object_mut().expect("claims are an object");
    members.extend(more.as_object().expect("claims are an object").clone());
    base
}

/// A token of any kind. `standard` are claims beside those of NATS, such as `exp`.
pub(crate) fn token(issuer: &KeyPair, subject: &str, nats: &Value, standard: &Value) -> String {
    let base = json!({"iss": issuer.public_key(), "sub": subject, "iat": now(), "jti": "id", "name": "n"});
    let claims = merged(merged(base, &json!({"nats": merged(json!({"version": 2}), nats)})), standard);
    signed(issuer, &json!({"typ": "JWT", "alg": "ed25519-nkey"}), &claims)
}

/// A token as its three parts say.
pub(crate) fn signed(issuer: &KeyPair, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = issuer.sign(text.as_bytes()).expect("a pair with a seed signs");
    format!("{text}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// An operator and one of its accounts.
pub(crate) struct World {
    pub(crate) operator: KeyPair,
    /// The operator's token, the same whenever it is asked for.
    pub(crate) operator_jwt: String,
    pub(crate) account: KeyPair,
    pub(crate) user: KeyPair,
}

impl World {
    pub(crate) fn new() -> Self {
        let operator = KeyPair::new_operator();
        let operator_jwt = token(&operator, &operator.public_key(), &json!({"type": "operator"}), &json!({}));
        Self { operator, operator_jwt, account: KeyPair::new_account(), user: KeyPair::new_user() }
    }

    /// The account's token, without limits, with these claims.
    pub(crate) fn account(&self, claims: &Value) -> String {
        self.account_of(&self.account, claims, &json!({"name": "acc"}))
    }

    /// The token of any account.
    pub(crate) fn account_of(&self, account: &KeyPair, claims: &Value, standard: &Value) -> String {
        token(&self.operator, &account.public_key(), &merged(account_claims(), claims), standard)
    }

    /// A configuration file with these accounts.
    pub(crate) fn text(&self, accounts: &[(&KeyPair, String)], more: &str) -> String {
        let mut text = format!("operator: \"{}\"\nresolver: MEMORY\nresolver_preload {{\n", self.operator_jwt);
        for (key, jwt) in accounts {
            text += &format!("  {}: \"{jwt}\"\n", key.public_key());
        }
        text + "}\n" + more
    }

    /// A configuration with the one account.
    pub(crate) fn config(&self, claims: &Value) -> Config {
        Config::new(&self.text(&[(&self.account, self.account(claims))], ""))
    }

    /// The token of the user, signed by the account, without limits.
    pub(crate) fn user_jwt(&self, claims: &Value) -> String {
        user_jwt(&self.account, &self.user, claims)
    }

    /// CONNECT of the user with the token.
    pub(crate) fn connect(&self, client: &Client, jwt: &str) -> Value {
        connect(client, jwt, Some(&self.user))
    }
}

/// Claims of an account without limits.
pub(crate) fn account_claims() -> Value {
    json!({"type": "account", "limits": no_limits()})
}

/// Limits of an account that is not limited.
pub(crate) fn no_limits() -> Value {
    json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1})
}

/// The same with other values for some.
pub(crate) fn limits(some: &Value) -> Value {
    merged(no_limits(), some)
}

/// A user without limits, signed by an account.
pub(crate) fn user_jwt(issuer: &KeyPair, user: &KeyPair, claims: &Value) -> String {
    let claims = merged(json!({"type": "user", "subs": -1, "data": -1, "payload": -1}), claims);
    token(issuer, &user.public_key(), &claims, &json!({"name": "usr"}))
}

/// CONNECT with the token; the nonce is signed if there is somebody to sign it.
pub(crate) fn connect(client: &Client, jwt: &str, signer: Option<&KeyPair>) -> Value {
    let options = json!({"verbose": false, "pedantic": false, "headers": true, "jwt": jwt});
    let Some(signer) = signer else { return options };
    let nonce = client.info()["nonce"].as_str().expect("a nonce is asked for");
    let signature = signer.sign(nonce.as_bytes()).expect("a pair with a seed signs");
    merged(options, &json!({"sig": BASE64URL_NOPAD.encode(&signature)}))
}

/// What a user keeps: the token, and the seed to sign with.
pub(crate) fn creds(jwt: &str, user: &KeyPair) -> String {
    let seed = user.seed().expect("a new pair has a seed");
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

/// A configuration with two accounts, and credentials of users.
pub(crate) struct Credentials {
    pub(crate) config: Config,
    /// Of a user of the first account.
    pub(crate) own: String,
    /// Of another one, who may publish to `news.>` only.
    pub(crate) limited: String,
    /// Of a user of the second account.
    pub(crate) other: String,
    /// Of a user whom an unknown account vouches for.
    pub(crate) stranger: String,
}

impl Credentials {
    pub(crate) fn new() -> Self {
        let (world, second) = (World::new(), KeyPair::new_account());
        let accounts = [
            (&world.account, world.account(&json!({}))),
            (&second, world.account_of(&second, &json!({}), &json!({"name": "second"}))),
        ];
        let of = |issuer: &KeyPair, claims: Value| {
            let user = KeyPair::new_user();
            creds(&user_jwt(issuer, &user, &claims), &user)
        };
        let rules = json!({"pub": {"allow": ["news.>"]}, "sub": {"allow": ["news.>", "_INBOX.>"]}});
        Self {
            config: Config::new(&world.text(&accounts, "")),
            own: of(&world.account, json!({})),
            limited: of(&world.account, rules),
            other: of(&second, json!({})),
            stranger: of(&KeyPair::new_account(), json!({})),
        }
    }

    /// Files with the credentials, in the order of the fields.
    pub(crate) fn files(&self) -> Vec<String> {
        let all =
            [("own", &self.own), ("limited", &self.limited), ("other", &self.other), ("stranger", &self.stranger)];
        let file = |(name, text): (&str, &String)| {
            let path = self.config.dir.path().join(format!("{name}.creds"));
            std::fs::write(&path, text).expect("the credentials should be written");
            path.to_str().expect("temporary paths are text").to_owned()
        };
        all.into_iter().map(file).collect()
    }
}
