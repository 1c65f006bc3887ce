//! The `tls` block.
//!
//! Files are opened and looked into, so that a wrong path, a swapped certificate and key, or a key of another
//! certificate show before a start.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::grammar::{Map, Node, Value};
use super::read;
use super::schema::{Item, Key, Reading, Row, rows};

/// Settings of one listener or of connections to other servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsOptions {
    /// Certificates with their keys, PEM files. The first that fits the client is used.
    pub certificates: Vec<Certificate>,
    /// Certificates of authorities that the other side's certificate is checked against.
    pub ca_file: Option<PathBuf>,
    /// Clients must present a certificate.
    pub verify: bool,
    /// Clients must present a certificate, and it names the user.
    pub verify_and_map: bool,
    /// The certificate of a cluster peer must also name one of the configured addresses.
    pub verify_known_urls: bool,
    /// The other side's certificate is not checked.
    pub insecure: bool,
    /// How long a handshake may take; 2 s if absent.
    pub timeout: Option<Duration>,
    /// Whether the handshake comes before INFO.
    pub handshake_first: HandshakeFirst,
    /// Oldest version of the protocol.
    pub min_version: TlsVersion,
    /// Cipher suites by name, best first; the library's choice if empty.
    pub cipher_suites: Vec<String>,
    /// Curves by name, best first; the library's choice if empty.
    pub curve_preferences: Vec<String>,
    /// SHA-256 of the public keys that are accepted, in lower-case hexadecimal digits; all if empty.
    pub pinned_certs: Vec<String>,
    /// Handshakes per second; unlimited if absent.
    pub connection_rate_limit: Option<u32>,
}

impl TlsOptions {
    /// How long a handshake may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.filter(|time| !time.is_zero()).unwrap_or(TIMEOUT)
    }

    /// What is missing of the certificates.
    pub(super) fn missing_certificate(&self) -> Option<&'static str> {
        let given = |file: fn(&Certificate) -> &PathBuf| {
            !self.certificates.is_empty() && self.certificates.iter().all(|one| !file(one).as_os_str().is_empty())
        };
        if !given(|one| &one.cert_file) {
            return Some("TLS Server certificate must be present and valid");
        }
        (!given(|one| &one.key_file)).then_some("TLS Server private key must be present and valid")
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// PEM file with the certificate and those that vouch for it.
    pub cert_file: PathBuf,
    /// PEM file with the private key.
    pub key_file: PathBuf,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// When one of them cannot be read or used, or the key is not that of the certificate.
    pub fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
        let Self { cert_file, key_file } = self;
        let unreadable =
            |what: &str, file: &Path, error: &dyn Display| format!("error parsing {what} {}: {error}", file.display());
        let chain = CertificateDer::pem_file_iter(cert_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| unreadable("certificate", cert_file, &error))?;
        if chain.is_empty() {
            return Err(unreadable("certificate", cert_file, &"there is none"));
        }
        let key = PrivateKeyDer::from_pem_file(key_file);
        let key = key.map_err(|error| unreadable("private key", key_file, &error))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            let reason = match error {
                rustls::Error::InconsistentKeys(_) => "private key does not match public key".to_owned(),
                error => error.to_string(),
            };
            let (cert_file, key_file) = (cert_file.display(), key_file.display());
            format!("error parsing X509 certificate/key pair: tls: {reason} ({cert_file}, {key_file})")
        })
    }
}

/// Whether the TLS handshake comes before INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandshakeFirst {
    /// INFO comes first, in clear.
    #[default]
    No,
    /// Nothing is sent before the handshake.
    Yes,
    /// INFO is sent in clear if the client has not begun the handshake after this time.
    Within(Duration),
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    #[default]
    V1_2,
    /// TLS 1.3
    V1_3,
}

/// How long a handshake may take if the options do not say.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long `handshake_first: auto` waits for the client.
const AUTO_FALLBACK: Duration = Duration::from_millis(50);

const CIPHER_SUITES: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

const INSECURE_CIPHER_SUITES: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

const CURVES: &[&str] = &["X25519", "CurveP256", "CurveP384", "CurveP521", "X25519MLKEM768"];

