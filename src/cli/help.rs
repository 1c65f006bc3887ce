//! The help and version texts, written from the table of flags.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::flags::{Flag, Section};
use super::sections::SECTIONS;
use crate::version::{COMPATIBLE_WITH, VERSION};

/// Column at which explanations start.
const TEXT_COLUMN: usize = 37;

/// Indentation of a flag that has long names only.
const LONG_NAME_COLUMN: usize = 8;

/// What `--version` prints. Tools look for ` v` and the version of the reference server in it.
pub(super) fn version() -> String {
    format!("leat {VERSION} (nats-server: v{COMPATIBLE_WITH})")
}

/// What `--help` prints.
pub(super) fn help() -> String {
    let mut text = "\nUsage: leat [options]\n       leat store <command> (see leat store --help)\n".to_owned();
    for section in SECTIONS {
        write_section(&mut text, section);
    }
    text.push_str(NOTES);
    text
}

/// What `--help_tls` prints.
pub(super) fn help_tls() -> String {
    "\nTLS needs a certificate and its key, as PEM files:\n\n\
     \x20   leat --tls --tlscert server-cert.pem --tlskey server-key.pem\n\n\
     Clients are required to present a certificate, signed by an authority of the CA file, with\n\n\
     \x20   leat --tlsverify --tlscert server-cert.pem --tlskey server-key.pem --tlscacert ca.pem\n\n\
     The tls block of the configuration file knows more (see --sample_config).\n"
        .to_owned()
}

fn write_section(text: &mut String, section: &Section) {
    text.push('\n');
    text.push_str(section.title);
    text.push_str(":\n");
    for flag in section.flags {
        write_flag(text, flag);
    }
}

fn write_flag(text: &mut String, flag: &Flag) {
    let indent = if flag.names[0].starts_with("--") { LONG_NAME_COLUMN } else { 4 };
    let mut names = format!("{:indent$}{}", "", flag.names.join(", "));
    if !flag.is_boolean() {
        names.push_str(" <");
        names.push_str(flag.value);
        names.push('>');
    }
    let mut lines = flag.help.lines();
    if names.len() < TEXT_COLUMN {
        let first = lines.next().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{names:TEXT_COLUMN$}{first}");
    } else {
        text.push_str(&names);
        text.push('\n');
    }
    for line in lines {
        let _ = writeln!(text, "{:TEXT_COLUMN$}{line}", "");
    }
}

const NOTES: &str = "
Flags take one dash or two, and a value after a blank or \"=\" (booleans only after \"=\").
Sizes: 4096, 64KB, 8MiB. Durations: 300ms, 1.5s, 2m; a bare number means seconds.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags;

    /// Help has every name of every flag and stays within a terminal's width.
    #[test]
    fn help_is_complete() {
        let text = help();
        for flag in flags::all() {
            assert!(text.contains(&flag.names.join(", ")), "{:?}", flag.names);
        }
        assert!(text.contains("\n    -p, --port <port>                Use port for clients"), "{text}");
        assert!(text.contains("\n        --ports_file_dir <dir>       Creates"), "{text}");
        for line in text.lines() {
            assert!(line.len() <= 130, "{line}");
        }
    }

    /// Scripts cut the reference version out of the version line.
    #[test]
    fn version_names_the_reference() {
        assert!(version().starts_with("leat 0."));
        assert!(version().contains(" v2.15.1"));
    }
}
