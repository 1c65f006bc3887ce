//! The content of a removal record: which messages went, and what that took off the accounts.
//!
//! | part | content |
//! |---|---|
//! | version | 1 |
//! | at | the stream's last number when the record was appended: replay carries it out there |
//! | time | when that number was given; zero if none was |
//! | accounts | how many; for each its number (as a signed distance from the one before), its size as the stream counts it, and its subject with its length; length zero means the subject of the one before |
//! | ranges | how many; for each the distance of its start from the end of the one before, and its length less one |
//!
//! All numbers are varints. A message may be in the ranges and in the accounts, of this record or of a later one; an
//! account alone removes its message too.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::Flaw;
use super::codec::{Reader, put, put_bytes, put_signed};
use super::config::SEQ_MAX;
use super::seqs::Seqs;
use crate::log::Time;

const VERSION: u64 = 1;

/// A removal record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The stream's last number when the record was appended.
    pub at: u64,
    /// When that number was given; zero if none was.
    pub time: Time,
    /// Messages that were taken off the accounts.
    pub accounts: Vec<Account>,
    /// Numbers that no longer have a message, ascending and apart.
    pub ranges: Vec<RangeInclusive<u64>>,
}

/// A message that was taken off the accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub seq: u64,
    /// Its size as the stream counts it.
    pub size: u32,
    /// Its subject.
    pub subject: Bytes,
}

impl Removal {
    /// Reads the content of a record.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Flaw> {
        let reader = &mut Reader::new(bytes);
        if reader.number()? != VERSION {
            return Err(Flaw("version of a removal"));
        }
        let at = reader.number()?;
        let time = reader.signed()?;
        let count = reader.count()?;
        let mut accounts: Vec<Account> = Vec::with_capacity(count);
        for _ in 0..count {
            let before = accounts.last().map_or(0, |account| account.seq);
            let seq = before.wrapping_add(reader.signed()? as u64);
            let size = reader.small()?;
            let subject = match (reader.bytes()?, accounts.last()) {
                ([], Some(before)) => before.subject.clone(),
                ([], None) => return Err(Flaw("account without subject")),
                (subject, _) => Bytes::copy_from_slice(subject),
            };
            accounts.push(Account { seq, size, subject });
        }
        let count = reader.count()?;
        let mut ranges = Vec::with_capacity(count);
        let mut behind = 0_u64;
        for _ in 0..count {
            let start = behind.checked_add(reader.number()?);
            let end = start.and_then(|start| start.checked_add(reader.number().ok()?));
            let (Some(start), Some(end)) = (start, end.filter(|end| *end < SEQ_MAX)) else {
                return Err(Flaw("removed range"));
            };
            ranges.push(start..=end);
            behind = end;
        }
        reader.end()?;
        Ok(Self { at, time, accounts, ranges })
    }
}

/// Accounts that are not recorded yet, encoded as they come.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    bytes: Vec<u8>,
    count: u64,
    last_seq: u64,
    /// Where the last subject lies in `bytes`.
    last_subject: (u32, u32),
}

impl Accounts {
    pub(super) fn push(&mut self, seq: u64, size: u32, subject: &[u8]) {
        put_signed(&mut self.bytes, seq.wrapping_sub(self.last_seq) as i64);
        put(&mut self.bytes, u64::from(size));
        let (from, upto) = self.last_subject;
        if self.bytes[from as usize..upto as usize] == *subject {
            put(&mut self.bytes, 0);
        } else {
            put_bytes(&mut self.bytes, subject);
            let end = self.bytes.len() as u32;
            self.last_subject = (end - subject.len() as u32, end);
        }
        self.last_seq = seq;
        self.count += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        (self.count, self.last_seq, self.last_subject) = (0, 0, (0, 0));
    }

    /// The content of a record with these accounts.
    pub(super) fn record(&self, at: u64, time: Time, removed: &Seqs) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 64);
        put(&mut out, VERSION);
        put(&mut out, at);
        put_signed(&mut out, time);
        put(&mut out, self.count);
        out.extend_from_slice(&self.bytes);
        put(&mut out, removed.ranges().count() as u64);
        let mut behind = 0;
        for range in removed.ranges() {
            put(&mut out, range.start() - behind);
            put(&mut out, range.end() - range.start());
            behind = *range.end();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_come_back(
            at: u64,
            time: i64,
            accounts in prop::collection::vec((1..1_u64 << 40, any::<u32>(), "[ab]{1,3}"), 0..20),
            removed in prop::collection::vec((1..1_u64 << 40, 0..1000_u64), 0..20),
            noise: Vec<u8>,
        ) {
            let (mut encoded, mut seqs) = (Accounts::default(), Seqs::default());
            let accounts: Vec<Account> = accounts.into_iter().map(|(seq, size, subject)| {
                encoded.push(seq, size, subject.as_bytes());
                Account { seq, size, subject: subject.into() }
            }).collect();
            for (start, length) in removed {
                seqs.insert_range(start..=start + length);
            }
            let bytes = encoded.record(at, time, &seqs);
            let ranges = seqs.ranges().collect();
            prop_assert_eq!(Removal::decode(&bytes), Ok(Removal { at, time, accounts, ranges }));
            for cut in 0..bytes.len() {
                prop_assert!(Removal::decode(&bytes[..cut]).is_err());
            }
            let _ = Removal::decode(&noise);
        }
    }
}
