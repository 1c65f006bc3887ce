//! What a connection does once it is logged in: publish, receive, request, respond or probe. Roles react to frames
//! and fill output buffers; reading, writing and waiting are the worker's business.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hdrhistogram::Histogram;

use crate::block::{Block, read_stamp};
use crate::client::{Control, Link, control};
use crate::failure::{Failure, Outcome};
use crate::frames::{Frames, words};
use crate::plan::{Counters, Group, Shared};
use crate::requests::{Requester, Responder};

/// Longest latency that is told apart, in nanoseconds; longer ones count as this long.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// A connection's work.
pub(crate) enum Role {
    /// Publishes as fast as the window permits, or on the schedule.
    Publisher(Publisher),
    /// Counts what arrives.
    Subscriber(Subscriber),
    /// Sends requests.
    Requester(Requester),
    /// Answers requests.
    Responder(Responder),
    /// Sends PINGs on the schedule.
    Pinger(Pinger),
}

/// Surroundings of a role while it works.
pub(crate) struct Turn<'a> {
    /// State of the run.
    pub(crate) shared: &'a Shared,
    /// This thread's counts.
    pub(crate) counters: &'a Counters,
    /// This thread's latencies.
    pub(crate) recorder: &'a mut Recorder,
    /// When the bytes at hand had been read.
    pub(crate) now_ns: u64,
}

impl Turn<'_> {
    /// Notes that something counted has arrived.
    pub(crate) fn mark(&self) {
        self.counters.last_ns.store(self.now_ns, Relaxed);
    }

    /// Notes that a sender has nothing more to do.
    pub(crate) fn finish_sender(&self) {
        let left = self.counters.unfinished.load(Relaxed);
        assert!(left > 0, "a sender finishes once");
        self.counters.unfinished.store(left - 1, Relaxed);
    }
}

/// Latencies of the messages that were due inside the measured window.
pub(crate) struct Recorder {
    /// In nanoseconds.
    pub(crate) histogram: Histogram<u64>,
    from_ns: u64,
    until_ns: u64,
}

impl Recorder {
    /// An empty recorder whose window is not known yet.
    pub(crate) fn new() -> Recorder {
        Recorder { histogram: latency_histogram(), from_ns: u64::MAX, until_ns: u64::MAX }
    }

    /// Takes over the window as the measuring thread has set it.
    pub(crate) fn refresh(&mut self, shared: &Shared) {
        self.from_ns = shared.record_from_ns.load(Relaxed);
        self.until_ns = shared.record_until_ns.load(Relaxed);
    }

    /// Records a message that was due at `due_ns` and arrived at `now_ns`.
    pub(crate) fn record(&mut self, due_ns: u64, now_ns: u64) {
        if self.covers(due_ns) {
            let latency = now_ns.saturating_sub(due_ns).clamp(1, LATENCY_NS_MAX);
            self.histogram.saturating_record(latency);
        }
    }

    /// Whether messages due at this time count.
    pub(crate) fn covers(&self, due_ns: u64) -> bool {
        due_ns >= self.from_ns && due_ns < self.until_ns
    }
}

/// A histogram for latencies in nanoseconds, three digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are constants and valid")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Sending,
    /// The last PING is on its way.
    Finishing,
    Done,
}

/// Writes a block of messages round and round, or stamped messages one by one.
pub(crate) struct Publisher {
    block: Arc<Block>,
    /// Who receives it; `None` when nobody does.
    group: Option<Arc<Group>>,
    /// Messages to send in all.
    limit: u64,
    /// Most messages per write.
    batch: u64,
    /// Whether the schedule decides when to send.
    pub(crate) paced: bool,
    /// A PING is sent after this many messages, to learn what the server has processed; 0 for never.
    marker_every: u64,
    next_marker: u64,
    /// Most messages that the server has not confirmed.
    unconfirmed_max: u64,
    /// Bytes of the block written so far, all rounds (not paced).
    written: u64,
    /// Messages begun so far.
    begun: u64,
    /// Messages that each unanswered PING vouches for.
    pings: VecDeque<u64>,
    processed: u64,
    phase: Phase,
}

