//! TLS connections, many at once and again and again, on a thread of their own: each connects, reads INFO, does a full
//! handshake, logs in, waits for a PONG and leaves.
//!
//! The thread must not disturb what is measured beside it. Where it shares the CPUs of the load it runs only while
//! these would be idle otherwise; a load that never sleeps leaves it nothing.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::client::{connect_line, resolve};
use crate::failure::{Failure, Outcome};
use crate::modes::connect::connect_without_waiting;
use crate::roles::latency_histogram;
use crate::sys::{self, Poller, now_ns};
use crate::units::{CpuList, ServerUrl};

/// Longest wait for a connection to get its PONG.
const PATIENCE_NS: u64 = 30_000_000_000;

/// Longest INFO line, and most plain text that is kept until a PONG.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Longest sleep, so that the end is noticed.
const NAP_MAX: Duration = Duration::from_millis(20);

/// Handshakes that go on until they are ended.
pub(crate) struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Outcome<Handshakes>>>,
}

/// What came of them.
pub(crate) struct Handshakes {
    /// From connect to the first PONG, nanoseconds; only of those that got one.
    pub(crate) latency: Histogram<u64>,
    /// How many got none.
    pub(crate) failed: u64,
    /// Why the first of them did not.
    pub(crate) first_failure: Option<String>,
    /// From the first connect to the end.
    pub(crate) seconds: f64,
}

impl Storm {
    /// Begins to open connections to `url`, `at_once` at a time.
    pub(crate) fn begin(url: &ServerUrl, at_once: usize, authorities: &Path, cpus: Option<&CpuList>) -> Outcome<Storm> {
        let config = Arc::new(config(authorities)?);
        let name = ServerName::try_from(url.host.clone())
            .map_err(|error| Failure::new(format!("{}: no name that a certificate can have: {error}", url.host)))?;
        let mut login = connect_line(url);
        login.extend_from_slice(b"PING\r\n");
        let address = resolve(url)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stops, cpus) = (Arc::clone(&stop), cpus.cloned());
        let work = move || {
            match cpus {
                Some(cpus) => sys::pin(&cpus.0).map_err(Failure::during(format_args!("cannot pin to CPUs {cpus}")))?,
                None => sys::run_when_idle().map_err(Failure::during("cannot lower the priority of handshakes"))?,
            }
            Front { address, name, config, login, scratch: vec![0; 16 << 10] }.run(at_once, &stops)
        };
        Ok(Storm { stop, thread: Some(std::thread::spawn(work)) })
    }

    /// Ends it. Connections that are not done count for nothing.
    pub(crate) fn end(mut self) -> Outcome<Handshakes> {
        self.stop.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        let Some(Ok(outcome)) = ended else { return Err(Failure::new("the thread of the handshakes has died")) };
        let handshakes = outcome?;
        if handshakes.latency.is_empty() {
            let why = handshakes.first_failure.unwrap_or_else(|| "the load left them no time".to_owned());
            return Err(Failure::new(format!("not one handshake was done: {why}")));
        }
        Ok(handshakes)
    }
}

