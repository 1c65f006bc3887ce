//! Requests that went to several destinations on other shards, or to other accounts, while nobody here has taken them.
//!
//! Each destination answers for a share. One that finds no taker sends its share back; the requester is told that there
//! are no responders when all are back. Those that find a taker say nothing, so a request of which nothing more will be
//! heard stays here until others take its place.

use std::collections::VecDeque;

use super::batch::{Origin, Share};
use crate::wire::message::Message;

/// Most requests that are remembered, and most bytes of their subjects. Beyond that the oldest are forgotten, and who
/// has sent them is not told.
const INQUIRIES_MAX: usize = 16 << 10;
const TEXT_BYTES_MAX: usize = 1 << 20;
/// What each destination answers for at first. It may be divided among the queue groups of the message.
const WEIGHT: u32 = 1 << 30;

/// A request, as it came from its client.
#[derive(Debug)]
pub(super) struct Inquiry {
    /// The client's connection.
    pub(super) conn: u32,
    /// Its id.
    pub(super) cid: u64,
    /// The client's account.
    pub(super) account: u32,
    /// Sum of the shares that are out; 0 if nothing is asked any more.
    outstanding: u64,
    /// Subject and reply.
    text: Vec<u8>,
    subject_bytes: usize,
}

impl Inquiry {
    pub(super) fn subject(&self) -> &[u8] {
        &self.text[..self.subject_bytes]
    }

    pub(super) fn reply(&self) -> &[u8] {
        &self.text[self.subject_bytes..]
    }
}

/// The requests of one shard that may still be refused.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    /// By number, the first of which is `first`.
    known: VecDeque<Inquiry>,
    first: u64,
    text_bytes: usize,
}

impl Inquiries {
    /// Takes note of a request; gives its number.
    pub(super) fn open(&mut self, origin: Origin, account: u32, message: &Message<'_>) -> u64 {
        let mut text = Vec::new();
        while self.known.len() >= INQUIRIES_MAX
            || self.text_bytes > TEXT_BYTES_MAX
            || self.known.front().is_some_and(|oldest| oldest.outstanding == 0)
        {
            let Some(oldest) = self.known.pop_front() else { break };
            self.first += 1;
            self.text_bytes -= oldest.text.len();
            text = oldest.text;
        }
        text.clear();
        text.extend_from_slice(message.subject);
        text.extend_from_slice(message.reply());
        self.text_bytes += text.len();
        let subject_bytes = message.subject.len();
        let Origin { conn, cid, .. } = origin;
        self.known.push_back(Inquiry { conn, cid, account, outstanding: 0, text, subject_bytes });
        self.first + self.known.len() as u64 - 1
    }

    /// The share of each of `destinations` more.
    pub(super) fn share(&mut self, inquiry: u64, destinations: usize) -> Share {
        if let Some(known) = self.find(inquiry) {
            known.outstanding += u64::from(WEIGHT) * destinations as u64;
        }
        Share { inquiry, weight: WEIGHT }
    }

    /// The request has been taken, or need not be asked about.
    pub(super) fn close(&mut self, inquiry: u64) {
        if let Some(known) = self.find(inquiry) {
            known.outstanding = 0;
        }
    }

    /// A destination has no taker. Gives the request if that was the last one.
    pub(super) fn refuse(&mut self, share: Share) -> Option<Inquiry> {
        let known = self.find(share.inquiry).filter(|known| known.outstanding > 0)?;
        known.outstanding = known.outstanding.saturating_sub(u64::from(share.weight));
        if known.outstanding > 0 {
            return None;
        }
        let text = std::mem::take(&mut known.text);
        let inquiry = Inquiry { text, ..*known };
        self.text_bytes -= inquiry.text.len();
        Some(inquiry)
    }

    /// Forgets everything, for a shard that has been idle for so long that all answers have come.
    pub(super) fn clear(&mut self) {
        self.first += self.known.len() as u64;
        self.known = VecDeque::new();
        self.text_bytes = 0;
    }

    fn find(&mut self, inquiry: u64) -> Option<&mut Inquiry> {
        self.known.get_mut(usize::try_from(inquiry.checked_sub(self.first)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Tail;

    const ORIGIN: Origin = Origin { shard: 1, conn: 2, cid: 3 };

    fn open(inquiries: &mut Inquiries, subject: &[u8]) -> u64 {
        let tail = Tail::Joined(b" in.box 0\r\n\r\n");
        inquiries.open(ORIGIN, 4, &Message { subject, reply_bytes: 6, header_bytes: 0, argument_bytes: 11, tail })
    }

    #[test]
    fn the_last_refusal_counts() {
        let mut inquiries = Inquiries::default();
        let first = open(&mut inquiries, b"one");
        let whole = inquiries.share(first, 2);
        let second = open(&mut inquiries, b"two");
        let other = inquiries.share(second, 1);
        assert!(inquiries.refuse(whole).is_none());
        let third = whole.weight / 3;
        assert!(inquiries.refuse(Share { weight: third, ..whole }).is_none());
        let found = inquiries.refuse(other).expect("its only destination");
        assert_eq!((found.subject(), found.reply(), found.account), (&b"two"[..], &b"in.box"[..], 4));
        let found = inquiries.refuse(Share { weight: whole.weight - third, ..whole }).expect("all have refused");
        assert_eq!((found.subject(), found.conn, found.cid), (&b"one"[..], 2, 3));
        assert!(inquiries.refuse(whole).is_none(), "it has had its answer");
    }

    #[test]
    fn what_is_closed_or_forgotten_is_not_refused() {
        let mut inquiries = Inquiries::default();
        let closed = open(&mut inquiries, b"one");
        let share = inquiries.share(closed, 1);
        inquiries.close(closed);
        assert!(inquiries.refuse(share).is_none());
        let next = open(&mut inquiries, b"two");
        assert_ne!(next, closed, "numbers are not used again");
        let share = inquiries.share(next, 1);
        inquiries.clear();
        assert!(inquiries.refuse(share).is_none());
        let shares: Vec<Share> = (0..INQUIRIES_MAX + 1)
            .map(|_| {
                let inquiry = open(&mut inquiries, b"three");
                inquiries.share(inquiry, 1)
            })
            .collect();
        assert_eq!(inquiries.known.len(), INQUIRIES_MAX);
        assert!(inquiries.refuse(shares[0]).is_none());
        assert!(inquiries.refuse(shares[1]).is_some());
    }
}
