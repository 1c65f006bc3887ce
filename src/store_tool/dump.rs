//! The messages of a stream, one line of JSON each.

use std::io::{self, Write};
use std::ops::RangeInclusive;

use serde::Serialize;
use serde_json::{Map, Value};

use super::describe::{self, Bytes};
use super::directory::{StoreDirectory, Unusable};
use super::reading::Reading;
use crate::log::recover::survey::survey;
use crate::log::{Depth, Incarnation, LogId, Message, Step};
use crate::stream::{Lookup, NEVER};

/// Which messages of which stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The number of the stream, or its name.
    pub stream: String,
    /// Its log, where several have such a stream.
    pub log: Option<u16>,
    /// Messages with these sequence numbers.
    pub seqs: RangeInclusive<u64>,
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub struct Dumped {
    /// Messages written.
    pub messages: u64,
    /// Messages that live and cannot be read.
    pub lost: Vec<RangeInclusive<u64>>,
}

/// A stream that was found.
pub struct Found<'a> {
    reading: Reading<'a>,
    stream: Incarnation,
}

/// Finds a stream by its number or its name. A number goes before a name of the same digits.
///
/// # Errors
/// When a log cannot be opened, or there is not exactly one such stream.
pub fn find<'a>(directory: &StoreDirectory, wanted: &Wanted, on_read: &'a dyn Fn(u64)) -> Result<Found<'a>, Unusable> {
    let number = wanted.stream.parse().ok().and_then(Incarnation::new);
    let (mut numbered, mut named) = (Vec::new(), Vec::new());
    for log in directory.logs().iter().filter(|log| wanted.log.is_none_or(|of| of == log.0)) {
        let reading = open(directory, *log, on_read)?;
        let store = reading.store();
        if let Some(of) = number.filter(|of| store.stream(*of).is_some()) {
            numbered.push((*log, of));
        }
        let of_name = |of: &Incarnation| {
            store.stream_meta(*of).and_then(describe::name).is_some_and(|name| name == wanted.stream)
        };
        named.extend(store.streams().filter(of_name).map(|of| (*log, of)));
    }
    let all = if numbered.is_empty() { named } else { numbered };
    match all[..] {
        [(log, stream)] => Ok(Found { reading: open(directory, log, on_read)?, stream }),
        [] => Err(Unusable::Stream(format!("there is no stream {:?} (see leat store inspect)", wanted.stream))),
        _ => {
            let places = all.iter().map(|(log, of)| format!("{} in log {}", of.get(), log.0)).collect::<Vec<_>>();
            Err(Unusable::Stream(format!(
                "several streams are called {:?}: {}; choose with --log or by number",
                wanted.stream,
                places.join(", ")
            )))
        }
    }
}

/// Opens a log as it was when its last batch was written.
fn open<'a>(directory: &StoreDirectory, log: LogId, on_read: &'a dyn Fn(u64)) -> Result<Reading<'a>, Unusable> {
    let refused = |refusal| Unusable::Refused(directory.path_of(log), refusal);
    let mut files = directory.files(log, on_read);
    let time = survey(&mut files, log, directory.store(), |survey| {
        let mut time = 0;
        if let Some(end) = survey.end() {
            survey.scan(end.position.segment(), Depth::Directories, |step| {
                if let Step::Batch(batch) = step {
                    time = batch.head().time;
                }
            });
        }
        time
    });
    Reading::open(files, log, directory.store(), time.map_err(refused)?).map_err(refused)
}

impl Found<'_> {
    /// Writes the messages in order of their sequence numbers.
    ///
    /// # Errors
    /// When writing fails.
    pub fn dump(&mut self, seqs: RangeInclusive<u64>, out: &mut impl Write) -> io::Result<Dumped> {
        let mut dumped = Dumped { messages: 0, lost: Vec::new() };
        let mut from = *seqs.start();
        while let Some(seq) = self.next(from).filter(|seq| seqs.contains(seq)) {
            let mut written = Ok(());
            if self.reading.message(self.stream, seq, |message| written = write_line(message, out)) {
                dumped.messages += 1;
            } else {
                describe::push(&mut dumped.lost, seq);
            }
            written?;
            let Some(next) = seq.checked_add(1) else { break };
            from = next;
        }
        Ok(dumped)
    }

    fn next(&self, from: u64) -> Option<u64> {
        match self.reading.store().stream(self.stream)?.next(from) {
            Lookup::Found { seq, .. } => Some(seq),
            Lookup::None | Lookup::Read(_) => None,
        }
    }
}

/// A message. Each of its texts has a member `…_encoding` beside it that says how it is written: `text` or `base64`.
#[derive(Serialize)]
struct Line {
    seq: u64,
    time: String,
    #[serde(flatten)]
    parts: Map<String, Value>,
}

fn write_line(message: &Message<'_>, out: &mut impl Write) -> io::Result<()> {
    let mut parts = Map::new();
    let mut put = |name: &str, bytes: &[u8]| {
        let Bytes { encoding, data } = Bytes::of(bytes);
        parts.insert(name.to_owned(), data.into());
        parts.insert(format!("{name}_encoding"), encoding.into());
    };
    put("subject", message.subject);
    if !message.reply.is_empty() {
        put("reply", message.reply);
    }
    if !message.headers.is_empty() {
        put("headers", message.headers);
    }
    put("payload", message.payload);
    if let Some(expires) = message.expires {
        let expires = if expires == NEVER { "never".to_owned() } else { describe::time(expires) };
        parts.insert("expires".to_owned(), expires.into());
    }
    serde_json::to_writer(&mut *out, &Line { seq: message.seq, time: describe::time(message.time), parts })?;
    out.write_all(b"\n")
}
