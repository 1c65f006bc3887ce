//! `/`: a page of links to what there is.
#![forbid(unsafe_code)]

use crate::version::VERSION;

/// Title and path of each endpoint.
const LINKS: &[(&str, &str)] = &[("General", "varz"), ("Connections", "connz"), ("Health Probe", "healthz")];

/// The page.
pub(super) fn page() -> String {
    let links: String = LINKS
        .iter()
        .map(|(title, path)| format!("    <a href=./{path}>{title}<span class=\"endpoint\"> /{path}</span></a><br/>\n"))
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n  <head><title>leat {VERSION}</title></head>\n  \
         <body>\n    <h1>leat {VERSION}</h1>\n{links}  </body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn links_are_relative() {
        assert!(page().contains("<a href=./varz>General<span"));
        assert!(page().contains("<a href=./healthz>"));
    }
}
