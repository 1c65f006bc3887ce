//! The messages of the streaming protocol (protobuf, proto3), written and read by hand: the frequent ones are patched
//! into prepared bytes or read without a copy, millions per second.

use crate::failure::{Failure, Outcome};

/// Bytes of a guid: what the clients in use take.
pub(crate) const GUID_BYTES: usize = 22;

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the next message.
    New,
    /// With the last one there is.
    Last,
    /// With the first one there is.
    First,
    /// With this sequence.
    Sequence(u64),
    /// With the first one that is not older than this, in nanoseconds.
    Ago(u64),
}

/// What a client asks for when it subscribes.
pub(crate) struct Subscription<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) channel: &'a str,
    pub(crate) queue: &'a str,
    pub(crate) inbox: &'a str,
    pub(crate) durable: &'a str,
    pub(crate) max_in_flight: u32,
    /// Seconds.
    pub(crate) ack_wait: u32,
    pub(crate) start: Start,
}

/// Where a registered client sends its requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Subjects {
    pub(crate) publish_prefix: String,
    pub(crate) subscribe: String,
    pub(crate) close: String,
}

/// A delivered message, as far as it is looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivery<'a> {
    pub(crate) sequence: u64,
    pub(crate) data: &'a [u8],
    pub(crate) redelivered: bool,
}

/// The request to register.
pub(crate) fn connect_request(client_id: &str, heartbeat_inbox: &str, conn_id: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, client_id);
    put_text(&mut out, 2, heartbeat_inbox);
    put_number(&mut out, 3, 1);
    put_text(&mut out, 4, conn_id);
    // The server repeats these and does nothing else with them; this program sends no pings.
    put_number(&mut out, 5, 5);
    put_number(&mut out, 6, 88);
    out
}

/// The subjects in the answer, or the reason of a refusal.
pub(crate) fn connect_response(payload: &[u8]) -> Outcome<Subjects> {
    let mut subjects = Subjects::default();
    let mut error = String::new();
    each_field(payload, |number, value| match number {
        1 => subjects.publish_prefix = value.text(),
        2 => subjects.subscribe = value.text(),
        4 => subjects.close = value.text(),
        5 => error = value.text(),
        _ => {}
    })?;
    match error.is_empty() {
        true => Ok(subjects),
        false => Err(Failure::new(format!("the registration is refused: {error}"))),
    }
}

/// The request to subscribe.
pub(crate) fn subscription_request(wanted: &Subscription<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, wanted.client_id);
    put_text(&mut out, 2, wanted.channel);
    put_text(&mut out, 3, wanted.queue);
    put_text(&mut out, 4, wanted.inbox);
    put_number(&mut out, 5, wanted.max_in_flight.into());
    put_number(&mut out, 6, wanted.ack_wait.into());
    put_text(&mut out, 7, wanted.durable);
    match wanted.start {
        Start::New => {}
        Start::Last => put_number(&mut out, 10, 1),
        Start::Ago(delta_ns) => {
            put_number(&mut out, 10, 2);
            put_number(&mut out, 12, delta_ns);
        }
        Start::Sequence(sequence) => {
            put_number(&mut out, 10, 3);
            put_number(&mut out, 11, sequence);
        }
        Start::First => put_number(&mut out, 10, 4),
    }
    out
}

/// The inbox for acknowledgements in the answer, or the reason of a refusal.
pub(crate) fn subscription_response(payload: &[u8]) -> Outcome<String> {
    let (mut ack_inbox, mut error) = (String::new(), String::new());
    each_field(payload, |number, value| match number {
        2 => ack_inbox = value.text(),
        3 => error = value.text(),
        _ => {}
    })?;
    match error.is_empty() {
        true => Ok(ack_inbox),
        false => Err(Failure::new(format!("a subscription is refused: {error}"))),
    }
}

/// The request to end a registration.
pub(crate) fn close_request(client_id: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, client_id);
    out
}

/// A publish to be sent again and again with another guid and another beginning of its data.
pub(crate) struct Template {
    /// The message.
    pub(crate) bytes: Vec<u8>,
    /// Where its guid is, `GUID_BYTES` long.
    pub(crate) guid_at: usize,
    /// Where its data is.
    pub(crate) data_at: usize,
}

