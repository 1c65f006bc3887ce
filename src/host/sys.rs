//! The system calls of the start-up checks: the one island of `unsafe` on the control plane.
//!
//! Each function is a safe wrapper around one call, keeps no state and touches no memory after it returns.

use std::ffi::CStr;
use std::io;
use std::mem;

/// The process resource limits that matter to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Memory that may be locked or registered with io_uring.
    LockedMemory,
    /// Open files, sockets included.
    OpenFiles,
}

/// A soft and a hard limit; [`UNLIMITED`] stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// No limit.
pub(crate) const UNLIMITED: u64 = libc::RLIM_INFINITY;

impl Resource {
    fn raw(self) -> libc::__rlimit_resource_t {
        match self {
            Self::LockedMemory => libc::RLIMIT_MEMLOCK,
            Self::OpenFiles => libc::RLIMIT_NOFILE,
        }
    }
}

/// The limits in force.
pub(crate) fn limit(resource: Resource) -> io::Result<Limit> {
    let mut raw = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `raw` is a live, writable rlimit, which is all that getrlimit writes to.
    let code = unsafe { libc::getrlimit(resource.raw(), &mut raw) };
    outcome(code.into())?;
    Ok(Limit { soft: raw.rlim_cur, hard: raw.rlim_max })
}

/// Changes the limits of this process.
pub(crate) fn set_limit(resource: Resource, limit: Limit) -> io::Result<()> {
    let raw = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: `raw` is a live, initialised rlimit, which setrlimit only reads.
    let code = unsafe { libc::setrlimit(resource.raw(), &raw) };
    outcome(code.into()).map(drop)
}

/// The processors this process may run on, ascending.
pub(crate) fn affinity() -> io::Result<Vec<usize>> {
    // SAFETY: a cpu_set_t is a bit array; all bits clear is a valid value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is live and writable and its true size is passed along.
    let code = unsafe { libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &mut set) };
    outcome(code.into())?;
    // SAFETY: CPU_ISSET reads one bit of `set`; every index is below CPU_SETSIZE, the number of bits.
    let listed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    Ok((0..libc::CPU_SETSIZE as usize).filter(listed).collect())
}

/// The kernel's release, such as `6.1.0-13-amd64`.
pub(crate) fn kernel_release() -> io::Result<String> {
    // SAFETY: a utsname consists of character arrays; all zero is a valid value.
    let mut names: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY: `names` is a live, writable utsname, which is all that uname writes to.
    let code = unsafe { libc::uname(&mut names) };
    outcome(code.into())?;
    // SAFETY: uname ends each of its strings with NUL inside the array, and `names` outlives the borrow.
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) };
    Ok(release.to_string_lossy().into_owned())
}

/// Creates and closes a small io_uring.
pub(crate) fn probe_io_uring() -> io::Result<()> {
    const PARAMS_BYTES: usize = 120;
    let mut params = [0_u64; PARAMS_BYTES / 8];
    // SAFETY: io_uring_setup reads and writes one io_uring_params, 120 bytes; the array is that large, aligned to 8
    // and lives until the call returns. Zero asks for no features.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8_u32, params.as_mut_ptr()) };
    let fd = outcome(fd)?;
    // SAFETY: the descriptor was made just above and nobody else knows it.
    unsafe { libc::close(fd as libc::c_int) };
    Ok(())
}

/// Announces that this process will use private expedited memory barriers. Done once while there is a single thread
/// it is instant; later it waits tens of milliseconds for the scheduler.
pub(crate) fn register_membarrier() -> io::Result<()> {
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
    // SAFETY: this membarrier command takes no pointers.
    let code = unsafe { libc::syscall(libc::SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0) };
    outcome(code).map(drop)
}

/// Sends a signal to a process.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes no pointers.
    let code = unsafe { libc::kill(pid, signal) };
    outcome(code.into()).map(drop)
}

/// Bytes of a memory page.
pub(crate) fn page_bytes() -> u64 {
    sysconf(libc::_SC_PAGESIZE).unwrap_or(4096)
}

/// Clock ticks per second in which the kernel states processor time.
pub(crate) fn ticks_per_second() -> u64 {
    sysconf(libc::_SC_CLK_TCK).unwrap_or(100)
}

fn sysconf(name: libc::c_int) -> Option<u64> {
    // SAFETY: sysconf takes no pointers and does not fail in a way that touches memory.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).ok().filter(|value| *value > 0)
}

fn outcome(code: libc::c_long) -> io::Result<libc::c_long> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}
