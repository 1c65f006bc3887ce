//! The least that there is to do, to compare with.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use io_uring::squeue::Flags;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode};
use leat::log::{AlignedBuf, BLOCK_BYTES};

use super::work::SMALL;

/// Group commit without anything else: records of 128 bytes with heads of 16 are copied into a buffer and summed up, the
/// buffer is written and flushed behind the last one, and the next is filled when that has returned.
pub(crate) struct Prototype {
    ring: IoUring,
    file: File,
    bytes: u64,
    offset: u64,
    buffer: AlignedBuf,
}

impl Prototype {
    /// With a zero-filled file of so many bytes, that is written round and round.
    pub(crate) fn new(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
        let file = options.open(path)?;
        let zeros = AlignedBuf::zeroed(1 << 20);
        for offset in (0..bytes).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256)?;
        Ok(Self { ring, file, bytes, offset: 0, buffer: AlignedBuf::new() })
    }

    /// Records per second with so many that wait.
    pub(crate) fn run(&mut self, waiting: u64, time: Duration) -> io::Result<f64> {
        let begin = Instant::now();
        let mut records = 0_u64;
        while begin.elapsed() < time {
            self.buffer.clear();
            for _ in 0..waiting {
                records += 1;
                self.buffer.extend_from_slice(&u128::from(records).to_le_bytes());
                self.buffer.extend_from_slice(std::hint::black_box(&SMALL));
            }
            std::hint::black_box(crc32fast::hash(&self.buffer));
            self.buffer.pad_to(self.buffer.len().next_multiple_of(BLOCK_BYTES));
            self.commit()?;
        }
        Ok(records as f64 / begin.elapsed().as_secs_f64())
    }

    fn commit(&mut self) -> io::Result<()> {
        let len = self.buffer.len() as u64;
        if self.offset + len > self.bytes {
            self.offset = 0;
        }
        let fd = Fd(self.file.as_raw_fd());
        let write = opcode::Write::new(fd, self.buffer.as_ptr(), len as u32).offset(self.offset).build();
        let flush = opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build();
        // SAFETY: file and buffer live until the completion, which is waited for.
        unsafe {
            let mut queue = self.ring.submission();
            queue.push(&write.flags(Flags::IO_LINK | Flags::SKIP_SUCCESS)).map_err(io::Error::other)?;
            queue.push(&flush).map_err(io::Error::other)?;
        }
        self.ring.submit_and_wait(1)?;
        self.offset += len;
        match self.ring.completion().next().map(|entry| entry.result()) {
            Some(0) => Ok(()),
            result => Err(io::Error::other(format!("a commit ended with {result:?}"))),
        }
    }
}

/// MB per second of sequential direct I/O by `fio`, if it is installed.
pub(crate) fn fio(dir: &Path, kind: &str, block: &str) -> Option<f64> {
    let file = dir.join("fio");
    let args = [
        "--name=raw",
        &format!("--filename={}", file.display()),
        &format!("--rw={kind}"),
        &format!("--bs={block}"),
        "--size=768M",
        "--direct=1",
        "--ioengine=io_uring",
        "--iodepth=8",
        "--end_fsync=1",
        "--output-format=json",
    ];
    let output = Command::new("fio").args(args).output().ok()?;
    let _ = std::fs::remove_file(file);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(report["jobs"][0][kind]["bw_bytes"].as_f64()? / 1e6)
}
