//! The messages that come and go by the million, read and written in place.
//!
//! The same bytes as [`pb`](super::pb) reads and writes, without a copy of each field. As there, unknown fields are
//! passed over and the last value of a field counts.
#![forbid(unsafe_code)]

use crate::log::varint;

/// A publish, see [`pb::PubMsg`](super::pb::PubMsg). Text is not checked to be UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PubMsg<'a> {
    pub(super) client_id: &'a [u8],
    pub(super) guid: &'a [u8],
    pub(super) channel: &'a [u8],
    pub(super) reply: &'a [u8],
    pub(super) data: &'a [u8],
    pub(super) conn_id: &'a [u8],
}

/// An acknowledgement, see [`pb::Ack`](super::pb::Ack).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ack<'a> {
    pub(super) channel: &'a [u8],
    pub(super) sequence: u64,
}

/// A delivery, see [`pb::MsgProto`](super::pb::MsgProto).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MsgProto<'a> {
    pub(super) sequence: u64,
    pub(super) channel: &'a [u8],
    pub(super) reply: &'a [u8],
    pub(super) data: &'a [u8],
    pub(super) timestamp: i64,
    /// How often it has been sent before.
    pub(super) redeliveries: u32,
    pub(super) crc32: u32,
}

/// The value of a field.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that no field here has.
    Other,
}

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// The next field and its number; `None` at bytes that make no sense.
#[inline]
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = varint::take(rest)?;
    let mut skip = |bytes: usize| {
        let (taken, behind) = rest.split_at_checked(bytes)?;
        *rest = behind;
        Some(taken)
    };
    let value = match key & 7 {
        VARINT => Value::Number(varint::take(rest)?),
        FIXED_64 => skip(8).map(|_| Value::Other)?,
        BYTES => {
            let length = usize::try_from(varint::take(rest)?).ok()?;
            let (taken, behind) = rest.split_at_checked(length)?;
            *rest = behind;
            Value::Bytes(taken)
        }
        FIXED_32 => skip(4).map(|_| Value::Other)?,
        _ => return None,
    };
    (key >> 3 != 0).then_some((key >> 3, value))
}

impl<'a> PubMsg<'a> {
    /// `None` if the bytes are no such message.
    #[inline]
    pub(super) fn decode(mut rest: &'a [u8]) -> Option<Self> {
        let mut message = Self::default();
        while !rest.is_empty() {
            let (number, value) = field(&mut rest)?;
            let target = match number {
                1 => &mut message.client_id,
                2 => &mut message.guid,
                3 => &mut message.channel,
                4 => &mut message.reply,
                5 => &mut message.data,
                6 => &mut message.conn_id,
                _ => continue,
            };
            let Value::Bytes(bytes) = value else { return None };
            *target = bytes;
        }
        Some(message)
    }
}

impl<'a> Ack<'a> {
    /// `None` if the bytes are no such message.
    #[inline]
    pub(super) fn decode(mut rest: &'a [u8]) -> Option<Self> {
        let mut ack = Self::default();
        while !rest.is_empty() {
            match field(&mut rest)? {
                (1, Value::Bytes(bytes)) => ack.channel = bytes,
                (2, Value::Number(number)) => ack.sequence = number,
                (1 | 2, _) => return None,
                _ => {}
            }
        }
        Some(ack)
    }
}

/// Bytes of a number.
const fn varint_bytes(value: u64) -> usize {
    // Seven bits each; zero takes one.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Bytes of a field with a number below 16; none of the default value.
const fn number_bytes(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_bytes(value) }
}

const fn text_bytes(length: usize) -> usize {
    if length == 0 { 0 } else { 1 + varint_bytes(length as u64) + length }
}

fn put_number(out: &mut Vec<u8>, number: u8, value: u64) {
    if value != 0 {
        out.push(number << 3);
        varint::push(out, value);
    }
}

fn put_text(out: &mut Vec<u8>, number: u8, text: &[u8]) {
    if !text.is_empty() {
        out.push(number << 3 | 2);
        varint::push(out, text.len() as u64);
        out.extend_from_slice(text);
    }
}

