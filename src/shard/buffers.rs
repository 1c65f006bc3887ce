//! The buffers that the outbound queues of a shard share: chunks for reuse, and runs.
//!
//! A *run* holds messages as they are written to several clients at once. Where many subscribers see the same bytes (the
//! same subject and, as in copies of one program, the same sid) a message is rendered once, and each outbound queue
//! notes which [`Part`] of the run is its own. Parts are only good within the turn; what is left of them at its end
//! has become references to the sealed run, or copies where such a reference would keep too much alive.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::wire::message::Message;

/// Most bytes of a run. The next one begins then, or when one of its readers is written to.
const RUN_BYTES_MAX: usize = if cfg!(test) { 1 << 10 } else { 256 << 10 };
/// Capacity of a run's first buffer.
const RUN_BYTES_MIN: usize = if cfg!(test) { 256 } else { 4 << 10 };

/// Chunks and runs of one shard.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(super) chunks: ChunkPool,
    runs: Runs,
}

/// Bytes of a run that belong to one outbound queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    run: u32,
    start: u32,
    end: u32,
}

impl Part {
    #[inline]
    pub(super) fn bytes(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Grows by the part that follows it directly; an empty part is followed by none.
    #[inline]
    pub(super) fn append(&mut self, next: Self) -> bool {
        let follows = self.run == next.run && self.end == next.start && self.start < self.end;
        if follows {
            self.end = next.end;
        }
        follows
    }
}

/// The open run and those that were sealed in this turn.
#[derive(Debug, Default)]
struct Runs {
    open: Vec<u8>,
    /// Number of the open run; the sealed ones have the numbers before it.
    number: u32,
    sealed: SmallVec<[Bytes; 2]>,
    /// Capacity for the next run: what the last one needed.
    expected: usize,
}

impl Buffers {
    /// Writes a message for subscription `sid` into the open run.
    pub(super) fn render(&mut self, sid: &[u8], message: &Message<'_>) -> Part {
        let runs = &mut self.runs;
        if runs.open.len() >= RUN_BYTES_MAX {
            runs.seal();
        }
        if runs.open.capacity() == 0 {
            runs.open = Vec::with_capacity(runs.expected.clamp(RUN_BYTES_MIN, RUN_BYTES_MAX));
        }
        let start = runs.open.len() as u32;
        message.write(&mut runs.open, sid);
        Part { run: runs.number, start, end: runs.open.len() as u32 }
    }

    /// The bytes of a part of a run of this turn.
    pub(super) fn part(&self, part: Part) -> &[u8] {
        let run = match self.runs.number - part.run {
            0 => &self.runs.open[..],
            age => &self.runs.sealed[self.runs.sealed.len() - age as usize],
        };
        &run[part.start as usize..part.end as usize]
    }

    /// A reference to a part that outlives the turn; `None` if it would keep more than four times its size alive.
    pub(super) fn share(&mut self, part: Part) -> Option<Bytes> {
        let runs = &mut self.runs;
        if part.run == runs.number {
            if part.bytes() * 4 < runs.open.capacity() {
                return None;
            }
            runs.seal();
        }
        let run = &runs.sealed[runs.sealed.len() - (runs.number - part.run) as usize];
        (part.bytes() * 4 >= run.len()).then(|| run.slice(part.start as usize..part.end as usize))
    }

    /// Ends the turn: no part is in use any more. A run that nobody refers to serves the next turn.
    #[inline]
    pub(super) fn end_turn(&mut self) {
        if !self.runs.sealed.is_empty() || !self.runs.open.is_empty() {
            self.runs.end_turn();
        }
    }

    /// Frees all buffers: called when the shard has been idle for long.
    pub(crate) fn trim(&mut self) {
        self.chunks = ChunkPool::default();
        self.runs.open = Vec::new();
    }

    /// Bytes held for reuse.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.bytes + self.runs.open.capacity()
    }
}

impl Runs {
    fn seal(&mut self) {
        let mut bytes = std::mem::take(&mut self.open);
        self.expected = bytes.len();
        if bytes.capacity() > 2 * bytes.len() {
            bytes.shrink_to_fit();
        }
        self.sealed.push(bytes.into());
        self.number = self.number.wrapping_add(1);
    }

    fn end_turn(&mut self) {
        // Parts of the open run have all been copied.
        self.open.clear();
        for run in self.sealed.drain(..) {
            if self.open.capacity() == 0
                && let Ok(unused) = run.try_into_mut()
            {
                self.open = unused.into();
                self.open.clear();
            }
        }
        self.number = self.number.wrapping_add(1);
    }
}

