//! What one call of the program does: find the servers, do the jobs, print the results.

use std::path::Path;

use serde_json::Value;

use crate::args::{Cli, Mode, Options};
use crate::compare::Rounds;
use crate::drive::Target;
use crate::embedded::{self, Embedded};
use crate::failure::{Failure, Outcome};
use crate::modes::{Job, sink, suite};
use crate::procfs::ProcessProbe;
use crate::progress::Progress;
use crate::report;
use crate::stats::hgrm;
use crate::sys;

/// Pairs of runs for a comparison unless told otherwise.
const ROUNDS_COMPARED: usize = 5;

/// Whether the results can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every message arrived once.
    Sound,
    /// Something was lost or came twice; the report says what.
    Faulty,
}

/// Does what the command line asks.
pub(crate) fn run(cli: &Cli) -> Outcome<Verdict> {
    sys::watch_stop_signals();
    sys::raise_open_files();
    if let Some(Mode::Sink { listen }) = &cli.mode {
        pin(&cli.options)?;
        sink::serve(*listen)?;
        return Ok(Verdict::Sound);
    }
    let mut options = cli.options.clone();
    let servers = Servers::find(&mut options)?;
    pin(&options)?;
    let jobs = jobs(cli.mode.as_ref(), &options)?;
    let several = !matches!(&cli.mode, Some(mode) if mode.name() != "suite");
    let rounds = options.rounds.unwrap_or(if servers.b.is_some() { ROUNDS_COMPARED } else { 1 });

    let progress = Progress::new(options.quiet);
    let mut all = Vec::new();
    for (at, job) in jobs.iter().enumerate() {
        let stage = if several { format!("{}/{} ", at + 1, jobs.len()) } else { String::new() };
        let done = Rounds::run(job, &servers.a, servers.b.as_ref(), rounds, &progress, &stage)
            .map_err(|failure| Failure::new(format!("{}: {failure}", job.label)))?;
        all.push(done);
    }
    drop(progress);
    publish(cli, &options, &servers, &all, several)?;
    let faulty = all.iter().any(Rounds::faulty);
    Ok(if faulty { Verdict::Faulty } else { Verdict::Sound })
}

fn jobs(mode: Option<&Mode>, options: &Options) -> Outcome<Vec<Job>> {
    let jobs = match mode {
        Some(Mode::Suite { only, .. }) => suite::full(options, only.as_deref()),
        Some(mode) => vec![Job::from_command_line(mode, options)],
        None if options.embedded || options.compare.is_some() => suite::short(options),
        None => {
            return Err(Failure::new("say what to do: a mode (see --help), or --embedded for a set of everything"));
        }
    };
    if jobs.is_empty() {
        return Err(Failure::new("no row of the suite has a name like that"));
    }
    Ok(jobs)
}

/// The servers of this call; the embedded one lives as long as this.
struct Servers {
    a: Target,
    b: Option<Target>,
    _embedded: Option<Embedded>,
}

impl Servers {
    fn find(options: &mut Options) -> Outcome<Servers> {
        let embedded = if options.embedded { Some(Embedded::start(options)?) } else { None };
        if embedded.is_some() && options.pin.is_none() {
            options.pin = embedded::default_load_cpu(options);
        }
        let a = match &embedded {
            Some(embedded) => Target { url: embedded.url.clone(), probe: Some(ProcessProbe::new(embedded.pid())?) },
            None => Target { url: options.url.clone(), probe: probe(options.pid, options.pid_file.as_deref())? },
        };
        let b = match &options.compare {
            Some(url) => Some(Target {
                url: url.clone(),
                probe: probe(options.compare_pid, options.compare_pid_file.as_deref())?,
            }),
            None => None,
        };
        Ok(Servers { a, b, _embedded: embedded })
    }
}

fn probe(pid: Option<u32>, file: Option<&Path>) -> Outcome<Option<ProcessProbe>> {
    let pid = match (pid, file) {
        (Some(pid), _) => pid,
        (None, None) => return Ok(None),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .map_err(Failure::during(format_args!("cannot read {}", file.display())))?;
            text.trim().parse().map_err(|_| Failure::new(format!("{} holds no process id", file.display())))?
        }
    };
    ProcessProbe::new(pid).map(Some)
}

fn pin(options: &Options) -> Outcome<()> {
    match &options.pin {
        Some(cpus) => sys::pin(&cpus.0).map_err(Failure::during(format_args!("cannot pin to CPUs {cpus}"))),
        None => Ok(()),
    }
}

/// Prints and writes the results.
fn publish(cli: &Cli, options: &Options, servers: &Servers, all: &[Rounds], several: bool) -> Outcome<()> {
    let source = servers.a.probe.as_ref().map(ProcessProbe::source_name);
    let results = Value::Array(all.iter().map(Rounds::as_json).collect());
    let document = report::document(results, source);
    if let Some(Mode::Suite { json_file: Some(file), .. }) = &cli.mode {
        write(file, &format!("{document:#}\n"))?;
    }
    if options.json {
        println!("{document:#}");
    } else if several {
        print!("{}", report::markdown(all));
    } else {
        for rounds in all {
            match (rounds.a.as_slice(), rounds.b.is_empty()) {
                ([run], true) => print!("{}", report::single(run)),
                _ => print!("{}", report::rounds(rounds)),
            }
        }
    }
    match &options.hgrm {
        Some(file) => write_histograms(file, all),
        None => Ok(()),
    }
}

fn write_histograms(file: &Path, all: &[Rounds]) -> Outcome<()> {
    let mut written = false;
    for (at, rounds) in all.iter().enumerate() {
        for (runs, side) in [(&rounds.a, ""), (&rounds.b, ".b")] {
            if let Some(latency) = Rounds::latency(runs) {
                let row = if all.len() > 1 { format!(".{}", at + 1) } else { String::new() };
                let name = format!("{}{row}{side}", file.display());
                write(Path::new(&name), &hgrm(&latency))?;
                written = true;
            }
        }
    }
    if written { Ok(()) } else { Err(Failure::new("--hgrm: this mode measures no latency; try --rate")) }
}

fn write(file: &Path, text: &str) -> Outcome<()> {
    std::fs::write(file, text).map_err(Failure::during(format_args!("cannot write {}", file.display())))
}
