//! What happened in a simulation, as its clients saw it.
//!
//! Times are those of the world's clock. An operation *begins* when the last byte of its command enters the socket,
//! and is *known* when some client has read a byte that depends on it: the PONG to a later PING, or the message. A
//! client may tell what it knows to any other, so whatever begins after that must find the operation done. This is
//! the relation that all checks use; there is no need to simulate the telling.

use super::access::{Age, Reload};

/// A time; `None` = not yet.
pub(super) type When = Option<u64>;

/// One subscription.
#[derive(Debug)]
pub(super) struct SubRecord {
    pub(super) client: usize,
    pub(super) sid: u32,
    pub(super) pattern: String,
    pub(super) queue: Option<String>,
    pub(super) begun: When,
    pub(super) confirmed: When,
    pub(super) unsub_begun: When,
    pub(super) unsub_confirmed: When,
    /// UNSUB with a limit: the limit, and when it was confirmed.
    pub(super) max: Option<u64>,
    pub(super) max_confirmed: When,
}

/// One publish.
#[derive(Debug)]
pub(super) struct PublishRecord {
    pub(super) client: usize,
    pub(super) subject: String,
    /// It asks for an answer on `_INBOX.<client>.<id>`.
    pub(super) request: bool,
    pub(super) begun: When,
    pub(super) known: When,
}

/// Something that a client has sent, and that is known some time later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Sub(usize),
    Unsub(usize),
    Max(usize),
    Publish(usize),
}

/// One message that a client has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) publish: usize,
    pub(super) client: usize,
    pub(super) sub: usize,
    pub(super) read: u64,
}

/// What one client has done, in order.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    pub(super) operations: Vec<Operation>,
    /// The first so many are known.
    pub(super) known: usize,
    /// Whether it receives its own messages.
    pub(super) echo: bool,
    /// When its connection was closed, by whomever.
    pub(super) closed: When,
    /// Whom it says that it is, if it has to say so.
    pub(super) user: Option<&'static str>,
    pub(super) connected: When,
    /// When the server had closed its connection.
    pub(super) expelled: When,
    /// Subjects of publishes that were refused.
    pub(super) refused_publishes: Vec<String>,
    /// Sids of subscriptions that were refused, and of those that were taken away (`true`).
    pub(super) refused_subs: Vec<(u32, bool)>,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) subs: Vec<SubRecord>,
    pub(super) publishes: Vec<PublishRecord>,
    /// In the order of reading.
    pub(super) deliveries: Vec<Delivery>,
    /// 503s that were read: for which publish, on which subscription.
    pub(super) refused: Vec<(usize, usize)>,
    /// By client.
    pub(super) deeds: Vec<Deeds>,
    /// What no client should ever see.
    pub(super) oddities: Vec<String>,
    /// The configurations, the one at the start first; none if the server is open to everybody.
    pub(super) ages: Vec<Age>,
    /// How each further one came.
    pub(super) reloads: Vec<Reload>,
}

impl History {
    /// Reloads that every shard has taken.
    pub(super) fn reloads_done(&self) -> usize {
        self.reloads.iter().filter(|reload| reload.done.is_some()).count()
    }

    /// The first `upto` operations of a client are known.
    pub(super) fn learn(&mut self, client: usize, upto: usize, now: u64) {
        let deeds = &mut self.deeds[client];
        let from = deeds.known.min(upto);
        deeds.known = deeds.known.max(upto);
        for operation in &deeds.operations[from..upto] {
            match *operation {
                Operation::Sub(sub) => self.subs[sub].confirmed = Some(now),
                Operation::Unsub(sub) => self.subs[sub].unsub_confirmed = Some(now),
                Operation::Max(sub) => self.subs[sub].max_confirmed = Some(now),
                Operation::Publish(id) => self.publishes[id].known = Some(now),
            }
        }
    }

    /// A message was read: it is known, and all that its publisher has done before.
    pub(super) fn learn_message(&mut self, id: usize, now: u64) {
        if self.publishes[id].known.is_none() {
            let client = self.publishes[id].client;
            let at = self.deeds[client].operations.iter().rposition(|one| *one == Operation::Publish(id));
            self.learn(client, at.map_or(0, |at| at + 1), now);
        }
    }
}
