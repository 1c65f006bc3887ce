//! The client protocol byte by byte. Every expectation was verified against nats-server 2.15.1 by running these tests
//! with `LEAT_TEST_PEER`.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{PATIENCE, Server, shard_suite, show};

shard_suite!(one_shard = 1, three_shards = 3 => {
    transcripts_do_not_depend_on_how_the_bytes_arrive,
    transcripts_where_a_password_is_required,
    transcripts_where_a_token_is_required,
    silence_is_allowed_without_authentication,
    info_introduces_the_server,
    info_comes_again_after_the_first_pong,
    the_last_connect_counts,
    headers_are_cut_off_for_plain_subscribers,
    only_the_asking_connection_hears_of_missing_responders,
    a_request_that_somebody_took_is_left_to_him,
    echo_off_hides_own_messages_only,
    auto_unsubscribe_counts_each_subscription_by_itself,
    every_byte_value_survives,
    a_control_line_is_limited_before_it_ends,
    the_control_line_limit_is_an_option,
});

/// A transcript on a connection of its own: what the client sends, what the server answers, and who ends it.
struct Row {
    name: &'static str,
    client: Vec<u8>,
    server: Vec<u8>,
    closed: bool,
}

/// CONNECT of an ordinary client.
const QUIET: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
/// CONNECT of a client that knows headers.
const HEADERS: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n";
/// CONNECT of a client that wants to know when nobody answers.
const REQUESTER: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n";
const PEDANTIC: &str = "CONNECT {\"verbose\":false,\"pedantic\":true}\r\n";
const VERBOSE: &str = "CONNECT {\"verbose\":true,\"pedantic\":false}\r\n";

const UNKNOWN: &str = "-ERR 'Unknown Protocol Operation'\r\n";
const TOO_LONG: &str = "-ERR 'maximum control line exceeded'\r\n";
const TOO_BIG: &str = "-ERR 'Maximum Payload Violation'\r\n";
const UNAUTHORIZED: &str = "-ERR 'Authorization Violation'\r\n";

/// Limits of the server that the rows of [`rows`] talk to.
const MAX_PAYLOAD: usize = 1000;
const MAX_SUBSCRIPTIONS: usize = 8;
const MAX_CONTROL_LINE: usize = 4096;

/// The connection stays open; a PING is added to prove it.
fn open(name: &'static str, client: impl AsRef<[u8]>, server: impl AsRef<[u8]>) -> Row {
    let client = [client.as_ref(), b"PING\r\n"].concat();
    let server = [server.as_ref(), b"PONG\r\n"].concat();
    Row { name, client, server, closed: false }
}

/// The server closes the connection after its answer.
fn closed(name: &'static str, client: impl AsRef<[u8]>, server: impl AsRef<[u8]>) -> Row {
    Row { name, client: client.as_ref().to_vec(), server: server.as_ref().to_vec(), closed: true }
}

