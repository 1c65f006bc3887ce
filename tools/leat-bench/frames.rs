//! Framing of the NATS protocol, both directions: bytes in, lines and messages out, whatever way the bytes are split.
//!
//! A receiver of millions of messages per second sees mostly one header again and again. The reader therefore parses
//! a header once and compares the following frames with it byte by byte, which costs a few nanoseconds and is exact:
//! any other frame, a PING or an error in between ends the run and is parsed on its own. Every payload is checked to
//! end in CRLF.

use crate::failure::{Failure, Outcome};

/// Longest line that is accepted; INFO of a large cluster is the longest in practice.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Largest payload that is accepted.
const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// How much of each message its receiver looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Only how many there were: equal headers arrive as one `Frames::Run`.
    Counts,
    /// Each one with at least this many bytes of its payload (headers included), or all of a shorter one.
    Prefix(usize),
    /// Each one whole.
    Whole,
}

/// What was found in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frames<'a> {
    /// A line without payload (PING, PONG, INFO, -ERR, CONNECT, SUB, …), without its CRLF.
    Line(&'a [u8]),
    /// Complete messages with this same header line.
    Run {
        /// The line up to the payload, without its CRLF.
        head: &'a [u8],
        /// How many of them.
        count: u64,
    },
    /// One complete message.
    Message {
        /// The line up to the payload, without its CRLF.
        head: &'a [u8],
        /// The payload, or as much of it as was wanted.
        body: &'a [u8],
    },
}

/// The position inside the stream of one connection.
pub(crate) struct FrameReader {
    want: Want,
    /// The frame that has begun but not ended: its line, then the wanted part of its body.
    stash: Vec<u8>,
    /// Length of the line in `stash` with its line end, once that is complete.
    line_bytes: usize,
    /// Payload size of the frame in `stash`.
    size: usize,
    /// Bytes of the frame still to come, its CRLF included; 0 while the line is incomplete.
    missing: usize,
}

impl FrameReader {
    /// A reader at the start of a stream.
    pub(crate) fn new(want: Want) -> FrameReader {
        FrameReader { want, stash: Vec::new(), line_bytes: 0, size: 0, missing: 0 }
    }