/// Number of chunk sizes: 4, 16, 64, 256 KiB.
pub(super) const CLASSES: usize = 4;
const CLASS_BYTES: [usize; CLASSES] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
/// Chunks kept for reuse, bytes over all classes. More are freed.
const POOL_BYTES_MAX: usize = 16 << 20;

/// Empty chunks of one shard, last in first out so that they are warm.
#[derive(Debug, Default)]
pub(super) struct ChunkPool {
    free: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

impl ChunkPool {
    /// An empty chunk of at least `bytes`, of size class `class` or above.
    pub(super) fn take(&mut self, class: u8, bytes: usize) -> Vec<u8> {
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
    pub(super) fn put(&mut self, mut chunk: Vec<u8>) {
        let Some(class) = CLASS_BYTES.iter().position(|size| *size == chunk.capacity()) else {
            return;
        };
        if self.bytes + chunk.capacity() <= POOL_BYTES_MAX {
            chunk.clear();
            self.bytes += chunk.capacity();
            self.free[class].push(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Tail;

    fn render(buffers: &mut Buffers, sid: &str, tail: &[u8]) -> Part {
        let message =
            Message { subject: b"s", reply_bytes: 0, header_bytes: 0, argument_bytes: 4, tail: Tail::Joined(tail) };
        buffers.render(sid.as_bytes(), &message)
    }

    #[test]
    fn parts_of_one_run_join_and_keep_their_bytes() {
        let mut buffers = Buffers::default();
        let mut whole = render(&mut buffers, "1", b" 1\r\na\r\n");
        let other = render(&mut buffers, "22", b" 1\r\nb\r\n");
        assert_eq!(buffers.part(whole), b"MSG s 1 1\r\na\r\n");
        assert!(!Part::default().append(whole), "an empty part is followed by none");
        assert!(whole.append(other) && !whole.append(other), "a part joins what it follows, and nothing else");
        assert_eq!(buffers.part(whole), b"MSG s 1 1\r\na\r\nMSG s 22 1\r\nb\r\n");
        assert_eq!(buffers.part(other), b"MSG s 22 1\r\nb\r\n");
    }

    #[test]
    fn a_reference_keeps_at_most_four_times_its_size_alive() {
        let mut buffers = Buffers::default();
        let small = render(&mut buffers, "1", b" 1\r\na\r\n");
        assert_eq!(buffers.share(small), None, "the buffer is far larger");
        let mut all = small;
        while all.bytes() * 4 < RUN_BYTES_MIN {
            let next = render(&mut buffers, "1", b" 1\r\nb\r\n");
            assert!(all.append(next));
        }
        let expected = buffers.part(all).to_vec();
        assert_eq!(buffers.share(all).as_deref(), Some(&expected[..]));
        assert_eq!(buffers.share(small), None);
        assert_eq!(buffers.part(small), b"MSG s 1 1\r\na\r\n", "good until the turn ends");
        let next = render(&mut buffers, "1", b" 1\r\nc\r\n");
        assert!(!all.append(next), "a sealed run is closed");
        assert_eq!(buffers.part(next), b"MSG s 1 1\r\nc\r\n");
    }

    #[test]
    fn an_unused_run_serves_again() {
        let mut buffers = Buffers::default();
        let kept = (0..3).map(|_| {
            let part = (0..200).fold(Part::default(), |mut all, _| {
                let next = render(&mut buffers, "1", b" 1\r\na\r\n");
                if !all.append(next) {
                    all = next;
                }
                all
            });
            let shared = buffers.share(part);
            buffers.end_turn();
            shared
        });
        let kept: Vec<_> = kept.collect();
        assert!(kept.iter().flatten().all(|bytes| bytes.ends_with(b"a\r\n")), "references outlive the turn");
        drop(kept);
        render(&mut buffers, "1", b" 1\r\na\r\n");
        buffers.end_turn();
        assert!((1..=2 * RUN_BYTES_MAX).contains(&buffers.bytes()));
        buffers.trim();
        assert_eq!(buffers.bytes(), 0);
    }

    #[test]
    fn the_pool_is_bounded() {
        let mut pool = ChunkPool::default();
        for _ in 0..200 {
            pool.put(Vec::with_capacity(CLASS_BYTES[3]));
        }
        assert!(pool.bytes <= POOL_BYTES_MAX);
    }
}
