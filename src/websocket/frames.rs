//! Frames: bytes of a client to the stream inside and control frames; headers and control frames of the server.
//!
//! ```text
//!  byte 0: FIN | RSV1-3 | opcode (4 bits)      byte 1: MASK | length (7 bits)
//!  length 126: 2 bytes follow, 127: 8 bytes; then 4 bytes of mask, if MASK; then the payload
//! ```
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::deflate::Inflater;
use crate::wire::errors::CloseReason;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV23: u8 = 0x30;
const MASK: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
/// Most payload of a control frame.
const CONTROL_BYTES_MAX: usize = 125;
/// Compressed bytes unmasked at once.
const BLOCK_BYTES: usize = 1 << 10;
/// Longest header: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// A control frame of the client that asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// To be answered with the same body.
    Ping(Vec<u8>),
    /// The client is done; to be answered with the same code and text, if there are any.
    Close(Vec<u8>),
}

/// Bytes that are no frames, or frames that must not be: the code and the text of the close frame that answers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// Close code.
    pub code: u16,
    /// Close text.
    pub text: Cow<'static, str>,
}

fn wrong(text: &'static str) -> FrameError {
    FrameError { code: 1002, text: text.into() }
}

/// Where in the client's frames the bytes read so far end.
#[derive(Debug, Default)]
pub struct FrameReader {
    unmasked: bool,
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    /// In the payload of a frame: its opcode and how much of it is to come.
    payload: Option<(u8, u64)>,
    mask: [u8; 4],
    mask_at: usize,
    /// The payload of a control frame so far.
    control: Vec<u8>,
    /// A message has begun and its last frame has not.
    in_message: bool,
    /// Messages may be compressed; to how many bytes each may inflate.
    inflated_bytes_max: Option<u64>,
    /// The message is compressed.
    compressed: bool,
    /// All of a compressed message has come, but not been inflated.
    finishing: bool,
    /// A compressed message from its first byte on.
    inflater: Option<Box<Inflater>>,
    /// A close frame has come: whatever follows does not count.
    closed: bool,
}

impl FrameReader {
    /// A reader at the beginning. `unmasked`: the client has asked to send without masks, and does so. `inflated_bytes_max`:
    /// it may compress messages, which may inflate to so many bytes each, and [`FrameReader::read_deflated`] is used.
    #[must_use]
    pub fn new(unmasked: bool, inflated_bytes_max: Option<u64>) -> Self {
        Self { unmasked, inflated_bytes_max, ..Self::default() }
    }

    /// Turns `bytes` of frames into bytes of the stream inside, in place; gives how many those are. Control frames that
    /// ask for something are added to `controls`.
    ///
    /// # Errors
    /// What is wrong; the reader is of no use then.
    pub fn read(&mut self, bytes: &mut [u8], controls: &mut Vec<Control>) -> Result<usize, FrameError> {
        let (mut at, mut out) = (0, 0);
        while at < bytes.len() && !self.closed {
            let Some((opcode, left)) = &mut self.payload else {
                self.header_byte(bytes[at], controls)?;
                at += 1;
                continue;
            };
            let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
            let part = &mut bytes[at..at + count];
            unmask(part, self.mask, &mut self.mask_at);
            if *opcode >= CLOSE {
                self.control.extend_from_slice(part);
            } else {
                bytes.copy_within(at..at + count, out);
                out += count;
            }
            at += count;
            *left -= count as u64;
            if *left == 0 {
                let opcode = *opcode;
                self.end_of_frame(opcode, controls)?;
            }
        }
        Ok(out)
    }

