//! Figures and their statistics: medians, ratios with spread, percentiles, and the histogram's text form.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The percentiles of every latency report.
pub(crate) const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// Which direction is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// Rates.
    More,
    /// Costs and latencies.
    Less,
    /// Says how the run went; not compared as better or worse.
    Neither,
}

/// One measured number.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// Stable name in JSON.
    pub(crate) key: String,
    /// Name in tables.
    pub(crate) name: String,
    /// Unit in tables.
    pub(crate) unit: &'static str,
    /// The number.
    pub(crate) value: f64,
    /// Which direction is better.
    pub(crate) better: Better,
}

/// Three numbers that stand for several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// Smallest.
    pub(crate) min: f64,
    /// Middle.
    pub(crate) median: f64,
    /// Largest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value; values that are no numbers are left out.
    pub(crate) fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Spread { min: first, median, max: last })
    }
}

/// The ratios a/b of values measured in pairs.
pub(crate) fn paired_ratios(a: &[f64], b: &[f64]) -> Option<Spread> {
    let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    Spread::of(&ratios)
}

/// Adds the figures of a histogram of nanoseconds, in microseconds.
pub(crate) fn latency_figures(histogram: &Histogram<u64>, key: &str, name: &str, figures: &mut Vec<Figure>) {
    let micros = |ns: u64| ns as f64 / 1e3;
    let mut push = |suffix: &str, value: f64| {
        figures.push(Figure {
            key: format!("{key}_{}_us", suffix.replace('.', "_")),
            name: format!("{name} {suffix}"),
            unit: "µs",
            value,
            better: if key == "latency" { Better::Less } else { Better::Neither },
        });
    };
    for (suffix, percentile) in PERCENTILES {
        push(suffix, micros(histogram.value_at_percentile(percentile)));
    }
    push("max", micros(histogram.max()));
}

/// The percentile distribution of nanoseconds as the HdrHistogram plotter reads it, in microseconds.
pub(crate) fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut total = 0;
    for step in histogram.iter_quantiles(5) {
        let value = step.value_iterated_to() as f64 / 1e3;
        let quantile = step.quantile_iterated_to();
        total += step.count_since_last_iteration();
        // Writing to a String cannot fail.
        let _ = if quantile < 1.0 {
            writeln!(text, "{value:12.3} {quantile:2.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(text, "{value:12.3} {quantile:2.12} {total:10}")
        };
    }
    let mean = if histogram.is_empty() { 0.0 } else { histogram.mean() / 1e3 };
    format!(
        "{text}#[Mean    = {mean:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        histogram.stdev() / 1e3,
        histogram.max() as f64 / 1e3,
        histogram.len(),
        histogram.buckets(),
        2048,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[f64::NAN]), None);
        let odd = Spread::of(&[3.0, 1.0, 2.0]);
        assert_eq!(odd, Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        let even = Spread::of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!(even, Some(Spread { min: 1.0, median: 2.5, max: 4.0 }));
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let spread = paired_ratios(&[2.0, 30.0, 4.0], &[1.0, 10.0, 4.0]);
        assert_eq!(spread, Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(paired_ratios(&[1.0], &[0.0]), None);
    }

    #[test]
    fn the_distribution_text() {
        let mut histogram = crate::roles::latency_histogram();
        for value in 1..=1000 {
            histogram.record(value * 1000).expect("in range");
        }
        let text = hgrm(&histogram);
        let rows: Vec<&str> = text.lines().skip(2).filter(|line| !line.starts_with('#')).collect();
        let last: Vec<&str> = rows[rows.len() - 1].split_whitespace().collect();
        assert_eq!(last[1..], ["1.000000000000", "1000"]);
        assert!(text.contains("Total count    =         1000]"));
        let mut figures = Vec::new();
        latency_figures(&histogram, "latency", "latency", &mut figures);
        assert_eq!(figures.len(), 6);
        assert!((figures[0].value - 500.0).abs() < 1.0);
    }
}
