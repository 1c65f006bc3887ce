//! How long the tests are, and where: by default short and in temporary folders. `tools/storage-faults.py` makes them
//! longer and gives them disks that fail when they are told to.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How often the random part of a test is done.
pub(crate) fn rounds(otherwise: u64) -> u64 {
    number("LEAT_STORAGE_ROUNDS").unwrap_or(otherwise)
}

/// Where chance begins.
pub(crate) fn seed() -> u64 {
    number("LEAT_STORAGE_SEED").unwrap_or_else(|| fastrand::u64(..))
}

/// The mounted disk on which stores are to be, if not in a temporary folder.
pub(crate) fn mounted() -> Option<PathBuf> {
    env::var_os("LEAT_STORAGE_DIR").map(PathBuf::from)
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// Whoever has made the disk, and can make it fail.
pub(crate) struct Control(BufReader<UnixStream>);

impl Control {
    /// If there is one.
    pub(crate) fn connect() -> Option<Self> {
        let socket = UnixStream::connect(env::var_os("LEAT_STORAGE_CONTROL")?).expect("whoever has made the disk");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout above zero");
        Some(Self(BufReader::new(socket)))
    }

    /// Returns when it is done: `fail` and `heal` switch errors on and off, `cut` ends the disk with everything in its
    /// volatile cache, and `restore` brings back what is left.
    pub(crate) fn order(&mut self, what: &str) {
        writeln!(self.0.get_mut(), "{what}").expect("whoever has made the disk listens");
        let mut answer = String::new();
        self.0.read_line(&mut answer).expect("an answer within a minute");
        assert_eq!(answer.trim_end(), "done", "{what}");
    }
}
