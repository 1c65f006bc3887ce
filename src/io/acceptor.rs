//! Takes new connections from a shard's listening socket.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// Pause after a failed accept: 10 ms doubling to 1 s, as the reference server has it.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A listening socket, bound with SO_REUSEPORT, and whether it may have more connections.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: TcpListener,
    /// The poller has told of connections, and accepting has not run dry since.
    ready: bool,
    backoff: Duration,
    /// Not before this time, after a failure.
    retry_at: Option<Instant>,
}

impl Acceptor {
    /// `listener` must be non-blocking.
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, ready: false, backoff: BACKOFF_MIN, retry_at: None }
    }

    /// What the shard's poller watches.
    pub(super) fn descriptor(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// There may be connections.
    pub(super) fn wake(&mut self) {
        self.ready = true;
    }

    /// Whether [`Acceptor::next`] is worth a call now.
    pub(super) fn is_ready(&self) -> bool {
        self.ready && self.retry_at.is_none_or(|at| Instant::now() >= at)
    }

    /// When to call again although nothing has been told.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.ready)
    }

    /// The next connection, in non-blocking mode; `None` if there is none at the moment, or if accepting has failed
    /// and has to wait.
    pub(super) fn next(&mut self) -> Option<(TcpStream, SocketAddr)> {
        loop {
            let accepted = self.listener.accept().and_then(|(stream, peer)| {
                stream.set_nonblocking(true)?;
                // A client of IPv4 that has come through a socket of IPv6 is one of IPv4.
                Ok((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port())))
            });
            match accepted {
                Ok(accepted) => {
                    (self.backoff, self.retry_at) = (BACKOFF_MIN, None);
                    return Some(accepted);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    (self.ready, self.retry_at) = (false, None);
                    return None;
                }
                // The client has given up while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    let pause = self.backoff;
                    tracing::error!("Temporary Client Accept Error ({error}), sleeping {}ms", pause.as_millis());
                    self.retry_at = Some(Instant::now() + pause);
                    self.backoff = (pause * 2).min(BACKOFF_MAX);
                    return None;
                }
            }
        }
    }
}
