//! A raw NATS client that shows every byte. It cuts what the server sends into frames (a line, or a message with its
//! payload), so that transcripts compare exactly, and answers the server's PINGs unasked, because those come by the
//! clock and belong to no transcript.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for something that should happen at once. Generous, since machines that run tests are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Read at most this much at once.
const CHUNK: usize = 64 * 1024;

/// Bytes as readable text, for failure messages.
pub(crate) fn show(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 600;
    let shown = bytes[..bytes.len().min(SHOWN_MAX)].escape_ascii();
    if bytes.len() > SHOWN_MAX { format!("{shown}… ({} bytes)", bytes.len()) } else { shown.to_string() }
}

/// A message as delivered to a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Msg {
    /// The subject it was published on.
    pub(crate) subject: String,
    /// The subscription that it is for.
    pub(crate) sid: String,
    /// Where the publisher wants an answer.
    pub(crate) reply: Option<String>,
    /// The header block of an HMSG.
    pub(crate) headers: Option<Vec<u8>>,
    /// The payload without headers.
    pub(crate) payload: Vec<u8>,
}

impl Msg {
    /// The payload as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the payload should be text")
    }

    /// Reads a whole MSG or HMSG frame; anything else is none.
    pub(crate) fn parse(frame: &[u8]) -> Option<Msg> {
        let line_len = line_len(frame)?;
        let body = &frame[line_len..];
        let line = std::str::from_utf8(&frame[..line_len]).ok()?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (sizes, reply) = match words.as_slice() {
            ["MSG", _, _, size] => ((0, size), None),
            ["MSG", _, _, reply, size] => ((0, size), Some(*reply)),
            ["HMSG", _, _, header_size, size] => ((header_size.parse().ok()?, size), None),
            ["HMSG", _, _, reply, header_size, size] => ((header_size.parse().ok()?, size), Some(*reply)),
            _ => return None,
        };
        let (header_size, size): (usize, usize) = (sizes.0, sizes.1.parse().ok()?);
        Some(Msg {
            subject: words[1].to_owned(),
            sid: words[2].to_owned(),
            reply: reply.map(str::to_owned),
            headers: (words[0] == "HMSG").then(|| body[..header_size].to_vec()),
            payload: body[header_size..size].to_vec(),
        })
    }
}

/// Why a read ended without a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Closed,
    Deadline,
}

/// One connection to the server.
pub(crate) struct Client {
    stream: TcpStream,
    /// What has been received and not yet consumed starts at `taken`.
    received: Vec<u8>,
    taken: usize,
    info: Value,
    answers_pings: bool,
}

