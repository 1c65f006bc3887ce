//! The segmented append-only log of a shard: decisions and bytes, no I/O.
//!
//! # Layout
//! A log is a sequence of *batches*, numbered from one without gaps, in *segments*, numbered from one. A segment is a
//! file `log-NNN/NNNNNNNN.segment`, named after its slot; when nothing in it is wanted any more, the slot serves
//! another segment. Beside the segments the file `log-NNN/newest` names the newest one ([`note`]). All integers are
//! little endian, all checksums CRC-32 (IEEE), all reserved bytes zero when written
//! and ignored when read. A block is 4096 bytes; segment heads and batches begin on blocks and end on them.
//!
//! ```text
//! segment   | head | batch | batch | …                      a block, then batches back to back
//! batch     | header | entry | entry | … | run | run | … | zeros up to a block
//! run       | record | record | …                           of one stream and one kind; begins at a multiple of 8
//! ```
//!
//! ## Head of a segment ([`SegmentHead`])
//! ```text
//!    0  8  magic "LEATSEG1"          40  8  bytes of the file          72  4  chain of its first batch
//!    8  2  version: 1                48  8  its first batch            76  4  epoch of the batch before
//!   10  2  flags                     56  4  segment before (0: none)   80     reserved
//!   12  2  log                       60  4  where that one ends      4092  4  checksum of the block
//!   14  2  reserved                  64  8  created, ns since 1970
//!   16 16  store
//!   32  4  segment
//!   36  4  reserved
//! ```
//!
//! ## Header of a batch ([`Head`])
//! ```text
//!    0  4  magic "LBAT" *            32  4  bytes, padding included *  64  4  chain: checksum of the head before
//!    4  2  version: 1 *              36  4  end of the last run        68  4  checksum of header and directory,
//!    6  2  flags                     40  8  flushed_upto: last batch          itself taken as zero *
//!    8  2  log                              known to be flushed        72  8  store tag
//!   10  2  bytes of an entry *       48  8  time of sealing            80  4  epoch: how often the log was opened
//!   12  4  runs *                    56  8  position of the latest     84 44  reserved
//!   16  4  segment                          complete checkpoint's
//!   20  4  byte of the segment              end (0: none)
//!   24  8  batch
//! ```
//! The fields marked * stay as and where they are in all versions, so that a reader can tell a later version, which it
//! refuses by name, from damage.
//!
//! ## Entry of the directory ([`RunEntry`])
//! ```text
//!    0  1  kind                      24  8  first sequence number      72  8  transaction (0: none)
//!    1  1  flags                     32  8  last sequence number       80 16  group, term (replication): reserved
//!    2  1  codec: 0                  40  8  first live sequence        96  4  key: reserved
//!    3  1  cipher: 0                        number of the stream      100  4  checksum of the content
//!    4  4  records                   48  8  time of the first         104 12  nonce: reserved
//!    8  4  where its content begins  56  8  time of the last          116  4  number of the part
//!          in the batch              64  8  birth: position where a   120  8  reserved
//!   12  4  bytes of its content             moved run was first
//!   16  8  stream (0: the log's own)
//! ```
//! Flags of an entry: 1 moved by cleaning, 2 parts of a large message, 4 completes its transaction, 128 may be skipped
//! by whoever does not know its kind or another of its flags. An entry may be longer than a reader knows; the rest is
//! ignored. In the flags of headers the low eight bits must be known to a reader, the high eight need not be.
//! A later version uses what is reserved here only under a flag, kind or version that this one does not know.
//!
//! ## Records
//! Numbers of variable length ([`varint`]) unless a width is given. A message:
//! ```text
//! flags: 1 byte      1 reply, 2 headers, 4 expires, 8 id, 16 subject as before, 32 part, 64 extension
//! sequence number    minus that of the record before; of the first record minus the entry's first, which is 0
//! time               minus that of the record before, or the entry's first; zigzag
//! bytes of subject   unless it is that of the record before
//! bytes of reply     if flagged
//! bytes of headers   if flagged
//! bytes of payload
//! expires: 8 bytes   if flagged
//! id: 16 bytes       if flagged
//! index, count       if a part
//! bytes, extension   if flagged; skipped by whoever does not know what is in it
//! subject, reply, headers, payload
//! ```
//! A record of another kind is its bytes and its content, which belongs to whoever appended it (a stream's removals are
//! described at [`Removal`](crate::stream::Removal)), but for those of the log itself.
//! A seal's is a form and numbers, see [`Seal`].
//!
//! ## Note of the newest segment ([`Note`])
//! ```text
//!    0  8  magic "LEATNOTE"          12  2  log                        32  4  segment
//!    8  2  version: 1                14  2  reserved                   36  4  its slot
//!   10  2  flags                     16 16  store                      40  4  checksum of all before
//! ```
//!
//! # Rules
//! * **Order.** Runs are replayed in the order of the directory. A record joins the latest run of its stream if kind,
//!   birth segment and transaction are the same, else it opens a new run, so that each stream's records keep their
//!   order. Streams among each other have none within a batch.
//! * **Size.** A run of [`RUN_BYTES`] takes no more records: a single message is found by reading and verifying about
//!   as much, and a damaged byte spoils no more. Messages above [`RECORD_BYTES_MAX`] come in parts, cut from the
//!   string of headers and payload, in runs of one transaction, the last of which completes it. A transaction counts
//!   when it is complete. So come larger control records of streams too: the shares of a record are the records of one
//!   transaction.
//! * **First live.** A run tells the first sequence number of its stream, so that what limits have removed stays
//!   removed without records of its own. No flag announces it: zero says that it was not told.
//! * **Birth.** A moved run holds messages that were born in one segment; its birth is the newest of theirs.
//! * **Epochs** rise with each opening of the log and never decrease along it. So what a recovery has cut off is
//!   known for it even where later batches lie before it in the same segment.
//! * **Chain.** Each head repeats the checksum of the one before, across segments too, so that none can be missing or
//!   be exchanged unnoticed. Contents are not part of it: erasing or damaging one breaks no chain.
//! * **Note.** It names a segment only after the first commit of that one has been flushed, and is exchanged as a whole
//!   (written under another name, flushed, renamed). Where the log ends before the segment that it names, that segment is
//!   lost, and segments are numbered from behind it on: should the file come back, it is no part of the log any more.
//! * **Empty batches**, with or without a run of kind `Mark`, only carry `flushed_upto` on.
//!
//! What is damage and what a torn tail is said in [`scan`].

