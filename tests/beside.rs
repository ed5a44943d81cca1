//! The v2 door beside the real etcd: the same random requests to both, the same answers from both.
//!
//! `conformance.rs` plays what was recorded; here nobody chose the requests. `beside/grammar.rs`
//! makes sequences of them from a seed, `beside/pair.rs` plays each to both servers on raw
//! connections, `beside/judge.rs` compares status, headers and body byte by byte, and a sequence
//! that shows a difference is cut down by `beside/shrink.rs` and printed as lines for curl.
//!
//! What docs/divergence.md lists is left out of the grammar by name; any other difference is a bug.
//!
//! `beside/etcdctl.rs` does the same one floor up: random commands of the real `etcdctl`.
//!
//! * `ALTHING_BESIDE_SEED` is the first seed, `ALTHING_BESIDE_ROUNDS` the number of sequences, one
//!   a seed. Without them: some fixed seeds, then as many new ones. A failure names its seed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "the seeds, for who reads the run")]
#![expect(clippy::indexing_slicing, reason = "tables and bytes of the test's own")]

#[path = "sim/chance.rs"]
#[expect(dead_code, reason = "the simulation needs more of it")]
mod chance;
mod common;
#[path = "beside/etcdctl.rs"]
mod etcdctl;
#[path = "beside/grammar.rs"]
mod grammar;
#[path = "beside/judge.rs"]
mod judge;
#[path = "beside/pair.rs"]
mod pair;
#[path = "beside/request.rs"]
mod request;
#[path = "beside/shrink.rs"]
mod shrink;
#[path = "beside/words.rs"]
mod words;

use common::{Daemon, Etcd, program};
use pair::Pair;
use request::Step;
use std::env;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Sequences of the fixed seeds, and of the new ones.
const ROUNDS: u64 = 100;
/// Sequences of commands; each starts fifty processes.
const ROUNDS_OF_ETCDCTL: u64 = 2;

/// What etcd must have answered at least once, or the grammar asks for too little.
const ANSWERS: &[&str] = &[
    "200 get",
    "200 set",
    "201 set",
    "201 create",
    "200 update",
    "200 compareAndSwap",
    "200 compareAndDelete",
    "200 delete",
    "404 100",
    "412 101",
    "403 102",
    "400 104",
    "412 105",
    "400 107",
    "403 108",
    "400 201",
    "400 202",
    "400 203",
    "400 209",
    "400 210",
    "400 211",
    "400 212",
    "404",
    "405",
    "415",
];

fn option(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn every_answer_is_etcds() {
    let Some(etcd) = program("etcd") else { return };
    let (etcd, althing) = (Etcd::start(&etcd), Daemon::start("beside"));
    let mut pair = Pair::new(etcd.url(), althing.url());
    let rounds = option("ALTHING_BESIDE_ROUNDS").unwrap_or(ROUNDS);
    if let Some(seed) = option("ALTHING_BESIDE_SEED") {
        return compare(&mut pair, seed, rounds);
    }
    compare(&mut pair, 0, ROUNDS);
    for answer in ANSWERS {
        assert!(pair.seen.contains_key(*answer), "never asked for: {answer}");
    }
    compare(&mut pair, new_seed(), rounds);
}

#[test]
fn every_command_of_etcdctl_ends_as_with_etcd() {
    let (Some(etcd), Some(etcdctl)) = (program("etcd"), program("etcdctl")) else { return };
    let (etcd, althing) = (Etcd::start(&etcd), Daemon::start("beside-etcdctl"));
    let mut pair = Pair::new(etcd.url(), althing.url());
    let seed = option("ALTHING_BESIDE_SEED").unwrap_or_else(new_seed);
    let rounds =
        option("ALTHING_BESIDE_ROUNDS").map_or(ROUNDS_OF_ETCDCTL, |rounds| 1 + rounds / 20);
    eprintln!("ALTHING_BESIDE_SEED={seed} ({rounds} rounds of etcdctl)");
    (seed..seed + rounds).for_each(|seed| etcdctl::compare(&etcdctl, &mut pair, seed));
}

fn new_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() * 1_000
}

#[track_caller]
fn compare(pair: &mut Pair, first: u64, rounds: u64) {
    eprintln!("ALTHING_BESIDE_SEED={first} ALTHING_BESIDE_ROUNDS={rounds}");
    let (began, mut steps) = (Instant::now(), 0);
    for seed in first..first + rounds {
        let sequence = grammar::sequence(seed);
        steps += sequence.len();
        // Once more, so that a hiccup of the machine is not taken for a difference.
        if pair.play(&sequence).is_some() && pair.play(&sequence).is_some() {
            panic!("{}", report(pair, seed, sequence));
        }
    }
    eprintln!("{steps} requests, compared in {:.1?}: {:?}", began.elapsed(), pair.seen);
}

/// The shortest sequence that shows the difference, and the difference.
fn report(pair: &mut Pair, seed: u64, sequence: Vec<Step>) -> String {
    let shortest = shrink::shrink(sequence, |steps| pair.play(steps).is_some());
    let Some(difference) = pair.play(&shortest) else {
        return format!("seed {seed}: a difference that does not stay");
    };
    let lines: Vec<String> = shortest.iter().map(|step| step.to_curl(difference.base)).collect();
    let at = difference.at + 1;
    format!("seed {seed}: line {at} of\n{}\ndiffers in {difference}", lines.join("\n"))
}
