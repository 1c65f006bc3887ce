//! Runs a shard on a glommio executor: one task takes turns, one accepts, one waits for the doorbell.
//!
//! glommio polls its reactor only when its task queue is empty, so a driver with work goes through the reactor every
//! `REACTOR_INTERVAL`: a ping beside saturating publishers otherwise waits for the preempt timer. A pass costs a few
//! system calls, so turns in between go without. Between turns without work it may spin for a moment (`Spin`).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use glommio::net::{AcceptedTcpStream, TcpListener, TcpStream};
use glommio::timer::Timer;

use super::doorbell::Doorbell;
use super::ready::ReadyList;
use super::sockets::Sockets;
use crate::monitor::{ShardSnapshot, Want};
use crate::shard::{Next, Shard, Shared};

/// What other threads ask of a shard. Followed by a ring of its doorbell.
#[derive(Debug)]
pub enum Order {
    /// Take over a connection that another shard has accepted.
    Adopt(AcceptedTcpStream),
    /// Answer a monitoring request.
    Snapshot(Want, Sender<ShardSnapshot>),
    /// Accept no more connections; answered when the listener is closed.
    StopListening(Sender<()>),
    /// Send the lame duck INFO to clients.
    AnnounceLameDuck,
    /// Close so many connections.
    CloseSome(usize),
    /// Read what has arrived, once; answered after that turn.
    DrainInput(Sender<()>),
    /// Close what has nothing queued; answered with the number of connections left.
    CloseIdle(Sender<usize>),
    /// Leave.
    Stop,
}

/// Everything a shard's thread starts from.
pub struct Plan {
    /// The shard.
    pub shard: Shard,
    /// Facts and counters of all shards.
    pub shared: Arc<Shared>,
    /// Orders from other threads, and the ways to give orders to the other shards.
    pub orders: Receiver<Order>,
    /// Orders to every shard, by index.
    pub all_orders: Arc<[Sender<Order>]>,
    /// Doorbells of all shards, by index.
    pub bells: Arc<[Doorbell]>,
    /// The shard's own listening socket, bound with SO_REUSEPORT.
    pub listener: std::net::TcpListener,
    /// Zero of the clock that all shards share.
    pub epoch: Instant,
    /// Longest spin between turns.
    pub spin: Duration,
}

/// Longest pause after a failed accept (10 ms doubling to 1 s, as the reference server does).
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Connections accepted before other tasks of the shard get their turn.
const ACCEPTS_IN_A_ROW: u32 = 16;
/// How long a shard with work takes turns without a look at the reactor. Bounds what a quiet connection waits.
const REACTOR_INTERVAL: Duration = Duration::from_micros(200);
/// How far ahead the timer is set that takes the driver through the reactor once.
const REACTOR_PASS: Duration = Duration::from_micros(1);

/// Runs the shard until [`Order::Stop`].
///
/// # Errors
/// When the doorbell or the listener cannot be set up.
pub async fn run(plan: Plan, started: impl FnOnce()) -> std::io::Result<()> {
    let Plan { shard, shared, orders, all_orders, bells, listener, epoch, spin } = plan;
    let id = shard.id();
    let ready = Arc::new(ReadyList::default());
    let bell = bells[usize::from(id)].listener()?;
    let ringing = {
        let ready = ready.clone();
        glommio::spawn_local(async move {
            while bell.wait().await.is_ok() {
                ready.wake_driver();
            }
        })
    };
    let sockets = Sockets::new(ready.clone(), bells.clone(), epoch);
    let core = Rc::new(Core { inner: RefCell::new((shard, sockets)), stop: Cell::new(false) });
    let accepting = {
        let (core, ready) = (core.clone(), ready.clone());
        glommio::spawn_local(accept(listener, core, ready, shared, all_orders, bells))
    };
    started();
    drive(&core, &ready, &orders, Spin::new(spin), accepting).await;
    ringing.cancel().await;
    Ok(())
}

