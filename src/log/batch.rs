//! A batch as it lies on disk: its head, and reading it.
//!
//! Everything read here is untrusted: whatever the bytes, the outcome is a value or a [`Flaw`], in time and memory
//! proportional to the bytes that are there.

use std::ops::Range;

use super::entry::{ENTRY_BYTES, RunEntry};
use super::field::{get, i64_at, put, u16_at, u32_at, u64_at};
use super::flaw::{Defect, Flaw};
use super::ids::{BLOCK_BYTES, BatchNo, LogId, Position, SegmentNo, Time};
use super::message::Message;
use super::record::{Record, control_records, messages, records};

/// Bytes of a batch's header.
pub const BATCH_HEAD_BYTES: usize = 128;

/// Most bytes of a batch, padding included: 16 MiB. Whoever fills a batch seals it before it grows beyond.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// The version that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"LBAT";
/// Bits of `flags` that a reader must know. This version has none.
const MUST_KNOW: u16 = 0x00ff;
const CHECKSUM: Range<usize> = 68..72;

/// What the head of a batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The log it belongs to.
    pub log: LogId,
    /// [`super::StoreId::tag`] of the store.
    pub store_tag: u64,
    /// Where it lies.
    pub position: Position,
    /// Its number.
    pub batch: BatchNo,
    /// The last batch that was known to be flushed when this one was written; zero for none.
    pub flushed_upto: BatchNo,
    /// When it was sealed.
    pub time: Time,
    /// The end of the latest complete checkpoint, if there is one.
    pub checkpoint: Option<Position>,
    /// Checksum of the head of the batch before it; zero for the first of a log.
    pub chain: u32,
    /// How many times the log had been opened when it was written. Never decreases along a log.
    pub epoch: u32,
}

/// What a reader expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The log that is read.
    pub log: LogId,
    /// [`super::StoreId::tag`] of its store.
    pub store_tag: u64,
    /// Where the bytes were read.
    pub position: Position,
    /// What follows the batch before, for a reader that goes from batch to batch; `None` takes any batch of that place.
    pub next: Option<Next>,
}

/// What a batch must be to follow another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Its number.
    pub batch: BatchNo,
    /// Checksum of the head before it, which it repeats.
    pub chain: u32,
    /// Epoch of the batch before it; its own is not lower.
    pub epoch: u32,
}

/// A batch whose head and directory have been verified. The content of each run is verified when it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    summary: Summary,
    bytes: &'a [u8],
}

/// A verified head without its directory: with the bytes of the batch, if they are kept unchanged, it is the batch again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub(super) head: Head,
    pub(super) head_crc: u32,
    pub(super) bytes: u32,
    content_end: u32,
    runs: u32,
    entry_bytes: u16,
}

/// Reads a whole batch at the front of `bytes`.
///
/// # Errors
/// A [`Flaw`] if it is not the expected batch, or its head or directory is damaged, or bytes are missing.
pub fn parse<'a>(bytes: &'a [u8], expect: &Expect) -> Result<Batch<'a>, Flaw> {
    let batch = parse_directory(bytes, expect)?;
    if bytes.len() < batch.summary.bytes as usize {
        return Err(short(expect.position, batch.summary.bytes, bytes.len()));
    }
    Ok(batch)
}

