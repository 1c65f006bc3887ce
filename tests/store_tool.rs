//! `leat store` on stores that the engines have written, sound and damaged.

mod support;
mod support_store;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use leat::log::recover::survey::survey;
use leat::log::{Depth, Kind, LogId, Note, Step};
use leat::store_tool::directory::StoreDirectory;
use leat::store_tool::verify::verify;
use leat::stream::{Config, Inbound};
use serde_json::Value;
use support::{Finished, skip_on_peer};
use support_store::{STORE, Writer, log_path, new_directory, segment_path, write_identity};
use tempfile::TempDir;

/// Runs `leat store` on a directory.
fn tool(command: &str, directory: &Path, more: &[&str]) -> Finished {
    let directory = directory.to_str().expect("a path should be text");
    support::run(&[&["store", command, directory], more].concat())
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// A payload that can be found in a file.
fn payload(seq: u64) -> Vec<u8> {
    format!("<message {seq:08}>").repeat(10).into_bytes()
}

/// A store of several segments with a stream that has a name, a consumer and a hole, and one that has none of them.
/// `clean` if it ends as a server ends that is told to stop.
fn orders(clean: bool) -> TempDir {
    let directory = new_directory(1);
    let mut writer = Writer::new(directory.path(), 0);
    let orders = writer.stream(r#"{"name":"ORDERS"}"#, Config { max_messages: Some(1_000_000), ..Config::default() });
    let other = writer.stream("", Config::default());
    let set = writer.store.create_set();
    writer.store.put(writer.now, set, b"key", b"value", leat::log::Urgency::Now).expect("there should be a set");
    for seq in 1..=12_000 {
        assert_eq!(writer.publish(orders, &format!("orders.{}", seq % 3), &payload(seq)), seq);
        if seq % 100 == 0 {
            writer.publish(other, "other", b"\xff\x00binary");
            writer.settle();
        }
    }
    writer.settle();
    for seq in 20..=29 {
        writer.store.remove(writer.now, orders, seq).expect("there should be a message");
    }
    writer.consume(orders, "worker", 15);
    if clean {
        writer.stop();
    } else {
        writer.settle();
    }
    directory
}

/// Where bytes first lie in the files of the first log: the file and the offset.
fn find(directory: &Path, wanted: &[u8]) -> (PathBuf, u64) {
    for slot in 0.. {
        let path = segment_path(directory, slot);
        let content = fs::read(&path).unwrap_or_else(|_| panic!("{wanted:?} is nowhere"));
        if let Some(at) = memchr::memmem::find(&content, wanted) {
            return (path, at as u64);
        }
    }
    unreachable!()
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file should be there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("the byte should be there");
    file.write_all_at(&[byte[0] ^ 0x10], offset).expect("the byte should be writable");
}

/// All files below a directory.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("the directory should be listable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(content(&path));
        } else {
            let bytes = fs::read(&path).expect("the file should be readable");
            all.insert(path, bytes);
        }
    }
    all
}