#[derive(Default)]
struct Raw {
    options: TlsOptions,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    insecure_suites: Vec<String>,
    allow_insecure_suites: bool,
}

const KEYS: &[Key<Raw>] = &[
    Key::<Raw>::text(&["cert_file"], "\"server-cert.pem\"", "Certificate, PEM", |raw, text| {
        raw.cert_file = Some(PathBuf::from(text));
        Ok(())
    })
    .live(),
    Key::<Raw>::text(&["key_file"], "\"server-key.pem\"", "Private key, PEM", |raw, text| {
        raw.key_file = Some(PathBuf::from(text));
        Ok(())
    })
    .live(),
    Key::<Raw>::text(&["ca_file"], "\"ca.pem\"", "Authorities that certificates are checked against", |raw, text| {
        raw.options.ca_file = Some(PathBuf::from(text));
        Ok(())
    })
    .live(),
    Key::<Raw>::other(
        &["certs", "certificates"],
        "array of { cert_file, key_file }",
        "[ { cert_file: \"a.pem\", key_file: \"a-key.pem\" } ]",
        "Several certificates, instead of cert_file",
        |raw, item, reading| {
            raw.options.certificates = certificates(item, reading)?;
            Ok(())
        },
    )
    .live(),
    Key::<Raw>::boolean(&["verify"], "false", "Require certificates of clients", |raw, on| raw.options.verify = on)
        .live(),
    Key::<Raw>::boolean(
        &["verify_and_map"],
        "false",
        "Require certificates of clients; they name the user",
        |raw, on| {
            raw.options.verify_and_map = on;
        },
    )
    .live(),
    Key::<Raw>::boolean(
        &["verify_cert_and_check_known_urls"],
        "false",
        "Certificates of servers must name a configured address (cluster and gateway only)",
        |raw, on| raw.options.verify_known_urls = on,
    )
    .live(),
    Key::<Raw>::boolean(&["insecure"], "false", "Do not check certificates of servers connected to", |raw, on| {
        raw.options.insecure = on;
    })
    .live(),
    Key::<Raw>::seconds(&["timeout"], "2", "How long a handshake may take", |raw, time| {
        raw.options.timeout = Some(time)
    })
    .live(),
    Key::<Raw>::other(
        &["handshake_first", "first", "immediate"],
        "boolean, auto, or duration",
        "false",
        "Begin with the handshake; auto or a duration: wait that long, then send INFO in clear",
        |raw, item, _| {
            raw.options.handshake_first = handshake_first(item)?;
            Ok(())
        },
    )
    .live(),
    Key::<Raw>::other(
        &["min_version"],
        "string",
        "\"1.2\"",
        "Oldest TLS version, \"1.2\" or \"1.3\"",
        |raw, item, _| {
            raw.options.min_version = min_version(item.node)?;
            Ok(())
        },
    )
    .live(),
    Key::<Raw>::other(
        &["cipher_suites"],
        "array of strings",
        "[ \"TLS_AES_128_GCM_SHA256\" ]",
        "Cipher suites, best first",
        |raw, item, _| {
            let names = read::array_of_texts(item.node)?;
            if names.is_empty() {
                return Err("error parsing tls config, 'cipher_suites' cannot be empty".to_owned());
            }
            for name in names {
                if INSECURE_CIPHER_SUITES.contains(&name.as_str()) {
                    raw.insecure_suites.push(name.clone());
                } else if !CIPHER_SUITES.contains(&name.as_str()) {
                    return Err(format!("unrecognized cipher {}", name.escape_debug()));
                }
                raw.options.cipher_suites.push(name);
            }
            Ok(())
        },
    )
    .live(),
    Key::<Raw>::boolean(
        &["allow_insecure_cipher_suites"],
        "false",
        "Allow suites that are known to be weak",
        |raw, on| {
            raw.allow_insecure_suites = on;
        },
    )
    .live(),
    Key::<Raw>::other(
        &["curve_preferences"],
        "array of strings",
        "[ X25519, CurveP256 ]",
        "Curves, best first",
        |raw, item, _| {
            let names = read::array_of_texts(item.node)?;
            if names.is_empty() {
                return Err("error parsing tls config, 'curve_preferences' cannot be empty".to_owned());
            }
            if let Some(name) = names.iter().find(|name| !CURVES.contains(&name.as_str())) {
                return Err(format!("unrecognized curve preference {}", name.escape_debug()));
            }
            raw.options.curve_preferences = names;
            Ok(())
        },
    )
    .live(),
    Key::<Raw>::other(
        &["pinned_certs"],
        "array of strings",
        "[ \"…64 hexadecimal digits…\" ]",
        "SHA-256 of the public keys that are accepted",
        |raw, item, _| {
            let keys = read::array_of_texts(item.node)?;
            let is_hash = |key: &String| key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
            if let Some(key) = keys.iter().find(|key| !is_hash(key)) {
                return Err(format!(
                    "error parsing tls config, 'pinned_certs' key {} does not look like hex-encoded sha256 of DER \
                     encoded SubjectPublicKeyInfo",
                    key.escape_debug()
                ));
            }
            raw.options.pinned_certs = keys.iter().map(|key| key.to_ascii_lowercase()).collect();
            Ok(())
        },
    )
    .live(),
    Key::<Raw>::integer(&["connection_rate_limit"], "0", "Handshakes per second; 0 means unlimited", |raw, number| {
        let limit = u32::try_from(number).map_err(|_| format!("{number} is not a number of handshakes"))?;
        raw.options.connection_rate_limit = (limit > 0).then_some(limit);
        Ok(())
    })
    .live(),
    Key::<Raw>::other(
        &["ocsp_peer"],
        "boolean or map",
        "false",
        "Check revocation of client certificates",
        |_, item, _| match &item.node.value {
            Value::Boolean(_) | Value::Map(_) => Ok(()),
            other => Err(format!("expected ocsp_peer to be a boolean or a map, got {}", other.kind())),
        },
    )
    .of("OCSP"),
    Key::<Raw>::text(&["cert_store"], "\"\"", "Certificate store of Windows", |_, _| {
        Err("cert store type not implemented".to_owned())
    }),
    Key::<Raw>::text(&["cert_match"], "\"\"", "Certificate store of Windows", |_, _| Ok(())).without_effect(),
    Key::<Raw>::text(&["cert_match_by"], "\"\"", "Certificate store of Windows", |_, _| Ok(())).without_effect(),
    Key::<Raw>::other(&["ca_certs_match"], "array of strings", "[]", "Certificate store of Windows", |_, item, _| {
        read::array_of_texts(item.node).map(drop)
    })
    .without_effect(),
    Key::<Raw>::boolean(&["cert_match_skip_invalid"], "false", "Certificate store of Windows", |_, _| ())
        .without_effect(),
];

