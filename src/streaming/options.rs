//! The settings of the service as plain data, with the reference's defaults.
//!
//! Settings of the reference that would change nothing here are read and checked, and not kept: those of its files
//! (the log checks, cleans, recovers and bounds its files by itself), of its SQL stores, and of its connection to
//! another server.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{ChannelLimits, StoreLimits};
use crate::config::Secret;
use crate::subject;

/// Settings of NATS Streaming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Names the service: its subjects end with it.
    pub cluster_id: String,
    /// What the subjects begin with on which clients look for the service.
    pub discover_prefix: String,
    /// Where channels, clients and subscriptions are kept.
    pub store: StoreType,
    /// Directory of the store; [`DEFAULT_DIRECTORY`] if absent.
    pub dir: Option<PathBuf>,
    /// Write DBG lines about the service.
    pub debug: bool,
    /// Write TRC lines about its messages.
    pub trace: bool,
    /// Time before the first heartbeat to a client, and between two.
    pub hb_interval: Duration,
    /// How long a client may take to answer a heartbeat.
    pub hb_timeout: Duration,
    /// A client is given up when it leaves more heartbeats than this one after the other without an answer.
    pub hb_fail_count: u32,
    /// A durable subscription that is subscribed to again goes to the new subscriber; without, that is an error.
    pub replace_durable: bool,
    /// Serve the channels of [`StoreLimits::overrides`] only, and leave others to other servers.
    pub partitioning: bool,
    /// Limits of channels, and how many there may be.
    pub limits: StoreLimits,
    /// Settings of a store in files.
    pub file: FileOptions,
    /// Encrypt payloads on disk, see [`Options::encrypts`].
    pub encrypt: bool,
    /// The cipher; the reference's choice for the machine if absent.
    pub encryption_cipher: Option<Cipher>,
    /// What the key is made of.
    pub encryption_key: Option<Secret>,
    /// Other servers that replicate the service.
    pub clustering: Option<Clustering>,
    /// URL of the server whose clients are to be served, instead of those of this one.
    pub nats_server: Option<String>,
    /// Group of servers of which one serves, and the others wait for it to fail.
    pub ft_group: Option<String>,
}

/// Where the service keeps what it has to remember.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreType {
    /// In memory: nothing survives a restart.
    Memory,
    /// In files.
    #[default]
    File,
}

/// A cipher for payloads on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256 in Galois/counter mode.
    Aes,
    /// ChaCha20-Poly1305.
    ChaCha,
}

/// Settings of a store in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// A publish is acknowledged when it has been flushed to disk; without, when it has been written.
    pub sync: bool,
    /// Time between flushes where [`FileOptions::sync`] is off; never if absent.
    pub auto_sync: Option<Duration>,
}

/// Servers that replicate the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clustering {
    /// Name of this server among them; a random one, which is kept, if absent.
    pub node_id: Option<String>,
    /// Begin a cluster if there is none.
    pub bootstrap: bool,
    /// Names of the other servers that begin it.
    pub peers: Vec<String>,
    /// Directory of the replicated log; `<cluster id>/<node id>` if absent.
    pub log_path: Option<PathBuf>,
    /// Flush each entry of the replicated log.
    pub sync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster_id: "test-cluster".to_owned(),
            discover_prefix: "_STAN.discover".to_owned(),
            store: StoreType::File,
            dir: None,
            debug: false,
            trace: false,
            hb_interval: Duration::from_secs(30),
            hb_timeout: Duration::from_secs(10),
            hb_fail_count: 10,
            replace_durable: false,
            partitioning: false,
            limits: StoreLimits::default(),
            file: FileOptions::default(),
            encrypt: false,
            encryption_cipher: None,
            encryption_key: None,
            clustering: None,
            nats_server: None,
            ft_group: None,
        }
    }
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { sync: true, auto_sync: Some(Duration::from_secs(60)) }
    }
}

impl Options {
    /// The limits of a channel, those for its name and those for all, see [`StoreLimits::of`].
    #[must_use]
    pub fn limits_of(&self, channel: &str) -> ChannelLimits {
        self.limits.of(channel)
    }

    /// Where the files of the store are.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DIRECTORY))
    }

    /// Whether this server is the one for a channel: with partitioning, for those it has settings for. Requests about
    /// others are not answered, for another server may do that.
    #[must_use]
    pub fn serves(&self, channel: &str) -> bool {
        !self.partitioning || self.limits.overrides.cover(channel)
    }

    /// Whether payloads are to be encrypted on disk: a key asks for that too.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        self.encrypt || self.encryption_key.is_some()
    }

    /// Reports every rule that these options break, in the reference's words where it has the rule, and everything
    /// they ask for that this version cannot give and that must not be left out in silence.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let mut rule = |holds: bool, text: &str| {
            if !holds {
                errors.push(text.to_owned());
            }
        };
        let is_clustered = self.clustering.is_some();
        rule(!self.partitioning || !is_clustered, "stan: channels partitioning in clustering mode is not supported");
        rule(!self.partitioning || !self.limits.overrides.is_empty(), "stan: no configured channel");
        let keeps = self.store == StoreType::File;
        rule(keeps || !is_clustered, "stan: clustering mode not supported with MEMORY store type");
        rule(!self.hb_interval.is_zero() && !self.hb_timeout.is_zero(), "streaming: heartbeats need some time");
        for (what, is_asked) in [
            ("clustering", is_clustered),
            ("encryption", self.encrypts()),
            ("connecting to another server (nats_server)", self.nats_server.is_some()),
            ("a group for fault tolerance (ft_group)", self.ft_group.is_some()),
        ] {
            rule(!is_asked, &format!("streaming: {what} is not available in this version"));
        }
        for (what, text) in [("cluster ID", &self.cluster_id), ("discover prefix", &self.discover_prefix)] {
            let is_usable = subject::is_valid_literal(text.as_bytes());
            rule(is_usable, &format!("streaming: {what} \"{}\" cannot be part of a subject", text.escape_debug()));
        }
        errors.extend(self.limits.check().err());
        errors
    }
}

