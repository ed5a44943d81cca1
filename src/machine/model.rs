//! The machine against a model, by random.
//!
//! The model is v2's tree written the naive way: two maps of text paths, everything looked up by
//! walking all of it, a copy of everything for every revision. It shares no code with the machine
//! but the words (`Event`, `Node`, `Command`).

#[cfg(test)]
use crate::base::{
    BootId, ClusterTime, KeyRange, Rejected, Revision, Space, Ttl, WallTime, limits,
};
#[cfg(test)]
use crate::machine::bench::{BOOT, Bench, path};
#[cfg(test)]
use crate::machine::deadlines::Deadlines;
#[cfg(test)]
use crate::machine::{
    Action, Change, Command, Condition, Content, Due, Event, Inherited, Listing, Node, Outcome,
    Put, Sums, change_of, event_of, get_at,
};
#[cfg(test)]
use crate::store::{Position, Reader, Record};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

type Refusal = (u16, String);

fn refusal(rejected: &Rejected) -> Refusal {
    (rejected.v2_code(), String::from_utf8(rejected.cause()).unwrap())
}

/// A file or an explicit directory of the model.
#[derive(Clone, Debug, PartialEq)]
struct Item {
    value: String,
    created: u64,
    modified: u64,
    deadline: Option<(ClusterTime, WallTime)>,
    /// Counts writes, to tell an item from its successors.
    life: u64,
}

/// The model: `dirs` without the root.
#[derive(Clone, Debug, Default)]
struct Tree {
    files: BTreeMap<String, Item>,
    dirs: BTreeMap<String, Item>,
    lives: u64,
}

/// What an operation needs to know about its entry.
#[derive(Clone, Copy)]
struct Now {
    revision: u64,
    time: ClusterTime,
    wall: WallTime,
}

/// An event, and whether watchers hear of it.
type Told = (Event, bool);

fn node(at: &str, dir: bool, item: &Item) -> Node {
    Node {
        path: path(at),
        value: (!dir).then(|| item.value.clone().into()),
        dir,
        deadline: item.deadline.map(|(deadline, _)| deadline),
        expiration: item.deadline.map(|(_, expiration)| expiration),
        children: None,
        modified_index: Revision(item.modified),
        created_index: Revision(item.created),
    }
}

/// The node of an event that ends something.
fn gone(at: &str, dir: bool, item: &Item, now: Now) -> Node {
    let ended = Item { deadline: None, modified: now.revision, ..item.clone() };
    Node { value: None, ..node(at, dir, &ended) }
}

fn parents(at: &str) -> Vec<String> {
    at.match_indices('/').skip(1).map(|(slash, _)| at[..slash].to_owned()).collect()
}

fn is_path(key: &str) -> bool {
    key.len() > 1 && key.starts_with('/') && key[1..].split('/').all(|name| !name.is_empty())
}

fn below<'a>(map: &'a BTreeMap<String, Item>, at: &str) -> Vec<(&'a String, &'a Item)> {
    let prefix = if at == "/" { "/".to_owned() } else { format!("{at}/") };
    map.iter().filter(|(key, _)| key.starts_with(&prefix) && is_path(key)).collect()
}

impl Tree {
    fn is_dir(&self, at: &str) -> bool {
        at == "/" || self.dirs.contains_key(at) || !below(&self.files, at).is_empty()
    }

    /// What v2 shows of a directory.
    fn dir_item(&self, at: &str) -> Item {
        if let Some(item) = self.dirs.get(at) {
            return item.clone();
        }
        let first = below(&self.files, at)[0].1.created;
        Item { value: String::new(), created: first, modified: first, deadline: None, life: 0 }
    }

    /// The file at a path, or why there is none.
    fn file(&self, at: &str) -> Result<Item, Refusal> {
        for step in parents(at).into_iter().chain([at.to_owned()]) {
            if self.is_dir(&step) {
                continue;
            }
            return match self.files.get(&step) {
                Some(item) if step == at => Ok(item.clone()),
                Some(_) => Err((104, step)),
                None => Err((100, step)),
            };
        }
        Err((102, at.to_owned()))
    }

