//! `leat store`: its own arguments, apart from the flags of a server.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use super::{CliError, Command};

/// The word that asks for it.
pub(super) const WORD: &str = "store";

/// Exit code of arguments that make no sense: another than that of damage.
const USAGE_EXIT_CODE: u8 = 2;

/// What is to be done with a store.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum StoreCommand {
    /// Show what is in a store: logs, segments, checkpoints, streams, consumers, and files that do not belong there
    Inspect {
        /// Directory of the store
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read all of a store and report every damage, with file and offset, stream and sequence numbers
    Verify {
        /// Directory of the store
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Print the messages of a stream, one line of JSON each
    Dump {
        /// Directory of the store
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Number of the stream, or its name
        #[arg(value_name = "STREAM")]
        stream: String,
        /// The log, if several have such a stream
        #[arg(long, value_name = "N")]
        log: Option<u16>,
        /// First sequence number
        #[arg(long, value_name = "SEQ", default_value_t = 1)]
        from: u64,
        /// Last sequence number
        #[arg(long, value_name = "SEQ", default_value_t = u64::MAX, hide_default_value = true)]
        to: u64,
    },
}

/// Looks at a stopped store, and never changes it
#[derive(Parser)]
#[command(name = "leat store", no_binary_name = true, disable_help_subcommand = true, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: StoreCommand,
}

const EXIT_CODES: &str = "Exit codes:
  0  sound, or shown as asked
  1  damage was found, or messages cannot be read
  2  the store cannot be opened, or is in use, or the arguments make no sense";

/// Reads the arguments behind the word.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, CliError> {
    match Arguments::try_parse_from(args) {
        Ok(Arguments { command }) => Ok(Command::Store(command)),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Command::Help(error.render().to_string())),
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(CliError::with_exit_code("what is to be done with a store? (see leat store --help)", USAGE_EXIT_CODE))
        }
        Err(error) => {
            let text = error.render().to_string();
            let text = text.trim_end();
            Err(CliError::with_exit_code(text.strip_prefix("error: ").unwrap_or(text), USAGE_EXIT_CODE))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Command, CliError> {
        crate::cli::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn commands() {
        let directory = PathBuf::from("/data");
        let cases = [
            ("store inspect /data", StoreCommand::Inspect { directory: directory.clone(), json: false }),
            ("store inspect --json /data", StoreCommand::Inspect { directory: directory.clone(), json: true }),
            ("store verify /data", StoreCommand::Verify { directory: directory.clone() }),
            (
                "store dump /data ORDERS",
                StoreCommand::Dump {
                    directory: directory.clone(),
                    stream: "ORDERS".into(),
                    log: None,
                    from: 1,
                    to: u64::MAX,
                },
            ),
            (
                "store dump /data 7 --log 2 --from 10 --to=20",
                StoreCommand::Dump { directory, stream: "7".into(), log: Some(2), from: 10, to: 20 },
            ),
        ];
        for (line, command) in cases {
            assert_eq!(run(line), Ok(Command::Store(command)), "{line}");
        }
    }

    #[test]
    fn help_and_errors() {
        let Ok(Command::Help(text)) = run("store --help") else { panic!("no help") };
        for word in ["inspect", "verify", "dump", "Usage: leat store <COMMAND>", "Exit codes"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(matches!(run("store dump --help"), Ok(Command::Help(_))));
        for line in ["store", "store frobnicate", "store verify", "store dump /data", "store dump /data 1 --from x"] {
            let error = run(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
        // As a later word, or as the value of a flag, it is none.
        assert_eq!(run("-D store").unwrap_err().exit_code(), 1);
        assert!(matches!(run("--name store"), Ok(Command::Run { .. })));
    }
}
