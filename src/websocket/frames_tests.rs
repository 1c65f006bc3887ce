use super::*;
use proptest::prelude::*;

/// A client's frame.
fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    header(0, payload.len(), &mut bytes);
    bytes[0] = first;
    let mut payload = payload.to_vec();
    if let Some(mask) = mask {
        bytes[1] |= MASK;
        bytes.extend_from_slice(&mask);
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
    [bytes, payload].concat()
}

const KEY: Option<[u8; 4]> = Some([1, 2, 3, 4]);

fn read(reader: &mut FrameReader, bytes: &[u8]) -> Result<(Vec<u8>, Vec<Control>), FrameError> {
    let (mut bytes, mut controls) = (bytes.to_vec(), Vec::new());
    let count = reader.read(&mut bytes, &mut controls)?;
    Ok((bytes[..count].to_vec(), controls))
}

/// What must not be is refused with the code and the text of the reference.
#[test]
fn errors() {
    let cases: &[(Vec<u8>, u16, &str)] = &[
        (frame(0x82, None, b"x"), 1002, "mask bit missing"),
        (frame(0x89, KEY, &[0; 126]), 1002, "control frame length bigger than maximum allowed of 125 bytes"),
        (frame(0x09, KEY, b"x"), 1002, "control frame does not have final bit set"),
        (frame(0x88, KEY, b"x"), 1002, "close frame payload cannot be 1 byte"),
        (frame(0x88, KEY, &[3, 231]), 1002, "invalid close status code 999"),
        (frame(0x88, KEY, &[3, 232, 0xff]), 1007, "invalid utf8 body in close frame"),
        (frame(0xC2, KEY, b"x"), 1002, "compressed frame received without negotiated permessage-deflate"),
        (frame(0xA2, KEY, b"x"), 1002, "RSV2 and RSV3 must be clear"),
        (frame(0x83, KEY, b"x"), 1002, "unknown opcode 3"),
        (frame(0x80, KEY, b"x"), 1002, "invalid continuation frame"),
        (
            [frame(0x02, KEY, b"x"), frame(0x82, KEY, b"x")].concat(),
            1002,
            "new message started before final frame for previous message was received",
        ),
        ([&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &[0; 4]].concat(), 1002, "invalid 64-bit payload length"),
    ];
    for (bytes, code, text) in cases {
        let error = read(&mut FrameReader::new(false, None), bytes).unwrap_err();
        assert_eq!((error.code, &*error.text), (*code, *text));
    }
    assert_eq!(read(&mut FrameReader::new(true, None), &frame(0x82, None, b"x")).unwrap().0, b"x");
    let error = read(&mut FrameReader::new(true, None), &frame(0x82, KEY, b"x")).unwrap_err();
    assert_eq!((error.code, &*error.text), (1002, "mask bit set although no masks were agreed on"));
}

/// Reads whole what may be compressed, into buffers of this size.
fn read_deflated(reader: &mut FrameReader, bytes: &[u8], room: usize) -> Result<(Vec<u8>, Vec<Control>), FrameError> {
    let (mut at, mut plain, mut controls) = (0, Vec::new(), Vec::new());
    let (mut out, mut spare) = (vec![0; room], None);
    loop {
        let (used, made) = reader.read_deflated(&bytes[at..], &mut out, &mut spare, &mut controls)?;
        assert!(made == room || at + used == bytes.len() || reader.closed, "bytes are left although there is room");
        plain.extend_from_slice(&out[..made]);
        at += used;
        if made < room {
            return Ok((plain, controls));
        }
    }
}

fn deflated(plain: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    super::super::Deflater::default().deflate(plain.chunks(1000), &mut payload).unwrap();
    payload
}

/// What must not be among frames that may be compressed.
#[test]
fn errors_of_compression() {
    let whole = deflated(&[b'x'; 2000]);
    let message = |payload: &[u8]| frame(0xC2, KEY, payload);
    let cases: &[(Vec<u8>, u16, &str)] = &[
        ([frame(0x42, KEY, b""), frame(0xC0, KEY, b"")].concat(), 1002, "invalid continuation frame"),
        (frame(0xC9, KEY, b""), 1002, "control frame must not be compressed"),
        (frame(0xA2, KEY, b""), 1002, "RSV2 and RSV3 must be clear"),
        (message(b""), 1007, "corrupt compressed message"),
        (message(b"\xff\xff\xff\xff\xff"), 1007, "corrupt compressed message"),
        (message(&whole[..whole.len() / 2]), 1007, "corrupt compressed message"),
        (message(&deflated(&[0; 5001])), 1009, "maximum payload exceeded"),
        ([frame(0x42, KEY, &deflated(&vec![0; 50_000_000])[..30_000])].concat(), 1009, "maximum payload exceeded"),
    ];
    for (bytes, code, text) in cases {
        for room in [1, 100, 100_000] {
            let error = read_deflated(&mut FrameReader::new(false, Some(5000)), bytes, room).unwrap_err();
            assert_eq!((error.code, &*error.text), (*code, *text), "{room}");
        }
    }
}

