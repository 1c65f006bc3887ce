//! A consumer's records in the log: deltas and snapshots, one format.
//!
//! A record is a version (1), a set of parts as a number with a bit for each, and those parts in the order of their
//! bits. Numbers are LEB128, signed ones zigzag. Lists begin with their length and hold differences to the element
//! before.
//!
//! | bit | part | content |
//! |---|---|---|
//! | 0 | configuration | length, JSON |
//! | 1 | whole | nothing: what was known before does not count |
//! | 2 | reset | sequence number to begin again at |
//! | 3 | cut | last sequence number of the stream |
//! | 4 | each | single messages to come first: list of sequence numbers |
//! | 5 | delivered | consumer and stream sequence number of the last delivery, next sequence number |
//! | 6 | floor | consumer and stream sequence number |
//! | 7 | reserved | highest reserved consumer sequence number |
//! | 8 | entries | runs: difference of the stream's number, length, difference of the consumer's number (signed) |
//! | 9 | repeated | list of sequence number, number of deliveries |
//! | 10 | exhausted | list of sequence numbers |
//! | 11 | acknowledged | list of ranges: difference, length |
//! | 12 | members | of a group: list of place (difference), key; those before are not there any more |
//! | 13 | owners | of a group: runs: difference of the stream's number (signed), length, place of the member |
//!
//! A delta may be applied to a state that contains it: what it says is absolute, and what it both delivers and
//! acknowledges leaves no trace.

use std::fmt;

use super::changes::{
    ACKNOWLEDGED, ALL, CONFIG, CUT, DELIVERED, EACH, ENTRIES, EXHAUSTED, FLOOR, MEMBERS, OWNERS, Owned, REPEATED,
    RESERVED, RESET, Run, WHOLE, push_owned,
};
use super::codec::{Reader, put, put_signed};
use super::config::{Config, Counts, RestartDeadline, Sharing};
use super::ledger::{Entry, NEVER, NOBODY};
use super::state::{Consumer, Pair};
use crate::log::{Time, Urgency};

/// How many numbers of deliveries are reserved at a time.
pub const RESERVED_BLOCK: u64 = if cfg!(test) { 16 } else { 4096 };

const VERSION: u8 = 1;
/// Entries of one run in a record that is believed.
const RUN_MAX: u64 = 1 << 24;
/// Numbers in a record that is believed: nobody counts so far.
const NUMBER_MAX: u64 = 1 << 62;

/// What a record reserves: handed to [`Consumer::flushed`] when the record is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub(super) epoch: u32,
    pub(super) reserved: u64,
}

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It ends early.
    Short,
    /// It does not end where it should.
    Long,
    /// It is of a version, or has parts, that this program does not know.
    Unknown,
    /// A number is too large.
    Number,
    /// The configuration is not valid.
    Config,
    /// It delivers messages in a wrong order.
    Order,
    /// A snapshot is expected and this is none.
    NotWhole,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "a consumer's record ends early",
            Self::Long => "a consumer's record is too long",
            Self::Unknown => "a consumer's record is of an unknown version",
            Self::Number => "a consumer's record holds a number that is too large",
            Self::Config => "a consumer's record holds an invalid configuration",
            Self::Order => "a consumer's record delivers messages in a wrong order",
            Self::NotWhole => "a consumer's record is not a snapshot",
        })
    }
}

impl std::error::Error for Flaw {}

impl Consumer {
    /// Whether there is something to be recorded, and when: [`Urgency::Now`] if deliveries wait for it. Somebody who
    /// waits for an acknowledgement to be final makes it urgent, too.
    #[must_use]
    pub fn changed(&self) -> Option<Urgency> {
        self.changes.urgency()
    }

