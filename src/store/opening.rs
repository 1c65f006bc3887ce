//! Opening a store: its streams, consumers and sets from what the log holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::kept::Kept;
use super::upkeep::{OF_SET, OF_STREAM};
use super::{CREATE, ConsumerKey, ConsumerSlot, DELTA, END, Options, Store, StreamSlot, decode_meta};
use crate::consumer::Consumer;
use crate::log::recover::{Effect, Files, Refusal, Repair, Visitor, recover};
use crate::log::{
    Flaw, Incarnation, Kind, LogId, Message, Pending, PlacedRun, SegmentNo, StoreId, Time, Urgency, varint,
};
use crate::stream::{Appended, Full, Removal, Sink, Stream};

/// A store that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What was found.
    pub report: Report,
}

/// What opening a store has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What had to be repaired in the log.
    pub repairs: Vec<Repair>,
    /// Records that make no sense; they were passed over.
    pub senseless: u64,
    /// Batches that were read, beside snapshots.
    pub batches: u64,
}

impl Store {
    /// Opens a log with everything in it.
    ///
    /// # Errors
    /// When the log cannot be opened at all.
    pub fn open(
        files: &mut impl Files,
        now: Time,
        id: LogId,
        store: StoreId,
        options: Options,
    ) -> Result<Opened, Refusal> {
        let mut opening = Opening::default();
        let recovered = recover(files, id, store, options.log, &mut opening)?;
        let mut report =
            Report { repairs: recovered.repairs, senseless: opening.senseless, batches: recovered.batches };
        let mut opened = Self::with_log(recovered.log, store, options);
        let mut sink = ReplaySink;
        for slot in opening.streams.values_mut() {
            slot.stream.replayed(&mut sink);
            let (first, last) = (slot.stream.first_seq(), slot.stream.last_seq());
            for entry in slot.consumers.values_mut() {
                entry.consumer.removed_below(first);
                entry.consumer.cut(last);
                // When a message was stored is not in memory: the last one is no earlier.
                entry.consumer.opened(now, |_| slot.stream.last_time());
            }
        }
        for slot in opening.streams.values() {
            slot.stream.occupied().for_each(|(segment, bytes)| opened.log.occupied(segment, bytes));
        }
        opened.kept = opening.kept;
        opened.streams = opening.streams;
        report.repairs.extend(opened.missing_segments(&report.repairs));
        if report.repairs.iter().any(|repair| matches!(repair, Repair::NewestMissing { .. })) {
            report.repairs.extend(opened.unknown_ends());
        }
        // Nothing goes on the word of a damaged log.
        let is_damaged = report.senseless > 0 || report.repairs.iter().any(Repair::is_damage);
        for slot in opened.streams.values_mut() {
            if is_damaged {
                slot.doubtful.clear();
            } else {
                slot.removals_forgotten();
            }
        }
        let streams = opened.streams.keys().copied().collect::<Vec<_>>();
        for of in streams {
            // A crash may have come between a message and what it pushed out.
            opened.settle(now, of);
            let consumers = opened.consumers(of).collect::<Vec<ConsumerKey>>();
            for key in consumers {
                opened.recount(key);
            }
        }
        Ok(Opened { store: opened, report })
    }

    /// What is known of the streams' ends where that of the log is lost.
    fn unknown_ends(&self) -> impl Iterator<Item = Repair> {
        let on_disk = self.streams.iter().filter(|(_, slot)| !slot.stream.config().is_memory());
        on_disk.map(|(of, slot)| Repair::EndUnknown { stream: *of, last_seq: slot.stream.last_seq() })
    }

    /// Segments in which streams have messages, and which are not there: recovery misses only those behind the
    /// checkpoint.
    fn missing_segments(&self, told: &[Repair]) -> Vec<Repair> {
        let occupied = self.streams.values().flat_map(|slot| slot.stream.occupied());
        let needed = occupied.filter(|(_, bytes)| *bytes > 0).map(|(segment, _)| segment).collect::<BTreeSet<_>>();
        let is_told = |segment: SegmentNo| {
            told.iter().any(|repair| match repair {
                Repair::MissingSegments { first, last } => (*first..=*last).contains(&segment),
                _ => false,
            })
        };
        let missing = needed.into_iter().filter(|no| self.log.segment_end(*no).is_none() && !is_told(*no));
        missing.map(|no| Repair::MissingSegments { first: no, last: no }).collect()
    }
}

/// Collects the state of a store while its log is read.
#[derive(Default)]
struct Opening {
    streams: BTreeMap<Incarnation, Box<StreamSlot>>,
    kept: Kept,
    sink: ReplaySink,
    senseless: u64,
}

