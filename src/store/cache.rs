//! What has been read from a log or written to it lately, in memory and bounded.
//!
//! Three layers. *Extents* are stretches of a segment as they were read, which may begin and end within batches. *Batches*
//! are whole: each that was flushed, and each that was put together from two extents. *Runs* are decoded: the verified
//! content of one run with the place of each record in it. All readers of a stream share them, so that ten consumers that
//! replay it side by side read the disk about once.
//!
//! Of each batch that was looked at there is a [`Directory`]: a batch of two thousand streams holds a run of each, and is
//! looked at by two thousand readers.
//!
//! They are bounded in bytes together; what was not used for the longest time goes first. A reader that holds a run keeps
//! its memory, and no more than that.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::log::{
    Assembler, BLOCK_BYTES, Batch, Defect, Expect, Flaw, Incarnation, Kind, Log, LogId, Message, Position,
    RECORD_BYTES_MAX, Run, RunEntry, SegmentNo, Summary, Time, Transaction, parse, parse_directory,
};

/// A message in a decoded run: where its parts are.
#[derive(Clone, Copy, Debug)]
struct Place {
    seq: u64,
    time: Time,
    subject: (u32, u32),
    reply: (u32, u32),
    headers: (u32, u32),
    payload: (u32, u32),
    expires: Option<Time>,
    record_bytes: u32,
}

/// The messages of a run.
#[derive(Debug)]
pub(super) struct DecodedRun {
    /// The batch it lies in.
    pub(super) position: Position,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    bytes: Bytes,
    places: Box<[Place]>,
    /// Of a message in parts: where each part was first.
    births: Option<Box<[Position]>>,
}

impl DecodedRun {
    /// Where the parts of its one message were first, if it is in parts.
    pub(super) fn births(&self) -> Option<&[Position]> {
        self.births.as_deref()
    }

    /// The index of the first message whose number is not below `seq`.
    pub(super) fn index_of(&self, seq: u64) -> usize {
        self.places.partition_point(|place| place.seq < seq)
    }

    /// The message at an index, and the bytes of its record.
    pub(super) fn get(&self, index: usize) -> Option<(Message<'_>, u32)> {
        let place = self.places.get(index)?;
        let part = |(start, end): (u32, u32)| &self.bytes[start as usize..end as usize];
        let message = Message {
            seq: place.seq,
            time: place.time,
            subject: part(place.subject),
            reply: part(place.reply),
            headers: part(place.headers),
            payload: part(place.payload),
            expires: place.expires,
            id: None,
        };
        Some((message, place.record_bytes))
    }

    /// The message with that number.
    pub(super) fn find(&self, seq: u64) -> Option<(Message<'_>, u32)> {
        self.get(self.index_of(seq)).filter(|(message, _)| message.seq == seq)
    }

    fn memory(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.places)
    }

    fn decode(run: &Run<'_>, position: Position, chunk: &Bytes) -> Result<Self, Flaw> {
        let content = run.content()?;
        let bytes = chunk.slice_ref(content);
        let base = content.as_ptr().addr();
        let span = |part: &[u8]| {
            if part.is_empty() {
                return (0, 0);
            }
            let start = (part.as_ptr().addr() - base) as u32;
            (start, start + part.len() as u32)
        };
        let mut places = Vec::with_capacity(run.entry.count as usize);
        for record in run.records()? {
            let record = record?;
            let message = record.message;
            places.push(Place {
                seq: message.seq,
                time: message.time,
                subject: span(message.subject),
                reply: span(message.reply),
                headers: span(message.headers),
                payload: span(message.payload),
                expires: message.expires,
                record_bytes: record.bytes,
            });
        }
        let (first_seq, last_seq) = (run.entry.first_seq, run.entry.last_seq);
        Ok(Self { position, first_seq, last_seq, bytes, places: places.into(), births: None })
    }

    /// A run without messages.
    fn nothing(position: Position) -> Self {
        Self { position, first_seq: 1, last_seq: 0, bytes: Bytes::new(), places: Box::default(), births: None }
    }

    /// A message that is kept in memory.
    pub(super) fn in_memory(message: &Message<'_>) -> Self {
        Self::whole(message, Position::new(SegmentNo(0), 0), 0, None)
    }

    fn whole(message: &Message<'_>, position: Position, record_bytes: u32, births: Option<Box<[Position]>>) -> Self {
        let mut bytes = Vec::new();
        let mut add = |part: &[u8]| {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(part);
            (start, bytes.len() as u32)
        };
        let place = Place {
            seq: message.seq,
            time: message.time,
            subject: add(message.subject),
            reply: add(message.reply),
            headers: add(message.headers),
            payload: add(message.payload),
            expires: message.expires,
            record_bytes,
        };
        let (first_seq, last_seq) = (message.seq, message.seq);
        Self { position, first_seq, last_seq, bytes: bytes.into(), places: Box::new([place]), births }
    }
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    used: u64,
    /// Whoever comes here first will want what follows.
    leads_on: bool,
}

