use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io;

/// A wire that takes and gives at most `step` bytes at once, and `room` bytes until they are read.
struct Memory {
    to_server: VecDeque<u8>,
    to_client: Vec<u8>,
    room: usize,
    step: usize,
}

impl Wire for Memory {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.to_server.len().min(buf.len()).min(self.step);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buf[..count].iter_mut().zip(self.to_server.drain(..count)).for_each(|(to, byte)| *to = byte);
        Ok(count)
    }

    fn send(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = self.room.min(self.step);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let before = self.to_client.len();
        self.to_client.extend(bufs.iter().flat_map(|buf| buf.iter()).take(count));
        self.room -= self.to_client.len() - before;
        Ok(self.to_client.len() - before)
    }
}

/// Cuts what the server has sent into frames: opcode and payload, inflated.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (length, header) = match bytes[1] {
            126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
            127 => (u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize, 10),
            short => (usize::from(short), 2),
        };
        assert!(bytes[0] & 0x80 != 0 && bytes[1] < 128, "whole frames without masks");
        let payload = &bytes[header..header + length];
        let payload = if bytes[0] & 0x40 == 0 { payload.to_vec() } else { inflated(payload) };
        all.push((bytes[0] & 15, payload));
        bytes = &bytes[header + length..];
    }
    all
}

fn inflated(payload: &[u8]) -> Vec<u8> {
    let whole = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    let mut plain = Vec::with_capacity(DEFLATED_PART_BYTES + 1);
    let mut inflater = flate2::Decompress::new(false);
    inflater.decompress_vec(&whole, &mut plain, flate2::FlushDecompress::Sync).unwrap();
    plain
}

fn socket(deflates: bool) -> WebSocket {
    WebSocket::new(([127, 0, 0, 1], 1).into(), None, true, deflates.then_some(1 << 20))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever the wire takes at once, output arrives whole and in order, pongs stand between frames and never in
    /// one, and the close frame comes last.
    #[test]
    fn output_and_pongs_share_the_wire(
        sizes in prop::collection::vec(1usize..70_000, 1..6),
        step in 1usize..9_000,
        room in 1usize..9_000,
        deflates: bool,
    ) {
        let (mut socket, mut scratch) = (socket(deflates), Scratch::default());
        let mut wire = Memory { to_server: VecDeque::new(), to_client: Vec::new(), room: 0, step };
        let all: Vec<u8> = (0..sizes.iter().sum()).map(|i: usize| (i * 7 + i / 251) as u8).collect();
        let (mut sent, mut queued, mut pings) = (0, 0, 0);
        let mut sizes = sizes.iter();
        while sent < all.len() {
            if let Some(size) = sizes.next() {
                queued += size;
                wire.to_server.extend([0x89, 1, b'p']);
                pings += 1;
                let heard = socket.recv(&mut wire, false, &mut [0; 10], &mut scratch);
                prop_assert_eq!(heard, Recv::Nothing);
                while !wire.to_server.is_empty() {
                    socket.recv(&mut wire, false, &mut [0; 10], &mut scratch);
                }
            }
            wire.room += room;
            let middle = sent + (queued - sent) / 2;
            let bufs = [IoSlice::new(&all[sent..middle]), IoSlice::new(&all[middle..queued])];
            let Sent::Bytes(taken) = socket.send(&mut wire, &bufs, &mut scratch) else { panic!("the wire is not broken") };
            sent += taken;
            scratch.begin_turn();
        }
        prop_assert!(socket.head.capacity() <= HEAD_BYTES_KEPT, "nothing is kept when all is sent");
        wire.room = 1000;
        wire.step = 1000;
        socket.farewell(&mut wire, CloseReason::ServerShutdown, &mut scratch);
        let frames = frames(&wire.to_client);
        let inside: Vec<u8> = frames.iter().filter(|(code, _)| *code == 2).flat_map(|(_, body)| body.clone()).collect();
        prop_assert!(inside == all);
        prop_assert_eq!(frames.iter().filter(|(code, _)| *code == 10).count(), pings);
        let close = (8, [&1001u16.to_be_bytes()[..], b"Server Shutdown"].concat());
        prop_assert_eq!(frames.last(), Some(&close));
    }

    /// A message that inflates to more than there is room for comes bit by bit and whole, with what stands behind it.
    #[test]
    fn input_waits_for_room(
        size in 1usize..300_000,
        room in 1usize..70_000,
        step in 1usize..40_000,
        noise in any::<bool>(),
    ) {
        comes_whole(size, room, step, noise)?;
    }
}

