//! The lines of the comparison: what is measured, how, and what it should be.
//!
//! Why a table: a target, its text and its verdict come from one value, so they cannot differ;
//! and a new line is one more entry.
//!
//! How data passes: `compare` calls `Line::measure` for each contender and round; it returns one
//! figure for each of the line's rows. A `Row` judges the medians.
//!
//! Invariants:
//! * A measurement returns exactly as many figures as its line has rows.
//! * Latencies and rates of one row come from the same run.
//!
//! Deliberately not here: rounds, medians, output.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::ctl::bench::BenchError;
use crate::ctl::bench::compare::{Fixture, Stage};
use crate::ctl::bench::http::{Connection, HttpError};
use crate::ctl::bench::load::{Kind, Report, Until};
use crate::ctl::bench::server::{Contender, Memory};

/// Distinct keys of the PUT and GET lines.
pub const BUSY_KEYS: u64 = 10_000;
/// Length of their values: what the figures of etcd in the targets were taken with.
pub const BUSY_VALUE_BYTES: usize = 256;
/// Keys of the memory and restart lines, each with `LOADED_VALUE_BYTES`.
const MANY_KEYS: u64 = 100_000;
/// Keys of the large memory and restart lines.
const VERY_MANY_KEYS: u64 = 1_100_000;
/// Length of the values of the memory and restart lines.
pub const LOADED_VALUE_BYTES: usize = 100;
/// Length of the values of the large lines ("small keys").
pub const SMALL_VALUE_BYTES: usize = 16;
/// Time after which an idle or freshly loaded server's memory is read.
const SETTLE: Duration = Duration::from_secs(5);
/// Long polls that wait for one change.
const POLLS: usize = 1_000;
/// Time all polls have for each step.
const POLL_PATIENCE: Duration = Duration::from_secs(30);

/// One measurement, which fills one row of the table or more.
#[derive(Clone, Copy)]
pub struct Line {
    /// What its progress is shown as.
    pub name: &'static str,
    /// Measured in each round, or in the first one only.
    pub every_round: bool,
    /// Too long for each day: only with `--large`.
    pub large: bool,
    /// The null server can be measured too.
    pub null: bool,
    /// Measures one contender: one figure a row.
    pub measure: fn(&mut Stage, Contender) -> Result<Vec<f64>, BenchError>,
    /// The rows it fills.
    pub rows: &'static [Row],
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What the figure is.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What it should be.
    pub target: Target,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At least so many times etcd's, or so large a share of the null server's, whichever is
    /// lower.
    AtLeast {
        /// Times etcd's figure.
        times_etcd: f64,
        /// Share of the null server's figure that is enough too.
        share_of_null: Option<f64>,
    },
    /// At most so many times etcd's.
    AtMostTimes(f64),
    /// At most so much, in the row's unit.
    AtMost(f64),
    /// No target: for information.
    Information,
}

/// The medians a verdict is given on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// This program's.
    pub althing: Option<f64>,
    /// etcd's.
    pub etcd: Option<f64>,
    /// The null server's.
    pub null: Option<f64>,
}

impl Target {
    /// The target in words.
    #[must_use]
    pub fn text(&self, unit: &str) -> String {
        match *self {
            Self::AtLeast { times_etcd, share_of_null: None } => format!(">= {times_etcd}x etcd"),
            Self::AtLeast { times_etcd, share_of_null: Some(share) } => {
                format!(">= {times_etcd}x etcd or {:.0} % of null", share * 100.0)
            }
            Self::AtMostTimes(times) => format!("<= {times}x etcd"),
            Self::AtMost(most) => format!("<= {most} {unit}"),
            Self::Information => "-".into(),
        }
    }

    /// Whether it is met; `None` without a target, or if a figure it needs is missing.
    #[must_use]
    pub fn met(&self, figures: &Figures) -> Option<bool> {
        let althing = figures.althing?;
        match *self {
            Self::AtLeast { times_etcd, share_of_null } => {
                let beside_etcd = figures.etcd.map(|etcd| althing >= times_etcd * etcd);
                let beside_null =
                    figures.null.zip(share_of_null).map(|(null, share)| althing >= share * null);
                match (beside_etcd, beside_null) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (etcd, _) => etcd,
                }
            }
            Self::AtMostTimes(times) => figures.etcd.map(|etcd| althing <= times * etcd),
            Self::AtMost(most) => Some(althing <= most),
            Self::Information => None,
        }
    }
}

const fn row(name: &'static str, unit: &'static str, target: Target) -> Row {
    Row { name, unit, target }
}

