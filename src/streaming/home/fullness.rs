//! Whether a channel is full, so that new messages push old ones out: an operator is told once.

use super::{Channel, Home};
use crate::log::Incarnation;
use crate::stream::Stream;
use crate::streaming::ChannelLimits;
use crate::streaming::report::friendly_bytes;

/// Messages until the next look where bytes are limited: exact enough, and not worth mentioning.
const STEP: u64 = 64;

/// What was seen of a channel last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fullness {
    /// Nobody looks before this message; at none at all when it has been told.
    next_look: u64,
    /// The first message, if the channel was full.
    first_of_full: Option<std::num::NonZeroU64>,
}

impl Fullness {
    /// Whether it is time to look, as a message gets this number.
    #[inline]
    pub(super) fn is_due(self, seq: u64) -> bool {
        seq >= self.next_look
    }

    /// Looks. Returns the bytes if messages have been pushed out.
    fn look(&mut self, stream: &Stream, limits: &ChannelLimits) -> Option<u64> {
        let (messages, last) = (stream.messages(), stream.last_seq());
        let bytes = stream.state().map_or(0, |state| state.bytes);
        if limits.max_msgs == 0 && limits.max_bytes == 0 {
            self.next_look = u64::MAX;
            return None;
        }
        let is_full = limits.max_msgs > 0 && messages >= limits.max_msgs
            || limits.max_bytes > 0 && bytes + bytes / messages.max(1) > limits.max_bytes;
        if !is_full {
            let until_full = if limits.max_msgs > 0 { limits.max_msgs - messages } else { u64::MAX };
            let step = if limits.max_bytes > 0 { until_full.min(STEP) } else { until_full };
            (self.next_look, self.first_of_full) = (last.saturating_add(step), None);
            return None;
        }
        let first = std::num::NonZeroU64::new(stream.first_seq());
        if self.first_of_full.is_some_and(|before| first.is_some_and(|first| first > before)) {
            self.next_look = u64::MAX;
            return Some(bytes);
        }
        (self.next_look, self.first_of_full) = (last + 1, self.first_of_full.or(first));
        None
    }
}

impl Home {
    /// Looks whether a channel is full.
    #[cold]
    pub(super) fn look_whether_full(&mut self, channel: usize, of: Incarnation) {
        let (Some(stream), Some(channel)) = (self.store.stream(of), self.channels.get_mut(channel)) else { return };
        let Channel { name, limits, fullness, .. } = &mut **channel;
        if let Some(bytes) = fullness.look(stream, limits) {
            tracing::warn!(
                "STREAM: Reached limits for store {:?} (msgs={}/{} bytes={}/{}), dropping old messages to make room for new ones",
                name,
                stream.messages(),
                limits.max_msgs,
                friendly_bytes(bytes),
                friendly_bytes(limits.max_bytes),
            );
        }
    }
}
