//! Quotes and what stands between them: read back by the programs they are for.
//!
//! Why real programs: a rule of quoting is what the parser does, not what its manual says.
//!
//! How: HAProxy prints a message of its configuration word for word (`.notice`), nginx makes a
//! log file of the name it was given; both only check. systemd's and the shell's words are read
//! by a shell.

use crate::common::{Bench, Store, status};
use crate::harness::program;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Values that leave their quotes if one rule is wrong. No `/`, so that each can name a file.
const NASTY: &[&str] = &[
    "plain",
    "two  words",
    "it's",
    "\"",
    "'",
    "''\"\"",
    "\\",
    "a\\\\b\\",
    "\\n\\x41\\ ",
    "#no comment",
    "a;b{c}d",
    "};evil{",
    "100%[src]",
    "Grüße 日本",
    "-rf",
    "*?[a]~",
];

/// What `$` may not do.
const DOLLARS: &[&str] = &["$HOME", "${HOME}", "a$", "$", "$(id)", "`id`"];

/// Renders `line` with `V` being one word of the value, for each value.
async fn rendered(filter: &str, values: &[&str], line: &str) -> Vec<Result<String, String>> {
    let bench = Bench::new();
    let store = Store::new();
    for (at, value) in values.iter().enumerate() {
        store.put(&format!("/{at}"), value);
        let word = format!("{{{{ getv(key='/{at}') | {filter} }}}}");
        bench.template(&format!("{at}.tera"), &line.replace('V', &word));
        bench.resource(&at.to_string(), "");
    }
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    let outcome = |at: usize| match status(&renderer, &at.to_string()).error {
        Some(error) => Err(error),
        None => Ok(bench.read(&at.to_string())),
    };
    let outcomes = (0..values.len()).map(outcome).collect();
    renderer.shutdown().await;
    outcomes
}

fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[tokio::test]
async fn haproxy_reads_what_was_stored() {
    let Some(haproxy) = program("haproxy") else { return };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let values = [NASTY, DOLLARS].concat();
    let lines = rendered("quote_haproxy", &values, "global\n.notice V\n").await;
    for (value, text) in values.iter().zip(lines) {
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, text.unwrap()).unwrap();
        let output = run(&haproxy, &["-c", "-f", &file.display().to_string()]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(&format!(": '{value}'.\n")), "{value}: {told}");
    }
}

#[tokio::test]
async fn nginx_reads_what_was_stored() {
    let Some(nginx) = program("nginx") else { return };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (file, logs) = (folder.path().join("nginx.conf"), folder.path().join("logs"));
    let line = "pid pid;\nerror_log stderr;\nevents {}\nhttp { access_log V; }\n";
    let lines = rendered("quote_nginx", NASTY, line).await;
    for (value, text) in NASTY.iter().zip(lines) {
        let _ = std::fs::remove_dir_all(&logs);
        std::fs::create_dir(&logs).unwrap();
        std::fs::write(&file, text.unwrap()).unwrap();
        // Relative names are below the prefix.
        let prefix = format!("{}/", logs.display());
        let output = run(&nginx, &["-t", "-p", &prefix, "-c", &file.display().to_string()]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && logs.join(value).is_file(), "{value}: {told}");
    }
    for outcome in rendered("quote_nginx", &DOLLARS[..4], "V").await {
        let error = outcome.unwrap_err();
        assert!(error.contains("no way to write the `$`") && error.contains("key: /"), "{error}");
    }
}

#[tokio::test]
async fn a_shell_reads_what_was_stored() {
    let values = [NASTY, DOLLARS].concat();
    for filter in ["quote_sh", "shell_quote", "env_quote"] {
        let lines = rendered(filter, &values, "printf %s V").await;
        for (value, text) in values.iter().zip(lines) {
            let output = run(Path::new("/bin/sh"), &["-c", &text.unwrap()]);
            assert_eq!(String::from_utf8_lossy(&output.stdout), *value, "{filter}");
        }
    }
}

#[tokio::test]
async fn no_quote_carries_a_line_break() {
    let values = ["a\nb", "a\rb", "a\0b", "\u{85}", "\u{2028}", "a\tb"];
    for filter in ["quote_sh", "shell_quote", "env_quote", "quote_haproxy", "quote_nginx"] {
        for outcome in rendered(filter, &values, "V").await {
            let error = outcome.unwrap_err();
            assert!(error.contains("could add lines") && error.contains("key: /"), "{error}");
        }
    }
}
