//! The rules for everything that is not Rust: Markdown, manifests, and words of one machine.
//!
//! Prose drifts from code, so a page may name a file only while that file exists. As for Rust
//! files, each rule is a function from text to breaches, with samples that show that it bites.

use std::path::Path;

/// Folders of this project whose files pages speak of. `templates/` is not among them: on pages it
/// is the user's folder.
const FOLDERS: &[&str] = &["src/", "docs/", "tests/", "examples/", "fuzz/", ".ci/"];

/// Crates of which two versions would mean two of a kind that must be one: two HTTP stacks, two
/// runtimes, two stores.
const ONE_VERSION: &[&str] = &["tokio", "hyper", "http", "h2", "heed", "raft"];

/// Words that tie the project to the machine or the mirror it was built on. Each is in two halves,
/// so that this file may be read by its own rule.
const MACHINE_WORDS: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("/tmp/bash", "_jobs"),
    ("crates", ".io"),
    ("registry.", "npmjs.org"),
    ("py", "pi.org"),
    ("proxy.", "golang.org"),
    ("deb.", "debian.org"),
];

/// Links that lead nowhere, and files that are named and are not there. `page` is relative to
/// `root`.
pub(crate) fn dead_references(root: &Path, page: &str, text: &str) -> Vec<String> {
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let mut breaches = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for target in links(line).filter(|target| !root.join(folder).join(target).exists()) {
            breaches.push(format!("{page}:{}: link to {target}, which does not exist", at + 1));
        }
        for named in named_files(line).filter(|named| !root.join(named).exists()) {
            breaches.push(format!("{page}:{}: names {named}, which does not exist", at + 1));
        }
    }
    breaches
}

/// The relative targets of `[text](target)`, without their anchors.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.match_indices("](").filter_map(|(at, _)| {
        let target = line[at + 2..].split(')').next()?;
        target.split(['#', ' ']).next()
    });
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// Every `src/…`, `docs/…` and so on; a pattern counts up to its first brace, star or bracket.
fn named_files(line: &str) -> impl Iterator<Item = &str> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let starts = FOLDERS.iter().flat_map(|folder| line.match_indices(folder));
    starts.filter(move |(at, _)| !line[..*at].ends_with(is_path)).map(move |(at, _)| {
        let named = &line[at..];
        let end = named.find(|c| !is_path(c)).unwrap_or(named.len());
        let is_pattern = named[end..].starts_with(['{', '*', '<', '[']);
        let named = named[..end].trim_end_matches('.');
        match named.rsplit_once('/') {
            Some((folder, _)) if is_pattern => folder,
            _ => named,
        }
    })
}

/// Dependencies of a Cargo.toml that do not say why they are there.
pub(crate) fn dependencies_without_reason(path: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut is_listing = false;
    for (at, line) in text.lines().map(str::trim).enumerate() {
        if line.starts_with('[') {
            is_listing = line.ends_with("dependencies]");
        } else if is_listing && line.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            let reason = line.rsplit_once(" # ").map_or("", |(_, reason)| reason.trim());
            if reason.is_empty() {
                breaches.push(format!("{path}:{}: `{line}` has no # reason", at + 1));
            }
        }
    }
    breaches
}

/// Crates of `ONE_VERSION` that Cargo.lock holds never or more than once.
pub(crate) fn doubled_crates(lock: &str) -> Vec<String> {
    let versions = |name: &str| lock.matches(&format!("name = \"{name}\"\n")).count();
    let counted = ONE_VERSION.iter().map(|name| (name, versions(name)));
    let doubled = counted.filter(|(_, count)| *count != 1);
    doubled.map(|(name, count)| format!("Cargo.lock: {count} versions of {name}")).collect()
}

/// Words of `MACHINE_WORDS`, public addresses, and ways out of the repository.
pub(crate) fn machine_words(path: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for (first, second) in MACHINE_WORDS {
            let word = format!("{first}{second}");
            if line.contains(&word) {
                breaches.push(format!("{path}:{}: `{word}` belongs to one machine", at + 1));
            }
        }
        for address in public_addresses(line) {
            breaches.push(format!("{path}:{}: {address} may be somebody's host", at + 1));
        }
        if path.starts_with("tests/") && line.contains(concat!("../", "shared")) {
            breaches.push(format!("{path}:{}: reaches out of the repository", at + 1));
        }
    }
    breaches
}

/// IPv4 addresses that are neither loopback nor private nor kept for documents (RFC 5737).
fn public_addresses(line: &str) -> impl Iterator<Item = std::net::Ipv4Addr> {
    let numbers = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_');
    let addresses = numbers.filter_map(|word| word.trim_matches('.').parse().ok());
    addresses.filter(|address: &std::net::Ipv4Addr| {
        let is_nobodys = address.is_loopback()
            || address.is_private()
            || address.is_documentation()
            || address.is_unspecified()
            || address.is_broadcast()
            || address.is_link_local();
        !is_nobodys
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(page: &str, text: &str) -> usize {
        dead_references(Path::new(env!("CARGO_MANIFEST_DIR")), page, text).len()
    }

    #[test]
    fn references_bite() {
        assert_eq!(dead("README.md", "see [docs](docs/nowhere.md)"), 2, "as a link and as a path");
        assert_eq!(dead("docs/a.md", "[up](../Cargo.toml#x) [here](#top) [web](https://a.b/c)"), 0);
        assert_eq!(dead("docs/a.md", "[wrong folder](Cargo.toml)"), 1);
        assert_eq!(dead("README.md", "`src/lib.rs`, src/base/, src/base/{id,path}.rs, tests/*"), 0);
        assert_eq!(dead("README.md", "`src/attic.rs`."), 1);
        assert_eq!(dead("README.md", "src/attic/{a,b}.rs"), 1);
        assert_eq!(dead("README.md", "etcd's http://host/src/x.go and theirs/docs/y"), 0);
    }

    #[test]
    fn manifests_bite() {
        let said = |text| dependencies_without_reason("Cargo.toml", text).len();
        assert_eq!(said("[dependencies]\nbytes = \"1\"\n"), 1);
        assert_eq!(said("[dev-dependencies]\nbytes = \"1\" #\n"), 1);
        assert_eq!(said("[dependencies]\nbytes = \"1\" # cheap values\n\n[lints]\na = 1\n"), 0);
        let lock: String = ONE_VERSION.iter().map(|n| format!("name = \"{n}\"\n")).collect();
        assert_eq!(doubled_crates(&lock).len(), 0);
        assert_eq!(
            doubled_crates(&format!("{lock}name = \"h2\"\n")),
            ["Cargo.lock: 2 versions of h2"]
        );
        assert_eq!(doubled_crates("").len(), ONE_VERSION.len());
    }

    #[test]
    fn machine_words_bite() {
        let said = |path, text: &str| machine_words(path, text).len();
        for (first, second) in MACHINE_WORDS {
            assert_eq!(said("README.md", &format!("a {first}{second}x")), 1);
        }
        assert_eq!(said("README.md", concat!("ping 8.8", ".8.8")), 1);
        assert_eq!(said("README.md", "127.0.0.1:2379 10.0.0.7 192.0.2.1 0.0.0.0 v1.2.3 1.2.3"), 0);
        assert_eq!(said("tests/a.rs", concat!("include!(\"../", "shared/x\")")), 1);
    }
}
