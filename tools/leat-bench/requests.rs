//! The two sides of request/reply: requesters with one wildcard inbox each (or a fresh inbox per request), and
//! responders that send the payload back.

use std::sync::atomic::Ordering::Relaxed;

use crate::block::{self, STAMP_BYTES, read_stamp, write_stamp};
use crate::failure::{Failure, Outcome};
use crate::frames::{reply_of, subject_of};
use crate::plan::Counters;
use crate::roles::{Turn, payload_of};

/// Hexadecimal digits of the token that ends an inbox: 4 for the slot, 8 for the number.
const TOKEN_DIGITS: usize = 12;

/// Sends requests and waits for the replies.
pub(crate) struct Requester {
    /// `_INBOX.<id>.`
    inbox: Vec<u8>,
    /// `PUB <subject> ` or `HPUB <subject> `
    verb: Vec<u8>,
    /// ` <sizes>CRLF`, headers, payload, CRLF
    rest: Vec<u8>,
    /// Where in `rest` the payload begins, if it has room for a stamp.
    stamp_at: Option<usize>,
    /// A fresh subscription for every request.
    inbox_per_request: bool,
    /// Whether the schedule decides when to send.
    pub(crate) paced: bool,
    /// One per outstanding request of the closed loop.
    slots: Vec<Slot>,
    number: u64,
    outstanding: u64,
    finishing: bool,
    done: bool,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    number: u64,
    sent_ns: u64,
    busy: bool,
}

impl Requester {
    /// A requester with this many requests outstanding; `id` makes its inbox unique.
    pub(crate) fn new(subject: &str, id: &str, size: usize, headers: usize, outstanding: usize) -> Requester {
        let head = block::header_bytes(headers);
        let mut rest = if headers == 0 {
            format!(" {size}\r\n").into_bytes()
        } else {
            format!(" {} {}\r\n", head.len(), head.len() + size).into_bytes()
        };
        rest.extend_from_slice(&head);
        let payload_at = rest.len();
        rest.extend_from_slice(&block::payload(size));
        rest.extend_from_slice(b"\r\n");
        Requester {
            inbox: format!("_INBOX.{id}.").into_bytes(),
            verb: format!("{} {subject} ", if headers == 0 { "PUB" } else { "HPUB" }).into_bytes(),
            rest,
            stamp_at: (size >= STAMP_BYTES).then_some(payload_at),
            inbox_per_request: false,
            paced: false,
            slots: vec![Slot::default(); outstanding.clamp(1, 0xffff)],
            number: 0,
            outstanding: 0,
            finishing: false,
            done: false,
        }
    }

    /// Subscribes and unsubscribes around every request.
    pub(crate) fn inbox_per_request(mut self) -> Requester {
        self.inbox_per_request = true;
        self
    }

    /// Leaves the pace to the schedule.
    pub(crate) fn paced(mut self) -> Requester {
        self.paced = true;
        self
    }

    /// The SUB line for the wildcard inbox.
    pub(crate) fn subscribe_line(&self) -> Vec<u8> {
        if self.inbox_per_request {
            return Vec::new();
        }
        let mut line = b"SUB ".to_vec();
        line.extend_from_slice(&self.inbox);
        line.extend_from_slice(b"* 1\r\n");
        line
    }

    /// Sends the first requests of the closed loop.
    pub(crate) fn start(&mut self, out: &mut Vec<u8>, turn: &Turn<'_>) {
        for slot in 0..self.slots.len() {
            self.ask_again(slot, out, turn);
        }
        self.finish_if_idle(turn);
    }

    /// Appends one request of the schedule.
    pub(crate) fn ask_stamped(&mut self, due_ns: u64, out: &mut Vec<u8>, turn: &Turn<'_>) {
        self.write_request(0, due_ns, out);
        self.note_asked(turn);
    }

    /// Ends when the outstanding replies have come.
    pub(crate) fn finish(&mut self, turn: &Turn<'_>) {
        self.finishing = true;
        self.finish_if_idle(turn);
    }

    /// Takes a reply.
    pub(crate) fn on_reply(&mut self, head: &[u8], body: &[u8], out: &mut Vec<u8>, turn: &mut Turn<'_>) -> Outcome<()> {
        if head.first() == Some(&b'H') && body.starts_with(b"NATS/1.0 503") {
            return Err(Failure::new("a request found no responder"));
        }
        let Some((slot, number)) = self.parse_token(subject_of(head)) else {
            return Err(Failure::new(format!("not a reply: {:?}", String::from_utf8_lossy(head))));
        };
        if self.paced {
            if let Some((due_ns, _)) = read_stamp(payload_of(head, body)) {
                turn.recorder.record(due_ns, turn.now_ns);
            }
            self.note_answered(turn);
        } else {
            let expected = self.slots.get(slot).copied().unwrap_or_default();
            if !expected.busy || expected.number & 0xffff_ffff != number {
                Counters::bump(&turn.counters.disordered, 1);
                return Ok(());
            }
            self.slots[slot].busy = false;
            turn.recorder.record(expected.sent_ns, turn.now_ns);
            self.note_answered(turn);
            self.ask_again(slot, out, turn);
        }
        self.finish_if_idle(turn);
        Ok(())
    }

