//! The HTTP server: a thread with a runtime of its own, routes, and answers in the reference's shape.
//!
//! Questions to the shards run on at most [`QUESTIONS_MAX`] further threads, because they may wait. Answers that
//! slow readers have not taken yet hold at most [`ANSWERS_KIB_MAX`]. What exceeds either bound waits its turn, and
//! those who wait are bounded by the number of connections and the time of a request.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::connz::connz;
use super::healthz::{HealthzParams, healthz};
use super::listener::BoundedListener;
use super::params::ConnzParams;
use super::process::ProcessUsage;
use super::query::Query;
use super::varz::{Surroundings, varz};
use super::{Source, Want, go_json, index, streaming};
use crate::tls::Current;

/// Threads that may wait for shards at the same time.
const QUESTIONS_MAX: usize = 2;

/// Memory of answers on their way, beside those being made. One answer may exceed it when it is alone.
const ANSWERS_KIB_MAX: u32 = 64 << 10;

/// How long requests in progress may take once the server is to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// The running monitoring server.
#[derive(Debug)]
pub struct MonitorServer {
    shutdown: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Starts to serve monitoring on a bound listener, inside TLS if there is a context for it.
///
/// # Errors
/// When the thread or what it waits with cannot be had.
pub fn serve(listener: TcpListener, tls: Option<Current>, source: Arc<dyn Source>) -> io::Result<MonitorServer> {
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(QUESTIONS_MAX).build()?;
    let listener = {
        let _inside = runtime.enter();
        BoundedListener::new(tokio::net::TcpListener::from_std(listener)?, tls)
    };
    let (shutdown, stopped) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("leat-monitor".to_owned())
        .spawn(move || run(runtime, listener, source, stopped))?;
    Ok(MonitorServer { shutdown, thread })
}

impl MonitorServer {
    /// Stops accepting, lets requests in progress end for a moment, and ends the thread.
    pub fn stop(self) {
        // Either fails only when the thread has ended already, which is what is wanted.
        let _ = self.shutdown.send(());
        let _ = self.thread.join();
    }
}

fn run(runtime: Runtime, listener: BoundedListener, source: Arc<dyn Source>, mut stopped: oneshot::Receiver<()>) {
    let options = source.facts().options;
    let base = base_path(options.http_base_path.as_deref());
    let has_streaming = options.streaming.is_some();
    let shared = Arc::new(Shared {
        source,
        requests: Mutex::default(),
        usage: ProcessUsage::start(),
        questions: Semaphore::new(QUESTIONS_MAX),
        answers: Arc::new(Semaphore::new(ANSWERS_KIB_MAX as usize)),
    });
    runtime.block_on(async move {
        let (finish, finishing) = oneshot::channel::<()>();
        let server = axum::serve(listener, router(&base, has_streaming, shared)).with_graceful_shutdown(async {
            let _ = finishing.await;
        });
        let server = tokio::spawn(server.into_future());
        let _ = (&mut stopped).await;
        drop(finish);
        let _ = timeout(STOP_PATIENCE, server).await;
    });
    // A question that a shard never answers must not hold up the exit.
    runtime.shutdown_background();
}

/// What all requests share.
pub(super) struct Shared {
    pub(super) source: Arc<dyn Source>,
    requests: Mutex<BTreeMap<&'static str, u64>>,
    usage: ProcessUsage,
    questions: Semaphore,
    answers: Arc<Semaphore>,
}

/// The bytes of an answer with their share of the memory for answers, given back when the last byte has left.
struct Answer {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pub(super) type SharedState = State<Arc<Shared>>;

/// `http_base_path` with a slash before it and none behind; empty if there is nothing else.
fn base_path(given: Option<&str>) -> String {
    let path = given.unwrap_or_default().trim_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}

fn router(base: &str, has_streaming: bool, shared: Arc<Shared>) -> Router {
    // What would be a pattern in a route is meant as it is written.
    let literal = base.replace('{', "{{").replace('}', "}}");
    let at = |path: &str| if literal.is_empty() || path != "/" { format!("{literal}{path}") } else { literal.clone() };
    let last = base.rsplit('/').next().unwrap_or_default().to_owned();
    let mut router = Router::new()
        .without_v07_checks()
        .route(&at("/"), any(async move |shared: SharedState| get_index(&last, has_streaming, &shared)))
        .route(&at("/varz"), any(get_varz))
        .route(&at("/connz"), any(get_connz))
        .route(&at("/healthz"), any(get_healthz));
    if has_streaming {
        router = streaming::routes(router, at);
    }
    router.fallback(async || not_found(NO_PAGE)).with_state(shared)
}

fn get_index(name: &str, has_streaming: bool, shared: &Shared) -> Response {
    shared.count("/");
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], index::page(name, has_streaming)).into_response()
}

