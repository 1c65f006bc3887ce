//! Buffers that direct I/O accepts: memory that begins on a block.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::ids::BLOCK_BYTES;

/// One block of memory, aligned as the kernel wants it.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

const _: () = assert!(size_of::<Block>() == BLOCK_BYTES && align_of::<Block>() == BLOCK_BYTES);

/// Bytes that begin at an address divisible by [`BLOCK_BYTES`].
///
/// Grows like a `Vec` and keeps its memory when it is cleared, so that a buffer which goes round between the log and
/// the disk allocates nothing once it has its size. All memory is initialised; what lies beyond the length is old
/// content.
#[derive(Clone, Default)]
pub struct AlignedBuf {
    blocks: Vec<Block>,
    len: usize,
}

impl AlignedBuf {
    /// An empty buffer without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { blocks: Vec::new(), len: 0 }
    }

    /// An empty buffer that takes `bytes` without growing.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Self::new();
        buffer.reserve(bytes);
        buffer
    }

    /// A buffer of `bytes` zeros.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        let mut buffer = Self::with_capacity(bytes);
        buffer.len = bytes;
        buffer
    }

    /// Makes it `bytes` long. Beyond its former length there is old content, or zeros: for whoever overwrites it.
    pub(crate) fn set_len(&mut self, bytes: usize) {
        self.reserve(bytes.saturating_sub(self.len));
        self.len = bytes;
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it holds without growing.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Shortens it to `bytes`; nothing happens if it is not longer.
    pub fn truncate(&mut self, bytes: usize) {
        self.len = self.len.min(bytes);
    }

    /// Makes room for `more` bytes beyond the length.
    pub fn reserve(&mut self, more: usize) {
        let blocks = (self.len + more).div_ceil(BLOCK_BYTES);
        if blocks > self.blocks.len() {
            self.grow(blocks);
        }
    }

    #[cold]
    fn grow(&mut self, blocks: usize) {
        self.blocks.resize(blocks.max(self.blocks.len() * 2), Block([0; BLOCK_BYTES]));
    }

    /// Appends a copy of `bytes`.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.spare(bytes.len()).copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends zeros up to a length of `bytes`; nothing happens if it is that long already.
    pub fn pad_to(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.len);
        self.spare(more).fill(0);
        self.len += more;
    }

    /// The `bytes` behind the length, made if need be: to be written to and then added with [`AlignedBuf::advance`].
    pub(super) fn spare(&mut self, bytes: usize) -> &mut [u8] {
        self.reserve(bytes);
        let start = self.len;
        &mut self.memory_mut()[start..start + bytes]
    }

    /// Adds `bytes` that were written to [`AlignedBuf::spare`].
    pub(super) fn advance(&mut self, bytes: usize) {
        assert!(self.len + bytes <= self.capacity(), "{bytes} more than the buffer holds");
        self.len += bytes;
    }

    fn memory(&self) -> &[u8] {
        // SAFETY: a `Block` is 4096 initialised bytes without padding (checked above), so the vector's elements are
        // that many bytes in one allocation; the lifetime and the shared access are those of `self`.
        unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast::<u8>(), self.blocks.len() * BLOCK_BYTES) }
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `memory`; any bytes make a valid `Block`, and the exclusive access is that of `self`.
        unsafe {
            std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast::<u8>(), self.blocks.len() * BLOCK_BYTES)
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory()[..self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.memory_mut()[..len]
    }
}

/// For `bytes::Bytes::from_owner`, which shares a buffer that was read into.
impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} of {} bytes)", self.len, self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_on_a_block_whatever_its_size_and_keeps_its_memory() {
        let mut buffer = AlignedBuf::new();
        assert!(buffer.is_empty());
        for round in 0..3_u8 {
            buffer.clear();
            for _ in 0..10_000 {
                buffer.extend_from_slice(&[round, 7]);
            }
            assert_eq!(buffer.as_ptr().addr() % BLOCK_BYTES, 0);
            assert!(buffer.chunks(2).all(|pair| pair == [round, 7]));
        }
        assert_eq!(buffer.len(), 20_000);
        assert!(buffer.capacity() <= 2 * 20_480);
        let before = buffer.as_ptr();
        buffer.clear();
        buffer.pad_to(20_000);
        assert_eq!(before, buffer.as_ptr());
        assert!(buffer.iter().all(|&byte| byte == 0), "padding covers old content");
    }
}
