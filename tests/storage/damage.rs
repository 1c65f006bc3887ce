//! Files that are damaged while nobody looks: a store opens all the same and says what is wrong, every message that it
//! serves is what was published, and none is missing without a word.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use leat::io::engine::{Engine, Failure, now};
use leat::io::store_directory::StoreDirectory;
use leat::log::recover::Repair;
use leat::log::{Incarnation, Kind, Note};

use super::content::{Face, ask, get, message, open, options, publish, state, streams};
use super::disk;

/// What was in the store when it was whole: the numbers of the messages of each stream.
struct Whole {
    dir: tempfile::TempDir,
    streams: [Incarnation; 2],
    messages: [Vec<u64>; 2],
}

/// Publishes until there are some segments. `clean` is how it ends: with a checkpoint, or as if it had been killed.
fn whole(clean: bool) -> Whole {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, _) = open(&dir.path().join("store"));
    let mut face = Face::default();
    let streams = streams(&mut engine);
    let mut after = None;
    for round in 0..150 {
        for name in [0, 1] {
            for _ in 0..20 {
                after = publish(&mut engine, streams[name], name).ok();
            }
        }
        if round % 10 == 9 {
            let _ = engine.store_mut().remove(now(), streams[0], round * 7);
        }
        // Batches of their own.
        let pending = after.expect("it was taken").1;
        ask(&mut engine, &mut face, |_| Some(()));
        engine.run(&mut face, |_, face| face.proof.is_some_and(|proof| proof.covers(pending))).unwrap();
    }
    let messages = streams.map(|of| {
        let state = state(&mut engine, &mut face, of);
        (state.first_seq..=state.last_seq).filter(|seq| get(&mut engine, &mut face, of, *seq).is_some()).collect()
    });
    match clean {
        true => engine.stop(&mut face).unwrap(),
        false => {
            // Told on disk, as it is after a moment without work: nothing at the end may pass for a torn tail.
            ask(&mut engine, &mut face, |engine| engine.store().log().deadline().is_none().then_some(()));
            drop(engine);
        }
    }
    assert!(face.notices.is_empty());
    Whole { dir, streams, messages }
}

/// What became of a damaged store.
#[derive(Debug)]
struct Found {
    /// Why it was not opened.
    refused: Option<String>,
    /// What opening and reading have told.
    told: Vec<String>,
    /// Messages that are gone.
    lost: usize,
}

impl Whole {
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for file in self.files() {
            let to = copy.path().join(&file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(self.dir.path().join(&file), to).unwrap();
        }
        copy
    }