impl Chunk {
    /// The bytes from `position` on, if it begins at `start` and holds any.
    fn from(&self, start: Position, position: Position) -> Option<Bytes> {
        let within = position.offset().checked_sub(start.offset()).filter(|_| start.segment() == position.segment())?;
        let within = within as usize;
        (within < self.bytes.len()).then(|| self.bytes.slice(within..))
    }
}

/// Where the runs of messages of each stream are in a batch that was verified. Good as long as the batch is in memory.
#[derive(Debug)]
struct Directory {
    summary: Summary,
    /// Streams and the places of their runs, ascending.
    places: Box<[(Incarnation, u32)]>,
}

impl Directory {
    fn of(batch: &Batch<'_>) -> Self {
        let messages = batch.numbered_runs().filter(|(_, run)| run.entry.kind == Kind::Messages);
        let places = messages.filter_map(|(place, run)| Some((run.entry.stream?, place)));
        let mut places = places.collect::<Box<[_]>>();
        places.sort_unstable();
        Self { summary: batch.summary(), places }
    }

    /// The places of a stream's runs from `first` on.
    fn places_of(&self, stream: Incarnation, first: u32) -> impl Iterator<Item = u32> {
        let begin = self.places.partition_point(|place| *place < (stream, first));
        self.places[begin..].iter().take_while(move |(of, _)| *of == stream).map(|(_, place)| *place)
    }

    fn memory(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.places)
    }
}

#[derive(Debug)]
struct CachedRun {
    run: Arc<DecodedRun>,
    used: u64,
}

/// The outcome of a look for a message.
#[derive(Debug)]
pub(super) enum Looked {
    /// The run that holds it, by its numbers.
    Run(Arc<DecodedRun>),
    /// There is none before the end of the segment.
    End,
    /// So many bytes are missing at that place.
    Missing(Position, u32),
    /// What is there is damaged: where, up to which number of the stream (if that is known), and how.
    Damaged { position: Position, upto: Option<u64>, flaw: Flaw },
}

/// A look for one message: forward from a batch to the first run of its stream that has it. (Runs that cleaning has moved
/// lie between the others, so that a run with greater numbers means nothing.)
///
/// It keeps how far it has come, and the parts of a message that it has met: whatever the cache has let go of when the
/// bytes come that were missing, it goes on from there.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) stream: Incarnation,
    pub(super) seq: u64,
    /// The batch where the index says to begin.
    pub(super) from: Position,
    /// The batch it has come to, and the first of its runs that was not looked at.
    at: Position,
    run: u32,
    candidate: Option<Candidate>,
    /// It began behind `from`, where the message usually is.
    short_cut: bool,
    /// The first damaged batch that it passed.
    damage: Option<(Position, Flaw)>,
}

impl Search {
    pub(super) fn new(stream: Incarnation, seq: u64, from: Position, near: Option<Position>) -> Self {
        let (at, short_cut) = (near.unwrap_or(from), near.is_some());
        Self { stream, seq, from, at, run: 0, candidate: None, short_cut, damage: None }
    }
}

/// What may be the message, if its transaction was completed: a crash may have left only its beginning.
#[derive(Debug)]
struct Candidate {
    transaction: Transaction,
    /// The next batch to be looked at for more of the transaction.
    at: Position,
    what: Found,
}

#[derive(Debug)]
enum Found {
    Whole(DecodedRun),
    Parts { assembler: Box<Assembler>, position: Position, record_bytes: u32, births: Vec<Position> },
}

