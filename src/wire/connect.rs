//! The CONNECT document.

use std::fmt;

use serde_json::Value;

use super::errors::Quoted;
use super::json;

/// What a client said of itself. Defaults are those of a client that sends no CONNECT at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// `+OK` after each command.
    pub verbose: bool,
    /// Check publish subjects.
    pub pedantic: bool,
    /// Deliver own messages.
    pub echo: bool,
    /// Understands headers.
    pub headers: bool,
    /// Wants the 503 status.
    pub no_responders: bool,
    /// 1 = understands asynchronous INFO.
    pub protocol: i64,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub pass: Option<String>,
    /// Token.
    pub auth_token: Option<String>,
    /// Public user key.
    pub nkey: Option<String>,
    /// Signature of the nonce with that key or the one that the JWT is about, base64.
    pub sig: Option<String>,
    /// JWT of a user.
    pub jwt: Option<String>,
    /// Obsolete; any use is refused.
    pub asks_for_account: bool,
    /// Library language.
    pub lang: String,
    /// Library version.
    pub version: String,
    /// Connection name.
    pub name: String,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            verbose: true,
            pedantic: true,
            echo: true,
            headers: false,
            no_responders: false,
            protocol: 0,
            user: None,
            pass: None,
            auth_token: None,
            nkey: None,
            sig: None,
            jwt: None,
            asks_for_account: false,
            lang: String::new(),
            version: String::new(),
            name: String::new(),
        }
    }
}

impl Connect {
    /// Whether it carries any kind of credentials, a JWT left aside, which counts where operators are trusted only.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.user.is_some() || self.pass.is_some() || self.auth_token.is_some() || self.nkey.is_some()
    }

    /// What it says of who the client is, whether or not that was needed or has been checked.
    #[must_use]
    pub fn claim(&self) -> Option<Claim<'_>> {
        match (&self.nkey, &self.user, &self.auth_token) {
            (Some(nkey), _, _) => Some(Claim::Nkey(nkey)),
            (None, Some(user), _) => Some(Claim::User(user)),
            (None, None, Some(_)) => Some(Claim::Token),
            (None, None, None) => None,
        }
    }
}

/// How a client identifies itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim<'a> {
    /// A public user key.
    Nkey(&'a str),
    /// A user name.
    User(&'a str),
    /// A token, which is a secret.
    Token,
    /// The public key of a user that a JWT is about.
    Jwt(&'a str),
}

impl<'a> Claim<'a> {
    /// What monitoring shows as the user.
    #[must_use]
    pub fn shown(self) -> &'a str {
        match self {
            Self::Nkey(name) | Self::User(name) | Self::Jwt(name) => name,
            Self::Token => REDACTED,
        }
    }
}

impl fmt::Display for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Nkey(_) => "Nkey",
            Self::User(_) => "User",
            Self::Token => "Token",
            Self::Jwt(_) => "JWT User",
        };
        write!(f, "{kind} {}", Quoted(self.shown().as_bytes()))
    }
}

/// Stands for a secret.
pub const REDACTED: &str = "[REDACTED]";

/// Parses the argument of CONNECT over what an earlier one said, or the defaults.
///
/// Names match without regard to letter case, unknown ones are ignored; what is absent or `null` stays as it was.
///
/// # Errors
/// Not a JSON object, or a known member of the wrong type: the connection is closed silently.
pub fn parse(json: &[u8], earlier: Connect) -> Result<Connect, ConnectError> {
    let mut connect = earlier;
    let (mut names_account, mut asks_for_new_account) = (false, false);
    for (name, value) in json::members(json).map_err(ConnectError::Malformed)?.0 {
        let value = value.get();
        if value == "null" {
            continue;
        }
        let read = match json::folded(&name).as_str() {
            "verbose" => boolean(value).map(|flag| connect.verbose = flag),
            "pedantic" => boolean(value).map(|flag| connect.pedantic = flag),
            "echo" => boolean(value).map(|flag| connect.echo = flag),
            "headers" => boolean(value).map(|flag| connect.headers = flag),
            "no_responders" => boolean(value).map(|flag| connect.no_responders = flag),
            "new_account" => boolean(value).map(|flag| asks_for_new_account = flag),
            "tls_required" => boolean(value).map(drop),
            "protocol" => value.parse().map(|number| connect.protocol = number).map_err(|_| "a whole number"),
            "user" => some_text(value).map(|text| connect.user = text),
            "pass" => some_text(value).map(|text| connect.pass = text),
            "auth_token" => some_text(value).map(|text| connect.auth_token = text),
            "account" => some_text(value).map(|text| names_account = text.is_some()),
            "lang" => text(value).map(|text| connect.lang = text),
            "version" => text(value).map(|text| connect.version = text),
            "name" => text(value).map(|text| connect.name = text),
            "nkey" => some_text(value).map(|text| connect.nkey = text),
            "sig" => some_text(value).map(|text| connect.sig = text),
            "jwt" => some_text(value).map(|text| connect.jwt = text),
            "proxy_sig" | "remote_account" => text(value).map(drop),
            "import" | "export" if !value.starts_with('{') => Err("an object"),
            _ => Ok(()),
        };
        read.map_err(|expected| ConnectError::WrongType { name, expected })?;
    }
    connect.asks_for_account |= names_account || asks_for_new_account;
    Ok(connect)
}

