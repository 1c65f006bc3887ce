//! What a stream should do, without any thought of memory or time.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use crate::subject::matches;

/// A message of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) time: Time,
    pub(crate) subject: Vec<u8>,
    pub(crate) headers: usize,
    pub(crate) payload: usize,
    pub(crate) expires: Option<Time>,
    pub(crate) id: Option<u128>,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) config: Config,
    pub(crate) messages: BTreeMap<u64, Stored>,
    pub(crate) last: u64,
    pub(crate) last_time: Option<Time>,
    pub(crate) last_id: Option<u128>,
    pub(crate) ids: BTreeMap<u128, (u64, Time)>,
    in_batch: bool,
}

impl Model {
    pub(crate) fn new(config: Config) -> Self {
        let last = config.first_seq.max(1) - 1;
        Self {
            config,
            messages: BTreeMap::new(),
            last,
            last_time: None,
            last_id: None,
            ids: BTreeMap::new(),
            in_batch: false,
        }
    }

    pub(crate) fn size(&self, stored: &Stored) -> u64 {
        u64::from(self.config.accounting.size(stored.subject.len(), stored.headers, stored.payload))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.messages.values().map(|stored| self.size(stored)).sum()
    }

    /// The numbers that a settled stream tells of itself, but for what an answer with them waits for.
    pub(crate) fn state(&self, after: Pending) -> State {
        let subjects = self.messages.values().map(|stored| &stored.subject).collect::<BTreeSet<_>>();
        State {
            messages: self.messages.len() as u64,
            bytes: self.bytes(),
            first_seq: if self.last == 0 { 0 } else { self.first() },
            first_time: self.messages.values().next().map(|stored| stored.time),
            last_seq: self.last,
            last_time: self.last_time,
            subjects: subjects.len() as u64,
            deleted: self.last + 1 - self.first() - self.messages.len() as u64,
            after,
        }
    }

    pub(crate) fn first(&self) -> u64 {
        self.messages.keys().next().copied().unwrap_or(self.last + 1)
    }

