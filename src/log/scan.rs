//! Walking the batches of a segment.
//!
//! A [`Scan`] asks for bytes and tells what they hold: batches in order, damage in their midst, and where the log
//! ends. It never holds more than a batch or [`AHEAD_BYTES_MAX`], whichever is more, and passes over the contents
//! that nobody wants without reading them.
//!
//! # Where a log ends, and what is damage
//! A crash may leave anything behind the last flush. So what cannot be read is damage only if a batch elsewhere
//! proves, by its `flushed_upto`, that it was flushed; otherwise it is the torn tail of a crash, and the log ends
//! before it. To know, a scan first *surveys* the segment by the heads of its batches. Where the chain of batches
//! breaks off it goes on from block to block until it meets the head of a later one, which must belong to this very
//! place, bear a number that the skipped blocks can account for, and an epoch that is not lower. What remains of an
//! earlier use of the file names another segment; what an earlier recovery has cut off has a lower epoch.
//!
//! A batch that nothing proves to be flushed counts only if all its contents are sound. Of proven batches the contents
//! are left to whoever asks for them: a damaged run does not hide the others.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::batch::{Batch, Expect, Next, Summary, claims_place, parse_directory};
use super::flaw::{Defect, Flaw};
use super::ids::{BLOCK_BYTES, BatchNo, LogId, Position, SegmentNo};

/// Most bytes that are read at once, but for larger batches.
pub const AHEAD_BYTES_MAX: u32 = 4 << 20;
/// What is read first, and again when contents were passed over.
const AHEAD_BYTES_MIN: u32 = 16 << 10;
/// Fewer bytes are not worth passing over: reading on is faster than another read elsewhere.
const PASS_BYTES_MIN: u32 = 256 << 10;
const BLOCK: u32 = BLOCK_BYTES as u32;

/// What is to be scanned.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The log.
    pub log: LogId,
    /// [`super::StoreId::tag`] of its store.
    pub store_tag: u64,
    /// The segment.
    pub segment: SegmentNo,
    /// Byte at which to begin: behind the segment's head, or where a batch begins.
    pub from: u32,
    /// The batch that lies there.
    pub next: Next,
    /// Byte at which the segment ends, as a later one tells or as its file does.
    pub end: u32,
    /// Which batches are known to have been flushed.
    pub proven: Proven,
    /// What to read of each batch.
    pub depth: Depth,
}

/// Which batches of a segment are known to have been flushed before it is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// All of them: a later segment tells the last one, and proves it.
    All(BatchNo),
    /// Those up to one, which may lie before the segment. The segment itself may prove more.
    AtLeast(BatchNo),
}

/// What a scan reads of batches that are proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Headers and directories. The contents of runs may be missing.
    Directories,
    /// Everything.
    Contents,
}

/// What a scan wants or has found.
#[derive(Debug)]
pub enum Step<'a> {
    /// It wants bytes: hand them to [`Scan::supply`]. Both numbers are whole blocks.
    Read {
        /// Byte of the segment.
        offset: u32,
        /// How many.
        bytes: u32,
    },
    /// The next batch.
    Batch(Batch<'a>),
    /// Batches that had been flushed and cannot be read.
    Damaged(Damage),
    /// The end; it is told again if asked again.
    End(End),
}

/// Batches that had been flushed and whose heads cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// First byte that could not be made sense of.
    pub offset: u32,
    /// Where the next batch begins, or the segment ends.
    pub end: u32,
    /// The batches that are missing: at least one.
    pub batches: RangeInclusive<BatchNo>,
    /// What was wrong with the first. A [`Defect::is_unknown`] asks for a refusal rather than a report.
    pub flaw: Flaw,
}

/// Where the batches of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The byte behind the last batch.
    pub offset: u32,
    /// What follows it. Behind damage that reaches to the end only the number means something.
    pub next: Next,
    /// What is there.
    pub tail: Tail,
}

