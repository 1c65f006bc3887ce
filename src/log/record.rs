//! Records: how a message and a control record lie in the content of a run.
//!
//! The layout is drawn in the [module above](super).

use super::aligned::AlignedBuf;
use super::entry::RunEntry;
use super::flaw::{Defect, Flaw};
use super::ids::Time;
use super::message::Message;
use super::varint::{self, VARINT_BYTES_MAX};

const REPLY: u8 = 1;
const HEADERS: u8 = 1 << 1;
const EXPIRES: u8 = 1 << 2;
const ID: u8 = 1 << 3;
const SAME_SUBJECT: u8 = 1 << 4;
const FRAGMENT: u8 = 1 << 5;
const EXTENSION: u8 = 1 << 6;
const UNKNOWN: u8 = 1 << 7;

/// Most bytes of a message's record beside its subject, reply, headers and payload.
pub const RECORD_HEAD_BYTES_MAX: usize = 1 + 8 * VARINT_BYTES_MAX + 8 + 16;

/// What a record is told as the difference to: the record before it in its run, or the run's entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) seq: u64,
    pub(super) time: Time,
    pub(super) same_subject: bool,
}

/// A message, or a part of one, as a run holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The message; of a part, the piece of its headers and payload.
    pub message: Message<'a>,
    /// Which part of a message this is; `None` for a whole one.
    pub fragment: Option<FragmentNo>,
    /// Bytes of the record in the log.
    pub bytes: u32,
}

/// The number of a part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentNo {
    /// Counted from zero.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

/// Appends the record of `m` to `out`; returns its bytes. `before.seq` is not above that of `m`.
pub(super) fn encode(out: &mut AlignedBuf, before: Before, m: &Message<'_>, fragment: Option<FragmentNo>) -> usize {
    let subject = if before.same_subject { &[][..] } else { m.subject };
    let body = subject.len() + m.reply.len() + m.headers.len() + m.payload.len();
    let room = out.spare(RECORD_HEAD_BYTES_MAX + body);
    let mut flags = 0;
    let mut at = varint::put(room, 1, m.seq - before.seq);
    at = varint::put(room, at, varint::fold(m.time.wrapping_sub(before.time)));
    if before.same_subject {
        flags |= SAME_SUBJECT;
    } else {
        at = varint::put(room, at, subject.len() as u64);
    }
    if !m.reply.is_empty() {
        flags |= REPLY;
        at = varint::put(room, at, m.reply.len() as u64);
    }
    if !m.headers.is_empty() {
        flags |= HEADERS;
        at = varint::put(room, at, m.headers.len() as u64);
    }
    at = varint::put(room, at, m.payload.len() as u64);
    if let Some(expires) = m.expires {
        flags |= EXPIRES;
        at = copy(room, at, &expires.to_le_bytes());
    }
    if let Some(id) = m.id {
        flags |= ID;
        at = copy(room, at, &id.to_le_bytes());
    }
    if let Some(part) = fragment {
        flags |= FRAGMENT;
        at = varint::put(room, at, part.index.into());
        at = varint::put(room, at, part.count.into());
    }
    room[0] = flags;
    at = copy(room, at, subject);
    if flags & (REPLY | HEADERS) != 0 {
        at = copy(room, at, m.reply);
        at = copy(room, at, m.headers);
    }
    at = copy(room, at, m.payload);
    out.advance(at);
    at
}

#[inline]
fn copy(out: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    out[at..at + bytes.len()].copy_from_slice(bytes);
    at + bytes.len()
}

/// The records of a run of messages, from its verified content.
///
/// Ends after the first flaw. Makes sure that sequence numbers rise from the first to the last that the entry announces
/// and that as many records are there as it says.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    content: &'a [u8],
    entry: RunEntry,
    seq: u64,
    time: Time,
    subject: Option<&'a [u8]>,
    seen: u32,
}

/// Reads the records of a run of messages. `content` is what [`super::Run::content`] returned.
#[must_use]
pub fn records<'a>(content: &'a [u8], entry: &RunEntry) -> Records<'a> {
    Records {
        rest: content,
        content,
        entry: *entry,
        seq: entry.first_seq,
        time: entry.first_time,
        subject: None,
        seen: 0,
    }
}

/// Reads the messages of a run that holds whole ones; a part of one is a flaw here.
pub fn messages<'a>(content: &'a [u8], entry: &RunEntry) -> impl Iterator<Item = Result<Message<'a>, Flaw>> + use<'a> {
    let offset = entry.offset;
    records(content, entry).map(move |record| {
        let record = record?;
        match record.fragment {
            None => Ok(record.message),
            Some(_) => Err(Flaw::new(offset, Defect::Fragment)),
        }
    })
}

