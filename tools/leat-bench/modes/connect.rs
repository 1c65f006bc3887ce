//! Many connections: how fast they open, what they cost while idle.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use hdrhistogram::Histogram;
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::{Control, Link, connect_line, control, resolve};
use crate::drive::Target;
use crate::failure::{Failure, Outcome};
use crate::figures::{FigureList, Run};
use crate::frames::{FrameReader, Frames, Want};
use crate::modes::Job;
use crate::procfs::ProcessProbe;
use crate::progress::Progress;
use crate::roles::latency_histogram;
use crate::stats::{Better, latency_figures};
use crate::sys::{self, Poller, now_ns};

/// Descriptors the program needs beside the connections.
const DESCRIPTORS_SPARE: u64 = 64;

/// Connections from one loopback address before the next one is used; the kernel has about 28,000 ports for each.
const PER_SOURCE: usize = 20_000;

/// Time for the server to come to rest before memory is read; covers the PING that servers send about 2 s after login.
const SETTLE: Duration = Duration::from_secs(3);

/// Longest wait for a single connection to be opened.
const OPEN_NS_MAX: u64 = 30_000_000_000;

/// Opens `connections`, at most `in_flight` at a time, and holds them.
pub(crate) fn run(
    job: &Job,
    target: &Target,
    progress: &Progress,
    connections: u64,
    in_flight: usize,
    hold: Duration,
    with_sub: bool,
) -> Outcome<Run> {
    let allowed = sys::raise_open_files();
    if connections == 0 || connections + DESCRIPTORS_SPARE > allowed {
        return Err(Failure::new(format!(
            "--connections must be between 1 and {} (limit of open files)",
            allowed.saturating_sub(DESCRIPTORS_SPARE)
        )));
    }
    let probe = target.probe.as_ref();
    let resident = || probe.and_then(ProcessProbe::memory).map(|memory| memory.resident_bytes as f64);
    let cpu = || probe.map(ProcessProbe::cpu_ns).transpose();
    let mut crowd = Crowd::new(job, target, with_sub)?;

    let (memory_before, cpu_before, own_before, began) = (resident(), cpu()?, sys::own_cpu_ns(), now_ns());
    crowd.open_all(connections as usize, in_flight.max(1), progress, &job.label)?;
    let opened_s = (now_ns() - began) as f64 / 1e9;
    let (cpu_open, own_open) = (cpu()?, sys::own_cpu_ns() - own_before);

    crowd.hold(SETTLE, progress, "settling")?;
    let memory_open = resident();
    let (cpu_hold, held) = (cpu()?, now_ns());
    crowd.hold(hold, progress, "holding idle connections")?;
    let held_s = (now_ns() - held) as f64 / 1e9;
    let (cpu_after, memory_after) = (cpu()?, resident());
    progress.clear();

    let count = connections as f64;
    let mut list = FigureList::default();
    list.push("rate_per_s", "connects", "/s", Better::More, count / opened_s);
    if let (Some(before), Some(after)) = (cpu_before, cpu_open) {
        let each = (after - before) as f64 / 1e3 / count;
        list.push("server_cpu_us_per_connect", "server CPU per connect", "µs", Better::Less, each);
        let share = (after - before) as f64 / 1e7 / opened_s;
        list.push("server_cpu_percent", "server CPU while opening", "% of a core", Better::Neither, share);
    }
    let share = own_open as f64 / 1e7 / opened_s;
    list.push("load_cpu_percent", "load CPU while opening", "% of a core", Better::Neither, share);
    if let (Some(before), Some(open), Some(after)) = (memory_before, memory_open, memory_after) {
        list.push("rss_bytes_per_connection", "memory per connection", "B", Better::Less, (open - before) / count);
        let late = (after - before) / count;
        list.push("rss_bytes_per_connection_after_hold", "  after the hold", "B", Better::Less, late);
    }
    if let (Some(before), Some(after)) = (cpu_hold, cpu_after)
        && held_s > 0.01
    {
        let share = (after - before) as f64 / 1e7 / held_s;
        list.push("idle_cpu_percent", "server CPU while idle", "% of a core", Better::Less, share);
    }
    latency_figures(&crowd.first_pong, "latency", "connect to first PONG", &mut list.0);
    Ok(Run {
        label: job.label.clone(),
        server: target.url.to_string(),
        unit: "connections",
        figures: list.0,
        notes: crowd.pings_note(),
        latency: Some(crowd.first_pong),
        verdict: None,
        faulty: false,
        parameters: job.parameters(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    AwaitsInfo,
    AwaitsPong,
    Open,
}

struct Member {
    link: Link,
    stage: Stage,
    began_ns: u64,
}

/// All the connections and their event loop.
struct Crowd {
    address: SocketAddr,
    poller: Poller,
    members: Vec<Member>,
    /// What each one sends after INFO.
    login: Vec<u8>,
    open: usize,
    server_pings: u64,
    first_pong: Histogram<u64>,
    /// Members being opened, oldest first, for the time limit.
    opening: VecDeque<usize>,
    deadline_ns: u64,
    scratch: Vec<u8>,
}

impl Crowd {
    fn new(job: &Job, target: &Target, with_sub: bool) -> Outcome<Crowd> {
        let mut login = connect_line(&target.url);
        if with_sub {
            login.extend_from_slice(format!("SUB {} 1\r\n", job.options.subject).as_bytes());
        }
        login.extend_from_slice(b"PING\r\n");
        Ok(Crowd {
            address: resolve(&target.url)?,
            poller: Poller::new()?,
            members: Vec::new(),
            login,
            open: 0,
            server_pings: 0,
            first_pong: latency_histogram(),
            opening: VecDeque::new(),
            deadline_ns: now_ns() + job.options.max_time.as_nanos() as u64,
            scratch: vec![0; 64 << 10],
        })
    }

    fn open_all(&mut self, count: usize, in_flight: usize, progress: &Progress, label: &str) -> Outcome<()> {
        while self.open < count {
            while self.members.len() < count && self.members.len() - self.open < in_flight {
                self.begin()?;
            }
            self.turn(Duration::from_millis(100))?;
            while self.opening.front().is_some_and(|&at| self.members[at].stage == Stage::Open) {
                self.opening.pop_front();
            }
            if let Some(&at) = self.opening.front()
                && now_ns() - self.members[at].began_ns > OPEN_NS_MAX
            {
                return Err(Failure::new("the server does not answer a new connection"));
            }
            progress.show(label, 0, self.open as u64, count as u64);
        }
        Ok(())
    }

    fn hold(&mut self, time: Duration, progress: &Progress, label: &str) -> Outcome<()> {
        let begin = now_ns();
        let until = begin + time.as_nanos() as u64;
        loop {
            let now = now_ns();
            if now >= until {
                return Ok(());
            }
            progress.show(label, begin, now, until);
            self.turn(Duration::from_nanos(until - now).min(Duration::from_millis(200)))?;
        }
    }

    fn begin(&mut self) -> Outcome<()> {
        let began_ns = now_ns();
        let stream = connect_without_waiting(self.address, self.members.len())
            .map_err(Failure::during(format_args!("cannot connect to {}", self.address)))?;
        let token = self.members.len();
        self.poller.add(&stream, token)?;
        self.opening.push_back(token);
        self.members.push(Member {
            link: Link { stream, reader: FrameReader::new(Want::Counts), out: Vec::new(), out_at: 0, writable: true },
            stage: Stage::Connecting,
            began_ns,
        });
        Ok(())
    }

    fn turn(&mut self, nap: Duration) -> Outcome<()> {
        if sys::stop_asked() {
            return Err(Failure::new("interrupted"));
        }
        if now_ns() > self.deadline_ns {
            return Err(Failure::new("the run exceeds --max-time"));
        }
        for ready in self.poller.wait(nap)? {
            let member = &mut self.members[ready.token];
            if member.stage == Stage::Connecting && ready.writable {
                let failed = |error| Failure::new(format!("cannot connect to {}: {error}", self.address));
                if let Some(error) = member.link.stream.take_error()? {
                    return Err(failed(error));
                }
                member.link.stream.set_nodelay(true)?;
                member.stage = Stage::AwaitsInfo;
            }
            if !ready.readable {
                continue;
            }
            while let Some(count) = Link::read(&mut member.link.stream, &mut self.scratch)? {
                let Link { reader, out, .. } = &mut member.link;
                let stage = &mut member.stage;
                reader.feed(&self.scratch[..count], &mut |found| {
                    let Frames::Line(line) = found else {
                        return Ok(());
                    };
                    match control(line)? {
                        Control::Ping => {
                            self.server_pings += 1;
                            out.extend_from_slice(b"PONG\r\n");
                        }
                        Control::Pong if *stage == Stage::AwaitsPong => {
                            *stage = Stage::Open;
                            self.open += 1;
                            self.first_pong.saturating_record((now_ns() - member.began_ns).max(1));
                        }
                        Control::Nothing if *stage == Stage::AwaitsInfo => {
                            *stage = Stage::AwaitsPong;
                            out.extend_from_slice(&self.login);
                        }
                        Control::Pong | Control::Nothing => {}
                    }
                    Ok(())
                })?;
            }
            member.link.flush()?;
            if member.link.has_output() {
                return Err(Failure::new("the server does not read from an idle connection"));
            }
            member.link.out = Vec::new();
        }
        Ok(())
    }

    fn pings_note(&self) -> Vec<String> {
        match self.server_pings {
            0 => Vec::new(),
            count => vec![format!("the server sent {count} PINGs during the run")],
        }
    }
}

/// Begins to connect; `index` counts the connections so far and decides from which loopback address.
pub(crate) fn connect_without_waiting(address: SocketAddr, index: usize) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let source = index / PER_SOURCE;
    if source > 0 && address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        let octets = [127, 0, (source >> 8) as u8, (source & 0xff) as u8 + 1];
        socket.bind(&SocketAddr::from((octets, 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}
