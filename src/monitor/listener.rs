//! Accepts HTTP connections and bounds what each may cost.
//!
//! At most [`CONNECTIONS_MAX`] connections are open; further ones wait in the kernel's backlog. A connection is closed
//! when it is silent for [`IDLE_MAX`] (which is the time for a TLS handshake and the first byte of a request too), when
//! a request has not arrived and been answered within [`REQUEST_MAX`], when a request is longer than
//! [`REQUEST_BYTES_MAX`], which is answered with status 431, or when its reader takes nothing for [`IDLE_MAX`].
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

use super::transport::Transport;
use crate::tls::Current;

/// Open HTTP connections.
pub(super) const CONNECTIONS_MAX: usize = 1024;

/// Silence between two requests, and a stalled reader's patience.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// From the first byte of a request to the first byte of its answer.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// Bytes of a request. Requests need neither a body nor long headers, and pipelining is not worth a buffer.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// The answer to a longer one, as the reference gives it.
const TOO_LONG: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
    Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n431 Request Header Fields Too Large";

/// So much of it is still read, and thrown away: a socket closed with unread input loses the answer.
const DISCARD_BYTES_MAX: usize = 4 << 20;

/// Pause after a failed accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener whose connections are bounded.
pub(super) struct BoundedListener {
    listener: TcpListener,
    /// Connections begin with a TLS handshake.
    tls: Option<Current>,
    slots: Arc<Semaphore>,
    limits: Limits,
}

#[derive(Clone, Copy)]
struct Limits {
    connections: usize,
    idle: Duration,
    request: Duration,
}

impl BoundedListener {
    pub(super) fn new(listener: TcpListener, tls: Option<Current>) -> Self {
        let limits = Limits { connections: CONNECTIONS_MAX, idle: IDLE_MAX, request: REQUEST_MAX };
        Self::with_limits(listener, tls, limits)
    }

    fn with_limits(listener: TcpListener, tls: Option<Current>, limits: Limits) -> Self {
        Self { listener, tls, slots: Arc::new(Semaphore::new(limits.connections)), limits }
    }
}

impl axum::serve::Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                // Never closed; without slots there is nothing to accept.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let stream = Transport::new(stream, peer, self.tls.as_ref());
                    return (BoundedStream::new(stream, slot, self.limits), peer);
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with a deadline for whatever it does next.
pub(super) struct BoundedStream {
    stream: Transport,
    deadline: Pin<Box<Sleep>>,
    /// Bytes that have arrived since the last byte of an answer left.
    request_bytes: usize,
    /// The request was too long and has been refused.
    refused: bool,
    limits: Limits,
    _slot: OwnedSemaphorePermit,
}

impl BoundedStream {
    fn new(stream: Transport, slot: OwnedSemaphorePermit, limits: Limits) -> Self {
        Self { stream, deadline: Box::pin(sleep(limits.idle)), request_bytes: 0, refused: false, limits, _slot: slot }
    }

    fn allow(&mut self, time: Duration) {
        self.deadline.as_mut().reset(Instant::now() + time);
    }

    /// What a pending operation comes to: it goes on waiting, or its time is over.
    fn still_pending<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Answers a request that is too long, and ends the connection when its sender has had a chance to see that.
    fn refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.refused {
            self.refused = true;
            // Whoever does not take the answer now does without.
            let _ = Pin::new(&mut self.stream).poll_write(cx, TOO_LONG);
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
            let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
        }
        let mut scratch = [0; 4096];
        while self.request_bytes < DISCARD_BYTES_MAX {
            let mut rest = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => self.request_bytes += rest.filled().len(),
                Poll::Ready(_) => break,
                Poll::Pending => return self.still_pending(cx),
            }
        }
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
    }

    fn wrote(&mut self, result: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(bytes)) => {
                self.request_bytes = 0;
                self.allow(self.limits.idle);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.still_pending(cx),
        }
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.refused {
            return self.refuse(cx);
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let bytes = buf.filled().len() - before;
                if self.request_bytes == 0 && bytes > 0 {
                    let time = self.limits.request;
                    self.allow(time);
                }
                self.request_bytes += bytes;
                if self.request_bytes > REQUEST_BYTES_MAX {
                    return self.refuse(cx);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.still_pending(cx),
        }
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use std::future::Future;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    fn run(limits: Limits, client: impl AsyncFnOnce(SocketAddr)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let app = Router::new().route("/", axum::routing::get(async || "ok"));
            let serve = axum::serve(BoundedListener::with_limits(listener, None, limits), app);
            tokio::spawn(serve.into_future());
            client(addr).await;
        });
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), future).await.expect("done in time")
    }

    async fn ends(mut stream: TcpStream) -> String {
        let mut text = String::new();
        let _ = within(stream.read_to_string(&mut text)).await;
        text
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// Clients that are silent or send their request without end are cut off.
    #[test]
    fn slow_clients_are_cut_off() {
        let short = Duration::from_millis(50);
        run(Limits { connections: 4, idle: short, request: HOUR }, async |addr| {
            assert_eq!(ends(TcpStream::connect(addr).await.unwrap()).await, "");
        });
        run(Limits { connections: 4, idle: HOUR, request: short }, async |addr| {
            let mut half = TcpStream::connect(addr).await.unwrap();
            half.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
            assert_eq!(ends(half).await, "");
            let mut whole = TcpStream::connect(addr).await.unwrap();
            whole.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
            assert!(ends(whole).await.ends_with("ok"));
        });
    }

    /// A request that is too long is answered, wherever its length is.
    #[test]
    fn long_requests_are_refused() {
        let limits = Limits { connections: 4, idle: HOUR, request: HOUR };
        run(limits, async |addr| {
            for (start, end) in [("GET /?", " HTTP/1.1\r\nHost: x\r\n\r\n"), ("GET / HTTP/1.1\r\nA: ", "\r\n\r\n")] {
                for (bytes, status) in
                    [(REQUEST_BYTES_MAX - 100, "200 OK"), (1 << 20, "431 Request Header Fields Too Large")]
                {
                    let mut client = TcpStream::connect(addr).await.unwrap();
                    let request = format!("{start}{}{end}", "x".repeat(bytes));
                    within(client.write_all(request.as_bytes())).await.unwrap();
                    client.shutdown().await.unwrap();
                    let answer = ends(client).await;
                    assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{start}: {answer:?}");
                }
            }
        });
    }

    /// A request without end is cut off long before it fills the memory.
    #[test]
    fn long_requests_are_cut_off() {
        let limits = Limits { connections: 4, idle: HOUR, request: HOUR };
        run(limits, async |addr| {
            let mut client = TcpStream::connect(addr).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            let mut sent = 0;
            while client.write_all(&[b'x'; 4096]).await.is_ok() {
                sent += 4096;
                tokio::task::yield_now().await;
                assert!(sent < 64 << 20, "nobody stopped the client");
            }
        });
    }

    /// Connections above the limit wait until one ends.
    #[test]
    fn connections_are_bounded() {
        run(Limits { connections: 1, idle: HOUR, request: HOUR }, async |addr| {
            let mut first = TcpStream::connect(addr).await.unwrap();
            first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            within(first.read_exact(&mut answer)).await.unwrap();
            let mut second = TcpStream::connect(addr).await.unwrap();
            second.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
            let waiting = tokio::time::timeout(Duration::from_millis(100), second.readable()).await;
            assert!(waiting.is_err(), "the second connection must wait");
            drop(first);
            assert!(ends(second).await.ends_with("ok"));
        });
    }
}