/// A publish of this data.
pub(crate) fn publish_template(client_id: &str, conn_id: &str, channel: &str, data: &[u8]) -> Template {
    let mut bytes = Vec::new();
    put_text(&mut bytes, 1, client_id);
    put_bytes(&mut bytes, 2, &[b'0'; GUID_BYTES]);
    let guid_at = bytes.len() - GUID_BYTES;
    put_text(&mut bytes, 3, channel);
    put_bytes(&mut bytes, 5, data);
    let data_at = bytes.len() - data.len();
    put_text(&mut bytes, 6, conn_id);
    Template { bytes, guid_at, data_at }
}

/// Writes a guid that holds a time and the low bits of a number.
pub(crate) fn write_guid(guid: &mut [u8], time_ns: u64, number: u64) {
    for (at, digit) in guid.iter_mut().enumerate() {
        let nibble = match at {
            0..16 => time_ns >> (4 * (15 - at)),
            _ => number >> (4 * (GUID_BYTES - 1 - at)),
        };
        *digit = b"0123456789abcdef"[(nibble & 15) as usize];
    }
}

/// The time in a guid; none when it is not of this program.
pub(crate) fn read_guid(guid: &[u8]) -> Option<u64> {
    if guid.len() != GUID_BYTES {
        return None;
    }
    guid[..16].iter().try_fold(0, |time, &digit| Some(time << 4 | u64::from(char::from(digit).to_digit(16)?)))
}

/// The guid of an acknowledged publish. A refusal is a failure.
pub(crate) fn publish_ack(payload: &[u8]) -> Outcome<&[u8]> {
    let (mut guid, mut error): (&[u8], &[u8]) = (b"", b"");
    each_field(payload, |number, value| match number {
        1 => guid = value.bytes(),
        2 => error = value.bytes(),
        _ => {}
    })?;
    match error.is_empty() {
        true => Ok(guid),
        false => Err(Failure::new(format!("a publish is refused: {}", String::from_utf8_lossy(error)))),
    }
}

/// A delivered message.
pub(crate) fn delivery(payload: &[u8]) -> Outcome<Delivery<'_>> {
    let mut message = Delivery::default();
    each_field(payload, |number, value| match number {
        1 => message.sequence = value.number(),
        4 => message.data = value.bytes(),
        6 => message.redelivered = value.number() != 0,
        _ => {}
    })?;
    Ok(message)
}

/// The acknowledgement of a delivered message.
pub(crate) fn write_ack(out: &mut Vec<u8>, channel: &str, sequence: u64) {
    put_text(out, 1, channel);
    put_number(out, 2, sequence);
}

/// Bytes that [`write_ack`] writes.
pub(crate) fn ack_bytes(channel: &str, sequence: u64) -> usize {
    let number = if sequence == 0 { 0 } else { 1 + varint_bytes(sequence) };
    1 + varint_bytes(channel.len() as u64) + channel.len() + number
}

/// A field's value: the two kinds that the protocol has.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn number(self) -> u64 {
        match self {
            Value::Number(number) => number,
            Value::Bytes(_) => 0,
        }
    }

    fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            Value::Number(_) => b"",
        }
    }

    fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// Shows each field with its number.
fn each_field<'a>(mut rest: &'a [u8], mut each: impl FnMut(u64, Value<'a>)) -> Outcome<()> {
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Number(take_varint(&mut rest)?),
            2 => {
                let length = usize::try_from(take_varint(&mut rest)?).ok().filter(|&length| length <= rest.len());
                let (bytes, behind) = rest.split_at(length.ok_or_else(malformed)?);
                rest = behind;
                Value::Bytes(bytes)
            }
            _ => return Err(malformed()),
        };
        each(key >> 3, value);
    }
    Ok(())
}

fn take_varint(rest: &mut &[u8]) -> Outcome<u64> {
    let mut value = 0;
    for (at, &byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Ok(value);
        }
    }
    Err(malformed())
}

fn malformed() -> Failure {
    Failure::new("the server has sent something that is no message of the streaming protocol")
}

fn put_text(out: &mut Vec<u8>, number: u8, text: &str) {
    put_bytes(out, number, text.as_bytes());
}