    /// Adds to `out` what has happened since the last call. What it returns goes to [`Consumer::flushed`] when those
    /// bytes are on disk.
    pub fn take_delta(&mut self, out: &mut Vec<u8>) -> Mark {
        let parts = self.changes.parts();
        self.begin(parts, out);
        if parts & RESET != 0 {
            put(out, self.changes.reset);
        }
        if parts & CUT != 0 {
            put(out, self.changes.cut);
        }
        self.put_numbers(parts, out);
        if parts & ENTRIES != 0 {
            put_runs(&self.changes.lists().delivered, out);
        }
        if parts & REPEATED != 0 {
            // The last of several for one message counts.
            let repeated = &mut self.changes.lists().repeated;
            repeated.sort_unstable();
            repeated.dedup_by(|later, kept| {
                later.0 == kept.0 && {
                    kept.1 = later.1;
                    true
                }
            });
            put_pairs(repeated.iter().map(|(seq, count)| (*seq, u64::from(*count))), out);
        }
        if parts & EXHAUSTED != 0 {
            let exhausted = &mut self.changes.lists().exhausted;
            exhausted.sort_unstable();
            put_list(exhausted.iter().copied(), exhausted.len(), out);
        }
        if parts & ACKNOWLEDGED != 0 {
            let ranges = &mut self.changes.lists().acknowledged;
            ranges.sort_unstable();
            ranges.dedup_by(|later, kept| {
                later.0 <= kept.1 + 1 && {
                    kept.1 = kept.1.max(later.1);
                    true
                }
            });
            put_pairs(ranges.iter().map(|(first, last)| (*first, last - first)), out);
        }
        if parts & MEMBERS != 0 {
            self.put_members(out);
        }
        if parts & OWNERS != 0 {
            put_owned(&self.changes.lists().owned, out);
        }
        self.changes.taken();
        self.mark()
    }

    /// Adds the first record of a new consumer to `out`. What it returns goes to [`Consumer::flushed`] when those
    /// bytes are on disk.
    pub fn first_record(&mut self, out: &mut Vec<u8>) -> Mark {
        self.snapshot(out);
        self.changes.taken();
        self.mark()
    }

    /// Adds the whole state to `out`: for a checkpoint. What is to be recorded stays so, as the checkpoint may not be
    /// completed. Gives back memory that is not needed.
    pub fn snapshot(&mut self, out: &mut Vec<u8>) {
        let each = if self.each.is_empty() { 0 } else { EACH };
        let of_group = if self.config.sharing == Sharing::Group { MEMBERS | OWNERS } else { 0 };
        let parts = CONFIG | WHOLE | DELIVERED | FLOOR | RESERVED | ENTRIES | REPEATED | EXHAUSTED | each | of_group;
        self.begin(parts, out);
        if each != 0 {
            put_list(self.each.iter().copied(), self.each.len(), out);
        }
        self.put_numbers(parts, out);
        let mut runs: Vec<Run> = Vec::new();
        for entry in self.ledger.iter() {
            match runs.last_mut() {
                Some(run) if run.seq + run.len == entry.seq && run.consumer_seq + run.len == entry.consumer_seq => {
                    run.len += 1;
                }
                _ => runs.push(Run { seq: entry.seq, consumer_seq: entry.consumer_seq, len: 1 }),
            }
        }
        put_runs(&runs, out);
        let keeps = self.config.counts == Counts::Kept;
        let repeated = self.ledger.iter().filter(|entry| keeps && entry.deliveries > 1);
        put_pairs(repeated.map(|entry| (entry.seq, u64::from(entry.deliveries))), out);
        put_list(self.exhausted.iter(), self.exhausted.len() as usize, out);
        if of_group != 0 {
            self.put_members(out);
            let mut owned = Vec::new();
            for entry in self.ledger.iter().filter(|entry| self.members.is_named(entry.owner)) {
                push_owned(&mut owned, entry.seq, entry.owner);
            }
            put_owned(&owned, out);
        }
        self.shrink();
    }

    /// Adds the last record of a clean stop to `out`: numbers that were reserved and not used are free again. Nothing
    /// is delivered any more.
    pub fn stop(&mut self, out: &mut Vec<u8>) {
        self.reserved = self.next_consumer_seq - 1;
        self.changes.reserve();
        self.take_delta(out);
        self.changes.recording = false;
        self.reserved_durable = 0;
    }

    /// A consumer from its snapshot. [`Consumer::replay`] of all that was recorded after it and [`Consumer::opened`]
    /// follow.
    ///
    /// # Errors
    /// The bytes are not what [`Consumer::snapshot`] has written.
    pub fn restore(bytes: &[u8]) -> Result<Self, Flaw> {
        let (parts, _) = parts(bytes)?;
        if parts & (WHOLE | CONFIG) != WHOLE | CONFIG {
            return Err(Flaw::NotWhole);
        }
        let mut consumer = Self::blank(Config::default());
        consumer.replay(bytes)?;
        Ok(consumer)
    }

