//! What channels may hold: limits for all of them, and for those of some names.
//!
//! An [override](ChannelOverride) is given for a name or a pattern. What it leaves open comes from the next wider one
//! that matches it, and in the end from the limits of all channels. Which of two is wider is decided by the first token
//! in which they differ: `>` is wider than `*`, and `*` than a name. A channel has what the narrowest one that matches
//! it says. All this is as in the reference.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::channel_pattern_is_valid;
use crate::subject::{self, ONE, PatternMap, REST};

/// Limits of the service as a whole and of its channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Channels; 0 = unlimited.
    pub max_channels: u64,
    /// Limits of channels without any of their own.
    pub of_all: ChannelLimits,
    /// Limits for channels of some names.
    pub overrides: Overrides,
}

/// Limits of one channel. 0 = unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelLimits {
    /// Subscriptions, durable ones without a client and queue groups included.
    pub max_subs: u64,
    /// Messages; the oldest ones go.
    pub max_msgs: u64,
    /// Bytes of messages; the oldest ones go, and the newest one stays.
    pub max_bytes: u64,
    /// Age of messages; older ones go.
    pub max_age: Duration,
    /// Time without a message and without an active subscription, after which the channel goes.
    pub max_inactivity: Duration,
}

/// Limits of some channels: what is absent comes from a wider override or from the limits of all channels, and 0 means
/// unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelOverride {
    /// See [`ChannelLimits::max_subs`].
    pub max_subs: Option<u64>,
    /// See [`ChannelLimits::max_msgs`].
    pub max_msgs: Option<u64>,
    /// See [`ChannelLimits::max_bytes`].
    pub max_bytes: Option<u64>,
    /// See [`ChannelLimits::max_age`].
    pub max_age: Option<Duration>,
    /// See [`ChannelLimits::max_inactivity`].
    pub max_inactivity: Option<Duration>,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { max_channels: 100, of_all: ChannelLimits::default(), overrides: Overrides::default() }
    }
}

impl Default for ChannelLimits {
    fn default() -> Self {
        Self {
            max_subs: 1000,
            max_msgs: 1_000_000,
            max_bytes: 1_024_000_000,
            max_age: Duration::ZERO,
            max_inactivity: Duration::ZERO,
        }
    }
}

impl StoreLimits {
    /// Whether one more channel may be created where there are so many.
    #[must_use]
    pub fn has_room(&self, channels: u64) -> bool {
        self.max_channels == 0 || channels < self.max_channels
    }

    /// The limits of a channel. Costs a look-up, however many overrides there are.
    #[must_use]
    pub fn of(&self, channel: &str) -> ChannelLimits {
        self.overrides.of(channel).map_or(self.of_all, |own| own.over(self.of_all))
    }

    /// The limits of each name and pattern that there is an override for, in the order of their bytes: what is left
    /// open has been filled in.
    pub fn resolved(&self) -> impl Iterator<Item = (&str, ChannelLimits)> {
        let mut list: Vec<&Entry> = self.overrides.entries.iter().collect();
        list.sort_unstable_by(|a, b| a.pattern.cmp(&b.pattern));
        list.into_iter().map(|entry| (entry.pattern.as_str(), entry.whole.over(self.of_all)))
    }

    /// The rule that the limits break together, in the reference's words.
    pub(super) fn check(&self) -> Result<(), String> {
        let literals = self.overrides.patterns().filter(|pattern| !subject::has_wildcard(pattern.as_bytes()));
        let defined = literals.count() as u64;
        if self.max_channels == 0 || defined <= self.max_channels {
            return Ok(());
        }
        Err(format!("too many channels defined ({defined}). The max channels limit is set to {}", self.max_channels))
    }
}

impl ChannelOverride {
    /// This one, and `wider` for what it leaves open.
    fn or(self, wider: Self) -> Self {
        Self {
            max_subs: self.max_subs.or(wider.max_subs),
            max_msgs: self.max_msgs.or(wider.max_msgs),
            max_bytes: self.max_bytes.or(wider.max_bytes),
            max_age: self.max_age.or(wider.max_age),
            max_inactivity: self.max_inactivity.or(wider.max_inactivity),
        }
    }