    /// As [`FrameReader::read`], where messages may be compressed: gives how many of `bytes` were used and how many
    /// bytes of the stream are in `out`. If that is all of `out` there may be more, even without further `bytes`. An
    /// inflater for the next message is taken from `spare`, and put there when it has served.
    ///
    /// # Errors
    /// As there.
    pub fn read_deflated(
        &mut self,
        bytes: &[u8],
        out: &mut [u8],
        spare: &mut Option<Box<Inflater>>,
        controls: &mut Vec<Control>,
    ) -> Result<(usize, usize), FrameError> {
        let (mut at, mut made) = (0, 0);
        if let Some(inflater) = &mut self.inflater {
            (_, made) = inflater.inflate(&[], out)?;
        }
        while !self.closed && made < out.len() {
            if self.finishing {
                let Some(inflater) = &mut self.inflater else { break };
                let (count, is_done) = inflater.finish(&mut out[made..])?;
                made += count;
                if is_done {
                    (self.finishing, self.compressed) = (false, false);
                    *spare = self.inflater.take();
                }
                continue;
            }
            if at == bytes.len() {
                break;
            }
            let Some((opcode, left)) = self.payload else {
                self.header_byte(bytes[at], controls)?;
                at += 1;
                if let Some(bytes_max) = self.inflated_bytes_max.filter(|_| self.compressed)
                    && self.inflater.is_none()
                {
                    self.inflater = Some(Inflater::for_message(spare.take(), bytes_max));
                }
                continue;
            };
            let mut count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
            if opcode >= CLOSE {
                let from = self.control.len();
                self.control.extend_from_slice(&bytes[at..at + count]);
                unmask(&mut self.control[from..], self.mask, &mut self.mask_at);
            } else if let Some(inflater) = &mut self.inflater {
                let mut block = [0; BLOCK_BYTES];
                let block = &mut block[..count.min(BLOCK_BYTES)];
                block.copy_from_slice(&bytes[at..at + block.len()]);
                unmask(block, self.mask, &mut { self.mask_at });
                let (used, inflated) = inflater.inflate(block, &mut out[made..])?;
                self.mask_at = (self.mask_at + used) % 4;
                (count, made) = (used, made + inflated);
            } else {
                count = count.min(out.len() - made);
                let part = &mut out[made..made + count];
                part.copy_from_slice(&bytes[at..at + count]);
                unmask(part, self.mask, &mut self.mask_at);
                made += count;
            }
            at += count;
            if left == count as u64 {
                self.end_of_frame(opcode, controls)?;
            } else {
                self.payload = Some((opcode, left - count as u64));
            }
        }
        Ok((at, made))
    }

    /// Adds a byte to a header.
    fn header_byte(&mut self, byte: u8, controls: &mut Vec<Control>) -> Result<(), FrameError> {
        self.header[self.header_bytes] = byte;
        self.header_bytes += 1;
        let [first, second, ..] = self.header;
        let opcode = first & 0x0F;
        let length = usize::from(second & !MASK);
        if self.header_bytes < 2 {
            return Ok(());
        }
        if self.header_bytes == 2 {
            self.check_start(first, second)?;
        }
        let length_bytes = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if second & MASK != 0 { 4 } else { 0 };
        if self.header_bytes < 2 + length_bytes + mask_bytes {
            return Ok(());
        }
        let long = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let length = if length_bytes > 0 { long(&self.header[2..2 + length_bytes]) } else { length as u64 };
        if length > i64::MAX as u64 {
            return Err(wrong("invalid 64-bit payload length"));
        }
        self.mask = [0; 4];
        self.mask[..mask_bytes].copy_from_slice(&self.header[2 + length_bytes..2 + length_bytes + mask_bytes]);
        (self.mask_at, self.header_bytes) = (0, 0);
        if opcode < CLOSE {
            self.in_message = first & FIN == 0;
            self.compressed |= first & RSV1 != 0;
        }
        self.payload = Some((opcode, length));
        if length == 0 { self.end_of_frame(opcode, controls) } else { Ok(()) }
    }

    /// Checks the first two bytes of a header.
    fn check_start(&self, first: u8, second: u8) -> Result<(), FrameError> {
        let opcode = first & 0x0F;
        if first & RSV23 != 0 {
            return Err(wrong("RSV2 and RSV3 must be clear"));
        }
        if first & RSV1 != 0 {
            match opcode {
                _ if self.inflated_bytes_max.is_none() => {
                    return Err(wrong("compressed frame received without negotiated permessage-deflate"));
                }
                CONTINUATION => return Err(wrong("invalid continuation frame")),
                CLOSE.. => return Err(wrong("control frame must not be compressed")),
                _ => {}
            }
        }
        match opcode {
            TEXT | BINARY if self.in_message => {
                return Err(wrong("new message started before final frame for previous message was received"));
            }
            TEXT | BINARY => {}
            CONTINUATION if !self.in_message => return Err(wrong("invalid continuation frame")),
            CONTINUATION => {}
            CLOSE | PING | PONG => {
                if usize::from(second & !MASK) > CONTROL_BYTES_MAX {
                    return Err(wrong("control frame length bigger than maximum allowed of 125 bytes"));
                }
                if first & FIN == 0 {
                    return Err(wrong("control frame does not have final bit set"));
                }
            }
            unknown => return Err(FrameError { code: 1002, text: format!("unknown opcode {unknown}").into() }),
        }
        match (second & MASK != 0, self.unmasked) {
            (false, false) => Err(wrong("mask bit missing")),
            (true, true) => Err(wrong("mask bit set although no masks were agreed on")),
            _ => Ok(()),
        }
    }

