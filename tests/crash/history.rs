//! Whether what clients saw around a crash can have been one durable store: the checker.
//!
//! A *round* is what clients did from one start of the daemon until it died, and what one
//! linearizable reading of everything shows after the next start. `check` takes what stood before
//! the round and the round, and returns what stands after it, or each breach as a line.
//!
//! How data passes: every value is written once, so a value names its write. `see` notes each
//! version of a key that anybody was shown (in an answer, as the overwritten node, in a reading)
//! and compares it with what is known; the rules below then look at the whole.
//!
//! Rules:
//! * an acknowledged write is there after the crash, or a newer write to its key is;
//! * a write whose outcome is unknown happened once or never, and never after the reading that
//!   missed it;
//! * one index names one write, also across the crash, and no index goes back: what a request
//!   shows is at least what any request finished before it has shown, a write's own index more;
//! * the writes of a key form a chain: each overwrote the one before it;
//! * there are no more indexes than writes.
//!
//! Deliberately not a full linearizability check: the readings of single keys are used as
//! evidence, their own order is not judged beyond their indexes.
//!
//! Source: the idea of unique values from Kingsbury's Jepsen tests of registers and queues.

use std::collections::{BTreeMap, HashMap};

/// Writes of its own a member may do at each start: etcd's records its name.
const OWN_WRITES_PER_START: u64 = 1;

/// One write to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The whole key.
    pub(crate) key: String,
    /// Unique among all writes of a test.
    pub(crate) value: String,
    /// `modifiedIndex`.
    pub(crate) index: u64,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Set the key.
    Put,
    /// Make a key in order below the key.
    Post,
    /// Set the key if it has this value, or if there is none.
    Swap(Option<String>),
}

/// What a client was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged: the new version, and what it says it overwrote.
    Done(Version, Option<Version>),
    /// Refused for good; the store's index then.
    Refused(u64),
    /// No answer, or one that does not say.
    Unknown,
}

/// One request to write, and its answer. Times are nanoseconds of one clock.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) verb: Verb,
    pub(crate) outcome: Outcome,
}

/// One linearizable answer to a read: the store's index, and the versions it showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) index: u64,
    pub(crate) versions: Vec<Version>,
}

/// From one start of the daemon to the reading after the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) calls: Vec<Call>,
    pub(crate) readings: Vec<Reading>,
    /// Starts of the daemon since the reading before this round.
    pub(crate) starts: u64,
    /// Everything there is after the last of them.
    pub(crate) after: Reading,
}

/// What stands between two rounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    versions: BTreeMap<String, Version>,
    index: u64,
}

impl Settled {
    /// What a reading of everything shows.
    pub(crate) fn at(reading: &Reading) -> Self {
        let named = |version: &Version| (version.key.clone(), version.clone());
        Self { versions: reading.versions.iter().map(named).collect(), index: reading.index }
    }
}

/// Judges one round.
///
/// # Errors
/// Every breach, one line each.
pub(crate) fn check(settled: &Settled, round: &Round) -> Result<Settled, Vec<String>> {
    let mut check = Check::new(settled, round);
    check.see_all();
    check.indexes_never_go_back();
    check.writes_form_chains();
    check.nothing_acknowledged_is_lost();
    check.no_index_without_a_write();
    if check.breaches.is_empty() { Ok(Settled::at(&round.after)) } else { Err(check.breaches) }
}

struct Check<'a> {
    settled: &'a Settled,
    round: &'a Round,
    /// The round's calls by their value.
    sent: HashMap<&'a str, &'a Call>,
    /// Every version seen, by its index and by its value.
    by_index: BTreeMap<u64, &'a Version>,
    by_value: HashMap<&'a str, &'a Version>,
    breaches: Vec<String>,
}

impl<'a> Check<'a> {
    fn new(settled: &'a Settled, round: &'a Round) -> Self {
        let sent: HashMap<_, _> =
            round.calls.iter().map(|call| (call.value.as_str(), call)).collect();
        assert_eq!(sent.len(), round.calls.len(), "the test wrote a value twice");
        let (by_index, by_value) = (BTreeMap::new(), HashMap::new());
        Self { settled, round, sent, by_index, by_value, breaches: Vec::new() }
    }

    fn breach(&mut self, what: String) {
        self.breaches.push(what);
    }

    fn see_all(&mut self) {
        for version in self.settled.versions.values() {
            self.see(version);
        }
        for call in &self.round.calls {
            if let Outcome::Done(version, before) = &call.outcome {
                if version.value != call.value {
                    self.breach(format!("{call:?} was answered with another's value"));
                }
                self.see(version);
                before.iter().for_each(|version| self.see(version));
            }
        }
        for version in self.readings().flat_map(|reading| &reading.versions) {
            self.see(version);
        }
    }

    fn readings(&self) -> impl Iterator<Item = &'a Reading> + use<'a> {
        self.round.readings.iter().chain([&self.round.after])
    }

    /// Notes a version somebody was shown; it must fit all that was noted before.
    fn see(&mut self, version: &'a Version) {
        let is_old = self.settled.versions.get(&version.key) == Some(version);
        if !is_old && !self.sent.get(&*version.value).is_some_and(|call| can_make(call, version)) {
            self.breach(format!("{} was shown, which nobody wrote there, or before", say(version)));
        }
        let index_names = *self.by_index.entry(version.index).or_insert(version);
        if index_names != version {
            let (one, two) = (say(index_names), say(version));
            self.breach(format!("one index, two writes: {one} and {two}"));
        }
        let first = *self.by_value.entry(&version.value).or_insert(version);
        if first != version {
            self.breach(format!("one write, done twice: {} and {}", say(first), say(version)));
        }
    }

