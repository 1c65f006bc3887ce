//! Arguments to a [`Command`]: normalise, let clap check, then apply the table in its order.
#![forbid(unsafe_code)]

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, ArgMatches};

use super::flags::{self, Ask, Effect, Flag};
use super::normalise::{Normalised, normalise};
use super::signal::SignalCommand;
use super::{CliError, Command, help, store};
use crate::config::grammar::System;
use crate::config::{self, Loaded, Options, SecretOrigin, values};

/// Reads arguments, the program's name not among them.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, CliError> {
    let mut args = args.into_iter().peekable();
    if args.next_if(|first| first == store::WORD).is_some() {
        return store::parse(args);
    }
    let given = Given::new(normalise(args)?)?;
    if let Some(command) = given.question()? {
        return Ok(command);
    }
    let loaded = given.load()?;
    if given.asks(Ask::TestConfig) {
        return match loaded {
            Some(loaded) => given.test(loaded),
            None => Err(CliError::new("must specify [-c, --config] option to check configuration file syntax")),
        };
    }
    let origin = given.secret_origin();
    let mut warnings = loaded.as_ref().map(remarks).unwrap_or_default();
    let (options, of_flags) = given.options(loaded.map(|loaded| loaded.options).unwrap_or_default())?;
    options.check().map_err(|errors| CliError::new(errors.join("; ")))?;
    warnings.extend(of_flags);
    warnings.extend(options.advice(origin));
    Ok(Command::Run { options: Box::new(options), warnings })
}

/// What a start says about a configuration file it accepts.
fn remarks(loaded: &Loaded) -> Vec<String> {
    let mut lines: Vec<String> = loaded.warnings.iter().chain(&loaded.notices).map(ToString::to_string).collect();
    if loaded.is_empty {
        lines.push(empty(&loaded.options));
    }
    lines
}

fn empty(options: &Options) -> String {
    let file = options.config_file.as_deref().unwrap_or(Path::new(""));
    format!("{}: config has no values or is empty", file.display())
}

/// Flags as given, their values known to be usable.
struct Given {
    normalised: Normalised,
    matches: ArgMatches,
}

impl Given {
    fn new(normalised: Normalised) -> Result<Self, CliError> {
        let mut command = clap::Command::new("leat")
            .no_binary_name(true)
            .disable_help_flag(true)
            .disable_version_flag(true)
            .args_override_self(true)
            .override_help(help::help());
        for flag in flags::all() {
            let typed = normalised.typed.get(flag.id()).cloned().unwrap_or_default();
            command = command.arg(
                Arg::new(flag.id()).long(flag.id()).value_parser(move |value: &str| checked_value(flag, &typed, value)),
            );
        }
        let matches = command.try_get_matches_from(&normalised.args).map_err(one_line)?;
        Ok(Self { normalised, matches })
    }

    /// The last value given to a flag.
    fn value(&self, flag: &Flag) -> Option<&str> {
        self.matches.get_one::<String>(flag.id()).map(String::as_str)
    }

    /// The spelling the user chose.
    fn typed(&self, flag: &Flag) -> &str {
        self.normalised.typed.get(flag.id()).map_or(flag.id(), String::as_str)
    }

    /// A flag was given, and if it is a boolean, not as false.
    fn is_on(&self, flag: &Flag) -> bool {
        match self.value(flag) {
            Some(value) => !flag.is_boolean() || values::boolean(value) == Ok(true),
            None => false,
        }
    }

    /// Flags and words that ask for something other than a run.
    fn question(&self) -> Result<Option<Command>, CliError> {
        let asked = |wanted: Ask| flags::all().find(|flag| self.asks_by(flag, wanted));
        let word = self.normalised.word.as_deref();
        if asked(Ask::Help).is_some() || word == Some("help") {
            return Ok(Some(Command::Help(help::help())));
        }
        if asked(Ask::Version).is_some() || word == Some("version") {
            return Ok(Some(Command::Version(help::version())));
        }
        if asked(Ask::HelpTls).is_some() {
            return Ok(Some(Command::Help(help::help_tls())));
        }
        if let Some(word) = word {
            return Err(stray_word(word));
        }
        if asked(Ask::SampleConfig).is_some() {
            return Ok(Some(Command::Help(config::sample())));
        }
        if let Some(request) = asked(Ask::Signal).and_then(|flag| self.value(flag)) {
            return SignalCommand::parse(request).map(Command::Signal).map(Some).map_err(CliError::new);
        }
        Ok(None)
    }

