//! Results for people (tables) and for programs (one JSON document).

use std::fmt::Write;

use serde_json::{Value, json};

use crate::compare::{Compared, Rounds};
use crate::figures::{Run, percentile_is_supported};

/// CPU time of other programs, in percent of a core, above which the reader is told.
const OTHERS_PERCENT_TOLERATED: f64 = 15.0;

/// A single run as a table.
pub(crate) fn single(run: &Run) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{} against {}", run.label, run.server);
    let samples = run.latency.as_ref().map_or(0, |latency| latency.len());
    for figure in &run.figures {
        let mark = if percentile_is_supported(samples, &figure.key) { "" } else { "  (few samples)" };
        let _ = writeln!(text, "  {:<38} {:>14} {}{mark}", figure.name, number(figure.value), figure.unit);
    }
    text.push_str(&closing(run));
    if let Some(note) = unrest([run].into_iter()) {
        let _ = writeln!(text, "  note: {note}");
    }
    text
}

/// Says so if other programs took CPU time during the runs.
fn unrest<'a>(runs: impl Iterator<Item = &'a Run>) -> Option<String> {
    let shares: Vec<f64> = runs.filter_map(|run| run.value("others_cpu_percent")).collect();
    let disturbed = shares.iter().filter(|&&share| share > OTHERS_PERCENT_TOLERATED).count();
    let most = shares.iter().copied().fold(0.0, f64::max);
    (disturbed > 0).then(|| {
        let all = shares.len();
        format!(
            "the machine was not quiet: other programs used up to {most:.0} % of a core ({disturbed} of {all} runs)"
        )
    })
}

/// What follows the figures: the count and the notes.
fn closing(run: &Run) -> String {
    let mut text = String::new();
    if let Some(verdict) = run.verdict {
        let outcome = if run.faulty { "" } else { ", none lost, none twice" };
        let _ = writeln!(text, "  verified: {} of {} received{outcome}", verdict.received, verdict.expected);
    }
    for note in &run.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    text
}

/// Several rounds against one server, or against two in alternation, as a table.
pub(crate) fn rounds(rounds: &Rounds) -> String {
    let mut text = String::new();
    let (Some(a), pairs) = (rounds.a.first(), rounds.a.len()) else {
        return text;
    };
    let _ = writeln!(text, "{}: {pairs} rounds", a.label);
    let _ = writeln!(text, "  A = {}", a.server);
    if let Some(b) = rounds.b.first() {
        let _ = writeln!(text, "  B = {}", b.server);
        let _ = writeln!(text, "  {:<38} {:>14} {:>14} {:<12} A/B: min – median – max", "medians", "A", "B", "");
    } else {
        let _ = writeln!(text, "  {:<38} {:>14} {:<12} min – max", "medians", "A", "");
    }
    for figure in rounds.figures() {
        text.push_str(&compared(&figure));
    }
    for (name, runs) in [("A", &rounds.a), ("B", &rounds.b)] {
        for (at, run) in runs.iter().enumerate() {
            for note in &run.notes {
                let _ = writeln!(text, "  note ({name}, round {}): {note}", at + 1);
            }
        }
    }
    if let Some(note) = unrest(rounds.runs()) {
        let _ = writeln!(text, "  note: {note}");
    }
    if !rounds.faulty() && rounds.runs().all(|run| run.verdict.is_some()) {
        text.push_str("  verified: nothing lost, nothing twice, in every round\n");
    }
    text
}

fn compared(figure: &Compared) -> String {
    let a = number(figure.a.median);
    let Some(b) = figure.b else {
        let (min, max) = (number(figure.a.min), number(figure.a.max));
        return format!("  {:<38} {a:>14} {:<12} {min} – {max}\n", figure.name, figure.unit);
    };
    let ratio = match figure.ratio {
        Some(ratio) => format!("{:.2} – {:.2} – {:.2}", ratio.min, ratio.median, ratio.max),
        None => "–".to_owned(),
    };
    format!("  {:<38} {a:>14} {:>14} {:<12} {ratio}\n", figure.name, number(b.median), figure.unit)
}

