//! `/` and `/streaming`: pages of links to what there is.
#![forbid(unsafe_code)]

use crate::version::VERSION;

/// Title and path of each endpoint.
const LINKS: &[Link] = &[("General", "varz"), ("Connections", "connz"), ("Health Probe", "healthz")];

/// The same, where NATS Streaming is switched on.
const LINK_TO_STREAMING: Link = ("NATS Streaming", "streaming");

/// The endpoints below that one.
const STREAMING_LINKS: &[Link] =
    &[("Server", "serverz"), ("Store", "storez"), ("Clients", "clientsz"), ("Channels", "channelsz")];

type Link = (&'static str, &'static str);

/// The page. `name` is the last part of its own path, from where its links lead on.
pub(super) fn page(name: &str, has_streaming: bool) -> String {
    let streaming = has_streaming.then_some(&LINK_TO_STREAMING);
    links(name, "leat", LINKS.iter().chain(streaming))
}

/// The page about NATS Streaming, whose path ends with the part `streaming`.
pub(super) fn streaming_page() -> String {
    links(LINK_TO_STREAMING.1, "leat: NATS Streaming", STREAMING_LINKS)
}

fn links<'a>(name: &str, title: &str, links: impl IntoIterator<Item = &'a Link>) -> String {
    let below = if name.is_empty() { String::new() } else { format!("{}/", escaped(name)) };
    let links: String = links
        .into_iter()
        .map(|(title, path)| {
            format!("    <a href=\"./{below}{path}\">{title}<span class=\"endpoint\"> /{path}</span></a><br/>\n")
        })
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n  <head><title>{title} {VERSION}</title></head>\n  \
         <body>\n    <h1>{title} {VERSION}</h1>\n{links}  </body>\n</html>\n"
    )
}

/// Text that stands in an attribute as it is.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::{page, streaming_page};

    #[test]
    fn links_are_relative() {
        assert!(page("", false).contains("<a href=\"./varz\">General<span"));
        assert!(page("", false).contains("<a href=\"./healthz\">"));
        assert!(page("nats", false).contains("<a href=\"./nats/varz\">General<span"));
        assert!(page("\">", false).contains("<a href=\"./&quot;>/varz\">"));
    }

    #[test]
    fn links_to_streaming_need_it() {
        assert!(!page("", false).contains("streaming"));
        assert!(page("nats", true).contains("<a href=\"./nats/streaming\">NATS Streaming<span"));
        assert!(streaming_page().contains("<a href=\"./streaming/serverz\">Server<span"));
    }
}
