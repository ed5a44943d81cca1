//! E1 and E3: many watchers, and watchers that begin in the past.

use crate::client::{Lags, Told, Watcher, Writer, value};
use crate::common::{Daemon, skip};
use crate::seen::{Before, MEMORY_SPARE, allow_descriptors, cpu, megabytes, memory};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// What a watcher may cost, in bytes.
const WATCHER_BYTES_MAX: u64 = 20 * 1_000;

/// Directories, their watchers, and how fast and how long is written to them.
struct Load {
    directories: usize,
    watchers_each: usize,
    writers: usize,
    writes_a_second: u64,
    seconds: u64,
}

impl Load {
    fn of_this_run() -> Self {
        let (watchers_each, writers) = (10, 10);
        match std::env::var_os("ALTHING_OVERLOAD_FULL") {
            None => {
                let (directories, writes_a_second, seconds) = (100, 200, 5);
                Self { directories, watchers_each, writers, writes_a_second, seconds }
            }
            Some(_) => {
                let (directories, writes_a_second, seconds) = (1_000, 1_000, 60);
                Self { directories, watchers_each, writers, writes_a_second, seconds }
            }
        }
    }

    fn watchers(&self) -> u64 {
        (self.directories * self.watchers_each) as u64
    }

    /// Writes to each directory.
    fn writes_each(&self) -> u64 {
        self.writes_a_second * self.seconds / self.directories as u64
    }
}

/// One writer's share: its directories in turn, at its share of the pace.
async fn write(url: String, load: Arc<Load>, writer: usize, lags: Arc<Lags>) {
    let mut connection = Writer::connect(&url).await;
    let pace = Duration::from_secs_f64(load.writers as f64 / load.writes_a_second as f64);
    let mut beat = interval(pace);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..load.writes_each() {
        for directory in (writer..load.directories).step_by(load.writers) {
            beat.tick().await;
            let value = value(number, lags.now(), 0);
            let status = connection.put(&format!("/e1/{directory}/key"), &value).await;
            assert!(matches!(status, 200 | 201), "{status}");
        }
    }
}

/// Every event of a directory, once and in order.
async fn expect_all(mut watcher: Watcher, count: u64, lags: Arc<Lags>) {
    let mut last = 0;
    for number in 0..count {
        let told = watcher.next(Some(&lags)).await.expect("the stream ended");
        assert_eq!(told.number, number, "an event is missing, doubled, or out of order");
        assert!(told.index > last, "{told:?} after {last}");
        last = told.index;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_each_of_many_watchers_hears_each_event_once_and_costs_little() {
    let load = Arc::new(Load::of_this_run());
    if !allow_descriptors(load.watchers() + 500) {
        return skip("descriptors for so many watchers");
    }
    let daemon = Daemon::start("overload-watchers");
    let (before, lags) = (Before::of(&daemon, "E1 watchers"), Arc::new(Lags::new()));
    let mut watching = JoinSet::new();
    for directory in 0..load.directories {
        for _ in 0..load.watchers_each {
            let path = format!("/e1/{directory}");
            let watcher = Watcher::open(daemon.url(), &path, 0, None).await;
            watching.spawn(expect_all(watcher, load.writes_each(), Arc::clone(&lags)));
        }
    }
    let each = memory(&daemon).saturating_sub(before.memory()) / load.watchers();
    assert!(each <= WATCHER_BYTES_MAX, "a watcher costs {each} bytes");
    let used = cpu(&daemon);
    let mut writing = JoinSet::new();
    for writer in 0..load.writers {
        let url = daemon.url().to_owned();
        writing.spawn(write(url, Arc::clone(&load), writer, Arc::clone(&lags)));
    }
    writing.join_all().await;
    watching.join_all().await;
    eprintln!(
        "E1: {} watchers, {each} bytes each; {} events given, p50 {} ms, p99 {} ms late; \
         {:.1} MB with all of them, {:.1} s of CPU",
        load.watchers(),
        lags.count(),
        lags.below(500),
        lags.below(990),
        megabytes(memory(&daemon)),
        (cpu(&daemon) - used).as_secs_f64(),
    );
    assert_eq!(lags.count(), load.watchers() * load.writes_each());
    before.is_back(&daemon, MEMORY_SPARE + load.watchers() * WATCHER_BYTES_MAX / 4);
}

/// More than the ring of newest changes holds, so that they come out of history.
const PAST: u64 = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e3_a_stream_from_the_past_tells_the_past_and_then_goes_on() {
    let daemon = Daemon::start("overload-past");
    let mut writers = JoinSet::new();
    let url = daemon.url().to_owned();
    let first: Told = {
        let mut watcher = Watcher::open(&url, "/e3", 0, None).await;
        assert_eq!(Writer::connect(&url).await.put("/e3/key-0", &value(0, 0, 0)).await, 201);
        watcher.next(None).await.unwrap()
    };
    for lane in 0..10 {
        let url = url.clone();
        writers.spawn(async move {
            let mut connection = Writer::connect(&url).await;
            for number in 1..=PAST / 10 {
                let value = value(number, 0, 0);
                assert!(connection.put(&format!("/e3/key-{lane}"), &value).await < 300);
            }
        });
    }
    writers.join_all().await;
    let mut watcher = Watcher::open(&url, "/e3", first.index, None).await;
    assert_eq!(watcher.next(None).await, Some(first));
    for index in first.index + 1..=first.index + PAST {
        assert_eq!(watcher.next(None).await.unwrap().index, index);
    }
    let mut connection = Writer::connect(&url).await;
    for live in 1..=20 {
        assert_eq!(connection.put("/e3/live", &value(live, 0, 0)).await / 100, 2);
        let told = watcher.next(None).await.unwrap();
        assert_eq!(told, Told { number: live, index: first.index + PAST + live });
    }
}
