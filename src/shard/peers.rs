//! The links of one shard to all others: two rings each way, spill lists, doorbells.
//!
//! - *Interest* (what this shard's subscriptions want) and *messages* travel on rings of their own; interest is
//!   published first, so a message never overtakes the subscription that caused it.
//! - What does not fit a ring goes to a spill list. Whoever fed it is held: not read until the list is empty. Ring
//!   input is always drained, so lists empty and shards cannot deadlock (see `sim`).
//! - Batches carry the time of their commit; `Peers::note` and `Peers::next_batch` merge the rings by it.
//! - The batches of one commit appear to all peers at once: receivers go no further than the sender's `Horizon`,
//!   which moves when the last of them, and all interest before them, is in its ring. Until then the sender writes to
//!   none of its sockets.
//!
//! Bounds: `ring_slots` batches and `ring_bytes` per direction in rings. A spill list holds at most what the
//! connections read in one turn after it became non-empty (64 KiB each), and what ring input brings about: answers, and
//! queue messages that are passed on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use super::account::PeerPos;
use super::batch::{Batch, InterestBatch};
use super::io::Io;
use super::rules::{Rule, broken};
use crate::ring::{Consumer, Horizon, Producer, Sleeper, ring, ring_with_budget};

/// An open batch is committed when it has grown to this, so that the receiver starts while the turn goes on.
const BATCH_BYTES: usize = if cfg!(test) { 1 << 10 } else { 64 << 10 };
/// Most shards in one server: peers are bits of a `u64`.
pub const SHARDS_MAX: usize = 64;

/// One shard's ends of the mesh.
#[derive(Debug)]
pub struct Links {
    pub(crate) shard: u16,
    pub(crate) sleepers: Arc<[Sleeper]>,
    /// By shard: how far its batches may be taken, as stamps.
    horizons: Arc<[Horizon]>,
    peers: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    shard: u16,
    messages: (Producer<Batch>, Consumer<Batch>),
    interest: (Producer<InterestBatch>, Consumer<InterestBatch>),
    /// Set by the producer that waits for room: towards the peer, from the peer.
    starved: (Arc<AtomicBool>, Arc<AtomicBool>),
}

/// Builds the rings between `shards` shards.
///
/// # Panics
/// If `shards` is 0 or above [`SHARDS_MAX`].
#[must_use]
pub fn mesh(shards: usize, ring_slots: usize, ring_bytes: usize) -> Vec<Links> {
    assert!((1..=SHARDS_MAX).contains(&shards), "between 1 and {SHARDS_MAX} shards, not {shards}");
    let sleepers: Arc<[Sleeper]> = (0..shards).map(|_| Sleeper::default()).collect();
    let horizons: Arc<[Horizon]> = (0..shards).map(|_| Horizon::default()).collect();
    let links = |shard| Links { shard, sleepers: sleepers.clone(), horizons: horizons.clone(), peers: Vec::new() };
    let mut all: Vec<Links> = (0..shards).map(|n| links(n as u16)).collect();
    for a in 0..shards {
        for b in a + 1..shards {
            let (a_to_b, b_from_a) = ring_with_budget(ring_slots, ring_bytes as u64);
            let (b_to_a, a_from_b) = ring_with_budget(ring_slots, ring_bytes as u64);
            let (a_to_b_interest, b_from_a_interest) = ring(ring_slots);
            let (b_to_a_interest, a_from_b_interest) = ring(ring_slots);
            let (a_starved, b_starved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            all[a].peers.push(Link {
                shard: b as u16,
                messages: (a_to_b, a_from_b),
                interest: (a_to_b_interest, a_from_b_interest),
                starved: (a_starved.clone(), b_starved.clone()),
            });
            all[b].peers.push(Link {
                shard: a as u16,
                messages: (b_to_a, b_from_a),
                interest: (b_to_a_interest, b_from_a_interest),
                starved: (b_starved, a_starved),
            });
        }
    }
    // Positions follow shard numbers: a shard's own number is left out.
    for links in &mut all {
        links.peers.sort_by_key(|link| link.shard);
    }
    all
}

/// A connection that may have to be held: slot and id.
pub(crate) type Feeder = (u32, u64);

/// What became of what a connection fed to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in the ring.
    Passed,
    /// It is in a spill list: the connection has to wait.
    Held,
    /// It has left the spill list: the connection may go on.
    Released,
}