impl Opening {
    fn restore(&mut self, of: Incarnation, snapshot: &[u8]) -> Option<()> {
        let (&what, mut rest) = snapshot.split_first()?;
        match what {
            OF_SET => return self.kept.restore(of, rest),
            OF_STREAM => {}
            _ => return None,
        }
        let rest = &mut rest;
        let (_, meta) = decode_meta(take_part(rest)?)?;
        let stream = Stream::restore(take_part(rest)?, of).ok()?;
        let mut slot = StreamSlot::new(stream, meta);
        slot.next_consumer = u32::try_from(varint::take(rest)?).ok()?;
        while !rest.is_empty() {
            let number = u32::try_from(varint::take(rest)?).ok()?;
            let meta = take_part(rest)?;
            let consumer = Consumer::restore(take_part(rest)?).ok()?;
            slot.consumers.insert(number, ConsumerSlot::new(consumer, meta));
        }
        self.streams.insert(of, slot);
        Some(())
    }

    fn replay(&mut self, run: &PlacedRun, record: &[u8]) -> Option<()> {
        let of = run.stream;
        match run.kind {
            Kind::StreamMeta => {
                let (config, meta) = decode_meta(record)?;
                match self.streams.get_mut(&of) {
                    Some(slot) => {
                        slot.meta = meta.into();
                        slot.stream.replay_update(config);
                    }
                    None => drop(self.streams.insert(of, StreamSlot::new(Stream::new(config, of), meta))),
                }
            }
            Kind::StreamEnd => {
                let slot = self.streams.remove(&of)?;
                slot.stream.end(&mut self.sink);
            }
            Kind::Removal => {
                let slot = self.streams.get_mut(&of)?;
                slot.stream.replay_removal(record, &mut self.sink).ok()?;
                for range in Removal::decode(record).ok()?.ranges {
                    for entry in slot.consumers.values_mut() {
                        entry.consumer.removed(*range.start(), *range.end());
                        entry.consumer.drain_events().for_each(drop);
                    }
                }
            }
            Kind::Consumer => self.replay_consumer(of, record)?,
            Kind::Face => self.kept.replay(of, record)?,
            _ => {}
        }
        Some(())
    }

    fn replay_consumer(&mut self, of: Incarnation, mut record: &[u8]) -> Option<()> {
        let slot = self.streams.get_mut(&of)?;
        let number = u32::try_from(varint::take(&mut record)?).ok()?;
        slot.next_consumer = slot.next_consumer.max(number + 1);
        let (&form, mut rest) = record.split_first()?;
        match form {
            CREATE => {
                let meta = take_part(&mut rest)?;
                let consumer = Consumer::restore(rest).ok()?;
                slot.consumers.insert(number, ConsumerSlot::new(consumer, meta));
            }
            DELTA => {
                let entry = slot.consumers.get_mut(&number)?;
                entry.consumer.replay(rest).ok()?;
                entry.consumer.drain_events().for_each(drop);
            }
            END => {
                slot.consumers.remove(&number);
                slot.interest_ended();
            }
            _ => return None,
        }
        Some(())
    }
}

impl Visitor for Opening {
    fn snapshot(&mut self, of: Incarnation, snapshot: &[u8]) -> Result<(), &'static str> {
        self.restore(of, snapshot).ok_or("a snapshot makes no sense")
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn messages<'a>(
        &mut self,
        run: &PlacedRun,
        _: Effect,
        messages: &mut dyn Iterator<Item = Result<(Message<'a>, u32), Flaw>>,
    ) {
        // A stream that has ended since the messages were written.
        let Some(slot) = self.streams.get_mut(&run.stream) else { return };
        let mut flawed = false;
        let sound = messages.map_while(|message| message.inspect_err(|_| flawed = true).ok());
        slot.stream.replay(run, sound, &mut self.sink);
        self.senseless += u64::from(flawed);
    }

    fn piece(&mut self, run: &PlacedRun) {
        if let Some(slot) = self.streams.get_mut(&run.stream) {
            slot.stream.placed(run, &mut self.sink);
        }
    }

    fn control(&mut self, run: &PlacedRun, effect: Effect, record: &[u8]) {
        if effect == Effect::Whole && self.replay(run, record).is_none() {
            self.senseless += 1;
        }
    }

    fn damaged(&mut self, run: &PlacedRun, effect: Effect, _: Flaw) {
        // No number is given twice, whatever became of its message.
        if run.kind == Kind::Messages
            && effect == Effect::Whole
            && let Some(slot) = self.streams.get_mut(&run.stream)
        {
            slot.stream.replay(run, std::iter::empty(), &mut self.sink);
        }
    }
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint::take(rest)?).ok()?;
    let (part, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(part)
}

/// Nothing is appended while a log is read. What is needed of each segment is known when all is read.
#[derive(Debug, Default)]
struct ReplaySink;

impl Sink for ReplaySink {
    fn message(&mut self, _: u64, _: &Message<'_>) -> Result<Appended, Full> {
        Err(Full)
    }

    fn batch(&mut self, _: u64, _: &[Message<'_>], _: &mut Vec<u32>) -> Result<Pending, Full> {
        Err(Full)
    }

    fn removal(&mut self, _: &[u8], _: Urgency) -> Result<Pending, Full> {
        Err(Full)
    }

    fn dead(&mut self, _: SegmentNo, _: u64) {}

    fn removed(&mut self, _: RangeInclusive<u64>) {}
}