/// Fields of no length are left out, as proto3 has it.
fn put_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(number << 3 | 2);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn put_number(out: &mut Vec<u8>, number: u8, value: u64) {
    if value != 0 {
        out.push(number << 3);
        put_varint(out, value);
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// The messages once more, by the protobuf library.
    #[derive(Clone, PartialEq, prost::Message)]
    struct PubMsg {
        #[prost(string, tag = "1")]
        client_id: String,
        #[prost(string, tag = "2")]
        guid: String,
        #[prost(string, tag = "3")]
        subject: String,
        #[prost(bytes = "vec", tag = "5")]
        data: Vec<u8>,
        #[prost(bytes = "vec", tag = "6")]
        conn_id: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct MsgProto {
        #[prost(uint64, tag = "1")]
        sequence: u64,
        #[prost(string, tag = "2")]
        subject: String,
        #[prost(bytes = "vec", tag = "4")]
        data: Vec<u8>,
        #[prost(int64, tag = "5")]
        timestamp: i64,
        #[prost(bool, tag = "6")]
        redelivered: bool,
        #[prost(uint32, tag = "7")]
        redelivery_count: u32,
        #[prost(uint32, tag = "10")]
        crc32: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct SubscriptionRequest {
        #[prost(string, tag = "1")]
        client_id: String,
        #[prost(string, tag = "2")]
        subject: String,
        #[prost(string, tag = "3")]
        q_group: String,
        #[prost(string, tag = "4")]
        inbox: String,
        #[prost(int32, tag = "5")]
        max_in_flight: i32,
        #[prost(int32, tag = "6")]
        ack_wait_in_secs: i32,
        #[prost(string, tag = "7")]
        durable_name: String,
        #[prost(int32, tag = "10")]
        start_position: i32,
        #[prost(uint64, tag = "11")]
        start_sequence: u64,
        #[prost(int64, tag = "12")]
        start_time_delta: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ConnectRequest {
        #[prost(string, tag = "1")]
        client_id: String,
        #[prost(string, tag = "2")]
        heartbeat_inbox: String,
        #[prost(int32, tag = "3")]
        protocol: i32,
        #[prost(bytes = "vec", tag = "4")]
        conn_id: Vec<u8>,
        #[prost(int32, tag = "5")]
        ping_interval: i32,
        #[prost(int32, tag = "6")]
        ping_max_out: i32,
    }

    /// A guid and an error, an inbox and an error, …: two texts.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Ack {
        #[prost(string, tag = "1")]
        subject: String,
        #[prost(uint64, tag = "2")]
        sequence: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct PubAck {
        #[prost(string, tag = "1")]
        guid: String,
        #[prost(string, tag = "2")]
        error: String,
    }

    #[test]
    fn a_patched_template_is_the_message() {
        for size in [0, 1, 16, 127, 128, 5000] {
            let mut template = publish_template("client", "connection", "orders.new", &vec![b'x'; size]);
            let guid = template.guid_at..template.guid_at + GUID_BYTES;
            write_guid(&mut template.bytes[guid], 0x0123_4567_89ab_cdef, 0xfed_cba9);
            if size >= 2 {
                template.bytes[template.data_at..template.data_at + 2].copy_from_slice(b"yz");
            }
            let message = PubMsg::decode(&template.bytes[..]).expect("the message is valid");
            let mut data = vec![b'x'; size];
            if size >= 2 {
                data[..2].copy_from_slice(b"yz");
            }
            let expected = PubMsg {
                client_id: "client".to_owned(),
                guid: "0123456789abcdefedcba9".to_owned(),
                subject: "orders.new".to_owned(),
                data,
                conn_id: b"connection".to_vec(),
            };
            assert_eq!(message, expected, "{size} bytes");
            assert_eq!(message.encode_to_vec(), template.bytes);
            assert_eq!(read_guid(message.guid.as_bytes()), Some(0x0123_4567_89ab_cdef));
        }
        for guid in [&b""[..], b"short", b"not hexadecimal at all"] {
            assert_eq!(read_guid(guid), None);
        }
    }

    #[test]
    fn requests_are_what_the_library_writes() {
        let request = ConnectRequest {
            client_id: "client".to_owned(),
            heartbeat_inbox: "_INBOX.hb".to_owned(),
            protocol: 1,
            conn_id: b"connection".to_vec(),
            ping_interval: 5,
            ping_max_out: 88,
        };
        assert_eq!(connect_request("client", "_INBOX.hb", "connection"), request.encode_to_vec());
        for (start, position, sequence, delta) in [
            (Start::New, 0, 0, 0),
            (Start::Last, 1, 0, 0),
            (Start::Ago(3_000_000_000), 2, 0, 3_000_000_000),
            (Start::Sequence(300), 3, 300, 0),
            (Start::First, 4, 0, 0),
        ] {
            let wanted = Subscription {
                client_id: "client",
                channel: "orders",
                queue: "",
                inbox: "_INBOX.s",
                durable: "d",
                max_in_flight: 4096,
                ack_wait: 30,
                start,
            };
            let request = SubscriptionRequest {
                client_id: "client".to_owned(),
                subject: "orders".to_owned(),
                q_group: String::new(),
                inbox: "_INBOX.s".to_owned(),
                max_in_flight: 4096,
                ack_wait_in_secs: 30,
                durable_name: "d".to_owned(),
                start_position: position,
                start_sequence: sequence,
                start_time_delta: delta,
            };
            assert_eq!(subscription_request(&wanted), request.encode_to_vec(), "{start:?}");
        }
        for sequence in [0, 1, 127, 128, 16_383, 16_384, u64::MAX] {
            let mut bytes = Vec::new();
            write_ack(&mut bytes, "orders", sequence);
            assert_eq!(bytes, Ack { subject: "orders".to_owned(), sequence }.encode_to_vec());
            assert_eq!(bytes.len(), ack_bytes("orders", sequence), "{sequence}");
        }
    }

    #[test]
    fn what_the_library_writes_is_read() {
        for (sequence, size, redelivered) in [(1, 0, false), (200, 5, true), (u64::MAX, 70_000, true)] {
            let data = vec![7; size];
            let message = MsgProto {
                sequence,
                subject: "orders".to_owned(),
                data: data.clone(),
                timestamp: 1_700_000_000_000_000_000,
                redelivered,
                redelivery_count: 3,
                crc32: 9,
            };
            let bytes = message.encode_to_vec();
            let read = delivery(&bytes).expect("the message is valid");
            assert_eq!(read, Delivery { sequence, data: &data, redelivered });
        }
        let ack = PubAck { guid: "0123".to_owned(), error: String::new() }.encode_to_vec();
        assert_eq!(publish_ack(&ack).ok(), Some(&b"0123"[..]));
        let refusal = PubAck { guid: "0123".to_owned(), error: "too many channels".to_owned() }.encode_to_vec();
        let failure = publish_ack(&refusal).expect_err("a refusal is a failure");
        assert_eq!(failure.to_string(), "a publish is refused: too many channels");
        // The answer to a registration has the subjects in fields 1, 2 and 4, and an error in field 5.
        let subjects = connect_response(b"\x0a\x01p\x12\x01s\x1a\x01u\x22\x01c\x50\x01").expect("it is valid");
        let expected = Subjects { publish_prefix: "p".to_owned(), subscribe: "s".to_owned(), close: "c".to_owned() };
        assert_eq!(subjects, expected);
        let refusal = connect_response(b"\x2a\x03bad").expect_err("a refusal is a failure");
        assert_eq!(refusal.to_string(), "the registration is refused: bad");
        assert_eq!(subscription_response(b"\x12\x03ack").ok().as_deref(), Some("ack"));
        let refusal = subscription_response(b"\x1a\x03bad").expect_err("a refusal is a failure");
        assert_eq!(refusal.to_string(), "a subscription is refused: bad");
    }

    #[test]
    fn damaged_messages_are_refused() {
        let whole = MsgProto { sequence: 300, data: vec![1; 200], ..MsgProto::default() }.encode_to_vec();
        let readable = (0..whole.len()).filter(|&length| delivery(&whole[..length]).is_ok()).collect::<Vec<_>>();
        assert_eq!(readable, [0, 3], "only between fields");
        for bytes in [&b"\xff"[..], b"\x09", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &[0x80; 11]] {
            assert!(delivery(bytes).is_err(), "{bytes:?}");
        }
    }
}