impl<'a> Records<'a> {
    fn next_record(&mut self) -> Result<Record<'a>, Defect> {
        let before = self.rest;
        let rest = &mut self.rest;
        let flags = *take_slice(rest, 1)?.first().ok_or(Defect::Record)?;
        if flags & UNKNOWN != 0 {
            return Err(Defect::Flags(flags.into()));
        }
        let step = take(rest)?;
        let time = self.time.wrapping_add(varint::unfold(take(rest)?));
        let subject_bytes = if flags & SAME_SUBJECT == 0 { take(rest)? } else { 0 };
        let reply_bytes = if flags & REPLY != 0 { take(rest)? } else { 0 };
        let headers_bytes = if flags & HEADERS != 0 { take(rest)? } else { 0 };
        let payload_bytes = take(rest)?;
        let expires = if flags & EXPIRES != 0 { Some(i64::from_le_bytes(take_array(rest)?)) } else { None };
        let id = if flags & ID != 0 { Some(u128::from_le_bytes(take_array(rest)?)) } else { None };
        let fragment = if flags & FRAGMENT != 0 {
            let index = u32::try_from(take(rest)?).map_err(|_| Defect::Fragment)?;
            let count = u32::try_from(take(rest)?).map_err(|_| Defect::Fragment)?;
            if index >= count {
                return Err(Defect::Fragment);
            }
            Some(FragmentNo { index, count })
        } else {
            None
        };
        if flags & EXTENSION != 0 {
            let bytes = take(rest)?;
            take_slice(rest, bytes)?;
        }
        let subject = if flags & SAME_SUBJECT == 0 {
            take_slice(rest, subject_bytes)?
        } else {
            self.subject.ok_or(Defect::Field("first subject"))?
        };
        let reply = take_slice(rest, reply_bytes)?;
        let headers = take_slice(rest, headers_bytes)?;
        let payload = take_slice(rest, payload_bytes)?;
        let bytes = (before.len() - rest.len()) as u32;

        let rises = if self.seen == 0 || self.entry.fragment { step == 0 } else { step > 0 };
        let seq = self.seq.checked_add(step).filter(|&seq| rises && seq <= self.entry.last_seq).ok_or(Defect::Order)?;
        if fragment.is_some() != self.entry.fragment {
            return Err(Defect::Fragment);
        }
        self.seen = self.seen.checked_add(1).filter(|&seen| seen <= self.entry.count).ok_or(Defect::Order)?;
        (self.seq, self.time, self.subject) = (seq, time, Some(subject));
        Ok(Record { message: Message { seq, time, subject, reply, headers, payload, expires, id }, fragment, bytes })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Flaw>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            let complete = self.seen == self.entry.count && self.seq == self.entry.last_seq;
            if complete || self.content.is_empty() && self.entry.count == 0 {
                return None;
            }
            self.seen = self.entry.count;
            self.seq = self.entry.last_seq;
            return Some(Err(Flaw::new(self.entry.offset, Defect::Order)));
        }
        let at = self.content.len() - self.rest.len();
        Some(self.next_record().map_err(|defect| {
            self.rest = &[];
            self.seen = self.entry.count;
            self.seq = self.entry.last_seq;
            Flaw::new(self.entry.offset.saturating_add(at as u32), defect)
        }))
    }
}

#[inline]
fn take(bytes: &mut &[u8]) -> Result<u64, Defect> {
    varint::take(bytes).ok_or(Defect::Record)
}

#[inline]
fn take_slice<'a>(bytes: &mut &'a [u8], count: u64) -> Result<&'a [u8], Defect> {
    let count = usize::try_from(count).map_err(|_| Defect::Record)?;
    let (taken, rest) = bytes.split_at_checked(count).ok_or(Defect::Record)?;
    *bytes = rest;
    Ok(taken)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Defect> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(Defect::Record)?;
    *bytes = rest;
    Ok(*taken)
}

/// The control records of a run, from its verified content, oldest first: as many as its entry says. Ends after the
/// first flaw.
pub fn control_records<'a>(
    content: &'a [u8],
    entry: &RunEntry,
) -> impl Iterator<Item = Result<&'a [u8], Flaw>> + use<'a> {
    let (mut rest, total, base, mut missing) = (content, content.len(), entry.offset, entry.count);
    std::iter::from_fn(move || {
        if rest.is_empty() && missing == 0 {
            return None;
        }
        let at = base.saturating_add((total - rest.len()) as u32);
        let record = missing.checked_sub(1).ok_or(Defect::Record).and_then(|fewer| {
            missing = fewer;
            let bytes = take(&mut rest)?;
            take_slice(&mut rest, bytes)
        });
        Some(record.map_err(|defect| {
            (rest, missing) = (&[], 0);
            Flaw::new(at, defect)
        }))
    })
}
