//! Publishes and acknowledgements.

use super::told::Text;
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
    if error.is_empty() {
        tracing::trace!("STREAM: Acking Publisher guid={}", Text(guid));
    }
    if !reply.is_empty() {
        out.publish(reply, b"", wire::pub_ack_bytes(guid, error), |bytes| wire::put_pub_ack(bytes, guid, error));
    }
}

/// Refuses a publish that makes no sense.
fn refuse(out: &mut Outbox, reply: &[u8], message: &PubMsg<'_>) {
    let PubMsg { client_id, guid, channel, .. } = *message;
    let [id, shown, subject] = [client_id, guid, channel].map(Text);
    tracing::error!(
        "STREAM: Received invalid client publish message clientID:{id:?} guid:{shown:?} subject:{subject:?}"
    );
    acknowledge(out, reply, guid, errors::INVALID_PUBLISH.as_bytes());
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
            return refuse(scene.out, reply, message);
        }
        let [client, name] = [message.client_id, message.channel].map(Text);
        tracing::trace!("STREAM: [Client:{client}] Received message from publisher subj={name} guid={}", Text(guid));
        let index = match self.channel_of(scene, message.channel) {
            Ok(channel) => channel,
            Err(NoChannel::BadName) => return refuse(scene.out, reply, message),
            Err(NoChannel::Refused(text)) => {
                let id = &scene.options.cluster_id;
                let subject = format!("_STAN.pub.{id}.{name}");
                tracing::error!("STREAM: [Client:{client}] Error processing message for subject {subject:?}: {text}");
                return acknowledge(scene.out, reply, guid, text.as_bytes());
            }
        };
        let channel = &mut self.channels[index];
        channel.active_at = scene.now;
        let inbound =
            Inbound { subject: &channel.subject, reply: message.reply, payload: message.data, ..Inbound::default() };
        let (stream, fullness) = (channel.stream, channel.fullness);
        let published = self.store.publish(scene.now, stream, &inbound);
        if published.as_ref().is_ok_and(|admitted| fullness.is_due(admitted.seq)) {
            self.look_whether_full(index, stream);
        }
        match published {
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
            let (client, subject, seq) = (&member.record.client_id, Text(ack.channel), ack.sequence);
            let subid = member.record.number;
            tracing::trace!("STREAM: [Client:{client}] Processing ack for subid={subid}, subject={subject}, seq={seq}");
            self.store.with_consumer(key, |consumer: &mut Consumer| consumer.ack(now, ack.sequence));
        }
    }
}
