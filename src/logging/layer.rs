//! The tracing layer: decides whether an event is written, formats it and queues it.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use time::UtcOffset;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::LogConfig;
use super::format::Style;
use super::queue::Queue;

pub(super) struct LineLayer {
    settings: Arc<Settings>,
    queue: Arc<Queue>,
}

/// What lines there are and how they look. Can be changed while other threads log.
#[derive(Debug)]
pub(super) struct Settings {
    pid: u32,
    /// Local time minus UTC.
    local: UtcOffset,
    /// Bits, see below.
    switches: AtomicU8,
}

const DEBUG: u8 = 1;
const TRACE: u8 = 2;
const TIME: u8 = 4;
const UTC: u8 = 8;
const COLOUR: u8 = 16;
/// DBG and TRC lines of the streaming service.
const STREAMING_DEBUG: u8 = 32;
const STREAMING_TRACE: u8 = 64;

/// Begins the target of what the streaming service logs.
const STREAMING_TARGET: &str = "leat::streaming";

impl Settings {
    pub(super) fn new(pid: u32, local: UtcOffset) -> Self {
        Self { pid, local, switches: AtomicU8::new(0) }
    }

    /// What lines are like from now on; `colour` if they are read at a terminal.
    pub(super) fn set(&self, config: &LogConfig, colour: bool) {
        let all = [
            (config.debug, DEBUG),
            (config.trace, TRACE),
            (config.time, TIME),
            (config.utc, UTC),
            (colour, COLOUR),
            (config.streaming_debug, STREAMING_DEBUG),
            (config.streaming_trace, STREAMING_TRACE),
        ];
        let switches = all.into_iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum();
        self.switches.store(switches, Ordering::Relaxed);
    }

    /// How lines look.
    pub(super) fn style(&self) -> Style {
        let is_on = |bit| self.is_on(bit);
        let offset = self.offset(is_on(UTC));
        Style { pid: self.pid, time: is_on(TIME), offset, colour: is_on(COLOUR) }
    }

    /// The difference to UTC of the times in lines.
    pub(super) fn offset(&self, utc: bool) -> UtcOffset {
        if utc { UtcOffset::UTC } else { self.local }
    }

    fn is_on(&self, bit: u8) -> bool {
        self.switches.load(Ordering::Relaxed) & bit != 0
    }
}

impl LineLayer {
    pub(super) fn new(settings: Arc<Settings>, queue: Arc<Queue>) -> Self {
        Self { settings, queue }
    }

    /// DBG and TRC are about this server; libraries are heard only when something is wrong with them.
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let own = metadata.target().starts_with("leat") || metadata.target() == super::FATAL;
        let (debug, trace) = match metadata.target().starts_with(STREAMING_TARGET) {
            true => (STREAMING_DEBUG, STREAMING_TRACE),
            false => (DEBUG, TRACE),
        };
        match *metadata.level() {
            Level::ERROR | Level::WARN => true,
            Level::INFO => own,
            Level::DEBUG => own && self.settings.is_on(debug),
            Level::TRACE => own && self.settings.is_on(trace),
        }
    }
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_event() && self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let is_on = |one, other| self.settings.is_on(one) || self.settings.is_on(other);
        Some(match (is_on(TRACE, STREAMING_TRACE), is_on(DEBUG, STREAMING_DEBUG)) {
            (true, _) => LevelFilter::TRACE,
            (false, true) => LevelFilter::DEBUG,
            (false, false) => LevelFilter::INFO,
        })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.queue.push(self.settings.style().event_line(SystemTime::now(), event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::queue::Item;
    use std::fmt::Debug;
    use tracing_subscriber::layer::SubscriberExt as _;

    fn lines(debug: bool, trace: bool, log: impl FnOnce()) -> Vec<String> {
        lines_of(&LogConfig { debug, trace, ..LogConfig::default() }, log)
    }

    fn lines_of(config: &LogConfig, log: impl FnOnce()) -> Vec<String> {
        let (queue, receiver) = Queue::new(64);
        let settings = Settings::new(1, UtcOffset::UTC);
        settings.set(config, false);
        let layer = LineLayer::new(Arc::new(settings), Arc::new(queue));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        receiver
            .try_iter()
            .map(|item| match item {
                Item::Line(line) => line,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// Fields follow the message as key=value; those with blanks are quoted.
    #[test]
    fn fields_are_appended() {
        let name: &dyn Debug = &"x";
        let error = std::io::Error::other("disk on fire");
        let error: &(dyn std::error::Error + 'static) = &error;
        let lines = lines(false, false, || {
            tracing::info!(stream = "ORDERS", seq = 5_u64, ok = true, "Appended {}", 3);
            tracing::warn!(who = "a b", empty = "", ?name, addr = %"[::1]:2", error, "Odd");
            tracing::error!(target: crate::logging::FATAL, "Gone");
        });
        assert_eq!(
            lines,
            [
                "[1] [INF] Appended 3 stream=ORDERS seq=5 ok=true\n",
                "[1] [WRN] Odd who=\"a b\" empty=\"\" name=\"x\" addr=[::1]:2 error=\"disk on fire\"\n",
                "[1] [FTL] Gone\n",
            ]
        );
    }

    /// -D and -V are independent, and libraries do not fill the log.
    #[test]
    fn levels_on_demand() {
        let log = || {
            tracing::debug!("d");
            tracing::trace!("t");
            tracing::info!(target: "hyper::proto", "library");
            tracing::warn!(target: "hyper::proto", "library");
            tracing::info!("i");
        };
        let labels = |debug, trace| -> String { lines(debug, trace, log).iter().map(|line| &line[5..6]).collect() };
        assert_eq!(labels(false, false), "WI");
        assert_eq!(labels(true, false), "DWI");
        assert_eq!(labels(false, true), "TWI");
        assert_eq!(labels(true, true), "DTWI");
    }

    /// The streaming service has switches of its own.
    #[test]
    fn levels_of_the_streaming_service() {
        let log = || {
            tracing::debug!("d");
            tracing::trace!("t");
            tracing::debug!(target: "leat::streaming::home", "D");
            tracing::trace!(target: "leat::streaming::home", "T");
        };
        let texts = |config: LogConfig| -> String { lines_of(&config, log).iter().map(|line| &line[10..11]).collect() };
        assert_eq!(texts(LogConfig { debug: true, trace: true, ..LogConfig::default() }), "dt");
        assert_eq!(texts(LogConfig { streaming_debug: true, ..LogConfig::default() }), "D");
        assert_eq!(texts(LogConfig { streaming_trace: true, ..LogConfig::default() }), "T");
    }
}
