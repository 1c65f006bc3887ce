//! The turn.
//!
//! A turn ends in this order: interest to all peers, message batches to all peers, doorbells, socket writes. No byte
//! leaves a socket earlier, nor while anything of this shard waits for room in a ring, so what a client sees was caused
//! by something that every other shard can see too (*rings before sockets*). After every receive and before the
//! received bytes are parsed, the shard notes how far its message rings are filled, applies all interest that has
//! arrived, handles the messages up to there, and only then parses (*receive, look, parse*): whatever the sender of
//! those bytes may have known has then been handled here.
//!
//! Where a service lives in the shard, it is told what has come for it after all connections and rings have been
//! handled, and before anything leaves (`hosted`).

use std::io::IoSlice;

use bytes::BytesMut;

use super::Shard;
use super::commands::may_be_reserved;
use super::conn::{Input, Stage};
use super::io::{Io, Recv, Sent};
use super::outbound::SEGMENTS_PER_WRITE;
use super::peers::Fate;
use super::reload;
use super::rules::{Rule, broken};
use super::timers::Timer;
use crate::auth::PermissionsId;
use crate::wire::errors::CloseReason;
use crate::wire::message::{Message, Tail};
use crate::wire::parser::{CanonicalPub, Limits, More, ParseError, Step, parse, parse_canonical_pub};

/// Most bytes read from one connection in a turn: 16–64 KiB measured best.
const READ_BYTES: usize = 64 << 10;
/// Reads of a turn, shared by the ready connections, each of which gets at least one. More than one where few are
/// ready: the more a turn takes in, the fewer and larger are its writes.
const READS_PER_TURN: usize = 4;
/// Most bytes read into a block of a large message in a turn.
const BLOCK_READ_BYTES: usize = 256 << 10;
/// A command of more bytes than this gets a block of its own when it does not arrive at once.
const BLOCK_BYTES_MIN: usize = if cfg!(test) { 256 } else { 16 << 10 };
/// First read of a connection whose last message was large: enough for the line, little to copy.
const LINE_READ_BYTES: usize = if cfg!(test) { 64 } else { 4 << 10 };
/// Largest block kept for reuse.
const SPARE_BLOCK_BYTES_MAX: usize = 1 << 20;
/// A buffer serves again for a partial command if it is not larger than four times the need, or than this.
const SPARE_PARTIAL_BYTES: usize = 4 << 10;
/// Output that one read should cause at most, bytes: reads shrink when fan-out makes more of it, or verdicts about many
/// subjects take as long.
const OUTPUT_PER_READ: u64 = 8 << 20;
/// What a delivery writes beside the payload, about.
const MESSAGE_OVERHEAD: u64 = 24;
/// A rule of permissions that is looked at for a verdict takes as long as so many bytes of output, about.
const LOOK_BYTES: u64 = 64;
/// First read of a connection with permissions: how long verdicts take is not known yet.
pub(super) const RULED_READ_BYTES: u32 = 8 << 10;
/// Smallest read under fan-out.
const READ_BYTES_MIN: u32 = 2 << 10;
/// For so long after a pause at a stall gate a publisher is read little by little, nanoseconds.
const GATED_TIME: u64 = 20_000_000;
/// How much at once, and how long it takes at most for another shard to say that the gate is still up.
const GATED_READ_BYTES: u32 = 16 << 10;
const GATED_PAUSE: u64 = 1_000_000;
/// Buffers for reuse are freed when the shard has had nothing to do for this long, nanoseconds.
const TRIM_AFTER: u64 = 5_000_000_000;

/// What one read of a connection has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// Nothing more to read.
    All,
    /// There may be more.
    More,
    /// There may be more, but this has caused enough output for one turn.
    Enough,
}

/// What the driver does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to do: another turn, after a look at the poller.
    Again,
    /// Nothing to do unless the driver is woken.
    Sleep {
        /// Wake at this time, nanoseconds; `None` = no timer.
        deadline: Option<u64>,
        /// The turn had something to do.
        worked: bool,
    },
}

