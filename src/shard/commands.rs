//! What a client asks for.

use bytes::Bytes;

use super::conn::Sub;
use super::deliver::count_publish;
use super::io::Io;
use super::permission::Permission;
use super::{Shard, trace};
use crate::auth::Receives;
use crate::subject;
use crate::wire::connect;
use crate::wire::errors::{CloseReason, Violation};
use crate::wire::message::{Message, Tail, push_arguments};
use crate::wire::parser::{Command, Publish};

/// Longest queue group name; ring items give its length 16 bits.
const QUEUE_NAME_MAX: usize = u16::MAX as usize;
/// Queue group name that the reference reserves.
const RESERVED_QUEUE: &[u8] = b"_sys_";

impl Shard {
    /// Executes one command. `block` is the block that it borrows from, if that can be shared. `true` if the
    /// connection's options may have changed or it may be closing.
    #[inline]
    pub(super) fn execute<I: Io>(
        &mut self,
        io: &mut I,
        slot: u32,
        command: Command<'_>,
        block: Option<&Bytes>,
    ) -> bool {
        if self.local.traces {
            trace::command(&self.local.conns[slot as usize], &command);
        }
        match command {
            Command::Publish(publish) => {
                self.publish_command(io, slot, &publish, block);
                false
            }
            Command::Ping => {
                self.pong(slot);
                false
            }
            other => {
                self.execute_rare(io, slot, other);
                true
            }
        }
    }

    fn execute_rare<I: Io>(&mut self, io: &mut I, slot: u32, command: Command<'_>) {
        if let Command::Subscribe { .. } | Command::Unsubscribe { .. } | Command::Connect(_) = command {
            self.local.conns[slot as usize].last_activity = self.now;
        }
        match command {
            Command::Subscribe { subject, queue, sid } => self.subscribe(slot, subject, queue, sid),
            Command::Unsubscribe { sid, max } => self.unsubscribe(slot, sid, max),
            Command::Pong => {
                let conn = &mut self.local.conns[slot as usize];
                if conn.pings.outstanding > 0 {
                    conn.pings.rtt = (self.now - conn.pings.sent_at).max(1);
                }
                conn.pings.outstanding = 0;
            }
            Command::Connect(json) => self.connect(io, slot, json),
            Command::Info(json) => {
                if !connect::is_object(json) {
                    self.close(io, slot, CloseReason::ParseError);
                }
            }
            Command::Error(text) => {
                let label = self.local.conns[slot as usize].label();
                tracing::error!("{label} - Client Error {}", String::from_utf8_lossy(text));
                self.close(io, slot, CloseReason::ClientError);
            }
            Command::Ok | Command::Publish(_) | Command::Ping => {}
        }
    }

    #[inline]
    fn publish_command<I: Io>(&mut self, io: &mut I, slot: u32, publish: &Publish<'_>, block: Option<&Bytes>) {
        let conn = &self.local.conns[slot as usize];
        let (account, options, mut rules) = (conn.account, conn.options, conn.rules());
        if options.pedantic && !subject::is_valid_literal(publish.subject) {
            self.violation(slot, &Violation::InvalidPublishSubject);
        }
        let mapped = if self.accounts[account as usize].maps { self.map(account, publish.subject) } else { None };
        // What a mapping makes of the subject is what has to be allowed.
        let subject = mapped.as_deref().unwrap_or(publish.subject);
        if may_be_reserved(subject) || may_be_reserved(publish.reply) {
            let is_system = self.config.directory.accounts()[account as usize].is_system;
            if is_reserved_subject(subject, is_system) {
                return self.violation(slot, &Violation::Publish(subject));
            }
            if is_reserved_reply(publish.reply) {
                return self.violation(slot, &Violation::PublishReply(publish.reply));
            }
        }
        if rules.is_some() && (options.pedantic || options.verbose) {
            // What these are told depends on whether they may.
            if self.permission(slot, subject) == Permission::Denied {
                let conn = &mut self.local.conns[slot as usize];
                return count_publish(conn, &mut self.local.counters, publish.size(), self.now);
            }
            rules = None;
        }
        if options.verbose {
            self.say(slot, b"+OK\r\n");
        }
        let (header_text, size_text) = publish.size_text;
        let shared;
        let mut rebuilt = Vec::new();
        let (argument_bytes, tail) = match (block, publish.tail) {
            (Some(block), _) => {
                rebuilt = std::mem::take(&mut self.rebuilt);
                rebuilt.clear();
                push_arguments(&mut rebuilt, publish.reply, header_text, size_text);
                shared = block.slice_ref(publish.body);
                (rebuilt.len(), Tail::Shared { arguments: &rebuilt, body: &shared })
            }
            (None, Some(tail)) => (tail.len() - publish.body.len(), Tail::Joined(tail)),
            (None, None) => {
                rebuilt = std::mem::take(&mut self.rebuilt);
                rebuilt.clear();
                push_arguments(&mut rebuilt, publish.reply, header_text, size_text);
                let argument_bytes = rebuilt.len();
                rebuilt.extend_from_slice(publish.body);
                (argument_bytes, Tail::Joined(&rebuilt[..]))
            }
        };
        let message = Message {
            subject,
            reply_bytes: publish.reply.len(),
            header_bytes: publish.header_bytes,
            argument_bytes,
            tail,
        };
        self.publish(io, slot, &message, rules);
        if rebuilt.capacity() > 0 {
            self.rebuilt = rebuilt;
        }
    }

