//! What handshakes of one listener need, made of its options and their files.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, NamedGroup, ServerConfig, SupportedCipherSuite};

use super::certificate::{self, Chain};
use crate::config::tls::{TlsOptions, TlsVersion};

/// Everything that a handshake needs. Replaced as a whole when certificates are read anew; handshakes that have begun
/// go on with what they began with.
#[derive(Debug)]
pub struct Context {
    pub(crate) config: Arc<ServerConfig>,
    /// SHA-256 of the public keys that are accepted, in lower-case hexadecimal digits; all if empty.
    pub(crate) pinned: Vec<String>,
    /// How long a handshake may take.
    pub(crate) timeout: Duration,
    /// Handshakes per second; unlimited if absent.
    pub(crate) rate_limit: Option<u32>,
    not_after: Option<SystemTime>,
    warnings: Vec<String>,
}

/// The context of a listener, which a reload replaces.
#[derive(Clone, Debug)]
pub struct Current(Arc<RwLock<Arc<Context>>>);

impl Current {
    /// Begins with this one.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(context))))
    }

    /// What handshakes begin with now.
    #[must_use]
    pub fn get(&self) -> Arc<Context> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses `context` for the handshakes that begin from now on.
    pub fn replace(&self, context: Context) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(context);
    }
}

/// Why options cannot be used. Shown as one line, after the reference's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError(pub(super) String);

impl LoadError {
    pub(super) fn of(file: &Path, what: &str, error: &dyn fmt::Display) -> Self {
        Self(format!("error parsing {what} {}: {error}", file.display()))
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}

impl Context {
    /// Reads the files that `options` name.
    ///
    /// # Errors
    /// When a file cannot be read or used, or nothing is left of the algorithms that are asked for.
    pub fn load(options: &TlsOptions) -> Result<Self, LoadError> {
        let mut warnings = Vec::new();
        let provider = Arc::new(provider(options, &mut warnings)?);
        let chain = Chain::load(&options.certificates, &provider)?;
        let not_after = chain.not_after;
        let versions: &[_] = match options.min_version {
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
        let builder = builder.map_err(|error| LoadError(format!("error in TLS configuration: {error}")))?;
        let mut config = if options.verify {
            let roots = Arc::new(certificate::authorities(options.ca_file.as_deref())?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let verifier =
                verifier.map_err(|error| LoadError(format!("error parsing root CA certificate: {error}")))?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        }
        .with_cert_resolver(Arc::new(chain));
        // Whoever names suites means their order.
        config.ignore_client_order = !options.cipher_suites.is_empty();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if options.verify {
            // A resumed session would outlive the certificate that was checked for the first one.
            config.send_tls13_tickets = 0;
        } else {
            let ticketer = ring::Ticketer::new();
            config.ticketer = ticketer.map_err(|error| LoadError(format!("error in TLS configuration: {error}")))?;
        }
        Ok(Self {
            config: Arc::new(config),
            pinned: options.pinned_certs.clone(),
            timeout: options.timeout(),
            rate_limit: options.connection_rate_limit,
            not_after,
            warnings,
        })
    }

    /// As [`Context::load`], for a listener that asks nobody for a certificate.
    ///
    /// # Errors
    /// As there.
    pub fn load_without_clients(options: &TlsOptions) -> Result<Self, LoadError> {
        Self::load(&TlsOptions { verify: false, verify_and_map: false, ..options.clone() })
    }

    /// When the first of the server's certificates expires.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }

    /// What of the options has no effect, one line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The algorithms that `options` leave. As in the reference, `cipher_suites` chooses among those of TLS 1.2 only.
fn provider(options: &TlsOptions, warnings: &mut Vec<String>) -> Result<CryptoProvider, LoadError> {
    let mut provider = ring::default_provider();
    if !options.cipher_suites.is_empty() {
        let all = std::mem::take(&mut provider.cipher_suites);
        let is_1_3 = |suite: &SupportedCipherSuite| matches!(suite, SupportedCipherSuite::Tls13(_));
        provider.cipher_suites.extend(all.iter().copied().filter(is_1_3));
        for name in &options.cipher_suites {
            match all.iter().find(|suite| suite_name(suite.suite()) == long_name(name)) {
                Some(suite) if is_1_3(suite) => {}
                Some(suite) => provider.cipher_suites.push(*suite),
                None => {
                    warnings.push(format!("TLS cipher suite {name} is not available in this version, and not used"))
                }
            }
        }
    }
    if !options.curve_preferences.is_empty() {
        let all = std::mem::take(&mut provider.kx_groups);
        for name in &options.curve_preferences {
            match all.iter().find(|group| curve_name(**group) == Some(name)) {
                Some(group) => provider.kx_groups.push(*group),
                None => warnings.push(format!("TLS curve {name} is not available in this version, and not used")),
            }
        }
        if provider.kx_groups.is_empty() {
            return Err(LoadError("none of the curves of 'curve_preferences' is available in this version".to_owned()));
        }
    }
    Ok(provider)
}

/// The name of a suite in configurations and in monitoring.
pub(super) fn suite_name(suite: CipherSuite) -> String {
    let name = suite.as_str().unwrap_or("unknown");
    name.replacen("TLS13_", "TLS_", 1)
}

/// Suites with ChaCha20 have a short name too.
fn long_name(name: &str) -> String {
    if name.ends_with("_CHACHA20_POLY1305") { format!("{name}_SHA256") } else { name.to_owned() }
}

fn curve_name(group: &dyn SupportedKxGroup) -> Option<&'static str> {
    match group.name() {
        NamedGroup::X25519 => Some("X25519"),
        NamedGroup::secp256r1 => Some("CurveP256"),
        NamedGroup::secp384r1 => Some("CurveP384"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(options: &TlsOptions) -> (Vec<String>, Vec<&'static str>, usize) {
        let mut warnings = Vec::new();
        let provider = provider(options, &mut warnings).unwrap();
        let suites = provider.cipher_suites.iter().map(|suite| suite_name(suite.suite())).collect();
        let curves = provider.kx_groups.iter().filter_map(|group| curve_name(*group)).collect();
        (suites, curves, warnings.len())
    }

    /// The list chooses and orders suites of TLS 1.2; those of TLS 1.3 stay. What there is not is warned about.
    #[test]
    fn algorithms() {
        let listed = |suites: &[&str], curves: &[&str]| TlsOptions {
            cipher_suites: suites.iter().map(|name| (*name).to_owned()).collect(),
            curve_preferences: curves.iter().map(|name| (*name).to_owned()).collect(),
            ..TlsOptions::default()
        };
        let (suites, curves, warnings) = names(&listed(&[], &[]));
        assert_eq!((suites.len(), curves, warnings), (9, vec!["X25519", "CurveP256", "CurveP384"], 0));
        let (suites, curves, warnings) = names(&listed(
            &[
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
                "TLS_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ],
            &["CurveP384", "CurveP521", "X25519"],
        ));
        assert_eq!(suites.len(), 5, "{suites:?}");
        assert_eq!(
            suites[3..],
            ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
        );
        assert_eq!((curves, warnings), (vec!["CurveP384", "X25519"], 2));
        assert!(provider(&listed(&[], &["CurveP521"]), &mut Vec::new()).is_err());
    }
}