impl Shard {
    /// One turn. `woken` are the connections that became readable or writable since the last one.
    pub fn turn<I: Io>(&mut self, io: &mut I, woken: &mut Vec<u32>) -> Next {
        self.now = io.now();
        self.local.now = self.now;
        for slot in woken.drain(..) {
            self.make_ready(slot);
        }
        let had_work = !self.ready.is_empty();
        self.begin_service_turn(io);
        self.run_timers(io);
        let looked = self.look(io);
        self.finish_logins(io);
        let mut serving = std::mem::take(&mut self.serving);
        std::mem::swap(&mut self.ready, &mut serving);
        let reads = (READS_PER_TURN / serving.len().max(1)).max(1);
        for slot in serving.drain(..) {
            self.serve(io, slot, reads);
        }
        self.serving = serving;
        let served = self.run_service(io);
        self.finish(io);
        let worked = had_work || looked || served;
        if worked {
            self.busy_at = self.now;
            self.is_trimmed = false;
        }
        if !self.ready.is_empty() || self.peers.has_input() || self.service_goes_on() {
            return Next::Again;
        }
        Next::Sleep { deadline: self.next_deadline(), worked }
    }

    /// To be called between announcing sleep and sleeping: `true` if there is something to do after all.
    pub fn recheck<I: Io>(&mut self, io: &mut I) -> bool {
        if broken(Rule::NoRecheck) {
            return false;
        }
        if self.peers.is_spilled() {
            self.settle(io);
            // A peer that sleeps must hear of whatever found room just now: it was not there when this turn rang.
            let moved = !broken(Rule::SilentRecheck) && self.peers.ring(io);
            let may_speak = !self.must_keep_silent() && !self.local.dirty.is_empty();
            if moved || may_speak || !self.ready.is_empty() {
                return true;
            }
        }
        self.peers.has_input()
    }

    fn next_deadline(&self) -> Option<u64> {
        let trim = self.keeps_buffers().then_some(self.busy_at + TRIM_AFTER);
        [self.timers.next(), trim, self.service_due_at()].into_iter().flatten().min()
    }

    /// Whether there may be buffers for reuse. Timers write too, without making the shard busy.
    fn keeps_buffers(&self) -> bool {
        !self.is_trimmed || self.local.buffers.bytes() > 0
    }

    pub(super) fn make_ready(&mut self, slot: u32) {
        if let Some(conn) = self.local.conns.get_mut(slot as usize)
            && !conn.ready
        {
            conn.ready = true;
            self.ready.push(slot);
        }
    }

    /// Handles what other shards have sent so far. `true` if there was something.
    pub(super) fn look<I: Io>(&mut self, io: &mut I) -> bool {
        if self.peers.is_empty() || broken(Rule::NoInputWhileSpilled) && self.peers.is_spilled() {
            return false;
        }
        if broken(Rule::InterestBeforeNote) {
            self.take_interest();
        }
        if !self.peers.note(io) {
            return false;
        }
        if !broken(Rule::InterestBeforeNote) {
            self.take_interest();
        }
        self.take_messages(io);
        true
    }

    /// The look between receiving and parsing.
    fn look_before_parsing<I: Io>(&mut self, io: &mut I) {
        if broken(Rule::NoInterestInLook) {
            if self.peers.note(io) {
                self.take_messages(io);
            }
        } else if !broken(Rule::ParseBeforeLook) {
            self.look(io);
        }
    }

    fn take_interest(&mut self) {
        let accounts = &mut self.accounts;
        self.peers.take_interest(|pos, account, old, new, key| {
            reload::know_account(accounts, account, true);
            accounts[account as usize].peer_interest(pos, key, old, new);
        });
    }

    fn take_messages<I: Io>(&mut self, io: &mut I) {
        while let Some((pos, batch)) = self.peers.next_batch() {
            self.receive(io, pos, &batch);
            self.peers.finish_batch(pos, batch);
        }
    }

