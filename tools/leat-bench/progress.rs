//! The progress bar: on a terminal only, and on standard error, so that results can be piped.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far a run is, if somebody watches.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar if standard error is a terminal and the user wants it.
    pub(crate) fn new(quiet: bool) -> Progress {
        if quiet || !std::io::stderr().is_terminal() {
            return Progress { bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress { bar: Some(bar) }
    }

    /// How often the run should call `show`.
    pub(crate) fn step(&self) -> Duration {
        Duration::from_millis(if self.bar.is_some() { 200 } else { 500 })
    }

    /// What is done as a whole, in front of the bar: `3/15`.
    pub(crate) fn stage(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(text.to_owned());
        }
    }

    /// Draws the bar for a run that lasts from `begin_ns` until `until_ns` (`u64::MAX`: not known).
    pub(crate) fn show(&self, label: &str, begin_ns: u64, now_ns: u64, until_ns: u64) {
        let Some(bar) = &self.bar else { return };
        bar.set_message(label.to_owned());
        if until_ns != u64::MAX {
            let part = (now_ns - begin_ns) as f64 / (until_ns - begin_ns).max(1) as f64;
            bar.set_position((part * 1000.0) as u64);
        }
    }

    /// Removes the bar from the screen.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            bar.reset();
        }
    }
}
