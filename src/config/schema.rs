//! What a key is, and how a map of values is read by a table of keys.
//!
//! Each block of the configuration file has one table. From it come the checks, the typed options and the sample file;
//! a key exists by standing in a table. Reading never stops at the first error: all are collected in a [`Reading`].
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use super::grammar::{Map, Node, Position, Value};
use super::read;

/// Compares a field of the `Options` at hand.
macro_rules! compare {
    ($($field:ident).+) => {
        Compare {
            differ: |old: &Options, new: &Options| old.$($field).+ != new.$($field).+,
            show: |options: &Options| options.$($field).+.shown(),
        }
    };
}
pub(super) use compare;

/// Sets a boolean field of the `Options` at hand.
macro_rules! switch {
    ($names:expr, $default:expr, $help:expr, $($field:ident).+) => {
        Key::<Options>::boolean($names, $default, $help, |options, on| options.$($field).+ = on)
            .compared(compare!($($field).+))
    };
}
pub(super) use switch;

/// Outcome of a setter. The error is put behind the place of the key.
pub(super) type Verdict = Result<(), String>;

/// One key of a block whose settings are a `T`.
pub(super) struct Key<T: 'static> {
    names: &'static [&'static str],
    kind: Kind<T>,
    default: &'static str,
    help: &'static str,
    reload: Reload,
    status: Status,
    /// The keys inside.
    inner: Option<fn() -> Vec<Row>>,
    /// How its values are compared when the file is read again. Keys that share a setting leave it to one of them.
    compare: Option<Compare<T>>,
    /// The reference's name of the setting in messages; the key's own if empty.
    field: &'static str,
}

/// How the values of a key are compared and shown.
pub(super) struct Compare<T: 'static> {
    pub(super) differ: fn(&T, &T) -> bool,
    pub(super) show: fn(&T) -> String,
}

/// What the value must be, and what to do with it.
enum Kind<T: 'static> {
    Boolean(fn(&mut T, bool)),
    Integer(fn(&mut T, i64) -> Verdict),
    Text(fn(&mut T, &str) -> Verdict),
    Duration(fn(&mut T, Duration)),
    Seconds(fn(&mut T, Duration)),
    Other(&'static str, fn(&mut T, &Item<'_>, &mut Reading) -> Verdict),
    Block(fn(&mut T, &Item<'_>, &Map, &mut Reading)),
}

/// Whether a change of the key takes effect while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// On reload of the configuration.
    Live,
    /// At the next start only.
    Restart,
}

/// Whether the key does something in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It is honoured, or the start is refused where it cannot be.
    Works,
    /// It is checked and changes nothing.
    NoEffect,
    /// It belongs to this feature, which is not there yet.
    Unavailable(&'static str),
}

