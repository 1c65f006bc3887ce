//! The data phase of a connection with TLS: plain bytes to records and back, on the shard.
//!
//! What has been made into records and is not taken by the socket yet counts as not sent: [`Session::send`] remembers it
//! as owed, and skips it when the shard offers the same bytes again. So pending bytes, write deadlines and slow
//! consumers are what they are without TLS, and a session never holds more than [`RECORDS_BYTES_MAX`] of output.
#![forbid(unsafe_code)]

use std::io::{self, IoSlice, Read, Write};

use rustls::ServerConnection;
use smallvec::SmallVec;

use crate::shard::io::{Recv, Sent};

/// Plain bytes made into records before the socket is tried.
const RECORDS_BYTES_MAX: usize = 64 << 10;
/// A read of this many bytes makes a socket a stream, which is read again before it is polled.
const STREAM_BYTES: usize = 4 << 10;
/// Bytes read from the socket at once.
const READ_BYTES: usize = 32 << 10;

/// What carries the records: a socket that never blocks.
pub(super) trait Wire {
    /// Reads at most `buf.len()` bytes.
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes as much as fits.
    fn send(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// As [`crate::shard::io::Io::recv`], of the wire itself.
    fn recv_more(&mut self, read_on: bool, buf: &mut [u8]) -> Recv {
        match self.recv(buf) {
            Ok(0) => Recv::End,
            // A short read has emptied the socket, and whatever comes later is told anew. The end of the stream is not
            // if it came together with these bytes; and more of a stream has often come by the next turn.
            Ok(bytes) => Recv::Data { bytes, more: read_on || bytes >= STREAM_BYTES.min(buf.len()) },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Recv::Nothing,
            Err(_) => Recv::Failed,
        }
    }

    /// As [`crate::shard::io::Io::send`], of the wire itself.
    fn send_some(&mut self, bufs: &[IoSlice<'_>]) -> Sent {
        match self.send(bufs) {
            Ok(taken) => Sent::Bytes(taken),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Bytes(0),
            Err(_) => Sent::Failed,
        }
    }
}

/// One connection's TLS after its handshake.
#[derive(Debug)]
pub(super) struct Session {
    tls: ServerConnection,
    /// Records that were read together with others for which there was room; given to `tls` from `fed` on.
    ahead: Vec<u8>,
    fed: usize,
    /// Plain bytes that are in records already, although the shard has been told that they were not taken.
    owed: usize,
}

impl Session {
    pub(super) fn new(mut tls: ServerConnection) -> Self {
        tls.set_buffer_limit(Some(RECORDS_BYTES_MAX));
        Self { tls, ahead: Vec::new(), fed: 0, owed: 0 }
    }

    /// As [`crate::shard::io::Io::recv`]. With `read_on` the wire is read until it says that it is empty or has ended.
    /// `scratch` is the buffer of all sessions of the shard.
    pub(super) fn recv<W: Wire>(&mut self, wire: &mut W, read_on: bool, buf: &mut [u8], scratch: &mut Vec<u8>) -> Recv {
        let (mut filled, mut drained) = (0, false);
        loop {
            match self.tls.reader().read(&mut buf[filled..]) {
                // The end, said by the peer in so many words.
                Ok(0) => return ended(filled),
                Ok(bytes) => {
                    filled += bytes;
                    if filled == buf.len() {
                        return Recv::Data { bytes: filled, more: true };
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Recv::Failed,
            }
            if self.fed == self.ahead.len() {
                if drained {
                    return if filled > 0 { Recv::Data { bytes: filled, more: false } } else { Recv::Nothing };
                }
                scratch.resize(READ_BYTES, 0);
                match wire.recv(scratch) {
                    Ok(0) => return ended(filled),
                    Ok(bytes) => {
                        drained = !read_on && bytes < scratch.len();
                        self.ahead.clear();
                        self.fed = 0;
                        let Ok(rest) = feed_most(&mut self.tls, &scratch[..bytes]) else {
                            // Tells the peer what is wrong with its records, if it can be told.
                            let _ = self.flush(wire);
                            return Recv::Failed;
                        };
                        self.ahead.extend_from_slice(rest);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => drained = true,
                    Err(_) => return Recv::Failed,
                }
            } else {
                match feed_most(&mut self.tls, &self.ahead[self.fed..]) {
                    Ok(rest) => self.fed = self.ahead.len() - rest.len(),
                    Err(_) => {
                        let _ = self.flush(wire);
                        return Recv::Failed;
                    }
                }
                if self.fed == self.ahead.len() {
                    (self.ahead, self.fed) = (Vec::new(), 0);
                }
            }
            if self.tls.wants_write() && self.owed == 0 {
                // An answer of the protocol itself. What does not go now goes with the next output.
                let _ = self.flush(wire);
            }
        }
    }

    /// As [`crate::shard::io::Io::send`].
    pub(super) fn send<W: Wire>(&mut self, wire: &mut W, bufs: &[IoSlice<'_>]) -> Sent {
        match self.flush(wire) {
            Ok(true) => {}
            Ok(false) => return Sent::Bytes(0),
            Err(_) => return Sent::Failed,
        }
        let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut taken = self.owed.min(offered);
        self.owed -= taken;
        while taken < offered {
            let mut rest: SmallVec<[IoSlice<'_>; 32]> = SmallVec::from_slice(bufs);
            let mut slices = &mut rest[..];
            IoSlice::advance_slices(&mut slices, taken);
            let Ok(encrypted) = self.tls.writer().write_vectored(slices) else { return Sent::Failed };
            match self.flush(wire) {
                Ok(true) if encrypted > 0 => taken += encrypted,
                Ok(false) => {
                    self.owed = encrypted;
                    break;
                }
                Ok(true) | Err(_) => return Sent::Failed,
            }
        }
        Sent::Bytes(taken)
    }

    /// Says goodbye, as far as the wire takes it.
    pub(super) fn close<W: Wire>(&mut self, wire: &mut W) {
        self.tls.send_close_notify();
        let _ = self.flush(wire);
    }

    /// Hands records to the wire; `true` if none is left.
    fn flush<W: Wire>(&mut self, wire: &mut W) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Writer(wire)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn ended(filled: usize) -> Recv {
    // What has come before the end is said first; the end is found again.
    if filled > 0 { Recv::Data { bytes: filled, more: true } } else { Recv::End }
}

/// Gives records to the session until there are plain bytes to be taken from it; gives what is left of them.
fn feed_most<'a>(tls: &mut ServerConnection, mut records: &'a [u8]) -> Result<&'a [u8], ()> {
    while !records.is_empty() {
        tls.read_tls(&mut records).map_err(drop)?;
        if tls.process_new_packets().map_err(drop)?.plaintext_bytes_to_read() > 0 {
            break;
        }
    }
    Ok(records)
}

struct Writer<'a, W>(&'a mut W);

impl<W: Wire> Write for Writer<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.send(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
