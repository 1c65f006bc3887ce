//! What callers give a [`Stream`](super::Stream) and get from it.

use std::ops::RangeInclusive;

use crate::log::{Message, Pending, Position, SegmentNo, Time, Urgency};

/// An [`Inbound::expires`] beyond all time: the message is also exempt from the stream's greatest age.
pub const NEVER: Time = Time::MAX;

/// Longest subject that a stream stores, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 32 * 1024;

/// A message that asks to be stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inbound<'a> {
    /// The subject, already transformed where the face does such things.
    pub subject: &'a [u8],
    /// The reply subject; empty if there is none.
    pub reply: &'a [u8],
    /// The block of headers, verbatim; empty if there are none.
    pub headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// When it is to be removed, if it has a time of its own; [`NEVER`] exempts it from the greatest age too.
    pub expires: Option<Time>,
    /// Hash of the id by which duplicates are recognised.
    pub id: Option<u128>,
    /// What must hold for it to be stored.
    pub checks: Checks<'a>,
    /// What it replaces.
    pub rollup: Rollup,
    /// Nobody wants it (interest retention): it takes its sequence number and is not stored.
    pub unwanted: bool,
}

/// Conditions of a publish. They run against the pending state, in the order of the fields, then come the look for a
/// duplicate, and `last_id`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checks<'a> {
    /// The last message on a subject must have this sequence number.
    pub last_subject_seq: Option<SubjectSeq<'a>>,
    /// The stream's last sequence number must be this.
    pub last_seq: Option<u64>,
    /// The last message of the stream must have been published with the id of this hash.
    pub last_id: Option<u128>,
}

/// See [`Checks::last_subject_seq`].
#[derive(Clone, Copy, Debug)]
pub struct SubjectSeq<'a> {
    /// The subject, or a pattern: the last message over all that match then counts.
    pub filter: &'a [u8],
    /// The sequence number expected; zero for "no message".
    pub seq: u64,
}

/// What a message replaces when it has been stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rollup {
    /// Nothing.
    #[default]
    Nothing,
    /// All older messages of its subject.
    Subject,
    /// All older messages of the stream.
    Stream,
}

/// A publish that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its sequence number; that of the original for a duplicate.
    pub seq: u64,
    /// Its time; that of the asking for a duplicate.
    pub time: Time,
    /// Its id is known: it was not stored again.
    pub duplicate: bool,
    /// What the acknowledgement waits for; for a duplicate, what the original waits for.
    pub after: Pending,
}

/// A request that was not carried out. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub why: Refusal,
    /// What the refusal waits for, because it depends on it.
    pub after: Pending,
}

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// [`Checks::last_seq`] does not hold.
    LastSeq {
        /// The stream's last sequence number.
        last: u64,
    },
    /// [`Checks::last_subject_seq`] does not hold.
    LastSubjectSeq {
        /// The last sequence number on the subject; zero if it has no message.
        last: u64,
    },
    /// [`Checks::last_id`] does not hold.
    LastId {
        /// The id of the last message.
        last: Option<u128>,
    },
    /// Headers and payload exceed the stream's greatest message size.
    MessageTooLarge,
    /// The subject or the reply subject is longer than [`SUBJECT_BYTES_MAX`], or the subject empty.
    BadSubject,
    /// A time of its own on a stream that does not allow it.
    ExpiryNotAllowed,
    /// The stream is full by messages and discards new ones.
    MaxMessages,
    /// The stream is full by bytes and discards new messages.
    MaxBytes,
    /// The subject is full and the stream discards new messages per subject.
    MaxPerSubject,
    /// A message of an atomic batch is a duplicate, of a stored one or within the batch.
    DuplicateInBatch {
        /// The stored original; `None` if it is in the batch itself.
        original: Option<u64>,
    },
    /// The log takes no more at present.
    Full,
    /// No such message.
    NotFound,
    /// The answer depends on accounts that are not settled. [`settle`](super::Stream::settle), then ask again.
    Unsettled,
}

/// The first refused message of an atomic batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRefused {
    /// Its place in the batch, counted from zero.
    pub index: usize,
    /// The refusal.
    pub refused: Refused,
}

/// The log (or the store in memory) takes no more at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Where a message went.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// What its acknowledgement waits for.
    pub after: Pending,
    /// Bytes of its record in the log.
    pub record_bytes: u32,
}