    /// Reads one ready connection up to `reads` times, and writes if there is room again.
    fn serve<I: Io>(&mut self, io: &mut I, slot: u32, reads: usize) {
        let Some(conn) = self.local.conns.get_mut(slot as usize) else { return };
        conn.ready = false;
        if conn.blocked && !conn.dirty {
            conn.dirty = true;
            self.local.dirty.push(slot);
        }
        if let Some(undecided) = &conn.undecided
            && io.has_ended(slot)
        {
            undecided.presence.set_leaving();
        }
        for _ in 0..reads {
            let Some(conn) = self.local.conns.get_mut(slot as usize) else { return };
            if conn.closing.is_some()
                || conn.stage == Stage::Undecided
                || conn.held != 0
                || conn.stall != 0
                || self.now < conn.stalled_until
            {
                return;
            }
            let is_gated = self.now < conn.gated_until;
            match self.serve_once(io, slot) {
                _ if is_gated => return self.pause(slot, GATED_PAUSE),
                Served::All => return,
                Served::Enough => break,
                Served::More => {}
            }
        }
        self.make_ready(slot);
    }

    /// One read.
    fn serve_once<I: Io>(&mut self, io: &mut I, slot: u32) -> Served {
        let (before, looks) = (self.local.counters, self.local.looks);
        let conn = &mut self.local.conns[slot as usize];
        let more = match std::mem::take(&mut conn.input) {
            Input::Block { block, filled, want } => self.read_block(io, slot, block, filled, want),
            Input::Empty => self.read(io, slot, Vec::new()),
            Input::Partial(kept) => self.read(io, slot, kept),
        };
        let after = &self.local.counters;
        let caused = after.out_bytes - before.out_bytes
            + MESSAGE_OVERHEAD * (after.out_msgs - before.out_msgs)
            + LOOK_BYTES * (self.local.looks - looks);
        self.adapt_read(slot, caused);
        match more {
            false => Served::All,
            true if caused > OUTPUT_PER_READ / 4 => Served::Enough,
            true => Served::More,
        }
    }

    /// Reads into the shard's buffer behind the bytes kept from last time. `true` if there may be more to read.
    fn read<I: Io>(&mut self, io: &mut I, slot: u32, mut kept: Vec<u8>) -> bool {
        let conn = &mut self.local.conns[slot as usize];
        let wish = if conn.expects_block { LINE_READ_BYTES } else { READ_BYTES.min(conn.read_bytes as usize) };
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let room = kept.len() + wish;
        if buffer.len() < room {
            buffer.resize(room.max(READ_BYTES + BLOCK_BYTES_MIN), 0);
        }
        buffer[..kept.len()].copy_from_slice(&kept);
        let received = io.recv(slot, &mut buffer[kept.len()..room]);
        let more = match received {
            Recv::Data { bytes, more } => {
                self.look_before_parsing(io);
                self.note_input(slot);
                let all = &buffer[..kept.len() + bytes];
                if kept.capacity() > 0 {
                    kept.clear();
                    self.spare_partial = kept;
                }
                let used = self.run(io, slot, all);
                self.keep(slot, all, used);
                more
            }
            other => {
                self.local.conns[slot as usize].input =
                    if kept.is_empty() { Input::Empty } else { Input::Partial(kept) };
                self.input_ended(io, slot, other);
                false
            }
        };
        self.read_buffer = buffer;
        more
    }

    fn note_input(&mut self, slot: u32) {
        if let Some(conn) = self.local.conns.get_mut(slot as usize) {
            conn.last_input = self.now;
        }
    }

    fn input_ended<I: Io>(&mut self, io: &mut I, slot: u32, received: Recv) {
        match received {
            Recv::End => self.close(io, slot, CloseReason::ClientClosed),
            Recv::Failed => self.close(io, slot, CloseReason::ReadError),
            Recv::Nothing | Recv::Data { .. } => {}
        }
    }

