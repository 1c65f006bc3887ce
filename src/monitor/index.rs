//! `/`: a page of links to what there is.
#![forbid(unsafe_code)]

use crate::version::VERSION;

/// Title and path of each endpoint.
const LINKS: &[(&str, &str)] = &[("General", "varz"), ("Connections", "connz"), ("Health Probe", "healthz")];

/// The page. `name` is the last part of its own path, from where its links lead on.
pub(super) fn page(name: &str) -> String {
    let below = if name.is_empty() { String::new() } else { format!("{}/", escaped(name)) };
    let links: String = LINKS
        .iter()
        .map(|(title, path)| {
            format!("    <a href=\"./{below}{path}\">{title}<span class=\"endpoint\"> /{path}</span></a><br/>\n")
        })
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n  <head><title>leat {VERSION}</title></head>\n  \
         <body>\n    <h1>leat {VERSION}</h1>\n{links}  </body>\n</html>\n"
    )
}

/// Text that stands in an attribute as it is.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn links_are_relative() {
        assert!(page("").contains("<a href=\"./varz\">General<span"));
        assert!(page("").contains("<a href=\"./healthz\">"));
        assert!(page("nats").contains("<a href=\"./nats/varz\">General<span"));
        assert!(page("\">").contains("<a href=\"./&quot;>/varz\">"));
    }
}
