//! What a consumer is told at its creation, and what of it may change.

use std::cell::RefCell;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::interned::Interner;
use crate::log::Time;

/// The longest list of waits and of filters.
const LIST_MAX: usize = 1024;

/// Configuration of a consumer. Durations are nanoseconds.
///
/// Fields without a bound of their own are bounded by whoever creates consumers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it began. Cannot change.
    pub start: Start,
    /// Subjects of interest; empty for all. Matched by whoever finds messages for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// What counts as received. Cannot change.
    pub ack: AckPolicy,
    /// How long after a delivery its acknowledgement may take. Greater than zero.
    pub ack_wait_ns: i64,
    /// Waits after the first, second … delivery instead of `ack_wait_ns`; the last one repeats.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backoff_ns: Vec<i64>,
    /// How often a message is delivered at most; `None` without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deliver: Option<NonZeroU32>,
    /// How many messages may wait for acknowledgement, of all members together, before new ones are held back.
    /// Redeliveries are not. `None` without limit.
    pub max_ack_pending: Option<NonZeroU32>,
    /// How fast old messages come. Cannot change.
    pub pace: Pace,
    /// Whether payloads are left out by whoever sends the messages.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub headers_only: bool,
    /// How many members there may be. Cannot change.
    pub sharing: Sharing,
    /// Which member gets the next message.
    pub choice: Choice,
    /// Whether a redelivery goes to a member whose credit is used up. If not, only to the one that holds the message.
    pub overrun_credit: bool,
    /// What happens to messages that waited for acknowledgement when the only member comes back.
    pub on_return: OnReturn,
    /// How long after a member has left its messages go to the other members.
    pub handover_delay_ns: i64,
    /// Order of the redeliveries that one look at the deadlines finds.
    pub redelivery_order: RedeliveryOrder,
    /// How much before its deadline a message may be redelivered with others that are due. Saves wake-ups.
    pub timer_slack_ns: i64,
    /// Whether numbers of deliveries survive a restart.
    pub counts: Counts,
    /// Deadlines of unacknowledged messages after a restart.
    pub restart_deadline: RestartDeadline,
    /// Nothing is delivered before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_until: Option<Time>,
    /// Most bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// It ends after so long without members or pull requests; `None` never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactive_threshold_ns: Option<i64>,
    /// Whether it ends when its last member leaves.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ends_with_last_member: bool,
    /// How many pull requests may wait.
    pub max_waiting: NonZeroU32,
    /// Most messages of one pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch: Option<NonZeroU32>,
    /// Longest life of a pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_expires_ns: Option<i64>,
    /// Most bytes of one pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_bytes: Option<NonZeroU64>,
    /// Whether its state lives in memory only. Cannot change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub memory: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            start: Start::All,
            filters: Vec::new(),
            ack: AckPolicy::Explicit,
            ack_wait_ns: 30_000_000_000,
            backoff_ns: Vec::new(),
            max_deliver: None,
            max_ack_pending: NonZeroU32::new(1000),
            pace: Pace::Instant,
            headers_only: false,
            sharing: Sharing::Single,
            choice: Choice::FewestPending,
            overrun_credit: true,
            on_return: OnReturn::KeepDeadlines,
            handover_delay_ns: 100_000_000,
            redelivery_order: RedeliveryOrder::Sequence,
            timer_slack_ns: 1_000_000,
            counts: Counts::Kept,
            restart_deadline: RestartDeadline::FromNow,
            pause_until: None,
            rate: None,
            inactive_threshold_ns: None,
            ends_with_last_member: false,
            max_waiting: NonZeroU32::new(512).unwrap_or(NonZeroU32::MIN),
            max_batch: None,
            max_expires_ns: None,
            max_request_bytes: None,
            memory: false,
        }
    }
}

/// Where a consumer begins. Resolved once, at creation, to an [`super::Origin`]:
///
/// | start | origin |
/// |---|---|
/// | `All` | the stream's first sequence number |
/// | `New` | its last + 1 |
/// | `Last` | the newest matching message, else last + 1 |
/// | `LastPerSubject` | `each`: the newest message of every matching subject, ascending; then last + 1 |
/// | `Sequence(n)` | n, raised to the first; beyond the last, what the face demands: n itself or last + 1 |
/// | `Time(t)` | the first message stored at t or later, else last + 1. An age is a time before now. |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The oldest message.
    All,
    /// The next one stored.
    New,
    /// The newest one.
    Last,
    /// The newest one of each subject, then new ones.
    LastPerSubject,
    /// The one of that sequence number.
    Sequence(u64),
    /// The first one stored at that time or later.
    Time(Time),
}

/// What counts as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckPolicy {
    /// Delivered is received.
    None,
    /// An acknowledgement covers all that was delivered before.
    All,
    /// Each message is acknowledged alone.
    Explicit,
}

