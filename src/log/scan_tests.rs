//! The scan's promises: it tells the batches that were written and no others; what was flushed and cannot be read is
//! reported as missing; what was not flushed may be cut off, but nothing else.

use bytes::Bytes;
use proptest::prelude::*;

use super::aligned::AlignedBuf;
use super::batch::{Expect, Head, Next, parse};
use super::builder::BatchBuilder;
use super::flaw::Defect;
use super::ids::{BLOCK_BYTES, BatchNo, Incarnation, LogId, Position, SegmentNo};
use super::message::Message;
use super::scan::{AHEAD_BYTES_MAX, Damage, Depth, End, Plan, Proven, Scan, Step, Tail};

const TAG: u64 = 77;
const FIRST: u64 = 10;
const START: u32 = BLOCK_BYTES as u32;

/// A segment that is being written, and where its batches begin.
struct Segment {
    number: SegmentNo,
    bytes: Vec<u8>,
    next: Next,
    at: u32,
    batches: Vec<(u32, u32)>,
}

impl Segment {
    fn new(number: u32, bytes: usize) -> Self {
        let next = Next { batch: BatchNo(FIRST), chain: 5, epoch: 1 };
        Self { number: SegmentNo(number), bytes: vec![0; bytes], next, at: START, batches: Vec::new() }
    }

    /// Writes a batch that holds `blocks` blocks; `unflushed` batches before it were not known to be flushed.
    fn write(&mut self, blocks: usize, unflushed: u64) {
        let mut builder = BatchBuilder::default();
        let mut buffer = AlignedBuf::new();
        let records = blocks.div_ceil(50);
        let payload = vec![self.next.batch.0 as u8; blocks * BLOCK_BYTES - 200 - 200 * records];
        let stream = Incarnation::new(1).expect("not zero");
        for (payload, seq) in payload.chunks(payload.len().div_ceil(records)).zip(self.next.batch.0..) {
            builder.message(stream, 1, &Message { seq, subject: b"s", payload, ..Message::default() });
        }
        let head = Head {
            log: LogId(0),
            store_tag: TAG,
            position: Position::new(self.number, self.at),
            batch: self.next.batch,
            flushed_upto: BatchNo(self.next.batch.0 - 1 - unflushed),
            time: 0,
            checkpoint: None,
            chain: self.next.chain,
            epoch: self.next.epoch,
        };
        let sealed = builder.seal(&head, &mut buffer);
        assert_eq!(sealed.bytes as usize, blocks * BLOCK_BYTES);
        let at = self.at as usize;
        self.bytes[at..at + buffer.len()].copy_from_slice(&buffer);
        self.batches.push((self.at, sealed.bytes));
        self.at += sealed.bytes;
        self.next = Next { batch: self.next.batch.next(), chain: sealed.head_crc, epoch: self.next.epoch };
    }

    fn plan(&self) -> Plan {
        Plan {
            log: LogId(0),
            store_tag: TAG,
            segment: self.number,
            from: START,
            next: Next { batch: BatchNo(FIRST), chain: 5, epoch: 1 },
            end: self.bytes.len() as u32,
            proven: Proven::AtLeast(BatchNo(FIRST - 1)),
            depth: Depth::Contents,
        }
    }

    fn scan(&self) -> Told {
        scan(&self.bytes, &self.plan())
    }

    fn block(&mut self, batch: usize, block: usize) -> &mut [u8] {
        let at = self.batches[batch].0 as usize + block * BLOCK_BYTES;
        &mut self.bytes[at..at + BLOCK_BYTES]
    }
}

#[derive(Debug, PartialEq)]
struct Told {
    batches: Vec<u64>,
    unreadable_runs: Vec<u64>,
    damage: Vec<Damage>,
    end: End,
    bytes_read: usize,
}

