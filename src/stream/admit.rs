//! Publishing: checks, duplicates, limits that refuse, and the limits that take old messages away.

use hashbrown::HashMap;

use super::subjects::Subjects;
use super::*;
use crate::first::First as _;
use crate::log::Message;

/// What the earlier messages of an atomic batch will have done when a later one is looked at.
#[derive(Default)]
struct Ahead<'a> {
    count: u64,
    bytes: u64,
    last_id: Option<u128>,
    ids: Vec<u128>,
    /// Messages and last number by subject.
    subjects: HashMap<&'a [u8], (u64, u64), foldhash::fast::RandomState>,
    /// Messages and bytes of them that give way.
    replaced: (u64, u64),
}

/// What passed the checks.
enum Passed {
    Store { size: u32 },
    Duplicate { seq: u64 },
}

impl Stream {
    /// Stores a message, or refuses it, or recognises it as a duplicate.
    ///
    /// # Errors
    /// The refusal and what it waits for; nothing has changed. After [`Refusal::Unsettled`]: settle, then call again
    /// before any other publish.
    pub fn admit(&mut self, now: Time, message: &Inbound<'_>, sink: &mut impl Sink) -> Result<Admitted, Refused> {
        let time = self.time(now);
        self.forget_ids(time);
        let size = match self.check(message, None).map_err(|why| self.refused(why))? {
            Passed::Duplicate { seq } => {
                return Ok(Admitted { seq, time, duplicate: true, after: self.pending_of(seq) });
            }
            Passed::Store { size } => size,
        };
        let seq = self.last + 1;
        if message.unwanted {
            let after = self.skip(seq, time, message.id, sink).map_err(|Full| self.refused(Refusal::Full))?;
            return Ok(Admitted { seq, time, duplicate: false, after });
        }
        let replaced = self.replaced_by(message).map_err(|why| self.refused(why))?;
        let record = record_of(message, seq, time);
        let appended = sink.message(self.first, &record).map_err(|Full| self.refused(Refusal::Full))?;
        if message.rollup == Rollup::Stream {
            self.clear_before(sink);
        }
        let before = self.to_give_way(message.subject);
        self.append(appended.after, seq);
        self.store(&record, size, appended.record_bytes);
        if message.rollup == Rollup::Stream {
            self.replace_all(seq, sink);
        }
        self.replace(replaced, sink);
        self.enforce_on(message.subject, before, sink);
        self.enforce_after(sink);
        Ok(Admitted { seq, time, duplicate: false, after: appended.after })
    }

    /// Stores all messages of an atomic batch, or none. They get numbers in a row; the answer is that of the last.
    /// Rollups and unwanted messages cannot be part of a batch.
    ///
    /// # Errors
    /// The first message refused, and why; nothing has changed.
    pub fn admit_batch(
        &mut self,
        now: Time,
        messages: &[Inbound<'_>],
        sink: &mut impl Sink,
    ) -> Result<Admitted, BatchRefused> {
        let time = self.time(now);
        self.forget_ids(time);
        let mut ahead = Ahead { last_id: self.last_id, ..Ahead::default() };
        let mut sizes = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let refused = |why| BatchRefused { index, refused: self.refused(why) };
            match self.check(message, Some(&ahead)).map_err(refused)? {
                Passed::Duplicate { seq } => {
                    return Err(refused(Refusal::DuplicateInBatch { original: Some(seq) }));
                }
                Passed::Store { size } => sizes.push(size),
            }
            self.look_ahead(&mut ahead, message, *sizes.last().unwrap_or(&0));
        }
        let records: Vec<Message<'_>> = messages
            .iter()
            .enumerate()
            .map(|(nth, message)| record_of(message, self.last + 1 + nth as u64, time))
            .collect();
        let mut record_bytes = Vec::with_capacity(records.len());
        let after = sink
            .batch(self.first, &records, &mut record_bytes)
            .map_err(|Full| BatchRefused { index: 0, refused: self.refused(Refusal::Full) })?;
        let mut before = Vec::with_capacity(records.len());
        for ((record, size), bytes) in records.iter().zip(sizes).zip(record_bytes) {
            before.push(self.to_give_way(record.subject));
            self.append(after, record.seq);
            self.store(record, size, bytes);
        }
        for (record, before) in records.iter().zip(before) {
            self.enforce_on(record.subject, before, sink);
        }
        self.enforce_after(sink);
        Ok(Admitted { seq: self.last, time, duplicate: false, after })
    }