/// How fast old messages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// As fast as they are taken.
    Instant,
    /// With the pauses between them as when they were stored, until there are no old ones left.
    Original,
}

/// How many members there may be at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// One.
    Single,
    /// Several, each message for one of them.
    Group,
}

/// Which member gets the next message, of those that may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The one with the fewest unacknowledged messages; equal ones in turn.
    FewestPending,
    /// In turn.
    RoundRobin,
}

/// What happens to unacknowledged messages when the first member joins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReturn {
    /// All come again first, in order of their sequence numbers, whatever the credit.
    ResendAll,
    /// Each comes again when its wait is over.
    KeepDeadlines,
}

/// Order of redeliveries that are due together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedeliveryOrder {
    /// By sequence number in the stream.
    Sequence,
    /// By deadline, equal ones by sequence number.
    Deadline,
}

/// Whether numbers of deliveries survive a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// They do.
    Kept,
    /// Each unacknowledged message counts as delivered once.
    Forgotten,
}

/// Deadlines of unacknowledged messages after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartDeadline {
    /// The wait begins anew.
    FromNow,
    /// The wait is counted from the time the message was stored: old ones are due at once.
    FromStored,
}

/// A limit of bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes per second.
    pub bytes_per_second: NonZeroU64,
    /// Bytes that may be sent at once after a pause.
    pub burst_bytes: NonZeroU64,
}

/// Why a configuration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A duration that is negative, or zero where that makes no sense: the field's name.
    Duration(&'static str),
    /// More waits than deliveries.
    BackoffBeyondMaxDeliver,
    /// A list with too many elements: the field's name.
    TooLong(&'static str),
    /// A filter without text.
    EmptyFilter,
    /// The field cannot change.
    Fixed(&'static str),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration(field) => write!(f, "{field} must not be negative"),
            Self::BackoffBeyondMaxDeliver => write!(f, "max_deliver is less than the number of waits in backoff"),
            Self::TooLong(field) => write!(f, "{field} has more than {LIST_MAX} elements"),
            Self::EmptyFilter => write!(f, "a filter is empty"),
            Self::Fixed(field) => write!(f, "{field} cannot change"),
        }
    }
}

impl std::error::Error for Invalid {}

thread_local! {
    static SHARED: RefCell<Interner<Config>> = RefCell::default();
}

impl Config {
    /// The one of all that are equal.
    pub(super) fn shared(self) -> Arc<Self> {
        SHARED.with_borrow_mut(|shared| shared.share(self))
    }

    /// Checks what can be checked without the stream.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.ack_wait_ns <= 0 && self.ack != AckPolicy::None {
            return Err(Invalid::Duration("ack_wait"));
        }
        if self.backoff_ns.iter().any(|wait| *wait < 0) {
            return Err(Invalid::Duration("backoff"));
        }
        for (field, value) in [
            ("handover_delay", Some(self.handover_delay_ns)),
            ("timer_slack", Some(self.timer_slack_ns)),
            ("inactive_threshold", self.inactive_threshold_ns),
            ("max_expires", self.max_expires_ns),
        ] {
            if value.is_some_and(|value| value < 0) {
                return Err(Invalid::Duration(field));
            }
        }
        for (field, len) in [("backoff", self.backoff_ns.len()), ("filters", self.filters.len())] {
            if len > LIST_MAX {
                return Err(Invalid::TooLong(field));
            }
        }
        if self.max_deliver.is_some_and(|most| self.backoff_ns.len() > most.get() as usize) {
            return Err(Invalid::BackoffBeyondMaxDeliver);
        }
        if self.filters.iter().any(String::is_empty) {
            return Err(Invalid::EmptyFilter);
        }
        Ok(())
    }

    /// Checks that `self` may become `new`.
    pub(super) fn validate_change(&self, new: &Self) -> Result<(), Invalid> {
        new.validate()?;
        let fixed = [
            ("start", self.start == new.start),
            ("ack", self.ack == new.ack),
            ("pace", self.pace == new.pace),
            ("sharing", self.sharing == new.sharing),
            ("memory", self.memory == new.memory),
        ];
        fixed.iter().find(|(_, same)| !same).map_or(Ok(()), |(field, _)| Err(Invalid::Fixed(field)))
    }

    /// How long an acknowledgement may take after that many deliveries.
    pub(super) fn wait_ns(&self, deliveries: u32) -> i64 {
        let index = (deliveries.saturating_sub(1) as usize).min(self.backoff_ns.len().saturating_sub(1));
        self.backoff_ns.get(index).copied().unwrap_or(self.ack_wait_ns)
    }

    /// Whether a message has been delivered as often as it may.
    pub(super) fn used_up(&self, deliveries: u32) -> bool {
        self.max_deliver.is_some_and(|most| deliveries >= most.get())
    }
}
