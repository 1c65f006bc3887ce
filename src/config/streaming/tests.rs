//! The block and the files of NATS Streaming to its options.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::config::grammar::Sources;
use crate::config::schema::Status;
use crate::config::{ConfigError, Loaded, diff, load_with_streaming};
use crate::config::{Options as AllOptions, Secret, load};
use crate::streaming::{ChannelOverride, Cipher, Clustering, Options, StoreType};

/// Files by their names.
struct Files<'a>(&'a [(&'a str, &'a str)]);

impl Sources for Files<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.0.iter().find(|(name, _)| Path::new(name) == path);
        file.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn environment(&self, _: &str) -> Option<String> {
        None
    }
}

fn read(text: &str) -> Result<Loaded, ConfigError> {
    load(Path::new("c"), &Files(&[("c", text)]))
}

/// Reads `-sc s`, with `-c c` if there is such a file.
fn read_both(config: Option<&str>, streaming: &str) -> Result<AllOptions, String> {
    let files = [("c", config.unwrap_or_default()), ("s", streaming)];
    let loaded = load_with_streaming(config.map(|_| Path::new("c")), Path::new("s"), &Files(&files));
    loaded.map(|loaded| loaded.options).map_err(|error| error.to_string())
}

fn block(text: &str) -> Options {
    match read(&format!("streaming {{ {text} }}")) {
        Ok(loaded) => loaded.options.streaming.expect("the block switches the service on"),
        Err(error) => panic!("{text}: {error}"),
    }
}

