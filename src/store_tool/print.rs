//! What was found, as text for people.

use std::io::{self, Write};

use super::describe::Place;
use super::inspect::{ConsumerFacts, Inspection, LogFacts, StreamFacts};
use super::verify::Verification;

/// Writes what there is in a store.
pub(super) fn inspection(found: &Inspection, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "store {} in {}", found.store, found.directory)?;
    for oddity in &found.oddities {
        writeln!(out, "! {oddity}")?;
    }
    found.logs.iter().try_for_each(|log| log_facts(log, out))
}

fn log_facts(log: &LogFacts, out: &mut impl Write) -> io::Result<()> {
    let LogFacts { directory, batches, file_bytes, .. } = log;
    writeln!(out, "\n{directory}: {batches} batches, {} segments, files of {file_bytes} bytes", log.segments.len())?;
    if let (Some(batch), Some(time), Some(end)) = (log.last_batch, &log.last_batch_time, log.end) {
        writeln!(out, "  ends at {} behind batch {batch} of {time}", place(end))?;
    }
    for repair in &log.repairs {
        writeln!(out, "  ! {repair}")?;
    }
    if log.senseless_records > 0 {
        writeln!(out, "  ! {} records make no sense", log.senseless_records)?;
    }
    if !log.segments.is_empty() {
        let columns = ["segment", "file", "size", "end", "batches", "records", "messages", "bytes", "live"];
        let [a, b, c, d, e, f, g, h, i] = columns;
        writeln!(out, "  {a:>7}  {b:<16} {c:>9} {d:>9} {e:>8} {f:>9} {g:>9} {h:>10} {i:>10}")?;
    }
    for segment in &log.segments {
        write!(
            out,
            "  {:>7}  {:<16} {:>9} {:>9} {:>8} {:>9} {:>9} {:>10} {:>10}",
            segment.segment,
            segment.file,
            segment.file_bytes,
            segment.end,
            segment.batches,
            segment.records,
            segment.message_records,
            segment.message_bytes,
            segment.live_bytes
        )?;
        if segment.lost_batches > 0 {
            write!(out, "  ! {} batches are damaged", segment.lost_batches)?;
        }
        writeln!(out)?;
    }
    for spare in &log.spare {
        writeln!(out, "    spare  {:<16} {:>9}", spare.file, spare.file_bytes)?;
    }
    for foreign in &log.foreign {
        writeln!(out, "  foreign  {foreign}")?;
    }
    for checkpoint in &log.checkpoints {
        write!(out, "  checkpoint at {}", place(checkpoint.place))?;
        match (checkpoint.problem, checkpoint.replay_from) {
            (Some(problem), _) => writeln!(out, "  ! {problem}")?,
            (None, Some(from)) => writeln!(out, ": {} snapshots, replay from {}", checkpoint.snapshots, place(from))?,
            (None, None) => writeln!(out, ": {} snapshots", checkpoint.snapshots)?,
        }
    }
    log.streams.iter().try_for_each(|stream| stream_facts(stream, out))?;
    for set in &log.sets {
        writeln!(out, "  set {}: {} values, {} bytes", set.incarnation, set.values, set.bytes)?;
    }
    Ok(())
}

fn stream_facts(stream: &StreamFacts, out: &mut impl Write) -> io::Result<()> {
    write!(out, "  stream {}", stream.incarnation)?;
    if let Some(name) = &stream.name {
        write!(out, " ({})", name.escape_debug())?;
    }
    let StreamFacts { first_seq, last_seq, messages, .. } = stream;
    writeln!(
        out,
        ": {messages} messages from {first_seq} to {last_seq}, {} bytes, {} subjects, {} deleted",
        number(stream.bytes),
        number(stream.subjects),
        number(stream.deleted)
    )?;
    if let (Some(first), Some(last)) = (&stream.first_time, &stream.last_time) {
        writeln!(out, "    stored {first} to {last}")?;
    }
    writeln!(out, "    {}", serde_json::to_string(&stream.config)?)?;
    stream.consumers.iter().try_for_each(|consumer| consumer_facts(consumer, out))
}

fn consumer_facts(consumer: &ConsumerFacts, out: &mut impl Write) -> io::Result<()> {
    write!(out, "    consumer {}", consumer.number)?;
    if let Some(name) = &consumer.name {
        write!(out, " ({})", name.escape_debug())?;
    }
    let ConsumerFacts { next_seq, delivered, ack_floor, ack_pending, redelivered, .. } = consumer;
    writeln!(
        out,
        ": next {next_seq}, delivered {} (delivery {}), acknowledged to {} (delivery {}), {ack_pending} unacknowledged, \
         {redelivered} redelivered",
        delivered.stream_seq, delivered.consumer_seq, ack_floor.stream_seq, ack_floor.consumer_seq
    )?;
    writeln!(out, "      {}", serde_json::to_string(&consumer.config)?)
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| number.to_string())
}

fn place(place: Place) -> String {
    format!("{}:{}", place.segment, place.offset)
}

/// Writes whether a store is sound, and what is not.
pub(super) fn verification(found: &Verification, out: &mut impl Write) -> io::Result<()> {
    let mark = |damage: bool| if damage { "damage" } else { "note" };
    for (oddity, damage) in &found.oddities {
        writeln!(out, "{}: {oddity}", mark(*damage))?;
    }
    for log in &found.logs {
        for problem in &log.problems {
            writeln!(out, "{}: {}", mark(problem.is_damage()), log.describe(problem))?;
        }
    }
    let sum = |of: fn(&super::verify::LogVerdict) -> u64| found.logs.iter().map(of).sum::<u64>();
    writeln!(
        out,
        "{}: {} logs, {} segments, {} batches with {} messages, {} bytes read",
        match found.damages() {
            0 => "sound".to_owned(),
            1 => "1 damage".to_owned(),
            count => format!("{count} damages"),
        },
        found.logs.len(),
        sum(|log| log.segments),
        sum(|log| log.batches),
        sum(|log| log.messages),
        sum(|log| log.bytes)
    )
}
