//! Messages with a time of their own, by when they are due.
//!
//! Deadlines are gathered in steps of 134 ms and met at the end of their step. A message costs 8 to 16 bytes while it
//! waits, and about 60 more if it is alone in its step. A message that has gone earlier leaves its number behind;
//! [`Expiry::sweep`] gets rid of those when they are most. Empty, it costs nothing.

use std::collections::BTreeMap;

use super::Flaw;
use super::codec::{Reader, put, put_signed};
use crate::log::Time;

/// log₂ of the nanoseconds of a step.
const STEP_BITS: u32 = 27;
/// Numbers that may wait before a sweep is thought of.
const SWEEP_MIN: usize = 1024;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expiry {
    /// By step.
    due: BTreeMap<i64, Vec<u64>>,
    len: usize,
}

impl Expiry {
    pub(super) fn insert(&mut self, seq: u64, deadline: Time) {
        self.due.entry(deadline >> STEP_BITS).or_default().push(seq);
        self.len += 1;
    }

    /// When the next message is due.
    pub(super) fn next(&self) -> Option<Time> {
        let (step, _) = self.due.first_key_value()?;
        Some((step + 1) << STEP_BITS)
    }

    /// Takes one message that is due.
    pub(super) fn pop(&mut self, now: Time) -> Option<u64> {
        let mut step = self.due.first_entry()?;
        if (step.key() + 1) << STEP_BITS > now {
            return None;
        }
        let seq = step.get_mut().pop();
        if step.get().is_empty() {
            step.remove();
        }
        self.len -= usize::from(seq.is_some());
        seq
    }

    /// Forgets messages that do not live, if they may be more than those that do.
    pub(super) fn sweep(&mut self, living: u64, is_live: impl Fn(u64) -> bool) {
        if self.len > SWEEP_MIN && self.len as u64 / 2 > living {
            self.due.retain(|_, seqs| {
                seqs.retain(|seq| is_live(*seq));
                seqs.shrink_to_fit();
                !seqs.is_empty()
            });
            self.len = self.due.values().map(Vec::len).sum();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.due.len() as u64);
        for (step, seqs) in &self.due {
            put_signed(out, *step);
            put(out, seqs.len() as u64);
            let mut behind = 0;
            for seq in seqs {
                put_signed(out, seq.wrapping_sub(behind) as i64);
                behind = *seq;
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        let mut expiry = Self::default();
        for _ in 0..reader.count()? {
            let step = reader.signed()?;
            let count = reader.count()?;
            let mut seqs = Vec::with_capacity(count);
            let mut behind = 0_u64;
            for _ in 0..count {
                behind = behind.wrapping_add(reader.signed()? as u64);
                seqs.push(behind);
            }
            expiry.len += count;
            expiry.due.insert(step, seqs);
        }
        Ok(expiry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_due_early_and_the_gone_leave() {
        let mut expiry = Expiry::default();
        assert_eq!(expiry.next(), None);
        for seq in 1..=10_000 {
            expiry.insert(seq, 1_000_000_000 + seq as i64);
        }
        let next = expiry.next().unwrap();
        assert!((1_000_010_000..1_000_000_000 + (1 << STEP_BITS)).contains(&next), "{next}");
        assert_eq!(expiry.pop(next - 1), None);
        expiry.sweep(10, |seq| seq > 9_990);
        assert_eq!(expiry.len, 10);
        let mut bytes = Vec::new();
        expiry.encode(&mut bytes);
        assert_eq!(Expiry::decode(&mut Reader::new(&bytes)).as_ref(), Ok(&expiry));
        let mut due: Vec<u64> = std::iter::from_fn(|| expiry.pop(next)).collect();
        due.sort_unstable();
        assert_eq!(due, (9_991..=10_000).collect::<Vec<_>>());
        assert_eq!(expiry, Expiry::default());
    }
}