/// All transcripts against the open server. Numbers refer to the checklist of the protocol specification.
fn rows() -> Vec<Row> {
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
    for (name, subject) in [("publish to a Raft group", "$NRG.x"), ("publish to a gateway reply", "_GR_.x")] {
        let error = format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n");
        rows.push(open(name, format!("{QUIET}PUB {subject} 1\r\nx\r\n"), error));
    }
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

/// Sends `row` in pieces that end at `cuts` and compares the whole answer.
fn play(server: &Server, row: &Row, cuts: &[usize]) -> Result<(), String> {
    let mut client = server.connect();
    let mut from = 0;
    for &to in cuts.iter().chain([&row.client.len()]) {
        // A server that has seen enough may close while pieces are still to come.
        if !client.send_if_open(&row.client[from..to]) {
            break;
        }
        from = to;
    }
    let result = if row.closed { client.read_to_end_within(PATIENCE) } else { Ok(client.read_up_to(row.server.len())) };
    // The end of the connection tells that its subscriptions are gone on every shard: the next row starts afresh.
    if !row.closed {
        client.finish_sending_if_open();
        let _ = client.read_to_end_within(PATIENCE);
    }
    if result.as_ref() == Ok(&row.server) {
        return Ok(());
    }
    let (still_open, actual) = match &result {
        Ok(actual) => ("", actual),
        Err(actual) => (" and it stayed open", actual),
    };
    let (actual, expected) = (show(actual), show(&row.server));
    Err(format!("{}\n  received: {actual}{still_open}\n  expected: {expected}\n  cuts: {cuts:?}", row.name))
}

/// Plays every row as a whole, byte by byte, and in random pieces.
fn play_all(server: &Server, rows: &[Row]) {
    const RANDOM_SPLITS: u64 = 3;
    let mut failures = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let len = row.client.len();
        failures.extend(play(server, row, &[]).err());
        // The reference server repeats a pedantic refusal when the payload comes in a later read than its line.
        if len == 0 || (!server.is_leat() && show(&row.server).contains("Invalid Publish Subject")) {
            continue;
        }
        failures.extend(play(server, row, &(1..len).collect::<Vec<_>>()).err());
        for split in 0..RANDOM_SPLITS {
            let mut random = fastrand::Rng::with_seed(index as u64 * RANDOM_SPLITS + split);
            let mut cuts: Vec<usize> = (0..random.usize(1..8)).map(|_| random.usize(0..len)).collect();
            cuts.sort_unstable();
            failures.extend(play(server, row, &cuts).err());
        }
    }
    assert!(failures.is_empty(), "{} transcripts differ:\n{}", failures.len(), failures.join("\n"));
}

/// The same bytes get the same answer, whether they arrive at once, one at a time, or in random pieces.
fn transcripts_do_not_depend_on_how_the_bytes_arrive(shards: usize) {
    let server = Server::builder()
        .shards(shards)
        .option("max_payload", &MAX_PAYLOAD.to_string())
        .option("max_subscriptions", &MAX_SUBSCRIPTIONS.to_string())
        .start();
    play_all(&server, &rows());
}

/// Where a password is required nothing but CONNECT is accepted first, and it must come in time.
fn transcripts_where_a_password_is_required(shards: usize) {
    let server = Server::builder().shards(shards).user("u", "s3cret").option("auth_timeout", "300ms").start();
    let timeout = "-ERR 'Authentication Timeout'\r\n";
    let mut rows = vec![
        closed("28 nothing sent", "", timeout),
        closed("28a half a CONNECT", "CONNECT {\"verbose\":false", timeout),
        closed("29 PING first", "PING\r\n", UNAUTHORIZED),
        closed("29a SUB first", "SUB foo 1\r\n", UNAUTHORIZED),
        closed("29b a blank first", " PING\r\n", UNAUTHORIZED),
        closed("29c an unknown verb first", "HELLO\r\n", UNAUTHORIZED),
        closed("29d nearly CONNECT", "CONNEXION\r\n", UNKNOWN),
        closed("no credentials", QUIET, UNAUTHORIZED),
        open("user and password", "CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"s3cret\"}\r\n", ""),
        open("verbose", "CONNECT {\"user\":\"u\",\"pass\":\"s3cret\"}\r\n", "+OK\r\n"),
        closed(
            "a second CONNECT is checked again",
            "CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"s3cret\"}\r\nCONNECT {\"pass\":\"x\"}\r\n",
            UNAUTHORIZED,
        ),
        open(
            "a second CONNECT keeps the credentials that it does not mention",
            format!("CONNECT {{\"verbose\":false,\"user\":\"u\",\"pass\":\"s3cret\"}}\r\n{QUIET}"),
            "",
        ),
        closed(
            "authentication is checked before the protocol number",
            "CONNECT {\"verbose\":false,\"protocol\":7}\r\n",
            UNAUTHORIZED,
        ),
    ];
    for (name, credentials) in [
        ("wrong password", "\"user\":\"u\",\"pass\":\"s3cre\""),
        ("password with a tail", "\"user\":\"u\",\"pass\":\"s3cret2\""),
        ("wrong user", "\"user\":\"U\",\"pass\":\"s3cret\""),
        ("no password", "\"user\":\"u\""),
        ("the password as token", "\"auth_token\":\"s3cret\""),
    ] {
        rows.push(closed(name, format!("CONNECT {{\"verbose\":false,{credentials}}}\r\n"), UNAUTHORIZED));
    }
    play_all(&server, &rows);
}

