//! `/metrics`: the member's numbers in Prometheus' text format.
//!
//! Names are etcd's where a dashboard or alert for etcd reads them and the number means the same
//! here; what is ours alone begins with `althing_`. Nothing is kept for this page: a scrape copies
//! the counters of the node, the doors, the renderer and the kernel, and writes them down.
//!
//! Invariants:
//! * No label or value comes from a key, a value or a request: nothing leaks, and the page stays
//!   small. The one label that is free text is the name of a template resource.
//! * The format is the older one, 0.0.4, which every scraper reads: a counter's type is declared
//!   under the name of its samples.
//!
//! Deliberately not here: counting (`traffic`, `node::Figures`), and a histogram of request
//! times, which would cost every request two looks at the clock.
//!
//! Sources: etcd's `etcdserver/metrics.go`, `v2store/metrics.go`, `v2http/metrics.go`; Prometheus'
//! exposition formats.

use crate::api::health::ETCD_VERSION;
use crate::api::reply::{Body, Response};
use crate::api::traffic::{Answered, Traffic};
use crate::api::{RenderedFile, RendererStatus};
use crate::machine::Action;
use crate::node::{Durations, Figures, Handle, Status, Tally};
use crate::sys::usage::{self, Usage};
use http::header::{CONTENT_TYPE, HeaderValue};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelValue, MetricEncoder,
    NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// The metrics of one node.
pub(super) struct Metrics {
    node: Handle,
    renderer: RendererStatus,
    traffic: Arc<Traffic>,
}

impl Metrics {
    pub(super) fn new(node: Handle, renderer: RendererStatus, traffic: Arc<Traffic>) -> Self {
        Self { node, renderer, traffic }
    }

    /// The page as of now.
    pub(super) fn page(&self) -> Response {
        let scrape = Scrape {
            status: self.node.status(),
            figures: self.node.figures(),
            answered: self.traffic.all(),
            reads: self.traffic.reads(),
            watches: self.traffic.watches(),
            files: (self.renderer)().unwrap_or_default(),
            usage: usage::look(),
        };
        let mut response = Response::new(Body::whole(scrape.text().into()));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

/// Everything a page shows.
#[derive(Clone, Debug)]
struct Scrape {
    status: Status,
    figures: Figures,
    answered: Vec<Answered>,
    reads: Tally,
    watches: u64,
    files: Vec<RenderedFile>,
    usage: Option<Usage>,
}

impl Scrape {
    fn text(self) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(self));
        // Writing to a string cannot fail.
        let _ = encode_registry(&mut text, &registry);
        classic(&text)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        write_server(&mut page, &self.status, &self.figures)?;
        write_store(&mut page, &self.status, &self.figures)?;
        write_v2(&mut page, &self.figures, self.reads, self.watches)?;
        write_http(&mut page, &self.answered)?;
        write_renderer(&mut page, &self.files)?;
        self.usage.as_ref().map_or(Ok(()), |usage| write_process(&mut page, usage))
    }
}

fn write_server(page: &mut Page<'_>, status: &Status, figures: &Figures) -> fmt::Result {
    let version = env!("CARGO_PKG_VERSION");
    let member = status.member.to_string();
    let leads = status.leader == Some(status.member);
    let info = [("version", version), ("name", status.name.as_str())];
    page.labelled("althing_build_info", "Which althing this is.", &info)?;
    page.labelled(
        "etcd_server_version",
        "Whose API is spoken.",
        &[("server_version", ETCD_VERSION)],
    )?;
    let cluster = [("cluster_version", ETCD_VERSION)];
    page.labelled("etcd_cluster_version", "Whose API the cluster speaks.", &cluster)?;
    page.labelled("etcd_server_id", "This member.", &[("server_id", &member)])?;
    let has_leader = u64::from(status.leader.is_some());
    page.gauge("etcd_server_has_leader", "Whether a leader is known.", has_leader)?;
    page.gauge("etcd_server_is_leader", "Whether this member leads.", u64::from(leads))?;
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "Leaders that came.",
        figures.leader_changes,
    )?;
    page.gauge("althing_raft_term", "The term.", status.term.0)?;
    let no_space = u64::from(status.no_space);
    page.gauge("althing_disk_full", "Whether the store waits for room on its disk.", no_space)?;
    // Gauges, as etcd has them, in spite of their names.
    let committed = figures.committed.0.max(status.applied.0);
    page.gauge("etcd_server_proposals_committed_total", "Last committed entry.", committed)?;
    page.gauge("etcd_server_proposals_applied_total", "Last applied entry.", status.applied.0)?;
    page.gauge("etcd_server_proposals_pending", "Proposals without an answer.", figures.pending)?;
    page.counter(
        "etcd_server_proposals_failed_total",
        "Proposals without a verdict: no leader, a full queue, no answer in time.",
        figures.unserved,
    )
}

