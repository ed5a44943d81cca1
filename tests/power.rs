//! Power cuts, failing flushes and a full disk lose nothing that was acknowledged.
//!
//! The daemon's data are on `tools/crashfs`, where what was not flushed can be lost, reordered and
//! torn. After each cut the daemon is killed, the disk replaced by a fresh one over what survived,
//! and the daemon started on it; then everything is read back and `crash::history` judges.
//!
//! That the judge is awake is shown by a disk that confirms flushes without doing them.
//!
//! `ALTHING_POWER_ROUNDS` (6) says how many cuts; docs/benchmarks.md has the long run's command.
//! Names are durable at once on this disk: lost directory entries are left to unit tests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "the seed and what was done, for who reads the run")]

mod common;
mod crash;

use common::{Daemon, http, wait_until};
use crash::disk::{Disk, Keeps};
use crash::{Seeded, Trial, number, seed, tracer};
use serde_json::json;
use std::thread;
use std::time::Duration;

/// Longest life of a daemon: longer than its checkpoints are apart.
const LIFE_MAX: Duration = Duration::from_millis(2_500);
/// For what is done once, and for each round, on a busy machine in a debug build.
const ONCE_WITHIN: Duration = Duration::from_secs(60);
const ROUND_WITHIN: Duration = Duration::from_secs(30);
/// From a failed flush to the end of the process.
const END_WITHIN: Duration = Duration::from_secs(20);
/// From room on the disk to the first write.
const RECOVER_WITHIN: Duration = Duration::from_secs(15);

/// A daemon whose data are on a disk of their own. Fields drop in order: the daemon first.
struct Rig {
    daemon: Daemon,
    disk: Disk,
}

impl Rig {
    /// `None` after saying what is missing for it.
    fn start(name: &str) -> Option<Self> {
        let disk = Disk::mount(&format!("{name}-disk"))?;
        let mut daemon = Daemon::stopped(name, &[]);
        daemon.keep_data_in(disk.path().join("data"));
        daemon.restart();
        Some(Self { daemon, disk })
    }

