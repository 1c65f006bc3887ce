//! Streams, consumers and the log together, against a naive model.

use super::disk::Faults;
use super::world::{Shape, World};
use super::{is_whole_run, seeds};
use crate::log::DiskFault;
use crate::store::{Got, Notice};
use crate::stream::{self, Inbound, Purge, Purged};

fn run(seed: u64, faults: Faults) {
    let mut world = World::new(seed, faults, Shape::Plain);
    for life in 0..4 {
        world.context = format!("seed {seed}, life {life}");
        for _ in 0..world.rng.usize(1..600) {
            match world.rng.u8(..12) {
                0..=6 => world.act(),
                7..=9 => world.step(),
                10 => world.acknowledge(),
                _ => world.now += world.rng.i64(0..20_000_000),
            }
        }
        if world.rng.u8(..3) == 0 {
            world.settle();
            check(&mut world);
        }
        let clean = world.rng.u8(..4) == 0;
        world.restart(clean);
    }
}

fn check(world: &mut World) {
    for index in 0..world.streams.len() {
        let is_as_expected = world.check(index);
        assert!(is_as_expected, "{}: stream {index} differs from the model: {}", world.context, world.difference);
    }
}

/// Returns how many publishes were refused.
fn run_full(seed: u64) -> u64 {
    let mut world = World::new(seed, Faults::default(), Shape::Plain);
    world.disk.capacity = world.rng.u64(9 << 20..20 << 20);
    for life in 0..3 {
        world.context = format!("seed {seed}, life {life}");
        for _ in 0..world.rng.usize(100..2500) {
            match world.rng.u8(..12) {
                0..=8 => world.act(),
                9 => world.step(),
                10 => world.acknowledge(),
                _ => world.now += world.rng.i64(0..20_000_000),
            }
        }
        world.settle();
        check(&mut world);
        if world.rng.bool() {
            let clean = world.rng.bool();
            world.restart(clean);
        }
        // Space comes back when it is asked for, and by itself.
        for index in 0..world.streams.len() {
            let purged = (0..100).any(|_| {
                world.now += 100_000_000;
                world.settle();
                world.purge_all(index)
            });
            assert!(purged, "{}: stream {index} cannot be purged", world.context);
        }
        for index in 0..world.streams.len() {
            let takes = (0..200).any(|_| {
                world.now += 100_000_000;
                world.settle();
                world.takes(index)
            });
            assert!(takes, "{}: stream {index} takes nothing any more: {:?}", world.context, world.store.log());
        }
        let clean = world.rng.u8(..4) == 0;
        world.restart(clean);
    }
    world.refused
}

/// Returns how many duplicates and how many redeliveries there were.
fn run_rich(seed: u64, faults: Faults) -> (u64, u64) {
    let mut world = World::new(seed, faults, Shape::Rich);
    for life in 0..4 {
        world.context = format!("seed {seed}, life {life}");
        // Time passes now slowly and now fast.
        let pace = world.rng.i64(1..200_000_000);
        for _ in 0..world.rng.usize(1..500) {
            match world.rng.u8(..16) {
                0..=6 => world.act(),
                7..=10 => world.step(),
                11 | 12 => world.acknowledge(),
                13 | 14 => world.act_consumers(),
                _ => world.now += world.rng.i64(0..pace),
            }
        }
        match world.rng.u8(..4) {
            0 => {
                world.settle();
                check(&mut world);
            }
            1 => {
                let faults = std::mem::take(&mut world.disk.faults);
                world.drain();
                check(&mut world);
                world.disk.faults = faults;
            }
            _ => {}
        }
        let clean = world.rng.u8(..4) == 0;
        world.restart(clean);
    }
    world.repeated
}

/// What is erased can be found in no file any more, and what lay beside it is there.
#[test]
fn erased_messages_leave_the_disk() {
    erases(None);
}

/// Whether the crash comes before the messages beside it are moved, or between that and the overwriting of the file.
#[test]
fn erased_messages_leave_the_disk_after_a_crash() {
    for steps in [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233] {
        erases(Some(steps));
    }
}