impl Client {
    /// Connects and reads the INFO that greets every client. Sends nothing.
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        Client::greeted(TcpStream::connect(addr).expect("the client port should accept connections"))
    }

    /// Takes a connected socket over and reads the INFO.
    pub(crate) fn greeted(stream: TcpStream) -> Client {
        stream.set_nodelay(true).expect("TCP_NODELAY should be settable");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout should be settable");
        let mut client = Client { stream, received: Vec::new(), taken: 0, info: Value::Null, answers_pings: true };
        client.info = client.next_info();
        client
    }

    /// Sends CONNECT with `options` and waits for the PONG of a PING sent along. Use with `protocol` 0, otherwise the
    /// second INFO follows.
    pub(crate) fn login(mut self, options: &Value) -> Client {
        self.send(format!("CONNECT {options}\r\n"));
        let before = self.fence();
        assert!(before.is_empty(), "CONNECT {options} was answered: {}", show(&before));
        self
    }

    /// Leaves the server's PINGs in the transcript and unanswered.
    pub(crate) fn ignoring_pings(mut self) -> Client {
        self.answers_pings = false;
        self
    }

    /// The INFO received at accept.
    pub(crate) fn info(&self) -> &Value {
        &self.info
    }

    /// The connection id that the server gave in INFO.
    pub(crate) fn cid(&self) -> u64 {
        self.info["client_id"].as_u64().expect("INFO should carry client_id")
    }

    /// The socket, to shut it down, change its options or write to it from another thread.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// A second handle of the socket, for a thread that only writes.
    pub(crate) fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("a socket should be clonable")
    }

    /// Ends the sending direction; the server sees the end of the stream.
    pub(crate) fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("an open connection should be shut down");
    }

    /// As [`Client::finish_sending`], for a connection that the server may have closed meanwhile.
    pub(crate) fn finish_sending_if_open(&self) {
        match self.stream.shutdown(Shutdown::Write) {
            Err(error) if error.kind() != ErrorKind::NotConnected => panic!("cannot shut down: {error}"),
            _ => {}
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.stream.write_all(bytes).unwrap_or_else(|error| panic!("cannot send {}: {error}", show(bytes)));
    }

    /// Sends bytes to a server that may have closed the connection meanwhile; tells whether all were taken.
    pub(crate) fn send_if_open(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => false,
            Err(error) => panic!("cannot send {}: {error}", show(bytes)),
        }
    }

    /// Sends a PUB.
    pub(crate) fn publish(&mut self, subject: &str, payload: impl AsRef<[u8]>) {
        let payload = payload.as_ref();
        let mut frame = format!("PUB {subject} {}\r\n", payload.len()).into_bytes();
        frame.extend_from_slice(payload);
        frame.extend_from_slice(b"\r\n");
        self.send(frame);
    }

    /// Subscribes and waits until the server has confirmed it with a PONG.
    pub(crate) fn subscribe(&mut self, subject: &str, sid: &str) {
        self.send(format!("SUB {subject} {sid}\r\n"));
        self.expect_nothing();
    }

    /// Reads exactly these bytes, frame by frame.
    pub(crate) fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let actual = self.read_up_to(expected.len());
        assert!(actual == expected, "received: {}\n  expected: {}", show(&actual), show(expected));
    }

    /// Reads exactly these bytes and then the end of the connection.
    pub(crate) fn expect_then_close(&mut self, expected: impl AsRef<[u8]>) {
        let actual = self.read_to_end();
        assert!(
            actual == expected.as_ref(),
            "received: {}\n  expected: {} and the end",
            show(&actual),
            show(expected.as_ref())
        );
    }

    /// Expects the end of the connection and no byte before it.
    pub(crate) fn expect_close(&mut self) {
        self.expect_then_close(b"");
    }

    /// Reads frames until there are `len` bytes, or as many as come before the connection ends or falls silent.
    pub(crate) fn read_up_to(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            match self.frame(PATIENCE) {
                Ok(frame) => bytes.extend_from_slice(&frame),
                Err(_) => {
                    self.take_rest(&mut bytes);
                    break;
                }
            }
        }
        bytes
    }

    /// Reads everything until the server closes the connection.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        self.read_to_end_within(PATIENCE)
            .unwrap_or_else(|before| panic!("the connection stayed open after: {}", show(&before)))
    }

    /// Reads everything until the server closes the connection. An error holds what came from one that fell silent for
    /// `limit` instead.
    pub(crate) fn read_to_end_within(&mut self, limit: Duration) -> Result<Vec<u8>, Vec<u8>> {
        let mut all = Vec::new();
        loop {
            match self.frame(limit) {
                Ok(frame) => all.extend_from_slice(&frame),
                Err(stop) => {
                    self.take_rest(&mut all);
                    return if stop == Stop::Closed { Ok(all) } else { Err(all) };
                }
            }
        }
    }

    /// Sends a PING and returns everything that arrives before its PONG.
    pub(crate) fn fence(&mut self) -> Vec<u8> {
        self.send(b"PING\r\n");
        self.until_pong()
    }

    /// Returns everything that arrives before the next PONG.
    pub(crate) fn until_pong(&mut self) -> Vec<u8> {
        let mut before = Vec::new();
        loop {
            match self.frame(PATIENCE) {
                Ok(frame) if frame == b"PONG\r\n" => return before,
                Ok(frame) => before.extend_from_slice(&frame),
                Err(stop) => panic!("{stop:?} instead of a PONG after: {}", show(&before)),
            }
        }
    }

    /// Fails if anything arrives before the PONG of a PING sent now.
    pub(crate) fn expect_nothing(&mut self) {
        let before = self.fence();
        assert!(before.is_empty(), "unexpected: {}", show(&before));
    }

    /// Fails if anything arrives, or the connection ends, within `limit`.
    pub(crate) fn expect_silence(&mut self, limit: Duration) {
        match self.frame(limit) {
            Err(Stop::Deadline) => {}
            Err(Stop::Closed) => panic!("the connection ended"),
            Ok(frame) => panic!("unexpected: {}", show(&frame)),
        }
    }

    /// The messages that arrive before the PONG of a PING sent now.
    pub(crate) fn messages_to_fence(&mut self) -> Vec<Msg> {
        self.send(b"PING\r\n");
        self.messages_to_pong()
    }

    /// The messages that arrive before the next PONG. Any other frame fails.
    pub(crate) fn messages_to_pong(&mut self) -> Vec<Msg> {
        let mut messages = Vec::new();
        loop {
            match self.frame(PATIENCE) {
                Ok(frame) if frame == b"PONG\r\n" => return messages,
                Ok(frame) => messages.push(must_be_msg(&frame)),
                Err(stop) => panic!("{stop:?} instead of a PONG after {} messages", messages.len()),
            }
        }
    }

    /// The next message; any other frame fails.
    pub(crate) fn next_msg(&mut self) -> Msg {
        match self.frame(PATIENCE) {
            Ok(frame) => must_be_msg(&frame),
            Err(stop) => panic!("{stop:?} instead of a message"),
        }
    }

    /// The next message, or none when nothing comes within `limit`; any other frame fails.
    pub(crate) fn next_msg_within(&mut self, limit: Duration) -> Option<Msg> {
        match self.frame(limit) {
            Ok(frame) => Some(must_be_msg(&frame)),
            Err(Stop::Deadline) => None,
            Err(Stop::Closed) => panic!("the connection ended instead of a message"),
        }
    }

    /// The messages that arrive before the connection ends.
    pub(crate) fn messages_to_end(&mut self) -> Vec<Msg> {
        let mut messages = Vec::new();
        loop {
            match self.frame(PATIENCE) {
                Ok(frame) => messages.push(must_be_msg(&frame)),
                Err(Stop::Closed) => return messages,
                Err(Stop::Deadline) => panic!("the connection stayed open after {} messages", messages.len()),
            }
        }
    }

    /// The next `count` messages.
    pub(crate) fn next_msgs(&mut self, count: usize) -> Vec<Msg> {
        (0..count).map(|_| self.next_msg()).collect()
    }

    /// The next INFO; any other frame fails.
    pub(crate) fn next_info(&mut self) -> Value {
        let frame = self.frame(PATIENCE).unwrap_or_else(|stop| panic!("{stop:?} instead of an INFO"));
        parse_info(&frame).unwrap_or_else(|| panic!("not an INFO: {}", show(&frame)))
    }

    /// The next frame: a line with its end, or a message with its payload.
    fn frame(&mut self, limit: Duration) -> Result<Vec<u8>, Stop> {
        let deadline = Instant::now() + limit;
        loop {
            while let Some(len) = frame_len(&self.received[self.taken..]) {
                let frame = self.received[self.taken..self.taken + len].to_vec();
                self.taken += len;
                if self.answers_pings && frame == b"PING\r\n" {
                    self.send_if_open(b"PONG\r\n");
                    continue;
                }
                return Ok(frame);
            }
            self.receive(deadline)?;
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<(), Stop> {
        self.received.drain(..self.taken);
        self.taken = 0;
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(Stop::Deadline);
        }
        self.stream.set_read_timeout(Some(remaining)).expect("a read timeout should be settable");
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Stop::Closed),
            Ok(len) => {
                self.received.extend_from_slice(&chunk[..len]);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Err(Stop::Closed),
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(Stop::Deadline),
                ErrorKind::Interrupted => Ok(()),
                _ => panic!("cannot read: {error}"),
            },
        }
    }

    /// Moves an unfinished frame to `bytes`.
    fn take_rest(&mut self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.received[self.taken..]);
        self.taken = self.received.len();
    }
}

fn must_be_msg(frame: &[u8]) -> Msg {
    Msg::parse(frame).unwrap_or_else(|| panic!("not a message: {}", show(frame)))
}

fn parse_info(line: &[u8]) -> Option<Value> {
    serde_json::from_slice(line.strip_prefix(b"INFO ")?).ok()
}

/// The length of the first line including its LF.
fn line_len(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == b'\n').map(|at| at + 1)
}

/// The length of the first frame, if all of it is there.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let line_len = line_len(bytes)?;
    let line = &bytes[..line_len];
    let body_len = if line.starts_with(b"MSG ") || line.starts_with(b"HMSG ") {
        let size = line.trim_ascii().rsplit(|&byte| byte == b' ').next()?;
        let size: usize = std::str::from_utf8(size).ok()?.parse().ok()?;
        size + b"\r\n".len()
    } else {
        0
    };
    (bytes.len() >= line_len + body_len).then_some(line_len + body_len)
}
