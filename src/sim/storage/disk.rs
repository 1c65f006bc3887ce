//! A disk that forgets what was not flushed.
//!
//! Requests are carried out one at a time, in random order. A file is what was flushed plus, over it, sectors that were
//! written since. A crash decides for each of those sectors alone whether it reached the disk, did not, or is garbage;
//! so it does for what was on its way. The note is exchanged as a whole or not at all. Beside that there are failing
//! writes and flushes, and a disk that is full.
//!
//! And there are faults of which nobody is told: a write that lands elsewhere or nowhere while its place keeps what was
//! there, and bits that flip in what was flushed long ago.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::log::aligned::AlignedBuf;
use crate::log::recover::Files;
use crate::log::{BLOCK_BYTES, DiskFault, Note, Outcome, Request, RequestId, SegmentNo, Slot};

const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct File {
    flushed: Vec<u8>,
    written: BTreeMap<usize, [u8; SECTOR]>,
}

impl File {
    fn write(&mut self, offset: usize, data: &[u8]) {
        for (index, sector) in data.chunks_exact(SECTOR).enumerate() {
            self.written.insert(offset / SECTOR + index, sector.try_into().unwrap());
        }
    }

    fn flush(&mut self) {
        for (sector, bytes) in std::mem::take(&mut self.written) {
            self.put(sector, &bytes);
        }
    }

    fn put(&mut self, sector: usize, bytes: &[u8; SECTOR]) {
        let end = (sector + 1) * SECTOR;
        if self.flushed.len() < end {
            self.flushed.resize(end, 0);
        }
        self.flushed[end - SECTOR..end].copy_from_slice(bytes);
    }

    fn read(&self, offset: usize, bytes: usize) -> AlignedBuf {
        let len = self.len();
        let end = len.min(offset + bytes);
        let mut out = AlignedBuf::new();
        if offset >= end {
            return out;
        }
        out.extend_from_slice(&self.flushed[offset.min(self.flushed.len())..end.min(self.flushed.len())]);
        out.pad_to(end - offset);
        for (sector, bytes) in self.written.range(offset / SECTOR..end.div_ceil(SECTOR)) {
            let at = sector * SECTOR - offset;
            out[at..at + SECTOR].copy_from_slice(bytes);
        }
        out
    }

    fn len(&self) -> usize {
        let written = self.written.last_key_value().map_or(0, |(sector, _)| (sector + 1) * SECTOR);
        self.flushed.len().max(written)
    }
}

/// How often things go wrong, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::sim) struct Faults {
    /// Writes and flushes that fail.
    pub(in crate::sim) commits: u32,
    /// Reads that fail.
    pub(in crate::sim) reads: u32,
    /// Files that cannot be made ready, and notes that cannot be written.
    pub(in crate::sim) prepares: u32,
    /// Writes that land in another place, or in none, and are reported as done.
    pub(in crate::sim) misdirected: u32,
}

/// The disk of one log.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Disk {
    rng: fastrand::Rng,
    files: BTreeMap<Slot, File>,
    /// The note of the newest segment.
    note: Option<Vec<u8>>,
    pending: Vec<Request>,
    pub(in crate::sim) faults: Faults,
    /// Bytes that all files may have.
    pub(in crate::sim) capacity: u64,
    /// Flushes that succeeded.
    pub(in crate::sim) flushes: u64,
    /// Silent faults so far: writes that went astray, and sectors that have rotted.
    pub(in crate::sim) silent: u64,
}

