//! Exports and imports of accounts.
//!
//! An import needs an export of the other account that covers its subject and is public or names this account;
//! imports of one kind must not run in circles.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use super::accounts::Account;
use super::cycles;
use super::grammar::{Node, Value};
use super::mappings::{self, Part, Transform, Use};
use super::read;
use super::schema::{Item, Key, Reading, Row, rows};
use crate::subject;

/// Something an account offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Subject, wildcards allowed.
    pub subject: String,
    /// What is offered.
    pub kind: ExportKind,
    /// The accounts that may import it; everybody if absent.
    pub accounts: Option<Vec<String>>,
    /// Position of the subject's token, counted from one, that must be the importing account's name.
    pub account_token_position: Option<usize>,
}

/// What an export offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportKind {
    /// Messages.
    Stream,
    /// Answers to requests.
    Service(Service),
}

/// How an exported service answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// How many answers a request gets.
    pub response: ResponseType,
    /// How long answers are waited for.
    pub threshold: Option<Duration>,
    /// Latency is measured and published.
    pub latency: Option<Latency>,
    /// Traces of messages go on in this account.
    pub allow_trace: bool,
}

/// How many answers a request gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseType {
    /// One.
    #[default]
    Single,
    /// Many, until an empty one.
    Stream,
    /// One in several messages, until an empty one.
    Chunked,
}

/// Measurement of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Requests measured, in percent; those that ask for it by header if absent.
    pub sampling: Option<u8>,
    /// Where results are published.
    pub subject: String,
}

/// Something an account takes from another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The other account.
    pub account: String,
    /// The subject there.
    pub subject: String,
    /// The subject here, if it is another one.
    pub local: Option<Transform>,
    /// What is imported.
    pub kind: ImportKind,
}

/// What an import takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportKind {
    /// Messages.
    Stream {
        /// Traces of messages go on in this account.
        allow_trace: bool,
    },
    /// Answers to requests.
    Service {
        /// The service may see who asks.
        share: bool,
    },
}

#[derive(Default)]
struct RawExport {
    stream: Option<String>,
    service: Option<String>,
    accounts: Option<Vec<String>>,
    response: Option<ResponseType>,
    threshold: Option<Duration>,
    latency: Option<Latency>,
    account_token_position: Option<usize>,
    allow_trace: Option<bool>,
}

const EXPORT: &[Key<RawExport>] = &[
    Key::text(&["stream"], "\"events.>\"", "Messages on this subject", |raw, text| {
        raw.stream = Some(read::subject(text)?);
        Ok(())
    }),
    Key::text(&["service"], "\"help\"", "Requests on this subject", |raw, text| {
        raw.service = Some(read::subject(text)?);
        Ok(())
    }),
    Key::other(&["accounts"], "array of strings", "[ B ]", "Only these accounts", |raw, item, _| {
        raw.accounts = Some(read::array_of_texts(item.node)?);
        Ok(())
    }),
    Key::text(&["response", "response_type"], "single", "single, stream or chunked", |raw, text| {
        raw.response = Some(match text.to_ascii_lowercase().as_str() {
            "single" | "singleton" => ResponseType::Single,
            "stream" => ResponseType::Stream,
            "chunk" | "chunked" => ResponseType::Chunked,
            _ => return Err(format!("Unknown response type: \"{}\"", text.escape_debug())),
        });
        Ok(())
    }),
    Key::text(
        &["threshold", "response_threshold", "response_max_time", "response_time"],
        "\"2m\"",
        "Time for an answer",
        |raw, text| {
            raw.threshold = Some(read::duration_text(text)?);
            Ok(())
        },
    ),
    Key::other(&["latency"], "subject or { sampling, subject }", "lat.help", "Measure", |raw, item, reading| {
        raw.latency = latency(item, reading)?;
        Ok(())
    }),
    Key::integer(&["account_token_position"], "2", "The token that is the importing account", |raw, number| {
        raw.account_token_position = match read::count(number)? {
            0 => None,
            position => Some(position),
        };
        Ok(())
    }),
    Key::boolean(&["allow_trace"], "false", "Traces of messages go on in this account", |raw, on| {
        raw.allow_trace = Some(on);
    }),
];

