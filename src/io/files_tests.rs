//! Requests on real files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::doorbell::Doorbell;
use super::super::log_directory::Access;
use super::super::poller::{Event, Token};
use bytes::Bytes;

use super::*;
use crate::log::AlignedBuf;

struct Rig {
    files: Files,
    poller: Poller,
    /// Wakes the poller.
    _bell: Arc<Doorbell>,
    answers: Vec<Answer>,
}

const LOG: LogId = LogId(0);
const MIB: u32 = 1 << 20;

impl Rig {
    fn new(path: &Path) -> Self {
        let mut rig = Self::empty();
        rig.files.add(LOG, LogDirectory::open(path).unwrap());
        rig
    }

    fn empty() -> Self {
        let bell = Arc::new(Doorbell::new().unwrap());
        let mut poller = Poller::new().unwrap();
        poller.watch(bell.descriptor(), Token(1)).unwrap();
        let ringing = Arc::clone(&bell);
        let files = Files::new(move || ringing.ring()).unwrap();
        Self { files, poller, _bell: bell, answers: Vec::new() }
    }

    fn begin(&mut self, log: LogId, request: Request) {
        self.files.begin(&mut self.poller, log, request, &mut self.answers).unwrap();
    }

    /// Waits for so many answers.
    fn answers(&mut self, count: usize) -> Vec<(LogId, u64, Outcome)> {
        let mut events: Vec<Event> = Vec::new();
        while self.answers.len() < count {
            self.poller.wait(Some(Duration::from_secs(20)), &mut events).unwrap();
            self.files.collect(&mut self.poller, &mut self.answers);
        }
        assert_eq!(self.answers.len(), count, "{:?}", self.answers);
        self.answers.drain(..).map(|answer| (answer.log, answer.id.0, answer.outcome)).collect()
    }

    fn answer(&mut self, request: Request) -> Outcome {
        let expected = request.id();
        self.begin(LOG, request);
        let (log, id, outcome) = self.answers(1).remove(0);
        assert_eq!((log, id), (LOG, expected.0));
        outcome
    }

    /// Exchanges the file of a slot behind the back of everybody.
    fn exchange(&mut self, slot: Slot, file: File) {
        self.files.logs.get_mut(&LOG).unwrap().insert(slot, file);
    }
}

fn prepare(id: u64, slot: u32, bytes: u32) -> Request {
    Request::Prepare { id: RequestId(id), slot: Slot(slot), bytes, fill: true }
}

fn remove(id: u64, slot: u32) -> Request {
    Request::Remove { id: RequestId(id), slot: Slot(slot) }
}

fn note(id: u64, content: &[u8]) -> Request {
    Request::Note { id: RequestId(id), content: content.to_vec() }
}

fn read(id: u64, slot: u32, offset: u32, bytes: u32) -> Request {
    Request::Read { id: RequestId(id), slot: Slot(slot), offset, bytes }
}

/// Buffers of a block each, filled with these bytes.
fn commit(id: u64, slot: u32, offset: u32, blocks: &[u8]) -> Request {
    let data = blocks.iter().map(|fill| {
        let mut block = AlignedBuf::zeroed(4096);
        block.fill(*fill);
        Arc::new(block)
    });
    Request::Commit { id: RequestId(id), slot: Slot(slot), offset, data: data.collect() }
}

fn fault(outcome: Outcome) -> DiskFault {
    match outcome {
        Outcome::Failed(fault) => fault,
        outcome => panic!("{outcome:?}"),
    }
}

fn content(outcome: Outcome) -> Bytes {
    match outcome {
        Outcome::Read(bytes) => bytes,
        outcome => panic!("{outcome:?}"),
    }
}

