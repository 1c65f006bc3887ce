//! What a stream is told to be.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::interned::Interner;
use crate::log::Time;

/// Most ids that a stream remembers, unless its configuration says otherwise: 4 Mi, about 96 MiB.
pub const DUPLICATE_IDS_MAX: u32 = 4 << 20;

/// A stream's configuration as its record in the log holds it. `None` is "no limit" everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// When its messages count as kept.
    pub durability: Durability,
    /// Most messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_messages: Option<u64>,
    /// Most bytes, as [`Config::accounting`] counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Greatest age in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
    /// Most bytes of headers and payload of one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_message_bytes: Option<u32>,
    /// Most messages of one subject. Up to 64, every message is known; beyond, the oldest ones are looked for by reading,
    /// and a stream that discards new messages for want of bytes counts the room of the one that would give way only
    /// if it is among the oldest of the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_subject: Option<u64>,
    /// What gives way when the stream is full.
    pub discard: Discard,
    /// Whether a message for a full subject is refused; otherwise the subject's oldest gives way, whatever `discard`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub discard_new_per_subject: bool,
    /// Whether the newest message stays although it alone exceeds `max_bytes`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_newest: bool,
    /// When messages go that no limit touches.
    pub retention: Retention,
    /// Number of the first message; zero means one.
    pub first_seq: u64,
    /// How long ids are remembered, in nanoseconds; zero for not at all.
    pub duplicate_window: i64,
    /// Most ids remembered; beyond it the oldest are forgotten early.
    pub duplicate_ids_max: u32,
    /// Whether messages may have a time of their own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_expiry: bool,
    /// How the size of a message is counted.
    pub accounting: Accounting,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            durability: Durability::Flushed,
            max_messages: None,
            max_bytes: None,
            max_age: None,
            max_message_bytes: None,
            max_per_subject: None,
            discard: Discard::Old,
            discard_new_per_subject: false,
            keep_newest: false,
            retention: Retention::Limits,
            first_seq: 0,
            duplicate_window: 0,
            duplicate_ids_max: DUPLICATE_IDS_MAX,
            allow_expiry: false,
            accounting: Accounting { fixed: 30, headers_extra: 4 },
        }
    }
}

/// When messages count as kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When they are flushed: nothing is acknowledged or seen before.
    Flushed,
    /// When they are written; flushes come now and then.
    Interval,
    /// At once, in memory only.
    Memory,
}

/// What gives way when a stream is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// The oldest messages.
    Old,
    /// The message that comes: it is refused.
    New,
}

/// When messages go that no limit touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// Never.
    Limits,
    /// When all that are interested have acknowledged them.
    Interest,
    /// When they are acknowledged.
    WorkQueue,
}

/// The size of a message: its subject, headers and payload, and what is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Accounting {
    /// Bytes added to each.
    pub fixed: u32,
    /// Bytes added to those with headers.
    pub headers_extra: u32,
}

impl Accounting {
    /// The size of a message with parts of these lengths, in bytes.
    #[must_use]
    pub fn size(self, subject: usize, headers: usize, payload: usize) -> u32 {
        let extra = if headers == 0 { 0 } else { self.headers_extra as usize };
        u32::try_from(self.fixed as usize + extra + subject + headers + payload).unwrap_or(u32::MAX)
    }
}

/// Why a configuration is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A limit of zero would let nothing in.
    ZeroLimit(&'static str),
    /// A duration is negative.
    NegativeDuration(&'static str),
    /// `discard_new_per_subject` needs `discard: new`.
    NewPerSubjectWithoutNew,
    /// `discard_new_per_subject` needs `max_per_subject`.
    NewPerSubjectWithoutLimit,
    /// `first_seq` leaves no room for messages.
    FirstSeqTooLarge,
    /// An update may not change this.
    Fixed(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroLimit(name) => write!(f, "{name} must be greater than zero"),
            Self::NegativeDuration(name) => write!(f, "{name} must not be negative"),
            Self::NewPerSubjectWithoutNew => write!(f, "discard_new_per_subject needs discard new"),
            Self::NewPerSubjectWithoutLimit => write!(f, "discard_new_per_subject needs max_per_subject"),
            Self::FirstSeqTooLarge => write!(f, "first_seq is too large"),
            Self::Fixed(name) => write!(f, "{name} cannot be changed"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Largest sequence number. Twice as many would still fit: the index uses one bit.
pub(super) const SEQ_MAX: u64 = u64::MAX >> 1;

thread_local! {
    static SHARED: RefCell<Interner<Config>> = RefCell::default();
}

impl Config {
    /// The one of all that are equal.
    pub(super) fn shared(self) -> Arc<Self> {
        SHARED.with_borrow_mut(|shared| shared.share(self))
    }

    /// Checks what the fields do not say by their types.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = [
            ("max_messages", self.max_messages),
            ("max_bytes", self.max_bytes),
            ("max_message_bytes", self.max_message_bytes.map(u64::from)),
            ("max_per_subject", self.max_per_subject),
        ];
        if let Some((name, _)) = limits.iter().find(|(_, limit)| *limit == Some(0)) {
            return Err(ConfigError::ZeroLimit(name));
        }
        if self.max_age.is_some_and(|age| age <= 0) {
            return Err(ConfigError::NegativeDuration("max_age"));
        }
        if self.duplicate_window < 0 {
            return Err(ConfigError::NegativeDuration("duplicate_window"));
        }
        if self.discard_new_per_subject && self.discard != Discard::New {
            return Err(ConfigError::NewPerSubjectWithoutNew);
        }
        if self.discard_new_per_subject && self.max_per_subject.is_none() {
            return Err(ConfigError::NewPerSubjectWithoutLimit);
        }
        if self.first_seq > SEQ_MAX / 2 {
            return Err(ConfigError::FirstSeqTooLarge);
        }
        Ok(())
    }

    /// Checks `next` as a successor of this configuration.
    ///
    /// # Errors
    /// What [`Config::validate`] says of it, or the name of what may not change.
    pub fn validate_update(&self, next: &Self) -> Result<(), ConfigError> {
        next.validate()?;
        if (self.durability == Durability::Memory) != (next.durability == Durability::Memory) {
            return Err(ConfigError::Fixed("durability to or from memory"));
        }
        if self.accounting != next.accounting {
            return Err(ConfigError::Fixed("accounting"));
        }
        if self.first_seq != next.first_seq {
            return Err(ConfigError::Fixed("first_seq"));
        }
        Ok(())
    }

    /// Whether messages are kept in memory only.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.durability == Durability::Memory
    }

    /// Whether some limit takes the oldest messages away.
    pub(super) fn evicts_oldest(&self) -> bool {
        self.max_age.is_some()
            || self.retention != Retention::Limits
            || self.discard == Discard::Old && (self.max_messages.is_some() || self.max_bytes.is_some())
    }

    /// When a message of that time has reached the greatest age.
    pub(super) fn aged_at(&self, time: Time) -> Option<Time> {
        self.max_age.map(|age| time.saturating_add(age))
    }
}