/// Reads the exports of an account.
pub(super) fn exports(item: &Item<'_>, reading: &mut Reading) -> Result<Vec<Export>, String> {
    entries(item, "Exports", "Export", reading, |entry, reading| {
        let mut raw = RawExport::default();
        let Value::Map(map) = &entry.value else {
            return Err(format!("Export Items should be a map with type entry, got {}", entry.value.kind()));
        };
        reading.keys(map, EXPORT, &mut raw);
        let (subject, kind) = match (raw.stream, raw.service) {
            (Some(_), Some(_)) => return Err("Detected both a service and a stream in one export".to_owned()),
            (Some(subject), None) => {
                let response = raw.response.is_some() || raw.threshold.is_some();
                let wrong = [("response", response), ("latency", raw.latency.is_some())]
                    .into_iter()
                    .chain([("allow_trace", raw.allow_trace.is_some())])
                    .find_map(|(name, present)| present.then_some(name));
                if let Some(name) = wrong {
                    return Err(format!("Detected {name} directive on non-service"));
                }
                (subject, ExportKind::Stream)
            }
            (None, Some(subject)) => {
                let response = raw.response.unwrap_or_default();
                if let Some(latency) = &raw.latency {
                    let refusal = match response {
                        ResponseType::Single if subject::is_valid_literal(latency.subject.as_bytes()) => None,
                        ResponseType::Single => Some("invalid publish subject"),
                        ResponseType::Stream | ResponseType::Chunked => Some("bad service response type"),
                    };
                    if let Some(refusal) = refusal {
                        let to = &latency.subject;
                        return Err(format!("Error adding service latency for \"{subject}\" on \"{to}\": {refusal}"));
                    }
                }
                let service = Service {
                    response,
                    threshold: raw.threshold,
                    latency: raw.latency,
                    allow_trace: raw.allow_trace.unwrap_or_default(),
                };
                (subject, ExportKind::Service(service))
            }
            // Noted already, or an entry that offers nothing.
            (None, None) => return Ok(None),
        };
        if let Some(position) = raw.account_token_position
            && subject.split('.').nth(position - 1) != Some("*")
        {
            return Err(format!("Error adding export \"{subject}\": token {position} is not \"*\""));
        }
        let account_token_position = raw.account_token_position;
        Ok(Some(Export { subject, kind, accounts: raw.accounts, account_token_position }))
    })
}

#[derive(Default)]
struct RawLatency {
    sampling: Option<u8>,
    subject: Option<String>,
    by_header: bool,
}

const LATENCY: &[Key<RawLatency>] = &[
    Key::other(&["sampling"], "integer, \"n%\" or headers", "100", "Requests measured", |raw, item, _| {
        raw.by_header = matches!(&item.node.value, Value::Text(text) if text.eq_ignore_ascii_case("headers"));
        raw.sampling = if raw.by_header { None } else { Some(percentage(item.node)?) };
        Ok(())
    }),
    Key::text(&["subject"], "lat.help", "Where results are published", |raw, text| {
        raw.subject = Some(read::subject(text)?);
        Ok(())
    }),
];

fn latency(item: &Item<'_>, reading: &mut Reading) -> Result<Option<Latency>, String> {
    let map = match &item.node.value {
        Value::Text(text) => return Ok(Some(Latency { sampling: Some(100), subject: read::subject(text)? })),
        Value::Map(map) => map,
        other => return Err(format!("Expected latency entry to be a map or a subject, got {}", other.kind())),
    };
    let errors = reading.errors.len();
    let mut raw = RawLatency::default();
    reading.keys(map, LATENCY, &mut raw);
    if reading.errors.len() > errors {
        return Ok(None);
    }
    let subject = raw.subject.ok_or("Latency subject required, but missing")?;
    let sampling = if raw.by_header { None } else { Some(raw.sampling.unwrap_or(100)) };
    Ok(Some(Latency { sampling, subject }))
}

