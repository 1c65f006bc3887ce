//! Protocol traces (`-V`): `<<- [PUB foo 5]`, `->> [MSG foo 1 5]`, `<-> [DELSUB 1]`. Passwords, tokens and signatures are
//! not shown, payloads up to `max_traced_msg_len`.

use super::conn::{Conn, Sub};
use crate::logging::traced_bytes_max;
use crate::wire::connect;
use crate::wire::errors::Quoted;
use crate::wire::message::Message;
use crate::wire::parser::Command;

/// What a client sent. `+OK`, `INFO` and `-ERR` do nothing that a trace could explain, and the last is an error line.
#[cold]
pub(super) fn command(conn: &Conn, command: &Command<'_>) {
    let line = match command {
        Command::Publish(publish) => {
            let (header_text, size_text) = publish.size_text;
            let verb: &[u8] = if header_text.is_empty() { b"PUB" } else { b"HPUB" };
            joined(&[verb, publish.subject, publish.reply, header_text, size_text])
        }
        Command::Subscribe { subject, queue, sid } => joined(&[b"SUB", subject, queue.unwrap_or_default(), sid]),
        Command::Unsubscribe { sid, max: 0 } => joined(&[b"UNSUB", sid]),
        Command::Unsubscribe { sid, max } => joined(&[b"UNSUB", sid, max.to_string().as_bytes()]),
        Command::Ping => "PING".to_owned(),
        Command::Pong => "PONG".to_owned(),
        Command::Connect(json) => {
            let document = connect::redacted(json);
            format!("CONNECT {}", document.unwrap_or_else(|| format!("(malformed, {} bytes)", json.len())))
        }
        Command::Ok | Command::Info(_) | Command::Error(_) => return,
    };
    tracing::trace!("{} - <<- [{line}]", conn.label());
    if let Command::Publish(publish) = command {
        payload(conn, "<<-", &publish.body[..publish.size()]);
    }
}

/// A message written to a client.
#[cold]
pub(super) fn delivery(conn: &Conn, sub: &Sub, message: &Message<'_>) {
    let body = &message.body()[..message.size()];
    let (head, shown) = if message.header_bytes == 0 || conn.options.headers {
        let verb = if message.header_bytes == 0 { "MSG" } else { "HMSG" };
        let arguments = String::from_utf8_lossy(message.arguments().trim_ascii()).into_owned();
        (format!("{verb} {} {arguments}", joined(&[message.subject, &sub.sid])), body)
    } else {
        let rest = &body[message.header_bytes..];
        let size = rest.len().to_string();
        (joined(&[b"MSG", message.subject, &sub.sid, message.reply(), size.as_bytes()]), rest)
    };
    tracing::trace!("{} - ->> [{head}]", conn.label());
    payload(conn, "->>", shown);
}

/// A subscription that is gone, for whatever reason.
#[cold]
pub(super) fn removal(conn: &Conn, sub: &Sub) {
    tracing::trace!("{} - <-> [DELSUB {}]", conn.label(), String::from_utf8_lossy(&sub.sid));
}

/// Protocol text sent to a client. INFO is not shown: each has it and it says nothing about the client.
#[cold]
pub(super) fn text(conn: &Conn, text: &[u8]) {
    let text = String::from_utf8_lossy(text.trim_ascii_end());
    let shown = match text.split_once(' ') {
        Some(("INFO", _)) => return,
        Some(("-ERR", quoted)) => format!("-ERR {}", quoted.trim_matches('\'')),
        _ => text.trim_start_matches('+').to_owned(),
    };
    tracing::trace!("{} - ->> [{shown}]", conn.label());
}

fn payload(conn: &Conn, arrow: &str, payload: &[u8]) {
    if !payload.is_empty() {
        tracing::trace!("{} - {arrow} MSG_PAYLOAD: [{}]", conn.label(), shown(payload, traced_bytes_max()));
    }
}

/// A payload in quotes, of which a longer one than `max` bytes is cut.
fn shown(payload: &[u8], max: usize) -> String {
    match payload.get(..max) {
        Some(start) if start.len() < payload.len() => Quoted(&[start, b"..."].concat()).to_string(),
        _ => Quoted(payload).to_string(),
    }
}

/// Parts that are not empty, with blanks between them.
fn joined(parts: &[&[u8]]) -> String {
    let parts: Vec<_> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    String::from_utf8_lossy(&parts.join(&b' ')).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cut goes by bytes, as the reference's, even through a character.
    #[test]
    fn long_payloads_are_cut() {
        let cases: [(&[u8], usize, &str); 6] = [
            (b"hello", usize::MAX, r#""hello""#),
            (b"hello", 5, r#""hello""#),
            (b"hello world", 5, r#""hello...""#),
            (b"NATS/1.0\r\n\r\nhi", 9, r#""NATS/1.0\r...""#),
            ("h\u{e9}llo".as_bytes(), 2, r#""h\xc3...""#),
            (b"\0\"", 1, r#""\x00...""#),
        ];
        for (payload, max, text) in cases {
            assert_eq!(shown(payload, max), text);
        }
    }
}