/// Reads a batch of which only the header and the directory, and perhaps some runs, are in `bytes`. The content of
/// other runs is [`Defect::Short`].
///
/// # Errors
/// A [`Flaw`] as [`parse`]; [`Defect::Short`] tells how many bytes the header and the directory take.
pub fn parse_directory<'a>(bytes: &'a [u8], expect: &Expect) -> Result<Batch<'a>, Flaw> {
    let at = expect.position.offset();
    let flaw = |defect| Flaw::new(at, defect);
    if bytes.len() < BATCH_HEAD_BYTES {
        return Err(short(expect.position, BATCH_HEAD_BYTES as u32, bytes.len()));
    }
    let magic: [u8; 4] = get(bytes, 0);
    if magic != MAGIC {
        let blank = bytes[..BATCH_HEAD_BYTES].iter().all(|&byte| byte == 0);
        return Err(flaw(if blank { Defect::Blank } else { Defect::Magic(magic) }));
    }
    let (entry_bytes, runs, total) = (u16_at(bytes, 10), u32_at(bytes, 12), u32_at(bytes, 32));
    let directory_end = BATCH_HEAD_BYTES as u64 + u64::from(entry_bytes) * u64::from(runs);
    let whole_blocks = (total as usize).is_multiple_of(BLOCK_BYTES) && total as usize <= BATCH_BYTES_MAX;
    let entries_fit = usize::from(entry_bytes) >= ENTRY_BYTES && directory_end <= total.into();
    if !whole_blocks || !entries_fit || at.checked_add(total).is_none() {
        return Err(flaw(Defect::Field("size of a batch")));
    }
    if (bytes.len() as u64) < directory_end {
        // Only what claims to be of this place is worth reading more for.
        check_place(bytes, expect)?;
        return Err(short(expect.position, directory_end as u32, bytes.len()));
    }
    let directory_end = directory_end as u32;
    let stored = u32_at(bytes, CHECKSUM.start);
    let computed = head_crc(&bytes[..directory_end as usize]);
    if computed != stored {
        return Err(flaw(Defect::HeadChecksum { computed, stored }));
    }
    let version = u16_at(bytes, 4);
    if version != FORMAT_VERSION {
        return Err(flaw(Defect::Version(version)));
    }
    let flags = u16_at(bytes, 6);
    if flags & MUST_KNOW != 0 {
        return Err(flaw(Defect::Flags(flags & MUST_KNOW)));
    }
    check_place(bytes, expect)?;
    let head = Head {
        log: expect.log,
        store_tag: expect.store_tag,
        position: expect.position,
        batch: BatchNo(u64_at(bytes, 24)),
        flushed_upto: BatchNo(u64_at(bytes, 40)),
        time: i64_at(bytes, 48),
        checkpoint: Position::from_bits(u64_at(bytes, 56)),
        chain: u32_at(bytes, 64),
        epoch: u32_at(bytes, 80),
    };
    if head.flushed_upto >= head.batch || head.batch.0 == u64::MAX {
        return Err(flaw(Defect::Field("batch number")));
    }
    if let Some(next) = expect.next {
        if head.epoch < next.epoch {
            return Err(flaw(Defect::Epoch { expected: next.epoch, found: head.epoch }));
        }
        if head.batch != next.batch {
            return Err(flaw(Defect::Batch { expected: next.batch, found: head.batch }));
        }
        if head.chain != next.chain {
            return Err(flaw(Defect::Chain { expected: next.chain, found: head.chain }));
        }
    }
    let content_end = u32_at(bytes, 36);
    if content_end < directory_end || content_end > total {
        return Err(flaw(Defect::Field("end of the content")));
    }
    let summary = Summary { head, head_crc: stored, bytes: total, content_end, runs, entry_bytes };
    let batch = Batch::of(summary, bytes);
    batch.entries().try_for_each(|entry| entry.map(drop))?;
    Ok(batch)
}

/// Whether the bytes claim to be a batch of that place, checksum or not.
pub(super) fn claims_place(bytes: &[u8], expect: &Expect) -> bool {
    bytes.len() >= BATCH_HEAD_BYTES && bytes.starts_with(&MAGIC) && check_place(bytes, expect).is_ok()
}

fn check_place(bytes: &[u8], expect: &Expect) -> Result<(), Flaw> {
    let flaw = |defect| Err(Flaw::new(expect.position.offset(), defect));
    if u64_at(bytes, 72) != expect.store_tag {
        return flaw(Defect::Store);
    }
    let log = LogId(u16_at(bytes, 8));
    if log != expect.log {
        return flaw(Defect::Log(log));
    }
    let position = Position::new(SegmentNo(u32_at(bytes, 16)), u32_at(bytes, 20));
    if position != expect.position {
        return flaw(Defect::Place(position));
    }
    Ok(())
}