/// A share from 1 to 100, with or without `%`.
pub(super) fn percentage(node: &Node) -> Result<u8, String> {
    let number = match &node.value {
        Value::Integer(number) => Some(*number),
        Value::Text(text) => text.trim().trim_end_matches('%').trim().parse().ok(),
        _ => None,
    };
    number
        .and_then(|number| u8::try_from(number).ok())
        .filter(|number| (1..=100).contains(number))
        .ok_or_else(|| "bad sampling percentage, should be 1-100".to_owned())
}

#[derive(Default)]
struct RawImport {
    stream: Option<(String, String)>,
    service: Option<(String, String)>,
    prefix: Option<String>,
    to: Option<String>,
    share: bool,
    allow_trace: Option<bool>,
}

const IMPORT: &[Key<RawImport>] = &[
    Key::other(&["stream"], "{ account, subject }", "{ account: B, subject: a }", "Messages", |raw, item, reading| {
        raw.stream = Some(remote(item, reading)?);
        Ok(())
    }),
    Key::other(&["service"], "{ account, subject }", "{ account: B, subject: a }", "Requests", |raw, item, reading| {
        raw.service = Some(remote(item, reading)?);
        Ok(())
    }),
    Key::text(&["prefix"], "b", "Put before the subject, for streams", |raw, text| {
        raw.prefix = Some(text.to_owned()).filter(|prefix| !prefix.is_empty());
        Ok(())
    }),
    Key::text(&["to"], "local.a", "The subject in this account", |raw, text| {
        raw.to = Some(text.to_owned()).filter(|to| !to.is_empty());
        Ok(())
    }),
    Key::boolean(&["share"], "false", "Let the service see who asks", |raw, on| raw.share = on),
    Key::boolean(&["allow_trace"], "false", "Traces of messages go on in this account", |raw, on| {
        raw.allow_trace = Some(on);
    }),
];

#[derive(Default)]
struct RawRemote {
    account: String,
    subject: String,
}

const REMOTE: &[Key<RawRemote>] = &[
    Key::text(&["account"], "B", "The other account", |raw, text| {
        raw.account = text.to_owned();
        Ok(())
    }),
    Key::text(&["subject"], "a", "The subject there", |raw, text| {
        raw.subject = read::subject(text)?;
        Ok(())
    }),
];

fn remote(item: &Item<'_>, reading: &mut Reading) -> Result<(String, String), String> {
    let Value::Map(map) = &item.node.value else {
        return Err(format!("{} entry should be an account map, got {}", item.key, item.node.value.kind()));
    };
    let mut raw = RawRemote::default();
    reading.keys(map, REMOTE, &mut raw);
    if raw.account.is_empty() || raw.subject.is_empty() {
        return Err("Expect an account name and a subject".to_owned());
    }
    Ok((raw.account, raw.subject))
}

/// Keys of an export, for the sample.
pub(super) fn export_rows() -> Vec<Row> {
    rows(EXPORT)
}

/// Keys of an import, for the sample.
pub(super) fn import_rows() -> Vec<Row> {
    rows(IMPORT)
}

