//! Tokens, good ones and all that a stranger can send in their place.

use nkeys::KeyPair;
use proptest::prelude::*;
use serde_json::json;

use super::claims::{Account, SigningKey, User};
use super::*;

/// A token as its parts say, signed over header and claims.
fn signed(issuer: &KeyPair, header: &[u8], claims: &[u8]) -> String {
    let text = format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(claims));
    let signature = issuer.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", BASE64URL_NOPAD.encode(&signature))
}

const HEADER: &[u8] = br#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

struct Pair {
    account: KeyPair,
    user: KeyPair,
}

impl Pair {
    fn new() -> Self {
        Self { account: KeyPair::new_account(), user: KeyPair::new_user() }
    }

    fn document(&self) -> Value {
        json!({
            "iss": self.account.public_key(), "sub": self.user.public_key(), "name": "al", "iat": 5,
            "nats": {"type": "user", "version": 2, "tags": ["a:b"], "subs": 7, "pub": {"allow": ["x"]}},
        })
    }

    fn sign(&self, document: &Value) -> String {
        signed(&self.account, HEADER, document.to_string().as_bytes())
    }

    /// What comes of the document with another value at the place that `path` names.
    fn with(&self, path: &str, value: Value) -> Result<Token<User>, TokenError> {
        let mut document = self.document();
        let (parent, name) = path.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[name] = value;
        Token::decode(&self.sign(&document))
    }
}

#[test]
fn a_user() {
    let pair = Pair::new();
    let token = Token::<User>::decode(&pair.sign(&pair.document())).unwrap();
    assert_eq!((token.name.as_str(), token.issued_at, token.expires, token.not_before), ("al", 5, None, None));
    assert_eq!((token.issuer, token.subject), (pair.account.public_key(), pair.user.public_key()));
    assert_eq!(token.tags, ["a:b"]);
    assert_eq!((token.claims.rules.subs, token.claims.rules.payload), (7, 0), "what is absent is zero");
    assert_eq!(token.claims.rules.permissions.publish.allow, ["x"]);
    for (path, value) in [
        ("/unknown", json!({"deep": [{}]})),
        ("/nats/unknown", json!(["x", 1.5])),
        ("/nats/pub", json!(null)),
        ("/nats/tags", json!(null)),
        ("/name", json!(null)),
        ("/exp", json!(null)),
        ("/nats/src", json!("10.0.0.0/8, 127.0.0.0/8")),
    ] {
        assert!(pair.with(path, value.clone()).is_ok(), "{path} {value}");
    }
    for header in [&br#"{"alg":"ED25519","typ":"jwt","x":[1]}"#[..], br#"{"typ":"JWT","alg":"ed25519"}"#] {
        assert!(Token::<User>::decode(&signed(&pair.account, header, pair.document().to_string().as_bytes())).is_ok());
    }
    assert!(Token::<User>::decode(&format!("{}\r\n", pair.sign(&pair.document()))).is_ok());
}