fn write_store(page: &mut Page<'_>, status: &Status, figures: &Figures) -> fmt::Result {
    page.histogram(
        "etcd_disk_wal_fsync_duration_seconds",
        "Flushes of the log.",
        &figures.flushes,
    )?;
    page.histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "Checkpoints written to the database.",
        &figures.checkpoints,
    )?;
    let rows = [
        ("etcd_mvcc_db_total_size_in_bytes", "The database file.", figures.database_bytes),
        ("etcd_debugging_mvcc_current_revision", "The store's revision.", status.revision.0),
        ("etcd_debugging_mvcc_compact_revision", "The oldest one kept.", figures.compacted.0),
        ("althing_overlay_bytes", "Records not yet in the database.", figures.overlay_bytes),
        ("althing_history_bytes", "History that is kept.", figures.history_bytes),
    ];
    rows.into_iter().try_for_each(|(name, help, value)| page.gauge(name, help, value))
}

fn write_v2(page: &mut Page<'_>, figures: &Figures, reads: Tally, watches: u64) -> fmt::Result {
    let get = [("action", "get")];
    let read = |name, help, count| Family { name, help, rows: vec![(get, count)] };
    page.counters(&read("etcd_debugging_store_reads_total", "Keys that were read.", reads.done))?;
    page.counters(&read(
        "etcd_debugging_store_reads_failed_total",
        "Keys that were not there.",
        reads.refused,
    ))?;
    let writes = |name, help, count: fn(Tally) -> u64| {
        let rows = figures.writes.iter().filter(|(action, _)| *action != Action::Expire);
        let rows = rows.map(|(action, tally)| ([("action", action.name())], count(*tally)));
        Family { name, help, rows: rows.collect() }
    };
    page.counters(&writes("etcd_debugging_store_writes_total", "Writes done.", |tally| {
        tally.done
    }))?;
    page.counters(&writes(
        "etcd_debugging_store_writes_failed_total",
        "Writes the store refused.",
        |tally| tally.refused,
    ))?;
    let expired = figures.writes_of(Action::Expire).done;
    page.counter("etcd_debugging_store_expires_total", "Keys that expired.", expired)?;
    page.counter("etcd_debugging_store_watch_requests_total", "Watches begun.", watches)?;
    let watchers = figures.watchers as u64;
    page.gauge("etcd_debugging_store_watchers", "Watchers of any API.", watchers)?;
    page.gauge("etcd_debugging_mvcc_watcher_total", "Watchers of any API.", watchers)
}

fn write_http(page: &mut Page<'_>, answered: &[Answered]) -> fmt::Result {
    let code_of = |row: &Answered| match row.code {
        0 => "other".to_owned(),
        code => code.to_string(),
    };
    let rows = |keep: fn(&Answered) -> bool| -> Vec<_> {
        let kept = answered.iter().filter(|row| keep(row));
        let labels = |row: &Answered| [("code", code_of(row)), ("method", row.method.to_owned())];
        kept.map(|row| (labels(row), row.count)).collect()
    };
    let mut received: Vec<([(&str, &str); 1], u64)> = Vec::new();
    for row in answered {
        match received.iter_mut().find(|([(_, method)], _)| *method == row.method) {
            Some((_, count)) => *count += row.count,
            None => received.push(([("method", row.method)], row.count)),
        }
    }
    page.counters(&Family {
        name: "althing_http_requests_total",
        help: "Requests by method and status.",
        rows: rows(|_| true),
    })?;
    page.counters(&Family {
        name: "etcd_http_received_total",
        help: "Requests by method.",
        rows: received,
    })?;
    page.counters(&Family {
        name: "etcd_http_failed_total",
        help: "Requests refused or failed.",
        rows: rows(|row| row.code == 0 || row.code >= 400),
    })
}

