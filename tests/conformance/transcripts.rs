//! Transcripts: what a client sends and what the server answers to it, byte by byte.

/// A transcript on a connection of its own: what the client sends, what the server answers, and who ends it.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) client: Vec<u8>,
    pub(crate) server: Vec<u8>,
    pub(crate) closed: bool,
}

/// CONNECT of an ordinary client.
pub(crate) const QUIET: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
/// CONNECT of a client that knows headers.
const HEADERS: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n";
/// CONNECT of a client that wants to know when nobody answers.
const REQUESTER: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n";
const PEDANTIC: &str = "CONNECT {\"verbose\":false,\"pedantic\":true}\r\n";
const VERBOSE: &str = "CONNECT {\"verbose\":true,\"pedantic\":false}\r\n";

pub(crate) const UNKNOWN: &str = "-ERR 'Unknown Protocol Operation'\r\n";
pub(crate) const TOO_LONG: &str = "-ERR 'maximum control line exceeded'\r\n";
const TOO_BIG: &str = "-ERR 'Maximum Payload Violation'\r\n";
pub(crate) const UNAUTHORIZED: &str = "-ERR 'Authorization Violation'\r\n";

/// Limits of the server that the rows of [`rows`] talk to.
pub(crate) const MAX_PAYLOAD: usize = 1000;
pub(crate) const MAX_SUBSCRIPTIONS: usize = 8;
pub(crate) const MAX_CONTROL_LINE: usize = 4096;

/// The connection stays open; a PING is added to prove it.
pub(crate) fn open(name: &'static str, client: impl AsRef<[u8]>, server: impl AsRef<[u8]>) -> Row {
    let client = [client.as_ref(), b"PING\r\n"].concat();
    let server = [server.as_ref(), b"PONG\r\n"].concat();
    Row { name, client, server, closed: false }
}

/// The server closes the connection after its answer.
pub(crate) fn closed(name: &'static str, client: impl AsRef<[u8]>, server: impl AsRef<[u8]>) -> Row {
    Row { name, client: client.as_ref().to_vec(), server: server.as_ref().to_vec(), closed: true }
}

/// All transcripts against the open server. Numbers refer to the checklist of the protocol specification.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = framing_rows();
    rows.extend(number_rows());
    rows.extend(connect_rows());
    rows.extend(publish_rows());
    rows.extend(subscribe_rows());
    rows.extend(header_rows());
    rows.extend(reserved_subject_rows());
    rows
}