impl Publisher {
    /// A publisher of this block.
    pub(crate) fn new(block: Arc<Block>, group: Option<Arc<Group>>, limit: Option<u64>, batch: u64) -> Publisher {
        Publisher {
            block,
            group,
            limit: limit.unwrap_or(u64::MAX),
            batch: batch.max(1),
            paced: false,
            marker_every: 0,
            next_marker: u64::MAX,
            unconfirmed_max: u64::MAX,
            written: 0,
            begun: 0,
            pings: VecDeque::new(),
            processed: 0,
            phase: Phase::Sending,
        }
    }

    /// Sends a PING after every so many messages, and has no more than `unconfirmed_max` without PONG: a server that
    /// is too busy reading to answer gets a moment to do so.
    pub(crate) fn with_markers(mut self, every: u64, unconfirmed_max: u64) -> Publisher {
        self.marker_every = every.max(1);
        self.unconfirmed_max = unconfirmed_max.max(2 * self.marker_every);
        self.next_marker = self.marker_every;
        self
    }

    /// Leaves the pace to the schedule.
    pub(crate) fn paced(mut self) -> Publisher {
        self.paced = true;
        self
    }

    /// Whether the last byte written is inside a message, so that nothing else may be written now.
    pub(crate) fn is_inside_message(&self) -> bool {
        !self.written.is_multiple_of(self.block.frame_bytes as u64)
    }

    /// Writes the next part of the block. Returns whether there is more that could be written at once.
    pub(crate) fn pump(&mut self, link: &mut Link, turn: &Turn<'_>) -> Outcome<bool> {
        if self.phase != Phase::Sending || !link.writable {
            return Ok(false);
        }
        let frame = self.block.frame_bytes;
        let at = (self.written % self.block.bytes.len() as u64) as usize;
        let tail = (frame - at % frame) % frame;
        let fresh = self.admitted(turn.shared.stop.load(Relaxed));
        if self.begun >= self.next_marker {
            link.out.extend_from_slice(b"PING\r\n");
            self.pings.push_back(self.begun);
            self.next_marker = self.begun + self.marker_every;
        }
        if tail == 0 && fresh == 0 {
            self.finish_if_complete(link, turn);
            return Ok(false);
        }
        let block = Arc::clone(&self.block);
        let fresh_at = if at + tail == block.bytes.len() { 0 } else { at + tail };
        let fresh_end = block.bytes.len().min(fresh_at + fresh as usize * frame);
        let out = std::mem::take(&mut link.out);
        let slices = [
            IoSlice::new(&block.bytes[at..at + tail]),
            IoSlice::new(&out[link.out_at..]),
            IoSlice::new(&block.bytes[fresh_at..fresh_end]),
        ];
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let count = link.write_slices(&slices);
        link.out = out;
        let count = count?;
        let from_tail = count.min(tail);
        let from_out = (count - from_tail).min(link.output_bytes());
        link.out_at += from_out;
        if !link.has_output() {
            link.out.clear();
            link.out_at = 0;
        }
        self.written += (count - from_out) as u64;
        self.note_begun(self.written.div_ceil(frame as u64), turn);
        Ok(count == offered && fresh > 0)
    }

    /// How many messages may begin with the next write.
    fn admitted(&self, stop: bool) -> u64 {
        let mut fresh = self.batch.min(self.limit - self.begun);
        fresh = fresh.min(self.next_marker.saturating_sub(self.begun).max(1));
        if stop {
            return 0;
        }
        let (room, window) = match &self.group {
            Some(group) => (group.room(), group.window()),
            None => {
                let unconfirmed = self.begun - self.processed;
                (self.unconfirmed_max.saturating_sub(unconfirmed), self.unconfirmed_max)
            }
        };
        // A window that opens a little is left to open further: small writes would measure something else.
        if room < fresh.min(window.div_ceil(4)) {
            return 0;
        }
        fresh.min(room)
    }