    fn ask_again(&mut self, slot: usize, out: &mut Vec<u8>, turn: &Turn<'_>) {
        if turn.shared.stop.load(Relaxed) || !take_ticket(turn) {
            self.finishing = true;
            return;
        }
        let sent_ns = crate::sys::now_ns();
        self.slots[slot] = Slot { number: self.number, sent_ns, busy: true };
        self.write_request(slot, sent_ns, out);
        self.note_asked(turn);
    }

    fn write_request(&mut self, slot: usize, stamp_ns: u64, out: &mut Vec<u8>) {
        let token = token(slot, self.number);
        if self.inbox_per_request {
            let sid = (self.number + 1).to_string();
            for part in
                [&b"SUB "[..], &self.inbox, &token, b" ", sid.as_bytes(), b"\r\nUNSUB ", sid.as_bytes(), b" 1\r\n"]
            {
                out.extend_from_slice(part);
            }
        }
        for part in [&self.verb, &self.inbox, &token[..]] {
            out.extend_from_slice(part);
        }
        let rest_at = out.len();
        out.extend_from_slice(&self.rest);
        if let Some(at) = self.stamp_at {
            write_stamp(&mut out[rest_at + at..], stamp_ns, self.number);
        }
        self.number += 1;
    }

    fn parse_token(&self, subject: &[u8]) -> Option<(usize, u64)> {
        let token = subject.strip_prefix(self.inbox.as_slice())?;
        if token.len() != TOKEN_DIGITS {
            return None;
        }
        let token = u64::from_str_radix(std::str::from_utf8(token).ok()?, 16).ok()?;
        Some(((token >> 32) as usize, token & 0xffff_ffff))
    }

    fn note_asked(&mut self, turn: &Turn<'_>) {
        self.outstanding += 1;
        Counters::bump(&turn.counters.asked, 1);
    }

    fn note_answered(&mut self, turn: &Turn<'_>) {
        self.outstanding = self.outstanding.saturating_sub(1);
        Counters::bump(&turn.counters.answered, 1);
        turn.mark();
    }

    fn finish_if_idle(&mut self, turn: &Turn<'_>) {
        if self.finishing && !self.done && self.outstanding == 0 {
            self.done = true;
            turn.finish_sender();
        }
    }
}

fn take_ticket(turn: &Turn<'_>) -> bool {
    let take = |left: u64| left.checked_sub(1);
    turn.shared.request_tickets.fetch_update(Relaxed, Relaxed, take).is_ok()
}

fn token(slot: usize, number: u64) -> [u8; TOKEN_DIGITS] {
    let value = (slot as u64) << 32 | (number & 0xffff_ffff);
    let mut token = [0; TOKEN_DIGITS];
    for (at, digit) in token.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (4 * at)) as usize & 15];
    }
    token
}

/// Sends every request's payload back.
#[derive(Default)]
pub(crate) struct Responder;

impl Responder {
    /// Appends the reply to `out`; a message without reply subject is ignored.
    pub(crate) fn on_request(&mut self, head: &[u8], body: &[u8], out: &mut Vec<u8>) {
        let Some(reply) = reply_of(head) else { return };
        // The sizes behind the reply subject are the same for the answer.
        let sizes_at = reply.as_ptr() as usize - head.as_ptr() as usize + reply.len();
        out.extend_from_slice(if head[0] == b'H' { b"HPUB " } else { b"PUB " });
        out.extend_from_slice(reply);
        out.extend_from_slice(&head[sizes_at..]);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive() {
        let requester = Requester::new("a", "id", 16, 0, 3);
        let mut subject = requester.inbox.clone();
        subject.extend_from_slice(&token(2, 77));
        assert_eq!(requester.parse_token(&subject), Some((2, 77)));
        assert_eq!(requester.parse_token(b"_INBOX.other.000000000000"), None);
        assert_eq!(requester.parse_token(b"_INBOX.id.0000"), None);
    }

    #[test]
    fn requests_and_replies_on_the_wire() {
        let mut requester = Requester::new("svc", "id", 2, 0, 1);
        let mut out = Vec::new();
        requester.write_request(0, 0, &mut out);
        assert_eq!(out, b"PUB svc _INBOX.id.000000000000 2\r\nab\r\n");
        assert_eq!(requester.subscribe_line(), b"SUB _INBOX.id.* 1\r\n");

        let mut requester = requester.inbox_per_request();
        out.clear();
        requester.write_request(0, 0, &mut out);
        assert!(out.starts_with(b"SUB _INBOX.id.000000000001 2\r\nUNSUB 2 1\r\nPUB svc _INBOX.id.000000000001 2\r\n"));

        out.clear();
        Responder.on_request(b"MSG svc 1 _INBOX.id.1 2", b"ab", &mut out);
        Responder.on_request(b"HMSG svc 1 r 12 13", b"NATS/1.0\r\n\r\nx", &mut out);
        Responder.on_request(b"MSG svc 1 2", b"no", &mut out);
        let expected = b"PUB _INBOX.id.1 2\r\nab\r\nHPUB r 12 13\r\nNATS/1.0\r\n\r\nx\r\n";
        assert_eq!(out, expected);
    }
}
