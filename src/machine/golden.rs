//! Golden scripts of the machine: `tests/golden/machine/*.script`.
//!
//! A line that begins with `>` is a command; the lines under it are what came of it. Run with
//! `UPDATE_GOLDENFILES=1` to write the files anew, and review the difference as prose.
//!
//! ```text
//! set|create|post|update|cas|delete|cad PATH [value=V] [ttl=S] [dir] [refresh] [recursive]
//!                                            [prevValue=V] [prevIndex=N]
//! { COMMAND ; COMMAND }      one entry
//! again SEQUENCE COMMAND     the same sequence number once more
//! put KEY=V ... / del KEY    what v3 will do
//! get PATH [recursive] [at=N]
//! advance SECONDS | clock | due | expire | compact N | checkpoint | reopen | turn KEYS | sums
//! ```

#[cfg(test)]
use crate::base::{Rejected, Revision, Ttl};
#[cfg(test)]
use crate::machine::bench::{BOOT, Bench, path};
#[cfg(test)]
use crate::machine::{
    Answer, Change, Command, Condition, Content, Event, Listing, Node, Outcome, Put, event_of,
    get_at,
};
#[cfg(test)]
use std::fmt::Write as _;

#[test]
fn scripts_do_what_they_say() {
    let update = std::env::var_os("UPDATE_GOLDENFILES").is_some();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/machine");
    let mut scripts: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(scripts.len() >= 5, "the scripts are gone");
    for script in scripts {
        let text = std::fs::read_to_string(&script).unwrap();
        let traced = run(&text);
        if update {
            std::fs::write(&script, traced).unwrap();
        } else {
            let name = script.file_name().unwrap().to_string_lossy();
            assert!(traced == text, "{name} differs; it would be now:\n{traced}");
        }
    }
}

fn run(script: &str) -> String {
    let mut bench = Bench::new();
    let mut out = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(out, "{line}\n{}", step(&mut bench, command).trim_end()).unwrap();
        } else if line.starts_with('#') || line.is_empty() {
            writeln!(out, "{line}").unwrap();
        }
    }
    out
}

fn step(bench: &mut Bench, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (verb, rest) = words.split_first().unwrap();
    match *verb {
        "{" => {
            let inner = line.trim_start_matches('{').trim_end_matches('}');
            propose(bench, inner.split(';').map(|part| command(part.trim())).collect())
        }
        "again" => {
            let (answer, changes) = bench.propose_as(
                BOOT,
                rest[0].parse().unwrap(),
                vec![command(&rest[1..].join(" "))],
            );
            told(&answer, &changes)
        }
        "put" | "del" => {
            let pairs: Vec<_> = rest.iter().map(|word| pair(word)).collect();
            records(&bench.raw(&pairs))
        }
        "get" => get(bench, rest),
        "advance" => {
            bench.advance(rest[0].parse::<u64>().unwrap() * 1_000);
            format!("  now {}", bench.now.0)
        }
        "clock" => propose(bench, vec![Command::Clock]),
        "due" => {
            let due = bench.machine.due(bench.now, None);
            let names = due.iter().map(|due| String::from_utf8_lossy(&due.key).into_owned());
            format!("  due [{}]", names.collect::<Vec<_>>().join(" "))
        }
        "expire" => match bench.expire() {
            Some((answer, changes)) => told(&answer, &changes),
            None => "  nothing is due".into(),
        },
        "compact" => {
            let upto = Revision(rest[0].parse().unwrap());
            propose(bench, vec![Command::Compact { upto }])
        }
        "checkpoint" => {
            bench.checkpoint();
            format!("  at entry {}", bench.machine.applied())
        }
        "reopen" => {
            bench.reopen();
            format!("  at entry {}, revision {}", bench.machine.applied(), bench.machine.revision())
        }
        "turn" => {
            bench.keys_per_turn = rest[0].parse().unwrap();
            format!("  {} keys a turn", bench.keys_per_turn)
        }
        "sums" => {
            let sums = bench.machine.sums();
            format!("  chain {:016x} live {:016x}", sums.chain, sums.live)
        }
        _ => propose(bench, vec![command(line)]),
    }
}

fn pair(word: &str) -> (String, Option<String>) {
    match word.split_once('=') {
        Some((key, value)) => (key.into(), Some(value.into())),
        None => (word.into(), None),
    }
}

