//! What a consumer tells besides its answers.

use super::members::MemberId;
use super::requests::RequestId;

/// Something that happened. Taken with [`super::Consumer::drain_events`], in the order in which they happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Messages `first..=last` need nothing more from this consumer: acknowledged, terminated, or delivered where no
    /// acknowledgement is asked for. For streams that keep messages only as long as somebody wants them.
    Acknowledged {
        /// First sequence number in the stream.
        first: u64,
        /// Last sequence number in the stream.
        last: u64,
    },
    /// A message has been delivered as often as it may and is given up. It stays in the stream.
    MaxDeliveries {
        /// Sequence number in the stream.
        seq: u64,
        /// The number of its first delivery.
        consumer_seq: u64,
        /// How often it was delivered.
        deliveries: u32,
    },
    /// An unacknowledged message was terminated.
    Terminated {
        /// Sequence number in the stream.
        seq: u64,
        /// The number of its first delivery.
        consumer_seq: u64,
        /// How often it was delivered.
        deliveries: u32,
        /// Who did.
        by: TerminatedBy,
    },
    /// A pull request is over. Not told for those that were cancelled.
    RequestEnded {
        /// Which.
        request: RequestId,
        /// Why.
        reason: Ended,
        /// Messages it still wanted.
        messages_left: u32,
        /// Bytes it could still take; zero if it set no limit.
        bytes_left: u64,
    },
    /// A member that takes no more messages has none left to acknowledge.
    Drained(MemberId),
    /// There has been no member and no pull request for as long as the configuration allows.
    Inactive,
}

/// Who terminated a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminatedBy {
    /// A client.
    Client,
    /// The stream, which does not hold it any longer.
    Removal,
}

/// Why a pull request is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has got all it asked for.
    Fulfilled,
    /// It has got all its messages, and could have taken more bytes.
    BatchCompleted,
    /// The next message is larger than what is left of its bytes.
    BytesExceeded,
    /// Its time is up.
    Expired,
    /// It does not wait and there are no more messages.
    NoMessages,
    /// The consumer is being deleted.
    Deleted,
}
