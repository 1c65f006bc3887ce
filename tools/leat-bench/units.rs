//! Text to values for the command line: sizes, durations, rates, CPU lists and server addresses.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Where a server listens and how to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    /// Host name or address, without brackets.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// Credentials, if the address carries any.
    pub(crate) login: Login,
}

/// Credentials inside a server address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// None.
    Open,
    /// `user:pass@`
    User(String, String),
    /// `token@`
    Token(String),
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<ServerUrl, String> {
        let rest = match text.split_once("://") {
            Some(("nats", rest)) => rest,
            Some((scheme, _)) => {
                return Err(format!("scheme `{scheme}` is not supported, only nats://"));
            }
            None => text,
        };
        let rest = rest.trim_end_matches('/');
        let (login, place) = match rest.rsplit_once('@') {
            None => (Login::Open, rest),
            Some((login, place)) => match login.split_once(':') {
                Some((user, pass)) => (Login::User(user.to_owned(), pass.to_owned()), place),
                None => (Login::Token(login.to_owned()), place),
            },
        };
        let (host, port) = split_host_port(place)?;
        if host.is_empty() {
            return Err(format!("no host in `{text}`"));
        }
        Ok(ServerUrl { host: host.to_owned(), port, login })
    }
}

fn split_host_port(place: &str) -> Result<(&str, u16), String> {
    let parse = |port: &str| port.parse().map_err(|_| format!("`{port}` is not a port"));
    if let Some(rest) = place.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or("missing `]` after an IPv6 address")?;
        return match tail.strip_prefix(':') {
            Some(port) => Ok((host, parse(port)?)),
            None if tail.is_empty() => Ok((host, 4222)),
            None => Err(format!("unexpected `{tail}` after the address")),
        };
    }
    match place.split_once(':') {
        Some((host, port)) => Ok((host, parse(port)?)),
        None => Ok((place, 4222)),
    }
}

/// Shows the address without the credentials, since reports get published.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "nats://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "nats://{}:{}", self.host, self.port)
        }
    }
}

/// How much one write takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    /// About this many bytes (at least one message).
    Bytes(usize),
    /// This many messages.
    Messages(usize),
}

impl FromStr for Batch {
    type Err = String;

    fn from_str(text: &str) -> Result<Batch, String> {
        for suffix in ["msgs", "msg"] {
            if let Some(number) = text.strip_suffix(suffix) {
                let count = number.trim().parse().map_err(|_| format!("`{text}` is not a message count"))?;
                return if count == 0 {
                    Err("a batch has at least one message".to_owned())
                } else {
                    Ok(Batch::Messages(count))
                };
            }
        }
        match size(text)? {
            0 => Err("a batch has at least one byte".to_owned()),
            bytes => Ok(Batch::Bytes(bytes)),
        }
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Batch::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Batch::Messages(count) => write!(f, "{count} msgs"),
        }
    }
}

/// Bytes: `16`, `1k`, `64KiB`, `4M`. Every suffix is a power of 1024.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..digits].parse().map_err(|_| format!("`{text}` is not a size"))?;
    let shift = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        other => return Err(format!("unknown size suffix `{other}`")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

/// Time: `250ms`, `2s`, `1.5s`, `3m`, `10us`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| format!("`{text}` is not a duration"))?;
    let seconds = match text[digits..].trim() {
        "" | "s" => number,
        "ns" => number / 1e9,
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        other => return Err(format!("unknown unit of time `{other}`")),
    };
    if seconds > 7.0 * 86_400.0 {
        return Err(format!("`{text}` is longer than a week"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Counts and rates: `1000`, `50k`, `1.5M`. Suffixes are powers of 1000.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    let text = text.trim().trim_end_matches("/s");
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text[..at], 1e6),
        Some((at, 'g' | 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    if let Ok(whole) = digits.replace('_', "").parse::<u64>() {
        return whole.checked_mul(factor as u64).ok_or_else(|| format!("`{text}` is too large"));
    }
    match digits.parse::<f64>() {
        Ok(value) if value >= 0.0 && value * factor < 1e18 => Ok((value * factor).round() as u64),
        _ => Err(format!("`{text}` is not a number")),
    }
}

/// A set of CPUs: `1`, `2,3`, `0-3`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct CpuList(pub(crate) Vec<usize>);

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<CpuList, String> {
        let bad = |_| format!("`{text}` is not a list of CPUs");
        let mut cpus = Vec::new();
        for part in text.split(',') {
            match part.split_once('-') {
                None => cpus.push(part.trim().parse().map_err(bad)?),
                Some((first, last)) => {
                    let first: usize = first.trim().parse().map_err(bad)?;
                    let last: usize = last.trim().parse().map_err(bad)?;
                    if last < first || last - first > 4096 {
                        return Err(format!("`{part}` is not a range of CPUs"));
                    }
                    cpus.extend(first..=last);
                }
            }
        }
        Ok(CpuList(cpus))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("16", 16), ("1k", 1024), ("64KiB", 65_536), ("4M", 4 << 20), ("2 kb", 2048), ("0", 0)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "1x", "-1", "1.5k", "99999999999999999999"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [("250ms", 250), ("2s", 2000), ("1.5", 1500), ("1m", 60_000), ("1000us", 1)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "1y", "-1s", "1.2.3", "9999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers() {
        for (text, value) in [("1", 1), ("50k", 50_000), ("1.5M", 1_500_000), ("200k/s", 200_000), ("1_000", 1000)] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        for text in ["", "k", "-1", "1z"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn server_addresses() {
        let parse = |text: &str| text.parse::<ServerUrl>();
        let url = |host: &str, port, login| ServerUrl { host: host.to_owned(), port, login };
        assert_eq!(parse("nats://127.0.0.1:14222"), Ok(url("127.0.0.1", 14_222, Login::Open)));
        assert_eq!(parse("localhost"), Ok(url("localhost", 4222, Login::Open)));
        assert_eq!(parse("nats://me:p@ss:w@h:1/"), Ok(url("h", 1, Login::User("me".into(), "p@ss:w".into()))));
        assert_eq!(parse("nats://s3cr3t@h:1"), Ok(url("h", 1, Login::Token("s3cr3t".into()))));
        assert_eq!(parse("nats://[::1]:7"), Ok(url("::1", 7, Login::Open)));
        assert_eq!(parse("[::1]"), Ok(url("::1", 4222, Login::Open)));
        for text in ["", "nats://", "http://h", "h:port", "h:70000", "[::1", "[::1]x", "u:p@"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("nats://u:p@h:1").map(|u| u.to_string()), Ok("nats://h:1".to_owned()));
    }

    #[test]
    fn batches_and_cpus() {
        assert_eq!("64KiB".parse(), Ok(Batch::Bytes(65_536)));
        assert_eq!("1msg".parse(), Ok(Batch::Messages(1)));
        assert_eq!("100msgs".parse(), Ok(Batch::Messages(100)));
        assert!("0".parse::<Batch>().is_err());
        assert_eq!("1,3-4".parse(), Ok(CpuList(vec![1, 3, 4])));
        assert!("4-3".parse::<CpuList>().is_err());
        assert!("".parse::<CpuList>().is_err());
    }
}