/// Where a `tls` block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A listener for clients.
    Clients,
    /// A listener or connections between servers of a cluster or super-cluster.
    Servers,
}

/// Reads a `tls` block.
pub(super) fn options(item: &Item<'_>, map: &Map, place: Place, reading: &mut Reading) -> TlsOptions {
    let errors = reading.errors.len();
    let mut raw = Raw::default();
    reading.keys_of("error parsing tls config, ", map, &[KEYS], &mut raw);
    if reading.errors.len() == errors
        && let Err(what) = finish(&mut raw, place)
    {
        reading.error(item.at, what);
    }
    raw.options
}

/// The keys of the block.
pub(super) fn tls_rows() -> Vec<Row> {
    rows(KEYS)
}

fn finish(raw: &mut Raw, place: Place) -> Result<(), String> {
    let options = &mut raw.options;
    match (raw.cert_file.take(), raw.key_file.take()) {
        (Some(_), _) if !options.certificates.is_empty() => {
            return Err("error parsing tls config, cannot combine 'cert_file' option with 'certs' option".to_owned());
        }
        (Some(_), None) => return Err("missing 'key_file' in TLS configuration".to_owned()),
        (None, Some(_)) => return Err("missing 'cert_file' in TLS configuration".to_owned()),
        (Some(cert_file), Some(key_file)) => options.certificates.push(Certificate { cert_file, key_file }),
        (None, None) => {}
    }
    if options.verify_known_urls && place == Place::Clients {
        return Err("verify_cert_and_check_known_urls not supported in this context".to_owned());
    }
    if !raw.insecure_suites.is_empty() && !raw.allow_insecure_suites {
        return Err(format!(
            "insecure cipher suites configured without 'allow_insecure_cipher_suites' option set: {}",
            raw.insecure_suites.join(", ")
        ));
    }
    options.verify |= options.verify_and_map;
    for certificate in &options.certificates {
        look_into(&certificate.cert_file, "a certificate", |label| label == "CERTIFICATE")?;
        look_into(&certificate.key_file, "a private key", |label| label.ends_with("PRIVATE KEY"))?;
        certificate.load(&ring::default_provider())?;
    }
    if let Some(ca_file) = &options.ca_file {
        look_into(ca_file, "a certificate", |label| label == "CERTIFICATE")?;
    }
    Ok(())
}

