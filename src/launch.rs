//! From arguments to exit code: what the executable does, also for programs that bring the broker along.

use std::process::ExitCode;

use std::ffi::OsString;

use crate::cli::{self, CliError, Command};
use crate::config::Options;
use crate::control;
use crate::host;
use crate::logging::{LogConfig, Logging};
use crate::store_tool;

/// Runs the broker, or whatever else `arguments` (without the program's name) ask for.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match cli::parse(arguments.iter().cloned()) {
        Ok(Command::Run { options, warnings }) => serve(*options, &warnings, &|| read_again(&arguments)),
        Ok(Command::Signal(signal)) => match signal.send() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(&error),
        },
        Ok(Command::Store(command)) => ExitCode::from(store_tool::run(&command, std::io::stdout().lock()) as u8),
        Ok(Command::Help(text) | Command::Version(text)) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Ok(Command::Tested(text)) => {
            eprintln!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// The options as a start with these arguments would have them now, and its warnings: the file may be another one, and
/// flags keep their precedence over it.
fn read_again(arguments: &[OsString]) -> Result<(Options, Vec<String>), String> {
    match cli::parse(arguments.iter().cloned()) {
        Ok(Command::Run { options, warnings }) => Ok((*options, warnings)),
        Ok(_) => Err("the arguments do not start a server".to_owned()),
        Err(error) => Err(error.reason().replace('\n', "; ")),
    }
}

fn serve(mut options: Options, warnings: &[String], read_again: control::ReadAgain<'_>) -> ExitCode {
    // Before the log has a thread: some of what is prepared must happen while there is only one.
    let prepared = host::prepare(&mut options);
    let logging = match Logging::install(&LogConfig::from(&options)) {
        Ok(logging) => logging,
        Err(error) => return refuse(&error),
    };
    match control::run(options, prepared, warnings, &logging, read_again) {
        Ok(()) => ExitCode::SUCCESS,
        // The log has the line.
        Err(_) => ExitCode::from(CliError::EXIT_CODE),
    }
}

fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("leat: {error}");
    ExitCode::from(CliError::EXIT_CODE)
}
