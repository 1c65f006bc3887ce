//! What travels between shards: batches of items in a flat buffer, large bodies beside it.
//!
//! One ring slot holds one batch; the buffers are reused by whoever fills the slot next. Item layout, little endian:
//!
//! | bytes | message | no responders | stall | refusal | relay |
//! |---|---|---|---|---|---|
//! | 0 | kind 0 | kind 1 | kind 2 | kind 4 | kind 5 |
//! | 1 | flags | 0 | milliseconds | 0 | flags |
//! | 2–3 | number of queue groups | 0 | 0 | 0 | 0 |
//! | 4–7 | account | account | 0 | 0 | 0 |
//! | 8–9, 12–15, 16–23 | origin: shard, connection, connection id | the same | the same | the same | the same |
//! | 24–27 | subject bytes | subject bytes | 0 | 0 | 0 |
//! | 28–31 | reply bytes | reply bytes | 0 | 0 | 0 |
//! | 32–35 | header bytes | 0 | 0 | 0 | 0 |
//! | 36–39 | argument bytes | 0 | 0 | 0 | 0 |
//! | 40–43 | body bytes | 0 | 0 | 0 | body bytes |
//! | 44– | share, trail, groups, subject, arguments, body | subject, reply | | share | body |
//!
//! A share has 12 bytes and stands in a message that has one; a trail has 9, in a message that was passed on. A group
//! is `u16` length and name. The body is not here if it is shared.
//!
//! A message for plain subscriptions only, of the same account and origin as the message before it, has a shorter form:
//! kind 3, flags, and the five lengths of bytes 24–43 as `u16`; then subject, arguments, body.

use bytes::Bytes;

/// Where a message was published.
pub(crate) use super::service::Source as Origin;
use crate::wire::message::{Message, Tail};

/// A ring item: what one shard has for another at the end of a turn.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// When it was committed, nanoseconds of the shared clock. Receivers merge their rings by it.
    pub(crate) stamp: u64,
    bytes: Vec<u8>,
    blocks: Vec<Bytes>,
    block_bytes: usize,
    /// Account and origin of the last message.
    last: Option<(u32, Origin)>,
}

/// How a message is to be treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MessageFlags {
    /// Deliver to plain subscriptions.
    pub(crate) plain: bool,
    /// What a lack of takers means to the publisher.
    pub(crate) concern: Concern,
    /// It answers a request that was passed on to another account, and that the receiving shard remembers.
    pub(crate) answer: bool,
    /// Where it has been.
    pub(crate) trail: Trail,
}

/// Whether the publisher wants to hear of it if a message is not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Concern {
    #[default]
    None,
    /// It does, and there is no other destination.
    All,
    /// It does if all other destinations of its request refuse it too.
    Part(Share),
}

/// The part of a request that one destination answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Number of the request on the shard of its origin.
    pub(crate) inquiry: u64,
    /// The weights of all destinations are what the origin waits for. Who passes the message on to several divides it.
    pub(crate) weight: u32,
}

impl Share {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.inquiry.to_le_bytes());
        out.extend_from_slice(&self.weight.to_le_bytes());
    }

    fn read(raw: &[u8]) -> Self {
        let (inquiry, weight) = raw.split_at(8);
        Self { inquiry: number(inquiry), weight: number(weight) as u32 }
    }
}

