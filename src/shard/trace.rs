//! Protocol traces (`-V`): `<<- [PUB foo 5]`, `->> [MSG foo 1 5]`. Passwords, tokens and signatures are not shown.

use super::conn::{Conn, Sub};
use crate::wire::message::Message;
use crate::wire::parser::Command;

/// What a client sent.
#[cold]
pub(super) fn command(conn: &Conn, command: &Command<'_>) {
    let label = conn.label();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let joined = |parts: &[&[u8]]| {
        let parts: Vec<_> = parts.iter().filter(|part| !part.is_empty()).map(|part| text(part)).collect();
        parts.join(" ")
    };
    match command {
        Command::Publish(publish) => {
            let (header_text, size_text) = publish.size_text;
            let verb: &[u8] = if header_text.is_empty() { b"PUB" } else { b"HPUB" };
            let line = joined(&[verb, publish.subject, publish.reply, header_text, size_text]);
            tracing::trace!("{label} - <<- [{line}]");
            let payload = text(&publish.body[publish.header_bytes..publish.size()]);
            tracing::trace!("{label} - <<- MSG_PAYLOAD: [{payload:?}]");
        }
        Command::Subscribe { subject, queue, sid } => {
            let line = joined(&[b"SUB", subject, queue.unwrap_or_default(), sid]);
            tracing::trace!("{label} - <<- [{line}]");
        }
        Command::Unsubscribe { sid, max } => {
            let max = if *max == 0 { String::new() } else { max.to_string() };
            let line = joined(&[b"UNSUB", sid, max.as_bytes()]);
            tracing::trace!("{label} - <<- [{line}]");
        }
        Command::Ping => tracing::trace!("{label} - <<- [PING]"),
        Command::Pong => tracing::trace!("{label} - <<- [PONG]"),
        Command::Ok => tracing::trace!("{label} - <<- [+OK]"),
        Command::Info(_) => tracing::trace!("{label} - <<- [INFO]"),
        Command::Error(message) => tracing::trace!("{label} - <<- [-ERR {}]", text(message)),
        Command::Connect(json) => tracing::trace!("{label} - <<- [CONNECT {}]", redacted(json)),
    }
}

/// A message written to a client.
#[cold]
pub(super) fn delivery(conn: &Conn, sub: &Sub, message: &Message<'_>) {
    let verb = if message.header_bytes == 0 { "MSG" } else { "HMSG" };
    let arguments = String::from_utf8_lossy(message.arguments()).into_owned();
    tracing::trace!(
        "{} - ->> [{verb} {} {}{}]",
        conn.label(),
        String::from_utf8_lossy(message.subject),
        String::from_utf8_lossy(&sub.sid),
        arguments.trim_end()
    );
    let payload = &message.body()[message.header_bytes..message.size()];
    tracing::trace!("{} - ->> MSG_PAYLOAD: [{:?}]", conn.label(), String::from_utf8_lossy(payload));
}

/// Protocol text sent to a client.
#[cold]
pub(super) fn text(conn: &Conn, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let text = match text.trim_end().split_once(" '") {
        Some((verb, quoted)) if verb == "-ERR" => format!("{verb} {}", quoted.trim_end_matches('\'')),
        _ => text.trim_end().to_owned(),
    };
    tracing::trace!("{} - ->> [{text}]", conn.label());
}

/// CONNECT without its secrets.
fn redacted(json: &[u8]) -> String {
    let Ok(serde_json::Value::Object(mut members)) = serde_json::from_slice(json) else {
        return "malformed".to_owned();
    };
    for (key, value) in &mut members {
        if ["pass", "auth_token", "sig", "jwt", "nkey"].contains(&key.to_ascii_lowercase().as_str()) {
            *value = "[REDACTED]".into();
        }
    }
    serde_json::Value::Object(members).to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn secrets_do_not_reach_the_log() {
        let line = super::redacted(br#"{"user":"derek","pass":"s3cr3t","Auth_Token":"t0k"}"#);
        assert!(line.contains("derek") && !line.contains("s3cr3t") && !line.contains("t0k"), "{line}");
    }
}