fn short(position: Position, needed: u32, there: usize) -> Flaw {
    Flaw::new(position.offset(), Defect::Short { needed, there: u32::try_from(there).unwrap_or(u32::MAX) })
}

/// Checksum of a header and its directory, the field for it taken as zero.
fn head_crc(head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..CHECKSUM.start]);
    hasher.update(&[0; 4]);
    hasher.update(&head[CHECKSUM.end..]);
    hasher.finalize()
}

/// Writes the header of a batch over the front of `out`, which holds its directory already; returns the checksum.
pub(super) fn encode_head(head: &Head, runs: u32, content_end: u32, bytes: u32, out: &mut [u8]) -> u32 {
    out[..BATCH_HEAD_BYTES].fill(0);
    put(out, 0, MAGIC);
    put(out, 4, FORMAT_VERSION.to_le_bytes());
    put(out, 8, head.log.0.to_le_bytes());
    put(out, 10, (ENTRY_BYTES as u16).to_le_bytes());
    put(out, 12, runs.to_le_bytes());
    put(out, 16, head.position.segment().0.to_le_bytes());
    put(out, 20, head.position.offset().to_le_bytes());
    put(out, 24, head.batch.0.to_le_bytes());
    put(out, 32, bytes.to_le_bytes());
    put(out, 36, content_end.to_le_bytes());
    put(out, 40, head.flushed_upto.0.to_le_bytes());
    put(out, 48, head.time.to_le_bytes());
    put(out, 56, head.checkpoint.map_or(0, Position::to_bits).to_le_bytes());
    put(out, 64, head.chain.to_le_bytes());
    put(out, 72, head.store_tag.to_le_bytes());
    put(out, 80, head.epoch.to_le_bytes());
    let crc = head_crc(&out[..BATCH_HEAD_BYTES + runs as usize * ENTRY_BYTES]);
    put(out, CHECKSUM.start, crc.to_le_bytes());
    crc
}

/// Gives a sealed batch another head, for another place; returns the checksum.
///
/// Entries tell places within the batch, so that the directory and the contents stay as they are.
pub(super) fn place_again(head: &Head, image: &mut [u8]) -> u32 {
    let (runs, bytes, content_end) = (u32_at(image, 12), u32_at(image, 32), u32_at(image, 36));
    encode_head(head, runs, content_end, bytes, image)
}

impl<'a> Batch<'a> {
    /// Of bytes whose head and directory have been verified.
    #[must_use]
    pub fn of(summary: Summary, bytes: &'a [u8]) -> Self {
        Self { summary, bytes: &bytes[..bytes.len().min(summary.bytes as usize)] }
    }