#[test]
fn what_is_no_user() {
    use TokenError::{Algorithm, Key, Kind, Malformed, Signature, Version};
    let pair = Pair::new();
    let document = pair.document().to_string();
    let other = KeyPair::new_account();
    for (path, value, expected) in [
        ("/nats/version", json!(1), Version),
        ("/nats/version", json!(3), Version),
        ("/nats/version", json!("2"), Version),
        ("/nats/version", json!(2.0), Version),
        ("/nats/version", json!(null), Version),
        ("/nats/type", json!("account"), Kind("user")),
        ("/nats/type", json!(null), Kind("user")),
        ("/nats/subs", json!("7"), Malformed("payload")),
        ("/nats/subs", json!(1.5), Malformed("payload")),
        ("/nats/tags", json!("a:b"), Malformed("payload")),
        ("/nats/pub/allow", json!([1]), Malformed("payload")),
        ("/nats", json!([]), Malformed("payload")),
        ("/exp", json!("tomorrow"), Malformed("payload")),
        ("/iss", json!(other.public_key()), Signature),
        ("/iss", json!(pair.user.public_key()), Key("issuer")),
        ("/iss", json!("A"), Key("issuer")),
        ("/iss", json!("\u{e9}".repeat(28)), Key("issuer")),
        ("/iss", json!(null), Key("issuer")),
        ("/sub", json!(other.public_key()), Key("subject")),
        ("/sub", json!(null), Key("subject")),
    ] {
        assert_eq!(pair.with(path, value.clone()).unwrap_err(), expected, "{path} {value}");
    }
    for (header, expected) in [
        (&br#"{"typ":"JWT","alg":"none"}"#[..], Algorithm),
        (br#"{"typ":"JWT","alg":"HS256"}"#, Algorithm),
        (br#"{"typ":"JWT","alg":"ed25519-nkey-2"}"#, Algorithm),
        (br#"{"typ":"JWS","alg":"ed25519-nkey"}"#, Algorithm),
        (br#"{"typ":"JWT"}"#, Malformed("header")),
        (br#"{"typ":"JWT","alg":["ed25519-nkey"]}"#, Malformed("header")),
        (b"", Malformed("header")),
        (b"null", Malformed("header")),
        (b"{\"typ\":\"JWT\",\"alg\":\"ed25519\xff\"}", Malformed("header")),
    ] {
        let token = signed(&pair.account, header, document.as_bytes());
        assert_eq!(Token::<User>::decode(&token).unwrap_err(), expected, "{}", header.escape_ascii());
    }
    let nested = format!("{{\"nats\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for claims in [&b""[..], b"null", b"[]", b"{", b"{}{}", b"\xff\xfe", b"{\"name\":\"\xff\"}", nested.as_bytes()] {
        assert!(Token::<User>::decode(&signed(&pair.account, HEADER, claims)).is_err(), "{}", claims.len());
    }
    let token = pair.sign(&pair.document());
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    for wrong in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        format!("{header}.{claims}"),
        format!("{header}.{claims}."),
        format!("{token}."),
        format!("{token}=="),
        format!(" {token}"),
        format!("{token} "),
        format!("{header}.{claims}.{}", &signature[..40]),
        format!("{header}.{claims}.{signature}AAAA"),
        format!("{claims}.{header}.{signature}"),
        token.replace('.', ".\u{e9}"),
    ] {
        assert!(Token::<User>::decode(&wrong).is_err(), "{wrong}");
    }
    let huge = format!("{token}{}", "A".repeat(TOKEN_BYTES_MAX));
    assert_eq!(Token::<User>::decode(&huge).unwrap_err(), TokenError::TooLong);
}

#[test]
fn time_of_force() {
    let pair = Pair::new();
    let token = |nbf: i64, exp: i64| {
        let mut document = pair.document();
        (document["nbf"], document["exp"]) = (json!(nbf), json!(exp));
        Token::<User>::decode(&pair.sign(&document)).unwrap()
    };
    let lasting = token(0, 0);
    assert!(lasting.is_in_force(0) && lasting.is_in_force(i64::MAX) && lasting.next_change(0).is_none());
    let short = token(10, 20);
    for (now, in_force, next) in [(9, false, Some(10)), (10, true, Some(20)), (19, true, Some(20)), (20, false, None)] {
        assert_eq!((short.is_in_force(now), short.next_change(now)), (in_force, next), "{now}");
    }
    assert!(!token(0, i64::MAX).is_in_force(i64::MAX) && token(i64::MIN, 0).is_in_force(0));
    assert!(!token(0, -5).is_in_force(0) && !token(0, i64::MIN).is_in_force(0), "before 1970 is over");
    assert!(moment(i64::MIN).is_some() && moment(5) == Some(UNIX_EPOCH + Duration::from_secs(5)));
}

#[test]
fn an_account() {
    let (operator, account, key) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let scoped = json!({"kind": "user_scope", "key": key.public_key(), "role": "r", "template": {"subs": 3}});
    let document = json!({
        "iss": operator.public_key(), "sub": account.public_key(),
        "nats": {"type": "account", "version": 2, "signing_keys": [key.public_key(), scoped],
                 "limits": {"conn": -1, "mem_storage": 5}, "imports": null, "revocations": {"*": 9}},
    });
    let token = Token::<Account>::decode(&signed(&operator, HEADER, document.to_string().as_bytes())).unwrap();
    assert_eq!((token.claims.limits.conn, token.claims.limits.subs), (-1, 0));
    let [SigningKey::Plain(plain), SigningKey::Scoped { key: scoped, template, .. }] = &token.claims.signing_keys[..]
    else {
        panic!("{:?}", token.claims.signing_keys)
    };
    assert_eq!((plain, scoped, template.subs), (&key.public_key(), &key.public_key(), 3));
    assert_eq!(token.claims.revocations["*"], 9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes is refused or understood, and nothing breaks.
    #[test]
    fn strangers(text in "[A-Za-z0-9_.\u{e9}\r\n=-]{0,300}", parts in prop::array::uniform3(prop::collection::vec(any::<u8>(), 0..80))) {
        prop_assert!(Token::<User>::decode(&text).is_err());
        let parts = parts.map(|part| BASE64URL_NOPAD.encode(&part));
        prop_assert!(Token::<Account>::decode(&parts.join(".")).is_err());
    }

    /// Nothing of a token can be changed or left out, a byte of whichever part.
    #[test]
    fn damaged(place in any::<prop::sample::Index>(), bit in 0_u8..6, cut in any::<bool>()) {
        let pair = Pair::new();
        let token = pair.sign(&pair.document());
        let at = place.index(token.len());
        let damaged = if cut {
            token[..at].to_owned()
        } else {
            let mut bytes = token.into_bytes();
            bytes[at] ^= 1 << bit;
            String::from_utf8_lossy(&bytes).into_owned()
        };
        prop_assert!(Token::<User>::decode(&damaged).is_err(), "{damaged}");
    }

    /// Claims of any shape, well signed: an error or a value.
    #[test]
    fn claims_of_any_shape(name in "subs|payload|pub|sub|resp|src|times|tags|allowed_connection_types|bearer_token|x",
                           value in shape()) {
        let pair = Pair::new();
        let mut document = pair.document();
        document["nats"][&name] = value.clone();
        let decoded = Token::<User>::decode(&pair.sign(&document));
        if let Err(error) = decoded {
            prop_assert_eq!(error, TokenError::Malformed("payload"), "{} {}", name, value);
        }
    }
}

fn shape() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z.>*0-9/]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("allow|deny|max|ttl|start|end|y", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}