#[test]
fn inspect_shows_everything() {
    if skip_on_peer("inspect_shows_everything") {
        return;
    }
    for clean in [true, false] {
        let directory = orders(clean);
        fs::write(log_path(directory.path(), 0).join("notes.txt"), "mine").unwrap();
        fs::write(segment_path(directory.path(), 90), "no segment".repeat(1000)).unwrap();
        fs::write(segment_path(directory.path(), 91), [0; 8192]).unwrap();
        let before = content(directory.path());
        let shown = tool("inspect", directory.path(), &["--json"]);
        assert_eq!((shown.code, &*shown.stderr), (Some(0), ""));
        let facts: Value = serde_json::from_str(&shown.stdout).unwrap();
        assert!(facts["oddities"][0].as_str().unwrap().ends_with("/log-000/notes.txt: not part of the store"));
        let log = &facts["logs"][0];
        assert_eq!((log["log"].as_u64(), log["directory"].as_str()), (Some(0), Some("log-000")));
        assert_eq!(log["repairs"], serde_json::json!([]));
        assert!(log["foreign"].as_array().unwrap()[0].as_str().unwrap().starts_with("00000090.segment: "));
        assert!(log["spare"].as_array().unwrap().iter().any(|spare| spare["file"] == "00000091.segment"));

        let segments = log["segments"].as_array().unwrap();
        assert!(segments.len() > 2, "{segments:?}");
        let sum = |name: &str| segments.iter().map(|segment| segment[name].as_u64().unwrap()).sum::<u64>();
        assert_eq!(sum("message_records"), 12_120);
        assert_eq!(sum("batches"), log["batches"].as_u64().unwrap());
        assert_eq!(log["last_batch"], log["batches"]);
        let (live, bytes) = (sum("live_bytes"), sum("message_bytes"));
        assert!(live < bytes && live > bytes - 10 * 250, "{live} of {bytes} for 10 removed messages");
        assert_eq!(segments[0]["segment"], 1);
        assert_eq!(segments[0]["sealed"], true);
        assert_eq!(segments.last().unwrap()["sealed"], false);
        if clean {
            assert!(log["checkpoints"][0]["problem"].is_null() && log["checkpoints"][0]["snapshots"] == 3);
        }

        let stream = &log["streams"][0];
        let numbers = ["first_seq", "last_seq", "messages", "subjects", "deleted", "bytes"];
        let size = u64::try_from(30 + "orders.1".len() + payload(1).len()).unwrap();
        let expected = [1, 12_000, 11_990, 3, 10, 11_990 * size];
        assert_eq!(numbers.map(|name| stream[name].as_u64().unwrap()), expected);
        assert_eq!(stream["name"], "ORDERS");
        assert_eq!(stream["config"]["max_messages"], 1_000_000);
        assert_eq!(stream["first_time"], "2023-11-14T22:13:20.000001000Z");
        let consumer = &stream["consumers"][0];
        assert_eq!((&consumer["number"], &consumer["name"]), (&Value::from(1), &Value::from("worker")));
        assert_eq!(consumer["ack_floor"]["stream_seq"], 15);
        assert_eq!(consumer["config"]["ack"], "explicit");
        assert!(log["streams"][1]["name"].is_null() && log["streams"][1]["messages"] == 120);
        assert_eq!(log["sets"][0]["values"], 1);

        let text = tool("inspect", directory.path(), &[]);
        assert_eq!(text.code, Some(0));
        for line in [
            "stream 1 (ORDERS): 11990 messages from 1 to 12000",
            "3 subjects, 10 deleted",
            "consumer 1 (worker): next",
            "acknowledged to 15",
            "foreign  00000090.segment: not a segment of this log",
            "spare  00000091.segment",
            "notes.txt: not part of the store",
        ] {
            assert!(text.stdout.contains(line), "{line} is missing in {}", text.stdout);
        }
        assert_eq!(tool("verify", directory.path(), &[]).code, Some(0));
        assert_eq!(tool("dump", directory.path(), &["1"]).code, Some(0));
        assert!(content(directory.path()) == before, "something has been written");
    }
}

