//! Tables and properties of the parser.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { control_line_max: 64, payload_max: 1000, headers: true };

#[test]
fn commands_are_recognised() {
    let table: &[(&[u8], &str)] = &[
        (b"PING\r\n", "Ping"),
        (b"pingxyz\n", "Ping"),
        (b"pOnG \r\n", "Pong"),
        (b"+ok whatever\r\n", "Ok"),
        (b"CONNECT{}\r\n", "Connect"),
        (b"INFO {}\r\n", "Info"),
        (b"-ERR 'boo'\r\n", "Error"),
        (b"sub \t foo  \t 1 \r\n", "Subscribe"),
        (b"SUB foo q 1\n", "Subscribe"),
        (b"UNSUB 1\r\n", "Unsubscribe"),
        (b"UNSUB 1 5\r\n", "Unsubscribe"),
        (b"PUB a 0\r\n\r\n", "Publish"),
        (b"PUB a 002\r\nhi\r\n", "Publish"),
        (b"HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n", "Publish"),
    ];
    for (bytes, name) in table {
        match parse(bytes, &LIMITS) {
            Ok(Step::Done(command, used)) => {
                let text = format!("{command:?}");
                assert!(text.starts_with(name), "{text} is not {name}");
                assert_eq!(used, bytes.len());
            }
            other => panic!("{}: {other:?}", bytes.escape_ascii()),
        }
        for cut in 0..bytes.len() {
            let step = parse(&bytes[..cut], &LIMITS);
            assert!(matches!(step, Ok(Step::More(_))), "{} cut at {cut}: {step:?}", bytes.escape_ascii());
        }
    }
}

#[test]
fn errors_are_told_apart() {
    use ParseError::*;
    let long = [b"SUB ".as_slice(), &[b'x'; 70]].concat();
    let table: &[(&[u8], ParseError)] = &[
        (b" PING\r\n", UnknownOperation),
        (b"\r\n", UnknownOperation),
        (b"PIX", UnknownOperation),
        (b"PUBfoo 1\r\n", UnknownOperation),
        (b"UNSUB\r\n", UnknownOperation),
        (b"MSG a 1 2\r\n", UnknownOperation),
        (b"PUB foo 2\r\nhi\n", UnknownOperation),
        (b"PUB foo 2\r\nhi!", UnknownOperation),
        (b"PUB foo\r\n", Arguments),
        (b"PUB a b c 2\r\n", Arguments),
        (b"PUB foo -1\r\n", Arguments),
        (b"PUB foo 1234567890\r\n", Arguments),
        (b"SUB foo\r\n", Arguments),
        (b"SUB a b c d\r\n", Arguments),
        (b"SUB a\rb 1\r\n", Arguments),
        (b"UNSUB 1 2 3\r\n", Arguments),
        (b"HPUB foo 12\r\n", Arguments),
        (b"HPUB foo 13 12\r\n", Arguments),
        (b"PUB foo 1001\r\n", Payload),
        (b"HPUB foo 1 1001\r\n", Payload),
        (&long, ControlLine),
    ];
    for (bytes, error) in table {
        assert_eq!(parse(bytes, &LIMITS), Err(*error), "{}", bytes.escape_ascii());
    }
    let no_headers = Limits { headers: false, ..LIMITS };
    assert_eq!(parse(b"HPUB a 12 12\r\n", &no_headers), Err(Arguments));
}

#[test]
fn the_control_line_limit_is_exact() {
    for (verb, end) in [("SUB ", " 1"), ("CONNECT ", ""), ("PUB ", " 0")] {
        for line_end in ["\r\n", "\n"] {
            let line = |bytes: usize| format!("{verb}{}{end}{line_end}\r\n", "x".repeat(bytes - end.len()));
            assert!(matches!(parse(line(64).as_bytes(), &LIMITS), Ok(Step::Done(..))), "{verb}");
            assert_eq!(parse(line(65).as_bytes(), &LIMITS), Err(ParseError::ControlLine), "{verb}");
        }
    }
}

