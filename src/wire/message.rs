//! A message on its way to subscribers, and how it is written for one of them.
//!
//! `MSG subject sid[ reply] size\r\npayload\r\n`: everything behind the sid is the same for all subscribers of
//! a message, and usually byte for byte what the publisher sent behind the subject. So it is kept as one
//! *tail* and a delivery is three copies.

use bytes::Bytes;

/// Where the bytes behind the sid are.
#[derive(Clone, Copy, Debug)]
pub enum Tail<'a> {
    /// Arguments and body side by side.
    Joined(&'a [u8]),
    /// A large body in a shared block, which subscribers reference instead of copying.
    Shared {
        /// ` [reply] sizes\r\n`
        arguments: &'a [u8],
        /// Payload with headers, and CR LF.
        body: &'a Bytes,
    },
}

/// A message to deliver.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Subject as published.
    pub subject: &'a [u8],
    /// Bytes of the reply subject; 0 if there is none.
    pub reply_bytes: usize,
    /// Header bytes at the start of the payload; 0 if there are none.
    pub header_bytes: usize,
    /// Bytes of ` [reply] sizes\r\n`.
    pub argument_bytes: usize,
    /// The bytes behind the sid.
    pub tail: Tail<'a>,
}

impl<'a> Message<'a> {
    /// Reply subject; empty if there is none.
    #[must_use]
    pub fn reply(&self) -> &'a [u8] {
        if self.reply_bytes == 0 { &[] } else { &self.arguments()[1..=self.reply_bytes] }
    }

    /// ` [reply] sizes\r\n`
    #[must_use]
    pub fn arguments(&self) -> &'a [u8] {
        match self.tail {
            Tail::Joined(tail) => &tail[..self.argument_bytes],
            Tail::Shared { arguments, .. } => arguments,
        }
    }

    /// Payload with headers, and CR LF.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        match self.tail {
            Tail::Joined(tail) => &tail[self.argument_bytes..],
            Tail::Shared { body, .. } => body,
        }
    }

    /// Payload bytes, headers included.
    #[must_use]
    pub fn size(&self) -> usize {
        let body = match self.tail {
            Tail::Joined(tail) => tail.len() - self.argument_bytes,
            Tail::Shared { body, .. } => body.len(),
        };
        body - 2
    }

    /// What stands beside the shared body, if there is one, behind the sid.
    #[inline]
    #[must_use]
    pub fn inline_tail(&self) -> &'a [u8] {
        match self.tail {
            Tail::Joined(tail) => tail,
            Tail::Shared { arguments, .. } => arguments,
        }
    }

    fn verb(&self) -> &'static [u8] {
        if self.header_bytes == 0 { b"MSG " } else { b"HMSG " }
    }

    /// Bytes that [`Message::write`] appends.
    #[inline]
    #[must_use]
    pub fn written_bytes(&self, sid: &[u8]) -> usize {
        self.verb().len() + self.subject.len() + 1 + sid.len() + self.inline_tail().len()
    }

    /// Appends the message as subscription `sid` gets it, all but a shared body.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>, sid: &[u8]) {
        out.extend_from_slice(self.verb());
        out.extend_from_slice(self.subject);
        out.push(b' ');
        out.extend_from_slice(sid);
        out.extend_from_slice(self.inline_tail());
    }
}

/// Writes ` [reply] [header size] size\r\n` behind `out`.
pub fn push_arguments(out: &mut Vec<u8>, reply: &[u8], header_text: &[u8], size_text: &[u8]) {
    for part in [reply, header_text, size_text] {
        if !part.is_empty() {
            out.push(b' ');
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The status 503 that answers a request without responders, as arguments and body behind `MSG reply sid`:
/// `(header_bytes, argument_bytes)`.
pub fn push_no_responders(out: &mut Vec<u8>, subject: &[u8]) -> (usize, usize) {
    const FIXED: &[u8] = b"NATS/1.0 503\r\nNats-Subject: ";
    let header_bytes = FIXED.len() + subject.len() + 4;
    let start = out.len();
    let mut digits = itoa::Buffer::new();
    let text = digits.format(header_bytes).as_bytes();
    push_arguments(out, &[], text, text);
    let argument_bytes = out.len() - start;
    out.extend_from_slice(FIXED);
    out.extend_from_slice(subject);
    out.extend_from_slice(b"\r\n\r\n\r\n");
    (header_bytes, argument_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_responders_is_what_the_reference_sends() {
        let mut out = b"HMSG _INBOX.z 9".to_vec();
        let (header_bytes, _) = push_no_responders(&mut out, b"nobody");
        assert_eq!(header_bytes, 38);
        assert_eq!(out, b"HMSG _INBOX.z 9 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n");
    }

    #[test]
    fn reply_is_found_in_the_arguments() {
        let tail = b" inbox.1 2\r\nhi\r\n";
        let message =
            Message { subject: b"a", reply_bytes: 7, header_bytes: 0, argument_bytes: 12, tail: Tail::Joined(tail) };
        assert_eq!(message.reply(), b"inbox.1");
        assert_eq!(message.body(), b"hi\r\n");
        assert_eq!(message.size(), 2);
    }
}
