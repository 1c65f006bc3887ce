//! Certificates and keys from PEM files, and the choice among several.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::LoadError;
use crate::config::tls::Certificate;

/// Certificates with keys, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Chain {
    keys: Vec<(Vec<String>, Arc<CertifiedKey>)>,
    /// When the first of them expires.
    pub(super) not_after: Option<SystemTime>,
}

impl Chain {
    pub(super) fn load(files: &[Certificate], provider: &CryptoProvider) -> Result<Self, LoadError> {
        let mut chain = Self { keys: Vec::with_capacity(files.len()), not_after: None };
        for certificate in files {
            let key = certificate.load(provider).map_err(LoadError)?;
            let (names, not_after) = {
                let leaf = key.end_entity_cert().ok().and_then(|leaf| X509Certificate::from_der(leaf).ok());
                let unreadable = || LoadError::of(&certificate.cert_file, "certificate", &"it cannot be read");
                let (_, leaf) = leaf.ok_or_else(unreadable)?;
                let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
                (dns_names(&leaf), SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            };
            chain.not_after = Some(chain.not_after.map_or(not_after, |earliest| earliest.min(not_after)));
            chain.keys.push((names, Arc::new(key)));
        }
        Ok(chain)
    }
}

impl ResolvesServerCert for Chain {
    /// The first certificate for the name that the client asks for and with a signature it can check, or else the first
    /// that it can check.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = || {
            let schemes = hello.signature_schemes();
            self.keys.iter().filter(move |(_, key)| key.key.choose_scheme(schemes).is_some())
        };
        let named = hello.server_name().and_then(|name| usable().find(|(names, _)| covers(names, name)));
        named.or_else(|| usable().next()).map(|(_, key)| key.clone())
    }
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.into_iter().flat_map(|extension| &extension.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// Whether one of `names`, of which the first label may be `*`, is `wanted`.
fn covers(names: &[String], wanted: &str) -> bool {
    let wanted = wanted.to_ascii_lowercase();
    let below_wildcard = |name: &str| match (name.strip_prefix("*."), wanted.split_once('.')) {
        (Some(domain), Some((_, rest))) => domain == rest,
        _ => false,
    };
    names.iter().any(|name| *name == wanted || below_wildcard(name))
}

/// The certificates that those of clients are checked against: of `file`, or else those that the system trusts.
pub(super) fn authorities(file: Option<&Path>) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| LoadError::of(file, "root CA certificate", &error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|error| LoadError::of(file, "certificate", &error))?;
    if all.is_empty() { Err(LoadError::of(file, "certificate", &"there is none")) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn names_and_wildcards() {
        let names = ["a.example".to_owned(), "*.b.example".to_owned()];
        for (name, expected) in [
            ("a.example", true),
            ("A.Example", true),
            ("x.b.example", true),
            ("b.example", false),
            ("x.y.b.example", false),
            ("x.a.example", false),
        ] {
            assert_eq!(covers(&names, name), expected, "{name}");
        }
    }
}
