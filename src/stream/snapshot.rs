//! A stream as bytes, and back: what a checkpoint holds of it.
//!
//! The snapshot is that of the pending state. Runs that were not placed when it was taken are found by replay, which
//! begins early enough (see [`Stream::snapshot`]).
//!
//! Layout: version, configuration (JSON, with its length), then varints and the parts in the order of
//! [`Stream::snapshot`]. It lies in runs that have their own checksums.

use super::codec::{Reader, put, put_bytes, put_signed};
use super::*;

const VERSION: u64 = 1;

impl Stream {
    /// Appends a snapshot to `out`. Removals that the log does not know yet are recorded first, so that replay from an
    /// older snapshot finds them.
    ///
    /// Replay must begin with the batch of the oldest run that is not placed yet, or earlier: what the snapshot knows
    /// already is recognised.
    ///
    /// # Errors
    /// The log takes no more; nothing has changed.
    pub fn snapshot(&mut self, sink: &mut impl Sink, out: &mut Vec<u8>) -> Result<(), Full> {
        self.record_removals(Urgency::RideAlong, sink)?;
        put(out, VERSION);
        put_bytes(out, &serde_json::to_vec(&*self.config).expect("a configuration is plain data"));
        for number in [self.first, self.last, self.messages, self.bytes, self.placed, self.lost] {
            put(out, number);
        }
        for time in [self.first_time, self.last_time] {
            put(out, u64::from(time.is_some()));
            put_signed(out, time.unwrap_or(0));
        }
        put(out, u64::from(self.last_id.is_some()));
        out.extend_from_slice(&self.last_id.unwrap_or(0).to_le_bytes());
        for seqs in [&self.deleted, &self.owed, &self.owed_by_age, &self.exempt] {
            seqs.encode(out);
        }
        self.dedup.as_deref().unwrap_or(&Dedup::new()).encode(out);
        self.expiry.encode(out);
        self.index.encode(out);
        self.space.encode(out);
        put(out, self.pieces.len() as u64);
        for (seq, pieces) in &self.pieces {
            put(out, *seq);
            put(out, pieces.len() as u64);
            for piece in pieces {
                put(out, piece.number.into());
                put(out, u64::from(piece.segment.0));
                put(out, u64::from(piece.bytes));
            }
        }
        self.encode_subjects(out);
        self.encode_head(out);
        Ok(())
    }