/// A token is compared as a whole; user and password are no substitute.
fn transcripts_where_a_token_is_required(shards: usize) {
    let server = Server::builder().shards(shards).token("t0ken").start();
    let rows = [
        open("the token", "CONNECT {\"verbose\":false,\"auth_token\":\"t0ken\"}\r\n", ""),
        closed("another token", "CONNECT {\"verbose\":false,\"auth_token\":\"token\"}\r\n", UNAUTHORIZED),
        closed("the token as password", "CONNECT {\"verbose\":false,\"pass\":\"t0ken\"}\r\n", UNAUTHORIZED),
        closed("no token", QUIET, UNAUTHORIZED),
        closed("PING first", "PING\r\n", UNAUTHORIZED),
    ];
    play_all(&server, &rows);
}

/// Without authentication a connection may stay silent beyond the authentication timeout.
fn silence_is_allowed_without_authentication(shards: usize) {
    let server = Server::builder().shards(shards).option("auth_timeout", "100ms").start();
    let mut client = server.connect();
    client.expect_silence(Duration::from_millis(400));
    client.expect_nothing();
}

/// The first INFO has the fields that client libraries rely on, with their types.
fn info_introduces_the_server(shards: usize) {
    let server = Server::builder().shards(shards).option("max_payload", "12345").start();
    let first = server.connect();
    let second = server.connect();
    let info = first.info();
    assert_eq!(info["version"], "2.15.1");
    assert_eq!(info["proto"], 1);
    assert_eq!(info["headers"], true);
    assert_eq!(info["max_payload"], 12345);
    assert_eq!(info["host"], "127.0.0.1");
    assert_eq!(info["port"], server.addr().port());
    assert_eq!(info["client_ip"], "127.0.0.1");
    assert!(info["go"].is_string(), "go: {info}");
    assert_eq!(info["server_name"], info["server_id"], "an unnamed server is called by its id");
    let id = info["server_id"].as_str().expect("server_id should be text");
    assert!(id.len() == 56 && id.starts_with('N'), "server_id: {id}");
    let key_bytes = |byte: u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte);
    assert!(id.bytes().all(key_bytes), "server_id: {id}");
    for absent in
        ["auth_required", "tls_required", "tls_verify", "nonce", "cluster", "ldm", "jetstream", "connect_info"]
    {
        assert!(info.get(absent).is_none(), "{absent}: {info}");
    }
    assert!(second.cid() > first.cid(), "connection ids grow: {} then {}", first.cid(), second.cid());
    for same in ["server_id", "server_name", "port", "max_payload"] {
        assert_eq!(info[same], second.info()[same], "{same} differs between connections");
    }

    let closed_server = Server::builder().shards(shards).user("u", "p").start();
    assert_eq!(closed_server.connect().info()["auth_required"], true);
}

/// A client with protocol 1 gets INFO again after the PONG of its first PING: once, and only after CONNECT.
fn info_comes_again_after_the_first_pong(shards: usize) {
    let server = Server::builder().shards(shards).start();
    let mut client = server.connect();
    client.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
    client.expect("PONG\r\n");
    let again = client.next_info();
    assert_eq!(again["connect_info"], true);
    assert_eq!(again["remote_account"], "$G");
    assert!(again.get("acc_is_sys").is_none(), "{again}");
    for (field, value) in client.info().as_object().expect("INFO is an object") {
        assert_eq!(&again[field], value, "{field} differs from the first INFO");
    }
    client.expect_nothing();

    let mut old = server.connect();
    old.send("CONNECT {\"verbose\":false,\"protocol\":0}\r\n");
    old.expect_nothing();
    old.expect_nothing();

    let mut early = server.connect();
    early.expect_nothing();
    early.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\n");
    early.send("PING\r\n");
    early.expect("PONG\r\n");
    assert_eq!(early.next_info()["connect_info"], true, "a PONG before CONNECT does not count");
    early.expect_nothing();
}