/// Little endian.
fn number(raw: &[u8]) -> u64 {
    raw.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Where a queue message has been before: it is passed on until a member takes it or all shards have been asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trail {
    /// How many shards have passed it on since their members had left, at most [`HOPS_MAX`].
    pub(crate) hops: u8,
    /// Shards with members that do not take it, a bit each. It does not come there again.
    pub(crate) refused: u64,
}

impl Trail {
    /// After a shard whose members have left; `None` if there were too many.
    pub(crate) fn past(self) -> Option<Self> {
        (self.hops < HOPS_MAX).then(|| Self { hops: self.hops + 1, ..self })
    }

    /// After `shard`, whose members do not take it.
    pub(crate) fn refused_by(self, shard: u16) -> Self {
        Self { refused: self.refused | 1 << shard, ..self }
    }

    fn write(self, out: &mut Vec<u8>) {
        out.push(self.hops);
        out.extend_from_slice(&self.refused.to_le_bytes());
    }

    fn read(raw: &[u8]) -> Self {
        Self { hops: raw[0], refused: number(&raw[1..]) }
    }
}

impl MessageFlags {
    fn from_bits(bits: u8) -> Self {
        Self {
            plain: bits & PLAIN != 0,
            concern: if bits & WANTS_503 != 0 { Concern::All } else { Concern::None },
            answer: bits & ANSWER != 0,
            trail: Trail::default(),
        }
    }
}

/// An item as the receiver sees it.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// Deliver this.
    Message { account: u32, origin: Origin, flags: MessageFlags, queues: QueueNames<'a>, message: Message<'a> },
    /// Nobody took the request.
    NoResponders { account: u32, origin: Origin, subject: &'a [u8], reply: &'a [u8] },
    /// Read this connection more slowly.
    Stall { origin: Origin, millis: u8 },
    /// One of several destinations of a request has no taker.
    Refusal { share: Share },
    /// What the sender's service says to the one here, because of a message from `origin`.
    Relay { origin: Origin, said: &'a [u8] },
}

/// Names of queue groups in an item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueNames<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for QueueNames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.bytes.split_first_chunk()?;
        let (name, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)));
        self.bytes = rest;
        Some(name)
    }
}

const HEADER_BYTES: usize = 44;
const SHORT_HEADER_BYTES: usize = 12;
const PLAIN: u8 = 1;
const WANTS_503: u8 = 2;
const SHARED: u8 = 4;
const ANSWER: u8 = 8;
const PASSED_ON: u8 = 16;
const HAS_SHARE: u8 = 32;
const TRAIL_BYTES: usize = 9;
const SHARE_BYTES: usize = 12;
/// Most shards in a row whose members have left while a message was on its way to them.
const HOPS_MAX: u8 = 15;

/// Bodies above this are handed over by reference instead of being copied into the batch.
pub(crate) const INLINE_BODY_MAX: usize = if cfg!(test) { 512 } else { 8 << 10 };

struct Header {
    kind: u8,
    flags: u8,
    queues: u16,
    account: u32,
    origin: Origin,
    lengths: [usize; 5],
}

impl Header {
    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        let mut raw = [0u8; HEADER_BYTES];
        raw[0] = self.kind;
        raw[1] = self.flags;
        raw[2..4].copy_from_slice(&self.queues.to_le_bytes());
        raw[4..8].copy_from_slice(&self.account.to_le_bytes());
        raw[8..10].copy_from_slice(&self.origin.shard.to_le_bytes());
        raw[12..16].copy_from_slice(&self.origin.conn.to_le_bytes());
        raw[16..24].copy_from_slice(&self.origin.cid.to_le_bytes());
        for (slot, len) in raw[24..].chunks_exact_mut(4).zip(self.lengths) {
            slot.copy_from_slice(&(len as u32).to_le_bytes());
        }
        out.extend_from_slice(&raw);
    }

    #[inline]
    fn read(raw: &[u8; HEADER_BYTES]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let u16_at = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        Self {
            kind: raw[0],
            flags: raw[1],
            queues: u16_at(2),
            account: u32_at(4),
            origin: Origin {
                shard: u16_at(8),
                conn: u32_at(12),
                cid: u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32,
            },
            lengths: std::array::from_fn(|n| u32_at(24 + 4 * n) as usize),
        }
    }
}