    /// Whether a question was asked.
    fn asks(&self, wanted: Ask) -> bool {
        flags::all().any(|flag| self.asks_by(flag, wanted))
    }

    fn asks_by(&self, flag: &Flag, wanted: Ask) -> bool {
        matches!(flag.effect, Effect::Ask(ask) if ask == wanted) && self.is_on(flag)
    }

    /// The configuration file, and the file with the settings of NATS Streaming.
    fn files(&self) -> [Option<&Path>; 2] {
        let named = |is_wanted: fn(&Effect) -> bool| {
            let flag = flags::all().find(|flag| is_wanted(&flag.effect))?;
            self.value(flag).map(Path::new)
        };
        [named(|effect| matches!(effect, Effect::File)), named(|effect| matches!(effect, Effect::StreamingFile))]
    }

    /// What the files say, if there are any.
    fn load(&self) -> Result<Option<Loaded>, CliError> {
        let loaded = match self.files() {
            [None, None] => return Ok(None),
            [Some(file), None] => config::load(file, &System),
            [file, Some(streaming)] => config::load_with_streaming(file, streaming, &System),
        };
        loaded.map(Some).map_err(|error| CliError::new(error.to_string()))
    }

    /// Where the password or token that counts comes from.
    fn secret_origin(&self) -> SecretOrigin {
        let given = ["pass", "auth"].iter().filter_map(|name| flags::find(name)).any(|flag| self.value(flag).is_some());
        if given || self.files() == [None, None] { SecretOrigin::Flags } else { SecretOrigin::File }
    }

    /// The outcome of a test of the configuration file. As in the reference, warnings are errors here, and what only a
    /// start would refuse is not; but it is said.
    fn test(&self, loaded: Loaded) -> Result<Command, CliError> {
        if loaded.is_empty {
            return Err(CliError::new(empty(&loaded.options)));
        }
        if !loaded.warnings.is_empty() {
            let lines: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
            return Err(CliError::new(lines.join("\n")));
        }
        let mut text = String::new();
        for notice in remarks(&loaded) {
            text.push_str(&format!("{notice}\n"));
        }
        let (options, _) = self.options(loaded.options)?;
        for error in options.check().err().unwrap_or_default() {
            text.push_str(&format!("leat: a start would be refused: {error}\n"));
        }
        let file = options.config_file.as_deref().unwrap_or(Path::new(""));
        text.push_str(&format!("leat: configuration file {} is valid ({})", file.display(), options.config_digest));
        Ok(Command::Tested(text))
    }

    /// The options after all flags, and the warnings about flags without effect.
    fn options(&self, mut options: Options) -> Result<(Options, Vec<String>), CliError> {
        let mut warnings = Vec::new();
        for flag in flags::all() {
            let Some(value) = self.value(flag) else {
                continue;
            };
            match flag.effect {
                Effect::Set(set) => set(&mut options, value).map_err(CliError::new)?,
                Effect::Ignored(reason) if self.is_on(flag) => {
                    warnings.push(format!("flag {} has no effect: {reason}", self.typed(flag)));
                }
                Effect::File | Effect::StreamingFile | Effect::Ignored(_) | Effect::Ask(_) => {}
            }
        }
        Ok((options.with_defaults_for_zeroes(), warnings))
    }
}

/// clap's value parser: the setter tried on options that nobody keeps.
fn checked_value(flag: &Flag, typed: &str, value: &str) -> Result<String, String> {
    let verdict = match flag.effect {
        Effect::Set(set) => set(&mut Options::default(), value),
        _ if flag.is_boolean() => values::boolean(value).map(drop),
        _ => Ok(()),
    };
    match verdict {
        Ok(()) => Ok(value.to_owned()),
        Err(reason) => Err(format!("unusable value \"{}\" for flag {typed}: {reason}", value.escape_debug())),
    }
}

/// clap's error without its usage text. All errors that can happen after normalisation come from [`checked_value`].
fn one_line(error: clap::Error) -> CliError {
    match error.source() {
        Some(cause) => CliError::new(cause.to_string()),
        None => CliError::new(error.to_string().lines().next().unwrap_or_default()),
    }
}

