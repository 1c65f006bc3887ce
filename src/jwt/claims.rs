//! What tokens claim, in the words of their documents. Members that are not known are passed over.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use nkeys::KeyPairType;
use serde::{Deserialize, Deserializer};

use super::Claims;

/// Whom an operator signs with, and what it expects of servers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Operator {
    /// Public operator keys that may sign accounts as well.
    pub signing_keys: Vec<String>,
    /// Where accounts may be fetched.
    pub account_server_url: String,
    /// Public key of the system account.
    pub system_account: String,
    /// The oldest server that may serve the operator's accounts, as `major.minor.update`.
    pub assert_server_version: String,
    /// Nothing is signed with the operator's own key.
    pub strict_signing_key_usage: bool,
}

/// What an account has and allows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Account {
    /// What it takes from other accounts.
    pub imports: Vec<Import>,
    /// What it offers to other accounts.
    pub exports: Vec<Export>,
    /// Limits that the operator has set.
    pub limits: AccountLimits,
    /// Keys that may sign users beside the account's own.
    pub signing_keys: Vec<SigningKey>,
    /// By public user key or `*`: what was issued until then does not count, seconds since 1970.
    pub revocations: HashMap<String, i64>,
    /// Permissions of users that have none of their own.
    pub default_permissions: Permissions,
    /// Subject mappings.
    pub mappings: BTreeMap<String, Vec<Destination>>,
    /// Delegation of logins to a service.
    pub authorization: Authorization,
}

/// Limits of an account: negative means none, and what is absent is zero.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AccountLimits {
    /// Subscriptions of one connection.
    pub subs: i64,
    /// Bytes of one message.
    pub payload: i64,
    /// Client connections.
    pub conn: i64,
    /// Leafnode connections.
    pub leaf: i64,
    /// Imports.
    pub imports: i64,
    /// Exports.
    pub exports: i64,
    /// Exports may have wildcards. Counts only where the number of exports is limited.
    pub wildcards: bool,
    /// Users have to sign the nonce.
    pub disallow_bearer: bool,
}

/// A key that may sign an account's users.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum SigningKey {
    /// Its users have what their own tokens say.
    Plain(String),
    /// Its users have what the template says.
    Scoped {
        /// `user_scope`
        kind: String,
        /// The key.
        key: String,
        /// What all its users may do.
        #[serde(default)]
        template: Box<UserRules>,
    },
}

/// Delegation of logins to a service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Authorization {
    /// Users that log in without the service. If there are none, there is no service.
    pub auth_users: Vec<String>,
}

/// Whether an import or export is of messages or of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shared {
    /// Messages.
    Stream,
    /// Answers to requests.
    Service,
}

/// Something an account offers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Export {
    /// Subject, wildcards allowed.
    pub subject: String,
    /// What is offered.
    #[serde(rename = "type")]
    pub shared: Shared,
    /// Importers need an activation.
    #[serde(default)]
    pub token_req: bool,
    /// Activations that were taken back, by public account key or `*`, seconds since 1970.
    #[serde(default)]
    pub revocations: HashMap<String, i64>,
    /// `Singleton`, `Stream` or `Chunked`.
    #[serde(default)]
    pub response_type: String,
    /// How long answers are waited for, nanoseconds.
    #[serde(default)]
    pub response_threshold: i64,
    /// Position of the subject's token that must be the importing account's key, counted from one.
    #[serde(default)]
    pub account_token_position: u32,
}

/// Something an account takes from another one.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Import {
    /// Of a stream the subject there. Of a service too, unless `to` has that.
    pub subject: String,
    /// Public key of the other account.
    pub account: String,
    /// What is taken.
    #[serde(rename = "type")]
    pub shared: Shared,
    /// Activation: a token of the other account.
    #[serde(default)]
    pub token: String,
    /// The older way to rename: of a stream what stands before the subject here, of a service the subject there.
    #[serde(default)]
    pub to: String,
    /// The subject here.
    #[serde(default)]
    pub local_subject: String,
    /// The service may see who asks.
    #[serde(default)]
    pub share: bool,
}