/// The cache of one log.
#[derive(Debug)]
pub(super) struct Cache {
    log: LogId,
    store_tag: u64,
    extents: BTreeMap<Position, Chunk>,
    batches: BTreeMap<Position, Chunk>,
    directories: HashMap<Position, Arc<Directory>>,
    /// Ends of extents that readers have come to and that lead on.
    leads: Vec<Position>,
    /// By stream and last number.
    runs: BTreeMap<(Incarnation, u64), CachedRun>,
    bytes: usize,
    bytes_max: usize,
    clock: u64,
}

/// Runs in memory that one look-up tries.
const RUNS_LOOKED_AT: usize = 8;

/// A cache of this size can hold what is read ahead for some readers.
const ROOMY_BYTES: usize = 4 << 20;

/// Bytes of a read: enough for the disk to be at full speed with a few of them.
pub(super) const READ_BYTES: u32 = 512 << 10;

impl Cache {
    pub(super) fn new(log: LogId, store_tag: u64, bytes_max: usize) -> Self {
        Self {
            log,
            store_tag,
            extents: BTreeMap::new(),
            batches: BTreeMap::new(),
            directories: HashMap::new(),
            leads: Vec::new(),
            runs: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            clock: 0,
        }
    }

    /// Takes over a whole batch that lies at `position`.
    pub(super) fn insert_batch(&mut self, position: Position, bytes: Bytes) {
        self.clock += 1;
        self.bytes += bytes.len();
        let chunk = Chunk { bytes, used: self.clock, leads_on: false };
        if let Some(old) = self.batches.insert(position, chunk) {
            self.bytes -= old.bytes.len();
        }
        self.make_room();
    }

    /// Takes over what was read at `position`. If it `leads_on`, [`Cache::take_leads`] tells when a reader comes to it.
    pub(super) fn insert_extent(&mut self, position: Position, bytes: Bytes, leads_on: bool) {
        self.clock += 1;
        self.bytes += bytes.len();
        let chunk = Chunk { bytes, used: self.clock, leads_on };
        if let Some(old) = self.extents.insert(position, chunk) {
            self.bytes -= old.bytes.len();
        }
        self.make_room();
    }

    /// Where what comes next should be read ahead.
    pub(super) fn take_leads(&mut self) -> Vec<Position> {
        std::mem::take(&mut self.leads)
    }

    /// The end of the extent that holds the byte at `position`.
    pub(super) fn extent_end(&self, position: Position) -> Option<Position> {
        let (start, chunk) = self.extents.range(..=position).next_back()?;
        let end = start.offset() + chunk.bytes.len() as u32;
        (start.segment() == position.segment() && end > position.offset()).then(|| Position::new(start.segment(), end))
    }

    /// Bytes from `position` up to the next extent, `most` at most.
    pub(super) fn gap(&self, position: Position, most: u32) -> u32 {
        let next = self.extents.range(position..).next().map(|(start, _)| *start);
        let next = next.filter(|start| start.segment() == position.segment());
        next.map_or(most, |start| most.min(start.offset() - position.offset()))
    }

    /// Whether there is room for what is read ahead.
    pub(super) fn is_roomy(&self) -> bool {
        self.bytes_max >= ROOMY_BYTES
    }

    /// Forgets a segment that nobody needs any more.
    pub(super) fn forget(&mut self, segment: SegmentNo) {
        self.directories.retain(|position, directory| {
            let keep = position.segment() != segment;
            if !keep {
                self.bytes -= directory.memory();
            }
            keep
        });
        let range = Position::new(segment, 0)..=Position::new(segment, u32::MAX);
        for chunks in [&mut self.extents, &mut self.batches] {
            let positions = chunks.range(range.clone()).map(|(position, _)| *position).collect::<Vec<_>>();
            for position in positions {
                if let Some(chunk) = chunks.remove(&position) {
                    self.bytes -= chunk.bytes.len();
                }
            }
        }
        self.runs.retain(|_, cached| {
            let keep = cached.run.position.segment() != segment;
            if !keep {
                self.bytes -= cached.run.memory();
            }
            keep
        });
    }

    /// The decoded run that holds a number of a stream, if it is in memory.
    pub(super) fn run(&mut self, stream: Incarnation, seq: u64) -> Option<Arc<DecodedRun>> {
        self.clock += 1;
        // Ranges of runs that were moved overlap others; one that holds the number is usually the first.
        let mut behind = self.runs.range_mut((stream, seq)..=(stream, u64::MAX)).take(RUNS_LOOKED_AT);
        let (_, cached) = behind.find(|(_, cached)| cached.run.find(seq).is_some())?;
        cached.used = self.clock;
        Some(Arc::clone(&cached.run))
    }

