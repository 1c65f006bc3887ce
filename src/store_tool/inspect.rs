//! What there is in a store.

use serde::Serialize;

use super::describe::{self, Bytes, Place};
use super::directory::{StoreDirectory, Unusable};
use super::reading::Reading;
use crate::io::layout::{directory_of, file_of};
use crate::log::recover::survey::{FoundCheckpoint, FoundSegment, Survey, survey};
use crate::log::recover::{Files, Repair};
use crate::log::{Depth, Incarnation, Kind, LogId, SegmentNo, Slot, Step, Time};
use crate::store::{ConsumerKey, Store};
use crate::{consumer, stream};

/// A store. Times are RFC 3339.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// Its directory.
    pub directory: String,
    /// Its name, in hexadecimal digits.
    pub store: String,
    /// What is not as it should be around the segments.
    pub oddities: Vec<String>,
    /// Its logs.
    pub logs: Vec<LogFacts>,
}

/// A log.
#[derive(Debug, Serialize)]
pub struct LogFacts {
    /// Its number.
    pub log: u16,
    /// Its directory, in the store's.
    pub directory: String,
    /// Bytes of all its files.
    pub file_bytes: u64,
    /// Batches in its segments.
    pub batches: u64,
    /// The last one.
    pub last_batch: Option<u64>,
    /// When that was written.
    pub last_batch_time: Option<String>,
    /// Where the log ends.
    pub end: Option<Place>,
    /// Its segments in the order of their use.
    pub segments: Vec<SegmentFacts>,
    /// The latest checkpoint and the one before it.
    pub checkpoints: Vec<CheckpointFacts>,
    /// Its streams.
    pub streams: Vec<StreamFacts>,
    /// Sets of values that protocol faces remember.
    pub sets: Vec<SetFacts>,
    /// Files without batches.
    pub spare: Vec<SpareFacts>,
    /// Files that are no segments of this log, or copies of segments.
    pub foreign: Vec<String>,
    /// What opening the log would repair or report.
    pub repairs: Vec<String>,
    /// Records that make no sense; opening the log passes over them.
    pub senseless_records: u64,
}

/// A segment.
#[derive(Debug, Serialize)]
pub struct SegmentFacts {
    /// Its number.
    pub segment: u32,
    /// Its file.
    pub file: String,
    /// Bytes of that.
    pub file_bytes: u32,
    /// Where its batches end, in bytes.
    pub end: u32,
    /// When it was begun.
    pub created: String,
    /// Its first batch.
    pub first_batch: u64,
    /// Batches in it.
    pub batches: u64,
    /// Batches that cannot be read.
    pub lost_batches: u64,
    /// Records in it, of whatever kind.
    pub records: u64,
    /// Those of messages. A message in several parts has as many.
    pub message_records: u64,
    /// Bytes of those.
    pub message_bytes: u64,
    /// Bytes of those that live, as the streams count: single records that were removed may have been guessed.
    pub live_bytes: u64,
    /// Whether it ends with a footer: nothing more is written to it.
    pub sealed: bool,
}

/// A checkpoint.
#[derive(Debug, Serialize)]
pub struct CheckpointFacts {
    /// Where its end is.
    #[serde(flatten)]
    pub place: Place,
    /// From where on the log is replayed behind it.
    pub replay_from: Option<Place>,
    /// Streams and sets in it.
    pub snapshots: u64,
    /// Why it cannot be used.
    pub problem: Option<&'static str>,
}

/// A stream.
#[derive(Debug, Serialize)]
pub struct StreamFacts {
    /// Its number, unique in its log.
    pub incarnation: u64,
    /// Its name, if what its face has stored with it tells one.
    pub name: Option<String>,
    /// What its face has stored with it.
    pub meta: Bytes,
    /// Its configuration.
    pub config: stream::Config,
    /// The first sequence number.
    pub first_seq: u64,
    /// The last sequence number given.
    pub last_seq: u64,
    /// When the first message was stored.
    pub first_time: Option<String>,
    /// When the last number was given.
    pub last_time: Option<String>,
    /// Messages.
    pub messages: u64,
    /// Bytes of them as the stream counts; absent if something that has to be read for it cannot be read.
    pub bytes: Option<u64>,
    /// Subjects; absent as `bytes`.
    pub subjects: Option<u64>,
    /// Numbers between the first and the last whose messages are gone; absent as `bytes`.
    pub deleted: Option<u64>,
    /// Its consumers.
    pub consumers: Vec<ConsumerFacts>,
}

