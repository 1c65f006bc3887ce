//! Configuration files, with anything in them.
//!
//! Promises: no input makes the grammar, the keys or the checks panic or loop. The same text gives the same options and
//! the same digest, and a reload of it changes nothing. What passes the checks can be made into the tables by which
//! clients are let in.
//!
//! The input is the file, and what it includes: files are separated by NUL, and the first one is read; the names of the
//! others are `a`, `b` and so on.
#![no_main]

use std::io;
use std::path::Path;

use leat::auth::Directory;
use leat::config::{SecretOrigin, diff, grammar::Sources, load};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let files = Files(data.split(|byte| *byte == 0).collect());
    let main = Path::new("main");
    let loaded = load(main, &files);
    match (&loaded, &load(main, &files)) {
        (Ok(one), Ok(other)) => {
            // Floating point numbers may be NaN, and differ from themselves.
            assert_eq!(format!("{one:?}"), format!("{other:?}"), "one text, two meanings");
        }
        (Err(one), Err(other)) => assert_eq!(one, other, "one text, two errors"),
        _ => panic!("one text is read and refused"),
    }
    match loaded {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(loaded) => {
            let options = loaded.options;
            assert_eq!(diff(&options, &options).map(|changes| changes.len()).ok(), Some(0), "a reload of the same");
            let options = options.with_defaults_for_zeroes();
            if options.check().is_ok() {
                options.advice(SecretOrigin::File);
                let directory = Directory::new(&options);
                assert_eq!(directory.successor(&options).accounts().len(), directory.accounts().len());
            }
        }
    }
});

/// The files of an input.
struct Files<'a>(Vec<&'a [u8]>);

impl Sources for Files<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let name = path.file_name().map(|name| name.as_encoded_bytes());
        let number = match name {
            Some(b"main") => Some(0),
            Some([letter @ b'a'..=b'z']) => Some(usize::from(letter - b'a') + 1),
            _ => None,
        };
        let file = number.and_then(|number| self.0.get(number));
        file.map(|bytes| bytes.to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn environment(&self, name: &str) -> Option<String> {
        (name == "HOME").then(|| "/home".to_owned())
    }
}
