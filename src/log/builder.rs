//! Filling a batch.
//!
//! Records go, in the order of their arrival, into one buffer; a run is the list of its stretches there. Sealing
//! gathers each run's stretches behind the directory. A batch of one run, the common one of a busy stream, needs no
//! gathering: room for its head lies before the first record, so that a payload is copied once on its way to the
//! disk.

use std::num::NonZeroU32;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::aligned::AlignedBuf;
use super::batch::{BATCH_BYTES_MAX, BATCH_HEAD_BYTES, Head, encode_head};
use super::entry::{ENTRY_BYTES, Part, RunEntry, Transaction};
use super::fragment::Fragment;
use super::ids::{BLOCK_BYTES, Incarnation, Position, SegmentNo, Time};
use super::message::Message;
use super::record::{Before, FragmentNo, RECORD_HEAD_BYTES_MAX, encode};
use super::run::{Kind, PlacedRun};
use super::varint::{self, VARINT_BYTES_MAX};

/// A run takes no more records once its content has so many bytes; the stream's next record opens another. Bounds what
/// must be read and verified for one message, and what one damaged byte spoils.
pub const RUN_BYTES: usize = 64 << 10;

/// Most bytes of one record's content, beside its head: a larger message is split, control records are made smaller.
pub const RECORD_BYTES_MAX: usize = 256 << 10;

/// Contents begin at multiples of this.
const ALIGN: usize = 8;
/// Room for the head of a batch of one run.
const ROOM: usize = BATCH_HEAD_BYTES + ENTRY_BYTES;

const _: () = assert!(BATCH_HEAD_BYTES.is_multiple_of(ALIGN) && ENTRY_BYTES.is_multiple_of(ALIGN));

/// The batch that is being filled. Keeps its memory from one batch to the next.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    arena: AlignedBuf,
    stretches: Vec<Stretch>,
    runs: Vec<OpenRun>,
    /// The latest run of each stream: the only one of it that may grow.
    latest: HashMap<Option<Incarnation>, usize, foldhash::fast::RandomState>,
    /// The run that grew last.
    current: Option<usize>,
    /// Bytes of all contents, each rounded up.
    contents: usize,
}

/// Neighbouring bytes of one run.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    start: u32,
    end: u32,
    next: Option<NonZeroU32>,
}

#[derive(Debug)]
struct OpenRun {
    class: Class,
    birth: Option<Position>,
    commits: bool,
    piece: u32,
    count: u32,
    bytes: usize,
    first_seq: u64,
    last_seq: u64,
    first_live: u64,
    first_time: Time,
    last_time: Time,
    first_stretch: usize,
    last_stretch: usize,
    /// Where the subject of the last record is.
    subject: (u32, u32),
}

/// What all records of a run have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class {
    stream: Option<Incarnation>,
    kind: Kind,
    birth: Option<SegmentNo>,
    transaction: Option<Transaction>,
    fragment: bool,
}

/// A sealed batch: what to remember of it while it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Checksum of its head: the `chain` of the next batch.
    pub head_crc: u32,
    /// Bytes on disk: whole blocks.
    pub bytes: u32,
    /// Its runs, but for the log's own, in order of replay.
    pub runs: Vec<PlacedRun>,
    /// Which of `runs` belong to transactions, by their index. They count once the transaction is complete.
    pub parts: Vec<(usize, Part)>,
}

impl BatchBuilder {
    /// Appends a message; returns the bytes of its record.
    ///
    /// # Panics
    /// If it is larger than a record may be: then it must come as fragments.
    pub fn message(&mut self, stream: Incarnation, first_live: u64, m: &Message<'_>) -> u32 {
        self.append(Class::messages(stream), None, first_live, m, None)
    }

    /// Appends a message of an atomic group; the last of the group says that it `commits` it.
    ///
    /// # Panics
    /// As [`BatchBuilder::message`].
    pub fn part(&mut self, stream: Incarnation, first_live: u64, part: Part, m: &Message<'_>) -> u32 {
        let class = Class { transaction: Some(part.transaction), ..Class::messages(stream) };
        let bytes = self.append(class, None, first_live, m, None);
        self.commit(part.commits);
        bytes
    }

