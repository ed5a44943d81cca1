//! The rules for Rust files: floors, sizes, headers, and words that must not be there.
//!
//! Each rule is a function from one file's text to its breaches, one line each, so that the
//! samples below can show that it bites. The table `FLOORS` is DESIGN's "house" as data: reading
//! down, each row names only rows above it.
//!
//! Deliberately left to others: formatting (rustfmt), docs of public items and indexing (clippy
//! and rustc lints of Cargo.toml).
//!
//! Sources: the idea of house rules as a test is from TigerBeetle's and rust-analyzer's `tidy`.

use crate::lexer::{self, Source};

/// Lines of one source file, tests excluded.
const FILE_LINES_MAX: usize = 500;
/// Lines of one function: what fits on a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// The floors: a module, and the modules it may name.
pub(crate) const FLOORS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("wire", &["base"]),
    ("sys", &["base"]),
    ("config", &["base"]),
    ("store", &["base"]),
    ("machine", &["base", "store"]),
    ("watch", &["base", "store", "machine"]),
    ("replica", &["base", "store", "machine"]),
    ("node", &["base", "wire", "sys", "config", "store", "machine", "watch", "replica"]),
    ("api", &["base", "wire", "sys", "machine", "watch", "node"]),
    ("render", &["base", "sys"]),
    ("service", &["base", "sys"]),
    ("ctl", &["base", "wire", "sys", "store", "config", "render"]),
    (
        "daemon",
        &[
            "base", "wire", "sys", "config", "store", "machine", "watch", "replica", "node", "api",
            "render", "service",
        ],
    ),
    ("main", &["base", "config", "render", "ctl", "daemon"]),
];

/// What a crate outside is for, and so who may name it. A crate not listed is free above the core.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("heed", &["store"]),
    ("raft", &["store", "replica"]),
    ("crossbeam_skiplist", &["store"]),
    ("warp", &["api"]),
    ("prometheus_client", &["api"]),
    ("tera", &["render"]),
    ("notify", &["render", "daemon"]),
    ("clap", &["config", "ctl", "main"]),
    ("signal_hook", &["ctl", "daemon", "main"]),
];

/// The deterministic core: what it does depends on its inputs only.
const CORE: &[&str] = &["base", "store", "machine", "watch", "replica"];
/// Words that bring the outside world, or an order that differs by run, into the core.
const CORE_BANNED: &[&str] = &[
    "tokio::",
    "SystemTime::now",
    "Instant::now",
    "thread_rng",
    "rand::",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "HashMap",
    "HashSet",
];

/// The files that may hold `unsafe`: LMDB's promise, and the allocator's one call that no crate
/// offers as a safe one. No other joins them.
const UNSAFE_FILES: &[&str] = &["src/store/env.rs", "src/sys/memory.rs"];

/// Calls that end the process, or say that the work is not done.
const UNFINISHED: &[&str] = &[".unwrap()", "dbg!(", "todo!(", "unimplemented!("];

/// Rows of `FLOORS` that name something not above them: a circle, or a misspelling.
pub(crate) fn circles(floors: &[(&str, &[&str])]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (row, (module, allowed)) in floors.iter().enumerate() {
        for name in *allowed {
            if !floors[..row].iter().any(|(above, _)| above == name) {
                breaches.push(format!("{module} may name {name}, which is not above it"));
            }
        }
    }
    breaches
}

/// Every breach in one file. `path` is relative to the root, with slashes; `is_test` says that the
/// whole file is compiled for tests only.
pub(crate) fn breaches(path: &str, text: &str, is_test: bool) -> Vec<String> {
    let mut found = header(text);
    if is_test {
        found.extend(function_lengths(&Source::new(text)));
    } else {
        let source = Source::new(text).without_tests();
        found.extend(function_lengths(&source));
        found.extend(file_length(text, &source));
        found.extend(floors(path, &source.code));
        found.extend(outside(path, &source.code));
        found.extend(words(path, &source));
        found.extend(reasons(&source.code));
    }
    found.into_iter().map(|(line, what)| format!("{path}:{line}: {what}")).collect()
}

/// Every `pub const` of limits.rs must say why it has its value.
pub(crate) fn limits_without_reason(path: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut is_documented = false;
    for (at, line) in text.lines().map(str::trim_start).enumerate() {
        if line.contains("const ") && !line.starts_with("//") && !is_documented {
            breaches.push(format!("{path}:{}: a limit without its reason above it", at + 1));
        }
        is_documented = line.starts_with("///") || (is_documented && line.starts_with("#["));
    }
    breaches
}

/// A line number and what is wrong there.
type Breach = (usize, String);

fn header(text: &str) -> Vec<Breach> {
    let what = "starts without a //! header (what, why, invariants, sources)";
    if text.starts_with("//! ") { Vec::new() } else { vec![(1, what.to_owned())] }
}

fn function_lengths(source: &Source) -> Vec<Breach> {
    let long = source.functions().into_iter().filter(|f| f.lines > FUNCTION_LINES_MAX);
    let say = |f: lexer::Function| {
        (f.line, format!("`{}` has {} lines, at most {FUNCTION_LINES_MAX}", f.name, f.lines))
    };
    long.map(say).collect()
}

