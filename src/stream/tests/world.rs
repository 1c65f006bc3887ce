//! The log of the tests, and everything that can happen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::log::{Detail, Durable, Kind, PlacedRun};

pub(super) const MS: i64 = 1_000_000;
/// As in `expiry.rs`.
const STEP_BITS: u32 = 27;
const SEGMENT_BYTES: u32 = 6 * 4096;
const GRAIN: Grain = Grain { head: 4, head_small: 2, kept_per_subject: 3, entry_log_bytes: 3 * 4096 };
const SUBJECTS: [&str; 6] = ["a", "b", "a.b", "a.c", "b.c.d", "a.b.c"];
const FILTERS: [&str; 8] = [">", "a", "a.*", "*.c.>", "a.>", "x", "*", "a.b"];

#[derive(Clone, Debug)]
pub(super) enum Op {
    Publish {
        subject: usize,
        payload: usize,
        headers: usize,
        id: Option<u8>,
        check: u8,
        expires: u8,
        rollup: u8,
        unwanted: bool,
    },
    Batch {
        subjects: Vec<usize>,
        id: Option<u8>,
    },
    Remove {
        nth: usize,
    },
    Acknowledge {
        nth: usize,
    },
    Purge {
        filter: Option<usize>,
        below: Option<u64>,
        keep: u64,
    },
    Wait {
        ms: u64,
    },
    Close,
    Flush,
    Checkpoint,
    Clean {
        nth: usize,
        cut: usize,
    },
    Crash {
        keep: usize,
        older: bool,
    },
    Update {
        max_messages: Option<u64>,
        max_per_subject: Option<u64>,
    },
    Full(bool),
}

pub(super) fn ops(count: Range<usize>) -> impl Strategy<Value = Vec<Op>> {
    let publish = (0..6_usize, 0..120_usize, prop_oneof![4 => Just(0_usize), 1 => 10..40_usize]).prop_flat_map(
        |(subject, payload, headers)| {
            (prop_oneof![3 => Just(None), 1 => (0..20_u8).prop_map(Some)], 0..12_u8, 0..12_u8, 0..24_u8, 0..12_u8)
                .prop_map(move |(id, check, expires, rollup, unwanted)| Op::Publish {
                    subject,
                    payload,
                    headers,
                    id,
                    check,
                    expires,
                    rollup,
                    unwanted: unwanted == 0,
                })
        },
    );
    let nth = || any::<Index>().prop_map(|index| index.index(1 << 20));
    let op = prop_oneof![
        30 => publish,
        2 => (prop::collection::vec(0..6_usize, 1..5), prop::option::of(0..20_u8))
            .prop_map(|(subjects, id)| Op::Batch { subjects, id }),
        4 => nth().prop_map(|nth| Op::Remove { nth }),
        3 => nth().prop_map(|nth| Op::Acknowledge { nth }),
        2 => (prop::option::of(0..8_usize), prop::option::of(0..60_u64), prop_oneof![2 => Just(0), 1 => 0..5_u64])
            .prop_map(|(filter, below, keep)| Op::Purge { filter, below, keep }),
        4 => (1..1500_u64).prop_map(|ms| Op::Wait { ms }),
        6 => Just(Op::Close),
        8 => Just(Op::Flush),
        2 => Just(Op::Checkpoint),
        4 => (nth(), 1..4_usize).prop_map(|(nth, cut)| Op::Clean { nth, cut }),
        2 => (0..4_usize, any::<bool>()).prop_map(|(keep, older)| Op::Crash { keep, older }),
        1 => (prop::option::of(2..20_u64), prop::option::of(1..8_u64))
            .prop_map(|(max_messages, max_per_subject)| Op::Update { max_messages, max_per_subject }),
        1 => any::<bool>().prop_map(Op::Full),
    ];
    prop::collection::vec(op, count)
}

#[derive(Clone, Debug)]
struct Record {
    seq: u64,
    stored: Stored,
}

type Stored = super::model::Stored;

impl Record {
    fn bytes(&self) -> u32 {
        (self.stored.subject.len() + self.stored.headers + self.stored.payload + 9) as u32
    }
}

#[derive(Clone, Debug)]
struct Run {
    first_live: u64,
    records: Vec<Record>,
    moved_from: Option<Position>,
}

/// A batch: its messages, the runs that cleaning has moved, its control records.
#[derive(Clone, Debug, Default)]
struct Batch {
    messages: Vec<Record>,
    first_live: u64,
    moved: Vec<Run>,
    removals: Vec<Vec<u8>>,
    configs: Vec<Config>,
    /// And the first batch that was not flushed when it was taken: replay begins there.
    snapshot: Option<(Vec<u8>, u64)>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.moved.is_empty()
            && self.removals.is_empty()
            && self.configs.is_empty()
            && self.snapshot.is_none()
    }
}

