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

/// Makes room for the memory that shards register with io_uring. Where not all of it can be had, shards are given up
/// from the end of `cores`, which is worth the warning returned, or, if `cores` was asked for as it is or not one shard
/// fits, the start is refused. Without this check a shard would fall back to slower memory in silence, or fail with a
/// misleading message.
pub fn fit_locked_memory(
    cores: &mut Vec<usize>,
    cores_are_given: bool,
    io_memory: usize,
) -> Result<Option<Problem>, Problem> {
    let per_shard = RINGS_PER_SHARD * io_memory as u64 + RING_BYTES_PER_SHARD;
    let limit = raise(Resource::LockedMemory, per_shard * cores.len() as u64);
    let (fitting, problem) = judge_locked_memory(limit, per_shard, cores.len(), cores_are_given)?;
    cores.truncate(fitting);
    Ok(problem)
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

/// How many of `wanted` shards to start, and the warning if it is not all of them.
fn judge_locked_memory(
    soft: u64,
    per_shard: u64,
    wanted: usize,
    all_or_none: bool,
) -> Result<(usize, Option<Problem>), Problem> {
    let fitting = usize::try_from(soft / per_shard).unwrap_or(usize::MAX);
    if fitting >= wanted {
        return Ok((wanted, None));
    }
    let needed = per_shard * wanted as u64;
    let what = format!("{} KiB of locked memory are allowed, {} KiB are needed", soft >> 10, needed >> 10);
    let remedy = "LimitMEMLOCK=infinity in the systemd unit, or ulimit -l unlimited";
    if fitting == 0 || all_or_none {
        return Err(Problem::new(what, format!("{remedy}; fewer --cores or less --io-memory need less")));
    }
    let what = format!("{what} for {wanted} cores, only {fitting} of them are used");
    Ok((fitting, Some(Problem::new(what, format!("{remedy}; or choose with --cores")))))
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
        assert!(judge_open_files(65536 + 64, 65536).is_none());
        let problem = judge_open_files(1024, 65536).unwrap().to_string();
        assert!(problem.starts_with("1024 open files are allowed, 65600 are needed for 65536 connections: "));
    }

    /// Fewer shards are started where the user has left their number to the server, and it says so.
    #[test]
    fn shards_that_fit_are_started() {
        const SHARD: u64 = 1280 << 10;
        let judge = |soft, wanted, given| {
            judge_locked_memory(soft, SHARD, wanted, given)
                .map(|(shards, problem)| (shards, problem.map(|problem| problem.to_string())))
                .map_err(|problem| problem.to_string())
        };
        assert_eq!(judge(UNLIMITED, 64, false), Ok((64, None)));
        assert_eq!(judge(4 * SHARD, 4, true), Ok((4, None)));
        let fewer = "8192 KiB of locked memory are allowed, 20480 KiB are needed for 16 cores, only 6 of them are used: \
            LimitMEMLOCK=infinity in the systemd unit, or ulimit -l unlimited; or choose with --cores";
        assert_eq!(judge(8 << 20, 16, false), Ok((6, Some(fewer.to_owned()))));
        assert_eq!(judge(SHARD, 2, false).map(|(shards, problem)| (shards, problem.is_some())), Ok((1, true)));
        let refused = "8192 KiB of locked memory are allowed, 20480 KiB are needed: LimitMEMLOCK=infinity in the \
            systemd unit, or ulimit -l unlimited; fewer --cores or less --io-memory need less";
        assert_eq!(judge(8 << 20, 16, true), Err(refused.to_owned()));
        assert!(judge(SHARD - 1, 1, false).is_err(), "not even one shard fits");
        assert!(judge(0, 2, false).is_err());
    }
}
