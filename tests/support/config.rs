//! Servers with a configuration file.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{Finished, PATIENCE, Server, ServerBuilder, run, wait_for};

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

    /// Puts another text into the file.
    pub(crate) fn rewrite(&self, text: &str) {
        fs::write(&self.file, text).expect("the configuration file should be written");
    }

    /// Puts another text into the file, has the server read it, and returns what the server says of that.
    pub(crate) fn reload(&self, server: &Server, text: &str) -> String {
        self.rewrite(text);
        reload(server)
    }

    /// A server with this file and, beside where it listens, nothing else.
    pub(crate) fn server(&self) -> ServerBuilder {
        Server::builder().args(&["-c", self.path()])
    }

    pub(crate) fn test(&self) -> Finished {
        run(&["-t", "-c", self.path()])
    }
}

/// A file with users of each kind in two accounts, and the seed of the one with an nkey.
pub(crate) fn users() -> (Config, String) {
    let pair = nkeys::KeyPair::new_user();
    let hash = bcrypt::hash("hashed", 4).expect("a hash");
    let config = Config::new(&format!(
        "accounts {{
           A {{ users: [
             {{ user: plain, password: secret }}
             {{ user: hashed, password: \"{hash}\" }}
             {{ nkey: {} }}
             {{ user: limited, password: x, permissions: {{ publish: \"news.>\", subscribe: [\"news.>\", \"_INBOX.>\"] }} }}
           ] }}
           B {{ users: [ {{ user: other, password: x }} ] }}
         }}\n",
        pair.public_key()
    ));
    (config, pair.seed().expect("a seed"))
}

/// Has a server read its file again, and returns what it says of that.
pub(crate) fn reload(server: &Server) -> String {
    const ENDS: [&str; 2] = ["Reloaded server configuration (", "Failed to reload server configuration: "];
    let before = server.stderr().len();
    server.signal(libc::SIGHUP);
    wait_for("the reload is over", PATIENCE, || {
        let said = server.stderr().split_off(before);
        let is_over = said.ends_with('\n') && ENDS.iter().any(|end| said.contains(end));
        is_over.then_some(said)
    })
}
