//! Settings that are read again while the daemon runs.
//!
//! Why: an edited settings file must not need a restart where it can take effect at once, and must
//! never take a daemon down: a mistake is told and the old settings stay.
//!
//! How data passes: SIGHUP -> the same flags and variables, the file as it is now -> `config` ->
//! one log line a change -> whether the renderer has to move to another confdir.
//!
//! Invariants:
//! * The settings in force are those the process runs with: what needs a restart is named and not
//!   taken over.
//! * New settings are taken over whole or not at all.
//!
//! Deliberately not here: reading resources and templates again; the renderer does that at every
//! reload, whatever becomes of the settings.

use crate::base::diagnostic::Diagnostic;
use crate::config::change::{Change, changes};
use crate::config::{self, BadConfig, Config, Flags, Origin, Surroundings};
use std::cell::RefCell;

/// The settings of a daemon that runs.
pub(crate) struct Settings<'a> {
    flags: &'a Flags,
    surroundings: Surroundings,
    in_force: RefCell<Config>,
}

/// What a reload asks of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reloaded {
    /// Nothing beyond reading resources and templates again.
    AsBefore,
    /// Render from the confdir the settings name now.
    OtherConfdir,
}

impl<'a> Settings<'a> {
    /// The settings the process started with, and where they came from.
    pub(crate) fn new(flags: &'a Flags, surroundings: Surroundings, config: Config) -> Self {
        Self { flags, surroundings, in_force: RefCell::new(config) }
    }

    /// What is in force.
    pub(crate) fn config(&self) -> Config {
        self.in_force.borrow().clone()
    }

    /// Reads them again, and says in the log what becomes of each change.
    pub(crate) fn reload(&self) -> Reloaded {
        match self.read() {
            Ok((new, changed)) => {
                changed.iter().for_each(tell);
                let mut in_force = self.in_force.borrow_mut();
                let moved = in_force.confdir.value != new.confdir.value;
                in_force.adopt(&new);
                if moved { Reloaded::OtherConfdir } else { Reloaded::AsBefore }
            }
            Err(bad) => {
                tracing::error!("the new settings are refused, the old ones stay in force\n{bad}");
                Reloaded::AsBefore
            }
        }
    }

    fn read(&self) -> Result<(Config, Vec<Change>), BadConfig> {
        let new = config::load(self.flags, &self.surroundings)?;
        let in_force = self.in_force.borrow();
        let resources = new.confdir.value.join("conf.d");
        let is_new = new.confdir.value != in_force.confdir.value;
        if is_new && new.confdir.origin != Origin::Default && !resources.is_dir() {
            let message = format!("confdir: there is no directory {}", resources.display());
            let problem = Diagnostic::new(new.confdir.origin.to_string(), message);
            return Err(BadConfig(vec![problem.help("create it, or name another confdir")]));
        }
        let changed = changes(&in_force, &new);
        Ok((new, changed))
    }
}

fn tell(change: &Change) {
    let Change { key, old, new, live } = change;
    if *live {
        tracing::info!("setting {key} is {new} now, it was {old}");
    } else {
        tracing::warn!("setting {key} = {new} needs a restart; until then it stays {old}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;

    #[test]
    fn a_bad_file_changes_nothing_and_a_good_one_what_it_can() {
        fs::create_dir_all("target").unwrap();
        let dir = tempfile::tempdir_in("target").unwrap();
        let file = dir.path().join("althing.toml");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::create_dir_all(one.join("conf.d")).unwrap();
        let write = |name: &str, confdir: &std::path::Path| {
            fs::write(&file, format!("name = \"{name}\"\nconfdir = {:?}\n", confdir)).unwrap();
        };
        write("a", &one);
        let surroundings = Surroundings {
            hostname: "h".to_owned(),
            environment: BTreeMap::new(),
            default_file: Some(file.clone()),
        };
        let flags = Flags::default();
        let config = config::load(&flags, &surroundings).unwrap();
        let settings = Settings::new(&flags, surroundings, config);
        assert_eq!(settings.reload(), Reloaded::AsBefore);

        write("a", &two);
        assert_eq!(settings.reload(), Reloaded::AsBefore, "its conf.d is missing");
        assert_eq!(settings.config().confdir.value, one);
        fs::write(&file, "nam = 1").unwrap();
        assert_eq!(settings.reload(), Reloaded::AsBefore);

        fs::create_dir_all(two.join("conf.d")).unwrap();
        write("b", &two);
        assert_eq!(settings.reload(), Reloaded::OtherConfdir);
        assert_eq!((settings.config().confdir.value, &*settings.config().name.value), (two, "a"));
        assert_eq!(settings.reload(), Reloaded::AsBefore);
    }
}