impl Told {
    fn tail(&self) -> (u32, u64, Option<Defect>) {
        let flaw = match self.end.tail {
            Tail::Blank => None,
            Tail::Leftover(flaw) | Tail::Torn(flaw) | Tail::Unknown(flaw) => Some(flaw.defect),
            Tail::Unreadable => Some(Defect::Unreadable),
        };
        (self.end.offset, self.end.next.batch.0, flaw)
    }

    fn missing(&self) -> Vec<(u64, u64)> {
        self.damage.iter().map(|damage| (damage.batches.start().0, damage.batches.end().0)).collect()
    }
}

fn scan(bytes: &[u8], plan: &Plan) -> Told {
    scan_with(bytes, plan, &[])
}

/// Scans bytes of which some blocks cannot be read.
fn scan_with(bytes: &[u8], plan: &Plan, bad: &[u32]) -> Told {
    let file = Bytes::copy_from_slice(bytes);
    let mut scan = Scan::new(plan);
    let (mut batches, mut unreadable_runs, mut damage, mut bytes_read) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let end = loop {
        match scan.step() {
            Step::Read { offset, bytes } => {
                assert!(bytes > 0 && bytes % START == 0 && offset % START == 0);
                let end = (offset + bytes).min(file.len() as u32);
                if bad.iter().any(|bad| (offset..end).contains(bad)) {
                    scan.unreadable();
                } else {
                    bytes_read += bytes as usize;
                    scan.supply(file.slice(offset.min(end) as usize..end as usize));
                }
            }
            Step::Batch(batch) => {
                batches.push(batch.head().batch.0);
                if batch.runs().any(|run| run.content().is_err()) {
                    unreadable_runs.push(batch.head().batch.0);
                }
            }
            Step::Damaged(found) => damage.push(found),
            Step::End(end) => break end,
        }
    };
    assert!(matches!(scan.step(), Step::End(again) if again == end), "the end stays");
    Told { batches, unreadable_runs, damage, end, bytes_read }
}

/// Five batches of 1, 2, 3, 1 and 2 blocks, each known to be flushed when the next was written.
fn five() -> Segment {
    let mut segment = Segment::new(3, 1 << 20);
    for blocks in [1, 2, 3, 1, 2] {
        segment.write(blocks, 0);
    }
    segment
}

#[test]
fn a_sound_segment_is_told_wholly() {
    let segment = five();
    let told = segment.scan();
    assert_eq!((told.batches.as_slice(), told.unreadable_runs.len()), (&[10, 11, 12, 13, 14][..], 0));
    assert_eq!((told.damage.len(), told.end.tail, told.end.next), (0, Tail::Blank, segment.next));
    assert_eq!(told.end.offset, segment.at);

    let exact = scan(&segment.bytes, &Plan { end: segment.at, proven: Proven::All(BatchNo(14)), ..segment.plan() });
    assert_eq!((exact.batches, exact.end), (told.batches, told.end), "a segment whose end is known");

    let empty = Segment::new(3, 1 << 20);
    assert_eq!(empty.scan().tail(), (START, FIRST, None));
}

#[test]
fn a_scan_begins_wherever_a_batch_does() {
    let segment = five();
    let at = segment.batches[2].0 as usize;
    let place = Position::new(SegmentNo(3), at as u32);
    let expect = Expect { log: LogId(0), store_tag: TAG, position: place, next: None };
    let third = parse(&segment.bytes[at..], &expect).expect("sound");
    let next = Next { batch: BatchNo(12), chain: third.head().chain, epoch: 1 };
    let told = scan(&segment.bytes, &Plan { from: at as u32, next, ..segment.plan() });
    assert_eq!((told.batches, told.end.next), (vec![12, 13, 14], segment.next));
}