#[test]
fn dump_prints_what_was_stored() {
    if skip_on_peer("dump_prints_what_was_stored") {
        return;
    }
    let directory = orders(true);
    for name in ["ORDERS", "1"] {
        let dumped = tool("dump", directory.path(), &[name]);
        assert_eq!((dumped.code, &*dumped.stderr), (Some(0), ""));
        let lines = json_lines(&dumped.stdout);
        let expected = (1..=12_000).filter(|seq| !(20..=29).contains(seq));
        assert_eq!(lines.len(), 11_990);
        for (line, seq) in lines.iter().zip(expected) {
            assert_eq!(line["seq"], seq);
            assert_eq!(line["subject"], format!("orders.{}", seq % 3));
            assert_eq!(line["payload"], String::from_utf8(payload(seq)).unwrap());
            assert_eq!(line["payload_encoding"], "text");
            assert!(line.get("reply").is_none() && line.get("headers").is_none());
        }
        assert_eq!(lines[0]["time"], "2023-11-14T22:13:20.000001000Z");
    }
    let some = tool("dump", directory.path(), &["ORDERS", "--from", "18", "--to=31"]);
    let seqs = json_lines(&some.stdout).iter().map(|line| line["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(seqs, [18, 19, 30, 31]);
    let binary = json_lines(&tool("dump", directory.path(), &["2", "--to", "1"]).stdout);
    assert_eq!((&binary[0]["payload"], &binary[0]["payload_encoding"]), (&"/wBiaW5hcnk=".into(), &"base64".into()));
    let none = tool("dump", directory.path(), &["NOBODY"]);
    assert_eq!((none.code, &*none.stdout), (Some(2), ""));
    assert!(none.stderr.contains("there is no stream \"NOBODY\""), "{}", none.stderr);
}

/// Replies, headers, and messages in parts; and names that several logs have.
#[test]
fn dump_knows_all_kinds_of_messages_and_all_logs() {
    if skip_on_peer("dump_knows_all_kinds_of_messages_and_all_logs") {
        return;
    }
    let directory = new_directory(2);
    let large = vec![b'x'; 3 << 20];
    for log in 0..2 {
        let mut writer = Writer::new(directory.path(), log);
        // Room for parts of a megabyte.
        let of = writer.stream("SAME", Config::default());
        writer.publish_message(
            of,
            &Inbound {
                subject: b"a",
                reply: b"answers",
                headers: b"NATS/1.0\r\nA: b\r\n\r\n",
                payload: format!("log {log}").as_bytes(),
                ..Inbound::default()
            },
        );
        writer.settle();
        if log == 1 {
            writer.stream("ONCE", Config::default());
        }
        writer.stop();
    }
    let both = tool("dump", directory.path(), &["SAME"]);
    assert_eq!(both.code, Some(2));
    assert!(both.stderr.contains("several streams") && both.stderr.contains("1 in log 1"), "{}", both.stderr);
    for log in ["0", "1"] {
        let lines = json_lines(&tool("dump", directory.path(), &["SAME", "--log", log]).stdout);
        assert_eq!(lines[0]["payload"], format!("log {log}"));
        assert_eq!(lines[0]["reply"], "answers");
        assert_eq!(lines[0]["headers"], "NATS/1.0\r\nA: b\r\n\r\n");
        assert_eq!(lines[0]["headers_encoding"], "text");
    }
    assert_eq!(tool("dump", directory.path(), &["ONCE"]).code, Some(0));

    let directory = new_directory(1);
    let mut writer = Writer::with_segments(directory.path(), 0, 16 << 20);
    let of = writer.stream("BIG", Config::default());
    writer.publish(of, "big", &large);
    writer.settle();
    drop(writer);
    let lines = json_lines(&tool("dump", directory.path(), &["BIG"]).stdout);
    assert_eq!(lines[0]["payload"].as_str().unwrap().as_bytes(), large);
    assert_eq!(tool("verify", directory.path(), &[]).code, Some(0));
    let (file, _) = find(directory.path(), b"xxxxxxxxxxxxxxxxxxxxxxxx");
    flip(&file, 2 << 20);
    let verified = tool("verify", directory.path(), &[]);
    assert_eq!(verified.code, Some(1), "{}", verified.stdout);
    assert!(verified.stdout.contains("messages 1 to 1 of stream 1 (BIG) are damaged"), "{}", verified.stdout);
}

#[test]
fn verify_passes_what_is_sound() {
    if skip_on_peer("verify_passes_what_is_sound") {
        return;
    }
    for clean in [true, false] {
        let directory = orders(clean);
        let verified = tool("verify", directory.path(), &[]);
        assert_eq!((verified.code, &*verified.stderr), (Some(0), ""), "{}", verified.stdout);
        assert!(verified.stdout.starts_with("sound: 1 logs, "), "{}", verified.stdout);
        assert!(verified.stdout.contains(" with 12120 messages, "), "{}", verified.stdout);
    }
}

/// Cleaning leaves gaps between segments, messages that lie twice, and files of segments that have gone.
#[test]
fn verify_passes_what_has_been_cleaned() {
    if skip_on_peer("verify_passes_what_has_been_cleaned") {
        return;
    }
    for clean in [true, false] {
        let directory = new_directory(1);
        let mut writer = Writer::new(directory.path(), 0);
        let few = writer.stream("FEW", Config { max_messages: Some(100), ..Config::default() });
        let all = writer.stream("ALL", Config::default());
        for seq in 1..=200_000 {
            writer.publish(few, "few", &payload(seq));
            if seq % 100 == 0 {
                writer.publish(all, "all", &payload(seq));
                writer.settle();
            }
        }
        let segments = writer.store.log().segments().collect::<Vec<_>>();
        assert!(segments[0].segment.0 > 1, "nothing was cleaned: {segments:?}");
        if clean {
            writer.stop();
        }
        let verified = tool("verify", directory.path(), &[]);
        assert_eq!((verified.code, &*verified.stderr), (Some(0), ""), "{}", verified.stdout);
        let lines = json_lines(&tool("dump", directory.path(), &["FEW"]).stdout);
        assert_eq!((lines.len(), &lines[0]["seq"]), (100, &Value::from(199_901)));
        let inspected: Value = serde_json::from_str(&tool("inspect", directory.path(), &["--json"]).stdout).unwrap();
        assert_eq!(inspected["logs"][0]["streams"][0]["messages"], 100);
    }
}

/// Damages a store and expects `verify` to find it, in these words.
fn damaged(clean: bool, damage: impl FnOnce(&Path), words: &[&str]) -> TempDir {
    let directory = orders(clean);
    damage(directory.path());
    let verified = tool("verify", directory.path(), &[]);
    assert_eq!(verified.code, Some(1), "{}{}", verified.stdout, verified.stderr);
    for word in words {
        assert!(verified.stdout.contains(word), "{word:?} is missing in {}", verified.stdout);
    }
    directory
}

#[test]
fn verify_finds_a_damaged_message() {
    if skip_on_peer("verify_finds_a_damaged_message") {
        return;
    }
    for clean in [true, false] {
        let mut offset = 0;
        let directory = damaged(
            clean,
            |directory| {
                let (file, at) = find(directory, &payload(150));
                offset = at;
                assert!(file.ends_with("00000000.segment"));
                flip(&file, at);
            },
            &[
                "damage: log-000/00000000.segment: offset ",
                " of stream 1 (ORDERS) are damaged: checksum of the content is ",
            ],
        );
        let verified = tool("verify", directory.path(), &[]).stdout;
        let words = verified.lines().next().unwrap().split([' ', ':']).filter(|word| !word.is_empty());
        let numbers = words.filter_map(|word| word.parse::<u64>().ok()).collect::<Vec<_>>();
        let [at, first, last, ..] = numbers[..] else { panic!("{verified}") };
        assert!(at < offset && offset - at < 64 << 10, "{at} for {offset}");
        assert!((101..=150).contains(&first) && (150..=200).contains(&last), "{first} to {last}");

        // The others are there.
        let dumped = tool("dump", directory.path(), &["ORDERS"]);
        let seqs = json_lines(&dumped.stdout).iter().map(|line| line["seq"].as_u64().unwrap()).collect::<Vec<_>>();
        assert!(!seqs.contains(&first) && !seqs.contains(&last));
        assert!(seqs.contains(&(first - 1)) && seqs.contains(&(last + 1)) && seqs.contains(&12_000));
        if clean {
            // The snapshot takes them for living.
            assert_eq!(dumped.code, Some(1));
            assert!(dumped.stderr.contains(&format!("cannot be read: {first}-{last}")), "{}", dumped.stderr);
        }
    }
}

#[test]
fn verify_finds_damaged_heads() {
    if skip_on_peer("verify_finds_damaged_heads") {
        return;
    }
    damaged(true, |directory| flip(&segment_path(directory, 1), 40), &["the head of segment 2 is damaged: "]);
    for clean in [true, false] {
        let batch = |directory: &Path| {
            let (file, at) = find(directory, &payload(150));
            flip(&file, at / 4096 * 4096 + 130);
            flip(&file, at / 4096 * 4096 - 4096 + 30);
        };
        // Whatever of the two is in a head is found.
        damaged(clean, batch, &["damage: log-000/00000000.segment: "]);
        let all_heads = |directory: &Path| {
            let path = segment_path(directory, 1);
            let mut content = fs::read(&path).unwrap();
            let heads = content.chunks_exact_mut(4096).skip(20).filter(|block| block.starts_with(b"LBAT"));
            heads.take(3).for_each(|head| head[60] ^= 1);
            fs::write(path, content).unwrap();
        };
        damaged(
            clean,
            all_heads,
            &["log-000/00000001.segment: bytes ", " are damaged, batches ", " are lost", " of stream 1 (ORDERS)"],
        );
    }
}

#[test]
fn verify_finds_what_is_missing() {
    if skip_on_peer("verify_finds_what_is_missing") {
        return;
    }
    let remove = |directory: &Path| fs::remove_file(segment_path(directory, 1)).unwrap();
    damaged(false, remove, &["messages of stream 1 (ORDERS) cannot be read: "]);
    damaged(true, remove, &["messages of stream 1 (ORDERS) cannot be read: "]);
    let cut = |directory: &Path| {
        let file = OpenOptions::new().write(true).open(segment_path(directory, 1)).unwrap();
        file.set_len(300_000).unwrap();
    };
    damaged(true, cut, &["log-000/00000001.segment: ", "are lost", "cannot be read: "]);
    damaged(true, |directory| fs::remove_dir_all(log_path(directory, 0)).unwrap(), &["log-000: a log is missing"]);
    damaged(true, |directory| flip(&directory.join("store.json"), 30), &["store.json: damaged"]);
    damaged(
        true,
        |directory| write_identity(&log_path(directory, 0), leat::log::StoreId([1; 16]), 1),
        &["log-000/store.json: belongs to another store"],
    );
}

/// Where opening a log has to read, a segment that is not there is missed by its number.
#[test]
fn verify_finds_a_missing_segment_behind_the_checkpoint() {
    if skip_on_peer("verify_finds_a_missing_segment_behind_the_checkpoint") {
        return;
    }
    let directory = new_directory(1);
    let mut writer = Writer::new(directory.path(), 0);
    let of = writer.stream("ORDERS", Config::default());
    // All in one turn: a checkpoint that begins meanwhile ends behind all of it.
    for seq in 1..=20_000 {
        writer.publish(of, "orders", &payload(seq));
    }
    while writer.store.stream(of).is_some_and(|stream| stream.visible() < 20_000) {
        writer.turn_once();
    }
    drop(writer);
    let (path, _) = find(directory.path(), &payload(12_000));
    let slot = (0..).find(|slot| path == segment_path(directory.path(), *slot)).unwrap();
    fs::remove_file(path).unwrap();
    let verified = tool("verify", directory.path(), &[]);
    assert_eq!(verified.code, Some(1), "{}", verified.stdout);
    let missing = format!("damage: log-000: segments {0} to {0} are missing", slot + 1);
    assert!(verified.stdout.contains(&missing), "{missing}: {}", verified.stdout);
}

/// A log without its last segments is not just a shorter log.
#[test]
fn verify_finds_a_missing_end() {
    if skip_on_peer("verify_finds_a_missing_end") {
        return;
    }
    let note_path = |directory: &Path| log_path(directory, 0).join("newest");
    let newest = |directory: &Path| Note::parse(&fs::read(note_path(directory)).unwrap()).unwrap();
    for clean in [true, false] {
        for count in 1..=2 {
            let missing = |directory: &Path| {
                // None was cleaned, so slots are used in order.
                let slot = newest(directory).slot.0;
                (0..count).for_each(|back| fs::remove_file(segment_path(directory, slot - back)).unwrap());
            };
            let words = [".segment: segment ", ", the newest, is missing: everything after batch "];
            let directory = damaged(clean, missing, &words);
            let Note { segment, slot, .. } = newest(directory.path());
            let verified = tool("verify", directory.path(), &[]).stdout;
            let named = format!("damage: log-000/{:08}.segment: segment {}, the newest", slot.0, segment.0);
            assert!(verified.contains(&named), "{named}: {verified}");
            assert!(verified.contains("note: log-000: stream 1 (ORDERS) ends with message "), "{verified}");
            let inspected = tool("inspect", directory.path(), &[]);
            assert!(inspected.stdout.contains(", the newest, is missing: "), "{}", inspected.stdout);
        }
        let all = |directory: &Path| {
            let entries = fs::read_dir(log_path(directory, 0)).unwrap().map(|entry| entry.unwrap().path());
            let segments = entries.filter(|path| path.extension().is_some_and(|kind| kind == "segment"));
            segments.for_each(|path| fs::remove_file(path).unwrap());
        };
        damaged(clean, all, &[", the newest, is missing, and so are all others: everything in this log is lost"]);
    }
    damaged(true, |directory| flip(&note_path(directory), 33), &["damage: log-000/newest: damaged, "]);
    let directory = orders(true);
    fs::remove_file(note_path(directory.path())).unwrap();
    assert_eq!(tool("verify", directory.path(), &[]).code, Some(0), "a store of before there were notes");
}

/// The end of a log whose last segment has lost its beginning is no torn tail.
#[test]
fn verify_finds_a_hidden_end() {
    if skip_on_peer("verify_finds_a_hidden_end") {
        return;
    }
    let behead = |directory: &Path| {
        let last = (0..).find(|slot| {
            let next = fs::read(segment_path(directory, slot + 1)).unwrap_or_default();
            !next.starts_with(b"LEATSEG1")
        });
        let path = segment_path(directory, last.unwrap());
        flip(&path, 40);
        flip(&path, 4096 + 40);
    };
    damaged(true, behead, &["the beginning is damaged; from ", "behind the end of what can be read of the log"]);
}

/// Each flipped bit is found that lies in something that was flushed, and each that is nowhere is not.
#[test]
fn verify_finds_each_flipped_bit() {
    let directory = orders(true);
    let checked = checked_bytes(directory.path());
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut hits, mut misses) = (0, 0);
    for _ in 0..400 {
        let slot = rng.u32(..3);
        let path = segment_path(directory.path(), slot);
        let at = rng.u64(..fs::metadata(&path).unwrap().len());
        flip(&path, at);
        let found = verify(&StoreDirectory::open(directory.path()).unwrap(), &|_| {}).unwrap();
        let problems = found.logs.iter().flat_map(|log| log.problems.iter().map(|problem| log.describe(problem)));
        let problems = problems.collect::<Vec<_>>();
        if checked.iter().any(|(of, range)| *of == slot && range.contains(&at)) {
            hits += 1;
            assert!(found.damages() > 0, "{slot} at {at}: {problems:?}");
        } else {
            misses += 1;
            assert_eq!(found.damages(), 0, "{slot} at {at}: {problems:?}");
        }
        flip(&path, at);
    }
    assert!(hits > 200 && misses > 10, "{hits} in {misses} beside");
}

/// What checksums cover: heads of segments, heads and directories of batches, and contents of runs.
fn checked_bytes(directory: &Path) -> Vec<(u32, std::ops::Range<u64>)> {
    let store = StoreDirectory::open(directory).expect("the store should open");
    let mut files = store.files(LogId(0), &|_| {});
    let mut checked = Vec::new();
    survey(&mut files, LogId(0), STORE, |survey| {
        for found in survey.segments() {
            let slot = found.slot.0;
            checked.push((slot, 0..4096));
            survey.scan(found.head.segment, Depth::Contents, |step| {
                if let Step::Batch(batch) = step {
                    let start = u64::from(batch.head().position.offset());
                    let runs = batch.runs().count() as u64;
                    checked.push((slot, start..start + 128 * (1 + runs)));
                    for run in batch.runs() {
                        let start = u64::from(run.entry.offset);
                        assert_ne!(run.entry.kind, Kind::RaftMark);
                        checked.push((slot, start..start + u64::from(run.entry.bytes)));
                    }
                }
            });
        }
    })
    .expect("the log should open");
    checked
}

/// A write that a crash has torn is what crashes leave behind.
#[test]
fn a_torn_tail_is_no_damage() {
    if skip_on_peer("a_torn_tail_is_no_damage") {
        return;
    }
    let directory = new_directory(1);
    let mut writer = Writer::new(directory.path(), 0);
    let of = writer.stream("S", Config::default());
    writer.settle();
    writer.publish(of, "s", b"the last message");
    // Written, and then nothing more: no batch says that it was flushed.
    writer.turn_once();
    drop(writer);
    let (file, at) = find(directory.path(), b"the last message");
    flip(&file, at);
    let verified = tool("verify", directory.path(), &[]);
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
    assert!(verified.stdout.contains("note: log-000/00000000.segment: cut at "), "{}", verified.stdout);
    let inspected = tool("inspect", directory.path(), &[]);
    assert!(inspected.stdout.contains("! 00000000.segment: cut at "), "{}", inspected.stdout);
}

#[test]
fn a_store_in_use_is_refused() {
    if skip_on_peer("a_store_in_use_is_refused") {
        return;
    }
    let directory = new_directory(1);
    Writer::new(directory.path(), 0).stop();
    let lock = File::open(directory.path().join("lock")).unwrap();
    // SAFETY: no pointers are passed, and the descriptor is that of an open file.
    assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }, 0);
    for (command, more) in [("inspect", &[][..]), ("verify", &[]), ("dump", &["1"])] {
        let refused = tool(command, directory.path(), more);
        assert_eq!((refused.code, &*refused.stdout), (Some(2), ""));
        assert!(refused.stderr.ends_with(" is in use by process 1; stop it first\n"), "{}", refused.stderr);
    }
    // SAFETY: as above.
    assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_SH) }, 0);
    assert_eq!(tool("inspect", directory.path(), &[]).code, Some(0), "readers share");
}

