//! What the service keeps in the store beside messages and cursors.
//!
//! | Where | What |
//! |---|---|
//! | the *meta* of a stream | [`ChannelRecord`], behind [`CHANNEL`] |
//! | the *meta* of a consumer | [`GroupRecord`]: one subscription, or a queue group |
//! | the set of each log, key [`IDENTITY`] | [`Identity`] |
//! | the set of log 0, keys from [`CLIENT`] on | [`ClientRecord`] by client id |
//! | the set of each log, keys from [`MEMBER`] on | [`MemberRecord`] by stream, consumer and number |
//!
//! Stored as protobuf, so that fields can be added.
#![forbid(unsafe_code)]

use crate::store::ConsumerKey;

/// What the meta of a channel's stream begins with.
pub(super) const CHANNEL: &[u8] = b"stan\0";
pub(super) const IDENTITY: &[u8] = b"I";
pub(super) const CLIENT: u8 = b'C';
pub(super) const MEMBER: u8 = b'M';

/// Whose set it is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Identity {
    #[prost(string, tag = "1")]
    pub(super) cluster_id: String,
    /// What the subjects for acknowledgements of the log's subscriptions begin with.
    #[prost(string, tag = "2")]
    pub(super) ack_tag: String,
}

/// A client.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ClientRecord {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) hb_inbox: String,
    /// Empty for clients of protocol 0.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) conn_id: Vec<u8>,
}

/// A channel.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ChannelRecord {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

/// What a consumer is: empty fields for what it is not.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct GroupRecord {
    /// Client id of a durable subscription that is no group.
    #[prost(string, tag = "1")]
    pub(super) client_id: String,
    #[prost(string, tag = "2")]
    pub(super) durable: String,
    #[prost(string, tag = "3")]
    pub(super) queue: String,
}

/// A subscription, or a member of a group.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MemberRecord {
    #[prost(string, tag = "1")]
    pub(super) client_id: String,
    #[prost(string, tag = "2")]
    pub(super) inbox: String,
    /// The end of the subject for acknowledgements.
    #[prost(uint64, tag = "3")]
    pub(super) number: u64,
    #[prost(uint32, tag = "4")]
    pub(super) max_in_flight: u32,
    #[prost(uint32, tag = "5")]
    pub(super) ack_wait_secs: u32,
    /// It has left, and was the last one of something durable.
    #[prost(bool, tag = "6")]
    pub(super) offline: bool,
}

impl GroupRecord {
    pub(super) fn is_durable(&self) -> bool {
        !self.durable.is_empty()
    }

    pub(super) fn is_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether it is found again by its name.
    pub(super) fn is_named(&self) -> bool {
        self.is_durable() || self.is_queue()
    }

    /// The name of a group as monitoring shows it; empty for others.
    pub(super) fn queue_name(&self) -> String {
        match (self.is_queue(), self.is_durable()) {
            (false, _) => String::new(),
            (true, false) => self.queue.clone(),
            (true, true) => format!("{}:{}", self.durable, self.queue),
        }
    }
}

/// The key of a client.
pub(super) fn client_key(id: &str) -> Vec<u8> {
    [&[CLIENT], id.as_bytes()].concat()
}

/// The key of a member.
pub(super) fn member_key(group: ConsumerKey, number: u64) -> Vec<u8> {
    let mut key = vec![MEMBER];
    key.extend_from_slice(&group.stream.get().to_be_bytes());
    key.extend_from_slice(&group.number.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Stream and consumer of a member's key.
pub(super) fn group_of(key: &[u8]) -> Option<ConsumerKey> {
    let (stream, rest) = key.strip_prefix(&[MEMBER])?.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    let stream = crate::log::Incarnation::new(u64::from_be_bytes(*stream))?;
    Some(ConsumerKey { stream, number: u32::from_be_bytes(*number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let group = ConsumerKey { stream: crate::log::Incarnation::new(7).unwrap(), number: 9 };
        assert_eq!(group_of(&member_key(group, 3)), Some(group));
        assert_eq!(group_of(&client_key("abcdefghijklmnop")), None);
        assert_eq!(group_of(b"M"), None);
    }
}
