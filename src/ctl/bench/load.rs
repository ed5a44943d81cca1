//! The load generator: closed-loop clients over keep-alive connections, on one thread.
//!
//! Why one thread: client and server share the machine; so the client takes at most one core
//! whatever server it measures, and the same client is used for each of them.
//!
//! How data passes: each connection owns one prepared request. Per operation it patches key and
//! value digits in place, writes, waits for the whole response and records the latency in a
//! shared histogram. The end of one operation is the start of the next, so one clock reading
//! does for both.
//!
//! Invariants:
//! * A run ends: at its time or count or when told to stop, plus `BENCH_STALL_SECONDS` for a server that hangs.
//! * Only 2xx answers count as operations; everything else is an error, and a connection gives
//!   up after `BENCH_ERRORS_IN_A_ROW_MAX` of them.
//! * Keys, values and their order depend on the workload only, never on chance.
//!
//! Deliberately not here: open-loop pacing (latencies are those of a saturated closed loop),
//! TLS, and any knowledge of who the server is.
//!
//! Sources: splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").

use std::cell::{Cell, RefCell};
use std::io;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use crate::base::limits::{
    BENCH_CONNECTIONS_MAX, BENCH_ERRORS_IN_A_ROW_MAX, BENCH_STALL_SECONDS, VALUE_BYTES_MAX,
};
use crate::ctl::bench::http::{Connection, HttpError};
use crate::ctl::bench::stats::Histogram;

/// Length of a key's name below the prefix, in bytes.
pub const KEY_NAME_BYTES: usize = 32;

/// What the operations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `PUT` of random keys out of `keys`, each value `value_bytes` long.
    Put {
        /// How many distinct keys there are.
        keys: u64,
        /// Length of each value.
        value_bytes: usize,
    },
    /// `PUT` of key 0, 1, 2 ... once each; ends after `keys` operations.
    Fill {
        /// How many keys are written.
        keys: u64,
        /// Length of each value.
        value_bytes: usize,
    },
    /// `GET ?quorum=true` of random keys out of `keys`.
    QuorumGet {
        /// How many distinct keys there are.
        keys: u64,
    },
    /// `GET ?quorum=false` of random keys out of `keys`.
    LocalGet {
        /// How many distinct keys there are.
        keys: u64,
    },
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Until {
    /// After this time; a tenth of it, at most a second, goes before as warm-up.
    Elapsed(Duration),
    /// After this many operations, errors counted in; the time is bounded too.
    Operations {
        /// How many operations.
        count: u64,
        /// The longest it may take.
        at_most: Duration,
    },
}

/// One run against one server.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The server.
    pub target: SocketAddr,
    /// The v2 directory the keys live in, such as `/bench`.
    pub prefix: String,
    /// Connections, each with one request under way; 1 to `BENCH_CONNECTIONS_MAX`.
    pub connections: usize,
    /// When the run ends.
    pub until: Until,
    /// What the operations are.
    pub kind: Kind,
    /// Once true, no operation begins any more.
    pub stop: Arc<AtomicBool>,
}

/// What a run measured.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    /// Operations answered with 2xx.
    pub operations: u64,
    /// Operations that failed or were answered otherwise.
    pub errors: u64,
    /// The first error, for the user.
    pub first_error: Option<String>,
    /// Measured time in seconds, warm-up excluded.
    pub seconds: f64,
    /// Operations per second.
    pub per_second: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 90th percentile in microseconds.
    pub p90_us: f64,
    /// 99th percentile in microseconds.
    pub p99_us: f64,
    /// 99.9th percentile in microseconds.
    pub p999_us: f64,
    /// Longest latency in microseconds.
    pub max_us: f64,
}

/// Why a load could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A number of the workload is outside its bounds.
    #[error("{what} must be between {least} and {most}")]
    OutOfBounds {
        /// Which number.
        what: &'static str,
        /// Smallest value allowed.
        least: usize,
        /// Largest value allowed.
        most: usize,
    },
    /// The runtime could not be made.
    #[error("cannot start the load generator's runtime")]
    Runtime(#[source] io::Error),
}