    /// Appends a message that cleaning moves, and which was first in the batch at `birth`.
    ///
    /// Messages born in one segment share runs; such a run bears the newest birth among them.
    ///
    /// # Panics
    /// As [`BatchBuilder::message`].
    pub fn moved(&mut self, stream: Incarnation, birth: Position, first_live: u64, m: &Message<'_>) -> u32 {
        let class = Class { birth: Some(birth.segment()), ..Class::messages(stream) };
        self.append(class, Some(birth), first_live, m, None)
    }

    /// What comes next of that stream opens another run.
    pub fn end_run(&mut self, stream: Incarnation) {
        self.latest.remove(&Some(stream));
        self.current = None;
    }

    /// Appends a part of a large message, which the last part commits. `birth` is that of a message that is moved.
    pub fn fragment(
        &mut self,
        stream: Incarnation,
        first_live: u64,
        birth: Option<Position>,
        transaction: Transaction,
        fragment: &Fragment<'_>,
    ) -> u32 {
        let class = Class {
            birth: birth.map(Position::segment),
            transaction: Some(transaction),
            fragment: true,
            ..Class::messages(stream)
        };
        let number = fragment.number;
        let bytes = self.append(class, birth, first_live, &fragment.piece, Some(number));
        self.commit(number.index + 1 == number.count);
        bytes
    }

    /// Appends a record of another kind than messages, of a stream or, for `None`, of the log itself; returns the bytes
    /// of the record.
    ///
    /// # Panics
    /// If it is larger than a record may be, or `kind` is that of messages.
    pub fn control(&mut self, stream: Option<Incarnation>, kind: Kind, content: &[u8]) -> u32 {
        self.append_control(Class::of(stream, kind), content)
    }

    /// Appends a share of a control record of a stream that is larger than a record may be; the last one says that it
    /// `commits` it.
    ///
    /// # Panics
    /// As [`BatchBuilder::control`].
    pub fn control_part(&mut self, stream: Incarnation, kind: Kind, part: Part, share: &[u8]) {
        self.append_control(Class { transaction: Some(part.transaction), ..Class::of(Some(stream), kind) }, share);
        self.commit(part.commits);
    }