/// What lies behind the last batch of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The end of the segment, or blocks that were never written.
    Blank,
    /// Other bytes: of an earlier use of the file, or cut off by an earlier recovery, or parts of a batch whose first
    /// block did not reach the disk.
    Leftover(Flaw),
    /// The beginning of a batch that did not reach the disk wholly.
    Torn(Flaw),
    /// A batch that this version cannot read, wholly there: not to be cut off, but refused by name.
    Unknown(Flaw),
    /// A block that cannot be read. Whether the log goes on there is not known: it must not be written to.
    Unreadable,
}

/// A walk along the batches of a segment.
#[derive(Debug)]
pub struct Scan {
    plan: Plan,
    phase: Phase,
    proven: BatchNo,
    at: u32,
    next: Next,
    search: Option<Search>,
    window: Bytes,
    window_at: u32,
    ahead: u32,
    asked: Request,
    narrow: bool,
    unreadable: Option<Request>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Survey,
    Walk,
    Ended(End),
}

/// Going on from block to block behind a flaw.
#[derive(Clone, Copy, Debug)]
struct Search {
    flaw: Flaw,
    at: u32,
}

/// Bytes that are wanted: at least `needed`, with what is read ahead `bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Request {
    offset: u32,
    needed: u32,
    bytes: u32,
}

/// What is where the scan stands.
enum Found {
    Missing(Request),
    InOrder(Summary),
    /// The batch behind a flaw.
    Behind(Search, Summary),
    Flawed(Flaw),
    /// The end of the segment, perhaps reached by a search.
    Nothing(Option<Search>),
}

/// What [`Scan::step`] tells, before it borrows.
enum Told {
    Read(Request),
    Batch(Summary),
    Damaged(Damage),
    End(End),
}