/// Counts the lines outside test items, wherever these stand.
fn file_length(text: &str, source: &Source) -> Vec<Breach> {
    let lines = text.lines().count() - source.test_lines;
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![(lines, format!("{lines} lines without tests, at most {FILE_LINES_MAX}"))]
}

/// `src/store/env.rs` is in `store`, `src/daemon.rs` is `daemon`.
fn module_of(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split(['/', '.']).next().unwrap_or(inside)
}

/// Levels below the crate's root: 1 for `src/store/mod.rs`, 2 for `src/store/env.rs`.
fn depth_of(path: &str) -> usize {
    let names = path.matches('/').count();
    if path.ends_with("/mod.rs") { names - 1 } else { names }
}

fn floors(path: &str, code: &str) -> Vec<Breach> {
    let module = module_of(path);
    if module == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == module) else {
        return vec![(1, format!("module `{module}` has no row in FLOORS"))];
    };
    let root = if module == "main" { "althing" } else { "crate" };
    let mut found = Vec::new();
    for (line, named) in paths_of(code, root) {
        if named.is_empty() {
            found.push((line, format!("one module per `use {root}::` line")));
        } else if named != module && !allowed.contains(&named) {
            found.push((line, format!("`{module}` must not know `{named}`")));
        }
    }
    for (at, line) in code.lines().enumerate() {
        let climbs = line.split("::").filter(|part| part.trim_end().ends_with("super")).count();
        if climbs >= depth_of(path) && line.contains("super::") && module != "main" {
            found.push((at + 1, "`super` out of its floor; write `crate::`".to_owned()));
        }
    }
    found
}

fn outside(path: &str, code: &str) -> Vec<Breach> {
    let module = module_of(path);
    let mut found = Vec::new();
    for (name, allowed) in OUTSIDE.iter().filter(|(_, allowed)| !allowed.contains(&module)) {
        let at = |(line, _)| (line, format!("`{name}` belongs to {}", allowed.join(", ")));
        found.extend(paths_of(code, name).into_iter().map(at));
    }
    found
}

/// The line and the X of every path `root::X`; X is empty for a brace or a star.
fn paths_of<'a>(code: &'a str, root: &str) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for (at, _) in line.match_indices(root) {
            let Some(rest) = line[at + root.len()..].strip_prefix("::") else { continue };
            if line[..at].ends_with(|c| lexer::is_word(c) || c == ':') {
                continue;
            }
            let end = rest.find(|c| !lexer::is_word(c)).unwrap_or(rest.len());
            found.push((number + 1, &rest[..end]));
        }
    }
    found
}

fn words(path: &str, source: &Source) -> Vec<Breach> {
    let is_core = CORE.contains(&module_of(path));
    let mut found = Vec::new();
    for (at, line) in source.code.lines().enumerate() {
        for word in CORE_BANNED.iter().filter(|word| is_core && line.contains(**word)) {
            found.push((at + 1, format!("`{word}` in the deterministic core")));
        }
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            found.push((at + 1, format!("`{word}` outside tests")));
        }
        let characters: Vec<char> = line.chars().collect();
        let is_unsafe = lexer::words(&characters).iter().any(|(_, word)| word == "unsafe");
        if is_unsafe && !UNSAFE_FILES.contains(&path) {
            found.push((at + 1, format!("`unsafe` outside {}", UNSAFE_FILES.join(", "))));
        }
    }
    for (at, line) in source.comments.lines().enumerate() {
        if is_unnumbered_mark(line) {
            found.push((at + 1, "a mark of unfinished work without its issue: (#123)".to_owned()));
        }
    }
    found
}

