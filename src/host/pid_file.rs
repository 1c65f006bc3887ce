//! The file that tells other programs this process's id.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Rights to a new file.
const MODE: u32 = 0o600;

/// Writes the bare process id, without a newline, as the reference does. The file is for its owner, and stays at exit,
/// as there.
pub fn write_pid_file(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
    file.write_all(std::process::id().to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn holds_the_bare_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        fs::write(&path, "a longer text from before").unwrap();
        write_pid_file(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        assert!(write_pid_file(&dir.path().join("none/pid")).is_err());
        let fresh = dir.path().join("fresh");
        write_pid_file(&fresh).unwrap();
        assert_eq!(fs::metadata(&fresh).unwrap().permissions().mode() & 0o777, MODE);
    }
}