    /// Applies a delta, or a snapshot, in the order in which they were written.
    ///
    /// # Errors
    /// The bytes are not what a consumer has written. Its state is not to be used then.
    pub fn replay(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        let (parts, mut reader) = parts(bytes)?;
        if parts & CONFIG != 0 {
            let config: Config = serde_json::from_slice(reader.bytes()?).map_err(|_| Flaw::Config)?;
            config.validate().map_err(|_| Flaw::Config)?;
            if parts & WHOLE != 0 {
                *self = Self::blank(config);
            } else {
                self.config = config.shared();
            }
            self.paused_until = self.config.pause_until;
        }
        if parts & RESET != 0 {
            self.reset(number(&mut reader)?);
        }
        if parts & CUT != 0 {
            self.cut(number(&mut reader)?);
        }
        if parts & EACH != 0 {
            let mut each = Vec::new();
            get_list(&mut reader, |seq| each.push(seq))?;
            self.each = each.into();
        }
        if parts & DELIVERED != 0 {
            self.delivered = get_pair(&mut reader)?;
            self.next_seq = number(&mut reader)?.max(1);
            while self.each.front().is_some_and(|seq| *seq <= self.delivered.stream_seq) {
                self.each.pop_front();
            }
        }
        if parts & FLOOR != 0 {
            self.floor = get_pair(&mut reader)?;
        }
        if parts & RESERVED != 0 {
            self.reserved = number(&mut reader)?;
        }
        let runs = if parts & ENTRIES != 0 { get_runs(&mut reader)? } else { Vec::new() };
        let mut repeated = Vec::new();
        if parts & REPEATED != 0 {
            get_pairs(&mut reader, |seq, count| repeated.push((seq, count)))?;
        }
        let mut exhausted = Vec::new();
        if parts & EXHAUSTED != 0 {
            get_list(&mut reader, |seq| exhausted.push(seq))?;
        }
        let mut acknowledged = Vec::new();
        if parts & ACKNOWLEDGED != 0 {
            get_pairs(&mut reader, |first, more| acknowledged.push((first, first.saturating_add(more))))?;
        }
        let named = if parts & MEMBERS != 0 { Some(get_members(&mut reader)?) } else { None };
        let owned = if parts & OWNERS != 0 { get_owned(&mut reader)? } else { Vec::new() };
        if !reader.0.is_empty() {
            return Err(Flaw::Long);
        }
        self.replay_entries(&runs, &exhausted, &acknowledged)?;
        for (seq, count) in repeated {
            if let Some(place) = self.ledger.find(seq) {
                let entry = self.ledger.get_mut(place);
                self.repeated -= u64::from(entry.deliveries > 1);
                entry.deliveries = u32::try_from(count).unwrap_or(u32::MAX).max(1);
                self.repeated += u64::from(entry.deliveries > 1);
            }
        }
        for seq in exhausted {
            if let Some(place) = self.ledger.find(seq) {
                let entry = self.ledger.remove(place);
                self.account_removed(&entry);
            }
            self.exhausted.insert(seq);
        }
        for (first, last) in acknowledged {
            let mut ledger = std::mem::take(&mut self.ledger);
            ledger.remove_range(first, last, |entry| self.account_removed(&entry));
            self.ledger = ledger;
            self.exhausted.remove_range(first..=last);
        }
        let changed = named.map(|named| self.members.remember(&named)).unwrap_or_default();
        if !changed.is_empty() {
            self.ledger.rewrite(|entry| {
                if changed.binary_search(&entry.owner).is_ok() {
                    entry.owner = NOBODY;
                }
                None
            });
        }
        let (first, last) = (self.ledger.first().map_or(1, |entry| entry.seq), self.ledger.last_seq().unwrap_or(0));
        for Owned { seq, len, owner } in owned {
            for seq in seq.max(first)..(seq + len).min(last + 1) {
                if let Some(place) = self.ledger.find(seq) {
                    self.ledger.get_mut(place).owner = if self.members.is_named(owner) { owner } else { NOBODY };
                }
            }
        }
        Ok(())
    }