impl Scan {
    /// A scan that has read nothing yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let (phase, proven) = match plan.proven {
            Proven::All(last) => (Phase::Walk, last),
            Proven::AtLeast(batch) => (Phase::Survey, batch),
        };
        Self {
            plan: Plan { end: plan.end / BLOCK * BLOCK, ..*plan },
            phase,
            proven,
            at: plan.from,
            next: plan.next,
            search: None,
            window: Bytes::new(),
            window_at: plan.from,
            ahead: AHEAD_BYTES_MIN,
            asked: Request::default(),
            narrow: false,
            unreadable: None,
        }
    }

    /// Goes on to the next thing there is to tell.
    pub fn step(&mut self) -> Step<'_> {
        match self.advance() {
            Told::Read(request) => {
                let passed = request.offset.saturating_sub(self.window_at + self.window.len() as u32);
                let read_on = passed < PASS_BYTES_MIN;
                self.ahead = if read_on { AHEAD_BYTES_MAX.min(self.ahead * 2) } else { AHEAD_BYTES_MIN };
                self.asked = request;
                Step::Read { offset: request.offset, bytes: request.bytes }
            }
            Told::Batch(summary) => {
                let bytes = self.window_from(summary.head.position.offset());
                Step::Batch(Batch::of(summary, bytes))
            }
            Told::Damaged(damage) => Step::Damaged(damage),
            Told::End(end) => Step::End(end),
        }
    }

    /// Gives the bytes that [`Step::Read`] asked for. Fewer mean that the file ends with them.
    pub fn supply(&mut self, bytes: Bytes) {
        let there = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if there < self.asked.bytes {
            self.plan.end = self.plan.end.min(self.asked.offset + there / BLOCK * BLOCK);
        }
        self.window_at = self.asked.offset;
        self.window = bytes;
        self.narrow = false;
    }

    /// Tells that the bytes which [`Step::Read`] asked for cannot be read. The scan then asks for as few as it can do
    /// with, and passes over what remains unreadable.
    pub fn unreadable(&mut self) {
        if self.asked.bytes > self.asked.needed {
            self.narrow = true;
        } else {
            self.unreadable = Some(self.asked);
        }
    }

    /// The last batch that is known to have been flushed, as far as the scan has come.
    #[must_use]
    pub fn proven(&self) -> BatchNo {
        self.proven
    }

    /// Scans a whole segment with a function that reads. `each` is told of batches and damage in order.
    ///
    /// # Errors
    /// That of `read`, which ends the scan.
    pub fn run<E>(
        mut self,
        mut read: impl FnMut(u32, u32) -> Result<Bytes, E>,
        mut each: impl FnMut(Step<'_>),
    ) -> Result<End, E> {
        loop {
            match self.step() {
                Step::Read { offset, bytes } => {
                    let bytes = read(offset, bytes)?;
                    self.supply(bytes);
                }
                Step::End(end) => return Ok(end),
                found => each(found),
            }
        }
    }

    fn advance(&mut self) -> Told {
        loop {
            match self.phase {
                Phase::Survey => {
                    if let Some(request) = self.survey() {
                        return Told::Read(request);
                    }
                }
                Phase::Walk => {
                    if let Some(told) = self.walk() {
                        return told;
                    }
                }
                Phase::Ended(end) => return Told::End(end),
            }
        }
    }

    /// One step of finding out what the segment proves.
    fn survey(&mut self) -> Option<Request> {
        match self.locate() {
            Found::Missing(request) => return Some(request),
            Found::InOrder(summary) | Found::Behind(_, summary) => {
                self.proven = self.proven.max(summary.head.flushed_upto);
                self.pass(&summary);
            }
            Found::Flawed(flaw) => self.search = Some(Search { flaw, at: self.at }),
            Found::Nothing(_) => {
                self.phase = Phase::Walk;
                (self.at, self.next, self.search) = (self.plan.from, self.plan.next, None);
            }
        }
        None
    }

    /// One step of telling what there is.
    fn walk(&mut self) -> Option<Told> {
        match self.locate() {
            Found::Missing(request) => return Some(Told::Read(request)),
            Found::InOrder(summary) => {
                let proven = summary.head.batch <= self.proven;
                if !proven || self.plan.depth == Depth::Contents {
                    match self.whole(&summary) {
                        Err(Some(request)) => return Some(Told::Read(request)),
                        Err(None) if !proven => return Some(self.end(Tail::Unreadable)),
                        Ok(batch) if !proven => {
                            if let Some(flaw) = torn_run(&batch) {
                                return Some(self.end(Tail::Torn(flaw)));
                            }
                        }
                        Ok(_) | Err(None) => {}
                    }
                }
                self.pass(&summary);
                return Some(Told::Batch(summary));
            }
            Found::Behind(search, summary) => {
                let Summary { head, .. } = summary;
                let batches = self.next.batch..=BatchNo(head.batch.0 - 1);
                let damage = Damage { offset: self.at, end: search.at, batches, flaw: search.flaw };
                self.at = search.at;
                self.next = Next { batch: head.batch, chain: head.chain, epoch: head.epoch };
                self.search = None;
                return Some(Told::Damaged(damage));
            }
            Found::Flawed(flaw) if self.next.batch <= self.proven => {
                self.search = Some(Search { flaw, at: self.at });
            }
            Found::Flawed(flaw) => {
                let ours = claims_place(self.window_from(self.at), &self.expect(self.at, None));
                let tail = match flaw.defect {
                    Defect::Unreadable => Tail::Unreadable,
                    Defect::Blank => Tail::Blank,
                    // Whole, but not what follows here.
                    Defect::Epoch { .. } | Defect::Batch { .. } | Defect::Chain { .. } => Tail::Leftover(flaw),
                    defect if ours && defect.is_unknown() => Tail::Unknown(flaw),
                    _ if ours => Tail::Torn(flaw),
                    _ => Tail::Leftover(flaw),
                };
                return Some(self.end(tail));
            }
            Found::Nothing(search) if self.next.batch <= self.proven => {
                let missing = Flaw::new(self.at, Defect::Short { needed: BLOCK, there: 0 });
                let damage = Damage {
                    offset: self.at,
                    end: self.plan.end,
                    batches: self.next.batch..=self.proven,
                    flaw: search.map_or(missing, |search| search.flaw),
                };
                self.at = self.plan.end;
                self.next.batch = self.proven.next();
                self.search = None;
                return Some(Told::Damaged(damage));
            }
            Found::Nothing(_) => return Some(self.end(Tail::Blank)),
        }
        None
    }

    fn end(&mut self, tail: Tail) -> Told {
        let end = End { offset: self.at, next: self.next, tail };
        self.phase = Phase::Ended(end);
        Told::End(end)
    }

    fn pass(&mut self, summary: &Summary) {
        self.at = summary.head.position.offset() + summary.bytes;
        self.next = summary.next();
        self.search = None;
    }

    /// Finds the batch that is next: where the scan stands or, behind a flaw, at the first block that bears one.
    fn locate(&mut self) -> Found {
        let Some(mut search) = self.search else {
            return match self.batch_at(self.at, Some(self.next)) {
                _ if self.plan.end.saturating_sub(self.at) < BLOCK => Found::Nothing(None),
                Ok(summary) => Found::InOrder(summary),
                Err(Absent::Unread(request)) => Found::Missing(request),
                Err(Absent::Flawed(flaw)) => Found::Flawed(flaw),
            };
        };
        loop {
            let at = search.at.saturating_add(BLOCK);
            if self.plan.end.saturating_sub(at) < BLOCK {
                return Found::Nothing(Some(search));
            }
            let found = self.batch_at(at, None);
            if let Err(Absent::Unread(request)) = found {
                self.search = Some(search);
                return Found::Missing(request);
            }
            search.at = at;
            if let Ok(summary) = found
                && self.may_follow(at, &summary)
            {
                return Found::Behind(search, summary);
            }
        }
    }

    /// Whether a batch that was found behind a flaw can belong to the same chain.
    fn may_follow(&self, at: u32, found: &Summary) -> bool {
        let missing = found.head.batch.0.saturating_sub(self.next.batch.0);
        missing > 0 && missing <= u64::from((at - self.at) / BLOCK) && found.head.epoch >= self.next.epoch
    }

    fn batch_at(&self, at: u32, next: Option<Next>) -> Result<Summary, Absent> {
        let there = self.window_from(at);
        let rest = self.plan.end.saturating_sub(at);
        let flaw = match parse_directory(there, &self.expect(at, next)) {
            Ok(batch) if batch.bytes() <= rest => return Ok(batch.summary()),
            Ok(batch) => Flaw::new(at, Defect::Short { needed: batch.bytes(), there: rest }),
            Err(flaw) => flaw,
        };
        match flaw.defect {
            Defect::Short { needed, .. } if needed <= rest && there.len() < needed as usize => {
                Err(self.request(at, needed).map_or(Absent::Flawed(Flaw::new(at, Defect::Unreadable)), Absent::Unread))
            }
            _ => Err(Absent::Flawed(flaw)),
        }
    }

    /// The whole batch; what must be read for it, or nothing if it cannot be read.
    fn whole(&self, summary: &Summary) -> Result<Batch<'_>, Option<Request>> {
        let at = summary.head.position.offset();
        let there = self.window_from(at);
        if there.len() < summary.bytes as usize {
            return Err(self.request(at, summary.bytes));
        }
        Ok(Batch::of(*summary, there))
    }

    /// What to ask for; nothing if it has proven unreadable.
    fn request(&self, offset: u32, needed: u32) -> Option<Request> {
        let needed = needed.next_multiple_of(BLOCK).min(self.plan.end - offset);
        if self.unreadable.is_some_and(|request| (request.offset, request.needed) == (offset, needed)) {
            return None;
        }
        let ahead = if self.narrow { 0 } else { self.ahead.min(self.plan.end - offset) };
        Some(Request { offset, needed, bytes: needed.max(ahead) })
    }

    fn expect(&self, at: u32, next: Option<Next>) -> Expect {
        let Plan { log, store_tag, segment, .. } = self.plan;
        Expect { log, store_tag, position: Position::new(segment, at), next }
    }

    /// What has been read from `at` on.
    fn window_from(&self, at: u32) -> &[u8] {
        let end = (self.plan.end.saturating_sub(self.window_at) as usize).min(self.window.len());
        let start = at.checked_sub(self.window_at).map_or(end, |start| (start as usize).min(end));
        &self.window[start..end]
    }
}

enum Absent {
    Unread(Request),
    Flawed(Flaw),
}

/// The first run whose content did not reach the disk.
fn torn_run(batch: &Batch<'_>) -> Option<Flaw> {
    batch.runs().find_map(|run| match run.content() {
        Err(flaw) if matches!(flaw.defect, Defect::ContentChecksum { .. } | Defect::Short { .. }) => Some(flaw),
        _ => None,
    })
}
