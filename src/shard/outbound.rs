//! Bytes on their way to one client.
//!
//! Small writes are appended to an open chunk from the shard's [`ChunkPool`]; large bodies are kept as references
//! to shared blocks between chunks. A connection with nothing to send owns no chunk. Bounded by `max_pending`,
//! which the caller checks with [`Outbound::pending`].

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use crate::wire::message::{Message, Tail};

/// Most segments handed to the kernel in one call (`UIO_MAXIOV` is 1024; more than this gains nothing).
pub(crate) const SEGMENTS_PER_WRITE: usize = 64;

/// Output of one connection, oldest first: `done`, then `open`.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    done: VecDeque<Segment>,
    open: Vec<u8>,
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
    pub(crate) fn write(&mut self, pool: &mut ChunkPool, bytes: &[u8]) {
        self.room(pool, bytes.len()).extend_from_slice(bytes);
        self.pending += bytes.len();
    }

    /// Appends a message for subscription `sid`.
    #[inline]
    pub(crate) fn write_message(&mut self, pool: &mut ChunkPool, subject: &[u8], sid: &[u8], message: &Message<'_>) {
        let verb: &[u8] = if message.header_bytes == 0 { b"MSG " } else { b"HMSG " };
        let (inline, shared) = match message.tail {
            Tail::Joined(tail) => (tail, None),
            Tail::Shared { arguments, body } => (arguments, Some(body)),
        };
        let bytes = verb.len() + subject.len() + 1 + sid.len() + inline.len();
        let open = self.room(pool, bytes);
        open.extend_from_slice(verb);
        open.extend_from_slice(subject);
        open.push(b' ');
        open.extend_from_slice(sid);
        open.extend_from_slice(inline);
        self.pending += bytes;
        if let Some(body) = shared {
            let full = std::mem::take(&mut self.open);
            self.done.push_back(Segment::Owned(full));
            self.done.push_back(Segment::Shared(body.clone()));
            self.pending += body.len();
        }
    }

    /// The open chunk, with room for `bytes` more.
    #[inline(always)]
    fn room(&mut self, pool: &mut ChunkPool, bytes: usize) -> &mut Vec<u8> {
        if self.open.capacity() - self.open.len() < bytes {
            self.next_chunk(pool, bytes);
        }
        &mut self.open
    }

    #[inline(never)]
    fn next_chunk(&mut self, pool: &mut ChunkPool, bytes: usize) {
        if !self.open.is_empty() {
            let full = std::mem::take(&mut self.open);
            self.done.push_back(Segment::Owned(full));
            self.class = (self.class + 1).min(CLASSES as u8 - 1);
        }
        pool.put(std::mem::take(&mut self.open));
        self.open = pool.take(self.class, bytes);
    }

    /// Fills `slices` with what is to be written next; gives the count.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SEGMENTS_PER_WRITE]) -> usize {
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
    pub(crate) fn advance(&mut self, pool: &mut ChunkPool, bytes: usize) {
        self.pending -= bytes;
        self.sent += bytes;
        while let Some(first) = self.done.front() {
            let len = first.bytes().len();
            if self.sent < len {
                return;
            }
            self.sent -= len;
            if let Some(Segment::Owned(chunk)) = self.done.pop_front() {
                pool.put(chunk);
            }
        }
        if self.sent == self.open.len() {
            // Half-used chunks twice in a row would be a waste: follow the need downwards too.
            if self.class > 0 && self.open.len() * 8 < self.open.capacity() {
                self.class -= 1;
            }
            self.sent = 0;
            pool.put(std::mem::take(&mut self.open));
            if self.done.capacity() > SEGMENTS_PER_WRITE {
                self.done = VecDeque::new();
            }
        }
    }

    /// Drops everything that is pending.
    pub(crate) fn clear(&mut self, pool: &mut ChunkPool) {
        for segment in self.done.drain(..) {
            if let Segment::Owned(chunk) = segment {
                pool.put(chunk);
            }
        }
        pool.put(std::mem::take(&mut self.open));
        (self.sent, self.pending) = (0, 0);
    }
}

/// Number of chunk sizes: 4, 16, 64, 256 KiB.
const CLASSES: usize = 4;
const CLASS_BYTES: [usize; CLASSES] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
/// Chunks kept for reuse, bytes over all classes. More are freed.
const POOL_BYTES_MAX: usize = 16 << 20;

/// Empty chunks of one shard, last in first out so that they are warm.
#[derive(Debug, Default)]
pub(crate) struct ChunkPool {
    free: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

impl ChunkPool {
    /// An empty chunk of at least `bytes`, of size class `class` or above.
    fn take(&mut self, class: u8, bytes: usize) -> Vec<u8> {
        let wanted = CLASS_BYTES.iter().position(|size| *size >= bytes).unwrap_or(CLASSES).max(usize::from(class));
        let Some(size) = CLASS_BYTES.get(wanted) else {
            return Vec::with_capacity(bytes);
        };
        match self.free[wanted].pop() {
            Some(chunk) => {
                self.bytes -= size;
                chunk
            }
            None => Vec::with_capacity(*size),
        }
    }

    /// Takes a chunk back; frees it when the pool holds enough.
    fn put(&mut self, mut chunk: Vec<u8>) {
        let Some(class) = CLASS_BYTES.iter().position(|size| *size == chunk.capacity()) else {
            return;
        };
        if self.bytes + chunk.capacity() <= POOL_BYTES_MAX {
            chunk.clear();
            self.bytes += chunk.capacity();
            self.free[class].push(chunk);
        }
    }

    /// Frees all chunks: called when the shard has been idle for long.
    pub(crate) fn trim(&mut self) {
        *self = Self::default();
    }

    /// Bytes held for reuse.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(out: &mut Outbound, pool: &mut ChunkPool, step: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        while out.pending() > 0 {
            let mut slices = [IoSlice::new(&[]); SEGMENTS_PER_WRITE];
            let count = out.slices(&mut slices);
            let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            let taken = step.min(all.len());
            seen.extend_from_slice(&all[..taken]);
            out.advance(pool, taken);
        }
        seen
    }

    #[test]
    fn partial_writes_keep_every_byte_in_order() {
        let body = Bytes::from(vec![b'x'; 9000]);
        for step in [1, 7, 4096, 100_000] {
            let mut pool = ChunkPool::default();
            let mut out = Outbound::default();
            let mut expected = Vec::new();
            for n in 0..40 {
                let text = format!("PONG {n}\r\n").repeat(n * 13 + 1);
                out.write(&mut pool, text.as_bytes());
                expected.extend_from_slice(text.as_bytes());
                if n % 5 == 0 {
                    let tail = Tail::Shared { arguments: b" 8998\r\n", body: &body };
                    let message = Message { subject: b"s", reply_bytes: 0, header_bytes: 0, argument_bytes: 7, tail };
                    out.write_message(&mut pool, b"s", b"1", &message);
                    expected.extend_from_slice(b"MSG s 1 8998\r\n");
                    expected.extend_from_slice(&body);
                }
            }
            assert_eq!(out.pending(), expected.len());
            assert_eq!(drain(&mut out, &mut pool, step), expected);
            assert_eq!(out.capacity(), 0, "a drained connection owns no buffer");
        }
    }

    #[test]
    fn the_pool_is_bounded() {
        let mut pool = ChunkPool::default();
        for _ in 0..200 {
            pool.put(Vec::with_capacity(CLASS_BYTES[3]));
        }
        assert!(pool.bytes() <= POOL_BYTES_MAX);
        pool.trim();
        assert_eq!(pool.bytes(), 0);
    }
}
