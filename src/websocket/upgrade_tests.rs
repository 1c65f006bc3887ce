use super::*;

const GOOD: &str = "GET /x?y HTTP/1.1\r\nHost: h:80\r\nUpgrade: h2c, WebSocket\r\nConnection: keep-alive, upgrade\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

fn outcome(head: &str, rules: &Rules) -> Result<Accepted, Refusal> {
    let text = format!("{head}\r\nrest");
    for cut in 0..head.len() {
        assert!(check(&text.as_bytes()[..cut], rules).is_none_or(|(_, outcome)| outcome.is_err()), "cut at {cut}");
    }
    let (length, outcome) = check(text.as_bytes(), rules).unwrap();
    assert!(outcome.is_err() || length == head.len() + 2);
    outcome
}

/// The checks come in the reference's order, with its status and its words in the log.
#[test]
fn refusals() {
    let without = |name: &str| {
        let lines = GOOD.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
        lines.collect::<String>()
    };
    let cases = [
        (GOOD.replace("GET", "POST"), 405, "request method must be GET"),
        (GOOD.replace("/x?y", "foo"), 400, "invalid request target"),
        (GOOD.replace("/x?y", "*"), 400, "invalid request target"),
        (GOOD.replace("/x?y", "?http://h/"), 400, "invalid request target"),
        (GOOD.replace("/x?y", "/%4x"), 400, "invalid request target"),
        (GOOD.replace("/x?y", "/%4"), 400, "invalid request target"),
        (GOOD.replace("/x?y", "/a/mqtt?z"), 404, "mqtt websocket endpoint not enabled"),
        (without("Host"), 400, "'Host' missing in request"),
        (without("Upgrade"), 400, "invalid value for header 'Upgrade'"),
        (without("Connection"), 400, "invalid value for header 'Connection'"),
        (without("Sec-WebSocket-Key"), 400, "key missing"),
        (GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "YWJj"), 400, "invalid websocket key"),
        (GOOD.replace("Version: 13", "Version: 12"), 400, "invalid version"),
        ("\u{16}\u{3}garbage\r\n".to_owned(), 400, "not an HTTP request: invalid token"),
    ];
    for (head, status, detail) in cases {
        let (_, outcome) = check(format!("{head}\r\n").as_bytes(), &Rules::default()).unwrap();
        let refusal = outcome.unwrap_err();
        assert_eq!(refusal.detail, detail, "{head}");
        let response = String::from_utf8(refusal.response).unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
        let (_, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(response.contains(&format!("Content-Length: {}\r\n", body.len())));
    }
}

/// The answer to HEAD is that to another method, without its body.
#[test]
fn a_head_has_no_body() {
    let refused = |method| outcome(&GOOD.replace("GET", method), &Rules::default()).unwrap_err();
    let (post, head) = (refused("POST").response, refused("HEAD").response);
    assert!(head.ends_with(b"\r\n\r\n") && post.starts_with(&head) && post.len() > head.len());
    assert!(outcome(&GOOD.replace("/x?y", "http://h/%7ex?%y"), &Rules::default()).is_ok());
}

#[test]
fn an_upgrade() {
    let rules = Rules {
        headers: vec![("X-A".to_owned(), "b".to_owned())],
        cookies: [Some("u".to_owned()), Some("p".to_owned()), None, Some("j".to_owned())],
        ..Rules::default()
    };
    let head = format!(
        "{GOOD}Nats-No-Masking: true\r\nCookie: a=1; u=joe\r\nCookie: p=\"se=cret\"; j=a.b\r\nX-Forwarded-For: 10.1.2.3, x\r\n"
    );
    let accepted = outcome(&head, &rules).unwrap();
    let response = String::from_utf8(accepted.response).unwrap();
    assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
    assert!(response.ends_with("Nats-No-Masking: true\r\nX-A: b\r\n\r\n"), "{response}");
    assert!(accepted.unmasked);
    assert_eq!(accepted.facts.forwarded_for, Some(IpAddr::from([10, 1, 2, 3])));
    let mut connect = Connect { user: Some(String::new()), ..Connect::default() };
    accepted.facts.complete(&mut connect);
    assert_eq!((connect.user.as_deref(), connect.pass.as_deref()), (Some("joe"), Some("se=cret")));
    assert_eq!(connect.jwt.as_deref(), Some("a.b"));
    let mut connect = Connect { user: Some("ann".to_owned()), jwt: Some("c".to_owned()), ..Connect::default() };
    accepted.facts.complete(&mut connect);
    assert_eq!((connect.user.as_deref(), connect.jwt.as_deref()), (Some("ann"), Some("c")));
}

/// Compression is agreed on if it is there, is offered, and the offer asks for nothing else.
#[test]
fn offers_of_compression() {
    let rules = Rules { compression: true, ..Rules::default() };
    for (given, is_taken) in [
        ("permessage-deflate", true),
        ("permessage-deflate; client_max_window_bits", true),
        ("Permessage-Deflate;Server_No_Context_Takeover ; client_no_context_takeover", true),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", true),
        ("x-other; a=b,permessage-deflate; client_max_window_bits=12", true),
        ("permessage-deflate; server_max_window_bits=10", false),
        ("permessage-deflate; other", false),
        ("x-permessage-deflate", false),
        ("", false),
    ] {
        let head = format!("{GOOD}Sec-WebSocket-Extensions: {given}\r\nNats-No-Masking: true\r\n");
        let accepted = outcome(&head, &rules).unwrap();
        let answer = "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
                      client_no_context_takeover\r\nNats-No-Masking: true\r\n";
        let response = String::from_utf8(accepted.response).unwrap();
        assert_eq!((accepted.deflates, response.contains(answer)), (is_taken, is_taken), "{given}: {response}");
        assert!(!outcome(&head, &Rules::default()).unwrap().deflates);
    }
}

/// Who may come from where, as observed at the reference.
#[test]
fn origins() {
    let same = Rules { same_origin: true, ..Rules::default() };
    let listed = Rules {
        origins: ["http://a.b", "https://c.d:99"].iter().filter_map(|text| origin(text)).collect(),
        ..Rules::default()
    };
    for (rules, given, allowed) in [
        (&same, "http://h", true),
        (&same, "http://h:80", true),
        (&same, "https://h:80", false),
        (&same, "http://h:81", false),
        (&same, "http://x", false),
        (&same, "null", false),
        (&same, "", true),
        (&listed, "http://a.b", true),
        (&listed, "http://a.b:80", true),
        (&listed, "HTTP://A.B", true),
        (&listed, "https://a.b", false),
        (&listed, "https://c.d:99", true),
        (&listed, "https://c.d", false),
        (&listed, "", true),
    ] {
        let outcome = outcome(&format!("{GOOD}Origin: {given}\r\n"), rules);
        assert_eq!(outcome.is_ok(), allowed, "{given}: {outcome:?}");
    }
}