    fn over(self, limits: ChannelLimits) -> ChannelLimits {
        ChannelLimits {
            max_subs: self.max_subs.unwrap_or(limits.max_subs),
            max_msgs: self.max_msgs.unwrap_or(limits.max_msgs),
            max_bytes: self.max_bytes.unwrap_or(limits.max_bytes),
            max_age: self.max_age.unwrap_or(limits.max_age),
            max_inactivity: self.max_inactivity.unwrap_or(limits.max_inactivity),
        }
    }
}

/// Overrides by the names and patterns that they are given for.
#[derive(Clone, Default)]
pub struct Overrides {
    /// From the widest to the narrowest.
    entries: Vec<Entry>,
    /// Positions in `entries`, added in their order, in which they are found again.
    index: Arc<PatternMap<usize>>,
}

#[derive(Clone)]
struct Entry {
    pattern: String,
    /// As it is given.
    own: ChannelOverride,
    /// With what comes from wider ones.
    whole: ChannelOverride,
}

impl Overrides {
    /// These and more; what is added counts where both have one for the same pattern.
    ///
    /// # Errors
    /// Where one of them is for something else than a [pattern](channel_pattern_is_valid).
    pub fn with(mut self, more: impl IntoIterator<Item = (String, ChannelOverride)>) -> Result<Self, String> {
        for (pattern, own) in more {
            if !channel_pattern_is_valid(&pattern) {
                return Err(format!("invalid channel name \"{}\"", pattern.escape_debug()));
            }
            self.entries.push(Entry { pattern, own, whole: own });
        }
        // Of equal ones the last one given counts, so it is brought to the front.
        self.entries.reverse();
        self.entries.sort_by(|a, b| by_width(&a.pattern, &b.pattern));
        self.entries.dedup_by(|later, first| later.pattern == first.pattern);
        let mut index = PatternMap::default();
        for (position, entry) in self.entries.iter().enumerate() {
            index.push(&key(&entry.pattern), position);
        }
        for position in 0..self.entries.len() {
            let entry = &self.entries[position];
            let covering = index.matching(&key(&entry.pattern));
            let wider = covering.iter().rev().find(|other| ***other < position);
            self.entries[position].whole = match wider {
                Some(wider) => entry.own.or(self.entries[**wider].whole),
                None => entry.own,
            };
        }
        self.index = Arc::new(index);
        Ok(self)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The names and patterns, from the widest to the narrowest.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.pattern.as_str())
    }

    /// Whether there is one for this channel.
    #[must_use]
    pub fn cover(&self, channel: &str) -> bool {
        self.of(channel).is_some()
    }

    fn of(&self, channel: &str) -> Option<ChannelOverride> {
        let narrowest = *self.index.matching(&key(channel)).into_iter().next_back()?;
        Some(self.entries[narrowest].whole)
    }
}

impl PartialEq for Overrides {
    fn eq(&self, other: &Self) -> bool {
        let all = |overrides: &Self| overrides.entries.iter().map(|entry| (entry.pattern.clone(), entry.own)).collect();
        let [own, others]: [Vec<_>; 2] = [all(self), all(other)];
        own == others
    }
}

impl Eq for Overrides {}

impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|entry| (&entry.pattern, &entry.own))).finish()
    }
}

/// Wider patterns first, and equal ones side by side.
fn by_width(a: &str, b: &str) -> Ordering {
    fn ranks(pattern: &str) -> impl Iterator<Item = (u8, &[u8])> {
        subject::tokens(pattern.as_bytes()).map(|token| match token {
            REST => (0, token),
            ONE => (1, token),
            name => (2, name),
        })
    }
    ranks(a).cmp(ranks(b))
}

