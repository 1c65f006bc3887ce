//! Where a stream's records go: to the log, or to memory.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::ConsumerSlot;
use super::cache::DecodedRun;
use crate::log::{Incarnation, Kind, Log, Message, Pending, SegmentNo, Time, Urgency};
use crate::stream::{Appended, Durability, Full, Sink, Stream};

/// The parts of a stream that are free while its records are appended.
pub(super) struct Body<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) meta: &'a mut Box<[u8]>,
    pub(super) consumers: &'a mut BTreeMap<u32, Box<ConsumerSlot>>,
    pub(super) doubtful: &'a mut RoaringTreemap,
}

/// Takes the records of one stream.
pub(super) struct LogSink<'a> {
    log: &'a mut Log,
    now: Time,
    of: Incarnation,
    durability: Durability,
    memory: &'a mut BTreeMap<u64, Arc<DecodedRun>>,
    removed: Vec<RangeInclusive<u64>>,
    expired: Option<&'a mut Vec<(Incarnation, Vec<u8>, u64)>>,
}

impl<'a> LogSink<'a> {
    pub(super) fn new(
        log: &'a mut Log,
        now: Time,
        of: Incarnation,
        durability: Durability,
        memory: &'a mut BTreeMap<u64, Arc<DecodedRun>>,
    ) -> Self {
        Self { log, now, of, durability, memory, removed: Vec::new(), expired: None }
    }

    /// Notes the subjects whose last message has expired.
    pub(super) fn telling(mut self, expired: &'a mut Vec<(Incarnation, Vec<u8>, u64)>) -> Self {
        self.expired = Some(expired);
        self
    }

    /// Tells consumers what has gone. Returns whether anything has.
    pub(super) fn finish(self, consumers: &mut BTreeMap<u32, Box<ConsumerSlot>>) -> bool {
        for range in &self.removed {
            for entry in consumers.values_mut() {
                entry.consumer.removed(*range.start(), *range.end());
                if let Some(count) = &mut entry.count {
                    count.start_again();
                } else if !entry.consumer.config().filters.is_empty() && *range.end() >= entry.consumer.next_seq() {
                    entry.count = Some(super::delivery::Count::default());
                }
            }
        }
        !self.removed.is_empty()
    }

    /// What an acknowledgement of something appended waits for.
    fn promise(&self, pending: Pending) -> Pending {
        if self.durability == Durability::Flushed { pending } else { Pending::NONE }
    }

    fn keep(&mut self, message: &Message<'_>) -> u32 {
        self.memory.insert(message.seq, Arc::new(DecodedRun::in_memory(message)));
        0
    }
}

impl Sink for LogSink<'_> {
    #[inline]
    fn message(&mut self, first_live: u64, message: &Message<'_>) -> Result<Appended, Full> {
        if self.durability == Durability::Memory {
            return Ok(Appended { after: Pending::NONE, record_bytes: self.keep(message) });
        }
        let (pending, record_bytes) = self.log.message(self.now, self.of, first_live, message).map_err(|_| Full)?;
        Ok(Appended { after: self.promise(pending), record_bytes })
    }

    fn batch(
        &mut self,
        first_live: u64,
        messages: &[Message<'_>],
        record_bytes: &mut Vec<u32>,
    ) -> Result<Pending, Full> {
        if self.durability == Durability::Memory {
            for message in messages {
                record_bytes.push(self.keep(message));
            }
            return Ok(Pending::NONE);
        }
        let pending = self.log.group(self.now, self.of, first_live, messages, record_bytes).map_err(|_| Full)?;
        Ok(self.promise(pending))
    }

    fn removal(&mut self, content: &[u8], urgency: Urgency) -> Result<Pending, Full> {
        let pending = self.log.control(self.now, Some(self.of), Kind::Removal, content, urgency);
        Ok(self.promise(pending))
    }

    fn dead(&mut self, segment: SegmentNo, bytes: u64) {
        self.log.dead(segment, bytes);
    }

    fn removed(&mut self, seqs: RangeInclusive<u64>) {
        self.removed.push(seqs);
    }

    fn gone(&mut self, seqs: RangeInclusive<u64>) {
        let gone = self.memory.range(seqs).map(|(seq, _)| *seq).collect::<Vec<_>>();
        for seq in gone {
            self.memory.remove(&seq);
        }
    }

    fn subject_expired(&mut self, subject: &[u8], seq: u64) {
        if let Some(expired) = &mut self.expired {
            expired.push((self.of, subject.to_vec(), seq));
        }
    }
}
