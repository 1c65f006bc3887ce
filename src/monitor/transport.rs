//! What carries an HTTP connection: bytes as they are, or TLS.
//!
//! The handshake is made by the first read, so that it costs its own connection's time and nobody else's.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::tls::{Current, HANDSHAKE_BYTE};

/// The answer to a request in clear where TLS is expected, as the reference gives it.
const IN_CLEAR: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// A connection.
pub(super) enum Transport {
    Clear(TcpStream),
    /// Nothing has come yet.
    Fresh(TcpStream, TlsAcceptor, SocketAddr),
    Handshake(Box<Accept<TcpStream>>, SocketAddr),
    Secured(Box<TlsStream<TcpStream>>),
    /// There will be no TLS.
    Ended,
}

impl Transport {
    /// With TLS if there is a context for it.
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, tls: Option<&Current>) -> Self {
        let Some(tls) = tls else { return Self::Clear(stream) };
        Self::Fresh(stream, TlsAcceptor::from(tls.get().config.clone()), peer)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Self::Fresh(stream, ..) = self {
            let mut first = [0];
            let bytes = ready!(stream.poll_peek(cx, &mut ReadBuf::new(&mut first)))?;
            let Self::Fresh(stream, acceptor, peer) = std::mem::replace(self, Self::Ended) else { return ended() };
            if bytes == 1 && first[0] != HANDSHAKE_BYTE {
                tracing::debug!("monitoring: {peer} has sent a request in clear where TLS is expected");
                // Whoever does not take the answer now does without.
                let _ = stream.try_write(IN_CLEAR);
                return ended();
            }
            *self = Self::Handshake(Box::new(acceptor.accept(stream)), peer);
        }
        let Self::Handshake(accept, peer) = self else { return Poll::Ready(Ok(())) };
        let (opened, result) = match ready!(Pin::new(accept).poll(cx)) {
            Ok(stream) => (Self::Secured(Box::new(stream)), Ok(())),
            Err(error) => {
                tracing::debug!("monitoring: TLS handshake error from {peer}: {error}");
                (Self::Ended, Err(error))
            }
        };
        *self = opened;
        Poll::Ready(result)
    }
}

fn ended<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?;
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Secured(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Fresh(..) | Self::Handshake(..) | Self::Ended => ended(),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?;
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Secured(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Fresh(..) | Self::Handshake(..) | Self::Ended => ended(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?;
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Fresh(..) | Self::Handshake(..) | Self::Ended => ended(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secured(stream) => Pin::new(stream).poll_flush(cx),
            Self::Fresh(..) | Self::Handshake(..) | Self::Ended => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Fresh(..) | Self::Handshake(..) | Self::Ended => Poll::Ready(Ok(())),
        }
    }
}