    fn make_parents(&mut self, at: &str, now: Now) -> Result<(), Refusal> {
        for parent in parents(at) {
            if self.dirs.contains_key(&parent) {
                continue;
            }
            let item = if self.is_dir(&parent) {
                self.dir_item(&parent)
            } else if self.files.contains_key(&parent) {
                return Err((104, parent));
            } else {
                let (created, modified) = (now.revision, now.revision);
                Item { value: String::new(), created, modified, deadline: None, life: 0 }
            };
            self.put(true, &parent, item);
        }
        Ok(())
    }

    fn put(&mut self, dir: bool, at: &str, item: Item) {
        self.lives += 1;
        let map = if dir { &mut self.dirs } else { &mut self.files };
        map.insert(at.to_owned(), Item { life: self.lives, ..item });
    }

    /// A new node, maybe in the place of a file.
    fn place(&mut self, at: &str, put: &Put, action: Action, now: Now) -> Result<Told, Refusal> {
        let old = self.files.get(at).cloned();
        self.make_parents(at, now)?;
        let (dir, mut value) = match &put.content {
            Content::Directory => (true, String::new()),
            Content::File(value) => (false, String::from_utf8(value.to_vec()).unwrap()),
        };
        let hushed = put.refresh && action != Action::Create;
        if hushed && !dir {
            value = old.as_ref().unwrap().value.clone();
        }
        let (created, modified) = (now.revision, now.revision);
        let item = Item { value, created, modified, deadline: deadline(put, now), life: 0 };
        self.files.remove(at);
        self.put(dir, at, item.clone());
        let previous = old.map(|old| node(at, false, &old));
        Ok((Event { action, node: node(at, dir, &item), previous }, hushed))
    }

    fn rewrite(&mut self, put: &Put, old: &Item, action: Action, now: Now) -> Told {
        let at = put.path.to_string();
        let given = match &put.content {
            Content::File(value) => String::from_utf8(value.to_vec()).unwrap(),
            Content::Directory => String::new(),
        };
        let value = if put.refresh { old.value.clone() } else { given };
        let (created, modified) = (old.created, now.revision);
        let item = Item { value, created, modified, deadline: deadline(put, now), life: 0 };
        self.put(false, &at, item.clone());
        let previous = Some(node(&at, false, old));
        (Event { action, node: node(&at, false, &item), previous }, put.refresh)
    }

    fn update(&mut self, put: &Put, now: Now) -> Result<Told, Refusal> {
        let at = put.path.to_string();
        if !self.is_dir(&at) {
            let old = self.file(&at)?;
            return Ok(self.rewrite(put, &old, Action::Update, now));
        }
        if matches!(&put.content, Content::File(value) if !value.is_empty()) {
            return Err((102, at));
        }
        let old = self.dir_item(&at);
        self.make_parents(&at, now)?;
        let item = Item { deadline: deadline(put, now), ..old.clone() };
        self.put(true, &at, item.clone());
        let told = Item { modified: now.revision, ..item };
        let previous = Some(node(&at, true, &old));
        let event = Event { action: Action::Update, node: node(&at, true, &told), previous };
        Ok((event, put.refresh))
    }

    fn end_file(&mut self, at: &str, action: Action, now: Now) -> Told {
        let old = self.files.remove(at).unwrap();
        let previous = Some(node(at, false, &old));
        (Event { action, node: gone(at, false, &old, now), previous }, false)
    }

    fn end_dir(&mut self, at: &str, action: Action, now: Now) -> Told {
        let old = self.dir_item(at);
        let prefix = format!("{at}/");
        let stays = |key: &String| key != at && !(key.starts_with(&prefix) && is_path(key));
        self.files.retain(|key, _| stays(key));
        self.dirs.retain(|key, _| stays(key));
        let previous = Some(node(at, true, &old));
        (Event { action, node: gone(at, true, &old, now), previous }, false)
    }