fn stray_word(word: &str) -> CliError {
    let hint = match values::boolean(word) {
        Ok(_) => "; a boolean flag takes its value after \"=\", as in -D=false",
        Err(_) => " (see leat --help)",
    };
    CliError::new(format!("unrecognized command: \"{}\"{hint}", word.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tls::{Certificate, TlsOptions};
    use crate::config::{PortSpec, Secret};
    use std::path::PathBuf;
    use std::time::Duration;

    fn run(args: &[&str]) -> Result<Command, CliError> {
        parse(args.iter().map(OsString::from))
    }

    fn options(args: &[&str]) -> Options {
        match run(args) {
            Ok(Command::Run { options, .. }) => *options,
            other => panic!("{args:?} gave {other:?}"),
        }
    }

    /// Each line of arguments changes exactly the options it should.
    #[test]
    fn arguments_to_options() {
        type Change = fn(&mut Options);
        let cases: &[(&[&str], Change)] = &[
            (&[], |_| {}),
            (&["-a", "127.0.0.1", "-p", "4333"], |o| {
                (o.host, o.port) = ("127.0.0.1".into(), PortSpec::Fixed(4333));
            }),
            (&["--net=::1", "--port=-1"], |o| (o.host, o.port) = ("::1".into(), PortSpec::Any)),
            (&["-p", "1", "-p", "2"], |o| o.port = PortSpec::Fixed(2)),
            (&["-p", "0", "-m", "0", "-n", ""], |_| {}),
            (&["--server_name", "s", "-P=/x/pid"], |o| {
                (o.server_name, o.pid_file) = (Some("s".into()), Some(PathBuf::from("/x/pid")));
            }),
            (&["-m=8222", "--ports-file-dir", "/d"], |o| {
                o.http_port = Some(PortSpec::Fixed(8222));
                o.ports_file_dir = Some("/d".into());
            }),
            (&["-l", "f", "-T=false", "--logtime_utc", "--log_size_limit", "1kb"], |o| {
                (o.log_file, o.logtime, o.logtime_utc, o.log_size_limit) = (Some("f".into()), false, true, 1024);
            }),
            (&["-D", "-V"], |o| (o.debug, o.trace) = (true, true)),
            (&["-DV"], |o| (o.debug, o.trace) = (true, true)),
            (&["-VV"], |o| o.trace = true),
            (&["-DVV"], |o| (o.debug, o.trace) = (true, true)),
            (&["-DVV=false", "-D=0"], |_| {}),
            (&["--max_traced_msg_len=-1"], |_| {}),
            (&["--user", "u", "--pass", "plain$x"], |o| {
                (o.user, o.pass) = (Some("u".into()), Some(Secret::new("plain$x")));
            }),
            (&["--auth", "t"], |o| o.auth_token = Some(Secret::new("t"))),
            (&["--max_payload", "8MB", "--max-pending", "1g"], |o| {
                (o.max_payload, o.max_pending) = (8 << 20, 1_000_000_000);
            }),
            (&["--max_connections=0", "--max_subscriptions=-1", "--max_control_line", "1kb"], |o| {
                (o.max_connections, o.max_control_line) = (0, 1024);
            }),
            (&["--ping_interval", "1.5s", "--ping_max", "5", "--write_deadline", "300ms"], |o| {
                o.ping_interval = Duration::from_millis(1500);
                (o.ping_max, o.write_deadline) = (5, Duration::from_millis(300));
            }),
            (&["--auth_timeout", "3", "--lame_duck_duration", "31s", "--lame_duck_grace_period", "2s"], |o| {
                (o.auth_timeout, o.lame_duck_duration) = (Some(Duration::from_secs(3)), Duration::from_secs(31));
                o.lame_duck_grace_period = Duration::from_secs(2);
            }),
            (&["--tlscert", "c", "--tlskey=k", "--tlscacert", "a", "--tlsverify"], |o| {
                o.tls = Some(TlsOptions {
                    certificates: vec![Certificate { cert_file: "c".into(), key_file: "k".into() }],
                    ca_file: Some("a".into()),
                    verify: true,
                    ..TlsOptions::default()
                });
            }),
            (&["--no_fast_producer_stall", "--max_closed_clients", "7"], |o| {
                (o.no_fast_producer_stall, o.max_closed_clients) = (true, 7);
            }),
            (&["--cores", "0,0", "--spin-us", "20", "--ring-depth=1024", "--io-memory", "1MiB"], |o| {
                (o.cores, o.cores_are_given) = (vec![0, 0], true);
                (o.spin_us, o.ring_depth, o.io_memory) = (20, 1024, 1 << 20);
            }),
            (&["--ring-slots", "8", "--ring_bytes", "64KiB"], |o| (o.ring_slots, o.ring_bytes) = (8, 65536)),
        ];
        for (args, change) in cases {
            let mut expected = Options::default();
            change(&mut expected);
            assert_eq!(options(args), expected, "{args:?}");
        }
    }

    /// What cannot be run is refused with one line that says why.
    #[test]
    fn arguments_to_errors() {
        let cases: &[(&[&str], &str)] = &[
            (&["-foo"], "leat: unknown flag \"-foo\" (see leat --help)"),
            (&["-p"], "leat: flag -p needs a value <port>"),
            (
                &["-p", "abc"],
                "leat: unusable value \"abc\" for flag -p: not a port (0 to 65535, or -1 for a random one)",
            ),
            (
                &["--port=70000", "-p", "1"],
                "leat: unusable value \"70000\" for flag -p: not a port (0 to 65535, or -1 for a random one)",
            ),
            (&["-D=maybe"], "leat: unusable value \"maybe\" for flag -D: neither true nor false"),
            (&["-js=maybe"], "leat: unusable value \"maybe\" for flag -js: neither true nor false"),
            (
                &["--ping_interval", "x"],
                "leat: unusable value \"x\" for flag --ping_interval: not a duration such as 300ms, 1.5s or 2m",
            ),
            (&["--auth", ""], "leat: unusable value \"\" for flag --auth: empty, which would let everybody in"),
            (&["stray"], "leat: unrecognized command: \"stray\" (see leat --help)"),
            (
                &["-D", "false"],
                "leat: unrecognized command: \"false\"; a boolean flag takes its value after \"=\", as in -D=false",
            ),
            (&["-t"], "leat: must specify [-c, --config] option to check configuration file syntax"),
            (&["-t", "-c", "/nonexistent/x"], "leat: open /nonexistent/x: No such file or directory (os error 2)"),
            (&["-c", "/nonexistent/x"], "leat: open /nonexistent/x: No such file or directory (os error 2)"),
            (&["--tls"], "leat: TLS Server certificate must be present and valid"),
            (&["--tls", "--tlscert", "c"], "leat: TLS Server private key must be present and valid"),
            (&["--tlskey", "k"], "leat: TLS Server certificate must be present and valid"),
            (&["-ms", "1"], "leat: TLS cert and key required for HTTPS"),
            (&["-m", "-1", "-ms", "1"], "leat: can't specify both HTTP (-1) and HTTPs (1) ports"),
            (&["-n", "a b"], "leat: server name cannot contain spaces"),
            (
                &["-n", "a b", "--max_payload=100", "--max_pending=50"],
                "leat: max_payload (100) cannot be higher than max_pending (50); server name cannot contain spaces",
            ),
            (&["-sl", "zz"], "leat: unknown signal \"zz\"; the signals are ldm, stop, quit, term, reopen, reload"),
        ];
        for (args, error) in cases {
            let text = run(args).unwrap_err().to_string();
            assert_eq!(text, *error, "{args:?}");
            assert_eq!(text.lines().count(), 1);
        }
    }

    /// Flags of features that are not there are answered with a warning each, or none when switched off.
    #[test]
    fn flags_without_effect() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["--js=false", "--tls=false"], &[]),
            (
                &["-js", "-sd", "/x"],
                &[
                    "flag -js has no effect: JetStream is not available in this version",
                    "flag -sd has no effect: nothing is stored in this version",
                ],
            ),
            (
                &["--segment-size", "1MiB", "-commit_delay_us=9", "--segment-size", "2MiB"],
                &[
                    "flag --segment-size has no effect: nothing is stored in this version",
                    "flag -commit_delay_us has no effect: nothing is stored in this version",
                ],
            ),
            (
                &["--routes", "nats://h:1"],
                &["flag --routes has no effect: clustering is not available in this version; the server runs alone"],
            ),
            (
                &["--user=u", "--pass=p"],
                &["Plaintext passwords detected: other users of this machine can read them from the process list"],
            ),
        ];
        for (args, expected) in cases {
            match run(args) {
                Ok(Command::Run { warnings, .. }) => assert_eq!(warnings, *expected),
                other => panic!("{args:?} gave {other:?}"),
            }
        }
    }

    #[test]
    fn questions() {
        for args in [&["-h"], &["--help"], &["help"]] {
            assert_eq!(run(args), Ok(Command::Help(help::help())));
        }
        for args in [&["-v"], &["--version"], &["version"]] {
            assert_eq!(run(args), Ok(Command::Version(help::version())));
        }
        assert!(matches!(run(&["--help_tls"]), Ok(Command::Help(text)) if text.contains("TLS")));
        assert!(matches!(run(&["-c", "x", "-sl", "quit=12"]), Ok(Command::Signal(_))));
        assert_eq!(run(&["help", "-foo"]), Ok(Command::Help(help::help())));
    }
}
