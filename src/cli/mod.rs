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
pub mod store;
mod streaming;

pub use parse::parse;

use std::fmt;

use crate::config::Options;
use signal::SignalCommand;
use store::StoreCommand;

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
    /// Look at a stopped store.
    Store(StoreCommand),
    /// Print this and exit with success.
    Help(String),
    /// Print this and exit with success.
    Version(String),
}

/// Why there is nothing to run: one line for standard error, or one for each error of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    reason: String,
    exit_code: u8,
}

impl CliError {
    /// Exit code of a refused start.
    pub const EXIT_CODE: u8 = 1;

    fn new(text: impl Into<String>) -> Self {
        Self::with_exit_code(text, Self::EXIT_CODE)
    }

    fn with_exit_code(text: impl Into<String>, exit_code: u8) -> Self {
        Self { reason: text.into(), exit_code }
    }

    /// The exit code: [`CliError::EXIT_CODE`] unless a subcommand has another one for this.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// The error without the program's name.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leat: {}", self.reason)
    }
}

impl std::error::Error for CliError {}