impl Batch {
    /// Bytes that count against the ring's budget.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.block_bytes
    }

    /// Bytes of the buffer that it keeps.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether there is nothing in it.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Empties it and keeps the buffers, unless they have grown out of proportion.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > BUFFER_BYTES_KEPT {
            self.bytes = Vec::new();
        }
        self.blocks.clear();
        self.block_bytes = 0;
        self.last = None;
    }

    /// Adds a message. `queues` are the groups of which the receiver has to serve one member each.
    #[inline]
    pub(crate) fn push_message<'q>(
        &mut self,
        account: u32,
        origin: Origin,
        flags: MessageFlags,
        queues: impl Iterator<Item = &'q [u8]> + Clone,
        message: &Message<'_>,
    ) {
        let body = message.body();
        let shared = matches!(message.tail, Tail::Shared { .. }) || body.len() > INLINE_BODY_MAX;
        let mut bits = 0;
        bits |= if flags.plain { PLAIN } else { 0 };
        let share = match flags.concern {
            Concern::Part(share) => Some(share),
            Concern::All | Concern::None => None,
        };
        bits |= if flags.concern == Concern::All { WANTS_503 } else { 0 };
        bits |= if share.is_some() { HAS_SHARE } else { 0 };
        bits |= if flags.answer { ANSWER } else { 0 };
        let was_passed_on = flags.trail != Trail::default();
        bits |= if was_passed_on { PASSED_ON } else { 0 };
        bits |= if shared { SHARED } else { 0 };
        let lengths =
            [message.subject.len(), message.reply_bytes, message.header_bytes, message.argument_bytes, body.len()];
        if let Tail::Joined(tail) = message.tail
            && !shared
            && !was_passed_on
            && share.is_none()
            && self.last == Some((account, origin))
            && lengths.iter().all(|len| *len <= usize::from(u16::MAX))
            && queues.clone().next().is_none()
        {
            let [subject, reply, header, argument, body] = lengths.map(|len| (len as u16).to_le_bytes());
            let short = [
                3,
                bits,
                subject[0],
                subject[1],
                reply[0],
                reply[1],
                header[0],
                header[1],
                argument[0],
                argument[1],
                body[0],
                body[1],
            ];
            self.bytes.reserve(SHORT_HEADER_BYTES + message.subject.len() + tail.len());
            self.bytes.extend_from_slice(&short);
            self.bytes.extend_from_slice(message.subject);
            self.bytes.extend_from_slice(tail);
            return;
        }
        self.last = Some((account, origin));
        let header = Header { kind: 0, flags: bits, queues: queues.clone().count() as u16, account, origin, lengths };
        header.write(&mut self.bytes);
        if let Some(share) = share {
            share.write(&mut self.bytes);
        }
        if was_passed_on {
            flags.trail.write(&mut self.bytes);
        }
        for name in queues {
            self.bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
            self.bytes.extend_from_slice(name);
        }
        self.bytes.extend_from_slice(message.subject);
        match message.tail {
            Tail::Joined(tail) if !shared => self.bytes.extend_from_slice(tail),
            Tail::Joined(_) => {
                self.bytes.extend_from_slice(message.arguments());
                self.push_block(Bytes::copy_from_slice(body));
            }
            Tail::Shared { arguments, body } => {
                self.bytes.extend_from_slice(arguments);
                self.push_block(body.clone());
            }
        }
    }

    fn push_block(&mut self, block: Bytes) {
        self.block_bytes += block.len();
        self.blocks.push(block);
    }

    /// Adds the answer that nobody took a request.
    pub(crate) fn push_no_responders(&mut self, account: u32, origin: Origin, subject: &[u8], reply: &[u8]) {
        let lengths = [subject.len(), reply.len(), 0, 0, 0];
        Header { kind: 1, flags: 0, queues: 0, account, origin, lengths }.write(&mut self.bytes);
        self.bytes.extend_from_slice(subject);
        self.bytes.extend_from_slice(reply);
    }

    /// Adds the wish that a publisher be read more slowly.
    pub(crate) fn push_stall(&mut self, origin: Origin, millis: u8) {
        Header { kind: 2, flags: millis, queues: 0, account: 0, origin, lengths: [0; 5] }.write(&mut self.bytes);
    }

    /// Adds that a request found no taker here, which may have others elsewhere.
    pub(crate) fn push_refusal(&mut self, origin: Origin, share: Share) {
        Header { kind: 4, flags: 0, queues: 0, account: 0, origin, lengths: [0; 5] }.write(&mut self.bytes);
        share.write(&mut self.bytes);
    }

    /// Adds what a service says to that of the receiver; `block` has it too if it is to be shared.
    pub(crate) fn push_relay(&mut self, origin: Origin, said: &[u8], block: Option<&Bytes>) {
        let flags = if block.is_some() { SHARED } else { 0 };
        let lengths = [0, 0, 0, 0, said.len()];
        Header { kind: 5, flags, queues: 0, account: 0, origin, lengths }.write(&mut self.bytes);
        match block {
            None => self.bytes.extend_from_slice(said),
            Some(block) => self.push_block(block.clone()),
        }
    }

    /// The items in order.
    pub(crate) fn items(&self) -> Items<'_> {
        Items { bytes: &self.bytes, blocks: self.blocks.iter(), last: None }
    }
}

