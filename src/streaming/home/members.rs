//! The end of subscriptions, and clients that do not answer.

use std::sync::Arc;

use prost::Message as _;

use super::told::{self, Begins, Text};
use super::{Home, Scene, subscribe};
use crate::consumer::Presence;
use crate::log::Pending;
use crate::streaming::errors;
use crate::streaming::pb::UnsubscribeRequest;
use crate::streaming::records::{MemberRecord, member_key};

impl Home {
    /// Ends a subscription; a durable one stays for later if `keeps_durable`.
    pub(in crate::streaming) fn unsubscribe(
        &mut self,
        scene: &mut Scene<'_>,
        reply: &[u8],
        request: &UnsubscribeRequest,
        keeps_durable: bool,
    ) {
        match self.find(scene, request) {
            Ok(number) => {
                let pending = self.leave(scene, number, keeps_durable);
                self.send_after(scene, pending, reply, Vec::new());
            }
            Err(error) => {
                let action = if keeps_durable { "sub close" } else { "unsub" };
                let client = Text(request.client_id.as_bytes());
                let (what, which) = match error {
                    errors::UNKNOWN_CHANNEL => ("channel", &request.subject),
                    errors::INVALID_SUBSCRIPTION => ("inbox", &request.inbox),
                    _ => ("client", &request.client_id),
                };
                let which = Text(which.as_bytes());
                tracing::error!("STREAM: [Client:{client}] {action} request for unknown {what} {which}");
                subscribe::refuse(scene, reply, error);
            }
        }
    }

    /// The subscription of a client that has this inbox, the one for acknowledgements or that for messages.
    fn find(&self, scene: &Scene<'_>, request: &UnsubscribeRequest) -> Result<u64, &'static str> {
        let Some(channel) = self.by_exact_name.get(request.subject.as_bytes()) else {
            return Err(errors::UNKNOWN_CHANNEL);
        };
        let number = self.acked_number(&request.inbox);
        let is_here = |number: &u64| {
            let member = self.members.get(number);
            member.is_some_and(|member| self.groups.get(&member.group).is_some_and(|group| group.channel == *channel))
        };
        let of_client = self.of_client.get(&*request.client_id).into_iter().flatten().copied();
        let with_inbox = |number: &u64| {
            is_here(number) && self.members.get(number).is_some_and(|member| member.record.inbox == request.inbox)
        };
        // The client's own come first; only to tell errors apart it is asked whether somebody else has it.
        let found = number.filter(is_here).or_else(|| of_client.into_iter().find(with_inbox));
        let found = found.or_else(|| self.members.keys().copied().find(with_inbox));
        let Some(number) = found else { return Err(errors::INVALID_SUBSCRIPTION) };
        let is_own = self.members.get(&number).is_some_and(|member| member.record.client_id == request.client_id);
        if is_own && scene.registry.is_known(&request.client_id) { Ok(number) } else { Err(errors::UNKNOWN_CLIENT) }
    }

    /// A subscription ends. The answer to whoever wants that waits for the result.
    pub(super) fn leave(&mut self, scene: &mut Scene<'_>, number: u64, keeps_durable: bool) -> Pending {
        let Some(member) = self.members.remove(&number) else { return Pending::NONE };
        let key = member.group;
        if let Some(numbers) = self.of_client.get_mut(&*member.record.client_id) {
            numbers.retain(|of| *of != number);
            if numbers.is_empty() {
                self.of_client.remove(&*member.record.client_id);
            }
        }
        if let Some(id) = member.joined {
            self.recipients.remove(&(key, id));
            self.store.with_consumer(key, |consumer| consumer.leave(scene.now, id));
        }
        let Some(group) = self.groups.get_mut(&key) else { return Pending::NONE };
        group.members.retain(|of| *of != number);
        let (channel, is_last) = (group.channel, group.members.is_empty());
        let stays = is_last && keeps_durable && group.what.is_durable();
        let change = match (stays, is_last) {
            (true, _) => "Suspended",
            (false, true) => "Removed",
            (false, false) => "Removed member from",
        };
        told::subscription(change, &self.channels[channel].name, &group.what, &member.record, &Begins(None));
        let what = (is_last && !stays).then(|| Arc::clone(&group.what));
        self.channels[channel].online -= 1;
        self.channels[channel].offline += u64::from(stays);
        let key_of_member = member_key(key, number);
        let mut pending = if stays {
            let record = MemberRecord { offline: true, ..*member.record };
            let encoded = record.encode_to_vec();
            group.members = Vec::new();
            group.offline = Some(Box::new(record));
            self.put(scene.now, &key_of_member, &encoded)
        } else {
            self.unset(scene.now, &key_of_member)
        };
        if let Some(what) = what {
            self.groups.remove(&key);
            self.channels[channel].named.remove(&what);
            let now = scene.now;
            let deleted = self.with_store(scene, |store, outlet| store.delete_consumer(now, key, outlet));
            pending = pending.max(deleted.unwrap_or(Pending::NONE));
        }
        self.watch(channel, scene.now);
        pending
    }

    /// A client is known no longer: its subscriptions end, and durable ones wait for it.
    pub(in crate::streaming) fn client_gone(&mut self, scene: &mut Scene<'_>, id: &str) {
        for number in self.of_client.remove(id).unwrap_or_default() {
            self.leave(scene, number, true);
        }
    }

    /// Whether a client leaves heartbeats without an answer: then it gets nothing again, and groups go by.
    pub(in crate::streaming) fn client_silent(&mut self, id: &str, is_silent: bool) {
        let presence = if is_silent { Presence::Suspended } else { Presence::Ready };
        for number in self.of_client.get(id).into_iter().flatten() {
            let Some(member) = self.members.get(number) else { continue };
            if let Some(joined) = member.joined {
                self.store.with_consumer(member.group, |consumer| consumer.set_presence(joined, presence));
            }
        }
    }
}