/// Text behind a verb that takes no arguments has no limit; since it is not kept it costs nothing.
#[test]
fn ignored_text_is_not_limited() {
    for verb in ["PING", "pong", "+OK"] {
        let line = format!("{verb} {}\r\n", "x".repeat(1000));
        assert!(matches!(parse(line.as_bytes(), &LIMITS), Ok(Step::Done(_, used)) if used == line.len()), "{verb}");
        for cut in verb.len() + 1..line.len() {
            let step = parse(&line.as_bytes()[..cut], &LIMITS);
            assert_eq!(step, Ok(Step::More(More::Ignored { verb_bytes: verb.len() })), "{verb} cut at {cut}");
        }
    }
}

#[test]
fn a_canonical_publish_is_forwarded_as_it_came() {
    let cases: [(&[u8], Option<&[u8]>); 6] = [
        (b"PUB a.b 2\r\nhi\r\n", Some(b" 2\r\nhi\r\n")),
        (b"PUB a.b re.ply 2\r\nhi\r\n", Some(b" re.ply 2\r\nhi\r\n")),
        (b"HPUB a.b r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", Some(b" r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n")),
        (b"PUB a.b  2\r\nhi\r\n", None),
        (b"PUB a.b\t2\r\nhi\r\n", None),
        (b"HPUB a.b 0 2\r\nhi\r\n", None),
    ];
    for (bytes, expected) in cases {
        let Ok(Step::Done(Command::Publish(publish), _)) = parse(bytes, &LIMITS) else {
            panic!("{}", bytes.escape_ascii());
        };
        assert_eq!(publish.tail, expected, "{}", bytes.escape_ascii());
        assert_eq!(publish.subject, b"a.b");
        assert!(publish.body.ends_with(b"hi\r\n"));
    }
}

/// A run of input: descriptions of the commands, then the error if there is one.
fn run(chunks: &[&[u8]], limits: &Limits) -> Vec<String> {
    let mut seen = Vec::new();
    let mut buffer = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            let used = match parse(&buffer, limits) {
                Ok(Step::Done(command, used)) => {
                    // Not `used`: of ignored text only what came last is still there.
                    seen.push(format!("{command:?}"));
                    used
                }
                Ok(Step::More(More::Ignored { verb_bytes })) => {
                    buffer.truncate(verb_bytes);
                    break;
                }
                Ok(Step::More(_)) => break,
                Err(error) => {
                    seen.push(format!("{error:?}"));
                    return seen;
                }
            };
            buffer.drain(..used);
        }
    }
    seen
}

/// Mostly valid protocol with damage here and there.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            b"PING\r\n".to_vec(), b"pong\n".to_vec(), b"PUB foo 5\r\nhello\r\n".to_vec(),
            b"PUB foo bar 0\r\n\r\n".to_vec(), b"HPUB x 12 14\r\nNATS/1.0\r\n\r\nhi\r\n".to_vec(),
            b"SUB a.* q 12\r\n".to_vec(), b"UNSUB 12 3\r\n".to_vec(), b"CONNECT {\"verbose\":false}\r\n".to_vec(),
            b"PUB  \t foo\t3\r\nabc\r\n".to_vec(), b"+OK\r\n".to_vec(), b"PING and so on ".to_vec(), b"PUB a 900\r\n".to_vec(),
        ]),
        1 => prop::collection::vec(prop::sample::select(b"PUBSH \t\r\n019-x\0{".to_vec()), 0..12),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// However the input is split, the same commands come out, and the same error ends them.
    #[test]
    fn split_input_is_whole_input(bytes in input(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let chunks: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(run(&[&bytes], &LIMITS), run(&chunks, &LIMITS));
    }

    /// The fast path for canonical publishes agrees with the general one.
    #[test]
    fn fast_and_general_path_agree(bytes in input()) {
        if let Some(canonical) = parse_canonical_pub(&bytes, &LIMITS) {
            let used = canonical.command_bytes();
            let step = Step::Done(Command::Publish(canonical.into()), used);
            prop_assert_eq!(Ok(step), parse_slow(&bytes, &LIMITS));
        }
    }

    /// No input makes the parser panic or go past its end.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Step::Done(_, used)) = parse(&bytes, &LIMITS) {
            prop_assert!(used <= bytes.len());
        }
    }
}