    /// The stream of a snapshot. Nothing of it waits for a flush.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn restore(bytes: &[u8], incarnation: Incarnation) -> Result<Self, Flaw> {
        let reader = &mut Reader::new(bytes);
        if reader.number()? != VERSION {
            return Err(Flaw("version of the snapshot"));
        }
        let config: Config = serde_json::from_slice(reader.bytes()?).map_err(|_| Flaw("configuration"))?;
        config.validate().map_err(|_| Flaw("configuration"))?;
        let mut stream = Self::new(config, incarnation);
        stream.first = reader.number()?;
        stream.last = reader.number()?;
        stream.messages = reader.number()?;
        stream.bytes = reader.number()?;
        stream.placed = reader.number()?;
        stream.lost = reader.number()?;
        if stream.first == 0 || stream.last >= config::SEQ_MAX || stream.first > stream.last + 1 {
            return Err(Flaw("numbers"));
        }
        for time in [&mut stream.first_time, &mut stream.last_time] {
            let is_some = reader.number()? != 0;
            let value = reader.signed()?;
            *time = is_some.then_some(value);
        }
        let has_id = reader.number()? != 0;
        let id = u128::from_le_bytes(reader.array()?);
        stream.last_id = has_id.then_some(id);
        stream.deleted = Seqs::decode(reader)?;
        stream.owed = Seqs::decode(reader)?;
        stream.owed_by_age = Seqs::decode(reader)?;
        stream.exempt = Seqs::decode(reader)?;
        stream.dedup = Some(Dedup::decode(reader)?).filter(|dedup| !dedup.is_empty()).map(Box::new);
        stream.expiry = Expiry::decode(reader)?;
        stream.index = Index::decode(reader)?;
        stream.space = Space::decode(reader)?;
        for _ in 0..reader.count()? {
            let seq = reader.number()?;
            let mut pieces = Vec::new();
            for _ in 0..reader.count()? {
                let number = reader.small()?;
                pieces.push(Piece { number, segment: SegmentNo(reader.small()?), bytes: reader.small()? });
            }
            stream.pieces.insert(seq, pieces);
        }
        stream.decode_subjects(reader)?;
        stream.decode_head(reader)?;
        reader.end()?;
        if stream.live_in(stream.first..=stream.last) != stream.messages {
            return Err(Flaw("number of messages"));
        }
        stream.bits_from = stream.last + 1;
        stream.find_crowded();
        Ok(stream)
    }

    fn encode_subjects(&self, out: &mut Vec<u8>) {
        put(out, self.subjects.len());
        self.subjects.visit_all(|id, subject| {
            put_bytes(out, self.subjects.text(id));
            put(out, subject.count);
            put(out, subject.last);
            put(out, subject.last.saturating_sub(subject.first));
            put(out, u64::from(subject.is_exact));
            put(out, u64::from(subject.size));
            let older = self.subjects.older(id);
            put(out, older.clone().count() as u64);
            let mut before = 0;
            for kept in older {
                put(out, kept.seq - before);
                put(out, u64::from(kept.size));
                put(out, u64::from(kept.record));
                before = kept.seq;
            }
        });
    }

    fn decode_subjects(&mut self, reader: &mut Reader<'_>) -> Result<(), Flaw> {
        let mut counted = 0_u64;
        for _ in 0..reader.count()? {
            let text = reader.bytes()?;
            let (count, last) = (reader.number()?, reader.number()?);
            let first = last.checked_sub(reader.number()?).ok_or(Flaw("subject's first message"))?;
            let is_exact = reader.number()? != 0;
            let size = reader.small()?;
            let mut older = VecDeque::new();
            let mut before = 0_u64;
            for _ in 0..reader.count()? {
                let seq = before.checked_add(reader.number()?).ok_or(Flaw("subject's messages"))?;
                older.push_back(Kept { seq, size: reader.small()?, record: reader.small()? });
                before = seq;
            }
            let is_sound = count > 0
                && last <= self.last
                && older.back().is_none_or(|kept| kept.seq < last)
                && (older.len() as u64) < count
                && text.len() <= SUBJECT_BYTES_MAX
                && self.subjects.find(text).is_none()
                && self.subjects.has_room();
            if !is_sound {
                return Err(Flaw("subject"));
            }
            counted = counted.checked_add(count).ok_or(Flaw("number of messages"))?;
            let bounds = subjects::Subject { count, first, last, is_exact, size };
            self.subjects.restore(text, bounds, older);
        }
        if counted != self.messages + self.owed.len() + self.lost {
            return Err(Flaw("messages of the subjects"));
        }
        Ok(())
    }

    fn encode_head(&self, out: &mut Vec<u8>) {
        put(out, self.head.upto());
        put(out, self.head.len() as u64);
        let mut before = 0;
        for known in self.head.iter() {
            put(out, known.seq - before);
            put_signed(out, known.time);
            put_bytes(out, self.subjects.text(known.subject));
            put(out, u64::from(known.size));
            put(out, u64::from(known.record));
            before = known.seq;
        }
    }

    fn decode_head(&mut self, reader: &mut Reader<'_>) -> Result<(), Flaw> {
        let upto = reader.number()?;
        let mut head = Head::default();
        let mut before = 0_u64;
        for _ in 0..reader.count()? {
            let seq =
                before.checked_add(reader.number()?).filter(|seq| *seq > before).ok_or(Flaw("oldest messages"))?;
            let time = reader.signed()?;
            let subject = self.subjects.find(reader.bytes()?).ok_or(Flaw("subject of the oldest messages"))?;
            let (size, record) = (reader.small()?, reader.small()?);
            if !self.is_live(seq) || seq > upto {
                return Err(Flaw("oldest messages"));
            }
            head.push(Known { seq, time, subject, size, record });
            before = seq;
        }
        head.extend(upto);
        if self.messages > 0 && upto >= self.first && self.live_in(self.first..=upto) != head.len() as u64 {
            return Err(Flaw("oldest messages"));
        }
        self.head = head;
        Ok(())
    }
}