#[test]
fn a_flushed_batch_that_cannot_be_read_is_damage_and_the_rest_is_told() {
    for byte in [0, 0xff] {
        let mut segment = five();
        segment.block(1, 0).fill(byte);
        let told = segment.scan();
        assert_eq!((told.batches.as_slice(), told.missing()), (&[10, 12, 13, 14][..], vec![(11, 11)]));
        assert_eq!((told.damage[0].offset, told.damage[0].end), (segment.batches[1].0, segment.batches[2].0));
        assert_eq!(told.end.next, segment.next);
    }
    let mut segment = five();
    segment.block(1, 0)[50] ^= 1;
    segment.block(2, 0)[50] ^= 1;
    let told = segment.scan();
    assert_eq!((told.batches.as_slice(), told.missing()), (&[10, 13, 14][..], vec![(11, 12)]));
    assert!(matches!(told.damage[0].flaw.defect, Defect::HeadChecksum { .. }));
}

#[test]
fn a_damaged_run_of_a_flushed_batch_is_left_to_its_reader() {
    let mut segment = five();
    segment.block(2, 1)[9] ^= 1;
    let told = segment.scan();
    assert_eq!((told.batches.as_slice(), told.unreadable_runs), (&[10, 11, 12, 13, 14][..], vec![12]));
}

#[test]
fn the_last_batch_is_cut_off_if_it_is_torn() {
    for (block, torn) in [(0, false), (1, true)] {
        let mut segment = five();
        segment.block(4, block).fill(0);
        let told = segment.scan();
        assert_eq!((told.batches.as_slice(), told.damage.len()), (&[10, 11, 12, 13][..], 0));
        assert_eq!((told.end.offset, told.end.next.batch.0), (segment.batches[4].0, 14));
        assert_eq!(matches!(told.end.tail, Tail::Torn(_)), torn, "{:?}", told.end);
    }
    let mut segment = five();
    segment.block(4, 0)[30] ^= 1;
    assert!(matches!(segment.scan().end.tail, Tail::Torn(_)));
}

#[test]
fn what_follows_a_torn_batch_unproven_is_cut_off_with_it() {
    let mut segment = Segment::new(3, 1 << 20);
    for unflushed in [0, 0, 1, 2] {
        segment.write(2, unflushed);
    }
    segment.block(2, 1).fill(7);
    let told = segment.scan();
    assert_eq!((told.batches.as_slice(), told.damage.len(), told.end.next.batch.0), (&[10, 11][..], 0, 12));
    segment.write(1, 1);
    let told = segment.scan();
    assert_eq!((told.batches.as_slice(), told.unreadable_runs), (&[10, 11, 12, 13, 14][..], vec![12]));
}

#[test]
fn a_later_segment_proves_what_this_one_does_not() {
    let mut segment = five();
    segment.block(4, 0).fill(0);
    let all = Plan { end: segment.at, proven: Proven::All(BatchNo(14)), ..segment.plan() };
    let told = scan(&segment.bytes, &all);
    assert_eq!((told.batches.as_slice(), told.missing()), (&[10, 11, 12, 13][..], vec![(14, 14)]));
    assert_eq!((told.end.offset, told.end.next.batch.0), (segment.at, 15));

    let shorter = &segment.bytes[..segment.batches[2].0 as usize + 100];
    let told = scan(shorter, &all);
    assert_eq!((told.batches.as_slice(), told.missing()), (&[10, 11][..], vec![(12, 14)]), "a truncated file");
}

#[test]
fn batches_of_an_earlier_use_of_the_file_are_not_data() {
    let mut earlier = Segment::new(2, 1 << 20);
    for _ in 0..30 {
        earlier.write(1, 0);
    }
    let mut segment = five();
    let at = segment.at as usize;
    segment.bytes[at..].copy_from_slice(&earlier.bytes[at..]);
    let told = segment.scan();
    assert_eq!(told.batches, [10, 11, 12, 13, 14]);
    let (offset, next, defect) = told.tail();
    assert_eq!((offset, next), (segment.at, 15));
    assert!(matches!(defect, Some(Defect::Place(place)) if place.segment() == SegmentNo(2)));
    assert!(matches!(told.end.tail, Tail::Leftover(_)));
}