fn erases(crash_after_steps: Option<u32>) {
    let mut world = World::new(7, Faults::default(), Shape::Plain);
    let of = world.store.create_stream(world.now, stream::Config::default(), b"").0;
    let secret = b"the secret that nobody shall find";
    for index in 0..3000_u32 {
        let payload = if index == 1500 { secret.to_vec() } else { vec![index as u8; 400] };
        let message = Inbound { subject: b"s", payload: &payload, ..Default::default() };
        world.store.publish(world.now, of, &message).unwrap();
        if index % 100 == 0 {
            world.settle();
        }
    }
    world.settle();
    assert!(world.disk.contains(secret));
    let erased = world.store.erase(world.now, of, 1501).unwrap();
    if let Some(steps) = crash_after_steps {
        while !world.face.is_proven(erased) {
            world.step();
        }
        for _ in 0..steps {
            world.now += 10_000_000;
            world.step();
        }
        world.restart(false);
    }
    for _ in 0..200 {
        world.now += 100_000_000;
        world.settle();
    }
    assert!(!world.disk.contains(secret));
    let state = world.store.state(of).unwrap().unwrap();
    assert_eq!((state.messages, state.first_seq, state.last_seq), (2999, 1, 3000));
}

/// Streams are bounded by memory, not by the checkpoint that lists them.
#[test]
fn a_log_holds_many_streams() {
    const COUNT: u64 = 60_000;
    let mut world = World::new(13, Faults::default(), Shape::Bare);
    let before = world.store.streams().count() as u64;
    for _ in 0..COUNT {
        let of = world.store.create_stream(world.now, stream::Config::default(), b"").0;
        let message = Inbound { subject: b"s", payload: b"payload", ..Default::default() };
        world.store.publish(world.now, of, &message).unwrap();
        if !world.store.has_room() {
            world.settle();
        }
    }
    world.stop();
    world.disk.crash();
    let report = world.open();
    assert!(report.repairs.is_empty(), "{:?}", report.repairs);
    let found = world.store.streams().filter(|of| world.store.stream(*of).is_some_and(|of| of.last_seq() == 1));
    assert_eq!(found.count() as u64, COUNT, "beside {before}");
}

/// A checkpoint leaves garbage and cleaning moves messages: neither is to call for more of the other for ever.
#[test]
fn upkeep_without_work_ends() {
    let mut world = World::new(29, Faults::default(), Shape::Bare);
    for index in 0..8_000 {
        let of = world.store.create_stream(world.now, stream::Config::default(), &[7; 300]).0;
        world.store.publish(world.now, of, &Inbound { subject: b"s", ..Default::default() }).unwrap();
        if index % 50 == 0 {
            world.settle();
        }
    }
    let mut rest = |seconds: u64| {
        for _ in 0..seconds * 10 {
            world.now += 100_000_000;
            world.settle();
        }
        world.store.log().segments().map(|open| open.segment.0).max()
    };
    assert_eq!(rest(10), rest(60));
}

/// A stop may come while a checkpoint is being written, slice by slice.
#[test]
fn a_stop_in_the_middle_of_a_checkpoint() {
    let mut world = World::new(17, Faults::default(), Shape::Bare);
    let mut created = 0;
    while !world.store.log().is_checkpointing() || created < 2_000 {
        let of = world.store.create_stream(world.now, stream::Config::default(), &[7; 300]).0;
        world.store.publish(world.now, of, &Inbound { subject: b"s", ..Default::default() }).unwrap();
        created += 1;
        assert!(created < 100_000, "no checkpoint is ever written");
        world.step();
    }
    world.store.stop(world.now);
    let stopped = (0..20_000).any(|_| {
        world.step();
        world.store.is_stopped()
    });
    assert!(stopped, "{:?}", world.store.log());
    world.disk.crash();
    let report = world.open();
    assert!(report.repairs.is_empty(), "{:?}", report.repairs);
}

