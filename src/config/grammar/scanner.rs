//! A cursor over the characters of one file.

use std::path::Path;
use std::sync::Arc;

use super::{GrammarError, Position};

/// Reads characters and knows where it stands.
pub(super) struct Scanner<'a> {
    file: Arc<Path>,
    text: &'a str,
    /// Bytes read.
    offset: usize,
    line: u32,
    column: u32,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(file: Arc<Path>, text: &'a str) -> Self {
        Self { file, text, offset: 0, line: 1, column: 1 }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn position(&self) -> Position {
        Position { file: self.file.clone(), line: self.line, column: self.column }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.offset..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.offset += c.len_utf8();
        if c == '\n' {
            self.line = self.line.saturating_add(1);
            self.column = 1;
        } else {
            self.column = self.column.saturating_add(1);
        }
        Some(c)
    }

    /// Reads `c` if it is next.
    pub(super) fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.next();
        }
        found
    }

    /// Reads characters for which `wanted` holds.
    pub(super) fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let start = self.offset;
        while self.peek().is_some_and(&wanted) {
            self.next();
        }
        &self.text[start..self.offset]
    }

    pub(super) fn skip_blanks(&mut self) {
        self.take_while(is_blank);
    }

    pub(super) fn at_comment(&self) -> bool {
        self.rest().starts_with('#') || self.rest().starts_with("//")
    }

    /// Skips blanks, line ends and comments.
    pub(super) fn skip_lines(&mut self) {
        loop {
            self.take_while(|c| is_blank(c) || is_line_end(c));
            if !self.at_comment() {
                return;
            }
            self.take_while(|c| !is_line_end(c));
        }
    }

    /// An error about the next character.
    pub(super) fn unexpected(&self, wanted: &str) -> GrammarError {
        let found = match self.peek() {
            None => "the file ends".to_owned(),
            Some(c) if is_line_end(c) => "the line ends".to_owned(),
            Some(c) => format!("found '{}'", c.escape_debug()),
        };
        self.error(format!("expected {wanted}, but {found}"))
    }

    pub(super) fn error(&self, what: impl Into<String>) -> GrammarError {
        error_at(self.position(), what)
    }
}

pub(super) fn error_at(at: Position, what: impl Into<String>) -> GrammarError {
    GrammarError { at: Some(at), what: what.into(), hint: None }
}

pub(super) fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

pub(super) fn is_line_end(c: char) -> bool {
    c == '\n' || c == '\r'
}
