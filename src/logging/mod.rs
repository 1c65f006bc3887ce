//! Log lines in the reference's format, without ever blocking the thread that logs.
//!
//! An event is formatted on the thread it happens on and queued for the logger thread, the only one that writes. The
//! queue holds at most [`QUEUE_LINES`] lines and about [`QUEUE_BYTES`] bytes. **When it is full the line is dropped**;
//! nobody waits, and a later line states how many are missing. Only the control thread's [`Logging::flush`],
//! [`Logging::reopen`] and [`Logging::change`] wait, and not longer than [`CONTROL_PATIENCE`].
//!
//! Levels: INF, WRN, ERR and FTL are always written, DBG and TRC on demand. A fatal event is an error with target
//! [`FATAL`]: `tracing::error!(target: logging::FATAL, "…")`. Code on a hot path asks [`debug_enabled`] or
//! [`trace_enabled`] before it prepares a line.
#![forbid(unsafe_code)]

mod format;
mod layer;
mod output;
mod queue;
mod thread;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use time::UtcOffset;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::Options;
use layer::{LineLayer, Settings};
use output::Output;
pub use queue::{QUEUE_BYTES, QUEUE_LINES};
use thread::LogThread;

/// Target of an error event after which the server cannot go on; it is written as FTL.
pub const FATAL: &str = "fatal";

/// How long the control thread waits for the logger thread before it goes on without it.
pub const CONTROL_PATIENCE: Duration = Duration::from_secs(5);

static DEBUG: AtomicBool = AtomicBool::new(false);
static TRACE: AtomicBool = AtomicBool::new(false);
static TRACED_BYTES_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Whether DBG lines are written.
#[inline]
pub fn debug_enabled() -> bool {
    DEBUG.load(Ordering::Relaxed)
}

/// Whether TRC lines are written.
#[inline]
pub fn trace_enabled() -> bool {
    TRACE.load(Ordering::Relaxed)
}

/// Bytes of a payload that a TRC line shows at most.
pub fn traced_bytes_max() -> usize {
    TRACED_BYTES_MAX.load(Ordering::Relaxed)
}

/// Where the log goes and what it contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// File to append to; standard error if absent.
    pub file: Option<PathBuf>,
    /// Write DBG lines.
    pub debug: bool,
    /// Write TRC lines.
    pub trace: bool,
    /// Write the DBG lines of the streaming service, which has a switch of its own.
    pub streaming_debug: bool,
    /// Write its TRC lines.
    pub streaming_trace: bool,
    /// Bytes of a payload shown in a TRC line; 0 = all.
    pub traced_bytes_max: usize,
    /// Begin lines with the time.
    pub time: bool,
    /// Times in UTC instead of local time.
    pub utc: bool,
    /// Rotate the file when it exceeds this many bytes; 0 = never.
    pub size_limit: u64,
    /// Files to keep, the present one included; 0 = all.
    pub files_max: usize,
}

impl From<&Options> for LogConfig {
    fn from(options: &Options) -> Self {
        Self {
            file: options.log_file.clone(),
            debug: options.debug,
            trace: options.trace,
            streaming_debug: options.streaming.as_ref().is_some_and(|streaming| streaming.debug),
            streaming_trace: options.streaming.as_ref().is_some_and(|streaming| streaming.trace),
            traced_bytes_max: options.max_traced_msg_len,
            time: options.logtime,
            utc: options.logtime_utc,
            size_limit: options.log_size_limit,
            files_max: options.logfile_max_num,
        }
    }
}

/// The log could not be opened.
#[derive(Debug)]
pub enum LogError {
    /// The log file.
    File(PathBuf, io::Error),
    /// The logger thread could not be started.
    Thread(io::Error),
    /// The process has a log already.
    AlreadyInstalled,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => {
                write!(f, "error opening file: open {}: {error}", path.display())
            }
            Self::Thread(error) => write!(f, "cannot start the logger thread: {error}"),
            Self::AlreadyInstalled => f.write_str("logging is set up already"),
        }
    }
}

impl std::error::Error for LogError {}

/// The running log. Dropping it leaves the log running; an exit path calls [`Logging::flush`].
#[derive(Debug)]
pub struct Logging {
    thread: LogThread,
    settings: Arc<Settings>,
}

impl Logging {
    /// Opens the log and makes it the process's subscriber. Called once, by the only thread there is: the difference
    /// between local time and UTC is read here and kept, because reading it later would race with other threads.
    pub fn install(config: &LogConfig) -> Result<Self, LogError> {
        let settings = Arc::new(Settings::new(std::process::id(), local_offset()));
        let output = Output::open(config, settings.offset(config.utc))?;
        settings.set(config, output.is_terminal());
        let thread = LogThread::start(output, settings.style())?;
        let layer = LineLayer::new(settings.clone(), thread.queue());
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
            .map_err(|_| LogError::AlreadyInstalled)?;
        switch(config);
        Ok(Self { thread, settings })
    }

    /// Opens what [`Logging::change`] needs to write by `new` instead of `old`.
    ///
    /// # Errors
    /// When the new file cannot be opened. Nothing has changed then.
    pub fn prepare(&self, old: &LogConfig, new: &LogConfig) -> Result<LogChange, LogError> {
        let offset = self.settings.offset(new.utc);
        let output = (old.file != new.file).then(|| Output::open(new, offset)).transpose()?;
        Ok(LogChange { config: new.clone(), output })
    }

    /// Logs in another way from now on. Lines from before this call go where they would have gone without it.
    pub fn change(&self, change: LogChange) {
        let LogChange { config, output } = change;
        let colour = output.as_ref().map_or(self.settings.style().colour, Output::is_terminal);
        self.settings.set(&config, colour);
        self.thread.change(output, self.settings.style());
        switch(&config);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Closes and reopens the log file, so that another program may have moved it away (SIGUSR1).
    pub fn reopen(&self) {
        self.thread.reopen();
    }

    /// Waits until everything logged before this call has been written. False if that took too long.
    pub fn flush(&self) -> bool {
        self.thread.flush()
    }
}

/// Another way to log, ready to be used.
#[derive(Debug)]
pub struct LogChange {
    config: LogConfig,
    /// If it is another one.
    output: Option<Output>,
}

/// Sets what code that logs asks for.
fn switch(config: &LogConfig) {
    DEBUG.store(config.debug, Ordering::Relaxed);
    TRACE.store(config.trace, Ordering::Relaxed);
    let traced = if config.traced_bytes_max == 0 { usize::MAX } else { config.traced_bytes_max };
    TRACED_BYTES_MAX.store(traced, Ordering::Relaxed);
}

/// Local time minus UTC, or UTC if the system cannot tell (for example since threads exist already).
fn local_offset() -> UtcOffset {
    UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC)
}