#[derive(Debug)]
struct Peer {
    link: Link,
    open: Batch,
    spill: VecDeque<Batch>,
    spill_bytes: usize,
    open_interest: InterestBatch,
    /// Interest that waits for room, and the stamp of the last commit before it.
    spill_interest: VecDeque<(InterestBatch, u64)>,
    /// Connections that put something into `open` or into interest this turn.
    feeders: Vec<Feeder>,
    /// Connections that wait until the spill lists are empty.
    held: Vec<Feeder>,
    /// The peer's horizon at the last note.
    noted: u64,
    /// It has got something, and is rung at the end of the turn if it sleeps.
    published: bool,
    /// Its ring may hold batches behind this shard's horizon.
    hidden: bool,
}

/// All links of a shard.
#[derive(Debug)]
pub(crate) struct Peers {
    shard: u16,
    sleepers: Arc<[Sleeper]>,
    horizons: Arc<[Horizon]>,
    peers: Vec<Peer>,
    /// Stamp of the last commit, and how far commits are shown.
    stamp: u64,
    shown: u64,
    interest: InterestBatch,
    /// Emptied batches of spill lists, for reuse.
    spare: Vec<Batch>,
    noted_at: u64,
}

impl Peers {
    pub(crate) fn new(links: Links) -> Self {
        let peers = links
            .peers
            .into_iter()
            .map(|link| Peer {
                link,
                open: Batch::default(),
                spill: VecDeque::new(),
                spill_bytes: 0,
                open_interest: InterestBatch::default(),
                spill_interest: VecDeque::new(),
                feeders: Vec::new(),
                held: Vec::new(),
                noted: 0,
                published: false,
                hidden: false,
            })
            .collect();
        Self {
            shard: links.shard,
            sleepers: links.sleepers,
            horizons: links.horizons,
            peers,
            stamp: 0,
            shown: 0,
            interest: InterestBatch::default(),
            spare: Vec::new(),
            noted_at: 0,
        }
    }

