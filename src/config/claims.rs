//! Claims of tokens as values of the configuration: an account that an operator vouches for is the same thing as one
//! that stands in the file.
#![forbid(unsafe_code)]

use std::time::Duration;

use nkeys::KeyPairType;

use super::accounts::{Account, AccountLimits};
use super::authorization::{self, ConnectionType};
use super::exports::{self, Export, ExportKind, Import, ImportKind, ResponseType, Service};
use super::mappings::{self, Destination, Mapping, Use};
use super::permissions::{Direction, Permissions, ResponsePermission, SubjectRules, rule};
use super::read;
use crate::jwt::claims::{self, Activation, Shared, SigningKey};
use crate::jwt::{Token, is_key};
use crate::subject;

/// An account as its token says it.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// The account, under its public key as name. Whether other accounts let it import is not decided.
    pub(crate) account: Account,
    /// For each import what lets it have something private.
    pub(crate) activations: Vec<Option<Token<Activation>>>,
}

/// Reads the claims of an account.
///
/// # Errors
/// Claims that contradict themselves or their operator's limits; the account cannot be used then.
pub(crate) fn account(token: &Token<claims::Account>) -> Result<Claimed, String> {
    let claims = &token.claims;
    check_counts(claims)?;
    for key in &claims.signing_keys {
        let (SigningKey::Plain(key) | SigningKey::Scoped { key, .. }) = key;
        if !is_key(key, &KeyPairType::Account) {
            return Err(format!("\"{}\" is not an account public key", key.escape_debug()));
        }
    }
    let mut imports = Vec::new();
    let mut activations = Vec::new();
    for claimed in &claims.imports {
        let import = import(claimed)?;
        activations.push(activation(&token.subject, claimed, &import)?);
        imports.push(import);
    }
    let limit = |number: i64| usize::try_from(number).ok();
    let account = Account {
        name: token.subject.clone(),
        nkey: Some(token.subject.clone()),
        default_permissions: permissions(&claims.default_permissions)?,
        exports: exports(&claims.exports)?,
        imports,
        mappings: claims.mappings.iter().map(|(source, to)| mapping(source, to)).collect::<Result<_, _>>()?,
        limits: AccountLimits {
            max_connections: limit(claims.limits.conn),
            max_subscriptions: limit(claims.limits.subs),
            max_payload: limit(claims.limits.payload),
            max_leafnodes: limit(claims.limits.leaf),
        },
        users: Vec::new(),
    };
    Ok(Claimed { account, activations })
}

/// Permissions of a user or the defaults of an account; none if nothing is said.
///
/// # Errors
/// When a rule is not a subject.
pub(crate) fn permissions(claims: &claims::Permissions) -> Result<Option<Permissions>, String> {
    if *claims == claims::Permissions::default() {
        return Ok(None);
    }
    let rules = |subjects: &claims::Subjects, direction| -> Result<SubjectRules, String> {
        let all = |list: &[String]| list.iter().map(|text| rule(text, direction)).collect::<Result<Vec<_>, _>>();
        let allow = Some(all(&subjects.allow)?).filter(|allow| !allow.is_empty());
        Ok(SubjectRules { allow, deny: all(&subjects.deny)? })
    };
    Ok(Some(Permissions {
        publish: rules(&claims.publish, Direction::Publish)?,
        subscribe: rules(&claims.subscribe, Direction::Subscribe)?,
        responses: claims.resp.as_ref().map(responses),
    }))
}

fn responses(claims: &claims::Responses) -> ResponsePermission {
    let default = ResponsePermission::default();
    ResponsePermission {
        messages: match claims.max {
            0 => default.messages,
            max => u64::try_from(max).ok().map(|max| u32::try_from(max).unwrap_or(u32::MAX)),
        },
        expires: match claims.ttl {
            0 => default.expires,
            nanos => u64::try_from(nanos).ok().map(Duration::from_nanos),
        },
    }
}

/// Kinds of connections by their names; all if there are none. Names that are not known are passed over.
///
/// # Errors
/// When there are names and none is known: it would read as all.
pub(crate) fn connection_types(names: &[String]) -> Result<Vec<ConnectionType>, &'static str> {
    let known: Vec<ConnectionType> = names.iter().filter_map(|name| authorization::connection_type(name)).collect();
    if known.is_empty() && !names.is_empty() { Err("no connection type is known") } else { Ok(known) }
}

fn check_counts(claims: &claims::Account) -> Result<(), String> {
    let exceeds = |count: usize, limit: i64| usize::try_from(limit).is_ok_and(|limit| count > limit);
    let limits = &claims.limits;
    if exceeds(claims.imports.len(), limits.imports) {
        return Err("the account contains more imports than allowed by the operator".into());
    }
    if exceeds(claims.exports.len(), limits.exports) {
        return Err("the account contains more exports than allowed by the operator".into());
    }
    let has_wildcards = claims.exports.iter().any(|export| subject::has_wildcard(export.subject.as_bytes()));
    if limits.exports >= 0 && !limits.wildcards && has_wildcards {
        return Err("the account contains wildcard exports that are not allowed by the operator".into());
    }
    Ok(())
}

