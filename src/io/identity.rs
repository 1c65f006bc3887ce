//! Which store a directory holds, by the files that say so, and who uses it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::{IDENTITY, ON_ITS_WAY};
use super::regular;
use crate::log::StoreId;

/// No identity is longer.
const IDENTITY_BYTES_MAX: usize = 4096;
/// The format that this version writes and knows.
const FORMAT: u32 = 1;

/// Which store this is, as its files say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    format: u32,
    /// The [`StoreId`], in hexadecimal digits.
    store: String,
    logs: u16,
    /// CRC-32 of the fields above as text, with a space between each two. The same in all formats.
    checksum: u32,
}

/// What a file says of the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The store, and how many logs it has.
    Sound(StoreId, u16),
    /// Nothing that makes sense.
    Damaged,
    /// It is not there.
    Missing,
}

/// Why an identity cannot be told.
#[derive(Debug)]
pub(crate) enum Untold {
    /// The file cannot be read.
    Io(PathBuf, io::Error),
    /// It was written by a later version, in this format.
    Later(PathBuf, u32),
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Later(path, format) => {
                write!(f, "{}: format {format} is later than {FORMAT}, which this version knows", path.display())
            }
        }
    }
}

impl Identity {
    pub(super) fn new(store: StoreId, logs: u16) -> Self {
        let mut identity = Self { format: FORMAT, store: data_encoding::HEXLOWER.encode(&store.0), logs, checksum: 0 };
        identity.checksum = identity.sum();
        identity
    }

    fn sum(&self) -> u32 {
        crc32fast::hash(format!("{} {} {}", self.format, self.store, self.logs).as_bytes())
    }

    /// Writes it to a directory.
    pub(super) fn write(&self, directory: &Path) -> Result<(), Untold> {
        let write = || {
            let mut text = serde_json::to_vec(self)?;
            text.push(b'\n');
            regular::replace(directory, IDENTITY, &text)
        };
        write().map_err(|error| Untold::Io(directory.join(format!("{IDENTITY}{ON_ITS_WAY}")), error))
    }
}

/// Reads the identity in a directory.
///
/// # Errors
/// When it cannot be told what it says.
pub(crate) fn read(directory: &Path) -> Result<Told, Untold> {
    let path = directory.join(IDENTITY);
    let text = match regular::read(&path, IDENTITY_BYTES_MAX) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(Told::Missing),
        Err(error) => return Err(Untold::Io(path, error)),
    };
    let Ok(identity) = serde_json::from_slice::<Identity>(&text) else { return Ok(Told::Damaged) };
    if identity.checksum != identity.sum() {
        return Ok(Told::Damaged);
    }
    if identity.format != FORMAT {
        return Err(Untold::Later(path, identity.format));
    }
    let id = data_encoding::HEXLOWER.decode(identity.store.as_bytes()).ok().and_then(|id| id.try_into().ok());
    Ok(id.map_or(Told::Damaged, |id| Told::Sound(StoreId(id), identity.logs)))
}

/// How a store is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// By one alone.
    Alone,
    /// To read it, beside others who do.
    Reading,
}

/// Takes the store for this process, until the lock's file is closed. If somebody else has it: the number of that
/// process, if it could be read.
///
/// # Errors
/// When the file cannot be locked.
pub(crate) fn lock(file: &File, how: Use) -> io::Result<Result<(), Option<u32>>> {
    let operation = if how == Use::Alone { libc::LOCK_EX } else { libc::LOCK_SH };
    // SAFETY: no pointers are passed, and the descriptor is that of an open file.
    if unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) } == 0 {
        return Ok(Ok(()));
    }
    let error = io::Error::last_os_error();
    if error.kind() != io::ErrorKind::WouldBlock {
        return Err(error);
    }
    let mut holder = String::new();
    // It may be gone by now, or have written nothing: then nobody is named.
    let _ = file.take(IDENTITY_BYTES_MAX as u64).read_to_string(&mut holder);
    Ok(Err(holder.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Each bit of an identity counts.
    #[test]
    fn a_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Told::Missing);
        Identity::new(StoreId([0xA5; 16]), 4).write(dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Told::Sound(StoreId([0xA5; 16]), 4));
        let sound = fs::read(dir.path().join(IDENTITY)).unwrap();
        // The newline at the end says nothing.
        for bit in 0..(sound.len() - 1) * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(dir.path().join(IDENTITY), &flipped).unwrap();
            assert_eq!(read(dir.path()).unwrap(), Told::Damaged, "bit {bit}");
        }
        for length in 0..sound.len() - 1 {
            fs::write(dir.path().join(IDENTITY), &sound[..length]).unwrap();
            assert_eq!(read(dir.path()).unwrap(), Told::Damaged, "{length} bytes");
        }
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let dir = tempfile::tempdir().unwrap();
        let mut later = Identity { format: 2, ..Identity::new(StoreId([1; 16]), 3) };
        later.checksum = later.sum();
        later.write(dir.path()).unwrap();
        let untold = read(dir.path()).unwrap_err().to_string();
        assert!(untold.ends_with("store.json: format 2 is later than 1, which this version knows"), "{untold}");
    }
}
