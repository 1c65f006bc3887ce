//! The only module with `unsafe`: clocks, epoll, CPU affinity, limits and signals, each behind a safe function.
//!
//! Nothing here knows about messages. Every call wraps one libc function whose arguments are owned by the caller for
//! the whole call.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How many readiness events one wait takes at most.
const EVENTS_PER_WAIT: usize = 1024;

/// One descriptor that became ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// The number given at registration.
    pub(crate) token: usize,
    /// Bytes may be read, or the peer has closed.
    pub(crate) readable: bool,
    /// Room to write, or the connect has finished.
    pub(crate) writable: bool,
    /// The peer has closed; the end of the stream may be read.
    pub(crate) closed: bool,
}

/// An edge-triggered epoll set: a descriptor is reported once per change, so its user reads and writes until blocked.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
    ready: Vec<Ready>,
    nanosecond_wait: bool,
}

impl Poller {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Poller> {
        // SAFETY: no pointers; a non-negative result is a fresh descriptor that nobody else owns.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was checked to be valid and is owned by nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Poller {
            epoll,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT],
            ready: Vec::with_capacity(EVENTS_PER_WAIT),
            nanosecond_wait: true,
        })
    }

    /// Watches a descriptor for both directions. It leaves the set when it is closed.
    pub(crate) fn add(&self, fd: &impl AsFd, token: usize) -> io::Result<()> {
        let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: interest as u32, u64: token as u64 };
        // SAFETY: both descriptors are open for the call and `event` lives on this stack frame.
        let rc =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_fd().as_raw_fd(), &mut event) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for events, at most `timeout`. An interrupted wait returns an empty list.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<&[Ready]> {
        let count = self.wait_raw(timeout)?;
        self.ready.clear();
        for event in &self.events[..count] {
            let bits = event.events as i32;
            let closed = bits & (libc::EPOLLERR | libc::EPOLLHUP | libc::EPOLLRDHUP) != 0;
            self.ready.push(Ready {
                token: event.u64 as usize,
                readable: closed || bits & libc::EPOLLIN != 0,
                writable: closed || bits & libc::EPOLLOUT != 0,
                closed,
            });
        }
        Ok(&self.ready)
    }

    fn wait_raw(&mut self, timeout: Duration) -> io::Result<usize> {
        let epoll = self.epoll.as_raw_fd();
        let capacity = self.events.len() as i32;
        if self.nanosecond_wait && !timeout.is_zero() {
            let limit = timespec(timeout.as_nanos() as u64);
            // SAFETY: `events` has room for `capacity` entries; `limit` lives for the call; no signal mask is given.
            let rc = unsafe { libc::epoll_pwait2(epoll, self.events.as_mut_ptr(), capacity, &limit, std::ptr::null()) };
            if rc >= 0 {
                return Ok(rc as usize);
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => return Ok(0),
                Some(libc::ENOSYS) => self.nanosecond_wait = false,
                _ => return Err(error),
            }
        }
        let millis = timeout.as_millis().min(60_000) as i32;
        // SAFETY: `events` has room for `capacity` entries and outlives the call.
        let rc = unsafe { libc::epoll_wait(epoll, self.events.as_mut_ptr(), capacity, millis) };
        if rc >= 0 {
            return Ok(rc as usize);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::EINTR) { Ok(0) } else { Err(error) }
    }
}

/// Nanoseconds of the system-wide monotonic clock; comparable between processes of one machine.
pub(crate) fn now_ns() -> u64 {
    read_clock(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

/// CPU time of this process so far, all threads, in nanoseconds.
pub(crate) fn own_cpu_ns() -> u64 {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(0)
}

/// CPU time of another process so far, ended threads included, in nanoseconds. `None` if the kernel does not tell.
pub(crate) fn process_cpu_ns(pid: u32) -> Option<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a valid place to write the result to.
    let rc = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if rc == 0 { read_clock(clock) } else { None }
}

fn read_clock(clock: libc::clockid_t) -> Option<u64> {
    let mut time = timespec(0);
    // SAFETY: `time` is a valid place to write the result to.
    let rc = unsafe { libc::clock_gettime(clock, &mut time) };
    (rc == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn timespec(ns: u64) -> libc::timespec {
    libc::timespec { tv_sec: (ns / 1_000_000_000) as libc::time_t, tv_nsec: (ns % 1_000_000_000) as libc::c_long }
}

/// Makes timed waits of the calling thread end when asked instead of up to 50 µs later. Best effort.
pub(crate) fn sharpen_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes one integer and affects the calling thread only.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64);
    }
}

/// Lets the calling thread run only while nothing else wants its CPU.
pub(crate) fn run_when_idle() -> io::Result<()> {
    // SAFETY: an all-zero sched_param is valid; its only field has to be 0 for this policy.
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `param` lives for the call; pid 0 is the calling thread.
    let rc = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &param) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Restricts the calling thread, and what it starts afterwards, to these CPUs.
pub(crate) fn pin(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no CPU {cpu}")));
        }
        // SAFETY: `cpu` was checked to lie inside the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is initialised and its true size is given; pid 0 is the calling thread.
    let rc = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The CPUs the calling thread may use.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` may be written to over its true size; pid 0 is the calling thread.
    let rc = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if rc < 0 {
        return Vec::new();
    }
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: `cpu` lies inside the set.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

/// Raises the limit of open files as far as permitted and returns it.
pub(crate) fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place to write the result to.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } < 0 {
        return 1024;
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is initialised and lives for the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } < 0 {
        return before;
    }
    limit.rlim_cur
}

/// Asks a process to end (SIGTERM). Only given pids of our own children.
pub(crate) fn terminate(pid: u32) {
    // SAFETY: kill takes integers only.
    unsafe {
        libc::kill(pid as libc::pid_t, libc::SIGTERM);
    }
}

static STOP_ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_stop(_signal: libc::c_int) {
    STOP_ASKED.store(true, Ordering::Relaxed);
}

/// From now on the first SIGINT or SIGTERM is noted for `stop_asked`; the second one ends the process as usual.
pub(crate) fn watch_stop_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: an all-zero sigaction is valid; the fields that matter are set below.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = note_stop as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESETHAND;
        // SAFETY: the handler only stores to an atomic, which is safe inside a signal handler.
        unsafe {
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Whether a stop signal has arrived.
pub(crate) fn stop_asked() -> bool {
    STOP_ASKED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_advance_and_processes_have_cpu_time() {
        let first = now_ns();
        assert!(first > 0);
        assert!(now_ns() >= first);
        assert!(process_cpu_ns(std::process::id()).is_some());
        assert!(!allowed_cpus().is_empty());
    }
}
