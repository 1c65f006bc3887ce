//! TLS handshakes, on threads of their own: their arithmetic takes a shard's thread about a millisecond each.
//!
//! A shard hands over the socket of a connection and goes on; the outcome comes back as an [`Order::Secured`]. Jobs are
//! bounded by `max_connections`, since each is one connection of a shard, and by the time a handshake may take. A
//! connection that is closed meanwhile drops its `Ticket`, which ends the job.
#![forbid(unsafe_code)]

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crossbeam_channel::Sender;
use rustls::ServerConnection;
use tokio::net::TcpStream as AsyncStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::doorbell::Doorbell;
use super::driver::Order;
use crate::shard::secure::{Failure, Severity};
use crate::tls::{Context, TlsFacts};

/// Shards that share a thread for handshakes.
const SHARDS_PER_THREAD: usize = 4;
/// The first byte of every TLS handshake, and of no command.
const HANDSHAKE_BYTE: u8 = 0x16;

/// How a handshake begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// INFO has been sent in clear; the client begins the handshake.
    AfterInfo,
    /// INFO has been sent in clear; the client may begin a handshake, or go on in clear.
    Optional,
    /// The client begins the handshake, and gets INFO after it.
    First,
    /// As [`Opening::First`]; a client that does not begin in this time gets INFO in clear.
    FirstWithin(Duration, Fallback),
}

/// What a client that has got INFO in clear may do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// As with [`Opening::AfterInfo`].
    Handshake,
    /// As with [`Opening::Optional`].
    Optional,
}

impl Opening {
    /// Whether INFO is sent in clear, before anything else.
    pub(super) fn greets(self) -> bool {
        matches!(self, Self::AfterInfo | Self::Optional)
    }
}

/// How a handshake ended.
#[derive(Debug)]
pub enum Outcome {
    /// Everything from now on is inside TLS.
    Secured(TcpStream, Box<ServerConnection>, Box<TlsFacts>),
    /// The client goes on in clear.
    Clear(TcpStream),
    /// The client waits for INFO in clear, and then has this choice.
    Silent(TcpStream, Opening),
    /// The connection is of no use.
    Failed(Failure),
}

/// A connection, by the shard's names for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The shard.
    pub shard: u16,
    /// Its slot there.
    pub slot: u32,
    /// Tells the connections apart that have had the slot.
    pub generation: u32,
}

/// Held by the connection while its socket is away. Dropping it ends the handshake and closes the socket.
#[derive(Debug)]
pub(super) struct Ticket {
    _gone: oneshot::Sender<()>,
}

struct Job {
    stream: TcpStream,
    place: Place,
    opening: Opening,
    gone: oneshot::Receiver<()>,
}

/// The way to the threads that do handshakes. They end with the last clone.
#[derive(Clone, Debug)]
pub struct Handshakes {
    threads: Arc<[mpsc::UnboundedSender<Job>]>,
    next: Arc<AtomicUsize>,
    context: Arc<RwLock<Arc<Context>>>,
}

impl Handshakes {
    /// Starts the threads for the shards of `orders`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(context: Context, orders: &Arc<[Sender<Order>]>, bells: &Arc<[Doorbell]>) -> io::Result<Self> {
        let context = Arc::new(RwLock::new(Arc::new(context)));
        let mut threads = Vec::new();
        for number in 0..orders.len().div_ceil(SHARDS_PER_THREAD) {
            let (sender, jobs) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let answers = Answers { orders: orders.clone(), bells: bells.clone() };
            let context = context.clone();
            std::thread::Builder::new()
                .name(format!("leat-tls-{number}"))
                .spawn(move || runtime.block_on(work(jobs, context, answers)))?;
            threads.push(sender);
        }
        Ok(Self { threads: threads.into(), next: Arc::default(), context })
    }

    /// Begins a handshake.
    pub(super) fn begin(&self, stream: TcpStream, place: Place, opening: Opening) -> Ticket {
        let (ticket, gone) = oneshot::channel();
        let thread = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        // The threads outlive their senders.
        let _ = self.threads[thread].send(Job { stream, place, opening, gone });
        Ticket { _gone: ticket }
    }

    /// What handshakes begin with now.
    #[must_use]
    pub fn context(&self) -> Arc<Context> {
        self.context.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses `context` for the handshakes that begin from now on.
    pub fn replace(&self, context: Context) {
        *self.context.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(context);
    }
}

