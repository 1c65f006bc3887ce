//! The grammar in cases, and what must hold for any bytes at all.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use proptest::prelude::*;

use super::{GrammarError, Map, Sources, Value, digest, parse};

/// Files and an environment that exist only here. The first file is `main.conf`.
struct Fake {
    files: HashMap<&'static str, Vec<u8>>,
    environment: HashMap<&'static str, &'static str>,
}

impl Fake {
    fn new(text: impl Into<Vec<u8>>) -> Self {
        Self {
            files: HashMap::from([
                ("dir/main.conf", text.into()),
                ("dir/port.conf", b"port: 7777".to_vec()),
                ("dir/self.conf", b"include self.conf".to_vec()),
                ("dir/sub/one.conf", b"include two.conf".to_vec()),
                ("dir/sub/two.conf", b"two: 2".to_vec()),
                ("dir/uses.conf", b"x: $v".to_vec()),
                ("dir/bad.conf", b"a: 1\nb: [1,,2]".to_vec()),
                ("dir/twice.conf", b"include sub/two.conf\ninclude sub/two.conf".to_vec()),
            ]),
            environment: HashMap::from([
                ("NUMBER", "4333"),
                ("LIST", "[A, B]"),
                ("ALIAS", "$NUMBER"),
                ("LOOP", "$LOOP"),
                ("TWO", "1 2"),
            ]),
        }
    }
}

impl Sources for Fake {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let name = path.to_str().unwrap_or_default();
        if let Some(number) = name.strip_prefix("dir/deep").and_then(|number| number.parse::<u32>().ok()) {
            return Ok(format!("include deep{}", number + 1).into_bytes());
        }
        self.files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn environment(&self, name: &str) -> Option<String> {
        self.environment.get(name).map(|text| (*text).to_owned())
    }
}

fn read(text: impl Into<Vec<u8>>) -> Result<Map, GrammarError> {
    parse(Path::new("dir/main.conf"), &Fake::new(text)).map(|document| document.root)
}

/// Values as text: maps in braces, strings quoted.
fn show(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(value) => value.to_string(),
        Value::DateTime(text) => format!("@{text}"),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| show(&item.value)).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Map(map) => format!("{{{}}}", show_map(map)),
    }
}

fn show_map(map: &Map) -> String {
    let entries: Vec<String> = map
        .entries()
        .map(|(key, entry)| format!("{key}{}={}", if entry.is_variable { "$" } else { "" }, show(&entry.node.value)))
        .collect();
    entries.join(" ")
}