    /// Goes on with a search until something is missing or its outcome is known.
    pub(super) fn look(&mut self, log: &Log, search: &mut Search) -> Looked {
        self.find(log, search).unwrap_or_else(|looked| looked)
    }

    fn find(&mut self, log: &Log, search: &mut Search) -> Result<Looked, Looked> {
        loop {
            if let Some(candidate) = &mut search.candidate {
                match self.complete(log, search.stream, search.seq, candidate)? {
                    Some(run) => return Ok(Looked::Run(self.keep(search.stream, run))),
                    None => search.candidate = None,
                }
            }
            let end = log.segment_end(search.at.segment()).unwrap_or(0);
            if search.at.offset() >= end {
                if search.short_cut {
                    *search = Search::new(search.stream, search.seq, search.from, None);
                    continue;
                }
                let Some((position, flaw)) = search.damage else { return Ok(Looked::End) };
                return Ok(Looked::Damaged { position, upto: None, flaw });
            }
            if let Some(run) = self.find_in_batch(search, end)? {
                return Ok(Looked::Run(self.keep(search.stream, run)));
            }
        }
    }

    /// Looks at the batch that a search has come to. Ends behind it, or with a candidate.
    fn find_in_batch(&mut self, search: &mut Search, end: u32) -> Result<Option<DecodedRun>, Looked> {
        let Search { stream, seq, at, .. } = *search;
        let (bytes, directory) = match self.verified(at, end) {
            Ok(found) => found,
            Err(Looked::Damaged { flaw, .. }) => {
                search.damage.get_or_insert((at, flaw));
                (search.at, search.run) = (Position::new(at.segment(), at.offset() + BLOCK_BYTES as u32), 0);
                return Ok(None);
            }
            Err(looked) => return Err(looked),
        };
        let damaged = |upto, flaw| Looked::Damaged { position: at, upto, flaw };
        let batch = Batch::of(directory.summary, &bytes);
        for place in directory.places_of(stream, search.run) {
            let Some(run) = batch.run(place) else { continue };
            let RunEntry { first_seq, last_seq, fragment, piece, part, birth, .. } = run.entry;
            if let Some((position, flaw)) = search.damage
                && birth.is_none()
                && first_seq > seq
            {
                // What is not moved lies in order: what would come before is what was damaged.
                return Err(Looked::Damaged { position, upto: Some(first_seq - 1), flaw });
            }
            if !(first_seq..=last_seq).contains(&seq) || fragment && piece > 0 {
                continue;
            }
            search.run = place + 1;
            let uncertain = part.filter(|part| fragment || !part.commits);
            if let Some(transaction) = uncertain.map(|part| part.transaction).filter(|_| fragment) {
                let assembler = Box::new(Assembler::new(usize::MAX));
                let what = Found::Parts { assembler, position: at, record_bytes: 0, births: Vec::new() };
                search.candidate = Some(Candidate { transaction, at, what });
                return Ok(None);
            }
            let decoded = DecodedRun::decode(&run, at, &bytes).map_err(|flaw| damaged(Some(last_seq), flaw))?;
            // A run that was moved may have left out what lies between its messages.
            if decoded.find(seq).is_none() {
                continue;
            }
            let Some(part) = uncertain else { return Ok(Some(decoded)) };
            let what = Found::Whole(decoded);
            search.candidate = Some(Candidate { transaction: part.transaction, at, what });
            return Ok(None);
        }
        (search.at, search.run) = (Position::new(at.segment(), at.offset() + batch.bytes()), 0);
        Ok(None)
    }