const fn at_least(times_etcd: f64) -> Target {
    Target::AtLeast { times_etcd, share_of_null: None }
}

const fn at_least_or(times_etcd: f64, share: f64) -> Target {
    Target::AtLeast { times_etcd, share_of_null: Some(share) }
}

/// A line measured in each round, on each day, for each contender.
const USUAL: Line =
    Line { name: "", every_round: true, large: false, null: true, measure: later_line, rows: &[] };

/// All lines, in the order of the table.
pub const LINES: &[Line] = &[
    Line {
        name: "PUT, 1 connection",
        measure: |stage, who| Ok(rate_and(&put(stage, who, 1)?, |report| report.p50_us)),
        rows: &[
            row("durable v2 PUT, 1 connection", "/s", at_least(1.7)),
            row("PUT p50, 1 connection", "ms", Target::AtMostTimes(0.6)),
        ],
        ..USUAL
    },
    Line {
        name: "PUT, 16 connections",
        measure: |stage, who| Ok(rate_and(&put(stage, who, 16)?, |report| report.p99_us)),
        rows: &[
            row("durable v2 PUT, 16 connections", "/s", at_least(2.0)),
            row("PUT p99, 16 connections", "ms", Target::Information),
        ],
        ..USUAL
    },
    Line {
        name: "PUT, 64 connections",
        measure: |stage, who| Ok(rate_and(&put(stage, who, 64)?, |report| report.p99_us)),
        rows: &[
            row("durable v2 PUT, 64 connections", "/s", at_least_or(2.0, 0.7)),
            row("PUT p99, 64 connections", "ms", Target::AtMostTimes(0.5)),
        ],
        ..USUAL
    },
    Line {
        name: "quorum GET, 64 connections",
        measure: |stage, who| {
            Ok(rate_and(&get(stage, who, Kind::QuorumGet { keys: BUSY_KEYS })?, |r| r.p99_us))
        },
        rows: &[
            row("linearizable v2 GET, 64 connections", "/s", at_least_or(2.0, 0.85)),
            row("linearizable GET p99, 64 connections", "ms", Target::Information),
        ],
        ..USUAL
    },
    Line {
        name: "local GET, 64 connections",
        measure: |stage, who| {
            Ok(rate_and(&get(stage, who, Kind::LocalGet { keys: BUSY_KEYS })?, |r| r.p99_us))
        },
        rows: &[
            row("local v2 GET, 64 connections", "/s", Target::Information),
            row("local GET p99, 64 connections", "ms", Target::Information),
        ],
        ..USUAL
    },
    Line {
        name: "1,000 long polls",
        null: false,
        measure: long_polls,
        rows: &[
            row("1,000 v2 long polls, one PUT: p99 of the polls", "ms", Target::AtMost(100.0)),
            row("1,000 v2 long polls, one PUT: the PUT", "ms", Target::AtMost(10.0)),
        ],
        ..USUAL
    },
    Line {
        name: "sustained PUT, 64 connections",
        every_round: false,
        measure: sustained_put,
        rows: &[
            row("sustained v2 PUT, 64 connections", "/s", at_least_or(2.0, 0.7)),
            row("sustained PUT p99, 64 connections", "ms", Target::AtMostTimes(0.5)),
        ],
        ..USUAL
    },
    Line {
        name: "idle memory",
        every_round: false,
        null: false,
        measure: |stage, who| settled_memory(stage, who, Fixture::Idle),
        rows: &[
            row("idle memory, RssAnon", "MB", Target::AtMost(20.0)),
            row("idle memory, RSS", "MB", Target::Information),
        ],
        ..USUAL
    },
    Line {
        name: "memory, 100 k keys",
        every_round: false,
        null: false,
        measure: |stage, who| loaded_memory(stage, who, Fixture::Loaded(MANY_KEYS)),
        rows: &[
            row("100 k keys of 100 bytes, RssAnon", "MB", Target::AtMost(50.0)),
            row("100 k keys of 100 bytes, RSS", "MB", Target::Information),
            row("100 k keys after a restart, RssAnon", "MB", Target::Information),
        ],
        ..USUAL
    },
    Line {
        name: "restarts, 100 k keys",
        null: false,
        measure: |stage, who| restarts(stage, who, Fixture::Loaded(MANY_KEYS)),
        rows: &[
            row("clean restart to serving, 100 k keys", "s", Target::AtMost(0.15)),
            row("restart after kill -9, 100 k keys", "s", Target::AtMost(0.5)),
        ],
        ..USUAL
    },
    Line {
        name: "memory, 1.1 M keys",
        every_round: false,
        large: true,
        null: false,
        measure: |stage, who| loaded_memory(stage, who, Fixture::Loaded(VERY_MANY_KEYS)),
        rows: &[
            row("1.1 M small keys, RssAnon", "MB", Target::AtMost(150.0)),
            row("1.1 M small keys, RSS", "MB", Target::Information),
            row("1.1 M small keys after a restart, RssAnon", "MB", Target::Information),
        ],
    },
    Line {
        name: "restarts, 1.1 M keys",
        every_round: false,
        large: true,
        null: false,
        measure: |stage, who| restarts(stage, who, Fixture::Loaded(VERY_MANY_KEYS)),
        rows: &[
            row("clean restart to serving, 1.1 M keys", "s", Target::AtMost(0.5)),
            row("restart after kill -9, 1.1 M keys", "s", Target::AtMost(0.5)),
        ],
    },
    Line {
        name: "size of the program",
        every_round: false,
        null: false,
        measure: program_size,
        rows: &[row("program file (targets: profile `dist`)", "MB", Target::AtMost(12.0))],
        ..USUAL
    },
    Line {
        name: "v3 over gRPC",
        every_round: false,
        null: false,
        rows: &[
            row("v3 gRPC put, 64 clients", "/s", at_least(2.5)),
            row("v3 gRPC linearizable range, 64 clients", "/s", at_least(3.0)),
        ],
        ..USUAL
    },
    Line {
        name: "file latency",
        null: false,
        measure: |stage, who| {
            let run_time = stage.run_time();
            stage.quiet_changes(who)?.measure(run_time)
        },
        rows: &[
            row("PUT to file replaced, 20 templates, p50", "ms", Target::AtMost(2.0)),
            row("PUT to file replaced, 20 templates, p99", "ms", Target::AtMost(6.0)),
        ],
        ..USUAL
    },
    Line {
        name: "idle memory, 20 templates",
        every_round: false,
        null: false,
        measure: |stage, who| settled_memory(stage, who, Fixture::Files),
        rows: &[
            row("idle memory with 20 templates, RssAnon", "MB", Target::AtMost(20.0)),
            row("idle memory with 20 templates, RSS", "MB", Target::Information),
        ],
        ..USUAL
    },
    Line {
        name: "leader killed",
        every_round: false,
        null: false,
        rows: &[row("leader killed to writes again, p99", "s", Target::AtMost(2.0))],
        ..USUAL
    },
];

