//! What edited settings would change in a daemon that runs.
//!
//! Why: at a reload (SIGHUP) some settings can change at once and others only at a restart, and an
//! operator who edits the wrong kind must be told, not left to wonder.
//!
//! How data passes: the settings in force and those just read -> one `Change` a difference ->
//! the daemon takes over the live ones (`adopt`) and says what it did with each.
//!
//! Invariant: after `adopt`, the settings in force are those the process really runs with.
//!
//! Deliberately not here: acting on a change (`daemon`).

use crate::config::Config;

/// A setting whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its key.
    pub key: &'static str,
    /// The value in force, as the settings file would say it.
    pub old: String,
    /// The value that was read.
    pub new: String,
    /// Whether it takes effect now; else at a restart.
    pub live: bool,
}

/// The settings that differ.
#[must_use]
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let pairs = old.shown().into_iter().zip(new.shown());
    let differing = pairs.filter(|(old, new)| old.value != new.value).map(|(old, new)| Change {
        key: old.spec.key,
        old: old.value.to_string(),
        new: new.value.to_string(),
        live: old.spec.live,
    });
    differing.collect()
}

impl Config {
    /// Takes over what can change in a running daemon.
    pub fn adopt(&mut self, new: &Self) {
        self.confdir.clone_from(&new.confdir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Surroundings, load};

    fn config(confdir: &str, name: &str) -> Config {
        let surroundings = Surroundings {
            hostname: name.to_owned(),
            environment: std::collections::BTreeMap::new(),
            default_file: None,
        };
        load(&Flags::of(None, Some(confdir.to_owned())), &surroundings).unwrap()
    }

    #[test]
    fn what_is_live_is_adopted_and_the_rest_is_told() {
        let (mut old, new) = (config("/a", "one"), config("/b", "two"));
        let told = changes(&old, &new);
        let rows: Vec<_> = told.iter().map(|c| (c.key, &*c.old, &*c.new, c.live)).collect();
        let expected =
            [("name", "\"one\"", "\"two\"", false), ("confdir", "\"/a\"", "\"/b\"", true)];
        assert_eq!(rows, expected);
        old.adopt(&new);
        assert_eq!(changes(&old, &new).len(), 1, "every live setting is adopted");
        assert!(changes(&old, &old.clone()).is_empty());
    }

    #[test]
    fn every_setting_is_shown_in_the_order_of_the_table() {
        let config = config("/a", "one");
        let keys: Vec<&str> = config.shown().iter().map(|row| row.spec.key).collect();
        assert_eq!(keys, crate::config::table::SPECS.map(|spec| spec.key));
    }
}
