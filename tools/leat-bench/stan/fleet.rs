//! The event loop of all streaming clients of a run: it registers them, publishes within the window or on the schedule,
//! takes what is delivered, and counts.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::roles::latency_histogram;
use crate::stan::session::{Observer, Session, Wanted};
use crate::stan::wire;
use crate::sys::{self, Poller, now_ns};
use crate::units::ServerUrl;

/// Bytes taken by one read.
const READ_BYTES: usize = 256 << 10;

/// Unsent bytes of a client above which it publishes nothing more.
const BACKLOG_BYTES: usize = 256 << 10;

/// Publishes of one client before the others have their turn.
const BURST: u64 = 256;

/// Longest sleep, so that stop signals are seen.
const NAP_MAX: Duration = Duration::from_millis(10);

/// Sleeping ends this long before a publish is due; the rest is spent polling.
const WAKE_EARLY_NS: u64 = 60_000;

/// Longest wait for the answer to a request.
const ANSWER_NS_MAX: u64 = 20_000_000_000;

/// How publishes are spread over time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// None.
    Stopped,
    /// As fast as the window permits.
    Closed,
    /// One each `1 / rate` seconds from this time on; the window still holds.
    Open { rate: f64, start_ns: u64 },
}

/// Counts and latencies.
pub(crate) struct Tally {
    /// Acknowledged publishes.
    pub(crate) acknowledged: u64,
    /// First deliveries.
    pub(crate) delivered: u64,
    /// From the due time of a publish to its acknowledgement, nanoseconds.
    pub(crate) publish_latency: Histogram<u64>,
    /// From the due time of a publish to its delivery, nanoseconds.
    pub(crate) delivery_latency: Histogram<u64>,
    from_ns: u64,
    until_ns: u64,
    now_ns: u64,
}

impl Tally {
    /// Records only what was due in this time.
    pub(crate) fn record(&mut self, from_ns: u64, until_ns: u64) {
        (self.from_ns, self.until_ns) = (from_ns, until_ns);
    }

    fn latency(&self, due_ns: u64) -> Option<u64> {
        (self.from_ns..self.until_ns).contains(&due_ns).then(|| self.now_ns.saturating_sub(due_ns).max(1))
    }
}

impl Observer for Tally {
    fn acknowledged(&mut self, due_ns: u64) {
        self.acknowledged += 1;
        if let Some(latency) = self.latency(due_ns) {
            self.publish_latency.saturating_record(latency);
        }
    }

    fn delivered(&mut self, due_ns: Option<u64>) {
        self.delivered += 1;
        if let Some(latency) = due_ns.and_then(|due_ns| self.latency(due_ns)) {
            self.delivery_latency.saturating_record(latency);
        }
    }
}

/// All streaming clients of a run.
pub(crate) struct Fleet {
    /// The clients, in the order in which they were added.
    pub(crate) sessions: Vec<Session>,
    /// What they have seen.
    pub(crate) tally: Tally,
    /// Those that publish are the first so many.
    publishers: usize,
    /// Most publishes of one client without an acknowledgement.
    window: u64,
    /// Publishes of all clients that may still be sent.
    left: u64,
    pace: Pace,
    /// Publishes that the schedule has brought so far.
    paced: u64,
    poller: Poller,
    scratch: Vec<u8>,
    spin: bool,
    deadline_ns: u64,
}

impl Fleet {
    /// Without clients.
    pub(crate) fn new(spin: bool, max_time: Duration) -> Outcome<Fleet> {
        sys::sharpen_timers();
        Ok(Fleet {
            sessions: Vec::new(),
            tally: Tally {
                acknowledged: 0,
                delivered: 0,
                publish_latency: latency_histogram(),
                delivery_latency: latency_histogram(),
                from_ns: 0,
                until_ns: 0,
                now_ns: 0,
            },
            publishers: 0,
            window: 1,
            left: u64::MAX,
            pace: Pace::Stopped,
            paced: 0,
            poller: Poller::new()?,
            scratch: vec![0; READ_BYTES],
            spin,
            deadline_ns: now_ns() + max_time.as_nanos() as u64,
        })
    }

