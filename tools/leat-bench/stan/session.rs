//! One client of the streaming service: its connection, its publishes under way and its subscriptions.

use std::collections::VecDeque;
use std::io::Write;

use crate::block::{STAMP_BYTES, payload, read_stamp, write_stamp};
use crate::client::{Control, Link, control};
use crate::failure::{Failure, Outcome};
use crate::frames::{Frames, Want, reply_of, subject_of, words};
use crate::stan::wire::{self, GUID_BYTES, Subjects};
use crate::units::ServerUrl;

/// Subscription ids; those from `FEED_SID` on are for channels.
const HEARTBEAT_SID: u64 = 1;
const ANSWER_SID: u64 = 2;
const PUBLISH_ACK_SID: u64 = 3;
const FEED_SID: u64 = 10;

/// What a client brings about while its bytes are read.
pub(crate) trait Observer {
    /// A publish is acknowledged that was due at this time.
    fn acknowledged(&mut self, due_ns: u64);
    /// A message is delivered for the first time; its stamp says when it was due.
    fn delivered(&mut self, due_ns: Option<u64>);
}

/// A registered client.
pub(crate) struct Session {
    /// Its connection.
    pub(crate) link: Link,
    /// Whether there may be bytes to read.
    pub(crate) readable: bool,
    id: String,
    token: String,
    subjects: Subjects,
    /// The frames of publishes, a channel each, and which comes next.
    frames: Vec<PublishFrame>,
    published: u64,
    acknowledged: u64,
    feeds: Vec<Feed>,
    /// The subscriptions that wait for their answer, which come in the order of the requests.
    unanswered: VecDeque<usize>,
    /// Answers to requests that have not been taken.
    answers: Vec<Vec<u8>>,
}

/// The bytes of a publish on the wire, to be patched.
struct PublishFrame {
    bytes: Vec<u8>,
    guid_at: usize,
    data_at: usize,
    stamped: bool,
}

/// A subscription to a channel.
pub(crate) struct Feed {
    channel: String,
    /// Where acknowledgements go; none before the answer.
    ack_inbox: String,
    acknowledges: bool,
    /// The last sequence that was delivered for the first time.
    last: u64,
    /// Messages delivered for the first time.
    pub(crate) received: u64,
    /// Messages that came again.
    pub(crate) redelivered: u64,
    /// First deliveries that were not the successor of the one before.
    pub(crate) gaps: u64,
    /// Messages that came before the answer to the subscription.
    pub(crate) early: u64,
}

impl Session {
    /// Connects to the server; the registration follows, see [`Session::connect_request`].
    pub(crate) fn open(url: &ServerUrl, id: &str) -> Outcome<Session> {
        let token = format!("{:016x}", fastrand::u64(..));
        let subscriptions = format!(
            "SUB _INBOX.{token}.hb {HEARTBEAT_SID}\r\nSUB _INBOX.{token}.r {ANSWER_SID}\r\n\
             SUB _STAN.acks.{token} {PUBLISH_ACK_SID}\r\n"
        );
        let link = Link::open(url, subscriptions.as_bytes(), Want::Whole)?;
        Ok(Session {
            link,
            readable: false,
            id: id.to_owned(),
            token,
            subjects: Subjects::default(),
            frames: Vec::new(),
            published: 0,
            acknowledged: 0,
            feeds: Vec::new(),
            unanswered: VecDeque::new(),
            answers: Vec::new(),
        })
    }

    /// The request to register.
    pub(crate) fn connect_request(&self) -> Vec<u8> {
        wire::connect_request(&self.id, &format!("_INBOX.{}.hb", self.token), &self.token)
    }

    /// Notes that the client is registered.
    pub(crate) fn registered(&mut self, subjects: Subjects) {
        self.subjects = subjects;
    }

    /// The subject and the payload of a request to end the registration.
    pub(crate) fn close_request(&self) -> (String, Vec<u8>) {
        (self.subjects.close.clone(), wire::close_request(&self.id))
    }

    /// Prepares to publish to these channels in turn, with a payload of this size.
    pub(crate) fn publishes(&mut self, channels: &[String], size: usize) {
        let data = payload(size);
        self.frames.clear();
        for channel in channels {
            let template = wire::publish_template(&self.id, &self.token, channel, &data);
            let (prefix, length) = (&self.subjects.publish_prefix, template.bytes.len());
            let mut bytes = format!("PUB {prefix}.{channel} _STAN.acks.{} {length}\r\n", self.token).into_bytes();
            let head = bytes.len();
            bytes.extend_from_slice(&template.bytes);
            bytes.extend_from_slice(b"\r\n");
            self.frames.push(PublishFrame {
                bytes,
                guid_at: head + template.guid_at,
                data_at: head + template.data_at,
                stamped: size >= STAMP_BYTES,
            });
        }
    }

    /// Puts one more publish, due at this time, to the output.
    pub(crate) fn publish(&mut self, due_ns: u64) {
        let frame = &self.frames[(self.published % self.frames.len() as u64) as usize];
        let start = self.link.out.len();
        self.link.out.extend_from_slice(&frame.bytes);
        let bytes = &mut self.link.out[start..];
        wire::write_guid(&mut bytes[frame.guid_at..frame.guid_at + GUID_BYTES], due_ns, self.published);
        if frame.stamped {
            write_stamp(&mut bytes[frame.data_at..], due_ns, self.published);
        }
        self.published += 1;
    }

    /// Publishes sent so far.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// Publishes without an acknowledgement.
    pub(crate) fn outstanding(&self) -> u64 {
        self.published.saturating_sub(self.acknowledged)
    }