struct Core {
    inner: RefCell<(Shard, Sockets)>,
    stop: Cell<bool>,
}

type Accepting = glommio::Task<()>;

async fn drive(core: &Core, ready: &ReadyList, orders: &Receiver<Order>, mut spin: Spin, accepting: Accepting) {
    let mut accepting = Some(accepting);
    let mut last_pass = Instant::now();
    let mut woken = Vec::new();
    let mut drained: Vec<Sender<()>> = Vec::new();
    loop {
        while let Ok(order) = orders.try_recv() {
            if let Order::StopListening(done) = order {
                if let Some(task) = accepting.take() {
                    task.cancel().await;
                }
                // Nobody waiting for the answer is no reason to go on listening.
                let _ = done.send(());
                continue;
            }
            core.obey(order, &mut drained);
        }
        ready.take(&mut woken);
        let next = {
            let (shard, sockets) = &mut *core.inner.borrow_mut();
            shard.turn(sockets, &mut woken)
        };
        for done in drained.drain(..) {
            let _ = done.send(());
        }
        if core.stop.get() {
            break;
        }
        match next {
            Next::Again => {
                spin.found_work();
                if last_pass.elapsed() >= REACTOR_INTERVAL {
                    pass_reactor().await;
                    last_pass = Instant::now();
                }
            }
            Next::Sleep { worked: true, .. } if spin.found_work() => pass_reactor().await,
            Next::Sleep { worked: false, .. } if spin.goes_on() => pass_reactor().await,
            Next::Sleep { deadline, .. } => {
                if core.announce_sleep(orders) {
                    pass_reactor().await;
                } else {
                    core.sleep(ready, deadline).await;
                    spin.woke();
                }
                core.inner.borrow().0.sleeper().cancel();
            }
        }
    }
    if let Some(task) = accepting.take() {
        task.cancel().await;
    }
}

impl Core {
    fn obey(&self, order: Order, drained: &mut Vec<Sender<()>>) {
        let (shard, sockets) = &mut *self.inner.borrow_mut();
        match order {
            Order::Adopt(accepted) => adopt(shard, sockets, accepted),
            Order::Snapshot(want, answer) => {
                let _ = answer.send(shard.snapshot(&want));
            }
            Order::AnnounceLameDuck => shard.announce_lame_duck(),
            Order::CloseSome(count) => shard.close_some(sockets, count),
            Order::DrainInput(done) => {
                shard.drain_input();
                drained.push(done);
            }
            Order::CloseIdle(answer) => {
                let _ = answer.send(shard.close_idle(sockets));
            }
            Order::StopListening(_) => unreachable!("handled by the driver, which owns the accepting task"),
            Order::Stop => self.stop.set(true),
        }
    }

    /// Announces that the shard sleeps, then looks once more; `true` if something came in between.
    fn announce_sleep(&self, orders: &Receiver<Order>) -> bool {
        let (shard, sockets) = &mut *self.inner.borrow_mut();
        shard.sleeper().prepare_to_sleep();
        shard.recheck(sockets) || !orders.is_empty()
    }

    async fn sleep(&self, ready: &ReadyList, deadline: Option<u64>) {
        let mut timer = deadline.map(|at| {
            let now = crate::shard::io::Io::now(&mut self.inner.borrow_mut().1);
            Timer::new(Duration::from_nanos(at.saturating_sub(now)))
        });
        poll_fn(|context| {
            if ready.park(context.waker()) {
                return Poll::Ready(());
            }
            match timer.as_mut().map(|timer| Pin::new(timer).poll(context)) {
                Some(Poll::Ready(_)) => Poll::Ready(()),
                // Woken, but not by the timer: the ready list or the doorbell has signalled.
                _ => Poll::Pending,
            }
        })
        .await;
    }
}

/// Lets the reactor be polled once.
async fn pass_reactor() {
    Timer::new(REACTOR_PASS).await;
}

