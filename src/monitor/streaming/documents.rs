//! What the documents say: one shard's part of the service after the other, summed and sorted.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use crate::monitor::process::Descriptors;
use crate::monitor::query::Query;
use crate::monitor::text::{elapsed, timestamp};
use crate::monitor::{ChannelSnapshot, Facts, ShardSnapshot, StreamingClient, StreamingSnapshot, SubscriptionSnapshot};
use crate::streaming::{ChannelLimits, Options, StoreLimits};
use crate::version::VERSION;

/// Clients or channels on a page if no limit is given.
const DEFAULT_LIMIT: i64 = 1024;

/// Parameters of lists. What makes no sense is as good as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListParams {
    pub(super) offset: i64,
    pub(super) limit: i64,
    /// List subscriptions.
    pub(super) subscriptions: bool,
}

impl ListParams {
    pub(super) fn parse(query: &Query) -> Self {
        let limit = query.int_or_zero("limit");
        Self {
            offset: query.int_or_zero("offset").max(0),
            limit: if limit > 0 { limit } else { DEFAULT_LIMIT },
            subscriptions: query.int_or_zero("subs") == 1,
        }
    }

    /// The part of a list that is on the page.
    fn page<T>(&self, list: Vec<T>) -> impl Iterator<Item = T> {
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        list.into_iter().skip(count(self.offset)).take(count(self.limit))
    }
}

/// The service as all shards together show it.
pub(super) struct Service<'a> {
    facts: &'a Facts,
    options: &'a Options,
    parts: Vec<&'a StreamingSnapshot>,
    now: SystemTime,
}

#[derive(Serialize)]
pub(super) struct Serverz<'a> {
    #[serde(flatten)]
    whose: Whose<'a>,
    version: &'static str,
    go: &'static str,
    state: &'static str,
    now: String,
    start_time: String,
    uptime: String,
    clients: usize,
    subscriptions: usize,
    channels: usize,
    #[serde(flatten)]
    held: Held,
    in_msgs: u64,
    in_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_fds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_fds: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Storez<'a> {
    #[serde(flatten)]
    whose: Whose<'a>,
    now: String,
    #[serde(rename = "type")]
    store: String,
    limits: Limits<'a>,
    #[serde(flatten)]
    held: Held,
}

#[derive(Serialize)]
pub(super) struct Clientsz<'a> {
    #[serde(flatten)]
    page: Page<'a>,
    clients: Vec<Client<'a>>,
}

#[derive(Serialize)]
pub(super) struct Channelsz<'a> {
    #[serde(flatten)]
    page: Page<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<Channel<'a>>,
}

#[derive(Serialize)]
pub(super) struct Client<'a> {
    id: &'a str,
    hb_inbox: &'a str,
    subs_count: usize,
    /// By channel.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    subscriptions: BTreeMap<&'a str, Vec<Subscription<'a>>>,
}

#[derive(Serialize)]
pub(super) struct Channel<'a> {
    name: &'a str,
    msgs: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    subs_count: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions: Vec<Subscription<'a>>,
}

/// Whose document it is.
#[derive(Serialize)]
struct Whose<'a> {
    cluster_id: &'a str,
    server_id: &'a str,
}

/// Messages of all channels.
#[derive(Serialize)]
struct Held {
    total_msgs: u64,
    total_bytes: u64,
}

/// What is in front of a list.
#[derive(Serialize)]
struct Page<'a> {
    #[serde(flatten)]
    whose: Whose<'a>,
    now: String,
    offset: i64,
    limit: i64,
    count: usize,
    total: usize,
}

#[derive(Serialize)]
struct Limits<'a> {
    max_channels: u64,
    #[serde(flatten)]
    of_all: LimitsOfOne,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    channels: BTreeMap<&'a str, LimitsOfOne>,
}

#[derive(Serialize)]
struct LimitsOfOne {
    max_msgs: u64,
    max_bytes: u64,
    max_age: u128,
    max_subscriptions: u64,
    max_inactivity: u128,
}

#[derive(Serialize)]
struct Subscription<'a> {
    client_id: &'a str,
    inbox: &'a str,
    ack_inbox: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    durable_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    queue_name: &'a str,
    is_durable: bool,
    is_offline: bool,
    max_inflight: u32,
    ack_wait: u32,
    last_sent: u64,
    pending_count: u64,
    is_stalled: bool,
}