    fn delete(&mut self, at: &str, dir: bool, recursive: bool, now: Now) -> Result<Told, Refusal> {
        if !self.is_dir(at) {
            self.file(at)?;
            return Ok(self.end_file(at, Action::Delete, now));
        }
        if !dir && !recursive {
            return Err((102, at.to_owned()));
        }
        let full = !below(&self.files, at).is_empty() || !below(&self.dirs, at).is_empty();
        if full && !recursive {
            return Err((108, at.to_owned()));
        }
        Ok(self.end_dir(at, Action::Delete, now))
    }

    fn run(&mut self, command: &Command, now: Now) -> Result<Told, Refusal> {
        match command {
            Command::Set(put) => {
                let at = refuse_root(put)?;
                if self.is_dir(&at) {
                    return Err((102, at));
                }
                if put.refresh {
                    self.file(&at)?;
                }
                self.place(&at, put, Action::Set, now)
            }
            Command::Create(put) => {
                let at = refuse_root(put)?;
                self.create(&at, put, now)
            }
            Command::CreateInOrder(put) => {
                let parent = put.path.to_string();
                let at = format!("{}/{:020}", parent.trim_end_matches('/'), now.revision);
                self.create(&at, put, now)
            }
            Command::Update(put) => {
                refuse_root(put)?;
                self.update(put, now)
            }
            Command::CompareAndSwap(put, condition) => {
                let at = refuse_root(put)?;
                let old = self.file(&at)?;
                compare(condition, &old)?;
                Ok(self.rewrite(put, &old, Action::CompareAndSwap, now))
            }
            Command::Delete { path, .. } if path.is_root() => Err((107, "/".into())),
            Command::Delete { path, dir, recursive } => {
                self.delete(&path.to_string(), *dir, *recursive, now)
            }
            Command::CompareAndDelete { path, condition } => {
                let at = path.to_string();
                compare(condition, &self.file(&at)?)?;
                Ok(self.end_file(&at, Action::CompareAndDelete, now))
            }
            Command::Clock | Command::Expire(_) | Command::Compact { .. } => unreachable!(),
        }
    }

    fn create(&mut self, at: &str, put: &Put, now: Now) -> Result<Told, Refusal> {
        if self.is_dir(at) || self.files.contains_key(at) {
            return Err((105, at.to_owned()));
        }
        self.place(at, put, Action::Create, now)
    }

    /// What is due, in the order it expires.
    fn due(&self, time: ClusterTime) -> Vec<(ClusterTime, bool, String, u64)> {
        let files = self.files.iter().map(|(at, item)| (false, at, item));
        let dirs = self.dirs.iter().map(|(at, item)| (true, at, item));
        let mut due: Vec<_> = files
            .chain(dirs)
            .filter_map(|(dir, at, item)| Some((item.deadline?.0, dir, at.clone(), item.life)))
            .filter(|(deadline, ..)| *deadline <= time)
            .collect();
        due.sort();
        due
    }

    fn expire(&mut self, mut now: Now) -> (Vec<Told>, u64) {
        let (mut told, mut expired) = (Vec::new(), 0);
        for (_, dir, at, life) in self.due(now.time) {
            let map = if dir { &self.dirs } else { &self.files };
            if map.get(&at).is_none_or(|item| item.life != life) {
                continue;
            }
            told.push(if dir {
                self.end_dir(&at, Action::Expire, now)
            } else {
                self.end_file(&at, Action::Expire, now)
            });
            now.revision += 1;
            expired += 1;
        }
        (told, expired)
    }

    fn get(&self, at: &str, recursive: bool) -> Result<Node, Refusal> {
        if !self.is_dir(at) {
            return self.file(at).map(|item| node(at, false, &item));
        }
        let mut found = if at == "/" {
            let root =
                Item { value: String::new(), created: 0, modified: 0, deadline: None, life: 0 };
            node("/", true, &root)
        } else {
            node(at, true, &self.dir_item(at))
        };
        let prefix = if at == "/" { "/".to_owned() } else { format!("{at}/") };
        let mut names: Vec<&str> = below(&self.files, at)
            .into_iter()
            .chain(below(&self.dirs, at))
            .filter_map(|(key, _)| key[prefix.len()..].split('/').next())
            .filter(|name| !name.starts_with('_'))
            .collect();
        names.sort_unstable();
        names.dedup();
        let children = names.into_iter().map(|name| {
            let mut child = self.get(&format!("{prefix}{name}"), recursive).unwrap();
            if !recursive {
                child.children = None;
            }
            child
        });
        found.children = Some(children.collect());
        Ok(found)
    }
}