fn everything(path: &Path, access: Access) {
    let mut rig = Rig::empty();
    let directory = LogDirectory::open(path).unwrap().with_access(access);
    rig.files.add(LOG, directory.clone());
    assert!(matches!(rig.answer(prepare(1, 5, MIB)), Outcome::Done));
    let blocks = (0..200).collect::<Vec<u8>>();
    assert!(matches!(rig.answer(commit(2, 5, 8192, &blocks)), Outcome::Done));
    let on_disk = std::fs::read(directory.file_of(Slot(5))).unwrap();
    assert_eq!(on_disk.len(), MIB as usize);
    let expected = |at: usize| (at / 4096).checked_sub(2).and_then(|at| blocks.get(at)).copied().unwrap_or(0);
    assert!(on_disk.iter().enumerate().all(|(at, byte)| *byte == expected(at)));
    assert_eq!(content(rig.answer(read(3, 5, 4096, MIB / 2)))[..], on_disk[4096..][..MIB as usize / 2]);
    for content in [b"a note".to_vec(), b"another".to_vec()] {
        assert!(matches!(rig.answer(note(9, &content)), Outcome::Done));
        assert_eq!(std::fs::read(path.join("newest")).unwrap(), content);
    }
    assert!(matches!(rig.answer(remove(4, 5)), Outcome::Done));
    assert!(!directory.file_of(Slot(5)).exists());
    assert_eq!(fault(rig.answer(read(5, 5, 4096, 4096))), DiskFault::Missing);
    assert_eq!(fault(rig.answer(commit(6, 5, 4096, &[1]))), DiskFault::Missing);
    assert!(!directory.file_of(Slot(5)).exists(), "no commit makes a file");
}

#[test]
fn everything_works_with_direct_and_buffered_files() {
    let dir = tempfile::tempdir().unwrap();
    let access = LogDirectory::open(dir.path()).unwrap().access();
    everything(dir.path(), access);
    everything(dir.path(), Access::Buffered);
}

#[test]
fn a_whole_commit_of_the_most_buffers_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    rig.answer(prepare(1, 0, 5 * MIB));
    let blocks = (0..1024).map(|n| n as u8).collect::<Vec<_>>();
    assert!(matches!(rig.answer(commit(2, 0, 0, &blocks)), Outcome::Done));
    let bytes = content(rig.answer(read(3, 0, 0, 4 * MIB)));
    assert!(bytes.chunks(4096).zip(blocks).all(|(block, fill)| block.iter().all(|byte| *byte == fill)));
}

/// Logs count their requests and their slots each for itself.
#[test]
fn logs_on_one_poller_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::empty();
    let logs = [LogId(0), LogId(1), LogId(u16::MAX)];
    for (index, log) in logs.iter().enumerate() {
        let path = dir.path().join(index.to_string());
        std::fs::create_dir(&path).unwrap();
        rig.files.add(*log, LogDirectory::open(&path).unwrap());
        rig.begin(*log, prepare(1, 0, MIB));
    }
    let all = |answers: Vec<(LogId, u64, Outcome)>, id| {
        let mut answered = answers.iter().map(|(log, of, _)| (*log, *of)).collect::<Vec<_>>();
        answered.sort();
        assert_eq!(answered, logs.map(|log| (log, id)));
        answers
    };
    all(rig.answers(3), 1);
    for (index, log) in logs.iter().enumerate() {
        rig.begin(*log, commit(2, 0, 4096, &[index as u8 + 1; 3]));
    }
    all(rig.answers(3), 2);
    for log in logs {
        rig.begin(log, read(3, 0, 8192, 4096));
    }
    for (log, _, outcome) in all(rig.answers(3), 3) {
        let fill = logs.iter().position(|of| *of == log).unwrap() as u8 + 1;
        assert!(content(outcome).iter().all(|byte| *byte == fill));
    }
    rig.begin(LogId(7), read(4, 0, 0, 4096));
    assert_eq!(fault(rig.answers(1).remove(0).2), DiskFault::Missing);
}

/// A file that is closed while reads of it are in flight is the file that they read, although its descriptor soon is
/// another file's.
#[test]
fn closing_a_file_disturbs_no_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    rig.answer(prepare(1, 0, MIB));
    rig.answer(commit(2, 0, 0, &[7; 256]));
    for round in 0..20 {
        let base = 10 + round * 20;
        for part in 0..8 {
            rig.begin(LOG, read(base + part, 0, part as u32 * MIB / 8, MIB / 8));
        }
        // As a removal does; what is opened next gets the lowest free descriptor.
        rig.files.logs.get_mut(&LOG).unwrap().open.clear();
        let other = File::open("/dev/zero").unwrap();
        for (_, _, outcome) in rig.answers(8) {
            assert!(content(outcome).iter().all(|byte| *byte == 7));
        }
        drop(other);
    }
}