fn adopt(shard: &mut Shard, sockets: &mut Sockets, accepted: AcceptedTcpStream) {
    let stream = accepted.bind_to_executor();
    let Ok(peer) = stream.peer_addr() else {
        // Gone before it was looked at.
        return shard.disown();
    };
    // Latency over packet count; a socket that is already gone shows so at the first read.
    let _ = stream.set_nodelay(true);
    if peer.ip().is_loopback() {
        plain_congestion_control(&stream);
    }
    sockets.insert(shard.next_slot(), stream);
    shard.accept(sockets, peer);
}

/// There is no congestion on the loopback interface, and where BBR is the machine's default its pacing timers cost
/// about a fifth of the CPU time per message (see `perf/`). Reno is always there.
fn plain_congestion_control(stream: &TcpStream) {
    use std::os::fd::AsRawFd;
    let name = b"reno";
    // SAFETY: pointer and length describe a live constant, which the kernel only reads. Failure changes nothing.
    unsafe {
        let (name, len) = (name.as_ptr().cast(), name.len() as libc::socklen_t);
        libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, name, len);
    }
}

/// One permanent accept loop: a pending `accept` is never dropped before the listener goes: that loses connections.
async fn accept(
    listener: std::net::TcpListener,
    core: Rc<Core>,
    ready: Arc<ReadyList>,
    shared: Arc<Shared>,
    all_orders: Arc<[Sender<Order>]>,
    bells: Arc<[Doorbell]>,
) {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: the descriptor is a listening socket that is owned here and handed over whole.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    let own = core.inner.borrow().0.id();
    let mut backoff = ACCEPT_BACKOFF_MIN;
    let mut since_pause = 0u32;
    loop {
        let accepted = match listener.shared_accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!("Temporary Client Accept Error ({error}), sleeping {}ms", backoff.as_millis());
                Timer::new(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
                continue;
            }
        };
        backoff = ACCEPT_BACKOFF_MIN;
        let chosen = shared.place(own);
        if chosen == own {
            let (shard, sockets) = &mut *core.inner.borrow_mut();
            adopt(shard, sockets, accepted);
            ready.wake_driver();
        } else if all_orders[usize::from(chosen)].send(Order::Adopt(accepted)).is_ok() {
            bells[usize::from(chosen)].ring();
        }
        // A storm of connections leaves room for turns.
        since_pause += 1;
        if since_pause.is_multiple_of(ACCEPTS_IN_A_ROW) {
            pass_reactor().await;
        }
    }
}

/// Spins between turns while that has been worth it lately.
///
/// A shard that found work while spinning may spin up to the full time again; each spin in vain halves it, so that a
/// shard woken now and then parks at once.
#[derive(Debug)]
struct Spin {
    max: Duration,
    now: Duration,
    since: Option<Instant>,
    wakes: u32,
}

/// Every so many wake-ups a shard that has given up spinning tries again.
const SPIN_PROBE: u32 = 16;

impl Spin {
    fn new(max: Duration) -> Self {
        Self { max, now: max, since: None, wakes: 0 }
    }

    /// Begins to spin anew; `true` if there is spinning at all.
    fn found_work(&mut self) -> bool {
        if self.since.take().is_some() {
            self.now = self.max;
        }
        !self.now.is_zero()
    }

    /// Whether to look at the reactor once more instead of parking.
    fn goes_on(&mut self) -> bool {
        if self.now.is_zero() {
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.now {
            return true;
        }
        self.since = None;
        self.now = if self.now > self.max / 8 { self.now / 2 } else { Duration::ZERO };
        false
    }

    fn woke(&mut self) {
        self.since = None;
        self.wakes = self.wakes.wrapping_add(1);
        if self.now.is_zero() && self.wakes.is_multiple_of(SPIN_PROBE) {
            self.now = self.max;
        }
    }
}