    fn subscribe(&mut self, slot: u32, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        let conn = &self.local.conns[slot as usize];
        if let Some(queue) = queue
            && (queue == RESERVED_QUEUE || queue.len() > QUEUE_NAME_MAX)
        {
            return self.violation(slot, &Violation::SubscribeQueue(subject, queue));
        }
        let receives = match &conn.permits {
            None => Receives::All,
            Some(permits) => match (permits.rules().may_subscribe(subject, queue, &mut self.local.looks), queue) {
                (Some(receives), _) => receives,
                (None, None) => return self.violation(slot, &Violation::Subscribe(subject)),
                (None, Some(queue)) => return self.violation(slot, &Violation::SubscribeQueue(subject, queue)),
            },
        };
        if self.config.max_sub_tokens.is_some_and(|max| subject::tokens(subject).count() > max) {
            return self.violation(slot, &Violation::SubscribeTokens(subject));
        }
        if self.max_subs(slot).is_some_and(|max| conn.subs.len() >= max) {
            return self.violation(slot, &Violation::MaximumSubscriptions);
        }
        let account = conn.account as usize;
        // A sid in use keeps its subscription, and nobody looks at the new subject.
        if self.local.find_sub(slot, sid).is_none() {
            if !subject::is_valid_subscription(subject) {
                return self.violation(slot, &Violation::InvalidSubject);
            }
            let sub = Sub {
                conn: slot,
                sid: sid.into(),
                subject: subject.into(),
                queue: queue.map(Into::into),
                is_filtered: receives == Receives::Some,
                delivered: 0,
                max: u64::MAX,
            };
            let sub_slot = self.local.insert_sub(sub);
            self.accounts[account].subscribe(subject, queue, sub_slot);
            self.feed_all(slot);
        }
        self.confirm(slot);
    }

    /// The server's limit, or the account's or the user's if that is lower.
    fn max_subs(&self, slot: u32) -> Option<usize> {
        let conn = &self.local.conns[slot as usize];
        let account = self.config.directory.accounts()[conn.account as usize].limits.max_subscriptions;
        [self.config.max_subscriptions, account, conn.basis.limits().max_subscriptions].into_iter().flatten().min()
    }

    /// Whether the client has more subscriptions than it may, or may have none at all: the reference has no room for it
    /// then. (It also closes those who have as many as they may, whenever accounts are read anew.)
    pub(super) fn has_too_many_subs(&self, slot: u32) -> bool {
        let count = self.local.conns[slot as usize].subs.len();
        self.max_subs(slot).is_some_and(|max| count > max || max == 0)
    }

    fn unsubscribe(&mut self, slot: u32, sid: &[u8], max: u64) {
        if let Some(sub_slot) = self.local.find_sub(slot, sid) {
            let sub = &mut self.local.subs[sub_slot as usize];
            if max > sub.delivered {
                sub.max = max;
            } else {
                self.remove_sub(sub_slot);
            }
            self.feed_all(slot);
        }
        self.confirm(slot);
    }

    /// Interest of this connection changes on every shard: its output follows that news.
    pub(super) fn feed_all(&mut self, slot: u32) {
        if self.peers.is_empty() {
            return;
        }
        let conn = &mut self.local.conns[slot as usize];
        let fresh = self.peers.all() & !conn.fed;
        conn.fed |= fresh;
        self.peers.feed(fresh, (slot, conn.cid));
    }

    /// Removes subscriptions that have had their last message.
    pub(super) fn remove_finished(&mut self) {
        for sub_slot in std::mem::take(&mut self.local.finished) {
            let sub = &self.local.subs[sub_slot as usize];
            tracing::debug!(
                "{} - Auto-unsubscribe limit of {} reached for sid '{}'",
                self.local.conns[sub.conn as usize].label(),
                sub.max,
                String::from_utf8_lossy(&sub.sid)
            );
            self.remove_sub(sub_slot);
        }
    }

