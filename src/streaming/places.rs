//! Where channels are at home.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::fast::{FixedState, RandomState};
use hashbrown::HashMap;

use crate::log::LogId;

/// The log of each channel, and the shard of each log. The same on all shards, and as long as the server runs.
#[derive(Debug)]
pub(super) struct Places {
    logs: u16,
    shards: u16,
    /// Channels of before whose log is another one than the hash says, by name in small letters.
    elsewhere: HashMap<Box<str>, LogId, RandomState>,
}

impl Places {
    /// `known` are the channels that there are already, and the logs that have them.
    pub(super) fn new<'a>(logs: u16, shards: u16, known: impl Iterator<Item = (&'a str, LogId)>) -> Self {
        let mut places = Self { logs, shards, elsewhere: HashMap::default() };
        let known = known.map(|(name, log)| (name.to_lowercase(), log));
        let elsewhere = known.filter(|(name, log)| places.hashed(name.as_bytes()) != *log);
        let elsewhere = elsewhere.map(|(name, log)| (name.into(), log)).collect();
        places.elsewhere = elsewhere;
        places
    }

    pub(super) fn shards(&self) -> u16 {
        self.shards
    }

    /// The shard that has a log.
    pub(super) fn shard_of(&self, log: LogId) -> u16 {
        log.0 % self.shards
    }

    /// The shard and the log where a channel is at home. Names that differ in the case of letters are at home together, so
    /// that there is one who notices.
    #[inline]
    pub(super) fn of(&self, channel: &[u8]) -> (u16, LogId) {
        let log = if self.logs == 1 { LogId(0) } else { self.look_up(channel) };
        (self.shard_of(log), log)
    }

    fn look_up(&self, channel: &[u8]) -> LogId {
        let is_small = channel.iter().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
        let name = match std::str::from_utf8(channel) {
            Ok(name) if is_small => Cow::Borrowed(name),
            _ => Cow::Owned(String::from_utf8_lossy(channel).to_lowercase()),
        };
        self.elsewhere.get(&*name).copied().unwrap_or_else(|| self.hashed(name.as_bytes()))
    }

    fn hashed(&self, name: &[u8]) -> LogId {
        let mut hasher = FixedState::with_seed(SEED).build_hasher();
        hasher.write(name);
        LogId(jump(hasher.finish(), self.logs))
    }
}

/// Part of where channels are: another one would move those that are not yet there, and no others.
const SEED: u64 = 0x6c65_6174;

/// Jump consistent hash (Lamping and Veach, 2014): with one bucket more, every other key stays where it is.
fn jump(mut key: u64, buckets: u16) -> u16 {
    let (mut bucket, mut next) = (0_i64, 0_i64);
    while next < i64::from(buckets) {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
    }
    bucket as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_spread_and_stay() {
        let none = || std::iter::empty::<(&str, LogId)>();
        let (three, four) = (Places::new(3, 3, none()), Places::new(4, 4, none()));
        let names = (0..4000).map(|number| format!("Channel.{number}")).collect::<Vec<_>>();
        let mut counts = [0; 4];
        for name in &names {
            let (shard, log) = four.of(name.as_bytes());
            assert_eq!(shard, log.0);
            counts[usize::from(log.0)] += 1;
            let before = three.of(name.as_bytes()).1;
            assert!(before == log || log == LogId(3), "{name} goes to the new log or nowhere");
            assert_eq!(four.of(name.to_uppercase().as_bytes()), (shard, log));
        }
        assert!(counts.iter().all(|count| *count > 800), "{counts:?}");
        let known = names.iter().map(|name| (name.as_str(), three.of(name.as_bytes()).1));
        let later = Places::new(4, 2, known);
        for name in &names {
            let (shard, log) = later.of(name.as_bytes());
            assert_eq!((shard, log), (log.0 % 2, three.of(name.as_bytes()).1), "{name}");
        }
    }
}