    /// Follows a transaction to its end. `None` if it was never completed.
    fn complete(
        &mut self,
        log: &Log,
        stream: Incarnation,
        seq: u64,
        candidate: &mut Candidate,
    ) -> Result<Option<DecodedRun>, Looked> {
        loop {
            let Candidate { transaction, at, what } = candidate;
            let end = log.segment_end(at.segment()).unwrap_or(0);
            if at.offset() >= end {
                let Some(segment) = log.segment_after(at.segment()) else { return Ok(None) };
                *at = Position::new(segment, BLOCK_BYTES as u32);
                continue;
            }
            let damaged = |flaw| Looked::Damaged { position: *at, upto: Some(seq), flaw };
            let bytes = self.batch(*at, end).map_err(|looked| match looked {
                Looked::Damaged { flaw, .. } => damaged(flaw),
                looked => looked,
            })?;
            let batch = parse(&bytes, &self.expect(*at)).map_err(damaged)?;
            let (mut is_in_it, mut is_strange) = (false, false);
            for run in batch.runs() {
                if run.entry.part.is_none_or(|part| part.transaction != *transaction) {
                    is_strange |= run.entry.stream.is_some();
                    continue;
                }
                is_in_it = true;
                match what {
                    Found::Whole(decoded) => {
                        if run.entry.part.is_some_and(|part| part.commits) {
                            let nothing = DecodedRun::nothing(decoded.position);
                            return Ok(Some(std::mem::replace(decoded, nothing)));
                        }
                    }
                    Found::Parts { assembler, position, record_bytes, births } => {
                        debug_assert_eq!((run.entry.stream, run.entry.first_seq), (Some(stream), seq));
                        for record in run.records().map_err(damaged)? {
                            let record = record.map_err(damaged)?;
                            *record_bytes += record.bytes;
                            births.push(run.entry.birth.unwrap_or(*at));
                            if let Some(message) = assembler.add(&run.entry, &record).map_err(damaged)? {
                                let births = std::mem::take(births).into();
                                return Ok(Some(DecodedRun::whole(&message, *position, *record_bytes, Some(births))));
                            }
                        }
                    }
                }
            }
            // Its runs lie in neighbouring batches; between them there is only what ends segments.
            if !is_in_it && is_strange {
                return Ok(None);
            }
            *at = Position::new(at.segment(), at.offset() + batch.bytes());
        }
    }

    /// The batch at `position`, verified now or earlier, and its directory.
    fn verified(&mut self, position: Position, end: u32) -> Result<(Bytes, Arc<Directory>), Looked> {
        if let Some(directory) = self.directories.get(&position).cloned() {
            let bytes = directory.summary.bytes() as usize;
            if let Some(there) = self.at(position).filter(|there| there.len() >= bytes) {
                return Ok((there.slice(..bytes), directory));
            }
        }
        let bytes = self.batch(position, end)?;
        let directory = self.directory(position, &bytes)?;
        Ok((bytes, directory))
    }

    /// The directory of a batch that is in memory.
    fn directory(&mut self, position: Position, batch: &Bytes) -> Result<Arc<Directory>, Looked> {
        if let Some(directory) = self.directories.get(&position) {
            return Ok(Arc::clone(directory));
        }
        let damaged = |flaw| Looked::Damaged { position, upto: None, flaw };
        let directory = Arc::new(Directory::of(&parse(batch, &self.expect(position)).map_err(damaged)?));
        self.bytes += directory.memory();
        self.directories.insert(position, Arc::clone(&directory));
        self.make_room();
        Ok(directory)
    }

    /// The bytes of the batch at `position`, whole, in a segment whose batches end at `end`.
    pub(super) fn batch(&mut self, position: Position, end: u32) -> Result<Bytes, Looked> {
        let left = end.saturating_sub(position.offset());
        let Some(bytes) = self.at(position) else {
            return Err(Looked::Missing(position, READ_BYTES.min(left)));
        };
        let damaged = |flaw| Looked::Damaged { position, upto: None, flaw };
        let needed = match parse_directory(&bytes, &self.expect(position)) {
            Ok(batch) => batch.bytes(),
            Err(Flaw { defect: Defect::Short { needed, .. }, .. }) if needed <= left => {
                let needed = needed.next_multiple_of(BLOCK_BYTES as u32);
                let bytes = self.join(position, needed, left)?;
                parse_directory(&bytes, &self.expect(position)).map_err(damaged)?.bytes()
            }
            Err(flaw) => return Err(damaged(flaw)),
        };
        if needed as usize <= bytes.len() {
            return Ok(bytes.slice(..needed as usize));
        }
        let bytes = self.join(position, needed, left)?;
        self.insert_batch(position, bytes.clone());
        Ok(bytes)
    }

