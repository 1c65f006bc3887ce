//! TLS of connections: from options to what a handshake needs, and what the rest of the broker learns of a handshake.
//!
//! Nothing here meets a socket. [`Context`] is made of files when a server starts or reads its certificates anew;
//! [`TlsFacts`] is the outcome of a handshake as authentication and monitoring see it. Handshakes and the records of
//! the data phase are the business of `io`.

mod certificate;
mod context;
mod facts;

pub use context::{Context, Current, LoadError};
pub use facts::{PeerCertificate, PeerNames, Subject, TlsFacts};

/// The first byte of every TLS handshake, and of no command or request.
pub(crate) const HANDSHAKE_BYTE: u8 = 0x16;
