//! Messages too large for one record: taken apart and put together.
//!
//! The headers and the payload are one string of bytes, cut into pieces. Each piece is a record of its own in a run
//! of its own; subject, reply, expiry and id go with the first.

use super::builder::RECORD_BYTES_MAX;
use super::entry::{RunEntry, Transaction};
use super::flaw::{Defect, Flaw};
use super::message::Message;
use super::record::{FragmentNo, Record};

/// A part of a large message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Which part.
    pub number: FragmentNo,
    /// The message's number and time with a piece of its headers and payload.
    pub piece: Message<'a>,
}

/// Whether a message must be taken apart.
#[must_use]
pub fn needs_fragments(m: &Message<'_>) -> bool {
    m.subject.len() + m.reply.len() + m.headers.len() + m.payload.len() > RECORD_BYTES_MAX
}

/// Takes a message apart. Its subject and reply together are shorter than a record may be.
pub fn fragments<'a>(m: &Message<'a>) -> impl Iterator<Item = Fragment<'a>> + use<'a> {
    let m = *m;
    let body = m.headers.len() + m.payload.len();
    // As large as the first can be, and all but the last alike.
    let piece_bytes = RECORD_BYTES_MAX - m.subject.len() - m.reply.len();
    let count = body.div_ceil(piece_bytes).max(1) as u32;
    (0..count).map(move |index| {
        let start = index as usize * piece_bytes;
        let end = body.min(start + piece_bytes);
        let cut = |at: usize| at.min(m.headers.len());
        let headers = &m.headers[cut(start)..cut(end)];
        let payload = &m.payload[start - cut(start)..end - cut(end)];
        let piece = if index == 0 {
            Message { headers, payload, ..m }
        } else {
            Message { seq: m.seq, time: m.time, headers, payload, ..Message::default() }
        };
        Fragment { number: FragmentNo { index, count }, piece }
    })
}

/// Puts a message together from its parts, as they are met along the log.
#[derive(Debug)]
pub struct Assembler {
    bytes_max: usize,
    /// The part that is next.
    expected: Option<(Transaction, FragmentNo)>,
    first: First,
    headers: Vec<u8>,
    payload: Vec<u8>,
    subject: Vec<u8>,
    reply: Vec<u8>,
}

#[derive(Debug, Default)]
struct First {
    seq: u64,
    time: i64,
    expires: Option<i64>,
    id: Option<u128>,
}

impl Assembler {
    /// Takes messages of up to `bytes_max` bytes of headers and payload.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            expected: None,
            first: First::default(),
            headers: Vec::new(),
            payload: Vec::new(),
            subject: Vec::new(),
            reply: Vec::new(),
        }
    }

    /// Adds a part; a first one begins a new message. Returns the message with the last part.
    ///
    /// # Errors
    /// A [`Flaw`] if it is not the next part of the message that was begun, or makes it too large. The message is given
    /// up then.
    pub fn add(&mut self, entry: &RunEntry, record: &Record<'_>) -> Result<Option<Message<'_>>, Flaw> {
        let flaw = Flaw::new(entry.offset, Defect::Fragment);
        let expected = self.expected.take();
        let (Some(number), Some(part)) = (record.fragment, entry.part) else { return Err(flaw) };
        let m = &record.message;
        if number.index == 0 {
            self.first = First { seq: m.seq, time: m.time, expires: m.expires, id: m.id };
            for (kept, given) in [(&mut self.subject, m.subject), (&mut self.reply, m.reply)] {
                kept.clear();
                kept.extend_from_slice(given);
            }
            self.headers.clear();
            self.payload.clear();
        } else if expected != Some((part.transaction, number)) || m.seq != self.first.seq {
            return Err(flaw);
        }
        let bytes = self.headers.len() + self.payload.len() + m.headers.len() + m.payload.len();
        if bytes > self.bytes_max || !m.headers.is_empty() && !self.payload.is_empty() {
            return Err(flaw);
        }
        self.headers.extend_from_slice(m.headers);
        self.payload.extend_from_slice(m.payload);
        let next = FragmentNo { index: number.index + 1, ..number };
        if next.index < next.count {
            self.expected = Some((part.transaction, next));
            return Ok(None);
        }
        let First { seq, time, expires, id } = self.first;
        let (subject, reply) = (&self.subject[..], &self.reply[..]);
        Ok(Some(Message { seq, time, subject, reply, headers: &self.headers, payload: &self.payload, expires, id }))
    }
}
