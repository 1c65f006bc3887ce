//! A client as a program: what it sends, when it waits, how it reads, and what it notes in the history.

use std::collections::VecDeque;

use super::access::{PASSWORD, Rights};
use super::history::{Delivery, History, Operation, PublishRecord, SubRecord};
use super::world::{Pipe, with};

/// What a client does next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// SUB with this sid.
    Sub { sid: u32, pattern: &'static str, queue: Option<&'static str> },
    /// UNSUB; with a limit if not 0.
    Unsub { sid: u32, max: u64 },
    /// PUB with a payload of at least so many bytes.
    Pub { subject: &'static str, bytes: usize },
    /// PUB with a reply subject.
    Request { subject: &'static str },
    /// PING.
    Ping,
    /// Waits for all PONGs.
    Sync,
    /// Waits until client `client` has come to its step `step`, or until nothing else happens.
    Wait { client: usize, step: usize },
    /// Waits until this client has read so many messages, or until nothing else happens.
    WaitMessages { count: usize },
    /// Waits until all shards have taken so many reloads.
    WaitReloads { count: usize },
    /// Closes the connection.
    Close,
}

/// What a client does when it reads a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reaction {
    /// Answers requests.
    Reply,
    /// Publishes on this subject, so many times in all.
    Relay { subject: &'static str, times: u32 },
}

/// A client to be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) shard: usize,
    /// Whom it logs in as, if it does.
    pub(super) user: Option<&'static str>,
    pub(super) echo: bool,
    /// Most bytes in its socket, each way.
    pub(super) pipe_bytes: usize,
    pub(super) steps: Vec<Step>,
    pub(super) reaction: Option<Reaction>,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    number: usize,
    plan: Plan,
    /// Index of the next step.
    pub(super) step: usize,
    pub(super) connected: bool,
    pub(super) closed: bool,
    /// Bytes to send.
    out: VecDeque<u8>,
    queued: u64,
    sent: u64,
    /// Operations that begin when so many bytes have been sent.
    beginning: VecDeque<(u64, Operation)>,
    /// PINGs without PONG: number of operations that each confirms.
    pings: VecDeque<usize>,
    /// Bytes read that make no whole line or message yet.
    input: Vec<u8>,
    messages: usize,
    relayed: u32,
}

/// Queued bytes above which a client takes no further step.
const OUT_BYTES: usize = 8 << 10;

impl Client {
    pub(super) fn new(number: usize, plan: Plan) -> Self {
        let mut client = Self {
            number,
            plan,
            step: 0,
            connected: false,
            closed: false,
            out: VecDeque::new(),
            queued: 0,
            sent: 0,
            beginning: VecDeque::new(),
            pings: VecDeque::new(),
            input: Vec::new(),
            messages: 0,
            relayed: 0,
        };
        let Plan { echo, user, .. } = client.plan;
        let login = user.map_or(String::new(), |user| format!(",\"user\":\"{user}\",\"pass\":\"{PASSWORD}\""));
        let options = "\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true";
        client.queue(&format!("CONNECT {{{options},\"echo\":{echo}{login}}}\r\n"));
        client
    }

    pub(super) fn shard(&self) -> usize {
        self.plan.shard
    }

    /// Whether PONGs are missing or bytes unsent.
    pub(super) fn is_unanswered(&self) -> bool {
        !self.closed && (!self.pings.is_empty() || !self.out.is_empty())
    }

    /// Whether all steps are done.
    pub(super) fn is_finished(&self) -> bool {
        self.closed || self.step >= self.plan.steps.len()
    }

    /// Whether the next step can be taken. `steps` says how far each client is, `reloads` how many are done.
    pub(super) fn can_step(&self, steps: &[usize], reloads: usize) -> bool {
        if self.is_finished() || !self.connected || self.out.len() > OUT_BYTES {
            return false;
        }
        match self.plan.steps[self.step] {
            Step::Sync => self.pings.is_empty(),
            Step::Wait { client, step } => steps[client] >= step,
            Step::WaitMessages { count } => self.messages >= count,
            Step::WaitReloads { count } => reloads >= count,
            Step::Close => self.out.is_empty(),
            _ => true,
        }
    }

    /// Whether the client stands at a wait that may be given up.
    pub(super) fn is_waiting(&self) -> bool {
        let next = self.plan.steps.get(self.step);
        !self.closed && matches!(next, Some(Step::Wait { .. } | Step::WaitMessages { .. }))
    }

    pub(super) fn can_send(&self) -> bool {
        self.connected && !self.closed && !self.out.is_empty() && {
            with(|world| {
                let pipe = &world.pipes[self.number];
                pipe.to_server.len() < pipe.capacity
            })
        }
    }

