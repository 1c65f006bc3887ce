//! Wakes a shard from another thread: an eventfd that the shard's poller watches.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A shard's doorbell. Cheap to ring; ring only what [`crate::ring::Sleeper::needs_wake`] names.
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
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just created and belongs to nobody else.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self { file })
    }

    /// Wakes the shard. Every ring is an event for the poller; nobody has to read the counter.
    pub fn ring(&self) {
        // The counter can only fail to take one more at 2^64 - 1 rings.
        let _ = (&self.file).write(&1u64.to_ne_bytes());
    }

    /// What the shard's poller watches.
    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
