//! `/healthz`: whether clients can connect, and what is stored can be stored.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::Readiness;
use super::query::Query;

/// Parameters of `/healthz`. Those about JetStream change nothing while there is none, but bad ones are refused.
#[derive(Debug)]
pub(super) struct HealthzParams {
    details: bool,
    has_account: bool,
    has_stream: bool,
    has_consumer: bool,
}

/// An answer and its HTTP status.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) status: u16,
    pub(super) body: HealthzBody,
}

#[derive(Debug, Serialize)]
pub(super) struct HealthzBody {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<HealthzError>,
}

#[derive(Debug, Serialize)]
struct HealthzError {
    #[serde(rename = "type")]
    kind: &'static str,
    error: String,
}

/// What can be wrong apart from storage: HTTP status, type, text. The texts are the reference's.
const NOT_READY: (u16, &str, &str) = (500, "CONNECTION", "failed to be ready for connections after 1ms: server");
/// Status and type of a fault of storage.
const STORAGE: (u16, &str) = (503, "STORAGE");
const NO_ACCOUNT: (u16, &str, &str) = (400, "BAD_REQUEST", "\"account\" must not be empty when checking stream health");
const NO_STREAM: (u16, &str, &str) = (400, "BAD_REQUEST", "\"stream\" must not be empty when checking consumer health");

impl HealthzParams {
    /// Decodes a query; the error is the text of the 400 answer.
    pub(super) fn parse(query: &Query) -> Result<Self, String> {
        for name in ["js-enabled-only", "js-enabled", "js-server-only", "js-meta-only"] {
            query.boolean(name)?;
        }
        let has = |name| !query.get(name).is_empty();
        Ok(Self {
            details: query.boolean("details")?,
            has_account: has("account"),
            has_stream: has("stream"),
            has_consumer: has("consumer"),
        })
    }
}

/// Judges a request. `faults` are those of storage.
pub(super) fn healthz(params: &HealthzParams, readiness: Readiness, faults: &[String]) -> Health {
    let problem = if params.has_stream && !params.has_account {
        Some(NO_ACCOUNT)
    } else if params.has_consumer && !params.has_stream {
        Some(NO_STREAM)
    } else if readiness != Readiness::Accepting {
        Some(NOT_READY)
    } else {
        None
    };
    let problem = problem.map(|(status, kind, text)| (status, kind, text.to_owned()));
    let fault = faults.first().map(|fault| (STORAGE.0, STORAGE.1, fault.clone()));
    let Some((status, kind, error)) = problem.or(fault) else {
        return Health { status: 200, body: HealthzBody { status: "ok", error: None, errors: Vec::new() } };
    };
    tracing::warn!("Healthcheck failed: {error:?}");
    let body = if params.details {
        HealthzBody { status: "error", error: None, errors: vec![HealthzError { kind, error }] }
    } else {
        HealthzBody { status: "error", error: Some(error), errors: Vec::new() }
    };
    Health { status, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::go_json;

    /// Storage that is at fault makes health red, unless something worse does.
    #[test]
    fn faults_of_storage() {
        let faults = ["log 0: no \"space\"".to_owned(), "log 1".to_owned()];
        let cases = [
            ("", Readiness::Accepting, 503, r#"{"status":"error","error":"log 0: no \"space\""}"#),
            (
                "details=1",
                Readiness::Accepting,
                503,
                r#"{"status":"error","errors":[{"type":"STORAGE","error":"log 0: no \"space\""}]}"#,
            ),
            (
                "",
                Readiness::LameDuck,
                500,
                r#"{"status":"error","error":"failed to be ready for connections after 1ms: server"}"#,
            ),
        ];
        for (query, readiness, status, body) in cases {
            let health = healthz(&HealthzParams::parse(&Query::parse(query)).unwrap(), readiness, &faults);
            let text = String::from_utf8(go_json::compact(&health.body).unwrap()).unwrap();
            assert_eq!((health.status, text.as_str()), (status, body), "{query}");
        }
    }

    /// Status and body are the reference's for each state and each way to ask.
    #[test]
    fn answers() {
        use Readiness::{Accepting, LameDuck, NotListening};
        let down = r#"{"status":"error","error":"failed to be ready for connections after 1ms: server"}"#;
        let no_account = r#"{"status":"error","error":"\"account\" must not be empty when checking stream health"}"#;
        let no_stream = r#"{"status":"error","error":"\"stream\" must not be empty when checking consumer health"}"#;
        let cases = [
            ("", Accepting, 200, r#"{"status":"ok"}"#),
            ("js-enabled-only=1&details=1&account=x", Accepting, 200, r#"{"status":"ok"}"#),
            ("account=x&stream=y&consumer=z", Accepting, 200, r#"{"status":"ok"}"#),
            ("", LameDuck, 500, down),
            ("js-server-only=true", NotListening, 500, down),
            (
                "details=1",
                LameDuck,
                500,
                r#"{"status":"error","errors":[{"type":"CONNECTION","error":"failed to be ready for connections after 1ms: server"}]}"#,
            ),
            ("stream=x", Accepting, 400, no_account),
            ("consumer=x", Accepting, 400, no_stream),
            ("account=a&consumer=x", Accepting, 400, no_stream),
        ];
        for (query, readiness, status, body) in cases {
            let params = HealthzParams::parse(&Query::parse(query)).unwrap();
            let health = healthz(&params, readiness, &[]);
            let text = String::from_utf8(go_json::compact(&health.body).unwrap()).unwrap();
            assert_eq!((health.status, text.as_str()), (status, body), "{query}");
        }
        let error = HealthzParams::parse(&Query::parse("js-server-only=zz")).unwrap_err();
        assert_eq!(
            error,
            "Error decoding boolean for 'js-server-only': strconv.ParseBool: parsing \"zz\": invalid syntax"
        );
    }
}
