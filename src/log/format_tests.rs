//! The format's promises: what is written comes back, in order, byte for byte as documented; whatever else is on the
//! disk is named, never believed and never fatal.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use proptest::prelude::*;

use super::aligned::AlignedBuf;
use super::batch::{Batch, Expect, Head, Next, Run, parse, parse_directory};
use super::builder::{BatchBuilder, RECORD_BYTES_MAX, RUN_BYTES};
use super::entry::{Part, RunEntry, Transaction};
use super::flaw::{Defect, Flaw};
use super::fragment::{Assembler, fragments, needs_fragments};
use super::ids::{BatchNo, Incarnation, LogId, Position, SegmentNo};
use super::message::Message;
use super::record::{control_records, records};
use super::run::Kind;
use super::segment::{Seal, SegmentHead, StoreId, StreamSummary};

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

/// What a batch of one message, one removal and a mark is on disk, zeros left out. Whoever has to change this changes
/// the format: stores that exist must stay readable, so there must be a new version.
const GOLDEN: &str = "\
0000  4c424154 01000000 03008000 03000000
0010  07000000 00200000 2a000000 00000000
0020  00100000 60020000 29000000 00000000
0030  00002a36 fe9c9717 00100000 05000000
0040  efbeadde d238b8ed 88776655 44332211
0050  02000000 00000000 00000000 00000000
0080  01000000 02000000 00020000 4a000000
0090  01000000 00000000 06000000 00000000
00a0  09000000 00000000 02000000 00000000
00b0  ee030000 00000000 f1030000 00000000
00e0  00000000 3a25def5 00000000 00000000
0100  04000000 01000000 50020000 07000000
0110  02000000 00000000 00000000 00000000
0130  00002a36 fe9c9717 00002a36 fe9c9717
0160  00000000 3b11fd2d 00000000 00000000
0180  0a000000 01000000 58020000 05000000
01b0  00002a36 fe9c9717 00002a36 fe9c9717
01e0  00000000 7798b0ab 00000000 00000000
0200  0f00000a 070c0508 07060504 0302011f
0210  1e1d1c1b 1a191817 16151413 1211106f
0220  72646572 732e6e65 77726570 6c792e31
0230  4b65793a 2076616c 75650d0a 68656c6c
0240  6f100306 05776f72 6c640000 00000000
0250  06050600 02a70200 0473746f 70000000
";

/// The head of a segment likewise.
const GOLDEN_HEAD: &str = "\
0000  4c454154 53454731 01000000 01000000
0010  30313233 34353637 38396162 63646566
0020  06000000 00000000 00001000 00000000
0030  09000000 00000000 05000000 00300000
0040  f9ffffff ffffffff 04000000 02000000
0ff0  00000000 00000000 00000000 b39b59c7
";

#[test]
fn the_bytes_are_those_of_version_1() {
    let mut builder = BatchBuilder::default();
    let mut buffer = AlignedBuf::new();
    let full = Message {
        reply: b"reply.1",
        headers: b"Key: value\r\n",
        expires: Some(0x0102_0304_0506_0708),
        id: Some(0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f),
        ..message(6, b"hello")
    };
    builder.message(stream(1), 2, &full);
    builder.message(stream(1), 2, &message(9, b"world"));
    builder.control(Some(stream(2)), Kind::Removal, &[5, 6, 0, 2, 0xa7, 2]);
    builder.control(None, Kind::Mark, b"stop");
    builder.seal(&head(), &mut buffer);
    assert_eq!(dump(&buffer), GOLDEN, "\n{}", dump(&buffer));
}

/// Lines of 16 bytes, but for those of zeros.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, line) in bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|&byte| byte != 0)) {
        let hex = |word: &[u8]| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let words: Vec<_> = line.chunks(4).map(hex).collect();
        text.push_str(&format!("{:04x}  {}\n", index * 16, words.join(" ")));
    }
    text
}

/// Makes the checksums right again after bytes of a batch were changed.
fn mend(bytes: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
    let entry_bytes = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let end = entry_bytes.saturating_mul(word(bytes, 12)).saturating_add(128);
    if entry_bytes < 128 || end > bytes.len() {
        return;
    }
    for entry in (128..end).step_by(entry_bytes) {
        let start = word(bytes, entry + 8);
        if let Some(content) = bytes.get(start..start.saturating_add(word(bytes, entry + 12))) {
            let crc = crc32fast::hash(content);
            bytes[entry + 100..entry + 104].copy_from_slice(&crc.to_le_bytes());
        }
    }
    bytes[68..72].fill(0);
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[68..72].copy_from_slice(&crc.to_le_bytes());
}

