//! Go-style arguments into clap's form.
//!
//! Go's rules: one dash or two, `-flag value` or `-flag=value`, a boolean takes a value only after `=`, `--` or the
//! first argument that is no flag ends the flags. The result holds one `--id=value` for each flag given.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::OsString;

use super::CliError;
use super::flags::{self, Flag};

/// Arguments in a form that clap takes, and what the user really typed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Normalised {
    /// `--id=value` in the order given.
    pub(super) args: Vec<String>,
    /// The spelling that was used for each flag id, for messages.
    pub(super) typed: HashMap<&'static str, String>,
    /// The first argument that is no flag.
    pub(super) word: Option<String>,
}

/// Brings arguments (without the program's name) into clap's form.
pub(super) fn normalise(args: impl IntoIterator<Item = OsString>) -> Result<Normalised, CliError> {
    let mut result = Normalised::default();
    let mut args = args.into_iter().map(into_text);
    while let Some(arg) = args.next() {
        let arg = arg?;
        let Some(name_and_value) = strip_dashes(&arg) else {
            result.word = if arg == "--" { args.next().transpose()? } else { Some(arg) };
            break;
        };
        let (name, inline_value) = match name_and_value.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name_and_value, None),
        };
        let typed = &arg[..arg.len() - name_and_value.len() + name.len()];
        let flag = flags::find(name)
            .ok_or_else(|| CliError::new(format!("unknown flag \"{}\" (see leat --help)", typed.escape_debug())))?;
        let value = match inline_value {
            Some(value) => value,
            None if flag.is_boolean() => "true".to_owned(),
            None => args.next().transpose()?.ok_or_else(|| needs_value(flag, typed))?,
        };
        result.args.push(format!("--{}={value}", flag.id()));
        result.typed.insert(flag.id(), typed.to_owned());
    }
    Ok(result)
}

/// What follows the dashes of a flag; `None` for `-`, `--` and whatever does not begin with a dash.
fn strip_dashes(arg: &str) -> Option<&str> {
    let rest = arg.strip_prefix('-')?;
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    (!rest.is_empty()).then_some(rest)
}

fn needs_value(flag: &Flag, typed: &str) -> CliError {
    CliError::new(format!("flag {typed} needs a value <{}>", flag.value))
}

fn into_text(arg: OsString) -> Result<String, CliError> {
    arg.into_string().map_err(|arg| CliError::new(format!("argument {arg:?} is not valid UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Normalised, CliError> {
        normalise(line.split_whitespace().map(OsString::from))
    }

    /// All spellings of a flag end in the same form.
    #[test]
    fn spellings() {
        let cases: &[(&str, &[&str], Option<&str>)] = &[
            ("", &[], None),
            ("-js", &["--jetstream=true"], None),
            ("--js", &["--jetstream=true"], None),
            ("-sd DIR", &["--store_dir=DIR"], None),
            ("-m=8222", &["--http_port=8222"], None),
            ("--http-port 8222", &["--http_port=8222"], None),
            ("-p -1", &["--port=-1"], None),
            ("--name=a=b", &["--name=a=b"], None),
            ("-n=", &["--name="], None),
            ("-D=false -T", &["--debug=false", "--logtime=true"], None),
            ("-D false", &["--debug=true"], Some("false")),
            ("-D help -foo", &["--debug=true"], Some("help")),
            ("-D -- -p", &["--debug=true"], Some("-p")),
            ("-D --", &["--debug=true"], None),
            ("-", &[], Some("-")),
            ("-DVV", &["--DVV=true"], None),
        ];
        for (line, args, word) in cases {
            let normalised = run(line).unwrap();
            assert_eq!(
                (normalised.args, normalised.word.as_deref()),
                (args.iter().map(|s| (*s).into()).collect(), *word)
            );
        }
        assert_eq!(run("-ms=1").unwrap().typed["https_port"], "-ms");
    }

    #[test]
    fn errors() {
        let cases = [
            ("-foo", r#"leat: unknown flag "-foo" (see leat --help)"#),
            ("--foo=1", r#"leat: unknown flag "--foo" (see leat --help)"#),
            ("---p 1", r#"leat: unknown flag "---p" (see leat --help)"#),
            ("-=1", r#"leat: unknown flag "-" (see leat --help)"#),
            ("-p", "leat: flag -p needs a value <port>"),
        ];
        for (line, error) in cases {
            assert_eq!(run(line).unwrap_err().to_string(), error);
        }
    }
}
