//! Pull requests: each wants a number of messages, in turn with the others.

use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroU64};

use super::event::{Ended, Event};
use super::ledger::NEVER;
use crate::log::Time;

/// A pull request of one consumer. Never used twice in the consumer's life in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u64);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Messages wanted.
    pub batch: NonZeroU32,
    /// When it ends by itself; `None` never.
    pub expires: Option<Time>,
    /// Whether it ends when there are no more messages. With `expires` it waits for the first one.
    pub no_wait: bool,
    /// Most bytes; `None` without limit.
    pub max_bytes: Option<NonZeroU64>,
    /// Lower ones are served first, equal ones in turn.
    pub priority: u8,
    /// Served only while at least so many messages are undelivered …
    pub min_pending: Option<u64>,
    /// … or at least so many unacknowledged.
    pub min_ack_pending: Option<u64>,
}

impl PullRequest {
    /// A request for `batch` messages without any condition.
    #[must_use]
    pub fn of(batch: NonZeroU32) -> Self {
        Self {
            batch,
            expires: None,
            no_wait: false,
            max_bytes: None,
            priority: 0,
            min_pending: None,
            min_ack_pending: None,
        }
    }
}

/// Why a pull request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAccepted {
    /// More messages than this are not allowed.
    Batch(u32),
    /// A longer life in ns than this, or none at all, is not allowed.
    Expires(i64),
    /// More bytes than this, or no limit, are not allowed.
    Bytes(u64),
    /// As many wait as may.
    Waiting(u32),
    /// It would not wait, and there are no messages.
    NoMessages,
    /// It would not wait, and other requests want all there are.
    RequestsPending,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: RequestId,
    pub(super) left: u32,
    got_any: bool,
    bytes_left: Option<u64>,
    ask: PullRequest,
}

impl Waiting {
    fn ended(&self, reason: Ended) -> Event {
        let bytes_left = self.bytes_left.unwrap_or(0);
        Event::RequestEnded { request: self.id, reason, messages_left: self.left, bytes_left }
    }

    fn conditional(&self) -> bool {
        self.ask.min_pending.is_some() || self.ask.min_ack_pending.is_some()
    }

    fn met(&self, pending: u64, ack_pending: u64) -> bool {
        !self.conditional()
            || self.ask.min_pending.is_some_and(|least| pending >= least)
            || self.ask.min_ack_pending.is_some_and(|least| ack_pending >= least)
    }
}

/// The waiting requests, by priority, then in turn. Bounded by `max_waiting`.
#[derive(Debug, Default)]
pub(super) struct Requests {
    queue: VecDeque<Waiting>,
    last_id: u64,
    /// How many of them have conditions: without any, the front one is next.
    conditional: u32,
    /// How many of them may not wait.
    impatient: u32,
    /// No request expires earlier; [`NEVER`] only if none does.
    earliest: Option<Time>,
    /// Messages that all of them want.
    wanted: u64,
}

impl Requests {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn wanted(&self) -> u64 {
        self.wanted
    }

    pub(super) fn earliest(&self) -> Time {
        self.earliest.unwrap_or(NEVER)
    }

    pub(super) fn push(&mut self, ask: PullRequest) -> RequestId {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        let bytes_left = ask.max_bytes.map(NonZeroU64::get);
        let waiting = Waiting { id, left: ask.batch.get(), got_any: false, bytes_left, ask };
        self.wanted += u64::from(waiting.left);
        self.conditional += u32::from(waiting.conditional());
        self.impatient += u32::from(ask.no_wait);
        if let Some(expires) = ask.expires {
            self.earliest = Some(self.earliest().min(expires));
        }
        self.insert(waiting);
        id
    }

    /// Who gets the next message.
    pub(super) fn choose(&self, pending: u64, ack_pending: u64) -> Option<RequestId> {
        if self.conditional == 0 {
            return self.queue.front().map(|waiting| waiting.id);
        }
        self.queue.iter().find(|waiting| waiting.met(pending, ack_pending)).map(|waiting| waiting.id)
    }

    /// Takes `bytes` of a request for one message. False if it is gone, or is now because they do not fit.
    pub(super) fn take(&mut self, id: RequestId, bytes: u64, events: &mut Vec<Event>) -> bool {
        let Some(place) = self.place(id) else { return false };
        let waiting = &mut self.queue[place];
        if waiting.bytes_left.is_some_and(|left| left < bytes) {
            events.push(waiting.ended(Ended::BytesExceeded));
            self.remove(place);
            return false;
        }
        waiting.left -= 1;
        waiting.got_any = true;
        waiting.bytes_left = waiting.bytes_left.map(|left| left - bytes);
        self.wanted -= 1;
        let reason = match (waiting.left, waiting.bytes_left) {
            (_, Some(0)) | (0, None) => Some(Ended::Fulfilled),
            (0, Some(_)) => Some(Ended::BatchCompleted),
            _ => None,
        };
        if let Some(reason) = reason {
            events.push(waiting.ended(reason));
            self.remove(place);
        } else if self.queue.len() > 1
            && let Some(waiting) = self.queue.remove(place)
        {
            self.insert(waiting);
        }
        true
    }

    /// Ends a request without an event.
    pub(super) fn cancel(&mut self, id: RequestId) -> bool {
        let place = self.place(id);
        place.inspect(|place| self.remove(*place)).is_some()
    }

    /// Ends those whose time is up.
    pub(super) fn expire(&mut self, now: Time, events: &mut Vec<Event>) {
        if now < self.earliest() {
            return;
        }
        self.end_where(Ended::Expired, events, |waiting| waiting.ask.expires.is_some_and(|expires| expires <= now));
        self.earliest = self.queue.iter().filter_map(|waiting| waiting.ask.expires).min();
    }

    /// There are no more messages: ends those that do not wait.
    pub(super) fn dry(&mut self, events: &mut Vec<Event>) {
        if self.impatient > 0 {
            self.end_where(Ended::NoMessages, events, |waiting| {
                waiting.ask.no_wait && (waiting.ask.expires.is_none() || waiting.got_any)
            });
        }
    }

    /// Ends all.
    pub(super) fn close(&mut self, events: &mut Vec<Event>) {
        self.end_where(Ended::Deleted, events, |_| true);
    }

    pub(super) fn shrink(&mut self) {
        self.queue.shrink_to_fit();
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Waiting>()
    }

    fn end_where(&mut self, reason: Ended, events: &mut Vec<Event>, ends: impl Fn(&Waiting) -> bool) {
        let mut place = 0;
        while place < self.queue.len() {
            if ends(&self.queue[place]) {
                events.push(self.queue[place].ended(reason));
                self.remove(place);
            } else {
                place += 1;
            }
        }
    }

    fn place(&self, id: RequestId) -> Option<usize> {
        self.queue.iter().position(|waiting| waiting.id == id)
    }

    fn insert(&mut self, waiting: Waiting) {
        let behind = self.queue.iter().rposition(|other| other.ask.priority <= waiting.ask.priority);
        self.queue.insert(behind.map_or(0, |place| place + 1), waiting);
    }

    fn remove(&mut self, place: usize) {
        if let Some(waiting) = self.queue.remove(place) {
            self.wanted -= u64::from(waiting.left);
            self.conditional -= u32::from(waiting.conditional());
            self.impatient -= u32::from(waiting.ask.no_wait);
        }
        if self.queue.is_empty() {
            self.earliest = None;
        }
    }
}