/// Runs a workload on a runtime of its own on the calling thread, and waits for its end.
///
/// # Errors
/// `LoadError` if it could not begin; errors of single operations are counted in the report.
pub fn run_load(workload: &Workload) -> Result<Report, LoadError> {
    check_bounds("connections", workload.connections, 1, BENCH_CONNECTIONS_MAX)?;
    if let Kind::Put { value_bytes, .. } | Kind::Fill { value_bytes, .. } = workload.kind {
        check_bounds("value bytes", value_bytes, 0, VALUE_BYTES_MAX)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LoadError::Runtime)?;
    Ok(LocalSet::new().block_on(&runtime, drive(workload)))
}

fn check_bounds(
    what: &'static str,
    value: usize,
    least: usize,
    most: usize,
) -> Result<(), LoadError> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(LoadError::OutOfBounds { what, least, most })
    }
}

/// What all connections of a run share.
#[derive(Debug)]
struct Tally {
    histogram: RefCell<Histogram>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    /// Operations begun: the number of the next one.
    begun: Cell<u64>,
    /// Operations to begin at most.
    count_max: u64,
    /// Operations that end before this moment are warm-up.
    counts_from: Instant,
    /// No operation begins after this moment.
    ends: Instant,
    stop: Arc<AtomicBool>,
}

impl Tally {
    fn new(workload: &Workload) -> Self {
        let now = Instant::now();
        let (counts_from, ends, mut count_max) = match workload.until {
            Until::Elapsed(time) => {
                let from = now + (time / 10).min(Duration::from_secs(1));
                (from, from + time, u64::MAX)
            }
            Until::Operations { count, at_most } => (now, now + at_most, count),
        };
        if let Kind::Fill { keys, .. } = workload.kind {
            count_max = count_max.min(keys);
        }
        Self {
            histogram: RefCell::default(),
            errors: Cell::new(0),
            first_error: RefCell::default(),
            begun: Cell::new(0),
            count_max,
            counts_from,
            ends,
            stop: Arc::clone(&workload.stop),
        }
    }

    /// The number of the next operation, `None` when the run is over.
    fn begin(&self, now: Instant) -> Option<u64> {
        let number = self.begun.get();
        let over = number >= self.count_max || now >= self.ends;
        if over || self.stop.load(Ordering::Relaxed) {
            return None;
        }
        self.begun.set(number + 1);
        Some(number)
    }

    fn succeeded(&self, from: Instant, to: Instant) {
        if to >= self.counts_from {
            let ns = u64::try_from((to - from).as_nanos()).unwrap_or(u64::MAX);
            self.histogram.borrow_mut().record(ns);
        }
    }

    fn failed(&self, count: u64, why: &dyn Fn() -> String) {
        self.errors.set(self.errors.get() + count);
        self.first_error.borrow_mut().get_or_insert_with(why);
    }

    fn report(&self, ended: Instant) -> Report {
        let histogram = self.histogram.borrow();
        let seconds = ended.saturating_duration_since(self.counts_from).as_secs_f64();
        let us = |thousandths| as_us(histogram.quantile_ns(thousandths));
        Report {
            operations: histogram.total(),
            errors: self.errors.get(),
            first_error: self.first_error.borrow().clone(),
            seconds,
            per_second: if seconds > 0.0 { as_float(histogram.total()) / seconds } else { 0.0 },
            p50_us: us(500),
            p90_us: us(900),
            p99_us: us(990),
            p999_us: us(999),
            max_us: as_us(histogram.max_ns()),
        }
    }
}

/// A count as a float: exact up to 2^53, far beyond what a run can do.
#[expect(clippy::cast_precision_loss, reason = "counts of a run stay far below 2^53")]
fn as_float(count: u64) -> f64 {
    count as f64
}

fn as_us(ns: u64) -> f64 {
    as_float(ns) / 1_000.0
}

async fn drive(workload: &Workload) -> Report {
    let tally = Rc::new(Tally::new(workload));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..workload.connections {
        let client = Client::new(workload, number as u64, Rc::clone(&tally));
        clients.spawn_local(client.run());
    }
    let patience = tally.ends + Duration::from_secs(BENCH_STALL_SECONDS);
    let all = async { while clients.join_next().await.is_some() {} };
    let stalled = tokio::time::timeout_at(patience.into(), all).await.is_err();
    // Operations that ended after `ends` belong to the measured time, so this is read last.
    let ended = Instant::now();
    if stalled {
        let hanging = clients.len() as u64;
        tally.failed(hanging, &|| format!("no answer within {BENCH_STALL_SECONDS} s"));
        clients.shutdown().await;
    }
    tally.report(ended)
}

