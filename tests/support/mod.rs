//! The harness of the integration tests: it starts the real binary on free ports in a directory of its own, talks to
//! it through plain blocking sockets, and stops it again.
//!
//! The tests judge two programs. By default they start Leat. With `LEAT_TEST_PEER=/path/to/nats-server` in the
//! environment they start that reference server instead, which is how expectations are verified before Leat has to meet
//! them. What only one of the two can be asked is guarded by [`Server::is_leat`] and [`skip_on_peer`]. The tests of the
//! streaming service take theirs, a nats-streaming-server, from `LEAT_TEST_STREAMING_PEER`.
//!
//! Nothing here waits for a fixed time: whatever takes time is awaited by condition with [`wait_until`] or by a read
//! with a deadline.

#![allow(dead_code, unused_imports, unused_macros, reason = "every test crate uses its own part of the harness")]

mod client;
pub(crate) mod config;
mod http;
pub(crate) mod jwt;
mod server;

use std::time::{Duration, Instant};

pub(crate) use client::{Client, Msg, PATIENCE, show};
pub(crate) use http::{HttpReply, http_get_over};
pub(crate) use server::{Finished, Server, ServerBuilder, run};

/// Polls `condition` until it yields a value. Panics with `what` when that has not happened after `limit`.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "gave up after {limit:?} waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Polls until `condition` holds. Panics with `what` when it does not within `limit`.
pub(crate) fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

/// True when the tests run against the reference server, after saying that `test` needs Leat and is skipped.
pub(crate) fn skip_on_peer(test: &str) -> bool {
    let skipped = server::peer_binary().is_some();
    if skipped {
        eprintln!("skipped on the reference server: {test}");
    }
    skipped
}

/// Lifts the soft limit of open files to the hard one, for tests with many connections, and returns it.
pub(crate) fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, writable rlimit for the duration of both calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0, "getrlimit failed");
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0, "setrlimit failed");
    }
    limit.rlim_cur
}

/// Writes one module per shard count, each running every listed test function with that count:
///
/// ```ignore
/// shard_suite!(one_shard = 1, three_shards = 3 => { delivers, keeps_order });
/// fn delivers(shards: usize) { … }
/// ```
macro_rules! shard_suite {
    (@module $module:ident $shards:literal { $($test:ident),* $(,)? }) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::$test($shards);
                }
            )*
        }
    };
    ($($module:ident = $shards:literal),+ => $tests:tt) => {
        $( crate::support::shard_suite!(@module $module $shards $tests); )+
    };
}
pub(crate) use shard_suite;