#[derive(Clone, Debug)]
struct Written {
    no: u64,
    position: Position,
    batch: Batch,
    /// The model when it was closed.
    model: Model,
    /// It ends a turn: what limits demanded is recorded too.
    ends_turn: bool,
}

/// The sink: the open batch and what the stream tells.
#[derive(Default)]
struct Log {
    open: Batch,
    open_no: u64,
    is_full: bool,
    /// Nothing at all is taken any more.
    reserve_is_full: bool,
    is_memory: bool,
    is_replaying: bool,
    /// Messages of a stream in memory.
    memory: BTreeMap<u64, Record>,
    /// Bytes of messages in each segment, and those of them that are dead.
    segments: BTreeMap<SegmentNo, (u64, u64)>,
    removed: BTreeSet<u64>,
    expired: Vec<(Vec<u8>, u64)>,
}

impl Sink for Log {
    fn message(&mut self, first_live: u64, m: &Message<'_>) -> Result<Appended, Full> {
        if self.is_full {
            return Err(Full);
        }
        let stored = Stored {
            time: m.time,
            subject: m.subject.to_vec(),
            headers: m.headers.len(),
            payload: m.payload.len(),
            expires: m.expires,
            id: m.id,
        };
        let record = Record { seq: m.seq, stored };
        let record_bytes = record.bytes();
        if self.is_memory {
            self.memory.insert(m.seq, record);
            return Ok(Appended { after: Pending::NONE, record_bytes });
        }
        self.open.messages.push(record);
        self.open.first_live = first_live;
        Ok(Appended { after: Pending::nth(self.open_no), record_bytes })
    }

    fn batch(&mut self, first: u64, messages: &[Message<'_>], record_bytes: &mut Vec<u32>) -> Result<Pending, Full> {
        let mut after = Pending::NONE;
        for message in messages {
            let appended = self.message(first, message)?;
            record_bytes.push(appended.record_bytes);
            after = appended.after;
        }
        Ok(after)
    }

    fn removal(&mut self, content: &[u8], _: Urgency) -> Result<Pending, Full> {
        assert!(!self.is_memory);
        if self.reserve_is_full {
            return Err(Full);
        }
        self.open.removals.push(content.to_vec());
        Ok(Pending::nth(self.open_no))
    }

    fn dead(&mut self, segment: SegmentNo, bytes: u64) {
        if self.is_replaying {
            return;
        }
        let (live, dead) = self.segments.get_mut(&segment).expect("a segment in use");
        *dead += bytes;
        assert!(dead <= live, "{dead} of {live} bytes of {segment:?} are dead");
    }

    fn removed(&mut self, seqs: RangeInclusive<u64>) {
        self.removed.extend(seqs);
    }

    fn gone(&mut self, seqs: RangeInclusive<u64>) {
        self.memory.retain(|seq, _| !seqs.contains(seq));
    }

    fn subject_expired(&mut self, subject: &[u8], seq: u64) {
        self.expired.push((subject.to_vec(), seq));
    }
}

pub(super) struct World {
    pub(super) stream: Stream,
    model: Model,
    /// The configuration it was created with.
    first: Config,
    log: Log,
    in_flight: Vec<Written>,
    disk: Vec<Written>,
    flushed: u64,
    position: Position,
    pub(super) now: Time,
    pub(super) expired: Vec<(Vec<u8>, u64)>,
    pub(super) unreadable: Option<RangeInclusive<u64>>,
    steps: u32,
    was_updated: bool,
    /// Batches of complete checkpoints, the latest last, and the first batch that each needs.
    checkpoints: Vec<(u64, u64)>,
}

impl World {
    pub(super) fn new(config: Config) -> Self {
        let mut stream = Stream::new(config.clone(), Incarnation::new(1).unwrap());
        stream.grain = &GRAIN;
        let is_memory = config.is_memory();
        Self {
            stream,
            model: Model::new(config.clone()),
            first: config,
            log: Log { open_no: 1, is_memory, ..Log::default() },
            in_flight: Vec::new(),
            disk: Vec::new(),
            flushed: 0,
            position: Position::new(SegmentNo(1), 4096),
            now: 1_700_000_000_000 * MS,
            expired: Vec::new(),
            unreadable: None,
            steps: 0,
            was_updated: false,
            checkpoints: Vec::new(),
        }
    }

