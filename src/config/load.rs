//! From a configuration file to options.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;

use super::Options;
use super::authorization::Distinct;
use super::grammar::{self, GrammarError, Map, Position, Sources};
use super::schema::{Finding, Reading};
use super::server;

/// What a configuration file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The options, defaults where the file says nothing.
    pub options: Options,
    /// What a test of the file fails for; a start only mentions it.
    pub warnings: Vec<Finding>,
    /// Keys that have no effect in this version.
    pub notices: Vec<Finding>,
    /// The file has no keys at all.
    pub is_empty: bool,
}

/// Why a configuration file cannot be used. Shown as one line for each error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// It is not well-formed, or cannot be read.
    Grammar(GrammarError),
    /// It is well-formed and wrong.
    Findings(Vec<Finding>),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grammar(error) => error.fmt(f),
            Self::Findings(findings) => {
                for (i, finding) in findings.iter().enumerate() {
                    if i > 0 {
                        f.write_str("\n")?;
                    }
                    finding.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Reads a configuration file.
///
/// # Errors
/// The first error of its grammar, or else all errors of its keys.
pub fn load(path: &Path, sources: &dyn Sources) -> Result<Loaded, ConfigError> {
    let root = parse(path, sources)?;
    let (mut reading, mut options) = Default::default();
    server::keys(&root, &mut reading, &mut options);
    finish(path, &root, reading, options)
}

/// Reads a file with settings of NATS Streaming, and the configuration file that stands beside it.
///
/// If there is none, or the same one, the file serves for both. The settings stand in its block `streaming`, or else at
/// its top level, where a key of the server itself keeps its meaning. If there is another one, nothing but the settings
/// of NATS Streaming is taken from the file, and none of them from the other one.
///
/// # Errors
/// The first error of the files' grammar, or else all errors of their keys.
pub fn load_with_streaming(
    config: Option<&Path>,
    streaming: &Path,
    sources: &dyn Sources,
) -> Result<Loaded, ConfigError> {
    let (mut reading, mut options): (Reading, Options) = Default::default();
    let path = config.unwrap_or(streaming);
    let root = parse(path, sources)?;
    if path != streaming {
        server::keys(&root, &mut reading, &mut options);
        let own = options.streaming.insert(Default::default());
        super::streaming::file(&parse(streaming, sources)?, &mut reading, own);
    } else if super::streaming::has_block(&root) {
        server::keys(&root, &mut reading, &mut options);
    } else {
        options.streaming = Some(Default::default());
        server::keys_with_streaming(&root, &mut reading, &mut options);
    }
    finish(path, &root, reading, options)
}

fn parse(path: &Path, sources: &dyn Sources) -> Result<Map, ConfigError> {
    Ok(grammar::parse(path, sources).map_err(ConfigError::Grammar)?.root)
}

fn finish(path: &Path, root: &Map, mut reading: Reading, mut options: Options) -> Result<Loaded, ConfigError> {
    check_together(root, &options, &mut reading);
    if !reading.errors.is_empty() {
        return Err(ConfigError::Findings(reading.errors));
    }
    options.config_file = Some(path.to_owned());
    options.config_digest = grammar::digest(root);
    Ok(Loaded { options, warnings: reading.warnings, notices: reading.notices, is_empty: root.is_empty() })
}

/// What the keys of different blocks mean for each other.
fn check_together(root: &Map, options: &Options, reading: &mut Reading) {
    let access = &options.access;
    let mut distinct = Distinct::default();
    if let Some(at) = place(root, "authorization") {
        reading.errors.extend(distinct.check(&access.users, at));
    }
    let Some(at) = place(root, "accounts") else {
        return;
    };
    for account in &access.accounts {
        reading.errors.extend(distinct.check(&account.users, at));
    }
    let has_users = access.accounts.iter().any(|account| !account.users.is_empty());
    if has_users && options.user.is_some() {
        reading.error(at, "Can not have a single user/pass and accounts");
    }
    if has_users && options.auth_token.is_some() {
        reading.error(at, "Can not have a token and accounts");
    }
}

fn place<'a>(root: &'a Map, key: &str) -> Option<&'a Position> {
    root.entries().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, entry)| &entry.key_at)
}