/// What waits for somebody when it is opened, or never ends, is not opened.
#[test]
fn what_is_no_file_is_named() {
    if skip_on_peer("what_is_no_file_is_named") {
        return;
    }
    let commands = [("inspect", &[][..]), ("verify", &[]), ("dump", &["ORDERS"])];
    type Make<'a> = &'a dyn Fn(&Path);
    let kinds: [(&str, Make<'_>); 4] = [
        ("a FIFO", &|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("a directory", &|path| fs::create_dir(path).unwrap()),
        ("a socket", &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap())),
        ("a device", &|path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
    ];
    let sound = orders(true);
    let files = ["store.json", "log-000/store.json", "lock", "log-000/newest", "log-000/00000001.segment"];
    for (kind, make) in kinds {
        for name in files {
            let path = sound.path().join(name);
            let aside = sound.path().with_extension("aside");
            fs::rename(&path, &aside).unwrap();
            make(&path);
            for (command, more) in commands {
                let told = tool(command, sound.path(), more);
                let context = format!("{kind}, {name}, {command}: {}{}", told.stdout, told.stderr);
                let words = format!("{kind} where a file belongs");
                // What is wrong with a log is told, what is wrong around it is refused.
                match (name, command) {
                    ("log-000/newest", "dump") => assert_eq!(told.code, Some(0), "{context}"),
                    ("log-000/00000001.segment", "dump") => {
                        assert!(told.code == Some(1) && told.stderr.contains("cannot be read: "), "{context}");
                    }
                    ("log-000/newest" | "log-000/00000001.segment", _) => {
                        let file = name.rsplit('/').next().unwrap();
                        let line = told.stdout.lines().find(|line| line.contains(&words));
                        assert!(line.is_some_and(|line| line.contains(file)), "{context}");
                        assert_eq!(told.code, Some(i32::from(command == "verify")), "{context}");
                    }
                    _ => {
                        assert_eq!((told.code, &*told.stdout), (Some(2), ""), "{context}");
                        assert!(told.stderr.ends_with(&format!("/{name}: {words}\n")), "{context}");
                    }
                }
            }
            if kind == "a directory" {
                fs::remove_dir(&path).unwrap()
            } else {
                fs::remove_file(&path).unwrap()
            }
            fs::rename(&aside, &path).unwrap();
        }
    }
    assert_eq!(tool("verify", sound.path(), &[]).code, Some(0));
}

#[test]
fn what_is_no_store_is_refused() {
    if skip_on_peer("what_is_no_store_is_refused") {
        return;
    }
    let directory = TempDir::new().unwrap();
    for command in ["inspect", "verify"] {
        let refused = tool(command, directory.path(), &[]);
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains("there is no store in this directory"), "{}", refused.stderr);
        let refused = tool(command, &directory.path().join("nowhere"), &[]);
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains("No such file or directory"), "{}", refused.stderr);
    }
    // Without its identity, the segments say whose they are.
    let directory = orders(true);
    fs::remove_file(directory.path().join("store.json")).unwrap();
    assert_eq!(tool("verify", directory.path(), &[]).code, Some(0), "a copy is left");
    fs::remove_file(log_path(directory.path(), 0).join("store.json")).unwrap();
    let verified = tool("verify", directory.path(), &[]);
    assert_eq!(verified.code, Some(1), "{}", verified.stdout);
    assert!(verified.stdout.contains("with 12120 messages"), "{}", verified.stdout);
    let usage = support::run(&["store", "mend", "/data"]);
    assert_eq!(usage.code, Some(2));
    assert!(usage.stderr.starts_with("leat: unrecognized subcommand 'mend'"), "{}", usage.stderr);
}

/// Whoever reads the output may stop reading.
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    if skip_on_peer("a_reader_that_has_seen_enough_is_no_error") {
        return;
    }
    let directory = orders(true);
    let mut child = Command::new(env!("CARGO_BIN_EXE_leat"))
        .args(["store", "dump"])
        .arg(directory.path())
        .arg("ORDERS")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