    pub(super) fn run(&mut self, op: &Op) {
        match op {
            Op::Publish { .. } => self.run_publish(op),
            Op::Batch { subjects, id } => self.run_batch(subjects, *id),
            Op::Remove { nth } => {
                let Some(seq) = self.nth(*nth) else { return };

                let is_visible = self.stream.is_visible(seq);
                match self.stream.remove(seq, &mut self.log) {
                    Ok(_) => assert!(is_visible && self.model.messages.remove(&seq).is_some()),
                    Err(refused) => assert!(!is_visible && refused.why == Refusal::NotFound),
                }
            }
            Op::Acknowledge { nth } => {
                let seq = self.nth(*nth).filter(|seq| self.stream.is_visible(*seq));
                let Some(seq) = seq.filter(|_| self.model.config.retention != Retention::Limits) else { return };
                self.stream.acknowledged(seq, &mut self.log);
                self.model.messages.remove(&seq);
            }
            Op::Purge { filter, below, keep } => {
                self.run_purge(filter.map(|nth| FILTERS[nth].as_bytes()), *below, *keep)
            }
            Op::Wait { ms } => self.now += *ms as i64 * MS,
            Op::Close => self.close_batch(),
            Op::Flush => self.flush(),
            Op::Checkpoint => self.checkpoint(),
            Op::Clean { nth, cut } => self.clean(*nth, *cut),
            Op::Crash { keep, older } => self.crash(*keep, *older),
            Op::Update { max_messages, max_per_subject } => {
                // What is due goes first: it may be what a limit would have taken.
                self.settle();
                let config = Config {
                    max_messages: *max_messages,
                    max_per_subject: *max_per_subject,
                    discard_new_per_subject: self.model.config.discard_new_per_subject && max_per_subject.is_some(),
                    ..self.model.config.clone()
                };
                self.model.config.validate_update(&config).unwrap();
                self.stream.update(config.clone(), &mut self.log).unwrap();
                self.log.open.configs.push(config.clone());
                self.model.update(config);
                self.was_updated = true;
            }
            Op::Full(is_full) => self.log.is_full = *is_full,
        }
        self.steps += 1;
        if !self.is_lazy() || self.steps.is_multiple_of(8) || matches!(op, Op::Update { .. }) {
            self.check();
        } else {
            // Accounts may lag behind; what lives does not.
            for seq in self.model.first().min(self.stream.first_seq())..=self.model.last + 1 {
                assert_eq!(self.stream.is_live(seq), self.model.messages.contains_key(&seq), "{seq} after {op:?}");
            }
        }
    }

    /// Whether the stream may be left unsettled for a while: whatever it does later is the same as if done at once.
    fn is_lazy(&self) -> bool {
        let config = &self.model.config;
        !self.was_updated
            && config.max_bytes.is_none()
            && config.max_per_subject.is_none_or(|max| max <= GRAIN.kept_per_subject)
    }

    fn nth(&self, nth: usize) -> Option<u64> {
        let count = self.model.messages.len();
        self.model.messages.keys().nth(nth % count.max(1)).copied()
    }

    fn run_publish(&mut self, op: &Op) {
        let Op::Publish { subject, payload, headers, id, check, expires, rollup, unwanted } = op else { return };
        let near = |number: u64| if *check % 2 == 0 { number } else { number + 1 };
        let filter = FILTERS[(*check as usize + payload) % FILTERS.len()].as_bytes();
        let last_of = self.model.matching(filter).next_back().unwrap_or(0);
        let checks = Checks {
            last_seq: matches!(check, 1 | 2).then(|| near(self.model.last)),
            last_subject_seq: matches!(check, 3..=6).then_some(SubjectSeq { filter, seq: near(last_of) }),
            last_id: (*check == 7).then_some(self.model.last_id).flatten(),
        };
        let (payload, headers) = (vec![0; *payload], vec![0; *headers]);
        let message = Inbound {
            subject: SUBJECTS[*subject].as_bytes(),
            headers: &headers,
            payload: &payload,
            id: id.map(u128::from),
            checks,
            expires: match expires {
                0 => Some(NEVER),
                1 | 2 => Some(self.now + i64::from(*check) * 300 * MS),
                _ => None,
            },
            rollup: match rollup {
                0 => Rollup::Stream,
                1 | 2 => Rollup::Subject,
                _ => Rollup::Nothing,
            },
            // An id that came with a message that was not stored is forgotten in a crash: not to be compared.
            unwanted: *unwanted && id.is_none(),
            ..Inbound::default()
        };
        let _ = self.admit(&message);
    }

