//! `config show`: the settings a daemon would run with here, and where each comes from.
//!
//! Why: "which of the four places does this value come from" is the first question when a setting
//! seems to be ignored.
//!
//! How data passes: the flags of `run` and this process's surroundings -> `config::load` -> a
//! line a setting.
//!
//! Invariants:
//! * The text is a settings file: what is shown can be saved and read again.
//! * Origins stand behind `#`, so they change nothing.
//!
//! Deliberately not here: the settings of a daemon that runs already with flags or variables of
//! its own; ask with the same flags and variables.

use crate::base::report::Report;
use crate::config::{self, Config, Flags, Surroundings};
use crate::ctl::output::{Format, Out, columns};
use serde_json::json;

/// Verbs of `config`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ConfigVerb {
    /// Print every setting in force, as a settings file
    Show(Box<ShowArgs>),
}

/// Arguments of `config show`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing config show --origin\n  \
    althing config show --config ./althing.toml -o json")]
pub struct ShowArgs {
    /// Say behind each setting where it comes from
    #[arg(long)]
    pub origin: bool,
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Format,
    /// The flags of `run`.
    #[command(flatten)]
    pub flags: Flags,
}

/// Prints the settings.
///
/// # Errors
/// Every mistake in them.
pub fn run(verb: &ConfigVerb, out: &mut Out<'_>) -> Result<(), Report> {
    let ConfigVerb::Show(args) = verb;
    let config = config::load(&args.flags, &Surroundings::of_this_process())?;
    match args.output {
        Format::Json => out.line(&as_json(&config)),
        Format::Text => {
            if args.origin {
                out.line(&format!("# {}", file_line(&config)))?;
            }
            as_toml(&config, args.origin).iter().try_for_each(|line| out.line(line))
        }
    }
}

fn file_line(config: &Config) -> String {
    match &config.file {
        Some(file) if file.read => format!("settings file: {}", file.path.display()),
        Some(file) => format!("settings file: {} is not there", file.path.display()),
        None => "no settings file is read with --dev".to_owned(),
    }
}

fn as_toml(config: &Config, with_origin: bool) -> Vec<String> {
    let shown = config.shown();
    let rows = shown.iter().map(|row| {
        let line = format!("{} = {}", row.spec.key, row.value);
        if with_origin { vec![line, format!("# {}", row.origin)] } else { vec![line] }
    });
    columns(&rows.collect::<Vec<_>>())
}

fn as_json(config: &Config) -> String {
    let shown = config.shown();
    let settings = shown.iter().map(
        |row| json!({ "key": row.spec.key, "value": row.value, "origin": row.origin.to_string() }),
    );
    let settings: Vec<serde_json::Value> = settings.collect();
    let file = config.file.as_ref().map(|file| json!({ "path": file.path, "read": file.read }));
    json!({ "file": file, "settings": settings }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_shown_is_a_settings_file() {
        std::fs::create_dir_all("target").unwrap();
        let dir = tempfile::tempdir_in("target").unwrap();
        let surroundings = |file| Surroundings {
            hostname: "box \"1\"".replace([' ', '"'], ""),
            environment: BTreeMap::new(),
            default_file: file,
        };
        let config = config::load(&Flags::default(), &surroundings(None)).unwrap();
        let text = as_toml(&config, true).join("\n");
        assert!(text.starts_with("name = \"box1\"  "), "{text}");
        assert!(text.contains("# the default"), "{text}");
        let file = dir.path().join("althing.toml");
        std::fs::write(&file, text).unwrap();
        let again = config::load(&Flags::default(), &surroundings(Some(file))).unwrap();
        assert!(config::change::changes(&config, &again).is_empty());
        let json: serde_json::Value = serde_json::from_str(&as_json(&again)).unwrap();
        assert_eq!(json["settings"][0]["value"], "box1");
        assert_eq!(json["file"]["read"], true);
        assert!(json["settings"][0]["origin"].as_str().unwrap().ends_with("althing.toml:1:8"));
    }
}
