//! Histories made up to be wrong: a checker that lets one pass would prove nothing.
//!
//! Each test takes the same good round, breaks one thing and names the breach it expects.

use crate::crash::history::{Call, Outcome, Reading, Round, Settled, Verb, Version, check};

fn version(key: &str, value: &str, index: u64) -> Version {
    Version { key: key.to_owned(), value: value.to_owned(), index }
}

fn call(begin: u64, key: &str, value: &str, verb: Verb, outcome: Outcome) -> Call {
    let (key, value) = (key.to_owned(), value.to_owned());
    Call { begin, end: begin + 5, key, value, verb, outcome }
}

fn reading(begin: u64, index: u64, versions: &[Version]) -> Reading {
    Reading { begin, end: begin + 5, index, versions: versions.to_vec() }
}

fn settled() -> Settled {
    Settled::at(&reading(0, 10, &[version("/a", "old", 10)]))
}

/// Five writes: `/a` twice, the second over the first; one in order; one swap; one that nobody
/// knows of, which happened.
fn good() -> Round {
    let (one, two) = (version("/a", "one", 11), version("/a", "two", 12));
    let (first, swapped) = (version("/q/11", "post", 13), version("/c", "swap", 14));
    let last = version("/a", "late", 15);
    let before = Some(version("/a", "old", 10));
    let calls = vec![
        call(10, "/a", "one", Verb::Put, Outcome::Done(one.clone(), before)),
        call(20, "/a", "two", Verb::Put, Outcome::Done(two, Some(one))),
        call(30, "/q", "post", Verb::Post, Outcome::Done(first.clone(), None)),
        call(40, "/c", "swap", Verb::Swap(None), Outcome::Done(swapped.clone(), None)),
        call(50, "/c", "no", Verb::Swap(Some("x".to_owned())), Outcome::Refused(14)),
        call(60, "/a", "late", Verb::Put, Outcome::Unknown),
    ];
    let readings = vec![reading(45, 14, std::slice::from_ref(&swapped))];
    Round { calls, readings, starts: 1, after: reading(100, 15, &[last, first, swapped]) }
}

#[track_caller]
fn is_caught(expected: &str, tamper: impl FnOnce(&mut Round)) {
    let mut round = good();
    tamper(&mut round);
    let breaches = check(&settled(), &round).expect_err("it passed");
    assert!(breaches.iter().any(|breach| breach.contains(expected)), "{breaches:#?}");
}

fn shown<'a>(round: &'a mut Round, key: &str) -> &'a mut Version {
    round.after.versions.iter_mut().find(|version| version.key == key).unwrap()
}

#[test]
fn a_good_history_passes() {
    let after = check(&settled(), &good()).unwrap();
    assert_eq!(after, Settled::at(&good().after));
    let nothing = Round { after: reading(200, 15, &good().after.versions), ..Round::default() };
    assert_eq!(check(&after, &nothing), Ok(after));
}

#[test]
fn an_unknown_write_may_be_absent() {
    let mut round = good();
    *shown(&mut round, "/a") = version("/a", "two", 12);
    round.after.index = 14;
    check(&settled(), &round).unwrap();
}

#[test]
fn a_lost_acknowledgement_is_caught() {
    is_caught("lost: /c", |round| round.after.versions.retain(|version| version.key != "/c"));
    is_caught("lost: /q/11", |round| round.after.versions.retain(|one| one.key != "/q/11"));
    is_caught("lost: /a", |round| *shown(round, "/a") = version("/a", "one", 11));
    is_caught("lost: /a", |round| *shown(round, "/a") = version("/a", "old", 10));
}

#[test]
fn what_stood_before_the_round_is_not_forgotten() {
    let before = Settled::at(&reading(0, 10, &[version("/a", "old", 10), version("/z", "z", 9)]));
    let breaches = check(&before, &good()).expect_err("it passed");
    assert!(breaches.iter().any(|breach| breach.contains("lost: /z")), "{breaches:#?}");
}

#[test]
fn a_reused_index_is_caught() {
    is_caught("one index, two writes", |round| shown(round, "/a").index = 14);
    is_caught("index reused: /a = \"late\"", |round| shown(round, "/a").index = 13);
    is_caught("index reused", |round| {
        round.readings = vec![reading(45, 17, &[])];
        shown(round, "/a").index = 16;
        round.after.index = 17;
    });
}

#[test]
fn a_write_done_twice_is_caught() {
    is_caught("done twice", |round| {
        round.after.versions.push(version("/q/15", "post", 15));
    });
    is_caught("done twice", |round| shown(round, "/c").index = 15);
    is_caught("indexes for at most", |round| round.after.index = 17);
}

#[test]
fn an_index_that_goes_back_is_caught() {
    is_caught("index 9 after", |round| round.after.index = 9);
    is_caught("index 12 after 14", |round| round.calls[4].outcome = Outcome::Refused(12));
    is_caught("index 13 after 14", |round| {
        round.readings.push(reading(55, 13, &[]));
    });
}

#[test]
fn a_broken_chain_is_caught() {
    is_caught("which hides", |round| {
        let first = Some(version("/a", "old", 10));
        round.calls[1].outcome = Outcome::Done(version("/a", "two", 12), first);
    });
    is_caught("which hides", |round| {
        round.calls[0].outcome = Outcome::Done(version("/a", "one", 11), None);
    });
    is_caught("swapped", |round| round.calls[3].verb = Verb::Swap(Some("other".to_owned())));
}

#[test]
fn a_write_nobody_did_is_caught() {
    is_caught("nobody wrote", |round| round.after.versions.push(version("/b", "ghost", 15)));
    is_caught("nobody wrote", |round| *shown(round, "/c") = version("/c", "no", 15));
    is_caught("nobody wrote", |round| shown(round, "/q/11").key = "/elsewhere/11".to_owned());
}

#[test]
fn an_unknown_write_may_not_come_late() {
    let mut missed = good();
    *shown(&mut missed, "/a") = version("/a", "two", 12);
    missed.after.index = 14;
    let before = check(&settled(), &missed).unwrap();
    let later = Round { after: reading(200, 15, &good().after.versions), ..Round::default() };
    let breaches = check(&before, &later).expect_err("it passed");
    assert!(breaches.iter().any(|breach| breach.contains("or before")), "{breaches:#?}");
}
