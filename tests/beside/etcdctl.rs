//! Random commands of Debian's `etcdctl`, version 2 of its API, to both servers.
//!
//! Everything but users, roles, changes of members, and commands that wait: what these do with an
//! event is in `clients.rs`. Compared are standard output, standard error and the exit code; the
//! order of lines only where the command asks for one, and lives of keys by being there.

use crate::chance::Chance;
use crate::common::{Finished, clean, run, scratch};
use crate::judge::without_times;
use crate::pair::Pair;
use crate::request::fill;
use crate::shrink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const COMMAND_WITHIN: Duration = Duration::from_secs(20);

type Command = Vec<String>;

/// Plays the commands of a seed to both servers.
///
/// # Panics
/// With the shortest sequence that shows a difference.
#[track_caller]
pub(crate) fn compare(program: &Path, pair: &mut Pair, seed: u64) {
    let commands = sequence(seed);
    let mut play = |commands: &[Command]| play(program, pair, commands);
    if play(&commands).is_none() {
        return;
    }
    let shortest = shrink::drop_steps(commands, |commands| play(commands).is_some());
    let lines: Vec<String> = shortest.iter().map(|words| format!("etcdctl {words:?}")).collect();
    let difference = play(&shortest).unwrap_or_else(|| "a difference that does not stay".into());
    panic!("seed {seed}: the last of\n{}\ndiffers:\n{difference}", lines.join("\n"));
}

/// The first difference.
fn play(program: &Path, pair: &mut Pair, commands: &[Command]) -> Option<String> {
    let base = pair.level();
    commands.iter().find_map(|command| {
        let is_ordered = command.iter().any(|word| word == "--sort");
        let [etcd, althing] = pair.urls().map(|url| {
            let mut program = clean(program.to_owned());
            program.env("ETCDCTL_API", "2").args(["--endpoints", &url]).stdin(Stdio::null());
            program.args(command.iter().map(|word| fill(word, base)));
            said(&run(&mut program, scratch("etcdctl").path(), COMMAND_WITHIN), &url, is_ordered)
        });
        (etcd != althing).then(|| format!("{command:?}\netcd: {etcd}\nalthing: {althing}"))
    })
}

/// What a command said, without what is its server's own.
fn said(finished: &Finished, url: &str, is_ordered: bool) -> String {
    let Finished { status, stdout, stderr } = finished;
    let mut lines: Vec<String> = stdout.lines().map(without_own).collect();
    if !is_ordered {
        lines.sort_unstable();
    }
    let end = stdout.ends_with('\n');
    let said = format!("{:?}, {}, end of line {end}\n{stderr}", status.code(), lines.join("\n"));
    said.replace(url, "URL")
}

/// A line without what a key has left to live, and without the id of a member.
fn without_own(line: &str) -> String {
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["TTL:", "0"] => line.to_owned(),
        ["TTL:", _] => "TTL: some".to_owned(),
        ["member", _, ref rest @ ..] => format!("member {}", rest.join(" ")),
        _ => without_times(line).0,
    }
}

fn sequence(seed: u64) -> Vec<Command> {
    let mut chance = Chance::new(seed);
    (0..25).map(|_| command(&mut chance)).collect()
}

fn command(chance: &mut Chance) -> Command {
    let pick = |chance: &mut Chance, from: &[&str]| from[chance.index(from.len())].to_owned();
    let key = |chance: &mut Chance| {
        pick(
            chance,
            &["/s", "s", "/s/a", "/s/b", "/s/a/b", "/s/_h", "/t/", "//s/a", "/", "/s/ä b", ""],
        )
    };
    let value = |chance: &mut Chance| pick(chance, &["x", "y", "a b", "<ü>&", "", "-1", "\n"]);
    let index = |chance: &mut Chance| format!("{{i+{}}}", chance.between(1, 20));
    let mut words = Command::new();
    if chance.permille(250) {
        words.extend(["-o".to_owned(), pick(chance, &["extended", "json", "simple", "yaml"])]);
    }
    let verb = pick(chance, VERBS);
    words.push(verb.clone());
    let flags: &[&str] = match verb.as_str() {
        "set" => &["--ttl", "--swap-with-value", "--swap-with-index"],
        "mk" => &["--ttl", "--in-order"],
        "update" | "mkdir" | "setdir" | "updatedir" => &["--ttl"],
        "get" => &["--quorum", "--sort"],
        "ls" => &["--sort", "--recursive", "-p", "--quorum"],
        "rm" => &["--dir", "--recursive", "--with-value", "--with-index"],
        _ => &[],
    };
    for flag in flags {
        if !chance.permille(300) {
            continue;
        }
        words.push((*flag).to_owned());
        match *flag {
            "--ttl" => words.push(pick(chance, &["100", "1000", "0", "-5", "x"])),
            "--swap-with-value" | "--with-value" => words.push(value(chance)),
            "--swap-with-index" | "--with-index" => words.push(index(chance)),
            _ => {}
        }
    }
    // A listing as JSON is one line, whose order cannot be forgiven.
    if words.contains(&"json".to_owned()) && ["ls", "get"].contains(&verb.as_str()) {
        words.push("--sort".to_owned());
    }
    words.push(key(chance));
    if ["set", "mk", "update"].contains(&verb.as_str()) && !chance.permille(50) {
        words.push(value(chance));
    }
    words
}

const VERBS: &[&str] = &[
    "set",
    "set",
    "set",
    "mk",
    "mk",
    "update",
    "get",
    "get",
    "ls",
    "ls",
    "rm",
    "rm",
    "mkdir",
    "setdir",
    "updatedir",
    "rmdir",
    "cluster-health",
    "frobnicate",
];