impl Disk {
    pub(in crate::sim) fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed ^ 0xD15C),
            files: BTreeMap::new(),
            note: None,
            pending: Vec::new(),
            faults: Faults::default(),
            capacity: u64::MAX,
            flushes: 0,
            silent: 0,
        }
    }

    pub(in crate::sim) fn submit(&mut self, requests: &mut Vec<Request>) {
        self.pending.append(requests);
    }

    /// Bytes that are left of the capacity.
    pub(in crate::sim) fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.files.values().map(|file| file.len() as u64).sum())
    }

    /// Takes away the file of a slot, or puts one back.
    pub(in crate::sim) fn exchange(&mut self, slot: Slot, file: Option<File>) -> Option<File> {
        match file {
            Some(file) => self.files.insert(slot, file),
            None => self.files.remove(&slot),
        }
    }

    /// The segment that the note names, and its file.
    pub(in crate::sim) fn noted(&self) -> Option<(SegmentNo, Slot)> {
        let note = Note::parse(self.note.as_ref()?).expect("a note is whole, or not there");
        Some((note.segment, note.slot))
    }

    /// Whether these bytes are in any file.
    pub(in crate::sim) fn contains(&self, wanted: &[u8]) -> bool {
        let has = |bytes: &[u8]| memchr::memmem::find(bytes, wanted).is_some();
        self.files.values().any(|file| has(&file.read(0, file.len())))
    }

    pub(in crate::sim) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Carries out one of the requests.
    pub(in crate::sim) fn step(&mut self) -> Option<(RequestId, Outcome)> {
        if self.pending.is_empty() {
            return None;
        }
        let index = self.rng.usize(..self.pending.len());
        let request = self.pending.swap_remove(index);
        Some(self.carry_out(request))
    }

    fn fails(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.rng.u32(..1000) < thousandths
    }

    fn carry_out(&mut self, request: Request) -> (RequestId, Outcome) {
        match request {
            Request::Prepare { id, slot, bytes, .. } => {
                let others = self.files.iter().filter(|(other, _)| **other != slot).map(|(_, file)| file.len() as u64);
                if others.sum::<u64>() + u64::from(bytes) > self.capacity {
                    return (id, Outcome::Failed(DiskFault::Full));
                }
                if self.fails(self.faults.prepares) {
                    return (id, Outcome::Failed(DiskFault::Io(libc::EIO)));
                }
                let file = File { flushed: vec![0; bytes as usize], written: BTreeMap::new() };
                self.files.insert(slot, file);
                (id, Outcome::Done)
            }
            Request::Commit { id, slot, offset, data } => {
                if self.fails(self.faults.misdirected) && self.files.contains_key(&slot) {
                    self.misdirect(&data);
                    return (id, Outcome::Done);
                }
                let fails = self.fails(self.faults.commits);
                let Some(file) = self.files.get_mut(&slot) else {
                    return (id, Outcome::Failed(DiskFault::Missing));
                };
                let mut at = offset as usize;
                for (index, part) in data.iter().enumerate() {
                    if fails && self.rng.u8(..2) == 0 && index > 0 {
                        break;
                    }
                    file.write(at, part);
                    at += part.len();
                }
                if fails {
                    // Some of it is on disk, the kernel has forgotten the rest, and says nothing of which.
                    let rng = &mut self.rng;
                    for (sector, bytes) in std::mem::take(&mut file.written) {
                        if rng.bool() {
                            file.put(sector, &bytes);
                        }
                    }
                    return (id, Outcome::Failed(DiskFault::Io(libc::EIO)));
                }
                file.flush();
                self.flushes += 1;
                (id, Outcome::Done)
            }
            Request::Read { id, slot, offset, bytes } => {
                // A block that fails by itself is a bad sector, whose content is lost: only longer reads, and the head
                // that is asked for to tell the one from the other, fail for nothing.
                let may_fail = bytes as usize > BLOCK_BYTES || offset == 0;
                if may_fail && self.fails(self.faults.reads) {
                    return (id, Outcome::Failed(DiskFault::Io(libc::EIO)));
                }
                match self.files.get(&slot) {
                    Some(file) => (id, Outcome::Read(Bytes::from_owner(file.read(offset as usize, bytes as usize)))),
                    None => (id, Outcome::Failed(DiskFault::Missing)),
                }
            }
            Request::Remove { id, slot } => {
                self.files.remove(&slot);
                (id, Outcome::Done)
            }
            Request::Note { id, content } => {
                if self.fails(self.faults.prepares) {
                    // Under its name perhaps, but that may not be flushed.
                    if self.rng.bool() {
                        self.note = Some(content);
                    }
                    return (id, Outcome::Failed(DiskFault::Io(libc::EIO)));
                }
                self.note = Some(content);
                (id, Outcome::Done)
            }
        }
    }

    /// Writes to some place of some file, or nowhere. Its own place keeps what it has.
    fn misdirect(&mut self, data: &[std::sync::Arc<AlignedBuf>]) {
        self.silent += 1;
        let bytes = data.iter().map(|part| part.len()).sum::<usize>();
        let index = self.rng.usize(..=self.files.len());
        let Some(file) = self.files.values_mut().nth(index).filter(|file| file.flushed.len() >= bytes) else { return };
        // Mostly where something is.
        let used = file.flushed.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / BLOCK_BYTES + 1);
        let blocks = (file.flushed.len() - bytes) / BLOCK_BYTES;
        let mut at = self.rng.usize(..=blocks.min(used)) * BLOCK_BYTES;
        for part in data {
            file.write(at, part);
            at += part.len();
        }
        file.flush();
    }

    /// Bits flip in so many sectors of what was flushed.
    pub(in crate::sim) fn rot(&mut self, sectors: u32) {
        for _ in 0..sectors {
            let index = self.rng.usize(..self.files.len().max(1));
            let Some(file) = self.files.values_mut().nth(index) else { return };
            let used = file.flushed.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / SECTOR + 1);
            if used == 0 {
                continue;
            }
            self.silent += 1;
            let at = self.rng.usize(..used) * SECTOR;
            for _ in 0..self.rng.usize(1..9) {
                file.flushed[at + self.rng.usize(..SECTOR)] ^= 1 << self.rng.u8(..8);
            }
        }
    }

    /// The machine stops: what was not flushed survives, is gone, or is garbage, sector by sector.
    pub(in crate::sim) fn crash(&mut self) {
        for request in std::mem::take(&mut self.pending) {
            match request {
                Request::Commit { slot, offset, data, .. } => {
                    let Some(file) = self.files.get_mut(&slot) else { continue };
                    let mut at = offset as usize;
                    for part in data {
                        file.write(at, &part);
                        at += part.len();
                    }
                }
                Request::Prepare { slot, bytes, .. } => {
                    let share = self.rng.usize(..=bytes as usize) / BLOCK_BYTES * BLOCK_BYTES;
                    match self.rng.u8(..3) {
                        // Never made, or made anew in part; an old file keeps the rest of its bytes.
                        0 => {}
                        _ => {
                            let file = self.files.entry(slot).or_default();
                            let zeros = share.min(file.flushed.len());
                            file.flushed[..zeros].fill(0);
                            if file.flushed.len() < share {
                                file.flushed.resize(share, 0);
                            }
                        }
                    }
                }
                Request::Note { content, .. } => {
                    if self.rng.bool() {
                        self.note = Some(content);
                    }
                }
                Request::Read { .. } | Request::Remove { .. } => {}
            }
        }
        let rng = &mut self.rng;
        // How likely each outcome is differs from crash to crash.
        let (survives, rots) = (rng.u32(..=100), rng.u32(..=30));
        for file in self.files.values_mut() {
            for (sector, mut bytes) in std::mem::take(&mut file.written) {
                let fate = rng.u32(..100);
                if fate < rots {
                    rng.fill(&mut bytes);
                    file.put(sector, &bytes);
                } else if rng.u32(..100) < survives {
                    file.put(sector, &bytes);
                }
            }
        }
    }
}

impl Files for Disk {
    fn slots(&mut self) -> Result<Vec<(Slot, u64)>, DiskFault> {
        Ok(self.files.iter().map(|(slot, file)| (*slot, file.len() as u64)).collect())
    }

    fn read(&mut self, slot: Slot, offset: u32, bytes: usize) -> Result<AlignedBuf, DiskFault> {
        self.files.get(&slot).map(|file| file.read(offset as usize, bytes)).ok_or(DiskFault::Missing)
    }

    fn note(&mut self) -> Result<Option<Vec<u8>>, DiskFault> {
        Ok(self.note.clone())
    }

    fn flush(&mut self, slot: Slot) -> Result<(), DiskFault> {
        self.files.get_mut(&slot).map(File::flush).ok_or(DiskFault::Missing)
    }
}
