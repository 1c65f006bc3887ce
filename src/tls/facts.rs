//! What the rest of the broker learns of a handshake.
#![forbid(unsafe_code)]

use std::fmt;

use rustls::{ProtocolVersion, ServerConnection};
use sha2::{Digest, Sha256};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use super::context::suite_name;

/// Facts of a connection with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// As `/connz` shows it: `1.3`.
    pub version: &'static str,
    /// As `/connz` shows it: `TLS_AES_128_GCM_SHA256`.
    pub cipher_suite: String,
    /// The handshake came before INFO.
    pub first: bool,
    /// Certificates that the client has presented, its own first.
    pub peer_certificates: Vec<PeerCertificate>,
    /// Names in the client's own certificate, if it has presented one.
    pub peer_names: Option<PeerNames>,
}

/// A certificate that a client has presented, as `/connz` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whom it names.
    pub subject: String,
    /// SHA-256 of its public key, in lower-case hexadecimal digits.
    pub spki_sha256: String,
    /// SHA-256 of all of it.
    pub cert_sha256: String,
}

/// Names in a client's certificate, by which it can be mapped to a user, in the order of the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNames {
    /// E-mail addresses of the subject alternative names.
    pub emails: Vec<String>,
    /// DNS names of the subject alternative names.
    pub dns: Vec<String>,
    /// URIs of the subject alternative names.
    pub uris: Vec<String>,
    /// The subject.
    pub subject: Subject,
}

/// A distinguished name: relative names in the order of the certificate, each one or more attributes of type and value.
/// Types are the short names of RFC 2253, or numbers with dots. It is displayed as RFC 2253 has it, last relative name
/// first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject(pub Vec<Vec<(String, String)>>);

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, relative) in self.0.iter().rev().enumerate() {
            for (j, (kind, value)) in relative.iter().enumerate() {
                match (i, j) {
                    (0, 0) => {}
                    (_, 0) => f.write_str(",")?,
                    _ => f.write_str("+")?,
                }
                write!(f, "{kind}={}", escaped(value))?;
            }
        }
        Ok(())
    }
}

fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (i, char) in value.chars().enumerate() {
        let special = match char {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => true,
            ' ' => i == 0 || i == last,
            '#' => i == 0,
            _ => false,
        };
        if special {
            text.push('\\');
        }
        text.push(char);
    }
    text
}

impl TlsFacts {
    /// Of a session whose handshake is complete.
    pub(crate) fn of(session: &ServerConnection, first: bool) -> Self {
        let suite = session.negotiated_cipher_suite().map(|suite| suite_name(suite.suite()));
        let parsed = |der| X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate);
        let presented = session.peer_certificates().unwrap_or_default();
        let certificates: Vec<X509Certificate<'_>> = presented.iter().map_while(|der| parsed(der.as_ref())).collect();
        Self {
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                _ => "unknown",
            },
            cipher_suite: suite.unwrap_or_default(),
            first,
            peer_certificates: certificates.iter().map(describe).collect(),
            peer_names: certificates.first().map(names),
        }
    }
}

fn describe(certificate: &X509Certificate<'_>) -> PeerCertificate {
    PeerCertificate {
        subject: subject(certificate.subject()).to_string(),
        spki_sha256: sha256(certificate.public_key().raw),
        cert_sha256: sha256(certificate.as_raw()),
    }
}

fn sha256(bytes: &[u8]) -> String {
    use fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn names(certificate: &X509Certificate<'_>) -> PeerNames {
    let mut names = PeerNames { subject: subject(certificate.subject()), ..PeerNames::default() };
    let extension = certificate.subject_alternative_name().ok().flatten();
    for name in extension.into_iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::RFC822Name(name) => names.emails.push((*name).to_owned()),
            GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
            GeneralName::URI(name) => names.uris.push((*name).to_owned()),
            _ => {}
        }
    }
    names
}

fn subject(name: &X509Name<'_>) -> Subject {
    let value = |value: Result<&str, _>, raw: &[u8]| {
        value.map_or_else(|_| String::from_utf8_lossy(raw).into_owned(), str::to_owned)
    };
    let relatives = name.iter_rdn().map(|relative| {
        let attributes = relative.iter();
        attributes.map(|one| (type_name(one.attr_type()), value(one.as_str(), one.as_slice()))).collect()
    });
    Subject(relatives.collect())
}

fn type_name(oid: &Oid<'_>) -> String {
    let number = oid.to_id_string();
    let name = match number.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "SERIALNUMBER",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.17" => "POSTALCODE",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return number,
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, string::Ia5String};

    /// All kinds of names come out of a certificate, and the subject is written as RFC 2253 has it.
    #[test]
    fn names_of_a_certificate() {
        let ia5 = |text: &str| Ia5String::try_from(text).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc");
        params.distinguished_name.push(DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 25]), "org");
        params.distinguished_name.push(DnType::CommonName, "#1 <joe> ");
        params.subject_alt_names = vec![
            SanType::Rfc822Name(ia5("joe@acme.org")),
            SanType::DnsName(ia5("joe.acme.org")),
            SanType::Rfc822Name(ia5("j@acme.org")),
            SanType::URI(ia5("spiffe://acme/joe")),
        ];
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, certificate) = X509Certificate::from_der(der.der()).unwrap();
        let names = names(&certificate);
        assert_eq!(names.emails, ["joe@acme.org", "j@acme.org"]);
        assert_eq!(names.dns, ["joe.acme.org"]);
        assert_eq!(names.uris, ["spiffe://acme/joe"]);
        assert_eq!(names.subject.to_string(), "DC=org,O=Acme\\, Inc,CN=\\#1 \\<joe\\>\\ ");
        let shown = describe(&certificate);
        assert_eq!((shown.spki_sha256.len(), shown.cert_sha256.len()), (64, 64));
        assert_ne!(shown.spki_sha256, shown.cert_sha256);
    }
}
