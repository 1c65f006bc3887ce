//! The durable subscriptions and groups of a channel, by what they are.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::store::ConsumerKey;
use crate::streaming::records::GroupRecord;

type Table = HashMap<Arc<GroupRecord>, ConsumerKey, RandomState>;

/// Many channels have none: then it is a null pointer.
#[derive(Debug, Default)]
pub(super) struct Named(Option<Box<Table>>);

impl Named {
    pub(super) fn get(&self, what: &GroupRecord) -> Option<ConsumerKey> {
        self.0.as_ref()?.get(what).copied()
    }

    pub(super) fn insert(&mut self, what: Arc<GroupRecord>, key: ConsumerKey) {
        self.0.get_or_insert_default().insert(what, key);
    }

    pub(super) fn remove(&mut self, what: &GroupRecord) {
        if let Some(table) = &mut self.0 {
            table.remove(what);
            self.0.take_if(|table| table.is_empty());
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = ConsumerKey> {
        self.0.iter().flat_map(|table| table.values().copied())
    }
}
