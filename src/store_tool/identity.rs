//! Which store a directory holds, by the files that say so.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

use serde::Deserialize;

use super::directory::Unusable;
use crate::log::StoreId;

/// Whoever has this file locked uses the store.
pub(super) const LOCK: &str = "lock";
/// Says which store this is; in its directory and in that of each log.
pub(super) const IDENTITY: &str = "store.json";
/// An identity on its way to its name.
pub(super) const NEW_IDENTITY: &str = "store.json.new";
const IDENTITY_BYTES_MAX: u64 = 4096;
const FORMAT: u32 = 1;

/// What a file says of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The store, and how many logs it has.
    Sound(StoreId, u16),
    /// Nothing that makes sense.
    Damaged,
    /// It is not there.
    Missing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    store: String,
    logs: u16,
    /// CRC-32 of the fields above as text, with a space between each two.
    checksum: u32,
}

/// Reads the identity in a directory.
pub(super) fn read(directory: &Path) -> Result<Told, Unusable> {
    let path = directory.join(IDENTITY);
    let mut text = Vec::new();
    match File::open(&path).and_then(|file| file.take(IDENTITY_BYTES_MAX).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Told::Missing),
        Err(error) => return Err(Unusable::Unreadable(path, error)),
    }
    let Ok(identity) = serde_json::from_slice::<Identity>(&text) else { return Ok(Told::Damaged) };
    let Identity { format, store, logs, checksum } = identity;
    if checksum != crc32fast::hash(format!("{format} {store} {logs}").as_bytes()) {
        return Ok(Told::Damaged);
    }
    if format != FORMAT {
        return Err(Unusable::Later(path, format));
    }
    let id = data_encoding::HEXLOWER.decode(store.as_bytes()).ok().and_then(|id| id.try_into().ok());
    Ok(id.map_or(Told::Damaged, |id| Told::Sound(StoreId(id), logs)))
}

/// Keeps servers away as long as the file is open; other readers are welcome. `None` if no server has been here.
pub(super) fn lock(path: &Path) -> Result<Option<File>, Unusable> {
    let place = path.join(LOCK);
    let file = match File::open(&place) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Unusable::Unreadable(place, error)),
    };
    // SAFETY: no pointers are passed, and the descriptor is that of an open file.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } == 0 {
        return Ok(Some(file));
    }
    let error = io::Error::last_os_error();
    if error.kind() != io::ErrorKind::WouldBlock {
        return Err(Unusable::Unreadable(place, error));
    }
    let mut holder = String::new();
    // It may be gone by now, or have written nothing: then nobody is named.
    let _ = file.take(IDENTITY_BYTES_MAX).read_to_string(&mut holder);
    Err(Unusable::InUse(path.to_owned(), holder.trim().parse().ok()))
}
