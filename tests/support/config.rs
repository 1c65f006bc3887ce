//! Servers with a configuration file.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{Finished, Server, ServerBuilder, run};

/// A directory with one configuration file.
pub(crate) struct Config {
    pub(crate) dir: TempDir,
    pub(crate) file: PathBuf,
}

impl Config {
    pub(crate) fn new(text: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory should be creatable");
        let file = dir.path().join("server.conf");
        fs::write(&file, text).expect("the configuration file should be written");
        Self { dir, file }
    }

    pub(crate) fn path(&self) -> &str {
        self.file.to_str().expect("temporary paths are text")
    }

    /// A server with this file and, beside where it listens, nothing else.
    pub(crate) fn server(&self) -> ServerBuilder {
        Server::builder().args(&["-c", self.path()])
    }

    pub(crate) fn test(&self) -> Finished {
        run(&["-t", "-c", self.path()])
    }
}
