//! The `-ERR` texts and close reasons that clients and monitoring see, as the reference server writes them.

use std::fmt;

/// Why a connection is closed: the `-ERR` text, if the client is told, and the reason shown by `/connz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed its end.
    ClientClosed,
    /// Bytes that are no command.
    UnknownOperation,
    /// Wrong arguments of a known command.
    ParseError,
    /// The client sent `-ERR`.
    ClientError,
    /// Failed login.
    AuthorizationViolation,
    /// No CONNECT in time.
    AuthenticationTimeout,
    /// Pings were not answered.
    StaleConnection,
    /// Announced payload above `max_payload`.
    MaximumPayload,
    /// Control line above `max_control_line`.
    MaximumControlLine,
    /// `max_connections` reached.
    MaximumConnections,
    /// `max_connections` of the account reached.
    MaximumAccountConnections,
    /// More subscriptions than are allowed since a reload, or none allowed at all.
    MaximumSubscriptions,
    /// `protocol` of CONNECT is neither 0 nor 1.
    InvalidProtocol,
    /// `no_responders` without `headers`.
    NoRespondersRequiresHeaders,
    /// More than `max_pending` bytes are queued.
    SlowConsumerPending,
    /// A write did not finish within `write_deadline`.
    SlowConsumerDeadline,
    /// The socket failed while reading.
    ReadError,
    /// The socket failed while writing.
    WriteError,
    /// Too many TLS handshakes lately.
    ConnectionThrottled,
    /// The TLS handshake failed or took too long.
    TlsHandshakeFailure,
    /// The server stops.
    ServerShutdown,
    /// Its user has left the configuration, or belongs to another account.
    UserGone,
    /// The token that let it in has lost its force.
    Lapsed(Lapse),
}

/// How the token of a user loses its force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// The time of the user is over.
    User,
    /// The time of the account is over.
    Account,
    /// The account has taken it back.
    Revoked,
    /// The account does not know its signer any more, or lets the signer's users do something else.
    Signer,
}

impl CloseReason {
    /// The text between the quotes of `-ERR '…'`; `None` where the reference closes silently.
    #[must_use]
    pub fn error_text(self) -> Option<&'static str> {
        match self {
            Self::UnknownOperation => Some("Unknown Protocol Operation"),
            Self::AuthorizationViolation => Some("Authorization Violation"),
            Self::AuthenticationTimeout => Some("Authentication Timeout"),
            Self::StaleConnection => Some("Stale Connection"),
            Self::MaximumPayload => Some("Maximum Payload Violation"),
            Self::MaximumControlLine => Some("maximum control line exceeded"),
            Self::MaximumConnections => Some("maximum connections exceeded"),
            Self::MaximumAccountConnections => Some("maximum account active connections exceeded"),
            Self::MaximumSubscriptions => Some("maximum subscriptions exceeded"),
            Self::InvalidProtocol => Some("invalid client protocol"),
            Self::ConnectionThrottled => Some("Connection throttling is active. Please try again later."),
            Self::NoRespondersRequiresHeaders => Some("no responders requires headers support"),
            Self::Lapsed(Lapse::User) => Some("User Authentication Expired"),
            Self::Lapsed(Lapse::Account) => Some("Account Authentication Expired"),
            Self::Lapsed(Lapse::Revoked) => Some("User Authentication Revoked"),
            _ => None,
        }
    }

    /// The reason as `/connz?state=closed` shows it.
    #[must_use]
    pub fn monitor_text(self) -> &'static str {
        match self {
            Self::ClientClosed | Self::UserGone => "Client Closed",
            Self::UnknownOperation | Self::ParseError => "Protocol Violation",
            Self::ClientError => "Parse Error",
            Self::AuthorizationViolation | Self::Lapsed(Lapse::Signer) => "Authentication Failure",
            Self::Lapsed(Lapse::User | Lapse::Account) => "Authentication Expired",
            Self::Lapsed(Lapse::Revoked) => "Credentials Revoked",
            Self::AuthenticationTimeout => "Authentication Timeout",
            Self::StaleConnection => "Stale Connection",
            Self::MaximumPayload => "Maximum Message Payload Exceeded",
            Self::MaximumControlLine => "Maximum Control Line Exceeded",
            Self::MaximumConnections | Self::ConnectionThrottled => "Maximum Connections Exceeded",
            Self::MaximumAccountConnections => "Maximum Account Connections Exceeded",
            Self::MaximumSubscriptions => "Maximum Subscriptions Exceeded",
            Self::InvalidProtocol => "Bad Client Protocol Version",
            Self::NoRespondersRequiresHeaders => "No Responders Requires Headers",
            Self::SlowConsumerPending => "Slow Consumer (Pending Bytes)",
            Self::SlowConsumerDeadline => "Slow Consumer (Write Deadline)",
            Self::ReadError => "Read Error",
            Self::WriteError => "Write Error",
            Self::TlsHandshakeFailure => "TLS Handshake Failure",
            Self::ServerShutdown => "Server Shutdown",
        }
    }

    /// Whether queued output is still worth sending before the socket is closed.
    #[must_use]
    pub fn flushes(self) -> bool {
        !matches!(
            self,
            Self::SlowConsumerPending
                | Self::SlowConsumerDeadline
                | Self::ReadError
                | Self::WriteError
                | Self::TlsHandshakeFailure
        )
    }
}

