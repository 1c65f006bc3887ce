//! The program's error: one line for a human, nothing to match on, because every failure ends the run.

use std::fmt;
use std::io;

/// Why the run ended early, in one line.
#[derive(Debug, Clone)]
pub(crate) struct Failure(String);

/// Result of everything that can end the run.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure from its line.
    pub(crate) fn new(text: impl Into<String>) -> Failure {
        Failure(text.into())
    }

    /// For `map_err`: puts what was attempted in front of the system's words.
    pub(crate) fn during(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Failure {
        move |error| Failure(format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure(error.to_string())
    }
}
