//! Who may connect.
//!
//! Decides from values; the session layer asks and acts.

use crate::wire::connect::Connect;

/// How clients identify themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Anybody may connect; credentials are ignored (core §1.4).
    #[default]
    Open,
    /// One user with a password.
    User {
        /// User name.
        user: String,
        /// Plain password.
        pass: String,
    },
    /// A shared token.
    Token(String),
}

/// A successful login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// User name, where there is one.
    pub user: Option<String>,
}

/// The credentials do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied;

impl Auth {
    /// Whether CONNECT must carry credentials.
    #[must_use]
    pub fn is_required(&self) -> bool {
        *self != Self::Open
    }

    /// Checks the credentials of a CONNECT.
    ///
    /// # Errors
    /// [`Denied`], without saying which part was wrong.
    pub fn check(&self, connect: &Connect) -> Result<Login, Denied> {
        let given = |field: &Option<String>| field.clone().unwrap_or_default();
        match self {
            Self::Open => Ok(Login::default()),
            Self::User { user, pass } => {
                let same_user = equal(user, &given(&connect.user));
                let same_pass = equal(pass, &given(&connect.pass));
                (same_user & same_pass).then(|| Login { user: Some(user.clone()) }).ok_or(Denied)
            }
            Self::Token(token) => equal(token, &given(&connect.auth_token)).then(Login::default).ok_or(Denied),
        }
    }
}

/// Compares without leaking through timing where the strings differ.
fn equal(a: &str, b: &str) -> bool {
    let mut difference = a.len() ^ b.len();
    for n in 0..a.len().max(b.len()) {
        let byte = |text: &str| usize::from(text.as_bytes().get(n).copied().unwrap_or(0));
        difference |= byte(a) ^ byte(b);
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_compared_whole() {
        let user = Auth::User { user: "derek".into(), pass: "s3cr3t".into() };
        let token = Auth::Token("T0pS3cr3t".into());
        let connect = |user: Option<&str>, pass: Option<&str>, token: Option<&str>| Connect {
            user: user.map(Into::into),
            pass: pass.map(Into::into),
            auth_token: token.map(Into::into),
            ..Connect::default()
        };
        assert_eq!(user.check(&connect(Some("derek"), Some("s3cr3t"), None)), Ok(Login { user: Some("derek".into()) }));
        for (name, pass) in
            [(None, None), (Some("derek"), None), (Some("derek"), Some("s3cr3")), (Some("dere"), Some("s3cr3t"))]
        {
            assert_eq!(user.check(&connect(name, pass, None)), Err(Denied));
        }
        assert_eq!(token.check(&connect(None, None, Some("T0pS3cr3t"))), Ok(Login::default()));
        assert_eq!(token.check(&connect(None, None, Some("T0pS3cr3t\0"))), Err(Denied));
        assert_eq!(token.check(&connect(Some("T0pS3cr3t"), None, None)), Err(Denied));
        assert_eq!(Auth::Open.check(&connect(Some("x"), Some("y"), None)), Ok(Login::default()));
    }
}