fn refuse_root(put: &Put) -> Result<String, Refusal> {
    if put.path.is_root() { Err((107, "/".into())) } else { Ok(put.path.to_string()) }
}

fn deadline(put: &Put, now: Now) -> Option<(ClusterTime, WallTime)> {
    let seconds = put.ttl?.seconds();
    let wall = WallTime(now.wall.0 + seconds * 1_000_000_000);
    Some((ClusterTime(now.time.0 + seconds * 1_000), wall))
}

fn compare(condition: &Condition, item: &Item) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    if let Some(given) = condition.value.as_ref().filter(|given| **given != *item.value.as_bytes())
    {
        causes.push(format!("[{} != {}]", String::from_utf8_lossy(given), item.value));
    }
    if let Some(given) = condition.index.filter(|given| given.0 != item.modified) {
        causes.push(format!("[{} != {}]", given.0, item.modified));
    }
    if causes.is_empty() { Ok(()) } else { Err((101, causes.join(" "))) }
}

/// One step of a random run.
#[derive(Clone, Debug)]
enum Step {
    Entry(Vec<Command>),
    /// What v3 will do.
    Raw(Vec<(String, Option<String>)>),
    Advance(u64),
    Expire,
    /// To so many revisions before the newest.
    Compact(u64),
    Checkpoint,
    Reopen,
    KeysPerTurn(usize),
    /// A sequence that was used before.
    Again(Vec<Command>),
}

fn any_path() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => Just("a"), 4 => Just("b"), 1 => Just("_h"), 1 => Just("a-b"), 1 => Just("a."),
        1 => Just("b0"),
    ];
    let names = prop::collection::vec(name, 0..4);
    names.prop_map(
        |names| if names.is_empty() { "/".into() } else { format!("/{}", names.join("/")) },
    )
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("1".to_owned()), Just("2".to_owned())]
}

prop_compose! {
    fn any_put()(
        at in any_path(), value in any_value(), dir in prop::bool::weighted(0.2),
        ttl in prop::option::weighted(0.4, 0u64..6), refresh in prop::bool::weighted(0.15),
    ) -> Put {
        Put {
            path: path(&at),
            content: if dir { Content::Directory } else { Content::File(value.into()) },
            ttl: ttl.and_then(Ttl::from_seconds),
            refresh,
        }
    }
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let value = prop::option::of(any_value().prop_map(Into::into));
    let index = prop::option::weighted(0.3, (2u64..20).prop_map(Revision));
    (value, index).prop_map(|(value, index)| Condition { value, index })
}

