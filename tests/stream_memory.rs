//! The memory that streams promise to take, measured by counting what is allocated.
//!
//! One test alone: others in the same process would count too.

use std::ops::RangeInclusive;

use leat::log::{Incarnation, Kind, Message, Pending, PlacedRun, Position, SegmentNo, Urgency};
use leat::stream::{Appended, Config, Full, Inbound, Purge, Sink, Stream};
use memory::allocated;

#[path = "../benches/storage/memory.rs"]
mod memory;

/// A log that takes everything.
struct Nowhere;

impl Sink for Nowhere {
    fn message(&mut self, _: u64, message: &Message<'_>) -> Result<Appended, Full> {
        Ok(Appended { after: Pending::NONE, record_bytes: message.payload.len() as u32 + 40 })
    }

    fn batch(&mut self, _: u64, _: &[Message<'_>], _: &mut Vec<u32>) -> Result<Pending, Full> {
        Err(Full)
    }

    fn removal(&mut self, _: &[u8], _: Urgency) -> Result<Pending, Full> {
        Ok(Pending::NONE)
    }

    fn dead(&mut self, _: SegmentNo, _: u64) {}

    fn removed(&mut self, _: RangeInclusive<u64>) {}
}

const MESSAGES: u64 = 5_000_000;
const MIB: usize = 1 << 20;

fn incarnation() -> Incarnation {
    Incarnation::new(1).expect("not zero")
}

/// Publishes `messages` messages in batches of `per_batch`, each of which takes a whole number of blocks of a log with
/// segments of 64 MiB. Returns the bytes that the stream takes.
fn fill(config: Config, messages: u64, per_batch: u64, subject: impl Fn(u64, &mut Vec<u8>)) -> (Stream, usize) {
    const SEGMENT_BYTES: u64 = 64 << 20;
    let before = allocated();
    let mut stream = Stream::new(config, incarnation());
    let (mut text, mut placed, mut offset) = (Vec::with_capacity(64), 0, 4096);
    let batch_bytes = (256 + per_batch * 168).next_multiple_of(4096);
    for nth in 0..messages {
        text.clear();
        subject(nth, &mut text);
        let message = Inbound { subject: &text, payload: &[0; 128], ..Inbound::default() };
        stream.admit(nth as i64, &message, &mut Nowhere).expect("nothing limits it");
        if (nth + 1) % per_batch == 0 || nth + 1 == messages {
            if offset % SEGMENT_BYTES + batch_bytes > SEGMENT_BYTES {
                offset = offset.next_multiple_of(SEGMENT_BYTES) + 4096;
            }
            let segment = SegmentNo((offset / SEGMENT_BYTES) as u32 + 1);
            let run = PlacedRun {
                kind: Kind::Messages,
                stream: incarnation(),
                position: Position::new(segment, (offset % SEGMENT_BYTES) as u32),
                first_seq: placed + 1,
                last_seq: nth + 1,
                first_live: 1,
                first_time: placed as i64,
                last_time: nth as i64,
                count: (nth + 1 - placed) as u32,
                content_bytes: (nth + 1 - placed) as u32 * 168,
                moved_from: None,
                piece: 0,
            };
            stream.placed(&run, &mut Nowhere);
            (placed, offset) = (nth + 1, offset + batch_bytes);
        }
    }
    assert_eq!(stream.messages(), messages);
    (stream, allocated() - before)
}

#[test]
fn memory_is_as_promised() {
    let one = |_: u64, text: &mut Vec<u8>| text.extend_from_slice(b"orders.created");
    for per_batch in [256, 1] {
        let (_stream, bytes) = fill(Config::default(), MESSAGES, per_batch, one);
        println!("5 M messages on one subject, {per_batch} per batch: {} KiB", bytes / 1024);
        assert!(bytes <= 8 * MIB, "{bytes} bytes for {per_batch} messages per batch");
    }

    const SUBJECTS: u64 = 1_000_000;
    let many = |nth: u64, text: &mut Vec<u8>| {
        text.extend_from_slice(format!("orders.{:07}.created", nth % SUBJECTS).as_bytes())
    };
    let (mut stream, bytes) = fill(Config::default(), MESSAGES, 256, many);
    println!(
        "5 M messages on 1 M subjects of 22 bytes: {} KiB, {} bytes per subject",
        bytes / 1024,
        bytes as u64 / SUBJECTS
    );
    assert!(bytes <= 120 * MIB && bytes as u64 / SUBJECTS <= 120, "{bytes} bytes");

    let with_last = Config { max_per_subject: Some(1), ..Config::default() };
    let before = allocated();
    let (kept, bytes) = fill_last(with_last, 2 * SUBJECTS, many);
    println!("the last messages of 1 M subjects: {} KiB, {} bytes per subject", bytes / 1024, bytes as u64 / SUBJECTS);
    assert!(bytes as u64 / SUBJECTS <= 120, "{bytes} bytes");
    drop(kept);
    assert!(allocated() <= before + 4096);

    // What goes gives its memory back.
    let before = allocated();
    stream.purge(&Purge::default(), 0, &mut Nowhere).expect("the log takes it");
    assert!(before - allocated() > 60 * MIB);
}

/// As [`fill`], with limits that take messages away, which are recorded once per batch.
fn fill_last(config: Config, messages: u64, subject: impl Fn(u64, &mut Vec<u8>)) -> (Stream, usize) {
    let before = allocated();
    let mut stream = Stream::new(config, incarnation());
    let mut text = Vec::with_capacity(64);
    for nth in 0..messages {
        text.clear();
        subject(nth, &mut text);
        let message = Inbound { subject: &text, payload: &[0; 128], ..Inbound::default() };
        stream.admit(nth as i64, &message, &mut Nowhere).expect("nothing refuses it");
        if nth % 256 == 255 || nth + 1 == messages {
            let first = nth - nth % 256;
            let position = Position::new(SegmentNo(1 + (nth >> 18) as u32), (nth as u32 & 0x3ffff) / 256 * 45056);
            let run = PlacedRun {
                kind: Kind::Messages,
                stream: incarnation(),
                position,
                first_seq: first + 1,
                last_seq: nth + 1,
                first_live: 1,
                first_time: first as i64,
                last_time: nth as i64,
                count: (nth + 1 - first) as u32,
                content_bytes: (nth + 1 - first) as u32 * 168,
                moved_from: None,
                piece: 0,
            };
            stream.settle(nth as i64, &mut Nowhere);
            stream.placed(&run, &mut Nowhere);
        }
    }
    (stream, allocated() - before)
}