impl<T> Key<T> {
    const fn new(names: &'static [&'static str], default: &'static str, help: &'static str, kind: Kind<T>) -> Self {
        Self {
            names,
            kind,
            default,
            help,
            reload: Reload::Restart,
            status: Status::Works,
            inner: None,
            compare: None,
            field: "",
        }
    }

    /// `true false yes no on off`.
    pub(super) const fn boolean(
        names: &'static [&'static str],
        default: &'static str,
        help: &'static str,
        set: fn(&mut T, bool),
    ) -> Self {
        Self::new(names, default, help, Kind::Boolean(set))
    }

    /// A whole number, possibly with a suffix.
    pub(super) const fn integer(
        names: &'static [&'static str],
        default: &'static str,
        help: &'static str,
        set: fn(&mut T, i64) -> Verdict,
    ) -> Self {
        Self::new(names, default, help, Kind::Integer(set))
    }

    /// Text.
    pub(super) const fn text(
        names: &'static [&'static str],
        default: &'static str,
        help: &'static str,
        set: fn(&mut T, &str) -> Verdict,
    ) -> Self {
        Self::new(names, default, help, Kind::Text(set))
    }

    /// A duration with its unit. A bare number means seconds and is warned about.
    pub(super) const fn duration(
        names: &'static [&'static str],
        default: &'static str,
        help: &'static str,
        set: fn(&mut T, Duration),
    ) -> Self {
        Self::new(names, default, help, Kind::Duration(set))
    }

    /// A number of seconds or a duration with its unit.
    pub(super) const fn seconds(
        names: &'static [&'static str],
        default: &'static str,
        help: &'static str,
        set: fn(&mut T, Duration),
    ) -> Self {
        Self::new(names, default, help, Kind::Seconds(set))
    }

    /// Anything else; `what` names it in the sample.
    pub(super) const fn other(
        names: &'static [&'static str],
        what: &'static str,
        default: &'static str,
        help: &'static str,
        set: fn(&mut T, &Item<'_>, &mut Reading) -> Verdict,
    ) -> Self {
        Self::new(names, default, help, Kind::Other(what, set))
    }

    /// A map whose keys `rows` lists.
    pub(super) const fn block(
        names: &'static [&'static str],
        help: &'static str,
        read: fn(&mut T, &Item<'_>, &Map, &mut Reading),
        rows: fn() -> Vec<Row>,
    ) -> Self {
        Self::new(names, "", help, Kind::Block(read)).entries(rows)
    }

    /// Tells what stands inside, where a value is a list of maps or has several forms.
    pub(super) const fn entries(mut self, rows: fn() -> Vec<Row>) -> Self {
        self.inner = Some(rows);
        self
    }

    /// Marks a key that a reload can change.
    pub(super) const fn live(mut self) -> Self {
        self.reload = Reload::Live;
        self
    }

    /// Tells how values are compared.
    pub(super) const fn compared(mut self, compare: Compare<T>) -> Self {
        self.compare = Some(compare);
        self
    }

    /// Names the setting in messages.
    pub(super) const fn field(mut self, name: &'static str) -> Self {
        self.field = name;
        self
    }

    /// Whether a reload changes the key's value from `old` to `new`, and the key may be changed so.
    pub(super) fn change(&self, old: &T, new: &T) -> Option<KeyChange> {
        let compare = self.compare.as_ref().filter(|compare| (compare.differ)(old, new))?;
        Some(KeyChange {
            key: self.names[0],
            field: if self.field.is_empty() { self.names[0] } else { self.field },
            reload: self.reload,
            old: (compare.show)(old),
            new: (compare.show)(new),
        })
    }

    /// Marks a key that changes nothing yet.
    pub(super) const fn without_effect(mut self) -> Self {
        self.status = Status::NoEffect;
        self
    }

    /// Marks a key of a feature that is not there yet.
    pub(super) const fn of(mut self, feature: &'static str) -> Self {
        self.status = Status::Unavailable(feature);
        self
    }

    fn is_called(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    fn apply(&self, target: &mut T, item: &Item<'_>, reading: &mut Reading) -> Verdict {
        let named = |what: String| format!("field \"{}\": {what}", item.key);
        match &self.kind {
            Kind::Boolean(set) => set(target, read::boolean(item.node).map_err(named)?),
            Kind::Integer(set) => read::integer(item.node).and_then(|number| set(target, number)).map_err(named)?,
            Kind::Text(set) => set(target, read::text(item.node).map_err(named)?)?,
            Kind::Seconds(set) => set(target, read::seconds(item.node).map_err(named)?),
            Kind::Other(_, set) => set(target, item, reading)?,
            Kind::Duration(set) => {
                if matches!(item.node.value, Value::Integer(_) | Value::Float(_)) {
                    let what = format!(
                        "invalid use of field \"{0}\": {0} should be converted to a duration such as \"2s\" or \"1m\"",
                        item.key
                    );
                    reading.warn(item.at, what);
                }
                set(target, read::seconds(item.node).map_err(named)?);
            }
            Kind::Block(read) => match &item.node.value {
                Value::Map(map) => read(target, item, map, reading),
                other => return Err(format!("expected {} to be a map, got {}", item.key, other.kind())),
            },
        }
        Ok(())
    }

    fn row(&self) -> Row {
        let what = match &self.kind {
            Kind::Boolean(_) => "boolean",
            Kind::Integer(_) => "integer",
            Kind::Text(_) => "string",
            Kind::Duration(_) => "duration",
            Kind::Seconds(_) => "seconds or duration",
            Kind::Other(what, _) => what,
            Kind::Block(_) => "map",
        };
        Row {
            names: self.names,
            what,
            is_block: matches!(self.kind, Kind::Block(_)),
            default: self.default,
            help: self.help,
            reload: self.reload,
            status: self.status,
            inner: self.inner.map(|rows| rows()).unwrap_or_default(),
        }
    }
}

