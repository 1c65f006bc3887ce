//! Names of what is in the directory of a store.
//!
//! ```text
//! lock                        whoever has this file locked uses the store; it holds the number of that process
//! store.json                  which store this is, and how many logs it has
//! log-000/store.json          a copy of that
//! log-000/00000000.segment    a segment of the first log
//! log-000/newest              the note of its newest segment
//! log-000/newest.new          the note before that, to be written over by the next one
//! log-001/…                   the next log
//! ```

use crate::log::{LogId, Slot};

pub(crate) const LOCK: &str = "lock";
pub(crate) const IDENTITY: &str = "store.json";
/// The note of the newest segment of a log.
pub(crate) const NOTE: &str = "newest";
/// A file by which direct I/O is tried.
pub(crate) const PROBE: &str = "probe";
/// Behind the name of a file that is on its way to its name.
pub(crate) const ON_ITS_WAY: &str = ".new";

/// Whether a file of this name may be beside the logs.
pub(crate) fn is_in_store(name: &str) -> bool {
    [LOCK, IDENTITY].contains(&name) || name.strip_suffix(ON_ITS_WAY) == Some(IDENTITY)
}

/// Whether a file of this name may be beside the segments of a log.
pub(crate) fn is_in_log(name: &str) -> bool {
    let exchanged = [IDENTITY, NOTE];
    name == PROBE || exchanged.contains(&name.strip_suffix(ON_ITS_WAY).unwrap_or(name))
}

/// The name of a log's directory.
pub(crate) fn directory_of(log: LogId) -> String {
    format!("log-{:03}", log.0)
}

/// The log whose directory has that name. There is one name for each, without signs.
pub(crate) fn log_named(name: &str) -> Option<LogId> {
    let log = LogId(name.strip_prefix("log-")?.parse().ok()?);
    (directory_of(log) == name).then_some(log)
}

/// The name of a slot's file.
pub(crate) fn file_of(slot: Slot) -> String {
    format!("{:08}.segment", slot.0)
}

/// The slot whose file has that name. There is one name for each, without signs.
pub(crate) fn slot_named(name: &str) -> Option<Slot> {
    let slot = Slot(name.strip_suffix(".segment")?.parse().ok()?);
    (file_of(slot) == name).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_name_of_a_slot_is_a_segment() {
        for (name, slot) in [("00000000.segment", 0), ("00000012.segment", 12), ("4294967295.segment", u32::MAX)] {
            assert_eq!(slot_named(name), Some(Slot(slot)));
        }
        for name in ["12.segment", "+0000012.segment", "000000012.segment", "00000012.segment.bak", "store.json", ""] {
            assert_eq!(slot_named(name), None, "{name}");
        }
    }

    #[test]
    fn each_place_has_its_files() {
        for (name, in_store, in_log) in [
            ("lock", true, false),
            ("lock.new", false, false),
            ("store.json", true, true),
            ("store.json.new", true, true),
            ("newest", false, true),
            ("newest.new", false, true),
            ("probe", false, true),
            ("probe.new", false, false),
            (".new", false, false),
        ] {
            assert_eq!((is_in_store(name), is_in_log(name)), (in_store, in_log), "{name}");
        }
    }
}
