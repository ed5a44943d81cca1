//! `render`: templates without a daemon on this host, from any cluster over HTTP.
//!
//! Why: to see what a template makes of the store before it goes live, and to use the renderer in
//! a script. What the daemon does all the time, this does once.
//!
//! How data passes: the keys at one revision (`frozen`) -> the renderer. With `--to`, one
//! resource's bytes go to a file or standard output; without, every resource is rendered, checked,
//! replaced and its service reloaded, as the daemon would.
//!
//! Invariants:
//! * All files of one run are from one revision.
//! * With `--to`, no destination is touched and no command runs.
//! * Exit code 1 when any resource fails; the others are done all the same.
//! * Keys of a file (`--data`) never reach a destination: they are for trying.
//!
//! Deliberately not here: showing what would change (`plan`).

use crate::base::diagnostic::Diagnostic;
use crate::base::report::{Exit, Report, chain};
use crate::ctl::advice;
use crate::ctl::frozen::{Frozen, KeySource};
use crate::ctl::output::{Out, quoted};
use crate::ctl::survey::{self, Site};
use crate::render::resource::{self, Resource};
use crate::render::{Options, Renderer, ResourceStatus, render_once};
use crate::sys::file::{self, Durability};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Permission bits of a file made by `--to`, before the umask has its say.
const TO_FILE_MODE: u32 = 0o640;

/// Arguments of `render`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing render hello --to - --confdir ./althing-dev\n  \
    althing render --confdir /etc/althing\n\n\
    A resource's name is the path of its file below conf.d, without .toml.")]
pub struct RenderArgs {
    /// The resource; without --to, all are rendered
    #[arg(requires = "to")]
    pub name: Option<String>,
    /// Write the result here and do nothing else; - is standard output
    #[arg(long, value_name = "FILE", requires = "name")]
    pub to: Option<PathBuf>,
    /// Whose resources.
    #[command(flatten)]
    pub site: Site,
    /// Where is kept which reloads are owed [default: .state in the confdir]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the keys are.
    #[command(flatten)]
    pub keys: KeySource,
}

/// Renders one resource somewhere, or all where they belong.
///
/// # Errors
/// When the store cannot be read, or a resource fails.
pub async fn render(args: &RenderArgs, out: &mut Out<'_>) -> Result<(), Report> {
    if args.keys.data.is_some() && args.to.is_none() {
        let error = "--data is for trying a template: it needs NAME and --to";
        return Err(Report::new(Exit::Usage, error)
            .help("see every file that would change: althing plan --data FILE"));
    }
    let source = Arc::new(args.keys.freeze().await?);
    let settings = args.site.settings()?;
    let confdir = &settings.confdir.value;
    let state_dir = args.state_dir.clone().unwrap_or_else(|| confdir.join(".state"));
    let options = survey::options(&settings, confdir, &state_dir);
    match (&args.name, &args.to) {
        (Some(name), Some(to)) => {
            let resource = find(confdir, name).map_err(|error| report(&error))?;
            let rendered = render_once(&options, source, &resource).await;
            deliver(&rendered.map_err(|error| report(&error))?, to, out)
        }
        (None | Some(_), None | Some(_)) => render_all(options, source, out).await,
    }
}

fn find(confdir: &Path, name: &str) -> Result<Resource, Diagnostic> {
    let mut names = Vec::new();
    for loaded in resource::load(confdir)? {
        match loaded.outcome {
            Ok(resources) => {
                for resource in resources {
                    if resource.name == name {
                        return Ok(resource);
                    }
                    names.push(resource.name);
                }
            }
            Err(mut errors) if loaded.name == name && !errors.is_empty() => {
                return Err(errors.remove(0));
            }
            Err(_) => {}
        }
    }
    let help = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
    let file = confdir.join("conf.d").display().to_string();
    Err(Diagnostic::new(file, format!("no resource is called `{name}`"))
        .help(format!("resources are: {help}")))
}

/// A diagnostic already has its place, key and help in its text.
fn report(error: &Diagnostic) -> Report {
    let shown = advice::with_next_step(error.clone()).to_string();
    Report::new(Exit::Failed, shown.strip_prefix("error: ").unwrap_or(&shown))
}

fn deliver(bytes: &[u8], to: &Path, out: &mut Out<'_>) -> Result<(), Report> {
    if to == Path::new("-") {
        return out.bytes(bytes);
    }
    file::replace(to, bytes, TO_FILE_MODE, Durability::Lazy)
        .map_err(|error| Report::new(Exit::Failed, chain(&error)))
}

async fn render_all(
    options: Options,
    source: Arc<Frozen>,
    out: &mut Out<'_>,
) -> Result<(), Report> {
    let renderer = Renderer::start(options, source)
        .map_err(|error| Report::new(Exit::Failed, chain(&error)))?;
    renderer.first_pass().await;
    let files = renderer.status();
    renderer.shutdown().await;
    for file in &files {
        out.line(&line(file))?;
    }
    let errors: Vec<&str> = files.iter().filter_map(|file| file.error.as_deref()).collect();
    if errors.is_empty() {
        return Ok(());
    }
    let shown = errors.join("\n");
    Err(Report::new(Exit::Failed, shown.strip_prefix("error: ").unwrap_or(&shown)))
}

fn line(file: &ResourceStatus) -> String {
    let what = match (&file.error, file.changes) {
        (Some(_), _) => "failed",
        (None, 0) if file.behind => "waiting",
        (None, 0) => "unchanged",
        (None, _) => "replaced",
    };
    format!("{what}  {}  {}", quoted(&file.name), quoted(&file.dest.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::testing::{run, serve};

    const TREE: &str = r#"{"action":"get","node":{"dir":true}}"#;

    #[tokio::test]
    async fn a_missing_resource_is_named_with_those_there_are() {
        std::fs::create_dir_all("target").unwrap();
        let dir = tempfile::tempdir_in("target").unwrap();
        std::fs::create_dir_all(dir.path().join("conf.d")).unwrap();
        let server = serve(vec![(200, TREE), (200, TREE)]).await;
        let confdir = dir.path().to_str().unwrap();
        let words = ["render", "hello", "--to", "-", "--confdir", confdir];
        let report = run(&server.url, &words).await.unwrap_err();
        assert_eq!(report.exit, Exit::Failed);
        assert!(report.error.starts_with("no resource is called `hello`\n"), "{report}");
        assert_eq!(run(&server.url, &["render", "--confdir", confdir]).await.unwrap(), "");
    }
}