    pub(super) fn publish(&mut self, subject: &str) {
        self.admit(&Inbound { subject: subject.as_bytes(), ..Inbound::default() }).unwrap();
        self.check();
    }

    /// Admits a message, in the stream and in the model, and compares the answers.
    pub(super) fn admit(&mut self, message: &Inbound<'_>) -> Result<Admitted, Refused> {
        if !self.is_lazy() {
            self.settle();
        }
        let answer = loop {
            match self.stream.admit(self.now, message, &mut self.log) {
                Err(Refused { why: Refusal::Unsettled, .. }) => self.settle(),
                Err(Refused { why: Refusal::Full, after }) => return Err(Refused { why: Refusal::Full, after }),
                answer => break answer,
            }
        };
        let subject = self.stream.subjects.find(message.subject);
        if answer.is_err_and(|refused| refused.why == Refusal::MaxBytes)
            && subject.is_some_and(|id| !self.stream.subjects.is_listed(id))
        {
            // See `Config::max_per_subject`: the room of the one that would give way is not known.
            return answer;
        }
        let is_known = answer.is_ok_and(|admitted| admitted.duplicate);
        let expected = self.model.admit(self.now, message, is_known);
        assert_eq!(answer.map(|admitted| (admitted.seq, admitted.duplicate)).map_err(|refused| refused.why), expected);
        if let Ok(admitted) = answer
            && !self.model.config.is_memory()
            && !is_known
        {
            assert_eq!(admitted.after, Pending::nth(self.log.open_no));
        }
        answer
    }

    pub(super) fn admit_batch(&mut self, messages: &[Inbound<'_>]) -> Result<Admitted, BatchRefused> {
        self.settle();
        let answer = self.stream.admit_batch(self.now, messages, &mut self.log)?;
        self.model.admit_batch(self.now, messages);
        assert_eq!(answer.seq, self.model.last);
        Ok(answer)
    }

    fn run_batch(&mut self, subjects: &[usize], id: Option<u8>) {
        // Limits that refuse are not comparable one message at a time.
        if self.model.config.discard == Discard::New {
            return;
        }
        let message = |subject: &usize| Inbound { subject: SUBJECTS[*subject].as_bytes(), ..Inbound::default() };
        let mut messages: Vec<_> = subjects.iter().map(message).collect();
        messages[0].id = id.map(u128::from);
        let before = self.snapshot();
        if let Err(refused) = self.admit_batch(&messages) {
            assert!(matches!(refused.refused.why, Refusal::Full | Refusal::DuplicateInBatch { .. }), "{refused:?}");
            assert_eq!(self.snapshot(), before);
        }
    }

    fn run_purge(&mut self, filter: Option<&[u8]>, below: Option<u64>, keep: u64) {
        self.settle();
        let purge = Purge { filter, below, keep };
        let count = loop {
            match self.stream.purge(&purge, self.now, &mut self.log).unwrap() {
                Purged::Done { count, .. } => break count,
                Purged::Needs(block) => self.supply(block),
                Purged::AfterFlush => self.flush_one(),
                Purged::Again => {}
            }
        };
        assert_eq!(count, self.model.purge(filter, below, keep));
    }

    pub(super) fn purge_unchecked(&mut self, below: u64) {
        let purge = Purge { below: Some(below), ..Purge::default() };
        assert!(matches!(self.stream.purge(&purge, self.now, &mut self.log), Ok(Purged::Done { .. })));
        self.settle();
    }

    /// Settles, reading and flushing as it must.
    pub(super) fn settle(&mut self) {
        self.model.expire(self.now, STEP_BITS);
        loop {
            match self.stream.settle(self.now, &mut self.log) {
                Settled::Done => break,
                Settled::Needs(block) => self.supply(block),
                Settled::AfterFlush => self.flush_one(),
                Settled::Again => {}
            }
        }
        self.expired.append(&mut self.log.expired);
    }

    pub(super) fn state(&mut self) -> State {
        self.settle();
        self.check();
        self.stream.state().expect("settled")
    }

    pub(super) fn snapshot(&mut self) -> Vec<u8> {
        self.settle();
        let mut bytes = Vec::new();
        self.stream.snapshot(&mut self.log, &mut bytes).unwrap();
        bytes
    }

    pub(super) fn fill_log(&mut self, is_full: bool) {
        (self.log.is_full, self.log.reserve_is_full) = (is_full, is_full);
    }

    fn supply(&mut self, block: Block) {
        let records = self.read(&block);
        let details: Vec<Detail<'_>> = records
            .iter()
            .filter(|record| self.stream.is_needed(record.seq))
            .filter(|record| self.unreadable.as_ref().is_none_or(|range| !range.contains(&record.seq)))
            .map(|record| Detail {
                seq: record.seq,
                time: record.stored.time,
                subject: &record.stored.subject,
                headers_bytes: record.stored.headers as u32,
                payload_bytes: record.stored.payload as u32,
                record_bytes: record.bytes(),
            })
            .collect();
        assert!(block.from <= block.upto && block.upto <= self.stream.visible(), "{block:?}");
        let lost = self.stream.lost();
        let seqs: Vec<u64> = details.iter().map(|detail| detail.seq).collect();
        self.stream.supply(details, &mut self.log);
        assert!(self.unreadable.is_some() || self.stream.lost() == lost, "{block:?}: only {seqs:?}");
    }

    /// As a reader does: from the position forward within the segment, runs of the range, until its last number.
    fn read(&self, block: &Block) -> Vec<Record> {
        let range = block.from..=block.upto;
        let Some(position) = block.position else {
            return self.log.memory.range(range).map(|(_, record)| record.clone()).collect();
        };
        let mut found = BTreeMap::new();
        let near =
            |written: &&Written| written.position >= position && written.position.segment() == position.segment();
        for written in self.disk.iter().filter(near) {
            let moved = written.batch.moved.iter().flat_map(|run| &run.records);
            for record in written.batch.messages.iter().chain(moved) {
                if range.contains(&record.seq) {
                    found.entry(record.seq).or_insert_with(|| record.clone());
                }
            }
        }
        found.into_values().collect()
    }

    /// The end of a turn: the batch goes to the disk.
    pub(super) fn close_batch(&mut self) {
        self.settle();
        if self.log.open.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.log.open);
        let messages = batch.messages.len() + batch.moved.iter().map(|run| run.records.len()).sum::<usize>();
        let blocks = 1 + messages as u32 / 20;
        if self.position.offset() + blocks * 4096 > SEGMENT_BYTES {
            self.position = Position::new(SegmentNo(self.position.segment().0 + 1), 4096);
        }
        let written = Written {
            no: self.log.open_no,
            position: self.position,
            batch,
            model: self.model.clone(),
            ends_turn: true,
        };
        self.position = Position::new(self.position.segment(), self.position.offset() + blocks * 4096);
        self.in_flight.push(written);
        self.log.open_no += 1;
    }

