//! The logger thread: takes lines from the queue and writes them in batches.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Receiver, bounded};

use super::format::{Level, Style};
use super::output::{Output, Rotation};
use super::queue::{Item, QUEUE_LINES, Queue};
use super::{CONTROL_PATIENCE, LogError};

/// The control thread's handle on the logger thread, which ends with the process.
#[derive(Debug)]
pub(super) struct LogThread {
    queue: Arc<Queue>,
}

impl LogThread {
    pub(super) fn start(output: Output, style: Style) -> Result<Self, LogError> {
        let (queue, receiver) = Queue::new(QUEUE_LINES);
        let queue = Arc::new(queue);
        let mut writer = Writer { queue: Arc::clone(&queue), output, style, batch: Vec::new(), batch_lines: 0 };
        Builder::new().name("leat-log".to_owned()).spawn(move || writer.run(&receiver)).map_err(LogError::Thread)?;
        Ok(Self { queue })
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    /// The request waits its turn in the queue; if the logger thread hangs it is given up.
    pub(super) fn reopen(&self) {
        self.ask(Item::Reopen);
    }

    /// As [`LogThread::reopen`].
    pub(super) fn change(&self, output: Option<Output>, style: Style) {
        self.ask(Item::Change(output, style));
    }

    fn ask(&self, item: Item) {
        if self.queue.sender().send_timeout(item, CONTROL_PATIENCE).is_err() {
            self.queue.count_dropped(1);
        }
    }

    pub(super) fn flush(&self) -> bool {
        let deadline = Instant::now() + CONTROL_PATIENCE;
        let (done, written) = bounded(1);
        self.queue.sender().send_deadline(Item::Flush(done), deadline).is_ok()
            && written.recv_deadline(deadline).is_ok()
    }
}

struct Writer {
    queue: Arc<Queue>,
    output: Output,
    style: Style,
    batch: Vec<u8>,
    batch_lines: u64,
}

impl Writer {
    fn run(&mut self, receiver: &Receiver<Item>) {
        while let Ok(item) = receiver.recv() {
            self.take(item);
            for item in receiver.try_iter().take(QUEUE_LINES) {
                self.take(item);
            }
            self.write_batch();
            self.report_dropped();
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Line(line) => {
                self.queue.taken(line.len());
                self.add(&line);
            }
            Item::Reopen => {
                self.write_batch();
                self.reopen();
            }
            Item::Change(output, style) => {
                self.write_batch();
                self.style = style;
                if let Some(output) = output {
                    self.output = output;
                }
                self.output.set_offset(style.offset);
            }
            Item::Flush(done) => {
                self.write_batch();
                self.report_dropped();
                // The control thread may have lost patience and gone.
                let _ = done.try_send(());
            }
        }
    }

    fn add(&mut self, line: &str) {
        self.batch.extend_from_slice(line.as_bytes());
        self.batch_lines += 1;
        if self.batch.len() >= BATCH_BYTES || self.output.is_full_with(self.batch.len()) {
            self.write_batch();
        }
    }

    /// Writes a line of the log's own at once. False if that failed.
    fn say(&mut self, level: Level, text: &str) -> bool {
        let line = self.style.line(SystemTime::now(), level, text);
        self.output.write(line.as_bytes()).is_ok()
    }

    fn write_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        // A full disk or a closed terminal costs lines, which are counted, not the server.
        if self.output.write(&self.batch).is_err() {
            self.queue.count_dropped(self.batch_lines);
        }
        self.batch.clear();
        self.batch.shrink_to(2 * BATCH_BYTES);
        self.batch_lines = 0;
        let said = match self.output.rotate_if_full(SystemTime::now()) {
            Some(Rotation::Done(backup)) => {
                let said = self.say(Level::Info, &format!("Rotated log, backup saved as \"{}\"", backup.display()));
                self.output.purge().into_iter().fold(said, |said, purged| {
                    let is_said = match purged {
                        Ok(name) => self.say(Level::Info, &format!("Purged log file \"{name}\"")),
                        Err(text) => self.say(Level::Error, &text),
                    };
                    said && is_said
                })
            }
            Some(Rotation::Failed(text)) => self.say(Level::Error, &text),
            None => true,
        };
        self.queue.count_dropped(u64::from(!said));
    }

    fn reopen(&mut self) {
        let (level, text) = match &mut self.output {
            Output::Stderr => (Level::Info, "File log re-open ignored, not a file logger".to_owned()),
            Output::File(log) => match log.reopen() {
                Ok(()) => (Level::Info, "File log re-opened".to_owned()),
                Err(error) => (Level::Error, reopen_failed(&error)),
            },
        };
        let said = self.say(level, &text);
        self.queue.count_dropped(u64::from(!said));
    }

