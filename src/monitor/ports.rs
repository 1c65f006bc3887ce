//! The ports file: tells other programs which ports were chosen.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

#[derive(Serialize)]
struct Ports<'a> {
    nats: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    monitoring: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    websocket: &'a [String],
}

/// The file on disk; dropping this removes it.
#[derive(Debug)]
pub struct PortsFile {
    path: PathBuf,
}

/// Writes `nats-server_<pid>.ports` into `dir`: whoever sees the file sees all of it. The name is the reference's, so
/// that tools which wait for it find it.
pub fn write(
    dir: &Path,
    pid: u32,
    nats: &[String],
    monitoring: &[String],
    websocket: &[String],
) -> io::Result<PortsFile> {
    let path = dir.join(format!("nats-server_{pid}.ports"));
    let temporary = dir.join(format!(".nats-server_{pid}.ports.new"));
    let text = serde_json::to_vec(&Ports { nats, monitoring, websocket })?;
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(&text))
        .and_then(|()| fs::rename(&temporary, &path));
    if let Err(error) = written {
        // The first error is the one to report; a leftover temporary file is harmless.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(PortsFile { path })
}

impl PortsFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PortsFile {
    fn drop(&mut self) {
        // Somebody may have removed it already; at exit there is nothing left to do about it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file has the reference's name and content, and is gone with its guard.
    #[test]
    fn lives_as_long_as_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        let nats = ["nats://127.0.0.1:4222".to_owned()];
        let http = ["http://127.0.0.1:8222".to_owned()];
        let file = write(dir.path(), 42, &nats, &http, &[]).unwrap();
        assert_eq!(file.path(), dir.path().join("nats-server_42.ports"));
        assert_eq!(
            fs::read_to_string(file.path()).unwrap(),
            r#"{"nats":["nats://127.0.0.1:4222"],"monitoring":["http://127.0.0.1:8222"]}"#
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = write(dir.path(), 42, &nats, &[], &[]).unwrap();
        assert_eq!(fs::read_to_string(file.path()).unwrap(), r#"{"nats":["nats://127.0.0.1:4222"]}"#);
        assert!(write(&dir.path().join("none"), 42, &nats, &[], &[]).is_err());
    }
}