    /// Its life in memory begins, after [`Consumer::restore`] and [`Consumer::replay`] and before anything else.
    ///
    /// `stored` tells when a message that waits for its acknowledgement was stored, or an earlier time; it is asked
    /// with [`RestartDeadline::FromStored`] only. What it does not know is due at once.
    pub fn opened(&mut self, now: Time, mut stored: impl FnMut(u64) -> Option<Time>) {
        self.reserved = self.reserved.max(self.delivered.consumer_seq);
        self.reserved_durable = self.reserved;
        self.next_consumer_seq = self.reserved + 1;
        let config = &self.config;
        let mut repeated = 0;
        self.ledger.rewrite(|entry| {
            if config.counts == Counts::Forgotten {
                entry.deliveries = 1;
            }
            repeated += u64::from(entry.deliveries > 1);
            let from = match config.restart_deadline {
                RestartDeadline::FromNow => now,
                RestartDeadline::FromStored => stored(entry.seq).unwrap_or(Time::MIN),
            };
            Some(from.saturating_add(config.wait_ns(entry.deliveries)))
        });
        self.repeated = repeated;
        self.start(now);
    }

    fn replay_entries(&mut self, runs: &[Run], exhausted: &[u64], acknowledged: &[(u64, u64)]) -> Result<(), Flaw> {
        let is_gone = |seq: u64| {
            let place = acknowledged.partition_point(|(_, last)| *last < seq);
            acknowledged.get(place).is_some_and(|(first, _)| *first <= seq) || exhausted.binary_search(&seq).is_ok()
        };
        for run in runs {
            for step in 0..run.len {
                let seq = run.seq + step;
                if is_gone(seq) || self.ledger.find(seq).is_some() {
                    continue;
                }
                if self.ledger.last_seq().is_some_and(|last| last >= seq) {
                    return Err(Flaw::Order);
                }
                self.ledger.push(Entry::new(seq, run.consumer_seq + step, NEVER, 1, NOBODY));
            }
        }
        Ok(())
    }

    fn begin(&self, parts: u64, out: &mut Vec<u8>) {
        out.push(VERSION);
        put(out, parts);
        if parts & CONFIG != 0 {
            let json = serde_json::to_vec(&*self.config).expect("numbers, lists and text have a form in JSON");
            put(out, json.len() as u64);
            out.extend_from_slice(&json);
        }
    }

    fn put_numbers(&self, parts: u64, out: &mut Vec<u8>) {
        if parts & DELIVERED != 0 {
            put_pair(self.delivered, out);
            put(out, self.next_seq);
        }
        if parts & FLOOR != 0 {
            put_pair(self.floor, out);
        }
        if parts & RESERVED != 0 {
            put(out, self.reserved);
        }
    }

    fn put_members(&self, out: &mut Vec<u8>) {
        put_pairs(self.members.named().map(|(index, key)| (index.into(), key)), out);
    }

    fn mark(&self) -> Mark {
        Mark { epoch: self.changes.epoch, reserved: self.reserved }
    }

    fn shrink(&mut self) {
        self.ledger.shrink();
        if let Some(requests) = &mut self.requests {
            requests.shrink();
        }
        self.changes.shrink();
        self.queue.shrink_to_fit();
        self.each.shrink_to_fit();
        self.events.shrink_to_fit();
    }
}

fn parts(bytes: &[u8]) -> Result<(u64, Reader<'_>), Flaw> {
    let (version, rest) = bytes.split_first().ok_or(Flaw::Short)?;
    let mut reader = Reader(rest);
    let parts = reader.get()?;
    if *version != VERSION || parts & !ALL != 0 { Err(Flaw::Unknown) } else { Ok((parts, reader)) }
}

fn put_pair(pair: Pair, out: &mut Vec<u8>) {
    put(out, pair.consumer_seq);
    put(out, pair.stream_seq);
}

fn get_pair(reader: &mut Reader<'_>) -> Result<Pair, Flaw> {
    Ok(Pair { consumer_seq: number(reader)?, stream_seq: number(reader)? })
}

