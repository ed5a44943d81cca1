//! The pages of `docs/reference/` say what the program does.
//!
//! Each page is compared with what the binary writes; `UPDATE_GOLDENFILES=1` writes it anew. The
//! examples of the template functions are rendered by the real engine and compared with what the
//! page says they print.

mod common;

use althing::ctl::words::{EXAMPLE_KEYS, FILTERS, FUNCTIONS};
use common::{Finished, binary, clean, run, scratch};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[track_caller]
fn althing(folder: &Path, arguments: &[&str]) -> Finished {
    let mut command = clean(binary());
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    let finished = run(&mut command, folder, SOON);
    assert!(finished.status.success(), "{arguments:?}: {finished:?}");
    finished
}

#[test]
fn pages_are_what_the_program_writes() {
    let folder = scratch("reference");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
    for page in ["cli", "config", "resources", "exit-codes", "template-functions"] {
        let written = althing(folder.path(), &["reference", page]).stdout;
        let file = docs.join(format!("{page}.md"));
        if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
            fs::write(&file, &written).unwrap();
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        let name = file.display();
        assert!(kept == written, "{name} is out of date: UPDATE_GOLDENFILES=1 cargo test");
    }
}

#[test]
fn every_example_prints_what_the_page_says() {
    let folder = scratch("words");
    let words: Vec<_> = FUNCTIONS.iter().chain(FILTERS).collect();
    let lines = words.iter().map(|word| format!("{{{{ {} }}}}\n", word.example));
    let site = folder.path();
    fs::create_dir_all(site.join("conf.d")).unwrap();
    fs::create_dir_all(site.join("templates")).unwrap();
    fs::write(site.join("keys.json"), EXAMPLE_KEYS).unwrap();
    fs::write(site.join("templates/all.tera"), lines.collect::<String>()).unwrap();
    let resource = "[template]\nsrc = \"all.tera\"\ndest = \"/etc/althing-example.cfg\"\n";
    fs::write(site.join("conf.d/all.toml"), resource).unwrap();
    let render = ["render", "all", "--to", "-", "--confdir", ".", "--data", "keys.json"];
    let rendered = althing(site, &render).stdout;
    let printed: Vec<&str> = rendered.lines().collect();
    assert_eq!(printed.len(), words.len(), "{rendered}");
    for (word, printed) in words.iter().zip(printed) {
        assert!(word.prints.is_empty() || word.prints == printed, "{}: {printed}", word.name);
    }
}