fn exports(claims: &[claims::Export]) -> Result<Vec<Export>, String> {
    for (n, export) in claims.iter().enumerate() {
        let others = claims.iter().enumerate().filter(|(m, other)| *m != n && other.shared == export.shared);
        for (_, other) in others {
            if subject::is_subset(export.subject.as_bytes(), other.subject.as_bytes()) {
                return Err(format!("export subject \"{}\" already exports \"{}\"", other.subject, export.subject));
            }
        }
    }
    claims.iter().map(export).collect()
}

fn export(claims: &claims::Export) -> Result<Export, String> {
    let subject = read::subject(&claims.subject)?;
    let kind = match claims.shared {
        Shared::Stream => ExportKind::Stream,
        Shared::Service => ExportKind::Service(Service {
            response: match claims.response_type.as_str() {
                "" | "Singleton" => ResponseType::Single,
                "Stream" => ResponseType::Stream,
                "Chunked" => ResponseType::Chunked,
                _ => return Err(format!("export \"{subject}\" has an unknown response type")),
            },
            threshold: u64::try_from(claims.response_threshold)
                .ok()
                .filter(|nanos| *nanos > 0)
                .map(Duration::from_nanos),
            ..Service::default()
        }),
    };
    let position = usize::try_from(claims.account_token_position).unwrap_or(usize::MAX);
    if position > 0 && subject.split('.').nth(position - 1) != Some("*") {
        return Err(format!("export \"{subject}\": token {position} is not \"*\""));
    }
    Ok(Export {
        subject,
        kind,
        accounts: claims.token_req.then(Vec::new),
        account_token_position: (position > 0).then_some(position),
    })
}

fn import(claims: &claims::Import) -> Result<Import, String> {
    if !is_key(&claims.account, &KeyPairType::Account) {
        return Err(format!("import \"{}\" is of no account", claims.subject.escape_debug()));
    }
    let (subject, local) = match claims.shared {
        _ if !claims.local_subject.is_empty() => (&claims.subject, Some(claims.local_subject.clone())),
        _ if claims.to.is_empty() => (&claims.subject, None),
        Shared::Stream => (&claims.subject, Some(format!("{}.{}", claims.to.trim_end_matches('.'), claims.subject))),
        Shared::Service => (&claims.to, Some(claims.subject.clone())),
    };
    let subject = read::subject(subject)?;
    let is_stream = claims.shared == Shared::Stream;
    let local = local.map(|local| exports::local_name(&subject, &local, is_stream));
    let local = local.transpose().map_err(|what| format!("import \"{subject}\": {what}"))?;
    let kind = match claims.shared {
        Shared::Stream => ImportKind::Stream { allow_trace: false },
        Shared::Service => ImportKind::Service { share: claims.share },
    };
    Ok(Import { account: claims.account.clone(), subject, local, kind })
}

/// What lets `importer` have something private. It must be about this import; whether it is in force is not decided.
fn activation(importer: &str, claims: &claims::Import, import: &Import) -> Result<Option<Token<Activation>>, String> {
    if claims.token.is_empty() {
        return Ok(None);
    }
    let wrong = |what: String| format!("import \"{}\" contains an invalid activation token: {what}", import.subject);
    let token = Token::<Activation>::decode(&claims.token).map_err(|error| wrong(error.to_string()))?;
    let exporter = Some(&token.claims.issuer_account).filter(|key| !key.is_empty()).unwrap_or(&token.issuer);
    let covers = subject::is_subset(import.subject.as_bytes(), token.claims.subject.as_bytes());
    for (fits, what) in [
        (token.subject == importer, "it is for another account"),
        (*exporter == claims.account, "it is of another account"),
        (token.claims.kind == claims.shared, "it is for another kind of import"),
        (covers, "it is for another subject"),
    ] {
        if !fits {
            return Err(wrong(what.to_owned()));
        }
    }
    Ok(Some(token))
}

fn mapping(source: &str, claims: &[claims::Destination]) -> Result<Mapping, String> {
    let source = read::subject(source)?;
    let destination = |claimed: &claims::Destination| -> Result<Destination, String> {
        let transform = mappings::transform(&source, &claimed.subject, Use::Mapping)
            .map_err(|what| format!("mapping of \"{source}\" to \"{}\": {what}", claimed.subject))?;
        let weight = if claimed.weight == 0 { 100 } else { claimed.weight };
        Ok(Destination { transform, weight, cluster: Some(claimed.cluster.clone()).filter(|name| !name.is_empty()) })
    };
    let destinations = claims.iter().map(destination).collect::<Result<Vec<_>, _>>()?;
    mappings::check_weights(&source, &destinations)?;
    Ok(Mapping { source, destinations })
}
