//! What operators are told of subscriptions, in the reference's words.

use std::fmt;

use crate::streaming::errors;
use crate::streaming::pb::{StartPosition, SubscriptionRequest};
use crate::streaming::records::{GroupRecord, MemberRecord};

/// Most bytes of a text from a client in a line.
const TEXT_BYTES_MAX: usize = 256;

/// Text of a client, which may be no text.
#[derive(Clone, Copy)]
pub(in crate::streaming) struct Text<'a>(pub(in crate::streaming) &'a [u8]);

impl Text<'_> {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0[..self.0.len().min(TEXT_BYTES_MAX)])
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text(), f)
    }
}

/// The name of what a subscription belongs to.
struct Name<'a>(&'a GroupRecord);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.is_queue(), self.0.is_durable()) {
            (true, _) => write!(f, " queue={},", self.0.queue_name()),
            (false, true) => write!(f, " durable={},", self.0.durable),
            (false, false) => Ok(()),
        }
    }
}

/// With which message a subscription begins, if it is a new one, and what was asked for.
pub(super) struct Begins<'a>(pub(super) Option<(&'a SubscriptionRequest, u64)>);

impl fmt::Display for Begins<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((request, seq)) = self.0 else { return Ok(()) };
        f.write_str(", sending ")?;
        match StartPosition::try_from(request.start_position).unwrap_or(StartPosition::NewOnly) {
            StartPosition::NewOnly => write!(f, "new-only, seq={seq}"),
            StartPosition::LastReceived => write!(f, "last message, seq={seq}"),
            StartPosition::First => write!(f, "from beginning, seq={seq}"),
            StartPosition::SequenceStart => {
                write!(f, "from sequence, asked_seq={} actual_seq={seq}", request.start_sequence)
            }
            StartPosition::TimeDeltaStart => write!(f, "from time delta={}ns seq={seq}", request.start_time_delta),
        }
    }
}

/// A subscription has begun, or ended.
pub(super) fn subscription(
    change: &str,
    channel: &str,
    what: &GroupRecord,
    record: &MemberRecord,
    begins: &Begins<'_>,
) {
    let durable = if what.is_durable() { "durable " } else { "" };
    let queue = if what.is_queue() { "queue " } else { "" };
    let (MemberRecord { client_id, inbox, number, .. }, name) = (record, Name(what));
    tracing::debug!(
        "STREAM: [Client:{client_id}] {change} {durable}{queue}subscription, subject={channel}, inbox={inbox},{name} \
         subid={number}{begins}"
    );
}

/// A request makes no sense; `error` is the answer to it.
pub(super) fn bad_request(request: &SubscriptionRequest, error: &str, cluster_id: &str) {
    let (client, from) = (Text(request.client_id.as_bytes()), format_args!("_STAN.sub.{cluster_id}"));
    let (what, value): (&str, &dyn fmt::Display) = match error {
        errors::CLIENT_MISSING => {
            tracing::error!("STREAM: Missing ClientID in subscription request from {from}");
            return;
        }
        errors::INVALID_ACK_WAIT => ("AckWait", &format_args!("({})", request.ack_wait_in_secs)),
        errors::INVALID_MAX_IN_FLIGHT => ("MaxInflight", &format_args!("({})", request.max_in_flight)),
        errors::INVALID_START => ("StartPosition", &format_args!("({})", request.start_position)),
        _ => ("channel", &format_args!("{:?}", Text(request.subject.as_bytes()))),
    };
    tracing::error!("STREAM: [Client:{client}] Invalid {what} {value} in subscription request from {from}");
}