fn any_command() -> impl Strategy<Value = Command> {
    let delete = (any_path(), any::<bool>(), any::<bool>());
    prop_oneof![
        4 => any_put().prop_map(Command::Set),
        2 => any_put().prop_map(Command::Create),
        1 => any_put().prop_map(Command::CreateInOrder),
        2 => any_put().prop_map(Command::Update),
        2 => (any_put(), any_condition()).prop_map(|(p, c)| Command::CompareAndSwap(p, c)),
        2 => delete.prop_map(|(at, dir, recursive)| {
            Command::Delete { path: path(&at), dir, recursive }
        }),
        1 => (any_path(), any_condition()).prop_map(|(at, condition)| {
            Command::CompareAndDelete { path: path(&at), condition }
        }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let odd = prop_oneof![Just("/a/".to_owned()), Just("a".to_owned()), Just("/b//a".to_owned())];
    let key = prop_oneof![5 => any_path(), 1 => odd];
    let raw = (key, prop::option::of(any_value()));
    prop_oneof![
        12 => any_command().prop_map(|command| Step::Entry(vec![command])),
        6 => prop::collection::vec(any_command(), 0..5).prop_map(Step::Entry),
        3 => prop::collection::vec(raw, 1..3).prop_map(Step::Raw),
        3 => (0u64..4_000).prop_map(Step::Advance),
        3 => Just(Step::Expire),
        1 => (0u64..8).prop_map(Step::Compact),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        1 => prop_oneof![Just(1usize), Just(2), Just(3), Just(1_000)].prop_map(Step::KeysPerTurn),
        1 => any_command().prop_map(|command| Step::Again(vec![command])),
    ]
}

/// The machine and the model, side by side.
struct Pair {
    bench: Bench,
    tree: Tree,
    /// The tree as it was after each revision.
    past: BTreeMap<u64, Tree>,
}

impl Pair {
    fn new() -> Self {
        let past = BTreeMap::from([(1, Tree::default())]);
        Self { bench: Bench::new(), tree: Tree::default(), past }
    }

    fn revision(&self) -> u64 {
        self.bench.machine.revision().0
    }

    fn now(&self) -> Now {
        Now { revision: self.revision() + 1, time: self.bench.now, wall: self.bench.wall }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Entry(commands) => self.entry(commands),
            Step::Raw(pairs) => self.raw(pairs),
            Step::Advance(ms) => self.bench.advance(*ms),
            Step::Expire => self.expire(),
            Step::Compact(back) => self.compact(self.revision().saturating_sub(*back)),
            Step::Checkpoint => self.bench.checkpoint(),
            Step::Reopen => self.reopen(),
            Step::KeysPerTurn(keys) => self.bench.keys_per_turn = *keys,
            Step::Again(commands) => self.again(commands),
        }
    }

    fn entry(&mut self, commands: &[Command]) {
        let now = self.now();
        let mut tree = self.tree.clone();
        let told: Result<Vec<Told>, Refusal> =
            commands.iter().map(|command| tree.run(command, now)).collect();
        let (answer, changes) = self.bench.propose(commands.to_vec());
        match (told, answer.verdict) {
            (Err(expected), Err(rejected)) => {
                assert_eq!(refusal(&rejected), expected);
                assert!(changes.is_empty());
                assert_eq!(answer.revision.0 + 1, now.revision);
            }
            (Ok(told), Ok(outcomes)) => {
                let events = told.iter().map(|(event, _)| event.clone());
                let events: Vec<_> = events.map(|e| Outcome::Changed(Box::new(e))).collect();
                assert_eq!(outcomes, events);
                assert_eq!(answer.revision.0, now.revision - u64::from(commands.is_empty()));
                self.tree = tree;
                self.watched(&told, &changes);
            }
            (expected, actual) => panic!("expected {expected:?}, got {actual:?}"),
        }
        self.remember();
    }

    fn raw(&mut self, pairs: &[(String, Option<String>)]) {
        let revision = self.now().revision;
        let pairs: Vec<_> = pairs.iter().filter(|(key, _)| key != "/").cloned().collect();
        let changes = self.bench.raw(&pairs);
        for (key, value) in &pairs {
            match value {
                None => {
                    self.tree.files.remove(key);
                }
                Some(value) => {
                    let old = self.tree.files.get(key);
                    let created = old.map_or(revision, |old| old.created);
                    let (value, modified) = (value.clone(), revision);
                    let item = Item { value, created, modified, deadline: None, life: 0 };
                    self.tree.put(false, key, item);
                }
            }
        }
        assert_eq!(self.revision() + 1 - revision, u64::from(!changes.is_empty()));
        self.remember();
    }

    fn expire(&mut self) {
        let due = self.bench.machine.due(self.bench.now, None);
        let expected = self.tree.due(self.bench.now);
        let names =
            |due: &Due| (due.space == Space::Dirs, String::from_utf8(due.key.to_vec()).unwrap());
        assert_eq!(
            due.iter().map(names).collect::<Vec<_>>(),
            expected.into_iter().map(|(_, dir, at, _)| (dir, at)).collect::<Vec<_>>()
        );
        let now = self.now();
        let Some((answer, changes)) = self.bench.expire() else { return };
        let (told, expired) = self.tree.expire(now);
        assert_eq!(answer.verdict, Ok(vec![Outcome::Expired(usize::try_from(expired).unwrap())]));
        assert_eq!(answer.revision.0 + 1, now.revision + expired);
        self.watched(&told, &changes);
        for (event, _) in &told {
            assert!(event.node.modified_index.0 < now.revision + expired);
        }
        // States between the expiries of one entry are not modelled.
        (now.revision..now.revision + expired).for_each(|at| {
            self.past.remove(&at);
        });
        self.remember();
    }

    fn compact(&mut self, upto: u64) {
        let compacted = self.bench.machine.compacted().0;
        let (answer, _) = self.bench.propose(vec![Command::Compact { upto: Revision(upto) }]);
        if upto > compacted {
            assert_eq!(answer.verdict, Ok(vec![Outcome::Compacted(Revision(upto))]));
            self.past = self.past.split_off(&upto);
        } else {
            assert!(matches!(answer.verdict, Err(Rejected::Compacted { .. })));
        }
    }

    fn again(&mut self, commands: &[Command]) {
        let sequence = self.bench.sequence;
        if sequence == 0 {
            return;
        }
        let (answer, changes) = self.bench.propose_as(BOOT, sequence, commands.to_vec());
        assert_eq!(answer.verdict, Err(Rejected::OutcomeUnknown));
        assert!(changes.is_empty());
    }

    fn reopen(&mut self) {
        let machine = &self.bench.machine;
        let before = (machine.sums(), machine.state.clone(), machine.deadlines.clone());
        self.bench.reopen();
        let machine = &self.bench.machine;
        assert_eq!((machine.sums(), machine.state.clone(), machine.deadlines.clone()), before);
    }

    fn remember(&mut self) {
        self.past.insert(self.revision(), self.tree.clone());
    }

    fn watched(&self, told: &[Told], changes: &[Change]) {
        let heard: Vec<Event> = changes.iter().filter_map(event_of).collect();
        let expected = told.iter().filter(|(_, hushed)| !hushed).map(|(event, _)| event.clone());
        assert_eq!(heard, expected.collect::<Vec<_>>());
        let reader = self.bench.machine.view().read().unwrap().unwrap();
        for change in changes {
            let read = change_of(&reader, Arc::clone(&change.record)).unwrap();
            assert_eq!(read.previous, change.previous, "of {:?}", change.record);
        }
    }

    fn check_reads(&self) {
        let reader = self.bench.machine.view().read().unwrap().unwrap();
        for (revision, tree) in &self.past {
            for at in ["/", "/a", "/a/b", "/b/_h", "/a/a/a", "/a-b"] {
                for recursive in [false, true] {
                    let listing = Listing { recursive };
                    let read = get_at(&reader, Revision(*revision), &path(at), listing).unwrap();
                    let read = read.map_err(|rejected| refusal(&rejected));
                    assert_eq!(read, tree.get(at, recursive), "{at} at {revision}");
                }
            }
        }
        assert_eq!(scanned(&reader), self.bench.machine.sums().live, "the live sum");
        let live = live_records(&reader);
        let mut deadlines = Deadlines::default();
        live.iter().for_each(|record| {
            deadlines.change(&Change { record: Arc::clone(record), previous: None });
        });
        assert_eq!(self.bench.machine.deadlines, deadlines);
    }
}

fn live_records<B: crate::store::Base>(reader: &Reader<B>) -> Vec<Arc<Record>> {
    let all = KeyRange::all();
    let spaces = [Space::Keys, Space::Dirs, Space::Leases, Space::Auth, Space::Members];
    let read = |space| reader.range(space, &all, reader.revision()).unwrap().map(Result::unwrap);
    spaces.into_iter().flat_map(|space| read(space).collect::<Vec<_>>()).collect()
}

fn scanned<B: crate::store::Base>(reader: &Reader<B>) -> u64 {
    Sums::live_sum(live_records(reader).iter().map(|record| &**record))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_model_does(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
        }
        pair.check_reads();
        pair.bench.checkpoint();
        pair.check_reads();
        pair.reopen();
        pair.check_reads();
    }

    /// Checkpoints, restarts and the size of turns are each member's own affair.
    #[test]
    fn members_agree_whatever_their_housekeeping(
        steps in prop::collection::vec((any_step(), 0usize..6), 1..50)
    ) {
        let mut members = [Bench::new(), Bench::new()];
        for (step, habit) in &steps {
            let due = members[0].machine.due(members[0].now, None);
            for member in &mut members {
                match step {
                    Step::Entry(commands) => drop(member.propose(commands.clone())),
                    Step::Raw(pairs) => drop(member.raw(pairs)),
                    Step::Advance(ms) => member.advance(*ms),
                    Step::Expire => drop(member.propose(vec![Command::Expire(due.clone())])),
                    Step::Compact(back) => {
                        let upto = Revision(member.machine.revision().0.saturating_sub(*back));
                        drop(member.propose(vec![Command::Compact { upto }]));
                    }
                    Step::Again(commands) => drop(member.propose_as(BOOT, 1, commands.clone())),
                    Step::Checkpoint | Step::Reopen | Step::KeysPerTurn(_) => {}
                }
            }
            match habit {
                0 => members[1].checkpoint(),
                1 => members[1].reopen(),
                2 => members[1].keys_per_turn = 1,
                _ => {}
            }
            prop_assert_eq!(members[0].machine.sums(), members[1].machine.sums());
        }
        prop_assert_eq!(&members[0].machine.state, &members[1].machine.state);
        prop_assert_eq!(&members[0].machine.deadlines, &members[1].machine.deadlines);
        let records = members.each_ref().map(|m| live_records(&m.machine.view().read().unwrap().unwrap()));
        prop_assert_eq!(&records[0], &records[1]);
    }
}