    fn flush(&mut self) {
        if self.in_flight.is_empty() {
            self.close_batch();
        }
        if !self.in_flight.is_empty() {
            self.flush_one();
        }
    }

    fn flush_one(&mut self) {
        if self.in_flight.is_empty() {
            // What is waited for may lie in the open batch. Closing it settles, so do without.
            assert!(!self.log.open.is_empty(), "waits for a flush, and there is nothing to flush");
            let batch = std::mem::take(&mut self.log.open);
            if self.position.offset() + 2 * 4096 > SEGMENT_BYTES {
                self.position = Position::new(SegmentNo(self.position.segment().0 + 1), 4096);
            }
            self.in_flight.push(Written {
                no: self.log.open_no,
                position: self.position,
                batch,
                model: self.model.clone(),
                ends_turn: false,
            });
            self.position = Position::new(self.position.segment(), self.position.offset() + 2 * 4096);
            self.log.open_no += 1;
        }
        let written = self.in_flight.remove(0);
        self.flushed = written.no;
        for run in runs(&written) {
            let segment = self.log.segments.entry(written.position.segment()).or_default();
            segment.0 += u64::from(run.content_bytes);
            self.stream.placed(&run, &mut self.log);
        }
        self.stream.flushed(&Durable::of_nth(written.no));
        if let Some((_, floor)) = &written.batch.snapshot {
            self.checkpoints.push((written.no, *floor));
        }
        self.disk.push(written);
        self.recycle();
    }

    pub(super) fn flush_all(&mut self) {
        self.close_batch();
        while !self.in_flight.is_empty() {
            self.flush_one();
        }
    }

    fn checkpoint(&mut self) {
        if self.log.open.snapshot.is_some() || self.model.config.is_memory() {
            return;
        }
        let mut bytes = Vec::new();
        self.stream.snapshot(&mut self.log, &mut bytes).unwrap();
        let floor = self.in_flight.first().map_or(self.log.open_no, |written| written.no);
        self.log.open.snapshot = Some((bytes, floor));
    }

