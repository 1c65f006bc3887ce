//! Files of a store that have to be regular files. What has the name of one may be something else: opening a FIFO waits
//! until somebody opens its other end, and a device does as it likes.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::layout::ON_ITS_WAY;

/// There is something else where a file belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoFile(pub(super) &'static str);

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} where a file belongs", self.0)
    }
}

impl std::error::Error for NoFile {}

fn check(kind: FileType) -> io::Result<()> {
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, NoFile(what)))
}

/// Opens a file, with these flags beside those of `options`. Never waits for anybody.
///
/// # Errors
/// When it cannot be opened, or is no regular file.
pub(crate) fn open(options: &mut OpenOptions, flags: i32, path: &Path) -> io::Result<File> {
    // A socket cannot be opened, and a device had better not be.
    match fs::metadata(path) {
        Ok(metadata) => check(metadata.file_type())?,
        // It may be created.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = options.custom_flags(flags | libc::O_NONBLOCK).open(path)?;
    check(file.metadata()?.file_type())?;
    // Where a file system cannot promise not to wait, io_uring would refuse to.
    // SAFETY: no pointers are passed, and the descriptor is that of an open file.
    let status = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: as above.
    if status < 0 || unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, status & !libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// Opens a file to read it, as [`open`].
///
/// # Errors
/// As [`open`].
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    open(OpenOptions::new().read(true), 0, path)
}

/// Up to `bytes_max` bytes of a file, or `None` if it is not there.
///
/// # Errors
/// When it cannot be read, or is no regular file.
pub(crate) fn read(path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    match open_to_read(path).and_then(|file| file.take(bytes_max as u64).read_to_end(&mut content)) {
        Ok(_) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file that is under its name only when it is whole and on disk; what was there before is, until then.
///
/// # Errors
/// When that fails. It is not known then whether the old file is there or the new one.
pub(super) fn replace(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    fs::rename(write_new(directory, name, content)?, directory.join(name))?;
    flush_directory(directory)
}

/// Writes what is on its way to a name, and flushes it. A file that is there has its place on the disk, and is written over.
fn write_new(directory: &Path, name: &str, content: &[u8]) -> io::Result<PathBuf> {
    let new = directory.join(format!("{name}{ON_ITS_WAY}"));
    let file = open(OpenOptions::new().write(true).create(true).truncate(false), 0, &new)?;
    file.write_all_at(content, 0)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()?;
    Ok(new)
}

/// As [`replace`], and keeps what was there before for the next time, under the name of what is on its way: a disk that
/// is full has room for a file that is replaced again and again.
///
/// # Errors
/// As [`replace`].
pub(super) fn exchange(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let (old, new) = (directory.join(name), write_new(directory, name, content)?);
    match exchange_names(&new, &old) {
        Ok(()) => flush_directory(directory),
        // There is no old one, or the file system cannot do that.
        Err(_) => {
            fs::rename(&new, &old)?;
            flush_directory(directory)?;
            // Without it the next time may fail, as it would anyway.
            let _ = fs::write(&new, content);
            Ok(())
        }
    }
}

fn exchange_names(one: &Path, other: &Path) -> io::Result<()> {
    let (one, other) = (CString::new(one.as_os_str().as_bytes())?, CString::new(other.as_os_str().as_bytes())?);
    let here = libc::AT_FDCWD;
    // SAFETY: both paths end with a zero and outlive the call.
    let outcome =
        unsafe { libc::syscall(libc::SYS_renameat2, here, one.as_ptr(), here, other.as_ptr(), libc::RENAME_EXCHANGE) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes names in a directory as durable as the files.
pub(super) fn flush_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn make_fifo(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    #[test]
    fn what_is_no_file_is_named_and_never_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        make_fifo(&path("fifo"));
        let _listener = UnixListener::bind(path("socket")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("device")).unwrap();
        for what in ["fifo", "socket", "directory", "device"] {
            let expected = format!("a {} where a file belongs", if what == "fifo" { "FIFO" } else { what });
            assert_eq!(read(&path(what), 10).unwrap_err().to_string(), expected);
            let mut options = OpenOptions::new();
            let written = open(options.write(true).create(true).truncate(true), libc::O_DIRECT, &path(what));
            assert_eq!(written.unwrap_err().to_string(), expected);
            fs::rename(path(what), path("x.new")).unwrap();
            assert_eq!(replace(dir.path(), "x", b"content").unwrap_err().to_string(), expected);
            fs::rename(path("x.new"), path(what)).unwrap();
        }
        assert_eq!(read(&path("nothing"), 10).unwrap(), None);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.new"), "left over by a crash").unwrap();
        for content in ["first", "second, longer", "3rd"] {
            replace(dir.path(), "x", content.as_bytes()).unwrap();
            assert_eq!(read(&dir.path().join("x"), 100).unwrap().unwrap(), content.as_bytes());
            assert!(!dir.path().join("x.new").exists());
        }
        for content in ["fourth", "5", "the sixth"] {
            exchange(dir.path(), "x", content.as_bytes()).unwrap();
            assert_eq!(read(&dir.path().join("x"), 100).unwrap().unwrap(), content.as_bytes());
        }
        assert_eq!(read(&dir.path().join("x.new"), 100).unwrap().unwrap(), b"5", "kept for the next time");
        replace(dir.path(), "x", b"3rd").unwrap();
        assert_eq!(read(&dir.path().join("x"), 2).unwrap().unwrap(), b"3r");
        let file = open_to_read(&dir.path().join("x")).unwrap();
        // SAFETY: no pointers are passed, and the descriptor is that of an open file.
        let status = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
        assert_eq!(status & libc::O_NONBLOCK, 0, "io_uring may wait for it");
    }
}
