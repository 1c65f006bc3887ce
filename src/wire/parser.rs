//! Parses what a client sends.
//!
//! The parser has no state of its own: [`parse`] looks at a buffer that begins at a command and either yields
//! the command, asks for more bytes, or names the error. A command that is incomplete is parsed again from its
//! first byte when more has arrived, so any split of the input gives the same commands as the whole input
//! (property-tested below). A fast path recognises the canonical `PUB subject size\r\n`.

use std::ops::Range;

use memchr::memchr;

/// Limits that the parser enforces before it asks for more bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest argument part of a line in bytes, line end excluded (`max_control_line`).
    pub control_line_max: usize,
    /// Largest payload in bytes, headers included (`max_payload`).
    pub payload_max: usize,
    /// Whether the client negotiated headers; HPUB is an argument error without.
    pub headers: bool,
}

/// What [`parse`] found at the start of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A whole command, and how many bytes it took.
    Done(Command<'a>, usize),
    /// The command is not complete.
    More(More),
}

/// What is missing of an incomplete command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum More {
    /// The line has not ended yet.
    Line,
    /// Nor has this one, but what follows its verb means nothing, has no limit, and need not be kept.
    Ignored {
        /// Bytes that the rest of the line is to be parsed behind.
        verb_bytes: usize,
    },
    /// The line of a publish is complete, its payload is not.
    Payload {
        /// Bytes of the whole command: line, payload and line end.
        command_bytes: usize,
        /// Bytes of the line, its end included.
        line_bytes: usize,
    },
}

/// A command of a client. Borrows from the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `CONNECT {json}`.
    Connect(&'a [u8]),
    /// `PUB` or `HPUB`.
    Publish(Publish<'a>),
    /// `SUB subject [queue] sid`.
    Subscribe {
        /// Subject, not yet validated.
        subject: &'a [u8],
        /// Queue group.
        queue: Option<&'a [u8]>,
        /// Subscription id.
        sid: &'a [u8],
    },
    /// `UNSUB sid [max]`.
    Unsubscribe {
        /// Subscription id.
        sid: &'a [u8],
        /// Limit; 0 when absent or not a number, which both mean: remove now.
        max: u64,
    },
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
    /// `+OK`, ignored.
    Ok,
    /// `INFO {json}`, parsed and ignored.
    Info(&'a [u8]),
    /// `-ERR text`: the client gives up.
    Error(&'a [u8]),
}

/// A publish. All slices borrow from the input.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Subject, not validated.
    pub subject: &'a [u8],
    /// Reply subject; empty if there is none.
    pub reply: &'a [u8],
    /// Header bytes at the start of the payload; 0 for PUB.
    pub header_bytes: usize,
    /// The sizes as the client wrote them, to be forwarded verbatim: header size (empty for PUB), total size.
    pub size_text: (&'a [u8], &'a [u8]),
    /// Payload with headers, followed by CR LF.
    pub body: &'a [u8],
    /// Everything behind the subject (` [reply] sizes\r\n` and `body`) if it can go to subscribers as it is.
    pub tail: Option<&'a [u8]>,
}

impl Publish<'_> {
    /// Payload bytes, headers included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len() - 2
    }
}

/// Why the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not a command: `-ERR 'Unknown Protocol Operation'`.
    UnknownOperation,
    /// Wrong arguments of a known command: closed without a word.
    Arguments,
    /// The line is too long: `-ERR 'maximum control line exceeded'`.
    ControlLine,
    /// The payload is too large: `-ERR 'Maximum Payload Violation'`.
    Payload,
}

/// Parses one command at the start of `buf`.
///
/// # Errors
/// See [`ParseError`]; the rest of the input is meaningless after one.
#[inline]
pub fn parse<'a>(buf: &'a [u8], limits: &Limits) -> Result<Step<'a>, ParseError> {
    if let Some(canonical) = parse_canonical_pub(buf, limits) {
        let used = canonical.bytes.len();
        return Ok(Step::Done(Command::Publish(canonical.into()), used));
    }
    if buf.is_empty() {
        return Ok(Step::More(More::Line));
    }
    parse_slow(buf, limits)
}

