//! The parser of the client protocol, fed with anything.
//!
//! Promises: no input makes it panic or loop. However the input is cut into pieces, the same commands come out and the
//! same error ends them. The fast path for canonical publishes and the general path agree. What is yielded lies within
//! the limits, and only bounded input is ever waited for.
//!
//! The first two bytes of an input choose the limits and the cuts, the rest is what the client sends.
#![no_main]

mod pieces;

use leat::wire::parser::{Command, Limits, More, ParseError, Publish, Step, parse, parse_canonical_pub};
use libfuzzer_sys::fuzz_target;
use pieces::pieces;

fuzz_target!(|data: &[u8]| {
    let [choice, seed, input @ ..] = data else { return };
    let limits = Limits {
        control_line_max: if choice & 1 == 0 { 4096 } else { 16 },
        payload_max: if choice & 2 == 0 { 1 << 20 } else { 8 },
        headers: choice & 4 == 0,
    };
    let whole = commands([input], &limits);
    assert_eq!(whole, commands(pieces(input, *seed), &limits), "split input differs from whole input");
});

/// What a connection would execute, as text: commands with the bytes they took, and the error that ends them.
fn commands<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Vec<String> {
    let mut seen = Vec::new();
    let mut kept = Vec::new();
    for piece in pieces {
        kept.extend_from_slice(piece);
        let mut at = 0;
        while at < kept.len() {
            let rest = &kept[at..];
            let outcome = parse(rest, limits);
            check(rest, limits, &outcome);
            match outcome {
                Ok(Step::Done(command, used)) => {
                    seen.push(format!("{used} {command:?}"));
                    at += used;
                }
                Ok(Step::More(_)) => break,
                Err(error) => {
                    seen.push(format!("{error:?}"));
                    return seen;
                }
            }
        }
        kept.drain(..at);
    }
    seen
}

/// Checks what holds for any single step, and that the fast path has not changed it.
fn check(rest: &[u8], limits: &Limits, outcome: &Result<Step<'_>, ParseError>) {
    match outcome {
        Ok(Step::Done(command, used)) => {
            assert!((1..=rest.len()).contains(used), "{used} bytes used of {}", rest.len());
            if let Command::Publish(publish) = command {
                check_publish(publish, limits);
            }
        }
        Ok(Step::More(More::Line)) => {
            // A verb, blanks and arguments up to the limit each, and a CR whose LF has not come.
            let most = LONGEST_VERB + 2 * limits.control_line_max + 1;
            assert!(rest.len() <= most, "{} bytes and still no line", rest.len());
        }
        Ok(Step::More(More::Ignored { verb_bytes })) => {
            assert!((1..=LONGEST_VERB).contains(verb_bytes) && *verb_bytes < rest.len(), "keeps {verb_bytes} bytes");
        }
        Ok(Step::More(More::Payload { command_bytes, line_bytes })) => {
            assert!(*line_bytes <= rest.len() && rest.len() < *command_bytes, "waits for what is here");
            assert!(command_bytes - line_bytes <= limits.payload_max + 2, "waits for more than the limit");
        }
        Err(_) => {}
    }
    // The fast path knows upper case only; the general one answers for lower case and must say the same.
    if parse_canonical_pub(rest, limits).is_some() {
        let lower = [b"pub", &rest[3..]].concat();
        assert_eq!(*outcome, parse(&lower, limits), "fast and general path differ");
    }
}

fn check_publish(publish: &Publish<'_>, limits: &Limits) {
    assert!(publish.body.ends_with(b"\r\n"));
    assert!(publish.size() <= limits.payload_max && publish.header_bytes <= publish.size());
    assert!(publish.header_bytes == 0 || limits.headers);
    assert!(!publish.subject.is_empty());
    if let Some(tail) = publish.tail {
        assert!(tail.ends_with(publish.body));
    }
}

const LONGEST_VERB: usize = "connect".len();