fn number(reader: &mut Reader<'_>) -> Result<u64, Flaw> {
    reader.get().and_then(|number| if number > NUMBER_MAX { Err(Flaw::Number) } else { Ok(number) })
}

fn put_list(list: impl Iterator<Item = u64>, len: usize, out: &mut Vec<u8>) {
    put(out, len as u64);
    let mut before = 0;
    for seq in list {
        put(out, seq - before);
        before = seq;
    }
}

fn get_list(reader: &mut Reader<'_>, mut each: impl FnMut(u64)) -> Result<(), Flaw> {
    let mut seq = 0u64;
    for _ in 0..reader.count()? {
        seq = seq.checked_add(reader.get()?).ok_or(Flaw::Number)?;
        each(seq);
    }
    Ok(())
}

fn put_pairs(pairs: impl Iterator<Item = (u64, u64)>, out: &mut Vec<u8>) {
    let pairs: Vec<_> = pairs.collect();
    put(out, pairs.len() as u64);
    let mut before = 0;
    for (seq, value) in pairs {
        put(out, seq - before);
        put(out, value);
        before = seq;
    }
}

fn get_pairs(reader: &mut Reader<'_>, mut each: impl FnMut(u64, u64)) -> Result<(), Flaw> {
    let mut seq = 0u64;
    for _ in 0..reader.count()? {
        seq = seq.checked_add(reader.get()?).ok_or(Flaw::Number)?;
        each(seq, reader.get()?);
    }
    Ok(())
}

fn put_runs(runs: &[Run], out: &mut Vec<u8>) {
    put(out, runs.len() as u64);
    let (mut seq, mut consumer_seq) = (0, 0);
    for run in runs {
        put(out, run.seq - seq);
        put(out, run.len);
        put_signed(out, run.consumer_seq.wrapping_sub(consumer_seq) as i64);
        (seq, consumer_seq) = (run.seq + run.len, run.consumer_seq + run.len);
    }
}

fn get_runs(reader: &mut Reader<'_>) -> Result<Vec<Run>, Flaw> {
    let count = reader.count()?;
    let mut runs = Vec::with_capacity(count);
    let (mut seq, mut consumer_seq) = (0u64, 0u64);
    for _ in 0..count {
        let start = seq.checked_add(reader.get()?).ok_or(Flaw::Number)?;
        let len = reader.get()?;
        let number = consumer_seq.wrapping_add(reader.get_signed()? as u64);
        if len > RUN_MAX || !(1..=NUMBER_MAX).contains(&start) || !(1..=NUMBER_MAX).contains(&number) {
            return Err(Flaw::Number);
        }
        runs.push(Run { seq: start, consumer_seq: number, len });
        (seq, consumer_seq) = (start + len, number + len);
    }
    Ok(runs)
}

fn get_members(reader: &mut Reader<'_>) -> Result<Vec<(u16, u64)>, Flaw> {
    let mut members = Vec::new();
    get_pairs(reader, |index, key| members.push((index, key)))?;
    let small = |(index, key): (u64, u64)| {
        let index = u16::try_from(index).ok().filter(|index| *index != NOBODY && key != 0);
        index.map(|index| (index, key)).ok_or(Flaw::Number)
    };
    members.into_iter().map(small).collect()
}

fn put_owned(owned: &[Owned], out: &mut Vec<u8>) {
    put(out, owned.len() as u64);
    let mut before = 0;
    for Owned { seq, len, owner } in owned {
        put_signed(out, seq.wrapping_sub(before) as i64);
        put(out, *len);
        put(out, (*owner).into());
        before = seq + len;
    }
}

fn get_owned(reader: &mut Reader<'_>) -> Result<Vec<Owned>, Flaw> {
    let count = reader.count()?;
    let mut owned = Vec::with_capacity(count);
    let mut before = 0_u64;
    for _ in 0..count {
        let seq = before.wrapping_add(reader.get_signed()? as u64);
        let len = reader.get()?;
        let owner = u16::try_from(reader.get()?).map_err(|_| Flaw::Number)?;
        if len > RUN_MAX || !(1..=NUMBER_MAX).contains(&seq) {
            return Err(Flaw::Number);
        }
        owned.push(Owned { seq, len, owner });
        before = seq + len;
    }
    Ok(owned)
}
