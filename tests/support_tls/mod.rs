//! Certificates of a test's own, and clients that use them.

#![allow(dead_code, reason = "every test crate uses its own part")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::support::{PATIENCE, Server, ServerBuilder};

/// An authority, and files with certificates that it has signed: `server`, `client`, and one of a `stranger` to it.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let dir = TempDir::new().expect("a temporary directory should be creatable");
        let issuer = issuer("authority");
        fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("a certificate should be written");
        let authority = Authority { dir, issuer };
        authority.sign("server", &authority.issuer, 2040);
        authority.sign("client", &authority.issuer, 2040);
        authority.sign("stranger", &self::issuer("somebody else"), 2040);
        authority
    }

    /// Writes a certificate and its key; of what was there before nothing is left.
    fn sign(&self, name: &str, issuer: &CertifiedIssuer<'static, KeyPair>, last_year: i32) {
        let names = if name == "server" { vec!["localhost".to_owned(), "127.0.0.1".to_owned()] } else { Vec::new() };
        let mut params = CertificateParams::new(names).expect("names should be usable");
        params.distinguished_name.push(DnType::CommonName, name);
        if name != "server" {
            let email = format!("{name}@example.org").as_str().try_into().expect("an address is plain text");
            params.subject_alt_names.push(SanType::Rfc822Name(email));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().expect("a key should be made");
        let certificate = params.signed_by(&key, issuer).expect("a certificate should be signed");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("a certificate should be written");
        fs::write(self.path(&format!("{name}-key.pem")), key.serialize_pem()).expect("a key should be written");
    }

    /// Makes the server's certificate anew, valid for longer.
    pub(crate) fn renew_server(&self) {
        self.sign("server", &self.issuer, 2050);
    }

    /// A file of the authority's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of the authority's directory, as text.
    pub(crate) fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a configuration file with a `tls` block of `keys` beside the server's certificate, and `more` behind it.
    pub(crate) fn config(&self, keys: &str, more: &str) -> String {
        let (cert, key) = (self.file("server.pem"), self.file("server-key.pem"));
        let text = format!("tls {{\n cert_file: \"{cert}\"\n key_file: \"{key}\"\n {keys}\n}}\n{more}\n");
        fs::write(self.path("server.conf"), text).expect("the configuration file should be written");
        self.file("server.conf")
    }

    /// A client's side of TLS, with the certificate of `name` if there is one.
    pub(crate) fn client_config(&self, name: Option<&str>) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.path("ca.pem")) {
            roots.add(certificate).expect("the authority's certificate should be usable");
        }
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().expect("there are protocol versions");
        let builder = builder.with_root_certificates(roots);
        Arc::new(match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = certificates(&self.path(&format!("{name}.pem")));
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}-key.pem")));
                let key = key.expect("the key should be readable");
                builder.with_client_auth_cert(chain, key).expect("certificate and key should fit")
            }
        })
    }
}

/// One way to use TLS, for the clients of other languages.
pub(crate) struct Mode {
    /// What it is called when it fails.
    pub(crate) name: &'static str,
    /// The server's configuration file.
    pub(crate) config: String,
    /// What the client has to know, for its environment: `ca`, `cert`, `key`, `first`.
    pub(crate) client: serde_json::Value,
}

impl Authority {
    /// Makes each way to use TLS ready in turn.
    pub(crate) fn for_each_mode(&self, mut run: impl FnMut(&Mode)) {
        let (ca, cert, key) = (self.file("ca.pem"), self.file("client.pem"), self.file("client-key.pem"));
        let verify = format!("verify: true, ca_file: \"{ca}\"");
        let modes = [
            ("required", "", serde_json::json!({ "ca": ca, "first": false })),
            ("first", "handshake_first: true", serde_json::json!({ "ca": ca, "first": true })),
            ("certificates", &verify, serde_json::json!({ "ca": ca, "cert": cert, "key": key, "first": false })),
        ];
        for (name, keys, client) in modes {
            run(&Mode { name, config: self.config(keys, ""), client });
        }
    }
}

/// Runs the cases that show that a client works inside TLS (small and large messages, answers, draining, coming back) with
/// each way to use it: `run` gets a case, its server, and what the client has to know.
pub(crate) fn inside_tls(run: impl Fn(&str, ServerBuilder, &serde_json::Value)) {
    Authority::new().for_each_mode(|mode| {
        for case in
            ["publish_subscribe", "first_answer_wins", "headers", "large_payloads", "connection_drain", "restart"]
        {
            eprintln!("{}: {case}", mode.name);
            run(case, Server::builder().shards(2).args(&["-c", &mode.config]), &mode.client);
        }
    });
}

fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key should be made");
    CertifiedIssuer::self_signed(params, key).expect("an authority should be made")
}

pub(crate) fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_file_iter(file).expect("the file should be readable");
    all.collect::<Result<_, _>>().expect("the file should be PEM")
}

/// A connection inside TLS, with blocking reads and writes.
pub(crate) struct TlsStream {
    stream: StreamOwned<ClientConnection, TcpStream>,
    received: Vec<u8>,
}

impl TlsStream {
    /// Makes the handshake on a connected socket.
    pub(crate) fn over(socket: TcpStream, config: &Arc<ClientConfig>) -> io::Result<TlsStream> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name of a host");
        let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(TlsStream { stream, received: Vec::new() })
    }

    /// Connects to a server that sends INFO in clear first; gives that INFO too.
    pub(crate) fn after_info(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<(String, TlsStream)> {
        let mut socket = TcpStream::connect(addr)?;
        let info = clear_line(&mut socket)?;
        Ok((info, TlsStream::over(socket, config)?))
    }

    /// Connects to a server that sends INFO inside TLS; gives that INFO too.
    pub(crate) fn first(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<(String, TlsStream)> {
        let mut stream = TlsStream::over(TcpStream::connect(addr)?, config)?;
        let info = stream.line()?;
        Ok((info, stream))
    }

    /// Sends CONNECT and waits for the PONG of a PING sent along.
    pub(crate) fn login(mut self) -> io::Result<TlsStream> {
        self.send(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n")?;
        assert_eq!(self.line()?, "PONG");
        Ok(self)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next line, without its end. The server's PINGs come by the clock: they are answered and passed over.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=at).collect();
                if line == b"PING\r\n" {
                    self.send(b"PONG\r\n")?;
                    continue;
                }
                return Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
            self.receive()?;
        }
    }

    /// Exactly so many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < count {
            self.receive()?;
        }
        Ok(self.received.drain(..count).collect())
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 << 10];
        let count = self.stream.read(&mut chunk)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.received.extend_from_slice(&chunk[..count]);
        Ok(())
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }

    /// The stream inside.
    pub(crate) fn into_stream(self) -> StreamOwned<ClientConnection, TcpStream> {
        self.stream
    }

    /// The session.
    pub(crate) fn session(&self) -> &ClientConnection {
        &self.stream.conn
    }
}

/// A line of a connection in clear, without its end.
pub(crate) fn clear_line(socket: &mut TcpStream) -> io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut line, mut byte) = (Vec::new(), [0]);
    while byte[0] != b'\n' {
        socket.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())
}