/// Where the files of a store are if nothing else is said, seen from the current directory.
pub const DEFAULT_DIRECTORY: &str = "leat-streaming";

impl StoreType {
    /// Reads what operators write, in any letter case.
    ///
    /// # Errors
    /// For every other word; that of the reference's SQL stores among them.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_uppercase().as_str() {
            "MEMORY" => Ok(Self::Memory),
            "FILE" => Ok(Self::File),
            "SQL" => Err("store type SQL is not available; it must be MEMORY or FILE".to_owned()),
            _ => Err(format!("unknown store type: {}", text.escape_debug())),
        }
    }
}

impl fmt::Display for StoreType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "MEMORY",
            Self::File => "FILE",
        })
    }
}

impl Cipher {
    /// Reads what operators write, in any letter case; nothing leaves the choice open.
    ///
    /// # Errors
    /// For every other word.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        match text.to_ascii_uppercase().as_str() {
            "" => Ok(None),
            "AES" => Ok(Some(Self::Aes)),
            "CHACHA" => Ok(Some(Self::ChaCha)),
            _ => Err("encryption cipher not supported".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streaming::ChannelOverride;

    /// The defaults can be run, and each rule that is broken is reported.
    #[test]
    fn rules() {
        assert!(Options::default().check().is_empty());
        type Change = fn(&mut Options);
        let cases: &[(Change, &[&str])] = &[
            (|o| o.store = StoreType::Memory, &[]),
            (|o| o.partitioning = true, &["stan: no configured channel"]),
            (
                |o| {
                    (o.store, o.partitioning) = (StoreType::Memory, true);
                    o.clustering = Some(Clustering::default());
                },
                &[
                    "stan: channels partitioning in clustering mode is not supported",
                    "stan: no configured channel",
                    "stan: clustering mode not supported with MEMORY store type",
                    "streaming: clustering is not available in this version",
                ],
            ),
            (|o| o.hb_interval = Duration::ZERO, &["streaming: heartbeats need some time"]),
            (|o| o.hb_timeout = Duration::ZERO, &["streaming: heartbeats need some time"]),
            (|o| o.hb_fail_count = 0, &[]),
            (|o| o.encrypt = true, &["streaming: encryption is not available in this version"]),
            (
                |o| (o.nats_server, o.ft_group) = (Some("nats://h:1".into()), Some("g".into())),
                &[
                    "streaming: connecting to another server (nats_server) is not available in this version",
                    "streaming: a group for fault tolerance (ft_group) is not available in this version",
                ],
            ),
            (|o| o.cluster_id = "a b".into(), &["streaming: cluster ID \"a b\" cannot be part of a subject"]),
            (|o| o.cluster_id = "a.b".into(), &[]),
            (|o| o.discover_prefix = "a.>".into(), &["streaming: discover prefix \"a.>\" cannot be part of a subject"]),
        ];
        for (change, expected) in cases {
            let mut options = Options::default();
            change(&mut options);
            assert_eq!(options.check(), *expected);
        }
    }

    /// With partitioning a server has the channels that are listed, and all of them without.
    #[test]
    fn channels_of_a_partition() {
        let mut options = Options::default();
        let listed = ["foo", "bar.*"].map(|name| (name.to_owned(), ChannelOverride::default()));
        options.limits.overrides = options.limits.overrides.with(listed).unwrap();
        assert!(options.serves("baz"));
        options.partitioning = true;
        assert!(options.check().is_empty());
        for (channel, is_served) in
            [("foo", true), ("bar.x", true), ("baz", false), ("bar", false), ("bar.x.y", false), ("foo.x", false)]
        {
            assert_eq!(options.serves(channel), is_served, "{channel}");
        }
    }

    #[test]
    fn words() {
        assert_eq!(StoreType::parse("fIle"), Ok(StoreType::File));
        assert_eq!(StoreType::parse("memory").map(|store| store.to_string()), Ok("MEMORY".to_owned()));
        assert_eq!(StoreType::parse("x"), Err("unknown store type: x".to_owned()));
        assert!(StoreType::parse("sql").unwrap_err().contains("MEMORY or FILE"));
        assert_eq!(Cipher::parse("chacha"), Ok(Some(Cipher::ChaCha)));
        assert_eq!(Cipher::parse(""), Ok(None));
        assert_eq!(Cipher::parse("des"), Err("encryption cipher not supported".to_owned()));
    }
}