    /// Reads on into the block of a large message.
    fn read_block<I: Io>(
        &mut self,
        io: &mut I,
        slot: u32,
        mut block: BytesMut,
        mut filled: usize,
        want: usize,
    ) -> bool {
        // Grown as bytes arrive: an announced size alone costs no memory.
        let end = want.min(filled + BLOCK_READ_BYTES).min((2 * filled).max(BLOCK_READ_BYTES));
        if block.len() < end {
            block.resize(end, 0);
        }
        let received = io.recv(slot, &mut block[filled..end]);
        let Recv::Data { bytes, more } = received else {
            self.local.conns[slot as usize].input = Input::Block { block, filled, want };
            self.input_ended(io, slot, received);
            return false;
        };
        self.look_before_parsing(io);
        self.note_input(slot);
        filled += bytes;
        if filled < want {
            if let Some(conn) = self.local.conns.get_mut(slot as usize) {
                conn.input = Input::Block { block, filled, want };
            }
            return more;
        }
        block.truncate(want);
        let whole = block.freeze();
        self.run_shared(io, slot, &whole);
        // Nobody took a reference: the block serves the next large message.
        if let Ok(block) = whole.try_into_mut()
            && block.capacity() <= SPARE_BLOCK_BYTES_MAX
        {
            self.spare_block = Some(block);
        }
        // The line of the next command may be here already.
        more
    }

    /// Executes all whole commands of `bytes`; gives how many bytes they took.
    pub(super) fn run<I: Io>(&mut self, io: &mut I, slot: u32, bytes: &[u8]) -> usize {
        let mut at = 0;
        let mut limits = self.limits(slot);
        let (mut is_plain, mut rules) = self.publishes_plainly(slot);
        while at < bytes.len() {
            if is_plain
                && let Some(canonical) = parse_canonical_pub(&bytes[at..], &limits)
                && !may_be_reserved(canonical.subject())
                && !may_be_reserved(canonical.reply())
            {
                at += canonical.command_bytes();
                self.publish_plainly(io, slot, &canonical, rules);
                continue;
            }
            if !self.may_speak(io, slot, bytes[at]) {
                return bytes.len();
            }
            match parse(&bytes[at..], &limits) {
                Ok(Step::Done(command, used)) => {
                    at += used;
                    let options_may_change = self.execute(io, slot, command, None);
                    if !self.local.large.is_empty() {
                        self.flush_large(io);
                    }
                    if options_may_change {
                        match self.local.conns.get(slot as usize) {
                            Some(conn) if conn.closing.is_some() => return bytes.len(),
                            Some(conn) if conn.stage == Stage::Undecided => break,
                            Some(_) => {
                                limits = self.limits(slot);
                                (is_plain, rules) = self.publishes_plainly(slot);
                            }
                            None => return bytes.len(),
                        }
                    }
                }
                Ok(Step::More(_)) => break,
                Err(error) => {
                    self.parse_failed(io, slot, error);
                    return bytes.len();
                }
            }
        }
        at
    }

    /// Whether publishes of this connection need nothing but delivery (no `+OK`, no strict look at subjects, no mapping, no
    /// trace), and the permissions that are to be asked first, if there are any.
    fn publishes_plainly(&self, slot: u32) -> (bool, Option<PermissionsId>) {
        let conn = &self.local.conns[slot as usize];
        let options = &conn.options;
        let is_mapped = self.accounts[conn.account as usize].maps;
        let is_exact = options.verbose || options.pedantic || is_mapped || self.local.traces;
        (conn.stage == Stage::Open && !is_exact, conn.rules())
    }

    /// The hot path: a canonical publish of a connection that [`Shard::publishes_plainly`].
    #[inline]
    fn publish_plainly<I: Io>(
        &mut self,
        io: &mut I,
        slot: u32,
        canonical: &CanonicalPub<'_>,
        rules: Option<PermissionsId>,
    ) {
        let message = Message {
            subject: canonical.subject(),
            reply_bytes: canonical.reply().len(),
            header_bytes: 0,
            argument_bytes: canonical.argument_bytes(),
            tail: Tail::Joined(canonical.tail()),
        };
        self.publish(io, slot, &message, rules);
        if !self.local.large.is_empty() {
            self.flush_large(io);
        }
    }

