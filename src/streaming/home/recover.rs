//! A log's part of the service as it was when the store was closed, or cut off.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use prost::Message as _;
use slab::Slab;

use super::subscribe::terms;
use super::{Group, Home, Member, PubAcks, Recipient, Scene, stream_config};
use crate::interned::Interner;
use crate::log::{Incarnation, LogId, Time, Waiting};
use crate::store::{ConsumerKey, Store};
use crate::streaming::Options;
use crate::streaming::records::{
    CHANNEL, CLIENT, ChannelRecord, ClientRecord, GroupRecord, IDENTITY, Identity, MEMBER, MemberRecord, group_of,
    member_key,
};
use crate::streaming::start::CannotStart;

/// The meta of a channel's stream.
pub(super) fn channel_meta(name: &str) -> Vec<u8> {
    [CHANNEL, &ChannelRecord { name: name.to_owned() }.encode_to_vec()].concat()
}

/// The channel whose stream has this meta; `None` if it is no channel's.
#[must_use]
pub fn channel_of(meta: &[u8]) -> Option<String> {
    Some(ChannelRecord::decode(meta.strip_prefix(CHANNEL)?).ok()?.name)
}

impl Home {
    /// Takes over a store, perhaps an empty one. Members join with [`Home::resume`].
    ///
    /// # Errors
    /// It belongs to a service of another name.
    pub(in crate::streaming) fn open(
        now: Time,
        log: LogId,
        mut store: Store,
        options: &Options,
        is_memory: bool,
    ) -> Result<Self, CannotStart> {
        let own = store.sets().find_map(|set| {
            let (_, value) = store.values(set).find(|(key, _)| *key == IDENTITY)?;
            Some((set, Identity::decode(value).ok()?))
        });
        let (set, ack_tag) = match own {
            Some((_, identity)) if identity.cluster_id != options.cluster_id => {
                return Err(CannotStart::OtherCluster(options.cluster_id.clone(), identity.cluster_id));
            }
            Some((set, identity)) => (set, identity.ack_tag),
            None => {
                let set = store.create_set();
                let ack_tag = new_tag();
                let identity = Identity { cluster_id: options.cluster_id.clone(), ack_tag: ack_tag.clone() };
                if !is_memory {
                    let _ = store.put(now, set, IDENTITY, &identity.encode_to_vec(), crate::log::Urgency::Now);
                }
                (set, ack_tag)
            }
        };
        let mut home = Self {
            log,
            store,
            set,
            is_memory,
            ack_prefix: format!("_INBOX.{ack_tag}"),
            // An acknowledgement of an earlier life must not count for a member of this one: the time goes on.
            next_number: now.unsigned_abs() >> 10,
            channels: Slab::new(),
            by_name: HashMap::default(),
            by_exact_name: HashMap::default(),
            limits: Interner::default(),
            groups: HashMap::default(),
            members: HashMap::default(),
            recipients: HashMap::default(),
            of_client: HashMap::default(),
            answers: Waiting::default(),
            acks: PubAcks::default(),
            searches: Vec::new(),
            idle: std::collections::BTreeSet::new(),
            proof: None,
            faults: Vec::new(),
            requests: Vec::new(),
        };
        home.recover_channels(now, options);
        home.recover_members();
        Ok(home)
    }

    /// The clients that the set knows: of the first log only.
    pub(in crate::streaming) fn clients(&self) -> Vec<ClientRecord> {
        let values = self.store.values(self.set).filter(|(key, _)| key.first() == Some(&CLIENT));
        values.filter_map(|(_, value)| ClientRecord::decode(value).ok()).collect()
    }

    fn recover_channels(&mut self, now: Time, options: &Options) {
        for stream in self.store.streams().collect::<Vec<Incarnation>>() {
            let Some(name) = self.store.stream_meta(stream).and_then(channel_of) else { continue };
            let limits = options.limits_of(&name);
            let channel = self.add_channel(now, &name, stream, limits);
            self.watch(channel, now);
            let config = stream_config(&name, &limits, options);
            let Some(current) = self.store.stream(stream).map(crate::stream::Stream::config) else { continue };
            if *current != config && current.validate_update(&config).is_ok() {
                let _ = self.store.update_stream(now, stream, config, &channel_meta(&name));
            }
            for key in self.store.consumers(stream).collect::<Vec<ConsumerKey>>() {
                let what = self.store.consumer_meta(key).and_then(|meta| GroupRecord::decode(meta).ok());
                self.add_group(channel, what.unwrap_or_default(), key);
            }
        }
    }