/// A PUB that can be forwarded as it came: the usual publish, kept small for the hot path.
#[derive(Clone, Copy, Debug)]
pub struct CanonicalPub<'a> {
    /// The whole command.
    bytes: &'a [u8],
    subject_end: usize,
    reply_bytes: usize,
    body_start: usize,
}

impl<'a> CanonicalPub<'a> {
    /// Subject, not validated.
    #[inline]
    #[must_use]
    pub fn subject(&self) -> &'a [u8] {
        &self.bytes[4..self.subject_end]
    }

    /// Reply subject; empty if there is none.
    #[inline]
    #[must_use]
    pub fn reply(&self) -> &'a [u8] {
        if self.reply_bytes == 0 { &[] } else { &self.bytes[self.subject_end + 1..][..self.reply_bytes] }
    }

    /// ` [reply] size\r\n`, payload and CR LF.
    #[inline]
    #[must_use]
    pub fn tail(&self) -> &'a [u8] {
        &self.bytes[self.subject_end..]
    }

    /// Bytes of ` [reply] size\r\n`.
    #[inline]
    #[must_use]
    pub fn argument_bytes(&self) -> usize {
        self.body_start - self.subject_end
    }

    /// Bytes of the command.
    #[inline]
    #[must_use]
    pub fn command_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> From<CanonicalPub<'a>> for Publish<'a> {
    #[inline]
    fn from(canonical: CanonicalPub<'a>) -> Self {
        Self {
            subject: canonical.subject(),
            reply: canonical.reply(),
            header_bytes: 0,
            size_text: (&[], {
                let reply = if canonical.reply_bytes == 0 { 0 } else { canonical.reply_bytes + 1 };
                &canonical.bytes[canonical.subject_end + 1 + reply..canonical.body_start - 2]
            }),
            body: &canonical.bytes[canonical.body_start..],
            tail: Some(canonical.tail()),
        }
    }
}

/// `PUB subject [reply] size\r\n` with single blanks and a payload that is already here. Anything else: `None`.
#[inline(always)]
pub fn parse_canonical_pub<'a>(buf: &'a [u8], limits: &Limits) -> Option<CanonicalPub<'a>> {
    if buf.len() < 12 || buf[..4] != *b"PUB " {
        return None;
    }
    let line_max = buf.len().min(limits.control_line_max + 4);
    let mut at = 4;
    while at < line_max && buf[at] > b' ' {
        at += 1;
    }
    if at >= line_max || buf[at] != b' ' || at == 4 {
        return None;
    }
    let subject_end = at;
    let mut reply_bytes = 0;
    let mut size_start = at + 1;
    let (mut size, mut digits) = leading_number(buf, size_start);
    if digits < line_max && buf[digits] != b'\r' {
        // Not a size: a reply, and the size behind it.
        at = digits;
        while at < line_max && buf[at] > b' ' {
            at += 1;
        }
        if at >= line_max || buf[at] != b' ' || at == size_start {
            return None;
        }
        reply_bytes = at - size_start;
        size_start = at + 1;
        (size, digits) = leading_number(buf, size_start);
    }
    let digit_count = digits - size_start;
    let body_start = digits + 2;
    if digit_count == 0 || digit_count > 9 || digits > limits.control_line_max + 4 || size > limits.payload_max {
        return None;
    }
    let end = body_start + size + 2;
    if buf.len() < end
        || buf[digits] != b'\r'
        || buf[digits + 1] != b'\n'
        || buf[end - 2] != b'\r'
        || buf[end - 1] != b'\n'
    {
        return None;
    }
    Some(CanonicalPub { bytes: &buf[..end], subject_end, reply_bytes, body_start })
}