    /// Takes the next bytes of the stream and reports what they complete, in order.
    pub(crate) fn feed(&mut self, bytes: &[u8], found: &mut impl FnMut(Frames<'_>) -> Outcome<()>) -> Outcome<()> {
        let mut at = 0;
        if !self.stash.is_empty() {
            at = self.resume(bytes, found)?;
        }
        while at < bytes.len() {
            let rest = &bytes[at..];
            let Some(line_bytes) = line_length(rest)? else {
                self.stash.extend_from_slice(rest);
                break;
            };
            let line = &rest[..line_bytes];
            let head = trim_line_end(line);
            let Some(size) = payload_size(head)? else {
                found(Frames::Line(head))?;
                at += line_bytes;
                continue;
            };
            let frame_bytes = line_bytes + size + 2;
            if rest.len() < frame_bytes {
                self.stash_partial(rest, line_bytes, size);
                break;
            }
            at += self.take_run(rest, line, frame_bytes, found)?;
        }
        Ok(())
    }

    /// Whether the stream so far ends between two frames.
    #[cfg(test)]
    fn is_aligned(&self) -> bool {
        self.stash.is_empty()
    }

    /// Reports the frames at the start of `rest` that share `line`; the first one is known to be complete.
    fn take_run(
        &self,
        rest: &[u8],
        line: &[u8],
        frame_bytes: usize,
        found: &mut impl FnMut(Frames<'_>) -> Outcome<()>,
    ) -> Outcome<usize> {
        let head = trim_line_end(line);
        let mut count = 0;
        let mut taken = 0;
        for frame in rest.chunks_exact(frame_bytes) {
            if count > 0 && !starts_with(frame, line) {
                break;
            }
            if frame[frame_bytes - 2] != b'\r' || frame[frame_bytes - 1] != b'\n' {
                return Err(misframed(head));
            }
            count += 1;
            taken += frame_bytes;
            if self.want != Want::Counts {
                let body = &frame[line.len()..frame_bytes - 2];
                found(Frames::Message { head, body })?;
            }
        }
        if self.want == Want::Counts {
            found(Frames::Run { head, count })?;
        }
        Ok(taken)
    }

    fn stash_partial(&mut self, rest: &[u8], line_bytes: usize, size: usize) {
        let kept = line_bytes + (rest.len() - line_bytes).min(self.wanted(size));
        self.stash.extend_from_slice(&rest[..kept]);
        self.line_bytes = line_bytes;
        self.size = size;
        self.missing = line_bytes + size + 2 - rest.len();
    }

    fn wanted(&self, size: usize) -> usize {
        match self.want {
            Want::Counts => 0,
            Want::Prefix(bytes) => bytes.min(size),
            Want::Whole => size,
        }
    }

    /// Continues the frame in the stash; returns how many of `bytes` belonged to it.
    fn resume(&mut self, bytes: &[u8], found: &mut impl FnMut(Frames<'_>) -> Outcome<()>) -> Outcome<usize> {
        let mut at = 0;
        if self.missing == 0 {
            let Some(line_bytes) = line_length(bytes)? else {
                self.stash.extend_from_slice(bytes);
                if self.stash.len() > LINE_BYTES_MAX {
                    return Err(Failure::new("the peer sends a line without end"));
                }
                return Ok(bytes.len());
            };
            self.stash.extend_from_slice(&bytes[..line_bytes]);
            at = line_bytes;
            match payload_size(trim_line_end(&self.stash))? {
                None => {
                    let line = std::mem::take(&mut self.stash);
                    found(Frames::Line(trim_line_end(&line)))?;
                    return Ok(at);
                }
                Some(size) => {
                    self.line_bytes = self.stash.len();
                    self.size = size;
                    self.missing = size + 2;
                }
            }
        }
        let part = &bytes[at..];
        let take = part.len().min(self.missing);
        let still_wanted = self.line_bytes + self.wanted(self.size) - self.stash.len();
        self.stash.extend_from_slice(&part[..take.min(still_wanted)]);
        self.missing -= take;
        if self.missing > 0 || take == 0 {
            return Ok(at + take);
        }
        let (line, body) = self.stash.split_at(self.line_bytes);
        let head = trim_line_end(line);
        // The CR may have come with earlier bytes; the LF is always here.
        if part[take - 1] != b'\n' || (take > 1 && part[take - 2] != b'\r') {
            return Err(misframed(head));
        }
        match self.want {
            Want::Counts => found(Frames::Run { head, count: 1 })?,
            _ => found(Frames::Message { head, body })?,
        }
        self.stash.clear();
        if self.stash.capacity() > 16 << 10 && self.want != Want::Whole {
            self.stash.shrink_to(0);
        }
        Ok(at + take)
    }
}

fn misframed(head: &[u8]) -> Failure {
    Failure::new(format!("framing lost: no CRLF after the payload of `{}`", String::from_utf8_lossy(head)))
}

/// Length of the line at the start of `bytes` with its line end, if it is complete.
fn line_length(bytes: &[u8]) -> Outcome<Option<usize>> {
    match memchr::memchr(b'\n', bytes) {
        Some(at) => Ok(Some(at + 1)),
        None if bytes.len() > LINE_BYTES_MAX => Err(Failure::new("the peer sends a line without end")),
        None => Ok(None),
    }
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The payload size a line announces: the last word of MSG, HMSG, PUB and HPUB. `None` for other lines.
fn payload_size(head: &[u8]) -> Outcome<Option<usize>> {
    let announces = matches!(
        head,
        [b'M', b'S', b'G', b' ', ..]
            | [b'H', b'M' | b'P', b'S' | b'U', b'G' | b'B', b' ', ..]
            | [b'P', b'U', b'B', b' ', ..]
    );
    if !announces {
        return Ok(None);
    }
    let mut size = 0usize;
    let mut digits = 0;
    for &byte in head.iter().rev().take_while(|&&byte| byte != b' ') {
        if !byte.is_ascii_digit() || digits > 9 {
            return Err(Failure::new(format!("no payload size in `{}`", String::from_utf8_lossy(head))));
        }
        size += usize::from(byte - b'0') * 10usize.pow(digits);
        digits += 1;
    }
    if digits == 0 || size > PAYLOAD_BYTES_MAX {
        return Err(Failure::new(format!("bad payload size in `{}`", String::from_utf8_lossy(head))));
    }
    Ok(Some(size))
}

/// Whether `frame` (never shorter) starts with `line`; written for lines of 16 to 64 bytes.
fn starts_with(frame: &[u8], line: &[u8]) -> bool {
    let frame = &frame[..line.len()];
    if line.len() < 8 {
        return frame == line;
    }
    let word = |bytes: &[u8], at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    let last = line.len() - 8;
    let mut different = word(frame, last) ^ word(line, last);
    let mut at = 0;
    while at < last {
        different |= word(frame, at) ^ word(line, at);
        at += 8;
    }
    different == 0
}

/// The words of a header line.
pub(crate) fn words(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|&byte| byte == b' ' || byte == b'\t').filter(|word| !word.is_empty())
}

/// The reply subject of an MSG or HMSG line, if it has one.
pub(crate) fn reply_of(head: &[u8]) -> Option<&[u8]> {
    let plain = head.first() == Some(&b'M');
    let count = words(head).count();
    // MSG subject sid [reply] size; HMSG subject sid [reply] header-size size
    let with_reply = if plain { 5 } else { 6 };
    if count == with_reply { words(head).nth(3) } else { None }
}

/// The subject of a message line.
pub(crate) fn subject_of(head: &[u8]) -> &[u8] {
    words(head).nth(1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header line, and the body if it is a message.
    type Owned = (Vec<u8>, Option<Vec<u8>>);

    /// An owned copy of what the reader reports, with runs unfolded so that splits do not matter.
    fn read(stream: &[u8], cuts: &[usize], want: Want) -> (Vec<Owned>, bool) {
        let mut reader = FrameReader::new(want);
        let mut all = Vec::new();
        let mut from = 0;
        for &cut in cuts.iter().chain([&stream.len()]) {
            reader
                .feed(&stream[from..cut], &mut |found| {
                    match found {
                        Frames::Line(line) => all.push((line.to_vec(), None)),
                        Frames::Run { head, count } => {
                            for _ in 0..count {
                                all.push((head.to_vec(), Some(Vec::new())));
                            }
                        }
                        Frames::Message { head, body } => {
                            let body = match want {
                                Want::Prefix(bytes) => &body[..bytes.min(body.len())],
                                _ => body,
                            };
                            all.push((head.to_vec(), Some(body.to_vec())));
                        }
                    }
                    Ok(())
                })
                .expect("the stream is valid");
            from = cut;
        }
        (all, reader.is_aligned())
    }

    fn sample() -> Vec<u8> {
        let mut stream = b"INFO {\"a\":1} \r\nPONG\r\n".to_vec();
        for _ in 0..5 {
            stream.extend_from_slice(b"MSG bench 1 16\r\n0123\r\n6789abcde\n\r\n");
        }
        stream.extend_from_slice(b"PING\r\nMSG bench 1 0\r\n\r\n-ERR 'x'\r\n");
        stream.extend_from_slice(b"HMSG a.b 22 _INBOX.x 12 15\r\nNATS/1.0\r\n\r\nxyz\r\nMSG bench 1 16\r\n");
        stream.extend_from_slice(b"0123456789abcdef\r\nMSG bench 2 1\r\nZ\r\nPONG\r\n");
        stream
    }

    #[test]
    fn split_input_equals_whole_input() {
        let stream = sample();
        for want in [Want::Counts, Want::Prefix(4), Want::Whole] {
            let (whole, aligned) = read(&stream, &[], want);
            assert!(aligned);
            assert_eq!(whole.len(), 14);
            let every: Vec<usize> = (1..stream.len()).collect();
            assert_eq!(read(&stream, &every, want).0, whole, "byte by byte, {want:?}");
            for cut in 1..stream.len() {
                assert_eq!(read(&stream, &[cut], want).0, whole, "cut at {cut}, {want:?}");
            }
            let mut random = fastrand::Rng::with_seed(7);
            for _ in 0..300 {
                let mut cuts: Vec<usize> = (0..6).map(|_| random.usize(0..=stream.len())).collect();
                cuts.sort_unstable();
                assert_eq!(read(&stream, &cuts, want).0, whole, "cuts {cuts:?}, {want:?}");
            }
        }
    }

    #[test]
    fn equal_headers_come_as_one_run() {
        let mut reader = FrameReader::new(Want::Counts);
        let mut runs = Vec::new();
        let stream = b"MSG bench.abcdefgh 1 2\r\nab\r\n".repeat(1000);
        let done = reader.feed(&stream, &mut |found| {
            if let Frames::Run { count, .. } = found {
                runs.push(count);
            }
            Ok(())
        });
        assert!(done.is_ok());
        assert_eq!(runs, [1000]);
    }

    #[test]
    fn lost_framing_is_an_error() {
        for stream in [&b"MSG a 1 2\r\nabc\r\n"[..], b"MSG a 1 x\r\n", b"MSG a 1 \r\n", b"MSG a 1 99999999999\r\n"] {
            let mut reader = FrameReader::new(Want::Counts);
            assert!(reader.feed(stream, &mut |_| Ok(())).is_err(), "{stream:?}");
        }
    }

    #[test]
    fn words_of_a_header() {
        assert_eq!(reply_of(b"MSG a 1 5"), None);
        assert_eq!(reply_of(b"MSG a 1 r 5"), Some(&b"r"[..]));
        assert_eq!(reply_of(b"HMSG a 1 12 15"), None);
        assert_eq!(reply_of(b"HMSG a 1 r 12 15"), Some(&b"r"[..]));
        assert_eq!(subject_of(b"MSG a.b 1 5"), b"a.b");
        assert!(starts_with(b"MSG abcdefghijkl 1 5\r\nxx", b"MSG abcdefghijkl 1 5\r\n"));
        assert!(!starts_with(b"MSG abcdefgXijkl 1 5\r\nxx", b"MSG abcdefghijkl 1 5\r\n"));
    }
}
