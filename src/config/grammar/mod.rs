//! The grammar of configuration files: text in, a tree of values with their places out.
//!
//! ```text
//! file    := [ "{" ] { item } [ "}" ]
//! item    := pair | include | comment
//! pair    := key separator value end
//! include := "include" blank path end
//! separator := ":" | "=" | blank
//! end     := newline | "," | ";" | comment | before "}" | end of the file
//! comment := ( "#" | "//" ) to the end of the line
//! value   := map | array | quoted | block | number | boolean | date-time | variable | bare
//! map     := "{" { item } "}"
//! array   := "[" { value ( "," | newline ) } "]"
//! block   := "(" text newline ")" newline
//! ```
//!
//! Owns everything that can be said without knowing a single key: quoting, number suffixes, variables, included files.
//! Any bytes give either a [`Document`] or one [`GrammarError`]; nesting, included files and the size that variables
//! can multiply to are bounded.
#![forbid(unsafe_code)]

mod digest;
mod document;
mod parser;
mod scanner;
#[cfg(test)]
mod tests;
mod value;
mod words;

pub use digest::digest;
pub use document::{Document, Sources, System, parse};
pub use value::{Entry, Map, Node, Position, Value};

use std::fmt;

/// Why a file is not well-formed, where, and what may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrammarError {
    /// The place; none if the file could not be read at all.
    pub at: Option<Position>,
    /// What is wrong.
    pub what: String,
    /// What the author probably meant to write.
    pub hint: Option<&'static str>,
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        f.write_str(&self.what)?;
        match self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for GrammarError {}
