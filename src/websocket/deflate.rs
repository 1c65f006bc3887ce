//! Compressed messages (`permessage-deflate`, RFC 7692). Each stands by itself: no window is carried from one to the next,
//! in either direction, so that a connection holds nothing between its messages.
#![forbid(unsafe_code)]

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frames::FrameError;

/// Output of fewer bytes goes as it is, as the reference has it.
pub const DEFLATED_BYTES_MIN: usize = 65;
/// What a sender leaves out of a message: the end of a flush.
const FLUSH_END: [u8; 4] = [0, 0, 0xFF, 0xFF];
/// Put behind a message that comes in: that, and an empty last block, by which the inflater knows that it is whole.
const MESSAGE_END: [u8; 9] = [0, 0, 0xFF, 0xFF, 1, 0, 0, 0xFF, 0xFF];
/// Room that a flush needs, bytes.
const FLUSH_BYTES: usize = 128;

fn corrupt() -> FrameError {
    FrameError { code: 1007, text: "corrupt compressed message".into() }
}

/// One message that is being inflated; about 45 KB.
#[derive(Debug)]
pub struct Inflater {
    state: Decompress,
    /// What may still come out of the message.
    left: u64,
    /// Bytes of [`MESSAGE_END`] that have been read.
    end_read: usize,
    /// The last block has ended. More may follow in the message, and does not count.
    done: bool,
}

impl Inflater {
    /// For a message of at most `bytes_max` inflated bytes; made of one that has served before, if there is one.
    pub(super) fn for_message(used: Option<Box<Self>>, bytes_max: u64) -> Box<Self> {
        let mut inflater = used.map_or_else(
            || Box::new(Self { state: Decompress::new(false), left: 0, end_read: 0, done: false }),
            |mut used| {
                used.state.reset(false);
                used
            },
        );
        (inflater.left, inflater.end_read, inflater.done) = (bytes_max, 0, false);
        inflater
    }

    /// Inflates `input` until it is used up or `out` is full; gives how many bytes of either that were. Without input it
    /// gives what had no room before.
    ///
    /// # Errors
    /// What came in is not compressed, or is too much.
    pub(super) fn inflate(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), FrameError> {
        let (mut used, mut made) = (0, 0);
        while !self.done && made < out.len() {
            let (read, written) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(&input[used..], &mut out[made..], FlushDecompress::None);
            let status = status.map_err(|_| corrupt())?;
            let (read, written) = (self.state.total_in() - read, self.state.total_out() - written);
            used += read as usize;
            made += written as usize;
            self.left = self
                .left
                .checked_sub(written)
                .ok_or_else(|| FrameError { code: 1009, text: "maximum payload exceeded".into() })?;
            self.done = status == Status::StreamEnd;
            if read + written == 0 {
                break;
            }
        }
        if self.done {
            used = input.len();
        } else if used < input.len() && made < out.len() {
            return Err(corrupt());
        }
        Ok((used, made))
    }

    /// All of the message has come: gives what is left of it, and whether that was all.
    ///
    /// # Errors
    /// The message is not whole, or too much.
    pub(super) fn finish(&mut self, out: &mut [u8]) -> Result<(usize, bool), FrameError> {
        let (used, made) = self.inflate(&MESSAGE_END[self.end_read..], out)?;
        self.end_read += used;
        if !self.done && made < out.len() {
            return Err(corrupt());
        }
        Ok((made, self.done))
    }
}

/// Makes compressed messages; about 300 KB.
#[derive(Debug)]
pub struct Deflater(Compress);

impl Default for Deflater {
    fn default() -> Self {
        Self(Compress::new(Compression::fast(), false))
    }
}

impl Deflater {
    /// Appends the payload of a message that carries `parts`. `None` if the compressor fails.
    pub fn deflate<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> Option<()> {
        self.0.reset();
        for mut part in parts {
            while !part.is_empty() {
                out.reserve(part.len() / 2 + FLUSH_BYTES);
                let before = self.0.total_in();
                self.0.compress_vec(part, out, FlushCompress::None).ok()?;
                part = &part[(self.0.total_in() - before) as usize..];
            }
        }
        // A call that finds output waiting for room only gives that out, and flushes nothing.
        while !self.call(FlushCompress::None, out)? || !self.call(FlushCompress::Sync, out)? {}
        out.ends_with(&FLUSH_END).then(|| out.truncate(out.len() - FLUSH_END.len()))
    }

    /// Calls the compressor without input. Gives whether room is left, so that no output waits for it.
    fn call(&mut self, flush: FlushCompress, out: &mut Vec<u8>) -> Option<bool> {
        out.reserve(FLUSH_BYTES);
        self.0.compress_vec(&[], out, flush).ok()?;
        Some(out.len() < out.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflated(message: &[u8], bytes_max: usize) -> Vec<u8> {
        let mut inflater = Inflater::for_message(None, bytes_max as u64);
        let mut out = vec![0; bytes_max + 1];
        let (used, mut made) = inflater.inflate(message, &mut out).expect("a compressed message");
        assert_eq!(used, message.len());
        let (more, is_whole) = inflater.finish(&mut out[made..]).expect("a whole message");
        assert!(is_whole);
        made += more;
        out.truncate(made);
        out
    }

    /// Random bytes do not become fewer, so that output waits for room inside the compressor at all sizes; and what
    /// looks like the end of a flush may stand anywhere.
    #[test]
    fn messages_of_all_sizes_are_whole() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut deflater = Deflater::default();
        let mut reused = Vec::new();
        let steps = (58_000..62_500).step_by(23).chain((0..40).map(|_| 0));
        for step in steps {
            let bytes = if step == 0 { rng.usize(..300_000) } else { step };
            let mut payload: Vec<u8> = (0..bytes).map(|_| rng.u8(..)).collect();
            match rng.u8(..4) {
                0 => payload.extend_from_slice(&FLUSH_END),
                1 => payload.iter_mut().for_each(|byte| *byte = b'a' + *byte % 16),
                _ => {}
            }
            let mut fresh = Vec::with_capacity(rng.usize(..=2 * bytes));
            for out in [&mut fresh, &mut reused] {
                out.clear();
                let (first, second) = payload.split_at(rng.usize(..=payload.len()));
                deflater.deflate([first, second].into_iter(), out).expect("a compressed message");
                assert!(inflated(out, payload.len()) == payload, "{bytes} bytes");
            }
        }
    }
}
