//! What comes to the WebSocket listener: the HTTP request, and frames, which may be compressed.
//!
//! Promises: no input makes their readers panic or loop. However frames are cut, and however much room there is for what is
//! in them, the same stream comes out, or they are refused; it is no longer than the frames unless they are compressed,
//! and then within the limit of each message. A request is judged when its head has come, whatever follows.
//!
//! The first two bytes of an input choose what is read and the cuts.
#![no_main]

mod pieces;

use leat::websocket::{Control, FrameError, FrameReader, Inflater, Rules, check};
use libfuzzer_sys::fuzz_target;
use pieces::pieces;

/// Most bytes that a message may inflate to.
const INFLATED_BYTES_MAX: u64 = 100_000;

/// What frames carry: the stream, and control frames.
type Carried = (Vec<u8>, Vec<Control>);

fuzz_target!(|data: &[u8]| {
    let [choice, seed, input @ ..] = data else { return };
    match choice % 4 {
        0 => request(input),
        1 => {
            let whole = plain([input]);
            assert_eq!(whole, plain(pieces(input, *seed)), "split input differs from whole input");
            if let Ok((stream, _)) = whole {
                assert!(stream.len() <= input.len());
                let (also, _) = compressible([input], 100).expect("nothing in it is compressed");
                assert!(stream == also, "it differs where it might be compressed");
            }
        }
        _ => {
            let whole = compressible([input], 1 << 16);
            let split = compressible(pieces(input, *seed), usize::from(*seed) + 1);
            // An error hides what came before it, and of two errors the one or the other comes first.
            assert!(whole.is_err() == split.is_err() && whole.ok() == split.ok(), "split input differs");
        }
    }
});

fn request(input: &[u8]) {
    let rules = Rules {
        same_origin: true,
        compression: true,
        origins: vec![("http".to_owned(), "localhost".to_owned(), 80)],
        cookies: ["u", "p", "t", "j"].map(|name| Some(name.to_owned())),
        ..Rules::default()
    };
    let Some((length, outcome)) = check(input, &rules) else { return };
    assert!(length <= input.len(), "the head is longer than what has come");
    if let Ok(accepted) = outcome {
        assert!(accepted.response.starts_with(b"HTTP/1.1 101 ") && accepted.response.ends_with(b"\r\n\r\n"));
        assert_eq!(check(&input[..length], &rules), Some((length, Ok(accepted))), "it depends on what follows");
        assert_eq!(check(&input[..length - 1], &rules), None, "it is judged before it is whole");
    }
}

fn plain<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Carried, FrameError> {
    let mut reader = FrameReader::new(true, None);
    let (mut stream, mut controls) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let count = reader.read(&mut bytes, &mut controls)?;
        stream.extend_from_slice(&bytes[..count]);
    }
    Ok((stream, controls))
}

fn compressible<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, room: usize) -> Result<Carried, FrameError> {
    let mut reader = FrameReader::new(true, Some(INFLATED_BYTES_MAX));
    let (mut stream, mut controls) = (Vec::new(), Vec::new());
    let mut spare: Option<Box<Inflater>> = None;
    let mut out = vec![0; room];
    for piece in pieces {
        let mut at = 0;
        loop {
            let (used, made) = reader.read_deflated(&piece[at..], &mut out, &mut spare, &mut controls)?;
            at += used;
            stream.extend_from_slice(&out[..made]);
            if made < room {
                break;
            }
        }
    }
    Ok((stream, controls))
}