#[derive(Clone)]
struct Answers {
    orders: Arc<[Sender<Order>]>,
    bells: Arc<[Doorbell]>,
}

async fn work(mut jobs: mpsc::UnboundedReceiver<Job>, context: Arc<RwLock<Arc<Context>>>, answers: Answers) {
    while let Some(Job { stream, place, opening, gone }) = jobs.recv().await {
        let context = context.read().unwrap_or_else(PoisonError::into_inner).clone();
        let answers = answers.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                _ = gone => return,
                outcome = handshake(stream, opening, &context) => outcome,
            };
            let shard = usize::from(place.shard);
            // A shard that has ended needs no answer.
            if answers.orders[shard].send(Order::Secured(place, outcome)).is_ok() {
                answers.bells[shard].ring();
            }
        });
    }
}

async fn handshake(stream: TcpStream, opening: Opening, context: &Context) -> Outcome {
    match attempt(stream, opening, context).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(describe(&error)),
    }
}

async fn attempt(stream: TcpStream, opening: Opening, context: &Context) -> io::Result<Outcome> {
    let stream = AsyncStream::from_std(stream)?;
    let mut first = [0];
    match opening {
        Opening::AfterInfo | Opening::First => {}
        Opening::Optional => match timeout(context.timeout, stream.peek(&mut first)).await {
            Ok(Ok(1)) if first[0] == HANDSHAKE_BYTE => {}
            // Silence and broken sockets are the shard's business, as of any client in clear.
            _ => return Ok(Outcome::Clear(stream.into_std()?)),
        },
        Opening::FirstWithin(time, fallback) => {
            if timeout(time, stream.peek(&mut first)).await.is_err() {
                let opening = match fallback {
                    Fallback::Handshake => Opening::AfterInfo,
                    Fallback::Optional => Opening::Optional,
                };
                return Ok(Outcome::Silent(stream.into_std()?, opening));
            }
        }
    }
    let accepted = timeout(context.timeout, TlsAcceptor::from(context.config.clone()).accept(stream)).await;
    let (stream, session) = accepted.map_err(|_| io::ErrorKind::TimedOut)??.into_inner();
    let facts = TlsFacts::of(&session, !opening.greets());
    if let Some(failure) = not_pinned(&facts, &context.pinned) {
        return Ok(Outcome::Failed(failure));
    }
    Ok(Outcome::Secured(stream.into_std()?, Box::new(session), Box::new(facts)))
}

pub(super) fn not_pinned(facts: &TlsFacts, pinned: &[String]) -> Option<Failure> {
    if pinned.is_empty() {
        return None;
    }
    let detail = match facts.peer_certificates.first() {
        Some(own) if pinned.contains(&own.spki_sha256) => return None,
        Some(own) => format!("Failed pinned cert test for key id: {}", own.spki_sha256),
        None => "Failed pinned cert test as client did not provide a certificate".to_owned(),
    };
    let text = "certificate not pinned".to_owned();
    Some(Failure { severity: Severity::Error, text, detail: Some(detail) })
}

/// What the log says, in the reference's words where it has its own. Clients that speak something else, or nothing,
/// are daily life on a public port, and worth a debug line only.
pub(super) fn describe(error: &io::Error) -> Failure {
    let (severity, text) = match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            (Severity::Debug, "tls: first record does not look like a TLS handshake".to_owned())
        }
        Some(rustls::Error::NoCertificatesPresented) => {
            (Severity::Error, "tls: client didn't provide a certificate".to_owned())
        }
        Some(rustls::Error::AlertReceived(alert)) => (Severity::Error, format!("remote error: tls: {alert:?}")),
        Some(error) => (Severity::Error, format!("tls: {error}")),
        None => match error.kind() {
            io::ErrorKind::TimedOut => (Severity::Debug, "i/o timeout".to_owned()),
            io::ErrorKind::UnexpectedEof => (Severity::Error, "EOF".to_owned()),
            _ => (Severity::Error, error.to_string()),
        },
    };
    Failure { severity, text, detail: None }
}