/// Reads the imports of an account.
pub(super) fn imports(item: &Item<'_>, reading: &mut Reading) -> Result<Vec<Import>, String> {
    entries(item, "Imports", "Import", reading, |entry, reading| {
        let mut raw = RawImport::default();
        let Value::Map(map) = &entry.value else {
            return Err(format!("Import Items should be a map with type entry, got {}", entry.value.kind()));
        };
        reading.keys(map, IMPORT, &mut raw);
        match (raw.stream, raw.service) {
            (Some(_), Some(_)) => Err("Detected both a service and a stream in one import".to_owned()),
            (Some((account, subject)), None) => {
                let local = match (raw.to, raw.prefix) {
                    (Some(_), Some(_)) => {
                        return Err("Stream import can not have a 'prefix' and a 'to' property".to_owned());
                    }
                    (Some(to), None) => Some(to),
                    (None, Some(prefix)) => Some(format!("{}.{subject}", prefix.trim_end_matches('.'))),
                    (None, None) => None,
                };
                let local = local.map(|to| {
                    local_name(&subject, &to, true)
                        .map_err(|what| format!("Error adding stream import \"{subject}\": {what}"))
                });
                let kind = ImportKind::Stream { allow_trace: raw.allow_trace.unwrap_or_default() };
                Ok(Some(Import { account, local: local.transpose()?, subject, kind }))
            }
            (None, Some(_)) if raw.allow_trace.is_some() => {
                Err("Detected allow_trace directive on a non-stream".to_owned())
            }
            (None, Some((account, subject))) => {
                let local = raw.to.map(|to| {
                    local_name(&subject, &to, false)
                        .map_err(|what| format!("Error adding service import \"{subject}\": {what}"))
                });
                let kind = ImportKind::Service { share: raw.share };
                Ok(Some(Import { account, local: local.transpose()?, subject, kind }))
            }
            (None, None) => Ok(None),
        }
    })
}

/// What `subject` of another account is called here. Many names may lead to one service, but a stream has one.
pub(super) fn local_name(subject: &str, to: &str, is_stream: bool) -> Result<Transform, String> {
    if subject::has_wildcard(subject.as_bytes()) {
        mappings::transform(subject, to, Use::Import)
    } else if is_stream && subject::has_wildcard(to.as_bytes()) {
        Err("invalid subject".to_owned())
    } else {
        mappings::plain_name(to)
    }
}

/// Reads an array entry by entry; an error of one does not hide those of the others.
fn entries<T>(
    item: &Item<'_>,
    many: &str,
    one: &str,
    reading: &mut Reading,
    read: impl Fn(&Node, &mut Reading) -> Result<Option<T>, String>,
) -> Result<Vec<T>, String> {
    let Value::Array(nodes) = &item.node.value else {
        return Err(format!("{many} should be an array, got {} ({one} entries are maps)", item.node.value.kind()));
    };
    let mut list = Vec::new();
    for node in nodes {
        match read(node, reading) {
            Ok(entry) => list.extend(entry),
            Err(what) => reading.error(&node.at, what),
        }
    }
    Ok(list)
}

impl Import {
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.kind, ImportKind::Stream { .. })
    }

    fn what(&self) -> &'static str {
        if self.is_stream() { "stream" } else { "service" }
    }

    /// The subject in the importing account, wildcards where the transform takes tokens.
    #[must_use]
    pub fn local_pattern(&self) -> String {
        match &self.local {
            None => self.subject.clone(),
            Some(transform) => {
                let tokens = transform.tokens.iter().map(|part| match part {
                    Part::Literal(text) => text.as_str(),
                    Part::Rest => ">",
                    _ => "*",
                });
                tokens.collect::<Vec<_>>().join(".")
            }
        }
    }
}

/// Checks exports and imports of all accounts against each other.
pub(super) fn check(item: &Item<'_>, accounts: &[Account], reading: &mut Reading) {
    let by_name: HashMap<&str, &Account> = accounts.iter().map(|account| (account.name.as_str(), account)).collect();
    for account in accounts {
        for export in &account.exports {
            for name in export.accounts.iter().flatten().filter(|name| !by_name.contains_key(name.as_str())) {
                let what = if export.kind == ExportKind::Stream { "stream" } else { "service" };
                reading.error(item.at, format!("\"{name}\" account not defined for {what} export"));
            }
        }
        let mut places = Places::default();
        for import in &account.imports {
            let admits =
                |export: &Export| export.accounts.as_ref().is_none_or(|accounts| accounts.contains(&account.name));
            match refusal(&by_name, account, import, &mut places, |_, export| admits(export)) {
                None => {}
                Some(Refusal::NoAccount) => {
                    let what = import.what();
                    reading.error(item.at, format!("\"{}\" account not defined for {what} import", import.account));
                }
                Some(refusal) => {
                    let (what, subject) = (import.what(), &import.subject);
                    let of_kind = if refusal == Refusal::Cycle { String::new() } else { format!("{what} ") };
                    reading.error(item.at, format!("Error adding {what} import \"{subject}\": {of_kind}{refusal}"));
                }
            }
        }
    }
}

