//! The reference's words for what is refused. Clients pass them on to applications as they are.
#![forbid(unsafe_code)]

pub(super) const INVALID_CONNECT: &str = "stan: invalid connection request";
pub(super) const INVALID_CLIENT_ID: &str =
    "stan: invalid clientID: only alphanumeric and `-` or `_` characters allowed";
pub(super) const CLIENT_REGISTERED: &str = "stan: clientID already registered";
pub(super) const INVALID_CLOSE: &str = "stan: invalid close request";
pub(super) const UNKNOWN_CLIENT: &str = "stan: unknown clientID";
pub(super) const CLIENT_REPLACED: &str = "client has been replaced or is no longer registered";
pub(super) const INVALID_PUBLISH: &str = "stan: invalid publish request";
pub(super) const TOO_MANY_CHANNELS: &str = "too many channels";
pub(super) const INVALID_SUBSCRIBE: &str = "stan: invalid subscription request";
pub(super) const CLIENT_MISSING: &str = "stan: clientID missing";
pub(super) const INVALID_ACK_WAIT: &str = "stan: invalid ack wait time, should be >= 1s";
pub(super) const INVALID_MAX_IN_FLIGHT: &str = "stan: invalid MaxInflight, should be >= 1";
pub(super) const INVALID_START: &str = "stan: invalid start position";
pub(super) const INVALID_SUBJECT: &str = "stan: invalid subject";
pub(super) const INVALID_DURABLE_QUEUE: &str =
    "stan: durable name of a durable queue subscriber can't contain the character ':'";
pub(super) const DUPLICATE_DURABLE: &str = "stan: duplicate durable registration";
pub(super) const TOO_MANY_SUBSCRIPTIONS: &str = "too many subscriptions per channel";
pub(super) const INVALID_UNSUBSCRIBE: &str = "stan: invalid unsubscribe request";
pub(super) const UNKNOWN_CHANNEL: &str = "stan: unknown channel";
pub(super) const INVALID_SUBSCRIPTION: &str = "stan: invalid subscription";
/// Not the reference's: its disk being full is an error of its file system.
pub(super) const NO_SPACE: &str = "stan: no space left for messages";

/// Another channel has this name in other letters. The misspelling is on the wire.
pub(super) fn other_case(name: &str, existing: &str) -> String {
    format!("rejecting channel {name:?} because channel {existing:?} alreay exists (different cases not allowed)")
}
