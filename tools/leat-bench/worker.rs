//! One load thread: an event loop that owns its connections, drives their roles and keeps the schedule.
//!
//! A turn sends what is due or permitted, waits for events (not at all while there is more to send), and reads what
//! has arrived. The thread sleeps only when no connection can make progress.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::client::Link;
use crate::failure::Outcome;
use crate::pace::Pacer;
use crate::plan::{PlannedConnection, Shared};
use crate::roles::{Recorder, Role, Turn};
use crate::sys::{Poller, now_ns};
use crate::units::ServerUrl;

/// Bytes taken by one read; also what is parsed in one go.
const READ_BYTES: usize = 256 << 10;

/// Full reads of one connection before the others get their turn.
const READS_PER_TURN: usize = 4;

/// Longest sleep, so that stop signals are seen.
const NAP_MAX: Duration = Duration::from_millis(10);

/// Sleep while another thread's subscriber holds the window shut.
const NAP_FOR_OTHERS: Duration = Duration::from_micros(50);

/// A load thread before and during its run.
pub(crate) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    poller: Poller,
    connections: Vec<Connection>,
    /// Connections that publish as fast as permitted.
    pumps: Vec<usize>,
    /// Connections that may have unread bytes.
    readable: Vec<usize>,
    pacer: Option<Pacer>,
    recorder: Recorder,
    scratch: Vec<u8>,
    spin: bool,
}

struct Connection {
    link: Link,
    role: Role,
    readable: bool,
    closing: bool,
}

/// What a load thread hands back.
pub(crate) struct Yield {
    /// Latencies, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// How late messages of the schedule were sent, in nanoseconds.
    pub(crate) lag: Option<Histogram<u64>>,
}

impl Worker {
    /// Opens the connections of thread `index`.
    pub(crate) fn open(
        index: usize,
        url: &ServerUrl,
        planned: Vec<PlannedConnection>,
        shared: Arc<Shared>,
        spin: bool,
    ) -> Outcome<Worker> {
        crate::sys::sharpen_timers();
        let mut worker = Worker {
            index,
            shared,
            poller: Poller::new()?,
            connections: Vec::with_capacity(planned.len()),
            pumps: Vec::new(),
            readable: Vec::new(),
            pacer: None,
            recorder: Recorder::new(),
            scratch: vec![0; READ_BYTES],
            spin,
        };
        let mut senders = 0;
        for connection in planned {
            let link = Link::open(url, &connection.subscriptions, connection.want)?;
            let token = worker.connections.len();
            worker.poller.add(&link.stream, token)?;
            senders += u64::from(connection.role.is_sender());
            if matches!(&connection.role, Role::Publisher(publisher) if !publisher.paced) {
                worker.pumps.push(token);
            }
            worker.connections.push(Connection { link, role: connection.role, readable: false, closing: false });
        }
        worker.shared.counters[index].unfinished.store(senders, Relaxed);
        Ok(worker)
    }

    /// How many of the connections follow the schedule.
    pub(crate) fn paced_count(&self) -> usize {
        self.connections.iter().filter(|connection| connection.role.is_paced()).count()
    }

    /// Gives the thread its part of the schedule.
    pub(crate) fn set_pace(&mut self, rate: f64, phase: f64, limit: u64) {
        let targets = (0..self.connections.len()).filter(|&at| self.connections[at].role.is_paced()).collect();
        self.pacer = Pacer::new(targets, rate, phase, limit);
    }

    /// Works until told to quit.
    pub(crate) fn run(mut self) -> Outcome<Yield> {
        self.start_requesters()?;
        while !self.shared.quit.load(Relaxed) {
            let mut busy = self.keep_schedule()?;
            busy |= self.pump()?;
            busy |= !self.readable.is_empty();
            self.await_events(busy)?;
            self.read_all()?;
        }
        Ok(Yield { latency: self.recorder.histogram, lag: self.pacer.map(Pacer::into_lag) })
    }

    fn start_requesters(&mut self) -> Outcome<()> {
        let mut turn = Turn {
            shared: &self.shared,
            counters: &self.shared.counters[self.index],
            recorder: &mut self.recorder,
            now_ns: now_ns(),
        };
        for connection in &mut self.connections {
            if let Role::Requester(requester) = &mut connection.role
                && !requester.paced
            {
                requester.start(&mut connection.link.out, &turn);
                connection.link.flush()?;
                turn.now_ns = now_ns();
            }
        }
        Ok(())
    }