#[test]
fn what_a_recovery_cut_off_never_comes_back() {
    let mut segment = Segment::new(3, 1 << 20);
    for unflushed in [0, 0, 1, 2, 3] {
        segment.write(1, unflushed);
    }
    segment.block(2, 0).fill(0);
    let cut = segment.scan();
    assert_eq!((cut.batches.as_slice(), cut.end.next.batch.0), (&[10, 11][..], 12));
    let old = segment.bytes.clone();

    segment.at = cut.end.offset;
    segment.next = Next { epoch: 2, ..cut.end.next };
    segment.write(1, 0);
    let told = segment.scan();
    assert_eq!((told.batches.as_slice(), told.end.next), (&[10, 11, 12][..], segment.next));
    assert!(matches!(told.end.tail, Tail::Leftover(flaw) if matches!(flaw.defect, Defect::Epoch { .. })));

    // A lost write lets old bytes show in the midst: batches 13 and 14 of the first epoch.
    for _ in 0..3 {
        segment.write(1, 0);
    }
    let (at, _) = segment.batches[6];
    let lost = at as usize..at as usize + 2 * BLOCK_BYTES;
    segment.bytes[lost.clone()].copy_from_slice(&old[lost]);
    let told = segment.scan();
    assert_eq!((told.batches.as_slice(), told.missing()), (&[10, 11, 12, 15][..], vec![(13, 14)]));
}

#[test]
fn a_number_that_the_skipped_blocks_cannot_account_for_proves_nothing() {
    let mut segment = five();
    let end = (segment.at, segment.next);
    segment.at += 10 * START;
    segment.next.batch = BatchNo(26);
    segment.write(1, 0);
    assert_eq!(segment.scan().tail(), (end.0, 15, None));
    segment.at -= START;
    segment.next.batch = BatchNo(25);
    segment.write(1, 0);
    assert_eq!(segment.scan().missing(), [(15, 24)], "ten batches in ten blocks");
}

#[test]
fn a_batch_of_a_later_version_is_not_taken_for_a_torn_one() {
    let mut segment = five();
    let last = segment.block(4, 0);
    last[4] = 9;
    last[68..72].fill(0);
    let crc = crc32fast::hash(&last[..256]);
    last[68..72].copy_from_slice(&crc.to_le_bytes());
    let told = segment.scan();
    assert!(matches!(told.end.tail, Tail::Unknown(flaw) if flaw.defect == Defect::Version(9)), "{:?}", told.end);
}

#[test]
fn blocks_that_cannot_be_read_are_passed_over_but_never_cut_off() {
    let segment = five();
    let told = scan_with(&segment.bytes, &segment.plan(), &[segment.batches[1].0]);
    assert_eq!((told.batches.as_slice(), told.missing()), (&[10, 12, 13, 14][..], vec![(11, 11)]));
    assert_eq!(told.damage[0].flaw.defect, Defect::Unreadable);
    let told = scan_with(&segment.bytes, &segment.plan(), &[segment.batches[2].0 + START]);
    assert_eq!((told.batches.as_slice(), told.unreadable_runs), (&[10, 11, 12, 13, 14][..], vec![12]));
    for block in [0, 1] {
        let told = scan_with(&segment.bytes, &segment.plan(), &[segment.batches[4].0 + block * START]);
        assert_eq!((told.batches.as_slice(), told.end.tail), (&[10, 11, 12, 13][..], Tail::Unreadable));
    }
}