fn write_renderer(page: &mut Page<'_>, files: &[RenderedFile]) -> fmt::Result {
    let resource = |file: &RenderedFile| ("resource", file.name.clone());
    let rows = |number: fn(&RenderedFile) -> u64| {
        files.iter().map(|file| ([resource(file)], number(file))).collect::<Vec<_>>()
    };
    let family = |name, help, number| Family { name, help, rows: rows(number) };
    page.counters(&family("althing_render_passes_total", "Renders, good or bad.", |f| f.renders))?;
    page.counters(&family("althing_render_changes_total", "Files replaced.", |f| f.changes))?;
    page.counters(&family("althing_render_reloads_total", "Successful reloads.", |f| f.reloads))?;
    let failures = files.iter().flat_map(|file| {
        let row = |(step, count): (&&'static str, &u64)| {
            ([resource(file), ("step", (*step).to_owned())], *count)
        };
        file.failures.iter().map(row)
    });
    page.counters(&Family {
        name: "althing_render_failures_total",
        help: "Passes and reloads that failed, by the step that did.",
        rows: failures.collect(),
    })?;
    let help = "Whether the last pass or reload went wrong.";
    page.gauges(&family("althing_render_failing", help, |file| u64::from(file.error.is_some())))?;
    let help = "Whether a reload is owed.";
    let is_owed = |file: &RenderedFile| u64::from(file.owed_since.is_some());
    page.gauges(&family("althing_render_reload_owed", help, is_owed))?;
    let good = files.iter().filter_map(|file| Some((file, file.last_success?)));
    page.gauges(&Family {
        name: "althing_render_last_success_timestamp_seconds",
        help: "When the last good pass ended.",
        rows: good.map(|(file, time)| ([resource(file)], time.0 / 1_000_000_000)).collect(),
    })
}

/// What every Prometheus client library tells of its process.
fn write_process(page: &mut Page<'_>, usage: &Usage) -> fmt::Result {
    let cpu = usage.cpu_seconds;
    page.counter("process_cpu_seconds_total", "CPU time.", cpu)?;
    page.gauge("process_start_time_seconds", "Start of the process.", usage.started_seconds)?;
    let rows = [
        ("process_resident_memory_bytes", "Resident memory.", usage.resident_bytes),
        ("process_virtual_memory_bytes", "Virtual memory.", usage.virtual_bytes),
        ("process_open_fds", "Open descriptors.", usage.open_descriptors),
        ("process_max_fds", "Descriptors allowed.", usage.descriptors_max),
    ];
    rows.into_iter().try_for_each(|(name, help, value)| page.gauge(name, help, value))
}

/// A metric with a sample for each set of labels.
struct Family<const N: usize, V> {
    name: &'static str,
    help: &'static str,
    rows: Vec<([(&'static str, V); N], u64)>,
}

/// The page being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter<V: EncodeCounterValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        value: V,
    ) -> fmt::Result {
        let mut metric = self.begin(stem(name), help, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, V, f64>(&value, None)
    }

    fn gauge<V: EncodeGaugeValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        value: V,
    ) -> fmt::Result {
        self.begin(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A 1 whose labels are what it tells.
    fn labelled<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str); N],
    ) -> fmt::Result {
        let mut metric = self.begin(name, help, MetricType::Gauge)?;
        metric.encode_family(labels)?.encode_gauge(&1_u64)
    }

    fn counters<const N: usize, V: EncodeLabelValue>(
        &mut self,
        family: &Family<N, V>,
    ) -> fmt::Result {
        let mut metric = self.begin(stem(family.name), family.help, MetricType::Counter)?;
        for (labels, value) in &family.rows {
            metric.encode_family(labels)?.encode_counter::<NoLabelSet, u64, f64>(value, None)?;
        }
        Ok(())
    }