fn command(line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    let value =
        |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let flag = |name: &str| words.contains(&name);
    let path = path(words[1]);
    let put = Put {
        path: path.clone(),
        content: if flag("dir") {
            Content::Directory
        } else {
            Content::File(value("value").unwrap_or_default().to_owned().into())
        },
        ttl: value("ttl").map(|ttl| Ttl::from_seconds(ttl.parse().unwrap()).unwrap()),
        refresh: flag("refresh"),
    };
    let condition = Condition {
        value: value("prevValue").map(|value| value.to_owned().into()),
        index: value("prevIndex").map(|index| Revision(index.parse().unwrap())),
    };
    match words[0] {
        "set" => Command::Set(put),
        "create" => Command::Create(put),
        "post" => Command::CreateInOrder(put),
        "update" => Command::Update(put),
        "cas" => Command::CompareAndSwap(put, condition),
        "delete" => Command::Delete { path, dir: flag("dir"), recursive: flag("recursive") },
        "cad" => Command::CompareAndDelete { path, condition },
        "compact" => Command::Compact { upto: Revision(2) },
        other => panic!("no command {other}"),
    }
}

fn propose(bench: &mut Bench, commands: Vec<Command>) -> String {
    let (answer, changes) = bench.propose(commands);
    let mut out = told(&answer, &changes);
    if bench.turns > 1 {
        writeln!(out, "  in {} turns", bench.turns).unwrap();
    }
    out
}

fn told(answer: &Answer, changes: &[Change]) -> String {
    let mut out = String::new();
    match &answer.verdict {
        Err(rejected) => writeln!(out, "  {}", refusal(rejected)).unwrap(),
        Ok(outcomes) => outcomes.iter().for_each(|outcome| {
            let line = match outcome {
                Outcome::Changed(changed) => event(changed),
                Outcome::Ticked => "ticked".into(),
                Outcome::Expired(count) => format!("expired {count}"),
                Outcome::Compacted(upto) => format!("compacted {upto}"),
            };
            writeln!(out, "  {line}").unwrap();
        }),
    }
    writeln!(out, "  revision {}", answer.revision).unwrap();
    out + &records(changes)
}

fn refusal(rejected: &Rejected) -> String {
    let cause = String::from_utf8_lossy(&rejected.cause()).into_owned();
    format!("refused: {} {} [{cause}]", rejected.v2_code(), rejected)
}

fn records(changes: &[Change]) -> String {
    let mut out = String::new();
    for change in changes {
        let record = &change.record;
        let sign = if record.live { '+' } else { '-' };
        let key = String::from_utf8_lossy(&record.key).into_owned();
        let (revision, sub) = (record.position.revision, record.position.sub);
        write!(out, "    {revision}.{sub} {:?} {sign}{key}", record.space).unwrap();
        if record.live {
            write!(out, " v{} since {}", record.version, record.create_revision).unwrap();
        }
        match event_of(change) {
            Some(told) => writeln!(out, " | {}", event(&told)).unwrap(),
            None => writeln!(out).unwrap(),
        }
    }
    out
}

fn event(event: &Event) -> String {
    let previous = event.previous.as_ref().map(|node| format!(" was {}", one(node)));
    format!("{} {}{}", event.action.name(), one(&event.node), previous.unwrap_or_default())
}

fn one(node: &Node) -> String {
    let mut out =
        format!("{}{}", node.path, if node.dir && !node.path.is_root() { "/" } else { "" });
    if let Some(value) = &node.value {
        write!(out, "={:?}", String::from_utf8_lossy(value)).unwrap();
    }
    if let (Some(deadline), Some(expiration)) = (node.deadline, node.expiration) {
        write!(out, " until {} {expiration}", deadline.0).unwrap();
    }
    write!(out, " (m{} c{})", node.modified_index, node.created_index).unwrap();
    out
}

fn get(bench: &Bench, words: &[&str]) -> String {
    let reader = bench.machine.view().read().unwrap().unwrap();
    let at = words.iter().find_map(|word| word.strip_prefix("at="));
    let revision = at.map_or(reader.revision(), |at| Revision(at.parse().unwrap()));
    let listing = Listing { recursive: words.contains(&"recursive") };
    match get_at(&reader, revision, &path(words[0]), listing).unwrap() {
        Ok(node) => tree(&node, 1),
        Err(rejected) => format!("  {}", refusal(&rejected)),
    }
}

fn tree(node: &Node, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let empty = node.children.as_ref().is_some_and(Vec::is_empty);
    let mut out = format!("{indent}{}{}\n", one(node), if empty { " empty" } else { "" });
    for child in node.children.iter().flatten() {
        out += &tree(child, depth + 1);
    }
    out
}
