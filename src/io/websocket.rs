//! A connection that speaks WebSocket, in clear or inside TLS, seen as a stream of bytes.
//!
//! Every write of the shard becomes one binary frame. What the socket does not take of a frame's payload is offered again
//! by the shard, so that a frame that has begun is finished before anything else is said; control frames wait for that.
#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::net::SocketAddr;

use smallvec::SmallVec;

use super::session::{Session, Wire};
use crate::shard::io::{Recv, Sent};
use crate::websocket::{Control, FrameError, FrameReader, close_code, close_frame, data_header, pong_frame};
use crate::wire::errors::CloseReason;

/// Answers to pings that wait; a client that asks faster than it reads gets no more.
const PONGS_BYTES_MAX: usize = 4096;

/// One connection's WebSocket.
#[derive(Debug)]
pub(super) struct WebSocket {
    peer: SocketAddr,
    tls: Option<Box<Session>>,
    reader: FrameReader,
    controls: Vec<Control>,
    /// Control frames that wait for the end of the frame that is being sent.
    waiting: Vec<u8>,
    /// To be sent before payload: control frames, and then the header of the frame that has begun.
    head: Vec<u8>,
    /// Payload that is left of the frame that has begun.
    frame_left: usize,
    /// The client's close frame, or what is wrong with its frames: the body of the answer. Nothing is read any more.
    farewell: Option<Vec<u8>>,
}

impl WebSocket {
    pub(super) fn new(peer: SocketAddr, tls: Option<Box<Session>>, takes_unmasked: bool) -> Self {
        Self {
            peer,
            tls,
            reader: FrameReader::new(takes_unmasked),
            controls: Vec::new(),
            waiting: Vec::new(),
            head: Vec::new(),
            frame_left: 0,
            farewell: None,
        }
    }

    /// As [`Session::recv`].
    pub(super) fn recv<W: Wire>(&mut self, wire: &mut W, read_on: bool, buf: &mut [u8], scratch: &mut Vec<u8>) -> Recv {
        if self.farewell.is_some() {
            return Recv::End;
        }
        self.say(wire);
        let (bytes, more) = match self.receive(wire, read_on, buf, scratch) {
            Recv::Data { bytes, more } => (bytes, more),
            other => return other,
        };
        let outcome = self.reader.read(&mut buf[..bytes], &mut self.controls);
        for control in std::mem::take(&mut self.controls) {
            match control {
                Control::Ping(body) => {
                    if self.waiting.len() + self.head.len() < PONGS_BYTES_MAX {
                        pong_frame(&body, &mut self.waiting);
                    }
                }
                Control::Close(body) => self.farewell = Some(body),
            }
        }
        let plain = match outcome {
            Ok(plain) => plain,
            Err(FrameError { code, text }) => {
                tracing::error!("{} - websocket read error: {text}", self.peer);
                self.farewell = Some([&code.to_be_bytes()[..], text.as_bytes()].concat());
                return Recv::Failed;
            }
        };
        self.say(wire);
        match (plain, &self.farewell) {
            (0, Some(_)) => Recv::End,
            (0, None) if !more => Recv::Nothing,
            (bytes, farewell) => Recv::Data { bytes, more: more || farewell.is_some() },
        }
    }

    fn receive<W: Wire>(&mut self, wire: &mut W, read_on: bool, buf: &mut [u8], scratch: &mut Vec<u8>) -> Recv {
        match &mut self.tls {
            Some(session) => session.recv(wire, read_on, buf, scratch),
            None => wire.recv_more(read_on, buf),
        }
    }

