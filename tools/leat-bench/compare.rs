//! Rounds of the same work: once per server in alternation, and what the pairs say together.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::drive::Target;
use crate::failure::Outcome;
use crate::figures::Run;
use crate::modes::Job;
use crate::progress::Progress;
use crate::stats::{Better, Spread, paired_ratios};

/// All rounds of one job; `b` is empty without a second server.
pub(crate) struct Rounds {
    /// Runs against the first server.
    pub(crate) a: Vec<Run>,
    /// Runs against the second server, pair by pair.
    pub(crate) b: Vec<Run>,
}

/// One figure over all rounds.
pub(crate) struct Compared {
    /// Its name in JSON.
    pub(crate) key: String,
    /// Its name in tables.
    pub(crate) name: String,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Which direction is better.
    pub(crate) better: Better,
    /// Over the runs against the first server.
    pub(crate) a: Spread,
    /// Over the runs against the second one.
    pub(crate) b: Option<Spread>,
    /// Of A/B, pair by pair.
    pub(crate) ratio: Option<Spread>,
}

impl Rounds {
    /// Does the job `rounds` times against each server: A B A B …
    pub(crate) fn run(
        job: &Job,
        a: &Target,
        b: Option<&Target>,
        rounds: usize,
        progress: &Progress,
        stage: &str,
    ) -> Outcome<Rounds> {
        let mut all = Rounds { a: Vec::new(), b: Vec::new() };
        for round in 0..rounds.max(1) {
            for (name, target, runs) in [("A", Some(a), &mut all.a), ("B", b, &mut all.b)] {
                let Some(target) = target else { continue };
                if b.is_some() || rounds > 1 {
                    progress.stage(&format!("{stage}{}/{rounds} {name}", round + 1));
                } else {
                    progress.stage(stage.trim_end());
                }
                runs.push(job.run(target, progress)?);
            }
        }
        Ok(all)
    }

    /// The figures that every run has, with medians and ratios.
    pub(crate) fn figures(&self) -> Vec<Compared> {
        let Some(first) = self.a.first() else {
            return Vec::new();
        };
        let values = |runs: &[Run], key: &str| -> Vec<f64> { runs.iter().filter_map(|run| run.value(key)).collect() };
        first
            .figures
            .iter()
            .filter_map(|figure| {
                let a = values(&self.a, &figure.key);
                let b = values(&self.b, &figure.key);
                let paired = a.len() == b.len();
                Some(Compared {
                    key: figure.key.clone(),
                    name: figure.name.clone(),
                    unit: figure.unit,
                    better: figure.better,
                    a: Spread::of(&a)?,
                    b: Spread::of(&b),
                    ratio: if paired { paired_ratios(&a, &b) } else { None },
                })
            })
            .collect()
    }

    /// Every run, in the order of the servers.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.a.iter().chain(&self.b)
    }

    /// Whether any run lost messages or worse.
    pub(crate) fn faulty(&self) -> bool {
        self.runs().any(|run| run.faulty)
    }

    /// The latencies of all runs against one server.
    pub(crate) fn latency(runs: &[Run]) -> Option<Histogram<u64>> {
        let mut parts = runs.iter().filter_map(|run| run.latency.as_ref());
        let mut sum = parts.next()?.clone();
        for part in parts {
            // All have the same bounds.
            let _ = sum.add(part);
        }
        Some(sum)
    }

    /// As part of the JSON document.
    pub(crate) fn as_json(&self) -> Value {
        let runs = |runs: &[Run]| runs.iter().map(Run::as_json).collect::<Vec<_>>();
        let summary: serde_json::Map<String, Value> = self
            .figures()
            .into_iter()
            .map(|figure| {
                let value = json!({
                    "unit": figure.unit, "better": figure.better, "a": figure.a, "b": figure.b, "ratio": figure.ratio,
                });
                (figure.key, value)
            })
            .collect();
        json!({
            "label": self.a.first().map(|run| run.label.as_str()),
            "summary": summary,
            "runs_a": runs(&self.a),
            "runs_b": runs(&self.b),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Figure;

    fn run(rate: f64) -> Run {
        Run {
            label: "x".into(),
            server: "s".into(),
            unit: "messages",
            figures: vec![Figure {
                key: "rate_per_s".into(),
                name: "rate".into(),
                unit: "/s",
                value: rate,
                better: Better::More,
            }],
            latency: None,
            verdict: None,
            notes: Vec::new(),
            faulty: false,
            parameters: Value::Null,
        }
    }

    #[test]
    fn ratios_come_from_pairs_and_medians_from_all() {
        let rounds = Rounds { a: vec![run(10.0), run(40.0), run(30.0)], b: vec![run(10.0), run(10.0), run(15.0)] };
        let figures = rounds.figures();
        assert_eq!(figures.len(), 1);
        assert_eq!(figures[0].a, Spread { min: 10.0, median: 30.0, max: 40.0 });
        assert_eq!(figures[0].b, Some(Spread { min: 10.0, median: 10.0, max: 15.0 }));
        assert_eq!(figures[0].ratio, Some(Spread { min: 1.0, median: 2.0, max: 4.0 }));
        assert!(!rounds.faulty());
    }

    #[test]
    fn one_server_has_no_ratio() {
        let rounds = Rounds { a: vec![run(10.0)], b: Vec::new() };
        assert!(rounds.figures()[0].b.is_none());
        assert!(rounds.figures()[0].ratio.is_none());
    }
}
