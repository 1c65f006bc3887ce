//! A stream on the simulated disk: what it was asked to do, and a naive model of what it holds.

use std::collections::BTreeMap;

use super::consumers::ConsumerUnderTest;
use super::world::EXPIRY_STEP_BITS;
use crate::log::{Incarnation, Pending, Time};
use crate::stream::Inbound;
use crate::stream::Retention;
use crate::stream::tests::model::{Model, Stored};

/// What a stream was asked to do, or has done by itself.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Publish {
        now: Time,
        message: Sent,
    },
    Remove {
        seq: u64,
    },
    Purge {
        filter: Option<Vec<u8>>,
        below: Option<u64>,
        keep: u64,
    },
    /// What is too old has gone.
    Expire {
        now: Time,
    },
    /// The consumers of a stream that keeps nothing else have acknowledged a message, or do not want it.
    Acknowledged {
        seq: u64,
        stored: Stored,
    },
}

/// A message as it is given to a stream. Of the payload, which may be large, only the length.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    pub(super) subject: Vec<u8>,
    pub(super) headers: usize,
    pub(super) payload: usize,
    pub(super) expires: Option<Time>,
    pub(super) id: Option<u128>,
    pub(super) unwanted: bool,
}

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

impl Sent {
    pub(super) fn inbound<'a>(&'a self, payload: &'a [u8]) -> Inbound<'a> {
        let Self { subject, headers, expires, id, unwanted, .. } = self;
        let (headers, expires, id, unwanted) = (&ZEROS[..*headers], *expires, *id, *unwanted);
        Inbound { subject, headers, payload, expires, id, unwanted, ..Default::default() }
    }
}

impl Op {
    pub(super) fn apply(&self, model: &mut Model) {
        match self {
            Self::Publish { now, message } => {
                let outcome = model.admit(*now, &message.inbound(&ZEROS[..message.payload]), false);
                assert!(matches!(outcome, Ok((_, false))), "{outcome:?} in the model");
            }
            Self::Remove { seq } | Self::Acknowledged { seq, .. } => drop(model.messages.remove(seq)),
            Self::Purge { filter, below, keep } => drop(model.purge(filter.as_deref(), *below, *keep)),
            Self::Expire { now } => model.expire(*now, EXPIRY_STEP_BITS),
        }
    }
}

pub(super) struct StreamUnderTest {
    pub(super) of: Incarnation,
    pub(super) created: Pending,
    /// What had been done when the store was opened last.
    pub(super) base: Model,
    /// What was done since, and what each answer waits for; `None` for what nobody was told of.
    pub(super) ops: Vec<(Op, Option<Pending>)>,
    pub(super) now: Model,
    /// The payload of every number that was given.
    pub(super) payloads: BTreeMap<u64, Vec<u8>>,
    pub(super) consumers: Vec<ConsumerUnderTest>,
    /// Consumers that have ended, and what makes that final.
    pub(super) ended: Vec<(ConsumerUnderTest, Pending)>,
    /// Messages that a consumer has acknowledged and that may not be needed any more.
    pub(super) acknowledged: Vec<u64>,
}

impl StreamUnderTest {
    pub(super) fn did(&mut self, op: Op, after: Option<Pending>) {
        op.apply(&mut self.now);
        self.ops.push((op, after));
    }

    /// Whether a message stays for the consumers' sake.
    pub(super) fn needs(&self, seq: u64, stored: &Stored) -> bool {
        let mut wanting = self.consumers.iter().filter(|consumer| consumer.wants(&stored.subject));
        match self.now.config.retention {
            Retention::Limits => true,
            Retention::WorkQueue => !wanting.any(|consumer| consumer.is_done_with(seq)),
            Retention::Interest => wanting.any(|consumer| !consumer.is_done_with(seq)),
        }
    }

    /// What a consumer has needed that has ended goes, if no other needs it.
    pub(super) fn interest_ended(&mut self) {
        if self.now.config.retention == Retention::Interest {
            let gone = self.now.messages.clone().into_iter().filter(|(seq, stored)| !self.needs(*seq, stored));
            for (seq, stored) in gone.collect::<Vec<_>>() {
                self.did(Op::Acknowledged { seq, stored }, None);
            }
        }
    }

    pub(super) fn has_times(&self) -> bool {
        self.now.config.max_age.is_some() || self.now.config.allow_expiry
    }

    /// What is too old by now goes from the model; the store has been given the time for it.
    pub(super) fn expire(&mut self, now: Time) {
        if self.has_times() {
            self.did(Op::Expire { now }, None);
        }
    }
}
