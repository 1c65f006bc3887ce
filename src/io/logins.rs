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

/// Logins in the order in which they are decided: those of clients that will say nothing more come after all others,
/// and those of clients that are gone do not come at all.
#[derive(Clone, Debug)]
struct Queue {
    logins: Receiver<Login>,
    leaving: (Sender<Login>, Receiver<Login>),
}

impl Queue {
    fn new(logins: Receiver<Login>) -> Self {
        Self { logins, leaving: unbounded() }
    }

    /// The next one, when there is one; `None` when no more will come.
    fn next(&self) -> Option<Login> {
        let (put_back, leaving) = &self.leaving;
        loop {
            let login = match self.logins.try_recv() {
                Ok(login) => login,
                Err(_) => match leaving.try_recv() {
                    Ok(login) if login.check.presence().is_gone() => continue,
                    Ok(login) => return Some(login),
                    Err(_) => self.logins.recv().ok()?,
                },
            };
            let presence = login.check.presence();
            if presence.is_gone() {
                continue;
            }
            if !presence.is_leaving() {
                return Some(login);
            }
            // Both ends of this channel are here.
            let _ = put_back.send(login);
        }
    }
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
        let logins = Queue::new(logins);
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

fn decide(logins: &Queue, orders: &[Sender<Order>], bells: &[Doorbell]) {
    // SAFETY: takes no pointers; 0 names the calling thread. Failure changes nothing but the order of service.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    while let Some(Login { shard, slot, cid, check }) = logins.next() {
        check.presence().set_begun();
        let order = Order::LoginDecided { slot, cid, grant: check.decide() };
        // A shard that has ended has closed its connections.
        if orders[usize::from(shard)].send(order).is_ok() {
            bells[usize::from(shard)].ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Answer, Client, Directory};
    use crate::config::authorization::ConnectionType;
    use crate::config::{Options, Secret};
    use crate::wire::connect::Connect;

    /// Whoever still waits comes first, whoever may be gone comes last, and whoever is gone costs nothing.
    #[test]
    fn who_waits_comes_first() {
        let hash = Secret::new("$2b$04$abcdefghijklmnopqrstuv");
        let directory = Directory::new(&Options { auth_token: Some(hash), ..Options::default() });
        let ip = std::net::Ipv4Addr::LOCALHOST.into();
        let client = Client { kind: ConnectionType::Standard, nonce: "", certificate: None, ip };
        let connect = Connect { auth_token: Some("x".into()), ..Connect::default() };
        let (sender, logins) = unbounded();
        let queue = Queue::new(logins);
        let presences: Vec<_> = (0..6)
            .map(|cid| {
                let Answer::Undecided(check) = directory.check(&connect, &client) else { panic!("a hash is slow") };
                let presence = check.presence().clone();
                sender.send(Login { shard: 0, slot: 0, cid, check }).expect("the queue is there");
                presence
            })
            .collect();
        let next = || queue.next().map(|login| login.cid);
        [0, 1, 3].iter().for_each(|cid: &usize| presences[*cid].set_leaving());
        [0, 4].iter().for_each(|cid: &usize| presences[*cid].set_gone());
        assert_eq!([next(), next()], [Some(2), Some(5)]);
        presences[3].set_gone();
        drop(sender);
        assert_eq!([next(), next()], [Some(1), None]);
    }
}