#[test]
fn contents_are_passed_over_and_small_batches_read_in_large_pieces() {
    let mut large = Segment::new(3, 64 << 20);
    for _ in 0..60 {
        large.write(250, 0);
    }
    let directories = |segment: &Segment| {
        let last = BatchNo(segment.next.batch.0 - 1);
        let proven = Proven::All(last);
        let told = scan(&segment.bytes, &Plan { depth: Depth::Directories, end: segment.at, proven, ..segment.plan() });
        assert_eq!(told.batches.len(), segment.batches.len());
        told
    };
    assert!(directories(&large).bytes_read <= 60 * (32 << 10), "{} bytes", directories(&large).bytes_read);

    let mut small = Segment::new(3, 8 << 20);
    for _ in 0..2_000 {
        small.write(1, 0);
    }
    let told = directories(&small);
    assert!(told.bytes_read <= small.at as usize + AHEAD_BYTES_MAX as usize, "{} bytes", told.bytes_read);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever happens to the blocks of a segment: batches come out as they were written and in order, and each batch
    /// that later ones prove is told or reported.
    #[test]
    fn nothing_is_invented_and_nothing_proven_is_lost_in_silence(
        sizes in prop::collection::vec((1..5_usize, 0..3_u64), 1..20),
        harm in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<u16>()), 0..6),
        shorter in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut segment = Segment::new(3, 512 << 10);
        for (index, &(blocks, unflushed)) in sizes.iter().enumerate() {
            segment.write(blocks, unflushed.min(index as u64));
        }
        let sound = segment.bytes.clone();
        let blocks = sound.len() / BLOCK_BYTES;
        for (at, how, detail) in harm {
            let block = at.index(blocks - 1) * BLOCK_BYTES + BLOCK_BYTES;
            let range = block..block + BLOCK_BYTES;
            match how {
                0 => segment.bytes[range].fill(0),
                1 => segment.bytes[range].fill(detail as u8),
                2 => segment.bytes[block + usize::from(detail) % BLOCK_BYTES] ^= 1 << (detail >> 13),
                _ => {
                    let from = usize::from(detail) % blocks * BLOCK_BYTES;
                    segment.bytes[range].copy_from_slice(&sound[from..from + BLOCK_BYTES]);
                }
            }
        }
        let bytes = match shorter {
            Some(at) => &segment.bytes[..at.index(segment.bytes.len())],
            None => &segment.bytes[..],
        };
        for depth in [Depth::Contents, Depth::Directories] {
            let plan = Plan { depth, ..segment.plan() };
            let (mut next, mut proven) = (FIRST, FIRST - 1);
            let file = Bytes::copy_from_slice(bytes);
            let read = |offset: u32, bytes: u32| {
                let end = (offset as usize + bytes as usize).min(file.len());
                Ok::<_, ()>(file.slice((offset as usize).min(end)..end))
            };
            let mut wrong = None;
            let end = Scan::new(&plan).run(read, |step| match step {
                Step::Batch(batch) => {
                    let index = (batch.head().batch.0 - FIRST) as usize;
                    let (at, length) = segment.batches[index];
                    let head = &sound[at as usize..at as usize + 256];
                    let as_written = batch.head().position.offset() == at
                        && batch.bytes() == length
                        && bytes[at as usize..].starts_with(head)
                        && batch.head().batch.0 == next;
                    wrong = wrong.take().or_else(|| (!as_written).then(|| format!("{:?}", batch.head())));
                    proven = proven.max(batch.head().flushed_upto.0);
                    next = batch.head().batch.0 + 1;
                }
                Step::Damaged(damage) => {
                    let in_order = damage.batches.start().0 == next && !damage.batches.is_empty();
                    wrong = wrong.take().or_else(|| (!in_order).then(|| format!("{damage:?}")));
                    next = damage.batches.end().0 + 1;
                }
                other => wrong = Some(format!("{other:?}")),
            });
            prop_assert_eq!(wrong, None);
            prop_assert_eq!(end.expect("reading never fails").next.batch.0, next);
            // The heads that survived prove these to have been flushed.
            let survivors = segment.batches.iter().enumerate().filter(|(_, (at, length))| {
                let range = *at as usize..*at as usize + 256;
                bytes.len() >= (at + length) as usize && bytes[range.clone()] == sound[range]
            });
            let flushed = survivors.map(|(index, _)| FIRST + index as u64 - 1 - sizes[index].1.min(index as u64)).max();
            prop_assert!(next > flushed.unwrap_or(0), "batches up to {:?} were flushed, told up to {}", flushed, next);
        }
    }
}