async fn get_varz(State(shared): SharedState) -> Response {
    shared.count("/varz");
    from_shards(shared, |shared| {
        let facts = shared.source.facts();
        let shards = shared.source.shards(Want::default());
        let around = Surroundings {
            now: SystemTime::now(),
            memory: shared.usage.memory(),
            processor_percent: shared.usage.processor_percent(),
            requests: shared.counts(),
        };
        made(&varz(&facts, &shards, around))
    })
    .await
}

async fn get_connz(State(shared): SharedState, RawQuery(query): RawQuery) -> Response {
    let params = match ConnzParams::parse(&Query::parse(&query.unwrap_or_default())) {
        Ok(params) => params,
        Err(text) => return bad_request(text),
    };
    shared.count("/connz");
    from_shards(shared, move |shared| {
        let facts = shared.source.facts();
        let shards = shared.source.shards(params.want());
        made(&connz(&facts, &shards, &params, SystemTime::now()))
    })
    .await
}

async fn get_healthz(State(shared): SharedState, RawQuery(query): RawQuery) -> Response {
    shared.count("/healthz");
    let params = match HealthzParams::parse(&Query::parse(&query.unwrap_or_default())) {
        Ok(params) => params,
        Err(text) => return bad_request(text),
    };
    let facts = shared.source.facts();
    let faults = if facts.stores { faults(&shared).await } else { Some(Vec::new()) };
    let Some(faults) = faults else { return internal_error() };
    let health = healthz(&params, facts.readiness, &faults);
    let status = StatusCode::from_u16(health.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match go_json::compact(&health.body) {
        Ok(body) => document(status, JSON, body.into()),
        Err(_) => internal_error(),
    }
}

/// What is wrong with storage, asked on a thread that may wait for the shards.
async fn faults(shared: &Arc<Shared>) -> Option<Vec<String>> {
    let asking = Arc::clone(shared);
    let _question = shared.questions.acquire().await.ok()?;
    tokio::task::spawn_blocking(move || asking.source.faults()).await.ok()
}

impl Shared {
    fn count(&self, path: &'static str) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default() += 1;
    }

    fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A document.
pub(super) struct Made {
    pub(super) content_type: HeaderValue,
    pub(super) bytes: Vec<u8>,
}

/// Why there is no document.
pub(super) enum Unmade {
    /// What was asked for does not exist; with the text of the answer.
    NotFound(String),
    /// The server cannot make it now.
    Failed,
}

/// An indented JSON document.
pub(super) fn made<T: Serialize>(value: &T) -> Result<Made, Unmade> {
    let bytes = go_json::indented(value).map_err(|_| Unmade::Failed)?;
    Ok(Made { content_type: JSON, bytes })
}

/// Makes an answer on a thread that may wait for the shards.
pub(super) async fn from_shards(
    shared: Arc<Shared>,
    make: impl FnOnce(&Shared) -> Result<Made, Unmade> + Send + 'static,
) -> Response {
    let answers = Arc::clone(&shared.answers);
    let asking = Arc::clone(&shared);
    let Ok(_question) = shared.questions.acquire().await else {
        return internal_error();
    };
    let Made { content_type, bytes } = match tokio::task::spawn_blocking(move || make(&asking)).await {
        Ok(Ok(made)) => made,
        Ok(Err(Unmade::NotFound(text))) => return not_found(text),
        Ok(Err(Unmade::Failed)) | Err(_) => return internal_error(),
    };
    let kib = u32::try_from(bytes.len() >> 10).map_or(ANSWERS_KIB_MAX, |kib| kib.min(ANSWERS_KIB_MAX));
    match answers.acquire_many_owned(kib).await {
        Ok(share) => {
            let body = Bytes::from_owner(Answer { bytes, _share: share });
            document(StatusCode::OK, content_type, body)
        }
        Err(_) => internal_error(),
    }
}

fn document(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response {
    (status, [ALLOW_ALL, (header::CONTENT_TYPE, content_type)], body).into_response()
}

fn bad_request(text: String) -> Response {
    (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, TEXT)], text).into_response()
}

fn not_found(text: impl Into<Body>) -> Response {
    let headers = [(header::CONTENT_TYPE, TEXT), (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))];
    (StatusCode::NOT_FOUND, headers, text.into()).into_response()
}

fn internal_error() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, TEXT)], "the answer could not be made\n")
        .into_response()
}

/// The answer to a path that leads nowhere.
const NO_PAGE: &str = "404 page not found\n";

const ALLOW_ALL: (HeaderName, HeaderValue) = (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
