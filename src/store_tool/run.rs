//! From a command to text and an exit code.

use std::cell::Cell;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::directory::{StoreDirectory, Unusable};
use super::dump::{self, Wanted};
use super::inspect::inspect;
use super::print;
use super::verify::verify;
use crate::cli::store::StoreCommand;
use crate::log::recover::Files;

/// How a command has ended. The numbers are exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Sound = 0,
    /// Damage was found.
    Damaged = 1,
    /// The store cannot be opened, or the command makes no sense.
    Unusable = 2,
}

/// Carries out a command. Writes what it finds to `out`, and everything else to standard error.
pub fn run(command: &StoreCommand, out: impl Write) -> Exit {
    let mut out = BufWriter::with_capacity(64 << 10, out);
    let outcome = carry_out(command, &mut out).and_then(|exit| out.flush().map(|()| exit).map_err(Failure::Output));
    match outcome {
        Ok(exit) => exit,
        // Whoever was reading has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Sound,
        Err(Failure::Output(error)) => complain(&format_args!("the output cannot be written: {error}")),
        Err(Failure::Unusable(why)) => complain(&why),
    }
}

fn complain(why: &dyn std::fmt::Display) -> Exit {
    eprintln!("leat: {why}");
    Exit::Unusable
}

enum Failure {
    Unusable(Unusable),
    Output(io::Error),
}

impl From<Unusable> for Failure {
    fn from(why: Unusable) -> Self {
        Self::Unusable(why)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn carry_out(command: &StoreCommand, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        StoreCommand::Inspect { directory, json } => {
            let inspection = inspect(&StoreDirectory::open(directory)?)?;
            if *json {
                serde_json::to_writer_pretty(&mut *out, &inspection).map_err(io::Error::from)?;
                writeln!(out)?;
            } else {
                print::inspection(&inspection, out)?;
            }
            Ok(Exit::Sound)
        }
        StoreCommand::Verify { directory } => verify_and_tell(directory, out),
        StoreCommand::Dump { directory, stream, log, from, to } => {
            let directory = StoreDirectory::open(directory)?;
            let wanted = Wanted { stream: stream.clone(), log: *log, seqs: *from..=*to };
            let dumped = dump::find(&directory, &wanted, &|_| {})?.dump(wanted.seqs, out)?;
            if dumped.lost.is_empty() {
                return Ok(Exit::Sound);
            }
            eprintln!("leat: messages that cannot be read: {}", super::describe::ranges(&dumped.lost));
            Ok(Exit::Damaged)
        }
    }
}

fn verify_and_tell(path: &Path, out: &mut impl Write) -> Result<Exit, Failure> {
    let directory = StoreDirectory::open(path)?;
    let progress = progress(&directory);
    let read = Cell::new(0);
    let on_read = |bytes| {
        read.set(read.get() + bytes);
        progress.set_position(read.get());
    };
    let verification = verify(&directory, &on_read);
    progress.finish_and_clear();
    let verification = verification?;
    print::verification(&verification, out)?;
    Ok(if verification.damages() == 0 { Exit::Sound } else { Exit::Damaged })
}

/// A bar on standard error, if that is a terminal.
fn progress(directory: &StoreDirectory) -> ProgressBar {
    let sizes = directory.logs().iter().flat_map(|log| directory.files(*log, &|_| {}).slots().unwrap_or_default());
    let bar = ProgressBar::new(sizes.map(|(_, bytes)| bytes).sum());
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