impl<'a> Service<'a> {
    /// `None` unless every shard has told its part: of what is missing it could be said only that it does not exist.
    pub(super) fn new(facts: &'a Facts, shards: &'a [ShardSnapshot], now: SystemTime) -> Option<Self> {
        let part = |shard: &'a ShardSnapshot| shard.service.as_ref()?.streaming.as_ref();
        let parts: Vec<_> = shards.iter().filter_map(part).collect();
        let options = facts.options.streaming.as_ref()?;
        (parts.len() == facts.options.cores.len()).then_some(Self { facts, options, parts, now })
    }

    pub(super) fn serverz(&self, descriptors: &Descriptors) -> Serverz<'a> {
        let sum = |of: fn(&StreamingSnapshot) -> u64| self.parts.iter().map(|part| of(part)).sum();
        Serverz {
            whose: self.whose(),
            version: VERSION,
            go: "rust",
            state: "STANDALONE",
            now: timestamp(self.now),
            start_time: timestamp(self.facts.start),
            uptime: elapsed(self.now, self.facts.start),
            clients: self.clients().count(),
            subscriptions: self.channels().map(|channel| channel.subscriptions.len()).sum(),
            channels: self.channels().count(),
            held: self.held(),
            in_msgs: sum(|part| part.in_msgs),
            in_bytes: sum(|part| part.in_bytes),
            out_msgs: sum(|part| part.out_msgs),
            out_bytes: sum(|part| part.out_bytes),
            open_fds: descriptors.open,
            max_fds: descriptors.max,
        }
    }

    pub(super) fn storez(&self) -> Storez<'a> {
        Storez {
            whose: self.whose(),
            now: timestamp(self.now),
            store: self.options.store.to_string(),
            limits: Limits::from(&self.options.limits),
            held: self.held(),
        }
    }

    pub(super) fn clientsz(&self, params: &ListParams) -> Clientsz<'a> {
        let mut all: Vec<&StreamingClient> = self.clients().collect();
        all.sort_unstable_by_key(|client| &client.id);
        let total = all.len();
        let mut active: BTreeMap<&str, Vec<(&str, &SubscriptionSnapshot)>> = BTreeMap::new();
        for (channel, subscription) in self.active() {
            active.entry(&subscription.client_id).or_default().push((channel, subscription));
        }
        let mut of = |client: &StreamingClient| active.remove(client.id.as_str()).unwrap_or_default();
        let clients: Vec<Client<'_>> =
            params.page(all).map(|one| Client::new(one, of(one), params.subscriptions)).collect();
        Clientsz { page: self.page(params, clients.len(), total), clients }
    }

    /// One client; `None` if there is no such.
    pub(super) fn client(&self, id: &str, subscriptions: bool) -> Option<Client<'a>> {
        let client = self.clients().find(|client| client.id == id)?;
        let active = self.active().filter(|(_, subscription)| subscription.client_id == id).collect();
        Some(Client::new(client, active, subscriptions))
    }

    pub(super) fn channelsz(&self, params: &ListParams) -> Channelsz<'a> {
        let mut all: Vec<&ChannelSnapshot> = self.channels().collect();
        all.sort_unstable_by_key(|channel| &channel.name);
        let total = all.len();
        let page: Vec<_> = params.page(all).collect();
        let head = self.page(params, page.len(), total);
        if params.subscriptions {
            let channels = page.into_iter().map(|channel| Channel::new(channel, true)).collect();
            Channelsz { page: head, names: Vec::new(), channels }
        } else {
            let names = page.into_iter().map(|channel| channel.name.as_str()).collect();
            Channelsz { page: head, names, channels: Vec::new() }
        }
    }

    /// One channel; `None` if there is no such.
    pub(super) fn channel(&self, name: &str, subscriptions: bool) -> Option<Channel<'a>> {
        let channel = self.channels().find(|channel| channel.name == name)?;
        Some(Channel::new(channel, subscriptions))
    }

    fn whose(&self) -> Whose<'a> {
        Whose { cluster_id: &self.options.cluster_id, server_id: &self.facts.server_id }
    }

    fn held(&self) -> Held {
        let sum = |of: fn(&ChannelSnapshot) -> u64| self.channels().map(of).sum();
        Held { total_msgs: sum(|channel| channel.msgs), total_bytes: sum(|channel| channel.bytes) }
    }

    fn page(&self, params: &ListParams, count: usize, total: usize) -> Page<'a> {
        let ListParams { offset, limit, .. } = *params;
        Page { whose: self.whose(), now: timestamp(self.now), offset, limit, count, total }
    }

    fn clients(&self) -> impl Iterator<Item = &'a StreamingClient> {
        self.parts.iter().flat_map(|part| &part.clients)
    }

    fn channels(&self) -> impl Iterator<Item = &'a ChannelSnapshot> {
        self.parts.iter().flat_map(|part| &part.channels)
    }

    /// Subscriptions that their clients hold, with their channels.
    fn active(&self) -> impl Iterator<Item = (&'a str, &'a SubscriptionSnapshot)> {
        let of = |channel: &'a ChannelSnapshot| {
            let active = channel.subscriptions.iter().filter(|subscription| !subscription.is_offline);
            active.map(|subscription| (channel.name.as_str(), subscription))
        };
        self.channels().flat_map(of)
    }
}