    /// All files of the store, by their path in it.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for directory in ["store", "store/log-000"] {
            let entries = fs::read_dir(self.dir.path().join(directory)).unwrap().map(|entry| entry.unwrap().path());
            let found = entries.filter(|path| path.is_file());
            files.extend(found.map(|path| path.strip_prefix(self.dir.path()).unwrap().to_owned()));
        }
        files.sort();
        files
    }

    /// The segments with batches in them, and where their zeros begin.
    fn segments(&self) -> Vec<(PathBuf, usize)> {
        let segments = self.files().into_iter().filter(|file| file.extension().is_some_and(|kind| kind == "segment"));
        let ends = segments.map(|file| {
            let content = fs::read(self.dir.path().join(&file)).unwrap();
            let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            (file, end)
        });
        ends.filter(|(_, end)| *end > 0).collect()
    }

    /// The file of the newest segment, as its note tells.
    fn newest(&self) -> PathBuf {
        let note = Note::parse(&fs::read(self.dir.path().join("store/log-000/newest")).unwrap()).unwrap();
        format!("store/log-000/{:08}.segment", note.slot.0).into()
    }

    /// Damages a copy and looks at all of it. What is served is compared with what was published.
    fn damaged(&self, context: &str, damage: impl FnOnce(&Path)) -> Found {
        let copy = self.copy();
        damage(copy.path());
        let path = copy.path().join("store");
        let directory = match StoreDirectory::open(&path, 1) {
            Ok(directory) => directory,
            Err(unusable) => return Found { refused: Some(unusable.to_string()), told: Vec::new(), lost: 0 },
        };
        let mut told = directory.oddities().iter().map(ToString::to_string).collect::<Vec<_>>();
        let opened = Engine::open_log(&directory.into(), leat::log::LogId(0), options());
        let (mut engine, report) = match opened {
            Ok(opened) => opened,
            Err(Failure::Log(refusal)) => {
                return Found { refused: Some(refusal.to_string()), told, lost: 0 };
            }
            Err(failure) => panic!("{context}: {failure}"),
        };
        told.extend(report.repairs.iter().map(ToString::to_string));
        let mut lost = 0;
        let mut face = Face::default();
        for (name, of) in self.streams.into_iter().enumerate() {
            if engine.store().stream(of).is_none() {
                lost += self.messages[name].len();
                continue;
            }
            let mut there = BTreeMap::new();
            let last = engine.store().stream(of).unwrap().last_seq();
            for seq in 1..=last.max(*self.messages[name].last().unwrap()) {
                if let Some(found) = get(&mut engine, &mut face, of, seq) {
                    assert!(found == message(name, seq), "{context}: message {seq} of stream {name} has changed");
                    there.insert(seq, ());
                }
            }
            lost += self.messages[name].iter().filter(|seq| !there.contains_key(seq)).count();
            // What was removed may be back only if the record of the removal is among what is named.
            let back = there.keys().filter(|seq| !self.messages[name].contains(seq)).count();
            let records = report.repairs.iter().any(|repair| match repair {
                Repair::DamagedRun { run, .. } => run.kind != Kind::Messages,
                repair => repair.is_damage(),
            });
            assert!(back == 0 || records, "{context}: {back} removed messages are back: {report:?}");
            // It goes on: more can be published, and is flushed.
            let published = publish(&mut engine, of, name);
            let (_, after) = published.unwrap_or_else(|refusal| panic!("{context}: {refusal:?}"));
            engine.run(&mut face, |_, face| face.proof.is_some_and(|proof| proof.covers(after))).unwrap();
        }
        told.extend(face.notices.iter().map(ToString::to_string));
        assert!(lost == 0 || !told.is_empty(), "{context}: {lost} messages are gone without a word");
        Found { refused: None, told, lost }
    }

    fn is_named(&self, file: &Path, found: &Found) -> bool {
        let name = file.file_name().unwrap().to_str().unwrap();
        found.refused.iter().chain(&found.told).any(|text| text.contains(name))
    }
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut content = fs::read(path).unwrap();
    content[at] ^= 1 << bit;
    fs::write(path, content).unwrap();
}

fn truncate(path: &Path, bytes: usize) {
    fs::File::options().write(true).open(path).unwrap().set_len(bytes as u64).unwrap();
}

#[test]
fn a_whole_store_is_found_whole() {
    for clean in [true, false] {
        let whole = whole(clean);
        assert!(whole.segments().len() > 2, "{:?}", whole.segments());
        let found = whole.damaged("nothing", |_| {});
        assert!(found.refused.is_none() && found.told.is_empty() && found.lost == 0, "{found:?}");
    }
}

/// Any bit of any segment: nothing wrong is served, nothing is missing without a word, and the rest is there.
#[test]
fn flipped_bits_in_segments() {
    let seed = disk::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    for clean in [true, false] {
        let whole = whole(clean);
        let segments = whole.segments();
        for round in 0..disk::rounds(40) {
            let (file, end) = rng.choice(&segments).unwrap();
            // Heads of segments and of batches more often than chance would have it.
            let at = match rng.u8(..4) {
                0 => rng.usize(..128.min(*end)),
                1 => (rng.usize(..*end) & !4095) + rng.usize(..384),
                _ => rng.usize(..*end),
            };
            let (at, bit) = (at.min(*end - 1), rng.u8(..8));
            let context =
                format!("seed {seed}, clean {clean}, round {round}: bit {bit} of byte {at} of {}", file.display());
            let found = whole.damaged(&context, |copy| flip(&copy.join(file), at, bit));
            let all = whole.messages.iter().map(Vec::len).sum::<usize>();
            assert!(found.refused.is_some() || found.lost < all / 3, "{context}: {found:?}");
            assert!(found.told.is_empty() || whole.is_named(file, &found), "{context}: {found:?}");
        }
    }
}

#[test]
fn segments_that_are_cut_or_gone() {
    let seed = disk::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    for clean in [true, false] {
        let whole = whole(clean);
        // Cleaning may have emptied a segment before it was damaged; others hold what is lost then.
        let mut lost = 0;
        let newest = whole.newest();
        for (file, end) in whole.segments().into_iter().filter(|(file, _)| *file != newest) {
            let anywhere = (0..disk::rounds(40).div_ceil(40)).map(|_| rng.usize(..end)).collect::<Vec<_>>();
            for cut in [0, 100, 4096, 5000, end - 1].into_iter().chain(anywhere) {
                let context = format!("seed {seed}, clean {clean}: {} cut at {cut}", file.display());
                lost += whole.damaged(&context, |copy| truncate(&copy.join(&file), cut)).lost;
            }
            let context = format!("clean {clean}: {} is gone", file.display());
            lost += whole.damaged(&context, |copy| fs::remove_file(copy.join(&file)).unwrap()).lost;
        }
        assert!(lost > 0, "nothing that was cut off was needed");
    }
}