/// A second CONNECT changes the options that it mentions and drops the subscriptions made before it.
fn the_last_connect_counts(shards: usize) {
    let server = Server::start(shards);
    let (mut client, mut other) = server.two_clients_on_different_shards();
    client.send("SUB foo 1\r\nSUB bar q 2\r\n");
    client.expect_nothing();
    client.send("CONNECT {\"verbose\":true,\"pedantic\":false,\"echo\":false}\r\nPING\r\n");
    client.expect("+OK\r\nPONG\r\n");
    other.send("PUB foo 1\r\nx\r\nPUB bar 1\r\nx\r\n");
    other.expect_nothing();
    client.send("SUB foo 1\r\nPUB foo 1\r\nx\r\nPING\r\n");
    client.expect("+OK\r\n+OK\r\nPONG\r\n");
    other.send("PUB foo 1\r\ny\r\n");
    client.expect("MSG foo 1 1\r\ny\r\n");
}

/// Headers reach only those who know them; the others get the payload alone, with its size.
fn headers_are_cut_off_for_plain_subscribers(shards: usize) {
    let server = Server::start(shards);
    let mut publisher = server.requester_on(0);
    for shard in 0..server.shards() {
        let mut knowing = server.requester_on(shard);
        let mut plain = server.client_on(shard);
        knowing.subscribe("foo", "1");
        plain.subscribe("foo", "1");
        publisher.send("HPUB foo r.s 12 014\r\nNATS/1.0\r\n\r\nhi\r\n");
        publisher.send("HPUB foo 12 12\r\nNATS/1.0\r\n\r\n\r\n");
        knowing.expect("HMSG foo 1 r.s 12 014\r\nNATS/1.0\r\n\r\nhi\r\n");
        knowing.expect("HMSG foo 1 12 12\r\nNATS/1.0\r\n\r\n\r\n");
        plain.expect("MSG foo 1 r.s 2\r\nhi\r\nMSG foo 1 0\r\n\r\n");
    }
}

/// The 503 goes to the connection that asked, not to others that listen on the same reply subject.
fn only_the_asking_connection_hears_of_missing_responders(shards: usize) {
    let server = Server::start(shards);
    let mut asking = server.requester_on(0);
    let mut listening = server.requester_on(1);
    listening.subscribe("inbox.>", "1");
    asking.subscribe("inbox.a", "9");
    asking.send("PUB nobody inbox.a 0\r\n\r\n");
    asking.expect("HMSG inbox.a 9 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n");
    asking.send("PUB nobody inbox.b 0\r\n\r\n");
    asking.expect_nothing();
    listening.expect_nothing();
}

/// There is no 503 while any subscription on any connection takes the request, plain or in a queue group.
fn a_request_that_somebody_took_is_left_to_him(shards: usize) {
    let server = Server::start(shards);
    let mut asking = server.requester_on(0);
    asking.subscribe("inbox.a", "9");
    for shard in 0..server.shards() {
        let mut responder = server.client_on(shard);
        for subscription in ["service.a", "service.*", "service.a group"] {
            responder.send(format!("SUB {subscription} 1\r\n"));
            responder.expect_nothing();
            asking.send("PUB service.a inbox.a 1\r\nx\r\n");
            responder.expect("MSG service.a 1 inbox.a 1\r\nx\r\n");
            asking.expect_nothing();
            responder.send("UNSUB 1\r\n");
            responder.expect_nothing();
        }
    }
}