    fn recover_members(&mut self) {
        let values = self.store.values(self.set).filter(|(key, _)| key.first() == Some(&MEMBER));
        let members = values.filter_map(|(key, value)| Some((group_of(key)?, MemberRecord::decode(value).ok()?)));
        for (key, record) in members.collect::<Vec<_>>() {
            self.next_number = self.next_number.max(record.number + 1);
            let Some(group) = self.groups.get_mut(&key) else { continue };
            let channel = &mut self.channels[group.channel];
            if record.offline {
                channel.offline += u64::from(group.offline.is_none());
                group.offline = Some(Box::new(record));
                continue;
            }
            channel.online += 1;
            group.members.push(record.number);
            self.of_client.entry(record.client_id.as_str().into()).or_default().push(record.number);
            self.members.insert(record.number, Member { group: key, record: Box::new(record), joined: None });
        }
    }

    /// Subscriptions of clients that are still known go on; what belongs to nobody goes.
    pub(in crate::streaming) fn resume(&mut self, scene: &mut Scene<'_>) {
        self.drop_what_belongs_to_nobody(scene);
        let mut of_groups: BTreeMap<ConsumerKey, Vec<u64>> = BTreeMap::new();
        for (number, member) in &self.members {
            of_groups.entry(member.group).or_default().push(*number);
        }
        for (key, mut numbers) in of_groups {
            numbers.sort_unstable();
            let members = numbers.iter().map(|number| terms(&self.members[number].record)).collect::<Vec<_>>();
            let rejoined = self.store.with_consumer(key, |consumer| consumer.rejoin(scene.now, &members));
            let Some(Ok(ids)) = rejoined else { continue };
            let Some(group) = self.groups.get_mut(&key) else { continue };
            // A crash between the record of a new member and the removal of that of an offline one.
            if group.offline.take().is_some() {
                self.channels[group.channel].offline -= 1;
            }
            let channel = self.channels[group.channel].name.clone();
            for (number, id) in numbers.into_iter().zip(ids) {
                let Some(member) = self.members.get_mut(&number) else { continue };
                member.joined = Some(id);
                if let Some(recipient) = Recipient::new(&member.record.inbox, channel.clone()) {
                    self.recipients.insert((key, id), recipient);
                }
            }
        }
        let channels = self.channels.iter().map(|(index, _)| index).collect::<Vec<_>>();
        channels.into_iter().for_each(|channel| self.watch(channel, scene.now));
        scene.shared.channels.fetch_add(self.channels.len() as u64, std::sync::atomic::Ordering::Relaxed);
    }

    fn drop_what_belongs_to_nobody(&mut self, scene: &mut Scene<'_>) {
        let strangers = self.members.iter().filter(|(_, member)| !scene.registry.is_known(&member.record.client_id));
        for number in strangers.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.leave(scene, number, true);
        }
        // A crash between the records of a group and of its first member, or of their ends.
        let empty = |group: &Group| group.members.is_empty() && group.offline.is_none();
        let empty = self.groups.iter().filter(|(_, group)| empty(group)).map(|(key, _)| *key).collect::<Vec<_>>();
        for key in empty {
            if let Some(group) = self.groups.remove(&key) {
                self.channels[group.channel].named.remove(&group.what);
            }
            let now = scene.now;
            let _ = self.with_store(scene, |store, outlet| store.delete_consumer(now, key, outlet));
        }
        let orphans = self.store.values(self.set).filter_map(|(key, value)| {
            let group = group_of(key)?;
            let number = MemberRecord::decode(value).ok()?.number;
            let offline = self.groups.get(&group).and_then(|group| group.offline.as_ref());
            let is_wanted =
                self.members.contains_key(&number) || offline.is_some_and(|offline| offline.number == number);
            (!is_wanted).then(|| member_key(group, number))
        });
        for key in orphans.collect::<Vec<_>>() {
            self.unset(scene.now, &key);
        }
    }
}

/// Letters and digits, as inboxes have them.
fn new_tag() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(super::TAG_BYTES).collect()
}