/// Where a stream's records go, and what it tells on the way.
pub trait Sink {
    /// Appends one message. `first_live` is the stream's first number at this moment. On `Err` nothing was appended.
    fn message(&mut self, first_live: u64, message: &Message<'_>) -> Result<Appended, Full>;

    /// Appends an atomic batch as one transaction: all or nothing, also after a crash. `record_bytes` is pushed to
    /// once per message.
    fn batch(
        &mut self,
        first_live: u64,
        messages: &[Message<'_>],
        record_bytes: &mut Vec<u32>,
    ) -> Result<Pending, Full>;

    /// Appends a removal record (see [`Removal`](super::Removal)). To be taken from the reserve that a log keeps for
    /// removals. Not called for streams in memory.
    fn removal(&mut self, content: &[u8], urgency: Urgency) -> Result<Pending, Full>;

    /// `bytes` of a segment are needed no longer. What the stream has placed in a segment comes out as dead to the
    /// byte when its last message there goes.
    fn dead(&mut self, segment: SegmentNo, bytes: u64);

    /// Messages that can no longer be read (consumers forget them). Told once, at once; may hold numbers that were
    /// gone before.
    fn removed(&mut self, seqs: RangeInclusive<u64>);

    /// Streams in memory: the store may drop these messages.
    fn gone(&mut self, seqs: RangeInclusive<u64>) {
        let _ = seqs;
    }

    /// The last message of a subject went because of its age or its time.
    fn subject_expired(&mut self, subject: &[u8], seq: u64) {
        let _ = (subject, seq);
    }
}

/// Exact numbers of the pending state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Messages.
    pub messages: u64,
    /// Their bytes, as the stream's accounting counts.
    pub bytes: u64,
    /// The first message; the next number to be given if there is none, and zero if the stream never had one.
    pub first_seq: u64,
    /// Time of the first message; `None` if there is none.
    pub first_time: Option<Time>,
    /// The greatest number given so far.
    pub last_seq: u64,
    /// Time of the message with that number; `None` if the stream never had one.
    pub last_time: Option<Time>,
    /// Subjects with at least one message.
    pub subjects: u64,
    /// Numbers between first and last whose messages are gone.
    pub deleted: u64,
    /// What an answer with these numbers waits for.
    pub after: Pending,
}

/// Where to look for messages: read forward from a batch, run by run of this stream, and take what lies in the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// First sequence number to be looked at.
    pub from: u64,
    /// Last sequence number that is here, and to be looked at.
    pub upto: u64,
    /// The batch to start with: no message of the range lies before it in its segment, and none in another segment.
    /// `None` for streams in memory.
    pub position: Option<Position>,
}

/// The answer to "which message".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This one. It lives and is visible.
    Found {
        /// Its number.
        seq: u64,
        /// Where it is: `from` and `upto` are its number.
        block: Block,
    },
    /// None at all.
    None,
    /// Perhaps one of these: look at each that [`is_visible`](super::Stream::is_visible); if it is not among them, ask
    /// again beyond the block.
    Read(Block),
}

/// Whether the accounts are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// All limits are kept and all numbers exact.
    Done,
    /// Details are wanted of each message of the block that
    /// [`is_needed`](super::Stream::is_needed): read, [`supply`](super::Stream::supply), settle again.
    Needs(Block),
    /// What is wanted is not flushed yet: settle again when it is placed.
    AfterFlush,
    /// There is more to take away than one call does: settle again, after other work.
    Again,
}

/// What to remove from a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purge<'a> {
    /// Only messages whose subject this pattern matches.
    pub filter: Option<&'a [u8]>,
    /// Only messages below this number. With a filter, a purge that is not done at once has to be asked for again with
    /// the same bound: while messages come in, give one. What another bound was asked for is begun anew.
    pub below: Option<u64>,
    /// Keep the newest so many of those that would go.
    pub keep: u64,
}

/// The outcome of a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// So many were removed.
    Done {
        /// Messages removed.
        count: u64,
        /// What the answer waits for.
        after: Pending,
    },
    /// As [`Settled::Needs`]; then call again with the same request.
    Needs(Block),
    /// As [`Settled::AfterFlush`]; then call again with the same request.
    AfterFlush,
    /// Call again with the same request, after other work.
    Again,
}