/// `echo:false` suppresses what the connection itself published and nothing else.
fn echo_off_hides_own_messages_only(shards: usize) {
    let server = Server::start(shards);
    let quiet = json!({"verbose": false, "pedantic": false, "echo": false});
    let mut silent = server.connect_on(0).login(&quiet);
    let mut same_shard = server.client_on(0);
    let mut other_shard = server.client_on(1);
    for client in [&mut silent, &mut same_shard, &mut other_shard] {
        client.subscribe("foo", "1");
    }
    silent.send("PUB foo 1\r\ns\r\n");
    same_shard.expect("MSG foo 1 1\r\ns\r\n");
    other_shard.expect("MSG foo 1 1\r\ns\r\n");
    silent.expect_nothing();
    other_shard.send("PUB foo 1\r\no\r\n");
    silent.expect("MSG foo 1 1\r\no\r\n");
    same_shard.send("PUB foo 1\r\nm\r\n");
    silent.expect("MSG foo 1 1\r\nm\r\n");
}

/// Each subscription has its own count, and a member of a queue group counts what it received itself.
fn auto_unsubscribe_counts_each_subscription_by_itself(shards: usize) {
    let server = Server::start(shards);
    let (mut publisher, mut subscriber) = server.two_clients_on_different_shards();
    subscriber.send("SUB foo 1\r\nSUB foo 2\r\nSUB * 3\r\nUNSUB 1 1\r\nUNSUB 2 3\r\n");
    subscriber.expect_nothing();
    for _ in 0..5 {
        publisher.publish("foo", "x");
    }
    publisher.expect_nothing();
    let mut counts = [0; 4];
    for msg in subscriber.messages_to_fence() {
        counts[msg.sid.parse::<usize>().expect("sids are numbers here")] += 1;
    }
    assert_eq!(counts, [0, 1, 3, 5]);

    // Two members with a maximum of three each take six messages between them, whoever is chosen first.
    let mut other = server.client_on(0);
    for member in [&mut subscriber, &mut other] {
        member.send("SUB a.bar q 7\r\nUNSUB 7 3\r\n");
        member.expect_nothing();
    }
    for _ in 0..20 {
        publisher.publish("a.bar", "x");
    }
    publisher.expect_nothing();
    assert_eq!(subscriber.messages_to_fence().len(), 3);
    assert_eq!(other.messages_to_fence().len(), 3);
}

/// Payload and headers are passed on untouched, whatever bytes they hold.
fn every_byte_value_survives(shards: usize) {
    let server = Server::start(shards);
    let mut publisher = server.requester_on(0);
    let mut subscriber = server.requester_on(1);
    subscriber.subscribe("foo", "1");
    let all: Vec<u8> = (0..=255).collect();
    publisher.send([b"PUB foo 256\r\n", all.as_slice(), b"\r\n"].concat());
    subscriber.expect([b"MSG foo 1 256\r\n", all.as_slice(), b"\r\n"].concat());
    publisher.send([b"HPUB foo 256 512\r\n", all.as_slice(), all.as_slice(), b"\r\n"].concat());
    subscriber.expect([b"HMSG foo 1 256 512\r\n", all.as_slice(), all.as_slice(), b"\r\n"].concat());
}

/// A line without an end is refused as soon as it exceeds the limit, before CONNECT as well as after.
fn a_control_line_is_limited_before_it_ends(shards: usize) {
    let server = Server::builder().shards(shards).start();
    for start in ["SUB ", "CONNECT ", "PUB ", "UNSUB "] {
        let mut client = server.connect();
        client.send_if_open(format!("{start}{}", "x".repeat(MAX_CONTROL_LINE + 1)).as_bytes());
        client.expect_then_close(TOO_LONG);
    }
    let mut client = server.client();
    client.send(format!("SUB {}", "x".repeat(MAX_CONTROL_LINE - 2)));
    client.send(" 1\r\n");
    client.expect_nothing();
}

/// `max_control_line` moves the limit, in both directions.
fn the_control_line_limit_is_an_option(shards: usize) {
    for limit in [100, 10_000] {
        let server = Server::builder().shards(shards).option("max_control_line", &limit.to_string()).start();
        let line = |len: usize| format!("SUB {} 1\r\n", "s".repeat(len - 2));
        play_all(
            &server,
            &[
                open("at the limit", format!("{QUIET}{}", line(limit)), ""),
                closed("above the limit", format!("{QUIET}{}", line(limit + 1)), TOO_LONG),
            ],
        );
    }
}
