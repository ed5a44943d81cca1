//! The fuzz targets' seeds, and what a fuzzer found something with: what must hold for any bytes
//! holds for these at every `cargo test`.
//!
//! How data passes: each file of `fuzz/seeds/TARGET/` goes to that target's `check`, which panics.
//!
//! Deliberately not here: looking for new inputs (`fuzz/run`).

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
pub mod fuzz;

/// A target's name and its check.
type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[
    ("answer", fuzz::answer::check),
    ("config", fuzz::config::check),
    ("entry", fuzz::entry::check),
    ("form", fuzz::form::check),
    ("path", fuzz::path::check),
    ("stored", fuzz::stored::check),
    ("wal_record", fuzz::wal_record::check),
    ("wal_recovery", fuzz::wal_recovery::check),
    ("worker_pipe", fuzz::worker_pipe::check),
];

#[test]
fn seeds_hold() {
    for (name, check) in TARGETS {
        let seeds = files(&Path::new("seeds").join(name));
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            println!("{}", seed.display()); // Shown when the check panics.
            check(&fs::read(&seed).unwrap());
        }
    }
}

#[test]
fn every_target_is_here() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    for folder in ["fuzz_targets", "seeds"] {
        let there = files(Path::new(folder));
        let there: Vec<_> = there.iter().filter_map(|file| file.file_stem()?.to_str()).collect();
        assert_eq!(there, names, "fuzz/{folder}");
    }
}

/// What stands in a folder of `fuzz/`, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let entries = fs::read_dir(&folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}
