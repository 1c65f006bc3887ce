//! A connection that speaks WebSocket, in clear or inside TLS, seen as a stream of bytes.
//!
//! Every write of the shard becomes one binary frame. What the socket does not take of a frame's payload is offered again
//! by the shard, so that a frame that has begun is finished before anything else is said; control frames wait for that.
//!
//! Where compression has been agreed on, a write becomes frames of at most `DEFLATED_PART_BYTES` of output each. What is in
//! such a frame counts as not sent until the socket has taken all of it, as with records of TLS. Input is inflated as far
//! as there is room for it; the frames behind that wait, at most what one read has brought.
#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::session::{Session, Wire};
use crate::shard::io::{Recv, Sent};
use crate::websocket::{
    Control, DEFLATED_BYTES_MIN, Deflater, FrameError, FrameReader, Inflater, close_code, close_frame, data_header,
    deflated_header, pong_frame,
};
use crate::wire::errors::CloseReason;

/// Answers to pings that wait; a client that asks faster than it reads gets no more.
const PONGS_BYTES_MAX: usize = 4096;
/// Frames read at once where they may be compressed.
const FRAMES_BYTES: usize = 32 << 10;
/// Reads of bytes that do not count any more.
const DISCARDED_READS_MAX: usize = 32;
/// Output in one compressed frame.
const DEFLATED_PART_BYTES: usize = 64 << 10;
/// Output that the connections of a shard may compress in a turn, a few milliseconds' work.
const DEFLATED_PER_TURN: usize = 512 << 10;
/// A buffer for the beginnings of frames that is larger than this is not kept.
const HEAD_BYTES_KEPT: usize = 256;

/// Buffers and codecs that the connections of a shard use in turn.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Records just read.
    pub(super) records: Vec<u8>,
    /// Frames just read, which may be compressed.
    frames: Vec<u8>,
    /// For the next compressed message that comes in.
    inflater: Option<Box<Inflater>>,
    deflater: Option<Box<Deflater>>,
    /// Payload of a compressed frame.
    deflated: Vec<u8>,
    /// Output compressed in this turn, bytes.
    spent: usize,
}

impl Scratch {
    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.spent = 0;
    }
}

/// One connection's WebSocket.
#[derive(Debug)]
pub(super) struct WebSocket {
    peer: SocketAddr,
    tls: Option<Box<Session>>,
    reader: FrameReader,
    deflates: bool,
    controls: Vec<Control>,
    /// Frames that have been read, where there was no room for what is in them.
    ahead: Bytes,
    /// There may be more of what has been read already.
    holds_input: bool,
    /// Control frames that wait for the end of the frame that is being sent.
    waiting: Vec<u8>,
    /// To be sent before payload: control frames, and then the header of the frame that has begun, or the rest of a
    /// compressed one.
    head: Vec<u8>,
    /// Payload that is left of the frame that has begun.
    frame_left: usize,
    /// Output that is in the compressed frame in `head`.
    owed: usize,
    /// Output waits for the next turn, not for the socket.
    yields: bool,
    /// The client's close frame, or what is wrong with its frames: the body of the answer. Nothing is read any more.
    farewell: Option<Vec<u8>>,
}

impl WebSocket {
    /// `inflated_bytes_max`: both sides may compress messages, and one of the client's may inflate to so many bytes.
    pub(super) fn new(
        peer: SocketAddr,
        tls: Option<Box<Session>>,
        unmasked: bool,
        inflated_bytes_max: Option<u64>,
    ) -> Self {
        Self {
            peer,
            tls,
            reader: FrameReader::new(unmasked, inflated_bytes_max),
            deflates: inflated_bytes_max.is_some(),
            controls: Vec::new(),
            ahead: Bytes::new(),
            holds_input: false,
            waiting: Vec::new(),
            head: Vec::new(),
            frame_left: 0,
            owed: 0,
            yields: false,
            farewell: None,
        }
    }

