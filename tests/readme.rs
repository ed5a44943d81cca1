//! The README and the guides, executed.
//!
//! Each block tagged `sh test` runs in order, in one scratch directory a page that looks like the
//! root of the source tree, against a daemon started with the page's own `run --dev`. Words after `test` are programs the block needs; a missing
//! one skips the block by name. When the next block is tagged `text`, it is what the block prints:
//! `<number>` stands for digits, `...` for any text of a line, a line of `...` for any lines.
//!
//! How data passes: page -> `stories` -> ports replaced by free ones (the daemon's for 2379) ->
//! `sh -eu` -> output compared. What a block leaves running is in one process group, which is
//! killed at the end, whatever happened.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use common::{Daemon, Finished, binary, clean, program, run, scratch};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest run of one block.
const BLOCK_WITHIN: Duration = Duration::from_secs(60);
/// The client port that pages use; the test replaces it by the real one.
const CLIENT_PORT: u16 = 2379;

/// Folders of the source tree that pages name in their commands.
const FOLDERS: &[&str] = &["templates", "systemd"];

#[test]
fn the_readme_does_what_it_says() {
    plays("README.md");
}

#[test]
fn the_start_does_what_it_says() {
    plays("docs/start.md");
}

#[test]
fn the_haproxy_guide_does_what_it_says() {
    plays("docs/guides/haproxy.md");
}

#[test]
fn the_guide_to_checks_and_reloads_does_what_it_says() {
    plays("docs/guides/checks-and-reloads.md");
}

#[test]
fn the_systemd_guide_does_what_it_says() {
    plays("docs/guides/systemd.md");
}

#[track_caller]
fn plays(page: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join(page)).expect("the page is there");
    let folder = scratch("pages");
    std::fs::create_dir(folder.path().join("bin")).expect("a fresh directory");
    symlink(binary(), folder.path().join("bin/althing")).expect("a fresh directory");
    for name in FOLDERS {
        symlink(root.join(name), folder.path().join(name)).expect("a fresh directory");
    }
    let mut daemon = Daemon::stopped("pages", &["--dev"]);
    // Where `run --dev` keeps them when it is started in this folder.
    daemon.keep_data_in(folder.path().join("althing-dev"));
    daemon.restart();
    let group = Group::new();
    let text = with_ports(&text, &free_ports(&text, daemon.url()));
    let stories = stories(&text);
    assert!(!stories.is_empty(), "{page}: no block is tagged `sh test`");
    for story in &stories {
        if story.needs.iter().all(|name| program(name).is_some()) {
            let finished = story.play(folder.path(), daemon.url(), &group);
            story.judge(page, &finished);
        }
    }
}

/// A block to run and what it prints.
struct Story {
    line: usize,
    needs: Vec<String>,
    script: String,
    expected: Option<String>,
}

impl Story {
    #[track_caller]
    fn play(&self, folder: &Path, url: &str, group: &Group) -> Finished {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}:/usr/sbin:/sbin", folder.join("bin").display());
        let mut shell = clean("sh".into());
        shell.args(["-eu", "-c", &self.script]).current_dir(folder).stdin(Stdio::null());
        shell.env("PATH", path).env("ALTHING_ENDPOINTS", url).process_group(group.id());
        run(&mut shell, scratch("readme-output").path(), BLOCK_WITHIN)
    }

    #[track_caller]
    fn judge(&self, page: &str, finished: &Finished) {
        let Self { line, script, .. } = self;
        let shown = format!("{}{}", finished.stdout, finished.stderr);
        let status = finished.status;
        assert!(status.success(), "{page}:{line}: {status}\n{script}\n{shown}");
        if let Some(expected) = &self.expected {
            let is_same = matches(expected, &finished.stdout);
            assert!(is_same, "{page}:{line}\n{script}\nexpected:\n{expected}\nprinted:\n{shown}");
        }
    }
}

/// A process group that outlives the blocks that run in it, and ends with the test.
struct Group {
    holder: Child,
}

impl Group {
    /// `cat` waits for input that never comes, so its id stays the group's.
    fn new() -> Self {
        let mut holder = Command::new("cat");
        holder.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        Self { holder: holder.spawn().expect("cat is on every system") }
    }

    fn id(&self) -> i32 {
        self.holder.id().cast_signed()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.holder), Signal::KILL);
        let _ = self.holder.wait();
    }
}

/// The tagged blocks of a Markdown page, with the output that follows them.
fn stories(page: &str) -> Vec<Story> {
    let mut stories: Vec<Story> = Vec::new();
    let mut awaits_output = false;
    for (line, tag, text) in blocks(page) {
        let words: Vec<&str> = tag.split_whitespace().collect();
        if let ["sh", "test", needs @ ..] = words.as_slice() {
            let needs = needs.iter().map(|name| (*name).to_owned()).collect();
            stories.push(Story { line, needs, script: text, expected: None });
            awaits_output = true;
        } else {
            if tag == "text" && awaits_output {
                let story = stories.last_mut().expect("only after a story");
                story.expected = Some(text);
            }
            awaits_output = false;
        }
    }
    stories
}