/// A TODO or FIXME that does not go on with `(#` and a digit.
fn is_unnumbered_mark(comment: &str) -> bool {
    ["TODO", "FIXME"].iter().any(|mark| {
        comment.match_indices(mark).any(|(at, _)| {
            let rest = comment[at + mark.len()..].strip_prefix("(#");
            !rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    })
}

/// Every lint that is switched off says why.
fn reasons(code: &str) -> Vec<Breach> {
    let mut found = Vec::new();
    for opening in ["[allow(", "[expect("] {
        for (at, _) in code.match_indices(opening) {
            let attribute = code[at..].split(']').next().unwrap_or_default();
            if !attribute.contains("reason") {
                let line = 1 + code[..at].matches('\n').count();
                found.push((line, "a lint switched off without `reason = …`".to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `breaches` says of a file with a good header and this code.
    fn said(path: &str, code: &str) -> String {
        breaches(path, &format!("//! A header.\n{code}"), false).join("\n")
    }

    #[track_caller]
    fn bites(path: &str, code: &str, expected: &str) {
        let said = said(path, code);
        assert!(said.contains(expected), "{path}: {code}\nsaid: {said:?}\nnot: {expected:?}");
    }

    #[track_caller]
    fn passes(path: &str, code: &str) {
        assert_eq!(said(path, code), "", "{path}: {code}");
    }

    #[test]
    fn a_circle_is_seen() {
        assert_eq!(circles(FLOORS), Vec::<String>::new());
        assert_eq!(circles(&[("a", &["b"]), ("b", &["a"])]).len(), 1);
        assert_eq!(circles(&[("a", &["a"])]).len(), 1);
    }

    #[test]
    fn floors_bite() {
        bites("src/base/id.rs", "use crate::store::Env;", ":2: `base` must not know `store`");
        bites("src/api/mod.rs", "fn f() { crate::replica::x() }", "must not know `replica`");
        bites("src/api/v2/keys.rs", "use crate::render::Engine;", "must not know `render`");
        bites("src/ctl/mod.rs", "use crate::node::Handle;", "must not know `node`");
        bites("src/store/mod.rs", "use crate::{base, wire};", "one module per `use crate::` line");
        bites("src/store/mod.rs", "use crate::*;", "one module per `use crate::` line");
        bites("src/store/mod.rs", "use super::wire;", "`super` out of its floor");
        bites("src/store/env.rs", "use super::super::wire;", "`super` out of its floor");
        bites("src/main.rs", "use althing::node::Handle;", "`main` must not know `node`");
        bites("src/attic/mod.rs", "", "`attic` has no row");
        passes("src/api/v2/keys.rs", "use crate::node::Handle;\nuse super::super::Door;");
        passes("src/ctl/mod.rs", "use crate::render::Engine;");
        passes("src/store/env.rs", "use super::wal;\nuse crate::base::id::Term;");
        passes("src/store/env.rs", "// crate::api\nconst A: &str = \"crate::api\";");
        passes("src/store/env.rs", "#[cfg(test)]\nmod tests {\n    use crate::api::x;\n}");
    }

    #[test]
    fn crates_outside_stay_in_their_rooms() {
        bites("src/machine/mod.rs", "use raft::RawNode;", "`raft` belongs to store, replica");
        bites("src/node/mod.rs", "fn f(e: &heed::Env) {}", "`heed` belongs to store");
        passes("src/replica/mod.rs", "use raft::RawNode;");
        passes("src/node/mod.rs", "fn f() { crate::wire::raft::encode(); draft::x() }");
    }

    #[test]
    fn words_bite() {
        bites("src/base/id.rs", "use std::collections::HashMap;", "`HashMap` in the determ");
        bites("src/store/wal.rs", "fn f() { std::thread::yield_now(); }", "`std::thread` in the");
        bites("src/api/mod.rs", "fn f() { a().unwrap() }", "`.unwrap()` outside tests");
        bites("src/api/mod.rs", "fn f() { todo!() }", "`todo!(` outside tests");
        bites(
            "src/api/mod.rs",
            "fn f() { unsafe { g() } }",
            "`unsafe` outside src/store/env.rs, src/sys/memory.rs",
        );
        bites("src/api/mod.rs", "// TODO later", "without its issue");
        bites("src/api/mod.rs", "// FIXME(me)", "without its issue");
        bites("src/api/mod.rs", "#[allow(dead_code)]\nfn f() {}", ":2: a lint switched off");
        passes("src/api/mod.rs", "#[expect(dead_code, reason = \"shown in docs\")]\nfn f() {}");
        passes("src/api/mod.rs", "use std::collections::HashMap; // TODO(#12): smaller");
        passes("src/store/env.rs", "fn f() { unsafe { g() } }");
        passes(
            "src/api/mod.rs",
            "fn f() { a(\".unwrap()\") } // todo!()\nconst unsafe_code: u8 = 1;",
        );
    }

    #[test]
    fn sizes_and_headers_bite() {
        let long = format!("fn f() {{\n{}}}", "    a(\"{\");\n".repeat(69));
        bites("src/api/mod.rs", &long, ":2: `f` has 71 lines");
        passes("src/api/mod.rs", &format!("fn f() {{\n{}}}", "    a();\n".repeat(68)));
        bites("src/api/mod.rs", &"// a\n".repeat(500), "501 lines without tests");
        passes("src/api/mod.rs", &"// a\n".repeat(499));
        let tested = "#[cfg(test)]\nmod tests {\n    fn f() {\n    }\n}\n".to_owned();
        passes("src/api/mod.rs", &format!("{}{tested}", "\n".repeat(499)));
        bites("src/api/mod.rs", &format!("{tested}{}", "\n".repeat(500)), "501 lines");
        assert_eq!(breaches("src/api/mod.rs", "use std::fs;\n", false).len(), 1);
        assert_eq!(breaches("tests/a.rs", "//! A.\nfn f() { a().unwrap() }", true).len(), 0);
        assert_eq!(breaches("tests/a.rs", &format!("//! A.\n{long}"), true).len(), 1);
    }

    #[test]
    fn a_limit_needs_its_reason() {
        let said = |text| limits_without_reason("l", text).len();
        assert_eq!(said("//! x\n\npub const A: u8 = 1;\n"), 1);
        assert_eq!(said("/// Why.\npub const A: u8 = 1;\npub const B: u8 = 1;\n"), 1);
        assert_eq!(said("/// Why.\n#[rustfmt::skip]\npub const A: u8 = 1;\n"), 0);
    }
}
