//! Default < file < environment < flag, each value with its origin.
//!
//! Why texts and not values are laid over each other: the four places differ in how they say a
//! thing, not in what it means; so the winner is found first, and only it is read, by the row.
//!
//! How data passes: command line -> `Flags`; process -> `Surroundings`; file -> `read_file` ->
//! one `Said` a key; the winner of each row -> `Row::parse` -> `Setting`; all -> the rules
//! between settings -> `Config`.
//!
//! Invariants:
//! * All mistakes are reported at once, each with its place; with one there is no `Config`.
//! * An empty environment variable counts as unset: unit files cannot unset.
//! * `--dev` changes defaults only, and ignores the host's default file.
//!
//! Deliberately not here: including files.

use crate::base::diagnostic::{Diagnostic, Place, did_you_mean};
use crate::base::limits;
use crate::config::table::{self, Row, SPECS, Spec, Wrong};
use crate::config::{BadConfig, Config, ListenUrl, Origin, Setting, SettingsFile};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The file that is read, if it is there, when none is named.
const DEFAULT_FILE: &str = "/etc/althing/althing.toml";
/// Names another file.
const FILE_VARIABLE: &str = "ALTHING_CONFIG";
/// Variables that are no settings: of clients, of logging, of commands and of tests.
const OTHER_VARIABLES: [&str; 10] = [
    FILE_VARIABLE,
    "ALTHING_DEST",
    "ALTHING_ENDPOINT",
    "ALTHING_ENDPOINTS",
    "ALTHING_FAILPOINT",
    "ALTHING_LOG",
    "ALTHING_REQUIRE_ALL",
    "ALTHING_REVISION",
    "ALTHING_SRC",
    "ALTHING_TEST_BINARY",
];
/// Data and confdir of `--dev`.
const DEV_DIR: &str = "./althing-dev";

/// What the command line says about settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    dev: bool,
    file: Option<PathBuf>,
    said: BTreeMap<&'static str, String>,
}

impl Flags {
    /// As if these two flags alone were given.
    #[must_use]
    pub fn of(file: Option<PathBuf>, confdir: Option<String>) -> Self {
        let said = confdir.map(|confdir| (table::CONFDIR.spec.key, confdir));
        Self { dev: false, file, said: said.into_iter().collect() }
    }
}

/// What the process says about settings, gathered once so that loading depends on nothing else.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The host's name.
    pub hostname: String,
    /// Environment variables.
    pub environment: BTreeMap<OsString, OsString>,
    /// Settings file read when none is named; `None` = there is no such place.
    pub default_file: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        // Not from /proc/sys: a sandbox may hide it.
        let system = rustix::system::uname();
        Self {
            hostname: system.nodename().to_string_lossy().into_owned(),
            environment: std::env::vars_os().collect(),
            default_file: Some(DEFAULT_FILE.into()),
        }
    }

    /// Variables that look like a misspelt setting, each with the name that may be meant. They are
    /// told and not refused: other programs may have variables of this form too.
    #[must_use]
    pub fn misspelt(&self) -> Vec<(String, &'static str)> {
        let known: Vec<&str> =
            SPECS.map(|spec| spec.env).into_iter().chain(OTHER_VARIABLES).collect();
        let names = self.environment.keys().filter_map(|name| name.to_str());
        let ours = names.filter(|name| name.starts_with("ALTHING_") && !known.contains(name));
        let settings = SPECS.map(|spec| spec.env);
        let near = ours.filter_map(|name| Some((name.to_owned(), did_you_mean(name, &settings)?)));
        near.collect()
    }

    fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.get(&OsString::from(name)).filter(|value| !value.is_empty())
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self {
            dev: matches.get_flag("dev"),
            file: matches.get_one::<PathBuf>("config").cloned(),
            said: BTreeMap::new(),
        };
        for spec in SPECS {
            if let Some(text) = matches.get_one::<String>(spec.key) {
                flags.said.insert(spec.key, text.clone());
            }
        }
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let dev = clap::Arg::new("dev")
            .long("dev")
            .action(clap::ArgAction::SetTrue)
            .help("Try it out: keep everything in ./althing-dev and render a sample file there");
        let file = clap::Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("Settings file [env: {FILE_VARIABLE}=] [default: {DEFAULT_FILE}]"));
        command.arg(dev).arg(file).args(SPECS.map(argument))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// Defaults and variables are told in the help only: clap must not apply them, or their origin
/// would be lost.
fn argument(spec: &'static Spec) -> clap::Arg {
    let argument = clap::Arg::new(spec.key).long(spec.flag);
    let mut help = format!("{} [env: {}=]", spec.doc, spec.env);
    if spec.value_name.is_empty() {
        let switch = argument.num_args(0..=1).require_equals(true).default_missing_value("true");
        return switch.value_name("BOOL").help(help);
    }
    if !spec.default.is_empty() {
        help += &format!(" [default: {}]", spec.default);
    }
    argument.value_name(spec.value_name).help(help)
}