    fn note_begun(&mut self, begun: u64, turn: &Turn<'_>) {
        let new = begun - self.begun;
        if new > 0 {
            self.begun = begun;
            Counters::bump(&turn.counters.published, new);
            if let Some(group) = &self.group {
                group.add_published(new);
            }
        }
    }

    fn finish_if_complete(&mut self, link: &mut Link, turn: &Turn<'_>) {
        if self.begun == self.limit || turn.shared.stop.load(Relaxed) {
            self.finish(&mut link.out);
        }
    }

    /// Sends the last PING; its PONG ends the role.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PING\r\n");
        self.pings.push_back(self.begun);
        self.phase = Phase::Finishing;
    }

    /// Appends one message of the schedule.
    pub(crate) fn publish_stamped(&mut self, due_ns: u64, out: &mut Vec<u8>, turn: &Turn<'_>) {
        self.block.write_stamped(self.begun, due_ns, out);
        self.note_begun(self.begun + 1, turn);
        if self.begun >= self.next_marker {
            out.extend_from_slice(b"PING\r\n");
            self.pings.push_back(self.begun);
            self.next_marker = self.begun + self.marker_every;
        }
    }

    fn on_pong(&mut self, turn: &Turn<'_>) -> Outcome<()> {
        let vouched = self.pings.pop_front().ok_or_else(|| Failure::new("PONG without PING"))?;
        Counters::bump(&turn.counters.processed, vouched - self.processed);
        self.processed = vouched;
        let last_ns = turn.counters.last_ns.load(Relaxed);
        if last_ns > 0 {
            let gap_ns = turn.now_ns.saturating_sub(last_ns);
            turn.counters.longest_gap_ns.fetch_max(gap_ns, Relaxed);
        }
        turn.mark();
        if self.phase == Phase::Finishing && self.pings.is_empty() {
            self.phase = Phase::Done;
            turn.finish_sender();
        }
        Ok(())
    }
}

/// Counts messages; with stamps also their latency and order.
pub(crate) struct Subscriber {
    group: Arc<Group>,
    index: usize,
    /// Whether the payloads are stamped.
    stamped: bool,
    /// Whether all messages come from one publisher, so that their numbers must increase.
    ordered: bool,
    next_number: u64,
}

impl Subscriber {
    /// The subscriber of this index in its group.
    pub(crate) fn new(group: Arc<Group>, index: usize) -> Subscriber {
        Subscriber { group, index, stamped: false, ordered: false, next_number: 0 }
    }

    /// Reads the stamps of the messages.
    pub(crate) fn stamped(mut self, ordered: bool) -> Subscriber {
        self.stamped = true;
        self.ordered = ordered;
        self
    }

    /// The same message may come by several subscriptions of this connection, so numbers may repeat.
    pub(crate) fn repeats(&mut self) {
        self.ordered = false;
    }

    fn on_messages(&mut self, count: u64, turn: &Turn<'_>) {
        self.group.add_received(self.index, count);
        Counters::bump(&turn.counters.delivered, count);
        turn.mark();
    }

    fn on_stamp(&mut self, head: &[u8], body: &[u8], turn: &mut Turn<'_>) {
        let Some((due_ns, number)) = read_stamp(payload_of(head, body)) else {
            return;
        };
        turn.recorder.record(due_ns, turn.now_ns);
        if self.ordered && number < self.next_number {
            Counters::bump(&turn.counters.disordered, 1);
        }
        self.next_number = number + 1;
    }
}

/// The payload behind the headers of a message.
pub(crate) fn payload_of<'a>(head: &[u8], body: &'a [u8]) -> &'a [u8] {
    if head.first() != Some(&b'H') {
        return body;
    }
    let words: Vec<&[u8]> = words(head).collect();
    let size = words
        .len()
        .checked_sub(2)
        .and_then(|at| std::str::from_utf8(words[at]).ok())
        .and_then(|size| size.parse::<usize>().ok());
    size.and_then(|size| body.get(size..)).unwrap_or_default()
}

/// Sends PINGs on the schedule and measures until the PONG.
#[derive(Default)]
pub(crate) struct Pinger {
    due_ns: VecDeque<u64>,
    finishing: bool,
}

