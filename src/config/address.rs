//! Addresses to listen on, and to tell clients.
#![forbid(unsafe_code)]

use super::PortSpec;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// Name or number of the host; that of the first address if absent.
    pub host: Option<String>,
    /// The port.
    pub port: PortSpec,
}

/// `host:port`, the host in brackets if it is a number of IPv6.
#[must_use]
pub fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Host and port of `host`, `host:port`, `[address]` or `[address]:port`. As in the reference a port that is not
/// positive counts as none.
pub(super) fn advertised(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':')?)),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port.map(str::parse::<i64>) {
        None | Some(Ok(..=0)) => None,
        Some(port) => Some(u16::try_from(port.ok()?).ok()?),
    };
    Some((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_where_they_are_needed() {
        assert_eq!(host_and_port("example.org", 4222), "example.org:4222");
        assert_eq!(host_and_port("::1", 4222), "[::1]:4222");
    }

    /// What clients are told instead of the address listened on.
    #[test]
    fn advertised_addresses() {
        for (text, expected) in [
            ("example.org", Some(("example.org", None))),
            ("example.org:7777", Some(("example.org", Some(7777)))),
            ("[::1]:77", Some(("::1", Some(77)))),
            ("[::1]", Some(("::1", None))),
            ("a:0", Some(("a", None))),
            ("a:-1", Some(("a", None))),
            (":77", Some(("", Some(77)))),
            ("::1", None),
            ("a:b", None),
            ("a:b:c", None),
            ("a:70000", None),
            ("[::1]7", None),
        ] {
            assert_eq!(advertised(text), expected.map(|(host, port)| (host.to_owned(), port)), "{text}");
        }
    }
}
