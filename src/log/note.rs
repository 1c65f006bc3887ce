//! The note beside the segments: which of them is the newest.
//!
//! Segments tell of one another, so that none can go unnoticed but the last: a log without it is a log that ends earlier.
//! Therefore a file of its own names the newest segment. It is written when the first commit of a segment has been
//! flushed, never before, and nothing waits for it. So it may lag behind, after a crash or on a full disk, and then says
//! less than it could; but what it names was there, whatever a crash has cut off since.

use super::batch::FORMAT_VERSION;
use super::field::{get, put, u16_at, u32_at};
use super::flaw::{Defect, Flaw};
use super::ids::{LogId, SegmentNo, Slot};
use super::segment::StoreId;

const MAGIC: [u8; 8] = *b"LEATNOTE";
/// Bits of `flags` that a reader must know. This version has none.
const MUST_KNOW: u16 = 0x00ff;
const CHECKSUM_AT: usize = 40;
/// Bytes of a note.
const BYTES: usize = CHECKSUM_AT + 4;
/// No note of any version is longer.
pub const NOTE_BYTES_MAX: usize = 4096;

/// The newest segment of a log in which something has been flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The log.
    pub log: LogId,
    /// The store.
    pub store: StoreId,
    /// The segment.
    pub segment: SegmentNo,
    /// Its file.
    pub slot: Slot,
}

impl Note {
    /// As on disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; BYTES];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, FORMAT_VERSION.to_le_bytes());
        put(&mut out, 12, self.log.0.to_le_bytes());
        put(&mut out, 16, self.store.0);
        put(&mut out, 32, self.segment.0.to_le_bytes());
        put(&mut out, 36, self.slot.0.to_le_bytes());
        let crc = crc32fast::hash(&out[..CHECKSUM_AT]);
        put(&mut out, CHECKSUM_AT, crc.to_le_bytes());
        out
    }

    /// The reverse of [`Note::encode`]. Whose it is, the caller judges.
    ///
    /// # Errors
    /// A [`Flaw`] if it is no note, is damaged, or of an unknown version.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let flaw = |defect| Err(Flaw::new(0, defect));
        if bytes.len() < BYTES {
            return flaw(Defect::Short { needed: BYTES as u32, there: bytes.len() as u32 });
        }
        if !bytes.starts_with(&MAGIC) {
            return flaw(Defect::Magic(get(bytes, 0)));
        }
        let (computed, stored) = (crc32fast::hash(&bytes[..CHECKSUM_AT]), u32_at(bytes, CHECKSUM_AT));
        if computed != stored {
            return flaw(Defect::HeadChecksum { computed, stored });
        }
        let version = u16_at(bytes, 8);
        if version != FORMAT_VERSION {
            return flaw(Defect::Version(version));
        }
        let flags = u16_at(bytes, 10);
        if flags & MUST_KNOW != 0 {
            return flaw(Defect::Flags(flags & MUST_KNOW));
        }
        let segment = SegmentNo(u32_at(bytes, 32));
        if segment.0 == 0 {
            return flaw(Defect::Field("number of a segment"));
        }
        let (log, store) = (LogId(u16_at(bytes, 12)), StoreId(get(bytes, 16)));
        Ok(Self { log, store, segment, slot: Slot(u32_at(bytes, 36)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: Note = Note { log: LogId(3), store: StoreId([7; 16]), segment: SegmentNo(70_000), slot: Slot(12) };

    #[test]
    fn a_note_is_read_as_it_was_written() {
        assert_eq!(Note::parse(&NOTE.encode()), Ok(NOTE));
    }

    /// Each bit counts, and so does each byte at the end.
    #[test]
    fn damage_is_noticed() {
        let sound = NOTE.encode();
        for bit in 0..sound.len() * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Note::parse(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..sound.len() {
            assert!(Note::parse(&sound[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn later_versions_are_told_from_damage() {
        let changed = |at: usize| {
            let mut note = NOTE.encode();
            note[at] = 2;
            let crc = crc32fast::hash(&note[..CHECKSUM_AT]);
            put(&mut note, CHECKSUM_AT, crc.to_le_bytes());
            Note::parse(&note).map_err(|flaw| flaw.defect)
        };
        assert_eq!(changed(8), Err(Defect::Version(2)));
        assert_eq!(changed(10), Err(Defect::Flags(2)));
        assert_eq!(changed(11), Ok(NOTE), "flags that need not be known");
    }
}
