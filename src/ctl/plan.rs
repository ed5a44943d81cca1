//! `plan`: what would change in the files of this host, and in nothing else.
//!
//! Why: a template or key that is wrong should be seen before it is in a file, in the form every
//! administrator reads: a unified diff.
//!
//! How data passes: `survey` (resources, one revision, bytes, check) -> the file as it is ->
//! `diff` -> lines, coloured on a terminal.
//!
//! Invariants:
//! * Exit code 0: nothing would change; 1: something would; 255: it could not be worked out.
//! * A sensitive file is named and never shown, nor what its check said.
//! * Control characters of stored values are shown on a terminal, not obeyed.
//!
//! Sources: the exit codes are those of `nomad plan`.

use crate::base::diagnostic::Diagnostic;
use crate::base::report::{Exit, Report};
use crate::ctl::Ended;
use crate::ctl::diff::{Line, unified};
use crate::ctl::frozen::{Frozen, KeySource};
use crate::ctl::output::{Out, quoted};
use crate::ctl::survey::{self, Site, Survey};
use crate::render::place;
use crate::render::resource::Resource;
use crate::render::stage::Access;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// Arguments of `plan`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing plan\n  \
    althing plan --confdir ./althing-dev --data keys.json\n\n\
    Exit codes: 0 nothing would change, 1 something would, 255 it could not be worked out.\n\
    getenv() sees the environment of this command, not the daemon's.")]
pub struct PlanArgs {
    /// Whose resources.
    #[command(flatten)]
    pub site: Site,
    /// Where the keys are.
    #[command(flatten)]
    pub keys: KeySource,
}

/// What would become of one file.
enum Change {
    Nothing,
    /// The old text, of a file that is there, and what else is new.
    Replace {
        old: String,
        access: Vec<Other>,
    },
    Create,
}

/// A mode, owner or group, and what it would be: `0644 -> 0640`.
type Other = (&'static str, String);

/// Prints what would change.
///
/// # Errors
/// When a resource fails, with all that do.
pub async fn plan(args: &PlanArgs, out: &mut Out<'_>) -> Result<Ended, Report> {
    let outcome = work_out(args, out).await;
    outcome.map_err(|report| Report { exit: Exit::NoPlan, ..report })
}

async fn work_out(args: &PlanArgs, out: &mut Out<'_>) -> Result<Ended, Report> {
    let survey = Survey::of(&args.site.settings()?);
    let survey = survey.map_err(|error| survey::report(Exit::NoPlan, vec![error]))?;
    let keys = Arc::new(args.keys.freeze().await?);
    let (mut changed, mut problems) = (0, survey.problems.clone());
    for resource in &survey.resources {
        match work_out_one(&survey, resource, &keys).await {
            Ok(Drawn { change: Change::Nothing, .. }) => {}
            Ok(drawn) => {
                changed += 1;
                show(resource, &drawn, out)?;
            }
            Err(problem) => problems.push(problem),
        }
    }
    let files = survey.resources.len() + survey.problems.len();
    out.line(&summary(changed, files, problems.len(), keys.revision().0))?;
    if !problems.is_empty() {
        return Err(survey::report(Exit::NoPlan, problems));
    }
    Ok(if changed == 0 { Ended::Done } else { Ended::WouldChange })
}

/// A rendered file beside the one that is there.
struct Drawn {
    new: String,
    change: Change,
}

async fn work_out_one(
    survey: &Survey,
    resource: &Resource,
    keys: &Arc<Frozen>,
) -> Result<Drawn, Diagnostic> {
    survey.look_at(resource)?;
    let bytes = survey.render(resource, keys).await?;
    let change = compare(resource, &bytes)?;
    if !matches!(change, Change::Nothing) {
        survey.check(resource, &bytes, keys).await?;
    }
    Ok(Drawn { new: String::from_utf8_lossy(&bytes).into_owned(), change })
}

fn compare(resource: &Resource, new: &[u8]) -> Result<Change, Diagnostic> {
    let dest = place::target(resource);
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!("cannot read {}: {error}", dest.display());
        Diagnostic::new(resource.file.display().to_string(), message)
            .help("ask as the user the daemon runs as")
    };
    let (old, is) = match std::fs::read(&dest).and_then(|old| Ok((old, std::fs::metadata(&dest)?)))
    {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Change::Create),
        Err(error) => return Err(failed(&error)),
    };
    let access = other_access(resource.access().map_err(|error| failed(&error))?, &is);
    if old == new && access.is_empty() {
        return Ok(Change::Nothing);
    }
    Ok(Change::Replace { old: String::from_utf8_lossy(&old).into_owned(), access })
}

/// What of owner, group and mode would be another one.
fn other_access(wanted: Access, old: &Metadata) -> Vec<Other> {
    let missing = wanted.missing_in(old);
    let number = |old: u32, new: u32| format!("{old} -> {new}");
    let mode = |new: u32| format!("{:04o} -> {new:04o}", old.mode() & 0o7777);
    [
        ("owner", missing.owner.map(|new| number(old.uid(), new))),
        ("group", missing.group.map(|new| number(old.gid(), new))),
        ("mode", missing.mode.map(mode)),
    ]
    .into_iter()
    .filter_map(|(what, change)| Some((what, change?)))
    .collect()
}