/// An update of a directory that only keys below it make one once recorded it and not its parents,
/// which then changed their index with their keys, or went with them.
#[test]
fn an_update_of_an_implicit_directory_records_its_parents() {
    let put = |at: &str| Put {
        path: path(at),
        content: Content::File(bytes::Bytes::new()),
        ttl: None,
        refresh: false,
    };
    let mut pair = Pair::new();
    for step in [
        Step::Raw(vec![("/a/b/c/d".to_owned(), Some(String::new()))]),
        Step::Entry(vec![Command::Update(put("/a/b/c"))]),
        Step::Entry(vec![Command::Set(put("/a/b/c/a"))]),
        Step::Raw(vec![("/a/b/c/d".to_owned(), None), ("/a/b/c/a".to_owned(), None)]),
    ] {
        pair.step(&step);
        pair.check_reads();
    }
    let reader = pair.bench.machine.view().read().unwrap().unwrap();
    for at in ["/a", "/a/b", "/a/b/c"] {
        let directory = reader.get(Space::Dirs, path(at).key()).unwrap().unwrap();
        assert_eq!(directory.created_index, Revision(2), "{at}");
    }
}

#[test]
fn a_delete_in_many_turns_is_the_delete_in_one() {
    let [one, many] = [100_000, 7].map(|keys_per_turn| {
        let mut bench = Bench::new();
        for chunk in 0..10 {
            let keys =
                (0..100).map(|key| (format!("/tree/{chunk}/{key}"), Some("value".to_owned())));
            bench.raw(&keys.collect::<Vec<_>>());
        }
        bench.propose(vec![set("/tree/explicit/deep/key")]);
        bench.checkpoint();
        bench.keys_per_turn = keys_per_turn;
        let delete = Command::Delete { path: path("/tree"), dir: false, recursive: true };
        let (answer, changes) = bench.propose(vec![delete]);
        assert_eq!(bench.turns > 1, keys_per_turn == 7);
        assert!(live_records(&bench.machine.view().read().unwrap().unwrap()).is_empty());
        let records = changes.into_iter().map(|change| (change.record, change.previous));
        (answer, records.collect::<Vec<_>>(), bench.machine.sums())
    });
    assert_eq!(one, many);
    assert_eq!(one.2.live, 0);
}