/// Checks that a PEM file has a section that is wanted.
fn look_into(path: &Path, what: &str, wanted: impl Fn(&str) -> bool) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| format!("open {}: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut labels = text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    if labels.any(wanted) {
        return Ok(());
    }
    Err(format!("there is no PEM section with {what} in {}", path.display()))
}

#[derive(Default)]
struct RawCertificate {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

const CERTIFICATE: &[Key<RawCertificate>] = &[
    Key::text(&["cert_file"], "\"a.pem\"", "Certificate", |raw, text| {
        raw.cert_file = Some(PathBuf::from(text));
        Ok(())
    }),
    Key::text(&["key_file"], "\"a-key.pem\"", "Private key", |raw, text| {
        raw.key_file = Some(PathBuf::from(text));
        Ok(())
    }),
];

fn certificates(item: &Item<'_>, reading: &mut Reading) -> Result<Vec<Certificate>, String> {
    let Value::Array(nodes) = &item.node.value else {
        return Err(format!(
            "error parsing tls config, expected 'certs' to be an array, got {}",
            item.node.value.kind()
        ));
    };
    let mut list = Vec::new();
    for node in nodes {
        let Value::Map(map) = &node.value else {
            return Err(format!("expected a certificate to be a map, got {}", node.value.kind()));
        };
        let mut raw = RawCertificate::default();
        reading.keys_of("error parsing tls certs config, ", map, &[CERTIFICATE], &mut raw);
        match (raw.cert_file, raw.key_file) {
            (Some(cert_file), Some(key_file)) => list.push(Certificate { cert_file, key_file }),
            _ => {
                let what = "error parsing certificates config: both 'cert_file' and 'key_file' options are required";
                reading.error(&node.at, what);
            }
        }
    }
    Ok(list)
}

fn handshake_first(item: &Item<'_>) -> Result<HandshakeFirst, String> {
    let text = match &item.node.value {
        Value::Boolean(true) => return Ok(HandshakeFirst::Yes),
        Value::Boolean(false) => return Ok(HandshakeFirst::No),
        Value::Text(text) => text.to_ascii_lowercase(),
        other => {
            return Err(format!("field \"{}\" should be a boolean or a string, got {}", item.key, other.kind()));
        }
    };
    match text.as_str() {
        "true" | "on" => Ok(HandshakeFirst::Yes),
        "false" | "off" => Ok(HandshakeFirst::No),
        "auto" | "auto_fallback" => Ok(HandshakeFirst::Within(AUTO_FALLBACK)),
        text => read::duration_text(text)
            .map(HandshakeFirst::Within)
            .map_err(|_| format!("field \"{}\"'s value \"{}\" is invalid", item.key, text.escape_debug())),
    }
}

fn min_version(node: &Node) -> Result<TlsVersion, String> {
    match &node.value {
        Value::Text(text) => match text.as_str() {
            "1.2" => Ok(TlsVersion::V1_2),
            "1.3" => Ok(TlsVersion::V1_3),
            "1.0" | "1.1" => Err(format!("error parsing tls config: unsupported TLS version: {text}")),
            _ => Err(format!("error parsing tls config: unknown version: {}", text.escape_debug())),
        },
        other => Err(format!("error parsing tls config: 'min_version' should be a string, got {}", other.kind())),
    }
}
