//! What a configuration file says, before anybody asks what it means.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

/// A place in a configuration file. Lines and columns count from one; columns are characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The file, as the command line or the `include` spelled it.
    pub file: Arc<Path>,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text: bare, quoted, or a block.
    Text(String),
    /// A whole number, its suffix multiplied in.
    Integer(i64),
    /// A number with a decimal point.
    Float(f64),
    /// `true false yes no on off`.
    Boolean(bool),
    /// A date and time in UTC, as written: `2006-01-02T15:04:05Z`.
    DateTime(String),
    /// `[ … ]`
    Array(Vec<Node>),
    /// `{ … }`
    Map(Map),
}

impl Value {
    /// What kind of value this is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number with a decimal point",
            Self::Boolean(_) => "a boolean",
            Self::DateTime(_) => "a date and time",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
        }
    }
}

/// A value and where it begins. What a variable stands for keeps the place at which it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its first character.
    pub at: Position,
}

impl Node {
    /// How many values this one consists of, itself included.
    pub(super) fn size(&self) -> usize {
        1 + match &self.value {
            Value::Array(items) => items.iter().map(Self::size).sum(),
            Value::Map(map) => map.entries().map(|(_, entry)| entry.node.size()).sum(),
            _ => 0,
        }
    }
}

/// One key of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The value.
    pub node: Node,
    /// Where the key stands.
    pub key_at: Position,
    /// Whether a variable refers to it: such a key may have a name that means nothing otherwise.
    pub is_variable: bool,
}

/// Keys and values in the order of the file. Spellings that differ in letter case are different keys here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(IndexMap<String, Entry>);

impl Map {
    /// All keys.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A repeated key takes the later value, and keeps its place in the order.
    pub(super) fn insert(&mut self, key: String, mut entry: Entry) {
        if let Some(earlier) = self.0.get(&key) {
            entry.is_variable |= earlier.is_variable;
        }
        self.0.insert(key, entry);
    }

    /// What follows is as if `other` stood here.
    pub(super) fn merge(&mut self, other: Self) {
        for (key, entry) in other.0 {
            self.insert(key, entry);
        }
    }

    /// What the variable `name` stands for, if this map defines it.
    pub(super) fn resolve(&mut self, name: &str) -> Option<&Node> {
        let entry = self.0.get_mut(name)?;
        entry.is_variable = true;
        Some(&entry.node)
    }
}
