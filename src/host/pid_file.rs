//! The file that tells other programs this process's id.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;

/// Writes the bare process id, without a newline, as the reference does. The file stays at exit, as there.
pub fn write_pid_file(path: &Path) -> io::Result<()> {
    fs::write(path, std::process::id().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_bare_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        fs::write(&path, "a longer text from before").unwrap();
        write_pid_file(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        assert!(write_pid_file(&dir.path().join("none/pid")).is_err());
    }
}
