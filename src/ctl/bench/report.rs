//! What the comparison found: medians, verdicts, a Markdown table, JSON.
//!
//! Why both: the table is what a person reads and what the documentation shows; the JSON holds
//! every sample, so that a later run can be laid beside an earlier one.
//!
//! How data passes: `Samples` of each line -> `Figures` (medians) -> verdict -> text.
//!
//! Invariants:
//! * A figure that is missing is shown as `-`, never as zero.
//! * Failures are listed below the table with their cause.
//!
//! Deliberately not here: printing, measuring.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::ctl::bench::lines::{Figures, Line, Row, Target};
use crate::ctl::bench::server::Contender;
use crate::ctl::bench::stats::median;
use crate::ctl::bench::{BenchError, chain_text};

/// Where and how the figures were taken.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Processors this program may use.
    pub processors: usize,
    /// Median time of one durable write of 4 KiB in microseconds.
    pub flush_us: f64,
    /// Length of one run in seconds.
    pub seconds: u64,
    /// etcd's version line.
    pub etcd: String,
}

/// All rounds of one line.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    figures: BTreeMap<Contender, Vec<Vec<f64>>>,
    failures: BTreeMap<Contender, String>,
    /// The program has no measurement for this line.
    not_measured: bool,
}

impl Samples {
    /// One round of one contender: a figure for each row.
    pub fn add(&mut self, who: Contender, figures: Vec<f64>) {
        self.figures.entry(who).or_default().push(figures);
    }

    /// Notes that a contender could not be measured.
    pub fn fail(&mut self, who: Contender, error: &BenchError) {
        self.not_measured |= matches!(error, BenchError::NotMeasured);
        self.failures.insert(who, chain_text(error));
    }

    /// Whether a contender failed in this line before.
    #[must_use]
    pub fn failed(&self, who: Contender) -> bool {
        self.failures.contains_key(&who)
    }

    /// All samples of one row.
    fn of(&self, who: Contender, row: usize) -> Vec<f64> {
        let rounds = self.figures.get(&who).map(Vec::as_slice).unwrap_or_default();
        rounds.iter().filter_map(|figures| figures.get(row).copied()).collect()
    }

    /// A contender that failed in one round has no median: the rounds before it prove nothing.
    fn medians(&self, row: usize) -> Figures {
        let of = |who| if self.failed(who) { None } else { median(&self.of(who, row)) };
        Figures {
            althing: of(Contender::Althing),
            etcd: of(Contender::Etcd),
            null: of(Contender::Null),
        }
    }
}

/// A whole comparison.
pub struct Outcome {
    /// Where it was taken.
    pub machine: Machine,
    /// Runs that began although something else kept the processors busy: their figures are low.
    pub disturbed_runs: u32,
    /// The lines measured, in order.
    pub lines: Vec<(&'static Line, Samples)>,
}

impl Outcome {
    fn rows(&self) -> impl Iterator<Item = (&Row, &Samples, usize, &'static str)> {
        self.lines.iter().flat_map(|(line, samples)| {
            line.rows.iter().enumerate().map(move |(index, row)| {
                (row, samples, index, verdict(row, samples, &samples.medians(index)))
            })
        })
    }

    /// The table, with a line about the machine above and failures below.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let Machine { processors, flush_us, seconds, etcd } = &self.machine;
        let mut text = format!(
            "althing {} beside {etcd}; {processors} processors, one durable 4 KiB write \
             {flush_us:.0} us, runs of {seconds} s, medians over the rounds.\n\n\
             | line | target | althing | etcd | ratio | null server | verdict |\n\
             |---|---|---:|---:|---:|---:|---|\n",
            env!("CARGO_PKG_VERSION"),
        );
        for (row, samples, index, verdict) in self.rows() {
            let Figures { althing, etcd, null } = samples.medians(index);
            let ratio = ratio(althing, etcd).map_or("-".into(), |ratio| format!("{ratio:.2}x"));
            let show = |figure| format_figure(figure, row.unit);
            let (target, name) = (row.target.text(row.unit), row.name);
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "| {name} | {target} | {} | {} | {ratio} | {} | {verdict} |",
                show(althing),
                show(etcd),
                show(null),
            );
        }
        if self.disturbed_runs > 0 {
            let runs = self.disturbed_runs;
            let _ = write!(text, "\n* {runs} runs began on a busy machine: figures may be too low");
        }
        for ((who, why), lines) in self.failures() {
            let _ = write!(text, "\n* {}: {why} ({})", who.name(), lines.join("; "));
        }
        text.trim_end().to_owned() + "\n"
    }

    /// Who failed, why, and in which lines.
    fn failures(&self) -> BTreeMap<(Contender, &str), Vec<&str>> {
        let mut failures: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for (line, samples) in self.lines.iter().filter(|(_, samples)| !samples.not_measured) {
            for (who, why) in &samples.failures {
                failures.entry((*who, why.as_str())).or_default().push(line.name);
            }
        }
        failures
    }

    /// Everything, every sample included. Schema: `version` 1.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Machine { processors, flush_us, seconds, etcd } = &self.machine;
        let rows: Vec<Value> = self
            .rows()
            .map(|(row, samples, index, verdict)| {
                // `null` alone would be the word of JSON.
                let Figures { althing, etcd, null: ceiling } = samples.medians(index);
                let failures: BTreeMap<_, _> =
                    samples.failures.iter().map(|(who, why)| (who.name(), why)).collect();
                let all: BTreeMap<_, _> = Contender::ALL
                    .iter()
                    .map(|who| (who.name(), samples.of(*who, index)))
                    .collect();
                json!({
                    "line": row.name, "unit": row.unit, "target": row.target.text(row.unit),
                    "althing": althing, "etcd": etcd, "null": ceiling,
                    "ratio": ratio(althing, etcd), "verdict": verdict,
                    "samples": all, "failures": failures,
                })
            })
            .collect();
        json!({
            "version": 1, "althing": env!("CARGO_PKG_VERSION"), "etcd": etcd,
            "processors": processors, "flush_us": flush_us, "seconds": seconds,
            "disturbed_runs": self.disturbed_runs, "lines": rows,
        })
    }
}