    pub(crate) fn shard(&self) -> u16 {
        self.shard
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// A bit for every peer.
    pub(crate) fn all(&self) -> u64 {
        (1u64 << self.peers.len()).wrapping_sub(1)
    }

    /// Position of another shard, if there is one of that number.
    pub(crate) fn find(&self, shard: u16) -> Option<PeerPos> {
        (usize::from(shard) <= self.peers.len() && shard != self.shard).then(|| self.position(shard))
    }

    /// Position of another shard.
    pub(crate) fn position(&self, shard: u16) -> PeerPos {
        debug_assert_ne!(shard, self.shard);
        (if shard < self.shard { shard } else { shard - 1 }) as PeerPos
    }

    /// The shard at a position.
    pub(crate) fn shard_at(&self, pos: PeerPos) -> u16 {
        self.peers[usize::from(pos)].link.shard
    }

    /// The peers among `shards`, a bit for each shard, as a bit for each peer.
    pub(crate) fn mask(&self, shards: u64) -> u64 {
        let below = (1 << self.shard) - 1;
        shards & below | shards >> 1 & !below
    }

    /// The batch that goes to `pos` at the end of the turn.
    #[inline]
    pub(crate) fn open(&mut self, pos: PeerPos) -> &mut Batch {
        &mut self.peers[usize::from(pos)].open
    }

    /// Whether an open batch for the peers of `mask` is large enough to be committed in mid-turn.
    #[inline]
    pub(crate) fn has_large(&self, mut mask: u64) -> bool {
        while mask != 0 {
            if self.peers[mask.trailing_zeros() as usize].open.len() >= BATCH_BYTES {
                return true;
            }
            mask &= mask - 1;
        }
        false
    }

    /// Remembers that `feeder` feeds the peers of `mask` this turn.
    pub(crate) fn feed(&mut self, mut mask: u64, feeder: Feeder) {
        while mask != 0 {
            self.peers[mask.trailing_zeros() as usize].feeders.push(feeder);
            mask &= mask - 1;
        }
    }

    /// Adds a change of interest, for all peers.
    pub(crate) fn push_interest(&mut self, account: u32, old: u32, new: u32, key: &[u8]) {
        self.interest.push(account, old, new, key);
    }

    /// Publishes the interest gathered so far to every peer.
    pub(crate) fn commit_interest(&mut self) {
        if self.interest.len() == 0 {
            return;
        }
        for peer in &mut self.peers {
            peer.open_interest.copy_from(&self.interest);
            peer.drain_interest();
            if !peer.spill_interest.is_empty() || peer.link.interest.0.push(&mut peer.open_interest).is_err() {
                peer.spill_interest.push_back((std::mem::take(&mut peer.open_interest), self.stamp));
            } else {
                peer.published = true;
            }
        }
        self.interest.clear();
    }

    /// Publishes the open batches of all peers, stamped `now`. Interest has gone before.
    pub(crate) fn commit_messages(&mut self, now: u64) {
        if self.peers.iter().any(|peer| !peer.open.is_empty()) {
            self.stamp = now.max(self.stamp + 1);
        }
        for peer in &mut self.peers {
            peer.commit(self.stamp, &mut self.spare);
        }
        self.show();
    }

    /// Moves the horizon to the last commit of which everything is in the rings, the interest before it included:
    /// whoever sees a message may tell a third shard, which must know what its sender had subscribed to.
    fn show(&mut self) {
        let shown = self.peers.iter().filter_map(Peer::waits_behind).min().unwrap_or(self.stamp);
        if shown == self.shown {
            return;
        }
        debug_assert!(shown > self.shown, "the horizon goes from {} to {shown}", self.shown);
        self.shown = shown;
        self.horizons[usize::from(self.shard)].show(shown);
        for peer in &mut self.peers {
            peer.published |= peer.hidden;
            peer.hidden &= shown < self.stamp;
        }
    }

    /// Ends the turn towards the peers. `tell` is called with the peer's bit for every connection that fed a peer, and
    /// for every one that was held for it.
    pub(crate) fn settle(&mut self, mut tell: impl FnMut(Feeder, u64, Fate)) {
        for (pos, peer) in self.peers.iter_mut().enumerate() {
            let bit = 1 << pos;
            if peer.is_spilled() {
                for feeder in peer.feeders.drain(..) {
                    tell(feeder, bit, Fate::Held);
                    peer.held.push(feeder);
                }
                // The consumer rings when it has made room; look again, for it may have done so before it saw the
                // flag. The fences on both sides make sure that one of the two sees the other.
                peer.link.starved.0.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                peer.drain_spill(&mut self.spare);
            } else {
                peer.feeders.drain(..).for_each(|feeder| tell(feeder, bit, Fate::Passed));
            }
            if !peer.held.is_empty() && !peer.is_spilled() {
                peer.link.starved.0.store(false, Ordering::Relaxed);
                for feeder in peer.held.drain(..) {
                    tell(feeder, bit, Fate::Released);
                }
            }
        }
        self.show();
    }

    /// Rings the peers that sleep and were sent something. `true` if any peer was.
    pub(crate) fn ring<I: Io>(&mut self, io: &mut I) -> bool {
        let mut any = false;
        for peer in &mut self.peers {
            if std::mem::take(&mut peer.published) {
                any = true;
                if self.sleepers[usize::from(peer.link.shard)].needs_wake() {
                    io.ring(peer.link.shard);
                }
            }
        }
        any
    }

    /// Notes how far the message rings are filled. `true` if there is anything to handle.
    #[inline]
    pub(crate) fn note<I: Io>(&mut self, io: &mut I) -> bool {
        if !self.has_input() {
            return false;
        }
        // The clock is read before the horizons: a batch committed after another one was seen on some socket has a
        // later stamp than this, and waits for the next look even if its sender shows it already.
        self.noted_at = io.now();
        for peer in &mut self.peers {
            peer.noted = self.horizons[usize::from(peer.link.shard)].mark();
        }
        true
    }

    /// Whether any ring holds something for this shard.
    #[inline]
    pub(crate) fn has_input(&mut self) -> bool {
        let horizons = &self.horizons;
        self.peers.iter_mut().any(|peer| {
            let horizon = || horizons[usize::from(peer.link.shard)].mark();
            peer.link.messages.1.peek().is_some_and(|batch| batch.stamp <= horizon() || broken(Rule::ShownOneByOne))
                || peer.link.interest.1.peek().is_some()
        })
    }

    /// Applies all interest that has arrived.
    pub(crate) fn take_interest(&mut self, mut apply: impl FnMut(PeerPos, u32, u32, u32, &[u8])) {
        for (pos, peer) in self.peers.iter_mut().enumerate() {
            while let Some(batch) = peer.link.interest.1.peek() {
                for (account, old, new, key) in batch.changes() {
                    apply(pos as PeerPos, account, old, new, key);
                }
                batch.clear();
                peer.link.interest.1.release();
                peer.made_room();
            }
        }
    }

    /// The oldest batch that was noted and not handled yet: its peer, and the batch taken out of the ring.
    pub(crate) fn next_batch(&mut self) -> Option<(PeerPos, Batch)> {
        let mut oldest: Option<(usize, u64)> = None;
        for (pos, peer) in self.peers.iter_mut().enumerate() {
            let Some(batch) = peer.link.messages.1.peek() else { continue };
            let stamp = batch.stamp;
            let is_shown = stamp <= peer.noted || broken(Rule::ShownOneByOne);
            let in_time = stamp <= self.noted_at || broken(Rule::BeyondNote);
            if is_shown && in_time && oldest.is_none_or(|(_, least)| stamp < least && !broken(Rule::RingByRing)) {
                oldest = Some((pos, stamp));
            }
        }
        let (pos, _) = oldest?;
        let consumer = &mut self.peers[pos].link.messages.1;
        let batch = std::mem::take(consumer.peek().expect("seen above"));
        Some((pos as PeerPos, batch))
    }

    /// Gives a handled batch back to its ring slot, for its buffers to be reused.
    pub(crate) fn finish_batch(&mut self, pos: PeerPos, mut batch: Batch) {
        batch.clear();
        let peer = &mut self.peers[usize::from(pos)];
        let consumer = &mut peer.link.messages.1;
        *consumer.peek().expect("taken from there") = batch;
        consumer.release();
        peer.made_room();
    }

    /// Frees the buffers that empty batches keep: called when the shard has been idle for long. There is one for each
    /// slot of each ring.
    pub(crate) fn trim(&mut self) {
        self.spare = Vec::new();
        for peer in &mut self.peers {
            peer.link.messages.0.drop_spares();
            peer.link.interest.0.drop_spares();
            if peer.open.is_empty() {
                peer.open = Batch::default();
            }
        }
    }

    /// Whether anything waits for room in a ring.
    pub(crate) fn is_spilled(&self) -> bool {
        self.peers.iter().any(Peer::is_spilled)
    }

    /// Bytes of messages in spill lists.
    #[cfg(test)]
    pub(crate) fn spill_bytes(&self) -> usize {
        self.peers.iter().map(|peer| peer.spill_bytes).sum()
    }

    /// This shard's own flag, for the driver that puts it to sleep.
    pub(crate) fn sleeper(&self) -> &Sleeper {
        &self.sleepers[usize::from(self.shard)]
    }
}

impl Peer {
    fn is_spilled(&self) -> bool {
        !self.spill.is_empty() || !self.spill_interest.is_empty()
    }