/// A storm that is let go because the run has failed ends too.
impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Full handshakes only, of whatever version the server prefers.
fn config(authorities: &Path) -> Outcome<ClientConfig> {
    let unreadable = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", authorities.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authorities).map_err(|error| unreadable(&error))? {
        roots.add(certificate.map_err(|error| unreadable(&error))?).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(unreadable(&"no certificate in it"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Failure::new(format!("error in TLS configuration: {error}")))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What all connections have in common.
struct Front {
    address: SocketAddr,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    /// What each one says after the handshake.
    login: Vec<u8>,
    scratch: Vec<u8>,
}

/// One connection on its way.
struct Member {
    stream: TcpStream,
    began_ns: u64,
    is_connected: bool,
    /// None before INFO.
    tls: Option<Box<ClientConnection>>,
    /// INFO as far as it has come; after the handshake, what the server has said.
    text: Vec<u8>,
}

impl Front {
    fn run(mut self, at_once: usize, stop: &AtomicBool) -> Outcome<Handshakes> {
        let mut seen = Handshakes { latency: latency_histogram(), failed: 0, first_failure: None, seconds: 0.0 };
        let began = now_ns();
        let mut opened = 0;
        while !stop.load(Relaxed) {
            self.wave(at_once, &mut opened, stop, &mut seen)?;
        }
        seen.seconds = (now_ns() - began) as f64 / 1e9;
        Ok(seen)
    }

    /// Opens so many connections at once and waits until all are done.
    fn wave(&mut self, at_once: usize, opened: &mut usize, stop: &AtomicBool, seen: &mut Handshakes) -> Outcome<()> {
        let mut poller = Poller::new()?;
        let mut members: Vec<Option<Member>> = Vec::with_capacity(at_once);
        let began = now_ns();
        for token in 0..at_once {
            let began_ns = now_ns();
            let stream = connect_without_waiting(self.address, *opened)
                .map_err(Failure::during(format_args!("cannot connect to {}", self.address)))?;
            *opened += 1;
            poller.add(&stream, token)?;
            members.push(Some(Member { stream, began_ns, is_connected: false, tls: None, text: Vec::new() }));
        }
        let mut left = at_once;
        while left > 0 && !stop.load(Relaxed) {
            for ready in poller.wait(NAP_MAX)? {
                let Some(member) = &mut members[ready.token] else { continue };
                let outcome = self.go_on(member, ready.writable);
                match outcome {
                    Ok(false) => continue,
                    Ok(true) => seen.latency.saturating_record((now_ns() - member.began_ns).max(1)),
                    Err(failure) => seen.fail(failure),
                }
                members[ready.token] = None;
                left -= 1;
            }
            if now_ns() - began > PATIENCE_NS {
                for _ in 0..left {
                    seen.fail(Failure::new("no PONG in time"));
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Does what can be done. `true` when the PONG has come.
    fn go_on(&mut self, member: &mut Member, is_writable: bool) -> Outcome<bool> {
        if !member.is_connected {
            if !is_writable {
                return Ok(false);
            }
            if let Some(error) = member.stream.take_error()? {
                return Err(Failure::new(format!("cannot connect: {error}")));
            }
            member.stream.set_nodelay(true)?;
            member.is_connected = true;
        }
        if member.tls.is_none() && !self.read_info(member)? {
            return Ok(false);
        }
        let Some(tls) = &mut member.tls else { return Ok(false) };
        loop {
            while tls.wants_write() && !is_blocked(tls.write_tls(&mut member.stream))? {}
            if is_blocked(tls.read_tls(&mut member.stream).and_then(not_the_end))? {
                return Ok(false);
            }
            let state = tls.process_new_packets().map_err(|error| Failure::new(format!("TLS: {error}")))?;
            let from = member.text.len();
            member.text.resize(from + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut member.text[from..])?;
            if member.text.windows(6).any(|text| text == b"PONG\r\n") {
                return Ok(true);
            }
            if let Some(at) = member.text.windows(5).position(|text| text == b"-ERR ") {
                let said = String::from_utf8_lossy(&member.text[at..]);
                return Err(Failure::new(format!("the server says: {}", said.trim_end())));
            }
            if member.text.len() > TEXT_BYTES_MAX {
                return Err(Failure::new("the server talks without end"));
            }
        }
    }

    /// Reads up to the end of INFO; when it is there, begins the handshake. `true` then.
    fn read_info(&mut self, member: &mut Member) -> Outcome<bool> {
        loop {
            let count = match member.stream.read(&mut self.scratch).and_then(not_the_end) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                read => read?,
            };
            member.text.extend_from_slice(&self.scratch[..count]);
            if member.text.ends_with(b"\r\n") {
                break;
            }
            if member.text.len() > TEXT_BYTES_MAX {
                return Err(Failure::new("no INFO line"));
            }
        }
        let json = member.text.strip_prefix(b"INFO ").unwrap_or_default();
        let info: serde_json::Value =
            serde_json::from_slice(json).map_err(|error| Failure::new(format!("bad INFO: {error}")))?;
        if info["tls_available"] != true && info["tls_required"] != true {
            return Err(Failure::new("the server does not offer TLS"));
        }
        member.text.clear();
        let tls = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let mut tls = tls.map_err(|error| Failure::new(format!("TLS: {error}")))?;
        // Kept until the handshake is done.
        tls.writer().write_all(&self.login)?;
        member.tls = Some(Box::new(tls));
        Ok(true)
    }
}

impl Handshakes {
    fn fail(&mut self, failure: Failure) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| failure.to_string());
    }
}

fn not_the_end(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
}

/// Whether the socket has to be waited for.
fn is_blocked(result: io::Result<usize>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}
