//! The document of CONNECT, with anything in it.
//!
//! Promises: no input makes its reader panic or overflow its stack. What the JSON library takes for an object is one
//! here. To read a document again over what it said changes nothing. No log shows a secret.
#![no_main]

use leat::wire::connect::{Connect, ConnectError, REDACTED, is_object, parse, redacted};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|json: &[u8]| {
    let connect = parse(json, Connect::default());
    let is_malformed = matches!(connect, Err(ConnectError::Malformed(_)));
    assert_eq!(is_object(json), !is_malformed, "two opinions of one document");
    if serde_json::from_slice::<Value>(json).is_ok_and(|value| value.is_object()) {
        assert!(!is_malformed, "an object is refused");
    }
    if let Ok(connect) = connect {
        // What is empty leaves nothing of what an earlier document said, and so does nothing here.
        assert_eq!(parse(json, connect.clone()).ok(), Some(connect), "the second reading differs");
    }
    let shown = redacted(json);
    assert_eq!(shown.is_some(), !is_malformed, "a document that cannot be shown");
    if let Some(Value::Object(members)) = shown.and_then(|text| serde_json::from_str(&text).ok()) {
        for name in ["pass", "auth_token", "sig", "jwt", "nkey", "proxy_sig"] {
            assert!(members.get(name).is_none_or(|value| value == REDACTED), "{name} is shown");
        }
    }
});