/// The measurement of lines that this program cannot take yet: they are in the table so that
/// nobody forgets them.
fn later_line(_: &mut Stage, _: Contender) -> Result<Vec<f64>, BenchError> {
    Err(BenchError::NotMeasured)
}

/// Rate in operations a second, and a latency in milliseconds.
fn rate_and(report: &Report, latency_us: fn(&Report) -> f64) -> Vec<f64> {
    vec![report.per_second, latency_us(report) / 1_000.0]
}

fn put(stage: &mut Stage, who: Contender, connections: usize) -> Result<Report, BenchError> {
    let until = Until::Elapsed(stage.run_time());
    let kind = Kind::Put { keys: BUSY_KEYS, value_bytes: BUSY_VALUE_BYTES };
    stage.load(who, Fixture::Busy, connections, until, kind)
}

fn get(stage: &mut Stage, who: Contender, kind: Kind) -> Result<Report, BenchError> {
    let until = Until::Elapsed(stage.run_time());
    stage.load(who, Fixture::Busy, 64, until, kind)
}

fn sustained_put(stage: &mut Stage, who: Contender) -> Result<Vec<f64>, BenchError> {
    let until = Until::Elapsed(stage.sustained_time());
    let kind = Kind::Put { keys: BUSY_KEYS, value_bytes: BUSY_VALUE_BYTES };
    let report = stage.load(who, Fixture::Busy, 64, until, kind)?;
    Ok(rate_and(&report, |report| report.p99_us))
}

fn settled_memory(
    stage: &mut Stage,
    who: Contender,
    fixture: Fixture,
) -> Result<Vec<f64>, BenchError> {
    stage.server(who, fixture)?;
    stage.pause(SETTLE)?;
    let Memory { anonymous, resident } = stage.server(who, fixture)?.memory()?;
    Ok(vec![megabytes(anonymous), megabytes(resident)])
}

/// Memory after the load, which holds the load's garbage too, and after a clean restart, which
/// does not: the two ends between which a server lives.
fn loaded_memory(
    stage: &mut Stage,
    who: Contender,
    fixture: Fixture,
) -> Result<Vec<f64>, BenchError> {
    let mut figures = settled_memory(stage, who, fixture)?;
    stage.restart(who, fixture, true)?;
    figures.extend(settled_memory(stage, who, fixture)?.first());
    Ok(figures)
}