    /// States how many lines are missing. If this line cannot be written either, it is not counted again and the
    /// number is kept for later.
    fn report_dropped(&mut self) {
        let dropped = self.queue.take_dropped();
        if dropped == 0 {
            return;
        }
        let text = format!("{dropped} log lines are missing here: they could not be written fast enough or at all");
        if !self.say(Level::Warn, &text) {
            self.queue.count_dropped(dropped);
        }
    }
}

fn reopen_failed(error: &io::Error) -> String {
    format!("File log could not be re-opened, the old file stays in use: {error}")
}

/// Bytes after which a batch is written although more lines wait.
const BATCH_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::super::LogConfig;
    use super::*;
    use std::fs;
    use std::path::Path;
    use time::UtcOffset;

    const STYLE: Style = Style { pid: 5, time: false, offset: UtcOffset::UTC, colour: false };

    fn start(file: &Path, size_limit: u64) -> LogThread {
        start_with(LogConfig { file: Some(file.to_owned()), utc: true, size_limit, ..LogConfig::default() })
    }

    fn start_with(config: LogConfig) -> LogThread {
        LogThread::start(Output::open(&config, UtcOffset::UTC).unwrap(), STYLE).unwrap()
    }

    /// After flush, everything queued before it is in the file; after reopen, a moved file is left alone.
    #[test]
    fn flush_and_reopen() {
        let dir = tempfile::tempdir().unwrap();
        let (file, moved) = (dir.path().join("log"), dir.path().join("moved"));
        let log = start(&file, 0);
        for n in 0..1000 {
            log.queue().push(format!("line {n}\n"));
        }
        assert!(log.flush());
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1000);
        fs::rename(&file, &moved).unwrap();
        log.queue().push("still here\n".to_owned());
        log.reopen();
        log.queue().push("new\n".to_owned());
        assert!(log.flush());
        assert!(fs::read_to_string(&moved).unwrap().ends_with("line 999\nstill here\n"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "[5] [INF] File log re-opened\nnew\n");
    }

    /// No line is lost or split by rotation, and backups sort by time.
    #[test]
    fn rotation() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let log = start(&file, 100);
        for n in 0..30 {
            log.queue().push(format!("line number {n:02}\n"));
        }
        assert!(log.flush());
        let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() > 3, "{files:?}");
        assert_eq!(files[0], file);
        files.rotate_left(1);
        let stamp = files[0].to_str().unwrap().strip_prefix(file.to_str().unwrap()).unwrap();
        let shape: String = stamp.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert_eq!(shape, ".9999.99.99.99.99.99.999999999");
        let text: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        let own = format!("[5] [INF] Rotated log, backup saved as \"{}\"", files[0].display());
        assert_eq!(text.lines().filter(|line| *line == own).count(), 1, "{text}");
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("line")).collect();
        assert_eq!(lines.len(), 30);
        assert!(lines.is_sorted());
    }

    /// As many files as wanted are kept, the newest; files that are no backups stay.
    #[test]
    fn old_backups_are_purged() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let foreign = ["log.old", "log.2026.01.01.00.00.00.00000000x", "other.2026.01.01.00.00.00.000000000"];
        for name in foreign {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::write(dir.path().join("log.2001.01.01.00.00.00.000000000"), "").unwrap();
        let config = LogConfig { file: Some(file.clone()), size_limit: 200, files_max: 3, ..LogConfig::default() };
        let log = start_with(config);
        for n in 0..100 {
            log.queue().push(format!("line number {n:02}\n"));
            assert!(log.flush());
        }
        let files = || fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut backups: Vec<String> = files().filter(|name| !foreign.contains(&&**name) && name != "log").collect();
        backups.sort();
        assert_eq!(backups.len(), 2, "{backups:?}");
        assert_eq!(files().count(), 2 + 1 + foreign.len());
        let text: String = backups.iter().map(|name| fs::read_to_string(dir.path().join(name)).unwrap()).collect();
        let text = text + &fs::read_to_string(&file).unwrap();
        assert!(text.contains("[5] [INF] Purged log file \"log.20") && text.contains("line number 99"), "{text}");
    }

    /// When the file cannot be written the lines are counted, and the count is written once writing works again.
    #[test]
    fn unwritable_lines_are_reported_later() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        std::os::unix::fs::symlink("/dev/full", &file).unwrap();
        let log = start(&file, 0);
        log.queue().push("lost\n".to_owned());
        log.queue().push("lost too\n".to_owned());
        assert!(log.flush());
        fs::remove_file(&file).unwrap();
        log.reopen();
        assert!(log.flush());
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("[5] [INF] File log re-opened\n[5] [WRN] 2 log lines are missing here"), "{text}");
    }
}
