//! Operators, trusted keys, and where the JWTs of accounts come from.

use nkeys::KeyPairType;

use super::{Checked, number, switch, time, word};
use crate::config::grammar::Value;
use crate::config::read;
use crate::config::schema::{Item, Key, Reading, Verdict};

/// What the blocks are for.
pub(in crate::config) const FEATURE: &str = "resolving accounts";

const KEYS: &[Key<Checked>] = &[
    word(&["type"], "full", "full or cache"),
    word(&["dir"], "\"/var/lib/leat/jwt\"", "Directory of the JWTs"),
    switch(&["allow_delete"], "false", "JWTs may be deleted by request"),
    switch(&["hard_delete"], "false", "Deleted JWTs are not renamed but removed"),
    time(&["interval"], "\"1m\"", "Time between comparisons with other servers"),
    time(&["timeout"], "\"1900ms\"", "How long to wait for an answer"),
    time(&["ttl"], "\"1h\"", "How long a JWT is kept in a cache"),
    number(&["limit"], "1000", "JWTs that are kept"),
];

/// Checks `resolver`.
pub(in crate::config) fn resolver(item: &Item<'_>, reading: &mut Reading) -> Verdict {
    const WRONG: &str =
        "error parsing account resolver, should be MEM, URL(\"url\"), or a map with dir and type full or cache";
    match &item.node.value {
        Value::Text(text) => {
            let upper = text.trim().to_ascii_uppercase();
            let is_memory = upper == "MEM" || upper == "MEMORY";
            let is_url = upper.starts_with("URL(") && upper.ends_with(')');
            if is_memory || is_url { Ok(()) } else { Err(WRONG.to_owned()) }
        }
        Value::Map(map) => {
            reading.keys(map, KEYS, &mut Checked);
            let kind = map.entries().find(|(key, _)| key.eq_ignore_ascii_case("type"));
            let kind = kind.and_then(|(_, entry)| read::text(&entry.node).ok()).unwrap_or_default();
            let known = ["full", "cache", "mem", "memory"].iter().any(|known| known.eq_ignore_ascii_case(kind));
            if known { Ok(()) } else { Err(WRONG.to_owned()) }
        }
        other => Err(format!("expected {} to be a string or a map, got {}", item.key, other.kind())),
    }
}

/// Checks `resolver_preload`: public account nkeys and their JWTs.
pub(in crate::config) fn preload(item: &Item<'_>, _: &mut Reading) -> Verdict {
    for (_, jwt) in read::map_of_texts(item.node)? {
        if !is_jwt(&jwt) {
            return Err("invalid account JWT".to_owned());
        }
    }
    Ok(())
}

/// Checks `operator`: JWTs, or files that hold one.
pub(in crate::config) fn operators(item: &Item<'_>, _: &mut Reading) -> Verdict {
    for text in read::texts(item.node)? {
        if is_jwt(&text) {
            continue;
        }
        let content = std::fs::read_to_string(&text)
            .map_err(|error| format!("error parsing operator JWT: open {}: {error}", text.escape_debug()))?;
        if !content.split_ascii_whitespace().any(is_jwt) {
            return Err(format!("error parsing operator JWT: there is none in {}", text.escape_debug()));
        }
    }
    Ok(())
}

/// Checks `trusted_keys`: public operator nkeys.
pub(in crate::config) fn trusted_keys(item: &Item<'_>, _: &mut Reading) -> Verdict {
    for key in read::texts(item.node)? {
        for key in key.split_ascii_whitespace() {
            read::public_nkey(key, &KeyPairType::Operator, "an operator")
                .map_err(|_| format!("trust key \"{key}\" required to be a valid public operator nkey"))?;
        }
    }
    Ok(())
}

/// Three parts in the alphabet of base64url. Whether it is signed by whom it should be is decided by whoever trusts it.
fn is_jwt(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.starts_with("ey") && text.split('.').count() == 3 && text.split('.').all(is_part)
}
