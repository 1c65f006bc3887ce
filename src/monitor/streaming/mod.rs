//! `/streaming`: the pages about NATS Streaming as nats-streaming-server answers them. Without the service there are
//! none.
#![forbid(unsafe_code)]

mod documents;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use super::http::{Made, Shared, SharedState, Unmade, from_shards, made};
use super::process::Descriptors;
use super::query::Query;
use super::{ServiceWant, Want, index};
use documents::{ListParams, Service};

const WANT: Want =
    Want { open: false, closed: false, subscriptions: false, cid: None, service: ServiceWant { streaming: true } };

const JAVASCRIPT: HeaderValue = HeaderValue::from_static("application/javascript");

/// Adds the pages to a router. `at` makes the route of a path.
pub(super) fn routes(router: Router<Arc<Shared>>, at: impl Fn(&str) -> String) -> Router<Arc<Shared>> {
    router
        .route(&at("/streaming"), any(get_index))
        .route(&at("/streaming/serverz"), any(get_serverz))
        .route(&at("/streaming/storez"), any(get_storez))
        .route(&at("/streaming/clientsz"), any(get_clientsz))
        .route(&at("/streaming/channelsz"), any(get_channelsz))
        .route(&at("/streaming/isFTActive"), any(async || is_ft_active()))
}

async fn get_index() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], index::streaming_page()).into_response()
}

async fn get_serverz(shared: SharedState, query: RawQuery) -> Response {
    document(shared, query, |service, _| made(&service.serverz(&Descriptors::of_this_process()))).await
}

async fn get_storez(shared: SharedState, query: RawQuery) -> Response {
    document(shared, query, |service, _| made(&service.storez())).await
}

async fn get_clientsz(shared: SharedState, query: RawQuery) -> Response {
    document(shared, query, |service, query| {
        let params = ListParams::parse(query);
        match query.get("client") {
            "" => made(&service.clientsz(&params)),
            id => match service.client(id, params.subscriptions) {
                Some(client) => made(&client),
                None => Err(Unmade::NotFound(format!("Client {id} not found\n"))),
            },
        }
    })
    .await
}

async fn get_channelsz(shared: SharedState, query: RawQuery) -> Response {
    document(shared, query, |service, query| {
        let params = ListParams::parse(query);
        match query.get("channel") {
            "" => made(&service.channelsz(&params)),
            name => match service.channel(name, params.subscriptions) {
                Some(channel) => made(&channel),
                None => Err(Unmade::NotFound(format!("Channel {name} not found\n"))),
            },
        }
    })
    .await
}

/// Whether this server is the active one of a group. It is in none, and serves alone.
fn is_ft_active() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// Makes a document of what all shards say; a call of the function `callback` around it if there is that parameter.
async fn document(
    State(shared): SharedState,
    RawQuery(query): RawQuery,
    make: impl FnOnce(&Service<'_>, &Query) -> Result<Made, Unmade> + Send + 'static,
) -> Response {
    let query = Query::parse(&query.unwrap_or_default());
    from_shards(shared, move |shared| {
        let facts = shared.source.facts();
        let shards = shared.source.shards(WANT);
        let service = Service::new(&facts, &shards, SystemTime::now()).ok_or(Unmade::Failed)?;
        let document = make(&service, &query)?;
        Ok(match query.get("callback") {
            "" => document,
            function => {
                let bytes = [function.as_bytes(), b"(", &document.bytes, b")"].concat();
                Made { content_type: JAVASCRIPT, bytes }
            }
        })
    })
    .await
}
