//! What has come for the service of a shard since it was last told: messages and relays, in order, in one buffer that
//! is used again and again.

use super::account::SubSlot;
use super::service::{Mail, Source, Subscription};
use crate::wire::message::Message;

/// Buffer capacity that an emptied intake keeps.
const BYTES_KEPT: usize = 1 << 20;

/// What waits for the service.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// The service's subscriptions, by their slots, which are the first of the shard.
    listeners: Vec<Listener>,
    waiting: Waiting,
}

#[derive(Debug)]
struct Listener {
    tag: u32,
    /// It takes only what comes from the connections of this shard.
    only_from: Option<u16>,
}

/// Messages and relays in order.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    source: Source,
    kind: Kind,
    /// Bytes of the payload, or of what is said.
    bytes: usize,
}

#[derive(Debug)]
enum Kind {
    Message { tag: u32, subject_bytes: usize, reply_bytes: usize },
    Relay { from: u16 },
}

/// One of the things that wait.
#[derive(Debug)]
pub(super) enum Item<'a> {
    Message(Mail<'a>),
    Relay { from: u16, source: Source, said: &'a [u8] },
}

impl Intake {
    /// Makes a subscription of the service known, on shard `shard`; gives the slot that it has to have.
    pub(super) fn listen(&mut self, shard: u16, subscription: &Subscription) -> SubSlot {
        let only_from = subscription.of_own_shard.then_some(shard);
        self.listeners.push(Listener { tag: subscription.tag, only_from });
        self.listeners.len() as SubSlot - 1
    }

    /// Takes a message for the subscription in `slot`, if that is for it.
    #[inline(never)]
    pub(super) fn take(&mut self, slot: SubSlot, source: Source, message: &Message<'_>) -> bool {
        let Listener { tag, only_from } = self.listeners[slot as usize];
        if only_from.is_some_and(|shard| shard != source.shard) {
            return false;
        }
        let body = message.body();
        let payload = &body[message.header_bytes..body.len() - 2];
        let (subject, reply) = (message.subject, message.reply());
        let kind = Kind::Message { tag, subject_bytes: subject.len(), reply_bytes: reply.len() };
        let Waiting { bytes, entries } = &mut self.waiting;
        bytes.reserve(subject.len() + reply.len() + payload.len());
        for part in [subject, reply, payload] {
            bytes.extend_from_slice(part);
        }
        entries.push(Entry { source, kind, bytes: payload.len() });
        true
    }

    /// Takes what the service of shard `from` has said.
    pub(super) fn push_relay(&mut self, from: u16, source: Source, said: &[u8]) {
        self.waiting.bytes.extend_from_slice(said);
        self.waiting.entries.push(Entry { source, kind: Kind::Relay { from }, bytes: said.len() });
    }

    /// Whether nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.entries.is_empty()
    }

    /// Gives what waits in exchange for an empty buffer.
    pub(super) fn swap(&mut self, empty: &mut Waiting) {
        debug_assert!(empty.entries.is_empty());
        std::mem::swap(&mut self.waiting, empty);
    }

    /// Frees the buffer, if it is empty.
    pub(super) fn trim(&mut self) {
        if self.is_empty() {
            self.waiting = Waiting::default();
        }
    }
}

impl Waiting {
    /// All of it, in order.
    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let mut rest = &self.bytes[..];
        let mut part = move |bytes| {
            let (part, after) = rest.split_at(bytes);
            rest = after;
            part
        };
        self.entries.iter().map(move |&Entry { source, ref kind, bytes }| match *kind {
            Kind::Message { tag, subject_bytes, reply_bytes } => {
                let (subject, reply) = (part(subject_bytes), part(reply_bytes));
                Item::Message(Mail { tag, source, subject, reply, payload: part(bytes) })
            }
            Kind::Relay { from } => Item::Relay { from, source, said: part(bytes) },
        })
    }

    /// Empties it and keeps its buffers, unless they have grown out of proportion.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        if self.bytes.capacity() > BYTES_KEPT {
            *self = Self::default();
        }
    }
}
