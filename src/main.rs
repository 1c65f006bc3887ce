//! The broker's executable.

use std::process::ExitCode;

fn main() -> ExitCode {
    leat::launch::main(std::env::args_os().skip(1))
}