/// What one place says about one setting.
#[derive(Clone, Debug)]
struct Said {
    text: String,
    origin: Origin,
}

/// Works the settings out.
///
/// # Errors
/// Every mistake found, if there is one.
pub fn load(flags: &Flags, surroundings: &Surroundings) -> Result<Config, BadConfig> {
    let mut loader =
        Loader { flags, surroundings, named: None, file: BTreeMap::new(), problems: Vec::new() };
    loader.read_named_file();
    match loader.config() {
        Some(config) if loader.problems.is_empty() => Ok(config),
        Some(_) | None => Err(BadConfig(loader.problems)),
    }
}

struct Loader<'a> {
    flags: &'a Flags,
    surroundings: &'a Surroundings,
    named: Option<SettingsFile>,
    file: BTreeMap<&'static str, Said>,
    problems: Vec<Diagnostic>,
}

impl Loader<'_> {
    /// `None` only together with a problem.
    fn config(&mut self) -> Option<Config> {
        let name = self.setting(&table::NAME);
        let data_dir = self.setting(&table::DATA_DIR);
        let listen_client_urls = self.setting(&table::LISTEN_CLIENT_URLS);
        let advertise_client_urls = self.optional(&table::ADVERTISE_CLIENT_URLS);
        let confdir = self.setting(&table::CONFDIR);
        let allowed_dirs = self.optional(&table::ALLOWED_DIRS);
        let insecure = self.setting(&table::INSECURE);
        let render_timeout = self.setting(&table::RENDER_TIMEOUT);
        let mut config = Config {
            dev: self.flags.dev,
            name: name?,
            data_dir: data_dir?,
            listen_client_urls: listen_client_urls?,
            advertise_client_urls: advertise_client_urls?,
            confdir: confdir?,
            allowed_dirs: allowed_dirs?,
            insecure: insecure?,
            render_timeout: render_timeout?,
            file: self.named.take(),
        };
        if config.confdir.origin == Origin::Dev {
            config.confdir.value.clone_from(&config.data_dir.value);
        }
        self.problems.extend(exposed(&config));
        Some(config)
    }

    fn setting<T>(&mut self, row: &Row<T>) -> Option<Setting<T>> {
        let said = self.winner(&row.spec)?;
        match (row.parse)(&said.text) {
            Ok(value) => Some(Setting { value, origin: said.origin }),
            Err(wrong) => {
                self.problems.push(refusal(&row.spec, &said.origin, wrong));
                None
            }
        }
    }

    /// A list whose default is empty, as `[]` in the file is.
    fn optional<T>(&mut self, row: &Row<Vec<T>>) -> Option<Setting<Vec<T>>> {
        let said = self.winner(&row.spec)?;
        let from_file = matches!(said.origin, Origin::File { .. });
        if said.origin == Origin::Default || (from_file && said.text.is_empty()) {
            return Some(Setting { value: Vec::new(), origin: said.origin });
        }
        self.setting(row)
    }

    fn winner(&mut self, spec: &Spec) -> Option<Said> {
        if let Some(text) = self.flags.said.get(spec.key) {
            return Some(Said { text: text.clone(), origin: Origin::Flag(spec.flag) });
        }
        if let Some(value) = self.surroundings.variable(spec.env) {
            let origin = Origin::Environment(spec.env);
            let Some(text) = value.to_str() else {
                let wrong = Wrong {
                    message: "is not UTF-8".to_owned(),
                    help: "write it in UTF-8".to_owned(),
                };
                self.problems.push(refusal(spec, &origin, wrong));
                return None;
            };
            return Some(Said { text: text.to_owned(), origin });
        }
        Some(self.file.get(spec.key).cloned().unwrap_or_else(|| self.default(spec)))
    }

    fn default(&self, spec: &Spec) -> Said {
        let lives_in_dev_dir = [table::DATA_DIR.spec.key, table::CONFDIR.spec.key];
        let (text, origin) = if spec.key == table::NAME.spec.key {
            (self.surroundings.hostname.as_str(), Origin::Default)
        } else if self.flags.dev && lives_in_dev_dir.contains(&spec.key) {
            (DEV_DIR, Origin::Dev)
        } else {
            (spec.default, Origin::Default)
        };
        Said { text: text.to_owned(), origin }
    }

    fn read_named_file(&mut self) {
        let named = self.flags.file.clone();
        let named = named.or_else(|| self.surroundings.variable(FILE_VARIABLE).map(PathBuf::from));
        let default = self.surroundings.default_file.as_ref().filter(|_| !self.flags.dev);
        let (path, must_exist) = match (named, default) {
            (Some(path), _) => (path, true),
            (None, Some(path)) => (path.clone(), false),
            (None, None) => return,
        };
        let text = read_bounded(&path);
        self.named = Some(SettingsFile { path: path.clone(), read: text.is_ok() });
        match text {
            Ok(text) => self.read_file(&path.display().to_string(), &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {}
            Err(error) => self.problems.push(self.unreadable(&path, &error)),
        }
    }

    fn unreadable(&self, path: &Path, error: &std::io::Error) -> Diagnostic {
        let by = match (&self.flags.file, self.surroundings.variable(FILE_VARIABLE)) {
            (Some(_), _) => "--config names it",
            (None, Some(_)) => "the environment variable ALTHING_CONFIG names it",
            (None, None) => "it is read unless --config names another one",
        };
        let what = match error.kind() {
            std::io::ErrorKind::NotFound => "create it, or name one that is there",
            std::io::ErrorKind::PermissionDenied => "let the user of this process read it",
            _ => "it must be a text file with lines such as `name = \"db1\"`",
        };
        let message = format!("cannot read the settings file: {error}");
        Diagnostic::new(path.display().to_string(), message).help(format!("{by}: {what}"))
    }

    fn read_file(&mut self, path: &str, text: &str) {
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let message = format!("not valid TOML: {}", error.message().replace('\n', ", "));
                let range = error.span().unwrap_or(0..0);
                let help = "a setting is one line `key = value`; text stands in double quotes";
                self.problems.push(Diagnostic::new(path, message).at(text, &range).help(help));
                return;
            }
        };
        for (key, value) in document.get_ref() {
            let Some(spec) = SPECS.iter().find(|spec| spec.key == key.get_ref()) else {
                self.problems.push(unknown(path, text, key));
                continue;
            };
            let place = Place::of(text, &value.span());
            let origin = Origin::File { path: path.to_owned(), place };
            match as_text(value.get_ref()) {
                Ok(text) => {
                    self.file.insert(spec.key, Said { text, origin });
                }
                Err(wrong) => self.problems.push(refusal(spec, &origin, wrong)),
            }
        }
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(limits::CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limits::CONFIG_BYTES_MAX {
        let message = format!("larger than {} bytes", limits::CONFIG_BYTES_MAX);
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// A TOML value as a flag would say it: lists with commas between.
fn as_text(value: &DeValue<'_>) -> Result<String, Wrong> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(yes) => Ok(yes.to_string()),
        DeValue::Array(array) => {
            let parts = array.iter().map(|part| part.get_ref().as_str());
            let parts: Option<Vec<&str>> = parts.collect();
            parts.map(|parts| parts.join(",")).ok_or_else(|| not_text("array"))
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
            Err(not_text(value.type_str()))
        }
    }
}

fn not_text(found: &str) -> Wrong {
    Wrong {
        message: format!("expected text, found {found}"),
        help: "write a string, an array of strings, or true or false".to_owned(),
    }
}

fn unknown(path: &str, text: &str, key: &Spanned<std::borrow::Cow<'_, str>>) -> Diagnostic {
    let known = SPECS.map(|spec| spec.key);
    let name = key.get_ref().replace('-', "_");
    let shown =
        Diagnostic::new(path, format!("unknown key `{}`", key.get_ref())).at(text, &key.span());
    match did_you_mean(&name, &known) {
        Some(near) => shown.help(format!("did you mean `{near}`?")),
        None => shown.help(format!("known keys are: {}", known.join(", "))),
    }
}

/// The place of a value: a line of the file, or the flag's or variable's name.
fn refusal(spec: &Spec, origin: &Origin, wrong: Wrong) -> Diagnostic {
    let message = format!("{}: {}", spec.key, wrong.message);
    let shown = match origin {
        Origin::File { path, place } => {
            Diagnostic { place: Some(Box::new(place.clone())), ..Diagnostic::new(path, message) }
        }
        Origin::Default | Origin::Dev | Origin::Environment(_) | Origin::Flag(_) => {
            Diagnostic::new(origin.to_string(), message)
        }
    };
    shown.help(wrong.help)
}

/// Plain text beyond loopback needs consent (DESIGN decision 20).
fn exposed(config: &Config) -> Option<Diagnostic> {
    let listeners = &config.listen_client_urls;
    let open = |url: &&ListenUrl| !url.is_loopback();
    let open = listeners.value.iter().find(open).filter(|_| !config.insecure.value)?;
    let wrong = Wrong {
        message: format!(
            "`{open}` can be reached from other hosts, and anyone there could read and change \
             everything: the connection is neither encrypted nor authenticated"
        ),
        help: "listen on 127.0.0.1, or say --insecure (insecure = true) if the network is trusted"
            .to_owned(),
    };
    Some(refusal(&table::LISTEN_CLIENT_URLS.spec, &listeners.origin, wrong))
}

#[cfg(test)]
mod tests;
