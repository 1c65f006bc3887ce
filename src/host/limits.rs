//! Limits of this process: raised where the system lets us, judged where not.
#![forbid(unsafe_code)]

use super::Problem;
use super::sys::{self, Limit, Resource, UNLIMITED};

/// How often a shard registers its io_memory: once with each of its rings.
const RINGS_PER_SHARD: u64 = 3;

/// Locked memory that the rings of one shard need beside io_memory.
const RING_BYTES_PER_SHARD: u64 = 512 << 10;

/// Descriptors that are not client connections: rings, eventfds, listeners, log, monitoring.
const OTHER_FILES: u64 = 64;

/// Makes room for the memory that shards register with io_uring, or says how much is missing. Without this check a
/// shard would fall back to slower memory in silence, or fail with a misleading message.
pub fn check_locked_memory(shards: usize, io_memory: usize) -> Result<(), Problem> {
    let needed = (RINGS_PER_SHARD * io_memory as u64 + RING_BYTES_PER_SHARD) * shards as u64;
    let limit = raise(Resource::LockedMemory, needed);
    judge_locked_memory(limit, needed)
}

/// Raises the limit of open files; the result is a warning when not all connections will fit.
pub fn check_open_files(max_connections: usize) -> Option<Problem> {
    let needed = max_connections as u64 + OTHER_FILES;
    judge_open_files(raise(Resource::OpenFiles, needed), max_connections)
}

/// Raises the soft limit to the hard one, and the hard one to `needed` where privilege allows it. Returns the soft
/// limit then in force.
fn raise(resource: Resource, needed: u64) -> u64 {
    let Ok(limit) = sys::limit(resource) else {
        return UNLIMITED;
    };
    for attempt in attempts(limit, needed) {
        if sys::set_limit(resource, attempt).is_ok() {
            return attempt.soft;
        }
    }
    limit.soft
}

/// Limits to try, the most generous first. An unlimited hard limit stays, but the soft one is then set to what is
/// needed: the kernel refuses "unlimited" for open files.
fn attempts(limit: Limit, needed: u64) -> Vec<Limit> {
    let to_hard = Limit { soft: limit.hard, hard: limit.hard };
    if limit.hard == UNLIMITED {
        let to_needed = Limit { soft: limit.soft.max(needed), hard: limit.hard };
        return vec![to_hard, to_needed];
    }
    if limit.hard < needed {
        return vec![Limit { soft: needed, hard: needed }, to_hard];
    }
    vec![to_hard]
}

fn judge_locked_memory(soft: u64, needed: u64) -> Result<(), Problem> {
    if soft >= needed {
        return Ok(());
    }
    Err(Problem::new(
        format!("{} KiB of locked memory are allowed, {} KiB are needed", soft >> 10, needed >> 10),
        "LimitMEMLOCK=infinity in the systemd unit, or ulimit -l unlimited; fewer --cores or less --io-memory need less",
    ))
}

fn judge_open_files(soft: u64, max_connections: usize) -> Option<Problem> {
    let needed = max_connections as u64 + OTHER_FILES;
    (soft < needed).then(|| {
        Problem::new(
            format!("{soft} open files are allowed, {needed} are needed for {max_connections} connections"),
            "LimitNOFILE= in the systemd unit, or ulimit -n; or lower --max_connections",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A privileged process gets what it needs, an ordinary one whatever its hard limit grants.
    #[test]
    fn what_is_tried() {
        let limit = |soft, hard| Limit { soft, hard };
        assert_eq!(attempts(limit(10, 100), 50), [limit(100, 100)]);
        assert_eq!(attempts(limit(10, 100), 500), [limit(500, 500), limit(100, 100)]);
        assert_eq!(attempts(limit(10, UNLIMITED), 500), [limit(UNLIMITED, UNLIMITED), limit(500, UNLIMITED)]);
        assert_eq!(attempts(limit(900, UNLIMITED), 500)[1], limit(900, UNLIMITED));
    }

    #[test]
    fn verdicts() {
        assert_eq!(judge_locked_memory(UNLIMITED, 1 << 30), Ok(()));
        let problem = judge_locked_memory(64 << 10, 2560 << 10).unwrap_err().to_string();
        assert!(problem.starts_with("64 KiB of locked memory are allowed, 2560 KiB are needed: LimitMEMLOCK="));
        assert!(judge_open_files(65536 + 64, 65536).is_none());
        let problem = judge_open_files(1024, 65536).unwrap().to_string();
        assert!(problem.starts_with("1024 open files are allowed, 65600 are needed for 65536 connections: "));
    }
}
