//! What a stream occupies, segment by segment: so that its share of a segment is dead to the byte when its last message
//! there is, although sizes of single records may be guessed.

use super::Flaw;
use super::codec::{Reader, put};
use crate::first::First as _;
use crate::log::SegmentNo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    segment: SegmentNo,
    messages: u64,
    bytes: u64,
}

/// Needed messages and their bytes by segment, ascending: few, and mostly added at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Space {
    shares: Vec<Share>,
}

impl Space {
    fn find(&self, segment: SegmentNo) -> Result<usize, usize> {
        self.shares.binary_search_by_key(&segment, |share| share.segment)
    }

    pub(super) fn add(&mut self, segment: SegmentNo, messages: u64, bytes: u64) {
        let place = self.find(segment).unwrap_or_else(|place| {
            self.shares.reserve_first();
            self.shares.insert(place, Share { segment, messages: 0, bytes: 0 });
            place
        });
        self.shares[place].messages += messages;
        self.shares[place].bytes += bytes;
    }

    /// Takes messages of about so many bytes off a segment. Returns the bytes to be reported as dead.
    pub(super) fn take(&mut self, segment: SegmentNo, messages: u64, bytes: u64) -> u64 {
        let Ok(place) = self.find(segment) else { return 0 };
        let share = &mut self.shares[place];
        if share.messages <= messages {
            return self.shares.remove(place).bytes;
        }
        share.messages -= messages;
        // The others keep at least a byte each.
        let bytes = bytes.min(share.bytes.saturating_sub(share.messages));
        share.bytes -= bytes;
        bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SegmentNo, u64)> + '_ {
        self.shares.iter().map(|share| (share.segment, share.bytes))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.shares.len() as u64);
        for share in &self.shares {
            put(out, u64::from(share.segment.0));
            put(out, share.messages);
            put(out, share.bytes);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        let mut space = Self::default();
        for _ in 0..reader.count()? {
            let segment = SegmentNo(reader.small()?);
            space.add(segment, reader.number()?, reader.number()?);
        }
        Ok(space)
    }
}
