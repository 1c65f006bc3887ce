//! One connection to a server: the login, and afterwards a non-blocking socket with a frame reader and an output buffer.
//!
//! Connections are opened one after the other with blocking calls and a time limit; only then do they join an event
//! loop. What the server says on its own (PING, INFO, -ERR) is handled here for every role.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::failure::{Failure, Outcome};
use crate::frames::{FrameReader, Frames, Want};
use crate::units::{Login, ServerUrl};

/// Longest wait for any single answer while a connection is being set up.
const SETUP_PATIENCE: Duration = Duration::from_secs(20);

/// Written bytes that a buffer under steady pressure may keep before they are removed.
const COMPACT_BYTES: usize = 256 << 10;

/// A logged-in connection.
pub(crate) struct Link {
    /// The socket; non-blocking once `Link` is made.
    pub(crate) stream: TcpStream,
    /// Position inside the server's stream.
    pub(crate) reader: FrameReader,
    /// Bytes to be written before anything else; may start in the middle of a frame.
    pub(crate) out: Vec<u8>,
    /// How much of `out` has been written.
    pub(crate) out_at: usize,
    /// False after a write would have blocked, until the poller says otherwise.
    pub(crate) writable: bool,
}

/// What a line from the server asks of us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Answer with PONG.
    Ping,
    /// The oldest unanswered PING is answered.
    Pong,
    /// INFO or +OK: nothing to do.
    Nothing,
}

/// Interprets a line without payload. An `-ERR` ends the run.
pub(crate) fn control(line: &[u8]) -> Outcome<Control> {
    match line {
        b"PING" => Ok(Control::Ping),
        b"PONG" => Ok(Control::Pong),
        [b'I', b'N', b'F', b'O', ..] | [b'+', ..] => Ok(Control::Nothing),
        [b'-', b'E', b'R', b'R', ..] => {
            Err(Failure::new(format!("the server says: {}", String::from_utf8_lossy(line))))
        }
        _ => Err(Failure::new(format!(
            "unexpected line from the server: {:?}",
            String::from_utf8_lossy(&line[..line.len().min(80)])
        ))),
    }
}

/// The CONNECT line for a server, with its CRLF.
pub(crate) fn connect_line(url: &ServerUrl) -> Vec<u8> {
    let mut options = serde_json::json!({
        "verbose": false, "pedantic": false, "echo": true, "protocol": 1,
        "headers": true, "no_responders": true,
        "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "name": "leat-bench",
    });
    match &url.login {
        Login::Open => {}
        Login::User(user, pass) => {
            options["user"] = user.as_str().into();
            options["pass"] = pass.as_str().into();
        }
        Login::Token(token) => options["auth_token"] = token.as_str().into(),
    }
    format!("CONNECT {options}\r\n").into_bytes()
}

/// Resolves a server's name to its first address.
pub(crate) fn resolve(url: &ServerUrl) -> Outcome<SocketAddr> {
    (url.host.as_str(), url.port)
        .to_socket_addrs()
        .map_err(Failure::during(format_args!("cannot resolve {url}")))?
        .next()
        .ok_or_else(|| Failure::new(format!("{url} has no address")))
}

impl Link {
    /// Connects, logs in, sends `subscriptions` (complete SUB lines) and waits until the server has taken it all.
    pub(crate) fn open(url: &ServerUrl, subscriptions: &[u8], want: Want) -> Outcome<Link> {
        let address = resolve(url)?;
        let at_url = |error: io::Error| Failure::new(format!("{url}: {error}"));
        let mut stream = TcpStream::connect_timeout(&address, SETUP_PATIENCE)
            .map_err(Failure::during(format_args!("cannot connect to {url}")))?;
        stream.set_nodelay(true).map_err(at_url)?;
        stream.set_read_timeout(Some(SETUP_PATIENCE)).map_err(at_url)?;
        stream.set_write_timeout(Some(SETUP_PATIENCE)).map_err(at_url)?;

        let mut reader = FrameReader::new(want);
        let mut greeting = Greeting::default();
        while !greeting.info {
            greeting.read_some(&mut stream, &mut reader, url)?;
        }
        if greeting.tls_required {
            return Err(Failure::new(format!("{url} requires TLS, which this program does not speak")));
        }
        let mut login = connect_line(url);
        login.extend_from_slice(b"PING\r\n");
        stream.write_all(&login).map_err(at_url)?;
        while greeting.pongs < 1 {
            greeting.read_some(&mut stream, &mut reader, url)?;
        }
        if !subscriptions.is_empty() {
            stream.write_all(subscriptions).map_err(at_url)?;
            stream.write_all(b"PING\r\n").map_err(at_url)?;
            while greeting.pongs < 2 {
                greeting.read_some(&mut stream, &mut reader, url)?;
            }
        }
        stream.set_nonblocking(true).map_err(at_url)?;
        Ok(Link { stream, reader, out: Vec::new(), out_at: 0, writable: true })
    }