    /// The first batch that nothing needs to be kept from: that of the older checkpoint, with what was in flight then.
    fn kept_from(&self) -> u64 {
        match self.checkpoints.len() {
            0 | 1 => 0,
            count => self.checkpoints[count - 2].1,
        }
    }

    /// Segments before the older checkpoint in which nothing is needed any more go.
    fn recycle(&mut self) {
        let (kept_from, current) = (self.kept_from(), self.position.segment());
        let all_flushed = self.in_flight.is_empty() && self.log.open.is_empty();
        let segments: BTreeSet<SegmentNo> = self.disk.iter().map(|written| written.position.segment()).collect();
        for segment in segments.into_iter().filter(|segment| *segment != current) {
            let batches = || self.disk.iter().filter(|written| written.position.segment() == segment);
            let (bytes, dead) = self.log.segments.get(&segment).copied().unwrap_or((0, 0));
            if bytes == dead && all_flushed && batches().all(|written| written.no < kept_from) {
                self.disk.retain(|written| written.position.segment() != segment);
                self.log.segments.remove(&segment);
            }
        }
    }

    /// Writes what is needed of a segment again.
    fn clean(&mut self, nth: usize, cut: usize) {
        let current = self.position.segment();
        let segments: Vec<SegmentNo> =
            self.log.segments.keys().copied().filter(|segment| *segment != current).collect();
        let Some(segment) = segments.get(nth % segments.len().max(1)).copied() else { return };
        let is_moving = |batch: &Batch| !batch.moved.is_empty();
        if is_moving(&self.log.open) || self.in_flight.iter().any(|written| is_moving(&written.batch)) {
            return;
        }
        let mut live: BTreeMap<u64, (Position, Record)> = BTreeMap::new();
        for written in self.disk.iter().filter(|written| written.position.segment() == segment) {
            let original = written.batch.messages.iter().map(|record| (written.position, record));
            let moved = written.batch.moved.iter();
            let moved = moved.flat_map(|run| run.records.iter().map(|record| (run.moved_from.unwrap(), record)));
            for (birth, record) in original.chain(moved) {
                // Only if this is where the stream has it.
                let place = self.stream.index.stretch(record.seq).map(|stretch| stretch.entry.position.segment());
                if self.stream.is_needed(record.seq) && place == Some(segment) {
                    live.insert(record.seq, (birth, record.clone()));
                }
            }
        }
        let mut runs: Vec<Run> = Vec::new();
        for (birth, record) in live.into_values() {
            match runs.last_mut() {
                Some(run) if run.moved_from == Some(birth) && run.records.len() < cut * 3 => run.records.push(record),
                _ => runs.push(Run {
                    first_live: self.stream.first_seq(),
                    records: vec![record],
                    moved_from: Some(birth),
                }),
            }
        }

        self.log.open.moved = runs;
    }

    /// What is not flushed is lost, but for `keep` batches that have reached the disk all the same.
    pub(super) fn crash(&mut self, keep: usize, older: bool) {
        if self.model.config.is_memory() {
            return;
        }
        self.log.is_full = false;
        let kept: Vec<Written> = self.in_flight.drain(..).take(keep).collect();
        for written in &kept {
            let bytes: u64 = runs(written).iter().map(|run| u64::from(run.content_bytes)).sum();
            self.log.segments.entry(written.position.segment()).or_default().0 += bytes;
            if let Some((_, floor)) = &written.batch.snapshot {
                self.checkpoints.push((written.no, *floor));
            }
        }
        self.disk.extend(kept);
        self.log.open = Batch::default();
        self.log.open_no = self.disk.last().map_or(0, |written| written.no) + 1;
        self.model = match self.disk.last() {
            Some(written) => written.model.clone(),
            None => Model::new(self.first.clone()),
        };
        if older && self.checkpoints.len() > 1 {
            // The latest is damaged. Then there is only one until the next.
            self.checkpoints.pop();
            self.checkpoints.drain(..self.checkpoints.len() - 1);
        }
        let checkpoint = self.checkpoints.last().copied();
        let snapshot = checkpoint.and_then(|(no, _)| self.disk.iter().find(|written| written.no == no));
        let (mut stream, from) = match snapshot.and_then(|written| written.batch.snapshot.clone()) {
            Some((bytes, floor)) => (Stream::restore(&bytes, self.stream.incarnation()).unwrap(), floor),
            None => (Stream::new(self.first.clone(), self.stream.incarnation()), 0),
        };
        stream.grain = &GRAIN;

        let mut replaying = Log { is_replaying: true, ..Log::default() };
        for written in self.disk.iter().filter(|written| written.no >= from) {
            for config in &written.batch.configs {
                stream.replay_update(config.clone());
            }
            for content in &written.batch.removals {
                stream.replay_removal(content, &mut replaying).unwrap();
            }
            let mut runs = runs(written).into_iter();
            if !written.batch.messages.is_empty() {
                let run = runs.next().unwrap();
                let messages = written.batch.messages.iter().map(|record| (message_of(record), record.bytes()));
                let messages: Vec<_> = if stream.wants(&run) { messages.collect() } else { Vec::new() };
                stream.replay(&run, messages, &mut replaying);
            }
            for run in runs {
                assert!(!stream.wants(&run));
                stream.replay(&run, [], &mut replaying);
            }
        }
        stream.replayed(&mut replaying);
        self.stream = stream;
        if self.disk.last().is_some_and(|written| !written.ends_turn) {
            self.adopt_survivors();
        }
        // What a log counts when it is opened.
        for (bytes, dead) in self.log.segments.values_mut() {
            *dead = *bytes;
        }
        for (segment, bytes) in self.stream.occupied() {
            let (all, dead) = self.log.segments.get_mut(&segment).expect("a segment in use");
            *dead = all.checked_sub(bytes).expect("not more than there is");
        }
        self.log.removed.clear();
        // The time limits of the meantime.
        self.settle();
        self.check();
    }

