//! Settings as a table: what is said where, what comes out and from where, and how mistakes read.

use super::*;
use crate::base::report::{Exit, Report};
use clap::{Args, FromArgMatches};
use std::fs;
use tempfile::TempDir;

/// A host called `box1` with an empty settings directory.
struct Host {
    dir: TempDir,
    surroundings: Surroundings,
}

impl Host {
    fn new() -> Self {
        fs::create_dir_all("target").unwrap();
        let dir = tempfile::tempdir_in("target").unwrap();
        let surroundings = Surroundings {
            hostname: "box1".to_owned(),
            environment: BTreeMap::new(),
            default_file: Some(dir.path().join("althing.toml")),
        };
        Self { dir, surroundings }
    }

    fn file(self, text: &str) -> Self {
        fs::write(self.dir.path().join("althing.toml"), text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.surroundings.environment.insert(name.into(), value.into());
        self
    }

    fn load(&self, flags: &[&str]) -> Result<Config, BadConfig> {
        load(&parse(flags), &self.surroundings)
    }

    /// The refusal, with the directory of this test shown as `DIR`.
    fn refusal(&self, flags: &[&str]) -> String {
        let report = Report::from(self.load(flags).unwrap_err());
        assert_eq!(report.exit, Exit::Config);
        report.to_string().replace(&self.dir.path().display().to_string(), "DIR")
    }
}

fn parse(flags: &[&str]) -> Flags {
    let command = Flags::augment_args(clap::Command::new("run").no_binary_name(true));
    Flags::from_arg_matches(&command.try_get_matches_from(flags).unwrap()).unwrap()
}

/// `key = value (origin)` for every setting.
fn shown(config: &Config) -> String {
    let shown = config.shown();
    let rows = shown.iter().map(|row| {
        let (key, value, origin) = (row.spec.key, &row.value, row.origin);
        format!("{key} = {value} ({origin})\n")
    });
    rows.collect()
}

#[test]
fn defaults_are_those_of_a_packaged_host() {
    let expected = "\
name = \"box1\" (the default)
data_dir = \"/var/lib/althing\" (the default)
listen_client_urls = [\"http://127.0.0.1:2379\", \"http://[::1]:2379\"] (the default)
advertise_client_urls = [] (the default)
confdir = \"/etc/althing\" (the default)
allowed_dirs = [] (the default)
insecure = false (the default)
render_timeout = \"30s\" (the default)
";
    assert_eq!(shown(&Host::new().load(&[]).unwrap()), expected);
}

#[test]
fn dev_lives_below_one_directory() {
    let host = Host::new().file("name = \"ignored\"");
    let config = host.load(&["--dev"]).unwrap();
    assert!(config.dev);
    assert_eq!(config.name.value, "box1");
    assert_eq!(config.data_dir.value, Path::new("./althing-dev"));
    assert_eq!(
        (&config.confdir.value, config.confdir.origin),
        (&config.data_dir.value, Origin::Dev)
    );
    let moved = host.load(&["--dev", "--data-dir", "x"]).unwrap();
    assert_eq!((moved.data_dir.value, moved.confdir.value), ("x".into(), "x".into()));
    let apart = host.load(&["--dev", "--confdir", "y"]).unwrap();
    assert_eq!(apart.confdir, Setting { value: "y".into(), origin: Origin::Flag("confdir") });
}

#[test]
fn each_place_beats_the_one_before() {
    let file = "name = \"file\"\ndata_dir = \"/file\"\n\
                listen_client_urls = [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"]\n\
                advertise_client_urls = []\nconfdir = \"/file\"\ninsecure = true\n";
    let host = Host::new()
        .file(file)
        .variable("ALTHING_DATA_DIR", "/variable")
        .variable("ALTHING_CONFDIR", "/variable")
        .variable("ALTHING_NAME", "");
    let config = host.load(&["--confdir", "/flag", "--insecure=false"]).unwrap();
    let expected = "\
name = \"file\" (DIR/althing.toml:1:8)
data_dir = \"/variable\" (the environment variable ALTHING_DATA_DIR)
listen_client_urls = [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"] (DIR/althing.toml:3:22)
advertise_client_urls = [] (DIR/althing.toml:4:25)
confdir = \"/flag\" (--confdir)
allowed_dirs = [] (the default)
insecure = false (--insecure)
render_timeout = \"30s\" (the default)
";
    let dir = host.dir.path().display().to_string();
    assert_eq!(shown(&config).replace(&dir, "DIR"), expected);
}

#[test]
fn another_file_can_be_named() {
    let host = Host::new().file("name = \"default\"");
    let other = host.dir.path().join("other.toml");
    fs::write(&other, "name = \"other\"").unwrap();
    let other = other.to_str().unwrap();
    assert_eq!(host.load(&["--config", other]).unwrap().name.value, "other");
    let host = host.variable("ALTHING_CONFIG", other);
    assert_eq!(host.load(&[]).unwrap().name.value, "other");
    assert_eq!(host.load(&["--dev"]).unwrap().name.value, "other");
    let missing = host.refusal(&["--config", "DIR/missing.toml"]);
    assert!(missing.contains("cannot read the settings file: No such file"), "{missing}");
    assert!(missing.contains("--> DIR/missing.toml"), "{missing}");
    assert!(missing.contains("help: --config names it: create it"), "{missing}");
}

#[test]
fn mistakes_in_the_file_show_their_place() {
    let table = [
        (
            "name = \"a\"\ndata-dri = \"/x\"\n",
            "error: unknown key `data-dri`\n --> DIR/althing.toml:2:1\n  |\n2 | data-dri = \"/x\"\n  \
             | ^^^^^^^^\n  = help: did you mean `data_dir`?",
        ),
        (
            "[banana]\n",
            "error: unknown key `banana`\n --> DIR/althing.toml:1:2\n  |\n1 | [banana]\n  |  ^^^^^^\n  \
             = help: known keys are: name, data_dir, listen_client_urls, advertise_client_urls, \
             confdir, allowed_dirs, insecure, render_timeout",
        ),
        (
            "insecure = 1\n",
            "error: insecure: expected text, found integer\n --> DIR/althing.toml:1:12\n  |\n1 | insecure = 1\n  \
             |            ^\n  = help: write a string, an array of strings, or true or false",
        ),
        (
            "listen_client_urls = [\"http://127.0.0.1\"]",
            "error: listen_client_urls: `http://127.0.0.1` has no valid port\n \
             --> DIR/althing.toml:1:22\n  |\n1 | listen_client_urls = [\"http://127.0.0.1\"]\n  \
             |                      ^^^^^^^^^^^^^^^^^^^^\n  \
             = help: write an address of this host, such as http://127.0.0.1:2379",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(Host::new().file(text).refusal(&[]), expected);
    }
    let broken = Host::new().file("name = \n").refusal(&[]);
    assert!(broken.contains(" --> DIR/althing.toml:1:"), "{broken}");
}

#[test]
fn bad_values_name_their_origin() {
    let host = Host::new().variable("ALTHING_INSECURE", "perhaps");
    let expected = "\
error: name: is not a name
 --> --name
 = help: write one word without control characters, such as the host name
error: insecure: is neither true nor false
 --> the environment variable ALTHING_INSECURE
 = help: write true or false";
    assert_eq!(host.refusal(&["--name", ""]), expected);
}

#[test]
fn plain_text_beyond_loopback_needs_consent() {
    let flags = ["--listen-client-urls", "http://127.0.0.1:1,http://0.0.0.0:2"];
    let refusal = Host::new().refusal(&flags);
    let start = "error: listen_client_urls: `http://0.0.0.0:2` can be reached from other hosts";
    assert!(refusal.starts_with(start), "{refusal}");
    assert!(refusal.contains("--> --listen-client-urls\n = help: listen on 127.0.0.1, or say"));
    let consent = [flags[0], flags[1], "--insecure"];
    assert_eq!(Host::new().load(&consent).unwrap().listen_client_urls.value.len(), 2);
}

#[test]
fn a_variable_must_be_text() {
    use std::os::unix::ffi::OsStringExt;
    let mut host = Host::new();
    let bytes = OsString::from_vec(vec![0xff]);
    host.surroundings.environment.insert("ALTHING_NAME".into(), bytes);
    assert!(host.refusal(&[]).starts_with("error: name: is not UTF-8\n --> the environment"));
}

#[test]
fn misspelt_variables_are_told() {
    let host = Host::new().variable("ALTHING_DATADIR", "/x").variable("ALTHING_LOG", "info");
    let host = host.variable("ALTHING_SOMETHING_ELSE", "1").variable("ALTHING_NAME", "a");
    assert_eq!(host.surroundings.misspelt(), [("ALTHING_DATADIR".to_owned(), "ALTHING_DATA_DIR")]);
}
