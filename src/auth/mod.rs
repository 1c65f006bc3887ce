//! Who may connect.
//!
//! Decides from values; the session layer asks and acts.

use crate::wire::connect::Connect;

/// How clients identify themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Anybody may connect; credentials are ignored.
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
    pub fn check(&self, connect: &Connect) -> Result<(), Denied> {
        let same = |wanted: &str, given: &Option<String>| equal(wanted, given.as_deref().unwrap_or_default());
        let fits = match self {
            Self::Open => true,
            Self::User { user, pass } => same(user, &connect.user) & same(pass, &connect.pass),
            Self::Token(token) => same(token, &connect.auth_token),
        };
        if fits { Ok(()) } else { Err(Denied) }
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
        assert_eq!(user.check(&connect(Some("derek"), Some("s3cr3t"), None)), Ok(()));
        for (name, pass) in
            [(None, None), (Some("derek"), None), (Some("derek"), Some("s3cr3")), (Some("dere"), Some("s3cr3t"))]
        {
            assert_eq!(user.check(&connect(name, pass, None)), Err(Denied));
        }
        assert_eq!(token.check(&connect(None, None, Some("T0pS3cr3t"))), Ok(()));
        assert_eq!(token.check(&connect(None, None, Some("T0pS3cr3t\0"))), Err(Denied));
        assert_eq!(token.check(&connect(Some("T0pS3cr3t"), None, None)), Err(Denied));
        assert_eq!(Auth::Open.check(&connect(Some("x"), Some("y"), None)), Ok(()));
    }
}
