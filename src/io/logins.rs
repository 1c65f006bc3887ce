//! Threads that decide logins which take long: password hashes, signatures.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::doorbell::Doorbell;
use super::driver::Order;
use crate::auth::Check;

/// More threads would only take the processors from the shards.
const THREADS_MAX: usize = 4;
/// Added to the niceness of the threads, so that a storm of logins yields to traffic.
const NICENESS: libc::c_int = 10;

/// A login to be decided. Each connection has at most one under way, so their number is bounded by `max_connections`.
#[derive(Debug)]
pub(super) struct Login {
    /// Where the client is connected.
    pub(super) shard: u16,
    /// Its slot there.
    pub(super) slot: u32,
    /// Its id, since slots are reused.
    pub(super) cid: u64,
    /// What is to be computed.
    pub(super) check: Check,
}

/// The way to the threads. They end when the last copy is gone.
#[derive(Clone, Debug)]
pub struct Logins {
    queue: Sender<Login>,
}

impl Logins {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system allows no further thread.
    pub fn start(orders: &Arc<[Sender<Order>]>, bells: &Arc<[Doorbell]>) -> std::io::Result<Self> {
        let (queue, logins) = unbounded();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        for number in 0..threads {
            let (logins, orders, bells) = (logins.clone(), orders.clone(), bells.clone());
            std::thread::Builder::new()
                .name(format!("leat-login-{number}"))
                .spawn(move || decide(&logins, &orders, &bells))?;
        }
        Ok(Self { queue })
    }

    pub(super) fn push(&self, login: Login) {
        // The threads live as long as anybody can push.
        let _ = self.queue.send(login);
    }
}

fn decide(logins: &Receiver<Login>, orders: &[Sender<Order>], bells: &[Doorbell]) {
    // SAFETY: takes no pointers; 0 names the calling thread. Failure changes nothing but the order of service.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    for Login { shard, slot, cid, check } in logins {
        let order = Order::LoginDecided { slot, cid, grant: check.decide() };
        // A shard that has ended has closed its connections.
        if orders[usize::from(shard)].send(order).is_ok() {
            bells[usize::from(shard)].ring();
        }
    }
}