    /// Executes the one command of a completed block.
    fn run_shared<I: Io>(&mut self, io: &mut I, slot: u32, block: &bytes::Bytes) {
        let limits = self.limits(slot);
        match parse(block, &limits) {
            Ok(Step::Done(command, _)) => {
                self.execute(io, slot, command, Some(block));
                if !self.local.large.is_empty() {
                    self.flush_large(io);
                }
            }
            Ok(Step::More(_)) => unreachable!("the block has the size that the parser asked for"),
            Err(error) => self.parse_failed(io, slot, error),
        }
    }

    fn parse_failed<I: Io>(&mut self, io: &mut I, slot: u32, error: ParseError) {
        let reason = match error {
            ParseError::UnknownOperation => CloseReason::UnknownOperation,
            ParseError::Arguments => CloseReason::ParseError,
            ParseError::ControlLine => CloseReason::MaximumControlLine,
            ParseError::Payload => CloseReason::MaximumPayload,
        };
        self.close(io, slot, reason);
    }

    /// The server's limit, or the account's or the user's if that is lower.
    pub(super) fn max_payload(&self, slot: u32) -> usize {
        let conn = &self.local.conns[slot as usize];
        let account = self.config.directory.accounts()[conn.account as usize].limits.max_payload;
        let limits = [account, conn.basis.limits().max_payload];
        limits.into_iter().flatten().fold(self.config.max_payload, usize::min)
    }

    fn limits(&self, slot: u32) -> Limits {
        Limits {
            control_line_max: self.config.max_control_line,
            payload_max: self.max_payload(slot),
            headers: self.local.conns[slot as usize].options.headers,
        }
    }

    /// Keeps the bytes of an incomplete command for the next read.
    pub(super) fn keep(&mut self, slot: u32, bytes: &[u8], used: usize) {
        let rest = &bytes[used..];
        let limits = match self.local.conns.get(slot as usize) {
            Some(conn) if conn.closing.is_none() => self.limits(slot),
            _ => return,
        };
        let conn = &mut self.local.conns[slot as usize];
        conn.expects_block = false;
        if rest.is_empty() {
            return;
        }
        conn.input = match parse(rest, &limits) {
            Ok(Step::More(More::Payload { command_bytes, .. })) if command_bytes > BLOCK_BYTES_MIN => {
                conn.expects_block = true;
                let mut block = self.spare_block.take().unwrap_or_default();
                if block.len() < rest.len() {
                    block.resize(rest.len(), 0);
                }
                block[..rest.len()].copy_from_slice(rest);
                Input::Block { block, filled: rest.len(), want: command_bytes }
            }
            step => {
                let kept = match step {
                    Ok(Step::More(More::Ignored { verb_bytes })) => &rest[..verb_bytes],
                    _ => rest,
                };
                let mut partial = std::mem::take(&mut self.spare_partial);
                if partial.capacity() > SPARE_PARTIAL_BYTES.max(4 * kept.len()) {
                    partial = Vec::new();
                }
                partial.extend_from_slice(kept);
                Input::Partial(partial)
            }
        };
    }

    /// Reads less at once where each byte read causes many to be written, so that a turn stays short and its output
    /// in the caches.
    fn adapt_read(&mut self, slot: u32, caused: u64) {
        let Some(conn) = self.local.conns.get_mut(slot as usize) else { return };
        let now = conn.read_bytes.min(READ_BYTES as u32);
        conn.read_bytes = if caused > OUTPUT_PER_READ {
            let fits = u64::from(now) * OUTPUT_PER_READ / caused;
            (fits as u32).max(READ_BYTES_MIN)
        } else if caused < OUTPUT_PER_READ / 2 {
            now.saturating_mul(2).min(READ_BYTES as u32)
        } else {
            now
        };
    }