/// One destination of a mapping.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Destination {
    /// The subject.
    pub subject: String,
    /// Share of the messages in percent; all if zero.
    #[serde(default)]
    pub weight: u8,
    /// The only cluster in which this applies.
    #[serde(default)]
    pub cluster: String,
}

/// Subjects that are allowed and denied.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Subjects {
    /// Everything if empty.
    pub allow: Vec<String>,
    /// Exceptions.
    pub deny: Vec<String>,
}

/// How long and how often a reply subject may be published to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Responses {
    /// Messages; negative means unlimited, zero the default.
    pub max: i64,
    /// Nanoseconds; negative means unlimited, zero the default.
    pub ttl: i64,
}

/// Subjects of a user.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// To publish to.
    #[serde(rename = "pub")]
    pub publish: Subjects,
    /// To subscribe to; `subject queue` limits the queue group.
    #[serde(rename = "sub")]
    pub subscribe: Subjects,
    /// Permission to answer requests.
    pub resp: Option<Responses>,
}

/// A part of each day.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TimeRange {
    /// `hh:mm:ss`
    pub start: String,
    /// `hh:mm:ss`, on the next day if it is not after the start.
    pub end: String,
}

/// Permissions and limits of a user, in its own token or the template of a signing key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct UserRules {
    /// Subjects.
    #[serde(flatten)]
    pub permissions: Permissions,
    /// Networks, in CIDR notation, to come from; all if empty.
    #[serde(deserialize_with = "networks")]
    pub src: Vec<String>,
    /// When to be connected; always if empty.
    pub times: Vec<TimeRange>,
    /// Time zone of `times`, by its IANA name; that of the server if empty.
    pub times_location: String,
    /// Subscriptions; negative means no limit.
    pub subs: i64,
    /// Bytes of one message; negative means no limit.
    pub payload: i64,
    /// Bytes altogether. Servers do not count them.
    pub data: i64,
    /// The token alone lets in: the nonce need not be signed.
    pub bearer_token: bool,
    /// Only through a trusted proxy.
    pub proxy_required: bool,
    /// Kinds of connections; all if empty.
    pub allowed_connection_types: Vec<String>,
}

/// What a user may do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct User {
    /// Permissions and limits.
    #[serde(flatten)]
    pub rules: UserRules,
    /// The account, where one of its signing keys has signed.
    pub issuer_account: String,
}

/// An account lets another one import something private.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Activation {
    /// The subject, wildcards allowed.
    pub subject: String,
    /// What may be imported.
    pub kind: Shared,
    /// The exporting account, where one of its signing keys has signed.
    #[serde(default)]
    pub issuer_account: String,
}

impl Claims for Operator {
    const KIND: &'static str = "operator";
    const SUBJECT: KeyPairType = KeyPairType::Operator;
    const ISSUERS: &'static [KeyPairType] = &[KeyPairType::Operator];
}

impl Claims for Account {
    const KIND: &'static str = "account";
    const SUBJECT: KeyPairType = KeyPairType::Account;
    /// An account that has signed itself is well-formed, though nobody trusts it.
    const ISSUERS: &'static [KeyPairType] = &[KeyPairType::Operator, KeyPairType::Account];
}

impl Claims for User {
    const KIND: &'static str = "user";
    const SUBJECT: KeyPairType = KeyPairType::User;
    const ISSUERS: &'static [KeyPairType] = &[KeyPairType::Account];
}

impl Claims for Activation {
    const KIND: &'static str = "activation";
    const SUBJECT: KeyPairType = KeyPairType::Account;
    const ISSUERS: &'static [KeyPairType] = &[KeyPairType::Account];
}

/// A list, or one text with commas, as older issuers write it.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Networks {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Networks::deserialize(deserializer)? {
        Networks::List(list) => list,
        Networks::Text(text) => {
            text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
        }
    })
}