/// Sends a message of `size` bytes and a close through a wire of so many bytes a `step`, to a reader with so much `room`.
fn comes_whole(size: usize, room: usize, step: usize, noise: bool) -> Result<(), TestCaseError> {
    let (mut socket, mut scratch) = (socket(true), Scratch::default());
    let byte = |i: usize| if noise { (i * i / 7 + i / 3) as u8 } else { (i / 10_000) as u8 };
    let plain: Vec<u8> = (0..size).map(byte).collect();
    let mut payload = Vec::new();
    Deflater::default().deflate(std::iter::once(&plain[..]), &mut payload).unwrap();
    let mut frame = Vec::new();
    deflated_header(payload.len(), &mut frame);
    frame.extend(payload);
    frame.extend(b"\x82\x03end\x88\x00");
    let mut wire = Memory { to_server: frame.into(), to_client: Vec::new(), room: 100, step };
    let (mut buf, mut got) = (vec![0; room], Vec::new());
    loop {
        match socket.recv(&mut wire, true, &mut buf, &mut scratch) {
            Recv::Data { bytes, more } => {
                prop_assert!(more);
                got.extend_from_slice(&buf[..bytes]);
            }
            Recv::Nothing => prop_assert!(!wire.to_server.is_empty(), "waits, and nothing comes any more"),
            other => {
                prop_assert_eq!(other, Recv::End);
                break;
            }
        }
        prop_assert!(socket.ahead.len() <= FRAMES_BYTES);
    }
    prop_assert!(got == [&plain[..], b"end"].concat());
    prop_assert!(scratch.inflater.is_some() && socket.ahead.is_empty() && !socket.holds_input);
    Ok(())
}

/// What a message fills the room with may have a close or a ping behind it, and nothing more to come.
#[test]
fn controls_behind_a_full_room_are_heard() {
    for (size, room) in [(97, 100), (197, 100), (226_846, 32_407)] {
        comes_whole(size, room, 20_256, false).expect("a close");
    }
}

/// What may be compressed in a turn is bounded; what is left is asked for again.
#[test]
fn compression_yields() {
    let (mut socket, mut scratch) = (socket(true), Scratch::default());
    let mut wire = Memory { to_server: VecDeque::new(), to_client: Vec::new(), room: usize::MAX, step: usize::MAX };
    let all = vec![b'x'; 3 * DEFLATED_PER_TURN];
    let (mut sent, mut turns) = (0, 0);
    while sent < all.len() {
        let Sent::Bytes(taken) = socket.send(&mut wire, &[IoSlice::new(&all[sent..])], &mut scratch) else { panic!() };
        sent += taken;
        assert_eq!((taken, socket.yields()), (DEFLATED_PER_TURN, sent < all.len()));
        scratch.begin_turn();
        turns += 1;
    }
    assert_eq!(turns, 3);
}

/// A client that never reads its pongs costs no more than a bound.
#[test]
fn pongs_are_bounded() {
    let mut socket = socket(false);
    let mut wire = Memory { to_server: VecDeque::new(), to_client: Vec::new(), room: 0, step: usize::MAX };
    for _ in 0..10_000 {
        wire.to_server.extend([0x89, 5, 1, 2, 3, 4, 5]);
    }
    while !wire.to_server.is_empty() {
        assert_eq!(
            socket.recv(&mut wire, true, &mut [0; 7000], &mut Scratch::default()),
            Recv::Data { bytes: 0, more: true }
        );
    }
    assert!(socket.waiting.len() + socket.head.len() < 2 * PONGS_BYTES_MAX);
}
