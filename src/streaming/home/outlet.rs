//! From the engines to clients: deliveries, flushes, and what an operator should know.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{Recipient, Traffic};
use crate::consumer::{Delivery, Event, MemberId, Target};
use crate::log::{Durable, Message};
use crate::shard::service::Outbox;
use crate::store::{self, ConsumerKey, Notice};
use crate::streaming::wire::MsgProto;

/// Takes what a store gives out.
pub(super) struct Outlet<'a> {
    pub(super) recipients: &'a HashMap<(ConsumerKey, MemberId), Recipient, RandomState>,
    pub(super) proof: &'a mut Option<Durable>,
    pub(super) faults: &'a mut Vec<String>,
    pub(super) traffic: &'a mut Traffic,
    pub(super) out: &'a mut Outbox,
}

impl store::Outlet for Outlet<'_> {
    fn deliver(&mut self, consumer: ConsumerKey, to: Target, message: &Message<'_>, delivery: &Delivery) {
        let Target::Member(member) = to else { return };
        let Some(recipient) = self.recipients.get(&(consumer, member)) else { return };
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
