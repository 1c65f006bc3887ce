//! The command line: arguments in, a [`Command`] out.
//!
//! Owns the table of flags, from which Go-style arguments are brought into clap's form, the clap command is built and
//! the help text is written. Never acts: it reads the configuration file, but sends nothing and prints nothing, so that
//! every outcome is a value a test can look at. (The signal command lives in [`signal`] and is run by `main`.)
#![forbid(unsafe_code)]

mod flags;
mod help;
mod normalise;
mod parse;
mod sections;
pub mod signal;

pub use parse::parse;

use std::fmt;

use crate::config::Options;
use signal::SignalCommand;

/// What the user asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Run a server. The warnings are to be logged once there is a log.
    Run {
        /// Checked options.
        options: Box<Options>,
        /// One line for each flag or key that was accepted but has no effect or is unwise.
        warnings: Vec<String>,
    },
    /// The configuration file passed its test. Print this to standard error and exit with success.
    Tested(String),
    /// Send a signal to a running server.
    Signal(SignalCommand),
    /// Print this and exit with success.
    Help(String),
    /// Print this and exit with success.
    Version(String),
}

/// Why there is nothing to run: one line for standard error, or one for each error of a configuration file. The exit code is [`CliError::EXIT_CODE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError(String);

impl CliError {
    /// Exit code of a refused start.
    pub const EXIT_CODE: u8 = 1;

    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The error without the program's name.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leat: {}", self.0)
    }
}

impl std::error::Error for CliError {}
