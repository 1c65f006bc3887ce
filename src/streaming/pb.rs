//! The messages of the protocol, made of `proto/streaming.proto`.
//!
//! Bytes are shared with the buffer that a message is decoded from, if that is a [`Bytes`](bytes::Bytes). Text that is
//! not UTF-8 does not decode.

include!(concat!(env!("OUT_DIR"), "/streaming.rs"));

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use prost::Message;
    use std::fmt::Debug;

    /// `message` is what stands on the wire as `bytes`, also with fields that nobody knows.
    fn check<M: Message + Default + PartialEq + Debug>(message: &M, bytes: &[u8]) {
        assert_eq!(message.encode_to_vec(), bytes, "{message:?}");
        assert_eq!(M::decode(bytes).as_ref(), Ok(message));
        // Fields 2047 (varint), 2046 (8 bytes), 2045 (length-delimited) and 2044 (4 bytes).
        let unknown = b"\xf8\x7f\x96\x01\xf1\x7f12345678\xea\x7f\x02ab\xe5\x7f1234";
        assert_eq!(M::decode([unknown, bytes, unknown].concat().as_slice()).as_ref(), Ok(message));
        if let Some(torn) = bytes.len().checked_sub(1) {
            assert!(M::decode(&bytes[..torn]).is_err(), "{message:?}");
        }
    }

    /// Every field of every message has the number and the form of the protocol.
    #[test]
    fn bytes_on_the_wire() {
        check(
            &PubMsg {
                client_id: "me".into(),
                guid: "g1".into(),
                subject: "foo".into(),
                reply: "r".into(),
                data: Bytes::from_static(b"hi\xff"),
                conn_id: Bytes::from_static(b"c\0"),
                sha256: Bytes::from_static(b"\x01"),
            },
            b"\x0a\x02me\x12\x02g1\x1a\x03foo\x22\x01r\x2a\x03hi\xff\x32\x02c\0\x52\x01\x01",
        );
        check(&PubAck { guid: "g1".into(), error: "no".into() }, b"\x0a\x02g1\x12\x02no");
        check(
            &MsgProto {
                sequence: 300,
                subject: "foo".into(),
                reply: "r".into(),
                data: Bytes::from_static(b"hi"),
                timestamp: 1_600_000_000_000_000_000,
                redelivered: true,
                redelivery_count: 2,
                crc32: 0xffff_ffff,
            },
            b"\x08\xac\x02\x12\x03foo\x1a\x01r\x22\x02hi\x28\x80\x80\x80\xc5\xdd\xf0\x95\x9a\x16\x30\x01\x38\x02\
              \x50\xff\xff\xff\xff\x0f",
        );
        check(&Ack { subject: "foo".into(), sequence: 1 }, b"\x0a\x03foo\x10\x01");
        check(
            &ConnectRequest {
                client_id: "me".into(),
                heartbeat_inbox: "hb".into(),
                protocol: 1,
                conn_id: Bytes::from_static(b"c"),
                ping_interval: 5,
                ping_max_out: 88,
            },
            b"\x0a\x02me\x12\x02hb\x18\x01\x22\x01c\x28\x05\x30\x58",
        );
        check(
            &ConnectResponse {
                pub_prefix: "p".into(),
                sub_requests: "s".into(),
                unsub_requests: "u".into(),
                close_requests: "c".into(),
                error: "e".into(),
                sub_close_requests: "sc".into(),
                ping_requests: "pi".into(),
                ping_interval: 5,
                ping_max_out: 88,
                protocol: 1,
                public_key: "k".into(),
            },
            b"\x0a\x01p\x12\x01s\x1a\x01u\x22\x01c\x2a\x01e\x32\x02sc\x3a\x02pi\x40\x05\x48\x58\x50\x01\xa2\x06\x01k",
        );
        check(&Ping { conn_id: Bytes::from_static(b"c") }, b"\x0a\x01c");
        check(&PingResponse { error: "no".into() }, b"\x0a\x02no");
        check(
            &SubscriptionRequest {
                client_id: "me".into(),
                subject: "foo".into(),
                q_group: "q".into(),
                inbox: "in".into(),
                max_in_flight: 1024,
                ack_wait_in_secs: 30,
                durable_name: "d".into(),
                start_position: StartPosition::TimeDeltaStart.into(),
                start_sequence: 7,
                start_time_delta: -1,
            },
            b"\x0a\x02me\x12\x03foo\x1a\x01q\x22\x02in\x28\x80\x08\x30\x1e\x3a\x01d\x50\x02\x58\x07\
              \x60\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        );
        check(&SubscriptionResponse { ack_inbox: "a".into(), error: "e".into() }, b"\x12\x01a\x1a\x01e");
        check(
            &UnsubscribeRequest {
                client_id: "me".into(),
                subject: "foo".into(),
                inbox: "in".into(),
                durable_name: "d".into(),
            },
            b"\x0a\x02me\x12\x03foo\x1a\x02in\x22\x01d",
        );
        check(&CloseRequest { client_id: "me".into() }, b"\x0a\x02me");
        check(&CloseResponse { error: "no".into() }, b"\x0a\x02no");
    }

    /// What says nothing is nothing: an answer without an error, and any message with defaults only.
    #[test]
    fn success_is_zero_bytes_long() {
        check(&PingResponse::default(), b"");
        check(&CloseResponse::default(), b"");
        check(&SubscriptionResponse::default(), b"");
        check(&PubMsg::default(), b"");
        check(&MsgProto::default(), b"");
        check(&SubscriptionRequest::default(), b"");
    }

    #[test]
    fn start_positions() {
        let all = [
            StartPosition::NewOnly,
            StartPosition::LastReceived,
            StartPosition::TimeDeltaStart,
            StartPosition::SequenceStart,
            StartPosition::First,
        ];
        for (number, position) in (0..).zip(all) {
            assert_eq!(StartPosition::try_from(number), Ok(position));
        }
        // An unknown one is for the service to refuse, so it has to arrive.
        let request = SubscriptionRequest::decode(&b"\x50\x09"[..]).unwrap();
        assert_eq!(request.start_position, 9);
        assert!(StartPosition::try_from(request.start_position).is_err());
    }

    /// A payload is a part of the buffer that it came in.
    #[test]
    fn payloads_are_not_copied() {
        let wire = Bytes::from_static(b"\x12\x02g1\x2a\x05hello");
        let message = PubMsg::decode(wire.clone()).unwrap();
        assert_eq!(message.data, "hello");
        assert_eq!(message.data.as_ptr(), wire[6..].as_ptr());
    }

    /// What is no message, or has text that is no text, is refused.
    #[test]
    fn other_bytes_do_not_decode() {
        for bytes in [&b"\x0a\x05a"[..], b"\x0a", b"\x07", b"\x0a\x01\xff", b"\x08\x01", b"\x00", b"hello"] {
            assert!(PubMsg::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