    pub(super) fn can_receive(&self) -> bool {
        let pipe_has_more = |pipe: &Pipe| !pipe.to_client.is_empty() || pipe.server_closed;
        !self.closed && with(|world| pipe_has_more(&world.pipes[self.number]))
    }

    fn queue(&mut self, text: &str) {
        self.out.extend(text.as_bytes());
        self.queued += text.len() as u64;
    }

    fn operate(&mut self, history: &mut History, text: &str, operation: Operation) {
        self.queue(text);
        self.beginning.push_back((self.queued, operation));
        history.deeds[self.number].operations.push(operation);
    }

    /// Takes the next step.
    pub(super) fn take_step(&mut self, history: &mut History) {
        let step = self.plan.steps[self.step].clone();
        self.step += 1;
        match step {
            Step::Sub { sid, pattern, queue } => {
                history.subs.push(SubRecord {
                    client: self.number,
                    sid,
                    pattern: pattern.to_owned(),
                    queue: queue.map(str::to_owned),
                    begun: None,
                    confirmed: None,
                    unsub_begun: None,
                    unsub_confirmed: None,
                    max: None,
                    max_confirmed: None,
                });
                let text = format!("SUB {pattern} {}{sid}\r\n", queue.map_or(String::new(), |name| format!("{name} ")));
                let sub = Operation::Sub(history.subs.len() - 1);
                self.operate(history, &text, sub);
            }
            Step::Unsub { sid, max } => {
                let sub = self.sub(history, sid);
                if max == 0 {
                    self.operate(history, &format!("UNSUB {sid}\r\n"), Operation::Unsub(sub));
                } else {
                    history.subs[sub].max = Some(max);
                    self.operate(history, &format!("UNSUB {sid} {max}\r\n"), Operation::Max(sub));
                }
            }
            Step::Pub { subject, bytes } => self.publish(history, subject, bytes, false),
            Step::Request { subject } => self.publish(history, subject, 0, true),
            Step::Ping => {
                self.queue("PING\r\n");
                self.pings.push_back(history.deeds[self.number].operations.len());
            }
            Step::Close => {
                self.closed = true;
                history.deeds[self.number].closed = Some(with(|world| {
                    world.pipes[self.number].client_closed = true;
                    world.bytes_came(self.number);
                    world.event(3)
                }));
            }
            Step::Sync | Step::Wait { .. } | Step::WaitMessages { .. } | Step::WaitReloads { .. } => {}
        }
    }

    fn sub(&self, history: &History, sid: u32) -> usize {
        let found = history.subs.iter().rposition(|sub| sub.client == self.number && sub.sid == sid);
        found.expect("a scenario ends only subscriptions that it has begun")
    }

    fn publish(&mut self, history: &mut History, subject: &str, bytes: usize, request: bool) {
        let id = history.publishes.len();
        let reply = if request { format!("_INBOX.{}.{id} ", self.number) } else { String::new() };
        self.publish_to(history, subject, &reply, bytes, request);
    }

    fn publish_to(&mut self, history: &mut History, subject: &str, reply: &str, bytes: usize, request: bool) {
        let id = history.publishes.len();
        history.publishes.push(PublishRecord {
            client: self.number,
            subject: subject.to_owned(),
            request,
            begun: None,
            known: None,
        });
        let payload = format!("{id:.<bytes$}");
        self.operate(
            history,
            &format!("PUB {subject} {reply}{}\r\n{payload}\r\n", payload.len()),
            Operation::Publish(id),
        );
    }

    /// Sends `bytes` of what is queued.
    pub(super) fn send(&mut self, history: &mut History) {
        let now = with(|world| {
            let (pipe, rng) = (&mut world.pipes[self.number], &mut world.rng);
            let most = self.out.len().min(pipe.capacity - pipe.to_server.len());
            let bytes = if rng.bool() { most } else { rng.usize(1..=most) };
            pipe.to_server.extend(self.out.drain(..bytes));
            self.sent += bytes as u64;
            world.bytes_came(self.number);
            world.event(4 << 32 | bytes as u64)
        });
        while let Some(&(at, operation)) = self.beginning.front()
            && at <= self.sent
        {
            self.beginning.pop_front();
            match operation {
                Operation::Sub(sub) => history.subs[sub].begun = Some(now),
                Operation::Unsub(sub) => history.subs[sub].unsub_begun = Some(now),
                Operation::Max(_) => {}
                Operation::Publish(id) => history.publishes[id].begun = Some(now),
            }
        }
    }

