//! Deterministic simulation: whole clusters of the real core in virtual time, with faults.
//!
//! Each seed is a run of one or three members (and a newcomer that joins by snapshot) on disks
//! that lose and tear what was not flushed, a network that loses, doubles, delays and parts, and
//! clocks that run at different rates; clients read and write all the time. The promises of
//! `truth.rs` are checked as the run goes on, linearizability and agreement at its end. Then the
//! other way round: `Bug`s are lies the environment tells the members, and each must be noticed.
//!
//! * `ALTHING_SIM_SEED` is the first seed, `ALTHING_SIM_SEEDS` their number, and
//!   `ALTHING_SIM_SECONDS` the virtual seconds of each. A failure names the seed and the event.
//! * CI: 500 seeds of 60 s in a release build.
//!
//! Sources: contracts/simulation.md.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test tells what it found")]
#![expect(clippy::indexing_slicing, reason = "the simulator's tables are its own")]

#[path = "sim/chance.rs"]
mod chance;
#[path = "sim/checker.rs"]
mod checker;
#[path = "sim/clients.rs"]
mod clients;
#[path = "sim/host.rs"]
mod host;
#[path = "sim/truth.rs"]
mod truth;
#[path = "sim/world.rs"]
mod world;

use std::ops::Range;
use std::time::Instant;
use world::{Bug, Report, Scenario};

fn option(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

fn scenario(seed: u64) -> Scenario {
    let seconds = option("ALTHING_SIM_SECONDS", 60);
    let voters = if seed % 4 == 3 { 1 } else { 3 };
    Scenario { seed, voters, seconds, learner: seed % 4 != 1, restless: seed % 8 == 5, bug: None }
}

fn run(scenario: Scenario) -> Report {
    world::run(scenario).unwrap_or_else(|breach| panic!("{breach}"))
}

#[test]
fn members_keep_their_promises() {
    let (first, count) = (option("ALTHING_SIM_SEED", 0), option("ALTHING_SIM_SEEDS", 12));
    let (began, mut total, mut virtual_seconds) = (Instant::now(), Report::default(), 0);
    for seed in first..first + count {
        let scenario = scenario(seed);
        let report = run(scenario);
        virtual_seconds += scenario.seconds;
        total.events += report.events;
        total.asked += report.asked;
        total.answered += report.answered;
        total.crashes += report.crashes;
        total.elections += report.elections;
        total.snapshots += report.snapshots;
        total.expired += report.expired;
        total.undecided += report.undecided;
        total.cut_off += report.cut_off;
        total.disk_failures += report.disk_failures;
    }
    let wall = began.elapsed().as_secs_f64();
    println!("{count} seeds from {first}: {total:?}");
    let speed = virtual_seconds as f64 / wall;
    println!("{virtual_seconds} virtual seconds in {wall:.1} s: {speed:.0} times real time");
    assert!(total.asked >= 20 * virtual_seconds / 2, "too few operations: {total:?}");
    assert!(total.undecided * 50 <= count * clients::REGISTERS as u64, "{total:?}");
}

#[test]
fn a_seed_has_one_trace() {
    for seed in [1, 2, 3] {
        let scenario = Scenario { seconds: 30, ..scenario(seed) };
        assert_eq!(run(scenario), run(scenario), "seed {seed}");
    }
}

/// The lie must be noticed within so many seeds, by what it does.
fn is_noticed(bug: Bug, seeds: Range<u64>, symptoms: &[&str]) {
    for seed in seeds {
        // What a vote is good for shows where leaders come and go.
        let normal = scenario(seed);
        let scenario = if bug == Bug::ForgottenVote {
            Scenario { voters: 3, learner: false, restless: true, ..normal }
        } else {
            normal
        };
        if let Err(breach) = world::run(Scenario { bug: Some(bug), ..scenario }) {
            println!("{bug:?}: {breach}");
            assert!(symptoms.iter().any(|symptom| breach.contains(symptom)), "{breach}");
            return;
        }
    }
    panic!("{bug:?} was not noticed");
}

#[test]
fn an_early_ack_is_noticed() {
    is_noticed(Bug::EarlyAck, 0..10, &["acknowledged", "panicked", "another record", "in state"]);
}

#[test]
fn a_lost_watch_event_is_noticed() {
    is_noticed(Bug::LostWatchEvent, 0..10, &["a watcher"]);
}

#[test]
fn an_early_expiry_is_noticed() {
    is_noticed(Bug::EarlyExpiry, 0..10, &[" lived "]);
}

#[test]
fn a_stale_read_is_noticed() {
    is_noticed(Bug::StaleRead, 0..10, &["not linearizable"]);
}

#[test]
fn a_forgotten_vote_is_noticed() {
    // It takes a crash between two votes of one term: seldom, so the search begins near a find.
    is_noticed(Bug::ForgottenVote, 250..650, &["two leaders"]);
}

#[test]
fn an_early_thaw_is_noticed() {
    is_noticed(Bug::EarlyThaw, 0..10, &["another record", "in state"]);
}