/// One connection's closed loop.
struct Client {
    target: SocketAddr,
    kind: Kind,
    request: Request,
    random: SplitMix,
    tally: Rc<Tally>,
}

impl Client {
    fn new(workload: &Workload, number: u64, tally: Rc<Tally>) -> Self {
        Self {
            target: workload.target,
            kind: workload.kind,
            request: Request::new(workload),
            random: SplitMix(number.wrapping_mul(0x5851_F42D_4C95_7F2D)),
            tally,
        }
    }

    async fn run(mut self) {
        let (mut connection, mut errors_in_a_row) = (None, 0);
        let mut from = Instant::now();
        while let Some(number) = self.tally.begin(from) {
            let key = self.key(number);
            self.request.aim(key, number);
            let answer = exchange(&mut connection, self.target, self.request.bytes()).await;
            let to = Instant::now();
            match answer {
                Ok(200..=299) => {
                    errors_in_a_row = 0;
                    self.tally.succeeded(from, to);
                }
                Ok(status) => {
                    errors_in_a_row += 1;
                    self.tally.failed(1, &|| format!("the server answered {status}"));
                }
                Err(error) => {
                    errors_in_a_row += 1;
                    connection = None;
                    self.tally.failed(1, &|| super::chain_text(&error));
                }
            }
            if errors_in_a_row >= BENCH_ERRORS_IN_A_ROW_MAX {
                return;
            }
            from = to;
        }
    }

    fn key(&mut self, number: u64) -> u64 {
        match self.kind {
            Kind::Fill { .. } => number,
            Kind::Put { keys, .. } | Kind::QuorumGet { keys } | Kind::LocalGet { keys } => {
                self.random.next() % keys.max(1)
            }
        }
    }
}

/// One request and its answer's status, on the connection at hand or a new one.
async fn exchange(
    slot: &mut Option<Connection>,
    target: SocketAddr,
    request: &[u8],
) -> Result<u16, HttpError> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(Connection::open(target).await?),
    };
    connection.send(request).await?;
    let (status, close) = connection.receive().await?;
    if close {
        *slot = None;
    }
    Ok(status)
}

/// The bytes of one request, patched in place for each operation.
#[derive(Debug)]
struct Request {
    bytes: Vec<u8>,
    /// Where the key's name begins.
    key_at: usize,
    /// Where the value begins: it starts with the operation's number, so values differ.
    value_at: usize,
}

impl Request {
    fn new(workload: &Workload) -> Self {
        let (method, query, value_bytes) = match workload.kind {
            Kind::Put { value_bytes, .. } | Kind::Fill { value_bytes, .. } => {
                ("PUT", "", Some(value_bytes))
            }
            Kind::QuorumGet { .. } => ("GET", "?quorum=true", None),
            Kind::LocalGet { .. } => ("GET", "?quorum=false", None),
        };
        let before = format!("{method} /v2/keys{}/", workload.prefix.trim_end_matches('/'));
        let name = "0".repeat(KEY_NAME_BYTES);
        let mut text = format!("{before}{name}{query} HTTP/1.1\r\nHost: {}\r\n", workload.target);
        if let Some(value_bytes) = value_bytes {
            let length = "value=".len() + value_bytes;
            text.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
            text.push_str(&format!("Content-Length: {length}\r\n\r\nvalue="));
        } else {
            text.push_str("\r\n");
        }
        let value_at = text.len();
        let mut bytes = text.into_bytes();
        bytes.extend(b"abcdefghijklmnopqrstuvwxyz".iter().cycle().take(value_bytes.unwrap_or(0)));
        Self { bytes, key_at: before.len(), value_at }
    }

