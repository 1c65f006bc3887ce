//! Bytes on their way to one client.
//!
//! Small writes are appended to an open chunk from the shard's [`Buffers`]; messages that several clients get alike are
//! parts of a run that they share, and large bodies references to shared blocks. A connection with nothing to send owns
//! no buffer. Bounded by `max_pending`, which the caller checks with [`Outbound::pending`].

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use super::buffers::{Buffers, CLASSES, Part};
use crate::wire::message::{Message, Tail};

/// Most segments handed to the kernel in one call (`UIO_MAXIOV` is 1024; more than this gains nothing).
pub(crate) const SEGMENTS_PER_WRITE: usize = 64;

/// A part of a run that is smaller than this is copied when something else follows it: a copy costs less than one more
/// segment to write.
const PART_BYTES_MIN: usize = 1 << 10;

/// Output of one connection, oldest first: `done`, then `part` or `open`, of which one is empty.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    done: VecDeque<Segment>,
    open: Vec<u8>,
    part: Part,
    /// Bytes of the first segment that the kernel has already taken.
    sent: usize,
    pending: usize,
    /// Size class of the next chunk; follows what the connection needed lately.
    class: u8,
}

#[derive(Debug)]
enum Segment {
    Owned(Vec<u8>),
    Shared(Bytes),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Outbound {
    /// Bytes not yet taken by the kernel.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// Bytes of buffers held.
    #[cfg(test)]
    fn capacity(&self) -> usize {
        let done: usize = self
            .done
            .iter()
            .map(|segment| match segment {
                Segment::Owned(bytes) => bytes.capacity(),
                Segment::Shared(bytes) => bytes.len(),
            })
            .sum();
        done + self.open.capacity()
    }

    /// Appends protocol text.
    pub(crate) fn write(&mut self, buffers: &mut Buffers, bytes: &[u8]) {
        self.room(buffers, bytes.len()).extend_from_slice(bytes);
        self.pending += bytes.len();
    }

    /// Appends a message for subscription `sid`.
    #[inline]
    pub(crate) fn write_message(&mut self, buffers: &mut Buffers, sid: &[u8], message: &Message<'_>) {
        let bytes = message.written_bytes(sid);
        message.write(self.room(buffers, bytes), sid);
        self.pending += bytes;
        if let Tail::Shared { body, .. } = message.tail {
            let full = std::mem::take(&mut self.open);
            self.done.push_back(Segment::Owned(full));
            self.done.push_back(Segment::Shared(body.clone()));
            self.pending += body.len();
        }
    }

    /// Appends a message that stands in a run of this turn.
    #[inline]
    pub(crate) fn write_part(&mut self, buffers: &mut Buffers, part: Part) {
        let bytes = part.bytes();
        self.pending += bytes;
        if self.part.append(part) {
            return;
        }
        if self.part.bytes() == 0 && self.open.is_empty() {
            self.part = part;
            return;
        }
        if self.part.bytes() > 0 {
            self.end_part(buffers);
        }
        if self.open.capacity() - self.open.len() < bytes {
            self.next_chunk(buffers, bytes);
        }
        self.open.extend_from_slice(buffers.part(part));
    }

    /// Makes the part of a run, if there is one, a reference or a copy that outlives the turn.
    #[inline]
    pub(crate) fn end_part(&mut self, buffers: &mut Buffers) {
        if self.part.bytes() > 0 {
            self.keep_part(buffers);
        }
    }

    #[inline(never)]
    fn keep_part(&mut self, buffers: &mut Buffers) {
        let part = std::mem::take(&mut self.part);
        let shared = if part.bytes() >= PART_BYTES_MIN { buffers.share(part) } else { None };
        match shared {
            Some(bytes) => self.done.push_back(Segment::Shared(bytes)),
            None => {
                self.next_chunk(buffers, part.bytes());
                self.open.extend_from_slice(buffers.part(part));
            }
        }
    }

    /// The open chunk, with room for `bytes` more.
    #[inline(always)]
    fn room(&mut self, buffers: &mut Buffers, bytes: usize) -> &mut Vec<u8> {
        self.end_part(buffers);
        if self.open.capacity() - self.open.len() < bytes {
            self.next_chunk(buffers, bytes);
        }
        &mut self.open
    }

    #[inline(never)]
    fn next_chunk(&mut self, buffers: &mut Buffers, bytes: usize) {
        if !self.open.is_empty() {
            let full = std::mem::take(&mut self.open);
            self.done.push_back(Segment::Owned(full));
            self.class = (self.class + 1).min(CLASSES as u8 - 1);
        }
        buffers.chunks.put(std::mem::take(&mut self.open));
        self.open = buffers.chunks.take(self.class, bytes);
    }

    /// Fills `slices` with what is to be written next; gives the count. Comes after [`Outbound::end_part`].
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SEGMENTS_PER_WRITE]) -> usize {
        debug_assert!(self.part.bytes() == 0, "parts of runs end before a write");
        let mut skip = self.sent;
        let mut count = 0;
        let all = self.done.iter().map(Segment::bytes).chain(std::iter::once(self.open.as_slice()));
        for bytes in all {
            let rest = &bytes[skip..];
            skip = 0;
            if !rest.is_empty() {
                if count == SEGMENTS_PER_WRITE {
                    break;
                }
                slices[count] = IoSlice::new(rest);
                count += 1;
            }
        }
        count
    }

    /// The kernel has taken `bytes`.
    pub(crate) fn advance(&mut self, buffers: &mut Buffers, bytes: usize) {
        self.pending -= bytes;
        self.sent += bytes;
        while let Some(first) = self.done.front() {
            let len = first.bytes().len();
            if self.sent < len {
                return;
            }
            self.sent -= len;
            if let Some(Segment::Owned(chunk)) = self.done.pop_front() {
                buffers.chunks.put(chunk);
            }
        }
        if self.sent == self.open.len() {
            // Half-used chunks twice in a row would be a waste: follow the need downwards too.
            if self.class > 0 && self.open.len() * 8 < self.open.capacity() {
                self.class -= 1;
            }
            self.sent = 0;
            buffers.chunks.put(std::mem::take(&mut self.open));
            if self.done.capacity() > SEGMENTS_PER_WRITE {
                self.done = VecDeque::new();
            }
        }
    }

    /// Drops everything that is pending.
    pub(crate) fn clear(&mut self, buffers: &mut Buffers) {
        for segment in self.done.drain(..) {
            if let Segment::Owned(chunk) = segment {
                buffers.chunks.put(chunk);
            }
        }
        buffers.chunks.put(std::mem::take(&mut self.open));
        self.part = Part::default();
        (self.sent, self.pending) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(out: &mut Outbound, buffers: &mut Buffers, step: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        while out.pending() > 0 {
            seen.extend(drain_some(out, buffers, step));
        }
        seen
    }

    /// Lets the kernel take up to `step` bytes.
    fn drain_some(out: &mut Outbound, buffers: &mut Buffers, step: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SEGMENTS_PER_WRITE];
        let count = out.slices(&mut slices);
        let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        let taken = step.min(all.len());
        out.advance(buffers, taken);
        all[..taken].to_vec()
    }

    #[test]
    fn partial_writes_keep_every_byte_in_order() {
        let body = Bytes::from(vec![b'x'; 9000]);
        for step in [1, 7, 4096, 100_000] {
            let mut buffers = Buffers::default();
            let mut out = Outbound::default();
            let mut expected = Vec::new();
            for n in 0..40 {
                let text = format!("PONG {n}\r\n").repeat(n * 13 + 1);
                out.write(&mut buffers, text.as_bytes());
                expected.extend_from_slice(text.as_bytes());
                if n % 5 == 0 {
                    let tail = Tail::Shared { arguments: b" 8998\r\n", body: &body };
                    let message = Message { subject: b"s", reply_bytes: 0, header_bytes: 0, argument_bytes: 7, tail };
                    out.write_message(&mut buffers, b"1", &message);
                    expected.extend_from_slice(b"MSG s 1 8998\r\n");
                    expected.extend_from_slice(&body);
                }
            }
            assert_eq!(out.pending(), expected.len());
            assert_eq!(drain(&mut out, &mut buffers, step), expected);
            assert_eq!(out.capacity(), 0, "a drained connection owns no buffer");
        }
    }

    /// Two queues with common messages, messages of their own and text between them get every byte in order, whether
    /// they are written to within a turn, at its end, or fall behind.
    #[test]
    fn parts_of_runs_mix_with_everything_else() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut buffers = Buffers::default();
        let mut queues = [Outbound::default(), Outbound::default()];
        let (mut expected, mut seen) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for n in 0..20_000 {
            let tail = format!(" {}\r\n{n}\r\n", n.to_string().len());
            let tail = Tail::Joined(tail.as_bytes());
            let message = Message { subject: b"s", reply_bytes: 0, header_bytes: 0, argument_bytes: 4, tail };
            let part = buffers.render(b"1", &message);
            for ((out, expected), seen) in queues.iter_mut().zip(&mut expected).zip(&mut seen) {
                match rng.u8(..60) {
                    0 => {}
                    1 => {
                        out.write(&mut buffers, b"PONG\r\n");
                        expected.extend_from_slice(b"PONG\r\n");
                    }
                    2 => {
                        out.write_message(&mut buffers, b"9", &message);
                        message.write(expected, b"9");
                    }
                    _ => {
                        out.write_part(&mut buffers, part);
                        message.write(expected, b"1");
                    }
                }
                assert_eq!(out.pending() + seen.len(), expected.len());
                if rng.u8(..100) == 0 {
                    let step = rng.usize(1..4000);
                    out.end_part(&mut buffers);
                    seen.extend(drain_some(out, &mut buffers, step));
                }
            }
            if rng.u8(..200) == 0 {
                queues.iter_mut().for_each(|out| out.end_part(&mut buffers));
                buffers.end_turn();
            }
        }
        for ((mut out, expected), mut seen) in queues.into_iter().zip(expected).zip(seen) {
            out.end_part(&mut buffers);
            seen.extend(drain(&mut out, &mut buffers, 5000));
            assert!(seen == expected);
        }
    }
}
