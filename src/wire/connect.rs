//! The CONNECT document (core §1.4).

use serde_json::{Map, Value};

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
            asks_for_account: false,
            lang: String::new(),
            version: String::new(),
            name: String::new(),
        }
    }
}

impl Connect {
    /// Whether it carries any kind of credentials.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.user.is_some() || self.pass.is_some() || self.auth_token.is_some()
    }
}

/// Parses the argument of CONNECT over what an earlier one said, or the defaults.
///
/// Keys match without regard to letter case, unknown ones are ignored; what is absent or `null` stays as it was.
///
/// # Errors
/// Not a JSON object, or a known member of the wrong type: the connection is closed silently.
pub fn parse(json: &[u8], earlier: Connect) -> Result<Connect, ConnectError> {
    let Value::Object(members) = serde_json::from_slice(json).map_err(|_| ConnectError)? else {
        return Err(ConnectError);
    };
    let mut connect = earlier;
    for (key, value) in &members {
        if value.is_null() {
            continue;
        }
        match key.to_ascii_lowercase().as_str() {
            "verbose" => connect.verbose = boolean(value)?,
            "pedantic" => connect.pedantic = boolean(value)?,
            "echo" => connect.echo = boolean(value)?,
            "headers" => connect.headers = boolean(value)?,
            "no_responders" => connect.no_responders = boolean(value)?,
            "tls_required" | "new_account" => {
                let given = boolean(value)?;
                connect.asks_for_account |= given && key.eq_ignore_ascii_case("new_account");
            }
            "protocol" => connect.protocol = value.as_i64().ok_or(ConnectError)?,
            "user" => connect.user = some_text(value)?,
            "pass" => connect.pass = some_text(value)?,
            "auth_token" => connect.auth_token = some_text(value)?,
            "account" => connect.asks_for_account |= some_text(value)?.is_some(),
            "lang" => connect.lang = text(value)?,
            "version" => connect.version = text(value)?,
            "name" => connect.name = text(value)?,
            "nkey" | "sig" | "jwt" | "proxy_sig" => {
                text(value)?;
            }
            _ => {}
        }
    }
    Ok(connect)
}

/// Whether `json` is an object, as INFO from a client must be.
#[must_use]
pub fn is_object(json: &[u8]) -> bool {
    serde_json::from_slice::<Map<String, Value>>(json).is_ok()
}

/// The CONNECT document is unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectError;

fn boolean(value: &Value) -> Result<bool, ConnectError> {
    value.as_bool().ok_or(ConnectError)
}

fn text(value: &Value) -> Result<String, ConnectError> {
    value.as_str().map(str::to_owned).ok_or(ConnectError)
}

fn some_text(value: &Value) -> Result<Option<String>, ConnectError> {
    text(value).map(|text| Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_members_keep_their_defaults() {
        let connect =
            parse(b"{\"Verbose\":false,\"PEDANTIC\":false,\"unknown\":[1],\"name\":null}", Connect::default());
        let expected = Connect { verbose: false, pedantic: false, ..Connect::default() };
        assert_eq!(connect, Ok(expected.clone()));
        let second = parse(b"{\"echo\":false}", expected.clone());
        assert_eq!(second, Ok(Connect { echo: false, ..expected }), "a second CONNECT changes only what it names");
    }

    #[test]
    fn wrong_types_are_refused() {
        for json in ["{\"verbose\":\"yes\"}", "{\"user\":1}", "[]", "", "{", "{} x", "{\"protocol\":1.5}", "null x"] {
            assert_eq!(parse(json.as_bytes(), Connect::default()), Err(ConnectError), "{json}");
        }
    }

    #[test]
    fn obsolete_account_fields_are_noticed() {
        let asks = |json: &[u8]| parse(json, Connect::default()).map(|connect| connect.asks_for_account);
        assert_eq!(asks(b"{\"account\":\"A\"}"), Ok(true));
        assert_eq!(asks(b"{\"new_account\":true}"), Ok(true));
        assert_eq!(asks(b"{\"new_account\":false,\"account\":\"\"}"), Ok(false));
    }
}
