//! Stores on disk, made by the engines themselves with an executor of their requests that is as simple as can be.

#![allow(dead_code, reason = "every test crate uses its own part of it")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use leat::consumer::{self, Delivery, MemberId, Origin, Target};
use leat::log::segments::Sizes;
use leat::log::{Durable, Incarnation, LogId, Message, Outcome, Request, Slot, StoreId, Time};
use leat::store::{ConsumerKey, Next, Notice, Options, Outlet, Store};
use leat::stream::{self, Inbound};
use tempfile::TempDir;

pub(crate) const STORE: StoreId = StoreId(*b"store of a test.");

/// 2023-11-14T22:13:20Z.
pub(crate) const BEGIN: Time = 1_700_000_000_000_000_000;

/// Writes what says which store it is.
pub(crate) fn write_identity(directory: &Path, store: StoreId, logs: u16) {
    let name: String = store.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let checksum = crc32fast::hash(format!("1 {name} {logs}").as_bytes());
    let text = format!("{{\"format\":1,\"store\":\"{name}\",\"logs\":{logs},\"checksum\":{checksum}}}\n");
    fs::write(directory.join("store.json"), text).expect("the identity should be writable");
}

/// The directory of a store, with empty logs.
pub(crate) fn new_directory(logs: u16) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory should be creatable");
    write_identity(directory.path(), STORE, logs);
    fs::write(directory.path().join("lock"), "1\n").expect("the lock should be writable");
    for log in 0..logs {
        let path = log_path(directory.path(), log);
        fs::create_dir(&path).expect("the log's directory should be creatable");
        write_identity(&path, STORE, logs);
    }
    directory
}

pub(crate) fn log_path(directory: &Path, log: u16) -> PathBuf {
    directory.join(format!("log-{log:03}"))
}

pub(crate) fn segment_path(directory: &Path, slot: u32) -> PathBuf {
    log_path(directory, 0).join(format!("{slot:08}.segment"))
}

/// What a face would get.
#[derive(Default)]
pub(crate) struct Face {
    pub(crate) deliveries: Vec<(ConsumerKey, u64)>,
}

impl Outlet for Face {
    fn deliver(&mut self, consumer: ConsumerKey, _: Target, message: &Message<'_>, _: &Delivery) {
        self.deliveries.push((consumer, message.seq));
    }

    fn event(&mut self, _: ConsumerKey, _: consumer::Event) {}

    fn flushed(&mut self, _: &Durable) {}

    fn notice(&mut self, notice: &Notice) {
        panic!("{notice}");
    }
}

/// A log that is open for writing.
pub(crate) struct Writer {
    path: PathBuf,
    pub(crate) store: Store,
    pub(crate) face: Face,
    pub(crate) now: Time,
}

impl Writer {
    /// An empty log, with segments of 1 MiB.
    pub(crate) fn new(directory: &Path, log: u16) -> Self {
        Self::with_segments(directory, log, 1 << 20)
    }

    /// An empty log, with segments of that size.
    pub(crate) fn with_segments(directory: &Path, log: u16, bytes: u32) -> Self {
        let sizes = Sizes { min: bytes, max: bytes };
        let options = Options {
            log: leat::log::Options { sizes, ..Default::default() },
            cleaning_bytes_per_second: 1 << 30,
            ..Options::default()
        };
        let store = Store::create(LogId(log), STORE, options);
        Self { path: log_path(directory, log), store, face: Face::default(), now: BEGIN }
    }

    pub(crate) fn stream(&mut self, meta: &str, config: stream::Config) -> Incarnation {
        self.store.create_stream(self.now, config, meta.as_bytes()).0
    }

    pub(crate) fn publish(&mut self, of: Incarnation, subject: &str, payload: &[u8]) -> u64 {
        let message = Inbound { subject: subject.as_bytes(), payload, ..Inbound::default() };
        self.publish_message(of, &message)
    }

    pub(crate) fn publish_message(&mut self, of: Incarnation, message: &Inbound<'_>) -> u64 {
        self.now += 1_000;
        self.store.publish(self.now, of, message).expect("a publish should be accepted").seq
    }

    /// A consumer that has been delivered everything and has acknowledged the first `acks`.
    pub(crate) fn consume(&mut self, of: Incarnation, meta: &str, acks: u64) -> (ConsumerKey, MemberId) {
        let created =
            self.store.create_consumer(self.now, of, consumer::Config::default(), Origin::at(1), meta.as_bytes());
        let (key, _) = created.expect("the configuration should be valid").expect("there should be a stream");
        self.settle();
        let member = self.store.join(self.now, key, 100_000).expect("there should be a place").expect("a consumer");
        self.settle();
        for seq in 1..=acks {
            self.store.with_consumer(key, |consumer| consumer.ack(BEGIN, seq));
        }
        self.settle();
        (key, member)
    }

    /// One turn, and what it asks for.
    fn turn(&mut self) -> (bool, Next) {
        let mut requests = Vec::new();
        let next = self.store.turn(self.now, &mut self.face, &mut requests);
        let busy = next.again || !requests.is_empty();
        for request in requests {
            let (id, outcome) = self.carry_out(request);
            self.store.completed(self.now, id, outcome, &mut self.face);
        }
        (busy, next)
    }

    /// One turn, and what it asks for, and no more.
    pub(crate) fn turn_once(&mut self) {
        self.turn();
    }

    /// Works until nothing is left to be done at once or soon.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            let (busy, next) = self.turn();
            if busy {
                continue;
            }
            match next.deadline.filter(|deadline| *deadline < self.now + 1_000_000_000) {
                Some(deadline) => self.now = self.now.max(deadline),
                None => return,
            }
        }
        panic!("the store does not come to rest");
    }

    /// Ends as a server ends that is told to stop.
    pub(crate) fn stop(mut self) {
        self.settle();
        self.store.stop(self.now);
        for _ in 0..100_000 {
            self.turn();
            if self.store.is_stopped() {
                return;
            }
            self.now += 1_000_000;
        }
        panic!("the store does not stop");
    }

    fn file(&self, slot: Slot, create: bool) -> File {
        let path = self.path.join(format!("{:08}.segment", slot.0));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false);
        options.open(path).expect("a segment should be there")
    }

    fn carry_out(&self, request: Request) -> (leat::log::RequestId, Outcome) {
        match request {
            Request::Prepare { id, slot, bytes, .. } => {
                let file = self.file(slot, true);
                file.set_len(0).and_then(|()| file.set_len(bytes.into())).expect("a file should be prepared");
                (id, Outcome::Done)
            }
            Request::Commit { id, slot, offset, data } => {
                let (file, mut at) = (self.file(slot, false), u64::from(offset));
                for part in data {
                    file.write_all_at(&part, at).expect("a commit should be written");
                    at += part.len() as u64;
                }
                (id, Outcome::Done)
            }
            Request::Read { id, slot, offset, bytes } => {
                let mut buffer = vec![0; bytes as usize];
                self.file(slot, false).read_exact_at(&mut buffer, offset.into()).expect("a read should succeed");
                (id, Outcome::Read(buffer.into()))
            }
            Request::Note { id, content } => {
                fs::write(self.path.join("newest"), content).expect("the note should be writable");
                (id, Outcome::Done)
            }
            Request::Remove { id, slot } => {
                fs::remove_file(self.path.join(format!("{:08}.segment", slot.0))).expect("a file should be removed");
                (id, Outcome::Done)
            }
        }
    }
}