/// Buffer capacity that an emptied batch keeps.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

/// Iterator over the items of a batch.
pub(crate) struct Items<'a> {
    bytes: &'a [u8],
    blocks: std::slice::Iter<'a, Bytes>,
    last: Option<(u32, Origin)>,
}

impl<'a> Items<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        taken
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        if let Some((&[3, flags, ref lengths @ ..], rest)) = self.bytes.split_first_chunk::<SHORT_HEADER_BYTES>() {
            self.bytes = rest;
            let len = |n: usize| usize::from(u16::from_le_bytes([lengths[2 * n], lengths[2 * n + 1]]));
            let subject = self.take(len(0));
            let tail = Tail::Joined(self.take(len(3) + len(4)));
            let message = Message { subject, reply_bytes: len(1), header_bytes: len(2), argument_bytes: len(3), tail };
            let (account, origin) = self.last.expect("a short item follows a full one");
            let (flags, queues) = (MessageFlags::from_bits(flags), QueueNames { bytes: &[] });
            return Some(Item::Message { account, origin, flags, queues, message });
        }
        let (raw, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        let header = Header::read(raw);
        let [subject_bytes, reply_bytes, header_bytes, argument_bytes, body_bytes] = header.lengths;
        let (account, origin) = (header.account, header.origin);
        Some(match header.kind {
            0 => {
                let mut flags = MessageFlags::from_bits(header.flags);
                if header.flags & HAS_SHARE != 0 {
                    flags.concern = Concern::Part(Share::read(self.take(SHARE_BYTES)));
                }
                if header.flags & PASSED_ON != 0 {
                    flags.trail = Trail::read(self.take(TRAIL_BYTES));
                }
                let mut names_bytes = 0;
                for _ in 0..header.queues {
                    let at = &self.bytes[names_bytes..];
                    names_bytes += 2 + usize::from(u16::from_le_bytes([at[0], at[1]]));
                }
                let queues = QueueNames { bytes: self.take(names_bytes) };
                let subject = self.take(subject_bytes);
                let tail = if header.flags & SHARED == 0 {
                    Tail::Joined(self.take(argument_bytes + body_bytes))
                } else {
                    let arguments = self.take(argument_bytes);
                    let body = self.blocks.next().expect("a block was pushed with each shared item");
                    Tail::Shared { arguments, body }
                };
                self.last = Some((account, origin));
                let message = Message { subject, reply_bytes, header_bytes, argument_bytes, tail };
                Item::Message { account, origin, flags, queues, message }
            }
            1 => {
                Item::NoResponders { account, origin, subject: self.take(subject_bytes), reply: self.take(reply_bytes) }
            }
            2 => Item::Stall { origin, millis: header.flags },
            5 if header.flags & SHARED == 0 => Item::Relay { origin, said: self.take(body_bytes) },
            5 => Item::Relay { origin, said: self.blocks.next().expect("a block was pushed with each shared item") },
            _ => Item::Refusal { share: Share::read(self.take(SHARE_BYTES)) },
        })
    }
}

/// Changes of interest of one turn, in a ring of their own. Each: account, old and new weight, key length (`u32`
/// little endian), key.
#[derive(Debug, Default)]
pub(crate) struct InterestBatch {
    bytes: Vec<u8>,
}