    /// Adds a registered client.
    pub(crate) fn add(&mut self, url: &ServerUrl, cluster: &str) -> Outcome<usize> {
        let at = self.sessions.len();
        let id = format!("leat-bench-{}-{:08x}-{at}", std::process::id(), fastrand::u32(..));
        let session = Session::open(url, &id)?;
        self.poller.add(&session.link.stream, at)?;
        let request = session.connect_request();
        self.sessions.push(session);
        let answer = self.request(at, &format!("_STAN.discover.{cluster}"), &request)?;
        let subjects = wire::connect_response(&answer)?;
        self.sessions[at].registered(subjects);
        Ok(at)
    }

    /// Lets the clients added so far publish to these channels, each with so many publishes under way.
    pub(crate) fn publish_to(&mut self, channels: &[String], size: usize, window: u64) {
        self.publishers = self.sessions.len();
        self.window = window;
        for session in &mut self.sessions {
            session.publishes(channels, size);
        }
    }

    /// Adds a subscription to a client.
    pub(crate) fn subscribe(&mut self, at: usize, wanted: &Wanted<'_>) -> Outcome<()> {
        let (subject, request) = self.sessions[at].subscribe(wanted);
        self.request(at, &subject, &request).map(drop)
    }

    /// Adds `count` subscriptions to a client, many requests at a time.
    pub(crate) fn subscribe_many<'a>(
        &mut self,
        at: usize,
        count: u64,
        mut wanted: impl FnMut(u64) -> Wanted<'a>,
        progress: &Progress,
    ) -> Outcome<()> {
        const UNDER_WAY_MAX: u64 = 64;
        let (mut asked, mut done, mut last_ns) = (0, 0, now_ns());
        while done < count {
            while asked < count && asked - done < UNDER_WAY_MAX {
                let (subject, request) = self.sessions[at].subscribe(&wanted(asked));
                self.sessions[at].ask(&subject, &request);
                asked += 1;
            }
            self.turn()?;
            let answered = self.sessions[at].take_answers().len() as u64;
            if answered > 0 {
                (done, last_ns) = (done + answered, now_ns());
            } else if now_ns() - last_ns > ANSWER_NS_MAX {
                return Err(Failure::new("the streaming service does not answer"));
            }
            progress.show("subscribing", 0, done, count);
        }
        Ok(())
    }

    /// Sends a request of one client and waits for its answer; everything else goes on meanwhile.
    fn request(&mut self, at: usize, subject: &str, payload: &[u8]) -> Outcome<Vec<u8>> {
        self.sessions[at].ask(subject, payload);
        let until_ns = now_ns() + ANSWER_NS_MAX;
        loop {
            self.turn()?;
            if let Some(answer) = self.sessions[at].take_answers().pop() {
                return Ok(answer);
            }
            if now_ns() > until_ns {
                return Err(Failure::new("the streaming service does not answer"));
            }
        }
    }

    /// Ends the registrations.
    pub(crate) fn close(&mut self) -> Outcome<()> {
        for at in 0..self.sessions.len() {
            let (subject, payload) = self.sessions[at].close_request();
            self.request(at, &subject, &payload)?;
        }
        Ok(())
    }

    /// Begins to publish, `limit` messages in all.
    pub(crate) fn start(&mut self, pace: Pace, limit: u64) {
        (self.pace, self.left, self.paced) = (pace, limit, 0);
    }

    /// Ends publishing; what is under way goes on.
    pub(crate) fn stop(&mut self) {
        self.pace = Pace::Stopped;
    }

    /// Publishes sent so far.
    pub(crate) fn published(&self) -> u64 {
        self.sessions.iter().map(Session::published).sum()
    }

    /// Publishes without an acknowledgement.
    pub(crate) fn outstanding(&self) -> u64 {
        self.sessions.iter().map(Session::outstanding).sum()
    }

    /// Works until `over` says so, or this time has come.
    pub(crate) fn run_until(&mut self, until_ns: u64, mut over: impl FnMut(&Fleet) -> bool) -> Outcome<()> {
        while now_ns() < until_ns && !over(self) {
            self.turn()?;
        }
        Ok(())
    }

    /// Publishes what may be published, and handles what has come.
    fn turn(&mut self) -> Outcome<()> {
        if sys::stop_asked() {
            return Err(Failure::new("interrupted"));
        }
        if now_ns() > self.deadline_ns {
            return Err(Failure::new("the run exceeds --max-time"));
        }
        let mut busy = self.publish();
        for session in &mut self.sessions {
            session.link.flush()?;
            busy |= session.readable;
        }
        for ready in self.poller.wait(self.nap(busy))? {
            let session = &mut self.sessions[ready.token];
            session.link.writable |= ready.writable;
            session.readable |= ready.readable;
        }
        for session in &mut self.sessions {
            if session.readable {
                session.readable = read(session, &mut self.scratch, &mut self.tally)?;
                session.link.flush()?;
            }
        }
        Ok(())
    }

    /// Returns whether there is more to publish at once.
    fn publish(&mut self) -> bool {
        match self.pace {
            Pace::Stopped => false,
            Pace::Closed => self.publish_closed(),
            Pace::Open { rate, start_ns } => self.publish_due(rate, start_ns),
        }
    }

    fn publish_closed(&mut self) -> bool {
        let mut more = false;
        for session in &mut self.sessions[..self.publishers] {
            let room = self.window.saturating_sub(session.outstanding()).min(self.left);
            if session.link.output_bytes() > BACKLOG_BYTES {
                continue;
            }
            let count = room.min(BURST);
            let due_ns = now_ns();
            for _ in 0..count {
                session.publish(due_ns);
            }
            self.left -= count;
            more |= room > count && session.link.writable;
        }
        more
    }

    fn publish_due(&mut self, rate: f64, start_ns: u64) -> bool {
        let now = now_ns();
        for _ in 0..BURST {
            let due_ns = due_ns(self.paced, rate, start_ns);
            let session = &mut self.sessions[(self.paced % self.publishers as u64) as usize];
            let full = session.outstanding() >= self.window || session.link.output_bytes() > BACKLOG_BYTES;
            if self.left == 0 || due_ns > now || full {
                return false;
            }
            session.publish(due_ns);
            self.paced += 1;
            self.left -= 1;
        }
        true
    }

    fn nap(&self, busy: bool) -> Duration {
        if busy || self.spin {
            return Duration::ZERO;
        }
        match self.pace {
            Pace::Open { rate, start_ns } if self.left > 0 => {
                let wait_ns = due_ns(self.paced, rate, start_ns).saturating_sub(now_ns() + WAKE_EARLY_NS);
                // A schedule that is held up by a full window waits for the acknowledgement.
                let blocked = due_ns(self.paced, rate, start_ns) < now_ns();
                if blocked { NAP_MAX } else { Duration::from_nanos(wait_ns).min(NAP_MAX) }
            }
            _ => NAP_MAX,
        }
    }
}

fn due_ns(number: u64, rate: f64, start_ns: u64) -> u64 {
    start_ns + (number as f64 * 1e9 / rate) as u64
}

/// Reads once; returns whether there may be more.
fn read(session: &mut Session, scratch: &mut [u8], tally: &mut Tally) -> Outcome<bool> {
    let Some(count) = crate::client::Link::read(&mut session.link.stream, scratch)? else {
        return Ok(false);
    };
    tally.now_ns = now_ns();
    session.feed(&scratch[..count], tally)?;
    Ok(true)
}