fn errors(text: &str) -> Vec<String> {
    match read(&format!("streaming {{ {text} }}")) {
        Ok(_) => panic!("{text} is accepted"),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

/// Each key, under each of its names, changes exactly the option it should, and a reload does not pass over it.
#[test]
fn keys_to_options() {
    type Change = fn(&mut Options);
    let cases: &[(&[&str], Change)] = &[
        (&["", "id: test-cluster", "file { crc: false }", "v: test-cluster, id: $v"], |_| {}),
        (&["id: x", "cid: x", "cluster_id: x", "Cluster_ID: \"x\""], |o| o.cluster_id = "x".into()),
        (&["discover_prefix: d.e"], |o| o.discover_prefix = "d.e".into()),
        (&["store: file", "st: FILE", "store_type: File", "storetype: \"file\""], |o| o.store = StoreType::File),
        (&["dir: /x", "datastore: \"/x\""], |o| o.dir = Some("/x".into())),
        (&["sd: true", "stan_debug: yes"], |o| o.debug = true),
        (&["sv: true", "stan_trace: on"], |o| o.trace = true),
        (&["hbi: \"1.5s\"", "hb_interval: 1500ms", "server_to_client_hb_interval: \"1.5s\""], |o| {
            o.hb_interval = Duration::from_millis(1500);
        }),
        (&["hbt: \"3s\"", "hb_timeout: \"3s\"", "server_to_client_hb_timeout: \"3s\""], |o| {
            o.hb_timeout = Duration::from_secs(3);
        }),
        (&["hbf: 3", "hb_fail_count: 3", "server_to_client_hb_fail_count: 3"], |o| o.hb_fail_count = 3),
        (
            &[
                "replace_durable: true",
                "replace_durables: true",
                "replace_duplicate_durable: true",
                "replace_duplicate_durables: true",
            ],
            |o| o.replace_durable = true,
        ),
        (&["partitioning: true"], |o| o.partitioning = true),
        (&["limits { mc: 0 }", "store_limits { max_channels: 0 }", "storelimits: { maxchannels: 0 }"], |o| {
            o.limits.max_channels = 0
        }),
        (
            &[
                "limits { msu: 5 }",
                "limits { max_subs: 5 }",
                "limits { max_subscriptions: 5 }",
                "limits { maxsubscriptions: 5 }",
            ],
            |o| o.limits.of_all.max_subs = 5,
        ),
        (
            &[
                "limits { mm: 5000 }",
                "limits { max_msgs: 5k }",
                "limits { maxmsgs: 5K }",
                "limits { max_count: 5000 }",
                "limits { maxcount: 5000 }",
            ],
            |o| o.limits.of_all.max_msgs = 5000,
        ),
        (&["limits { mb: 64MB }", "limits { max_bytes: 64mib }", "limits { maxbytes: 67108864 }"], |o| {
            o.limits.of_all.max_bytes = 64 << 20;
        }),
        (&["limits { ma: \"1h\" }", "limits { max_age: \"60m\" }", "limits { maxage: 3600s }"], |o| {
            o.limits.of_all.max_age = Duration::from_secs(3600);
        }),
        (&["limits { mi: \"1h\" }", "limits { max_inactivity: \"1h\" }", "limits { maxinactivity: \"1h\" }"], |o| {
            o.limits.of_all.max_inactivity = Duration::from_secs(3600);
        }),
        (&["file { sync: false }", "file_options { do_sync: off }", "file { sync_on_flush: no }"], |o| {
            o.file.sync = false;
        }),
        (&["file { auto_sync: \"2s\" }", "file { file_auto_sync: \"2s\" }"], |o| {
            o.file.auto_sync = Some(Duration::from_secs(2));
        }),
        (&["file { auto_sync: \"0s\" }", "file { auto_sync: \"-1s\" }"], |o| o.file.auto_sync = None),
        (&["encrypt: true"], |o| o.encrypt = true),
        (&["encryption_cipher: chacha"], |o| o.encryption_cipher = Some(Cipher::ChaCha)),
        (&["encryption_key: \"hidden\""], |o| o.encryption_key = Some(Secret::new("hidden"))),
        (&["ns: \"nats://h:1\"", "nats_server: \"nats://h:1\"", "nats_server_url: \"nats://h:1\""], |o| {
            o.nats_server = Some("nats://h:1".into());
        }),
        (&["ft_group: g", "ft_group_name: g"], |o| o.ft_group = Some("g".into())),
        (&["cluster {}", "cluster { log_cache_size: 5, raft_lease_timeout: \"1s\" }"], |o| {
            o.clustering = Some(Clustering::default());
        }),
        (&["cluster { node_id: a, bootstrap: true, peers: [b, c], log_path: l, sync: true }"], |o| {
            o.clustering = Some(Clustering {
                node_id: Some("a".into()),
                bootstrap: true,
                peers: vec!["b".into(), "c".into()],
                log_path: Some("l".into()),
                sync: true,
            });
        }),
    ];
    for (texts, change) in cases {
        let mut expected = Options::default();
        change(&mut expected);
        for text in *texts {
            assert_eq!(block(text), expected, "{text}");
        }
        let all = |streaming: &Options| AllOptions { streaming: Some(streaming.clone()), ..AllOptions::default() };
        let outcome = diff(&all(&Options::default()), &all(&expected));
        assert_eq!(outcome.is_err(), expected != Options::default(), "{texts:?}");
        assert!(!format!("{outcome:?}").contains("hidden"));
    }
}

/// Limits by channel: 0 and less are unlimited, what is not there is left open; later ones replace earlier ones.
#[test]
fn limits_of_channels() {
    let options = block(
        "limits {
           max_age: \"1m\"
           channels {
             \"w.>\": { max_age: \"2s\", mm: 7 }
             w.*: { max_msgs: 5, max_bytes: 0, msu: -1, mi: \"-1s\" }
             \"a b\": {}
             w.a: { ma: \"0s\" }
           }
           per_channel: { w.a: { max_age: \"9s\" } }
         }",
    );
    let second = Duration::from_secs(1);
    let of = |channel: &str| {
        let limits = options.limits_of(channel);
        (limits.max_msgs, limits.max_bytes, limits.max_subs, limits.max_age, limits.max_inactivity)
    };
    assert_eq!(of("w.x.y"), (7, 1_024_000_000, 1000, 2 * second, Duration::ZERO));
    assert_eq!(of("w.x"), (5, 0, 0, 2 * second, Duration::ZERO));
    assert_eq!(of("w.a"), (5, 0, 0, 9 * second, Duration::ZERO));
    assert_eq!(of("a b"), (1_000_000, 1_024_000_000, 1000, 60 * second, Duration::ZERO));
    let shown: Vec<(&str, u64)> = options.limits.resolved().map(|(name, limits)| (name, limits.max_msgs)).collect();
    assert_eq!(shown, [("a b", 1_000_000), ("w.*", 5), ("w.>", 7), ("w.a", 5)]);
    let expected = ChannelOverride { max_age: Some(9 * second), ..ChannelOverride::default() };
    let text = format!("{:?}", options.limits.overrides);
    assert!(text.contains(&format!("\"w.a\": {expected:?}")), "{text}");
}

/// All errors are reported, each with its place.
#[test]
fn errors_have_places() {
    assert_eq!(
        errors(
            "foo: 1\nhbi: 5\nstore: x, dir: 5\n\
             limits { mc: -1, max_age: \"-1s\"\n\
             max_inactivity: \"1x\", nope: 2, channels { a/b: {}, c: 1, \"d.*\": { mm: x, y: 1 } } }"
        ),
        [
            "c:1:13: unknown field \"foo\"",
            "c:2:1: field \"hbi\": expected a string, got an integer (quote it)",
            "c:3:1: unknown store type: x",
            "c:3:11: field \"dir\": expected a string, got an integer (quote it)",
            "c:4:10: field \"mc\": max channels limit cannot be negative (-1)",
            "c:4:18: max age limit cannot be negative (-1s)",
            "c:5:1: field \"max_inactivity\": invalid duration \"1x\": not a duration such as 300ms, 1.5s or 2m",
            "c:5:23: unknown field \"nope\"",
            "c:5:43: invalid channel name \"a/b\"",
            "c:5:52: expected channel limits to be a map, got an integer",
            "c:5:67: field \"mm\": expected an integer, unquoted, got a string",
            "c:5:74: unknown field \"y\"",
        ]
    );
    for (text, expected) in [
        ("hbf: -1", "c:1:13: field \"hbf\": -1 is out of range"),
        ("hbt: \"-1s\"", "c:1:13: field \"hbt\": duration \"-1s\" is negative"),
        ("limits: 5", "c:1:13: expected limits to be a map, got an integer"),
        ("limits { channels: [] }", "c:1:22: expected channels to be a map, got an array"),
        ("limits { mm: -1 }", "c:1:22: field \"mm\": max messages limit cannot be negative (-1)"),
        ("file { crc_poly: 5 }", "c:1:20: field \"crc_poly\": crc polynomial must be 3988292384, that of IEEE CRC-32"),
        ("file { slice_size: -1 }", "c:1:20: field \"slice_size\": slice max values must be positive numbers"),
        ("file { slice_age: \"-1s\" }", "c:1:20: slice max values must be positive numbers"),
        (
            "file { compact_interval: 0 }",
            "c:1:20: field \"compact_interval\": compact interval value must at least be 1 seconds",
        ),
        ("encryption_cipher: des", "c:1:13: encryption cipher not supported"),
        ("store: sql", "c:1:13: store type SQL is not available; it must be MEMORY or FILE"),
        ("cluster { peers: a }", "c:1:23: expected an array of strings, got a string"),
        ("tls { foo: 1 }", "c:1:19: unknown field \"foo\""),
    ] {
        assert_eq!(errors(text), [expected], "{text}");
    }
    let error = read("streaming: 5").unwrap_err().to_string();
    assert_eq!(error, "c:1:1: expected streaming to be a map, got an integer");
}

/// A key of the service at the top level is refused with a word of where it belongs.
#[test]
fn keys_at_the_top_level() {
    let error = read("port: 1, Store_Limits {}\nfoo: 1").unwrap_err().to_string();
    let hint = "as a setting of NATS Streaming it belongs into the block \"streaming\", or into a file given with -sc";
    let expected = format!("c:1:10: unknown field \"Store_Limits\"; {hint}\nc:2:1: unknown field \"foo\"");
    assert_eq!(error, expected);
    assert_eq!(read("debug: true").unwrap().options.streaming, None);
    assert_eq!(read("stan {}").unwrap().options.streaming, Some(Options::default()));
}

/// One file serves for both, with the block or without; two files serve for one each.
#[test]
fn files_of_their_own() {
    let id = |options: &AllOptions| options.streaming.as_ref().map(|streaming| streaming.cluster_id.clone());
    let debug = |options: &AllOptions| options.streaming.as_ref().map(|streaming| streaming.debug);

    let one = read_both(None, "server_name: n, streaming { id: x, sd: true }").unwrap();
    assert_eq!((one.server_name.as_deref(), id(&one), debug(&one)), (Some("n"), Some("x".into()), Some(true)));
    assert_eq!(one.config_file.as_deref(), Some(Path::new("s")));
    let flat = read_both(None, "server_name: n, id: x, debug: true, limits { mc: 5 }, v: \"/d\", store: FILE, dir: $v")
        .unwrap();
    assert_eq!(
        (flat.server_name.as_deref(), id(&flat), flat.debug, debug(&flat)),
        (Some("n"), Some("x".into()), true, Some(false))
    );
    assert_eq!(read_both(None, "").unwrap().streaming, Some(Options::default()));
    // What both know is the server's own.
    let clash = read_both(None, "id: x, cluster { name: c }").unwrap();
    assert_eq!((clash.cluster_name.as_deref(), clash.streaming.unwrap().clustering), (Some("c"), None));
    assert_eq!(read_both(None, "id: x, foo: 1").unwrap_err(), "s:1:8: unknown field \"foo\"");
    // Beside the block there is nothing for the service.
    let error = read_both(None, "streaming { id: x }, store: FILE").unwrap_err();
    assert!(error.starts_with("s:1:22: unknown field \"store\"; as a setting"), "{error}");

    let both =
        read_both(Some("server_name: c, streaming { id: lost }"), "streaming { sd: true }, server_name: s").unwrap();
    assert_eq!(
        (both.server_name.as_deref(), id(&both), debug(&both)),
        (Some("c"), Some("test-cluster".into()), Some(true))
    );
    assert_eq!(both.config_file.as_deref(), Some(Path::new("c")));
    let both = read_both(Some("port: 1"), "id: x, cluster { node_id: a }").unwrap();
    let clustering = both.streaming.unwrap().clustering.unwrap();
    assert_eq!(clustering.node_id.as_deref(), Some("a"));
    let error = read_both(Some("foo: 1"), "server_name: s").unwrap_err();
    assert_eq!(error, "c:1:1: unknown field \"foo\"\ns:1:1: unknown field \"server_name\"");
    let same = load_with_streaming(Some(Path::new("s")), Path::new("s"), &Files(&[("s", "id: x, port: 1")])).unwrap();
    assert_eq!(id(&same.options), Some("x".into()));
    assert!(read_both(Some(""), "{").unwrap_err().starts_with("s:1"));
}

/// A reload cannot change the service, switch it on or off, and says which setting is another one.
#[test]
fn nothing_is_reloadable() {
    let options = |text: &str| read(text).unwrap().options;
    let refusal = |old: &str, new: &str| diff(&options(old), &options(new)).unwrap_err().to_string();
    let unsupported = "config reload not supported for";
    for (old, new, expected) in [
        ("", "streaming {}", "streaming: old=disabled, new=enabled"),
        ("streaming {}", "", "streaming: old=enabled, new=disabled"),
        ("streaming {}", "streaming { id: x }", "streaming.cluster_id: old=test-cluster, new=x"),
        ("streaming {}", "debug: on, streaming { limits { mc: 7 } }", "streaming.max_channels: old=100, new=7"),
        ("streaming { hbi: \"2s\" }", "streaming {}", "streaming.hb_interval: old=2s, new=30s"),
        ("streaming { encryption_key: hidden }", "streaming {}", "streaming.encryption_key: old=, new="),
        ("streaming {}", "streaming { file { auto_sync: \"0s\" } }", "streaming.auto_sync: old=1m0s, new=0s"),
        ("streaming {}", "streaming { st: memory }", "streaming.store: old=FILE, new=MEMORY"),
    ] {
        assert_eq!(refusal(old, new), format!("{unsupported} {expected}"));
    }
    let text = refusal("streaming {}", "streaming { limits { channels { a: { mm: 5 } } } }");
    assert!(text.starts_with(&format!("{unsupported} streaming.channels: old={{}}, new={{\"a\": ")), "{text}");
    let same = diff(&options("streaming { id: x }"), &options("stan { cid: x }, debug: on")).unwrap();
    assert_eq!(same.len(), 1);
}

/// What changes nothing is named when the file is read; what is switched off is not.
#[test]
fn notices() {
    let loaded =
        read("streaming { file { crc: true, sync: true }, secure: false, token: t, sql { driver: x } }").unwrap();
    let notices: Vec<String> = loaded.notices.iter().map(ToString::to_string).collect();
    let of = |place: &str, key: &str| format!("c:1:{place}: \"{key}\" has no effect in this version");
    assert_eq!(notices, [of("20", "crc"), of("60", "token"), of("76", "driver"), of("70", "sql")]);
}

/// The defaults that the sample shows are the defaults.
#[test]
fn the_sample_shows_defaults() {
    fn check(rows: Vec<crate::config::schema::Row>, outer: &str, checked: &mut usize) {
        for row in rows {
            let name = row.names[0];
            if ["channels", "encryption_key", "encryption_cipher", "cluster"].contains(&name) {
                continue;
            }
            if row.is_block {
                check(row.inner, &format!("{outer}{name} {{ "), checked);
                continue;
            }
            let text = format!("{outer}{name}: {}{}", row.default, " }".repeat(outer.matches('{').count()));
            assert_eq!(block(&text), Options::default(), "{text}");
            *checked += usize::from(row.status == Status::Works);
        }
    }
    let mut checked = 0;
    check(super::streaming_rows(), "", &mut checked);
    assert!(checked > 18, "{checked}");
}
