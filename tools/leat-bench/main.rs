//! `leat-bench`: a load generator for NATS servers. Arguments and exit code; everything else is in the modules.

mod args;
mod block;
mod client;
mod compare;
mod drive;
mod embedded;
mod failure;
mod figures;
mod frames;
mod modes;
mod pace;
mod plan;
mod procfs;
mod program;
mod progress;
mod report;
mod requests;
mod roles;
mod stan;
mod stats;
mod storm;
mod sys;
mod units;
mod worker;

use std::process::ExitCode;

use clap::Parser;

/// First argument with which this program is the broker of an `--embedded` run.
const BROKER: &str = "embedded-broker";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == BROKER) {
        return leat::launch::main(arguments);
    }
    match program::run(&args::Cli::parse()) {
        Ok(program::Verdict::Sound) => ExitCode::SUCCESS,
        Ok(program::Verdict::Faulty) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("leat-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