    pub(super) fn refused(&self, why: Refusal) -> Refused {
        Refused { why, after: self.latest }
    }

    /// Timestamps never go back within a stream.
    fn time(&self, now: Time) -> Time {
        self.last_time.map_or(now, |last| last.max(now))
    }

    fn check(&self, message: &Inbound<'_>, ahead: Option<&Ahead<'_>>) -> Result<Passed, Refusal> {
        let checks = &message.checks;
        if let Some(expected) = &checks.last_subject_seq {
            let last = self.last_matching(expected.filter, ahead)?;
            if last != expected.seq {
                return Err(Refusal::LastSubjectSeq { last });
            }
        }
        if let Some(expected) = checks.last_seq {
            let last = self.last + ahead.map_or(0, |ahead| ahead.count);
            if last != expected {
                return Err(Refusal::LastSeq { last });
            }
        }
        if let Some(id) = message.id.filter(|_| self.config.duplicate_window > 0) {
            if ahead.is_some_and(|ahead| ahead.ids.contains(&id)) {
                return Err(Refusal::DuplicateInBatch { original: None });
            }
            if let Some(seq) = self.dedup.as_ref().and_then(|dedup| dedup.find(id)) {
                return Ok(Passed::Duplicate { seq });
            }
        }
        if checks.last_id.is_some() {
            let last = ahead.map_or(self.last_id, |ahead| ahead.last_id);
            if last != checks.last_id {
                return Err(Refusal::LastId { last });
            }
        }
        let longest = message.subject.len().max(message.reply.len());
        if message.subject.is_empty() || longest > SUBJECT_BYTES_MAX {
            return Err(Refusal::BadSubject);
        }
        let body = message.headers.len() + message.payload.len();
        if self.config.max_message_bytes.is_some_and(|max| body > max as usize) {
            return Err(Refusal::MessageTooLarge);
        }
        if message.expires.is_some() && !self.config.allow_expiry {
            return Err(Refusal::ExpiryNotAllowed);
        }
        let size = self.config.accounting.size(message.subject.len(), message.headers.len(), message.payload.len());
        if message.unwanted {
            return Ok(Passed::Store { size });
        }
        if !self.subjects.has_room() {
            return Err(Refusal::Full);
        }
        if self.config.discard == Discard::New {
            self.check_room(message, size, ahead)?;
        }
        Ok(Passed::Store { size })
    }

    /// The limits of a stream that discards new messages.
    fn check_room(&self, message: &Inbound<'_>, size: u32, ahead: Option<&Ahead<'_>>) -> Result<(), Refusal> {
        let on_subject = self.count_on(message.subject, ahead);
        let is_crowded = self.config.max_per_subject.is_some_and(|max| on_subject >= max);
        if is_crowded
            && !self.owed.is_empty()
            && self.subjects.find(message.subject).is_some_and(|id| !self.subjects.is_listed(id))
        {
            return Err(Refusal::Unsettled);
        }
        if is_crowded && self.config.discard_new_per_subject && message.rollup == Rollup::Nothing {
            return Err(Refusal::MaxPerSubject);
        }
        // One of the same subject gives way to it.
        let replaces = is_crowded && !self.config.discard_new_per_subject;
        let (count, bytes, replaced) = ahead.map_or((0, 0, (0, 0)), |ahead| (ahead.count, ahead.bytes, ahead.replaced));
        if let Some(max) = self.config.max_messages {
            let gone = replaced.0 + u64::from(replaces);
            if self.messages + count + 1 > max.saturating_add(gone) {
                return Err(Refusal::MaxMessages);
            }
        }
        if let Some(max) = self.config.max_bytes {
            let wanted = self.bytes + bytes + u64::from(size);
            let gone = replaced.1 + if replaces { self.oldest_size(message.subject) } else { 0 };
            if wanted > max.saturating_add(gone) {
                // Owed messages might make this wrong: then it is no answer yet.
                return Err(if self.owed.is_empty() { Refusal::MaxBytes } else { Refusal::Unsettled });
            }
        }
        Ok(())
    }