fn restarts(stage: &mut Stage, who: Contender, fixture: Fixture) -> Result<Vec<f64>, BenchError> {
    let clean = stage.restart(who, fixture, true)?;
    let after_kill = stage.restart(who, fixture, false)?;
    Ok(vec![clean.as_secs_f64(), after_kill.as_secs_f64()])
}

fn program_size(stage: &mut Stage, who: Contender) -> Result<Vec<f64>, BenchError> {
    Ok(vec![megabytes(stage.program_bytes(who)?)])
}

#[expect(clippy::cast_precision_loss, reason = "sizes of processes and programs stay below 2^53")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Many v2 long polls below one directory, then one PUT there: the 99th percentile of the polls'
/// answers, counted from the PUT, and the PUT's own latency; both in milliseconds.
fn long_polls(stage: &mut Stage, who: Contender) -> Result<Vec<f64>, BenchError> {
    let target = stage.quiet(who, Fixture::Busy)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::Runtime)?;
    let polled = runtime.block_on(async {
        let steps = poll_and_put(target);
        tokio::time::timeout(POLL_PATIENCE, steps).await
    });
    match polled {
        Ok(figures) => Ok(figures.map_err(BenchError::Http)?),
        Err(_) => Err(BenchError::Stalled { what: "answer 1,000 long polls" }),
    }
}

async fn poll_and_put(target: std::net::SocketAddr) -> Result<Vec<f64>, HttpError> {
    let poll = format!(
        "GET /v2/keys/bench-polls?wait=true&recursive=true HTTP/1.1\r\nHost: {target}\r\n\r\n"
    );
    let put = format!(
        "PUT /v2/keys/bench-polls/a HTTP/1.1\r\nHost: {target}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nvalue=x"
    );
    // A head answers each poll at once, so a poll whose head is here is a poll that waits.
    let mut waiting = Vec::with_capacity(POLLS);
    for _ in 0..POLLS {
        let mut connection = Connection::open(target).await?;
        connection.send(poll.as_bytes()).await?;
        if connection.receive_head().await?.is_some() {
            return Err(HttpError::Malformed("a long poll was answered before any change"));
        }
        waiting.push(connection);
    }
    let mut answers = JoinSet::new();
    for mut connection in waiting {
        answers.spawn(async move {
            connection.receive().await?;
            Ok::<_, HttpError>(Instant::now())
        });
    }
    let mut writer = Connection::open(target).await?;
    tokio::task::yield_now().await;
    let begun = Instant::now();
    writer.send(put.as_bytes()).await?;
    let (status, _) = writer.receive().await?;
    let put_ms = begun.elapsed().as_secs_f64() * 1e3;
    if !(200..300).contains(&status) {
        return Err(HttpError::Malformed("the PUT below the polls was refused"));
    }
    let mut took = Vec::with_capacity(POLLS);
    while let Some(answer) = answers.join_next().await {
        if let Ok(at) = answer {
            took.push(at?.saturating_duration_since(begun).as_secs_f64() * 1e3);
        }
    }
    took.sort_by(f64::total_cmp);
    let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    Ok(vec![p99, put_ms])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let figures = |althing, etcd, null| Figures { althing, etcd, null };
        let ladder = at_least_or(2.0, 0.7);
        let cases = [
            (ladder, figures(Some(40.0), Some(20.0), Some(60.0)), Some(true)),
            (ladder, figures(Some(39.0), Some(20.0), Some(50.0)), Some(true)),
            (ladder, figures(Some(39.0), Some(20.0), Some(60.0)), Some(false)),
            (ladder, figures(None, Some(20.0), Some(60.0)), None),
            (ladder, figures(Some(40.0), None, Some(60.0)), None),
            (at_least(1.7), figures(Some(16.0), Some(10.0), None), Some(false)),
            (Target::AtMostTimes(0.5), figures(Some(1.0), Some(2.0), None), Some(true)),
            (Target::AtMost(20.0), figures(Some(20.5), None, None), Some(false)),
            (Target::Information, figures(Some(1.0), Some(1.0), Some(1.0)), None),
        ];
        for (target, figures, met) in cases {
            assert_eq!(target.met(&figures), met, "{target:?} {figures:?}");
        }
        assert_eq!(ladder.text("/s"), ">= 2x etcd or 70 % of null");
        assert_eq!(Target::AtMost(0.15).text("s"), "<= 0.15 s");
    }
}