/// The digits at `start` as a number (meaningless above nine digits), and where they end.
#[inline(always)]
fn leading_number(buf: &[u8], start: usize) -> (usize, usize) {
    let mut number = 0usize;
    let mut at = start;
    while let Some(&byte) = buf.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number.wrapping_mul(10).wrapping_add(usize::from(digit));
        at += 1;
    }
    (number, at)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Connect,
    Pub,
    Hpub,
    Sub,
    Unsub,
    Ping,
    Pong,
    Ok,
    Info,
    Err,
}

/// Verb, letters that spell it (lower case), and whether a blank must follow.
const VERBS: [(Verb, &[u8], bool); 10] = [
    (Verb::Pub, b"pub", true),
    (Verb::Ping, b"ping", false),
    (Verb::Pong, b"pong", false),
    (Verb::Sub, b"sub", true),
    (Verb::Hpub, b"hpub", true),
    (Verb::Unsub, b"unsub", true),
    (Verb::Connect, b"connect", false),
    (Verb::Info, b"info", false),
    (Verb::Ok, b"+ok", false),
    (Verb::Err, b"-err", true),
];

fn parse_slow<'a>(buf: &'a [u8], limits: &Limits) -> Result<Step<'a>, ParseError> {
    // The set of verbs that agree with what has arrived shrinks byte by byte; a first byte that fits none is an
    // error at once, without waiting for a line end.
    let mut found = None;
    let mut partial = false;
    let first = buf[0].to_ascii_lowercase();
    for (verb, letters, needs_blank) in VERBS {
        if letters[0] != first {
            continue;
        }
        let n = letters.len().min(buf.len());
        if buf[..n].iter().zip(letters).all(|(have, want)| have.to_ascii_lowercase() == *want) {
            if n == letters.len() {
                found = Some((verb, n, needs_blank));
            } else {
                partial = true;
            }
        }
    }
    let Some((verb, verb_bytes, needs_blank)) = found else {
        return if partial { Ok(Step::More(More::Line)) } else { Err(ParseError::UnknownOperation) };
    };
    let Some(&next) = buf.get(verb_bytes) else {
        return Ok(Step::More(More::Line));
    };
    if needs_blank && !is_blank(next) {
        return Err(ParseError::UnknownOperation);
    }
    let arg_start = verb_bytes + buf[verb_bytes..].iter().take_while(|byte| is_blank(**byte)).count();
    let line_feed = memchr(b'\n', &buf[arg_start..]).map(|n| arg_start + n);
    let arg_end = match line_feed {
        Some(at) if at > arg_start && buf[at - 1] == b'\r' => at - 1,
        Some(at) => at,
        None if buf.last() == Some(&b'\r') && buf.len() > arg_start => buf.len() - 1,
        None => buf.len(),
    };
    let is_ignored = matches!(verb, Verb::Ping | Verb::Pong | Verb::Ok);
    // Blanks before the arguments may not grow without bound either.
    let is_too_long = arg_end - arg_start > limits.control_line_max || arg_start > limits.control_line_max + verb_bytes;
    if is_too_long && !is_ignored {
        return Err(ParseError::ControlLine);
    }
    let Some(line_feed) = line_feed else {
        return Ok(Step::More(if is_ignored { More::Ignored { verb_bytes } } else { More::Line }));
    };
    let used = line_feed + 1;
    let line = &buf[arg_start..arg_end];
    let command = match verb {
        Verb::Ping => Command::Ping,
        Verb::Pong => Command::Pong,
        Verb::Ok => Command::Ok,
        Verb::Err => Command::Error(line),
        Verb::Info => Command::Info(line),
        Verb::Connect => Command::Connect(line),
        Verb::Sub => parse_sub(line)?,
        Verb::Unsub => parse_unsub(line)?,
        Verb::Pub | Verb::Hpub => {
            let line_range = arg_start..arg_end;
            return parse_publish(buf, line_range, used, verb == Verb::Hpub, limits);
        }
    };
    Ok(Step::Done(command, used))
}