pub mod aligned;
pub mod batch;
pub mod builder;
pub mod checkpoint;
pub mod clean;
pub mod durable;
pub mod entry;
mod field;
pub mod flaw;
mod footer;
pub mod fragment;
pub mod ids;
#[expect(clippy::module_inception, reason = "the log of the module's name")]
pub mod log;
pub mod message;
pub mod note;
pub mod record;
pub mod recover;
pub mod request;
pub mod run;
pub mod scan;
pub mod segment;
pub mod segments;
pub mod varint;

pub use aligned::AlignedBuf;
pub use batch::{BATCH_BYTES_MAX, BATCH_HEAD_BYTES, Batch, Expect, Head, Next, Run, Summary, parse, parse_directory};
pub use builder::{BatchBuilder, RECORD_BYTES_MAX, RUN_BYTES, Sealed};
pub use durable::{Durable, Pending, Waiting};
pub use entry::{ENTRY_BYTES, Part, RunEntry, Transaction};
pub use flaw::{Defect, Flaw};
pub use fragment::{Assembler, Fragment, fragments, needs_fragments};
pub use ids::{BLOCK_BYTES, BatchNo, Incarnation, LogId, Position, SegmentNo, Slot, Time};
pub use log::{Event, Log, Options, Refused};
pub use message::Message;
pub use note::{NOTE_BYTES_MAX, Note};
pub use record::{FragmentNo, Record, Records, control_records, messages, records};
pub use request::{Answer, DiskFault, Outcome, Request, RequestId};
pub use run::{Detail, Kind, PlacedRun, RIDE_ALONG_NS, Urgency};
pub use scan::{Damage, Depth, End, Plan, Proven, Scan, Step, Tail};
pub use segment::{Seal, SegmentHead, StoreId, StreamSummary};

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod scan_tests;