/// Line, tag and text of every fenced block.
fn blocks(page: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (at, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(tag), None) => open = Some((at + 1, tag.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some((_, _, text))) => *text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is never closed: {open:?}");
    found
}

/// What each port of the page is during the test: `CLIENT_PORT` the daemon's, the others free.
fn free_ports(page: &str, url: &str) -> BTreeMap<u16, u16> {
    // All are bound before one is let go, so that no two are the same.
    let mut bound = Vec::new();
    let mut ports = BTreeMap::new();
    for (at, found) in page.match_indices("127.0.0.1:") {
        let digits = page[at + found.len()..].split(|c: char| !c.is_ascii_digit()).next();
        let Some(port) = digits.and_then(|digits| digits.parse().ok()) else { continue };
        ports.entry(port).or_insert_with(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let free = listener.local_addr().expect("it is bound").port();
            bound.push(listener);
            free
        });
    }
    let own = url.rsplit(':').next().and_then(|port| port.parse().ok());
    ports.insert(CLIENT_PORT, own.expect("the daemon's address ends with its port"));
    ports
}

/// Replaces every number of the page that is one of `ports`.
fn with_ports(page: &str, ports: &BTreeMap<u16, u16>) -> String {
    let replace = |word: &str| match word.parse().ok().and_then(|port: u16| ports.get(&port)) {
        Some(port) if !word.starts_with('+') => port.to_string(),
        _ => word.to_owned(),
    };
    let is_digit = |c: char| c.is_ascii_digit();
    let mut replaced = String::new();
    let mut rest = page;
    while let Some(start) = rest.find(is_digit) {
        let (before, number) = rest.split_at(start);
        let end = number.find(|c| !is_digit(c)).unwrap_or(number.len());
        replaced += before;
        replaced += &replace(&number[..end]);
        rest = &number[end..];
    }
    replaced + rest
}

/// Whether `printed` is `expected` with its wildcards.
fn matches(expected: &str, printed: &str) -> bool {
    let lines = |text: &str| text.trim_end().lines().map(|l| l.trim_end().to_owned()).collect();
    let (expected, printed): (Vec<String>, Vec<String>) = (lines(expected), lines(printed));
    lines_match(&expected, &printed)
}

fn lines_match(expected: &[String], printed: &[String]) -> bool {
    match expected {
        [] => printed.is_empty(),
        [any, rest @ ..] if any == "..." => {
            (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..]))
        }
        [first, rest @ ..] => printed
            .split_first()
            .is_some_and(|(line, others)| line_matches(first, line) && lines_match(rest, others)),
    }
}

fn line_matches(expected: &str, printed: &str) -> bool {
    if let Some(rest) = expected.strip_prefix("...") {
        let mut starts = printed.char_indices().map(|(at, _)| at).chain([printed.len()]);
        return starts.any(|at| line_matches(rest, &printed[at..]));
    }
    if let Some(rest) = expected.strip_prefix("<number>") {
        let after = printed.trim_start_matches(|c: char| c.is_ascii_digit());
        return after.len() < printed.len() && line_matches(rest, after);
    }
    match (expected.chars().next(), printed.chars().next()) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => {
            line_matches(&expected[a.len_utf8()..], &printed[b.len_utf8()..])
        }
        _ => false,
    }
}

#[test]
fn blocks_are_found_with_their_output() {
    let page = "a\n```sh test curl jq\none\n```\nso:\n```text\nout\n```\n```sh\nno\n```\n\
                ```text\nno\n```\n```sh test\ntwo\n```\n```sh\nno\n```\n```text\nno\n```\n";
    let stories = stories(page);
    let found: Vec<_> = stories
        .iter()
        .map(|s| (s.line, s.needs.len(), s.script.as_str(), s.expected.as_deref()))
        .collect();
    assert_eq!(found, [(2, 2, "one\n", Some("out\n")), (15, 0, "two\n", None)]);
}

#[test]
fn wildcards_match_what_they_say() {
    let cases = [
        ("a\nb", "a\nb\n", true),
        ("a\nb", "a", false),
        ("a", "a\nb", false),
        ("{\"i\":<number>}", "{\"i\":42}", true),
        ("{\"i\":<number>}", "{\"i\":}", false),
        ("{\"i\":<number>}", "{\"i\":4x}", false),
        ("at ... end", "at any place, end", true),
        ("at ... end", "at any place", false),
        ("a\n...\nz", "a\nz", true),
        ("a\n...\nz", "a\nb\nc\nz", true),
        ("a\n...\nz", "a\nb\nc", false),
        ("", "said something", false),
    ];
    for (expected, printed, is_same) in cases {
        assert_eq!(matches(expected, printed), is_same, "{expected:?} {printed:?}");
    }
}

#[test]
fn ports_are_replaced_as_whole_numbers() {
    let page = "curl 127.0.0.1:2379/x127.0.0.1:8080 --port 8080 18080 80801 127.0.0.1:x";
    let ports = free_ports(page, "http://127.0.0.1:7");
    let other = ports[&8080];
    let expected =
        format!("curl 127.0.0.1:7/x127.0.0.1:{other} --port {other} 18080 80801 127.0.0.1:x");
    assert_eq!(with_ports(page, &ports), expected);
}