/// A consumer.
#[derive(Debug, Serialize)]
pub struct ConsumerFacts {
    /// Its number, unique in its stream.
    pub number: u32,
    /// Its name, as that of a stream.
    pub name: Option<String>,
    /// What its face has stored with it.
    pub meta: Bytes,
    /// Its configuration.
    pub config: consumer::Config,
    /// The next message to be delivered for the first time has this number or a greater one.
    pub next_seq: u64,
    /// The last delivery.
    pub delivered: PairFacts,
    /// Everything up to here is acknowledged.
    pub ack_floor: PairFacts,
    /// Messages that wait for acknowledgement.
    pub ack_pending: u64,
    /// Messages delivered more than once and not acknowledged.
    pub redelivered: u64,
}

/// A delivery and its message.
#[derive(Debug, Serialize)]
pub struct PairFacts {
    /// Number of the delivery.
    pub consumer_seq: u64,
    /// Number of the message.
    pub stream_seq: u64,
}

/// A set of values.
#[derive(Debug, Serialize)]
pub struct SetFacts {
    /// Its number, unique in its log.
    pub incarnation: u64,
    /// Values in it.
    pub values: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// A spare file.
#[derive(Debug, Serialize)]
pub struct SpareFacts {
    /// Its name.
    pub file: String,
    /// Bytes of it.
    pub file_bytes: u32,
}

/// Looks at a store.
///
/// # Errors
/// When one of its logs cannot be opened.
pub fn inspect(directory: &StoreDirectory) -> Result<Inspection, Unusable> {
    Ok(Inspection {
        directory: directory.path().display().to_string(),
        store: data_encoding::HEXLOWER.encode(&directory.store().0),
        oddities: directory.oddities().iter().map(ToString::to_string).collect(),
        logs: directory.logs().iter().map(|log| inspect_log(directory, *log)).collect::<Result<_, _>>()?,
    })
}

fn inspect_log(directory: &StoreDirectory, log: LogId) -> Result<LogFacts, Unusable> {
    let refused = |refusal| Unusable::Refused(directory.path_of(log), refusal);
    let mut files = directory.files(log, &|_| {});
    let (mut facts, last) =
        survey(&mut files, log, directory.store(), |survey| facts_of_log(log, survey)).map_err(refused)?;
    let slots = files.slots().map_err(|fault| refused(crate::log::recover::Refusal::Unlistable(fault)))?;
    facts.file_bytes = slots.iter().map(|(_, bytes)| bytes).sum();
    let mut reading = Reading::open(files, log, directory.store(), last).map_err(refused)?;
    let store = reading.store();
    let occupied = store.streams().filter_map(|of| store.stream(of)).flat_map(|stream| stream.occupied());
    for (no, bytes) in occupied {
        if let Some(segment) = facts.segments.iter_mut().find(|segment| segment.segment == no.0) {
            segment.live_bytes += bytes;
        }
    }
    let report = reading.report();
    let foreign = |repair: &&Repair| !matches!(repair, Repair::ForeignFile { .. });
    facts.repairs = report.repairs.iter().filter(foreign).map(ToString::to_string).collect();
    facts.senseless_records = report.senseless;
    let streams = reading.store().streams().collect::<Vec<_>>();
    facts.streams = streams.into_iter().filter_map(|of| facts_of_stream(&mut reading, of)).collect();
    facts.sets = reading.store().sets().map(|of| facts_of_set(reading.store(), of)).collect();
    Ok(facts)
}

/// What the files tell by themselves, and when the last batch was written.
fn facts_of_log<F: Files>(log: LogId, survey: &mut Survey<'_, '_, F>) -> (LogFacts, Time) {
    let (mut segments, mut last) = (Vec::new(), None);
    for found in survey.segments() {
        segments.push(facts_of_segment(survey, &found, &mut last));
    }
    let spare = survey.spare().into_iter().map(|(slot, file_bytes)| SpareFacts { file: file_of(slot), file_bytes });
    let foreign = survey.aside().iter().map(|slot| foreign(*slot, survey.repairs()));
    let facts = LogFacts {
        log: log.0,
        directory: directory_of(log),
        file_bytes: 0,
        batches: segments.iter().map(|segment| segment.batches).sum(),
        last_batch: last.map(|(batch, _)| batch),
        last_batch_time: last.map(|(_, time)| describe::time(time)),
        end: survey.end().map(|end| end.position.into()),
        spare: spare.collect(),
        foreign: foreign.collect(),
        segments,
        checkpoints: survey.checkpoints().into_iter().map(facts_of_checkpoint).collect(),
        streams: Vec::new(),
        sets: Vec::new(),
        repairs: Vec::new(),
        senseless_records: 0,
    };
    (facts, last.map_or(0, |(_, time)| time))
}

fn facts_of_segment<F: Files>(
    survey: &mut Survey<'_, '_, F>,
    found: &FoundSegment,
    last: &mut Option<(u64, Time)>,
) -> SegmentFacts {
    let mut facts = SegmentFacts {
        segment: found.head.segment.0,
        file: file_of(found.slot),
        file_bytes: found.file_bytes,
        end: found.end,
        created: describe::time(found.head.created),
        first_batch: found.head.first.batch.0,
        batches: 0,
        lost_batches: 0,
        records: 0,
        message_records: 0,
        message_bytes: 0,
        live_bytes: 0,
        sealed: false,
    };
    let ended = survey.scan(SegmentNo(facts.segment), Depth::Directories, |step| match step {
        Step::Batch(batch) => {
            facts.batches += 1;
            *last = Some((batch.head().batch.0, batch.head().time));
            for run in batch.runs() {
                facts.records += u64::from(run.entry.count);
                facts.sealed |= run.entry.kind == Kind::Seal;
                if run.entry.kind == Kind::Messages {
                    facts.message_records += u64::from(run.entry.count);
                    facts.message_bytes += u64::from(run.entry.bytes);
                }
            }
        }
        // Where the end is not known, nothing may ever have been there.
        Step::Damaged(damage) if found.end_is_known || damage.end < found.end => {
            facts.lost_batches += damage.batches.end().0 + 1 - damage.batches.start().0;
        }
        Step::Damaged(_) | Step::Read { .. } | Step::End(_) => {}
    });
    if !found.end_is_known
        && let Some(ended) = ended
    {
        facts.end = facts.end.min(ended.offset);
    }
    facts
}

fn facts_of_checkpoint(found: FoundCheckpoint) -> CheckpointFacts {
    let content = found.content.as_ref().ok();
    CheckpointFacts {
        place: found.position.into(),
        replay_from: content.and_then(|content| content.floor).map(Place::from),
        snapshots: content.map_or(0, |content| content.snapshots.len() as u64),
        problem: found.content.as_ref().err().copied(),
    }
}

/// A file that is left alone, and why.
fn foreign(slot: Slot, repairs: &[Repair]) -> String {
    let told = repairs.iter().find(|repair| match repair {
        Repair::ForeignFile { slot: of, .. }
        | Repair::UnreadableFile { slot: of, .. }
        | Repair::LateSegment { slot: of, .. }
        | Repair::NewestMissing { slot: of, .. } => *of == slot,
        _ => false,
    });
    told.map_or_else(|| format!("{}: a copy of another segment", file_of(slot)), ToString::to_string)
}

fn facts_of_stream(reading: &mut Reading<'_>, of: Incarnation) -> Option<StreamFacts> {
    let state = reading.state(of);
    let store = reading.store();
    let (stream, meta) = (store.stream(of)?, store.stream_meta(of)?);
    Some(StreamFacts {
        incarnation: of.get(),
        name: describe::name(meta),
        meta: Bytes::of(meta),
        config: stream.config().clone(),
        first_seq: state.map_or(stream.first_seq(), |state| state.first_seq),
        last_seq: stream.last_seq(),
        first_time: state.and_then(|state| state.first_time).map(describe::time),
        last_time: stream.last_time().map(describe::time),
        messages: stream.messages(),
        bytes: state.map(|state| state.bytes),
        subjects: state.map(|state| state.subjects),
        deleted: state.map(|state| state.deleted),
        consumers: store.consumers(of).filter_map(|key| facts_of_consumer(store, key)).collect(),
    })
}

fn facts_of_consumer(store: &Store, key: ConsumerKey) -> Option<ConsumerFacts> {
    let (consumer, meta) = (store.consumer(key)?, store.consumer_meta(key)?);
    let info = consumer.info();
    let pair = |pair: consumer::Pair| PairFacts { consumer_seq: pair.consumer_seq, stream_seq: pair.stream_seq };
    Some(ConsumerFacts {
        number: key.number,
        name: describe::name(meta),
        meta: Bytes::of(meta),
        config: consumer.config().clone(),
        next_seq: consumer.next_seq(),
        delivered: pair(info.delivered),
        ack_floor: pair(info.ack_floor),
        ack_pending: info.num_ack_pending,
        redelivered: info.num_redelivered,
    })
}

fn facts_of_set(store: &Store, of: Incarnation) -> SetFacts {
    let (mut values, mut bytes) = (0, 0);
    for (key, value) in store.values(of) {
        values += 1;
        bytes += (key.len() + value.len()) as u64;
    }
    SetFacts { incarnation: of.get(), values, bytes }
}