    /// Cuts the power, kills what hangs on it and puts a fresh disk in.
    fn lose_power(&mut self, keeps: Keeps, seed: u64) {
        self.disk.cut_power(keeps, seed);
        self.daemon.kill9();
        self.disk.replug();
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts() {
    let rounds = number("ALTHING_POWER_ROUNDS", 6);
    let within = ONCE_WITHIN + ROUND_WITHIN * u32::try_from(rounds).unwrap();
    let Some(mut rig) = Rig::start("power") else { return };
    let mut trial = Trial::begin("power cut", &rig.daemon, within);
    for round in 0..rounds {
        let writers = trial.writers(&rig.daemon);
        thread::sleep(trial.choices.moment(LIFE_MAX));
        let keeps =
            [Keeps::Nothing, Keeps::Random, Keeps::Torn][usize::try_from(round % 3).unwrap()];
        let seed = trial.choices.next() >> 32;
        writers.doom();
        rig.lose_power(keeps, seed);
        let seen = writers.finish();
        rig.daemon.restart();
        trial.expect_clean(&rig.daemon, seen, 1);
    }
    trial.end();
}

/// A daemon that finds its log damaged may refuse to start: then it caught the disk itself.
#[test]
fn a_disk_that_lies_about_flushes_is_caught() {
    const TRIES: u32 = 5;
    let Some(mut rig) = Rig::start("lying-disk") else { return };
    let mut trial = Trial::begin("lying disk", &rig.daemon, ONCE_WITHIN + ROUND_WITHIN * TRIES);
    for _ in 0..TRIES {
        rig.disk.misbehave(&json!({"fsync": "lie"}));
        let writers = trial.writers(&rig.daemon);
        wait_until("something is acknowledged", ROUND_WITHIN, || writers.acknowledged() > 200);
        writers.doom();
        rig.lose_power(Keeps::Nothing, 0);
        let seen = writers.finish();
        if let Err(refused) = rig.daemon.try_restart() {
            eprintln!("caught by the daemon: {refused}");
            return;
        }
        if let Err(breaches) = trial.judge(&rig.daemon, seen, 1) {
            assert!(breaches.iter().any(|breach| breach.starts_with("lost: ")), "{breaches:#?}");
            return;
        }
    }
    panic!("{trial:?}: {TRIES} cuts on a lying disk lost nothing");
}

/// The kernel may drop what a failed flush left, and the next flush succeeds all the same. So the
/// first failure must end the daemon (Rebello et al., USENIX ATC 2020).
#[test]
fn one_failed_flush_ends_the_daemon() {
    let mut daemon = Daemon::start("failed-flush");
    daemon.kill9();
    let once = ["fdatasync:error=EIO:when=40", "fsync:error=EIO:when=40"];
    let Some(tracer) = tracer::on_the_log(&daemon, &once) else { return };
    daemon.run_under(tracer);
    daemon.restart();
    let mut trial = Trial::begin("failed flush", &daemon, ONCE_WITHIN);
    let writers = trial.writers(&daemon);
    let status = daemon.wait_for_end(END_WITHIN);
    assert!(tracer::has_injected(&daemon), "no flush failed; {status}\n{}", daemon.log());
    assert!(!status.success(), "a failed flush ended it with {status}\n{}", daemon.log());
    let seen = writers.finish();
    daemon.run_under(Vec::new());
    daemon.restart();
    trial.expect_clean(&daemon, seen, 1);
    trial.end();
}

/// As above on a disk that goes on failing and loses what was not flushed.
#[test]
fn a_disk_that_stops_flushing_loses_nothing() {
    let Some(mut rig) = Rig::start("broken-disk") else { return };
    let mut trial = Trial::begin("broken disk", &rig.daemon, ONCE_WITHIN);
    let after = 20 + trial.choices.below(80);
    rig.disk.misbehave(&json!({"fsync": "EIO", "after": after}));
    let writers = trial.writers(&rig.daemon);
    let status = rig.daemon.wait_for_end(END_WITHIN);
    assert!(!status.success(), "a failed flush ended it with {status}\n{}", rig.daemon.log());
    let seen = writers.finish();
    rig.lose_power(Keeps::Nothing, 0);
    rig.daemon.restart();
    trial.expect_clean(&rig.daemon, seen, 1);
    trial.end();
}

/// Without room nothing is acknowledged, reads go on, and room is all it takes to go on writing.
#[test]
fn a_full_disk_loses_nothing_and_heals() {
    let Some(mut rig) = Rig::start("full-disk") else { return };
    let kept = format!("{}/v2/keys/kept", rig.daemon.url());
    assert_eq!(http("PUT", &kept, "value=1").status, 201);
    let mut trial = Trial::begin("full disk", &rig.daemon, ONCE_WITHIN);
    let after = 20 + trial.choices.below(80);
    rig.disk.misbehave(&json!({"write": "ENOSPC", "after": after}));
    let writers = trial.writers(&rig.daemon);
    wait_until("a write fails", ROUND_WITHIN, || writers.unclear() > 0);
    let read = http("GET", &format!("{kept}?quorum=true"), "");
    assert_eq!(read.status, 200, "no reads on a full disk: {read:?}");
    expect_alarm(&rig.daemon, true);
    let refused = http("PUT", &kept, "value=2");
    assert!(refused.status == 500 && refused.body.contains("no space"), "{refused:?}");
    rig.disk.behave();
    let before = writers.acknowledged();
    wait_until("writes go on", RECOVER_WITHIN, || writers.acknowledged() > before + 100);
    expect_alarm(&rig.daemon, false);
    writers.doom();
    rig.lose_power(Keeps::Nothing, 0);
    let seen = writers.finish();
    rig.daemon.restart();
    trial.expect_clean(&rig.daemon, seen, 1);
    trial.end();
}

/// Whether the disk is full is said wherever somebody would look.
fn expect_alarm(daemon: &Daemon, full: bool) {
    let get = |path: &str| http("GET", &format!("{}{path}", daemon.url()), "");
    let health = if full { 503 } else { 200 };
    wait_until("the health is told", RECOVER_WITHIN, || get("/health").status == health);
    assert_eq!(get("/health?exclude=NOSPACE").status, 200);
    let status = get("/althing/v1/status").body;
    assert!(status.contains(&format!("\"noSpace\":{full}")), "{status}");
    let gauge = format!("althing_disk_full {}", u8::from(full));
    assert!(get("/metrics").body.contains(&gauge));
}

/// Room for the log and none for a checkpoint, once: it is written again, and writes go on. Only
/// the root page is written in place, where a real disk has room; the tracer refuses that too, and
/// then the daemon ends and finds everything again.
#[test]
fn a_checkpoint_without_room_heals_and_loses_nothing() {
    let mut daemon = Daemon::start("full-checkpoint");
    daemon.kill9();
    let when = 20 + Seeded::new(seed()).below(60);
    let once = ["pwrite64", "pwritev"].map(|call| format!("{call}:error=ENOSPC:when={when}"));
    let Some(tracer) = tracer::on_the_checkpoint(&daemon, &[&once[0], &once[1]]) else { return };
    daemon.run_under(tracer);
    daemon.restart();
    let mut trial = Trial::begin("full checkpoint", &daemon, ONCE_WITHIN);
    let writers = trial.writers(&daemon);
    wait_until("a checkpoint fails", ROUND_WITHIN, || tracer::has_injected(&daemon));
    let before = writers.acknowledged();
    wait_until("writes go on, or the daemon ends", RECOVER_WITHIN, || {
        writers.acknowledged() > before + 2_000 || daemon.has_ended()
    });
    if daemon.has_ended() {
        let (status, log) = (daemon.wait_for_end(END_WITHIN), daemon.log());
        assert!(!status.success() && log.contains("MDB_PANIC"), "ended with {status}\n{log}");
    }
    writers.doom();
    daemon.kill9();
    let seen = writers.finish();
    daemon.run_under(Vec::new());
    daemon.restart();
    trial.expect_clean(&daemon, seen, 1);
    trial.end();
}
