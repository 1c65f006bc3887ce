//! `--signal name[=pid|pidfile]`: finds the server and signals it.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;

use crate::host::sys;

/// The signals of the command, in the order of the help text.
const SIGNALS: &[(&str, i32)] = &[
    ("ldm", libc::SIGUSR2),
    ("stop", libc::SIGKILL),
    ("quit", libc::SIGINT),
    ("term", libc::SIGTERM),
    ("reopen", libc::SIGUSR1),
    ("reload", libc::SIGHUP),
];

/// A signal to send and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalCommand {
    name: &'static str,
    number: i32,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// The only running process of this program.
    Sole,
    /// This process.
    Pid(i32),
    /// The process whose id is in this file.
    PidFile(String),
}

impl SignalCommand {
    pub(super) fn parse(request: &str) -> Result<Self, String> {
        let (name, target) = request.split_once('=').unwrap_or((request, ""));
        let Some(&(name, number)) = SIGNALS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
            return Err(format!("unknown signal \"{}\"; the signals are {}", name.escape_debug(), known.join(", ")));
        };
        let target = match target {
            "" => Target::Sole,
            target => read_pid(target).map_or_else(|| Target::PidFile(target.to_owned()), Target::Pid),
        };
        Ok(Self { name, number, target })
    }

    /// Sends the signal. The error is one line for standard error.
    pub fn send(&self) -> Result<(), String> {
        let pid = self.pid(Path::new("/proc"))?;
        sys::kill(pid, self.number).map_err(|error| {
            let reason = match error.raw_os_error() {
                Some(libc::ESRCH) => "no such process".to_owned(),
                Some(libc::EPERM) => "not permitted; it runs as another user".to_owned(),
                _ => error.to_string(),
            };
            format!("signal \"{}\" {pid}: {reason}", self.name)
        })
    }

    fn pid(&self, proc: &Path) -> Result<i32, String> {
        match &self.target {
            Target::Pid(pid) => Ok(*pid),
            Target::PidFile(file) => {
                let text = fs::read_to_string(file).map_err(|error| format!("invalid pid: {file}: {error}"))?;
                read_pid(text.trim()).ok_or_else(|| format!("invalid pid: {file}: no process id in it"))
            }
            Target::Sole => {
                let (name, own) = own_identity().map_err(|error| format!("cannot tell my own name: {error}"))?;
                sole(running(proc, &name, own), &name)
            }
        }
    }
}

/// A pid above 0; 0 and negative numbers would address whole process groups.
fn read_pid(text: &str) -> Option<i32> {
    text.parse().ok().filter(|pid| *pid > 0)
}

fn own_identity() -> io::Result<(String, u32)> {
    let exe = std::env::current_exe()?;
    let name = exe.file_name().unwrap_or_default().to_string_lossy();
    Ok((without_deleted(&name).to_owned(), std::process::id()))
}

fn sole(pids: Vec<i32>, name: &str) -> Result<i32, String> {
    match pids.as_slice() {
        [] => Err(format!("no {name} processes running")),
        [pid] => Ok(*pid),
        several => {
            let list: Vec<String> = several.iter().map(i32::to_string).collect();
            Err(format!("multiple {name} processes running: {}", list.join(", ")))
        }
    }
}

/// Processes whose executable has this name, this one left out, ascending.
fn running(proc: &Path, name: &str, own: u32) -> Vec<i32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let mut pids: Vec<i32> = entries
        .filter_map(|entry| {
            let pid = read_pid(entry.file_name().to_str()?)?;
            (pid.unsigned_abs() != own && runs(&entry.path(), name)).then_some(pid)
        })
        .collect();
    pids.sort_unstable();
    pids
}

/// Whether the process of this `/proc` directory runs an executable of this name. The executable of another user's
/// process cannot be read; its short name, cut to 15 bytes by the kernel, then decides.
fn runs(process: &Path, name: &str) -> bool {
    const SHORT_NAME_BYTES: usize = 15;
    match fs::read_link(process.join("exe")) {
        Ok(exe) => exe.file_name().is_some_and(|file| without_deleted(&file.to_string_lossy()) == name),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let short = name.as_bytes().get(..SHORT_NAME_BYTES).unwrap_or(name.as_bytes());
            fs::read(process.join("comm")).is_ok_and(|comm| comm.trim_ascii_end() == short)
        }
        // The process has just ended, or is a kernel thread or a zombie.
        Err(_) => false,
    }
}

/// The kernel marks an executable that was replaced while it runs.
fn without_deleted(name: &str) -> &str {
    name.strip_suffix(" (deleted)").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_and_targets() {
        let parse = |text| SignalCommand::parse(text).unwrap();
        assert_eq!(parse("ldm"), SignalCommand { name: "ldm", number: libc::SIGUSR2, target: Target::Sole });
        assert_eq!(parse("stop=7").target, Target::Pid(7));
        assert_eq!(parse("reload=").target, Target::Sole);
        assert_eq!(parse("term=/run/leat.pid").target, Target::PidFile("/run/leat.pid".into()));
        // Not a process group.
        assert_eq!(parse("quit=-1").target, Target::PidFile("-1".into()));
        assert!(SignalCommand::parse("QUIT").is_err());
    }

    /// Only other processes of the same name count, and the errors list what was found.
    #[test]
    fn finds_the_sole_process() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, exe) in [("10", "/x/leat"), ("11", "/y/leat-bench"), ("12", "/z/leat (deleted)"), ("13", "/x/leat")] {
            fs::create_dir(proc.path().join(pid)).unwrap();
            symlink(exe, proc.path().join(pid).join("exe")).unwrap();
        }
        fs::create_dir(proc.path().join("self")).unwrap();
        fs::create_dir(proc.path().join("99")).unwrap();
        let find = |name: &str, own| sole(running(proc.path(), name, own), name);
        assert_eq!(find("leat", 13).unwrap_err(), "multiple leat processes running: 10, 12");
        assert_eq!(find("leat-bench", 13), Ok(11));
        assert_eq!(find("other", 13).unwrap_err(), "no other processes running");
    }

    /// A pid file holds the id alone or with a newline; anything else is named.
    #[test]
    fn pid_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let command = SignalCommand::parse(&format!("quit={}", file.display())).unwrap();
        assert!(command.pid(Path::new("/proc")).unwrap_err().starts_with("invalid pid: "));
        fs::write(&file, "4242\n").unwrap();
        assert_eq!(command.pid(Path::new("/proc")), Ok(4242));
        fs::write(&file, "-1").unwrap();
        assert!(command.pid(Path::new("/proc")).unwrap_err().ends_with("no process id in it"));
    }

    #[test]
    fn a_missing_process_is_reported() {
        let error = SignalCommand::parse("reopen=2147483647").unwrap().send().unwrap_err();
        assert_eq!(error, "signal \"reopen\" 2147483647: no such process");
    }
}