    /// The end of a turn.
    fn finish<I: Io>(&mut self, io: &mut I) {
        self.pause_stalled();
        if broken(Rule::SocketsBeforeRings) {
            self.flush_dirty(io);
        }
        self.settle(io);
        self.peers.ring(io);
        self.flush_dirty(io);
        // Writing found broken or slow connections: what they were subscribed to is withdrawn at once.
        while !self.local.cut_off.is_empty() {
            for (slot, reason) in std::mem::take(&mut self.local.cut_off) {
                self.close(io, slot, reason);
            }
            self.settle(io);
            self.peers.ring(io);
            self.flush_dirty(io);
        }
        self.local.buffers.end_turn();
    }

    fn flush_dirty<I: Io>(&mut self, io: &mut I) {
        if self.must_keep_silent() {
            for slot in &self.local.dirty {
                if let Some(conn) = self.local.conns.get_mut(*slot as usize) {
                    conn.out.end_part(&mut self.local.buffers);
                }
            }
            return;
        }
        while !self.local.dirty.is_empty() {
            let mut dirty = std::mem::take(&mut self.local.dirty);
            for slot in dirty.drain(..) {
                self.flush(io, slot);
                self.finish_close(io, slot);
            }
            if self.local.dirty.is_empty() {
                self.local.dirty = dirty;
            }
        }
    }

    /// Whether something waits for room in a ring. What clients are told now could reach other shards before it.
    fn must_keep_silent(&self) -> bool {
        self.peers.is_spilled() && !broken(Rule::OutputNotHeld) && !broken(Rule::OutputOfOthers)
    }

    /// Publishes interest and messages, then holds and releases the connections that feed spill lists.
    fn settle<I: Io>(&mut self, io: &mut I) {
        if self.peers.is_empty() {
            return;
        }
        self.gather_interest();
        self.peers.commit_interest();
        self.peers.commit_messages(io.now());
        let (conns, dirty, ready) = (&mut self.local.conns, &mut self.local.dirty, &mut self.ready);
        self.peers.settle(|(slot, cid), bit, fate| {
            let Some(conn) = conns.get_mut(slot as usize).filter(|conn| conn.cid == cid) else { return };
            match fate {
                Fate::Passed => conn.fed &= !bit,
                Fate::Held => {
                    conn.fed &= !bit;
                    conn.held |= bit;
                }
                Fate::Released => {
                    conn.held &= !bit;
                    if conn.held == 0 && !std::mem::replace(&mut conn.ready, true) {
                        ready.push(slot);
                    }
                    if conn.held == 0 && !std::mem::replace(&mut conn.dirty, true) {
                        dirty.push(slot);
                    }
                }
            }
        });
    }

    fn gather_interest(&mut self) {
        for (number, account) in self.accounts.iter_mut().enumerate() {
            if account.has_changes() {
                let peers = &mut self.peers;
                account.take_changes(|change| peers.push_interest(number as u32, change.old, change.new, &change.key));
            }
        }
    }

    /// Commits the open batches in mid-turn if one of those for the peers of `mask` has grown large. All of them: a
    /// message to several peers must not reach one of them ahead of the others.
    pub(super) fn commit_large<I: Io>(&mut self, io: &mut I, mask: u64) {
        if self.peers.has_large(mask) && !self.withholds {
            self.attend_service(io);
            self.gather_interest();
            self.peers.commit_interest();
            self.peers.commit_messages(io.now());
            self.peers.ring(io);
        }
    }