fn parse_sub(line: &[u8]) -> Result<Command<'_>, ParseError> {
    let mut args = [&[][..]; 3];
    match split(line, &mut args)? {
        2 => Ok(Command::Subscribe { subject: args[0], queue: None, sid: args[1] }),
        3 => Ok(Command::Subscribe { subject: args[0], queue: Some(args[1]), sid: args[2] }),
        _ => Err(ParseError::Arguments),
    }
}

fn parse_unsub(line: &[u8]) -> Result<Command<'_>, ParseError> {
    let mut args = [&[][..]; 2];
    match split(line, &mut args)? {
        1 => Ok(Command::Unsubscribe { sid: args[0], max: 0 }),
        2 => Ok(Command::Unsubscribe { sid: args[0], max: number(args[1]).unwrap_or(0) as u64 }),
        _ => Err(ParseError::Arguments),
    }
}

fn parse_publish<'a>(
    buf: &'a [u8],
    line: Range<usize>,
    line_bytes: usize,
    with_headers: bool,
    limits: &Limits,
) -> Result<Step<'a>, ParseError> {
    if with_headers && !limits.headers {
        return Err(ParseError::Arguments);
    }
    let mut args = [&[][..]; 4];
    let count = split(&buf[line.clone()], &mut args)?;
    let sizes = if with_headers { 2 } else { 1 };
    let (subject, reply) = match count.checked_sub(sizes) {
        Some(1) => (args[0], &[][..]),
        Some(2) => (args[0], args[1]),
        _ => return Err(ParseError::Arguments),
    };
    let size_text = args[count - 1];
    let header_text = if with_headers { args[count - 2] } else { &[] };
    let size = number(size_text).ok_or(ParseError::Arguments)?;
    let header_bytes = if with_headers { number(header_text).ok_or(ParseError::Arguments)? } else { 0 };
    if header_bytes > size {
        return Err(ParseError::Arguments);
    }
    if size > limits.payload_max {
        return Err(ParseError::Payload);
    }
    let end = line_bytes + size;
    match (buf.get(end), buf.get(end + 1)) {
        (None, _) => {}
        (Some(b'\r'), Some(b'\n')) => {
            // Header size 0 means no header: delivered as MSG.
            let header_text = if header_bytes == 0 { &[] } else { header_text };
            let subject_end = line.start + subject.len();
            let arguments = args[1..count].iter().map(|arg| arg.len() + 1).sum::<usize>();
            let canonical = subject_end + arguments + 2 == line_bytes
                && buf[line_bytes - 2] == b'\r'
                && !buf[subject_end..line_bytes].contains(&b'\t')
                && header_text.is_empty() != with_headers;
            let publish = Publish {
                subject,
                reply,
                header_bytes,
                size_text: (header_text, size_text),
                body: &buf[line_bytes..end + 2],
                tail: canonical.then(|| &buf[subject_end..end + 2]),
            };
            return Ok(Step::Done(Command::Publish(publish), end + 2));
        }
        (Some(b'\r'), None) => {}
        _ => return Err(ParseError::UnknownOperation),
    }
    Ok(Step::More(More::Payload { command_bytes: end + 2, line_bytes }))
}

/// Splits arguments at blanks. More than fit, or a CR among them, is an argument error.
fn split<'a>(line: &'a [u8], args: &mut [&'a [u8]]) -> Result<usize, ParseError> {
    let mut count = 0;
    for arg in line.split(|byte| is_blank(*byte)).filter(|arg| !arg.is_empty()) {
        if count == args.len() || memchr(b'\r', arg).is_some() {
            return Err(ParseError::Arguments);
        }
        args[count] = arg;
        count += 1;
    }
    Ok(count)
}

/// 1 to 9 ASCII digits.
fn number(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    text.iter().try_fold(0usize, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + usize::from(byte - b'0')))
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