    /// Sends what is due. Returns whether more is due already.
    fn keep_schedule(&mut self) -> Outcome<bool> {
        let Some(pacer) = &mut self.pacer else {
            return Ok(false);
        };
        if pacer.is_over() {
            return Ok(false);
        }
        self.recorder.refresh(&self.shared);
        let turn = Turn {
            shared: &self.shared,
            counters: &self.shared.counters[self.index],
            recorder: &mut self.recorder,
            now_ns: now_ns(),
        };
        let mut touched = Vec::new();
        let more = pacer.send_due(&turn, |target, due_ns| {
            let Connection { link, role, .. } = &mut self.connections[target];
            if !link.has_output() {
                touched.push(target);
            }
            match role {
                Role::Publisher(publisher) => publisher.publish_stamped(due_ns, &mut link.out, &turn),
                Role::Requester(requester) => requester.ask_stamped(due_ns, &mut link.out, &turn),
                Role::Pinger(pinger) => pinger.ping(due_ns, &mut link.out, &turn),
                Role::Subscriber(_) | Role::Responder(_) => {}
            }
            link.output_bytes()
        });
        if pacer.is_over() {
            for &target in pacer.targets() {
                let Connection { link, role, .. } = &mut self.connections[target];
                match role {
                    Role::Publisher(publisher) => publisher.finish(&mut link.out),
                    Role::Requester(requester) => requester.finish(&turn),
                    Role::Pinger(pinger) => pinger.finish(&turn),
                    Role::Subscriber(_) | Role::Responder(_) => {}
                }
                touched.push(target);
            }
        }
        for target in touched {
            self.connections[target].link.flush()?;
        }
        Ok(more)
    }

    /// Lets every unpaced publisher write once. Returns whether one of them could write more.
    fn pump(&mut self) -> Outcome<bool> {
        let turn = Turn {
            shared: &self.shared,
            counters: &self.shared.counters[self.index],
            recorder: &mut self.recorder,
            now_ns: 0,
        };
        let mut more = false;
        for &token in &self.pumps {
            let Connection { link, role, .. } = &mut self.connections[token];
            if let Role::Publisher(publisher) = role {
                more |= publisher.pump(link, &turn)?;
                if link.has_output() && !publisher.is_inside_message() {
                    link.flush()?;
                }
            }
        }
        Ok(more)
    }

    fn await_events(&mut self, busy: bool) -> Outcome<()> {
        let nap = if busy || self.spin {
            Duration::ZERO
        } else {
            let longest =
                if self.shared.counters.len() > 1 && !self.pumps.is_empty() { NAP_FOR_OTHERS } else { NAP_MAX };
            match &self.pacer {
                Some(pacer) => pacer.nap(now_ns(), self.shared.start_ns.load(Relaxed)).min(longest),
                None => longest,
            }
        };
        for ready in self.poller.wait(nap)? {
            let connection = &mut self.connections[ready.token];
            if ready.writable {
                connection.link.writable = true;
                if connection.role.may_flush() {
                    connection.link.flush()?;
                }
            }
            connection.closing |= ready.closed;
            if ready.readable && !connection.readable {
                connection.readable = true;
                self.readable.push(ready.token);
            }
        }
        Ok(())
    }

    fn read_all(&mut self) -> Outcome<()> {
        if self.readable.is_empty() {
            return Ok(());
        }
        self.recorder.refresh(&self.shared);
        let mut turn = Turn {
            shared: &self.shared,
            counters: &self.shared.counters[self.index],
            recorder: &mut self.recorder,
            now_ns: 0,
        };
        let connections = &mut self.connections;
        let scratch = &mut self.scratch;
        let mut failure = None;
        self.readable.retain(|&token| {
            let connection = &mut connections[token];
            match connection.read(scratch, &mut turn) {
                Ok(more) => connection.readable = more,
                Err(error) => failure = Some(error),
            }
            connection.readable
        });
        match failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Connection {
    /// Reads and reacts; returns whether there may be more to read.
    fn read(&mut self, scratch: &mut [u8], turn: &mut Turn<'_>) -> Outcome<bool> {
        let mut more = true;
        for _ in 0..READS_PER_TURN {
            let Some(count) = Link::read(&mut self.link.stream, scratch)? else {
                more = false;
                break;
            };
            turn.now_ns = now_ns();
            let Link { reader, out, .. } = &mut self.link;
            let role = &mut self.role;
            reader.feed(&scratch[..count], &mut |found| role.on_frames(found, out, turn))?;
            // A short read has emptied the socket; the next arrival is a new event. Only the end must still be read.
            if count < scratch.len() && !self.closing {
                more = false;
                break;
            }
        }
        if self.link.has_output() && self.role.may_flush() {
            self.link.flush()?;
        }
        Ok(more)
    }
}
