//! Permissions of a user: which subjects may be published to and subscribed to.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::grammar::{Node, Value};
use super::read;
use super::schema::{Item, Key, Reading};

/// What a user may do. Without rules for a direction everything is allowed in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects to publish to.
    pub publish: SubjectRules,
    /// Subjects to subscribe to.
    pub subscribe: SubjectRules,
    /// Permission to answer requests on their reply subjects.
    pub responses: Option<ResponsePermission>,
}

/// Subjects that are allowed and denied. A subject must match one that is allowed and none that is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectRules {
    /// Everything if absent.
    pub allow: Option<Vec<SubjectRule>>,
    /// Exceptions.
    pub deny: Vec<SubjectRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectRule {
    /// A subject, wildcards allowed.
    pub subject: String,
    /// The queue groups the rule is about, wildcards allowed. Only in rules for subscriptions.
    pub queue: Option<String>,
}

/// How long and how often a reply subject may be published to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponsePermission {
    /// Messages for each request; unlimited if absent.
    pub messages: Option<u32>,
    /// Time after the request; unlimited if absent.
    pub expires: Option<Duration>,
}

impl Default for ResponsePermission {
    fn default() -> Self {
        Self { messages: Some(1), expires: Some(Duration::from_secs(120)) }
    }
}

const KEYS: &[Key<Permissions>] = &[
    Key::other(
        &["publish", "pub", "import"],
        "subject, array of subjects, or { allow, deny }",
        "\">\"",
        "Subjects to publish to",
        |permissions, item, reading| {
            permissions.publish = rules(item, Direction::Publish, reading)?;
            Ok(())
        },
    ),
    Key::other(
        &["subscribe", "sub", "export"],
        "subject, array of subjects, or { allow, deny }",
        "\">\"",
        "Subjects to subscribe to; \"subject queue\" limits the queue group",
        |permissions, item, reading| {
            permissions.subscribe = rules(item, Direction::Subscribe, reading)?;
            Ok(())
        },
    ),
    Key::other(
        &["allow_responses", "publish_allow_responses"],
        "boolean or { max, expires }",
        "true",
        "Allow answers to requests",
        |permissions, item, reading| {
            permissions.responses = responses(item, reading)?;
            Ok(())
        },
    ),
];

/// Reads permissions.
pub(super) fn permissions(item: &Item<'_>, reading: &mut Reading) -> Result<Permissions, String> {
    let Value::Map(map) = &item.node.value else {
        return Err(format!("Expected permissions to be a map, got {}", item.node.value.kind()));
    };
    let mut permissions = Permissions::default();
    reading.keys(map, KEYS, &mut permissions);
    Ok(permissions)
}

/// What a rule is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Publish,
    Subscribe,
}

fn rules(item: &Item<'_>, direction: Direction, reading: &mut Reading) -> Result<SubjectRules, String> {
    let mut rules = SubjectRules::default();
    let Value::Map(map) = &item.node.value else {
        rules.allow = some(list(item.node, direction)?);
        return Ok(rules);
    };
    for (key, entry) in map.entries() {
        let list = list(&entry.node, direction);
        match (key.to_ascii_lowercase().as_str(), list) {
            ("allow", Ok(list)) => rules.allow = some(list),
            ("deny", Ok(list)) => rules.deny = list,
            ("allow" | "deny", Err(what)) => reading.error(&entry.key_at, what),
            _ if entry.is_variable => {}
            _ => {
                let what = format!(
                    "unknown field \"{}\" in subject permissions, only 'allow' or 'deny' are permitted",
                    key.escape_debug()
                );
                reading.error(&entry.key_at, what);
            }
        }
    }
    Ok(rules)
}

/// An empty list of what is allowed restricts nothing, as in the reference server.
fn some(list: Vec<SubjectRule>) -> Option<Vec<SubjectRule>> {
    Some(list).filter(|list| !list.is_empty())
}

fn list(node: &Node, direction: Direction) -> Result<Vec<SubjectRule>, String> {
    let texts = match &node.value {
        Value::Text(_) | Value::Array(_) => read::texts(node)?,
        other => return Err(format!("Expected subject permissions to be a subject or an array, got {}", other.kind())),
    };
    texts.iter().map(|text| rule(text, direction)).collect()
}

/// Reads a rule: a subject, and for subscriptions perhaps a queue group.
pub(super) fn rule(text: &str, direction: Direction) -> Result<SubjectRule, String> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let (subject, queue) = match (words.as_slice(), direction) {
        ([subject, queue], Direction::Subscribe) => (*subject, Some(*queue)),
        _ => (text, None),
    };
    let subject = read::subject(subject)?;
    let queue = queue
        .map(|queue| {
            read::subject(queue).map_err(|_| format!("queue \"{}\" is not a valid queue", queue.escape_debug()))
        })
        .transpose()?;
    Ok(SubjectRule { subject, queue })
}

const RESPONSES: &[Key<ResponsePermission>] = &[
    Key::integer(
        &["max", "max_msgs", "max_messages", "max_responses"],
        "1",
        "Messages for each request; negative means unlimited",
        |responses, number| {
            responses.messages = match number {
                ..0 => None,
                0 => ResponsePermission::default().messages,
                number => Some(u32::try_from(number).unwrap_or(u32::MAX)),
            };
            Ok(())
        },
    ),
    Key::text(
        &["expires", "expiration", "ttl"],
        "\"2m\"",
        "Time for an answer; negative means unlimited",
        |responses, text| {
            responses.expires = match text.strip_prefix('-') {
                Some(text) => read::duration_text(text).map(|_| None)?,
                None => Some(read::duration_text(text)?),
            };
            if responses.expires == Some(Duration::ZERO) {
                responses.expires = ResponsePermission::default().expires;
            }
            Ok(())
        },
    ),
];

fn responses(item: &Item<'_>, reading: &mut Reading) -> Result<Option<ResponsePermission>, String> {
    match &item.node.value {
        Value::Boolean(on) => Ok(on.then(ResponsePermission::default)),
        Value::Map(map) => {
            let mut responses = ResponsePermission::default();
            reading.keys(map, RESPONSES, &mut responses);
            Ok(Some(responses))
        }
        other => Err(format!("expected a boolean or a map for response permissions, got {}", other.kind())),
    }
}