/// Whether `json` is an object or `null`, as INFO from a client must be.
#[must_use]
pub fn is_object(json: &[u8]) -> bool {
    json::members(json).is_ok()
}

/// The document for a log, with the values of its secrets blanked out. `None` if it cannot be read.
#[must_use]
pub fn redacted(json: &[u8]) -> Option<String> {
    let members = json::members(json).ok()?.0;
    let members = members.iter().map(|(name, value)| {
        let is_secret = SECRETS.contains(&json::folded(name).as_str());
        let value = if is_secret { Value::from(REDACTED).to_string() } else { value.get().to_owned() };
        format!("{}:{value}", Value::from(name.as_str()))
    });
    Some(format!("{{{}}}", members.collect::<Vec<_>>().join(",")))
}

const SECRETS: [&str; 6] = ["pass", "auth_token", "sig", "jwt", "nkey", "proxy_sig"];

/// The CONNECT document is unusable.
#[derive(Debug)]
pub enum ConnectError {
    /// No JSON object.
    Malformed(serde_json::Error),
    /// A member has a value that it cannot have.
    WrongType {
        /// Its name.
        name: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "malformed CONNECT: {error}"),
            Self::WrongType { name, expected } => write!(f, "malformed CONNECT: {name:?} should be {expected}"),
        }
    }
}

impl std::error::Error for ConnectError {}

fn boolean(value: &str) -> Result<bool, &'static str> {
    value.parse().map_err(|_| "a boolean")
}

fn text(value: &str) -> Result<String, &'static str> {
    serde_json::from_str(value).map_err(|_| "a string")
}