    /// Whether interest waits for room, so that messages would overtake it.
    fn withholds_messages(&self) -> bool {
        !self.spill_interest.is_empty() && !broken(Rule::MessagesBeforeInterest)
    }

    /// Stamp of the last commit before the first thing that waits for room.
    fn waits_behind(&self) -> Option<u64> {
        let message = self.spill.front().map(|batch| batch.stamp - 1);
        let interest = self.spill_interest.front().map(|(_, behind)| *behind);
        let interest = interest.filter(|_| !broken(Rule::MessagesBeforeInterest));
        [message, interest].into_iter().flatten().min()
    }

    /// Puts the open batch into the ring, or behind what waits for room there.
    fn commit(&mut self, stamp: u64, spare: &mut Vec<Batch>) {
        if !self.open.is_empty() {
            self.open.stamp = stamp;
            let must_wait = !self.spill.is_empty() || self.withholds_messages();
            if must_wait || !push(&mut self.link.messages.0, &mut self.open, &mut self.hidden) {
                let full = std::mem::replace(&mut self.open, spare.pop().unwrap_or_default());
                self.spill_bytes += full.len();
                self.spill.push_back(full);
            }
        }
        self.drain_spill(spare);
    }

    /// A ring slot was given back: a producer that waits for room is rung at the end of the turn.
    fn made_room(&mut self) {
        let starved = &self.link.starved.1;
        fence(Ordering::SeqCst);
        if starved.load(Ordering::Relaxed) && starved.swap(false, Ordering::Relaxed) {
            self.published = true;
        }
    }

    fn drain_interest(&mut self) {
        while let Some((batch, _)) = self.spill_interest.front_mut() {
            if self.link.interest.0.push(batch).is_err() {
                break;
            }
            self.published = true;
            self.spill_interest.pop_front();
        }
    }

    fn drain_spill(&mut self, spare: &mut Vec<Batch>) {
        self.drain_interest();
        while !self.withholds_messages()
            && let Some(batch) = self.spill.front_mut()
        {
            let bytes = batch.len();
            if !push(&mut self.link.messages.0, batch, &mut self.hidden) {
                break;
            }
            self.spill_bytes -= bytes;
            if let Some(mut recycled) = self.spill.pop_front()
                && spare.len() < SPARE_BATCHES
            {
                recycled.clear();
                spare.push(recycled);
            }
        }
    }
}

const SPARE_BATCHES: usize = 8;

fn push(ring: &mut Producer<Batch>, batch: &mut Batch, hidden: &mut bool) -> bool {
    let bytes = batch.len() as u64;
    if ring.push_with_bytes(batch, bytes).is_err() {
        return false;
    }
    batch.clear();
    *hidden = true;
    true
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