#[test]
fn failures_are_told_as_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    rig.answer(prepare(1, 0, MIB));
    // Beyond the end.
    assert_eq!(fault(rig.answer(read(2, 0, MIB - 4096, 8192))), DiskFault::Short);
    assert_eq!(fault(rig.answer(read(3, 0, MIB, 4096))), DiskFault::Short);
    // No space, told by the write; no flush comes after it.
    rig.exchange(Slot(0), File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(fault(rig.answer(commit(4, 0, 0, &[1, 2]))), DiskFault::Full);
    // A flush that fails after a write that has succeeded.
    rig.exchange(Slot(0), File::options().write(true).open("/dev/null").unwrap());
    assert_eq!(fault(rig.answer(commit(5, 0, 0, &[1, 2]))), DiskFault::Io(libc::EINVAL));
    // A descriptor that does not allow it.
    rig.exchange(Slot(0), File::open(dir.path().join("00000000.segment")).unwrap());
    assert_eq!(fault(rig.answer(commit(6, 0, 0, &[1]))), DiskFault::Io(libc::EBADF));
    // One that is closed.
    rig.poller.commit(i32::MAX, 0, vec![Arc::new(AlignedBuf::zeroed(4096))], tag(LOG, RequestId(7))).unwrap();
    assert_eq!(fault(rig.answers(1).remove(0).2), DiskFault::Io(libc::EBADF));
    // The chores.
    drop(std::fs::remove_dir_all(dir.path()));
    assert_eq!(fault(rig.answer(prepare(8, 1, MIB))), DiskFault::Missing);
    assert_eq!(fault(rig.answer(note(9, b"a note"))), DiskFault::Missing);
}

#[test]
fn few_files_stay_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    let count = OPEN_FILES_MAX as u32 + 10;
    for slot in 0..count {
        let path = rig.files.logs[&LOG].directory.file_of(Slot(slot));
        std::fs::write(path, [slot as u8; 4096]).unwrap();
        let bytes = content(rig.answer(read(u64::from(slot) + 1, slot, 0, 4096)));
        assert!(bytes.iter().all(|byte| *byte == slot as u8));
        // The first one stays in use.
        rig.answer(read(u64::from(count + slot) + 1, 0, 0, 4096));
    }
    let open = &rig.files.logs[&LOG].open;
    assert!(open.len() <= OPEN_FILES_MAX && open.contains_key(&Slot(0)) && open.contains_key(&Slot(count - 1)));
}

/// The kernel is done with the memory of operations before it is given back.
#[test]
fn a_poller_that_is_dropped_waits_for_its_operations() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path());
    rig.answer(prepare(1, 0, 2 * MIB));
    rig.begin(LOG, read(2, 0, 0, MIB));
    rig.begin(LOG, commit(3, 0, MIB, &[9; 256]));
    drop(rig);
    let content = std::fs::read(dir.path().join("00000000.segment")).unwrap();
    assert!(content[MIB as usize..].iter().all(|byte| *byte == 9));
}

/// On a file system of two MiB.
#[test]
fn a_full_file_system_is_told_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    // A namespace of its own ends with the thread, and its mounts with it.
    let tested = std::thread::spawn(move || {
        mount_tmpfs(&path, c"size=2m")?;
        let mut rig = Rig::new(&path);
        assert!(matches!(rig.answer(prepare(1, 0, MIB)), Outcome::Done));
        assert_eq!(fault(rig.answer(prepare(2, 1, 2 * MIB))), DiskFault::Full);
        rig.begin(LOG, remove(3, 0));
        let mut events = Vec::new();
        while rig.answers.is_empty() {
            rig.poller.wait(Some(Duration::from_secs(20)), &mut events).unwrap();
            rig.files.collect(&mut rig.poller, &mut rig.answers);
        }
        assert!(rig.answers.remove(0).free.is_some_and(|free| free > u64::from(MIB) / 2), "free space is told");
        assert!(matches!(rig.answer(prepare(4, 1, MIB)), Outcome::Done));
        assert!(matches!(rig.answer(commit(5, 1, 0, &[3; 256])), Outcome::Done));
        std::io::Result::Ok(())
    });
    match tested.join().unwrap() {
        Ok(()) => {}
        Err(error) => eprintln!("skipped: a tmpfs cannot be mounted here ({error})"),
    }
}

fn mount_tmpfs(path: &Path, options: &std::ffi::CStr) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    let whole = |outcome| if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    // SAFETY: no pointers are passed.
    whole(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: all strings are terminated and outlive the call.
    whole(unsafe { libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null()) })?;
    let (kind, options) = (c"tmpfs".as_ptr(), options.as_ptr().cast());
    // SAFETY: as above.
    whole(unsafe { libc::mount(kind, path.as_ptr(), kind, 0, options) })
}