fn framing_rows() -> Vec<Row> {
    let mut rows = vec![
        open("1 no CONNECT", "SUB foo 1\r\nPUB foo 2\r\nhi\r\n", "+OK\r\n+OK\r\nMSG foo 1 2\r\nhi\r\n"),
        open(
            "2 letter case, blanks and tabs",
            format!("{QUIET}sub \t foo  \t 1 \r\npUb\tfoo \t\t2\r\nhi\r\nping\r\n"),
            "MSG foo 1 2\r\nhi\r\nPONG\r\n",
        ),
        closed("3 bare LF after a payload", format!("{QUIET}PUB foo 2\r\nhi\n"), UNKNOWN),
        closed("4a leading blank", format!("{QUIET} PING\r\n"), UNKNOWN),
        closed("4b empty line", format!("{QUIET}\r\n"), UNKNOWN),
        closed("4c empty line, bare LF", format!("{QUIET}\n"), UNKNOWN),
        open("5a PING with a tail", format!("{QUIET}PINGxyz\r\n"), "PONG\r\n"),
        open("5b PING with an argument", format!("{QUIET}PING hello\r\n"), "PONG\r\n"),
        open("5c PONG with a tail", format!("{QUIET}PONGxyz\r\n"), ""),
        open("5d +OK is ignored", format!("{QUIET}+OK\r\n"), ""),
        closed("6 -ERR from a client", format!("{QUIET}-ERR 'boo'\r\n"), ""),
        closed("7a MSG from a client", format!("{QUIET}MSG foo 1 2\r\nhi\r\n"), UNKNOWN),
        closed("7b HMSG from a client", format!("{QUIET}HMSG foo 1 12 12\r\nNATS/1.0\r\n\r\n\r\n"), UNKNOWN),
        closed("7c RMSG from a client", format!("{QUIET}RMSG $G foo 2\r\nhi\r\n"), UNKNOWN),
        closed("7d RS+ from a client", format!("{QUIET}RS+ $G foo\r\n"), UNKNOWN),
        closed("7e LS+ from a client", format!("{QUIET}LS+ foo\r\n"), UNKNOWN),
        closed("7f A+ from a client", format!("{QUIET}A+ foo\r\n"), UNKNOWN),
        closed("unknown verb", format!("{QUIET}HELLO\r\n"), UNKNOWN),
        closed("an HTTP request", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", UNKNOWN),
        open(
            "bare LF ends control lines",
            format!("{QUIET}SUB foo 1\nPUB foo 2\nhi\r\nPING\n"),
            "MSG foo 1 2\r\nhi\r\nPONG\r\n",
        ),
        open("INFO from a client", format!("{QUIET}INFO {{\"server_id\":\"x\"}}\r\n"), ""),
        closed("INFO that is no JSON", format!("{QUIET}INFO {{\r\n"), ""),
        closed("payload longer than announced", format!("{QUIET}PUB foo 2\r\nhix\r\n"), UNKNOWN),
        closed("payload shorter than announced", format!("{QUIET}PUB foo 4\r\nhi\r\nPING\r\n"), UNKNOWN),
        closed("UNSUB without argument", format!("{QUIET}UNSUB\r\n"), UNKNOWN),
        closed("SUB without argument", format!("{QUIET}SUB\r\n"), UNKNOWN),
        closed("PUB without argument", format!("{QUIET}PUB\r\n"), UNKNOWN),
        closed("HPUB without argument", format!("{HEADERS}HPUB\r\n"), UNKNOWN),
    ];
    for (name, line) in [
        ("8a PUB without size", "PUB foo\r\n"),
        ("8b PUB with four arguments", "PUB a b c 2\r\n"),
        ("8c PUB with a sign", "PUB foo -1\r\n"),
        ("8d SUB without sid", "SUB foo\r\n"),
        ("8e UNSUB with three arguments", "UNSUB 1 2 3\r\n"),
        ("8f SUB with four arguments", "SUB foo q 1 2\r\n"),
        ("8g PUB with a blank but no argument", "PUB \r\n"),
        ("8h HPUB without headers in CONNECT", "HPUB foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
    ] {
        rows.push(closed(name, format!("{QUIET}{line}"), ""));
    }
    rows
}

fn number_rows() -> Vec<Row> {
    let mut rows = vec![open(
        "9 sizes are echoed as written",
        format!("{QUIET}SUB foo 1\r\nPUB foo 002\r\nhi\r\nPUB foo 000000002\r\nhi\r\n"),
        "MSG foo 1 002\r\nhi\r\nMSG foo 1 000000002\r\nhi\r\n",
    )];
    for (name, size) in [
        ("size with plus sign", "+2"),
        ("size of ten digits", "0000000002"),
        ("size with a letter", "2x"),
        ("size in hexadecimal", "0x2"),
        ("size that overflows", "99999999999999999999"),
    ] {
        rows.push(closed(name, format!("{QUIET}PUB foo {size}\r\nhi\r\n"), ""));
    }
    rows.push(open(
        "UNSUB max that is no number removes now",
        format!("{QUIET}SUB foo 1\r\nUNSUB 1 x\r\nPUB foo 2\r\nhi\r\n"),
        "",
    ));
    rows
}

fn connect_rows() -> Vec<Row> {
    let mut rows = vec![
        open("CONNECT without blank", "CONNECT{}\r\n", "+OK\r\n"),
        open("CONNECT is verbose by default", "CONNECT {}\r\n", "+OK\r\n"),
        open(
            "CONNECT is pedantic by default",
            "CONNECT {\"verbose\":false}\r\nPUB foo.* 0\r\n\r\n",
            "-ERR 'Invalid Publish Subject'\r\n",
        ),
        open("members match in any letter case", "connect {\"VERBOSE\":false,\"Pedantic\":false}\r\n", ""),
        open("unknown members", "CONNECT {\"verbose\":false,\"what\":[1,{\"x\":null}]}\r\n", ""),
        open("null members keep their defaults", "CONNECT {\"verbose\":null,\"name\":null}\r\n", "+OK\r\n"),
        open(
            "a second CONNECT keeps what it does not mention",
            format!("{QUIET}CONNECT {{}}\r\nPUB foo.* 0\r\n\r\n"),
            "",
        ),
        open(
            "a second CONNECT may switch back",
            format!("{QUIET}CONNECT {{\"verbose\":true}}\r\nSUB foo 1\r\n"),
            "+OK\r\n+OK\r\n",
        ),
        open(
            "needless credentials",
            "CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"p\",\"auth_token\":\"t\"}\r\n",
            "",
        ),
        closed(
            "24a protocol 2",
            "CONNECT {\"verbose\":false,\"protocol\":2}\r\n",
            "-ERR 'invalid client protocol'\r\n",
        ),
        closed(
            "24b protocol -1",
            "CONNECT {\"verbose\":false,\"protocol\":-1}\r\n",
            "-ERR 'invalid client protocol'\r\n",
        ),
        closed(
            "25 no_responders without headers",
            "CONNECT {\"verbose\":false,\"no_responders\":true}\r\n",
            "-ERR 'no responders requires headers support'\r\n",
        ),
        closed("26a bool as string", "CONNECT {\"verbose\":\"yes\"}\r\n", ""),
        closed("26b string as number", "CONNECT {\"name\":7}\r\n", ""),
        closed("CONNECT with an array", "CONNECT []\r\n", ""),
        closed("CONNECT with half an object", "CONNECT {\"verbose\":false\r\n", ""),
        closed("CONNECT without JSON", "CONNECT\r\n", ""),
        closed("obsolete account", "CONNECT {\"verbose\":false,\"account\":\"A\"}\r\n", UNAUTHORIZED),
        closed("obsolete new_account", "CONNECT {\"verbose\":false,\"new_account\":true}\r\n", UNAUTHORIZED),
    ];
    let lax = [
        r#"{"name":"\ud800"}"#,
        r#"{"name":"\udc00\ud800x"}"#,
        r#"{"\ud800":1}"#,
        r#"{"name":"x","name":null}"#,
        "null",
        " {} \t",
        r#"{"protocol":-0}"#,
        r#"{"what":1e400}"#,
        r#"{"import":{},"export":null}"#,
        r#"{"account":"A","account":""}"#,
        r#"{"nonce":5}"#,
    ];
    rows.extend(lax.map(|json| open(json, format!("CONNECT {json}\r\n"), "+OK\r\n")));
    rows.push(open("names that are no UTF-8", b"CONNECT {\"\xff\":1,\"name\":\"\xed\xa0\x80\"}\r\n", "+OK\r\n"));
    rows.push(open("the last of two counts", "CONNECT {\"VERBOSE\":true,\"verbose\":false}\r\nSUB foo 1\r\n", ""));
    let wrong = [
        r#"{"name":1,"name":"x"}"#,
        r#"{"protocol":1.0}"#,
        r#"{"protocol":1e0}"#,
        r#"{"protocol":9223372036854775808}"#,
        r#"{"nkey":5}"#,
        r#"{"remote_account":5}"#,
        r#"{"import":5}"#,
        "{} {}",
        "{}x",
        "\u{feff}{}",
        r#"{"a":01}"#,
        r#"{"a":1,}"#,
        r#"{"a":"\x41"}"#,
        "{\"a\":\"\t\"}",
        "true",
    ];
    rows.extend(wrong.map(|json| closed(json, format!("CONNECT {json}\r\n"), "")));
    rows.push(closed(
        "an account that is not taken back by null",
        "CONNECT {\"account\":\"A\",\"account\":null}\r\n",
        UNAUTHORIZED,
    ));
    // The limit covers what stands between the verb's blank and CRLF.
    let padded = |len: usize| {
        let empty = "{\"verbose\":false,\"name\":\"\"}";
        format!("CONNECT {{\"verbose\":false,\"name\":\"{}\"}}\r\n", "n".repeat(len - empty.len()))
    };
    rows.push(open("CONNECT of exactly the control line limit", padded(MAX_CONTROL_LINE), ""));
    rows.push(closed("CONNECT one byte above the limit", padded(MAX_CONTROL_LINE + 1), TOO_LONG));
    rows
}

fn publish_rows() -> Vec<Row> {
    let full = "x".repeat(MAX_PAYLOAD);
    vec![
        open("empty payload", format!("{QUIET}SUB foo 1\r\nPUB foo 0\r\n\r\n"), "MSG foo 1 0\r\n\r\n"),
        open("reply subject", format!("{QUIET}SUB foo 1\r\nPUB foo r.s 2\r\nhi\r\n"), "MSG foo 1 r.s 2\r\nhi\r\n"),
        open(
            "payload that looks like protocol",
            format!("{QUIET}SUB foo 1\r\nPUB foo 13\r\nPING\r\nPUB x 1\r\n"),
            "MSG foo 1 13\r\nPING\r\nPUB x 1\r\n",
        ),
        open(
            "payload of exactly max_payload",
            format!("{QUIET}SUB foo 1\r\nPUB foo {MAX_PAYLOAD}\r\n{full}\r\n"),
            format!("MSG foo 1 {MAX_PAYLOAD}\r\n{full}\r\n"),
        ),
        closed("10a payload above max_payload", format!("{QUIET}PUB foo {}\r\n", MAX_PAYLOAD + 1), TOO_BIG),
        closed("10b a size of nine digits", format!("{QUIET}PUB foo 999999999\r\n"), TOO_BIG),
        closed("10c HPUB counts the total", format!("{HEADERS}HPUB foo 12 {}\r\n", MAX_PAYLOAD + 1), TOO_BIG),
        open(
            "13 pedantic publish to a wildcard",
            format!("{PEDANTIC}PUB foo.* 1\r\nx\r\n"),
            "-ERR 'Invalid Publish Subject'\r\n",
        ),
        open(
            "13a pedantic: the message is delivered nevertheless",
            format!("{PEDANTIC}SUB > 1\r\nPUB foo.* 1\r\nx\r\n"),
            "-ERR 'Invalid Publish Subject'\r\nMSG foo.* 1 1\r\nx\r\n",
        ),
        open(
            "13b pedantic: other invalid subjects",
            format!("{PEDANTIC}PUB foo..bar 1\r\nx\r\nPUB .foo 1\r\nx\r\nPUB foo. 1\r\nx\r\nPUB foo.> 1\r\nx\r\n"),
            "-ERR 'Invalid Publish Subject'\r\n".repeat(4),
        ),
        open(
            "13c pedantic: stars inside tokens are literal, the reply is not checked",
            format!("{PEDANTIC}PUB foo*bar 1\r\nx\r\nPUB foo re..ply.* 1\r\nx\r\n"),
            "",
        ),
        open(
            "14 publish to a wildcard, not pedantic",
            format!("{QUIET}SUB > 1\r\nPUB foo.* 1\r\nx\r\nPUB > 1\r\nx\r\n"),
            "MSG foo.* 1 1\r\nx\r\nMSG > 1 1\r\nx\r\n",
        ),
        open(
            "20 verbose",
            format!("{VERBOSE}SUB foo 1\r\nPUB foo 2\r\nhi\r\nUNSUB 1\r\nUNSUB 77\r\n"),
            "+OK\r\n+OK\r\n+OK\r\nMSG foo 1 2\r\nhi\r\n+OK\r\n+OK\r\n",
        ),
        open(
            "20a verbose: a refused operation has no +OK",
            format!("{VERBOSE}SUB foo..bar 1\r\nPUB foo _R_.abc 1\r\nx\r\n"),
            "+OK\r\n-ERR 'Invalid Subject'\r\n-ERR 'Permissions Violation for Publish with Reply of \"_R_.abc\"'\r\n",
        ),
    ]
}

fn subscribe_rows() -> Vec<Row> {
    let fill = |len: usize| format!("{} 1", "s".repeat(len - 2));
    let pubs = |subject: &str, count: usize| format!("PUB {subject} 1\r\nx\r\n").repeat(count);
    let msgs = |subject: &str, sid: usize, count: usize| format!("MSG {subject} {sid} 1\r\nx\r\n").repeat(count);
    let subs = |count: usize| (1..=count).map(|sid| format!("SUB foo {sid}\r\n")).collect::<String>();
    vec![
        open("11a empty token", format!("{QUIET}SUB foo..bar 1\r\n"), "-ERR 'Invalid Subject'\r\n"),
        open("11b > not last", format!("{QUIET}SUB foo.>.bar 1\r\n"), "-ERR 'Invalid Subject'\r\n"),
        open("11c empty first token", format!("{QUIET}SUB .foo 1\r\n"), "-ERR 'Invalid Subject'\r\n"),
        open("11d empty last token", format!("{QUIET}SUB foo. 1\r\n"), "-ERR 'Invalid Subject'\r\n"),
        open("12 stars inside tokens", format!("{QUIET}SUB foo.*bar 1\r\n"), ""),
        open(
            "12a stars inside tokens are literal",
            format!("{QUIET}SUB foo* 1\r\nSUB foo.** 2\r\nSUB foo> 3\r\n{}{}", pubs("foox", 1), pubs("foo*", 1)),
            msgs("foo*", 1, 1),
        ),
        open(
            "15 a sid in use keeps its first subject",
            format!("{QUIET}SUB foo 1\r\nSUB bar 1\r\nPUB bar 1\r\nb\r\nPUB foo 1\r\nf\r\n"),
            "MSG foo 1 1\r\nf\r\n",
        ),
        open(
            "15a a sid in use keeps its subscription whatever the new subject is",
            format!("{VERBOSE}SUB foo 1\r\nSUB foo..bar 1\r\nPUB foo 1\r\nf\r\n"),
            "+OK\r\n+OK\r\n+OK\r\n+OK\r\nMSG foo 1 1\r\nf\r\n",
        ),
        open(
            "16 max_subscriptions",
            format!("{QUIET}{}", subs(MAX_SUBSCRIPTIONS + 1)),
            "-ERR 'maximum subscriptions exceeded'\r\n",
        ),
        open(
            "16a the limit is checked before the subject",
            format!("{QUIET}{}SUB foo..bar x\r\n", subs(MAX_SUBSCRIPTIONS)),
            "-ERR 'maximum subscriptions exceeded'\r\n",
        ),
        open(
            "16b UNSUB makes room",
            format!("{QUIET}{}UNSUB 1\r\nSUB bar x\r\nPUB bar 1\r\nx\r\n", subs(MAX_SUBSCRIPTIONS)),
            "MSG bar x 1\r\nx\r\n",
        ),
        open("17 auto-unsubscribe", format!("{QUIET}SUB foo 1\r\nUNSUB 1 2\r\n{}", pubs("foo", 4)), msgs("foo", 1, 2)),
        open(
            "18 a maximum that is already exceeded removes now",
            format!("{QUIET}SUB foo 1\r\n{}UNSUB 1 2\r\n{}", pubs("foo", 3), pubs("foo", 1)),
            msgs("foo", 1, 3),
        ),
        open(
            "18a a maximum that is just reached removes now",
            format!("{QUIET}SUB foo 1\r\n{}UNSUB 1 2\r\n{}", pubs("foo", 2), pubs("foo", 1)),
            msgs("foo", 1, 2),
        ),
        open(
            "19a a later maximum may be higher",
            format!("{QUIET}SUB foo 1\r\nUNSUB 1 1\r\nUNSUB 1 3\r\n{}", pubs("foo", 4)),
            msgs("foo", 1, 3),
        ),
        open(
            "19b a later maximum may be lower",
            format!("{QUIET}SUB foo 1\r\nUNSUB 1 3\r\nUNSUB 1 1\r\n{}", pubs("foo", 4)),
            msgs("foo", 1, 1),
        ),
        open("UNSUB with maximum 0 removes now", format!("{QUIET}SUB foo 1\r\nUNSUB 1 0\r\n{}", pubs("foo", 1)), ""),
        open("UNSUB of an unknown sid", format!("{QUIET}UNSUB 77\r\nUNSUB 78 3\r\n"), ""),
        open(
            "a sid is free again after UNSUB",
            format!("{QUIET}SUB foo 1\r\nUNSUB 1\r\nSUB bar 1\r\nPUB foo 1\r\nf\r\nPUB bar 1\r\nb\r\n"),
            "MSG bar 1 1\r\nb\r\n",
        ),
        open(
            "a sid is free again after its last message",
            format!("{QUIET}SUB foo 1\r\nUNSUB 1 1\r\n{}SUB bar 1\r\n{}", pubs("foo", 2), pubs("bar", 1)),
            format!("{}{}", msgs("foo", 1, 1), msgs("bar", 1, 1)),
        ),
        open(
            "any token is a sid",
            format!("{QUIET}SUB foo sid-x/9é\r\n{}", pubs("foo", 1)),
            "MSG foo sid-x/9é 1\r\nx\r\n",
        ),
        open(
            "subjects are bytes",
            [QUIET.as_bytes(), b"SUB f\0\xff 1\r\nPUB f\0\xff 1\r\nx\r\n"].concat(),
            b"MSG f\0\xff 1 1\r\nx\r\n",
        ),
        open("a queue subscription", format!("{QUIET}SUB foo q 1\r\n{}", pubs("foo", 1)), msgs("foo", 1, 1)),
        open(
            "letter case of subjects matters",
            format!("{QUIET}SUB Foo 1\r\n{}{}", pubs("foo", 1), pubs("Foo", 1)),
            msgs("Foo", 1, 1),
        ),
        open(
            "> needs one token more",
            format!("{QUIET}SUB foo.> 1\r\n{}{}", pubs("foo", 1), pubs("foo.a.b", 1)),
            msgs("foo.a.b", 1, 1),
        ),
        open("30a SUB of exactly the control line limit", format!("{QUIET}SUB {}\r\n", fill(MAX_CONTROL_LINE)), ""),
        closed("30b SUB one byte above the limit", format!("{QUIET}SUB {}\r\n", fill(MAX_CONTROL_LINE + 1)), TOO_LONG),
        closed("30c PUB above the limit", format!("{QUIET}PUB {}\r\n", fill(MAX_CONTROL_LINE + 1)), TOO_LONG),
    ]
}

fn header_rows() -> Vec<Row> {
    vec![
        open(
            "22 headers for a client that knows them",
            format!("{HEADERS}SUB foo 1\r\nHPUB foo r.s 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
            "HMSG foo 1 r.s 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
        ),
        open(
            "22a no payload after the headers",
            format!("{HEADERS}SUB foo 1\r\nHPUB foo 12 12\r\nNATS/1.0\r\n\r\n\r\n"),
            "HMSG foo 1 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        ),
        open(
            "22b a status from a client is relayed",
            format!("{HEADERS}SUB foo 1\r\nHPUB foo 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"),
            "HMSG foo 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
        ),
        open(
            "22c header bytes are not checked, sizes are echoed as written",
            format!("{HEADERS}SUB foo 1\r\nHPUB foo 04 006\r\nabcdef\r\n"),
            "HMSG foo 1 04 006\r\nabcdef\r\n",
        ),
        open("23 header size 0", format!("{HEADERS}SUB foo 1\r\nHPUB foo 0 2\r\nhi\r\n"), "MSG foo 1 2\r\nhi\r\n"),
        closed("HPUB with one size", format!("{HEADERS}HPUB foo 12\r\n"), ""),
        closed("HPUB with five arguments", format!("{HEADERS}HPUB foo a b 12 14\r\n"), ""),
        closed("header size above the total", format!("{HEADERS}HPUB foo 14 12\r\nNATS/1.0\r\n\r\n\r\n"), ""),
        open(
            "21 nobody answers",
            format!("{REQUESTER}SUB _INBOX.z 9\r\nPUB nobody _INBOX.z 1\r\nx\r\n"),
            "HMSG _INBOX.z 9 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n",
        ),
        open(
            "21a nobody answers an HPUB, the inbox is a wildcard",
            format!("{REQUESTER}SUB _INBOX.* 9\r\nHPUB nobody _INBOX.z 12 12\r\nNATS/1.0\r\n\r\n\r\n"),
            "HMSG _INBOX.z 9 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n",
        ),
        open(
            "21b without reply there is nobody to tell",
            format!("{REQUESTER}SUB _INBOX.z 9\r\nPUB nobody 1\r\nx\r\n"),
            "",
        ),
        open(
            "21c without no_responders there is nothing to tell",
            format!("{HEADERS}SUB _INBOX.z 9\r\nPUB nobody _INBOX.z 1\r\nx\r\n"),
            "",
        ),
        open(
            "21d a queue subscription on the reply gets nothing",
            format!("{REQUESTER}SUB _INBOX.z q 9\r\nPUB nobody _INBOX.z 1\r\nx\r\n"),
            "",
        ),
        open(
            "21e own messages hidden by echo:false count as not delivered",
            format!(
                "{}SUB foo 1\r\nSUB _INBOX.z 9\r\nPUB foo _INBOX.z 1\r\nx\r\n",
                REQUESTER.replace("\"headers\"", "\"echo\":false,\"headers\"")
            ),
            "HMSG _INBOX.z 9 35 35\r\nNATS/1.0 503\r\nNats-Subject: foo\r\n\r\n\r\n",
        ),
        open(
            "21f verbose: +OK first",
            format!(
                "{}SUB _INBOX.z 9\r\nPUB nobody _INBOX.z 1\r\nx\r\n",
                REQUESTER.replace("\"verbose\":false", "\"verbose\":true")
            ),
            "+OK\r\n+OK\r\n+OK\r\nHMSG _INBOX.z 9 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n",
        ),
        open(
            "echo off",
            "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false}\r\nSUB foo 1\r\nPUB foo 1\r\nx\r\n",
            "",
        ),
    ]
}

fn reserved_subject_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, reply) in [
        ("27a reply of a service import", "_R_.abc"),
        ("27b reply of a gateway", "_GR_.abc"),
        ("27c reply like a JetStream acknowledgement", "$JS.ACK.S.C.1.2.3.4.5"),
    ] {
        let error = format!("-ERR 'Permissions Violation for Publish with Reply of \"{reply}\"'\r\n");
        rows.push(open(name, format!("{QUIET}SUB foo 1\r\nPUB foo {reply} 1\r\nx\r\n"), error));
    }
    for (name, subject) in [
        ("publish to a Raft group", "$NRG.x"),
        ("publish to a gateway reply", "_GR_.x"),
        ("publish to a gateway reply of old", "$GR.x"),
    ] {
        let error = format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n");
        rows.push(open(name, format!("{QUIET}PUB {subject} 1\r\nx\r\n"), error));
    }
    rows.push(open(
        "the subject is judged before the reply",
        format!("{QUIET}PUB _GR_.x _R_.x 1\r\nx\r\n"),
        "-ERR 'Permissions Violation for Publish to \"_GR_.x\"'\r\n",
    ));
    rows.push(open(
        "reserved queue name",
        format!("{QUIET}SUB foo _sys_ 1\r\n"),
        "-ERR 'Permissions Violation for Subscription to \"foo\" using queue \"_sys_\"'\r\n",
    ));
    rows.push(open(
        "$SYS is an ordinary name outside the system account",
        format!("{QUIET}SUB $SYS.> 1\r\nPUB $SYS.foo 1\r\nx\r\n"),
        "MSG $SYS.foo 1 1\r\nx\r\n",
    ));
    rows
}
