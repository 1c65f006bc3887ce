//! What a bare word means: a boolean, a number, a date-time, a variable, or just text.

use super::Value;

/// What a word turned out to be.
#[derive(Debug, PartialEq)]
pub(super) enum Word<'a> {
    /// A value by itself.
    Value(Value),
    /// A reference to the variable of this name.
    Variable(&'a str),
    /// Text whose escapes are still to be undone.
    Text,
}

/// The suffixes of integers: letter, power of 1000, power of two of its binary form.
const SUFFIXES: &[(char, u32, u32)] =
    &[('k', 1, 10), ('m', 2, 20), ('g', 3, 30), ('t', 4, 40), ('p', 5, 50), ('e', 6, 60)];

/// Begins a bcrypt hash, which is therefore no variable.
const BCRYPT: &str = "$2a$";

/// Begin bcrypt hashes that the reference takes for variables.
const OTHER_BCRYPT: [&str; 3] = ["$2b$", "$2x$", "$2y$"];

/// Why a word means nothing, and a hint. The word itself may be half of a password and is not shown.
type Refusal = (&'static str, &'static str);

/// Tells what a bare word is.
pub(super) fn classify(word: &str) -> Result<Word<'_>, Refusal> {
    if let Some(value) = boolean(word) {
        return Ok(Word::Value(Value::Boolean(value)));
    }
    if OTHER_BCRYPT.iter().any(|prefix| word.starts_with(prefix)) {
        return Err(("a bcrypt hash of this kind would be read as a variable", "quote it"));
    }
    if let Some(name) = word.strip_prefix('$')
        && !name.is_empty()
        && !word.starts_with(BCRYPT)
    {
        return Ok(Word::Variable(name));
    }
    if word.starts_with('.') {
        return Err(("a value cannot begin with a point", "quote it if it is text, or write 0.5"));
    }
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return if unsigned.len() < word.len() {
            Err(("a value that begins with a minus must be a number", "quote it if it is text"))
        } else {
            Ok(Word::Text)
        };
    }
    let (whole, tail) = unsigned.split_at(digits);
    match tail.chars().next() {
        None => integer(word, 1),
        Some('.') => decimal(word, &tail[1..]),
        Some('-') if unsigned.len() == word.len() => date_time(word),
        Some(_) => match multiplier(tail) {
            Some(factor) => integer(&word[..word.len() - unsigned.len() + whole.len()], factor),
            None => Ok(Word::Text),
        },
    }
}

fn boolean(word: &str) -> Option<bool> {
    let is_any = |words: [&str; 3]| words.iter().any(|known| known.eq_ignore_ascii_case(word));
    if is_any(["true", "yes", "on"]) {
        Some(true)
    } else if is_any(["false", "no", "off"]) {
        Some(false)
    } else {
        None
    }
}

/// `k` is 1000; `kb`, `ki` and `kib` are 1024; and so on, in any letter case.
fn multiplier(suffix: &str) -> Option<i64> {
    let suffix = suffix.to_ascii_lowercase();
    SUFFIXES.iter().find_map(|(letter, thousands, bits)| match suffix.strip_prefix(*letter)? {
        "" => Some(1000_i64.pow(*thousands)),
        "b" | "i" | "ib" => Some(1_i64 << bits),
        _ => None,
    })
}

fn integer(number: &str, factor: i64) -> Result<Word<'_>, Refusal> {
    match number.parse::<i64>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(number) => Ok(Word::Value(Value::Integer(number))),
        None => Err(("the integer is out of range", "quote it if it is text")),
    }
}

/// `fraction` is what follows the first point. Addresses such as `10.0.0.1:4222` are text.
fn decimal<'a>(word: &'a str, fraction: &str) -> Result<Word<'a>, Refusal> {
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    match fraction[digits..].chars().next() {
        _ if digits == 0 => Err(("a number needs a digit after its point", "quote it if it is text")),
        None => match word.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Word::Value(Value::Float(number))),
            _ => Err(("the number is out of range", "quote it if it is text")),
        },
        Some('.' | ':') => Ok(Word::Text),
        Some(_) => Err(("the value is neither a number nor an address", "quote durations and other text")),
    }
}

fn date_time(word: &str) -> Result<Word<'_>, Refusal> {
    if is_date_time(word) {
        return Ok(Word::Value(Value::DateTime(word.to_owned())));
    }
    Err((
        "the value is not a date and time such as 2006-01-02T15:04:05Z",
        "quote text that begins with digits and a minus",
    ))
}

fn is_date_time(word: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00Z";
    let shaped = word.len() == SHAPE.len()
        && word
            .bytes()
            .zip(SHAPE)
            .all(|(byte, shape)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == *shape });
    if !shaped {
        return false;
    }
    let number = |from: usize, to: usize| word[from..to].parse::<u16>().unwrap_or(u16::MAX);
    let small = |from: usize| u8::try_from(number(from, from + 2)).unwrap_or(u8::MAX);
    let date = time::Month::try_from(small(5))
        .and_then(|month| time::Date::from_calendar_date(i32::from(number(0, 4)), month, small(8)));
    date.is_ok() && time::Time::from_hms(small(11), small(14), small(17)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each word means one thing, and what looks like a number but is none says so.
    #[test]
    fn words() {
        let integer = |number| Some(Word::Value(Value::Integer(number)));
        let cases: &[(&str, Option<Word<'_>>)] = &[
            ("TRUE", Some(Word::Value(Value::Boolean(true)))),
            ("Off", Some(Word::Value(Value::Boolean(false)))),
            ("trueish", Some(Word::Text)),
            ("0", integer(0)),
            ("-1", integer(-1)),
            ("00012", integer(12)),
            ("1k", integer(1000)),
            ("1Ki", integer(1024)),
            ("64KB", integer(65536)),
            ("-5kib", integer(-5120)),
            ("2m", integer(2_000_000)),
            ("1b", Some(Word::Text)),
            ("1kk", Some(Word::Text)),
            ("0x10", Some(Word::Text)),
            ("1e3", Some(Word::Text)),
            ("1_000", Some(Word::Text)),
            ("5s", Some(Word::Text)),
            ("50%", Some(Word::Text)),
            ("9223372036854775807", integer(i64::MAX)),
            ("9223372036854775808", None),
            ("10E", None),
            ("1.5", Some(Word::Value(Value::Float(1.5)))),
            ("-1.5", Some(Word::Value(Value::Float(-1.5)))),
            ("1.", None),
            (".5", None),
            ("-", None),
            ("-x", None),
            ("1.5h", None),
            ("1.2.3.4", Some(Word::Text)),
            ("127.0.0.1:4222", Some(Word::Text)),
            ("2016-01-02T15:04:05Z", Some(Word::Value(Value::DateTime("2016-01-02T15:04:05Z".to_owned())))),
            ("2016-13-02T15:04:05Z", None),
            ("2016-02-30T15:04:05Z", None),
            ("2016-01-02T25:04:05Z", None),
            ("2016-01-02", None),
            ("123-abc", None),
            ("$NAME", Some(Word::Variable("NAME"))),
            ("$2b$10$x", None),
            ("$2a$10$x", Some(Word::Text)),
            ("$", Some(Word::Text)),
            ("a$b", Some(Word::Text)),
            ("*", Some(Word::Text)),
            ("é", Some(Word::Text)),
        ];
        for (word, expected) in cases {
            assert_eq!(classify(word).ok().as_ref(), expected.as_ref(), "{word}");
        }
    }
}