impl MsgProto<'_> {
    /// Its encoded size.
    #[inline]
    pub(super) fn encoded_bytes(&self) -> usize {
        let redelivered = u64::from(self.redeliveries > 0);
        number_bytes(self.sequence)
            + text_bytes(self.channel.len())
            + text_bytes(self.reply.len())
            + text_bytes(self.data.len())
            + number_bytes(self.timestamp as u64)
            + number_bytes(redelivered)
            + number_bytes(self.redeliveries.into())
            + number_bytes(self.crc32.into())
    }

    #[inline]
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, 1, self.sequence);
        put_text(out, 2, self.channel);
        put_text(out, 3, self.reply);
        put_text(out, 4, self.data);
        put_number(out, 5, self.timestamp as u64);
        put_number(out, 6, u64::from(self.redeliveries > 0));
        put_number(out, 7, self.redeliveries.into());
        put_number(out, 10, self.crc32.into());
    }
}

/// The size of an acknowledgement of a publish.
#[inline]
pub(super) fn pub_ack_bytes(guid: &[u8], error: &[u8]) -> usize {
    text_bytes(guid.len()) + text_bytes(error.len())
}

/// An acknowledgement of a publish, see [`pb::PubAck`](super::pb::PubAck).
#[inline]
pub(super) fn put_pub_ack(out: &mut Vec<u8>, guid: &[u8], error: &[u8]) {
    put_text(out, 1, guid);
    put_text(out, 2, error);
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::pb;
    use super::*;

    /// What these read and write is what the general code does.
    #[test]
    fn as_the_general_code() {
        let message = pb::PubMsg {
            client_id: "me".into(),
            guid: "guid".into(),
            subject: "foo.bar".into(),
            reply: "r".into(),
            data: vec![7; 300].into(),
            conn_id: "conn".into(),
            sha256: "digest".into(),
        };
        let bytes = message.encode_to_vec();
        let read = PubMsg::decode(&bytes).unwrap();
        let expected = PubMsg {
            client_id: b"me",
            guid: b"guid",
            channel: b"foo.bar",
            reply: b"r",
            data: &[7; 300],
            conn_id: b"conn",
        };
        assert_eq!(read, expected);
        for upto in 0..bytes.len() {
            assert_eq!(PubMsg::decode(&bytes[..upto]).is_some(), pb::PubMsg::decode(&bytes[..upto]).is_ok(), "{upto}");
        }
        for (sequence, redeliveries, crc32) in
            [(0, 0, 0), (1, 0, 1), (127, 1, 127), (128, 2, 1 << 31), (u64::MAX, 300, u32::MAX)]
        {
            for text in [&b""[..], b"a", &[b'x'; 200]] {
                let timestamp = sequence as i64;
                let message =
                    MsgProto { sequence, channel: text, reply: text, data: text, timestamp, redeliveries, crc32 };
                let mut bytes = Vec::new();
                message.encode(&mut bytes);
                assert_eq!(bytes.len(), message.encoded_bytes());
                let text = String::from_utf8(text.to_vec()).unwrap();
                let general = pb::MsgProto {
                    sequence,
                    subject: text.clone(),
                    reply: text.clone(),
                    data: text.into(),
                    timestamp,
                    redelivered: redeliveries > 0,
                    redelivery_count: redeliveries,
                    crc32,
                };
                assert_eq!(bytes, general.encode_to_vec());
            }
        }
        let ack = pb::Ack { subject: "foo".into(), sequence: 1 << 40 };
        let bytes = ack.encode_to_vec();
        assert_eq!(Ack::decode(&bytes), Some(Ack { channel: b"foo", sequence: 1 << 40 }));
        assert_eq!(Ack::decode(b"\x08\x01"), None, "a number where text belongs");
        let mut bytes = Vec::new();
        put_pub_ack(&mut bytes, b"g", b"no");
        assert_eq!(pb::PubAck::decode(&bytes[..]).unwrap(), pb::PubAck { guid: "g".into(), error: "no".into() });
        assert_eq!(bytes.len(), pub_ack_bytes(b"g", b"no"));
    }
}
