//! `check`: would the daemon take these settings, resources and templates?
//!
//! Why: what is wrong should be found by whoever edits a file, or by a pipeline, and not by the
//! daemon at its next reload.
//!
//! How data passes: settings -> resources -> destinations -> (keys) -> templates -> the check
//! commands, each on a copy; every problem found is told, one after the other.
//!
//! Invariants:
//! * No destination is touched and no reload is run.
//! * A line begins with `ok`, `no`, or `??` for what may be meant and looks wrong.
//! * Exit code 78: settings or resource files are wrong; 2: the keys could not be had; 1: a
//!   template fails or a check refuses.
//!
//! Deliberately not here: what a file would become (`plan`).

use crate::base::diagnostic::Diagnostic;
use crate::base::report::{Exit, Report};
use crate::config::{Config, Surroundings};
use crate::ctl::frozen::{Frozen, KeySource};
use crate::ctl::output::{Out, quoted};
use crate::ctl::survey::{self, Site, Survey};
use crate::render::resource::Resource;
use crate::sys::exec::CommandLine;
use std::path::Path;
use std::sync::Arc;

/// What a POSIX shell does itself, and the words of its grammar.
const SHELL_WORDS: [&str; 42] = [
    ".", ":", "alias", "bg", "break", "case", "cd", "command", "continue", "do", "echo", "eval",
    "exec", "exit", "export", "false", "fg", "for", "getopts", "hash", "if", "jobs", "kill",
    "local", "printf", "pwd", "read", "readonly", "return", "set", "shift", "test", "times",
    "trap", "true", "type", "ulimit", "umask", "unset", "until", "wait", "while",
];

/// Arguments of `check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing check\n  \
    althing check --confdir ./althing-dev --data keys.json\n\n\
    No file is touched and nothing is reloaded. check_cmd is run on a copy of each new file.")]
pub struct CheckArgs {
    /// Whose resources.
    #[command(flatten)]
    pub site: Site,
    /// Where the keys are.
    #[command(flatten)]
    pub keys: KeySource,
}

/// Checks everything, and prints a line a resource.
///
/// # Errors
/// When anything is wrong, with all of it.
pub async fn check(args: &CheckArgs, out: &mut Out<'_>) -> Result<(), Report> {
    let settings = args.site.settings()?;
    told_settings(&settings, out)?;
    let survey = Survey::of(&settings);
    let survey = survey.map_err(|error| survey::report(Exit::Config, vec![error]))?;
    let mut problems = survey.problems.clone();
    let mut good = Vec::new();
    for resource in &survey.resources {
        match survey.look_at(resource) {
            Ok(()) => good.push(resource),
            Err(problem) => problems.push(problem),
        }
    }
    let are_files_wrong = !problems.is_empty();
    match args.keys.freeze().await {
        Ok(keys) => problems.extend(try_all(&survey, &good, &Arc::new(keys), out).await?),
        Err(report) if !are_files_wrong => return Err(report),
        Err(report) => {
            let why = quoted(&report.cause.unwrap_or(report.error));
            out.line(&format!("??  keys      no template is tried: {why}"))?;
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(survey::report(if are_files_wrong { Exit::Config } else { Exit::Failed }, problems))
}

fn told_settings(settings: &Config, out: &mut Out<'_>) -> Result<(), Report> {
    let from = match &settings.file {
        Some(file) if file.read => format!("{}", file.path.display()),
        Some(_) | None => "no settings file".to_owned(),
    };
    out.line(&format!("ok  settings  {}", quoted(&from)))?;
    for (name, near) in Surroundings::of_this_process().misspelt() {
        out.line(&format!("??  variable  {name} sets nothing; did you mean {near}?"))?;
    }
    Ok(())
}

async fn try_all(
    survey: &Survey,
    resources: &[&Resource],
    keys: &Arc<Frozen>,
    out: &mut Out<'_>,
) -> Result<Vec<Diagnostic>, Report> {
    let mut problems = Vec::new();
    for resource in resources {
        let line = |word| format!("{word}  resource  {}", quoted(&resource.name));
        match try_one(survey, resource, keys).await {
            Ok(()) => {
                out.line(&line("ok"))?;
                tell_missing_programs(resource, out)?;
            }
            Err(problem) => {
                out.line(&line("no"))?;
                problems.push(problem);
            }
        }
    }
    Ok(problems)
}

async fn try_one(
    survey: &Survey,
    resource: &Resource,
    keys: &Arc<Frozen>,
) -> Result<(), Diagnostic> {
    let bytes = survey.render(resource, keys).await?;
    survey.check(resource, &bytes, keys).await
}

/// Commands that name a program this host does not have. No more than a hint: the check may be
/// run on another host than the one that reloads.
fn tell_missing_programs(resource: &Resource, out: &mut Out<'_>) -> Result<(), Report> {
    for (key, line) in [("reload_cmd", &resource.reload), ("verify_cmd", &resource.verify)] {
        let program = line.as_ref().and_then(program_of);
        if let Some(program) = program.filter(|program| !is_there(program)) {
            let (name, program) = (quoted(&resource.name), quoted(program));
            out.line(&format!(
                "??  command   {name}: {key} names {program}, which is not on PATH"
            ))?;
        }
    }
    Ok(())
}

/// The program a command begins with. What a shell makes of anything but a plain first word is
/// not guessed, and neither is what it does itself.
fn program_of(line: &CommandLine) -> Option<&str> {
    let text = match line {
        CommandLine::Argv(words) => return words.first().map(String::as_str),
        CommandLine::Shell(text) => text,
    };
    let word = text.split_whitespace().next()?;
    let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "_+./-".contains(c));
    (is_plain && !SHELL_WORDS.contains(&word)).then_some(word)
}

fn is_there(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_without_its_program_is_hinted_at() {
        let told = |lines: &str| {
            let text = format!("[template]\nsrc = \"a.tera\"\ndest = \"/a\"\n{lines}\n");
            let resource = crate::render::resource::parse(Path::new("a.toml"), "a", &text).unwrap();
            let mut printed = Vec::new();
            tell_missing_programs(&resource[0], &mut Out::buffer(&mut printed)).unwrap();
            String::from_utf8(printed).unwrap()
        };
        for fine in [
            "reload_cmd = [\"/bin/sh\", \"-c\", \"true\"]",
            "reload_cmd = [\"sh\"]",
            "reload_cmd = \"sh -c true\"",
            "verify_cmd = \"if no-such-program; then exit 1; fi\"",
            "verify_cmd = \"VAR=1 no-such-program\"",
            "verify_cmd = \"$PROGRAM x\"",
            "verify_cmd = \"{ no-such-program; }\"",
        ] {
            assert_eq!(told(fine), "", "{fine}");
        }
        let hint =
            |key| format!("??  command   a: {key} names no-such-program, which is not on PATH\n");
        assert_eq!(told("reload_cmd = [\"no-such-program\"]"), hint("reload_cmd"));
        assert_eq!(told("reload_cmd = \"no-such-program x\""), hint("reload_cmd"));
        assert_eq!(told("verify_cmd = [\"no-such-program\"]"), hint("verify_cmd"));
        assert_eq!(told("verify_cmd = \"no-such-program\""), hint("verify_cmd"));
    }
}