fn some_text(value: &str) -> Result<Option<String>, &'static str> {
    text(value).map(|text| Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &[u8]) -> Option<Connect> {
        parse(json, Connect::default()).ok()
    }

    #[test]
    fn absent_members_keep_their_defaults() {
        let connect = read(b"{\"Verbose\":false,\"PEDANTIC\":false,\"unknown\":[1],\"name\":null}").unwrap();
        assert_eq!(connect, Connect { verbose: false, pedantic: false, ..Connect::default() });
        let second = parse(b"{\"echo\":false}", connect.clone()).unwrap();
        assert_eq!(second, Connect { echo: false, ..connect }, "a second CONNECT changes only what it names");
    }

    /// What the reference server takes, it is taken as; each line was tried there.
    #[test]
    fn lax_documents_are_understood() {
        type Change = fn(&mut Connect);
        let name = |name: &str| Connect { name: name.to_owned(), ..Connect::default() };
        let names: &[(&[u8], &str)] = &[
            (br#"{"name":"a\ud800b"}"#, "a\u{fffd}b"),
            (br#"{"name":"\ud800\ud83d\ude00"}"#, "\u{fffd}\u{1f600}"),
            (br#"{"na\ud800me":"x","name":"y"}"#, "y"),
            (b"{\"name\":\"a\xffb\"}", "a\u{fffd}b"),
            (b"{\"name\":\"x\",\"NAME\":\"y\"}", "y"),
            (b"{\"NAME\":\"x\",\"name\":\"y\"}", "y"),
            (b"{\"name\":\"x\",\"name\":\"y\"}", "y"),
            (b"{\"name\":\"x\",\"name\":null}", "x"),
            (br#"{"name":"\u0000\/"}"#, "\0/"),
            (b"{\"unknown\":1e400,\"name\":\"x\"}", "x"),
            (b"{\"import\":{},\"export\":null,\"name\":\"x\"}", "x"),
        ];
        for (json, expected) in names {
            assert_eq!(read(json), Some(name(expected)), "{}", json.escape_ascii());
        }
        let others: &[(&str, Change)] = &[
            ("null", |_| {}),
            (" {} \t ", |_| {}),
            ("{\"verbose\":null,\"protocol\":null,\"user\":null,\"account\":null}", |_| {}),
            ("{\"verbo\u{17f}e\":false}", |connect| connect.verbose = false),
            ("{\"nonce\":5,\"id\":5,\"cluster\":5,\"Name \":5}", |_| {}),
            ("{\"protocol\":-0}", |_| {}),
            ("{\"protocol\":9223372036854775807}", |connect| connect.protocol = i64::MAX),
            ("{\"account\":\"A\",\"account\":\"\"}", |_| {}),
            ("{\"account\":\"A\",\"account\":null}", |connect| connect.asks_for_account = true),
            ("{\"new_account\":true}", |connect| connect.asks_for_account = true),
            ("{\"new_account\":false,\"account\":\"\"}", |_| {}),
        ];
        for (json, change) in others {
            let mut expected = Connect::default();
            change(&mut expected);
            assert_eq!(read(json.as_bytes()), Some(expected), "{json}");
        }
        let deep = format!("{{\"unknown\":{}{},\"name\":\"x\"}}", "[".repeat(2000), "]".repeat(2000));
        assert_eq!(read(deep.as_bytes()), Some(name("x")));
    }

    /// What the reference server closes the connection for.
    #[test]
    fn unusable_documents_are_refused() {
        let documents: &[&[u8]] = &[
            b"",
            b"{",
            b"[]",
            b"1",
            b"\"x\"",
            b"true",
            b"{} x",
            b"{} {}",
            b"{}}",
            b"null x",
            b"\xef\xbb\xbf{}",
            b"\x0b{}",
            b"{}\0",
            b"{\"a\":1,}",
            b"{\"a\":1 \"b\":2}",
            b"{name:\"x\"}",
            b"{'name':'x'}",
            b"{\"a\":01}",
            b"{\"a\":.5}",
            b"{\"a\":1.}",
            b"{\"a\":NaN}",
            b"{\"name\":\"a\tb\"}",
            b"{\"name\":\"\\x41\"}",
            b"{\"name\":\"\\u00\"}",
        ];
        for json in documents {
            assert!(
                matches!(parse(json, Connect::default()), Err(ConnectError::Malformed(_))),
                "{}",
                json.escape_ascii()
            );
        }
        let members: &[(&str, &[&str])] = &[
            ("name", &["1", "[]", "{}", "true", "\"x\",\"name\":1", "1,\"name\":\"x\""]),
            ("protocol", &["1.0", "1e0", "0.0", "10e-1", "1.5", "\"1\"", "true", "9223372036854775808"]),
            ("verbose", &["0", "\"true\"", "[]"]),
        ];
        let texts =
            "lang version user pass auth_token nkey nKey sig jwt proxy_sig account remote_account import export";
        let flags = "pedantic echo headers no_responders tls_required new_account";
        let fives = texts.split(' ').chain(flags.split(' ')).map(|name| (name, "5"));
        let table = members.iter().flat_map(|(name, values)| values.iter().map(|value| (*name, *value)));
        for (name, value) in table.chain(fives) {
            let json = format!("{{\"{name}\":{value}}}");
            let error = parse(json.as_bytes(), Connect::default()).unwrap_err();
            assert!(matches!(&error, ConnectError::WrongType { name: wrong, .. } if wrong == name), "{json}: {error}");
        }
    }

    /// The order is the reference server's.
    #[test]
    fn claims() {
        let cases: [(&str, Option<(&str, &str)>); 7] = [
            ("{}", None),
            (r#"{"pass":"p","user":"","jwt":"J"}"#, None),
            (r#"{"user":"al","pass":"p"}"#, Some(("al", r#"User "al""#))),
            (r#"{"auth_token":"t0k"}"#, Some(("[REDACTED]", r#"Token "[REDACTED]""#))),
            (r#"{"user":"al","auth_token":"t0k"}"#, Some(("al", r#"User "al""#))),
            (r#"{"user":"al","auth_token":"t0k","nkey":"UA"}"#, Some(("UA", r#"Nkey "UA""#))),
            (r#"{"user":"a\"\n"}"#, Some(("a\"\n", r#"User "a\"\n""#))),
        ];
        for (json, expected) in cases {
            let connect = read(json.as_bytes()).unwrap();
            let claim = connect.claim().map(|claim| (claim.shown(), claim.to_string()));
            assert_eq!(claim, expected.map(|(shown, logged)| (shown, logged.to_owned())), "{json}");
        }
    }

    #[test]
    fn secrets_are_blanked_out() {
        let json = br#"{"verbose":false, "user":"derek","pass":"s3cr3t","Auth_Token":"t0k","x":"\"pass\":\"y\"","\u0073ig":1}"#;
        let expected = r#"{"verbose":false,"user":"derek","pass":"[REDACTED]","Auth_Token":"[REDACTED]","x":"\"pass\":\"y\"","sig":"[REDACTED]"}"#;
        assert_eq!(redacted(json).as_deref(), Some(expected));
        assert_eq!(redacted(b"{\"pass\":\"s3cr3t\""), None);
    }
}
