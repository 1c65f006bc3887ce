//! The ports file: tells other programs which ports were chosen.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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

/// The URLs under which a socket that listens on `address` can be reached: one for each address of this machine, by
/// network interface, if it listens on all of them.
#[must_use]
pub fn urls(scheme: &str, address: SocketAddr) -> Vec<String> {
    let url = |ip: IpAddr| format!("{scheme}://{}", SocketAddr::new(ip, address.port()));
    if !address.ip().is_unspecified() {
        return vec![url(address.ip())];
    }
    // Whoever reads the file is on this machine.
    let mut interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.sort_by_key(|interface| interface.index);
    let ips = interfaces.iter().map(|interface| interface.ip()).filter(|ip| ip.is_ipv4() || address.is_ipv6());
    let urls: Vec<String> = ips.map(url).collect();
    if urls.is_empty() { vec![url(Ipv4Addr::LOCALHOST.into())] } else { urls }
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

    #[test]
    fn urls_can_be_connected_to() {
        let listed = |address: &str| urls("nats", address.parse().expect("an address"));
        assert_eq!(listed("127.0.0.1:4222"), ["nats://127.0.0.1:4222"]);
        assert_eq!(listed("[::1]:4222"), ["nats://[::1]:4222"]);
        let of_both = listed("[::]:4222");
        assert_eq!(of_both[0], "nats://127.0.0.1:4222");
        assert!(of_both.iter().all(|url| !url.contains("0.0.0.0") && !url.contains("[::]")), "{of_both:?}");
        let of_v4 = listed("0.0.0.0:4222");
        assert!(of_v4.iter().all(|url| of_both.contains(url) && !url.contains('[')), "{of_v4:?}");
    }

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