    /// As [`Session::send`].
    pub(super) fn send<W: Wire>(&mut self, wire: &mut W, bufs: &[IoSlice<'_>]) -> Sent {
        let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut taken = 0;
        loop {
            if self.frame_left == 0 {
                self.head.append(&mut self.waiting);
                self.frame_left = offered - taken;
                if self.frame_left > 0 {
                    data_header(self.frame_left, &mut self.head);
                }
            }
            let payload = self.frame_left.min(offered - taken);
            if self.head.len() + payload == 0 {
                return Sent::Bytes(taken);
            }
            let mut slices: SmallVec<[IoSlice<'_>; 33]> = SmallVec::new();
            slices.push(IoSlice::new(&self.head));
            slices.extend(part(bufs, taken, payload));
            let written = match &mut self.tls {
                Some(session) => session.send(wire, &slices),
                None => wire.send_some(&slices),
            };
            drop(slices);
            let Sent::Bytes(written) = written else { return Sent::Failed };
            let of_head = written.min(self.head.len());
            self.head.drain(..of_head);
            self.frame_left -= written - of_head;
            taken += written - of_head;
            if written - of_head < payload || !self.head.is_empty() {
                return Sent::Bytes(taken);
            }
        }
    }

    /// Sends control frames, unless a frame has begun.
    fn say<W: Wire>(&mut self, wire: &mut W) {
        if self.frame_left == 0 && self.head.len() + self.waiting.len() > 0 {
            // A broken socket shows at the next read.
            let _ = self.send(wire, &[]);
        }
    }

    /// Tells the client why it is closed, or answers its own close frame; as far as the socket takes it.
    pub(super) fn farewell<W: Wire>(&mut self, wire: &mut W, reason: CloseReason) {
        let body = self.farewell.take().unwrap_or_else(|| {
            let code = close_code(reason);
            [&code.to_be_bytes()[..], reason.monitor_text().as_bytes()].concat()
        });
        close_frame(&body, &mut self.waiting);
        self.say(wire);
    }

    pub(super) fn close<W: Wire>(&mut self, wire: &mut W) {
        if let Some(session) = &mut self.tls {
            session.close(wire);
        }
    }
}

/// `count` bytes of `bufs` from `skip` on.
fn part<'a>(bufs: &'a [IoSlice<'_>], mut skip: usize, mut count: usize) -> impl Iterator<Item = IoSlice<'a>> {
    bufs.iter().filter_map(move |buf| {
        let from = skip.min(buf.len());
        skip -= from;
        let to = (from + count).min(buf.len());
        count -= to - from;
        (to > from).then(|| IoSlice::new(&buf[from..to]))
    })
}

#[cfg(test)]
mod tests {
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

    /// Cuts what the server has sent into frames: opcode and payload.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (length, header) = match bytes[1] {
                126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
                127 => (u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize, 10),
                short => (usize::from(short), 2),
            };
            assert!(bytes[0] & 0x80 != 0 && bytes[1] < 128, "whole frames without masks");
            all.push((bytes[0] & 15, bytes[header..header + length].to_vec()));
            bytes = &bytes[header + length..];
        }
        all
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
        ) {
            let mut socket = WebSocket::new(([127, 0, 0, 1], 1).into(), None, true);
            let mut wire = Memory { to_server: VecDeque::new(), to_client: Vec::new(), room: 0, step };
            let all: Vec<u8> = (0..sizes.iter().sum()).map(|i: usize| (i * 7 + i / 251) as u8).collect();
            let (mut sent, mut queued, mut pings) = (0, 0, 0);
            let mut sizes = sizes.iter();
            while sent < all.len() {
                if let Some(size) = sizes.next() {
                    queued += size;
                    wire.to_server.extend([0x89, 1, b'p']);
                    pings += 1;
                    let heard = socket.recv(&mut wire, false, &mut [0; 10], &mut Vec::new());
                    prop_assert_eq!(heard, Recv::Nothing);
                    while !wire.to_server.is_empty() {
                        socket.recv(&mut wire, false, &mut [0; 10], &mut Vec::new());
                    }
                }
                wire.room += room;
                let middle = sent + (queued - sent) / 2;
                let bufs = [IoSlice::new(&all[sent..middle]), IoSlice::new(&all[middle..queued])];
                let Sent::Bytes(taken) = socket.send(&mut wire, &bufs) else { panic!("the wire is not broken") };
                sent += taken;
            }
            wire.room = 1000;
            wire.step = 1000;
            socket.farewell(&mut wire, CloseReason::ServerShutdown);
            let frames = frames(&wire.to_client);
            let inside: Vec<u8> = frames.iter().filter(|(code, _)| *code == 2).flat_map(|(_, body)| body.clone()).collect();
            prop_assert!(inside == all);
            prop_assert_eq!(frames.iter().filter(|(code, _)| *code == 10).count(), pings);
            let close = (8, [&1001u16.to_be_bytes()[..], b"Server Shutdown"].concat());
            prop_assert_eq!(frames.last(), Some(&close));
        }
    }

    /// A client that never reads its pongs costs no more than a bound.
    #[test]
    fn pongs_are_bounded() {
        let mut socket = WebSocket::new(([127, 0, 0, 1], 1).into(), None, true);
        let mut wire = Memory { to_server: VecDeque::new(), to_client: Vec::new(), room: 0, step: usize::MAX };
        for _ in 0..10_000 {
            wire.to_server.extend([0x89, 5, 1, 2, 3, 4, 5]);
        }
        while !wire.to_server.is_empty() {
            assert_eq!(
                socket.recv(&mut wire, true, &mut [0; 7000], &mut Vec::new()),
                Recv::Data { bytes: 0, more: true }
            );
        }
        assert!(socket.waiting.len() + socket.head.len() < 2 * PONGS_BYTES_MAX);
    }
}
