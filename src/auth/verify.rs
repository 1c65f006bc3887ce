//! Proofs of identity that take long to check: password hashes, signatures, tokens.
//!
//! A bcrypt hash is made to cost about a tenth of a second. So shards hand a [`Check`] to a thread of its own, and the
//! client waits for the outcome, and nobody else does.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use data_encoding::{BASE64, BASE64URL_NOPAD};

use super::grant::Grant;
use super::user_token::Presented;
use crate::config::Secret;

/// A login that is not decided yet.
#[derive(Debug)]
pub struct Check {
    task: Task,
    presence: Presence,
}

/// Whether a client still waits for the verdict about its login: what its shard tells those who compute it.
#[derive(Clone, Debug, Default)]
pub struct Presence(Arc<AtomicU8>);

const LEAVING: u8 = 1;
const GONE: u8 = 2;
const BEGUN: u8 = 4;

impl Presence {
    /// The client will send nothing more. It may be no longer there; but what it has sent behind CONNECT counts.
    pub fn set_leaving(&self) {
        self.0.fetch_or(LEAVING, Ordering::Relaxed);
    }

    /// The connection is closed.
    pub fn set_gone(&self) {
        self.0.fetch_or(GONE, Ordering::Relaxed);
    }

    /// Others are waiting more than this client.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.has(LEAVING)
    }

    /// Nobody waits for the verdict.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.has(GONE)
    }

    /// The verdict is being computed.
    pub fn set_begun(&self) {
        self.0.fetch_or(BEGUN, Ordering::Relaxed);
    }

    /// The verdict will not be long: nobody is waited for any more.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has(BEGUN)
    }

    fn has(&self, bit: u8) -> bool {
        self.0.load(Ordering::Relaxed) & bit != 0
    }
}

#[derive(Debug)]
pub(super) enum Task {
    /// The client may be this if the proof holds.
    Proof(Grant, Proof),
    /// A token says what the client may be.
    Token(Box<Presented>),
}

/// Why somebody would be who he says.
#[derive(Debug)]
pub(super) enum Proof {
    /// He knows the password of a bcrypt hash.
    Password { hash: String, given: Secret },
    /// He has signed the nonce with the key that belongs to his public nkey. The signature is text in base64, in either
    /// of its alphabets.
    Signature { nkey: String, nonce: String, signature: String },
}

impl Check {
    pub(super) fn new(task: Task) -> Self {
        Self { task, presence: Presence::default() }
    }

    /// To be told, and asked, whether the client still waits.
    #[must_use]
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Computes the verdict: the grant, or `None`.
    #[must_use]
    pub fn decide(self) -> Option<Grant> {
        match self.task {
            Task::Proof(grant, proof) => proof.holds().then_some(grant),
            Task::Token(presented) => {
                let verdict = presented.decide(SystemTime::now());
                verdict.inspect_err(|reason| tracing::debug!("A login with a JWT is refused: {reason}")).ok()
            }
        }
    }
}

impl Proof {
    fn holds(&self) -> bool {
        match self {
            Self::Password { hash, given } => bcrypt::verify(given.expose(), hash).unwrap_or(false),
            Self::Signature { nkey, nonce, signature } => holds_signature(nkey, nonce, signature),
        }
    }
}

/// Whether whoever has the public key `nkey` has signed the nonce.
pub(super) fn holds_signature(nkey: &str, nonce: &str, signature: &str) -> bool {
    let text = signature.as_bytes();
    let bytes = BASE64URL_NOPAD.decode(text).or_else(|_| BASE64.decode(text));
    let (Ok(bytes), Ok(key)) = (bytes, nkeys::KeyPair::from_public_key(nkey)) else { return false };
    !nonce.is_empty() && key.verify(nonce.as_bytes(), &bytes).is_ok()
}

/// Compares without leaking through timing where the strings differ.
pub(super) fn equal(a: &str, b: &str) -> bool {
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
    fn passwords_and_their_hashes() {
        let hash = bcrypt::hash("s3cr3t", 4).unwrap();
        let holds =
            |hash: &str, given: &str| Proof::Password { hash: hash.to_owned(), given: Secret::new(given) }.holds();
        assert!(
            Secret::new(hash.as_str()).is_bcrypt()
                && holds(&hash, "s3cr3t")
                && !holds(&hash, "s3cr3T")
                && !holds(&hash, "")
        );
        for version in ["$2a$", "$2x$", "$2y$"] {
            assert!(holds(&hash.replacen("$2b$", version, 1), "s3cr3t"), "{version}");
        }
        assert!(!holds("$2b$nonsense", "s3cr3t"));
    }

    #[test]
    fn signatures_of_the_nonce() {
        let pair = nkeys::KeyPair::new_user();
        let signature = pair.sign(b"the-nonce").unwrap();
        let holds = |nkey: String, nonce: &str, signature: String| {
            Proof::Signature { nkey, nonce: nonce.to_owned(), signature }.holds()
        };
        let texts = [BASE64.encode(&signature), BASE64URL_NOPAD.encode(&signature)];
        for text in texts {
            assert!(holds(pair.public_key(), "the-nonce", text.clone()));
            assert!(!holds(pair.public_key(), "another-nonce", text.clone()));
            assert!(!holds(pair.public_key(), "", text.clone()));
            assert!(!holds(nkeys::KeyPair::new_user().public_key(), "the-nonce", text.clone()));
            assert!(!holds("UNSENSE".into(), "the-nonce", text));
        }
        assert!(!holds(pair.public_key(), "the-nonce", "not base64".into()));
    }
}
