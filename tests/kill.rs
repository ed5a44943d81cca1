//! `kill -9` at any moment loses nothing that was acknowledged.
//!
//! Sixteen clients write while the daemon is killed and started again on the same data; some
//! starts are killed too. After each start everything is read back and `crash::history` judges.
//!
//! That the judge is awake is shown twice: by histories made up to be wrong (`kill/fabricated.rs`),
//! and by the same daemon under a tracer that confirms writes to the log without doing them.
//!
//! `kill/owed.rs` kills it in the middle of a render pass: the reload is still owed.
//!
//! `ALTHING_KILL_ROUNDS` (20) says how many kills; docs/benchmarks.md has the long run's command.
//! The time from start to serving is printed, not judged: `althing bench` measures it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "the seed and what was done, for who reads the run")]

mod common;
mod crash;
#[path = "kill/fabricated.rs"]
mod fabricated;
#[path = "kill/owed.rs"]
mod owed;

use common::{Daemon, wait_until};
use crash::{Seeded, Trial, number, tracer};
use std::thread;
use std::time::Duration;

/// Longest life of a daemon: longer than its checkpoints are apart.
const LIFE_MAX: Duration = Duration::from_millis(1_500);
/// Longest life of a daemon that is killed while it starts.
const START_MAX: Duration = Duration::from_millis(100);
/// For what is done once, and for each round, on a busy machine in a debug build.
const ONCE_WITHIN: Duration = Duration::from_secs(60);
const ROUND_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let rounds = number("ALTHING_KILL_ROUNDS", 20);
    let within = ONCE_WITHIN + ROUND_WITHIN * u32::try_from(rounds).unwrap();
    let mut daemon = Daemon::start("kill");
    let mut trial = Trial::begin("kill -9", &daemon, within);
    for _ in 0..rounds {
        let writers = trial.writers(&daemon);
        thread::sleep(trial.choices.moment(LIFE_MAX));
        writers.doom();
        daemon.kill9();
        let seen = writers.finish();
        let starts = kill_some_starts(&mut daemon, &mut trial.choices);
        daemon.restart();
        trial.expect_clean(&daemon, seen, starts + 1);
    }
    trial.end();
}

/// Every third daemon is killed while it recovers, up to three times.
fn kill_some_starts(daemon: &mut Daemon, choices: &mut Seeded) -> u64 {
    let starts = if choices.below(3) == 0 { 1 + choices.below(3) } else { 0 };
    for _ in 0..starts {
        daemon.kill9_while_it_starts(choices.moment(START_MAX));
    }
    starts
}

/// The tracer tells the daemon that bytes were written, one by one, and writes none.
///
/// A daemon whose checkpoint got ahead of such a log refuses to start: it caught the lie itself,
/// which says nothing about the judge. So then another one tries.
#[test]
fn a_daemon_that_acknowledges_before_it_writes_is_caught() {
    const TRIES: u32 = 8;
    for _ in 0..TRIES {
        match acknowledge_before_writing() {
            None => return,
            Some(Ok(breaches)) => {
                let is_lost = breaches.iter().any(|breach| breach.starts_with("lost: "));
                assert!(is_lost, "{breaches:#?}");
                return;
            }
            Some(Err(refused)) => eprintln!("caught by the daemon: {refused}"),
        }
    }
    panic!("{TRIES} daemons refused to start; the judge was never asked");
}

/// What the judge found, or why the daemon refused to start. `None` when there is no tracer.
fn acknowledge_before_writing() -> Option<Result<Vec<String>, String>> {
    // The start and the first answers are honest.
    const LIES_FROM: u64 = 150;
    // More answers than clients can wait for, so that one at least was a lie; but soon enough that
    // a checkpoint, which comes every second, seldom gets ahead of the log.
    const LIES: u64 = 16;
    let mut daemon = Daemon::start("lying-log");
    daemon.kill9();
    let lies = ["pwrite64", "write"].map(|call| format!("{call}:retval=1:when={LIES_FROM}+"));
    let tracer = tracer::on_the_log(&daemon, &[&lies[0], &lies[1]])?;
    daemon.run_under(tracer);
    daemon.restart();
    let mut trial = Trial::begin("ack before write", &daemon, ONCE_WITHIN);
    let writers = trial.writers(&daemon);
    wait_until("a write was faked", ONCE_WITHIN, || tracer::has_injected(&daemon));
    let before = writers.acknowledged();
    wait_until("it was acknowledged", ONCE_WITHIN, || writers.acknowledged() > before + LIES);
    writers.doom();
    daemon.kill9();
    let seen = writers.finish();
    daemon.run_under(Vec::new());
    if let Err(refused) = daemon.try_restart() {
        return Some(Err(refused));
    }
    Some(Ok(trial.judge(&daemon, seen, 1).expect_err("lost writes were not missed")))
}