    pub(super) fn remove_sub(&mut self, sub_slot: u32) {
        let sub = self.local.remove_sub(sub_slot);
        let conn = &self.local.conns[sub.conn as usize];
        if self.local.traces {
            trace::removal(conn, &sub);
        }
        let account = conn.account;
        self.accounts[account as usize].unsubscribe(&sub.subject, sub.queue.as_deref(), sub_slot);
    }

    pub(super) fn remove_all_subs(&mut self, slot: u32) {
        let mut subs: Vec<u32> = self.local.conns[slot as usize].subs.iter().copied().collect();
        // The order of a hash table differs from run to run, and a simulated run must not.
        subs.sort_unstable();
        for sub_slot in subs {
            self.remove_sub(sub_slot);
        }
    }

    fn pong(&mut self, slot: u32) {
        self.say(slot, b"PONG\r\n");
        let conn = &mut self.local.conns[slot as usize];
        conn.ponged |= conn.pings.started;
        if std::mem::take(&mut conn.owes_info) {
            let line = self.info_line(slot, true);
            self.say(slot, &line);
        }
    }

    /// `+OK` to a verbose client.
    pub(super) fn confirm(&mut self, slot: u32) {
        if self.local.conns[slot as usize].options.verbose {
            self.say(slot, b"+OK\r\n");
        }
    }

    pub(super) fn violation(&mut self, slot: u32, violation: &Violation<'_>) {
        // A misspelt subject harms nobody but the client, who is told.
        if !matches!(violation, Violation::InvalidSubject | Violation::InvalidPublishSubject) {
            tracing::error!("{} - {violation}", self.local.conns[slot as usize].label());
        }
        self.say(slot, format!("-ERR '{violation}'\r\n").as_bytes());
    }

    /// Queues protocol text for a client.
    pub(super) fn say(&mut self, slot: u32, text: &[u8]) {
        let conn = &mut self.local.conns[slot as usize];
        conn.out.write(&mut self.local.buffers, text);
        if !conn.dirty {
            conn.dirty = true;
            self.local.dirty.push(slot);
        }
        if self.local.traces {
            trace::text(conn, text);
        }
        // A client that only asks and never reads is bounded like any other.
        if conn.out.pending() > self.local.pending_max {
            self.local.large.push(slot);
        }
    }
}

impl super::Local {
    fn find_sub(&self, slot: u32, sid: &[u8]) -> Option<u32> {
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, sid);
        let subs = &self.conns[slot as usize].subs;
        subs.find(hash, |sub| *self.subs[*sub as usize].sid == *sid).copied()
    }

    fn insert_sub(&mut self, sub: Sub) -> u32 {
        let (slot, hash) = (sub.conn, std::hash::BuildHasher::hash_one(&self.hasher, &*sub.sid));
        let sub_slot = self.subs.insert(sub) as u32;
        let (subs, hasher) = (&self.subs, &self.hasher);
        let rehash = |sub: &u32| std::hash::BuildHasher::hash_one(hasher, &*subs[*sub as usize].sid);
        self.conns[slot as usize].subs.insert_unique(hash, sub_slot, rehash);
        self.counters.subscriptions += 1;
        sub_slot
    }

    fn remove_sub(&mut self, sub_slot: u32) -> Sub {
        let sub = self.subs.remove(sub_slot as usize);
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, &*sub.sid);
        if let Ok(entry) = self.conns[sub.conn as usize].subs.find_entry(hash, |known| *known == sub_slot) {
            entry.remove();
        }
        self.counters.subscriptions -= 1;
        sub
    }
}

/// Quick filter for reserved names, which begin with `$`, `_R` or `_G`.
#[inline(always)]
pub(super) fn may_be_reserved(subject: &[u8]) -> bool {
    matches!(subject, [b'$', ..] | [b'_', b'R' | b'G', ..])
}

/// Reply subjects that clients may not use: servers answer on them.
fn is_reserved_reply(reply: &[u8]) -> bool {
    [&b"_R_."[..], b"_GR_.", b"$GR.", b"$JS.ACK."].iter().any(|prefix| reply.starts_with(prefix))
}

/// Subjects that clients may not publish to: servers talk to each other there, some of it in the system account.
fn is_reserved_subject(subject: &[u8], is_system: bool) -> bool {
    subject.starts_with(b"_GR_.") || subject.starts_with(b"$GR.") || (!is_system && subject.starts_with(b"$NRG."))
}