impl Pinger {
    /// Appends one PING of the schedule.
    pub(crate) fn ping(&mut self, due_ns: u64, out: &mut Vec<u8>, turn: &Turn<'_>) {
        out.extend_from_slice(b"PING\r\n");
        self.due_ns.push_back(due_ns);
        Counters::bump(&turn.counters.asked, 1);
    }

    /// Ends when the last PONG has come.
    pub(crate) fn finish(&mut self, turn: &Turn<'_>) {
        self.finishing = true;
        if self.due_ns.is_empty() {
            turn.finish_sender();
        }
    }

    fn on_pong(&mut self, turn: &mut Turn<'_>) -> Outcome<()> {
        let due_ns = self.due_ns.pop_front().ok_or_else(|| Failure::new("PONG without PING"))?;
        turn.recorder.record(due_ns, turn.now_ns);
        Counters::bump(&turn.counters.answered, 1);
        turn.mark();
        if self.finishing && self.due_ns.is_empty() {
            turn.finish_sender();
        }
        Ok(())
    }
}

impl Role {
    /// Whether the run waits for this role to finish.
    pub(crate) fn is_sender(&self) -> bool {
        matches!(self, Role::Publisher(_) | Role::Requester(_) | Role::Pinger(_))
    }

    /// Whether the schedule drives this role.
    pub(crate) fn is_paced(&self) -> bool {
        match self {
            Role::Publisher(publisher) => publisher.paced,
            Role::Requester(requester) => requester.paced,
            Role::Pinger(_) => true,
            Role::Subscriber(_) | Role::Responder(_) => false,
        }
    }

    /// Whether waiting output may be written as it is.
    pub(crate) fn may_flush(&self) -> bool {
        match self {
            Role::Publisher(publisher) => !publisher.is_inside_message(),
            _ => true,
        }
    }

    /// Reacts to what has arrived; answers go to `out`.
    pub(crate) fn on_frames(&mut self, found: Frames<'_>, out: &mut Vec<u8>, turn: &mut Turn<'_>) -> Outcome<()> {
        match found {
            Frames::Line(line) => match (control(line)?, self) {
                (Control::Ping, _) => out.extend_from_slice(b"PONG\r\n"),
                (Control::Pong, Role::Publisher(publisher)) => publisher.on_pong(turn)?,
                (Control::Pong, Role::Pinger(pinger)) => pinger.on_pong(turn)?,
                _ => {}
            },
            Frames::Run { head, count } => match self {
                Role::Subscriber(subscriber) => subscriber.on_messages(count, turn),
                _ => return Err(unexpected(head)),
            },
            Frames::Message { head, body } => match self {
                Role::Subscriber(subscriber) => {
                    subscriber.on_messages(1, turn);
                    if subscriber.stamped {
                        subscriber.on_stamp(head, body, turn);
                    }
                }
                Role::Requester(requester) => requester.on_reply(head, body, out, turn)?,
                Role::Responder(responder) => responder.on_request(head, body, out),
                _ => return Err(unexpected(head)),
            },
        }
        Ok(())
    }
}

fn unexpected(head: &[u8]) -> Failure {
    Failure::new(format!("unexpected message from the server: {:?}", String::from_utf8_lossy(head)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_behind_headers() {
        assert_eq!(payload_of(b"MSG a 1 3", b"abc"), b"abc");
        assert_eq!(payload_of(b"HMSG a 1 12 15", b"NATS/1.0\r\n\r\nabc"), b"abc");
        assert_eq!(payload_of(b"HMSG a 1 r 99 15", b"NATS/1.0\r\n\r\nabc"), b"");
    }

    #[test]
    fn only_the_window_is_recorded() {
        let mut recorder = Recorder::new();
        recorder.record(5, 10);
        assert_eq!(recorder.histogram.len(), 0);
        recorder.from_ns = 100;
        recorder.until_ns = 200;
        for due in [99, 100, 199, 200] {
            recorder.record(due, due + 50);
        }
        assert_eq!(recorder.histogram.len(), 2);
        assert_eq!(recorder.histogram.max(), 50);
    }
}
