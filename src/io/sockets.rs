//! The sockets of one shard, seen as [`Io`].

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use super::doorbell::Doorbell;
use super::ready::ReadyList;
use crate::shard::io::{Io, Recv, Sent};

/// A read of this many bytes makes a socket a stream, which is read again before it is polled.
const STREAM_BYTES: usize = 4 << 10;

/// A connection's socket and the waker that names it.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    waker: Waker,
    /// The last read was large: there is probably more, or soon will be.
    streams: bool,
}

/// Sockets by slot, the clock, and the doorbells of all shards.
#[derive(Debug)]
pub(super) struct Sockets {
    slots: Vec<Option<Box<Socket>>>,
    ready: Arc<ReadyList>,
    bells: Arc<[Doorbell]>,
    epoch: Instant,
}

impl Sockets {
    /// `epoch` is the zero of the clock that all shards share.
    pub(super) fn new(ready: Arc<ReadyList>, bells: Arc<[Doorbell]>, epoch: Instant) -> Self {
        Self { slots: Vec::new(), ready, bells, epoch }
    }

    /// Puts an accepted connection into `slot`.
    pub(super) fn insert(&mut self, slot: u32, stream: TcpStream) {
        let at = slot as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        debug_assert!(self.slots[at].is_none(), "a slot is closed before it is used again");
        self.slots[at] = Some(Box::new(Socket { stream, waker: self.ready.waker(slot), streams: false }));
    }

    fn socket(&mut self, slot: u32) -> Option<&mut Socket> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }
}

impl Io for Sockets {
    fn now(&mut self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn recv(&mut self, slot: u32, buf: &mut [u8]) -> Recv {
        let Some(Socket { stream, waker, streams }) = self.socket(slot) else { return Recv::Failed };
        let mut context = Context::from_waker(waker);
        // glommio polls a socket through the ring as soon as a read comes back short. For a stream of messages that is
        // several times the price of the read; so ask the socket itself, and glommio only when there is nothing.
        if *streams {
            match recv_now(stream, buf) {
                Ok(0) => return Recv::End,
                Ok(bytes) if bytes >= STREAM_BYTES.min(buf.len()) => return Recv::Data { bytes, more: true },
                Ok(bytes) => {
                    *streams = false;
                    return Recv::Data { bytes, more: true };
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Recv::Failed,
            }
        }
        match Pin::new(&mut *stream).poll_read(&mut context, buf) {
            Poll::Pending => Recv::Nothing,
            Poll::Ready(Err(_)) => Recv::Failed,
            Poll::Ready(Ok(0)) => Recv::End,
            Poll::Ready(Ok(bytes)) if bytes >= STREAM_BYTES.min(buf.len()) => {
                *streams = true;
                Recv::Data { bytes, more: true }
            }
            Poll::Ready(Ok(bytes)) => {
                // glommio has prepared a poll of the drained socket; asking again registers the waker with it, usually
                // without a system call.
                match Pin::new(stream).poll_read(&mut context, &mut buf[bytes..]) {
                    Poll::Pending => Recv::Data { bytes, more: false },
                    // The end, or an error, shows again at the next read.
                    Poll::Ready(late) => Recv::Data { bytes: bytes + late.unwrap_or(0), more: true },
                }
            }
        }
    }

    fn send(&mut self, slot: u32, bufs: &[IoSlice<'_>]) -> Sent {
        let Some(Socket { stream, waker, .. }) = self.socket(slot) else { return Sent::Failed };
        let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut taken = match send_now(stream, bufs) {
            Ok(taken) => taken,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(_) => return Sent::Failed,
        };
        // Whatever is left: glommio's own write arms the waker when there is no room.
        let mut context = Context::from_waker(waker);
        while taken < offered {
            let rest = slice_at(bufs, taken);
            match Pin::new(&mut *stream).poll_write(&mut context, rest) {
                Poll::Pending => break,
                Poll::Ready(Ok(bytes)) => taken += bytes,
                Poll::Ready(Err(_)) => return Sent::Failed,
            }
        }
        Sent::Bytes(taken)
    }

    fn close(&mut self, slot: u32) {
        if let Some(socket) = self.slots.get_mut(slot as usize) {
            *socket = None;
        }
    }

    fn ring(&mut self, shard: u16) {
        self.bells[usize::from(shard)].ring();
    }
}

/// The part of `bufs` behind the first `skip` bytes, up to the end of that slice.
fn slice_at<'a>(bufs: &'a [IoSlice<'_>], mut skip: usize) -> &'a [u8] {
    for buf in bufs {
        match buf.get(skip..) {
            Some(rest) if !rest.is_empty() => return rest,
            _ => skip -= buf.len(),
        }
    }
    &[]
}

fn recv_now(stream: &TcpStream, buf: &mut [u8]) -> std::io::Result<usize> {
    // SAFETY: pointer and length come from one live, exclusively borrowed slice.
    let received = unsafe { libc::recv(stream.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
    usize::try_from(received).map_err(|_| std::io::Error::last_os_error())
}

fn send_now(stream: &TcpStream, bufs: &[IoSlice<'_>]) -> std::io::Result<usize> {
    let fd = stream.as_raw_fd();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let sent = if let [only] = bufs {
        // SAFETY: pointer and length come from one live slice; the kernel only reads it.
        unsafe { libc::send(fd, only.as_ptr().cast(), only.len(), flags) }
    } else {
        // SAFETY: all-zero is a valid `msghdr`: no name, no control data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = bufs.as_ptr().cast_mut().cast();
        header.msg_iovlen = bufs.len();
        // SAFETY: `IoSlice` has the layout of `iovec` (std guarantees it); slices outlive the call and are only read.
        unsafe { libc::sendmsg(fd, &raw const header, flags) }
    };
    usize::try_from(sent).map_err(|_| std::io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_several_slices_is_found() {
        let bufs = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
        let rest: Vec<&[u8]> = (0..5).map(|skip| slice_at(&bufs, skip)).collect();
        assert_eq!(rest, [&b"ab"[..], b"b", b"cde", b"de", b"e"]);
    }
}