    /// What is needed to see it again without verifying it again.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// What its head says.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.summary.head
    }

    /// Checksum of its head, which the next batch repeats as its `chain`.
    #[must_use]
    pub fn head_crc(&self) -> u32 {
        self.summary.head_crc
    }

    /// What the next batch must be.
    #[must_use]
    pub fn next(&self) -> Next {
        self.summary.next()
    }

    /// Bytes it takes on disk: whole blocks.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.summary.bytes
    }

    /// Its runs in their order, which is the order of replay. Runs of later versions that may be skipped are left out.
    pub fn runs(&self) -> impl Iterator<Item = Run<'a>> + use<'a> {
        // The whole directory was checked when the batch was parsed: nothing fails here.
        self.numbered_runs().map(|(_, run)| run)
    }

    /// Its runs with their places in the directory, which [`Batch::run`] takes.
    pub fn numbered_runs(&self) -> impl Iterator<Item = (u32, Run<'a>)> + use<'a> {
        let (bytes, base) = (self.bytes, self.summary.head.position.offset());
        let entries = (0..).zip(self.entries());
        entries.filter_map(move |(place, entry)| Some((place, Run { entry: entry.ok().flatten()?, bytes, base })))
    }

    /// The run at a place of the directory, if there is one and it may not be skipped.
    #[must_use]
    pub fn run(&self, place: u32) -> Option<Run<'a>> {
        let entry = (place < self.summary.runs).then(|| self.entry(place))??.ok().flatten()?;
        Some(Run { entry, bytes: self.bytes, base: self.summary.head.position.offset() })
    }

    /// How many places its directory has.
    #[must_use]
    pub fn places(&self) -> u32 {
        self.summary.runs
    }

    fn entries(&self) -> impl Iterator<Item = Result<Option<RunEntry>, Flaw>> + use<'a> {
        let batch = *self;
        (0..self.summary.runs).map_while(move |place| batch.entry(place))
    }

    /// The entry at a place of the directory.
    fn entry(&self, place: u32) -> Option<Result<Option<RunEntry>, Flaw>> {
        let Summary { head, entry_bytes, runs, content_end, .. } = self.summary;
        let (base, entry_bytes) = (head.position.offset(), usize::from(entry_bytes));
        let contents = (BATCH_HEAD_BYTES + entry_bytes * runs as usize) as u32..content_end;
        let start = BATCH_HEAD_BYTES + place as usize * entry_bytes;
        let entry = self.bytes.get(start..start + entry_bytes)?;
        Some(RunEntry::decode(entry, base + start as u32, base, &contents))
    }
}

impl Summary {
    /// Bytes that the batch takes on disk: whole blocks.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    pub(super) fn next(&self) -> Next {
        Next { batch: self.head.batch.next(), chain: self.head_crc, epoch: self.head.epoch }
    }
}

/// A run of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Its directory entry.
    pub entry: RunEntry,
    bytes: &'a [u8],
    base: u32,
}

impl<'a> Run<'a> {
    /// The verified content.
    ///
    /// # Errors
    /// A [`Flaw`] at its first byte if it is damaged, packed in an unknown way, or not among the bytes that were read.
    pub fn content(&self) -> Result<&'a [u8], Flaw> {
        let entry = &self.entry;
        let flaw = |defect| Err(Flaw::new(entry.offset, defect));
        let start = (entry.offset - self.base) as usize;
        let there = self.bytes.get(start..).unwrap_or_default();
        let Some(content) = there.get(..entry.bytes as usize) else {
            return flaw(Defect::Short { needed: entry.bytes, there: there.len() as u32 });
        };
        let computed = crc32fast::hash(content);
        if computed != entry.content_crc {
            return flaw(Defect::ContentChecksum { computed, stored: entry.content_crc });
        }
        if entry.cipher != 0 {
            return flaw(Defect::Cipher(entry.cipher));
        }
        if entry.codec != 0 {
            return flaw(Defect::Codec(entry.codec));
        }
        Ok(content)
    }

    /// The messages of a run of whole ones.
    ///
    /// # Errors
    /// As [`Run::content`]; each item may be a [`Flaw`] of its own, the last then.
    pub fn messages(&self) -> Result<impl Iterator<Item = Result<Message<'a>, Flaw>> + use<'a>, Flaw> {
        Ok(messages(self.content()?, &self.entry))
    }

    /// The records of a run of messages, parts of one included.
    ///
    /// # Errors
    /// As [`Run::messages`].
    pub fn records(&self) -> Result<impl Iterator<Item = Result<Record<'a>, Flaw>> + use<'a>, Flaw> {
        Ok(records(self.content()?, &self.entry))
    }

    /// The records of a run of another kind.
    ///
    /// # Errors
    /// As [`Run::messages`].
    pub fn control_records(&self) -> Result<impl Iterator<Item = Result<&'a [u8], Flaw>> + use<'a>, Flaw> {
        Ok(control_records(self.content()?, &self.entry))
    }
}
