//! The parser: recursive descent over the characters of one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::{INCLUDE_DEPTH_MAX, VALUES_MAX, parse_bytes};
use super::scanner::{Scanner, error_at, is_blank, is_line_end};
use super::words::{Word, classify};
use super::{Entry, GrammarError, Map, Node, Position, Sources, Value};

/// Maps and arrays inside each other.
const NESTING_MAX: usize = 64;

/// The word that begins an include when a blank follows.
const INCLUDE: &str = "include";

/// What an included file costs of the number of values, so that files that include each other often are bounded too.
const INCLUDE_COST: usize = 1024;

/// The characters beside blanks and line ends that end a bare word.
const WORD_ENDS: &[char] = &[',', ';', ']', '}'];

pub(super) struct Parser<'a> {
    scanner: Scanner<'a>,
    /// The maps that are open, outermost first. Variables are looked up here.
    scopes: Vec<Map>,
    nesting: usize,
    /// Environment variables being expanded.
    expanding: Vec<String>,
    open: &'a mut Vec<PathBuf>,
    budget: &'a mut usize,
    sources: &'a dyn Sources,
}

/// What encloses the items being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    File,
    Map,
}

impl<'a> Parser<'a> {
    pub(super) fn new(
        file: Arc<Path>,
        text: &'a str,
        open: &'a mut Vec<PathBuf>,
        budget: &'a mut usize,
        sources: &'a dyn Sources,
    ) -> Self {
        let scanner = Scanner::new(file, text);
        Self { scanner, scopes: Vec::new(), nesting: 0, expanding: Vec::new(), open, budget, sources }
    }

    /// The whole file, which may be wrapped in braces.
    pub(super) fn file(mut self) -> Result<Map, GrammarError> {
        self.scopes.push(Map::default());
        let mut braces = Vec::new();
        loop {
            self.scanner.skip_lines();
            match self.scanner.peek() {
                None => break,
                Some('{') => {
                    braces.push(self.scanner.position());
                    if braces.len() > NESTING_MAX {
                        return Err(self.scanner.error("braces are nested too deeply"));
                    }
                    self.scanner.next();
                }
                // The reference takes a closing brace that nothing opened, and files rely on it unknowingly.
                Some('}') => {
                    braces.pop();
                    self.scanner.next();
                }
                Some(_) => self.item(Level::File)?,
            }
        }
        if let Some(at) = braces.pop() {
            return Err(error_at(at, "this brace is never closed"));
        }
        Ok(self.scopes.pop().unwrap_or_default())
    }

    /// One pair or include, with its end.
    fn item(&mut self, level: Level) -> Result<(), GrammarError> {
        let key_at = self.scanner.position();
        let (key, quoted) = self.key()?;
        if !quoted
            && key.eq_ignore_ascii_case(INCLUDE)
            && self.scanner.peek().is_some_and(|c| is_blank(c) || is_line_end(c))
        {
            let included = self.include()?;
            self.scope().merge(included);
        } else {
            self.separator(&key)?;
            let node = self.value()?;
            self.scope().insert(key, Entry { node, key_at, is_variable: false });
        }
        self.end(level)
    }

