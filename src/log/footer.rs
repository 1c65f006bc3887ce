//! What the segment that is being written holds of each stream.

use std::collections::BTreeMap;

use super::ids::Incarnation;
use super::run::{Kind, PlacedRun};
use super::segment::{Seal, StreamSummary};

/// Collects what the footer of a segment says.
#[derive(Clone, Debug, Default)]
pub(super) struct Footer {
    streams: BTreeMap<Incarnation, StreamSummary>,
}

impl Footer {
    pub(super) fn clear(&mut self) {
        self.streams.clear();
    }

    pub(super) fn add(&mut self, run: &PlacedRun) {
        if run.kind != Kind::Messages {
            return;
        }
        let (count, bytes) = (u64::from(run.count), u64::from(run.content_bytes));
        self.streams
            .entry(run.stream)
            .and_modify(|summary| {
                summary.first_seq = summary.first_seq.min(run.first_seq);
                summary.last_seq = summary.last_seq.max(run.last_seq);
                summary.first_time = summary.first_time.min(run.first_time);
                summary.last_time = summary.last_time.max(run.last_time);
                summary.count += count;
                summary.bytes += bytes;
            })
            .or_insert(StreamSummary {
                stream: run.stream,
                first_seq: run.first_seq,
                last_seq: run.last_seq,
                first_time: run.first_time,
                last_time: run.last_time,
                count,
                bytes,
            });
    }

    /// The records of the footer.
    pub(super) fn records(&self) -> impl Iterator<Item = Vec<u8>> {
        let streams = self.streams.values().copied().collect::<Vec<_>>();
        let empty = streams.is_empty().then(|| Seal::Footer(Vec::new()).encode());
        let full =
            streams.chunks(Seal::STREAMS_MAX).map(|part| Seal::Footer(part.to_vec()).encode()).collect::<Vec<_>>();
        full.into_iter().chain(empty)
    }
}