    /// Acknowledgements beyond what was published.
    pub(crate) fn surplus(&self) -> u64 {
        self.acknowledged.saturating_sub(self.published)
    }

    /// Begins a subscription: a SUB goes to the output, and the request that completes it is returned, with its
    /// subject.
    pub(crate) fn subscribe(&mut self, wanted: &Wanted<'_>) -> (String, Vec<u8>) {
        let sid = FEED_SID + self.feeds.len() as u64;
        let inbox = format!("_INBOX.{}.s.{sid}", self.token);
        // Writing to a Vec cannot fail.
        let _ = write!(self.link.out, "SUB {inbox} {sid}\r\n");
        self.unanswered.push_back(self.feeds.len());
        self.feeds.push(Feed {
            channel: wanted.channel.to_owned(),
            ack_inbox: String::new(),
            acknowledges: wanted.acknowledges,
            last: 0,
            received: 0,
            redelivered: 0,
            gaps: 0,
            early: 0,
        });
        let request = wire::subscription_request(&wire::Subscription {
            client_id: &self.id,
            channel: wanted.channel,
            queue: wanted.queue,
            inbox: &inbox,
            durable: wanted.durable,
            max_in_flight: wanted.max_in_flight,
            ack_wait: wanted.ack_wait,
            start: wanted.start,
        });
        (self.subjects.subscribe.clone(), request)
    }

    /// The subscriptions.
    pub(crate) fn feeds(&self) -> &[Feed] {
        &self.feeds
    }

    /// Puts a request to the output.
    pub(crate) fn ask(&mut self, subject: &str, payload: &[u8]) {
        let _ = write!(self.link.out, "PUB {subject} _INBOX.{}.r {}\r\n", self.token, payload.len());
        self.link.out.extend_from_slice(payload);
        self.link.out.extend_from_slice(b"\r\n");
    }

    /// Takes the answers that have come, oldest first.
    pub(crate) fn take_answers(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.answers)
    }

    /// Handles bytes that have been read.
    pub(crate) fn feed(&mut self, bytes: &[u8], observer: &mut impl Observer) -> Outcome<()> {
        let Session { link, acknowledged, feeds, unanswered, answers, .. } = self;
        let Link { reader, out, .. } = link;
        reader.feed(bytes, &mut |found| {
            let (head, body) = match found {
                Frames::Line(line) => {
                    if control(line)? == Control::Ping {
                        out.extend_from_slice(b"PONG\r\n");
                    }
                    return Ok(());
                }
                Frames::Message { head, body } => (head, body),
                Frames::Run { .. } => return Err(Failure::new("messages were counted that should be read")),
            };
            if head.starts_with(b"HMSG") {
                let subject = String::from_utf8_lossy(subject_of(head)).into_owned();
                return Err(Failure::new(format!(
                    "no streaming service answers (a message with headers on {subject})"
                )));
            }
            match sid_of(head) {
                Some(PUBLISH_ACK_SID) => {
                    let guid = wire::publish_ack(body)?;
                    let due_ns = wire::read_guid(guid);
                    *acknowledged += 1;
                    observer.acknowledged(due_ns.ok_or_else(|| Failure::new("an acknowledgement of something else"))?);
                }
                Some(HEARTBEAT_SID) => {
                    if let Some(reply) = reply_of(head) {
                        out.extend_from_slice(b"PUB ");
                        out.extend_from_slice(reply);
                        out.extend_from_slice(b" 0\r\n\r\n");
                    }
                }
                Some(ANSWER_SID) => {
                    if let Some(at) = unanswered.pop_front() {
                        feeds[at].ack_inbox = wire::subscription_response(body)?;
                    }
                    answers.push(body.to_vec());
                }
                Some(sid) => {
                    let feed = sid.checked_sub(FEED_SID).and_then(|at| feeds.get_mut(usize::try_from(at).ok()?));
                    feed.ok_or_else(|| Failure::new("a message without a subscription"))?.take(body, out, observer)?;
                }
                None => return Err(Failure::new("a message without a subscription")),
            }
            Ok(())
        })
    }
}

/// A subscription as a mode wants it.
pub(crate) struct Wanted<'a> {
    pub(crate) channel: &'a str,
    pub(crate) queue: &'a str,
    pub(crate) durable: &'a str,
    pub(crate) max_in_flight: u32,
    /// Seconds.
    pub(crate) ack_wait: u32,
    pub(crate) start: wire::Start,
    pub(crate) acknowledges: bool,
}

impl Feed {
    fn take(&mut self, body: &[u8], out: &mut Vec<u8>, observer: &mut impl Observer) -> Outcome<()> {
        let message = wire::delivery(body)?;
        if self.ack_inbox.is_empty() {
            self.early += 1;
        }
        if message.redelivered {
            self.redelivered += 1;
        } else {
            self.gaps += u64::from(self.received > 0 && message.sequence != self.last + 1);
            self.last = message.sequence;
            self.received += 1;
            observer.delivered(read_stamp(message.data).map(|(due_ns, _)| due_ns));
        }
        if self.acknowledges && !self.ack_inbox.is_empty() {
            let length = wire::ack_bytes(&self.channel, message.sequence);
            // Writing to a Vec cannot fail.
            let _ = write!(out, "PUB {} {length}\r\n", self.ack_inbox);
            wire::write_ack(out, &self.channel, message.sequence);
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// The last sequence that was delivered for the first time.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }
}

/// The subscription id of a message line.
fn sid_of(head: &[u8]) -> Option<u64> {
    std::str::from_utf8(words(head).nth(2)?).ok()?.parse().ok()
}
