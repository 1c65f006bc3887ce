//! One event to one line: `[<pid>] 2006/01/02 15:04:05.000000 [LVL] text key=value`.
#![forbid(unsafe_code)]

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};
use tracing::field::{Field, Visit};
use tracing::{Event, Level as TracingLevel};

/// What is the same for all lines of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) pid: u32,
    pub(super) time: bool,
    pub(super) offset: UtcOffset,
    pub(super) colour: bool,
}

/// The levels of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Info,
    Debug,
    Warn,
    Error,
    Fatal,
    Trace,
}

impl Level {
    pub(super) fn of(level: TracingLevel, target: &str) -> Self {
        match level {
            TracingLevel::ERROR if target == super::FATAL => Self::Fatal,
            TracingLevel::ERROR => Self::Error,
            TracingLevel::WARN => Self::Warn,
            TracingLevel::INFO => Self::Info,
            TracingLevel::DEBUG => Self::Debug,
            TracingLevel::TRACE => Self::Trace,
        }
    }

    /// Label and terminal colour.
    fn label(self) -> (&'static str, &'static str) {
        match self {
            Self::Info => ("INF", "32"),
            Self::Debug => ("DBG", "36"),
            Self::Warn => ("WRN", "0;93"),
            Self::Error => ("ERR", "31"),
            Self::Fatal => ("FTL", "31"),
            Self::Trace => ("TRC", "33"),
        }
    }
}

impl Style {
    /// A line of the log's own, without fields.
    pub(super) fn line(&self, now: SystemTime, level: Level, text: impl fmt::Display) -> String {
        let mut line = self.prefix(now, level);
        let _ = write!(Escaped(&mut line), "{text}");
        line.push('\n');
        line
    }

    /// The line of an event: its message, then its fields.
    pub(super) fn event_line(&self, now: SystemTime, event: &Event<'_>) -> String {
        let metadata = event.metadata();
        let mut line = self.prefix(now, Level::of(*metadata.level(), metadata.target()));
        let mut fields = String::new();
        event.record(&mut FieldWriter { line: &mut line, fields: &mut fields });
        line.push_str(&fields);
        line.push('\n');
        line
    }

    // Writing to a String cannot fail, which is why results are dropped here and below.
    fn prefix(&self, now: SystemTime, level: Level) -> String {
        let mut line = String::with_capacity(LINE_BYTES_USUAL);
        let _ = write!(line, "[{}] ", self.pid);
        if self.time {
            let now = OffsetDateTime::from(now).to_offset(self.offset);
            if let Ok(text) = now.format(TIME) {
                line.push_str(&text);
                line.push(' ');
            }
        }
        let (label, colour) = level.label();
        if self.colour {
            let _ = write!(line, "[\x1b[{colour}m{label}\x1b[0m] ");
        } else {
            let _ = write!(line, "[{label}] ");
        }
        line
    }
}

/// Puts the message into the line and everything else behind it.
struct FieldWriter<'a> {
    line: &'a mut String,
    fields: &'a mut String,
}

impl FieldWriter<'_> {
    fn value(&mut self, field: &Field, value: &dyn fmt::Display) {
        if field.name() == "message" {
            let _ = write!(Escaped(self.line), "{value}");
        } else {
            let _ = write!(Escaped(self.fields), " {}={value}", field.name());
        }
    }
}

impl Visit for FieldWriter<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.value(field, &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" && (value.is_empty() || value.contains([' ', '"', '='])) {
            self.value(field, &format_args!("{value:?}"));
        } else {
            self.value(field, &value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &value.to_string());
    }
}

/// Writes control characters as escapes: what a client sent can neither forge a line nor steer a terminal.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(is_unsafe) {
            let safe = part.strip_suffix(is_unsafe).unwrap_or(part);
            self.0.push_str(safe);
            self.0.extend(part[safe.len()..].chars().flat_map(char::escape_default));
        }
        Ok(())
    }
}

fn is_unsafe(c: char) -> bool {
    c.is_control() && c != '\t'
}

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]/[month]/[day] [hour]:[minute]:[second].[subsecond digits:6]");

const LINE_BYTES_USUAL: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const STYLE: Style = Style { pid: 77, time: true, offset: UtcOffset::UTC, colour: false };

    fn at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(1_795_486_318_225_912_345)
    }

    /// Lines are those of the reference, byte for byte.
    #[test]
    fn line_format() {
        let line = |style: Style, level| style.line(at(), level, "Server is ready");
        assert_eq!(line(STYLE, Level::Info), "[77] 2026/11/24 02:11:58.225912 [INF] Server is ready\n");
        let no_time = Style { time: false, ..STYLE };
        assert_eq!(line(no_time, Level::Fatal), "[77] [FTL] Server is ready\n");
        let local = Style { offset: UtcOffset::from_hms(-3, -30, 0).unwrap(), ..STYLE };
        assert_eq!(line(local, Level::Debug), "[77] 2026/11/23 22:41:58.225912 [DBG] Server is ready\n");
        let coloured = Style { colour: true, time: false, ..STYLE };
        assert_eq!(line(coloured, Level::Warn), "[77] [\x1b[0;93mWRN\x1b[0m] Server is ready\n");
    }

    /// Text from the network stays on its line.
    #[test]
    fn control_characters_are_escaped() {
        let no_time = Style { time: false, ..STYLE };
        let line = no_time.line(at(), Level::Error, "a\r\n[1] [INF] forged\x1b[2J\té");
        assert_eq!(line, "[77] [ERR] a\\r\\n[1] [INF] forged\\u{1b}[2J\té\n");
    }

    #[test]
    fn levels() {
        assert_eq!(Level::of(TracingLevel::ERROR, "leat::x"), Level::Error);
        assert_eq!(Level::of(TracingLevel::ERROR, crate::logging::FATAL), Level::Fatal);
        assert_eq!(Level::of(TracingLevel::TRACE, "leat::x").label(), ("TRC", "33"));
    }
}