#[test]
fn what_files_say() {
    let cases: &[(&str, &str)] = &[
        ("", ""),
        ("# only\n// comments", ""),
        ("a: 1", "a=1"),
        ("a = 1", "a=1"),
        ("a 1", "a=1"),
        ("a:1;b:2,c:3\nd:4", "a=1 b=2 c=3 d=4"),
        ("a: 1 # x\nb: 2 // y", "a=1 b=2"),
        ("a \n 1", "a=1"),
        ("a\n{\nb 1\n}", "a={b=1}"),
        ("{a: 1}", "a=1"),
        ("{a: 1} b: 2", "a=1 b=2"),
        ("{ { a: 1 } }\n{ b: 2 }", "a=1 b=2"),
        ("a: 1 }", "a=1"),
        ("a: {b: {c: 1}, d: 2}", "a={b={c=1} d=2}"),
        ("a {b {}\n c [] }", "a={b={} c=[]}"),
        ("a: 1\na: 2", "a=2"),
        ("a: 1\nA: 2", "a=1 A=2"),
        ("a: 1\r\nb {\r\n c: 2 # x\r\n}\r\n", "a=1 b={c=2}"),
        ("\"a b\": 1\n'c:d': 2", "a b=1 c:d=2"),
        ("a'b: 1", "a'b=1"),
        ("a: [1,2, 3 ]", "a=[1 2 3]"),
        ("a: [1\n\n2 # x\n# y\n3,\n4,]", "a=[1 2 3 4]"),
        ("a: [ {b 1}\n{b 2} ]", "a=[{b=1} {b=2}]"),
        ("a: b#c//d", "a=\"b#c//d\""),
        ("a: nats://u:p@h:1/x", "a=\"nats://u:p@h:1/x\""),
        ("a: b\\x41\\t\\\\c", "a=\"bA\\t\\\\c\""),
        ("a: \"b\\\"\\n\\xc3\\xa9 # c\"", "a=\"b\\\"\\né # c\""),
        ("a: 'b\\q\"'", "a=\"b\\\\q\\\"\""),
        ("a: \"b\nc\"", "a=\"b\\nc\""),
        ("a: (\nb\n)x\n)\nc: 1", "a=\"\\nb\\n)x\\n\" c=1"),
        ("a: (b\n)", "a=\"b\\n\""),
        ("a: 2016-01-02T15:04:05Z", "a=@2016-01-02T15:04:05Z"),
        ("a: yes, b: -1, c: 1kb, d: 2.50, e: 127.0.0.1:4222", "a=true b=-1 c=1024 d=2.5 e=\"127.0.0.1:4222\""),
        ("a: $2a$11$x", "a=\"$2a$11$x\""),
        ("a: \"$b\"", "a=\"$b\""),
        // Variables: the innermost map that defined it above, then outwards, then the environment.
        ("v: 1\na: $v", "v$=1 a=1"),
        ("v: 1\nm { v: 2, a: $v, n { b: $v } }", "v=1 m={v$=2 a=2 n={b=2}}"),
        ("v: 1\nm { a: $v, v: 2 }\nb: $v", "v$=1 m={a=1 v=2} b=1"),
        ("v: [1,2]\nm { a: [$v, $v] }", "v$=[1 2] m={a=[[1 2] [1 2]]}"),
        ("v: 1\na: $v\nv: 2", "v$=2 a=1"),
        ("a: $NUMBER, b: $LIST, c: $ALIAS", "a=4333 b=[\"A\" \"B\"] c=4333"),
        // Included files see no variables of the file that includes them, and give it theirs.
        ("port: 1\ninclude port.conf", "port=7777"),
        ("include 'port.conf'; port: 1", "port=1"),
        ("m { INCLUDE \"port.conf\" }", "m={port=7777}"),
        ("include sub/one.conf # x\na: $two", "two$=2 a=2"),
        ("include: x", "include=\"x\""),
        ("included x", "included=\"x\""),
    ];
    for (text, expected) in cases {
        match read(*text) {
            Ok(map) => assert_eq!(show_map(&map), *expected, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

/// Errors name the place, and a hint helps where one is likely to fit.
#[test]
fn what_is_refused() {
    let cases: &[(&str, &str)] = &[
        ("a", "dir/main.conf:1:2: expected a value for \"a\", but the file ends"),
        ("a:\n1", "dir/main.conf:1:3: expected a value for \"a\", but the line ends"),
        ("x: 1\n  : 1", "dir/main.conf:2:3: expected a key, but found ':'"),
        (
            "a: b c",
            "dir/main.conf:1:6: expected the end of the value (a new line, \",\" or \";\"), but found 'c' \
             (quote values that contain blanks)",
        ),
        (
            "a == 1",
            "dir/main.conf:1:6: expected the end of the value (a new line, \",\" or \";\"), but found '1' \
             (quote values that contain blanks)",
        ),
        ("a { b: }", "dir/main.conf:1:8: expected a value for \"b\", but found '}'"),
        (
            "a { b: 1",
            "dir/main.conf:1:9: expected the end of the value (a new line, \",\", \";\" or \"}\"), but the \
             file ends (quote values that contain blanks)",
        ),
        ("a {\n", "dir/main.conf:2:1: expected \"}\", but the file ends"),
        (
            "a { b {} c {} }",
            "dir/main.conf:1:10: expected the end of the value (a new line, \",\", \";\" or \"}\"), \
             but found 'c' (quote values that contain blanks)",
        ),
        ("{ a: 1", "dir/main.conf:1:1: this brace is never closed"),
        (
            "a{",
            "dir/main.conf:1:3: expected a value for \"a{\", but the file ends (a blank is needed between a key \
             and its brace or bracket)",
        ),
        (
            "a: [1,,2]",
            "dir/main.conf:1:7: expected a value or \"]\", but found ',' (a comma stands on the line of \
             the value before it)",
        ),
        (
            "a: [b c]",
            "dir/main.conf:1:7: expected \",\", a new line or \"]\" after the value in an array, but found \
             'c'",
        ),
        (
            "a: [1",
            "dir/main.conf:1:6: expected \",\", a new line or \"]\" after the value in an array, but the file \
             ends",
        ),
        ("a: \"b", "dir/main.conf:1:4: this quote is never closed"),
        ("a: 'b", "dir/main.conf:1:4: this quote is never closed"),
        (
            "a: (\nb",
            "dir/main.conf:1:4: this block of text is never closed (the closing parenthesis stands alone on \
             a line)",
        ),
        (
            "a: \"\\q\"",
            "dir/main.conf:1:5: only \\xHH, \\t, \\n, \\r, \\\" and \\\\ may follow a backslash (in single \
             quotes a backslash means itself)",
        ),
        ("a: \"\\xz0\"", "dir/main.conf:1:5: \\x needs two hexadecimal digits"),
        ("a: \"\\xff\"", "dir/main.conf:1:5: the bytes written with \\x are not UTF-8 text"),
        ("a: .", "dir/main.conf:1:4: a value cannot begin with a point (quote it if it is text, or write 0.5)"),
        (
            "a: $v\nv: 1",
            "dir/main.conf:1:4: variable reference for 'v' on line 1 can not be found (define it above, \
             in this map or an outer one, or in the environment)",
        ),
        (
            "a: $a",
            "dir/main.conf:1:4: variable reference for 'a' on line 1 can not be found (define it above, in \
             this map or an outer one, or in the environment)",
        ),
        (
            "a: $LOOP",
            "dir/main.conf:1:4: variable reference for 'LOOP' on line 1 could not be parsed: variable \
             reference cycle for 'LOOP'",
        ),
        (
            "a: $TWO",
            "dir/main.conf:1:4: variable reference for 'TWO' on line 1 could not be parsed: expected the end \
             of the variable, but found '2'",
        ),
        (
            "include nope.conf",
            "dir/main.conf:1:9: error parsing include file 'nope.conf', open dir/nope.conf: entity \
             not found",
        ),
        ("include self.conf", "dir/self.conf:1:9: error parsing include file 'self.conf', which includes itself"),
        (
            "include bad.conf",
            "dir/bad.conf:2:7: expected a value or \"]\", but found ',' (a comma stands on the line \
             of the value before it)",
        ),
        (
            "v: 1\ninclude uses.conf",
            "dir/uses.conf:1:4: variable reference for 'v' on line 1 can not be found \
             (define it above, in this map or an outer one, or in the environment)",
        ),
        ("include\nport.conf", "dir/main.conf:1:8: expected a path after \"include\", but the line ends"),
    ];
    for (text, expected) in cases {
        match read(*text) {
            Err(error) => assert_eq!(error.to_string(), *expected),
            Ok(map) => panic!("{text} gave {}", show_map(&map)),
        }
    }
    assert_eq!(read(b"a: 1\nb: \xff").unwrap_err().to_string(), "dir/main.conf:2: the file is not UTF-8 text");
}

/// Nesting, files that include each other and variables that multiply end in errors, soon.
#[test]
fn bounds() {
    let nested = |depth: usize| format!("a: {}1 {}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(nested(64)).is_ok());
    assert!(read(nested(65)).unwrap_err().what.contains("more than 64 maps and arrays"));
    assert!(read("{".repeat(100_000)).unwrap_err().what.contains("too deeply"));
    assert!(read("a{".repeat(100_000)).is_err() && read("a {".repeat(100_000)).is_err());
    assert!(read("include deep1").unwrap_err().what.contains("more than 16 files"));
    let mut doubling = "v0: [1,1]\n".to_owned();
    for i in 1..40 {
        doubling.push_str(&format!("v{i}: [$v{0}, $v{0}]\n", i - 1));
    }
    assert!(read(doubling).unwrap_err().what.contains("more than 1048576 values"));
    assert!(read("include twice.conf\n".repeat(600)).unwrap_err().what.contains("values"));
}

/// The digest is the reference's, and follows values, not spellings.
#[test]
fn digests() {
    let digest = |text: &str| digest(&read(text).unwrap());
    assert_eq!(digest("port: 4222"), "sha256:797533ebd0dfba7d34a0f9337ecf147e442871f48ddfd07ed751575a5737267e");
    assert_eq!(digest("{\"port\" = 4222} # x"), digest("port 4222"));
    assert_eq!(
        digest("authorization { timeout: 2.5 }"),
        "sha256:827d63f846f5cdf9228c7688c56b19cc08dea626bcdb06f37d07a8dc0e4a402b"
    );
    assert_eq!(digest("server_name: <a>"), "sha256:dc709a65900f41f055a7ae4c04c2e54385169410315057172cf56e06c6077cab");
    assert_ne!(digest("port: 1"), digest("PORT: 1"));
}

const VALID: &str = "listen: 127.0.0.1:4222 # here\nv = \"x\\x41\"\nauthorization {\n  users = [\n    {user: a, \
    password: $v}\n    {user: 'b'; password: $2a$11$abc}\n  ]\n  timeout: 2.5\n}\nblock: (\n  text\n)\nlist: [1, 2k, \
    yes, 2016-01-02T15:04:05Z]\ninclude port.conf\n";

proptest! {
    /// Any bytes give a document or an error.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(bytes);
    }

    /// Any arrangement of the characters that mean something gives a document or an error with a place in the file.
    #[test]
    fn any_syntax(text in "[a$\"'\\\\{}\\[\\]():=,;#/\n 1.kx-]{0,80}") {
        if let Err(error) = read(text.clone()) {
            let lines = u32::try_from(text.lines().count()).unwrap() + 1;
            let at = error.at.expect("an error in text has a place");
            prop_assert!(at.line >= 1 && at.line <= lines);
        }
    }

    /// A valid file with a few bytes changed, removed or repeated is read or refused.
    #[test]
    fn mutations(changes in proptest::collection::vec((0..3_u8, any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = VALID.as_bytes().to_vec();
        for (change, index, byte) in changes {
            let at = index.index(bytes.len());
            match change {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, bytes[at]),
            }
        }
        let _ = read(bytes);
    }

    /// Text survives being quoted and read again.
    #[test]
    fn quoted_text(text in any::<String>()) {
        let quoted: String = text.chars().map(|c| match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            c => c.to_string(),
        }).collect();
        let map = read(format!("a: \"{quoted}\"")).unwrap();
        let value = map.entries().next().map(|(_, entry)| entry.node.value.clone());
        prop_assert_eq!(value, Some(Value::Text(text)));
    }
}

#[test]
fn the_valid_file_is_valid() {
    assert!(read(VALID).is_ok());
}
