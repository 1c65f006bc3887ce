//! What the instances of the service say to each other.
#![forbid(unsafe_code)]

use prost::Message as _;

use super::records::ClientRecord;

/// Something said to another instance. Fields named `request` are payloads as clients have sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// To a channel's home: a publish.
    Publish { reply: &'a [u8], request: &'a [u8] },
    /// To a channel's home: a subscription.
    Subscribe { reply: &'a [u8], request: &'a [u8] },
    /// To a channel's home: the end of a subscription. A durable one goes too.
    Unsubscribe { reply: &'a [u8], request: &'a [u8] },
    /// To a channel's home: the end of a subscription. A durable one stays.
    CloseSubscription { reply: &'a [u8], request: &'a [u8] },
    /// To the directory: a client wants to be known.
    Connect { reply: &'a [u8], request: &'a [u8] },
    /// To all: this client is closing. Each passes it on to the directory, and by then has done everything that the
    /// client has sent before.
    Closing(Closing<'a>),
    /// To the directory: one of the instances has come to this.
    Closed(Closing<'a>),
    /// To all: this client is known now.
    Up(ClientRecord),
    /// To all: it is known no longer.
    Down { id: &'a str },
    /// To all: whether a client leaves heartbeats without an answer.
    Silent { id: &'a str, is_silent: bool },
    /// To the directory: a client that leaves heartbeats without an answer has sent a ping.
    Pinged { id: &'a str },
}

/// A client's wish to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Closing<'a> {
    /// The shard that it came to.
    pub(super) shard: u16,
    /// Counted by that shard.
    pub(super) number: u64,
    pub(super) id: &'a str,
    pub(super) reply: &'a [u8],
}

const PUBLISH: u8 = 1;
const SUBSCRIBE: u8 = 2;
const UNSUBSCRIBE: u8 = 3;
const CLOSE_SUBSCRIPTION: u8 = 4;
const CONNECT: u8 = 5;
const CLOSING: u8 = 6;
const CLOSED: u8 = 7;
const UP: u8 = 8;
const DOWN: u8 = 9;
const SILENT: u8 = 10;
const ANSWERS: u8 = 11;
const PINGED: u8 = 12;

impl<'a> Said<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut pair = |kind: u8, first: &[u8], second: &[u8]| {
            out.push(kind);
            out.extend_from_slice(&(first.len() as u32).to_le_bytes());
            out.extend_from_slice(first);
            out.extend_from_slice(second);
        };
        match self {
            Self::Publish { reply, request } => pair(PUBLISH, reply, request),
            Self::Subscribe { reply, request } => pair(SUBSCRIBE, reply, request),
            Self::Unsubscribe { reply, request } => pair(UNSUBSCRIBE, reply, request),
            Self::CloseSubscription { reply, request } => pair(CLOSE_SUBSCRIPTION, reply, request),
            Self::Connect { reply, request } => pair(CONNECT, reply, request),
            Self::Closing(closing) => closing.encode(CLOSING, out),
            Self::Closed(closing) => closing.encode(CLOSED, out),
            Self::Up(record) => pair(UP, b"", &record.encode_to_vec()),
            Self::Down { id } => pair(DOWN, b"", id.as_bytes()),
            Self::Silent { id, is_silent: true } => pair(SILENT, b"", id.as_bytes()),
            Self::Silent { id, is_silent: false } => pair(ANSWERS, b"", id.as_bytes()),
            Self::Pinged { id } => pair(PINGED, b"", id.as_bytes()),
        }
    }

    /// `None` at bytes that [`Said::encode`] does not make.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (reply, request) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let id = || std::str::from_utf8(request).ok();
        Some(match kind {
            PUBLISH => Self::Publish { reply, request },
            SUBSCRIBE => Self::Subscribe { reply, request },
            UNSUBSCRIBE => Self::Unsubscribe { reply, request },
            CLOSE_SUBSCRIPTION => Self::CloseSubscription { reply, request },
            CONNECT => Self::Connect { reply, request },
            CLOSING => Self::Closing(Closing::decode(reply, request)?),
            CLOSED => Self::Closed(Closing::decode(reply, request)?),
            UP => Self::Up(ClientRecord::decode(request).ok()?),
            DOWN => Self::Down { id: id()? },
            SILENT => Self::Silent { id: id()?, is_silent: true },
            ANSWERS => Self::Silent { id: id()?, is_silent: false },
            PINGED => Self::Pinged { id: id()? },
            _ => return None,
        })
    }
}

impl<'a> Closing<'a> {
    fn encode(&self, kind: u8, out: &mut Vec<u8>) {
        out.push(kind);
        out.extend_from_slice(&(self.reply.len() as u32).to_le_bytes());
        out.extend_from_slice(self.reply);
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(self.id.as_bytes());
    }

    fn decode(reply: &'a [u8], rest: &'a [u8]) -> Option<Self> {
        let (shard, rest) = rest.split_first_chunk()?;
        let (number, id) = rest.split_first_chunk()?;
        let id = std::str::from_utf8(id).ok()?;
        Some(Self { shard: u16::from_le_bytes(*shard), number: u64::from_le_bytes(*number), id, reply })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let (reply, request, id) = (&b"_INBOX.1"[..], &b"\x0a\x01x"[..], "me");
        let closing = Closing { shard: 3, number: 1 << 40, id, reply };
        let record = ClientRecord { id: "me".into(), hb_inbox: "hb".into(), conn_id: b"c\0".to_vec() };
        for said in [
            Said::Publish { reply, request },
            Said::Publish { reply: b"", request: b"" },
            Said::Subscribe { reply, request },
            Said::Unsubscribe { reply, request },
            Said::CloseSubscription { reply, request },
            Said::Connect { reply, request },
            Said::Closing(closing),
            Said::Closed(closing),
            Said::Up(record),
            Said::Down { id },
            Said::Silent { id, is_silent: true },
            Said::Silent { id, is_silent: false },
            Said::Pinged { id },
        ] {
            let mut bytes = Vec::new();
            said.encode(&mut bytes);
            assert_eq!(Said::decode(&bytes), Some(said));
        }
        assert_eq!(Said::decode(b""), None);
        assert_eq!(Said::decode(b"\x01\xff\0\0\0"), None);
        assert_eq!(Said::decode(b"\x63\0\0\0\0"), None);
    }
}