fn show(resource: &Resource, drawn: &Drawn, out: &mut Out<'_>) -> Result<(), Report> {
    let dest = quoted(&resource.dest.display().to_string());
    let name = quoted(&resource.name);
    let (old_name, old) = match &drawn.change {
        Change::Nothing => return Ok(()),
        Change::Create => ("/dev/null", ""),
        Change::Replace { old, access } => {
            for (what, change) in access {
                out.line(&format!("{what} of {dest}: {change}"))?;
            }
            (dest.as_str(), old.as_str())
        }
    };
    if resource.sensitive {
        return out.line(&format!("{dest} would change; it is sensitive and not shown"));
    }
    let lines = unified(old, &drawn.new);
    if lines.is_empty() && matches!(drawn.change, Change::Replace { .. }) {
        return Ok(());
    }
    out.line(&out.bold(&format!("--- {old_name}")))?;
    out.line(&out.bold(&format!("+++ {dest} (resource {name})")))?;
    lines.iter().try_for_each(|line| show_line(line, out))
}

fn show_line(line: &Line<'_>, out: &mut Out<'_>) -> Result<(), Report> {
    let (code, mark, text) = match line {
        Line::Hunk(text) => return out.line(&out.coloured("36", text)),
        Line::Same(text) => ("", ' ', text),
        Line::Removed(text) => ("31", '-', text),
        Line::Added(text) => ("32", '+', text),
    };
    let (body, has_end) = match text.strip_suffix('\n') {
        Some(body) => (body, true),
        None => (*text, false),
    };
    let shown = format!("{mark}{}", out.shown(body));
    let shown = if code.is_empty() { shown } else { out.coloured(code, &shown) };
    out.line(&shown)?;
    if has_end { Ok(()) } else { out.line("\\ No newline at end of file") }
}

fn summary(changed: usize, files: usize, failed: usize, revision: u64) -> String {
    let of = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
    match (changed, failed) {
        (0, 0) => format!("nothing would change in {of} (revision {revision})"),
        (some, 0) => format!("{some} of {of} would change (revision {revision})"),
        (some, failed) => {
            format!("{some} of {of} would change, {failed} failed (revision {revision})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[Line<'_>]) -> String {
        let mut printed = Vec::new();
        let mut out = Out::terminal(&mut printed);
        lines.iter().try_for_each(|line| show_line(line, &mut out)).unwrap();
        drop(out);
        String::from_utf8(printed).unwrap()
    }

    #[test]
    fn hostile_lines_are_shown_and_missing_ends_told() {
        let shown = lines(&[Line::Added("a\x1b[2J\n"), Line::Removed("b")]);
        assert_eq!(shown, "+a\\u{1b}[2J\n-b\n\\ No newline at end of file\n");
    }

    #[test]
    fn what_is_sensitive_is_named_and_not_shown() {
        let drawn = Drawn { new: "secret\n".to_owned(), change: Change::Create };
        let shown = |more: &str| {
            let text = format!("[template]\nsrc = \"web.tera\"\ndest = \"/x\"\n{more}");
            let file = std::path::Path::new("web.toml");
            let resource = crate::render::resource::parse(file, "web", &text).unwrap().remove(0);
            let mut printed = Vec::new();
            show(&resource, &drawn, &mut Out::buffer(&mut printed)).unwrap();
            String::from_utf8(printed).unwrap()
        };
        assert!(shown("").contains("+secret\n"));
        let hidden = shown("sensitive = true\n");
        assert_eq!(hidden, "/x would change; it is sensitive and not shown\n");
    }

    /// Equal bytes, and yet the daemon would give the file away.
    #[test]
    fn another_owner_is_a_change() {
        std::fs::create_dir_all("target").unwrap();
        let folder = tempfile::tempdir_in(std::fs::canonicalize("target").unwrap()).unwrap();
        let dest = folder.path().join("a");
        std::fs::write(&dest, "x").unwrap();
        let changes = |more: &str| {
            let text = format!("[template]\nsrc = \"a.tera\"\ndest = {dest:?}\n{more}");
            let file = folder.path().join("a.toml");
            let resource = crate::render::resource::parse(&file, "a", &text).unwrap().remove(0);
            match compare(&resource, b"x").unwrap() {
                Change::Nothing => Vec::new(),
                Change::Replace { access, .. } => access,
                Change::Create => panic!("it is there"),
            }
        };
        let is = std::fs::metadata(&dest).unwrap();
        assert_eq!(changes(&format!("uid = {}\ngid = {}", is.uid(), is.gid())), []);
        assert_eq!(changes("mode = \"0601\"")[0].0, "mode");
        if rustix::process::geteuid().is_root() {
            assert_eq!(changes("owner = \"4711\""), [("owner", "0 -> 4711".to_owned())]);
            assert_eq!(changes("gid = 4712"), [("group", format!("{} -> 4712", is.gid()))]);
        } else {
            assert_eq!(changes("uid = 0"), [], "it may not be given away");
        }
    }

    #[test]
    fn summaries_count() {
        assert_eq!(summary(0, 1, 0, 3), "nothing would change in 1 file (revision 3)");
        assert_eq!(summary(2, 5, 0, 3), "2 of 5 files would change (revision 3)");
        assert_eq!(summary(0, 1, 1, 3), "0 of 1 file would change, 1 failed (revision 3)");
    }
}
