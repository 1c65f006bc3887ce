//! A commented sample of the configuration file, written from the tables of keys.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::schema::{Reload, Row, Status};
use super::server::SECTIONS;

const HEAD: &str = "\
# Configuration of leat. Every key is shown with its default, or with an example where there is none; remove the \"#\"
# in front of a key to set it. The notation is that of nats-server: key: value, key = value, sizes such as 64KB or 8MB,
# durations such as \"2s\" or \"1m\" in quotes, $variables, include \"other.conf\".
# Keys that can be changed while the server runs are marked as reloadable; a reload that changes another one is refused.
";

/// The text of the sample.
#[must_use]
pub fn sample() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## {}\n", section.title);
        for row in section.rows() {
            write_row(&mut text, &row, 0);
        }
    }
    text
}

fn write_row(text: &mut String, row: &Row, depth: usize) {
    let indent = "  ".repeat(depth);
    let [name, aliases @ ..] = row.names else {
        return;
    };
    let mut remarks = vec![row.what.to_owned()];
    if !aliases.is_empty() {
        remarks.push(format!("also {}", aliases.join(", ")));
    }
    if row.reload == Reload::Live {
        remarks.push("reloadable".to_owned());
    }
    match row.status {
        Status::Works => {}
        Status::NoEffect => remarks.push("no effect in this version".to_owned()),
        Status::Unavailable(feature) => remarks.push(format!("{feature} is not available in this version")),
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n{indent}# {} ({}).", row.help, remarks.join("; "));
    if !row.is_block || row.inner.is_empty() {
        let default = if row.default.is_empty() { "{}" } else { row.default };
        let _ = writeln!(text, "{indent}#{name}: {default}");
        for inner in &row.inner {
            let _ = writeln!(text, "{indent}#   {}: {} ({})", inner.names.join(", "), inner.help, inner.what);
        }
        return;
    }
    let _ = writeln!(text, "{indent}#{name}: {{");
    for inner in &row.inner {
        write_row(text, inner, depth + 1);
    }
    let _ = writeln!(text, "{indent}#}}");
}