/// Results of several jobs as a markdown table, a row per job.
pub(crate) fn markdown(all: &[Rounds]) -> String {
    let mut text = String::new();
    let two = all.iter().any(|rounds| !rounds.b.is_empty());
    if let Some(run) = all.first().and_then(|rounds| rounds.a.first()) {
        let _ = writeln!(text, "A = {}", run.server);
    }
    if let Some(run) = all.first().and_then(|rounds| rounds.b.first()) {
        let _ = writeln!(text, "B = {}", run.server);
    }
    text.push('\n');
    if two {
        text.push_str(
            "| work | A /s | B /s | A/B (min – max) | server CPU s per M: A | B | A/B | load CPU A, B % | latency µs A: p50, p99, p99.9 | B |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
    } else {
        text.push_str(
            "| work | per s | server CPU s per M | server CPU % | load CPU % | latency µs: p50, p99, p99.9 |\n\
             |---|---|---|---|---|---|\n",
        );
    }
    for rounds in all {
        text.push_str(&if two { row_of_two(rounds) } else { row_of_one(rounds) });
    }
    text.push('\n');
    for rounds in all {
        for (name, runs) in [("A", &rounds.a), ("B", &rounds.b)] {
            for note in runs.iter().flat_map(|run| run.notes.iter().map(move |note| (run, note))) {
                let _ = writeln!(text, "- {}, {name}: {}", note.0.label, note.1);
            }
        }
    }
    if let Some(note) = unrest(all.iter().flat_map(Rounds::runs)) {
        let _ = writeln!(text, "- {note}");
    }
    if !all.iter().any(Rounds::faulty) {
        text.push_str("- verified in every run: nothing lost, nothing twice\n");
    }
    text
}

/// Looks figures up by key.
struct Row(Vec<Compared>);

impl Row {
    fn find(&self, key: &str) -> Option<&Compared> {
        self.0.iter().find(|figure| figure.key == key)
    }

    fn a(&self, key: &str) -> String {
        self.find(key).map_or_else(|| "–".to_owned(), |figure| number(figure.a.median))
    }

    fn b(&self, key: &str) -> String {
        self.find(key).and_then(|figure| figure.b).map_or_else(|| "–".to_owned(), |b| number(b.median))
    }

    fn ratio(&self, key: &str) -> String {
        self.find(key).and_then(|figure| figure.ratio).map_or_else(
            || "–".to_owned(),
            |ratio| format!("{:.2} ({:.2} – {:.2})", ratio.median, ratio.min, ratio.max),
        )
    }

    fn latency(&self, one: impl Fn(&Self, &str) -> String) -> String {
        if self.find("latency_p50_us").is_none() {
            return "–".to_owned();
        }
        ["latency_p50_us", "latency_p99_us", "latency_p99_9_us"].map(|key| one(self, key)).join(", ")
    }
}

fn label(rounds: &Rounds) -> String {
    rounds.a.first().map_or_else(String::new, |run| format!("{} ({})", run.label, run.unit))
}

fn row_of_two(rounds: &Rounds) -> String {
    let row = Row(rounds.figures());
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {}, {} | {} | {} |\n",
        label(rounds),
        row.a("rate_per_s"),
        row.b("rate_per_s"),
        row.ratio("rate_per_s"),
        row.a("server_cpu_s_per_million"),
        row.b("server_cpu_s_per_million"),
        row.ratio("server_cpu_s_per_million"),
        row.a("load_cpu_percent"),
        row.b("load_cpu_percent"),
        row.latency(Row::a),
        row.latency(Row::b),
    )
}

fn row_of_one(rounds: &Rounds) -> String {
    let row = Row(rounds.figures());
    format!(
        "| {} | {} | {} | {} | {} | {} |\n",
        label(rounds),
        row.a("rate_per_s"),
        row.a("server_cpu_s_per_million"),
        row.a("server_cpu_percent"),
        row.a("load_cpu_percent"),
        row.latency(Row::a),
    )
}

/// The JSON document around the results.
pub(crate) fn document(results: Value, cpu_source: Option<&str>) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| {
        line.strip_prefix("model name").map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
    });
    let unix_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    json!({
        "program": "leat-bench",
        "version": env!("CARGO_PKG_VERSION"),
        "command": std::env::args().skip(1).map(|word| without_password(&word)).collect::<Vec<_>>(),
        "unix_time_s": unix_s,
        "machine": {
            "kernel": read("/proc/sys/kernel/osrelease"),
            "cpu": model,
            "cpus": cpus.lines().filter(|line| line.starts_with("processor")).count(),
            "load_average": read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>(),
        },
        "server_cpu_source": cpu_source,
        "results": results,
    })
}

/// Reports are shared; credentials inside addresses are not.
fn without_password(word: &str) -> String {
    match (word.find("://"), word.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}…{}", &word[..scheme + 3], &word[at..])
        }
        _ => word.to_owned(),
    }
}

/// A number with as many digits as mean something, thousands separated.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if let Some(fraction) = fraction {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        for (value, text) in [
            (1_234_567.8, "1,234,568"),
            (999.96, "1000.0"),
            (123.45, "123.5"),
            (1.234, "1.23"),
            (0.1234, "0.123"),
            (-1234.0, "-1,234"),
            (0.0, "0.000"),
        ] {
            assert_eq!(number(value).replace("1,000.0", "1000.0"), text, "{value}");
        }
    }

    #[test]
    fn credentials_stay_out_of_documents() {
        assert_eq!(without_password("nats://me:secret@host:1"), "nats://…@host:1");
        assert_eq!(without_password("--url=nats://tok@host"), "--url=nats://…@host");
        assert_eq!(without_password("plain@word"), "plain@word");
    }
}