    fn end_of_frame(&mut self, opcode: u8, controls: &mut Vec<Control>) -> Result<(), FrameError> {
        self.payload = None;
        if opcode < CLOSE {
            self.finishing = self.compressed && !self.in_message;
            return Ok(());
        }
        let body = std::mem::take(&mut self.control);
        match opcode {
            PING => controls.push(Control::Ping(body)),
            CLOSE => {
                check_close(&body)?;
                self.closed = true;
                controls.push(Control::Close(body));
            }
            // A pong asks for nothing.
            _ => {}
        }
        Ok(())
    }
}

fn check_close(body: &[u8]) -> Result<(), FrameError> {
    match body {
        [] => Ok(()),
        [_] => Err(wrong("close frame payload cannot be 1 byte")),
        [high, low, text @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(FrameError { code: 1002, text: format!("invalid close status code {code}").into() });
            }
            match std::str::from_utf8(text) {
                Ok(_) => Ok(()),
                Err(_) => Err(FrameError { code: 1007, text: "invalid utf8 body in close frame".into() }),
            }
        }
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4], mask_at: &mut usize) {
    if mask == [0; 4] {
        return;
    }
    let mut turned = mask;
    turned.rotate_left(*mask_at);
    let mut chunks = bytes.chunks_exact_mut(8);
    let wide =
        u64::from_ne_bytes([turned[0], turned[1], turned[2], turned[3], turned[0], turned[1], turned[2], turned[3]]);
    for chunk in &mut chunks {
        let word: [u8; 8] = (&*chunk).try_into().expect("chunks have eight bytes");
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    let rest = chunks.into_remainder();
    rest.iter_mut().zip(turned.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    *mask_at = (*mask_at + rest.len()) % 4;
}

/// Appends the header of a message of one binary frame.
pub fn data_header(payload_bytes: usize, out: &mut Vec<u8>) {
    header(BINARY, payload_bytes, out);
}

/// Appends the header of a compressed message of one binary frame.
pub fn deflated_header(payload_bytes: usize, out: &mut Vec<u8>) {
    header(RSV1 | BINARY, payload_bytes, out);
}

/// Appends an answer to a ping.
pub fn pong_frame(body: &[u8], out: &mut Vec<u8>) {
    header(PONG, body.len(), out);
    out.extend_from_slice(body);
}

/// Appends a close frame with this body: a code and a text, or nothing.
pub fn close_frame(body: &[u8], out: &mut Vec<u8>) {
    let body = &body[..body.len().min(CONTROL_BYTES_MAX)];
    header(CLOSE, body.len(), out);
    out.extend_from_slice(body);
}

fn header(opcode: u8, length: usize, out: &mut Vec<u8>) {
    out.push(FIN | opcode);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// The code that tells a client why it is closed.
#[must_use]
pub fn close_code(reason: CloseReason) -> u16 {
    match reason {
        CloseReason::ClientClosed => 1000,
        CloseReason::AuthorizationViolation
        | CloseReason::UserGone
        | CloseReason::Lapsed(_)
        | CloseReason::AuthenticationTimeout
        | CloseReason::SlowConsumerPending
        | CloseReason::SlowConsumerDeadline
        | CloseReason::MaximumConnections
        | CloseReason::MaximumAccountConnections
        | CloseReason::MaximumSubscriptions
        | CloseReason::ConnectionThrottled
        | CloseReason::MaximumControlLine => 1008,
        CloseReason::UnknownOperation | CloseReason::ParseError | CloseReason::InvalidProtocol => 1002,
        CloseReason::MaximumPayload => 1009,
        CloseReason::ReadError
        | CloseReason::WriteError
        | CloseReason::StaleConnection
        | CloseReason::ServerShutdown => 1001,
        CloseReason::TlsHandshakeFailure => 1015,
        CloseReason::ClientError | CloseReason::NoRespondersRequiresHeaders => 1011,
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
