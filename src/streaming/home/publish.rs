//! Publishes and acknowledgements.

use super::{Home, NoChannel, Scene};
use crate::consumer::Consumer;
use crate::shard::service::{Outbox, Source};
use crate::stream::{Inbound, Refusal};
use crate::streaming::errors;
use crate::streaming::wire::{self, Ack, PubMsg};

/// How long a publisher is not read when the log has as much to write as it takes, milliseconds.
const STALL_MS: u8 = 5;

/// Answers a publish, if it wants an answer.
pub(in crate::streaming) fn acknowledge(out: &mut Outbox, reply: &[u8], guid: &[u8], error: &[u8]) {
    if !reply.is_empty() {
        out.publish(reply, b"", wire::pub_ack_bytes(guid, error), |bytes| wire::put_pub_ack(bytes, guid, error));
    }
}

impl Home {
    /// Stores a message, and answers when it is flushed.
    pub(in crate::streaming) fn publish(
        &mut self,
        scene: &mut Scene<'_>,
        source: Source,
        reply: &[u8],
        message: &PubMsg<'_>,
    ) {
        let guid = message.guid;
        if guid.is_empty() || !scene.registry.may_publish(message.client_id, message.conn_id) {
            return acknowledge(scene.out, reply, guid, errors::INVALID_PUBLISH.as_bytes());
        }
        let channel = match self.channel_of(scene, message.channel) {
            Ok(channel) => channel,
            Err(NoChannel::BadName) => {
                return acknowledge(scene.out, reply, guid, errors::INVALID_PUBLISH.as_bytes());
            }
            Err(NoChannel::Refused(text)) => return acknowledge(scene.out, reply, guid, text.as_bytes()),
        };
        let channel = &mut self.channels[channel];
        channel.active_at = scene.now;
        let inbound =
            Inbound { subject: &channel.subject, reply: message.reply, payload: message.data, ..Inbound::default() };
        match self.store.publish(scene.now, channel.stream, &inbound) {
            Ok(admitted) if reply.is_empty() || admitted.after.is_none() && self.acks.waiting.is_empty() => {
                acknowledge(scene.out, reply, guid, b"");
            }
            Ok(admitted) => self.acks.push(admitted.after, reply, guid),
            Err(refused) => {
                let text = match refused.why {
                    Refusal::Full => errors::NO_SPACE,
                    _ => errors::INVALID_PUBLISH,
                };
                acknowledge(scene.out, reply, guid, text.as_bytes());
            }
        }
        if !self.store.has_room() {
            scene.out.stall(source, STALL_MS);
        }
    }

    /// Takes an acknowledgement that came on the subject with this [token](super::ack_token). What makes no sense is passed over.
    pub(in crate::streaming) fn acknowledged(&mut self, now: crate::log::Time, token: &[u8], payload: &[u8]) {
        let number = std::str::from_utf8(token).ok().and_then(|token| u64::from_str_radix(token, 16).ok());
        let Some(member) = number.and_then(|number| self.members.get(&number)) else { return };
        let Some(ack) = Ack::decode(payload) else { return };
        let key = member.group;
        let channel = self.groups.get(&key).map(|group| &self.channels[group.channel].name);
        if channel.is_some_and(|channel| channel.as_bytes() == ack.channel) {
            self.store.with_consumer(key, |consumer: &mut Consumer| consumer.ack(now, ack.sequence));
        }
    }
}