    /// A message that a limit had taken is back when the crash came before that was recorded, and the limit may not
    /// want it any more.
    fn adopt_survivors(&mut self) {
        for seq in self.model.messages.keys() {
            assert!(self.stream.is_live(*seq), "{seq}");
        }
        let originals = self.disk.iter().flat_map(|written| &written.batch.messages);
        let moved = self.disk.iter().flat_map(|written| &written.batch.moved).flat_map(|run| &run.records);
        let survivors: Vec<Record> =
            originals.chain(moved).filter(|record| self.stream.is_live(record.seq)).cloned().collect();
        for record in survivors {
            self.model.messages.insert(record.seq, record.stored);
        }
        self.model.update(self.model.config.clone());
    }

    /// Compares everything that can be asked.
    pub(super) fn check(&mut self) {
        self.settle();
        let (stream, model) = (&self.stream, &self.model);
        let state = stream.state().expect("settled");
        assert_eq!(state, model.state(state.after));
        let visible = stream.visible();
        for seq in model.first().saturating_sub(2)..=model.last + 2 {
            let is_live = model.messages.contains_key(&seq);
            assert_eq!(stream.is_visible(seq), is_live && seq <= visible, "{seq}");
            let (next, prev) = (
                model.messages.range(seq..=visible.max(seq)).next(),
                model.messages.range(..=seq.min(visible)).next_back(),
            );
            let next = next.filter(|(seq, _)| **seq <= visible);
            assert_eq!(self.resolve(stream.next(seq)), next.map(|(seq, _)| *seq), "after {seq}");
            assert_eq!(self.resolve(stream.prev(seq)), prev.map(|(seq, _)| *seq), "before {seq}");
            assert_eq!(self.resolve(stream.locate(seq)), (is_live && seq <= visible).then_some(seq));
        }
        let times: BTreeSet<Time> = model.messages.values().flat_map(|stored| [stored.time, stored.time + 1]).collect();
        for time in times.into_iter().chain([0, self.now + 1]) {
            let expected =
                model.messages.range(..=visible).find(|(_, stored)| stored.time >= time).map(|(seq, _)| *seq);
            assert_eq!(self.find_time(time), expected, "at {time}");
        }
        for filter in FILTERS.map(str::as_bytes) {
            let all: Vec<u64> = model.matching(filter).filter(|seq| *seq <= visible).collect();
            assert_eq!(stream.count_matching(filter), Some(model.matching(filter).count() as u64));
            let mut from = 0;
            for expected in all.iter().copied().map(Some).chain([None]) {
                let found = self.find_next(filter, from);
                assert_eq!(found, expected, "{} from {from}", String::from_utf8_lossy(filter));
                from = found.map_or(from, |seq| seq + 1);
            }
            let mut upto = u64::MAX;
            for expected in all.iter().rev().copied().map(Some).chain([None]) {
                let found = self.find_prev(filter, upto);
                assert_eq!(found, expected, "{} up to {upto}", String::from_utf8_lossy(filter));
                upto = found.map_or(upto, |seq| seq - 1);
            }
            let mut seen = BTreeMap::new();
            stream
                .subjects(filter, |subject, count, last| {
                    seen.insert(subject.to_vec(), (count, last));
                    true
                })
                .expect("settled");
            let mut expected: BTreeMap<Vec<u8>, (u64, u64)> = BTreeMap::new();
            for seq in model.matching(filter) {
                let entry = expected.entry(model.messages[&seq].subject.clone()).or_default();
                *entry = (entry.0 + 1, seq);
            }
            assert_eq!(seen, expected);
        }
        assert!(self.log.removed.iter().all(|seq| !model.messages.contains_key(seq)), "consumers were told the truth");
        if model.config.is_memory() {
            assert_eq!(self.log.memory.keys().collect::<Vec<_>>(), model.messages.keys().collect::<Vec<_>>());
        }
        for (segment, (bytes, dead)) in &self.log.segments {
            let occupied: u64 = stream.occupied().filter(|(at, _)| at == segment).map(|(_, bytes)| bytes).sum();
            assert_eq!(bytes - dead, occupied, "{segment:?}");
        }
    }

