//! The small notations that options are written in: booleans, sizes, ports, processor lists.
//!
//! Every function returns either a value in range or a phrase that completes "unusable value …: …".
#![forbid(unsafe_code)]

use super::PortSpec;

/// Largest number of shards; they are addressed by small integers and each pair has a ring.
pub const SHARDS_MAX: usize = crate::shard::peers::SHARDS_MAX;

const SUFFIXES: &[(&str, u32, u32)] = &[
    // (first letter, power of 1000 and of 1024, both the same exponent)
    ("k", 1, 10),
    ("m", 2, 20),
    ("g", 3, 30),
    ("t", 4, 40),
    ("p", 5, 50),
    ("e", 6, 60),
];

/// Reads the booleans that Go's flag package takes.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

/// Reads a number of bytes: `k m g…` are powers of 1000, `kb ki kib mb…` powers of 1024, in any letter case.
pub fn size(text: &str) -> Result<u64, String> {
    let malformed = || "not a size such as 1048576, 64KB or 8MiB".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| malformed())?;
    let suffix = suffix.to_ascii_lowercase();
    let multiplier = match suffix.as_str() {
        "" => 1,
        suffix => SUFFIXES
            .iter()
            .find_map(|(letter, thousands, bits)| match suffix.strip_prefix(letter)? {
                "" => Some(1000_u64.pow(*thousands)),
                "b" | "i" | "ib" => Some(1_u64 << bits),
                _ => None,
            })
            .ok_or_else(malformed)?,
    };
    number.checked_mul(multiplier).ok_or_else(|| "too large".to_owned())
}

/// A size that must fit into memory arithmetic and into the 31 bits the protocol's sizes have.
pub fn protocol_size(text: &str) -> Result<usize, String> {
    let bytes = size(text)?;
    if bytes > i32::MAX as u64 {
        return Err(format!("more than {}", i32::MAX));
    }
    Ok(bytes as usize)
}

/// A size in memory.
pub fn memory_size(text: &str) -> Result<usize, String> {
    usize::try_from(size(text)?).map_err(|_| "too large".to_owned())
}

/// Reads a count; sizes' suffixes are understood here too, as in configuration files.
pub fn count(text: &str) -> Result<usize, String> {
    if text.starts_with('-') {
        return Err("negative".to_owned());
    }
    memory_size(text).map_err(|_| "not a whole number".to_owned())
}

/// A count in which zero and any negative number stand for "no limit", returned as 0.
pub fn count_or_unlimited(text: &str) -> Result<usize, String> {
    match text.strip_prefix('-') {
        Some(digits) => count(digits).map(|_| 0),
        None => count(text),
    }
}

/// Reads a port; -1 asks for a random one.
pub fn port(text: &str) -> Result<PortSpec, String> {
    if text == "-1" {
        return Ok(PortSpec::Any);
    }
    text.parse().map(PortSpec::Fixed).map_err(|_| "not a port (0 to 65535, or -1 for a random one)".to_owned())
}

/// Reads a list of processors, `0-7` or `0,2,4-5`. The order is kept and one processor may be named twice: each
/// entry is a shard.
pub fn processors(text: &str) -> Result<Vec<usize>, String> {
    let malformed = || "not a list of processors such as 0-7 or 0,2,4-5".to_owned();
    let mut list = Vec::new();
    for item in text.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let first: usize = first.trim().parse().map_err(|_| malformed())?;
        let last: usize = last.trim().parse().map_err(|_| malformed())?;
        if first > last {
            return Err(malformed());
        }
        if last - first >= SHARDS_MAX || list.len() + (last - first) >= SHARDS_MAX {
            return Err(format!("more than {SHARDS_MAX} shards"));
        }
        list.extend(first..=last);
    }
    Ok(list)
}

/// Writes a sorted list of processors as short as [`processors`] can read it: `0-3,8`.
pub fn format_processors(list: &[usize]) -> String {
    let mut text = String::new();
    let mut rest = list;
    while let Some(&first) = rest.first() {
        let run = rest.iter().enumerate().take_while(|(i, cpu)| **cpu == first + i).count();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if run > 1 {
            text.push('-');
            text.push_str(&(first + run - 1).to_string());
        }
        rest = &rest[run..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes follow the configuration grammar: bare suffixes are decimal, two-letter ones binary, blanks are errors.
    #[test]
    fn sizes() {
        let cases: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("1k", Some(1000)),
            ("1K", Some(1000)),
            ("1kb", Some(1024)),
            ("64KiB", Some(65536)),
            ("8MB", Some(8 << 20)),
            ("8mi", Some(8 << 20)),
            ("3G", Some(3_000_000_000)),
            ("1TiB", Some(1 << 40)),
            ("1 MB", None),
            ("MB", None),
            ("1x", None),
            ("1kbb", None),
            ("-1", None),
            ("", None),
            ("99999999999P", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text).ok(), *bytes, "{text:?}");
        }
    }

    #[test]
    fn ports() {
        assert_eq!(port("4222"), Ok(PortSpec::Fixed(4222)));
        assert_eq!(port("-1"), Ok(PortSpec::Any));
        for text in ["65536", "-2", "", "x", "1.5"] {
            assert!(port(text).is_err(), "{text:?}");
        }
    }

    /// Ranges, single processors and repetitions become one shard each, and the count is bounded.
    #[test]
    fn processor_lists() {
        let cases: &[(&str, Option<&[usize]>)] = &[
            ("0", Some(&[0])),
            ("0-3", Some(&[0, 1, 2, 3])),
            ("0,2,4-5", Some(&[0, 2, 4, 5])),
            ("1,1", Some(&[1, 1])),
            ("", None),
            ("a", None),
            ("3-1", None),
            ("0,,1", None),
            ("0-", None),
            ("0-99999999999", None),
        ];
        for (text, list) in cases {
            assert_eq!(processors(text).ok().as_deref(), *list, "{text:?}");
        }
        assert_eq!(processors("0-63").map(|l| l.len()), Ok(64));
        assert!(processors("0-63,0").is_err());
        assert_eq!(format_processors(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(format_processors(&[]), "");
    }

    #[test]
    fn counts() {
        assert_eq!(count("10K"), Ok(10_000));
        assert_eq!(count_or_unlimited("-1"), Ok(0));
        assert!(count("-1").is_err());
        assert!(count_or_unlimited("-x").is_err());
        assert!(protocol_size("3000MB").is_err());
    }
}