fn set(at: &str) -> Command {
    let content = Content::File("v".into());
    Command::Set(Put { path: path(at), content, ttl: Ttl::from_seconds(5), refresh: false })
}

#[test]
fn a_new_leader_gives_what_it_found_a_grace() {
    let mut bench = Bench::new();
    bench.propose(vec![set("/found")]);
    let upto = bench.machine.revision();
    bench.advance(1_000);
    bench.propose(vec![set("/own")]);
    bench.advance(5_000);
    let inherited =
        Some(Inherited { upto, not_before: bench.now.plus_ms(limits::LEADER_GRACE_MS) });
    let keys = |due: Vec<Due>| due.into_iter().map(|due| due.key).collect::<Vec<_>>();
    assert_eq!(keys(bench.machine.due(bench.now, inherited)), ["/own"]);
    bench.advance(limits::LEADER_GRACE_MS);
    assert_eq!(keys(bench.machine.due(bench.now, inherited)), ["/found", "/own"]);
    assert_eq!(bench.machine.next_deadline(), Some(ClusterTime(5_000)));
}

#[test]
fn an_expiry_checks_again_what_the_leader_saw() {
    let mut bench = Bench::new();
    bench.propose(vec![set("/a")]);
    bench.propose(vec![set("/b")]);
    bench.propose(vec![set("/d/x")]);
    let due = bench.machine.due(ClusterTime(9_000), None);
    assert_eq!(due.len(), 3);
    // Too early by the entry's stamp, renewed, and gone.
    let (answer, _) = bench.propose(vec![Command::Expire(due.clone())]);
    assert_eq!((answer.verdict, answer.revision.0), (Ok(vec![Outcome::Expired(0)]), 4));
    bench.advance(5_000);
    bench.propose(vec![set("/a")]);
    let delete = Command::Delete { path: path("/d"), dir: false, recursive: true };
    bench.propose(vec![delete]);
    let (answer, changes) = bench.propose(vec![Command::Expire(due)]);
    assert_eq!((answer.verdict, answer.revision.0), (Ok(vec![Outcome::Expired(1)]), 7));
    assert_eq!(changes[0].record.key, "/b");
    let mut strange = bench.machine.due(ClusterTime(99_000), None);
    strange[0].generation = Position::default();
    strange[0].space = Space::Leases;
    bench.advance(90_000);
    let (answer, _) = bench.propose(vec![Command::Expire(strange)]);
    assert_eq!(answer.verdict, Ok(vec![Outcome::Expired(0)]));
}