impl InterestBatch {
    pub(crate) fn push(&mut self, account: u32, old: u32, new: u32, key: &[u8]) {
        for number in [account, old, new, key.len() as u32] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.bytes.extend_from_slice(key);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > BUFFER_BYTES_KEPT {
            self.bytes = Vec::new();
        }
    }

    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&other.bytes);
    }

    /// `(account, old, new, key)` in order.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (u32, u32, u32, &[u8])> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (raw, after) = rest.split_first_chunk::<16>()?;
            let number = |n: usize| u32::from_le_bytes([raw[4 * n], raw[4 * n + 1], raw[4 * n + 2], raw[4 * n + 3]]);
            let (key, after) = after.split_at(number(3) as usize);
            rest = after;
            Some((number(0), number(1), number(2), key))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_as_they_went_in() {
        let origin = Origin { shard: 3, conn: 70_000, cid: u64::MAX - 5 };
        let flags = MessageFlags { plain: true, answer: true, ..MessageFlags::default() };
        let tail = b" re.ply 5\r\nhello\r\n";
        let small =
            Message { subject: b"a.b", reply_bytes: 6, header_bytes: 0, argument_bytes: 11, tail: Tail::Joined(tail) };
        let body = Bytes::from(vec![7u8; 100_002]);
        let large = Message {
            subject: b"big",
            reply_bytes: 0,
            header_bytes: 12,
            argument_bytes: 12,
            tail: Tail::Shared { arguments: b" 12 100000\r\n", body: &body },
        };
        let names: [&[u8]; 2] = [b"workers", b"q"];
        let mut batch = Batch::default();
        batch.push_message(9, origin, flags, names.into_iter(), &small);
        batch.push_no_responders(9, origin, b"nobody", b"_INBOX.1");
        batch.push_message(9, origin, MessageFlags::default(), std::iter::empty(), &large);
        batch.push_message(9, origin, flags, std::iter::empty(), &small);
        let trail = Trail { hops: 3, refused: 1 << 63 | 5 };
        let share = Share { inquiry: u64::MAX - 1, weight: 1 << 31 | 3 };
        let flags_passed = MessageFlags { trail, concern: Concern::Part(share), ..flags };
        batch.push_message(9, origin, flags_passed, std::iter::empty(), &small);
        batch.push_refusal(origin, share);
        batch.push_relay(origin, b"said", None);
        batch.push_relay(origin, &body, Some(&body));
        batch.push_stall(origin, 5);
        let items: Vec<_> = batch.items().collect();
        let [first, second, third, short, passed, refusal, said, shared, last] = &items[..] else {
            panic!("nine items, not {}", items.len())
        };
        assert!(matches!(said, Item::Relay { origin: of, said: b"said" } if *of == origin));
        assert!(matches!(shared, Item::Relay { origin: of, said } if *of == origin && **said == body));
        match passed {
            Item::Message { flags: known, message, .. } => {
                assert_eq!((known, message.subject, message.reply()), (&flags_passed, &b"a.b"[..], &b"re.ply"[..]));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(refusal, Item::Refusal { share: known } if *known == share));
        match short {
            Item::Message { account: 9, origin: o, flags: f, queues, message } => {
                assert_eq!((o, f, queues.count()), (&origin, &flags, 0));
                assert_eq!(
                    (message.subject, message.reply(), message.body()),
                    (&b"a.b"[..], &b"re.ply"[..], &b"hello\r\n"[..])
                );
            }
            other => panic!("{other:?}"),
        }
        match first {
            Item::Message { account: 9, origin: o, flags: f, queues, message } => {
                assert_eq!((o, f), (&origin, &flags));
                assert_eq!(queues.collect::<Vec<_>>(), names);
                assert_eq!(
                    (message.subject, message.reply(), message.body()),
                    (&b"a.b"[..], &b"re.ply"[..], &b"hello\r\n"[..])
                );
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(second, Item::NoResponders { subject: b"nobody", reply: b"_INBOX.1", .. }));
        match third {
            Item::Message { message, .. } => assert_eq!((message.size(), message.header_bytes), (100_000, 12)),
            other => panic!("{other:?}"),
        }
        assert!(matches!(last, Item::Stall { millis: 5, .. }));
        assert!(batch.len() > 100_000);
        batch.clear();
        assert!(batch.is_empty() && batch.items().next().is_none());
    }

    #[test]
    fn interest_comes_out_as_it_went_in() {
        let mut batch = InterestBatch::default();
        batch.push(1, 0, 1, b"foo.>");
        batch.push(0, 7, 2, b"foo q");
        let all: Vec<_> = batch.changes().collect();
        assert_eq!(all, [(1, 0, 1, &b"foo.>"[..]), (0, 7, 2, &b"foo q"[..])]);
    }
}
