//! Publish commands prepared before the run: a buffer of many equally long messages that is written round and round.

use std::io::Write;
use std::sync::Arc;

/// Bytes of the stamp at the start of a payload: intended time and sequence, both little-endian.
pub(crate) const STAMP_BYTES: usize = 16;

/// Equally long PUB or HPUB commands, one behind the other.
pub(crate) struct Block {
    /// The commands.
    pub(crate) bytes: Vec<u8>,
    /// Length of each.
    pub(crate) frame_bytes: usize,
    /// Where in each frame the payload begins (behind the headers).
    payload_at: usize,
}

impl Block {
    /// Commands for `subjects` in turn, repeated until there are at least `bytes_min` bytes. The subjects are equally
    /// long.
    pub(crate) fn new(subjects: &[String], size: usize, headers: usize, bytes_min: usize) -> Arc<Block> {
        assert!(!subjects.is_empty(), "a block has subjects");
        let head = header_bytes(headers);
        let payload = payload(size);
        let mut round = Vec::new();
        let mut frame_bytes = 0;
        let mut payload_at = 0;
        for subject in subjects {
            let start = round.len();
            let total = head.len() + size;
            // Writing to a Vec cannot fail.
            let _ = if headers == 0 {
                write!(round, "PUB {subject} {size}\r\n")
            } else {
                write!(round, "HPUB {subject} {} {total}\r\n", head.len())
            };
            round.extend_from_slice(&head);
            payload_at = round.len() - start;
            round.extend_from_slice(&payload);
            round.extend_from_slice(b"\r\n");
            assert!(frame_bytes == 0 || frame_bytes == round.len() - start, "the subjects of a block are equally long");
            frame_bytes = round.len() - start;
        }
        let rounds = bytes_min.div_ceil(round.len()).max(1);
        Arc::new(Block { bytes: round.repeat(rounds), frame_bytes, payload_at })
    }

    /// How many commands there are.
    pub(crate) fn frames(&self) -> usize {
        self.bytes.len() / self.frame_bytes
    }

    /// Appends the command of this number, stamped, to `out`.
    pub(crate) fn write_stamped(&self, number: u64, intended_ns: u64, out: &mut Vec<u8>) {
        let at = (number % self.frames() as u64) as usize * self.frame_bytes;
        let payload = out.len() + self.payload_at;
        out.extend_from_slice(&self.bytes[at..at + self.frame_bytes]);
        if self.frame_bytes - self.payload_at - 2 >= STAMP_BYTES {
            write_stamp(&mut out[payload..], intended_ns, number);
        }
    }
}

/// Puts a stamp at the start of a payload of at least `STAMP_BYTES`.
pub(crate) fn write_stamp(payload: &mut [u8], intended_ns: u64, number: u64) {
    payload[..8].copy_from_slice(&intended_ns.to_le_bytes());
    payload[8..16].copy_from_slice(&number.to_le_bytes());
}

/// The stamp at the start of a payload: intended time and number.
pub(crate) fn read_stamp(payload: &[u8]) -> Option<(u64, u64)> {
    let time = payload.get(..8)?.try_into().ok()?;
    let number = payload.get(8..16)?.try_into().ok()?;
    Some((u64::from_le_bytes(time), u64::from_le_bytes(number)))
}

/// A header section with this many fields; empty for none.
pub(crate) fn header_bytes(fields: usize) -> Vec<u8> {
    let mut head = Vec::new();
    if fields > 0 {
        head.extend_from_slice(b"NATS/1.0\r\n");
        for field in 0..fields {
            head.extend_from_slice(format!("Bench-{field}: value-{field}\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
    }
    head
}

/// A printable payload.
pub(crate) fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|at| b'a' + (at % 26) as u8).collect()
}

/// Names for `count` subjects below `prefix`, equally long; `prefix` itself for one.
pub(crate) fn subject_names(prefix: &str, count: usize) -> Vec<String> {
    if count <= 1 {
        return vec![prefix.to_owned()];
    }
    let width = (count - 1).to_string().len();
    (0..count).map(|at| format!("{prefix}.{at:0width$}")).collect()
}

/// SUB lines for these subjects, with equally long sids.
pub(crate) fn subscribe_lines(subjects: &[String], queue: Option<&str>) -> Vec<u8> {
    let first = 10usize.pow(subjects.len().max(2).ilog10() + 1);
    let first = if subjects.len() == 1 { 1 } else { first };
    let queue = queue.map(|name| format!("{name} ")).unwrap_or_default();
    let mut lines = Vec::new();
    for (at, subject) in subjects.iter().enumerate() {
        lines.extend_from_slice(format!("SUB {subject} {queue}{}\r\n", first + at).as_bytes());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_whole_commands() {
        let block = Block::new(&subject_names("a", 3), 4, 0, 100);
        assert_eq!(&block.bytes[..17], b"PUB a.0 4\r\nabcd\r\n");
        assert_eq!(block.frame_bytes, 17);
        assert_eq!(block.bytes.len() % (3 * 17), 0);
        assert!(block.bytes.len() >= 100);
        let block = Block::new(&subject_names("a", 1), 2, 1, 1);
        assert_eq!(block.bytes, b"HPUB a 30 32\r\nNATS/1.0\r\nBench-0: value-0\r\n\r\nab\r\n");
    }

    #[test]
    fn stamps_survive() {
        let block = Block::new(&subject_names("a", 1), 20, 2, 1);
        let mut out = b"x".to_vec();
        block.write_stamped(7, 123_456_789, &mut out);
        assert_eq!(out.len(), 1 + block.frame_bytes);
        assert_eq!(read_stamp(&out[1 + block.payload_at..]), Some((123_456_789, 7)));
        assert_eq!(read_stamp(b"short"), None);
    }

    #[test]
    fn sids_are_equally_long() {
        let lines = subscribe_lines(&subject_names("s", 10), Some("q"));
        let lines = String::from_utf8(lines).expect("UTF-8");
        assert!(lines.starts_with("SUB s.0 q 100\r\nSUB s.1 q 101\r\n"));
        assert!(lines.lines().all(|line| line.len() == "SUB s.0 q 100".len()));
        assert_eq!(subscribe_lines(&subject_names("s", 1), None), b"SUB s 1\r\n");
    }
}
