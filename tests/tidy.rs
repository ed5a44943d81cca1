//! The house rules, as a test: `cargo tidy`.
//!
//! What: floors and who may name whom, sizes, headers, words that must not be there, limits with
//! their reasons, pages that name only files that exist, dependencies that say why they are here.
//! Why: what a machine can hold, no reviewer should have to say twice.
//!
//! How data passes: this file walks the tree and hands each file's path and text to the rules in
//! `tidy/sources.rs` and `tidy/documents.rs`; these are pure and answer one line per breach; a
//! test here fails with all lines at once. `tidy/lexer.rs` keeps braces and words in strings and
//! comments from fooling them. Each rule has samples beside it that it must refuse.

#![expect(clippy::unwrap_used, reason = "a file of the tree that cannot be read fails the test")]

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/sources.rs"]
mod sources;

use std::fs;
use std::path::Path;

/// Paths that are not the project's own: build results, the example data folder, and what fuzzing
/// leaves behind.
const NOT_OURS: &[&str] = &[
    "target",
    ".git",
    "althing-dev",
    "fuzz/target",
    "fuzz/corpus",
    "fuzz/artifacts",
    "fuzz/coverage",
    "fuzz/Cargo.lock",
];

#[test]
fn the_floors_have_no_circles() {
    assert_tidy(&sources::circles(sources::FLOORS));
}

#[test]
fn sources_are_tidy() {
    let files = files_under("src", "rs");
    let tests_only = test_only_files(&files);
    let mut breaches = Vec::new();
    for (path, text) in &files {
        breaches.extend(sources::breaches(path, text, tests_only.contains(path)));
    }
    assert!(files.len() > 10, "only {} files under src", files.len());
    assert_tidy(&breaches);
}

#[test]
fn tests_are_tidy() {
    let files = [files_under("tests", "rs"), files_under("fuzz", "rs")].concat();
    let breaches = files.iter().flat_map(|(path, text)| sources::breaches(path, text, true));
    assert_tidy(&breaches.collect::<Vec<_>>());
}

#[test]
fn every_limit_says_why() {
    let path = "src/base/limits.rs";
    assert_tidy(&sources::limits_without_reason(path, &read(path)));
}

#[test]
fn pages_name_only_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = files_under(".", "md");
    let map = read("src/lib.rs");
    let header: Vec<&str> = map.lines().take_while(|line| line.starts_with("//!")).collect();
    pages.push(("src/lib.rs".to_owned(), header.join("\n")));
    let dead = |(path, text): &(String, String)| documents::dead_references(root, path, text);
    assert_tidy(&pages.iter().flat_map(dead).collect::<Vec<_>>());
}

#[test]
fn dependencies_are_few_single_and_explained() {
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        assert_tidy(&documents::dependencies_without_reason(manifest, &read(manifest)));
    }
    assert_tidy(&documents::doubled_crates(&read("Cargo.lock")));
}

/// Recorded answers in tests/data/ may hold what their server said.
#[test]
fn nothing_names_one_machine() {
    let files = files_under(".", "");
    let free =
        |path: &str| ["Cargo.lock", "deny.toml"].contains(&path) || path.starts_with("tests/data/");
    let ours = files.iter().filter(|(path, _)| !free(path));
    let words = ours.flat_map(|(path, text)| documents::machine_words(path, text));
    assert_tidy(&words.collect::<Vec<_>>());
}

#[track_caller]
fn assert_tidy(breaches: &[String]) {
    assert!(breaches.is_empty(), "{} breaches:\n{}\n", breaches.len(), breaches.join("\n"));
}

/// The files that a `#[cfg(test)] mod name;` somewhere in `files` declares.
fn test_only_files(files: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        let stem = path.strip_suffix(".rs").unwrap_or(path);
        let folder = match stem.rsplit_once('/') {
            Some((folder, "mod" | "lib" | "main")) => folder,
            _ => stem,
        };
        for name in lexer::Source::new(text).test_modules() {
            found.extend([format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]);
        }
    }
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Path (relative to the root, with slashes) and text of every file below `folder` whose name ends
/// with `.extension`; all files for an empty extension.
fn files_under(folder: &str, extension: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let relative = relative.trim_start_matches("./").to_owned();
            let ours = !NOT_OURS.contains(&relative.as_str());
            if ours && path.is_dir() {
                folders.push(path);
            } else if ours && (extension.is_empty() || path.extension() == Some(extension.as_ref()))
            {
                files.push((
                    relative,
                    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned(),
                ));
            }
        }
    }
    files.sort();
    files
}
