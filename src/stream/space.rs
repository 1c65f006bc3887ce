//! What a stream occupies, segment by segment: so that its share of a segment is dead to the byte when its last message
//! there is, although sizes of single records may be guessed.

use std::collections::BTreeMap;

use super::Flaw;
use super::codec::{Reader, put};
use crate::log::SegmentNo;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    messages: u64,
    bytes: u64,
}

/// Needed messages and their bytes by segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Space {
    shares: BTreeMap<SegmentNo, Share>,
}

impl Space {
    pub(super) fn add(&mut self, segment: SegmentNo, messages: u64, bytes: u64) {
        let share = self.shares.entry(segment).or_default();
        share.messages += messages;
        share.bytes += bytes;
    }

    /// Takes messages of about so many bytes off a segment. Returns the bytes to be reported as dead.
    pub(super) fn take(&mut self, segment: SegmentNo, messages: u64, bytes: u64) -> u64 {
        let Some(share) = self.shares.get_mut(&segment) else { return 0 };
        if share.messages <= messages {
            return self.shares.remove(&segment).map_or(0, |share| share.bytes);
        }
        share.messages -= messages;
        // The others keep at least a byte each.
        let bytes = bytes.min(share.bytes.saturating_sub(share.messages));
        share.bytes -= bytes;
        bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SegmentNo, u64)> + '_ {
        self.shares.iter().map(|(segment, share)| (*segment, share.bytes))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.shares.len() as u64);
        for (segment, share) in &self.shares {
            put(out, u64::from(segment.0));
            put(out, share.messages);
            put(out, share.bytes);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        let mut shares = BTreeMap::new();
        for _ in 0..reader.count()? {
            let segment = SegmentNo(reader.small()?);
            shares.insert(segment, Share { messages: reader.number()?, bytes: reader.number()? });
        }
        Ok(Self { shares })
    }
}