#[test]
fn the_clock_never_goes_back() {
    let mut bench = Bench::new();
    bench.advance(9_000);
    bench.propose(vec![Command::Clock]);
    bench.now = ClusterTime(1_000);
    let (answer, _) = bench.propose(vec![set("/a")]);
    assert_eq!(bench.machine.clock(), ClusterTime(9_000));
    let Ok([Outcome::Changed(event)]) = answer.verdict.as_deref() else { panic!("{answer:?}") };
    assert_eq!(event.node.deadline, Some(ClusterTime(14_000)));
}

#[test]
fn a_late_proposal_of_an_earlier_boot_is_not_executed() {
    let mut bench = Bench::new();
    for (boot, sequence, executed) in [(1, 1, true), (2, 1, true), (1, 2, false), (2, 2, true)] {
        let (answer, _) = bench.propose_as(BootId(boot), sequence, vec![set("/a")]);
        assert_eq!(answer.verdict.is_ok(), executed, "{boot} {sequence}");
    }
}

/// Found by the model: the parent made where a file was just deleted passed for the directory that
/// a `set` puts in a file's place.
#[test]
fn a_parent_made_after_a_delete_replaced_nothing() {
    let mut bench = Bench::new();
    bench.propose(vec![set("/a")]);
    let delete = Command::Delete { path: path("/a"), dir: false, recursive: false };
    let (_, changes) = bench.propose(vec![delete, set("/a/b")]);
    let reader = bench.machine.view().read().unwrap().unwrap();
    for change in changes {
        let read = change_of(&reader, Arc::clone(&change.record)).unwrap();
        assert_eq!(read.previous, change.previous, "of {:?}", change.record);
    }
}