    /// Writes to connections with much output in mid-turn; rings go first here too.
    pub(super) fn flush_large<I: Io>(&mut self, io: &mut I) {
        if self.withholds {
            return;
        }
        self.attend_service(io);
        self.settle(io);
        self.peers.ring(io);
        if self.must_keep_silent() {
            // They stay dirty, and are written to when there is room.
            return self.local.large.clear();
        }
        let mut large = std::mem::take(&mut self.local.large);
        for slot in large.drain(..) {
            let Some(conn) = self.local.conns.get(slot as usize) else { continue };
            if conn.closing.is_some() || conn.held != 0 {
                continue;
            }
            self.flush(io, slot);
            if let Some(conn) = self.local.conns.get(slot as usize)
                && conn.out.pending() > self.local.pending_max
                && conn.closing.is_none()
            {
                self.local.cut_off.push((slot, CloseReason::SlowConsumerPending));
            }
        }
        self.local.large = large;
        for (slot, reason) in std::mem::take(&mut self.local.cut_off) {
            self.close(io, slot, reason);
        }
    }

    /// Writes what is pending, as far as the socket takes it.
    fn flush<I: Io>(&mut self, io: &mut I, slot: u32) {
        let Some(conn) = self.local.conns.get_mut(slot as usize) else { return };
        conn.dirty = false;
        conn.out.end_part(&mut self.local.buffers);
        let waits = conn.held != 0 && !broken(Rule::OutputNotHeld);
        if waits || conn.out.pending() == 0 {
            return;
        }
        conn.blocked = false;
        if std::mem::take(&mut conn.has_messages) {
            conn.last_activity = self.now;
        }
        while conn.out.pending() > 0 {
            let mut slices = [IoSlice::new(&[]); SEGMENTS_PER_WRITE];
            let count = conn.out.slices(&mut slices);
            let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            match io.send(slot, &slices[..count]) {
                Sent::Bytes(taken) => {
                    conn.out.advance(&mut self.local.buffers, taken);
                    conn.written += taken as u64;
                    if taken < offered {
                        conn.blocked = true;
                        break;
                    }
                }
                Sent::Failed => {
                    conn.out.clear(&mut self.local.buffers);
                    if conn.closing.is_none() {
                        self.local.cut_off.push((slot, CloseReason::WriteError));
                    }
                    return;
                }
            }
        }
        if conn.write_goal != 0 && conn.written >= conn.write_goal {
            conn.write_goal = 0;
        }
        if conn.blocked && conn.write_goal == 0 {
            conn.write_goal = conn.written + conn.out.pending() as u64;
            conn.write_due = self.now + self.config.write_deadline;
            self.timers.set(conn.write_due, (slot, conn.cid, Timer::WriteDeadline));
        }
    }

    /// Publishers that hit a stall gate are not read for a moment.
    fn pause_stalled(&mut self) {
        for slot in std::mem::take(&mut self.local.stalled) {
            let Some(conn) = self.local.conns.get_mut(slot as usize) else { continue };
            let millis = std::mem::take(&mut conn.stall);
            if millis == 0 || conn.closing.is_some() {
                continue;
            }
            let pause = u64::from(millis) * 1_000_000;
            conn.gated_until = self.now + pause + GATED_TIME;
            self.local.counters.stalled_clients += 1;
            self.pause(slot, pause);
        }
    }

    /// Does not read a connection for `pause` nanoseconds.
    fn pause(&mut self, slot: u32, pause: u64) {
        let Some(conn) = self.local.conns.get_mut(slot as usize) else { return };
        conn.stalled_until = self.now + pause;
        conn.read_bytes = GATED_READ_BYTES;
        self.timers.set(conn.stalled_until, (slot, conn.cid, Timer::StallEnd));
    }

    fn run_timers<I: Io>(&mut self, io: &mut I) {
        while let Some(due) = self.timers.take_due(self.now) {
            for (slot, cid, timer) in due {
                if self.local.conns.get(slot as usize).is_some_and(|conn| conn.cid == cid) {
                    self.timer_fired(io, slot, timer);
                }
            }
        }
        if self.keeps_buffers() && self.now >= self.busy_at + TRIM_AFTER {
            self.is_trimmed = true;
            self.local.buffers.trim();
            self.peers.trim();
            self.inquiries.clear();
            self.read_buffer = Vec::new();
            self.spare_block = None;
            self.spare_partial = Vec::new();
            self.trim_service();
            io.rest();
        }
    }
}