    /// Bytes that it takes on disk as it is: whole blocks.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.directory_end() + self.contents).next_multiple_of(BLOCK_BYTES)
    }

    /// Most bytes that it takes on disk once a record with `content` bytes (subject, reply, headers and payload of a
    /// message) has come in.
    #[must_use]
    pub fn bytes_with(&self, content: usize) -> usize {
        let record = ENTRY_BYTES + RECORD_HEAD_BYTES_MAX + content + ALIGN;
        (self.directory_end() + self.contents + record).next_multiple_of(BLOCK_BYTES)
    }

    /// Whether nothing has been appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Lays the batch out in `into`, ready to be written, and empties the builder. Without records it is a head only.
    ///
    /// # Panics
    /// If it is larger than [`BATCH_BYTES_MAX`].
    pub fn seal(&mut self, head: &Head, into: &mut AlignedBuf) -> Sealed {
        let bytes = self.bytes();
        assert!(bytes <= BATCH_BYTES_MAX, "a batch of {bytes} bytes");
        into.clear();
        let content_end = self.directory_end() + self.contents;
        let gathers = self.runs.len() != 1;
        if gathers {
            into.reserve(bytes);
            into.pad_to(self.directory_end());
        } else {
            std::mem::swap(&mut self.arena, into);
        }
        let mut sealed =
            Sealed { head_crc: 0, bytes: bytes as u32, runs: Vec::with_capacity(self.runs.len()), parts: Vec::new() };
        for (index, run) in self.runs.iter().enumerate() {
            let start = if gathers { self.gather(run, into) } else { ROOM };
            let content_crc = crc32fast::hash(&into[start..start + run.bytes]);
            into.pad_to(into.len().next_multiple_of(ALIGN));
            let entry = run.entry(head, start as u32, content_crc);
            entry.encode(head.position.offset(), &mut into[BATCH_HEAD_BYTES + index * ENTRY_BYTES..]);
            if let Some(placed) = entry.placed(head.position) {
                if let Some(part) = entry.part {
                    sealed.parts.push((sealed.runs.len(), part));
                }
                sealed.runs.push(placed);
            }
        }
        assert!(into.len() == content_end, "{} bytes laid out, not {content_end}", into.len());
        into.pad_to(bytes);
        sealed.head_crc = encode_head(head, self.runs.len() as u32, content_end as u32, bytes as u32, into);
        self.reset();
        sealed
    }

    /// Appends the content of a run to `into`; returns where it begins.
    fn gather(&self, run: &OpenRun, into: &mut AlignedBuf) -> usize {
        let begins = into.len();
        let mut stretch = Some(self.stretches[run.first_stretch]);
        while let Some(Stretch { start, end, next }) = stretch {
            into.extend_from_slice(&self.arena[start as usize..end as usize]);
            stretch = next.map(|next| self.stretches[next.get() as usize]);
        }
        begins
    }

    fn reset(&mut self) {
        self.arena.clear();
        self.stretches.clear();
        self.runs.clear();
        self.latest.clear();
        self.current = None;
        self.contents = 0;
    }

    fn directory_end(&self) -> usize {
        BATCH_HEAD_BYTES + self.runs.len() * ENTRY_BYTES
    }

    fn append(
        &mut self,
        class: Class,
        birth: Option<Position>,
        first_live: u64,
        m: &Message<'_>,
        fragment: Option<FragmentNo>,
    ) -> u32 {
        let body = m.subject.len() + m.reply.len() + m.headers.len() + m.payload.len();
        assert!(body <= RECORD_BYTES_MAX, "a record of {body} bytes");
        let index = self.run_for(class, m.seq, m.time);
        let run = &mut self.runs[index];
        let before = Before {
            seq: run.last_seq,
            time: run.last_time,
            same_subject: run.count > 0 && self.arena[run.subject.0 as usize..run.subject.1 as usize] == *m.subject,
        };
        let start = self.arena.len();
        let bytes = encode(&mut self.arena, before, m, fragment);
        if !before.same_subject {
            let subject = start + bytes - body;
            run.subject = (subject as u32, (subject + m.subject.len()) as u32);
        }
        if run.count == 0 {
            run.piece = fragment.map_or(0, |fragment| fragment.index);
        }
        run.last_seq = m.seq;
        run.last_time = m.time;
        run.first_live = run.first_live.max(first_live);
        run.birth = run.birth.max(birth);
        self.grown(index, start);
        bytes as u32
    }

    fn append_control(&mut self, class: Class, content: &[u8]) -> u32 {
        assert!(class.kind != Kind::Messages, "messages are appended as such");
        assert!(content.len() <= RECORD_BYTES_MAX, "a record of {} bytes", content.len());
        let index = self.run_for(class, 0, 0);
        let start = self.arena.len();
        let head = self.arena.spare(VARINT_BYTES_MAX);
        let head = varint::put(head, 0, content.len() as u64);
        self.arena.advance(head);
        self.arena.extend_from_slice(content);
        self.grown(index, start);
        (head + content.len()) as u32
    }

    /// The run that takes the next record of `class`: the stream's latest if it is of that class, else a new one, so
    /// that the order of a stream's runs is the order of its records.
    fn run_for(&mut self, class: Class, seq: u64, time: Time) -> usize {
        if let Some(index) = self.current
            && self.runs[index].takes(&class, seq)
        {
            return index;
        }
        let opened = self.runs.len();
        let index = match self.latest.entry(class.stream) {
            Entry::Occupied(latest) if self.runs[*latest.get()].takes(&class, seq) => *latest.get(),
            Entry::Occupied(mut latest) => {
                latest.insert(opened);
                opened
            }
            Entry::Vacant(latest) => {
                latest.insert(opened);
                opened
            }
        };
        if index == opened {
            if opened == 0 {
                self.arena.pad_to(ROOM);
            }
            self.runs.push(OpenRun::new(class, seq, time));
        }
        self.current = Some(index);
        index
    }

    /// Adds what lies in the arena from `start` on to a run, as a record.
    fn grown(&mut self, index: usize, start: usize) {
        let end = self.arena.len();
        let run = &mut self.runs[index];
        let added = self.stretches.len();
        if run.count == 0 {
            run.first_stretch = added;
        } else if self.stretches[run.last_stretch].end == start as u32 {
            self.stretches[run.last_stretch].end = end as u32;
        } else {
            self.stretches[run.last_stretch].next = NonZeroU32::new(added as u32);
        }
        if run.count == 0 || self.stretches[run.last_stretch].end != end as u32 {
            run.last_stretch = added;
            self.stretches.push(Stretch { start: start as u32, end: end as u32, next: None });
        }
        self.contents -= run.bytes.next_multiple_of(ALIGN);
        run.bytes += end - start;
        run.count += 1;
        self.contents += run.bytes.next_multiple_of(ALIGN);
    }

    fn commit(&mut self, commits: bool) {
        if let Some(index) = self.current {
            self.runs[index].commits |= commits;
        }
    }
}