/// A value that is another one when the file is read again.
pub(super) struct KeyChange {
    /// The key's first name.
    pub(super) key: &'static str,
    /// The setting's name in messages.
    pub(super) field: &'static str,
    pub(super) reload: Reload,
    pub(super) old: String,
    pub(super) new: String,
}

/// What a table says about a key, without what it does.
pub(super) struct Row {
    pub(super) names: &'static [&'static str],
    pub(super) what: &'static str,
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    pub(super) reload: Reload,
    pub(super) status: Status,
    /// Whether the value is a map and nothing else.
    pub(super) is_block: bool,
    /// The keys inside.
    pub(super) inner: Vec<Row>,
}

/// All keys of a table.
pub(super) fn rows<T>(keys: &[Key<T>]) -> Vec<Row> {
    keys.iter().map(Key::row).collect()
}

/// A key as it stands in a file.
pub(super) struct Item<'a> {
    /// The spelling of the file.
    pub(super) key: &'a str,
    /// Where the key stands.
    pub(super) at: &'a Position,
    /// The value.
    pub(super) node: &'a Node,
    /// A variable refers to it.
    is_variable: bool,
}

/// The keys of a map.
pub(super) fn items(map: &Map) -> impl Iterator<Item = Item<'_>> {
    map.entries().map(|(key, entry)| Item { key, at: &entry.key_at, node: &entry.node, is_variable: entry.is_variable })
}

/// Whether one of these keys is called so.
pub(super) fn has_key<T>(tables: &[&[Key<T>]], name: &str) -> bool {
    tables.iter().copied().flatten().any(|key| key.is_called(name))
}

/// Something to tell about a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The place.
    pub at: Position,
    /// What is to be said.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// What reading a configuration has found.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// What makes the configuration unusable.
    pub(super) errors: Vec<Finding>,
    /// What a test of the configuration fails for, and a start does not.
    pub(super) warnings: Vec<Finding>,
    /// Keys without effect: one line for each feature.
    pub(super) notices: Vec<Finding>,
    features: Vec<&'static str>,
}

impl Reading {
    pub(super) fn error(&mut self, at: &Position, what: impl Into<String>) {
        self.errors.push(Finding { at: at.clone(), what: what.into() });
    }

    pub(super) fn warn(&mut self, at: &Position, what: impl Into<String>) {
        self.warnings.push(Finding { at: at.clone(), what: what.into() });
    }

    /// Reads a map by a table.
    pub(super) fn keys<T>(&mut self, map: &Map, keys: &[Key<T>], target: &mut T) {
        self.keys_of("", map, &[keys], target);
    }

    /// Reads a map by tables that belong together; `context` begins the message about an unknown key.
    pub(super) fn keys_of<T>(&mut self, context: &str, map: &Map, tables: &[&[Key<T>]], target: &mut T) {
        for item in items(map) {
            if !self.key(&item, tables, target) {
                self.unknown(context, &item, "");
            }
        }
    }

    /// Reads one key by tables that belong together. Whether it stands in one of them.
    pub(super) fn key<T>(&mut self, item: &Item<'_>, tables: &[&[Key<T>]], target: &mut T) -> bool {
        let Some(key) = tables.iter().copied().flatten().find(|key| key.is_called(item.key)) else {
            return false;
        };
        if let Err(what) = key.apply(target, item, self) {
            self.error(item.at, what);
        }
        self.note(key.status, item);
        true
    }

    /// Reports a key that stands in no table, unless a variable refers to it: such a key may have any name.
    pub(super) fn unknown(&mut self, context: &str, item: &Item<'_>, hint: &str) {
        if !item.is_variable {
            self.error(item.at, format!("{context}unknown field \"{}\"{hint}", item.key.escape_debug()));
        }
    }

    fn note(&mut self, status: Status, item: &Item<'_>) {
        let what = match status {
            _ if is_off(&item.node.value) => return,
            Status::Works => return,
            Status::NoEffect => format!("\"{}\" has no effect in this version", item.key),
            Status::Unavailable(feature) => {
                if self.features.contains(&feature) {
                    return;
                }
                self.features.push(feature);
                format!("{feature} is not available in this version; \"{}\" has no effect", item.key)
            }
        };
        self.notices.push(Finding { at: item.at.clone(), what });
    }
}

/// Whether a value says that something is not wanted.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Boolean(on) => !on,
        Value::Text(text) => matches!(text.as_str(), "disabled" | "false"),
        _ => false,
    }
}