    fn indexes_never_go_back(&mut self) {
        let mut shown: Vec<(u64, u64)> = Vec::new();
        let mut requests: Vec<(u64, u64, String)> = Vec::new();
        for call in &self.round.calls {
            if let Outcome::Done(Version { index, .. }, _) | Outcome::Refused(index) = call.outcome
            {
                shown.push((call.end, index));
                requests.push((call.begin, index, format!("{} {:?}", call.key, call.outcome)));
            }
        }
        for reading in self.readings() {
            shown.push((reading.end, reading.index));
            requests.push((reading.begin, reading.index, "a reading".to_owned()));
        }
        let highest = highest_by_time(self.settled.index, shown);
        for (begin, index, what) in requests {
            let before = highest_before(&highest, begin);
            if index < before {
                self.breach(format!("index {index} after {before} was shown: {what}"));
            }
        }
        for version in self.by_value.values() {
            let Some(call) = self.sent.get(&*version.value) else { continue };
            let before = highest_before(&highest, call.begin);
            if version.index <= before {
                let what = say(version);
                self.breaches.push(format!("index reused: {what}, after {before} was shown"));
            }
        }
    }

    fn writes_form_chains(&mut self) {
        let mut keys: BTreeMap<&str, BTreeMap<u64, &Version>> = BTreeMap::new();
        for version in self.by_value.values() {
            keys.entry(&version.key).or_default().insert(version.index, version);
        }
        for call in &self.round.calls {
            let Outcome::Done(version, before) = &call.outcome else { continue };
            let chain = keys.get(&*version.key);
            let last = chain.and_then(|chain| chain.range(..version.index).next_back());
            let last = last.map(|(_, version)| *version);
            if last != before.as_ref() {
                let (last, before) = (last.map(say), before.as_ref().map(say));
                let what = say(version);
                self.breach(format!("{what} overwrote {before:?}, which hides {last:?}"));
            }
            if let Verb::Swap(expected) = &call.verb
                && before.as_ref().map(|before| &before.value) != expected.as_ref()
            {
                self.breach(format!("{} swapped {before:?} for {expected:?}", say(version)));
            }
        }
    }

    fn nothing_acknowledged_is_lost(&mut self) {
        let mut expected: BTreeMap<&str, &Version> = BTreeMap::new();
        let done = self.round.calls.iter().filter_map(|call| match &call.outcome {
            Outcome::Done(version, _) => Some(version),
            Outcome::Refused(_) | Outcome::Unknown => None,
        });
        for version in self.settled.versions.values().chain(done) {
            let latest = expected.entry(&version.key).or_insert(version);
            if version.index > latest.index {
                *latest = version;
            }
        }
        let shown: BTreeMap<&str, &Version> =
            self.round.after.versions.iter().map(|version| (&*version.key, version)).collect();
        for (key, latest) in &expected {
            let shown = shown.get(key).copied();
            if shown.is_none_or(|shown| shown.index < latest.index) {
                let shown = shown.map(say);
                self.breach(format!("lost: {} was acknowledged, {shown:?} is there", say(latest)));
            }
        }
        for (key, shown) in shown {
            let is_known = expected.get(key) == Some(&shown);
            let call = self.sent.get(&*shown.value);
            if !is_known && call.is_none_or(|call| call.outcome != Outcome::Unknown) {
                self.breach(format!("{} is there, but was not written last", say(shown)));
            }
        }
    }

    /// A write that was done twice and then overwritten leaves no other trace.
    fn no_index_without_a_write(&mut self) {
        let calls = self.round.calls.iter();
        let writes = calls.filter(|call| !matches!(call.outcome, Outcome::Refused(_))).count();
        let most = writes as u64 + self.round.starts * OWN_WRITES_PER_START;
        let used = self.round.after.index.saturating_sub(self.settled.index);
        if used > most {
            self.breach(format!("{used} indexes for at most {most} writes: some done twice"));
        }
    }
}

/// Whether the call, if it happened, may have made this version.
fn can_make(call: &Call, version: &Version) -> bool {
    let below = version.key.strip_prefix(call.key.as_str());
    let is_its_key = match call.verb {
        Verb::Put | Verb::Swap(_) => below == Some(""),
        Verb::Post => below.is_some_and(|name| name.len() > 1 && name.starts_with('/')),
    };
    is_its_key && !matches!(call.outcome, Outcome::Refused(_))
}

/// `(time, highest index shown until then)`, ascending, from `(time, index)`.
fn highest_by_time(floor: u64, mut shown: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    shown.push((0, floor));
    shown.sort_unstable();
    let mut highest = 0;
    for (_, index) in &mut shown {
        highest = highest.max(*index);
        *index = highest;
    }
    shown
}

/// The highest index shown before `time`.
fn highest_before(highest: &[(u64, u64)], time: u64) -> u64 {
    let later = highest.partition_point(|(shown, _)| *shown < time);
    later.checked_sub(1).map_or(0, |last| highest[last].1)
}

/// A version in a few words: values may be long.
fn say(version: &Version) -> String {
    let value: String = version.value.chars().take(24).collect();
    format!("{} = {value:?} at {}", version.key, version.index)
}