/// A batch of stream 1's message 1, a face's state, and stream 1's message 2.
fn three_runs() -> AlignedBuf {
    let mut builder = BatchBuilder::default();
    let mut buffer = AlignedBuf::new();
    builder.message(stream(1), 1, &message(1, b"one"));
    builder.control(Some(stream(1)), Kind::Face, b"later");
    builder.message(stream(1), 1, &message(2, b"two"));
    builder.seal(&head(), &mut buffer);
    buffer
}

#[test]
fn what_later_versions_add_is_skipped_or_refused_by_name() {
    let defect = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = three_runs();
        change(&mut bytes);
        mend(&mut bytes);
        parse(&bytes, &expect(&head())).map(|batch| batch.runs().count()).map_err(|flaw| (flaw.offset, flaw.defect))
    };
    let second = 8192 + 256;
    assert_eq!(defect(&|_| ()), Ok(3));
    assert_eq!(defect(&|b| (b[256], b[257]) = (200, 0x80)), Ok(2), "an unknown kind that may be skipped");
    assert_eq!(defect(&|b| b[257] = 0x90), Ok(2), "an unknown flag of a run that may be skipped");
    assert_eq!(defect(&|b| b[257] = 0x80), Ok(3), "a known run is not skipped");
    assert_eq!(defect(&|b| b[256] = 200), Err((second, Defect::Kind(200))));
    assert_eq!(defect(&|b| b[257] = 0x10), Err((second, Defect::Flags(0x10))));
    assert_eq!(defect(&|b| b[7] = 1), Ok(3), "flags of the head that need not be known");
    assert_eq!(defect(&|b| b[6] = 1), Err((8192, Defect::Flags(1))));
    assert_eq!(defect(&|b| b[4] = 2), Err((8192, Defect::Version(2))));
    assert_eq!(defect(&|b| b[127] = 1), Ok(3), "reserved bytes of the head");
    assert_eq!(defect(&|b| b[255] = 1), Ok(3), "reserved bytes of an entry");
    assert!(Defect::Version(2).is_unknown() && !Defect::Blank.is_unknown());
}

#[test]
fn kinds_are_the_numbers_on_disk() {
    let known: Vec<_> =
        (0..=255).filter(|&number| Kind::from_number(number).is_some_and(|k| k as u8 == number)).collect();
    assert!(known.into_iter().eq(1..=11));
    assert!((12..=255).chain([0]).all(|number| Kind::from_number(number).is_none()));
}

#[test]
fn the_number_of_records_is_that_of_the_entry() {
    for count in [0, 2] {
        let mut bytes = three_runs();
        bytes[256 + 4] = count;
        mend(&mut bytes);
        let batch = parse(&bytes, &expect(&head())).expect("sound");
        let second = batch.runs().nth(1).expect("three runs");
        let last = second.control_records().expect("sound").last().expect("some");
        assert_eq!(last.map_err(|flaw| flaw.defect), Err(Defect::Record), "one record, not {count}");
    }
    let mut bytes = three_runs();
    bytes[128 + 4] = 2;
    bytes[128 + 32] = 2;
    mend(&mut bytes);
    let batch = parse(&bytes, &expect(&head())).expect("sound");
    let run = batch.runs().next().expect("three runs");
    let read: Vec<_> = run.messages().expect("sound").map(|m| m.map(|m| m.seq).map_err(|flaw| flaw.defect)).collect();
    assert_eq!(read, [Ok(1), Err(Defect::Order)]);
}

#[test]
fn packed_or_encrypted_content_is_refused_by_name_and_the_rest_is_read() {
    for (at, named) in [(258, Defect::Codec(1)), (259, Defect::Cipher(1))] {
        let mut bytes = three_runs();
        bytes[at] = 1;
        mend(&mut bytes);
        let batch = parse(&bytes, &expect(&head())).expect("sound");
        let outcomes: Vec<_> = batch.runs().map(|run| run.content().map(drop).map_err(|flaw| flaw.defect)).collect();
        assert_eq!(outcomes, [Ok(()), Err(named), Ok(())]);
    }
}