/// A message may be empty, in many frames with pings between them, end its last block, or be of the largest size; the
/// next one stands by itself.
#[test]
fn compressed_messages() {
    let hello = deflated(b"hello");
    let last_block = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let bytes = [
        frame(0xC2, KEY, &[0]),
        frame(0xC1, KEY, &hello),
        frame(0x42, KEY, &hello[..2]),
        frame(0x89, KEY, b"p"),
        frame(0x00, KEY, b""),
        frame(0x80, KEY, &hello[2..]),
        frame(0x82, KEY, b"plain"),
        frame(0xC2, KEY, &last_block),
        frame(0xC2, KEY, &deflated(&[b'x'; 5000])),
    ]
    .concat();
    for room in [1, 2, 3, 7, 100, 100_000] {
        let (plain, controls) = read_deflated(&mut FrameReader::new(false, Some(5000)), &bytes, room).unwrap();
        assert_eq!(plain, [&b"hellohelloplainHello"[..], &[b'x'; 5000]].concat());
        assert_eq!(controls, [Control::Ping(b"p".to_vec())]);
    }
}

/// A close frame ends the stream: what follows does not count.
#[test]
fn close_ends_the_stream() {
    let bytes = [frame(0x82, KEY, b"a"), frame(0x88, KEY, b"\x03\xe8bye"), frame(0x82, KEY, b"b")].concat();
    let (plain, controls) = read(&mut FrameReader::new(false, None), &bytes).unwrap();
    assert_eq!((plain.as_slice(), controls), (&b"a"[..], vec![Control::Close(b"\x03\xe8bye".to_vec())]));
}

/// Codes of the server's headers.
#[test]
fn headers() {
    for (length, expected) in [
        (125, vec![0x82, 125]),
        (126, vec![0x82, 126, 0, 126]),
        (65_535, vec![0x82, 126, 255, 255]),
        (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut out = Vec::new();
        data_header(length, &mut out);
        assert_eq!(out, expected);
    }
}

/// A message: its payload, its mask, whether it comes in two frames, with a ping between them, and compressed.
type Message = (Vec<u8>, [u8; 4], bool, bool, bool);

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(any::<u8>(), 120..140),
        prop::collection::vec(any::<u8>(), 65_530..65_545),
    ];
    let mask = any::<[u8; 4]>();
    prop::collection::vec((payload, mask, any::<bool>(), any::<bool>(), any::<bool>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// However messages are cut into frames and frames into reads, and whatever pings stand between, the stream inside is
    /// the same, and each ping comes with its body.
    #[test]
    fn cuts_mean_nothing(
        messages in messages(),
        cuts in prop::collection::vec(1usize..5_000, 1..20),
        room in prop::option::of(1usize..5_000),
        unmasked: bool,
    ) {
        let (mut bytes, mut inside, mut pings) = (Vec::new(), Vec::new(), Vec::new());
        for (plain, mask, halves, pinged, compressed) in &messages {
            let mask = (!unmasked).then_some(*mask);
            let compressed = *compressed && room.is_some();
            let payload = if compressed { deflated(plain) } else { plain.clone() };
            let rsv1 = if compressed { RSV1 } else { 0 };
            if *halves {
                let (left, right) = payload.split_at(payload.len() / 3);
                bytes.extend(frame(rsv1 | 0x02, mask, left));
                if *pinged {
                    pings.push(Control::Ping(b"ping".to_vec()));
                    bytes.extend(frame(0x89, mask, b"ping"));
                }
                bytes.extend(frame(0x80, mask, right));
            } else {
                bytes.extend(frame(rsv1 | 0x81, mask, &payload));
                bytes.extend(frame(0x8A, mask, b"nobody asked"));
            }
            inside.extend_from_slice(plain);
        }
        let mut reader = FrameReader::new(unmasked, room.map(|_| 1 << 20));
        let (mut plain, mut controls, mut rest) = (Vec::new(), Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            let (part, asked) = match room {
                Some(room) => read_deflated(&mut reader, now, room).unwrap(),
                None => read(&mut reader, now).unwrap(),
            };
            plain.extend(part);
            controls.extend(asked);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(plain == inside);
        prop_assert_eq!(controls, pings);
    }

    /// Any bytes are taken or refused, and the same whole and byte by byte.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), deflates: bool, unmasked: bool) {
        let new = || FrameReader::new(unmasked, deflates.then_some(1000));
        let read = |reader: &mut FrameReader, bytes: &[u8]| {
            if deflates { read_deflated(reader, bytes, 1 << 12) } else { read(reader, bytes) }
        };
        let mut one_by_one = new();
        let mut parts = Ok((Vec::new(), Vec::new()));
        for byte in &bytes {
            parts = parts.and_then(|(mut plain, mut controls): (Vec<u8>, Vec<Control>)| {
                let (part, asked) = read(&mut one_by_one, &[*byte])?;
                plain.extend(part);
                controls.extend(asked);
                Ok((plain, controls))
            });
        }
        let whole = read(&mut new(), &bytes);
        prop_assert_eq!(whole, parts);
    }
}
