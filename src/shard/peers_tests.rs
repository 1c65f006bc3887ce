//! Commits as other shards see them, with full rings.

use super::*;
use crate::shard::batch::Origin;
use crate::shard::io::{Recv, Sent};

/// A clock, and the doorbells that were rung.
#[derive(Default)]
struct Bells {
    now: u64,
    rung: Vec<u16>,
}

impl Io for Bells {
    fn now(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn recv(&mut self, _: u32, _: &mut [u8]) -> Recv {
        Recv::Nothing
    }

    fn send(&mut self, _: u32, _: &[std::io::IoSlice<'_>]) -> Sent {
        Sent::Failed
    }

    fn close(&mut self, _: u32) {}

    fn decide(&mut self, _: u32, _: u64, _: crate::auth::Check) {}

    fn ring(&mut self, shard: u16) {
        self.rung.push(shard);
    }

    fn wall(&mut self) -> crate::log::Time {
        panic!("no shard has a service");
    }

    fn file(&mut self, _log: crate::log::LogId, _request: crate::log::Request) {
        panic!("no shard has a service");
    }

    fn file_answers(&mut self, _answers: &mut Vec<crate::log::Answer>) {
        panic!("no shard has a service");
    }
}

fn three_shards(io: &mut Bells) -> [Peers; 3] {
    let mut all = mesh(3, 2, 1 << 20).into_iter().map(Peers::new);
    io.now = 100;
    [(); 3].map(|()| all.next().expect("three shards"))
}

fn commit(sender: &mut Peers, io: &mut Bells, to: &[PeerPos]) {
    for pos in to {
        sender.open(*pos).push_stall(Origin { shard: 0, conn: 0, cid: 0 }, 1);
    }
    sender.commit_messages(io.now());
    sender.settle(|_, _, _| {});
}

fn handle_all(receiver: &mut Peers, io: &mut Bells) -> usize {
    let mut handled = 0;
    if receiver.note(io) {
        receiver.take_interest(|_, _, _, _, _| {});
        while let Some((pos, batch)) = receiver.next_batch() {
            receiver.finish_batch(pos, batch);
            handled += 1;
        }
    }
    handled
}

/// A message to two shards must not be acted upon by one of them while it waits for room on its way to the other.
#[test]
fn a_commit_appears_to_all_peers_at_once() {
    let mut io = Bells::default();
    let [mut zero, mut one, mut two] = three_shards(&mut io);
    commit(&mut zero, &mut io, &[0]);
    commit(&mut zero, &mut io, &[0]);
    commit(&mut zero, &mut io, &[0, 1]);
    assert!(zero.is_spilled() && zero.spill_bytes() > 0);
    assert!(!two.has_input(), "the first shard has not got it yet");
    assert_eq!(handle_all(&mut one, &mut io), 2);
    two.sleeper().prepare_to_sleep();
    zero.ring(&mut io);
    assert!(io.rung.is_empty(), "nothing to wake up for");
    commit(&mut zero, &mut io, &[]);
    assert!(!zero.is_spilled());
    zero.ring(&mut io);
    assert_eq!(io.rung, [2]);
    assert_eq!((handle_all(&mut one, &mut io), handle_all(&mut two, &mut io)), (1, 1));
}

/// Who gets a message may tell a third shard of it, which then has to know what its sender had subscribed to.
#[test]
fn a_commit_does_not_appear_before_interest_that_waits() {
    let mut io = Bells::default();
    let [mut zero, mut one, mut two] = three_shards(&mut io);
    for _ in 0..3 {
        zero.push_interest(0, 0, 1, b"x");
        zero.commit_interest();
        one.take_interest(|_, _, _, _, _| {});
    }
    commit(&mut zero, &mut io, &[0]);
    assert_eq!(handle_all(&mut one, &mut io), 0, "shard 2 does not know all interest yet");
    assert_eq!(handle_all(&mut two, &mut io), 0);
    commit(&mut zero, &mut io, &[]);
    assert_eq!(handle_all(&mut one, &mut io), 1);
}

/// A ring keeps the buffers of batches that have passed, until the shard rests.
#[test]
fn trimming_frees_the_buffers_in_the_rings() {
    let mut io = Bells::default();
    let [mut zero, mut one, _] = three_shards(&mut io);
    // By then the two slots have taken turns, and the open batch is one that has been through the ring.
    let passes = |zero: &mut Peers, one: &mut Peers, io: &mut Bells| {
        for _ in 0..3 {
            commit(zero, io, &[0]);
            assert_eq!(handle_all(one, io), 1);
        }
        zero.open(0).capacity()
    };
    assert!(passes(&mut zero, &mut one, &mut io) > 0);
    zero.trim();
    for _ in 0..2 {
        assert_eq!(zero.open(0).capacity(), 0);
        commit(&mut zero, &mut io, &[0]);
    }
    assert_eq!(handle_all(&mut one, &mut io), 2);
    assert!(passes(&mut zero, &mut one, &mut io) > 0);
}