    fn aim(&mut self, key: u64, number: u64) {
        if let Some(mut name) = self.bytes.get_mut(self.key_at..) {
            write_name(&mut name, key);
        }
        if let Some(mut value) = self.bytes.get_mut(self.value_at..) {
            // A value shorter than the number keeps the number's first digits.
            let _ = write!(value, "{number:016x}");
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn write_name(place: &mut impl io::Write, key: u64) {
    let mut mix = SplitMix(key);
    // The place is inside the request, `KEY_NAME_BYTES` long by construction.
    let _ = write!(place, "{:016x}{:016x}", mix.next(), mix.next());
}

/// The name of key number `key`, `KEY_NAME_BYTES` long: spread over the key space, unlike the
/// number itself, so that an ordered store cannot profit from appends.
#[must_use]
pub fn key_name(key: u64) -> String {
    let mut name = Vec::with_capacity(KEY_NAME_BYTES);
    write_name(&mut name, key);
    String::from_utf8(name).unwrap_or_default()
}

/// A small deterministic generator.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::bench::null::NullServer;

    fn workload(target: SocketAddr, kind: Kind, count: u64) -> Workload {
        let until = Until::Operations { count, at_most: Duration::from_secs(60) };
        Workload {
            target,
            prefix: "/bench".into(),
            connections: 4,
            until,
            kind,
            stop: Arc::default(),
        }
    }

    #[test]
    fn a_request_is_patched_in_place() {
        let target = "127.0.0.1:2379".parse().unwrap();
        let mut request =
            Request::new(&workload(target, Kind::Put { keys: 10, value_bytes: 20 }, 1));
        request.aim(7, 0xABC);
        let text = std::str::from_utf8(request.bytes()).unwrap();
        let expected = format!(
            "PUT /v2/keys/bench/{} HTTP/1.1\r\nHost: 127.0.0.1:2379\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: 26\r\n\r\nvalue=0000000000000abcqrst",
            key_name(7)
        );
        assert_eq!(text, expected);
        assert_eq!(key_name(7).len(), KEY_NAME_BYTES);

        let mut get = Request::new(&workload(target, Kind::QuorumGet { keys: 10 }, 1));
        get.aim(3, 9);
        let text = std::str::from_utf8(get.bytes()).unwrap();
        let expected = format!(
            "GET /v2/keys/bench/{}?quorum=true HTTP/1.1\r\nHost: 127.0.0.1:2379\r\n\r\n",
            key_name(3)
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_load_against_the_null_server_counts_each_operation() {
        let server = NullServer::spawn("127.0.0.1:0".parse().unwrap()).unwrap();
        let kinds = [
            Kind::Put { keys: 100, value_bytes: 256 },
            Kind::Fill { keys: 500, value_bytes: 0 },
            Kind::QuorumGet { keys: 100 },
            Kind::LocalGet { keys: 100 },
        ];
        for kind in kinds {
            let report = run_load(&workload(server.address(), kind, 500)).unwrap();
            assert_eq!((report.operations, report.errors), (500, 0), "{kind:?} {report:?}");
            assert!(report.p50_us > 0.0 && report.p50_us <= report.p99_us);
            assert!(report.p99_us <= report.p999_us && report.p999_us <= report.max_us);
        }
    }

    #[test]
    fn a_timed_load_ends_by_itself() {
        let server = NullServer::spawn("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut timed = workload(server.address(), Kind::Put { keys: 9, value_bytes: 9 }, 0);
        timed.until = Until::Elapsed(Duration::from_millis(200));
        let report = run_load(&timed).unwrap();
        assert!(report.operations > 0 && report.errors == 0, "{report:?}");
        assert!((0.19..5.0).contains(&report.seconds), "{report:?}");
    }

    #[test]
    fn a_load_told_to_stop_ends() {
        let server = NullServer::spawn("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut told = workload(server.address(), Kind::LocalGet { keys: 9 }, u64::MAX);
        told.stop = Arc::new(AtomicBool::new(true));
        assert_eq!(run_load(&told).unwrap().operations, 0);
    }

    #[test]
    fn without_a_server_every_client_gives_up() {
        // A port that was free a moment ago and that nobody listens on.
        let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let report = run_load(&workload(target, Kind::LocalGet { keys: 9 }, u64::MAX)).unwrap();
        assert_eq!(report.operations, 0);
        assert_eq!(report.errors, 4 * u64::from(BENCH_ERRORS_IN_A_ROW_MAX));
        assert!(report.first_error.unwrap().starts_with("cannot connect to"));
    }

    #[test]
    fn bounds_are_checked() {
        let mut none = workload("127.0.0.1:1".parse().unwrap(), Kind::LocalGet { keys: 1 }, 1);
        none.connections = 0;
        assert!(matches!(run_load(&none), Err(LoadError::OutOfBounds { .. })));
    }
}