    /// So many bytes from `position` on, of neighbouring extents.
    fn join(&mut self, position: Position, needed: u32, left: u32) -> Result<Bytes, Looked> {
        let mut joined = BytesMut::with_capacity(needed as usize);
        while joined.len() < needed as usize {
            let come = joined.len() as u32;
            let at = Position::new(position.segment(), position.offset() + come);
            match self.at(at) {
                Some(bytes) => joined.extend_from_slice(&bytes[..bytes.len().min((needed - come) as usize)]),
                None if self.is_roomy() => return Err(Looked::Missing(at, READ_BYTES.min(left.saturating_sub(come)))),
                // What is there would have to give way to what is missing.
                None => return Err(Looked::Missing(position, needed.max(READ_BYTES).min(left))),
            }
        }
        Ok(joined.freeze())
    }

    /// Decodes the run of messages at a place of a batch's directory, for cleaning. `None` if there are no more; an error
    /// for one that holds no messages, cannot be read, or is not the first part of its message.
    pub(super) fn run_of(
        &mut self,
        batch: &Bytes,
        position: Position,
        place: u32,
    ) -> Option<Result<(Incarnation, Arc<DecodedRun>), NotMessages>> {
        let directory = self.directory(position, batch).ok()?;
        let batch_of = Batch::of(directory.summary, batch);
        let Some(run) = batch_of.run(place) else {
            return (place < batch_of.places()).then_some(Err(NotMessages { fragment: None, seq: 0 }));
        };
        let (Kind::Messages, Some(stream), false) = (run.entry.kind, run.entry.stream, run.entry.fragment) else {
            return Some(Err(NotMessages {
                fragment: run.entry.stream.filter(|_| run.entry.fragment),
                seq: run.entry.first_seq,
            }));
        };
        let decoded = DecodedRun::decode(&run, position, batch);
        Some(decoded.map(|run| (stream, Arc::new(run))).map_err(|_| NotMessages { fragment: None, seq: 0 }))
    }

    fn expect(&self, position: Position) -> Expect {
        Expect { log: self.log, store_tag: self.store_tag, position, next: None }
    }

    fn keep(&mut self, stream: Incarnation, run: DecodedRun) -> Arc<DecodedRun> {
        self.clock += 1;
        let run = Arc::new(run);
        self.bytes += run.memory();
        let cached = CachedRun { run: Arc::clone(&run), used: self.clock };
        if let Some(old) = self.runs.insert((stream, run.last_seq), cached) {
            self.bytes -= old.run.memory();
        }
        self.make_room();
        run
    }

    /// The bytes in memory from `position` on.
    fn at(&mut self, position: Position) -> Option<Bytes> {
        self.clock += 1;
        for chunks in [&mut self.batches, &mut self.extents] {
            let Some((start, chunk)) = chunks.range_mut(..=position).next_back() else { continue };
            let Some(bytes) = chunk.from(*start, position) else { continue };
            chunk.used = self.clock;
            if std::mem::take(&mut chunk.leads_on) {
                let end = start.offset() + chunk.bytes.len() as u32;
                self.leads.push(Position::new(start.segment(), end));
            }
            return Some(bytes);
        }
        None
    }

    /// Forgets everything. Readers keep the runs that they hold.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.log, self.store_tag, self.bytes_max);
    }

    /// Lets go of the older half of everything when there is too much.
    fn make_room(&mut self) {
        if self.bytes <= self.bytes_max {
            return;
        }
        let chunks = self.extents.values().chain(self.batches.values());
        let mut uses = chunks.map(|chunk| chunk.used).collect::<Vec<_>>();
        uses.extend(self.runs.values().map(|cached| cached.used));
        let middle = uses.len() / 2;
        let (_, oldest_kept, _) = uses.select_nth_unstable(middle);
        let oldest_kept = *oldest_kept;
        self.extents.retain(|_, chunk| chunk.used >= oldest_kept);
        self.batches.retain(|_, chunk| chunk.used >= oldest_kept);
        self.runs.retain(|_, cached| cached.used >= oldest_kept);
        // What comes into memory again has to be verified again.
        self.directories.clear();
        let chunks = self.extents.values().chain(self.batches.values());
        self.bytes = chunks.map(|chunk| chunk.bytes.len()).sum::<usize>()
            + self.runs.values().map(|cached| cached.run.memory()).sum::<usize>();
    }
}

/// A run that cleaning does not move as such.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotMessages {
    /// The stream, if it is a part of a message.
    pub(super) fragment: Option<Incarnation>,
    /// The number of that message.
    pub(super) seq: u64,
}

const _: () = assert!(RECORD_BYTES_MAX <= READ_BYTES as usize);