    /// Messages of a subject that live, as far as that is known.
    fn count_on(&self, subject: &[u8], ahead: Option<&Ahead<'_>>) -> u64 {
        let stored = self.subjects.find(subject).map_or(0, |id| {
            let dead = if self.owed.is_empty() {
                0
            } else {
                let last = self.subjects.last(id).map(|last| last.seq);
                self.subjects.older(id).map(|kept| kept.seq).chain(last).filter(|seq| !self.is_live(*seq)).count()
            };
            self.subjects.get(id).count - dead as u64
        });
        stored + ahead.and_then(|ahead| ahead.subjects.get(subject)).map_or(0, |(count, _)| *count)
    }

    /// Size of a subject's oldest message; zero where that is not known (see [`Config::max_per_subject`]).
    fn oldest_size(&self, subject: &[u8]) -> u64 {
        let Some(id) = self.subjects.find(subject) else { return 0 };
        if !self.subjects.is_listed(id) {
            return self.head.iter().find(|known| known.subject == id).map_or(0, |known| u64::from(known.size));
        }
        let mut kept = self.subjects.older(id).chain(self.subjects.last(id));
        kept.find(|kept| self.is_live(kept.seq)).map_or(0, |kept| u64::from(kept.size))
    }

    /// Number of the last message that `filter` matches; zero if there is none.
    fn last_matching(&self, filter: &[u8], ahead: Option<&Ahead<'_>>) -> Result<u64, Refusal> {
        if let Some(ahead) = ahead
            && let Some(last) = ahead
                .subjects
                .iter()
                .filter(|(subject, _)| crate::subject::matches(filter, subject) || **subject == filter)
                .map(|(_, (_, last))| *last)
                .max()
        {
            return Ok(last);
        }
        let (mut last, mut bound) = (0, 0);
        self.subjects.visit(filter, |_, subject| {
            if subject.is_exact && self.is_live(subject.last) {
                last = last.max(subject.last);
            } else {
                bound = bound.max(subject.last);
            }
            true
        });
        if bound > last { Err(Refusal::Unsettled) } else { Ok(last) }
    }