impl<'a> Client<'a> {
    fn new(client: &'a StreamingClient, active: Vec<(&'a str, &'a SubscriptionSnapshot)>, lists: bool) -> Self {
        let subs_count = active.len();
        let mut by_channel: BTreeMap<&str, Vec<&SubscriptionSnapshot>> = BTreeMap::new();
        for (channel, subscription) in active.into_iter().filter(|_| lists) {
            by_channel.entry(channel).or_default().push(subscription);
        }
        Self {
            id: &client.id,
            hb_inbox: &client.hb_inbox,
            subs_count,
            subscriptions: by_channel.into_iter().map(|(channel, list)| (channel, ordered(list))).collect(),
        }
    }
}

impl<'a> Channel<'a> {
    fn new(channel: &'a ChannelSnapshot, lists: bool) -> Self {
        Self {
            name: &channel.name,
            msgs: channel.msgs,
            bytes: channel.bytes,
            first_seq: channel.first_seq,
            last_seq: channel.last_seq,
            subs_count: channel.subscriptions.len(),
            subscriptions: if lists { ordered(channel.subscriptions.iter().collect()) } else { Vec::new() },
        }
    }
}

/// One channel's subscriptions: those of no group first, groups together, those without a client behind the others.
fn ordered(mut list: Vec<&SubscriptionSnapshot>) -> Vec<Subscription<'_>> {
    // Inboxes end with a number that grows from one subscription to the next.
    list.sort_by_key(|one| (&one.queue_name, one.is_offline, one.ack_inbox.len(), &one.ack_inbox));
    list.into_iter().map(Subscription::from).collect()
}

impl<'a> From<&'a SubscriptionSnapshot> for Subscription<'a> {
    fn from(of: &'a SubscriptionSnapshot) -> Self {
        Self {
            client_id: &of.client_id,
            inbox: &of.inbox,
            ack_inbox: &of.ack_inbox,
            durable_name: &of.durable_name,
            queue_name: &of.queue_name,
            is_durable: of.is_durable,
            is_offline: of.is_offline,
            max_inflight: of.max_inflight,
            ack_wait: of.ack_wait,
            last_sent: of.last_sent,
            pending_count: of.pending_count,
            is_stalled: of.is_stalled,
        }
    }
}

impl<'a> From<&'a StoreLimits> for Limits<'a> {
    fn from(limits: &'a StoreLimits) -> Self {
        Self {
            max_channels: limits.max_channels,
            of_all: limits.of_all.into(),
            channels: limits.resolved().map(|(pattern, limits)| (pattern, limits.into())).collect(),
        }
    }
}

impl From<ChannelLimits> for LimitsOfOne {
    fn from(limits: ChannelLimits) -> Self {
        Self {
            max_msgs: limits.max_msgs,
            max_bytes: limits.max_bytes,
            max_age: limits.max_age.as_nanos(),
            max_subscriptions: limits.max_subs,
            max_inactivity: limits.max_inactivity.as_nanos(),
        }
    }
}
