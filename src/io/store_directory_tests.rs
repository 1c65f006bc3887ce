use super::*;

fn open(path: &Path) -> StoreDirectory {
    StoreDirectory::open(path, 3).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(path: &Path) -> String {
    let before = snapshot(path);
    let text = StoreDirectory::open(path, 3).expect_err("it cannot be used").to_string();
    assert_eq!(before, snapshot(path), "what is there stays as it was");
    text.replace(path.to_str().unwrap(), "store")
}

fn oddities(path: &Path) -> Vec<String> {
    let opened = open(path);
    opened.oddities().iter().map(|oddity| oddity.to_string().replace(path.to_str().unwrap(), "store")).collect()
}

/// All files but the lock.
fn snapshot(path: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in entries(path).unwrap() {
        if entry.is_dir() {
            found.push((entry.clone(), None));
            found.extend(snapshot(&entry));
        } else if !has_name(&entry, |name| name == LOCK) {
            found.push((entry.clone(), Some(fs::read(&entry).unwrap())));
        }
    }
    found
}

#[test]
fn a_store_is_made_once_and_then_found_with_its_logs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let made = open(&path);
    let (id, logs) = (made.id(), made.logs().iter().map(|log| log.path().to_owned()).collect::<Vec<_>>());
    assert_eq!(logs, ["log-000", "log-001", "log-002"].map(|log| path.join(log)));
    assert!(made.oddities().is_empty());
    drop(made);
    // However many logs a new store would have now.
    let found = StoreDirectory::open(&path, 1).unwrap();
    assert_eq!((found.id(), found.logs().len()), (id, 3));
    assert!(found.oddities().is_empty() && found.log(LogId(3)).is_none() && found.log(LogId(2)).is_some());
    assert_ne!(open(&dir.path().join("other")).id(), id);
}

#[test]
fn a_store_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let user = open(dir.path());
    assert_eq!(refusal(dir.path()), format!("store is in use by process {}", std::process::id()));
    drop(user);
    open(dir.path());
}

#[test]
fn what_does_not_belong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    for name in ["notes.txt", "log-003", "log-001/12.segment", "log-001/00000001.segment.bak", "log-2"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    fs::write(dir.path().join("log-001/00000001.segment"), "x").unwrap();
    fs::write(dir.path().join("log-000/store.json.new"), "x").unwrap();
    let expected = ["log-001/00000001.segment.bak", "log-001/12.segment", "log-003", "log-2", "notes.txt"];
    assert_eq!(oddities(dir.path()), expected.map(|name| format!("store/{name} is not part of the store")));
}

#[test]
fn one_identity_of_all_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let id = open(dir.path()).id();
    let all = ["store.json", "log-000/store.json", "log-001/store.json", "log-002/store.json"];
    let sound = fs::read(dir.path().join(all[0])).unwrap();
    for left in all {
        for other in all.into_iter().filter(|other| *other != left) {
            let path = dir.path().join(other);
            if other == "log-001/store.json" { fs::remove_file(path).unwrap() } else { fs::write(path, "{").unwrap() }
        }
        let expected = all.into_iter().filter(|other| *other != left);
        let expected =
            expected.map(|name| format!("store/{name} was damaged or missing and has been written anew from a copy"));
        assert_eq!(oddities(dir.path()), expected.collect::<Vec<_>>());
        assert_eq!(open(dir.path()).id(), id);
        assert!(all.iter().all(|name| fs::read(dir.path().join(name)).unwrap() == sound));
    }
}

#[test]
fn a_store_that_is_not_whole_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    open(path);
    fs::rename(path.join("log-001"), path.join("elsewhere")).unwrap();
    assert_eq!(refusal(path), "store/log-001 is missing");
    fs::rename(path.join("elsewhere"), path.join("log-001")).unwrap();
    fs::write(path.join("log-001/00000000.segment"), "x").unwrap();

    let identities = ["store.json", "log-000/store.json", "log-001/store.json", "log-002/store.json"];
    let sound = fs::read(path.join("store.json")).unwrap();
    identities.iter().for_each(|name| fs::remove_file(path.join(name)).unwrap());
    assert_eq!(refusal(path), "store has logs, but store.json and all copies of it are damaged or missing");
    // The note of a segment shows that there was one.
    fs::rename(path.join("log-001/00000000.segment"), path.join("log-001/newest")).unwrap();
    assert_eq!(refusal(path), "store has logs, but store.json and all copies of it are damaged or missing");
    identities.iter().for_each(|name| fs::write(path.join(name), &sound).unwrap());

    Identity::new(StoreId([1; 16]), 3).write(&path.join("log-002")).unwrap();
    assert_eq!(refusal(path), "store/log-002 belongs to another store");
    fs::write(path.join("log-002/store.json"), &sound).unwrap();

    let (name, checksum) = ("01".repeat(16), crc32fast::hash(format!("2 {} 3", "01".repeat(16)).as_bytes()));
    let later = format!(r#"{{"format":2,"store":"{name}","logs":3,"checksum":{checksum}}}"#);
    fs::write(path.join("store.json"), later).unwrap();
    assert_eq!(refusal(path), "store/store.json: format 2 is later than 1, which this version knows");
    fs::write(path.join("store.json"), &sound).unwrap();
    open(path);
}

/// A store in the making is none until the last step; what is there of it is no obstacle.
#[test]
fn making_a_store_can_be_cut_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    for step in 0..7 {
        let path = dir.path().join(step.to_string());
        open(&path);
        // Undo what comes after the step.
        let steps = ["log-000", "log-001", "log-002", "log-000/store.json", "log-001/store.json", "log-002/store.json"];
        fs::remove_file(path.join("store.json")).unwrap();
        for name in steps[step.min(6)..].iter().rev() {
            let path = path.join(name);
            if path.is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        let opened = open(&path);
        assert_eq!(opened.logs().len(), 3);
    }
}

/// Something else in the place of a file is named, and nobody waits for it.
#[test]
fn what_is_no_file_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    open(path);
    for name in ["store.json", "log-001/store.json", "lock"] {
        let file = path.join(name);
        let sound = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        let refused = |what: &str| {
            let refusal = StoreDirectory::open(path, 3).expect_err("it cannot be used").to_string();
            assert!(refusal.ends_with(&format!("/{name}: a {what} where a file belongs")), "{refusal}");
        };
        refused("FIFO");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        refused("directory");
        fs::remove_dir(&file).unwrap();
        fs::write(&file, sound).unwrap();
    }
    assert!(oddities(path).is_empty());
}