#[test]
fn longer_entries_and_extended_records_are_read_by_those_who_know_less() {
    let mut builder = BatchBuilder::default();
    let mut buffer = AlignedBuf::new();
    builder.message(stream(1), 1, &message(1, b"one"));
    builder.seal(&head(), &mut buffer);
    let mut bytes = buffer[..256].to_vec();
    bytes.extend_from_slice(&[0xaa; 8]);
    bytes[10] = 136;
    // Flags with the extension's bit, sequence number, time, bytes of subject and payload, extension.
    let record = [&[0x40, 0, 0, 10, 3, 4][..], b"????", b"orders.new", b"one"].concat();
    bytes[128 + 8..128 + 12].copy_from_slice(&264_u32.to_le_bytes());
    bytes[128 + 12..128 + 16].copy_from_slice(&(record.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&record);
    bytes[36..40].copy_from_slice(&(264 + record.len() as u32).to_le_bytes());
    bytes.resize(4096, 0);
    mend(&mut bytes);
    let batch = parse(&bytes, &expect(&head())).expect("sound");
    let run = batch.runs().next().expect("one run");
    let read: Vec<_> = run.messages().expect("sound").collect();
    assert_eq!(read, [Ok(message(1, b"one"))]);

    bytes[264] = 0x80;
    mend(&mut bytes);
    let batch = parse(&bytes, &expect(&head())).expect("sound");
    let run = batch.runs().next().expect("one run");
    let read: Vec<_> = run.messages().expect("sound").collect();
    assert_eq!(read, [Err(Flaw::new(8192 + 264, Defect::Flags(0x80)))]);
}

#[test]
fn a_batch_that_is_not_the_expected_one_is_named() {
    let bytes = three_runs();
    let of = head();
    let here = expect(&of);
    let next = Next { batch: of.batch, chain: of.chain, epoch: of.epoch };
    let defect = |expect: Expect| parse(&bytes, &expect).map(drop).map_err(|flaw| flaw.defect);
    let after = |next| Expect { next: Some(next), ..here };
    assert_eq!(defect(after(next)), Ok(()));
    assert_eq!(defect(after(Next { epoch: 1, ..next })), Ok(()), "the log was opened again");
    assert_eq!(defect(after(Next { epoch: 3, ..next })), Err(Defect::Epoch { expected: 3, found: 2 }),);
    assert_eq!(
        defect(after(Next { batch: BatchNo(43), ..next })),
        Err(Defect::Batch { expected: BatchNo(43), found: BatchNo(42) }),
    );
    assert_eq!(defect(after(Next { chain: 1, ..next })), Err(Defect::Chain { expected: 1, found: 0xdead_beef }));
    assert_eq!(defect(Expect { log: LogId(4), ..here }), Err(Defect::Log(LogId(3))));
    assert_eq!(defect(Expect { store_tag: 1, ..here }), Err(Defect::Store));
    let elsewhere = Position::new(SegmentNo(7), 4096);
    assert_eq!(defect(Expect { position: elsewhere, ..here }), Err(Defect::Place(of.position)));
    assert_eq!(parse(&[0; 4096], &here).map(drop), Err(Flaw::new(8192, Defect::Blank)));
    assert_eq!(parse(&[9; 4096], &here).map(drop), Err(Flaw::new(8192, Defect::Magic([9; 4]))));
    assert_eq!(parse(&bytes[..200], &here).map(drop), Err(Flaw::new(8192, Defect::Short { needed: 512, there: 200 })),);
}

#[test]
fn a_damaged_run_is_named_and_the_others_are_read() {
    let mut bytes = three_runs();
    let batch = parse(&bytes, &expect(&head())).expect("sound");
    let second = batch.runs().nth(1).expect("three runs").entry;
    bytes[second.offset as usize - 8192] ^= 1;
    let batch = parse(&bytes, &expect(&head())).expect("the head is sound");
    let outcomes: Vec<_> = batch.runs().map(|run| run.content()).collect();
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    let flaw = outcomes[1].expect_err("damaged");
    assert_eq!(flaw.offset, second.offset);
    assert!(matches!(flaw.defect, Defect::ContentChecksum { .. }));
}

#[test]
fn a_directory_alone_tells_its_runs() {
    let bytes = three_runs();
    let batch = parse_directory(&bytes[..512], &expect(&head())).expect("sound");
    assert_eq!(batch.runs().count(), 3);
    let flaw = batch.runs().next().expect("three runs").content().expect_err("not read");
    assert!(matches!(flaw.defect, Defect::Short { there: 0, .. }));
    assert!(parse(&bytes[..512], &expect(&head())).is_err());
}

#[test]
fn long_runs_are_divided_and_groups_are_closed_by_their_commit() {
    let mut builder = BatchBuilder::default();
    let mut buffer = AlignedBuf::new();
    let payload = [7; 1000];
    for seq in 1..=200 {
        builder.message(stream(1), 1, &message(seq, &payload));
    }
    let sealed = builder.seal(&head(), &mut buffer);
    assert!(sealed.runs.len() > 2 && sealed.runs.iter().all(|run| run.content_bytes as usize <= RUN_BYTES + 1100));
    let batch = parse(&buffer, &expect(&head())).expect("sound");
    let seqs: Vec<_> =
        batch.runs().flat_map(|run| run.messages().expect("sound")).map(|m| m.expect("sound").seq).collect();
    assert!(seqs.into_iter().eq(1..=200));

    let part = |commits| Part { transaction: transaction(42), commits };
    builder.part(stream(1), 1, part(false), &message(1, b"a"));
    builder.part(stream(1), 1, part(true), &message(2, b"b"));
    builder.message(stream(1), 1, &message(3, b"c"));
    let sealed = builder.seal(&head(), &mut buffer);
    assert_eq!(sealed.runs.iter().map(|run| (run.first_seq, run.last_seq)).collect::<Vec<_>>(), [(1, 2), (3, 3)]);
    assert_eq!(sealed.parts, [(0, part(true))]);
}

#[test]
fn moved_messages_share_a_run_if_they_were_born_in_one_segment() {
    let mut builder = BatchBuilder::default();
    let mut buffer = AlignedBuf::new();
    let born = |segment, offset| Position::new(SegmentNo(segment), offset);
    builder.moved(stream(1), born(2, 8192), 1, &message(5, b"a"));
    builder.moved(stream(1), born(2, 4096), 1, &message(7, b"b"));
    builder.moved(stream(1), born(3, 4096), 1, &message(9, b"c"));
    builder.message(stream(1), 4, &message(20, b"d"));
    let runs = builder.seal(&head(), &mut buffer).runs;
    let told: Vec<_> = runs.iter().map(|run| (run.first_seq, run.last_seq, run.moved_from)).collect();
    assert_eq!(told, [(5, 7, Some(born(2, 8192))), (9, 9, Some(born(3, 4096))), (20, 20, None)]);
    assert_eq!(runs[2].first_live, 4);
}

#[test]
fn parts_out_of_turn_are_refused() {
    let payload = vec![1; 2 * RECORD_BYTES_MAX];
    let whole = message(4, &payload);
    let parts: Vec<_> = fragments(&whole).collect();
    assert_eq!(parts.len(), 3);
    let add = |assembler: &mut Assembler, number: u64, index: usize| {
        let mut builder = BatchBuilder::default();
        let mut buffer = AlignedBuf::new();
        builder.fragment(stream(1), 1, None, transaction(number), &parts[index]);
        builder.seal(&head(), &mut buffer);
        let batch = parse(&buffer, &expect(&head())).expect("sound");
        let run = batch.runs().next().expect("one run");
        let record = run.records().expect("sound").next().expect("one record").expect("sound");
        assembler.add(&run.entry, &record).map(|whole| whole.map(|m| m.payload.len())).map_err(|flaw| flaw.defect)
    };
    let mut assembler = Assembler::new(payload.len());
    assert_eq!(add(&mut assembler, 1, 1), Err(Defect::Fragment), "none was begun");
    assert_eq!(add(&mut assembler, 1, 0), Ok(None));
    assert_eq!(add(&mut assembler, 2, 1), Err(Defect::Fragment), "another transaction");
    assert_eq!(add(&mut assembler, 1, 0), Ok(None));
    assert_eq!(add(&mut assembler, 1, 2), Err(Defect::Fragment), "one is missing");
    for (index, outcome) in [Ok(None), Ok(None), Ok(Some(payload.len()))].into_iter().enumerate() {
        assert_eq!(add(&mut assembler, 3, index), outcome);
    }
    let mut small = Assembler::new(payload.len() - 1);
    assert_eq!([0, 1, 2].map(|index| add(&mut small, 3, index)), [Ok(None), Ok(None), Err(Defect::Fragment)]);
}

#[test]
fn the_head_of_a_segment_and_its_seals_come_back() {
    let next = Next { batch: BatchNo(9), chain: 4, epoch: 2 };
    let previous = Some((SegmentNo(5), 12_288));
    let store = StoreId(*b"0123456789abcdef");
    let of =
        SegmentHead { log: LogId(1), store, segment: SegmentNo(6), bytes: 1 << 20, first: next, previous, created: -7 };
    let mut block = AlignedBuf::new();
    of.encode(&mut block);
    assert_eq!(dump(&block), GOLDEN_HEAD, "\n{}", dump(&block));
    assert_eq!(SegmentHead::parse(&block), Ok(of));
    assert_eq!(
        SegmentHead::parse(&block[..100]).map_err(|f| f.defect),
        Err(Defect::Short { needed: 4096, there: 100 })
    );
    assert_eq!(SegmentHead::parse(&[0; 4096]).map_err(|f| f.defect), Err(Defect::Blank));
    for at in 0..4096 {
        block[at] ^= 4;
        assert!(SegmentHead::parse(&block).is_err(), "a flipped bit at {at}");
        block[at] ^= 4;
    }
    block[8] = 2;
    let crc = crc32fast::hash(&block[..4092]);
    block[4092..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(SegmentHead::parse(&block).map_err(|flaw| flaw.defect), Err(Defect::Version(2)));

    let summary = StreamSummary {
        stream: stream(3),
        first_seq: 1,
        last_seq: u64::MAX,
        first_time: i64::MIN,
        last_time: i64::MAX,
        count: 12,
        bytes: 1 << 40,
    };
    let end = Seal::EndOf { segment: SegmentNo(5), offset: 4096, batch: BatchNo(8) };
    for seal in [Seal::Footer(vec![]), Seal::Footer(vec![summary; 3]), end] {
        assert_eq!(Seal::decode(&seal.encode(), 0), Ok(Some(seal)));
    }
    assert_eq!(Seal::decode(&[0x80, 1, 2], 0), Ok(None), "a form that may be skipped");
    assert_eq!(Seal::decode(&[3], 5), Err(Flaw::new(5, Defect::Kind(3))));
    assert_eq!(Seal::decode(&[1, 1], 5), Err(Flaw::new(5, Defect::Record)));
}

/// A record to be appended.
#[derive(Clone, Debug)]
enum Op {
    Message { gap: u64, step: i64, subject: u8, extras: u8, payload: Vec<u8> },
    Control(Kind, Vec<u8>),
}

fn ops() -> impl Strategy<Value = Vec<(u64, Op)>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let op = prop_oneof![
        4 => (1..300_u64, any::<i64>(), 0..3_u8, any::<u8>(), bytes())
            .prop_map(|(gap, step, subject, extras, payload)| Op::Message { gap, step, subject, extras, payload }),
        1 => (prop_oneof![Just(Kind::Consumer), Just(Kind::StreamMeta)], bytes()).prop_map(|(k, b)| Op::Control(k, b)),
    ];
    prop::collection::vec((1..5_u64, op), 0..60)
}

/// Appends all; returns each stream's records in order, as text.
fn append(builder: &mut BatchBuilder, ops: &[(u64, Op)]) -> BTreeMap<u64, Vec<String>> {
    let mut seqs = BTreeMap::new();
    let mut model: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (number, op) in ops {
        let told = match op {
            Op::Message { gap, step, subject, extras, payload } => {
                let seq = seqs.entry(*number).or_insert(0_u64);
                *seq += gap;
                let optional = |bit: u8| if extras & bit != 0 { &payload[..] } else { &[] };
                let m = Message {
                    seq: *seq,
                    time: *step,
                    subject: &[*subject; 3],
                    reply: optional(1),
                    headers: optional(2),
                    payload,
                    expires: (extras & 4 != 0).then_some(*step),
                    id: (extras & 8 != 0).then_some(u128::from(*gap) << 90),
                };
                builder.message(stream(*number), 1, &m);
                format!("{m:?}")
            }
            Op::Control(kind, content) => {
                builder.control(Some(stream(*number)), *kind, content);
                format!("{kind:?} {content:?}")
            }
        };
        model.entry(*number).or_default().push(told);
    }
    model
}

/// Reads everything there is; flaws end what they are in.
fn read_all(batch: &Batch<'_>) -> BTreeMap<u64, Vec<String>> {
    let mut read: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for run in batch.runs() {
        let of = read.entry(run.entry.stream.map_or(0, Incarnation::get)).or_default();
        if run.entry.kind == Kind::Messages {
            let Ok(messages) = run.messages() else { continue };
            of.extend(messages.flatten().map(|m| format!("{m:?}")));
        } else {
            let Ok(records) = run.control_records() else { continue };
            of.extend(records.flatten().map(|record| format!("{:?} {record:?}", run.entry.kind)));
        }
    }
    read
}

proptest! {
    #[test]
    fn every_streams_records_come_back_in_order(first in ops(), second in ops()) {
        let mut builder = BatchBuilder::default();
        let mut buffer = AlignedBuf::new();
        for ops in [first, second] {
            let model = append(&mut builder, &ops);
            let bytes = builder.bytes();
            prop_assert!(ops.is_empty() || bytes <= builder.bytes_with(0));
            let sealed = builder.seal(&head(), &mut buffer);
            prop_assert_eq!((sealed.bytes as usize, buffer.len()), (bytes, bytes));
            let batch = parse(&buffer, &expect(&head())).expect("sound");
            prop_assert_eq!(read_all(&batch), model);
            let placed: Vec<_> = batch.runs().filter_map(|run| run.entry.placed(head().position)).collect();
            prop_assert_eq!(placed, sealed.runs);
        }
    }

    #[test]
    fn changed_bytes_are_noticed(ops in ops(), at in any::<prop::sample::Index>(), bits in 1..=255_u8) {
        let mut builder = BatchBuilder::default();
        let mut buffer = AlignedBuf::new();
        let model = append(&mut builder, &ops);
        builder.seal(&head(), &mut buffer);
        let at = at.index(buffer.len());
        buffer[at] ^= bits;
        match parse(&buffer, &expect(&head())) {
            Err(flaw) => prop_assert!(at < 128 || at < 128 * (1 + ops.len()), "{} at {}", flaw, at),
            Ok(batch) => {
                let damaged: Vec<_> = batch.runs().filter(|run| run.content().is_err()).collect();
                let inside = |run: &&Run<'_>| {
                    let start = run.entry.offset as usize - 8192;
                    (start..start + run.entry.bytes as usize).contains(&at)
                };
                prop_assert_eq!(damaged.iter().filter(inside).count(), damaged.len());
                if damaged.is_empty() {
                    prop_assert_eq!(read_all(&batch), model);
                }
            }
        }
    }

    /// Under right checksums: what an attacker, or a mistake of another version, could write.
    #[test]
    fn lies_under_right_checksums_do_no_harm(
        ops in ops(),
        lies in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        length in any::<prop::sample::Index>(),
    ) {
        let mut builder = BatchBuilder::default();
        let mut buffer = AlignedBuf::new();
        append(&mut builder, &ops);
        builder.seal(&head(), &mut buffer);
        let used = buffer.len() - buffer.iter().rev().take_while(|&&byte| byte == 0).count();
        for (at, byte) in lies {
            let at = at.index(used);
            buffer[at] = byte;
        }
        mend(&mut buffer);
        for bytes in [&buffer[..], &buffer[..length.index(buffer.len())]] {
            if let Ok(batch) = parse_directory(bytes, &expect(&head())) {
                let mut assembler = Assembler::new(1 << 20);
                for run in batch.runs() {
                    let Ok(records) = run.records() else { continue };
                    for record in records.flatten() {
                        let _ = assembler.add(&run.entry, &record);
                    }
                }
                let records: usize = read_all(&batch).values().map(Vec::len).sum();
                prop_assert!(records <= bytes.len() * 2);
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_without_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse_directory(&bytes, &expect(&head()));
        let _ = (Seal::decode(&bytes, 0), SegmentHead::parse(&bytes));
        let entry = three_run_entry(bytes.len());
        let _ = (records(&bytes, &entry).count(), control_records(&bytes, &entry).count());
        if bytes.len() >= 128 {
            bytes[..4].copy_from_slice(b"LBAT");
            let _ = parse_directory(&bytes, &expect(&head()));
        }
    }
}

fn three_run_entry(bytes: usize) -> RunEntry {
    let buffer = three_runs();
    let batch = parse(&buffer, &expect(&head())).expect("sound");
    let entry = batch.runs().next().expect("three runs").entry;
    RunEntry { bytes: bytes as u32, count: u32::MAX, last_seq: u64::MAX, ..entry }
}
