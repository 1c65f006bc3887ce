//! A configuration as a whole: the first file and those it includes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::parser::Parser;
use super::{GrammarError, Map};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files that may be open at once, each included by the one before.
pub(super) const INCLUDE_DEPTH_MAX: usize = 16;
/// Values in a configuration, those that variables copy included.
pub(super) const VALUES_MAX: usize = 1 << 20;

/// A parsed configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// Everything at the top level.
    pub root: Map,
}

/// Where files and variables come from.
pub trait Sources {
    /// The bytes of a file, at most a few MiB.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The text of an environment variable.
    fn environment(&self, name: &str) -> Option<String>;
}

/// The file system and the environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Sources for System {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        use std::io::Read as _;

        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {FILE_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    }

    fn environment(&self, name: &str) -> Option<String> {
        // A name with `=` or NUL cannot be in the environment, and asking for it is allowed.
        std::env::var(name).ok()
    }
}

/// Reads a configuration file and what it includes.
///
/// # Errors
/// The first place at which a file is not well-formed.
pub fn parse(path: &Path, sources: &dyn Sources) -> Result<Document, GrammarError> {
    let cannot_read = |what: String| GrammarError { at: None, what, hint: None };
    let bytes = sources.read(path).map_err(|error| cannot_read(format!("open {}: {error}", path.display())))?;
    let mut budget = VALUES_MAX;
    let root = parse_bytes(path, &bytes, &mut Vec::new(), &mut budget, sources)?;
    Ok(Document { root })
}

/// Reads the bytes of one file. `open` holds the files that led here.
pub(super) fn parse_bytes(
    path: &Path,
    bytes: &[u8],
    open: &mut Vec<PathBuf>,
    budget: &mut usize,
    sources: &dyn Sources,
) -> Result<Map, GrammarError> {
    let file: Arc<Path> = Arc::from(path);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let lines = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        GrammarError {
            at: None,
            what: format!("{}:{}: the file is not UTF-8 text", file.display(), lines + 1),
            hint: None,
        }
    })?;
    open.push(path.to_owned());
    let map = Parser::new(file, text, open, budget, sources).file()?;
    open.pop();
    Ok(map)
}
