//! Wakes a shard from another thread: an eventfd that its executor reads through the ring.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use glommio::io::BufferedFile;

/// The ringing end. Cheap to ring; ring only what [`crate::ring::Sleeper::needs_wake`] names.
#[derive(Debug)]
pub struct Doorbell {
    file: File,
}

impl Doorbell {
    /// A new doorbell.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: `eventfd` takes no pointers; the result is checked before it is used as a descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just created and belongs to nobody else.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self { file })
    }

    /// Wakes the shard.
    pub fn ring(&self) {
        // The counter can only fail to take one more at 2^64 - 1 unread rings.
        let _ = (&self.file).write(&1u64.to_ne_bytes());
    }

    /// The listening end, for the executor of the shard.
    pub(super) fn listener(&self) -> io::Result<Listener> {
        let fd: BorrowedFd<'_> = self.file.as_fd();
        let raw = fd.try_clone_to_owned()?.into_raw_fd();
        // SAFETY: `raw` is an owned descriptor that nobody else closes.
        Ok(Listener { file: unsafe { BufferedFile::from_raw_fd(raw) } })
    }
}

/// Waits for rings.
#[derive(Debug)]
pub(super) struct Listener {
    file: BufferedFile,
}

impl Listener {
    /// Returns after at least one ring since the last call.
    pub(super) async fn wait(&self) -> io::Result<()> {
        self.file.read_at(0, 8).await.map(drop).map_err(io::Error::from)
    }
}