    /// Reads some bytes, or the end of them, and reacts.
    pub(super) fn receive(&mut self, history: &mut History) {
        if with(|world| world.pipes[self.number].to_client.is_empty()) {
            self.closed = true;
            let deeds = &mut history.deeds[self.number];
            deeds.expelled = Some(with(|world| world.event(7)));
            deeds.closed = deeds.expelled;
            return;
        }
        let now = with(|world| {
            let (pipe, rng) = (&mut world.pipes[self.number], &mut world.rng);
            let most = pipe.to_client.len();
            let bytes = if rng.bool() { most } else { rng.usize(1..=most) };
            self.input.extend(pipe.to_client.drain(..bytes));
            world.room_came(self.number);
            world.event(5 << 32 | bytes as u64)
        });
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(used) = self.read_unit(rest, now, history) {
            rest = &rest[used..];
        }
        self.input = rest.to_vec();
    }

    /// Reads one line or message; gives its length, or `None` if it is not whole.
    fn read_unit(&mut self, bytes: &[u8], now: u64, history: &mut History) -> Option<usize> {
        let line_end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = String::from_utf8_lossy(&bytes[..line_end]).into_owned();
        let words: Vec<&str> = line.split(' ').collect();
        let body_at = line_end + 2;
        match words[0] {
            "INFO" => {}
            "PING" => self.queue("PONG\r\n"),
            "PONG" => self.ponged(now, history),
            "MSG" | "HMSG" => {
                let size: usize = words.last().and_then(|word| word.parse().ok())?;
                if bytes.len() < body_at + size + 2 {
                    return None;
                }
                let body = &bytes[body_at..body_at + size];
                let arguments = words.len() - 3 - usize::from(words[0] == "HMSG");
                let reply = (arguments == 2).then(|| words[3]);
                self.message(words[1], words[2], reply, words[0] == "HMSG", body, now, history);
                return Some(body_at + size + 2);
            }
            _ => {
                if !self.is_refusal(&line, history) {
                    history.oddities.push(format!("client {} was sent {line:?}", self.number));
                }
            }
        }
        Some(body_at)
    }

    /// Notes that something was refused, if that is what the line says.
    fn is_refusal(&self, line: &str, history: &mut History) -> bool {
        let Some(error) = line.strip_prefix("-ERR '").and_then(|rest| rest.strip_suffix('\'')) else { return false };
        let deeds = &mut history.deeds[self.number];
        if error == "Authorization Violation" {
            return deeds.user.is_some();
        }
        let quoted: Vec<&str> = error.split('"').collect();
        match quoted[..] {
            ["Permissions Violation for Publish to ", subject, ""] => deeds.refused_publishes.push(subject.to_owned()),
            ["Permissions Violation for Subscription to ", _, " (sid ", sid, ")"] => {
                let Ok(sid) = sid.parse() else { return false };
                deeds.refused_subs.push((sid, true));
            }
            ["Permissions Violation for Subscription to ", pattern, ""] => {
                let mut own = history.subs.iter().filter(|sub| sub.client == self.number && sub.pattern == pattern);
                let Some(sub) = own.next_back() else { return false };
                deeds.refused_subs.push((sub.sid, false));
            }
            _ => return false,
        }
        true
    }

    fn ponged(&mut self, now: u64, history: &mut History) {
        let Some(upto) = self.pings.pop_front() else {
            history.oddities.push(format!("client {} was sent a PONG too many", self.number));
            return;
        };
        history.learn(self.number, upto, now);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a message")]
    fn message(
        &mut self,
        subject: &str,
        sid: &str,
        reply: Option<&str>,
        is_status: bool,
        body: &[u8],
        now: u64,
        history: &mut History,
    ) {
        let sid: u32 = sid.parse().unwrap_or(u32::MAX);
        let known = history.subs.iter().rposition(|sub| sub.client == self.number && sub.sid == sid);
        let Some(sub) = known else {
            history.oddities.push(format!("client {} was sent a message for unknown sid {sid}", self.number));
            return;
        };
        if is_status {
            match subject.rsplit('.').next().and_then(|id| id.parse().ok()) {
                Some(id) if body.starts_with(b"NATS/1.0 503") && id < history.publishes.len() => {
                    history.refused.push((id, sub))
                }
                _ => history.oddities.push(format!("client {} was sent an odd status on {subject}", self.number)),
            }
            return;
        }
        let digits: String = body.iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| *byte as char).collect();
        let id: usize = digits.parse().unwrap_or(usize::MAX);
        match history.publishes.get(id) {
            Some(publish) if Rights(history).subject_for(publish, self.number).as_deref() == Some(subject) => {
                history.learn_message(id, now);
            }
            _ => {
                history.oddities.push(format!("client {} was sent an unknown message {id} on {subject}", self.number));
                return;
            }
        }
        history.deliveries.push(Delivery { publish: id, client: self.number, sub, read: now });
        self.messages += 1;
        match (self.plan.reaction, reply) {
            (Some(Reaction::Reply), Some(reply)) => self.publish_to(history, reply, "", 0, false),
            (Some(Reaction::Relay { subject, times }), _) if self.relayed < times => {
                self.relayed += 1;
                self.publish(history, subject, 0, false);
            }
            _ => {}
        }
    }
}