/// What a pattern or a channel is called in the index, which knows subjects only: blanks, which may stand in names of
/// channels and not in subjects, become bytes that do not occur in text.
fn key(name: &str) -> Cow<'_, [u8]> {
    if !name.contains([' ', '\t', '\r', '\n']) {
        return Cow::Borrowed(name.as_bytes());
    }
    let stand_in = |byte| match byte {
        b' ' => 0xf8,
        b'\t' => 0xf9,
        b'\r' => 0xfa,
        b'\n' => 0xfb,
        other => other,
    };
    Cow::Owned(name.bytes().map(stand_in).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(overrides: &[(&str, ChannelOverride)]) -> StoreLimits {
        let of_all = ChannelLimits {
            max_subs: 14,
            max_msgs: 11,
            max_bytes: 12,
            max_age: 13 * SECOND,
            max_inactivity: 15 * SECOND,
        };
        let overrides = overrides.iter().map(|(pattern, own)| ((*pattern).to_owned(), *own));
        StoreLimits { max_channels: 0, of_all, overrides: Overrides::default().with(overrides).unwrap() }
    }

    /// Messages, bytes, age, subscriptions, inactivity; 0 leaves it open, -1 means unlimited.
    fn own(numbers: [i64; 5]) -> ChannelOverride {
        let [max_msgs, max_bytes, max_age, max_subs, max_inactivity] = numbers.map(|number| match number {
            0 => None,
            _ => Some(u64::try_from(number).unwrap_or(0)),
        });
        let time = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        ChannelOverride { max_subs, max_msgs, max_bytes, max_age: time(max_age), max_inactivity: time(max_inactivity) }
    }

    fn numbers(limits: ChannelLimits) -> [u64; 5] {
        let ChannelLimits { max_subs, max_msgs, max_bytes, max_age, max_inactivity } = limits;
        [max_msgs, max_bytes, max_age.as_secs(), max_subs, max_inactivity.as_secs()]
    }

    /// The reference's own example of inheritance, in any order of the file.
    #[test]
    fn what_is_left_open_comes_from_the_next_wider_pattern() {
        let mut given = vec![
            ("*.*", own([0, 2, 0, 0, 0])),
            ("*.>", own([0, 0, 0, 5, 0])),
            ("foo.>", own([10, 0, 0, 0, 0])),
            ("foo.*.>", own([0, 20, 0, 0, 0])),
            ("foo.*.*.>", own([0, 0, 30, 0, 0])),
            ("foo.a.b.c", own([0, 0, 0, 40, 0])),
            ("foo.d.e.f", own([50, 0, 60, 0, 0])),
            ("foo.baz", own([0, 70, 0, 80, 0])),
            ("bar.*.>", own([90, 0, 0, 0, 0])),
            ("bar.baz.>", own([0, 100, 0, 0, 110])),
            ("bar.baz.boz", own([0, 0, 0, 0, 120])),
            ("bar.baz.bat", own([0, 0, 0, 0, 110])),
        ];
        let expected = [
            ("*.*", [11, 2, 13, 5, 15]),
            ("*.>", [11, 12, 13, 5, 15]),
            ("bar.*.>", [90, 12, 13, 5, 15]),
            ("bar.baz.>", [90, 100, 13, 5, 110]),
            ("bar.baz.bat", [90, 100, 13, 5, 110]),
            ("bar.baz.boz", [90, 100, 13, 5, 120]),
            ("foo.*.*.>", [10, 20, 30, 5, 15]),
            ("foo.*.>", [10, 20, 13, 5, 15]),
            ("foo.>", [10, 2, 13, 5, 15]),
            ("foo.a.b.c", [10, 20, 30, 40, 15]),
            ("foo.baz", [10, 70, 13, 80, 15]),
            ("foo.d.e.f", [50, 20, 60, 5, 15]),
        ];
        for _ in 0..given.len() {
            given.rotate_left(1);
            let limits = limits(&given);
            let resolved: Vec<_> = limits.resolved().map(|(pattern, limits)| (pattern, numbers(limits))).collect();
            assert_eq!(resolved, expected);
        }
        given.reverse();
        let limits = limits(&given);
        let order: Vec<&str> = limits.overrides.patterns().collect();
        assert_eq!(order[..5], ["*.>", "*.*", "bar.*.>", "bar.baz.>", "bar.baz.bat"]);
        for (channel, expected) in [
            ("foo.a.b.c", [10, 20, 30, 40, 15]),
            ("foo.a.b.d", [10, 20, 30, 5, 15]),
            ("foo.x", [10, 2, 13, 5, 15]),
            ("bar.baz", [11, 2, 13, 5, 15]),
            ("bar.baz.x.y", [90, 100, 13, 5, 110]),
            ("x", [11, 12, 13, 14, 15]),
        ] {
            assert_eq!(numbers(limits.of(channel)), expected, "{channel}");
        }
    }

    /// `w.*` has its own messages and the age of `w.>`, and a channel obeys the narrowest pattern; unlimited is a value
    /// like others, and so is more than all channels may have.
    #[test]
    fn the_narrowest_match_counts() {
        let limits = limits(&[
            ("w.*", own([3, 0, 0, 0, 0])),
            ("w.>", own([2, 0, 60, 0, 0])),
            ("w.a", own([-1, 99, -1, 0, 0])),
            ("*.b", own([7, 0, 0, 0, 0])),
            ("w.c d", own([8, 0, 0, 0, 0])),
        ]);
        for (channel, expected) in [
            ("w.x", [3, 12, 60, 14, 15]),
            ("w.x.y", [2, 12, 60, 14, 15]),
            ("w.a", [0, 99, 0, 14, 15]),
            ("w.b", [3, 12, 60, 14, 15]),
            ("v.b", [7, 12, 13, 14, 15]),
            ("w.c d", [8, 12, 60, 14, 15]),
            ("w", [11, 12, 13, 14, 15]),
            ("W.x", [11, 12, 13, 14, 15]),
        ] {
            assert_eq!(numbers(limits.of(channel)), expected, "{channel}");
        }
        assert!(limits.overrides.cover("w.q") && !limits.overrides.cover("w"));
    }

    /// The reference makes the chain by walking over all its patterns; the outcome is the same.
    #[test]
    fn inheritance_is_the_references() {
        let tokens = ["a", "b", "*", ">"];
        let mut patterns: Vec<String> = Vec::new();
        for first in tokens {
            patterns.push(first.to_owned());
            for second in tokens.iter().filter(|_| first != ">") {
                patterns.push(format!("{first}.{second}"));
                for third in tokens.iter().filter(|_| *second != ">") {
                    patterns.push(format!("{first}.{second}.{third}"));
                }
            }
        }
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            random.shuffle(&mut patterns);
            let chosen = &patterns[..random.usize(1..12)];
            let given: Vec<(&str, ChannelOverride)> = chosen
                .iter()
                .enumerate()
                .map(|(i, pattern)| (pattern.as_str(), own([0; 5].map(|_: i64| random.i64(0..3) * (i as i64 + 1)))))
                .collect();
            let limits = limits(&given);
            let expected = walked(&limits);
            assert_eq!(
                limits.resolved().map(|(name, limits)| (name.to_owned(), limits)).collect::<HashMap<_, _>>(),
                expected
            );
        }
    }

    /// As the reference does it: from the widest pattern on, all that match it are given what is missing by the one
    /// before them, unless they have it already.
    fn walked(limits: &StoreLimits) -> HashMap<String, ChannelLimits> {
        let mut done: HashMap<String, ChannelLimits> = HashMap::new();
        for pattern in limits.overrides.patterns() {
            let mut before = limits.of_all;
            for entry in &limits.overrides.entries {
                if subject::matches(entry.pattern.as_bytes(), pattern.as_bytes()) {
                    before = *done.entry(entry.pattern.clone()).or_insert_with(|| entry.own.over(before));
                }
            }
        }
        done
    }

    /// Later ones replace earlier ones, and what is no name or pattern is refused.
    #[test]
    fn overrides_are_collected() {
        let one = |name: &str, max_msgs| [(name.to_owned(), own([max_msgs, 0, 0, 0, 0]))];
        let both = Overrides::default().with(one("a", 1)).unwrap().with(one("a", 2)).unwrap();
        assert_eq!(both, Overrides::default().with(one("a", 2)).unwrap());
        assert_ne!(both, Overrides::default().with(one("a", 1)).unwrap());
        let twice = Overrides::default().with(one("a", 1).into_iter().chain(one("a", 2))).unwrap();
        assert_eq!(both, twice);
        for name in ["foo.*bar", "foo.**.bar", "foo.>.bar", "foo.", ".foo", "foo/bar", ""] {
            let error = Overrides::default().with(one(name, 1)).unwrap_err();
            assert_eq!(error, format!("invalid channel name \"{name}\""));
        }
    }

    /// Wildcards do not count as channels, and no number of channels is too high where there is no limit.
    #[test]
    fn the_number_of_channels() {
        let mut limits = limits(&["a", "b", "c.*", "d.>", "e"].map(|name| (name, ChannelOverride::default())));
        assert_eq!(limits.check(), Ok(()));
        limits.max_channels = 3;
        assert_eq!(limits.check(), Ok(()));
        limits.max_channels = 2;
        let error = "too many channels defined (3). The max channels limit is set to 2";
        assert_eq!(limits.check(), Err(error.to_owned()));
        assert!(limits.has_room(1) && !limits.has_room(2));
        limits.max_channels = 0;
        assert!(limits.has_room(u64::MAX));
    }
}