    fn scope(&mut self) -> &mut Map {
        if self.scopes.is_empty() {
            self.scopes.push(Map::default());
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    fn key(&mut self) -> Result<(String, bool), GrammarError> {
        match self.scanner.peek() {
            Some(quote @ ('"' | '\'')) => {
                self.scanner.next();
                let key = self.scanner.take_while(|c| c != quote).to_owned();
                if !self.scanner.eat(quote) {
                    return Err(self.scanner.unexpected("the closing quote of a key"));
                }
                Ok((key, true))
            }
            Some(':' | '=' | ',' | ';' | ']' | '[') | None => Err(self.scanner.unexpected("a key")),
            Some(_) => {
                let key = self.scanner.take_while(|c| !is_blank(c) && !is_line_end(c) && c != ':' && c != '=');
                Ok((key.to_owned(), false))
            }
        }
    }

    /// What stands between key and value. Line ends may stand before `:` or `=`, not behind.
    fn separator(&mut self, key: &str) -> Result<(), GrammarError> {
        self.scanner.take_while(|c| is_blank(c) || is_line_end(c));
        if self.scanner.eat(':') || self.scanner.eat('=') {
            self.scanner.skip_blanks();
        }
        match self.scanner.peek() {
            Some(c) if !is_line_end(c) && !WORD_ENDS.contains(&c) => Ok(()),
            _ => {
                let mut error = self.scanner.unexpected(&format!("a value for \"{}\"", key.escape_debug()));
                if key.contains(['{', '[']) {
                    error.hint = Some("a blank is needed between a key and its brace or bracket");
                }
                Err(error)
            }
        }
    }

    /// The end of an item.
    fn end(&mut self, level: Level) -> Result<(), GrammarError> {
        self.scanner.skip_blanks();
        match self.scanner.peek() {
            None if level == Level::File => Ok(()),
            Some('}') => Ok(()),
            Some(',' | ';') => {
                self.scanner.next();
                Ok(())
            }
            Some(c) if is_line_end(c) => Ok(()),
            Some(_) if self.scanner.at_comment() => Ok(()),
            _ => {
                let mut error = self.scanner.unexpected(match level {
                    Level::File => "the end of the value (a new line, \",\" or \";\")",
                    Level::Map => "the end of the value (a new line, \",\", \";\" or \"}\")",
                });
                error.hint = Some("quote values that contain blanks");
                Err(error)
            }
        }
    }

    fn value(&mut self) -> Result<Node, GrammarError> {
        let at = self.scanner.position();
        self.spend(1, &at)?;
        let value = match self.scanner.peek() {
            Some('{') => self.nested(Self::map)?,
            Some('[') => self.nested(Self::array)?,
            Some('(') => Value::Text(self.block()?),
            Some('"') => Value::Text(self.double_quoted()?),
            Some('\'') => Value::Text(self.single_quoted()?),
            _ => return self.word(at),
        };
        Ok(Node { value, at })
    }

    /// Takes from the number of values that may still be read.
    fn spend(&mut self, values: usize, at: &Position) -> Result<(), GrammarError> {
        match self.budget.checked_sub(values) {
            Some(left) => {
                *self.budget = left;
                Ok(())
            }
            None => Err(error_at(at.clone(), format!("the configuration has more than {VALUES_MAX} values"))),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, GrammarError>) -> Result<Value, GrammarError> {
        if self.nesting == NESTING_MAX {
            return Err(self.scanner.error(format!("more than {NESTING_MAX} maps and arrays inside each other")));
        }
        self.nesting += 1;
        self.scanner.next();
        let value = read(self)?;
        self.nesting -= 1;
        Ok(value)
    }

    fn map(&mut self) -> Result<Value, GrammarError> {
        self.scopes.push(Map::default());
        loop {
            self.scanner.skip_lines();
            if self.scanner.eat('}') {
                break;
            }
            if self.scanner.peek().is_none() {
                return Err(self.scanner.unexpected("\"}\""));
            }
            self.item(Level::Map)?;
        }
        Ok(Value::Map(self.scopes.pop().unwrap_or_default()))
    }

    fn array(&mut self) -> Result<Value, GrammarError> {
        let mut items = Vec::new();
        loop {
            self.scanner.skip_lines();
            match self.scanner.peek() {
                Some(']') => break,
                Some(',') => {
                    let mut error = self.scanner.unexpected("a value or \"]\"");
                    error.hint = Some("a comma stands on the line of the value before it");
                    return Err(error);
                }
                Some(c) if !WORD_ENDS.contains(&c) => items.push(self.value()?),
                _ => return Err(self.scanner.unexpected("a value or \"]\"")),
            }
            self.scanner.skip_blanks();
            match self.scanner.peek() {
                Some(']') => break,
                Some(',') => {
                    self.scanner.next();
                }
                Some(c) if is_line_end(c) => {}
                Some(_) if self.scanner.at_comment() => {}
                _ => return Err(self.scanner.unexpected("\",\", a new line or \"]\" after the value in an array")),
            }
        }
        self.scanner.next();
        Ok(Value::Array(items))
    }

    /// Raw text between parentheses; the closing one is alone on its line.
    fn block(&mut self) -> Result<String, GrammarError> {
        let at = self.scanner.position();
        self.scanner.next();
        let mut text = String::new();
        loop {
            text.push_str(self.scanner.take_while(|c| c != '\n'));
            if self.scanner.next().is_none() {
                let mut error = error_at(at, "this block of text is never closed");
                error.hint = Some("the closing parenthesis stands alone on a line");
                return Err(error);
            }
            text.push('\n');
            let after = self.scanner.rest().strip_prefix(')');
            if after.is_some_and(|after| after.is_empty() || after.starts_with(is_line_end)) {
                self.scanner.next();
                return Ok(text);
            }
        }
    }

    fn single_quoted(&mut self) -> Result<String, GrammarError> {
        let at = self.scanner.position();
        self.scanner.next();
        let text = self.scanner.take_while(|c| c != '\'').to_owned();
        if self.scanner.eat('\'') { Ok(text) } else { Err(error_at(at, "this quote is never closed")) }
    }

    fn double_quoted(&mut self) -> Result<String, GrammarError> {
        let at = self.scanner.position();
        self.scanner.next();
        let text = self.escaped(|c| c == '"')?;
        if self.scanner.eat('"') { Ok(text) } else { Err(error_at(at, "this quote is never closed")) }
    }

    /// Text up to a character for which `ends` holds, escapes undone. Escaped bytes are joined to characters.
    fn escaped(&mut self, ends: impl Fn(char) -> bool) -> Result<String, GrammarError> {
        let start = self.scanner.position();
        let mut bytes = Vec::new();
        while let Some(c) = self.scanner.peek().filter(|c| !ends(*c)) {
            if c != '\\' {
                bytes.extend_from_slice(self.scanner.take_while(|c| c != '\\' && !ends(c)).as_bytes());
                continue;
            }
            let at = self.scanner.position();
            self.scanner.next();
            bytes.push(match self.scanner.next() {
                Some('t') => b'\t',
                Some('n') => b'\n',
                Some('r') => b'\r',
                Some('"') => b'"',
                Some('\\') => b'\\',
                Some('x') => self.hexadecimal().ok_or_else(|| error_at(at, "\\x needs two hexadecimal digits"))?,
                _ => {
                    let mut error = error_at(at, "only \\xHH, \\t, \\n, \\r, \\\" and \\\\ may follow a backslash");
                    error.hint = Some("in single quotes a backslash means itself");
                    return Err(error);
                }
            });
        }
        String::from_utf8(bytes).map_err(|_| error_at(start, "the bytes written with \\x are not UTF-8 text"))
    }

    fn hexadecimal(&mut self) -> Option<u8> {
        let digits = self.scanner.rest().get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        self.scanner.next();
        self.scanner.next();
        u8::from_str_radix(digits, 16).ok()
    }

    /// A bare value: number, boolean, variable or text.
    fn word(&mut self, at: Position) -> Result<Node, GrammarError> {
        let ends = |c: char| is_blank(c) || is_line_end(c) || WORD_ENDS.contains(&c);
        let rest = self.scanner.rest();
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        let outcome = classify(word).map_err(|(what, hint)| GrammarError {
            at: Some(at.clone()),
            what: what.to_owned(),
            hint: Some(hint),
        })?;
        match outcome {
            Word::Text => Ok(Node { value: Value::Text(self.escaped(ends)?), at }),
            Word::Value(value) => {
                self.scanner.take_while(|c| !ends(c));
                Ok(Node { value, at })
            }
            Word::Variable(name) => {
                self.scanner.take_while(|c| !ends(c));
                self.variable(name, at)
            }
        }
    }

    /// The value of a variable: from the innermost map that has defined it, else from the environment.
    fn variable(&mut self, name: &str, at: Position) -> Result<Node, GrammarError> {
        if let Some(found) = self.scopes.iter_mut().rev().find_map(|map| map.resolve(name)) {
            let (size, node) = (found.size(), found.clone());
            self.spend(size, &at)?;
            return Ok(node);
        }
        let Some(text) = self.sources.environment(name) else {
            let what = format!("variable reference for '{}' on line {} can not be found", name.escape_debug(), at.line);
            let hint = Some("define it above, in this map or an outer one, or in the environment");
            return Err(GrammarError { at: Some(at), what, hint });
        };
        if self.expanding.iter().any(|known| known == name) || self.expanding.len() == NESTING_MAX {
            return Err(error_at(at, format!("variable reference cycle for '{}'", name.escape_debug())));
        }
        self.environment_value(name, &text, &at)
    }

    /// What an environment variable says, read as if it stood in the file.
    fn environment_value(&mut self, name: &str, text: &str, at: &Position) -> Result<Node, GrammarError> {
        let mut expanding = std::mem::take(&mut self.expanding);
        expanding.push(name.to_owned());
        let mut inner = Parser {
            scanner: Scanner::new(Arc::from(Path::new(&format!("${name}"))), text),
            scopes: std::mem::take(&mut self.scopes),
            nesting: self.nesting,
            expanding,
            open: self.open,
            budget: self.budget,
            sources: self.sources,
        };
        let depth = inner.scopes.len();
        inner.scanner.skip_blanks();
        let outcome = inner.value().and_then(|node| {
            inner.scanner.skip_lines();
            match inner.scanner.peek() {
                None => Ok(node),
                Some(_) => Err(inner.scanner.unexpected("the end of the variable")),
            }
        });
        inner.scopes.truncate(depth);
        inner.expanding.pop();
        (self.scopes, self.expanding) = (inner.scopes, inner.expanding);
        let mut node = outcome.map_err(|error| {
            let what =
                format!("variable reference for '{name}' on line {} could not be parsed: {}", at.line, error.what);
            GrammarError { at: Some(at.clone()), what, hint: error.hint }
        })?;
        node.at = at.clone();
        Ok(node)
    }

    /// The keys of another file. It does not see the variables of this one.
    fn include(&mut self) -> Result<Map, GrammarError> {
        self.scanner.skip_blanks();
        let at = self.scanner.position();
        let name = match self.scanner.peek() {
            Some('"') => self.double_quoted()?,
            Some('\'') => self.single_quoted()?,
            Some(c) if !is_line_end(c) => {
                self.scanner.take_while(|c| !is_blank(c) && !is_line_end(c) && !WORD_ENDS.contains(&c)).to_owned()
            }
            _ => return Err(self.scanner.unexpected("a path after \"include\"")),
        };
        let fail = |what: String| {
            error_at(at.clone(), format!("error parsing include file '{}', {what}", name.escape_debug()))
        };
        let path = self.scanner.file().parent().unwrap_or(Path::new("")).join(&name);
        if self.open.contains(&path) {
            return Err(fail("which includes itself".to_owned()));
        }
        if self.open.len() == INCLUDE_DEPTH_MAX {
            return Err(fail(format!("more than {INCLUDE_DEPTH_MAX} files include each other")));
        }
        self.spend(INCLUDE_COST, &at)?;
        let bytes = self.sources.read(&path).map_err(|error| fail(format!("open {}: {error}", path.display())))?;
        parse_bytes(&path, &bytes, self.open, self.budget, self.sources)
    }
}