/// The imports of an account that were accepted already.
#[derive(Default)]
pub(crate) struct Places<'a>(HashSet<(bool, &'a str, String)>);

/// Why an import cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such account.
    NoAccount,
    /// No export covers it, or none that is for this account.
    NotAuthorized,
    /// The same is imported already.
    Exists,
    /// What is imported would come back to where it is from.
    Cycle,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAccount => "import of an unknown account",
            Self::NotAuthorized => "import not authorized",
            Self::Exists => "import already exists",
            Self::Cycle => "import forms a cycle",
        })
    }
}

/// Whether `account` can have an import beside those that `places` has; if so, it has it from then on. `admits` says
/// whether it may use the exporting account's export of this index.
pub(crate) fn refusal<'a>(
    accounts: &HashMap<&str, &Account>,
    account: &Account,
    import: &'a Import,
    places: &mut Places<'a>,
    admits: impl Fn(usize, &Export) -> bool,
) -> Option<Refusal> {
    let Some(exporter) = accounts.get(import.account.as_str()) else { return Some(Refusal::NoAccount) };
    if !is_authorized(exporter, import, &account.name, admits) {
        Some(Refusal::NotAuthorized)
    } else if !places.0.insert(place(import)) {
        Some(Refusal::Exists)
    } else if exporter.name != account.name && cycles::is_in_cycle(accounts, account, import) {
        Some(Refusal::Cycle)
    } else {
        None
    }
}

/// Whether `exporter` lets the account `importer` have what it imports. All exports of one subject are one, with the
/// conditions of each; one of the very subject that is imported decides alone.
fn is_authorized(exporter: &Account, import: &Import, importer: &str, admits: impl Fn(usize, &Export) -> bool) -> bool {
    let is_covering = |export: &Export| {
        (export.kind == ExportKind::Stream) == import.is_stream()
            && subject::is_subset(import.subject.as_bytes(), export.subject.as_bytes())
    };
    let mut covering: HashMap<&str, Vec<(usize, &Export)>> = HashMap::new();
    for (index, export) in exporter.exports.iter().enumerate().filter(|(_, export)| is_covering(export)) {
        covering.entry(&export.subject).or_default().push((index, export));
    }
    let approves = |exports: &Vec<(usize, &Export)>| {
        let mut positions = exports.iter().filter_map(|(_, export)| export.account_token_position).peekable();
        if positions.peek().is_some() {
            // Where the subject has to name the importer, that alone decides.
            return positions.all(|position| import.subject.split('.').nth(position - 1) == Some(importer));
        }
        let (listed, others): (Vec<_>, Vec<_>) = exports.iter().partition(|(_, export)| export.accounts.is_some());
        let admits = |(index, export): &(usize, &Export)| admits(*index, export);
        (listed.is_empty() || listed.iter().any(admits)) && others.iter().all(admits)
    };
    match covering.get(&*import.subject) {
        Some(exports) => approves(exports),
        None => covering.values().any(approves),
    }
}

/// What no two imports of an account may have in common.
fn place(import: &Import) -> (bool, &str, String) {
    let subject = if import.is_stream() { import.subject.clone() } else { import.local_pattern() };
    (import.is_stream(), import.account.as_str(), subject)
}
