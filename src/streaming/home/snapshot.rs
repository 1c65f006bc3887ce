//! What monitoring wants to know of a log's channels.

use super::{Group, Home};
use crate::monitor::{ChannelSnapshot, SubscriptionSnapshot};
use crate::store::{ConsumerKey, Notice};
use crate::streaming::records::MemberRecord;

impl Home {
    /// What is wrong with the log.
    pub(in crate::streaming) fn faults(&self) -> impl Iterator<Item = String> {
        let is_full = self.store.log().is_full();
        let full = is_full.then(|| Notice::Space { full: true }.to_string());
        self.faults.iter().cloned().chain(full).map(|fault| format!("log {}: {fault}", self.log.0))
    }

    /// All channels.
    pub(in crate::streaming) fn snapshot(&mut self) -> Vec<ChannelSnapshot> {
        let mut of_channels: Vec<Vec<ConsumerKey>> = vec![Vec::new(); self.channels.capacity()];
        for (key, group) in &self.groups {
            of_channels[group.channel].push(*key);
        }
        let mut snapshots = Vec::with_capacity(self.channels.len());
        for (index, channel) in &self.channels {
            let Some(stream) = self.store.stream(channel.stream) else { continue };
            let (msgs, last_seq) = (stream.messages(), stream.last_seq());
            // Exact as soon as the engine has looked; the first number is always.
            let state = stream.state();
            let groups = of_channels[index].iter().filter_map(|key| Some((*key, self.groups.get(key)?)));
            snapshots.push(ChannelSnapshot {
                name: channel.name.to_string(),
                msgs,
                bytes: state.map_or(0, |state| state.bytes),
                first_seq: if last_seq == 0 { 0 } else { stream.first_seq() },
                last_seq,
                subscriptions: groups.flat_map(|(key, group)| self.subscriptions(key, group)).collect(),
            });
        }
        snapshots
    }

    fn subscriptions(&self, key: ConsumerKey, group: &Group) -> Vec<SubscriptionSnapshot> {
        let Some(consumer) = self.store.consumer(key) else { return Vec::new() };
        let info = consumer.info();
        let what = &group.what;
        let snapshot = |record: &MemberRecord, pending_count: u64| SubscriptionSnapshot {
            client_id: record.client_id.clone(),
            inbox: record.inbox.clone(),
            ack_inbox: self.ack_inbox(record.number),
            durable_name: if what.is_queue() { String::new() } else { what.durable.clone() },
            queue_name: what.queue_name(),
            is_durable: what.is_durable(),
            is_offline: record.offline,
            max_inflight: record.max_in_flight,
            ack_wait: record.ack_wait_secs,
            last_sent: info.delivered.stream_seq,
            pending_count,
            is_stalled: pending_count >= u64::from(record.max_in_flight),
        };
        let members = group.members.iter().filter_map(|number| self.members.get(number));
        let online = members.map(|member| {
            let held = member.joined.and_then(|id| consumer.member(id)).map_or(0, |(pending, _)| pending);
            snapshot(&member.record, held.into())
        });
        let offline = group.offline.iter().map(|record| snapshot(record, info.num_ack_pending));
        online.chain(offline).collect()
    }
}