    /// As [`Session::recv`].
    pub(super) fn recv<W: Wire>(&mut self, wire: &mut W, read_on: bool, buf: &mut [u8], scratch: &mut Scratch) -> Recv {
        if self.farewell.is_some() && !self.holds_input {
            return Recv::End;
        }
        self.say(wire, scratch);
        let (outcome, more) = if self.deflates {
            match self.read_deflated(wire, read_on, buf, scratch) {
                Ok(found) => found,
                Err(other) => return other,
            }
        } else {
            match self.receive(wire, read_on, buf, &mut scratch.records) {
                Recv::Data { bytes, more } => (self.reader.read(&mut buf[..bytes], &mut self.controls), more),
                other => return other,
            }
        };
        for control in std::mem::take(&mut self.controls) {
            match control {
                Control::Ping(body) => {
                    if self.waiting.len() + 2 + body.len() <= PONGS_BYTES_MAX {
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
                (self.ahead, self.holds_input) = (Bytes::new(), false);
                return Recv::Failed;
            }
        };
        self.say(wire, scratch);
        match (plain, &self.farewell) {
            (0, Some(_)) => Recv::End,
            (0, None) if !more => Recv::Nothing,
            (bytes, farewell) => Recv::Data { bytes, more: more || farewell.is_some() },
        }
    }

    fn receive<W: Wire>(&mut self, wire: &mut W, read_on: bool, buf: &mut [u8], records: &mut Vec<u8>) -> Recv {
        match &mut self.tls {
            Some(session) => session.recv(wire, read_on, buf, records),
            None => wire.recv_more(read_on, buf),
        }
    }

    /// Bytes of the stream from frames that may be compressed, and whether there may be more; or what the wire says
    /// instead. What an earlier read has brought comes first.
    fn read_deflated<W: Wire>(
        &mut self,
        wire: &mut W,
        read_on: bool,
        buf: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(Result<usize, FrameError>, bool), Recv> {
        if self.holds_input {
            let read = self.reader.read_deflated(&self.ahead, buf, &mut scratch.inflater, &mut self.controls);
            let (used, made) = match read {
                Ok(read) => read,
                Err(error) => return Ok((Err(error), false)),
            };
            self.ahead.advance(used);
            self.holds_input = made == buf.len();
            if self.ahead.is_empty() {
                self.ahead = Bytes::new();
            }
            if made > 0 || !self.controls.is_empty() || self.farewell.is_some() {
                return Ok((Ok(made), true));
            }
        }
        let mut frames = std::mem::take(&mut scratch.frames);
        frames.resize(FRAMES_BYTES, 0);
        let received = self.receive(wire, read_on, &mut frames, &mut scratch.records);
        let found = match received {
            Recv::Data { bytes, more } => {
                let frames = &frames[..bytes];
                match self.reader.read_deflated(frames, buf, &mut scratch.inflater, &mut self.controls) {
                    Ok((used, made)) => {
                        self.holds_input = made == buf.len();
                        if self.holds_input {
                            self.ahead = Bytes::copy_from_slice(&frames[used..]);
                        }
                        Ok((Ok(made), more || self.holds_input))
                    }
                    Err(error) => Ok((Err(error), false)),
                }
            }
            other => Err(other),
        };
        scratch.frames = frames;
        found
    }

    /// As [`Session::send`]. Where less is taken than offered although the socket has room, [`WebSocket::yields`] says so.
    pub(super) fn send<W: Wire>(&mut self, wire: &mut W, bufs: &[IoSlice<'_>], scratch: &mut Scratch) -> Sent {
        let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut taken = 0;
        self.yields = false;
        loop {
            if self.head.is_empty() {
                let again = self.owed.min(offered - taken);
                (taken, self.owed) = (taken + again, self.owed - again);
            }
            if self.frame_left == 0 && self.head.is_empty() {
                let rest = offered - taken;
                let deflates = self.deflates && rest >= DEFLATED_BYTES_MIN;
                if deflates && scratch.spent >= DEFLATED_PER_TURN {
                    self.yields = true;
                    return Sent::Bytes(taken);
                }
                self.head.append(&mut self.waiting);
                if deflates {
                    self.owed = rest.min(DEFLATED_PART_BYTES);
                    if self.send_deflated(wire, part(bufs, taken, self.owed), scratch) == Sent::Failed {
                        return Sent::Failed;
                    }
                    continue;
                }
                self.frame_left = rest;
                if self.frame_left > 0 {
                    data_header(self.frame_left, &mut self.head);
                }
            }
            let payload = self.frame_left.min(offered - taken);
            if self.head.len() + payload == 0 {
                if self.head.capacity() > HEAD_BYTES_KEPT {
                    self.head = Vec::new();
                }
                return Sent::Bytes(taken);
            }
            let mut slices: SmallVec<[IoSlice<'_>; 33]> = SmallVec::new();
            slices.push(IoSlice::new(&self.head));
            slices.extend(part(bufs, taken, payload).map(IoSlice::new));
            let written = write(&mut self.tls, wire, &slices);
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

    /// Makes one compressed frame of `parts` and sends it behind what is in `head`; there goes what the socket does not
    /// take.
    fn send_deflated<'a, W: Wire>(
        &mut self,
        wire: &mut W,
        parts: impl Iterator<Item = &'a [u8]>,
        scratch: &mut Scratch,
    ) -> Sent {
        scratch.spent += self.owed;
        let deflated = &mut scratch.deflated;
        deflated.clear();
        if scratch.deflater.get_or_insert_default().deflate(parts, deflated).is_none() {
            return Sent::Failed;
        }
        deflated_header(deflated.len(), &mut self.head);
        let outcome = write(&mut self.tls, wire, &[IoSlice::new(&self.head), IoSlice::new(deflated)]);
        if let Sent::Bytes(written) = outcome {
            let of_head = written.min(self.head.len());
            self.head.drain(..of_head);
            self.head.extend_from_slice(&deflated[written - of_head..]);
        }
        outcome
    }

    /// Whether the last output waits for the next turn, not for the socket.
    pub(super) fn yields(&self) -> bool {
        self.yields
    }

    /// Sends control frames, unless a frame has begun.
    fn say<W: Wire>(&mut self, wire: &mut W, scratch: &mut Scratch) {
        if self.frame_left == 0 && self.head.len() + self.waiting.len() > 0 {
            // A broken socket shows at the next read.
            let _ = self.send(wire, &[], scratch);
        }
    }

    /// Tells the client why it is closed, or answers its own close frame; as far as the socket takes it.
    pub(super) fn farewell<W: Wire>(&mut self, wire: &mut W, reason: CloseReason, scratch: &mut Scratch) {
        let is_answer = matches!(reason, CloseReason::ReadError | CloseReason::ClientClosed);
        let answer = self.farewell.take().filter(|_| is_answer);
        let has_answer = answer.is_some();
        let body = answer.unwrap_or_else(|| {
            let code = close_code(reason);
            [&code.to_be_bytes()[..], reason.monitor_text().as_bytes()].concat()
        });
        close_frame(&body, &mut self.waiting);
        self.say(wire, scratch);
        if has_answer {
            self.discard(wire, scratch);
        }
    }

    /// Reads what has come behind the last frame that counts: a socket closed with unread bytes would take the last words
    /// away from the client.
    fn discard<W: Wire>(&mut self, wire: &mut W, scratch: &mut Scratch) {
        let mut bytes = std::mem::take(&mut scratch.frames);
        bytes.resize(FRAMES_BYTES, 0);
        for _ in 0..DISCARDED_READS_MAX {
            let received = self.receive(wire, true, &mut bytes, &mut scratch.records);
            if !matches!(received, Recv::Data { .. }) {
                break;
            }
        }
        scratch.frames = bytes;
    }

    pub(super) fn close<W: Wire>(&mut self, wire: &mut W) {
        if let Some(session) = &mut self.tls {
            session.close(wire);
        }
    }
}

fn write<W: Wire>(tls: &mut Option<Box<Session>>, wire: &mut W, bufs: &[IoSlice<'_>]) -> Sent {
    match tls {
        Some(session) => session.send(wire, bufs),
        None => wire.send_some(bufs),
    }
}

/// `count` bytes of `bufs` from `skip` on.
fn part<'a>(bufs: &'a [IoSlice<'_>], mut skip: usize, mut count: usize) -> impl Iterator<Item = &'a [u8]> {
    bufs.iter().filter_map(move |buf| {
        let from = skip.min(buf.len());
        skip -= from;
        let to = (from + count).min(buf.len());
        count -= to - from;
        (to > from).then(|| &buf[from..to])
    })
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