fn verdict(row: &Row, samples: &Samples, figures: &Figures) -> &'static str {
    if samples.not_measured {
        return "not measured";
    }
    if samples.failed(Contender::Althing) {
        return "not serving";
    }
    match (row.target, row.target.met(figures)) {
        (Target::Information, _) => "-",
        (_, Some(true)) => "met",
        (_, Some(false)) => "missed",
        (_, None) => "unknown",
    }
}

fn ratio(althing: Option<f64>, etcd: Option<f64>) -> Option<f64> {
    althing.zip(etcd).filter(|(_, etcd)| *etcd > 0.0).map(|(althing, etcd)| althing / etcd)
}

/// A figure with its unit and as many digits as mean something.
fn format_figure(figure: Option<f64>, unit: &str) -> String {
    match figure {
        None => "-".into(),
        Some(figure) if unit == "/s" => format!("{figure:.0}{unit}"),
        Some(figure) if figure >= 10.0 => format!("{figure:.1} {unit}"),
        Some(figure) => format!("{figure:.3} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::bench::lines::LINES;

    #[test]
    fn the_table_shows_medians_verdicts_and_failures() {
        let find = |name: &str| LINES.iter().find(|line| line.name == name).unwrap();
        let mut put = Samples::default();
        for (althing, etcd) in [(9_000.0, 4_000.0), (7_000.0, 3_000.0), (8_000.0, 5_000.0)] {
            put.add(Contender::Althing, vec![althing, 0.2]);
            put.add(Contender::Etcd, vec![etcd, 0.25]);
            put.add(Contender::Null, vec![20_000.0, 0.05]);
        }
        let mut idle = Samples::default();
        idle.add(Contender::Etcd, vec![24.0, 50.0]);
        idle.fail(Contender::Althing, &BenchError::NotServing { why: "it ended".into() });
        let mut later = Samples::default();
        later.fail(Contender::Althing, &BenchError::NotMeasured);
        let outcome = Outcome {
            machine: Machine { processors: 2, flush_us: 82.4, seconds: 5, etcd: "etcd X".into() },
            disturbed_runs: 3,
            lines: vec![
                (find("PUT, 1 connection"), put),
                (find("idle memory"), idle),
                (find("leader killed"), later),
            ],
        };
        let table = outcome.to_markdown();
        let expected = "\
| durable v2 PUT, 1 connection | >= 1.7x etcd | 8000/s | 4000/s | 2.00x | 20000/s | met |
| PUT p50, 1 connection | <= 0.6x etcd | 0.200 ms | 0.250 ms | 0.80x | 0.050 ms | missed |
| idle memory, RssAnon | <= 20 MB | - | 24.0 MB | - | - | not serving |
| idle memory, RSS | - | - | 50.0 MB | - | - | not serving |
| leader killed to writes again, p99 | <= 2 s | - | - | - | - | not measured |

* 3 runs began on a busy machine: figures may be too low
* althing: not serving: it ended (idle memory)
";
        assert!(table.ends_with(expected), "{table}");
        let json = outcome.to_json();
        assert_eq!(json["lines"][0]["verdict"], "met");
        assert_eq!(json["lines"][0]["samples"]["etcd"], json!([4_000.0, 3_000.0, 5_000.0]));
    }
}