    /// What is found must be where the stream says.
    fn resolve(&self, lookup: Lookup) -> Option<u64> {
        match lookup {
            Lookup::Found { seq, block } => {
                let found = self.read(&block);
                assert_eq!(found.len(), 1, "{seq} at {block:?}");
                assert_eq!(found[0].stored, self.model.messages[&seq]);
                Some(seq)
            }
            Lookup::None => None,
            Lookup::Read(block) => panic!("nothing to read for: {block:?}"),
        }
    }

    fn find_time(&self, time: Time) -> Option<u64> {
        match self.stream.locate_time(time) {
            Lookup::Read(block) => {
                let mut found = self.read(&block).into_iter().filter(|record| self.stream.is_visible(record.seq));
                match found.find(|record| record.stored.time >= time) {
                    Some(record) => Some(record.seq),
                    None => self.resolve(self.stream.next(block.upto + 1)),
                }
            }
            lookup => self.resolve(lookup),
        }
    }

    fn find_next(&self, filter: &[u8], mut from: u64) -> Option<u64> {
        loop {
            match self.stream.next_match(filter, from) {
                Lookup::Read(block) => {
                    assert!(block.from >= from && block.upto <= self.stream.visible());
                    if let Some(seq) = self.matching_in(filter, &block).next() {
                        return Some(seq);
                    }
                    from = block.upto + 1;
                }
                lookup => return self.resolve(lookup),
            }
        }
    }

    fn find_prev(&self, filter: &[u8], mut upto: u64) -> Option<u64> {
        loop {
            match self.stream.prev_match(filter, upto) {
                Lookup::Read(block) => {
                    assert!(block.upto <= upto);
                    if let Some(seq) = self.matching_in(filter, &block).last() {
                        return Some(seq);
                    }
                    upto = block.from - 1;
                }
                lookup => return self.resolve(lookup),
            }
        }
    }

    fn matching_in<'a>(&'a self, filter: &'a [u8], block: &Block) -> impl Iterator<Item = u64> + 'a {
        let visible = self.read(block).into_iter().filter(|record| self.stream.is_visible(record.seq));
        visible.filter(|record| crate::subject::matches(filter, &record.stored.subject)).map(|record| record.seq)
    }

    pub(super) fn finish(&mut self) {
        self.log.is_full = false;
        self.flush_all();
        self.check();
        self.crash(0, false);
    }
}

fn runs(written: &Written) -> Vec<PlacedRun> {
    let original =
        Run { first_live: written.batch.first_live, records: written.batch.messages.clone(), moved_from: None };
    let original = (!written.batch.messages.is_empty()).then_some(original);
    original
        .iter()
        .chain(&written.batch.moved)
        .map(|run| PlacedRun {
            kind: Kind::Messages,
            stream: Incarnation::new(1).unwrap(),
            position: written.position,
            first_seq: run.records[0].seq,
            last_seq: run.records[run.records.len() - 1].seq,
            first_live: run.first_live,
            first_time: run.records[0].stored.time,
            last_time: run.records[run.records.len() - 1].stored.time,
            count: run.records.len() as u32,
            content_bytes: run.records.iter().map(Record::bytes).sum(),
            moved_from: run.moved_from,
            piece: 0,
        })
        .collect()
}

fn message_of(record: &Record) -> Message<'_> {
    const ZEROS: [u8; 256] = [0; 256];
    Message {
        seq: record.seq,
        time: record.stored.time,
        subject: &record.stored.subject,
        reply: b"",
        headers: &ZEROS[..record.stored.headers],
        payload: &ZEROS[..record.stored.payload],
        expires: record.stored.expires,
        id: record.stored.id,
    }
}
