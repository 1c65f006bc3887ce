//! TLS handshakes, on threads of their own: their arithmetic takes a shard's thread about a millisecond each. What a
//! load balancer says about a connection comes before that, and is read here too (`proxy`).
//!
//! A shard hands over the socket of a connection and goes on; the outcome comes back as an [`Order::Opened`]. Jobs are
//! bounded by `max_connections`, since each is one connection of a shard, and by the time a handshake may take. A
//! connection that is closed meanwhile drops its `Ticket`, which ends the job.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustls::ServerConnection;
use tokio::net::TcpStream as AsyncStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::doorbell::Doorbell;
use super::driver::Order;
use super::proxy;
use super::rate::{self, Admission, Rate};
use crate::shard::secure::{Failure, Severity};
use crate::tls::{Context, Current, HANDSHAKE_BYTE, TlsFacts};

/// Shards that share a thread for handshakes.
const SHARDS_PER_THREAD: usize = 4;

/// What comes before the commands of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// A PROXY protocol header, before anything else.
    pub proxied: bool,
    /// A TLS handshake.
    pub handshake: Handshake,
}

/// How a handshake begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// There is none: INFO has been sent in clear, and the client goes on so.
    None,
    /// INFO has been sent in clear; the client begins the handshake.
    AfterInfo,
    /// INFO has been sent in clear; the client may begin a handshake, or go on in clear.
    Optional,
    /// The client begins the handshake, and gets INFO after it.
    First,
    /// As [`Handshake::First`]; a client that does not begin in this time gets INFO in clear.
    FirstWithin(Duration, Fallback),
}

/// What a client that has got INFO in clear may do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// As with [`Handshake::AfterInfo`].
    Required,
    /// As with [`Handshake::Optional`].
    Optional,
}

impl Opening {
    /// Whether INFO is sent in clear, before anything else.
    pub(super) fn greets(self) -> bool {
        matches!(self.handshake, Handshake::None | Handshake::AfterInfo | Handshake::Optional)
    }
}

/// How the opening of a connection ended.
#[derive(Debug)]
pub enum Outcome {
    /// Everything from now on is inside TLS.
    Secured(TcpStream, Box<ServerConnection>, Box<TlsFacts>),
    /// The client goes on in clear.
    Clear(TcpStream),
    /// The client waits for INFO in clear, and then has this choice.
    Silent(TcpStream, Opening),
    /// There are too many handshakes at the moment.
    Throttled(TcpStream),
    /// The PROXY protocol header cannot be used.
    BadHeader(String),
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
    context: Option<Current>,
}

impl Handshakes {
    /// Starts the threads for the shards of `orders`. Without a context they read PROXY protocol headers only.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(context: Option<Context>, orders: &Arc<[Sender<Order>]>, bells: &Arc<[Doorbell]>) -> io::Result<Self> {
        let context = context.map(Current::new);
        let rate = Arc::new(Rate::default());
        let mut threads = Vec::new();
        for number in 0..orders.len().div_ceil(SHARDS_PER_THREAD) {
            let (sender, jobs) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let answers = Answers { orders: orders.clone(), bells: bells.clone() };
            let (context, rate) = (context.clone(), rate.clone());
            std::thread::Builder::new()
                .name(format!("leat-tls-{number}"))
                .spawn(move || runtime.block_on(work(jobs, context, rate, answers)))?;
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

    /// What handshakes begin with; `None` if there are none.
    #[must_use]
    pub fn context(&self) -> Option<&Current> {
        self.context.as_ref()
    }
}

#[derive(Clone)]
struct Answers {
    orders: Arc<[Sender<Order>]>,
    bells: Arc<[Doorbell]>,
}

async fn work(mut jobs: mpsc::UnboundedReceiver<Job>, context: Option<Current>, rate: Arc<Rate>, answers: Answers) {
    while let Some(Job { stream, place, opening, gone }) = jobs.recv().await {
        let begin = Begin { opening, context: context.as_ref().map(Current::get), rate: rate.clone() };
        let answers = answers.clone();
        tokio::spawn(async move {
            let (source, outcome) = tokio::select! {
                _ = gone => return,
                opened = begin.open(stream) => opened,
            };
            let shard = usize::from(place.shard);
            // A shard that has ended needs no answer.
            if answers.orders[shard].send(Order::Opened { place, source, outcome }).is_ok() {
                answers.bells[shard].ring();
            }
        });
    }
}

/// What one opening works with.
struct Begin {
    opening: Opening,
    context: Option<Arc<Context>>,
    rate: Arc<Rate>,
}

impl Begin {
    /// Gives the client's own address too, if a load balancer has told it.
    async fn open(self, stream: TcpStream) -> (Option<SocketAddr>, Outcome) {
        let failed = |error: &io::Error| Outcome::Failed(describe(error));
        let mut stream = match AsyncStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return (None, failed(&error)),
        };
        let mut source = None;
        if self.opening.proxied {
            source = match proxy::take_header(&mut stream).await {
                Ok(source) => source,
                Err(text) => return (None, Outcome::BadHeader(text)),
            };
        }
        let outcome = match &self.context {
            Some(context) => self.attempt(stream, context).await,
            None => stream.into_std().map(Outcome::Clear),
        };
        (source, outcome.unwrap_or_else(|error| failed(&error)))
    }

    async fn attempt(&self, stream: AsyncStream, context: &Context) -> io::Result<Outcome> {
        let mut first = [0];
        match self.opening.handshake {
            Handshake::None => return Ok(Outcome::Clear(stream.into_std()?)),
            Handshake::AfterInfo | Handshake::First => {}
            Handshake::Optional => match timeout(context.timeout, stream.peek(&mut first)).await {
                Ok(Ok(1)) if first[0] == HANDSHAKE_BYTE => {}
                // Silence and broken sockets are the shard's business, as of any client in clear.
                _ => return Ok(Outcome::Clear(stream.into_std()?)),
            },
            Handshake::FirstWithin(time, fallback) => {
                if timeout(time, stream.peek(&mut first)).await.is_err() {
                    let handshake = match fallback {
                        Fallback::Required => Handshake::AfterInfo,
                        Fallback::Optional => Handshake::Optional,
                    };
                    return Ok(Outcome::Silent(stream.into_std()?, Opening { proxied: false, handshake }));
                }
            }
        }
        if context.rate_limit.is_some_and(|limit| !self.is_admitted(limit)) {
            return Ok(Outcome::Throttled(stream.into_std()?));
        }
        let accepted = timeout(context.timeout, TlsAcceptor::from(context.config.clone()).accept(stream)).await;
        let (stream, session) = accepted.map_err(|_| io::ErrorKind::TimedOut)??.into_inner();
        let facts = TlsFacts::of(&session, !self.opening.greets());
        if let Some(failure) = not_pinned(&facts, &context.pinned) {
            return Ok(Outcome::Failed(failure));
        }
        Ok(Outcome::Secured(stream.into_std()?, Box::new(session), Box::new(facts)))
    }

    /// Whether the handshake may begin. The log tells of those that may not together, a second after the first.
    fn is_admitted(&self, limit: u32) -> bool {
        let admission = self.rate.admit(limit, Instant::now());
        if admission == Admission::FirstRefused {
            let rate = self.rate.clone();
            tokio::spawn(async move {
                sleep(rate::WINDOW).await;
                tracing::warn!("Rejected {} connections due to TLS rate limiting", rate.take_refused());
            });
        }
        admission == Admission::Granted
    }
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
