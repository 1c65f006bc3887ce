//! The links of one shard to all others: two rings each way, spill lists, doorbells.
//!
//! - *Interest* (what this shard's subscriptions want) and *messages* travel on rings of their own; interest is
//!   published first, so a message never overtakes the subscription that caused it.
//! - What does not fit a ring goes to a spill list. Whoever fed it is held: neither read nor written to until the
//!   list is empty. Ring input is always drained, so lists empty and shards cannot deadlock (see `sim`).
//! - Batches carry the time of their commit; `Peers::note` and `Peers::next_batch` merge the rings by it.
//!
//! Bounds: `ring_slots` batches and `ring_bytes` per direction in rings. A spill list holds at most what the
//! connections read in one turn after it became non-empty (64 KiB each), and answers to ring input.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use super::account::PeerPos;
use super::batch::{Batch, InterestBatch};
use super::io::Io;
use crate::ring::{Consumer, Producer, Sleeper, ring, ring_with_budget};

/// An open batch is committed when it has grown to this, so that the receiver starts while the turn goes on.
const BATCH_BYTES: usize = 64 << 10;
/// Most shards in one server: peers are bits of a `u64`.
pub const SHARDS_MAX: usize = 64;

/// One shard's ends of the mesh.
#[derive(Debug)]
pub struct Links {
    pub(crate) shard: u16,
    pub(crate) sleepers: Arc<[Sleeper]>,
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
    let mut all: Vec<Links> =
        (0..shards).map(|n| Links { shard: n as u16, sleepers: sleepers.clone(), peers: Vec::new() }).collect();
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
    spill_interest: VecDeque<InterestBatch>,
    /// Connections that put something into `open` or into interest this turn.
    feeders: Vec<Feeder>,
    /// Connections that wait until the spill lists are empty.
    held: Vec<Feeder>,
    /// Count of published input batches at the last note.
    noted: u64,
    published: bool,
}

/// All links of a shard.
#[derive(Debug)]
pub(crate) struct Peers {
    shard: u16,
    sleepers: Arc<[Sleeper]>,
    peers: Vec<Peer>,
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
            })
            .collect();
        Self {
            shard: links.shard,
            sleepers: links.sleepers,
            peers,
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

    /// Position of another shard.
    pub(crate) fn position(&self, shard: u16) -> PeerPos {
        debug_assert_ne!(shard, self.shard);
        (if shard < self.shard { shard } else { shard - 1 }) as PeerPos
    }

    /// The batch that goes to `pos` at the end of the turn.
    #[inline]
    pub(crate) fn open(&mut self, pos: PeerPos) -> &mut Batch {
        &mut self.peers[usize::from(pos)].open
    }

    /// Whether the open batch is large enough to be committed in mid-turn.
    #[inline]
    pub(crate) fn is_large(&self, pos: PeerPos) -> bool {
        self.peers[usize::from(pos)].open.len() >= BATCH_BYTES
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
                peer.spill_interest.push_back(std::mem::take(&mut peer.open_interest));
            } else {
                peer.published = true;
            }
        }
        self.interest.clear();
    }

    /// Publishes the open batch of every peer, stamped `now`. Interest has gone before.
    pub(crate) fn commit_messages(&mut self, now: u64) {
        for pos in 0..self.peers.len() {
            self.commit_to(pos as PeerPos, now);
        }
    }

    /// Publishes the open batch of one peer.
    pub(crate) fn commit_to(&mut self, pos: PeerPos, now: u64) {
        let peer = &mut self.peers[usize::from(pos)];
        if !peer.open.is_empty() {
            peer.open.stamp = now;
            let must_wait = !peer.spill.is_empty() || !peer.spill_interest.is_empty();
            if must_wait || !peer.push_open() {
                let full = std::mem::replace(&mut peer.open, self.spare.pop().unwrap_or_default());
                peer.spill_bytes += full.len();
                peer.spill.push_back(full);
            }
        }
        peer.drain_spill(&mut self.spare);
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
                peer.drain_interest();
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
    }

    /// Rings the peers that sleep and were sent something.
    pub(crate) fn ring<I: Io>(&mut self, io: &mut I) {
        for peer in &mut self.peers {
            if std::mem::take(&mut peer.published) && self.sleepers[usize::from(peer.link.shard)].needs_wake() {
                io.ring(peer.link.shard);
            }
        }
    }

    /// Notes the heads of the message rings. `true` if there is anything to handle.
    #[inline]
    pub(crate) fn note<I: Io>(&mut self, io: &mut I) -> bool {
        if !self.has_input() {
            return false;
        }
        // The clock is read before the heads: a batch committed after another one was seen on some socket has a
        // later stamp than this, and waits for the next look even if its ring shows it already.
        self.noted_at = io.now();
        for peer in &mut self.peers {
            peer.noted = peer.link.messages.1.head();
        }
        true
    }

    /// Whether any ring holds something for this shard.
    #[inline]
    pub(crate) fn has_input(&self) -> bool {
        self.peers.iter().any(|peer| {
            peer.link.messages.1.head() != peer.link.messages.1.position()
                || peer.link.interest.1.head() != peer.link.interest.1.position()
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
            let consumer = &mut peer.link.messages.1;
            if consumer.position() >= peer.noted {
                continue;
            }
            let stamp = consumer.peek().expect("published up to the noted head").stamp;
            if stamp <= self.noted_at && oldest.is_none_or(|(_, least)| stamp < least) {
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

    /// Whether anything waits for room in a ring.
    pub(crate) fn is_spilled(&self) -> bool {
        self.peers.iter().any(Peer::is_spilled)
    }

    /// Bytes in spill lists.
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

    /// Pushes `open` if ring and budget have room.
    fn push_open(&mut self) -> bool {
        push(&mut self.link.messages.0, &mut self.open, &mut self.published)
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
        while let Some(batch) = self.spill_interest.front_mut() {
            if self.link.interest.0.push(batch).is_err() {
                break;
            }
            self.published = true;
            self.spill_interest.pop_front();
        }
    }

    fn drain_spill(&mut self, spare: &mut Vec<Batch>) {
        self.drain_interest();
        while self.spill_interest.is_empty()
            && let Some(batch) = self.spill.front_mut()
        {
            let bytes = batch.len();
            if !push(&mut self.link.messages.0, batch, &mut self.published) {
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

fn push(ring: &mut Producer<Batch>, batch: &mut Batch, published: &mut bool) -> bool {
    let bytes = batch.len() as u64;
    if ring.push_with_bytes(batch, bytes).is_err() {
        return false;
    }
    batch.clear();
    *published = true;
    true
}
