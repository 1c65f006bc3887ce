//! Replay: what the log holds after a snapshot, batch by batch.
//!
//! Removal records tell at which number they were appended, and are carried out there: so the stream goes through the
//! states it had. Runs and records that the snapshot knows change nothing. What a sink hears of dead bytes meanwhile may be
//! old news: [`Stream::occupied`] tells how it is in the end.

use super::removing::Cause;
use super::*;
use crate::log::{Message, PlacedRun};

impl Stream {
    /// Whether [`Stream::replay`] needs the messages of this run, and not only its place.
    #[must_use]
    pub fn wants(&self, run: &PlacedRun) -> bool {
        run.moved_from.is_none() && run.last_seq > self.last
    }

    /// A run of messages, with the bytes of each record. They may be left out if the stream does not
    /// [want](Stream::wants) them. Messages of the run that are missing, because it is damaged, are gone; whoever reads
    /// the log reports them.
    pub fn replay<'a>(
        &mut self,
        run: &PlacedRun,
        messages: impl IntoIterator<Item = (Message<'a>, u32)>,
        sink: &mut impl Sink,
    ) {
        for (message, record) in messages {
            if message.seq <= self.last {
                continue;
            }
            self.carry_out(message.seq - 1, sink);
            self.take_numbers(message.seq - 1);
            let size = self.config.accounting.size(message.subject.len(), message.headers.len(), message.payload.len());
            self.store(&message, size, record);
        }
        if run.moved_from.is_none() {
            self.take_numbers(run.last_seq);
        }
        self.carry_out(self.last, sink);
        if run.first_live > self.first && run.first_live <= self.last + 1 {
            self.vanish_range(self.first..=run.first_live - 1, sink);
        }
        self.placed(run, sink);
        self.forget_records();
    }

    /// The content of a removal record. Those of a batch come before its messages.
    ///
    /// # Errors
    /// What is wrong with the bytes; nothing has changed.
    pub fn replay_removal(&mut self, content: &[u8], sink: &mut impl Sink) -> Result<(), Flaw> {
        let removal = Removal::decode(content)?;
        self.queued.get_or_insert_default().push_back(removal);
        self.carry_out(self.last, sink);
        self.forget_records();
        Ok(())
    }

    /// The end of replay: everything is visible, and limits apply again with the next settle.
    pub fn replayed(&mut self, sink: &mut impl Sink) {
        self.carry_out(u64::MAX, sink);
        self.forget_records();
        self.placed = self.last;
        self.bits.clear();
        self.bits_from = self.last + 1;
        let listed: Vec<SubjectId> = self.subjects.listed().collect();
        for id in listed {
            if self.subjects.is_used(id) {
                self.reap(id, sink);
            }
        }
        self.find_crowded();
        for id in std::mem::take(&mut self.crowded) {
            if self.subjects.is_used(id) {
                self.enforce_subject(id, sink);
            }
        }
    }

    /// Carries out the removals that were recorded when the last number was at most `last`.
    fn carry_out(&mut self, last: u64, sink: &mut impl Sink) {
        let is_due = |queued: &VecDeque<Removal>| queued.front().is_some_and(|removal| removal.at <= last);
        let next = |queued: &mut VecDeque<Removal>| if is_due(queued) { queued.pop_front() } else { None };
        while let Some(removal) = self.queued.as_deref_mut().and_then(next) {
            if removal.time != 0 {
                self.last_time = Some(self.last_time.map_or(removal.time, |last| last.max(removal.time)));
            }
            for account in &removal.accounts {
                let (is_live, is_owed) = (self.is_live(account.seq), self.owed.contains(account.seq));
                let Some(subject) = self.subjects.find(&account.subject).filter(|_| is_live || is_owed) else {
                    continue;
                };
                // How much it took in the log is guessed.
                let known = Known { seq: account.seq, time: 0, subject, size: account.size, record: account.size };
                if is_live {
                    self.vanish(account.seq, Some(known), Cause::Other, sink);
                } else {
                    self.settle_owed(&known, sink);
                }
            }
            for range in removal.ranges {
                self.vanish_range(range.clone(), sink);
                // Numbers that no message has got.
                self.take_numbers(*range.end());
            }
        }
    }

    /// What replay does is known to the log.
    fn forget_records(&mut self) {
        self.unrecorded = Seqs::default();
        self.accounts.clear();
    }
}