    fn look_ahead<'a>(&self, ahead: &mut Ahead<'a>, message: &Inbound<'a>, size: u32) {
        let on_subject = self.count_on(message.subject, Some(ahead));
        if self.config.max_per_subject.is_some_and(|max| on_subject >= max) {
            ahead.replaced.0 += 1;
            let own = ahead.subjects.get(message.subject).map_or(0, |(count, _)| *count);
            if own == 0 {
                ahead.replaced.1 += self.oldest_size(message.subject);
            }
        }
        ahead.count += 1;
        ahead.bytes += u64::from(size);
        ahead.last_id = message.id;
        ahead.ids.extend(message.id);
        let of_subject = ahead.subjects.entry(message.subject).or_default();
        *of_subject = (of_subject.0 + 1, self.last + ahead.count);
    }

    /// A number is taken by a message that nobody wants.
    fn skip(&mut self, seq: u64, time: Time, id: Option<u128>, sink: &mut impl Sink) -> Result<Pending, Full> {
        let before = self.last_time.replace(time);
        self.unrecorded.insert(seq);
        let after = match self.record_removals(Urgency::Now, sink) {
            Ok(after) => after,
            Err(full) => {
                self.last_time = before;
                self.unrecorded.remove(seq);
                return Err(full);
            }
        };
        self.append(after, seq);
        self.take_numbers(seq);
        if let Some(id) = id.filter(|_| self.config.duplicate_window > 0) {
            self.remember_id(id, seq, time);
        }
        Ok(after)
    }

    /// Gives numbers to no message.
    pub(super) fn take_numbers(&mut self, upto: u64) {
        if upto <= self.last {
            return;
        }
        let covers_all = self.head.upto() == self.last;
        if self.messages == 0 {
            self.first = upto + 1;
        } else {
            self.deleted.insert_range(self.last + 1..=upto);
        }
        if self.index.is_masked() && upto == self.last + 1 {
            self.bits.push_back(0);
        } else {
            // Whatever the bits were for cannot be excluded from its block.
            self.bits.clear();
            self.bits_from = upto + 1;
        }
        self.last = upto;
        if covers_all {
            self.head.extend(upto);
        }
    }

    fn append(&mut self, after: Pending, seq: u64) {
        self.note_pending(after);
        match self.in_flight.back_mut() {
            Some((pending, last)) if *pending == after => *last = seq,
            _ if after.is_none() => {}
            _ => {
                self.in_flight.reserve_first();
                self.in_flight.push_back((after, seq));
            }
        }
    }

    pub(super) fn note_pending(&mut self, after: Pending) {
        self.latest = self.latest.max(after);
    }

    /// Enters a message with the next number into everything.
    pub(super) fn store(&mut self, message: &Message<'_>, size: u32, record: u32) {
        let (seq, time) = (message.seq, message.time);
        debug_assert!(seq == self.last + 1, "{seq} after {}", self.last);
        assert!(seq < config::SEQ_MAX, "out of numbers");
        let covers_all = self.head.upto() == self.last;
        let keep = self.keeps_older();
        let subject = self.subjects.push(message.subject, Kept { seq, size, record }, keep);
        if self.index.is_masked() {
            self.bits.push_back(Subjects::mask_bit(message.subject));
        } else if self.subjects.len() > 1 && !self.config.is_memory() {
            self.index.start_masks();
            self.bits_from = seq + 1;
        }
        self.last = seq;
        self.last_time = Some(time);
        self.last_id = message.id;
        if self.messages == 0 {
            self.first = seq;
            self.first_time = Some(time);
            self.deleted.remove_below(seq);
        }
        self.messages += 1;
        self.bytes += u64::from(size);
        if covers_all && self.head.len() < self.head_max() {
            self.head.push(Known { seq, time, subject, size, record });
        }
        if let Some(expires) = message.expires {
            if expires == NEVER {
                self.exempt.insert(seq);
            } else {
                self.expiry.insert(seq, expires);
                let Self { expiry, first, last, deleted, messages, .. } = self;
                expiry.sweep(*messages, |seq| seq >= *first && seq <= *last && !deleted.contains(seq));
            }
        }
        if let Some(id) = message.id.filter(|_| self.config.duplicate_window > 0) {
            self.remember_id(id, seq, time);
        }
    }

    fn remember_id(&mut self, id: u128, seq: u64, time: Time) {
        let dedup = self.dedup.get_or_insert_with(|| Box::new(Dedup::new()));
        dedup.insert(id, seq, time, self.config.duplicate_window, self.config.duplicate_ids_max);
    }

    /// Forgets ids that have left the window.
    pub(super) fn forget_ids(&mut self, now: Time) {
        if let Some(dedup) = &mut self.dedup {
            dedup.expire(now, self.config.duplicate_window);
        }
    }
}

fn record_of<'a>(message: &Inbound<'a>, seq: u64, time: Time) -> Message<'a> {
    Message {
        seq,
        time,
        subject: message.subject,
        reply: message.reply,
        headers: message.headers,
        payload: message.payload,
        expires: message.expires,
        id: message.id,
    }
}