/// A device that fails is an error for whoever wants a message, not a promise for ever; when it works again the message is
/// there.
#[test]
fn a_device_that_fails_is_told() {
    let mut world = World::new(11, Faults::default(), Shape::Plain);
    let of = world.store.create_stream(world.now, stream::Config::default(), b"").0;
    let message = Inbound { subject: b"s", payload: b"payload", ..Default::default() };
    world.store.publish(world.now, of, &message).unwrap();
    world.restart(true);
    let get = |world: &mut World| {
        for _ in 0..20 {
            match world.store.get(of, 1, |_| {}).unwrap() {
                Got::Later => world.step(),
                got => return got,
            }
        }
        panic!("no answer: {:?}", world.face.notices)
    };
    world.disk.faults.reads = 1000;
    for _ in 0..3 {
        assert_eq!(get(&mut world), Got::Unreadable(DiskFault::Io(libc::EIO)));
    }
    assert!(matches!(world.face.notices[0], Notice::ReadFailed { .. }), "{:?}", world.face.notices);
    world.disk.faults.reads = 0;
    world.settle();
    assert_eq!(get(&mut world), Got::Message);
}

/// A message in parts is needed in both of its segments from its first part on, although its stream hears of it when
/// the last one is flushed: what else was in the first segment goes, and the message stays.
#[test]
fn the_beginning_of_a_message_in_parts_stays() {
    for seed in 0..20 {
        let mut world = World::new(seed, Faults::default(), Shape::Plain);
        let of = world.store.create_stream(world.now, stream::Config::default(), b"").0;
        let publish = |world: &mut World, bytes: usize| {
            let payload = (0..bytes).map(|at| at as u8).collect::<Vec<_>>();
            let message = Inbound { subject: b"s", payload: &payload, ..Default::default() };
            world.store.publish(world.now, of, &message).unwrap();
        };
        for round in 1..6 {
            publish(&mut world, 600_000);
            world.settle();
            publish(&mut world, 540_000);
            let purge = Purge { filter: None, below: Some(2 * round), keep: 0 };
            while !matches!(world.store.purge(world.now, of, &purge), Ok(Purged::Done { .. })) {
                world.step();
            }
            // Cleaning goes on while the parts are on their way.
            for _ in 0..30 {
                world.now += 50_000_000;
                world.step();
            }
            world.settle();
            let (_, payload) = world.get(of, 2 * round).expect("is there");
            assert_eq!(payload.len(), 540_000, "seed {seed}, round {round}");
        }
    }
}

/// On a disk that is full messages are refused, nothing is lost, and purges make room again.
#[test]
fn full_disks() {
    let refused = seeds(200).map(run_full).sum::<u64>();
    assert!(!is_whole_run() || refused > 0, "no disk was full");
}

/// Acknowledged publishes, removals and purges survive crashes; what is there is a state that the stream was in.
#[test]
fn crashes() {
    for seed in seeds(1000) {
        run(seed, Faults::default());
    }
}

/// The same while writes, flushes, reads and the making of files fail now and then.
#[test]
fn failing_disks() {
    for seed in seeds(1000) {
        run(seed, Faults { commits: 30, prepares: 30, reads: 30, ..Faults::default() });
    }
}

/// Streams with limits, times, ids and retention of all kinds, and consumers with members and pull requests, keep to
/// the model through crashes: duplicates are recognised, nothing that was acknowledged for good comes again, and
/// everything else does.
#[test]
fn all_configurations() {
    let (duplicates, redeliveries) =
        seeds(1000).map(|seed| run_rich(seed, Faults::default())).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    assert!(
        !is_whole_run() || duplicates > 0 && redeliveries > 0,
        "{duplicates} duplicates, {redeliveries} redeliveries"
    );
}

/// The same while writes, flushes, reads and the making of files fail now and then.
#[test]
fn all_configurations_on_failing_disks() {
    for seed in seeds(500) {
        run_rich(seed, Faults { commits: 30, prepares: 30, reads: 30, ..Faults::default() });
    }
}