/// The newest segment is missed by its name if no batch of it is left, and if there is no segment at all.
#[test]
fn the_newest_segment_is_cut_or_gone() {
    for clean in [true, false] {
        let whole = whole(clean);
        let newest = whole.newest();
        let missed = |context: &str, damage: &dyn Fn(&Path)| {
            let found = whole.damaged(context, damage);
            let name = newest.file_name().unwrap().to_str().unwrap();
            let told = found.told.iter().any(|told| told.contains(name) && told.contains("the newest, is missing"));
            assert!(told && found.refused.is_none(), "{context}: {found:?}");
            found
        };
        for cut in [0, 100, 4096, 5000] {
            missed(&format!("clean {clean}: cut at {cut}"), &|copy| truncate(&copy.join(&newest), cut));
        }
        missed(&format!("clean {clean}: gone"), &|copy| fs::remove_file(copy.join(&newest)).unwrap());
        let all = missed(&format!("clean {clean}: all gone"), &|copy| {
            whole.segments().iter().for_each(|(file, _)| fs::remove_file(copy.join(file)).unwrap());
        });
        assert_eq!(all.lost, whole.messages.iter().map(Vec::len).sum::<usize>());
    }
}

/// A note that is damaged is told of; without one nothing is missed, as in a store of before there were notes.
#[test]
fn damaged_notes() {
    let whole = whole(true);
    let name = "store/log-000/newest";
    let bytes = fs::metadata(whole.dir.path().join(name)).unwrap().len() as usize;
    for at in 0..bytes {
        let context = format!("byte {at} of the note");
        let found = whole.damaged(&context, |copy| flip(&copy.join(name), at, 3));
        assert!(found.told.iter().any(|told| told.contains("newest: damaged")), "{context}: {found:?}");
        assert!(found.lost == 0 && found.refused.is_none(), "{context}: {found:?}");
    }
    let found = whole.damaged("no note", |copy| fs::remove_file(copy.join(name)).unwrap());
    assert!(found.lost == 0 && found.told.is_empty() && found.refused.is_none(), "{found:?}");
}

#[test]
fn damaged_identities() {
    let whole = whole(true);
    let seed = disk::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    for name in ["store/store.json", "store/log-000/store.json"] {
        // Without the line's end, which says nothing.
        let bytes = fs::metadata(whole.dir.path().join(name)).unwrap().len() as usize - 1;
        for _ in 0..disk::rounds(40).div_ceil(4) {
            let (at, bit) = (rng.usize(..bytes), rng.u8(..8));
            let context = format!("seed {seed}: bit {bit} of byte {at} of {name}");
            let found = whole.damaged(&context, |copy| flip(&copy.join(name), at, bit));
            assert!(found.lost == 0 && found.refused.is_none(), "{context}: {found:?}");
            assert!(found.told.iter().any(|told| told.contains(name)), "{context}: {found:?}");
        }
        for bytes in [0, 1, 30] {
            let found = whole.damaged(name, |copy| truncate(&copy.join(name), bytes));
            assert!(found.lost == 0 && found.told.iter().any(|told| told.contains(name)), "{found:?}");
        }
    }
    // What is in the lock's file counts for nothing.
    let found = whole.damaged("lock", |copy| fs::write(copy.join("store/lock"), "\u{0}garbage").unwrap());
    assert!(found.lost == 0 && found.told.is_empty() && found.refused.is_none(), "{found:?}");
}

#[test]
fn foreign_files_are_named_and_left_alone() {
    let whole = whole(true);
    let (segment, _) = whole.segments().remove(0);
    let other = super::damage::whole(true);
    let foreign = other.segments().remove(0).0;
    let found = whole.damaged("foreign", |copy| {
        fs::copy(other.dir.path().join(&foreign), copy.join("store/log-000/00000900.segment")).unwrap();
        fs::copy(copy.join(&segment), copy.join("store/log-000/copy of a segment")).unwrap();
        fs::write(copy.join("store/log-000/00000901.segment"), vec![0x5A; 8192]).unwrap();
    });
    for name in ["00000900.segment", "00000901.segment", "copy of a segment"] {
        assert!(found.told.iter().any(|told| told.contains(name)), "{name}: {found:?}");
    }
    assert!(found.lost == 0 && found.refused.is_none(), "{found:?}");
}