    fn gauges<const N: usize, V: EncodeLabelValue>(
        &mut self,
        family: &Family<N, V>,
    ) -> fmt::Result {
        let mut metric = self.begin(family.name, family.help, MetricType::Gauge)?;
        for (labels, value) in &family.rows {
            metric.encode_family(labels)?.encode_gauge(value)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, seen: &Durations) -> fmt::Result {
        let ends = seen.buckets.iter().map(|(end, count)| (end.as_secs_f64(), *count));
        let buckets: Vec<_> = ends.chain([(f64::INFINITY, seen.longer)]).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut metric = self.begin(name, help, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(seen.sum.as_secs_f64(), count, &buckets, None)
    }

    fn begin<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }
}

/// A counter's name as OpenMetrics declares it.
fn stem(name: &str) -> &str {
    name.strip_suffix("_total").unwrap_or(name)
}

/// OpenMetrics as format 0.0.4: a counter is declared under the name of its samples.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1_024);
    let mut help = None;
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(said)) => help = Some((name, said)),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let suffix = if kind == "counter" { "_total" } else { "" };
                if let Some((_, said)) = help.take().filter(|(helped, _)| *helped == name) {
                    out += &format!("# HELP {name}{suffix} {said}\n");
                }
                out += &format!("# TYPE {name}{suffix} {kind}\n");
            }
            _ => {
                out += line;
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterId, LogIndex, MemberId, Revision, Term, WallTime};
    use crate::node::Role;
    use std::time::Duration;

    fn scrape() -> Scrape {
        let status = Status {
            cluster: ClusterId(1),
            member: MemberId(0xab),
            name: "n1".into(),
            client_urls: vec![],
            role: Role::Leader,
            leader: Some(MemberId(0xab)),
            leader_since: WallTime(0),
            started: WallTime(0),
            term: Term(2),
            applied: LogIndex(9),
            revision: Revision(7),
            no_space: false,
        };
        let flushes = Durations {
            buckets: vec![(Duration::from_micros(16), 1), (Duration::from_micros(32), 2)],
            longer: 1,
            sum: Duration::from_millis(1_500),
        };
        let figures = Figures {
            flushes,
            checkpoints: Durations::default(),
            writes: vec![
                (Action::Set, Tally { done: 3, refused: 1 }),
                (Action::Expire, Tally { done: 5, refused: 0 }),
            ],
            unserved: 0,
            pending: 1,
            leader_changes: 1,
            committed: LogIndex(0),
            compacted: Revision(1),
            watchers: 2,
            overlay_bytes: 10,
            history_bytes: 20,
            database_bytes: 30,
        };
        let row = |method, code, count| Answered { method, code, count };
        let file = RenderedFile {
            name: "a \"b\"\n".to_owned(),
            renders: 4,
            changes: 2,
            reloads: 1,
            failures: [("check", 3)].into(),
            owed_since: Some(WallTime(1)),
            last_success: Some(WallTime(7_900_000_000)),
            ..RenderedFile::default()
        };
        Scrape {
            status,
            figures,
            answered: vec![row("GET", 200, 5), row("GET", 404, 2), row("other", 0, 1)],
            reads: Tally { done: 5, refused: 2 },
            watches: 6,
            files: vec![file],
            usage: usage::look(),
        }
    }

    #[test]
    fn the_page_has_the_samples_dashboards_read() {
        let text = scrape().text();
        let lines: Vec<&str> = text.lines().collect();
        let expected = [
            "etcd_server_has_leader 1",
            "etcd_server_is_leader 1",
            "etcd_server_id{server_id=\"ab\"} 1",
            "# TYPE etcd_server_leader_changes_seen_total counter",
            "etcd_server_leader_changes_seen_total 1",
            "# TYPE etcd_server_proposals_applied_total gauge",
            "etcd_server_proposals_applied_total 9",
            "etcd_debugging_mvcc_current_revision 7",
            "# TYPE etcd_disk_wal_fsync_duration_seconds histogram",
            "etcd_disk_wal_fsync_duration_seconds_sum 1.5",
            "etcd_disk_wal_fsync_duration_seconds_count 4",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 4",
            "etcd_debugging_store_writes_total{action=\"set\"} 3",
            "etcd_debugging_store_writes_failed_total{action=\"set\"} 1",
            "etcd_debugging_store_expires_total 5",
            "etcd_http_received_total{method=\"GET\"} 7",
            "etcd_http_failed_total{code=\"404\",method=\"GET\"} 2",
            "etcd_http_failed_total{code=\"other\",method=\"other\"} 1",
            "althing_render_passes_total{resource=\"a \\\"b\\\"\\n\"} 4",
            "althing_render_failing{resource=\"a \\\"b\\\"\\n\"} 0",
            "althing_render_reload_owed{resource=\"a \\\"b\\\"\\n\"} 1",
            "althing_render_failures_total{resource=\"a \\\"b\\\"\\n\",step=\"check\"} 3",
            "althing_render_last_success_timestamp_seconds{resource=\"a \\\"b\\\"\\n\"} 7",
        ];
        for line in expected {
            assert!(lines.contains(&line), "no {line} in\n{text}");
        }
        assert!(!text.contains("EOF") && text.contains("\nprocess_resident_memory_bytes "));
    }

    #[test]
    fn every_sample_is_declared_under_its_own_name() {
        let text = scrape().text();
        let mut declared = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                declared = rest.split(' ').next().unwrap();
            } else if !line.starts_with('#') {
                assert!(line.starts_with(declared), "{line} is declared as {declared}");
            }
        }
    }

    /// `docs/metrics.md` is this list; the failing test prints the rows it should have.
    #[test]
    fn the_book_has_every_metric() {
        let text = scrape().text();
        let mut rows = String::new();
        let mut lines = text.lines().filter(|line| line.starts_with("# ")).map(|line| &line[7..]);
        while let (Some(help), Some(kind)) = (lines.next(), lines.next()) {
            let ((name, help), (_, kind)) =
                (help.split_once(' ').unwrap(), kind.split_once(' ').unwrap());
            rows += &format!("| `{name}` | {kind} | {help} |\n");
        }
        let book = include_str!("../../docs/metrics.md");
        assert!(book.ends_with(&format!("|---|---|---|\n{rows}")), "it should end with\n{rows}");
    }

    #[test]
    fn a_host_that_renders_nothing_has_no_rows_for_it() {
        let text = Scrape { files: vec![], ..scrape() }.text();
        assert!(!text.contains("{resource"), "{text}");
    }
}