/// Errors after which the connection stays open.
#[derive(Clone, Copy, Debug)]
pub enum Violation<'a> {
    /// SUB of an invalid subject.
    InvalidSubject,
    /// PUB of an invalid subject by a pedantic client.
    InvalidPublishSubject,
    /// `max_subscriptions` reached.
    MaximumSubscriptions,
    /// Publishing on this subject is not allowed.
    Publish(&'a [u8]),
    /// This reply subject is reserved.
    PublishReply(&'a [u8]),
    /// Subscribing is not allowed.
    Subscribe(&'a [u8]),
    /// Subscribing with this queue group is not allowed.
    SubscribeQueue(&'a [u8], &'a [u8]),
    /// Subscribing to a subject with more tokens than `max_sub_tokens`.
    SubscribeTokens(&'a [u8]),
    /// A subscription, of a queue group perhaps, with this sid is not allowed any more.
    SubscriptionRevoked(&'a [u8], Option<&'a [u8]>, &'a [u8]),
}

impl fmt::Display for Violation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidSubject => f.write_str("Invalid Subject"),
            Self::InvalidPublishSubject => f.write_str("Invalid Publish Subject"),
            Self::MaximumSubscriptions => f.write_str("maximum subscriptions exceeded"),
            Self::Publish(subject) => write!(f, "Permissions Violation for Publish to {}", Quoted(subject)),
            Self::PublishReply(reply) => {
                write!(f, "Permissions Violation for Publish with Reply of {}", Quoted(reply))
            }
            Self::Subscribe(subject) => write!(f, "Permissions Violation for Subscription to {}", Quoted(subject)),
            Self::SubscribeQueue(subject, queue) => {
                write!(f, "Permissions Violation for Subscription to {} using queue {}", Quoted(subject), Quoted(queue))
            }
            Self::SubscribeTokens(subject) => write!(f, "{}, too many tokens", Self::Subscribe(subject)),
            Self::SubscriptionRevoked(subject, queue, sid) => {
                match queue {
                    Some(queue) => Self::SubscribeQueue(subject, queue).fmt(f)?,
                    None => Self::Subscribe(subject).fmt(f)?,
                }
                write!(f, " (sid {})", Quoted(sid))
            }
        }
    }
}

/// Text in double quotes with the escapes of Go's `%q`.
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' => f.write_str("\\\"")?,
                    '\\' => f.write_str("\\\\")?,
                    '\x07' => f.write_str("\\a")?,
                    '\x08' => f.write_str("\\b")?,
                    '\x0c' => f.write_str("\\f")?,
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    '\x0b' => f.write_str("\\v")?,
                    c if c.is_ascii_control() => write!(f, "\\x{:02x}", c as u32)?,
                    c if is_printable(c) => write!(f, "{c}")?,
                    c if c <= '\u{ffff}' => write!(f, "\\u{:04x}", c as u32)?,
                    c => write!(f, "\\U{:08x}", c as u32)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_str("\"")
    }
}

/// Whether a character is a letter, mark, number, punctuation, symbol or the blank, as Go's `IsPrint` has it.
fn is_printable(c: char) -> bool {
    // Rust's own escapes go by the same categories, but for quotes, and for marks that have nothing before them.
    let mut bytes = [b'x'; 5];
    let end = 1 + c.encode_utf8(&mut bytes[1..]).len();
    c == '\'' || std::str::from_utf8(&bytes[..end]).is_ok_and(|text| text.escape_debug().nth(1) != Some('\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_follows_go() {
        let cases: [(&[u8], &str); 9] = [
            ("\u{85} \u{2028}".as_bytes(), r#""\u0085 \u2028""#),
            ("\u{200b}\u{feff}\u{378}\u{e000}\u{e0001}".as_bytes(), r#""\u200b\ufeff\u0378\ue000\U000e0001""#),
            ("\u{ad}\u{a0}\u{3000}\u{10ffff}".as_bytes(), r#""\u00ad\u00a0\u3000\U0010ffff""#),
            (
                "e\u{301}\u{308} \u{1f600} \u{4e2d} \u{fffd}'".as_bytes(),
                "\"e\u{301}\u{308} \u{1f600} \u{4e2d} \u{fffd}'\"",
            ),
            (b"foo.bar", r#""foo.bar""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\x00\x07\x7f", r#""\x00\a\x7f""#),
            ("é".as_bytes(), "\"é\""),
            (b"\xff", r#""\xff""#),
        ];
        for (raw, quoted) in cases {
            assert_eq!(Quoted(raw).to_string(), quoted);
        }
    }

    #[test]
    fn violations_read_as_the_reference_writes_them() {
        assert_eq!(
            Violation::PublishReply(b"_R_.abc").to_string(),
            r#"Permissions Violation for Publish with Reply of "_R_.abc""#
        );
        assert_eq!(
            Violation::SubscribeQueue(b"foo", b"_sys_").to_string(),
            r#"Permissions Violation for Subscription to "foo" using queue "_sys_""#
        );
    }
}
