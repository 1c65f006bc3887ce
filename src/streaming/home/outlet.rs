//! From the engines to clients: deliveries, flushes, and what an operator should know.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{Group, Member, Recipient, Traffic};
use crate::consumer::{Delivery, Event, MemberId, Target};
use crate::log::{Durable, Message};
use crate::shard::service::Outbox;
use crate::store::{self, ConsumerKey, Notice};
use crate::streaming::wire::MsgProto;

/// Takes what a store gives out.
pub(super) struct Outlet<'a> {
    pub(super) groups: &'a HashMap<ConsumerKey, Group, RandomState>,
    pub(super) members: &'a HashMap<u64, Member, RandomState>,
    pub(super) recipients: &'a HashMap<(ConsumerKey, MemberId), Recipient, RandomState>,
    pub(super) proof: &'a mut Option<Durable>,
    pub(super) faults: &'a mut Vec<String>,
    pub(super) traffic: &'a mut Traffic,
    pub(super) out: &'a mut Outbox,
}

impl Outlet<'_> {
    /// Writes a line about a delivery.
    #[cold]
    fn trace(&self, consumer: ConsumerKey, to: MemberId, channel: &str, seq: u64, delivery: &Delivery) {
        let members = self.groups.get(&consumer).into_iter().flat_map(|group| &group.members);
        let mut members = members.filter_map(|number| self.members.get(number));
        let Some(member) = members.find(|member| member.joined == Some(to)) else { return };
        let action = if delivery.deliveries > 1 { "Redelivering" } else { "Delivering" };
        let (client, subid) = (&member.record.client_id, member.record.number);
        tracing::trace!("STREAM: [Client:{client}] {action} msg to subid={subid}, subject={channel}, seq={seq}");
    }
}

impl store::Outlet for Outlet<'_> {
    fn deliver(&mut self, consumer: ConsumerKey, to: Target, message: &Message<'_>, delivery: &Delivery) {
        let Target::Member(member) = to else { return };
        let Some(recipient) = self.recipients.get(&(consumer, member)) else { return };
        if tracing::event_enabled!(tracing::Level::TRACE) {
            self.trace(consumer, member, &recipient.channel, message.seq, delivery);
        }
        let message = MsgProto {
            sequence: message.seq,
            channel: recipient.channel.as_bytes(),
            reply: message.reply,
            data: message.payload,
            timestamp: message.time,
            redeliveries: delivery.deliveries - 1,
            crc32: crc32fast::hash(message.payload),
        };
        self.traffic.out_msgs += 1;
        let bytes = message.encoded_bytes();
        self.traffic.out_bytes += bytes as u64;
        self.out.publish(&recipient.inbox, b"", bytes, |bytes| message.encode(bytes));
    }

    fn event(&mut self, _: ConsumerKey, _: Event) {}

    fn flushed(&mut self, proof: &Durable) {
        *self.proof = Some(*proof);
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Faulted(_) => {
                tracing::error!("STREAM: {notice}");
                self.faults.push(notice.to_string());
            }
            Notice::Healed => {
                tracing::warn!("STREAM: {notice}");
                self.faults.clear();
            }
            Notice::Space { .. } => tracing::warn!("STREAM: {notice}"),
            Notice::Damaged { .. } | Notice::ReadFailed { .. } => tracing::error!("STREAM: {notice}"),
        }
    }
}
