//! What a flag is, and how one is found by any of its names.
#![forbid(unsafe_code)]

use crate::config::Options;

use super::sections::SECTIONS;

/// One flag, described once.
pub(super) struct Flag {
    /// All spellings, with dashes, in the order help shows them.
    pub(super) names: &'static [&'static str],
    /// Placeholder of the value in help; empty for booleans, whose value is optional and follows `=`.
    pub(super) value: &'static str,
    /// One sentence for help.
    pub(super) help: &'static str,
    /// What giving the flag does.
    pub(super) effect: Effect,
}

/// A flag with a value.
pub(super) const fn flag(
    names: &'static [&'static str],
    value: &'static str,
    help: &'static str,
    effect: Effect,
) -> Flag {
    Flag { names, value, help, effect }
}

/// A boolean flag.
pub(super) const fn switch(names: &'static [&'static str], help: &'static str, effect: Effect) -> Flag {
    flag(names, "", help, effect)
}

/// What giving a flag does.
pub(super) enum Effect {
    /// Changes an option. The text of a boolean without value is `true`.
    Set(fn(&mut Options, &str) -> Result<(), String>),
    /// Names the configuration file, whose settings the other flags override.
    File,
    /// Names a file with the settings of NATS Streaming, which the other flags override too.
    StreamingFile,
    /// Has no effect in this version; the run goes on with this warning.
    Ignored(&'static str),
    /// Asks for something other than a run.
    Ask(Ask),
}

/// What may be asked for instead of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The help text.
    Help,
    /// The help text about TLS.
    HelpTls,
    /// The version line.
    Version,
    /// A signal to a running server.
    Signal,
    /// A test of the configuration file.
    TestConfig,
    /// A sample of the configuration file.
    SampleConfig,
}

/// Flags that belong together in help.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) flags: &'static [Flag],
}

impl Flag {
    /// The name clap knows the flag by: the first long one without its dashes, or the only one.
    pub(super) fn id(&self) -> &'static str {
        let name = self.names.iter().find(|name| name.starts_with("--")).unwrap_or(&self.names[0]);
        name.trim_start_matches('-')
    }

    /// Booleans need no value and never take the next argument.
    pub(super) fn is_boolean(&self) -> bool {
        self.value.is_empty()
    }

    fn is_called(&self, name: &str) -> bool {
        self.names.iter().any(|own| {
            let own = own.trim_start_matches('-');
            own.len() == name.len() && own.bytes().zip(name.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
        })
    }
}

/// All flags in the order of the help text.
pub(super) fn all() -> impl Iterator<Item = &'static Flag> {
    SECTIONS.iter().flat_map(|section| section.flags)
}

/// The flag with this name (without dashes). `_` and `-` inside a name are alike; letter case is not.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.is_called(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// No spelling means two things, every name is written with `_`, and each flag says what it does.
    #[test]
    fn the_table_is_sound() {
        let mut seen = HashSet::new();
        for flag in all() {
            assert!(!flag.help.is_empty(), "{:?}", flag.names);
            for name in flag.names {
                let bare = name.trim_start_matches('-');
                assert!(name.starts_with('-') && !bare.contains('-'), "{name}");
                assert!(seen.insert(bare), "{name} stands in the table twice");
                assert_eq!(find(bare).map(Flag::id), Some(flag.id()));
            }
        }
        assert_eq!(find("max-payload").map(Flag::id), Some("max_payload"));
        assert_eq!(find("v").map(Flag::id), Some("version"));
        assert_eq!(find("V").map(Flag::id), Some("trace"));
        assert!(find("").is_none() && find("max").is_none());
    }
}
