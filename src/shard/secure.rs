//! Connections that begin with a TLS handshake, a PROXY protocol header, or as a WebSocket.
//!
//! The handshake is the driver's business. To the shard such a connection is one that is not read yet: it has its id
//! and can be closed, but its timers start, and its first byte is asked for, when the driver says how it goes on.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Shard;
use super::io::Io;
use super::life;
use crate::tls::TlsFacts;
use crate::websocket;
use crate::wire::errors::CloseReason;

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How loudly it is said.
    pub severity: Severity,
    /// What went wrong.
    pub text: String,
    /// More about it, for a debug line.
    pub detail: Option<String>,
}

/// How loudly something is said in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// To those who look into a problem.
    Debug,
    /// To everybody.
    Error,
}

/// When a client gets its INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// At once; its commands follow.
    Open,
    /// At once, in clear; a handshake may follow.
    BeforeHandshake,
    /// Later.
    AfterHandshake,
}

/// How a connection comes.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) greeting: Greeting,
    pub(super) tls: Option<Box<TlsFacts>>,
    pub(super) websocket: Option<Box<websocket::Facts>>,
}

impl Arrival {
    pub(super) fn of(greeting: Greeting) -> Self {
        Self { greeting, tls: None, websocket: None }
    }
}

impl Shard {
    /// Takes over a connection that has become a WebSocket, perhaps inside TLS.
    pub fn accept_websocket<I: Io>(
        &mut self,
        io: &mut I,
        peer: SocketAddr,
        facts: Box<websocket::Facts>,
        tls: Option<Box<TlsFacts>>,
    ) -> u32 {
        life::accept(self, io, peer, Arrival { greeting: Greeting::Open, tls, websocket: Some(facts) })
    }

    /// Takes over a connection that begins with a handshake; with `greets` it gets INFO before that.
    /// `None` if it is one too many, and is closed.
    pub fn accept_for_handshake<I: Io>(&mut self, io: &mut I, peer: SocketAddr, greets: bool) -> Option<u32> {
        let greeting = if greets { Greeting::BeforeHandshake } else { Greeting::AfterHandshake };
        let slot = life::accept(self, io, peer, Arrival::of(greeting));
        self.local.conns[slot as usize].closing.is_none().then_some(slot)
    }

    /// A client that was expected to begin the handshake has not: it gets INFO in clear.
    pub fn greet_before_handshake<I: Io>(&mut self, io: &mut I, slot: u32) {
        self.now = io.now();
        if let Some(conn) = self.local.conns.get(slot as usize).filter(|conn| conn.closing.is_none()) {
            self.greet(slot, Some(conn.peer.ip()));
        }
    }

    /// The handshake is complete: commands may come. `None` for a client that goes on in clear.
    pub fn secured<I: Io>(&mut self, io: &mut I, slot: u32, facts: Option<Box<TlsFacts>>) {
        self.now = io.now();
        let Some(conn) = self.local.conns.get_mut(slot as usize).filter(|conn| conn.closing.is_none()) else { return };
        if let Some(facts) = facts {
            let label = conn.label();
            tracing::debug!("{label} - TLS handshake complete");
            tracing::debug!("{label} - TLS version {}, cipher suite {}", facts.version, facts.cipher_suite);
            let (first, peer) = (facts.first, conn.peer);
            conn.tls = Some(Arc::from(facts));
            if first {
                self.greet(slot, Some(peer.ip()));
            }
        }
        self.begin(slot);
    }

    /// A load balancer has told where the connection comes from.
    pub fn comes_from(&mut self, slot: u32, source: SocketAddr) {
        if let Some(conn) = self.local.conns.get_mut(slot as usize) {
            conn.peer = SocketAddr::new(source.ip().to_canonical(), source.port());
        }
    }

    /// The load balancer's header about the connection cannot be used: it is closed without a word.
    pub fn proxy_header_failed<I: Io>(&mut self, io: &mut I, slot: u32, text: &str) {
        self.now = io.now();
        let Some(conn) = self.local.conns.get(slot as usize).filter(|conn| conn.closing.is_none()) else { return };
        tracing::warn!("Error reading PROXY protocol header from {}: {text}", conn.peer);
        self.close(io, slot, CloseReason::ParseError);
    }

    /// Too many handshakes have begun lately: the client is told in clear, and closed.
    pub fn throttled<I: Io>(&mut self, io: &mut I, slot: u32) {
        self.now = io.now();
        self.close(io, slot, CloseReason::ConnectionThrottled);
    }

    /// The handshake has failed: the connection is closed without a word.
    pub fn handshake_failed<I: Io>(&mut self, io: &mut I, slot: u32, failure: &Failure) {
        self.now = io.now();
        let Some(conn) = self.local.conns.get(slot as usize).filter(|conn| conn.closing.is_none()) else { return };
        let label = conn.label();
        if let Some(detail) = &failure.detail {
            tracing::debug!("{label} - {detail}");
        }
        match failure.severity {
            Severity::Debug => tracing::debug!("{label} - TLS handshake error: {}", failure.text),
            Severity::Error => tracing::error!("{label} - TLS handshake error: {}", failure.text),
        }
        self.close(io, slot, CloseReason::TlsHandshakeFailure);
    }
}
