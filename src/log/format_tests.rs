//! The format's promises: what is written comes back, in order, byte for byte as documented; whatever else is on the disk
//! is named, never believed and never fatal.

use std::num::NonZeroU64;

use proptest::prelude::*;

use super::aligned::AlignedBuf;
use super::batch::{Batch, Expect, Head, parse, parse_directory};
use super::builder::{BatchBuilder, RECORD_BYTES_MAX, RUN_BYTES};
use super::entry::{Part, Transaction};
use super::flaw::{Defect, Flaw};
use super::fragment::{Assembler, fragments, needs_fragments};
use super::ids::{BLOCK_BYTES, BatchNo, Incarnation, LogId, Position, SegmentNo};
use super::message::Message;
use super::record::{encode_ranges, ranges};
use super::run::Kind;

fn stream(number: u64) -> Incarnation {
    Incarnation::new(number).expect("not zero")
}

fn transaction(number: u64) -> Transaction {
    Transaction(NonZeroU64::new(number).expect("not zero"))
}

fn head() -> Head {
    Head {
        log: LogId(3),
        store_tag: 0x1122_3344_5566_7788,
        position: Position::new(SegmentNo(7), 8192),
        batch: BatchNo(42),
        flushed_upto: BatchNo(41),
        time: 1_700_000_000_000_000_000,
        checkpoint: Position::from_bits(5 << 32 | 4096),
        chain: 0xdead_beef,
        epoch: 2,
    }
}

fn expect(head: &Head) -> Expect {
    Expect { log: head.log, store_tag: head.store_tag, position: head.position, next: None }
}

fn message(seq: u64, payload: &[u8]) -> Message<'_> {
    Message { seq, time: 1_000 + seq as i64, subject: b"orders.new", payload, ..Message::default() }
}

/// The kind, stream and content of every run, in order: messages by number, control records by their bytes.
fn told(batch: &Batch<'_>) -> Vec<(Kind, u64, Vec<String>)> {
    batch
        .runs()
        .map(|run| {
            let records = if run.entry.kind == Kind::Messages {
                run.messages().expect("sound").map(|m| m.expect("sound").seq.to_string()).collect()
            } else {
                let records = run.control_records().expect("sound");
                records.map(|record| String::from_utf8_lossy(record.expect("sound")).into_owned()).collect()
            };
            (run.entry.kind, run.entry.stream.map_or(0, Incarnation::get), records)
        })
        .collect()
}

#[test]
fn runs_keep_the_order_of_each_streams_records() {
    let mut builder = BatchBuilder::default();
    let mut buffer = AlignedBuf::new();
    builder.message(stream(1), 1, &message(1, b"a"));
    builder.message(stream(2), 1, &message(1, b"b"));
    builder.message(stream(1), 1, &message(2, b"c"));
    builder.control(Some(stream(2)), Kind::Consumer, b"x");
    builder.message(stream(1), 1, &message(5, b"d"));
    builder.control(Some(stream(2)), Kind::Consumer, b"y");
    builder.message(stream(2), 1, &message(2, b"e"));
    builder.control(None, Kind::Mark, b"");
    builder.moved(stream(1), Position::new(SegmentNo(1), 4096), 1, &message(1, b"a"));
    let sealed = builder.seal(&head(), &mut buffer);
    assert!(builder.is_empty());
    let batch = parse(&buffer, &expect(&head())).expect("sound");
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        told(&batch),
        [
            (Kind::Messages, 1, words(&["1", "2", "5"])),
            (Kind::Messages, 2, words(&["1"])),
            (Kind::Consumer, 2, words(&["x", "y"])),
            (Kind::Messages, 2, words(&["2"])),
            (Kind::Mark, 0, words(&[""])),
            (Kind::Messages, 1, words(&["1"])),
        ]
    );
    let placed: Vec<_> = batch.runs().filter_map(|run| run.entry.placed(head().position)).collect();
    assert_eq!(sealed.runs, placed, "what sealing tells is what recovery tells");
    assert_eq!(placed.last().expect("six runs").moved_from, Some(Position::new(SegmentNo(1), 4096)));
    assert_eq!((sealed.bytes as usize, sealed.head_crc), (buffer.len(), batch.head_crc()));
}

#[test]
fn a_large_message_comes_back_from_its_parts() {
    let _ = (transaction(1), Part { transaction: transaction(1), commits: true }, RUN_BYTES, BLOCK_BYTES);
    let headers = vec![b'h'; RECORD_BYTES_MAX + 10];
    let payload = (0..2 * RECORD_BYTES_MAX).map(|n| (n % 251) as u8).collect::<Vec<_>>();
    let whole = Message { headers: &headers, reply: b"inbox", expires: Some(9), id: Some(7), ..message(4, &payload) };
    assert!(needs_fragments(&whole));
    let mut builder = BatchBuilder::default();
    let mut buffer = AlignedBuf::new();
    let mut assembler = Assembler::new(4 << 20);
    let mut came_back = 0;
    for fragment in fragments(&whole) {
        builder.fragment(stream(1), 1, None, transaction(8), &fragment);
        builder.seal(&head(), &mut buffer);
        let batch = parse(&buffer, &expect(&head())).expect("sound");
        let run = batch.runs().next().expect("one run");
        assert_eq!(run.messages().expect("sound").next(), Some(Err(Flaw::new(run.entry.offset, Defect::Fragment))));
        for record in run.records().expect("sound") {
            if let Some(message) = assembler.add(&run.entry, &record.expect("sound")).expect("in order") {
                assert!(message == whole);
                assert!(run.entry.part.expect("a transaction").commits);
                came_back += 1;
            }
        }
    }
    assert_eq!(came_back, 1);
}

proptest! {
    #[test]
    fn removals_come_back(list in prop::collection::vec((any::<u64>(), 0..1000_u64), 0..20)) {
        let list: Vec<_> = list.into_iter().map(|(start, more)| start..=start.saturating_add(more)).collect();
        let mut out = Vec::new();
        encode_ranges(&list, &mut out);
        prop_assert_eq!(ranges(&out, 0).collect::<Result<Vec<_>, _>>().expect("sound"), list);
    }

    #[test]
    fn any_bytes_are_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse_directory(&bytes, &expect(&head()));
        let _ = ranges(&bytes, 0).count();
    }
}