    pub(crate) fn matching(&self, filter: &[u8]) -> impl DoubleEndedIterator<Item = u64> + '_ {
        let filter = filter.to_vec();
        self.messages.iter().filter(move |(_, stored)| matches(&filter, &stored.subject)).map(|(seq, _)| *seq)
    }

    fn on(&self, subject: &[u8]) -> Vec<u64> {
        self.messages.iter().filter(|(_, stored)| stored.subject == subject).map(|(seq, _)| *seq).collect()
    }

    /// The stream may remember an id a little longer than the window: then `is_known` tells.
    pub(crate) fn admit(&mut self, now: Time, m: &Inbound<'_>, is_known: bool) -> Result<(u64, bool), Refusal> {
        let time = self.last_time.map_or(now, |last| last.max(now));
        if let Some(expected) = &m.checks.last_subject_seq {
            let last = self.matching(expected.filter).next_back().unwrap_or(0);
            if last != expected.seq {
                return Err(Refusal::LastSubjectSeq { last });
            }
        }
        if m.checks.last_seq.is_some_and(|expected| expected != self.last) {
            return Err(Refusal::LastSeq { last: self.last });
        }
        if let Some((seq, stored_at)) = m.id.and_then(|id| self.ids.get(&id)) {
            let window = self.config.duplicate_window;
            if stored_at + window > time || is_known && stored_at + window + window / 32 > time {
                return Ok((*seq, true));
            }
        }
        if m.checks.last_id.is_some() && m.checks.last_id != self.last_id {
            return Err(Refusal::LastId { last: self.last_id });
        }
        if self.config.max_message_bytes.is_some_and(|max| m.headers.len() + m.payload.len() > max as usize) {
            return Err(Refusal::MessageTooLarge);
        }
        let stored = Stored {
            time,
            subject: m.subject.to_vec(),
            headers: m.headers.len(),
            payload: m.payload.len(),
            expires: m.expires,
            id: m.id,
        };
        if !m.unwanted && self.config.discard == Discard::New {
            let on_subject = self.on(m.subject);
            let is_crowded = self.config.max_per_subject.is_some_and(|max| on_subject.len() as u64 >= max);
            if is_crowded && self.config.discard_new_per_subject && m.rollup == Rollup::Nothing {
                return Err(Refusal::MaxPerSubject);
            }
            let replaces = is_crowded && !self.config.discard_new_per_subject;
            let after = self.messages.len() as u64 + 1 - u64::from(replaces);
            if self.config.max_messages.is_some_and(|max| after > max) {
                return Err(Refusal::MaxMessages);
            }
            let replaced = if replaces { self.size(&self.messages[&on_subject[0]]) } else { 0 };
            let after = self.bytes() + self.size(&stored) - replaced;
            if self.config.max_bytes.is_some_and(|max| after > max) {
                return Err(Refusal::MaxBytes);
            }
        }
        self.last += 1;
        self.last_time = Some(time);
        if let Some(id) = m.id {
            self.ids.insert(id, (self.last, time));
        }
        if m.unwanted {
            return Ok((self.last, false));
        }
        self.last_id = m.id;
        match m.rollup {
            Rollup::Nothing => {}
            Rollup::Stream => self.messages.clear(),
            Rollup::Subject => self.messages.retain(|_, stored| stored.subject != m.subject),
        }
        self.messages.insert(self.last, stored);
        // A stream that discards new ones has counted with the room of those that give way.
        if !self.in_batch || self.config.discard == Discard::New {
            self.enforce_subject(m.subject);
            self.enforce_size();
        }
        Ok((self.last, false))
    }

    /// The messages of a batch are stored before any limit takes something away.
    pub(crate) fn admit_batch(&mut self, now: Time, messages: &[Inbound<'_>]) {
        self.in_batch = true;
        for message in messages {
            self.admit(now, message, false).expect("the stream has taken all of them");
        }
        self.in_batch = false;
        for message in messages {
            self.enforce_subject(message.subject);
        }
        self.enforce_size();
    }

    fn enforce_subject(&mut self, subject: &[u8]) {
        if let Some(max) = self.config.max_per_subject {
            let on_subject = self.on(subject);
            for seq in &on_subject[..on_subject.len().saturating_sub(max as usize)] {
                self.messages.remove(seq);
            }
        }
    }

    fn enforce_size(&mut self) {
        if self.config.discard == Discard::New {
            return;
        }
        while self.config.max_messages.is_some_and(|max| self.messages.len() as u64 > max) {
            self.messages.pop_first();
        }
        while self.config.max_bytes.is_some_and(|max| self.bytes() > max)
            && self.messages.len() > usize::from(self.config.keep_newest)
        {
            self.messages.pop_first();
        }
    }

    /// What has become too old goes. The stream rounds deadlines of single messages up: `steps` says how.
    pub(crate) fn expire(&mut self, now: Time, step_bits: u32) {
        let max_age = self.config.max_age;
        self.messages.retain(|_, stored| {
            let is_exempt = stored.expires == Some(NEVER);
            let is_due = !is_exempt && stored.expires.is_some_and(|at| ((at >> step_bits) + 1) << step_bits <= now);
            let is_old = !is_exempt && max_age.is_some_and(|age| stored.time + age <= now);
            !is_due && !is_old
        });
    }

    /// Limits that have been changed apply at once.
    pub(crate) fn update(&mut self, config: Config) {
        self.config = config;
        let subjects: std::collections::BTreeSet<Vec<u8>> =
            self.messages.values().map(|stored| stored.subject.clone()).collect();
        for subject in subjects {
            self.enforce_subject(&subject);
        }
        self.enforce_size();
    }

    pub(crate) fn purge(&mut self, filter: Option<&[u8]>, below: Option<u64>, keep: u64) -> u64 {
        let all: Vec<u64> =
            self.matching(filter.unwrap_or(b">")).filter(|seq| below.is_none_or(|below| *seq < below)).collect();
        let count = all.len().saturating_sub(keep as usize);
        for seq in &all[..count] {
            self.messages.remove(seq);
        }
        count as u64
    }
}
