//! Which clients there are, as every instance of the service knows it.
//!
//! The directory decides and tells all; a publish is checked where its channel is at home.
#![forbid(unsafe_code)]

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::records::ClientRecord;

/// A client.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    conn_id: Box<[u8]>,
    is_silent: bool,
}

/// The clients, by their ids and by those of their connections.
#[derive(Debug, Default)]
pub(super) struct Registry {
    by_id: HashMap<Box<str>, Known, RandomState>,
    by_conn: HashMap<Box<[u8]>, Box<str>, RandomState>,
}

impl Registry {
    /// A client is known from now on; its id is not.
    pub(super) fn up(&mut self, record: &ClientRecord) {
        self.down(&record.id);
        let id = record.id.as_str();
        if !record.conn_id.is_empty() {
            self.by_conn.insert(record.conn_id.as_slice().into(), id.into());
        }
        let known = Known { conn_id: record.conn_id.as_slice().into(), is_silent: false };
        self.by_id.insert(id.into(), known);
    }

    /// It is known no longer.
    pub(super) fn down(&mut self, id: &str) {
        if let Some(known) = self.by_id.remove(id)
            && self.by_conn.get(&known.conn_id).is_some_and(|of| **of == *id)
        {
            self.by_conn.remove(&known.conn_id);
        }
    }

    pub(super) fn set_silent(&mut self, id: &str, is_silent: bool) {
        if let Some(known) = self.by_id.get_mut(id) {
            known.is_silent = is_silent;
        }
    }

    pub(super) fn is_known(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// Whether it leaves heartbeats without an answer.
    pub(super) fn is_silent(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|known| known.is_silent)
    }

    /// The client of a connection.
    pub(super) fn of_connection(&self, conn_id: &[u8]) -> Option<&str> {
        self.by_conn.get(conn_id).map(|id| &**id)
    }

    /// Whether a publish with these ids is one of a known client. Where there is a connection's, the client's does not
    /// count.
    #[inline]
    pub(super) fn may_publish(&self, client_id: &[u8], conn_id: &[u8]) -> bool {
        match conn_id {
            [] => std::str::from_utf8(client_id).is_ok_and(|id| self.is_known(id)),
            _ => self.by_conn.contains_key(conn_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, conn_id: &[u8]) -> ClientRecord {
        ClientRecord { id: id.into(), hb_inbox: "hb".into(), conn_id: conn_id.to_vec() }
    }

    #[test]
    fn connections_tell_clients() {
        let mut registry = Registry::default();
        registry.up(&record("a", b"1"));
        registry.up(&record("old", b""));
        assert!(registry.may_publish(b"a", b"1") && registry.may_publish(b"", b"1"));
        assert!(!registry.may_publish(b"a", b"2"), "a wrong connection of a known client");
        assert!(registry.may_publish(b"a", b"") && registry.may_publish(b"old", b""));
        assert!(
            !registry.may_publish(b"b", b"") && !registry.may_publish(b"\xff", b"") && !registry.may_publish(b"", b"")
        );
        registry.up(&record("a", b"2"));
        assert_eq!(registry.of_connection(b"1"), None);
        assert_eq!(registry.of_connection(b"2"), Some("a"));
        registry.set_silent("a", true);
        assert!(registry.is_silent("a") && !registry.is_silent("old"));
        registry.down("a");
        assert!(!registry.is_known("a") && registry.of_connection(b"2").is_none() && !registry.is_silent("a"));
    }

    /// Two clients that say they have the same connection: the later one has it, whoever goes.
    #[test]
    fn a_connection_claimed_twice() {
        let mut registry = Registry::default();
        registry.up(&record("a", b"1"));
        registry.up(&record("b", b"1"));
        registry.down("a");
        assert_eq!(registry.of_connection(b"1"), Some("b"));
        registry.down("b");
        assert_eq!(registry.of_connection(b"1"), None);
    }
}
