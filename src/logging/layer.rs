//! The tracing layer: decides whether an event is written, formats it and queues it.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::SystemTime;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::format::Style;
use super::queue::Queue;

pub(super) struct LineLayer {
    style: Style,
    queue: Arc<Queue>,
    debug: bool,
    trace: bool,
}

impl LineLayer {
    pub(super) fn new(style: Style, queue: Arc<Queue>, debug: bool, trace: bool) -> Self {
        Self { style, queue, debug, trace }
    }

    /// DBG and TRC are about this server; libraries are heard only when something is wrong with them.
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let own = metadata.target().starts_with("leat") || metadata.target() == super::FATAL;
        match *metadata.level() {
            Level::ERROR | Level::WARN => true,
            Level::INFO => own,
            Level::DEBUG => own && self.debug,
            Level::TRACE => own && self.trace,
        }
    }
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_event() && self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match (self.trace, self.debug) {
            (true, _) => LevelFilter::TRACE,
            (false, true) => LevelFilter::DEBUG,
            (false, false) => LevelFilter::INFO,
        })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.queue.push(self.style.event_line(SystemTime::now(), event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::queue::Item;
    use std::fmt::Debug;
    use time::UtcOffset;
    use tracing_subscriber::layer::SubscriberExt as _;

    fn lines(debug: bool, trace: bool, log: impl FnOnce()) -> Vec<String> {
        let (queue, receiver) = Queue::new(64);
        let style = Style { pid: 1, time: false, offset: UtcOffset::UTC, colour: false };
        let layer = LineLayer::new(style, Arc::new(queue), debug, trace);
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
}