impl Class {
    fn messages(stream: Incarnation) -> Self {
        Self::of(Some(stream), Kind::Messages)
    }

    fn of(stream: Option<Incarnation>, kind: Kind) -> Self {
        Self { stream, kind, birth: None, transaction: None, fragment: false }
    }
}

impl OpenRun {
    fn new(class: Class, seq: u64, time: Time) -> Self {
        Self {
            class,
            birth: None,
            commits: false,
            piece: 0,
            count: 0,
            bytes: 0,
            first_seq: seq,
            last_seq: seq,
            first_live: 0,
            first_time: time,
            last_time: time,
            first_stretch: 0,
            last_stretch: 0,
            subject: (0, 0),
        }
    }

    #[inline]
    fn takes(&self, class: &Class, seq: u64) -> bool {
        let follows = match (class.kind, class.fragment) {
            (Kind::Messages, false) => seq > self.last_seq,
            (Kind::Messages, true) => seq == self.last_seq,
            _ => true,
        };
        self.class == *class && follows && !self.commits && self.bytes < RUN_BYTES
    }

    fn entry(&self, head: &Head, start: u32, content_crc: u32) -> RunEntry {
        let of_messages = self.class.kind == Kind::Messages;
        RunEntry {
            kind: self.class.kind,
            stream: self.class.stream,
            count: self.count,
            offset: head.position.offset() + start,
            bytes: self.bytes as u32,
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            first_live: self.first_live,
            first_time: if of_messages { self.first_time } else { head.time },
            last_time: if of_messages { self.last_time } else { head.time },
            birth: self.birth,
            fragment: self.class.fragment,
            piece: self.piece,
            part: self.class.transaction.map(|transaction| Part { transaction, commits: self.commits }),
            codec: 0,
            cipher: 0,
            content_crc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::{BatchNo, LogId};
    use super::*;

    #[test]
    fn memory_is_kept_from_batch_to_batch() {
        let head = Head {
            log: LogId(0),
            store_tag: 1,
            position: Position::new(SegmentNo(1), 4096),
            batch: BatchNo(2),
            flushed_upto: BatchNo(1),
            time: 0,
            checkpoint: None,
            chain: 0,
            epoch: 1,
        };
        let mut builder = BatchBuilder::default();
        let mut buffer = AlignedBuf::new();
        let mut memory = Vec::new();
        for round in 0..20_u64 {
            for number in 0..1_000 {
                let stream = Incarnation::new(1 + number % 100).expect("not zero");
                let seq = round * 1_000 + number + 1;
                builder.message(stream, 1, &Message { seq, subject: b"a.b", payload: &[0; 100], ..Message::default() });
            }
            builder.seal(&head, &mut buffer);
            let arenas = builder.arena.capacity() + buffer.capacity();
            memory.push((arenas, builder.stretches.capacity(), builder.runs.capacity(), builder.latest.capacity()));
        }
        assert!(memory[1..].iter().all(|sizes| *sizes == memory[1]), "{memory:?}");
    }
}
