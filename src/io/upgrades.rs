//! New connections of the WebSocket listener, until they are WebSockets: TLS if the listener has it, then the HTTP
//! request.
//!
//! This runs on a thread of its own. A connection gets to a shard, and gets its id, when it is a WebSocket; one that
//! does not become one is answered, logged and forgotten. At most `WAITING_MAX` are under way, each for at most the
//! time of the handshake; more are closed at once.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream as AsyncStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::doorbell::Doorbell;
use super::driver::Order;
use super::handshakes;
use crate::shard::Shared;
use crate::tls::{Context, Current, TlsFacts};
use crate::websocket::{self, Accepted, Facts, Refusal, Rules};

/// Connections that are no WebSockets yet.
const WAITING_MAX: usize = 4096;
/// Longest head of a request, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Time for the last bytes of a refusal to be read.
const FAREWELL: Duration = Duration::from_millis(100);

/// A connection that has become a WebSocket.
#[derive(Debug)]
pub struct Upgraded {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) session: Option<Box<ServerConnection>>,
    pub(super) tls: Option<Box<TlsFacts>>,
    pub(super) facts: Box<Facts>,
    pub(super) unmasked: bool,
    pub(super) deflates: bool,
}

/// What the listener is like.
#[derive(Debug)]
pub struct Listener {
    /// Its TLS.
    pub tls: Option<Context>,
    /// What it asks of requests.
    pub rules: Rules,
    /// How long a handshake may take.
    pub timeout: Duration,
}

struct Job {
    stream: TcpStream,
    peer: SocketAddr,
    shard: u16,
}

/// The way to the thread. It ends with the last clone.
#[derive(Clone, Debug)]
pub struct Upgrades {
    jobs: mpsc::UnboundedSender<Job>,
    tls: Option<Current>,
}

struct Thread {
    tls: Option<Current>,
    rules: Rules,
    timeout: Duration,
    shared: Arc<Shared>,
    orders: Arc<[Sender<Order>]>,
    bells: Arc<[Doorbell]>,
}

impl Upgrades {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        listener: Listener,
        shared: Arc<Shared>,
        orders: Arc<[Sender<Order>]>,
        bells: Arc<[Doorbell]>,
    ) -> io::Result<Self> {
        let Listener { tls, rules, timeout } = listener;
        let tls = tls.map(Current::new);
        let (sender, jobs) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = Arc::new(Thread { tls: tls.clone(), rules, timeout, shared, orders, bells });
        std::thread::Builder::new()
            .name("leat-websocket".to_owned())
            .spawn(move || runtime.block_on(work(jobs, thread)))?;
        Ok(Self { jobs: sender, tls })
    }

    /// Takes a connection that shard `shard` has accepted.
    pub(super) fn begin(&self, stream: TcpStream, peer: SocketAddr, shard: u16) {
        // The thread outlives its senders.
        let _ = self.jobs.send(Job { stream, peer, shard });
    }

    /// What TLS handshakes begin with, if the listener has TLS.
    #[must_use]
    pub fn context(&self) -> Option<&Current> {
        self.tls.as_ref()
    }
}

async fn work(mut jobs: mpsc::UnboundedReceiver<Job>, thread: Arc<Thread>) {
    let places = Arc::new(Semaphore::new(WAITING_MAX));
    while let Some(Job { stream, peer, shard }) = jobs.recv().await {
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::error!("{peer} - websocket handshake error: too many are under way");
            continue;
        };
        let thread = thread.clone();
        tokio::spawn(async move {
            match timeout(thread.timeout, thread.upgrade(stream, peer)).await {
                Ok(Ok(upgraded)) => thread.hand_over(upgraded, shard),
                Ok(Err(Some(text))) => tracing::error!("{text}"),
                // Gone before it has said what it wanted, or silent: daily life on a public port.
                Ok(Err(None)) => tracing::debug!("{peer} - websocket handshake error: EOF"),
                Err(_) => tracing::debug!("{peer} - websocket handshake error: i/o timeout"),
            }
            drop(place);
        });
    }
}

impl Thread {
    fn hand_over(&self, upgraded: Upgraded, accepting: u16) {
        let shard = usize::from(self.shared.place(accepting));
        // A shard that has ended takes no orders, and needs none.
        if self.orders[shard].send(Order::AdoptWebSocket(Box::new(upgraded))).is_ok() {
            self.bells[shard].ring();
        }
    }

    /// Gives the connection, or what the log says of it.
    async fn upgrade(&self, stream: TcpStream, peer: SocketAddr) -> Result<Upgraded, Option<String>> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => None,
            _ => Some(format!("{peer} - websocket handshake error: {error}")),
        };
        let mut stream = AsyncStream::from_std(stream).map_err(failed)?;
        let Some(tls) = self.tls.as_ref().map(Current::get) else {
            let accepted = self.negotiate(&mut stream, peer).await.map_err(failed)??;
            return upgraded(stream, peer, None, accepted).map_err(failed);
        };
        let accepted = TlsAcceptor::from(tls.config.clone()).accept(stream).await;
        let mut stream = accepted.map_err(|error| {
            let text = handshakes::describe(&error).text;
            Some(format!("websocket: TLS handshake error from {peer}: {text}"))
        })?;
        let facts = TlsFacts::of(stream.get_ref().1, false);
        if let Some(failure) = handshakes::not_pinned(&facts, &tls.pinned) {
            tracing::debug!("{peer} - {}", failure.detail.unwrap_or_default());
            return Err(Some(format!("websocket: TLS handshake error from {peer}: {}", failure.text)));
        }
        let accepted = self.negotiate(&mut stream, peer).await.map_err(failed)??;
        let (stream, session) = stream.into_inner();
        upgraded(stream, peer, Some((Box::new(session), Box::new(facts))), accepted).map_err(failed)
    }

    /// Reads the request and answers it.
    async fn negotiate<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        peer: SocketAddr,
    ) -> io::Result<Result<Accepted, Option<String>>> {
        let mut head = Vec::new();
        let outcome = loop {
            if stream.read_buf(&mut head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match websocket::check(&head, &self.rules) {
                Some((length, Ok(_))) if length < head.len() => break Err(Refusal::too_early()),
                Some((_, outcome)) => break outcome,
                None if head.len() > HEAD_BYTES_MAX => break Err(Refusal::too_long()),
                None => {}
            }
        };
        match outcome {
            Ok(accepted) => {
                stream.write_all(&accepted.response).await?;
                stream.flush().await?;
                Ok(Ok(accepted))
            }
            Err(Refusal { response, detail }) => {
                stream.write_all(&response).await?;
                stream.shutdown().await?;
                // A socket closed with unread bytes would take the answer away from the client.
                let mut rest = [0; 4096];
                let _ = timeout(FAREWELL, async { while stream.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {} })
                    .await;
                Ok(Err(Some(format!("{peer} - websocket handshake error: {detail}"))))
            }
        }
    }
}

fn upgraded(
    stream: AsyncStream,
    peer: SocketAddr,
    tls: Option<(Box<ServerConnection>, Box<TlsFacts>)>,
    accepted: Accepted,
) -> io::Result<Upgraded> {
    let (session, tls) = tls.unzip();
    let Accepted { facts, unmasked, deflates, .. } = accepted;
    let stream = stream.into_std()?;
    Ok(Upgraded { stream, peer, session, tls, facts: Box::new(facts), unmasked, deflates })
}