    /// Whether output waits to be written.
    pub(crate) fn has_output(&self) -> bool {
        self.out_at < self.out.len()
    }

    /// Bytes of output that wait.
    pub(crate) fn output_bytes(&self) -> usize {
        self.out.len() - self.out_at
    }

    /// Writes waiting output as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Outcome<()> {
        while self.writable && self.has_output() {
            match self.stream.write(&self.out[self.out_at..]) {
                Ok(count) => self.out_at += count,
                Err(error) => self.write_blocked(error)?,
            }
        }
        if !self.has_output() {
            self.out.clear();
            self.out_at = 0;
        } else if self.out_at > COMPACT_BYTES && self.out_at > self.out.len() / 2 {
            self.out.drain(..self.out_at);
            self.out_at = 0;
        }
        Ok(())
    }

    /// One write of several slices; 0 if the socket would block.
    pub(crate) fn write_slices(&mut self, slices: &[IoSlice<'_>]) -> Outcome<usize> {
        match self.stream.write_vectored(slices) {
            Ok(count) => Ok(count),
            Err(error) => {
                self.write_blocked(error)?;
                Ok(0)
            }
        }
    }

    fn write_blocked(&mut self, error: io::Error) -> Outcome<()> {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.writable = false;
                Ok(())
            }
            io::ErrorKind::Interrupted => Ok(()),
            // The server's last words explain more than "broken pipe"; they come with the next read.
            _ if self.has_last_words() => {
                self.writable = false;
                Ok(())
            }
            _ => Err(Failure::new(format!("the server closed a connection ({error})"))),
        }
    }

    fn has_last_words(&self) -> bool {
        matches!(self.stream.peek(&mut [0; 1]), Ok(1..))
    }

    /// One read; `None` when nothing is there. The end of the stream is a failure.
    pub(crate) fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Outcome<Option<usize>> {
        match stream.read(buffer) {
            Ok(0) => Err(Failure::new("the server closed a connection")),
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(Failure::new(format!("the server closed a connection ({error})"))),
        }
    }
}

/// What has been received while logging in.
#[derive(Default)]
struct Greeting {
    info: bool,
    tls_required: bool,
    pongs: u32,
}

impl Greeting {
    fn read_some(&mut self, stream: &mut TcpStream, reader: &mut FrameReader, url: &ServerUrl) -> Outcome<()> {
        let mut buffer = [0; 4096];
        let count = match stream.read(&mut buffer) {
            Ok(0) => {
                return Err(Failure::new(format!("{url} closed the connection during login")));
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Failure::new(format!("{url} does not answer")));
            }
            Err(error) => return Err(Failure::new(format!("{url}: {error}"))),
        };
        let mut ping = false;
        reader.feed(&buffer[..count], &mut |found| {
            // Messages may arrive on a subject that others publish to; counting starts later.
            let Frames::Line(line) = found else {
                return Ok(());
            };
            if let Some(info) = line.strip_prefix(b"INFO ") {
                self.info = true;
                let info: serde_json::Value =
                    serde_json::from_slice(info).map_err(|error| Failure::new(format!("{url}: bad INFO: {error}")))?;
                self.tls_required |= info["tls_required"] == true;
            }
            match control(line).map_err(|failure| Failure::new(format!("{url}: {failure}")))? {
                Control::Ping => ping = true,
                Control::Pong => self.pongs += 1,
                Control::Nothing => {}
            }
            Ok(())
        })?;
        if ping {
            stream.write_all(b"PONG\r\n").map_err(Failure::during(url))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_lines() {
        assert_eq!(control(b"PING").ok(), Some(Control::Ping));
        assert_eq!(control(b"PONG").ok(), Some(Control::Pong));
        assert_eq!(control(b"INFO {}").ok(), Some(Control::Nothing));
        assert_eq!(control(b"+OK").ok(), Some(Control::Nothing));
        assert!(control(b"-ERR 'Slow Consumer'").is_err());
        assert!(control(b"BLAH").is_err());
    }

    #[test]
    fn login_goes_into_connect() {
        let line = |url: &str| String::from_utf8(connect_line(&url.parse().expect("a valid url"))).expect("UTF-8");
        assert!(line("nats://a:b@h").contains("\"user\":\"a\""));
        assert!(line("nats://tok@h").contains("\"auth_token\":\"tok\""));
        assert!(!line("nats://h").contains("pass"));
    }
}
